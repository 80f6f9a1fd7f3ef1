/* test_ref: the double reference of the whole pass against transformers in float32, without a GPU.
 *
 * The vectors' own error is that of float32, and their generator measured it: float64_difference is
 * the farthest that their logits are from the same pass in float64. Twice that may differ: once for
 * it, once for angles, which the reference implementation rounds to float32 before their cosine and
 * this one does not. It is 1e-5 to 1e-4 where logits deviate by 1 to 3; anything mapped wrongly (a
 * transposed head, a bias, a RoPE spelling) differs by a tenth of a deviation or more, which the
 * vectors' own check holds. */
#include "format/format.h"
#include "ref/ref.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>

enum { TOKENS_MAX = 4096 };

typedef struct {
    uint32_t vocab, n_tokens, n_positions, n_greedy;
    uint32_t tokens[TOKENS_MAX], positions[TOKENS_MAX], greedy[64];
    double allowed, margin;
    const float *logits; /* [n_positions, vocab] */
} vectors;

static uint32_t read_list(test *t, const json_value *list, uint32_t *out, uint32_t max) {
    uint32_t n = 0;
    for (json_iter it = json_each(list); json_next(&it) && n < max; n++) {
        uint64_t value = UINT64_MAX;
        CHECK(t, json_u64(it.value, &value) && value <= UINT32_MAX);
        out[n] = (uint32_t)value;
    }
    return n;
}

static vectors *read_vectors(test *t, const char *folder, const char *name) {
    vectors *v = test_alloc(t, 1, sizeof(*v));
    const str text = test_read_file(t, test_vector(t, test_printf(t, "%s/%s.json", folder, name)));
    json *doc = text.data != NULL ? json_open(text, name, &t->err) : NULL;
    if (!CHECK(t, doc != NULL)) return NULL;
    const json_value *root = json_root(doc);
    str same;
    if (json_string(json_get(root, "same_as"), &same)) {
        char other[256];
        snprintf(other, sizeof(other), "%.*s", STR_ARG(same));
        json_close(doc);
        return read_vectors(t, other, name);
    }
    uint64_t vocab = 0;
    CHECK(t, json_u64(json_get(root, "vocab"), &vocab));
    CHECK(t, json_f64(json_get(root, "float64_difference"), &v->allowed));
    v->allowed *= 2;
    v->vocab = (uint32_t)vocab;
    v->n_tokens = read_list(t, json_get(root, "tokens"), v->tokens, TOKENS_MAX);
    v->n_positions = read_list(t, json_get(root, "positions"), v->positions, TOKENS_MAX);
    v->n_greedy = read_list(t, json_get(root, "greedy"), v->greedy, ARRAY_LEN(v->greedy));
    json_f64(json_get(root, "greedy_margin"), &v->margin);
    json_close(doc);
    const str raw = test_read_file(t, test_vector(t, test_printf(t, "%s/%s.f32", folder, name)));
    if (!CHECK(t, raw.data != NULL) || !CHECK_U64(t, raw.size, 4 * vocab * v->n_positions))
        return NULL;
    float *logits = test_floats(t, raw.size / 4);
    memcpy(logits, raw.data, raw.size);
    v->logits = logits;
    return v;
}

static uint32_t best_of(const double *x, uint32_t n) {
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++)
        best = x[i] > x[best] ? i : best;
    return best;
}

/* Logits of the vectors' positions, and the greedy continuation as the best token after each of it.
 */
static void compare(test *t, const ref_model *m, const vectors *v) {
    const uint32_t n = v->n_tokens + v->n_greedy;
    uint32_t *tokens = test_alloc(t, n, sizeof(*tokens));
    memcpy(tokens, v->tokens, v->n_tokens * sizeof(*tokens));
    memcpy(tokens + v->n_tokens, v->greedy, v->n_greedy * sizeof(*tokens));
    double *logits = test_alloc(t, (size_t)n * v->vocab, sizeof(double));
    if (!CHECK_U64(t, ref_model_vocab(m), v->vocab)) return;
    if (!CHECK(t, ref_forward(m, tokens, n, logits, &t->err))) return;
    double worst = 0;
    for (size_t i = 0; i < (size_t)v->n_positions * v->vocab; i++) {
        const size_t at = (size_t)v->positions[i / v->vocab] * v->vocab + i % v->vocab;
        worst = fmax(worst, fabs(logits[at] - (double)v->logits[i]));
    }
    CHECK_MSG(t, worst <= v->allowed, "logits differ by %g, allowed %g", worst, v->allowed);
    for (uint32_t i = 0; i < v->n_greedy; i++) {
        CHECK_U64(t, best_of(logits + (size_t)(v->n_tokens - 1 + i) * v->vocab, v->vocab),
                  v->greedy[i]);
    }
}

static void model_agrees_with(test *t, const char *folder, const char *inside, const char *name) {
    test_row(t, "%s %s", folder, name);
    const vectors *v = read_vectors(t, folder, name);
    if (v == NULL) return;
    const char *path = test_vector(t, test_printf(t, "%s%s", folder, inside));
    ref_model *m = ref_model_open(path, &t->err);
    if (CHECK_MSG(t, m != NULL, "%s", t->err.message)) compare(t, m, v);
    ref_model_close(m);
    t->err = (dp_error){ 0 }; /* so that the next one shows its own */
}

static void model_agrees(test *t, const char *folder, const char *inside) {
    model_agrees_with(t, folder, inside, "vectors");
}

static void folders_agree(test *t) {
    static const char *const names[] = {
        "llama2-mha",       "llama3-gqa",    "llama3-rope-parameters",
        "mistral-head-dim", "smollm2-heads", "mqa-head-256",
        "stories-ffn-172",  "llama-bias",    "llama-rope-linear",
    };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        model_agrees(t, test_printf(t, "models/%s", names[i]), "");
    }
}

static void gguf_files_agree(test *t) {
    static const char *const names[] = {
        "llama3-gqa-bf16",
        "smollm2-heads-f16",
        "stories-ffn-172-f16",
        "q4_0",
        "q4_1",
        "q5_0",
        "q5_1",
        "q8_0",
        "q4_k",
        "q5_k",
        "q6_k",
        "q4_k_m",
        "q4_k_m-narrow",
    };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        model_agrees(t, test_printf(t, "gguf/%s", names[i]), "/model.gguf");
    }
    model_agrees(t, "gguf/llama3-gqa-split", "/model-00001-of-00003.gguf");
}

static void family_folders_agree(test *t) {
    static const char *const names[] = {
        "gpt2",           "gpt2-bare",    "llama-yarn", "llama-dynamic", "smollm3",
        "mistral-window", "qwen2",        "qwen3",      "gemma2",        "gemma3",
        "gemma3-4b",      "phi3",         "phi4-mini",  "phi3-longrope", "olmo2",
        "granite",        "mixtral",      "qwen3moe",   "qwen3moe-raw",  "gpt-oss",
        "gpt-oss-bf16",
    };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        model_agrees(t, test_printf(t, "families/%s", names[i]), "");
    }
    /* RoPE that depends on the length: other factors within the original context, and a base that
     * has grown beyond it. */
    model_agrees_with(t, "families/phi3-longrope", "", "short");
    model_agrees_with(t, "families/llama-dynamic", "", "beyond");
}

static void family_gguf_files_agree(test *t) {
    static const char *const names[] = {
        "gpt2",   "llama-yarn",   "smollm3",   "mistral-window", "qwen2",         "qwen3",
        "gemma2", "gemma3",       "gemma3-4b", "phi3",           "phi4-mini",     "phi3-longrope",
        "olmo2",  "granite",      "mixtral",   "qwen3moe",       "gpt-oss",       "gpt-oss-bf16",
    };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        model_agrees(t, test_printf(t, "families-gguf/%s", names[i]), "/model.gguf");
    }
}

/* Positions far beyond the original context that RoPE scaling stretches. */
static void a_long_text_agrees(test *t) {
    if (SANITIZED) SKIP(t, "sanitized: the same code as for short texts");
    model_agrees_with(t, "models/llama3-gqa", "", "long");
}

/* The tolerance bites: another token changes the logits by far more. */
static void another_token_is_seen(test *t) {
    vectors *v = read_vectors(t, "models/llama3-gqa", "vectors");
    ref_model *m = ref_model_open(test_vector(t, "models/llama3-gqa"), &t->err);
    if (!CHECK(t, v != NULL && m != NULL)) return;
    double *logits = test_alloc(t, (size_t)v->n_tokens * v->vocab, sizeof(double));
    v->tokens[50] = (v->tokens[50] + 1) % v->vocab;
    CHECK(t, ref_forward(m, v->tokens, v->n_tokens, logits, &t->err));
    for (uint32_t i = 0; i < v->n_tokens; i++) {
        double worst = 0;
        for (uint32_t j = 0; j < v->vocab; j++) {
            const size_t at = (size_t)i * v->vocab + j;
            worst = fmax(worst, fabs(logits[at] - (double)v->logits[at]));
        }
        CHECK_MSG(t, (worst <= v->allowed) == (i < 50), "position %u differs by %g", i,
                  worst);
    }
    v->tokens[0] = v->vocab;
    CHECK(t, !ref_forward(m, v->tokens, 1, logits, &t->err));
    CHECK_ERROR(t, &t->err, DP_E_ARGUMENT, "outside the vocabulary");
    ref_model_close(m);
}

/* GPT-2 has a row of a table for each position, and no more. */
static void positions_end(test *t) {
    enum { POSITIONS = 128, VOCAB = 128 }; /* its config.json */
    ref_model *m = ref_model_open(test_vector(t, "families/gpt2"), &t->err);
    if (!CHECK(t, m != NULL) || !CHECK_U64(t, ref_model_vocab(m), VOCAB)) return;
    uint32_t *tokens = test_alloc(t, POSITIONS + 1, sizeof(*tokens));
    double *logits = test_alloc(t, (POSITIONS + 1) * VOCAB, sizeof(double));
    CHECK(t, ref_forward(m, tokens, POSITIONS, logits, &t->err));
    CHECK(t, !ref_forward(m, tokens, POSITIONS + 1, logits, &t->err));
    CHECK_ERROR(t, &t->err, DP_E_ARGUMENT, "has 128 positions");
    ref_model_close(m);
}

static const test_case cases[] = {
    { "safetensors folders give the logits of transformers", folders_agree },
    { "GGUF files give the logits of transformers", gguf_files_agree },
    { "folders of every family give the logits of transformers", family_folders_agree },
    { "GGUF files of every family give the logits of transformers", family_gguf_files_agree },
    { "4,000 tokens give the logits of transformers", a_long_text_agrees },
    { "learned positions end", positions_end },
    { "another token gives other logits from its position on", another_token_is_seen },
};
const test_group ref_tests = { "ref", cases, ARRAY_LEN(cases) };
