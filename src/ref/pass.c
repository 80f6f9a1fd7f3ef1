/* pass: the whole forward pass of every family in double over one sequence, one line per operation.
 *
 * Which tensor is which, and which switches a family has, comes from the engine's own config.c,
 * family.c, rope.c, weights.c and weight_read.c, so that this checks their mapping against other
 * implementations without a GPU; the arithmetic shares nothing with the kernels. All positions go
 * through a layer at once, keys and values are simply kept. */
#include "model/model.h"
#include "ref/ref.h"

#include <math.h>

/* [rows, cols] and [rows]; of experts one after the other. */
typedef struct {
    float *w, *bias; /* NULL: absent */
    size_t rows, cols;
} matrix;

typedef struct {
    float *attn_norm, *attn_norm_bias, *post_attn_norm, *ffn_norm, *ffn_norm_bias, *post_ffn_norm;
    float *q_norm, *k_norm, *sinks;
    matrix q, k, v, o, gate, up, down;
    matrix router, expert_gate, expert_up, expert_down;
} ref_layer;

struct ref_model {
    arena arena;
    container *files;
    config config;
    weights weights;
    matrix embedding, head;
    float *positions, *output_norm, *output_norm_bias;
    ref_layer *layers;
};

/* ---- loading ------------------------------------------------------------------------------- */

/* NULL for an absent vector, or on failure with err set. */
static float *load_vector(ref_model *m, const vector *v, dp_error *err) {
    if (v->source == NULL || err->status != DP_OK) return NULL;
    float *x = arena_new(&m->arena, v->n, sizeof(float), "reference weights", err);
    return x != NULL && vector_read(m->files, v, 0, v->n, x, err) ? x : NULL;
}

static matrix load_matrix(ref_model *m, const weight *w, const vector *bias, dp_error *err) {
    matrix x = { .rows = w->rows, .cols = w->cols };
    uint64_t row_bytes = 0;
    if (w->n_pieces == 0 || err->status != DP_OK) return x;
    const bool sized = dtype_padded_row_bytes(w->type, w->cols, &row_bytes);
    assert(sized);
    const uint32_t rows = w->n_pieces * w->rows;
    const size_t n = (size_t)rows * w->cols;
    x.w = arena_new(&m->arena, n, sizeof(float), "reference weights", err);
    x.bias = bias != NULL ? load_vector(m, bias, err) : NULL;
    void *bytes = mem_new(rows, row_bytes, "reference weights", err);
    const uint32_t block = dtype_get(w->type)->block_elements;
    const uint32_t padded = ceil_div(w->cols, block) * block; /* columns, in whole blocks */
    float *row = mem_new(padded, sizeof *row, "reference weights", err);
    if (x.w != NULL && bytes != NULL && row != NULL &&
        weight_read(m->files, w, 0, rows, bytes, err)) {
        for (uint32_t i = 0; i < rows; i++) {
            if (!quant_decode(w->type, (const char *)bytes + i * row_bytes, row, padded)) {
                err_set(err, DP_E_UNSUPPORTED, "tensor %.*s: the reference cannot decode its type",
                        STR_ARG(w->pieces[0].source->name));
            }
            memcpy(x.w + (size_t)i * w->cols, row, w->cols * sizeof *row);
        }
    }
    mem_free(row);
    mem_free(bytes);
    return x;
}

static ref_layer load_layer(ref_model *m, const layer_weights *l, dp_error *err) {
    return (ref_layer){
        .attn_norm = load_vector(m, &l->attn_norm, err),
        .attn_norm_bias = load_vector(m, &l->attn_norm_bias, err),
        .post_attn_norm = load_vector(m, &l->post_attn_norm, err),
        .ffn_norm = load_vector(m, &l->ffn_norm, err),
        .ffn_norm_bias = load_vector(m, &l->ffn_norm_bias, err),
        .post_ffn_norm = load_vector(m, &l->post_ffn_norm, err),
        .q_norm = load_vector(m, &l->q_norm, err),
        .k_norm = load_vector(m, &l->k_norm, err),
        .sinks = load_vector(m, &l->sinks, err),
        .q = load_matrix(m, &l->q, &l->q_bias, err),
        .k = load_matrix(m, &l->k, &l->k_bias, err),
        .v = load_matrix(m, &l->v, &l->v_bias, err),
        .o = load_matrix(m, &l->o, &l->o_bias, err),
        .gate = load_matrix(m, &l->gate, &l->gate_bias, err),
        .up = load_matrix(m, &l->up, &l->up_bias, err),
        .down = load_matrix(m, &l->down, &l->down_bias, err),
        .router = load_matrix(m, &l->router, &l->router_bias, err),
        .expert_gate = load_matrix(m, &l->expert_gate, &l->expert_gate_bias, err),
        .expert_up = load_matrix(m, &l->expert_up, &l->expert_up_bias, err),
        .expert_down = load_matrix(m, &l->expert_down, &l->expert_down_bias, err),
    };
}

static bool load(ref_model *m, dp_error *err) {
    const weights *w = &m->weights;
    m->embedding = load_matrix(m, &w->embedding, NULL, err);
    m->head =
        w->head.pieces == w->embedding.pieces ? m->embedding : load_matrix(m, &w->head, NULL, err);
    m->positions = load_vector(m, &w->positions, err);
    m->output_norm = load_vector(m, &w->output_norm, err);
    m->output_norm_bias = load_vector(m, &w->output_norm_bias, err);
    m->layers =
        arena_new(&m->arena, m->config.n_layers, sizeof(ref_layer), "reference layers", err);
    for (uint32_t i = 0; i < m->config.n_layers && err->status == DP_OK; i++)
        m->layers[i] = load_layer(m, &w->layers[i], err);
    return err->status == DP_OK;
}

ref_model *ref_model_open(const char *path, dp_error *err) {
    dp_error local = { 0 }; /* load looks at the status, so there must be one */
    if (err == NULL) err = &local;
    const weight_limits limits = { .max_binding = UINT64_MAX / 4, .max_buffer = UINT64_MAX / 4 };
    ref_model *m = mem_new(1, sizeof(*m), "a reference model", err);
    if (m == NULL) return NULL;
    m->files = container_open(path, false, err);
    if (m->files != NULL && config_read(&m->config, m->files, false, &m->arena, err) &&
        weights_plan(&m->weights, &m->config, m->files, &limits, &m->arena, err) && load(m, err)) {
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

/* ---- the pass ------------------------------------------------------------------------------ */

/* What the positions of one sequence have at one place of the pass. */
typedef struct {
    const config *c;
    size_t n;
    double *x, *xn, *y, *q, *k, *v, *att, *scores; /* y: [max(n, n_experts_used), dim] */
    double *gate, *up, *h, *router;
    double (*angles[ROPE_TABLES])[2]; /* [n, rope_dim / 2] */
    uint32_t layer;                   /* that is computed */
    ref_watch_fn *watch;              /* NULL: nobody looks */
    void *user;
} pass;

static void show(const pass *p, importance_site site, const double *x, size_t rows, size_t cols) {
    if (p->watch != NULL) p->watch(p->user, p->layer, site, x, rows, cols);
}

static bool fill_angles(pass *p, arena *memory, rope_kind table, dp_error *err) {
    const size_t pairs = p->c->rope_dim / 2;
    double frequency[HEAD_DIM_MAX / 2];
    float magnitude = 1;
    rope_frequencies(p->c, table, (uint32_t)p->n, frequency, &magnitude);
    double(*turns)[2] = arena_new(memory, p->n * pairs, sizeof(*turns), "a reference pass", err);
    p->angles[table] = turns;
    for (size_t i = 0; turns != NULL && i < p->n * pairs; i++) {
        const double angle = (double)(i / pairs) * frequency[i % pairs];
        turns[i][0] = cos(angle) * (double)magnitude;
        turns[i][1] = sin(angle) * (double)magnitude;
    }
    return turns != NULL;
}

static bool allocate(pass *p, arena *memory, const config *c, size_t n, dp_error *err) {
    const size_t q_dim = (size_t)c->n_heads * c->head_dim,
                 kv_dim = (size_t)c->n_kv_heads * c->head_dim,
                 ffn = max_u32(c->ffn_dim, c->expert_ffn_dim);
    const struct {
        double **to;
        size_t width;
    } all[] = {
        { &p->x, c->dim },  { &p->xn, c->dim }, { &p->y, (size_t)c->dim * (1 + c->n_experts_used) },
        { &p->q, q_dim },   { &p->k, kv_dim },  { &p->v, kv_dim },
        { &p->att, q_dim }, { &p->scores, 1 },  { &p->gate, ffn },
        { &p->up, ffn },    { &p->h, ffn },     { &p->router, max_u32(c->n_experts, 1) },
    };
    *p = (pass){ .c = c, .n = n };
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        *all[i].to = arena_new(memory, n * all[i].width, sizeof(double), "a reference pass", err);
        if (*all[i].to == NULL) return false;
    }
    return fill_angles(p, memory, ROPE_GLOBAL, err) && fill_angles(p, memory, ROPE_LOCAL, err);
}

/* y [n, rows] = W x + b */
static void multiply(double *y, const matrix *w, const double *x, size_t n) {
    ref_matmul(y, w->w, w->bias, x, n, w->rows, w->cols);
}

static matrix expert(const matrix *w, size_t e) {
    return (matrix){ w->w + e * w->rows * w->cols, w->bias != NULL ? w->bias + e * w->rows : NULL,
                     w->rows, w->cols };
}

static void normalise(const pass *p, double *y, const double *x, const float *w, const float *b) {
    if (p->c->family->layer_norm)
        ref_layer_norm(y, x, w, b, p->n, p->c->dim, (double)p->c->norm_eps);
    else
        ref_norm(y, x, w, p->n, p->c->dim, (double)p->c->norm_eps);
}

/* What a block reads: the residual stream, through its norm if there is one in front. */
static const double *read_stream(const pass *p, const float *norm, const float *bias) {
    if (norm == NULL) return p->x;
    normalise(p, p->xn, p->x, norm, bias);
    return p->xn;
}

/* What a block adds to the stream, W in + b, through its norm if there is one behind. */
static void add_to_stream(const pass *p, const matrix *w, const double *in, const float *norm) {
    multiply(p->y, w, in, p->n);
    if (norm != NULL) normalise(p, p->xn, p->y, norm, NULL);
    const double *y = norm != NULL ? p->xn : p->y;
    for (size_t i = 0; i < p->n * p->c->dim; i++)
        p->x[i] += (double)p->c->residual_scale * y[i];
}

/* RMSNorm of queries or keys, of each head or of all of a row together. */
static void normalise_heads(const pass *p, double *x, size_t n_heads, const float *w) {
    if (w == NULL) return;
    const size_t width = n_heads * p->c->head_dim;
    const size_t dim = p->c->family->qk_norm == QK_NORM_WIDTH ? width : p->c->head_dim;
    ref_norm(p->att, x, w, p->n * width / dim, dim, (double)p->c->norm_eps);
    memcpy(x, p->att, p->n * width * sizeof(*x));
}

static void turn_heads(const pass *p, double *x, size_t n_heads, rope_kind table) {
    const config *c = p->c;
    for (size_t t = 0; t < p->n && table != ROPE_NONE; t++) {
        const double(*angles)[2] = (const double(*)[2])p->angles[table] + t * (c->rope_dim / 2);
        ref_rope(x + t * n_heads * c->head_dim, angles, n_heads, c->head_dim, c->rope_dim);
    }
}

static void attention(const pass *p, const ref_layer *l, uint32_t layer) {
    const config *c = p->c;
    const size_t n = p->n, hd = c->head_dim, q_dim = c->n_heads * hd, kv_dim = c->n_kv_heads * hd;
    const double *in = read_stream(p, l->attn_norm, l->attn_norm_bias);
    show(p, SITE_ATTENTION_INPUT, in, n, c->dim);
    multiply(p->q, &l->q, in, n);
    multiply(p->k, &l->k, in, n);
    multiply(p->v, &l->v, in, n);
    normalise_heads(p, p->q, c->n_heads, l->q_norm);
    normalise_heads(p, p->k, c->n_kv_heads, l->k_norm);
    turn_heads(p, p->q, c->n_heads, c->layer_rope[layer]);
    turn_heads(p, p->k, c->n_kv_heads, c->layer_rope[layer]);
    for (size_t t = 0; t < n; t++) {
        for (size_t h = 0; h < c->n_heads; h++) {
            const size_t kv = h / (c->n_heads / c->n_kv_heads) * hd;
            const ref_keys keys = { .k = p->k + kv,
                                    .v = p->v + kv,
                                    .n = t + 1,
                                    .first = ref_window(t, c->layer_window[layer]),
                                    .stride = kv_dim,
                                    .head_dim = hd,
                                    .scale = (double)c->attention_scale,
                                    .softcap = (double)c->attention_softcap,
                                    .sink = l->sinks != NULL ? &l->sinks[h] : NULL };
            ref_attend(p->att + t * q_dim + h * hd, p->q + t * q_dim + h * hd, &keys, p->scores);
        }
    }
    show(p, SITE_ATTENTION, p->att, n, q_dim);
    add_to_stream(p, &l->o, p->att, l->post_attn_norm);
}

/* h = act(gate) up, or act(up) without a gate. */
static void activate(const pass *p, bool gated, size_t n) {
    const config *c = p->c;
    for (size_t i = 0; i < n && !gated; i++)
        p->h[i] = c->activation == ACT_GELU ? ref_gelu(p->up[i]) : ref_silu(p->up[i]);
    if (!gated) return;
    if (c->activation == ACT_GELU)
        ref_gelu_glu(p->h, p->gate, p->up, n);
    else if (c->activation == ACT_SWIGLU_OAI)
        ref_swiglu_clamped(p->h, p->gate, p->up, n, (double)c->act_alpha, (double)c->act_limit);
    else
        ref_glu(p->h, p->gate, p->up, n);
}

static void feed_forward(const pass *p, const ref_layer *l) {
    const bool gated = l->gate.w != NULL;
    const double *in = read_stream(p, l->ffn_norm, l->ffn_norm_bias);
    show(p, SITE_FFN_INPUT, in, p->n, p->c->dim);
    if (gated) multiply(p->gate, &l->gate, in, p->n);
    multiply(p->up, &l->up, in, p->n);
    activate(p, gated, p->n * p->c->ffn_dim);
    show(p, SITE_FFN_HIDDEN, p->h, p->n, p->c->ffn_dim);
    add_to_stream(p, &l->down, p->h, l->post_ffn_norm);
}

static void expert_feed_forward(const pass *p, const ref_layer *l) {
    const config *c = p->c;
    const double *in = read_stream(p, l->ffn_norm, l->ffn_norm_bias);
    show(p, SITE_FFN_INPUT, in, p->n, c->dim);
    multiply(p->router, &l->router, in, p->n);
    for (size_t t = 0; t < p->n; t++) {
        uint32_t chosen[EXPERTS_USED_MAX];
        double shares[EXPERTS_USED_MAX];
        ref_route(chosen, shares, p->router + t * c->n_experts, c->n_experts, c->n_experts_used,
                  c->normalise_route, (double)c->route_scale);
        for (uint32_t k = 0; k < c->n_experts_used; k++) {
            const matrix gate = expert(&l->expert_gate, chosen[k]),
                         up = expert(&l->expert_up, chosen[k]),
                         down = expert(&l->expert_down, chosen[k]);
            multiply(p->gate, &gate, in + t * c->dim, 1);
            multiply(p->up, &up, in + t * c->dim, 1);
            activate(p, true, c->expert_ffn_dim);
            show(p, SITE_FFN_HIDDEN, p->h, 1, c->expert_ffn_dim);
            multiply(p->y + (size_t)k * c->dim, &down, p->h, 1);
        }
        ref_combine(p->x + t * c->dim, shares, p->y, c->n_experts_used, c->dim,
                    (double)c->residual_scale);
    }
}

static void embed(const pass *p, const ref_model *m, const uint32_t *tokens) {
    const size_t dim = p->c->dim;
    for (size_t i = 0; i < p->n * dim; i++) {
        const float e = m->embedding.w[tokens[i / dim] * dim + i % dim];
        p->x[i] = (double)e * (double)p->c->embedding_scale;
        if (m->positions != NULL) p->x[i] += (double)m->positions[i];
    }
}

bool ref_forward(const ref_model *m, const uint32_t *tokens, size_t n, double *logits,
                 dp_error *err) {
    return ref_forward_watched(m, tokens, n, logits, NULL, NULL, err);
}

bool ref_forward_watched(const ref_model *m, const uint32_t *tokens, size_t n, double *logits,
                         ref_watch_fn *watch, void *user, dp_error *err) {
    const config *c = &m->config;
    for (size_t t = 0; t < n; t++) {
        if (tokens[t] >= c->vocab_size) {
            return err_set(err, DP_E_ARGUMENT, "token %u is outside the vocabulary of %u",
                           tokens[t], c->vocab_size);
        }
    }
    if (m->positions != NULL && n > c->context) {
        return err_set(err, DP_E_ARGUMENT, "%zu tokens, the model has %u positions", n, c->context);
    }
    arena memory = { 0 };
    pass p;
    const bool ok = allocate(&p, &memory, c, n, err);
    if (ok) {
        p.watch = watch;
        p.user = user;
        embed(&p, m, tokens);
        for (uint32_t i = 0; i < c->n_layers; i++) {
            p.layer = i;
            attention(&p, &m->layers[i], i);
            (c->n_experts > 0 ? expert_feed_forward : feed_forward)(&p, &m->layers[i]);
        }
        p.layer = 0;
        normalise(&p, p.xn, p.x, m->output_norm, m->output_norm_bias);
        show(&p, SITE_OUTPUT, p.xn, n, c->dim);
        multiply(logits, &m->head, p.xn, n);
        for (size_t i = 0; i < n * c->vocab_size; i++)
            logits[i] *= (double)c->logits_scale;
        if (c->logits_softcap > 0)
            ref_softcap(logits, n * c->vocab_size, (double)c->logits_softcap);
    }
    arena_free(&memory);
    return ok;
}
