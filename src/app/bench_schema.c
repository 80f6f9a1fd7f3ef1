/* bench --schema doppler: fixed prompts, one JSON object of metrics for each; and what every object
 * of the result schema begins with.
 *
 * Fields and units are those of the result schema in docs/speed.md. A timed run evaluates the
 * prompt and waits for the first token (ttft, prefill), then generates -n tokens, greedy and past
 * stop tokens (decode). Metrics are medians over the runs, percentiles those of all their tokens.
 * Warm: one process, model loaded, --warmup-prefill prompts and --warmup-decode tokens after each
 * before the first timed run. Cold: every run opens device and model anew and nothing is warmed;
 * drivers that can be asked keep no compiled shaders from before. The file stays in the system's
 * page cache, and what a driver keeps in the process nobody can empty. */
#include "app/bench_internal.h"

#include <inttypes.h>
#include <math.h>

enum { PROMPTS_MAX = 16, PROMPT_BYTES_MAX = 1 << 20 };

static const char *const all_prompts[] = { "xs", "short", "medium", "long" };

typedef struct {
    char name[64];
    token_list tokens;
} named_prompt;

typedef struct {
    named_prompt items[PROMPTS_MAX];
    size_t n;
    size_t longest; /* tokens */
} prompt_list;

/* What one run took; the arrays of a measurement are [repeats]. */
typedef struct {
    double ttft_ms, decode_ms, cpu_percent, load_ms;
    double submits_prefill, submits_decode, bytes_read, dispatches, gpu_ms_prefill, gpu_ms_decode;
} run_figures;

typedef struct {
    const options *o;
    const named_prompt *prompt;
    uint64_t n_gen;
    run_figures runs[REPEATS_MAX];
    size_t n_runs;
    double *gaps, *seen; /* [repeats, n_gen], ms: shared, and as a reader sees them */
    size_t n_seen;
    arrivals a;
    uint64_t device_bytes_peak;
    uint32_t context;
    bench_place place;
} measurement;

/* ---- prompts ------------------------------------------------------------------------------- */

static bool read_prompt(const dp_model *model, str name, prompt_list *list, dp_error *err) {
    char path[PLACE_BYTES];
    buf text;
    if (list->n == PROMPTS_MAX) {
        return err_set(err, DP_E_ARGUMENT, "--prompt-name: more than %d prompts", PROMPTS_MAX);
    }
    named_prompt *p = &list->items[list->n];
    snprintf(p->name, sizeof(p->name), "%.*s", (int)min_u64(name.size, 60), name.data);
    if (!find_prompt(p->name, path, sizeof(path), err)) return false;
    list->n++;
    bool ok = file_read_all(path, PROMPT_BYTES_MAX, &text, err);
    while (ok && text.size > 0 && text.data[text.size - 1] == '\n')
        text.size--; /* the file's line end is none of the prompt */
    ok = ok && tokens_of_text(model, (str){ text.data, text.size }, true, false, &p->tokens, err);
    if (ok && p->tokens.n == 0) ok = err_set(err, DP_E_FORMAT, "%s: no tokens", path);
    buf_free(&text);
    list->longest = max_u64(list->longest, p->tokens.n);
    return ok;
}

/* "xs,short", or "all". */
static bool read_prompts(const options *o, prompt_list *list, dp_error *err) {
    engine e;
    bool ok = engine_describe(&e, o, err);
    if (ok && strcmp(o->prompt_names, "all") == 0) {
        for (size_t i = 0; ok && i < ARRAY_LEN(all_prompts); i++)
            ok = read_prompt(e.model, str_of(all_prompts[i]), list, err);
    } else {
        for (const char *at = o->prompt_names; ok; at++) {
            const size_t n = strcspn(at, ",");
            ok = read_prompt(e.model, (str){ at, n }, list, err);
            at += n;
            if (*at == '\0') break;
        }
    }
    engine_close(&e);
    return ok;
}

/* ---- measuring ----------------------------------------------------------------------------- */

static bool timed_run(const bench *b, measurement *m, dp_error *err) {
    run_figures *r = &m->runs[m->n_runs];
    dp_stats before, between, after;
    const token_list *prompt = &m->prompt->tokens;
    if (!dp_session_rewind(b->e.session, 0, err)) return false;
    const gpu_time gpu = gpu_time_now(b);
    dp_device_get_stats(b->e.device, &before);
    const double cpu = cpu_seconds(), start = now_seconds();
    if (!bench_evaluate(b, prompt->ids, prompt->n, err)) return false;
    const double first = now_seconds();
    const gpu_time gpu_first = gpu_time_now(b);
    dp_device_get_stats(b->e.device, &between);
    const double again = now_seconds();
    if (!bench_generate(b, m->n_gen, &m->a, err)) return false;
    const double end = now_seconds();
    dp_device_get_stats(b->e.device, &after);
    *r = (run_figures){
        .ttft_ms = 1e3 * (first - start),
        .decode_ms = 1e3 * (end - again),
        .cpu_percent = 100 * (cpu_seconds() - cpu) / fmax(end - start, 1e-9),
        .load_ms = 1e3 * b->e.load_seconds,
        .submits_prefill = (double)(between.submits - before.submits),
        .submits_decode = (double)(after.submits - between.submits),
        .bytes_read = (double)(after.bytes_read - before.bytes_read),
        .dispatches = (double)(after.dispatches - before.dispatches),
        .gpu_ms_prefill = gpu_time_between(gpu, gpu_first, prompt->n),
        .gpu_ms_decode = gpu_time_between(gpu_first, gpu_time_now(b), m->n_gen),
    };
    gaps_shared(&m->a, m->gaps + m->n_runs * m->n_gen);
    gaps_seen(&m->a, m->seen + m->n_seen);
    m->n_seen += m->a.n - 1;
    m->n_runs++;
    m->device_bytes_peak = max_u64(m->device_bytes_peak, after.device_bytes_peak);
    m->context = b->context;
    m->place = place_of(&b->e, b->o);
    return true;
}

static bool warm_up(const bench *b, measurement *m, dp_error *err) {
    for (uint64_t i = 0; i < m->o->warmup_prefill; i++) {
        const uint64_t n = min_u64(m->o->warmup_decode, m->n_gen);
        if (!dp_session_rewind(b->e.session, 0, err) ||
            !bench_evaluate(b, m->prompt->tokens.ids, m->prompt->tokens.n, err) ||
            (n > 0 && !bench_generate(b, n, &m->a, err))) {
            return false;
        }
    }
    return true;
}

/* On what is started, or each run on one of its own. */
static bool measure(bench *planned, measurement *m, dp_error *err) {
    bool ok = m->o->cold || warm_up(planned, m, err);
    while (ok && m->n_runs < m->o->repeats) {
        progress_line("%s: %zu of %" PRIu64, m->prompt->name, m->n_runs + 1, m->o->repeats);
        if (!m->o->cold) {
            ok = timed_run(planned, m, err);
        } else {
            bench b;
            ok = bench_plan(&b, m->o, planned->needed, err) && bench_start(&b, err) &&
                 timed_run(&b, m, err);
            bench_close(&b);
        }
    }
    progress_line("%s", "");
    return ok;
}

/* ---- what every object begins with ---------------------------------------------------------- */

bench_place place_of(const engine *e, const options *o) {
    bench_place place = { .n_tuned = e->info.n_tuned, .checks = o->checks };
    dp_device_get_info(e->device, &place.device);
    return place;
}

static void add_env(buf *b, const bench_place *place) {
    const dp_device_info *d = &place->device;
    host_info h;
    host_describe(&h);
    json_key(b, "env");
    buf_printf(b, "{");
    json_key(b, "runtime");
    buf_printf(b, "{");
    json_text(b, "name", STR("doppler"));
    json_text(b, "version", STR(DP_VERSION));
    json_text(b, "commit", str_of(build_commit));
    json_text(b, "library", str_of(d->library));
    buf_printf(b, "}");
    json_key(b, "os");
    buf_printf(b, "{");
    json_text(b, "name", str_of(h.os_name));
    json_text(b, "version", str_of(h.os_version));
    buf_printf(b, "}");
    json_text(b, "cpu", str_of(h.cpu));
    json_key(b, "gpu");
    buf_printf(b, "{");
    json_text(b, "vendor", str_of(d->vendor));
    json_text(b, "device", str_of(d->name));
    json_text(b, "description", str_of(d->name));
    json_text(b, "driver", str_of(d->driver));
    json_text(b, "backend", str_of(d->backend));
    json_text(b, "type", str_of(d->type));
    buf_printf(b, "}");
    json_key(b, "webgpu");
    buf_printf(b, "{");
    json_flag(b, "hasF16", d->f16);
    json_flag(b, "hasSubgroups", d->subgroups);
    json_flag(b, "hasTimestampQuery", d->timestamps);
    buf_printf(b, "}");
    json_flag(b, setting_names[SETTING_INT8], d->int8);
    json_count_of(b, "matrix", d->matrix);
    json_flag(b, setting_names[SETTING_CHECKS], place->checks);
    json_count_of(b, setting_names[SETTING_TUNED], place->n_tuned);
    buf_printf(b, "}");
}

static void add_model(buf *b, const engine *e) {
    const dp_model_info *info = &e->info;
    json_key(b, "model");
    buf_printf(b, "{");
    json_text(b, "modelId", path_last(e->path));
    json_text(b, "architecture", str_of(info->architecture));
    json_text(b, "quantization", str_of(info->format));
    json_count_of(b, "totalSizeBytes", info->weight_bytes);
    json_count_of(b, "tensorCount", info->n_tensors);
    json_count_of(b, "parameterCount", info->n_parameters);
    buf_printf(b, "}");
}

void schema_begin(buf *b, const char *suite, const char *run_type, const time_text *when,
                  const engine *e, const bench_place *place) {
    const bool software = strcmp(place->device.type, "cpu") == 0;
    buf_printf(b, "{\"schemaVersion\":1");
    json_text(b, "timestamp", str_of(when->iso));
    json_text(b, "suite", str_of(suite));
    if (run_type != NULL) json_text(b, "runType", str_of(run_type));
    json_flag(b, "valid", !software);
    if (software) json_text(b, "invalidReason", STR("the device is a CPU"));
    add_env(b, place);
    add_model(b, e);
}

/* ---- the object ---------------------------------------------------------------------------- */

static double median_run(const measurement *m, size_t offset) {
    double values[REPEATS_MAX];
    for (size_t i = 0; i < m->n_runs; i++)
        memcpy(&values[i], (const char *)&m->runs[i] + offset, sizeof(double));
    return quantile(values, m->n_runs, 0.5);
}

static double rate(double tokens, double ms) {
    return tokens / fmax(1e-3 * ms, 1e-9);
}

static void add_workload(buf *b, const measurement *m) {
    json_key(b, "workload");
    buf_printf(b, "{");
    json_text(b, "promptName", str_of(m->prompt->name));
    json_count_of(b, "promptTokens", m->prompt->tokens.n);
    json_count_of(b, "maxNewTokens", m->n_gen);
    json_key(b, "sampling");
    buf_printf(b, "{\"temperature\":0,\"topK\":1,\"topP\":1}");
    json_count_of(b, "timedRuns", m->n_runs);
    json_count_of(b, "warmupPrefillRuns", m->o->cold ? 0 : m->o->warmup_prefill);
    json_count_of(b, "warmupDecodeTokens", m->o->cold ? 0 : m->o->warmup_decode);
    json_count_of(b, "stepsPerSubmit", m->o->steps);
    buf_printf(b, "}");
}

/* One that is not known is left out. */
static void add_metric(buf *b, const char *key, double value) {
    if (isfinite(value)) json_real(b, key, value);
}

static void add_metrics(buf *b, measurement *m) {
    const size_t n = m->n_runs * m->n_gen;
    const double ttft = median_run(m, offsetof(run_figures, ttft_ms));
    const double decode = median_run(m, offsetof(run_figures, decode_ms));
    const double tokens = (double)(m->prompt->tokens.n + m->n_gen);
    const double bytes = median_run(m, offsetof(run_figures, bytes_read));
    const double submits = median_run(m, offsetof(run_figures, submits_decode));
    json_key(b, "metrics");
    buf_printf(b, "{");
    json_real(b, "ttft_ms", ttft);
    json_real(b, "prefill_ms", ttft);
    json_real(b, "prefill_tokens_per_sec", rate((double)m->prompt->tokens.n, ttft));
    json_real(b, "decode_ms_total", decode);
    json_real(b, "decode_ms_per_token_p50", quantile(m->gaps, n, 0.5));
    json_real(b, "decode_ms_per_token_p90", quantile(m->gaps, n, 0.9));
    json_real(b, "decode_ms_per_token_p99", quantile(m->gaps, n, 0.99));
    json_real(b, "decode_tokens_per_sec", rate((double)m->n_gen, decode));
    add_metric(b, "itl_ms_p50", quantile(m->seen, m->n_seen, 0.5));
    add_metric(b, "itl_ms_p90", quantile(m->seen, m->n_seen, 0.9));
    add_metric(b, "itl_ms_p99", quantile(m->seen, m->n_seen, 0.99));
    json_real(b, "gpu_submit_count_prefill", median_run(m, offsetof(run_figures, submits_prefill)));
    json_real(b, "gpu_submit_count_decode", submits);
    json_real(b, "gpu_submits_per_token", submits / (double)m->n_gen);
    json_real(b, "gpu_dispatch_count_total", median_run(m, offsetof(run_figures, dispatches)));
    json_real(b, "gpu_readback_bytes_total", bytes);
    json_real(b, "gpu_readback_bytes_per_token", bytes / tokens);
    json_flag(b, "gpu_timestamp_available", m->place.device.timestamps);
    add_metric(b, "gpu_time_ms_prefill", median_run(m, offsetof(run_figures, gpu_ms_prefill)));
    add_metric(b, "gpu_time_ms_decode", median_run(m, offsetof(run_figures, gpu_ms_decode)));
    json_count_of(b, "estimated_vram_bytes_peak", m->device_bytes_peak);
    json_text(b, "kv_cache_dtype", str_of(m->place.device.f16 ? "f16" : "f32"));
    json_count_of(b, "kv_cache_max_seq_len", m->context);
    json_real(b, "host_cpu_percent_of_core", median_run(m, offsetof(run_figures, cpu_percent)));
    json_count_of(b, "host_bytes_peak", host_bytes_peak());
    json_real(b, "load_ms", median_run(m, offsetof(run_figures, load_ms)));
    buf_printf(b, "}");
}

static void add_runs(buf *b, const measurement *m) {
    json_key(b, "raw");
    buf_printf(b, "{");
    json_key(b, "runs");
    buf_printf(b, "[");
    for (size_t i = 0; i < m->n_runs; i++) {
        const run_figures *r = &m->runs[i];
        json_item(b);
        buf_printf(b, "{");
        json_real(b, "ttft_ms", r->ttft_ms);
        json_real(b, "prefill_ms", r->ttft_ms);
        json_real(b, "prefill_tokens_per_sec", rate((double)m->prompt->tokens.n, r->ttft_ms));
        json_real(b, "decode_ms_total", r->decode_ms);
        json_real(b, "decode_tokens_per_sec", rate((double)m->n_gen, r->decode_ms));
        json_real(b, "host_cpu_percent_of_core", r->cpu_percent);
        json_real(b, "load_ms", r->load_ms);
        buf_printf(b, "}");
    }
    buf_printf(b, "]}");
}

/* ---- the command --------------------------------------------------------------------------- */

/* Measures one prompt and prints it. `planned` knows the model, and if warm it is started. */
static bool run_prompt(bench *planned, measurement *m, dp_error *err) {
    const time_text when = time_now();
    const options *o = m->o;
    buf out;
    buf_init(&out, TEXT_BYTES_MAX);
    m->n_runs = m->n_seen = 0;
    bool ok = sleep_seconds((double)o->delay, err) && measure(planned, m, err);
    if (ok) {
        schema_begin(&out, "pipeline", o->cold ? "cold" : "warm", &when, &planned->e, &m->place);
        add_workload(&out, m);
        add_metrics(&out, m);
        add_runs(&out, m);
        buf_printf(&out, "}\n");
        ok = buf_ok(&out, "the result", err) && out_write(out.data, out.size, err) &&
             (o->save == NULL ||
              save_result(o->save, "pipeline", planned->e.path, &when, &out, err));
    }
    buf_free(&out);
    return ok;
}

static bool check_schema_options(const options *o, dp_error *err) {
    if (strcmp(o->schema, "doppler") != 0) {
        return err_set(err, DP_E_ARGUMENT, "--schema: \"%.60s\" is not doppler", o->schema);
    }
    if (o->against != NULL) {
        return err_set(err, DP_E_ARGUMENT, "--schema and --against: give one of them");
    }
    if (o->generations.n != 1 || o->generations.items[0] == 0) {
        return err_set(err, DP_E_ARGUMENT, "-n: --schema takes one number above 0");
    }
    return (!o->prompts_given && !o->depths_given && o->pairs.n == 0) ||
           err_set(err, DP_E_ARGUMENT, "-p, -pg and -d: --schema has prompts of its own");
}

int bench_schema(const options *o) {
    static prompt_list prompts;
    static measurement m;
    dp_error err = { 0 };
    bench planned = { 0 };
    if (!check_schema_options(o, &err)) return fail(&err);
    m.o = o;
    m.n_gen = o->generations.items[0];
    m.a.room = m.n_gen;
    m.a.at = mem_new(m.n_gen, sizeof(double), "times of arrival", &err);
    m.gaps = mem_new(m.n_gen * o->repeats, sizeof(double), "times of arrival", &err);
    m.seen = mem_new(m.n_gen * o->repeats, sizeof(double), "times of arrival", &err);
    bool ok = m.a.at != NULL && m.gaps != NULL && m.seen != NULL && read_prompts(o, &prompts, &err);
    const uint64_t needed = prompts.longest + m.n_gen + 1;
    if (ok && o->cold) forget_shader_caches();
    ok = ok && bench_plan(&planned, o, needed, &err) && prepare_save(o, &err) &&
         (o->cold || bench_start(&planned, &err));
    for (size_t i = 0; ok && i < prompts.n; i++) {
        m.prompt = &prompts.items[i];
        ok = run_prompt(&planned, &m, &err);
    }
    bench_close(&planned);
    for (size_t i = 0; i < prompts.n; i++)
        mem_free(prompts.items[i].tokens.ids);
    mem_free(m.a.at);
    mem_free(m.gaps);
    mem_free(m.seen);
    return ok ? EXIT_OK : fail(&err);
}
