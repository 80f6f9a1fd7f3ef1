/* gguf: GGUF versions 2 and 3, little-endian, one file or split over several (ggml, docs/gguf.md).
 *
 *     "GGUF", u32 version, u64 n_tensors, u64 n_kv,
 *     n_kv times      { string key, u32 type, value },
 *     n_tensors times { string name, u32 n_dims, u64 ne[n_dims], u32 type, u64 offset },
 *     padding to the alignment, tensor data; string = u64 length and bytes.
 *
 * Everything in front of the data is read into one block of memory, and strings are views into it.
 * How long it is cannot be known beforehand: the reader begins with a small block and, when it runs
 * off its end, starts again with a larger one. All reads go through a cursor whose first failure
 * sticks; what a count announces is compared with the bytes that are left before anything is
 * allocated for it. */
#include "format/format_internal.h"

#include <inttypes.h>
#include <stdio.h>

enum { FIRST_READ = 256 * 1024, READ_GROWTH = 4, PARTS_MAX = 99999 };

static const struct {
    meta_type type;
    uint32_t bytes; /* least bytes that a value takes in the file */
} value_types[GGUF_TYPES] = {
    [GGUF_U8] = { META_UINT, 1 },      [GGUF_I8] = { META_INT, 1 },
    [GGUF_U16] = { META_UINT, 2 },     [GGUF_I16] = { META_INT, 2 },
    [GGUF_U32] = { META_UINT, 4 },     [GGUF_I32] = { META_INT, 4 },
    [GGUF_U64] = { META_UINT, 8 },     [GGUF_I64] = { META_INT, 8 },
    [GGUF_F32] = { META_FLOAT, 4 },    [GGUF_F64] = { META_FLOAT, 8 },
    [GGUF_BOOL] = { META_BOOL, 1 },    [GGUF_STRING] = { META_STRING, 8 },
    [GGUF_ARRAY] = { META_ARRAY, 12 },
};

/* Tensor types that GGUF has and this version does not read. */
static const char *const other_types[DTYPE_GGUF_END] = {
    [9] = "Q8_1",   [16] = "IQ2_XXS", [17] = "IQ2_XS", [18] = "IQ3_XXS", [19] = "IQ1_S",
    [21] = "IQ3_S", [22] = "IQ2_S",   [29] = "IQ1_M",  [34] = "TQ1_0",   [35] = "TQ2_0",
    [40] = "NVFP4", [41] = "Q1_0",    [42] = "Q2_0",
};

/* ---- cursor -------------------------------------------------------------------------------- */

typedef struct {
    file *f;
    const char *block; /* the file's first `loaded` bytes */
    uint64_t loaded;
    uint64_t at;
    uint64_t wanted; /* if not 0: failed only because the block ends before this */
    bool failed;
    char thing[200]; /* what is being read, for messages */
    dp_error *err;
} cursor;

static bool refuse_header(cursor *c, dp_status status, const char *format, ...) PRINTF_LIKE(3, 4);

static bool refuse_header(cursor *c, dp_status status, const char *format, ...) {
    if (c->failed) return false;
    c->failed = true;
    char what[300];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    return err_set(c->err, status, "%s: %s: %s", file_path(c->f), c->thing, what);
}

/* Whether the next n bytes are there. */
static bool need(cursor *c, uint64_t n) {
    if (c->failed) return false;
    const uint64_t size = file_size(c->f);
    if (n > size - c->at) {
        return refuse_header(c, DP_E_FORMAT,
                             "%" PRIu64 " bytes at %" PRIu64
                             " reach past the end of the file at %" PRIu64,
                             n, c->at, size);
    }
    if (c->at + n > GGUF_HEADER_MAX) {
        return refuse_header(c, DP_E_LIMIT,
                             "%" PRIu64 " bytes at %" PRIu64
                             " pass the limit of %d bytes for metadata",
                             n, c->at, GGUF_HEADER_MAX);
    }
    if (c->at + n > c->loaded) {
        c->wanted = c->at + n;
        c->failed = true;
    }
    return !c->failed;
}

/* A little-endian number of n bytes; 0 after a failure. */
static uint64_t take(cursor *c, uint32_t n) {
    if (!need(c, n)) return 0;
    const unsigned char *p = (const unsigned char *)c->block + c->at;
    uint64_t value = 0;
    for (uint32_t i = n; i-- > 0;) value = value << 8 | p[i];
    c->at += n;
    return value;
}

static str take_string(cursor *c) {
    const uint64_t n = take(c, 8);
    if (!need(c, n)) return STR("");
    const str s = { c->block + c->at, (size_t)n };
    c->at += n;
    return s;
}

/* ---- metadata ------------------------------------------------------------------------------ */

/* What the bytes in front of the data say. */
typedef struct {
    char *block;
    meta_entry *meta;
    tensor *tensors; /* offsets from data_start; names are views into the block */
    uint32_t n_meta, n_tensors;
    uint64_t alignment, data_start;
    arena memory; /* of everything but the block */
} header;

static void free_header(header *h) {
    mem_free(h->block);
    arena_free(&h->memory);
}

static int64_t signed_of(uint64_t value, uint32_t n_bytes) {
    const uint64_t sign = (uint64_t)1 << (8 * n_bytes - 1);
    return (int64_t)((value ^ sign) - sign);
}

static double float_of(uint64_t bits, uint32_t n_bytes) {
    double wide;
    if (n_bytes == 8) {
        memcpy(&wide, &bits, 8);
        return wide;
    }
    float narrow;
    const uint32_t low = (uint32_t)bits;
    memcpy(&narrow, &low, 4);
    return (double)narrow;
}

static void take_scalar(cursor *c, uint64_t type, meta_value *v) {
    v->type = value_types[type].type;
    if (type == GGUF_STRING) {
        v->s = take_string(c);
        return;
    }
    const uint32_t n = value_types[type].bytes;
    const uint64_t raw = take(c, n);
    if (v->type == META_UINT) {
        v->u = raw;
    } else if (v->type == META_INT) {
        v->i = signed_of(raw, n);
    } else if (v->type == META_FLOAT) {
        v->f = float_of(raw, n);
    } else {
        if (raw > 1) refuse_header(c, DP_E_FORMAT, "truth value %" PRIu64 ", must be 0 or 1", raw);
        v->b = raw == 1;
    }
}

static void take_array(cursor *c, arena *memory, meta_value *v) {
    const uint64_t type = take(c, 4), n = take(c, 8);
    if (c->failed) return;
    if (type == GGUF_ARRAY) {
        refuse_header(c, DP_E_UNSUPPORTED, "an array of arrays");
        return;
    }
    if (type >= GGUF_TYPES) {
        refuse_header(c, DP_E_FORMAT, "array element type %" PRIu64 ", known are 0 to %d", type,
                      GGUF_TYPES - 1);
        return;
    }
    if (n > file_size(c->f) / value_types[type].bytes) {
        refuse_header(c, DP_E_FORMAT,
                      "array of %" PRIu64 " elements, the file has %" PRIu64 " bytes", n,
                      file_size(c->f));
        return;
    }
    if (n > META_ARRAY_MAX) {
        refuse_header(c, DP_E_LIMIT, "array of %" PRIu64 " elements, the limit is %d", n,
                      META_ARRAY_MAX);
        return;
    }
    if (!need(c, n * value_types[type].bytes)) return;
    v->type = META_ARRAY;
    v->element = value_types[type].type;
    v->n = (uint32_t)n;
    const size_t size = v->element == META_STRING ? sizeof(str) : 8;
    void *elements = arena_new(memory, v->n, size, "a metadata array", c->err);
    if (elements == NULL) {
        c->failed = true;
        return;
    }
    str *strings = elements;
    double *floats = elements;
    int64_t *ints = elements;
    for (uint32_t i = 0; i < v->n && !c->failed; i++) {
        meta_value e = { 0 };
        take_scalar(c, type, &e);
        if (e.type == META_STRING) {
            strings[i] = e.s;
        } else if (e.type == META_FLOAT) {
            floats[i] = e.f;
        } else if (e.type == META_BOOL) {
            ints[i] = e.b;
        } else if (e.type == META_INT) {
            ints[i] = e.i;
        } else {
            if (e.u > INT64_MAX) {
                refuse_header(c, DP_E_LIMIT,
                              "array element %u is %" PRIu64 ", the limit is %" PRId64, i, e.u,
                              INT64_MAX);
            }
            ints[i] = (int64_t)e.u;
        }
    }
    /* One of the three names of the same memory. */
    if (v->element == META_STRING) {
        v->strings = strings;
    } else if (v->element == META_FLOAT) {
        v->floats = floats;
    } else {
        v->ints = ints;
    }
}

static bool take_meta(cursor *c, arena *memory, meta_entry *entry) {
    entry->key = take_string(c);
    if (c->failed) return false;
    const size_t n = strlen(c->thing);
    snprintf(c->thing + n, sizeof(c->thing) - n, " (%.*s)", STR_ARG(entry->key));
    if (entry->key.size == 0 || entry->key.size > NAME_BYTES_MAX ||
        memchr(entry->key.data, '\0', entry->key.size) != NULL) {
        return refuse_header(c, DP_E_FORMAT,
                             "key of %zu bytes: must be 1 to %d bytes, none of them 0",
                             entry->key.size, NAME_BYTES_MAX);
    }
    const uint64_t type = take(c, 4);
    if (c->failed) return false;
    if (type == GGUF_ARRAY) {
        take_array(c, memory, &entry->value);
    } else if (type < GGUF_TYPES) {
        take_scalar(c, type, &entry->value);
    } else {
        refuse_header(c, DP_E_FORMAT, "value type %" PRIu64 ", known are 0 to %d", type,
                      GGUF_TYPES - 1);
    }
    return !c->failed;
}

/* ---- tensors ------------------------------------------------------------------------------- */

static bool take_tensor(cursor *c, uint64_t alignment, tensor *t) {
    t->name = take_string(c);
    if (c->failed) return false;
    const size_t n = strlen(c->thing);
    snprintf(c->thing + n, sizeof(c->thing) - n, " (%.*s)", STR_ARG(t->name));
    if (t->name.size > GGUF_NAME_MAX) {
        return refuse_header(c, DP_E_FORMAT, "name of %zu bytes, the limit is %d", t->name.size,
                             GGUF_NAME_MAX);
    }
    const uint64_t n_dims = take(c, 4);
    if (c->failed) return false;
    if (n_dims < 1 || n_dims > TENSOR_DIMS) {
        return refuse_header(c, DP_E_FORMAT, "%" PRIu64 " dimensions, must be 1 to %d", n_dims,
                             TENSOR_DIMS);
    }
    t->n_dims = (uint32_t)n_dims;
    for (uint32_t i = 0; i < t->n_dims; i++) {
        const uint64_t ne = take(c, 8);
        if (!c->failed && ne == 0) return refuse_header(c, DP_E_FORMAT, "dimension %u is 0", i);
        t->shape[t->n_dims - 1 - i] = ne;
    }
    const uint64_t type = take(c, 4);
    t->offset = take(c, 8);
    if (c->failed) return false;
    if (type < DTYPE_GGUF_END && other_types[type] != NULL) {
        return refuse_header(c, DP_E_UNSUPPORTED, "type %s (number %" PRIu64 ") is not supported",
                             other_types[type], type);
    }
    if (type >= DTYPE_GGUF_END || dtype_get((uint32_t)type) == NULL) {
        return refuse_header(c, DP_E_FORMAT,
                             "type number %" PRIu64 " does not exist or was removed", type);
    }
    t->type = (dtype)type;
    if (t->offset % alignment != 0) {
        return refuse_header(c, DP_E_FORMAT,
                             "offset %" PRIu64 " is no multiple of the alignment %" PRIu64,
                             t->offset, alignment);
    }
    return true;
}

static const meta_value *find_meta(const header *h, const char *key) {
    for (uint32_t i = 0; i < h->n_meta; i++) {
        if (str_is(h->meta[i].key, key)) return &h->meta[i].value;
    }
    return NULL;
}

static bool read_alignment(cursor *c, header *h) {
    h->alignment = 32;
    const meta_value *v = find_meta(h, "general.alignment");
    if (v == NULL) return true;
    snprintf(c->thing, sizeof(c->thing), "general.alignment");
    if (v->type != META_UINT) return refuse_header(c, DP_E_FORMAT, "is no unsigned integer");
    if (v->u == 0 || v->u > GGUF_ALIGNMENT_MAX || (v->u & (v->u - 1)) != 0) {
        return refuse_header(c, DP_E_FORMAT, "is %" PRIu64 ", must be a power of two up to %d",
                             v->u, GGUF_ALIGNMENT_MAX);
    }
    h->alignment = v->u;
    return true;
}

/* ---- header -------------------------------------------------------------------------------- */

static bool take_version(cursor *c) {
    snprintf(c->thing, sizeof(c->thing), "version");
    if (!need(c, 8)) return false;
    if (memcmp(c->block, "GGUF", 4) != 0) return refuse_header(c, DP_E_FORMAT, "is no GGUF file");
    c->at = 4;
    const uint64_t version = take(c, 4);
    if ((version & 0xffff) == 0 && version != 0) {
        return refuse_header(c, DP_E_UNSUPPORTED,
                             "a big-endian file; only little-endian ones are read");
    }
    if (version != 2 && version != 3) {
        return refuse_header(c, DP_E_UNSUPPORTED, "%" PRIu64 " is not supported, 2 and 3 are",
                             version);
    }
    return true;
}

/* A count whose items take at least `least` bytes each. */
static uint32_t take_count(cursor *c, const char *what, uint32_t limit, uint32_t least) {
    snprintf(c->thing, sizeof(c->thing), "number of %s", what);
    const uint64_t n = take(c, 8);
    if (c->failed) return 0;
    if (n > (file_size(c->f) - c->at) / least) {
        refuse_header(c, DP_E_FORMAT,
                      "%" PRIu64 " need at least %u bytes each, the file has %" PRIu64 " left", n,
                      least, file_size(c->f) - c->at);
        return 0;
    }
    if (n > limit) {
        refuse_header(c, DP_E_LIMIT, "%" PRIu64 ", the limit is %u", n, limit);
        return 0;
    }
    return (uint32_t)n;
}

static bool parse_header(cursor *c, header *h) {
    if (!take_version(c)) return false;
    h->n_tensors = take_count(c, "tensors", TENSORS_MAX, 8 + 1 + 4 + 8 + 4 + 8);
    h->n_meta = take_count(c, "metadata entries", META_MAX, 8 + 1 + 4 + 1);
    /* The bytes must be there too, so that a lying count costs no more than the file has. */
    snprintf(c->thing, sizeof(c->thing), "%u tensors and %u metadata entries", h->n_tensors,
             h->n_meta);
    if (!need(c, (uint64_t)h->n_tensors * 33 + (uint64_t)h->n_meta * 14)) return false;
    h->meta = arena_new(&h->memory, h->n_meta, sizeof(meta_entry), "metadata", c->err);
    h->tensors = arena_new(&h->memory, h->n_tensors, sizeof(tensor), "tensors", c->err);
    if (h->meta == NULL || h->tensors == NULL) return false;
    for (uint32_t i = 0; i < h->n_meta; i++) {
        snprintf(c->thing, sizeof(c->thing), "metadata %u of %u", i + 1, h->n_meta);
        if (!take_meta(c, &h->memory, &h->meta[i])) return false;
    }
    if (!read_alignment(c, h)) return false;
    for (uint32_t i = 0; i < h->n_tensors; i++) {
        snprintf(c->thing, sizeof(c->thing), "tensor %u of %u", i + 1, h->n_tensors);
        if (!take_tensor(c, h->alignment, &h->tensors[i])) return false;
    }
    h->data_start = align_up(c->at, h->alignment);
    return true;
}

/* Fills *h from the file; the caller frees it, also after a failure. */
static bool read_header(file *f, header *h, dp_error *err) {
    uint64_t loaded = 0, want = min_u64(file_size(f), FIRST_READ);
    for (;;) {
        char *block = mem_resize(h->block, (size_t)want, 1, "the header of a GGUF file", err);
        if (block == NULL) return false;
        h->block = block;
        if (!file_read(f, loaded, block + loaded, (size_t)(want - loaded), err)) return false;
        loaded = want;
        cursor c = { .f = f, .block = block, .loaded = loaded, .err = err };
        if (parse_header(&c, h)) return true;
        if (c.wanted == 0) return false;
        arena_free(&h->memory);
        want = min_u64(max_u64(loaded * READ_GROWTH, c.wanted), GGUF_HEADER_MAX);
        want = min_u64(want, file_size(f));
    }
}

/* ---- files --------------------------------------------------------------------------------- */

/* Opens one file: its tensors go to the container, the rest to *h. */
static bool read_gguf_part(container *c, const char *path, header *h, dp_error *err) {
    uint32_t index;
    const uint32_t first = c->n_tensors;
    file *f = container_add_file(c, path, &index, err);
    if (f == NULL || !read_header(f, h, err)) return false;
    for (uint32_t i = 0; i < h->n_tensors; i++) {
        tensor t = h->tensors[i];
        t.file = index;
        if (!add_u64(t.offset, h->data_start, &t.offset)) {
            return err_set(err, DP_E_FORMAT,
                           "%s: tensor %.*s: offset %" PRIu64 " is beyond 64 bits", path,
                           STR_ARG(t.name), h->tensors[i].offset);
        }
        if (!container_add_tensor(c, &t, err)) return false;
    }
    return container_check_layout(c, first, false, 0, 0, err);
}

/* split.no, split.count or split.tensors.count, which writers store with different types. */
static bool split_number(const header *h, const char *path, const char *key, uint64_t absent,
                         uint64_t *out, dp_error *err) {
    const meta_value *v = find_meta(h, key);
    *out = absent;
    if (v == NULL) return true;
    if (v->type == META_UINT) {
        *out = v->u;
    } else if (v->type == META_INT && v->i >= 0) {
        *out = (uint64_t)v->i;
    } else {
        return err_set(err, DP_E_FORMAT, "%s: %s is no count", path, key);
    }
    return true;
}

/* The name of part i (from 1) of n, if `path` is that of part 1: NAME-00001-of-0000N.gguf. */
static bool part_path(const char *path, uint64_t i, uint64_t n, char *out, size_t size,
                      dp_error *err) {
    char tail[64];
    snprintf(tail, sizeof(tail), "-00001-of-%05" PRIu64 ".gguf", n);
    if (!str_ends(str_of(path), tail)) {
        return err_set(err, DP_E_FORMAT,
                       "%s: is the first of %" PRIu64
                       " files, its name must end in %s so that the others are found",
                       path, n, tail);
    }
    const size_t stem = strlen(path) - strlen(tail);
    const int length =
        snprintf(out, size, "%.*s-%05" PRIu64 "-of-%05" PRIu64 ".gguf", (int)stem, path, i, n);
    if (length >= 0 && (size_t)length < size) return true;
    return err_set(err, DP_E_LIMIT, "%s: path is longer than %zu bytes", path, size - 1);
}

static bool read_later_part(container *c, const char *path, uint64_t i, uint64_t n, dp_error *err) {
    header h = { 0 };
    uint64_t number = 0, count = 0;
    bool ok = read_gguf_part(c, path, &h, err) &&
              split_number(&h, path, "split.no", n, &number, err) &&
              split_number(&h, path, "split.count", 0, &count, err);
    if (ok && (number != i - 1 || count != n)) {
        ok = err_set(err, DP_E_FORMAT,
                     "%s: says that it is part %" PRIu64 " of %" PRIu64 ", expected %" PRIu64
                     " of %" PRIu64,
                     path, number + 1, count, i, n);
    }
    free_header(&h);
    return ok;
}

/* The other files of a split model, whose first one has the header *h. */
static bool read_later_parts(container *c, const char *path, const header *h, bool vocab_only,
                             dp_error *err) {
    uint64_t number, n, n_tensors;
    if (!split_number(h, path, "split.no", 0, &number, err) ||
        !split_number(h, path, "split.count", 1, &n, err) ||
        !split_number(h, path, "split.tensors.count", UINT64_MAX, &n_tensors, err)) {
        return false;
    }
    if (n <= 1) return true;
    if (n > FILES_MAX) {
        return err_set(err, DP_E_LIMIT, "%s: split.count is %" PRIu64 ", the limit is %d", path, n,
                       FILES_MAX);
    }
    if (number != 0) {
        return err_set(err, DP_E_ARGUMENT,
                       "%s: is part %" PRIu64 " of %" PRIu64
                       ": open the first one, -00001-of-%05" PRIu64 ".gguf",
                       path, number + 1, n, n);
    }
    for (uint64_t i = 2; i <= n; i++) {
        char part[PATH_BYTES_MAX];
        if (!part_path(path, i, n, part, sizeof(part), err)) return false;
        if (vocab_only && !path_is_file(part)) {
            container_drop_tensors(c);
            return true;
        }
        if (!read_later_part(c, part, i, n, err)) {
            return err_prefix(err, "part %" PRIu64 " of %" PRIu64 ": ", i, n);
        }
    }
    if (n_tensors != UINT64_MAX && n_tensors != c->n_tensors) {
        return err_set(err, DP_E_FORMAT,
                       "%s: split.tensors.count is %" PRIu64 ", the %" PRIu64 " files hold %u",
                       path, n_tensors, n, c->n_tensors);
    }
    return true;
}

/* Moves the metadata into the container. */
static bool keep_meta(container *c, const char *path, header *h, dp_error *err) {
    c->meta_keys = map_new(h->n_meta, err);
    if (c->meta_keys == NULL) return false;
    for (uint32_t i = 0; i < h->n_meta; i++) {
        bool added;
        if (!map_put(c->meta_keys, h->meta[i].key, i, &added, err)) return false;
        if (!added) {
            return err_set(err, DP_E_FORMAT, "%s: duplicate metadata key %.*s", path,
                           STR_ARG(h->meta[i].key));
        }
    }
    c->header = h->block;
    c->meta = h->meta;
    c->n_meta = h->n_meta;
    c->meta_memory = h->memory;
    *h = (header){ 0 };
    return true;
}

bool gguf_open(container *c, const char *path, bool vocab_only, dp_error *err) {
    header h = { 0 };
    const bool ok = read_gguf_part(c, path, &h, err) &&
                    read_later_parts(c, path, &h, vocab_only, err) && keep_meta(c, path, &h, err);
    free_header(&h);
    return ok;
}
