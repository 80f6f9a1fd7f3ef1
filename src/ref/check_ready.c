/* check_ready: what makes the input of a fused product out of the residual stream. */
#include "model/model.h"
#include "ref/check_fused_internal.h"
#include "ref/ref.h"

#include <math.h>
#include <stdio.h>

typedef struct {
    act_form form;
    uint32_t dim, n;
    bool weighted, pick;
    double scale; /* of x */
    const char *reason;
} ready_case;

/* Row t of a block's input and its squares, of a row x of the stream. */
static void expect_input(rig *r, const ready_case *c, size_t t, const float *x, const float *w,
                         const rig_output *squares, const rig_output *act) {
    const size_t halves = c->dim / HALF_COLS;
    for (size_t half = 0; half < halves; half++) {
        approx v[HALF_COLS];
        double sum = 0;
        for (size_t i = 0; i < HALF_COLS; i++) {
            const size_t at = half * HALF_COLS + i;
            v[i] = approx_of((double)x[at]);
            if (c->weighted) v[i] = approx_mul(v[i], approx_of((double)w[at]));
            sum += (double)x[at] * (double)x[at];
        }
        /* A square, three additions of a dot product, four of their sums; squares that are
         * subnormal may be flushed, as may their sums. */
        rig_expect(r, rig_float(squares, t * halves + half), sum, 8 * U * sum + 32 * 0x1p-126);
        fused_expect_half(r, c->form, act, t, c->dim / UNIT_COLS, half, v);
    }
}

/* The same made by embed, of floats times a power of two. */
static void embed_input_row(rig *r, const ready_case *c, uint32_t lanes) {
    char kernel[96];
    snprintf(kernel, sizeof(kernel), "embed %s", fused_acts[c->form]->name);
    if (!rig_begin(r, kernel, c->reason, "dim %u, rows %u%s, times %g, lanes %u", c->dim, c->n,
                   c->weighted ? ", weighted" : "", c->scale, lanes)) {
        return;
    }
    const size_t dim = c->dim;
    const uint32_t vocab = c->n; /* each token once */
    const uint32_t *tokens = rig_shuffled(r, vocab);
    const float *w = rig_normals(r, dim, 1);
    float *table, *row = rig_alloc(r, dim, sizeof *row);
    const gpu_range bytes = rig_weights(r, DTYPE_F32, vocab, c->dim, &table);
    uint32_t(*rows)[4] = rig_alloc(r, c->n, sizeof *rows), *counts = rig_alloc(r, vocab, 4);
    for (uint32_t t = 0; t < c->n; t++) {
        rows[t][0] = tokens[t];
        counts[tokens[t]] = REF_SEEN;
    }
    rig_output *seen = rig_out(r, rig_alloc(r, vocab, 4), vocab);
    rig_output *x = rig_out(r, NULL, c->n * dim);
    rig_output *squares = rig_out(r, NULL, c->n * dim / HALF_COLS);
    rig_output *act = fused_act(r, c->form, c->n, dim);
    const embed_consts consts = { .k = c->dim,
                                  .vocab = vocab,
                                  .scale = (float)c->scale,
                                  .next = true,
                                  .weighted = c->weighted,
                                  .wg = lanes };
    rig_call(
        r, &embed_source,
        (const gpu_fragment *[]){ fused_format(DTYPE_F32)->part, fused_acts[c->form] }, &consts,
        (gpu_call){
            .bind = { bytes, [EMBED_ROWS] = rig_in(r, rows, c->n * sizeof *rows),
                      [EMBED_COUNTS] = seen->range, [EMBED_POSITIONS] = rig_in(r, w, 16),
                      [EMBED_X] = x->range, [EMBED_W] = rig_in(r, w, c->weighted ? dim * 4 : 16),
                      [EMBED_SQUARES] = squares->range, [ACT_F32_ACT] = act->range },
            .params = &(embed_params){ .first = 0, .count = vocab },
            .groups = { { .times = c->n } },
        });
    if (rig_run(r)) {
        for (uint32_t t = 0; t < c->n; t++) {
            for (size_t i = 0; i < dim; i++) {
                row[i] = table[tokens[t] * dim + i] * (float)c->scale;
                rig_expect(r, rig_float(x, t * dim + i), (double)row[i], 0);
            }
            expect_input(r, c, t, row, w, squares, act);
        }
        for (uint32_t i = 0; i < vocab; i++)
            rig_bits(r, seen->after[i], counts[i]);
    }
    rig_end(r);
}

/* The same made by norm_ready, of the stream that it leaves behind. */
static void norm_ready_row(rig *r, const ready_case *c, const rig_reduce *reduce, uint32_t lanes) {
    char kernel[96];
    snprintf(kernel, sizeof(kernel), "norm_ready %s %s", reduce->part->name,
             fused_acts[c->form]->name);
    if (!rig_begin(r, kernel, c->reason, "dim %u, rows %u%s, |y| %g, lanes %u", c->dim, c->n,
                   c->weighted ? ", weighted" : "", c->scale, lanes)) {
        return;
    }
    const size_t dim = c->dim;
    const float *y = rig_normals(r, c->n * dim, c->scale), *before = rig_normals(r, c->n * dim, 1);
    const float *post = rig_normals(r, dim, 1), *w = rig_normals(r, dim, 1);
    double *normed = rig_alloc(r, c->n * dim, sizeof(double));
    ref_norm(normed, rig_doubles(r, y, c->n * dim), post, c->n, dim, (double)FUSED_EPS);
    rig_output *x = rig_out(r, before, c->n * dim);
    rig_output *squares = rig_out(r, NULL, c->n * dim / HALF_COLS);
    rig_output *act = fused_act(r, c->form, c->n, dim);
    const norm_ready_consts consts = {
        .dim = c->dim, .eps = FUSED_EPS, .weighted = c->weighted, .wg = lanes, .team = reduce->team
    };
    rig_call(r, &norm_ready_source, (const gpu_fragment *[]){ reduce->part, fused_acts[c->form] },
             &consts,
             (gpu_call){
                 .bind = { [NORM_READY_Y] = rig_numbers(r, y, c->n * dim, dim / 2),
                           [NORM_READY_POST] = rig_in(r, post, dim * 4),
                           [NORM_READY_W] = rig_in(r, w, c->weighted ? dim * 4 : 16),
                           [NORM_READY_SQUARES] = squares->range,
                           [NORM_READY_X] = x->range,
                           [ACT_F32_ACT] = act->range },
                 .groups = { { .times = c->n } },
             });
    if (rig_run(r)) {
        const double off = rig_norm_error(rig_squares_error(c->dim, lanes, reduce->team));
        float *row = rig_alloc(r, dim, sizeof *row);
        for (uint32_t t = 0; t < c->n; t++) {
            for (size_t i = 0; i < dim; i++) {
                const double v = normed[t * dim + i], sum = v + (double)before[t * dim + i];
                row[i] = rig_float(x, t * dim + i);
                rig_expect(r, row[i], sum, off * fabs(v) + U * fabs(sum));
            }
            expect_input(r, c, t, row, w, squares, act);
        }
    }
    rig_end(r);
}

/* Behind a LayerNorm; x about `mean`. */
typedef struct {
    act_form form;
    uint32_t dim, n;
    bool bias, pick;
    double scale, mean;
    uint32_t lanes;
    const char *reason;
} layer_case;

static void layer_ready_row(rig *r, const layer_case *c, const rig_reduce *reduce) {
    enum { ROWS = 7 };
    char kernel[96];
    snprintf(kernel, sizeof(kernel), "layer_ready %s %s", reduce->part->name,
             fused_acts[c->form]->name);
    if (!rig_begin(r, kernel, c->reason, "dim %u, rows %u%s%s, |x| %g, mean %g, lanes %u", c->dim,
                   c->n, c->pick ? " picked" : "", c->bias ? ", bias" : "", c->scale, c->mean,
                   c->lanes)) {
        return;
    }
    const size_t dim = c->dim;
    const uint32_t *pick = rig_shuffled(r, ROWS);
    float *x = rig_normals(r, ROWS * dim, c->scale);
    for (size_t i = 0; i < ROWS * dim; i++)
        x[i] += (float)c->mean;
    const float *w = rig_normals(r, dim, 1);
    float *b = rig_normals(r, dim, 1);
    if (!c->bias) memset(b, 0, dim * sizeof *b);
    const double *xd = rig_doubles(r, x, ROWS * dim);
    double *want = rig_alloc(r, ROWS * dim, sizeof(double));
    ref_layer_norm(want, xd, w, b, ROWS, dim, (double)FUSED_EPS);
    const size_t plant = (c->pick ? pick[0] : 0) * dim + dim / 2;
    rig_output *act = fused_act(r, c->form, c->n, dim);
    const layer_ready_consts consts = { .dim = c->dim,
                                        .eps = FUSED_EPS,
                                        .bias = c->bias,
                                        .pick = c->pick,
                                        .wg = c->lanes,
                                        .team = reduce->team };
    rig_call(r, &layer_ready_source, (const gpu_fragment *[]){ reduce->part, fused_acts[c->form] },
             &consts,
             (gpu_call){
                 .bind = { [LAYER_READY_X] = rig_numbers(r, x, ROWS * dim, plant),
                           [LAYER_READY_W] = rig_in(r, w, dim * 4),
                           [LAYER_READY_B] = rig_in(r, b, c->bias ? dim * 4 : 16),
                           [LAYER_READY_PICK] = rig_in(r, pick, ROWS * 4),
                           [ACT_F32_ACT] = act->range },
                 .groups = { { .times = c->n } },
             });
    if (rig_run(r)) {
        const double sum = rig_squares_error(c->dim, c->lanes, reduce->team);
        for (uint32_t t = 0; t < c->n; t++) {
            const size_t row = (c->pick ? pick[t] : t) * dim;
            const rig_centre at = rig_centre_of(xd + row, dim, (double)FUSED_EPS, sum + 1.5);
            for (size_t half = 0; half < dim / HALF_COLS; half++) {
                approx v[HALF_COLS];
                for (size_t i = 0; i < HALF_COLS; i++) {
                    const size_t d = half * HALF_COLS + i;
                    v[i].v = want[row + d];
                    v[i].error = (rig_norm_error(sum) + at.own) * fabs(v[i].v - (double)b[d]) +
                                 at.error * fabs((double)w[d]) + at.bias * fabs(v[i].v);
                }
                fused_expect_half(r, c->form, act, t, dim / UNIT_COLS, half, v);
            }
        }
    }
    rig_end(r);
}

static void ready_row(rig *r, const ready_case *c) {
    enum { ROWS = 7, LANES = 64 };
    char kernel[96];
    snprintf(kernel, sizeof(kernel), "ready %s", fused_acts[c->form]->name);
    if (!rig_begin(r, kernel, c->reason, "dim %u, rows %u%s%s, |x| %g", c->dim, c->n,
                   c->pick ? " picked" : "", c->weighted ? ", weighted" : "", c->scale)) {
        return;
    }
    const size_t dim = c->dim;
    const uint32_t *pick = rig_shuffled(r, ROWS);
    const float *w = rig_normals(r, dim, 1);
    float *x = rig_normals(r, ROWS * dim, c->scale);
    for (size_t i = 0; i < ROWS; i++)
        memset(x + i * dim + HALF_COLS, 0, HALF_COLS * sizeof *x); /* a half of zeros */
    rig_output *squares = rig_out(r, NULL, c->n * dim / HALF_COLS);
    rig_output *act = fused_act(r, c->form, c->n, dim);
    rig_call(r, &ready_source, (const gpu_fragment *[]){ fused_acts[c->form] },
             &(ready_consts){ .dim = c->dim, .weighted = c->weighted, .pick = c->pick },
             (gpu_call){
                 .bind = { [READY_X] = rig_numbers(r, x, ROWS * dim, (c->pick ? pick[0] : 0) * dim),
                           [READY_W] = rig_in(r, w, c->weighted ? dim * 4 : 4),
                           [READY_SQUARES] = squares->range,
                           [READY_PICK] = rig_in(r, pick, ROWS * 4),
                           [ACT_F32_ACT] = act->range },
                 .groups = { { .times = ceil_div(c->dim / HALF_COLS, LANES) }, { .times = c->n } },
             });
    if (rig_run(r)) {
        for (uint32_t t = 0; t < c->n; t++)
            expect_input(r, c, t, x + (c->pick ? pick[t] : t) * dim, w, squares, act);
    }
    rig_end(r);
}

void check_ready(rig *r) {
    static const ready_case cases[] = {
        { FORM_F32, 32, 1, true, false, 1, "the least" },
        { FORM_F32, 1056, 3, true, true, 1, "two lanes in a second workgroup, picked rows" },
        { FORM_Q8, 1056, 3, true, false, 1, "a pass" },
        { FORM_Q8, 1056, 5, true, true, 1e4, "picked rows, outliers" },
        { FORM_Q8, 96, 7, false, false, 1, "the output of attention" },
        { FORM_Q8, 96, 2, false, false, 1e-20, "tiny numbers" },
        { FORM_Q8, 96, 2, false, false, 1e-32, "numbers that become 0" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        ready_row(r, &cases[i]);
    static const ready_case embedded[] = {
        { FORM_F32, 1056, 3, true, false, 1, "33 units: one more than lanes" },
        { FORM_Q8, 1056, 5, true, false, 1, "the first block's bytes" },
        { FORM_Q8, 96, 7, false, false, 4, "scaled, no norm in front" },
    };
    for (size_t i = 0; i < ARRAY_LEN(embedded); i++)
        embed_input_row(r, &embedded[i], i == 1 ? 128 : 32);
    static const ready_case normed[] = {
        { FORM_F32, 32, 1, true, false, 1, "the least" },
        { FORM_Q8, 1056, 3, true, false, 100, "66 halves: more than lanes" },
        { FORM_Q8, 2304, 16, true, false, 1, "Gemma 2, a pass of some rows" },
        { FORM_F32, 96, 7, false, false, 1e-4, "no norm in front, eps outweighs the squares" },
    };
    rig_reduce reduces[2];
    const uint32_t n = rig_reduces(r, reduces);
    for (size_t i = 0; i < ARRAY_LEN(normed) * n; i++)
        norm_ready_row(r, &normed[i / n], &reduces[i % n], i / n == 1 ? 64 : 256);
    static const layer_case layers[] = {
        { FORM_F32, 32, 1, true, false, 1, 0, 256, "the least" },
        { FORM_Q8, 1056, 3, true, false, 1, 4, 64, "66 halves: more than lanes" },
        { FORM_F32, 768, 5, false, true, 1e-4, 1e-3, 256, "GPT-2, picked, eps counts" },
        { FORM_Q8, 1600, 7, true, false, 30, -2, 256, "a pass of some rows" },
    };
    for (size_t i = 0; i < ARRAY_LEN(layers) * n; i++)
        layer_ready_row(r, &layers[i / n], &reduces[i % n]);
}
