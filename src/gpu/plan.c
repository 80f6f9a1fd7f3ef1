/* plan: lists of dispatches made once at load.
 *
 * Adding copies what it needs and checks it by assert; finishing waits for the pipelines, then
 * makes one bind group per distinct set of buffers and one uniform buffer with every distinct
 * parameter block in a slot of its own, chosen by dynamic offset. What is replayed is the array of
 * steps alone. */
#include "gpu/gpu_internal.h"

#include <stdio.h>

gpu_plan *gpu_plan_new(gpu *g, dp_error *err) {
    gpu_plan *p = mem_new(1, sizeof(*p), "a plan", err);
    if (p == NULL) return NULL;
    p->g = g;
    p->next = g->plans;
    p->link = &g->plans;
    if (p->next != NULL) p->next->link = &p->next;
    g->plans = p;
    return p;
}

static void count_users(const gpu_plan *p, int change) {
    for (uint32_t i = 0; i < p->n; i++) {
        for (uint32_t at = 0; at < GPU_BINDINGS; at++) {
            gpu_buffer *b = p->calls[i].bind[at].buffer;
            if (b != NULL) b->users += (uint32_t)change;
        }
    }
}

void gpu_plan_free(gpu_plan *p) {
    if (p == NULL) return;
    const gpu_api *api = &p->g->api;
    *p->link = p->next;
    if (p->next != NULL) p->next->link = p->link;
    for (uint32_t i = 0; i < p->n_groups; i++)
        api->BindGroupRelease(p->groups[i]);
    if (p->params_group != NULL) api->BindGroupRelease(p->params_group);
    if (p->finished) count_users(p, -1);
    gpu_buffer_free(p->params_buffer);
    mem_free(p->calls);
    mem_free(p->steps);
    mem_free(p->params);
    mem_free(p->slot_of);
    mem_free(p->groups);
    mem_free(p);
}

void plans_close(gpu *g) {
    while (g->plans != NULL)
        gpu_plan_free(g->plans);
}

/* ---- adding -------------------------------------------------------------------------------- */

static bool overlap(gpu_range a, gpu_range b) {
    return a.offset < b.offset + b.size && b.offset < a.offset + a.size;
}

/* The implementation would report these late and without saying where. */
static void check_call(const gpu *g, const gpu_call *call) {
    const gpu_kernel *k = call->kernel;
    assert(k->g == g);
    assert((call->params != NULL) == (k->source->params_size > 0));
    for (uint32_t i = 0; i < GPU_BINDINGS; i++) {
        const gpu_range a = call->bind[i];
        assert((a.buffer != NULL) == (k->used >> i & 1));
        if (a.buffer == NULL) continue;
        assert(a.buffer->g == g && a.size > 0);
        assert(a.offset % PARAMS_SLOT == 0 && a.size % 4 == 0);
        assert(a.offset <= a.buffer->size && a.size <= a.buffer->size - a.offset);
        assert(a.size <= g->info.max_binding);
        /* WebGPU's usage scope is the dispatch and its unit the buffer: one that is written may not
         * be read through another binding, even elsewhere in it; two written ranges may not
         * overlap. */
        const bool written = (k->access >> (2 * i) & 3) == GPU_ACCESS_WRITE;
        for (uint32_t j = 0; j < i; j++) {
            const gpu_range b = call->bind[j];
            if (b.buffer != a.buffer) continue;
            const bool other = (k->access >> (2 * j) & 3) == GPU_ACCESS_WRITE;
            assert(written == other);
            assert(!written || !overlap(a, b));
            (void)other;
        }
        (void)written;
    }
    for (int i = 0; i < 3; i++)
        assert(call->groups[i].size < GPU_SIZES);
    (void)g;
}

static bool grow_calls(gpu_plan *p) {
    if (p->n < p->max) return true;
    const uint32_t max = p->max > 0 ? p->max * 2 : 64;
    gpu_call *calls = mem_resize(p->calls, max, sizeof(*calls), "a plan", &p->err);
    if (calls == NULL) return false;
    p->calls = calls;
    uint32_t *slots = mem_resize(p->slot_of, max, sizeof(*slots), "a plan", &p->err);
    if (slots == NULL) return false;
    p->slot_of = slots;
    p->max = max;
    return true;
}

/* Slot of a parameter block, an old one if the same block is there. */
static bool place_params(gpu_plan *p, const void *params, uint32_t size, uint32_t *slot) {
    unsigned char block[PARAMS_SLOT] = { 0 };
    memcpy(block, params, size);
    for (*slot = 0; *slot < p->n_params; ++*slot) {
        const unsigned char *other = p->params + (size_t)*slot * PARAMS_SLOT;
        if (memcmp(other, block, PARAMS_SLOT) == 0) return true;
    }
    if (p->n_params == p->max_params) {
        const uint32_t max = p->max_params > 0 ? p->max_params * 2 : 32;
        unsigned char *blocks = mem_resize(p->params, max, PARAMS_SLOT, "parameters", &p->err);
        if (blocks == NULL) return false;
        p->params = blocks;
        p->max_params = max;
    }
    memcpy(p->params + (size_t)p->n_params++ * PARAMS_SLOT, block, PARAMS_SLOT);
    return true;
}

void gpu_plan_add(gpu_plan *p, const gpu_call *call) {
    assert(!p->finished);
    if (p->err.status != DP_OK) return;
    if (call->kernel == NULL) {
        err_set(&p->err, DP_E_MEMORY, "a kernel of the plan could not be made");
        return;
    }
    check_call(p->g, call);
    if (!grow_calls(p)) return;
    uint32_t slot = NO_PARAMS;
    const uint32_t size = call->kernel->source->params_size;
    if (size > 0 && !place_params(p, call->params, size, &slot)) return;
    p->calls[p->n] = *call;
    p->calls[p->n].params = NULL; /* the caller's; ours are in the slots */
    p->slot_of[p->n++] = slot;
}

/* ---- finishing ----------------------------------------------------------------------------- */

static bool have_same_buffers(const gpu_call *a, const gpu_call *b) {
    if (a->kernel->layout != b->kernel->layout) return false;
    for (uint32_t i = 0; i < GPU_BINDINGS; i++) {
        const gpu_range x = a->bind[i], y = b->bind[i];
        if (x.buffer != y.buffer) return false;
        if (x.buffer != NULL && (x.offset != y.offset || x.size != y.size)) return false;
    }
    return true;
}

WGPUBindGroup plan_bind(gpu *g, const gpu_call *call, const gpu_range bind[GPU_BINDINGS]) {
    WGPUBindGroupEntry entries[GPU_BINDINGS] = { 0 };
    size_t n = 0;
    for (uint32_t i = 0; i < GPU_BINDINGS; i++) {
        const gpu_range r = bind[i];
        if (r.buffer == NULL) continue;
        entries[n++] = (WGPUBindGroupEntry){
            .binding = i, .buffer = r.buffer->handle, .offset = r.offset, .size = r.size
        };
    }
    const WGPUBindGroupDescriptor d = { .label = view_of(call->kernel->label),
                                        .layout = call->kernel->layout->group,
                                        .entryCount = n,
                                        .entries = entries };
    return g->api.DeviceCreateBindGroup(g->device, &d);
}

static bool make_params(gpu_plan *p, dp_error *err) {
    if (p->n_params == 0) return true;
    gpu *g = p->g;
    const uint64_t size = (uint64_t)p->n_params * PARAMS_SLOT;
    p->params_buffer = gpu_buffer_new(g, size, "parameters of a plan", err);
    if (p->params_buffer == NULL) return false;
    if (!gpu_write(g, gpu_whole(p->params_buffer), p->params, err)) return false;
    const WGPUBindGroupEntry uniform = { .buffer = p->params_buffer->handle, .size = PARAMS_SLOT };
    const WGPUBindGroupDescriptor d = { .label = view_of("parameters"),
                                        .layout = g->params_layout,
                                        .entryCount = 1,
                                        .entries = &uniform };
    p->params_group = g->api.DeviceCreateBindGroup(g->device, &d);
    mem_free(p->params);
    p->params = NULL;
    return true;
}

static void make_steps(gpu_plan *p) {
    for (uint32_t i = 0; i < p->n; i++) {
        const gpu_call *call = &p->calls[i];
        const uint32_t slot = p->slot_of[i];
        p->steps[i] = (plan_step){
            .pipeline = call->kernel->pipeline,
            .params_offset = slot == NO_PARAMS ? NO_PARAMS : slot * PARAMS_SLOT,
            .span = profile_span(p->g, call->label, call->kernel->label),
            .groups = { call->groups[0], call->groups[1], call->groups[2] },
        };
        uint32_t j = 0;
        while (j < i && !have_same_buffers(call, &p->calls[j]))
            j++;
        if (j == i) p->groups[p->n_groups++] = plan_bind(p->g, call, call->bind);
        p->steps[i].data = j == i ? p->groups[p->n_groups - 1] : p->steps[j].data;
    }
}

static bool finish_plan(gpu_plan *p, dp_error *err) {
    gpu *g = p->g;
    if (p->err.status != DP_OK) return err_set(err, p->err.status, "%s", p->err.message);
    for (uint32_t i = 0; i < p->n; i++) {
        if (!kernel_wait(p->calls[i].kernel, err)) return false;
    }
    p->steps = mem_new(p->n + 1, sizeof(*p->steps), "a plan", err);
    p->groups = mem_new(p->n + 1, sizeof(*p->groups), "a plan", err);
    if (p->steps == NULL || p->groups == NULL) return false;
    if (!make_params(p, err)) return false;
    const uint32_t scopes = scope_begin(g);
    make_steps(p);
    return scope_end(g, scopes, err);
}

bool gpu_plan_finish(gpu_plan *p, dp_error *err) {
    assert(!p->finished);
    if (!gpu_ok(p->g, err) || !finish_plan(p, err)) return false;
    p->finished = true;
    count_users(p, 1);
    return true;
}

/* ---- looking at it ------------------------------------------------------------------------- */

uint32_t gpu_plan_n_calls(const gpu_plan *p) {
    return p->n;
}

const char *gpu_kernel_name(const gpu_kernel *k) {
    return k->label;
}

gpu_access gpu_kernel_access(const gpu_kernel *k, uint32_t binding) {
    return (gpu_access)(k->access >> (2 * binding) & 3);
}

const gpu_call *gpu_plan_call(const gpu_plan *p, uint32_t i) {
    return i < p->n ? &p->calls[i] : NULL;
}

bool gpu_plan_describe(const gpu_plan *p, uint32_t i, char *out, size_t size) {
    if (i >= p->n) return false;
    const gpu_call *call = &p->calls[i];
    char text[256];
    size_t n = (size_t)snprintf(text, sizeof(text), "%s", call->kernel->label);
    for (int d = 0; d < 3 && n < sizeof(text); d++) {
        const gpu_extent x = call->groups[d];
        const uint32_t times = max_u32(x.times, 1), per = max_u32(x.per, 1);
        const char *sign = d == 0 ? ": " : " x ";
        char *at = text + n;
        const size_t left = sizeof(text) - n;
        int written;
        if (x.size == 0)
            written = snprintf(at, left, "%s%u", sign, times);
        else if (per == 1)
            written = snprintf(at, left, "%s%u*n%u", sign, times, x.size);
        else
            written = snprintf(at, left, "%s%u*ceil(n%u/%u)", sign, times, x.size, per);
        n += (size_t)written;
    }
    snprintf(out, size, "%s", text);
    return true;
}
