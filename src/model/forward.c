/* forward: the pass of a decoder-only transformer (Vaswani et al. 2017 as Touvron et al. 2023 have
 * it), one line per operation; what a family leaves out or adds is a switch of its description.
 *
 * Recorded once at load for each size of pass: one row, a few rows (decoding several sequences),
 * many rows (prefill). What differs from token to token lives in device buffers, so a recorded pass
 * is replayed as it is. Models whose experts are paged have the pass in stages: between two of them
 * the host looks at which experts were chosen (experts.c). Shapes of the buffers: model.h. */
#include "model/model.h"

/* What a block reads: the residual stream, through its norm if there is one in front. */
static gpu_range stream_in(recorder *r, const vector *norm, const vector *bias) {
    const buffers *b = &r->m->buffers;
    if (norm->source == NULL) {
        return b->x;
    }
    op_norm(r, b->xn, b->x, norm, bias);
    return b->xn;
}

/* What a block adds to the stream, W in + b: as it is, or through the norm behind it. */
static void stream_out(recorder *r, const weight *w, const vector *bias, gpu_range in,
                       const vector *norm) {
    const buffers *b = &r->m->buffers;
    const uint32_t dim = r->m->config.dim;
    if (norm->source == NULL) {
        const float scale = r->m->config.residual_scale;
        op_matmul(r, (target){ .y = b->x, .stride = dim, .add = true, .scale = scale }, w, bias,
                  in);
        return;
    }
    op_matmul(r, (target){ .y = b->y, .stride = dim }, w, bias, in);
    op_norm_add(r, b->x, b->y, norm);
}

static void record_attention(recorder *r, uint32_t layer) {
    const buffers *b = &r->m->buffers;
    const config *c = &r->m->config;
    const layer_weights *l = &r->m->weights.layers[layer];
    const uint32_t q_dim = c->n_heads * c->head_dim, kv_dim = c->n_kv_heads * c->head_dim;
    const uint32_t width = q_dim + 2 * kv_dim;

    const gpu_range in = stream_in(r, &l->attn_norm, &l->attn_norm_bias);
    op_watch(r, layer, SITE_ATTENTION_INPUT, in);
    op_matmul(r, (target){ .y = b->qkv, .stride = width }, &l->q, &l->q_bias, in);
    op_matmul(r, (target){ .y = b->qkv, .stride = width, .column = q_dim }, &l->k, &l->k_bias, in);
    op_matmul(r, (target){ .y = b->qkv, .stride = width, .column = q_dim + kv_dim }, &l->v,
              &l->v_bias, in);
    if (l->q_norm.source != NULL) {
        op_qk_norm(r, &l->q_norm, &l->k_norm);
    }
    op_rope(r, layer); /* and keys and values into the cache */
    op_attend(r, layer);
    op_watch(r, layer, SITE_ATTENTION, b->att);
    stream_out(r, &l->o, &l->o_bias, b->att, &l->post_attn_norm);
}

static void record_ffn(recorder *r, uint32_t layer) {
    const buffers *b = &r->m->buffers;
    const config *c = &r->m->config;
    const layer_weights *l = &r->m->weights.layers[layer];
    const bool gated = l->gate.n_pieces > 0;
    const uint32_t ffn = c->ffn_dim, width = gated ? 2 * ffn : ffn;

    const gpu_range in = stream_in(r, &l->ffn_norm, &l->ffn_norm_bias);
    op_watch(r, layer, SITE_FFN_INPUT, in);
    if (gated) {
        op_matmul(r, (target){ .y = b->gu, .stride = width }, &l->gate, &l->gate_bias, in);
    }
    op_matmul(r, (target){ .y = b->gu, .stride = width, .column = gated ? ffn : 0 }, &l->up,
              &l->up_bias, in);
    op_activate(r, b->h, b->gu, ffn, 1);
    op_watch(r, layer, SITE_FFN_HIDDEN, b->h);
    stream_out(r, &l->down, &l->down_bias, b->h, &l->post_ffn_norm);
}

/* What follows goes into another plan if experts are paged. */
static void next_stage(recorder *r) {
    if (model_pages_experts(r->m)) {
        r->stage++;
        r->plan = r->m->body[r->kind][r->stage];
    }
}

/* A feed-forward network of experts (Shazeer et al. 2017), of which each token takes a few. */
static void record_experts(recorder *r, uint32_t layer) {
    const buffers *b = &r->m->buffers;
    const config *c = &r->m->config;
    const layer_weights *l = &r->m->weights.layers[layer];
    const uint32_t ffn = c->expert_ffn_dim, width = 2 * ffn;

    const gpu_range in = stream_in(r, &l->ffn_norm, &l->ffn_norm_bias);
    op_watch(r, layer, SITE_FFN_INPUT, in);
    op_matmul(r, (target){ .y = b->router, .stride = c->n_experts }, &l->router, &l->router_bias,
              in);
    op_route(r);
    next_stage(r);
    op_expert_matmul(r, (target){ .y = b->gu, .stride = width }, &l->expert_gate,
                     &l->expert_gate_bias, in, true);
    op_expert_matmul(r, (target){ .y = b->gu, .stride = width, .column = ffn }, &l->expert_up,
                     &l->expert_up_bias, in, true);
    op_activate(r, b->h, b->gu, ffn, c->n_experts_used);
    op_expert_matmul(r, (target){ .y = b->expert_y, .stride = c->dim }, &l->expert_down,
                     &l->expert_down_bias, b->h, false);
    next_stage(r);
    op_watch(r, layer, SITE_FFN_HIDDEN, b->h); /* here: of paged experts all are there */
    op_expert_combine(r, b->x, b->expert_y, c->residual_scale);
}

static void record_body(recorder *r) {
    op_embed(r, r->m->buffers.x, &r->m->weights.embedding);
    for (uint32_t layer = 0; layer < r->m->config.n_layers; layer++) {
        record_attention(r, layer);
        (r->m->config.n_experts > 0 ? record_experts : record_ffn)(r, layer);
    }
}

/* What the head would read after every row: it is computed for those alone whose logits are wanted.
 */
static void watch_output(recorder *r) {
    const buffers *b = &r->m->buffers;
    const weights *w = &r->m->weights;
    if (r->m->shapes.calibrate) {
        op_norm(r, b->xn, b->x, &w->output_norm, &w->output_norm_bias);
        op_watch(r, 0, SITE_OUTPUT, b->xn);
    }
}

static void record_head(recorder *r) {
    const buffers *b = &r->m->buffers;
    const config *c = &r->m->config;
    const weights *w = &r->m->weights;

    op_norm_picked(r, b->out, b->x, &w->output_norm, &w->output_norm_bias);
    op_matmul(
        r,
        (target){
            .y = b->logits, .stride = c->vocab_size, .picked = true, .scale = c->logits_scale },
        &w->head, NULL, b->out);
    if (c->logits_softcap > 0) {
        op_softcap(r, b->logits);
    }
}

bool forward_record(dp_model *m, dp_error *err) {
    m->n_stages = model_pages_experts(m) ? 2 * m->config.n_layers + 1 : 1;
    for (pass_kind kind = PASS_ONE; kind < PASS_COUNT; kind++) {
        m->body[kind] = arena_new(&m->arena, m->n_stages, sizeof(gpu_plan *), "plans", err);
        m->head[kind] = gpu_plan_new(m->gpu, err);
        bool ok = m->body[kind] != NULL && m->head[kind] != NULL;
        for (uint32_t i = 0; i < m->n_stages && ok; i++) {
            m->body[kind][i] = gpu_plan_new(m->gpu, err);
            ok = m->body[kind][i] != NULL;
        }
        if (!ok) {
            return false;
        }
        recorder body = { .m = m, .kind = kind, .plan = m->body[kind][0], .err = err };
        record_body(&body);
        watch_output(&body);
        record_head(&(recorder){ .m = m, .kind = kind, .plan = m->head[kind], .err = err });
    }
    return true;
}
