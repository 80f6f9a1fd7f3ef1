/* encode: records plans and copies into one command buffer, submits it, and brings results back.
 *
 * There is one encoder per device. It keeps one compute pass open as long as only dispatches follow
 * each other, sets nothing twice, latches its first failure and reports it at submission. Nothing
 * here takes host memory. Every submission has a number; read-backs go through a ring of mapped
 * buffers, so that several may be under way at a time. */
#include "gpu/gpu_internal.h"

enum { PLACE_MIN = 4096 }; /* bytes of a read-back buffer at least */

/* ---- recording ----------------------------------------------------------------------------- */

gpu_encoder *gpu_begin(gpu *g) {
    gpu_encoder *e = &g->encoder;
    assert(!e->open);
    *e = (gpu_encoder){ .g = g, .open = true, .began = clock_seconds() };
    if (!gpu_ok(g, &e->err)) return e;
    e->commands = g->api.DeviceCreateCommandEncoder(g->device, NULL);
    if (e->commands == NULL) err_set(&e->err, DP_E_DEVICE, "the device makes no command encoder");
    return e;
}

static void end_pass(gpu_encoder *e) {
    if (e->pass == NULL) return;
    e->g->api.ComputePassEncoderEnd(e->pass);
    e->g->api.ComputePassEncoderRelease(e->pass);
    e->pass = NULL;
}

static void begin_pass(gpu_encoder *e, const WGPUPassTimestampWrites *times) {
    const WGPUComputePassDescriptor d = { .timestampWrites = times };
    e->pass = e->g->api.CommandEncoderBeginComputePass(e->commands, &d);
    e->pipeline = NULL;
    e->data = NULL;
    e->params = NULL;
}

/* times * ceil(n / per), zero values meaning one. */
uint32_t count_groups(gpu_extent x, const gpu_sizes *sizes) {
    const uint64_t n = x.size == 0 ? 1 : sizes->n[x.size];
    const uint64_t per = max_u32(x.per, 1);
    const uint64_t groups = max_u32(x.times, 1) * ((n + per - 1) / per);
    assert(groups <= 65535); /* WebGPU's limit of a dimension: the caller spreads over y and z */
    return (uint32_t)groups;
}

void gpu_phase(gpu_encoder *e, dp_phase phase, uint32_t rows) {
    assert(e->open);
    if (e->g->profiler != NULL) profile_phase(e->g, phase, rows);
}

void encode_step(gpu_encoder *e, const gpu_plan *p, uint32_t i, WGPUBindGroup data,
                 const gpu_sizes *sizes) {
    gpu *g = e->g;
    const gpu_api *api = &g->api;
    const plan_step *s = &p->steps[i];
    const uint32_t x = count_groups(s->groups[0], sizes);
    const uint32_t y = count_groups(s->groups[1], sizes);
    const uint32_t z = count_groups(s->groups[2], sizes);
    if (x == 0 || y == 0 || z == 0) return;
    if (profile_splits(g)) end_pass(e);
    if (e->pass == NULL) {
        WGPUPassTimestampWrites times;
        begin_pass(e, profile_begin(g, s->span, &p->calls[i].cost, sizes, &times));
    }
    if (s->pipeline != e->pipeline) {
        api->ComputePassEncoderSetPipeline(e->pass, s->pipeline);
        e->pipeline = s->pipeline;
    }
    if (data != e->data) {
        api->ComputePassEncoderSetBindGroup(e->pass, 0, data, 0, NULL);
        e->data = data;
    }
    if (s->params_offset != NO_PARAMS &&
        (p->params_group != e->params || s->params_offset != e->params_offset)) {
        api->ComputePassEncoderSetBindGroup(e->pass, 1, p->params_group, 1, &s->params_offset);
        e->params = p->params_group;
        e->params_offset = s->params_offset;
    }
    api->ComputePassEncoderDispatchWorkgroups(e->pass, x, y, z);
    g->stats.dispatches++;
}

void gpu_encode(gpu_encoder *e, const gpu_plan *p, const gpu_sizes *sizes) {
    assert(e->open && p->finished && p->g == e->g);
    if (e->commands == NULL) return;
    for (uint32_t i = 0; i < p->n; i++)
        encode_step(e, p, i, p->steps[i].data, sizes);
}

static void check_range(const gpu *g, gpu_range r) {
    assert(r.buffer != NULL && r.buffer->g == g);
    assert(r.offset % 4 == 0 && r.size % 4 == 0);
    assert(r.offset <= r.buffer->size && r.size <= r.buffer->size - r.offset);
    (void)g, (void)r;
}

void gpu_encode_copy(gpu_encoder *e, gpu_range to, gpu_range from) {
    assert(e->open);
    check_range(e->g, to);
    check_range(e->g, from);
    assert(to.size == from.size && to.buffer != from.buffer); /* WebGPU wants two buffers */
    if (e->commands == NULL || to.size == 0) return;
    end_pass(e);
    e->g->api.CommandEncoderCopyBufferToBuffer(e->commands, from.buffer->handle, from.offset,
                                               to.buffer->handle, to.offset, from.size);
}

void gpu_encode_clear(gpu_encoder *e, gpu_range range) {
    assert(e->open);
    check_range(e->g, range);
    if (e->commands == NULL || range.size == 0) return;
    end_pass(e);
    e->g->api.CommandEncoderClearBuffer(e->commands, range.buffer->handle, range.offset,
                                        range.size);
}

/* ---- read-back ----------------------------------------------------------------------------- */

/* Makes a place hold at least `size` bytes. */
static bool fit_place(gpu *g, read_place *place, uint64_t size, dp_error *err) {
    if (place->capacity >= size) return true;
    uint64_t capacity = PLACE_MIN;
    while (capacity < size)
        capacity *= 2;
    WGPUBuffer buffer = buffer_create(
        g, capacity, WGPUBufferUsage_MapRead | WGPUBufferUsage_CopyDst, "read-back", err);
    if (buffer == NULL) return false;
    buffer_destroy(g, place->buffer, place->capacity);
    place->buffer = buffer;
    place->capacity = capacity;
    return true;
}

bool gpu_reserve_readback(gpu *g, uint64_t size, dp_error *err) {
    assert(size <= GPU_READBACK_MAX);
    for (size_t i = 0; i < GPU_READBACKS; i++) {
        if (g->places[i].state != PLACE_FREE) continue;
        if (!fit_place(g, &g->places[i], size, err)) return false;
    }
    return true;
}

void gpu_encode_read(gpu_encoder *e, gpu_range from) {
    gpu *g = e->g;
    assert(e->open && e->place == NULL);
    check_range(g, from);
    assert(from.size > 0 && from.size <= GPU_READBACK_MAX);
    if (e->commands == NULL) return;
    read_place *place = NULL;
    for (size_t i = 0; i < GPU_READBACKS; i++) { /* the smallest that is large enough, else any */
        read_place *p = &g->places[i];
        if (p->state != PLACE_FREE) continue;
        const bool fits = p->capacity >= from.size;
        const bool fitted = place != NULL && place->capacity >= from.size;
        if (place == NULL || (fits && (!fitted || p->capacity < place->capacity))) place = p;
    }
    if (place == NULL) {
        err_set(&e->err, DP_E_LIMIT, "%d read-backs are waiting to be collected", GPU_READBACKS);
        return;
    }
    if (!fit_place(g, place, from.size, &e->err)) return;
    place->state = PLACE_TAKEN;
    place->size = from.size;
    e->place = place;
    end_pass(e);
    g->api.CommandEncoderCopyBufferToBuffer(e->commands, from.buffer->handle, from.offset,
                                            place->buffer, 0, from.size);
}

static void on_mapped(WGPUMapAsyncStatus status, WGPUStringView message, void *user, void *unused) {
    (void)message, (void)unused;
    read_place *place = user;
    assert(place->state == PLACE_MAPPING);
    place->state = status == WGPUMapAsyncStatus_Success ? PLACE_MAPPED : PLACE_FAILED;
    if (!place->abandoned) return;
    place->abandoned = false;
    if (place->state == PLACE_MAPPED) place->g->api.BufferUnmap(place->buffer);
    place->state = PLACE_FREE;
}

static read_place *find_place(gpu *g, uint64_t number) {
    for (size_t i = 0; i < GPU_READBACKS; i++) {
        read_place *p = &g->places[i];
        if (p->state != PLACE_FREE && !p->abandoned && p->number == number) return p;
    }
    return NULL;
}

static void free_place(read_place *place) {
    if (place->state == PLACE_MAPPING) {
        place->abandoned = true; /* its callback is still to come */
        return;
    }
    if (place->state == PLACE_MAPPED) place->g->api.BufferUnmap(place->buffer);
    place->state = PLACE_FREE;
}

/* ---- submitting ---------------------------------------------------------------------------- */

/* A user pointer and a number in one callback: submissions finish in order, so the number is
 * enough. */
static void on_done(WGPUQueueWorkDoneStatus status, WGPUStringView message, void *user,
                    void *number) {
    (void)status, (void)message;
    gpu *g = user;
    g->completed = max_u64(g->completed, (uint64_t)(uintptr_t)number);
}

uint64_t encode_submit(gpu *g, WGPUCommandBuffer commands) {
    const uint64_t number = ++g->submitted;
    flight *f = &g->flights[number % FLIGHTS];
    *f = (flight){ .number = number };
    const size_t n = commands != NULL ? 1 : 0;
    g->handed_over = clock_seconds();
    if (g->api.kind == LIBRARY_WGPU) {
        f->index = g->api.QueueSubmitForIndex(g->queue, n, &commands);
    } else {
        g->api.QueueSubmit(g->queue, n, &commands);
    }
    const WGPUQueueWorkDoneCallbackInfo info = { .mode = WGPUCallbackMode_AllowProcessEvents,
                                                 .callback = on_done,
                                                 .userdata1 = g,
                                                 .userdata2 = (void *)(uintptr_t)number };
    f->future = g->api.QueueOnSubmittedWorkDone(g->queue, info);
    g->stats.submits++;
    g->unflushed = 0;
    return number;
}

/* Ends the recording; NULL if it failed. */
static WGPUCommandBuffer finish_commands(gpu_encoder *e) {
    gpu *g = e->g;
    if (e->commands == NULL) return NULL;
    end_pass(e);
    if (g->profiler != NULL) profile_resolve(g, e->commands);
    WGPUCommandBuffer commands = g->api.CommandEncoderFinish(e->commands, NULL);
    g->api.CommandEncoderRelease(e->commands);
    e->commands = NULL;
    if (commands == NULL) err_set(&e->err, DP_E_DEVICE, "the device ends no command buffer");
    return commands;
}

void encode_count(gpu *g, uint64_t *nanoseconds, const char *name, double start, double end) {
    if (end > start) *nanoseconds += (uint64_t)((end - start) * 1e9);
    trace_host(g, name, start, end);
}

bool gpu_submit(gpu_encoder *e, gpu_ticket *ticket, dp_error *err) {
    gpu *g = e->g;
    assert(e->open);
    if (ticket != NULL) *ticket = 0;
    const double recorded = clock_seconds();
    WGPUCommandBuffer commands = finish_commands(e);
    read_place *place = e->place;
    e->open = false;
    e->place = NULL;
    if (gpu_ok(g, &e->err) && e->err.status == DP_OK) {
        const uint64_t number = encode_submit(g, commands);
        if (ticket != NULL) *ticket = number;
        if (place != NULL) {
            place->number = number;
            place->state = PLACE_MAPPING;
            const WGPUBufferMapCallbackInfo info = { .mode = WGPUCallbackMode_AllowProcessEvents,
                                                     .callback = on_mapped,
                                                     .userdata1 = place };
            g->flights[number % FLIGHTS].future = g->api.BufferMapAsync(
                place->buffer, WGPUMapMode_Read, 0, (size_t)place->size, info);
            if (ticket == NULL) free_place(place); /* nobody will ask for it */
        }
    } else if (place != NULL) {
        place->state = PLACE_FREE;
    }
    if (commands != NULL) g->api.CommandBufferRelease(commands);
    encode_count(g, &g->stats.encode_ns, "encode", e->began, recorded);
    encode_count(g, &g->stats.submit_ns, "submit", recorded, clock_seconds());
    if (e->err.status != DP_OK) {
        if (g->profiler != NULL) profile_abandon(g);
        return err_set(err, e->err.status, "%s", e->err.message);
    }
    if (g->profiler != NULL) profile_collect(g);
    buffers_reap(g);
    return true;
}

bool gpu_poll(gpu *g, gpu_ticket ticket) {
    assert(ticket > 0 && ticket <= g->submitted);
    for (int round = 0;; round++) {
        const read_place *place = find_place(g, ticket);
        const bool mapped = place == NULL || place->state != PLACE_MAPPING;
        if ((g->completed >= ticket && mapped) || atomic_load(&g->lost)) return true;
        if (round > 0) return false;
        gpu_pump(g);
    }
}

/* The future of a submission that is no longer remembered is that of the oldest which is: it
 * finishes later. */
void encode_block(gpu *g, uint64_t number) {
    const uint64_t oldest = g->submitted > FLIGHTS - 1 ? g->submitted - (FLIGHTS - 1) : 1;
    const flight *f = &g->flights[max_u64(number, oldest) % FLIGHTS];
    gpu_block(g, f->future, &f->index);
}

void gpu_wait(gpu *g, gpu_ticket ticket) {
    const double start = clock_seconds();
    while (!gpu_poll(g, ticket))
        encode_block(g, ticket);
    encode_count(g, &g->stats.wait_ns, "wait", start, clock_seconds());
}

void encode_wait(gpu *g, uint64_t number) {
    assert(number <= g->submitted);
    while (g->completed < number && !atomic_load(&g->lost))
        encode_block(g, number);
}

bool gpu_collect(gpu *g, gpu_ticket ticket, void *out, size_t size, dp_error *err) {
    const bool finished = gpu_poll(g, ticket);
    assert(finished);
    (void)finished;
    read_place *place = find_place(g, ticket);
    bool ok = gpu_ok(g, err);
    if (ok && size > 0) {
        assert(place != NULL && size <= place->size);
        const void *bytes = place->state == PLACE_MAPPED
                                ? g->api.BufferGetConstMappedRange(place->buffer, 0, size)
                                : NULL;
        if (bytes != NULL) memcpy(out, bytes, size);
        g->stats.bytes_read += size;
        ok = bytes != NULL || err_set(err, DP_E_DEVICE, "the device maps no read-back buffer");
    }
    if (place != NULL) free_place(place);
    buffers_reap(g);
    return ok;
}

void gpu_drop(gpu *g, gpu_ticket ticket) {
    read_place *place = find_place(g, ticket);
    if (place != NULL) free_place(place);
}

void encode_close(gpu *g) {
    gpu_encoder *e = &g->encoder;
    if (e->open) { /* given up in the middle of a recording */
        end_pass(e);
        if (e->commands != NULL) g->api.CommandEncoderRelease(e->commands);
        if (e->place != NULL) e->place->state = PLACE_FREE;
        *e = (gpu_encoder){ .g = g };
    }
    encode_wait(g, g->submitted);
    for (size_t i = 0; i < GPU_READBACKS; i++) {
        read_place *place = &g->places[i];
        while (place->state == PLACE_MAPPING && !atomic_load(&g->lost))
            encode_block(g, place->number);
        if (place->state != PLACE_FREE) free_place(place);
    }
}
