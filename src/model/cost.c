/* cost: what a dispatch of the pass has to move and to compute, for profiles.
 *
 * A model, told from what the call binds and not from what the kernel does: weights once, in their
 * format; of a cache the keys that are seen, once a row, or once a pass of many rows; of
 * activations whole rows, once. Two operations to a weight and row, to a key's number and query
 * head. Tables and vectors besides (pages, angles, counts) are left out. */
#include "model/ops_internal.h"

enum { TERM_FIXED, TERM_ROWS, TERM_KEYS, TERM_SPANS };

static gpu_access access_of(const gpu_source *source, const gpu_fragment *const *fragments,
                            uint32_t binding) {
    for (uint32_t i = 0; i < source->n_bindings; i++) {
        if (source->bindings[i].binding == binding) return source->bindings[i].access;
    }
    for (uint32_t s = 0; s < source->n_slots; s++) {
        for (uint32_t i = 0; i < fragments[s]->n_bindings; i++) {
            const gpu_binding *b = &fragments[s]->bindings[i];
            if (b->binding == binding) return b->access;
        }
    }
    return GPU_ACCESS_UNIFORM;
}

static bool holds(gpu_range outer, gpu_range inner) {
    return outer.buffer == inner.buffer && inner.offset >= outer.offset &&
           inner.offset + inner.size <= outer.offset + outer.size;
}

/* A matrix with all or some of its rows, or experts, in the bound range. */
static void price_weight(gpu_cost *cost, const recorder *r, const weight *w, gpu_range bound) {
    const uint32_t used = r->m->config.n_experts_used, n_experts = r->m->config.n_experts;
    for (uint32_t i = 0; i < w->n_parts && w->n_pieces > 0; i++) {
        const weight_part *part = &w->parts[i];
        if (!holds(bound, part->range)) continue;
        const uint64_t flops = 2ull * w->rows * w->cols;
        cost->cols = w->cols;
        if (w->experts) { /* each row takes `used` of them, wherever they are */
            gpu_cost_term *t = &cost->terms[TERM_KEYS];
            t->size = SIZE_ROWS;
            t->most = max_u32(n_experts / used, 1);
            t->of = SIZE_ONE;
            t->bytes += part->range.size * used / n_experts;
            cost->terms[TERM_ROWS].flops += flops * used * part->rows / n_experts;
            cost->rows += w->rows;
        } else {
            cost->terms[TERM_FIXED].bytes += part->range.size;
            cost->terms[TERM_ROWS].flops += flops / w->rows * part->rows;
            cost->rows += part->rows;
        }
    }
}

static void price_layer(gpu_cost *cost, const recorder *r, const layer_weights *l,
                        gpu_range bound) {
    const weight *const list[] = { &l->q,           &l->k,         &l->v,          &l->o,
                                   &l->gate,        &l->up,        &l->down,       &l->router,
                                   &l->expert_gate, &l->expert_up, &l->expert_down };
    for (size_t i = 0; i < ARRAY_LEN(list); i++)
        price_weight(cost, r, list[i], bound);
}

/* Keys or values of a layer. */
static void price_cache(gpu_cost *cost, const recorder *r, uint32_t layer, bool written) {
    const config *c = &r->m->config;
    const shapes *s = &r->m->shapes;
    const uint64_t bytes = (uint64_t)c->n_kv_heads * ceil_div(c->head_dim, 8) * (s->f16 ? 16 : 32);
    if (written) {
        cost->terms[TERM_ROWS].bytes += bytes;
        return;
    }
    gpu_cost_term *keys = &cost->terms[TERM_KEYS], *spans = &cost->terms[TERM_SPANS];
    keys->size = SIZE_KEYS;
    keys->most = c->layer_window[layer];
    keys->of = SIZE_ROWS;
    keys->flops += 2ull * c->n_heads * c->head_dim;
    if (pass_is_prefill(r->kind)) {
        spans->size = SIZE_LONGEST;
        spans->bytes += bytes;
    } else {
        keys->bytes += bytes;
    }
}

/* Bytes to a row of an activation; 0 for what is none. */
static uint64_t activation_row(const dp_model *m, gpu_range bound, bool *picked) {
    const buffers *b = &m->buffers;
    const gpu_range rows[] = { b->x,   b->y,  b->xn, b->qkv,    b->q,
                               b->att, b->gu, b->h,  b->router, b->expert_y };
    const gpu_range outs[] = { b->out, b->logits, b->z };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (rows[i].buffer == bound.buffer) return rows[i].size / m->shapes.batch;
    }
    if (bound.buffer == b->expert_x.buffer) return 4ull * m->config.dim; /* of few rows only */
    for (size_t i = 0; i < ARRAY_LEN(outs); i++) {
        if (outs[i].buffer != bound.buffer) continue;
        *picked = true;
        return outs[i].size / m->shapes.n_out;
    }
    return 0;
}

gpu_cost cost_of_call(const recorder *r, const gpu_source *source,
                      const gpu_fragment *const *fragments, const gpu_call *call) {
    const dp_model *m = r->m;
    const uint32_t n_layers = m->config.n_layers;
    gpu_cost cost = { 0 };
    bool picked = false;
    for (uint32_t i = 0; i < GPU_BINDINGS; i++) {
        const gpu_range bound = call->bind[i];
        if (bound.buffer == NULL || bound.buffer == m->buffers.none.buffer) continue;
        if (source == &embed_source && i == 0) { /* single rows of it */
            const weight *w = &m->weights.embedding;
            cost.terms[TERM_ROWS].bytes += w->parts[0].range.size / max_u32(w->parts[0].rows, 1);
            continue;
        }
        cost.terms[TERM_ROWS].bytes += activation_row(m, bound, &picked);
        price_weight(&cost, r, &m->weights.head, bound);
        for (uint32_t layer = 0; layer < n_layers; layer++) {
            price_layer(&cost, r, &m->weights.layers[layer], bound);
            if (m->buffers.keys[layer].buffer == bound.buffer ||
                m->buffers.values[layer].buffer == bound.buffer) {
                price_cache(&cost, r, layer,
                            source == &rope_source &&
                                access_of(source, fragments, i) == GPU_ACCESS_WRITE);
            }
        }
    }
    cost.terms[TERM_ROWS].size = picked ? SIZE_OUT : SIZE_ROWS;
    return cost;
}
