/* Descriptions of RDRR packs: what the switches of a manifest mean, in every dialect, what is
 * refused, and what this project writes for other readers. No device. */
#include "tests/test_config.h"

#include <math.h>

/* ---- packs with a changed manifest --------------------------------------------------------- */

/* `text` with all `from` as `to`; there must be one. */
static str replaced_all(test *t, str text, const char *from, const char *to) {
    const size_t n = strlen(from);
    buf out;
    buf_init(&out, 1 << 20);
    bool found = false;
    for (size_t at = 0; at < text.size;) {
        const bool here = text.size - at >= n && memcmp(text.data + at, from, n) == 0;
        buf_add(&out, here ? to : text.data + at, here ? strlen(to) : 1);
        at += here ? n : 1;
        found |= here;
    }
    CHECK_MSG(t, found && buf_ok(&out, "manifest", &t->err), "no %s in the manifest", from);
    char *copy = test_alloc(t, out.size + 1, 1);
    memcpy(copy, out.data, out.size);
    const str result = { copy, out.size };
    buf_free(&out);
    return result;
}

static str manifest_of(test *t, const char *pack) {
    return test_read_file(t, test_vector(t, test_printf(t, "packs/%s/manifest.json", pack)));
}

/* The pack of the case's folder with this manifest; shards are not looked at. */
static description description_of_manifest(test *t, str manifest, dp_error *err) {
    test_write(t, "manifest.json", manifest.data, manifest.size);
    description d = { .files = container_open(test_folder(t), true, err) };
    d.ok = d.files != NULL && config_read(&d.config, d.files, false, &d.memory, err);
    return d;
}

/* The same with the family that has these switches instead of the pack's own. */
static config with_known_family(const config *c) {
    config k = *c;
    k.family = family_like(c->family);
    return k;
}

/* ---- the dialects -------------------------------------------------------------------------- */

/* Each describes what this config.json does. */
static void dialects_describe_their_models(test *t) {
    static const struct {
        const char *pack, *text;
    } cases[] = {
        { "july", "\"model_type\":\"llama\",\"num_key_value_heads\":1,\"intermediate_size\":64,"
                  "\"num_hidden_layers\":1,\"rms_norm_eps\":1e-05,\"rope_theta\":10000.0," },
        { "groups", "\"model_type\":\"llama\",\"num_key_value_heads\":1,\"intermediate_size\":64,"
                    "\"num_hidden_layers\":1,\"rms_norm_eps\":1e-05,\"rope_theta\":10000.0," },
        { "march", "\"model_type\":\"qwen3\",\"num_key_value_heads\":2,\"intermediate_size\":64,"
                   "\"num_attention_heads\":4,\"num_hidden_layers\":1,\"rope_theta\":1000000," },
        { "april", "\"model_type\":\"gemma3_text\",\"num_key_value_heads\":1,"
                   "\"intermediate_size\":48,\"num_hidden_layers\":2,\"query_pre_attn_scalar\":8,"
                   "\"sliding_window\":16,\"layer_types\":[\"sliding_attention\","
                   "\"full_attention\"],\"rope_theta\":10000.0,\"rope_local_base_freq\":100.0," },
        { "june", "\"model_type\":\"mixtral\",\"num_key_value_heads\":1,\"intermediate_size\":32,"
                  "\"num_hidden_layers\":1,\"num_local_experts\":4,\"num_experts_per_tok\":2," },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        test_row(t, "%s", cases[i].pack);
        description pack =
            description_of_folder(t, test_vector(t, test_printf(t, "packs/%s", cases[i].pack)));
        const bool heads = strstr(cases[i].text, "num_attention_heads") != NULL;
        description folder = description_of_text(
            t, test_printf(t,
                           "{%s%s\"hidden_size\":32,\"head_dim\":16,\"vocab_size\":64,"
                           "\"max_position_embeddings\":256}",
                           cases[i].text, heads ? "" : "\"num_attention_heads\":2,"));
        if (CHECK_MSG(t, pack.ok && folder.ok, "%s", t->err.message)) {
            const config known = with_known_family(&pack.config);
            check_same_config(t, &known, &folder.config);
            check_written_config(t, &pack);
        }
        description_drop(&pack);
        description_drop(&folder);
    }
}

/* A field that a dialect did not have yet is as good as its "off". */
static void missing_fields_are_off(test *t) {
    static const char *const lines[] = {
        "\"attnLogitSoftcapping\": null,",
        "\"slidingWindow\": null,",
        "\"queryKeyNorm\": false,",
        "\"valueNorm\": false,",
        "\"causal\": true,",
        "\"rmsNormWeightOffset\": false,",
        "\"postAttentionNorm\": true,",
        "\"preFeedforwardNorm\": false,",
        "\"gatedActivation\": true,",
        "\"branchMode\": \"dense\",",
        "\"useDoubleWideMlp\": false,",
        "\"ropeLocalTheta\": null,",
        "\"ropeScalingType\": null,",
        "\"mropeInterleaved\": false,",
        "\"scaleEmbeddings\": false,",
        "\"embeddingScale\": null,",
        "\"logitInputScale\": 1,",
        "\"embeddingTranspose\": false,",
        "\"type\": \"uniform\",",
        "\"schema\": \"doppler.execution/v1\",",
        "\"moeConfig\": null,",
        "\"queryPreAttnScalar\": 16,",
    };
    str text = manifest_of(t, "july");
    description whole = description_of_manifest(t, text, &t->err);
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        text = replaced_all(t, text, lines[i], "");
    }
    description bare = description_of_manifest(t, text, &t->err);
    if (CHECK_MSG(t, whole.ok && bare.ok, "%s", t->err.message)) {
        const config a = with_known_family(&whole.config), b = with_known_family(&bare.config);
        check_same_config(t, &a, &b);
    }
    description_drop(&whole);
    description_drop(&bare);
}

static void what_says_how_to_run_changes_nothing(test *t) {
    str text = manifest_of(t, "july");
    description before = description_of_manifest(t, text, &t->err);
    text = replaced_all(t, text, "\"moeConfig\": null,",
                        "\"moeConfig\":null,\"kernelHints\":{\"q4kMatmul\":\"dequant_f16\"},"
                        "\"optimizations\":{\"kernelPath\":\"x\"},");
    text = replaced_all(t, text, "\"schema\":",
                        "\"kernelPath\":{\"decode\":[]},\"defaultKernelPath\":\"fused\","
                        "\"schema\":");
    text = replaced_all(t, text, "\"kvDtype\": \"f16\"", "\"kvDtype\":\"f8\",\"useX\":true");
    description after = description_of_manifest(t, text, &t->err);
    if (CHECK_MSG(t, before.ok && after.ok, "%s", t->err.message)) {
        const config a = with_known_family(&before.config), b = with_known_family(&after.config);
        check_same_config(t, &a, &b);
    }
    description_drop(&before);
    description_drop(&after);
}

/* ---- switches ------------------------------------------------------------------------------ */

typedef struct {
    const char *pack, *from, *to; /* one change of a manifest */
    const char *hf;               /* the family that it then is */
    bool (*holds)(const config *c);
} switch_case;

static bool has_full_window(const config *c) {
    return c->layer_window[0] == 24;
}
static bool odd_layers_are_full(const config *c) {
    return c->layer_window[0] == 16 && c->layer_window[1] == 0;
}
static bool even_layers_are_full(const config *c) {
    return c->layer_window[0] == 0 && c->layer_window[1] == 16;
}
static bool scale_is_12(const config *c) {
    return c->embedding_scale == 12;
}
static bool logits_are_quartered(const config *c) {
    return c->logits_scale == 0.25F;
}
static bool branches_are_scaled(const config *c) {
    return c->residual_scale == 0.28577380332470415F;
}
static bool attention_is_halved(const config *c) {
    return c->attention_scale == 0.125F;
}
static bool attention_is_capped(const config *c) {
    return c->attention_softcap == 50 && c->logits_softcap == 0;
}
static bool logits_are_capped(const config *c) {
    return c->logits_softcap == 30 && c->attention_softcap == 0;
}
static bool rope_is_linear(const config *c) {
    return c->rope[ROPE_GLOBAL].kind == SCALING_LINEAR && c->rope[ROPE_GLOBAL].factor == 8;
}
static bool local_rope_is_not_scaled(const config *c) {
    return rope_is_linear(c) && c->rope[ROPE_LOCAL].kind == SCALING_NONE &&
           c->rope[ROPE_LOCAL].theta == 100 && c->layer_rope[0] == ROPE_LOCAL;
}
static bool local_rope_is_scaled(const config *c) {
    return c->rope[ROPE_LOCAL].kind == SCALING_LINEAR && c->rope[ROPE_LOCAL].factor == 2;
}
static bool rope_is_dynamic(const config *c) {
    return c->rope[ROPE_GLOBAL].kind == SCALING_DYNAMIC &&
           c->rope[ROPE_GLOBAL].original_context == 256;
}
/* YaRN, equation 22: 0.1 ln 4 + 1 */
static bool rope_is_yarn(const config *c) {
    const rope_scaling *r = &c->rope[ROPE_GLOBAL];
    return r->kind == SCALING_YARN && r->factor == 4 && r->beta_fast == 8 && r->beta_slow == 0.5 &&
           r->original_context == 64 && !r->exact &&
           fabs(r->magnitude - 1.1386294361119891) < 1e-12;
}
static bool rope_is_long(const config *c) {
    const rope_scaling *r = &c->rope[ROPE_GLOBAL];
    return r->kind == SCALING_LONG && r->long_factors[7] == 9 && r->short_factors[7] == 2 &&
           r->original_context == 64 && (float)r->magnitude == (float)sqrt(4.0 / 3);
}
static bool rope_has_divisors(const config *c) {
    const rope_scaling *r = &c->rope[ROPE_GLOBAL];
    return r->kind == SCALING_NONE && r->divisors != NULL && r->divisors[7] == 9 &&
           r->magnitude == 1;
}
static bool half_is_turned(const config *c) {
    return c->rope_dim == 8 && c->head_dim == 16;
}
static bool rows_are_pairs(const config *c) {
    return c->rope_interleaved;
}
static bool head_is_own(const config *c) {
    return c->head == HEAD_OWN;
}
static bool head_is_looked_for(const config *c) {
    return c->head == HEAD_FOUND;
}
static bool biases_are_needed(const config *c) {
    return c->family->biases == BIAS_QKV;
}
static bool norms_are_over_all_heads(const config *c) {
    return c->family->qk_norm == QK_NORM_WIDTH;
}
static bool act_is_gelu(const config *c) {
    return c->activation == ACT_GELU && c->family->activation == ACT_GELU;
}
static bool all_is_usual(const config *c) {
    return c->vocab_size == 64 && c->layer_window[0] == 0 && c->rope_dim == 16;
}

#define LONG(last, original)                                                        \
    "\"ropeScalingType\":\"longrope\",\"longropeShortFactor\":[1,1,1,1,1,1,1," last \
    "],\"longropeLongFactor\":[1,1,1,1,1,1,1,9],\"longropeOriginalMaxPos\":" original

static void switches_mean_what_they_say(test *t) {
    static const char scaling[] = "\"ropeScalingType\": null";
    static const switch_case cases[] = {
        { "july", "\"slidingWindow\": null", "\"slidingWindow\":24", "mistral", has_full_window },
        { "july", "\"type\": \"uniform\"", "\"type\":\"all_attention\"", "llama", all_is_usual },
        { "april", "\"type\": \"every_n\"", "\"type\":\"alternating\",\"globalPattern\":\"odd\"",
          "gemma3_text", odd_layers_are_full },
        { "april", "\"type\": \"every_n\"", "\"type\":\"alternating\",\"globalPattern\":\"even\"",
          "gemma3_text", even_layers_are_full },
        { "april", "\"offset\": 1\n", "\"offset\":5\n", "gemma3_text", odd_layers_are_full },
        { "april", "\"offset\": 1\n", "\"offset\":null\n", "gemma3_text", even_layers_are_full },
        { "april", "\"type\": \"every_n\"",
          "\"type\":\"custom\",\"layerTypes\":[\"full_attention\",\"sliding_attention\"]",
          "gemma3_text", even_layers_are_full },
        { "july", "\"embeddingScale\": null", "\"embeddingScale\":12", "granite", scale_is_12 },
        { "july", "\"logitInputScale\": 1", "\"logitInputScale\":0.25", "granite",
          logits_are_quartered },
        { "july", "\"residualBranchScale\": 1", "\"residualBranchScale\":0.28577380332470415",
          "granite", branches_are_scaled },
        { "july", "\"queryPreAttnScalar\": 16", "\"queryPreAttnScalar\":64", "granite",
          attention_is_halved },
        { "july", "\"queryPreAttnScalar\": 16", "\"queryPreAttnScalar\":null", "llama",
          all_is_usual },
        { "april", "\"attnLogitSoftcapping\": null", "\"attnLogitSoftcapping\":50", "gemma3_text",
          attention_is_capped },
        { "april", "\"finalLogitSoftcapping\": null", "\"finalLogitSoftcapping\":30", "gemma3_text",
          logits_are_capped },
        { "july", "\"ropeScalingFactor\": 1",
          "\"ropeScalingFactor\":8,\"ropeScalingType\":\"linear\",\"x\":0", "llama",
          rope_is_linear },
        { "april", "\"ropeScalingFactor\": 1",
          "\"ropeScalingFactor\":8,\"ropeScalingType\":\"linear\",\"x\":0", "gemma3_text",
          local_rope_is_not_scaled },
        { "april", "\"ropeLocalScalingFactor\": 1",
          "\"ropeLocalScalingFactor\":2,\"ropeLocalScalingType\":\"linear\",\"x\":0", NULL,
          local_rope_is_scaled },
        { "july", "\"ropeScalingFactor\": 1",
          "\"ropeScalingFactor\":4,\"ropeScalingType\":\"dynamic\",\"x\":0", NULL,
          rope_is_dynamic },
        { "july", "\"ropeScalingFactor\": 1",
          "\"ropeScalingFactor\":4,\"ropeScalingType\":\"yarn\",\"yarnBetaFast\":8,"
          "\"yarnBetaSlow\":0.5,\"yarnOriginalMaxPos\":64",
          "llama", rope_is_yarn },
        { "july", scaling, LONG("2", "64"), "llama", rope_is_long },
        { "july", scaling, LONG("9", "256"), "llama", rope_has_divisors },
        { "july", "\"partialRotaryFactor\": null", "\"partialRotaryFactor\":0.5", "phi3",
          half_is_turned },
        { "july", "\"mropeInterleaved\": false", "\"ropeInterleaved\":true", NULL, rows_are_pairs },
        { "july", "\"tieWordEmbeddings\": true", "\"tieWordEmbeddings\":false", NULL, head_is_own },
        { "july", "\"tieWordEmbeddings\": true,", "", NULL, head_is_looked_for },
        { "july", "\"attentionBias\": false", "\"attentionBias\":true", "qwen2",
          biases_are_needed },
        { "march", "\"queryKeyNorm\": true",
          "\"queryKeyNorm\":true,\"queryKeyNormType\":\"rmsnorm\","
          "\"queryKeyNormAxis\":\"projection\"",
          NULL, norms_are_over_all_heads },
        { "july", "\"activation\": \"silu\"", "\"activation\":\"gelu\"", NULL, act_is_gelu },
        { "july", "\"activation\": \"silu\"", "\"activation\":\"swiglu\"", "llama", all_is_usual },
        { "july", "\"embeddingVocabSize\": null", "\"embeddingVocabSize\":64", "llama",
          all_is_usual },
        { "july", "\"modelType\": \"transformer\"", "\"modelType\":\"llama\"", "llama",
          all_is_usual },
        { "june", "\"type\": \"uniform\"", "\"type\":\"custom\",\"layerTypes\":[\"moe\"]",
          "mixtral", all_is_usual },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const switch_case *k = &cases[i];
        test_row(t, "%s: %s", k->pack, k->to);
        str text = manifest_of(t, k->pack);
        text = replaced_all(t, text, k->from, k->to);
        if (strstr(k->to, "ropeScalingType") != NULL && k->from != scaling) {
            text = replaced_all(t, text, "\"ropeScalingType\": null,", "");
        }
        static const char *const twice[] = {
            "\"globalPattern\": null,",         "\"layerTypes\": null,",
            "\"ropeLocalScalingType\": null,",  "\"yarnBetaFast\": null,",
            "\"yarnBetaSlow\": null,",          "\"yarnOriginalMaxPos\": null,",
            "\"longropeShortFactor\": null,",   "\"longropeLongFactor\": null,",
            "\"longropeOriginalMaxPos\": null,"
        };
        for (size_t j = 0; j < ARRAY_LEN(twice); j++) {
            const size_t n = strcspn(twice[j], ":");
            const char *name = test_printf(t, "%.*s", (int)n, twice[j]);
            if (strstr(k->to, name) != NULL && strstr(text.data, twice[j]) != NULL) {
                text = replaced_all(t, text, twice[j], "");
            }
        }
        description d = description_of_manifest(t, text, &t->err);
        if (CHECK_MSG(t, d.ok, "%s", t->err.message)) {
            CHECK(t, k->holds(&d.config));
            const char *hf = d.config.family->hf;
            CHECK_MSG(t, k->hf == NULL || (hf != NULL && strcmp(hf, k->hf) == 0), "family %s",
                      hf != NULL ? hf : "none");
        }
        t->err = (dp_error){ 0 };
        description_drop(&d);
    }
}

/* ---- refusals ------------------------------------------------------------------------------ */

static void what_is_on_and_not_known_is_refused(test *t) {
    static const struct {
        const char *pack, *from, *to;
        dp_status status;
        const char *part;
    } cases[] = {
        { "july", "\"valueNorm\": false", "\"valueNorm\":true", DP_E_UNSUPPORTED, "valueNorm" },
        { "july", "\"useDoubleWideMlp\": false", "\"useDoubleWideMlp\":true", DP_E_UNSUPPORTED,
          "useDoubleWideMlp" },
        { "july", "\"causal\": true", "\"causal\":false", DP_E_UNSUPPORTED, "causal" },
        { "july", "\"causal\": true", "\"causal\":true,\"attentionOutputGate\":true",
          DP_E_UNSUPPORTED, "attentionOutputGate" },
        { "july", "\"causal\": true", "\"causal\":true,\"kvSharing\":3", DP_E_UNSUPPORTED,
          "inference.attention.kvSharing is not known" },
        { "july", "\"mropeInterleaved\": false", "\"mropeInterleaved\":true", DP_E_UNSUPPORTED,
          "mropeInterleaved" },
        { "july", "\"mropeSection\": null", "\"mropeSection\":[4,2,2]", DP_E_UNSUPPORTED,
          "mropeSection" },
        { "july", "\"type\": \"uniform\"",
          "\"type\":\"custom\",\"layerTypes\":[\"linear_attention\"]", DP_E_UNSUPPORTED,
          "'linear_attention'" },
        { "july", "\"type\": \"uniform\"", "\"type\":\"custom\",\"layerTypes\":[\"conv\"]",
          DP_E_UNSUPPORTED, "'conv'" },
        { "july", "\"type\": \"uniform\"", "\"type\":\"custom\",\"layerTypes\":[\"moe\"]",
          DP_E_UNSUPPORTED, "layerTypes" },
        { "july", "\"type\": \"uniform\"",
          "\"type\":\"custom\",\"layerTypes\":[\"sliding_attention\"]", DP_E_FORMAT,
          "slidingWindow is null" },
        { "july", "\"type\": \"uniform\"", "\"type\":\"custom\",\"layerTypes\":[]", DP_E_FORMAT,
          "layerTypes" },
        { "july", "\"type\": \"uniform\"", "\"type\":\"spiral\"", DP_E_UNSUPPORTED, "'spiral'" },
        { "july", "\"type\": \"uniform\"", "\"type\":\"every_n\"", DP_E_FORMAT, "period" },
        { "april", "\"period\": 2", "\"period\":0", DP_E_FORMAT, "period" },
        { "july", "\"activation\": \"silu\"", "\"activation\":\"relu\"", DP_E_UNSUPPORTED,
          "'relu'" },
        { "july", "\"branchMode\": \"dense\"", "\"branchMode\":\"dense_plus_moe\"",
          DP_E_UNSUPPORTED, "'dense_plus_moe'" },
        { "july", "\"swigluLimit\": null", "\"swigluLimit\":7", DP_E_UNSUPPORTED, "swigluLimit" },
        { "july", "\"rmsNormEps\": 1e-05,", "", DP_E_FORMAT, "rmsNormEps: missing" },
        { "july", "\"rmsNormEps\": 1e-05", "\"type\":\"layernorm\",\"rmsNormEps\":1e-05",
          DP_E_UNSUPPORTED, "'layernorm'" },
        { "july", "\"preFeedforwardNorm\": false", "\"preFeedforwardNorm\":true", DP_E_UNSUPPORTED,
          "preFeedforwardNorm" },
        { "july", "\"ropeTheta\": 10000.0,", "", DP_E_FORMAT, "ropeTheta: missing" },
        { "july", "\"ropeScalingType\": null", "\"ropeScalingType\":\"ntk\"", DP_E_UNSUPPORTED,
          "'ntk'" },
        { "july", "\"ropeScalingType\": null", "\"ropeScalingType\":\"llama3\"", DP_E_UNSUPPORTED,
          "'llama3' without its factors" },
        { "july", "\"ropeScalingType\": null", "\"ropeScalingType\":\"yarn\"", DP_E_FORMAT,
          "yarnOriginalMaxPos: missing" },
        { "july", "\"ropeScalingType\": null", "\"ropeScalingType\":\"longrope\"", DP_E_FORMAT,
          "longropeShortFactor" },
        { "july", "\"partialRotaryFactor\": null", "\"partialRotaryFactor\":1.5", DP_E_FORMAT,
          "RoPE dimensions" },
        { "july", "\"ropeFrequencyBaseDim\": null", "\"ropeFrequencyBaseDim\":32", DP_E_UNSUPPORTED,
          "ropeFrequencyBaseDim" },
        { "april", "\"ropeTheta\": 10000.0",
          "\"ropeTheta\":1e4,\"ropeLocalPartialRotaryFactor\":"
          "0.5",
          DP_E_UNSUPPORTED, "ropeLocalPartialRotaryFactor" },
        { "july", "\"embeddingTranspose\": false", "\"embeddingTranspose\":true", DP_E_UNSUPPORTED,
          "embeddingTranspose" },
        { "july", "\"embeddingPostprocessor\": null",
          "\"embeddingPostprocessor\":{\"poolingMode\":\"mean\"}", DP_E_UNSUPPORTED,
          "embeddingPostprocessor" },
        { "april", "\"scaleEmbeddings\": true", "\"scaleEmbeddings\":true,\"embeddingScale\":2",
          DP_E_FORMAT, "embeddingScale" },
        { "march", "\"queryKeyNorm\": true",
          "\"queryKeyNorm\":true,\"queryKeyNormType\":\"layernorm\"", DP_E_UNSUPPORTED,
          "queryKeyNormType" },
        { "march", "\"queryKeyNorm\": true", "\"queryKeyNorm\":true,\"queryKeyNormLayers\":[]",
          DP_E_UNSUPPORTED, "queryKeyNormLayers" },
        { "june", "\"expertFormat\": \"mixtral\"", "\"expertFormat\":\"gemma4\"", DP_E_UNSUPPORTED,
          "'gemma4'" },
        { "june", "\"numExpertsPerToken\": 2", "\"numExpertsPerToken\":5", DP_E_FORMAT,
          "numExpertsPerToken" },
        { "june", "\"numExperts\": 4", "\"numExperts\":4,\"numSharedExperts\":1", DP_E_UNSUPPORTED,
          "numSharedExperts" },
        { "july", "\"modelType\": \"transformer\"", "\"modelType\":\"mamba\"", DP_E_UNSUPPORTED,
          "'mamba'" },
        { "july", "\"maxSeqLen\": 256", "\"maxSeqLen\":256,\"numKvSharedLayers\":2",
          DP_E_UNSUPPORTED, "numKvSharedLayers" },
        { "july", "\"numKeyValueHeads\": 1", "\"numKeyValueHeads\":3", DP_E_FORMAT,
          "2 attention heads" },
        { "july", "\"numLayers\": 1", "\"numLayers\":1e9", DP_E_FORMAT, "numLayers" },
        { "july", "\"schema\":",
          "\"unsupported\":{\"code\":\"no_runtime\",\"message\":\"waits for a kernel\"},"
          "\"schema\":",
          DP_E_UNSUPPORTED, "waits for a kernel (no_runtime)" },
        { "july", "\"inference\":", "\"was\":", DP_E_UNSUPPORTED, "inference: missing" },
        { "ours", "\"numLayers\": 1", "\"numLayers\":2", DP_E_FORMAT,
          "architecture.numLayers is 2, its config says 1" },
        { "ours", "\"vocabSize\": 288,\n    \"maxSeqLen\"", "\"vocabSize\":287,\"maxSeqLen\"",
          DP_E_FORMAT, "architecture.vocabSize is 287, its config says 288" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        test_row(t, "%s: %s", cases[i].pack, cases[i].to);
        str text = manifest_of(t, cases[i].pack);
        text = replaced_all(t, text, cases[i].from, cases[i].to);
        const char *null = "\"embeddingScale\": null,";
        if (strstr(cases[i].to, "\"embeddingScale\"") != NULL && strstr(text.data, null) != NULL) {
            text = replaced_all(t, text, null, "");
        }
        null = "\"ropeLocalPartialRotaryFactor\": null,";
        if (strstr(cases[i].to, "0.5") != NULL && strstr(text.data, null) != NULL) {
            text = replaced_all(t, text, null, "");
        }
        dp_error err = { 0 };
        description d = description_of_manifest(t, text, &err);
        CHECK(t, !d.ok);
        CHECK_ERROR(t, &err, cases[i].status, cases[i].part);
        description_drop(&d);
    }
}

/* ---- names --------------------------------------------------------------------------------- */

/* The tensors of a pack are found whatever their source called them. */
static void tensors_are_found_under_other_names(test *t) {
    static const struct {
        const char *what, *names[20]; /* pairs */
    } cases[] = {
        { "a decoder", { "model.layers.", "model.decoder.layers." } },
        { "an encoder", { "model.layers.", "model.encoder.language_model.layers." } },
        { "a language model",
          { "model.layers.", "model.language_model.layers.", "model.embed_tokens",
            "model.language_model.embed_tokens" } },
        { "another",
          { "model.layers.", "language_model.layers.", "model.embed_tokens",
            "language_model.embed_tokens", "model.norm", "language_model.norm" } },
        { "a third", { "model.layers.", "language_model.model.layers." } },
        { "Meta",
          { "model.layers.", "layers.", "self_attn.q_proj", "attention.wq", "self_attn.k_proj",
            "attention.wk", "self_attn.v_proj", "attention.wv", "self_attn.o_proj", "attention.wo",
            "input_layernorm", "attention_norm", "post_attention_layernorm", "ffn_norm",
            "mlp.gate_proj", "feed_forward.w1", "mlp.down_proj", "feed_forward.w2" } },
        { "GGUF",
          { "model.layers.",
            "blk.",
            "self_attn.q_proj",
            "attn_q",
            "self_attn.k_proj",
            "attn_k",
            "self_attn.o_proj",
            "attn_output",
            "input_layernorm",
            "attn_norm",
            "post_attention_layernorm",
            "ffn_norm",
            "mlp.gate_proj",
            "ffn_gate",
            "mlp.down_proj",
            "ffn_down",
            "model.embed_tokens",
            "token_embd",
            "model.norm",
            "output_norm" } },
        { "names of nobody", { "model.embed_tokens", "table", "model.norm", "last" } },
    };
    const str shard = test_read_file(t, test_vector(t, "packs/july/shard_00000.bin"));
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        test_row(t, "%s", cases[i].what);
        str text = manifest_of(t, "july");
        for (size_t k = 0; k < ARRAY_LEN(cases[i].names) && cases[i].names[k] != NULL; k += 2) {
            text = replaced_all(t, text, cases[i].names[k], cases[i].names[k + 1]);
        }
        test_write(t, "manifest.json", text.data, text.size);
        test_write(t, "shard_00000.bin", shard.data, shard.size);
        container *files = container_open(test_folder(t), false, &t->err);
        config c;
        weights w;
        arena memory = { 0 };
        const weight_limits limits = { .max_binding = 1u << 30, .max_buffer = 1u << 30 };
        const bool ok = files != NULL && config_read(&c, files, false, &memory, &t->err) &&
                        weights_plan(&w, &c, files, &limits, &memory, &t->err);
        if (CHECK_MSG(t, ok, "%s", t->err.message)) {
            CHECK(t, w.layers[0].gate.type == DTYPE_Q4_K && w.layers[0].q.n_pieces == 1);
            CHECK(t, w.layers[0].ffn_norm.source != w.layers[0].attn_norm.source);
            float x[32];
            CHECK(t, vector_read(files, &w.output_norm, 0, 32, x, &t->err) && x[0] > 0);
        }
        arena_free(&memory);
        container_close(files);
    }
}

/* A pack without a config.json of its own ends where its manifest says. */
static void stops_come_from_the_manifest(test *t) {
    const str vocabulary = test_read_file(t, test_vector(t, "tokenizers/bytes-288/tokenizer.json"));
    const str text = replaced_all(t, manifest_of(t, "july"), "\"eos_token_id\": [\n    2\n  ]",
                                  "\"eos_token_id\":[77,201]");
    test_write(t, "manifest.json", text.data, text.size);
    test_write(t, "tokenizer.json", vocabulary.data, vocabulary.size);
    container *files = container_open(test_folder(t), true, &t->err);
    tokenizer *k = files != NULL ? tokenizer_open(files, &(log_sink){ 0 }, &t->err) : NULL;
    if (CHECK_MSG(t, k != NULL, "%s", t->err.message)) {
        size_t n = 0;
        const dp_token *stops = tokenizer_stops(k, &n);
        bool found[2] = { false, false };
        for (size_t i = 0; i < n; i++) {
            found[0] |= stops[i] == 77;
            found[1] |= stops[i] == 201;
        }
        CHECK(t, found[0] && found[1]);
    }
    tokenizer_close(k);
    container_close(files);
}

/* ---- what is no rows ----------------------------------------------------------------------- */

/* Rows and vectors out of every layout and packing, in pieces, are what decoding all of it gives.
 */
static void other_layouts_are_read_by_rows(test *t) {
    container *files = container_open(test_vector(t, "packs/kinds"), false, &t->err);
    uint32_t n_checked = 0;
    for (uint32_t i = 0; files != NULL && i < container_n_tensors(files); i++) {
        const tensor *from = container_tensor(files, i);
        if (from->n_dims != 2 || tensor_is_plain(from) || from->shape[0] < 8) continue;
        test_row(t, "%.*s", (int)from->name.size, from->name.data);
        const uint32_t rows = (uint32_t)from->shape[0], cols = (uint32_t)from->shape[1];
        float *all = test_floats(t, (size_t)rows * cols), *part = test_floats(t, cols);
        if (!CHECK(t, container_decode(files, from, 0, rows, all, &t->err))) break;
        /* heads of 4 rows, two of which are a pair; every third row from the second on */
        weight_piece pieces[] = {
            { .source = from, .width = rows, .step = 1 },
            { .source = from, .width = rows, .step = 1, .head = 4, .turned = 4 },
            { .source = from, .width = rows, .first = 1, .step = 3 },
        };
        static const uint32_t pairs[] = { 0, 2, 1, 3 };
        for (size_t k = 0; k < ARRAY_LEN(pieces); k++) {
            const weight w = { .type = DTYPE_F16,
                               .rows = k == 2 ? (rows - 2) / 3 + 1 : rows & ~3u,
                               .cols = cols,
                               .decoded = true,
                               .n_pieces = 1,
                               .pieces = &pieces[k] };
            uint16_t *got = test_alloc(t, (size_t)w.rows * cols, sizeof *got);
            for (uint32_t first = 0; first < w.rows; first += 5) { /* pieces of five rows */
                CHECK(t, weight_read(files, &w, first, min_u32(5, w.rows - first),
                                     got + (size_t)first * cols, &t->err));
            }
            for (uint32_t r = 0; r < w.rows; r++) {
                const uint32_t row = k == 2 ? 1 + 3 * r : k == 1 ? r - r % 4 + pairs[r % 4] : r;
                for (uint32_t c = 0; c < cols; c++) {
                    if (!CHECK(t, got[r * cols + c] == f32_to_f16(all[row * cols + c]))) return;
                }
            }
        }
        /* every second element from the first on of each row's first half */
        const vector v = { .source = from,
                           .n = rows * (cols / 4),
                           .run = cols / 4,
                           .pitch = cols,
                           .first = 1,
                           .step = 2,
                           .add = 1 };
        for (uint32_t r = 0; r < rows; r++) {
            CHECK(t, vector_read(files, &v, r * v.run, v.run, part, &t->err));
            for (uint32_t c = 0; c < v.run; c++) {
                if (!CHECK(t, part[c] == all[r * cols + 1 + 2 * c] + 1)) return;
            }
        }
        n_checked++;
    }
    CHECK_MSG(t, n_checked >= 7, "%u tensors", n_checked);
    container_close(files);
}

/* ---- written for others -------------------------------------------------------------------- */

/* The manifest's fields alone give the same description, or say that they do not. */
static void written_fields_say_the_same_or_refuse(test *t) {
    static const struct {
        const char *folder;
        const char *unsaid; /* what others are told that it has; NULL: nothing */
    } cases[] = {
        { "families/gpt2", "learned positions" },
        { "families/llama-yarn", "RoPE scaling by YaRN" },
        { "families/llama-dynamic", "dynamic RoPE scaling" },
        { "families/smollm3", "layers without RoPE" },
        { "families/mistral-window", NULL },
        { "families/qwen2", NULL },
        { "families/qwen3", NULL },
        { "families/gemma2", NULL },
        { "families/gemma3", NULL },
        { "families/gemma3-4b", NULL },
        { "families/phi3", NULL },
        { "families/phi3-longrope", NULL },
        { "families/phi4-mini", NULL },
        { "families/olmo2", "norms behind the blocks" },
        { "families/granite", NULL },
        { "families/mixtral", NULL },
        { "families/qwen3moe", "experts of this kind" },
        { "families/gpt-oss", "attention sinks" },
        { "models/llama2-mha", NULL },
        { "models/llama3-gqa", NULL },
        { "models/llama-rope-linear", NULL },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        test_row(t, "%s", cases[i].folder);
        description d = description_of_folder(t, test_vector(t, cases[i].folder));
        buf text;
        buf_init(&text, 1 << 20);
        buf_printf(&text,
                   "{\"version\":1,\"modelId\":\"x\",\"quantization\":\"F32\","
                   "\"hashAlgorithm\":\"sha256\",\"eos_token_id\":2,\"shards\":[{\"index\":0,"
                   "\"filename\":\"shard_00000.bin\",\"size\":64,\"offset\":0,"
                   "\"hash\":\"%064d\"}],"
                   "\"totalSize\":64,\"tensors\":{\"x\":{\"shard\":0,\"offset\":0,"
                   "\"size\":64,\"shape\":[16],\"dtype\":\"F32\",\"role\":\"other\"}}",
                   0);
        const bool ok = d.ok && config_write_inference(&d.config, d.files, NULL, &text, &t->err);
        buf_printf(&text, "}");
        if (CHECK_MSG(t, ok, "%s", t->err.message)) {
            dp_error err = { 0 };
            description back = description_of_manifest(t, (str){ text.data, text.size }, &err);
            if (cases[i].unsaid != NULL) {
                CHECK_ERROR(t, &err, DP_E_UNSUPPORTED, cases[i].unsaid);
            } else if (CHECK_MSG(t, back.ok, "%s", err.message)) {
                config known = with_known_family(&back.config), want = d.config;
                want.family = known.family; /* biases and names aside, the switches are these */
                check_same_config(t, &known, &want);
            }
            description_drop(&back);
        }
        buf_free(&text);
        description_drop(&d);
    }
}

static const test_case cases[] = {
    { "dialects describe their models", dialects_describe_their_models },
    { "missing fields are off", missing_fields_are_off },
    { "what says how to run changes nothing", what_says_how_to_run_changes_nothing },
    { "switches mean what they say", switches_mean_what_they_say },
    { "what is on and not known is refused", what_is_on_and_not_known_is_refused },
    { "tensors are found under other names", tensors_are_found_under_other_names },
    { "stops come from the manifest", stops_come_from_the_manifest },
    { "other layouts are read by rows", other_layouts_are_read_by_rows },
    { "written fields say the same or refuse", written_fields_say_the_same_or_refuse },
};
const test_group config_pack_tests = { "config_pack", cases, ARRAY_LEN(cases) };
