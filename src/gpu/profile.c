/* profile: GPU time by timestamp queries (WebGPU 1.0, "Timestamp Query").
 *
 * Only where dp_device_options.profile asks for it, in one of two ways. Kernels: every dispatch has
 * a compute pass of its own that writes two timestamps, and a submission waits for its times; a row
 * gathers all dispatches of one role, kernel and phase. Steps: passes are as without a profile, and
 * each writes two; the times come in by callback (a lap each submission), so nothing waits.
 * Everything but query sets is taken when the device is opened. */
#include "gpu/gpu_internal.h"

#include <stdio.h>

enum {
    SETS = 16,
    SET_QUERIES = 4096, /* WebGPU's limit of a query set */
    SET_BYTES = SET_QUERIES * 8,
    QUERIES = SETS * SET_QUERIES, /* 32,768 dispatches in a submission are timed */
    SPANS = 512,                  /* two to a role and kernel: DP_PHASES */
    LAPS = 16,
    LAP_QUERIES = 64, /* 32 passes; its bytes are a multiple of 256, as resolving wants */
    LAP_BYTES = LAP_QUERIES * 8,
};

/* Times of one submission, in steps. */
typedef struct {
    gpu *g;
    enum { LAP_FREE, LAP_OPEN, LAP_MAPPING } state;
    WGPUBuffer back;
    WGPUFuture future;
    uint32_t used; /* queries */
    bool alone;    /* of profile_alone */
    double handed_over;
    uint64_t rows[DP_PHASES];
    uint8_t phase_of[LAP_QUERIES / 2];
} lap;

struct gpu_profiler {
    dp_profile_mode mode;
    dp_phase phase;
    dp_profile_phase phases[DP_PHASES];
    uint64_t rows[DP_PHASES]; /* encoded since the last submission */
    WGPUQuerySet sets[SETS], lap_set;
    WGPUBuffer resolved, back; /* SETS * SET_BYTES */
    WGPUBuffer lap_resolved;   /* LAPS * LAP_BYTES */
    lap laps[LAPS];
    lap *open;     /* of the encoder that is open */
    bool left_out; /* a pass of it was not timed */
    bool alone, split;
    uint64_t alone_ns;
    uint32_t used; /* queries in the open encoder */
    uint16_t span_of[QUERIES / 2];
    dp_profile_row spans[SPANS];
    uint32_t n_spans;
    double period; /* nanoseconds per unit */
    uint64_t zero; /* the first time that was read: what begins there keeps its precision */
};

bool profile_open(gpu *g, dp_error *err) {
    if (!gpu_may_block(g)) {
        return err_set(err, DP_E_UNSUPPORTED, "%s: kernels are not timed in a browser",
                       g->info.name);
    }
    if (!g->info.timestamps) {
        return err_set(err, DP_E_UNSUPPORTED, "%s has no timestamps: kernels cannot be timed",
                       g->info.name);
    }
    gpu_profiler *p = g->profiler = mem_new(1, sizeof(*p), "a profiler", err);
    if (p == NULL) return false;
    /* The standard says nanoseconds; wgpu-native hands out the device's own units. */
    p->period = g->api.kind == LIBRARY_WGPU ? (double)g->api.QueueGetTimestampPeriod(g->queue) : 1;
    const WGPUBufferUsage resolve = WGPUBufferUsage_QueryResolve | WGPUBufferUsage_CopySrc;
    const WGPUBufferUsage read = WGPUBufferUsage_MapRead | WGPUBufferUsage_CopyDst;
    p->resolved = buffer_create(g, SETS * SET_BYTES, resolve, "timestamps", err);
    p->back = buffer_create(g, SETS * SET_BYTES, read, "timestamps read back", err);
    p->lap_resolved = buffer_create(g, LAPS * LAP_BYTES, resolve, "timestamps of steps", err);
    bool ok = p->resolved != NULL && p->back != NULL && p->lap_resolved != NULL;
    for (uint32_t i = 0; i < LAPS && ok; i++) {
        p->laps[i].g = g;
        p->laps[i].back = buffer_create(g, LAP_BYTES, read, "timestamps read back", err);
        ok = p->laps[i].back != NULL;
    }
    return ok;
}

/* A lost device answers nothing more: its callbacks come when the buffers go. */
static void await_laps(gpu *g) {
    for (size_t i = 0; i < LAPS; i++) {
        const lap *l = &g->profiler->laps[i];
        if (l->state != LAP_MAPPING) continue;
        const double start = clock_seconds();
        while (l->state == LAP_MAPPING && !atomic_load(&g->lost))
            gpu_block(g, l->future, NULL);
        encode_count(g, &g->stats.wait_ns, "wait", start, clock_seconds());
    }
}

void profile_close(gpu *g) {
    gpu_profiler *p = g->profiler;
    if (p == NULL) return;
    await_laps(g);
    for (size_t i = 0; i < SETS; i++) {
        if (p->sets[i] != NULL) g->api.QuerySetRelease(p->sets[i]);
    }
    if (p->lap_set != NULL) g->api.QuerySetRelease(p->lap_set);
    buffer_destroy(g, p->resolved, SETS * SET_BYTES);
    buffer_destroy(g, p->back, SETS * SET_BYTES);
    buffer_destroy(g, p->lap_resolved, LAPS * LAP_BYTES);
    for (size_t i = 0; i < LAPS; i++)
        buffer_destroy(g, p->laps[i].back, LAP_BYTES);
}

/* ---- what is timed ------------------------------------------------------------------------- */

uint32_t profile_span(gpu *g, const char *role, const char *kernel) {
    gpu_profiler *p = g->profiler;
    if (p == NULL) return 0;
    if (role == NULL) role = "";
    for (uint32_t i = 0; i < p->n_spans; i += DP_PHASES) {
        const dp_profile_row *row = &p->spans[i];
        if (strncmp(row->kernel, kernel, sizeof(row->kernel) - 1) == 0 &&
            strncmp(row->role, role, sizeof(row->role) - 1) == 0) {
            return i;
        }
    }
    if (p->n_spans == SPANS) return SPANS - DP_PHASES; /* more names than rows share the last */
    for (uint32_t phase = 0; phase < DP_PHASES; phase++) {
        dp_profile_row *row = &p->spans[p->n_spans + phase];
        *row = (dp_profile_row){ .phase = (dp_phase)phase };
        snprintf(row->kernel, sizeof(row->kernel), "%s", kernel);
        snprintf(row->role, sizeof(row->role), "%s", role);
    }
    p->n_spans += DP_PHASES;
    return p->n_spans - DP_PHASES;
}

gpu_cost_term gpu_cost_of(const gpu_cost *cost, const gpu_sizes *sizes) {
    gpu_cost_term sum = { 0 };
    for (uint32_t i = 0; i < GPU_COST_TERMS; i++) {
        const gpu_cost_term *t = &cost->terms[i];
        uint64_t n = t->size == 0 ? 1 : sizes->n[t->size];
        if (t->most > 0) n = min_u64(n, (uint64_t)t->most * sizes->n[t->of]);
        sum.bytes += n * t->bytes;
        sum.flops += n * t->flops;
    }
    return sum;
}

bool profile_splits(const gpu *g) {
    const gpu_profiler *p = g->profiler;
    return p != NULL && (p->mode == DP_PROFILE_KERNELS || p->split);
}

void profile_phase(gpu *g, dp_phase phase, uint32_t rows) {
    gpu_profiler *p = g->profiler;
    p->phase = phase;
    p->rows[phase] += rows;
}

static bool make_set(gpu *g, WGPUQuerySet *set, uint32_t n) {
    if (*set != NULL) return true;
    const WGPUQuerySetDescriptor d = { .type = WGPUQueryType_Timestamp, .count = n };
    *set = g->api.DeviceCreateQuerySet(g->device, &d);
    return *set != NULL;
}

static bool time_dispatch(gpu *g, uint32_t span, const gpu_cost *cost, const gpu_sizes *sizes,
                          WGPUPassTimestampWrites *writes) {
    gpu_profiler *p = g->profiler;
    if (p->used == QUERIES) {
        log_line(&g->log, DP_LOG_DEBUG,
                 "more than %d dispatches in a submission: not all are timed", QUERIES / 2);
        return false;
    }
    WGPUQuerySet *set = &p->sets[p->used / SET_QUERIES];
    if (!make_set(g, set, SET_QUERIES)) return false;
    *writes = (WGPUPassTimestampWrites){ .querySet = *set,
                                         .beginningOfPassWriteIndex = p->used % SET_QUERIES,
                                         .endOfPassWriteIndex = p->used % SET_QUERIES + 1 };
    dp_profile_row *row = &p->spans[span + p->phase];
    const gpu_cost_term sum = gpu_cost_of(cost, sizes);
    row->bytes += sum.bytes;
    row->flops += sum.flops;
    p->span_of[p->used / 2] = (uint16_t)(span + p->phase);
    p->used += 2;
    return true;
}

static void open_lap(gpu_profiler *p) {
    for (size_t i = 0; i < LAPS; i++) {
        lap *l = &p->laps[i];
        if (l->state != LAP_FREE) continue;
        l->state = LAP_OPEN;
        l->used = 0;
        l->alone = p->alone;
        p->open = l;
        return;
    }
}

static bool time_pass(gpu *g, WGPUPassTimestampWrites *writes) {
    gpu_profiler *p = g->profiler;
    if (p->open == NULL && !p->left_out) open_lap(p);
    lap *l = p->open;
    if (l == NULL || l->used == LAP_QUERIES || !make_set(g, &p->lap_set, LAPS * LAP_QUERIES)) {
        p->left_out = true; /* so the submission counts for nothing */
        return false;
    }
    const uint32_t at = (uint32_t)(l - p->laps) * LAP_QUERIES + l->used;
    *writes = (WGPUPassTimestampWrites){ .querySet = p->lap_set,
                                         .beginningOfPassWriteIndex = at,
                                         .endOfPassWriteIndex = at + 1 };
    l->phase_of[l->used / 2] = (uint8_t)p->phase;
    l->used += 2;
    return true;
}

const WGPUPassTimestampWrites *profile_begin(gpu *g, uint32_t span, const gpu_cost *cost,
                                             const gpu_sizes *sizes,
                                             WGPUPassTimestampWrites *storage) {
    if (g->profiler == NULL) return NULL;
    const bool kernels = g->profiler->mode == DP_PROFILE_KERNELS;
    const bool timed =
        kernels ? time_dispatch(g, span, cost, sizes, storage) : time_pass(g, storage);
    return timed ? storage : NULL;
}

/* ---- bringing the times in ----------------------------------------------------------------- */

void profile_resolve(gpu *g, WGPUCommandEncoder commands) {
    gpu_profiler *p = g->profiler;
    for (uint32_t first = 0; first < p->used; first += SET_QUERIES) {
        g->api.CommandEncoderResolveQuerySet(commands, p->sets[first / SET_QUERIES], 0,
                                             min_u32(p->used - first, SET_QUERIES), p->resolved,
                                             (uint64_t)first * 8);
    }
    if (p->used > 0) {
        g->api.CommandEncoderCopyBufferToBuffer(commands, p->resolved, 0, p->back, 0,
                                                (uint64_t)p->used * 8);
    }
    lap *l = p->open;
    if (l == NULL || p->left_out) return;
    const uint32_t i = (uint32_t)(l - p->laps);
    const uint64_t at = (uint64_t)i * LAP_BYTES;
    g->api.CommandEncoderResolveQuerySet(commands, p->lap_set, i * LAP_QUERIES, l->used,
                                         p->lap_resolved, at);
    g->api.CommandEncoderCopyBufferToBuffer(commands, p->lap_resolved, at, l->back, 0,
                                            (uint64_t)l->used * 8);
}

/* Between two timestamps; a device may answer 0 for a query it lost, time does not run
 * backwards. */
static uint64_t time_between(const gpu_profiler *p, uint64_t start, uint64_t end) {
    return end > start ? (uint64_t)((double)(end - start) * p->period) : 0;
}

/* For traces: since the first of all. */
static double seconds_at(gpu_profiler *p, uint64_t time) {
    if (p->zero == 0) p->zero = time;
    const bool later = time >= p->zero;
    const double units = (double)(later ? time - p->zero : p->zero - time);
    return (later ? 1e-9 : -1e-9) * units * p->period;
}

static void on_times_mapped(WGPUMapAsyncStatus status, WGPUStringView message, void *user,
                            void *unused) {
    (void)unused;
    reply_fill(user, status, NULL, message);
}

static void collect_dispatches(gpu *g) {
    gpu_profiler *p = g->profiler;
    const uint32_t used = p->used;
    reply r = { 0 };
    const WGPUBufferMapCallbackInfo info = { .mode = WGPUCallbackMode_AllowProcessEvents,
                                             .callback = on_times_mapped,
                                             .userdata1 = &r };
    const size_t size = (size_t)used * 8;
    gpu_await(g, g->api.BufferMapAsync(p->back, WGPUMapMode_Read, 0, size, info), &r);
    if (r.status != WGPUMapAsyncStatus_Success) return; /* lost: others say so */
    const uint64_t *times = g->api.BufferGetConstMappedRange(p->back, 0, size);
    if (times != NULL) trace_gap(g, g->handed_over, seconds_at(p, times[0]));
    for (uint32_t i = 0; times != NULL && i < used; i += 2) {
        dp_profile_row *row = &p->spans[p->span_of[i / 2]];
        const uint64_t ns = time_between(p, times[i], times[i + 1]);
        row->calls++;
        row->nanoseconds += ns;
        trace_device(g, row, seconds_at(p, times[i]), 1e-9 * (double)ns);
    }
    g->api.BufferUnmap(p->back);
}

static void add_lap(const lap *l, const uint64_t *times) {
    static const dp_profile_row passes[DP_PHASES] = {
        { .kernel = "pass", .phase = DP_PHASE_DECODE },
        { .kernel = "pass", .phase = DP_PHASE_PREFILL },
    };
    gpu_profiler *p = l->g->profiler;
    if (!l->alone) trace_gap(l->g, l->handed_over, seconds_at(p, times[0]));
    for (uint32_t i = 0; i < l->used; i += 2) {
        const dp_phase phase = (dp_phase)l->phase_of[i / 2];
        const uint64_t ns = time_between(p, times[i], times[i + 1]);
        if (l->alone) {
            p->alone_ns += ns;
            continue;
        }
        p->phases[phase].step_nanoseconds += ns;
        trace_device(l->g, &passes[phase], seconds_at(p, times[i]), 1e-9 * (double)ns);
    }
    for (uint32_t i = 0; i < DP_PHASES && !l->alone; i++)
        p->phases[i].step_rows += l->rows[i];
}

static void on_lap_mapped(WGPUMapAsyncStatus status, WGPUStringView message, void *user,
                          void *unused) {
    (void)message, (void)unused;
    lap *l = user;
    assert(l->state == LAP_MAPPING);
    l->state = LAP_FREE;
    if (status != WGPUMapAsyncStatus_Success) return;
    const size_t size = (size_t)l->used * 8;
    const uint64_t *times = l->g->api.BufferGetConstMappedRange(l->back, 0, size);
    if (times != NULL) add_lap(l, times);
    l->g->api.BufferUnmap(l->back);
}

static void collect_lap(gpu *g) {
    gpu_profiler *p = g->profiler;
    lap *l = p->open;
    memcpy(l->rows, p->rows, sizeof(l->rows));
    l->handed_over = g->handed_over;
    l->state = LAP_MAPPING;
    const WGPUBufferMapCallbackInfo info = { .mode = WGPUCallbackMode_AllowProcessEvents,
                                             .callback = on_lap_mapped,
                                             .userdata1 = l };
    l->future = g->api.BufferMapAsync(l->back, WGPUMapMode_Read, 0, (size_t)l->used * 8, info);
}

/* Until the next submission. */
static void forget_open(gpu_profiler *p) {
    p->used = 0;
    p->open = NULL;
    p->left_out = false;
    memset(p->rows, 0, sizeof(p->rows));
}

void profile_collect(gpu *g) {
    gpu_profiler *p = g->profiler;
    if (p->mode == DP_PROFILE_KERNELS) {
        for (uint32_t i = 0; i < DP_PHASES; i++)
            p->phases[i].kernel_rows += p->rows[i];
        const double start = clock_seconds();
        if (p->used > 0) collect_dispatches(g);
        encode_count(g, &g->stats.wait_ns, "wait", start, clock_seconds());
    } else if (p->open != NULL && !p->left_out) {
        collect_lap(g);
    } else if (p->open != NULL) {
        p->open->state = LAP_FREE;
    }
    forget_open(p);
}

void profile_abandon(gpu *g) {
    gpu_profiler *p = g->profiler;
    if (p->open != NULL) p->open->state = LAP_FREE;
    forget_open(p);
}

void profile_alone(gpu *g, bool split) {
    gpu_profiler *p = g->profiler;
    assert(p->mode == DP_PROFILE_STEPS);
    await_laps(g);
    p->alone = true;
    p->split = split;
    p->alone_ns = 0;
}

uint64_t profile_alone_end(gpu *g) {
    await_laps(g);
    g->profiler->alone = g->profiler->split = false;
    return g->profiler->alone_ns;
}

bool gpu_profiles(const gpu *g) {
    return g->profiler != NULL;
}

/* ---- telling ------------------------------------------------------------------------------- */

void gpu_profile(gpu *g, dp_profile_row *rows, size_t max, size_t *n) {
    const gpu_profiler *p = g->profiler;
    *n = 0;
    bool given[SPANS] = { false };
    for (uint32_t round = 0; p != NULL && round < p->n_spans; round++) {
        uint32_t best = SPANS;
        for (uint32_t i = 0; i < p->n_spans; i++) {
            if (given[i] || p->spans[i].calls == 0) continue;
            if (best == SPANS || p->spans[i].nanoseconds > p->spans[best].nanoseconds) best = i;
        }
        if (best == SPANS) return;
        given[best] = true;
        if (*n < max) rows[*n] = p->spans[best];
        ++*n;
    }
}

void gpu_profile_phases(gpu *g, dp_profile_phase phases[DP_PHASES]) {
    memset(phases, 0, DP_PHASES * sizeof(*phases));
    if (g->profiler == NULL) return;
    await_laps(g);
    memcpy(phases, g->profiler->phases, sizeof(g->profiler->phases));
}

dp_profile_mode gpu_profile_mode(gpu *g, dp_profile_mode mode) {
    assert(!g->encoder.open);
    if (g->profiler == NULL) return mode;
    const dp_profile_mode before = g->profiler->mode;
    g->profiler->mode = mode;
    return before;
}

void gpu_profile_reset(gpu *g) {
    gpu_profiler *p = g->profiler;
    if (p == NULL) return;
    await_laps(g);
    memset(p->phases, 0, sizeof(p->phases));
    for (uint32_t i = 0; i < p->n_spans; i++) {
        dp_profile_row *row = &p->spans[i];
        row->calls = row->nanoseconds = row->bytes = row->flops = 0;
    }
}
