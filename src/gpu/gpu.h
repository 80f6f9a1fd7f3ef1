/* gpu: WebGPU behind a small surface. The only folder that includes webgpu.h. Needs base.
 *
 * Device, buffers, kernels, plans, encoders. A kernel is WGSL text with chosen fragments and
 * constants (a pipeline); a plan is a list of dispatches over buffers that never move, made once at
 * load; an encoder puts plans and copies into one command buffer with one compute pass and submits
 * it. Nothing blocks but gpu_wait (and what says it waits). Errors of the implementation arrive
 * late: the first one sticks to the gpu, and every later call that can fail reports it; then the
 * gpu can only be closed. Evaluation allocates no host memory here.
 *
 * Threads: whoever calls anything but the accessors and gpu_lose holds gpu_lock.
 * WebGPU 1.0 by webgpu.h (webgpu-native/webgpu-headers). */
#ifndef GPU_GPU_H
#define GPU_GPU_H

#include "base/base.h"

typedef struct gpu gpu;
typedef struct gpu_buffer gpu_buffer;
typedef struct gpu_kernel gpu_kernel;
typedef struct gpu_plan gpu_plan;
typedef struct gpu_encoder gpu_encoder;

/* ---- device (device.c) --------------------------------------------------------------------- */

/* As dp_device_options; opens library, adapter, device with the adapter's own limits and the
 * features that exist (f16, subgroups, timestamps), finds the subgroup size by a probe kernel. It
 * waits. DP_E_DEVICE as dp_device_open says, DP_E_UNSUPPORTED for `profile` without timestamps. */
gpu *gpu_open(const dp_device_options *options, dp_error *err) CHECK_RESULT;
void gpu_close(gpu *g); /* every buffer, plan and kernel of it goes too */
bool gpu_list(const dp_device_options *options, dp_device_info *list, size_t max, size_t *n,
              dp_error *err) CHECK_RESULT;
const dp_device_info *gpu_info(const gpu *g); /* tiers as in use after the options' switches */
/* Whether all subgroups have the lanes that gpu_info says. Where they vary a kernel of matrices may
 * not be one subgroup to a workgroup (Dawn refuses it). */
bool gpu_subgroups_alike(const gpu *g);
const dp_stats *gpu_stats(const gpu *g);
const log_sink *gpu_log(const gpu *g);
uint64_t gpu_alignment(const gpu *g); /* of binding offsets, at least 256 */
/* Bytes that may be taken in all: dp_device_options.max_memory, or the host's memory for a software
 * GPU; UINT64_MAX where nobody says. */
uint64_t gpu_memory_limit(const gpu *g);
uint64_t gpu_memory_room(const gpu *g); /* what is left of it; UINT64_MAX where nobody says */
bool gpu_is_lost(const gpu *g);
/* False where waiting is impossible (a browser): what would wait fails. Whoever needs an answer
 * returns first and asks again later. */
bool gpu_may_block(const gpu *g);
void gpu_lose(gpu *g); /* test hook: destroys the device; all that follows is as after a reset */

/* The one lock of a device: whoever records, submits and collects holds it. Recursive: no. */
void gpu_lock(gpu *g);
void gpu_unlock(gpu *g);

/* ---- buffers (buffer.c) -------------------------------------------------------------------- */

/* Storage that kernels read and write, also uniform data; zeroed. The size is rounded up to a
 * multiple of 4, at least 4. DP_E_MEMORY over the buffer limit, over dp_device_options.max_memory
 * or when the device refuses, with what was asked and what is left; it may wait for freed ones to
 * go. */
gpu_buffer *gpu_buffer_new(gpu *g, uint64_t size, const char *label, dp_error *err) CHECK_RESULT;
void gpu_buffer_free(gpu_buffer *b); /* goes once no recorded work uses it; NULL is fine */
uint64_t gpu_buffer_size(const gpu_buffer *b);

/* Bytes [offset, offset + size) of a buffer. */
typedef struct {
    gpu_buffer *buffer;
    uint64_t offset, size;
} gpu_range;
gpu_range gpu_whole(gpu_buffer *b);
gpu_range gpu_part(gpu_range r, uint64_t offset, uint64_t size); /* asserts that it lies inside */

/* Copies to the device, ordered before everything submitted later, also by an encoder that is open
 * now. range.size bytes, offset and size multiples of 4. Large data goes in bounded pieces; the
 * call waits when more than 64 MiB are under way. */
bool gpu_write(gpu *g, gpu_range range, const void *bytes, dp_error *err) CHECK_RESULT;

/* Uploads that threads prepare: n pieces of host memory which the device copies from. All calls are
 * the device's owner's, the memory of a piece that is taken anybody's. */
typedef struct gpu_staging gpu_staging;
enum { GPU_STAGES_MAX = 32 };
/* Pieces are made as they are taken, n at most, fewer if there is no room for all; DP_E_MEMORY if
 * there is for none. */
gpu_staging *gpu_staging_new(gpu *g, uint32_t n, uint64_t size, dp_error *err) CHECK_RESULT;
/* The memory of a piece that the device does not use: `size` bytes to write, aligned to 8 at least;
 * reading them may be slow. NULL, and DP_OK in err, if there is none; with `wait`, which makes no
 * sense while all are taken, only with DP_E_DEVICE. */
void *gpu_staging_take(gpu_staging *s, bool wait, uint32_t *piece, dp_error *err) CHECK_RESULT;
typedef struct {
    gpu_range to;  /* offset and size multiples of 4 */
    uint64_t from; /* in the piece, a multiple of 4 */
} gpu_staged;
/* Copies parts of a piece to the device, ordered before everything submitted later, and gives the
 * piece back. */
bool gpu_staging_send(gpu_staging *s, uint32_t piece, const gpu_staged *list, uint32_t n,
                      dp_error *err) CHECK_RESULT;
void gpu_staging_free(gpu_staging *s); /* waits for what was sent; NULL is fine */

/* Submits, waits and copies range.size bytes back: for tests and rare reads. No encoder is open. */
bool gpu_read(gpu *g, gpu_range range, void *out, dp_error *err) CHECK_RESULT;

/* ---- kernels (kernel.c; sources printed by tools/embed into kernels_gen.h) ------------------ */

typedef enum { GPU_ACCESS_READ, GPU_ACCESS_WRITE, GPU_ACCESS_UNIFORM } gpu_access;
typedef struct {
    const char *name; /* as in WGSL */
    uint32_t binding; /* of group 0 */
    gpu_access access;
} gpu_binding;

typedef enum { GPU_CONST_U32, GPU_CONST_I32, GPU_CONST_F32, GPU_CONST_BOOL } gpu_const_type;
typedef struct {
    const char *name; /* the override's WGSL name */
    gpu_const_type type;
    uint32_t offset; /* in the C twin NAME_consts */
} gpu_const;

/* A fragment: kernels/part/SLOT_NAME.wgsl fills slot SLOT. */
typedef struct {
    const char *slot, *name, *text;
    const char *const *common; /* texts that follow, which other files have too, up to a NULL; NULL:
                                * none */
    bool needs_f16, needs_subgroups, needs_matrix;
    const gpu_binding *bindings;
    uint32_t n_bindings;
    const gpu_const *consts; /* none: a fragment uses the overrides of its kernel */
    uint32_t n_consts;
} gpu_fragment;

/* Text i of a file, beginning with its own; NULL: no more. */
static inline const char *gpu_text(const char *own, const char *const *common, size_t i) {
    return i == 0 ? own : common != NULL ? common[i - 1] : NULL;
}

/* A kernel file. Its texts and those of one fragment per slot are one WGSL module. */
typedef struct {
    const char *name, *text;    /* entry point = name */
    const char *const *common;  /* as a fragment's */
    const char *const *slots;   /* what `//! use a, b as c` names: "a", "c" */
    const char *const *slot_of; /* whose parts fill them: "a", "b" */
    uint32_t n_slots;
    bool needs_f16, needs_subgroups, needs_matrix;
    const gpu_binding *bindings; /* of the file itself, by binding number */
    uint32_t n_bindings;
    const gpu_const *consts; /* overrides without an initialiser */
    uint32_t n_consts;
    uint32_t consts_size; /* sizeof the C twin */
    uint32_t params_size; /* of the uniform Params at group 1, binding 0; 0: none */
} gpu_source;

enum { GPU_SLOTS = 4, GPU_BINDINGS = 12, GPU_SECOND_BINDING = 9 };

/* The pipeline for a source, its fragments (in slot order) and its constants (NAME_consts; may be
 * NULL if it has none; finite numbers). Cached: the same question gives the same kernel. It is made
 * in the background, or when it is waited for: errors show in gpu_plan_finish or gpu_kernels_wait.
 * Asserts that the fragments fit the slots and that the device has what they need. NULL only if out
 * of memory. Lives as long as the gpu. */
const gpu_kernel *gpu_kernel_get(gpu *g, const gpu_source *source,
                                 const gpu_fragment *const *fragments, const void *consts,
                                 dp_error *err) CHECK_RESULT;
/* Lets threads make the pipelines asked for so far, where the implementation does not by itself;
 * returns at once. Without it, or without threads, who waits for a pipeline makes it. */
void gpu_kernels_start(gpu *g);
const char *gpu_kernel_name(const gpu_kernel *k); /* "matvec q4_k": with its fragments */
gpu_access gpu_kernel_access(const gpu_kernel *k, uint32_t binding); /* of one that it has */
/* Waits for all pipelines asked for; DP_E_DEVICE with the kernel's name and the compiler's message.
 */
bool gpu_kernels_wait(gpu *g, dp_error *err) CHECK_RESULT;
/* The whole WGSL text as it goes to the implementation, into out: for lint and messages. With a
 * NULL gpu as the standard wants it (naga rejects `enable subgroups;`). */
void gpu_kernel_text(const gpu *g, const gpu_source *source, const gpu_fragment *const *fragments,
                     buf *out);

/* ---- plans (plan.c) ------------------------------------------------------------------------ */

/* What may differ from one encoding of a plan to the next: counts that size the dispatches. [0] is
 * not read: it counts as 1. */
enum { GPU_SIZES = 10 };
typedef struct {
    uint32_t n[GPU_SIZES];
} gpu_sizes;

/* Workgroups in one dimension: times * ceil(sizes.n[size] / per). Zero-initialised means 1. */
typedef struct {
    uint32_t times; /* 0: 1 */
    uint32_t size;  /* index into gpu_sizes.n */
    uint32_t per;   /* 0: 1 */
} gpu_extent;

/* What a call has to move and to compute, for profiles: a model, not a count. A term counts
 * min(sizes.n[size], most * sizes.n[of]) times; most 0: without that bound. */
typedef struct {
    uint64_t bytes, flops;
    uint32_t size, most, of;
} gpu_cost_term;
enum { GPU_COST_TERMS = 4 };
typedef struct {
    gpu_cost_term terms[GPU_COST_TERMS];
    uint32_t rows, cols; /* of its matrix; 0: none */
} gpu_cost;

typedef struct {
    const gpu_kernel *kernel;     /* NULL (an earlier failure): the plan fails */
    gpu_range bind[GPU_BINDINGS]; /* by binding number of group 0 */
    const void *params;           /* params_size bytes, copied; NULL if it has none */
    gpu_extent groups[3];
    const char *label; /* static text for profiles, the role: "attn qkv"; NULL: none */
    gpu_cost cost;
} gpu_call;

/* A list of dispatches, sticky errors: after the first failure gpu_plan_add does nothing and
 * gpu_plan_finish reports it. */
gpu_plan *gpu_plan_new(gpu *g, dp_error *err) CHECK_RESULT;
void gpu_plan_free(gpu_plan *p);
/* Asserts what WebGPU demands of a call: a range for each binding of the kernel and no other,
 * offsets that are multiples of gpu_alignment, sizes multiples of 4 and at most max_binding. Within
 * one call a buffer that one binding writes is bound by others only to write too, in ranges that do
 * not overlap: WebGPU tracks whole buffers, so input and output live in different ones. */
void gpu_plan_add(gpu_plan *p, const gpu_call *call);
/* Waits for the pipelines, makes bind groups and parameter blocks. Afterwards the plan is read-only
 * and its buffers must outlive it. Once; DP_E_DEVICE names a kernel that does not compile. */
bool gpu_plan_finish(gpu_plan *p, dp_error *err) CHECK_RESULT;
uint32_t gpu_plan_n_calls(const gpu_plan *p);
/* "matvec q4_k: 2*ceil(n1/64) x 1 x 1" of call i, n1 being gpu_sizes.n[1]: for inspect --plan.
 * False past the end. */
bool gpu_plan_describe(const gpu_plan *p, uint32_t i, char *out, size_t size);

/* Call i as it was added, without its parameters; NULL past the end. */
const gpu_call *gpu_plan_call(const gpu_plan *p, uint32_t i);

/* Bytes and operations of a call (profile.c). */
gpu_cost_term gpu_cost_of(const gpu_cost *cost, const gpu_sizes *sizes);

/* ---- encoding (encode.c) ------------------------------------------------------------------- */

/* Starts the device's encoder; one at a time. Never NULL: failures stick until gpu_submit. */
gpu_encoder *gpu_begin(gpu *g);
/* Says, for profiles, what is encoded from here on: a pass of so many rows, or, with 0, what comes
 * between passes. Stays until the next call. */
void gpu_phase(gpu_encoder *e, dp_phase phase, uint32_t rows);
/* A dispatch of size zero is left out; one of more than 65,535 workgroups in a dimension asserts.
 */
void gpu_encode(gpu_encoder *e, const gpu_plan *p, const gpu_sizes *sizes);
/* Copies and fills between dispatches: they end the current pass, the next dispatch starts another.
 */
/* Of equal sizes, multiples of 4, between different buffers. */
void gpu_encode_copy(gpu_encoder *e, gpu_range to, gpu_range from);
void gpu_encode_clear(gpu_encoder *e, gpu_range range);

/* A read-back under way; 0 is none. */
typedef uint64_t gpu_ticket;
enum { GPU_READBACKS = 8, GPU_READBACK_MAX = 16 * 1024 * 1024 };
/* Asks for a copy of `from` (at most GPU_READBACK_MAX bytes) behind everything encoded so far. One
 * per encoder. DP_E_LIMIT at submission if GPU_READBACKS others have not been collected. */
void gpu_encode_read(gpu_encoder *e, gpu_range from);
/* Makes every place of the ring hold `size` bytes, so that none grows during evaluation. */
bool gpu_reserve_readback(gpu *g, uint64_t size, dp_error *err) CHECK_RESULT;

/* Ends and submits. *ticket (may be NULL) names this submission for gpu_poll and gpu_wait; with a
 * read-back it must be collected. On false nothing runs and *ticket is 0. With
 * dp_device_options.profile it waits for the times. */
bool gpu_submit(gpu_encoder *e, gpu_ticket *ticket, dp_error *err) CHECK_RESULT;
/* Has the submission finished? Never blocks. True too if it failed: gpu_collect then tells. */
bool gpu_poll(gpu *g, gpu_ticket ticket);
/* Copies the read-back of a finished submission to out (its first `size` bytes; NULL, 0 for none)
 * and releases its place. DP_E_DEVICE if the device was lost or the implementation reported an
 * error. */
bool gpu_collect(gpu *g, gpu_ticket ticket, void *out, size_t size, dp_error *err) CHECK_RESULT;
/* Gives a read-back up, under way or finished: instead of gpu_collect. */
void gpu_drop(gpu *g, gpu_ticket ticket);
/* The one function that waits: until gpu_poll(ticket). */
void gpu_wait(gpu *g, gpu_ticket ticket);

/* ---- profile (profile.c) ------------------------------------------------------------------- */

/* As dp_device_get_profile, dp_device_get_phases, dp_profile_set_mode, dp_device_get_peaks. No
 * encoder is open. */
void gpu_profile(gpu *g, dp_profile_row *rows, size_t max, size_t *n);
void gpu_profile_phases(gpu *g, dp_profile_phase phases[DP_PHASES]);
dp_profile_mode gpu_profile_mode(gpu *g, dp_profile_mode mode); /* what it was */
void gpu_profile_reset(gpu *g);
bool gpu_peaks(gpu *g, dp_device_peaks *peaks, dp_error *err) CHECK_RESULT;

bool gpu_profiles(const gpu *g);
/* As dp_trace_start, dp_trace_stop (trace.c). */
bool gpu_trace_start(gpu *g, size_t max, dp_error *err) CHECK_RESULT;
size_t gpu_trace_stop(gpu *g, dp_trace_fn *each, void *user);

/* ---- one call alone (time.c) --------------------------------------------------------------- */

typedef struct {
    uint32_t n_alike; /* calls of the plan with the same kernel, role and shape */
    uint32_t n_timed; /* dispatches that the time is the mean of; 0: of size zero, nothing ran */
    uint32_t groups[3];
    uint64_t bytes, flops;
    bool cold;
    double nanoseconds;
    double in_place; /* nanoseconds, if asked for */
} gpu_op_time;
/* Is call i the first of those alike? */
bool gpu_plan_is_first(const gpu_plan *p, uint32_t i);
typedef struct {
    gpu_sizes sizes;
    uint32_t most; /* dispatches that run in all, at least 5; 0: as many as it takes */
    uint64_t cold; /* bytes that are to be read in turn, as far as there is room; 0: as it is */
    double run_ns; /* what a run is to take about: longer ones are steadier */
    bool in_place; /* also in the plan: it runs as a whole, with and without these calls */
} gpu_time_options;
/* Times call i and those alike as dp_op_time says, over buffers as they are. No encoder is open. It
 * waits. DP_E_UNSUPPORTED without profile. */
bool gpu_plan_time(gpu_plan *p, uint32_t i, const gpu_time_options *how, gpu_op_time *out,
                   dp_error *err) CHECK_RESULT;

#endif
