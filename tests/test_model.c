/* Whole models against what Hugging Face transformers computed in float32 (tests/vectors), the
 * paths of the engine against each other, and the contracts of the public interface.
 *
 * Tolerances. Without half floats all sums are f32 like the reference's: 1e-3 of the logits'
 * standard deviation is a hundred times the rounding of a few layers and a tenth of what one wrong
 * element of a weight row moves. With a half-float cache keys and values have relative errors of
 * 2^-11; 2e-2 of the deviation is what the project promises. Every tier runs the same table.
 * Where quantised matrices meet activations as signed bytes, each rounding is off by s / sqrt(12)
 * at random, s = max / 127 over 16 or 32 of them and max about 2.6 of their deviations: 0.6 % of
 * what a product gives. Attention's scores, some tens in these random models, turn that into a few
 * per cent of its weights, and there are two or three layers: 5e-2 of the deviation over all
 * logits, and the worst of some ten thousand five times that. The tiers without subgroups keep
 * floats.
 * Where prompts are multiplied in half floats a product errs as some six roundings to 11 bits of
 * each of its terms would (x, the term itself, 2.25 for its chain, 2 for the tree), each by 2e-4 of
 * it at random: 0.05 % of what the product gives, a twelfth of what signed bytes cost. */
#include "model/ops_internal.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>

/* The host's code is the same for every tier of the device. */
#define SKIP_LESSER_TIER(t, tier) \
    if (SANITIZED && (tier) != TIER_FULL) SKIP(t, "sanitized: the host's code is that of tier 0")

/* ---- devices and models -------------------------------------------------------------------- */

enum { TIER_FULL, TIER_F32, TIER_NO_SUBGROUPS, TIER_PLAIN, TIER_CHECKS, TIER_POSED,
       TIER_POSED_FLOATS };
static const char *const TIER_NAMES[] = { "as it is", "no f16", "no subgroups", "neither",
                                          "with checks", "as a GPU", "as a GPU without int8" };
static const double TIER_BOUND[] = { 2e-2, 1e-3, 2e-2, 1e-3, 2e-2, 2e-2, 2e-2 };
static const double INT8_WORST = 0.25, INT8_MEAN = 5e-2, HALVES_WORST = 0.25 / 12;

static dp_device_options tier_options(int tier) {
    dp_device_options options = test_device_options();
    options.no_f16 |= tier == TIER_F32 || tier == TIER_PLAIN;
    const bool lesser = tier == TIER_NO_SUBGROUPS || tier == TIER_PLAIN;
    options.no_subgroups |= lesser;
    options.checks |= tier == TIER_CHECKS;
    options.no_int8 = lesser || tier == TIER_POSED_FLOATS || test_option("no-int8") != NULL;
    return options;
}

static dp_device *open_tier(test *t, int tier) {
    const dp_device_options options = tier_options(tier);
    return dp_device_open(&options, &t->err);
}

/* Do quantised matrices of this model meet bytes? */
static bool reads_bytes(const dp_model *m) {
    bool quantised = dtype_is_quantised(m->weights.head.type);
    for (uint32_t i = 0; i < m->config.n_layers; i++) {
        const layer_weights *l = &m->weights.layers[i];
        const weight *const list[] = { &l->q, &l->k, &l->v, &l->o, &l->gate, &l->up, &l->down,
                                       &l->expert_gate, &l->expert_up, &l->expert_down };
        for (size_t k = 0; k < ARRAY_LEN(list); k++) {
            quantised |= list[k]->n_pieces > 0 && dtype_is_quantised(list[k]->type);
        }
    }
    return m->shapes.int8 && quantised;
}

static void *open_full(test *t) {
    return open_tier(t, TIER_FULL);
}

static void *open_f32(test *t) {
    return open_tier(t, TIER_F32);
}

static void *open_no_subgroups(test *t) {
    return open_tier(t, TIER_NO_SUBGROUPS);
}

static void *open_plain(test *t) {
    return open_tier(t, TIER_PLAIN);
}

static void *open_checks(test *t) {
    return open_tier(t, TIER_CHECKS);
}

static void close_device(void *device) {
    dp_device_close(device);
}

static const char *BUNDLED = "models/tale-8m";

static dp_model *open_model(test *t, dp_device *device, const char *path, uint32_t context,
                            uint32_t batch) {
    const dp_model_options options = { .context = context, .batch = batch };
    return dp_model_open(device, path, &options, &t->err);
}

static dp_device *device_of(test *t, int tier) {
    static void *(*const open[])(test *) = { open_full, open_f32, open_no_subgroups, open_plain,
                                            open_checks };
    return test_shared(t, TIER_NAMES[tier], open[tier], close_device);
}

/* ---- vectors ------------------------------------------------------------------------------- */

typedef struct {
    uint32_t n, vocab, rows; /* tokens; the logits have `rows` of them, the first or `positions` */
    dp_token *tokens;
    uint32_t *positions;
    const float *logits;
    double deviation;
    dp_token *greedy;
    uint32_t n_greedy;
    double greedy_margin;
    json *doc;
} vectors;

static uint32_t *read_ids(test *t, const json_value *v, uint32_t *n) {
    uint32_t *ids = test_alloc(t, json_count(v) + 1, sizeof *ids);
    *n = 0;
    for (json_iter it = json_each(v); json_next(&it);) {
        uint64_t id = 0;
        CHECK(t, json_u64(it.value, &id));
        ids[(*n)++] = (uint32_t)id;
    }
    return ids;
}

/* `folder` holds NAME.json and NAME.f32, or names the folder that does. */
static bool read_named_vectors(test *t, const char *folder, const char *name, vectors *v) {
    *v = (vectors){ 0 };
    const str text = test_read_file(t, test_vector(t, test_printf(t, "%s/%s.json", folder, name)));
    json *doc = text.data != NULL ? json_open(text, folder, &t->err) : NULL;
    if (!CHECK(t, doc != NULL)) return false;
    str other;
    if (json_string(json_get(json_root(doc), "same_as"), &other)) {
        const char *named = test_printf(t, "%.*s", (int)other.size, other.data);
        json_close(doc);
        return read_named_vectors(t, named, name, v);
    }
    const json_value *root = json_root(doc);
    uint64_t vocab = 0;
    CHECK(t, json_u64(json_get(root, "vocab"), &vocab));
    v->vocab = (uint32_t)vocab;
    v->tokens = read_ids(t, json_get(root, "tokens"), &v->n);
    v->greedy = read_ids(t, json_get(root, "greedy"), &v->n_greedy);
    (void)json_f64(json_get(root, "greedy_margin"), &v->greedy_margin);
    v->positions = read_ids(t, json_get(root, "positions"), &v->rows);
    if (v->rows == 0) {
        v->rows = v->n;
        v->positions = test_alloc(t, v->n, sizeof *v->positions);
        for (uint32_t i = 0; i < v->n; i++) v->positions[i] = i;
    }
    const str raw = test_read_file(t, test_vector(t, test_printf(t, "%s/%s.f32", folder, name)));
    v->logits = (const float *)(const void *)raw.data;
    json_close(doc);
    if (!CHECK_U64(t, raw.size, (uint64_t)v->rows * v->vocab * sizeof(float))) return false;
    double sum = 0, squares = 0;
    const size_t n = (size_t)v->rows * v->vocab;
    for (size_t i = 0; i < n; i++) {
        sum += (double)v->logits[i];
        squares += (double)v->logits[i] * (double)v->logits[i];
    }
    v->deviation = sqrt(squares / (double)n - sum / (double)n * (sum / (double)n));
    return true;
}

static bool read_vectors(test *t, const char *folder, vectors *v) {
    return read_named_vectors(t, folder, "vectors", v);
}

/* The largest difference of a row from the reference's. */
static double row_error(const float *got, const float *want, uint32_t n) {
    double worst = 0;
    for (uint32_t i = 0; i < n; i++) {
        const double d = fabs((double)got[i] - (double)want[i]);
        if (d > worst || isnan(d)) worst = d; /* a NaN stays */
    }
    return worst;
}

static void check_rows(test *t, const vectors *v, const float *all, double bound, bool int8,
                       const char *what) {
    double worst = 0, squares = 0;
    for (uint32_t i = 0; i < v->rows; i++) {
        const double e = row_error(all + (size_t)v->positions[i] * v->vocab,
                                   v->logits + (size_t)i * v->vocab, v->vocab);
        if (e > worst || isnan(e)) worst = e;
        for (uint32_t k = 0; k < v->vocab; k++) {
            const double d = (double)all[(size_t)v->positions[i] * v->vocab + k] -
                             (double)v->logits[(size_t)i * v->vocab + k];
            squares += d * d;
        }
    }
    CHECK_MSG(t, worst <= bound * v->deviation, "%s: worst logit off by %g deviations, bound %g",
              what, worst / v->deviation, bound);
    const double mean = sqrt(squares / ((double)v->rows * v->vocab)) / v->deviation;
    CHECK_MSG(t, !int8 || mean <= INT8_MEAN, "%s: logits off by %g deviations, bound %g", what,
              mean, INT8_MEAN);
}

/* ---- models against transformers ----------------------------------------------------------- */

static const char *const MODELS[] = {
    /* shapes */
    "models/llama2-mha",
    "models/llama3-gqa",
    "models/llama3-rope-parameters",
    "models/mistral-head-dim",
    "models/smollm2-heads",
    "models/mqa-head-256",
    "models/stories-ffn-172",
    "models/llama-bias",
    "models/llama-rope-linear",
    /* containers */
    "gguf/llama2-mha-f32",
    "gguf/llama3-gqa-bf16",
    "gguf/llama3-gqa-split",
    "gguf/smollm2-heads-f16",
    "gguf/stories-ffn-172-f16",
    /* formats */
    "gguf/q4_0",
    "gguf/q4_1",
    "gguf/q5_0",
    "gguf/q5_1",
    "gguf/q8_0",
    "gguf/q4_k",
    "gguf/q5_k",
    "gguf/q6_k",
    "gguf/q2_k",
    "gguf/q3_k",
    "gguf/iq4_nl",
    "gguf/iq4_xs",
    "gguf/mxfp4",
    "gguf/q4_k_m",
    "gguf/q4_k_m-narrow",
};

enum { CONTAINERS = 9, FORMATS = 14 }; /* where they begin */

/* What sanitizers see of them, as opening a model makes all its pipelines again: each container, a
 * split one, formats that are repacked. FAMILIES have the other architectures. */
static const char *const WATCHED[] = {
    "models/llama3-gqa",
    "gguf/llama3-gqa-split",
    "gguf/q4_k_m",
    "gguf/mxfp4",
};

static const char *model_path(test *t, const char *name) {
    if (strstr(name, "gguf/") == NULL) return test_vector(t, name);
    const char *one = test_vector(t, test_printf(t, "%s/model.gguf", name));
    return path_is_file(one)
               ? one
               : test_vector(t, test_printf(t, "%s/model-00001-of-00003.gguf", name));
}

/* A prompt in one pass, whose last row alone has logits: more than 64 rows take other shapes of
 * tiles than fewer, while passes that have logits of all rows are of up to 16. */
static void check_prompts(test *t, dp_session *s, const vectors *v, float *row, double bound) {
    bool is_long = false, is_short = false;
    for (uint32_t i = v->rows; i > 0; i--) {
        const uint32_t n = v->positions[i - 1] + 1;
        bool *seen = n > SHORT_ROWS ? &is_long : &is_short;
        if (*seen || n <= DECODE_ROWS || n == SHORT_ROWS) continue; /* parts of tiles too */
        *seen = true;
        if (CHECK(t, dp_session_rewind(s, 0, &t->err)) &&
            CHECK(t, dp_session_eval(s, v->tokens, n, &t->err)) &&
            CHECK(t, dp_session_get_logits(s, row, &t->err))) {
            const double worst = row_error(row, v->logits + (size_t)(i - 1) * v->vocab, v->vocab);
            CHECK_MSG(t, worst <= bound * v->deviation,
                      "a prompt of %u: worst logit off by %g deviations, bound %g", n,
                      worst / v->deviation, bound);
        }
    }
    CHECK(t, is_long || is_short);
}

/* Calls in a pass whose kernel's name begins and ends so. */
static uint32_t count_calls(const dp_model *m, pass_kind kind, const char *start, const char *end) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < m->n_stages; i++) {
        const gpu_plan *body = m->body[kind][i];
        for (uint32_t k = 0; k < gpu_plan_n_calls(body); k++) {
            const str name = str_of(gpu_kernel_name(gpu_plan_call(body, k)->kernel));
            n += str_starts(name, start) && str_ends(name, end);
        }
    }
    return n;
}

/* What one row takes: `a_layer` dispatches in each, and the embedding. What joins spans of keys is
 * recorded but has no workgroups where there are few. */
static void check_dispatches(test *t, const dp_model *m, uint32_t a_layer) {
    const uint32_t n = count_calls(m, PASS_ONE, "", "");
    const uint32_t joins = count_calls(m, PASS_ONE, "attend_combine ", "");
    CHECK_U64(t, n - joins, 1 + a_layer * m->config.n_layers);
}

/* Passes of 8 and 2 rows in turn: on a GPU they have fused kernels of their own. */
static void check_few_rows(test *t, dp_session *s, const vectors *v, float *all, double bound,
                           bool int8) {
    CHECK(t, dp_session_rewind(s, 0, &t->err));
    for (uint32_t i = 0, n; i < v->n; i += n) {
        n = min_u32(i % 10 == 0 ? FEW_ROWS : 2, v->n - i);
        CHECK(t, dp_session_eval_all(s, v->tokens + i, n, all + (size_t)i * v->vocab, &t->err));
    }
    check_rows(t, v, all, bound, int8, "passes of 8 and 2");
}

/* Passes of 16 (mat-vec kernels for some rows), then the last tokens one by one, then the greedy
 * continuation by the N-token loop where the reference's margin allows; and prompts. */
static void check_model(test *t, dp_device *device, const char *name, const char *set,
                        uint32_t context, uint32_t dispatches, double bound) {
    vectors v;
    if (!read_named_vectors(t, name, set, &v)) return;
    dp_model *m = open_model(t, device, model_path(t, name), context, 0);
    if (!CHECK_MSG(t, m != NULL, "%s", t->err.message)) return;
    if (dispatches > 0) check_dispatches(t, m, dispatches);
    const bool int8 = reads_bytes(m);
    bound += int8 ? INT8_WORST : 0;
    dp_session *s = dp_session_new(m, &t->err);
    float *all = test_floats(t, (size_t)v.n * v.vocab);
    if (CHECK(t, s != NULL) && CHECK(t, dp_session_eval_all(s, v.tokens, v.n, all, &t->err))) {
        check_rows(t, &v, all, bound, int8, "passes of 16");
        const uint32_t tail = 5;
        CHECK(t, dp_session_rewind(s, v.n - tail, &t->err));
        for (uint32_t i = v.n - tail; i < v.n; i++) {
            CHECK(t, dp_session_eval(s, v.tokens + i, 1, &t->err));
            CHECK(t, dp_session_get_logits(s, all + (size_t)i * v.vocab, &t->err));
        }
        check_rows(t, &v, all, bound, int8, "step by step");
        dp_token tokens[DP_STEPS_MAX];
        uint32_t count = 0;
        if (v.n_greedy > 0 && v.greedy_margin > 2 * bound * v.deviation &&
            CHECK(t, dp_batch_generate(&s, 1, v.n_greedy, true, tokens, &count, &t->err))) {
            CHECK_U64(t, count, v.n_greedy);
            CHECK(t, memcmp(tokens, v.greedy, count * sizeof *tokens) == 0);
        }
        if (!is_software(m->gpu)) check_few_rows(t, s, &v, all, bound, int8);
        const bool halves = m->shapes.f16 && !is_software(m->gpu) && !matrix_is_used(m);
        check_prompts(t, s, &v, all, bound + (halves ? HALVES_WORST : 0));
    }
    dp_session_free(s);
    dp_model_close(m);
}

/* All models run on the full tier. A container is behind us once the weights are on the device, and
 * formats alternate between the tiers that lack one feature: each runs with and without half floats
 * and with and without subgroups. The table of operations has each of them in all. */
static bool is_for_tier(size_t i, int tier) {
    const bool in_container = i >= CONTAINERS && i < FORMATS;
    const bool other_lack = i >= FORMATS && tier == (i % 2 ? TIER_F32 : TIER_NO_SUBGROUPS);
    return tier == TIER_FULL || (!in_container && !other_lack);
}

static void check_models(test *t, int tier) {
    SKIP_LESSER_TIER(t, tier);
    dp_device *device = device_of(t, tier);
    if (!CHECK(t, device != NULL)) return;
    const char *const *names = SANITIZED ? WATCHED : MODELS;
    const size_t n = SANITIZED ? ARRAY_LEN(WATCHED) : ARRAY_LEN(MODELS);
    for (size_t i = 0; i < n; i++) {
        if (!SANITIZED && !is_for_tier(i, tier)) continue;
        test_row(t, "%s, %s", names[i], TIER_NAMES[tier]);
        check_model(t, device, names[i], "vectors", 256, 0, TIER_BOUND[tier]);
    }
}

static void models_match_as_it_is(test *t) {
    check_models(t, TIER_FULL);
}

static void models_match_without_f16(test *t) {
    check_models(t, TIER_F32);
}

static void models_match_without_subgroups(test *t) {
    check_models(t, TIER_NO_SUBGROUPS);
}

static void models_match_with_neither(test *t) {
    check_models(t, TIER_PLAIN);
}

static void models_match_with_checks(test *t) {
    check_models(t, TIER_CHECKS);
}

/* ---- what only a GPU takes ----------------------------------------------------------------- */

/* Has the model the kernels for whose sake it is run here? */
static void check_calls(test *t, dp_device *device, const char *name, const char *kernel,
                        const char *tile) {
    dp_model *m = open_model(t, device, model_path(t, name), 128, 0);
    if (!CHECK_MSG(t, m != NULL, "%s", t->err.message)) return;
    const bool experts = m->config.n_experts > 0;
    const uint32_t n = m->config.n_layers;
    for (pass_kind kind = PASS_ONE; kind <= PASS_SOME; kind++) {
        CHECK_U64(t, count_calls(m, kind, "project_add ", ""), experts ? n : 2 * n);
        CHECK_U64(t, count_calls(m, kind, experts ? "expert_add " : "project_glu ", ""), n);
        CHECK_U64(t, count_calls(m, kind, "attend_decode ", ""), n); /* not attend_decode_tree */
        CHECK_U64(t, count_calls(m, kind, "attend_combine ", ""), kind == PASS_ONE ? 0 : n);
    }
    for (pass_kind kind = PASS_SHORT; kind <= PASS_MANY; kind++)
        CHECK(t, matrix_is_used(m) || count_calls(m, kind, kernel, tile) >= 2 * n);
    dp_model_close(m);
}

/* On a software GPU that poses as one. */
static void models_match_as_on_a_gpu(test *t) {
    static const struct {
        const char *name;
        int tier;
        const char *kernel, *tile; /* of prompts: how its name begins, and ends; NULL: any */
    } list[] = {
        { "models/llama3-gqa", TIER_POSED, "matmul bf16 ", " f16" },
        { "gguf/q4_k", TIER_POSED, "matmul_q8 q4_k ", "" },
        { "gguf/q4_k", TIER_POSED_FLOATS, "matmul q4_k ", " f16" },
        { "families/qwen3moe", TIER_POSED, "matmul bf16 ", " f16" },
        { "families/gpt2", TIER_POSED, NULL, NULL },
        { "families/gemma2", TIER_POSED, NULL, NULL },
        { "families/gpt-oss", TIER_POSED, NULL, NULL },
    };
    if (SANITIZED) SKIP(t, "sanitized: the work is the device's");
    dp_device *usual = device_of(t, TIER_FULL);
    dp_device_info info;
    if (!CHECK(t, usual != NULL)) return;
    dp_device_get_info(usual, &info);
    if (strcmp(info.type, "cpu") != 0) SKIP(t, "the device is a GPU");
    if (!info.f16 || !info.subgroups || !info.int8)
        SKIP(t, "the device lacks half floats, subgroups or int8");
    for (size_t i = 0; i < ARRAY_LEN(list); i++) {
        test_row(t, "%s, %s", list[i].name, TIER_NAMES[list[i].tier]);
        const dp_device_options options = tier_options(list[i].tier);
        dp_device *device = test_open_as_gpu(t, &options);
        if (!CHECK_MSG(t, device != NULL, "%s", t->err.message)) return;
        check_model(t, device, list[i].name, "vectors", 128, 0, TIER_BOUND[list[i].tier]);
        if (list[i].kernel != NULL)
            check_calls(t, device, list[i].name, list[i].kernel, list[i].tile);
        dp_device_close(device);
    }
}

/* ---- families ------------------------------------------------------------------------------ */

/* Each as a folder and as a GGUF file, with a context of 128: longer than their windows and than
 * the original contexts of scaled RoPE. A second set of vectors is for a context of its own. */
enum { LLAMA_DISPATCHES = 5 };
static const struct {
    const char *name, *set;
    uint32_t context;
    bool gguf; /* there is a file of it too */
    uint32_t dispatches; /* of a row in a layer; 0: too narrow for fused kernels, so that plain
                          * ones are held to this too */
} FAMILIES[] = {
    { "gpt2", "vectors", 128, true, 7 },
    { "gpt2-bare", "vectors", 128, false, 0 },
    { "llama-yarn", "vectors", 128, true, 5 },
    { "llama-dynamic", "vectors", 128, false, 0 },
    { "llama-dynamic", "beyond", 160, false, 0 },
    { "smollm3", "vectors", 128, true, 5 },
    { "mistral-window", "vectors", 128, true, 5 },
    { "qwen2", "vectors", 128, true, 5 },
    { "qwen3", "vectors", 128, true, 5 },
    { "gemma2", "vectors", 128, true, 7 },
    { "gemma3", "vectors", 128, true, 7 },
    { "gemma3-4b", "vectors", 128, true, 0 },
    { "phi3", "vectors", 128, true, 0 },
    { "phi3-longrope", "vectors", 128, true, 0 },
    { "phi3-longrope", "short", 64, false, 0 },
    { "phi4-mini", "vectors", 128, true, 5 },
    { "olmo2", "vectors", 128, true, 8 },
    { "granite", "vectors", 128, true, 5 },
    { "mixtral", "vectors", 128, true, 6 },
    { "qwen3moe", "vectors", 128, true, 6 },
    { "qwen3moe-raw", "vectors", 128, false, 6 },
    { "gpt-oss", "vectors", 128, true, 6 },
    { "gpt-oss-bf16", "vectors", 128, true, 6 },
};

static void check_families(test *t, int tier) {
    SKIP_LESSER_TIER(t, tier);
    dp_device *device = device_of(t, tier);
    if (!CHECK(t, device != NULL)) return;
    for (size_t i = 0; i < 2 * ARRAY_LEN(FAMILIES); i++) {
        const bool gguf = i % 2 != 0;
        if (gguf && !FAMILIES[i / 2].gguf) continue;
        /* sanitizers and lesser tiers see each family once: its form is not theirs, and test_ref
         * reads both forms of all */
        const bool once = SANITIZED || tier != TIER_FULL;
        if (once && gguf != (FAMILIES[i / 2].gguf && i / 2 % 2 != 0)) continue;
        /* pipelines with checks take long: those of families whose kernels a Llama has not */
        if (tier == TIER_CHECKS && FAMILIES[i / 2].dispatches <= LLAMA_DISPATCHES) continue;
        const char *name = test_printf(t, gguf ? "families-gguf/%s" : "families/%s",
                                       FAMILIES[i / 2].name);
        test_row(t, "%s %s, %s", name, FAMILIES[i / 2].set, TIER_NAMES[tier]);
        check_model(t, device, name, FAMILIES[i / 2].set, FAMILIES[i / 2].context,
                    FAMILIES[i / 2].dispatches, TIER_BOUND[tier]);
    }
}

static void families_match_as_they_are(test *t) {
    check_families(t, TIER_FULL);
}

static void families_match_without_f16(test *t) {
    check_families(t, TIER_F32);
}

static void families_match_with_checks(test *t) {
    check_families(t, TIER_CHECKS);
}

static void families_match_without_subgroups(test *t) {
    check_families(t, TIER_NO_SUBGROUPS);
}

static void families_match_with_neither(test *t) {
    check_families(t, TIER_PLAIN);
}

/* ---- packs --------------------------------------------------------------------------------- */

/* RDRR packs as writers of different times made them: every dialect and layout of make_packs.py,
 * read and run. Q4_K in another layout than rows is kept as f16, so each such weight is off by up
 * to 2^-11 of itself; gate, up and down come one after another, and their product is no larger than
 * the logits' deviation. */
static const double DECODED_BOUND = 3.0 / 2048;
static const struct {
    const char *name;
    bool decoded;
} PACKS[] = { /* lesser tiers run what is decoded and one that is not: dialects are the host's */
    { "packs/july", false },  { "packs/groups", false }, { "packs/seeds", true },
    { "packs/march", false }, { "packs/april", false },  { "packs/june", false },
    { "packs/ours", true },   { "packs/public-q4k", false }, { "packs/public-f16", false },
};

static void check_packs(test *t, int tier) {
    SKIP_LESSER_TIER(t, tier);
    dp_device *device = device_of(t, tier);
    if (!CHECK(t, device != NULL)) return;
    for (size_t i = 0; i < ARRAY_LEN(PACKS); i++) {
        if (tier != TIER_FULL && i > 0 && !PACKS[i].decoded) continue;
        test_row(t, "%s, %s", PACKS[i].name, TIER_NAMES[tier]);
        check_model(t, device, PACKS[i].name, "vectors", 128, 0,
                    TIER_BOUND[tier] + (PACKS[i].decoded ? DECODED_BOUND : 0));
    }
}

static void packs_match_as_they_are(test *t) {
    check_packs(t, TIER_FULL);
}

static void packs_match_without_subgroups(test *t) {
    check_packs(t, TIER_NO_SUBGROUPS);
}

static void packs_match_with_neither(test *t) {
    check_packs(t, TIER_PLAIN);
}

/* The checks above can fail: a model whose weights are not those of the vectors is noticed. */
static void a_wrong_model_is_noticed(test *t) {
    vectors v;
    dp_device *device = device_of(t, TIER_FULL);
    if (!CHECK(t, device != NULL) || !read_vectors(t, "gguf/q4_k", &v)) return;
    dp_model *m = open_model(t, device, model_path(t, "gguf/q5_k"), 256, 0);
    dp_session *s = m != NULL ? dp_session_new(m, &t->err) : NULL;
    float *all = test_floats(t, (size_t)v.n * v.vocab);
    if (CHECK(t, s != NULL) && CHECK(t, dp_session_eval_all(s, v.tokens, v.n, all, &t->err))) {
        double worst = 0;
        for (uint32_t i = 0; i < v.rows; i++) {
            worst = fmax(worst, row_error(all + (size_t)v.positions[i] * v.vocab,
                                          v.logits + (size_t)i * v.vocab, v.vocab));
        }
        CHECK(t, worst > 2e-2 * v.deviation);
    }
    dp_session_free(s);
    dp_model_close(m);
}

/* 4,000 tokens, the last of them in passes of 512, 128, 40, 7 and 1 rows: the same logits at the
 * end, past the original context of the scaled RoPE. Smaller passes write the last keys alone and
 * see all the others. */
enum { LONG_TAIL = 256 };

static void long_contexts_do_not_depend_on_the_batch(test *t) {
    SKIP_LESSER_TIER(t, TIER_F32);
    dp_device *device = device_of(t, TIER_F32);
    const str text = test_read_file(t, test_vector(t, "models/llama3-gqa/long.json"));
    const str raw = test_read_file(t, test_vector(t, "models/llama3-gqa/long.f32"));
    json *doc = text.data != NULL ? json_open(text, "long.json", &t->err) : NULL;
    if (!CHECK(t, device != NULL && doc != NULL && raw.data != NULL)) return;
    uint32_t n = 0;
    const dp_token *tokens = read_ids(t, json_get(json_root(doc), "tokens"), &n);
    json_close(doc);
    const uint32_t vocab = (uint32_t)(raw.size / sizeof(float) / 2); /* the last two positions */
    const float *want = (const float *)(const void *)raw.data + vocab;
    double squares = 0;
    for (uint32_t i = 0; i < vocab; i++) squares += (double)want[i] * (double)want[i];
    static const uint32_t chunks[] = { 512, 128, 40, 7, 1 };
    float *first = test_floats(t, vocab), *got = test_floats(t, vocab);
    dp_model *m = open_model(t, device, test_vector(t, "models/llama3-gqa"), 4096, 512);
    dp_session *s = m != NULL ? dp_session_new(m, &t->err) : NULL;
    if (!CHECK(t, s != NULL)) return;
    for (size_t c = 0; c < ARRAY_LEN(chunks); c++) {
        test_row(t, "passes of %u", chunks[c]);
        const uint32_t start = c == 0 ? 0 : n - LONG_TAIL;
        bool ok = true;
        if (start > 0) { /* other keys where the last passes left the right ones */
            ok = CHECK(t, dp_session_rewind(s, start, &t->err)) &&
                 CHECK(t, dp_session_eval(s, tokens, LONG_TAIL, &t->err)) &&
                 CHECK(t, dp_session_rewind(s, start, &t->err));
        }
        for (uint32_t i = start; i < n && ok; i += chunks[c]) {
            ok = CHECK(t, dp_session_eval(s, tokens + i, min_u32(chunks[c], n - i), &t->err));
        }
        if (ok && CHECK(t, dp_session_get_logits(s, got, &t->err))) {
            /* angles at position 4,000 carry an f32 error of 2^-13 in either implementation */
            CHECK_MSG(t, row_error(got, want, vocab) <= 5e-3 * sqrt(squares / vocab),
                      "off the reference by %g deviations",
                      row_error(got, want, vocab) / sqrt(squares / vocab));
            if (c == 0) memcpy(first, got, vocab * sizeof *got);
            CHECK_MSG(t, row_error(got, first, vocab) <= 1e-3 * sqrt(squares / vocab),
                      "off the passes of %u by %g deviations", chunks[0],
                      row_error(got, first, vocab) / sqrt(squares / vocab));
        }
    }
    dp_session_free(s);
    dp_model_close(m);
}

/* ---- the bundled model --------------------------------------------------------------------- */

enum { GOLDEN_MAX = 64 };

typedef struct {
    dp_token *ids, *answer;
    uint32_t n_ids, n_answer;
    double margin;
    dp_token top[5];
    float logit[5];
} golden;

static uint32_t read_golden(test *t, const dp_model *m, golden *cases) {
    const str text = test_read_file(t, test_vector(t, "golden.json"));
    json *doc = text.data != NULL ? json_open(text, "golden.json", &t->err) : NULL;
    uint32_t n = 0;
    for (json_iter it = json_each(json_get(json_root(doc), "cases")); json_next(&it);) {
        golden *g = &cases[n++];
        str prompt = { 0 };
        bool adds_bos = false;
        size_t got = 0;
        CHECK(t, json_string(json_get(it.value, "prompt"), &prompt));
        CHECK(t, json_bool(json_get(it.value, "adds_bos"), &adds_bos));
        g->ids = read_ids(t, json_get(it.value, "prompt_ids"), &g->n_ids);
        g->answer = read_ids(t, json_get(it.value, "continuation_ids"), &g->n_answer);
        CHECK(t, json_f64(json_get(it.value, "min_margin"), &g->margin));
        uint32_t k = 0;
        for (json_iter best = json_each(json_get(it.value, "top5_at_prompt_end"));
             json_next(&best) && k < 5; k++) {
            uint64_t id = 0;
            double logit = 0;
            CHECK(t, json_u64(json_get(best.value, "id"), &id));
            CHECK(t, json_f64(json_get(best.value, "logit"), &logit));
            g->top[k] = (dp_token)id;
            g->logit[k] = (float)logit;
        }
        dp_token *ids = test_alloc(t, g->n_ids + 1, sizeof *ids);
        CHECK(t, dp_tokenize(m, prompt.data, prompt.size, adds_bos, true, ids, g->n_ids, &got,
                             &t->err));
        CHECK_U64(t, got, g->n_ids);
        CHECK(t, memcmp(ids, g->ids, g->n_ids * sizeof *ids) == 0);
    }
    json_close(doc);
    return n;
}

static double deviation_of(const float *x, uint32_t n) {
    double sum = 0, squares = 0;
    for (uint32_t i = 0; i < n; i++) {
        sum += (double)x[i];
        squares += (double)x[i] * (double)x[i];
    }
    return sqrt(squares / n - sum / n * (sum / n));
}

enum { TOGETHER = 8, GOLDEN_STEPS = 16, GOLDEN_TOKENS = 32 };

/* Compares a continuation's first GOLDEN_TOKENS. Where the reference's two best are closer than
 * `safe`, the first difference is allowed where our own two best are closer than that too, and what
 * follows is another text. */
static void check_answer_tokens(test *t, dp_session *s, const golden *g, const dp_token *tokens,
                                uint32_t n, double safe) {
    const uint32_t n_compared = min_u32(g->n_answer, GOLDEN_TOKENS);
    uint32_t i = 0;
    while (i < n_compared && i < n && tokens[i] == g->answer[i]) i++;
    if (i == n_compared) return;
    if (!CHECK_MSG(t, i < n && g->margin <= safe, "token %u is %u, expected %u (margin %g)", i,
                   i < n ? tokens[i] : DP_NO_TOKEN, g->answer[i], g->margin)) {
        return;
    }
    const uint32_t at = g->n_ids + i - 1;
    const dp_token last = i == 0 ? g->ids[at] : g->answer[i - 1];
    float *logits = test_floats(t, s->model->config.vocab_size);
    CHECK(t, dp_session_rewind(s, at, &t->err));
    CHECK(t, dp_session_eval(s, &last, 1, &t->err));
    CHECK(t, dp_session_get_logits(s, logits, &t->err));
    const double gap = fabs((double)logits[tokens[i]] - (double)logits[g->answer[i]]);
    CHECK_MSG(t, gap <= safe, "token %u is %u, expected %u (our gap %g)", i, tokens[i],
              g->answer[i], gap);
}

/* Up to TOGETHER cases side by side: their prompts, the reference's best five, their answers. */
static void check_golden_cases(test *t, dp_model *m, const golden *cases, uint32_t n) {
    dp_session *s[TOGETHER] = { 0 };
    dp_token part[TOGETHER * GOLDEN_STEPS], answers[TOGETHER][GOLDEN_TOKENS];
    uint32_t counts[TOGETHER], lengths[TOGETHER] = { 0 };
    double bound[TOGETHER] = { 0 };
    const bool f32 = !m->shapes.f16;
    float *logits = test_floats(t, m->config.vocab_size);
    bool ok = true;
    for (uint32_t i = 0; i < n && ok; i++) {
        const golden *g = &cases[i];
        s[i] = dp_session_new(m, &t->err);
        ok = CHECK(t, s[i] != NULL) && CHECK(t, dp_session_eval(s[i], g->ids, g->n_ids, &t->err)) &&
             CHECK(t, dp_session_get_logits(s[i], logits, &t->err));
        bound[i] = (f32 ? 1e-3 : 2e-2) * deviation_of(logits, m->config.vocab_size);
        for (uint32_t k = 0; k < 5 && ok; k++) {
            const double d = fabs((double)logits[g->top[k]] - (double)g->logit[k]);
            CHECK_MSG(t, d <= bound[i], "%u: logit of %u off by %g, bound %g", i, g->top[k], d,
                      bound[i]);
        }
    }
    for (uint32_t at = 0; at < GOLDEN_TOKENS && ok; at += GOLDEN_STEPS) {
        dp_session *going[TOGETHER];
        uint32_t which[TOGETHER], n_going = 0;
        for (uint32_t i = 0; i < n; i++) {
            if (lengths[i] < at) continue; /* it has met its stop token */
            going[n_going] = s[i];
            which[n_going++] = i;
        }
        if (n_going == 0) break;
        ok = CHECK(t,
                   dp_batch_generate(going, n_going, GOLDEN_STEPS, false, part, counts, &t->err));
        for (uint32_t k = 0; k < n_going && ok; k++) {
            const uint32_t i = which[k];
            memcpy(answers[i] + at, part + k * GOLDEN_STEPS, counts[k] * sizeof *part);
            lengths[i] = at + counts[k];
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        test_row(t, "answer to token %u and %u more", cases[i].ids[0], cases[i].n_ids - 1);
        if (ok) {
            check_answer_tokens(t, s[i], &cases[i], answers[i], lengths[i],
                                f32 ? 2e-3 : 10 * bound[i]);
        }
        dp_session_free(s[i]);
    }
}

static void check_golden(test *t, int tier) {
    SKIP_LESSER_TIER(t, tier);
    dp_device *device = device_of(t, tier);
    const dp_model_options options = { .context = 4096, .sessions = TOGETHER };
    dp_model *m = device != NULL ? dp_model_open(device, BUNDLED, &options, &t->err) : NULL;
    if (!CHECK(t, m != NULL)) return;
    static golden cases[GOLDEN_MAX];
    const uint32_t n_all = read_golden(t, m, cases);
    CHECK_U64(t, n_all, 24);
    /* all once; the host's code is the same for all, and so is the arithmetic of a tier, which two
     * rows and the tables of models show */
    const uint32_t n = SANITIZED || tier != TIER_FULL ? 2 : n_all;
    for (uint32_t i = 0; i < n; i += TOGETHER) {
        test_row(t, "cases from %u, %s", i, TIER_NAMES[tier]);
        check_golden_cases(t, m, cases + i, min_u32(TOGETHER, n - i));
    }
    dp_model_close(m);
}

static void golden_texts_as_it_is(test *t) {
    check_golden(t, TIER_FULL);
}

static void golden_texts_without_f16(test *t) {
    check_golden(t, TIER_F32);
}

static void golden_texts_without_subgroups(test *t) {
    check_golden(t, TIER_NO_SUBGROUPS);
}

static void golden_texts_with_neither(test *t) {
    check_golden(t, TIER_PLAIN);
}

/* ---- paths against each other -------------------------------------------------------------- */

static dp_model *open_bundled(test *t, uint32_t sessions) {
    dp_device *device = device_of(t, TIER_FULL);
    const dp_model_options options = { .context = 2048, .sessions = sessions };
    return device != NULL ? dp_model_open(device, BUNDLED, &options, &t->err) : NULL;
}

static dp_session *begin_tale(test *t, dp_model *m, const char *text, const dp_sampling *how) {
    dp_session *s = dp_session_new(m, &t->err);
    if (!CHECK(t, s != NULL) || !CHECK(t, dp_session_eval_text(s, text, true, false, &t->err)) ||
        !CHECK(t, dp_session_set_sampling(s, how, &t->err))) {
        dp_session_free(s);
        return NULL;
    }
    return s;
}

/* Tokens by N a submit and one by one: the same tokens, greedy and with every sampler on. */
static void loops_equal_single_steps(test *t) {
    static const dp_sampling settings[] = {
        { 0 },
        { .repeat_penalty = 1.1f, .frequency_penalty = 0.2f },
        { .temperature = 1.0f, .seed = 7 },
        { .temperature = 1.3f, .top_k = 50, .top_p = 0.95f, .min_p = 0.02f, .repeat_penalty = 1.1f,
          .presence_penalty = 0.3f, .frequency_penalty = 0.1f, .seed = 123456789012ull },
    };
    static const uint32_t lengths[] = { SANITIZED ? 24 : 40, SANITIZED ? 8 : 40, SANITIZED ? 8 : 40,
                                        SANITIZED ? 24 : 96 }; /* the last has the submit of 56 */
    dp_model *m = open_bundled(t, 2);
    if (!CHECK(t, m != NULL)) return;
    for (size_t i = 0; i < ARRAY_LEN(settings); i++) {
        test_row(t, "setting %zu", i);
        dp_session *loop = begin_tale(t, m, "Once upon a time", &settings[i]);
        dp_session *single = begin_tale(t, m, "Once upon a time", &settings[i]);
        dp_token want[256], got[256];
        uint32_t n = 0, count = 0;
        bool ok = loop != NULL && single != NULL;
        static const uint32_t sizes[] = { 1, 2, 5, 32, 64, 31, 16 };
        for (size_t k = 0; ok && n < lengths[i]; k++) {
            const uint32_t steps = min_u32(sizes[k % ARRAY_LEN(sizes)], lengths[i] - n);
            ok = CHECK(t, dp_batch_generate(&loop, 1, steps, true, got + n, &count, &t->err)) &&
                 CHECK_U64(t, count, steps);
            n += steps;
        }
        for (uint32_t k = 0; ok && k < n; k++) {
            ok = CHECK(t, dp_session_sample(single, &want[k], &t->err)) &&
                 CHECK(t, dp_session_eval(single, &want[k], 1, &t->err)) &&
                 CHECK_MSG(t, want[k] == got[k], "token %u: %u by the loop, %u by steps", k, got[k],
                           want[k]);
        }
        dp_session_free(loop);
        dp_session_free(single);
    }
    dp_model_close(m);
}

/* More sessions than a submit takes, one of them met by a stop token: each gets what it gets alone.
 * */
static void many_sessions_generate_at_once(test *t) {
    enum { N = 11, STEPS = SANITIZED ? 6 : 10 }; /* the stop token is the fifth */
    static const char *const starts[] = { "Once upon a time", "Long ago", "The fox", "One day" };
    dp_model *m = open_bundled(t, N);
    if (!CHECK(t, m != NULL)) return;
    dp_session *s[N] = { 0 };
    dp_token all[N * STEPS], alone[STEPS];
    uint32_t counts[N], count = 0;
    for (uint32_t i = 0; i < N; i++) {
        s[i] = i == 3 ? dp_session_new(m, &t->err)
                      : begin_tale(t, m, starts[i % 4], &(dp_sampling){ 0 });
        if (!CHECK(t, s[i] != NULL)) return;
    }
    CHECK(t, dp_session_eval_text(s[3], "<|bos|><|user|>\nSpell fox.<|end|>\n<|assistant|>\n",
                                  false, true, &t->err));
    size_t before[N], after;
    for (uint32_t i = 0; i < N; i++) (void)dp_session_tokens(s[i], &before[i]);
    CHECK(t, dp_batch_generate(s, N, STEPS, false, all, counts, &t->err));
    for (uint32_t i = 0; i < N; i++) {
        test_row(t, "session %u", i);
        const bool stopped = counts[i] < STEPS;
        CHECK(t, stopped == (i == 3));
        (void)dp_session_tokens(s[i], &after);
        CHECK_U64(t, after - before[i], counts[i] - stopped);
        CHECK(t, dp_session_rewind(s[i], before[i] - 1, &t->err));
        const dp_token last = dp_session_tokens(s[i], &after)[before[i] - 1];
        CHECK(t, dp_session_eval(s[i], &last, 1, &t->err));
        CHECK(t, dp_batch_generate(&s[i], 1, STEPS, false, alone, &count, &t->err));
        CHECK_U64(t, counts[i], count);
        CHECK(t, memcmp(alone, all + i * STEPS, count * sizeof *alone) == 0);
        dp_session_free(s[i]);
    }
    dp_model_close(m);
}

/* What the other rows of a batch contain changes nothing; how many there are only the rounding. */
static void batches_are_independent(test *t) {
    dp_model *m = open_bundled(t, 8);
    if (!CHECK(t, m != NULL)) return;
    const uint32_t vocab = m->config.vocab_size;
    float *want = test_floats(t, vocab), *got = test_floats(t, vocab);
    static const uint32_t others[] = { 2, 2, 6, 6, 0 };
    double deviation = 0;
    for (size_t run = 0; run < ARRAY_LEN(others); run++) {
        test_row(t, "run %zu with %u others", run, others[run]);
        dp_session *s[8] = { 0 };
        dp_batch_item items[8];
        dp_token tokens[8][40];
        for (uint32_t i = 0; i <= others[run]; i++) {
            s[i] = dp_session_new(m, &t->err);
            /* the first one's tokens are the same in every run, the others' are not */
            const uint32_t n = i == 0 ? 33 : 20 + 3 * i;
            for (uint32_t k = 0; k < n; k++) {
                tokens[i][k] = (dp_token)(i == 0 ? 5 + 7 * k : test_below(t, vocab));
            }
            items[i] = (dp_batch_item){ .session = s[i], .tokens = tokens[i], .n = n };
        }
        CHECK(t, dp_batch_eval(items, others[run] + 1, &t->err));
        /* and one more row each, through the decode kernels */
        for (uint32_t i = 0; i <= others[run]; i++) {
            tokens[i][0] = (dp_token)(i == 0 ? 99 : test_below(t, vocab));
            items[i].n = 1;
        }
        CHECK(t, dp_batch_eval(items, others[run] + 1, &t->err));
        CHECK(t, dp_session_get_logits(s[0], got, &t->err));
        if (run == 0 || run == 2) {
            if (run == 0) deviation = deviation_of(got, vocab);
            if (run == 2) CHECK(t, row_error(got, want, vocab) <= 2e-2 * deviation);
            memcpy(want, got, vocab * sizeof *want);
        } else if (run < 4) {
            CHECK(t, memcmp(got, want, vocab * sizeof *want) == 0);
        } else {
            CHECK(t, row_error(got, want, vocab) <= 2e-2 * deviation);
        }
        for (uint32_t i = 0; i < 8; i++) dp_session_free(s[i]);
    }
    dp_model_close(m);
}

/* A matrix over the binding limit is cut between rows, not refused; rows do not know of each other,
 * so the logits are the same to the last bit. */
static void matrices_are_split_over_bindings(test *t) {
    dp_device_options device_options = { .webgpu = test_option("webgpu"),
                                         .adapter = test_option("device") };
    const dp_model_options options = { .context = 256, .batch = 16, .sessions = 2 };
    dp_token tokens[20];
    for (uint32_t i = 0; i < ARRAY_LEN(tokens); i++) tokens[i] = 7 + 200 * i;
    float *logits[2] = { 0 };
    uint32_t vocab = 0;
    for (int cut = 0; cut < 2; cut++) {
        device_options.max_binding = cut ? 1 << 20 : 0;
        dp_device *device = dp_device_open(&device_options, &t->err);
        dp_model *m = device != NULL ? dp_model_open(device, BUNDLED, &options, &t->err) : NULL;
        dp_session *s = m != NULL ? dp_session_new(m, &t->err) : NULL;
        if (CHECK_MSG(t, s != NULL, "%s", t->err.message)) {
            CHECK_U64(t, m->weights.embedding.n_parts, cut ? 2 : 1);
            vocab = m->config.vocab_size;
            logits[cut] = test_floats(t, vocab);
            CHECK(t, dp_session_eval(s, tokens, ARRAY_LEN(tokens), &t->err));
            CHECK(t, dp_session_get_logits(s, logits[cut], &t->err));
        }
        dp_session_free(s);
        dp_model_close(m);
        dp_device_close(device);
    }
    CHECK(t, logits[1] != NULL && memcmp(logits[0], logits[1], vocab * sizeof(float)) == 0);
}

/* ---- generation ---------------------------------------------------------------------------- */

static bool collect_text(void *user, const char *text, size_t size) {
    buf_add(user, text, size);
    return true;
}

static bool stop_after_first(void *user, const char *text, size_t size) {
    (void)text;
    (void)size;
    ++*(uint32_t *)user;
    return false;
}

static void stop_strings_are_never_given_out(test *t) {
    dp_model *m = open_bundled(t, 1);
    if (!CHECK(t, m != NULL)) return;
    /* the greedy text goes on ", there was a young, curious fox named Mia who lived in the oak
     * wood" */
    static const struct {
        const char *stop;
        const char *text;
    } cases[] = {
        { "curious", ", there was a young, " },       /* one token */
        { "g, curio", ", there was a youn" },         /* parts of several tokens */
        { "Mia who lived in the", ", there was a young, curious fox named " },
        { ",", "" },                                  /* at once */
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        for (uint32_t steps = 1; steps <= 16; steps += 15) {
            test_row(t, "stop %s, %u steps", cases[i].stop, steps);
            dp_session *s = begin_tale(t, m, "Once upon a time", &(dp_sampling){ 0 });
            buf text;
            buf_init(&text, 65536);
            const char *stops[] = { "never in the text", cases[i].stop };
            const dp_generate_options how = { .max_tokens = 40, .steps = steps, .stop = stops,
                                              .n_stop = 2, .on_text = collect_text, .user = &text };
            dp_generate_result r = { 0 };
            if (s != NULL && CHECK(t, dp_generate(s, &how, &r, &t->err))) {
                CHECK_STR(t, ((str){ text.data, text.size }), cases[i].text);
                CHECK_U64(t, r.finish, DP_FINISH_STOP);
                size_t n = 0;
                (void)dp_session_tokens(s, &n);
                CHECK_U64(t, n, 5 + r.n_tokens); /* up to and with the token that completed it */
            }
            buf_free(&text);
            dp_session_free(s);
        }
    }
    dp_model_close(m);
}

static void generation_ends_as_told(test *t) {
    dp_model *m = open_bundled(t, 1);
    if (!CHECK(t, m != NULL)) return;
    dp_generate_result r = { 0 };
    dp_session *s = begin_tale(t, m, "Once upon a time", &(dp_sampling){ 0 });
    CHECK(t, dp_generate(s, &(dp_generate_options){ .max_tokens = 5 }, &r, &t->err));
    CHECK(t, r.finish == DP_FINISH_LENGTH && r.n_tokens == 5 && r.seconds >= r.first_seconds);
    uint32_t calls = 0;
    CHECK(t, dp_generate(s, &(dp_generate_options){ .max_tokens = 50, .on_text = stop_after_first,
                                                    .user = &calls }, &r, &t->err));
    CHECK(t, r.finish == DP_FINISH_CANCELLED && calls == 1);
    dp_session_cancel(s);
    CHECK(t, dp_generate(s, &(dp_generate_options){ .max_tokens = 50 }, &r, &t->err));
    CHECK(t, r.finish == DP_FINISH_CANCELLED && r.n_tokens == 0);
    dp_session_cancel(s);
    const dp_token token = 5;
    CHECK(t, !dp_session_eval(s, &token, 1, &t->err));
    CHECK_ERROR(t, &t->err, DP_E_CANCELLED, "cancelled");
    CHECK(t, dp_session_eval(s, &token, 1, &t->err));
    dp_session_free(s);
    /* an end-of-generation token ends it, is reported, not appended, and the session goes on */
    s = dp_session_new(m, &t->err);
    CHECK(t, dp_session_eval_text(s, "<|bos|><|user|>\nWhat is 47 + 38?<|end|>\n<|assistant|>\n",
                                  false, true, &t->err));
    size_t before = 0, after = 0;
    (void)dp_session_tokens(s, &before);
    buf text;
    buf_init(&text, 65536);
    CHECK(t, dp_generate(s, &(dp_generate_options){ .max_tokens = 50, .on_text = collect_text,
                                                    .user = &text }, &r, &t->err));
    (void)dp_session_tokens(s, &after);
    CHECK(t, r.finish == DP_FINISH_STOP);
    CHECK_U64(t, after - before, r.n_tokens - 1);
    CHECK(t, text.size > 0 && strstr(text.data, "85") != NULL);
    CHECK(t, dp_session_eval(s, &token, 1, &t->err));
    buf_free(&text);
    dp_session_free(s);
    dp_model_close(m);
}

static void logprobs_are_logarithms_of_probabilities(test *t) {
    dp_model *m = open_bundled(t, 1);
    dp_session *s = m != NULL ? begin_tale(t, m, "Once upon a", &(dp_sampling){ 0 }) : NULL;
    if (!CHECK(t, s != NULL)) return;
    const uint32_t vocab = m->config.vocab_size;
    float *logits = test_floats(t, vocab);
    dp_logprob best[32];
    CHECK(t, dp_session_get_logits(s, logits, &t->err));
    CHECK(t, dp_session_get_logprobs(s, best, 32, &t->err));
    double top = -1e30, sum = 0;
    for (uint32_t i = 0; i < vocab; i++) top = fmax(top, (double)logits[i]);
    for (uint32_t i = 0; i < vocab; i++) sum += exp((double)logits[i] - top);
    for (uint32_t k = 0; k < 32; k++) {
        const double want = (double)logits[best[k].token] - top - log(sum);
        /* f32 sums of 4,096 terms and exponentials: 1e-5 is a hundred roundings */
        CHECK(t, fabs((double)best[k].logprob - want) < 1e-5 * (1 + fabs(want)));
        CHECK(t, k == 0 || best[k].logprob <= best[k - 1].logprob);
        uint32_t better = 0;
        for (uint32_t i = 0; i < vocab; i++) better += logits[i] > logits[best[k].token];
        CHECK(t, better <= k);
    }
    CHECK(t, !dp_session_get_logprobs(s, best, 33, &t->err));
    CHECK_ERROR(t, &t->err, DP_E_ARGUMENT, "33 logprobs");
    dp_session_free(s);
    dp_model_close(m);
}

/* ---- contracts ----------------------------------------------------------------------------- */

static void limits_are_named_and_change_nothing(test *t) {
    dp_device *device = device_of(t, TIER_FULL);
    const dp_model_options options = { .context = 64, .sessions = 2, .batch = 16 };
    dp_model *m = device != NULL ? dp_model_open(device, BUNDLED, &options, &t->err) : NULL;
    if (!CHECK(t, m != NULL)) return;
    dp_session *a = dp_session_new(m, &t->err), *b = dp_session_new(m, &t->err);
    CHECK(t, dp_session_new(m, &t->err) == NULL);
    CHECK_ERROR(t, &t->err, DP_E_LIMIT, "all 2 sessions");
    dp_token tokens[65] = { 0 };
    CHECK(t, !dp_session_eval(a, tokens, 65, &t->err));
    CHECK_ERROR(t, &t->err, DP_E_LIMIT, "65 tokens after 0 are over the context of 64");
    tokens[3] = m->config.vocab_size;
    CHECK(t, !dp_session_eval(a, tokens, 5, &t->err));
    CHECK_ERROR(t, &t->err, DP_E_ARGUMENT, "token 3: id 4096, the vocabulary has 4096");
    tokens[3] = 0;
    float *want = test_floats(t, m->config.vocab_size), *got = test_floats(t, m->config.vocab_size);
    CHECK(t, !dp_session_get_logits(a, got, &t->err));
    CHECK_ERROR(t, &t->err, DP_E_ARGUMENT, "no logits");
    dp_token token;
    CHECK(t, !dp_session_sample(a, &token, &t->err));
    CHECK_ERROR(t, &t->err, DP_E_ARGUMENT, "no logits");
    CHECK(t, dp_session_eval(a, tokens, 40, &t->err));
    CHECK(t, dp_session_get_logits(a, want, &t->err));
    CHECK(t, !dp_session_eval(b, tokens, 40, &t->err)); /* the pool has one page left */
    CHECK_ERROR(t, &t->err, DP_E_MEMORY, "KV cache is full");
    const dp_batch_item twice[] = { { a, tokens, 1 }, { a, tokens, 1 } };
    CHECK(t, !dp_batch_eval(twice, 2, &t->err));
    CHECK_ERROR(t, &t->err, DP_E_ARGUMENT, "also item 0");
    uint32_t count;
    CHECK(t, !dp_batch_generate(&a, 1, 0, false, tokens, &count, &t->err));
    CHECK_ERROR(t, &t->err, DP_E_ARGUMENT, "0 steps");
    CHECK(t, !dp_batch_generate(&a, 1, 25, false, tokens, &count, &t->err));
    CHECK_ERROR(t, &t->err, DP_E_LIMIT, "25 tokens after 40");
    CHECK(t, dp_session_get_logits(a, got, &t->err));
    CHECK(t, memcmp(want, got, m->config.vocab_size * sizeof *got) == 0);
    CHECK(t, !dp_session_rewind(a, 41, &t->err));
    CHECK_ERROR(t, &t->err, DP_E_ARGUMENT, "41");
    CHECK(t, dp_session_rewind(a, 10, &t->err)); /* gives pages back */
    CHECK(t, dp_session_eval(b, tokens, 32, &t->err));
    CHECK(t, dp_session_eval(a, tokens, 0, &t->err));
    static const dp_sampling wrong[] = {
        { .temperature = -1 },      { .temperature = NAN },   { .top_p = 1.5f },
        { .min_p = -0.1f },         { .repeat_penalty = -2 }, { .presence_penalty = INFINITY },
        { .frequency_penalty = NAN },
    };
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        CHECK(t, !dp_session_set_sampling(a, &wrong[i], &t->err));
        CHECK_ERROR(t, &t->err, DP_E_ARGUMENT, "is not from");
    }
    dp_session_free(a);
    dp_session_free(b);
    dp_model_close(m);
}

static void too_large_models_are_refused_with_both_numbers(test *t) {
    const dp_device_options small = { .webgpu = test_option("webgpu"),
                                      .adapter = test_option("device"),
                                      .max_memory = 1 << 20 };
    dp_device *device = dp_device_open(&small, &t->err);
    if (!CHECK(t, device != NULL)) return;
    CHECK(t, dp_model_open(device, BUNDLED, NULL, &t->err) == NULL);
    CHECK(t, strstr(t->err.message, "bytes on the device") != NULL);
    CHECK_ERROR(t, &t->err, DP_E_MEMORY, "are left");
    dp_device_close(device);
    device = device_of(t, TIER_FULL);
    CHECK(t, dp_model_open(device, BUNDLED, &(dp_model_options){ .batch = 9000 }, &t->err) == NULL);
    CHECK_ERROR(t, &t->err, DP_E_ARGUMENT, "batch: 9000");
    CHECK(t, dp_model_open(device, "models/none", NULL, &t->err) == NULL);
    CHECK_ERROR(t, &t->err, DP_E_FILE, "models/none");
}

/* On the smallest budget on which experts are paged, over what all of them need as something is
 * kept aside: with one a layer. Closed by the caller with its device. */
static dp_model *open_paged(const char *path, const dp_model *whole, dp_device **device) {
    const dp_model_options options = { .context = 64, .batch = 16 };
    const uint64_t total = whole->memory.total;
    dp_error err = { 0 }; /* of budgets that are too small */
    for (uint64_t more = 16 << 10; more < 1 << 20; more += 16 << 10) {
        dp_device_options small = tier_options(TIER_FULL);
        small.max_memory = total + more;
        *device = dp_device_open(&small, &err);
        dp_model *m = *device != NULL ? dp_model_open(*device, path, &options, &err) : NULL;
        if (m != NULL && m->experts != NULL) return m;
        dp_model_close(m);
        dp_device_close(*device);
    }
    return NULL;
}

/* With room for less than the experts of one row they come in waves, between which the input of all
 * of them has to stay. Then sums of the same numbers are made in another order: they differ by a
 * rounding of f32, a key of the cache perhaps by one of f16, 2^-11 of one number of many. */
static void experts_in_waves_compute_the_same(test *t) {
    enum { TOKENS = 12, ROWS = 5 };
    const char *path = test_vector(t, "families/qwen3moe");
    dp_device *device = device_of(t, TIER_FULL), *small = NULL;
    const dp_model_options options = { .context = 64, .batch = 16 };
    dp_model *whole = device != NULL ? dp_model_open(device, path, &options, &t->err) : NULL;
    dp_model *paged = whole != NULL ? open_paged(path, whole, &small) : NULL;
    if (!CHECK(t, paged != NULL && paged->experts != NULL)) return;
    CHECK(t, weights_slots(&paged->weights, &paged->config, 0) < paged->config.n_experts_used);
    CHECK(t, attention_is_fused(paged, 1) && ffn_is_fused(paged, 0)); /* what this is about */
    const size_t vocab = whole->config.vocab_size;
    float *logits[2] = { test_floats(t, TOKENS * vocab), test_floats(t, TOKENS * vocab) };
    dp_token tokens[TOKENS];
    for (uint32_t i = 0; i < TOKENS; i++)
        tokens[i] = (dp_token)(7 * i + 11) % (dp_token)vocab;
    for (int i = 0; i < 2; i++) {
        dp_session *s = dp_session_new(i == 0 ? whole : paged, &t->err);
        if (!CHECK(t, s != NULL)) break;
        for (uint32_t k = 0; k < TOKENS - ROWS; k++)
            CHECK(t, dp_session_eval_all(s, tokens + k, 1, logits[i] + k * vocab, &t->err));
        CHECK(t, dp_session_eval_all(s, tokens + TOKENS - ROWS, ROWS,
                                     logits[i] + (TOKENS - ROWS) * vocab, &t->err));
        dp_session_free(s);
    }
    double squares = 0, worst = 0;
    for (size_t i = 0; i < TOKENS * vocab; i++) {
        const double want = (double)logits[0][i], off = fabs((double)logits[1][i] - want);
        squares += want * want;
        if (off > worst || isnan(off)) worst = off;
    }
    CHECK_MSG(t, worst <= 1e-3 * sqrt(squares / (double)(TOKENS * vocab)), "off by %g", worst);
    dp_model_close(paged);
    dp_device_close(small);
    dp_model_close(whole);
}

/* Estimates are what is taken, and evaluation takes nothing more, on the host or on the device. */
static void evaluation_allocates_nothing(test *t) {
    dp_device *device = open_tier(t, TIER_FULL);
    const dp_model_options options = { .context = 512, .sessions = 2 };
    dp_model *m = device != NULL ? dp_model_open(device, BUNDLED, &options, &t->err) : NULL;
    dp_session *s = m != NULL ? begin_tale(t, m, "Once upon a time", &(dp_sampling){ 0 }) : NULL;
    if (!CHECK(t, s != NULL)) return;
    dp_memory memory;
    dp_stats before, after;
    dp_token tokens[200] = { 0 };
    uint32_t count = 0;
    CHECK(t, dp_model_memory(m, &options, m->shapes.f16, &memory, &t->err));
    dp_device_get_stats(device, &before);
    /* upload and read-back rings and parameter blocks stand beside the estimate */
    CHECK(t, before.device_bytes >= memory.total && before.device_bytes < memory.total + (8 << 20));
    const uint64_t allocations = mem_count();
    CHECK(t, dp_session_eval(s, tokens, 200, &t->err));
    CHECK(t, dp_batch_generate(&s, 1, 32, true, tokens, &count, &t->err));
    CHECK(t, dp_session_sample(s, tokens, &t->err));
    CHECK_U64(t, mem_count() - allocations, 0);
    dp_device_get_stats(device, &after);
    CHECK_U64(t, after.device_bytes, before.device_bytes);
    CHECK_U64(t, after.pipelines, before.pipelines);
    CHECK_U64(t, after.submits - before.submits, 3);
    CHECK(t, after.bytes_read - before.bytes_read < 32 * 64);
    dp_session_free(s);
    dp_model_close(m);
    dp_device_close(device);
}

/* After a loss every call says so; a new device and model work. */
static void a_lost_device_is_an_error(test *t) {
    for (int round = 0; round < 2; round++) {
        dp_device *device = open_tier(t, TIER_FULL);
        dp_model *m = device != NULL ? open_model(t, device, BUNDLED, 256, 0) : NULL;
        dp_session *s = m != NULL ? begin_tale(t, m, "Once", &(dp_sampling){ 0 }) : NULL;
        if (!CHECK(t, s != NULL)) return;
        dp_token token = 0;
        CHECK(t, dp_session_sample(s, &token, &t->err));
        gpu_lose(m->gpu);
        CHECK(t, !dp_session_eval(s, &token, 1, &t->err));
        CHECK_ERROR(t, &t->err, DP_E_DEVICE, "lost");
        CHECK(t, !dp_session_sample(s, &token, &t->err));
        CHECK_ERROR(t, &t->err, DP_E_DEVICE, "lost");
        dp_session_free(s);
        dp_model_close(m);
        dp_device_close(device);
    }
}

static void models_without_a_device_only_describe(test *t) {
    dp_model *m = dp_model_open(NULL, BUNDLED, NULL, &t->err);
    if (!CHECK(t, m != NULL)) return;
    dp_model_info info;
    dp_memory memory;
    dp_model_get_info(m, &info);
    CHECK_U64(t, info.n_layers, 8);
    CHECK_U64(t, info.vocab_size, 4096);
    CHECK_U64(t, info.n_parameters, 7344384);
    CHECK(t, dp_model_memory(m, NULL, true, &memory, &t->err));
    CHECK_U64(t, memory.kv_bytes_per_token, 8 * 2 * 2 * 64 * 2);
    CHECK(t, dp_session_new(m, &t->err) == NULL);
    CHECK_ERROR(t, &t->err, DP_E_ARGUMENT, "without a device");
    dp_model_close(m);
}

/* Configurations that pass the JSON reader and cannot be run. */
static void impossible_configurations_are_refused(test *t) {
    static const struct {
        const char *from, *to; /* of the fixture's config.json */
        dp_status status;
        const char *part;
    } cases[] = {
        { "\"hidden_act\": \"silu\"", "\"hidden_act\": \"gelu\"", DP_E_UNSUPPORTED, "gelu" },
        { "\"model_type\": \"llama\"", "\"model_type\": \"mamba\"", DP_E_UNSUPPORTED, "mamba" },
        { "\"max_position_embeddings\"", "\"_other\"", DP_E_FORMAT, "max_position_embeddings" },
        { "\"hidden_size\"", "\"_other\"", DP_E_FORMAT, "hidden_size" },
        { "\"num_attention_heads\": ", "\"num_attention_heads\": 1e9", DP_E_FORMAT, "1e+" },
        { "\"num_hidden_layers\": ", "\"num_hidden_layers\": -", DP_E_FORMAT, "num_hidden_layers" },
        { "\"vocab_size\": ", "\"vocab_size\": 1", DP_E_FORMAT, "expected [1" },
        { "\"tie_word_embeddings\": false", "\"head_dim\": 3, \"_other\": 0", DP_E_UNSUPPORTED,
          "head size 3" },
    };
    dp_device *device = device_of(t, TIER_FULL);
    const str config_json = test_read_file(t, test_vector(t, "models/llama2-mha/config.json"));
    const str weights_file =
        test_read_file(t, test_vector(t, "models/llama2-mha/model.safetensors"));
    if (!CHECK(t, device != NULL && config_json.data != NULL && weights_file.data != NULL)) return;
    (void)test_write(t, "model.safetensors", weights_file.data, weights_file.size);
    const char *text = test_printf(t, "%.*s", (int)config_json.size, config_json.data);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        test_row(t, "%s", cases[i].to);
        const char *at = strstr(text, cases[i].from);
        if (!CHECK(t, at != NULL)) continue;
        const char *changed = test_printf(t, "%.*s%s%s", (int)(at - text), text, cases[i].to,
                                          at + strlen(cases[i].from));
        (void)test_write(t, "config.json", changed, strlen(changed));
        CHECK(t, dp_model_open(device, test_folder(t), NULL, &t->err) == NULL);
        CHECK_ERROR(t, &t->err, cases[i].status, cases[i].part);
        dp_model_close(dp_model_open(NULL, test_folder(t), NULL, NULL)); /* describes or refuses */
    }
}

/* Weights that are no numbers end a generation with a sentence, not with token 0 for ever. */
static void logits_that_are_not_numbers_are_an_error(test *t) {
    dp_device *device = device_of(t, TIER_FULL);
    const str config_json = test_read_file(t, test_vector(t, "models/llama2-mha/config.json"));
    const str weights_file =
        test_read_file(t, test_vector(t, "models/llama2-mha/model.safetensors"));
    if (!CHECK(t, device != NULL && config_json.data != NULL && weights_file.size > 4)) return;
    char *broken = test_alloc(t, weights_file.size, 1);
    memcpy(broken, weights_file.data, weights_file.size);
    memset(broken + weights_file.size - 4, 0xff, 4); /* in the last norm: the names are sorted */
    (void)test_write(t, "model.safetensors", broken, weights_file.size);
    (void)test_write(t, "config.json", config_json.data, config_json.size);
    dp_model *m = open_model(t, device, test_folder(t), 64, 0);
    dp_session *s = m != NULL ? dp_session_new(m, &t->err) : NULL;
    dp_token tokens[4] = { 1, 2, 3 };
    uint32_t count = 0;
    if (CHECK(t, s != NULL) && CHECK(t, dp_session_eval(s, tokens, 3, &t->err))) {
        for (int drawn = 0; drawn < 2; drawn++) {
            CHECK(t, dp_session_set_sampling(s, &(dp_sampling){ .temperature = (float)drawn },
                                             &t->err));
            CHECK(t, !dp_session_sample(s, tokens, &t->err));
            CHECK_ERROR(t, &t->err, DP_E_FORMAT, "not numbers");
        }
        CHECK(t, !dp_batch_generate(&s, 1, 4, true, tokens, &count, &t->err));
        CHECK_ERROR(t, &t->err, DP_E_FORMAT, "not numbers");
        size_t n = 0;
        (void)dp_session_tokens(s, &n);
        CHECK_U64(t, n, 3);
    }
    dp_session_free(s);
    dp_model_close(m);
}

/* What comes after a stop string does not depend on how many tokens a submit made. */
static void answers_go_on_alike_after_a_stop_string(test *t) {
    dp_model *m = open_bundled(t, 1);
    if (!CHECK(t, m != NULL)) return;
    char texts[2][512];
    for (uint32_t run = 0; run < 2; run++) {
        const dp_sampling how = { .temperature = 1.2f, .frequency_penalty = 0.3f, .seed = 3 };
        dp_session *s = begin_tale(t, m, "Once upon a time", &how);
        buf text;
        buf_init(&text, 65536);
        const char *stop = ",";
        const dp_generate_options o = { .max_tokens = 30, .steps = run == 0 ? 1 : 32, .stop = &stop,
                                        .n_stop = 1, .on_text = collect_text, .user = &text };
        for (int part = 0; part < 3 && s != NULL; part++) {
            CHECK(t, dp_generate(s, &o, NULL, &t->err));
            buf_add(&text, "|", 1);
        }
        snprintf(texts[run], sizeof texts[run], "%s", text.data != NULL ? text.data : "");
        buf_free(&text);
        dp_session_free(s);
    }
    CHECK_MSG(t, strcmp(texts[0], texts[1]) == 0 && strlen(texts[0]) > 10, "\"%s\" and \"%s\"",
              texts[0], texts[1]);
    dp_model_close(m);
}

/* Every allocation of an open and of a session fails in turn: an error, nothing lost, nothing hung.
 * */
static void every_allocation_may_fail(test *t) {
    dp_device *device = device_of(t, TIER_FULL);
    if (!CHECK(t, device != NULL)) return;
    const char *path = test_vector(t, "models/llama2-mha");
    uint64_t n = 0;
    for (uint64_t fail = 1;; fail++) {
        mem_fail_from(fail);
        dp_model *m = dp_model_open(NULL, path, NULL, &t->err);
        mem_fail_from(0);
        if (m != NULL) {
            dp_model_close(m);
            n = fail;
            break;
        }
        if (!CHECK_ERROR(t, &t->err, DP_E_MEMORY, "memory")) return;
    }
    CHECK(t, n > 10);
    /* with a device pipelines are made each time, so only some of the places are tried */
    for (uint64_t fail = n / 2;; fail = fail + 1 + fail / 4) {
        mem_fail_from(fail);
        dp_model *m = dp_model_open(device, path, &(dp_model_options){ .context = 64 }, &t->err);
        dp_session *s = m != NULL ? dp_session_new(m, &t->err) : NULL;
        mem_fail_from(0);
        const bool whole = s != NULL;
        dp_session_free(s);
        dp_model_close(m);
        if (whole) break;
        if (!CHECK_ERROR(t, &t->err, DP_E_MEMORY, "memory")) return;
    }
}

static const test_case cases[] = {
    { "experts in waves compute the same", experts_in_waves_compute_the_same },
    { "models match transformers", models_match_as_it_is },
    { "models match transformers without f16", models_match_without_f16 },
    { "models match transformers without subgroups", models_match_without_subgroups },
    { "models match transformers with neither", models_match_with_neither },
    { "models match transformers under WebGPU's checks", models_match_with_checks },
    { "models match transformers as on a GPU", models_match_as_on_a_gpu },
    { "families match transformers", families_match_as_they_are },
    { "families match transformers without f16", families_match_without_f16 },
    { "families match transformers with checks", families_match_with_checks },
    { "families match transformers without subgroups", families_match_without_subgroups },
    { "families match transformers with neither", families_match_with_neither },
    { "packs match as they are", packs_match_as_they_are },
    { "packs match without subgroups", packs_match_without_subgroups },
    { "packs match with neither", packs_match_with_neither },
    { "a wrong model is noticed", a_wrong_model_is_noticed },
    { "long contexts do not depend on the batch", long_contexts_do_not_depend_on_the_batch },
    { "golden texts of the bundled model", golden_texts_as_it_is },
    { "golden texts without f16", golden_texts_without_f16 },
    { "golden texts without subgroups", golden_texts_without_subgroups },
    { "golden texts with neither", golden_texts_with_neither },
    { "N-token loops equal single steps", loops_equal_single_steps },
    { "many sessions generate at once", many_sessions_generate_at_once },
    { "batches are independent", batches_are_independent },
    { "matrices are split over bindings", matrices_are_split_over_bindings },
    { "stop strings are never given out", stop_strings_are_never_given_out },
    { "generation ends as told", generation_ends_as_told },
    { "logprobs are logarithms of probabilities", logprobs_are_logarithms_of_probabilities },
    { "limits are named and change nothing", limits_are_named_and_change_nothing },
    { "too large models are refused with both numbers",
      too_large_models_are_refused_with_both_numbers },
    { "evaluation allocates nothing", evaluation_allocates_nothing },
    { "a lost device is an error", a_lost_device_is_an_error },
    { "models without a device only describe", models_without_a_device_only_describe },
    { "impossible configurations are refused", impossible_configurations_are_refused },
    { "logits that are not numbers are an error", logits_that_are_not_numbers_are_an_error },
    { "answers go on alike after a stop string", answers_go_on_alike_after_a_stop_string },
    { "every allocation may fail", every_allocation_may_fail },
};

const test_group model_tests = { "model", cases, ARRAY_LEN(cases) };
