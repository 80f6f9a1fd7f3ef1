/* doppler: language models on any GPU through WebGPU.
 *
 * The whole public interface. A program opens a device, opens a model on it, makes sessions of that
 * model (token sequences), evaluates tokens, samples, and turns tokens to text and back:
 *
 *     dp_error err = { 0 };
 *     dp_device *device = dp_device_open(NULL, &err);
 *     dp_model *model = dp_model_open(device, "model.gguf", NULL, &err);
 *     dp_session *session = dp_session_new(model, &err);
 *     dp_generate_options how = { .on_text = print, .max_tokens = 100 };
 *     if (!dp_session_eval_text(session, "Once upon a time", true, false, &err) ||
 *         !dp_generate(session, &how, NULL, &err)) fprintf(stderr, "%s\n", err.message);
 *     dp_session_free(session); dp_model_close(model); dp_device_close(device);
 *
 * Conventions. Handles are opaque: open/close for what stands on a device or a file, new/free for
 * memory; close and free accept NULL. Option structs may be NULL or zeroed: zero is the default of
 * every field. A function that can fail returns false or NULL and fills the caller's dp_error,
 * passed last (NULL is fine). `const T *` results are borrowed, each says until when. Nothing here
 * prints, exits, reads the environment or starts a thread that outlives the call.
 *
 * Threads. A device and its models may be used from any thread: calls that touch the GPU take the
 * device's lock in turn. A session belongs to one thread at a time; dp_session_cancel alone may be
 * called from anywhere, signal handlers included. */
#ifndef DOPPLER_H
#define DOPPLER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DP_VERSION "0.1.0"

#if defined(__GNUC__)
#define DP_API          __attribute__((visibility("default")))
#define DP_CHECK_RESULT __attribute__((warn_unused_result))
#else
#define DP_API
#define DP_CHECK_RESULT
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- errors and log ------------------------------------------------------------------------ */

typedef enum {
    DP_OK = 0,
    DP_E_ARGUMENT,    /* a call or an option makes no sense */
    DP_E_FILE,        /* opening, reading or writing failed */
    DP_E_FORMAT,      /* a file's content is wrong */
    DP_E_UNSUPPORTED, /* right, but not something this version does */
    DP_E_LIMIT,       /* over a stated limit: context, sessions, size */
    DP_E_MEMORY,      /* the host or the device has too little memory */
    DP_E_DEVICE,      /* no usable GPU, or it was lost */
    DP_E_CANCELLED,   /* dp_session_cancel or a progress callback said stop */
    DP_E_NETWORK      /* a server could not be reached, or did not send what it should */
} dp_status;

/* Where a call says why it failed. The caller owns it, zeroes it once and passes its address last.
 * The first failure stays until the caller zeroes it again. */
typedef struct {
    dp_status status;
    char message[508]; /* "model.gguf: tensor blk.3.attn_q.weight: shape [64, 80], expected
                        * [64, 64]" */
} dp_error;

/* "ok", "argument", "file", ...: static text. */
DP_API const char *dp_status_name(dp_status status);

typedef enum { DP_LOG_WARNING, DP_LOG_INFO, DP_LOG_DEBUG } dp_log_level;

/* Receives one line without a newline. May be called from any thread that calls the library. */
typedef void dp_log_fn(void *user, dp_log_level level, const char *line);

/* ---- device -------------------------------------------------------------------------------- */

typedef struct dp_device dp_device;

enum { DP_BINDING_LEAST = 1 << 20 };

typedef struct {
    const char *webgpu;   /* the WebGPU library's path; NULL: the wgpu-native that set-up
                           * installed */
    const char *adapter;  /* number in dp_device_list or a part of its name; NULL: the fastest */
    bool no_f16;          /* pretend that the device has no half floats */
    bool no_subgroups;    /* pretend that it has no subgroup operations */
    bool no_int8;         /* activations stay floats where matrices are quantised; without half
                           * floats they do in any case */
    uint64_t max_binding; /* at most this many bytes in one binding, no fewer than
                           * DP_BINDING_LEAST; 0: the adapter's limit */
    uint64_t max_memory;  /* at most this many bytes on the device; 0: what the device grants */
    bool profile;         /* time every kernel (slower: one compute pass each) */
    bool checks;          /* WebGPU keeps its own checks of calls and of kernels' indices, which the
                           * library does without: slower, to look for a fault */
    dp_log_fn *log;       /* NULL: silent */
    void *log_user;
} dp_device_options;

typedef struct {
    char name[128];                /* "NVIDIA H200", "llvmpipe (LLVM 15.0.6, 256 bits)" */
    char vendor[64];               /* may be empty */
    char driver[128];              /* may be empty */
    char backend[16];              /* "vulkan", "metal", "d3d12", "opengl" */
    char type[16];                 /* "discrete", "integrated", "cpu", "unknown" */
    char library[16];              /* "wgpu-native", "dawn" or "webgpu" */
    bool f16;                      /* in use: shader-f16 */
    bool subgroups;                /* in use: subgroup operations */
    bool int8;                     /* in use: quantised matrices meet activations rounded to signed
                                    * bytes, 16 or 32 of them to a scale */
    bool timestamps;               /* dp_device_options.profile can work */
    uint32_t subgroup_size;        /* lanes, found by a probe; 0 without subgroups */
    uint32_t matrix;               /* side of the square f16 matrices that a subgroup multiplies
                                    * at once, adding in f32; 0: none, or f16 is not in use */
    uint64_t max_binding;          /* bytes */
    uint64_t max_buffer;           /* bytes */
    uint32_t max_workgroup_memory; /* bytes */
    uint32_t max_workgroup_lanes;  /* a power of two, the device's limit or below */
    uint32_t max_storage_buffers;  /* per shader */
} dp_device_info;

/* Opens the WebGPU library, an adapter and a device with the adapter's own limits. NULL on failure:
 * DP_E_DEVICE if there is no library, no adapter, no such adapter or it lacks what is needed
 * (named). */
DP_API DP_CHECK_RESULT dp_device *dp_device_open(const dp_device_options *options, dp_error *err);

/* Models of the device must be closed before. */
DP_API void dp_device_close(dp_device *device);

DP_API void dp_device_get_info(const dp_device *device, dp_device_info *info);

/* Describes up to `max` adapters (features as offered, nothing probed) and sets *n to how many
 * there are. Uses `webgpu`, no_f16 and no_subgroups of the options. */
DP_API DP_CHECK_RESULT bool dp_device_list(const dp_device_options *options, dp_device_info *list,
                                           size_t max, size_t *n, dp_error *err);

/* Counters since the device was opened. */
typedef struct {
    uint64_t submits;       /* queue submissions */
    uint64_t dispatches;    /* kernels started */
    uint64_t bytes_read;    /* read back from the device */
    uint64_t bytes_written; /* uploaded */
    uint64_t device_bytes;  /* buffers held now */
    uint64_t device_bytes_peak;
    uint64_t pipelines; /* compute pipelines made */
    uint64_t encode_ns; /* host time with a recording open */
    uint64_t submit_ns; /* host time ending recordings and handing them over */
    uint64_t wait_ns;   /* host time waiting for the device's answers */
} dp_stats;
DP_API void dp_device_get_stats(const dp_device *device, dp_stats *stats);

/* What rows of a pass are for: few, by the kernels of decoding, or many. */
typedef enum { DP_PHASE_DECODE, DP_PHASE_PREFILL, DP_PHASES } dp_phase;

/* What a profile times (dp_device_options.profile): every dispatch, in a compute pass of its own,
 * which takes longer; or whole passes as they run without a profile. */
typedef enum { DP_PROFILE_KERNELS, DP_PROFILE_STEPS } dp_profile_mode;

/* GPU time of one kernel in one role and phase, over all its dispatches since the device was opened
 * or dp_profile_reset, while kernels were timed. */
typedef struct {
    char kernel[96]; /* "matvec q4_k" */
    uint64_t calls;
    uint64_t nanoseconds; /* as the timestamps say: dp_device_peaks has what a pass adds */
    char role[32];        /* what it does in a layer: "attn qkv"; may be empty */
    dp_phase phase;
    uint64_t bytes, flops; /* that all calls had to move and to compute, by a model of them: every
                            * operand once, weights in their format */
} dp_profile_row;

/* Fills up to `max` rows, longest time first, and sets *n to how many there are: 0 without
 * dp_device_options.profile. */
DP_API void dp_device_get_profile(dp_device *device, dp_profile_row *rows, size_t max, size_t *n);

/* What a phase was in all. */
typedef struct {
    uint64_t kernel_rows;      /* tokens evaluated while kernels were timed */
    uint64_t step_rows;        /* and in the submissions whose passes were */
    uint64_t step_nanoseconds; /* GPU time of these, from one pair of timestamps to a pass */
} dp_profile_phase;

/* Waits for the times of what has been submitted. All zero without dp_device_options.profile. */
DP_API void dp_device_get_phases(dp_device *device, dp_profile_phase phases[DP_PHASES]);
/* From the next submission on; at first kernels are timed. Nothing without
 * dp_device_options.profile. */
DP_API void dp_profile_set_mode(dp_device *device, dp_profile_mode mode);
DP_API void dp_profile_reset(dp_device *device);

/* Something that took time, on the device or on the host. */
typedef struct {
    const char *name; /* the kernel; "pass", a whole one; on the host "encode", "submit", "wait" */
    const char *role; /* as in dp_profile_row */
    dp_phase phase;   /* on the device */
    bool host;
    double start, seconds; /* from the start of the trace; the device's clock is set so that no
                            * submission begins before it was handed over */
} dp_trace_event;
typedef void dp_trace_fn(void *user, const dp_trace_event *event); /* texts are borrowed */

/* From now on up to max_events are kept; a trace that was going on is forgotten. Of the device,
 * with dp_device_options.profile alone, what is timed: dispatches or passes. DP_E_MEMORY. */
DP_API DP_CHECK_RESULT bool dp_trace_start(dp_device *device, size_t max_events, dp_error *err);
/* Waits for the times of what has been submitted, tells all events and ends the trace. How many did
 * not fit. */
DP_API size_t dp_trace_stop(dp_device *device, dp_trace_fn *each, void *user);

/* What the device reaches in short runs of simple kernels. */
typedef struct {
    double bytes_per_second; /* reading memory from end to end */
    double flops_per_second; /* multiplying and adding f32 in registers */
    double dispatch_ns;      /* one more dispatch in a pass, of a kernel that does nothing and waits
                              * for the one before it */
    double pass_ns;          /* what timestamps say of the same kernel in a pass of its own */
    double readback_ns;      /* from asking for 4 bytes until the host has them, by its clock, while
                              * the device has nothing else to do */
} dp_device_peaks;

/* Measures them at the first call, in less than half a second. DP_E_UNSUPPORTED without
 * dp_device_options.profile, DP_E_MEMORY, DP_E_DEVICE. */
DP_API DP_CHECK_RESULT bool dp_device_get_peaks(dp_device *device, dp_device_peaks *peaks,
                                                dp_error *err);

/* ---- model --------------------------------------------------------------------------------- */

typedef uint32_t dp_token;
#define DP_NO_TOKEN UINT32_MAX

typedef struct dp_model dp_model;

/* Share of the loading that is done, bytes of weights. False cancels. Called while the device is
 * locked: it must not call the library. */
typedef bool dp_progress_fn(void *user, uint64_t done, uint64_t total);

/* A session's KV cache grows by pages of so many tokens. */
enum { DP_PAGE_TOKENS = 32 };

typedef struct {
    uint32_t context;  /* tokens that all sessions' KV caches hold together, in whole pages;
                        * 0: the model's own context, at most 8,192 and, for models of LongRoPE,
                        * at most the original one: beyond it other factors hold from the first
                        * token on, and short texts are read a little worse */
    uint32_t sessions; /* most sessions at a time; 0: 8 */
    uint32_t batch;    /* most rows in one prefill pass, at least 16; 0: 512 */
    bool no_verify;    /* do not hold a pack's bytes against its hashes, which is done on threads
                        * of its own while the weights travel */
    bool plan_only;    /* the model takes its memory on the device and plans its passes, but reads
                        * no weights: it describes itself and cannot evaluate */
    bool calibrate;    /* the pass keeps the sums that dp_calibrate needs; a little slower */
    const char *tuning_dir; /* folder that keeps what tuning has found for each device; what it
                             * lacks of this model is measured while it is opened, for 2 s at most
                             * and on a GPU only. NULL: nothing is read, measured or written */
    dp_progress_fn *progress;
    void *progress_user;
    dp_log_fn *log; /* NULL: silent */
    void *log_user;
} dp_model_options;

/* Opens a GGUF file (the first of a split one), a safetensors folder or a .safetensors file;
 * tensors are checked, uploaded in their own format and all pipelines made. `device` must outlive
 * the model; with NULL the model only tokenises and describes itself: its weights are not needed
 * and not read. NULL on failure: DP_E_FILE, DP_E_FORMAT, DP_E_UNSUPPORTED, DP_E_LIMIT, DP_E_MEMORY
 * (need and room, both in bytes, before anything is uploaded), DP_E_DEVICE, DP_E_CANCELLED. */
DP_API DP_CHECK_RESULT dp_model *dp_model_open(dp_device *device, const char *path,
                                               const dp_model_options *options, dp_error *err);

/* Its sessions must be freed before. */
DP_API void dp_model_close(dp_model *model);

/* What the files say; texts live with the model. Zero or empty where a vocabulary-only model does
 * not say. */
typedef struct {
    const char *path;
    const char *architecture;  /* "llama" */
    const char *name;          /* general.name or the folder's; may be empty */
    const char *container;     /* "gguf", "safetensors" or "rdrr" */
    const char *format;        /* of most weight bytes: "q4_k", "bf16" */
    const char *tokenizer;     /* "bpe" or "spm" */
    const char *chat_template; /* may be empty */
    uint32_t n_layers, dim, n_heads, n_kv_heads, head_dim, ffn_dim;
    uint32_t vocab_size;
    uint32_t context;         /* the model's own maximum, in tokens */
    uint32_t default_context; /* what 0 in dp_model_options means */
    uint32_t n_tensors;
    uint64_t n_parameters;
    uint64_t weight_bytes;
    float temperature, top_p; /* generation defaults; 0: not given */
    uint32_t top_k;
    uint32_t n_tuned; /* operations whose shape of workgroups tuning has chosen, also where that is
                       * the one they have untuned; 0 without a device */
} dp_model_info;
DP_API void dp_model_get_info(const dp_model *model, dp_model_info *info);

/* Device memory that a model needs, in bytes. */
typedef struct {
    uint64_t weights;
    uint64_t kv_cache;
    uint64_t activations; /* and all other buffers */
    uint64_t total;
    uint64_t kv_bytes_per_token;
} dp_memory;

/* For these options (context, sessions, batch), with half-float KV cache if `f16`; works on models
 * opened without a device. False: DP_E_UNSUPPORTED if the model has a vocabulary only. */
DP_API DP_CHECK_RESULT bool dp_model_memory(const dp_model *model, const dp_model_options *options,
                                            bool f16, dp_memory *memory, dp_error *err);

/* What takes memory, of a model that was opened on a device: weights by role, the others by buffer.
 * *n is how many rows there are, the first `max` go to `rows`; those of the groups "weights", "KV
 * cache", "activations" and "sampler" sum to dp_memory.total. "staging" comes on top: of the host
 * while weights are uploaded, and for reading results back. */
typedef struct {
    const char *group, *name;
    uint64_t bytes;
    uint32_t n;     /* matrices and vectors, or buffers */
    uint32_t n_cut; /* of them: over the device's binding, cut into parts */
} dp_memory_row;
DP_API void dp_model_get_memory(const dp_model *model, dp_memory_row *rows, size_t max, size_t *n);

/* Passes by rows: decoding, up to 8, up to 16, a prompt of up to 64, a longer one. */
typedef enum {
    DP_PASS_ONE,
    DP_PASS_FEW,
    DP_PASS_SOME,
    DP_PASS_SHORT,
    DP_PASS_MANY
} dp_pass;
/* Dispatch i of a pass of a model that was opened on a device: its kernel with fragments and its
 * workgroups, "matvec subgroup q4_k: 512 x 1 x 1", where n1 is the number of rows, n2 of those
 * whose logits are wanted, other n others of the sizes of a pass. False past the end; passes that
 * are for more rows than dp_model_options.batch allows, or 16, have none. */
DP_API bool dp_model_get_dispatch(const dp_model *model, dp_pass pass, uint32_t i, char *line,
                                  size_t size);

/* A shape of workgroups that was tried for a matrix product or for attention. */
typedef struct {
    char product[128]; /* "project q4_k q8 3072x2048 1": kernel, formats, matrix, most rows */
    char shape[64];    /* "rows 1, split 2, lanes 256, ahead 1" */
    dp_pass pass;
    uint32_t calls;  /* in a pass */
    bool is_initial; /* what the product has untuned */
    bool is_right;   /* computes what the initial one does; others are never chosen */
    bool is_chosen;
    double nanoseconds; /* one call; 0 if it is not right */
} dp_tuned;
/* Called while the device is locked: it must not call the library. False cancels. */
typedef bool dp_tune_fn(void *user, const dp_tuned *row);

/* Measures which shapes of workgroups the model's matrix products and attention are fastest with on
 * its device, whatever is known already, and has the model use them: all of them, or those whose
 * names begin with `only` (NULL: all). With `folder` (NULL: none) the choices are kept there as
 * dp_model_options.tuning_dir says. `each`, may be NULL, sees every shape that was tried.
 * DP_E_ARGUMENT for a model without a device, while a session of it holds tokens or if it has no
 * such product, DP_E_UNSUPPORTED if its experts are paged, DP_E_FILE if the choices cannot be kept,
 * DP_E_CANCELLED; after DP_E_MEMORY and DP_E_DEVICE the model can only be closed. */
DP_API DP_CHECK_RESULT bool dp_model_tune(dp_model *model, const char *folder, const char *only,
                                          dp_tune_fn *each, void *user, dp_error *err);

/* Tensors by index, in file order. False past the end. */
typedef struct {
    char name[128]; /* cut if longer */
    const char *format;
    uint32_t n_dims;
    uint64_t shape[4]; /* row-major, slowest first */
    uint64_t n_bytes;
} dp_tensor_info;
DP_API bool dp_model_get_tensor(const dp_model *model, uint32_t i, dp_tensor_info *info);

/* Experts of a model whose experts do not all fit the device: how often one that a token needed was
 * there. Each fetch counts once, from reading the file to the upload. */
typedef struct {
    uint32_t experts; /* of a layer; 0: the model has none */
    uint32_t slots;   /* of all layers together, on the device at a time */
    uint64_t hits, misses;
    uint64_t bytes; /* fetched */
    double seconds; /* spent fetching */
} dp_expert_stats;
/* False, with zeros but for `experts`, if all experts are on the device. */
DP_API bool dp_model_get_experts(const dp_model *model, dp_expert_stats *stats);

/* ---- text ---------------------------------------------------------------------------------- */

/* Tokens of text[0..size), any bytes. `add_special`: with what the model's tokenizer puts around a
 * text (bos). `parse_special`: spelt-out control tokens become tokens. Writes at most `max` ids; *n
 * is how many there are. */
DP_API DP_CHECK_RESULT bool dp_tokenize(const dp_model *model, const char *text, size_t size,
                                        bool add_special, bool parse_special, dp_token *tokens,
                                        size_t max, size_t *n, dp_error *err);

/* Text of tokens; not NUL-terminated. Writes at most `max` bytes; *n is how many there are. */
DP_API DP_CHECK_RESULT bool dp_detokenize(const dp_model *model, const dp_token *tokens,
                                          size_t n_tokens, bool special, char *text, size_t max,
                                          size_t *n, dp_error *err);

DP_API dp_token dp_model_bos(const dp_model *model); /* DP_NO_TOKEN if it has none */
DP_API dp_token dp_model_eos(const dp_model *model);
DP_API bool dp_model_is_stop(const dp_model *model, dp_token token); /* ends a generation */

/* ---- chat ---------------------------------------------------------------------------------- */

typedef struct {
    const char *chat_template; /* Jinja source instead of the model's own; NULL: the model's. With
                                * tools that is its template "tool_use" if it has one */
    const char *tools;         /* JSON array of the tools that may be called; NULL: none */
    const char *variables;     /* JSON object of further variables, as {"enable_thinking": false};
                                * NULL: none */
    bool no_generation_prompt; /* leave out what opens the answer */
    int64_t now;               /* seconds since 1970, UTC, where the template asks for the date;
                                * 0: the clock's */
} dp_chat_options;

/* Renders a conversation by the model's chat template: the text that a transformers tokenizer's
 * apply_chat_template gives, byte for byte. `messages` is a JSON array of size bytes whose elements
 * are objects with "role" and what else the template reads ("content", "tool_calls", ...). Needs no
 * weights: a model opened without a device will do. Writes at most `max` bytes, not NUL-terminated;
 * *n is how many there are. DP_E_ARGUMENT for messages that the template refuses, in its words, or
 * that are no array of objects; DP_E_FORMAT for bad JSON or a bad template; DP_E_UNSUPPORTED if the
 * model has no chat template or its template uses what this version does not know; DP_E_LIMIT for
 * one that runs too long or writes too much; DP_E_MEMORY. */
DP_API DP_CHECK_RESULT bool dp_chat_render(const dp_model *model, const char *messages, size_t size,
                                           const dp_chat_options *options, char *text, size_t max,
                                           size_t *n, dp_error *err);

/* Tokens of the same prompt, with one bos in front if the model's tokenizer adds it. Control tokens
 * are recognised where the template itself wrote them and nowhere else: no message, tool or
 * variable can spell the end of its turn. Writes at most `max` ids; *n is how many there are. */
DP_API DP_CHECK_RESULT bool dp_chat_tokenize(const dp_model *model, const char *messages,
                                             size_t size, const dp_chat_options *options,
                                             dp_token *tokens, size_t max, size_t *n,
                                             dp_error *err);

/* ---- sessions ------------------------------------------------------------------------------ */

/* One growing token sequence over a model: its KV cache, its logits, its sampler's state. */
typedef struct dp_session dp_session;

/* An empty session. Takes one of dp_model_options.sessions places; KV cache pages are taken from
 * the model's pool as the session grows. `model` must outlive it. NULL: DP_E_LIMIT if all places
 * are taken, DP_E_ARGUMENT if the model was opened without a device, DP_E_MEMORY. */
DP_API DP_CHECK_RESULT dp_session *dp_session_new(dp_model *model, dp_error *err);
DP_API void dp_session_free(dp_session *session);

/* How the next token is chosen, applied in this order: penalties, temperature, top_k, top_p, min_p,
 * draw. Ties with the last token that a filter keeps are kept. */
typedef struct {
    float temperature;       /* 0 (and below 1e-6): greedy, the most likely token, of equals the
                              * one with the lowest id */
    uint32_t top_k;          /* keep the k most likely; 0: all */
    float top_p;             /* keep the most likely whose probabilities reach p; 0 or 1: all */
    float min_p;             /* drop what is less likely than min_p times the most likely; 0:
                              * none */
    float repeat_penalty;    /* divides positive and multiplies negative logits of tokens seen in
                              * the prompt or the answer, from 0.01; 0 or 1: none (Keskar et al.
                              * 2019) */
    float presence_penalty;  /* subtracted from logits of tokens in the answer */
    float frequency_penalty; /* the same times how often they occur in it */
    uint64_t seed;           /* same device, model, tokens and seed: same draws */
} dp_sampling;

/* Sets the sampler of a session and starts its answer (for the penalties) and its random numbers
 * anew. DP_E_ARGUMENT names a field that is NaN, infinite or out of range. A new session
 * is greedy. */
DP_API DP_CHECK_RESULT bool dp_session_set_sampling(dp_session *session,
                                                    const dp_sampling *sampling, dp_error *err);

/* Says that the session's last n tokens are its answer, drawn one by one since the sampler was set:
 * a session that was evaluated anew, after its device was lost, goes on as the lost one would have.
 * DP_E_ARGUMENT if it has fewer. */
DP_API DP_CHECK_RESULT bool dp_session_resume(dp_session *session, size_t n, dp_error *err);

/* Appends tokens[0..n) and computes the logits of the last one; n = 0 does nothing. Longer inputs
 * are cut into passes of dp_model_options.batch rows; the last may still be under way on return,
 * and what asks for its results waits. On false the session holds the tokens that it held, and its
 * logits too unless a pass had begun:
 * DP_E_ARGUMENT for an id that is no token, DP_E_LIMIT over the model's context, DP_E_MEMORY if the
 * KV pool is full, DP_E_DEVICE if the GPU was lost (then only free and close are allowed),
 * DP_E_CANCELLED. */
DP_API DP_CHECK_RESULT bool dp_session_eval(dp_session *session, const dp_token *tokens, size_t n,
                                            dp_error *err);

/* The same with a text. */
DP_API DP_CHECK_RESULT bool dp_session_eval_text(dp_session *session, const char *text,
                                                 bool add_special, bool parse_special,
                                                 dp_error *err);

/* As dp_session_eval, and writes the logits of every one of the n tokens: [n, vocab_size] f32. */
DP_API DP_CHECK_RESULT bool dp_session_eval_all(dp_session *session, const dp_token *tokens,
                                                size_t n, float *logits, dp_error *err);

/* Copies the logits of the last token, [vocab_size] f32, unnormalised, before any sampling.
 * DP_E_ARGUMENT if there are none: before the first evaluation and after dp_session_rewind. */
DP_API DP_CHECK_RESULT bool dp_session_get_logits(dp_session *session, float *logits,
                                                  dp_error *err);

/* Draws one token from the logits of the last one, on the GPU; it is not appended: evaluate it to
 * go on. The step by step way, for programs that look at every token. */
DP_API DP_CHECK_RESULT bool dp_session_sample(dp_session *session, dp_token *token, dp_error *err);

/* Tells the sampler's penalties of a token that the caller chose himself. */
DP_API DP_CHECK_RESULT bool dp_session_accept(dp_session *session, dp_token token, dp_error *err);

/* Tokens evaluated so far; the view lives until the session changes. */
DP_API const dp_token *dp_session_tokens(const dp_session *session, size_t *n);

/* Forgets all but the first n tokens. DP_E_ARGUMENT if there are fewer. */
DP_API DP_CHECK_RESULT bool dp_session_rewind(dp_session *session, size_t n, dp_error *err);

/* Makes the running or next dp_session_eval or dp_generate of this session stop at its next
 * submit. */
DP_API void dp_session_cancel(dp_session *session);

/* A token and the natural logarithm of its probability in the model's own distribution. */
typedef struct {
    dp_token token;
    float logprob;
} dp_logprob;

/* The n most likely next tokens after the last one, most likely first. n at most 32. */
DP_API DP_CHECK_RESULT bool dp_session_get_logprobs(dp_session *session, dp_logprob *best, size_t n,
                                                    dp_error *err);

/* ---- batches: several sessions in the same passes ------------------------------------------ */

typedef struct {
    dp_session *session; /* each at most once in a batch; all of one model */
    const dp_token *tokens;
    size_t n;
} dp_batch_item;

/* dp_session_eval for several sessions at once: rows of different sessions share passes, the logits
 * of one do not depend on what the others contain. On false all sessions hold the tokens that
 * they held, and their logits too unless a pass had begun. */
DP_API DP_CHECK_RESULT bool dp_batch_eval(const dp_batch_item *items, size_t n, dp_error *err);

/* Up to n_steps tokens for each of n sessions: every step samples from the logits, appends,
 * evaluates, all on the GPU, up to DP_STEPS_MAX steps to a submit, of which the next is queued
 * before the last has been read. Sessions beyond what a pass of few rows holds (16) follow one
 * group after the other. A session ends early after a token of the model's stop set unless
 * `ignore_stops`. tokens is [n, n_steps]; counts[i] says how many of row i are filled, the stop
 * token included. Every session must have logits. Afterwards a session holds all its tokens and
 * their logits, but for a stop token, which is reported and not appended. On false a session holds
 * the tokens that counts tells; those for which it is 0 are as they were. */
enum { DP_STEPS_MAX = 64 };
DP_API DP_CHECK_RESULT bool dp_batch_generate(dp_session *const *sessions, size_t n,
                                              uint32_t n_steps, bool ignore_stops, dp_token *tokens,
                                              uint32_t *counts, dp_error *err);

/* ---- the time of a kernel alone ------------------------------------------------------------ */

/* One kernel of a pass, in one role and shape, timed alone. */
typedef struct {
    char role[32], kernel[96]; /* as in dp_profile_row */
    dp_phase phase;
    uint32_t calls;         /* alike in the pass: mostly one to a layer */
    uint32_t rows, cols;    /* of the matrix, if it is a product; else 0 */
    uint32_t groups[3];     /* workgroups */
    uint64_t bytes, flops;  /* of one call, as in dp_profile_row */
    uint32_t n_timed;       /* dispatches that `nanoseconds` is the mean of */
    bool cold;              /* weights and cache rotated through more memory than caches hold */
    double nanoseconds;     /* of one call, the median of several runs of dependent dispatches in
                             * one pass between one pair of timestamps; nothing is subtracted */
    double in_place_nanoseconds; /* of one call, by what its part of the pass (the layers, or the
                                  * head) takes less without the calls alike: what they cost where
                                  * they are, noise included; 0: not measured, for samplers and
                                  * models with experts */
} dp_op_time;

/* Times every distinct kernel of the pass that evaluates `n` tokens (at most the model's batch)
 * behind those that the session holds, and, in decoding, of one step of its sampler: up to `max` in
 * ops, in the order of the pass, *n_ops of them in all. The session holds what it held, without
 * logits.
 * DP_E_UNSUPPORTED without dp_device_options.profile or if experts are paged, else as
 * dp_session_eval. */
DP_API DP_CHECK_RESULT bool dp_session_time_ops(dp_session *session, const dp_token *tokens,
                                                size_t n, dp_op_time *ops, size_t max,
                                                size_t *n_ops, dp_error *err);

/* ---- generation of text -------------------------------------------------------------------- */

/* A piece of the answer as it comes: whole UTF-8 characters, nothing of a stop string. False
 * stops. */
typedef bool dp_text_fn(void *user, const char *text, size_t size);

/* Each token as it is chosen, before its text; `best` holds n_logprobs entries or is NULL. */
typedef void dp_token_fn(void *user, dp_token token, float logprob, const dp_logprob *best);

typedef struct {
    uint32_t max_tokens;     /* 0: to the end of the context */
    uint32_t steps;          /* most tokens in one submit; 0: chosen so that text still streams */
    bool ignore_stops;       /* go on after end-of-generation tokens */
    bool special;            /* spell special tokens out in the text */
    uint32_t n_logprobs;     /* for on_token; at most 32; not 0: one token per submit */
    uint32_t n_answered;     /* the session's last tokens are the answer's beginning (see
                              * dp_session_resume): they count, and are told again, first, without
                              * logprobs */
    const char *const *stop; /* texts that end the answer and are not part of it */
    size_t n_stop;           /* at most 16, each 1 to 256 bytes */
    dp_text_fn *on_text;
    dp_token_fn *on_token;
    void *user;
} dp_generate_options;

typedef enum {
    DP_FINISH_STOP,     /* an end-of-generation token or a stop string */
    DP_FINISH_LENGTH,   /* max_tokens or the end of the context */
    DP_FINISH_CANCELLED /* dp_session_cancel, or on_text returned false */
} dp_finish;

typedef struct {
    dp_finish finish;
    uint32_t n_tokens;    /* generated, the stop token included */
    double first_seconds; /* to the first token */
    double seconds;       /* in all */
} dp_generate_result;

/* Continues the session from its logits until something ends it. After a stop string the session
 * holds the tokens up to and with the one that completed it, and their logits. DP_E_FORMAT if the
 * logits are not numbers. `result` may be NULL; on false it is
 * not written. */
DP_API DP_CHECK_RESULT bool dp_generate(dp_session *session, const dp_generate_options *options,
                                        dp_generate_result *result, dp_error *err);

/* ---- generations that run at the same time ------------------------------------------------- */

/* Runs generations of one model together, their rows in shared passes, for programs that have a
 * loop of their own, and for browsers, where nothing may wait. Belongs to one thread at a time. */
typedef struct dp_scheduler dp_scheduler;
typedef struct dp_generation dp_generation;

/* `model` must outlive it. NULL: DP_E_ARGUMENT for a model without a device, DP_E_MEMORY. */
DP_API DP_CHECK_RESULT dp_scheduler *dp_scheduler_new(dp_model *model, dp_error *err);
/* What still runs ends as cancelled; generations are freed by themselves, before or after. */
DP_API void dp_scheduler_free(dp_scheduler *scheduler);

/* Starts what dp_generate does: the session is used for nothing else until it has ended. Options
 * are copied; their callbacks are called by dp_scheduler_step, and may start and cancel
 * generations but not free them. Any number may be started; those beyond 16 take turns. NULL: as
 * dp_generate fails at its start. */
DP_API DP_CHECK_RESULT dp_generation *dp_generation_new(dp_scheduler *scheduler,
                                                        dp_session *session,
                                                        const dp_generate_options *options,
                                                        dp_error *err);
/* One that runs is cancelled first; tokens that it has given out stay in the session. */
DP_API void dp_generation_free(dp_generation *generation);

/* Takes in what the device has finished, calls back, and queues what comes next. Without `wait` it
 * never waits: it returns when the device is at work on what is queued; with `wait` it waits for
 * the oldest of that first. False if nothing runs any more. A generation that fails ends, the
 * others go on. */
DP_API bool dp_scheduler_step(dp_scheduler *scheduler, bool wait);

DP_API bool dp_generation_ended(const dp_generation *generation);
/* As dp_generate returns, once it has ended; DP_E_ARGUMENT before. */
DP_API DP_CHECK_RESULT bool dp_generation_result(const dp_generation *generation,
                                                 dp_generate_result *result, dp_error *err);

/* ---- converting ---------------------------------------------------------------------------- */

/* How much each column of a model's matrices matters, measured on a text. */
typedef struct dp_importance dp_importance;

/* Runs a text of size bytes through the model, which must be opened with
 * dp_model_options.calibrate, and keeps the mean square of what flows through each column of its
 * matrices. Takes one session's place while it runs. NULL: DP_E_ARGUMENT for a model that was not
 * opened so or a text of too few tokens, and what dp_session_eval fails with. */
DP_API DP_CHECK_RESULT dp_importance *dp_calibrate(dp_model *model, const char *text, size_t size,
                                                   dp_progress_fn *progress, void *user,
                                                   dp_error *err);
DP_API void dp_importance_free(dp_importance *importance); /* NULL is fine */
DP_API uint64_t dp_importance_tokens(const dp_importance *importance); /* of the text */

typedef struct {
    const char *format;    /* "rdrr" (a pack, a folder) or "gguf"; NULL: by the output's name, GGUF
                            * for *.gguf */
    const char *quantize;  /* "q4_k_m", "q8_0", "f16", ...: the mixture of formats that the name
                            * stands for in GGUF files; NULL: tensors keep their formats */
    const char *const *roles; /* n_roles times "ROLE=TYPE", later ones first: formats of embedding,
                               * head, attn, attn_q, attn_k, attn_v, attn_o, ffn, ffn_gate, ffn_up,
                               * ffn_down, experts, router */
    size_t n_roles;
    const char *q4k_layout; /* of packs: "row_wise", which NULL means, "column_wise", "flat" */
    bool transpose;         /* of packs: matrices of F32, F16 and BF16 are stored [in, out] */
    bool fuse_gate_up;      /* of packs: gate and up in one tensor */
    uint64_t shard_bytes;   /* of packs; 0: 64 MiB */
    uint32_t threads;       /* 0: one for each processor */
    bool dry_run;           /* plan only: nothing is written */
    bool restart;           /* do not go on with what an interrupted call left */
    const dp_importance *importance; /* squared errors count by it; NULL: all alike */
    const char *draft_model;         /* of packs: the name of one that drafts for it */
    dp_progress_fn *progress; /* bytes of the output, of packs written and then hashed; called from
                               * one thread at a time */
    void *progress_user;
    dp_log_fn *log; /* NULL: silent */
    void *log_user;
} dp_convert_options;

enum { DP_FORMATS_MAX = 48 };

typedef struct {
    const char *name; /* "Q4_K" */
    uint32_t n_tensors;
    uint64_t n_parameters, n_bytes;
} dp_format_share;

typedef struct {
    const char *container;   /* "rdrr" or "gguf" */
    uint64_t source_bytes;   /* of the source's tensors */
    uint64_t tensor_bytes;   /* of the output's */
    uint64_t file_bytes;     /* of all files of the output; with dry_run of its tensors alone */
    uint64_t kept_bytes;     /* that an interrupted call had written */
    uint64_t host_bytes;     /* most memory for rows in work */
    uint32_t n_tensors, n_files, n_formats, n_threads;
    dp_format_share formats[DP_FORMATS_MAX];
    dp_memory memory; /* that a device needs to run it, at the model's default context */
} dp_convert_result;

/* Writes the model at `in` (GGUF, safetensors folder, RDRR pack) to `out` in another container,
 * other formats, or both. Tensors stream: memory is bounded by a few blocks of rows for each thread
 * whatever the model's size. The result is written beside `out` ("OUT.part") and takes its name
 * when it is whole; a GGUF file or a pack that has the name is replaced then, and anything else is
 * refused. A call that was interrupted or killed leaves OUT.part, and the same call goes on with
 * it: the bytes are the same. Without room on the disk it fails at the start.
 *
 * `result` may be NULL. DP_E_ARGUMENT for options that make no sense, DP_E_UNSUPPORTED for what the
 * target cannot say, DP_E_FILE, DP_E_FORMAT, DP_E_LIMIT, DP_E_MEMORY, DP_E_CANCELLED. */
DP_API DP_CHECK_RESULT bool dp_convert(const char *in, const char *out,
                                       const dp_convert_options *options, dp_convert_result *result,
                                       dp_error *err);

/* ---- model folder -------------------------------------------------------------------------- */

/* Where models are kept. The program says it, nothing here asks the environment; NULL or "" is a
 * place that there is not. */
typedef struct {
    const char *bundled;  /* folders of the models that came with the program, colons between */
    const char *folder;   /* the model folder: each model a folder or a file of its own */
    const char *hf_cache; /* Hugging Face's, "~/.cache/huggingface/hub"; only ever read */
} dp_store_options;

/* The path of the model that `name` means, into path[size]. In this order: a path that exists; a
 * bundled model; one of the model folder; in Hugging Face's cache "ORG/NAME" or
 * "ORG/NAME@REVISION". What can only be a path is given back as it is: opening it says what is
 * wrong. DP_E_ARGUMENT for an empty name or one over `size`; DP_E_FILE if there is none (with the
 * places looked at) or if the cache has it by half; DP_E_FORMAT for a cache whose references are no
 * names of commits. */
DP_API DP_CHECK_RESULT bool dp_store_find(const dp_store_options *options, const char *name,
                                          char *path, size_t size, dp_error *err);

typedef enum { DP_STORE_BUNDLED, DP_STORE_FOLDER, DP_STORE_HF_CACHE } dp_store_place;

/* A model of the store; texts live until the callback returns. */
typedef struct {
    const char *name; /* dp_store_find takes it */
    const char *path;
    dp_store_place place;
    const char *container; /* "gguf", "safetensors" or "rdrr"; empty if it cannot be opened */
    const char *format;    /* of most weight bytes: "q4_k"; empty if it cannot be opened */
    uint64_t bytes;        /* of all its files */
    const char *problem;   /* why it cannot be opened; empty if it can */
} dp_store_entry;

/* False stops. */
typedef bool dp_store_entry_fn(void *user, const dp_store_entry *entry);

/* All models of the three places, in their order and by name; of equal names the first, which is
 * the one that dp_store_find finds; what is being pulled is not among them. Reads metadata only.
 * DP_E_CANCELLED if `entry` stopped it, DP_E_FILE for a folder that is there and cannot be read,
 * DP_E_MEMORY. */
DP_API DP_CHECK_RESULT bool dp_store_list(const dp_store_options *options, dp_store_entry_fn *entry,
                                          void *user, dp_error *err);

/* Removes a model from the model folder, and what an unfinished pull of that name has left there.
 * It goes from sight first and is deleted then; links are deleted, never followed. DP_E_ARGUMENT if
 * `name` is a path or a model of another place, DP_E_FILE if there is no such model, if it is being
 * pulled, or if deleting fails. */
DP_API DP_CHECK_RESULT bool dp_store_remove(const dp_store_options *options, const char *name,
                                            dp_error *err);

typedef struct {
    const char *name;          /* of the model from now on; NULL: the last part of the source */
    const char *sha256;        /* 64 hex digits: of the one file, or of a pack's manifest.json;
                                * NULL: not known */
    bool replace;              /* take the place of the model that has the name; without it that is
                                * refused */
    uint32_t jobs;             /* files at a time, at most 16; 0: 4 */
    uint32_t connect_seconds;  /* to reach a server; 0: 20 */
    uint32_t stall_seconds;    /* a connection that brings less than 1 KiB in this time is given
                                * up; 0: 30 */
    uint32_t tries;            /* in a row without getting further; 0: 6 */
    uint32_t pause_ms;         /* before the second try, then twice as long each time, at most a
                                * minute; 0: 500 */
    const char *ca_file;       /* certificates to trust instead of the system's; NULL: those */
    const char *ca_folder;     /* the same as a folder */
    dp_progress_fn *progress;  /* bytes; `total` is 0 while it is not known. Called on the caller's
                                * thread some ten times a second; false cancels */
    void *progress_user;
    dp_log_fn *log;            /* from any thread, one at a time; NULL: silent */
    void *log_user;
} dp_pull_options;

typedef struct {
    char name[256];
    char path[4096];
    const char *container; /* static text: "gguf", "safetensors", "rdrr" */
    uint64_t bytes;        /* of the model's files */
    uint64_t bytes_kept;   /* of them, found from an earlier pull */
    uint32_t n_files;
    uint32_t n_checked; /* of them, held against a SHA-256 or a BLAKE3 that somebody vouched for */
} dp_pull_result;

/* Fetches a model into the model folder. `source` is an http or https URL, a file URL or a path: a
 * folder with an RDRR pack (manifest.json decides) or a safetensors model, or a .gguf file, of a
 * split one any. All goes into FOLDER/.NAME.part, is checked, and appears under its name when it is
 * whole; what a failed or cancelled pull has brought stays there, and the next pull of the name
 * goes on with it. Hashes come from the manifest, `sha256` and the source's SHA256SUMS; files that
 * nothing vouches for are warned of. Redirects go to http and https alone and never from https
 * back to http; certificates are always verified; proxies are those that libcurl finds in the
 * environment. Starts `jobs` threads, which have ended when it returns.
 *
 * `result` may be NULL. DP_E_NETWORK: libcurl is missing, the server cannot be reached, refuses, or
 * sends other bytes than it should; DP_E_FILE: the disk (needed and free bytes are compared first),
 * a model of that name, or another pull of it at work; DP_E_FORMAT, DP_E_UNSUPPORTED, DP_E_LIMIT:
 * what the source holds; DP_E_ARGUMENT; DP_E_MEMORY; DP_E_CANCELLED. */
DP_API DP_CHECK_RESULT bool dp_store_pull(const dp_store_options *store, const char *source,
                                          const dp_pull_options *options, dp_pull_result *result,
                                          dp_error *err);

#ifdef __cplusplus
}
#endif

#endif
