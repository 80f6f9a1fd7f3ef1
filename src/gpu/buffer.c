/* buffer: device memory, uploads and the counting of both.
 *
 * Every buffer is made inside an error scope, so that a refusal is an answer and not a fault, and
 * is destroyed only when the last submission that might use it has completed. Uploads go in pieces
 * through the queue, never more than UNDER_WAY_MAX of them ahead of the device: an implementation
 * keeps a copy of each until then. */
#include "gpu/gpu_internal.h"

enum {
    UPLOAD_PIECE = 4 * 1024 * 1024,
    UNDER_WAY_MAX = 64 * 1024 * 1024,
};

uint64_t gpu_memory_room(const gpu *g) {
    const bool on_host = strcmp(g->info.type, "cpu") == 0;
    const uint64_t all = g->max_memory > 0 ? g->max_memory : on_host ? memory_of_host() : 0;
    if (all == 0) return UINT64_MAX;
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
    if (g->graveyard != NULL && g->stats.device_bytes + size > g->max_memory) {
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
    for (gpu_buffer **link = &g->graveyard; *link != NULL;) {
        gpu_buffer *b = *link;
        if (b->after > g->completed && !atomic_load(&g->lost)) {
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
        if (g->unflushed < UNDER_WAY_MAX / 2) continue;
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
