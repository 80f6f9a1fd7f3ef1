/* buffer: device memory, uploads and the counting of both.
 *
 * Every buffer is made inside an error scope, so that a refusal is an answer and not a fault, and
 * is destroyed only when the last submission that might use it has completed. Uploads go in pieces
 * through the queue, never more than UNDER_WAY_MAX of them ahead of the device: an implementation
 * keeps a copy of each until then. What is large and made by several threads goes through staging:
 * mapped buffers that are filled in place, copied from, and mapped again once the device is done.
 * Where nothing can wait (a browser) staging is one piece of plain memory that goes through the
 * queue, and whoever calls keeps count of what is under way. */
#include "gpu/gpu_internal.h"

enum {
    UPLOAD_PIECE = 4 * 1024 * 1024,
    UNDER_WAY_MAX = 64 * 1024 * 1024,
};

uint64_t gpu_memory_limit(const gpu *g) {
    const bool on_host = strcmp(g->info.type, "cpu") == 0;
    const uint64_t all = g->max_memory > 0 ? g->max_memory : on_host ? memory_of_host() : 0;
    return all > 0 ? all : UINT64_MAX;
}

uint64_t gpu_memory_room(const gpu *g) {
    const uint64_t all = gpu_memory_limit(g);
    if (all == UINT64_MAX) return all;
    return all > g->stats.device_bytes ? all - g->stats.device_bytes : 0;
}

static bool check_room(gpu *g, uint64_t size, const char *label, dp_error *err) {
    if (size > g->limits.maxBufferSize) {
        return err_set(err, DP_E_MEMORY, "%s: %llu bytes asked, a buffer of %s holds at most %llu",
                       label, (unsigned long long)size, g->info.name,
                       (unsigned long long)g->limits.maxBufferSize);
    }
    if (g->max_memory == 0) return true;
    /* What is freed and still in use by the GPU counts until it is really gone. */
    if (g->graveyard != NULL && g->stats.device_bytes + size > g->max_memory && gpu_may_block(g)) {
        encode_wait(g, g->submitted);
        buffers_reap(g);
    }
    const uint64_t held = g->stats.device_bytes;
    if (held <= g->max_memory && size <= g->max_memory - held) return true;
    return err_set(err, DP_E_MEMORY, "%s: %llu bytes asked, %llu of the allowed %llu are left",
                   label, (unsigned long long)size,
                   (unsigned long long)(held < g->max_memory ? g->max_memory - held : 0),
                   (unsigned long long)g->max_memory);
}

WGPUBuffer buffer_create(gpu *g, uint64_t size, WGPUBufferUsage usage, const char *label,
                         dp_error *err) {
    if (!gpu_ok(g, err) || !check_room(g, size, label, err)) return NULL;
    const WGPUBufferDescriptor d = { .label = view_of(label), .usage = usage, .size = size };
    const uint32_t scopes = scope_begin(g);
    WGPUBuffer handle = g->api.DeviceCreateBuffer(g->device, &d);
    dp_error why = { 0 };
    if (!scope_end(g, scopes, &why) || handle == NULL) {
        if (handle != NULL) g->api.BufferRelease(handle);
        err_set(err, why.status != DP_OK ? why.status : DP_E_MEMORY,
                "%s: %llu bytes asked, %llu held: %s", label, (unsigned long long)size,
                (unsigned long long)g->stats.device_bytes,
                why.message[0] != '\0' ? why.message : "the device refuses");
        return NULL;
    }
    g->stats.device_bytes += size;
    g->stats.device_bytes_peak = max_u64(g->stats.device_bytes_peak, g->stats.device_bytes);
    return handle;
}

void buffer_destroy(gpu *g, WGPUBuffer handle, uint64_t size) {
    if (handle == NULL) return;
    assert(g->stats.device_bytes >= size);
    g->stats.device_bytes -= size;
    g->api.BufferDestroy(handle);
    g->api.BufferRelease(handle);
}

gpu_buffer *gpu_buffer_new(gpu *g, uint64_t size, const char *label, dp_error *err) {
    assert(label != NULL);
    buffers_reap(g);
    if (size == 0) size = 4; /* an empty buffer cannot be bound */
    if (size > UINT64_MAX - 3) size = UINT64_MAX - 3;
    size = align_up(size, 4);
    gpu_buffer *b = mem_new(1, sizeof(*b), "a buffer", err);
    if (b == NULL) return NULL;
    b->g = g;
    b->size = size;
    b->handle = buffer_create(g, size,
                              WGPUBufferUsage_Storage | WGPUBufferUsage_Uniform |
                                  WGPUBufferUsage_CopySrc | WGPUBufferUsage_CopyDst,
                              label, err);
    if (b->handle == NULL) {
        mem_free(b);
        return NULL;
    }
    b->next = g->buffers;
    b->link = &g->buffers;
    if (b->next != NULL) b->next->link = &b->next;
    g->buffers = b;
    /* Its toggles have Dawn leave memory as it was (library.c). */
    if (g->api.kind == LIBRARY_DAWN) {
        WGPUCommandEncoder e = g->api.DeviceCreateCommandEncoder(g->device, NULL);
        g->api.CommandEncoderClearBuffer(e, b->handle, 0, size);
        WGPUCommandBuffer commands = g->api.CommandEncoderFinish(e, NULL);
        encode_submit(g, commands);
        g->api.CommandBufferRelease(commands);
        g->api.CommandEncoderRelease(e);
    }
    return b;
}

void gpu_buffer_free(gpu_buffer *b) {
    if (b == NULL) return;
    assert(b->users ==
           0); /* wgpu-native aborts at the submission of a plan with a destroyed buffer */
    gpu *g = b->g;
    *b->link = b->next;
    if (b->next != NULL) b->next->link = b->link;
    /* An open encoder may use it too. */
    b->after = g->submitted + (g->encoder.open ? 1 : 0);
    b->next = g->graveyard;
    g->graveyard = b;
    buffers_reap(g);
}

void buffers_reap(gpu *g) {
    /* A browser keeps what submitted work uses until that is done. */
    const uint64_t done = gpu_may_block(g) ? g->completed : g->submitted;
    for (gpu_buffer **link = &g->graveyard; *link != NULL;) {
        gpu_buffer *b = *link;
        if (b->after > done && !atomic_load(&g->lost)) {
            link = &b->next;
            continue;
        }
        *link = b->next;
        buffer_destroy(g, b->handle, b->size);
        mem_free(b);
    }
}

void buffers_close(gpu *g) {
    while (g->buffers != NULL)
        gpu_buffer_free(g->buffers);
    g->completed = g->submitted; /* encode_close has waited */
    buffers_reap(g);
    assert(g->graveyard == NULL);
    for (size_t i = 0; i < GPU_READBACKS; i++) {
        buffer_destroy(g, g->places[i].buffer, g->places[i].capacity);
        g->places[i].buffer = NULL;
    }
    assert(g->stats.device_bytes == 0);
}

uint64_t gpu_buffer_size(const gpu_buffer *b) {
    return b->size;
}

gpu_range gpu_whole(gpu_buffer *b) {
    assert(b != NULL);
    return (gpu_range){ b, 0, b->size };
}

gpu_range gpu_part(gpu_range r, uint64_t offset, uint64_t size) {
    assert(offset <= r.size && size <= r.size - offset);
    return (gpu_range){ r.buffer, r.offset + offset, size };
}

bool gpu_write(gpu *g, gpu_range range, const void *bytes, dp_error *err) {
    assert(range.buffer != NULL && range.buffer->g == g);
    assert(range.offset % 4 == 0 && range.size % 4 == 0);
    assert(range.offset <= range.buffer->size && range.size <= range.buffer->size - range.offset);
    for (uint64_t done = 0; done < range.size;) {
        if (!gpu_ok(g, err)) return false;
        const uint64_t n = min_u64(range.size - done, UPLOAD_PIECE);
        g->api.QueueWriteBuffer(g->queue, range.buffer->handle, range.offset + done,
                                (const char *)bytes + done, (size_t)n);
        done += n;
        g->stats.bytes_written += n;
        g->unflushed += n;
        if (g->unflushed < UNDER_WAY_MAX / 2 || !gpu_may_block(g)) continue;
        /* Half of what may be under way: send it, and wait for the half before. */
        const uint64_t before = g->flush;
        g->flush = encode_submit(g, NULL);
        encode_wait(g, before);
    }
    return gpu_ok(g, err);
}

bool gpu_read(gpu *g, gpu_range range, void *out, dp_error *err) {
    assert(range.offset % 4 == 0 && range.size % 4 == 0);
    for (uint64_t done = 0; done < range.size;) {
        const uint64_t n = min_u64(range.size - done, GPU_READBACK_MAX);
        gpu_ticket ticket;
        gpu_encoder *e = gpu_begin(g);
        gpu_encode_read(e, gpu_part(range, done, n));
        if (!gpu_submit(e, &ticket, err)) return false;
        gpu_wait(g, ticket);
        if (!gpu_collect(g, ticket, (char *)out + done, (size_t)n, err)) return false;
        done += n;
    }
    return gpu_ok(g, err);
}

/* ---- staging ------------------------------------------------------------------------------- */

typedef enum { STAGE_FREE, STAGE_TAKEN, STAGE_SENT, STAGE_FAILED } stage_state;

typedef struct {
    stage_state state;
    WGPUBuffer buffer; /* NULL: `memory` in its place */
    void *memory;
    uint64_t number; /* of the submission: SENT */
    gpu_staging *of;
} stage;

struct gpu_staging {
    gpu *g;
    uint64_t size;    /* of a piece */
    uint32_t n, most; /* made so far; to make */
    stage stages[GPU_STAGES_MAX];
};

/* Not counted as memory of the device: it is the host's, and an implementation's own copies of
 * what is written are not counted either. */
static bool make_stage(gpu_staging *s, stage *p, dp_error *err) {
    gpu *g = s->g;
    const WGPUBufferDescriptor d = { .label = view_of("staging"),
                                     .usage = WGPUBufferUsage_MapWrite | WGPUBufferUsage_CopySrc,
                                     .size = s->size,
                                     .mappedAtCreation = true };
    p->of = s;
    if (!gpu_may_block(g)) {
        p->memory = mem_new((size_t)s->size, 1, "staging", err);
        return p->memory != NULL;
    }
    const uint32_t scopes = scope_begin(g);
    p->buffer = g->api.DeviceCreateBuffer(g->device, &d);
    if (!scope_end(g, scopes, err)) return false;
    return p->buffer != NULL ||
           err_set(err, DP_E_MEMORY, "staging: the device maps no buffer of %llu bytes",
                   (unsigned long long)s->size);
}

gpu_staging *gpu_staging_new(gpu *g, uint32_t n, uint64_t size, dp_error *err) {
    assert(n > 0 && n <= GPU_STAGES_MAX && size > 0);
    if (!gpu_ok(g, err)) return NULL;
    gpu_staging *s = mem_new(1, sizeof(*s), "staging", err);
    if (s == NULL) return NULL;
    *s = (gpu_staging){ .g = g, .size = align_up(size, 16), .most = gpu_may_block(g) ? n : 1 };
    if (make_stage(s, &s->stages[0], err)) {
        s->n = 1;
        return s;
    }
    gpu_staging_free(s);
    return NULL;
}

static void on_staged(WGPUMapAsyncStatus status, WGPUStringView message, void *user, void *unused) {
    (void)message, (void)unused;
    stage *p = user;
    p->state = status == WGPUMapAsyncStatus_Success ? STAGE_FREE : STAGE_FAILED;
}

/* The piece that was sent first, or none. */
static const stage *oldest_sent(const gpu_staging *s) {
    const stage *oldest = NULL;
    for (uint32_t i = 0; i < s->n; i++) {
        const stage *p = &s->stages[i];
        if (p->state == STAGE_SENT && (oldest == NULL || p->number < oldest->number)) oldest = p;
    }
    return oldest;
}

/* Only of a device that is there: wgpu-native aborts when a lost one is asked for memory. */
static void *take_stage(stage *p, dp_error *err) {
    const gpu *g = p->of->g;
    void *memory = p->memory != NULL
                       ? p->memory
                       : g->api.BufferGetMappedRange(p->buffer, 0, (size_t)p->of->size);
    p->state = memory != NULL ? STAGE_TAKEN : STAGE_FAILED;
    if (memory == NULL) err_set(err, DP_E_DEVICE, "staging: the device maps no memory");
    return memory;
}

void *gpu_staging_take(gpu_staging *s, bool wait, uint32_t *piece, dp_error *err) {
    for (bool pumped = false;; pumped = true) {
        if (!gpu_ok(s->g, err)) return NULL;
        for (*piece = 0; *piece < s->n; ++*piece) {
            if (s->stages[*piece].state == STAGE_FREE) return take_stage(&s->stages[*piece], err);
        }
        if (s->n < s->most && make_stage(s, &s->stages[s->n], NULL)) {
            return take_stage(&s->stages[s->n++], err);
        }
        s->most = s->n; /* fewer will do */
        const stage *oldest = oldest_sent(s);
        if (wait && oldest == NULL) {
            err_set(err, DP_E_DEVICE, "staging: the device gives no memory back");
            return NULL;
        }
        if (oldest == NULL || (pumped && !wait)) return NULL;
        if (wait)
            encode_block(s->g, oldest->number);
        else
            gpu_pump(s->g);
    }
}

bool gpu_staging_send(gpu_staging *s, uint32_t piece, const gpu_staged *list, uint32_t n,
                      dp_error *err) {
    gpu *g = s->g;
    stage *p = &s->stages[piece];
    assert(piece < s->n && p->state == STAGE_TAKEN);
    if (!gpu_ok(g, err)) return false;
    for (uint32_t i = 0; i < n; i++) {
        const gpu_range to = list[i].to;
        assert(to.buffer != NULL && to.buffer->g == g);
        assert(to.offset % 4 == 0 && to.size % 4 == 0 && list[i].from % 4 == 0);
        assert(to.offset <= to.buffer->size && to.size <= to.buffer->size - to.offset);
        assert(list[i].from <= s->size && to.size <= s->size - list[i].from);
    }
    if (p->memory != NULL) {
        p->state = STAGE_FREE;
        for (uint32_t i = 0; i < n; i++) {
            if (!gpu_write(g, list[i].to, (const char *)p->memory + list[i].from, err))
                return false;
        }
        return gpu_ok(g, err);
    }
    g->api.BufferUnmap(p->buffer);
    WGPUCommandEncoder commands = g->api.DeviceCreateCommandEncoder(g->device, NULL);
    for (uint32_t i = 0; i < n; i++) {
        const gpu_range to = list[i].to;
        if (to.size == 0) continue;
        g->api.CommandEncoderCopyBufferToBuffer(commands, p->buffer, list[i].from,
                                                to.buffer->handle, to.offset, to.size);
        g->stats.bytes_written += to.size;
    }
    WGPUCommandBuffer copies = g->api.CommandEncoderFinish(commands, NULL);
    p->number = encode_submit(g, copies);
    p->state = STAGE_SENT;
    const WGPUBufferMapCallbackInfo info = { .mode = WGPUCallbackMode_AllowProcessEvents,
                                             .callback = on_staged,
                                             .userdata1 = p };
    g->flights[p->number % FLIGHTS].future =
        g->api.BufferMapAsync(p->buffer, WGPUMapMode_Write, 0, (size_t)s->size, info);
    g->api.CommandBufferRelease(copies);
    g->api.CommandEncoderRelease(commands);
    return gpu_ok(g, err);
}

void gpu_staging_free(gpu_staging *s) {
    if (s == NULL) return;
    for (const stage *p; (p = oldest_sent(s)) != NULL && !atomic_load(&s->g->lost);)
        encode_block(s->g, p->number);
    for (uint32_t i = 0; i < GPU_STAGES_MAX; i++) {
        stage *p = &s->stages[i];
        mem_free(p->memory);
        if (p->buffer == NULL) continue;
        s->g->api.BufferDestroy(p->buffer);
        s->g->api.BufferRelease(p->buffer);
    }
    gpu_pump(s->g); /* callbacks of a lost device hold pieces: let them come */
    mem_free(s);
}
