/* check_dense: embedding, norm, the two matrix products, the gate. */
#include "ref/check_internal.h"

#include <math.h>
#include <stdio.h>

enum { LANES_NORM = 256, LANES_MATVEC = 64 }; /* as in model/ops.c */

static uint32_t log2_of(uint32_t n) {
    return n <= 1 ? 0 : 1 + log2_of(n / 2);
}

/* ---- embed --------------------------------------------------------------------------------- */

/* A weight is decoded by exact products and at most one rounding: an integer code of at most 8 bits
 * times a scale of 11 bits and one of at most 8, plus a product of the same kind. */
static double decode_bound(dtype type, float w) {
    return dtype_is_quantised(type) ? U * fabs((double)w) : 0;
}

static void embed_row(rig *r, const rig_format *f, uint32_t cols, const char *reason) {
    enum { VOCAB = 23, FIRST = 5, COUNT = 13, ROWS = 9, SLOTS = 3 };
    char kernel[96];
    snprintf(kernel, sizeof(kernel), "embed %s", f->name);
    if (!rig_begin(r, kernel, reason, "K %u, rows %d, part %d..%d of %d", cols, ROWS, FIRST,
                   FIRST + COUNT - 1, VOCAB)) {
        return;
    }
    /* Both ends of the part, both neighbours of it, one token twice in a slot and once in another.
     */
    static const uint32_t tokens[ROWS] = { FIRST, FIRST + COUNT - 1, FIRST - 1, FIRST + COUNT,
                                           0,     VOCAB - 1,         9,         9,
                                           9 };
    uint32_t rows[ROWS][4], counts[SLOTS * VOCAB];
    for (uint32_t i = 0; i < ROWS; i++) {
        rows[i][0] = tokens[i], rows[i][1] = i % 2 + (i == 8), rows[i][2] = 100 + i, rows[i][3] = 0;
    }
    for (uint32_t i = 0; i < SLOTS * VOCAB; i++)
        counts[i] = rig_below(r, 5);
    float *w;
    const gpu_range table = rig_weights(r, f->type, COUNT, cols, &w);
    rig_output *seen = rig_out(r, counts, SLOTS * VOCAB),
               *x = rig_out(r, NULL, (size_t)ROWS * cols);
    rig_call(r, &embed_source, (const gpu_fragment *[]){ f->part },
             &(embed_consts){ .k = cols, .vocab = VOCAB },
             (gpu_call){
                 .bind = { table, [EMBED_ROWS] = rig_in(r, rows, sizeof(rows)),
                           [EMBED_COUNTS] = seen->range, [EMBED_X] = x->range },
                 .params = &(embed_params){ .first = FIRST, .count = COUNT },
                 .groups = { { .times = ROWS } },
             });
    if (rig_run(r)) {
        for (uint32_t i = 0; i < ROWS; i++) {
            const bool inside = tokens[i] >= FIRST && tokens[i] < FIRST + COUNT;
            if (!inside) rig_kept(r, x, (size_t)i * cols, cols);
            for (uint32_t c = 0; c < cols && inside; c++) {
                const float want = w[(tokens[i] - FIRST) * cols + c];
                rig_expect(r, rig_float(x, i * cols + c), (double)want,
                           decode_bound(f->type, want));
            }
            if (inside) counts[rows[i][1] * VOCAB + tokens[i]] |= REF_SEEN;
        }
        for (uint32_t i = 0; i < SLOTS * VOCAB; i++)
            rig_bits(r, seen->after[i], counts[i]);
    }
    rig_end(r);
}

/* A width for each format: `odd` blocks, so that rows start at every offset a row can start at. */
typedef struct {
    uint32_t cols;
    const char *reason;
} width;

static uint32_t widths(dtype type, width out[3]) {
    if (!dtype_is_quantised(type)) {
        out[0] = (width){ 172, "a row ends inside a unit of 32 weights" };
        out[1] = (width){ 4, "the least row" };
        out[2] = (width){ 1056, "33 units: one more than the lanes of a team" };
        return 3;
    }
    if (dtype_get(type)->block_elements == 32) {
        out[0] = (width){ 96, "3 blocks: rows of 18, 22 and 34 bytes a block start on even bytes" };
        out[1] = (width){ 32, "the least row" };
        out[2] = (width){ 1056, "33 blocks: one more than the lanes of a team" };
        return 3;
    }
    out[0] = (width){ 768, "3 blocks: rows of 210 bytes a block start on even bytes" };
    out[1] = (width){ 256, "the least row" };
    return 2;
}

void check_embed(rig *r) {
    for (size_t i = 0; i < RIG_FORMATS; i++) {
        width list[3];
        const uint32_t n = widths(rig_formats[i].type, list);
        for (uint32_t j = 0; j < n; j++) {
            embed_row(r, &rig_formats[i], list[j].cols, list[j].reason);
        }
    }
}

/* ---- norm ---------------------------------------------------------------------------------- */

typedef struct {
    uint32_t dim, n;
    bool pick;
    double scale;
    const char *reason;
} norm_case;

static void norm_row(rig *r, const norm_case *c, const rig_reduce *reduce) {
    enum { ROWS = 9 };
    char kernel[96];
    snprintf(kernel, sizeof(kernel), "norm %s", reduce->part->name);
    if (!rig_begin(r, kernel, c->reason, "dim %u, rows %u%s, |x| %g", c->dim, c->n,
                   c->pick ? " picked" : "", c->scale)) {
        return;
    }
    const float eps = 1e-5f;
    const size_t dim = c->dim;
    const uint32_t *pick = rig_shuffled(r, ROWS);
    const float *x = rig_normals(r, ROWS * dim, c->scale), *w = rig_normals(r, dim, 1);
    const double *xd = rig_doubles(r, x, ROWS * dim);
    double *want = rig_alloc(r, ROWS * dim, sizeof(double));
    ref_norm(want, xd, w, ROWS, dim, (double)eps);
    const size_t plant = (c->pick ? pick[0] : 0) * dim + dim / 2;
    rig_output *y = rig_out(r, NULL, c->n * dim);
    const norm_consts consts = {
        .dim = c->dim,
        .eps = eps,
        .pick = c->pick,
        .wg = LANES_NORM,
        .team = reduce->team,
    };
    rig_call(r, &norm_source, (const gpu_fragment *[]){ reduce->part }, &consts,
             (gpu_call){
                 .bind = { [NORM_X] = rig_numbers(r, x, ROWS * dim, plant),
                           [NORM_W] = rig_in(r, w, dim * 4),
                           [NORM_PICK] = rig_in(r, pick, ROWS * 4),
                           [NORM_Y] = y->range },
                 .groups = { { .times = c->n } },
             });
    /* Relative error of the sum of squares: a square, 4 additions of a dot product, those of a
     * lane, of the tree and of the teams. The root halves it together with the mean's division
     * (2.5) and the addition of eps (1); then inverseSqrt (2) and two products. */
    const double sum = 1 + 4 + ceil_div(c->dim / 4, LANES_NORM) + log2_of(reduce->team) +
                       LANES_NORM / reduce->team;
    const double relative = ((sum + 2.5 + 1) / 2 + 2 + 2) * U;
    if (rig_run(r)) {
        for (size_t i = 0; i < c->n; i++) {
            const size_t row = c->pick ? pick[i] : i;
            for (size_t d = 0; d < dim; d++) {
                const double v = want[row * dim + d];
                rig_expect(r, rig_float(y, i * dim + d), v, relative * fabs(v));
            }
        }
    }
    rig_end(r);
}

void check_norm(rig *r) {
    static const norm_case cases[] = {
        { 4, 1, false, 1, "one lane has anything" },
        { 32, 3, true, 1, "rows in another order" },
        { 1028, 2, false, 1, "257 vec4s: one lane has two" },
        { 4096, 9, true, 1, "every lane has several" },
        { 172, 9, false, 1e-4, "eps outweighs the squares" },
        { 576, 2, false, 1e4, "outliers of a residual stream" },
        { 64, 2, false, 0, "zeros stay zeros" },
    };
    rig_reduce reduces[2];
    const uint32_t n = rig_reduces(r, reduces);
    for (uint32_t i = 0; i < n; i++) {
        for (size_t j = 0; j < ARRAY_LEN(cases); j++)
            norm_row(r, &cases[j], &reduces[i]);
    }
}

/* ---- matrix products ----------------------------------------------------------------------- */

typedef struct {
    const rig_format *format;
    const rig_reduce *reduce;       /* NULL: matmul */
    uint32_t cols, rows, tokens, n; /* tokens: TOKENS of matvec */
    bool bias, add;
    const char *reason;
} product;

/* What the roundings of W x add up to, by running error analysis (Higham 2002, 3.3) in the order of
 * the kernels: every addition errs by U times the partial sum it makes; before them a weight, its
 * product and a dot product of 4 by U |w x| each, six in all. Less generous than the length of the
 * sum times the sum of magnitudes, which at 11,008 columns would hide a wrong weight. */
static double product_bound(const product *c, const float *w, const double *x) {
    const uint32_t team = c->reduce == NULL ? 1 : c->reduce->team;
    double sums[64] = { 0 }, error = 0, most = 0, all = 0;
    assert(team <= ARRAY_LEN(sums));
    for (uint32_t unit = 0; unit < ceil_div(c->cols, 32); unit++) {
        double *sum = &sums[unit % team], s = 0;
        for (uint32_t i = unit * 32; i < min_u32(c->cols, unit * 32 + 32); i += 4) {
            double dot = 0;
            for (uint32_t j = i; j < i + 4; j++) {
                dot += (double)w[j] * x[j];
                most += fabs((double)w[j] * x[j]);
            }
            s += dot;
            error += fabs(c->reduce == NULL ? *sum + s : s);
        }
        *sum += s;
        error += c->reduce == NULL ? 0 : fabs(*sum);
    }
    for (uint32_t i = 0; i < team; i++)
        all += fabs(sums[i]);
    return U * (error + log2_of(team) * all + 6 * most);
}

static void call_product(rig *r, const product *c, gpu_range w, gpu_range x, gpu_range bias,
                         const rig_output *y, uint32_t stride, uint32_t column, uint32_t first) {
    /* n stands in different places, so that a wrong `counted` is seen. */
    const uint32_t sizes[4] = { 77, c->n, 77, 77 };
    if (c->reduce == NULL) {
        const matmul_consts consts = { .k = c->cols, .bias = c->bias, .add = c->add };
        const matmul_params params = {
            .rows = c->rows, .stride = stride, .column = column, .bias_first = first, .counted = 1
        };
        rig_call(
            r, &matmul_source, (const gpu_fragment *[]){ c->format->part }, &consts,
            (gpu_call){
                .bind = { w, [MATMUL_X] = x, [MATMUL_BIAS] = bias,
                          [MATMUL_SIZES] = rig_sizes(r, sizes), [MATMUL_Y] = y->range },
                .params = &params,
                .groups = { { .times = ceil_div(c->rows, 64) }, { .times = ceil_div(c->n, 32) } },
            });
        return;
    }
    const uint32_t groups = ceil_div(c->rows, LANES_MATVEC / c->reduce->team);
    const uint32_t grid_x = min_u32(groups, 5); /* so that the grid has a second row */
    const matvec_consts consts = { .k = c->cols,
                                   .tokens = c->tokens,
                                   .bias = c->bias,
                                   .add = c->add,
                                   .wg = LANES_MATVEC,
                                   .team = c->reduce->team };
    const matvec_params params = { .rows = c->rows,
                                   .grid_x = grid_x,
                                   .stride = stride,
                                   .column = column,
                                   .bias_first = first,
                                   .counted = 1 };
    rig_call(r, &matvec_source, (const gpu_fragment *[]){ c->format->part, c->reduce->part },
             &consts,
             (gpu_call){
                 .bind = { w, [MATVEC_X] = x, [MATVEC_BIAS] = bias,
                           [MATVEC_SIZES] = rig_sizes(r, sizes), [MATVEC_Y] = y->range },
                 .params = &params,
                 .groups = { { .times = grid_x }, { .times = ceil_div(groups, grid_x) } },
             });
}

static void product_row(rig *r, const product *c) {
    char kernel[96];
    snprintf(kernel, sizeof(kernel), "%s %s%s%s", c->reduce == NULL ? "matmul" : "matvec",
             c->format->name, c->reduce == NULL ? "" : " ",
             c->reduce == NULL ? "" : c->reduce->part->name);
    if (!rig_begin(r, kernel, c->reason, "K %u, rows %u, n %u of %u%s%s", c->cols, c->rows, c->n,
                   c->tokens, c->bias ? ", bias" : "", c->add ? ", add" : "")) {
        return;
    }
    /* A column and a stride of the kind that q, k and v have side by side, and a later part's bias.
     */
    const uint32_t column = 3, stride = c->rows + 5, first = 6;
    const size_t k = c->cols, rows = c->rows, n = c->n;
    float *w;
    const gpu_range matrix = rig_weights(r, c->format->type, rows, k, &w);
    const float *x = rig_normals(r, n * k, 1), *bias = rig_normals(r, first + rows, 1);
    const float *before = rig_normals(r, n * stride, 1);
    const double *xd = rig_doubles(r, x, n * k);
    double *want = rig_alloc(r, n * rows, sizeof(double));
    ref_matmul(want, w, c->bias ? bias + first : NULL, xd, n, rows, k);
    rig_output *y = rig_out(r, c->add ? before : NULL, n * stride);
    call_product(r, c, matrix, rig_in(r, x, n * k * 4),
                 c->bias ? rig_in(r, bias, (first + rows) * 4) : rig_in(r, bias, 4), y, stride,
                 column, first);
    if (rig_run(r)) {
        for (size_t t = 0; t < n; t++) {
            rig_kept(r, y, t * stride, column);
            for (size_t i = 0; i < rows; i++) {
                const size_t at = t * stride + column + i;
                double v = want[t * rows + i], bound = product_bound(c, w + i * k, xd + t * k);
                if (c->bias) bound += U * fabs(v);
                if (c->add) v += (double)before[at];
                if (c->add) bound += U * fabs(v);
                rig_expect(r, rig_float(y, at), v, bound);
            }
            rig_kept(r, y, t * stride + column + rows, stride - column - rows);
        }
    }
    rig_end(r);
}

static void matvec_formats(rig *r, const rig_reduce *reduce) {
    for (size_t i = 0; i < RIG_FORMATS; i++) {
        const rig_format *f = &rig_formats[i];
        width list[3];
        const uint32_t n = widths(f->type, list);
        for (uint32_t j = 0; j < n; j++) {
            product_row(r,
                        &(product){ f, reduce, list[j].cols, 13, 1, 1, .reason = list[j].reason });
        }
        /* The first row's pipeline is as above but for TOKENS. */
        product_row(r, &(product){ f, reduce, list[0].cols, 13, 8, 5, .reason = "some of 8 rows" });
    }
}

void check_matvec(rig *r) {
    rig_reduce reduces[2];
    const uint32_t n = rig_reduces(r, reduces);
    for (uint32_t i = 0; i < n; i++) {
        const rig_reduce *reduce = &reduces[i];
        matvec_formats(r, reduce);
        const rig_format *f = &rig_formats[0], *q4_0 = &rig_formats[3];
        for (uint32_t rows = 1; rows <= 8; rows++) {
            product_row(r,
                        &(product){ f, reduce, 172, 7, 8, rows, .reason = "every count of rows" });
        }
        static const uint32_t heights[] = { 1, 3, 4, 5, 65, 1001 };
        for (size_t j = 0; j < ARRAY_LEN(heights); j++) {
            product_row(r, &(product){ q4_0, reduce, 96, heights[j], 1, 1,
                                       .reason = "matrix rows that do not fill the workgroups" });
        }
        for (uint32_t tokens = 1; tokens <= 8; tokens += 7) {
            product_row(r, &(product){ f, reduce, 172, 7, tokens, tokens, true, false, "bias" });
            product_row(r,
                        &(product){ f, reduce, 172, 7, tokens, tokens, false, true, "residual" });
            product_row(r, &(product){ q4_0, reduce, 96, 7, tokens, tokens, true, true, "both" });
        }
        product_row(r,
                    &(product){ f, reduce, 11008, 3, 1, 1, .reason = "a long row (Llama 2 7B)" });
    }
}

void check_matmul(rig *r) {
    for (size_t i = 0; i < RIG_FORMATS; i++) {
        width list[3];
        const uint32_t n = widths(rig_formats[i].type, list);
        for (uint32_t j = 0; j < n; j++) {
            product_row(r, &(product){ &rig_formats[i], NULL, list[j].cols, 70, 0, 33,
                                       .reason = list[j].reason });
        }
    }
    static const struct {
        uint32_t rows, n;
        const char *reason;
    } edges[] = {
        { 64, 32, "one full tile" },           { 1, 1, "the least product" },
        { 63, 31, "a tile short of one" },     { 65, 33, "one more than a tile" },
        { 200, 100, "several tiles of both" },
    };
    const rig_format *f = &rig_formats[0], *q4_0 = &rig_formats[3];
    for (size_t i = 0; i < ARRAY_LEN(edges); i++) {
        product_row(
            r, &(product){ f, NULL, 172, edges[i].rows, 0, edges[i].n, .reason = edges[i].reason });
        product_row(r, &(product){ q4_0, NULL, 96, edges[i].rows, 0, edges[i].n,
                                   .reason = edges[i].reason });
    }
    product_row(r, &(product){ f, NULL, 172, 65, 0, 33, true, false, "bias" });
    product_row(r, &(product){ f, NULL, 172, 65, 0, 33, false, true, "residual" });
    product_row(r, &(product){ q4_0, NULL, 96, 65, 0, 33, true, true, "both" });
    product_row(r, &(product){ f, NULL, 11008, 3, 0, 2, .reason = "a long row (Llama 2 7B)" });
}

/* ---- glu ----------------------------------------------------------------------------------- */

static void glu_row(rig *r, uint32_t n4, uint32_t rows, double scale, const char *reason) {
    if (!rig_begin(r, "glu", reason, "N4 %u, rows %u, |g| %g", n4, rows, scale)) return;
    const size_t n = 4 * (size_t)n4;
    float *gu = rig_normals(r, rows * 2 * n, 1);
    for (size_t i = 0; i < rows * 2 * n; i++) {
        if (i % (2 * n) < n) gu[i] *= (float)scale;
    }
    gu[0] = 0; /* 0 / 2 */
    gu[1] = -0.5f;
    double *want = rig_alloc(r, n, sizeof(double));
    rig_output *h = rig_out(r, NULL, rows * n);
    rig_call(r, &glu_source, NULL, &(glu_consts){ .n4 = n4 },
             (gpu_call){
                 .bind = { [GLU_GU] = rig_numbers(r, gu, rows * 2 * n, 1), [GLU_H] = h->range },
                 .groups = { { .times = ceil_div(n4, 64) }, { .times = rows } },
             });
    if (rig_run(r)) {
        for (size_t t = 0; t < rows; t++) {
            const double *both = rig_doubles(r, gu + t * 2 * n, 2 * n);
            ref_glu(want, both, both + n, n);
            for (size_t i = 0; i < n; i++) {
                /* exp, the sum, the quotient, the product. Where exp(-g) leaves f32 (g < -88) the
                 * result is below 1e-36 |u| and may become zero. */
                const double e = U * (3 + 2 * fabs(both[i])) + U * (1 + 2.5 + 1);
                rig_expect(r, rig_float(h, t * n + i), want[i],
                           e * fabs(want[i]) + 1e-36 * fabs(both[n + i]));
            }
        }
    }
    rig_end(r);
}

void check_glu(rig *r) {
    glu_row(r, 1, 1, 1, "the least");
    glu_row(r, 43, 3, 1, "ffn_dim 172: lanes without work");
    glu_row(r, 64, 2, 5, "exactly one workgroup a row");
    glu_row(r, 65, 2, 5, "one lane in a second workgroup");
    glu_row(r, 16, 2, 200, "exp(-g) overflows on one side and vanishes on the other");
}
