/* config_rdrr: the description of an RDRR pack.
 *
 * A pack with a `config` that names a model type is read as a folder's config.json, and the sizes
 * of `architecture` must agree with it. In any other pack `architecture`, `moeConfig` and
 * `inference` describe the model by switches: they become a family of the pack's own (family.c),
 * with the names that its tensors have. A field that is missing is off, as null is, whatever the
 * dialect; what is on and not known is refused by name. What says how to run and not what (session,
 * execution, kernelPath, kernelHints, optimizations, quantizationInfo) is not read. Source: the
 * public project's manifests, validator and loader. */
#include "model/config_internal.h"
#include "model/weights_internal.h"

#include <math.h>
#include <stdio.h>

typedef struct {
    config_source s; /* `json`: the group of fields being read */
    const json_value *manifest, *inference;
    config *c;
    family *f;
    const char *group;
    double partial, local_partial; /* shares of a head that are turned */
    bool gpt_oss;
} pack_reader;

/* ---- fields of a group --------------------------------------------------------------------- */

static bool pack_refuse(pack_reader *p, dp_status status, const char *field, const char *why) {
    char what[96];
    snprintf(what, sizeof what, "%s.%s", p->group, field);
    return config_fail(&p->s, status, what, why);
}

/* `known` lists the fields that are read or that change nothing; others must be off. */
static void enter_group(pack_reader *p, const char *group, const json_value *object,
                        const char *known) {
    p->group = group;
    p->s.json = object;
    if (object != NULL && !json_is_null(object) && !json_is_object(object)) {
        config_fail(&p->s, DP_E_FORMAT, group, "not an object");
    }
    for (json_iter it = json_each(json_is_object(object) ? object : NULL); json_next(&it);) {
        if (!config_list_has(known, it.key) && !config_is_off(it.value) && !p->s.failed) {
            p->s.failed = true;
            err_set(p->s.err, DP_E_UNSUPPORTED,
                    "%s: manifest.json: %s.%.*s is not known and could change the result",
                    container_path(p->s.files), group, STR_ARG(it.key));
        }
    }
}

static double pack_number(pack_reader *p, const char *field, double off) {
    return config_positive(&p->s, NULL, field, off);
}

/* Absent and null: 0. */
static double pack_switched(pack_reader *p, const char *field) {
    return config_switched(&p->s, NULL, field);
}

static bool pack_flag(pack_reader *p, const char *field) {
    return config_bool(&p->s, NULL, field, false);
}

static str pack_text(pack_reader *p, const char *field) {
    const json_value *v = json_get(p->s.json, field);
    str text = { 0 };
    if (v != NULL && !json_is_null(v) && !json_string(v, &text)) {
        pack_refuse(p, DP_E_FORMAT, field, "not a string");
    }
    return text;
}

static void pack_must_be_off(pack_reader *p, const char *field) {
    const json_value *v = json_get(p->s.json, field);
    if (v != NULL && !config_is_off(v)) {
        pack_refuse(p, DP_E_UNSUPPORTED, field, "is on, which is not supported");
    }
}

static void pack_bad_value(pack_reader *p, const char *field, str value) {
    char why[96];
    snprintf(why, sizeof why, "'%.*s' is not supported", (int)min_u64(value.size, 60), value.data);
    pack_refuse(p, DP_E_UNSUPPORTED, field, why);
}

/* ---- what the tensors say ------------------------------------------------------------------ */

/* Prefixes of layers' names in packs, the ones that say more first. */
static const char *const LAYER_PREFIXES[] = {
    "model.decoder.layers.",
    "model.encoder.language_model.layers.",
    "model.language_model.layers.",
    "language_model.model.layers.",
    "language_model.layers.",
    "model.layers.",
    "layers.",
    "blk.",
};

static const char *prefix_of_layers(const container *files) {
    for (size_t i = 0; i < ARRAY_LEN(LAYER_PREFIXES); i++) {
        char first[64];
        snprintf(first, sizeof first, "%s0.", LAYER_PREFIXES[i]);
        for (uint32_t t = 0; t < container_n_tensors(files); t++) {
            if (str_starts(container_tensor(files, t)->name, first)) {
                return LAYER_PREFIXES[i];
            }
        }
    }
    return "model.layers.";
}

static const tensor *first_layer_tensor(const pack_reader *p, const char *suffix) {
    char name[TENSOR_NAME_BYTES];
    full_tensor_name(p->c, SPELLING_PACK, 0, suffix, 0, "", name);
    return container_find(p->s.files, name);
}

/* Names of Meta's and Mixtral's files, by GGUF's. */
static const char *const OTHER_NAMES[][2] = {
    { "attn_norm.weight", "attention_norm.weight" },
    { "attn_q.weight", "attention.wq.weight" },
    { "attn_k.weight", "attention.wk.weight" },
    { "attn_v.weight", "attention.wv.weight" },
    { "attn_output.weight", "attention.wo.weight" },
    { "attn_q.bias", "attention.wq.bias" },
    { "attn_k.bias", "attention.wk.bias" },
    { "attn_v.bias", "attention.wv.bias" },
    { "attn_output.bias", "attention.wo.bias" },
    { "ffn_gate.weight", "feed_forward.w1.weight" },
    { "ffn_down.weight", "feed_forward.w2.weight" },
    { "ffn_up.weight", "feed_forward.w3.weight" },
    { "ffn_gate_inp.weight", "block_sparse_moe.gate.weight" },
    { "ffn_gate_exps.weight", "block_sparse_moe.experts.%u.w1.weight" },
    { "ffn_down_exps.weight", "block_sparse_moe.experts.%u.w2.weight" },
    { "ffn_up_exps.weight", "block_sparse_moe.experts.%u.w3.weight" },
};

/* Which spelling of a field the pack has; `usual` if none. */
static const char *present_name(const pack_reader *p, const char *gguf, const char *usual) {
    if (first_layer_tensor(p, usual) != NULL) {
        return usual;
    }
    for (size_t i = 0; i < ARRAY_LEN(OTHER_NAMES); i++) {
        if (strcmp(OTHER_NAMES[i][0], gguf) == 0 &&
            first_layer_tensor(p, OTHER_NAMES[i][1]) != NULL) {
            return OTHER_NAMES[i][1];
        }
    }
    return first_layer_tensor(p, gguf) != NULL ? gguf : usual;
}

/* The family's own names where the pack's tensors are called otherwise than is usual. */
static bool name_tensors(pack_reader *p) {
    const size_t n_fusions = FUSE_DOWN_BIAS;
    tensor_alias *list = arena_new(p->s.arena, N_LAYER_FIELDS + n_fusions + 1, sizeof *list,
                                   "names of tensors", p->s.err);
    if (list == NULL) {
        return false;
    }
    tensor_alias *to = list;
    for (size_t i = 0; i < N_LAYER_FIELDS; i++) {
        const layer_field *field = &LAYER_FIELDS[i];
        const bool sandwich =
            p->f->norms == NORMS_BOTH && field->offset == offsetof(layer_weights, ffn_norm);
        const char *usual = field_name(p->c, SPELLING_PACK, field->gguf,
                                       sandwich ? "pre_feedforward_layernorm.weight" : field->hf);
        const char *gguf = field_name(p->c, SPELLING_GGUF, field->gguf, NULL);
        const char *found = usual != NULL ? present_name(p, field->gguf, usual) : NULL;
        if (found != NULL && (field->hf == NULL || strcmp(found, field->hf) != 0 ||
                              strcmp(gguf, field->gguf) != 0)) {
            *to++ = (tensor_alias){ field->gguf, gguf, found };
        }
    }
    for (size_t i = 0; i < n_fusions; i++) { /* these are called by GGUF's names or their own */
        const fusion *u = &FUSIONS[i];
        if (u->alias != NULL && first_layer_tensor(p, u->hf) == NULL &&
            first_layer_tensor(p, u->gguf) != NULL) {
            *to++ = (tensor_alias){ u->alias, u->gguf, u->gguf };
        }
    }
    p->f->names = list;
    return true;
}

/* ---- the groups ---------------------------------------------------------------------------- */

static void read_architecture(pack_reader *p) {
    config *c = p->c;
    /* sizes of parts that no supported model has are off */
    enter_group(p, "architecture", json_get(p->manifest, "architecture"),
                "numLayers hiddenSize intermediateSize numAttentionHeads numKeyValueHeads headDim "
                "vocabSize maxSeqLen ropeTheta linearNormMode rmsNormEps");
    c->n_layers = config_count(&p->s, NULL, "numLayers", LAYERS_MAX, 0);
    c->dim = config_count(&p->s, NULL, "hiddenSize", DIM_MAX, 0);
    c->ffn_dim = config_count(&p->s, NULL, "intermediateSize", FFN_MAX, 0);
    c->n_heads = config_count(&p->s, NULL, "numAttentionHeads", HEADS_MAX, 0);
    c->n_kv_heads = config_count(&p->s, NULL, "numKeyValueHeads", HEADS_MAX, c->n_heads);
    const uint32_t even = c->n_heads > 0 ? c->dim / c->n_heads : 0;
    c->head_dim = config_count(&p->s, NULL, "headDim", HEAD_DIM_MAX, even);
    c->vocab_size = config_count(&p->s, NULL, "vocabSize", VOCAB_MAX, 0);
    c->context = config_count(&p->s, NULL, "maxSeqLen", CONTEXT_MAX, 0);
    c->rope[ROPE_GLOBAL].theta = pack_number(p, "ropeTheta", 0); /* if rope has none */
}

static void read_moe(pack_reader *p) {
    config *c = p->c;
    c->expert_ffn_dim = c->ffn_dim;
    c->route_scale = 1;
    enter_group(p, "moeConfig", json_get(p->manifest, "moeConfig"),
                "numExperts numExpertsPerToken expertFormat expertIntermediateSize expertSize");
    c->n_experts = config_optional(&p->s, NULL, "numExperts", EXPERTS_MAX);
    if (c->n_experts == 0) {
        return;
    }
    const str format = pack_text(p, "expertFormat");
    c->n_experts_used = config_count(&p->s, NULL, "numExpertsPerToken", EXPERTS_USED_MAX, 0);
    c->expert_ffn_dim = config_count(&p->s, NULL, "expertIntermediateSize", FFN_MAX, c->ffn_dim);
    c->normalise_route = true;
    p->f->experts = true;
    p->gpt_oss = str_is(format, "gpt-oss");
    if (!p->gpt_oss && !str_is(format, "mixtral")) {
        pack_bad_value(p, "expertFormat", format);
    }
    if (c->n_experts_used > c->n_experts) {
        pack_refuse(p, DP_E_FORMAT, "numExpertsPerToken", "more than there are experts");
    }
}

static void read_pack_attention(pack_reader *p) {
    config *c = p->c;
    family *f = p->f;
    enter_group(p, "inference.attention", json_get(p->inference, "attention"),
                "queryPreAttnScalar attnLogitSoftcapping slidingWindow queryKeyNorm "
                "queryKeyNormType queryKeyNormAxis queryKeyNormLayers queryKeyNormWeightLayers "
                "valueNorm causal attentionBias attentionOutputGate outputGateType");
    c->attention_scale = (float)(1 / sqrt(pack_number(p, "queryPreAttnScalar", c->head_dim)));
    c->attention_softcap = (float)pack_switched(p, "attnLogitSoftcapping");
    pack_must_be_off(p, "valueNorm");
    pack_must_be_off(p, "attentionOutputGate");
    if (!config_bool(&p->s, NULL, "causal", true)) {
        pack_refuse(p, DP_E_UNSUPPORTED, "causal", "only true is supported");
    }
    f->biases |= pack_flag(p, "attentionBias") ? BIAS_QKV : 0;
    if (!pack_flag(p, "queryKeyNorm")) {
        return;
    }
    static const char *const lists[] = { "queryKeyNormLayers", "queryKeyNormWeightLayers" };
    for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
        const json_value *layers = json_get(p->s.json, lists[i]);
        if (layers != NULL && !json_is_null(layers) &&
            !(json_is_array(layers) && json_count(layers) == c->n_layers)) {
            pack_refuse(p, DP_E_UNSUPPORTED, lists[i], "only norms in every layer are supported");
        }
    }
    const str type = pack_text(p, "queryKeyNormType"), axis = pack_text(p, "queryKeyNormAxis");
    if (type.size > 0 && !str_is(type, "rmsnorm")) {
        pack_bad_value(p, "queryKeyNormType", type);
    }
    if (axis.size > 0 && !str_is(axis, "head") && !str_is(axis, "projection")) {
        pack_bad_value(p, "queryKeyNormAxis", axis);
    }
    /* older manifests do not say: a weight as wide as all heads does */
    const tensor *w = first_layer_tensor(p, "self_attn.q_norm.weight");
    w = w != NULL ? w : first_layer_tensor(p, "attn_q_norm.weight");
    const bool wide = axis.size == 0 && w != NULL && c->n_heads > 1 &&
                      w->n_elements == (uint64_t)c->n_heads * c->head_dim;
    f->qk_norm = wide || str_is(axis, "projection") ? QK_NORM_WIDTH : QK_NORM_HEAD;
}

static void read_normalization(pack_reader *p) {
    enter_group(p, "inference.normalization", json_get(p->inference, "normalization"),
                "rmsNormEps rmsNormWeightOffset postAttentionNorm preFeedforwardNorm "
                "postFeedforwardNorm type finalNormBiasTensor");
    const str type = pack_text(p, "type");
    if (type.size > 0 && !str_is(type, "rmsnorm")) {
        pack_bad_value(p, "type", type);
    }
    pack_must_be_off(p, "finalNormBiasTensor");
    p->c->norm_eps = (float)pack_number(p, "rmsNormEps", 0);
    if (p->c->norm_eps == 0) {
        pack_refuse(p, DP_E_FORMAT, "rmsNormEps", "missing");
    }
    p->f->norm_plus_one = pack_flag(p, "rmsNormWeightOffset");
    /* postAttentionNorm only says that a tensor has that name */
    const bool before = pack_flag(p, "preFeedforwardNorm"),
               after = pack_flag(p, "postFeedforwardNorm");
    const bool in_front = first_layer_tensor(p, "input_layernorm.weight") != NULL ||
                          first_layer_tensor(p, "attention_norm.weight") != NULL ||
                          first_layer_tensor(p, "attn_norm.weight") != NULL;
    p->f->norms = !after ? NORMS_PRE : before ? NORMS_BOTH : NORMS_POST;
    if (before != after && (before || in_front)) {
        pack_refuse(p, DP_E_UNSUPPORTED, "preFeedforwardNorm",
                    "only both norms of the feed-forward network or none are supported");
    }
}

static void read_ffn(pack_reader *p) {
    family *f = p->f;
    config *c = p->c;
    enter_group(p, "inference.ffn", json_get(p->inference, "ffn"),
                "activation gatedActivation branchMode useDoubleWideMlp swigluLimit");
    const str act = pack_text(p, "activation"), mode = pack_text(p, "branchMode");
    const bool silu = str_is(act, "silu") || str_is(act, "swish") || str_is(act, "swiglu");
    const bool gelu = str_is(act, "gelu") || str_is(act, "geglu") || str_is(act, "gelu_tanh") ||
                      str_is(act, "gelu_pytorch_tanh");
    if (!silu && !gelu) {
        pack_bad_value(p, "activation", act);
    }
    f->activation = p->gpt_oss ? ACT_SWIGLU_OAI : gelu ? ACT_GELU : ACT_SILU;
    f->ungated = !config_bool(&p->s, NULL, "gatedActivation", true);
    if (mode.size > 0 && !str_is(mode, "auto") &&
        !str_is(mode, c->n_experts > 0 ? "moe" : "dense")) {
        pack_bad_value(p, "branchMode", mode);
    }
    pack_must_be_off(p, "useDoubleWideMlp");
    const double limit = pack_switched(p, "swigluLimit");
    if (limit > 0 && !p->gpt_oss) {
        pack_refuse(p, DP_E_UNSUPPORTED, "swigluLimit", "supported with gpt-oss experts alone");
    }
    c->activation = f->activation;
    c->act_limit = limit > 0 ? (float)limit : 7.0F;
    c->act_alpha = 1.702F;
}

static void read_pack_output(pack_reader *p) {
    config *c = p->c;
    enter_group(p, "inference.output", json_get(p->inference, "output"),
                "tieWordEmbeddings scaleEmbeddings embeddingScale logitInputScale "
                "embeddingTranspose embeddingVocabSize finalLogitSoftcapping "
                "embeddingPostprocessor lmHeadBiasTensor");
    const json_value *tied = json_get(p->s.json, "tieWordEmbeddings");
    if (tied != NULL && !json_is_null(tied)) {
        c->head = pack_flag(p, "tieWordEmbeddings") ? HEAD_TIED : HEAD_OWN;
    }
    pack_must_be_off(p, "embeddingTranspose");
    pack_must_be_off(p, "embeddingPostprocessor");
    pack_must_be_off(p, "lmHeadBiasTensor");
    p->f->scale_embedding = pack_flag(p, "scaleEmbeddings");
    const double scale = pack_switched(p, "embeddingScale");
    if (scale > 0 && p->f->scale_embedding) {
        pack_refuse(p, DP_E_FORMAT, "embeddingScale", "given beside scaleEmbeddings");
    }
    c->embedding_scale = p->f->scale_embedding ? sqrtf((float)c->dim)
                         : scale > 0           ? (float)scale
                                               : 1;
    c->logits_scale = (float)pack_number(p, "logitInputScale", 1);
    c->logits_softcap = (float)pack_switched(p, "finalLogitSoftcapping");
    c->vocab_size =
        config_count(&p->s, NULL, "embeddingVocabSize", VOCAB_MAX, max_u32(c->vocab_size, 1));
}

/* ---- layers -------------------------------------------------------------------------------- */

/* The kinds of a custom pattern, one a layer. */
static void read_layer_kinds(pack_reader *p, const json_value *kinds, uint32_t window) {
    config *c = p->c;
    uint32_t n_moe = 0;
    if (!json_is_array(kinds) || json_count(kinds) != c->n_layers) {
        pack_refuse(p, DP_E_FORMAT, "layerTypes", "expected one for each layer");
        return;
    }
    for (uint32_t i = 0; i < c->n_layers; i++) {
        str kind = { 0 };
        (void)json_string(json_at(kinds, i), &kind);
        const bool sliding = str_is(kind, "sliding_attention");
        n_moe += str_is(kind, "moe");
        if (!sliding && !str_is(kind, "full_attention") && !str_is(kind, "moe")) {
            pack_bad_value(p, "layerTypes", kind);
            return;
        }
        if (sliding && window == 0) {
            pack_refuse(p, DP_E_FORMAT, "layerTypes", "a window, but slidingWindow is null");
        }
        c->layer_window[i] = sliding ? window : 0;
    }
    if (n_moe != 0 && (n_moe != c->n_layers || c->n_experts == 0)) {
        pack_refuse(p, DP_E_UNSUPPORTED, "layerTypes", "only experts in every layer or in none");
    }
}

static void read_layer_pattern(pack_reader *p, uint32_t window) {
    config *c = p->c;
    enter_group(p, "inference.layerPattern", json_get(p->inference, "layerPattern"),
                "type globalPattern period offset residualBranchScale layerTypes");
    c->residual_scale = (float)pack_number(p, "residualBranchScale", 1);
    const str type = pack_text(p, "type"), global = pack_text(p, "globalPattern");
    if (str_is(type, "custom")) {
        read_layer_kinds(p, json_get(p->s.json, "layerTypes"), window);
        return;
    }
    uint32_t period = 0, first = 0; /* of layers without a window */
    if (str_is(type, "alternating")) {
        period = 2;
        first = str_is(global, "odd");
        if (!str_is(global, "odd") && !str_is(global, "even")) {
            pack_bad_value(p, "globalPattern", global);
        }
    } else if (str_is(type, "every_n")) {
        period = config_count(&p->s, NULL, "period", LAYERS_MAX, 0);
        first = config_optional(&p->s, NULL, "offset", LAYERS_MAX);
    } else if (type.size > 0 && !str_is(type, "uniform") && !str_is(type, "all_attention")) {
        pack_bad_value(p, "type", type);
    }
    if (period > 0 && window == 0) {
        pack_refuse(p, DP_E_FORMAT, "type", "a pattern of windows, but slidingWindow is null");
    }
    for (uint32_t i = 0; i < c->n_layers; i++) {
        const bool everywhere = period == 0 || i % period == first % period;
        c->layer_window[i] = period > 0 && everywhere ? 0 : window;
    }
}

static const double *read_factors_list(pack_reader *p, const char *field) {
    const uint32_t n = p->c->rope_dim / 2;
    const json_value *list = json_get(p->s.json, field);
    if (!json_is_array(list) || json_count(list) != n) {
        pack_refuse(p, DP_E_FORMAT, field, "expected one factor for each pair of RoPE dimensions");
        return NULL;
    }
    double *d = arena_new(p->s.arena, n, sizeof *d, "RoPE factors", p->s.err);
    p->s.failed = p->s.failed || d == NULL;
    for (uint32_t i = 0; d != NULL && i < n; i++) {
        double x = 0;
        if (!json_f64(json_at(list, i), &x) || !(x > 1e-6 && x < 1e9)) {
            pack_refuse(p, DP_E_FORMAT, field, "a factor is not a positive number");
            return NULL;
        }
        d[i] = (double)(float)x;
    }
    return d;
}

static void read_pack_scaling(pack_reader *p, rope_scaling *r, const char *type, const char *factor,
                              const char *const yarn[3]) {
    const str name = pack_text(p, type);
    if (name.size > 0 && !rope_scaling_by_name(name, &r->kind)) {
        pack_bad_value(p, type, name);
    }
    if (r->kind == SCALING_LLAMA3) { /* the schema has no place for its numbers */
        pack_refuse(p, DP_E_UNSUPPORTED, type, "'llama3' without its factors");
    }
    r->factor = pack_number(p, factor, 1);
    if (r->kind == SCALING_YARN) {
        r->beta_fast = pack_number(p, yarn[0], 32);
        r->beta_slow = pack_number(p, yarn[1], 1);
        r->original_context = pack_number(p, yarn[2], 0);
        r->exact = p->gpt_oss;
        if (r->original_context == 0) {
            pack_refuse(p, DP_E_FORMAT, yarn[2], "missing");
        }
    }
}

static bool share_fits(const config *c, double share, double limit) {
    return share > 0 && share <= 1 && (uint32_t)(c->head_dim * share) == limit;
}

static void read_pack_rope(pack_reader *p) {
    static const char *const yarn[] = { "yarnBetaFast", "yarnBetaSlow", "yarnOriginalMaxPos" };
    static const char *const local[] = { "ropeLocalYarnBetaFast", "ropeLocalYarnBetaSlow",
                                         "ropeLocalYarnOriginalMaxPos" };
    config *c = p->c;
    rope_scaling *r = c->rope;
    enter_group(p, "inference.rope", json_get(p->inference, "rope"),
                "ropeTheta ropeLocalTheta mropeInterleaved mropeSection partialRotaryFactor "
                "ropeLocalPartialRotaryFactor ropeFrequencyBaseDim ropeLocalFrequencyBaseDim "
                "ropeScalingType ropeScalingFactor ropeLocalScalingType ropeLocalScalingFactor "
                "yarnBetaFast yarnBetaSlow yarnOriginalMaxPos ropeLocalYarnBetaFast "
                "ropeLocalYarnBetaSlow ropeLocalYarnOriginalMaxPos longropeShortFactor "
                "longropeLongFactor longropeOriginalMaxPos ropeInterleaved");
    pack_must_be_off(p, "mropeInterleaved");
    pack_must_be_off(p, "mropeSection");
    const double share = pack_number(p, "partialRotaryFactor", 1);
    c->rope_dim = share <= 1 ? (uint32_t)(c->head_dim * share) : 0;
    c->rope_interleaved = pack_flag(p, "ropeInterleaved");
    const double local_share = pack_number(p, "ropeLocalPartialRotaryFactor", 1);
    const double base = pack_number(p, "ropeFrequencyBaseDim", c->rope_dim),
                 local_base = pack_number(p, "ropeLocalFrequencyBaseDim", c->rope_dim);
    r[ROPE_GLOBAL].theta = pack_number(p, "ropeTheta", r[ROPE_GLOBAL].theta);
    if (r[ROPE_GLOBAL].theta == 0) {
        pack_refuse(p, DP_E_FORMAT, "ropeTheta", "missing");
    }
    const double local_theta = pack_switched(p, "ropeLocalTheta");
    p->f->local_rope = local_theta > 0 && local_theta != r[ROPE_GLOBAL].theta;
    r[ROPE_LOCAL].theta = p->f->local_rope ? local_theta : 10000;
    if (base != c->rope_dim || (p->f->local_rope && local_base != c->rope_dim)) {
        pack_refuse(p, DP_E_UNSUPPORTED, "ropeFrequencyBaseDim",
                    "only the number of turned dimensions is supported");
    }
    if (p->f->local_rope && !share_fits(c, local_share, c->rope_dim)) {
        pack_refuse(p, DP_E_UNSUPPORTED, "ropeLocalPartialRotaryFactor",
                    "only the same share in all layers is supported");
    }
    read_pack_scaling(p, &r[ROPE_GLOBAL], "ropeScalingType", "ropeScalingFactor", yarn);
    if (p->f->local_rope) {
        read_pack_scaling(p, &r[ROPE_LOCAL], "ropeLocalScalingType", "ropeLocalScalingFactor",
                          local);
    }
    if (r[ROPE_GLOBAL].kind == SCALING_LONG && !p->s.failed) {
        r->short_factors = read_factors_list(p, "longropeShortFactor");
        r->long_factors = read_factors_list(p, "longropeLongFactor");
        r->original_context = pack_number(p, "longropeOriginalMaxPos", 0);
        r->factor = r->original_context > 0 ? c->context / r->original_context : 1;
    }
    for (uint32_t i = 0; i < c->n_layers; i++) {
        c->layer_rope[i] = p->f->local_rope && c->layer_window[i] > 0 ? ROPE_LOCAL : ROPE_GLOBAL;
    }
}

/* ---- the whole ----------------------------------------------------------------------------- */

/* A pack whose switches are those of a known family is one of it: then it can be written as another
 * format's. */
static void adopt_family(pack_reader *p) {
    const config *c = p->c;
    bool windows = false;
    for (uint32_t i = 0; i < c->n_layers; i++) {
        windows = windows || c->layer_window[i] > 0;
    }
    const bool usual = c->embedding_scale == 1 && c->residual_scale == 1 && c->logits_scale == 1 &&
                       c->attention_scale == (float)(1 / sqrt(c->head_dim));
    const family *like = family_like(p->f);
    if (like != NULL && like == family_by_hf(STR("llama"))) {
        like = !usual                       ? family_by_hf(STR("granite"))
               : c->rope_dim != c->head_dim ? family_by_hf(STR("phi3"))
               : windows                    ? family_by_hf(STR("mistral"))
                                            : like;
    }
    if (like != NULL) {
        *p->f = *like;
    }
}

static bool check_model_type(pack_reader *p) {
    static const char *const known[] = { "transformer", "causal_lm", "text", "moe" };
    str type = { 0 };
    if (!json_string(json_get(p->manifest, "modelType"), &type)) {
        return config_fail(&p->s, DP_E_FORMAT, "modelType", "missing");
    }
    bool found = family_by_hf(type) != NULL;
    for (size_t i = 0; i < ARRAY_LEN(known) && !found; i++) {
        found = str_is(type, known[i]);
    }
    p->group = "manifest.json";
    if (!found) {
        pack_bad_value(p, "modelType", type);
    }
    p->c->architecture = arena_copy(p->s.arena, type.data, type.size, p->s.err);
    return found && p->c->architecture != NULL;
}

/* Whoever wrote the pack says that its fields do not describe the model. */
static bool check_supported(pack_reader *p) {
    const json_value *unsupported = json_get(p->inference, "unsupported");
    str code = { 0 }, message = { 0 };
    if (unsupported == NULL || json_is_null(unsupported)) {
        return true;
    }
    (void)json_string(json_get(unsupported, "code"), &code);
    (void)json_string(json_get(unsupported, "message"), &message);
    p->s.failed = true;
    return err_set(p->s.err, DP_E_UNSUPPORTED,
                   "%s: the pack says that it cannot be run: %.*s (%.*s)",
                   container_path(p->s.files), STR_ARG(message), STR_ARG(code));
}

static bool read_layers(pack_reader *p) {
    config *c = p->c;
    c->layer_window = arena_new(p->s.arena, c->n_layers, sizeof(uint32_t), "layers", p->s.err);
    c->layer_rope = arena_new(p->s.arena, c->n_layers, sizeof(rope_kind), "layers", p->s.err);
    if (c->layer_window == NULL || c->layer_rope == NULL) {
        return false;
    }
    p->group = "inference.attention";
    p->s.json = json_get(p->inference, "attention");
    const uint32_t window = config_optional(&p->s, NULL, "slidingWindow", CONTEXT_MAX);
    read_layer_pattern(p, window);
    read_pack_rope(p);
    return !p->s.failed && config_settle_rope(&p->s, c);
}

static bool read_switches(pack_reader *p) {
    config *c = p->c;
    if (!check_model_type(p) || !check_supported(p)) {
        return false;
    }
    enter_group(p, "inference", p->inference,
                "schema attention normalization ffn rope output layerPattern chatTemplate session "
                "sessionDefaults execution defaultKernelPath kernelPath moe pipeline largeWeights "
                "unsupported presets presetId");
    if (!json_is_object(p->inference)) {
        return config_fail(&p->s, DP_E_UNSUPPORTED, "inference",
                           "missing: nothing says how this pack's model computes");
    }
    for (int i = 0; i < ROPE_TABLES; i++) {
        c->rope[i] = (rope_scaling){ .factor = 1 };
    }
    read_architecture(p);
    if (p->s.failed) {
        return false;
    }
    for (int i = 0; i < ROPE_TABLES; i++) {
        c->rope[i].original_context = c->context;
        c->rope[i].beta_fast = 32;
        c->rope[i].beta_slow = 1;
    }
    read_moe(p);
    read_pack_attention(p);
    read_normalization(p);
    read_ffn(p);
    read_pack_output(p);
    if (p->gpt_oss) {
        p->f->sinks = true;
        p->f->biases = BIAS_QKV | BIAS_O | BIAS_ROUTER | BIAS_EXPERTS;
        c->as_folder = true; /* its experts are kept as folders have them */
    }
    if (p->s.failed || !read_layers(p) || !config_check_shapes(&p->s, c)) {
        return false;
    }
    adopt_family(p);
    return name_tensors(p);
}

/* Sizes that both the manifest and its config.json give. */
static bool check_sizes(config_source *s, const config *c, const json_value *architecture) {
    const struct {
        const char *field;
        uint32_t value;
    } sizes[] = {
        { "numLayers", c->n_layers },        { "hiddenSize", c->dim },
        { "numAttentionHeads", c->n_heads }, { "numKeyValueHeads", c->n_kv_heads },
        { "headDim", c->head_dim },          { "vocabSize", c->vocab_size },
        { "maxSeqLen", c->context },
    };
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        double x = 0;
        if (json_f64(json_get(architecture, sizes[i].field), &x) && x != sizes[i].value) {
            s->failed = true;
            return err_set(s->err, DP_E_FORMAT,
                           "%s: manifest.json: architecture.%s is %.10g, its config says %u",
                           container_path(s->files), sizes[i].field, x, sizes[i].value);
        }
    }
    double ffn = 0;
    if (json_f64(json_get(architecture, "intermediateSize"), &ffn) && ffn != c->ffn_dim &&
        ffn != c->expert_ffn_dim) {
        s->failed = true;
        return err_set(s->err, DP_E_FORMAT,
                       "%s: manifest.json: architecture.intermediateSize is %.10g, its config says "
                       "%u",
                       container_path(s->files), ffn, c->ffn_dim);
    }
    return true;
}

bool config_from_pack(config_source *s, config *c) {
    const json_value *manifest = container_manifest(s->files);
    dp_error problem = { 0 };
    s->json = container_json(s->files, "config.json", &problem);
    if (problem.status != DP_OK) {
        return err_set(s->err, problem.status, "%s", problem.message);
    }
    if (s->json != NULL) {
        return config_from_json(s, c) &&
               (s->vocab_only || check_sizes(s, c, json_get(manifest, "architecture")));
    }
    family *f = arena_new(s->arena, 1, sizeof *f, "family", s->err);
    if (f == NULL) {
        return false;
    }
    f->hf_fields = "";
    c->family = f;
    c->layer_prefix = prefix_of_layers(s->files);
    pack_reader p = {
        .s = *s, .manifest = manifest, .inference = json_get(manifest, "inference"), .c = c, .f = f
    };
    if (s->vocab_only) {
        c->family = NULL;
        read_architecture(&p);
        return !p.s.failed;
    }
    const bool ok = read_switches(&p) && !p.s.failed;
    s->failed = !ok;
    return ok;
}
