/* pass: a whole Llama forward pass in double over one sequence.
 *
 * Which tensor is which comes from the engine's own config.c and weights.c, so that this checks
 * their mapping against other implementations without a GPU; the arithmetic shares nothing with the
 * kernels. All positions go through a layer at once, keys and values are simply kept. */
#include "model/model.h"
#include "ref/ref.h"

#include <math.h>

typedef struct {
    float *attn_norm, *ffn_norm, *q, *k, *v, *o, *gate, *up, *down;
    float *q_bias, *k_bias, *v_bias, *o_bias, *gate_bias, *up_bias, *down_bias;
} ref_layer;

struct ref_model {
    arena arena;
    container *files;
    config config;
    weights weights;
    float *embedding, *head, *output_norm;
    ref_layer *layers;
};

/* All elements of a tensor in f32; NULL for an absent one, or on failure with err set. */
static float *decode(ref_model *m, const tensor *t, dp_error *err) {
    if (t == NULL) return NULL;
    float *x = arena_new(&m->arena, t->n_elements, sizeof(float), "reference weights", err);
    void *bytes = mem_new(t->n_bytes, 1, "reference weights", err);
    if (x != NULL && bytes != NULL && container_read(m->files, t, 0, bytes, t->n_bytes, err) &&
        !quant_decode(t->type, bytes, x, t->n_elements)) {
        err_set(err, DP_E_UNSUPPORTED, "tensor %.*s: the reference cannot decode its type",
                STR_ARG(t->name));
    }
    mem_free(bytes);
    return x;
}

static bool load(ref_model *m, dp_error *err) {
    const weights *w = &m->weights;
    m->embedding = decode(m, w->embedding.source, err);
    m->output_norm = decode(m, w->output_norm.source, err);
    m->head = w->head.source == w->embedding.source ? m->embedding : decode(m, w->head.source, err);
    m->layers =
        arena_new(&m->arena, m->config.n_layers, sizeof(ref_layer), "reference layers", err);
    for (uint32_t i = 0; i < m->config.n_layers && err->status == DP_OK; i++) {
        const layer_weights *from = &w->layers[i];
        m->layers[i] = (ref_layer){
            .attn_norm = decode(m, from->attn_norm.source, err),
            .ffn_norm = decode(m, from->ffn_norm.source, err),
            .q = decode(m, from->q.source, err),
            .k = decode(m, from->k.source, err),
            .v = decode(m, from->v.source, err),
            .o = decode(m, from->o.source, err),
            .gate = decode(m, from->gate.source, err),
            .up = decode(m, from->up.source, err),
            .down = decode(m, from->down.source, err),
            .q_bias = decode(m, from->q_bias.source, err),
            .k_bias = decode(m, from->k_bias.source, err),
            .v_bias = decode(m, from->v_bias.source, err),
            .o_bias = decode(m, from->o_bias.source, err),
            .gate_bias = decode(m, from->gate_bias.source, err),
            .up_bias = decode(m, from->up_bias.source, err),
            .down_bias = decode(m, from->down_bias.source, err),
        };
    }
    return err->status == DP_OK;
}

/* A GGUF file need not say how many tokens there are: the embedding does. */
static bool has_vocabulary(ref_model *m, dp_error *err) {
    const tensor *table = container_find(m->files, "token_embd.weight");
    if (m->config.vocab_size == 0 && table != NULL && table->n_dims == 2 &&
        table->shape[0] <= VOCAB_MAX) {
        m->config.vocab_size = (uint32_t)table->shape[0];
    }
    return m->config.vocab_size > 0 || err_set(err, DP_E_FORMAT, "no vocabulary size");
}

ref_model *ref_model_open(const char *path, dp_error *err) {
    dp_error local = { 0 }; /* load looks at the status, so there must be one */
    if (err == NULL) err = &local;
    ref_model *m = mem_new(1, sizeof(*m), "a reference model", err);
    if (m == NULL) return NULL;
    m->files = container_open(path, false, err);
    if (m->files != NULL && config_read(&m->config, m->files, false, &m->arena, err) &&
        has_vocabulary(m, err) &&
        weights_plan(&m->weights, &m->config, m->files, UINT64_MAX / 4, UINT64_MAX / 4, &m->arena,
                     err) &&
        load(m, err)) {
        return m;
    }
    ref_model_close(m);
    return NULL;
}

void ref_model_close(ref_model *m) {
    if (m == NULL) return;
    container_close(m->files);
    arena_free(&m->arena);
    mem_free(m);
}

uint32_t ref_model_vocab(const ref_model *m) {
    return m->config.vocab_size;
}

/* What the positions of one sequence have at one place of the pass. */
typedef struct {
    size_t n;
    double *x, *xn, *q, *k, *v, *att, *gate, *up, *h, *y, *scores;
    double (*angles)[2]; /* [n, rope_dim / 2] */
} activations;

static bool allocate(activations *a, arena *memory, const config *c, size_t n, dp_error *err) {
    const size_t q_dim = (size_t)c->n_heads * c->head_dim,
                 kv_dim = (size_t)c->n_kv_heads * c->head_dim;
    const struct {
        double **to;
        size_t width;
    } all[] = {
        { &a->x, c->dim },      { &a->xn, c->dim },    { &a->y, c->dim },  { &a->q, q_dim },
        { &a->k, kv_dim },      { &a->v, kv_dim },     { &a->att, q_dim }, { &a->gate, c->ffn_dim },
        { &a->up, c->ffn_dim }, { &a->h, c->ffn_dim }, { &a->scores, 1 },
    };
    *a = (activations){ .n = n };
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        *all[i].to = arena_new(memory, n * all[i].width, sizeof(double), "a reference pass", err);
        if (*all[i].to == NULL) return false;
    }
    const size_t pairs = c->rope_dim / 2;
    a->angles = arena_new(memory, n * pairs, sizeof(*a->angles), "a reference pass", err);
    if (a->angles == NULL) return false;
    for (size_t i = 0; i < n * pairs; i++) {
        const double angle = (double)(i / pairs) * c->rope_frequency[i % pairs];
        a->angles[i][0] = cos(angle) * (double)c->rope_magnitude;
        a->angles[i][1] = sin(angle) * (double)c->rope_magnitude;
    }
    return true;
}

static void add(double *x, const double *y, size_t n) {
    for (size_t i = 0; i < n; i++)
        x[i] += y[i];
}

static void attention(activations *a, const config *c, const ref_layer *l) {
    const size_t n = a->n, hd = c->head_dim, q_dim = c->n_heads * hd, kv_dim = c->n_kv_heads * hd;
    ref_norm(a->xn, a->x, l->attn_norm, n, c->dim, (double)c->norm_eps);
    ref_matmul(a->q, l->q, l->q_bias, a->xn, n, q_dim, c->dim);
    ref_matmul(a->k, l->k, l->k_bias, a->xn, n, kv_dim, c->dim);
    ref_matmul(a->v, l->v, l->v_bias, a->xn, n, kv_dim, c->dim);
    for (size_t t = 0; t < n; t++) {
        const double(*angles)[2] = (const double(*)[2])a->angles + t * (c->rope_dim / 2);
        ref_rope(a->q + t * q_dim, angles, c->n_heads, hd, c->rope_dim, c->rope_interleaved);
        ref_rope(a->k + t * kv_dim, angles, c->n_kv_heads, hd, c->rope_dim, c->rope_interleaved);
    }
    for (size_t t = 0; t < n; t++) {
        for (size_t h = 0; h < c->n_heads; h++) {
            const size_t kv = h / (c->n_heads / c->n_kv_heads) * hd;
            const ref_keys keys = {
                a->k + kv, a->v + kv,           t + 1, ref_window(t, c->window), kv_dim,
                hd,        1 / sqrt((double)hd)
            };
            ref_attend(a->att + t * q_dim + h * hd, a->q + t * q_dim + h * hd, &keys, a->scores);
        }
    }
    ref_matmul(a->y, l->o, l->o_bias, a->att, n, c->dim, q_dim);
    add(a->x, a->y, n * c->dim);
}

static void feed_forward(activations *a, const config *c, const ref_layer *l) {
    ref_norm(a->xn, a->x, l->ffn_norm, a->n, c->dim, (double)c->norm_eps);
    ref_matmul(a->gate, l->gate, l->gate_bias, a->xn, a->n, c->ffn_dim, c->dim);
    ref_matmul(a->up, l->up, l->up_bias, a->xn, a->n, c->ffn_dim, c->dim);
    ref_glu(a->h, a->gate, a->up, a->n * c->ffn_dim);
    ref_matmul(a->y, l->down, l->down_bias, a->h, a->n, c->dim, c->ffn_dim);
    add(a->x, a->y, a->n * c->dim);
}

bool ref_forward(const ref_model *m, const uint32_t *tokens, size_t n, double *logits,
                 dp_error *err) {
    const config *c = &m->config;
    for (size_t t = 0; t < n; t++) {
        if (tokens[t] >= c->vocab_size) {
            return err_set(err, DP_E_ARGUMENT, "token %u is outside the vocabulary of %u",
                           tokens[t], c->vocab_size);
        }
    }
    arena memory = { 0 };
    activations a;
    const bool ok = allocate(&a, &memory, c, n, err);
    if (ok) {
        for (size_t i = 0; i < n * c->dim; i++) {
            a.x[i] = (double)m->embedding[tokens[i / c->dim] * (size_t)c->dim + i % c->dim];
        }
        for (uint32_t l = 0; l < c->n_layers; l++) {
            attention(&a, c, &m->layers[l]);
            feed_forward(&a, c, &m->layers[l]);
        }
        ref_norm(a.xn, a.x, m->output_norm, n, c->dim, (double)c->norm_eps);
        ref_matmul(logits, m->head, NULL, a.xn, n, c->vocab_size, c->dim);
    }
    arena_free(&memory);
    return ok;
}
