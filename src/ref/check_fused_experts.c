/* check_fused_experts: the products of experts in a decoding pass, with what stands around them. */
#include "gpu/gpu.h"
#include "model/model.h"
#include "ref/check_fused_internal.h"
#include "ref/ref.h"

#include <math.h>
#include <stdio.h>

/* ---- router -------------------------------------------------------------------------------- */

typedef struct {
    const rig_format *format;
    uint32_t cols, n_experts, n;
    bool bias;
    double scale; /* of x */
    const char *reason;
} router_case;

/* A product of three, then the additions of a dot product (3), of the lane's 8 to a unit, of the
 * team and of the teams; so are the squares', with one product less. The root halves their relative
 * error, the division's (2.5) and that of adding eps; then inverseSqrt (2) and its product. */
static approx router_product(const router_case *c, const float *w, const float *x,
                             const float *norm, uint32_t lanes, uint32_t team) {
    double squares = 0, sum = 0, size = 0;
    for (uint32_t i = 0; i < c->cols; i++) {
        const double v = (double)x[i], p = (double)w[i] * (v * (double)norm[i]);
        squares += v * v;
        sum += p;
        size += fabs(p);
    }
    const double scale = 1 / sqrt(squares / c->cols + (double)FUSED_EPS);
    const double steps =
        3 + 8 * ceil_div(c->cols / UNIT_COLS, lanes) + log2((double)team) + lanes / team;
    const approx factor = { scale, ((steps + 1 + 2.5 + 1) / 2 + 2) * U * scale };
    return approx_mul((approx){ sum, (steps + 2) * U * size }, factor);
}

static void router_row(rig *r, const router_case *c, const rig_reduce *reduce) {
    enum { LANES = 64 };
    char kernel[96];
    snprintf(kernel, sizeof(kernel), "router %s", reduce->part->name);
    if (!rig_begin(r, kernel, c->reason, "%s, K %u, %u experts, n %u%s, |x| %g", c->format->name,
                   c->cols, c->n_experts, c->n, c->bias ? ", bias" : "", c->scale)) {
        return;
    }
    const size_t cols = c->cols, n_z = (size_t)c->n * c->n_experts;
    const fused_weights m = fused_matrix(r, c->format, c->n_experts, c->cols, false);
    const float *x = rig_normals(r, c->n * cols, c->scale), *norm = rig_normals(r, cols, 1);
    const float *bias = rig_normals(r, c->n_experts, 1);
    rig_output *z = rig_out(r, NULL, n_z);
    const router_consts consts = { .k = c->cols,
                                   .n_experts = c->n_experts,
                                   .eps = FUSED_EPS,
                                   .bias = c->bias,
                                   .wg = LANES,
                                   .team = reduce->team };
    rig_call(r, &router_source, (const gpu_fragment *[]){ c->format->part, reduce->part }, &consts,
             (gpu_call){
                 .bind = { [0] = m.range,
                           [ROUTER_X] = rig_in(r, x, c->n * cols * 4),
                           [ROUTER_W] = rig_in(r, norm, cols * 4),
                           [ROUTER_BIAS] = rig_in(r, bias, c->bias ? c->n_experts * 4 : 4),
                           [ROUTER_Z] = z->range },
                 .groups = { { .times = c->n_experts }, { .times = c->n } },
             });
    if (rig_run(r)) {
        for (size_t i = 0; i < n_z; i++) {
            const size_t t = i / c->n_experts, e = i % c->n_experts;
            approx v =
                router_product(c, m.decoded + e * cols, x + t * cols, norm, LANES, reduce->team);
            if (c->bias) v = approx_add(v, approx_of((double)bias[e]));
            approx_expect(r, z, i, v);
        }
    }
    rig_end(r);
}

void check_router(rig *r) {
    const rig_format *f32 = fused_format(DTYPE_F32), *bf16 = fused_format(DTYPE_BF16);
    const router_case cases[] = {
        { f32, 32, 2, 1, false, 1, "the least" },
        { f32, 4096, 8, 1, false, 1, "Mixtral, two units to a lane" },
        { bf16, 2880, 32, 3, true, 1, "GPT-OSS, some rows of a pass" },
        { fused_format(DTYPE_Q8_0), 1056, 5, 16, false, 1e-4, "eps outweighs the squares" },
    };
    rig_reduce reduces[2];
    const uint32_t n = rig_reduces(r, reduces);
    for (size_t i = 0; i < n * ARRAY_LEN(cases); i++)
        router_row(r, &cases[i / n], &reduces[i % n]);
}

/* ---- expert_glu ---------------------------------------------------------------------------- */

typedef struct {
    const rig_format *format;
    uint32_t cols, ffn, n_experts, n_used, n;
    rig_act act;
    bool q8;
    act_form form;
    bool normalise, bias;
    const char *reason;
    team_shape shape;
    uint32_t group;
    uint32_t slots; /* not 0: paged */
} experts_case;

/* Slots of the experts: as many have one, the others none; or all their own number. */
static uint32_t *some_places(rig *r, uint32_t n_experts, uint32_t slots) {
    uint32_t *place = rig_shuffled(r, n_experts);
    for (uint32_t i = 0; i < n_experts; i++) {
        if (slots == 0) place[i] = i;
        if (slots > 0 && place[i] >= slots) place[i] = UINT32_MAX;
    }
    return place;
}

/* Random experts for every row, all different; those of pairs [n, n_used]. The first row has the
 * first expert: weights are planted there. */
static uint32_t *some_experts(rig *r, uint32_t n, uint32_t n_used, uint32_t n_experts) {
    uint32_t *experts = rig_alloc(r, (size_t)n * n_used, sizeof *experts);
    for (uint32_t t = 0; t < n; t++)
        memcpy(experts + t * n_used, rig_shuffled(r, n_experts), n_used * sizeof *experts);
    bool there = false;
    for (uint32_t k = 0; k < n_used; k++)
        there |= experts[k] == 0;
    if (!there) experts[0] = 0;
    return experts;
}

static void expert_glu_row(rig *r, const experts_case *c, const rig_reduce *reduce) {
    static const char *const names[] = { "silu", "gelu", "clamped" };
    const team_shape s = fused_shape(r, reduce, &c->shape, c->group, 1);
    char kernel[96];
    snprintf(kernel, sizeof(kernel), "expert_glu %s %s %s %s", names[c->act],
             c->q8 ? "bytes" : "floats", fused_acts[c->form]->name, reduce->part->name);
    if (!rig_begin(r, kernel, c->reason, "%s, K %u, FFN %u, %u of %u experts, n %u%s%s%s",
                   c->format->name, c->cols, c->ffn, c->n_used, c->n_experts, c->n,
                   c->normalise ? ", over the chosen" : "", c->bias ? ", bias" : "",
                   c->slots > 0 ? ", paged" : "")) {
        return;
    }
    const float scale = 1.5f;
    const uint32_t e = c->n_experts, halves = c->cols / HALF_COLS;
    const float *squares = fused_squares(r, (size_t)c->n * halves);
    const gpu_range norm = rig_numbers(r, squares, (size_t)c->n * halves, 1);
    const uint32_t slots = c->slots > 0 ? c->slots : e, *place = some_places(r, e, c->slots);
    const fused_weights m = fused_matrix(r, c->format, 2 * slots * c->ffn, c->cols, false);
    const fused_input in =
        c->q8 ? fused_bytes(r, c->n, c->cols, 0, 0) : fused_floats(r, c->n, c->cols);
    const float *logits = rig_normals(r, (size_t)c->n * e, 2);
    const size_t n_bias = (size_t)e * c->ffn, n_pairs = (size_t)c->n * c->n_used;
    const float *bias = rig_normals(r, 2 * n_bias, 1);
    rig_output *act = fused_act(r, c->form, n_pairs, c->ffn),
               *pairs = rig_out(r, NULL, 4 * n_pairs);
    const expert_glu_consts consts = {
        .k = c->cols,
        .ffn = c->ffn,
        .n_experts = e,
        .slots = slots,
        .paged = c->slots > 0,
        .used = c->n_used,
        .normalise = c->normalise,
        .weight_scale = scale,
        .rows = s.rows,
        .split = s.split,
        .ahead = s.ahead,
        .wg = s.wg,
        .team = s.team,
        .turns = s.turns,
        .shared = fused_is_shared(r, &s),
        .eps = FUSED_EPS,
        .bias = c->bias,
        .act = c->act,
        .alpha = RIG_ALPHA,
        .limit = RIG_LIMIT,
    };
    rig_call(r, &expert_glu_source,
             (const gpu_fragment *[]){ c->format->part, c->q8 ? &input_q8_part : &input_f32_part,
                                       fused_acts[c->form], reduce->part },
             &consts,
             (gpu_call){
                 .bind = { [0] = m.range,
                           [INPUT_F32_X] = in.range,
                           [EXPERT_GLU_ROUTER] = rig_in(r, logits, (size_t)c->n * e * 4),
                           [EXPERT_GLU_PLACE] = rig_in(r, place, e * 4),
                           [EXPERT_GLU_PAIRS] = pairs->range,
                           [EXPERT_GLU_SQUARES] = norm,
                           [EXPERT_GLU_BIAS] = rig_in(r, bias, c->bias ? 2 * n_bias * 4 : 4),
                           [ACT_F32_ACT] = act->range },
                 .groups = { { .times = ceil_div(2 * c->ffn, fused_group_rows(&s)) },
                             { .times = (uint32_t)n_pairs } },
             });
    uint32_t *experts = rig_alloc(r, e, sizeof *experts);
    double *shares = rig_alloc(r, e, sizeof *shares);
    const bool ran = rig_run(r);
    for (uint32_t pair = 0; ran && pair < n_pairs; pair++) {
        const uint32_t t = pair / c->n_used, k = pair % c->n_used;
        const rig_choice how = { .logits = rig_doubles(r, logits + t * e, e),
                                 .n_experts = e,
                                 .n_used = c->n_used,
                                 .normalise = c->normalise,
                                 .scale = scale,
                                 .lanes = s.wg,
                                 .team = s.team };
        ref_route(experts, shares, how.logits, e, c->n_used, c->normalise, (double)scale);
        rig_bits(r, pairs->after[4 * pair], experts[k]);
        rig_bits(r, pairs->after[4 * pair + 1], place[experts[k]]);
        rig_expect(r, rig_float(pairs, 4 * pair + 2), shares[k],
                   rig_choice_bound(&how, experts, k, shares[k]));
        rig_bits(r, pairs->after[4 * pair + 3], 0);
        if (place[experts[k]] == UINT32_MAX) {
            const size_t words = act->n / n_pairs;
            rig_kept(r, act, pair * words, words);
            continue;
        }
        const uint32_t first = place[experts[k]] * c->ffn, b = experts[k] * c->ffn;
        const fused_ffn f = { .act = c->act,
                              .ffn = c->ffn,
                              .gate = first,
                              .up = slots * c->ffn + first,
                              .gate_bias = c->bias ? bias + b : NULL,
                              .up_bias = c->bias ? bias + n_bias + b : NULL };
        const approx factor = fused_norm_scale(squares + t * halves, c->cols, s.team);
        fused_expect_hidden(r, c->form, &f, &s, &m, &in, t, factor, act, pair);
    }
    rig_end(r);
}

void check_expert_glu(rig *r) {
    const rig_format *f32 = fused_format(DTYPE_F32), *q4_0 = fused_format(DTYPE_Q4_0);
    const rig_format *q4_k = fused_format(DTYPE_Q4_K), *mxfp4 = fused_format(DTYPE_MXFP4);
    const experts_case cases[] = {
        { f32, 96, 96, 3, 2, 1, RIG_SILU, false, FORM_F32, true, false, "a step",
          .shape = { .rows = 2, .ahead = 2 }, .group = 32 },
        { q4_k, 1280, 96, 8, 2, 1, RIG_SILU, true, FORM_Q8, true, false, "Mixtral",
          .shape = { .rows = 2, .split = 2 }, .group = 64 },
        { mxfp4, 96, 96, 32, 4, 3, RIG_CLAMPED, true, FORM_F32, true, true,
          "GPT-OSS, some rows of a pass", .shape = { .rows = 4 }, .group = 64 },
        { q4_0, 96, 64, 130, 8, 5, RIG_SILU, true, FORM_Q8, false, false,
          "more experts than lanes, weights that do not add up to 1",
          .shape = { .rows = 2, .team = 1 }, .group = 128 },
        { q4_0, 96, 96, 4, 4, 2, RIG_GELU, true, FORM_Q8, true, true,
          "all experts, four turns, the last over the end", .shape = { .rows = 2, .turns = 4 },
          .group = 128 },
        { q4_0, 96, 96, 4, 1, 2, RIG_SILU, true, FORM_Q8, true, false,
          "a lane to two rows, as on a processor", .shape = { .rows = 2, .team = 1 },
          .group = 128 },
        { q4_0, 96, 64, 16, 4, 5, RIG_SILU, true, FORM_Q8, true, true, "half of them are there",
          .shape = { .rows = 2 }, .group = 64, .slots = 8 },
    };
    rig_reduce reduces[2];
    const uint32_t n = rig_reduces(r, reduces);
    for (size_t i = 0; i < n * ARRAY_LEN(cases); i++) {
        const experts_case *c = &cases[i / n];
        if (fused_is_run(&c->shape, i % n, i / n % n)) expert_glu_row(r, c, &reduces[i % n]);
    }
}

/* ---- expert_add ---------------------------------------------------------------------------- */

typedef struct {
    const rig_format *format;
    uint32_t cols, dim, n_experts, n_used, n;
    bool q8;
    act_form form;
    bool next, bias;
    float scale; /* 0: 1 */
    const char *reason;
    team_shape shape;
    uint32_t group;
    uint32_t slots; /* not 0: paged */
} expert_add_case;

/* A row and one of its experts, as expert_glu leaves them. */
typedef struct {
    uint32_t expert, slot;
    float counts;
    uint32_t zero;
} pair_words;

/* The sum of the pairs' products, each times its weight, in the order of the kernel: a lane adds
 * the pairs' parts up before lanes do, so an addition for each pair errs by U of what is there. */
static approx sum_of_pairs(const expert_add_case *c, const team_shape *s, const fused_weights *m,
                           const fused_input *in, uint32_t t, uint32_t row,
                           const pair_words *pairs) {
    approx sum = { 0, 0 };
    double size = 0;
    for (uint32_t pair = t * c->n_used; pair < (t + 1) * c->n_used; pair++) {
        if (pairs[pair].slot == UINT32_MAX) continue;
        const double counts = (double)pairs[pair].counts;
        const uint32_t w = pairs[pair].slot * c->dim + row;
        const approx p = approx_mul(fused_product(s, m, w, in, pair), approx_of(counts));
        sum.v += p.v;
        sum.error += p.error;
        for (uint32_t i = 0; i < c->cols; i++) {
            size += fabs((double)m->decoded[(size_t)w * c->cols + i] *
                         in->x[(size_t)pair * c->cols + i] * counts);
        }
    }
    sum.error += (c->n_used + 1) * U * size; /* lanes' parts are at most this together */
    return sum;
}

static approx sum_of_biases(const expert_add_case *c, uint32_t t, uint32_t row,
                            const pair_words *pairs, const float *bias) {
    approx sum = { 0, 0 };
    for (uint32_t pair = t * c->n_used; pair < (t + 1) * c->n_used; pair++) {
        if (pairs[pair].slot == UINT32_MAX) continue;
        const approx b = approx_of((double)bias[pairs[pair].expert * c->dim + row]);
        sum = approx_add(sum, approx_mul(approx_of((double)pairs[pair].counts), b));
    }
    return sum;
}

static void expert_add_row(rig *r, const expert_add_case *c, const rig_reduce *reduce) {
    const team_shape s = fused_shape(r, reduce, &c->shape, c->group, 1);
    char kernel[96];
    snprintf(kernel, sizeof(kernel), "expert_add %s %s %s", c->q8 ? "bytes" : "floats",
             fused_acts[c->form]->name, reduce->part->name);
    if (!rig_begin(r, kernel, c->reason, "%s, K %u, dim %u, %u of %u experts, n %u%s%s%s%s",
                   c->format->name, c->cols, c->dim, c->n_used, c->n_experts, c->n,
                   c->next ? "" : ", the last", c->bias ? ", bias" : "",
                   c->scale == 0 ? "" : ", scaled", c->slots > 0 ? ", paged" : "")) {
        return;
    }
    const uint32_t dim = c->dim, n_pairs = c->n * c->n_used;
    const uint32_t slots = c->slots > 0 ? c->slots : c->n_experts;
    const uint32_t *place = some_places(r, c->n_experts, c->slots);
    const fused_weights m = fused_matrix(r, c->format, slots * dim, c->cols, false);
    const fused_input in =
        c->q8 ? fused_bytes(r, n_pairs, c->cols, 0, 0) : fused_floats(r, n_pairs, c->cols);
    const float *bias = rig_normals(r, (size_t)c->n_experts * dim, 1);
    const float *before = rig_normals(r, (size_t)c->n * dim, 1), *w = rig_normals(r, dim, 1);
    const uint32_t *experts = some_experts(r, c->n, c->n_used, c->n_experts);
    pair_words *pairs = rig_alloc(r, n_pairs, sizeof *pairs);
    for (uint32_t i = 0; i < n_pairs; i++) {
        pairs[i].expert = experts[i];
        pairs[i].slot = place[experts[i]];
        pairs[i].counts = (float)(rig_uniform(r) + 0.125);
    }
    rig_output *stream = rig_out(r, before, (size_t)c->n * dim);
    rig_output *squares = rig_out(r, NULL, c->next ? (size_t)c->n * dim / HALF_COLS : 4);
    rig_output *act = fused_act(r, c->form, c->next ? c->n : 1, c->next ? dim : UNIT_COLS);
    const gpu_range none = rig_in(r, (float[4]){ 0 }, 16);
    const expert_add_consts consts = {
        .k = c->cols,
        .dim = dim,
        .slots = slots,
        .paged = c->slots > 0,
        .used = c->n_used,
        .rows = s.rows,
        .split = s.split,
        .ahead = s.ahead,
        .wg = s.wg,
        .team = s.team,
        .turns = s.turns,
        .shared = fused_is_shared(r, &s),
        .bias = c->bias,
        .next = c->next,
        .scale = c->scale == 0 ? 1 : c->scale,
    };
    rig_call(r, &expert_add_source,
             (const gpu_fragment *[]){ c->format->part, c->q8 ? &input_q8_part : &input_f32_part,
                                       fused_acts[c->form], reduce->part },
             &consts,
             (gpu_call){
                 .bind = { [0] = m.range,
                           [INPUT_F32_X] = in.range,
                           [EXPERT_ADD_BIAS] =
                               c->bias ? rig_in(r, bias, (size_t)c->n_experts * dim * 4) : none,
                           [EXPERT_ADD_PAIRS] = rig_in(r, pairs, n_pairs * sizeof *pairs),
                           [EXPERT_ADD_STREAM] = stream->range,
                           [EXPERT_ADD_W] = c->next ? rig_in(r, w, dim * 4) : none,
                           [EXPERT_ADD_SQUARES] = squares->range,
                           [ACT_F32_ACT] = act->range },
                 .groups = { { .times = ceil_div(dim, fused_group_rows(&s)) }, { .times = c->n } },
             });
    if (rig_run(r)) {
        approx *x = rig_alloc(r, dim, sizeof *x);
        for (uint32_t t = 0; t < c->n; t++) {
            for (uint32_t i = 0; i < dim; i++) {
                x[i] = sum_of_pairs(c, &s, &m, &in, t, i, pairs);
                if (c->bias) x[i] = approx_add(x[i], sum_of_biases(c, t, i, pairs, bias));
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

void check_expert_add(rig *r) {
    const rig_format *f32 = fused_format(DTYPE_F32), *q4_0 = fused_format(DTYPE_Q4_0);
    const rig_format *q6_k = fused_format(DTYPE_Q6_K), *mxfp4 = fused_format(DTYPE_MXFP4);
    const expert_add_case cases[] = {
        { f32, 96, 96, 3, 2, 1, false, FORM_F32, true, false, 0, "a step, rows that leave lanes",
          .shape = { .rows = 2, .ahead = 2 }, .group = 64 },
        { q6_k, 1280, 96, 8, 2, 1, true, FORM_Q8, true, false, 0, "Mixtral, two teams to a row",
          .shape = { .rows = 4, .split = 2, .ahead = 4 }, .group = 16 },
        { mxfp4, 96, 160, 32, 4, 3, true, FORM_Q8, true, true, 0.22f,
          "GPT-OSS, some rows of a pass", .group = 32 },
        { q4_0, 96, 96, 128, 8, 5, true, FORM_F32, true, false, 0, "Qwen3-MoE",
          .shape = { .rows = 2 }, .group = 32 },
        { q6_k, 1280, 96, 4, 4, 2, true, FORM_Q8, true, true, 0,
          "all experts, four turns, the last over the end", .shape = { .ahead = 2, .turns = 4 },
          .group = 64 },
        { q4_0, 96, 96, 4, 2, 2, true, FORM_Q8, true, false, 0,
          "a lane to a row, as on a processor", .shape = { .team = 1 }, .group = 64 },
        { q4_0, 96, 96, 4, 1, 1, true, FORM_F32, false, true, 0,
          "nothing follows, eight rows to a workgroup", .shape = { .rows = 2 }, .group = 8 },
        { q4_0, 96, 96, 16, 4, 5, true, FORM_Q8, true, true, 0, "half of them are there",
          .shape = { .rows = 2 }, .group = 32, .slots = 8 },
    };
    rig_reduce reduces[2];
    const uint32_t n = rig_reduces(r, reduces);
    for (size_t i = 0; i < n * ARRAY_LEN(cases); i++) {
        const expert_add_case *c = &cases[i / n];
        if (fused_is_run(&c->shape, i % n, i / n % n)) expert_add_row(r, c, &reduces[i % n]);
    }
}
