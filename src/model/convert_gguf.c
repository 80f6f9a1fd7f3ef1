/* convert_gguf: what stands in front of the tensors of a GGUF file, version 3.
 *
 * A source that is GGUF keeps its metadata but for what conversion changes; any other gets the keys
 * of its description and its tokenizer. Format: the GGUF specification (ggml, docs/gguf.md). */
#include "model/convert_internal.h"

enum { GGUF_QUANTIZATION_VERSION = 2 }; /* of the block formats' layout */

/* ---- values, little-endian ----------------------------------------------------------------- */

typedef struct {
    buf *out;
    uint64_t n_pairs;
} header_writer;

static void put_uint(buf *out, uint64_t value, size_t size) {
    unsigned char bytes[8];
    for (size_t i = 0; i < size; i++) {
        bytes[i] = (unsigned char)(value >> 8 * i);
    }
    buf_add(out, bytes, size);
}

static void put_chars(buf *out, str s) {
    put_uint(out, s.size, 8);
    buf_add_str(out, s);
}

static void put_f32(buf *out, float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    put_uint(out, bits, 4);
}

static buf *put_key(void *user, const char *key, uint32_t type) {
    header_writer *w = user;
    w->n_pairs++;
    put_chars(w->out, str_of(key));
    put_uint(w->out, type, 4);
    return w->out;
}

static buf *put_array(void *user, const char *key, uint32_t element, uint32_t n) {
    buf *out = put_key(user, key, GGUF_ARRAY);
    put_uint(out, element, 4);
    put_uint(out, n, 8);
    return out;
}

static void sink_u32(void *user, const char *key, uint32_t value) {
    put_uint(put_key(user, key, GGUF_U32), value, 4);
}

static void sink_i32(void *user, const char *key, int32_t value) {
    put_uint(put_key(user, key, GGUF_I32), (uint32_t)value, 4);
}

static void sink_f32(void *user, const char *key, float value) {
    put_f32(put_key(user, key, GGUF_F32), value);
}

static void sink_flag(void *user, const char *key, bool value) {
    put_uint(put_key(user, key, GGUF_BOOL), value, 1);
}

static void sink_string(void *user, const char *key, str value) {
    put_chars(put_key(user, key, GGUF_STRING), value);
}

static void sink_strings(void *user, const char *key, const str *values, uint32_t n) {
    buf *out = put_array(user, key, GGUF_STRING, n);
    for (uint32_t i = 0; i < n; i++) {
        put_chars(out, values[i]);
    }
}

static void sink_i32s(void *user, const char *key, const int32_t *values, uint32_t n) {
    buf *out = put_array(user, key, GGUF_I32, n);
    for (uint32_t i = 0; i < n; i++) {
        put_uint(out, (uint32_t)values[i], 4);
    }
}

static void sink_u32s(void *user, const char *key, const uint32_t *values, uint32_t n) {
    buf *out = put_array(user, key, GGUF_U32, n);
    for (uint32_t i = 0; i < n; i++) {
        put_uint(out, values[i], 4);
    }
}

static void sink_f32s(void *user, const char *key, const float *values, uint32_t n) {
    buf *out = put_array(user, key, GGUF_F32, n);
    for (uint32_t i = 0; i < n; i++) {
        put_f32(out, values[i]);
    }
}

static void sink_flags(void *user, const char *key, const bool *values, uint32_t n) {
    buf *out = put_array(user, key, GGUF_BOOL, n);
    for (uint32_t i = 0; i < n; i++) {
        put_uint(out, values[i], 1);
    }
}

static void sink_bytes(void *user, const char *key, const uint8_t *values, uint32_t n) {
    buf_add(put_array(user, key, GGUF_U8, n), values, n);
}

/* ---- metadata of a GGUF source ------------------------------------------------------------- */

static bool is_rewritten(str key) {
    static const char *const keys[] = { "general.file_type", "general.quantization_version",
                                        "general.alignment" };
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        if (str_is(key, keys[i])) {
            return true;
        }
    }
    return str_starts(key, "split.");
}

/* Widths are not kept in memory: whole numbers get 32 bits where they fit. */
static void put_value(header_writer *w, const char *key, const meta_value *v) {
    switch (v->type) {
    case META_UINT:
        if (v->u <= UINT32_MAX) {
            sink_u32(w, key, (uint32_t)v->u);
        } else {
            put_uint(put_key(w, key, GGUF_U64), v->u, 8);
        }
        break;
    case META_INT:
        if (v->i >= INT32_MIN && v->i <= INT32_MAX) {
            sink_i32(w, key, (int32_t)v->i);
        } else {
            put_uint(put_key(w, key, GGUF_I64), (uint64_t)v->i, 8);
        }
        break;
    case META_FLOAT: {
        const float single = (float)v->f;
        if ((double)single == v->f) {
            sink_f32(w, key, single);
        } else {
            uint64_t bits;
            memcpy(&bits, &v->f, sizeof bits);
            put_uint(put_key(w, key, GGUF_F64), bits, 8);
        }
        break;
    }
    case META_BOOL:
        sink_flag(w, key, v->b);
        break;
    case META_STRING:
        sink_string(w, key, v->s);
        break;
    case META_ARRAY:
        break;
    }
}

static void put_integers(header_writer *w, const char *key, const meta_value *v) {
    const bool is_bytes = strcmp(key, "tokenizer.ggml.precompiled_charsmap") == 0;
    bool narrow = true;
    for (uint32_t i = 0; i < v->n && narrow; i++) {
        narrow = v->ints[i] >= INT32_MIN &&
                 v->ints[i] <= (v->element == META_UINT ? (int64_t)UINT32_MAX : INT32_MAX);
    }
    const uint32_t type = is_bytes                  ? GGUF_U8
                          : v->element == META_BOOL ? GGUF_BOOL
                          : v->element == META_UINT ? (narrow ? GGUF_U32 : GGUF_U64)
                          : narrow                  ? GGUF_I32
                                                    : GGUF_I64;
    const size_t size = type == GGUF_U8 || type == GGUF_BOOL ? 1 : narrow ? 4 : 8;
    buf *out = put_array(w, key, type, v->n);
    for (uint32_t i = 0; i < v->n; i++) {
        put_uint(out, (uint64_t)v->ints[i], size);
    }
}

static void put_meta(header_writer *w, const char *key, const meta_value *v) {
    if (v->type != META_ARRAY) {
        put_value(w, key, v);
    } else if (v->element == META_STRING) {
        sink_strings(w, key, v->strings, v->n);
    } else if (v->element == META_FLOAT) {
        buf *out = put_array(w, key, GGUF_F32, v->n);
        for (uint32_t i = 0; i < v->n; i++) {
            put_f32(out, (float)v->floats[i]);
        }
    } else {
        put_integers(w, key, v);
    }
}

static bool copy_metadata(conversion *v, header_writer *w, dp_error *err) {
    for (uint32_t i = 0; i < container_n_meta(v->files); i++) {
        str key;
        const meta_value *value = container_meta_at(v->files, i, &key);
        if (is_rewritten(key)) {
            continue;
        }
        const char *name = arena_copy(&v->memory, key.data, key.size, err);
        if (name == NULL) {
            return false;
        }
        put_meta(w, name, value);
    }
    return true;
}

/* ---- the whole header ---------------------------------------------------------------------- */

/* The number that stands for the format of most bytes where no mixture was asked for. */
static uint32_t file_type_of(const conversion *v) {
    uint64_t bytes[DTYPE_COUNT] = { 0 };
    uint32_t best = DTYPE_F32;
    if (v->mixture != NULL) {
        return v->mixture->file_type;
    }
    for (uint32_t i = 0; i < v->n_tensors; i++) {
        bytes[v->tensors[i].type] += v->tensors[i].n_bytes;
        best = bytes[v->tensors[i].type] > bytes[best] ? v->tensors[i].type : best;
    }
    return mixture_of_type((dtype)best)->file_type;
}

static bool write_metadata(conversion *v, header_writer *w, dp_error *err) {
    const meta_sink sink = { .user = w,
                             .u32 = sink_u32,
                             .i32 = sink_i32,
                             .f32 = sink_f32,
                             .flag = sink_flag,
                             .string = sink_string,
                             .strings = sink_strings,
                             .i32s = sink_i32s,
                             .u32s = sink_u32s,
                             .f32s = sink_f32s,
                             .flags = sink_flags,
                             .bytes = sink_bytes };
    if (container_kind_of(v->files) == CONTAINER_GGUF) {
        if (!copy_metadata(v, w, err)) {
            return false;
        }
    } else {
        if (!config_write_gguf(&v->config, v->files, &sink, err)) {
            return false;
        }
        sink_string(w, "general.name", path_last(v->in));
        if (v->tokenizer != NULL &&
            !tokenizer_write_gguf(v->tokenizer, v->files, v->config.vocab_size, &sink, err)) {
            return false;
        }
        if (v->config.temperature > 0) {
            sink_f32(w, "general.sampling.temp", v->config.temperature);
        }
        if (v->config.top_p > 0) {
            sink_f32(w, "general.sampling.top_p", v->config.top_p);
        }
        if (v->config.top_k > 0) {
            sink_i32(w, "general.sampling.top_k", (int32_t)v->config.top_k);
        }
    }
    sink_u32(w, "general.file_type", file_type_of(v));
    sink_u32(w, "general.quantization_version", GGUF_QUANTIZATION_VERSION);
    return true;
}

bool gguf_write_header(conversion *v, buf *header, dp_error *err) {
    enum { N_PAIRS_AT = 16 };
    static const char zeros[64];
    header_writer w = { .out = header };
    buf_add(header, "GGUF", 4);
    put_uint(header, 3, 4);
    put_uint(header, v->n_tensors, 8);
    put_uint(header, 0, 8);
    if (!write_metadata(v, &w, err)) {
        return false;
    }
    for (uint32_t i = 0; i < v->n_tensors; i++) {
        const out_tensor *t = &v->tensors[i];
        if (t->name.size > 63) {
            return err_set(err, DP_E_UNSUPPORTED,
                           "tensor %.*s: a name of %zu bytes, GGUF allows 63", STR_ARG(t->name),
                           t->name.size);
        }
        put_chars(header, t->name);
        put_uint(header, t->n_dims, 4);
        for (uint32_t d = t->n_dims; d-- > 0;) {
            put_uint(header, t->shape[d], 8);
        }
        put_uint(header, (uint32_t)t->type, 4);
        put_uint(header, t->offset, 8);
    }
    v->data_start = align_up(header->size, v->alignment);
    buf_add(header, zeros, v->data_start - header->size);
    if (!buf_ok(header, "the header of a GGUF file", err)) {
        return false;
    }
    for (size_t i = 0; i < 8; i++) {
        header->data[N_PAIRS_AT + i] = (char)(w.n_pairs >> 8 * i);
    }
    return true;
}
