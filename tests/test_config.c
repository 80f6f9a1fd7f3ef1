/* What the files say of an architecture: descriptions from config.json and GGUF metadata, and what
 * is refused because it would change the result. No device. */
#include "model/model.h"
#include "tests/test.h"

#include <stdio.h>

/* ---- reading a description ----------------------------------------------------------------- */

typedef struct {
    container *files;
    arena memory;
    config config;
    bool ok;
} description;

static description read_folder(test *t, const char *folder) {
    description d = { .files = container_open(folder, true, &t->err) };
    d.ok = d.files != NULL && config_read(&d.config, d.files, false, &d.memory, &t->err);
    return d;
}

static void drop(description *d) {
    arena_free(&d->memory);
    container_close(d->files);
}

/* A folder of the case's own with this config.json and nothing else. */
static description read_text(test *t, const char *text) {
    test_write(t, "config.json", text, strlen(text));
    return read_folder(t, test_folder(t));
}

static void check_same_rope(test *t, const config *a, const config *b, rope_kind table) {
    static const uint32_t contexts[] = { 32, 64, 65, 4096, 100000 };
    for (size_t i = 0; i < ARRAY_LEN(contexts); i++) {
        double fa[HEAD_DIM_MAX / 2], fb[HEAD_DIM_MAX / 2];
        float ma, mb;
        rope_frequencies(a, table, contexts[i], fa, &ma);
        rope_frequencies(b, table, contexts[i], fb, &mb);
        CHECK(t, ma == mb && memcmp(fa, fb, a->rope_dim / 2 * sizeof *fa) == 0);
    }
}

/* Everything that the pass goes by. */
static void check_same(test *t, const config *a, const config *b) {
    CHECK(t, a->family == b->family);
    const uint32_t counts[][2] = {
        { a->n_layers, b->n_layers },
        { a->dim, b->dim },
        { a->n_heads, b->n_heads },
        { a->ffn_dim, b->ffn_dim },
        { a->head_dim, b->head_dim },
        { a->context, b->context },
        { a->n_kv_heads, b->n_kv_heads },
        { a->vocab_size, b->vocab_size },
        { a->rope_dim, b->rope_dim },
        { a->n_experts, b->n_experts },
        { a->n_experts_used, b->n_experts_used },
        { a->expert_ffn_dim, b->expert_ffn_dim },
    };
    for (size_t i = 0; i < ARRAY_LEN(counts); i++) {
        CHECK_MSG(t, counts[i][0] == counts[i][1], "count %zu: %u and %u", i, counts[i][0],
                  counts[i][1]);
    }
    CHECK(t, a->norm_eps == b->norm_eps && a->activation == b->activation);
    CHECK(t, a->embedding_scale == b->embedding_scale && a->logits_scale == b->logits_scale);
    CHECK(t, a->residual_scale == b->residual_scale && a->attention_scale == b->attention_scale);
    CHECK(t, a->attention_softcap == b->attention_softcap);
    CHECK(t, a->logits_softcap == b->logits_softcap && a->normalise_route == b->normalise_route);
    for (uint32_t i = 0; i < a->n_layers && a->n_layers == b->n_layers; i++) {
        CHECK_MSG(t,
                  a->layer_window[i] == b->layer_window[i] && a->layer_rope[i] == b->layer_rope[i],
                  "layer %u: window %u and %u, RoPE %d and %d", i, a->layer_window[i],
                  b->layer_window[i], (int)a->layer_rope[i], (int)b->layer_rope[i]);
    }
    check_same_rope(t, a, b, ROPE_GLOBAL);
    check_same_rope(t, a, b, ROPE_LOCAL);
}

/* transformers 5 writes other fields than the published folders have: the same description. */
static void saved_configs_say_the_same(test *t) {
    static const char *const names[] = {
        "gpt2",          "llama-yarn",   "smollm3", "mistral-window", "qwen2",
        "qwen3",         "gemma2",       "gemma3",  "gemma3-4b",      "phi3",
        "phi3-longrope", "phi4-mini",    "olmo2",   "granite",        "mixtral",
        "qwen3moe",      "qwen3moe-raw", "gpt-oss", "llama-dynamic",  "gpt-oss-bf16",
    };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        test_row(t, "%s", names[i]);
        const char *folder = test_vector(t, test_printf(t, "families/%s", names[i]));
        const str saved = test_read_file(t, test_printf(t, "%s/config-saved.json", folder));
        if (!CHECK(t, saved.data != NULL)) continue;
        description a = read_folder(t, folder);
        description b = read_text(t, test_printf(t, "%.*s", (int)saved.size, saved.data));
        if (CHECK_MSG(t, a.ok && b.ok, "%s", t->err.message)) {
            check_same(t, &a.config, &b.config);
        }
        drop(&a);
        drop(&b);
    }
}

/* ---- what folders leave out ---------------------------------------------------------------- */

/* The text part of the published Gemma 3 4B has six fields; the rest is its class's. */
static void gemma3_fills_in_what_its_class_does(test *t) {
    description d = read_text(
        t, "{\"model_type\":\"gemma3\",\"text_config\":{\"model_type\":\"gemma3_text\","
           "\"hidden_size\":2560,\"intermediate_size\":10240,\"num_hidden_layers\":34,"
           "\"sliding_window\":1024,\"rope_scaling\":{\"factor\":8.0,\"rope_type\":\"linear\"}}}");
    const config *c = &d.config;
    if (CHECK_MSG(t, d.ok, "%s", t->err.message)) {
        CHECK_U64(t, c->n_heads, 8);
        CHECK_U64(t, c->n_kv_heads, 4);
        CHECK_U64(t, c->head_dim, 256);
        CHECK_U64(t, c->vocab_size, 262208);
        CHECK_U64(t, c->context, 131072);
        CHECK(t, c->attention_scale == 0.0625f && c->norm_eps == 1e-6f);
        CHECK(t, c->rope[ROPE_GLOBAL].theta == 1e6 && c->rope[ROPE_LOCAL].theta == 1e4);
        CHECK(t, c->rope[ROPE_GLOBAL].kind == SCALING_LINEAR);
        CHECK(t, c->rope[ROPE_LOCAL].kind == SCALING_NONE);
        CHECK_U64(t, c->layer_window[4], 1024);
        CHECK_U64(t, c->layer_window[5], 0);
        CHECK(t, c->layer_rope[4] == ROPE_LOCAL && c->layer_rope[5] == ROPE_GLOBAL);
    }
    drop(&d);
}

static const char LLAMA[] =
    "{\"model_type\":\"%s\",\"hidden_size\":64,\"intermediate_size\":128,\"num_hidden_layers\":2,"
    "\"num_attention_heads\":4,\"max_position_embeddings\":256,\"vocab_size\":100%s}";

/* Windows and bases that a family has where config.json does not say. */
static void families_have_their_own_defaults(test *t) {
    static const struct {
        const char *type, *more;
        uint32_t window;
        double theta, eps;
    } cases[] = {
        { "llama", "", 0, 1e4, 1e-6 },
        { "mistral", "", 4096, 1e4, 1e-6 },
        { "mistral", ",\"sliding_window\":null", 0, 1e4, 1e-6 },
        { "mixtral", ",\"num_local_experts\":8,\"num_experts_per_tok\":2", 0, 1e6, 1e-5 },
        { "mixtral", ",\"num_local_experts\":8,\"num_experts_per_tok\":2,\"rope_theta\":5e5", 0,
          5e5, 1e-5 },
        { "qwen2", ",\"sliding_window\":16,\"use_sliding_window\":true", 0, 1e4, 1e-6 },
        { "qwen2", ",\"sliding_window\":16,\"use_sliding_window\":true,\"max_window_layers\":0", 16,
          1e4, 1e-6 },
        { "qwen2", ",\"sliding_window\":16", 0, 1e4, 1e-6 },
        { "smollm3", "", 0, 2e6, 1e-6 },
        { "gemma2", ",\"hidden_activation\":\"gelu_pytorch_tanh\"", 4096, 1e4, 1e-6 },
        { "olmo2", "", 0, 1e4, 1e-5 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        test_row(t, "%s%s", cases[i].type, cases[i].more);
        description d = read_text(t, test_printf(t, LLAMA, cases[i].type, cases[i].more));
        if (CHECK_MSG(t, d.ok, "%s", t->err.message)) {
            CHECK_U64(t, d.config.layer_window[0], cases[i].window);
            CHECK(t, d.config.rope[ROPE_GLOBAL].theta == cases[i].theta);
            CHECK_MSG(t, d.config.norm_eps == (float)cases[i].eps, "eps %g",
                      (double)d.config.norm_eps);
        }
        drop(&d);
    }
}

/* ---- what is refused ----------------------------------------------------------------------- */

static void what_is_not_known_is_refused_by_name(test *t) {
    static const struct {
        const char *type, *more;
        dp_status status;
        const char *part; /* of the message; NULL: it is read */
    } cases[] = {
        { "llama", "", DP_OK, NULL },
        { "mamba", "", DP_E_UNSUPPORTED, "model_type 'mamba'" },
        { "llama", ",\"sliding_window\":16", DP_E_UNSUPPORTED, "sliding_window" },
        { "llama", ",\"sliding_window\":null", DP_OK, NULL },
        { "llama", ",\"embedding_multiplier\":12", DP_E_UNSUPPORTED, "embedding_multiplier" },
        { "llama", ",\"num_local_experts\":8", DP_E_UNSUPPORTED, "num_local_experts" },
        { "llama", ",\"alibi\":true", DP_E_UNSUPPORTED, "alibi" },
        { "llama", ",\"alibi\":false,\"_note\":7,\"use_cache\":true", DP_OK, NULL },
        { "llama", ",\"hidden_act\":\"relu\"", DP_E_UNSUPPORTED, "relu" },
        { "gemma2", ",\"hidden_activation\":\"gelu\"", DP_E_UNSUPPORTED, "gelu" },
        { "llama", ",\"rope_scaling\":{\"type\":\"ntk\",\"factor\":2}", DP_E_UNSUPPORTED, "ntk" },
        { "llama", ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2,\"warp\":3}",
          DP_E_UNSUPPORTED, "warp" },
        { "llama", ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":-2}", DP_E_FORMAT, "factor" },
        { "phi3",
          ",\"rope_scaling\":{\"type\":\"longrope\",\"short_factor\":[1],\"long_factor\":[]}",
          DP_E_FORMAT, "short_factor" },
        { "llama", ",\"quantization_config\":{\"quant_method\":\"gptq\"}", DP_E_UNSUPPORTED,
          "quantization_config" },
        { "mixtral", "", DP_E_FORMAT, "num_local_experts: missing" },
        { "mixtral", ",\"num_local_experts\":2,\"num_experts_per_tok\":3", DP_E_FORMAT,
          "3 experts used of 2" },
        { "mixtral", ",\"num_local_experts\":100000,\"num_experts_per_tok\":3", DP_E_FORMAT,
          "100000" },
        { "qwen3_moe",
          ",\"num_experts\":8,\"num_experts_per_tok\":2,\"decoder_sparse_step\":2,"
          "\"head_dim\":16",
          DP_E_UNSUPPORTED, "decoder_sparse_step" },
        { "gemma2", ",\"layer_types\":[\"full_attention\"]", DP_E_FORMAT, "layer_types" },
        { "mistral", ",\"layer_types\":[\"full_attention\",\"linear_attention\"]", DP_E_UNSUPPORTED,
          "linear_attention" },
        { "gemma2", ",\"final_logit_softcapping\":-1", DP_E_FORMAT, "final_logit_softcapping" },
        { "smollm3", ",\"no_rope_layers\":[1]", DP_E_FORMAT, "no_rope_layers" },
        { "llama", ",\"num_attention_heads\":3", DP_E_FORMAT, "" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        test_row(t, "%s%s", cases[i].type, cases[i].more);
        dp_error err = { 0 };
        const char *text = test_printf(t, LLAMA, cases[i].type, cases[i].more);
        test_write(t, "config.json", text, strlen(text));
        container *files = container_open(test_folder(t), true, &err);
        config c;
        arena memory = { 0 };
        const bool ok = files != NULL && config_read(&c, files, false, &memory, &err);
        if (cases[i].part == NULL) {
            CHECK_MSG(t, ok, "%s", err.message);
        } else if (CHECK(t, !ok)) {
            CHECK_ERROR(t, &err, cases[i].status, cases[i].part);
        }
        arena_free(&memory);
        container_close(files);
    }
}

/* ---- tensors ------------------------------------------------------------------------------- */

/* A tensor of a layer that no operation reads: the description is not that of the file. */
static void tensors_left_over_are_refused(test *t) {
    static const struct {
        const char *folder, *from, *to; /* a change of config.json */
        const char *part;
    } cases[] = {
        { "qwen3", "qwen3", "qwen2", "a part of the model would be left out" },
        { "granite", "granite", "llama", "multiplier" },
        { "gpt-oss", "\"num_local_experts\": 4", "\"num_local_experts\": 3", "shape" },
        { "olmo2", "olmo2", "llama", "input_layernorm" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        test_row(t, "%s", cases[i].folder);
        const char *folder = test_vector(t, test_printf(t, "families/%s", cases[i].folder));
        str text = test_read_file(t, test_printf(t, "%s/config.json", folder));
        const str weights_file = test_read_file(t, test_printf(t, "%s/model.safetensors", folder));
        buf changed;
        buf_init(&changed, 1 << 20);
        const size_t n = strlen(cases[i].from);
        bool found = false;
        for (size_t at = 0; at < text.size;) {
            const bool here = text.size - at >= n && memcmp(text.data + at, cases[i].from, n) == 0;
            buf_add(&changed, here ? cases[i].to : text.data + at, here ? strlen(cases[i].to) : 1);
            found |= here;
            at += here ? n : 1;
        }
        CHECK(t, found && buf_ok(&changed, "config.json", &t->err));
        test_write(t, "config.json", changed.data, changed.size);
        test_write(t, "model.safetensors", weights_file.data, weights_file.size);
        buf_free(&changed);
        dp_error err = { 0 };
        container *files = container_open(test_folder(t), false, &err);
        config c;
        weights w;
        arena memory = { 0 };
        const weight_limits limits = { .max_binding = 1u << 30, .max_buffer = 1u << 30 };
        CHECK(t, files == NULL || !config_read(&c, files, false, &memory, &err) ||
                     !weights_plan(&w, &c, files, &limits, &memory, &err));
        CHECK_MSG(t, strstr(err.message, cases[i].part) != NULL, "%s", err.message);
        arena_free(&memory);
        container_close(files);
    }
}

static const test_case cases[] = {
    { "saved configs say the same", saved_configs_say_the_same },
    { "Gemma 3 fills in what its class does", gemma3_fills_in_what_its_class_does },
    { "families have their own defaults", families_have_their_own_defaults },
    { "what is not known is refused by name", what_is_not_known_is_refused_by_name },
    { "tensors left over are refused", tensors_left_over_are_refused },
};
const test_group config_tests = { "config", cases, ARRAY_LEN(cases) };
