/* plan: which files a model consists of, found out from what its source holds.
 *
 * A pack's manifest lists its files with sizes and hashes. A safetensors model is config.json, a
 * tokenizer, and the weights that an index lists or model.safetensors. A GGUF model is a file, or
 * as many as its name says. Small files that have to be read for this are fetched at once; the
 * others are left to the threads. Hashes are the manifest's; for files without one those of
 * SHA256SUMS at the source, and the one that the caller was given. */
#include "store/store.h"

#include <inttypes.h>
#include <stdio.h>

enum {
    PIECE_BYTES_MIN = 4096,
    PIECE_BYTES_MAX = 1 << 30,
    NO_FILE = -1,
};

typedef struct {
    pull_plan *plan;
    const fetch_job *job;
    http *h;
    patience wait;
    const char *sha256; /* not used yet, NULL afterwards */
    map *sums;          /* names in SHA256SUMS, to numbers in sum_digests; NULL: there is none */
    buf sum_digests;    /* HASH_BYTES each */
} planner;

static const char pack_manifest_name[] = "manifest.json";
static const char sums_name[] = "SHA256SUMS";

/* ---- the list ------------------------------------------------------------------------------ */

/* Number of the new file, NO_FILE on failure. */
static int64_t add_file(planner *p, str name, dp_error *err) {
    pull_plan *plan = p->plan;
    if (!name_is_plain(name)) {
        err_set(err, DP_E_FORMAT, "%s: \"%.*s\" is no plain name of a file", p->job->from->shown,
                STR_ARG(name));
        return NO_FILE;
    }
    if (plan->n_files == PULL_FILES_MAX) {
        err_set(err, DP_E_LIMIT, "%s: a model of more than %d files", p->job->from->shown,
                PULL_FILES_MAX);
        return NO_FILE;
    }
    if (plan->n_files == plan->max_files) {
        const uint32_t max = plan->max_files == 0 ? 16 : plan->max_files * 2;
        pull_file *files = mem_resize(plan->files, max, sizeof(*files), "files of a model", err);
        if (files == NULL) return NO_FILE;
        plan->files = files;
        plan->max_files = max;
    }
    bool added;
    char *copy = arena_copy(&plan->memory, name.data, name.size, err);
    if (copy == NULL || !map_put(plan->names, name, plan->n_files, &added, err)) return NO_FILE;
    if (!added) {
        err_set(err, DP_E_FORMAT, "%s: the file %s is listed twice", p->job->from->shown, copy);
        return NO_FILE;
    }
    plan->files[plan->n_files] = (pull_file){
        .name = copy, .size = SIZE_UNKNOWN, .ceiling = SIZE_UNKNOWN, .voucher = "the source"
    };
    return plan->n_files++;
}

/* Gives a file that has no hash the one that SHA256SUMS has. */
static void vouch(const planner *p, pull_file *f) {
    uint32_t at;
    if (f->has_hash || p->sums == NULL || !map_get(p->sums, str_of(f->name), &at)) return;
    memcpy(f->digest, p->sum_digests.data + (size_t)at * HASH_BYTES, HASH_BYTES);
    f->has_hash = true;
    f->kind = HASH_SHA256;
    f->voucher = sums_name;
}

/* The hash that the caller was given counts more than any other. */
static bool vouch_given(planner *p, pull_file *f, dp_error *err) {
    if (p->sha256 == NULL) return true;
    if (!hash_from_hex(str_of(p->sha256), f->digest)) {
        return err_set(err, DP_E_ARGUMENT, "\"%.80s\" is no SHA-256: 64 hexadecimal digits",
                       p->sha256);
    }
    f->has_hash = true;
    f->kind = HASH_SHA256;
    f->voucher = "the SHA-256 that was given";
    p->sha256 = NULL;
    return true;
}

/* Adds a small file that the source may have. */
static int64_t add_text_file(planner *p, const char *name, bool optional, dp_error *err) {
    uint32_t at;
    if (map_get(p->plan->names, str_of(name), &at)) return at;
    const int64_t i = add_file(p, str_of(name), err);
    if (i == NO_FILE) return NO_FILE;
    p->plan->files[i].optional = optional;
    p->plan->files[i].ceiling =
        name_ends(name, ".json") || name_ends(name, ".model") ? JSON_BYTES_MAX : TEXT_FILE_MAX;
    vouch(p, &p->plan->files[i]);
    return i;
}

/* Adds it and fetches it now. */
static bool get_text_file(planner *p, const char *name, bool *is_there, dp_error *err) {
    const int64_t i = add_text_file(p, name, true, err);
    if (i == NO_FILE || !fetch_file(p->job, p->h, p->wait, &p->plan->files[i], err)) return false;
    *is_there = p->plan->files[i].is_there;
    return true;
}

static bool read_part_text(planner *p, const char *name, size_t ceiling, buf *text, dp_error *err) {
    char path[STORE_PATH_MAX];
    buf_init(text, ceiling);
    return path_join(path, sizeof(path), p->job->folder, name, err) &&
           file_read_all(path, ceiling, text, err);
}

static json *read_part_json(planner *p, const char *name, dp_error *err) {
    buf text;
    if (!read_part_text(p, name, JSON_BYTES_MAX, &text, err)) return NULL;
    json *doc = json_open((str){ text.data, text.size }, name, err);
    buf_free(&text);
    return doc;
}

/* Adds a file of weights whose size only the source knows. */
static bool add_weights(planner *p, str name, dp_error *err) {
    const int64_t i = add_file(p, name, err);
    if (i == NO_FILE) return false;
    pull_file *f = &p->plan->files[i];
    vouch(p, f);
    f->weights = true;
    if (!fetch_size(p->job, p->h, p->wait, f->name, &f->size, err)) return false;
    f->ceiling = f->size;
    return true;
}

/* ---- GGUF ---------------------------------------------------------------------------------- */

static bool plan_gguf(planner *p, const char *name, dp_error *err) {
    uint32_t index, n;
    size_t stem;
    if (!name_is_split(name, &index, &n, &stem)) {
        return add_weights(p, str_of(name), err) &&
               vouch_given(p, &p->plan->files[p->plan->n_files - 1], err);
    }
    if (index == 0 || index > n) {
        return err_set(err, DP_E_FORMAT, "%s: is number %" PRIu32 " of %" PRIu32, name, index, n);
    }
    for (uint32_t i = 1; i <= n; i++) {
        char part[FILE_NAME_MAX + 64];
        snprintf(part, sizeof(part), "%.*s-%05" PRIu32 "-of-%05" PRIu32 ".gguf", (int)stem, name, i,
                 n);
        if (!add_weights(p, str_of(part), err)) return false;
    }
    return n > 1 || vouch_given(p, &p->plan->files[p->plan->n_files - 1], err);
}

/* The GGUF model of a local folder: a server does not say what it has. */
static bool plan_gguf_folder(planner *p, bool *found, dp_error *err) {
    const char *folder = p->job->from->base, **names;
    const char *first = NULL;
    uint32_t n, n_models = 0;
    *found = false;
    if (p->job->from->remote) return true;
    if (!disk_names(folder, false, &p->plan->memory, &names, &n, err)) return false;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t index, n_parts;
        size_t stem;
        if (!name_ends(names[i], ".gguf")) continue;
        if (name_is_split(names[i], &index, &n_parts, &stem) && index != 1) continue;
        first = names[i];
        n_models++;
    }
    if (n_models > 1) {
        return err_set(err, DP_E_FILE, "%.300s: holds %" PRIu32 " GGUF models: name one", folder,
                       n_models);
    }
    *found = n_models == 1;
    return n_models == 0 || plan_gguf(p, first, err);
}

/* ---- safetensors --------------------------------------------------------------------------- */

static bool plan_index(planner *p, const char *name, dp_error *err) {
    json *doc = read_part_json(p, name, err);
    if (doc == NULL) return false;
    const json_value *weights = json_get(json_root(doc), "weight_map");
    bool ok = (json_is_object(weights) && json_count(weights) > 0) ||
              err_set(err, DP_E_FORMAT, "%s: weight_map is no object with entries", name);
    if (ok) {
        for (json_iter it = json_each(weights); ok && json_next(&it);) {
            str file_name;
            uint32_t known;
            if (!json_string(it.value, &file_name)) {
                ok = err_set(err, DP_E_FORMAT, "%s: weight_map: %.*s: the file's name is no text",
                             name, STR_ARG(it.key));
            } else if (!map_get(p->plan->names, file_name, &known)) {
                ok = add_weights(p, file_name, err);
            } else if (!p->plan->files[known].weights) {
                ok = err_set(err, DP_E_FORMAT, "%s: weight_map: %.*s is no file of weights", name,
                             STR_ARG(file_name));
            }
        }
    }
    json_close(doc);
    return ok;
}

static bool plan_safetensors(planner *p, dp_error *err) {
    static const char index[] = "model.safetensors.index.json";
    static const char *const others[] = { "tokenizer_config.json", "special_tokens_map.json",
                                          "added_tokens.json",     "generation_config.json",
                                          "chat_template.jinja",   "chat_template.json" };
    bool has_json, has_model = true, has_index;
    if (!get_text_file(p, "tokenizer.json", &has_json, err) ||
        (!has_json && !get_text_file(p, "tokenizer.model", &has_model, err))) {
        return false;
    }
    if (!has_json && !has_model) {
        return err_set(err, DP_E_UNSUPPORTED,
                       "%s: has a config.json but neither tokenizer.json nor tokenizer.model",
                       p->job->from->shown);
    }
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        if (add_text_file(p, others[i], true, err) == NO_FILE) return false;
    }
    if (!get_text_file(p, index, &has_index, err)) return false;
    return has_index ? plan_index(p, index, err) : add_weights(p, STR("model.safetensors"), err);
}

/* ---- RDRR ---------------------------------------------------------------------------------- */

/* Hashes of the pieces of one shard, from an array of hex texts. */
static bool add_pieces(planner *p, pull_file *f, const json_value *list, uint64_t piece_bytes,
                       dp_error *err) {
    const uint64_t n = f->size / piece_bytes + (f->size % piece_bytes != 0);
    if (!json_is_array(list) || json_count(list) != n) {
        return err_set(err, DP_E_FORMAT, "%s: pieceHashes: %zu of %s, its size needs %" PRIu64,
                       pack_manifest_name, json_count(list), f->name, n);
    }
    if (n == 0) return true;
    unsigned char *all =
        arena_new(&p->plan->memory, (size_t)n, HASH_BYTES, "hashes of pieces", err);
    if (all == NULL) return false;
    unsigned char *digest = all;
    for (json_iter it = json_each(list); json_next(&it); digest += HASH_BYTES) {
        str hex;
        if (!json_string(it.value, &hex) || !hash_from_hex(hex, digest)) {
            return err_set(err, DP_E_FORMAT, "%s: pieceHashes: %s: number %zu is no SHA-256",
                           pack_manifest_name, f->name, (size_t)(digest - all) / HASH_BYTES);
        }
    }
    f->pieces = all;
    f->n_pieces = (uint32_t)n;
    f->piece_bytes = piece_bytes;
    return true;
}

/* `first` is the number of the first shard, which follow one another. */
static bool plan_pieces(planner *p, const json_value *manifest, uint32_t first, uint32_t n_shards,
                        dp_error *err) {
    const json_value *all = json_get(manifest, "pieceHashes"), *shards = json_get(all, "shards");
    uint64_t bytes;
    if (all == NULL || json_is_null(all)) return true;
    if (!json_u64(json_get(all, "blockSize"), &bytes) || bytes < PIECE_BYTES_MIN ||
        bytes > PIECE_BYTES_MAX) {
        return err_set(err, DP_E_FORMAT, "%s: pieceHashes: blockSize is no count from %d to %d",
                       pack_manifest_name, PIECE_BYTES_MIN, PIECE_BYTES_MAX);
    }
    if (!json_is_array(shards) || json_count(shards) != n_shards) {
        return err_set(err, DP_E_FORMAT, "%s: pieceHashes: of %zu shards, there are %" PRIu32,
                       pack_manifest_name, json_count(shards), n_shards);
    }
    for (json_iter it = json_each(shards); json_next(&it); first++) {
        if (!add_pieces(p, &p->plan->files[first], it.value, bytes, err)) return false;
    }
    return true;
}

static bool add_listed(planner *p, const pack_file *from, dp_error *err) {
    const int64_t i = add_file(p, from->name, err);
    if (i == NO_FILE) return false;
    pull_file *f = &p->plan->files[i];
    f->weights = from->is_shard;
    f->ceiling = JSON_BYTES_MAX;
    f->voucher = "the manifest";
    if (from->has_size) f->size = f->ceiling = from->size;
    if (from->has_hash) {
        f->has_hash = true;
        f->kind = from->kind;
        memcpy(f->digest, from->digest, HASH_BYTES);
    }
    if (f->weights && !from->has_size) {
        return err_set(err, DP_E_FORMAT, "%s: shard %s: its size is missing", pack_manifest_name,
                       f->name);
    }
    vouch(p, f);
    return true;
}

/* What packs that list no text files may have beside the manifest. */
static bool plan_unlisted(planner *p, const json_value *manifest, dp_error *err) {
    static const char *const names[] = { "tokenizer_config.json", "special_tokens_map.json",
                                         "generation_config.json", "chat_template.jinja" };
    if (json_get(manifest, "files") != NULL) return true;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (add_text_file(p, names[i], true, err) == NO_FILE) return false;
    }
    return true;
}

static bool plan_listing(planner *p, const pack_listing *list, const json_value *manifest,
                         dp_error *err) {
    const uint32_t first = p->plan->n_files;
    uint32_t n_shards = 0;
    for (uint32_t i = 0; i < pack_list_count(list); i++) {
        const pack_file *from = pack_list_at(list, i);
        if (from->is_shard) n_shards++;
        if (!add_listed(p, from, err)) return false;
    }
    return plan_pieces(p, manifest, first, n_shards, err) && plan_unlisted(p, manifest, err);
}

/* `f` is the manifest, which lies in the part. *is_pack is false if it is that of something else:
 * web pages have files of that name, too. */
static bool plan_pack(planner *p, const pull_file *f, bool *is_pack, dp_error *err) {
    buf text;
    json *doc = read_part_json(p, pack_manifest_name, err);
    if (doc == NULL) return false;
    const json_value *root = json_root(doc);
    pack_listing *list = NULL;
    *is_pack = json_get(root, "shards") != NULL || json_get(root, "tensors") != NULL;
    bool ok = true;
    if (*is_pack) {
        const int64_t i = add_file(p, str_of(pack_manifest_name), err);
        ok = i != NO_FILE && read_part_text(p, pack_manifest_name, JSON_BYTES_MAX, &text, err);
        if (ok) {
            const char *name = p->plan->files[i].name;
            p->plan->files[i] = *f;
            p->plan->files[i].name = name;
            list = pack_list((str){ text.data, text.size }, pack_manifest_name, err);
            buf_free(&text);
        }
        ok = list != NULL && plan_listing(p, list, root, err);
        pack_list_free(list);
    }
    json_close(doc);
    return ok;
}

/* ---- all of them --------------------------------------------------------------------------- */

static pull_file small_file(const char *name, uint64_t ceiling) {
    return (pull_file){ .name = name,
                        .size = SIZE_UNKNOWN,
                        .ceiling = ceiling,
                        .optional = true,
                        .voucher = "the source" };
}

static bool plan_folder(planner *p, dp_error *err) {
    const source *from = p->job->from;
    const char *given = p->sha256;
    pull_file manifest = small_file(pack_manifest_name, JSON_BYTES_MAX);
    bool is_pack = false, has_config = false, found = false;
    vouch(p, &manifest);
    if (!vouch_given(p, &manifest, err) || !fetch_file(p->job, p->h, p->wait, &manifest, err) ||
        (manifest.is_there && !plan_pack(p, &manifest, &is_pack, err))) {
        return false;
    }
    if (is_pack) return true;
    p->sha256 = given; /* it was not for that file */
    if (!get_text_file(p, "config.json", &has_config, err)) return false;
    if (has_config) return plan_safetensors(p, err);
    /* What was looked for and is not there is no file of the model. */
    p->plan->n_files = 0;
    if (!plan_gguf_folder(p, &found, err)) return false;
    if (found) return true;
    return err_set(err, from->remote ? DP_E_NETWORK : DP_E_FILE,
                   "%.300s: has neither manifest.json nor config.json%s", from->shown,
                   from->remote ? "; a GGUF model is fetched by the URL of its file"
                                : " nor a .gguf file");
}

/* "HEX  NAME" or "HEX *NAME", as sha256sum writes them. */
static bool read_sum_line(planner *p, str line, size_t number, dp_error *err) {
    unsigned char digest[HASH_BYTES];
    const size_t n_hex = HASH_HEX_BYTES - 1;
    uint32_t at;
    bool added;
    if (line.size > 0 && line.data[line.size - 1] == '\r') line.size--;
    if (line.size == 0 || line.data[0] == '#') return true;
    if (line.size < n_hex + 3 || line.data[n_hex] != ' ' ||
        (line.data[n_hex + 1] != ' ' && line.data[n_hex + 1] != '*') ||
        !hash_from_hex((str){ line.data, n_hex }, digest)) {
        return err_set(err, DP_E_FORMAT, "%s: line %zu is no SHA-256, two blanks and a name",
                       sums_name, number);
    }
    str name = { line.data + n_hex + 2, line.size - n_hex - 2 };
    if (str_starts(name, "./")) name.data += 2, name.size -= 2;
    const uint32_t next = (uint32_t)(p->sum_digests.size / HASH_BYTES);
    if (!map_put(p->sums, name, next, &added, err)) return false;
    if (added) {
        buf_add(&p->sum_digests, digest, HASH_BYTES);
        return buf_ok(&p->sum_digests, sums_name, err);
    }
    return (map_get(p->sums, name, &at) &&
            memcmp(p->sum_digests.data + (size_t)at * HASH_BYTES, digest, HASH_BYTES) == 0) ||
           err_set(err, DP_E_FORMAT, "%s: line %zu: another hash of %.*s", sums_name, number,
                   STR_ARG(name));
}

/* SHA256SUMS itself is no part of the model. */
static bool read_sums_file(planner *p, dp_error *err) {
    pull_file f = small_file(sums_name, SUMS_BYTES_MAX);
    buf text;
    if (!fetch_file(p->job, p->h, p->wait, &f, err)) return false;
    if (!f.is_there) return true;
    p->sums = map_new(64, err);
    if (p->sums == NULL || !read_part_text(p, sums_name, SUMS_BYTES_MAX, &text, err)) return false;
    bool ok = true;
    str rest = { text.data, text.size };
    for (size_t number = 1; ok && rest.size > 0; number++) {
        const char *end = memchr(rest.data, '\n', rest.size);
        const size_t n = end == NULL ? rest.size : (size_t)(end - rest.data);
        ok = read_sum_line(p, (str){ rest.data, n }, number, err);
        rest.data += n + (end != NULL), rest.size -= n + (end != NULL);
    }
    buf_free(&text);
    return ok;
}

bool plan_make(pull_plan *plan, const fetch_job *job, http *h, patience wait, const char *sha256,
               dp_error *err) {
    planner p = { .plan = plan, .job = job, .h = h, .wait = wait, .sha256 = sha256 };
    buf_init(&p.sum_digests, SUMS_BYTES_MAX);
    plan->names = map_new(16, err);
    bool ok = plan->names != NULL && read_sums_file(&p, err);
    if (ok) {
        ok =
            job->from->file[0] != '\0' ? plan_gguf(&p, job->from->file, err) : plan_folder(&p, err);
    }
    if (ok && p.sha256 != NULL) {
        ok = err_set(err, DP_E_ARGUMENT,
                     "a SHA-256 is given, and %s has several files: it would have to hold a %s",
                     job->from->shown, sums_name);
    }
    map_free(p.sums);
    buf_free(&p.sum_digests);
    return ok;
}

void plan_free(pull_plan *plan) {
    mem_free(plan->files);
    map_free(plan->names);
    arena_free(&plan->memory);
    *plan = (pull_plan){ 0 };
}
