/* adapter: what GPUs there are, what they offer, and which of them is meant.
 *
 * An adapter is described by its own limits and features, less what the options forbid, so that a
 * list shows what a device opened with the same options would have. */
#include "gpu/gpu_internal.h"

#include <stdio.h>

bool adapter_open_instance(gpu *g, dp_error *err) {
    const WGPUInstanceFeatureName timed = WGPUInstanceFeatureName_TimedWaitAny;
    WGPUInstanceExtras extras = { .chain = { .sType = (WGPUSType)WGPUSType_InstanceExtras },
                                  .backends = WGPUInstanceBackend_Primary,
                                  .flags = WGPUInstanceFlag_Empty };
    dawn_toggles toggles;
    WGPUInstanceDescriptor d = { 0 };
    if (g->api.kind == LIBRARY_WGPU) {
        d.nextInChain = &extras.chain;
    } else {
        d.nextInChain = library_toggles(&g->api, TOGGLES_INSTANCE, &toggles);
        d.requiredFeatureCount = 1; /* waiting without end is "timed" */
        d.requiredFeatures = &timed;
    }
    g->instance = g->api.CreateInstance(&d);
    return g->instance != NULL || err_set(err, DP_E_DEVICE, "the WebGPU library makes no instance");
}

static void on_adapter(WGPURequestAdapterStatus status, WGPUAdapter adapter, WGPUStringView message,
                       void *user, void *unused) {
    (void)unused;
    reply_fill(user, status, adapter, message);
}

static WGPUAdapter request_adapter(gpu *g, const WGPURequestAdapterOptions *options) {
    reply r = { 0 };
    const WGPURequestAdapterCallbackInfo info = { .mode = WGPUCallbackMode_AllowProcessEvents,
                                                  .callback = on_adapter,
                                                  .userdata1 = &r };
    gpu_await(g, g->api.InstanceRequestAdapter(g->instance, options, info), &r);
    return r.status == WGPURequestAdapterStatus_Success ? r.object : NULL;
}

static bool is_same_adapter(gpu *g, WGPUAdapter a, WGPUAdapter b) {
    WGPUAdapterInfo ia = { 0 }, ib = { 0 };
    g->api.AdapterGetInfo(a, &ia);
    g->api.AdapterGetInfo(b, &ib);
    char na[128], nb[128];
    view_copy(na, sizeof(na), ia.device);
    view_copy(nb, sizeof(nb), ib.device);
    const bool same = ia.vendorID == ib.vendorID && ia.deviceID == ib.deviceID &&
                      ia.backendType == ib.backendType && strcmp(na, nb) == 0;
    g->api.AdapterInfoFreeMembers(ia);
    g->api.AdapterInfoFreeMembers(ib);
    return same;
}

/* wgpu-native tells them all. Others are asked for the fast, the frugal and the software one, which
 * may be the same. */
bool adapter_find(gpu *g, WGPUAdapter **list, size_t *n, dp_error *err) {
    const WGPUInstanceEnumerateAdapterOptions all = { .backends = WGPUInstanceBackend_Primary };
    const bool wgpu = g->api.kind == LIBRARY_WGPU;
    const size_t max = wgpu ? g->api.InstanceEnumerateAdapters(g->instance, &all, NULL) : 3;
    *n = 0;
    *list = mem_new(max + 1, sizeof(**list), "adapters", err);
    if (*list == NULL) return false;
    if (wgpu) {
        *n = max > 0 ? g->api.InstanceEnumerateAdapters(g->instance, &all, *list) : 0;
        assert(*n <= max);
    }
    for (size_t i = 0; !wgpu && i < max; i++) {
        dawn_toggles toggles;
        const WGPURequestAdapterOptions o = {
            .nextInChain = library_toggles(&g->api, TOGGLES_ADAPTER, &toggles),
            .featureLevel = WGPUFeatureLevel_Core,
            .powerPreference = i == 0   ? WGPUPowerPreference_HighPerformance
                               : i == 1 ? WGPUPowerPreference_LowPower
                                        : WGPUPowerPreference_Undefined,
            .forceFallbackAdapter = i == 2,
        };
        WGPUAdapter adapter = request_adapter(g, &o);
        if (adapter == NULL) continue;
        bool known = false;
        for (size_t j = 0; j < *n; j++)
            known |= is_same_adapter(g, (*list)[j], adapter);
        if (known)
            g->api.AdapterRelease(adapter);
        else
            (*list)[(*n)++] = adapter;
    }
    if (*n > 0) return true;
    mem_free(*list);
    *list = NULL;
    return err_set(err, DP_E_DEVICE,
                   "no GPU: the WebGPU library finds no adapter (a driver for "
                   "Vulkan, Metal or D3D12 is needed; a software one will do)");
}

WGPUFeatureName adapter_subgroups_feature(const gpu *g) {
    /* naga's own feature; llvmpipe has it without offering the standard one. */
    return g->api.kind == LIBRARY_WGPU ? (WGPUFeatureName)WGPUNativeFeature_Subgroup
                                       : WGPUFeatureName_Subgroups;
}

static const char *backend_name(WGPUBackendType type) {
    switch (type) {
    case WGPUBackendType_WebGPU:
        return "webgpu";
    case WGPUBackendType_D3D11:
        return "d3d11";
    case WGPUBackendType_D3D12:
        return "d3d12";
    case WGPUBackendType_Metal:
        return "metal";
    case WGPUBackendType_Vulkan:
        return "vulkan";
    case WGPUBackendType_OpenGL:
    case WGPUBackendType_OpenGLES:
        return "opengl";
    default:
        return "unknown";
    }
}

static const char *type_name(WGPUAdapterType type) {
    switch (type) {
    case WGPUAdapterType_DiscreteGPU:
        return "discrete";
    case WGPUAdapterType_IntegratedGPU:
        return "integrated";
    case WGPUAdapterType_CPU:
        return "cpu";
    default:
        return "unknown";
    }
}

/* The largest square matrices of f16 that a subgroup multiplies into f32: the side, 0 if there are
 * none. The kernels know 8 and 16. */
static uint32_t matrix_side(gpu *g, WGPUAdapter adapter) {
    dawn_matrices found = { .chain = { .sType = (WGPUSType)DAWN_STYPE_MATRIX } };
    WGPUAdapterInfo info = { .nextInChain = &found.chain };
    if (g->api.FreeDawnMatrices == NULL ||
        !g->api.AdapterHasFeature(adapter, (WGPUFeatureName)DAWN_FEATURE_MATRIX) ||
        g->api.AdapterGetInfo(adapter, &info) != WGPUStatus_Success) {
        return 0;
    }
    uint32_t side = 0;
    for (size_t i = 0; i < found.n; i++) {
        const dawn_matrix *m = &found.list[i];
        if (m->component != DAWN_MATRIX_F16 || m->result != DAWN_MATRIX_F32) continue;
        if (m->m != m->n || m->m != m->k || (m->m != 8 && m->m != 16)) continue;
        side = max_u32(side, m->m);
    }
    g->api.FreeDawnMatrices(found);
    info.nextInChain = NULL;
    g->api.AdapterInfoFreeMembers(info);
    return side;
}

/* Kernels halve and double the lanes of a workgroup, all of them in x: the largest power of two, as
 * there are devices of 384 and 768. */
static uint32_t workgroup_lanes(const WGPULimits *limits) {
    const uint32_t most =
        min_u32(limits->maxComputeInvocationsPerWorkgroup, limits->maxComputeWorkgroupSizeX);
    return power_above(most / 2 + 1);
}

void adapter_describe(gpu *g, WGPUAdapter adapter, const dp_device_options *options,
                      dp_device_info *out) {
    static const char *const libraries[] = { "webgpu", "wgpu-native", "dawn", "browser" };
    WGPUAdapterInfo info = { 0 };
    g->limits = (WGPULimits){ 0 };
    g->api.AdapterGetInfo(adapter, &info);
    g->api.AdapterGetLimits(adapter, &g->limits);
    g->limits.nextInChain = NULL;
    uint64_t *binding = &g->limits.maxStorageBufferBindingSize;
    if (options->max_binding > 0) *binding = min_u64(*binding, options->max_binding);
    *binding &= ~(uint64_t)3;
    *out = (dp_device_info){
        .f16 = !options->no_f16 && g->api.AdapterHasFeature(adapter, WGPUFeatureName_ShaderF16),
        .subgroups = !options->no_subgroups &&
                     g->api.AdapterHasFeature(adapter, adapter_subgroups_feature(g)),
        .int8 = !options->no_f16 && !options->no_int8 &&
                g->api.AdapterHasFeature(adapter, WGPUFeatureName_ShaderF16),
        .timestamps = g->api.AdapterHasFeature(adapter, WGPUFeatureName_TimestampQuery),
        .max_binding = min_u64(*binding, g->limits.maxBufferSize),
        .max_buffer = g->limits.maxBufferSize,
        .max_workgroup_memory = g->limits.maxComputeWorkgroupStorageSize,
        .max_workgroup_lanes = workgroup_lanes(&g->limits),
        .max_storage_buffers = g->limits.maxStorageBuffersPerShaderStage,
    };
    if (out->f16 && out->subgroups) out->matrix = matrix_side(g, adapter);
    g->subgroup_most = info.subgroupMaxSize;
    view_copy(out->name, sizeof(out->name), info.device);
    view_copy(out->vendor, sizeof(out->vendor), info.vendor);
    view_copy(out->driver, sizeof(out->driver), info.description);
    snprintf(out->backend, sizeof(out->backend), "%s", backend_name(info.backendType));
    snprintf(out->type, sizeof(out->type), "%s", type_name(info.adapterType));
    snprintf(out->library, sizeof(out->library), "%s", libraries[g->api.kind]);
    if (out->name[0] == '\0') snprintf(out->name, sizeof(out->name), "%s", out->backend);
    g->api.AdapterInfoFreeMembers(info);
}

/* Whether `part` occurs in `name`, letter case aside (ASCII). */
static bool is_part_of(const char *part, const char *name) {
    for (; *name != '\0'; name++) {
        size_t i = 0;
        for (; part[i] != '\0' && name[i] != '\0'; i++) {
            const char a = part[i], b = name[i];
            const char la = a >= 'A' && a <= 'Z' ? (char)(a + 32) : a;
            const char lb = b >= 'A' && b <= 'Z' ? (char)(b + 32) : b;
            if (la != lb) break;
        }
        if (part[i] == '\0') return true;
    }
    return false;
}

/* Higher is faster. */
static int rank_of(const dp_device_info *info) {
    static const char *const order[] = { "cpu", "unknown", "integrated", "discrete" };
    int rank = 0;
    for (int i = 0; i < (int)ARRAY_LEN(order); i++) {
        if (strcmp(info->type, order[i]) == 0) rank = i;
    }
    return rank;
}

int adapter_choose(gpu *g, WGPUAdapter const *list, size_t n, const dp_device_options *options,
                   dp_error *err) {
    uint64_t number = 0;
    const char *wanted = options->adapter;
    const bool by_number = wanted != NULL && str_to_u64(str_of(wanted), &number);
    int best = -1, best_rank = -1;
    char offered[300] = "";
    for (size_t i = 0; i < n; i++) {
        dp_device_info info;
        adapter_describe(g, list[i], options, &info);
        const size_t used = strlen(offered);
        snprintf(offered + used, sizeof(offered) - used, "%s%zu %s", i > 0 ? ", " : "", i,
                 info.name);
        if (by_number ? number != i : wanted != NULL && !is_part_of(wanted, info.name)) continue;
        if (rank_of(&info) <= best_rank) continue;
        best = (int)i;
        best_rank = rank_of(&info);
    }
    if (best < 0) err_set(err, DP_E_DEVICE, "no GPU \"%s\"; there are: %s", wanted, offered);
    return best;
}

void adapter_release(gpu *g, WGPUAdapter *list, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (list[i] != NULL) g->api.AdapterRelease(list[i]);
    }
    mem_free(list);
}
