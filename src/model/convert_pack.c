/* convert_pack: what a pack has besides its shards: the tokenizer's texts, and the manifest.
 *
 * The manifest is written last, over shards that are whole: SHA-256 of each, of every piece of
 * 4 MiB (so that downloads resume and a fault can be named), and a Merkle root of every tensor. It
 * says where it comes from without naming a place on this machine, and nothing that differs from
 * one conversion to the next. Format: RDRR, as the public project of that name writes it. */
#include "model/convert_internal.h"

#include <inttypes.h>
#include <stdio.h>

enum {
    PIECE_BYTES = 4 << 20,
    MERKLE_BLOCK = 1 << 20,
    PACK_TEXT_MAX = 256 << 20, /* bytes of a text file of the source */
};

/* ---- shards -------------------------------------------------------------------------------- */

uint32_t pack_n_shards(const conversion *v) {
    return (uint32_t)((v->bytes + v->shard_bytes - 1) / v->shard_bytes);
}

uint64_t pack_shard_size(const conversion *v, uint32_t shard) {
    return min_u64(v->shard_bytes, v->bytes - shard * v->shard_bytes);
}

static void shard_name(uint32_t shard, char name[24]) {
    snprintf(name, 24, "shard_%05u.bin", shard);
}

bool pack_shard_path(const conversion *v, uint32_t shard, char path[4096], dp_error *err) {
    char name[24];
    shard_name(shard, name);
    return path_join(path, 4096, v->temporary, name, err);
}

/* ---- hashes -------------------------------------------------------------------------------- */

typedef struct {
    conversion *v;
    unsigned char **bytes; /* [threads] PIECE_BYTES each */
    unsigned char (*shards)[HASH_BYTES];
    unsigned char (*pieces)[HASH_BYTES]; /* of all shards, one after the other */
    unsigned char (*roots)[HASH_BYTES];  /* [n_tensors] */
    uint64_t pieces_each;                /* of a whole shard */
} pack_hashes;

static void hash_of_bytes(const void *bytes, size_t n, unsigned char digest[HASH_BYTES]) {
    hash_state h;
    hash_begin(&h, HASH_SHA256);
    hash_add(&h, bytes, n);
    hash_end(&h, digest);
}

static bool hash_shard(void *user, uint64_t i, uint32_t thread, dp_error *err) {
    pack_hashes *p = user;
    char path[4096];
    hash_state whole;
    if (!pack_shard_path(p->v, (uint32_t)i, path, err)) {
        return false;
    }
    file *f = file_open(path, err);
    if (f == NULL) {
        return false;
    }
    const uint64_t size = file_size(f);
    bool ok = true;
    hash_begin(&whole, HASH_SHA256);
    for (uint64_t at = 0, piece = i * p->pieces_each; ok && at < size; at += PIECE_BYTES, piece++) {
        const size_t n = (size_t)min_u64(PIECE_BYTES, size - at);
        ok = file_read(f, at, p->bytes[thread], n, err) && conversion_progress(p->v, n, err);
        if (ok) {
            hash_add(&whole, p->bytes[thread], n);
            hash_of_bytes(p->bytes[thread], n, p->pieces[piece]);
        }
    }
    hash_end(&whole, p->shards[i]);
    file_close(f);
    return ok;
}

static bool read_space(const conversion *v, uint64_t offset, unsigned char *out, uint64_t n,
                       dp_error *err) {
    while (n > 0) {
        char path[4096];
        const uint64_t at = offset % v->shard_bytes, here = min_u64(n, v->shard_bytes - at);
        if (!pack_shard_path(v, (uint32_t)(offset / v->shard_bytes), path, err)) {
            return false;
        }
        file *f = file_open(path, err);
        const bool ok = f != NULL && file_read(f, at, out, (size_t)here, err);
        file_close(f);
        if (!ok) {
            return false;
        }
        out += here;
        offset += here;
        n -= here;
    }
    return true;
}

/* Pairs of nodes become their parents until one is left; an odd last one is paired with itself. */
static void merkle_root(unsigned char (*nodes)[HASH_BYTES], uint64_t n,
                        unsigned char root[HASH_BYTES]) {
    for (; n > 1; n = (n + 1) / 2) {
        for (uint64_t i = 0; i < n; i += 2) {
            unsigned char pair[2 * HASH_BYTES];
            memcpy(pair, nodes[i], HASH_BYTES);
            memcpy(pair + HASH_BYTES, nodes[i + 1 < n ? i + 1 : i], HASH_BYTES);
            hash_of_bytes(pair, sizeof pair, nodes[i / 2]);
        }
    }
    memcpy(root, nodes[0], HASH_BYTES);
}

static bool hash_tensor(void *user, uint64_t i, uint32_t thread, dp_error *err) {
    pack_hashes *p = user;
    const out_tensor *t = &p->v->tensors[i];
    const uint64_t n = (t->n_bytes + MERKLE_BLOCK - 1) / MERKLE_BLOCK;
    unsigned char(*leaves)[HASH_BYTES] = mem_new(n, sizeof *leaves, "hashes of a tensor", err);
    bool ok = leaves != NULL;
    for (uint64_t k = 0; ok && k < n; k++) {
        const uint64_t at = k * MERKLE_BLOCK, size = min_u64(MERKLE_BLOCK, t->n_bytes - at);
        ok = read_space(p->v, t->offset + at, p->bytes[thread], size, err);
        if (ok) {
            hash_of_bytes(p->bytes[thread], (size_t)size, leaves[k]);
        }
    }
    if (ok) {
        merkle_root(leaves, n, p->roots[i]);
    }
    mem_free(leaves);
    return ok;
}

static bool hash_pack(conversion *v, pack_hashes *p, uint32_t n_threads, dp_error *err) {
    const uint32_t n = pack_n_shards(v);
    p->v = v;
    p->pieces_each = (v->shard_bytes + PIECE_BYTES - 1) / PIECE_BYTES;
    p->shards = arena_new(&v->memory, n, HASH_BYTES, "hashes", err);
    p->pieces = arena_new(&v->memory, n * p->pieces_each, HASH_BYTES, "hashes", err);
    p->roots = arena_new(&v->memory, v->n_tensors, HASH_BYTES, "hashes", err);
    p->bytes = arena_new(&v->memory, n_threads, sizeof *p->bytes, "pieces of shards", err);
    if (p->shards == NULL || p->pieces == NULL || p->roots == NULL || p->bytes == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < n_threads; i++) {
        p->bytes[i] = arena_new(&v->memory, 1, PIECE_BYTES, "a piece of a shard", err);
        if (p->bytes[i] == NULL) {
            return false;
        }
    }
    return parallel_run(n_threads, n, hash_shard, p, err) &&
           parallel_run(n_threads, v->n_tensors, hash_tensor, p, err);
}

static void add_digest(buf *b, const unsigned char digest[HASH_BYTES], const char *prefix) {
    char hex[HASH_HEX_BYTES];
    hash_to_hex(digest, hex);
    buf_printf(b, "\"%s%s\"", prefix, hex);
}

/* ---- text files ---------------------------------------------------------------------------- */

/* Writes one and notes it in the manifest's list. */
static bool write_text(conversion *v, const char *name, str text, buf *list, dp_error *err) {
    char path[4096];
    unsigned char digest[HASH_BYTES];
    if (!path_join(path, sizeof path, v->temporary, name, err) ||
        !file_write_atomic(path, text.data, text.size, err)) {
        return false;
    }
    hash_of_bytes(text.data, text.size, digest);
    json_item(list);
    buf_printf(list, "{");
    json_text(list, "name", str_of(name));
    json_count_of(list, "size", text.size);
    json_key(list, "hash");
    add_digest(list, digest, "");
    buf_printf(list, "}");
    return true;
}

static bool copy_texts(conversion *v, buf *list, dp_error *err) {
    static const char *const names[] = {
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "vocab.json",
        "merges.txt",
        "special_tokens_map.json",
        "added_tokens.json",
        "chat_template.jinja",
        "chat_template.json",
        "generation_config.json",
    };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        buf text;
        dp_error problem = { 0 };
        buf_init(&text, PACK_TEXT_MAX);
        bool ok = container_text(v->files, names[i], &text, &problem);
        if (!ok && problem.status == DP_OK) {
            buf_free(&text);
            continue;
        }
        ok = ok ? write_text(v, names[i], (str){ text.data, text.size }, list, err)
                : err_set(err, problem.status, "%s", problem.message);
        buf_free(&text);
        if (!ok) {
            return false;
        }
    }
    return true;
}

/* The settings that a GGUF file or a description gives, as generation_config.json has them. */
static void add_generation_config(const conversion *v, buf *b) {
    size_t n = 0;
    const dp_token *stops = v->tokenizer != NULL ? tokenizer_stops(v->tokenizer, &n) : NULL;
    buf_printf(b, "{");
    if (n > 0) {
        json_key(b, "eos_token_id");
        buf_printf(b, "[");
        for (size_t i = 0; i < n; i++) {
            json_item(b);
            buf_printf(b, "%" PRIu32, stops[i]);
        }
        buf_printf(b, "]");
    }
    if (v->config.temperature > 0) {
        json_key(b, "temperature");
        json_add_f32(b, v->config.temperature);
    }
    if (v->config.top_p > 0) {
        json_key(b, "top_p");
        json_add_f32(b, v->config.top_p);
    }
    if (v->config.top_k > 0) {
        json_count_of(b, "top_k", v->config.top_k);
    }
    buf_printf(b, "}\n");
}

/* Of a GGUF file: the tokenizer.json that it was made of, if it has it, or one like it. */
static bool make_texts(conversion *v, buf *list, dp_error *err) {
    buf text;
    buf_init(&text, PACK_TEXT_MAX);
    bool ok = true;
    if (v->tokenizer != NULL) {
        bool found = false;
        ok = tokenizer_source_json(v->files, &text, &found, err) &&
             (found || tokenizer_write_json(v->tokenizer, &text, err)) &&
             buf_ok(&text, "tokenizer.json", err) &&
             write_text(v, "tokenizer.json", (str){ text.data, text.size }, list, err);
        buf_reset(&text);
        ok = ok && tokenizer_write_config(v->tokenizer, &text, err) &&
             buf_ok(&text, "tokenizer_config.json", err) &&
             write_text(v, "tokenizer_config.json", (str){ text.data, text.size }, list, err);
        buf_reset(&text);
    }
    if (ok) {
        add_generation_config(v, &text);
        ok = buf_ok(&text, "generation_config.json", err) &&
             write_text(v, "generation_config.json", (str){ text.data, text.size }, list, err);
    }
    buf_free(&text);
    return ok;
}

/* ---- the manifest -------------------------------------------------------------------------- */

/* What RDRR calls a format; NULL: it has no name and is described by its blocks. */
static const char *rdrr_type(dtype type) {
    switch (type) {
    case DTYPE_F32:
        return "F32";
    case DTYPE_F16:
        return "F16";
    case DTYPE_BF16:
        return "BF16";
    case DTYPE_Q4_K:
        return "Q4_K_M";
    case DTYPE_Q6_K:
        return "Q6_K";
    case DTYPE_Q4_0:
        return "Q4_0";
    default:
        return NULL;
    }
}

static const char *rdrr_role(const out_tensor *t) {
    switch (t->role) {
    case ROLE_EMBEDDING:
        return "embedding";
    case ROLE_HEAD:
        return "lm_head";
    case ROLE_ROUTER:
        return "router";
    case ROLE_VECTOR:
        return strstr(t->name.data, "norm") != NULL || strstr(t->name.data, "ln_") != NULL
                   ? "norm"
                   : "other";
    default:
        return t->experts ? "expert" : "matmul";
    }
}

static void add_group(buf *b, const out_tensor *t) {
    json_key(b, "group");
    if (t->layer == UINT32_MAX) {
        buf_printf(b, t->role == ROLE_EMBEDDING ? "\"embed\"" : "\"head\"");
    } else if (t->expert != UINT32_MAX) {
        buf_printf(b, "\"layer.%u.expert.%u\"", t->layer, t->expert);
    } else {
        buf_printf(b, t->role == ROLE_ROUTER ? "\"layer.%u.shared\"" : "\"layer.%u\"", t->layer);
    }
}

static void add_place(const conversion *v, buf *b, const out_tensor *t) {
    const uint64_t size = v->shard_bytes, first = t->offset / size;
    if (t->offset % size + t->n_bytes <= size) {
        json_count_of(b, "shard", first);
        json_count_of(b, "offset", t->offset % size);
        json_count_of(b, "size", t->n_bytes);
        return;
    }
    /* the first span's place as well: some readers want one of every entry */
    json_count_of(b, "shard", first);
    json_count_of(b, "offset", t->offset % size);
    json_count_of(b, "size", t->n_bytes);
    json_key(b, "spans");
    buf_printf(b, "[");
    for (uint64_t done = 0; done < t->n_bytes;) {
        const uint64_t at = t->offset + done, n = min_u64(size - at % size, t->n_bytes - done);
        json_item(b);
        buf_printf(b, "{\"shardIndex\":%" PRIu64 ",\"offset\":%" PRIu64 ",\"size\":%" PRIu64 "}",
                   at / size, at % size, n);
        done += n;
    }
    buf_printf(b, "]");
}

static void add_tensor(const conversion *v, buf *b, const out_tensor *t) {
    static const char *const layouts[] = {
        [LAYOUT_ROWS] = "row", [LAYOUT_FLAT] = "flat", [LAYOUT_COLUMNS] = "column"
    };
    const dtype_info *info = dtype_get(t->type);
    const char *type = rdrr_type(t->type);
    json_add_string(b, t->name);
    buf_printf(b, ":{");
    add_place(v, b, t);
    json_key(b, "shape");
    buf_printf(b, "[");
    for (uint32_t d = 0; d < t->n_dims; d++) {
        json_item(b);
        buf_printf(b, "%" PRIu64, t->shape[d]);
    }
    buf_printf(b, "]");
    json_text(b, "dtype", str_of(type != NULL ? type : info->name));
    json_text(b, "role", str_of(rdrr_role(t)));
    add_group(b, t);
    if (t->layout != LAYOUT_ROWS || (t->n_dims > 1 && dtype_is_quantised(t->type))) {
        json_text(b, "layout", str_of(layouts[t->layout]));
    }
    if (type == NULL) {
        json_key(b, "storage");
        buf_printf(b, "{\"packing\":\"gguf-block-v2\",\"blockShape\":[%u],\"blockBytes\":%u}",
                   info->block_elements, info->block_bytes);
    }
    buf_printf(b, "}");
}

/* Other readers of RDRR take formats and layouts that they do not know for plain numbers: why this
 * pack is not for them; NULL if it is. */
static const char *unread_by_others(const conversion *v) {
    for (uint32_t i = 0; i < v->n_tensors; i++) {
        const out_tensor *t = &v->tensors[i];
        if (t->layout != LAYOUT_ROWS) {
            return "this pack has matrices in other layouts than rows";
        }
        if (rdrr_type(t->type) == NULL || t->type == DTYPE_Q4_0) {
            return "this pack has tensors in block formats that RDRR has no name for";
        }
    }
    return NULL;
}

/* The name of the format that most bytes with one of these roles have. */
static const char *main_type(const conversion *v, uint32_t roles, bool experts) {
    uint64_t bytes[DTYPE_COUNT] = { 0 };
    uint32_t best = DTYPE_COUNT;
    for (uint32_t i = 0; i < v->n_tensors; i++) {
        const out_tensor *t = &v->tensors[i];
        if ((roles >> t->role & 1) != 0 && (!experts || t->experts)) {
            bytes[t->type] += t->n_bytes;
            best = best == DTYPE_COUNT || bytes[t->type] > bytes[best] ? t->type : best;
        }
    }
    return best == DTYPE_COUNT ? NULL : dtype_get(best)->name;
}

static void add_lower(buf *b, const char *key, const char *name) {
    char lower[16];
    size_t n = 0;
    for (; name[n] != '\0' && n + 1 < sizeof lower; n++) {
        lower[n] = name[n] >= 'A' && name[n] <= 'Z' ? (char)(name[n] + 32) : name[n];
    }
    lower[n] = '\0';
    json_text(b, key, str_of(strcmp(lower, "q4_k") == 0 ? "q4k" : lower));
}

static void add_quantization(const conversion *v, buf *b) {
    const uint32_t matrices =
        ~(1u << ROLE_VECTOR | 1u << ROLE_ROUTER | 1u << ROLE_EMBEDDING | 1u << ROLE_HEAD);
    const char *main = main_type(v, matrices, false);
    const char *head = main_type(v, 1u << ROLE_HEAD, false);
    const char *experts = main_type(v, matrices, true);
    char name[16];
    size_t n = 0;
    const char *from = v->mixture != NULL ? v->mixture->name : main;
    for (; from[n] != '\0' && n + 1 < sizeof name; n++) {
        name[n] = from[n] >= 'a' && from[n] <= 'z' ? (char)(from[n] - 32) : from[n];
    }
    name[n] = '\0';
    json_text(b, "quantization", str_of(strcmp(name, "Q4_K") == 0 ? "Q4_K_M" : name));
    json_key(b, "quantizationInfo");
    buf_printf(b, "{");
    add_lower(b, "weights", main);
    add_lower(b, "embeddings", main_type(v, 1u << ROLE_EMBEDDING, false));
    if (head != NULL) {
        add_lower(b, "lmHead", head);
    }
    if (experts != NULL) {
        add_lower(b, "experts", experts);
    }
    json_text(b, "compute", STR("f32"));
    json_text(b, "layout", str_of(v->q4k_layout == LAYOUT_COLUMNS ? "col" : "row"));
    buf_printf(b, "}");
    if (v->options->transpose) {
        json_flag(b, "weightsTransposed", true);
    }
}

/* The name without what some readers refuse: small letters, digits, '-' and '_', at most 64. */
static void add_model_id(const conversion *v, buf *b) {
    char id[65];
    size_t n = 0;
    const str name = path_last(v->out);
    for (size_t i = 0; i < name.size && n < 64; i++) {
        const char c = name.data[i];
        const bool upper = c >= 'A' && c <= 'Z';
        const bool kept = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
        id[n++] = upper ? (char)(c + 32) : kept ? c : '-';
    }
    id[n] = '\0';
    json_text(b, "modelId", str_of(n > 0 ? id : "model"));
}

static void add_stops(const conversion *v, buf *b) {
    size_t n = 0;
    const dp_token *stops = v->tokenizer != NULL ? tokenizer_stops(v->tokenizer, &n) : NULL;
    const json_value *own = NULL;
    static const char *const files[] = { "generation_config.json", "config.json" };
    for (size_t i = 0; i < ARRAY_LEN(files) && n == 0 && own == NULL; i++) {
        own = json_get(container_json(v->files, files[i], NULL), "eos_token_id");
        own = json_is_number(own) || (json_is_array(own) && json_count(own) > 0) ? own : NULL;
    }
    json_key(b, "eos_token_id");
    if (own != NULL) {
        json_add_value(b, own);
        return;
    }
    buf_printf(b, "[");
    for (size_t i = 0; i < n; i++) {
        json_item(b);
        buf_printf(b, "%" PRIu32, stops[i]);
    }
    buf_printf(b, n == 0 ? "0]" : "]"); /* readers want one, known or not */
}

static void add_special_token(buf *b, const char *key, dp_token token) {
    if (token != DP_NO_TOKEN) {
        json_count_of(b, key, token);
    }
}

static void add_tokenizer(const conversion *v, buf *b, bool has_json) {
    const tokenizer *t = v->tokenizer;
    json_key(b, "tokenizer");
    if (t == NULL) {
        buf_printf(b, "null");
        return;
    }
    buf_printf(b, "{");
    if (has_json) {
        json_text(b, "type", STR("bundled"));
        json_text(b, "file", STR("tokenizer.json"));
    } else {
        json_text(b, "type", STR("sentencepiece"));
        json_text(b, "sentencepieceModel", STR("tokenizer.model"));
    }
    json_count_of(b, "vocabSize", v->config.vocab_size);
    json_flag(b, "addBosToken", tokenizer_adds_bos(t));
    json_flag(b, "addEosToken", tokenizer_adds_eos(t));
    add_special_token(b, "bosTokenId", tokenizer_bos(t));
    add_special_token(b, "eosTokenId", tokenizer_eos(t));
    buf_printf(b, "}");
}

static bool add_config(conversion *v, buf *b, dp_error *err) {
    dp_error problem = { 0 };
    const json_value *own = container_kind_of(v->files) == CONTAINER_GGUF
                                ? NULL
                                : container_json(v->files, "config.json", &problem);
    if (problem.status != DP_OK) {
        return err_set(err, problem.status, "%s", problem.message);
    }
    json_key(b, "config");
    if (own != NULL) {
        json_add_value(b, own);
        return true;
    }
    return config_write_hf(&v->config, v->files, b, err);
}

/* Where it comes from: names and sizes, no places, no times. */
static void add_provenance(const conversion *v, buf *b) {
    json_key(b, "conversion");
    buf_printf(b, "{");
    json_text(b, "tool", STR("doppler"));
    json_text(b, "toolVersion", STR(DP_VERSION));
    json_text(b, "sourceFormat", str_of(container_kind_name(container_kind_of(v->files))));
    json_text(b, "sourceName", path_last(v->in));
    json_text(b, "quantize", str_of(v->mixture != NULL ? v->mixture->name : "keep"));
    json_flag(b, "importance", v->importance != NULL);
    buf_printf(b, "}");
}

static void add_shards(const conversion *v, buf *b, const pack_hashes *p) {
    json_key(b, "shards");
    buf_printf(b, "[");
    for (uint32_t i = 0; i < pack_n_shards(v); i++) {
        char name[24];
        shard_name(i, name);
        json_item(b);
        buf_printf(b, "{\"index\":%u,\"filename\":\"%s\",\"size\":%" PRIu64 ",\"hash\":", i, name,
                   pack_shard_size(v, i));
        add_digest(b, p->shards[i], "");
        buf_printf(b, ",\"offset\":%" PRIu64 "}", i * v->shard_bytes);
    }
    buf_printf(b, "]");
    json_count_of(b, "totalSize", v->bytes);
    json_key(b, "pieceHashes");
    buf_printf(b, "{\"blockSize\":%d,\"shards\":[", PIECE_BYTES);
    for (uint32_t i = 0; i < pack_n_shards(v); i++) {
        const uint64_t n = (pack_shard_size(v, i) + PIECE_BYTES - 1) / PIECE_BYTES;
        json_item(b);
        buf_printf(b, "[");
        for (uint64_t k = 0; k < n; k++) {
            json_item(b);
            add_digest(b, p->pieces[i * p->pieces_each + k], "");
        }
        buf_printf(b, "]");
    }
    buf_printf(b, "]}");
    json_key(b, "integrityExtensions");
    buf_printf(b, "{\"contractVersion\":1,\"blockMerkle\":{\"blockSize\":%d,\"roots\":{",
               MERKLE_BLOCK);
    for (uint32_t i = 0; i < v->n_tensors; i++) {
        json_item(b);
        json_add_string(b, v->tensors[i].name);
        buf_printf(b, ":");
        add_digest(b, p->roots[i], "sha256:");
    }
    buf_printf(b, "}}}");
}

static bool add_manifest(conversion *v, buf *b, const pack_hashes *p, const buf *list,
                         dp_error *err) {
    buf_printf(b, "{");
    json_count_of(b, "version", 1);
    add_model_id(v, b);
    add_quantization(v, b);
    json_text(b, "hashAlgorithm", STR("sha256"));
    add_stops(v, b);
    if (!config_write_inference(&v->config, v->files, unread_by_others(v), b, err) ||
        !add_config(v, b, err)) {
        return false;
    }
    add_tokenizer(v, b, list->data != NULL && strstr(list->data, "\"tokenizer.json\"") != NULL);
    if (v->options->draft_model != NULL) {
        json_text(b, "draftModel", str_of(v->options->draft_model));
    } else if (container_draft_model(v->files).size > 0) {
        json_text(b, "draftModel", container_draft_model(v->files));
    }
    add_shards(v, b, p);
    json_key(b, "tensors");
    buf_printf(b, "{");
    for (uint32_t i = 0; i < v->n_tensors; i++) {
        json_item(b);
        add_tensor(v, b, &v->tensors[i]);
    }
    buf_printf(b, "}");
    json_key(b, "files");
    buf_printf(b, "[");
    buf_add(b, list->data, list->size);
    buf_printf(b, "]");
    add_provenance(v, b);
    buf_printf(b, "}\n");
    return buf_ok(b, "manifest.json", err);
}

bool pack_write_manifest(conversion *v, uint32_t n_threads, dp_error *err) {
    buf list, manifest;
    pack_hashes hashes = { 0 };
    char path[4096];
    buf_init(&list, PACK_TEXT_MAX);
    buf_init(&manifest, JSON_BYTES_MAX);
    bool ok = hash_pack(v, &hashes, n_threads, err) &&
              (container_kind_of(v->files) == CONTAINER_GGUF ? make_texts(v, &list, err)
                                                             : copy_texts(v, &list, err)) &&
              buf_ok(&list, "the list of files", err) &&
              add_manifest(v, &manifest, &hashes, &list, err) &&
              path_join(path, sizeof path, v->temporary, "manifest.json", err) &&
              file_write_atomic(path, manifest.data, manifest.size, err);
    buf_free(&list);
    buf_free(&manifest);
    return ok;
}
