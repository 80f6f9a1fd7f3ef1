/* weight_read: rows of matrices and elements of vectors out of the files, in the order and format
 * that the kernels want.
 *
 * Most are copied as they are. GGUF files of some families have the dimensions of queries and keys
 * in pairs, which become halves here. Three more things differ in some folders: matrices stored
 * [in, out] (GPT-2), rows of two matrices in turn and MXFP4 blocks apart from their scales
 * (GPT-OSS, whose nibbles are also in another order). What a pack has in another layout than rows
 * is decoded. Nothing is kept: the caller's buffer, and some MiB to decode in, are all the memory.
 */
#include "model/model.h"

/* The file's place of row `row`, where the dimensions of a head lie in pairs. */
static uint64_t row_in_file(uint64_t row, uint32_t head, uint32_t turned) {
    const uint64_t i = turned > 0 ? row % head : 0;
    if (turned == 0 || i >= turned) {
        return row;
    }
    return row - i + (i < turned / 2 ? 2 * i : 2 * i - turned + 1);
}

/* The value bytes of 32 columns hold elements 2j and 2j + 1 in the file, j and j + 16 in GGUF's
 * block, behind their scale. */
static void join_mxfp4(const unsigned char values[16], unsigned char scale,
                       unsigned char block[17]) {
    block[0] = scale;
    for (int j = 0; j < 16; j++) {
        const int low = values[j / 2] >> 4 * (j % 2) & 15;
        const int high = values[8 + j / 2] >> 4 * (j % 2) & 15;
        block[1 + j] = (unsigned char)(low | high << 4);
    }
}

static bool read_mxfp4_row(container *files, const weight *w, const weight_piece *p, uint64_t row,
                           unsigned char *out, dp_error *err) {
    enum { AT_ONCE = 64 }; /* blocks */
    unsigned char values[AT_ONCE * 16], scales[AT_ONCE];
    const uint32_t n_blocks = w->cols / 32;
    const uint64_t first = p->base / 32 + (p->first + row * p->step) * n_blocks;
    for (uint32_t at = 0; at < n_blocks; at += AT_ONCE) {
        const uint32_t n = min_u32(AT_ONCE, n_blocks - at);
        if (!container_read(files, p->source, (first + at) * 16, values, n * 16u, err) ||
            !container_read(files, p->scales, first + at, scales, n, err)) {
            return false;
        }
        for (uint32_t i = 0; i < n; i++) {
            join_mxfp4(values + i * 16u, scales[i], out + (at + i) * 17u);
        }
    }
    return true;
}

/* n rows of a matrix that lies [cols, width], column by column of the file. */
static bool read_transposed(container *files, const weight *w, const weight_piece *p, uint64_t row,
                            uint32_t n, unsigned char *out, dp_error *err) {
    enum { AT_ONCE = 4096 }; /* bytes */
    unsigned char run[AT_ONCE];
    const uint32_t size = dtype_get(w->type)->block_bytes;
    const uint32_t rows_at_once = (AT_ONCE / size - 1) / p->step + 1;
    for (uint32_t done = 0; done < n; done += rows_at_once) {
        const uint32_t rows = min_u32(rows_at_once, n - done);
        const uint64_t first = p->first + (row + done) * p->step;
        for (uint32_t c = 0; c < w->cols; c++) {
            const uint64_t at = p->base + (uint64_t)c * p->width + first;
            if (!container_read(files, p->source, at * size, run, ((rows - 1) * p->step + 1) * size,
                                err)) {
                return false;
            }
            for (uint32_t r = 0; r < rows; r++) {
                memcpy(out + ((uint64_t)(done + r) * w->cols + c) * size, run + r * p->step * size,
                       size);
            }
        }
    }
    return true;
}

/* Rows of a tensor that is no rows of a type in the files, as floats of the weight's type. */
static bool read_decoded(container *files, const weight *w, const weight_piece *p, uint64_t row,
                         uint32_t n, unsigned char *out, dp_error *err) {
    enum { AT_ONCE = 256, FLOATS = 4 << 20 }; /* columns of a file are decoded by 256 rows */
    const uint32_t most = max_u32(min_u32(AT_ONCE, FLOATS / w->cols), 1);
    const bool in_order = p->step == 1 && p->turned == 0;
    const uint64_t base = p->base / w->cols + p->first;
    float *x = mem_new((size_t)most * w->cols, sizeof *x, "decoded rows", err);
    bool ok = x != NULL;
    for (uint32_t done = 0, take = 0; done < n && ok; done += take) {
        const uint64_t at = base + row_in_file(row + done, p->head, p->turned) * p->step;
        take = in_order ? min_u32(n - done, most - (uint32_t)(at % most)) : 1;
        ok = container_decode(files, p->source, at, take, x, err);
        const size_t count = ok ? (size_t)take * w->cols : 0;
        if (w->type == DTYPE_F32) {
            memcpy(out, x, count * sizeof *x);
        }
        for (size_t i = 0; i < count && w->type != DTYPE_F32; i++) {
            const uint16_t half = w->type == DTYPE_F16 ? f32_to_f16(x[i]) : f32_to_bf16(x[i]);
            memcpy(out + i * sizeof half, &half, sizeof half);
        }
        out += count * dtype_get(w->type)->block_bytes;
    }
    mem_free(x);
    return ok;
}

static bool read_piece_rows(container *files, const weight *w, const weight_piece *p, uint64_t row,
                            uint32_t n, unsigned char *out, uint64_t row_bytes, dp_error *err) {
    if (w->decoded) {
        return read_decoded(files, w, p, row, n, out, err);
    }
    if (p->transposed) {
        return read_transposed(files, w, p, row, n, out, err);
    }
    if (p->scales != NULL) {
        for (uint32_t i = 0; i < n; i++) {
            if (!read_mxfp4_row(files, w, p, row + i, out + i * row_bytes, err)) {
                return false;
            }
        }
        return true;
    }
    const uint64_t base = p->base / w->cols * row_bytes;
    if (p->step == 1 && p->turned == 0) {
        return container_read(files, p->source, base + (p->first + row) * row_bytes, out,
                              (size_t)(n * row_bytes), err);
    }
    for (uint32_t i = 0; i < n; i++) {
        const uint64_t place = row_in_file(row + i, p->head, p->turned);
        const uint64_t at = base + (p->first + place * p->step) * row_bytes;
        if (!container_read(files, p->source, at, out + i * row_bytes, (size_t)row_bytes, err)) {
            return false;
        }
    }
    return true;
}

bool weight_read(container *files, const weight *w, uint64_t first, uint32_t n, void *out,
                 dp_error *err) {
    uint64_t row_bytes = 0;
    const bool sized = dtype_padded_row_bytes(w->type, w->cols, &row_bytes);
    assert(sized && first + n <= (uint64_t)w->n_pieces * w->rows);
    (void)sized;
    unsigned char *to = out;
    while (n > 0) {
        const uint64_t row = first % w->rows;
        const uint32_t rows = (uint32_t)min_u64(n, w->rows - row);
        if (!read_piece_rows(files, w, &w->pieces[first / w->rows], row, rows, to, row_bytes,
                             err)) {
            return false;
        }
        to += rows * row_bytes;
        first += rows;
        n -= rows;
    }
    return true;
}

uint32_t upload_rows(const weight *w, uint64_t *row_bytes) {
    uint64_t file_bytes = 0;
    const bool sized = dtype_padded_row_bytes(w->type, w->cols, &file_bytes) &&
                       device_row_bytes(w->type, w->cols, row_bytes);
    assert(sized && max_u64(file_bytes, *row_bytes) <= UPLOAD_BYTES);
    (void)sized;
    const uint32_t rows = (uint32_t)(UPLOAD_BYTES / max_u64(file_bytes, *row_bytes));
    return w->decoded && rows >= 256 ? rows & ~255u : rows;
}

bool weight_read_device(container *files, const weight *w, uint64_t first, uint32_t n,
                        void *scratch, void *out, dp_error *err) {
    if (!weight_read(files, w, first, n, scratch, err)) {
        return false;
    }
    device_rows(w->type, w->cols, n, scratch, out);
    return true;
}

/* Where the rows are scattered no hint is better than a wrong one. */
void weight_read_ahead(const container *files, const weight *w, uint64_t first, uint32_t n) {
    const weight_piece *p = &w->pieces[first / w->rows];
    uint64_t row_bytes = 0;
    if (w->decoded || p->transposed || p->scales != NULL ||
        !dtype_padded_row_bytes(w->type, w->cols, &row_bytes)) {
        return;
    }
    const uint64_t row = p->base / w->cols + p->first + first % w->rows * p->step;
    container_read_ahead(files, p->source, row * row_bytes, (uint64_t)n * p->step * row_bytes);
}

/* The same of a tensor that is no floats in the files: row by row of its last dimension. */
static bool read_decoded_vector(container *files, const vector *v, uint32_t first, uint32_t n,
                                float *out, dp_error *err) {
    const tensor *t = v->source;
    const uint64_t width = t->shape[t->n_dims - 1];
    float *x = mem_new((size_t)width, sizeof *x, "decoded vector", err);
    uint64_t here = UINT64_MAX; /* row in x */
    bool ok = x != NULL;
    for (uint32_t k = 0; k < n && ok; k++) {
        const uint32_t i = (uint32_t)row_in_file(first + k, v->head, v->turned);
        const uint64_t at = (uint64_t)(i / v->run) * v->pitch + v->first + i % v->run * v->step;
        ok = at / width == here || container_decode(files, t, at / width, 1, x, err);
        here = at / width;
        out[k] = ok ? x[at % width] + v->add : 0;
    }
    mem_free(x);
    return ok;
}

bool vector_read(container *files, const vector *v, uint32_t first, uint32_t n, float *out,
                 dp_error *err) {
    if (!tensor_is_plain(v->source)) {
        return read_decoded_vector(files, v, first, n, out, err);
    }
    enum { AT_ONCE = 4096 }; /* bytes */
    _Alignas(8) unsigned char run[AT_ONCE];
    float decoded[AT_ONCE / 2];
    const uint32_t size = dtype_get(v->source->type)->block_bytes;
    assert((uint64_t)first + n <= v->n);
    for (uint32_t done = 0; done < n;) {
        const uint32_t i = (uint32_t)row_in_file(first + done, v->head, v->turned);
        const uint32_t column = i % v->run;
        const uint32_t most = v->turned > 0 ? 1 : (AT_ONCE / size - 1) / v->step + 1;
        const uint32_t take = min_u32(min_u32(n - done, v->run - column), most);
        const uint64_t at = (uint64_t)(i / v->run) * v->pitch + v->first + column * v->step;
        const uint32_t spread = (take - 1) * v->step + 1;
        if (!container_read(files, v->source, at * size, run, spread * size, err)) {
            return false;
        }
        const bool known = quant_decode(v->source->type, run, decoded, spread);
        assert(known);
        (void)known;
        for (uint32_t k = 0; k < take; k++) {
            out[done + k] = decoded[k * v->step] + v->add;
        }
        done += take;
    }
    return true;
}
