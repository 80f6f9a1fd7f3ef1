/* engine: from options to a model ready to use.
 *
 * A model is opened twice: without a device first, which reads metadata and tokenizer only, so that
 * the prompt can be counted and refused before the GPU is touched and the KV cache is no larger
 * than the run needs; then with its weights. */
#include "app/app.h"

#include <inttypes.h>

enum { CONTEXT_STEP = 256, PROFILE_ROWS = 256 };

static const char bundled_model[] = "tale-8m";

/* ---- where the model is -------------------------------------------------------------------- */

bool find_model(const options *o, const char *name, char *path, size_t size, dp_error *err) {
    model_places places;
    (void)o;
    places_read(&places);
    return dp_store_find(&places.options, name != NULL ? name : bundled_model, path, size, err);
}

/* ---- opening ------------------------------------------------------------------------------- */

/* A model is opened twice; what it warns of needs saying once. */
static bool said_before(const char *line) {
    enum { LINES = 32 };
    static const uint64_t key[2] = { 1, 2 };
    static uint64_t said[LINES];
    static size_t n;
    const uint64_t hash = hash_bytes(key, line, strlen(line));
    for (size_t i = 0; i < n && i < LINES; i++) {
        if (said[i] == hash) return true;
    }
    said[n++ % LINES] = hash;
    return false;
}

/* `user` is the options: warnings come always, the rest with --log. */
void print_log(void *user, dp_log_level level, const char *line) {
    static const char *const names[] = { "warning", "info", "debug" };
    const options *o = user;
    if (level == DP_LOG_WARNING ? said_before(line) : !o->log) return;
    progress_line("%s", "");
    fprintf(stderr, "doppler: %s: %s\n", names[level], line);
}

static bool show_progress(void *user, uint64_t done, uint64_t total) {
    const double share = total > 0 ? (double)done / (double)total : 1;
    progress_line("loading %.100s %.0f %%", (const char *)user, 100 * share);
    return !interrupted();
}

/* The log's `user` is not const in the API; print_log only reads it. */
void *log_user(const options *o) {
    union {
        const options *from;
        void *to;
    } cast = { .from = o };
    return cast.to;
}

dp_device_options device_options(const options *o) {
    return (dp_device_options){
        .webgpu = o->webgpu,
        .adapter = o->device,
        .no_f16 = o->no_f16,
        .no_subgroups = o->no_subgroups,
        .max_binding = o->max_binding,
        .max_memory = o->max_memory,
        .profile = o->profile,
        .log = print_log,
        .log_user = log_user(o),
    };
}

static dp_model *open_model(engine *e, const options *o, uint32_t context, dp_error *err) {
    const dp_model_options how = {
        .context = context,
        .sessions = o->calibrating ? 2 : 1, /* dp_calibrate takes one of its own */
        .batch = (uint32_t)o->batch,
        .no_verify = o->no_verify,
        .calibrate = o->calibrating,
        .progress = show_progress,
        .progress_user = e->path,
        .log = print_log,
        .log_user = log_user(o),
    };
    dp_model *model = dp_model_open(e->device, e->path, &how, err);
    progress_line("%s", "");
    return model;
}

bool engine_describe(engine *e, const options *o, dp_error *err) {
    const double start = now_seconds();
    memset(e, 0, sizeof(*e));
    if (!find_model(o, o->model, e->path, sizeof(e->path), err)) return false;
    e->model = open_model(e, o, 0, err);
    if (e->model == NULL) return false;
    dp_model_get_info(e->model, &e->info);
    e->load_seconds = now_seconds() - start;
    return true;
}

bool engine_start(engine *e, const options *o, uint32_t context, dp_error *err) {
    const double start = now_seconds();
    const dp_device_options how = device_options(o);
    dp_model_close(e->model);
    e->model = NULL;
    e->device = dp_device_open(&how, err);
    if (e->device == NULL || !check_interrupted(err)) return false;
    e->model = open_model(e, o, context, err);
    if (e->model == NULL) return false;
    dp_model_get_info(e->model, &e->info);
    e->session = dp_session_new(e->model, err);
    if (e->session == NULL) return false;
    interrupt_watch(e->session);
    e->load_seconds += now_seconds() - start;
    return true;
}

void engine_close(engine *e) {
    interrupt_watch(NULL);
    dp_session_free(e->session);
    dp_model_close(e->model);
    dp_device_close(e->device);
    memset(e, 0, sizeof(*e));
}

bool engine_context(const engine *e, const options *o, uint64_t needed, uint32_t *context,
                    dp_error *err) {
    const uint64_t own = e->info.context > 0 ? e->info.context : UINT32_MAX;
    if (o->context > own) {
        return err_set(err, DP_E_ARGUMENT,
                       "-c: %" PRIu64 " is above the model's context of %" PRIu64, o->context, own);
    }
    const uint64_t wanted = o->context > 0 ? o->context : align_up(needed, CONTEXT_STEP);
    *context = (uint32_t)min_u64(wanted, own);
    return true;
}

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

void print_profile(dp_device *device, const dp_model *model) {
    static dp_profile_row rows[PROFILE_ROWS];
    size_t n;
    double all = 0;
    dp_device_get_profile(device, rows, PROFILE_ROWS, &n);
    if (n > PROFILE_ROWS) n = PROFILE_ROWS;
    for (size_t i = 0; i < n; i++)
        all += (double)rows[i].nanoseconds;
    fprintf(stderr, "\n%-40s %10s %12s %10s %7s\n", "kernel", "calls", "ms", "us each", "share");
    for (size_t i = 0; i < n; i++) {
        const double ns = (double)rows[i].nanoseconds;
        const double calls = (double)max_u64(rows[i].calls, 1);
        fprintf(stderr, "%-40s %10" PRIu64 " %12.3f %10.2f %6.1f%%\n", rows[i].kernel,
                rows[i].calls, 1e-6 * ns, 1e-3 * ns / calls, all > 0 ? 100 * ns / all : 0);
    }
    print_experts(model);
}
