/* check_project: the fused products of a decoding pass and what makes their input.
 *
 * A reference value goes with what the device's may differ from it by: running error analysis
 * (Higham 2002, 3.3), every operation erring by U times its result. Input in signed bytes is made
 * here, and the reference multiplies exactly the numbers that those bytes stand for. */
#include "gpu/gpu.h"
#include "model/model.h"
#include "ref/check_internal.h"

#include <math.h>
#include <stdio.h>

enum { UNIT_COLS = 32, HALF_COLS = 16, MOST_LANES = 64 };

/* ---- numbers with their errors ------------------------------------------------------------- */

typedef struct {
    double v, error;
} approx;

static approx exactly(double v) {
    return (approx){ v, 0 };
}

static approx add_approx(approx a, approx b) {
    const double v = a.v + b.v;
    return (approx){ v, a.error + b.error + U * fabs(v) };
}

static approx mul_approx(approx a, approx b) {
    const double v = a.v * b.v;
    return (approx){ v,
                     a.error * fabs(b.v) + fabs(a.v) * b.error + a.error * b.error + U * fabs(v) };
}

static void expect_approx(rig *r, const rig_output *o, size_t i, approx want) {
    rig_expect(r, rig_float(o, i), want.v, want.error);
}

static double steps_of(uint32_t n) { /* log2 */
    double steps = 0;
    for (; n > 1; n /= 2)
        steps++;
    return steps;
}

/* ---- products ------------------------------------------------------------------------------ */

/* How a workgroup shares the rows of W: rows to a team, teams to a row, lanes to a team; steps
 * whose loads come first; sets of lanes that share the rows of x, FEW_ROWS to a lane at most;
 * turns that a team takes with one row of x. */
typedef struct {
    const rig_reduce *reduce;
    uint32_t rows, split, ahead, wg, team, sets, turns;
} team_shape;

/* The shape with `group` rows of W to a workgroup, for up to `tokens` rows of x; on a device of few
 * lanes teams are split less and smaller. */
static team_shape shape_for(const rig *r, const rig_reduce *reduce, const team_shape *wanted,
                            uint32_t group, uint32_t tokens) {
    const uint32_t most = gpu_info(r->g)->max_workgroup_lanes;
    team_shape s = *wanted;
    s.reduce = reduce;
    s.rows = max_u32(s.rows, 1);
    s.split = max_u32(s.split, 1);
    s.ahead = max_u32(s.ahead, 1);
    s.team = wanted->team > 0 ? min_u32(wanted->team, reduce->team) : reduce->team;
    s.sets = ceil_div(tokens, FEW_ROWS);
    s.turns = max_u32(s.turns, 1);
    s.wg = group / s.rows / s.turns * s.split * s.team * s.sets;
    for (; s.wg > most && s.split > 1; s.wg /= 2)
        s.split /= 2;
    for (; s.wg > most; s.wg /= 2)
        s.team /= 2;
    return s;
}

static bool is_shared(const rig *r, const team_shape *s) {
    return s->reduce->part == &reduce_subgroup_part &&
           lanes_share(s->split * s->team, gpu_info(r->g));
}

/* Sums by turns, pipelines are what costs time; those of teams of fewer lanes than a subgroup by
 * both. */
static bool is_run(const team_shape *wanted, size_t reduce, size_t turn) {
    return wanted->team > 0 || reduce == turn;
}

static uint32_t rows_of_group(const team_shape *s) {
    return s->wg / (s->split * s->team * s->sets) * s->rows * s->turns;
}

/* W [rows, cols] of one type: on the device, decoded, as a file has it. */
typedef struct {
    dtype type;
    uint32_t rows, cols;
    gpu_range range;
    float *decoded;
    const uint8_t *blocks;
} matrix;

static matrix new_matrix(rig *r, const rig_format *f, uint32_t rows, uint32_t cols, bool extreme) {
    matrix m = { .type = f->type, .rows = rows, .cols = cols };
    m.range = extreme ? rig_extreme_weights(r, f->type, rows, cols, &m.decoded)
                      : rig_weights(r, f->type, rows, cols, &m.decoded);
    m.blocks = r->blocks;
    return m;
}

/* Block of the weights' type that holds a unit of a row. */
static const uint8_t *block_of(const matrix *m, uint32_t row, uint32_t unit) {
    const dtype_info *info = dtype_get(m->type);
    const uint32_t per_row = ceil_div(m->cols, info->block_elements);
    return m->blocks +
           ((size_t)row * per_row + unit * UNIT_COLS / info->block_elements) * info->block_bytes;
}

/* x [n, cols]: on the device as floats or bytes, and what it is. */
typedef struct {
    bool q8;
    gpu_range range;
    const double *x;
} operand;

/* Floats in the planes of act_f32; none so small that a planted weight would not show. */
static operand new_floats(rig *r, uint32_t n, uint32_t cols) {
    const size_t units = cols / UNIT_COLS;
    float *x = rig_normals(r, (size_t)n * cols, 1), *planes = rig_alloc(r, (size_t)n * cols, 4);
    for (size_t i = 0; i < (size_t)n * cols; i++) {
        if (fabsf(x[i]) < 0.125f) x[i] = 0.125f;
        const size_t t = i / cols, u = i % cols / UNIT_COLS, c = i % UNIT_COLS;
        planes[((t * 8 + c / 4) * units + u) * 4 + c % 4] = x[i];
    }
    return (operand){ false, rig_in(r, planes, (size_t)n * cols * 4),
                      rig_doubles(r, x, (size_t)n * cols) };
}

/* Bytes in the planes of act_q8. The scales of halves are numbers of 8 bits, so that t is exact.
 * `probe` not 0: the first `probed` columns have scales of this size, the rest is zero. */
static operand new_bytes(rig *r, uint32_t n, uint32_t cols, float probe, uint32_t probed) {
    const size_t units = cols / UNIT_COLS;
    uint32_t *planes = rig_alloc(r, n * units * 12, 4);
    double *x = rig_alloc(r, (size_t)n * cols, sizeof(double));
    for (size_t at = 0; at < n * units * 2; at++) {
        const size_t t = at / (2 * units), half = at % (2 * units), first = half * HALF_COLS;
        if (probe != 0 && first >= probed) continue;
        uint32_t *row = planes + t * units * 12;
        const float s = (float)(128 + rig_below(r, 128)) / 128 * (probe != 0 ? probe : 0x1p-8f);
        int sum = 0;
        for (size_t c = 0; c < HALF_COLS; c++) {
            const int size = 16 + (int)rig_below(r, 112), b = rig_below(r, 2) == 0 ? size : -size;
            row[4 * (half % 2 * units + half / 2) + c / 4] |= (uint32_t)(b & 255) << 8 * (c % 4);
            x[t * cols + first + c] = (double)s * b;
            sum += b;
        }
        const float pair[2] = { s, s * (float)sum };
        memcpy(row + 4 * (2 * units + half / 2) + 2 * (half % 2), pair, sizeof(pair));
    }
    return (operand){ true, rig_in(r, planes, n * units * 48), x };
}

/* W[row, :] . x[t, :] in the order of kernels/common/products.wgsl. Every addition errs by U times
 * the sum it makes. Floats: before them by U |w x| each a weight, its product, three additions of a
 * dot product of 4 and three of the tree of eight such. Bytes: scale and low of a half are exact
 * (an f16 times one integer), so is the sum of 16 byte products. |scale byte x| has two products,
 * the sum of both halves and the difference to come, |low x| one product and the same; the
 * reference's own weight has U |w x|: no more than five times (|scale byte| + |low|) |x|. */
static approx product_of(const team_shape *s, const matrix *m, uint32_t row, const operand *in,
                         uint32_t t) {
    const uint32_t lanes = s->split * s->team;
    double sums[MOST_LANES] = { 0 }, error = 0, all = 0, total = 0;
    assert(lanes <= MOST_LANES);
    for (uint32_t unit = 0; unit < m->cols / UNIT_COLS; unit++) {
        const float *w = m->decoded + (size_t)row * m->cols + unit * UNIT_COLS;
        const double *x = in->x + (size_t)t * m->cols + unit * UNIT_COLS;
        const uint8_t *block = in->q8 ? block_of(m, row, unit) : NULL;
        double sum = 0, size = 0;
        for (size_t i = 0; i < UNIT_COLS; i++) {
            sum += (double)w[i] * x[i];
            size += in->q8 ? fabs(x[i]) : fabs((double)w[i] * x[i]);
        }
        error += in->q8 ? 5 * rig_block_most(m->type, block) * size : 8 * size;
        if (in->q8 && m->type == DTYPE_MXFP4 && block[0] < 2) continue; /* zero by contract */
        sums[unit % lanes] += sum;
        error += fabs(sums[unit % lanes]);
    }
    for (uint32_t i = 0; i < lanes; i++) {
        total += sums[i];
        all += fabs(sums[i]);
    }
    return (approx){ total, U * (error + (steps_of(s->team) + s->split) * all) };
}

/* ---- RMSNorm's scale ----------------------------------------------------------------------- */

static const float NORM_EPS = 1e-5f;

/* Sums of squares as of numbers near 1. */
static float *new_squares(rig *r, size_t n) {
    float *x = rig_alloc(r, n, sizeof(float));
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(8 + 16 * rig_uniform(r));
    return x;
}

/* Nothing cancels in the sum: a lane's additions and those of the team. The root halves their
 * relative error, the division's (2.5) and that of adding eps; then inverseSqrt (2). */
static approx norm_scale(const float *squares, uint32_t cols, uint32_t team) {
    const uint32_t n = cols / HALF_COLS;
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += (double)squares[i];
    const double v = 1 / sqrt(sum / cols + (double)NORM_EPS);
    const double additions = ceil_div(n, team) + steps_of(team);
    return (approx){ v, ((additions + 2.5 + 1) / 2 + 2) * U * v };
}

/* ---- activations --------------------------------------------------------------------------- */

typedef enum { FORM_F32, FORM_Q8 } act_form;

static const gpu_fragment *const act_parts[] = { &act_f32_part, &act_q8_part };

static rig_output *new_act(rig *r, act_form form, size_t rows, size_t cols) {
    return rig_out(r, NULL, form == FORM_Q8 ? rows * cols / UNIT_COLS * 12 : rows * cols);
}

/* Sixteen columns as bytes. s is most / 127 (2.5 U). Each s byte is the nearest to its value, but
 * for the errors of the inverse (2.5 U), the largest number (U), s and the product of up to 127:
 * less than 127 * 8 U of s. t is one product of what is there. Numbers up to 1e-30 are 0. */
static void expect_half_bytes(rig *r, const rig_output *act, size_t row, size_t units, size_t half,
                              const approx v[HALF_COLS]) {
    const double nothing = 1e-30;
    const size_t first = row * 12 * units, at = first + 4 * (half % 2 * units + half / 2);
    const size_t scale = first + 4 * (2 * units + half / 2) + 2 * (half % 2);
    approx most = { 0, 0 };
    for (size_t i = 0; i < HALF_COLS; i++) {
        most.v = fmax(most.v, fabs(v[i].v));
        most.error = fmax(most.error, v[i].error);
    }
    const bool some = most.v > nothing;
    rig_expect(r, rig_float(act, scale), some ? most.v / 127 : 0,
               some ? (most.error + 2.5 * U * most.v) / 127 : 0);
    const double s = (double)rig_float(act, scale);
    int sum = 0;
    for (size_t word = 0; word < 4; word++) {
        double worst = 0;
        for (size_t k = 0; k < 4; k++) {
            const int b = (int8_t)(act->after[at + word] >> 8 * k & 255);
            const approx *want = &v[4 * word + k];
            worst = fmax(worst, fabs(s * b - want->v) - want->error);
            sum += b;
        }
        rig_expect(r, (float)worst, 0, s * (0.5 + 127 * 8 * U) + nothing);
    }
    rig_expect(r, rig_float(act, scale + 1), s * sum, U * fabs(s * sum));
}

static void expect_half(rig *r, act_form form, const rig_output *act, size_t row, size_t units,
                        size_t half, const approx v[HALF_COLS]) {
    if (form == FORM_Q8) {
        expect_half_bytes(r, act, row, units, half, v);
        return;
    }
    for (size_t i = 0; i < HALF_COLS; i++) {
        const size_t plane = 4 * (half % 2) + i / 4;
        const size_t at = ((row * 8 + plane) * units + half / 2) * 4 + i % 4;
        expect_approx(r, act, at, v[i]);
    }
}

/* ---- project ------------------------------------------------------------------------------- */

typedef struct {
    const rig_format *format, *other; /* NULL: one matrix */
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

static gpu_range sizes_of(rig *r, uint32_t tokens, uint32_t n, uint32_t counted) {
    uint32_t sizes[4] = { 77, 77, 77, 77 };
    if (tokens > 1) sizes[counted] = n;
    return rig_sizes(r, sizes);
}

static void call_project(rig *r, const project_case *c, const team_shape *s, const matrix w[2],
                         const operand *in, gpu_range bias, gpu_range squares, const rig_output *y,
                         uint32_t column, uint32_t stride) {
    const uint32_t groups = ceil_div(c->rows + c->other_rows, rows_of_group(s));
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
        .shared = is_shared(r, s),
        .normed = c->normed,
        .eps = NORM_EPS,
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
                           [PROJECT_SIZES] = sizes_of(r, c->tokens, c->n, counted),
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
static bool leaves_range(const project_case *c, const matrix *m, uint32_t row) {
    if (c->probe == 0 || m->type != DTYPE_MXFP4) return false;
    const int e = block_of(m, row, 0)[0];
    return c->probe < 1 ? e > 1 && e < 64 : e > 192;
}

static void project_row(rig *r, const project_case *c, const rig_reduce *reduce) {
    const team_shape s = shape_for(r, reduce, &c->shape, c->group == 0 ? 4 : c->group, c->tokens);
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
    matrix w[2] = { new_matrix(r, c->format, c->rows, c->cols, c->probe != 0) };
    const gpu_range none = rig_in(r, (float[4]){ 0 }, 16);
    w[1].range = none;
    if (c->other != NULL) w[1] = new_matrix(r, c->other, c->other_rows, c->cols, c->probe != 0);
    const operand in = !c->q8 ? new_floats(r, c->n, c->cols)
                              : new_bytes(r, c->n, c->cols, c->probe, first_block(c));
    const float *bias = rig_normals(r, rows, 1);
    const float *squares = new_squares(r, (size_t)c->n * squares_row);
    rig_output *y = rig_out(r, NULL, (size_t)c->n * stride);
    call_project(r, c, &s, w, &in, c->bias ? rig_in(r, bias, (size_t)rows * 4) : none,
                 c->normed ? rig_in(r, squares, (size_t)c->n * squares_row * 4) : none, y, column,
                 stride);
    if (rig_run(r)) {
        for (uint32_t t = 0; t < c->n; t++) {
            rig_kept(r, y, t * stride, column);
            for (uint32_t i = 0; i < rows; i++) {
                const bool second = i >= c->rows;
                approx v = product_of(&s, &w[second], second ? i - c->rows : i, &in, t);
                if (c->normed) {
                    v = mul_approx(v, norm_scale(squares + t * squares_row, c->cols, s.team));
                }
                if (c->bias) v = add_approx(v, exactly((double)bias[i]));
                if (c->scale != 0) v = mul_approx(v, exactly((double)c->scale));
                if (leaves_range(c, &w[second], second ? i - c->rows : i))
                    rig_skip(r, 1);
                else
                    expect_approx(r, y, t * stride + column + i, v);
            }
            rig_kept(r, y, t * stride + column + rows, stride - column - rows);
        }
    }
    rig_end(r);
}

static const rig_format *format_of(dtype type) {
    size_t i = 0;
    while (rig_formats[i].type != type)
        i++;
    return &rig_formats[i];
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
                &(project_case){ format_of(DTYPE_MXFP4), NULL, 9, 0, 608, 1, 1, true,
                                 "scales that small x take below the least number",
                                 .probe = 0x1p6f },
                reduce);
}

void check_project(rig *r) {
    const rig_format *f32 = format_of(DTYPE_F32), *q8_0 = format_of(DTYPE_Q8_0);
    const rig_format *q4_k = format_of(DTYPE_Q4_K), *q4_0 = format_of(DTYPE_Q4_0);
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
        if (is_run(&c->shape, i % n, i / n % n)) project_row(r, c, &reduces[i % n]);
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

/* What the row of the stream leaves for the next block. x^2 of both ways to 16 columns: a square
 * and 16 additions, of which nothing cancels. */
static void expect_next(rig *r, const add_case *c, uint32_t t, const approx *x, const float *w,
                        const rig_output *squares, const rig_output *act) {
    for (uint32_t half = 0; half < c->dim / HALF_COLS; half++) {
        approx v[HALF_COLS], sum = { 0, 0 };
        for (uint32_t i = 0; i < HALF_COLS; i++) {
            const uint32_t at = half * HALF_COLS + i;
            v[i] = mul_approx(x[at], exactly((double)w[at]));
            const approx square = mul_approx(x[at], x[at]);
            sum.v += square.v;
            sum.error += square.error;
        }
        sum.error += HALF_COLS * U * sum.v;
        expect_approx(r, squares, t * (c->dim / HALF_COLS) + half, sum);
        expect_half(r, c->form, act, t, c->dim / UNIT_COLS, half, v);
    }
}

static void add_row(rig *r, const add_case *c, const rig_reduce *reduce) {
    const team_shape s = shape_for(r, reduce, &c->shape, c->group, c->tokens);
    char kernel[96];
    snprintf(kernel, sizeof(kernel), "project_add %s %s %s", c->q8 ? "bytes" : "floats",
             act_parts[c->form]->name, reduce->part->name);
    if (!rig_begin(r, kernel, c->reason, "%s, K %u, dim %u, n %u of %u%s%s%s", c->format->name,
                   c->cols, c->dim, c->n, c->tokens, c->next ? "" : ", the last",
                   c->bias ? ", bias" : "", c->scale == 0 ? "" : ", scaled")) {
        return;
    }
    const uint32_t dim = c->dim;
    const matrix m = new_matrix(r, c->format, dim, c->cols, false);
    const operand in = c->q8 ? new_bytes(r, c->n, c->cols, 0, 0) : new_floats(r, c->n, c->cols);
    const float *bias = rig_normals(r, dim, 1), *before = rig_normals(r, (size_t)c->n * dim, 1);
    float *w = rig_normals(r, dim, 1);
    memset(w + HALF_COLS, 0, HALF_COLS * sizeof *w); /* a half of zeros */
    rig_output *stream = rig_out(r, before, (size_t)c->n * dim);
    rig_output *squares = rig_out(r, NULL, c->next ? (size_t)c->n * dim / HALF_COLS : 4);
    rig_output *act = new_act(r, c->form, c->next ? c->n : 1, c->next ? dim : UNIT_COLS);
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
        .shared = is_shared(r, &s),
        .bias = c->bias,
        .next = c->next,
        .scale = c->scale == 0 ? 1 : c->scale,
    };
    rig_call(r, &project_add_source,
             (const gpu_fragment *[]){ c->format->part, c->q8 ? &input_q8_part : &input_f32_part,
                                       act_parts[c->form], reduce->part },
             &consts,
             (gpu_call){
                 .bind = { [0] = m.range,
                           [INPUT_F32_X] = in.range,
                           [PROJECT_ADD_BIAS] = c->bias ? rig_in(r, bias, dim * 4) : none,
                           [PROJECT_ADD_SIZES] = sizes_of(r, c->tokens, c->n, 0),
                           [PROJECT_ADD_STREAM] = stream->range,
                           [PROJECT_ADD_W] = c->next ? rig_in(r, w, dim * 4) : none,
                           [PROJECT_ADD_SQUARES] = squares->range,
                           [ACT_F32_ACT] = act->range },
                 .groups = { { .times = ceil_div(dim, rows_of_group(&s)) } },
             });
    if (rig_run(r)) {
        approx *x = rig_alloc(r, dim, sizeof *x);
        for (uint32_t t = 0; t < c->n; t++) {
            for (uint32_t i = 0; i < dim; i++) {
                x[i] = product_of(&s, &m, i, &in, t);
                if (c->bias) x[i] = add_approx(x[i], exactly((double)bias[i]));
                if (c->scale != 0) x[i] = mul_approx(x[i], exactly((double)c->scale));
                x[i] = add_approx(x[i], exactly((double)before[t * dim + i]));
                expect_approx(r, stream, t * dim + i, x[i]);
                x[i] = exactly((double)rig_float(stream, t * dim + i)); /* what goes on */
            }
            if (c->next) expect_next(r, c, t, x, w, squares, act);
        }
        if (!c->next) rig_kept(r, squares, 0, squares->n);
        if (!c->next) rig_kept(r, act, 0, act->n);
    }
    rig_end(r);
}

void check_project_add(rig *r) {
    const rig_format *f32 = format_of(DTYPE_F32), *q4_0 = format_of(DTYPE_Q4_0);
    const rig_format *q6_k = format_of(DTYPE_Q6_K);
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
        if (is_run(&c->shape, i % n, i / n % n)) add_row(r, c, &reduces[i % n]);
    }
}

/* ---- project_glu --------------------------------------------------------------------------- */

enum { GATED_SILU, GATED_GELU, GATED_CLAMPED }; /* as in kernels/common/activation.wgsl */

typedef struct {
    const rig_format *format;
    uint32_t cols, ffn, tokens, n, act;
    bool q8;
    act_form form;
    bool normed;
    const char *reason;
    team_shape shape;
    uint32_t group;
} glu_product;

static const float GATE_ALPHA = 1.702f, GATE_LIMIT = 7;

/* act(g) = g / (1 + exp(-y)), y off by `argument` U besides what g is: exp errs by (3 + 2 |y|) U
 * in so far as it is part of the sum, the sum, the quotient (2.5). GELU's y has terms of one sign,
 * three products, a sum, a product and two constants. No slope of an activation is over 1.13. What
 * is below 1e-36 may vanish. */
static approx activated(uint32_t act, approx g) {
    const double cube = g.v * g.v * g.v, alpha = (double)GATE_ALPHA;
    double y = g.v, argument = 0, want = ref_silu(g.v);
    if (act == GATED_GELU) {
        y = 2 * 0.7978845608028654 * (g.v + 0.044715 * cube);
        argument = 6;
        want = ref_gelu(g.v);
    } else if (act == GATED_CLAMPED) {
        y = alpha * g.v;
        argument = 1;
        want = ref_silu(y) / alpha;
    }
    const double share = 1 / (1 + exp(y));
    const double relative = U * ((3 + (2 + argument) * fabs(y)) * share + 1 + 2.5);
    return (approx){ want, relative * fabs(want) + 1.13 * g.error + 1e-36 };
}

static approx gated_pair(uint32_t act, approx g, approx u) {
    if (act == GATED_CLAMPED) {
        const double limit = (double)GATE_LIMIT;
        g.v = fmin(g.v, limit);
        u.v = fmax(-limit, fmin(u.v, limit));
        u = add_approx(u, exactly(1));
    }
    return mul_approx(activated(act, g), u);
}

static void expect_hidden(rig *r, const glu_product *c, const team_shape *s, const matrix *m,
                          const operand *in, const float *squares, const rig_output *act) {
    for (uint32_t t = 0; t < c->n; t++) {
        const approx scale = c->normed
                                 ? norm_scale(squares + t * (c->cols / HALF_COLS), c->cols, s->team)
                                 : exactly(1);
        for (uint32_t half = 0; half < c->ffn / HALF_COLS; half++) {
            approx v[HALF_COLS];
            for (uint32_t i = 0; i < HALF_COLS; i++) {
                const uint32_t at = half * HALF_COLS + i;
                const approx gate = product_of(s, m, at, in, t);
                const approx up = product_of(s, m, c->ffn + at, in, t);
                v[i] = gated_pair(c->act, mul_approx(gate, scale), mul_approx(up, scale));
            }
            expect_half(r, c->form, act, t, c->ffn / UNIT_COLS, half, v);
        }
    }
}

static void glu_product_row(rig *r, const glu_product *c, const rig_reduce *reduce) {
    static const char *const names[] = { "silu", "gelu", "clamped" };
    const team_shape s = shape_for(r, reduce, &c->shape, c->group, c->tokens);
    char kernel[96];
    snprintf(kernel, sizeof(kernel), "project_glu %s %s %s %s", names[c->act],
             c->q8 ? "bytes" : "floats", act_parts[c->form]->name, reduce->part->name);
    if (!rig_begin(r, kernel, c->reason, "%s, K %u, FFN %u, n %u of %u%s", c->format->name, c->cols,
                   c->ffn, c->n, c->tokens, c->normed ? ", normed" : "")) {
        return;
    }
    const size_t n_squares = (size_t)c->n * (c->cols / HALF_COLS);
    const float *squares = new_squares(r, n_squares);
    const gpu_range norm =
        c->normed ? rig_numbers(r, squares, n_squares, 1) : rig_in(r, squares, n_squares * 4);
    const matrix m = new_matrix(r, c->format, 2 * c->ffn, c->cols, false);
    const operand in = c->q8 ? new_bytes(r, c->n, c->cols, 0, 0) : new_floats(r, c->n, c->cols);
    rig_output *act = new_act(r, c->form, c->n, c->ffn);
    const uint32_t columns = rows_of_group(&s) / 2;
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
        .shared = is_shared(r, &s),
        .normed = c->normed,
        .eps = NORM_EPS,
        .act = c->act,
        .alpha = GATE_ALPHA,
        .limit = GATE_LIMIT,
    };
    rig_call(r, &project_glu_source,
             (const gpu_fragment *[]){ c->format->part, c->q8 ? &input_q8_part : &input_f32_part,
                                       act_parts[c->form], reduce->part },
             &consts,
             (gpu_call){
                 .bind = { [0] = m.range,
                           [INPUT_F32_X] = in.range,
                           [PROJECT_GLU_SIZES] = sizes_of(r, c->tokens, c->n, 0),
                           [PROJECT_GLU_SQUARES] = norm,
                           [ACT_F32_ACT] = act->range },
                 .groups = { { .times = ceil_div(c->ffn, columns) } },
             });
    if (rig_run(r)) expect_hidden(r, c, &s, &m, &in, squares, act);
    rig_end(r);
}

void check_project_glu(rig *r) {
    const rig_format *f32 = format_of(DTYPE_F32), *q4_0 = format_of(DTYPE_Q4_0);
    const rig_format *q4_k = format_of(DTYPE_Q4_K);
    const glu_product cases[] = {
        { f32, 96, 96, 1, 1, GATED_SILU, false, FORM_F32, false, "a step",
          .shape = { .rows = 2, .ahead = 2 }, .group = 32 },
        { q4_0, 96, 96, 8, 3, GATED_GELU, true, FORM_F32, true, "some rows of a pass",
          .shape = { .rows = 2 }, .group = 64 },
        { q4_0, 96, 96, 1, 1, GATED_CLAMPED, false, FORM_Q8, true, "columns that leave lanes",
          .shape = { .rows = 4 }, .group = 128 },
        { q4_k, 1280, 96, 1, 1, GATED_SILU, true, FORM_Q8, true, "two teams to a row",
          .shape = { .rows = 2, .split = 2 }, .group = 64 },
        { q4_0, 96, 96, 8, 8, GATED_CLAMPED, true, FORM_Q8, true, "all rows of a pass in bytes",
          .shape = { .rows = 2 }, .group = 64 },
        { q4_0, 96, 96, 1, 1, GATED_SILU, true, FORM_Q8, true, "a lane to two rows",
          .shape = { .rows = 2, .team = 1 }, .group = 128 },
        { q4_k, 1280, 96, 1, 1, GATED_SILU, true, FORM_Q8, true,
          "four turns, the last over the end", .shape = { .rows = 2, .turns = 4 }, .group = 128 },
        { q4_k, 1280, 96, 16, 13, GATED_SILU, true, FORM_Q8, true, "teams of four, two to a row",
          .shape = { .rows = 4, .split = 2, .team = 4 }, .group = 32 },
        { q4_0, 96, 96, 16, 16, GATED_SILU, true, FORM_F32, true, "eight rows of x to each set",
          .shape = { .rows = 4 }, .group = 64 },
    };
    rig_reduce reduces[2];
    const uint32_t n = rig_reduces(r, reduces);
    for (size_t i = 0; i < n * ARRAY_LEN(cases); i++) {
        const glu_product *c = &cases[i / n];
        if (is_run(&c->shape, i % n, i / n % n)) glu_product_row(r, c, &reduces[i % n]);
    }
}

/* ---- ready --------------------------------------------------------------------------------- */

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
            v[i] = exactly((double)x[at]);
            if (c->weighted) v[i] = mul_approx(v[i], exactly((double)w[at]));
            sum += (double)x[at] * (double)x[at];
        }
        /* A square, three additions of a dot product, four of their sums; squares that are
         * subnormal may be flushed, as may their sums. */
        rig_expect(r, rig_float(squares, t * halves + half), sum, 8 * U * sum + 32 * 0x1p-126);
        expect_half(r, c->form, act, t, c->dim / UNIT_COLS, half, v);
    }
}

/* The same made by embed, of floats times a power of two. */
static void embed_input_row(rig *r, const ready_case *c, uint32_t lanes) {
    char kernel[96];
    snprintf(kernel, sizeof(kernel), "embed %s", act_parts[c->form]->name);
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
    rig_output *act = new_act(r, c->form, c->n, dim);
    const embed_consts consts = { .k = c->dim,
                                  .vocab = vocab,
                                  .scale = (float)c->scale,
                                  .next = true,
                                  .weighted = c->weighted,
                                  .wg = lanes };
    rig_call(
        r, &embed_source,
        (const gpu_fragment *[]){ format_of(DTYPE_F32)->part, act_parts[c->form] }, &consts,
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
             act_parts[c->form]->name);
    if (!rig_begin(r, kernel, c->reason, "dim %u, rows %u%s, |y| %g, lanes %u", c->dim, c->n,
                   c->weighted ? ", weighted" : "", c->scale, lanes)) {
        return;
    }
    const size_t dim = c->dim;
    const float *y = rig_normals(r, c->n * dim, c->scale), *before = rig_normals(r, c->n * dim, 1);
    const float *post = rig_normals(r, dim, 1), *w = rig_normals(r, dim, 1);
    double *normed = rig_alloc(r, c->n * dim, sizeof(double));
    ref_norm(normed, rig_doubles(r, y, c->n * dim), post, c->n, dim, (double)NORM_EPS);
    rig_output *x = rig_out(r, before, c->n * dim);
    rig_output *squares = rig_out(r, NULL, c->n * dim / HALF_COLS);
    rig_output *act = new_act(r, c->form, c->n, dim);
    const norm_ready_consts consts = { .dim = c->dim,
                                       .eps = NORM_EPS,
                                       .weighted = c->weighted,
                                       .wg = lanes,
                                       .team = reduce->team };
    rig_call(r, &norm_ready_source,
             (const gpu_fragment *[]){ reduce->part, act_parts[c->form] }, &consts,
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

static void ready_row(rig *r, const ready_case *c) {
    enum { ROWS = 7, LANES = 64 };
    char kernel[96];
    snprintf(kernel, sizeof(kernel), "ready %s", act_parts[c->form]->name);
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
    rig_output *act = new_act(r, c->form, c->n, dim);
    rig_call(r, &ready_source, (const gpu_fragment *[]){ act_parts[c->form] },
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
}
