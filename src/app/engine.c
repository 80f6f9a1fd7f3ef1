/* engine: from options to a model ready to use.
 *
 * A model is opened twice: without a device first, which reads metadata and tokenizer only, so that
 * the prompt can be counted and refused before the GPU is touched and the KV cache is no larger
 * than the run needs; then with its weights. */
#include "app/app.h"

#include <inttypes.h>

enum { CONTEXT_STEP = 256 };

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
        .no_int8 = o->no_int8,
        .checks = o->checks,
        .max_binding = o->max_binding,
        .max_memory = o->max_memory,
        .profile = profile_wanted(o),
        .log = print_log,
        .log_user = log_user(o),
    };
}

static dp_model *open_model(engine *e, const options *o, uint32_t context, dp_error *err) {
    model_places places;
    places_read(&places);
    const bool tuned = !o->no_tune && !o->calibrating && places.tuning[0] != '\0';
    const dp_model_options how = {
        .context = context,
        .sessions = (uint32_t)max_u64(o->sessions, 1),
        .batch = (uint32_t)o->batch,
        .no_verify = o->no_verify,
        .calibrate = o->calibrating,
        .tuning_dir = tuned ? places.tuning : NULL,
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
    if (!profile_check(o, err)) return false;
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
