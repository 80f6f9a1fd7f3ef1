/* gpu_internal: what the files of this folder share.
 *
 * library.c opens a WebGPU library and knows the dialects; adapter.c looks for GPUs; device.c owns
 * the device, its errors and the one place that blocks; buffer.c, kernel.c, plan.c, encode.c and
 * profile.c build on it. Submissions are numbered from 1 and finish in order, so `completed` says
 * of every buffer, ticket and deferred destruction whether the GPU is done with it. Callbacks never
 * run but inside a call of ours (mode AllowProcessEvents), except those for errors and loss, which
 * only touch `fault`. */
#ifndef GPU_INTERNAL_H
#define GPU_INTERNAL_H

#include "gpu/gpu.h"

#include <pthread.h>
#include <stdatomic.h>
#include <webgpu.h>
#include <wgpu.h>

/* ---- library (library.c) ------------------------------------------------------------------- */

/* Every function of webgpu.h that is used; a library without one of them is refused. */
#define GPU_FUNCTIONS(X)                                                              \
    X(AdapterGetInfo)                                                                 \
    X(AdapterGetLimits)                                                               \
    X(AdapterHasFeature)                                                              \
    X(AdapterInfoFreeMembers)                                                         \
    X(AdapterRelease)                                                                 \
    X(AdapterRequestDevice)                                                           \
    X(BindGroupLayoutRelease)                                                         \
    X(BindGroupRelease)                                                               \
    X(BufferDestroy)                                                                  \
    X(BufferGetConstMappedRange)                                                      \
    X(BufferMapAsync)                                                                 \
    X(BufferRelease)                                                                  \
    X(BufferUnmap)                                                                    \
    X(CommandBufferRelease)                                                           \
    X(CommandEncoderBeginComputePass)                                                 \
    X(CommandEncoderClearBuffer)                                                      \
    X(CommandEncoderCopyBufferToBuffer)                                               \
    X(CommandEncoderFinish)                                                           \
    X(CommandEncoderRelease)                                                          \
    X(CommandEncoderResolveQuerySet)                                                  \
    X(ComputePassEncoderDispatchWorkgroups)                                           \
    X(ComputePassEncoderEnd)                                                          \
    X(ComputePassEncoderRelease)                                                      \
    X(ComputePassEncoderSetBindGroup)                                                 \
    X(ComputePassEncoderSetPipeline)                                                  \
    X(ComputePipelineRelease)                                                         \
    X(CreateInstance)                                                                 \
    X(DeviceCreateBindGroup)                                                          \
    X(DeviceCreateBindGroupLayout)                                                    \
    X(DeviceCreateBuffer)                                                             \
    X(DeviceCreateCommandEncoder)                                                     \
    X(DeviceCreateComputePipeline)                                                    \
    X(DeviceCreateComputePipelineAsync) /* not called on wgpu-native, which aborts */ \
    X(DeviceCreatePipelineLayout)                                                     \
    X(DeviceCreateQuerySet)                                                           \
    X(DeviceCreateShaderModule)                                                       \
    X(DeviceDestroy)                                                                  \
    X(DeviceGetQueue)                                                                 \
    X(DevicePopErrorScope)                                                            \
    X(DevicePushErrorScope)                                                           \
    X(DeviceRelease)                                                                  \
    X(InstanceProcessEvents)                                                          \
    X(InstanceRelease)                                                                \
    X(InstanceRequestAdapter)                                                         \
    X(InstanceWaitAny) /* not called on wgpu-native, which aborts */                  \
    X(PipelineLayoutRelease)                                                          \
    X(QuerySetRelease)                                                                \
    X(QueueOnSubmittedWorkDone)                                                       \
    X(QueueRelease)                                                                   \
    X(QueueSubmit)                                                                    \
    X(QueueWriteBuffer)                                                               \
    X(ShaderModuleRelease)

/* Of wgpu.h, there if the library is wgpu-native. */
#define GPU_WGPU_FUNCTIONS(X)          \
    X(DeviceCreateShaderModuleTrusted) \
    X(DevicePoll)                      \
    X(GetVersion)                      \
    X(InstanceEnumerateAdapters)       \
    X(QueueGetTimestampPeriod)         \
    X(QueueSubmitForIndex)             \
    X(SetLogLevel)

typedef enum { LIBRARY_OTHER, LIBRARY_WGPU, LIBRARY_DAWN } library_kind;

typedef struct {
    library_kind kind;
#define X(name) __typeof__(wgpu##name) *name;
    GPU_FUNCTIONS(X)
    GPU_WGPU_FUNCTIONS(X)
#undef X
} gpu_api;

/* Fills *api from the library at `path`, NULL: the first found in the folders of DP_WEBGPU_DIRS or
 * by the system's loader. DP_E_DEVICE with what was tried. The library is never unloaded: its
 * threads and thread-local destructors may outlive the last device. */
bool library_open(gpu_api *api, const char *path, dp_error *err) CHECK_RESULT;

/* Dawn's toggles, chained to instance, adapter and device descriptors of Dawn alone. */
typedef struct {
    WGPUChainedStruct chain;
    size_t n_on;
    const char *const *on;
    size_t n_off;
    const char *const *off;
} dawn_toggles;
typedef enum { TOGGLES_INSTANCE, TOGGLES_ADAPTER, TOGGLES_DEVICE } toggles_stage;
/* The chain for a stage; NULL if the library is not Dawn. `storage` must live as long as the call.
 */
WGPUChainedStruct *library_toggles(const gpu_api *api, toggles_stage stage, dawn_toggles *storage);

static inline WGPUStringView view_of(const char *s) {
    return (WGPUStringView){ s, s != NULL ? strlen(s) : 0 };
}
/* A view as a C string, cut to size. */
void view_copy(char *out, size_t size, WGPUStringView v);

/* ---- adapters (adapter.c) ------------------------------------------------------------------ */

bool adapter_open_instance(gpu *g, dp_error *err) CHECK_RESULT;
/* All adapters in *list, at least one; adapter_release gives back those not set to NULL, and the
 * list. */
bool adapter_find(gpu *g, WGPUAdapter **list, size_t *n, dp_error *err) CHECK_RESULT;
void adapter_release(gpu *g, WGPUAdapter *list, size_t n);
/* The adapter as offered, less what the options forbid; its limits, so reduced, go to g->limits. */
void adapter_describe(gpu *g, WGPUAdapter adapter, const dp_device_options *options,
                      dp_device_info *out);
/* Index of the adapter that the options ask for, else of the fastest; -1 if there is none such. */
int adapter_choose(gpu *g, WGPUAdapter const *list, size_t n, const dp_device_options *options,
                   dp_error *err);
WGPUFeatureName adapter_subgroups_feature(const gpu *g);

/* ---- device (device.c) --------------------------------------------------------------------- */

enum {
    FLIGHTS = 64,      /* submissions whose way of waiting is remembered */
    PARAMS_SLOT = 256, /* bytes of one parameter block: the largest offset alignment WebGPU has */
    LABEL_SIZE = 96,   /* as dp_profile_row.kernel */
    LAYOUTS = 64,      /* distinct sets of bindings */
};

/* Bind group layout of group 0 for one set of bindings, shared by all kernels that have it. */
typedef struct {
    uint32_t used, access; /* 2 bits of gpu_access a binding; one bit says that it is there */
    WGPUBindGroupLayout group;
    WGPUPipelineLayout plain, with_params; /* without and with Params as group 1 */
} gpu_layout;

typedef enum { PLACE_FREE, PLACE_TAKEN, PLACE_MAPPING, PLACE_MAPPED, PLACE_FAILED } place_state;

/* One place of the read-back ring. */
typedef struct {
    place_state state;
    WGPUBuffer buffer; /* mapped for reading; NULL until first used or reserved */
    uint64_t capacity, size;
    uint64_t number; /* of the submission */
    bool abandoned;  /* collected after a failure: the callback frees it */
    gpu *g;
} read_place;

typedef struct {
    uint64_t number;
    WGPUFuture future;         /* of the map if it reads back, else of the work */
    WGPUSubmissionIndex index; /* wgpu-native */
} flight;

struct gpu_encoder {
    gpu *g;
    bool open;
    dp_error err;
    WGPUCommandEncoder commands; /* NULL after a failure: nothing is recorded */
    WGPUComputePassEncoder pass;
    WGPUComputePipeline pipeline; /* what the pass has set, so as not to set it again */
    WGPUBindGroup data, params;
    uint32_t params_offset;
    read_place *place; /* of gpu_encode_read */
};

typedef struct gpu_profiler gpu_profiler;

struct gpu {
    gpu_api api;
    WGPUInstance instance;
    WGPUAdapter adapter;
    WGPUDevice device;
    WGPUQueue queue;
    WGPULimits limits;
    dp_device_info info;
    dp_stats stats;
    log_sink log;
    uint64_t max_memory;
    pthread_mutex_t lock;

    /* The first failure that the implementation reported by itself, and loss. Callbacks of the
     * implementation may come from its own threads, hence a lock and flags that are atomic. */
    pthread_mutex_t fault_lock;
    dp_error fault;
    atomic_bool faulty, lost;

    uint64_t submitted, completed; /* numbers of submissions */
    flight flights[FLIGHTS];       /* by number modulo FLIGHTS */
    read_place places[GPU_READBACKS];
    gpu_encoder encoder;

    gpu_buffer *buffers;   /* all alive */
    gpu_buffer *graveyard; /* freed, not yet destroyed */
    uint64_t unflushed;    /* bytes written since the last submission */
    uint64_t flush;        /* number of the last submission that gpu_write made */

    gpu_kernel **kernels;
    size_t n_kernels, max_kernels;
    gpu_layout layouts[LAYOUTS];
    size_t n_layouts;
    WGPUBindGroupLayout params_layout;
    gpu_plan *plans;
    gpu_profiler *profiler; /* NULL unless profiling */
};

/* Records a failure (the first one stays); true if it is the first. */
bool gpu_fail(gpu *g, dp_status status, const char *format, ...) PRINTF_LIKE(3, 4);
/* False with the recorded failure in err, if there is one. */
bool gpu_ok(gpu *g, dp_error *err) CHECK_RESULT;

/* Runs the callbacks that are due. Never blocks. */
void gpu_pump(gpu *g);
/* The one place that blocks: until the future is ready, or on wgpu-native the submission `index`
 * (NULL: all) has finished; then runs callbacks. May return early; call it in a loop. */
void gpu_block(gpu *g, WGPUFuture future, const WGPUSubmissionIndex *index);

/* Answer of an asynchronous call, filled by a callback. */
typedef struct {
    bool done;
    uint32_t status;
    void *object;
    char message[400];
} reply;
void reply_fill(reply *r, uint32_t status, void *object, WGPUStringView message);
void gpu_await(gpu *g, WGPUFuture future, const reply *r);

/* Errors of the calls between begin and end, rather than into `fault`: only around creations.
 * Returns how many scopes it opened. */
uint32_t scope_begin(gpu *g);
/* DP_E_MEMORY when the device ran out, DP_E_DEVICE for anything else. */
bool scope_end(gpu *g, uint32_t scopes, dp_error *err) CHECK_RESULT;

/* ---- buffers (buffer.c) -------------------------------------------------------------------- */

struct gpu_buffer {
    gpu *g;
    WGPUBuffer handle;
    uint64_t size;
    uint32_t users; /* plans whose bind groups name it: it must outlive them */
    uint64_t after; /* in the graveyard: destroy when this submission has completed */
    gpu_buffer *next, **link;
};

/* A buffer of the given use, counted in the statistics; WGPUBuffer alone. */
WGPUBuffer buffer_create(gpu *g, uint64_t size, WGPUBufferUsage usage, const char *label,
                         dp_error *err) CHECK_RESULT;
void buffer_destroy(gpu *g, WGPUBuffer handle, uint64_t size);
void buffers_reap(gpu *g); /* destroys what may go by now */
void buffers_close(gpu *g);

/* ---- kernels (kernel.c) -------------------------------------------------------------------- */

struct gpu_kernel {
    gpu *g;
    const gpu_source *source;
    const gpu_fragment *fragments[GPU_SLOTS];
    const gpu_layout *layout;
    WGPUShaderModule module; /* shared with kernels of the same text: the first of them owns it */
    bool owns_module;
    WGPUComputePipeline pipeline; /* NULL until made, and after a failure */
    WGPUFuture future;            /* of the pipeline */
    uint32_t pending;             /* callbacks to come */
    dp_error err;
    char label[LABEL_SIZE]; /* "matvec subgroup q4_k" */
    uint32_t used, access;  /* as gpu_layout */
    unsigned char consts[]; /* consts_size bytes */
};

/* Waits for one kernel; false with its name and the compiler's message. */
bool kernel_wait(const gpu_kernel *k, dp_error *err) CHECK_RESULT;
void kernels_close(gpu *g);

/* ---- plans (plan.c) and encoding (encode.c) ------------------------------------------------ */

/* A dispatch as it is replayed. */
typedef struct {
    WGPUComputePipeline pipeline;
    WGPUBindGroup data;
    uint32_t params_offset; /* NO_PARAMS: none */
    uint32_t span;          /* of the profile */
    gpu_extent groups[3];
} plan_step;

#define NO_PARAMS UINT32_MAX

struct gpu_plan {
    gpu *g;
    bool finished;
    dp_error err;
    gpu_call *calls; /* as added; params and label are ours */
    plan_step *steps;
    uint32_t n, max;
    unsigned char *params; /* blocks of PARAMS_SLOT bytes, each distinct one once */
    uint32_t n_params, max_params;
    uint32_t *slot_of;     /* of call i, NO_PARAMS: none */
    WGPUBindGroup *groups; /* distinct ones, owned */
    uint32_t n_groups;
    gpu_buffer *params_buffer;
    WGPUBindGroup params_group;
    gpu_plan *next, **link;
};

void plans_close(gpu *g);

/* Submits one command buffer (NULL: only what was written before) and returns its number. */
uint64_t encode_submit(gpu *g, WGPUCommandBuffer commands);
/* Blocks until submission `number` has completed or the device is lost. */
void encode_wait(gpu *g, uint64_t number);
void encode_close(gpu *g);

/* ---- profile (profile.c) ------------------------------------------------------------------- */

bool profile_open(gpu *g, dp_error *err) CHECK_RESULT;
void profile_close(gpu *g);
/* The row of a name; without a profiler 0. */
uint32_t profile_span(gpu *g, const char *name);
/* Where the next dispatch writes its times, in `*writes`; false if no more fit into this
 * submission. */
bool profile_begin(gpu *g, uint32_t row, WGPUPassTimestampWrites *writes);
/* Before the encoder is finished; and after the submission, which it waits for. */
void profile_resolve(gpu *g, WGPUCommandEncoder commands);
void profile_collect(gpu *g);

#endif
