/* container: opens a model's files by what they contain, and answers for them whatever they were.
 *
 * Invariant after container_open: every tensor has a unique name, a known type, a shape whose
 * element and byte counts fit 64 bits, and bytes that lie inside its file and overlap no other
 * tensor's. Readers of the containers add tensors only through container_add_tensor, which is where
 * that is checked. */
#include "format/format_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- building ------------------------------------------------------------------------------ */

file *container_add_file(container *c, const char *path, uint32_t *index, dp_error *err) {
    if (c->n_files == FILES_MAX) {
        err_set(err, DP_E_LIMIT, "%s: a model of more than %d files", path, FILES_MAX);
        return NULL;
    }
    file *f = file_open(path, err);
    if (f == NULL) return NULL;
    if (file_size(f) == 0) {
        err_set(err, DP_E_FORMAT, "%s: is empty", path);
        file_close(f);
        return NULL;
    }
    *index = c->n_files;
    c->files[c->n_files++] = f;
    return f;
}

const char *shape_text(uint32_t n_dims, const uint64_t *shape, char text[SHAPE_TEXT_BYTES]) {
    size_t n = 1;
    text[0] = '[';
    for (uint32_t i = 0; i < n_dims; i++) {
        n += (size_t)snprintf(text + n, SHAPE_TEXT_BYTES - n, "%s%" PRIu64, i > 0 ? ", " : "",
                              shape[i]);
    }
    snprintf(text + n, SHAPE_TEXT_BYTES - n, "]");
    return text;
}

bool count_elements(tensor *t, const char *path, dp_error *err) {
    char shape[SHAPE_TEXT_BYTES];
    bool fits = true;
    t->n_elements = 1;
    for (uint32_t i = 0; i < t->n_dims; i++) {
        fits = fits && mul_u64(t->n_elements, t->shape[i], &t->n_elements);
    }
    if (fits) return true;
    return err_set(err, DP_E_FORMAT,
                   "%s: tensor %.*s: shape %s has more elements than 64 bits count", path,
                   STR_ARG(t->name), shape_text(t->n_dims, t->shape, shape));
}

/* Sets n_elements and n_bytes from shape and type. */
static bool measure_tensor(tensor *t, const char *path, dp_error *err) {
    const dtype_info *info = dtype_get(t->type);
    char shape[SHAPE_TEXT_BYTES];
    if (!count_elements(t, path, err)) return false;
    const uint64_t row = t->n_dims > 0 ? t->shape[t->n_dims - 1] : 1;
    if (row % info->block_elements != 0) {
        return err_set(err, DP_E_FORMAT,
                       "%s: tensor %.*s: rows of %" PRIu64 " elements, %s needs a multiple of %u",
                       path, STR_ARG(t->name), row, info->name, info->block_elements);
    }
    if (!dtype_row_bytes(t->type, t->n_elements, &t->n_bytes)) {
        return err_set(err, DP_E_FORMAT,
                       "%s: tensor %.*s: shape %s of %s has more bytes than 64 bits count", path,
                       STR_ARG(t->name), shape_text(t->n_dims, t->shape, shape), info->name);
    }
    return true;
}

static bool grow_tensors(container *c, dp_error *err) {
    if (c->n_tensors < c->tensors_max) return true;
    if (c->n_tensors == TENSORS_MAX) {
        return err_set(err, DP_E_LIMIT, "%s: more than %d tensors", c->path, TENSORS_MAX);
    }
    const uint32_t max = c->tensors_max == 0 ? 64 : c->tensors_max * 2;
    tensor *tensors = mem_resize(c->tensors, max, sizeof(tensor), "tensors", err);
    if (tensors == NULL) return false;
    c->tensors = tensors;
    c->tensors_max = max;
    return true;
}

bool container_put_tensor(container *c, const tensor *from, const char *path, dp_error *err) {
    tensor t = *from;
    if (t.name.size == 0 || t.name.size > NAME_BYTES_MAX ||
        memchr(t.name.data, '\0', t.name.size) != NULL) {
        return err_set(err, DP_E_FORMAT,
                       "%s: tensor name \"%.*s\" of %zu bytes: must be 1 to %d bytes, none of them "
                       "0",
                       path, STR_ARG(t.name), t.name.size, NAME_BYTES_MAX);
    }
    if (!grow_tensors(c, err)) return false;
    t.name.data = arena_copy(&c->memory, t.name.data, t.name.size, err);
    if (t.name.data == NULL) return false;
    bool added;
    if (!map_put(c->tensor_names, t.name, c->n_tensors, &added, err)) return false;
    if (!added) {
        return err_set(err, DP_E_FORMAT, "%s: duplicate tensor %.*s", path, STR_ARG(t.name));
    }
    c->tensors[c->n_tensors++] = t;
    c->bytes += t.n_bytes; /* no overflow: tensors of a file share none of its bytes */
    return true;
}

bool container_add_tensor(container *c, const tensor *from, dp_error *err) {
    tensor t = *from;
    const char *path = file_path(c->files[t.file]);
    if (!measure_tensor(&t, path, err)) return false;
    uint64_t end;
    if (!add_u64(t.offset, t.n_bytes, &end) || end > file_size(c->files[t.file])) {
        return err_set(err, DP_E_FORMAT,
                       "%s: tensor %.*s: %" PRIu64 " bytes at %" PRIu64
                       " reach past the end of the file at %" PRIu64,
                       path, STR_ARG(t.name), t.n_bytes, t.offset, file_size(c->files[t.file]));
    }
    return container_put_tensor(c, &t, path, err);
}

typedef struct {
    uint64_t offset, n_bytes;
    uint32_t index;
} span;

static int compare_spans(const void *a, const void *b) {
    const span *x = a, *y = b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    if (x->n_bytes != y->n_bytes) return x->n_bytes < y->n_bytes ? -1 : 1; /* empty ones first */
    return x->index < y->index ? -1 : x->index > y->index;
}

static int compare_tensors(const void *a, const void *b) {
    const tensor *x = a, *y = b;
    const span xs = { x->offset, x->n_bytes, 0 }, ys = { y->offset, y->n_bytes, 0 };
    const int order = compare_spans(&xs, &ys);
    if (order != 0) return order;
    const size_t n = x->name.size < y->name.size ? x->name.size : y->name.size;
    const int names = memcmp(x->name.data, y->name.data, n);
    return names != 0 ? names : x->name.size < y->name.size ? -1 : x->name.size > y->name.size;
}

/* Puts the names' numbers right after tensors [first, n_tensors) have changed places. */
static bool number_names(container *c, dp_error *err) {
    map_free(c->tensor_names);
    c->tensor_names = map_new(c->n_tensors, err);
    if (c->tensor_names == NULL) return false;
    for (uint32_t i = 0; i < c->n_tensors; i++) {
        if (!map_put(c->tensor_names, c->tensors[i].name, i, NULL, err)) return false;
    }
    return true;
}

bool container_check_layout(container *c, uint32_t first, bool no_holes, uint64_t start,
                            uint64_t end, dp_error *err) {
    const uint32_t n = c->n_tensors - first;
    if (n == 0 && !no_holes) return true;
    const char *path = file_path(c->files[c->n_files - 1]);
    span *spans = mem_new(n, sizeof(span), "the places of tensors", err);
    if (spans == NULL) return false;
    if (no_holes && n > 0) qsort(c->tensors + first, n, sizeof(tensor), compare_tensors);
    for (uint32_t i = 0; i < n; i++) {
        const tensor *t = &c->tensors[first + i];
        spans[i] = (span){ t->offset, t->n_bytes, first + i };
    }
    if (n > 0) qsort(spans, n, sizeof(span), compare_spans);
    uint64_t at = start;
    bool ok = true;
    for (uint32_t i = 0; ok && i < n; i++) {
        const tensor *t = &c->tensors[spans[i].index];
        if (i > 0 && spans[i].offset < at) {
            const tensor *before = &c->tensors[spans[i - 1].index];
            ok = err_set(err, DP_E_FORMAT,
                         "%s: tensors %.*s and %.*s overlap: the first ends at %" PRIu64
                         ", the second begins at %" PRIu64,
                         path, STR_ARG(before->name), STR_ARG(t->name), at, spans[i].offset);
        } else if (no_holes && spans[i].offset != at) {
            ok = err_set(err, DP_E_FORMAT,
                         "%s: %" PRIu64 " bytes before tensor %.*s belong to no tensor", path,
                         spans[i].offset - at, STR_ARG(t->name));
        } else {
            at = spans[i].offset + spans[i].n_bytes;
        }
    }
    if (ok && no_holes && at != end) {
        ok = err_set(err, DP_E_FORMAT,
                     "%s: %" PRIu64 " bytes at the end belong to no tensor (from %" PRIu64 ")",
                     path, end - at, at);
    }
    mem_free(spans);
    return ok && (!no_holes || number_names(c, err));
}

void container_drop_tensors(container *c) {
    mem_free(c->tensors);
    c->tensors = NULL;
    c->n_tensors = c->tensors_max = 0;
    c->bytes = 0;
    map_free(c->tensor_names);
    c->tensor_names = NULL; /* nothing is found, nothing can be added */
}

/* ---- opening ------------------------------------------------------------------------------- */

static char *copy_text(container *c, const char *text, size_t size, dp_error *err) {
    return arena_copy(&c->memory, text, size, err);
}

static bool folder_has(const container *c, const char *name) {
    char path[PATH_BYTES_MAX];
    return path_join(path, sizeof(path), c->folder, name, NULL) && path_is_file(path);
}

/* The only GGUF model in a folder, as a path in out[size]: a file, or the first of a split one. */
static bool find_gguf(const char *folder, char *out, size_t size, dp_error *err) {
    buf names;
    buf_init(&names, 1024 * 1024);
    uint32_t n = 0;
    const char *found = NULL;
    bool ok = folder_list(folder, ".gguf", &names, err);
    for (size_t i = 0; ok && i < names.size; i += strlen(names.data + i) + 1) {
        const char *name = names.data + i, *split = strstr(name, "-of-");
        const bool later = split != NULL && split - name >= 6 && split[-6] == '-' &&
                           memcmp(split - 5, "00001", 5) != 0;
        if (!later) found = name, n++;
    }
    if (ok && n == 0) {
        ok = err_set(err, DP_E_FILE,
                     "%s: holds neither config.json nor a .gguf file nor a pack's manifest.json",
                     folder);
    } else if (ok && n > 1) {
        ok = err_set(err, DP_E_FILE, "%s: holds %u GGUF models and no config.json: name one",
                     folder, n);
    }
    ok = ok && path_join(out, size, folder, found, err);
    buf_free(&names);
    return ok;
}

static bool open_folder(container *c, bool vocab_only, dp_error *err) {
    const size_t n = strlen(c->path);
    c->folder = copy_text(c, c->path, n, err);
    if (c->folder == NULL) return false;
    const bool has_safetensors =
        folder_has(c, "model.safetensors") || folder_has(c, "model.safetensors.index.json");
    if (folder_has(c, "manifest.json") && !has_safetensors) {
        c->kind = CONTAINER_RDRR;
        return rdrr_open(c, vocab_only, err);
    }
    const bool has_config = folder_has(c, "config.json");
    if (has_config ||
        (vocab_only && (folder_has(c, "tokenizer.json") || folder_has(c, "tokenizer.model")))) {
        c->kind = CONTAINER_SAFETENSORS;
        return safetensors_open_folder(c, vocab_only, err);
    }
    if (has_safetensors) {
        return err_set(err, DP_E_FILE, "%s: has weights but no config.json", c->path);
    }
    char path[PATH_BYTES_MAX];
    if (!find_gguf(c->folder, path, sizeof(path), err)) return false;
    c->folder = NULL;
    c->kind = CONTAINER_GGUF;
    return gguf_open(c, path, vocab_only, err);
}

/* The folder of c->path, a file's. */
static bool set_folder_of_path(container *c, dp_error *err) {
    const char *slash = strrchr(c->path, '/');
    const size_t n = slash == NULL ? 0 : (size_t)(slash - c->path) + (slash == c->path);
    c->folder = slash == NULL ? copy_text(c, ".", 1, err) : copy_text(c, c->path, n, err);
    return c->folder != NULL;
}

/* A pack's manifest by its name, others by the first bytes: GGUF has its magic, safetensors a
 * length and then a JSON object. */
static bool open_file(container *c, bool vocab_only, dp_error *err) {
    char head[9] = { 0 };
    const char *slash = strrchr(c->path, '/');
    if (strcmp(slash == NULL ? c->path : slash + 1, "manifest.json") == 0) {
        c->kind = CONTAINER_RDRR;
        return set_folder_of_path(c, err) && rdrr_open(c, vocab_only, err);
    }
    file *f = file_open(c->path, err);
    if (f == NULL) return false;
    const uint64_t size = file_size(f);
    const bool ok = file_read(f, 0, head, size < sizeof(head) ? (size_t)size : sizeof(head), err);
    file_close(f);
    if (!ok) return false;
    if (memcmp(head, "GGUF", 4) == 0) {
        c->kind = CONTAINER_GGUF;
        return gguf_open(c, c->path, vocab_only, err);
    }
    if (size == 0) return err_set(err, DP_E_FORMAT, "%s: is empty", c->path);
    if (head[8] != '{') {
        return err_set(err, DP_E_FORMAT, "%s: is neither GGUF nor safetensors", c->path);
    }
    c->kind = CONTAINER_SAFETENSORS;
    if (!set_folder_of_path(c, err)) return false;
    if (!safetensors_open_file(c, c->path, err)) return false;
    if (!vocab_only && !folder_has(c, "config.json")) {
        return err_set(err, DP_E_FILE, "%s: there is no config.json beside it", c->path);
    }
    return true;
}

container *container_open(const char *path, bool vocab_only, dp_error *err) {
    container *c = mem_new(1, sizeof(container), "a model file", err);
    if (c == NULL) return NULL;
    c->path = copy_text(c, path, strlen(path), err);
    c->tensor_names = map_new(256, err);
    bool ok = c->path != NULL && c->tensor_names != NULL;
    if (ok) {
        ok = path_is_folder(path) ? open_folder(c, vocab_only, err) : open_file(c, vocab_only, err);
    }
    if (ok && c->n_tensors == 0 && !vocab_only) {
        ok = err_set(err, DP_E_FORMAT, "%s: holds no tensors", path);
    }
    if (ok) return c;
    container_close(c);
    return NULL;
}

void container_close(container *c) {
    if (c == NULL) return;
    rdrr_close(c);
    for (uint32_t i = 0; i < c->n_files; i++) file_close(c->files[i]);
    for (uint32_t i = 0; i < c->n_json_files; i++) json_close(c->json_files[i].doc);
    mem_free(c->json_files);
    mem_free(c->tensors);
    mem_free(c->header);
    map_free(c->tensor_names);
    map_free(c->meta_keys);
    arena_free(&c->memory);
    arena_free(&c->meta_memory);
    mem_free(c);
}

/* ---- answers ------------------------------------------------------------------------------- */

container_kind container_kind_of(const container *c) {
    return c->kind;
}

const char *container_kind_name(container_kind kind) {
    static const char *const names[] = { [CONTAINER_GGUF] = "gguf",
                                         [CONTAINER_SAFETENSORS] = "safetensors",
                                         [CONTAINER_RDRR] = "rdrr" };
    return names[kind];
}

const char *container_path(const container *c) {
    return c->path;
}

uint64_t container_bytes(const container *c) {
    return c->bytes;
}

uint32_t container_n_files(const container *c) {
    return c->pack != NULL ? c->pack->listing.n_shards : c->n_files;
}

uint32_t container_n_tensors(const container *c) {
    return c->n_tensors;
}

const tensor *container_tensor(const container *c, uint32_t i) {
    return i < c->n_tensors ? &c->tensors[i] : NULL;
}

const tensor *container_find(const container *c, const char *name) {
    uint32_t i;
    if (c->tensor_names == NULL || !map_get(c->tensor_names, str_of(name), &i)) return NULL;
    return &c->tensors[i];
}

/* The span that holds byte `offset`. */
static uint32_t span_of(const tensor *t, uint64_t offset) {
    uint32_t low = 0, high = t->n_spans;
    while (high - low > 1) {
        const uint32_t middle = low + (high - low) / 2;
        if (t->spans[middle].start <= offset) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

static bool read_spans(container *c, const tensor *t, uint64_t offset, void *out, size_t n,
                       dp_error *err) {
    char *to = out;
    for (uint32_t i = n > 0 ? span_of(t, offset) : 0; n > 0; i++) {
        const tensor_span *s = &t->spans[i];
        const uint64_t from = offset - s->start;
        const size_t take = (size_t)min_u64(n, s->n_bytes - from);
        if (!pack_read(c, s->file, s->offset + from, to, take, err)) return false;
        to += take;
        offset += take;
        n -= take;
    }
    return true;
}

bool container_read(container *c, const tensor *t, uint64_t offset, void *out, size_t n,
                    dp_error *err) {
    if (offset > t->n_bytes || n > t->n_bytes - offset) {
        return err_set(err, DP_E_ARGUMENT, "tensor %.*s: %zu bytes at %" PRIu64 " of its %" PRIu64,
                       STR_ARG(t->name), n, offset, t->n_bytes);
    }
    bool ok = true;
    if (c->pack == NULL) {
        ok = file_read(c->files[t->file], t->offset + offset, out, n, err);
    } else if (t->n_spans == 0) {
        ok = pack_read(c, t->file, t->offset + offset, out, n, err);
    } else {
        ok = read_spans(c, t, offset, out, n, err);
    }
    return ok || err_prefix(err, "tensor %.*s: ", STR_ARG(t->name));
}

void container_read_ahead(const container *c, const tensor *t, uint64_t offset, uint64_t n) {
    if (c->pack != NULL || offset > t->n_bytes) return;
    file_read_ahead(c->files[t->file], t->offset + offset, min_u64(n, t->n_bytes - offset));
}

uint32_t container_n_meta(const container *c) {
    return c->n_meta;
}

const meta_value *container_meta_at(const container *c, uint32_t i, str *key) {
    if (i >= c->n_meta) return NULL;
    *key = c->meta[i].key;
    return &c->meta[i].value;
}

const meta_value *container_meta(const container *c, const char *key) {
    uint32_t i;
    if (c->meta_keys == NULL || !map_get(c->meta_keys, str_of(key), &i)) return NULL;
    return &c->meta[i].value;
}

/* A file of the folder; false with err->status DP_OK if there is none. Initialises `out` if true.
 */
static bool read_text_file(const container *c, const char *name, size_t ceiling, buf *out,
                           dp_error *err) {
    if (c->pack != NULL) return pack_read_text(c, name, ceiling, out, err);
    char path[PATH_BYTES_MAX];
    return path_join(path, sizeof(path), c->folder, name, err) && path_is_file(path) &&
           file_read_all(path, ceiling, out, err);
}

const json_value *container_manifest(const container *c) {
    return c->pack == NULL ? NULL : json_root(c->pack->manifest);
}

str container_draft_model(const container *c) {
    str name = { NULL, 0 };
    json_string(json_get(container_manifest(c), "draftModel"), &name);
    return name;
}

static const json_value *config_of_manifest(const container *c) {
    const json_value *config = json_get(container_manifest(c), "config");
    return json_is_string(json_get(config, "model_type")) ? config : NULL;
}

const json_value *container_json(container *c, const char *name, dp_error *err) {
    if (c->folder == NULL) return NULL;
    if (c->pack != NULL && strcmp(name, "manifest.json") == 0) return container_manifest(c);
    if (c->pack != NULL && strcmp(name, "config.json") == 0) return config_of_manifest(c);
    for (uint32_t i = 0; i < c->n_json_files; i++) {
        if (strcmp(c->json_files[i].name, name) == 0) return json_root(c->json_files[i].doc);
    }
    char path[PATH_BYTES_MAX];
    buf text;
    if (!path_join(path, sizeof(path), c->folder, name, err)) return NULL;
    if (!read_text_file(c, name, JSON_BYTES_MAX, &text, err)) return NULL;
    json *doc = json_open((str){ text.data, text.size }, path, err);
    buf_free(&text);
    if (doc == NULL) return NULL;
    json_file *files =
        mem_resize(c->json_files, c->n_json_files + 1u, sizeof(json_file), "a JSON file", err);
    char *copy = files == NULL ? NULL : copy_text(c, name, strlen(name), err);
    if (files != NULL) c->json_files = files;
    if (copy == NULL) {
        json_close(doc);
        return NULL;
    }
    c->json_files[c->n_json_files++] = (json_file){ .name = copy, .doc = doc };
    return json_root(doc);
}

bool container_text(const container *c, const char *name, buf *out, dp_error *err) {
    buf text;
    if (c->folder == NULL || !read_text_file(c, name, out->ceiling, &text, err)) return false;
    buf_add(out, text.data, text.size);
    buf_free(&text);
    return buf_ok(out, name, err);
}
