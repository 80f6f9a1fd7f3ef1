/* library_web: webgpu.h over the browser's WebGPU, in the place of library.c in the wasm build.
 *
 * C flattens descriptors, so that the module "wgpu" which JavaScript serves (web/lib/webgpu.js)
 * takes numbers and pieces of memory and knows no struct. A handle is a number of JavaScript's
 * table, 64-bit sizes travel as doubles.
 *
 * Nothing here waits, and the browser does not answer before C has returned. So JavaScript opens
 * the device before C starts, and whatever can be answered from that is answered within the call,
 * whose callback then runs at once: adapter, device, pipelines (JavaScript fills them in later and
 * has them before the first submission) and error scopes (an error comes as an uncaptured one).
 * Maps and finished work are told between calls by web_gpu_settled, and their callbacks run in
 * wgpuInstanceProcessEvents; errors and loss come by web_gpu_event at any time. One device at a
 * time: WebGPU has nothing to count, its objects live as long as something needs them. */
#include "gpu/gpu_internal.h"

#define IMPORT(name) extern __attribute__((import_module("wgpu"), import_name(#name)))
#define EXPORT(name) __attribute__((export_name(#name))) extern

/* Objects that JavaScript has from the start. */
enum { WEB_INSTANCE = 1, WEB_ADAPTER, WEB_DEVICE, WEB_QUEUE };

enum {
    TEXT_BYTES = 1024,
    FUTURES_MAX = 65536,
    ENTRIES_MAX = GPU_BINDINGS,
    ENTRY_WORDS = 3,   /* of a layout: binding, type, has a dynamic offset */
    ENTRY_NUMBERS = 4, /* of a bind group: binding, buffer, offset, size */
};

IMPORT(adapterText) uint32_t js_adapter_text(uint32_t what, char *out, uint32_t size);
IMPORT(adapterNumber) uint32_t js_adapter_number(uint32_t what);
IMPORT(limit) double js_limit(const char *name, uint32_t n);
IMPORT(hasFeature) uint32_t js_has_feature(uint32_t feature);
IMPORT(createBuffer)
uint32_t js_create_buffer(double size, uint32_t usage, const char *label, uint32_t n);
IMPORT(createShaderModule)
uint32_t js_create_shader_module(const char *code, uint32_t n_code, const char *label, uint32_t n);
IMPORT(createBindGroupLayout)
uint32_t js_create_bind_group_layout(const uint32_t *entries, uint32_t n);
IMPORT(createPipelineLayout)
uint32_t js_create_pipeline_layout(const uint32_t *groups, uint32_t n);
IMPORT(createBindGroup)
uint32_t js_create_bind_group(uint32_t layout, const double *entries, uint32_t n);
IMPORT(constant) void js_constant(const char *name, uint32_t n, double value);
IMPORT(createPipeline)
uint32_t js_create_pipeline(uint32_t layout, uint32_t module, const char *entry, uint32_t n_entry,
                            const char *label, uint32_t n);
IMPORT(createQuerySet) uint32_t js_create_query_set(uint32_t count);
IMPORT(createEncoder) uint32_t js_create_encoder(void);
IMPORT(beginPass)
uint32_t js_begin_pass(uint32_t encoder, uint32_t queries, uint32_t begin, uint32_t end);
IMPORT(setPipeline) void js_set_pipeline(uint32_t pass, uint32_t pipeline);
IMPORT(setBindGroup)
void js_set_bind_group(uint32_t pass, uint32_t index, uint32_t group, uint32_t n,
                       const uint32_t *offsets);
IMPORT(dispatch) void js_dispatch(uint32_t pass, uint32_t x, uint32_t y, uint32_t z);
IMPORT(endPass) void js_end_pass(uint32_t pass);
IMPORT(copyBuffer)
void js_copy_buffer(uint32_t encoder, uint32_t from, double from_offset, uint32_t to,
                    double to_offset, double size);
IMPORT(clearBuffer) void js_clear_buffer(uint32_t encoder, uint32_t b, double offset, double size);
IMPORT(resolveQueries)
void js_resolve_queries(uint32_t encoder, uint32_t queries, uint32_t first, uint32_t n, uint32_t to,
                        double offset);
IMPORT(finish) uint32_t js_finish(uint32_t encoder);
IMPORT(submit) void js_submit(const uint32_t *commands, uint32_t n);
IMPORT(writeBuffer)
void js_write_buffer(uint32_t buffer, double offset, const void *bytes, uint32_t size);
IMPORT(workDone) void js_work_done(uint32_t future);
IMPORT(mapRead) void js_map_read(uint32_t buffer, double offset, double size, uint32_t future);
/* Copies what is mapped: 0 if it is not. */
IMPORT(readMapped)
uint32_t js_read_mapped(uint32_t buffer, double offset, void *out, uint32_t size);
IMPORT(unmap) void js_unmap(uint32_t buffer);
IMPORT(destroyBuffer) void js_destroy_buffer(uint32_t buffer);
IMPORT(destroyDevice) void js_destroy_device(void);
IMPORT(release) void js_release(uint32_t object);

static inline uint32_t number_of(const void *handle) {
    return (uint32_t)(uintptr_t)handle;
}
#define HANDLE(type, number) ((type)(uintptr_t)(number))

static uint32_t view_size(WGPUStringView v) {
    return (uint32_t)(v.data == NULL ? 0 : v.length == WGPU_STRLEN ? strlen(v.data) : v.length);
}
#define VIEW(v) (v).data, view_size(v)
static const WGPUStringView no_text = { "", 0 };

/* ---- what comes from JavaScript ------------------------------------------------------------ */

typedef struct {
    enum { FUTURE_FREE, FUTURE_MAP, FUTURE_WORK } kind;
    bool settled;
    uint32_t status; /* once settled */
    void (*callback)(void);
    void *user1, *user2;
} web_future;

/* The module is one program with one device: what JavaScript calls back has no other context. */
static struct {
    web_future *futures;
    uint32_t n_futures, n_settled;
    WGPUDeviceLostCallbackInfo lost;
    WGPUUncapturedErrorCallbackInfo error;
    char text[TEXT_BYTES]; /* of an event */
} web;

/* A place for the callback; the future's number is the place's plus 1. UINT32_MAX without memory:
 * then nothing is told, and whoever polls finds the fault. */
static uint32_t add_future(web_future f) {
    uint32_t i = 0;
    while (i < web.n_futures && web.futures[i].kind != FUTURE_FREE)
        i++;
    if (i == web.n_futures) {
        const uint32_t n = web.n_futures > 0 ? web.n_futures * 2 : 64;
        web_future *list =
            n <= FUTURES_MAX ? mem_resize(web.futures, n, sizeof(*list), "futures", NULL) : NULL;
        if (list == NULL) {
            static const char message[] = "no memory to remember work under way";
            if (web.error.callback != NULL) {
                const WGPUDevice device = HANDLE(WGPUDevice, WEB_DEVICE);
                web.error.callback(&device, WGPUErrorType_OutOfMemory, view_of(message),
                                   web.error.userdata1, web.error.userdata2);
            }
            return UINT32_MAX;
        }
        memset(list + web.n_futures, 0, (n - web.n_futures) * sizeof(*list));
        web.futures = list;
        web.n_futures = n;
    }
    web.futures[i] = f;
    return i;
}

/* Told for every future but those of a device that is gone, once; status as the callback wants
 * it. */
EXPORT(web_gpu_settled) void web_gpu_settled(uint32_t future, uint32_t status);
void web_gpu_settled(uint32_t future, uint32_t status) {
    if (future >= web.n_futures || web.futures[future].kind == FUTURE_FREE) return;
    if (web.futures[future].settled) return;
    web.futures[future].settled = true;
    web.futures[future].status = status;
    web.n_settled++;
}

/* Where the text of an event goes, TEXT_BYTES at most. */
EXPORT(web_gpu_text) char *web_gpu_text(void);
char *web_gpu_text(void) {
    return web.text;
}

/* Loss (type: WGPUDeviceLostReason) or an error (WGPUErrorType), with the n bytes of the text. */
EXPORT(web_gpu_event) void web_gpu_event(bool is_loss, uint32_t type, uint32_t n);
void web_gpu_event(bool is_loss, uint32_t type, uint32_t n) {
    const WGPUDevice device = HANDLE(WGPUDevice, WEB_DEVICE);
    const WGPUStringView text = { web.text, min_u32(n, TEXT_BYTES) };
    if (is_loss) {
        const WGPUDeviceLostCallbackInfo lost = web.lost;
        web.lost.callback = NULL;
        if (lost.callback != NULL) {
            lost.callback(&device, (WGPUDeviceLostReason)type, text, lost.userdata1,
                          lost.userdata2);
        }
    } else if (web.error.callback != NULL) {
        web.error.callback(&device, (WGPUErrorType)type, text, web.error.userdata1,
                           web.error.userdata2);
    }
}

/* ---- instance, adapter, device ------------------------------------------------------------- */

WGPUInstance wgpuCreateInstance(const WGPUInstanceDescriptor *d) {
    (void)d;
    return HANDLE(WGPUInstance, WEB_INSTANCE);
}

/* Nobody is told any more. */
void wgpuInstanceRelease(WGPUInstance instance) {
    (void)instance;
    mem_free(web.futures);
    web.futures = NULL;
    web.n_futures = web.n_settled = 0;
    web.lost.callback = NULL;
    web.error.callback = NULL;
}

void wgpuInstanceProcessEvents(WGPUInstance instance) {
    (void)instance;
    for (uint32_t i = 0; web.n_settled > 0 && i < web.n_futures; i++) {
        if (!web.futures[i].settled) continue;
        const web_future f = web.futures[i];
        web.futures[i] = (web_future){ 0 };
        web.n_settled--;
        if (f.kind == FUTURE_MAP) {
            ((WGPUBufferMapCallback)f.callback)((WGPUMapAsyncStatus)f.status, no_text, f.user1,
                                                f.user2);
        } else {
            ((WGPUQueueWorkDoneCallback)f.callback)((WGPUQueueWorkDoneStatus)f.status, no_text,
                                                    f.user1, f.user2);
        }
    }
}

WGPUWaitStatus wgpuInstanceWaitAny(WGPUInstance instance, size_t n, WGPUFutureWaitInfo *futures,
                                   uint64_t timeout) {
    (void)instance, (void)n, (void)futures, (void)timeout;
    return WGPUWaitStatus_Error;
}

/* A callback that has run needs no future: this one is never waited for. */
static const WGPUFuture answered = { UINT32_MAX };

WGPUFuture wgpuInstanceRequestAdapter(WGPUInstance instance,
                                      const WGPURequestAdapterOptions *options,
                                      WGPURequestAdapterCallbackInfo info) {
    (void)instance, (void)options;
    info.callback(WGPURequestAdapterStatus_Success, HANDLE(WGPUAdapter, WEB_ADAPTER), no_text,
                  info.userdata1, info.userdata2);
    return answered;
}

/* What JavaScript tells of the adapter, by these numbers. */
enum { TEXT_VENDOR, TEXT_ARCHITECTURE, TEXT_DEVICE, TEXT_DESCRIPTION };
enum { NUMBER_TYPE, NUMBER_SUBGROUP };

static WGPUStringView adapter_text(uint32_t what) {
    char text[256];
    const uint32_t n = min_u32(js_adapter_text(what, text, sizeof(text)), sizeof(text));
    char *copy = n > 0 ? mem_new(n, 1, "an adapter's name", NULL) : NULL;
    if (copy == NULL) return no_text;
    memcpy(copy, text, n);
    return (WGPUStringView){ copy, n };
}

static void free_text(WGPUStringView v) {
    if (v.length > 0) mem_free((void *)(uintptr_t)v.data);
}

WGPUStatus wgpuAdapterGetInfo(WGPUAdapter adapter, WGPUAdapterInfo *info) {
    (void)adapter;
    info->vendor = adapter_text(TEXT_VENDOR);
    info->architecture = adapter_text(TEXT_ARCHITECTURE);
    info->device = adapter_text(TEXT_DEVICE);
    info->description = adapter_text(TEXT_DESCRIPTION);
    info->backendType = WGPUBackendType_WebGPU;
    info->adapterType = (WGPUAdapterType)js_adapter_number(NUMBER_TYPE);
    info->vendorID = info->deviceID = 0;
    info->subgroupMinSize = info->subgroupMaxSize = js_adapter_number(NUMBER_SUBGROUP);
    return WGPUStatus_Success;
}

void wgpuAdapterInfoFreeMembers(WGPUAdapterInfo info) {
    free_text(info.vendor);
    free_text(info.architecture);
    free_text(info.device);
    free_text(info.description);
}

/* Sizes that a size_t holds, whatever the device offers. */
static uint64_t limit_of(const char *name) {
    const double most = (double)(UINT32_MAX - 3), value = js_limit(name, (uint32_t)strlen(name));
    return value >= most ? (uint64_t)most : value > 0 ? (uint64_t)value : 0;
}

WGPUStatus wgpuAdapterGetLimits(WGPUAdapter adapter, WGPULimits *l) {
    (void)adapter;
#define X32(name) l->name = (uint32_t)limit_of(#name);
#define X64(name) l->name = limit_of(#name);
    X32(maxBindGroups)
    X32(maxBindingsPerBindGroup)
    X32(maxDynamicUniformBuffersPerPipelineLayout)
    X32(maxStorageBuffersPerShaderStage)
    X32(maxUniformBuffersPerShaderStage)
    X64(maxUniformBufferBindingSize)
    X64(maxStorageBufferBindingSize)
    X32(minUniformBufferOffsetAlignment)
    X32(minStorageBufferOffsetAlignment)
    X64(maxBufferSize)
    X32(maxComputeWorkgroupStorageSize)
    X32(maxComputeInvocationsPerWorkgroup)
    X32(maxComputeWorkgroupSizeX)
    X32(maxComputeWorkgroupSizeY)
    X32(maxComputeWorkgroupSizeZ)
    X32(maxComputeWorkgroupsPerDimension)
#undef X32
#undef X64
    return WGPUStatus_Success;
}

WGPUBool wgpuAdapterHasFeature(WGPUAdapter adapter, WGPUFeatureName feature) {
    (void)adapter;
    return js_has_feature((uint32_t)feature);
}

/* The device is there, with all that its adapter offers. */
WGPUFuture wgpuAdapterRequestDevice(WGPUAdapter adapter, const WGPUDeviceDescriptor *d,
                                    WGPURequestDeviceCallbackInfo info) {
    (void)adapter;
    web.lost = d->deviceLostCallbackInfo;
    web.error = d->uncapturedErrorCallbackInfo;
    info.callback(WGPURequestDeviceStatus_Success, HANDLE(WGPUDevice, WEB_DEVICE), no_text,
                  info.userdata1, info.userdata2);
    return answered;
}

WGPUQueue wgpuDeviceGetQueue(WGPUDevice device) {
    (void)device;
    return HANDLE(WGPUQueue, WEB_QUEUE);
}

void wgpuDeviceDestroy(WGPUDevice device) {
    (void)device;
    js_destroy_device();
}

void wgpuDevicePushErrorScope(WGPUDevice device, WGPUErrorFilter filter) {
    (void)device, (void)filter;
}

WGPUFuture wgpuDevicePopErrorScope(WGPUDevice device, WGPUPopErrorScopeCallbackInfo info) {
    (void)device;
    info.callback(WGPUPopErrorScopeStatus_Success, WGPUErrorType_NoError, no_text, info.userdata1,
                  info.userdata2);
    return answered;
}

/* ---- buffers ------------------------------------------------------------------------------- */

WGPUBuffer wgpuDeviceCreateBuffer(WGPUDevice device, const WGPUBufferDescriptor *d) {
    (void)device;
    assert(!d->mappedAtCreation); /* staging is plain memory here (buffer.c) */
    return HANDLE(WGPUBuffer,
                  js_create_buffer((double)d->size, (uint32_t)d->usage, VIEW(d->label)));
}

WGPUFuture wgpuBufferMapAsync(WGPUBuffer buffer, WGPUMapMode mode, size_t offset, size_t size,
                              WGPUBufferMapCallbackInfo info) {
    assert(mode == WGPUMapMode_Read);
    (void)mode;
    const uint32_t future = add_future((web_future){ .kind = FUTURE_MAP,
                                                     .callback = (void (*)(void))info.callback,
                                                     .user1 = info.userdata1,
                                                     .user2 = info.userdata2 });
    js_map_read(number_of(buffer), (double)offset, (double)size, future);
    return (WGPUFuture){ future };
}

/* JavaScript's memory is not C's: what is mapped is copied, and the copy goes with the mapping. */
typedef struct mapped_copy {
    struct mapped_copy *next;
    WGPUBuffer buffer;
    uint64_t bytes[]; /* aligned for whatever is read */
} mapped_copy;
static mapped_copy *mapped_copies;

const void *wgpuBufferGetConstMappedRange(WGPUBuffer buffer, size_t offset, size_t size) {
    if (size > SIZE_MAX - sizeof(mapped_copy) - 8) return NULL;
    mapped_copy *copy = mem_new(1, sizeof(*copy) + (size_t)align_up(size, 8), "a read-back", NULL);
    if (copy == NULL) return NULL;
    if (!js_read_mapped(number_of(buffer), (double)offset, copy->bytes, (uint32_t)size)) {
        mem_free(copy);
        return NULL;
    }
    copy->buffer = buffer;
    copy->next = mapped_copies;
    mapped_copies = copy;
    return copy->bytes;
}

void *wgpuBufferGetMappedRange(WGPUBuffer buffer, size_t offset, size_t size) {
    (void)buffer, (void)offset, (void)size;
    return NULL; /* nothing is mapped for writing */
}

static void free_copies(WGPUBuffer buffer) {
    for (mapped_copy **link = &mapped_copies; *link != NULL;) {
        mapped_copy *copy = *link;
        if (copy->buffer != buffer) {
            link = &copy->next;
            continue;
        }
        *link = copy->next;
        mem_free(copy);
    }
}

void wgpuBufferUnmap(WGPUBuffer buffer) {
    free_copies(buffer);
    js_unmap(number_of(buffer));
}

void wgpuBufferDestroy(WGPUBuffer buffer) {
    free_copies(buffer);
    js_destroy_buffer(number_of(buffer));
}

/* ---- kernels ------------------------------------------------------------------------------- */

WGPUShaderModule wgpuDeviceCreateShaderModule(WGPUDevice device,
                                              const WGPUShaderModuleDescriptor *d) {
    (void)device;
    assert(d->nextInChain != NULL && d->nextInChain->sType == WGPUSType_ShaderSourceWGSL);
    const WGPUShaderSourceWGSL *source = (const void *)d->nextInChain;
    return HANDLE(WGPUShaderModule, js_create_shader_module(VIEW(source->code), VIEW(d->label)));
}

WGPUBindGroupLayout wgpuDeviceCreateBindGroupLayout(WGPUDevice device,
                                                    const WGPUBindGroupLayoutDescriptor *d) {
    (void)device;
    uint32_t words[ENTRIES_MAX * ENTRY_WORDS];
    assert(d->entryCount <= ENTRIES_MAX);
    for (size_t i = 0; i < d->entryCount; i++) {
        const WGPUBindGroupLayoutEntry *e = &d->entries[i];
        words[i * ENTRY_WORDS] = e->binding;
        words[i * ENTRY_WORDS + 1] = (uint32_t)e->buffer.type;
        words[i * ENTRY_WORDS + 2] = e->buffer.hasDynamicOffset;
    }
    return HANDLE(WGPUBindGroupLayout, js_create_bind_group_layout(words, (uint32_t)d->entryCount));
}

WGPUPipelineLayout wgpuDeviceCreatePipelineLayout(WGPUDevice device,
                                                  const WGPUPipelineLayoutDescriptor *d) {
    (void)device;
    uint32_t groups[4];
    assert(d->bindGroupLayoutCount <= ARRAY_LEN(groups));
    for (size_t i = 0; i < d->bindGroupLayoutCount; i++)
        groups[i] = number_of(d->bindGroupLayouts[i]);
    return HANDLE(WGPUPipelineLayout,
                  js_create_pipeline_layout(groups, (uint32_t)d->bindGroupLayoutCount));
}

WGPUBindGroup wgpuDeviceCreateBindGroup(WGPUDevice device, const WGPUBindGroupDescriptor *d) {
    (void)device;
    double numbers[ENTRIES_MAX * ENTRY_NUMBERS];
    assert(d->entryCount <= ENTRIES_MAX);
    for (size_t i = 0; i < d->entryCount; i++) {
        const WGPUBindGroupEntry *e = &d->entries[i];
        assert(e->size != WGPU_WHOLE_SIZE);
        numbers[i * ENTRY_NUMBERS] = e->binding;
        numbers[i * ENTRY_NUMBERS + 1] = number_of(e->buffer);
        numbers[i * ENTRY_NUMBERS + 2] = (double)e->offset;
        numbers[i * ENTRY_NUMBERS + 3] = (double)e->size;
    }
    return HANDLE(WGPUBindGroup,
                  js_create_bind_group(number_of(d->layout), numbers, (uint32_t)d->entryCount));
}

static uint32_t create_pipeline(const WGPUComputePipelineDescriptor *d) {
    for (size_t i = 0; i < d->compute.constantCount; i++)
        js_constant(VIEW(d->compute.constants[i].key), d->compute.constants[i].value);
    return js_create_pipeline(number_of(d->layout), number_of(d->compute.module),
                              VIEW(d->compute.entryPoint), VIEW(d->label));
}

WGPUComputePipeline wgpuDeviceCreateComputePipeline(WGPUDevice device,
                                                    const WGPUComputePipelineDescriptor *d) {
    (void)device;
    return HANDLE(WGPUComputePipeline, create_pipeline(d));
}

WGPUFuture wgpuDeviceCreateComputePipelineAsync(WGPUDevice device,
                                                const WGPUComputePipelineDescriptor *d,
                                                WGPUCreateComputePipelineAsyncCallbackInfo info) {
    (void)device;
    const uint32_t pipeline = create_pipeline(d);
    info.callback(pipeline != 0 ? WGPUCreatePipelineAsyncStatus_Success
                                : WGPUCreatePipelineAsyncStatus_InternalError,
                  HANDLE(WGPUComputePipeline, pipeline),
                  pipeline != 0 ? no_text : view_of("the browser refuses it"), info.userdata1,
                  info.userdata2);
    return answered;
}

WGPUQuerySet wgpuDeviceCreateQuerySet(WGPUDevice device, const WGPUQuerySetDescriptor *d) {
    (void)device;
    assert(d->type == WGPUQueryType_Timestamp);
    return HANDLE(WGPUQuerySet, js_create_query_set(d->count));
}

/* ---- commands ------------------------------------------------------------------------------ */

WGPUCommandEncoder wgpuDeviceCreateCommandEncoder(WGPUDevice device,
                                                  const WGPUCommandEncoderDescriptor *d) {
    (void)device, (void)d;
    return HANDLE(WGPUCommandEncoder, js_create_encoder());
}

WGPUComputePassEncoder wgpuCommandEncoderBeginComputePass(WGPUCommandEncoder encoder,
                                                          const WGPUComputePassDescriptor *d) {
    const WGPUPassTimestampWrites *t = d != NULL ? d->timestampWrites : NULL;
    const uint32_t pass = t == NULL
                              ? js_begin_pass(number_of(encoder), 0, 0, 0)
                              : js_begin_pass(number_of(encoder), number_of(t->querySet),
                                              t->beginningOfPassWriteIndex, t->endOfPassWriteIndex);
    return HANDLE(WGPUComputePassEncoder, pass);
}

void wgpuComputePassEncoderSetPipeline(WGPUComputePassEncoder pass, WGPUComputePipeline pipeline) {
    js_set_pipeline(number_of(pass), number_of(pipeline));
}

void wgpuComputePassEncoderSetBindGroup(WGPUComputePassEncoder pass, uint32_t index,
                                        WGPUBindGroup group, size_t n, const uint32_t *offsets) {
    js_set_bind_group(number_of(pass), index, number_of(group), (uint32_t)n, offsets);
}

void wgpuComputePassEncoderDispatchWorkgroups(WGPUComputePassEncoder pass, uint32_t x, uint32_t y,
                                              uint32_t z) {
    js_dispatch(number_of(pass), x, y, z);
}

void wgpuComputePassEncoderEnd(WGPUComputePassEncoder pass) {
    js_end_pass(number_of(pass));
}

void wgpuCommandEncoderCopyBufferToBuffer(WGPUCommandEncoder encoder, WGPUBuffer from,
                                          uint64_t from_offset, WGPUBuffer to, uint64_t to_offset,
                                          uint64_t size) {
    js_copy_buffer(number_of(encoder), number_of(from), (double)from_offset, number_of(to),
                   (double)to_offset, (double)size);
}

void wgpuCommandEncoderClearBuffer(WGPUCommandEncoder encoder, WGPUBuffer buffer, uint64_t offset,
                                   uint64_t size) {
    assert(size != WGPU_WHOLE_SIZE);
    js_clear_buffer(number_of(encoder), number_of(buffer), (double)offset, (double)size);
}

void wgpuCommandEncoderResolveQuerySet(WGPUCommandEncoder encoder, WGPUQuerySet queries,
                                       uint32_t first, uint32_t n, WGPUBuffer to, uint64_t offset) {
    js_resolve_queries(number_of(encoder), number_of(queries), first, n, number_of(to),
                       (double)offset);
}

WGPUCommandBuffer wgpuCommandEncoderFinish(WGPUCommandEncoder encoder,
                                           const WGPUCommandBufferDescriptor *d) {
    (void)d;
    return HANDLE(WGPUCommandBuffer, js_finish(number_of(encoder)));
}

void wgpuQueueSubmit(WGPUQueue queue, size_t n, const WGPUCommandBuffer *commands) {
    (void)queue;
    uint32_t list[4];
    assert(n <= ARRAY_LEN(list));
    for (size_t i = 0; i < n; i++)
        list[i] = number_of(commands[i]);
    js_submit(list, (uint32_t)n);
}

void wgpuQueueWriteBuffer(WGPUQueue queue, WGPUBuffer buffer, uint64_t offset, const void *bytes,
                          size_t size) {
    (void)queue;
    js_write_buffer(number_of(buffer), (double)offset, bytes, (uint32_t)size);
}

WGPUFuture wgpuQueueOnSubmittedWorkDone(WGPUQueue queue, WGPUQueueWorkDoneCallbackInfo info) {
    (void)queue;
    const uint32_t future = add_future((web_future){ .kind = FUTURE_WORK,
                                                     .callback = (void (*)(void))info.callback,
                                                     .user1 = info.userdata1,
                                                     .user2 = info.userdata2 });
    js_work_done(future);
    return (WGPUFuture){ future };
}

/* ---- the end of things --------------------------------------------------------------------- */

/* JavaScript keeps those that it had from the start. */
#define RELEASE(type)                        \
    void wgpu##type##Release(WGPU##type h) { \
        js_release(number_of(h));            \
    }
RELEASE(Adapter)
RELEASE(BindGroup)
RELEASE(BindGroupLayout)
RELEASE(Buffer)
RELEASE(CommandBuffer)
RELEASE(CommandEncoder)
RELEASE(ComputePassEncoder)
RELEASE(ComputePipeline)
RELEASE(Device)
RELEASE(PipelineLayout)
RELEASE(QuerySet)
RELEASE(Queue)
RELEASE(ShaderModule)
#undef RELEASE

/* ---- the table ----------------------------------------------------------------------------- */

bool library_open(gpu_api *api, const char *path, dp_error *err) {
    if (path != NULL) {
        return err_set(err, DP_E_DEVICE, "WebGPU library %s: a browser has its own", path);
    }
    *api = (gpu_api){ .kind = LIBRARY_WEB };
#define X(name) api->name = wgpu##name;
    GPU_FUNCTIONS(X)
#undef X
    return true;
}

WGPUChainedStruct *library_toggles(const gpu_api *api, toggles_stage stage, dawn_toggles *storage) {
    (void)api, (void)stage, (void)storage;
    return NULL;
}
