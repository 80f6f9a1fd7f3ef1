/* rdrr: a pack of the RDRR format, as its public project and we write it, since 2025.
 *
 *     manifest.json    what the model is, its shards, and (or in the file tensorsFile) a map of
 *                      tensors: where in which shards each lies, its shape, type and layout
 *     shard_00000.bin  bytes of tensors, one after the other, some with padding between them
 *     tokenizer.json, ...
 *
 * All writers say version 1, and what they write has changed a dozen times; so what is missing is
 * derived or taken as off, and what is there is checked here even where their own reader does not.
 * Invariant after opening: every shard is there and as long as said (unless only a vocabulary was
 * asked for), every tensor's bytes lie in shards and are shared with no other tensor. */
#include "format/format_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const manifest_name = "manifest.json";

/* ---- opening the files --------------------------------------------------------------------- */

/* Where links may lead: the folder itself and, of a snapshot in the Hugging Face cache, the blobs
 * of its model. */
static bool find_real_folders(container *c, dp_error *err) {
    static const char inner[] = "/snapshots/";
    char real[PATH_BYTES_MAX], blobs[PATH_BYTES_MAX];
    pack *p = c->pack;
    if (realpath(c->folder, real) == NULL) {
        return err_set(err, DP_E_FILE, "%s: cannot be found", c->folder);
    }
    p->real_folder = arena_copy(&c->memory, real, strlen(real), err);
    if (p->real_folder == NULL) return false;
    char *at = NULL;
    for (char *s = strstr(real, inner); s != NULL; s = strstr(s + 1, inner))
        at = s;
    if (at == NULL) return true;
    *at = '\0';
    const char *model = strrchr(real, '/');
    if (model == NULL || strncmp(model, "/models--", 9) != 0) return true;
    if (!path_join(blobs, sizeof(blobs), real, "blobs", NULL)) return true;
    if (realpath(blobs, real) == NULL) return true;
    p->blobs = arena_copy(&c->memory, real, strlen(real), err);
    return p->blobs != NULL;
}

static bool read_manifest(container *c, dp_error *err) {
    char path[PATH_BYTES_MAX];
    dp_error problem = { 0 };
    buf text;
    if (!pack_find_file(c, manifest_name, path, &problem)) {
        return problem.status == DP_OK ? err_set(err, DP_E_FILE, "%s: is missing", path)
                                       : err_set(err, problem.status, "%s", problem.message);
    }
    if (!file_read_all(path, MANIFEST_BYTES_MAX, &text, err)) return false;
    c->pack->manifest = json_open((str){ text.data, text.size }, path, err);
    buf_free(&text);
    return c->pack->manifest != NULL &&
           listing_read(&c->pack->listing, json_root(c->pack->manifest), path, err);
}

/* *whole: no shard is missing, or must not be. */
static bool check_shards(container *c, bool may_miss, bool *whole, dp_error *err) {
    *whole = true;
    for (uint32_t i = 0; i < c->pack->listing.n_shards; i++) {
        bool missing = false;
        if (!pack_check_shard(c, i, may_miss ? &missing : NULL, err)) return false;
        if (missing) *whole = false;
    }
    return true;
}

/* ---- tensors ------------------------------------------------------------------------------- */

static bool refuse_pack(const container *c, dp_error *err, const char *what) {
    return err_set(err, DP_E_FORMAT, "%s: %s", c->path, what);
}

static bool read_pack_defaults(const container *c, pack_defaults *d, dp_error *err) {
    const json_value *m = container_manifest(c);
    str name;
    tensor_layout layout = LAYOUT_ROWS;
    if (json_string(json_get(json_get(m, "quantizationInfo"), "layout"), &name)) {
        if (!layout_by_name(name, &d->layout)) {
            return err_set(err, DP_E_UNSUPPORTED,
                           "%s: quantizationInfo.layout \"%.*s\" is none of row, column, flat",
                           c->path, STR_ARG(name));
        }
        d->has_layout = true;
    }
    json_bool(json_get(m, "weightsTransposed"), &d->columns);
    if (json_string(json_get(m, "defaultWeightLayout"), &name)) {
        if (!layout_by_name(name, &layout)) {
            return err_set(err, DP_E_UNSUPPORTED,
                           "%s: defaultWeightLayout \"%.*s\" is none of row, column", c->path,
                           STR_ARG(name));
        }
        d->columns = d->columns || layout == LAYOUT_COLUMNS;
    }
    return true;
}

/* The map of tensors; it lives as long as the container. */
static const json_value *find_tensor_map(container *c, dp_error *err) {
    const pack_listing *l = &c->pack->listing;
    const json_value *m = container_manifest(c), *tensors = json_get(m, "tensors");
    uint64_t n;
    if (l->tensors_file.size > 0) {
        dp_error problem = { 0 };
        tensors = container_json(c, l->tensors_file.data, &problem);
        if (tensors == NULL) {
            err_set(err, problem.status, "%s", problem.message);
            return NULL;
        }
    }
    if (!json_is_object(tensors) || json_count(tensors) == 0) {
        refuse_pack(c, err, "its map of tensors is no object with entries");
        return NULL;
    }
    const json_value *count = json_get(m, "tensorCount");
    if (count != NULL && !json_is_null(count) &&
        (!json_u64(count, &n) || n != json_count(tensors))) {
        err_set(err, DP_E_FORMAT, "%s: tensorCount is not the %zu of its map of tensors", c->path,
                json_count(tensors));
        return NULL;
    }
    if (json_count(tensors) <= TENSORS_MAX) return tensors;
    err_set(err, DP_E_LIMIT, "%s: %zu tensors, the limit is %d", c->path, json_count(tensors),
            TENSORS_MAX);
    return NULL;
}

/* Companions are no tensors of the model: they go to p->hidden. */
static bool take_tensors(container *c, const json_value *tensors, map **hidden, dp_error *err) {
    pack *p = c->pack;
    pack_defaults defaults = { 0 };
    tensor *all = mem_new(json_count(tensors), sizeof(tensor), "tensors", err);
    *hidden = map_new(16, err);
    p->hidden_names = map_new(16, err);
    bool ok = all != NULL && *hidden != NULL && p->hidden_names != NULL &&
              read_pack_defaults(c, &defaults, err);
    uint32_t n = 0, number;
    for (json_iter it = json_each(tensors); ok && json_next(&it); n++) {
        ok = read_pack_tensor(c, &defaults, it.key, it.value, &all[n], err);
        const tensor_packing *packing = ok ? all[n].packing : NULL;
        if (packing == NULL || packing->kind != PACKING_W4A16) continue;
        ok = map_put(*hidden, packing->scales_name, 0, NULL, err) &&
             (packing->shape_name.size == 0 || map_put(*hidden, packing->shape_name, 0, NULL, err));
    }
    if (ok && map_count(*hidden) > 0) {
        p->hidden = arena_new(&c->memory, map_count(*hidden), sizeof(tensor), "companions", err);
        ok = p->hidden != NULL;
    }
    for (uint32_t i = 0; ok && i < n; i++) {
        if (map_get(*hidden, all[i].name, &number)) {
            ok = map_put(p->hidden_names, all[i].name, p->n_hidden, NULL, err);
            p->hidden[p->n_hidden++] = all[i];
        } else {
            ok = container_put_tensor(c, &all[i], c->path, err);
        }
    }
    mem_free(all);
    return ok;
}

static const tensor *find_hidden(const pack *p, str name) {
    uint32_t i;
    return map_get(p->hidden_names, name, &i) ? &p->hidden[i] : NULL;
}

/* The shape companion: two integers that must be the shape. */
static bool check_shape_companion(container *c, const tensor *t, const tensor *shape,
                                  dp_error *err) {
    unsigned char bytes[16];
    const size_t size = shape->type == DTYPE_I64 ? 8 : 4;
    bool right = (shape->type == DTYPE_I64 || shape->type == DTYPE_I32) && shape->n_elements == 2;
    if (right && !container_read(c, shape, 0, bytes, 2 * size, err)) return false;
    for (size_t k = 0; right && k < 2; k++) {
        uint64_t value = 0;
        for (size_t i = size; i-- > 0;)
            value = value << 8 | bytes[k * size + i];
        right = value == (k == 0 ? tensor_rows(t) : t->shape[t->n_dims - 1]);
    }
    return right ||
           err_set(err, DP_E_FORMAT, "%s: tensor %.*s: its companion %.*s does not hold its shape",
                   c->path, STR_ARG(t->name), STR_ARG(shape->name));
}

/* Gives a packing with companions their tensors. */
static bool link_companions(container *c, const tensor *t, tensor_packing *packing, dp_error *err) {
    const pack *p = c->pack;
    const uint64_t rows = tensor_rows(t), cols = t->n_dims > 0 ? t->shape[t->n_dims - 1] : 1;
    const tensor *scales = find_hidden(p, packing->scales_name);
    const tensor *shape = find_hidden(p, packing->shape_name);
    if (scales == NULL || (shape == NULL && packing->shape_name.size > 0)) {
        const str name = scales == NULL ? packing->scales_name : packing->shape_name;
        return err_set(err, DP_E_FORMAT, "%s: tensor %.*s: its companion %.*s is missing", c->path,
                       STR_ARG(t->name), STR_ARG(name));
    }
    const bool floats =
        scales->type == DTYPE_F32 || scales->type == DTYPE_F16 || scales->type == DTYPE_BF16;
    const uint64_t groups = cols / 32 + (cols % 32 != 0);
    if (!floats || !tensor_is_plain(scales) || tensor_rows(scales) != rows ||
        scales->n_elements != rows * groups) {
        char text[SHAPE_TEXT_BYTES];
        return err_set(err, DP_E_FORMAT,
                       "%s: tensor %.*s: its scales are %s %s, must be [%" PRIu64 ", %" PRIu64
                       "] of F32, F16 or BF16",
                       c->path, STR_ARG(t->name), dtype_get(scales->type)->name,
                       shape_text(scales->n_dims, scales->shape, text), rows, groups);
    }
    packing->scales = scales;
    return shape == NULL || check_shape_companion(c, t, shape, err);
}

static bool link_all_companions(container *c, dp_error *err) {
    for (uint32_t i = 0; i < c->n_tensors; i++) {
        tensor *t = &c->tensors[i];
        if (t->packing == NULL || t->packing->kind != PACKING_W4A16) continue;
        tensor_packing *linked = arena_new(&c->memory, 1, sizeof(tensor_packing), "a packing", err);
        if (linked == NULL) return false;
        *linked = *t->packing;
        if (!link_companions(c, t, linked, err)) return false;
        t->packing = linked;
    }
    for (uint32_t i = 0; i < c->pack->n_hidden; i++) {
        const tensor *t = &c->pack->hidden[i];
        if (t->packing == NULL) continue;
        return err_set(err, DP_E_FORMAT, "%s: tensor %.*s: a companion must not be packed", c->path,
                       STR_ARG(t->name));
    }
    return true;
}

/* ---- overlaps ------------------------------------------------------------------------------ */

typedef struct {
    uint32_t shard;
    uint64_t offset, n_bytes;
    const tensor *of;
} shard_part;

static int compare_parts(const void *a, const void *b) {
    const shard_part *x = a, *y = b;
    if (x->shard != y->shard) return x->shard < y->shard ? -1 : 1;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    return 0;
}

static size_t add_parts(shard_part *parts, size_t n, const tensor *t) {
    if (t->n_spans == 0) {
        parts[n] = (shard_part){ t->file, t->offset, t->n_bytes, t };
        return n + 1;
    }
    for (uint32_t i = 0; i < t->n_spans; i++) {
        const tensor_span *s = &t->spans[i];
        parts[n++] = (shard_part){ s->file, s->offset, s->n_bytes, t };
    }
    return n;
}

/* Scales that a sourceTransform points at are left out: several tensors may share them. */
static bool check_overlaps(const container *c, dp_error *err) {
    const pack *p = c->pack;
    size_t most = c->n_tensors + (size_t)p->n_hidden + (size_t)p->n_spans, n = 0;
    shard_part *parts = mem_new(most, sizeof(*parts), "the places of tensors", err);
    if (parts == NULL) return false;
    for (uint32_t i = 0; i < c->n_tensors; i++)
        n = add_parts(parts, n, &c->tensors[i]);
    for (uint32_t i = 0; i < p->n_hidden; i++)
        n = add_parts(parts, n, &p->hidden[i]);
    qsort(parts, n, sizeof(*parts), compare_parts);
    bool ok = true;
    for (size_t i = 1; ok && i < n; i++) {
        const shard_part *before = &parts[i - 1], *at = &parts[i];
        if (before->shard != at->shard || before->offset + before->n_bytes <= at->offset) continue;
        ok = err_set(err, DP_E_FORMAT,
                     "%s: tensors %.*s and %.*s overlap in shard %u: the first ends at %" PRIu64
                     ", the second begins at %" PRIu64,
                     c->path, STR_ARG(before->of->name), STR_ARG(at->of->name), at->shard,
                     before->offset + before->n_bytes, at->offset);
    }
    mem_free(parts);
    return ok;
}

/* ---- groups and merkle roots --------------------------------------------------------------- */

static const tensor *find_any(const container *c, str name) {
    uint32_t i;
    if (map_get(c->tensor_names, name, &i)) return &c->tensors[i];
    return find_hidden(c->pack, name);
}

static bool check_group(const container *c, str id, const json_value *group, dp_error *err) {
    uint64_t shard;
    str name;
    if (!json_is_object(group)) {
        return err_set(err, DP_E_FORMAT, "%s: group %.*s is no object", c->path, STR_ARG(id));
    }
    for (json_iter it = json_each(json_get(group, "shards")); json_next(&it);) {
        if (json_u64(it.value, &shard) && shard < c->pack->listing.n_shards) continue;
        return err_set(err, DP_E_FORMAT, "%s: group %.*s: a shard's number is none of %u shards",
                       c->path, STR_ARG(id), c->pack->listing.n_shards);
    }
    for (json_iter it = json_each(json_get(group, "tensors")); json_next(&it);) {
        if (json_string(it.value, &name) && find_any(c, name) != NULL) continue;
        return err_set(err, DP_E_FORMAT, "%s: group %.*s: a name in it is that of no tensor",
                       c->path, STR_ARG(id));
    }
    return true;
}

static bool check_groups(const container *c, dp_error *err) {
    const json_value *groups = json_get(container_manifest(c), "groups");
    if (groups == NULL || json_is_null(groups)) return true;
    if (!json_is_object(groups)) return refuse_pack(c, err, "groups is no object");
    for (json_iter it = json_each(groups); json_next(&it);) {
        if (!check_group(c, it.key, it.value, err)) return false;
    }
    return true;
}

static bool read_roots(container *c, dp_error *err) {
    pack *p = c->pack;
    const json_value *tree =
        json_get(json_get(container_manifest(c), "integrityExtensions"), "blockMerkle");
    if (tree == NULL || json_is_null(tree)) return true;
    const json_value *roots = json_get(tree, "roots");
    if (!json_u64(json_get(tree, "blockSize"), &p->merkle_bytes) ||
        p->merkle_bytes < HASHED_BLOCK_MIN || !json_is_object(roots)) {
        return err_set(err, DP_E_FORMAT,
                       "%s: blockMerkle must have a blockSize of at least %d bytes and roots",
                       c->path, HASHED_BLOCK_MIN);
    }
    p->roots = arena_new(&c->memory, json_count(roots), sizeof(wanted_root), "roots", err);
    if (p->roots == NULL) return false;
    for (json_iter it = json_each(roots); json_next(&it);) {
        wanted_root *r = &p->roots[p->n_roots++];
        str hex = { NULL, 0 };
        json_string(it.value, &hex);
        if (!str_starts(hex, "sha256:") ||
            !hash_from_hex((str){ hex.data + 7, hex.size - 7 }, r->digest)) {
            return err_set(err, DP_E_FORMAT,
                           "%s: blockMerkle: the root of %.*s is not \"sha256:\" and 64 "
                           "hexadecimal digits",
                           c->path, STR_ARG(it.key));
        }
        r->of = find_any(c, it.key);
        if (r->of != NULL) continue;
        return err_set(err, DP_E_FORMAT, "%s: blockMerkle: %.*s is the name of no tensor", c->path,
                       STR_ARG(it.key));
    }
    return true;
}

/* ---- opening and closing ------------------------------------------------------------------- */

static bool open_tensors(container *c, dp_error *err) {
    map *hidden = NULL;
    const json_value *tensors = find_tensor_map(c, err);
    const bool ok = tensors != NULL && take_tensors(c, tensors, &hidden, err) &&
                    link_all_companions(c, err) && check_overlaps(c, err) && check_groups(c, err) &&
                    read_roots(c, err);
    map_free(hidden);
    return ok;
}

bool rdrr_open(container *c, bool vocab_only, dp_error *err) {
    c->pack = mem_new(1, sizeof(pack), "a pack", err);
    if (c->pack == NULL) return false;
    pthread_mutex_init(&c->pack->lock, NULL);
    bool whole = false;
    if (!find_real_folders(c, err) || !read_manifest(c, err) ||
        !check_shards(c, vocab_only, &whole, err)) {
        return false;
    }
    return !whole || open_tensors(c, err);
}

void rdrr_close(container *c) {
    pack *p = c->pack;
    if (p == NULL) return;
    for (uint32_t i = 0; i < SHARDS_OPEN; i++)
        file_close(p->open[i].f);
    pthread_mutex_destroy(&p->lock);
    listing_free(&p->listing);
    map_free(p->hidden_names);
    json_close(p->manifest);
    mem_free(p);
    c->pack = NULL;
}
