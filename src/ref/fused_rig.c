/* fused_rig: numbers with their errors, weights, inputs and outputs for the checks of the fused
 * products (check_fused_internal.h). */
#include "gpu/gpu.h"
#include "model/model.h"
#include "ref/check_fused_internal.h"

#include <math.h>

enum { MOST_LANES = 64 };

/* ---- numbers with their errors ------------------------------------------------------------- */

approx approx_of(double v) {
    return (approx){ v, 0 };
}

approx approx_add(approx a, approx b) {
    const double v = a.v + b.v;
    return (approx){ v, a.error + b.error + U * fabs(v) };
}

approx approx_mul(approx a, approx b) {
    const double v = a.v * b.v;
    return (approx){ v,
                     a.error * fabs(b.v) + fabs(a.v) * b.error + a.error * b.error + U * fabs(v) };
}

void approx_expect(rig *r, const rig_output *o, size_t i, approx want) {
    rig_expect(r, rig_float(o, i), want.v, want.error);
}

static double steps_of(uint32_t n) { /* log2 */
    double steps = 0;
    for (; n > 1; n /= 2)
        steps++;
    return steps;
}

/* ---- products ------------------------------------------------------------------------------ */

team_shape fused_shape(const rig *r, const rig_reduce *reduce, const team_shape *wanted,
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

bool fused_is_shared(const rig *r, const team_shape *s) {
    return s->reduce->part == &reduce_subgroup_part &&
           lanes_share(s->split * s->team, gpu_info(r->g));
}

bool fused_is_run(const team_shape *wanted, size_t reduce, size_t turn) {
    return wanted->team > 0 || reduce == turn;
}

uint32_t fused_group_rows(const team_shape *s) {
    return s->wg / (s->split * s->team * s->sets) * s->rows * s->turns;
}

fused_weights fused_matrix(rig *r, const rig_format *f, uint32_t rows, uint32_t cols,
                           bool extreme) {
    fused_weights m = { .type = f->type, .rows = rows, .cols = cols };
    m.range = extreme ? rig_extreme_weights(r, f->type, rows, cols, &m.decoded)
                      : rig_weights(r, f->type, rows, cols, &m.decoded);
    m.blocks = r->blocks;
    return m;
}

const uint8_t *fused_block(const fused_weights *m, uint32_t row, uint32_t unit) {
    const dtype_info *info = dtype_get(m->type);
    const uint32_t per_row = ceil_div(m->cols, info->block_elements);
    return m->blocks +
           ((size_t)row * per_row + unit * UNIT_COLS / info->block_elements) * info->block_bytes;
}

/* Floats in the planes of act_f32; none so small that a planted weight would not show. */
fused_input fused_floats(rig *r, uint32_t n, uint32_t cols) {
    const size_t units = cols / UNIT_COLS;
    float *x = rig_normals(r, (size_t)n * cols, 1), *planes = rig_alloc(r, (size_t)n * cols, 4);
    for (size_t i = 0; i < (size_t)n * cols; i++) {
        if (fabsf(x[i]) < 0.125f) x[i] = 0.125f;
        const size_t t = i / cols, u = i % cols / UNIT_COLS, c = i % UNIT_COLS;
        planes[((t * 8 + c / 4) * units + u) * 4 + c % 4] = x[i];
    }
    return (fused_input){ false, rig_in(r, planes, (size_t)n * cols * 4),
                          rig_doubles(r, x, (size_t)n * cols) };
}

/* Bytes in the planes of act_q8. The scales of halves are numbers of 8 bits, so that t is exact.
 * `probe` not 0: the first `probed` columns have scales of this size, the rest is zero. */
fused_input fused_bytes(rig *r, uint32_t n, uint32_t cols, float probe, uint32_t probed) {
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
    return (fused_input){ true, rig_in(r, planes, n * units * 48), x };
}

/* W[row, :] . x[t, :] in the order of kernels/common/products.wgsl. Every addition errs by U times
 * the sum it makes. Floats: before them by U |w x| each a weight, its product, three additions of a
 * dot product of 4 and three of the tree of eight such. Bytes: scale and low of a half are exact
 * (an f16 times one integer), so is the sum of 16 byte products. |scale byte x| has two products,
 * the sum of both halves and the difference to come, |low x| one product and the same; the
 * reference's own weight has U |w x|: no more than five times (|scale byte| + |low|) |x|. */
approx fused_product(const team_shape *s, const fused_weights *m, uint32_t row,
                     const fused_input *in, uint32_t t) {
    const uint32_t lanes = s->split * s->team;
    double sums[MOST_LANES] = { 0 }, error = 0, all = 0, total = 0;
    assert(lanes <= MOST_LANES);
    for (uint32_t unit = 0; unit < m->cols / UNIT_COLS; unit++) {
        const float *w = m->decoded + (size_t)row * m->cols + unit * UNIT_COLS;
        const double *x = in->x + (size_t)t * m->cols + unit * UNIT_COLS;
        const uint8_t *block = in->q8 ? fused_block(m, row, unit) : NULL;
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

/* Sums of squares as of numbers near 1. */
float *fused_squares(rig *r, size_t n) {
    float *x = rig_alloc(r, n, sizeof(float));
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(8 + 16 * rig_uniform(r));
    return x;
}

/* Nothing cancels in the sum: a lane's additions and those of the team. The root halves their
 * relative error, the division's (2.5) and that of adding eps; then inverseSqrt (2). */
approx fused_norm_scale(const float *squares, uint32_t cols, uint32_t team) {
    const uint32_t n = cols / HALF_COLS;
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += (double)squares[i];
    const double v = 1 / sqrt(sum / cols + (double)FUSED_EPS);
    const double additions = ceil_div(n, team) + steps_of(team);
    return (approx){ v, ((additions + 2.5 + 1) / 2 + 2) * U * v };
}

/* ---- activations --------------------------------------------------------------------------- */

const gpu_fragment *const fused_acts[] = { &act_f32_part, &act_q8_part };

rig_output *fused_act(rig *r, act_form form, size_t rows, size_t cols) {
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

void fused_expect_half(rig *r, act_form form, const rig_output *act, size_t row, size_t units,
                       size_t half, const approx v[HALF_COLS]) {
    if (form == FORM_Q8) {
        expect_half_bytes(r, act, row, units, half, v);
        return;
    }
    for (size_t i = 0; i < HALF_COLS; i++) {
        const size_t plane = 4 * (half % 2) + i / 4;
        const size_t at = ((row * 8 + plane) * units + half / 2) * 4 + i % 4;
        approx_expect(r, act, at, v[i]);
    }
}

/* ---- what is common -------------------------------------------------------------------------- */

gpu_range fused_sizes(rig *r, uint32_t tokens, uint32_t n, uint32_t counted) {
    uint32_t sizes[4] = { 77, 77, 77, 77 };
    if (tokens > 1) sizes[counted] = n;
    return rig_sizes(r, sizes);
}

const rig_format *fused_format(dtype type) {
    size_t i = 0;
    while (rig_formats[i].type != type)
        i++;
    return &rig_formats[i];
}

/* What the row of the stream leaves for the next block. x^2 of both ways to 16 columns: a square
 * and 16 additions, of which nothing cancels. */
void fused_expect_next(rig *r, act_form form, uint32_t dim, uint32_t t, const approx *x,
                       const float *w, const rig_output *squares, const rig_output *act) {
    for (uint32_t half = 0; half < dim / HALF_COLS; half++) {
        approx v[HALF_COLS], sum = { 0, 0 };
        for (uint32_t i = 0; i < HALF_COLS; i++) {
            const uint32_t at = half * HALF_COLS + i;
            v[i] = approx_mul(x[at], approx_of((double)w[at]));
            const approx square = approx_mul(x[at], x[at]);
            sum.v += square.v;
            sum.error += square.error;
        }
        sum.error += HALF_COLS * U * sum.v;
        approx_expect(r, squares, t * (dim / HALF_COLS) + half, sum);
        fused_expect_half(r, form, act, t, dim / UNIT_COLS, half, v);
    }
}

/* act(g) = g / (1 + exp(-y)), y off by `argument` U besides what g is: exp errs by (3 + 2 |y|) U
 * in so far as it is part of the sum, the sum, the quotient (2.5). GELU's y has terms of one sign,
 * three products, a sum, a product and two constants. No slope of an activation is over 1.13. What
 * is below 1e-36 may vanish. */
static approx fused_activated(rig_act act, approx g) {
    const double cube = g.v * g.v * g.v, alpha = (double)RIG_ALPHA;
    double y = g.v, argument = 0, want = ref_silu(g.v);
    if (act == RIG_GELU) {
        y = 2 * 0.7978845608028654 * (g.v + 0.044715 * cube);
        argument = 6;
        want = ref_gelu(g.v);
    } else if (act == RIG_CLAMPED) {
        y = alpha * g.v;
        argument = 1;
        want = ref_silu(y) / alpha;
    }
    const double share = 1 / (1 + exp(y));
    const double relative = U * ((3 + (2 + argument) * fabs(y)) * share + 1 + 2.5);
    return (approx){ want, relative * fabs(want) + 1.13 * g.error + 1e-36 };
}

static approx fused_gated(rig_act act, approx g, approx u) {
    if (act == RIG_CLAMPED) {
        const double limit = (double)RIG_LIMIT;
        g.v = fmin(g.v, limit);
        u.v = fmax(-limit, fmin(u.v, limit));
        u = approx_add(u, approx_of(1));
    }
    return approx_mul(fused_activated(act, g), u);
}

static approx hidden_sum(const team_shape *s, const fused_weights *m, uint32_t row,
                         const fused_input *in, uint32_t t, approx scale, const float *bias) {
    const approx sum = approx_mul(fused_product(s, m, row, in, t), scale);
    return bias == NULL ? sum : approx_add(sum, approx_of((double)*bias));
}

void fused_expect_hidden(rig *r, act_form form, const fused_ffn *f, const team_shape *s,
                         const fused_weights *m, const fused_input *in, uint32_t t, approx scale,
                         const rig_output *act, uint32_t row) {
    for (uint32_t half = 0; half < f->ffn / HALF_COLS; half++) {
        approx v[HALF_COLS];
        for (uint32_t i = 0; i < HALF_COLS; i++) {
            const uint32_t at = half * HALF_COLS + i;
            const float *gate_bias = f->gate_bias != NULL ? &f->gate_bias[at] : NULL;
            const float *up_bias = f->up_bias != NULL ? &f->up_bias[at] : NULL;
            const approx up = hidden_sum(s, m, f->up + at, in, t, scale, up_bias);
            if (f->ungated) {
                v[i] = fused_activated(f->act, up);
                continue;
            }
            v[i] = fused_gated(f->act, hidden_sum(s, m, f->gate + at, in, t, scale, gate_bias), up);
        }
        fused_expect_half(r, form, act, row, f->ffn / UNIT_COLS, half, v);
    }
}
