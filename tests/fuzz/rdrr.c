/* fuzz rdrr: any text as the manifest of a pack, over shards of the names and sizes that it gives.
 *
 * The input is the manifest up to its first zero byte; what follows becomes the content of every
 * other file that the manifest lists, a tensorsFile above all. Shards are as long as said, so that
 * what lies behind the check of their sizes is reached, and hold zeros. What opens is read through,
 * decoded and verified. */
#define _GNU_SOURCE

#include "tests/fuzz/fuzz.h"

#include <fcntl.h>
#include <stdlib.h>

enum {
    INPUT_MAX = 1 << 16,
    FILES_AT_MOST = 16,
    SHARD_AT_MOST = 1 << 16,
    DECODED_AT_MOST = 1 << 16,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char folder[64];

static void remove_pack_folder(void) {
    rmdir(folder);
}

static void make_pack_folder(void) {
    snprintf(folder, sizeof(folder), "%s/fuzz-rdrr-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    fuzz_check(mkdtemp(folder) != NULL);
    atexit(remove_pack_folder);
}

static void put_file(int at, const char *name, const void *bytes, size_t n, uint64_t length) {
    const int fd = openat(at, name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0) return; /* a name that this file system cannot have */
    fuzz_check(write(fd, bytes, n) == (ssize_t)n && ftruncate(fd, (off_t)length) == 0);
    close(fd);
}

/* Decodes and verifies; zeros have none of the hashes, so a verdict other than wrong must come with
 * nothing hashed. */
static void use_pack(void) {
    static float values[DECODED_AT_MOST];
    dp_error err = { 0 };
    container *c = container_open(folder, false, &err);
    if (c == NULL) return;
    for (uint32_t i = 0; i < container_n_tensors(c); i++) {
        const tensor *t = container_tensor(c, i);
        const uint64_t rows = tensor_rows(t), cols = t->n_dims > 0 ? t->shape[t->n_dims - 1] : 1;
        if (cols > DECODED_AT_MOST) continue;
        const uint32_t n = (uint32_t)min_u64(rows, DECODED_AT_MOST / cols);
        fuzz_check(container_decode(c, t, rows - n, n, values, &err) ||
                   err.status == DP_E_UNSUPPORTED);
        err = (dp_error){ 0 };
    }
    const bool right = container_verify(c, &(verify_options){ .n_threads = 1 }, NULL, &err);
    fuzz_check(right == (err.status == DP_OK));
    container_close(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (folder[0] == '\0') make_pack_folder();
    if (size > INPUT_MAX) return 0;
    const uint8_t *zero = size > 0 ? memchr(data, 0, size) : NULL;
    const size_t n = zero != NULL ? (size_t)(zero - data) : size;
    const size_t n_rest = zero != NULL ? size - n - 1 : 0;
    dp_error err = { 0 };
    pack_listing *l = pack_list((str){ (const char *)data, n }, "manifest", &err);
    fuzz_check((l == NULL) == (err.status != DP_OK));
    const uint32_t n_files = l != NULL ? min_u32(pack_list_count(l), FILES_AT_MOST) : 0;
    const int at = open(folder, O_RDONLY | O_DIRECTORY);
    fuzz_check(at >= 0);
    put_file(at, "manifest.json", data, n, n);
    for (uint32_t i = 0; i < n_files; i++) {
        const pack_file *f = pack_list_at(l, i);
        fuzz_check(f->name.size > 0 && memchr(f->name.data, '/', f->name.size) == NULL);
        const bool is_small = f->is_shard && f->size <= SHARD_AT_MOST;
        put_file(at, f->name.data, zero != NULL && !f->is_shard ? zero + 1 : data,
                 f->is_shard ? 0 : n_rest, f->is_shard ? (is_small ? f->size : 0) : n_rest);
    }
    fuzz_container(folder, true);
    fuzz_container(folder, false);
    use_pack();
    for (uint32_t i = 0; i < n_files; i++)
        unlinkat(at, pack_list_at(l, i)->name.data, 0);
    unlinkat(at, "manifest.json", 0);
    close(at);
    pack_list_free(l);
    return 0;
}
