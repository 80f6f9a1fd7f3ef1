/* ops_attend: attention: norms of queries and keys, RoPE and the cache's write, and the attention
 * of single rows and of many. */
#include "model/ops_internal.h"

enum { QK_NORM_LANES = 64 };

static const gpu_fragment *cache_fragment(const dp_model *m) {
    return m->shapes.f16 ? &kv_f16_part : &kv_f32_part;
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
