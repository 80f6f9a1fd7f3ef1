/* check_dense: embedding, norms, soft cap, the two matrix products, the gate, sums of squares. */
#include "ref/check_internal.h"

#include <float.h>
#include <math.h>
#include <stdio.h>

enum { LANES_NORM = 256, LANES_QK_NORM = 64, LANES_MATVEC = 64 }; /* as in model/ops.c */

static uint32_t log2_of(uint32_t n) {
    return n <= 1 ? 0 : 1 + log2_of(n / 2);
}

/* ---- embed --------------------------------------------------------------------------------- */

/* A weight is decoded by exact products and at most one rounding: an integer code of at most 8 bits
 * times a scale of 11 bits and one of at most 8 (one rounding where that has over 24 bits), or else
 * plus a product of the same kind (all of at most 24 bits). Subnormal weights, which only MXFP4
 * has, may be flushed to zero (WGSL 1.0, "Floating point accuracy"). */
static double decode_bound(dtype type, float w) {
    const double size = fabs((double)w);
    return !dtype_is_quantised(type) ? 0 : size < (double)FLT_MIN ? size : U * size;
}

typedef struct {
    const rig_format *format;
    uint32_t cols;
    bool extreme, learned;
    float scale; /* 0: 1 */
    const char *reason;
} embed_case;

static void embed_row(rig *r, const embed_case *e) {
    enum { VOCAB = 23, FIRST = 5, COUNT = 13, ROWS = 9, SLOTS = 3, POSITIONS = 14, LANES = 32 };
    const rig_format *f = e->format;
    const uint32_t cols = e->cols;
    const float scale = e->scale == 0 ? 1 : e->scale;
    char kernel[96];
    snprintf(kernel, sizeof(kernel), "embed %s", f->name);
    if (!rig_begin(r, kernel, e->reason, "K %u, rows %d, part %d..%d of %d%s%s%s", cols, ROWS,
                   FIRST, FIRST + COUNT - 1, VOCAB, e->extreme ? ", extreme scales" : "",
                   e->scale == 0 ? "" : ", scaled", e->learned ? ", learned positions" : "")) {
        return;
    }
    /* Both ends of the part, both neighbours of it, one token twice in a slot and once in another.
     */
    static const uint32_t tokens[ROWS] = { FIRST, FIRST + COUNT - 1, FIRST - 1, FIRST + COUNT,
                                           0,     VOCAB - 1,         9,         9,
                                           9 };
    uint32_t rows[ROWS][4], counts[SLOTS * VOCAB];
    for (uint32_t i = 0; i < ROWS; i++) {
        rows[i][0] = tokens[i], rows[i][1] = i % 2 + (i == 8), rows[i][2] = POSITIONS - 1 - i;
        rows[i][3] = 0;
    }
    for (uint32_t i = 0; i < SLOTS * VOCAB; i++)
        counts[i] = rig_below(r, 5);
    float *w;
    const gpu_range table = e->extreme ? rig_extreme_weights(r, f->type, COUNT, cols, &w)
                                       : rig_weights(r, f->type, COUNT, cols, &w);
    const size_t n_positions = e->learned ? (size_t)POSITIONS * cols : 4;
    const float *positions = rig_normals(r, n_positions, 1);
    rig_output *seen = rig_out(r, counts, SLOTS * VOCAB),
               *x = rig_out(r, NULL, (size_t)ROWS * cols);
    rig_output *squares = rig_out(r, NULL, 4), *act = rig_out(r, NULL, 4); /* nothing follows */
    const embed_consts consts = {
        .k = cols, .vocab = VOCAB, .scale = scale, .learned = e->learned, .wg = LANES
    };
    rig_call(r, &embed_source, (const gpu_fragment *[]){ f->part, &act_f32_part }, &consts,
             (gpu_call){
                 .bind = { table, [EMBED_ROWS] = rig_in(r, rows, sizeof(rows)),
                           [EMBED_COUNTS] = seen->range,
                           [EMBED_POSITIONS] = rig_in(r, positions, n_positions * 4),
                           [EMBED_X] = x->range, [EMBED_W] = rig_in(r, positions, 16),
                           [EMBED_SQUARES] = squares->range, [ACT_F32_ACT] = act->range },
                 .params = &(embed_params){ .first = FIRST, .count = COUNT },
                 .groups = { { .times = ROWS } },
             });
    if (rig_run(r)) {
        for (uint32_t i = 0; i < ROWS; i++) {
            const bool inside = tokens[i] >= FIRST && tokens[i] < FIRST + COUNT;
            if (!inside) rig_kept(r, x, (size_t)i * cols, cols);
            for (uint32_t c = 0; c < cols && inside; c++) {
                const float weight = w[(tokens[i] - FIRST) * cols + c];
                double want = (double)weight * (double)scale;
                double bound = decode_bound(f->type, weight) * (double)scale;
                if (scale != 1) bound += U * fabs(want);
                if (e->learned) want += (double)positions[rows[i][2] * cols + c];
                if (e->learned) bound += U * fabs(want);
                rig_expect(r, rig_float(x, i * cols + c), want, bound);
            }
            if (inside) counts[rows[i][1] * VOCAB + tokens[i]] |= REF_SEEN;
        }
        for (uint32_t i = 0; i < SLOTS * VOCAB; i++)
            rig_bits(r, seen->after[i], counts[i]);
        rig_kept(r, squares, 0, 4);
        rig_kept(r, act, 0, 4);
    }
    rig_end(r);
}

/* Widths for each format: odd numbers of blocks, so that rows start at every offset a row can start
 * at. Rows of packs are filled up to whole blocks, and what is behind their last column counts for
 * nothing: the same kernels, so most rows here are of that kind. */
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
        out[0] = (width){ 96, "3 blocks: rows start on any byte (17 a block) or any even one" };
        out[1] = (width){ 36, "a pack's row, which ends inside its last block" };
        out[2] = (width){ 1056, "33 blocks: one more than the lanes of a team" };
        return 3;
    }
    out[0] =
        (width){ 640, "3 blocks, the last half full: rows of 110 and 210 bytes a block start on "
                      "any even byte" };
    out[1] = (width){ 36, "a pack's row, most of whose block is not there" };
    out[2] = (width){ 260, "the same, one vec4 into its last block" };
    return type == DTYPE_Q4_K ? 3 : 2;
}

void check_embed(rig *r) {
    for (size_t i = 0; i < RIG_FORMATS; i++) {
        width list[3];
        const uint32_t n = widths(rig_formats[i].type, list);
        for (uint32_t j = 0; j < n; j++) {
            embed_row(r, &(embed_case){ &rig_formats[i], list[j].cols, .reason = list[j].reason });
        }
        if (!dtype_is_quantised(rig_formats[i].type)) continue;
        /* 9 blocks a row, so that the first row alone has every scale. */
        embed_row(r, &(embed_case){ &rig_formats[i],
                                    9 * dtype_get(rig_formats[i].type)->block_elements, true,
                                    .reason = "zero, subnormal and the largest scales" });
    }
    const rig_format *f = &rig_formats[0], *q4_0 = &rig_formats[3];
    embed_row(r, &(embed_case){ f, 172, .scale = 13.114877f, .reason = "Gemma: times sqrt(dim)" });
    embed_row(r, &(embed_case){ f, 172, .learned = true, .reason = "GPT-2" });
    embed_row(r, &(embed_case){ q4_0, 96, .learned = true, .scale = 12, .reason = "both" });
}

/* ---- norm ---------------------------------------------------------------------------------- */

typedef struct {
    uint32_t dim, n;
    bool pick;
    double scale;
    const char *reason;
    bool layer, add;
    double mean; /* of x */
} norm_case;

rig_centre rig_centre_of(const double *x, size_t dim, double eps, double steps) {
    double mean = 0, size = 0, variance = eps;
    for (size_t i = 0; i < dim; i++) {
        mean += x[i] / (double)dim;
        size += fabs(x[i]) / (double)dim;
    }
    for (size_t i = 0; i < dim; i++)
        variance += (x[i] - mean) * (x[i] - mean) / (double)dim;
    const double d = U * steps * size;
    return (rig_centre){ 2 * U + d * d / variance / 2, d / sqrt(variance), U };
}

double rig_squares_error(uint32_t dim, uint32_t lanes, uint32_t team) {
    return 1 + 4 + ceil_div(dim / 4, lanes) + log2_of(team) + lanes / team;
}

double rig_norm_error(double squares) {
    return ((squares + 2.5 + 1) / 2 + 2 + 2) * U;
}

static void norm_row(rig *r, const norm_case *c, const rig_reduce *reduce) {
    enum { ROWS = 9 };
    char kernel[96];
    snprintf(kernel, sizeof(kernel), "norm %s%s", c->layer ? "layer " : "", reduce->part->name);
    if (!rig_begin(r, kernel, c->reason, "dim %u, rows %u%s, |x| %g%s", c->dim, c->n,
                   c->pick ? " picked" : "", c->mean + c->scale, c->add ? ", add" : "")) {
        return;
    }
    const float eps = 1e-5f;
    const size_t dim = c->dim;
    const uint32_t *pick = rig_shuffled(r, ROWS);
    float *x = rig_normals(r, ROWS * dim, c->scale);
    for (size_t i = 0; i < ROWS * dim; i++)
        x[i] += (float)c->mean;
    const float *w = rig_normals(r, dim, 1), *b = rig_normals(r, dim, 1);
    const float *before = rig_normals(r, c->n * dim, 1);
    const double *xd = rig_doubles(r, x, ROWS * dim);
    double *want = rig_alloc(r, ROWS * dim, sizeof(double));
    if (c->layer)
        ref_layer_norm(want, xd, w, b, ROWS, dim, (double)eps);
    else
        ref_norm(want, xd, w, ROWS, dim, (double)eps);
    const size_t plant = (c->pick ? pick[0] : 0) * dim + dim / 2;
    rig_output *y = rig_out(r, c->add ? before : NULL, c->n * dim);
    const norm_consts consts = {
        .dim = c->dim,
        .eps = eps,
        .layer = c->layer,
        .add = c->add,
        .pick = c->pick,
        .wg = LANES_NORM,
        .team = reduce->team,
    };
    rig_call(r, &norm_source, (const gpu_fragment *[]){ reduce->part }, &consts,
             (gpu_call){
                 .bind = { [NORM_X] = rig_numbers(r, x, ROWS * dim, plant),
                           [NORM_W] = rig_in(r, w, dim * 4),
                           [NORM_B] = rig_in(r, b, c->layer ? dim * 4 : 4),
                           [NORM_PICK] = rig_in(r, pick, ROWS * 4),
                           [NORM_Y] = y->range },
                 .groups = { { .times = c->n } },
             });
    const double sum = rig_squares_error(c->dim, LANES_NORM, reduce->team);
    const double relative = rig_norm_error(sum);
    if (rig_run(r)) {
        for (size_t i = 0; i < c->n; i++) {
            const size_t row = (c->pick ? pick[i] : i) * dim;
            const rig_centre at =
                c->layer ? rig_centre_of(xd + row, dim, (double)eps, sum + 1.5) : (rig_centre){ 0 };
            for (size_t d = 0; d < dim; d++) {
                double v = want[row + d];
                double bound = (relative + at.own) * fabs(v - (double)(c->layer ? b[d] : 0)) +
                               at.error * fabs((double)w[d]) + at.bias * fabs(v);
                if (c->add) v += (double)before[i * dim + d];
                if (c->add) bound += U * fabs(v);
                rig_expect(r, rig_float(y, i * dim + d), v, bound);
            }
        }
    }
    rig_end(r);
}

void check_norm(rig *r) {
    static const norm_case cases[] = {
        { 4, 1, false, 1, .reason = "one lane has anything" },
        { 32, 3, true, 1, .reason = "rows in another order" },
        { 1028, 2, false, 1, .reason = "257 vec4s: one lane has two" },
        { 4096, 9, true, 1, .reason = "every lane has several" },
        { 172, 9, false, 1e-4, .reason = "eps outweighs the squares" },
        { 576, 2, false, 1e4, .reason = "outliers of a residual stream" },
        { 64, 2, false, 0, .reason = "zeros stay zeros" },
        { 172, 9, false, 1, .reason = "behind a block, into the stream", .add = true },
        { 1028, 3, true, 1e3, .reason = "the same from picked rows", .add = true },
        { 4, 1, false, 1, .reason = "one lane has anything", .layer = true },
        { 768, 9, true, 1, .reason = "GPT-2, rows in another order", .layer = true },
        { 1028, 2, false, 1, .reason = "a mean of 1,000 deviations", .layer = true, .mean = 1000 },
        { 576, 3, false, 1e-4, .reason = "eps outweighs the deviation", .layer = true, .mean = -3 },
        { 64, 2, false, 0, .reason = "a constant", .layer = true, .mean = 7.7 },
        { 64, 2, false, 0, .reason = "zeros become the bias", .layer = true },
        { 172, 9, false, 1, .reason = "into the stream", .layer = true, .add = true, .mean = 5 },
    };
    rig_reduce reduces[2];
    const uint32_t n = rig_reduces(r, reduces);
    for (uint32_t i = 0; i < n; i++) {
        for (size_t j = 0; j < ARRAY_LEN(cases); j++)
            norm_row(r, &cases[j], &reduces[i]);
    }
}

/* ---- qk_norm ------------------------------------------------------------------------------- */

typedef struct {
    uint32_t n_heads, n_kv, head_dim;
    bool whole;
    double scale;
    const char *reason;
} qk_norm_case;

static void qk_norm_row(rig *r, const qk_norm_case *c, const rig_reduce *reduce) {
    enum { ROWS = 3 };
    char kernel[96];
    snprintf(kernel, sizeof(kernel), "qk_norm %s", reduce->part->name);
    if (!rig_begin(r, kernel, c->reason, "heads %u/%u of %u%s, |x| %g", c->n_heads, c->n_kv,
                   c->head_dim, c->whole ? " together" : "", c->scale)) {
        return;
    }
    const float eps = 1e-6f;
    const uint32_t lanes = c->whole ? LANES_NORM : LANES_QK_NORM;
    const size_t hd = c->head_dim, heads = c->n_heads + c->n_kv, row_size = (heads + c->n_kv) * hd;
    const float *x = rig_normals(r, ROWS * row_size, c->scale);
    const size_t n_wq = c->whole ? c->n_heads * hd : hd, n_wk = c->whole ? c->n_kv * hd : hd;
    const float *wq = rig_normals(r, n_wq, 1), *wk = rig_normals(r, n_wk, 1);
    const double *xd = rig_doubles(r, x, ROWS * row_size);
    double *want = rig_alloc(r, ROWS * row_size, sizeof(double));
    for (size_t t = 0; t < ROWS; t++) {
        const double *row = xd + t * row_size;
        double *to = want + t * row_size;
        const size_t nq = c->n_heads * hd;
        ref_norm(to, row, wq, nq / n_wq, n_wq, (double)eps);
        ref_norm(to + nq, row + nq, wk, c->n_kv * hd / n_wk, n_wk, (double)eps);
    }
    float *device = rig_alloc(r, ROWS * row_size, sizeof(float));
    memcpy(device, x, ROWS * row_size * sizeof(float));
    if (c->scale == 0 && rig_plant(r)) device[0] += 8; /* zeros hide what the weights are */
    rig_output *qkv = rig_out(r, device, ROWS * row_size);
    const qk_norm_consts consts = {
        .n_heads = c->n_heads,
        .n_kv = c->n_kv,
        .head_dim = c->head_dim,
        .eps = eps,
        .whole = c->whole,
        .wg = lanes,
        .team = reduce->team,
    };
    rig_call(r, &qk_norm_source, (const gpu_fragment *[]){ reduce->part }, &consts,
             (gpu_call){
                 .bind = { [QK_NORM_WQ] = rig_numbers(r, wq, n_wq, n_wq - 1),
                           [QK_NORM_WK] = rig_in(r, wk, n_wk * 4),
                           [QK_NORM_QKV] = qkv->range },
                 .groups = { { .times = c->whole ? 2 : (uint32_t)heads }, { .times = ROWS } },
             });
    /* As norm, but that squares are added one by one: no dot products. */
    const double sum = 1 + ceil_div((uint32_t)max_u64(n_wq, n_wk), lanes) + log2_of(reduce->team) +
                       lanes / reduce->team;
    const double relative = ((sum + 2.5 + 1) / 2 + 2 + 2) * U;
    if (rig_run(r)) {
        for (size_t t = 0; t < ROWS; t++) {
            for (size_t i = 0; i < heads * hd; i++) {
                const double v = want[t * row_size + i];
                rig_expect(r, rig_float(qkv, t * row_size + i), v, relative * fabs(v));
            }
            rig_kept(r, qkv, t * row_size + heads * hd, c->n_kv * hd);
        }
    }
    rig_end(r);
}

void check_qk_norm(rig *r) {
    static const qk_norm_case cases[] = {
        { 2, 1, 2, false, 1, "the least head: two lanes have anything" },
        { 3, 1, 6, false, 1, "heads that are no multiple of 4" },
        { 9, 3, 80, false, 1, "some lanes have two" },
        { 5, 5, 128, false, 1, "Qwen 3's head, odd numbers of heads" },
        { 4, 1, 256, false, 30, "Gemma 3's head" },
        { 4, 2, 64, false, 1e-4, "eps outweighs the squares" },
        { 3, 1, 64, false, 0, "zeros stay zeros" },
        { 1, 1, 2, true, 1, "the least width" },
        { 4, 4, 16, true, 1, "OLMo 2: q and k of equal width" },
        { 5, 1, 64, true, 1, "q and k of different widths" },
        { 32, 8, 128, true, 1e3, "every lane has several" },
        { 3, 1, 6, true, 1e-4, "eps outweighs the squares" },
    };
    rig_reduce reduces[2];
    const uint32_t n = rig_reduces(r, reduces);
    for (uint32_t i = 0; i < n; i++) {
        for (size_t j = 0; j < ARRAY_LEN(cases); j++)
            qk_norm_row(r, &cases[j], &reduces[i]);
    }
}

/* ---- softcap ------------------------------------------------------------------------------- */

/* The slope of tanh falls with |z|, so it is taken where |z| is least. */
double rig_softcap_bound(double z, double cap, double error) {
    const double q = fabs(z) / cap, t = tanh(q);
    const double least = tanh(fmax(0, fabs(z) - error) / cap);
    const double quotient = error / cap + 2.5 * U * q;
    return cap * (fmin(1, (1 - least * least) * quotient) + TANH_ERROR) + U * cap * t;
}

static void softcap_row(rig *r, uint32_t size, uint32_t n, double cap, double scale,
                        const char *reason) {
    if (!rig_begin(r, "softcap", reason, "size %u, n %u, cap %g, |z| %g", size, n, cap, scale))
        return;
    const size_t total = (size_t)size * n;
    float *z = rig_normals(r, total, scale), *device = rig_alloc(r, total, sizeof(float));
    z[0] = 0;
    if (total > 2) z[1] = 1e38f, z[2] = -1e38f; /* the ends of f32 become +-cap */
    memcpy(device, z, total * sizeof(float));
    if (rig_plant(r)) device[0] += 8; /* in place: there is no other input */
    rig_output *y = rig_out(r, device, total);
    rig_call(r, &softcap_source, NULL, &(softcap_consts){ .size = size, .cap = (float)cap },
             (gpu_call){
                 .bind = { [SOFTCAP_Z] = y->range },
                 .groups = { { .times = ceil_div(size, 64) }, { .times = n } },
             });
    if (rig_run(r)) {
        for (size_t i = 0; i < total; i++) {
            double want = (double)z[i];
            ref_softcap(&want, 1, cap);
            rig_expect(r, rig_float(y, i), want, rig_softcap_bound((double)z[i], cap, 0));
        }
    }
    rig_end(r);
}

void check_softcap(rig *r) {
    softcap_row(r, 1, 1, 30, 1, "the least");
    softcap_row(r, 65, 3, 30, 30, "Gemma 2: round the cap");
    softcap_row(r, 128, 2, 50, 1, "far below the cap");
    softcap_row(r, 100, 2, 30, 1e4, "far above the cap");
    softcap_row(r, 1000, 1, 0.5, 2, "a small cap");
}

/* ---- matrix products ----------------------------------------------------------------------- */

typedef struct {
    const rig_format *format;
    const rig_reduce *reduce;
    uint32_t cols, rows, tokens, n; /* tokens: TOKENS of matvec */
    bool bias, add;
    const char *reason;
    float scale; /* 0: 1 */
} product;

/* What the roundings of W x add up to, by running error analysis (Higham 2002, 3.3) in the order of
 * the kernels: every addition errs by U times the partial sum it makes; before them a weight, its
 * product and a dot product of 4 by U |w x| each, six in all. Less generous than the length of the
 * sum times the sum of magnitudes, which at 11,008 columns would hide a wrong weight. */
double rig_product_bound(uint32_t team, uint32_t cols, const float *w, const double *x) {
    double sums[64] = { 0 }, error = 0, most = 0, all = 0;
    assert(team <= ARRAY_LEN(sums));
    for (uint32_t unit = 0; unit < ceil_div(cols, 32); unit++) {
        double *sum = &sums[unit % team];
        for (uint32_t i = unit * 32; i < min_u32(cols, unit * 32 + 32); i += 4) {
            double dot = 0;
            for (uint32_t j = i; j < i + 4; j++) {
                dot += (double)w[j] * x[j];
                most += fabs((double)w[j] * x[j]);
            }
            *sum += dot;
            error += fabs(*sum);
        }
    }
    for (uint32_t i = 0; i < team; i++)
        all += fabs(sums[i]);
    return U * (error + log2_of(team) * all + 6 * most);
}

void rig_expect_product(rig *r, float got, double sum, double bound, bool bias, float scale,
                        const uint32_t *before) {
    double v = sum, error = bound;
    if (bias) error += U * fabs(v);
    if (scale != 0) {
        v *= (double)scale;
        error = (double)scale * error + U * fabs(v);
    }
    if (before != NULL) {
        float old;
        memcpy(&old, before, sizeof(old));
        v += (double)old;
        error += U * fabs(v);
    }
    rig_expect(r, got, v, error);
}

static void call_product(rig *r, const product *c, gpu_range w, gpu_range x, gpu_range bias,
                         const rig_output *y, uint32_t stride, uint32_t column, uint32_t first) {
    /* n stands in different places, so that a wrong `counted` is seen. */
    const uint32_t sizes[4] = { 77, c->n, 77, 77 };
    const float scale = c->scale == 0 ? 1 : c->scale;
    const gpu_range none = rig_in(r, sizes, sizeof(sizes));
    const uint32_t groups = ceil_div(c->rows, LANES_MATVEC / c->reduce->team);
    const uint32_t grid_x = min_u32(groups, 5); /* so that the grid has a second row */
    const matvec_consts consts = { .k = c->cols,
                                   .tokens = c->tokens,
                                   .bias = c->bias,
                                   .add = c->add,
                                   .scale = scale,
                                   .x_per = 1,
                                   .wg = LANES_MATVEC,
                                   .team = c->reduce->team };
    const matvec_params params = { .rows = c->rows,
                                   .grid_x = grid_x,
                                   .stride = stride,
                                   .column = column,
                                   .bias_first = first,
                                   .counted = 1 };
    rig_call(
        r, &matvec_source, (const gpu_fragment *[]){ c->format->part, c->reduce->part }, &consts,
        (gpu_call){
            .bind = { w, [MATVEC_X] = x, [MATVEC_BIAS] = bias, [MATVEC_SIZES] = rig_sizes(r, sizes),
                      [MATVEC_Y] = y->range, [MATVEC_CHOICE] = none, [MATVEC_PLACE] = none },
            .params = &params,
            .groups = { { .times = grid_x }, { .times = ceil_div(groups, grid_x) } },
        });
}

static void product_row(rig *r, const product *c) {
    char kernel[96];
    snprintf(kernel, sizeof(kernel), "matvec %s %s", c->format->name, c->reduce->part->name);
    if (!rig_begin(r, kernel, c->reason, "K %u, rows %u, n %u of %u%s%s%s", c->cols, c->rows, c->n,
                   c->tokens, c->bias ? ", bias" : "", c->add ? ", add" : "",
                   c->scale == 0 ? "" : ", scaled")) {
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
                rig_expect_product(
                    r, rig_float(y, at), want[t * rows + i],
                    rig_product_bound(c->reduce->team, c->cols, w + i * k, xd + t * k), c->bias,
                    c->scale, c->add ? &y->before[at] : NULL);
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
            product_row(
                r, &(product){ f, reduce, 172, 7, tokens, tokens, true, false, .reason = "bias" });
            product_row(r, &(product){ f, reduce, 172, 7, tokens, tokens, false, true,
                                       .reason = "residual" });
            product_row(
                r, &(product){ q4_0, reduce, 96, 7, tokens, tokens, true, true, .reason = "both" });
            product_row(r, &(product){ f, reduce, 172, 7, tokens, tokens, true, true,
                                       .reason = "Granite's multiplier", .scale = 0.22f });
        }
        product_row(r,
                    &(product){ f, reduce, 11008, 3, 1, 1, .reason = "a long row (Llama 2 7B)" });
    }
}

/* ---- glu ----------------------------------------------------------------------------------- */

typedef struct {
    uint32_t n4, rows; /* K / 4 */
    rig_act act;
    bool ungated;
    double scale; /* of g */
    const char *reason;
} glu_case;

/* Where exp(-x) leaves f32 (x < -88) the result is below 1e-36 and may become zero. */
static const double VANISHED = 1e-36;

/* Relative error of z / (1 + exp(-x)), x off by `argument` U of itself: exp's own and the
 * argument's in so far as exp(-x) is part of the sum, the sum, the quotient. */
static double logistic_bound(double x, double argument) {
    const double share = 1 / (1 + exp(x));
    return U * ((3 + (2 + argument) * fabs(x)) * share + 1 + 2.5);
}

/* What act(g) may be off by. Of GELU: the inner polynomial, whose terms have one sign, three
 * products, a sum, a product and the two constants (6 U), where tanh is not flat; tanh; the sum;
 * one product, as that with 1/2 is exact. */
static double activation_bound(rig_act act, double g, double want) {
    if (act == RIG_CLAMPED) return logistic_bound((double)RIG_ALPHA * g, 1) * fabs(want) + VANISHED;
    if (act == RIG_SILU) return logistic_bound(g, 0) * fabs(want) + VANISHED;
    const double inner = 0.7978845608028654 * (g + 0.044715 * g * g * g), t = tanh(inner);
    const double sum = (1 - t * t) * 6 * U * fabs(inner) + TANH_ERROR + U * (1 + t);
    return fabs(g) / 2 * sum + U * fabs(want);
}

void rig_activate(rig_act kind, bool ungated, const double *both, size_t n, double *want,
                  double *bound) {
    for (size_t i = 0; i < n; i++) {
        const double *g = both + i, *u = both + n + i;
        if (ungated) {
            want[i] = kind == RIG_GELU ? ref_gelu(*g) : ref_silu(*g);
            bound[i] = activation_bound(kind, *g, want[i]);
            continue;
        }
        double gate = *g, up = *u, act = ref_silu(gate);
        if (kind == RIG_GELU) {
            act = ref_gelu(gate);
            ref_gelu_glu(&want[i], g, u, 1);
        } else if (kind == RIG_CLAMPED) {
            ref_swiglu_clamped(&want[i], g, u, 1, (double)RIG_ALPHA, (double)RIG_LIMIT);
            gate = fmin(gate, (double)RIG_LIMIT);
            act = ref_silu((double)RIG_ALPHA * gate) / (double)RIG_ALPHA;
            up = fmax(-(double)RIG_LIMIT, fmin(up, (double)RIG_LIMIT)) + 1;
        } else {
            ref_glu(&want[i], g, u, 1);
        }
        /* the product, and for GPT-OSS the 1 that is added to u */
        bound[i] = activation_bound(kind, gate, act) * fabs(up) + 2 * U * fabs(want[i]);
    }
}

static void glu_row(rig *r, const glu_case *c) {
    static const char *const names[] = { "silu", "gelu", "clamped" };
    char kernel[96];
    snprintf(kernel, sizeof(kernel), "glu %s%s", names[c->act], c->ungated ? " ungated" : "");
    if (!rig_begin(r, kernel, c->reason, "N4 %u, rows %u, |g| %g", c->n4, c->rows, c->scale))
        return;
    const size_t n = 4 * (size_t)c->n4, row_size = c->ungated ? n : 2 * n;
    float *gu = rig_normals(r, c->rows * row_size, 1);
    for (size_t i = 0; i < c->rows * row_size; i++) {
        if (i % row_size < n)
            gu[i] *= (float)c->scale;
        else if (c->act == RIG_CLAMPED)
            gu[i] *= RIG_LIMIT; /* a third is cut, on both sides */
    }
    gu[0] = 0; /* 0 / 2 */
    gu[1] = -0.5f;
    rig_output *h = rig_out(r, NULL, c->rows * n);
    const glu_consts consts = {
        .k = (uint32_t)n,
        .act = c->act,
        .ungated = c->ungated,
        .alpha = RIG_ALPHA,
        .limit = RIG_LIMIT,
        .wg = c->rows % 2 == 0 ? 64 : 128,
    };
    rig_call(
        r, &glu_source, NULL, &consts,
        (gpu_call){
            .bind = { [GLU_X] = rig_numbers(r, gu, c->rows * row_size, 1), [GLU_H] = h->range },
            .groups = { { .times = ceil_div(c->n4, consts.wg) }, { .times = c->rows } },
        });
    double *want = rig_alloc(r, n, sizeof(double)), *bound = rig_alloc(r, n, sizeof(double));
    const bool ran = rig_run(r);
    for (size_t t = 0; t < c->rows && ran; t++) {
        const double *both = rig_doubles(r, gu + t * row_size, row_size);
        rig_activate(c->act, c->ungated, both, n, want, bound);
        for (size_t i = 0; i < n; i++)
            rig_expect(r, rig_float(h, t * n + i), want[i], bound[i]);
    }
    rig_end(r);
}

void check_glu(rig *r) {
    static const glu_case cases[] = {
        { 1, 1, RIG_SILU, false, 1, "the least" },
        { 43, 3, RIG_SILU, false, 1, "ffn_dim 172: lanes without work" },
        { 64, 2, RIG_SILU, false, 5, "exactly one workgroup a row" },
        { 65, 2, RIG_SILU, false, 5, "one lane in a second workgroup" },
        { 16, 2, RIG_SILU, false, 200, "exp(-g) overflows on one side and vanishes on the other" },
        { 43, 3, RIG_SILU, true, 5, "no gate" },
        { 16, 2, RIG_SILU, true, 1e30, "far outliers" },
        { 65, 3, RIG_GELU, false, 2, "Gemma" },
        { 16, 2, RIG_GELU, false, 20, "tanh is 1" },
        { 16, 2, RIG_GELU, false, 1e30, "the cube overflows" },
        { 65, 3, RIG_GELU, true, 2, "GPT-2" },
        { 16, 2, RIG_GELU, true, 1e30, "the cube overflows" },
        { 65, 3, RIG_CLAMPED, false, 3, "GPT-OSS: some are cut" },
        { 16, 2, RIG_CLAMPED, false, 200, "all are cut; exp overflows" },
        { 16, 2, RIG_CLAMPED, false, 1e30, "far outliers" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        glu_row(r, &cases[i]);
}

/* ---- watch --------------------------------------------------------------------------------- */

typedef struct {
    uint32_t n4, rows, times;
    bool off; /* the pass is of a session that is not watched */
    double scale;
    const char *reason;
} watch_case;

static void watch_row(rig *r, const watch_case *c) {
    enum { FIRST = 12, BEHIND = 4, SPLIT = 16, WATCH = 2 }; /* SPLIT: rows at a time */
    if (!rig_begin(r, "watch", c->reason, "columns %u, rows %u times %u, |x| %g%s", 4 * c->n4,
                   c->rows, c->times, c->scale, c->off ? ", off" : "")) {
        return;
    }
    const size_t n = 4 * (size_t)c->n4, rows = (size_t)c->rows * c->times;
    float *x = rig_normals(r, rows * n, c->scale);
    const float *noise = rig_normals(r, FIRST + n + BEHIND, c->scale);
    float *before = rig_alloc(r, FIRST + n + BEHIND, sizeof(float)); /* a sum of squares */
    for (size_t i = 0; i < FIRST + n + BEHIND; i++)
        before[i] = noise[i] * noise[i];
    for (size_t t = 0; t < rows; t++)
        x[t * n + 1] = 0; /* a column that nothing uses */
    /* The flag stands among others; without it x counts for nothing, so it is what PLANT moves. */
    uint32_t sizes[4] = { c->rows, 77, 1 + (c->off ? 0 : WATCH), 77 };
    if (c->off && rig_plant(r)) sizes[2] |= WATCH;
    rig_output *s = rig_out(r, before, FIRST + n + BEHIND);
    rig_call(r, &watch_source, NULL, &(watch_consts){ .n4 = c->n4, .times = c->times },
             (gpu_call){
                 .bind = { [WATCH_X] = rig_numbers(r, x, rows * n, rows * n - 1),
                           [WATCH_SIZES] = rig_sizes(r, sizes),
                           [WATCH_S] = s->range },
                 .params = &(watch_params){ .first = FIRST / 4 },
                 .groups = { { .times = ceil_div(c->n4, 16) } },
             });
    if (rig_run(r)) {
        rig_kept(r, s, 0, FIRST);
        if (c->off) rig_kept(r, s, FIRST, n);
        /* Nothing cancels: the square, the additions of a lane, those of the lanes, that to the
         * sum. */
        const double additions = ceil_div((uint32_t)rows, SPLIT) + SPLIT - 1 + 1;
        for (size_t i = 0; i < n && !c->off; i++) {
            double want = (double)before[FIRST + i];
            for (size_t t = 0; t < rows; t++)
                want += (double)x[t * n + i] * (double)x[t * n + i];
            rig_expect(r, rig_float(s, FIRST + i), want, (1 + additions) * U * want);
        }
        rig_kept(r, s, FIRST + n, BEHIND);
    }
    rig_end(r);
}

void check_watch(rig *r) {
    static const watch_case cases[] = {
        { 1, 1, 1, false, 1, "the least" },
        { 16, 1, 1, false, 1, "a step of decoding, one workgroup" },
        { 17, 8, 1, false, 1, "one column more than a workgroup has" },
        { 43, 16, 1, false, 1, "every lane has one row" },
        { 15, 17, 1, false, 5, "one lane has two rows" },
        { 33, 300, 1, false, 100, "prefill" },
        { 12, 7, 4, false, 1, "pairs of experts" },
        { 16, 33, 1, true, 1, "another session's rows" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        watch_row(r, &cases[i]);
}
