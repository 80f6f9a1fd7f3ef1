/* bench_run: the measuring.
 *
 * A repetition is: go back to the depth, then evaluate a prompt (ppN), generate (tgN), or both
 * (ppN+tgM). Its time ends when the chosen token is on the host, never at a submit. Generation is
 * dp_generate, what `run` and every program uses, past stop tokens; the times at which it hands
 * tokens over are the arrivals that a reader sees; of several sessions dp_batch_generate, without
 * arrivals. What prepares a repetition is neither timed nor counted. */
#include "app/bench_internal.h"

#include <inttypes.h>
#include <math.h>

/* Arrivals closer than this share of the mean gap came with one submit. */
static const double BURST_SHARE = 0.1;

static void fill_random(dp_token *tokens, size_t n, uint32_t vocab) {
    uint64_t x = 0x9e3779b97f4a7c15; /* xorshift64 (Marsaglia 2003), any seed but 0 */
    for (size_t i = 0; i < n; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        tokens[i] = (dp_token)((x >> 32) % vocab);
    }
}

/* ---- a model ready to be measured ---------------------------------------------------------- */

bool bench_plan(bench *b, const options *o, uint64_t needed, dp_error *err) {
    *b = (bench){ .how = *o, .needed = needed };
    b->o = &b->how;
    b->how.profile |= o->gpu_time;
    for (size_t i = 0; i < o->parallels.n; i++)
        b->how.sessions = max_u64(b->how.sessions, o->parallels.items[i]);
    if (!engine_describe(&b->e, b->o, err) ||
        !engine_context(&b->e, b->o, needed, &b->context, err)) {
        return false;
    }
    return needed <= b->context ||
           err_set(err, DP_E_ARGUMENT,
                   "the longest test takes %" PRIu64 " tokens, the context holds %" PRIu32, needed,
                   b->context);
}

bool bench_start(bench *b, dp_error *err) {
    if (!engine_start(&b->e, b->o, b->context, err)) return false;
    b->tokens = mem_new(b->needed, sizeof(dp_token), "random tokens", err);
    if (b->tokens == NULL) return false;
    fill_random(b->tokens, b->needed, b->e.info.vocab_size);
    for (b->n_sessions = 1; b->n_sessions < b->o->sessions; b->n_sessions++) {
        b->sessions[b->n_sessions] = dp_session_new(b->e.model, err);
        if (b->sessions[b->n_sessions] == NULL) return false;
    }
    b->sessions[0] = b->e.session;
    dp_profile_set_mode(b->e.device, DP_PROFILE_STEPS); /* tests run as they always do */
    return true;
}

void bench_close(bench *b) {
    for (size_t i = 1; i < b->n_sessions; i++)
        dp_session_free(b->sessions[i]);
    b->n_sessions = 0;
    engine_close(&b->e);
    mem_free(b->tokens);
    b->tokens = NULL;
}

bool bench_rewind(const bench *b, size_t first, dp_error *err) {
    for (size_t i = first; i < b->n_sessions; i++) {
        if (!dp_session_rewind(b->sessions[i], 0, err)) return false;
    }
    return true;
}

void describe_row(const bench *b, bench_row *row, bench_test t) {
    const dp_model_info *m = &b->e.info;
    dp_device_info d;
    host_info h;
    dp_device_get_info(b->e.device, &d);
    host_describe(&h);
    memset(row, 0, sizeof(*row));
    row->version = DP_VERSION;
    row->build_commit = build_commit;
    row->model_filename = b->e.path;
    row->model_size = m->weight_bytes;
    row->model_n_params = m->n_parameters;
    row->n_gpu_layers = m->n_layers;
    row->n_batch = row->n_ubatch = b->o->batch;
    row->n_prompt = t.n_prompt;
    row->n_gen = t.n_gen;
    row->n_depth = t.n_depth;
    row->n_parallel = t.n_parallel;
    row->n_steps = t.n_parallel > 1 ? 0 : b->o->steps; /* dp_batch_generate chooses */
    row->f16 = d.f16;
    row->subgroups = d.subgroups;
    row->int8 = d.int8;
    row->matrix = d.matrix;
    row->checks = b->o->checks;
    row->tuned = m->n_tuned;
    row->load_ms = 1e3 * b->e.load_seconds;
    row->itl_ms_p50 = row->itl_ms_p90 = row->itl_ms_p99 = NAN;
    row->gpu_ms = NAN;
    snprintf(row->model_type, sizeof(row->model_type), "%s %s", m->architecture, m->format);
    snprintf(row->gpu_info, sizeof(row->gpu_info), "%s", d.name);
    snprintf(row->driver, sizeof(row->driver), "%s", d.driver);
    snprintf(row->backends, sizeof(row->backends), "%s", d.backend);
    snprintf(row->library, sizeof(row->library), "%s", d.library);
    snprintf(row->cpu_info, sizeof(row->cpu_info), "%s", h.cpu);
    snprintf(row->type_k, sizeof(row->type_k), "%s", d.f16 ? "f16" : "f32");
    snprintf(row->type_v, sizeof(row->type_v), "%s", row->type_k);
    snprintf(row->test_time, sizeof(row->test_time), "%s", time_now().iso);
    test_name(row->test, sizeof(row->test), &t);
}

/* ---- evaluating and generating ------------------------------------------------------------- */

bool bench_evaluate(const bench *b, const dp_token *tokens, size_t n, dp_error *err) {
    dp_token next;
    return dp_session_eval(b->e.session, tokens, n, err) &&
           dp_session_sample(b->e.session, &next, err);
}

gpu_time gpu_time_now(const bench *b) {
    dp_profile_phase phases[DP_PHASES];
    gpu_time t = { 0 };
    dp_device_get_phases(b->e.device, phases);
    for (size_t i = 0; i < DP_PHASES; i++) {
        t.ns += phases[i].step_nanoseconds;
        t.rows += phases[i].step_rows;
    }
    return t;
}

double gpu_time_between(gpu_time before, gpu_time after, uint64_t rows) {
    return after.rows - before.rows == rows ? 1e-6 * (double)(after.ns - before.ns) : NAN;
}

static void note_arrival(void *user, dp_token token, float logprob, const dp_logprob *best) {
    arrivals *a = user;
    (void)token, (void)logprob, (void)best;
    if (a->n < a->room) a->at[a->n++] = now_seconds();
}

bool bench_generate(const bench *b, uint64_t n, arrivals *a, dp_error *err) {
    const dp_generate_options how = {
        .max_tokens = (uint32_t)n,
        .steps = (uint32_t)b->o->steps,
        .ignore_stops = true,
        .on_token = note_arrival,
        .user = a,
    };
    dp_generate_result r;
    a->n = 0;
    a->start = now_seconds();
    if (!dp_generate(b->e.session, &how, &r, err) || !check_interrupted(err)) return false;
    return r.n_tokens == n ||
           err_set(err, DP_E_LIMIT, "generated %" PRIu32 " tokens of %" PRIu64, r.n_tokens, n);
}

void gaps_seen(const arrivals *a, double *gaps) {
    for (size_t i = 0; i + 1 < a->n; i++)
        gaps[i] = 1e3 * (a->at[i + 1] - a->at[i]);
}

void gaps_shared(const arrivals *a, double *gaps) {
    if (a->n == 0) return;
    gaps[0] = 1e3 * (a->at[0] - a->start);
    gaps_seen(a, gaps + 1);
    const double mean = 1e3 * (a->at[a->n - 1] - a->start) / (double)a->n;
    for (size_t first = 0, end; first < a->n; first = end) {
        double sum = gaps[first];
        for (end = first + 1; end < a->n && gaps[end] < BURST_SHARE * mean; end++)
            sum += gaps[end];
        for (size_t i = first; i < end; i++)
            gaps[i] = sum / (double)(end - first);
    }
}

/* ---- a test -------------------------------------------------------------------------------- */

/* Where every repetition begins: generation alone needs one token in front. */
static size_t start_of(const bench_row *row) {
    return row->n_prompt == 0 && row->n_depth == 0 ? 1 : row->n_depth;
}

/* One repetition. */
typedef struct {
    double seconds, first, cpu; /* in all; until the first token was on the host */
    gpu_time gpu;               /* before */
    dp_stats before;
    arrivals a;
} lap;

/* The sessions of the test at its depth, the others empty. */
static bool begin_test(const bench *b, const bench_row *row, dp_error *err) {
    if (!bench_rewind(b, 0, err)) return false;
    for (size_t i = 0; i < row->n_parallel; i++) {
        if (!dp_session_eval(b->sessions[i], b->tokens, start_of(row), err)) return false;
    }
    return true;
}

/* Before a generation: every session of the test back to its last token, which is evaluated. Each
 * has another one, so that none answers as its neighbour does. */
static bool prepare_generation(const bench *b, const bench_row *row, size_t at, dp_error *err) {
    for (size_t i = 0; i < row->n_parallel; i++) {
        dp_token next;
        if (!dp_session_rewind(b->sessions[i], at - 1, err) ||
            !dp_session_eval(b->sessions[i], b->tokens + at - 1 + i, 1, err) ||
            !dp_session_sample(b->sessions[i], &next, err)) {
            return false;
        }
    }
    return true;
}

/* n tokens of every session of the test. */
static bool generate_together(const bench *b, const bench_row *row, uint64_t n, dp_error *err) {
    uint32_t counts[PARALLEL_MAX];
    dp_token *tokens = mem_new(row->n_parallel * n, sizeof(dp_token), "generated tokens", err);
    const bool ok = tokens != NULL && dp_batch_generate(b->sessions, row->n_parallel, (uint32_t)n,
                                                        true, tokens, counts, err);
    mem_free(tokens);
    return ok;
}

/* `n_gen` for a warm-up shorter than the test. */
static bool repeat_test(const bench *b, const bench_row *row, uint64_t n_gen, lap *l,
                        dp_error *err) {
    const size_t at = start_of(row);
    const bool prompt = row->n_prompt > 0;
    dp_session *s = b->e.session;
    l->a.n = 0;
    if (prompt ? !dp_session_rewind(s, at, err) : !prepare_generation(b, row, at, err)) {
        return false;
    }
    l->gpu = gpu_time_now(b);
    dp_device_get_stats(b->e.device, &l->before);
    const double cpu = cpu_seconds(), start = now_seconds();
    bool ok = true;
    if (prompt && n_gen == 0) {
        ok = bench_evaluate(b, b->tokens + at, row->n_prompt, err);
    } else if (prompt) {
        ok = dp_session_eval(s, b->tokens + at, row->n_prompt, err);
    }
    if (ok && n_gen > 0) {
        ok = row->n_parallel > 1 ? generate_together(b, row, n_gen, err)
                                 : bench_generate(b, n_gen, &l->a, err);
    }
    l->seconds = now_seconds() - start;
    l->cpu = cpu_seconds() - cpu;
    l->first = l->a.n > 0 ? l->a.at[0] - start : row->n_parallel > 1 ? NAN : l->seconds;
    return ok && check_interrupted(err);
}

/* The repetitions; gaps is [repeats, n_gen - 1]. */
static bool repeat_all(const bench *b, bench_row *row, lap *l, double *gaps, dp_error *err) {
    const uint64_t per_run = (row->n_prompt + row->n_gen) * row->n_parallel;
    const double tokens = (double)(per_run * b->o->repeats);
    const size_t n_gaps = row->n_gen > 1 && row->n_parallel == 1 ? row->n_gen - 1 : 0;
    double firsts = 0, cpu = 0, wall = 0, gpu_ms = 0;
    dp_stats stats = { 0 }, sum = { 0 };
    for (row->n_samples = 0; row->n_samples < b->o->repeats; row->n_samples++) {
        const size_t i = row->n_samples;
        progress_line("%s: %zu of %" PRIu64, row->test, i + 1, b->o->repeats);
        if (!repeat_test(b, row, row->n_gen, l, err)) return false;
        dp_device_get_stats(b->e.device, &stats);
        sum.submits += stats.submits - l->before.submits;
        sum.dispatches += stats.dispatches - l->before.dispatches;
        sum.bytes_read += stats.bytes_read - l->before.bytes_read;
        gpu_ms += gpu_time_between(l->gpu, gpu_time_now(b),
                                   per_run); /* one that is not known makes the mean unknown */
        firsts += l->first;
        cpu += l->cpu;
        wall += l->seconds;
        gaps_seen(&l->a, gaps + i * n_gaps);
        row->samples_ns[i] = 1e9 * l->seconds;
        row->samples_ts[i] = (double)per_run / fmax(l->seconds, 1e-9);
    }
    progress_line("%s", "");
    mean_and_deviation(row->samples_ns, row->n_samples, &row->avg_ns, &row->stddev_ns);
    mean_and_deviation(row->samples_ts, row->n_samples, &row->avg_ts, &row->stddev_ts);
    row->itl_ms_p50 = quantile(gaps, n_gaps * row->n_samples, 0.5);
    row->itl_ms_p90 = quantile(gaps, n_gaps * row->n_samples, 0.9);
    row->itl_ms_p99 = quantile(gaps, n_gaps * row->n_samples, 0.99);
    row->ttft_ms = 1e3 * firsts / (double)row->n_samples;
    row->gpu_ms = gpu_ms / (double)row->n_samples;
    row->submits_per_token = (double)sum.submits / tokens;
    row->dispatches_per_token = (double)sum.dispatches / tokens;
    row->bytes_read_per_token = (double)sum.bytes_read / tokens;
    row->cpu_ms_per_token = 1e3 * cpu / tokens;
    row->cpu_percent = 100 * cpu / fmax(wall, 1e-9);
    row->device_bytes_peak = stats.device_bytes_peak;
    row->host_bytes_peak = host_bytes_peak();
    return true;
}

bool run_test(const bench *b, bench_row *row, dp_error *err) {
    lap l = { 0 };
    const uint64_t warm = min_u64(row->n_gen, max_u64(b->o->steps, 1));
    l.a.room = row->n_gen;
    l.a.at = mem_new(row->n_gen + 1, sizeof(double), "times of arrival", err);
    double *gaps =
        mem_new((row->n_gen + 1) * b->o->repeats, sizeof(double), "times of arrival", err);
    const bool ok = l.a.at != NULL && gaps != NULL && begin_test(b, row, err) &&
                    (b->o->no_warmup || repeat_test(b, row, warm, &l, err)) &&
                    repeat_all(b, row, &l, gaps, err);
    mem_free(l.a.at);
    mem_free(gaps);
    return ok;
}
