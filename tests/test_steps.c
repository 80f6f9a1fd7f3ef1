/* Chains of steps: what is queued ahead never shows.
 *
 * A small model answers by submits of a few steps, the next queued before the last is read, and is
 * stopped in every place of two submits, by every means; tokens, logits and what is drawn next are
 * then those of a session that went by single steps. Equal means to the bit: the kernels are the
 * same. At the end what a step's one row has of its own, attention in one span. */
#include "model/generate_internal.h"
#include "model/pass_internal.h"
#include "tests/test.h"

#include <math.h>

enum { LENGTH = 11, MORE = 3, STEPS = 3, VOCAB = 320 };
static const dp_token PROMPT[] = { 1, 17, 201, 44, 90 };

static const dp_sampling GREEDY = { .temperature = 0, .repeat_penalty = 1.2f };
static const dp_sampling FILTERED = {
    .temperature = 1.5f, .top_k = 40, .top_p = 0.9f, .repeat_penalty = 1.3f, .seed = 77
};
static const dp_sampling PENALISED = { .temperature = 1.2f,
                                       .min_p = 0.01f,
                                       .presence_penalty = 0.4f,
                                       .frequency_penalty = 0.3f,
                                       .seed = 5 };

/* ---- single steps -------------------------------------------------------------------------- */

static void *open_device(test *t) {
    const dp_device_options options = test_device_options();
    return dp_device_open(&options, &t->err);
}

static void close_device(void *device) {
    dp_device_close(device);
}

static dp_model *open_model(test *t) {
    dp_device *device = test_shared(t, "device of the steps", open_device, close_device);
    const dp_model_options options = { .context = 512, .batch = 16, .sessions = 4 };
    const char *path = test_vector(t, "gguf/llama2-mha-f32/model.gguf");
    dp_model *m = device != NULL ? dp_model_open(device, path, &options, &t->err) : NULL;
    CHECK_MSG(t, m != NULL && m->config.vocab_size == VOCAB, "%s", t->err.message);
    return m;
}

/* The model's first stop token becomes another one. */
static void set_stop(test *t, dp_model *m, dp_token token) {
    size_t n = 0;
    dp_token *stops = (dp_token *)(uintptr_t)model_stops(m, &n);
    if (!CHECK(t, n > 0)) return;
    stops[0] = token;
    gpu_lock(m->gpu);
    CHECK(t, gpu_write(m->gpu, gpu_part(m->buffers.stops, 4, 4), &token, &t->err));
    gpu_unlock(m->gpu);
}

/* A session that has drawn and evaluated n tokens; they go to tokens. NULL: it failed. */
static dp_session *step_by_step(test *t, dp_model *m, const dp_sampling *how, uint32_t n,
                                dp_token *tokens) {
    dp_session *s = dp_session_new(m, &t->err);
    /* the last alone: taking back evaluates it so, and passes of more rows have other kernels */
    enum { FIRST = ARRAY_LEN(PROMPT) - 1 };
    bool ok = CHECK(t, s != NULL) && CHECK(t, dp_session_eval(s, PROMPT, FIRST, &t->err)) &&
              CHECK(t, dp_session_eval(s, PROMPT + FIRST, 1, &t->err)) &&
              CHECK(t, dp_session_set_sampling(s, how, &t->err));
    for (uint32_t i = 0; i < n && ok; i++) {
        ok = CHECK(t, dp_session_sample(s, &tokens[i], &t->err)) &&
             CHECK(t, dp_session_eval(s, &tokens[i], 1, &t->err));
    }
    if (!ok) dp_session_free(s);
    return ok ? s : NULL;
}

/* Are the sessions the same: tokens, logits, the next draws? `skip` more numbers are used up in
 * the one that went by steps. */
static void check_same(test *t, dp_session *got, dp_session *want, uint32_t skip) {
    size_t n_got, n_want;
    const dp_token *a = dp_session_tokens(got, &n_got), *b = dp_session_tokens(want, &n_want);
    if (!CHECK_U64(t, n_got, n_want)) return;
    CHECK(t, memcmp(a, b, n_got * sizeof *a) == 0);
    float x[VOCAB], y[VOCAB];
    CHECK(t, dp_session_get_logits(got, x, &t->err));
    CHECK(t, dp_session_get_logits(want, y, &t->err));
    CHECK(t, memcmp(x, y, sizeof x) == 0);
    dp_token next[2];
    for (uint32_t i = 0; i < skip; i++)
        CHECK(t, dp_session_sample(want, &next[0], &t->err));
    for (uint32_t i = 0; i < MORE; i++) {
        if (!CHECK(t, dp_session_sample(got, &next[0], &t->err)) ||
            !CHECK(t, dp_session_sample(want, &next[1], &t->err)) ||
            !CHECK(t, dp_session_eval(got, &next[0], 1, &t->err)) ||
            !CHECK(t, dp_session_eval(want, &next[1], 1, &t->err))) {
            return;
        }
        CHECK_MSG(t, next[0] == next[1], "draw %u behind it: %u, by steps %u", i, next[0], next[1]);
    }
}

/* ---- what is told on the way --------------------------------------------------------------- */

typedef struct {
    test *t;
    dp_session *session, *other; /* to cancel; to use in between */
    dp_token tokens[LENGTH + STEPS];
    uint32_t n, cancel_at, other_at;
} told;

static void take_token(void *user, dp_token token, float logprob, const dp_logprob *best) {
    (void)logprob, (void)best;
    told *o = user;
    if (o->n < ARRAY_LEN(o->tokens)) o->tokens[o->n] = token;
    o->n++;
    if (o->n == o->cancel_at) dp_session_cancel(o->session);
    if (o->other != NULL && o->n % 2 == o->other_at) { /* another pass over the same buffers */
        dp_token next = 0;
        CHECK(o->t, dp_session_sample(o->other, &next, &o->t->err));
        CHECK(o->t, dp_session_eval(o->other, &next, 1, &o->t->err));
    }
}

static dp_session *answer(test *t, dp_model *m, const dp_sampling *how, uint32_t max_tokens,
                          uint32_t steps, told *o, dp_generate_result *r) {
    o->t = t;
    dp_session *s = o->session = step_by_step(t, m, how, 0, NULL);
    const dp_generate_options options = {
        .max_tokens = max_tokens, .steps = steps, .on_token = take_token, .user = o
    };
    if (s == NULL || CHECK(t, dp_generate(s, &options, r, &t->err))) return s;
    dp_session_free(s);
    return NULL;
}

/* ---- cases --------------------------------------------------------------------------------- */

/* Where the token at that place stands first. */
static uint32_t first_place(const dp_token *all, uint32_t at) {
    uint32_t first = 0;
    while (all[first] != all[at])
        first++;
    return first;
}

/* A stop token in every place of the first submits: it is reported and not appended. */
static void stop_tokens_end_anywhere(test *t) {
    dp_model *m = open_model(t);
    const dp_sampling *const hows[] = { &GREEDY, &FILTERED };
    uint32_t n_places = 0;
    for (size_t h = 0; h < ARRAY_LEN(hows) && m != NULL; h++) {
        dp_token all[LENGTH];
        set_stop(t, m, DP_NO_TOKEN);
        dp_session_free(step_by_step(t, m, hows[h], LENGTH, all));
        for (uint32_t at = 0; at < LENGTH; at++) {
            if (first_place(all, at) != at) continue; /* it would end earlier */
            n_places++;
            test_row(t, "setting %zu, a stop at %u", h, at);
            set_stop(t, m, all[at]);
            told o = { 0 };
            dp_generate_result r = { 0 };
            dp_token scratch[LENGTH];
            dp_session *got = answer(t, m, hows[h], LENGTH + 5, STEPS, &o, &r);
            dp_session *want = step_by_step(t, m, hows[h], at, scratch);
            if (got != NULL && want != NULL) {
                CHECK(t, r.finish == DP_FINISH_STOP && r.n_tokens == at + 1 && o.n == at + 1);
                CHECK(t, memcmp(o.tokens, all, (at + 1) * sizeof *all) == 0);
                check_same(t, got, want, 1);
            }
            dp_session_free(got);
            dp_session_free(want);
        }
    }
    CHECK_MSG(t, n_places >= 12, "only %u places", n_places);
    dp_model_close(m);
}

/* Behind the submit that has met a stop token is one more at most. */
static void a_stop_wastes_one_submit(test *t) {
    dp_model *m = open_model(t);
    if (m == NULL) return;
    dp_token all[LENGTH];
    set_stop(t, m, DP_NO_TOKEN);
    dp_session_free(step_by_step(t, m, &GREEDY, LENGTH, all));
    for (uint32_t at = 0; at < LENGTH; at++) {
        const uint32_t first = first_place(all, at);
        test_row(t, "a stop at %u", at);
        set_stop(t, m, all[at]);
        dp_session *s = step_by_step(t, m, &GREEDY, 0, NULL);
        const dp_generate_options options = { .max_tokens = LENGTH + 10 * STEPS, .steps = STEPS };
        const uint64_t before = gpu_stats(m->gpu)->submits;
        dp_generate_result r = { 0 };
        CHECK(t, s != NULL && dp_generate(s, &options, &r, &t->err));
        CHECK(t, r.finish == DP_FINISH_STOP && r.n_tokens == first + 1);
        CHECK(t, gpu_stats(m->gpu)->submits - before <= first / STEPS + 2);
        dp_session_free(s);
    }
    dp_model_close(m);
}

static void limits_end_anywhere(test *t) {
    dp_model *m = open_model(t);
    if (m == NULL) return;
    set_stop(t, m, DP_NO_TOKEN);
    for (uint32_t n = 1; n <= 8; n++) {
        test_row(t, "%u tokens", n);
        told o = { 0 };
        dp_generate_result r = { 0 };
        dp_token all[LENGTH];
        /* steps by itself: of the time that a step takes here */
        dp_session *got = answer(t, m, &PENALISED, n, n % 2 == 0 ? STEPS : 0, &o, &r);
        dp_session *want = step_by_step(t, m, &PENALISED, n, all);
        if (got != NULL && want != NULL) {
            CHECK(t, r.finish == DP_FINISH_LENGTH && r.n_tokens == n && o.n == n);
            CHECK(t, memcmp(o.tokens, all, n * sizeof *all) == 0);
            check_same(t, got, want, 0);
        }
        dp_session_free(got);
        dp_session_free(want);
    }
    dp_model_close(m);
}

/* Cancelled at a token: the session holds that token's submit and nothing of the next. */
static void cancelling_ends_anywhere(test *t) {
    dp_model *m = open_model(t);
    if (m == NULL) return;
    set_stop(t, m, DP_NO_TOKEN);
    for (uint32_t at = 1; at <= 7; at++) {
        test_row(t, "cancelled at %u", at);
        told o = { .cancel_at = at };
        dp_generate_result r = { 0 };
        dp_token all[LENGTH];
        const uint32_t n = ceil_div(at, STEPS) * STEPS;
        dp_session *got = answer(t, m, &PENALISED, 40, STEPS, &o, &r);
        dp_session *want = step_by_step(t, m, &PENALISED, n, all);
        if (got != NULL && want != NULL) {
            CHECK(t, r.finish == DP_FINISH_CANCELLED);
            CHECK_U64(t, r.n_tokens, n);
            CHECK(t, o.n == n && memcmp(o.tokens, all, n * sizeof *all) == 0);
            check_same(t, got, want, 0);
        }
        dp_session_free(got);
        dp_session_free(want);
    }
    dp_model_close(m);
}

/* Another session's passes between two submits take the buffers away: neither notices, also when
 * what was queued is then given up. */
static void other_sessions_come_between(test *t) {
    dp_model *m = open_model(t);
    if (m == NULL) return;
    set_stop(t, m, DP_NO_TOKEN);
    for (uint32_t run = 0; run < 4; run++) {
        test_row(t, "run %u", run);
        dp_token all[LENGTH], others[2 * LENGTH], scratch[LENGTH];
        dp_session *other = step_by_step(t, m, &FILTERED, 2, scratch);
        told o = { .other = other, .other_at = run % 2, .cancel_at = run < 2 ? 0 : 4 };
        dp_generate_result r = { 0 };
        dp_session *got = answer(t, m, &PENALISED, 9, STEPS, &o, &r);
        const uint32_t n = run < 2 ? 9 : 6;
        dp_session *want = step_by_step(t, m, &PENALISED, n, all);
        if (got != NULL && want != NULL && other != NULL) {
            CHECK_U64(t, r.n_tokens, n);
            CHECK(t, memcmp(o.tokens, all, n * sizeof *all) == 0);
            check_same(t, got, want, 0);
        }
        dp_session_free(want);
        dp_session_free(got);
        size_t n_other = 0;
        if (other != NULL) (void)dp_session_tokens(other, &n_other);
        want = step_by_step(t, m, &FILTERED, (uint32_t)(n_other - ARRAY_LEN(PROMPT)), others);
        CHECK(t, n_other > ARRAY_LEN(PROMPT) + 2);
        if (want != NULL && other != NULL) check_same(t, other, want, 0);
        dp_session_free(want);
        dp_session_free(other);
    }
    dp_model_close(m);
}

/* Three sessions over several submits, one of them stopped on the way, each as alone. */
static void batches_over_several_submits(test *t) {
    enum { N = 3, MANY = 45 };
    dp_model *m = open_model(t);
    if (m == NULL) return;
    const dp_sampling *const hows[N] = { &FILTERED, &PENALISED, &GREEDY };
    static dp_token tokens[N * MANY], alone[MANY];
    set_stop(t, m, DP_NO_TOKEN);
    dp_session *s[N];
    for (uint32_t i = 0; i < N; i++)
        s[i] = step_by_step(t, m, hows[i], 0, NULL);
    uint32_t counts[N], count = 0;
    CHECK(t, dp_batch_generate(s, N, MANY, false, tokens, counts, &t->err));
    for (uint32_t i = 0; i < N; i++) {
        CHECK_U64(t, counts[i], MANY);
        dp_session_free(s[i]);
    }
    set_stop(t, m, tokens[20]); /* of the first session, in its second submit or before */
    static dp_token stopped[N * MANY];
    for (uint32_t i = 0; i < N; i++)
        s[i] = step_by_step(t, m, hows[i], 0, NULL);
    CHECK(t, dp_batch_generate(s, N, MANY, false, stopped, counts, &t->err));
    CHECK(t, counts[0] <= 21);
    for (uint32_t i = 0; i < N; i++) {
        test_row(t, "session %u", i);
        size_t n = 0;
        (void)dp_session_tokens(s[i], &n);
        CHECK_U64(t, n, ARRAY_LEN(PROMPT) + counts[i] - (counts[i] < MANY));
        CHECK(t, memcmp(stopped + i * MANY, tokens + i * MANY, counts[i] * sizeof *tokens) == 0);
        dp_session *want = step_by_step(t, m, hows[i], 0, NULL);
        CHECK(t, dp_batch_generate(&want, 1, MANY, false, alone, &count, &t->err));
        CHECK_U64(t, count, counts[i]);
        CHECK(t, memcmp(alone, stopped + i * MANY, count * sizeof *alone) == 0);
        dp_session_free(want);
        dp_session_free(s[i]);
    }
    dp_model_close(m);
}

/* 128 tokens: submits of 4, 8, 16, 32, 64 and 4, a count each and four bytes a token; streamed: no
 * more than 8 bytes a token even if each comes alone. */
static void submits_and_bytes_are_few(test *t) {
    dp_model *m = open_model(t);
    if (m == NULL) return;
    set_stop(t, m, DP_NO_TOKEN);
    static dp_token tokens[128];
    dp_session *s = step_by_step(t, m, &GREEDY, 0, NULL);
    uint32_t count = 0;
    dp_stats before = *gpu_stats(m->gpu);
    CHECK(t, dp_batch_generate(&s, 1, 128, true, tokens, &count, &t->err));
    CHECK_U64(t, gpu_stats(m->gpu)->submits - before.submits, 6);
    CHECK_U64(t, gpu_stats(m->gpu)->bytes_read - before.bytes_read, 4 * (128 + 6));
    dp_session_free(s);
    told o = { 0 };
    dp_generate_result r = { 0 };
    before = *gpu_stats(m->gpu);
    dp_session_free(answer(t, m, &GREEDY, 10, 1, &o, &r));
    CHECK_U64(t, gpu_stats(m->gpu)->bytes_read - before.bytes_read, 8 * 10);
    dp_model_close(m);
}

/* Generations at the same time, of all kinds, begun one after the other and never waited for: each
 * gets what it gets alone, and one that is cancelled takes nothing from the others. */
static void generations_run_together(test *t) {
    enum { N = 4, MANY = 24, CANCELLED = 1 };
    dp_model *m = open_model(t);
    if (m == NULL) return;
    const dp_sampling *const hows[N] = { &FILTERED, &PENALISED, &GREEDY, &FILTERED };
    static told alone[N], together[N];
    dp_session *s[N];
    dp_generation *g[N] = { 0 };
    dp_generate_options options[N];
    set_stop(t, m, DP_NO_TOKEN);
    for (uint32_t i = 0; i < N; i++) {
        options[i] = (dp_generate_options){ .max_tokens = 11 - i,
                                            .steps = STEPS,
                                            .n_logprobs = i == 3 ? 2 : 0,
                                            .on_token = take_token,
                                            .user = &alone[i] };
        alone[i] = together[i] = (told){ .t = t };
        dp_session *one = step_by_step(t, m, hows[i], 0, NULL);
        CHECK(t, one != NULL && dp_generate(one, &options[i], NULL, &t->err));
        dp_session_free(one);
    }
    dp_scheduler *all = dp_scheduler_new(m, &t->err);
    CHECK(t, all != NULL && !dp_scheduler_step(all, true)); /* nothing runs */
    for (uint32_t i = 0; i < N; i++) {
        s[i] = step_by_step(t, m, hows[i], 0, NULL);
        options[i].user = &together[i];
        together[i].session = s[i];
        together[i].cancel_at = i == CANCELLED ? STEPS + 1 : 0;
        g[i] = dp_generation_new(all, s[i], &options[i], &t->err);
        if (!CHECK(t, g[i] != NULL)) return;
        CHECK(t, dp_generation_new(all, s[i], NULL, NULL) == NULL); /* it runs */
        (void)dp_scheduler_step(all, i % 2 == 0);                   /* it may be done by then */
    }
    while (dp_scheduler_step(all, false)) {
    }
    for (uint32_t i = 0; i < N; i++) {
        test_row(t, "generation %u", i);
        dp_generate_result r = { 0 };
        CHECK(t, dp_generation_ended(g[i]));
        CHECK(t, dp_generation_result(g[i], &r, &t->err));
        CHECK(t, r.n_tokens == together[i].n);
        if (i == CANCELLED) {
            CHECK(t, r.finish == DP_FINISH_CANCELLED && together[i].n < alone[i].n);
        } else {
            CHECK(t, r.finish == DP_FINISH_LENGTH);
            CHECK_U64(t, together[i].n, alone[i].n);
        }
        CHECK(t, memcmp(together[i].tokens, alone[i].tokens,
                        together[i].n * sizeof alone[i].tokens[0]) == 0);
        size_t n = 0;
        (void)dp_session_tokens(s[i], &n);
        CHECK_U64(t, n, ARRAY_LEN(PROMPT) + together[i].n);
        dp_generation_free(g[i]);
    }
    /* one that is given up in the middle leaves its session usable */
    CHECK(t, dp_session_set_sampling(s[0], &GREEDY, &t->err));
    g[0] = dp_generation_new(all, s[0], NULL, &t->err);
    if (CHECK(t, g[0] != NULL)) (void)dp_scheduler_step(all, false);
    dp_generation_free(g[0]);
    dp_scheduler_free(all);
    dp_token next = 0;
    CHECK(t, dp_session_sample(s[0], &next, &t->err));
    for (uint32_t i = 0; i < N; i++)
        dp_session_free(s[i]);
    dp_model_close(m);
}

/* A session evaluated anew goes on as the lost one would have, in every place, and tells its answer
 * from the beginning. */
static void answers_go_on_in_another_session(test *t) {
    dp_model *m = open_model(t);
    if (m == NULL) return;
    static const dp_sampling *const hows[] = { &GREEDY, &FILTERED, &PENALISED };
    set_stop(t, m, DP_NO_TOKEN);
    for (size_t h = 0; h < ARRAY_LEN(hows); h++) {
        told whole = { .t = t };
        dp_generate_result r = { 0 };
        dp_session_free(answer(t, m, hows[h], LENGTH, STEPS, &whole, &r));
        for (uint32_t held = 1; held < LENGTH; held += 3) {
            test_row(t, "setting %zu, %u held", h, held);
            told again = { .t = t };
            const dp_generate_options options = {
                .max_tokens = LENGTH, .n_answered = held, .on_token = take_token, .user = &again
            };
            dp_session *s = step_by_step(t, m, hows[h], 0, NULL);
            for (uint32_t i = 0; i < held; i++)
                CHECK(t, dp_session_eval(s, &whole.tokens[i], 1, &t->err));
            CHECK(t, !dp_session_resume(s, 1000, NULL));
            CHECK(t, dp_session_set_sampling(s, hows[h], &t->err));
            CHECK(t, dp_session_resume(s, held, &t->err));
            CHECK(t, dp_generate(s, &options, &r, &t->err));
            CHECK(t, r.n_tokens == LENGTH && again.n == LENGTH);
            CHECK(t, memcmp(again.tokens, whole.tokens, LENGTH * sizeof whole.tokens[0]) == 0);
            dp_session_free(s);
        }
    }
    dp_model_close(m);
}

/* 44 tokens by generations of up to 32 steps a submit: 4, 8, 16, 16. */
static void submits_double(test *t) {
    dp_model *m = open_model(t);
    if (m == NULL) return;
    set_stop(t, m, DP_NO_TOKEN);
    dp_session *s = step_by_step(t, m, &GREEDY, 0, NULL);
    const dp_generate_options options = { .max_tokens = 44, .steps = 32 };
    const dp_stats before = *gpu_stats(m->gpu);
    dp_generate_result r = { 0 };
    CHECK(t, dp_generate(s, &options, &r, &t->err));
    CHECK_U64(t, r.n_tokens, 44);
    CHECK_U64(t, gpu_stats(m->gpu)->submits - before.submits, 4);
    dp_session_free(s);
    dp_model_close(m);
}

/* Where nobody says how many steps a submit has: on a made-up device whose steps and submits take
 * so long, the first is one and each at most twice the one before; from the fourth on, before which
 * the second was measured, text comes within 25 ms, or twice what a submit takes by itself; from
 * the fifth on, when both times are known, no sooner than it must. */
static void submits_keep_to_the_pace(test *t) {
    static const double steps[] = { 1e-5, 1e-4, 7e-4, 3e-3, 9e-3, 24e-3, 26e-3, 0.2 };
    static const double submits[] = { 0, 1e-4, 2e-3, 12e-3, 13e-3, 24e-3, 0.1 };
    enum { MOST = 32, TURNS = 12 };
    static dp_model m;
    for (size_t i = 0; i < ARRAY_LEN(steps) * ARRAY_LEN(submits); i++) {
        const double step = steps[i % ARRAY_LEN(steps)], submit = submits[i / ARRAY_LEN(steps)];
        const double bound = fmax(25e-3, 2 * submit);
        memset(&m.pace, 0, sizeof m.pace);
        for (uint32_t turn = 0, last = 0; turn < TURNS; turn++) {
            test_row(t, "a step of %g s, a submit of %g, number %u", step, submit, turn);
            const uint32_t n = steps_of_submit(m.pace.step, m.pace.submit, 0, last);
            const uint32_t most = turn == 0 ? 1 : min_u32(2 * last, MOST);
            const double seconds = submit + n * step;
            CHECK(t, n >= 1 && n <= most);
            CHECK(t, turn < 3 || n == 1 || seconds <= bound + 1e-9);
            CHECK(t, turn < 4 || n == most || seconds + step >= bound - 1e-9);
            /* it is queued while the one before runs, of which the first is not measured */
            if (turn > 1) chain_note_pace(&m, submit + last * step, last);
            last = n;
        }
    }
    test_row(t, "as asked");
    static const uint32_t list[][3] = { /* asked, the last one's, this one's */
                                        { 1, 0, 1 },   { 15, 0, 15 },  { 16, 0, 4 },   { 32, 4, 8 },
                                        { 32, 8, 16 }, { 32, 16, 32 }, { 32, 32, 32 }, { 5, 5, 5 }
    };
    for (size_t i = 0; i < ARRAY_LEN(list); i++)
        CHECK_U64(t, steps_of_submit(1, 1, list[i][0], list[i][1]), list[i][2]);
}

/* ---- attention of one row in one span ------------------------------------------------------ */

/* Either the call for one span has workgroups, or those for several and for their joining. */
static void one_row_has_one_span_or_several(test *t) {
    static const struct {
        uint32_t n_rows, longest, whole_keys, splits, combine, whole;
    } list[] = {
        { 1, 1, 256, 1, 0, 1 },   { 1, 256, 256, 1, 0, 1 },  { 1, 257, 256, 5, 1, 0 },
        { 2, 128, 256, 1, 0, 0 }, { 2, 256, 256, 4, 1, 0 },  { 1, 128, 0, 1, 0, 0 },
        { 1, 129, 0, 3, 1, 0 },   { 1, 2000, 256, 8, 1, 0 },
    };
    static dp_model m;
    for (size_t i = 0; i < ARRAY_LEN(list); i++) {
        test_row(t, "%u rows, %u keys, of %u", list[i].n_rows, list[i].longest, list[i].whole_keys);
        m.shapes = (shapes){ .span = 64, .n_splits = 8, .whole_keys = list[i].whole_keys };
        const pass p = { .m = &m, .n_rows = list[i].n_rows, .longest = list[i].longest };
        const gpu_sizes sizes = pass_sizes(&p);
        CHECK_U64(t, sizes.n[SIZE_SPLITS], list[i].splits);
        CHECK_U64(t, sizes.n[SIZE_COMBINE], list[i].combine);
        CHECK_U64(t, sizes.n[SIZE_WHOLE], list[i].whole);
    }
}

/* Also on a software GPU, which has it only if it must. Sums in another order round keys and values
 * to other half floats here and there. */
static void one_span_is_as_any(test *t) {
    enum { KEYS = 70 };
    dp_model *m = open_model(t);
    if (m == NULL) return;
    if (!gpu_info(m->gpu)->subgroups) SKIP(t, "the device has no subgroups");
    float *rows[2];
    for (int whole = 0; whole < 2; whole++) {
        dp_session *s = NULL;
        rows[whole] = test_floats(t, (size_t)KEYS * VOCAB);
        m->shapes.whole_keys = whole ? m->shapes.context : 0;
        CHECK(t, forward_record_again(m, &t->err));
        CHECK(t, (s = dp_session_new(m, &t->err)) != NULL);
        for (uint32_t i = 0; i < KEYS && s != NULL; i++) {
            const dp_token token = 7 + i * 13 % 300;
            CHECK(t, dp_session_eval(s, &token, 1, &t->err));
            CHECK(t, dp_session_get_logits(s, rows[whole] + (size_t)i * VOCAB, &t->err));
        }
        dp_session_free(s);
    }
    CHECK_NMSE(t, rows[1], rows[0], (size_t)KEYS * VOCAB, 1e-8);
    CHECK(t, memcmp(rows[0], rows[1], KEYS * VOCAB * sizeof *rows[0]) != 0); /* two kernels */
    dp_model_close(m);
}

static const test_case cases[] = {
    { "generations run together", generations_run_together },
    { "answers go on in another session", answers_go_on_in_another_session },
    { "stop tokens end anywhere", stop_tokens_end_anywhere },
    { "a stop wastes one submit", a_stop_wastes_one_submit },
    { "limits end anywhere", limits_end_anywhere },
    { "cancelling ends anywhere", cancelling_ends_anywhere },
    { "other sessions come between", other_sessions_come_between },
    { "batches over several submits", batches_over_several_submits },
    { "submits and bytes are few", submits_and_bytes_are_few },
    { "submits double", submits_double },
    { "submits keep to the pace", submits_keep_to_the_pace },
    { "one row has one span or several", one_row_has_one_span_or_several },
    { "one span is as any", one_span_is_as_any },
};

const test_group steps_tests = { "steps", cases, ARRAY_LEN(cases) };
