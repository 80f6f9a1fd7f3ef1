/* test_calibrate: the sums that a calibrated model keeps of what its matrices multiply, against the
 * double pass of src/ref; that nothing else changes by it; and what dp_calibrate makes of them. */
#include "model/model.h"
#include "ref/ref.h"
#include "tests/test.h"

#include <float.h>
#include <math.h>
#include <stdio.h>

static const double UNIT = 1.0 / (1 << 23); /* WGSL's worst rounding of a basic operation */

/* ---- devices and models -------------------------------------------------------------------- */

enum { FULL, NO_SUBGROUPS, NEITHER };

static dp_device *open_device(test *t, int tier, uint64_t max_memory) {
    dp_device_options options = test_device_options();
    options.no_f16 |= tier == NEITHER;
    options.no_subgroups |= tier != FULL;
    options.max_memory = max_memory;
    return dp_device_open(&options, &t->err);
}

static void *open_full(test *t) {
    return open_device(t, FULL, 0);
}

static void *open_no_subgroups(test *t) {
    return open_device(t, NO_SUBGROUPS, 0);
}

static void *open_neither(test *t) {
    return open_device(t, NEITHER, 0);
}

static void close_device(void *device) {
    dp_device_close(device);
}

/* Those of test_model.c, by their names. */
static dp_device *device_of(test *t, int tier) {
    static void *(*const open[])(test *) = { open_full, open_no_subgroups, open_neither };
    static const char *const names[] = { "as it is", "no subgroups", "neither" };
    return test_shared(t, names[tier], open[tier], close_device);
}

/* The contexts are those of test_model.c, so that pipelines are shared. */
enum { CONTEXT = 128, CONTEXT_OF_MODELS = 256 };
static dp_model *open_calibrated(test *t, dp_device *device, const char *path, uint32_t context,
                                 uint32_t batch) {
    const dp_model_options options = {
        .context = context, .batch = batch, .sessions = 2, .calibrate = true
    };
    return dp_model_open(device, path, &options, &t->err);
}

static dp_token *random_tokens(test *t, const dp_model *m, size_t n) {
    dp_token *tokens = test_alloc(t, n, sizeof *tokens);
    for (size_t i = 0; i < n; i++)
        tokens[i] = (dp_token)test_below(t, m->config.vocab_size);
    return tokens;
}

/* ---- sums ---------------------------------------------------------------------------------- */

typedef struct {
    watch_layout layout;
    double *sums; /* [watch_columns] */
} squares;

static squares new_squares(test *t, const dp_model *m) {
    const watch_layout layout = watch_layout_of(&m->config);
    return (squares){ layout, test_alloc(t, (size_t)watch_columns(&layout), sizeof(double)) };
}

static void add_squares(void *user, uint32_t layer, uint32_t site, const double *x, size_t rows,
                        size_t cols) {
    const squares *s = user;
    assert(s->layout.columns[site] == cols);
    double *sums = s->sums + watch_place(&s->layout, layer, (importance_site)site);
    for (size_t i = 0; i < rows * cols; i++)
        sums[i % cols] += x[i] * x[i];
}

/* Adds those of one sequence. */
static bool add_reference(test *t, squares *s, const char *path, const dp_token *tokens, size_t n) {
    ref_model *m = ref_model_open(path, &t->err);
    if (m == NULL) return false;
    double *logits = test_alloc(t, n * ref_model_vocab(m), sizeof *logits);
    const bool ok = ref_forward_watched(m, tokens, n, logits, add_squares, s, &t->err);
    ref_model_close(m);
    return ok;
}

/* Evaluates tokens in passes of one row, of a few and of many, rows of a session that is not
 * watched in between. */
enum { N_TOKENS = 45, N_PASSES = 5 };
static bool watch_tokens(test *t, dp_model *m, const dp_token *tokens, squares *s) {
    static const size_t parts[] = { 1, 5, 39 }; /* a batch is 16: the last are 16, 16 and 7 */
    float *scratch = test_floats(t, (size_t)watch_columns(&s->layout));
    dp_session *watched = dp_session_new(m, &t->err), *other = dp_session_new(m, &t->err);
    bool ok = watched != NULL && other != NULL && watch_clear(m, &t->err);
    if (ok) watched->watched = true;
    for (size_t i = 0, at = 0; i < ARRAY_LEN(parts) && ok; at += parts[i++]) {
        ok = dp_session_eval(watched, tokens + at, parts[i], &t->err) &&
             dp_session_eval(other, tokens, parts[i], &t->err);
    }
    ok = ok && watch_add(m, s->sums, scratch, &t->err);
    dp_session_free(watched);
    dp_session_free(other);
    return ok;
}

/* What the first layer's attention reads is the embedding, through a norm or not: a few dozen
 * roundings. The norm's reduction has at most 1 + 4 + 1 + 5 + 32 of them (norm.wgsl, of up to 1,024
 * columns), halved by the root with 3.5 more, and 4 after it: 28, which squaring doubles; a scale
 * of the embedding adds 2. Then the sums: rows / 16 + 18 of each pass. */
static void check_first_site(test *t, const squares *got, const squares *want) {
    const double roundings = 2 * 28 + 2 + N_TOKENS / 16.0 + 18 * N_PASSES;
    for (uint32_t i = 0; i < got->layout.columns[SITE_ATTENTION_INPUT]; i++) {
        const double error = fabs(got->sums[i] - want->sums[i]);
        if (!CHECK_MSG(t, error <= roundings * UNIT * want->sums[i], "column %u: %.9g, expected %g",
                       i, got->sums[i], want->sums[i])) {
            return;
        }
    }
}

static float *as_floats(test *t, const double *x, size_t n) {
    float *y = test_floats(t, n);
    for (size_t i = 0; i < n; i++)
        y[i] = (float)x[i];
    return y;
}

/* Of activations, relative to their size: with a cache of f16 keys and values are off by up to
 * 2^-11 of themselves, in each of the at most four layers; without, all roundings are those of f32,
 * some hundreds in a layer. */
static double relative_error(const dp_model *m) {
    return m->shapes.f16 ? 4 * 0x1p-11 : 1000 * UNIT;
}

/* Squares are off by twice what activations are, relative to their size. A row that is missing or
 * counted twice is 1 of 45, 2.2e-2; those of the wrong place are off by more than a half. */
static void check_sites(test *t, const char *name, const squares *got, const squares *want,
                        double relative) {
    static const char *const names[] = { "attention's input", "attention", "FFN's input",
                                         "FFN's hidden", "output" };
    for (uint32_t layer = 0; layer < got->layout.n_layers; layer++) {
        for (importance_site site = 0; site < N_SITES; site++) {
            const uint64_t at = watch_place(&got->layout, layer, site);
            const size_t n = got->layout.columns[site];
            const float *a = as_floats(t, got->sums + at, n), *b = as_floats(t, want->sums + at, n);
            test_row(t, "%s, layer %u, %s", name, layer, names[site]);
            CHECK_NMSE(t, a, b, n, 4 * relative * relative);
        }
    }
}

static void check_tier(test *t, int tier) {
    static const char *const paths[] = { "families/mixtral", "families/qwen3", "families/gemma2",
                                         "families/gpt2",    "families/olmo2", "families/gpt-oss" };
    if (SANITIZED && tier != FULL) SKIP(t, "sanitized: the host's code is that of tier 0");
    dp_device *device = device_of(t, tier);
    if (!CHECK(t, device != NULL)) return;
    for (size_t i = 0; i < (tier == FULL ? ARRAY_LEN(paths) : 2); i++) {
        test_row(t, "%s", paths[i]);
        const char *path = test_vector(t, paths[i]);
        dp_model *m = open_calibrated(t, device, path, CONTEXT, 16);
        if (!CHECK(t, m != NULL)) return;
        const dp_token *tokens = random_tokens(t, m, N_TOKENS);
        squares got = new_squares(t, m), want = new_squares(t, m);
        if (CHECK(t, add_reference(t, &want, path, tokens, N_TOKENS)) &&
            CHECK(t, watch_tokens(t, m, tokens, &got))) {
            check_first_site(t, &got, &want);
            check_sites(t, paths[i], &got, &want, relative_error(m));
        }
        dp_model_close(m);
    }
}

static void sums_are_those_of_the_reference(test *t) {
    check_tier(t, FULL);
}

static void sums_without_subgroups(test *t) {
    check_tier(t, NO_SUBGROUPS);
}

static void sums_with_neither(test *t) {
    check_tier(t, NEITHER);
}

/* ---- what stays as it is ------------------------------------------------------------------- */

static uint32_t count_calls(const dp_model *m, pass_kind kind) {
    uint32_t n = gpu_plan_n_calls(m->head[kind]);
    for (uint32_t i = 0; i < m->n_stages; i++)
        n += gpu_plan_n_calls(m->body[kind][i]);
    return n;
}

static void others_are_as_before(test *t) {
    dp_device *device = device_of(t, FULL);
    if (!CHECK(t, device != NULL)) return;
    const char *path = test_vector(t, "families/mixtral");
    enum { BATCH = 80 }; /* so that there are passes of every kind */
    const dp_model_options plain = { .context = CONTEXT, .batch = BATCH, .sessions = 2 };
    dp_model *a = dp_model_open(device, path, &plain, &t->err),
             *b = open_calibrated(t, device, path, CONTEXT, BATCH);
    if (!CHECK(t, a != NULL && b != NULL)) return;
    const watch_layout l = watch_layout_of(&b->config);
    for (pass_kind kind = PASS_ONE; kind < PASS_COUNT; kind++) {
        const uint32_t more = (N_SITES - 1) * b->config.n_layers + 2; /* the output, its norm */
        if (pass_is_fused(&(recorder){ .m = a, .kind = kind }) ||
            (pass_is_prefill(kind) && gpu_info(a->gpu)->matrix > 0)) {
            continue; /* inputs are made on the way; calibrating does without that */
        }
        CHECK_U64(t, count_calls(b, kind), count_calls(a, kind) + more);
    }
    CHECK_U64(t, b->memory.activations - a->memory.activations,
              align_up(watch_columns(&l) * sizeof(float), 256));
    const dp_token *tokens = random_tokens(t, a, N_TOKENS);
    const dp_token *prompt = random_tokens(t, a, BATCH);
    static const uint32_t prompts[] = { 40, BATCH };
    const size_t vocab = a->config.vocab_size, n = (N_TOKENS + ARRAY_LEN(prompts)) * vocab;
    float *logits[2] = { test_floats(t, n), test_floats(t, n) };
    for (int i = 0; i < 2; i++) {
        dp_session *s = dp_session_new(i == 0 ? a : b, &t->err);
        if (!CHECK(t, s != NULL)) break;
        s->watched = i == 1;
        CHECK(t, dp_session_eval_all(s, tokens, 33, logits[i], &t->err));
        for (uint32_t k = 33; k < N_TOKENS; k++) {
            CHECK(t, dp_session_eval_all(s, tokens + k, 1, logits[i] + k * vocab, &t->err));
        }
        for (size_t k = 0; k < ARRAY_LEN(prompts); k++) { /* whole, through tiles */
            CHECK(t, dp_session_rewind(s, 0, &t->err) &&
                         dp_session_eval(s, prompt, prompts[k], &t->err) &&
                         dp_session_get_logits(s, logits[i] + (N_TOKENS + k) * vocab, &t->err));
        }
        dp_session_free(s);
    }
    /* other kernels may add in another order, and a key that falls the other way moves by 2^-11 */
    double differences = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        const double d = (double)logits[1][i] - (double)logits[0][i];
        differences += d * d;
        size += (double)logits[0][i] * (double)logits[0][i];
    }
    CHECK_MSG(t, differences <= 1e-6 * size, "off by %g", sqrt(differences / size));
    dp_importance *none = dp_calibrate(a, "a text", 6, NULL, NULL, &t->err);
    CHECK(t, none == NULL);
    CHECK_ERROR(t, &t->err, DP_E_ARGUMENT, "was not opened to be calibrated");
    dp_model_close(a);
    dp_model_close(b);
}

/* Experts that are fetched in waves are looked at once, when all are there. */
static void paged_experts_count_once(test *t) {
    dp_device *device = device_of(t, FULL);
    const char *path = test_vector(t, "families/mixtral");
    dp_model *whole = device != NULL ? open_calibrated(t, device, path, CONTEXT, 16) : NULL;
    if (!CHECK(t, whole != NULL)) return;
    const dp_token *tokens = random_tokens(t, whole, N_TOKENS);
    squares want = new_squares(t, whole), got = new_squares(t, whole);
    CHECK(t, watch_tokens(t, whole, tokens, &want));
    dp_model *paged = NULL;
    dp_device *small = NULL;
    /* what pages is a little over what all of it needs, as something is kept aside */
    for (uint64_t more = 160 << 10; more < 1 << 20; more += whole->weights.expert_bytes / 4) {
        small = open_device(t, FULL, whole->memory.total + more);
        paged = small != NULL ? open_calibrated(t, small, path, CONTEXT, 16) : NULL;
        if (paged == NULL || paged->experts != NULL) break;
        dp_model_close(paged);
        dp_device_close(small);
        paged = NULL;
    }
    if (CHECK(t, paged != NULL) && CHECK(t, watch_tokens(t, paged, tokens, &got))) {
        CHECK(t, memcmp(got.sums, want.sums, watch_columns(&got.layout) * sizeof(double)) == 0);
    }
    dp_model_close(paged);
    dp_device_close(paged != NULL ? small : NULL);
    dp_model_close(whole);
}

/* ---- importance ---------------------------------------------------------------------------- */

static const char TEXT[] = "Once there was a fox who counted to 1234 every night, and an owl that "
                           "said: \"Why?\" Nobody knew. In the end, the fox didn't either.";

typedef struct {
    dp_model *m; /* to be calibrated at the same time; NULL: not tried */
    uint32_t n, stop_at;
    uint64_t done, total;
    bool ok;
} watcher;

static bool on_progress(void *user, uint64_t done, uint64_t total) {
    watcher *w = user;
    dp_error err = { 0 };
    w->ok = w->ok && done > w->done && done <= total;
    w->done = done;
    w->total = total;
    if (w->m != NULL) {
        dp_importance *second = dp_calibrate(w->m, TEXT, sizeof TEXT - 1, NULL, NULL, &err);
        w->ok = w->ok && second == NULL && err.status == DP_E_LIMIT;
    }
    return ++w->n != w->stop_at;
}

/* Values that the text's sums should give: of rows [n] of a site. */
static void check_values(test *t, const dp_importance *im, const squares *want, double rows,
                         double relative) {
    for (importance_site site = 0; site < N_SITES; site++) {
        const uint32_t n = want->layout.columns[site];
        const double *sums = want->sums + watch_place(&want->layout, 0, site);
        const float *values = importance_of(im, 0, site, n);
        if (!CHECK(t, values != NULL)) return;
        double mean = 0;
        for (uint32_t i = 0; i < n; i++)
            mean += sums[i] / rows / n;
        float *expected = test_floats(t, n);
        for (uint32_t i = 0; i < n; i++) {
            expected[i] = (float)((sums[i] + mean) / (rows + 1));
            CHECK(t, values[i] > 0 && isfinite(values[i]));
        }
        CHECK_NMSE(t, values, expected, n, 4 * relative * relative);
        CHECK(t, importance_of(im, 0, site, n + 4) == NULL);
        CHECK(t, importance_of(im, want->layout.n_layers, site, n) == NULL);
    }
}

/* Windows of 128 tokens, bos in front of each. */
static void windows_begin_anew(test *t) {
    dp_device *device = device_of(t, FULL);
    const char *path = test_vector(t, "packs/ours");
    dp_model *m = device != NULL ? open_calibrated(t, device, path, CONTEXT, 16) : NULL;
    if (!CHECK(t, m != NULL)) return;
    enum { N = 300, WINDOW = 128 };
    dp_token tokens[N], window[WINDOW] = { 1 };
    squares want = new_squares(t, m);
    for (size_t i = 0; i < N; i++)
        tokens[i] = (dp_token)(3 + test_below(t, m->config.vocab_size - 3));
    for (size_t i = 0; i < N; i += WINDOW - 1) {
        const size_t n = (size_t)min_u64(WINDOW - 1, N - i);
        memcpy(window + 1, tokens + i, n * sizeof *tokens);
        CHECK(t, add_reference(t, &want, path, window, 1 + n));
    }
    watcher w = { .ok = true, .m = m };
    dp_importance *im = calibrate_tokens(m, tokens, N, 1, 1000, on_progress, &w, &t->err);
    const double relative = relative_error(m);
    if (CHECK(t, im != NULL)) {
        CHECK(t, w.ok && w.n == 3 && w.done == 1000 && w.total == 1000);
        CHECK_U64(t, dp_importance_tokens(im), N);
        dp_model_close(m); /* it is not needed for what follows */
        check_values(t, im, &want, N + 3, relative);
    }
    dp_importance_free(im);
}

static void texts_are_calibrated_with(test *t) {
    dp_device *device = device_of(t, FULL);
    const char *path = test_vector(t, "packs/ours");
    dp_model *m = device != NULL ? open_calibrated(t, device, path, CONTEXT, 16) : NULL;
    if (!CHECK(t, m != NULL)) return;
    dp_token tokens[sizeof TEXT];
    size_t n = 0; /* with bos in front */
    CHECK(t, dp_tokenize(m, TEXT, sizeof TEXT - 1, true, false, tokens, sizeof TEXT, &n, &t->err));
    CHECK(t, n > 17 && tokens[0] == dp_model_bos(m));
    dp_stats before, after;
    dp_device_get_stats(device, &before);
    dp_importance *a = dp_calibrate(m, TEXT, sizeof TEXT - 1, NULL, NULL, &t->err);
    dp_importance *b = calibrate_tokens(m, tokens + 1, n - 1, tokens[0], n, NULL, NULL, &t->err);
    dp_device_get_stats(device, &after);
    CHECK_U64(t, after.device_bytes, before.device_bytes);
    if (CHECK(t, a != NULL && b != NULL)) {
        CHECK_U64(t, dp_importance_tokens(a), n - 1);
        for (importance_site site = 0; site < N_SITES; site++) {
            const uint32_t cols = watch_layout_of(&m->config).columns[site];
            const float *x = importance_of(a, 0, site, cols), *y = importance_of(b, 0, site, cols);
            CHECK(t, x != NULL && y != NULL && memcmp(x, y, cols * sizeof *x) == 0);
        }
    }
    dp_importance_free(a);
    dp_importance_free(b);
    dp_importance_free(NULL);
    CHECK(t, dp_calibrate(m, "few", 3, NULL, NULL, &t->err) == NULL);
    CHECK_ERROR(t, &t->err, DP_E_ARGUMENT, "needs at least 16");
    CHECK(t, dp_calibrate(m, NULL, 0, NULL, NULL, &t->err) == NULL);
    CHECK_ERROR(t, &t->err, DP_E_ARGUMENT, "a text of 0 tokens");
    watcher w = { .ok = true, .stop_at = 1 };
    CHECK(t, dp_calibrate(m, TEXT, sizeof TEXT - 1, on_progress, &w, &t->err) == NULL);
    CHECK_ERROR(t, &t->err, DP_E_CANCELLED, "cancelled");
    dp_session *s[2] = { dp_session_new(m, &t->err), dp_session_new(m, &t->err) };
    CHECK(t, dp_calibrate(m, TEXT, sizeof TEXT - 1, NULL, NULL, &t->err) == NULL);
    CHECK_ERROR(t, &t->err, DP_E_LIMIT, "all 2 sessions");
    dp_session_free(s[0]);
    dp_session_free(s[1]);
    for (uint64_t fail = 1;; fail++) { /* no failure above has left the model as if in use */
        mem_fail_from(fail);
        a = dp_calibrate(m, TEXT, 40, NULL, NULL, &t->err);
        mem_fail_from(0);
        if (a != NULL) {
            CHECK(t, fail > 5);
            break;
        }
        if (!CHECK_ERROR(t, &t->err, DP_E_MEMORY, "memory")) break;
    }
    dp_importance_free(a);
    dp_model_close(m);
}

/* A copy of a model whose last bytes, of the last norm, are `fill`. */
static const char *write_spoilt(test *t, int fill, size_t n) {
    const char *path = "models/llama2-mha";
    const str config_json =
        test_read_file(t, test_vector(t, test_printf(t, "%s/config.json", path)));
    const str weights_file =
        test_read_file(t, test_vector(t, test_printf(t, "%s/model.safetensors", path)));
    if (!CHECK(t, config_json.data != NULL && weights_file.size > n)) return "";
    char *bytes = test_alloc(t, weights_file.size, 1);
    memcpy(bytes, weights_file.data, weights_file.size);
    memset(bytes + weights_file.size - n, fill, n);
    (void)test_write(t, "model.safetensors", bytes, weights_file.size);
    (void)test_write(t, "config.json", config_json.data, config_json.size);
    return test_folder(t);
}

static void columns_without_use_keep_a_little(test *t) {
    enum { N = 20, COLUMN = 4 }; /* bytes of a column */
    static const dp_token tokens[N] = {
        3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4
    };
    dp_device *device = device_of(t, FULL);
    if (!CHECK(t, device != NULL)) return;
    static const char *const rows[] = { "one column is 0", "all are", "one is no number" };
    for (int i = 0; i < 3; i++) {
        test_row(t, "%s", rows[i]);
        const uint32_t dim = 32;
        const char *path = write_spoilt(t, i == 2 ? 0xff : 0, i == 1 ? dim * COLUMN : COLUMN);
        dp_model *m = open_calibrated(t, device, path, CONTEXT_OF_MODELS, 16);
        if (!CHECK(t, m != NULL) || !CHECK_U64(t, m->config.dim, dim)) return;
        dp_importance *im = calibrate_tokens(m, tokens, N, DP_NO_TOKEN, N, NULL, NULL, &t->err);
        if (i == 2) {
            CHECK(t, im == NULL);
            CHECK_ERROR(t, &t->err, DP_E_FORMAT, "NaN");
        } else if (CHECK(t, im != NULL)) {
            const float *x = importance_of(im, 0, SITE_OUTPUT, dim);
            CHECK(t, (x == NULL) == (i == 1));
            CHECK(t, importance_of(im, 0, SITE_FFN_INPUT, dim) != NULL);
            squares want = new_squares(t, m);
            if (i == 0 && CHECK(t, x != NULL && add_reference(t, &want, path, tokens, N))) {
                check_values(t, im, &want, N, relative_error(m));
                const double *sums = want.sums + watch_place(&want.layout, 0, SITE_OUTPUT);
                double mean = 0;
                for (uint32_t c = 0; c < dim; c++)
                    mean += sums[c] / N / dim;
                CHECK(t, sums[dim - 1] == 0 &&
                             fabs((double)x[dim - 1] * (N + 1) - mean) < 0.01 * mean);
            }
        }
        dp_importance_free(im);
        dp_model_close(m);
    }
}

static const test_case cases[] = {
    { "sums are those of the reference", sums_are_those_of_the_reference },
    { "sums are those of the reference without subgroups", sums_without_subgroups },
    { "sums are those of the reference without f16 and subgroups", sums_with_neither },
    { "a model that is not calibrated is as it was", others_are_as_before },
    { "paged experts count once", paged_experts_count_once },
    { "windows begin anew", windows_begin_anew },
    { "texts are calibrated with", texts_are_calibrated_with },
    { "columns without use keep a little", columns_without_use_keep_a_little },
};

const test_group calibrate_tests = { "calibrate", cases, ARRAY_LEN(cases) };
