/* convert_rows: the bytes of an output tensor, by blocks of its lines.
 *
 * Rows are copied as they are where format and layout stay the same; otherwise they are decoded,
 * put in order and encoded. All of a thread's memory is taken once and bounded: blocks of
 * ROWS_ELEMENTS, or one row if that has more. Vectors are matrices of one column here. */
#include "model/convert_internal.h"

#include <math.h>

enum {
    ROWS_ELEMENTS = 1 << 20,  /* decoded at a time */
    STRIP_ELEMENTS = 4 << 20, /* of columns, gathered from all rows */
};

static uint64_t n_rows_of(const out_tensor *t) {
    return t->outer * t->rows;
}

static uint64_t gcd_u64(uint64_t a, uint64_t b) {
    while (b > 0) {
        const uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* Rows of a line of LAYOUT_FLAT: as many as end with a block. */
static uint64_t flat_rows(const out_tensor *t) {
    const uint64_t block = dtype_get(t->type)->block_elements;
    return block / gcd_u64(block, t->cols);
}

bool rows_measure(out_tensor *t, dp_error *err) {
    const uint64_t n_rows = n_rows_of(t);
    uint64_t elements, at_once = ROWS_ELEMENTS / t->cols;
    bool fits = mul_u64(n_rows, t->cols, &elements);
    switch (t->layout) {
    case LAYOUT_ROWS:
        t->n_lines = n_rows;
        fits = fits && dtype_padded_row_bytes(t->type, t->cols, &t->line_bytes) &&
               mul_u64(t->line_bytes, t->n_lines, &t->n_bytes);
        break;
    case LAYOUT_FLAT:
        t->n_lines = (n_rows + flat_rows(t) - 1) / flat_rows(t);
        fits = fits && dtype_row_bytes(t->type, flat_rows(t) * t->cols, &t->line_bytes) &&
               dtype_padded_row_bytes(t->type, elements, &t->n_bytes);
        at_once /= flat_rows(t);
        break;
    case LAYOUT_COLUMNS:
        assert(t->outer == 1);
        t->n_lines = t->cols;
        fits = fits && dtype_padded_row_bytes(t->type, n_rows, &t->line_bytes) &&
               mul_u64(t->line_bytes, t->n_lines, &t->n_bytes);
        at_once = STRIP_ELEMENTS / n_rows;
        break;
    }
    if (!fits || t->n_bytes > INT64_MAX / 2) {
        return err_set(err, DP_E_LIMIT, "tensor %.*s: more bytes than a file can hold",
                       STR_ARG(t->name));
    }
    t->lines_at_once = min_u64(max_u64(at_once, 1), t->n_lines);
    t->n_jobs = (t->n_lines + t->lines_at_once - 1) / t->lines_at_once;
    return true;
}

/* ---- memory -------------------------------------------------------------------------------- */

/* Rows that are decoded at a time. */
static uint64_t rows_at_once(const out_tensor *t) {
    switch (t->layout) {
    case LAYOUT_FLAT:
        return t->lines_at_once * flat_rows(t);
    case LAYOUT_COLUMNS:
        return min_u64(max_u64(ROWS_ELEMENTS / t->cols, 1), n_rows_of(t));
    default:
        return t->lines_at_once;
    }
}

static uint64_t filled_cols(dtype type, uint64_t cols) {
    const uint64_t block = dtype_get(type)->block_elements;
    return (cols + block - 1) / block * block;
}

typedef struct {
    uint64_t source, target, values, strip, weights;
} row_sizes;

static row_sizes measure_buffers(const conversion *v) {
    row_sizes n = { 1, 1, 1, 1, 1 };
    for (uint32_t i = 0; i < v->n_tensors; i++) {
        const out_tensor *t = &v->tensors[i];
        const uint64_t rows = rows_at_once(t);
        /* the last row may be filled up by the blocks of its format */
        n.values = max_u64(n.values, rows * t->cols + 256);
        n.target = max_u64(n.target, t->lines_at_once * t->line_bytes);
        for (uint32_t p = 0; p < t->n_parts; p++) {
            uint64_t row_bytes = 0;
            if (t->parts[p].matrix != NULL) {
                (void)dtype_padded_row_bytes(t->parts[p].matrix->type, t->cols, &row_bytes);
            }
            n.source = max_u64(n.source, rows * row_bytes);
        }
        n.weights = max_u64(n.weights, t->layout == LAYOUT_ROWS ? t->cols : 1);
        if (t->layout == LAYOUT_COLUMNS) {
            n.strip = max_u64(n.strip, t->lines_at_once * n_rows_of(t));
        }
    }
    return n;
}

uint64_t rows_bytes(const conversion *v) {
    const row_sizes n = measure_buffers(v);
    return n.source + n.target + (n.values + n.strip + n.weights) * sizeof(float);
}

bool rows_reserve(const conversion *v, row_buffers *b, dp_error *err) {
    const row_sizes n = measure_buffers(v);
    b->source = mem_new(n.source, 1, "rows of the source", err);
    b->target = mem_new(n.target, 1, "rows of the target", err);
    b->values = mem_new(n.values, sizeof(float), "decoded rows", err);
    b->strip = mem_new(n.strip, sizeof(float), "columns", err);
    b->weights = mem_new(n.weights, sizeof(float), "weights of errors", err);
    return b->source != NULL && b->target != NULL && b->values != NULL && b->strip != NULL &&
           b->weights != NULL;
}

void rows_release(row_buffers *b) {
    mem_free(b->source);
    mem_free(b->target);
    mem_free(b->values);
    mem_free(b->strip);
    mem_free(b->weights);
    *b = (row_buffers){ 0 };
}

/* ---- reading ------------------------------------------------------------------------------- */

/* The source's row for a row of the target. */
static uint64_t source_row(const conversion *v, const out_tensor *t, uint64_t row) {
    const uint64_t turned = v->config.rope_dim, i = row % v->config.head_dim;
    if (!t->paired || i >= turned) {
        return row;
    }
    return row - i + i / 2 + (i % 2 == 0 ? 0 : turned / 2);
}

/* A run of rows that lie together in one part. */
typedef struct {
    const out_part *part;
    uint64_t row; /* in the part's matrix or vector */
    uint32_t n;
} row_run;

static row_run find_run(const conversion *v, const out_tensor *t, uint64_t row, uint64_t n) {
    const uint64_t outer = row / t->rows;
    uint64_t r = row % t->rows;
    for (uint32_t p = 0;; p++) {
        const out_part *part = &t->parts[p];
        assert(p < t->n_parts);
        if (r < part->rows) {
            const uint64_t base = part->first + outer * part->stride;
            const uint64_t most = t->paired ? 1 : part->rows - r;
            return (row_run){ part, base + source_row(v, t, r), (uint32_t)min_u64(n, most) };
        }
        r -= part->rows;
    }
}

static bool decode_run(conversion *v, const out_tensor *t, const row_run *run, row_buffers *b,
                       float *out, dp_error *err) {
    const weight *w = run->part->matrix;
    if (w == NULL) {
        return vector_read(v->files, &run->part->values, (uint32_t)run->row, run->n, out, err);
    }
    uint64_t row_bytes = 0;
    (void)dtype_padded_row_bytes(w->type, w->cols, &row_bytes);
    if (!weight_read(v->files, w, run->row, run->n, b->source, err)) {
        return false;
    }
    const size_t filled = (size_t)filled_cols(w->type, w->cols);
    for (uint32_t i = 0; i < run->n; i++) {
        /* what a filled-up row has too much is overwritten by the next one */
        if (!quant_decode(w->type, b->source + i * row_bytes, out + (size_t)i * t->cols, filled)) {
            return err_set(err, DP_E_UNSUPPORTED, "tensor %.*s: type %s cannot be decoded",
                           STR_ARG(t->name), dtype_get(w->type)->name);
        }
    }
    return true;
}

/* Rows [first, first + n) as numbers into b->values. */
static bool decode_rows(conversion *v, const out_tensor *t, uint64_t first, uint64_t n,
                        row_buffers *b, dp_error *err) {
    if (t->given != NULL) {
        memcpy(b->values, t->given + first * t->cols, (size_t)n * t->cols * sizeof(float));
        return true;
    }
    for (uint64_t done = 0; done < n;) {
        const row_run run = find_run(v, t, first + done, n - done);
        if (!decode_run(v, t, &run, b, b->values + done * t->cols, err)) {
            return false;
        }
        done += run.n;
    }
    return true;
}

static bool can_copy(const out_tensor *t) {
    bool same = t->layout == LAYOUT_ROWS && t->given == NULL;
    for (uint32_t p = 0; p < t->n_parts && same; p++) {
        same = t->parts[p].matrix != NULL && t->parts[p].matrix->type == t->type;
    }
    return same;
}

static bool copy_rows(conversion *v, const out_tensor *t, uint64_t first, uint64_t n,
                      row_buffers *b, dp_error *err) {
    for (uint64_t done = 0; done < n;) {
        const row_run run = find_run(v, t, first + done, n - done);
        if (!weight_read(v->files, run.part->matrix, run.row, run.n,
                         b->target + done * t->line_bytes, err)) {
            return false;
        }
        done += run.n;
    }
    return true;
}

/* ---- writing ------------------------------------------------------------------------------- */

static bool encode_line(const out_tensor *t, const float *x, const float *importance, uint64_t n,
                        unsigned char *out, dp_error *err) {
    return quant_encode_row(t->type, x, importance, (size_t)n, out) ||
           err_set(err, DP_E_UNSUPPORTED, "tensor %.*s: type %s cannot be written",
                   STR_ARG(t->name), dtype_get(t->type)->name);
}

/* In formats of few levels the least plain error leaves the largest values too short. */
static bool has_few_levels(dtype type) {
    return type == DTYPE_Q2_K || type == DTYPE_Q3_K || type == DTYPE_Q4_0 || type == DTYPE_IQ4_NL ||
           type == DTYPE_IQ4_XS || type == DTYPE_MXFP4;
}

/* How much the square of each error counts, or NULL for all alike: the column's importance, and
 * with it or in formats of few levels sqrt(mean square + x^2), since of two errors of one size that
 * of the larger weight changes more of what the model says (docs/quantise.md). */
static const float *weigh_errors(const out_tensor *t, const float *x, float *w) {
    const uint32_t block = dtype_get(t->type)->block_elements;
    if (t->importance == NULL && !has_few_levels(t->type)) {
        return NULL;
    }
    for (uint32_t at = 0; at < t->cols; at += block) {
        const uint32_t n = min_u32(block, t->cols - at);
        double mean = 0;
        for (uint32_t i = 0; i < n; i++) {
            mean += (double)x[at + i] * (double)x[at + i] / n;
        }
        for (uint32_t i = 0; i < n; i++) {
            const double size = (double)x[at + i] * (double)x[at + i];
            const double own = t->importance != NULL ? (double)t->importance[at + i] : 1;
            w[at + i] = (float)(own * (mean > 0 ? sqrt(1 + size / mean) : 1));
        }
    }
    return w;
}

static bool make_columns(conversion *v, const out_tensor *t, uint64_t first, uint64_t n,
                         row_buffers *b, dp_error *err) {
    const uint64_t n_rows = n_rows_of(t), step = rows_at_once(t);
    for (uint64_t row = 0; row < n_rows; row += step) {
        const uint64_t rows = min_u64(step, n_rows - row);
        if (!decode_rows(v, t, row, rows, b, err)) {
            return false;
        }
        for (uint64_t c = 0; c < n; c++) {
            for (uint64_t r = 0; r < rows; r++) {
                b->strip[c * n_rows + row + r] = b->values[r * t->cols + first + c];
            }
        }
    }
    for (uint64_t c = 0; c < n; c++) {
        if (!encode_line(t, b->strip + c * n_rows, NULL, n_rows, b->target + c * t->line_bytes,
                         err)) {
            return false;
        }
    }
    return true;
}

bool rows_make(conversion *v, const out_tensor *t, uint64_t first, uint64_t n, row_buffers *b,
               dp_error *err) {
    if (t->layout == LAYOUT_COLUMNS) {
        return make_columns(v, t, first, n, b, err);
    }
    if (can_copy(t)) {
        return copy_rows(v, t, first, n, b, err);
    }
    const uint64_t per_line = t->layout == LAYOUT_FLAT ? flat_rows(t) : 1;
    const uint64_t row = first * per_line;
    const uint64_t rows = min_u64(n * per_line, n_rows_of(t) - row);
    if (!decode_rows(v, t, row, rows, b, err)) {
        return false;
    }
    if (t->layout == LAYOUT_FLAT || t->cols == 1) {
        return encode_line(t, b->values, NULL, rows * t->cols, b->target, err);
    }
    for (uint64_t i = 0; i < rows; i++) {
        const float *x = b->values + i * t->cols;
        if (!encode_line(t, x, weigh_errors(t, x, b->weights), t->cols,
                         b->target + i * t->line_bytes, err)) {
            return false;
        }
    }
    return true;
}
