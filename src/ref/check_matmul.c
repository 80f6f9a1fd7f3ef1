/* check_matmul: products of many rows: with x in floats, multiplied as such or as half floats, and
 * in signed bytes, making the bytes, adding up what was split over workgroups. */
#include "model/model.h"
#include "ref/check_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { UNIT = 32, HALF = 16, SIDE_QUANTISE = 8, EXPERTS_TILE = 1 };

/* ---- bytes of x ---------------------------------------------------------------------------- */

uint32_t *rig_bytes(rig *r, const float *x, size_t n, uint32_t cols, double *exact) {
    const size_t units = ceil_div(cols, UNIT), pitch = n + RIG_SPARE_ROWS;
    uint32_t *q = rig_alloc(r, pitch * 12 * units, sizeof(uint32_t));
    for (size_t at = 0; at < pitch * 12 * units; at++)
        q[at] = at / 4 % pitch < n ? 0 : 0x7fc00001; /* no number */
    for (size_t at = 0; at < n * units; at++) {
        const size_t row = at / units, u = at % units, first = row * cols + u * UNIT;
        const size_t count = min_u64(UNIT, cols - u * UNIT);
        uint32_t *planes = q + 4 * (u * 3 * pitch + row);
        float most = 0;
        for (size_t i = 0; i < count; i++)
            most = fmaxf(most, fabsf(x[first + i]));
        const float s = most / 127;
        int sum[2] = { 0, 0 };
        for (size_t i = 0; i < count; i++) {
            const int b = most > 0 ? (int)lroundf(x[first + i] / most * 127) : 0;
            planes[i / HALF * 4 * pitch + i % HALF / 4] |= (uint32_t)(b & 255) << i % 4 * 8;
            sum[i / HALF] += b;
            exact[first + i] = (double)s * b;
        }
        for (size_t h = 0; h < 2; h++) {
            const float pair[2] = { s, s * (float)sum[h] };
            memcpy(planes + 8 * pitch + 2 * h, pair, sizeof(pair));
        }
    }
    return q;
}

typedef struct {
    uint32_t cols, rows;
    double scale;
    const char *reason;
    rig_gate gate;
} bytes_case;

/* One unit of x, which is off by `bound`: the scale within the quotient's error; each byte the
 * nearest to its value, but for the errors of inverse (2.5 U) and product (1 U) of up to 127, twice
 * U to be safe; both sums those of the bytes that are there. */
static void expect_unit(rig *r, const rig_output *q, size_t at, size_t plane, const double *x,
                        const double *bound, size_t count) {
    double most = 0, error = 0;
    for (size_t i = 0; i < count; i++) {
        most = fmax(most, fabs(x[i]));
        error = fmax(error, bound[i]);
    }
    const size_t scales = at + 2 * plane;
    const double s = (double)rig_float(q, scales);
    for (size_t h = 0; h < 2; h++) {
        rig_expect(r, rig_float(q, scales + 2 * h), most / 127,
                   (error + 2.5 * U * (most + error)) / 127);
        int sum = 0;
        for (size_t word = 0; word < 4; word++) {
            const uint32_t four = q->after[at + h * plane + word];
            double worst = 0;
            for (size_t k = 0; k < 4; k++) {
                const int b = (int8_t)(four >> 8 * k & 255);
                const size_t i = HALF * h + 4 * word + k;
                const double off = i < count ? fmax(fabs(x[i] - s * b) - bound[i], 0)
                                   : b != 0  ? 1e9
                                             : 0;
                worst = fmax(worst, off);
                sum += b;
            }
            rig_expect(r, (float)worst, 0, s * (0.5 + 127 * 8 * U));
        }
        const double t = s * sum;
        rig_expect(r, rig_float(q, scales + 2 * h + 1), t, U * fabs(t));
    }
}

/* x to q, which has room for the rows. */
static void call_quantise(rig *r, gpu_range x, gpu_range q, quantise_consts consts) {
    const uint32_t cols = consts.k, n = consts.rows;
    rig_call(r, &quantise_source, NULL, &consts,
             (gpu_call){ .bind = { [QUANTISE_X] = x, [QUANTISE_Q] = q },
                         .groups = { { .times = ceil_div(ceil_div(cols, UNIT), SIDE_QUANTISE) },
                                     { .times = ceil_div(n, SIDE_QUANTISE) } } });
}

static void bytes_row(rig *r, const bytes_case *c) {
    if (!rig_begin(r, "quantise", c->reason, "K %u, rows %u, |x| %g", c->cols, c->rows, c->scale)) {
        return;
    }
    const size_t n = c->cols, rows = c->rows, units = ceil_div(c->cols, UNIT);
    const size_t width = n << (c->gate.gated && !c->gate.ungated);
    float *x = rig_normals(r, rows * width, c->scale);
    for (size_t i = 0; i < rows * n && c->reason[0] == '0'; i++) {
        if (i / UNIT % 2 == 0) x[i] = 0;
    }
    rig_output *q = rig_out(r, NULL, rows * 12 * units);
    call_quantise(r, rig_numbers(r, x, rows * width, n - 1), q->range,
                  (quantise_consts){ .k = c->cols,
                                     .rows = c->rows,
                                     .gated = c->gate.gated,
                                     .act = c->gate.act,
                                     .ungated = c->gate.ungated,
                                     .alpha = RIG_ALPHA,
                                     .limit = RIG_LIMIT });
    double *h = rig_alloc(r, n, sizeof(double)), *bound = rig_alloc(r, n, sizeof(double));
    const bool ran = rig_run(r);
    for (size_t row = 0; row < rows && ran; row++) {
        const double *want = rig_doubles(r, x + row * width, width);
        if (c->gate.gated) {
            rig_activate(c->gate.act, c->gate.ungated, want, n, h, bound);
            want = h;
        }
        for (size_t u = 0; u < units; u++) {
            expect_unit(r, q, 4 * (u * 3 * rows + row), 4 * rows, want + u * UNIT, bound + u * UNIT,
                        min_u64(UNIT, n - u * UNIT));
        }
    }
    rig_end(r);
}

void check_quantise(rig *r) {
    static const bytes_case cases[] = {
        { 4, 1, 1, "the least", { 0 } },
        { 172, 3, 1, "a row ends inside a unit and inside its first half", { 0 } },
        { 288, 17, 100, "one unit and one row more than two workgroups", { 0 } },
        { 128, 2, 1, "0 in every other unit", { 0 } },
        { 64, 2, 1e-20, "tiny numbers", { 0 } },
        { 172, 3, 1, "through a gate", { true, RIG_SILU, false } },
        { 288, 17, 3, "through Gemma's", { true, RIG_GELU, false } },
        { 64, 9, 4, "through GPT-OSS's", { true, RIG_CLAMPED, false } },
        { 172, 3, 1, "GPT-2: no gate", { true, RIG_GELU, true } },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        bytes_row(r, &cases[i]);
}

/* ---- inputs for half floats ---------------------------------------------------------------- */

/* ALIKE: all products of the first row are 1.1, of which a sum that was left to grow in half floats
 * takes 1.0, once it is 256; CANCELLING: half of them are -1.1; LARGE: tokens
 * from 1e-18 to 1e24, every second one with numbers among them that are 4,096 times the others;
 * FULL: weights beyond what a tile keeps, with the largest numbers that it divides x to, of one
 * sign. */
typedef enum { NOT_HARD, ALIKE, CANCELLING, LARGE, FULL } hard_input;
static const char *const hard_names[] = { "", ", products alike", ", cancelling", ", x large",
                                          ", sums full" };

/* x [n, cols] for w, whose first row the products are to be of. Where bounds hide a wrong weight,
 * the first token has but the first unit, where a fault may be planted and no weight is extreme. */
static float *hard_inputs(rig *r, hard_input hard, const float *w, uint32_t n, uint32_t cols) {
    float *x = rig_sparse(r, n, cols);
    for (uint32_t i = 0; i < n * cols; i++) {
        const uint32_t t = i / cols, k = i % cols;
        const bool minus = hard == CANCELLING && (t % 2 == 0 ? k % 2 > 0 : k >= cols / 2);
        if (hard == LARGE) {
            x[i] = ldexpf(x[i], (int)(t % 8) * 20 - 60 + (t % 2 > 0 && (k + t) % 37 == 0 ? 12 : 0));
        } else if (hard != NOT_HARD && t == 0) {
            x[i] = k < UNIT ? 1 : 0;
        } else if (hard == FULL) {
            x[i] = copysignf(3.99f, w[k]);
        } else if (hard != NOT_HARD) {
            x[i] = fabsf(w[k]) < 0.25f ? 0 : (minus ? -1.1f : 1.1f) / w[k];
        }
    }
    return x;
}

/* ---- products ------------------------------------------------------------------------------ */

typedef struct {
    const matmul_tile *tile;
    const rig_format *format;
    uint32_t cols, rows, n;
    const char *reason;
    tile_kernel kernel;
    bool raw; /* bytes that the device makes too */
    bool bias, add;
    float scale;     /* 0: 1 */
    uint32_t splits; /* workgroups to the columns; 0: 1 */
    uint32_t step;   /* of matmul_q8; 0: 1 */
    hard_input hard; /* of half floats */
} tile_case;

/* What the roundings add up to, in the order of matmul_q8.wgsl. Per unit: the terms scale i s of
 * both halves, one rounding for each product, two sums (4 U); the low terms t (rounded before),
 * product, sum (3 U); adding each of the two to the sum (U of what it then is). |scale byte| is |w|
 * without a low, else at most |w| + low, low at most 3 here (rig_weights: a minimum is at most 2
 * and 3 with its own spread). A weight itself is off by U (decode_bound of check_dense.c). Sums of
 * splits are added one by one. */
double rig_bytes_bound(dtype type, uint32_t cols, uint32_t split_units, const float *w,
                       const double *x) {
    const double least = q8_weight_of(type).low ? 3 : 0;
    double error = 0, sum = 0, total = 0, most = 0;
    for (uint32_t u = 0; u < ceil_div(cols, UNIT); u++) {
        if (u > 0 && u % split_units == 0) {
            total += sum;
            error += U * fabs(total);
            sum = 0;
        }
        double terms = 0, lows = 0;
        for (uint32_t i = u * UNIT; i < min_u32(cols, u * UNIT + UNIT); i++) {
            const double size = fabs((double)w[i]);
            sum += (double)w[i] * x[i];
            terms += (size + least) * fabs(x[i]);
            lows += least * fabs(x[i]);
            most += size * fabs(x[i]);
        }
        error += U * (4 * terms + 3 * lows + 2 * fabs(sum) + lows);
    }
    return error + U * (most + fabs(total + sum));
}

/* Of x in floats: as rig_product_bound has it, from anew for each split. */
static double floats_bound(uint32_t cols, uint32_t split_units, const float *w, const double *x) {
    const uint32_t span = split_units * UNIT;
    double error = 0, total = 0;
    for (uint32_t first = 0; first < cols; first += span) {
        const uint32_t n = min_u32(span, cols - first);
        error += rig_product_bound(1, n, w + first, x + first);
        for (uint32_t i = first; i < first + n; i++)
            total += (double)w[i] * x[i];
        error += first > 0 ? U * fabs(total) : 0;
    }
    return error;
}

/* Half floats: a result is off by HALF_U of it, in whichever direction it is rounded, and by
 * HALF_LEAST if it is so small that it may become zero. */
static const double HALF_U = 0x1p-10, HALF_LEAST = 0x1p-14;

static double half_error(double v) {
    return HALF_U * fabs(v) + HALF_LEAST;
}

/* Of a number that a tile makes a half float of: none if it is one. */
static double halving_error(double v) {
    const bool exact = (double)f16_to_f32(f32_to_f16((float)v)) == v && fabs(v) >= HALF_LEAST;
    return v == 0 || exact ? 0 : half_error(v);
}

/* What tile_f16.wgsl makes of four columns beside each other, 12 more apart from the first of a
 * lane: sums of products and what they may be off by. x is divided already. */
typedef struct {
    double sum, error;
} short_sum;

static short_sum chain_of(const float *w, const double *x, uint32_t n) {
    short_sum s = { 0 };
    for (uint32_t i = 0; i < 16 && i < n; i += 4) {
        const double wi = (double)w[i], product = wi * x[i];
        if (product == 0) continue;
        s.sum += product;
        s.error +=
            fabs(wi) * halving_error(x[i]) + fabs(x[i]) * halving_error(wi) + half_error(product);
        s.error += half_error(fabs(s.sum) + s.error);
    }
    return s;
}

static short_sum sum_of_two(short_sum a, short_sum b) {
    short_sum s = { a.sum + b.sum, a.error + b.error };
    if (a.sum != 0 && b.sum != 0) s.error += half_error(fabs(s.sum) + s.error);
    return s;
}

/* As tile_f16.wgsl has it: of 16 columns four chains and their tree in half floats, each rounding
 * by what the sum then is, and the sum of those in f32. */
double rig_halves_bound(uint32_t cols, uint32_t split_units, const float *w, const double *x) {
    double total = 0, part = 0, error = 0;
    for (uint32_t u = 0; u < ceil_div(cols, UNIT); u++) {
        const uint32_t first = u * UNIT, n = min_u32(UNIT, cols - first);
        double top = 0x1p-111, divided[UNIT] = { 0 };
        for (uint32_t i = 0; i < n; i++)
            top = fmax(top, fabs(x[first + i]));
        const double scale = ldexp(1, ilogb(top) - 1);
        for (uint32_t i = 0; i < n; i++)
            divided[i] = x[first + i] / scale;
        if (u > 0 && u % split_units == 0) {
            total += part;
            error += U * fabs(total);
            part = 0;
        }
        for (uint32_t g = 0; g < n; g += 16) {
            short_sum s[4];
            for (uint32_t i = 0; i < 4; i++)
                s[i] = chain_of(w + first + g + i, divided + g + i, n - min_u32(n, g + i));
            const short_sum all = sum_of_two(sum_of_two(s[0], s[2]), sum_of_two(s[1], s[3]));
            part += scale * all.sum;
            error += scale * all.error + U * fabs(part);
        }
    }
    return error + U * fabs(total + part);
}

/* By what x may change the sum if each of its numbers is half a step of its unit off. */
static double steps_bound(uint32_t cols, const float *w, const float *x) {
    double error = 0;
    for (uint32_t u = 0; u < ceil_div(cols, UNIT); u++) {
        double sizes = 0, top = 0;
        for (uint32_t i = u * UNIT; i < min_u32(cols, u * UNIT + UNIT); i++) {
            sizes += fabs((double)w[i]);
            top = fmax(top, fabs((double)x[i]));
        }
        error += sizes * top / 127 * (0.5 + 127 * 8 * U);
    }
    return error;
}

static uint32_t split_units(const tile_case *c) {
    const uint32_t step = max_u32(c->step, 1);
    return ceil_div(ceil_div(ceil_div(c->cols, UNIT), max_u32(c->splits, 1)), step) * step;
}

/* Where the product goes and with what. */
typedef struct {
    gpu_range w, x, bias, y;
    const rig_output *part; /* sums of splits; NULL: none */
    uint32_t stride, column, first;
} tile_operands;

static void call_bytes(rig *r, const tile_case *c, const matmul_q8_params *params, gpu_call call) {
    const q8_weight shape = q8_weight_of(c->format->type);
    const bool split = c->splits > 1;
    const matmul_q8_consts consts = {
        .k = c->cols,
        .bias = c->bias && !split,
        .add = c->add && !split,
        .scale = c->scale == 0 || split ? 1 : c->scale,
        .x_per = 1,
        .halves = shape.halves,
        .low = shape.low,
        .pairs = shape.pairs,
        .offset = shape.offset,
        .split = split,
        .step = max_u32(c->step, 1),
        .row_lanes = c->tile->row_lanes,
        .token_lanes = c->tile->token_lanes,
    };
    call.params = params;
    rig_call(r, &matmul_q8_source, (const gpu_fragment *[]){ c->format->part, c->tile->lanes },
             &consts, call);
}

static const gpu_fragment *tile_fragment(tile_kernel kernel) {
    return kernel == TILES_HALVES ? &tile_f16_part : &tile_f32_part;
}

/* By matmul_rows, in tiles of that size. */
static void call_rows(rig *r, const rig_format *f, const matmul_tile *t, const matmul_consts *how,
                      gpu_call call) {
    const matmul_rows_consts consts = {
        .k = how->k,
        .bias = how->bias,
        .add = how->add,
        .scale = how->scale,
        .experts = how->experts,
        .x_per = how->x_per,
        .tokens = t->tokens,
        .eight = how->k % 8 == 0, /* both */
        .wg = t->rows,
        .team = 1,
    };
    _Static_assert(sizeof(matmul_params) == sizeof(matmul_rows_params) &&
                       (int)MATMUL_Y == (int)MATMUL_ROWS_Y &&
                       (int)MATMUL_PLACE == (int)MATMUL_ROWS_PLACE,
                   "the kernels bind alike");
    rig_call(r, &matmul_rows_source, (const gpu_fragment *[]){ f->part, &reduce_subgroup_part },
             &consts, call);
}

static void call_floats(rig *r, const tile_case *c, const matmul_q8_params *params, gpu_call call) {
    const bool split = c->splits > 1;
    const matmul_consts consts = {
        .k = c->cols,
        .bias = c->bias && !split,
        .add = c->add && !split,
        .scale = c->scale == 0 || split ? 1 : c->scale,
        .x_per = 1,
        .split = split,
        .row_lanes = c->tile->row_lanes,
        .token_lanes = c->tile->token_lanes,
    };
    _Static_assert(sizeof(matmul_params) == offsetof(matmul_q8_params, pitch) &&
                       (int)MATMUL_Y == (int)MATMUL_Q8_Y,
                   "the kernels bind alike");
    call.params = params;
    if (c->kernel == TILES_ROWS) {
        call_rows(r, c->format, c->tile, &consts, call);
        return;
    }
    rig_call(r, &matmul_source,
             (const gpu_fragment *[]){ c->format->part, c->tile->lanes, tile_fragment(c->kernel) },
             &consts, call);
}

static void call_tiles(rig *r, const tile_case *c, const tile_operands *o) {
    /* n stands in different places, so that a wrong `counted` is seen. */
    const uint32_t sizes[4] = { 77, c->n, 77, 77 };
    const gpu_range none = rig_in(r, sizes, sizeof(sizes));
    const matmul_q8_params params = { .rows = c->rows,
                                      .stride = o->stride,
                                      .column = o->column,
                                      .bias_first = o->first,
                                      .counted = 1,
                                      .units = split_units(c),
                                      .n_max = c->n + 1,
                                      .pitch = c->n + (c->raw ? 0 : RIG_SPARE_ROWS) };
    const gpu_call call = {
        .bind = { o->w, [MATMUL_X] = o->x, [MATMUL_BIAS] = o->bias,
                  [MATMUL_SIZES] = rig_sizes(r, sizes),
                  [MATMUL_Y] = o->part != NULL ? o->part->range : o->y, [MATMUL_ORDER] = none,
                  [MATMUL_EXPERT_TILES] = none, [MATMUL_PLACE] = none },
        .groups = { { .times = ceil_div(c->rows, c->tile->rows) },
                    { .times = ceil_div(c->n, c->tile->tokens) },
                    { .times = max_u32(c->splits, 1) } },
    };
    (c->kernel == TILES_BYTES ? call_bytes : call_floats)(r, c, &params, call);
    if (o->part == NULL) return;
    rig_call(r, &matmul_sum_source, NULL,
             &(matmul_sum_consts){ .bias = c->bias,
                                   .add = c->add,
                                   .scale = c->scale == 0 ? 1 : c->scale,
                                   .splits = c->splits },
             (gpu_call){
                 .bind = { [MATMUL_SUM_PART] = o->part->range,
                           [MATMUL_SUM_BIAS] = o->bias,
                           [MATMUL_SUM_Y] = o->y },
                 .params = &(matmul_sum_params){ .rows = c->rows,
                                                 .stride = o->stride,
                                                 .column = o->column,
                                                 .bias_first = o->first,
                                                 .n_max = c->n + 1 },
                 .groups = { { .times = ceil_div(c->rows / 4, 64) }, { .times = c->n } },
             });
}

static gpu_range made_bytes(rig *r, const tile_case *c, const float *x, const rig_output *q) {
    call_quantise(r, rig_in(r, x, (size_t)c->n * c->cols * 4), q->range,
                  (quantise_consts){ .k = c->cols, .rows = c->n });
    return q->range;
}

static double tile_bound(const tile_case *c, uint32_t units, const float *w, const double *x) {
    switch (c->kernel) {
    case TILES_BYTES:
        return rig_bytes_bound(c->format->type, c->cols, units, w, x);
    case TILES_HALVES:
        return rig_halves_bound(c->cols, units, w, x);
    default:
        return floats_bound(c->cols, units, w, x);
    }
}

static void tile_row(rig *r, const tile_case *c) {
    char kernel[96];
    snprintf(kernel, sizeof(kernel), "%s %s %s", rig_tile_kernels[c->kernel], c->format->name,
             c->tile->name);
    if (!rig_begin(r, kernel, c->reason, "K %u, rows %u, n %u%s%s%s%s%s%s%s", c->cols, c->rows,
                   c->n, c->step > 1 ? ", long steps" : "", c->bias ? ", bias" : "",
                   c->add ? ", add" : "", c->scale == 0 ? "" : ", scaled",
                   c->splits > 1 ? ", split" : "", c->raw ? ", x in floats" : "",
                   hard_names[c->hard])) {
        return;
    }
    /* A column and a stride of the kind that q, k and v have side by side, and a later part's bias.
     */
    tile_operands o = { .column = 3, .stride = c->rows + 5, .first = 6 };
    const size_t k = c->cols, rows = c->rows, n = c->n;
    const size_t spare = c->raw ? 0 : RIG_SPARE_ROWS;
    const size_t words = (n + spare) * 12 * ceil_div(c->cols, UNIT);
    float *w;
    o.w = (c->hard == FULL ? rig_extreme_weights : rig_weights)(r, c->format->type, rows, k, &w);
    for (size_t i = 0; i < rows * k && c->kernel == TILES_HALVES; i++)
        w[i] = fmaxf(-1000, fminf(w[i], 1000)); /* W_MOST */
    const float *x = c->kernel == TILES_HALVES ? hard_inputs(r, c->hard, w, c->n, c->cols)
                                               : rig_normals(r, n * k, 1);
    const float *bias = rig_normals(r, o.first + rows, 1);
    const float *before = rig_normals(r, n * o.stride, 1);
    double *xd = rig_doubles(r, x, n * k), *exact = rig_doubles(r, x, n * k);
    const uint32_t *bytes = rig_bytes(r, x, n, c->cols, exact);
    if (c->kernel == TILES_BYTES && !c->raw) xd = exact;
    double *want = rig_alloc(r, n * rows, sizeof(double));
    ref_matmul(want, w, c->bias ? bias + o.first : NULL, xd, n, rows, k);
    const rig_output *y = rig_out(r, c->add ? before : NULL, n * o.stride);
    if (c->splits > 1) o.part = rig_out(r, NULL, c->splits * (n + 1) * rows);
    const rig_output *q = c->raw ? rig_out(r, NULL, words) : NULL;
    o.y = y->range;
    o.bias = rig_in(r, bias, (o.first + rows) * 4);
    o.x = c->raw                     ? made_bytes(r, c, x, q)
          : c->kernel == TILES_BYTES ? rig_in(r, bytes, words * 4)
                                     : rig_in(r, x, n * k * 4);
    call_tiles(r, c, &o);
    if (rig_run(r)) {
        const uint32_t units = split_units(c);
        for (size_t t = 0; t < n; t++) {
            rig_kept(r, y, t * o.stride, o.column);
            for (size_t i = 0; i < rows; i++) {
                const size_t at = t * o.stride + o.column + i;
                const float *wi = w + i * k;
                double bound = tile_bound(c, units, wi, xd + t * k);
                if (c->raw) bound += steps_bound(c->cols, wi, x + t * k);
                rig_expect_product(r, rig_float(y, at), want[t * rows + i], bound, c->bias,
                                   c->scale, c->add ? &y->before[at] : NULL);
            }
            rig_kept(r, y, t * o.stride + o.column + rows, o.stride - o.column - rows);
        }
        for (uint32_t z = 0; z < c->splits && o.part != NULL; z++) {
            rig_skip(r, n * rows); /* they are in y */
            rig_kept(r, o.part, (z * (n + 1) + n) * rows, rows);
        }
        if (q != NULL) rig_skip(r, words); /* so are they */
    }
    rig_end(r);
}

bool rig_has_tiles(const rig *r, tile_kernel kernel) {
    const dp_device_info *info = gpu_info(r->g);
    return kernel == TILES_ROWS ? lanes_share(1, info) : kernel != TILES_HALVES || info->f16;
}

const char *const rig_tile_kernels[] = { "matmul", "matmul half", "matmul_q8", "matmul_rows" };

void rig_pair_tiles(rig *r, const rig_format *f, tile_kernel kernel, const matmul_consts *how,
                    gpu_call call) {
    const matmul_tile *t = &matmul_tiles[EXPERTS_TILE];
    const q8_weight shape = q8_weight_of(f->type);
    call.groups[0].times = ceil_div(call.groups[0].times, t->rows);
    if (kernel == TILES_ROWS) {
        call_rows(r, f, t, how, call);
        return;
    }
    const bool bytes = kernel == TILES_BYTES;
    matmul_consts floats = *how;
    floats.row_lanes = t->row_lanes;
    floats.token_lanes = t->token_lanes;
    const matmul_q8_consts q8 = { .k = how->k,
                                  .bias = how->bias,
                                  .add = how->add,
                                  .scale = how->scale,
                                  .experts = how->experts,
                                  .x_per = how->x_per,
                                  .halves = shape.halves,
                                  .low = shape.low,
                                  .pairs = shape.pairs,
                                  .offset = shape.offset,
                                  .step = 2,
                                  .row_lanes = t->row_lanes,
                                  .token_lanes = t->token_lanes };
    rig_call(r, bytes ? &matmul_q8_source : &matmul_source,
             (const gpu_fragment *[]){ f->part, t->lanes, bytes ? NULL : tile_fragment(kernel) },
             bytes ? (const void *)&q8 : &floats, call);
}

static const rig_format *format_of(dtype type) {
    for (size_t i = 0; i < RIG_FORMATS; i++) {
        if (rig_formats[i].type == type) return &rig_formats[i];
    }
    assert(!"a format of the rig");
    return NULL;
}

/* Compiling for a processor takes seconds a pipeline: there a tile that it does not use has one. */
static bool is_software(const rig *r) {
    return strcmp(gpu_info(r->g)->type, "cpu") == 0;
}

/* Shapes at a tile's edges, and all that may be done with a sum; of a tile that the device never
 * gets nothing. */
static void tile_edges(rig *r, const matmul_tile *t, const rig_format *f, tile_kernel kernel) {
    const uint32_t cols = dtype_get(f->type)->block_elements == 256 ? 288 : 100;
    const uint32_t step = kernel == TILES_BYTES ? 2 : 1;
    const uint32_t bits = kernel == TILES_BYTES ? 8 : kernel == TILES_HALVES ? 16 : 32;
    if (!matmul_fits(t, gpu_info(r->g), bits, step)) return;
    tile_case c = { t,
                    f,
                    cols,
                    t->rows + 1,
                    t->tokens + 1,
                    "one more than a tile",
                    kernel,
                    .bias = true,
                    .add = true,
                    .scale = 0.22f,
                    .step = step };
    tile_row(r, &c);
    c.reason = "one less than a tile";
    c.rows -= 2;
    c.n -= 2;
    tile_row(r, &c);
    c.reason = "one full tile";
    c.rows++;
    c.n++;
    tile_row(r, &c);
}

void check_matmul(rig *r) {
    const matmul_tile *usual = &matmul_tiles[EXPERTS_TILE];
    const rig_format *f32 = format_of(DTYPE_F32);
    for (size_t i = 0; i < RIG_FORMATS; i++) {
        const rig_format *f = &rig_formats[i];
        const uint32_t block = dtype_get(f->type)->block_elements;
        tile_row(r, &(tile_case){ usual, f, block == 256 ? 548 : 172, 70, 33,
                                  .reason = "a row ends inside a unit and, in packs, a block" });
    }
    for (size_t i = 0; i < MATMUL_TILES; i++)
        tile_edges(r, &matmul_tiles[i], f32, TILES_FLOATS);
    const tile_case cases[] = {
        { usual, f32, 172, 1, 1, .reason = "the least product" },
        { usual, f32, 172, 200, 100, .reason = "several tiles of both" },
        { usual, f32, 4, 70, 33, .reason = "the least row" },
        { usual, f32, 300, 36, 33, "split", .splits = 3 },
        { usual, f32, 300, 4, 1, "the last part is short, all at once", .bias = true, .add = true,
          .scale = 0.22f, .splits = 4 },
        { usual, f32, 11008, 3, 2, .reason = "a long row (Llama 2 7B)" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        tile_row(r, &cases[i]);
}

/* On a processor, whose passes have no such products, a format of each kind: halves, what may be
 * beyond them, bytes, bytes with lows. */
static bool is_checked_as_halves(const rig *r, dtype type) {
    static const dtype few[] = { DTYPE_F16, DTYPE_BF16, DTYPE_Q8_0, DTYPE_Q4_K, DTYPE_MXFP4 };
    if (type == DTYPE_F32) return false;
    bool listed = !is_software(r);
    for (size_t i = 0; i < ARRAY_LEN(few); i++)
        listed |= few[i] == type;
    return listed;
}

void check_matmul_half(rig *r) {
    const matmul_tile *usual = &matmul_tiles[EXPERTS_TILE];
    const rig_format *bf16 = format_of(DTYPE_BF16), *f16 = format_of(DTYPE_F16);
    const rig_format *q8_0 = format_of(DTYPE_Q8_0), *mxfp4 = format_of(DTYPE_MXFP4);
    if (!rig_has_tiles(r, TILES_HALVES)) return;
    for (size_t i = 0; i < RIG_FORMATS; i++) {
        const rig_format *f = &rig_formats[i];
        const uint32_t block = dtype_get(f->type)->block_elements;
        if (!is_checked_as_halves(r, f->type)) continue;
        tile_row(r,
                 &(tile_case){ usual, f, block == 256 ? 548 : 172, 70, 33, .kernel = TILES_HALVES,
                               .reason = "a row ends inside a unit and, in packs, a block" });
    }
    for (size_t i = 0; i < MATMUL_TILES; i++) {
        const matmul_tile *t = &matmul_tiles[i], *next = t + (i + 1 < MATMUL_TILES);
        if (!is_software(r) || t == next || t->lanes != next->lanes)
            tile_edges(r, t, bf16, TILES_HALVES);
    }
    const tile_case cases[] = {
        { usual, f16, 4, 1, 1, .reason = "the least product", .kernel = TILES_HALVES },
        { usual, bf16, 172, 200, 100, .reason = "several tiles of both", .kernel = TILES_HALVES },
        { usual, bf16, 300, 36, 33, .reason = "split", .kernel = TILES_HALVES, .splits = 3 },
        { usual, f16, 300, 4, 1, .reason = "the last part is short, all at once",
          .kernel = TILES_HALVES, .bias = true, .add = true, .scale = 0.22f, .splits = 4 },
        { usual, bf16, 11008, 3, 2, .reason = "a long row (Llama 2 7B)", .kernel = TILES_HALVES },
        { usual, bf16, 11008, 3, 4, .reason = "short sums are folded", .kernel = TILES_HALVES,
          .hard = ALIKE },
        { usual, f16, 4108, 3, 4, .reason = "short sums are folded", .kernel = TILES_HALVES,
          .hard = CANCELLING },
        { usual, bf16, 172, 70, 33, .reason = "no half floats as they are", .kernel = TILES_HALVES,
          .hard = LARGE },
        { usual, f16, 108, 5, 9, .reason = "no half floats as they are", .kernel = TILES_HALVES,
          .hard = LARGE },
        { usual, q8_0, 172, 9, 5, .reason = "nothing becomes infinite", .kernel = TILES_HALVES,
          .hard = FULL },
        { usual, mxfp4, 172, 9, 5, .reason = "nothing becomes infinite", .kernel = TILES_HALVES,
          .hard = FULL },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        tile_row(r, &cases[i]);
}

void check_matmul_rows(rig *r) {
    const matmul_tile *usual = &matmul_tiles[EXPERTS_TILE];
    const rig_format *f32 = format_of(DTYPE_F32);
    if (!rig_has_tiles(r, TILES_ROWS)) return;
    for (size_t i = 0; i < RIG_FORMATS; i++) {
        const rig_format *f = &rig_formats[i];
        const uint32_t block = dtype_get(f->type)->block_elements;
        tile_row(r, &(tile_case){ usual, f, block == 256 ? 548 : 172, 70, 33, .kernel = TILES_ROWS,
                                  .reason = "a row ends inside a unit and, in packs, a block" });
    }
    const tile_case cases[] = {
        { usual, f32, 172, 1, 1, .reason = "the least product", .kernel = TILES_ROWS },
        { usual, f32, 4, 70, 9, .reason = "the least row, a ninth token", .kernel = TILES_ROWS },
        { usual, f32, 192, 64, 32, .reason = "a full tile", .kernel = TILES_ROWS },
        { usual, f32, 160, 65, 31, .bias = true, .add = true, .scale = 0.22f, .kernel = TILES_ROWS,
          .reason = "a row more, a token less" },
        { usual, f32, 11008, 3, 2, .reason = "a long row (Llama 2 7B)", .kernel = TILES_ROWS },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        tile_row(r, &cases[i]);
}

/* On a processor only the formats between which q8_weight_of differs. */
static bool is_checked_as_bytes(const rig *r, dtype type) {
    const q8_weight w = q8_weight_of(type);
    if (!dtype_is_quantised(type)) return false;
    if (!is_software(r)) return true;
    for (size_t i = 0; rig_formats[i].type != type; i++) {
        const q8_weight other = q8_weight_of(rig_formats[i].type);
        if (dtype_is_quantised(rig_formats[i].type) && other.halves == w.halves &&
            other.low == w.low && other.offset == w.offset) {
            return false;
        }
    }
    return true;
}

void check_matmul_q8(rig *r) {
    const matmul_tile *usual = &matmul_tiles[EXPERTS_TILE];
    const rig_format *q4_k = format_of(DTYPE_Q4_K), *q8_0 = format_of(DTYPE_Q8_0);
    for (size_t i = 0; i < RIG_FORMATS; i++) {
        const rig_format *f = &rig_formats[i];
        if (!is_checked_as_bytes(r, f->type)) continue;
        const uint32_t block = dtype_get(f->type)->block_elements;
        tile_row(r, &(tile_case){ usual, f, block == 256 ? 548 : 100, 37, 35,
                                  "a row ends inside a unit and, in packs, a block", TILES_BYTES,
                                  .step = 2 });
    }
    for (size_t i = 0; i < MATMUL_TILES; i++)
        tile_edges(r, &matmul_tiles[i], q4_k, TILES_BYTES);
    const tile_case cases[] = {
        { usual, q8_0, 4, 1, 1, "the least product", TILES_BYTES, .step = 2 },
        { usual, q4_k, 1056, 36, 33, "split in even parts", TILES_BYTES, .splits = 3 },
        { usual, q4_k, 1056, 36, 33, "the last part is short, all at once", TILES_BYTES,
          .bias = true, .add = true, .scale = 0.22f, .splits = 4, .step = 2 },
        { usual, q8_0, 64, 4, 1, "a part without columns", TILES_BYTES, .splits = 3 },
        { usual, q4_k, 8192, 5, 3, "a long row", TILES_BYTES, .step = 2 },
        { usual, q8_0, 12, 37, 35, "bytes made by the device", TILES_BYTES, .raw = true,
          .step = 2 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        tile_row(r, &cases[i]);
}
