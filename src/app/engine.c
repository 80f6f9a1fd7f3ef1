/* engine: from options to a model ready to use.
 *
 * A model is opened twice: without a device first, which reads metadata and tokenizer only, so that
 * the prompt can be counted and refused before the GPU is touched and the KV cache is no larger
 * than the run needs; then with its weights. */
#include "app/app.h"

#include <inttypes.h>

enum { CONTEXT_STEP = 256, PROFILE_ROWS = 256 };

/* Folders between colons, from the Makefile; the first that holds a bundled model wins. */
static const char model_dirs[] = DP_MODEL_DIRS;
static const char bundled_model[] = "tale-8m";

/* ---- where the model is -------------------------------------------------------------------- */

/* Tries FOLDER/NAME and FOLDER/NAME.gguf. */
static bool find_in_folder(const char *folder, const char *name, char *path, size_t size) {
    char file_name[512];
    const int n = snprintf(file_name, sizeof(file_name), "%s.gguf", name);
    if (n < 0 || (size_t)n >= sizeof(file_name)) return false;
    if (path_join(path, size, folder, name, NULL) && (path_is_folder(path) || path_is_file(path))) {
        return true;
    }
    return path_join(path, size, folder, file_name, NULL) && path_is_file(path);
}

static bool find_model(const char *name, char *path, size_t size, dp_error *err) {
    if (name[0] == '\0') return err_set(err, DP_E_ARGUMENT, "-m: the model's name is empty");
    if (path_is_folder(name) || path_is_file(name) || strchr(name, '/') != NULL) {
        const int n = snprintf(path, size, "%s", name); /* opening it will say what is wrong */
        if (n >= 0 && (size_t)n < size) return true;
        return err_set(err, DP_E_ARGUMENT, "-m: a path of %zu bytes, the limit is %zu",
                       strlen(name), size - 1);
    }
    for (const char *at = model_dirs; *at != '\0';) {
        const size_t n = strcspn(at, ":");
        char folder[4096];
        if (n > 0 && n < sizeof(folder)) {
            memcpy(folder, at, n);
            folder[n] = '\0';
            if (find_in_folder(folder, name, path, size)) return true;
        }
        at += n + (at[n] == ':');
    }
    return err_set(err, DP_E_FILE, "%.200s: no such file or folder, nor a bundled model in %s",
                   name, model_dirs);
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
static void print_log(void *user, dp_log_level level, const char *line) {
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
static void *log_user(const options *o) {
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
        .sessions = 1,
        .batch = (uint32_t)o->batch,
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
    const char *name = o->model != NULL ? o->model : bundled_model;
    memset(e, 0, sizeof(*e));
    if (!find_model(name, e->path, sizeof(e->path), err)) return false;
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
