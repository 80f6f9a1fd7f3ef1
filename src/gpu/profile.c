/* profile: GPU time per kernel by timestamp queries (WebGPU 1.0, "Timestamp Query").
 *
 * Only where dp_device_options.profile asks for it: every dispatch then has a compute pass of its
 * own that writes two timestamps, and a submission waits for its times. A row gathers all
 * dispatches of one name. Everything but query sets is taken when the device is opened. */
#include "gpu/gpu_internal.h"

#include <stdio.h>

enum {
    SETS = 16,
    SET_QUERIES = 4096, /* WebGPU's limit of a query set */
    SET_BYTES = SET_QUERIES * 8,
    QUERIES = SETS * SET_QUERIES, /* 32,768 dispatches in a submission are timed */
    SPANS = 256,
};

struct gpu_profiler {
    WGPUQuerySet sets[SETS];
    WGPUBuffer resolved, back; /* SETS * SET_BYTES */
    uint32_t used;             /* queries in the open encoder */
    uint16_t span_of[QUERIES / 2];
    dp_profile_row spans[SPANS];
    uint32_t n_spans;
    double period; /* nanoseconds per unit */
};

bool profile_open(gpu *g, dp_error *err) {
    if (!g->info.timestamps) {
        return err_set(err, DP_E_UNSUPPORTED, "%s has no timestamps: kernels cannot be timed",
                       g->info.name);
    }
    gpu_profiler *p = g->profiler = mem_new(1, sizeof(*p), "a profiler", err);
    if (p == NULL) return false;
    /* The standard says nanoseconds; wgpu-native hands out the device's own units. */
    p->period = g->api.kind == LIBRARY_WGPU ? (double)g->api.QueueGetTimestampPeriod(g->queue) : 1;
    p->resolved =
        buffer_create(g, SETS * SET_BYTES, WGPUBufferUsage_QueryResolve | WGPUBufferUsage_CopySrc,
                      "timestamps", err);
    p->back = buffer_create(g, SETS * SET_BYTES, WGPUBufferUsage_MapRead | WGPUBufferUsage_CopyDst,
                            "timestamps read back", err);
    return p->resolved != NULL && p->back != NULL;
}

void profile_close(gpu *g) {
    gpu_profiler *p = g->profiler;
    if (p == NULL) return;
    for (size_t i = 0; i < SETS; i++) {
        if (p->sets[i] != NULL) g->api.QuerySetRelease(p->sets[i]);
    }
    buffer_destroy(g, p->resolved, SETS * SET_BYTES);
    buffer_destroy(g, p->back, SETS * SET_BYTES);
    mem_free(p);
    g->profiler = NULL;
}

uint32_t profile_span(gpu *g, const char *name) {
    gpu_profiler *p = g->profiler;
    if (p == NULL) return 0;
    for (uint32_t i = 0; i < p->n_spans; i++) {
        if (strncmp(p->spans[i].kernel, name, sizeof(p->spans[i].kernel) - 1) == 0) return i;
    }
    if (p->n_spans == SPANS) return SPANS - 1; /* more names than rows share the last */
    dp_profile_row *row = &p->spans[p->n_spans];
    *row = (dp_profile_row){ 0 };
    snprintf(row->kernel, sizeof(row->kernel), "%s", name);
    return p->n_spans++;
}

bool profile_begin(gpu *g, uint32_t row, WGPUPassTimestampWrites *writes) {
    gpu_profiler *p = g->profiler;
    if (p->used == QUERIES) {
        log_line(&g->log, DP_LOG_DEBUG,
                 "more than %d dispatches in a submission: not all are timed", QUERIES / 2);
        return false;
    }
    WGPUQuerySet *set = &p->sets[p->used / SET_QUERIES];
    if (*set == NULL) {
        const WGPUQuerySetDescriptor d = { .type = WGPUQueryType_Timestamp, .count = SET_QUERIES };
        *set = g->api.DeviceCreateQuerySet(g->device, &d);
        if (*set == NULL) return false;
    }
    *writes = (WGPUPassTimestampWrites){ .querySet = *set,
                                         .beginningOfPassWriteIndex = p->used % SET_QUERIES,
                                         .endOfPassWriteIndex = p->used % SET_QUERIES + 1 };
    p->span_of[p->used / 2] = (uint16_t)row;
    p->used += 2;
    return true;
}

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
}

static void on_times_mapped(WGPUMapAsyncStatus status, WGPUStringView message, void *user,
                            void *unused) {
    (void)unused;
    reply_fill(user, status, NULL, message);
}

void profile_collect(gpu *g) {
    gpu_profiler *p = g->profiler;
    const uint32_t used = p->used;
    p->used = 0;
    if (used == 0) return;
    reply r = { 0 };
    const WGPUBufferMapCallbackInfo info = { .mode = WGPUCallbackMode_AllowProcessEvents,
                                             .callback = on_times_mapped,
                                             .userdata1 = &r };
    const size_t size = (size_t)used * 8;
    gpu_await(g, g->api.BufferMapAsync(p->back, WGPUMapMode_Read, 0, size, info), &r);
    if (r.status != WGPUMapAsyncStatus_Success) return; /* lost: others say so */
    const uint64_t *times = g->api.BufferGetConstMappedRange(p->back, 0, size);
    for (uint32_t i = 0; times != NULL && i < used; i += 2) {
        dp_profile_row *row = &p->spans[p->span_of[i / 2]];
        row->calls++;
        /* A device may answer 0 for a query it lost; time does not run backwards. */
        if (times[i + 1] > times[i]) {
            row->nanoseconds += (uint64_t)((double)(times[i + 1] - times[i]) * p->period);
        }
    }
    g->api.BufferUnmap(p->back);
}

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

void gpu_profile_reset(gpu *g) {
    gpu_profiler *p = g->profiler;
    for (uint32_t i = 0; p != NULL && i < p->n_spans; i++) {
        p->spans[i].calls = 0;
        p->spans[i].nanoseconds = 0;
    }
}
