/* device: the device, its errors and its loss, and the one place that blocks.
 *
 * A device takes the adapter's own limits and every feature that the kernels can use, less what the
 * options forbid. Whatever the implementation reports by itself (an error that no scope caught, the
 * loss of the device) lands in gpu.fault, where the next call that can fail finds it; from then on
 * the device does nothing more and can only be closed. */
#include "gpu/gpu_internal.h"

#include <stdio.h>

enum { PROBE_LANES = 128 }; /* WebGPU's largest subgroup */

/* ---- failures ------------------------------------------------------------------------------ */

bool gpu_fail(gpu *g, dp_status status, const char *format, ...) {
    char message[sizeof(g->fault.message)];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    pthread_mutex_lock(&g->fault_lock);
    const bool first = g->fault.status == DP_OK;
    if (first) err_set(&g->fault, status, "%s", message);
    pthread_mutex_unlock(&g->fault_lock);
    atomic_store(&g->faulty, true);
    return first;
}

bool gpu_ok(gpu *g, dp_error *err) {
    if (!atomic_load(&g->faulty)) return true;
    pthread_mutex_lock(&g->fault_lock);
    const dp_error fault = g->fault;
    pthread_mutex_unlock(&g->fault_lock);
    return err_set(err, fault.status, "%s", fault.message);
}

static void on_lost(WGPUDevice const *device, WGPUDeviceLostReason reason, WGPUStringView message,
                    void *user, void *unused) {
    (void)device, (void)unused;
    gpu *g = user;
    char text[300];
    view_copy(text, sizeof(text), message);
    const char *why =
        reason == WGPUDeviceLostReason_Destroyed ? "it was destroyed" : "the driver gave no reason";
    gpu_fail(g, DP_E_DEVICE, "the GPU was lost: %s", text[0] != '\0' ? text : why);
    atomic_store(&g->lost, true);
}

/* What this thread catches; below. */
static bool scope_catch(WGPUErrorType type, const char *message);

static void on_uncaptured(WGPUDevice const *device, WGPUErrorType type, WGPUStringView message,
                          void *user, void *unused) {
    (void)device, (void)unused;
    char text[400];
    view_copy(text, sizeof(text), message);
    if (scope_catch(type, text)) return;
    const bool memory = type == WGPUErrorType_OutOfMemory;
    gpu_fail(user, memory ? DP_E_MEMORY : DP_E_DEVICE, "the GPU reported: %s", text);
}

void gpu_lose(gpu *g) {
    if (atomic_load(&g->lost)) return;
    g->api.DeviceDestroy(g->device);
    gpu_pump(g);
    /* The callback may come later or, as with wgpu-native, when the last reference goes. */
    gpu_fail(g, DP_E_DEVICE, "the GPU was lost: it was destroyed");
    atomic_store(&g->lost, true);
}

bool gpu_is_lost(const gpu *g) {
    return atomic_load(&g->lost);
}

void view_copy(char *out, size_t size, WGPUStringView v) {
    assert(size > 0);
    size_t n = v.length;
    if (v.data == NULL)
        n = 0;
    else if (n == WGPU_STRLEN)
        n = strlen(v.data);
    if (n >= size) n = size - 1;
    if (n > 0) memcpy(out, v.data, n);
    out[n] = '\0';
}

/* ---- waiting ------------------------------------------------------------------------------- */

void gpu_pump(gpu *g) {
    /* wgpu-native runs callbacks when a device is polled; ProcessEvents alone does so elsewhere.
     * Its poll and its submit abort the process when the driver itself reports the loss (29.0.1.1):
     * only what its lost callback tells first ends as an error. Dawn reports every loss. */
    if (g->api.kind == LIBRARY_WGPU && g->device != NULL)
        g->api.DevicePoll(g->device, false, NULL);
    else
        g->api.InstanceProcessEvents(g->instance);
}

bool gpu_may_block(const gpu *g) {
    return g->api.kind != LIBRARY_WEB;
}

void gpu_block(gpu *g, WGPUFuture future, const WGPUSubmissionIndex *index) {
    if (!gpu_may_block(g)) {
        gpu_fail(g, DP_E_DEVICE, "internal: the engine would wait");
        atomic_store(&g->lost, true); /* what ends every loop that waits */
        return;
    }
    if (g->api.kind == LIBRARY_WGPU) {
        if (g->device != NULL)
            g->api.DevicePoll(g->device, true, index);
        else
            g->api.InstanceProcessEvents(g->instance);
        return;
    }
    WGPUFutureWaitInfo wait = { .future = future };
    g->api.InstanceWaitAny(g->instance, 1, &wait, UINT64_MAX);
    g->api.InstanceProcessEvents(g->instance);
}

void reply_fill(reply *r, uint32_t status, void *object, WGPUStringView message) {
    r->status = status;
    r->object = object;
    view_copy(r->message, sizeof(r->message), message);
    r->done = true;
}

void gpu_await(gpu *g, WGPUFuture future, const reply *r) {
    while (!r->done)
        gpu_block(g, future, NULL);
}

/* ---- error scopes -------------------------------------------------------------------------- */

/* wgpu-native keeps one stack of scopes for a device, whichever thread pushed them, and threads of
 * ours make pipelines (kernel.c). But what no scope takes it reports inside the call at fault, on
 * its thread: there a scope of ours is what the thread catches, and the library sees none. */
typedef struct {
    bool open;
    WGPUErrorType type; /* the first; NoError: none so far */
    char message[400];
} thread_scope;
static _Thread_local thread_scope caught;

static bool scope_catch(WGPUErrorType type, const char *message) {
    if (!caught.open) return false;
    if (caught.type != WGPUErrorType_NoError) return true;
    caught.type = type;
    view_copy(caught.message, sizeof(caught.message), view_of(message));
    return true;
}

uint32_t scope_begin(gpu *g) {
    static const WGPUErrorFilter filters[] = { WGPUErrorFilter_Validation, /* the innermost last */
                                               WGPUErrorFilter_OutOfMemory,
                                               WGPUErrorFilter_Internal };
    if (g->api.kind == LIBRARY_WGPU) {
        assert(!caught.open);
        caught = (thread_scope){ .open = true, .type = WGPUErrorType_NoError };
        return 0;
    }
    for (size_t i = 0; i < ARRAY_LEN(filters); i++)
        g->api.DevicePushErrorScope(g->device, filters[i]);
    return ARRAY_LEN(filters);
}

static void on_scope(WGPUPopErrorScopeStatus status, WGPUErrorType type, WGPUStringView message,
                     void *user, void *unused) {
    (void)unused;
    const bool success = status == WGPUPopErrorScopeStatus_Success;
    reply_fill(user, success ? type : WGPUErrorType_Unknown, NULL, message);
}

bool scope_end(gpu *g, uint32_t scopes, dp_error *err) {
    reply first = { 0 };
    bool failed = false;
    if (g->api.kind == LIBRARY_WGPU) {
        assert(caught.open);
        caught.open = false;
        failed = caught.type != WGPUErrorType_NoError;
        if (failed) reply_fill(&first, caught.type, NULL, view_of(caught.message));
    }
    while (scopes-- > 0) {
        reply r = { 0 };
        const WGPUPopErrorScopeCallbackInfo info = { .mode = WGPUCallbackMode_AllowProcessEvents,
                                                     .callback = on_scope,
                                                     .userdata1 = &r };
        gpu_await(g, g->api.DevicePopErrorScope(g->device, info), &r);
        if (r.status == WGPUErrorType_NoError || failed) continue;
        failed = true;
        first = r;
    }
    if (!failed) return true;
    if (!gpu_ok(g, err)) return false; /* lost meanwhile: that is the reason */
    if (first.status == WGPUErrorType_OutOfMemory) {
        return err_set(err, DP_E_MEMORY, "the device has too little memory");
    }
    return err_set(err, DP_E_DEVICE, "%s", first.message);
}

/* ---- opening and closing ------------------------------------------------------------------- */

/* What every WebGPU adapter has by the standard's default limits and the kernels build upon. */
static bool check_limits(const gpu *g, dp_error *err) {
    const WGPULimits *l = &g->limits;
    const struct {
        const char *what;
        uint64_t has, needs;
    } table[] = {
        { "storage buffers in a shader", l->maxStorageBuffersPerShaderStage, 8 },
        { "lanes in a workgroup", l->maxComputeInvocationsPerWorkgroup, 256 },
        { "bytes of workgroup memory", l->maxComputeWorkgroupStorageSize, 16384 },
        { "workgroups in a dimension", l->maxComputeWorkgroupsPerDimension, 65535 },
        { "bind groups", l->maxBindGroups, 2 },
        { "bytes in a binding", g->info.max_binding, DP_BINDING_LEAST },
    };
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        if (table[i].has >= table[i].needs) continue;
        return err_set(err, DP_E_DEVICE, "%s: %llu %s, at least %llu are needed", g->info.name,
                       (unsigned long long)table[i].has, table[i].what,
                       (unsigned long long)table[i].needs);
    }
    if (l->minStorageBufferOffsetAlignment > PARAMS_SLOT ||
        l->minUniformBufferOffsetAlignment > PARAMS_SLOT) {
        return err_set(err, DP_E_DEVICE, "%s: bindings are aligned to more than %d bytes",
                       g->info.name, PARAMS_SLOT);
    }
    return true;
}

static void on_device(WGPURequestDeviceStatus status, WGPUDevice device, WGPUStringView message,
                      void *user, void *unused) {
    (void)unused;
    reply_fill(user, status, device, message);
}

static bool request_device(gpu *g, dp_error *err) {
    WGPUFeatureName features[4];
    size_t n = 0;
    if (g->info.f16) features[n++] = WGPUFeatureName_ShaderF16;
    if (g->info.subgroups) features[n++] = adapter_subgroups_feature(g);
    if (g->info.timestamps) features[n++] = WGPUFeatureName_TimestampQuery;
    if (g->info.matrix > 0) features[n++] = (WGPUFeatureName)DAWN_FEATURE_MATRIX;
    dawn_toggles toggles;
    const toggles_stage stage = g->checks ? TOGGLES_CHECKED : TOGGLES_DEVICE;
    const WGPUDeviceDescriptor d = {
        .nextInChain = library_toggles(&g->api, stage, &toggles),
        .label = view_of("doppler"),
        .requiredFeatureCount = n,
        .requiredFeatures = features,
        .requiredLimits = &g->limits,
        .deviceLostCallbackInfo = { .mode = WGPUCallbackMode_AllowProcessEvents,
                                    .callback = on_lost,
                                    .userdata1 = g },
        .uncapturedErrorCallbackInfo = { .callback = on_uncaptured, .userdata1 = g },
    };
    reply r = { 0 };
    const WGPURequestDeviceCallbackInfo info = { .mode = WGPUCallbackMode_AllowProcessEvents,
                                                 .callback = on_device,
                                                 .userdata1 = &r };
    gpu_await(g, g->api.AdapterRequestDevice(g->adapter, &d, info), &r);
    if (r.status != WGPURequestDeviceStatus_Success || r.object == NULL) {
        return err_set(err, DP_E_DEVICE, "%s gives no device: %s", g->info.name, r.message);
    }
    g->device = r.object;
    g->queue = g->api.DeviceGetQueue(g->device);
    return gpu_ok(g, err);
}

/* Finds the real subgroup size: wgpu-native reports none and drivers may run another than they
 * tell. A device whose subgroups do not work as they say is used without them. */
static bool probe_subgroups(gpu *g, dp_error *err) {
    static const gpu_binding bindings[] = { { "y", 0, GPU_ACCESS_WRITE } };
    static const gpu_source source = {
        .name = "subgroup_probe",
        .text = "@group(0) @binding(0) var<storage, read_write> y: array<u32>;\n"
                "@compute @workgroup_size(128)\n"
                "fn subgroup_probe(@builtin(subgroup_size) size: u32,\n"
                "                  @builtin(local_invocation_index) lane: u32) {\n"
                "    let sum = subgroupAdd(1u);\n"
                "    if (lane == 0u) { y[0] = size; y[1] = sum; }\n"
                "}\n",
        .needs_subgroups = true,
        .bindings = bindings,
        .n_bindings = 1,
    };
    uint32_t seen[2] = { 0 };
    dp_error why = { 0 };
    gpu_buffer *y = gpu_buffer_new(g, sizeof(seen), "subgroup probe", err);
    gpu_plan *plan = y != NULL ? gpu_plan_new(g, err) : NULL;
    if (plan == NULL) return false;
    const gpu_call call = { .kernel = gpu_kernel_get(g, &source, NULL, NULL, &why),
                            .bind = { gpu_whole(y) } };
    gpu_plan_add(plan, &call);
    if (gpu_plan_finish(plan, &why)) {
        const gpu_sizes one = { { 1 } };
        gpu_encoder *e = gpu_begin(g);
        gpu_encode(e, plan, &one);
        if (gpu_submit(e, NULL, &why) && !gpu_read(g, gpu_whole(y), seen, &why)) seen[0] = 0;
    }
    gpu_plan_free(plan);
    gpu_buffer_free(y);
    const uint32_t size = seen[0];
    const bool works =
        size >= 4 && size <= PROBE_LANES && (size & (size - 1)) == 0 && seen[1] == size;
    if (!works) {
        log_line(&g->log, DP_LOG_WARNING,
                 "%s: subgroups are not used: a probe saw size %u and sum %u %s", g->info.name,
                 size, seen[1], why.message);
    }
    g->info.subgroups = works;
    g->info.subgroup_size = works ? size : 0;
    if (!works) g->info.matrix = 0;
    return gpu_ok(g, err);
}

/* Where nothing waits JavaScript has run that probe before: 0 if they do not work as they say. */
static bool find_subgroups(gpu *g, dp_error *err) {
    if (gpu_may_block(g)) return probe_subgroups(g, err);
    WGPUAdapterInfo info = { 0 };
    g->api.AdapterGetInfo(g->adapter, &info);
    g->info.subgroup_size = info.subgroupMinSize;
    g->info.subgroups = info.subgroupMinSize > 0;
    g->api.AdapterInfoFreeMembers(info);
    return true;
}

static gpu *open_instance(const dp_device_options *options, dp_error *err) {
    gpu *g = mem_new(1, sizeof(*g), "a device", err);
    if (g == NULL) return NULL;
    pthread_mutex_init(&g->lock, NULL);
    pthread_mutex_init(&g->fault_lock, NULL);
    makers_open(g);
    g->log = (log_sink){ options->log, options->log_user };
    g->max_memory = options->max_memory;
    g->checks = options->checks;
    g->encoder.g = g;
    for (size_t i = 0; i < GPU_READBACKS; i++)
        g->places[i].g = g;
    if (library_open(&g->api, options->webgpu, err) && adapter_open_instance(g, err)) return g;
    gpu_close(g);
    return NULL;
}

static bool open_device(gpu *g, const dp_device_options *options, dp_error *err) {
    WGPUAdapter *list;
    size_t n;
    if (!adapter_find(g, &list, &n, err)) return false;
    const int chosen = adapter_choose(g, list, n, options, err);
    if (chosen >= 0) {
        g->adapter = list[chosen];
        list[chosen] = NULL;
        adapter_describe(g, g->adapter, options, &g->info);
    }
    adapter_release(g, list, n);
    if (chosen < 0 || !check_limits(g, err) || !request_device(g, err)) return false;
    if (options->profile && !profile_open(g, err)) return false;
    if (g->info.subgroups && !find_subgroups(g, err)) return false;
    g->stats = (dp_stats){ .device_bytes = g->stats.device_bytes,
                           .device_bytes_peak = g->stats.device_bytes };
    gpu_profile_reset(g);
    log_line(&g->log, DP_LOG_INFO,
             "%s (%s, %s) through %s, f16 %s, subgroups of %u, matrices of %u", g->info.name,
             g->info.type, g->info.backend, g->info.library, g->info.f16 ? "on" : "off",
             g->info.subgroup_size, g->info.matrix);
    return true;
}

gpu *gpu_open(const dp_device_options *options, dp_error *err) {
    const dp_device_options defaults = { 0 };
    if (options == NULL) options = &defaults;
    gpu *g = open_instance(options, err);
    if (g == NULL) return NULL;
    if (open_device(g, options, err)) return g;
    gpu_close(g);
    return NULL;
}

bool gpu_list(const dp_device_options *options, dp_device_info *list, size_t max, size_t *n,
              dp_error *err) {
    const dp_device_options defaults = { 0 };
    if (options == NULL) options = &defaults;
    *n = 0;
    gpu *g = open_instance(options, err);
    if (g == NULL) return false;
    WGPUAdapter *adapters;
    const bool found = adapter_find(g, &adapters, n, err);
    if (found) {
        for (size_t i = 0; i < *n && i < max; i++) {
            adapter_describe(g, adapters[i], options, &list[i]);
        }
        adapter_release(g, adapters, *n);
    }
    gpu_close(g);
    return found;
}

void gpu_close(gpu *g) {
    if (g == NULL) return;
    if (g->device != NULL) {
        if (!gpu_may_block(g)) gpu_lose(g); /* ends what is under way, which nobody can wait for */
        encode_close(g);
        plans_close(g);
        kernels_close(g);
        profile_close(g);
        trace_close(g);
        buffers_close(g);
        g->api.QueueRelease(g->queue);
        if (!atomic_load(&g->lost)) g->api.DeviceDestroy(g->device);
        gpu_pump(g); /* callbacks hold g: let them come before it goes */
        g->api.DeviceRelease(g->device);
        g->device = NULL;
    }
    if (g->adapter != NULL) g->api.AdapterRelease(g->adapter);
    if (g->instance != NULL) {
        gpu_pump(g);
        g->api.InstanceRelease(g->instance);
    }
    pthread_mutex_destroy(&g->lock);
    pthread_mutex_destroy(&g->fault_lock);
    makers_close(g);
    mem_free(g->profiler);
    mem_free(g);
}

/* ---- accessors ----------------------------------------------------------------------------- */

bool gpu_subgroups_alike(const gpu *g) {
    return g->subgroup_most == g->info.subgroup_size;
}

const dp_device_info *gpu_info(const gpu *g) {
    return &g->info;
}

const dp_stats *gpu_stats(const gpu *g) {
    return &g->stats;
}

const log_sink *gpu_log(const gpu *g) {
    return &g->log;
}

uint64_t gpu_alignment(const gpu *g) {
    (void)g;
    return PARAMS_SLOT; /* check_limits refuses devices that want more */
}

void gpu_lock(gpu *g) {
    const int failed = pthread_mutex_lock(&g->lock);
    assert(failed == 0);
    (void)failed;
}

void gpu_unlock(gpu *g) {
    const int failed = pthread_mutex_unlock(&g->lock);
    assert(failed == 0);
    (void)failed;
}
