/* fuzz: what the fuzzers of containers share. An input becomes a file in memory, opened by path as
 * any other; whatever opens is read through. */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include "format/format.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

/* Ends the run: the property does not hold for this input. */
static inline void fuzz_check(bool holds) {
    if (!holds) __builtin_trap();
}

/* Path of a file with these bytes, good until the next call. */
static inline const char *fuzz_file(const uint8_t *data, size_t size) {
    static int fd = -1;
    static char path[64];
    if (fd < 0) fd = memfd_create("fuzz", 0);
    fuzz_check(fd >= 0 && ftruncate(fd, 0) == 0);
    fuzz_check(pwrite(fd, data, size, 0) == (ssize_t)size);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return path;
}

static inline uint64_t fuzz_ends(str s) {
    return s.size == 0 ? 0 : (uint64_t)(unsigned char)s.data[0] + (uint8_t)s.data[s.size - 1];
}

/* A refusal says something in one line; an open container keeps what container_open promises. */
static inline void fuzz_container(const char *path, bool vocab_only) {
    dp_error err = { 0 };
    container *c = container_open(path, vocab_only, &err);
    if (c == NULL) {
        fuzz_check(err.status != DP_OK && err.message[0] != '\0');
        for (const char *at = err.message; *at != '\0'; at++) fuzz_check((unsigned char)*at >= 32);
        return;
    }
    fuzz_check(err.status == DP_OK);
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < container_n_tensors(c); i++) {
        const tensor *t = container_tensor(c, i);
        uint64_t n = 1;
        char byte;
        for (uint32_t k = 0; k < t->n_dims; k++) fuzz_check(mul_u64(n, t->shape[k], &n));
        fuzz_check(n == t->n_elements && dtype_get(t->type) != NULL);
        bytes += t->n_bytes;
        if (t->n_bytes == 0) continue;
        fuzz_check(container_read(c, t, 0, &byte, 1, NULL));
        fuzz_check(container_read(c, t, t->n_bytes - 1, &byte, 1, NULL));
        fuzz_check(!container_read(c, t, t->n_bytes, &byte, 1, NULL));
    }
    fuzz_check(bytes == container_bytes(c));
    uint64_t sum = 0; /* every value is touched, so that a sanitizer sees bad ones */
    str key;
    for (uint32_t i = 0; i < container_n_meta(c); i++) {
        const meta_value *v = container_meta_at(c, i, &key);
        sum += fuzz_ends(key);
        if (v->type == META_STRING) sum += fuzz_ends(v->s);
        for (uint32_t k = 0; v->type == META_ARRAY && k < v->n; k++) {
            if (v->element == META_STRING) {
                sum += fuzz_ends(v->strings[k]);
            } else if (v->element == META_FLOAT) {
                sum += v->floats[k] > 0;
            } else {
                sum += (uint64_t)v->ints[k];
            }
        }
    }
    __asm__ volatile("" : : "r"(sum)); /* keeps the sum */
    container_close(c);
}

#endif
