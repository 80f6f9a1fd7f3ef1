/* test_pull: dp_store_pull against a server of the test's own, with the faults that servers,
 * networks and disks have.
 *
 * Packs are small and made here: shards of one tensor each whose bytes are random, so that any
 * confusion of bytes is seen by their hashes and by comparing the files. Counts are those of the
 * server: what a pull asks for again shows there. */
#include "store/store.h"
#include "tests/http_server.h"
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SHARD_BYTES = 40000, SHARDS_MAX = 4, PIECE_BYTES = 4096 };

typedef struct {
    uint32_t n_shards;
    hash_kind kind;
    bool pieces;      /* has pieceHashes */
    bool files;       /* lists its text files */
    uint64_t seed;    /* of the first shard, the next has the next */
    const char *name; /* of the second shard's file; NULL: the usual one */
    uint64_t claimed; /* size of the last shard as the manifest has it; 0: the real one */
    int odd;          /* what is wrong with pieceHashes: see odd_pieces; 0: nothing */
    const unsigned char *shards[SHARDS_MAX];
    str manifest;
} pack_spec;

typedef struct {
    test *t;
    http_server *server;
    const char *folder; /* the model folder */
    dp_store_options store;
    dp_pull_options how;
    dp_pull_result result;
    char log[4096]; /* lines of warnings */
} fixture;

static const char tokenizer_text[] = "{\"model\": {\"type\": \"BPE\"}}\n";

/* ---- packs --------------------------------------------------------------------------------- */

static const char *hex_of(test *t, hash_kind kind, const void *bytes, size_t n) {
    unsigned char digest[HASH_BYTES];
    char *hex = test_alloc(t, HASH_HEX_BYTES, 1);
    hash_state h;
    hash_begin(&h, kind);
    hash_add(&h, bytes, n);
    hash_end(&h, digest);
    hash_to_hex(digest, hex);
    return hex;
}

static const unsigned char *shard_bytes(test *t, uint64_t seed) {
    unsigned char *bytes = test_alloc(t, SHARD_BYTES, 1);
    t->random = seed * 1000003;
    for (size_t i = 0; i < SHARD_BYTES; i++)
        bytes[i] = (unsigned char)test_random(t);
    return bytes;
}

static const char *shard_name(test *t, const pack_spec *p, uint32_t i) {
    return i == 1 && p->name != NULL ? p->name : test_printf(t, "shard_%05u.bin", i);
}

static const struct {
    const char *what, *part;
} odd_pieces[] = {
    { "nothing", "" },
    { "the last is missing", "pieceHashes" },
    { "one too many", "pieceHashes" },
    { "no hexadecimal digits", "pieceHashes" },
    { "of one shard none", "pieceHashes" },
    { "tiny blocks", "pieceHashes" },
};

static void add_piece_hashes(test *t, buf *b, const pack_spec *p) {
    buf_printf(b, ",\"pieceHashes\":{\"blockSize\":%d,\"shards\":[", p->odd == 5 ? 1 : PIECE_BYTES);
    for (uint32_t i = 0; i < (p->odd == 4 ? p->n_shards - 1 : p->n_shards); i++) {
        buf_printf(b, i > 0 ? ",[" : "[");
        if (p->odd == 2) buf_printf(b, "\"%s\",", hex_of(t, HASH_SHA256, "", 0));
        if (p->odd == 3) buf_printf(b, "\"x\",");
        const size_t first = p->odd == 1 || p->odd == 3 ? PIECE_BYTES : 0;
        for (size_t at = first; at < SHARD_BYTES; at += PIECE_BYTES) {
            const size_t n = at + PIECE_BYTES <= SHARD_BYTES ? PIECE_BYTES : SHARD_BYTES - at;
            buf_printf(b, "%s\"%s\"", at > first ? "," : "",
                       hex_of(t, HASH_SHA256, p->shards[i] + at, n));
        }
        buf_printf(b, "]");
    }
    buf_printf(b, "]}");
}

static void make_pack(test *t, pack_spec *p) {
    buf b;
    uint64_t total = 0;
    buf_init(&b, 1 << 20);
    for (uint32_t i = 0; i < p->n_shards; i++)
        p->shards[i] = shard_bytes(t, p->seed + i);
    buf_printf(&b,
               "{\"version\":1,\"modelId\":\"tiny\",\"modelType\":\"transformer\","
               "\"quantization\":\"F32\",\"hashAlgorithm\":\"%s\",\"eos_token_id\":1,"
               "\"architecture\":{\"numLayers\":1,\"hiddenSize\":100,\"intermediateSize\":100,"
               "\"numAttentionHeads\":1,\"numKeyValueHeads\":1,\"headDim\":100,\"vocabSize\":100,"
               "\"maxSeqLen\":64},\"inference\":{},"
               "\"tokenizer\":{\"type\":\"bundled\",\"file\":\"tokenizer.json\"},\"shards\":[",
               p->kind == HASH_SHA256 ? "sha256" : "blake3");
    for (uint32_t i = 0; i < p->n_shards; i++) {
        const bool lies = p->claimed != 0 && i + 1 == p->n_shards;
        const uint64_t size = lies ? p->claimed : SHARD_BYTES;
        buf_printf(&b,
                   "%s{\"index\":%u,\"filename\":\"%s\",\"size\":%llu,\"hash\":\"%s\","
                   "\"offset\":%llu}",
                   i > 0 ? "," : "", i, shard_name(t, p, i), (unsigned long long)size,
                   hex_of(t, p->kind, p->shards[i], SHARD_BYTES), (unsigned long long)total);
        total += size;
    }
    buf_printf(&b, "],\"totalSize\":%llu,\"tensors\":{", (unsigned long long)total);
    for (uint32_t i = 0; i < p->n_shards; i++) {
        buf_printf(&b,
                   "%s\"model.layers.%u.mlp.up_proj.weight\":{\"shard\":%u,\"offset\":0,"
                   "\"size\":%d,\"shape\":[100,100],\"dtype\":\"F32\",\"role\":\"matmul\"}",
                   i > 0 ? "," : "", i, i, SHARD_BYTES);
    }
    buf_printf(&b, "}");
    if (p->pieces) add_piece_hashes(t, &b, p);
    if (p->files) {
        buf_printf(&b, ",\"files\":[{\"name\":\"tokenizer.json\",\"size\":%zu,\"hash\":\"%s\"}]",
                   sizeof(tokenizer_text) - 1,
                   hex_of(t, HASH_SHA256, tokenizer_text, sizeof(tokenizer_text) - 1));
    }
    buf_printf(&b, "}\n");
    CHECK(t, buf_ok(&b, "a manifest", &t->err));
    char *copy = test_alloc(t, b.size + 1, 1);
    memcpy(copy, b.data, b.size);
    p->manifest = (str){ copy, b.size };
    buf_free(&b);
}

static void serve_pack(fixture *f, const char *folder, pack_spec *p) {
    make_pack(f->t, p);
    http_server_put(f->server, test_printf(f->t, "%s/manifest.json", folder), p->manifest.data,
                    p->manifest.size, NULL);
    http_server_put(f->server, test_printf(f->t, "%s/tokenizer.json", folder), tokenizer_text,
                    sizeof(tokenizer_text) - 1, NULL);
    for (uint32_t i = 0; i < p->n_shards; i++) {
        http_server_put(f->server, test_printf(f->t, "%s/%s", folder, shard_name(f->t, p, i)),
                        p->shards[i], SHARD_BYTES, NULL);
    }
}

/* ---- the fixture --------------------------------------------------------------------------- */

static void keep_warning(void *user, dp_log_level level, const char *line) {
    fixture *f = user;
    const size_t n = strlen(f->log);
    if (level == DP_LOG_WARNING) snprintf(f->log + n, sizeof(f->log) - n, "%s\n", line);
}

static void begin(fixture *f, test *t) {
    memset(f, 0, sizeof(*f));
    f->t = t;
    setenv("no_proxy", "127.0.0.1", 1); /* libcurl reads it */
    f->server = http_server_start();
    f->folder = test_printf(t, "%s/models", test_folder(t));
    f->store.folder = f->folder;
    f->how = (dp_pull_options){ .jobs = 2,
                                .tries = 4,
                                .pause_ms = 1,
                                .connect_seconds = 5,
                                .stall_seconds = 20,
                                .log = keep_warning,
                                .log_user = f };
}

static void end(fixture *f) {
    http_server_stop(f->server);
}

static bool pull_from(fixture *f, const char *path, const char *name) {
    f->how.name = name;
    f->log[0] = '\0';
    memset(&f->result, 0, sizeof(f->result));
    return dp_store_pull(&f->store, test_printf(f->t, "%s%s", http_server_url(f->server), path),
                         &f->how, &f->result, &f->t->err);
}

static const char *inside(const fixture *f, const char *model, const char *name) {
    return test_printf(f->t, "%s/%s/%s", f->folder, model, name);
}

static void check_same(const fixture *f, const char *path, const void *want, size_t n) {
    const str got = test_read_file(f->t, path);
    CHECK_MSG(f->t, got.size == n && memcmp(got.data, want, n) == 0, "%s: %zu bytes, not the %zu",
              path, got.size, n);
}

/* The pack is there, whole, without anything that only a pull needs. */
static void check_pack(const fixture *f, const char *model, const pack_spec *p) {
    test *t = f->t;
    const char **names;
    uint32_t n;
    arena memory = { 0 };
    check_same(f, inside(f, model, "manifest.json"), p->manifest.data, p->manifest.size);
    check_same(f, inside(f, model, "tokenizer.json"), tokenizer_text, sizeof(tokenizer_text) - 1);
    for (uint32_t i = 0; i < p->n_shards; i++) {
        check_same(f, inside(f, model, shard_name(t, p, i)), p->shards[i], SHARD_BYTES);
    }
    if (CHECK(t, disk_names(inside(f, model, ""), true, &memory, &names, &n, &t->err))) {
        CHECK_U64(t, n, p->n_shards + 2);
    }
    CHECK(t, !path_exists(test_printf(t, "%s/.%s.part", f->folder, model)));
    CHECK(t, !path_exists(test_printf(t, "%s/.%s.lock", f->folder, model)));
    CHECK(t, !path_exists(test_printf(t, "%s/.%s.old", f->folder, model)));
    arena_free(&memory);
}

static bool count_model(void *user, const dp_store_entry *e) {
    (void)e;
    ++*(uint32_t *)user;
    return true;
}

static void check_not_there(const fixture *f, const char *model) {
    uint32_t n = 0;
    CHECK(f->t, !path_exists(test_printf(f->t, "%s/%s", f->folder, model)));
    CHECK(f->t, dp_store_list(&f->store, count_model, &n, &f->t->err));
    CHECK_U64(f->t, n, 0);
}

/* ---- whole pulls --------------------------------------------------------------------------- */

static void packs_arrive_whole(test *t) {
    static const struct {
        const char *what;
        hash_kind kind;
        bool pieces, files;
        uint32_t n_checked; /* of manifest, tokenizer and three shards */
    } cases[] = {
        { "SHA-256", HASH_SHA256, false, false, 3 },
        { "BLAKE3", HASH_BLAKE3, false, false, 3 },
        { "the variant of BLAKE3", HASH_BLAKE3_VARIANT, false, true, 4 },
        { "hashes of pieces", HASH_SHA256, true, true, 4 },
    };
    fixture f;
    begin(&f, t);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        test_row(t, "%s", cases[i].what);
        const char *name = test_printf(t, "tiny-%zu", i);
        pack_spec p = { .n_shards = 3,
                        .kind = cases[i].kind,
                        .pieces = cases[i].pieces,
                        .files = cases[i].files,
                        .seed = 1 };
        serve_pack(&f, "/packs/tiny", &p);
        http_server_forget(f.server);
        if (!CHECK(t, pull_from(&f, "/packs/tiny", name))) continue;
        check_pack(&f, name, &p);
        CHECK_STR(t, str_of(f.result.name), name);
        CHECK_STR(t, str_of(f.result.path), test_printf(t, "%s/%s", f.folder, name));
        CHECK_STR(t, str_of(f.result.container), "rdrr");
        CHECK_U64(t, f.result.n_files, 5);
        CHECK_U64(t, f.result.n_checked, cases[i].n_checked);
        CHECK_U64(t, f.result.bytes,
                  3 * SHARD_BYTES + p.manifest.size + sizeof(tokenizer_text) - 1);
        CHECK_U64(t, f.result.bytes_kept, 0);
        CHECK_U64(t, http_server_requests(f.server, "/packs/tiny/shard_00001.bin"), 1);
        CHECK_STR(t, str_of(f.log), "");
    }
    end(&f);
}

/* A URL's parts: the name that it suggests, the manifest spelt out, secrets that stay secret. */
static void sources_are_understood(test *t) {
    static const struct {
        const char *tail, *name;
    } cases[] = {
        { "/hub/org/tiny-1/resolve/main", "tiny-1" },
        { "/hub/org/tiny-2/resolve/main/", "tiny-2" },
        { "/packs/a%20b/manifest.json?key=s3cret", "a b" },
    };
    fixture f;
    begin(&f, t);
    pack_spec p = { .n_shards = 2, .seed = 1, .name = "shard #2 of \xc3\xa4?.bin" };
    serve_pack(&f, "/hub/org/tiny-1/resolve/main", &p);
    http_server_put(f.server, "/hub/org/tiny-1/resolve/main/shard%20%232%20of%20%C3%A4%3F.bin",
                    p.shards[1], SHARD_BYTES, NULL);
    if (CHECK(t, pull_from(&f, cases[0].tail, NULL))) check_pack(&f, cases[0].name, &p);
    pack_spec q = { .n_shards = 2, .seed = 1 };
    serve_pack(&f, "/hub/org/tiny-2/resolve/main", &q);
    if (CHECK(t, pull_from(&f, cases[1].tail, NULL))) check_pack(&f, cases[1].name, &q);
    serve_pack(&f, "/packs/a%20b", &q);
    if (CHECK(t, pull_from(&f, cases[2].tail, NULL))) check_pack(&f, cases[2].name, &q);
    CHECK(t, strstr(http_server_last(f.server, "/packs/a%20b/shard_00000.bin"),
                    "shard_00000.bin?key=s3cret HTTP") != NULL);
    const char *url = http_server_url(f.server);
    const char *with_user = test_printf(t, "http://me:s3cret@%s/none?key=s3cret", url + 7);
    CHECK(t, !dp_store_pull(&f.store, with_user, &f.how, NULL, &t->err));
    CHECK(t, strstr(t->err.message, "s3cret") == NULL);
    CHECK_ERROR(t, &t->err, DP_E_NETWORK, "/none/: has neither manifest.json nor config.json");
    CHECK(t, strstr(http_server_last(f.server, "/none/config.json"),
                    "Authorization: Basic bWU6czNjcmV0") != NULL);
    end(&f);
}

static const char *const folder_files[] = { "config.json", "generation_config.json",
                                            "tokenizer.json", "tokenizer_config.json",
                                            "model.safetensors" };
static const char safetensors_folder[] = "models/llama-bias";

static void serve_safetensors(fixture *f, const char *path) {
    for (size_t i = 0; i < ARRAY_LEN(folder_files); i++) {
        const str bytes = test_read_file(
            f->t,
            test_vector(f->t, test_printf(f->t, "%s/%s", safetensors_folder, folder_files[i])));
        http_server_put(f->server, test_printf(f->t, "%s/%s", path, folder_files[i]), bytes.data,
                        bytes.size, NULL);
    }
}

static void safetensors_arrive_whole(test *t) {
    fixture f;
    begin(&f, t);
    serve_safetensors(&f, "/st");
    if (CHECK(t, pull_from(&f, "/st", NULL))) {
        CHECK_STR(t, str_of(f.result.container), "safetensors");
        CHECK_U64(t, f.result.n_files, ARRAY_LEN(folder_files));
        CHECK_U64(t, f.result.n_checked, 0);
        CHECK(t, strstr(f.log, "st: model.safetensors: nothing vouches for the bytes of 5 of 5") !=
                     NULL);
    }
    for (size_t i = 0; i < ARRAY_LEN(folder_files); i++) {
        const str want = test_read_file(
            t, test_vector(t, test_printf(t, "%s/%s", safetensors_folder, folder_files[i])));
        check_same(&f, inside(&f, "st", folder_files[i]), want.data, want.size);
    }
    /* With sums: all are held against them. */
    buf sums;
    buf_init(&sums, 1 << 16);
    buf_printf(&sums, "# made by sha256sum\r\n\n");
    for (size_t i = 0; i < ARRAY_LEN(folder_files); i++) {
        const str bytes = test_read_file(t, inside(&f, "st", folder_files[i]));
        buf_printf(&sums, i % 2 == 0 ? "%s  ./%s\r\n" : "%s *%s\n",
                   hex_of(t, HASH_SHA256, bytes.data, bytes.size), folder_files[i]);
    }
    http_server_put(f.server, "/st/SHA256SUMS", sums.data, sums.size, NULL);
    if (CHECK(t, pull_from(&f, "/st", "sums"))) {
        CHECK_U64(t, f.result.n_checked, ARRAY_LEN(folder_files));
        CHECK_STR(t, str_of(f.log), "");
    }
    CHECK(t, !path_exists(inside(&f, "sums", "SHA256SUMS")));
    buf_free(&sums);
    static const struct {
        const char *sums, *part;
        dp_status status;
    } bad[] = {
        { "<html>", "SHA256SUMS: line 1 is no SHA-256", DP_E_FORMAT },
        { "aa  config.json\n", "SHA256SUMS: line 1 is no SHA-256", DP_E_FORMAT },
        { "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef  config.json\n",
          "config.json: SHA-256 is ", DP_E_NETWORK },
        { "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef  x\n"
          "1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef  x\n",
          "SHA256SUMS: line 2: another hash of x", DP_E_FORMAT },
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        http_server_put(f.server, "/st/SHA256SUMS", bad[i].sums, strlen(bad[i].sums), NULL);
        CHECK(t, !pull_from(&f, "/st", "bad"));
        CHECK_ERROR(t, &t->err, bad[i].status, bad[i].part);
        CHECK(t, !path_exists(inside(&f, "bad", "")));
        CHECK(t, !path_exists(inside(&f, ".bad.part", "")));
    }
    end(&f);
}

static void gguf_files_arrive_whole(test *t) {
    fixture f;
    begin(&f, t);
    for (int i = 1; i <= 3; i++) {
        const char *name = test_printf(t, "model-%05d-of-00003.gguf", i);
        const str bytes =
            test_read_file(t, test_vector(t, test_printf(t, "gguf/llama3-gqa-split/%s", name)));
        http_server_put(f.server, test_printf(t, "/g/%s", name), bytes.data, bytes.size, NULL);
    }
    if (CHECK(t, pull_from(&f, "/g/model-00002-of-00003.gguf?download=true", NULL))) {
        CHECK_STR(t, str_of(f.result.name), "model");
        CHECK_STR(t, str_of(f.result.container), "gguf");
        CHECK_U64(t, f.result.n_files, 3);
        CHECK(t, strstr(f.log, "nothing vouches for the bytes of 3 of 3") != NULL);
    }
    const str bytes = test_read_file(t, test_vector(t, "gguf/q8_0/model.gguf"));
    const char *right = hex_of(t, HASH_SHA256, bytes.data, bytes.size);
    http_server_put(f.server, "/g/one.gguf", bytes.data, bytes.size, NULL);
    f.how.sha256 = right;
    if (CHECK(t, pull_from(&f, "/g/one.gguf", NULL))) {
        CHECK_U64(t, f.result.n_checked, 1);
        CHECK_STR(t, str_of(f.log), "");
    }
    check_same(&f, inside(&f, "one", "one.gguf"), bytes.data, bytes.size);
    f.how.sha256 = hex_of(t, HASH_SHA256, "", 0);
    CHECK(t, !pull_from(&f, "/g/one.gguf", "wrong"));
    CHECK_ERROR(t, &t->err, DP_E_NETWORK,
                test_printf(t,
                            "one.gguf: SHA-256 is %s, the SHA-256 that was given says %s "
                            "(fetched 3 times)",
                            right, f.how.sha256));
    CHECK(t, !path_exists(inside(&f, "wrong", "")));
    CHECK(t, !pull_from(&f, "/g/model-00001-of-00003.gguf", "several"));
    CHECK_ERROR(t, &t->err, DP_E_ARGUMENT, "has several files");
    f.how.sha256 = "12";
    CHECK(t, !pull_from(&f, "/g/one.gguf", "short"));
    CHECK_ERROR(t, &t->err, DP_E_ARGUMENT, "\"12\" is no SHA-256");
    f.how.sha256 = NULL;
    CHECK(t, !pull_from(&f, "/g/none.gguf", "none"));
    CHECK_ERROR(t, &t->err, DP_E_NETWORK, "none.gguf: the server says 404, not found");
    CHECK(t, !path_exists(inside(&f, ".none.part", "")));
    http_server_put(f.server, "/g/bad.gguf", "GGUF no", 7, NULL);
    CHECK(t, !pull_from(&f, "/g/bad.gguf", "bad"));
    CHECK_ERROR(t, &t->err, DP_E_FORMAT, "bad: what was fetched cannot be opened: ");
    CHECK(t, !path_exists(inside(&f, "bad", "")));
    end(&f);
}

/* The hash that is given for a pack is its manifest's, which vouches for the rest. */
static void a_manifest_can_be_vouched_for(test *t) {
    fixture f;
    begin(&f, t);
    pack_spec p = { .n_shards = 2, .seed = 1, .files = true };
    serve_pack(&f, "/p", &p);
    f.how.sha256 = hex_of(t, HASH_SHA256, p.manifest.data, p.manifest.size);
    if (CHECK(t, pull_from(&f, "/p", "right"))) {
        check_pack(&f, "right", &p);
        CHECK_U64(t, f.result.n_checked, f.result.n_files);
    }
    pack_spec q = { .n_shards = 2, .seed = 2, .files = true };
    serve_pack(&f, "/p", &q);
    CHECK(t, !pull_from(&f, "/p", "other"));
    CHECK_ERROR(t, &t->err, DP_E_NETWORK, "manifest.json: SHA-256 is ");
    CHECK(t, !path_exists(inside(&f, "other", "")));
    end(&f);
}

/* ---- broken off and continued -------------------------------------------------------------- */

static const char cut_shard[] = "/p/shard_00001.bin";

static void a_broken_pull_goes_on_where_it_stopped(test *t) {
    static const struct {
        uint64_t cut; /* of 40,000 bytes */
        bool pieces;
    } cases[] = { { 12000, false }, { 36000, false }, { 12000, true }, { 36000, true } };
    fixture f;
    begin(&f, t);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        test_row(t, "cut at %llu%s", (unsigned long long)cases[i].cut,
                 cases[i].pieces ? ", pieces" : "");
        pack_spec p = { .n_shards = 3, .pieces = cases[i].pieces, .seed = 10 * i };
        const char *name = test_printf(t, "cut-%zu", i);
        serve_pack(&f, "/p", &p);
        /* The server goes away in the middle of the second shard, and stays away. */
        f.how.jobs = 1;
        f.how.tries = 2;
        http_server_fault(f.server, cut_shard, FAULT_CUT, 1, cases[i].cut, NULL);
        http_server_fault(f.server, cut_shard, FAULT_STATUS, 0, 503, NULL);
        http_server_fault(f.server, cut_shard, FAULT_CUT, FOR_EVER, 0, NULL);
        CHECK(t, !pull_from(&f, "/p", name));
        CHECK_ERROR(t, &t->err, DP_E_NETWORK, "shard_00001.bin: ");
        CHECK(t, !path_exists(inside(&f, name, "")));
        http_server_no_faults(f.server);
        http_server_forget(f.server);
        if (!CHECK(t, pull_from(&f, "/p", name))) continue;
        check_pack(&f, name, &p);
        CHECK_U64(t, http_server_requests(f.server, "/p/shard_00000.bin"), 0);
        CHECK_U64(t, http_server_requests(f.server, cut_shard), 1);
        CHECK_U64(t, http_server_sent(f.server, cut_shard), SHARD_BYTES - cases[i].cut);
        CHECK(t, strstr(http_server_last(f.server, cut_shard),
                        test_printf(t, "Range: bytes=%llu-\r\n",
                                    (unsigned long long)cases[i].cut)) != NULL);
        CHECK(t, strstr(http_server_last(f.server, cut_shard), "If-Range: ") == NULL);
        CHECK(t, f.result.bytes_kept >= SHARD_BYTES + cases[i].cut);
        CHECK(t, f.result.bytes_kept < 2 * SHARD_BYTES + 8000);
    }
    end(&f);
}

static void a_broken_connection_is_tried_again(test *t) {
    static const struct {
        const char *what;
        fault_kind kind;
        uint32_t times;
        uint64_t value;
        bool again;
    } cases[] = {
        { "cut thrice at 3,000", FAULT_CUT, 3, 3000, true },
        { "cut at once", FAULT_CUT, 1, 0, true },
        { "500 thrice", FAULT_STATUS, 3, 500, true },
        { "429", FAULT_STATUS, 1, 429, true },
        { "no length", FAULT_NO_LENGTH, 1, 0, false },
        { "early hints", FAULT_EARLY, 1, 0, false },
    };
    fixture f;
    begin(&f, t);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        test_row(t, "%s", cases[i].what);
        pack_spec p = { .n_shards = 2, .seed = i };
        const char *name = test_printf(t, "again-%zu", i);
        serve_pack(&f, "/p", &p);
        http_server_no_faults(f.server);
        http_server_forget(f.server);
        http_server_fault(f.server, cut_shard, cases[i].kind, cases[i].times, cases[i].value, NULL);
        if (CHECK(t, pull_from(&f, "/p", name))) check_pack(&f, name, &p);
        CHECK_U64(t, http_server_sent(f.server, cut_shard), SHARD_BYTES);
        CHECK_U64(t, http_server_requests(f.server, cut_shard),
                  cases[i].again ? cases[i].times + 1 : 1);
    }
    /* A manifest is tried again like any file. */
    test_row(t, "manifest");
    pack_spec p = { .n_shards = 1, .seed = 77 };
    serve_pack(&f, "/p", &p);
    http_server_fault(f.server, "/p/manifest.json", FAULT_CUT, 2, 100, NULL);
    if (CHECK(t, pull_from(&f, "/p", "manifest"))) check_pack(&f, "manifest", &p);
    end(&f);
}

static void a_server_without_ranges_starts_over(test *t) {
    fixture f;
    begin(&f, t);
    pack_spec p = { .n_shards = 2, .seed = 5, .pieces = true };
    serve_pack(&f, "/p", &p);
    http_server_fault(f.server, cut_shard, FAULT_NO_RANGES, FOR_EVER, 0, NULL);
    http_server_fault(f.server, cut_shard, FAULT_CUT, 2, 12000, NULL);
    if (CHECK(t, pull_from(&f, "/p", "over"))) check_pack(&f, "over", &p);
    CHECK_U64(t, http_server_requests(f.server, cut_shard), 3);
    CHECK_U64(t, http_server_sent(f.server, cut_shard), 2 * 12000 + SHARD_BYTES);
    /* And one that always breaks off at the same place is given up. */
    http_server_fault(f.server, cut_shard, FAULT_CUT, FOR_EVER, 12000, NULL);
    http_server_forget(f.server);
    CHECK(t, !pull_from(&f, "/p", "never"));
    CHECK_ERROR(t, &t->err, DP_E_NETWORK, "shard_00001.bin");
    CHECK_U64(t, http_server_requests(f.server, cut_shard), 4); /* tries */
    end(&f);
}

/* A part in another state than its own: damaged on the disk, of another version, too long. */
static void a_damaged_part_is_mended(test *t) {
    static const char *const what[] = { "a byte",   "longer",    "empty",
                                        "no state", "bad state", "a folder inside" };
    fixture f;
    begin(&f, t);
    f.how.jobs = 1;
    f.how.tries = 1;
    for (size_t i = 0; i < ARRAY_LEN(what); i++) {
        test_row(t, "%s", what[i]);
        const char *name = test_printf(t, "damaged-%zu", i);
        const char *part = test_printf(t, "%s/.%s.part/", f.folder, name);
        const char *file_path = test_printf(t, "%s.shard_00001.bin.part", part);
        const char *state_path = test_printf(t, "%s.shard_00001.bin.state", part);
        pack_spec p = { .n_shards = 2, .seed = i, .pieces = i < 2 || i == 4 };
        serve_pack(&f, "/p", &p);
        http_server_fault(f.server, cut_shard, FAULT_CUT, 1, 30000, NULL);
        CHECK(t, !pull_from(&f, "/p", name));
        t->err = (dp_error){ 0 };
        const str bytes = test_read_file(t, file_path);
        if (!CHECK_U64(t, bytes.size, 30000)) continue;
        FILE *out = fopen(i < 3 ? file_path : state_path, i == 0 ? "r+b" : i == 1 ? "ab" : "wb");
        if (!CHECK(t, out != NULL)) continue;
        if (i == 0) fseek(out, 20000, SEEK_SET), fputc(bytes.data[20000] ^ 1, out);
        if (i == 1) fwrite(bytes.data, 1, 30000, out);
        if (i == 4) fputs("{\"etag\":", out);
        fclose(out);
        if (i == 3) unlink(state_path);
        if (i == 5) {
            CHECK(t, mkdir(test_printf(t, "%sextra", part), 0777) == 0 &&
                         mkdir(test_printf(t, "%sextra/more", part), 0777) == 0);
        }
        http_server_forget(f.server);
        if (CHECK(t, pull_from(&f, "/p", name))) check_pack(&f, name, &p);
        /* A wrong piece is cut off with what follows it: 20,000 is in the fifth. */
        if (i == 0) {
            CHECK_U64(t, http_server_sent(f.server, cut_shard), SHARD_BYTES - 4 * PIECE_BYTES);
        }
    }
    end(&f);
}

/* ---- wrong bytes --------------------------------------------------------------------------- */

static void a_wrong_byte_is_fetched_again(test *t) {
    static const struct {
        const char *what;
        hash_kind kind;
        bool pieces;
        uint64_t sent; /* bytes of the shard if byte 20,000 is wrong once */
        const char *place;
    } cases[] = {
        { "whole", HASH_SHA256, false, 2 * SHARD_BYTES, "shard_00001.bin: SHA-256 is " },
        { "BLAKE3", HASH_BLAKE3, false, 2 * SHARD_BYTES, "shard_00001.bin: BLAKE3 is " },
        { "variant", HASH_BLAKE3_VARIANT, false, 2 * SHARD_BYTES, "shard_00001.bin: BLAKE3 is " },
        { "pieces", HASH_SHA256, true, 0, "shard_00001.bin: bytes 16384 to 20479: SHA-256 is " },
    };
    fixture f;
    begin(&f, t);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        test_row(t, "%s", cases[i].what);
        pack_spec p = {
            .n_shards = 3, .kind = cases[i].kind, .pieces = cases[i].pieces, .seed = i
        };
        const char *once = test_printf(t, "once-%zu", i), *always = test_printf(t, "always-%zu", i);
        serve_pack(&f, "/p", &p);
        http_server_no_faults(f.server);
        http_server_forget(f.server);
        http_server_fault(f.server, cut_shard, FAULT_FLIP, 1, 20000, NULL);
        if (CHECK(t, pull_from(&f, "/p", once))) check_pack(&f, once, &p);
        CHECK_U64(t, http_server_requests(f.server, cut_shard), 2);
        if (cases[i].pieces) { /* only what is behind the last right piece */
            CHECK(t,
                  strstr(http_server_last(f.server, cut_shard), "Range: bytes=16384-\r\n") != NULL);
        } else {
            CHECK_U64(t, http_server_sent(f.server, cut_shard), cases[i].sent);
        }
        CHECK(t, strstr(f.log, cases[i].place) != NULL);

        http_server_fault(f.server, cut_shard, FAULT_FLIP, FOR_EVER, 20000, NULL);
        http_server_forget(f.server);
        CHECK(t, !pull_from(&f, "/p", always));
        CHECK(t, strstr(t->err.message, "the manifest says ") != NULL);
        CHECK(t, strstr(t->err.message, "(fetched 3 times)") != NULL);
        CHECK_ERROR(t, &t->err, DP_E_NETWORK, cases[i].place);
        CHECK_U64(t, http_server_requests(f.server, cut_shard), 3);
        CHECK(t, !path_exists(inside(&f, always, "")));
    }
    end(&f);
}

/* Answers that break the protocol or a promise. */
static void servers_that_lie_are_refused(test *t) {
    static const struct {
        const char *what, *path;
        fault_kind kind;
        uint64_t value;
        const char *text;
        dp_status status;
        const char *part;
    } cases[] = {
        { "404", "/p/shard_00001.bin", FAULT_STATUS, 404, NULL, DP_E_NETWORK,
          "/p/shard_00001.bin: the server says 404, not found" },
        { "401", "/p/manifest.json", FAULT_STATUS, 401, NULL, DP_E_NETWORK,
          "manifest.json: the server says 401, it wants a name and a password" },
        { "500", "/p/shard_00001.bin", FAULT_STATUS, 500, NULL, DP_E_NETWORK,
          "shard_00001.bin: the server says 500" },
        { "418", "/p/shard_00001.bin", FAULT_STATUS, 418, NULL, DP_E_NETWORK,
          "shard_00001.bin: the server says 418" },
        { "endless shard", "/p/shard_00001.bin", FAULT_ENDLESS, 0, NULL, DP_E_NETWORK,
          "shard_00001.bin: the source sends more than 40000 bytes" },
        { "endless text", "/p/SHA256SUMS", FAULT_ENDLESS, 0, NULL, DP_E_LIMIT,
          "SHA256SUMS: the source sends more than 16777216 bytes" },
        { "long text", "/p/SHA256SUMS", FAULT_SIZE, 1 << 30, NULL, DP_E_LIMIT,
          "SHA256SUMS: 1073741824 bytes, the limit is 16777216" },
        { "longer shard", "/p/shard_00001.bin", FAULT_SIZE, SHARD_BYTES + 1, NULL, DP_E_NETWORK,
          "shard_00001.bin: the source has 40001 bytes, expected 40000" },
        { "compressed", "/p/shard_00001.bin", FAULT_ENCODED, 0, NULL, DP_E_NETWORK,
          "shard_00001.bin: comes compressed" },
        { "redirect to a file", "/p/manifest.json", FAULT_REDIRECT, 0, "file:///etc/passwd",
          DP_E_NETWORK, "manifest.json: redirects to file:///etc/passwd, which is neither" },
        { "redirect to ftp", "/p/shard_00001.bin", FAULT_REDIRECT, 0, "ftp://127.0.0.1/x",
          DP_E_NETWORK, "redirects to ftp://127.0.0.1/x, which is neither http nor https" },
        { "redirect nowhere", "/p/manifest.json", FAULT_REDIRECT, 0, "http://", DP_E_NETWORK,
          "manifest.json: " },
    };
    fixture f;
    begin(&f, t);
    f.how.tries = 2;
    pack_spec p = { .n_shards = 2, .seed = 1 };
    serve_pack(&f, "/p", &p);
    http_server_put(f.server, "/p/SHA256SUMS", "\n", 1, NULL);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        test_row(t, "%s", cases[i].what);
        http_server_no_faults(f.server);
        http_server_fault(f.server, cases[i].path, cases[i].kind, FOR_EVER, cases[i].value,
                          cases[i].text);
        CHECK(t, !pull_from(&f, "/p", "x"));
        CHECK_ERROR(t, &t->err, cases[i].status, cases[i].part);
        check_not_there(&f, "x");
    }
    test_row(t, "redirects are counted");
    http_server_no_faults(f.server);
    http_server_forget(f.server);
    http_server_fault(f.server, "/p/manifest.json", FAULT_REDIRECT, FOR_EVER, 0,
                      "/p/manifest.json");
    CHECK(t, !pull_from(&f, "/p", "x"));
    CHECK_ERROR(t, &t->err, DP_E_NETWORK, "manifest.json: more than 10 redirects");
    CHECK_U64(t, http_server_requests(f.server, "/p/manifest.json"), REDIRECTS_MAX + 1);
    test_row(t, "other bytes than those asked for");
    http_server_no_faults(f.server);
    http_server_fault(f.server, cut_shard, FAULT_CUT, 1, 12000, NULL);
    http_server_fault(f.server, cut_shard, FAULT_RANGE, FOR_EVER, 0, NULL);
    CHECK(t, !pull_from(&f, "/p", "x"));
    CHECK_ERROR(t, &t->err, DP_E_NETWORK, "sends another range than was asked for");
    test_row(t, "too few bytes");
    http_server_no_faults(f.server);
    http_server_put(f.server, cut_shard, p.shards[1], 30000, NULL);
    http_server_fault(f.server, cut_shard, FAULT_NO_LENGTH, FOR_EVER, 0, NULL);
    CHECK(t, !pull_from(&f, "/p", "y"));
    CHECK_ERROR(t, &t->err, DP_E_NETWORK, "shard_00001.bin: ended after 30000 of 40000 bytes");
    http_server_put(f.server, cut_shard, p.shards[1], SHARD_BYTES, NULL);
    /* What was right of it is used: the end is good. */
    test_row(t, "%s", "");
    http_server_no_faults(f.server);
    http_server_fault(f.server, "/p/manifest.json", FAULT_REDIRECT, 1, 0, "/else/m?x");
    http_server_put(f.server, "/else/m", p.manifest.data, p.manifest.size, NULL);
    if (CHECK(t, pull_from(&f, "/p", "x"))) check_pack(&f, "x", &p);
    end(&f);
}

static void manifests_that_lie_are_refused(test *t) {
    static const struct {
        const char *what, *name;
        uint64_t claimed;
        dp_status status;
        const char *part;
    } cases[] = {
        { "parent", "../../x.bin", 0, DP_E_FORMAT, "x.bin" },
        { "absolute", "/etc/passwd", 0, DP_E_FORMAT, "/etc/passwd" },
        { "hidden", ".x.part", 0, DP_E_FORMAT, ".x.part" },
        { "twice", "shard_00000.bin", 0, DP_E_FORMAT, "shard_00000.bin" },
        { "manifest", "manifest.json", 0, DP_E_FORMAT, "manifest.json" },
        { "blank", "a\\nb", 0, DP_E_FORMAT, "no plain name" },
        /* more than any disk: refused before anything is fetched */
        { "huge", NULL, (uint64_t)1 << 60, DP_E_FILE, "x: needs 11529215046" },
        { "shorter", NULL, 100, DP_E_FORMAT, "" },
    };
    fixture f;
    begin(&f, t);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        test_row(t, "%s", cases[i].what);
        pack_spec p = {
            .n_shards = 2, .seed = 1, .name = cases[i].name, .claimed = cases[i].claimed
        };
        serve_pack(&f, "/p", &p);
        http_server_forget(f.server);
        CHECK(t, !pull_from(&f, "/p", "x"));
        if (cases[i].claimed == 100) {
            /* the source's size is right, and not the manifest's */
            CHECK_ERROR(t, &t->err, DP_E_NETWORK, "has 40000 bytes, expected 100");
        } else {
            CHECK_ERROR(t, &t->err, cases[i].status, cases[i].part);
            CHECK_U64(t, http_server_requests(f.server, "/p/shard_00000.bin"), 0);
        }
        check_not_there(&f, "x");
    }
    for (size_t i = 1; i < ARRAY_LEN(odd_pieces); i++) {
        test_row(t, "pieces: %s", odd_pieces[i].what);
        pack_spec p = { .n_shards = 2, .seed = 1, .pieces = true, .odd = (int)i };
        serve_pack(&f, "/p", &p);
        CHECK(t, !pull_from(&f, "/p", "x"));
        CHECK_ERROR(t, &t->err, DP_E_FORMAT, odd_pieces[i].part);
    }
    test_row(t, "index");
    serve_safetensors(&f, "/st");
    http_server_drop(f.server, "/st/model.safetensors");
    static const char *const maps[][2] = {
        { "{\"weight_map\":{\"a\":\"../x.safetensors\"}}",
          "\"../x.safetensors\" is no plain name" },
        { "{\"weight_map\":{\"a\":\"config.json\"}}", "config.json is no file of weights" },
        { "{\"weight_map\":{}}", "weight_map is no object with entries" },
        { "{\"weight_map\":{\"a\":1}}", "the file's name is no text" },
        { "{", "model.safetensors.index.json" },
    };
    for (size_t i = 0; i < ARRAY_LEN(maps); i++) {
        http_server_put(f.server, "/st/model.safetensors.index.json", maps[i][0],
                        strlen(maps[i][0]), NULL);
        CHECK(t, !pull_from(&f, "/st", "x"));
        CHECK_ERROR(t, &t->err, DP_E_FORMAT, maps[i][1]);
    }
    end(&f);
}

/* ---- changes in between -------------------------------------------------------------------- */

static void a_pack_that_changes_is_fetched_anew(test *t) {
    fixture f;
    begin(&f, t);
    f.how.jobs = 1;
    f.how.tries = 1;
    pack_spec old = { .n_shards = 3, .seed = 1, .pieces = true };
    serve_pack(&f, "/p", &old);
    http_server_fault(f.server, "/p/shard_00002.bin", FAULT_CUT, 1, 20000, NULL);
    CHECK(t, !pull_from(&f, "/p", "x"));
    t->err = (dp_error){ 0 };
    /* It has grown: the first shard is the same, the others are the next ones, one more. */
    pack_spec new = { .n_shards = 4, .seed = 1, .pieces = true };
    make_pack(t, &new);
    pack_spec shifted = { .n_shards = 4, .seed = 7, .pieces = true };
    serve_pack(&f, "/p", &shifted);
    http_server_forget(f.server);
    if (CHECK(t, pull_from(&f, "/p", "x"))) check_pack(&f, "x", &shifted);
    CHECK_U64(t, http_server_sent(f.server, "/p/shard_00002.bin"), SHARD_BYTES);
    /* The same shards under a longer manifest are kept. */
    serve_pack(&f, "/p", &old);
    http_server_fault(f.server, "/p/shard_00002.bin", FAULT_CUT, 1, 20000, NULL);
    CHECK(t, !pull_from(&f, "/p", "y"));
    t->err = (dp_error){ 0 };
    serve_pack(&f, "/p", &new);
    http_server_forget(f.server);
    if (CHECK(t, pull_from(&f, "/p", "y"))) check_pack(&f, "y", &new);
    CHECK_U64(t, http_server_requests(f.server, "/p/shard_00000.bin"), 0);
    CHECK_U64(t, http_server_requests(f.server, "/p/shard_00001.bin"), 0);
    CHECK_U64(t, http_server_sent(f.server, "/p/shard_00002.bin"), SHARD_BYTES - 20000);
    end(&f);
}

/* Files without hashes are continued under the same strong ETag and under no other. */
static void a_changed_etag_starts_over(test *t) {
    static const struct {
        const char *what, *before, *after; /* ETags; NULL: of the content */
        bool changes, if_range, keeps;
    } cases[] = {
        { "same", NULL, NULL, false, true, true },
        { "changed", NULL, NULL, true, true, false },
        { "changed, no If-Range", NULL, NULL, true, false, false },
        { "no ETag", "", "", true, true, false },
        { "weak", "W/\"1\"", "W/\"1\"", true, true, false },
        { "ETag gone", NULL, "", true, false, false },
    };
    const size_t cut = 5000;
    fixture f;
    begin(&f, t);
    f.how.jobs = 1;
    const str q8 = test_read_file(t, test_vector(t, "gguf/q8_0/model.gguf"));
    const str q4 = test_read_file(t, test_vector(t, "gguf/q4_0/model.gguf"));
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        test_row(t, "%s", cases[i].what);
        const str then = cases[i].changes ? q4 : q8;
        const char *name = test_printf(t, "etag-%zu", i);
        http_server_no_faults(f.server);
        http_server_put(f.server, "/m.gguf", q8.data, q8.size, cases[i].before);
        /* The first request asks for the size. */
        http_server_fault(f.server, "/m.gguf", FAULT_CUT, 2, cut, NULL);
        f.how.tries = 1;
        CHECK(t, !pull_from(&f, "/m.gguf", name));
        t->err = (dp_error){ 0 };
        http_server_put(f.server, "/m.gguf", then.data, then.size, cases[i].after);
        if (!cases[i].if_range) {
            http_server_fault(f.server, "/m.gguf", FAULT_NO_IF_RANGE, FOR_EVER, 0, NULL);
        }
        http_server_forget(f.server);
        f.how.tries = 3;
        if (CHECK(t, pull_from(&f, "/m.gguf", name))) {
            check_same(&f, inside(&f, name, "m.gguf"), then.data, then.size);
        }
        const uint64_t sent = http_server_sent(f.server, "/m.gguf");
        if (cases[i].keeps) {
            const char *last = http_server_last(f.server, "/m.gguf");
            CHECK(t, strstr(last, "\nRange: bytes=4999-\r") != NULL);
            CHECK(t, strstr(last, "\nIf-Range: \"") != NULL);
        }
        if (cases[i].keeps) CHECK_U64(t, sent, 1 + then.size - (cut - 1));
        if (!cases[i].keeps) CHECK(t, sent >= 1 + then.size);
    }
    /* Within one pull, too, nothing is continued that cannot be told from something else. */
    test_row(t, "again without an ETag");
    http_server_no_faults(f.server);
    http_server_put(f.server, "/m.gguf", q8.data, q8.size, "");
    http_server_fault(f.server, "/m.gguf", FAULT_CUT, 2, cut, NULL);
    http_server_forget(f.server);
    if (CHECK(t, pull_from(&f, "/m.gguf", "again"))) {
        check_same(&f, inside(&f, "again", "m.gguf"), q8.data, q8.size);
    }
    CHECK_U64(t, http_server_sent(f.server, "/m.gguf"), 1 + cut + q8.size);
    /* Whole files without hashes are asked for by their last byte. */
    test_row(t, "whole");
    serve_safetensors(&f, "/st");
    http_server_fault(f.server, "/st/model.safetensors", FAULT_CUT, 2, cut, NULL);
    f.how.tries = 1;
    CHECK(t, !pull_from(&f, "/st", NULL));
    t->err = (dp_error){ 0 };
    http_server_put(f.server, "/st/tokenizer.json", "{}", 2, NULL);
    http_server_forget(f.server);
    f.how.tries = 3;
    CHECK(t, pull_from(&f, "/st", NULL));
    CHECK_U64(t, http_server_sent(f.server, "/st/config.json"), 1);
    check_same(&f, inside(&f, "st", "tokenizer.json"), "{}", 2);
    end(&f);
}

/* ---- waiting and stopping ------------------------------------------------------------------ */

static void a_silent_server_is_given_up(test *t) {
    fixture f;
    begin(&f, t);
    pack_spec p = { .n_shards = 2, .seed = 1 };
    serve_pack(&f, "/p", &p);
    f.how.stall_seconds = 1;
    f.how.connect_seconds = 1;
    http_server_fault(f.server, cut_shard, FAULT_SLOW, 1, 12000, NULL);
    if (CHECK(t, pull_from(&f, "/p", "x"))) check_pack(&f, "x", &p);
    CHECK_U64(t, http_server_requests(f.server, cut_shard), 2);
    CHECK_U64(t, http_server_sent(f.server, cut_shard), SHARD_BYTES);
    f.how.tries = 1;
    http_server_fault(f.server, cut_shard, FAULT_SLOW, 1, 0, NULL);
    CHECK(t, !pull_from(&f, "/p", "y"));
    CHECK_ERROR(t, &t->err, DP_E_NETWORK, "shard_00001.bin: less than 1024 bytes in 1 seconds");
    http_server_stop(f.server);
    const char *gone = "http://127.0.0.1:9/p"; /* nobody serves "discard" any more */
    CHECK(t, !dp_store_pull(&f.store, gone, &f.how, NULL, &t->err));
    CHECK_ERROR(t, &t->err, DP_E_NETWORK, "http://127.0.0.1:9/p/SHA256SUMS: ");
}

typedef struct {
    uint64_t stop_at, done, total;
    uint32_t calls;
} stopper;

static bool stop_there(void *user, uint64_t done, uint64_t total) {
    stopper *s = user;
    s->calls++;
    s->done = done;
    s->total = total;
    return total == 0 || done < s->stop_at;
}

static void a_cancelled_pull_can_go_on(test *t) {
    fixture f;
    begin(&f, t);
    pack_spec p = { .n_shards = 2, .seed = 1 };
    stopper s = { .stop_at = 12000 };
    serve_pack(&f, "/p", &p);
    f.how.jobs = 1;
    f.how.progress = stop_there;
    f.how.progress_user = &s;
    http_server_fault(f.server, cut_shard, FAULT_SLOW, 1, 12000, NULL);
    CHECK(t, !pull_from(&f, "/p", "x"));
    CHECK_ERROR(t, &t->err, DP_E_CANCELLED, "cancelled");
    check_not_there(&f, "x");
    CHECK(t, s.calls > 0 && s.done >= 12000 && s.total >= 2 * SHARD_BYTES);
    CHECK(t, !path_exists(test_printf(t, "%s/.x.lock", f.folder)));
    f.how.progress = NULL;
    http_server_forget(f.server);
    if (CHECK(t, pull_from(&f, "/p", "x"))) check_pack(&f, "x", &p);
    CHECK_U64(t, http_server_requests(f.server, "/p/shard_00000.bin"), 0);
    CHECK_U64(t, http_server_sent(f.server, cut_shard), SHARD_BYTES - 12000);
    /* While it plans, too. */
    s = (stopper){ .stop_at = 0 };
    f.how.progress = stop_there;
    http_server_fault(f.server, "/p/manifest.json", FAULT_SLOW, 1, 10, NULL);
    s.stop_at = UINT64_MAX;
    f.how.stall_seconds = 1;
    if (CHECK(t, pull_from(&f, "/p", "y"))) CHECK(t, s.calls > 0);
    end(&f);
}

static void one_pull_of_a_name_at_a_time(test *t) {
    fixture f;
    begin(&f, t);
    pack_spec p = { .n_shards = 1, .seed = 1 };
    serve_pack(&f, "/p", &p);
    CHECK(t, folders_make(f.folder, &t->err));
    const int lock = store_lock(f.folder, "x", &t->err);
    CHECK(t, !pull_from(&f, "/p", "x"));
    CHECK_ERROR(t, &t->err, DP_E_FILE, "x: another process is pulling or removing it");
    CHECK(t, !dp_store_remove(&f.store, "x", &t->err));
    CHECK_ERROR(t, &t->err, DP_E_FILE, "x: another process is pulling or removing it");
    CHECK_U64(t, http_server_requests(f.server, NULL), 0);
    CHECK(t, pull_from(&f, "/p", "y"));
    store_unlock(f.folder, "x", lock);
    if (CHECK(t, pull_from(&f, "/p", "x"))) check_pack(&f, "x", &p);
    end(&f);
}

/* ---- taking the place of a model ----------------------------------------------------------- */

static void a_model_is_replaced_only_by_a_whole_one(test *t) {
    fixture f;
    begin(&f, t);
    pack_spec p = { .n_shards = 3, .seed = 1 }, q = { .n_shards = 2, .seed = 9 };
    serve_pack(&f, "/p", &p);
    serve_pack(&f, "/q", &q);
    CHECK(t, pull_from(&f, "/p", "x"));
    CHECK(t, !pull_from(&f, "/q", "x"));
    CHECK_ERROR(t, &t->err, DP_E_FILE, "x: ");
    check_pack(&f, "x", &p);
    f.how.replace = true;
    f.how.tries = 1;
    http_server_fault(f.server, "/q/shard_00001.bin", FAULT_CUT, 1, 1000, NULL);
    CHECK(t, !pull_from(&f, "/q", "x"));
    t->err = (dp_error){ 0 };
    check_same(&f, inside(&f, "x", "shard_00002.bin"), p.shards[2], SHARD_BYTES);
    if (CHECK(t, pull_from(&f, "/q", "x"))) check_pack(&f, "x", &q);
    CHECK(t, !path_exists(inside(&f, "x", "shard_00002.bin")));
    /* A file of the user's own is never in the way of one of ours. */
    const char *own = test_printf(t, "%s/own.gguf", f.folder);
    CHECK(t, file_write_atomic(own, "x", 1, &t->err));
    CHECK(t, !pull_from(&f, "/q", "own"));
    CHECK_ERROR(t, &t->err, DP_E_FILE, "a file: remove it first");
    /* Names that would not be found again, or lead elsewhere. */
    f.store.bundled = "models";
    CHECK(t, !pull_from(&f, "/q", "tale-8m"));
    CHECK_ERROR(t, &t->err, DP_E_ARGUMENT, "tale-8m: a bundled model has that name");
    static const char *const names[] = { "", "../x", "a/b", ".x", "-x", "a\nb" };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        CHECK(t, !pull_from(&f, "/q", names[i]));
        CHECK_ERROR(t, &t->err, DP_E_ARGUMENT, "is no name for a model of the folder");
    }
    end(&f);
}

/* ---- mirrors on this machine --------------------------------------------------------------- */

static const char *write_mirror(test *t, const pack_spec *p) {
    const char *folder = test_printf(t, "%s/mirror", test_folder(t));
    CHECK(t, mkdir(folder, 0777) == 0);
    test_write(t, "mirror/manifest.json", p->manifest.data, p->manifest.size);
    test_write(t, "mirror/tokenizer.json", tokenizer_text, sizeof(tokenizer_text) - 1);
    for (uint32_t i = 0; i < p->n_shards; i++) {
        test_write(t, test_printf(t, "mirror/shard_%05u.bin", i), p->shards[i], SHARD_BYTES);
    }
    return folder;
}

static bool pull_local(fixture *f, const char *path, const char *name) {
    f->how.name = name;
    f->log[0] = '\0';
    return dp_store_pull(&f->store, path, &f->how, &f->result, &f->t->err);
}

static void mirrors_on_the_disk_are_pulled_like_servers(test *t) {
    fixture f = { .t = t };
    f.folder = f.store.folder = test_printf(t, "%s/deep/er/models", test_folder(t));
    f.how = (dp_pull_options){ .log = keep_warning, .log_user = &f };
    pack_spec p = { .n_shards = 3, .seed = 1, .pieces = true };
    make_pack(t, &p);
    const char *mirror = write_mirror(t, &p);
    if (CHECK(t, pull_local(&f, mirror, NULL))) check_pack(&f, "mirror", &p);
    const char *url = test_printf(t, "file://localhost%s/manifest%%2Ejson", mirror);
    if (CHECK(t, pull_local(&f, url, "url"))) check_pack(&f, "url", &p);
    if (CHECK(t, pull_local(&f, test_vector(t, "gguf/q8_0"), NULL))) {
        CHECK_STR(t, str_of(f.result.name), "q8_0");
        CHECK_STR(t, str_of(f.result.container), "gguf");
    }
    if (CHECK(t, pull_local(&f, test_vector(t, "gguf/q8_0/model.gguf"), NULL))) {
        CHECK_STR(t, str_of(f.result.name), "model");
    }
    CHECK(t, pull_local(&f, test_vector(t, "gguf/llama3-gqa-split"), NULL));
    CHECK_U64(t, f.result.n_files, 3);
    CHECK(t, pull_local(&f, test_vector(t, safetensors_folder), NULL));
    CHECK_U64(t, f.result.n_files, ARRAY_LEN(folder_files));
    /* A wrong byte, and a shard that is not there. */
    unsigned char *wrong = test_alloc(t, SHARD_BYTES, 1);
    memcpy(wrong, p.shards[1], SHARD_BYTES);
    wrong[39999] ^= 1;
    f.how.jobs = 1; /* in order: the first shard is there when the second fails */
    test_write(t, "mirror/shard_00001.bin", wrong, SHARD_BYTES);
    CHECK(t, !pull_local(&f, mirror, "wrong"));
    CHECK_ERROR(t, &t->err, DP_E_NETWORK, "shard_00001.bin: bytes 36864 to 39999: SHA-256 is ");
    unlink(test_printf(t, "%s/shard_00001.bin", mirror));
    CHECK(t, !pull_local(&f, mirror, "wrong"));
    CHECK_ERROR(t, &t->err, DP_E_FILE, "shard_00001.bin: no such file");
    /* Mended, it goes on with what was right. */
    test_write(t, "mirror/shard_00001.bin", p.shards[1], SHARD_BYTES);
    if (CHECK(t, pull_local(&f, mirror, "wrong"))) check_pack(&f, "wrong", &p);
    CHECK(t, f.result.bytes_kept >= SHARD_BYTES + 36864);
    static const char *const bad[][2] = {
        { "", "the source is empty" },
        { "ftp://host/x", "a source is an http, https or file URL or a path" },
        { "file://host/x", "a file URL has no host" },
        { "http://", "a URL without a host" },
        { "http://host/a b", "the source is no URL: byte 13" },
        { "https://host/a#b", "the source is no URL" },
        { "README.md", "a source is a folder, a .gguf file or a manifest.json" },
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        test_row(t, "%s", bad[i][0]);
        CHECK(t, !pull_local(&f, bad[i][0], "bad"));
        CHECK_ERROR(t, &t->err, DP_E_ARGUMENT, bad[i][1]);
    }
    CHECK(t, !pull_local(&f, "/no/such/place", "bad"));
    CHECK_ERROR(t, &t->err, DP_E_FILE, "/no/such/place: no such file or folder, and no URL");
    CHECK(t, !pull_local(&f, "src", "bad"));
    CHECK_ERROR(t, &t->err, DP_E_FILE, "has neither manifest.json nor config.json nor a .gguf");
    CHECK(t, !pull_local(&f, "/", NULL));
    CHECK_ERROR(t, &t->err, DP_E_ARGUMENT, "suggests no name for the model");
}

/* Every allocation of a pull fails once; what an attempt leaves is used by the next. */
static void a_pull_without_memory_is_an_error(test *t) {
    fixture f = { .t = t };
    f.folder = f.store.folder = test_printf(t, "%s/models", test_folder(t));
    f.how = (dp_pull_options){ .jobs = 1 };
    pack_spec p = { .n_shards = 2, .seed = 1, .pieces = true };
    make_pack(t, &p);
    const char *mirror = write_mirror(t, &p);
    uint64_t n = 1;
    for (bool ok = false; !ok && n < 2000; n++) {
        dp_error err = { 0 };
        test_row(t, "allocation %llu", (unsigned long long)n);
        mem_fail_from(n);
        ok = dp_store_pull(&f.store, mirror, &f.how, NULL, &err);
        mem_fail_from(0);
        if (!ok && !CHECK_ERROR(t, &err, DP_E_MEMORY, "out of memory")) break;
    }
    test_row(t, "%s", "");
    CHECK(t, n > 30 && n < 2000);
    check_pack(&f, "mirror", &p);
}

static const test_case cases[] = {
    { "packs arrive whole", packs_arrive_whole },
    { "sources are understood", sources_are_understood },
    { "safetensors arrive whole", safetensors_arrive_whole },
    { "GGUF files arrive whole", gguf_files_arrive_whole },
    { "a manifest can be vouched for", a_manifest_can_be_vouched_for },
    { "a broken pull goes on where it stopped", a_broken_pull_goes_on_where_it_stopped },
    { "a broken connection is tried again", a_broken_connection_is_tried_again },
    { "a server without ranges starts over", a_server_without_ranges_starts_over },
    { "a damaged part is mended", a_damaged_part_is_mended },
    { "a wrong byte is fetched again", a_wrong_byte_is_fetched_again },
    { "servers that lie are refused", servers_that_lie_are_refused },
    { "manifests that lie are refused", manifests_that_lie_are_refused },
    { "a pack that changes is fetched anew", a_pack_that_changes_is_fetched_anew },
    { "a changed ETag starts over", a_changed_etag_starts_over },
    { "a silent server is given up", a_silent_server_is_given_up },
    { "a cancelled pull can go on", a_cancelled_pull_can_go_on },
    { "one pull of a name at a time", one_pull_of_a_name_at_a_time },
    { "a model is replaced only by a whole one", a_model_is_replaced_only_by_a_whole_one },
    { "mirrors on the disk are pulled like servers", mirrors_on_the_disk_are_pulled_like_servers },
    { "a pull without memory is an error", a_pull_without_memory_is_an_error },
};

const test_group pull_tests = { "pull", cases, ARRAY_LEN(cases) };
