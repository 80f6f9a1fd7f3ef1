/* check_experts: the router, the order of the pairs, the products of chosen experts, their sum.
 *
 * A pair is a row and one of its experts; pair = row * n_used + k. */
#include "ref/check_internal.h"

#include <math.h>
#include <stdio.h>

enum { LANES_ROUTE = 128, LANES_MATVEC = 64 }; /* as in model/ops.c */
enum { TILE_PAIRS = 32 };                      /* of expert_group.wgsl */

/* ---- route --------------------------------------------------------------------------------- */

typedef enum { SPREAD, WIDE, EQUAL, TIED, ZEROS, BROKEN } logit_kind;
static const char *const logit_names[] = { "spread",          "of hundreds",         "equal",
                                           "of three values", "zeros of both signs", "with NaN" };

typedef struct {
    uint32_t n_experts, n_used;
    logit_kind kind;
    bool normalise;
    float scale;
    const char *reason;
} route_case;

enum { ROUTE_ROWS = 5 };

/* The rows whose logits are no numbers: only that what is chosen are different experts is known. */
static bool is_broken(const route_case *c, uint32_t row) {
    return c->kind == BROKEN && row > 0 && row < 4;
}

static void fill_logits(rig *r, const route_case *c, uint32_t row, float *l) {
    for (uint32_t e = 0; e < c->n_experts; e++) {
        const double x = rig_normal(r);
        const float values[] = { (float)(2 * x),
                                 (float)(100 * x),
                                 1.25f,
                                 (float)rig_below(r, 3) - 1,
                                 e % 2 == 0 ? -0.0f : 0.0f,
                                 (float)(2 * x) };
        l[e] = values[c->kind];
        if (is_broken(c, row) && (row == 1 || rig_below(r, 2) == 0)) {
            const float wrong[] = { NAN, -NAN, INFINITY, -INFINITY };
            l[e] = wrong[row == 1 ? 0 : rig_below(r, 4)];
        }
    }
}

double rig_choice_bound(const rig_choice *c, const uint32_t *experts, uint32_t k, double weight) {
    const double top = c->logits[experts[0]];
    double sum = 0, error = 0;
    for (uint32_t i = 0; i < (c->normalise ? c->n_used : c->n_experts); i++) {
        const double x = c->logits[c->normalise ? experts[i] : i] - top;
        sum += exp(x);
        error += exp(x) * (3 + 3 * fabs(x));
    }
    double additions = c->n_used;
    if (!c->normalise) {
        additions = ceil_div(c->n_experts, c->lanes) + log2((double)c->team) + c->lanes / c->team;
    }
    const double own = 3 + 3 * fabs(c->logits[experts[k]] - top);
    return U * weight * (own + error / sum + additions + 2.5 + 1) +
           (double)(c->scale * 2 + 1) * 0x1p-126;
}

static void expect_broken(rig *r, const route_case *c, const uint32_t (*choice)[2]) {
    for (uint32_t k = 0; k < c->n_used; k++) {
        rig_require(r, choice[k][0] < c->n_experts, "an expert that there is not");
        for (uint32_t i = 0; i < k; i++)
            rig_require(r, choice[k][0] != choice[i][0], "an expert twice");
    }
    rig_skip(r, 2 * (size_t)c->n_used);
}

static void expect_route(rig *r, const route_case *c, const rig_reduce *reduce, const float *logits,
                         const rig_output *choice) {
    uint32_t *experts = rig_alloc(r, c->n_experts, sizeof(uint32_t));
    double *weights = rig_alloc(r, c->n_experts, sizeof(double));
    for (uint32_t t = 0; t < ROUTE_ROWS; t++) {
        const size_t first = 2 * (size_t)t * c->n_used;
        if (is_broken(c, t)) {
            expect_broken(r, c, (const uint32_t(*)[2])(choice->after + first));
            continue;
        }
        const double *l = rig_doubles(r, logits + (size_t)t * c->n_experts, c->n_experts);
        ref_route(experts, weights, l, c->n_experts, c->n_used, c->normalise, (double)c->scale);
        const rig_choice how = { .logits = l,
                                 .n_experts = c->n_experts,
                                 .n_used = c->n_used,
                                 .normalise = c->normalise,
                                 .scale = c->scale,
                                 .lanes = LANES_ROUTE,
                                 .team = reduce->team };
        for (uint32_t k = 0; k < c->n_used; k++) {
            rig_bits(r, choice->after[first + 2 * k], experts[k]);
            rig_expect(r, rig_float(choice, first + 2 * k + 1), weights[k],
                       rig_choice_bound(&how, experts, k, weights[k]));
        }
    }
}

static void route_row(rig *r, const route_case *c, const rig_reduce *reduce) {
    char kernel[96];
    snprintf(kernel, sizeof(kernel), "route %s", reduce->part->name);
    if (!rig_begin(r, kernel, c->reason, "%u of %u experts, logits %s%s, scale %g", c->n_used,
                   c->n_experts, logit_names[c->kind], c->normalise ? ", over the chosen" : "",
                   (double)c->scale)) {
        return;
    }
    const size_t n = (size_t)ROUTE_ROWS * c->n_experts;
    float *logits = rig_alloc(r, n, sizeof(float)), *given = rig_alloc(r, n, sizeof(float));
    for (uint32_t t = 0; t < ROUTE_ROWS; t++)
        fill_logits(r, c, t, logits + (size_t)t * c->n_experts);
    memcpy(given, logits, n * sizeof(float));
    if (rig_plant(r)) {
        /* The worst expert becomes the best. */
        uint32_t worst = 0, best = 0;
        for (uint32_t e = 0; e < c->n_experts; e++) {
            if (logits[e] <= logits[worst]) worst = e;
            if (logits[e] > logits[best]) best = e;
        }
        given[worst] = logits[best] + 8;
    }
    rig_output *choice = rig_out(r, NULL, 2 * (size_t)ROUTE_ROWS * c->n_used);
    const route_consts consts = {
        .n_experts = c->n_experts,
        .used = c->n_used,
        .normalise = c->normalise,
        .weight_scale = c->scale,
        .wg = LANES_ROUTE,
        .team = reduce->team,
    };
    rig_call(r, &route_source, (const gpu_fragment *[]){ reduce->part }, &consts,
             (gpu_call){
                 .bind = { [ROUTE_ROUTER] = rig_in(r, given, n * sizeof(float)),
                           [ROUTE_CHOICE] = choice->range },
                 .groups = { { .times = ROUTE_ROWS } },
             });
    if (rig_run(r)) expect_route(r, c, reduce, logits, choice);
    rig_end(r);
}

void check_route(rig *r) {
    static const route_case cases[] = {
        { 8, 2, SPREAD, true, 1, "Mixtral" },
        { 128, 8, SPREAD, true, 1, "Qwen3-MoE: a lane has an expert" },
        { 128, 8, SPREAD, false, 1, "weights that do not add up to 1" },
        { 32, 4, SPREAD, true, 1, "GPT-OSS" },
        { 4, 4, SPREAD, true, 1, "all experts" },
        { 8, 8, SPREAD, false, 2.5f, "all experts, scaled" },
        { 512, 16, SPREAD, false, 1, "the most of both" },
        { 512, 1, WIDE, false, 0.5f, "one expert; lanes have four" },
        { 5, 1, SPREAD, true, 1, "the last vec4 has one expert" },
        { 129, 8, WIDE, false, 1, "one lane has a second expert, exponentials vanish" },
        { 32, 4, WIDE, true, 3, "exponentials vanish" },
        { 8, 2, EQUAL, true, 1, "the lower expert first" },
        { 512, 16, EQUAL, false, 1, "the lower expert first, across lanes" },
        { 128, 8, TIED, true, 1, "groups of equal logits" },
        { 6, 4, TIED, false, 1, "groups of equal logits" },
        { 32, 4, ZEROS, true, 1, "-0 equals 0" },
        { 128, 8, BROKEN, true, 1, "no expert that is not there" },
        { 7, 2, BROKEN, false, 1, "the filling of the last vec4 is never chosen" },
    };
    rig_reduce reduces[2];
    const uint32_t n = rig_reduces(r, reduces);
    for (uint32_t i = 0; i < n; i++) {
        for (size_t j = 0; j < ARRAY_LEN(cases); j++)
            route_row(r, &cases[j], &reduces[i]);
    }
}

/* ---- expert_group -------------------------------------------------------------------------- */

/* The pairs in the order of their experts, and tiles of them; what is over stays zero. */
typedef struct {
    uint32_t *order;
    uint32_t (*tiles)[4];
    uint32_t n_tiles;
} grouping;

static grouping group_pairs(rig *r, const uint32_t (*choice)[2], uint32_t n_pairs,
                            uint32_t n_experts) {
    grouping g = { .n_tiles = ceil_div(n_pairs, TILE_PAIRS) + min_u32(n_experts, n_pairs) };
    g.order = rig_alloc(r, n_pairs, sizeof(uint32_t));
    g.tiles = rig_alloc(r, g.n_tiles, sizeof(*g.tiles));
    uint32_t at = 0, tile = 0;
    for (uint32_t e = 0; e < n_experts; e++) {
        const uint32_t first = at;
        for (uint32_t pair = 0; pair < n_pairs; pair++) {
            if (choice[pair][0] == e) g.order[at++] = pair;
        }
        for (uint32_t i = first; i < at; i += TILE_PAIRS) {
            assert(tile < g.n_tiles);
            g.tiles[tile][0] = e, g.tiles[tile][1] = i;
            g.tiles[tile++][2] = min_u32(TILE_PAIRS, at - i);
        }
    }
    return g;
}

typedef struct {
    uint32_t n_experts, n_used, rows;
    uint32_t every; /* only experts that are multiples of it have pairs; 0: expert 0 alone */
    const char *reason;
} group_case;

static void group_row(rig *r, const group_case *c) {
    if (!rig_begin(r, "expert_group", c->reason, "%u of %u experts, rows %u, every %u", c->n_used,
                   c->n_experts, c->rows, c->every)) {
        return;
    }
    const uint32_t n_pairs = c->rows * c->n_used;
    uint32_t(*choice)[2] = rig_alloc(r, n_pairs, sizeof(*choice));
    for (uint32_t pair = 0; pair < n_pairs; pair++) {
        const uint32_t among = c->every == 0 ? 1 : ceil_div(c->n_experts, c->every);
        choice[pair][0] = rig_below(r, among) * c->every;
        choice[pair][1] = rig_below(r, UINT32_MAX);
    }
    choice[n_pairs / 2][0] = 0; /* which the fault planted turns into 1 */
    const grouping want = group_pairs(r, (const uint32_t(*)[2])choice, n_pairs, c->n_experts);
    const uint32_t sizes[4] = { c->rows, 77, 77, 77 };
    const gpu_range given = rig_words(r, choice[0], 2 * (size_t)n_pairs, 2 * (size_t)(n_pairs / 2));
    rig_output *order = rig_out(r, NULL, n_pairs);
    rig_output *tiles = rig_out(r, NULL, 4 * (size_t)want.n_tiles);
    rig_call(r, &expert_group_source, NULL,
             &(expert_group_consts){ .n_experts = c->n_experts, .used = c->n_used },
             (gpu_call){
                 .bind = { [EXPERT_GROUP_CHOICE] = given,
                           [EXPERT_GROUP_SIZES] = rig_sizes(r, sizes),
                           [EXPERT_GROUP_ORDER] = order->range,
                           [EXPERT_GROUP_EXPERT_TILES] = tiles->range },
                 .groups = { { .times = c->n_experts } },
             });
    if (rig_run(r)) {
        for (uint32_t i = 0; i < n_pairs; i++)
            rig_bits(r, order->after[i], want.order[i]);
        for (uint32_t i = 0; i < 4 * want.n_tiles; i++)
            rig_bits(r, tiles->after[i], want.tiles[i / 4][i % 4]);
    }
    rig_end(r);
}

void check_expert_group(rig *r) {
    static const group_case cases[] = {
        { 4, 1, 1, 1, "the least" },
        { 8, 2, 9, 1, "fewer pairs than lanes" },
        { 8, 2, 129, 1, "pairs that do not divide among the lanes" },
        { 128, 8, 512, 1, "Qwen3-MoE" },
        { 32, 4, 100, 3, "most experts have no pairs" },
        { 7, 2, 64, 6, "the first and the last expert have pairs" },
        { 4, 1, 96, 0, "full tiles of one expert" },
        { 4, 1, 97, 0, "one expert, one pair more than full tiles" },
        { 512, 16, 40, 1, "the most experts: lanes add up two each" },
        { 4, 16, 8192, 1, "the most pairs" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        group_row(r, &cases[i]);
}

/* ---- products ------------------------------------------------------------------------------ */

typedef struct {
    const rig_format *format;
    const rig_reduce *reduce; /* NULL: matmul */
    uint32_t cols, rows, n_experts, n_used, n;
    uint32_t hidden; /* experts without a slot */
    bool per_pair;   /* x has a row per pair, not per row */
    bool bias, add;
    bool reversed; /* the part with the later slots goes first */
    bool one;      /* all rows choose the same */
    tile_kernel kernel;
    float scale; /* 0: 1 */
    const char *reason;
} expert_product;

/* Operands; the experts' matrices lie in two parts. */
typedef struct {
    uint32_t n_pairs, n_slots, split; /* slots of the first part */
    uint32_t (*choice)[2];            /* [pairs] */
    uint32_t *place;                  /* [experts] */
    float *w[2];                      /* of the parts: [slots, rows, cols] */
    const float *bias;                /* [experts, rows] */
    gpu_range w_range[2], x_range, bias_range;
    rig_output *y; /* [pairs, stride] */
    uint32_t stride, column;
} expert_operands;

/* Slots in random order; the pair (0, 0) has slot 0, whose weights the planted fault is in, and the
 * last pair an expert without a slot, if there is one. */
static void choose(rig *r, const expert_product *c, expert_operands *o) {
    const uint32_t *slots = rig_shuffled(r, c->n_experts); /* expert of each */
    o->n_pairs = c->n * c->n_used;
    o->n_slots = c->n_experts - c->hidden;
    o->split = ceil_div(o->n_slots, 2);
    o->choice = rig_alloc(r, o->n_pairs, sizeof(*o->choice));
    o->place = rig_alloc(r, c->n_experts, sizeof(uint32_t));
    for (uint32_t slot = 0; slot < c->n_experts; slot++)
        o->place[slots[slot]] = slot < o->n_slots ? slot : UINT32_MAX;
    for (uint32_t t = 0; t < c->n; t++) {
        uint32_t *experts = rig_shuffled(r, c->n_experts);
        const uint32_t wanted[2] = { 0, c->n_used - 1 };
        for (uint32_t i = 0; i < 2; i++) {
            if (i == 0 ? t > 0 && !c->one : t + 1 < c->n || c->hidden == 0) continue;
            const uint32_t expert = slots[i == 0 ? 0 : c->n_experts - 1];
            for (uint32_t e = 0; e < c->n_experts; e++) {
                if (experts[e] != expert) continue;
                experts[e] = experts[wanted[i]];
                experts[wanted[i]] = expert;
                break;
            }
        }
        for (uint32_t k = 0; k < c->n_used; k++) {
            o->choice[t * c->n_used + k][0] = experts[k];
            o->choice[t * c->n_used + k][1] = rig_below(r, UINT32_MAX);
        }
    }
}

/* The part by matmul or matmul_q8, whose parameters and bindings are alike. */
static void call_tiles_of(rig *r, const expert_product *c, const expert_operands *o, uint32_t part,
                          const gpu_range shared[5]) {
    const matmul_consts how = { .k = c->cols,
                                .bias = c->bias,
                                .add = c->add,
                                .scale = c->scale == 0 ? 1 : c->scale,
                                .experts = true,
                                .x_per = c->per_pair ? 1 : c->n_used };
    const matmul_q8_params params = { .rows = c->rows,
                                      .stride = o->stride,
                                      .column = o->column,
                                      .bias_first = 1000000, /* of no meaning here */
                                      .first_slot = part == 0 ? 0 : o->split,
                                      .slots = part == 0 ? o->split : o->n_slots - o->split,
                                      .pitch = RIG_SPARE_ROWS + (c->per_pair ? o->n_pairs : c->n) };
    const uint32_t n_tiles = ceil_div(o->n_pairs, TILE_PAIRS) + min_u32(c->n_experts, o->n_pairs);
    rig_pair_tiles(r, c->format, c->kernel, &how,
                   (gpu_call){
                       .bind = { o->w_range[part], [MATMUL_X] = o->x_range,
                                 [MATMUL_BIAS] = o->bias_range, [MATMUL_SIZES] = shared[0],
                                 [MATMUL_Y] = o->y->range, [MATMUL_PLACE] = shared[1],
                                 [MATMUL_ORDER] = shared[3], [MATMUL_EXPERT_TILES] = shared[4] },
                       .params = &params,
                       .groups = { { .times = c->rows }, { .times = n_tiles } },
                   });
}

static void call_part(rig *r, const expert_product *c, const expert_operands *o, uint32_t part,
                      const gpu_range shared[5]) {
    const uint32_t first = part == 0 ? 0 : o->split;
    const uint32_t slots = part == 0 ? o->split : o->n_slots - o->split;
    const uint32_t x_per = c->per_pair ? 1 : c->n_used;
    const float scale = c->scale == 0 ? 1 : c->scale;
    if (c->reduce == NULL) {
        call_tiles_of(r, c, o, part, shared);
        return;
    }
    const uint32_t groups = ceil_div(c->rows, LANES_MATVEC / c->reduce->team);
    const uint32_t grid_x = min_u32(groups, 5); /* so that the grid has a second row */
    const matvec_consts consts = { .k = c->cols,
                                   .tokens = 1,
                                   .bias = c->bias,
                                   .add = c->add,
                                   .scale = scale,
                                   .experts = true,
                                   .x_per = x_per,
                                   .wg = LANES_MATVEC,
                                   .team = c->reduce->team };
    const matvec_params params = { .rows = c->rows,
                                   .grid_x = grid_x,
                                   .stride = o->stride,
                                   .column = o->column,
                                   .bias_first = 1000000, /* of no meaning here */
                                   .first_slot = first,
                                   .slots = slots };
    rig_call(r, &matvec_source, (const gpu_fragment *[]){ c->format->part, c->reduce->part },
             &consts,
             (gpu_call){
                 .bind = { o->w_range[part], [MATVEC_X] = o->x_range, [MATVEC_BIAS] = o->bias_range,
                           [MATVEC_SIZES] = shared[0], [MATVEC_Y] = o->y->range,
                           [MATVEC_PLACE] = shared[1], [MATVEC_CHOICE] = shared[2] },
                 .params = &params,
                 .groups = { { .times = grid_x },
                             { .times = ceil_div(groups, grid_x) },
                             { .times = o->n_pairs } },
             });
}

static void call_parts(rig *r, const expert_product *c, const expert_operands *o) {
    const uint32_t sizes[4] = { c->n, 77, 77, 77 };
    const grouping g = group_pairs(r, (const uint32_t(*)[2])o->choice, o->n_pairs, c->n_experts);
    const gpu_range shared[5] = {
        rig_sizes(r, sizes),
        rig_in(r, o->place, c->n_experts * sizeof(uint32_t)),
        rig_in(r, o->choice, o->n_pairs * sizeof(*o->choice)),
        rig_in(r, g.order, o->n_pairs * sizeof(uint32_t)),
        rig_in(r, g.tiles, g.n_tiles * sizeof(*g.tiles)),
    };
    call_part(r, c, o, c->reversed ? 1 : 0, shared);
    call_part(r, c, o, c->reversed ? 0 : 1, shared);
}

static void expect_pair(rig *r, const expert_product *c, const expert_operands *o, uint32_t pair,
                        const double *x) {
    const size_t at = (size_t)pair * o->stride, end = o->column + c->rows;
    const uint32_t expert = o->choice[pair][0], slot = o->place[expert];
    const uint32_t team = c->reduce == NULL ? 1 : c->reduce->team;
    if (slot == UINT32_MAX) {
        rig_kept(r, o->y, at, o->stride);
        return;
    }
    const float *w = slot < o->split ? o->w[0] + (size_t)slot * c->rows * c->cols
                                     : o->w[1] + (size_t)(slot - o->split) * c->rows * c->cols;
    double *want = rig_alloc(r, c->rows, sizeof(double));
    ref_matmul(want, w, c->bias ? o->bias + (size_t)expert * c->rows : NULL, x, 1, c->rows,
               c->cols);
    rig_kept(r, o->y, at, o->column);
    for (uint32_t i = 0; i < c->rows; i++) {
        const size_t element = at + o->column + i;
        const float *wi = w + (size_t)i * c->cols;
        const double bound = c->kernel == TILES_BYTES
                                 ? rig_bytes_bound(c->format->type, c->cols, c->cols, wi, x)
                             : c->kernel == TILES_HALVES ? rig_halves_bound(c->cols, c->cols, wi, x)
                                                         : rig_product_bound(team, c->cols, wi, x);
        rig_expect_product(r, rig_float(o->y, element), want[i], bound, c->bias, c->scale,
                           c->add ? &o->y->before[element] : NULL);
    }
    rig_kept(r, o->y, at + end, o->stride - end);
}

static void expert_product_row(rig *r, const expert_product *c) {
    char kernel[96];
    snprintf(kernel, sizeof(kernel), "%s experts %s%s%s",
             c->reduce != NULL ? "matvec" : rig_tile_kernels[c->kernel], c->format->name,
             c->reduce == NULL ? "" : " ", c->reduce == NULL ? "" : c->reduce->part->name);
    if (!rig_begin(r, kernel, c->reason,
                   "K %u, rows %u, %u of %u experts, %u hidden, n %u%s%s%s%s%s", c->cols, c->rows,
                   c->n_used, c->n_experts, c->hidden, c->n, c->per_pair ? ", x per pair" : "",
                   c->bias ? ", bias" : "", c->add ? ", add" : "", c->scale == 0 ? "" : ", scaled",
                   c->one ? ", one for all" : "")) {
        return;
    }
    expert_operands o = { .stride = c->rows + 5, .column = 3 };
    choose(r, c, &o);
    const size_t k = c->cols, rows = c->rows, n_x = c->per_pair ? o.n_pairs : c->n;
    o.w_range[0] = rig_weights(r, c->format->type, o.split * rows, k, &o.w[0]);
    o.w_range[1] = rig_weights(r, c->format->type, (o.n_slots - o.split) * rows, k, &o.w[1]);
    const float *x = c->kernel == TILES_HALVES ? rig_sparse(r, (uint32_t)n_x, c->cols)
                                               : rig_normals(r, n_x * k, 1);
    double *xd = rig_doubles(r, x, n_x * k);
    if (c->kernel == TILES_BYTES) {
        const uint32_t *bytes = rig_bytes(r, x, n_x, c->cols, xd);
        o.x_range = rig_in(r, bytes, (n_x + RIG_SPARE_ROWS) * ceil_div(c->cols, 32) * 48);
    } else {
        o.x_range = rig_in(r, x, n_x * k * sizeof(float));
    }
    o.bias = rig_normals(r, c->n_experts * rows, 1);
    o.bias_range = rig_in(r, o.bias, (c->bias ? c->n_experts * rows : 1) * sizeof(float));
    const size_t n_y = (size_t)o.n_pairs * o.stride;
    o.y = rig_out(r, c->add ? rig_normals(r, n_y, 1) : NULL, n_y);
    call_parts(r, c, &o);
    if (rig_run(r)) {
        for (uint32_t pair = 0; pair < o.n_pairs; pair++) {
            expect_pair(r, c, &o, pair, xd + (c->per_pair ? pair : pair / c->n_used) * k);
        }
    }
    rig_end(r);
}

/* Of each way in which a fragment finds its rows one: 4-byte words, halves, blocks on even bytes,
 * blocks on whole vec4s, blocks on odd bytes. */
static bool is_expert_format(dtype type, uint32_t *cols) {
    *cols = dtype_get(type)->block_elements == 256 ? 256 : dtype_is_quantised(type) ? 96 : 172;
    return type == DTYPE_F32 || type == DTYPE_BF16 || type == DTYPE_Q8_0 || type == DTYPE_Q4_K ||
           type == DTYPE_MXFP4;
}

void check_expert_matvec(rig *r) {
    rig_reduce reduces[2];
    const uint32_t n = rig_reduces(r, reduces);
    for (uint32_t i = 0; i < n; i++) {
        const rig_reduce *reduce = &reduces[i];
        for (size_t j = 0; j < RIG_FORMATS; j++) {
            const rig_format *f = &rig_formats[j];
            uint32_t cols;
            if (!is_expert_format(f->type, &cols)) continue;
            expert_product_row(r, &(expert_product){ f, reduce, cols, 13, 4, 2, 3, .hidden = 1,
                                                     .bias = true, .reversed = j % 2 == 0,
                                                     .reason = "how a slot's rows are found" });
        }
        const rig_format *f = &rig_formats[0];
        const expert_product cases[] = {
            { f, reduce, 4, 1, 4, 1, 1, .reason = "the least" },
            { f, reduce, 172, 13, 4, 2, 3, .per_pair = true, .reason = "down" },
            { f, reduce, 172, 65, 8, 8, 8, .hidden = 3, .reason = "all experts, eight rows" },
            { f, reduce, 68, 5, 128, 8, 8, .hidden = 100, .reversed = true,
              .reason = "most experts are elsewhere" },
            { f, reduce, 172, 7, 8, 2, 5, .hidden = 2, .per_pair = true, .bias = true, .add = true,
              .scale = 0.22f, .reason = "all at once" },
            { f, reduce, 172, 7, 8, 2, 5, .hidden = 2, .bias = true, .add = true, .scale = 0.22f,
              .reversed = true, .reason = "all at once" },
        };
        for (size_t j = 0; j < ARRAY_LEN(cases); j++)
            expert_product_row(r, &cases[j]);
    }
}

void check_expert_matmul(rig *r) {
    for (size_t j = 0; j < RIG_FORMATS; j++) {
        const rig_format *f = &rig_formats[j];
        uint32_t cols;
        if (!is_expert_format(f->type, &cols)) continue;
        expert_product_row(r, &(expert_product){ f, NULL, cols, 70, 4, 2, 33, .hidden = 1,
                                                 .bias = true, .reversed = j % 2 == 0,
                                                 .reason = "how a slot's rows are found" });
    }
    const rig_format *f = &rig_formats[0], *bf16 = &rig_formats[2], *q8_0 = &rig_formats[7];
    assert(bf16->type == DTYPE_BF16 && q8_0->type == DTYPE_Q8_0);
    const expert_product cases[] = {
        { f, NULL, 4, 1, 4, 1, 1, .reason = "the least" },
        { f, NULL, 172, 70, 4, 2, 33, .per_pair = true, .reason = "down" },
        { f, NULL, 68, 64, 8, 8, 32, .hidden = 3, .reason = "full tiles of every expert" },
        { f, NULL, 172, 5, 128, 8, 20, .hidden = 100, .reversed = true,
          .reason = "tiles of one pair or two, most experts are elsewhere" },
        { f, NULL, 68, 65, 8, 1, 97, .one = true, .reason = "four tiles of one expert" },
        { f, NULL, 172, 7, 8, 2, 75, .hidden = 2, .per_pair = true, .bias = true, .add = true,
          .scale = 0.22f, .reason = "all at once" },
        { f, NULL, 172, 7, 8, 2, 75, .hidden = 2, .bias = true, .add = true, .scale = 0.22f,
          .reversed = true, .reason = "all at once" },
        { q8_0, NULL, 172, 70, 4, 2, 33, .per_pair = true, .reason = "down",
          .kernel = TILES_BYTES },
        { q8_0, NULL, 68, 65, 8, 1, 97, .one = true, .reason = "four tiles of one expert",
          .kernel = TILES_BYTES },
        { q8_0, NULL, 172, 7, 8, 2, 75, .hidden = 2, .bias = true, .add = true, .scale = 0.22f,
          .reversed = true, .reason = "all at once", .kernel = TILES_BYTES },
    };
    for (size_t j = 0; j < ARRAY_LEN(cases); j++)
        expert_product_row(r, &cases[j]);
    for (size_t j = 0; j < ARRAY_LEN(cases) && rig_has_tiles(r, TILES_ROWS); j++) {
        expert_product rows = cases[j];
        rows.kernel = TILES_ROWS;
        if (cases[j].kernel == TILES_FLOATS) expert_product_row(r, &rows);
    }
    for (size_t j = 0; j < ARRAY_LEN(cases) && rig_has_tiles(r, TILES_HALVES); j++) {
        expert_product halves = cases[j];
        halves.kernel = TILES_HALVES;
        halves.format = bf16;
        if (cases[j].kernel == TILES_FLOATS && cases[j].add) expert_product_row(r, &halves);
    }
}

/* ---- expert_combine ------------------------------------------------------------------------ */

/* Products and partial sums; the factor; the sum with x, which is `v`. y [n_used, dim], one column.
 */
static double combine_bound(const double *weights, const double *y, uint32_t n_used, size_t dim,
                            double scale, double v) {
    double sum = 0, error = 0;
    for (size_t k = 0; k < n_used; k++) {
        sum += weights[k] * y[k * dim];
        error += fabs(weights[k] * y[k * dim]) + fabs(sum);
    }
    return U * (scale * (error + fabs(sum)) + fabs(v));
}

static void combine_row(rig *r, uint32_t n4, uint32_t n_used, uint32_t rows, float scale,
                        const char *reason) {
    if (!rig_begin(r, "expert_combine", reason, "N4 %u, %u experts, rows %u, scale %g", n4, n_used,
                   rows, (double)scale)) {
        return;
    }
    const size_t dim = 4 * (size_t)n4, n_pairs = (size_t)rows * n_used;
    uint32_t(*choice)[2] = rig_alloc(r, n_pairs, sizeof(*choice));
    double *weights = rig_alloc(r, n_pairs, sizeof(double));
    for (size_t pair = 0; pair < n_pairs; pair++) {
        const float weight = (float)(0.05 + rig_uniform(r));
        choice[pair][0] = rig_below(r, UINT32_MAX);
        memcpy(&choice[pair][1], &weight, 4);
        weights[pair] = (double)weight;
    }
    const float *before = rig_normals(r, rows * dim, 1), *y = rig_normals(r, n_pairs * dim, 1);
    const double *yd = rig_doubles(r, y, n_pairs * dim);
    double *want = rig_doubles(r, before, rows * dim);
    rig_output *x = rig_out(r, before, rows * dim);
    rig_call(r, &expert_combine_source, NULL,
             &(expert_combine_consts){ .n4 = n4, .used = n_used, .scale = scale },
             (gpu_call){
                 .bind = { [EXPERT_COMBINE_CHOICE] = rig_in(r, choice, n_pairs * sizeof(*choice)),
                           [EXPERT_COMBINE_Y] = rig_numbers(r, y, n_pairs * dim, dim / 2),
                           [EXPERT_COMBINE_X] = x->range },
                 .groups = { { .times = ceil_div(n4, 64) }, { .times = rows } },
             });
    if (rig_run(r)) {
        for (size_t t = 0; t < rows; t++) {
            const double *w = weights + t * n_used, *part = yd + t * n_used * dim;
            ref_combine(want + t * dim, w, part, n_used, dim, (double)scale);
            for (size_t d = 0; d < dim; d++) {
                rig_expect(
                    r, rig_float(x, t * dim + d), want[t * dim + d],
                    combine_bound(w, part + d, n_used, dim, (double)scale, want[t * dim + d]));
            }
        }
    }
    rig_end(r);
}

void check_expert_combine(rig *r) {
    combine_row(r, 1, 1, 1, 1, "the least");
    combine_row(r, 43, 2, 9, 1, "lanes without work");
    combine_row(r, 64, 8, 3, 1, "exactly one workgroup a row");
    combine_row(r, 65, 4, 3, 0.22f, "one lane in a second workgroup; Granite's multiplier");
    combine_row(r, 16, 16, 2, 2, "the most experts");
}
