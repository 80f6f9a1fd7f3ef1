/* engine: devices and models: opening in the order in which things can fail cheaply, describing,
 * closing.
 *
 * A model opens as files, description, tokenizer, a plan of the memory; only then is anything taken
 * on the device, and all pipelines are made before the call returns. Whatever fails, what was taken
 * goes. */
#include "model/model.h"

#include <stdio.h>

struct dp_device {
    gpu *gpu;
};

/* ---- device -------------------------------------------------------------------------------- */

dp_device *dp_device_open(const dp_device_options *options, dp_error *err) {
    static const dp_device_options defaults = { 0 };
    dp_device *d = mem_new(1, sizeof *d, "device", err);
    if (d == NULL) {
        return NULL;
    }
    d->gpu = gpu_open(options != NULL ? options : &defaults, err);
    if (d->gpu == NULL) {
        mem_free(d);
        return NULL;
    }
    return d;
}

void dp_device_close(dp_device *d) {
    if (d != NULL) {
        gpu_close(d->gpu);
        mem_free(d);
    }
}

gpu *device_gpu(const dp_device *d) {
    return d->gpu;
}

void dp_device_get_info(const dp_device *d, dp_device_info *info) {
    *info = *gpu_info(d->gpu);
}

bool dp_device_list(const dp_device_options *options, dp_device_info *list, size_t max, size_t *n,
                    dp_error *err) {
    static const dp_device_options defaults = { 0 };
    return gpu_list(options != NULL ? options : &defaults, list, max, n, err);
}

void dp_device_get_stats(const dp_device *d, dp_stats *stats) {
    *stats = *gpu_stats(d->gpu);
}

void dp_device_get_profile(dp_device *d, dp_profile_row *rows, size_t max, size_t *n) {
    gpu_lock(d->gpu);
    gpu_profile(d->gpu, rows, max, n);
    gpu_unlock(d->gpu);
}

void dp_device_get_phases(dp_device *d, dp_profile_phase phases[DP_PHASES]) {
    gpu_lock(d->gpu);
    gpu_profile_phases(d->gpu, phases);
    gpu_unlock(d->gpu);
}

void dp_profile_set_mode(dp_device *d, dp_profile_mode mode) {
    gpu_lock(d->gpu);
    (void)gpu_profile_mode(d->gpu, mode);
    gpu_unlock(d->gpu);
}

bool dp_device_get_peaks(dp_device *d, dp_device_peaks *peaks, dp_error *err) {
    gpu_lock(d->gpu);
    const bool ok = gpu_peaks(d->gpu, peaks, err);
    gpu_unlock(d->gpu);
    return ok;
}

bool dp_trace_start(dp_device *d, size_t max_events, dp_error *err) {
    gpu_lock(d->gpu);
    const bool ok = gpu_trace_start(d->gpu, max_events, err);
    gpu_unlock(d->gpu);
    return ok;
}

size_t dp_trace_stop(dp_device *d, dp_trace_fn *each, void *user) {
    gpu_lock(d->gpu);
    const size_t n_lost = gpu_trace_stop(d->gpu, each, user);
    gpu_unlock(d->gpu);
    return n_lost;
}

void dp_profile_reset(dp_device *d) {
    gpu_lock(d->gpu);
    gpu_profile_reset(d->gpu);
    gpu_unlock(d->gpu);
}

/* ---- describing ---------------------------------------------------------------------------- */

/* The format that most weight bytes are in. */
static const char *main_format(const container *files) {
    uint64_t bytes[DTYPE_COUNT] = { 0 };
    uint32_t best = DTYPE_F32;
    for (uint32_t i = 0; i < container_n_tensors(files); i++) {
        const tensor *t = container_tensor(files, i);
        bytes[t->type] += t->n_bytes;
        if (bytes[t->type] > bytes[best]) {
            best = t->type;
        }
    }
    return dtype_get(best)->name;
}

static uint64_t count_parameters(const container *files) {
    uint64_t n = 0;
    for (uint32_t i = 0; i < container_n_tensors(files); i++) {
        n += container_tensor(files, i)->n_elements;
    }
    return n;
}

/* general.name, or the last part of the path. */
static const char *model_name(dp_model *m, dp_error *err) {
    const meta_value *v = container_meta(m->files, "general.name");
    if (v != NULL && v->type == META_STRING) {
        return arena_copy(&m->arena, v->s.data, v->s.size, err);
    }
    const str last = path_last(container_path(m->files));
    return arena_copy(&m->arena, last.data, last.size, err);
}

static bool describe(dp_model *m, dp_error *err) {
    const config *c = &m->config;
    const tokenizer *t = m->tokenizer;
    const str chat_template = t != NULL ? tokenizer_chat_template(t) : STR("");
    const bool any = container_n_tensors(m->files) > 0;
    m->info = (dp_model_info){
        .path = container_path(m->files),
        .architecture = c->architecture,
        .name = model_name(m, err),
        .container = container_kind_name(container_kind_of(m->files)),
        .format = any ? main_format(m->files) : "",
        .tokenizer = t != NULL ? tokenizer_kind(t) : "",
        .chat_template = arena_copy(&m->arena, chat_template.data, chat_template.size, err),
        .n_layers = c->n_layers,
        .dim = c->dim,
        .n_heads = c->n_heads,
        .n_kv_heads = c->n_kv_heads,
        .head_dim = c->head_dim,
        .ffn_dim = c->ffn_dim,
        .vocab_size = c->vocab_size > 0 ? c->vocab_size
                      : t != NULL       ? tokenizer_n_tokens(t)
                                        : 0,
        .context = c->context,
        .default_context = default_context(c),
        .n_tensors = container_n_tensors(m->files),
        .n_parameters = count_parameters(m->files),
        .weight_bytes = container_bytes(m->files),
        .temperature = c->temperature,
        .top_p = c->top_p,
        .top_k = c->top_k,
    };
    return m->info.name != NULL && m->info.chat_template != NULL;
}

void dp_model_get_info(const dp_model *m, dp_model_info *info) {
    *info = m->info;
}

bool dp_model_get_tensor(const dp_model *m, uint32_t i, dp_tensor_info *info) {
    if (i >= container_n_tensors(m->files)) {
        return false;
    }
    const tensor *t = container_tensor(m->files, i);
    *info = (dp_tensor_info){
        .format = dtype_get(t->type)->name,
        .n_dims = t->n_dims,
        .n_bytes = t->n_bytes,
    };
    snprintf(info->name, sizeof info->name, "%.*s", (int)min_u64(t->name.size, 127), t->name.data);
    memcpy(info->shape, t->shape, sizeof info->shape);
    return true;
}

bool dp_model_memory(const dp_model *m, const dp_model_options *options, bool f16,
                     dp_memory *memory, dp_error *err) {
    if (m->weights.layers == NULL) {
        return m->config.refusal.status != DP_OK && container_n_tensors(m->files) > 0
                   ? err_set(err, m->config.refusal.status, "%s", m->config.refusal.message)
                   : err_set(err, DP_E_UNSUPPORTED, "%s: has a vocabulary only",
                             container_path(m->files));
    }
    shapes s;
    return shapes_plan(&s, memory, &m->config, &m->weights, options, UINT64_MAX, f16, err);
}

/* ---- opening ------------------------------------------------------------------------------- */

/* A model can do without: it then takes and gives token ids only. */
static bool has_tokenizer(dp_model *m, bool *has, dp_error *err) {
    if (!tokenizer_present(m->files, has, err)) {
        return false;
    }
    if (!*has) {
        log_line(&m->log, DP_LOG_WARNING, "%s: has no tokenizer", container_path(m->files));
    }
    return true;
}

/* Tells how long a part of opening took, and begins the next. */
static void tell_stage(const dp_model *m, const char *stage, double *since) {
    const double now = clock_seconds();
    log_line(&m->log, DP_LOG_DEBUG, "%s: %s in %.1f ms", container_path(m->files), stage,
             1e3 * (now - *since));
    *since = now;
}

static bool open_files(dp_model *m, const char *path, dp_error *err) {
    const bool vocab_only = m->gpu == NULL;
    double since = clock_seconds();
    m->files = container_open(path, vocab_only, err);
    if (m->files == NULL || !config_read(&m->config, m->files, vocab_only, &m->arena, err)) {
        return false;
    }
    tell_stage(m, "files opened", &since);
    bool has = false;
    if (!has_tokenizer(m, &has, err)) {
        return false;
    }
    m->tokenizer = has ? tokenizer_open(m->files, &m->log, err) : NULL;
    if (has && m->tokenizer == NULL) {
        return false;
    }
    tell_stage(m, "tokenizer made", &since);
    return true;
}

/* The most that is read at a time: the answers of all sessions, the choice of a layer's experts, or
 * a piece of what is watched. */
static uint64_t read_back_bytes(const dp_model *m) {
    const uint64_t answers = m->shapes.n_out * (1ull + DP_STEPS_MAX) * sizeof(uint32_t);
    const uint64_t choice = 8ull * m->shapes.batch * m->config.n_experts_used;
    return max_u64(max_u64(answers, choice), watch_piece(m));
}

void dp_model_get_memory(const dp_model *m, dp_memory_row *rows, size_t max, size_t *n) {
    *n = 0;
    if (m->gpu == NULL) {
        return;
    }
    *n = weights_describe(&m->weights, &m->config, rows, max);
    *n += buffers_describe(m, rows + min_u64(*n, max), max - (size_t)min_u64(*n, max));
    const dp_memory_row staging[] = {
        { "staging", "uploads, on the host", weights_staging_bytes(&m->weights), 1, 0 },
        { "staging", "read-back", GPU_READBACKS * read_back_bytes(m), GPU_READBACKS, 0 },
    };
    for (size_t i = 0; i < ARRAY_LEN(staging); i++, ++*n) {
        if (*n < max) {
            rows[*n] = staging[i];
        }
    }
}

bool dp_model_get_dispatch(const dp_model *m, dp_pass pass, uint32_t i, char *line, size_t size) {
    const pass_kind kind = (pass_kind)pass;
    if (m->gpu == NULL || (size_t)pass >= m->shapes.n_kinds) {
        return false;
    }
    for (uint32_t k = 0; k <= m->n_stages; k++) {
        const gpu_plan *p = k < m->n_stages ? m->body[kind][k] : m->head[kind];
        if (i < gpu_plan_n_calls(p)) {
            return gpu_plan_describe(p, i, line, size);
        }
        i -= gpu_plan_n_calls(p);
    }
    return false;
}

/* Experts of all layers that fit the device together with all the rest; 0 if all do, or not even
 * one a layer. */
static uint32_t slots_that_fit(const dp_model *m, uint64_t room) {
    const uint32_t n = m->config.n_experts;
    enum { CALLS = 48, CALL_BYTES = 256 }; /* of a layer in all plans, and its parameters */
    const uint64_t aside = (uint64_t)CALLS * PASS_COUNT * CALL_BYTES * (m->config.n_layers + 2) +
                           GPU_READBACKS * 2 * read_back_bytes(m); /* rounded up to powers of 2 */
    if (n == 0 || m->memory.total + aside <= room) {
        return 0;
    }
    const uint64_t rest = m->memory.total - m->weights.expert_bytes;
    /* parts are aligned: 1 KiB more for each expert is what that can cost at most */
    const uint32_t all = n * m->config.n_layers;
    const uint64_t each = m->weights.expert_bytes / all + 1024;
    const uint64_t fit = room > rest + aside ? (room - rest - aside) / each : 0;
    return fit < m->config.n_layers ? 0 : (uint32_t)min_u64(fit, all - 1);
}

/* What a model needs before anything is taken. A model without a device is planned for a large one,
 * and what it lacks does not matter: it only says less. */
static bool plan_memory(dp_model *m, const dp_model_options *options, uint32_t expert_slots,
                        dp_error *err) {
    enum { GIB = 1 << 30 };
    const dp_device_info *info = m->gpu != NULL ? gpu_info(m->gpu) : NULL;
    const uint64_t max_binding = info != NULL ? info->max_binding : 4ull * GIB - 4;
    const uint64_t max_buffer = min_u64(info != NULL ? info->max_buffer : 4ull * GIB, 4ull * GIB);
    dp_error unplanned = { 0 };
    if (m->config.family == NULL || (m->gpu == NULL && container_n_tensors(m->files) == 0)) {
        return true;
    }
    const weight_limits limits = { .max_binding = max_binding,
                                   .max_buffer = max_buffer,
                                   .expert_slots = expert_slots };
    if (!weights_plan(&m->weights, &m->config, m->files, &limits, &m->arena,
                      m->gpu != NULL ? err : &unplanned)) {
        m->weights = (weights){ 0 };
        m->config.refusal = unplanned;
        return m->gpu == NULL;
    }
    if (m->gpu == NULL) {
        return true;
    }
    assert(info != NULL);
    if (m->weights.n_decoded > 0) {
        log_line(&m->log, DP_LOG_INFO,
                 "%s: %u tensors, tensor %.*s the first, are kept as f16: their layout is not rows",
                 container_path(m->files), m->weights.n_decoded, STR_ARG(m->weights.decoded->name));
    }
    if (options != NULL && options->context > m->config.context) {
        log_line(&m->log, DP_LOG_WARNING, "%s: a context of %u is beyond the model's own %u",
                 container_path(m->files), options->context, m->config.context);
    }
    if (!shapes_plan(&m->shapes, &m->memory, &m->config, &m->weights, options, max_binding,
                     info->f16, err)) {
        return false;
    }
    m->shapes.int8 = info->int8;
    m->shapes.tile_rows = attend_tile_rows(m);
    m->shapes.whole_keys = attend_whole_keys(m);
    const uint64_t room = gpu_memory_room(m->gpu);
    const uint32_t fit = expert_slots == 0 ? slots_that_fit(m, room) : 0;
    if (fit > 0) {
        log_line(&m->log, DP_LOG_INFO,
                 "%s: needs %llu bytes on the device, %llu of %llu are left: %u of %u experts are "
                 "kept on it, the others fetched when they are needed",
                 container_path(m->files), (unsigned long long)m->memory.total,
                 (unsigned long long)room, (unsigned long long)gpu_memory_limit(m->gpu), fit,
                 m->config.n_experts * m->config.n_layers);
        return plan_memory(m, options, fit, err);
    }
    return m->memory.total <= room ||
           err_set(err, DP_E_MEMORY,
                   "%s: needs %llu bytes on the device (weights %llu, KV cache of %u tokens %llu, "
                   "the rest %llu), %llu of %llu are left",
                   container_path(m->files), (unsigned long long)m->memory.total,
                   (unsigned long long)m->memory.weights, m->shapes.context,
                   (unsigned long long)m->memory.kv_cache,
                   (unsigned long long)m->memory.activations, (unsigned long long)room,
                   (unsigned long long)gpu_memory_limit(m->gpu));
}

static bool take_host_memory(dp_model *m, dp_error *err) {
    const shapes *s = &m->shapes;
    arena *a = &m->arena;
    m->slots = arena_new(a, s->sessions, sizeof *m->slots, "sessions", err);
    m->free_pages = arena_new(a, s->n_pages, sizeof *m->free_pages, "KV pages", err);
    m->rows = arena_new(a, s->batch, sizeof *m->rows, "rows", err);
    m->tiles = arena_new(a, s->batch, sizeof *m->tiles, "tiles", err);
    m->pick = arena_new(a, s->n_out, sizeof *m->pick, "wanted rows", err);
    m->answer =
        arena_new(a, (size_t)s->n_out * (1 + DP_STEPS_MAX), sizeof *m->answer, "answers", err);
    m->counts = arena_new(a, m->config.vocab_size, sizeof *m->counts, "occurrences", err);
    if (m->slots == NULL || m->free_pages == NULL || m->rows == NULL || m->tiles == NULL ||
        m->pick == NULL || m->answer == NULL || m->counts == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < s->sessions; i++) {
        m->slots[i].page_list = arena_new(a, s->n_pages, sizeof(uint32_t), "KV pages", err);
        if (m->slots[i].page_list == NULL) {
            return false;
        }
    }
    for (uint32_t i = 0; i < s->n_pages; i++) {
        m->free_pages[m->n_free_pages++] = s->n_pages - 1 - i;
    }
    return true;
}

static bool finish_passes(dp_model *m, dp_error *err) {
    for (pass_kind kind = PASS_ONE; kind < m->shapes.n_kinds; kind++) {
        for (uint32_t i = 0; i < m->n_stages; i++) {
            if (!gpu_plan_finish(m->body[kind][i], err)) {
                return false;
            }
        }
        if (!gpu_plan_finish(m->head[kind], err)) {
            return false;
        }
    }
    return true;
}

static bool finish_plans(dp_model *m, dp_error *err) {
    return finish_passes(m, err) && gpu_plan_finish(m->greedy, err) &&
           gpu_plan_finish(m->sampled, err) && gpu_plan_finish(m->logprobs, err);
}

static void drop_passes(dp_model *m) {
    for (pass_kind kind = PASS_ONE; kind < PASS_COUNT; kind++) {
        for (uint32_t i = 0; m->body[kind] != NULL && i < m->n_stages; i++) {
            gpu_plan_free(m->body[kind][i]);
            m->body[kind][i] = NULL;
        }
        gpu_plan_free(m->head[kind]);
        m->head[kind] = NULL;
    }
}

bool forward_record_again(dp_model *m, dp_error *err) {
    drop_passes(m);
    if (!forward_record(m, err)) {
        return false;
    }
    gpu_kernels_start(m->gpu);
    return finish_passes(m, err);
}

static bool name_need(const dp_model *m, dp_error *err) {
    return err != NULL && err->status == DP_E_MEMORY &&
           err_prefix(err, "%s: needs %llu bytes on the device in all: ", container_path(m->files),
                      (unsigned long long)m->memory.total);
}

/* What one row has to do in more dispatches than others, as a shape or a format is no fused
 * kernel's. */
static void tell_plain(const dp_model *m) {
    const uint32_t n = m->config.n_layers;
    uint32_t attention = 0, ffn = 0;
    for (uint32_t i = 0; i < n; i++) {
        attention += !attention_is_fused(m, i);
        ffn += !ffn_is_fused(m, i);
    }
    if (attention + ffn > 0) {
        log_line(&m->log, DP_LOG_DEBUG,
                 "%s: plain kernels for attention in %u and feed-forward networks in %u of %u "
                 "layers",
                 container_path(m->files), attention, ffn, n);
    }
}

/* Pipelines are asked for before the weights travel, so that threads, or the implementation, make
 * them meanwhile. */
static bool prepare_device(dp_model *m, const dp_model_options *options, dp_error *err) {
    double since = clock_seconds();
    bool ok = take_host_memory(m, err) && buffers_make(m, err) &&
              (!model_pages_experts(m) || experts_open(m, err)) &&
              weights_reserve(&m->weights, m->gpu, err);
    if (ok) {
        tell_stage(m, "buffers made", &since);
        ok = forward_record(m, err) && sample_record(m, err);
    }
    if (ok && !m->plan_only) {
        gpu_kernels_start(m->gpu);
        tell_stage(m, "passes recorded", &since);
        tell_plain(m);
        m->uploader = upload_begin(&m->weights, m->gpu, &m->config, m->files, options, err);
        ok = m->uploader != NULL;
    }
    return ok || name_need(m, err);
}

static void end_upload(dp_model *m) {
    upload_end(m->uploader);
    m->uploader = NULL;
}

static bool finish_device(dp_model *m, dp_error *err) {
    double since = clock_seconds();
    end_upload(m);
    const bool ok = finish_plans(m, err) && gpu_reserve_readback(m->gpu, read_back_bytes(m), err);
    tell_stage(m, "pipelines waited for", &since);
    return ok || name_need(m, err);
}

static bool fill_device(dp_model *m, const dp_model_options *options, dp_error *err) {
    const char *folder = options != NULL ? options->tuning_dir : NULL;
    gpu_lock(m->gpu);
    bool ok = (folder == NULL || tuned_read(m, folder, err)) && prepare_device(m, options, err);
    if (ok && !m->plan_only) {
        double since = clock_seconds();
        const double start = since, bytes = (double)m->weights.bytes;
        ok = upload_all(m->uploader, err) || name_need(m, err);
        tell_stage(m, "weights uploaded", &since);
        log_line(&m->log, DP_LOG_DEBUG, "%s: %.2f GB of weights at %.2f GB/s",
                 container_path(m->files), 1e-9 * bytes, 1e-9 * bytes / (since - start));
        ok = ok && finish_device(m, err);
        since = clock_seconds();
        ok = ok && (folder == NULL || tune_at_load(m, folder, err));
        tell_stage(m, "tuned", &since);
    }
    end_upload(m);
    gpu_unlock(m->gpu);
    return ok;
}

typedef struct {
    const dp_model_options *options;
    const verifier *verifier;
} load_watch;

/* A pack that turns out to be wrong need not be loaded to its end. */
static bool watch_load(void *user, uint64_t done, uint64_t total) {
    const load_watch *w = user;
    const dp_model_options *o = w->options;
    return (w->verifier == NULL || !verifier_has_failed(w->verifier)) &&
           (o == NULL || o->progress == NULL || o->progress(o->progress_user, done, total));
}

/* A pack's hashes are worked out beside that; nobody gets the model before they are right. */
static bool open_on_device(dp_model *m, const dp_model_options *options, dp_error *err) {
    verifier *v = NULL;
    if (container_kind_of(m->files) == CONTAINER_RDRR && !m->plan_only &&
        !(options != NULL && options->no_verify)) {
        v = verifier_start(m->files, &(verify_options){ .once = true }, err);
        if (v == NULL) {
            return false;
        }
    }
    load_watch watch = { options, v };
    dp_model_options with = options != NULL ? *options : (dp_model_options){ 0 };
    with.progress = watch_load;
    with.progress_user = &watch;
    dp_error failed = { 0 };
    const bool filled = fill_device(m, &with, &failed);
    double since = clock_seconds();
    if (!filled && (v == NULL || !verifier_has_failed(v))) {
        verifier_cancel(v);
        return err_set(err, failed.status, "%s", failed.message);
    }
    if (v == NULL) {
        return true;
    }
    const bool right = verifier_finish(v, NULL, err);
    tell_stage(m, "hashes waited for", &since);
    return right;
}

static dp_model *open_model(dp_device *device, const char *path, const dp_model_options *options,
                            dp_error *err) {
    dp_model *m = mem_new(1, sizeof *m, "model", err);
    if (m == NULL) {
        return NULL;
    }
    if (options != NULL) {
        m->log = (log_sink){ .write = options->log, .user = options->log_user };
    }
    m->gpu = device != NULL ? device->gpu : NULL;
    m->plan_only = m->gpu != NULL && options != NULL && options->plan_only;
    if (open_files(m, path, err) && plan_memory(m, options, 0, err) && describe(m, err)) {
        return m;
    }
    dp_model_close(m);
    return NULL;
}

dp_model *dp_model_open(dp_device *device, const char *path, const dp_model_options *options,
                        dp_error *err) {
    dp_model *m = open_model(device, path, options, err);
    if (m == NULL || m->gpu == NULL || open_on_device(m, options, err)) {
        return m;
    }
    dp_model_close(m);
    return NULL;
}

dp_model *model_begin(dp_device *device, const char *path, const dp_model_options *options,
                      dp_error *err) {
    dp_model *m = open_model(device, path, options, err);
    if (m == NULL) {
        return NULL;
    }
    bool ok =
        !model_pages_experts(m) ||
        err_set(err, DP_E_MEMORY, "%s: needs more than the device has: %llu bytes of %llu are left",
                path, (unsigned long long)gpu_memory_room(m->gpu),
                (unsigned long long)gpu_memory_limit(m->gpu));
    if (ok) {
        gpu_lock(m->gpu);
        ok = prepare_device(m, options, err);
        gpu_unlock(m->gpu);
    }
    if (ok) {
        return m;
    }
    dp_model_close(m);
    return NULL;
}

bool model_load_some(dp_model *m, bool *done, dp_error *err) {
    gpu_lock(m->gpu);
    const bool ok = upload_some(m->uploader, done, err) && (!*done || finish_device(m, err));
    gpu_unlock(m->gpu);
    return ok;
}

void dp_model_close(dp_model *m) {
    if (m == NULL) {
        return;
    }
    if (m->gpu != NULL) {
        gpu_lock(m->gpu);
        end_upload(m);
        drop_passes(m);
        gpu_plan_free(m->greedy);
        gpu_plan_free(m->sampled);
        gpu_plan_free(m->logprobs);
        weights_free(&m->weights);
        buffers_drop(m);
        gpu_unlock(m->gpu);
    }
    mem_free(m->tuned.list);
    tokenizer_close(m->tokenizer);
    container_close(m->files);
    arena_free(&m->arena);
    mem_free(m);
}

/* ---- text ---------------------------------------------------------------------------------- */

bool model_needs_tokenizer(const dp_model *m, dp_error *err) {
    return m->tokenizer != NULL ||
           err_set(err, DP_E_UNSUPPORTED, "%s: has no tokenizer", container_path(m->files));
}

const dp_token *model_stops(const dp_model *m, size_t *n) {
    *n = 0;
    return m->tokenizer != NULL ? tokenizer_stops(m->tokenizer, n) : NULL;
}

bool dp_tokenize(const dp_model *m, const char *text, size_t size, bool add_special,
                 bool parse_special, dp_token *tokens, size_t max, size_t *n, dp_error *err) {
    return model_needs_tokenizer(m, err) &&
           tokenizer_encode(m->tokenizer, (str){ .data = text, .size = size }, add_special,
                            parse_special, tokens, max, n, err);
}

bool dp_detokenize(const dp_model *m, const dp_token *tokens, size_t n_tokens, bool special,
                   char *text, size_t max, size_t *n, dp_error *err) {
    if (!model_needs_tokenizer(m, err)) {
        return false;
    }
    buf out;
    buf_init(&out, TEXT_BYTES_MAX);
    const bool ok = tokenizer_decode(m->tokenizer, tokens, n_tokens, special, &out, err) &&
                    buf_ok(&out, "text of tokens", err);
    if (ok) {
        *n = out.size;
        if (max > 0 && out.size > 0) {
            memcpy(text, out.data, (size_t)min_u64(max, out.size));
        }
    }
    buf_free(&out);
    return ok;
}

dp_token dp_model_bos(const dp_model *m) {
    return m->tokenizer != NULL ? tokenizer_bos(m->tokenizer) : DP_NO_TOKEN;
}

dp_token dp_model_eos(const dp_model *m) {
    return m->tokenizer != NULL ? tokenizer_eos(m->tokenizer) : DP_NO_TOKEN;
}

bool dp_model_is_stop(const dp_model *m, dp_token token) {
    size_t n = 0;
    const dp_token *stops = model_stops(m, &n);
    for (size_t i = 0; i < n; i++) {
        if (stops[i] == token) {
            return true;
        }
    }
    return false;
}
