/* ops_prefill: matrix products of passes of many rows.
 *
 * Two kernels make tiles of the result: matmul.wgsl with x in floats, which it multiplies as such
 * or as half floats, matmul_q8.wgsl with x in signed bytes, which quantised matrices get where the
 * model computes with them (shapes.int8). The bytes of an input are made once, in front of the
 * first product that reads it, or with the activation that the input is, and kept until something
 * writes the input again (forget_bytes). Which tile a product gets, and into how many parts its
 * columns are split, choose_matmul says. On a software GPU with subgroups matmul_rows.wgsl makes
 * them all. */
#include "model/ops_internal.h"

#include <stdio.h>

enum {
    UNIT = 32,      /* columns that share a scale */
    SUM_LANES = 64, /* of matmul_sum.wgsl */
    Q8_STEP = 2,    /* units at a time */
    SPLITS_MOST = 8,
    PARTS_BYTES = 16 << 20,
};

/* ---- tiles --------------------------------------------------------------------------------- */

const matmul_tile matmul_tiles[MATMUL_TILES] = {
    { "32x32", &lanes_4x4_part, 8, 8, 32, 32 },
    { "64x32", &lanes_4x4_part, 16, 8, 64, 32 },
    { "64x64", &lanes_4x8_part, 16, 8, 64, 64 },
    { "64x128", &lanes_4x8_part, 16, 16, 64, 128 },
    { "128x128", &lanes_8x8_part, 16, 16, 128, 128 },
    { "128x128 8x8w", &lanes_8x8w_part, 16, 16, 128, 128 },
    { "128x64 8x8w", &lanes_8x8w_part, 16, 8, 128, 64 },
    { "64x64 8x8w", &lanes_8x8w_part, 8, 8, 64, 64 },
    { "128x64 8x4w", &lanes_8x4w_part, 16, 16, 128, 64 },
    { "64x64 8x4w", &lanes_8x4w_part, 8, 16, 64, 64 },
};
enum { EXPERTS_TILE = 1 }; /* MATMUL_TOKENS tokens, as expert_group makes them */

q8_weight q8_weight_of(dtype type) {
    switch (type) {
    case DTYPE_Q4_0:
        return (q8_weight){ .offset = 8 };
    case DTYPE_Q5_0:
        return (q8_weight){ .offset = 16 };
    case DTYPE_Q6_K:
        return (q8_weight){ .halves = true, .offset = 32 };
    case DTYPE_Q3_K:
        return (q8_weight){ .halves = true, .offset = 4 };
    case DTYPE_Q2_K:
        return (q8_weight){ .halves = true, .low = true, .pairs = 1 };
    case DTYPE_Q4_1:
    case DTYPE_Q5_1:
    case DTYPE_Q4_K:
    case DTYPE_Q5_K:
        return (q8_weight){ .low = true };
    default: /* Q8_0, IQ4_NL, IQ4_XS, MXFP4 */
        return (q8_weight){ 0 };
    }
}

static uint32_t matmul_q8_memory(const matmul_tile *tile, uint32_t step) {
    enum { PADDING = 4, HALVES = 2, VEC4 = 16, SCALES = 16 };
    const uint32_t units = tile->rows + tile->tokens;
    return step * (VEC4 * HALVES * (units + PADDING) + SCALES * units) + 16;
}

static uint32_t matmul_memory(const matmul_tile *tile) {
    enum { PADDING = 1, VEC4 = 16 };
    return UNIT / 4 * VEC4 * (tile->rows + tile->tokens + 2 * PADDING);
}

static uint32_t matmul_half_memory(const matmul_tile *tile) {
    enum { HALF = 2, SCALE = 4 };
    return UNIT * HALF * (tile->rows + tile->tokens) + SCALE * tile->tokens;
}

bool matmul_fits(const matmul_tile *tile, const dp_device_info *info, uint32_t bits,
                 uint32_t step) {
    const uint32_t memory = bits == 8    ? matmul_q8_memory(tile, step)
                            : bits == 16 ? matmul_half_memory(tile)
                                         : matmul_memory(tile);
    return tile->row_lanes * tile->token_lanes <= info->max_workgroup_lanes &&
           memory <= info->max_workgroup_memory;
}

bool matmul_takes_rows(const gpu *g) {
    return is_software(g) && lanes_share(1, gpu_info(g));
}

static bool takes_bytes(const recorder *r, const weight *w) {
    return r->m->shapes.int8 && !r->m->shapes.calibrate && dtype_is_quantised(w->type) &&
           !matmul_takes_rows(r->m->gpu);
}

/* Weights that are kept in single floats are so for their precision. On a software GPU, which
 * rounds each result anew, half floats are slower. */
static bool takes_halves(const recorder *r, const weight *w) {
    return r->m->shapes.f16 && !r->m->shapes.calibrate && w->type != DTYPE_F32 &&
           !takes_bytes(r, w) && !is_software(r->m->gpu);
}

/* ---- choosing ------------------------------------------------------------------------------ */

uint64_t prefill_input_bytes(uint64_t batch, uint64_t cols) {
    return ((cols + UNIT - 1) / UNIT * 4 * batch + MATRIX_BLOCK) * 16;
}

uint64_t prefill_parts_bytes(uint64_t batch, uint64_t rows) {
    return min_u64(PARTS_BYTES, SPLITS_MOST * batch * rows * 4);
}

/* How a product of so many rows of W and of x is made. */
typedef struct {
    const matmul_tile *tile;
    uint32_t step, splits;
} matmul_choice;

/* How long it takes, in no unit that matters: rounds of workgroups over the device, at least one,
 * with 0.3 for those that do not fill the last; each as long as a lane has results to make and what
 * it reads of workgroup memory for them. With 16 or 64 results a lane is less well used than with
 * 32. What is split is written and read once more. An H200's: of 15 products with bytes of an 8B,
 * some shapes of which were timed there, it names the fastest in 14. Tiles that it takes to be
 * equal are tried, and untuned taken, in the order of matmul_tiles. */
static double cost_of_choice(const matmul_choice *c, uint32_t rows, uint32_t cols, uint32_t n) {
    enum { LANES_AT_ONCE = 264 * 256 }; /* two workgroups to each of 132 multiprocessors */
    const matmul_tile *t = c->tile;
    const uint32_t lanes = t->row_lanes * t->token_lanes;
    const double groups = (double)ceil_div(rows, t->rows) * ceil_div(n, t->tokens) * c->splits;
    const double rounds = groups * lanes / LANES_AT_ONCE + 0.3;
    const uint32_t results = t->rows * t->tokens / lanes;
    const double reads = 1 + (double)t->row_lanes / t->rows + (double)t->token_lanes / t->tokens;
    const double start = 64; /* columns that a workgroup's beginning and end are worth */
    const double round = results * reads * (cols / (double)c->splits + start);
    const double sums = c->splits > 1 ? (c->splits + 2.0) * rows * n / 1024 : 0;
    return (rounds > 1 ? rounds : 1) * round * (results == 32 ? 1 : 1.1) + sums;
}

/* In passes of at most n rows, as tuning times them: small tiles take less time for a short prompt
 * of half as many. */
static double cost_in_pass(const matmul_choice *c, const tuned_question *q, uint32_t n) {
    const uint32_t half = n <= SHORT_ROWS ? min_u32(n, SHORT_ROWS / 2) : n;
    return (cost_of_choice(c, q->rows, q->cols, n) + cost_of_choice(c, q->rows, q->cols, half)) / 2;
}

/* Rows that there is room for, whatever the kind of pass. */
static uint32_t room_for(const dp_model *m, const product *a) {
    return a->y.picked ? m->shapes.n_out : m->shapes.batch;
}

uint32_t rows_of_y(const recorder *r, const product *a) {
    return min_u32(most_rows(r), room_for(r->m, a));
}

/* The tile with its columns whole, and in parts. */
static void offer_tile(tuned_question *q, const recorder *r, const product *a, uint32_t tile,
                       matmul_choice c) {
    const uint32_t n = rows_of_y(r, a);
    const bool software = is_software(r->m->gpu);
    const bool whole = q->rows % 4 != 0 || a->y.picked || software;
    for (c.splits = 1; c.splits <= (whole ? 1 : SPLITS_MOST); c.splits *= 2) {
        const uint64_t parts = (uint64_t)c.splits * n * q->rows * 4;
        if (c.splits > 1 && parts > r->m->buffers.parts.size) {
            break;
        }
        tuned_shape shape = { .which = tile,
                              .splits = c.splits,
                              .cost = software ? tile != EXPERTS_TILE : cost_in_pass(&c, q, n) };
        snprintf(shape.name, sizeof shape.name, "%s, split %u", c.tile->name, c.splits);
        tuned_offer(q, &shape);
    }
}

/* Of experts the tile that expert_group makes. A software GPU has it too unless tuning finds the
 * smaller one faster: its compiler suffers from the larger ones' code. */
static matmul_choice choose_matmul(recorder *r, const product *a, uint32_t rows) {
    const dp_device_info *info = gpu_info(r->m->gpu);
    const bool bytes = takes_bytes(r, a->w), halves = takes_halves(r, a->w);
    const bool software = is_software(r->m->gpu);
    const matmul_tile *usual = &matmul_tiles[EXPERTS_TILE];
    if (a->w->experts || matmul_takes_rows(r->m->gpu)) {
        return (matmul_choice){ usual, 1, 1 };
    }
    tuned_question q = { .rows = rows, .cols = a->w->cols };
    const char *kernel = bytes ? "matmul_q8" : halves ? "matmul half" : "matmul";
    snprintf(q.key, sizeof q.key, "%s%s %s %ux%u %u", kernel, a->y.add ? " add" : "",
             weight_fragment(a->w->type)->name, rows, a->w->cols, rows_of_y(r, a));
    const uint32_t step = bytes && !software ? Q8_STEP : 1, bits = bytes ? 8 : halves ? 16 : 32;
    for (uint32_t i = 0; i < MATMUL_TILES; i++) {
        const matmul_choice c = { .tile = &matmul_tiles[i], .step = step };
        if (software ? c.tile->lanes == usual->lanes : matmul_fits(c.tile, info, bits, step)) {
            offer_tile(&q, r, a, i, c);
        }
    }
    const tuned_shape *s = tuned_choice(r, &q);
    return (matmul_choice){ &matmul_tiles[s->which], step, s->splits };
}

/* ---- the input, once for all products that read it ----------------------------------------- */

static bool is_same_range(gpu_range a, gpu_range b) {
    return a.buffer == b.buffer && a.offset == b.offset && a.size == b.size;
}

static bool writes_to(const gpu_binding *list, uint32_t n, const gpu_call *call,
                      const gpu_buffer *buffer) {
    for (uint32_t i = 0; i < n; i++) {
        if (list[i].access == GPU_ACCESS_WRITE && call->bind[list[i].binding].buffer == buffer) {
            return true;
        }
    }
    return false;
}

void forget_bytes(recorder *r, const gpu_source *source, const gpu_fragment *const *fragments,
                  const gpu_call *call) {
    const gpu_buffer *of = r->bytes_of.buffer;
    if (of == NULL) {
        return;
    }
    bool written = writes_to(source->bindings, source->n_bindings, call, of);
    for (uint32_t i = 0; i < source->n_slots; i++) {
        written |= writes_to(fragments[i]->bindings, fragments[i]->n_bindings, call, of);
    }
    if (written) {
        r->bytes_of = (gpu_range){ 0 };
    }
}

/* One to a row of the pass, or one to each of the row's experts. */
static uint32_t input_times(const dp_model *m, const product *a) {
    return a->w->experts && a->x_per == 1 ? m->config.n_experts_used : 1;
}

uint32_t input_rows(const dp_model *m, const product *a) {
    return room_for(m, a) * input_times(m, a);
}

/* Of x, for the matrix w: what buffers.bytes then is of is the caller's to note. False: w takes
 * floats. */
static bool convert_input(recorder *r, const weight *w, gpu_range x, quantise_consts consts,
                          gpu_extent rows) {
    enum { SIDE = 8 };  /* lanes along a row, and rows, of a workgroup of both kernels */
    enum { PIECE = 8 }; /* columns to a lane of halves.wgsl */
    const bool halves = pass_is_prefill(r->kind) && matrix_is_used(r->m);
    if (!halves && !takes_bytes(r, w)) {
        return false;
    }
    const uint32_t units = ceil_div(w->cols, UNIT);
    consts.k = w->cols;
    rows.per = SIDE;
    _Static_assert(sizeof(quantise_consts) == sizeof(halves_consts) &&
                       offsetof(quantise_consts, limit) == offsetof(halves_consts, limit) &&
                       (int)QUANTISE_X == (int)HALVES_X && (int)QUANTISE_Q == (int)HALVES_H,
                   "both kernels are told alike");
    add_call(
        r, halves ? &halves_source : &quantise_source, NULL, &consts,
        (gpu_call){
            .bind = { [QUANTISE_X] = x, [QUANTISE_Q] = r->m->buffers.bytes },
            .groups = { { .times = ceil_div(units * (halves ? UNIT / PIECE : 1), SIDE) }, rows },
        });
    return true;
}

void record_input(recorder *r, const product *a) {
    const dp_model *m = r->m;
    if (is_same_range(r->bytes_of, a->x) && r->bytes_in == r->plan) {
        return;
    }
    const quantise_consts consts = { .rows = input_rows(m, a) };
    const gpu_extent rows = { .times = input_times(m, a),
                              .size = a->y.picked ? SIZE_OUT : SIZE_ROWS };
    if (convert_input(r, a->w, a->x, consts, rows)) {
        r->bytes_of = a->x;
        r->bytes_in = r->plan;
    }
}

bool record_activated(recorder *r, const weight *w, gpu_range h, gpu_range gu, uint32_t times) {
    const config *c = &r->m->config;
    const quantise_consts consts = {
        .rows = r->m->shapes.batch * times,
        .gated = true,
        .act = c->activation,
        .ungated = c->family->ungated,
        .alpha = c->act_alpha,
        .limit = c->act_limit,
    };
    if (!pass_is_prefill(r->kind) ||
        !convert_input(r, w, gu, consts, (gpu_extent){ .times = times, .size = SIZE_ROWS })) {
        return false;
    }
    r->bytes_of = h;
    r->bytes_in = r->plan;
    return true;
}

/* ---- products ------------------------------------------------------------------------------ */

void record_sum(recorder *r, const product *a, const weight_part *p, uint32_t splits) {
    const dp_model *m = r->m;
    const matmul_sum_consts consts = {
        .bias = a->bias != NULL && a->bias->source != NULL,
        .add = a->y.add,
        .scale = a->y.scale != 0 ? a->y.scale : 1,
        .splits = splits,
    };
    const matmul_sum_params params = {
        .rows = p->rows,
        .stride = a->y.stride,
        .column = a->y.column + p->first,
        .bias_first = p->first,
        .n_max = rows_of_y(r, a),
    };
    add_call(r, &matmul_sum_source, NULL, &consts,
             (gpu_call){
                 .bind = { [MATMUL_SUM_PART] = m->buffers.parts,
                           [MATMUL_SUM_BIAS] = or_none(m, a->bias),
                           [MATMUL_SUM_Y] = a->y.y },
                 .params = &params,
                 .groups = { { .times = ceil_div(p->rows / 4, SUM_LANES) }, { .size = SIZE_ROWS } },
             });
}

static void add_tiles(recorder *r, const product *a, const matmul_choice *c, gpu_call call) {
    const gpu_fragment *const parts[] = { weight_fragment(a->w->type), c->tile->lanes,
                                          takes_halves(r, a->w) ? &tile_f16_part : &tile_f32_part };
    const bool split = c->splits > 1; /* then the rest is matmul_sum's */
    const matmul_consts consts = {
        .k = a->w->cols,
        .bias = a->bias != NULL && a->bias->source != NULL && !split,
        .add = a->y.add && !split,
        .scale = a->y.scale != 0 && !split ? a->y.scale : 1,
        .experts = a->w->experts,
        .x_per = a->x_per,
        .split = split,
        .row_lanes = c->tile->row_lanes,
        .token_lanes = c->tile->token_lanes,
    };
    call.bind[MATMUL_X] = a->x;
    add_call(r, &matmul_source, parts, &consts, call);
}

static void add_rows(recorder *r, const product *a, const matmul_choice *c, gpu_call call) {
    const matmul_rows_consts consts = {
        .k = a->w->cols,
        .bias = a->bias != NULL && a->bias->source != NULL,
        .add = a->y.add,
        .scale = a->y.scale != 0 ? a->y.scale : 1,
        .experts = a->w->experts,
        .x_per = a->x_per,
        .tokens = c->tile->tokens,
        .eight = r->kind != PASS_FEW,
        .wg = c->tile->rows,
        .team = 1,
    };
    call.bind[MATMUL_ROWS_X] = a->x;
    add_call(r, &matmul_rows_source,
             (const gpu_fragment *[]){ weight_fragment(a->w->type), reduce_fragment(r->m->gpu) },
             &consts, call);
}

static void add_tiles_of_bytes(recorder *r, const product *a, const matmul_choice *c,
                               gpu_call call) {
    const gpu_fragment *const parts[] = { weight_fragment(a->w->type), c->tile->lanes };
    const q8_weight shape = q8_weight_of(a->w->type);
    const bool split = c->splits > 1;
    const matmul_q8_consts consts = {
        .k = a->w->cols,
        .bias = a->bias != NULL && a->bias->source != NULL && !split,
        .add = a->y.add && !split,
        .scale = a->y.scale != 0 && !split ? a->y.scale : 1,
        .experts = a->w->experts,
        .x_per = a->x_per,
        .halves = shape.halves,
        .low = shape.low,
        .pairs = shape.pairs,
        .offset = shape.offset,
        .split = split,
        .step = c->step,
        .row_lanes = c->tile->row_lanes,
        .token_lanes = c->tile->token_lanes,
    };
    call.bind[MATMUL_Q8_X] = r->m->buffers.bytes;
    add_call(r, &matmul_q8_source, parts, &consts, call);
}

void record_matmul(recorder *r, const product *a, uint32_t part) {
    const dp_model *m = r->m;
    const weight_part *p = &a->w->parts[part];
    const bool experts = a->w->experts;
    const uint32_t rows = experts ? a->w->rows : p->rows, units = ceil_div(a->w->cols, UNIT);
    const gpu_range none = m->buffers.none;
    record_input(r, a);
    const matmul_choice c = choose_matmul(r, a, rows);
    const matmul_q8_params params = {
        .rows = rows,
        .stride = a->y.stride,
        .column = a->y.column + (experts ? 0 : p->first),
        .bias_first = experts ? 0 : p->first,
        .counted = a->y.picked,
        .first_slot = experts ? p->first : 0,
        .slots = experts ? p->rows : 0,
        .units = ceil_div(ceil_div(units, c.splits), c.step) * c.step,
        .n_max = rows_of_y(r, a),
        .pitch = input_rows(m, a),
    };
    _Static_assert(sizeof(matmul_params) == offsetof(matmul_q8_params, pitch) &&
                       sizeof(matmul_params) == sizeof(matmul_rows_params) &&
                       (int)MATMUL_PLACE == (int)MATMUL_Q8_PLACE &&
                       (int)MATMUL_PLACE == (int)MATMUL_ROWS_PLACE,
                   "the kernels bind alike");
    const gpu_extent tokens = { .size = a->y.picked ? SIZE_OUT : SIZE_ROWS, .per = c.tile->tokens };
    (matmul_takes_rows(r->m->gpu) ? add_rows
     : takes_bytes(r, a->w)       ? add_tiles_of_bytes
                                  : add_tiles)(
        r, a, &c,
        (gpu_call){
            .bind = { [0] = p->range,
                      [MATMUL_BIAS] = or_none(m, a->bias),
                      [MATMUL_SIZES] = m->buffers.sizes,
                      [MATMUL_Y] = c.splits > 1 ? m->buffers.parts : a->y.y,
                      [MATMUL_ORDER] = experts ? m->buffers.order : none,
                      [MATMUL_EXPERT_TILES] = experts ? m->buffers.expert_tiles : none,
                      [MATMUL_PLACE] = experts ? m->buffers.expert_place : none },
            .params = &params,
            .groups = { { .times = ceil_div(rows, c.tile->rows) },
                        experts ? (gpu_extent){ .size = SIZE_EXPERT_TILES } : tokens,
                        { .times = c.splits } },
        });
    if (c.splits > 1) {
        record_sum(r, a, p, c.splits);
    }
    tuned_end(r);
}

/* ---- matrices that lie side by side -------------------------------------------------------- */

static bool is_present(const vector *v) {
    return v != NULL && v->source != NULL;
}

/* Does `next` begin where the n rows so far end? */
static bool follows(gpu_range so_far, gpu_range next) {
    return next.buffer == so_far.buffer && next.offset == so_far.offset + so_far.size;
}

/* One more matrix, if it can be part of the same product. */
static bool join(weight *all, weight_part *part, vector *bias, const weight *w, const vector *b,
                 uint64_t max_binding) {
    if (w->n_parts != 1 || w->type != all->type || w->cols != all->cols ||
        !follows(part->range, w->parts[0].range) ||
        part->range.size + w->parts[0].range.size > max_binding ||
        is_present(b) != is_present(bias) || (is_present(b) && !follows(bias->range, b->range))) {
        return false;
    }
    part->range.size += w->parts[0].range.size;
    part->rows += w->rows;
    all->rows += w->rows;
    if (is_present(b)) {
        bias->range.size += b->range.size;
    }
    return true;
}

void op_matmul_beside(recorder *r, target y, const weight *const *w, const vector *const *bias,
                      uint32_t n, gpu_range x) {
    for (uint32_t i = 0; i < n;) {
        weight all = *w[i];
        weight_part part;
        vector b = bias[i] != NULL ? *bias[i] : (vector){ 0 };
        uint32_t next = i + 1;
        if (all.n_parts == 1) {
            part = all.parts[0];
            all.parts = &part;
            while (next < n &&
                   join(&all, &part, &b, w[next], bias[next], gpu_info(r->m->gpu)->max_binding)) {
                next++;
            }
        }
        op_matmul(r, y, &all, &b, x);
        y.column += all.rows;
        i = next;
    }
}
