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

    r->role = "attn qkv";
    const gpu_range in = stream_in(r, &l->attn_norm, &l->attn_norm_bias);
    op_watch(r, layer, SITE_ATTENTION_INPUT, in);
    op_matmul_beside(r, (target){ .y = b->qkv, .stride = width },
                     (const weight *[]){ &l->q, &l->k, &l->v },
                     (const vector *[]){ &l->q_bias, &l->k_bias, &l->v_bias }, 3, in);
    if (l->q_norm.source != NULL) {
        op_qk_norm(r, &l->q_norm, &l->k_norm);
    }
    r->role = "attn";
    op_rope(r, layer); /* and keys and values into the cache */
    op_attend(r, layer);
    op_watch(r, layer, SITE_ATTENTION, b->att);
    r->role = "attn out";
    stream_out(r, &l->o, &l->o_bias, b->att, &l->post_attn_norm);
}

static void record_ffn(recorder *r, uint32_t layer) {
    const buffers *b = &r->m->buffers;
    const config *c = &r->m->config;
    const layer_weights *l = &r->m->weights.layers[layer];
    const bool gated = l->gate.n_pieces > 0;
    const uint32_t ffn = c->ffn_dim, width = gated ? 2 * ffn : ffn;

    r->role = "ffn gate up";
    const gpu_range in = stream_in(r, &l->ffn_norm, &l->ffn_norm_bias);
    op_watch(r, layer, SITE_FFN_INPUT, in);
    const uint32_t first = gated ? 0 : 1;
    op_matmul_beside(r, (target){ .y = b->gu, .stride = width },
                     (const weight *[]){ &l->gate, &l->up } + first,
                     (const vector *[]){ &l->gate_bias, &l->up_bias } + first, 2 - first, in);
    op_activate(r, b->h, b->gu, ffn, 1, &l->down);
    op_watch(r, layer, SITE_FFN_HIDDEN, b->h);
    r->role = "ffn down";
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

    r->role = "route";
    const gpu_range in = stream_in(r, &l->ffn_norm, &l->ffn_norm_bias);
    op_watch(r, layer, SITE_FFN_INPUT, in);
    op_matmul(r, (target){ .y = b->router, .stride = c->n_experts }, &l->router, &l->router_bias,
              in);
    op_route(r);
    next_stage(r);
    r->role = "experts gate up";
    op_expert_matmul(r, (target){ .y = b->gu, .stride = width }, &l->expert_gate,
                     &l->expert_gate_bias, in, true);
    op_expert_matmul(r, (target){ .y = b->gu, .stride = width, .column = ffn }, &l->expert_up,
                     &l->expert_up_bias, in, true);
    op_activate(r, b->h, b->gu, ffn, c->n_experts_used, &l->expert_down);
    r->role = "experts down";
    op_expert_matmul(r, (target){ .y = b->expert_y, .stride = c->dim }, &l->expert_down,
                     &l->expert_down_bias, b->h, false);
    next_stage(r);
    op_watch(r, layer, SITE_FFN_HIDDEN, b->h); /* here: of paged experts all are there */
    op_expert_combine(r, b->x, b->expert_y, c->residual_scale);
}

/* ---- passes of few rows: the same in fewer dispatches -------------------------------------- */

/* Which block of the layer: its attention or its feed-forward network. */
static bool block_is_fused(const recorder *r, uint32_t layer, bool ffn) {
    return pass_is_fused(r) && (ffn ? ffn_is_fused : attention_is_fused)(r->m, layer);
}

static block_input block_reads(const dp_model *m, uint32_t layer, bool ffn) {
    return (ffn ? ffn_input : attention_input)(m, layer);
}

/* What the end of the block before makes for this one on the way; false if that is nothing, as the
 * block is not fused, has a LayerNorm in front, or is the head's. */
static bool next_input(const recorder *r, uint32_t layer, bool ffn, block_input *in) {
    const dp_model *m = r->m;
    if (layer == m->config.n_layers || m->config.family->layer_norm ||
        !block_is_fused(r, layer, ffn)) {
        return false;
    }
    *in = block_reads(m, layer, ffn);
    return true;
}

/* The input of a fused block, unless what went before has made it. */
static void ready(recorder *r, uint32_t layer, bool ffn) {
    const bool first = layer == 0 && !ffn; /* op_embed makes it */
    const bool follows = first || block_is_fused(r, ffn ? layer : layer - 1, !ffn);
    if (!follows || r->m->config.family->layer_norm) {
        op_ready(r, block_reads(r->m, layer, ffn));
    }
}

/* The end of a block: its product, the norm behind it if there is one, the stream, and what the
 * next block reads. */
static void fused_out(recorder *r, const weight *w, const vector *bias, gpu_range in,
                      const vector *norm, const block_input *next) {
    const buffers *b = &r->m->buffers;
    if (norm->source == NULL) {
        op_project_add(r, w, bias, in, next);
        return;
    }
    op_project(r, (target){ .y = b->y, .stride = r->m->config.dim }, w, bias, in);
    if (next != NULL) {
        op_norm_ready(r, b->y, norm, *next);
    } else {
        op_norm_add(r, b->x, b->y, norm);
    }
}

static void record_fused_attention(recorder *r, uint32_t layer) {
    const layer_weights *l = &r->m->weights.layers[layer];
    block_input next;
    const bool follows = next_input(r, layer, true, &next);

    r->role = "attn qkv";
    ready(r, layer, false);
    op_project_qkv(r, layer);
    if (l->q_norm.source != NULL) {
        op_qk_norm(r, &l->q_norm, &l->k_norm);
    }
    r->role = "attn";
    op_rope(r, layer);
    op_attend(r, layer);
    r->role = "attn out";
    fused_out(r, &l->o, &l->o_bias, r->m->buffers.att, &l->post_attn_norm, follows ? &next : NULL);
}

static void record_fused_ffn(recorder *r, uint32_t layer) {
    const layer_weights *l = &r->m->weights.layers[layer];
    block_input next;
    const bool follows = next_input(r, layer + 1, false, &next);

    r->role = "ffn gate up";
    ready(r, layer, true);
    op_project_glu(r, layer);
    r->role = "ffn down";
    fused_out(r, &l->down, &l->down_bias, r->m->buffers.h, &l->post_ffn_norm,
              follows ? &next : NULL);
}

static void record_fused_experts(recorder *r, uint32_t layer) {
    block_input next;
    const bool follows = next_input(r, layer + 1, false, &next);

    r->role = "route";
    ready(r, layer, true);
    op_router(r, layer);
    if (model_pages_experts(r->m)) {
        op_route(r); /* for the host */
    }
    next_stage(r);
    r->role = "experts gate up";
    op_expert_glu(r, layer);
    r->role = "experts down";
    op_expert_add(r, layer, follows ? &next : NULL);
    next_stage(r);
}

/* ---- the whole ----------------------------------------------------------------------------- */

static void record_layer(recorder *r, uint32_t layer) {
    const bool experts = r->m->config.n_experts > 0;
    (block_is_fused(r, layer, false) ? record_fused_attention : record_attention)(r, layer);
    if (block_is_fused(r, layer, true)) {
        (experts ? record_fused_experts : record_fused_ffn)(r, layer);
    } else {
        (experts ? record_experts : record_ffn)(r, layer);
    }
}

static void record_body(recorder *r) {
    block_input first;
    const bool follows = next_input(r, 0, false, &first);

    r->role = "embed";
    op_embed(r, r->m->buffers.x, &r->m->weights.embedding, follows ? &first : NULL);
    for (uint32_t layer = 0; layer < r->m->config.n_layers; layer++) {
        record_layer(r, layer);
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

    r->role = "head";
    const target logits = {
        .y = b->logits, .stride = c->vocab_size, .picked = true, .scale = c->logits_scale
    };
    if (pass_is_fused(r) && head_is_fused(r->m)) {
        op_project_head(r, logits);
    } else {
        op_norm_picked(r, b->out, b->x, &w->output_norm, &w->output_norm_bias);
        op_matmul(r, logits, &w->head, NULL, b->out);
    }
    if (c->logits_softcap > 0) {
        op_softcap(r, b->logits);
    }
}

void forward_record_part(dp_model *m, pass_kind kind, bool head, gpu_plan *plan, tuner *t,
                         dp_error *err) {
    assert(!model_pages_experts(m));
    recorder r = { .m = m, .kind = kind, .plan = plan, .tuner = t, .err = err };
    (head ? record_head : record_body)(&r);
}

bool forward_record(dp_model *m, dp_error *err) {
    m->n_stages = model_pages_experts(m) ? 2 * m->config.n_layers + 1 : 1;
    for (pass_kind kind = PASS_ONE; kind < m->shapes.n_kinds; kind++) {
        if (m->body[kind] == NULL) {
            m->body[kind] = arena_new(&m->arena, m->n_stages, sizeof(gpu_plan *), "plans", err);
        }
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
    m->info.n_tuned = tuned_in_use(&m->tuned);
    return true;
}
