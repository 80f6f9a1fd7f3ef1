/* weights: the tensors of a model, found by name, checked, cut to the device's bindings and
 * uploaded as they are in the file.
 *
 * One table says what a layer has, under which name each container keeps it and which shape it must
 * have. Matrices stay in their format; only vectors (norms, biases) become f32, which is what the
 * kernels add. A matrix over the binding limit is cut between rows; parts start at aligned offsets
 * of a few large buffers. Tensor names: GGUF's standard names, and transformers' LlamaForCausalLM.
 * */
#include "model/model.h"

#include <stdio.h>

enum { PIECE_BYTES = 4 << 20 }; /* read and uploaded at a time */

typedef enum { IS_MATRIX, IS_VECTOR } field_kind;
typedef enum { ROWS_Q, ROWS_KV, ROWS_DIM, ROWS_FFN, ROWS_VOCAB } extent;

/* What a layer may hold. */
typedef struct {
    const char *gguf; /* after "blk.N." */
    const char *hf;   /* after "model.layers.N." */
    size_t offset;    /* in layer_weights */
    field_kind kind;
    bool optional;
    extent rows, cols; /* cols: of matrices */
} layer_field;

#define FIELD(member) offsetof(layer_weights, member)

static const layer_field LAYER_FIELDS[] = {
    { "attn_norm.weight", "input_layernorm.weight", FIELD(attn_norm), IS_VECTOR, false, ROWS_DIM,
      ROWS_DIM },
    { "attn_q.weight", "self_attn.q_proj.weight", FIELD(q), IS_MATRIX, false, ROWS_Q, ROWS_DIM },
    { "attn_k.weight", "self_attn.k_proj.weight", FIELD(k), IS_MATRIX, false, ROWS_KV, ROWS_DIM },
    { "attn_v.weight", "self_attn.v_proj.weight", FIELD(v), IS_MATRIX, false, ROWS_KV, ROWS_DIM },
    { "attn_output.weight", "self_attn.o_proj.weight", FIELD(o), IS_MATRIX, false, ROWS_DIM,
      ROWS_Q },
    { "attn_q.bias", "self_attn.q_proj.bias", FIELD(q_bias), IS_VECTOR, true, ROWS_Q, ROWS_DIM },
    { "attn_k.bias", "self_attn.k_proj.bias", FIELD(k_bias), IS_VECTOR, true, ROWS_KV, ROWS_DIM },
    { "attn_v.bias", "self_attn.v_proj.bias", FIELD(v_bias), IS_VECTOR, true, ROWS_KV, ROWS_DIM },
    { "attn_output.bias", "self_attn.o_proj.bias", FIELD(o_bias), IS_VECTOR, true, ROWS_DIM,
      ROWS_DIM },
    { "ffn_norm.weight", "post_attention_layernorm.weight", FIELD(ffn_norm), IS_VECTOR, false,
      ROWS_DIM, ROWS_DIM },
    { "ffn_gate.weight", "mlp.gate_proj.weight", FIELD(gate), IS_MATRIX, false, ROWS_FFN,
      ROWS_DIM },
    { "ffn_up.weight", "mlp.up_proj.weight", FIELD(up), IS_MATRIX, false, ROWS_FFN, ROWS_DIM },
    { "ffn_down.weight", "mlp.down_proj.weight", FIELD(down), IS_MATRIX, false, ROWS_DIM,
      ROWS_FFN },
    { "ffn_gate.bias", "mlp.gate_proj.bias", FIELD(gate_bias), IS_VECTOR, true, ROWS_FFN,
      ROWS_DIM },
    { "ffn_up.bias", "mlp.up_proj.bias", FIELD(up_bias), IS_VECTOR, true, ROWS_FFN, ROWS_DIM },
    { "ffn_down.bias", "mlp.down_proj.bias", FIELD(down_bias), IS_VECTOR, true, ROWS_DIM,
      ROWS_DIM },
};

/* The state of planning. */
typedef struct {
    weights *w;
    const config *c;
    const container *files;
    uint64_t max_binding, max_buffer;
    arena *a;
    dp_error *err;
} layout;

static uint32_t extent_of(const config *c, extent e) {
    switch (e) {
    case ROWS_Q:
        return c->n_heads * c->head_dim;
    case ROWS_KV:
        return c->n_kv_heads * c->head_dim;
    case ROWS_DIM:
        return c->dim;
    case ROWS_FFN:
        return c->ffn_dim;
    default:
        return c->vocab_size;
    }
}

static bool type_is_usable(dtype type) {
    switch (type) {
    case DTYPE_F32:
    case DTYPE_F16:
    case DTYPE_BF16:
    case DTYPE_Q4_0:
    case DTYPE_Q4_1:
    case DTYPE_Q5_0:
    case DTYPE_Q5_1:
    case DTYPE_Q8_0:
    case DTYPE_Q4_K:
    case DTYPE_Q5_K:
    case DTYPE_Q6_K:
        return true;
    default:
        return false;
    }
}

/* ---- layout -------------------------------------------------------------------------------- */

/* Space of `size` bytes at an aligned offset of the newest buffer, or of another one if that is
 * full. */
static bool layout_take(layout *l, uint64_t size, gpu_range *range) {
    const uint64_t need = align_up(size, 256);
    weight_buffer *b = l->w->newest;
    if (b == NULL || b->size + need > l->max_buffer) {
        b = arena_new(l->a, 1, sizeof *b, "weight buffers", l->err);
        if (b == NULL) {
            return false;
        }
        b->older = l->w->newest;
        l->w->newest = b;
    }
    weight_place *place = arena_new(l->a, 1, sizeof *place, "weight buffers", l->err);
    if (place == NULL) {
        return false;
    }
    *range = (gpu_range){ .offset = b->size, .size = align_up(size, 4) };
    *place = (weight_place){ .range = range, .next = b->places };
    b->places = place;
    b->size += need;
    l->w->bytes += need;
    return true;
}

static bool shape_error(const layout *l, const tensor *t, uint64_t rows, uint64_t cols) {
    char shape[96];
    int n = 0;
    for (uint32_t i = 0; i < t->n_dims && n >= 0 && n < (int)sizeof shape - 24; i++) {
        n += snprintf(shape + n, sizeof shape - (size_t)n, i > 0 ? ", %llu" : "%llu",
                      (unsigned long long)t->shape[i]);
    }
    shape[n] = '\0';
    char expected[64];
    snprintf(expected, sizeof expected, cols > 0 ? "[%llu, %llu]" : "[%llu]",
             (unsigned long long)rows, (unsigned long long)cols);
    return err_set(l->err, DP_E_FORMAT, "%s: tensor %.*s: shape [%s], expected %s",
                   container_path(l->files), (int)t->name.size, t->name.data, shape, expected);
}

/* Cuts a matrix into parts that fit one binding. */
static bool place_matrix(layout *l, weight *w) {
    uint64_t row_bytes = 0;
    if (!dtype_row_bytes(w->type, w->cols, &row_bytes)) {
        return err_set(l->err, DP_E_FORMAT,
                       "%s: tensor %.*s: rows of %u are no multiple of %u, the block of %s",
                       container_path(l->files), (int)w->source->name.size, w->source->name.data,
                       w->cols, dtype_get(w->type)->block_elements, dtype_get(w->type)->name);
    }
    const uint64_t limit = l->max_binding < l->max_buffer ? l->max_binding : l->max_buffer;
    const uint64_t fit = limit / row_bytes;
    if (fit < 1) {
        return err_set(l->err, DP_E_LIMIT,
                       "%s: tensor %.*s: a row has %llu bytes, a binding of this device %llu",
                       container_path(l->files), (int)w->source->name.size, w->source->name.data,
                       (unsigned long long)row_bytes, (unsigned long long)limit);
    }
    w->n_parts = (uint32_t)((w->rows + fit - 1) / fit);
    w->parts = arena_new(l->a, w->n_parts, sizeof *w->parts, "parts of a matrix", l->err);
    if (w->parts == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < w->n_parts; i++) {
        weight_part *p = &w->parts[i];
        p->first = (uint32_t)(i * fit);
        p->rows = (uint32_t)min_u64(fit, w->rows - p->first);
        if (!layout_take(l, p->rows * row_bytes, &p->range)) {
            return false;
        }
    }
    return true;
}

static bool find_matrix(layout *l, weight *w, const tensor *t, uint64_t rows, uint64_t cols) {
    if (t->n_dims != 2 || t->shape[0] != rows || t->shape[1] != cols || rows == 0 || cols == 0) {
        return shape_error(l, t, rows, cols);
    }
    if (!type_is_usable(t->type)) {
        return err_set(l->err, DP_E_UNSUPPORTED, "%s: tensor %.*s: type %s is not supported",
                       container_path(l->files), (int)t->name.size, t->name.data,
                       dtype_get(t->type)->name);
    }
    *w = (weight){ .source = t, .type = t->type, .rows = (uint32_t)rows, .cols = (uint32_t)cols };
    return place_matrix(l, w);
}

static bool find_vector(layout *l, vector *v, const tensor *t, uint64_t n) {
    if (t->n_dims != 1 || t->shape[0] != n) {
        return shape_error(l, t, n, 0);
    }
    if (t->type != DTYPE_F32 && t->type != DTYPE_F16 && t->type != DTYPE_BF16) {
        return err_set(l->err, DP_E_UNSUPPORTED,
                       "%s: tensor %.*s: type %s is not supported for a vector",
                       container_path(l->files), (int)t->name.size, t->name.data,
                       dtype_get(t->type)->name);
    }
    *v = (vector){ .source = t, .n = (uint32_t)n };
    return layout_take(l, n * sizeof(float), &v->range);
}

static const tensor *require_tensor(const layout *l, const char *name) {
    const tensor *t = container_find(l->files, name);
    if (t == NULL) {
        err_set(l->err, DP_E_FORMAT, "%s: tensor %s: missing", container_path(l->files), name);
    }
    return t;
}

static bool plan_layer(layout *l, uint32_t i) {
    const bool gguf = container_kind_of(l->files) == CONTAINER_GGUF;
    layer_weights *layer = &l->w->layers[i];
    for (size_t f = 0; f < ARRAY_LEN(LAYER_FIELDS); f++) {
        const layer_field *field = &LAYER_FIELDS[f];
        char name[128];
        snprintf(name, sizeof name, gguf ? "blk.%u.%s" : "model.layers.%u.%s", i,
                 gguf ? field->gguf : field->hf);
        const tensor *t =
            field->optional ? container_find(l->files, name) : require_tensor(l, name);
        if (t == NULL) {
            if (field->optional) {
                continue;
            }
            return false;
        }
        void *where = (char *)layer + field->offset;
        const uint32_t rows = extent_of(l->c, field->rows);
        if (field->kind == IS_VECTOR ? !find_vector(l, where, t, rows)
                                     : !find_matrix(l, where, t, rows,
                                                    extent_of(l->c, field->cols))) {
            return false;
        }
    }
    return true;
}

bool weights_plan(weights *w, const config *c, const container *files, uint64_t max_binding,
                  uint64_t max_buffer, arena *a, dp_error *err) {
    *w = (weights){ 0 };
    layout l = { .w = w, .c = c, .files = files, .a = a, .err = err };
    l.max_binding = max_binding & ~(uint64_t)3;
    l.max_buffer = max_buffer & ~(uint64_t)255;
    const bool gguf = container_kind_of(files) == CONTAINER_GGUF;
    w->layers = arena_new(a, c->n_layers, sizeof *w->layers, "layers", err);
    const tensor *t = require_tensor(&l, gguf ? "token_embd.weight" : "model.embed_tokens.weight");
    if (w->layers == NULL || t == NULL ||
        !find_matrix(&l, &w->embedding, t, c->vocab_size, c->dim)) {
        return false;
    }
    for (uint32_t i = 0; i < c->n_layers; i++) {
        if (!plan_layer(&l, i)) {
            return false;
        }
    }
    t = require_tensor(&l, gguf ? "output_norm.weight" : "model.norm.weight");
    if (t == NULL || !find_vector(&l, &w->output_norm, t, c->dim)) {
        return false;
    }
    const char *head = gguf ? "output.weight" : "lm_head.weight";
    t = c->head == HEAD_OWN ? require_tensor(&l, head) : container_find(files, head);
    if (c->head == HEAD_OWN && t == NULL) {
        return false;
    }
    w->head = w->embedding;
    if (c->head != HEAD_TIED && t != NULL && !find_matrix(&l, &w->head, t, c->vocab_size, c->dim)) {
        return false;
    }
    return true;
}

/* ---- upload -------------------------------------------------------------------------------- */

typedef struct {
    gpu *g;
    container *files;
    const dp_model_options *options;
    uint64_t done, total;
    unsigned char *piece; /* [PIECE_BYTES] */
    dp_error *err;
} uploader;

static bool report_progress(uploader *u, uint64_t bytes) {
    u->done += bytes;
    if (u->options != NULL && u->options->progress != NULL &&
        !u->options->progress(u->options->progress_user, u->done, u->total)) {
        return err_set(u->err, DP_E_CANCELLED, "%s: loading was cancelled",
                       container_path(u->files));
    }
    return true;
}

static bool upload_matrix(uploader *u, const weight *w) {
    uint64_t row_bytes = 0;
    const bool whole = dtype_row_bytes(w->type, w->cols, &row_bytes);
    assert(whole);
    (void)whole;
    for (uint32_t i = 0; i < w->n_parts; i++) {
        const weight_part *p = &w->parts[i];
        const uint64_t bytes = p->rows * row_bytes;
        for (uint64_t at = 0; at < bytes; at += PIECE_BYTES) {
            const size_t n = (size_t)min_u64(PIECE_BYTES, bytes - at);
            const size_t padded = (size_t)align_up(n, 4);
            if (!container_read(u->files, w->source, p->first * row_bytes + at, u->piece, n,
                                u->err)) {
                return false;
            }
            memset(u->piece + n, 0, padded - n);
            if (!gpu_write(u->g, gpu_part(p->range, at, padded), u->piece, u->err) ||
                !report_progress(u, n)) {
                return false;
            }
        }
    }
    return true;
}

static bool upload_vector(uploader *u, const vector *v) {
    if (v->source == NULL) {
        return true;
    }
    /* f32 behind the raw bytes in the same piece: vectors are at most FFN_MAX long */
    const size_t bytes = (size_t)v->source->n_bytes;
    float *out = (float *)(void *)(u->piece + PIECE_BYTES);
    if (!container_read(u->files, v->source, 0, u->piece, bytes, u->err)) {
        return false;
    }
    const bool known = quant_decode(v->source->type, u->piece, out, v->n);
    assert(known);
    (void)known;
    return gpu_write(u->g, v->range, out, u->err) && report_progress(u, bytes);
}

static bool upload_all(uploader *u, const weights *w, uint32_t n_layers) {
    if (!upload_matrix(u, &w->embedding)) {
        return false;
    }
    for (uint32_t i = 0; i < n_layers; i++) {
        for (size_t f = 0; f < ARRAY_LEN(LAYER_FIELDS); f++) {
            const void *where = (const char *)&w->layers[i] + LAYER_FIELDS[f].offset;
            if (LAYER_FIELDS[f].kind == IS_MATRIX ? !upload_matrix(u, where)
                                                  : !upload_vector(u, where)) {
                return false;
            }
        }
    }
    return upload_vector(u, &w->output_norm) &&
           (w->head.source == w->embedding.source || upload_matrix(u, &w->head));
}

bool weights_reserve(weights *w, gpu *g, dp_error *err) {
    for (weight_buffer *b = w->newest; b != NULL; b = b->older) {
        b->buffer = gpu_buffer_new(g, b->size, "weights", err);
        if (b->buffer == NULL) {
            return false;
        }
        for (weight_place *place = b->places; place != NULL; place = place->next) {
            place->range->buffer = b->buffer;
        }
    }
    return true;
}

bool weights_upload(weights *w, gpu *g, uint32_t n_layers, container *files,
                    const dp_model_options *options, dp_error *err) {
    uploader u = { .g = g, .files = files, .options = options, .err = err };
    u.total = container_bytes(files);
    /* raw bytes and, for vectors, their f32 behind them */
    u.piece = mem_new(1, PIECE_BYTES + FFN_MAX * sizeof(float), "upload buffer", err);
    const bool ok = u.piece != NULL && upload_all(&u, w, n_layers);
    mem_free(u.piece);
    return ok;
}

void weights_free(weights *w) {
    for (weight_buffer *b = w->newest; b != NULL; b = b->older) {
        gpu_buffer_free(b->buffer);
        b->buffer = NULL;
    }
}
