/* decode: rows of any tensor as f32.
 *
 * A tensor is [rows, cols]. Its bytes are runs of blocks: a run for each row, one over all elements
 * (flat), or one for each column. A run is read by pieces of at most RUN_BYTES, so what is asked
 * for and the block at each end is all that is ever read. Columns are read by groups of GROUP rows,
 * the longest that lie in one block of each column. */
#include "format/format_internal.h"

#include <inttypes.h>

enum {
    RUN_BYTES = 32 * 1024,
    BLOCK_ELEMENTS_MAX = 256,
    GROUP = 256,
    CODES_AT_ONCE = 4096,
    W4A16_COLUMNS = 32, /* that share a scale */
};

uint64_t tensor_rows(const tensor *t) {
    uint64_t rows = 1;
    for (uint32_t i = 0; i + 1 < t->n_dims; i++)
        rows *= t->shape[i];
    return rows;
}

bool tensor_is_plain(const tensor *t) {
    return t->packing == NULL && t->layout == LAYOUT_ROWS;
}

static uint64_t columns_of(const tensor *t) {
    return t->n_dims > 0 ? t->shape[t->n_dims - 1] : 1;
}

/* ---- blocks -------------------------------------------------------------------------------- */

/* Elements [first, first + n) of the run of blocks that begins at byte `run`. */
static bool decode_blocks(container *c, const tensor *t, uint64_t run, uint64_t first, uint64_t n,
                          float *out, dp_error *err) {
    const dtype_info *info = dtype_get(t->type);
    const uint64_t elements = info->block_elements, bytes = info->block_bytes;
    _Alignas(8) unsigned char piece[RUN_BYTES];
    float edge[BLOCK_ELEMENTS_MAX];
    while (n > 0) {
        const uint64_t within = first % elements;
        const uint64_t left = (within + n - 1) / elements + 1; /* blocks */
        const uint64_t blocks = min_u64(left, RUN_BYTES / bytes);
        if (!container_read(c, t, run + first / elements * bytes, piece, (size_t)(blocks * bytes),
                            err)) {
            return false;
        }
        const unsigned char *at = piece, *end = piece + blocks * bytes;
        while (at < end) {
            const uint64_t skip = first % elements, whole = n / elements;
            if (skip == 0 && whole > 0) {
                const uint64_t take = min_u64(whole, (uint64_t)(end - at) / bytes);
                if (!quant_decode(t->type, at, out, (size_t)(take * elements))) return false;
                at += take * bytes;
                out += take * elements;
                first += take * elements;
                n -= take * elements;
            } else {
                const uint64_t take = min_u64(elements - skip, n);
                if (!quant_decode(t->type, at, edge, (size_t)elements)) return false;
                memcpy(out, edge + skip, (size_t)take * sizeof(float));
                at += bytes;
                out += take;
                first += take;
                n -= take;
            }
        }
    }
    return true;
}

/* ---- codes --------------------------------------------------------------------------------- */

/* Codes [first, first + n) of the run that begins at byte `run`, less the zero; n is at most
 * CODES_AT_ONCE. */
static bool read_codes(container *c, const tensor *t, uint64_t run, uint64_t first, uint32_t n,
                       int64_t codes[CODES_AT_ONCE], dp_error *err) {
    const tensor_packing *p = t->packing;
    const uint32_t per_byte = 8 / p->bits, mask = (1u << p->bits) - 1, sign = 1u << (p->bits - 1);
    const uint64_t first_byte = first / per_byte, last_byte = (first + n - 1) / per_byte;
    unsigned char bytes[CODES_AT_ONCE + 1];
    if (!container_read(c, t, run + first_byte, bytes, (size_t)(last_byte - first_byte + 1), err)) {
        return false;
    }
    for (uint32_t i = 0; i < n; i++) {
        const uint64_t at = first % per_byte + i;
        const uint32_t code = (uint32_t)bytes[at / per_byte] >> at % per_byte * p->bits & mask;
        const int64_t value = p->is_signed ? (int64_t)(code ^ sign) - sign : code;
        codes[i] = value - p->zero;
    }
    return true;
}

static bool decode_w4a16(container *c, const tensor *t, uint64_t row, float *out, dp_error *err) {
    const uint64_t cols = columns_of(t);
    const uint64_t groups = (cols + W4A16_COLUMNS - 1) / W4A16_COLUMNS;
    const uint64_t run = row * groups * (W4A16_COLUMNS / 2);
    int64_t codes[CODES_AT_ONCE];
    float scales[CODES_AT_ONCE / W4A16_COLUMNS];
    for (uint64_t at = 0; at < cols; at += CODES_AT_ONCE) {
        const uint32_t n = (uint32_t)min_u64(CODES_AT_ONCE, cols - at);
        const uint32_t n_scales = ceil_div(n, W4A16_COLUMNS);
        if (!read_codes(c, t, run, at, n, codes, err) ||
            !decode_blocks(c, t->packing->scales, 0, row * groups + at / W4A16_COLUMNS, n_scales,
                           scales, err)) {
            return false;
        }
        for (uint32_t i = 0; i < n; i++) {
            out[at + i] = (float)codes[i] * scales[i / W4A16_COLUMNS];
        }
    }
    return true;
}

static bool read_row_scales(container *c, const tensor *t, uint64_t row, uint32_t n, double *out,
                            dp_error *err) {
    const tensor_span *s = &t->packing->row_scales;
    unsigned char raw[GROUP * 4];
    assert(n <= GROUP);
    if (!pack_read(c, s->file, s->offset + row * 4, raw, n * (size_t)4, err)) return false;
    for (uint32_t i = 0; i < n; i++) {
        float scale;
        quant_decode(DTYPE_F32, raw + 4 * (size_t)i, &scale, 1);
        out[i] = (double)scale * t->packing->scale;
    }
    return true;
}

/* n codes, each times its scale, or all times the only one. */
static void scale_codes(const int64_t *codes, const double *scales, uint32_t step, uint32_t n,
                        float *out) {
    for (uint32_t i = 0; i < n; i++)
        out[i] = (float)((double)codes[i] * scales[i * step]);
}

/* ---- layouts ------------------------------------------------------------------------------- */

/* Bytes of the run of one column, in LAYOUT_COLUMNS. */
static uint64_t column_bytes(const tensor *t, uint64_t rows) {
    uint64_t bytes = 0;
    if (t->packing != NULL) {
        const uint32_t per_byte = 8 / t->packing->bits;
        return rows / per_byte + (rows % per_byte != 0);
    }
    const bool fits = dtype_padded_row_bytes(t->type, rows, &bytes);
    assert(fits);
    (void)fits;
    return bytes;
}

/* Rows [row, row + n) of matrix `which`, all in one group. */
static bool decode_group(container *c, const tensor *t, uint64_t which, uint64_t row, uint32_t n,
                         float *out, dp_error *err) {
    const uint64_t cols = columns_of(t), run_bytes = column_bytes(t, t->shape[t->n_dims - 2]);
    float values[GROUP];
    double scales[GROUP];
    int64_t codes[CODES_AT_ONCE];
    if (t->packing != NULL && !read_row_scales(c, t, row, n, scales, err)) return false;
    for (uint64_t col = 0; col < cols; col++) {
        const uint64_t run = (which * cols + col) * run_bytes;
        if (t->packing == NULL) {
            if (!decode_blocks(c, t, run, row, n, values, err)) return false;
        } else {
            if (!read_codes(c, t, run, row, n, codes, err)) return false;
            scale_codes(codes, scales, 1, n, values);
        }
        for (uint32_t i = 0; i < n; i++)
            out[i * cols + col] = values[i];
    }
    return true;
}

static bool decode_columns(container *c, const tensor *t, uint64_t first, uint32_t n, float *out,
                           dp_error *err) {
    const uint64_t rows = t->shape[t->n_dims - 2], cols = columns_of(t);
    while (n > 0) {
        const uint64_t row = first % rows;
        const uint64_t in_group = min_u64(GROUP - row % GROUP, rows - row);
        const uint32_t take = (uint32_t)min_u64(n, in_group);
        if (!decode_group(c, t, first / rows, row, take, out, err)) return false;
        out += take * cols;
        first += take;
        n -= take;
    }
    return true;
}

static bool decode_row_blocks(container *c, const tensor *t, uint64_t first, uint32_t n, float *out,
                              dp_error *err) {
    const uint64_t cols = columns_of(t);
    uint64_t row_bytes = 0;
    const bool fits = dtype_padded_row_bytes(t->type, cols, &row_bytes);
    assert(fits);
    (void)fits;
    if (cols % dtype_get(t->type)->block_elements == 0) {
        return decode_blocks(c, t, 0, first * cols, n * cols, out, err);
    }
    for (uint32_t i = 0; i < n; i++) {
        if (!decode_blocks(c, t, (first + i) * row_bytes, 0, cols, out + i * cols, err))
            return false;
    }
    return true;
}

/* Values [first, first + n) of codes that run over all elements. */
static bool decode_whole(container *c, const tensor *t, uint64_t first, uint64_t n, float *out,
                         dp_error *err) {
    int64_t codes[CODES_AT_ONCE];
    for (uint64_t done = 0; done < n; done += CODES_AT_ONCE) {
        const uint32_t take = (uint32_t)min_u64(CODES_AT_ONCE, n - done);
        if (!read_codes(c, t, 0, first + done, take, codes, err)) return false;
        scale_codes(codes, &t->packing->scale, 0, take, out + done);
    }
    return true;
}

static bool decode_scaled_row(container *c, const tensor *t, uint64_t row, float *out,
                              dp_error *err) {
    const uint64_t cols = columns_of(t), per_byte = 8 / t->packing->bits;
    const uint64_t run = row * (cols / per_byte + (cols % per_byte != 0));
    int64_t codes[CODES_AT_ONCE];
    double scale;
    if (!read_row_scales(c, t, row, 1, &scale, err)) return false;
    for (uint64_t done = 0; done < cols; done += CODES_AT_ONCE) {
        const uint32_t take = (uint32_t)min_u64(CODES_AT_ONCE, cols - done);
        if (!read_codes(c, t, run, done, take, codes, err)) return false;
        scale_codes(codes, &scale, 0, take, out + done);
    }
    return true;
}

static bool decode_packed(container *c, const tensor *t, uint64_t first, uint32_t n, float *out,
                          dp_error *err) {
    const uint64_t cols = columns_of(t);
    if (t->packing->kind == PACKING_WHOLE) {
        return decode_whole(c, t, first * cols, n * cols, out, err);
    }
    if (t->layout == LAYOUT_COLUMNS) return decode_columns(c, t, first, n, out, err);
    for (uint32_t i = 0; i < n; i++) {
        float *row = out + i * cols;
        const bool ok = t->packing->kind == PACKING_W4A16
                            ? decode_w4a16(c, t, first + i, row, err)
                            : decode_scaled_row(c, t, first + i, row, err);
        if (!ok) return false;
    }
    return true;
}

bool container_decode(container *c, const tensor *t, uint64_t first_row, uint32_t n_rows,
                      float *out, dp_error *err) {
    const uint64_t rows = tensor_rows(t), cols = columns_of(t);
    if (first_row > rows || n_rows > rows - first_row) {
        return err_set(err, DP_E_ARGUMENT, "tensor %.*s: %u rows from %" PRIu64 " of its %" PRIu64,
                       STR_ARG(t->name), n_rows, first_row, rows);
    }
    if (t->packing != NULL) return decode_packed(c, t, first_row, n_rows, out, err);
    if (!quant_decode(t->type, NULL, NULL, 0)) {
        return err_set(err, DP_E_UNSUPPORTED, "tensor %.*s: nothing decodes %s", STR_ARG(t->name),
                       dtype_get(t->type)->name);
    }
    switch (t->layout) {
    case LAYOUT_FLAT:
        return decode_blocks(c, t, 0, first_row * cols, n_rows * cols, out, err);
    case LAYOUT_COLUMNS:
        return decode_columns(c, t, first_row, n_rows, out, err);
    case LAYOUT_ROWS:
        break;
    }
    return decode_row_blocks(c, t, first_row, n_rows, out, err);
}
