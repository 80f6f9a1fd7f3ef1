/* test_pack: RDRR packs, their hashes, and verification.
 *
 * The packs in tests/vectors/packs are written by a writer of their own (make_packs.py), one in the
 * dialect of each time; what each tensor's values must be is beside them as SHA-256. Hostile packs
 * are made here: a good one is copied, then one thing in it is changed. */
#define _GNU_SOURCE

#include "format/format.h"
#include "tests/test.h"

#include <dirent.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const pack_names[] = { "july",  "groups", "seeds", "march",
                                          "april", "june",   "ours",  "kinds" };

/* ---- hashes -------------------------------------------------------------------------------- */

static void hex_of(hash_kind kind, const void *bytes, size_t n, char text[HASH_HEX_BYTES]) {
    hash_state h;
    unsigned char digest[HASH_BYTES];
    hash_begin(&h, kind);
    hash_add(&h, bytes, n);
    hash_end(&h, digest);
    hash_to_hex(digest, text);
}

/* The input of BLAKE3's published vectors: bytes 0 to 250, over and over. */
static unsigned char *counting_bytes(test *t, size_t n) {
    unsigned char *bytes = test_alloc(t, n, 1);
    for (size_t i = 0; i < n; i++)
        bytes[i] = (unsigned char)(i % 251);
    return bytes;
}

static void hashes_equal_published_vectors(test *t) {
    static const struct {
        const char *text, *hex;
    } sha[] = { /* FIPS 180-4 examples, and the empty text */
                { "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" },
                { "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" },
                { "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                  "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1" }
    };
    static const struct {
        size_t n;
        const char *hex;
    } blake[] = { /* test_vectors.json of BLAKE3: about the ends of blocks, chunks and subtrees */
                  { 0, "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262" },
                  { 1, "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213" },
                  { 1023, "10108970eeda3eb932baac1428c7a2163b0e924c9a9e25b35bba72b28f70bd11" },
                  { 1024, "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7" },
                  { 1025, "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444" },
                  { 2048, "e776b6028c7cd22a4d0ba182a8bf62205d2ef576467e838ed6f2529b85fba24a" },
                  { 2049, "5f4d72f40d7a5f82b15ca2b2e44b1de3c2ef86c426c95c1af0b6879522563030" },
                  { 3072, "b98cb0ff3623be03326b373de6b9095218513e64f1ee2edd2525c7ad1e5cffd2" },
                  { 3073, "7124b49501012f81cc7f11ca069ec9226cecb8a2c850cfe644e327d22d3e1cd3" },
                  { 102400, "bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085" }
    };
    char got[HASH_HEX_BYTES];
    for (size_t i = 0; i < ARRAY_LEN(sha); i++) {
        hex_of(HASH_SHA256, sha[i].text, strlen(sha[i].text), got);
        CHECK_STR(t, str_of(got), sha[i].hex);
    }
    unsigned char *bytes = counting_bytes(t, 102400);
    for (size_t i = 0; i < ARRAY_LEN(blake); i++) {
        test_row(t, "%zu bytes", blake[i].n);
        hex_of(HASH_BLAKE3, bytes, blake[i].n, got);
        CHECK_STR(t, str_of(got), blake[i].hex);
    }
    hex_of(HASH_BLAKE3_VARIANT, bytes, 0, got);
    CHECK_STR(t, str_of(got), "fda1200e7626ed65703a9c8eb28987d8142bf29fcf7cf582e0c44cc7ad8a8ea8");
}

/* However the bytes are handed over, and of a state that was copied half-way. */
static void hashes_do_not_depend_on_pieces(test *t) {
    const size_t n = 20000;
    unsigned char *bytes = counting_bytes(t, n), digest[HASH_BYTES];
    for (int kind = HASH_SHA256; kind <= HASH_BLAKE3_VARIANT; kind++) {
        char whole[HASH_HEX_BYTES], pieces[HASH_HEX_BYTES];
        hex_of((hash_kind)kind, bytes, n, whole);
        for (int round = 0; round < 20; round++) {
            hash_state h, copy;
            hash_begin(&h, (hash_kind)kind);
            for (size_t at = 0; at < n;) {
                const size_t take = (size_t)min_u64(test_below(t, 3000), n - at);
                hash_add(&h, bytes + at, take);
                at += take;
                copy = h;
                hash_add(&h, "dropped", 7);
                h = copy;
            }
            hash_end(&h, digest);
            hash_to_hex(digest, pieces);
            CHECK_STR(t, str_of(pieces), whole);
        }
    }
}

static void digests_are_read_from_hex_alone(test *t) {
    static const char *const bad[] = {
        "",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b8555",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85g",
        "0xb0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    };
    unsigned char digest[HASH_BYTES];
    char text[HASH_HEX_BYTES];
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        CHECK(t, !hash_from_hex(str_of(bad[i]), digest));
    }
    const char *upper = "E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B85F";
    CHECK(t, hash_from_hex(str_of(upper), digest));
    hash_to_hex(digest, text);
    CHECK_STR(t, str_of(text), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85f");
}

static void padded_rows_are_whole_blocks(test *t) {
    uint64_t bytes = 0;
    CHECK(t, dtype_padded_row_bytes(DTYPE_Q4_K, 256, &bytes) && bytes == 144);
    CHECK(t, dtype_padded_row_bytes(DTYPE_Q4_K, 257, &bytes) && bytes == 288);
    CHECK(t, dtype_padded_row_bytes(DTYPE_Q8_0, 1, &bytes) && bytes == 34);
    CHECK(t, dtype_padded_row_bytes(DTYPE_F16, 3, &bytes) && bytes == 6);
    CHECK(t, dtype_padded_row_bytes(DTYPE_F16, 0, &bytes) && bytes == 0);
    CHECK(t, dtype_padded_row_bytes(DTYPE_Q4_0, UINT64_MAX, &bytes) && bytes == 18ull << 59);
    CHECK(t, !dtype_padded_row_bytes(DTYPE_F32, UINT64_MAX, &bytes));
    CHECK(t, !dtype_padded_row_bytes(DTYPE_COUNT, 1, &bytes));
}

/* ---- packs in folders ---------------------------------------------------------------------- */

static const char *pack_path(test *t, const char *name) {
    return test_vector(t, test_printf(t, "packs/%s", name));
}

static void write_bytes_to(test *t, const char *path, const void *bytes, size_t n) {
    FILE *f = fopen(path, "wb");
    CHECK(t, f != NULL && fwrite(bytes, 1, n, f) == n && fclose(f) == 0);
}

/* A copy of a pack that may be changed, in a folder of this name. */
static const char *copy_pack(test *t, const char *name, const char *as) {
    const char *from = pack_path(t, name), *to = test_printf(t, "%s/%s", test_folder(t), as);
    CHECK(t, mkdir(to, 0777) == 0);
    DIR *folder = opendir(from);
    for (struct dirent *e; folder != NULL && (e = readdir(folder)) != NULL;) {
        if (e->d_name[0] == '.') continue;
        const str bytes = test_read_file(t, test_printf(t, "%s/%s", from, e->d_name));
        write_bytes_to(t, test_printf(t, "%s/%s", to, e->d_name), bytes.data, bytes.size);
    }
    if (folder != NULL) closedir(folder);
    return to;
}

static void write_manifest(test *t, const char *pack, str text) {
    write_bytes_to(t, test_printf(t, "%s/manifest.json", pack), text.data, text.size);
}

/* `text` with the first `from` in it replaced; it must be there. */
static str replaced(test *t, str text, const char *from, const char *to) {
    const size_t n = strlen(from), m = strlen(to);
    const char *at = memmem(text.data, text.size, from, n);
    if (!CHECK_MSG(t, at != NULL, "no %s in the manifest", from)) return text;
    char *out = test_alloc(t, text.size - n + m + 1, 1);
    const size_t before = (size_t)(at - text.data);
    memcpy(out, text.data, before);
    memcpy(out + before, to, m);
    memcpy(out + before + m, at + n, text.size - before - n);
    return (str){ out, text.size - n + m };
}

static container *open_pack(test *t, const char *path) {
    container *c = container_open(path, false, &t->err);
    CHECK_MSG(t, c != NULL, "%s: %s", path, t->err.message);
    return c;
}

static float *decode_all(test *t, container *c, const tensor *x) {
    float *out = test_floats(t, x->n_elements);
    CHECK_MSG(t, container_decode(c, x, 0, (uint32_t)tensor_rows(x), out, &t->err), "%.*s: %s",
              STR_ARG(x->name), t->err.message);
    return out;
}

static void check_values_of(test *t, container *c, const tensor *x, const json_value *want) {
    uint64_t n = 0;
    char hex[HASH_HEX_BYTES];
    str hash = { NULL, 0 };
    const json_value *shape = json_get(want, "shape");
    json_string(json_get(want, "sha256"), &hash);
    CHECK_U64(t, x->n_dims, json_count(shape));
    for (uint32_t i = 0; i < x->n_dims; i++) {
        CHECK(t, json_u64(json_at(shape, i), &n) && x->shape[i] == n);
    }
    hex_of(HASH_SHA256, decode_all(t, c, x), x->n_elements * sizeof(float), hex);
    CHECK_STR(t, hash, hex);
    CHECK(t, x->role.size > 0 && x->group.size > 0);
}

/* To the bit: types, layouts, packings, spans, maps of every dialect. */
static void packs_of_every_dialect_are_read(test *t) {
    for (size_t i = 0; i < ARRAY_LEN(pack_names); i++) {
        const char *path = test_printf(t, "%s/values.json", pack_path(t, pack_names[i]));
        json *values = json_open(test_read_file(t, path), path, &t->err);
        container *c = open_pack(t, pack_path(t, pack_names[i]));
        if (c == NULL || values == NULL) return;
        CHECK(t, container_kind_of(c) == CONTAINER_RDRR);
        CHECK_U64(t, container_n_tensors(c), json_count(json_root(values)));
        for (uint32_t k = 0; k < container_n_tensors(c); k++) {
            const tensor *x = container_tensor(c, k);
            char *name = test_printf(t, "%.*s", (int)x->name.size, x->name.data);
            test_row(t, "%s: %s", pack_names[i], name);
            check_values_of(t, c, x, json_get(json_root(values), name));
        }
        container_close(c);
        json_close(values);
    }
}

/* Rows asked for in any portion are those of the whole. */
static void rows_decode_in_any_portion(test *t) {
    container *c = open_pack(t, pack_path(t, "kinds"));
    if (c == NULL) return;
    for (uint32_t k = 0; k < container_n_tensors(c); k++) {
        const tensor *x = container_tensor(c, k);
        const uint64_t rows = tensor_rows(x), cols = x->n_elements / rows;
        const float *all = decode_all(t, c, x);
        float *some = test_floats(t, x->n_elements);
        test_row(t, "%.*s", STR_ARG(x->name));
        for (int round = 0; round < 6; round++) {
            const uint64_t first = test_below(t, rows), n = 1 + test_below(t, rows - first);
            CHECK(t, container_decode(c, x, first, (uint32_t)n, some, &t->err));
            CHECK(t, memcmp(some, all + first * cols, n * cols * sizeof(float)) == 0);
        }
        CHECK(t, !container_decode(c, x, rows, 1, some, &t->err));
        CHECK_ERROR(t, &t->err, DP_E_ARGUMENT, "rows from");
        CHECK(t, container_decode(c, x, rows, 0, some, &t->err));
    }
    container_close(c);
}

/* The same numbers come out of GGUF and safetensors, and of bytes taken as rows where that may be
 * done. */
static void plain_tensors_are_rows_of_their_type(test *t) {
    static const char *const paths[] = { "packs/kinds", "models/llama3-gqa",
                                         "gguf/q6_k/model.gguf" };
    uint32_t n_plain = 0, n_other = 0;
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        container *c = open_pack(t, test_vector(t, paths[i]));
        for (uint32_t k = 0; c != NULL && k < container_n_tensors(c); k++) {
            const tensor *x = container_tensor(c, k);
            const uint64_t rows = tensor_rows(x), cols = x->n_elements / rows;
            uint64_t row_bytes = 0, blocks;
            if (!tensor_is_plain(x)) {
                n_other++;
                continue;
            }
            n_plain++;
            const uint32_t block = dtype_get(x->type)->block_elements;
            CHECK(t, dtype_padded_row_bytes(x->type, cols, &row_bytes));
            CHECK_U64(t, x->n_bytes, rows * row_bytes);
            blocks = (cols + block - 1) / block;
            char *bytes = test_alloc(t, x->n_bytes, 1);
            float *row = test_floats(t, blocks * block), *all = decode_all(t, c, x);
            CHECK(t, container_read(c, x, 0, bytes, (size_t)x->n_bytes, &t->err));
            for (uint64_t r = 0; r < rows; r++) {
                CHECK(t, quant_decode(x->type, bytes + r * row_bytes, row, blocks * block));
                if (!CHECK(t, memcmp(row, all + r * cols, cols * sizeof(float)) == 0)) break;
            }
        }
        container_close(c);
    }
    CHECK(t, n_plain > 40 && n_other > 20);
}

/* ---- what a pack answers ------------------------------------------------------------------- */

static bool has_json(test *t, container *c, const char *name) {
    const json_value *v = container_json(c, name, &t->err);
    CHECK_MSG(t, t->err.status == DP_OK, "%s: %s", name, t->err.message);
    return v != NULL;
}

static void packs_answer_for_their_files(test *t) {
    const char *ours = copy_pack(t, "ours", "ours"), *july = copy_pack(t, "july", "july");
    write_bytes_to(t, test_printf(t, "%s/config.json", july), "{\"model_type\": \"x\"}", 19);
    write_bytes_to(t, test_printf(t, "%s/chat_template.jinja", july), "{{ x }}", 7);
    container *c = open_pack(t, ours);
    str text;
    if (c == NULL) return;
    CHECK_STR(t, container_draft_model(c), "toy-ours-draft");
    CHECK(t, has_json(t, c, "tokenizer.json") && has_json(t, c, "generation_config.json"));
    CHECK(t, has_json(t, c, "manifest.json") && !has_json(t, c, "tokenizer_config.json"));
    CHECK(t, container_json(c, "manifest.json", NULL) == container_manifest(c));
    const json_value *config = container_json(c, "config.json", &t->err);
    CHECK(t, json_string(json_get(config, "model_type"), &text) && str_is(text, "llama"));
    CHECK_U64(t, container_n_files(c), 4);
    container_close(c);

    c = open_pack(t, july);
    if (c == NULL) return;
    CHECK(t, !has_json(t, c, "config.json")); /* a file is not the manifest's word */
    CHECK(t, !has_json(t, c, "tokenizer.json") && container_draft_model(c).size == 0);
    buf template;
    buf_init(&template, 100);
    CHECK(t, container_text(c, "chat_template.jinja", &template, &t->err));
    CHECK_STR(t, ((str){ template.data, template.size }), "{{ x }}");
    CHECK(t, !container_text(c, "absent.txt", &template, &t->err) && t->err.status == DP_OK);
    buf_free(&template);
    container_close(c);

    c = open_pack(t, pack_path(t, "april")); /* its config is of a part, not of the model */
    if (c == NULL) return;
    CHECK(t, !has_json(t, c, "config.json"));
    container_close(c);
    c = open_pack(t, test_printf(t, "%s/manifest.json", ours)); /* by its manifest */
    CHECK(t, c != NULL && container_n_tensors(c) == 11);
    container_close(c);
    c = open_pack(t, test_vector(t, "models/llama2-mha"));
    CHECK(t, container_manifest(c) == NULL && container_draft_model(c).size == 0);
    container_close(c);
}

/* tokenizer.file and sentencepieceModel may have other names than a folder's. */
static void tokenizers_are_found_under_their_names(test *t) {
    const char *pack = copy_pack(t, "july", "july");
    const str text = test_read_file(t, test_printf(t, "%s/manifest.json", pack));
    write_manifest(t, pack,
                   replaced(t, text, "\"version\"",
                            "\"tokenizer\": {\"type\": \"bundled\", \"file\": \"own.json\", "
                            "\"sentencepieceModel\": \"own.model\"}, \"version\""));
    container *c = open_pack(t, pack);
    if (c == NULL) return;
    CHECK(t, container_json(c, "tokenizer.json", &t->err) == NULL);
    CHECK_ERROR(t, &t->err, DP_E_FORMAT, "own.json: is missing, the manifest lists it");
    write_bytes_to(t, test_printf(t, "%s/own.json", pack), "[1]", 3);
    write_bytes_to(t, test_printf(t, "%s/own.model", pack), "\n\0x", 3);
    CHECK(t, json_count(container_json(c, "tokenizer.json", &t->err)) == 1);
    buf bytes;
    buf_init(&bytes, 100);
    CHECK(t, container_text(c, "tokenizer.model", &bytes, &t->err) && bytes.size == 3);
    buf_free(&bytes);
    container_close(c);
}

static void listed_files_must_be_as_listed(test *t) {
    const char *pack = copy_pack(t, "ours", "ours");
    const char *path = test_printf(t, "%s/generation_config.json", pack);
    const str good = test_read_file(t, path);
    char *bad = test_alloc(t, good.size + 1, 1);
    memcpy(bad, good.data, good.size);
    bad[good.size - 3] ^= 1;
    static const struct {
        int longer;
        const char *part;
    } cases[] = { { 0, "SHA-256 is" },
                  { 1, "46 bytes, the manifest says 45" },
                  { -1, "44 bytes, the manifest says 45" } };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        write_bytes_to(t, path, bad, good.size + (size_t)cases[i].longer);
        container *c = open_pack(t, pack);
        CHECK(t, container_json(c, "generation_config.json", &t->err) == NULL);
        CHECK_ERROR(t, &t->err, DP_E_FORMAT, cases[i].part);
        CHECK(t, !container_verify(c, NULL, NULL, &t->err));
        CHECK_ERROR(t, &t->err, DP_E_FORMAT, cases[i].part);
        container_close(c);
    }
    unlink(path);
    container *c = open_pack(t, pack);
    CHECK(t, !container_verify(c, NULL, NULL, &t->err));
    CHECK_ERROR(t, &t->err, DP_E_FORMAT, "generation_config.json: is missing");
    container_close(c);
}

static void roles_are_found_by_names(test *t) {
    static const struct {
        const char *name, *role, *group;
    } cases[] = { { "model.embed_tokens.weight", "embedding", "embed" },
                  { "model.layers.0.input_layernorm.weight", "norm", "layer.0" },
                  { "model.layers.0.mlp.up_proj.weight", "matmul", "layer.0" },
                  { "model.norm.weight", "norm", "head" } };
    container *c = open_pack(t, pack_path(t, "seeds")); /* has neither */
    for (size_t i = 0; c != NULL && i < ARRAY_LEN(cases); i++) {
        const tensor *x = container_find(c, cases[i].name);
        if (!CHECK(t, x != NULL)) continue;
        CHECK_STR(t, x->role, cases[i].role);
        CHECK_STR(t, x->group, cases[i].group);
    }
    container_close(c);
}

static void vocabularies_open_without_shards(test *t) {
    const char *pack = copy_pack(t, "ours", "ours");
    unlink(test_printf(t, "%s/shard_00001.bin", pack));
    container *c = container_open(pack, true, &t->err);
    if (!CHECK_MSG(t, c != NULL, "%s", t->err.message)) return;
    CHECK_U64(t, container_n_tensors(c), 0);
    CHECK(t, has_json(t, c, "tokenizer.json") && has_json(t, c, "config.json"));
    container_close(c);
    CHECK(t, container_open(pack, false, &t->err) == NULL);
    CHECK_ERROR(t, &t->err, DP_E_FORMAT, "shard_00001.bin: is missing");
    c = container_open(pack_path(t, "ours"), true, &t->err);
    CHECK(t, c != NULL && container_n_tensors(c) == 11);
    container_close(c);
}

static void manifests_list_their_files(test *t) {
    const char *path = test_printf(t, "%s/manifest.json", pack_path(t, "ours"));
    pack_listing *l = pack_list(test_read_file(t, path), path, &t->err);
    if (!CHECK_MSG(t, l != NULL, "%s", t->err.message)) return;
    CHECK_U64(t, pack_list_count(l), 6);
    for (uint32_t i = 0; i < pack_list_count(l); i++) {
        const pack_file *f = pack_list_at(l, i);
        char *vector = test_printf(t, "packs/ours/%s", f->name.data);
        const str bytes = test_read_file(t, test_vector(t, vector));
        char is[HASH_HEX_BYTES], says[HASH_HEX_BYTES];
        CHECK(t, f->is_shard == (i < 4) && f->has_size && f->has_hash);
        CHECK(t, f->size == bytes.size && f->kind == HASH_SHA256);
        hex_of(HASH_SHA256, bytes.data, bytes.size, is);
        hash_to_hex(f->digest, says);
        CHECK_STR(t, str_of(is), says);
    }
    CHECK(t, pack_list_at(l, 6) == NULL);
    pack_list_free(l);
    path = test_printf(t, "%s/manifest.json", pack_path(t, "groups"));
    l = pack_list(test_read_file(t, path), path, &t->err);
    CHECK(t, l != NULL && pack_list_count(l) == 4);
    CHECK_STR(t, pack_list_at(l, 3)->name, "tensors.json");
    CHECK(t, !pack_list_at(l, 3)->has_size && !pack_list_at(l, 3)->is_shard);
    pack_list_free(l);
    path = test_printf(t, "%s/manifest.json", pack_path(t, "april"));
    l = pack_list(test_read_file(t, path), path, &t->err);
    CHECK(t, l != NULL && pack_list_at(l, 0)->kind == HASH_BLAKE3);
    pack_list_free(l);
    CHECK(t, pack_list(STR("{\"shards\": []}"), "m", &t->err) == NULL);
    CHECK_ERROR(t, &t->err, DP_E_FORMAT, "m: shards is no array with entries");
    pack_list_free(NULL);
}

/* ---- manifests that lie -------------------------------------------------------------------- */

typedef struct {
    const char *pack, *from, *to; /* one change of the manifest */
    dp_status status;
    const char *part; /* of the refusal */
} lie;

/* The shard's own entry, to be taken apart. */
#define JULY_Q "\"shard\": 0,\n      \"offset\": 4160,\n      \"size\": 2048"

static const lie lies[] = {
    { "july", "\"version\": 1", "\"version\": 0", DP_E_FORMAT, "version is no number" },
    { "july", "\"version\": 1", "\"version\": \"x\"", DP_E_FORMAT, "version is no number" },
    { "july", "\"version\": 1", "\"version\": 3", DP_E_UNSUPPORTED, "version 3" },
    { "july", "\"version\": 1", "\"schema\": \"doppler.pack/v2\"", DP_E_UNSUPPORTED,
      "only wraps a pack" },
    { "july", "\"version\": 1", "\"version\": 1, \"version\": 1", DP_E_FORMAT, "duplicate key" },
    { "july", "\"shards\": [", "\"shards\": [], \"x\": [", DP_E_FORMAT, "shards is no array" },
    { "july", "\"totalSize\": 28352", "\"totalSize\": 28353", DP_E_FORMAT,
      "totalSize must be 28352" },
    { "july", "\"sha256\"", "\"md5\"", DP_E_UNSUPPORTED, "\"md5\" is neither" },
    { "july", "\"sha256\"", "3", DP_E_FORMAT, "hashAlgorithm is no text" },
    /* shards */
    { "july", "\"index\": 0", "\"index\": 1", DP_E_FORMAT, "shards[0]: its index must be 0" },
    { "july", "\"filename\"", "\"filenam\"", DP_E_FORMAT, "shards[0]: has no filename" },
    { "july", "shard_00000.bin", "../july/shard_00000.bin", DP_E_FORMAT, "no plain name" },
    { "july", "shard_00000.bin", "/dev/zero", DP_E_FORMAT, "no plain name" },
    { "july", "shard_00000.bin", ".shard_00000.bin", DP_E_FORMAT, "no plain name" },
    { "july", "shard_00000.bin", "..", DP_E_FORMAT, "no plain name" },
    { "july", "shard_00000.bin", "a\\\\b", DP_E_FORMAT, "no plain name" },
    { "july", "shard_00000.bin", "shard_00000.bin\\u0000x", DP_E_FORMAT, "no plain name" },
    { "july", "shard_00000.bin", "a\\nb", DP_E_FORMAT, "no plain name" },
    { "july", "shard_00000.bin", "manifest.json", DP_E_FORMAT, "no plain name" },
    { "july", "shard_00000.bin", "shard_00009.bin", DP_E_FORMAT, "shard_00009.bin: is missing" },
    { "july", "\"size\": 28352", "\"size\": 28351", DP_E_FORMAT, "totalSize must be 28351" },
    { "july", "\"size\": 28352", "\"size\": 0", DP_E_FORMAT, "size must be a count" },
    { "july", "\"size\": 28352", "\"size\": -1", DP_E_FORMAT, "size must be a count" },
    { "july", "\"size\": 28352", "\"size\": 1e30", DP_E_FORMAT, "size must be a count" },
    { "ours", "\"size\": 13001", "\"size\": 18446744073709551615", DP_E_FORMAT,
      "offset must be 18446744073709551615" },
    { "ours", "\"offset\": 13001", "\"offset\": 13000", DP_E_FORMAT, "offset must be 13001" },
    { "ours", "shard_00001.bin", "shard_00000.bin", DP_E_FORMAT, "is the file of two shards" },
    { "july", "\"hash\": \"", "\"hash\": \"0", DP_E_FORMAT, "hash is not 64 hexadecimal digits" },
    { "july", "\"hash\"", "\"hush\"", DP_E_FORMAT, "blake3 is not 64 hexadecimal digits" },
    /* tensors */
    { "july", "\"tensors\": {", "\"tensors\": [], \"x\": {", DP_E_FORMAT, "map of tensors" },
    { "july", "\"tensors\": {", "\"tensorCount\": 12, \"tensors\": {", DP_E_FORMAT,
      "tensorCount is not the 11" },
    { "july", "\"tensors\": {", "\"tensors\": {\"a\": 3,", DP_E_FORMAT,
      "tensor a: its entry is no object" },
    { "july", "\"tensors\": {", "\"tensors\": {\"\": {},", DP_E_FORMAT, "shape must be an array" },
    { "july", JULY_Q, "\"shard\": 1,\"offset\": 4160,\"size\": 2048", DP_E_FORMAT, "shard 1 of 1" },
    { "july", JULY_Q, "\"shard\": -1,\"offset\": 4160,\"size\": 2048", DP_E_FORMAT,
      "needs shard, offset and size" },
    { "july", JULY_Q, "\"shard\": 0,\"offset\": 26305,\"size\": 2048", DP_E_FORMAT,
      "2048 bytes at 26305 do not lie in shard 0 of 28352 bytes" },
    { "july", JULY_Q, "\"shard\": 0,\"offset\": 18446744073709551615,\"size\": 2048", DP_E_FORMAT,
      "do not lie in shard 0" },
    { "july", JULY_Q, "\"shard\": 0,\"offset\": 4160,\"size\": 18446744073709551615", DP_E_FORMAT,
      "do not lie in shard 0" },
    { "july", JULY_Q, "\"shard\": 0,\"offset\": 4160,\"size\": 2046", DP_E_FORMAT,
      "2046 bytes; shape [32, 32] of F16, row by row, has 2048" },
    { "july", JULY_Q, "\"shard\": 0,\"offset\": 4160", DP_E_FORMAT,
      "needs shard, offset and size" },
    { "july", JULY_Q, "\"shard\": 0,\"offset\": 4161,\"size\": 2048", DP_E_FORMAT,
      "overlap in shard 0: the first ends at 6209, the second begins at 6208" },
    { "july", "\"shape\": [\n        64,\n        32\n      ]", "\"shape\": [64, 32, 1, 1, 1]",
      DP_E_FORMAT, "at most 4 counts" },
    { "july", "\"shape\": [\n        64,\n        32\n      ]", "\"shape\": [64, 0]", DP_E_FORMAT,
      "shape[1] is no count from 1" },
    { "july", "\"shape\": [\n        64,\n        32\n      ]",
      "\"shape\": [18446744073709551615, 2]", DP_E_FORMAT, "more elements than 64 bits count" },
    { "july", "\"shape\": [\n        64,\n        32\n      ]",
      "\"shape\": [4611686018427387904, 3]", DP_E_FORMAT, "row by row" },
    { "july", "\"dtype\": \"Q4_K_M\"", "\"dtype\": \"WNA8O8\"", DP_E_UNSUPPORTED,
      "dtype \"WNA8O8\" is not one" },
    { "july", "\"dtype\": \"Q4_K_M\"", "\"dtype\": 4", DP_E_FORMAT, "has no dtype" },
    { "july", "\"layout\": \"row\",\n      \"role\"", "\"layout\": \"diagonal\", \"role\"",
      DP_E_UNSUPPORTED, "layout \"diagonal\" is none of" },
    { "july", "\"layout\": \"row\",\n      \"role\"", "\"layout\": \"flat\", \"role\"", DP_E_FORMAT,
      "of Q4_K, flat, has 1152" },
    { "july", "\"layout\": \"row\",\n    \"variantTag\"", "\"layout\": \"odd\", \"variantTag\"",
      DP_E_UNSUPPORTED, "quantizationInfo.layout \"odd\"" },
    { "seeds", "\"originalShape\": [\n        60,\n        32", "\"originalShape\": [60, 33",
      DP_E_FORMAT, "originalShape [60, 33] is neither" },
    { "groups", "\"tensors.json\"", "\"../groups/tensors.json\"", DP_E_FORMAT, "no plain name" },
    { "groups", "\"tensors.json\"", "\"absent.json\"", DP_E_FORMAT, "absent.json: is missing" },
    { "groups", "\"tensors.json\"", "\"shard_00000.bin\"", DP_E_FORMAT, "is also a shard" },
    { "groups", "\"tensors.json\"", "3", DP_E_FORMAT, "the file's name is no text" },
    { "groups", "\"tensorCount\": 11", "\"tensorCount\": 10", DP_E_FORMAT, "tensorCount is not" },
    { "groups", "\"shards\": [\n        0", "\"shards\": [\n        3", DP_E_FORMAT,
      "a shard's number is none of 3 shards" },
    { "groups", "\"model.embed_tokens.weight\"", "\"model.embed_token.weight\"", DP_E_FORMAT,
      "group embed: a name in it is that of no tensor" },
    /* spans */
    { "june", "\"shardIndex\": 0", "\"shardIndex\": 6", DP_E_FORMAT, "spans[0]: shard 6 of 6" },
    { "june", "\"byteEnd\": 1000", "\"byteEnd\": 1001", DP_E_FORMAT, "its spans have" },
    { "june", "\"byteEnd\": 1000", "\"byteEnd\": 0", DP_E_FORMAT, "spans[0]: 0 bytes at 0" },
    { "june", "\"byteStart\": 1000", "\"byteStart\": 18446744073709551614", DP_E_FORMAT,
      "spans[1]: has no size" },
    { "june", "\"byteStart\": 0", "\"byteStar\": 0", DP_E_FORMAT, "needs a shard's number" },
    { "june", "\"shardSpans\": [", "\"shardSpans\": [], \"x\": [", DP_E_FORMAT,
      "its spans are no array" },
    { "june", "\"packing\": \"q4k\"", "\"packing\": \"q4_0\"", DP_E_FORMAT,
      "\"q4_0\" is none of its dtype Q4_K" },
    { "june", "\"packing\": \"q4k\"", "\"packing\": \"zip\"", DP_E_UNSUPPORTED,
      "storage.packing \"zip\" is not known" },
    { "kinds", "\"packing\": \"gguf-block-v2\"", "\"packing\": \"dense\"", DP_E_FORMAT,
      "\"dense\" is none of its dtype Q8_0" },
    { "kinds", "\"layout\": \"flat\"", "\"layout\": \"column\"", DP_E_FORMAT,
      "288 bytes; shape [5, 100] of Q4_K, by columns, has 14400" },
    { "kinds", "\"blockBytes\": 34", "\"blockBytes\": 32", DP_E_FORMAT, "not the 34 bytes" },
    { "kinds", "\"blockShape\": [\n          32\n        ],\n        \"blockBytes\": 34",
      "\"blockShape\": [16]", DP_E_FORMAT, "blocks of 32 values" },
    /* companions */
    { "kinds", "\"tensorId\": \"w4a16.bf16.weight_scale\"", "\"tensorId\": \"scale\"", DP_E_FORMAT,
      "its companion scale is missing" },
    { "kinds", "\"tensorId\": \"w4a16.bf16.weight_shape\"", "\"tensorId\": \"shape\"", DP_E_FORMAT,
      "its companion shape is missing" },
    { "kinds", "\"tensorId\": \"w4a16.bf16.weight_scale\"",
      "\"tensorId\": \"w4a16.f16.weight_scale\"", DP_E_FORMAT, "must be [3, 2] of F32" },
    { "kinds", "\"tensorId\": \"w4a16.bf16.weight_shape\"",
      "\"tensorId\": \"w4a16.f16.weight_shape\"", DP_E_FORMAT, "does not hold its shape" },
    { "kinds", "\"tensorId\": \"w4a16.bf16.weight_scale\"", "\"tensorId\": \"w4a16.bf16.weight\"",
      DP_E_FORMAT, "a companion must not be packed" },
    { "kinds", "\"tensorId\": \"w4a16.f16.weight_scale\"",
      "\"tensorId\": \"w4a16.f32.weight_scale\"", DP_E_FORMAT,
      "its scales are F32 [2, 1], must be [2, 2]" },
    { "kinds", "\"tensorId\": \"w4a16.bf16.weight_scale\"", "\"tensorId\": \"row.int8\"",
      DP_E_FORMAT, "its scales are F16 [3, 7]" },
    { "kinds", "\"role\": \"scales\"", "\"role\": \"zeros\"", DP_E_UNSUPPORTED,
      "companion of role \"zeros\"" },
    /* transforms */
    { "kinds", "\"kind\": \"affine_dequant\"", "\"kind\": \"litert_axis_blocked_dequant\"",
      DP_E_UNSUPPORTED, "\"litert_axis_blocked_dequant\" is not known" },
    { "kinds", "\"sourceDtype\": \"INT8\"", "\"sourceDtype\": \"INT3\"", DP_E_UNSUPPORTED,
      "sourceDtype is none of" },
    { "kinds", "\"scheme\": \"per_tensor_affine\"", "\"scheme\": \"per_row_affine\"",
      DP_E_UNSUPPORTED, "scheme is not per_tensor_affine" },
    { "kinds", "\"scale\": 0.037", "\"scale\": 0", DP_E_FORMAT, "scale is no number above 0" },
    { "kinds", "\"zeroPoint\": 3", "\"zeroPoint\": 0.5", DP_E_FORMAT, "zeroPoint is no whole" },
    { "kinds", "\"zeroPoint\": 3", "\"zeroPoint\": 3, \"storageEncoding\": \"offset_binary\"",
      DP_E_UNSUPPORTED, "storageEncoding of an affine_dequant" },
    { "kinds", "\"targetDtype\": \"F16\"", "\"targetDtype\": \"F32\"", DP_E_UNSUPPORTED,
      "must both be F16" },
    { "kinds", "\"storageEncoding\": \"signed\"", "\"storageEncoding\": \"grey\"", DP_E_UNSUPPORTED,
      "neither signed nor offset_binary" },
    { "kinds", "\"scaleSemantics\": \"step\"", "\"scaleSemantics\": \"stop\"", DP_E_UNSUPPORTED,
      "neither step nor qmax_abs" },
    { "kinds", "\"scaleDivisor\": 1.5", "\"scaleDivisor\": 0", DP_E_FORMAT,
      "scaleDivisor is no number above 0" },
    { "kinds", "\"scaleSource\": {", "\"sumSource\": {}, \"scaleSource\": {", DP_E_UNSUPPORTED,
      "sumSource is not known" },
    { "kinds", "\"scaleSource\": {", "\"scaleSauce\": {", DP_E_FORMAT, "scaleSource is missing" },
    { "kinds", "\"size\": 12\n        }", "\"size\": 16 }", DP_E_FORMAT,
      "scaleSource has 16 bytes" },
    { "kinds", "\"offset\": 2569", "\"offset\": 5000", DP_E_FORMAT,
      "scaleSource: 12 bytes at 5000 do not lie" },
    { "kinds", "\"quantAxis\": 1", "\"quantAxis\": 2", DP_E_FORMAT, "neither 0 nor 1" },
    { "kinds", "\"quantAxis\": 1", "\"quantAxis\": 0", DP_E_FORMAT, "must be [6, 40]" },
    /* what is hashed */
    { "ours", "\"blockSize\": 4096,\n    \"shards\"", "\"blockSize\": 4095, \"shards\"",
      DP_E_FORMAT, "blockSize must be at least 4096" },
    { "ours", "\"blockSize\": 4096,\n    \"shards\"", "\"blockSize\": 8192, \"shards\"",
      DP_E_FORMAT, "has 4 entries, 13001 bytes have 2 pieces" },
    { "ours", "\"pieceHashes\": {",
      "\"pieceHashes\": {\"shards\": [], \"blockSize\": 4096}, \"x\": {", DP_E_FORMAT,
      "has 0 lists for 4 shards" },
    { "april", "\"sha256:", "\"", DP_E_FORMAT, "blockMerkle: the root of" },
    { "april", "\"roots\": {",
      "\"roots\": {\"absent\": \"sha256:e3b0c44298fc1c149afbf4c8996fb9242"
      "7ae41e4649b934ca495991b7852b855\",",
      DP_E_FORMAT, "absent is the name of no tensor" },
    { "april", "\"blockSize\": 4096", "\"blockSize\": 1", DP_E_FORMAT, "at least 4096 bytes" },
    { "ours", "\"name\": \"tokenizer.json\"", "\"name\": \"a/../tokenizer.json\"", DP_E_FORMAT,
      "files[0]: \"a/../tokenizer.json\" is no plain name" },
    { "ours", "\"name\": \"tokenizer.json\"", "\"name\": \"generation_config.json\"", DP_E_FORMAT,
      "files[1]: \"generation_config.json\" is there twice" },
    { "ours", "\"file\": \"tokenizer.json\"", "\"file\": \"/etc/passwd\"", DP_E_FORMAT,
      "tokenizer.file: \"/etc/passwd\" is no plain name" },
};

static void lying_manifests_are_refused(test *t) {
    const char *pack = NULL;
    str good = { NULL, 0 };
    for (size_t i = 0; i < ARRAY_LEN(lies); i++) {
        const lie *l = &lies[i];
        if (i == 0 || strcmp(l->pack, lies[i - 1].pack) != 0) {
            pack = copy_pack(t, l->pack, test_printf(t, "%s-%zu", l->pack, i));
            good = test_read_file(t, test_printf(t, "%s/manifest.json", pack));
        }
        test_row(t, "%s: %s", l->pack, l->to);
        write_manifest(t, pack, replaced(t, good, l->from, l->to));
        container *c = container_open(pack, false, &t->err);
        CHECK(t, c == NULL);
        container_close(c);
        CHECK_ERROR(t, &t->err, l->status, l->part);
    }
}

/* What looks like the same is accepted: the table above refuses for its reasons only. */
static void harmless_changes_are_accepted(test *t) {
    static const lie same[] = {
        { "july", "\"version\": 1", "\"version\": \"1.0\"", DP_OK, NULL },
        { "july", "\"version\": 1", "\"version\": 2", DP_OK, NULL },
        { "july", "\"totalSize\": 28352,", "", DP_OK, NULL },
        { "july", "\"sha256\"", "\"SHA-256\"", DP_OK, NULL },
        { "july", "\"index\": 0,", "", DP_OK, NULL },
        { "july", "\"filename\"", "\"fileName\"", DP_OK, NULL },
        { "july", "\"hash\"", "\"blake3\"", DP_OK, NULL },
        { "july", JULY_Q, "\"shardIndex\": 0.0,\"offset\": 4.16e3,\"size\": 2048", DP_OK, NULL },
        { "july", "\"layout\": \"row\",\n      \"role\"", "\"layout\": null, \"role\"", DP_OK,
          NULL },
        { "july", "\"layout\": \"row\",\n    \"variantTag\"", "\"layout\": \"col\", \"variantTag\"",
          DP_OK, NULL },
        { "july", JULY_Q,
          "\"shard\": 0, \"offset\": 4160, \"spans\": [{\"shard\": 0, \"offset\": 4160, \"size\": "
          "48}, {\"shardIndex\": 0, \"offset\": 4208, \"size\": 2000}]",
          DP_OK, NULL },
    };
    const char *pack = copy_pack(t, "july", "july");
    const str good = test_read_file(t, test_printf(t, "%s/manifest.json", pack));
    for (size_t i = 0; i < ARRAY_LEN(same); i++) {
        test_row(t, "%s", same[i].to);
        write_manifest(t, pack, replaced(t, good, same[i].from, same[i].to));
        container *c = open_pack(t, pack);
        if (c == NULL) return;
        CHECK_MSG(t, container_verify(c, NULL, NULL, &t->err), "%s", t->err.message);
        container_close(c);
    }
}

/* Refused by their size, or at the limit of nesting: in neither case parsed. */
static void giant_and_nested_manifests_are_refused_quickly(test *t) {
    const char *pack = copy_pack(t, "groups", "groups");
    const char *path = test_printf(t, "%s/manifest.json", pack);
    const char *tensors = test_printf(t, "%s/tensors.json", pack);
    const size_t n = 8 * 1024 * 1024;
    char *nested = test_alloc(t, n, 1);
    memset(nested, '[', n);
    const double start = clock_seconds();
    write_bytes_to(t, tensors, nested, n);
    CHECK(t, container_open(pack, false, &t->err) == NULL);
    CHECK_ERROR(t, &t->err, DP_E_LIMIT, "nested deeper than the limit of 64");
    write_bytes_to(t, path, nested, n);
    CHECK(t, container_open(pack, false, &t->err) == NULL);
    CHECK_ERROR(t, &t->err, DP_E_LIMIT, "nested deeper than the limit of 64");
    CHECK(t, truncate(path, 100 * 1000 * 1000) == 0);
    CHECK(t, container_open(pack, false, &t->err) == NULL);
    CHECK_ERROR(t, &t->err, DP_E_LIMIT, "100000000 bytes, the limit is 67108864");
    /* Generous: it takes a hundredth of it, ten times that under a sanitizer. */
    CHECK(t, clock_seconds() - start < 5);
}

/* ---- places -------------------------------------------------------------------------------- */

static void links_must_not_leave_the_pack(test *t) {
    const char *outside = test_write(t, "outside.bin", "", 0);
    const char *pack = copy_pack(t, "ours", "ours");
    const char *shard = test_printf(t, "%s/shard_00002.bin", pack);
    const char *text = test_printf(t, "%s/tokenizer.json", pack);
    const char *inside = test_printf(t, "%s/moved.bin", pack);
    CHECK(t, rename(shard, inside) == 0 && symlink("moved.bin", shard) == 0);
    container *c = open_pack(t, pack); /* a link within it is a name like any other */
    CHECK(t, c != NULL && container_verify(c, NULL, NULL, &t->err));
    container_close(c);
    CHECK(t, unlink(shard) == 0 && rename(inside, outside) == 0);
    CHECK(t, symlink("../outside.bin", shard) == 0);
    CHECK(t, container_open(pack, false, &t->err) == NULL);
    CHECK_ERROR(t, &t->err, DP_E_FORMAT, "shard_00002.bin: leads out of the pack's folder");
    CHECK(t, unlink(shard) == 0 && symlink(outside, shard) == 0);
    CHECK(t, container_open(pack, false, &t->err) == NULL);
    CHECK_ERROR(t, &t->err, DP_E_FORMAT, "leads out of the pack's folder");
    CHECK(t, unlink(shard) == 0 && symlink("nowhere", shard) == 0);
    CHECK(t, container_open(pack, false, &t->err) == NULL);
    CHECK_ERROR(t, &t->err, DP_E_FORMAT, "shard_00002.bin: is missing");
    CHECK(t, unlink(shard) == 0 && rename(outside, shard) == 0);
    CHECK(t, unlink(text) == 0 && symlink("/etc/hostname", text) == 0);
    c = open_pack(t, pack);
    CHECK(t, container_json(c, "tokenizer.json", &t->err) == NULL);
    CHECK_ERROR(t, &t->err, DP_E_FORMAT, "tokenizer.json: leads out of the pack's folder");
    container_close(c);
}

/* models--o--n/snapshots/COMMIT/FILE -> ../../blobs/HASH */
static void snapshots_of_the_cache_may_link_to_blobs(test *t) {
    const char *root = test_folder(t), *good = copy_pack(t, "ours", "good");
    const char *model = test_printf(t, "%s/models--o--n", root);
    const char *snapshot = test_printf(t, "%s/snapshots/0123", model);
    CHECK(t, mkdir(model, 0777) == 0);
    CHECK(t, mkdir(test_printf(t, "%s/blobs", model), 0777) == 0);
    CHECK(t, mkdir(test_printf(t, "%s/snapshots", model), 0777) == 0);
    CHECK(t, mkdir(snapshot, 0777) == 0);
    DIR *folder = opendir(good);
    for (struct dirent *e; folder != NULL && (e = readdir(folder)) != NULL;) {
        if (e->d_name[0] == '.') continue;
        CHECK(t, rename(test_printf(t, "%s/%s", good, e->d_name),
                        test_printf(t, "%s/blobs/%s-blob", model, e->d_name)) == 0);
        CHECK(t, symlink(test_printf(t, "../../blobs/%s-blob", e->d_name),
                         test_printf(t, "%s/%s", snapshot, e->d_name)) == 0);
    }
    if (folder != NULL) closedir(folder);
    container *c = open_pack(t, snapshot);
    CHECK(t, c != NULL && container_verify(c, NULL, NULL, &t->err));
    container_close(c);
    /* Another model's blobs are not this one's. */
    const char *other = test_printf(t, "%s/models--o--m", root);
    CHECK(t, mkdir(other, 0777) == 0);
    CHECK(t, rename(test_printf(t, "%s/snapshots", model), test_printf(t, "%s/snapshots", other)) ==
                 0);
    const char *manifest = test_printf(t, "%s/snapshots/0123/manifest.json", other);
    CHECK(t, unlink(manifest) == 0 &&
                 symlink("../../../models--o--n/blobs/manifest.json-blob", manifest) == 0);
    CHECK(t, container_open(test_printf(t, "%s/snapshots/0123", other), false, &t->err) == NULL);
    CHECK_ERROR(t, &t->err, DP_E_FORMAT, "manifest.json: leads out of the pack's folder");
}

/* Shards of one pack by threads, more shards than are held open. */
enum { MANY_SHARDS = 200, MANY_BYTES = 64 };

typedef struct {
    container *c;
    const tensor *x;
    atomic_uint wrong;
} many_reads;

static bool read_somewhere(void *user, uint64_t job, uint32_t thread, dp_error *err) {
    many_reads *m = user;
    (void)thread;
    const uint64_t n_all = m->x->n_bytes, at = job * 7919 % n_all;
    unsigned char got[200];
    const size_t n = (size_t)min_u64(sizeof(got), n_all - at);
    if (!container_read(m->c, m->x, at, got, n, err)) return false;
    for (size_t i = 0; i < n; i++) {
        if (got[i] != (unsigned char)((at + i) * 31 >> 3)) m->wrong++;
    }
    return true;
}

static uint32_t count_open_files(void) {
    uint32_t n = 0;
    DIR *folder = opendir("/proc/self/fd");
    while (folder != NULL && readdir(folder) != NULL)
        n++;
    if (folder != NULL) closedir(folder);
    return n;
}

static void many_shards_are_read_with_few_files_open(test *t) {
    const char *pack = test_folder(t);
    buf m;
    buf_init(&m, 1 << 20);
    buf_printf(&m, "{\"version\": 1, \"shards\": [");
    for (uint32_t i = 0; i < MANY_SHARDS; i++) {
        unsigned char bytes[MANY_BYTES];
        char hex[HASH_HEX_BYTES];
        for (uint32_t k = 0; k < MANY_BYTES; k++) {
            bytes[k] = (unsigned char)((i * MANY_BYTES + k) * 31 >> 3);
        }
        hex_of(HASH_SHA256, bytes, sizeof(bytes), hex);
        test_write(t, test_printf(t, "s%u", i), bytes, sizeof(bytes));
        buf_printf(&m, "%s{\"filename\": \"s%u\", \"size\": %d, \"hash\": \"%s\"}",
                   i > 0 ? ", " : "", i, MANY_BYTES, hex);
    }
    buf_printf(&m, "], \"tensors\": {\"x\": {\"shape\": [%d], \"dtype\": \"I8\", \"spans\": [",
               MANY_SHARDS * MANY_BYTES);
    for (uint32_t i = 0; i < MANY_SHARDS; i++) {
        buf_printf(&m, "%s{\"shard\": %u, \"offset\": 0, \"size\": %d}", i > 0 ? ", " : "", i,
                   MANY_BYTES);
    }
    buf_printf(&m, "]}}}");
    test_write(t, "manifest.json", m.data, m.size);
    buf_free(&m);
    const uint32_t before = count_open_files();
    container *c = open_pack(t, pack);
    if (c == NULL) return;
    many_reads reads = { .c = c, .x = container_find(c, "x") };
    CHECK_U64(t, reads.x->n_spans, MANY_SHARDS);
    CHECK(t, parallel_run(4, 3000, read_somewhere, &reads, &t->err));
    CHECK_U64(t, reads.wrong, 0);
    const uint32_t open_now = count_open_files() - before;
    CHECK_MSG(t, open_now >= 2 && open_now <= 64, "%u files open", open_now);
    verify_result r;
    CHECK(t, container_verify(c, &(verify_options){ .n_threads = 3 }, &r, &t->err));
    CHECK_U64(t, r.n_shards, MANY_SHARDS);
    CHECK_U64(t, r.bytes, MANY_SHARDS * MANY_BYTES);
    /* A shard that changes while the pack is open is not read as if it had not. */
    test_write(t, "s7", "short", 5);
    unsigned char byte;
    bool ok = true;
    for (uint32_t i = 0; ok && i < MANY_SHARDS; i++) { /* drives it out of the open ones */
        if (i != 7) ok = container_read(c, reads.x, i * MANY_BYTES, &byte, 1, &t->err);
    }
    CHECK(t, ok && !container_read(c, reads.x, 7 * MANY_BYTES, &byte, 1, &t->err));
    CHECK_ERROR(t, &t->err, DP_E_FILE, "s7: 5 bytes, was 64 when the pack was opened");
    container_close(c);
}

/* ---- verification -------------------------------------------------------------------------- */

static void good_packs_are_verified(test *t) {
    for (size_t i = 0; i < ARRAY_LEN(pack_names); i++) {
        static const verify_options ways[] = {
            { 0 }, { .n_threads = 1 }, { .n_threads = 5 }, { .n_threads = 2, .once = true }
        };
        container *c = open_pack(t, pack_path(t, pack_names[i]));
        if (c == NULL) return;
        for (size_t k = 0; k < ARRAY_LEN(ways); k++) {
            verify_result r;
            test_row(t, "%s, way %zu", pack_names[i], k);
            CHECK_MSG(t, container_verify(c, &ways[k], &r, &t->err), "%s", t->err.message);
            const bool ours = strcmp(pack_names[i], "ours") == 0;
            CHECK(t, r.n_pieces == (ours ? 13 : 0) && r.n_files == (ours ? 2 : 0));
            CHECK(t, r.n_shards == (ours && ways[k].once ? 0 : container_n_files(c)));
            if (ways[k].once) CHECK(t, r.n_roots == 0);
            if (ours) CHECK_U64(t, r.n_roots, ways[k].once ? 0 : 11);
        }
        container_close(c);
    }
    static const char *const others[] = { "models/llama3-gqa", "gguf/q8_0/model.gguf" };
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        verify_result r = { .bytes = 1 };
        container *c = open_pack(t, test_vector(t, others[i]));
        CHECK(t, container_verify(c, NULL, &r, &t->err));
        CHECK_U64(t, r.bytes, 0);
        container_close(c);
    }
}

static char *shard_path(test *t, const char *pack, uint32_t i) {
    return test_printf(t, "%s/shard_%05u.bin", pack, i);
}

/* Flips a bit of a shard's byte, back and forth. */
static void flip_byte(test *t, const char *pack, uint32_t shard, size_t at) {
    const char *path = shard_path(t, pack, shard);
    const str was = test_read_file(t, path);
    char *bytes = test_alloc(t, was.size, 1);
    memcpy(bytes, was.data, was.size);
    if (!CHECK(t, at < was.size)) return;
    bytes[at] ^= 0x10;
    write_bytes_to(t, path, bytes, was.size);
}

static void check_verdict(test *t, const char *pack, const verify_options *options,
                          const char *part) {
    container *c = open_pack(t, pack);
    if (c == NULL) return;
    CHECK(t, !container_verify(c, options, NULL, &t->err));
    CHECK_ERROR(t, &t->err, DP_E_FORMAT, part);
    container_close(c);
}

/* The place is named as closely as the manifest's hashes can. */
static void flipped_bytes_are_found_and_named(test *t) {
    static const struct {
        const char *pack;
        uint32_t shard;
        size_t at;
        const char *part;
    } cases[] = {
        { "ours", 0, 0, "shard_00000.bin: bytes 0 to 4095: SHA-256 is" },
        { "ours", 0, 4096, "shard_00000.bin: bytes 4096 to 8191: SHA-256 is" },
        { "ours", 1, 13000, "shard_00001.bin: bytes 12288 to 13000: SHA-256 is" },
        { "ours", 3, 1956, "shard_00003.bin: bytes 0 to 1956: SHA-256 is" },
        { "july", 0, 28351, "tensor model.norm.weight: the merkle root" },
        { "april", 0, 100, "tensor model.embed_tokens.weight: the merkle root" },
        { "april", 5, 0, "shard_00004.bin: bytes from" },    /* where that tensor begins */
        { "kinds", 2, 2570, "shard_00002.bin: SHA-256 is" }, /* a scale of no tensor */
        { "seeds", 0, 5, "shard_00000.bin: SHA-256 is" },
        { "march", 1, 5, "shard_00001.bin: BLAKE3 is" },
        { "june", 5, 4594, "shard_00005.bin: SHA-256 is" },
        { "groups", 2, 63, "shard_00002.bin: SHA-256 is" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        test_row(t, "%s, byte %zu of shard %u", cases[i].pack, cases[i].at, cases[i].shard);
        const char *pack = copy_pack(t, cases[i].pack, test_printf(t, "pack-%zu", i));
        flip_byte(t, pack, cases[i].shard, cases[i].at);
        check_verdict(t, pack, NULL, cases[i].part);
        check_verdict(t, pack, &(verify_options){ .n_threads = 4, .once = true }, cases[i].part);
        flip_byte(t, pack, cases[i].shard, cases[i].at);
        container *c = open_pack(t, pack);
        CHECK(t, c != NULL && container_verify(c, NULL, NULL, &t->err));
        container_close(c);
    }
}

/* Of several, the first is named, whatever the threads do. */
static void the_first_wrong_place_is_named(test *t) {
    const char *pack = copy_pack(t, "ours", "ours");
    flip_byte(t, pack, 3, 9);
    flip_byte(t, pack, 1, 9000);
    flip_byte(t, pack, 1, 5000);
    flip_byte(t, pack, 2, 1);
    for (uint32_t n = 1; n <= 8; n++) {
        const verify_options once = { .n_threads = n, .once = true }, all = { .n_threads = n };
        check_verdict(t, pack, &once, "shard_00001.bin: bytes 4096 to 8191");
        check_verdict(t, pack, &all, "shard_00001.bin: bytes 4096 to 8191");
    }
}

/* Two shards, one wrong at its end and long in the hashing, one wrong and short, though long enough
 * for the other to begin. */
static void slow_shards_do_not_change_the_verdict(test *t) {
    enum { SHORT = 256 * 1024, LONG = 2 * 1024 * 1024 };
    char *bytes = test_alloc(t, LONG, 1);
    for (int long_first = 0; long_first <= 1; long_first++) {
        const size_t sizes[2] = { long_first ? LONG : SHORT, long_first ? SHORT : LONG };
        char hex[2][HASH_HEX_BYTES];
        for (int i = 0; i < 2; i++) {
            hex_of(HASH_SHA256, bytes, sizes[i], hex[i]);
            bytes[sizes[i] - 1] = 1;
            test_write(t, i == 0 ? "s0" : "s1", bytes, sizes[i]);
            bytes[sizes[i] - 1] = 0;
        }
        char *m = test_printf(
            t,
            "{\"version\": 1, \"shards\": [{\"filename\": \"s0\", \"size\": %zu, \"hash\": "
            "\"%s\"}, {\"filename\": \"s1\", \"size\": %zu, \"hash\": \"%s\"}], \"tensors\": "
            "{\"x\": {\"shape\": [8], \"dtype\": \"U8\", \"shard\": 0, \"offset\": 0, "
            "\"size\": 8}}}",
            sizes[0], hex[0], sizes[1], hex[1]);
        test_write(t, "manifest.json", m, strlen(m));
        test_row(t, "%s first", long_first ? "long" : "short");
        check_verdict(t, test_folder(t), &(verify_options){ .n_threads = 2 }, ": s0: SHA-256 is");
    }
}

/* Spans of one shard, out of order and apart: joined as the manifest says, not as they lie. */
static void spans_are_joined_in_their_order(test *t) {
    static const char m[] =
        "{\"version\": 1, \"shards\": [{\"filename\": \"s\", \"size\": 16, \"hash\": "
        "\"0000000000000000000000000000000000000000000000000000000000000000\"}], \"tensors\": "
        "{\"x\": {\"shape\": [10], \"dtype\": \"U8\", \"spans\": [{\"shard\": 0, \"offset\": 8, "
        "\"size\": 3}, {\"shard\": 0, \"offset\": 2, \"size\": 4}, {\"shard\": 0, \"offset\": 6, "
        "\"size\": 1}, {\"shard\": 0, \"offset\": 14, \"size\": 2}]}}}";
    test_write(t, "s", "0123456789abcdef", 16);
    test_write(t, "manifest.json", m, sizeof(m) - 1);
    container *c = open_pack(t, test_folder(t));
    const tensor *x = c == NULL ? NULL : container_find(c, "x");
    char bytes[10];
    if (x == NULL) return;
    CHECK_U64(t, x->n_spans, 3);
    for (size_t at = 0; at < 10; at++) {
        for (size_t n = 0; n <= 10 - at; n++) {
            CHECK(t, container_read(c, x, at, bytes, n, &t->err));
            CHECK(t, memcmp(bytes, "89a23456ef" + at, n) == 0);
        }
    }
    CHECK(t, !container_read(c, x, 10, bytes, 1, &t->err));
    CHECK_ERROR(t, &t->err, DP_E_ARGUMENT, "1 bytes at 10 of its 10");
    container_close(c);
}

/* A wrong hash in the manifest is as bad as a wrong byte, at every level. */
static void wrong_hashes_are_found(test *t) {
    static const struct {
        const char *before; /* a place in front of the digest */
        bool once;          /* also found by hashing once */
        const char *part;
    } cases[] = {
        { "\"filename\": \"shard_00002.bin\"", false, "shard_00002.bin: SHA-256 is" },
        { "\"pieceHashes\"", true, "shard_00000.bin: bytes 0 to 4095" },
        { "\"roots\"", false, "the merkle root" },
        { "\"files\"", true, "tokenizer.json: SHA-256 is" },
    };
    const char *pack = copy_pack(t, "ours", "ours");
    const str good = test_read_file(t, test_printf(t, "%s/manifest.json", pack));
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *text = test_alloc(t, good.size, 1);
        memcpy(text, good.data, good.size);
        char *at = memmem(text, good.size, cases[i].before, strlen(cases[i].before));
        size_t digits = 0; /* the first 64 hexadecimal digits behind it */
        for (; digits < 64; at++) {
            const bool is_digit = (*at >= '0' && *at <= '9') || (*at >= 'a' && *at <= 'f');
            digits = is_digit ? digits + 1 : 0;
        }
        at[-1] = at[-1] == '0' ? '1' : '0';
        write_manifest(t, pack, (str){ text, good.size });
        test_row(t, "%s", cases[i].before);
        check_verdict(t, pack, NULL, cases[i].part);
        container *c = open_pack(t, pack);
        CHECK(t, container_verify(c, &(verify_options){ .once = true }, NULL, &t->err) ==
                     !cases[i].once);
        t->err = (dp_error){ 0 };
        container_close(c);
    }
}

static void shards_of_another_length_are_refused(test *t) {
    for (size_t i = 0; i < ARRAY_LEN(pack_names); i++) {
        const char *pack = copy_pack(t, pack_names[i], pack_names[i]);
        container *c = open_pack(t, pack);
        const uint32_t n = container_n_files(c);
        container_close(c);
        for (uint32_t k = 0; k < n; k++) {
            test_row(t, "%s, shard %u", pack_names[i], k);
            const char *path = shard_path(t, pack, k);
            const str good = test_read_file(t, path);
            char *bytes = test_alloc(t, good.size + 1, 1);
            memcpy(bytes, good.data, good.size);
            for (int longer = -1; longer <= 1; longer += 2) {
                write_bytes_to(t, path, bytes, good.size + (size_t)longer);
                CHECK(t, container_open(pack, false, &t->err) == NULL);
                CHECK_ERROR(t, &t->err, DP_E_FORMAT,
                            test_printf(t, "bytes, the manifest says %zu", good.size));
            }
            unlink(path);
            CHECK(t, container_open(pack, false, &t->err) == NULL);
            CHECK_ERROR(t, &t->err, DP_E_FORMAT, test_printf(t, "shard_%05u.bin: is missing", k));
            write_bytes_to(t, path, bytes, good.size);
        }
    }
}

static void swapped_shards_are_found(test *t) {
    static const char *const packs[] = { "ours", "june", "april" }; /* shards 0 and 1 as long */
    for (size_t i = 0; i < ARRAY_LEN(packs); i++) {
        const char *pack = copy_pack(t, packs[i], packs[i]);
        const char *aside = test_printf(t, "%s/aside", pack);
        CHECK(t, rename(shard_path(t, pack, 0), aside) == 0);
        CHECK(t, rename(shard_path(t, pack, 1), shard_path(t, pack, 0)) == 0);
        CHECK(t, rename(aside, shard_path(t, pack, 1)) == 0);
        check_verdict(t, pack, NULL, "shard_00000.bin");
        check_verdict(t, pack, &(verify_options){ .once = true }, "shard_00000.bin");
    }
}

/* The tree's definition, level by level. */
static void plain_root(const unsigned char *bytes, size_t n, size_t block, char hex[65]) {
    unsigned char nodes[32][HASH_BYTES];
    size_t count = 0;
    for (size_t at = 0; at < n; at += block) {
        hash_state h;
        hash_begin(&h, HASH_SHA256);
        hash_add(&h, bytes + at, n - at < block ? n - at : block);
        hash_end(&h, nodes[count++]);
    }
    while (count > 1) {
        if (count % 2 == 1) memcpy(nodes[count], nodes[count - 1], HASH_BYTES), count++;
        for (size_t i = 0; i < count / 2; i++) {
            hash_state h;
            hash_begin(&h, HASH_SHA256);
            hash_add(&h, nodes[2 * i], 2 * (size_t)HASH_BYTES);
            hash_end(&h, nodes[i]);
        }
        count /= 2;
    }
    hash_to_hex(nodes[0], hex);
}

/* One tensor of 1 to 17 leaves, the last of them not whole. */
static void merkle_trees_of_any_width_are_verified(test *t) {
    enum { BLOCK = 4096 };
    unsigned char *bytes = counting_bytes(t, 17 * BLOCK);
    for (size_t leaves = 1; leaves <= 17; leaves++) {
        const size_t n = leaves * BLOCK - 13;
        char whole[HASH_HEX_BYTES], root[HASH_HEX_BYTES];
        hex_of(HASH_SHA256, bytes, n, whole);
        plain_root(bytes, n, BLOCK, root);
        test_write(t, "s", bytes, n);
        for (int wrong = 0; wrong <= 1; wrong++) {
            test_row(t, "%zu leaves", leaves);
            if (wrong) root[63] = root[63] == '0' ? '1' : '0';
            char *m = test_printf(
                t,
                "{\"version\": 1, \"shards\": [{\"filename\": \"s\", \"size\": %zu, \"hash\": "
                "\"%s\"}], \"tensors\": {\"x\": {\"shape\": [%zu], \"dtype\": \"U8\", \"shard\": 0,"
                " \"offset\": 0, \"size\": %zu}}, \"integrityExtensions\": {\"blockMerkle\": "
                "{\"blockSize\": 4096, \"roots\": {\"x\": \"sha256:%s\"}}}}",
                n, whole, n, n, root);
            test_write(t, "manifest.json", m, strlen(m));
            container *c = open_pack(t, test_folder(t));
            if (c == NULL) return;
            CHECK(t, container_verify(c, NULL, NULL, &t->err) == !wrong);
            t->err = (dp_error){ 0 };
            container_close(c);
        }
    }
}

typedef struct {
    uint64_t last, total;
    uint32_t calls, stop_at;
    bool went_back;
} progress_seen;

static bool see_progress(void *user, uint64_t done, uint64_t total) {
    progress_seen *p = user;
    p->went_back |= done < p->last;
    p->last = done;
    p->total = total;
    return ++p->calls != p->stop_at;
}

static void progress_ends_at_the_total_and_can_stop(test *t) {
    container *c = open_pack(t, pack_path(t, "seeds")); /* hashed twice: still once in progress */
    if (c == NULL) return;
    progress_seen seen = { 0 };
    const verify_options options = { .n_threads = 2, .progress = see_progress, .user = &seen };
    CHECK(t, container_verify(c, &options, NULL, &t->err));
    CHECK(t, seen.calls > 0 && !seen.went_back && seen.last == seen.total);
    CHECK_U64(t, seen.total, 13824);
    seen = (progress_seen){ .stop_at = 1 };
    CHECK(t, !container_verify(c, &options, NULL, &t->err));
    CHECK_ERROR(t, &t->err, DP_E_CANCELLED, "verification was stopped");
    container_close(c);
}

/* Beside reading: the loader's way. */
static void packs_are_verified_in_the_background(test *t) {
    const char *pack = copy_pack(t, "ours", "ours");
    const verify_options options = { .n_threads = 2, .once = true };
    for (int wrong = 0; wrong <= 1; wrong++) {
        container *c = open_pack(t, pack);
        verifier *v = verifier_start(c, &options, &t->err);
        if (!CHECK_MSG(t, v != NULL, "%s", t->err.message)) return;
        for (uint32_t i = 0; i < container_n_tensors(c); i++) {
            decode_all(t, c, container_tensor(c, i));
        }
        verify_result r = { 0 };
        const bool ok = verifier_finish(v, &r, &t->err);
        CHECK(t, ok == !wrong);
        if (wrong) {
            CHECK_ERROR(t, &t->err, DP_E_FORMAT, "shard_00002.bin: bytes 8192 to 12287");
        } else {
            CHECK_U64(t, r.n_pieces, 13);
            CHECK_U64(t, r.bytes, 40960 + 5222 + 45);
        }
        v = verifier_start(c, NULL, &t->err);
        verifier_cancel(v);
        container_close(c);
        flip_byte(t, pack, 2, 8192);
    }
    verifier_cancel(NULL);
}

/* ---- memory -------------------------------------------------------------------------------- */

static bool open_decode_verify(const char *path, dp_error *err) {
    static float out[512 * 300];
    container *c = container_open(path, false, err);
    bool ok = c != NULL;
    for (uint32_t i = 0; ok && i < container_n_tensors(c); i++) {
        const tensor *x = container_tensor(c, i);
        ok = container_decode(c, x, 0, (uint32_t)tensor_rows(x), out, err);
    }
    dp_error problem = { 0 };
    if (ok && container_json(c, "tokenizer.json", &problem) == NULL) {
        ok = problem.status == DP_OK || err_set(err, problem.status, "%s", problem.message);
    }
    ok = ok && container_verify(c, &(verify_options){ .n_threads = 1 }, NULL, err);
    container_close(c);
    return ok;
}

static void failed_allocations_leave_nothing_behind(test *t) {
    static const char *const packs[] = { "ours", "groups", "kinds" };
    for (size_t i = 0; i < ARRAY_LEN(packs); i++) {
        const char *path = pack_path(t, packs[i]);
        bool ok = false;
        uint64_t n = 0;
        while (!ok && n < 2000) {
            dp_error err = { 0 };
            mem_fail_from(++n);
            ok = open_decode_verify(path, &err);
            mem_fail_from(0);
            test_row(t, "%s, allocation %u", packs[i], (unsigned)n);
            if (!CHECK_MSG(t, ok || err.status == DP_E_MEMORY, "%d: %s", err.status, err.message)) {
                break;
            }
        }
        CHECK(t, ok && n > 20);
    }
}

static const test_case cases[] = {
    { "hashes equal published vectors", hashes_equal_published_vectors },
    { "hashes do not depend on how the bytes come", hashes_do_not_depend_on_pieces },
    { "digests are read from 64 hexadecimal digits alone", digests_are_read_from_hex_alone },
    { "padded rows are whole blocks", padded_rows_are_whole_blocks },
    { "packs of every dialect are read to the bit", packs_of_every_dialect_are_read },
    { "rows decode in any portion", rows_decode_in_any_portion },
    { "plain tensors are rows of their type", plain_tensors_are_rows_of_their_type },
    { "packs answer for their files", packs_answer_for_their_files },
    { "tokenizers are found under their names", tokenizers_are_found_under_their_names },
    { "listed files must be as listed", listed_files_must_be_as_listed },
    { "roles are found by names", roles_are_found_by_names },
    { "vocabularies open without shards", vocabularies_open_without_shards },
    { "manifests list their files", manifests_list_their_files },
    { "lying manifests are refused, the place named", lying_manifests_are_refused },
    { "harmless changes are accepted", harmless_changes_are_accepted },
    { "giant and nested manifests are refused quickly",
      giant_and_nested_manifests_are_refused_quickly },
    { "links must not leave the pack", links_must_not_leave_the_pack },
    { "snapshots of the cache may link to their blobs", snapshots_of_the_cache_may_link_to_blobs },
    { "many shards are read with few files open", many_shards_are_read_with_few_files_open },
    { "good packs are verified", good_packs_are_verified },
    { "flipped bytes are found and named", flipped_bytes_are_found_and_named },
    { "the first wrong place is named by any number of threads", the_first_wrong_place_is_named },
    { "slow shards do not change the verdict", slow_shards_do_not_change_the_verdict },
    { "spans are joined in their order", spans_are_joined_in_their_order },
    { "wrong hashes are found", wrong_hashes_are_found },
    { "shards of another length are refused", shards_of_another_length_are_refused },
    { "swapped shards are found", swapped_shards_are_found },
    { "merkle trees of any width are verified", merkle_trees_of_any_width_are_verified },
    { "progress ends at the total and can stop", progress_ends_at_the_total_and_can_stop },
    { "packs are verified in the background", packs_are_verified_in_the_background },
    { "failed allocations leave nothing behind", failed_allocations_leave_nothing_behind },
};

const test_group pack_tests = { "pack", cases, ARRAY_LEN(cases) };
