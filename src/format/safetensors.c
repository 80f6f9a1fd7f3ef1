/* safetensors: a file, or a Hugging Face folder of one file or of shards with an index.
 *
 *     u64 n, n bytes of JSON { "name": { "dtype", "shape", "data_offsets": [begin, end] }, ... },
 *     data; offsets count from its first byte.
 *
 * The format's own rules are enforced: the header is a JSON object of at most 100 MB that begins
 * with its brace, every tensor is exactly as long as shape and dtype say, and tensors cover the
 * data without gap or overlap. */
#include "format/format_internal.h"

#include <inttypes.h>

static const char *const single_name = "model.safetensors";
static const char *const index_name = "model.safetensors.index.json";

static bool read_shape(const char *path, str name, const json_value *shape, tensor *t,
                       dp_error *err) {
    const size_t n_dims = json_count(shape);
    if (n_dims > TENSOR_DIMS) {
        return err_set(err, DP_E_UNSUPPORTED, "%s: tensor %.*s: %zu dimensions, the limit is %d",
                       path, STR_ARG(name), n_dims, TENSOR_DIMS);
    }
    t->n_dims = (uint32_t)n_dims;
    uint32_t i = 0;
    for (json_iter it = json_each(shape); json_next(&it); i++) {
        if (!json_u64(it.value, &t->shape[i])) {
            return err_set(err, DP_E_FORMAT, "%s: tensor %.*s: shape[%u] is no 64-bit count", path,
                           STR_ARG(name), i);
        }
    }
    return true;
}

/* One member of the header; data lies in [data_start, end of file). */
static bool read_tensor(container *c, const char *path, str name, const json_value *v,
                        uint64_t data_start, uint32_t file_index, dp_error *err) {
    const json_value *shape = json_get(v, "shape"), *range = json_get(v, "data_offsets");
    str type;
    uint64_t begin, end;
    if (!json_string(json_get(v, "dtype"), &type) || !json_is_array(shape) ||
        !json_is_array(range)) {
        return err_set(err, DP_E_FORMAT,
                       "%s: tensor %.*s: needs dtype (text), shape and data_offsets (arrays)", path,
                       STR_ARG(name));
    }
    if (json_count(range) != 2 || !json_u64(json_at(range, 0), &begin) ||
        !json_u64(json_at(range, 1), &end) || begin > end) {
        return err_set(err, DP_E_FORMAT,
                       "%s: tensor %.*s: data_offsets must be two 64-bit counts [begin, end] with "
                       "begin <= end",
                       path, STR_ARG(name));
    }
    tensor t = { .name = name, .file = file_index };
    if (!dtype_by_safetensors(type, &t.type)) {
        return err_set(err, DP_E_UNSUPPORTED, "%s: tensor %.*s: unknown dtype \"%.*s\"", path,
                       STR_ARG(name), STR_ARG(type));
    }
    if (!read_shape(path, name, shape, &t, err)) return false;
    if (!add_u64(data_start, begin, &t.offset)) {
        return err_set(err, DP_E_FORMAT, "%s: tensor %.*s: offset %" PRIu64 " is beyond 64 bits",
                       path, STR_ARG(name), begin);
    }
    if (!container_add_tensor(c, &t, err)) return false;
    const uint64_t n_bytes = c->tensors[c->n_tensors - 1].n_bytes;
    if (n_bytes != end - begin) {
        return err_set(err, DP_E_FORMAT,
                       "%s: tensor %.*s: data_offsets span %" PRIu64
                       " bytes, shape and dtype say %" PRIu64,
                       path, STR_ARG(name), end - begin, n_bytes);
    }
    return true;
}

static bool read_tensors(container *c, const char *path, const json_value *root,
                         uint64_t data_start, uint32_t file_index, dp_error *err) {
    if (!json_is_object(root)) {
        return err_set(err, DP_E_FORMAT, "%s: header is no JSON object", path);
    }
    const uint32_t first = c->n_tensors;
    for (json_iter it = json_each(root); json_next(&it);) {
        if (str_is(it.key, "__metadata__")) continue;
        if (!read_tensor(c, path, it.key, it.value, data_start, file_index, err)) return false;
    }
    return container_check_layout(c, first, true, data_start, file_size(c->files[file_index]), err);
}

bool safetensors_open_file(container *c, const char *path, dp_error *err) {
    uint32_t file_index;
    file *f = container_add_file(c, path, &file_index, err);
    if (f == NULL) return false;
    unsigned char head[8];
    if (file_size(f) < sizeof(head)) {
        return err_set(err, DP_E_FORMAT, "%s: %" PRIu64 " bytes are no safetensors file", path,
                       file_size(f));
    }
    if (!file_read(f, 0, head, sizeof(head), err)) return false;
    uint64_t n = 0;
    for (int i = 8; i-- > 0;) n = n << 8 | head[i];
    if (n > file_size(f) - 8) {
        return err_set(err, DP_E_FORMAT,
                       "%s: header of %" PRIu64 " bytes, the file has %" PRIu64 " left", path, n,
                       file_size(f) - 8);
    }
    if (n > SAFETENSORS_HEADER_MAX) {
        return err_set(err, DP_E_LIMIT, "%s: header of %" PRIu64 " bytes, the limit is %d", path, n,
                       SAFETENSORS_HEADER_MAX);
    }
    char *text = mem_new((size_t)n, 1, "the header of a safetensors file", err);
    json *doc = NULL;
    if (text != NULL && file_read(f, 8, text, (size_t)n, err)) {
        if (n == 0 || text[0] != '{') {
            err_set(err, DP_E_FORMAT, "%s: header does not begin with {", path);
        } else {
            doc = json_open((str){ text, (size_t)n }, path, err);
        }
    }
    mem_free(text);
    const bool ok = doc != NULL && read_tensors(c, path, json_root(doc), 8 + n, file_index, err);
    json_close(doc);
    return ok;
}

/* ---- folder -------------------------------------------------------------------------------- */

/* Path of a shard. Its name must be that of a file alone: anything else could lead out of the
 * folder. */
static bool shard_path(const container *c, str name, char *out, size_t size, dp_error *err) {
    char plain[256];
    const bool ok = name.size > 0 && name.size < sizeof(plain) && name.data[0] != '.' &&
                    memchr(name.data, '/', name.size) == NULL &&
                    memchr(name.data, '\\', name.size) == NULL &&
                    memchr(name.data, '\0', name.size) == NULL;
    if (!ok) {
        return err_set(err, DP_E_FORMAT, "weight_map: \"%.*s\" is no name of a file in the folder",
                       STR_ARG(name));
    }
    memcpy(plain, name.data, name.size);
    plain[name.size] = '\0';
    return path_join(out, size, c->folder, plain, err);
}

/* Opens the file that the index names, unless it is open; *index is its number. */
static bool open_shard(container *c, map *shards, str name, uint32_t *index, dp_error *err) {
    if (map_get(shards, name, index)) return true;
    char path[PATH_BYTES_MAX];
    *index = c->n_files;
    return shard_path(c, name, path, sizeof(path), err) && safetensors_open_file(c, path, err) &&
           map_put(shards, name, *index, NULL, err);
}

static bool open_shards(container *c, const char *path, const json_value *weights, map *shards,
                        dp_error *err) {
    for (json_iter it = json_each(weights); json_next(&it);) {
        str name;
        uint32_t index;
        if (!json_string(it.value, &name)) {
            return err_set(err, DP_E_FORMAT, "%s: weight_map: %.*s: the file's name is no text",
                           path, STR_ARG(it.key));
        }
        if (!open_shard(c, shards, name, &index, err)) return err_prefix(err, "%s: ", index_name);
        uint32_t at;
        if (!map_get(c->tensor_names, it.key, &at) || c->tensors[at].file != index) {
            return err_set(err, DP_E_FORMAT, "%s: weight_map: tensor %.*s is not in %.*s", path,
                           STR_ARG(it.key), STR_ARG(name));
        }
    }
    return true;
}

static bool has_all_shards(const container *c, const json_value *weights) {
    for (json_iter it = json_each(weights); json_next(&it);) {
        str name;
        char path[PATH_BYTES_MAX];
        if (!json_string(it.value, &name)) continue; /* open_shards will refuse it */
        if (!shard_path(c, name, path, sizeof(path), NULL)) continue;
        if (!path_is_file(path)) return false;
    }
    return true;
}

static bool open_index(container *c, const char *path, bool vocab_only, dp_error *err) {
    const json_value *index = container_json(c, index_name, err);
    if (index == NULL) return false;
    const json_value *weights = json_get(index, "weight_map");
    if (!json_is_object(weights) || json_count(weights) == 0) {
        return err_set(err, DP_E_FORMAT, "%s: weight_map is no object with entries", path);
    }
    if (vocab_only && !has_all_shards(c, weights)) return true;
    map *shards = map_new(16, err);
    if (shards == NULL) return false;
    const bool ok = open_shards(c, path, weights, shards, err);
    map_free(shards);
    return ok;
}

bool safetensors_open_folder(container *c, bool vocab_only, dp_error *err) {
    char path[PATH_BYTES_MAX];
    if (!path_join(path, sizeof(path), c->folder, single_name, err)) return false;
    if (path_is_file(path)) return safetensors_open_file(c, path, err);
    if (!path_join(path, sizeof(path), c->folder, index_name, err)) return false;
    if (path_is_file(path)) return open_index(c, path, vocab_only, err);
    if (vocab_only) return true;
    return err_set(err, DP_E_FILE, "%s: has a config.json but neither %s nor %s", c->folder,
                   single_name, index_name);
}
