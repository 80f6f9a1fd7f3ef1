/* ops: one function per operation of the pass; each appends one dispatch to a plan (a matrix over
 * the binding limit: one per part).
 *
 * Here and nowhere else a kernel meets its fragments, constants and buffers. The kernels' headers
 * are the contract: what they demand of sizes is asserted here. */
#include "model/model.h"

enum {
    GRID_MAX = 65535, /* workgroups in one dimension (WebGPU's limit) */
    NORM_LANES = 256,
    QK_NORM_LANES = 64,
    MATVEC_LARGE = 4096, /* rows from which a workgroup takes 8 instead of 4 */
    SELECT_LANES = 256,
    ROUTE_LANES = 128,
    MATMUL_ROWS = 64, /* a tile of matmul.wgsl */
    MATMUL_TOKENS = 32,
    TREE_TEAM = 16,     /* lanes to a matrix row without subgroups */
    SUBGROUP_TEAM = 32, /* at most, with them */
};

/* ---- choosing fragments -------------------------------------------------------------------- */

/* NULL for a type that weights_plan refuses. */
static const gpu_fragment *weight_fragment(dtype type) {
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

static const gpu_fragment *reduce_fragment(const gpu *g) {
    return gpu_info(g)->subgroups ? &reduce_subgroup_part : &reduce_tree_part;
}

/* Lanes that reduce together: within a subgroup where there are any, a power of two. */
static uint32_t team_lanes(const gpu *g) {
    const dp_device_info *info = gpu_info(g);
    return info->subgroups ? min_u32(info->subgroup_size, SUBGROUP_TEAM) : TREE_TEAM;
}

static const gpu_fragment *cache_fragment(const dp_model *m) {
    return m->shapes.f16 ? &kv_f16_part : &kv_f32_part;
}

/* Adds a call to the plan; a kernel that could not be had makes the plan fail. */
static void add_call(recorder *r, const gpu_source *source, const gpu_fragment *const *fragments,
                     const void *consts, gpu_call call) {
    call.kernel = gpu_kernel_get(r->m->gpu, source, fragments, consts, r->err);
    gpu_plan_add(r->plan, &call);
}

static gpu_range or_none(const dp_model *m, const vector *v) {
    return v != NULL && v->source != NULL ? v->range : m->buffers.none;
}

/* ---- the pass ------------------------------------------------------------------------------ */

void op_embed(recorder *r, gpu_range x, const weight *table) {
    const buffers *b = &r->m->buffers;
    for (uint32_t i = 0; i < table->n_parts; i++) {
        const weight_part *part = &table->parts[i];
        add_call(r, &embed_source, (const gpu_fragment *[]){ weight_fragment(table->type) },
                 &(embed_consts){ .k = table->cols,
                                  .vocab = table->rows,
                                  .scale = r->m->config.embedding_scale,
                                  .learned = r->m->weights.positions.source != NULL },
                 (gpu_call){
                     .bind = { [0] = part->range,
                               [EMBED_ROWS] = b->rows,
                               [EMBED_COUNTS] = b->counts,
                               [EMBED_POSITIONS] = or_none(r->m, &r->m->weights.positions),
                               [EMBED_X] = x },
                     .params = &(embed_params){ .first = part->first, .count = part->rows },
                     .groups = { { .size = SIZE_ROWS } },
                 });
    }
}

static void record_norm(recorder *r, gpu_range y, gpu_range x, const vector *w, const vector *bias,
                        bool add, bool pick) {
    assert(w->n % 4 == 0);
    const norm_consts consts = {
        .dim = w->n,
        .eps = r->m->config.norm_eps,
        .layer = r->m->config.family->layer_norm,
        .add = add,
        .pick = pick,
        .wg = NORM_LANES,
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

void op_qk_norm(recorder *r, const vector *wq, const vector *wk) {
    const config *c = &r->m->config;
    const bool whole = c->family->qk_norm == QK_NORM_WIDTH;
    const qk_norm_consts consts = {
        .n_heads = c->n_heads,
        .n_kv = c->n_kv_heads,
        .head_dim = c->head_dim,
        .eps = c->norm_eps,
        .whole = whole,
        .wg = whole ? NORM_LANES : QK_NORM_LANES,
        .team = team_lanes(r->m->gpu),
    };
    add_call(r, &qk_norm_source, (const gpu_fragment *[]){ reduce_fragment(r->m->gpu) }, &consts,
             (gpu_call){
                 .bind = { [QK_NORM_WQ] = wq->range,
                           [QK_NORM_WK] = wk->range,
                           [QK_NORM_QKV] = r->m->buffers.qkv },
                 .groups = { { .times = whole ? 2 : c->n_heads + c->n_kv_heads },
                             { .size = SIZE_ROWS } },
             });
}

/* A matrix product to record: of the rows of a pass, or of pairs of a row and an expert. */
typedef struct {
    target y;
    const weight *w;
    const vector *bias;
    gpu_range x;
    uint32_t x_per; /* pairs to a row of x */
} product;

static void record_matvec(recorder *r, const product *a, uint32_t part) {
    const dp_model *m = r->m;
    const weight_part *p = &a->w->parts[part];
    const bool experts = a->w->experts;
    const uint32_t rows = experts ? a->w->rows : p->rows;
    const uint32_t team = team_lanes(m->gpu);
    const uint32_t teams = rows >= MATVEC_LARGE ? 8 : 4;
    const uint32_t groups = ceil_div(rows, teams);
    const uint32_t grid_x = min_u32(groups, GRID_MAX);
    const matvec_consts consts = {
        .k = a->w->cols,
        .tokens = r->kind == PASS_ONE || experts ? 1 : DECODE_ROWS,
        .bias = a->bias != NULL && a->bias->source != NULL,
        .add = a->y.add,
        .scale = a->y.scale != 0 ? a->y.scale : 1,
        .experts = experts,
        .x_per = a->x_per,
        .wg = teams * team,
        .team = team,
    };
    const matvec_params params = {
        .rows = rows,
        .grid_x = grid_x,
        .stride = a->y.stride,
        .column = a->y.column + (experts ? 0 : p->first),
        .bias_first = experts ? 0 : p->first,
        .counted = a->y.picked,
        .first_slot = experts ? p->first : 0,
        .slots = experts ? p->rows : 0,
    };
    const gpu_extent pairs = { .times = m->config.n_experts_used, .size = SIZE_ROWS };
    add_call(r, &matvec_source,
             (const gpu_fragment *[]){ weight_fragment(a->w->type), reduce_fragment(m->gpu) },
             &consts,
             (gpu_call){
                 .bind = { [0] = p->range,
                           [MATVEC_X] = a->x,
                           [MATVEC_BIAS] = or_none(m, a->bias),
                           [MATVEC_SIZES] = m->buffers.sizes,
                           [MATVEC_Y] = a->y.y,
                           [MATVEC_CHOICE] = experts ? m->buffers.choice : m->buffers.none,
                           [MATVEC_PLACE] = experts ? m->buffers.expert_place : m->buffers.none },
                 .params = &params,
                 .groups = { { .times = grid_x },
                             { .times = ceil_div(groups, grid_x) },
                             experts ? pairs : (gpu_extent){ 0 } },
             });
}

static void record_matmul(recorder *r, const product *a, uint32_t part) {
    const dp_model *m = r->m;
    const weight_part *p = &a->w->parts[part];
    const bool experts = a->w->experts;
    const uint32_t rows = experts ? a->w->rows : p->rows;
    const matmul_consts consts = {
        .k = a->w->cols,
        .bias = a->bias != NULL && a->bias->source != NULL,
        .add = a->y.add,
        .scale = a->y.scale != 0 ? a->y.scale : 1,
        .experts = experts,
        .x_per = a->x_per,
    };
    const matmul_params params = {
        .rows = rows,
        .stride = a->y.stride,
        .column = a->y.column + (experts ? 0 : p->first),
        .bias_first = experts ? 0 : p->first,
        .counted = a->y.picked,
        .first_slot = experts ? p->first : 0,
        .slots = experts ? p->rows : 0,
    };
    const gpu_extent tokens = { .size = a->y.picked ? SIZE_OUT : SIZE_ROWS, .per = MATMUL_TOKENS };
    const gpu_range none = m->buffers.none;
    add_call(r, &matmul_source, (const gpu_fragment *[]){ weight_fragment(a->w->type) }, &consts,
             (gpu_call){
                 .bind = { [0] = p->range,
                           [MATMUL_X] = a->x,
                           [MATMUL_BIAS] = or_none(m, a->bias),
                           [MATMUL_SIZES] = m->buffers.sizes,
                           [MATMUL_Y] = a->y.y,
                           [MATMUL_ORDER] = experts ? m->buffers.order : none,
                           [MATMUL_EXPERT_TILES] = experts ? m->buffers.expert_tiles : none,
                           [MATMUL_PLACE] = experts ? m->buffers.expert_place : none },
                 .params = &params,
                 .groups = { { .times = ceil_div(rows, MATMUL_ROWS) },
                             experts ? (gpu_extent){ .size = SIZE_EXPERT_TILES } : tokens },
             });
}

static void record_product(recorder *r, const product *a) {
    assert(a->w->cols % 4 == 0 && a->y.column + a->w->rows <= a->y.stride);
    for (uint32_t i = 0; i < a->w->n_parts; i++) {
        (r->kind == PASS_MANY ? record_matmul : record_matvec)(r, a, i);
    }
}

void op_matmul(recorder *r, target y, const weight *w, const vector *bias, gpu_range x) {
    record_product(r, &(product){ .y = y, .w = w, .bias = bias, .x = x, .x_per = 1 });
}

void op_expert_matmul(recorder *r, target y, const weight *w, const vector *bias, gpu_range x,
                      bool x_by_row) {
    const uint32_t x_per = x_by_row ? r->m->config.n_experts_used : 1;
    record_product(r, &(product){ .y = y, .w = w, .bias = bias, .x = x, .x_per = x_per });
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
        .scale = c->route_scale,
        .wg = ROUTE_LANES,
        .team = team_lanes(r->m->gpu),
    };
    add_call(r, &route_source, (const gpu_fragment *[]){ reduce_fragment(r->m->gpu) }, &route,
             (gpu_call){
                 .bind = { [ROUTE_ROUTER] = b->router, [ROUTE_CHOICE] = b->choice },
                 .groups = { { .size = SIZE_ROWS } },
             });
    if (r->kind != PASS_MANY) {
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

void op_rope(recorder *r, uint32_t layer) {
    const config *c = &r->m->config;
    const buffers *b = &r->m->buffers;
    const shapes *s = &r->m->shapes;
    const rope_kind table = c->layer_rope[layer];
    const rope_consts consts = {
        .n_heads = c->n_heads,
        .n_kv = c->n_kv_heads,
        .head_dim = c->head_dim,
        .rope_dim = table == ROPE_NONE ? 0 : c->rope_dim,
        .page = KV_PAGE,
        .table = s->n_pages,
    };
    enum { LANES = 64 }; /* of rope.wgsl */
    add_call(r, &rope_source,
             (const gpu_fragment *[]){ s->f16 ? &kvout_f16_part : &kvout_f32_part }, &consts,
             (gpu_call){
                 .bind = { [0] = b->keys[layer],
                           [1] = b->values[layer],
                           [ROPE_QKV] = b->qkv,
                           [ROPE_ANGLES] = table == ROPE_NONE ? b->none : b->angles[table],
                           [ROPE_ROWS] = b->rows,
                           [ROPE_PAGES] = b->pages,
                           [ROPE_Q] = b->q },
                 .groups = { { .times = ceil_div((c->n_heads + 2 * c->n_kv_heads) * s->head_vec4,
                                                 LANES) },
                             { .size = SIZE_ROWS } },
             });
}

static void attend_rows(recorder *r, uint32_t layer) {
    const config *c = &r->m->config;
    const buffers *b = &r->m->buffers;
    const shapes *s = &r->m->shapes;
    const uint32_t group = c->n_heads / c->n_kv_heads;
    const attend_decode_consts consts = {
        .n_kv = c->n_kv_heads,
        .group = group,
        .heads = min_u32(group, 8),
        .d4 = s->head_vec4,
        .span = s->span,
        .splits = s->n_splits,
        .window = c->layer_window[layer],
        .scale = c->attention_scale,
        .softcap = c->attention_softcap,
        .page = KV_PAGE,
        .table = s->n_pages,
    };
    add_call(r, &attend_decode_source, (const gpu_fragment *[]){ cache_fragment(r->m) }, &consts,
             (gpu_call){
                 .bind = { [0] = b->keys[layer],
                           [1] = b->values[layer],
                           [ATTEND_DECODE_Q] = b->q,
                           [ATTEND_DECODE_ROWS] = b->rows,
                           [ATTEND_DECODE_PAGES] = b->pages,
                           [ATTEND_DECODE_O] = b->spans,
                           [ATTEND_DECODE_ML] = b->span_ml },
                 .groups = { { .times = c->n_kv_heads * ceil_div(group, consts.heads) },
                             { .size = SIZE_SPLITS },
                             { .size = SIZE_ROWS } },
             });
    const vector *sinks = &r->m->weights.layers[layer].sinks;
    const attend_combine_consts combine = {
        .n_heads = c->n_heads,
        .head_dim = c->head_dim,
        .span = s->span,
        .splits = s->n_splits,
        .sinks = sinks->source != NULL,
    };
    add_call(r, &attend_combine_source, NULL, &combine,
             (gpu_call){
                 .bind = { [ATTEND_COMBINE_O] = b->spans,
                           [ATTEND_COMBINE_ML] = b->span_ml,
                           [ATTEND_COMBINE_ROWS] = b->rows,
                           [ATTEND_COMBINE_SINKS] = or_none(r->m, sinks),
                           [ATTEND_COMBINE_Y] = b->att },
                 .groups = { { .times = c->n_heads }, { .size = SIZE_ROWS } },
             });
}

/* Queries and keys to a tile so that both fit 16 KiB of workgroup memory with vec4s of 16 bytes. */
static void prefill_tile(uint32_t head_vec4, uint32_t *bq, uint32_t *bk) {
    *bq = head_vec4 <= 16 ? 16 : head_vec4 <= 32 ? 8 : 4;
    *bk = head_vec4 <= 16 ? 32 : head_vec4 <= 48 ? 16 : 8; /* 4 by 8: half of the lanes idle */
}

uint32_t attend_tile_rows(uint32_t head_vec4) {
    uint32_t bq, bk;
    prefill_tile(head_vec4, &bq, &bk);
    return bq;
}

static void attend_tiles(recorder *r, uint32_t layer) {
    const config *c = &r->m->config;
    const buffers *b = &r->m->buffers;
    const shapes *s = &r->m->shapes;
    const vector *sinks = &r->m->weights.layers[layer].sinks;
    attend_prefill_consts consts = {
        .sinks = sinks->source != NULL,
        .n_kv = c->n_kv_heads,
        .group = c->n_heads / c->n_kv_heads,
        .head_dim = c->head_dim,
        .window = c->layer_window[layer],
        .scale = c->attention_scale,
        .softcap = c->attention_softcap,
        .page = KV_PAGE,
        .table = s->n_pages,
    };
    prefill_tile(s->head_vec4, &consts.bq, &consts.bk);
    add_call(r, &attend_prefill_source, (const gpu_fragment *[]){ cache_fragment(r->m) }, &consts,
             (gpu_call){
                 .bind = { [0] = b->keys[layer],
                           [1] = b->values[layer],
                           [ATTEND_PREFILL_Q] = b->q,
                           [ATTEND_PREFILL_TILES] = b->tiles,
                           [ATTEND_PREFILL_PAGES] = b->pages,
                           [ATTEND_PREFILL_SINKS] = or_none(r->m, sinks),
                           [ATTEND_PREFILL_Y] = b->att },
                 .groups = { { .times = c->n_heads }, { .size = SIZE_TILES } },
             });
}

void op_attend(recorder *r, uint32_t layer) {
    (r->kind == PASS_MANY ? attend_tiles : attend_rows)(r, layer);
}

void op_activate(recorder *r, gpu_range h, gpu_range gu, uint32_t n, uint32_t times) {
    const config *c = &r->m->config;
    const glu_consts consts = {
        .n4 = n / 4,
        .act = c->activation,
        .ungated = c->family->ungated,
        .alpha = c->act_alpha,
        .limit = c->act_limit,
    };
    enum { LANES = 64 }; /* of glu.wgsl */
    assert(n % 4 == 0);
    add_call(r, &glu_source, NULL, &consts,
             (gpu_call){
                 .bind = { [GLU_GU] = gu, [GLU_H] = h },
                 .groups = { { .times = ceil_div(n / 4, LANES) },
                             { .times = times, .size = SIZE_ROWS } },
             });
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

/* ---- the sampler --------------------------------------------------------------------------- */

void op_sample_scan(recorder *r) {
    const buffers *b = &r->m->buffers;
    add_call(r, &sample_scan_source, (const gpu_fragment *[]){ &sampler_state_part },
             &(sample_scan_consts){ .vocab = r->m->config.vocab_size, .chunk = SAMPLE_CHUNK },
             (gpu_call){
                 .bind = { [0] = b->samplers,
                           [SAMPLE_SCAN_LOGITS] = b->logits,
                           [SAMPLE_SCAN_ROWS] = b->rows,
                           [SAMPLE_SCAN_PICK] = b->pick,
                           [SAMPLE_SCAN_COUNTS] = b->counts,
                           [SAMPLE_SCAN_Z] = b->z,
                           [SAMPLE_SCAN_BEST] = b->best },
                 .groups = { { .times = r->m->shapes.n_chunks }, { .size = SIZE_OUT } },
             });
}

void op_sample_select(recorder *r) {
    const buffers *b = &r->m->buffers;
    const sample_select_consts consts = {
        .vocab = r->m->config.vocab_size,
        .chunks = r->m->shapes.n_chunks,
        .wg = SELECT_LANES,
        .team = team_lanes(r->m->gpu),
    };
    add_call(r, &sample_select_source,
             (const gpu_fragment *[]){ &sampler_state_part, reduce_fragment(r->m->gpu) }, &consts,
             (gpu_call){
                 .bind = { [0] = b->samplers,
                           [SAMPLE_SELECT_Z] = b->z,
                           [SAMPLE_SELECT_BEST] = b->best,
                           [SAMPLE_SELECT_ROWS] = b->rows,
                           [SAMPLE_SELECT_PICK] = b->pick },
                 .groups = { { 0 }, { .size = SIZE_OUT } },
             });
}

void op_sample_draw(recorder *r) {
    const buffers *b = &r->m->buffers;
    add_call(r, &sample_draw_source, (const gpu_fragment *[]){ &sampler_state_part },
             &(sample_draw_consts){ .vocab = r->m->config.vocab_size, .chunk = SAMPLE_CHUNK },
             (gpu_call){
                 .bind = { [0] = b->samplers,
                           [SAMPLE_DRAW_Z] = b->z,
                           [SAMPLE_DRAW_ROWS] = b->rows,
                           [SAMPLE_DRAW_PICK] = b->pick,
                           [SAMPLE_DRAW_BEST] = b->best },
                 .groups = { { .times = r->m->shapes.n_chunks }, { .size = SIZE_OUT } },
             });
}

void op_sample_finish(recorder *r) {
    const buffers *b = &r->m->buffers;
    const sample_finish_consts consts = {
        .vocab = r->m->config.vocab_size,
        .chunks = r->m->shapes.n_chunks,
    };
    add_call(r, &sample_finish_source, (const gpu_fragment *[]){ &sampler_state_part }, &consts,
             (gpu_call){
                 .bind = { [0] = b->samplers,
                           [SAMPLE_FINISH_BEST] = b->best,
                           [SAMPLE_FINISH_PICK] = b->pick,
                           [SAMPLE_FINISH_STOPS] = b->stops,
                           [SAMPLE_FINISH_SIZES] = b->sizes,
                           [SAMPLE_FINISH_ROWS] = b->rows,
                           [SAMPLE_FINISH_COUNTS] = b->counts,
                           [SAMPLE_FINISH_ANSWER] = b->answer },
                 .groups = { { 0 }, { .size = SIZE_OUT } },
             });
}

void op_logprobs(recorder *r) {
    const buffers *b = &r->m->buffers;
    const logprobs_consts consts = {
        .vocab = r->m->config.vocab_size,
        .wg = SELECT_LANES,
        .team = team_lanes(r->m->gpu),
    };
    add_call(r, &logprobs_source, (const gpu_fragment *[]){ reduce_fragment(r->m->gpu) }, &consts,
             (gpu_call){
                 .bind = { [LOGPROBS_LOGITS] = b->logits,
                           [LOGPROBS_ANSWER] = b->answer,
                           [LOGPROBS_SIZES] = b->sizes,
                           [LOGPROBS_PROBS] = b->probs },
                 .groups = { { 0 }, { .size = SIZE_OUT } },
             });
}
