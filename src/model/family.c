/* family: one entry for each architecture that the engine knows: where it differs from the plain
 * Llama transformer, how it names its tensors, which fields of config.json it has.
 *
 * Nothing here computes; config.c reads a model's numbers into a description with these switches,
 * weights.c finds its tensors, forward.c acts on the description alone. Sources: the modelling and
 * configuration files of Hugging Face transformers, the GGUF specification's list of keys and
 * tensor names. docs/model.md has a page for each. */
#include "model/model.h"

/* Tensors are found by GGUF's standard names (LAYER_FIELDS); what differs: */
static const tensor_alias SANDWICH_NAMES[] = {
    { "ffn_norm.weight", NULL, "pre_feedforward_layernorm.weight" },
    { NULL, NULL, NULL },
};
static const tensor_alias GPT2_NAMES[] = {
    { "attn_norm.weight", NULL, "ln_1.weight" },
    { "attn_norm.bias", NULL, "ln_1.bias" },
    { "attn_qkv.weight", NULL, "attn.c_attn.weight" },
    { "attn_qkv.bias", NULL, "attn.c_attn.bias" },
    { "attn_output.weight", NULL, "attn.c_proj.weight" },
    { "attn_output.bias", NULL, "attn.c_proj.bias" },
    { "ffn_norm.weight", NULL, "ln_2.weight" },
    { "ffn_norm.bias", NULL, "ln_2.bias" },
    { "ffn_up.weight", NULL, "mlp.c_fc.weight" },
    { "ffn_up.bias", NULL, "mlp.c_fc.bias" },
    { "ffn_down.weight", NULL, "mlp.c_proj.weight" },
    { "ffn_down.bias", NULL, "mlp.c_proj.bias" },
    { NULL, NULL, NULL },
};
static const tensor_alias MIXTRAL_NAMES[] = {
    { "ffn_gate_inp.weight", NULL, "block_sparse_moe.gate.weight" },
    { "ffn_gate_exps.weight", NULL, "block_sparse_moe.experts.%u.w1.weight" },
    { "ffn_down_exps.weight", NULL, "block_sparse_moe.experts.%u.w2.weight" },
    { "ffn_up_exps.weight", NULL, "block_sparse_moe.experts.%u.w3.weight" },
    { NULL, NULL, NULL },
};
static const tensor_alias GPT_OSS_NAMES[] = {
    { "ffn_norm.weight", "post_attention_norm.weight", NULL },
    { "ffn_gate_inp.weight", NULL, "mlp.router.weight" },
    { "ffn_gate_inp.bias", NULL, "mlp.router.bias" },
    { NULL, NULL, NULL },
};

/* Fields under another name than usual: { ours, the family's }, ended by NULL. */
static const char *const GPT2_FIELDS[] = {
    "hidden_size",
    "n_embd",
    "num_hidden_layers",
    "n_layer",
    "num_attention_heads",
    "n_head",
    "intermediate_size",
    "n_inner",
    "max_position_embeddings",
    "n_positions",
    "rms_norm_eps",
    "layer_norm_epsilon",
    NULL,
};

/* What transformers takes for a field that config.json leaves out, where families differ. */
static const field_default MISTRAL_DEFAULTS[] = { { "num_key_value_heads", 8 },
                                                  { "sliding_window", 4096 },
                                                  { NULL, 0 } };
static const field_default MIXTRAL_DEFAULTS[] = { { "num_key_value_heads", 8 },
                                                  { "num_experts_per_tok", 2 },
                                                  { "rope_theta", 1e6 },
                                                  { "rms_norm_eps", 1e-5 },
                                                  { NULL, 0 } };
static const field_default QWEN2_DEFAULTS[] = { { "num_key_value_heads", 32 },
                                                { "sliding_window", 4096 },
                                                { "max_window_layers", 28 },
                                                { NULL, 0 } };
static const field_default QWEN3_DEFAULTS[] = { { "num_key_value_heads", 32 },
                                                { "head_dim", 128 },
                                                { "sliding_window", 4096 },
                                                { "max_window_layers", 28 },
                                                { NULL, 0 } };
static const field_default QWEN3_MOE_DEFAULTS[] = { { "num_key_value_heads", 4 },
                                                    { "num_experts_per_tok", 8 },
                                                    { "moe_intermediate_size", 768 },
                                                    { NULL, 0 } };
static const field_default SMOLLM3_DEFAULTS[] = { { "num_key_value_heads", 4 },
                                                  { "rope_theta", 2e6 },
                                                  { "no_rope_layer_interval", 4 },
                                                  { "tie_word_embeddings", true },
                                                  { NULL, 0 } };
static const field_default GEMMA2_DEFAULTS[] = {
    { "num_key_value_heads", 4 },      { "head_dim", 256 },
    { "query_pre_attn_scalar", 256 },  { "attn_logit_softcapping", 50 },
    { "final_logit_softcapping", 30 }, { "sliding_window", 4096 },
    { "tie_word_embeddings", true },   { NULL, 0 },
};
static const field_default GEMMA3_DEFAULTS[] = {
    { "num_attention_heads", 8 },
    { "num_key_value_heads", 4 },
    { "head_dim", 256 },
    { "vocab_size", 262208 },
    { "max_position_embeddings", 131072 },
    { "query_pre_attn_scalar", 256 },
    { "sliding_window", 4096 },
    { "rope_theta", 1e6 },
    { "rope_local_base_freq", 1e4 },
    { "tie_word_embeddings", true },
    { NULL, 0 },
};
static const field_default GPT2_DEFAULTS[] = { { "rms_norm_eps", 1e-5 },
                                               { "tie_word_embeddings", true },
                                               { NULL, 0 } };
static const field_default PHI3_DEFAULTS[] = { { "rms_norm_eps", 1e-5 },
                                               { "original_max_position_embeddings", 4096 },
                                               { NULL, 0 } };
static const field_default OLMO2_DEFAULTS[] = { { "rms_norm_eps", 1e-5 }, { NULL, 0 } };
static const field_default GRANITE_DEFAULTS[] = { { "attention_multiplier", 1 }, { NULL, 0 } };
static const field_default GPT_OSS_DEFAULTS[] = {
    { "num_key_value_heads", 8 }, { "head_dim", 64 },        { "num_experts_per_tok", 4 },
    { "rms_norm_eps", 1e-5 },     { "rope_theta", 150000 },  { "swiglu_limit", 7 },
    { "swiglu_alpha", 1.702 },    { "sliding_window", 128 }, { NULL, 0 },
};

static const family FAMILIES[] = {
    /* Llama 2 and 3, SmolLM2, TinyLlama; GGUF files of Mistral and Mixtral say "llama" too */
    { .gguf = "llama",
      .hf = "llama",
      .hf_class = "LlamaForCausalLM",
      .bias_switches = BIAS_QKV | BIAS_O | BIAS_FFN,
      .gguf_interleaved = true,
      .window = WINDOW_ALL,
      .hf_fields = "" },
    { .gguf = "llama",
      .hf = "mistral",
      .hf_class = "MistralForCausalLM",
      .gguf_interleaved = true,
      .window = WINDOW_ALL,
      .defaults = MISTRAL_DEFAULTS,
      .hf_fields = "sliding_window" },
    { .gguf = "llama",
      .hf = "mixtral",
      .hf_class = "MixtralForCausalLM",
      .gguf_interleaved = true,
      .window = WINDOW_ALL,
      .experts = true,
      .names = MIXTRAL_NAMES,
      .defaults = MIXTRAL_DEFAULTS,
      .hf_fields = "sliding_window num_local_experts num_experts_per_tok" },
    { .gguf = "smollm3",
      .hf = "smollm3",
      .hf_class = "SmolLM3ForCausalLM",
      .bias_switches = BIAS_QKV | BIAS_O | BIAS_FFN,
      .gguf_interleaved = true,
      .rope_interval = 4,
      .window = WINDOW_SWITCHED,
      .defaults = SMOLLM3_DEFAULTS,
      /* not use_sliding_window: its windows go by the layers without RoPE */
      .hf_fields = "sliding_window max_window_layers no_rope_layers no_rope_layer_interval" },
    { .gguf = "gpt2",
      .biases = BIAS_QKV | BIAS_O | BIAS_FFN,
      .hf = "gpt2",
      .hf_class = "GPT2LMHeadModel",
      .layer_norm = true,
      .learned_positions = true,
      .activation = ACT_GELU,
      .ungated = true,
      .fused_qkv = true,
      .transposed = true,
      .names = GPT2_NAMES,
      .fields = GPT2_FIELDS,
      .defaults = GPT2_DEFAULTS,
      .hf_fields = "n_embd n_layer n_head n_inner n_positions n_ctx layer_norm_epsilon "
                   "activation_function scale_attn_weights reorder_and_upcast_attn n_special "
                   "predict_special_tokens" },
    { .gguf = "qwen2",
      .biases = BIAS_QKV,
      .hf = "qwen2",
      .hf_class = "Qwen2ForCausalLM",
      .window = WINDOW_SWITCHED,
      .defaults = QWEN2_DEFAULTS,
      .hf_fields = "sliding_window use_sliding_window max_window_layers use_mrope" },
    { .gguf = "qwen3",
      .hf = "qwen3",
      .hf_class = "Qwen3ForCausalLM",
      .bias_switches = BIAS_QKV | BIAS_O,
      .window = WINDOW_SWITCHED,
      .qk_norm = QK_NORM_HEAD,
      .defaults = QWEN3_DEFAULTS,
      .hf_fields = "sliding_window use_sliding_window max_window_layers" },
    { .gguf = "qwen3moe",
      .hf = "qwen3_moe",
      .hf_class = "Qwen3MoeForCausalLM",
      .bias_switches = BIAS_QKV | BIAS_O,
      .window = WINDOW_SWITCHED,
      .qk_norm = QK_NORM_HEAD,
      .experts = true,
      .defaults = QWEN3_MOE_DEFAULTS,
      /* not use_sliding_window: its class has windows on all layers, whatever max_window_layers */
      .hf_fields = "sliding_window max_window_layers num_experts num_local_experts "
                   "num_experts_per_tok moe_intermediate_size norm_topk_prob "
                   "decoder_sparse_step use_qk_norm" },
    { .gguf = "gemma2",
      .hf = "gemma2",
      .hf_class = "Gemma2ForCausalLM",
      .bias_switches = BIAS_QKV | BIAS_O,
      .norm_plus_one = true,
      .norms = NORMS_BOTH,
      .activation = ACT_GELU,
      .scale_embedding = true,
      .window = WINDOW_PERIOD,
      .period = 2,
      .gguf_layers_27b = 46,
      .names = SANDWICH_NAMES,
      .defaults = GEMMA2_DEFAULTS,
      /* sliding_window_size: a copy of sliding_window in the larger models' files */
      .hf_fields = "sliding_window sliding_window_size hidden_activation query_pre_attn_scalar "
                   "attn_logit_softcapping final_logit_softcapping" },
    { .gguf = "gemma3",
      .hf = "gemma3_text",
      .hf_class = "Gemma3ForCausalLM",
      .bias_switches = BIAS_QKV | BIAS_O,
      .norm_plus_one = true,
      .norms = NORMS_BOTH,
      .activation = ACT_GELU,
      .scale_embedding = true,
      .qk_norm = QK_NORM_HEAD,
      .window = WINDOW_PERIOD,
      .period = 6,
      .local_rope = true,
      .gguf_layers_27b = 62,
      .names = SANDWICH_NAMES,
      .defaults = GEMMA3_DEFAULTS,
      .hf_fields = "sliding_window sliding_window_pattern hidden_activation "
                   "query_pre_attn_scalar attn_logit_softcapping final_logit_softcapping "
                   "rope_local_base_freq" },
    { .hf = "gemma3", .same_as = "gemma3_text" }, /* with a vision tower: the text part of it */
    { .gguf = "phi3",
      .fused_qkv = true,
      .fused_ffn = true,
      .hf = "phi3",
      .hf_class = "Phi3ForCausalLM",
      .window = WINDOW_ALL,
      .defaults = PHI3_DEFAULTS,
      .hf_fields = "sliding_window original_max_position_embeddings full_attn_mod "
                   "interpolate_factor partial_rotary_factor" },
    { .gguf = "olmo2",
      .hf = "olmo2",
      .hf_class = "Olmo2ForCausalLM",
      .bias_switches = BIAS_QKV | BIAS_O,
      .norms = NORMS_POST,
      .qk_norm = QK_NORM_WIDTH,
      .defaults = OLMO2_DEFAULTS,
      .hf_fields = "" },
    { .gguf = "granite",
      .hf = "granite",
      .hf_class = "GraniteForCausalLM",
      .bias_switches = BIAS_QKV | BIAS_O | BIAS_FFN,
      .gguf_interleaved = true,
      .defaults = GRANITE_DEFAULTS,
      .hf_fields = "embedding_multiplier residual_multiplier attention_multiplier "
                   "logits_scaling" },
    { .gguf = "gpt-oss",
      .biases = BIAS_QKV | BIAS_O | BIAS_ROUTER | BIAS_EXPERTS,
      .hf = "gpt_oss",
      .hf_class = "GptOssForCausalLM",
      .activation = ACT_SWIGLU_OAI,
      .window = WINDOW_PERIOD,
      .period = 2,
      .sinks = true,
      .experts = true,
      .expert_rows_in_turn = true,
      .yarn_exact = true,
      .names = GPT_OSS_NAMES,
      .defaults = GPT_OSS_DEFAULTS,
      .hf_fields = "sliding_window num_local_experts num_experts_per_tok experts_per_token "
                   "initial_context_length swiglu_limit swiglu_alpha" },
};

const family *family_by_gguf(const char *architecture) {
    for (size_t i = 0; i < ARRAY_LEN(FAMILIES); i++) {
        if (FAMILIES[i].gguf != NULL && strcmp(FAMILIES[i].gguf, architecture) == 0) {
            return &FAMILIES[i];
        }
    }
    return NULL;
}

const family *family_by_hf(str model_type) {
    for (size_t i = 0; i < ARRAY_LEN(FAMILIES); i++) {
        if (str_is(model_type, FAMILIES[i].hf)) {
            return FAMILIES[i].same_as != NULL ? family_by_hf(str_of(FAMILIES[i].same_as))
                                               : &FAMILIES[i];
        }
    }
    return NULL;
}

const family *family_like(const family *f) {
    for (size_t i = 0; i < ARRAY_LEN(FAMILIES); i++) {
        const family *k = &FAMILIES[i];
        if (k->same_as == NULL && k->norms == f->norms && k->qk_norm == f->qk_norm &&
            k->activation == f->activation && k->layer_norm == f->layer_norm &&
            k->norm_plus_one == f->norm_plus_one && k->ungated == f->ungated &&
            k->learned_positions == f->learned_positions && k->experts == f->experts &&
            k->scale_embedding == f->scale_embedding && k->local_rope == f->local_rope &&
            k->biases == f->biases && k->sinks == f->sinks) {
            return k;
        }
    }
    return NULL;
}

const char *family_field(const family *f, const char *field) {
    for (const char *const *pair = f->fields; pair != NULL && pair[0] != NULL; pair += 2) {
        if (strcmp(pair[0], field) == 0) {
            return pair[1];
        }
    }
    return field;
}

bool family_default(const family *f, const char *field, double *value) {
    for (const field_default *d = f->defaults; d != NULL && d->field != NULL; d++) {
        if (strcmp(d->field, field) == 0) {
            *value = d->value;
            return true;
        }
    }
    return false;
}
