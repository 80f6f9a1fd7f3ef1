/* gpu_internal: what the files of this folder share.
 *
 * library.c opens a WebGPU library and knows the dialects (library_web.c stands in its place in the
 * wasm build, over the browser's own); adapter.c looks for GPUs; device.c owns
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
    X(BufferGetMappedRange)                                                           \
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

/* What Dawn says of matrix units, as its dawn/webgpu.h has it: one configuration multiplies [m, k]
 * by [k, n]. */
enum {
    DAWN_FEATURE_MATRIX = 0x00050034, /* ChromiumExperimentalSubgroupMatrix */
    DAWN_STYPE_MATRIX = 0x0005003B,   /* AdapterPropertiesSubgroupMatrixConfigs */
    DAWN_MATRIX_F32 = 1,              /* WGPUSubgroupMatrixComponentType */
    DAWN_MATRIX_F16 = 2,
};
typedef struct {
    uint32_t component, result, m, n, k;
} dawn_matrix;
typedef struct {
    WGPUChainedStruct chain;
    size_t n;
    const dawn_matrix *list;
} dawn_matrices;

/* LIBRARY_WEB: the browser's, which answers only when C has returned, so there nothing may wait. */
typedef enum { LIBRARY_OTHER, LIBRARY_WGPU, LIBRARY_DAWN, LIBRARY_WEB } library_kind;

typedef struct {
    library_kind kind;
#define X(name) __typeof__(wgpu##name) *name;
    GPU_FUNCTIONS(X)
    GPU_WGPU_FUNCTIONS(X)
#undef X
    void (*FreeDawnMatrices)(dawn_matrices); /* of Dawn, if it knows of them */
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
/* Of a device, and of one that keeps the library's checks. */
typedef enum {
    TOGGLES_INSTANCE,
    TOGGLES_ADAPTER,
    TOGGLES_DEVICE,
    TOGGLES_CHECKED
} toggles_stage;
/* The chain for a stage; NULL if the library is not Dawn. `storage` must live as long as the call.
 */
WGPUChainedStruct *library_toggles(const gpu_api *api, toggles_stage stage, dawn_toggles *storage);

static inline WGPUStringView view_of(const char *s) {
    return (WGPUStringView){ s, s != NULL ? strlen(s) : 0 };
}

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
    double began;      /* by clock_seconds */
};

typedef struct gpu_profiler gpu_profiler;
typedef struct gpu_trace gpu_trace;

/* Kernels of wgpu-native that wait for their pipelines, and threads that make them (kernel.c). */
enum { MAKERS_MAX = 8 };
typedef enum { KERNEL_WAITING, KERNEL_MAKING, KERNEL_MADE } kernel_state;
typedef struct {
    pthread_mutex_t lock; /* of what follows but `threads` */
    pthread_cond_t changed;
    struct gpu_kernel *first, **last;
    uint32_t n_waiting;
    uint32_t n_running;
    bool closing;
    pthread_t threads[MAKERS_MAX]; /* started and not joined, of the thread that has the device */
    uint32_t n_threads;
} kernel_makers;

struct gpu {
    gpu_api api;
    WGPUInstance instance;
    WGPUAdapter adapter;
    WGPUDevice device;
    WGPUQueue queue;
    WGPULimits limits;
    dp_device_info info;
    uint32_t subgroup_most; /* lanes of its largest subgroups, as it says; 0: it does not */
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
    kernel_makers makers;
    gpu_layout layouts[LAYOUTS];
    size_t n_layouts;
    WGPUBindGroupLayout params_layout;
    gpu_plan *plans;
    bool checks;            /* the library keeps its own */
    gpu_profiler *profiler; /* NULL unless profiling */
    dp_device_peaks peaks;  /* 0 until measured */
    gpu_trace *trace;       /* NULL: off */
    double handed_over;     /* when the last submission was, by clock_seconds */
};

/* A view as a C string, cut to size. */
void view_copy(char *out, size_t size, WGPUStringView v);

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

/* Errors of this thread's calls between begin and end, rather than into `fault`: only around
 * creations, not nested. Returns what scope_end wants to know. On wgpu-native by any thread, else
 * by the device's owner alone. */
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
    gpu_kernel *owner;       /* of the module: the first kernel of this text */
    WGPUShaderModule module; /* of the owner alone; NULL until made, and after a failure */
    kernel_state module_state, state; /* as long as threads may change them: under makers.lock */
    dp_error module_err;
    gpu_kernel *next; /* in the queue of makers */
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
void kernels_close(gpu *g); /* drops what still waits */
void makers_open(gpu *g);
void makers_close(gpu *g);

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

/* Times ceil(n / per), as gpu_extent says. */
uint32_t count_groups(gpu_extent x, const gpu_sizes *sizes);
/* One step of a plan with bind group `data`, as gpu_encode does it. */
void encode_step(gpu_encoder *e, const gpu_plan *p, uint32_t i, WGPUBindGroup data,
                 const gpu_sizes *sizes);
/* A bind group for a call that has these ranges instead of its own. */
WGPUBindGroup plan_bind(gpu *g, const gpu_call *call, const gpu_range bind[GPU_BINDINGS]);
/* Submits one command buffer (NULL: only what was written before) and returns its number. */
uint64_t encode_submit(gpu *g, WGPUCommandBuffer commands);
/* Blocks until submission `number` has completed or the device is lost. */
void encode_wait(gpu *g, uint64_t number);
/* Blocks once for submission `number`, a map that belongs to it included, and runs callbacks. */
void encode_block(gpu *g, uint64_t number);
/* Adds host time to one of g->stats, and to the trace under this name. */
void encode_count(gpu *g, uint64_t *nanoseconds, const char *name, double start, double end);
void encode_close(gpu *g);

/* ---- profile (profile.c) ------------------------------------------------------------------- */

bool profile_open(gpu *g, dp_error *err) CHECK_RESULT;
void profile_close(gpu *g); /* what it has on the device; callbacks to come still hold its memory */
/* The row of a role and a kernel, the first of one for each phase; without a profiler 0. */
uint32_t profile_span(gpu *g, const char *role, const char *kernel);
/* Is every dispatch to have a pass of its own? */
bool profile_splits(const gpu *g);
/* Where the pass that begins writes its times, NULL if it is not timed: that of the dispatch of
 * `span`, or of whatever comes. `storage` is what the result points to. */
const WGPUPassTimestampWrites *profile_begin(gpu *g, uint32_t span, const gpu_cost *cost,
                                             const gpu_sizes *sizes,
                                             WGPUPassTimestampWrites *storage);
void profile_phase(gpu *g, dp_phase phase, uint32_t rows);
/* Before the encoder is finished; after the submission, where it waits if dispatches are timed; or
 * if there is none. */
void profile_resolve(gpu *g, WGPUCommandEncoder commands);
void profile_collect(gpu *g);
void profile_abandon(gpu *g);
/* Of what is submitted between the two, in steps: the GPU time of its passes, counted nowhere;
 * `split`: a pass to each dispatch. */
void profile_alone(gpu *g, bool split);
uint64_t profile_alone_end(gpu *g);

/* ---- trace (trace.c) ------------------------------------------------------------------------ */

void trace_close(gpu *g);
/* All do nothing while there is no trace; times in seconds, by clock_seconds and by the device. */
void trace_host(gpu *g, const char *name, double start, double end);
void trace_device(gpu *g, const dp_profile_row *row, double start, double seconds);
/* A submission that was handed over at one time began at the other. */
void trace_gap(gpu *g, double handed_over, double first);

#endif
