/* check_matrix: products on matrix units against the reference; nothing where a device has none. */
#include "model/model.h"
#include "ref/check_internal.h"

#include <math.h>
#include <stdio.h>

/* A block of matmul_matrix.wgsl: subgroups, and matrices of each. */
typedef struct {
    uint32_t subs_t, subs_r, tiles_t, tiles_r;
} block;

/* Every count of matrices; none over 128 tokens or rows, or over SUBS of mma_16. */
static const block blocks[] = {
    { 2, 2, 2, 2 }, { 2, 2, 2, 4 }, { 2, 2, 4, 2 }, { 1, 2, 4, 4 }, { 4, 1, 2, 4 },
};

typedef struct {
    const block *block;
    const rig_format *format;
    uint32_t cols, rows, n;
    bool bias, add;
    const char *reason;
    float scale; /* 0: 1 */
    uint32_t splits;
    bool whole; /* blocks, at multiples of 16 bytes */
} matrix_case;

enum { PIECE = 8 }; /* columns */

/* Rows of x that there is room for, some more than n. */
static uint32_t x_pitch(uint32_t n) {
    return n + 3;
}

/* [n, cols] as halves.wgsl makes them of x_pitch(n) rows; the others are NaN, as is what a block
 * reads behind the last one. */
static gpu_range half_inputs(rig *r, const float *x, uint32_t n, uint32_t cols) {
    enum { BLOCK = 128 }; /* MOST of matmul_matrix.wgsl */
    const size_t pieces = align_up(cols, 32) / PIECE, pitch = x_pitch(n);
    const size_t total = (pieces * pitch + BLOCK) * PIECE;
    uint16_t *h = rig_alloc(r, total, sizeof(*h));
    for (size_t i = 0; i < total; i++)
        h[i] = i / PIECE % pitch < n && i / PIECE < pieces * pitch ? 0 : 0x7e00;
    for (size_t t = 0; t < n; t++) {
        for (size_t i = 0; i < cols; i++)
            h[(i / PIECE * pitch + t) * PIECE + i % PIECE] = f32_to_f16(x[t * cols + i]);
    }
    return rig_in(r, h, total * sizeof(*h));
}

/* What the roundings add up to: each weight to 11 bits, in whichever direction, or by half of the
 * least half float; and the sum in f32 that begins with what y was, of which a matrix unit may cut
 * the last bits of every addend below the largest: U of the sum of magnitudes for each addition is
 * the worst that any order of them can do. */
static double matrix_bound(uint32_t cols, const float *w, const double *x, double before) {
    double most = fabs(before), rounding = 0, terms = 0;
    for (uint32_t i = 0; i < cols; i++) {
        const double product = fabs((double)w[i] * x[i]);
        most += product;
        rounding += product * 0x1p-10 + fabs(x[i]) * 0x1p-24;
        terms += product > 0;
    }
    return rounding + (terms + 6) * U * most;
}

/* Where the results are: columns [column, column + rows) of y [splits, n_max, stride]. */
typedef struct {
    uint32_t splits, units, n_max, stride, column, bias_first;
} matrix_place;

static matrix_place place_of(const matrix_case *c) {
    const uint32_t splits = max_u32(c->splits, 1), units = ceil_div(c->cols, 32);
    return (matrix_place){
        .splits = splits,
        .units = ceil_div(units, splits),
        .n_max = c->n + (splits > 1 ? 2 : 0),
        .stride = c->whole ? (c->rows + 11) / 4 * 4 : c->rows + 5,
        .column = c->whole ? 4 : 3,
        .bias_first = 6,
    };
}

static void call_matrix(rig *r, const matrix_case *c, gpu_range w, gpu_range x, gpu_range bias,
                        gpu_range y) {
    const dp_device_info *info = gpu_info(r->g);
    const uint32_t sizes[4] = { 77, c->n, 77, 77 };
    const gpu_range none = rig_in(r, sizes, sizeof(sizes));
    const block *b = c->block;
    const matrix_place p = place_of(c);
    const matmul_matrix_consts consts = {
        .k = c->cols,
        .bias = c->bias,
        .add = c->add,
        .scale = c->scale == 0 ? 1 : c->scale,
        .cut = c->format->type == DTYPE_F32,
        .x_per = 1,
        .subgroup = info->subgroup_size,
        .subs_t = b->subs_t,
        .subs_r = b->subs_r,
        .tiles_t = b->tiles_t,
        .tiles_r = b->tiles_r,
    };
    const matmul_matrix_params params = {
        .rows = c->rows,
        .stride = p.stride,
        .column = p.column,
        .bias_first = p.bias_first,
        .counted = 1,
        .units = p.units,
        .n_max = p.n_max,
        .pitch = x_pitch(c->n),
    };
    const gpu_fragment *parts[] = { c->format->part, matrix_fragment(r->g),
                                    c->whole ? &block_whole_part : &block_edges_part };
    rig_call(r, &matmul_matrix_source, parts, &consts,
             (gpu_call){
                 .bind = { w, [MATMUL_MATRIX_X] = x, [MATMUL_MATRIX_BIAS] = bias,
                           [MATMUL_MATRIX_SIZES] = rig_sizes(r, sizes), [MATMUL_MATRIX_Y] = y,
                           [MATMUL_MATRIX_ORDER] = none, [MATMUL_MATRIX_EXPERT_TILES] = none,
                           [MATMUL_MATRIX_PLACE] = none },
                 .params = &params,
                 .groups = { { .times = ceil_div(c->rows, b->subs_r * b->tiles_r * info->matrix) },
                             { .times = ceil_div(c->n, b->subs_t * b->tiles_t * info->matrix) },
                             { .times = p.splits } },
             });
}

static void matrix_row(rig *r, const matrix_case *c) {
    char kernel[96];
    const block *b = c->block;
    const matrix_place p = place_of(c);
    snprintf(kernel, sizeof(kernel), "matmul_matrix %s %ux%u of %ux%u", c->format->name, b->subs_t,
             b->subs_r, b->tiles_t, b->tiles_r);
    if (!rig_begin(r, kernel, c->reason, "K %u in %u, rows %u, n %u%s%s%s%s", c->cols, p.splits,
                   c->rows, c->n, c->bias ? ", bias" : "", c->add ? ", add" : "",
                   c->scale == 0 ? "" : ", scaled", c->whole ? ", whole" : "")) {
        return;
    }
    const size_t k = c->cols, rows = c->rows, n = c->n;
    const size_t n_y = (size_t)p.splits * p.n_max * p.stride;
    float *w;
    const gpu_range matrix = rig_weights(r, c->format->type, rows, k, &w);
    const float *x = rig_sparse(r, c->n, c->cols);
    const float *bias = rig_normals(r, p.bias_first + rows, 1), *before = rig_normals(r, n_y, 1);
    double *want = rig_alloc(r, n * rows, sizeof(double));
    rig_output *y = rig_out(r, c->add ? before : NULL, n_y);
    call_matrix(r, c, matrix, half_inputs(r, x, c->n, c->cols),
                rig_in(r, bias, (p.bias_first + rows) * 4), y->range);
    const bool ran = rig_run(r);
    for (size_t z = 0; ran && z < p.splits; z++) {
        double *xd = rig_doubles(r, x, n * k); /* of these columns alone */
        for (size_t i = 0; i < n * k; i++)
            xd[i] = i % k / 32 / p.units == z ? xd[i] : 0;
        ref_matmul(want, w, c->bias ? bias + p.bias_first : NULL, xd, n, rows, k);
        for (size_t t = 0; t < n; t++) {
            const size_t first = (z * p.n_max + t) * p.stride;
            rig_kept(r, y, first, p.column);
            for (size_t i = 0; i < rows; i++) {
                const size_t at = first + p.column + i;
                const double was = c->add ? (double)before[at] : 0;
                rig_expect_product(r, rig_float(y, at), want[t * rows + i],
                                   matrix_bound(c->cols, w + i * k, xd + t * k, was), c->bias,
                                   c->scale, c->add ? &y->before[at] : NULL);
            }
            rig_kept(r, y, first + p.column + rows, p.stride - p.column - rows);
        }
        rig_kept(r, y, (z * p.n_max + n) * p.stride, (p.n_max - n) * p.stride);
    }
    rig_end(r);
}

/* ---- experts ------------------------------------------------------------------------------- */

enum { EXPERTS = 4, USED = 2, EXPERT_TOKENS = 32, FIRST_SLOT = 1, SLOTS = 2 };

/* Pairs in the order of their experts and the tiles that expert_group makes of them, one of which
 * is empty; expert e has a share of the pairs that differs from the others'. */
typedef struct {
    uint32_t *expert; /* [pairs] */
    uint32_t *order;
    uint32_t (*tiles)[4];
    uint32_t n_tiles;
} expert_pairs;

static expert_pairs group_by_expert(rig *r, uint32_t n) {
    const uint32_t pairs = n * USED;
    expert_pairs g = {
        .expert = rig_alloc(r, pairs, sizeof(*g.expert)),
        .order = rig_alloc(r, pairs, sizeof(*g.order)),
        .tiles = rig_alloc(r, pairs + EXPERTS, sizeof(*g.tiles)),
    };
    for (uint32_t i = 0; i < n; i++) {
        g.expert[i * USED] = rig_below(r, 2) == 0 ? 1 : rig_below(r, EXPERTS - 1);
        g.expert[i * USED + 1] = EXPERTS - 1;
    }
    uint32_t done = 0;
    for (uint32_t e = 0; e < EXPERTS; e++) {
        const uint32_t first = done;
        for (uint32_t i = 0; i < pairs; i++) {
            if (g.expert[i] == e) g.order[done++] = i;
        }
        for (uint32_t at = first; at < done; at += EXPERT_TOKENS) {
            uint32_t *tile = g.tiles[g.n_tiles++];
            tile[0] = e, tile[1] = at, tile[2] = min_u32(EXPERT_TOKENS, done - at);
        }
    }
    g.n_tiles++; /* (0, 0, 0, 0) */
    return g;
}

/* Where the experts are: 1 and 3 in the part that is bound, 2 in an earlier one, 0 in none. */
static const uint32_t expert_slots[EXPERTS] = { UINT32_MAX, 2, 0, 1 };

typedef struct {
    const rig_format *format;
    uint32_t cols, rows, n;
    bool by_row, bias; /* x has a row for a row of the pass, or for each pair */
    const char *reason;
} expert_case;

static void call_experts(rig *r, const expert_case *c, const expert_pairs *g, gpu_range w,
                         gpu_range x, gpu_range bias, gpu_range y, uint32_t stride,
                         uint32_t column) {
    const dp_device_info *info = gpu_info(r->g);
    const uint32_t side = info->matrix, sizes[4] = { c->n, 77, 77, 77 };
    const matmul_matrix_consts consts = {
        .k = c->cols,
        .bias = c->bias,
        .scale = 1,
        .experts = true,
        .x_per = c->by_row ? USED : 1,
        .subgroup = info->subgroup_size,
        .subs_t = EXPERT_TOKENS / (2 * side),
        .subs_r = 4,
        .tiles_t = 2,
        .tiles_r = 2,
    };
    const matmul_matrix_params params = {
        .rows = c->rows,
        .stride = stride,
        .column = column,
        .first_slot = FIRST_SLOT,
        .slots = SLOTS,
        .units = ceil_div(c->cols, 32),
        .pitch = x_pitch(c->by_row ? c->n : c->n * USED),
    };
    const gpu_fragment *parts[] = { c->format->part, side == 8 ? &mma_8_part : &mma_16_part,
                                    &block_edges_part };
    rig_call(r, &matmul_matrix_source, parts, &consts,
             (gpu_call){
                 .bind = { w, [MATMUL_MATRIX_X] = x, [MATMUL_MATRIX_BIAS] = bias,
                           [MATMUL_MATRIX_SIZES] = rig_sizes(r, sizes), [MATMUL_MATRIX_Y] = y,
                           [MATMUL_MATRIX_ORDER] = rig_in(r, g->order, c->n * USED * 4),
                           [MATMUL_MATRIX_EXPERT_TILES] =
                               rig_in(r, g->tiles, g->n_tiles * sizeof(*g->tiles)),
                           [MATMUL_MATRIX_PLACE] = rig_in(r, expert_slots, sizeof(expert_slots)) },
                 .params = &params,
                 .groups = { { .times = ceil_div(c->rows, 8 * side) }, { .times = g->n_tiles } },
             });
}

static void experts_row(rig *r, const expert_case *c) {
    char kernel[96];
    snprintf(kernel, sizeof(kernel), "matmul_matrix experts %s", c->format->name);
    if (!rig_begin(r, kernel, c->reason, "K %u, rows %u, n %u of %u%s", c->cols, c->rows, c->n,
                   USED, c->bias ? ", bias" : "")) {
        return;
    }
    const uint32_t column = 4, stride = c->rows + 9;
    const size_t k = c->cols, rows = c->rows, pairs = (size_t)c->n * USED;
    const expert_pairs g = group_by_expert(r, c->n);
    float *w;
    const gpu_range matrix = rig_weights(r, c->format->type, SLOTS * rows, k, &w);
    const uint32_t n_x = c->by_row ? c->n : c->n * USED;
    const float *x = rig_sparse(r, n_x, c->cols), *bias = rig_normals(r, EXPERTS * rows, 1);
    const double *xd = rig_doubles(r, x, n_x * k);
    rig_output *y = rig_out(r, NULL, pairs * stride);
    call_experts(r, c, &g, matrix, half_inputs(r, x, n_x, c->cols),
                 rig_in(r, bias, EXPERTS * rows * 4), y->range, stride, column);
    if (rig_run(r)) {
        double *want = rig_alloc(r, rows, sizeof(double));
        for (size_t i = 0; i < pairs; i++) {
            const uint32_t at = expert_slots[g.expert[i]];
            const double *row = xd + (c->by_row ? i / USED : i) * k;
            if (at - FIRST_SLOT >= SLOTS) {
                rig_kept(r, y, i * stride, stride);
                continue;
            }
            const float *of = w + (at - FIRST_SLOT) * rows * k;
            ref_matmul(want, of, c->bias ? bias + g.expert[i] * rows : NULL, row, 1, rows, k);
            rig_kept(r, y, i * stride, column);
            for (size_t j = 0; j < rows; j++) {
                rig_expect_product(r, rig_float(y, i * stride + column + j), want[j],
                                   matrix_bound(c->cols, of + j * k, row, 0), c->bias, 0, NULL);
            }
            rig_kept(r, y, i * stride + column + rows, stride - column - rows);
        }
    }
    rig_end(r);
}

/* ---- halves ------------------------------------------------------------------------------ */

static void halves_row(rig *r, uint32_t cols, uint32_t n, double scale, rig_gate gate,
                       const char *reason) {
    if (!rig_begin(r, "halves", reason, "K %u, n %u, |x| %g", cols, n, scale)) return;
    const size_t pieces = align_up(cols, 32) / PIECE, width = cols << (gate.gated && !gate.ungated);
    const size_t total = n * width;
    float *x = rig_normals(r, total, scale);
    x[total - 1] = 1; /* where PLANT_INPUT shows whatever the scale, */
    if (gate.gated) x[total - 1 - (gate.ungated ? 0 : cols)] = 1; /* and its gate lets it through */
    rig_output *h = rig_out(r, NULL, pieces * n * PIECE / 2);
    rig_call(
        r, &halves_source, NULL,
        &(halves_consts){ .k = cols,
                          .rows = n,
                          .gated = gate.gated,
                          .act = gate.act,
                          .ungated = gate.ungated,
                          .alpha = RIG_ALPHA,
                          .limit = RIG_LIMIT },
        (gpu_call){
            .bind = { [HALVES_X] = rig_numbers(r, x, total, total - 1), [HALVES_H] = h->range },
            .groups = { { .times = ceil_div((uint32_t)pieces, 8) }, { .times = ceil_div(n, 8) } },
        });
    double *values = rig_alloc(r, cols, sizeof(double)), *bound = rig_alloc(r, cols, 8);
    const bool ran = rig_run(r);
    for (size_t row = 0; row < n && ran; row++) {
        const double *v = rig_doubles(r, x + row * width, width);
        if (gate.gated) {
            rig_activate(gate.act, gate.ungated, v, cols, values, bound);
            v = values;
        }
        for (size_t column = 0; column < pieces * PIECE; column++) {
            uint16_t got;
            const size_t i = (column / PIECE * n + row) * PIECE + column % PIECE;
            memcpy(&got, (const uint16_t *)h->after + i, sizeof(got));
            const double want = column < cols ? fmax(-65504, fmin(v[column], 65504)) : 0;
            /* 11 bits in whichever direction; subnormals may become zero */
            const double error = fmax(fabs(want) * 0x1p-10, 0x1p-14);
            rig_expect_half(r, got, want, error + (column < cols ? bound[column] : 0));
        }
    }
    rig_end(r);
}

void check_halves(rig *r) {
    const rig_gate none = { 0 };
    halves_row(r, 4, 1, 3, none, "the least: the rest of a unit is zero");
    halves_row(r, 172, 5, 3, none, "a last unit of 12");
    halves_row(r, 2080, 2, 3, none, "more workgroups along a row");
    halves_row(r, 36, 19, 3, none, "more workgroups of rows, the last one not full");
    halves_row(r, 64, 3, 1e5, none, "most are beyond half floats");
    halves_row(r, 64, 3, 1e-6, none, "most are subnormal");
    halves_row(r, 172, 11, 3, (rig_gate){ true, RIG_SILU, false }, "through a gate");
    halves_row(r, 64, 9, 3, (rig_gate){ true, RIG_GELU, false }, "through Gemma's");
    halves_row(r, 64, 9, 4, (rig_gate){ true, RIG_CLAMPED, false }, "through GPT-OSS's");
    halves_row(r, 100, 3, 3, (rig_gate){ true, RIG_GELU, true }, "GPT-2: no gate");
}

/* ---- the table ----------------------------------------------------------------------------- */

void check_matrix(rig *r) {
    const uint32_t side = gpu_info(r->g)->matrix;
    if (side == 0) return;
    const block *b = &blocks[0];
    for (size_t i = 0; i < RIG_FORMATS; i++) {
        const rig_format *f = &rig_formats[i];
        const uint32_t cols = dtype_get(f->type)->block_elements == 256 ? 256 : 96;
        matrix_row(r, &(matrix_case){ b, f, cols, 70, 33, .reason = "whole units" });
        matrix_row(r, &(matrix_case){ b, f, cols + 76, 70, 33, .reason = "a last unit of 12" });
    }
    const rig_format *f32 = &rig_formats[0], *q4_0 = &rig_formats[3];
    for (size_t i = 0; i < ARRAY_LEN(blocks); i++) {
        const block *of = &blocks[i];
        const uint32_t t = of->subs_t * of->tiles_t * side, n = of->subs_r * of->tiles_r * side;
        matrix_row(r, &(matrix_case){ of, q4_0, 96, n, t, .whole = true,
                                      .reason = "one block, straight to y" });
        matrix_row(r, &(matrix_case){ of, q4_0, 96, 2 * n + 1, t + 1,
                                      .reason = "whole blocks and edges" });
        matrix_row(r, &(matrix_case){ of, f32, 172, n - 1, t - 1, .reason = "short of a block" });
        matrix_row(r, &(matrix_case){ of, q4_0, 96, n, t, false, true, .whole = true,
                                      .reason = "residual" });
    }
    matrix_row(r, &(matrix_case){ b, q4_0, 224, 70, 33, .splits = 2,
                                  .reason = "columns in parts, the last one shorter" });
    matrix_row(r, &(matrix_case){ b, q4_0, 224, 4 * side, 4 * side, .splits = 4, .whole = true,
                                  .reason = "the same straight to y" });
    matrix_row(r, &(matrix_case){ b, f32, 172, 1, 1, .reason = "the least product" });
    matrix_row(r, &(matrix_case){ b, f32, 172, 65, 33, true, false, .reason = "bias" });
    matrix_row(r, &(matrix_case){ b, q4_0, 96, 65, 33, true, true, .reason = "both" });
    matrix_row(r, &(matrix_case){ b, f32, 172, 65, 33, true, true, .scale = 0.22f,
                                  .reason = "Granite's multiplier" });
    matrix_row(r, &(matrix_case){ b, f32, 11008, 3, 2, .reason = "a long row (Llama 2 7B)" });
    experts_row(r, &(expert_case){ q4_0, 96, 70, 45, true, true, .reason = "x by row, bias" });
    experts_row(r, &(expert_case){ f32, 172, 33, 20, false, false, .reason = "x by pair" });
}
