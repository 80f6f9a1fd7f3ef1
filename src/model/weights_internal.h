/* weights_internal: what the files that deal in a model's tensors share: weights.c finds them,
 * weight_upload.c takes them to the device, convert*.c write them out again.
 *
 * fields.c has the table of what a layer may hold, under which names and in which shapes. */
#ifndef MODEL_WEIGHTS_INTERNAL_H
#define MODEL_WEIGHTS_INTERNAL_H

#include "model/model.h"

/* How a container names its tensors and lays out their rows. Packs have a folder's names, but each
 * matrix is [out, in] unless its tensor's layout says otherwise, and the rows of fused matrices
 * follow one another. */
typedef enum { SPELLING_GGUF, SPELLING_FOLDER, SPELLING_PACK } tensor_spelling;
tensor_spelling spelling_of(const container *files);

typedef enum { IS_MATRIX, IS_VECTOR, IS_EXPERTS, IS_EXPERT_VECTOR } field_kind;
typedef enum {
    ROWS_Q,
    ROWS_KV,
    ROWS_DIM,
    ROWS_FFN,
    ROWS_HEADS,
    ROWS_EXPERTS,
    ROWS_EXPERT_FFN,
    ROWS_QK_NORM_Q,
    ROWS_QK_NORM_K,
} extent;

/* What decides whether a model has a field. */
typedef enum {
    USE_ALWAYS,
    USE_QKV_BIAS,
    USE_O_BIAS,
    USE_PRE_NORM,
    USE_POST_NORM,
    USE_LAYER_NORM,
    USE_QK_NORM,
    USE_SINKS,
    USE_DENSE,
    USE_GATED,
    USE_GATE_BIAS,
    USE_FFN_BIAS,
    USE_ROUTER_BIAS,
    USE_EXPERTS_BIAS,
    USE_EXPERTS,
} field_use;

/* Several fields in one tensor, one after the other. */
typedef struct {
    const char *alias;     /* what families rename it by (tensor_alias); NULL: none does */
    const char *gguf, *hf; /* names as in layer_field; NULL: that container has none */
    uint32_t n;
    extent rows[3];
} fusion;
extern const fusion FUSIONS[]; /* number FUSE_... - 1 */
enum {
    FUSE_NONE,
    FUSE_QKV,
    FUSE_QKV_BIAS,
    FUSE_FFN,
    FUSE_EXPERTS,
    FUSE_EXPERTS_BIAS,
    FUSE_DOWN,
    FUSE_DOWN_BIAS
};

/* What a layer may hold. */
typedef struct {
    const char *gguf; /* after "blk.N." */
    const char *hf;   /* after the layer's prefix; %u: the expert */
    size_t offset;    /* in layer_weights */
    field_kind kind;
    field_use use;
    extent rows, cols;   /* cols: of matrices */
    uint8_t fuse, place; /* which fusion it may be in, and where */
} layer_field;
extern const layer_field LAYER_FIELDS[];
extern const size_t N_LAYER_FIELDS;

static inline bool is_matrix(const layer_field *f) {
    return f->kind == IS_MATRIX || f->kind == IS_EXPERTS;
}
static inline bool is_of_experts(const layer_field *f) {
    return f->kind == IS_EXPERTS || f->kind == IS_EXPERT_VECTOR;
}

uint32_t extent_of(const config *c, extent e);

typedef enum { FIELD_ABSENT, FIELD_OPTIONAL, FIELD_REQUIRED } field_need;
field_need need_of(const config *c, field_use use);

/* The family's name for a field or a fusion in such a container; NULL if there is none. */
const char *field_name(const config *c, tensor_spelling s, const char *gguf, const char *hf);
const char *fusion_name(const config *c, tensor_spelling s, const fusion *u);
/* The whole name of a tensor of a layer; `expert` fills a %u of it. */
enum { TENSOR_NAME_BYTES = 192 };
void full_tensor_name(const config *c, tensor_spelling s, uint32_t layer, const char *name,
                      uint32_t expert, const char *suffix, char full[TENSOR_NAME_BYTES]);

/* Where a field's rows lie among those of its tensor. */
typedef struct {
    uint32_t total, first, step; /* rows of the tensor's matrix; those of the field */
    bool transposed;
} row_place;

row_place place_alone(const config *c, tensor_spelling s, const layer_field *f);
/* In the tensor of its fusion: folders of GPT-OSS keep rows of gate and up in turn and, unpacked,
 * matrices of experts [in, out]. */
row_place place_fused(const config *c, tensor_spelling s, const layer_field *f);

/* Tensors outside the layers; folders have one of several names. */
enum { OUTER_NAMES = 5 };
typedef struct {
    const char *gguf, *hf[OUTER_NAMES];
} outer_tensor;
enum { EMBEDDING, OUTPUT_NORM, HEAD, POSITIONS, OUTPUT_NORM_BIAS, N_OUTER };
extern const outer_tensor OUTER[N_OUTER];
/* NULL if absent. */
const tensor *outer_find(const container *files, int which);

#endif
