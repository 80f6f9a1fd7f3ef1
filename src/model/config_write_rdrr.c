/* config_write_rdrr: a description as the members of a pack's manifest that other readers of RDRR
 * go by: architecture, moeConfig, inference. Every field of that schema is there, null where it is
 * off.
 *
 * Our own reader takes the manifest's `config` instead. What the schema, or the readers that there
 * are, cannot say becomes inference.unsupported, which makes them refuse the pack with a sentence.
 * Source: the public project's manifests and validator. */
#include "model/config_internal.h"
#include "model/weights_internal.h"

#include <math.h>

typedef struct {
    buf *b;
    const config *c;
    uint32_t biases;
    bool tied;
    uint32_t window; /* of windowed layers; 0: none */
    uint32_t n_windowed;
} manifest_writer;

static void open_group(buf *b, const char *key) {
    json_key(b, key);
    buf_printf(b, "{");
}

static void close_group(buf *b) {
    buf_printf(b, "}");
}

/* A list of names, by spaces, each null. */
static void write_nulls(buf *b, const char *names) {
    for (const char *at = names; *at != '\0';) {
        const size_t n = strcspn(at, " ");
        json_item(b);
        json_add_string(b, (str){ at, n });
        buf_printf(b, ":null");
        at += n + (at[n] == ' ');
    }
}

static void write_switched(buf *b, const char *key, double x) {
    if (x != 0) {
        json_real(b, key, x);
    } else {
        write_nulls(b, key);
    }
}

/* A number that single precision holds, in its shortest form. */
static void write_single(buf *b, const char *key, float x) {
    json_key(b, key);
    json_add_f32(b, x);
}

/* What is not said by the schema, or NULL. */
static const char *unsaid(const manifest_writer *w) {
    const config *c = w->c;
    const family *f = c->family;
    const rope_scaling *r = &c->rope[ROPE_GLOBAL];
    const bool sandwich = f->norms == NORMS_BOTH;
    rope_scaling usual = *r;
    usual.magnitude = 0;
    usual.factor = c->context / r->original_context;
    if (r->kind == SCALING_LONG) {
        rope_settle(&usual);
    }
    bool everywhere = true;
    for (uint32_t i = 0; i < c->n_layers; i++) {
        everywhere = everywhere && c->layer_rope[i] != ROPE_NONE;
    }
    const double query = config_query_scalar(c->attention_scale);
    const struct {
        bool unsaid;
        const char *why;
    } tests[] = {
        { f->learned_positions, "learned positions" },
        { f->layer_norm, "LayerNorm with bias" },
        { f->ungated && !f->learned_positions, "a feed-forward network without a gate" },
        { f->norms == NORMS_POST, "norms behind the blocks and none in front" },
        { f->sinks, "attention sinks" },
        { c->n_experts > 0 && (f->hf == NULL || strcmp(f->hf, "mixtral") != 0),
          "experts of this kind" },
        { c->n_experts > 0 && w->n_windowed > 0 && w->n_windowed < c->n_layers,
          "experts beside layers with and without a window" },
        { !everywhere && !f->learned_positions, "layers without RoPE" },
        { r->kind == SCALING_YARN, "RoPE scaling by YaRN" },
        { r->kind == SCALING_DYNAMIC, "dynamic RoPE scaling" },
        { r->kind == SCALING_LONG && usual.magnitude != r->magnitude,
          "longrope's own factor of attention" },
        { f->local_rope &&
              (c->rope[ROPE_LOCAL].kind != SCALING_NONE || c->rope[ROPE_LOCAL].divisors != NULL),
          "scaled RoPE in windowed layers" },
        { (w->biases & BIAS_FFN) != 0, "biases of the feed-forward network" },
        { sandwich && c->residual_scale != 1, "scaled branches between two norms" },
        { query != c->head_dim && fabs(query - sqrt(c->head_dim)) < 0.01,
          "an attention scale of head_dim^(-1/4)" },
    };
    for (size_t i = 0; i < ARRAY_LEN(tests); i++) {
        if (tests[i].unsaid) {
            return tests[i].why;
        }
    }
    return NULL;
}

static void write_architecture(manifest_writer *w) {
    const config *c = w->c;
    buf *b = w->b;
    open_group(b, "architecture");
    json_count_of(b, "numLayers", c->n_layers);
    json_count_of(b, "hiddenSize", c->dim);
    json_count_of(b, "intermediateSize", c->n_experts > 0 ? c->expert_ffn_dim : c->ffn_dim);
    json_count_of(b, "numAttentionHeads", c->n_heads);
    json_count_of(b, "numKeyValueHeads", c->n_kv_heads);
    json_count_of(b, "headDim", c->head_dim);
    json_count_of(b, "vocabSize", c->vocab_size);
    json_count_of(b, "maxSeqLen", c->context);
    json_real(b, "ropeTheta", c->rope[ROPE_GLOBAL].theta);
    close_group(b);
    if (c->n_experts == 0) {
        write_nulls(b, "moeConfig");
        return;
    }
    open_group(b, "moeConfig");
    json_count_of(b, "numExperts", c->n_experts);
    json_count_of(b, "numExpertsPerToken", c->n_experts_used);
    json_text(b, "expertFormat", c->family->sinks ? STR("gpt-oss") : STR("mixtral"));
    json_count_of(b, "expertIntermediateSize", c->expert_ffn_dim);
    close_group(b);
}

static void write_attention(manifest_writer *w) {
    const config *c = w->c;
    const family *f = c->family;
    buf *b = w->b;
    open_group(b, "attention");
    json_real(b, "queryPreAttnScalar", config_query_scalar(c->attention_scale));
    write_switched(b, "attnLogitSoftcapping", (double)c->attention_softcap);
    write_switched(b, "slidingWindow", w->window);
    json_flag(b, "queryKeyNorm", f->qk_norm != QK_NORM_NONE);
    if (f->qk_norm != QK_NORM_NONE) {
        json_text(b, "queryKeyNormType", STR("rmsnorm"));
        json_text(b, "queryKeyNormAxis",
                  f->qk_norm == QK_NORM_WIDTH ? STR("projection") : STR("head"));
    }
    json_flag(b, "valueNorm", false);
    json_flag(b, "causal", true);
    json_flag(b, "attentionBias", (w->biases & (BIAS_QKV | BIAS_O)) != 0);
    json_flag(b, "attentionOutputGate", false);
    close_group(b);

    /* postAttentionNorm says no more than that a tensor has that name */
    open_group(b, "normalization");
    write_single(b, "rmsNormEps", c->norm_eps);
    json_flag(b, "rmsNormWeightOffset", f->norm_plus_one);
    json_flag(b, "postAttentionNorm", !f->layer_norm);
    json_flag(b, "preFeedforwardNorm", f->norms == NORMS_BOTH);
    json_flag(b, "postFeedforwardNorm", f->norms != NORMS_PRE);
    close_group(b);

    open_group(b, "ffn");
    json_text(b, "activation", f->activation == ACT_GELU ? STR("gelu") : STR("silu"));
    json_flag(b, "gatedActivation", !f->ungated);
    json_text(b, "branchMode", c->n_experts > 0 ? STR("moe") : STR("dense"));
    json_flag(b, "useDoubleWideMlp", false);
    write_switched(b, "swigluLimit", c->activation == ACT_SWIGLU_OAI ? (double)c->act_limit : 0);
    close_group(b);
}

static void write_manifest_rope(manifest_writer *w) {
    const config *c = w->c;
    const rope_scaling *r = &c->rope[ROPE_GLOBAL];
    buf *b = w->b;
    const uint32_t half = c->rope_dim / 2;
    open_group(b, "rope");
    json_real(b, "ropeTheta", r->theta);
    write_switched(b, "ropeLocalTheta", c->family->local_rope ? c->rope[ROPE_LOCAL].theta : 0);
    json_flag(b, "ropeInterleaved", false); /* whatever the source had: packs keep halves */
    json_flag(b, "mropeInterleaved", false);
    const double share = (double)c->rope_dim / c->head_dim;
    write_switched(b, "partialRotaryFactor", share != 1 && c->rope_dim > 0 ? share : 0);
    /* divisors are longrope with one list and no context beyond the original one */
    const bool divisors = r->divisors != NULL;
    const bool lists = divisors || r->kind == SCALING_LONG;
    static const char *const names[] = {
        [SCALING_NONE] = NULL,   [SCALING_LINEAR] = "linear",   [SCALING_LLAMA3] = NULL,
        [SCALING_YARN] = "yarn", [SCALING_DYNAMIC] = "dynamic", [SCALING_LONG] = "longrope",
    };
    const char *name = lists ? "longrope" : names[r->kind];
    if (name != NULL) {
        json_text(b, "ropeScalingType", str_of(name));
    } else {
        write_nulls(b, "ropeScalingType");
    }
    json_real(b, "ropeScalingFactor", name != NULL && !lists ? r->factor : 1);
    write_nulls(b, "ropeLocalScalingType");
    json_real(b, "ropeLocalScalingFactor", 1);
    if (r->kind == SCALING_YARN) {
        json_real(b, "yarnBetaFast", r->beta_fast);
        json_real(b, "yarnBetaSlow", r->beta_slow);
        json_real(b, "yarnOriginalMaxPos", r->original_context);
    } else {
        write_nulls(b, "yarnBetaFast yarnBetaSlow yarnOriginalMaxPos");
    }
    if (lists) {
        config_add_divisors(b, "longropeShortFactor", divisors ? r->divisors : r->short_factors,
                            half);
        config_add_divisors(b, "longropeLongFactor", divisors ? r->divisors : r->long_factors,
                            half);
        json_real(b, "longropeOriginalMaxPos", divisors ? c->context : r->original_context);
    } else {
        write_nulls(b, "longropeShortFactor longropeLongFactor longropeOriginalMaxPos");
    }
    write_nulls(b, "mropeSection ropeLocalPartialRotaryFactor ropeFrequencyBaseDim "
                   "ropeLocalFrequencyBaseDim ropeLocalYarnBetaFast ropeLocalYarnBetaSlow "
                   "ropeLocalYarnOriginalMaxPos");
    close_group(b);
}

static void write_output(manifest_writer *w) {
    const config *c = w->c;
    buf *b = w->b;
    const bool by_width = c->embedding_scale == sqrtf((float)c->dim);
    open_group(b, "output");
    json_flag(b, "tieWordEmbeddings", w->tied);
    json_flag(b, "scaleEmbeddings", by_width);
    if (by_width || c->embedding_scale == 1) {
        write_nulls(b, "embeddingScale");
    } else {
        write_single(b, "embeddingScale", c->embedding_scale);
    }
    write_single(b, "logitInputScale", c->logits_scale);
    json_flag(b, "embeddingTranspose", false);
    write_switched(b, "finalLogitSoftcapping", (double)c->logits_softcap);
    write_nulls(b, "embeddingVocabSize embeddingPostprocessor");
    close_group(b);
}

/* All layers alike, or each by its name. */
static void write_pattern(manifest_writer *w) {
    const config *c = w->c;
    buf *b = w->b;
    const bool custom = w->n_windowed > 0 && w->n_windowed < c->n_layers;
    open_group(b, "layerPattern");
    json_text(b, "type", custom ? STR("custom") : STR("uniform"));
    write_nulls(b,
                custom ? "globalPattern period offset" : "globalPattern period offset layerTypes");
    if (custom) {
        json_key(b, "layerTypes");
        buf_printf(b, "[");
        for (uint32_t i = 0; i < c->n_layers; i++) {
            json_item(b);
            buf_printf(b, c->layer_window[i] > 0 ? "\"sliding_attention\"" : "\"full_attention\"");
        }
        buf_printf(b, "]");
    }
    write_single(b, "residualBranchScale", c->residual_scale);
    close_group(b);
}

/* How a pack is run is no part of it, but readers want all of this. */
static const char SESSION[] =
    "\"chatTemplate\":{\"type\":null,\"enabled\":false},"
    "\"session\":{\"compute\":{\"defaults\":{\"activationDtype\":\"f32\",\"mathDtype\":\"f32\","
    "\"accumDtype\":\"f32\",\"outputDtype\":\"f32\"}},"
    "\"kvcache\":{\"kvDtype\":\"f16\",\"layout\":\"contiguous\",\"tiering\":{\"mode\":\"off\","
    "\"gating\":{\"mode\":\"auto\"},\"compression\":{\"mode\":\"none\"}},"
    "\"quantization\":{\"mode\":\"none\"}},"
    "\"decodeLoop\":{\"batchSize\":1,\"stopCheckMode\":\"batch\",\"readbackInterval\":1,"
    "\"readbackMode\":\"sequential\",\"disableCommandBatching\":false},"
    "\"perLayerInputs\":{\"materialization\":\"auto\",\"rowCache\":{\"mode\":\"off\",\"maxRows\":1,"
    "\"maxBytes\":1,\"decodedDtype\":\"f32\"},\"prefetch\":{\"mode\":\"off\",\"rowsAhead\":1},"
    "\"gpuUpload\":{\"mode\":\"per_step_slices\",\"stagingRows\":1},\"hotCache\":{\"mode\":\"off\","
    "\"maxTokens\":1,\"maxBytes\":1,\"outputDtype\":\"f32\"}}},"
    "\"execution\":{\"kernels\":{},\"preLayer\":[],\"decode\":[],\"prefill\":[],\"postLayer\":[]}";

bool config_write_inference(const config *c, const container *source, const char *unsupported,
                            buf *out, dp_error *err) {
    manifest_writer w = {
        .b = out, .c = c, .biases = config_biases(c, source), .tied = config_is_tied(c, source)
    };
    for (uint32_t i = 0; i < c->n_layers; i++) {
        w.window = max_u32(w.window, c->layer_window[i]);
        w.n_windowed += c->layer_window[i] > 0;
    }
    json_text(out, "modelType", STR("transformer"));
    write_architecture(&w);
    open_group(out, "inference");
    json_text(out, "schema", STR("doppler.execution/v1"));
    write_attention(&w);
    write_manifest_rope(&w);
    write_output(&w);
    write_pattern(&w);
    json_item(out);
    buf_add_str(out, str_of(SESSION));
    const char *why = unsaid(&w);
    if (why != NULL || unsupported != NULL) {
        open_group(out, "unsupported");
        json_text(out, "code", why != NULL ? STR("inference") : STR("tensors"));
        buf text;
        buf_init(&text, 1024);
        const char *said = why != NULL ? why : "";
        buf_printf(&text,
                   "this pack has %s, which the inference fields cannot say: it is for "
                   "readers of its config",
                   said);
        json_text(out, "message",
                  why != NULL ? (str){ text.data, text.size } : str_of(unsupported));
        const bool ok = buf_ok(&text, "inference", err);
        buf_free(&text);
        close_group(out);
        if (!ok) {
            return false;
        }
    }
    close_group(out);
    return buf_ok(out, "inference", err);
}
