/* check_project: the fused products of a decoding pass. */
#include "gpu/gpu.h"
#include "model/model.h"
#include "ref/check_fused_internal.h"

#include <math.h>
#include <stdio.h>

/* ---- project ------------------------------------------------------------------------------- */

typedef struct {
    const rig_format *format, *other; /* NULL: one fused_weights */
    uint32_t rows, other_rows, cols, tokens, n;
    bool q8;
    const char *reason;
    team_shape shape; /* rows, split, ahead; 0: 1; team, 0: as the sums have it */
    uint32_t group;   /* 0: 4 */
    bool normed, bias;
    float scale;     /* 0: 1 */
    float probe;     /* not 0: extreme weights, x in the first block alone, of this scale */
    uint32_t grid_x; /* 0: all in x */
} project_case;

static void call_project(rig *r, const project_case *c, const team_shape *s,
                         const fused_weights w[2], const fused_input *in, gpu_range bias,
                         gpu_range squares, const rig_output *y, uint32_t column, uint32_t stride) {
    const uint32_t groups = ceil_div(c->rows + c->other_rows, fused_group_rows(s));
    const uint32_t grid_x = c->grid_x == 0 ? groups : c->grid_x;
    const uint32_t counted = c->bias ? 1 : 0; /* both, so that a wrong one is seen */
    const project_consts consts = {
        .m = c->rows + c->other_rows,
        .k = c->cols,
        .tokens = c->tokens,
        .rows = s->rows,
        .split = s->split,
        .ahead = s->ahead,
        .wg = s->wg,
        .team = s->team,
        .sets = s->sets,
        .turns = s->turns,
        .shared = fused_is_shared(r, s),
        .normed = c->normed,
        .eps = FUSED_EPS,
        .bias = c->bias,
        .two = c->other != NULL,
        .other_first = c->rows,
        .scale = c->scale == 0 ? 1 : c->scale,
        .stride = stride,
        .column = column,
        .grid_x = grid_x,
        .counted = counted,
    };
    const rig_format *other = c->other != NULL ? c->other : c->format;
    rig_call(r, &project_source,
             (const gpu_fragment *[]){ c->format->part, other->part,
                                       c->q8 ? &inputs_q8_part : &inputs_f32_part,
                                       s->reduce->part },
             &consts,
             (gpu_call){
                 .bind = { [0] = w[0].range,
                           [GPU_SECOND_BINDING] = w[1].range,
                           [INPUTS_F32_X] = in->range,
                           [PROJECT_BIAS] = bias,
                           [PROJECT_SIZES] = fused_sizes(r, c->tokens, c->n, counted),
                           [PROJECT_Y] = y->range,
                           [PROJECT_SQUARES] = squares },
                 .groups = { { .times = grid_x }, { .times = ceil_div(groups, grid_x) } },
             });
}

/* Columns of the smaller first block. */
static uint32_t first_block(const project_case *c) {
    const uint32_t block = dtype_get(c->format->type)->block_elements;
    const rig_format *other = c->other != NULL ? c->other : c->format;
    return min_u32(block, dtype_get(other->type)->block_elements);
}

/* Is the product of the row's scale with x no normal number? Then a device may give anything near
 * it, or infinity. Only MXFP4's scales go as far. */
static bool leaves_range(const project_case *c, const fused_weights *m, uint32_t row) {
    if (c->probe == 0 || m->type != DTYPE_MXFP4) return false;
    const int e = fused_block(m, row, 0)[0];
    return c->probe < 1 ? e > 1 && e < 64 : e > 192;
}

static void project_row(rig *r, const project_case *c, const rig_reduce *reduce) {
    const team_shape s = fused_shape(r, reduce, &c->shape, c->group == 0 ? 4 : c->group, c->tokens);
    char kernel[96];
    snprintf(kernel, sizeof(kernel), "project %s %s", c->q8 ? "bytes" : "floats",
             reduce->part->name);
    if (!rig_begin(r, kernel, c->reason, "%s and %s, K %u, rows %u + %u, n %u of %u%s%s%s%s",
                   c->format->name, c->other != NULL ? c->other->name : "none", c->cols, c->rows,
                   c->other_rows, c->n, c->tokens, c->normed ? ", normed" : "",
                   c->bias ? ", bias" : "", c->scale == 0 ? "" : ", scaled",
                   c->probe != 0 ? ", extreme scales" : "")) {
        return;
    }
    const uint32_t rows = c->rows + c->other_rows, column = 3, stride = rows + 5;
    const uint32_t squares_row = c->cols / HALF_COLS;
    fused_weights w[2] = { fused_matrix(r, c->format, c->rows, c->cols, c->probe != 0) };
    const gpu_range none = rig_in(r, (float[4]){ 0 }, 16);
    w[1].range = none;
    if (c->other != NULL) w[1] = fused_matrix(r, c->other, c->other_rows, c->cols, c->probe != 0);
    const fused_input in = !c->q8 ? fused_floats(r, c->n, c->cols)
                                  : fused_bytes(r, c->n, c->cols, c->probe, first_block(c));
    const float *bias = rig_normals(r, rows, 1);
    const float *squares = fused_squares(r, (size_t)c->n * squares_row);
    rig_output *y = rig_out(r, NULL, (size_t)c->n * stride);
    call_project(r, c, &s, w, &in, c->bias ? rig_in(r, bias, (size_t)rows * 4) : none,
                 c->normed ? rig_in(r, squares, (size_t)c->n * squares_row * 4) : none, y, column,
                 stride);
    if (rig_run(r)) {
        for (uint32_t t = 0; t < c->n; t++) {
            rig_kept(r, y, t * stride, column);
            for (uint32_t i = 0; i < rows; i++) {
                const bool second = i >= c->rows;
                approx v = fused_product(&s, &w[second], second ? i - c->rows : i, &in, t);
                if (c->normed) {
                    v = approx_mul(v, fused_norm_scale(squares + t * squares_row, c->cols, s.team));
                }
                if (c->bias) v = approx_add(v, approx_of((double)bias[i]));
                if (c->scale != 0) v = approx_mul(v, approx_of((double)c->scale));
                if (leaves_range(c, &w[second], second ? i - c->rows : i))
                    rig_skip(r, 1);
                else
                    approx_expect(r, y, t * stride + column + i, v);
            }
            rig_kept(r, y, t * stride + column + rows, stride - column - rows);
        }
    }
    rig_end(r);
}

/* Each format two ways, in pairs of different ones. 19 units fill no plane of scales and end inside
 * a block of 256. The bytes of a quantised format are what its floats are made of, so bytes need
 * but the scales at the ends of their range, which the first blocks of nine rows have in turn. */
static void project_formats(rig *r, const rig_reduce *reduce) {
    const rig_format *quantised[RIG_FORMATS];
    uint32_t n = 0;
    for (uint32_t i = 0; i < RIG_FORMATS; i++) {
        if (dtype_is_quantised(rig_formats[i].type)) quantised[n++] = &rig_formats[i];
        if (i % 2 == 1) continue;
        project_row(r,
                    &(project_case){ &rig_formats[i], &rig_formats[i + 1], 5, 4, 608, 1, 1, false,
                                     .reason = "two matrices of different types" },
                    reduce);
    }
    for (uint32_t i = 0; i < n; i += 2) {
        project_row(r,
                    &(project_case){ quantised[i], quantised[(i + 1) % n], 9, 9, 608, 1, 1, true,
                                     "zero, subnormal and the largest scales", .probe = 0x1p-13f },
                    reduce);
    }
    project_row(r,
                &(project_case){ fused_format(DTYPE_MXFP4), NULL, 9, 0, 608, 1, 1, true,
                                 "scales that small x take below the least number",
                                 .probe = 0x1p6f },
                reduce);
}

void check_project(rig *r) {
    const rig_format *f32 = fused_format(DTYPE_F32), *q8_0 = fused_format(DTYPE_Q8_0);
    const rig_format *q4_k = fused_format(DTYPE_Q4_K), *q4_0 = fused_format(DTYPE_Q4_0);
    const project_case cases[] = {
        { q8_0, NULL, 37, 0, 96, 1, 1, false, "fewer units than lanes, all at once",
          .shape = { .ahead = 2 }, .normed = true, .bias = true, .scale = 0.22f },
        { f32, NULL, 37, 0, 1056, 1, 1, false, "33 units: one more than a team's lanes",
          .shape = { .ahead = 2 }, .normed = true },
        { q4_0, q8_0, 13, 9, 160, 1, 1, false, "a team with rows of two matrices",
          .shape = { .rows = 4 }, .group = 16 },
        { q8_0, NULL, 53, 0, 96, 8, 2, false, "workgroups in y", .group = 2, .bias = true,
          .grid_x = 4 },
        { f32, NULL, 7, 0, 4096, 1, 1, false, "two teams to a row",
          .shape = { .split = 2, .ahead = 4 }, .normed = true },
        { q4_0, NULL, 37, 0, 640, 8, 8, true, "two teams to a row",
          .shape = { .rows = 2, .split = 2 }, .group = 16, .normed = true },
        { q4_k, NULL, 37, 0, 768, 16, 11, true, "some rows of a pass, all at once", .normed = true,
          .bias = true, .scale = 0.22f },
        { q4_0, NULL, 37, 0, 96, 16, 1, true, "one row, the second set has none", .normed = true },
        { q4_0, NULL, 41, 0, 640, 16, 15, true, "four rows of a matrix, pairs of x and half of one",
          .shape = { .rows = 4 }, .group = 16, .normed = true },
        { q4_k, NULL, 37, 0, 768, 16, 11, true, "teams of four, four to a row",
          .shape = { .rows = 4, .split = 4, .team = 4 }, .group = 32, .normed = true },
        { q4_k, NULL, 150, 0, 768, 1, 1, false, "a lane to two rows, as on a processor",
          .shape = { .rows = 2, .team = 1 }, .group = 128, .normed = true },
        { q4_k, q8_0, 70, 9, 768, 1, 1, true, "the same of bytes and two matrices",
          .shape = { .rows = 2, .team = 1 }, .group = 128, .normed = true },
        { q4_k, q8_0, 37, 9, 768, 1, 1, true, "two turns, the last over the end",
          .shape = { .rows = 2, .split = 2, .turns = 2 }, .group = 32, .normed = true },
        { q8_0, NULL, 1, 0, 32, 1, 1, false, .reason = "the least product" },
    };
    rig_reduce reduces[2];
    const uint32_t n = rig_reduces(r, reduces);
    project_formats(r, &reduces[0]);
    for (size_t i = 0; i < n * ARRAY_LEN(cases); i++) {
        const project_case *c = &cases[i / n];
        if (fused_is_run(&c->shape, i % n, i / n % n)) project_row(r, c, &reduces[i % n]);
    }
}

/* ---- project_add --------------------------------------------------------------------------- */

typedef struct {
    const rig_format *format;
    uint32_t cols, dim, tokens, n;
    bool q8;
    act_form form;
    bool next;
    const char *reason;
    team_shape shape;
    uint32_t group;
    bool bias;
    float scale; /* 0: 1 */
} add_case;

static void add_row(rig *r, const add_case *c, const rig_reduce *reduce) {
    const team_shape s = fused_shape(r, reduce, &c->shape, c->group, c->tokens);
    char kernel[96];
    snprintf(kernel, sizeof(kernel), "project_add %s %s %s", c->q8 ? "bytes" : "floats",
             fused_acts[c->form]->name, reduce->part->name);
    if (!rig_begin(r, kernel, c->reason, "%s, K %u, dim %u, n %u of %u%s%s%s", c->format->name,
                   c->cols, c->dim, c->n, c->tokens, c->next ? "" : ", the last",
                   c->bias ? ", bias" : "", c->scale == 0 ? "" : ", scaled")) {
        return;
    }
    const uint32_t dim = c->dim;
    const fused_weights m = fused_matrix(r, c->format, dim, c->cols, false);
    const fused_input in =
        c->q8 ? fused_bytes(r, c->n, c->cols, 0, 0) : fused_floats(r, c->n, c->cols);
    const float *bias = rig_normals(r, dim, 1), *before = rig_normals(r, (size_t)c->n * dim, 1);
    float *w = rig_normals(r, dim, 1);
    memset(w + HALF_COLS, 0, HALF_COLS * sizeof *w); /* a half of zeros */
    rig_output *stream = rig_out(r, before, (size_t)c->n * dim);
    rig_output *squares = rig_out(r, NULL, c->next ? (size_t)c->n * dim / HALF_COLS : 4);
    rig_output *act = fused_act(r, c->form, c->next ? c->n : 1, c->next ? dim : UNIT_COLS);
    const gpu_range none = rig_in(r, (float[4]){ 0 }, 16);
    const project_add_consts consts = {
        .k = c->cols,
        .dim = dim,
        .tokens = c->tokens,
        .rows = s.rows,
        .split = s.split,
        .ahead = s.ahead,
        .wg = s.wg,
        .team = s.team,
        .sets = s.sets,
        .turns = s.turns,
        .shared = fused_is_shared(r, &s),
        .bias = c->bias,
        .next = c->next,
        .scale = c->scale == 0 ? 1 : c->scale,
    };
    rig_call(r, &project_add_source,
             (const gpu_fragment *[]){ c->format->part, c->q8 ? &input_q8_part : &input_f32_part,
                                       fused_acts[c->form], reduce->part },
             &consts,
             (gpu_call){
                 .bind = { [0] = m.range,
                           [INPUT_F32_X] = in.range,
                           [PROJECT_ADD_BIAS] = c->bias ? rig_in(r, bias, dim * 4) : none,
                           [PROJECT_ADD_SIZES] = fused_sizes(r, c->tokens, c->n, 0),
                           [PROJECT_ADD_STREAM] = stream->range,
                           [PROJECT_ADD_W] = c->next ? rig_in(r, w, dim * 4) : none,
                           [PROJECT_ADD_SQUARES] = squares->range,
                           [ACT_F32_ACT] = act->range },
                 .groups = { { .times = ceil_div(dim, fused_group_rows(&s)) } },
             });
    if (rig_run(r)) {
        approx *x = rig_alloc(r, dim, sizeof *x);
        for (uint32_t t = 0; t < c->n; t++) {
            for (uint32_t i = 0; i < dim; i++) {
                x[i] = fused_product(&s, &m, i, &in, t);
                if (c->bias) x[i] = approx_add(x[i], approx_of((double)bias[i]));
                if (c->scale != 0) x[i] = approx_mul(x[i], approx_of((double)c->scale));
                x[i] = approx_add(x[i], approx_of((double)before[t * dim + i]));
                approx_expect(r, stream, t * dim + i, x[i]);
                x[i] = approx_of((double)rig_float(stream, t * dim + i)); /* what goes on */
            }
            if (c->next) fused_expect_next(r, c->form, dim, t, x, w, squares, act);
        }
        if (!c->next) rig_kept(r, squares, 0, squares->n);
        if (!c->next) rig_kept(r, act, 0, act->n);
    }
    rig_end(r);
}

void check_project_add(rig *r) {
    const rig_format *f32 = fused_format(DTYPE_F32), *q4_0 = fused_format(DTYPE_Q4_0);
    const rig_format *q6_k = fused_format(DTYPE_Q6_K);
    const add_case cases[] = {
        { f32, 96, 96, 1, 1, false, FORM_F32, true, "a step, rows that leave lanes",
          .shape = { .rows = 2, .ahead = 2 }, .group = 64 },
        { q4_0, 96, 160, 8, 5, false, FORM_Q8, true, "some rows of a pass, all at once",
          .group = 64, .bias = true, .scale = 0.22f },
        { q4_0, 96, 96, 1, 1, true, FORM_Q8, true, "a step in bytes", .group = 16, .bias = true },
        { q6_k, 1280, 96, 1, 1, true, FORM_Q8, true, "two teams to a row",
          .shape = { .rows = 4, .split = 2, .ahead = 4 }, .group = 16 },
        { q4_0, 96, 96, 8, 8, true, FORM_F32, true, "from bytes to floats", .shape = { .rows = 2 },
          .group = 32 },
        { q6_k, 1280, 96, 16, 9, true, FORM_Q8, true, "teams of four, eight to a row",
          .shape = { .rows = 4, .split = 8, .team = 4 }, .group = 16 },
        { q4_0, 96, 96, 1, 1, true, FORM_Q8, true, "a lane to a row, as on a processor",
          .shape = { .team = 1 }, .group = 64 },
        { q6_k, 1280, 96, 1, 1, true, FORM_Q8, true, "four turns, the last over the end",
          .shape = { .ahead = 2, .turns = 4 }, .group = 64 },
        { q4_0, 96, 96, 1, 1, true, FORM_F32, false, "nothing follows, eight rows to a workgroup",
          .shape = { .rows = 2 }, .group = 8, .bias = true },
    };
    rig_reduce reduces[2];
    const uint32_t n = rig_reduces(r, reduces);
    for (size_t i = 0; i < n * ARRAY_LEN(cases); i++) {
        const add_case *c = &cases[i / n];
        if (fused_is_run(&c->shape, i % n, i / n % n)) add_row(r, c, &reduces[i % n]);
    }
}

/* ---- project_glu --------------------------------------------------------------------------- */

typedef struct {
    const rig_format *format;
    uint32_t cols, ffn, tokens, n;
    rig_act act;
    bool q8;
    act_form form;
    bool normed;
    const char *reason;
    team_shape shape;
    uint32_t group;
    bool bias, ungated;
} glu_product;

static void glu_product_row(rig *r, const glu_product *c, const rig_reduce *reduce) {
    static const char *const names[] = { "silu", "gelu", "clamped" };
    const team_shape s = fused_shape(r, reduce, &c->shape, c->group, c->tokens);
    char kernel[96];
    snprintf(kernel, sizeof(kernel), "project_glu %s %s %s %s", names[c->act],
             c->q8 ? "bytes" : "floats", fused_acts[c->form]->name, reduce->part->name);
    if (!rig_begin(r, kernel, c->reason, "%s, K %u, FFN %u, n %u of %u%s%s%s", c->format->name,
                   c->cols, c->ffn, c->n, c->tokens, c->normed ? ", normed" : "",
                   c->bias ? ", bias" : "", c->ungated ? ", ungated" : "")) {
        return;
    }
    const size_t n_squares = (size_t)c->n * (c->cols / HALF_COLS);
    const float *squares = fused_squares(r, n_squares);
    const gpu_range norm =
        c->normed ? rig_numbers(r, squares, n_squares, 1) : rig_in(r, squares, n_squares * 4);
    const uint32_t rows = c->ungated ? c->ffn : 2 * c->ffn;
    const fused_weights m = fused_matrix(r, c->format, rows, c->cols, false);
    const fused_input in =
        c->q8 ? fused_bytes(r, c->n, c->cols, 0, 0) : fused_floats(r, c->n, c->cols);
    rig_output *act = fused_act(r, c->form, c->n, c->ffn);
    const float *biases = rig_normals(r, rows, 1);
    const fused_ffn f = { .act = c->act,
                          .ungated = c->ungated,
                          .ffn = c->ffn,
                          .up = rows - c->ffn,
                          .gate_bias = c->bias ? biases : NULL,
                          .up_bias = c->bias ? biases + rows - c->ffn : NULL };
    const project_glu_consts consts = {
        .k = c->cols,
        .ffn = c->ffn,
        .tokens = c->tokens,
        .rows = s.rows,
        .split = s.split,
        .ahead = s.ahead,
        .wg = s.wg,
        .team = s.team,
        .sets = s.sets,
        .turns = s.turns,
        .shared = fused_is_shared(r, &s),
        .normed = c->normed,
        .eps = FUSED_EPS,
        .bias = c->bias,
        .act = c->act,
        .ungated = c->ungated,
        .alpha = RIG_ALPHA,
        .limit = RIG_LIMIT,
    };
    rig_call(r, &project_glu_source,
             (const gpu_fragment *[]){ c->format->part, c->q8 ? &input_q8_part : &input_f32_part,
                                       fused_acts[c->form], reduce->part },
             &consts,
             (gpu_call){
                 .bind = { [0] = m.range,
                           [INPUT_F32_X] = in.range,
                           [PROJECT_GLU_BIAS] = rig_in(r, biases, c->bias ? rows * 4 : 4),
                           [PROJECT_GLU_SIZES] = fused_sizes(r, c->tokens, c->n, 0),
                           [PROJECT_GLU_SQUARES] = norm,
                           [ACT_F32_ACT] = act->range },
                 .groups = { { .times = ceil_div(rows, fused_group_rows(&s)) } },
             });
    if (rig_run(r)) {
        for (uint32_t t = 0; t < c->n; t++) {
            const float *of_row = squares + t * (c->cols / HALF_COLS);
            const approx scale =
                c->normed ? fused_norm_scale(of_row, c->cols, s.team) : approx_of(1);
            fused_expect_hidden(r, c->form, &f, &s, &m, &in, t, scale, act, t);
        }
    }
    rig_end(r);
}

void check_project_glu(rig *r) {
    const rig_format *f32 = fused_format(DTYPE_F32), *q4_0 = fused_format(DTYPE_Q4_0);
    const rig_format *q4_k = fused_format(DTYPE_Q4_K);
    const glu_product cases[] = {
        { f32, 96, 96, 1, 1, RIG_SILU, false, FORM_F32, false, "a step",
          .shape = { .rows = 2, .ahead = 2 }, .group = 32 },
        { q4_0, 96, 96, 8, 3, RIG_GELU, true, FORM_F32, true, "some rows of a pass",
          .shape = { .rows = 2 }, .group = 64 },
        { q4_0, 96, 96, 1, 1, RIG_CLAMPED, false, FORM_Q8, true, "columns that leave lanes",
          .shape = { .rows = 4 }, .group = 128 },
        { q4_k, 1280, 96, 1, 1, RIG_SILU, true, FORM_Q8, true, "two teams to a row",
          .shape = { .rows = 2, .split = 2 }, .group = 64 },
        { q4_0, 96, 96, 8, 8, RIG_CLAMPED, true, FORM_Q8, true, "all rows of a pass in bytes",
          .shape = { .rows = 2 }, .group = 64 },
        { q4_0, 96, 96, 1, 1, RIG_SILU, true, FORM_Q8, true, "a lane to two rows",
          .shape = { .rows = 2, .team = 1 }, .group = 128 },
        { q4_k, 1280, 96, 1, 1, RIG_SILU, true, FORM_Q8, true, "four turns, the last over the end",
          .shape = { .rows = 2, .turns = 4 }, .group = 128 },
        { q4_k, 1280, 96, 16, 13, RIG_SILU, true, FORM_Q8, true, "teams of four, two to a row",
          .shape = { .rows = 4, .split = 2, .team = 4 }, .group = 32 },
        { q4_0, 96, 96, 16, 16, RIG_SILU, true, FORM_F32, true, "eight rows of x to each set",
          .shape = { .rows = 4 }, .group = 64 },
        { q4_0, 96, 96, 8, 3, RIG_SILU, true, FORM_Q8, true, "biases, columns that leave lanes",
          .shape = { .rows = 4 }, .group = 128, .bias = true },
        { f32, 96, 96, 1, 1, RIG_GELU, false, FORM_F32, true, "no gate, two teams to a row",
          .shape = { .rows = 1, .split = 2 }, .group = 64, .bias = true, .ungated = true },
        { q4_k, 1280, 96, 8, 5, RIG_GELU, true, FORM_Q8, false, "no gate, some rows of a pass",
          .shape = { .rows = 2 }, .group = 16, .bias = true, .ungated = true },
    };
    rig_reduce reduces[2];
    const uint32_t n = rig_reduces(r, reduces);
    for (size_t i = 0; i < n * ARRAY_LEN(cases); i++) {
        const glu_product *c = &cases[i / n];
        if (fused_is_run(&c->shape, i % n, i / n % n)) glu_product_row(r, c, &reduces[i % n]);
    }
}
