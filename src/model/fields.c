/* fields: the one table of a model's tensors: what a layer may have, under which name each
 * container keeps it, which shape it must have, and what may stand fused in one tensor; families
 * add names (family.c). Tensor names: GGUF's standard names, and those of transformers. */
#include "model/weights_internal.h"

#include <stdio.h>

const fusion FUSIONS[] = {
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

#define FIELD(member) offsetof(layer_weights, member)

const layer_field LAYER_FIELDS[] = {
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
const size_t N_LAYER_FIELDS = ARRAY_LEN(LAYER_FIELDS);

const outer_tensor OUTER[N_OUTER] = {
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

/* The tensor of a pack with this role and group; NULL if there is none or more than one. */
static const tensor *find_by_role(const container *files, const char *role, const char *group) {
    const tensor *found = NULL;
    for (uint32_t i = 0; i < container_n_tensors(files); i++) {
        const tensor *t = container_tensor(files, i);
        if (str_is(t->role, role) && str_is(t->group, group)) {
            if (found != NULL) {
                return NULL;
            }
            found = t;
        }
    }
    return found;
}

/* Packs keep their source's names, whatever it was, but say what the tensors are for. */
static const tensor *find_in_pack(const container *files, int which) {
    static const struct {
        const char *role, *group;
        const char *names[5];
    } outer[N_OUTER] = {
        [EMBEDDING] = { "embedding",
                        "embed",
                        { "language_model.embed_tokens.weight", "embed_tokens.weight",
                          "tok_embeddings.weight", "token_embd.weight",
                          "model.decoder.embed_tokens.weight" } },
        [OUTPUT_NORM] = { "norm",
                          "head",
                          { "language_model.norm.weight", "norm.weight", "output_norm.weight" } },
        [HEAD] = { "lm_head", "head", { "output.weight" } },
    };
    const tensor *t = NULL;
    for (size_t i = 0; i < 5 && t == NULL && outer[which].names[i] != NULL; i++) {
        t = container_find(files, outer[which].names[i]);
    }
    return t == NULL && outer[which].role != NULL
               ? find_by_role(files, outer[which].role, outer[which].group)
               : t;
}

const tensor *outer_find(const container *files, int which) {
    const tensor_spelling s = spelling_of(files);
    if (s == SPELLING_GGUF) {
        return container_find(files, OUTER[which].gguf);
    }
    const tensor *t = NULL;
    for (size_t i = 0; i < OUTER_NAMES && t == NULL && OUTER[which].hf[i] != NULL; i++) {
        t = container_find(files, OUTER[which].hf[i]);
    }
    return t == NULL && s == SPELLING_PACK ? find_in_pack(files, which) : t;
}

tensor_spelling spelling_of(const container *files) {
    switch (container_kind_of(files)) {
    case CONTAINER_GGUF:
        return SPELLING_GGUF;
    case CONTAINER_SAFETENSORS:
        return SPELLING_FOLDER;
    case CONTAINER_RDRR:
        return SPELLING_PACK;
    }
    assert(!"a kind of container");
    return SPELLING_FOLDER;
}

uint32_t extent_of(const config *c, extent e) {
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

static field_need bias_need(const config *c, uint32_t bit) {
    return c->family->biases & bit ? FIELD_REQUIRED : FIELD_OPTIONAL;
}

field_need need_of(const config *c, field_use use) {
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

const char *field_name(const config *c, tensor_spelling s, const char *gguf, const char *hf) {
    const bool is_gguf = s == SPELLING_GGUF;
    for (const tensor_alias *a = c->family->names; a != NULL && a->field != NULL; a++) {
        if (gguf != NULL && strcmp(a->field, gguf) == 0) {
            const char *own = is_gguf ? a->gguf : a->hf;
            return own != NULL ? own : is_gguf ? gguf : hf;
        }
    }
    return is_gguf ? gguf : hf;
}

const char *fusion_name(const config *c, tensor_spelling s, const fusion *u) {
    if (u->alias != NULL) {
        return field_name(c, s, u->alias, u->hf);
    }
    return s == SPELLING_GGUF ? u->gguf : u->hf;
}

void full_tensor_name(const config *c, tensor_spelling s, uint32_t layer, const char *name,
                      uint32_t expert, const char *suffix, char full[TENSOR_NAME_BYTES]) {
    const char *at = strstr(name, "%u");
    char number[16] = "";
    if (at != NULL) {
        snprintf(number, sizeof number, "%u", expert);
    }
    const int before = at != NULL ? (int)(at - name) : (int)strlen(name);
    const int n = snprintf(full, TENSOR_NAME_BYTES, "%s%u.%.*s%s%s%s",
                           s == SPELLING_GGUF ? "blk." : c->layer_prefix, layer, before, name,
                           number, at != NULL ? at + 2 : "", suffix);
    assert(n > 0 && n < TENSOR_NAME_BYTES);
    (void)n;
}

row_place place_alone(const config *c, tensor_spelling s, const layer_field *f) {
    return (row_place){ .total = extent_of(c, f->rows),
                        .step = 1,
                        .transposed =
                            s == SPELLING_FOLDER && c->family->transposed && is_matrix(f) };
}

row_place place_fused(const config *c, tensor_spelling s, const layer_field *f) {
    const fusion *u = &FUSIONS[f->fuse - 1];
    row_place at = { .step = 1 };
    for (uint32_t i = 0; i < u->n; i++) {
        at.first += i < f->place ? extent_of(c, u->rows[i]) : 0;
        at.total += extent_of(c, u->rows[i]);
    }
    if (s != SPELLING_FOLDER) {
        return at;
    }
    if (c->family->expert_rows_in_turn && f->kind != IS_MATRIX && u->n == 2) {
        at.first = f->place;
        at.step = 2;
    }
    const bool matrices = f->fuse == FUSE_EXPERTS || f->fuse == FUSE_DOWN;
    at.transposed =
        (c->family->transposed && is_matrix(f)) || (c->family->expert_rows_in_turn && matrices);
    return at;
}
