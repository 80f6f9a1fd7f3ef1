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
    EXPERTS_MAX = 512,
    EXPERTS_USED_MAX = 16,
    HEAD_DIM_MAX = 256,
    DIM_MAX = 65536,
    FFN_MAX = 1 << 20,
    CONTEXT_MAX = 1 << 24,
    SESSIONS_MAX = 256,
    BATCH_MAX = 8192,
    KV_PAGE = DP_PAGE_TOKENS, /* tokens to a page of the cache */
    FEW_ROWS = 8,        /* passes of up to so many rows take the mat-vec kernels for a few: as
                          * many as a lane has there (kernels/common/products.wgsl) */
    DECODE_ROWS = 16,    /* and up to so many those for some */
    SHORT_ROWS = 64,     /* and up to so many tiles that suit a short prompt */
    OUT_ROWS = 16,       /* rows of a pass whose logits are wanted, at least: more if there are
                          * more sessions */
    SAMPLE_CHUNK = 512,  /* tokens of the vocabulary to a workgroup of the sampler */
    SAMPLE_FOUND = 4096, /* tokens that top-k and top-p choose from, at most: more take longer */
    LOGPROBS_MAX = 32,
};

/* ---- families (family.c) ------------------------------------------------------------------- */

typedef enum { NORMS_PRE, NORMS_BOTH, NORMS_POST } norm_places; /* around attention and FFN */
typedef enum { QK_NORM_NONE, QK_NORM_HEAD, QK_NORM_WIDTH } qk_norm_kind; /* per head or over all */
typedef enum { ACT_SILU, ACT_GELU, ACT_SWIGLU_OAI } activation;          /* as in activation.wgsl */
typedef enum { ROPE_GLOBAL, ROPE_LOCAL, ROPE_TABLES, ROPE_NONE = ROPE_TABLES } rope_kind;
/* Which layers see a window only, where the files give one but no list: all; all but each period-th
 * one; those from max_window_layers on, if use_sliding_window. */
typedef enum { WINDOW_NONE, WINDOW_ALL, WINDOW_PERIOD, WINDOW_SWITCHED } window_kind;

/* Names of a tensor of a layer that differ from LAYER_FIELDS (fields.c); NULL: as there. */
typedef struct {
    const char *field; /* LAYER_FIELDS' GGUF name */
    const char *gguf, *hf;
} tensor_alias;

typedef struct {
    const char *field;
    double value;
} field_default;

enum { BIAS_QKV = 1, BIAS_O = 2, BIAS_FFN = 4, BIAS_ROUTER = 8, BIAS_EXPERTS = 16 };

/* Where a family differs from Llama: zero is Llama's way. */
typedef struct {
    const char *gguf, *hf;         /* general.architecture, model_type */
    const char *hf_class;          /* in transformers */
    const char *same_as;           /* the hf name of the family that this is otherwise */
    const char *hf_fields;         /* of config.json besides the common ones, by spaces */
    const char *const *fields;     /* pairs (usual name, name here), ended by NULL */
    const field_default *defaults; /* of config.json, where they differ from the usual */
    const tensor_alias *names;     /* ended by a NULL field */
    norm_places norms;
    qk_norm_kind qk_norm;
    activation activation;
    window_kind window;
    uint32_t period;          /* WINDOW_PERIOD */
    uint32_t rope_interval;   /* GGUF: each so-manieth layer has no RoPE */
    uint32_t gguf_layers_27b; /* the size whose queries are scaled by dim / n_heads */
    bool gguf_interleaved;    /* GGUF's converter makes the pairs of Q and K adjacent rows */
    bool layer_norm;          /* instead of RMSNorm */
    bool norm_plus_one;       /* folders store w of (1 + w) */
    bool learned_positions, ungated;
    bool transposed;           /* folders store matrices [in, out] */
    bool fused_qkv, fused_ffn; /* how files and folders of it keep Q, K, V; gate and up */
    bool scale_embedding;      /* by sqrt(dim) */
    bool local_rope;           /* windowed layers have a base of their own */
    uint32_t biases;           /* BIAS_..., without which its models are not whole */
    uint32_t bias_switches;    /* those that attention_bias and mlp_bias of config.json turn on */
    bool sinks, experts;
    bool expert_rows_in_turn; /* folders have rows of gate and up in turn, [in, out] if unpacked */
    bool yarn_exact;          /* YaRN's range of dimensions is not rounded */
} family;

/* NULL for an architecture that is not known. Of several families that GGUF calls the same, the
 * first: config_read looks for what tells them apart. */
const family *family_by_gguf(const char *architecture);
const family *family_by_hf(str model_type);
/* The first with the same switches, whatever its names are; or NULL. */
const family *family_like(const family *f);
/* What the family's config.json calls a field; `field` itself where nothing differs. */
const char *family_field(const family *f, const char *field);
bool family_default(const family *f, const char *field, double *value);

/* ---- config (config.c) --------------------------------------------------------------------- */

/* Where the output matrix is: its own, the embedding, or whichever the files have. */
typedef enum { HEAD_FOUND, HEAD_OWN, HEAD_TIED } head_kind;

/* How positions become angles (rope.c). */
typedef enum {
    SCALING_NONE,
    SCALING_LINEAR,
    SCALING_LLAMA3,
    SCALING_YARN,
    SCALING_DYNAMIC,
    SCALING_LONG
} rope_scaling_kind;
typedef struct {
    rope_scaling_kind kind;
    double theta, factor;
    double low_factor, high_factor; /* llama3 */
    double original_context;        /* llama3, yarn, long, dynamic */
    double beta_fast, beta_slow;    /* yarn */
    bool exact;                     /* yarn: do not round the range of dimensions */
    double magnitude;               /* cos and sin are multiplied by it */
    const double *divisors;         /* [rope_dim / 2] of all frequencies, llama3's too; or NULL */
    const double *short_factors, *long_factors; /* long: divisors [rope_dim / 2] */
} rope_scaling;

/* What the files say of the architecture, checked against the limits above. */
typedef struct {
    const char *architecture; /* "llama" */
    const family *family;     /* NULL if it cannot be run, */
    dp_error refusal;         /* and why: only if just the vocabulary was wanted */
    uint32_t n_layers, dim, n_heads, n_kv_heads, head_dim, ffn_dim, vocab_size, context;
    float norm_eps;
    activation activation;
    float act_alpha, act_limit;                          /* ACT_SWIGLU_OAI */
    float embedding_scale, residual_scale, logits_scale; /* factors; 1 */
    float attention_scale;                               /* of q . k */
    float attention_softcap, logits_softcap;             /* c tanh(z / c); 0: none */
    uint32_t rope_dim;     /* dimensions of a head that are turned: even, at most head_dim */
    bool rope_interleaved; /* the files have pairs (2i, 2i + 1) where the engine has
                            * (i, i + rope_dim / 2): rows of Q and K are read so */
    rope_scaling rope[ROPE_TABLES];
    uint32_t *layer_window; /* [n_layers] keys a token sees, itself included; 0: all before it */
    rope_kind *layer_rope;  /* [n_layers] */
    uint32_t n_experts, n_experts_used; /* 0: none */
    uint32_t expert_ffn_dim;
    bool normalise_route; /* the chosen experts' weights sum to 1 */
    float route_scale;
    head_kind head;
    const char *layer_prefix; /* folders, packs: what layers' names begin with, "model.layers." */
    bool as_folder;           /* a pack whose tensors lie as a folder of the family has them */
    float temperature, top_p; /* generation defaults; 0: not given */
    uint32_t top_k;
} config;

/* Reads the description from GGUF metadata or config.json. DP_E_FORMAT for impossible numbers,
 * DP_E_UNSUPPORTED, by name, for an architecture, activation, RoPE scaling, field or key that is
 * not known and not off. `vocab_only`: only what is there is read, nothing is required. Arrays go
 * to the arena. */
bool config_read(config *c, container *files, bool vocab_only, arena *a,
                 dp_error *err) CHECK_RESULT;

/* The description written out (config_write*.c). All refuse with DP_E_UNSUPPORTED, by name, what
 * the other spelling cannot say; nothing is approximated. `source` is where the model's tensors
 * are: biases and an own head are told by their presence. */

/* Appends a config.json for transformers and config_read, which gives an equal description back. */
bool config_write_hf(const config *c, const container *source, buf *out,
                     dp_error *err) CHECK_RESULT;
/* Can a GGUF file hold this description? */
bool config_fits_gguf(const config *c, const container *source, dp_error *err) CHECK_RESULT;
/* general.architecture and the keys below it, after config_fits_gguf's checks; an equal description
 * comes back if the tensors of config_rope_tensors are there. general.name and the file type are
 * the caller's. */
bool config_write_gguf(const config *c, const container *source, const meta_sink *sink,
                       dp_error *err) CHECK_RESULT;
/* Tensors [n] F32 that a GGUF file needs besides the model's own: how many, up to
 * ROPE_TENSORS_MAX; Llama 3's divisors, or longrope's two lists. */
enum { ROPE_TENSORS_MAX = 2 };
typedef struct {
    const char *name; /* "rope_freqs.weight" */
    uint32_t n;       /* rope_dim / 2 */
    float values[HEAD_DIM_MAX / 2];
} rope_tensor;
uint32_t config_rope_tensors(const config *c, rope_tensor out[ROPE_TENSORS_MAX]);
/* Appends the members "modelType", "architecture", "moeConfig" and "inference" of a pack's
 * manifest, with commas between them. What that schema cannot say becomes inference.unsupported
 * {code, message}, so that other readers refuse the pack; `unsupported`, NULL if there is none, is
 * a reason of the caller's (formats of tensors). */
bool config_write_inference(const config *c, const container *source, const char *unsupported,
                            buf *out, dp_error *err) CHECK_RESULT;

/* Frequencies [rope_dim / 2] in radians per position, as single precision keeps them, and the
 * factor of cos and sin, for sessions of up to `context` tokens (rope.c). */
void rope_frequencies(const config *c, rope_kind table, uint32_t context, double *frequency,
                      float *magnitude);
/* Brings the numbers to what both spellings can hold, f32, so that a description is the same
 * whichever file it is read from; a magnitude of 0 becomes that of the formula. */
void rope_settle(rope_scaling *r);
/* The magnitude that follows from the kind's formula, and what it is to be multiplied by; of
 * longrope the whole magnitude. */
double rope_formula_magnitude(const rope_scaling *r);
float rope_attention(const rope_scaling *r);
/* Llama 3.1's rule as divisors [dim / 2], f32 values: long waves are slowed down by `factor`, short
 * ones stay, those between are mixed. */
void rope_llama3_divisors(const rope_scaling *r, uint32_t dim, double *divisors);
/* The kind by the name that files give it; false for an unknown one. */
bool rope_scaling_by_name(str name, rope_scaling_kind *kind);
/* NULL, or why these numbers cannot be used. */
const char *rope_scaling_fault(const rope_scaling *r);

/* ---- weights (weights*.c) ------------------------------------------------------------------- */

/* A matrix [rows, cols] inside a tensor: rows first, first + step, ... of what begins at element
 * `base`, a matrix of so many rows as `width` says, or, transposed, [cols, width]. */
typedef struct {
    const tensor *source;
    const tensor *scales; /* of MXFP4 in two tensors; else NULL */
    uint64_t base;
    uint32_t width, first, step;
    uint32_t head, turned; /* rows are of heads of `head`, in each of which the first `turned` are
                            * pairs in the file and halves for the engine; 0: they are not */
    bool transposed;
} weight_piece;

/* Rows [first, first + rows) of a matrix, or experts [first, first + rows): as many as fit one
 * binding. */
typedef struct {
    gpu_range range;
    uint32_t first, rows;
} weight_part;

/* A matrix [rows, cols] in the file's own format, each row of whole blocks, or one for each
 * expert. */
typedef struct {
    dtype type;
    uint32_t rows, cols;
    bool decoded;      /* the files have no rows of this type, but what decodes to them */
    uint32_t n_pieces; /* 1, or one an expert; 0: absent */
    weight_piece *pieces;
    bool experts;
    uint32_t n_parts;
    weight_part *parts;
} weight;

/* [n] f32, plus `add`: `run` elements (first, first + step, ...) of every `pitch` of a tensor. */
typedef struct {
    const tensor *source; /* NULL: absent */
    uint32_t n, run, pitch, first, step;
    uint32_t head, turned; /* as in weight_piece */
    float add;
    gpu_range range;
} vector;

typedef struct {
    vector attn_norm, attn_norm_bias, post_attn_norm; /* [dim] */
    vector ffn_norm, ffn_norm_bias, post_ffn_norm;
    weight q, k, v, o; /* [heads * head_dim, dim], o the other way round */
    vector q_bias, k_bias, v_bias, o_bias;
    vector q_norm, k_norm; /* [head_dim], or [heads * head_dim] over all heads */
    vector sinks;          /* [n_heads] */
    weight gate, up, down; /* [ffn_dim, dim], down the other way round */
    vector gate_bias, up_bias, down_bias;
    weight router; /* [n_experts, dim] */
    vector router_bias;
    weight expert_gate, expert_up, expert_down; /* as gate, up, down with expert_ffn_dim */
    vector expert_gate_bias, expert_up_bias, expert_down_bias; /* [n_experts, rows] */
} layer_weights;

/* A buffer of the device and what was laid out in it, newest first; in the arena. */
typedef struct weight_place {
    gpu_range *range; /* gets its buffer when that exists */
    struct weight_place *next;
} weight_place;
typedef struct weight_buffer {
    gpu_buffer *buffer; /* NULL until weights_reserve */
    uint64_t size;
    weight_place *places;
    struct weight_buffer *older;
} weight_buffer;

typedef struct {
    weight embedding; /* [vocab_size, dim] */
    weight head;      /* [vocab_size, dim]; the embedding's parts if the model ties them */
    vector positions; /* [context, dim] learned positions */
    vector output_norm, output_norm_bias; /* [dim] */
    layer_weights *layers;
    uint32_t expert_slots; /* experts of all layers that the device holds at a time */
    uint64_t bytes;        /* on the device, alignment included */
    uint64_t expert_bytes; /* of these, experts' */
    uint32_t n_decoded;    /* tensors whose layout no kernel reads: kept as f16 */
    const tensor *decoded; /* the first of them */
    struct weight_buffer *newest;
} weights;

/* What the device allows. */
typedef struct {
    uint64_t max_binding, max_buffer;
    uint32_t expert_slots; /* of all layers together, at least one each; 0: all experts are held */
} weight_limits;

/* Whether matrices of this type can be computed with (ops.c). */
bool weight_type_is_usable(dtype type);
/* Finds every tensor, checks shapes and types, cuts matrices into parts and adds up the bytes;
 * nothing is uploaded. A tensor of a layer that no operation would read is refused: the model
 * has a part that is not known. */
bool weights_plan(weights *w, const config *c, const container *files, const weight_limits *limits,
                  arena *a, dp_error *err) CHECK_RESULT;
/* Experts of this layer that the device holds at a time. */
uint32_t weights_slots(const weights *w, const config *c, uint32_t layer);
/* Are there experts that the device does not hold? */
static inline bool weights_page_experts(const weights *w, const config *c) {
    return w->expert_slots < c->n_experts * c->n_layers;
}
/* Takes the device's buffers and gives every part and vector its place in them. */
bool weights_reserve(weights *w, gpu *g, dp_error *err) CHECK_RESULT;
/* All but the experts of a model that pages them, at once by threads or piece by piece by the
 * caller: upload_begin, then upload_all, or upload_some until *done; upload_end, also after a
 * failure, waits for what was sent. Progress is told by the options'. upload_some that could not
 * read its piece may be called again. */
typedef struct uploader uploader;
uploader *upload_begin(weights *w, gpu *g, const config *c, container *files,
                       const dp_model_options *options, dp_error *err) CHECK_RESULT;
bool upload_all(uploader *u, dp_error *err) CHECK_RESULT;
bool upload_some(uploader *u, bool *done, dp_error *err) CHECK_RESULT;
void upload_end(uploader *u); /* NULL is fine */
void weights_free(weights *w);
/* Rows of dp_model_get_memory for weights by role; how many there are. */
size_t weights_describe(const weights *w, const config *c, dp_memory_row *rows, size_t max);
/* Bytes of the host that an upload takes for a while at most. */
uint64_t weights_staging_bytes(const weights *w);

/* Rows [first, first + n) of a weight (of all experts one after the other), in the order of the
 * kernels and in the blocks of their type, n rows of dtype_padded_row_bytes. */
bool weight_read(container *files, const weight *w, uint64_t first, uint32_t n, void *out,
                 dp_error *err) CHECK_RESULT;
/* The same rows in the device's layout (device_rows); scratch and out hold UPLOAD_BYTES each. */
bool weight_read_device(container *files, const weight *w, uint64_t first, uint32_t n,
                        void *scratch, void *out, dp_error *err) CHECK_RESULT;
/* Matrices travel to the device in pieces of this size at most, of whole rows: how many, and the
 * bytes of a row there. */
enum { UPLOAD_BYTES = 8 << 20 };
uint32_t upload_rows(const weight *w, uint64_t *row_bytes);
/* Hints that these rows will be read soon. */
void weight_read_ahead(const container *files, const weight *w, uint64_t first, uint32_t n);
/* Elements [first, first + n) of a vector. */
bool vector_read(container *files, const vector *v, uint32_t first, uint32_t n, float *out,
                 dp_error *err) CHECK_RESULT;

/* ---- importance (calibrate.c) -------------------------------------------------------------- */

/* What a matrix multiplies: the columns of matrices at the same site have the same importance. */
typedef enum {
    SITE_ATTENTION_INPUT, /* q, k, v: [dim] */
    SITE_ATTENTION,       /* o: [n_heads * head_dim] */
    SITE_FFN_INPUT,       /* gate, up, router and those of experts: [dim] */
    SITE_FFN_HIDDEN,      /* down: [ffn_dim or expert_ffn_dim] */
    SITE_OUTPUT,          /* the head: [dim]; of layer 0 */
    N_SITES,
} importance_site;

typedef struct dp_importance importance_table; /* public: made by dp_calibrate */
/* Mean square of what flowed through each column of a site in a text; NULL if nothing is known of
 * it or it has not n_cols columns. */
const float *importance_of(const importance_table *im, uint32_t layer, importance_site site,
                           uint32_t n_cols);

/* Where the sums of squares of each site are in buffers.watched, in columns: layer by layer, those
 * of the output behind them. All are multiples of 4. */
typedef struct {
    uint32_t n_layers, columns[N_SITES];
} watch_layout;
watch_layout watch_layout_of(const config *c);
uint64_t watch_place(const watch_layout *l, uint32_t layer, importance_site site);
uint64_t watch_columns(const watch_layout *l); /* of all sites together */
/* Zeroes the sums; adds them to total [watch_columns], with scratch of the same size. They are
 * those of passes of sessions with `watched`, and single precision: n rows in p passes leave each
 * sum off by at most (n / 16 + 18 p) 2^-23 of itself, as nothing cancels. DP_E_FORMAT if one is not
 * a finite number. */
bool watch_clear(dp_model *m, dp_error *err) CHECK_RESULT;
uint64_t watch_piece(const dp_model *m); /* bytes that watch_add reads at a time at most */
bool watch_add(dp_model *m, double *total, float *scratch, dp_error *err) CHECK_RESULT;
/* dp_calibrate for tokens; bos stands in front of every window unless it is DP_NO_TOKEN. Progress
 * is told in parts of `size`. */
dp_importance *calibrate_tokens(dp_model *m, const dp_token *tokens, size_t n, dp_token bos,
                                uint64_t size, dp_progress_fn *progress, void *user,
                                dp_error *err) CHECK_RESULT;

/* ---- buffers ------------------------------------------------------------------------------- */

/* Everything the pass reads and writes, sized at load. O: rows whose logits are wanted, S: slots.
 * */
typedef struct {
    gpu_range rows;  /* [batch] (token, slot, position, done) u32 */
    gpu_range pick;  /* [O] row of each wanted logits */
    gpu_range tiles; /* [batch] (first row, rows, slot, position) u32, for attend_prefill
                      * or attend_matrix */
    gpu_range sizes; /* (rows, wanted, flags, logprobs) u32 */
    gpu_range pages; /* [S, pages per sequence] u32 */
    gpu_range angles[ROPE_TABLES]; /* [context, rope_dim / 2] (cos, sin) f32 */
    gpu_range none;                /* bound where a kernel has nothing to read */
    gpu_range x;                   /* [batch, dim] the residual stream */
    gpu_range y;       /* [batch, dim] what a block adds to it, if a norm comes between */
    gpu_range xn;      /* [batch, dim] normalised; the input of a fused block (ops_project.c) */
    gpu_range squares; /* [DECODE_ROWS, dim / 16] sums of squares of x, of which xn is made */
    gpu_range qkv;     /* [batch, (n_heads + 2 n_kv_heads) * head_dim] */
    gpu_range q;       /* [batch, n_heads, 2 D8] vec4f, turned; D8 = ceil(head_dim / 8) */
    gpu_range att;     /* [batch, n_heads * head_dim] */
    gpu_range spans;   /* [DECODE_ROWS, n_heads, splits, 2 D8 + 1] vec4f */
    gpu_range gu;      /* [batch, 2 ffn_dim] gate and up; or as below */
    gpu_range h;       /* [batch, ffn_dim]; left as it is where its bytes or halves are made */
    gpu_range bytes;   /* what a product of many rows reads, as signed bytes (quantise.wgsl) or
                        * half floats (halves.wgsl) */
    gpu_range parts;   /* [splits, most rows of the kind of pass, rows] of a product whose columns
                        * are split */
    /* Mixtures of experts; a pair is a row and one of its experts, pairs = batch * n_experts_used:
     * gu [pairs, 2 expert_ffn_dim], h [pairs, expert_ffn_dim]. */
    gpu_range router;       /* [batch, n_experts] logits */
    gpu_range choice;       /* [pairs] (expert, weight) */
    gpu_range order;        /* [pairs] u32, by expert */
    gpu_range expert_tiles; /* (expert, first in order, pairs, 0) u32 */
    gpu_range expert_place; /* [n_experts] u32: where each is in the weights' parts */
    gpu_range expert_pairs; /* [pairs of few rows] (expert, slot, weight, 0) */
    /* What xn and squares are to other blocks: in waves of paged experts these are read again when
     * the next block's input has been made. Of few rows. */
    gpu_range expert_x, expert_squares;
    gpu_range expert_y;     /* [pairs, dim] */
    gpu_range out;          /* [O, dim] normalised rows whose logits are wanted */
    gpu_range logits;       /* [O, vocab_size] of this pass */
    gpu_range saved;        /* [S, vocab_size] of every session's last token */
    gpu_range z;            /* [O, vocab_size] adjusted logits */
    gpu_range best;         /* [O, chunks] (value, token, mass, -) */
    gpu_range won;          /* [O, chunks] (score, token, -, -) */
    gpu_range found;        /* [O, 2 + SAMPLE_FOUND] (value, token), as in sample_draw.wgsl */
    gpu_range samplers;     /* [S] sampler_state */
    gpu_range counts;       /* [S, vocab_size] occurrences for penalties */
    gpu_range stops;        /* how many, then the model's stop set */
    gpu_range answer;       /* [1 + DP_STEPS_MAX, O] how many, then the tokens step by step */
    gpu_range probs;        /* [O, 1 + LOGPROBS_MAX] (token, logarithm) */
    gpu_range watched;      /* [watch_columns] sums of squares; 0 bytes without shapes.calibrate */
    gpu_range *keys;        /* [n_layers] [page, n_kv_heads] chunks of 8 f16 or f32, in a page as
                             * kernels/common/key_place.wgsl has them */
    gpu_range *values;      /* [n_layers] [page, n_kv_heads, KV_PAGE, D8] chunks */
} buffers;

/* Which of the plans: by how many rows a pass has. The same as dp_pass. */
typedef enum {
    PASS_ONE = DP_PASS_ONE,
    PASS_FEW = DP_PASS_FEW,
    PASS_SOME = DP_PASS_SOME,
    PASS_SHORT = DP_PASS_SHORT,
    PASS_MANY = DP_PASS_MANY,
    PASS_COUNT
} pass_kind;
/* Most rows of a pass of this kind; batch: of any pass, at least DECODE_ROWS. */
static inline uint32_t pass_rows(pass_kind kind, uint32_t batch) {
    static const uint32_t most[] = { [PASS_ONE] = 1,
                                     [PASS_FEW] = FEW_ROWS,
                                     [PASS_SOME] = DECODE_ROWS,
                                     [PASS_SHORT] = SHORT_ROWS,
                                     [PASS_MANY] = UINT32_MAX };
    return min_u32(most[kind], batch);
}
static inline pass_kind pass_kind_of(uint32_t rows) {
    pass_kind kind = PASS_ONE;
    while (rows > pass_rows(kind, UINT32_MAX)) {
        kind++;
    }
    return kind;
}
/* Are products and attention made by tiles? */
static inline bool pass_is_prefill(pass_kind kind) {
    return kind >= PASS_SHORT;
}

/* Shapes that follow from config, options and device. */
typedef struct {
    uint32_t context;      /* tokens of the KV pool, a multiple of KV_PAGE unless positions are
                            * learned */
    uint32_t rope_context; /* as it was asked for: which factors of scaled RoPE hold */
    uint32_t sessions, batch, n_out;
    uint32_t n_kinds;   /* of passes: the last one's rows are the batch's */
    uint32_t n_pages;   /* of the pool; also pages per sequence */
    uint32_t span;      /* keys of a span of attend_decode, at least */
    uint32_t n_splits;  /* spans of a row at most */
    uint32_t whole_keys; /* up to which a pass of one row attends to them in one span, by a call of
                          * its own; 0: as several rows do */
    uint32_t tile_rows; /* at most, of an entry of buffers.tiles */
    uint32_t n_chunks;  /* of the vocabulary */
    bool f16;           /* KV cache in half floats */
    bool int8;          /* quantised matrices meet activations as signed bytes */
    bool calibrate;     /* op_watch records */
} shapes;

/* What dp_model_options.context = 0 means for this model. */
uint32_t default_context(const config *c);
/* Fills shapes and adds up the device memory. DP_E_ARGUMENT for options out of range, DP_E_LIMIT if
 * the context or the batch does not fit the device's bindings. */
bool shapes_plan(shapes *s, dp_memory *memory, const config *c, const weights *w,
                 const dp_model_options *options, uint64_t max_binding, bool f16,
                 dp_error *err) CHECK_RESULT;

/* Rows of dp_model_get_memory for all buffers (buffers.c): as dp_model_get_memory. */
size_t buffers_describe(const dp_model *m, dp_memory_row *rows, size_t max);

/* ---- the model ----------------------------------------------------------------------------- */

typedef struct {
    bool taken;
    bool has_logits;     /* `saved` holds those of the last token */
    bool recount;        /* `counts` must be made anew from the tokens */
    uint32_t n_pages;    /* of page_list */
    uint32_t *page_list; /* [pages per sequence] */
} slot;

typedef struct expert_cache expert_cache;
typedef struct chain chain;
typedef struct tuner tuner;

/* Which shape of workgroups operations have: by key, the name of one that they offer
 * (ops_internal.h). */
enum { TUNED_KEY_BYTES = 128, TUNED_NAME_BYTES = 64 };
typedef struct {
    char key[TUNED_KEY_BYTES], shape[TUNED_NAME_BYTES];
    bool is_used; /* an operation of the passes has it */
} tuned_entry;
typedef struct {
    tuned_entry *list;
    size_t n, max;
} tuned_table;

struct dp_model {
    arena arena;
    log_sink log;
    container *files;
    tokenizer *tokenizer;
    config config;
    weights weights;
    dp_model_info info;
    dp_memory memory;
    gpu *gpu;           /* NULL: opened to tokenise only; all below is then empty */
    bool plan_only;     /* dp_model_options.plan_only */
    uploader *uploader; /* while weights travel */
    shapes shapes;
    gpu_buffer **buffer_list; /* what `buffers` are ranges of */
    uint32_t n_buffers;
    buffers buffers;
    gpu_plan **body[PASS_COUNT]; /* of shapes.n_kinds: [n_stages] embedding and layers */
    uint32_t n_stages;           /* 1; 2 n_layers + 1 if experts are paged */
    expert_cache *experts;       /* NULL unless paged */
    gpu_plan *head[PASS_COUNT];  /* last norm and logits, by wanted rows */
    gpu_plan *greedy, *sampled;  /* one step of the sampler */
    gpu_plan *logprobs;
    tuned_table tuned; /* shapes that were measured */
    struct {
        pass_kind kind, head;
        gpu_sizes sizes;
    } latest;              /* pass, for dp_session_time_ops */
    bool calibrating;      /* dp_calibrate runs */
    gpu_ticket evaluating; /* of the newest pass of dp_batch_eval, perhaps under way; 0: none */
    chain *chain;          /* whose rows and logits the buffers hold; NULL: nobody's */
    struct {
        double step, submit; /* seconds that a step of a chain takes, and a submit by itself; 0: not
                              * known */
        double part;         /* that the last submit took, and the steps in it */
        uint32_t n;
    } pace;
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
    uint32_t n;       /* tokens evaluated */
    dp_token *tokens; /* [context] */
    bool *answered;   /* [context] the token was drawn or accepted */
    dp_token pending; /* drawn or accepted, not evaluated yet; DP_NO_TOKEN */
    dp_sampling sampling;
    uint32_t draws;
    bool watched;          /* its rows count in buffers.watched */
    atomic_bool cancelled; /* set by dp_session_cancel, from anywhere */
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
enum {
    SIZE_ONE,
    SIZE_ROWS,
    SIZE_OUT,
    SIZE_SPLITS,
    SIZE_TILES,
    SIZE_EXPERT_TILES,
    SIZE_KEYS,    /* that all rows see together: of costs only */
    SIZE_LONGEST, /* that the last position sees: of costs only */
    SIZE_COMBINE, /* 0 if no row of the pass has more than one span */
    SIZE_WHOLE,   /* 1 if it has one row, of up to shapes.whole_keys keys, else 0 */
};

/* Where a pass is being recorded. The first failure sticks to the plan. */
typedef struct {
    dp_model *m;
    gpu_plan *plan;
    uint32_t stage; /* of the body */
    pass_kind kind;
    const char *role;         /* of what is recorded from here on, for profiles: static text */
    gpu_range bytes_of;       /* what buffers.bytes holds, which may be nowhere else: made by */
    const gpu_plan *bytes_in; /* a call of this plan (ops_prefill.c) */
    tuner *tuner;             /* NULL: what m->tuned says is recorded, all of it */
    dp_error *err;
} recorder;

/* What a block reads of the stream where it is fused, as floats or as signed bytes: through the
 * RMSNorm in front (source NULL: as it is) without the norm's scale, which the reader finds; or
 * through a LayerNorm, whole. */
typedef struct {
    const vector *norm;
    const vector *bias; /* of a LayerNorm, may be absent; NULL: an RMSNorm */
    bool q8;
    gpu_range act, squares; /* where it lies, and the sums of squares for the norm's scale */
} block_input;

/* With the input of the first block, unless `next` is NULL. */
void op_embed(recorder *r, gpu_range x, const weight *table, const block_input *next);
/* y = norm(x) w + bias; RMSNorm takes no bias: NULL or absent. */
void op_norm(recorder *r, gpu_range y, gpu_range x, const vector *w, const vector *bias);
/* y += norm(x) w */
void op_norm_add(recorder *r, gpu_range y, gpu_range x, const vector *w);
/* The norm of the rows whose logits are wanted only. */
void op_norm_picked(recorder *r, gpu_range y, gpu_range x, const vector *w, const vector *bias);
/* Queries and keys in buffers.qkv. */
void op_qk_norm(recorder *r, const vector *wq, const vector *wk);

/* y[:, column .. column + rows) of width `stride` = W x + b. */
typedef struct {
    gpu_range y;
    uint32_t column, stride;
    float scale; /* y = scale (W x + b); 0: 1 */
    bool add;    /* y += */
    bool picked; /* over the wanted rows instead of all */
} target;
void op_matmul(recorder *r, target y, const weight *w, const vector *bias, gpu_range x);
/* op_matmul of n matrices whose results stand side by side from y.column on, in one product if the
 * matrices do too. */
void op_matmul_beside(recorder *r, target y, const weight *const *w, const vector *const *bias,
                      uint32_t n, gpu_range x);
void op_rope(recorder *r, uint32_t layer);

/* ---- of passes of few rows, fused (ops_project.c) ------------------------------------------ */

/* Whether this kind of pass is recorded so: those of few rows. A software GPU spends seconds on
 * each pipeline for several rows, so there it is that of one row alone. */
bool pass_is_fused(const recorder *r);
/* Whether a layer's blocks can be recorded so; if not, the plain operations serve. */
bool attention_is_fused(const dp_model *m, uint32_t layer);
bool ffn_is_fused(const dp_model *m, uint32_t layer);
block_input attention_input(const dp_model *m, uint32_t layer);
block_input ffn_input(const dp_model *m, uint32_t layer);
/* Makes the input of a block; op_embed, op_norm_ready and what ends a block do it by the way, but
 * for a block behind a LayerNorm. */
void op_ready(recorder *r, block_input in);
/* The stream takes the norm `post` of what a block makes, y, and the next block's input is made. */
void op_norm_ready(recorder *r, gpu_range y, const vector *post, block_input next);
/* buffers.qkv of the layer's attention_input. */
void op_project_qkv(recorder *r, uint32_t layer);
/* y = scale (W x + b) */
void op_project(recorder *r, target y, const weight *w, const vector *bias, gpu_range x);
/* The norm of the wanted rows and the logits, y = scale W norm(x). */
bool head_is_fused(const dp_model *m);
void op_project_head(recorder *r, target y);
/* buffers.h = act(gate) up of the layer's ffn_input, or act(up). */
void op_project_glu(recorder *r, uint32_t layer);
/* buffers.x += residual_scale (W x + b), and the input of the next block unless that is NULL. */
void op_project_add(recorder *r, const weight *w, const vector *bias, gpu_range x,
                    const block_input *next);
/* buffers.router: the logits of the layer's experts. */
void op_router(recorder *r, uint32_t layer);
/* buffers.expert_pairs, and buffers.h [pairs, expert_ffn_dim] = act(gate) up of ffn_input. */
void op_expert_glu(recorder *r, uint32_t layer);
/* op_project_add of the chosen experts' down, each as much as it counts for. */
void op_expert_add(recorder *r, uint32_t layer, const block_input *next);
void op_attend(recorder *r, uint32_t layer);
/* shapes.tile_rows, of a model whose description and device are there. */
uint32_t attend_tile_rows(const dp_model *m);
/* Whether the device can run attend_prefill in tiles of bq, bk, rows and parts: its memory and
 * lanes, and chunks of the cache that a lane may have under way. */
bool attend_prefill_fits(const attend_prefill_consts *k, const dp_device_info *info,
                         bool subgroups);
/* Whether the device can run attend_matrix for heads of head_dim; and the part with the side of its
 * matrices. */
bool attend_matrix_fits(const gpu *g, uint32_t head_dim);
const gpu_fragment *matrix_fragment(const gpu *g);
/* Keys of a span at least; spans of a row at most, for the context and span of `s`; and of a row
 * that sees `longest` keys. */
uint32_t attend_span(const config *c);
/* shapes.whole_keys, of a model whose description and device are there. */
uint32_t attend_whole_keys(const dp_model *m);
uint32_t attend_splits_max(const shapes *s, const config *c);
uint32_t attend_splits(const shapes *s, uint32_t longest);
/* Fills in the lanes of a key for attend_decode's team, heads and head_dim, and lowers wg until it
 * takes at most `memory` bytes of workgroup memory. False if a team has too few lanes or the memory
 * is too small: then attend_decode_tree has to do. */
bool attend_in_teams(attend_decode_consts *k, uint32_t memory);
/* How attend_decode_tree divides the same work; with fewer lanes, down to 64, if it takes more than
 * `memory` bytes. */
attend_decode_tree_consts attend_in_tree(const attend_decode_consts *k, uint32_t memory, bool cpu,
                                         bool f16);
/* Its parameters; first elements of norms and sinks in binding w. */
attend_decode_tree_params attend_tree_blocks(const attend_decode_tree_consts *k,
                                             const uint32_t first[3]);
/* Entries of buffers.expert_tiles that a pass of so many rows may need. */
uint32_t expert_tiles_of(const config *c, uint32_t rows);
/* h [rows * times, n] = act(gate) up of gu [rows * times, 2 n], or act(gu) of [.., n], for `next`,
 * the matrix that reads h. If that takes bytes or half floats they are made in the place of h. */
void op_activate(recorder *r, gpu_range h, gpu_range gu, uint32_t n, uint32_t times,
                 const weight *next);
void op_softcap(recorder *r, gpu_range logits);
/* The experts of each row and what each counts for, out of buffers.router; for prefill also the
 * pairs in the order of their experts. */
void op_route(recorder *r);
/* y[pair, column ..] = W[expert of the pair] x + b: x has a row for each pair, or, if x_by_row, for
 * each row of the pass. */
void op_expert_matmul(recorder *r, target y, const weight *w, const vector *bias, gpu_range x,
                      bool x_by_row);
/* x += scale times the weighted sum of the rows' pairs. */
void op_expert_combine(recorder *r, gpu_range x, gpu_range y, float scale);
/* Adds the squares of x [rows, the site's columns], for experts' hidden [pairs, ..], to the site's
 * sums; no dispatch unless the model was opened to calibrate. */
void op_watch(recorder *r, uint32_t layer, importance_site site, gpu_range x);
/* `keep`: for the samplers that draw; the others need the best alone. */
void op_sample_scan(recorder *r, bool keep);
void op_sample_draw(recorder *r);
void op_sample_select(recorder *r);
void op_sample_finish(recorder *r, gpu_range best);
void op_logprobs(recorder *r);

/* ---- products of many rows (ops_prefill.c) --------------------------------------------------- */

/* A tile of matmul.wgsl or matmul_q8.wgsl: which fragment and which overrides make it. */
typedef struct {
    const char *name; /* "128x128": rows by tokens */
    const gpu_fragment *lanes;
    uint32_t row_lanes, token_lanes;
    uint32_t rows, tokens; /* the tile's */
} matmul_tile;
enum { MATMUL_TILES = 10 };
extern const matmul_tile matmul_tiles[MATMUL_TILES];
/* Overrides of matmul_q8.wgsl that follow from the type of W. */
typedef struct {
    bool halves, low;
    uint32_t offset, pairs;
} q8_weight;
q8_weight q8_weight_of(dtype type);
/* Has the device the lanes and the workgroup memory for a tile of matmul in numbers of 32 or 16
 * bits, or of matmul_q8, where they have 8, that takes `step` units at a time? */
bool matmul_fits(const matmul_tile *tile, const dp_device_info *info, uint32_t bits, uint32_t step);
/* Whether eight lanes of a subgroup can read together what all of its lanes need: those of a
 * product with `lanes` of them to a row (SHARED of products.wgsl). */
bool lanes_share(uint32_t lanes, const dp_device_info *info);
/* Sizes of buffers.bytes for inputs [batch, cols], and of buffers.parts for results [batch, rows].
 * matmul_matrix reads up to MATRIX_BLOCK pieces of 16 bytes behind the last one. */
enum { MATRIX_BLOCK = 128 };
uint64_t prefill_input_bytes(uint64_t batch, uint64_t cols);
uint64_t prefill_parts_bytes(uint64_t batch, uint64_t rows);

gpu *device_gpu(const dp_device *device);

/* ---- opening in steps (engine.c): where nothing may wait ------------------------------------- */

/* dp_model_open on a device without the weights, and without holding a pack against its hashes; no
 * experts are paged (DP_E_MEMORY). */
dp_model *model_begin(dp_device *device, const char *path, const dp_model_options *options,
                      dp_error *err) CHECK_RESULT;
/* A piece of the weights; with the last of them, *done, the model is open. One that failed may be
 * tried again: nothing of it counts. */
bool model_load_some(dp_model *m, bool *done, dp_error *err) CHECK_RESULT;

/* ---- passes -------------------------------------------------------------------------------- */

/* Records all plans of the model (forward.c, sample.c). */
bool forward_record(dp_model *m, dp_error *err) CHECK_RESULT;
bool sample_record(dp_model *m, dp_error *err) CHECK_RESULT;
/* The body or the head of one kind of pass into a plan, as far as the tuner lets it (tune.c). */
void forward_record_part(dp_model *m, pass_kind kind, bool head, gpu_plan *plan, tuner *t,
                         dp_error *err);
/* Frees the passes and records them anew: m->tuned has changed (engine.c). On false the model can
 * only be closed. */
bool forward_record_again(dp_model *m, dp_error *err) CHECK_RESULT;

/* ---- tuning -------------------------------------------------------------------------------- */

typedef struct {
    bool quick;         /* `seconds` at most, and only products that nothing is known of */
    double seconds;     /* all of the quick form */
    double run_seconds; /* what a run is to take about */
    const char *only;   /* products whose keys begin so; NULL: all */
    /* Test hook: the shape whose results are made wrong, 0: none; and which of them, 0: all. */
    uint32_t spoilt, spoilt_result;
    dp_tune_fn *each; /* may be NULL */
    void *user;
} tune_options;
/* Measures the model's operations on its device and keeps the choices in m->tuned; *n_done is how
 * many were measured. Plans that are recorded afterwards have them. The device is locked, the model
 * has no session. On false what was found until then is kept (tune.c). */
bool model_tune(dp_model *m, const tune_options *how, size_t *n_done, dp_error *err) CHECK_RESULT;
/* The quick form while a model is opened, never on a software GPU: measures, keeps what it found in
 * the folder if that can be done, and records the passes anew. */
bool tune_at_load(dp_model *m, const char *folder, dp_error *err) CHECK_RESULT;

/* NULL: nothing is known of it (ops.c). */
const char *tuned_find(const tuned_table *t, const char *key);
/* How many the recorded passes have (ops.c). */
uint32_t tuned_in_use(const tuned_table *t);
bool tuned_put(tuned_table *t, const char *key, const char *shape, dp_error *err) CHECK_RESULT;
/* The file of this device in a folder (tuned.c). A file that cannot be used is none, and the log
 * says so; false: out of memory, or the path is too long. Writing adds to what is there and makes
 * the folder. */
bool tuned_path(const dp_model *m, const char *folder, char *out, size_t size,
                dp_error *err) CHECK_RESULT;
bool tuned_read(dp_model *m, const char *folder, dp_error *err) CHECK_RESULT;
bool tuned_write(const dp_model *m, const char *folder, dp_error *err) CHECK_RESULT;

/* ---- chains of steps (steps.c) ------------------------------------------------------------- */

/* Submits of a chain under way at most: one that is waited for and one that is queued. */
enum { CHAIN_PARTS = 2 };
typedef struct {
    gpu_ticket ticket;
    uint32_t n_steps;
    double start;
} chain_part;

/* Steps (sample, evaluate) of some sessions one after the other on the device. The lock is held
 * around each call and need not be in between: another pass of the model ends the chain on the
 * device, and the next chain_submit begins it there again. While it is open its sessions are not
 * used otherwise. */
struct chain {
    dp_model *m;
    dp_session *sessions[DECODE_ROWS];
    uint32_t n;
    bool ignore_stops;
    bool live;              /* the device goes on from the last submit */
    bool done[DECODE_ROWS]; /* met a stop token */
    uint32_t sent, read;    /* submits */
    uint32_t kept;          /* `saved` holds the logits behind so many submits */
    uint32_t ahead;         /* steps sent and not read */
    chain_part parts[CHAIN_PARTS];
    double last_read;
};

/* The first of many submits is short, so that the device begins early, and each has at most so many
 * times the steps of the one before: the device runs these while the host encodes those, which
 * takes up to half of the time that they will run. */
enum { STEPS_FIRST = 4, STEPS_GROWTH = 2 };

/* At most DECODE_ROWS sessions, all with logits. */
bool chain_begin(chain *c, dp_session *const *sessions, size_t n, bool ignore_stops,
                 dp_error *err) CHECK_RESULT;
static inline bool chain_has_room(const chain *c) {
    return c->sent == c->read || (c->live && c->sent - c->read < CHAIN_PARTS);
}
/* Queues n_steps steps, of 1 to DP_STEPS_MAX; `last`: no more are expected. On false nothing was
 * queued. */
bool chain_submit(chain *c, uint32_t n_steps, bool last, dp_error *err) CHECK_RESULT;
/* Waits for the oldest submit: up to its n_steps tokens for session i from tokens[i * stride], as
 * counts[i] says, which the session then holds (but for a stop token). */
bool chain_collect(chain *c, dp_token *tokens, size_t stride, uint32_t *counts,
                   dp_error *err) CHECK_RESULT;
/* Notes that a submit of n steps took so long, in m->pace (chain_collect; tests). */
void chain_note_pace(dp_model *m, double seconds, uint32_t n);
bool chain_is_done(const chain *c); /* all sessions met a stop token */
/* Gives up what is under way. The sessions are then as after what was collected, except that
 * when the last submit was given up, or another pass came between, one may have no logits:
 * session_take_back makes them. */
void chain_end(chain *c);

/* False with DP_E_ARGUMENT if it has none. */
bool session_has_logits(const dp_session *s, dp_error *err) CHECK_RESULT;

/* dp_session_sample with the logarithm of the drawn token's probability and those of the n best, in
 * one submit (steps.c): queued; taken, once gpu_poll says that it is there; or given up. */
bool session_ask_logprobs(dp_session *s, uint32_t n, gpu_ticket *ticket,
                          dp_error *err) CHECK_RESULT;
bool session_take_logprobs(dp_session *s, gpu_ticket ticket, uint32_t n, dp_logprob *drawn,
                           dp_logprob *best, dp_error *err) CHECK_RESULT;
void session_drop_logprobs(dp_session *s, gpu_ticket ticket);
/* dp_session_get_logits in the same way. */
bool session_ask_logits(dp_session *s, gpu_ticket *ticket, dp_error *err) CHECK_RESULT;
bool session_take_logits(dp_session *s, gpu_ticket ticket, float *logits,
                         dp_error *err) CHECK_RESULT;

/* Forgets the last n_tokens and the random numbers of n_draws, and evaluates the token before them
 * again if the session has not its logits, so that it goes on as if they had not been (steps.c). */
bool session_take_back(dp_session *s, uint32_t n_tokens, uint32_t n_draws,
                       dp_error *err) CHECK_RESULT;

/* Experts that do not fit the device (experts.c): each layer has weights_slots places, the
 * least recently used expert makes room for one that was chosen. */
static inline bool model_pages_experts(const dp_model *m) {
    return weights_page_experts(&m->weights, &m->config);
}
bool experts_open(dp_model *m, dp_error *err) CHECK_RESULT;
/* The body of a pass of n rows, layer by layer: submits and waits for the choice of each, brings
 * the chosen experts in, as many at a time as there is room for. *e is open before and after, an
 * encoder of its own after; what it held before is submitted. False: nothing is open. */
bool experts_run(dp_model *m, pass_kind kind, uint32_t n_rows, const gpu_sizes *sizes,
                 gpu_encoder **e, dp_error *err) CHECK_RESULT;

/* KV pages (kvcache.c): makes the slot's list hold n_tokens, or gives back what is over. kv_grow
 * fails with DP_E_MEMORY and changes nothing if the pool has too few. */
bool kv_grow(dp_model *m, uint32_t slot, uint32_t n_tokens, dp_error *err) CHECK_RESULT;
void kv_shrink(dp_model *m, uint32_t slot, uint32_t n_tokens);

#endif
