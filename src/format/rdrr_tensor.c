/* rdrr_tensor: one entry of a pack's tensor map, checked and turned into a tensor.
 *
 *     "name": { shape, dtype, shard, offset, size | spans | storage.shardSpans,
 *               layout?, originalShape?, storage?, sourceTransform?, role?, group? }
 *
 * Writers of different years leave out different fields, so what is absent is found where it can
 * be; what is there must agree: shape, layout and type give the number of bytes, and the entry's
 * own number must be that one. */
#include "format/format_internal.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

/* One entry being read. */
typedef struct {
    container *c;
    const char *path; /* of the file that has the entry */
    const json_value *v;
    const pack_defaults *d;
    tensor *t;
    bool w4a16, has_layout;
    dp_error *err;
} pack_entry;

static bool refuse_entry(const pack_entry *e, dp_status status, const char *format, ...)
    PRINTF_LIKE(3, 4);

static bool refuse_entry(const pack_entry *e, dp_status status, const char *format, ...) {
    char text[200];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return err_set(e->err, status, "%s: tensor %.*s: %s", e->path, STR_ARG(e->t->name), text);
}

static const json_value *field_or_null(const json_value *object, const char *key) {
    const json_value *v = json_get(object, key);
    return json_is_null(v) ? NULL : v;
}

/* ---- shape and type ------------------------------------------------------------------------ */

static bool read_dims(const pack_entry *e, const char *key, uint32_t *n_dims, uint64_t *shape) {
    const json_value *dims = field_or_null(e->v, key);
    if (!json_is_array(dims) || json_count(dims) > TENSOR_DIMS) {
        return refuse_entry(e, DP_E_FORMAT, "%s must be an array of at most %d counts", key,
                            TENSOR_DIMS);
    }
    uint32_t n = 0;
    for (json_iter it = json_each(dims); json_next(&it); n++) {
        if (!json_u64(it.value, &shape[n]) || shape[n] == 0) {
            return refuse_entry(e, DP_E_FORMAT, "%s[%u] is no count from 1", key, n);
        }
    }
    *n_dims = n;
    return true;
}

static bool read_dtype(pack_entry *e) {
    str name;
    if (!json_string(json_get(e->v, "dtype"), &name)) {
        return refuse_entry(e, DP_E_FORMAT, "has no dtype");
    }
    if (str_is(name, "W4A16")) {
        e->w4a16 = true;
        e->t->type = DTYPE_F16;
        return true;
    }
    if (str_is(name, "Q4_K_M")) name = STR("Q4_K");
    if (dtype_by_name(name, &e->t->type)) return true;
    return refuse_entry(e, DP_E_UNSUPPORTED, "dtype \"%.*s\" is not one that this program reads",
                        STR_ARG(name));
}

/* ---- place --------------------------------------------------------------------------------- */

static bool read_count(const json_value *v, const char *key, const char *alias, uint64_t *out) {
    return json_u64(json_get(v, key), out) || json_u64(json_get(v, alias), out);
}

/* shard, offset and n_bytes of a piece, into *s. */
static bool check_piece(const pack_entry *e, const char *what, uint64_t shard, uint64_t offset,
                        uint64_t n_bytes, tensor_span *s) {
    const pack_listing *l = &e->c->pack->listing;
    uint64_t end;
    if (shard >= l->n_shards) {
        return refuse_entry(e, DP_E_FORMAT, "%s: shard %" PRIu64 " of %u", what, shard,
                            l->n_shards);
    }
    if (n_bytes == 0 || !add_u64(offset, n_bytes, &end) || end > l->files[shard].size) {
        return refuse_entry(e, DP_E_FORMAT,
                            "%s: %" PRIu64 " bytes at %" PRIu64 " do not lie in shard %" PRIu64
                            " of %" PRIu64 " bytes",
                            what, n_bytes, offset, shard, l->files[shard].size);
    }
    s->file = (uint32_t)shard;
    s->offset = offset;
    s->n_bytes = n_bytes;
    return true;
}

/* spans: {shardIndex, offset, size}; shardSpans: {shardIndex, byteStart, byteEnd}. */
static bool read_span(const pack_entry *e, const json_value *v, const char *what, tensor_span *s) {
    uint64_t shard, start, n_bytes, end;
    if (!read_count(v, "shardIndex", "shard", &shard) ||
        !read_count(v, "offset", "byteStart", &start)) {
        return refuse_entry(e, DP_E_FORMAT, "%s: needs a shard's number and an offset", what);
    }
    if (json_u64(json_get(v, "byteEnd"), &end) && end >= start) {
        n_bytes = end - start;
    } else if (!json_u64(json_get(v, "size"), &n_bytes)) {
        return refuse_entry(e, DP_E_FORMAT, "%s: has no size", what);
    }
    return check_piece(e, what, shard, start, n_bytes, s);
}

static bool read_spans_of(pack_entry *e, const json_value *spans) {
    pack *p = e->c->pack;
    tensor *t = e->t;
    const size_t n = json_count(spans);
    if (!json_is_array(spans) || n == 0) {
        return refuse_entry(e, DP_E_FORMAT, "its spans are no array with entries");
    }
    p->n_spans += n;
    if (p->n_spans > SPANS_MAX) {
        return refuse_entry(e, DP_E_LIMIT, "more than %d spans in a pack", SPANS_MAX);
    }
    tensor_span *all = arena_new(&e->c->memory, n, sizeof(tensor_span), "spans", e->err);
    if (all == NULL) return false;
    uint32_t used = 0, i = 0;
    for (json_iter it = json_each(spans); json_next(&it); i++) {
        char what[32];
        tensor_span s = { 0 };
        snprintf(what, sizeof(what), "spans[%u]", i);
        if (!read_span(e, it.value, what, &s)) return false;
        tensor_span *last = used > 0 ? &all[used - 1] : NULL;
        s.start = t->n_bytes;
        if (!add_u64(t->n_bytes, s.n_bytes, &t->n_bytes)) {
            return refuse_entry(e, DP_E_FORMAT, "its spans have more bytes than 64 bits count");
        }
        if (last != NULL && last->file == s.file && last->offset + last->n_bytes == s.offset) {
            last->n_bytes += s.n_bytes; /* a streaming writer makes hundreds in one shard */
        } else {
            all[used++] = s;
        }
    }
    t->file = all[0].file;
    t->offset = all[0].offset;
    if (used > 1) {
        t->spans = all;
        t->n_spans = used;
    }
    return true;
}

static bool read_location(pack_entry *e) {
    tensor *t = e->t;
    const json_value *spans = field_or_null(json_get(e->v, "storage"), "shardSpans");
    uint64_t shard, offset, size;
    if (spans == NULL) spans = field_or_null(e->v, "spans");
    if (spans != NULL && !read_spans_of(e, spans)) return false;
    const bool has_size = json_u64(json_get(e->v, "size"), &size);
    if (spans == NULL) {
        tensor_span s = { 0 };
        if (!read_count(e->v, "shard", "shardIndex", &shard) ||
            !json_u64(json_get(e->v, "offset"), &offset) || !has_size) {
            return refuse_entry(e, DP_E_FORMAT, "needs shard, offset and size, or spans");
        }
        if (!check_piece(e, "place", shard, offset, size, &s)) return false;
        t->file = s.file;
        t->offset = s.offset;
        t->n_bytes = s.n_bytes;
        return true;
    }
    if (has_size && size != t->n_bytes) {
        return refuse_entry(e, DP_E_FORMAT, "size is %" PRIu64 ", its spans have %" PRIu64 " bytes",
                            size, t->n_bytes);
    }
    if (read_count(e->v, "shard", "shardIndex", &shard) &&
        json_u64(json_get(e->v, "offset"), &offset) && (shard != t->file || offset != t->offset)) {
        return refuse_entry(e, DP_E_FORMAT,
                            "shard %" PRIu64 " and offset %" PRIu64
                            " are not where its spans begin",
                            shard, offset);
    }
    return true;
}

/* ---- storage and packing ------------------------------------------------------------------- */

static tensor_packing *new_packing(pack_entry *e, packing_kind kind) {
    tensor_packing *p = arena_new(&e->c->memory, 1, sizeof(*p), "a packing", e->err);
    if (p == NULL) return NULL;
    p->kind = kind;
    e->t->packing = p;
    if (e->t->layout != LAYOUT_ROWS) {
        refuse_entry(e, DP_E_UNSUPPORTED, "packed values whose layout is not row");
        return NULL;
    }
    return p;
}

/* blockShape and blockBytes, where given, must be those of the type. */
static bool check_blocks(const pack_entry *e, const json_value *storage, uint64_t elements,
                         uint64_t bytes) {
    const json_value *shape = field_or_null(storage, "blockShape");
    const json_value *size = field_or_null(storage, "blockBytes");
    uint64_t product = 1, said = 0;
    bool fits = shape == NULL || json_is_array(shape);
    for (json_iter it = json_each(shape); json_next(&it);) {
        uint64_t n = 0;
        fits = fits && json_u64(it.value, &n) && mul_u64(product, n, &product);
    }
    if (!fits || (shape != NULL && product != elements)) {
        return refuse_entry(e, DP_E_FORMAT,
                            "storage.blockShape is not that of its blocks of %" PRIu64 " values",
                            elements);
    }
    if (size != NULL && (!json_u64(size, &said) || said != bytes)) {
        return refuse_entry(e, DP_E_FORMAT,
                            "storage.blockBytes is not the %" PRIu64 " bytes of its blocks", bytes);
    }
    return true;
}

static bool read_companions(const pack_entry *e, const json_value *storage, tensor_packing *p) {
    for (json_iter it = json_each(json_get(storage, "companions")); json_next(&it);) {
        str role, name;
        if (!json_string(json_get(it.value, "role"), &role) ||
            !json_string(json_get(it.value, "tensorId"), &name)) {
            return refuse_entry(e, DP_E_FORMAT, "storage.companions: needs role and tensorId");
        }
        if (str_is(role, "scales")) {
            p->scales_name = name;
        } else if (str_is(role, "shape")) {
            p->shape_name = name;
        } else {
            return refuse_entry(e, DP_E_UNSUPPORTED, "its companion of role \"%.*s\" is not known",
                                STR_ARG(role));
        }
    }
    return true;
}

static bool read_w4a16(pack_entry *e, const json_value *storage) {
    tensor_packing *p = new_packing(e, PACKING_W4A16);
    if (p == NULL) return false;
    p->bits = 4;
    p->zero = 8;
    if (!check_blocks(e, storage, 32, 16) || !read_companions(e, storage, p)) return false;
    if (p->scales_name.size > 0) return true;
    const str name = e->t->name;
    char *scales = arena_new(&e->c->memory, name.size + 7, 1, "a name", e->err);
    if (scales == NULL) return false;
    memcpy(scales, name.data, name.size);
    memcpy(scales + name.size, "_scale", sizeof("_scale"));
    p->scales_name = (str){ scales, name.size + 6 };
    return true;
}

static bool read_storage(pack_entry *e) {
    static const struct {
        const char *packing;
        dtype type;
    } fixed[] = { { "q4k", DTYPE_Q4_K }, { "q4_0", DTYPE_Q4_0 } };
    const json_value *storage = field_or_null(e->v, "storage");
    const dtype_info *info = dtype_get(e->t->type);
    str packing;
    if (storage != NULL && !json_is_object(storage)) {
        return refuse_entry(e, DP_E_FORMAT, "storage is no object");
    }
    if (storage == NULL || field_or_null(storage, "packing") == NULL) {
        return !e->w4a16 || read_w4a16(e, storage);
    }
    if (!json_string(json_get(storage, "packing"), &packing)) {
        return refuse_entry(e, DP_E_FORMAT, "storage.packing is no text");
    }
    bool agrees = true, known = true;
    if (str_is(packing, "w4a16")) {
        agrees = e->w4a16;
    } else if (str_is(packing, "dense")) {
        agrees = !e->w4a16 && info->block_elements == 1;
    } else if (str_is(packing, "gguf-block-v2")) {
        agrees = !e->w4a16 && e->t->type < DTYPE_GGUF_END && info->block_elements > 1;
    } else {
        known = false;
        for (size_t i = 0; i < ARRAY_LEN(fixed); i++) {
            if (!str_is(packing, fixed[i].packing)) continue;
            known = true;
            agrees = !e->w4a16 && e->t->type == fixed[i].type;
        }
    }
    if (!known) {
        return refuse_entry(e, DP_E_UNSUPPORTED, "storage.packing \"%.*s\" is not known",
                            STR_ARG(packing));
    }
    if (!agrees) {
        return refuse_entry(e, DP_E_FORMAT, "storage.packing \"%.*s\" is none of its dtype %s",
                            STR_ARG(packing), e->w4a16 ? "W4A16" : info->name);
    }
    if (e->w4a16) return read_w4a16(e, storage);
    if (info->block_elements == 1) return true;
    return check_blocks(e, storage, info->block_elements, info->block_bytes);
}

/* ---- sourceTransform ----------------------------------------------------------------------- */

static bool text_is(const json_value *v, const char *key, const char *value) {
    str text;
    return json_string(json_get(v, key), &text) && str_is(text, value);
}

static bool read_codes_of(const pack_entry *e, const json_value *f, tensor_packing *p) {
    static const struct {
        const char *name;
        uint32_t bits;
        bool is_signed;
    } kinds[] = {
        { "INT8", 8, true }, { "UINT8", 8, false }, { "INT4", 4, true }, { "INT2", 2, true }
    };
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        if (!text_is(f, "sourceDtype", kinds[i].name)) continue;
        p->bits = kinds[i].bits;
        p->is_signed = kinds[i].is_signed;
        return true;
    }
    return refuse_entry(e, DP_E_UNSUPPORTED,
                        "sourceTransform.sourceDtype is none of INT8, UINT8, INT4, INT2");
}

static bool read_positive(const pack_entry *e, const json_value *f, const char *key, double *out) {
    if (json_f64(json_get(f, key), out) && isfinite(*out) && *out > 0) return true;
    return refuse_entry(e, DP_E_FORMAT, "sourceTransform.%s is no number above 0", key);
}

/* storageEncoding and scaleSemantics of the kinds with a scale for each row. */
static bool read_scale_rule(const pack_entry *e, const json_value *f, tensor_packing *p) {
    if (text_is(f, "storageEncoding", "offset_binary")) {
        p->is_signed = false;
        p->zero = (int64_t)1 << (p->bits - 1);
    } else if (!text_is(f, "storageEncoding", "signed")) {
        return refuse_entry(e, DP_E_UNSUPPORTED,
                            "sourceTransform.storageEncoding is neither signed nor offset_binary");
    }
    p->scale = 1;
    if (text_is(f, "scaleSemantics", "step")) return true;
    if (!text_is(f, "scaleSemantics", "qmax_abs")) {
        return refuse_entry(e, DP_E_UNSUPPORTED,
                            "sourceTransform.scaleSemantics is neither step nor qmax_abs");
    }
    double divisor;
    if (!read_positive(e, f, "scaleDivisor", &divisor)) return false;
    p->scale = 1 / divisor;
    return true;
}

static bool read_row_scale_place(const pack_entry *e, const json_value *f, uint64_t rows,
                                 tensor_packing *p) {
    const json_value *source = json_get(f, "scaleSource");
    uint64_t want;
    if (!json_is_object(source)) {
        return refuse_entry(e, DP_E_FORMAT, "sourceTransform.scaleSource is missing");
    }
    if (!read_span(e, source, "sourceTransform.scaleSource", &p->row_scales)) return false;
    if (mul_u64(rows, 4, &want) && p->row_scales.n_bytes == want) return true;
    return refuse_entry(e, DP_E_FORMAT,
                        "sourceTransform.scaleSource has %" PRIu64
                        " bytes, a scale for each of %" PRIu64 " rows has 4",
                        p->row_scales.n_bytes, rows);
}

static bool read_affine(pack_entry *e, const json_value *f) {
    tensor_packing *p = new_packing(e, PACKING_WHOLE);
    const json_value *encoding = field_or_null(f, "storageEncoding");
    if (p == NULL || !read_codes_of(e, f, p)) return false;
    if (encoding != NULL && !text_is(f, "storageEncoding", "signed")) {
        return refuse_entry(e, DP_E_UNSUPPORTED,
                            "sourceTransform.storageEncoding of an affine_dequant is not signed");
    }
    if (!json_i64(json_get(f, "zeroPoint"), &p->zero) || p->zero < -((int64_t)1 << 53) ||
        p->zero > (int64_t)1 << 53) {
        return refuse_entry(e, DP_E_FORMAT, "sourceTransform.zeroPoint is no whole number");
    }
    return read_positive(e, f, "scale", &p->scale);
}

static bool read_axis(pack_entry *e, const json_value *f, uint64_t rows, uint64_t cols) {
    const json_value *shape = json_get(f, "storageShape");
    uint64_t axis, stored[2];
    if (!json_u64(json_get(f, "quantAxis"), &axis) || axis > 1) {
        return refuse_entry(e, DP_E_FORMAT, "sourceTransform.quantAxis is neither 0 nor 1");
    }
    const uint64_t want[2] = { axis == 0 ? cols : rows, axis == 0 ? rows : cols };
    if (json_count(shape) != 2 || !json_u64(json_at(shape, 0), &stored[0]) ||
        !json_u64(json_at(shape, 1), &stored[1]) || stored[0] != want[0] || stored[1] != want[1]) {
        return refuse_entry(e, DP_E_FORMAT,
                            "sourceTransform.storageShape must be [%" PRIu64 ", %" PRIu64
                            "] for axis %" PRIu64,
                            want[0], want[1], axis);
    }
    if (axis == 0) e->t->layout = LAYOUT_COLUMNS;
    return true;
}

static bool read_transform(pack_entry *e) {
    const json_value *f = field_or_null(e->v, "sourceTransform");
    /* What may be added to these kinds, and is not written down anywhere. */
    static const char *const unknown[] = { "rowSumSource", "sumSource", "scaleCompanionDtype",
                                           "scaleCompanionDequant" };
    if (f == NULL) return true;
    tensor *t = e->t;
    str kind = { NULL, 0 };
    json_string(json_get(f, "kind"), &kind);
    if (e->w4a16 || t->type != DTYPE_F16 || !text_is(f, "targetDtype", "F16")) {
        return refuse_entry(e, DP_E_UNSUPPORTED,
                            "sourceTransform: dtype and targetDtype must both be F16");
    }
    for (size_t i = 0; i < ARRAY_LEN(unknown); i++) {
        if (field_or_null(f, unknown[i]) == NULL) continue;
        return refuse_entry(e, DP_E_UNSUPPORTED, "sourceTransform.%s is not known", unknown[i]);
    }
    const bool affine = str_is(kind, "affine_dequant"), axis = str_is(kind, "litert_axis_dequant");
    const bool row = str_is(kind, "litert_rowwise_dequant");
    const char *scheme = affine ? "per_tensor_affine" : axis ? "per_axis_affine" : "per_row_affine";
    if (!affine && !axis && !row) {
        return refuse_entry(e, DP_E_UNSUPPORTED, "sourceTransform.kind \"%.*s\" is not known",
                            STR_ARG(kind));
    }
    if (field_or_null(f, "scheme") != NULL && !text_is(f, "scheme", scheme)) {
        return refuse_entry(e, DP_E_UNSUPPORTED, "sourceTransform.scheme is not %s", scheme);
    }
    if (affine) return read_affine(e, f);
    if (t->n_dims != 2) {
        return refuse_entry(e, DP_E_FORMAT, "sourceTransform %.*s of %u dimensions, not 2",
                            STR_ARG(kind), t->n_dims);
    }
    tensor_packing *p = new_packing(e, PACKING_ROWS);
    return p != NULL && read_codes_of(e, f, p) && read_scale_rule(e, f, p) &&
           read_row_scale_place(e, f, t->shape[0], p) &&
           (!axis || read_axis(e, f, t->shape[0], t->shape[1]));
}

/* ---- layout and size ----------------------------------------------------------------------- */

bool layout_by_name(str name, tensor_layout *out) {
    static const struct {
        const char *name;
        tensor_layout layout;
    } names[] = { { "row", LAYOUT_ROWS },          { "row_wise", LAYOUT_ROWS },
                  { "rowwise", LAYOUT_ROWS },      { "col", LAYOUT_COLUMNS },
                  { "column", LAYOUT_COLUMNS },    { "column_wise", LAYOUT_COLUMNS },
                  { "colwise", LAYOUT_COLUMNS },   { "flat", LAYOUT_FLAT },
                  { "row-wise", LAYOUT_ROWS },     { "column-wise", LAYOUT_COLUMNS },
                  { "columnwise", LAYOUT_COLUMNS } };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (!str_is(name, names[i].name)) continue;
        *out = names[i].layout;
        return true;
    }
    return false;
}

static bool read_pack_layout(pack_entry *e) {
    const json_value *v = field_or_null(e->v, "layout");
    str name = { NULL, 0 };
    if (v == NULL) return true;
    json_string(v, &name);
    if (!layout_by_name(name, &e->t->layout)) {
        return refuse_entry(e, DP_E_UNSUPPORTED, "layout \"%.*s\" is none of row, column, flat",
                            STR_ARG(name));
    }
    e->has_layout = true;
    return true;
}

/* n_lines lines of n elements, each filled up to whole blocks. UINT64_MAX: too many bytes. */
static uint64_t bytes_of_lines(dtype type, uint64_t n_lines, uint64_t n) {
    uint64_t line, bytes;
    if (dtype_padded_row_bytes(type, n, &line) && mul_u64(n_lines, line, &bytes)) return bytes;
    return UINT64_MAX;
}

static uint64_t bytes_in_layout(const tensor *t, tensor_layout layout) {
    const uint64_t cols = t->n_dims > 0 ? t->shape[t->n_dims - 1] : 1;
    if (layout == LAYOUT_FLAT) return bytes_of_lines(t->type, 1, t->n_elements);
    if (layout == LAYOUT_ROWS) return bytes_of_lines(t->type, t->n_elements / cols, cols);
    const uint64_t rows = t->shape[t->n_dims - 2];
    return bytes_of_lines(t->type, t->n_elements / rows, rows);
}

static uint64_t bytes_packed(const tensor *t) {
    const tensor_packing *p = t->packing;
    const uint64_t cols = t->n_dims > 0 ? t->shape[t->n_dims - 1] : 1;
    const uint64_t rows = t->n_elements / cols;
    const bool columns = t->layout == LAYOUT_COLUMNS;
    const uint64_t lines = p->kind == PACKING_WHOLE ? 1 : columns ? cols : rows;
    const uint64_t n = p->kind == PACKING_WHOLE ? t->n_elements : columns ? rows : cols;
    const uint64_t per_unit = p->kind == PACKING_W4A16 ? 32 : 8 / p->bits;
    const uint64_t unit = p->kind == PACKING_W4A16 ? 16 : 1;
    uint64_t line, bytes;
    if (!mul_u64(n / per_unit + (n % per_unit != 0), unit, &line)) return UINT64_MAX;
    return mul_u64(lines, line, &bytes) ? bytes : UINT64_MAX;
}

static bool refuse_size(const pack_entry *e, const char *as, uint64_t want) {
    const tensor *t = e->t;
    char shape[SHAPE_TEXT_BYTES];
    return refuse_entry(e, DP_E_FORMAT, "%" PRIu64 " bytes; shape %s of %s, %s, has %" PRIu64,
                        t->n_bytes, shape_text(t->n_dims, t->shape, shape),
                        e->w4a16 ? "W4A16" : dtype_get(t->type)->name, as, want);
}

static const char *layout_name(tensor_layout layout) {
    return layout == LAYOUT_ROWS ? "row by row" : layout == LAYOUT_FLAT ? "flat" : "by columns";
}

static void exchange_dims(tensor *t) {
    const uint64_t rows = t->shape[t->n_dims - 2];
    t->shape[t->n_dims - 2] = t->shape[t->n_dims - 1];
    t->shape[t->n_dims - 1] = rows;
}

/* The shape of a transposed tensor may be that of the matrix, or of the transposed one: then the
 * matrix's is in originalShape, or only the number of bytes tells. */
static bool settle_columns(pack_entry *e) {
    tensor *t = e->t;
    if (t->n_dims < 2) {
        return refuse_entry(e, DP_E_FORMAT, "layout \"column\" of %u dimensions", t->n_dims);
    }
    if (field_or_null(e->v, "originalShape") != NULL) {
        tensor original = { .name = t->name };
        char ours[SHAPE_TEXT_BYTES], theirs[SHAPE_TEXT_BYTES];
        if (!read_dims(e, "originalShape", &original.n_dims, original.shape)) return false;
        shape_text(t->n_dims, t->shape, ours);
        const size_t size = sizeof(t->shape[0]) * t->n_dims;
        if (original.n_dims == t->n_dims && memcmp(original.shape, t->shape, size) != 0) {
            exchange_dims(t);
        }
        if (original.n_dims != t->n_dims || memcmp(original.shape, t->shape, size) != 0) {
            return refuse_entry(e, DP_E_FORMAT,
                                "originalShape %s is neither shape %s nor its transpose",
                                shape_text(original.n_dims, original.shape, theirs), ours);
        }
    } else if (bytes_in_layout(t, LAYOUT_COLUMNS) != t->n_bytes) {
        exchange_dims(t);
        if (bytes_in_layout(t, LAYOUT_COLUMNS) != t->n_bytes) exchange_dims(t);
    }
    return true;
}

/* A tensor that does not say how its blocks lie: as the manifest says if that gives its size, else
 * row by row or flat, whichever does. */
static void choose_layout(pack_entry *e) {
    tensor *t = e->t;
    const bool columns_fit = t->n_dims == 2 && bytes_in_layout(t, LAYOUT_COLUMNS) == t->n_bytes;
    if (e->d->has_layout && e->d->layout == LAYOUT_COLUMNS && columns_fit) {
        t->layout = LAYOUT_COLUMNS;
    } else if (bytes_in_layout(t, LAYOUT_ROWS) != t->n_bytes &&
               bytes_in_layout(t, LAYOUT_FLAT) == t->n_bytes) {
        t->layout = LAYOUT_FLAT;
    }
}

/* Transposed by a writer that says so for all matrices at once, or for this one by its shapes. */
static bool is_transposed_matrix(pack_entry *e) {
    tensor original = { .n_dims = 0 };
    const tensor *t = e->t;
    if (t->n_dims != 2 || !e->d->columns) return false;
    if (json_count(json_get(e->v, "originalShape")) == 2 &&
        read_dims(e, "originalShape", &original.n_dims, original.shape)) {
        return original.shape[0] == t->shape[1] && original.shape[1] == t->shape[0];
    }
    return str_is(t->role, "matmul") || str_is(t->role, "expert") || str_is(t->role, "lm_head");
}

static bool settle_layout(pack_entry *e) {
    tensor *t = e->t;
    const dtype_info *info = dtype_get(t->type);
    if (t->packing != NULL) {
        const uint64_t want = bytes_packed(t);
        return want == t->n_bytes || refuse_size(e, "packed", want);
    }
    if (!e->has_layout) {
        if (info->block_elements > 1) {
            choose_layout(e);
        } else if (is_transposed_matrix(e)) {
            t->layout = LAYOUT_COLUMNS;
        }
    }
    if (t->layout == LAYOUT_COLUMNS && !settle_columns(e)) return false;
    const uint64_t want = bytes_in_layout(t, t->layout);
    if (want != t->n_bytes) return refuse_size(e, layout_name(t->layout), want);
    const uint64_t cols = t->n_dims > 0 ? t->shape[t->n_dims - 1] : 1;
    if (t->layout == LAYOUT_FLAT && cols % info->block_elements == 0) t->layout = LAYOUT_ROWS;
    return true;
}

/* ---- role and group ------------------------------------------------------------------------ */

static bool name_has(str name, const char *part) {
    const size_t n = strlen(part);
    for (size_t i = 0; i + n <= name.size; i++) {
        if (memcmp(name.data + i, part, n) == 0) return true;
    }
    return false;
}

/* The layer of a name like model.layers.3.mlp or blk.3.attn_q; false if it has none. */
static bool layer_of(str name, uint32_t *layer) {
    static const char *const before[] = { "layers.", "blk.", "h." };
    for (size_t k = 0; k < ARRAY_LEN(before); k++) {
        const size_t n = strlen(before[k]);
        for (size_t i = 0; i + n < name.size; i++) {
            if (memcmp(name.data + i, before[k], n) != 0) continue;
            if (i > 0 && name.data[i - 1] != '.') continue;
            size_t digits = 0;
            uint64_t number;
            while (i + n + digits < name.size && name.data[i + n + digits] >= '0' &&
                   name.data[i + n + digits] <= '9') {
                digits++;
            }
            if (!str_to_u64((str){ name.data + i + n, digits }, &number)) continue;
            if (number > UINT32_MAX) return false;
            *layer = (uint32_t)number;
            return true;
        }
    }
    return false;
}

static const char *role_of_name(const tensor *t) {
    static const struct {
        const char *part, *role;
    } parts[] = { { "vision", "vision" },
                  { "visual.", "vision" },
                  { "audio", "audio" },
                  { "projector", "projector" },
                  { "embed_tokens", "embedding" },
                  { "token_embd", "embedding" },
                  { "tok_embeddings", "embedding" },
                  { "word_embeddings", "embedding" },
                  { "wte.", "embedding" },
                  { "wpe.", "embedding" },
                  { "lm_head", "lm_head" },
                  { "norm", "norm" },
                  { "ln_", "norm" },
                  { "router", "router" },
                  { "ffn_gate_inp", "router" },
                  { "block_sparse_moe.gate.", "router" },
                  { "mlp.gate.", "router" },
                  { "expert", "expert" },
                  { "_exps", "expert" } };
    if (str_is(t->name, "output.weight")) return "lm_head";
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        if (name_has(t->name, parts[i].part)) return parts[i].role;
    }
    return t->n_dims >= 2 && str_ends(t->name, "weight") ? "matmul" : "other";
}

static bool read_role(pack_entry *e) {
    tensor *t = e->t;
    arena *memory = &e->c->memory;
    str role = { NULL, 0 }, group = { NULL, 0 };
    char text[32];
    uint32_t layer;
    json_string(json_get(e->v, "role"), &role);
    json_string(json_get(e->v, "group"), &group);
    if (role.size == 0) role = str_of(role_of_name(t));
    if (group.size == 0) {
        const bool in_layer = layer_of(t->name, &layer);
        snprintf(text, sizeof(text), "layer.%u", in_layer ? layer : 0);
        const bool head = str_is(role, "lm_head") || (str_is(role, "norm") && !in_layer);
        group = str_of(in_layer                    ? text
                       : head                      ? "head"
                       : str_is(role, "embedding") ? "embed"
                                                   : "other");
    }
    t->role = (str){ arena_copy(memory, role.data, role.size, e->err), role.size };
    if (t->role.data == NULL) return false;
    t->group = (str){ arena_copy(memory, group.data, group.size, e->err), group.size };
    return t->group.data != NULL;
}

bool read_pack_tensor(container *c, const pack_defaults *d, str name, const json_value *v,
                      tensor *t, dp_error *err) {
    *t = (tensor){ .name = name };
    pack_entry e = { .c = c, .path = c->path, .v = v, .d = d, .t = t, .err = err };
    if (!json_is_object(v)) return refuse_entry(&e, DP_E_FORMAT, "its entry is no object");
    return read_dims(&e, "shape", &t->n_dims, t->shape) && count_elements(t, e.path, err) &&
           read_dtype(&e) && read_role(&e) && read_location(&e) && read_pack_layout(&e) &&
           read_storage(&e) && read_transform(&e) && settle_layout(&e);
}
