/* convert_internal: what the convert*.c files share.
 *
 * A model is written as one space of bytes, all output tensors one after the other, which a GGUF
 * file holds behind its header and a pack cuts into shards. convert_plan.c makes the list of output
 * tensors out of the fields of the source (fields.c), so that any source can become any target;
 * convert_types.c decides their formats, convert_rows.c produces their bytes by blocks of rows,
 * convert.c runs the blocks on threads, keeps a journal and puts the result in its place;
 * convert_pack.c and convert_gguf.c write what is not tensors. */
#ifndef MODEL_CONVERT_INTERNAL_H
#define MODEL_CONVERT_INTERNAL_H

#include "model/weights_internal.h"

#include <pthread.h>

/* What a tensor is for: what mixtures of formats and overrides go by. */
typedef enum {
    ROLE_EMBEDDING,
    ROLE_HEAD,
    ROLE_ATTN_Q,
    ROLE_ATTN_K,
    ROLE_ATTN_V,
    ROLE_ATTN_QKV,
    ROLE_ATTN_O,
    ROLE_GATE,
    ROLE_UP,
    ROLE_GATE_UP,
    ROLE_DOWN,
    ROLE_ROUTER,
    ROLE_VECTOR, /* norms, biases, positions, tables of RoPE */
    N_ROLES,
} tensor_role;

/* Rows that come from one matrix or vector of the source: for each outer index e, rows
 * [first + e * stride, ... + rows). A vector is a matrix of one row. */
typedef struct {
    const weight *matrix; /* or */
    vector values;        /* its `add` is what the target wants added */
    uint64_t first, stride;
    uint32_t rows;
} out_part;

enum { OUT_PARTS = 3 };

typedef struct {
    str name;
    tensor_role role;
    dtype type;
    tensor_layout layout;
    uint32_t layer, expert; /* UINT32_MAX: of none */
    bool experts;           /* of experts, one or all */
    uint32_t n_dims;
    uint64_t shape[TENSOR_DIMS];
    /* [outer][rows of all parts][cols] */
    uint64_t outer, rows;
    uint32_t cols, n_parts;
    out_part parts[OUT_PARTS];
    bool paired; /* rows (i, i + rope_dim / 2) of a head become (2i, 2i + 1) */
    const float *given;      /* [rows * cols] instead of parts: tables of RoPE */
    const float *importance; /* [cols] or NULL */
    uint64_t offset, n_bytes;
    /* Bytes are made in lines: rows, or columns in LAYOUT_COLUMNS, or in LAYOUT_FLAT runs of
     * so many rows as end with a block. */
    uint64_t n_lines, line_bytes, lines_at_once;
    uint64_t first_job, n_jobs;
} out_tensor;

typedef struct {
    const char *name;   /* "q4_k_m" */
    dtype type;         /* what most matrices get */
    uint32_t file_type; /* general.file_type */
} mixture;

/* NULL for an unknown name. */
const mixture *mixture_by_name(str name);
/* The mixture whose matrices are all of this format, or mostly. */
const mixture *mixture_of_type(dtype type);
/* A list of the names for messages. */
void mixture_names(buf *out);

typedef struct {
    const char *name; /* "attn_v", "ffn" */
    uint32_t roles;   /* bits 1 << tensor_role */
    bool experts;     /* only tensors of experts */
} role_name;
extern const role_name ROLE_NAMES[];

typedef struct {
    const role_name *role;
    dtype type;
} role_override;

typedef struct conversion conversion;
struct conversion {
    const dp_convert_options *options;
    const char *in, *out;
    container *files; /* the source */
    config config;
    weights weights;
    tokenizer *tokenizer; /* NULL: the source has none */
    arena memory;
    log_sink log;

    bool to_gguf;
    tensor_spelling spelling; /* of the target */
    const family *family;     /* whose names the target has */
    config names;             /* config with that family and the target's prefix: for names */
    const mixture *mixture;   /* NULL: types are kept */
    tensor_layout q4k_layout;
    role_override overrides[32];
    uint32_t n_overrides;
    const importance_table *importance; /* NULL: none */

    out_tensor *tensors;
    uint32_t n_tensors, tensors_max;
    uint64_t bytes, n_jobs; /* of all tensors, with the gaps between them */
    uint32_t alignment;
    uint64_t shard_bytes; /* of packs */
    uint64_t data_start;  /* GGUF: of the tensors in the file */
    char temporary[4096]; /* what is written until it is whole */

    pthread_mutex_t lock; /* of progress */
    uint64_t progress;    /* bytes written, and for packs hashed */
};

/* Counts bytes that are written or hashed and tells the caller; false if he cancels. */
bool conversion_progress(conversion *v, uint64_t bytes, dp_error *err) CHECK_RESULT;

/* ---- convert_plan.c, convert_types.c ------------------------------------------------------- */

/* Reads the options' names, finds all fields, names, types and places of the output. */
bool conversion_plan(conversion *v, dp_error *err) CHECK_RESULT;
/* The format of a tensor whose source is in `source`; only its role, layer and shape are set. */
dtype conversion_type(const conversion *v, const out_tensor *t, dtype source);
bool conversion_read_types(conversion *v, dp_error *err) CHECK_RESULT;

/* ---- convert_rows.c ------------------------------------------------------------------------ */

/* Memory of one thread. */
typedef struct {
    unsigned char *source, *target;
    float *values, *strip, *weights;
} row_buffers;
/* Sets what of `t` the blocks of rows follow from, its bytes among them. */
bool rows_measure(out_tensor *t, dp_error *err) CHECK_RESULT;
uint64_t rows_bytes(const conversion *v); /* of what rows_reserve takes */
bool rows_reserve(const conversion *v, row_buffers *b, dp_error *err) CHECK_RESULT;
void rows_release(row_buffers *b);
/* Lines [first, first + n) of t into b->target. */
bool rows_make(conversion *v, const out_tensor *t, uint64_t first, uint64_t n, row_buffers *b,
               dp_error *err) CHECK_RESULT;

/* ---- convert_gguf.c ------------------------------------------------------------------------ */

/* Everything in front of the tensors, filled up to where they begin. */
bool gguf_write_header(conversion *v, buf *header, dp_error *err) CHECK_RESULT;

/* ---- convert_pack.c ------------------------------------------------------------------------ */

/* The text files of a pack into v->temporary, and of its manifest what is known before the shards
 * are hashed. Shards are there and whole. */
bool pack_write_manifest(conversion *v, uint32_t n_threads, dp_error *err) CHECK_RESULT;
uint32_t pack_n_shards(const conversion *v);
uint64_t pack_shard_size(const conversion *v, uint32_t shard);
/* "shard_00000.bin" in v->temporary. */
bool pack_shard_path(const conversion *v, uint32_t shard, char path[4096], dp_error *err);

#endif
