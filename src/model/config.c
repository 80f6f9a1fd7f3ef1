/* config: the description of a model, out of GGUF metadata or a Hugging Face config.json.
 *
 * Both spellings end in the same struct; which switches a family has is in family.c, what scaled
 * RoPE means in rope.c. What would change the mathematics and is not known is refused by name: a
 * field of config.json, or a key below the architecture's, that is neither known nor off. Sources:
 * the GGUF specification's key list; transformers' configuration classes. */
#include "model/config_internal.h"

#include <math.h>
#include <stdio.h>

/* ---- shapes and factors -------------------------------------------------------------------- */

static void read_shapes(config_source *s, config *c) {
    c->n_layers = config_count(s, "block_count", "num_hidden_layers", LAYERS_MAX, 0);
    c->dim = config_count(s, "embedding_length", "hidden_size", DIM_MAX, 0);
    c->n_heads = config_count(s, "attention.head_count", "num_attention_heads", HEADS_MAX, 0);
    c->n_kv_heads =
        config_count(s, "attention.head_count_kv", "num_key_value_heads", HEADS_MAX, c->n_heads);
    /* GPT-2's folders leave it out; a file whose feed-forward networks are all experts may too */
    const bool usual = s->json != NULL ? s->family != NULL && s->family->ungated
                                       : config_meta(s, "expert_feed_forward_length") != NULL;
    c->ffn_dim = config_count(s, "feed_forward_length", "intermediate_size", FFN_MAX,
                              usual ? 4 * c->dim : 0);
    c->context = config_count(s, "context_length", "max_position_embeddings", CONTEXT_MAX, 0);
    const uint32_t even = c->n_heads > 0 ? c->dim / c->n_heads : 0;
    c->head_dim = config_count(s, "attention.key_length", "head_dim", HEAD_DIM_MAX,
                               max_u32(even, s->vocab_only ? 0 : 1));
    double x = c->head_dim;
    if (config_number(s, "attention.value_length", NULL, &x) && x != c->head_dim) {
        config_fail(s, DP_E_UNSUPPORTED, "attention.value_length", "differs from key_length");
    }
    if (s->json != NULL) {
        c->norm_eps = (float)config_positive(s, NULL, "rms_norm_eps", 1e-6);
    } else {
        const bool layer_norm = s->family != NULL && s->family->layer_norm;
        c->norm_eps = (float)config_positive(
            s, layer_norm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon",
            NULL, 1e-5);
    }
}

/* The dimensions that are turned: transformers gives a share of the head, GGUF a number. */
static void read_rope_dim(config_source *s, config *c) {
    if (s->json == NULL) {
        c->rope_dim = config_count(s, "rope.dimension_count", NULL, HEAD_DIM_MAX, c->head_dim);
        return;
    }
    double share = config_positive(s, NULL, "partial_rotary_factor", 1);
    (void)json_f64(json_get(json_get(s->json, "rope_parameters"), "partial_rotary_factor"), &share);
    if (!(share > 0 && share <= 1)) {
        config_fail(s, DP_E_FORMAT, "partial_rotary_factor", "not in (0, 1]");
        share = 1;
    }
    if (share != 1 && !config_list_has(s->family->hf_fields, STR("partial_rotary_factor"))) {
        config_fail(s, DP_E_UNSUPPORTED, "partial_rotary_factor",
                    "only 1 is supported in models of this kind");
    }
    c->rope_dim = (uint32_t)(c->head_dim * share);
}

static void read_experts(config_source *s, config *c) {
    /* transformers' families do not agree on the name */
    const char *hf = json_get(s->json, "num_experts") != NULL ? "num_experts" : "num_local_experts";
    c->n_experts = s->json != NULL && !s->family->experts
                       ? 0
                       : config_optional(s, "expert_count", hf, EXPERTS_MAX);
    c->expert_ffn_dim = c->ffn_dim;
    if (c->n_experts == 0) {
        if (s->family->experts) {
            config_fail(s, DP_E_FORMAT, s->json != NULL ? hf : "expert_count", "missing");
        }
        return;
    }
    c->n_experts_used =
        config_count(s, "expert_used_count", "num_experts_per_tok", EXPERTS_USED_MAX, 0);
    c->expert_ffn_dim =
        config_count(s, "expert_feed_forward_length", "moe_intermediate_size", FFN_MAX, c->ffn_dim);
    /* Qwen3-MoE's class takes false where config.json leaves it out; Mixtral has no such field */
    const bool listed = config_list_has(s->family->hf_fields, STR("norm_topk_prob"));
    c->normalise_route =
        config_bool(s, "expert_weights_norm", "norm_topk_prob", s->json == NULL || !listed);
    c->route_scale = (float)config_positive(s, "expert_weights_scale", NULL, 1);
    if (c->n_experts_used > c->n_experts) {
        s->failed = true;
        err_set(s->err, DP_E_FORMAT, "%s: %u experts used of %u", container_path(s->files),
                c->n_experts_used, c->n_experts);
    }
    /* 1: softmax over all experts, 3: over the chosen ones, which is the same once normalised */
    double gating = 1;
    if (config_number(s, "expert_gating_func", NULL, &gating) && gating != 1 && gating != 3) {
        config_fail(s, DP_E_UNSUPPORTED, "expert_gating_func", "only softmax is supported");
    }
    c->normalise_route = c->normalise_route || gating == 3;
}

static void read_factors(config_source *s, config *c) {
    const family *f = s->family;
    c->activation = f->activation;
    c->act_limit = (float)config_positive(s, NULL, "swiglu_limit", 7);
    c->act_alpha = (float)config_positive(s, NULL, "swiglu_alpha", 1.702);
    c->embedding_scale = (float)config_positive(s, "embedding_scale", "embedding_multiplier", 1);
    if (f->scale_embedding) {
        c->embedding_scale = sqrtf((float)c->dim);
    }
    c->residual_scale = (float)config_positive(s, "residual_scale", "residual_multiplier", 1);
    c->logits_scale =
        (float)(1 / (double)(float)config_positive(s, "logit_scale", "logits_scaling", 1));
    c->attention_softcap =
        (float)config_switched(s, "attn_logit_softcapping", "attn_logit_softcapping");
    c->logits_softcap =
        (float)config_switched(s, "final_logit_softcapping", "final_logit_softcapping");

    const bool large =
        s->json == NULL && f->gguf_layers_27b != 0 && c->n_layers == f->gguf_layers_27b;
    const double size = config_positive(s, NULL, "query_pre_attn_scalar",
                                        large ? (double)c->dim / c->n_heads : (double)c->head_dim);
    c->attention_scale =
        (float)config_positive(s, "attention.scale", "attention_multiplier", 1 / sqrt(size));
}

bool config_check_shapes(config_source *s, const config *c) {
    const char *path = container_path(s->files);
    if (c->n_kv_heads == 0 || c->n_heads % c->n_kv_heads != 0) {
        return err_set(s->err, DP_E_FORMAT,
                       "%s: %u attention heads are no multiple of %u key heads", path, c->n_heads,
                       c->n_kv_heads);
    }
    if (c->head_dim % 2 != 0 || c->head_dim > HEAD_DIM_MAX) {
        return err_set(s->err, DP_E_UNSUPPORTED, "%s: head size %u: even sizes to %u are supported",
                       path, c->head_dim, HEAD_DIM_MAX);
    }
    if (c->rope_dim % 2 != 0 || c->rope_dim > c->head_dim || c->rope_dim == 0) {
        return err_set(s->err, DP_E_FORMAT,
                       "%s: %u RoPE dimensions in heads of %u: an even number up to that expected",
                       path, c->rope_dim, c->head_dim);
    }
    if (c->dim % 4 != 0 || c->ffn_dim % 4 != 0 || c->expert_ffn_dim % 4 != 0 ||
        c->n_heads * c->head_dim % 4 != 0) {
        return err_set(s->err, DP_E_UNSUPPORTED,
                       "%s: width %u, feed-forward width %u, %u heads of %u: widths that are "
                       "multiples of 4 are supported",
                       path, c->dim, c->n_experts > 0 ? c->expert_ffn_dim : c->ffn_dim, c->n_heads,
                       c->head_dim);
    }
    return true;
}

/* All that follows from the family and the shapes, in either spelling. */
static bool read_description(config_source *s, config *c) {
    read_shapes(s, c);
    if (s->failed || s->vocab_only) {
        return !s->failed;
    }
    c->family = s->family;
    read_rope_dim(s, c);
    read_experts(s, c);
    read_factors(s, c);
    return !s->failed && config_check_shapes(s, c) && config_windows(s, c) && config_rope(s, c);
}

/* ---- GGUF ---------------------------------------------------------------------------------- */

static bool meta_is_off(const meta_value *v) {
    return (v->type == META_UINT && v->u == 0) || (v->type == META_INT && v->i == 0) ||
           (v->type == META_FLOAT && v->f == 0) || (v->type == META_BOOL && !v->b) ||
           (v->type == META_STRING && v->s.size == 0) || (v->type == META_ARRAY && v->n == 0);
}

/* A key below the architecture's that is not known changes the model in a way that is not known. */
static bool check_meta_keys(config_source *s) {
    static const char *const known[] = {
        "context_length",
        "embedding_length",
        "block_count",
        "feed_forward_length",
        "vocab_size",
        "attention.head_count",
        "attention.head_count_kv",
        "attention.key_length",
        "attention.value_length",
        "attention.layer_norm_rms_epsilon",
        "attention.layer_norm_epsilon",
        "attention.sliding_window",
        "attention.sliding_window_pattern",
        "attention.scale",
        "attn_logit_softcapping",
        "final_logit_softcapping",
        "rope.dimension_count",
        "rope.freq_base",
        "rope.freq_base_swa",
        "rope.scale_linear",
        "rope.scaling.type",
        "rope.scaling.factor",
        "rope.scaling.original_context_length",
        "rope.scaling.attn_factor",
        "rope.scaling.yarn_attn_factor",
        "rope.scaling.finetuned",
        "rope.scaling.yarn_beta_fast",
        "rope.scaling.yarn_beta_slow",
        "expert_count",
        "expert_used_count",
        "expert_feed_forward_length",
        "expert_weights_scale",
        "expert_weights_norm",
        "expert_gating_func",
        "embedding_scale",
        "residual_scale",
        "logit_scale",
        "pooling_type", /* of embeddings of whole texts; the logits are the same */
    };
    /* true says what is so anyway */
    static const char *const usual[] = { "attention.causal", "rope.scaling.yarn_ext_factor" };
    const size_t n = strlen(s->prefix);
    for (uint32_t i = 0; i < config_n_meta(s); i++) {
        str key;
        const meta_value *v = config_meta_at(s, i, &key);
        if (!str_starts(key, s->prefix) || key.size <= n + 1 || key.data[n] != '.') {
            continue;
        }
        const str rest = { key.data + n + 1, key.size - n - 1 };
        bool found = meta_is_off(v) && !str_is(rest, usual[0]) && !str_is(rest, usual[1]);
        const bool window = str_starts(rest, "attention.sliding_window");
        for (size_t k = 0; k < ARRAY_LEN(known) && !found; k++) {
            found = str_is(rest, known[k]) && !(window && s->family->window == WINDOW_NONE);
        }
        found = found || (str_is(rest, usual[0]) && v->type == META_BOOL && v->b) ||
                (str_is(rest, usual[1]) && v->type == META_FLOAT && v->f == 1) ||
                /* the parts that are not the language model */
                str_starts(rest, "vision.") || str_starts(rest, "mm.") ||
                /* the rows of Q and K are where Meta's files have them */
                (str_is(rest, "tensor_data_layout") && s->family->gguf_interleaved &&
                 v->type == META_STRING && str_is(v->s, "Meta AI original pth"));
        if (!found) {
            s->failed = true;
            return err_set(s->err, DP_E_UNSUPPORTED,
                           "%s: the key %.*s is not known and could change the model",
                           container_path(s->files), STR_ARG(key));
        }
    }
    return true;
}

/* Of the families that GGUF calls the same. Rows of Q and K lie alike in all of them. */
static const family *refined(const config *c) {
    const family *f = c->family;
    if (f != family_by_gguf("llama")) {
        return f;
    }
    for (uint32_t i = 0; i < c->n_layers; i++) {
        if (c->layer_window[i] > 0 && c->n_experts == 0) {
            return family_by_hf(STR("mistral"));
        }
    }
    return c->n_experts > 0 ? family_by_hf(STR("mixtral")) : f;
}

bool config_from_gguf(config_source *s, config *c) {
    const meta_value *v = config_meta_named(s, "general.architecture");
    if (v == NULL || v->type != META_STRING) {
        return s->vocab_only || config_fail(s, DP_E_FORMAT, "general.architecture", "missing");
    }
    c->architecture = arena_copy(s->arena, v->s.data, v->s.size, s->err);
    if (c->architecture == NULL) {
        return false;
    }
    s->prefix = c->architecture;
    s->family = family_by_gguf(c->architecture);
    if (s->family == NULL && !s->vocab_only) {
        s->failed = true;
        return err_set(s->err, DP_E_UNSUPPORTED, "%s: architecture '%.60s' is not supported",
                       container_path(s->files), c->architecture);
    }
    const tensor *table = s->list == NULL ? container_find(s->files, "token_embd.weight") : NULL;
    if (table != NULL && table->n_dims == 2 && table->shape[0] <= VOCAB_MAX) {
        c->vocab_size = (uint32_t)table->shape[0]; /* need not be said elsewhere */
    }
    c->rope_interleaved = s->family != NULL && s->family->gguf_interleaved;
    if ((!s->vocab_only && !check_meta_keys(s)) || !read_description(s, c)) {
        return false;
    }
    c->family = s->vocab_only ? c->family : refined(c);
    return true;
}

/* ---- config.json --------------------------------------------------------------------------- */

/* Known to every family, and those that say nothing of inference. */
static const char COMMON_FIELDS[] =
    " model_type architectures vocab_size hidden_size intermediate_size num_hidden_layers "
    "num_attention_heads num_key_value_heads head_dim hidden_act max_position_embeddings "
    "rms_norm_eps rope_theta rope_scaling rope_parameters tie_word_embeddings attention_bias "
    "mlp_bias partial_rotary_factor layer_types "
    /* no part of the pass */
    "transformers_version torch_dtype dtype use_cache initializer_range bos_token_id eos_token_id "
    "pad_token_id sep_token_id decoder_start_token_id unk_token_id attention_dropout "
    "hidden_dropout embd_pdrop resid_pdrop attn_pdrop output_router_logits router_aux_loss_coef "
    "router_jitter_noise pretraining_tp auto_map unsloth_version unsloth_fixed "
    "task_specific_params cache_implementation return_dict output_attentions "
    "output_hidden_states torchscript use_bfloat16 pruned_heads chunk_size_feed_forward "
    "is_encoder_decoder is_decoder id2label label2id problem_type tokenizer_class prefix "
    "finetuning_task quantization_config transformers.js_config is_llama_config summary_type "
    "summary_use_proj "
    "summary_activation summary_proj_to_labels summary_first_dropout mm_tokens_per_image "
    "boi_token_index eoi_token_index image_token_index boi_token_id eoi_token_id image_token_id "
    "num_labels keys_to_ignore_at_inference is_causal name_or_path mask_token_id "
    "hidden_dropout_prob attention_probs_dropout_prob classifier_dropout gradient_checkpointing "
    "attn_implementation experts_implementation use_return_dict output_past tie_encoder_decoder "
    "tf_legacy_loss max_sequence_length model_max_length "
    /* generation settings of old folders */
    "temperature top_k top_p do_sample num_beams num_beam_groups repetition_penalty "
    "length_penalty diversity_penalty typical_p max_length min_length no_repeat_ngram_size "
    "encoder_no_repeat_ngram_size early_stopping num_return_sequences output_scores "
    "return_dict_in_generate forced_bos_token_id forced_eos_token_id remove_invalid_values "
    "exponential_decay_length_penalty suppress_tokens begin_suppress_tokens bad_words_ids "
    "max_new_tokens min_new_tokens min_p epsilon_cutoff eta_cutoff renormalize_logits "
    "encoder_repetition_penalty assistant_confidence_threshold assistant_lookbehind "
    "num_assistant_tokens num_assistant_tokens_schedule target_lookbehind ";

bool config_is_off(const json_value *v) {
    bool b = true;
    double x = 1;
    str s = { 0 };
    return json_is_null(v) || (json_bool(v, &b) && !b) || (json_f64(v, &x) && x == 0) ||
           (json_string(v, &s) && s.size == 0) ||
           ((json_is_array(v) || json_is_object(v)) && json_count(v) == 0);
}

static bool field_is_known(const family *f, str name) {
    return config_list_has(COMMON_FIELDS, name) || config_list_has(f->hf_fields, name);
}

/* A field that is not known changes the model in a way that is not known, unless it is off. */
static bool check_fields(config_source *s, const json_value *object, const char *more) {
    for (json_iter it = json_each(object); json_next(&it);) {
        if (config_is_off(it.value) || (it.key.size > 0 && it.key.data[0] == '_') ||
            field_is_known(s->family, it.key) || config_list_has(more, it.key)) {
            continue;
        }
        s->failed = true;
        return err_set(s->err, DP_E_UNSUPPORTED,
                       "%s: config.json: the field %.*s is not known of '%s' models and could "
                       "change the result",
                       container_path(s->files), STR_ARG(it.key), s->family->hf);
    }
    static const char *const ones[] = { "full_attn_mod", "interpolate_factor",
                                        "decoder_sparse_step" };
    for (size_t i = 0; i < ARRAY_LEN(ones); i++) {
        double x = 1;
        if (json_f64(json_get(object, ones[i]), &x) && x != 1) {
            return config_fail(s, DP_E_UNSUPPORTED, ones[i], "only 1 is supported");
        }
    }
    /* for these it is "off" that would change the model */
    static const char *const ons[] = { "scale_attn_weights", "use_qk_norm", "is_causal" };
    for (size_t i = 0; i < ARRAY_LEN(ons); i++) {
        bool on = true;
        if (json_bool(json_get(object, ons[i]), &on) && !on &&
            field_is_known(s->family, str_of(ons[i]))) {
            return config_fail(s, DP_E_UNSUPPORTED, ons[i], "only true is supported");
        }
    }
    return true;
}

/* The activation that config.json names must be the family's. */
static bool check_activation(config_source *s) {
    static const char *const names[] = { "hidden_activation", "activation_function", "hidden_act" };
    str act = { 0 };
    for (size_t i = 0; i < ARRAY_LEN(names) && act.size == 0; i++) {
        (void)json_string(json_get(s->json, names[i]), &act);
    }
    const bool gelu =
        str_is(act, "gelu_pytorch_tanh") || str_is(act, "gelu_new") || str_is(act, "gelu_fast");
    const bool silu = str_is(act, "silu") || str_is(act, "swish");
    if (act.size == 0 || (s->family->activation == ACT_GELU ? gelu : silu)) {
        return true;
    }
    s->failed = true;
    return err_set(s->err, DP_E_UNSUPPORTED, "%s: the activation '%.*s' is not supported",
                   container_path(s->files), STR_ARG(act));
}

/* Quantised folders: only GPT-OSS's own MXFP4 is read as it is. */
static bool check_quantisation(config_source *s) {
    const json_value *q = json_get(s->json, "quantization_config");
    str method = { 0 };
    if (!json_is_object(q) ||
        (s->family->sinks && json_string(json_get(q, "quant_method"), &method) &&
         str_is(method, "mxfp4"))) {
        return true;
    }
    return config_fail(s, DP_E_UNSUPPORTED, "quantization_config",
                       "this kind of quantised folder is not supported");
}

/* Where the tensors of a folder's or pack's layers lie: GPT-2 has names of its own, models with a
 * vision tower have the language model below another name. */
static const char *find_layer_prefix(const container *files) {
    static const char *const prefixes[] = {
        "model.layers.",
        "language_model.model.layers.",
        "model.language_model.layers.",
        "transformer.h.",
        "h.",
    };
    for (size_t i = 0; i < ARRAY_LEN(prefixes); i++) {
        char first[64];
        snprintf(first, sizeof first, "%s0.", prefixes[i]);
        for (uint32_t t = 0; t < container_n_tensors(files); t++) {
            if (str_starts(container_tensor(files, t)->name, first)) {
                return prefixes[i];
            }
        }
    }
    return prefixes[0];
}

bool config_from_json(config_source *s, config *c) {
    str type = { 0 };
    if (!json_string(json_get(s->json, "model_type"), &type)) {
        return s->vocab_only || config_fail(s, DP_E_FORMAT, "model_type", "missing");
    }
    c->architecture = arena_copy(s->arena, type.data, type.size, s->err);
    if (c->architecture == NULL) {
        return false;
    }
    s->family = family_by_hf(type);
    if (s->family == NULL && !s->vocab_only) {
        s->failed = true;
        return err_set(s->err, DP_E_UNSUPPORTED, "%s: model_type '%.60s' is not supported",
                       container_path(s->files), c->architecture);
    }
    /* a model with a vision tower has its language model's fields in an object of their own */
    const bool nested = s->family != NULL && !str_is(type, s->family->hf);
    if (s->family != NULL && !s->vocab_only &&
        (!check_fields(s, s->json, nested ? "text_config vision_config" : "") ||
         !check_quantisation(s))) {
        return false;
    }
    bool tied = false;
    const json_value *tie = json_get(s->json, "tie_word_embeddings");
    if (nested) {
        const json_value *text = json_get(s->json, "text_config");
        if (!json_is_object(text)) {
            return config_fail(s, DP_E_FORMAT, "text_config", "missing");
        }
        s->json = text;
        if (!s->vocab_only && (!check_fields(s, text, "") || !check_quantisation(s))) {
            return false;
        }
        tie = tie != NULL ? tie : json_get(s->json, "tie_word_embeddings");
    }
    double usual = 0;
    if (json_bool(tie, &tied)) {
        c->head = tied ? HEAD_TIED : HEAD_OWN;
    } else if (s->family != NULL && family_default(s->family, "tie_word_embeddings", &usual) &&
               usual != 0) {
        c->head = HEAD_TIED; /* even if the folder has a copy of it as a head */
    }
    c->vocab_size = config_count(s, NULL, "vocab_size", VOCAB_MAX, 0);
    if (s->family != NULL && s->family->yarn_exact && !s->vocab_only &&
        !json_is_object(json_get(s->json, "rope_scaling")) &&
        !json_is_object(json_get(s->json, "rope_parameters"))) {
        return config_fail(s, DP_E_FORMAT, "rope_scaling", "missing"); /* not: no scaling */
    }
    c->layer_prefix = find_layer_prefix(s->files);
    return (s->family == NULL || s->vocab_only || check_activation(s)) && read_description(s, c);
}

static bool read_defaults(container *files, config *c, dp_error *err) {
    dp_error problem = { 0 };
    const json_value *v = container_json(files, "generation_config.json", &problem);
    if (problem.status != DP_OK) {
        return err_set(err, problem.status, "%s", problem.message);
    }
    double x = 0;
    if (json_f64(json_get(v, "temperature"), &x) && x >= 0 && x <= 100) {
        c->temperature = (float)x;
    }
    if (json_f64(json_get(v, "top_p"), &x) && x > 0 && x <= 1) {
        c->top_p = (float)x;
    }
    if (json_f64(json_get(v, "top_k"), &x) && x >= 0 && x <= VOCAB_MAX) {
        c->top_k = (uint32_t)x;
    }
    return true;
}

static bool read_config(config *c, container *files, bool vocab_only, arena *a, dp_error *err) {
    *c = (config){ .architecture = "", .layer_prefix = "" };
    config_source s = { .files = files, .vocab_only = vocab_only, .arena = a, .err = err };
    if (container_kind_of(files) == CONTAINER_GGUF) {
        return config_from_gguf(&s, c);
    }
    if (container_kind_of(files) == CONTAINER_RDRR) {
        return config_from_pack(&s, c) && read_defaults(files, c, err);
    }
    dp_error problem = { 0 };
    s.json = container_json(files, "config.json", &problem);
    if (problem.status != DP_OK) {
        return err_set(err, problem.status, "%s", problem.message);
    }
    if (s.json == NULL) {
        return vocab_only ||
               err_set(err, DP_E_FORMAT, "%s: config.json: missing", container_path(files));
    }
    return config_from_json(&s, c) && read_defaults(files, c, err);
}

bool config_read(config *c, container *files, bool vocab_only, arena *a, dp_error *err) {
    dp_error first = { 0 }; /* so that the first failure is kept even if the caller passed NULL */
    if (!vocab_only) {
        return read_config(c, files, false, a, err != NULL ? err : &first);
    }
    if (read_config(c, files, false, a, &first)) {
        return true;
    }
    dp_error second = { 0 };
    const bool ok = read_config(c, files, true, a, err != NULL ? err : &second);
    c->refusal = first;
    return ok;
}
