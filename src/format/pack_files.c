/* pack_files: the files of an RDRR pack: which there are by its manifest, where they lie, and
 * reading them.
 *
 * A manifest names files, and may come from anybody: names are plain, and what they lead to, links
 * followed, must lie in the pack's own folder. The one exception is a snapshot of the Hugging Face
 * cache, models--NAME/snapshots/COMMIT, whose files are links into models--NAME/blobs. Packs may
 * have tens of thousands of shards, so their files are opened at need and a few are kept open. */
#include "format/format_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- listing ------------------------------------------------------------------------------- */

bool is_plain_name(str name) {
    if (name.size == 0 || name.size > 255 || name.data[0] == '.') return false;
    for (size_t i = 0; i < name.size; i++) {
        const unsigned char c = (unsigned char)name.data[i];
        if (c < 0x20 || c == 0x7f || c == '/' || c == '\\') return false;
    }
    return !str_is(name, "manifest.json");
}

static bool copy_name(pack_listing *l, const char *path, const char *where, str from, str *to,
                      dp_error *err) {
    if (!is_plain_name(from)) {
        return err_set(err, DP_E_FORMAT, "%s: %s: \"%.*s\" is no plain name of a file", path, where,
                       STR_ARG(from));
    }
    to->data = arena_copy(&l->memory, from.data, from.size, err);
    to->size = from.size;
    return to->data != NULL;
}

/* "sha256" or "blake3", of any case; absent: as `otherwise` says. */
static bool read_algorithm(const char *path, const char *where, const json_value *v,
                           hash_kind otherwise, hash_kind *kind, dp_error *err) {
    str name;
    *kind = otherwise;
    if (v == NULL || json_is_null(v)) return true;
    if (!json_string(v, &name)) {
        return err_set(err, DP_E_FORMAT, "%s: %s: hashAlgorithm is no text", path, where);
    }
    if (str_is(name, "sha256") || str_is(name, "SHA256") || str_is(name, "SHA-256")) {
        *kind = HASH_SHA256;
    } else if (str_is(name, "blake3") || str_is(name, "BLAKE3")) {
        *kind = HASH_BLAKE3;
    } else {
        return err_set(err, DP_E_UNSUPPORTED,
                       "%s: %s: hashAlgorithm \"%.*s\" is neither sha256 nor blake3", path, where,
                       STR_ARG(name));
    }
    return true;
}

static bool read_digest(const char *path, const char *where, const char *key, const json_value *v,
                        unsigned char digest[HASH_BYTES], dp_error *err) {
    str hex = { NULL, 0 };
    json_string(v, &hex);
    if (str_starts(hex, "sha256:")) hex = (str){ hex.data + 7, hex.size - 7 };
    if (hash_from_hex(hex, digest)) return true;
    return err_set(err, DP_E_FORMAT, "%s: %s: %s is not 64 hexadecimal digits", path, where, key);
}

static bool read_shard(pack_listing *l, const char *path, const json_value *v, hash_kind otherwise,
                       uint64_t *at, map *names, dp_error *err) {
    pack_file *f = &l->files[l->n_shards];
    const uint32_t i = l->n_shards++;
    char where[32];
    snprintf(where, sizeof(where), "shards[%u]", i);
    uint64_t number;
    str name = { NULL, 0 };
    const json_value *index = json_get(v, "index"), *offset = json_get(v, "offset");
    if (index != NULL && (!json_u64(index, &number) || number != i)) {
        return err_set(err, DP_E_FORMAT, "%s: %s: its index must be %u, its place", path, where, i);
    }
    if (!json_string(json_get(v, "filename"), &name)) json_string(json_get(v, "fileName"), &name);
    if (name.size == 0) {
        return err_set(err, DP_E_FORMAT, "%s: %s: has no filename", path, where);
    }
    if (!copy_name(l, path, where, name, &f->name, err)) return false;
    f->is_shard = f->has_size = f->has_hash = true;
    if (!json_u64(json_get(v, "size"), &f->size) || f->size == 0) {
        return err_set(err, DP_E_FORMAT, "%s: %s: size must be a count of at least 1 byte", path,
                       where);
    }
    if (offset != NULL && (!json_u64(offset, &number) || number != *at)) {
        return err_set(err, DP_E_FORMAT,
                       "%s: %s: offset must be %" PRIu64 ", the sum of the sizes before it", path,
                       where, *at);
    }
    if (!add_u64(*at, f->size, at)) {
        return err_set(err, DP_E_FORMAT, "%s: %s: the sizes sum to more than 64 bits count", path,
                       where);
    }
    if (!read_algorithm(path, where, json_get(v, "hashAlgorithm"), otherwise, &f->kind, err)) {
        return false;
    }
    /* The key `blake3` is a copy that some tool left, except under that algorithm. */
    const char *first = f->kind == HASH_BLAKE3 ? "blake3" : "hash";
    const char *second = f->kind == HASH_BLAKE3 ? "hash" : "blake3";
    const char *key = json_is_string(json_get(v, first)) ? first : second;
    if (!read_digest(path, where, key, json_get(v, key), f->digest, err)) return false;
    bool added;
    if (!map_put(names, f->name, i, &added, err)) return false;
    return added || err_set(err, DP_E_FORMAT, "%s: %s: \"%.*s\" is the file of two shards", path,
                            where, STR_ARG(f->name));
}

static bool read_shards(pack_listing *l, const char *path, const json_value *manifest, map *names,
                        dp_error *err) {
    const json_value *shards = json_get(manifest, "shards"), *total;
    hash_kind otherwise;
    if (!read_algorithm(path, "manifest", json_get(manifest, "hashAlgorithm"), HASH_SHA256,
                        &otherwise, err)) {
        return false;
    }
    if (!json_is_array(shards) || json_count(shards) == 0) {
        return err_set(err, DP_E_FORMAT, "%s: shards is no array with entries", path);
    }
    if (json_count(shards) > SHARDS_MAX) {
        return err_set(err, DP_E_LIMIT, "%s: %zu shards, the limit is %d", path, json_count(shards),
                       SHARDS_MAX);
    }
    l->files = arena_new(&l->memory, json_count(shards) + PACK_TEXT_FILES_MAX, sizeof(pack_file),
                         "the files of a pack", err);
    if (l->files == NULL) return false;
    uint64_t sum = 0, said;
    for (json_iter it = json_each(shards); json_next(&it);) {
        if (!read_shard(l, path, it.value, otherwise, &sum, names, err)) return false;
    }
    total = json_get(manifest, "totalSize");
    if (total != NULL && (!json_u64(total, &said) || said != sum)) {
        return err_set(err, DP_E_FORMAT,
                       "%s: totalSize must be %" PRIu64 ", the sum of the shards' sizes", path,
                       sum);
    }
    l->n_files = l->n_shards;
    return true;
}

const pack_file *listing_find(const pack_listing *l, str name) {
    for (uint32_t i = l->n_shards; i < l->n_files; i++) {
        if (str_equal(l->files[i].name, name)) return &l->files[i];
    }
    return NULL;
}

/* The text file of this name, new if it was not there. */
static pack_file *take_text_file(pack_listing *l, const char *path, const char *where, str name,
                                 const map *shards, dp_error *err) {
    uint32_t i;
    if (map_get(shards, name, &i)) {
        err_set(err, DP_E_FORMAT, "%s: %s: \"%.*s\" is also a shard", path, where, STR_ARG(name));
        return NULL;
    }
    for (i = l->n_shards; i < l->n_files; i++) {
        if (str_equal(l->files[i].name, name)) return &l->files[i];
    }
    if (l->n_files - l->n_shards == PACK_TEXT_FILES_MAX) {
        err_set(err, DP_E_LIMIT, "%s: more than %d files beside the shards", path,
                PACK_TEXT_FILES_MAX);
        return NULL;
    }
    pack_file *f = &l->files[l->n_files];
    if (!copy_name(l, path, where, name, &f->name, err)) return NULL;
    l->n_files++;
    return f;
}

/* A file that a field alone names; *to is its name. */
static bool read_named_file(pack_listing *l, const char *path, const char *where,
                            const json_value *v, const map *shards, str *to, dp_error *err) {
    str name;
    if (v == NULL || json_is_null(v)) return true;
    if (!json_string(v, &name)) {
        return err_set(err, DP_E_FORMAT, "%s: %s: the file's name is no text", path, where);
    }
    const pack_file *f = take_text_file(l, path, where, name, shards, err);
    if (f != NULL) *to = f->name;
    return f != NULL;
}

/* files: [{name, size, hash}], as we write it. */
static bool read_files(pack_listing *l, const char *path, const json_value *files,
                       const map *shards, dp_error *err) {
    if (files == NULL || json_is_null(files)) return true;
    if (!json_is_array(files)) return err_set(err, DP_E_FORMAT, "%s: files is no array", path);
    uint32_t i = 0;
    for (json_iter it = json_each(files); json_next(&it); i++) {
        char where[32];
        snprintf(where, sizeof(where), "files[%u]", i);
        str name = { NULL, 0 };
        json_string(json_get(it.value, "name"), &name);
        pack_file *f = take_text_file(l, path, where, name, shards, err);
        if (f == NULL) return false;
        if (f->has_size) {
            return err_set(err, DP_E_FORMAT, "%s: %s: \"%.*s\" is there twice", path, where,
                           STR_ARG(name));
        }
        if (!json_u64(json_get(it.value, "size"), &f->size)) {
            return err_set(err, DP_E_FORMAT, "%s: %s: size is no count of bytes", path, where);
        }
        if (!read_digest(path, where, "hash", json_get(it.value, "hash"), f->digest, err)) {
            return false;
        }
        f->has_size = f->has_hash = true;
        f->kind = HASH_SHA256;
    }
    return true;
}

/* pieceHashes: {blockSize, shards: [[hex, ...], ...]}. */
static bool read_piece_hashes(pack_listing *l, const char *path, const json_value *v,
                              dp_error *err) {
    if (v == NULL || json_is_null(v)) return true;
    const json_value *shards = json_get(v, "shards");
    uint64_t n_bytes, n = 0;
    if (!json_u64(json_get(v, "blockSize"), &n_bytes) || n_bytes < HASHED_BLOCK_MIN) {
        return err_set(err, DP_E_FORMAT, "%s: pieceHashes.blockSize must be at least %d bytes",
                       path, HASHED_BLOCK_MIN);
    }
    if (!json_is_array(shards) || json_count(shards) != l->n_shards) {
        return err_set(err, DP_E_FORMAT, "%s: pieceHashes.shards has %zu lists for %u shards", path,
                       json_count(shards), l->n_shards);
    }
    l->first_piece = arena_new(&l->memory, l->n_shards + 1u, sizeof(uint64_t), "pieces", err);
    if (l->first_piece == NULL) return false;
    uint32_t i = 0;
    for (json_iter it = json_each(shards); json_next(&it); i++) {
        const uint64_t size = l->files[i].size, pieces = size / n_bytes + (size % n_bytes != 0);
        if (!json_is_array(it.value) || json_count(it.value) != pieces) {
            return err_set(err, DP_E_FORMAT,
                           "%s: pieceHashes.shards[%u] has %zu entries, %" PRIu64
                           " bytes have %" PRIu64 " pieces",
                           path, i, json_count(it.value), size, pieces);
        }
        l->first_piece[i] = n;
        n += pieces; /* each is a value of the document: no overflow */
    }
    l->first_piece[i] = n;
    l->pieces = arena_new(&l->memory, (size_t)n, HASH_BYTES, "hashes of pieces", err);
    if (l->pieces == NULL) return false;
    unsigned char *to = l->pieces;
    for (json_iter it = json_each(shards); json_next(&it);) {
        for (json_iter piece = json_each(it.value); json_next(&piece); to += HASH_BYTES) {
            if (!read_digest(path, "pieceHashes", "an entry", piece.value, to, err)) return false;
        }
    }
    l->piece_bytes = n_bytes;
    return true;
}

/* A number, or one as text, as some writers have it. */
static bool check_version(const char *path, const json_value *v, dp_error *err) {
    double x = 1;
    str text;
    const bool known =
        v == NULL || json_f64(v, &x) || (json_string(v, &text) && str_to_f64(text, &x));
    if (!known || !(x >= 1)) {
        return err_set(err, DP_E_FORMAT, "%s: version is no number from 1", path);
    }
    if (x >= 3) { /* 2 has the fields of 1 */
        return err_set(err, DP_E_UNSUPPORTED, "%s: version %g, this program reads 1 and 2", path,
                       x);
    }
    return true;
}

bool listing_read(pack_listing *l, const json_value *manifest, const char *path, dp_error *err) {
    str schema = { NULL, 0 };
    if (!json_is_object(manifest)) return err_set(err, DP_E_FORMAT, "%s: is no object", path);
    json_string(json_get(manifest, "schema"), &schema);
    if (str_starts(schema, "doppler.pack/")) {
        return err_set(err, DP_E_UNSUPPORTED,
                       "%s: is a \"%.*s\", which only wraps a pack: open the manifest inside it",
                       path, STR_ARG(schema));
    }
    if (!check_version(path, json_get(manifest, "version"), err)) return false;
    map *names = map_new(64, err);
    if (names == NULL) return false;
    const json_value *tokenizer = json_get(manifest, "tokenizer");
    const bool ok = read_shards(l, path, manifest, names, err) &&
                    read_files(l, path, json_get(manifest, "files"), names, err) &&
                    read_named_file(l, path, "tensorsFile", json_get(manifest, "tensorsFile"),
                                    names, &l->tensors_file, err) &&
                    read_named_file(l, path, "tokenizer.file", json_get(tokenizer, "file"), names,
                                    &l->tokenizer_json, err) &&
                    read_named_file(l, path, "tokenizer.sentencepieceModel",
                                    json_get(tokenizer, "sentencepieceModel"), names,
                                    &l->tokenizer_model, err) &&
                    read_piece_hashes(l, path, json_get(manifest, "pieceHashes"), err);
    map_free(names);
    return ok;
}

void listing_free(pack_listing *l) {
    arena_free(&l->memory);
}

pack_listing *pack_list(str manifest, const char *name, dp_error *err) {
    if (manifest.size > MANIFEST_BYTES_MAX) {
        err_set(err, DP_E_LIMIT, "%s: %zu bytes, the limit is %d", name, manifest.size,
                MANIFEST_BYTES_MAX);
        return NULL;
    }
    json *doc = json_open(manifest, name, err);
    pack_listing *l = doc == NULL ? NULL : mem_new(1, sizeof(*l), "the files of a pack", err);
    const bool ok = l != NULL && listing_read(l, json_root(doc), name, err);
    json_close(doc);
    if (ok) return l;
    pack_list_free(l);
    return NULL;
}

void pack_list_free(pack_listing *l) {
    if (l == NULL) return;
    listing_free(l);
    mem_free(l);
}

uint32_t pack_list_count(const pack_listing *l) {
    return l->n_files;
}

const pack_file *pack_list_at(const pack_listing *l, uint32_t i) {
    return i < l->n_files ? &l->files[i] : NULL;
}

/* ---- places -------------------------------------------------------------------------------- */

static bool lies_in(const char *real, const char *folder) {
    const size_t n = strlen(folder);
    return strncmp(real, folder, n) == 0 && (real[n] == '/' || (n > 0 && folder[n - 1] == '/'));
}

bool pack_find_file(const container *c, const char *name, char path[PATH_BYTES_MAX],
                    dp_error *err) {
    char real[PATH_BYTES_MAX];
    const pack *p = c->pack;
    if (!path_join(path, PATH_BYTES_MAX, c->folder, name, err)) return false;
    if (realpath(path, real) == NULL) {
        if (errno == ENOENT) return false;
        return err_set(err, DP_E_FILE, "%s: cannot be found", path);
    }
    if (lies_in(real, p->real_folder)) return true;
    if (p->blobs != NULL && lies_in(real, p->blobs)) return true;
    return err_set(err, DP_E_FORMAT, "%s: leads out of the pack's folder", path);
}

/* The name under which the manifest keeps what a Hugging Face folder calls `name`. */
static str name_in_pack(const pack_listing *l, const char *name) {
    if (strcmp(name, "tokenizer.json") == 0 && l->tokenizer_json.size > 0) {
        return l->tokenizer_json;
    }
    if (strcmp(name, "tokenizer.model") == 0 && l->tokenizer_model.size > 0) {
        return l->tokenizer_model;
    }
    return str_of(name);
}

#ifdef __wasi__ /* has no libcrypto: its loader has hashed the file before (web/lib/loader.js) */
static bool check_hash(const char *path, const pack_file *f, str text, dp_error *err) {
    (void)path, (void)f, (void)text, (void)err;
    return true;
}
#else
static bool check_hash(const char *path, const pack_file *f, str text, dp_error *err) {
    if (!f->has_hash) return true;
    hash_state h;
    unsigned char digest[HASH_BYTES];
    char got[HASH_HEX_BYTES], want[HASH_HEX_BYTES];
    hash_begin(&h, HASH_SHA256);
    hash_add(&h, text.data, text.size);
    hash_end(&h, digest);
    if (memcmp(digest, f->digest, HASH_BYTES) == 0) return true;
    hash_to_hex(digest, got);
    hash_to_hex(f->digest, want);
    return err_set(err, DP_E_FORMAT, "%s: SHA-256 is %.16s..., the manifest says %.16s...", path,
                   got, want);
}
#endif

static bool check_text(const char *path, const pack_file *f, str text, dp_error *err) {
    if (f->has_size && text.size != f->size) {
        return err_set(err, DP_E_FORMAT, "%s: %zu bytes, the manifest says %" PRIu64, path,
                       text.size, f->size);
    }
    return check_hash(path, f, text, err);
}

bool pack_read_text(const container *c, const char *name, size_t ceiling, buf *out, dp_error *err) {
    char path[PATH_BYTES_MAX];
    const str own = name_in_pack(&c->pack->listing, name);
    const pack_file *listed = listing_find(&c->pack->listing, own);
    dp_error problem = { 0 };
    if (!is_plain_name(own)) return false; /* a pack has no such file */
    if (!pack_find_file(c, own.data, path, &problem)) {
        if (problem.status != DP_OK) return err_set(err, problem.status, "%s", problem.message);
        if (listed == NULL) return false;
        return err_set(err, DP_E_FORMAT, "%s: is missing, the manifest lists it", path);
    }
    if (str_equal(own, c->pack->listing.tensors_file)) ceiling = MANIFEST_BYTES_MAX;
    if (!file_read_all(path, ceiling, out, err)) return false;
    if (listed == NULL || check_text(path, listed, (str){ out->data, out->size }, err)) return true;
    buf_free(out);
    return false;
}

bool pack_check_shard(const container *c, uint32_t shard, bool *missing, dp_error *err) {
    const pack_file *f = &c->pack->listing.files[shard];
    char path[PATH_BYTES_MAX];
    dp_error problem = { 0 };
    if (missing != NULL) *missing = false;
    if (!pack_find_file(c, f->name.data, path, &problem)) {
        if (problem.status != DP_OK) return err_set(err, problem.status, "%s", problem.message);
        if (missing == NULL) return err_set(err, DP_E_FORMAT, "%s: is missing", path);
        *missing = true;
        return true;
    }
    file *opened = file_open(path, err);
    if (opened == NULL) return false;
    const uint64_t size = file_size(opened);
    file_close(opened);
    if (size == f->size) return true;
    return err_set(err, DP_E_FORMAT, "%s: %" PRIu64 " bytes, the manifest says %" PRIu64, path,
                   size, f->size);
}

/* ---- reading shards ------------------------------------------------------------------------ */

static file *reopen_shard(container *c, uint32_t shard, dp_error *err) {
    const pack_file *f = &c->pack->listing.files[shard];
    char path[PATH_BYTES_MAX];
    dp_error problem = { 0 };
    if (!pack_find_file(c, f->name.data, path, &problem)) {
        if (problem.status != DP_OK) {
            err_set(err, problem.status, "%s", problem.message);
        } else {
            err_set(err, DP_E_FORMAT, "%s: is missing", path);
        }
        return NULL;
    }
    file *opened = file_open(path, err);
    if (opened != NULL && file_size(opened) != f->size) {
        err_set(err, DP_E_FILE, "%s: %" PRIu64 " bytes, was %" PRIu64 " when the pack was opened",
                path, file_size(opened), f->size);
        file_close(opened);
        return NULL;
    }
    return opened;
}

/* The place among the open ones for a shard: its own, an empty one, or that of the one least
 * recently used of those that nobody reads. NULL if all are being read. */
static shard_handle *place_for(pack *p, uint32_t shard) {
    shard_handle *best = NULL;
    for (uint32_t i = 0; i < SHARDS_OPEN; i++) {
        shard_handle *o = &p->open[i];
        if (o->f != NULL && o->shard == shard) return o;
        if (o->users == 0 && (best == NULL || (best->f != NULL && o->used < best->used))) best = o;
    }
    return best;
}

bool pack_read(container *c, uint32_t shard, uint64_t offset, void *out, size_t n, dp_error *err) {
    pack *p = c->pack;
    pthread_mutex_lock(&p->lock);
    shard_handle *o = place_for(p, shard);
    if (o != NULL && (o->f == NULL || o->shard != shard)) {
        file_close(o->f);
        o->f = reopen_shard(c, shard, err);
        o->shard = shard;
    }
    const bool opened = o == NULL || o->f != NULL;
    if (o != NULL && opened) {
        o->users++;
        o->used = ++p->uses;
    }
    pthread_mutex_unlock(&p->lock);
    if (!opened) return false;
    if (o == NULL) { /* more threads than places */
        file *f = reopen_shard(c, shard, err);
        const bool ok = f != NULL && file_read(f, offset, out, n, err);
        file_close(f);
        return ok;
    }
    const bool ok = file_read(o->f, offset, out, n, err);
    pthread_mutex_lock(&p->lock);
    o->users--;
    pthread_mutex_unlock(&p->lock);
    return ok;
}
