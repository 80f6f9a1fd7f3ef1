/* profile: where a model's time goes, for people (a table on stderr), for programs (--profile-out)
 * and for trace viewers (--trace).
 *
 * `run` and `bench` measure a prompt and a generation of their own after their work: once as they
 * always run, with one pair of timestamps to a pass, and once more with every dispatch in a pass of
 * its own. The first tells how long a step takes, the second what it consists of: a pass adds to
 * every dispatch, what it adds to a kernel that does nothing is taken off, and both sums stand side
 * by side. */
#include "app/app.h"

#include <inttypes.h>
#include <math.h>
#include <time.h>

enum {
    ROWS_MAX = 256,
    STEPS_MAX = 32, /* tokens of a submit */
    EVENTS_MAX = 1 << 18,
};

/* One of the two things that are measured. */
typedef struct {
    bool prompt;
    uint64_t n_tokens, n_depth;
    double step_us; /* GPU time of whole passes, of all tokens */
    bool timed;     /* all of them were */
    double host_seconds, cpu_seconds;
    dp_stats host; /* what they added, as it always runs */
    dp_profile_row rows[ROWS_MAX];
    size_t n_rows;
} profile_part;

/* ---- measuring ----------------------------------------------------------------------------- */

static double processor_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool run_part(const engine *e, const profile_job *job, bool prompt, dp_error *err) {
    if (prompt) return dp_session_eval(e->session, job->tokens + job->n_depth, job->n_prompt, err);
    dp_token tokens[STEPS_MAX];
    for (uint64_t done = 0; done < job->n_generated;) {
        uint32_t count;
        const uint32_t n = (uint32_t)min_u64(STEPS_MAX, job->n_generated - done);
        if (!dp_batch_generate(&e->session, 1, n, true, tokens, &count, err)) return false;
        if (!check_interrupted(err)) return false;
        done += n;
    }
    return true;
}

/* Brings the session to where the part begins; a generation needs the logits of a token. */
static bool prepare_part(const engine *e, const profile_job *job, bool prompt, dp_error *err) {
    const size_t at = job->behind_prompt ? job->n_depth + job->n_prompt : max_u64(job->n_depth, 1);
    const size_t n = prompt ? job->n_depth : at;
    const size_t keep = prompt ? n : n - 1;
    size_t held;
    const dp_token *tokens = dp_session_tokens(e->session, &held);
    size_t same = 0;
    while (same < held && same < keep && tokens[same] == job->tokens[same])
        same++;
    return dp_session_rewind(e->session, same, err) &&
           dp_session_eval(e->session, job->tokens + same, n - same, err);
}

static bool time_part(const engine *e, const profile_job *job, dp_profile_mode mode,
                      profile_part *p, dp_error *err) {
    dp_profile_phase phases[DP_PHASES];
    dp_stats before;
    dp_profile_set_mode(e->device, mode);
    if (!prepare_part(e, job, p->prompt, err)) return false;
    dp_device_get_phases(e->device, phases); /* waits */
    dp_profile_reset(e->device);
    dp_device_get_stats(e->device, &before);
    const double start = now_seconds(), cpu = processor_seconds();
    if (!run_part(e, job, p->prompt, err)) return false;
    dp_device_get_phases(e->device, phases);
    if (mode == DP_PROFILE_KERNELS) {
        dp_device_get_profile(e->device, p->rows, ROWS_MAX, &p->n_rows);
        p->n_rows = (size_t)min_u64(p->n_rows, ROWS_MAX);
        return true;
    }
    p->host_seconds = now_seconds() - start;
    p->cpu_seconds = processor_seconds() - cpu;
    dp_device_get_stats(e->device, &p->host);
    p->host.encode_ns -= before.encode_ns;
    p->host.submit_ns -= before.submit_ns;
    p->host.wait_ns -= before.wait_ns;
    p->host.submits -= before.submits;
    uint64_t rows = 0;
    for (int i = 0; i < DP_PHASES; i++) {
        rows += phases[i].step_rows;
        p->step_us += 1e-3 * (double)phases[i].step_nanoseconds;
    }
    p->timed = rows == p->n_tokens;
    return true;
}

/* ---- the table ----------------------------------------------------------------------------- */

/* What a row comes to: times without what a pass adds. */
typedef struct {
    double calls, us_each, us, gb_per_s, percent_read, gflop_per_s, percent_fma;
} row_figures;

static double added_us(const dp_device_peaks *peaks) {
    return 1e-3 * fmax(peaks->pass_ns - peaks->dispatch_ns, 0);
}

/* `unit`: tokens that count as one. */
static row_figures figures_of(const dp_profile_row *r, const dp_device_peaks *peaks, double unit) {
    const double calls = (double)max_u64(r->calls, 1);
    /* a kernel alone can take no less than nothing, whatever the clock's steps are */
    const double us = fmax(1e-3 * (double)r->nanoseconds - calls * added_us(peaks), 0);
    const double ns = us > 0 ? 1e3 * us : INFINITY; /* no time, no rate */
    row_figures f = {
        .calls = calls / unit,
        .us_each = us / calls,
        .us = us / unit,
        .gb_per_s = (double)r->bytes / ns,
        .gflop_per_s = (double)r->flops / ns,
    };
    f.percent_read = 1e11 * f.gb_per_s / peaks->bytes_per_second;
    f.percent_fma = 1e11 * f.gflop_per_s / peaks->flops_per_second;
    return f;
}

/* A generation is told by the token, a prompt as a whole. */
static double unit_of(const profile_part *p) {
    return p->prompt ? 1 : (double)max_u64(p->n_tokens, 1);
}

static double kernels_us(const profile_part *p, const dp_device_peaks *peaks) {
    double sum = 0;
    for (size_t i = 0; i < p->n_rows; i++)
        sum += figures_of(&p->rows[i], peaks, unit_of(p)).us;
    return sum;
}

static void add_table(buf *b, const profile_part *p, const dp_device_peaks *peaks) {
    const double sum = kernels_us(p, peaks), unit = unit_of(p);
    const char *of = p->prompt ? "" : " a token";
    buf_printf(b, "\n%s of %" PRIu64 " token%s behind %" PRIu64 "\n",
               p->prompt ? "prompt" : "generation", p->n_tokens, plural(p->n_tokens), p->n_depth);
    buf_printf(b, "%-16s %-32s %10s %10s %12s %7s %9s %7s %9s %7s\n", "role", "kernel",
               p->prompt ? "calls" : "calls/tok", "us each", p->prompt ? "us" : "us/tok", "share",
               "GB/s", "% read", "GFLOP/s", "% fma");
    for (size_t i = 0; i < p->n_rows; i++) {
        const dp_profile_row *r = &p->rows[i];
        const row_figures f = figures_of(r, peaks, unit);
        buf_printf(b, "%-16s %-32s %10.2f %10.2f %12.2f %6.1f%% %9.1f %6.1f%% %9.1f %6.1f%%\n",
                   r->role, r->kernel, f.calls, f.us_each, f.us, 100 * f.us / fmax(sum, 1e-9),
                   f.gb_per_s, f.percent_read, f.gflop_per_s, f.percent_fma);
    }
    buf_printf(b, "%-49s %10s %10s %12.2f\n", "sum of the kernels", "", "", sum);
    if (p->timed) {
        buf_printf(b, "%-49s %10s %10s %12.2f\n", "the same as it always runs", "", "",
                   p->step_us / unit);
    } else {
        buf_printf(b, "the same as it always runs: not all of its passes were timed\n");
    }
    buf_printf(b,
               "host%s: %.1f us in all, encode %.1f, submit %.1f, wait %.1f; processor %.1f us; "
               "%.3f submits\n",
               of, 1e6 * p->host_seconds / unit, 1e-3 * (double)p->host.encode_ns / unit,
               1e-3 * (double)p->host.submit_ns / unit, 1e-3 * (double)p->host.wait_ns / unit,
               1e6 * p->cpu_seconds / unit, (double)p->host.submits / unit);
}

static void add_device(buf *b, const dp_device_info *d, const dp_device_peaks *peaks) {
    buf_printf(b,
               "\n%s through %s\nmeasured: reading %.1f GB/s, f32 %.1f GFLOP/s; an empty kernel "
               "takes %.2f us in a chain and %.2f in a pass of its own: %.2f are taken off every "
               "call below; reading 4 bytes back takes %.1f us\n"
               "bytes and operations are a model's: each operand once\n",
               d->name, d->library, 1e-9 * peaks->bytes_per_second, 1e-9 * peaks->flops_per_second,
               1e-3 * peaks->dispatch_ns, 1e-3 * peaks->pass_ns, added_us(peaks),
               1e-3 * peaks->readback_ns);
}

/* ---- JSON ---------------------------------------------------------------------------------- */

static void add_json_row(buf *b, const dp_profile_row *r, const dp_device_peaks *peaks,
                         double unit) {
    const row_figures f = figures_of(r, peaks, unit);
    json_item(b);
    buf_printf(b, "{");
    json_text(b, "role", str_of(r->role));
    json_text(b, "kernel", str_of(r->kernel));
    json_count_of(b, "calls", r->calls);
    json_real(b, "us_measured", 1e-3 * (double)r->nanoseconds);
    json_count_of(b, "bytes", r->bytes);
    json_count_of(b, "flops", r->flops);
    json_real(b, "calls_per_unit", f.calls);
    json_real(b, "us_each", f.us_each);
    json_real(b, "us_per_unit", f.us);
    json_real(b, "gb_per_s", f.gb_per_s);
    json_real(b, "percent_read", f.percent_read);
    json_real(b, "gflop_per_s", f.gflop_per_s);
    json_real(b, "percent_fma", f.percent_fma);
    buf_printf(b, "}");
}

static void add_json_part(buf *b, const profile_part *p, const dp_device_peaks *peaks) {
    const double unit = unit_of(p);
    json_item(b);
    buf_printf(b, "{");
    json_text(b, "phase", p->prompt ? STR("prefill") : STR("decode"));
    json_count_of(b, "tokens", p->n_tokens);
    json_count_of(b, "depth", p->n_depth);
    json_text(b, "unit", p->prompt ? STR("prompt") : STR("token"));
    json_real(b, "kernels_us_per_unit", kernels_us(p, peaks));
    json_real(b, "step_us_per_unit", p->timed ? p->step_us / unit : NAN);
    json_key(b, "host");
    buf_printf(b, "{");
    json_real(b, "us_per_unit", 1e6 * p->host_seconds / unit);
    json_real(b, "encode_us_per_unit", 1e-3 * (double)p->host.encode_ns / unit);
    json_real(b, "submit_us_per_unit", 1e-3 * (double)p->host.submit_ns / unit);
    json_real(b, "wait_us_per_unit", 1e-3 * (double)p->host.wait_ns / unit);
    json_real(b, "cpu_us_per_unit", 1e6 * p->cpu_seconds / unit);
    json_real(b, "submits_per_unit", (double)p->host.submits / unit);
    buf_printf(b, "}");
    json_key(b, "kernels");
    buf_printf(b, "[");
    for (size_t i = 0; i < p->n_rows; i++)
        add_json_row(b, &p->rows[i], peaks, unit);
    buf_printf(b, "]}");
}

static void add_json(buf *b, const engine *e, const dp_device_peaks *peaks,
                     const profile_part *parts, size_t n_parts) {
    dp_device_info d;
    dp_device_get_info(e->device, &d);
    buf_printf(b, "{");
    json_text(b, "version", str_of(DP_VERSION));
    json_text(b, "model", str_of(e->path));
    json_text(b, "device", str_of(d.name));
    json_text(b, "driver", str_of(d.driver));
    json_text(b, "library", str_of(d.library));
    json_key(b, "measured");
    buf_printf(b, "{");
    json_real(b, "read_gb_per_s", 1e-9 * peaks->bytes_per_second);
    json_real(b, "fma_gflop_per_s", 1e-9 * peaks->flops_per_second);
    json_real(b, "empty_dispatch_us", 1e-3 * peaks->dispatch_ns);
    json_real(b, "empty_pass_us", 1e-3 * peaks->pass_ns);
    json_real(b, "taken_off_us", added_us(peaks));
    json_real(b, "readback_us", 1e-3 * peaks->readback_ns);
    buf_printf(b, "}");
    json_key(b, "parts");
    buf_printf(b, "[");
    for (size_t i = 0; i < n_parts; i++)
        add_json_part(b, &parts[i], peaks);
    buf_printf(b, "]}\n");
}

static bool write_text(const char *path, buf *b, dp_error *err) {
    return buf_ok(b, path, err) && file_write_atomic(path, b->data, b->size, err);
}

/* ---- Chrome's trace format ----------------------------------------------------------------- */

enum { TRACE_PROCESS = 1, THREAD_HOST = 1, THREAD_DEVICE = 2 };

static void add_trace_name(buf *b, int thread, const char *name) {
    json_item(b);
    buf_printf(b, "{\"ph\":\"M\",\"name\":\"thread_name\",\"pid\":%d,\"tid\":%d,\"args\":{",
               TRACE_PROCESS, thread);
    json_text(b, "name", str_of(name));
    buf_printf(b, "}}");
}

/* "Trace Event Format": a complete event, microseconds. */
static void add_trace_event(void *user, const dp_trace_event *event) {
    buf *b = user;
    json_item(b);
    buf_printf(b, "\n{\"ph\":\"X\",\"pid\":%d,\"tid\":%d", TRACE_PROCESS,
               event->host ? THREAD_HOST : THREAD_DEVICE);
    json_text(b, "name", str_of(event->name));
    json_text(b, "cat",
              event->host                        ? STR("host")
              : event->phase == DP_PHASE_PREFILL ? STR("prefill")
                                                 : STR("decode"));
    json_real(b, "ts", 1e6 * event->start);
    json_real(b, "dur", 1e6 * event->seconds);
    json_key(b, "args");
    buf_printf(b, "{");
    if (event->role[0] != '\0') json_text(b, "role", str_of(event->role));
    buf_printf(b, "}}");
}

static bool write_trace(const engine *e, const char *path, dp_error *err) {
    buf b;
    buf_init(&b, TEXT_BYTES_MAX);
    buf_printf(&b, "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[");
    add_trace_name(&b, THREAD_HOST, "host");
    add_trace_name(&b, THREAD_DEVICE, "GPU");
    const size_t n_lost = dp_trace_stop(e->device, add_trace_event, &b);
    buf_printf(&b, "\n],\"otherData\":{");
    json_count_of(&b, "events_left_out", n_lost);
    buf_printf(&b, "}}\n");
    const bool ok = write_text(path, &b, err);
    buf_free(&b);
    return ok;
}

/* ---- all of it ----------------------------------------------------------------------------- */

static size_t list_parts(const profile_job *job, profile_part parts[2]) {
    size_t n = 0;
    memset(parts, 0, 2 * sizeof(*parts));
    if (job->n_prompt > 0) {
        parts[n++] =
            (profile_part){ .prompt = true, .n_tokens = job->n_prompt, .n_depth = job->n_depth };
    }
    if (job->n_generated > 0) {
        parts[n++] = (profile_part){ .n_tokens = job->n_generated,
                                     .n_depth = job->behind_prompt ? job->n_depth + job->n_prompt
                                                                   : max_u64(job->n_depth, 1) };
    }
    return n;
}

static bool measure_parts(const engine *e, const options *o, const profile_job *job,
                          profile_part *parts, size_t n, dp_error *err) {
    /* once without times: pipelines, clocks and pages are warm then */
    for (size_t i = 0; i < n; i++) {
        if (!prepare_part(e, job, parts[i].prompt, err)) return false;
        profile_job few = *job;
        few.n_generated = min_u64(few.n_generated, STEPS_MAX);
        if (!run_part(e, &few, parts[i].prompt, err)) return false;
    }
    if (o->trace != NULL && !dp_trace_start(e->device, EVENTS_MAX, err)) return false;
    for (size_t i = 0; i < n; i++) {
        if (!time_part(e, job, DP_PROFILE_STEPS, &parts[i], err)) return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (!time_part(e, job, DP_PROFILE_KERNELS, &parts[i], err)) return false;
    }
    dp_profile_set_mode(e->device, DP_PROFILE_STEPS);
    return o->trace == NULL || write_trace(e, o->trace, err);
}

bool profile_wanted(const options *o) {
    return o->profile || o->profile_out != NULL || o->trace != NULL;
}

bool profile_check(const options *o, dp_error *err) {
    return (o->profile_out == NULL || check_out_path(o->profile_out, err)) &&
           (o->trace == NULL || check_out_path(o->trace, err));
}

void profile_prepare(const engine *e, const options *o) {
    if (profile_wanted(o)) dp_profile_set_mode(e->device, DP_PROFILE_STEPS);
}

/* How the experts were paged, if they were, on stderr. */
static void print_experts(const dp_model *model) {
    dp_expert_stats s;
    if (!dp_model_get_experts(model, &s)) return;
    const double asked = (double)max_u64(s.hits + s.misses, 1);
    const double fetches = (double)max_u64(s.misses, 1);
    fprintf(stderr,
            "\nexperts: room for %" PRIu32 " on the device; %" PRIu64 " of %.0f were there "
            "(%.1f%%), %" PRIu64 " fetched, %.2f ms and %.1f MB each\n",
            s.slots, s.hits, asked, 100 * (double)s.hits / asked, s.misses,
            1e3 * s.seconds / fetches, 1e-6 * (double)s.bytes / fetches);
}

bool profile_report(const engine *e, const options *o, const profile_job *job, dp_error *err) {
    static profile_part parts[2];
    dp_device_peaks peaks;
    dp_device_info info;
    buf b;
    print_experts(e->model);
    const size_t n = list_parts(job, parts);
    progress_line("profiling");
    bool ok =
        dp_device_get_peaks(e->device, &peaks, err) && measure_parts(e, o, job, parts, n, err);
    progress_line("%s", "");
    if (!ok) return false;
    buf_init(&b, TEXT_BYTES_MAX);
    if (o->profile) {
        dp_device_get_info(e->device, &info);
        add_device(&b, &info, &peaks);
        for (size_t i = 0; i < n; i++)
            add_table(&b, &parts[i], &peaks);
        if (buf_ok(&b, "the profile", NULL)) fprintf(stderr, "%s", b.data);
    }
    if (o->profile_out != NULL) {
        buf_reset(&b);
        add_json(&b, e, &peaks, parts, n);
        ok = write_text(o->profile_out, &b, err);
    }
    buf_free(&b);
    return ok;
}
