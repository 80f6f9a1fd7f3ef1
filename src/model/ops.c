/* ops: one function per operation of the pass; each appends one dispatch to a plan (a matrix over
 * the binding limit: one per part).
 *
 * Here and in its neighbours, and nowhere else, a kernel meets its fragments, constants and
 * buffers: ops_matmul.c has the matrix products, ops_attend.c attention, ops_sample.c the sampler.
 * The kernels' headers are the contract: what they demand of sizes is asserted here. */
#include "model/ops_internal.h"

#include <stdio.h>

enum {
    ROUTE_LANES = 128,
    TREE_TEAM = 16,     /* lanes to a matrix row without subgroups */
    SUBGROUP_TEAM = 32, /* at most, with them */
};

/* ---- choosing fragments -------------------------------------------------------------------- */

const gpu_fragment *weight_fragment(dtype type) {
    switch (type) {
    case DTYPE_F32:
        return &weight_f32_part;
    case DTYPE_F16:
        return &weight_f16_part;
    case DTYPE_BF16:
        return &weight_bf16_part;
    case DTYPE_Q4_0:
        return &weight_q4_0_part;
    case DTYPE_Q4_1:
        return &weight_q4_1_part;
    case DTYPE_Q5_0:
        return &weight_q5_0_part;
    case DTYPE_Q5_1:
        return &weight_q5_1_part;
    case DTYPE_Q8_0:
        return &weight_q8_0_part;
    case DTYPE_Q4_K:
        return &weight_q4_k_part;
    case DTYPE_Q5_K:
        return &weight_q5_k_part;
    case DTYPE_Q6_K:
        return &weight_q6_k_part;
    case DTYPE_Q2_K:
        return &weight_q2_k_part;
    case DTYPE_Q3_K:
        return &weight_q3_k_part;
    case DTYPE_IQ4_NL:
        return &weight_iq4_nl_part;
    case DTYPE_IQ4_XS:
        return &weight_iq4_xs_part;
    case DTYPE_MXFP4:
        return &weight_mxfp4_part;
    default:
        return NULL;
    }
}

bool weight_type_is_usable(dtype type) {
    return weight_fragment(type) != NULL;
}

const gpu_fragment *reduce_fragment(const gpu *g) {
    return gpu_info(g)->subgroups ? &reduce_subgroup_part : &reduce_tree_part;
}

bool is_software(const gpu *g) {
    return strcmp(gpu_info(g)->type, "cpu") == 0;
}

uint32_t team_lanes(const gpu *g) {
    const dp_device_info *info = gpu_info(g);
    return info->subgroups ? min_u32(info->subgroup_size, SUBGROUP_TEAM) : TREE_TEAM;
}

void add_call(recorder *r, const gpu_source *source, const gpu_fragment *const *fragments,
              const void *consts, gpu_call call) {
    if (r->tuner != NULL && !r->tuner->takes) {
        return;
    }
    call.label = r->role;
    forget_bytes(r, source, fragments, &call);
    if (gpu_profiles(r->m->gpu)) call.cost = cost_of_call(r, source, fragments, &call);
    call.kernel = gpu_kernel_get(r->m->gpu, source, fragments, consts, r->err);
    gpu_plan_add(r->plan, &call);
}

gpu_range or_none(const dp_model *m, const vector *v) {
    return v != NULL && v->source != NULL ? v->range : m->buffers.none;
}

/* ---- choosing shapes ----------------------------------------------------------------------- */

void tuned_offer(tuned_question *q, const tuned_shape *shape) {
    for (uint32_t i = 0; i < q->n; i++) {
        if (strcmp(q->shapes[i].name, shape->name) == 0) {
            return;
        }
    }
    uint32_t at = q->n;
    while (at > 0 && q->shapes[at - 1].cost > shape->cost) {
        at--;
    }
    if (at == TUNED_SHAPES) {
        return;
    }
    q->n = min_u32(q->n + 1, TUNED_SHAPES);
    memmove(&q->shapes[at + 1], &q->shapes[at], (q->n - 1 - at) * sizeof *shape);
    q->shapes[at] = *shape;
}

static tuned_entry *find_entry(const tuned_table *t, const char *key) {
    for (size_t i = 0; i < t->n; i++) {
        if (strcmp(t->list[i].key, key) == 0) {
            return &t->list[i];
        }
    }
    return NULL;
}

const char *tuned_find(const tuned_table *t, const char *key) {
    const tuned_entry *e = find_entry(t, key);
    return e != NULL ? e->shape : NULL;
}

uint32_t tuned_in_use(const tuned_table *t) {
    uint32_t n = 0;
    for (size_t i = 0; i < t->n; i++) {
        n += t->list[i].is_used;
    }
    return n;
}

const tuned_shape *tuned_choice(recorder *r, const tuned_question *q) {
    assert(q->n > 0);
    if (r->tuner != NULL) {
        return r->tuner->choose(r, q);
    }
    tuned_entry *e = find_entry(&r->m->tuned, q->key);
    for (uint32_t i = 0; e != NULL && i < q->n; i++) {
        if (strcmp(q->shapes[i].name, e->shape) == 0) {
            e->is_used = true;
            return &q->shapes[i];
        }
    }
    return &q->shapes[0];
}

void tuned_end(recorder *r) {
    if (r->tuner != NULL) {
        r->tuner->takes = false;
    }
}

uint32_t tuned_lanes(recorder *r, const char *name, uint32_t cols,
                     const uint32_t lanes[TUNED_LANES]) {
    const uint32_t most = gpu_info(r->m->gpu)->max_workgroup_lanes;
    const uint32_t rows = most_rows(r);
    if (!pass_is_prefill(r->kind)) {
        return lanes[0];
    }
    tuned_question q = { .rows = rows, .cols = cols };
    snprintf(q.key, sizeof q.key, "%s %u %u", name, cols, rows);
    for (uint32_t i = 0; i < TUNED_LANES; i++) {
        tuned_shape shape = { .which = lanes[i], .cost = i };
        snprintf(shape.name, sizeof shape.name, "lanes %u", lanes[i]);
        if (lanes[i] <= most) {
            tuned_offer(&q, &shape);
        }
    }
    return tuned_choice(r, &q)->which;
}

/* ---- the pass ------------------------------------------------------------------------------ */

void op_embed(recorder *r, gpu_range x, const weight *table, const block_input *next) {
    enum { LANES_MOST = 128 };
    const buffers *b = &r->m->buffers;
    const embed_consts consts = {
        .k = table->cols,
        .vocab = table->rows,
        .scale = r->m->config.embedding_scale,
        .learned = r->m->weights.positions.source != NULL,
        .next = next != NULL,
        .weighted = next != NULL && next->norm->source != NULL,
        .wg = min_u32(max_u32(power_above(ceil_div(table->cols, 32)), 32), LANES_MOST),
    };
    for (uint32_t i = 0; i < table->n_parts; i++) {
        const weight_part *part = &table->parts[i];
        add_call(r, &embed_source,
                 (const gpu_fragment *[]){ weight_fragment(table->type),
                                           act_fragment(next != NULL && next->q8) },
                 &consts,
                 (gpu_call){
                     .bind = { [0] = part->range,
                               [EMBED_ROWS] = b->rows,
                               [EMBED_COUNTS] = b->counts,
                               [EMBED_POSITIONS] = or_none(r->m, &r->m->weights.positions),
                               [EMBED_X] = x,
                               [EMBED_W] = consts.weighted ? next->norm->range : b->none,
                               [EMBED_SQUARES] = next != NULL ? next->squares : b->squares,
                               /* not written unless something follows; spans are no activations,
                                * whose bytes count */
                               [ACT_F32_ACT] = next != NULL ? next->act : b->spans },
                     .params = &(embed_params){ .first = part->first, .count = part->rows },
                     .groups = { { .size = SIZE_ROWS } },
                 });
    }
}

static void record_norm(recorder *r, gpu_range y, gpu_range x, const vector *w, const vector *bias,
                        bool add, bool pick) {
    static const uint32_t lanes[TUNED_LANES] = { NORM_LANES, NORM_LANES / 2, NORM_LANES / 4 };
    assert(w->n % 4 == 0);
    const norm_consts consts = {
        .dim = w->n,
        .eps = r->m->config.norm_eps,
        .layer = r->m->config.family->layer_norm,
        .add = add,
        .pick = pick,
        .wg = tuned_lanes(r, add ? "norm add" : "norm", w->n, lanes),
        .team = team_lanes(r->m->gpu),
    };
    add_call(r, &norm_source, (const gpu_fragment *[]){ reduce_fragment(r->m->gpu) }, &consts,
             (gpu_call){
                 .bind = { [NORM_X] = x,
                           [NORM_W] = w->range,
                           [NORM_B] = or_none(r->m, bias),
                           [NORM_PICK] = r->m->buffers.pick,
                           [NORM_Y] = y },
                 .groups = { { .size = pick ? SIZE_OUT : SIZE_ROWS } },
             });
    tuned_end(r);
}

void op_norm(recorder *r, gpu_range y, gpu_range x, const vector *w, const vector *bias) {
    record_norm(r, y, x, w, bias, false, false);
}

void op_norm_add(recorder *r, gpu_range y, gpu_range x, const vector *w) {
    record_norm(r, y, x, w, NULL, true, false);
}

void op_norm_picked(recorder *r, gpu_range y, gpu_range x, const vector *w, const vector *bias) {
    record_norm(r, y, x, w, bias, false, true);
}

/* Entries of buffers.expert_tiles for so many rows: a last one for each expert. */
uint32_t expert_tiles_of(const config *c, uint32_t rows) {
    const uint32_t pairs = rows * c->n_experts_used;
    return ceil_div(pairs, MATMUL_TOKENS) + min_u32(c->n_experts, pairs);
}

void op_route(recorder *r) {
    const config *c = &r->m->config;
    const buffers *b = &r->m->buffers;
    const route_consts route = {
        .n_experts = c->n_experts,
        .used = c->n_experts_used,
        .normalise = c->normalise_route,
        .weight_scale = c->route_scale,
        .wg = ROUTE_LANES,
        .team = team_lanes(r->m->gpu),
    };
    add_call(r, &route_source, (const gpu_fragment *[]){ reduce_fragment(r->m->gpu) }, &route,
             (gpu_call){
                 .bind = { [ROUTE_ROUTER] = b->router, [ROUTE_CHOICE] = b->choice },
                 .groups = { { .size = SIZE_ROWS } },
             });
    if (!pass_is_prefill(r->kind)) {
        return;
    }
    const expert_group_consts group = { .n_experts = c->n_experts, .used = c->n_experts_used };
    add_call(r, &expert_group_source, NULL, &group,
             (gpu_call){
                 .bind = { [EXPERT_GROUP_CHOICE] = b->choice,
                           [EXPERT_GROUP_SIZES] = b->sizes,
                           [EXPERT_GROUP_ORDER] = b->order,
                           [EXPERT_GROUP_EXPERT_TILES] = b->expert_tiles },
                 .groups = { { .times = c->n_experts } },
             });
}

void op_expert_combine(recorder *r, gpu_range x, gpu_range y, float scale) {
    const config *c = &r->m->config;
    const expert_combine_consts consts = { .n4 = c->dim / 4,
                                           .used = c->n_experts_used,
                                           .scale = scale };
    enum { LANES = 64 }; /* of expert_combine.wgsl */
    add_call(r, &expert_combine_source, NULL, &consts,
             (gpu_call){
                 .bind = { [EXPERT_COMBINE_CHOICE] = r->m->buffers.choice,
                           [EXPERT_COMBINE_Y] = y,
                           [EXPERT_COMBINE_X] = x },
                 .groups = { { .times = ceil_div(c->dim / 4, LANES) }, { .size = SIZE_ROWS } },
             });
}

void op_activate(recorder *r, gpu_range h, gpu_range gu, uint32_t n, uint32_t times,
                 const weight *next) {
    static const uint32_t lanes[TUNED_LANES] = { 64, 128, 256 };
    const config *c = &r->m->config;
    assert(n % 4 == 0 && next->cols == n);
    if (record_activated(r, next, h, gu, times)) {
        return;
    }
    const glu_consts consts = {
        .k = n,
        .act = c->activation,
        .ungated = c->family->ungated,
        .alpha = c->act_alpha,
        .limit = c->act_limit,
        .wg = tuned_lanes(r, "glu", n, lanes),
    };
    add_call(r, &glu_source, NULL, &consts,
             (gpu_call){
                 .bind = { [GLU_X] = gu, [GLU_H] = h },
                 .groups = { { .times = ceil_div(n / 4, consts.wg) },
                             { .times = times, .size = SIZE_ROWS } },
             });
    tuned_end(r);
}

void op_softcap(recorder *r, gpu_range logits) {
    const config *c = &r->m->config;
    enum { LANES = 64 }; /* of softcap.wgsl */
    add_call(r, &softcap_source, NULL,
             &(softcap_consts){ .size = c->vocab_size, .cap = c->logits_softcap },
             (gpu_call){
                 .bind = { [SOFTCAP_Z] = logits },
                 .groups = { { .times = ceil_div(c->vocab_size, LANES) }, { .size = SIZE_OUT } },
             });
}

void op_watch(recorder *r, uint32_t layer, importance_site site, gpu_range x) {
    const config *c = &r->m->config;
    if (!r->m->shapes.calibrate) {
        return;
    }
    const watch_layout l = watch_layout_of(c);
    const uint32_t n = l.columns[site];
    const watch_consts consts = {
        .n4 = n / 4,
        .times = site == SITE_FFN_HIDDEN ? max_u32(c->n_experts_used, 1) : 1,
    };
    const watch_params params = { .first = (uint32_t)(watch_place(&l, layer, site) / 4) };
    enum { COLUMNS = 16 }; /* of watch.wgsl */
    assert(n % 4 == 0);
    add_call(r, &watch_source, NULL, &consts,
             (gpu_call){
                 .bind = { [WATCH_X] = x,
                           [WATCH_SIZES] = r->m->buffers.sizes,
                           [WATCH_S] = r->m->buffers.watched },
                 .params = &params,
                 .groups = { { .times = ceil_div(n / 4, COLUMNS) } },
             });
}
