/* forward: the pass of a Llama-family transformer (Touvron et al. 2023), one line per operation.
 *
 * Recorded once at load for each size of pass: one row, a few rows (decoding several sequences),
 * many rows (prefill). What differs from token to token lives in device buffers, so a recorded pass
 * is replayed as it is. Shapes of the buffers: model.h. */
#include "model/model.h"

static void record_attention(recorder *r, uint32_t layer) {
    const buffers *b = &r->m->buffers;
    const config *c = &r->m->config;
    const layer_weights *l = &r->m->weights.layers[layer];
    const uint32_t q_dim = c->n_heads * c->head_dim, kv_dim = c->n_kv_heads * c->head_dim;
    const uint32_t width = q_dim + 2 * kv_dim;

    op_norm(r, b->xn, b->x, &l->attn_norm);
    op_matmul(r, (target){ .y = b->qkv, .stride = width }, &l->q, &l->q_bias, b->xn);
    op_matmul(r, (target){ .y = b->qkv, .stride = width, .column = q_dim }, &l->k, &l->k_bias,
              b->xn);
    op_matmul(r, (target){ .y = b->qkv, .stride = width, .column = q_dim + kv_dim }, &l->v,
              &l->v_bias, b->xn);
    op_rope(r, layer); /* and keys and values into the cache */
    op_attend(r, layer, c->window);
    op_matmul(r, (target){ .y = b->x, .stride = c->dim, .add = true }, &l->o, &l->o_bias, b->att);
}

static void record_ffn(recorder *r, uint32_t layer) {
    const buffers *b = &r->m->buffers;
    const config *c = &r->m->config;
    const layer_weights *l = &r->m->weights.layers[layer];
    const uint32_t width = 2 * c->ffn_dim;

    op_norm(r, b->xn, b->x, &l->ffn_norm);
    op_matmul(r, (target){ .y = b->gu, .stride = width }, &l->gate, &l->gate_bias, b->xn);
    op_matmul(r, (target){ .y = b->gu, .stride = width, .column = c->ffn_dim }, &l->up,
              &l->up_bias, b->xn);
    op_glu(r, b->h, b->gu);
    op_matmul(r, (target){ .y = b->x, .stride = c->dim, .add = true }, &l->down, &l->down_bias,
              b->h);
}

static void record_body(recorder *r) {
    op_embed(r, r->m->buffers.x, &r->m->weights.embedding);
    for (uint32_t layer = 0; layer < r->m->config.n_layers; layer++) {
        record_attention(r, layer);
        record_ffn(r, layer);
    }
}

static void record_head(recorder *r) {
    const buffers *b = &r->m->buffers;
    const uint32_t vocab = r->m->config.vocab_size;

    op_norm_picked(r, b->out, b->x, &r->m->weights.output_norm);
    op_matmul(r, (target){ .y = b->logits, .stride = vocab, .picked = true }, &r->m->weights.head,
              NULL, b->out);
}

bool forward_record(dp_model *m, dp_error *err) {
    for (pass_kind kind = PASS_ONE; kind < PASS_COUNT; kind++) {
        recorder body = { .m = m, .kind = kind, .err = err };
        recorder head = body;
        body.plan = m->body[kind] = gpu_plan_new(m->gpu, err);
        head.plan = m->head[kind] = gpu_plan_new(m->gpu, err);
        if (body.plan == NULL || head.plan == NULL) {
            return false;
        }
        record_body(&body);
        record_head(&head);
    }
    return true;
}
