/* format: model containers. Needs base.
 *
 * A container is metadata (typed key/value pairs) and named tensors, each a shape, a type and a
 * byte range of a file. GGUF v2/v3 (also split over files) and Hugging Face safetensors folders
 * open to the same thing, so that no other layer knows which it was. Tensor bytes are read by
 * ranges; a model file is never held in memory. Byte formats: GGUF specification (ggml,
 * docs/gguf.md) and the safetensors format description; block formats of ggml's quantisation
 * types. */
#ifndef FORMAT_FORMAT_H
#define FORMAT_FORMAT_H

#include "base/base.h"

/* ---- element types (dtype.c: the one table) ------------------------------------------------ */

/* Values below DTYPE_GGUF_END are GGUF's type numbers; those above are types that occur in
 * safetensors files alone and that nothing here decodes. */
typedef enum {
    DTYPE_F32 = 0,
    DTYPE_F16 = 1,
    DTYPE_Q4_0 = 2,
    DTYPE_Q4_1 = 3,
    DTYPE_Q5_0 = 6,
    DTYPE_Q5_1 = 7,
    DTYPE_Q8_0 = 8,
    DTYPE_Q2_K = 10,
    DTYPE_Q3_K = 11,
    DTYPE_Q4_K = 12,
    DTYPE_Q5_K = 13,
    DTYPE_Q6_K = 14,
    DTYPE_Q8_K = 15,
    DTYPE_IQ4_NL = 20,
    DTYPE_IQ4_XS = 23,
    DTYPE_I8 = 24,
    DTYPE_I16 = 25,
    DTYPE_I32 = 26,
    DTYPE_I64 = 27,
    DTYPE_F64 = 28,
    DTYPE_BF16 = 30,
    DTYPE_MXFP4 = 39,
    DTYPE_GGUF_END = 43,
    DTYPE_BOOL,
    DTYPE_U8,
    DTYPE_U16,
    DTYPE_U32,
    DTYPE_U64,
    DTYPE_C64,
    DTYPE_F8_E4M3,
    DTYPE_F8_E5M2,
    DTYPE_F8_E8M0,
    DTYPE_F6_E2M3,
    DTYPE_F6_E3M2,
    DTYPE_F4,
    DTYPE_COUNT
} dtype;

typedef struct {
    const char *name;        /* "Q4_K"; NULL: no such type here */
    const char *safetensors; /* "BF16"; NULL: not in that format */
    uint32_t block_elements; /* 1 for plain types of whole bytes */
    uint32_t block_bytes;
} dtype_info;

/* NULL for numbers that are holes of the table or unknown. */
const dtype_info *dtype_get(uint32_t type);
bool dtype_by_name(str name, dtype *out);        /* ours, e.g. "q4_k", any case */
bool dtype_by_safetensors(str name, dtype *out); /* "F16" */
bool dtype_is_quantised(dtype type);
/* Bytes of a row of `n` elements; false if n is no multiple of the block or on overflow. */
bool dtype_row_bytes(dtype type, uint64_t n, uint64_t *bytes);

/* Reference decoding and encoding (quant.c): n elements, a multiple of the block. quant_encode
 * gives valid blocks by the format's plain reference method; false if the type cannot be
 * encoded. */
bool quant_decode(dtype type, const void *blocks, float *out, size_t n);
bool quant_encode(dtype type, const float *x, void *blocks, size_t n);

float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float x); /* to nearest even; overflow to infinity; NaN stays NaN */
float bf16_to_f32(uint16_t h);
uint16_t f32_to_bf16(float x); /* to nearest even; NaN quieted */

/* ---- metadata ------------------------------------------------------------------------------ */

typedef enum { META_UINT, META_INT, META_FLOAT, META_BOOL, META_STRING, META_ARRAY } meta_type;

typedef struct meta_value meta_value;
struct meta_value {
    meta_type type;
    meta_type element; /* of META_ARRAY */
    uint32_t n;        /* elements of META_ARRAY */
    union {
        uint64_t u;
        int64_t i;
        double f;
        bool b;
        str s;
        const str *strings;   /* META_ARRAY of META_STRING */
        const double *floats; /* of META_FLOAT */
        const int64_t *ints;  /* of META_UINT (up to INT64_MAX), META_INT, META_BOOL */
    };
};

/* ---- containers (container.c, gguf.c, safetensors.c) --------------------------------------- */

enum { TENSOR_DIMS = 4 };

/* Row-major as PyTorch has it: shape[0] is the slowest, the last dimension contiguous (GGUF's ne
 * reversed). */
typedef struct {
    str name;
    dtype type;
    uint32_t n_dims; /* 0 (a scalar) to 4 */
    uint64_t shape[TENSOR_DIMS];
    uint64_t n_elements;
    uint64_t n_bytes;
    uint32_t file;   /* which file of the container */
    uint64_t offset; /* of the first byte in that file */
} tensor;

typedef enum { CONTAINER_GGUF, CONTAINER_SAFETENSORS, CONTAINER_RDRR } container_kind;
typedef struct container container;

/* Opens a GGUF file (or the first of a split one: the others are found by name), or a safetensors
 * folder (config.json with model.safetensors or model.safetensors.index.json; also a single
 * .safetensors file, whose folder then holds config.json). All of formats.md C is checked here.
 * With `vocab_only` a container without tensors will do (a folder that holds just the tokenizer, a
 * GGUF of metadata). Errors: DP_E_FILE, DP_E_FORMAT, DP_E_UNSUPPORTED, DP_E_LIMIT, DP_E_MEMORY,
 * each naming file, thing, value and limit. */
container *container_open(const char *path, bool vocab_only, dp_error *err) CHECK_RESULT;
void container_close(container *c);
container_kind container_kind_of(const container *c);
const char *container_path(const container *c);
uint64_t container_bytes(const container *c); /* of all tensors */
uint32_t container_n_files(const container *c);

uint32_t container_n_tensors(const container *c);
const tensor *container_tensor(const container *c, uint32_t i);
const tensor *container_find(const container *c, const char *name); /* NULL if absent */
/* Reads bytes [offset, offset + n) of a tensor. Safe from several threads. */
bool container_read(container *c, const tensor *t, uint64_t offset, void *out, size_t n,
                    dp_error *err) CHECK_RESULT;

/* GGUF metadata; NULL for an absent key or a safetensors folder. */
uint32_t container_n_meta(const container *c);
const meta_value *container_meta_at(const container *c, uint32_t i, str *key);
const meta_value *container_meta(const container *c, const char *key);
/* Parsed JSON files of a safetensors folder: "config.json", "generation_config.json",
 * "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"; opened
 * at first use, owned by the container. NULL with err->status DP_OK if the folder has no such file;
 * NULL with an error otherwise. */
const json_value *container_json(container *c, const char *name, dp_error *err);
/* Appends another text file of that folder ("chat_template.jinja") to `out`, whose ceiling holds.
 * False with err->status DP_OK if there is no such file. */
bool container_text(const container *c, const char *name, buf *out, dp_error *err) CHECK_RESULT;

#endif
