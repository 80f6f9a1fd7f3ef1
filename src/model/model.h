/* model: the transformer. Needs base, format, text, gpu.
 *
 * A model is a description (config), weights on the device, buffers that never move, and plans: the
 * forward pass and the sampler as lists of dispatches, recorded once at load (forward.c, sample.c)
 * and replayed for every token. A pass takes rows, each (token, slot, position); a slot is a
 * sequence of a session, with its pages of the KV cache. Shapes are row-major; names are those of
 * the Llama papers: dim, n_heads, n_kv_heads, head_dim, ffn_dim, vocab_size. */
#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H

#include "gpu/gpu.h"
#include "text/text.h"

#include "kernels_gen.h"

#include <stdatomic.h>

/* ---- limits -------------------------------------------------------------------------------- */

enum {
    LAYERS_MAX = 512,
    HEADS_MAX = 1024,
    HEAD_DIM_MAX = 256,
    DIM_MAX = 65536,
    FFN_MAX = 1 << 20,
    CONTEXT_MAX = 1 << 24,
    SESSIONS_MAX = 256,
    BATCH_MAX = 8192,
    KV_PAGE = 32,        /* tokens to a page of the cache */
    DECODE_ROWS = 8,     /* passes of up to so many rows take the mat-vec kernels */
    OUT_ROWS = 16,       /* rows of a pass whose logits are wanted, at least: more if there are
                          * more sessions */
    SAMPLE_CHUNK = 1024, /* tokens of the vocabulary to a workgroup of the sampler */
    LOGPROBS_MAX = 32,
};

/* ---- config (config.c) --------------------------------------------------------------------- */

/* Where the output matrix is: its own, the embedding, or whichever the files have. */
typedef enum { HEAD_FOUND, HEAD_OWN, HEAD_TIED } head_kind;

/* What the files say of the architecture, checked against the limits above. */
typedef struct {
    const char *architecture; /* "llama" */
    uint32_t n_layers, dim, n_heads, n_kv_heads, head_dim, ffn_dim, vocab_size, context;
    float norm_eps;
    uint32_t rope_dim;      /* dimensions of a head that are turned: even, at most head_dim */
    bool rope_interleaved;  /* pairs (2i, 2i + 1) instead of (i, i + rope_dim / 2) */
    float rope_magnitude;   /* cos and sin are multiplied by it (YaRN); 1 */
    double *rope_frequency; /* [rope_dim / 2] radians per position, scaling applied; in the arena */
    head_kind head;
    uint32_t window;        /* keys a token sees, itself included; 0: all before it */
    float temperature, top_p; /* generation defaults; 0: not given */
    uint32_t top_k;
} config;

/* Reads the description from GGUF metadata or config.json. DP_E_FORMAT for impossible numbers,
 * DP_E_UNSUPPORTED for an architecture, activation or RoPE scaling that is not known, by name.
 * `vocab_only`: only what is there is read, nothing is required. Arrays go to the arena. */
bool config_read(config *c, container *files, bool vocab_only, arena *a,
                 dp_error *err) CHECK_RESULT;

/* ---- weights (weights.c) ------------------------------------------------------------------- */

/* Rows [first, first + rows) of a matrix: as many as fit one binding. */
typedef struct {
    gpu_range range;
    uint32_t first, rows;
} weight_part;

/* A matrix [rows, cols] in the file's own format. */
typedef struct {
    const tensor *source;
    dtype type;
    uint32_t rows, cols;
    uint32_t n_parts;
    weight_part *parts;
} weight;

/* [n] f32. */
typedef struct {
    const tensor *source; /* NULL: absent */
    uint32_t n;
    gpu_range range;
} vector;

typedef struct {
    vector attn_norm, ffn_norm;     /* [dim] */
    weight q, k, v, o;              /* [heads * head_dim, dim], o the other way round */
    vector q_bias, k_bias, v_bias, o_bias;
    weight gate, up, down;          /* [ffn_dim, dim], down the other way round */
    vector gate_bias, up_bias, down_bias;
} layer_weights;

/* A buffer of the device and what was laid out in it, newest first; in the arena. */
typedef struct weight_place {
    gpu_range *range; /* gets its buffer when that exists */
    struct weight_place *next;
} weight_place;
typedef struct weight_buffer {
    gpu_buffer *buffer; /* NULL until weights_upload */
    uint64_t size;
    weight_place *places;
    struct weight_buffer *older;
} weight_buffer;

typedef struct {
    weight embedding;     /* [vocab_size, dim] */
    weight head;          /* [vocab_size, dim]; the embedding's parts if the model ties them */
    vector output_norm;   /* [dim] */
    layer_weights *layers;
    uint64_t bytes;       /* on the device, alignment included */
    struct weight_buffer *newest;
} weights;

/* Finds every tensor, checks shapes and types, cuts matrices into parts and adds up the bytes;
 * nothing is uploaded. `max_binding` is the device's; `max_buffer` bounds one buffer. */
bool weights_plan(weights *w, const config *c, const container *files, uint64_t max_binding,
                  uint64_t max_buffer, arena *a, dp_error *err) CHECK_RESULT;
/* Takes the device's buffers and gives every part and vector its place in them. */
bool weights_reserve(weights *w, gpu *g, dp_error *err) CHECK_RESULT;
bool weights_upload(weights *w, gpu *g, uint32_t n_layers, container *files,
                    const dp_model_options *options, dp_error *err) CHECK_RESULT;
void weights_free(weights *w);

/* ---- buffers ------------------------------------------------------------------------------- */

/* Everything the pass reads and writes, sized at load. O: rows whose logits are wanted, S: slots.
 * */
typedef struct {
    gpu_range rows;     /* [batch] (token, slot, position, tokens reported | done) u32 */
    gpu_range pick;     /* [O] row of each wanted logits */
    gpu_range tiles;    /* [batch] (first row, rows, slot, position) u32, for attend_prefill */
    gpu_range sizes;    /* (rows, wanted, flags, logprobs) u32 */
    gpu_range pages;    /* [S, pages per sequence] u32 */
    gpu_range angles;   /* [context, rope_dim / 2] (cos, sin) f32 */
    gpu_range none;     /* bound where a kernel has nothing to read */
    gpu_range x;        /* [batch, dim] the residual stream */
    gpu_range xn;       /* [batch, dim] normalised */
    gpu_range qkv;      /* [batch, (n_heads + 2 n_kv_heads) * head_dim] */
    gpu_range q;        /* [batch, n_heads, ceil(head_dim / 4)] vec4f, turned */
    gpu_range att;      /* [batch, n_heads * head_dim] */
    gpu_range spans;    /* [DECODE_ROWS, n_heads, splits, ceil(head_dim / 4)] vec4f */
    gpu_range span_ml;  /* [DECODE_ROWS, n_heads, splits] (m, l) */
    gpu_range gu;       /* [batch, 2 ffn_dim] gate and up */
    gpu_range h;        /* [batch, ffn_dim] */
    gpu_range out;      /* [O, dim] normalised rows whose logits are wanted */
    gpu_range logits;   /* [O, vocab_size] of this pass */
    gpu_range saved;    /* [S, vocab_size] of every session's last token */
    gpu_range z;        /* [O, vocab_size] adjusted logits */
    gpu_range best;     /* [O, chunks] (value, token) */
    gpu_range samplers; /* [S] sampler_state */
    gpu_range counts;   /* [S, vocab_size] occurrences for penalties */
    gpu_range stops;    /* how many, then the model's stop set */
    gpu_range answer;   /* [O, 1 + DP_STEPS_MAX] how many, then the tokens */
    gpu_range probs;    /* [O, 1 + LOGPROBS_MAX] (token, logarithm) */
    gpu_range *keys;    /* [n_layers] [page, n_kv_heads, KV_PAGE, D4] vec4 of f16 or f32 */
    gpu_range *values;  /* the same */
} buffers;

/* Shapes that follow from config, options and device. */
typedef struct {
    uint32_t context;   /* tokens of the KV pool, a multiple of KV_PAGE */
    uint32_t sessions, batch, n_out;
    uint32_t n_pages;   /* of the pool; also pages per sequence */
    uint32_t head_vec4; /* ceil(head_dim / 4) */
    uint32_t span;      /* keys to a workgroup of attend_decode */
    uint32_t n_splits;  /* spans of the context */
    uint32_t n_chunks;  /* of the vocabulary */
    bool f16;           /* KV cache in half floats */
} shapes;

/* Fills shapes and adds up the device memory. DP_E_ARGUMENT for options out of range, DP_E_LIMIT if
 * the context or the batch does not fit the device's bindings. */
bool shapes_plan(shapes *s, dp_memory *memory, const config *c, const weights *w,
                 const dp_model_options *options, uint64_t max_binding, bool f16,
                 dp_error *err) CHECK_RESULT;

/* ---- the model ----------------------------------------------------------------------------- */

typedef struct {
    bool taken;
    bool has_logits;  /* `saved` holds those of the last token */
    bool recount;     /* `counts` must be made anew from the tokens */
    uint32_t n_pages; /* of page_list */
    uint32_t *page_list; /* [pages per sequence] */
} slot;

/* Which of the plans: by how many rows a pass has. */
typedef enum { PASS_ONE, PASS_FEW, PASS_MANY, PASS_COUNT } pass_kind;

struct dp_model {
    arena arena;
    log_sink log;
    container *files;
    tokenizer *tokenizer;
    config config;
    weights weights;
    dp_model_info info;
    dp_memory memory;
    gpu *gpu; /* NULL: opened to tokenise only; all below is then empty */
    shapes shapes;
    gpu_buffer **buffer_list; /* what `buffers` are ranges of */
    uint32_t n_buffers;
    buffers buffers;
    gpu_plan *body[PASS_COUNT]; /* embedding and layers */
    gpu_plan *head[PASS_COUNT]; /* last norm and logits, by wanted rows */
    gpu_plan *greedy, *sampled; /* one step of the sampler */
    gpu_plan *logprobs;
    slot *slots;          /* [sessions] */
    uint32_t *free_pages; /* stack */
    uint32_t n_free_pages;
    /* Host side of one pass, filled and uploaded again for each. */
    uint32_t (*rows)[4];  /* [batch] */
    uint32_t (*tiles)[4]; /* [batch] */
    uint32_t *pick;       /* [n_out] */
    uint32_t *answer;     /* [n_out, 1 + DP_STEPS_MAX] */
    uint32_t *counts;     /* [vocab_size] */
};

struct dp_session {
    dp_model *model;
    uint32_t slot;
    uint32_t n;           /* tokens evaluated */
    dp_token *tokens;     /* [context] */
    bool *answered;       /* [context] the token was drawn or accepted */
    dp_token pending;     /* drawn or accepted, not evaluated yet; DP_NO_TOKEN */
    dp_sampling sampling;
    uint32_t draws;
    atomic_bool cancelled; /* set by dp_session_cancel, from anywhere */
    double token_seconds;    /* measured by dp_generate */
};

/* Takes all buffers and fills those that never change; what was taken before a failure stays for
 * buffers_drop. */
bool buffers_make(dp_model *m, dp_error *err) CHECK_RESULT;
void buffers_drop(dp_model *m);

/* False and DP_E_UNSUPPORTED for a model whose files have no tokenizer (engine.c). */
bool model_needs_tokenizer(const dp_model *m, dp_error *err) CHECK_RESULT;
/* The tokenizer's stop set; n = 0 without one. Borrowed. */
const dp_token *model_stops(const dp_model *m, size_t *n);

/* ---- operations (ops.c): each appends one dispatch (or one per part of a matrix) to a plan --- */

/* What dispatches are sized by: gpu_sizes.n. */
enum { SIZE_ONE, SIZE_ROWS, SIZE_OUT, SIZE_SPLITS, SIZE_TILES };

/* Where a pass is being recorded. The first failure sticks to the plan. */
typedef struct {
    dp_model *m;
    gpu_plan *plan;
    pass_kind kind;
    dp_error *err;
} recorder;

void op_embed(recorder *r, gpu_range x, const weight *table);
void op_norm(recorder *r, gpu_range y, gpu_range x, const vector *w);
/* The norm of the rows whose logits are wanted only. */
void op_norm_picked(recorder *r, gpu_range y, gpu_range x, const vector *w);

/* y[:, column .. column + rows) of width `stride` = W x + b. */
typedef struct {
    gpu_range y;
    uint32_t column, stride;
    bool add;    /* y += */
    bool picked; /* over the wanted rows instead of all */
} target;
void op_matmul(recorder *r, target y, const weight *w, const vector *bias, gpu_range x);
void op_rope(recorder *r, uint32_t layer);
void op_attend(recorder *r, uint32_t layer, uint32_t window);
/* Most rows of one entry of buffers.tiles. */
uint32_t attend_tile_rows(uint32_t head_vec4);
void op_glu(recorder *r, gpu_range h, gpu_range gu);
void op_sample_scan(recorder *r);
void op_sample_select(recorder *r);
void op_sample_draw(recorder *r);
void op_sample_finish(recorder *r);
void op_logprobs(recorder *r);

/* ---- passes -------------------------------------------------------------------------------- */

/* Records all plans of the model (forward.c, sample.c). */
bool forward_record(dp_model *m, dp_error *err) CHECK_RESULT;
bool sample_record(dp_model *m, dp_error *err) CHECK_RESULT;

/* dp_session_sample with the logarithm of the drawn token's probability and those of the n best, in
 * one submit (batch.c). */
bool session_sample_logprobs(dp_session *s, dp_token *token, float *logprob, dp_logprob *best,
                             uint32_t n, dp_error *err) CHECK_RESULT;

/* Forgets the last n_tokens and the random numbers of n_draws, and evaluates the token before them
 * again, so that the session goes on as if they had not been (batch.c). */
bool session_take_back(dp_session *s, uint32_t n_tokens, uint32_t n_draws,
                       dp_error *err) CHECK_RESULT;

/* KV pages (kvcache.c): makes the slot's list hold n_tokens, or gives back what is over. kv_grow
 * fails with DP_E_MEMORY and changes nothing if the pool has too few. */
bool kv_grow(dp_model *m, uint32_t slot, uint32_t n_tokens, dp_error *err) CHECK_RESULT;
void kv_shrink(dp_model *m, uint32_t slot, uint32_t n_tokens);

#endif
