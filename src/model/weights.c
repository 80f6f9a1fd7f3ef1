/* weights: the tensors of a model, found by name, checked, cut to the device's bindings and
 * uploaded.
 *
 * One table says what a layer may have, under which name each container keeps it and which shape it
 * must have; families add names (family.c). Matrices stay in their format; vectors (norms, biases)
 * become f32, which is what the kernels add. A matrix over the binding limit is cut between rows,
 * one of experts between experts; parts start at aligned offsets of a few large buffers. Reading
 * the tensors themselves is weight_read.c's. Tensor names: GGUF's standard names, and those of
 * transformers. */
#include "model/model.h"

#include <stdio.h>

typedef enum { IS_MATRIX, IS_VECTOR, IS_EXPERTS, IS_EXPERT_VECTOR } field_kind;
typedef enum {
    ROWS_Q,
    ROWS_KV,
    ROWS_DIM,
    ROWS_FFN,
    ROWS_HEADS,
    ROWS_EXPERTS,
    ROWS_EXPERT_FFN,
    ROWS_QK_NORM_Q,
    ROWS_QK_NORM_K,
} extent;

/* What decides whether a model has a field. */
typedef enum {
    USE_ALWAYS,
    USE_QKV_BIAS,
    USE_O_BIAS,
    USE_PRE_NORM,
    USE_POST_NORM,
    USE_LAYER_NORM,
    USE_QK_NORM,
    USE_SINKS,
    USE_DENSE,
    USE_GATED,
    USE_GATE_BIAS,
    USE_FFN_BIAS,
    USE_ROUTER_BIAS,
    USE_EXPERTS_BIAS,
    USE_EXPERTS,
} field_use;

/* Several fields in one tensor, one after the other. */
typedef struct {
    const char *alias;     /* what families rename it by (tensor_alias); NULL: none does */
    const char *gguf, *hf; /* names as in layer_field; NULL: that container has none */
    uint32_t n;
    extent rows[3];
} fusion;

static const fusion FUSIONS[] = {
    { "attn_qkv.weight",
      "attn_qkv.weight",
      "self_attn.qkv_proj.weight",
      3,
      { ROWS_Q, ROWS_KV, ROWS_KV } },
    { "attn_qkv.bias",
      "attn_qkv.bias",
      "self_attn.qkv_proj.bias",
      3,
      { ROWS_Q, ROWS_KV, ROWS_KV } },
    { NULL, "ffn_up.weight", "mlp.gate_up_proj.weight", 2, { ROWS_FFN, ROWS_FFN } },
    { NULL,
      "ffn_gate_up_exps.weight",
      "mlp.experts.gate_up_proj",
      2,
      { ROWS_EXPERT_FFN, ROWS_EXPERT_FFN } },
    { NULL,
      "ffn_gate_up_exps.bias",
      "mlp.experts.gate_up_proj_bias",
      2,
      { ROWS_EXPERT_FFN, ROWS_EXPERT_FFN } },
    { NULL, NULL, "mlp.experts.down_proj", 1, { ROWS_DIM } },
    { NULL, NULL, "mlp.experts.down_proj_bias", 1, { ROWS_DIM } },
};
enum {
    FUSE_NONE,
    FUSE_QKV,
    FUSE_QKV_BIAS,
    FUSE_FFN,
    FUSE_EXPERTS,
    FUSE_EXPERTS_BIAS,
    FUSE_DOWN,
    FUSE_DOWN_BIAS
}; /* FUSIONS[i - 1] */

/* What a layer may hold. */
typedef struct {
    const char *gguf; /* after "blk.N." */
    const char *hf;   /* after the layer's prefix; %u: the expert */
    size_t offset;    /* in layer_weights */
    field_kind kind;
    field_use use;
    extent rows, cols;   /* cols: of matrices */
    uint8_t fuse, place; /* which fusion it may be in, and where */
} layer_field;

#define FIELD(member) offsetof(layer_weights, member)

static const layer_field LAYER_FIELDS[] = {
    { "attn_norm.weight", "input_layernorm.weight", FIELD(attn_norm), IS_VECTOR, USE_PRE_NORM,
      ROWS_DIM, ROWS_DIM, 0, 0 },
    { "attn_norm.bias", "input_layernorm.bias", FIELD(attn_norm_bias), IS_VECTOR, USE_LAYER_NORM,
      ROWS_DIM, ROWS_DIM, 0, 0 },
    { "attn_q.weight", "self_attn.q_proj.weight", FIELD(q), IS_MATRIX, USE_ALWAYS, ROWS_Q, ROWS_DIM,
      FUSE_QKV, 0 },
    { "attn_k.weight", "self_attn.k_proj.weight", FIELD(k), IS_MATRIX, USE_ALWAYS, ROWS_KV,
      ROWS_DIM, FUSE_QKV, 1 },
    { "attn_v.weight", "self_attn.v_proj.weight", FIELD(v), IS_MATRIX, USE_ALWAYS, ROWS_KV,
      ROWS_DIM, FUSE_QKV, 2 },
    { "attn_output.weight", "self_attn.o_proj.weight", FIELD(o), IS_MATRIX, USE_ALWAYS, ROWS_DIM,
      ROWS_Q, 0, 0 },
    { "attn_q.bias", "self_attn.q_proj.bias", FIELD(q_bias), IS_VECTOR, USE_QKV_BIAS, ROWS_Q,
      ROWS_DIM, FUSE_QKV_BIAS, 0 },
    { "attn_k.bias", "self_attn.k_proj.bias", FIELD(k_bias), IS_VECTOR, USE_QKV_BIAS, ROWS_KV,
      ROWS_DIM, FUSE_QKV_BIAS, 1 },
    { "attn_v.bias", "self_attn.v_proj.bias", FIELD(v_bias), IS_VECTOR, USE_QKV_BIAS, ROWS_KV,
      ROWS_DIM, FUSE_QKV_BIAS, 2 },
    { "attn_output.bias", "self_attn.o_proj.bias", FIELD(o_bias), IS_VECTOR, USE_O_BIAS, ROWS_DIM,
      ROWS_DIM, 0, 0 },
    { "attn_q_norm.weight", "self_attn.q_norm.weight", FIELD(q_norm), IS_VECTOR, USE_QK_NORM,
      ROWS_QK_NORM_Q, ROWS_DIM, 0, 0 },
    { "attn_k_norm.weight", "self_attn.k_norm.weight", FIELD(k_norm), IS_VECTOR, USE_QK_NORM,
      ROWS_QK_NORM_K, ROWS_DIM, 0, 0 },
    { "attn_sinks.weight", "self_attn.sinks", FIELD(sinks), IS_VECTOR, USE_SINKS, ROWS_HEADS,
      ROWS_DIM, 0, 0 },
    { "post_attention_norm.weight", "post_attention_layernorm.weight", FIELD(post_attn_norm),
      IS_VECTOR, USE_POST_NORM, ROWS_DIM, ROWS_DIM, 0, 0 },
    { "ffn_norm.weight", "post_attention_layernorm.weight", FIELD(ffn_norm), IS_VECTOR,
      USE_PRE_NORM, ROWS_DIM, ROWS_DIM, 0, 0 },
    { "ffn_norm.bias", "post_attention_layernorm.bias", FIELD(ffn_norm_bias), IS_VECTOR,
      USE_LAYER_NORM, ROWS_DIM, ROWS_DIM, 0, 0 },
    { "ffn_gate.weight", "mlp.gate_proj.weight", FIELD(gate), IS_MATRIX, USE_GATED, ROWS_FFN,
      ROWS_DIM, FUSE_FFN, 0 },
    { "ffn_up.weight", "mlp.up_proj.weight", FIELD(up), IS_MATRIX, USE_DENSE, ROWS_FFN, ROWS_DIM,
      FUSE_FFN, 1 },
    { "ffn_down.weight", "mlp.down_proj.weight", FIELD(down), IS_MATRIX, USE_DENSE, ROWS_DIM,
      ROWS_FFN, 0, 0 },
    { "ffn_gate.bias", "mlp.gate_proj.bias", FIELD(gate_bias), IS_VECTOR, USE_GATE_BIAS, ROWS_FFN,
      ROWS_DIM, 0, 0 },
    { "ffn_up.bias", "mlp.up_proj.bias", FIELD(up_bias), IS_VECTOR, USE_FFN_BIAS, ROWS_FFN,
      ROWS_DIM, 0, 0 },
    { "ffn_down.bias", "mlp.down_proj.bias", FIELD(down_bias), IS_VECTOR, USE_FFN_BIAS, ROWS_DIM,
      ROWS_DIM, 0, 0 },
    { "post_ffw_norm.weight", "post_feedforward_layernorm.weight", FIELD(post_ffn_norm), IS_VECTOR,
      USE_POST_NORM, ROWS_DIM, ROWS_DIM, 0, 0 },
    { "ffn_gate_inp.weight", "mlp.gate.weight", FIELD(router), IS_MATRIX, USE_EXPERTS, ROWS_EXPERTS,
      ROWS_DIM, 0, 0 },
    { "ffn_gate_inp.bias", "mlp.gate.bias", FIELD(router_bias), IS_VECTOR, USE_ROUTER_BIAS,
      ROWS_EXPERTS, ROWS_DIM, 0, 0 },
    { "ffn_gate_exps.weight", "mlp.experts.%u.gate_proj.weight", FIELD(expert_gate), IS_EXPERTS,
      USE_EXPERTS, ROWS_EXPERT_FFN, ROWS_DIM, FUSE_EXPERTS, 0 },
    { "ffn_up_exps.weight", "mlp.experts.%u.up_proj.weight", FIELD(expert_up), IS_EXPERTS,
      USE_EXPERTS, ROWS_EXPERT_FFN, ROWS_DIM, FUSE_EXPERTS, 1 },
    { "ffn_down_exps.weight", "mlp.experts.%u.down_proj.weight", FIELD(expert_down), IS_EXPERTS,
      USE_EXPERTS, ROWS_DIM, ROWS_EXPERT_FFN, FUSE_DOWN, 0 },
    { "ffn_gate_exps.bias", NULL, FIELD(expert_gate_bias), IS_EXPERT_VECTOR, USE_EXPERTS_BIAS,
      ROWS_EXPERT_FFN, ROWS_DIM, FUSE_EXPERTS_BIAS, 0 },
    { "ffn_up_exps.bias", NULL, FIELD(expert_up_bias), IS_EXPERT_VECTOR, USE_EXPERTS_BIAS,
      ROWS_EXPERT_FFN, ROWS_DIM, FUSE_EXPERTS_BIAS, 1 },
    { "ffn_down_exps.bias", NULL, FIELD(expert_down_bias), IS_EXPERT_VECTOR, USE_EXPERTS_BIAS,
      ROWS_DIM, ROWS_DIM, FUSE_DOWN_BIAS, 0 },
};

static bool is_matrix(const layer_field *f) {
    return f->kind == IS_MATRIX || f->kind == IS_EXPERTS;
}

/* The state of planning. */
typedef struct {
    weights *w;
    const config *c;
    const container *files;
    weight_limits limits;
    bool gguf;
    arena *a;
    dp_error *err;
    uint32_t layer;
    bool *used; /* [tensors] a field of a layer has it */
} layout;

static uint32_t extent_of(const config *c, extent e) {
    const uint32_t q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim;
    const bool wide = c->family->qk_norm == QK_NORM_WIDTH;
    switch (e) {
    case ROWS_Q:
        return q;
    case ROWS_KV:
        return kv;
    case ROWS_DIM:
        return c->dim;
    case ROWS_FFN:
        return c->ffn_dim;
    case ROWS_HEADS:
        return c->n_heads;
    case ROWS_EXPERTS:
        return c->n_experts;
    case ROWS_EXPERT_FFN:
        return c->expert_ffn_dim;
    case ROWS_QK_NORM_Q:
        return wide ? q : c->head_dim;
    case ROWS_QK_NORM_K:
        return wide ? kv : c->head_dim;
    }
    assert(!"an extent");
    return 0;
}

typedef enum { FIELD_ABSENT, FIELD_OPTIONAL, FIELD_REQUIRED } field_need;

static field_need bias_need(const config *c, uint32_t bit) {
    return c->family->biases & bit ? FIELD_REQUIRED : FIELD_OPTIONAL;
}

static field_need need_of(const config *c, field_use use) {
    const family *f = c->family;
    const bool experts = c->n_experts > 0;
    switch (use) {
    case USE_ALWAYS:
        return FIELD_REQUIRED;
    case USE_PRE_NORM:
        return f->norms != NORMS_POST ? FIELD_REQUIRED : FIELD_ABSENT;
    case USE_POST_NORM:
        return f->norms != NORMS_PRE ? FIELD_REQUIRED : FIELD_ABSENT;
    case USE_LAYER_NORM:
        return f->layer_norm ? FIELD_REQUIRED : FIELD_ABSENT;
    case USE_QK_NORM:
        return f->qk_norm != QK_NORM_NONE ? FIELD_REQUIRED : FIELD_ABSENT;
    case USE_SINKS:
        return f->sinks ? FIELD_REQUIRED : FIELD_ABSENT;
    case USE_DENSE:
        return experts ? FIELD_ABSENT : FIELD_REQUIRED;
    case USE_GATED:
        return experts || f->ungated ? FIELD_ABSENT : FIELD_REQUIRED;
    case USE_EXPERTS:
        return experts ? FIELD_REQUIRED : FIELD_ABSENT;
    case USE_QKV_BIAS:
        return bias_need(c, BIAS_QKV);
    case USE_O_BIAS:
        return bias_need(c, BIAS_O);
    case USE_GATE_BIAS:
        return experts || f->ungated ? FIELD_ABSENT : bias_need(c, BIAS_FFN);
    case USE_FFN_BIAS:
        return experts ? FIELD_ABSENT : bias_need(c, BIAS_FFN);
    case USE_ROUTER_BIAS:
        return experts ? bias_need(c, BIAS_ROUTER) : FIELD_ABSENT;
    case USE_EXPERTS_BIAS:
        return experts ? bias_need(c, BIAS_EXPERTS) : FIELD_ABSENT;
    }
    assert(!"a use");
    return FIELD_ABSENT;
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
    case DTYPE_Q2_K:
    case DTYPE_Q3_K:
    case DTYPE_IQ4_NL:
    case DTYPE_IQ4_XS:
    case DTYPE_MXFP4:
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
    if (b == NULL || b->size + need > l->limits.max_buffer) {
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

static bool shape_error(const layout *l, const tensor *t, const char *expected) {
    char shape[96];
    int n = 0;
    for (uint32_t i = 0; i < t->n_dims && n >= 0 && n < (int)sizeof shape - 24; i++) {
        n += snprintf(shape + n, sizeof shape - (size_t)n, i > 0 ? ", %llu" : "%llu",
                      (unsigned long long)t->shape[i]);
    }
    shape[n] = '\0';
    return err_set(l->err, DP_E_FORMAT, "%s: tensor %.*s: shape [%s], expected %s",
                   container_path(l->files), STR_ARG(t->name), shape, expected);
}

/* Does the tensor have these dimensions? 0 ends the list. */
static bool has_shape(const tensor *t, uint64_t a, uint64_t b, uint64_t c, uint64_t d) {
    const uint64_t want[TENSOR_DIMS] = { a, b, c, d };
    uint32_t n = 0;
    while (n < TENSOR_DIMS && want[n] > 0) {
        n++;
    }
    return t->n_dims == n && memcmp(t->shape, want, n * sizeof *want) == 0;
}

/* Cuts a matrix into parts that fit one binding: of rows, or of whole experts. */
static bool place_matrix(layout *l, weight *w) {
    const str name = w->pieces[0].source->name;
    uint64_t row_bytes = 0;
    if (!dtype_row_bytes(w->type, w->cols, &row_bytes)) {
        return err_set(l->err, DP_E_FORMAT,
                       "%s: tensor %.*s: rows of %u are no multiple of %u, the block of %s",
                       container_path(l->files), STR_ARG(name), w->cols,
                       dtype_get(w->type)->block_elements, dtype_get(w->type)->name);
    }
    const uint64_t limit = min_u64(l->limits.max_binding, l->limits.max_buffer);
    const uint64_t unit = w->experts ? w->rows * row_bytes : row_bytes;
    const uint32_t units = w->experts ? weights_slots(l->w, l->c, l->layer) : w->rows;
    const uint64_t fit = limit / unit;
    if (fit < 1) {
        return err_set(l->err, DP_E_LIMIT,
                       "%s: tensor %.*s: %s has %llu bytes, a binding of this device %llu",
                       container_path(l->files), STR_ARG(name), w->experts ? "an expert" : "a row",
                       (unsigned long long)unit, (unsigned long long)limit);
    }
    w->n_parts = (uint32_t)((units + fit - 1) / fit);
    w->parts = arena_new(l->a, w->n_parts, sizeof *w->parts, "parts of a matrix", l->err);
    const uint64_t before = l->w->bytes;
    if (w->parts == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < w->n_parts; i++) {
        weight_part *p = &w->parts[i];
        p->first = (uint32_t)(i * fit);
        p->rows = (uint32_t)min_u64(fit, units - p->first);
        if (!layout_take(l, p->rows * unit, &p->range)) {
            return false;
        }
    }
    l->w->expert_bytes += w->experts ? l->w->bytes - before : 0;
    return true;
}

static bool check_type(const layout *l, const tensor *t, bool usable) {
    return usable || err_set(l->err, DP_E_UNSUPPORTED, "%s: tensor %.*s: type %s is not supported",
                             container_path(l->files), STR_ARG(t->name), dtype_get(t->type)->name);
}

/* Where a field's rows lie among those of its tensor. */
typedef struct {
    uint32_t total, first, step; /* rows of the tensor's matrix; those of the field */
    bool transposed;
} row_place;

static weight *begin_matrix(layout *l, weight *w, uint32_t n_pieces, bool experts, uint64_t rows,
                            uint64_t cols) {
    *w = (weight){ .rows = (uint32_t)rows, .cols = (uint32_t)cols, .experts = experts };
    w->pieces = arena_new(l->a, n_pieces, sizeof *w->pieces, "pieces of a matrix", l->err);
    w->n_pieces = w->pieces != NULL ? n_pieces : 0;
    return w->pieces != NULL ? w : NULL;
}

/* A tensor [total, cols] or [experts, total, cols], or the last two the other way round. */
static bool find_matrix(layout *l, weight *w, const tensor *t, uint32_t experts, uint64_t rows,
                        uint64_t cols, row_place at) {
    const uint64_t a = at.transposed ? cols : at.total, b = at.transposed ? at.total : cols;
    if (experts > 0 ? !has_shape(t, experts, a, b, 0) : !has_shape(t, a, b, 0, 0)) {
        char expected[80];
        if (experts > 0) {
            snprintf(expected, sizeof expected, "[%u, %llu, %llu]", experts, (unsigned long long)a,
                     (unsigned long long)b);
        } else {
            snprintf(expected, sizeof expected, "[%llu, %llu]", (unsigned long long)a,
                     (unsigned long long)b);
        }
        return shape_error(l, t, expected);
    }
    const bool plain = t->type == DTYPE_F32 || t->type == DTYPE_F16 || t->type == DTYPE_BF16;
    const uint32_t n = experts > 0 ? experts : 1;
    if (!check_type(l, t, at.transposed ? plain : type_is_usable(t->type)) ||
        begin_matrix(l, w, n, experts > 0, rows, cols) == NULL) {
        return false;
    }
    w->type = t->type;
    for (uint32_t e = 0; e < n; e++) {
        w->pieces[e] = (weight_piece){ .source = t,
                                       .base = e * a * b,
                                       .width = at.total,
                                       .first = at.first,
                                       .step = at.step,
                                       .transposed = at.transposed };
    }
    return place_matrix(l, w);
}

/* Experts as folders of GPT-OSS pack them: NAME_blocks [experts, total, cols / 32, 16] and
 * NAME_scales [experts, total, cols / 32] of bytes. */
static bool find_packed(layout *l, weight *w, const tensor *blocks, const tensor *scales,
                        uint32_t experts, uint64_t rows, uint64_t cols, row_place at) {
    if (cols % 32 != 0 || !has_shape(blocks, experts, at.total, cols / 32, 16)) {
        return shape_error(l, blocks, "[experts, rows, columns / 32, 16]");
    }
    if (!has_shape(scales, experts, at.total, cols / 32, 0)) {
        return shape_error(l, scales, "[experts, rows, columns / 32]");
    }
    if (!check_type(l, blocks, blocks->type == DTYPE_U8) ||
        !check_type(l, scales, scales->type == DTYPE_U8) ||
        begin_matrix(l, w, experts, true, rows, cols) == NULL) {
        return false;
    }
    w->type = DTYPE_MXFP4;
    for (uint32_t e = 0; e < experts; e++) {
        w->pieces[e] = (weight_piece){ .source = blocks,
                                       .scales = scales,
                                       .base = e * at.total * cols,
                                       .width = at.total,
                                       .first = at.first,
                                       .step = at.step };
    }
    return place_matrix(l, w);
}

/* [runs, total] elements, of each of which `rows` are the field's. */
static bool find_vector(layout *l, vector *v, const tensor *t, uint32_t runs, uint32_t rows,
                        row_place at) {
    if (t->n_elements != (uint64_t)runs * at.total || t->n_dims < 1 || t->n_dims > 2) {
        char expected[64];
        snprintf(expected, sizeof expected, runs > 1 ? "[%u, %u]" : "[%.0u%u]", runs > 1 ? runs : 0,
                 at.total);
        return shape_error(l, t, expected);
    }
    if (t->type != DTYPE_F32 && t->type != DTYPE_F16 && t->type != DTYPE_BF16) {
        return err_set(l->err, DP_E_UNSUPPORTED,
                       "%s: tensor %.*s: type %s is not supported for a vector",
                       container_path(l->files), STR_ARG(t->name), dtype_get(t->type)->name);
    }
    if ((uint64_t)runs * rows * sizeof(float) > l->limits.max_binding) {
        return err_set(l->err, DP_E_LIMIT,
                       "%s: tensor %.*s: needs %llu bytes in one binding, this device allows %llu",
                       container_path(l->files), STR_ARG(t->name),
                       (unsigned long long)runs * rows * sizeof(float),
                       (unsigned long long)l->limits.max_binding);
    }
    *v = (vector){ .source = t,
                   .n = runs * rows,
                   .run = rows,
                   .pitch = at.total,
                   .first = at.first,
                   .step = at.step };
    return layout_take(l, (uint64_t)v->n * sizeof(float), &v->range);
}

/* ---- finding a layer's fields -------------------------------------------------------------- */

/* The family's name for a field or a fusion; NULL if this container has none. */
static const char *name_of(const layout *l, const char *gguf, const char *hf) {
    for (const tensor_alias *a = l->c->family->names; a != NULL && a->field != NULL; a++) {
        if (gguf != NULL && strcmp(a->field, gguf) == 0) {
            const char *own = l->gguf ? a->gguf : a->hf;
            return own != NULL ? own : l->gguf ? gguf : hf;
        }
    }
    return l->gguf ? gguf : hf;
}

enum { NAME_MAX_BYTES = 192 };

/* The whole name of a tensor of the layer being planned; `expert` fills a %u of it. */
static void full_name(const layout *l, const char *name, uint32_t expert, const char *suffix,
                      char full[NAME_MAX_BYTES]) {
    const char *at = strstr(name, "%u");
    char number[16] = "";
    if (at != NULL) {
        snprintf(number, sizeof number, "%u", expert);
    }
    const int before = at != NULL ? (int)(at - name) : (int)strlen(name);
    const int n =
        snprintf(full, NAME_MAX_BYTES, "%s%u.%.*s%s%s%s", l->gguf ? "blk." : l->c->layer_prefix,
                 l->layer, before, name, number, at != NULL ? at + 2 : "", suffix);
    assert(n > 0 && n < NAME_MAX_BYTES);
    (void)n;
}

static const tensor *layer_tensor(const layout *l, const char *name, uint32_t expert,
                                  const char *suffix) {
    char full[NAME_MAX_BYTES];
    full_name(l, name, expert, suffix, full);
    return container_find(l->files, full);
}

static bool field_missing(const layout *l, const layer_field *f, uint32_t expert) {
    char full[NAME_MAX_BYTES];
    full_name(l, name_of(l, f->gguf, f->hf), expert, "", full);
    return err_set(l->err, DP_E_FORMAT, "%s: tensor %s: missing", container_path(l->files), full);
}

/* Where a field lies in the tensor of its fusion. Folders of GPT-OSS keep gate and up in turn and,
 * unpacked, matrices of experts [in, out]. */
static row_place fused_place(const layout *l, const layer_field *f) {
    const fusion *u = &FUSIONS[f->fuse - 1];
    row_place at = { .step = 1 };
    for (uint32_t i = 0; i < u->n; i++) {
        at.first += i < f->place ? extent_of(l->c, u->rows[i]) : 0;
        at.total += extent_of(l->c, u->rows[i]);
    }
    const bool matrices = f->fuse == FUSE_EXPERTS || f->fuse == FUSE_DOWN;
    if (!l->gguf && l->c->family->expert_rows_in_turn && f->kind != IS_MATRIX && u->n == 2) {
        at.first = f->place;
        at.step = 2;
    }
    at.transposed = !l->gguf && ((l->c->family->transposed && is_matrix(f)) ||
                                 (l->c->family->expert_rows_in_turn && matrices));
    return at;
}

static void mark_used(layout *l, const tensor *t) {
    l->used[t - container_tensor(l->files, 0)] = true;
}

static bool take_field(layout *l, const layer_field *f, void *where, const tensor *t,
                       row_place at) {
    const uint32_t rows = extent_of(l->c, f->rows);
    const bool experts = f->kind == IS_EXPERTS || f->kind == IS_EXPERT_VECTOR;
    const uint32_t n = experts ? l->c->n_experts : 0;
    mark_used(l, t);
    return is_matrix(f) ? find_matrix(l, where, t, n, rows, extent_of(l->c, f->cols), at)
                        : find_vector(l, where, t, n > 0 ? n : 1, rows, at);
}

/* The field as part of a fused tensor; *found says whether there is one. */
static bool find_fused(layout *l, const layer_field *f, void *where, bool *found) {
    *found = false;
    if (f->fuse == FUSE_NONE) {
        return true;
    }
    const fusion *u = &FUSIONS[f->fuse - 1];
    const char *name = u->alias != NULL ? name_of(l, u->alias, u->hf) : l->gguf ? u->gguf : u->hf;
    if (name == NULL) {
        return true;
    }
    const row_place at = fused_place(l, f);
    const tensor *blocks = f->kind == IS_EXPERTS ? layer_tensor(l, name, 0, "_blocks") : NULL;
    const tensor *scales = f->kind == IS_EXPERTS ? layer_tensor(l, name, 0, "_scales") : NULL;
    if (blocks != NULL && scales != NULL) {
        *found = true;
        mark_used(l, blocks);
        mark_used(l, scales);
        row_place packed = at;
        packed.transposed = false;
        return find_packed(l, where, blocks, scales, l->c->n_experts, extent_of(l->c, f->rows),
                           extent_of(l->c, f->cols), packed);
    }
    const tensor *t = layer_tensor(l, name, 0, "");
    if (t == NULL) {
        return true;
    }
    /* GGUF calls the fused gate and up what it calls up alone */
    const bool alone = f->fuse == FUSE_FFN && l->gguf && t->n_dims == 2 && t->shape[0] != at.total;
    *found = !alone;
    return alone || take_field(l, f, where, t, at);
}

/* Experts as a tensor each. */
static bool find_each_expert(layout *l, const layer_field *f, weight *w, const char *name) {
    const uint32_t rows = extent_of(l->c, f->rows), cols = extent_of(l->c, f->cols);
    if (begin_matrix(l, w, l->c->n_experts, true, rows, cols) == NULL) {
        return false;
    }
    for (uint32_t e = 0; e < l->c->n_experts; e++) {
        const tensor *t = layer_tensor(l, name, e, "");
        if (t == NULL) {
            return field_missing(l, f, e);
        }
        if (!has_shape(t, rows, cols, 0, 0)) {
            char expected[48];
            snprintf(expected, sizeof expected, "[%u, %u]", rows, cols);
            return shape_error(l, t, expected);
        }
        if (!check_type(l, t, type_is_usable(t->type) && (e == 0 || t->type == w->type))) {
            return false;
        }
        w->type = t->type;
        w->pieces[e] = (weight_piece){ .source = t, .width = rows, .step = 1 };
        mark_used(l, t);
    }
    return place_matrix(l, w);
}

static bool find_field(layout *l, const layer_field *f, void *where) {
    const field_need need = need_of(l->c, f->use);
    bool found = false;
    if (need == FIELD_ABSENT || !find_fused(l, f, where, &found) || found) {
        return need == FIELD_ABSENT || found;
    }
    const char *name = name_of(l, f->gguf, f->hf);
    if (name != NULL && strstr(name, "%u") != NULL) {
        return find_each_expert(l, f, where, name);
    }
    const tensor *t = name != NULL ? layer_tensor(l, name, 0, "") : NULL;
    if (t == NULL) {
        return need == FIELD_OPTIONAL || field_missing(l, f, 0);
    }
    const row_place at = { .total = extent_of(l->c, f->rows),
                           .step = 1,
                           .transposed = !l->gguf && l->c->family->transposed && is_matrix(f) };
    return take_field(l, f, where, t, at);
}

/* Folders store w where the formula has 1 + w: the norms that it is true of. */
static void add_one(const layout *l, layer_weights *w) {
    if (l->gguf || !l->c->family->norm_plus_one) {
        return;
    }
    w->attn_norm.add = w->post_attn_norm.add = w->ffn_norm.add = w->post_ffn_norm.add = 1;
    w->q_norm.add = w->k_norm.add = 1;
}

/* Buffers of older folders that hold what the engine computes itself. */
static bool is_derived(str name) {
    static const char *const endings[] = { ".rotary_emb.inv_freq", ".attn.bias",
                                           ".attn.masked_bias" };
    for (size_t i = 0; i < ARRAY_LEN(endings); i++) {
        if (str_ends(name, endings[i])) {
            return true;
        }
    }
    return false;
}

/* Every tensor of the layers must have been of use: what is left over is a part of the model that
 * is not known. */
static bool check_leftovers(layout *l) {
    static const char *const outside[] = { "output.bias", "token_embd_norm.weight",
                                           "lm_head.bias" };
    for (size_t i = 0; i < ARRAY_LEN(outside); i++) {
        if (container_find(l->files, outside[i]) != NULL) {
            return err_set(l->err, DP_E_UNSUPPORTED,
                           "%s: tensor %s: not known of '%s' models, and would be left out",
                           container_path(l->files), outside[i], l->c->architecture);
        }
    }
    const char *prefix = l->gguf ? "blk." : l->c->layer_prefix;
    for (uint32_t i = 0; i < container_n_tensors(l->files); i++) {
        const str name = container_tensor(l->files, i)->name;
        if (!l->used[i] && str_starts(name, prefix) && !is_derived(name)) {
            return err_set(
                l->err, DP_E_UNSUPPORTED,
                "%s: tensor %.*s: not known of '%s' models: a part of the model would be "
                "left out",
                container_path(l->files), STR_ARG(name), l->c->architecture);
        }
    }
    return true;
}

/* ---- the whole model ----------------------------------------------------------------------- */

enum { OUTER_NAMES = 5 };

/* Tensors outside the layers; folders have one of several names. */
static const struct {
    const char *gguf, *hf[OUTER_NAMES];
} OUTER[] = {
    { "token_embd.weight",
      { "model.embed_tokens.weight", "language_model.model.embed_tokens.weight",
        "model.language_model.embed_tokens.weight", "transformer.wte.weight", "wte.weight" } },
    { "output_norm.weight",
      { "model.norm.weight", "language_model.model.norm.weight", "model.language_model.norm.weight",
        "transformer.ln_f.weight", "ln_f.weight" } },
    { "output.weight", { "lm_head.weight", "language_model.lm_head.weight" } },
    { "position_embd.weight", { "transformer.wpe.weight", "wpe.weight" } },
    { "output_norm.bias", { "transformer.ln_f.bias", "ln_f.bias" } },
};
enum { EMBEDDING, OUTPUT_NORM, HEAD, POSITIONS, OUTPUT_NORM_BIAS };

static const tensor *find_outer(const layout *l, int which) {
    if (l->gguf) {
        return container_find(l->files, OUTER[which].gguf);
    }
    const tensor *t = NULL;
    for (size_t i = 0; i < OUTER_NAMES && t == NULL && OUTER[which].hf[i] != NULL; i++) {
        t = container_find(l->files, OUTER[which].hf[i]);
    }
    return t;
}

static const tensor *require_outer(const layout *l, int which) {
    const tensor *t = find_outer(l, which);
    if (t == NULL) {
        err_set(l->err, DP_E_FORMAT, "%s: tensor %s: missing", container_path(l->files),
                l->gguf ? OUTER[which].gguf : OUTER[which].hf[0]);
    }
    return t;
}

static bool plan_outer_vector(layout *l, vector *v, int which, uint32_t n) {
    const tensor *t = require_outer(l, which);
    return t != NULL && find_vector(l, v, t, 1, n, (row_place){ .total = n, .step = 1 });
}

static bool plan_outside(layout *l) {
    const config *c = l->c;
    weights *w = l->w;
    const tensor *t = require_outer(l, EMBEDDING);
    const row_place whole = { .total = c->vocab_size, .step = 1 };
    if (c->family->learned_positions && (uint64_t)c->context * c->dim > UINT32_MAX) {
        return err_set(l->err, DP_E_LIMIT, "%s: %u learned positions of %u",
                       container_path(l->files), c->context, c->dim);
    }
    if (t == NULL || !find_matrix(l, &w->embedding, t, 0, c->vocab_size, c->dim, whole) ||
        !plan_outer_vector(l, &w->output_norm, OUTPUT_NORM, c->dim) ||
        (c->family->layer_norm &&
         !plan_outer_vector(l, &w->output_norm_bias, OUTPUT_NORM_BIAS, c->dim)) ||
        (c->family->learned_positions &&
         !plan_outer_vector(l, &w->positions, POSITIONS, c->context * c->dim))) {
        return false;
    }
    w->output_norm.add = !l->gguf && c->family->norm_plus_one ? 1 : 0;
    t = c->head == HEAD_OWN ? require_outer(l, HEAD) : find_outer(l, HEAD);
    if (c->head == HEAD_OWN && t == NULL) {
        return false;
    }
    w->head = w->embedding;
    return c->head == HEAD_TIED || t == NULL ||
           find_matrix(l, &w->head, t, 0, c->vocab_size, c->dim, whole);
}

uint32_t weights_slots(const weights *w, const config *c, uint32_t layer) {
    return w->expert_slots / c->n_layers + (layer < w->expert_slots % c->n_layers);
}

bool weights_plan(weights *w, const config *c, const container *files, const weight_limits *limits,
                  arena *a, dp_error *err) {
    *w = (weights){ .expert_slots = limits->expert_slots > 0 ? limits->expert_slots
                                                             : c->n_experts * c->n_layers };
    layout l = { .w = w,
                 .c = c,
                 .files = files,
                 .limits = *limits,
                 .gguf = container_kind_of(files) == CONTAINER_GGUF,
                 .a = a,
                 .err = err };
    l.limits.max_binding &= ~(uint64_t)3;
    l.limits.max_buffer &= ~(uint64_t)255;
    w->layers = arena_new(a, c->n_layers, sizeof *w->layers, "layers", err);
    l.used = arena_new(a, container_n_tensors(files), sizeof *l.used, "tensors", err);
    if (w->layers == NULL || l.used == NULL || !plan_outside(&l)) {
        return false;
    }
    for (l.layer = 0; l.layer < c->n_layers; l.layer++) {
        layer_weights *layer = &w->layers[l.layer];
        for (size_t f = 0; f < ARRAY_LEN(LAYER_FIELDS); f++) {
            if (!find_field(&l, &LAYER_FIELDS[f], (char *)layer + LAYER_FIELDS[f].offset)) {
                return false;
            }
        }
        add_one(&l, layer);
    }
    return check_leftovers(&l);
}

/* ---- upload -------------------------------------------------------------------------------- */

typedef struct {
    gpu *g;
    container *files;
    const dp_model_options *options;
    uint64_t done, total;
    unsigned char *piece; /* [UPLOAD_BYTES] */
    dp_error *err;
} uploader;

static bool report_progress(uploader *u, uint64_t bytes) {
    u->done = min_u64(u->done + bytes, u->total);
    if (u->options != NULL && u->options->progress != NULL &&
        !u->options->progress(u->options->progress_user, u->done, u->total)) {
        return err_set(u->err, DP_E_CANCELLED, "%s: loading was cancelled",
                       container_path(u->files));
    }
    return true;
}

static bool upload_matrix(uploader *u, const weight *w) {
    if (w->n_pieces == 0) {
        return true;
    }
    uint64_t row_bytes = 0;
    const uint32_t step = upload_rows(w, &row_bytes);
    for (uint32_t i = 0; i < w->n_parts; i++) {
        const weight_part *p = &w->parts[i];
        const uint64_t unit = w->experts ? w->rows : 1;
        const uint64_t first = p->first * unit, n_rows = p->rows * unit;
        for (uint64_t row = 0; row < n_rows; row += step) {
            const uint32_t n = (uint32_t)min_u64(step, n_rows - row);
            const size_t bytes = (size_t)(n * row_bytes), padded = (size_t)align_up(bytes, 4);
            if (!weight_read(u->files, w, first + row, n, u->piece, u->err)) {
                return false;
            }
            memset(u->piece + bytes, 0, padded - bytes);
            if (!gpu_write(u->g, gpu_part(p->range, row * row_bytes, padded), u->piece, u->err) ||
                !report_progress(u, bytes)) {
                return false;
            }
        }
    }
    return true;
}

static bool upload_vector(uploader *u, const vector *v) {
    enum { AT_ONCE = UPLOAD_BYTES / sizeof(float) };
    for (uint32_t i = 0; v->source != NULL && i < v->n; i += AT_ONCE) {
        const uint32_t n = min_u32(AT_ONCE, v->n - i);
        if (!vector_read(u->files, v, i, n, (float *)(void *)u->piece, u->err) ||
            !gpu_write(u->g, gpu_part(v->range, i * sizeof(float), n * sizeof(float)), u->piece,
                       u->err) ||
            !report_progress(u, n * sizeof(float))) {
            return false;
        }
    }
    return true;
}

/* Of all experts, as the kernels want them: near enough to what the files have. */
static uint64_t file_bytes_of_experts(const weights *w, const config *c) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < c->n_layers; i++) {
        const layer_weights *l = &w->layers[i];
        const weight *const all[] = { &l->expert_gate, &l->expert_up, &l->expert_down };
        for (size_t k = 0; k < ARRAY_LEN(all); k++) {
            uint64_t row_bytes = 0;
            (void)dtype_row_bytes(all[k]->type, all[k]->cols, &row_bytes);
            sum += row_bytes * all[k]->rows * all[k]->n_pieces;
        }
    }
    return sum;
}

static bool upload_all(uploader *u, const weights *w, const config *c) {
    if (!upload_matrix(u, &w->embedding) || !upload_vector(u, &w->positions)) {
        return false;
    }
    const bool paged = weights_page_experts(w, c);
    for (uint32_t i = 0; i < c->n_layers; i++) {
        for (size_t f = 0; f < ARRAY_LEN(LAYER_FIELDS); f++) {
            const layer_field *field = &LAYER_FIELDS[f];
            const void *where = (const char *)&w->layers[i] + field->offset;
            if (field->kind == IS_EXPERTS && paged) {
                continue;
            }
            if (is_matrix(field) ? !upload_matrix(u, where) : !upload_vector(u, where)) {
                return false;
            }
        }
    }
    return upload_vector(u, &w->output_norm) && upload_vector(u, &w->output_norm_bias) &&
           (w->head.pieces == w->embedding.pieces || upload_matrix(u, &w->head));
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

bool weights_upload(weights *w, gpu *g, const config *c, container *files,
                    const dp_model_options *options, dp_error *err) {
    uploader u = { .g = g, .files = files, .options = options, .err = err };
    u.total = container_bytes(files);
    if (weights_page_experts(w, c)) {
        u.total -= min_u64(u.total, file_bytes_of_experts(w, c));
    }
    u.piece = mem_new(1, UPLOAD_BYTES, "upload buffer", err);
    const bool ok = u.piece != NULL && upload_all(&u, w, c);
    mem_free(u.piece);
    return ok;
}

void weights_free(weights *w) {
    for (weight_buffer *b = w->newest; b != NULL; b = b->older) {
        gpu_buffer_free(b->buffer);
        b->buffer = NULL;
    }
}
