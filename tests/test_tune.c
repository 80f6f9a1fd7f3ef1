/* Tuning: shapes that compute something else are not chosen, choices change no result, and a file
 * of choices that is damaged or belongs to another device is as if it were not there. No time is
 * asserted: which of the right shapes is the fastest is the device's business. */
#include "model/tune_internal.h"
#include "tests/test.h"

#include <stdio.h>

#define MODEL   "models/tale-8m"
#define KEY     "project bf16 f32 512x256 1"
#define Q4_K_M  "gguf/q4_k_m/model.gguf"
#define MIXTURE "families/qwen3moe"
#define OTHER   "rows 1, split 1, lanes 128, ahead 1" /* which is not its first shape */
enum { CONTEXT = 80, N_TOKENS = 3, ROWS_MAX = 64 };

static void *open_device(test *t) {
    const dp_device_options o = test_device_options();
    return dp_device_open(&o, &t->err);
}

static void close_device(void *d) {
    dp_device_close(d);
}

static dp_model *open_on(test *t, dp_device *d, const char *path, const char *folder) {
    const dp_model_options o = {
        .context = CONTEXT, .batch = CONTEXT, .sessions = 1, .tuning_dir = folder
    };
    dp_model *m = dp_model_open(d, path, &o, &t->err);
    CHECK(t, m != NULL);
    return m;
}

static dp_model *open_model(test *t, const char *folder) {
    dp_device *d = test_shared(t, "device of tuning", open_device, close_device);
    return CHECK(t, d != NULL) ? open_on(t, d, MODEL, folder) : NULL;
}

static void *open_shared(test *t) {
    return open_model(t, NULL);
}

static void close_shared(void *m) {
    dp_model_close(m);
}

static dp_model *shared_model(test *t) {
    return test_shared(t, "model of tuning", open_shared, close_shared);
}

typedef struct {
    dp_tuned rows[ROWS_MAX];
    size_t n;
} seen_rows;

static bool see(void *user, const dp_tuned *row) {
    seen_rows *s = user;
    if (s->n < ROWS_MAX) s->rows[s->n] = *row;
    s->n++;
    return true;
}

static bool stop(void *user, const dp_tuned *row) {
    (void)user;
    (void)row;
    return false;
}

static void forget(dp_model *m) {
    m->tuned.n = 0;
}

static bool tune(test *t, dp_model *m, const tune_options *how, size_t *n) {
    gpu_lock(m->gpu);
    const bool ok = model_tune(m, how, n, &t->err);
    gpu_unlock(m->gpu);
    return ok;
}

/* All that was tried is right but the spoilt shape, and of each product one was chosen. */
static void check_rows(test *t, const dp_model *m, const seen_rows *seen, const char *products,
                       uint32_t spoilt, size_t n) {
    uint32_t n_chosen = 0, shape = 0;
    if (!CHECK(t, n > 0 && seen->n > n && seen->n <= ROWS_MAX)) return;
    for (uint32_t i = 0; i < seen->n; i++) {
        const dp_tuned *row = &seen->rows[i];
        shape = row->is_initial ? 0 : shape + 1;
        const bool right = spoilt == 0 || shape != spoilt;
        CHECK(t, str_starts(str_of(row->product), products));
        CHECK(t, row->is_right == right && (row->nanoseconds > 0) == right);
        CHECK(t, row->is_right || !row->is_chosen);
        if (row->is_chosen) CHECK_STR(t, str_of(tuned_find(&m->tuned, row->product)), row->shape);
        n_chosen += row->is_chosen;
    }
    CHECK_U64(t, n_chosen, n);
}

/* Products that there were, whose names begin so. Of the spoilt shape all results are, or one. */
static size_t check_spoilt_result(test *t, dp_model *m, const char *only, uint32_t spoilt,
                                  uint32_t result) {
    seen_rows seen = { .n = 0 };
    const tune_options how = {
        .only = only, .spoilt = spoilt, .spoilt_result = result, .each = see, .user = &seen
    };
    size_t n = 0;
    forget(m);
    CHECK(t, tune(t, m, &how, &n));
    if (n > 0) check_rows(t, m, &seen, only, spoilt, n);
    return n;
}

static size_t check_spoilt(test *t, dp_model *m, const char *only, uint32_t spoilt) {
    return check_spoilt_result(t, m, only, spoilt, 0);
}

static void a_wrong_shape_is_not_chosen(test *t) {
    /* every kind, of which a device has all but four: keys are floats or half floats, matmul has
     * matrix units or multiplies half floats or floats; but passes of a few rows have matvec on a
     * software GPU alone, one whose lanes share x tunes neither matvec nor matmul, and matrix units
     * have no glu of many rows: it is part of making their inputs; nor has their attention tiles;
     * one row has one span without a kernel of its own on a software GPU */
    static const struct {
        const char *products;
        uint32_t spoilt;
    } list[] = {
        { "matvec bf16 256x256 8", 2 },
        { "project bf16 f32 512x256 1", 1 },
        { "project bf16 f32 512x256 1", 0 },
        { "project head bf16 f32 4096x256 1", 2 },
        { "project_glu bf16 f32 1536x256 1", 3 },
        { "project_add bf16 f32 256x256 1", 2 },
        { "attend_decode f32", 1 },
        { "attend_decode f16", 2 },
        { "attend_whole", 1 },
        { "attend_prefill f32 4/2x64 64 80", 1 },
        { "attend_prefill f16 4/2x64 64 80", 3 },
        { "matmul add bf16 256x256 80", 1 },
        { "matmul half add bf16 256x256 80", 2 },
        { "matmul_matrix add bf16 256x256 80", 1 },
        { "norm 256 80", 2 },
        { "glu 768 80", 1 },
        { "rope 512 80", 1 },
    };
    dp_model *m = shared_model(t);
    uint32_t n_kinds = 0;
    if (m == NULL) return;
    for (uint32_t i = 0; i < ARRAY_LEN(list); i++) {
        test_row(t, "%s, spoilt shape %u", list[i].products, list[i].spoilt);
        n_kinds += check_spoilt(t, m, list[i].products, list[i].spoilt) > 0;
    }
    const bool fewer = matmul_takes_rows(m->gpu) || matrix_is_used(m);
    const bool no_matvec = !is_software(m->gpu) || matmul_takes_rows(m->gpu);
    const bool no_tiles = matrix_is_used(m) && m->shapes.f16 && !is_software(m->gpu) &&
                          attend_matrix_fits(m->gpu, m->config.head_dim);
    const bool no_whole = m->shapes.whole_keys == 0;
    CHECK(t, n_kinds == ARRAY_LEN(list) - 4 - no_matvec - fewer - no_tiles - no_whole);
    forget(m);
}

/* Activations as signed bytes: of gate and up for down, and of down for the next layer. */
static void bytes_are_compared(test *t) {
    static const char *const products[] = { "project_glu q4_k", "project_add q4_k", "project_add" };
    dp_device *d = test_shared(t, "device of tuning", open_device, close_device);
    const dp_model_options o = { .context = CONTEXT, .batch = 16, .sessions = 1 };
    dp_model *m = d != NULL ? dp_model_open(d, test_vector(t, Q4_K_M), &o, &t->err) : NULL;
    if (!CHECK(t, m != NULL)) return;
    for (uint32_t i = 0; i < 2 * ARRAY_LEN(products); i++) {
        const char *only = products[i / 2];
        test_row(t, "%s, spoilt shape %u", only, i % 2);
        CHECK(t, check_spoilt(t, m, only, i % 2) > 0);
    }
    dp_model_close(m);
}

/* ---- experts ------------------------------------------------------------------------------- */

typedef struct {
    test *t;
    const dp_model *m;
} input_check;

/* Numbers stand at the beginning of what was zero before tuning. */
static void check_filled(test *t, const dp_model *m, gpu_range r, bool positive) {
    uint32_t words[16];
    CHECK(t, gpu_read(m->gpu, gpu_part(r, 0, sizeof words), words, &t->err));
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        CHECK_MSG(t, words[i] != 0 && !(positive && words[i] >> 31), "word %zu: %x", i, words[i]);
}

/* While a product is measured what it reads is there: with nothing to compute all shapes are right.
 */
static bool check_inputs(void *user, const dp_tuned *row) {
    const input_check *c = user;
    const buffers *b = &c->m->buffers;
    if (str_starts(str_of(row->product), "expert_glu ")) {
        check_filled(c->t, c->m, b->router, false);
        check_filled(c->t, c->m, b->expert_x, false);
        check_filled(c->t, c->m, b->expert_squares, true);
        return true;
    }
    const uint32_t n = c->m->config.n_experts_used;
    uint32_t(*pairs)[4] = test_alloc(c->t, n, sizeof *pairs);
    check_filled(c->t, c->m, b->h, false);
    CHECK(c->t,
          gpu_read(c->m->gpu, gpu_part(b->expert_pairs, 0, n * sizeof *pairs), pairs, &c->t->err));
    for (uint32_t i = 0; i < n; i++) /* for each an expert, its place in memory, a half */
        CHECK(c->t, pairs[i][0] == i && pairs[i][1] == i && pairs[i][2] == 0x3f000000);
    return true;
}

/* What one row of a mixture is multiplied with, in so many results each. */
static void check_experts(test *t, const char *path, const char *types) {
    static const struct {
        const char *kernel;
        uint32_t results;
    } list[] = {
        { "expert_glu", 2 },      /* the hidden row and its pairs */
        { "expert_add", 3 },      /* the stream, the next layer's input and its squares */
        { "expert_add last", 1 }, /* the stream */
        { "project_add", 3 },     /* the stream, the experts' input and its squares */
    };
    dp_device *d = test_shared(t, "device of tuning", open_device, close_device);
    const dp_model_options o = { .context = CONTEXT, .batch = 16, .sessions = 1 };
    dp_model *m = d != NULL ? dp_model_open(d, path, &o, &t->err) : NULL;
    if (!CHECK_MSG(t, m != NULL, "%s", t->err.message)) return;
    for (size_t i = 0; i < ARRAY_LEN(list); i++) {
        const char *only = test_printf(t, "%s %s", list[i].kernel, types);
        for (uint32_t result = 0; result <= list[i].results; result++) {
            const uint32_t spoilt = result > 0 ? 1 + result % 2 : 0;
            test_row(t, "%s, result %u of shape %u spoilt", only, result, spoilt);
            CHECK_U64(t, check_spoilt_result(t, m, only, spoilt, result), 1);
        }
        size_t n = 0;
        input_check user = { t, m };
        const tune_options how = { .only = only, .each = check_inputs, .user = &user };
        test_row(t, "%s, inputs", only);
        if (str_starts(str_of(only), "expert")) CHECK(t, tune(t, m, &how, &n) && n == 1);
    }
    dp_model_close(m);
}

static void experts_are_compared(test *t) {
    check_experts(t, test_vector(t, MIXTURE), "bf16 f32");
}

static void bytes_of_experts_are_compared(test *t) {
    if (SANITIZED) SKIP(t, "sanitized: what it calls, the others have called");
    const char *path = test_printf(t, "%s/q4_0.gguf", test_folder(t));
    const dp_convert_options how = { .quantize = "q4_0", .threads = 1 };
    if (CHECK(t, dp_convert(test_vector(t, MIXTURE), path, &how, NULL, &t->err)))
        check_experts(t, path, "q4_0 q8");
}

/* ---- what is asked ------------------------------------------------------------------------- */

/* A pass of one row has a call for one span and one for several, which are two questions; on a
 * software GPU too, if it must. */
static void one_span_and_several_are_tuned(test *t) {
    enum { KEYS = 64 }; /* fewer than the context */
    dp_model *m = shared_model(t);
    if (m == NULL) return;
    if (!gpu_info(m->gpu)->subgroups) SKIP(t, "the device has no subgroups");
    const uint32_t whole_keys = m->shapes.whole_keys;
    m->shapes.whole_keys = KEYS;
    const char *cache = m->shapes.f16 ? "f16" : "f32";
    const char *whole = test_printf(t, "attend_whole %s 4/2x64 %d 1", cache, KEYS / 2);
    const char *spans = test_printf(t, "attend_decode %s 4/2x64 %d 1", cache, KEYS + 1);
    for (uint32_t spoilt = 0; spoilt < 3; spoilt++) {
        test_row(t, "%s, spoilt shape %u", whole, spoilt);
        CHECK_U64(t, check_spoilt(t, m, whole, spoilt), 1);
        CHECK(t, tuned_find(&m->tuned, spans) == NULL);
    }
    test_row(t, "%s", spans); /* of 16 rows too, whose name begins alike */
    CHECK(t, check_spoilt(t, m, spans, 1) > 0);
    CHECK(t, tuned_find(&m->tuned, spans) != NULL && tuned_find(&m->tuned, whole) == NULL);
    m->shapes.whole_keys = whole_keys;
    forget(m);
}

static void tuning_can_be_cancelled(test *t) {
    dp_model *m = shared_model(t);
    if (m == NULL) return;
    const tune_options how = { .only = KEY, .each = stop };
    size_t n = 0;
    CHECK(t, !tune(t, m, &how, &n));
    CHECK_ERROR(t, &t->err, DP_E_CANCELLED, "tuning was cancelled");
    forget(m);
}

/* What the quick form finds known it does not measure. */
static void known_products_are_left_out(test *t) {
    dp_model *m = shared_model(t);
    if (m == NULL) return;
    const tune_options how = { .quick = true, .seconds = 600, .only = KEY };
    size_t n = 1;
    CHECK(t, tuned_put(&m->tuned, KEY, OTHER, &t->err));
    CHECK(t, tuned_put(&m->tuned, KEY "6", OTHER, &t->err)); /* 16 rows, on a GPU: begins alike */
    CHECK(t, tune(t, m, &how, &n));
    CHECK_U64(t, n, 0);
    forget(m);
}

typedef struct {
    seen_rows rows;
    double seconds; /* that tuning has */
} late_rows;

/* Gives its first answer when the time, which began before, is up. */
static bool see_late(void *user, const dp_tuned *row) {
    late_rows *l = user;
    const double end = clock_seconds() + l->seconds;
    while (l->rows.n == 0 && clock_seconds() < end)
        ;
    return see(&l->rows, row);
}

/* Nothing is begun behind the quick form's end; the next start goes on with what is not known. */
static void tuning_ends_in_time(test *t) {
    static const char all[] = "project";
    enum { SECONDS = 4 }; /* more than recording takes until the first product is begun */
    dp_model *m = shared_model(t);
    late_rows late = { .seconds = 0 };
    size_t n = 1, n_left = 0, n_again = 1;
    if (m == NULL) return;
    test_row(t, "no time");
    tune_options how = { .quick = true, .only = all, .each = see_late, .user = &late };
    CHECK(t, tune(t, m, &how, &n) && n == 0);
    CHECK(t, late.rows.n == 0 && m->tuned.n == 0);
    test_row(t, "time for one product");
    how.seconds = late.seconds = SECONDS;
    CHECK(t, tune(t, m, &how, &n) && n == 1 && m->tuned.n == 1);
    const char *first = late.rows.n > 0 ? late.rows.rows[0].product : "";
    for (size_t i = 0; i < min_u64(late.rows.n, ROWS_MAX); i++)
        CHECK_STR(t, str_of(late.rows.rows[i].product), first);
    test_row(t, "time for all");
    seen_rows seen = { .n = 0 };
    how = (tune_options){ .quick = true, .seconds = 600, .only = all, .each = see, .user = &seen };
    CHECK(t, tune(t, m, &how, &n_left) && n_left > 1 && m->tuned.n == 1 + n_left);
    for (size_t i = 0; i < min_u64(seen.n, ROWS_MAX); i++)
        CHECK(t, strcmp(seen.rows[i].product, first) != 0);
    CHECK(t, tune(t, m, &how, &n_again) && n_again == 0);
    forget(m);
}

static void tuning_needs_an_idle_model(test *t) {
    dp_model *m = shared_model(t);
    if (m == NULL) return;
    const dp_token token = 5;
    dp_session *s = dp_session_new(m, &t->err);
    if (!CHECK(t, s != NULL && dp_session_eval(s, &token, 1, &t->err))) return;
    CHECK(t, !dp_model_tune(m, NULL, KEY, NULL, NULL, &t->err));
    CHECK_ERROR(t, &t->err, DP_E_ARGUMENT, "a session of it holds tokens");
    dp_session_free(s);
    CHECK(t, !dp_model_tune(m, NULL, "nothing", NULL, NULL, &t->err));
    CHECK_ERROR(t, &t->err, DP_E_ARGUMENT, "no product to tune begins with \"nothing\"");
}

/* ---- choices in use ------------------------------------------------------------------------ */

static bool logits_of(test *t, dp_model *m, float *logits) {
    const dp_token tokens[N_TOKENS] = { 5, 300, 77 };
    dp_session *s = dp_session_new(m, &t->err);
    bool ok = CHECK(t, s != NULL);
    for (int i = 0; i < N_TOKENS && ok; i++) {
        ok = CHECK(t, dp_session_eval_all(s, tokens + i, 1,
                                          logits + (size_t)i * m->config.vocab_size, &t->err));
    }
    dp_session_free(s);
    return ok;
}

static uint32_t groups_of(const dp_model *m, uint32_t call) {
    return gpu_plan_call(m->body[PASS_ONE][0], call)->groups[0].times;
}

/* A file with other shapes than the first ones, which the model takes and computes the same with:
 * sums in another order round keys and values to other half floats here and there. */
static void choices_are_used(test *t) {
    static const char *const list[][2] = {
        { "project bf16 f32 512x256 1", "rows 1, split 1, lanes 128, ahead 1" },
        { "project_add bf16 f32 256x256 1", "rows 2, split 2, lanes 512, ahead 1" },
        { "project_add bf16 f32 256x768 1", "rows 1, split 1, lanes 512, ahead 2" },
        { "project_glu bf16 f32 1536x256 1", "rows 2, split 1, lanes 512, ahead 1" },
        { "project head bf16 f32 4096x256 1", "rows 2, split 1, lanes 256, ahead 2" },
        { "attend_decode f16 4/2x64 64 1", "lanes 128" },
        { "attend_decode f32 4/2x64 64 1", "lanes 128" },
    };
    const char *folder = test_printf(t, "%s/around/tuning", test_folder(t));
    dp_model *plain = shared_model(t), *tuned = NULL;
    if (plain == NULL) return;
    for (size_t i = 0; i < ARRAY_LEN(list); i++)
        CHECK(t, tuned_put(&plain->tuned, list[i][0], list[i][1], &t->err));
    CHECK(t, tuned_write(plain, folder, &t->err));
    forget(plain);
    tuned = open_model(t, folder);
    if (tuned == NULL) return;
    for (size_t i = 0; i < ARRAY_LEN(list); i++) {
        test_row(t, "%s", list[i][0]);
        const char *shape = tuned_find(&tuned->tuned, list[i][0]);
        CHECK(t, shape != NULL && strcmp(shape, list[i][1]) == 0);
    }
    for (size_t i = 0; i < ARRAY_LEN(list); i++) {
        test_row(t, "%s is offered", list[i][0]);
        seen_rows seen = { .n = 0 };
        const tune_options how = { .only = list[i][0], .each = see, .user = &seen };
        size_t n = 0;
        bool offered = false;
        CHECK(t, tune(t, plain, &how, &n));
        for (size_t k = 0; k < seen.n; k++)
            offered |= strcmp(seen.rows[k].shape, list[i][1]) == 0;
        CHECK(t, offered || n == 0); /* keys of the cache are floats or half floats */
    }
    forget(plain);
    test_row(t, "the pass");
    dp_model_info info, untuned;
    dp_model_get_info(tuned, &info);
    dp_model_get_info(plain, &untuned);
    CHECK_U64(t, untuned.n_tuned, 0);
    CHECK_U64(t, info.n_tuned, ARRAY_LEN(list) - 1); /* the cache is of half floats or floats */
    bool differs = false;
    const uint32_t n_calls = gpu_plan_n_calls(plain->body[PASS_ONE][0]);
    CHECK_U64(t, gpu_plan_n_calls(tuned->body[PASS_ONE][0]), n_calls);
    for (uint32_t i = 0; i < n_calls; i++)
        differs |= groups_of(plain, i) != groups_of(tuned, i);
    CHECK(t, differs);
    const size_t n = (size_t)N_TOKENS * plain->config.vocab_size;
    float *want = test_floats(t, n), *got = test_floats(t, n);
    if (logits_of(t, plain, want) && logits_of(t, tuned, got)) CHECK_NMSE(t, got, want, n, 1e-8);
    dp_model_close(tuned);
}

static void check_zero(test *t, const dp_model *m, gpu_range r) {
    uint32_t *words = test_alloc(t, r.size / 4, 4);
    uint32_t any = 0;
    CHECK(t, gpu_read(m->gpu, r, words, &t->err));
    for (uint64_t i = 0; i < r.size / 4; i++)
        any |= words[i];
    CHECK_U64(t, any, 0);
}

/* Whatever was chosen; and what stood in the buffers meanwhile is gone. */
static void tuning_changes_no_result(test *t) {
    static const char *const products[] = { "project_glu", "attend_decode" };
    char path[4096];
    const char *folder = test_folder(t);
    dp_model *m = open_model(t, NULL);
    if (m == NULL) return;
    const size_t n = (size_t)N_TOKENS * m->config.vocab_size;
    float *want = test_floats(t, n), *got = test_floats(t, n);
    CHECK(t, tuned_path(m, folder, path, sizeof path, &t->err));
    CHECK(t, logits_of(t, m, want));
    for (size_t i = 0; i < ARRAY_LEN(products); i++)
        CHECK(t, dp_model_tune(m, folder, products[i], NULL, NULL, &t->err));
    CHECK(t, path_exists(path) && m->tuned.n >= 2);
    gpu_lock(m->gpu);
    check_zero(t, m, m->buffers.keys[0]);
    check_zero(t, m, m->buffers.att);
    gpu_unlock(m->gpu);
    if (logits_of(t, m, got)) CHECK_NMSE(t, got, want, n, 1e-8);
    dp_model_close(m);
}

/* ---- the file ------------------------------------------------------------------------------ */

static void put_text(test *t, const char *path, const char *text, size_t n) {
    CHECK(t, file_write_atomic(path, text, n, &t->err));
}

/* `from` in the text becomes `to`; the text has it. */
static const char *replaced(test *t, const char *text, const char *from, const char *to) {
    const char *at = strstr(text, from);
    if (!CHECK_MSG(t, at != NULL, "no %s in the file", from)) return text;
    return test_printf(t, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
}

static void damaged_files_are_ignored(test *t) {
    static const struct {
        const char *from, *to;
    } damage[] = {
        { "{\"format\"", "{\"format\":1,\"format\"" },
        { "\"format\":1", "\"format\":2" },
        { "\"format\":1", "\"format\":\"1\"" },
        { ", kernels ", ", kernels 0" },
        { "\"device\":\"", "\"device\":[\"" },
        { "\"device\":", "\"advice\":" },
        { "\"choices\":{", "\"choices\":[{" },
        { "\"choices\":", "\"voices\":" },
        { "\"project bf16", "\"\\u0000project bf16" },
        { "\"project bf16", "\"\":\"rows\",\"project bf16" },
        { "\"rows 1", "\"\\u0000rows 1" },
        { "\"rows 1", "\"rows 1 of a name that is longer than any that there is" },
        { "\"" OTHER "\"", "\"\"" },
        { "\"" OTHER "\"", "[1,2,256,1]" },
        { "\"" OTHER "\"", "1" },
        { "\n}", ",\"" KEY "\":\"rows 1\"\n}" },
        { "}}", "}" },
        { "}}", "}}x" },
    };
    const char *folder = test_folder(t);
    char path[4096];
    dp_model *m = shared_model(t);
    if (m == NULL) return;
    CHECK(t, tuned_put(&m->tuned, KEY, OTHER, &t->err));
    CHECK(t, tuned_write(m, folder, &t->err));
    if (!CHECK(t, tuned_path(m, folder, path, sizeof path, &t->err))) return;
    const str whole = test_read_file(t, path);
    const char *text = test_printf(t, "%.*s", (int)whole.size, whole.data);
    for (size_t i = 0; i < ARRAY_LEN(damage); i++) {
        test_row(t, "%s instead of %s", damage[i].to, damage[i].from);
        const char *bad = replaced(t, text, damage[i].from, damage[i].to);
        put_text(t, path, bad, strlen(bad));
        forget(m);
        CHECK(t, tuned_read(m, folder, &t->err));
        CHECK(t, tuned_find(&m->tuned, KEY) == NULL);
    }
    for (size_t n = 0; n < whole.size - 1; n += 13) {
        test_row(t, "cut to %zu bytes", n);
        put_text(t, path, text, n);
        CHECK(t, tuned_read(m, folder, &t->err));
        CHECK(t, tuned_find(&m->tuned, KEY) == NULL);
    }
    test_row(t, "too large");
    char *large = test_alloc(t, (1 << 20) + 1, 1);
    memset(large, ' ', (1 << 20) + 1);
    memcpy(large, text, whole.size);
    put_text(t, path, large, (1 << 20) + 1);
    CHECK(t, tuned_read(m, folder, &t->err) && tuned_find(&m->tuned, KEY) == NULL);
    test_row(t, "as it was");
    put_text(t, path, text, whole.size);
    CHECK(t, tuned_read(m, folder, &t->err) && tuned_find(&m->tuned, KEY) != NULL);
    forget(m);
}

/* What another model or process has put into the file stays in it. */
static void files_are_shared(test *t) {
    static const char other[] = "project q4_k q8 64x64 1";
    const char *folder = test_folder(t);
    dp_model *m = shared_model(t);
    if (m == NULL) return;
    CHECK(t, tuned_put(&m->tuned, other, "any", &t->err) && tuned_write(m, folder, &t->err));
    forget(m);
    CHECK(t, tuned_put(&m->tuned, KEY, OTHER, &t->err) && tuned_write(m, folder, &t->err));
    forget(m);
    CHECK(t, tuned_read(m, folder, &t->err));
    CHECK(t, tuned_find(&m->tuned, KEY) != NULL && tuned_find(&m->tuned, other) != NULL);
    forget(m);
}

/* ---- shapes that an operation offers -------------------------------------------------------- */

static void offer(tuned_question *q, const char *name, double cost) {
    tuned_shape s = { .cost = cost };
    snprintf(s.name, sizeof s.name, "%s", name);
    tuned_offer(q, &s);
}

static void the_cheapest_are_offered(test *t) {
    tuned_question q = { .n = 0 };
    offer(&q, "b", 2);
    offer(&q, "c", 2);
    offer(&q, "a", 1);
    offer(&q, "b", 0); /* is there */
    CHECK_U64(t, q.n, 3);
    CHECK_STR(t, str_of(q.shapes[0].name), "a");
    CHECK_STR(t, str_of(q.shapes[1].name), "b");
    CHECK_STR(t, str_of(q.shapes[2].name), "c");
    for (uint32_t i = 0; i < TUNED_SHAPES; i++)
        offer(&q, test_printf(t, "%u", i), 1.5 - 0.125 * i);
    CHECK_U64(t, q.n, TUNED_SHAPES);
    for (uint32_t i = 1; i < q.n; i++)
        CHECK(t, q.shapes[i - 1].cost <= q.shapes[i].cost);
    CHECK_STR(t, str_of(q.shapes[0].name), test_printf(t, "%d", TUNED_SHAPES - 1));
    CHECK_STR(t, str_of(q.shapes[TUNED_SHAPES - 5].name), "a");
    CHECK_STR(t, str_of(q.shapes[TUNED_SHAPES - 1].name), "1");
}

/* A name in the file that the operation does not offer, as of another version, is not taken. */
static void only_what_is_offered_is_taken(test *t) {
    static const char *const names[] = { "first", "second", "third", "", "secon" };
    static const uint32_t want[] = { 0, 1, 0, 0, 0 };
    dp_model *m = shared_model(t);
    if (m == NULL) return;
    recorder r = { .m = m, .err = &t->err };
    tuned_question q = { .key = KEY };
    offer(&q, "first", 1);
    offer(&q, "second", 2);
    CHECK(t, tuned_choice(&r, &q) == &q.shapes[0]);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        test_row(t, "%s", names[i]);
        CHECK(t, tuned_put(&m->tuned, KEY, names[i], &t->err));
        CHECK(t, tuned_choice(&r, &q) == &q.shapes[want[i]]);
    }
    forget(m);
}

/* ---- on a GPU ------------------------------------------------------------------------------ */

/* Products that a software GPU has not got: of a few rows that are fused, of prompts in bytes. */
static void products_of_a_gpu_are_compared(test *t) {
    static const struct {
        const char *products;
        uint32_t spoilt;
    } list[] = {
        { "matmul_q8 q4_k", 0 },
        { "matmul_q8 q4_k", 2 },
        { "matmul_q8 add q4_k", 1 },
        { "project_add q4_k q8 256x256 8", 2 },
        { "project_glu q4_k q8 512x256 16", 1 },
        { "attend_whole f16", 1 },
    };
    if (SANITIZED) SKIP(t, "sanitized: what it calls, the others have called");
    const dp_device_options posing = test_device_options();
    dp_device *d = test_open_as_gpu(t, &posing);
    dp_model *m = d != NULL ? open_on(t, d, test_vector(t, Q4_K_M), NULL) : NULL;
    if (!CHECK(t, m != NULL)) return;
    const dp_device_info *info = gpu_info(m->gpu);
    const bool has_all = m->shapes.int8 && m->shapes.f16 && info->subgroups && !matrix_is_used(m);
    for (size_t i = 0; i < ARRAY_LEN(list) && has_all; i++) {
        test_row(t, "%s, spoilt shape %u", list[i].products, list[i].spoilt);
        CHECK(t, check_spoilt(t, m, list[i].products, list[i].spoilt) > 0);
    }
    dp_model_close(m);
    dp_device_close(d);
    if (!has_all) SKIP(t, "the device lacks half floats, subgroups or int8, or has matrix units");
}

/* A model that is opened on a GPU measures a little of what is not known, keeps it, and the next
 * one goes on from there. */
static void opening_tunes(test *t) {
    if (SANITIZED) SKIP(t, "sanitized: what it calls, the others have called");
    const char *folder = test_folder(t), *path = test_vector(t, "models/llama-bias");
    const dp_device_options posing = test_device_options();
    dp_device *d = test_open_as_gpu(t, &posing);
    if (!CHECK(t, d != NULL)) return;
    size_t known = 0;
    for (int i = 0; i < 2; i++) {
        test_row(t, "opened for the %s time", i == 0 ? "first" : "second");
        dp_model *m = open_on(t, d, path, folder);
        if (m == NULL) break;
        const size_t n = m->tuned.n;
        CHECK(t, n > 0 && n >= known);
        forget(m);
        CHECK(t, tuned_read(m, folder, &t->err));
        CHECK_U64(t, m->tuned.n, n); /* all of it was kept */
        known = n;
        dp_model_close(m);
    }
    dp_device_close(d);
}

static const test_case cases[] = {
    { "a wrong shape is not chosen", a_wrong_shape_is_not_chosen },
    { "bytes are compared", bytes_are_compared },
    { "experts are compared", experts_are_compared },
    { "bytes of experts are compared", bytes_of_experts_are_compared },
    { "one span and several are tuned", one_span_and_several_are_tuned },
    { "tuning can be cancelled", tuning_can_be_cancelled },
    { "known products are left out", known_products_are_left_out },
    { "tuning ends in time", tuning_ends_in_time },
    { "tuning needs an idle model", tuning_needs_an_idle_model },
    { "choices are used", choices_are_used },
    { "tuning changes no result", tuning_changes_no_result },
    { "damaged files are ignored", damaged_files_are_ignored },
    { "files are shared", files_are_shared },
    { "the cheapest are offered", the_cheapest_are_offered },
    { "only what is offered is taken", only_what_is_offered_is_taken },
    { "products of a GPU are compared", products_of_a_gpu_are_compared },
    { "opening tunes", opening_tunes },
};
const test_group tune_tests = { "tune", cases, ARRAY_LEN(cases) };
