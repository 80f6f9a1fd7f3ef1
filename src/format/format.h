/* format: model containers. Needs base, and libcrypto for SHA-256.
 *
 * A container is metadata (typed key/value pairs) and named tensors, each a shape, a type and a
 * byte range of a file. GGUF v2/v3 (also split over files), Hugging Face safetensors folders and
 * RDRR packs open to the same thing, so that no other layer knows which it was. Tensor bytes are
 * read by ranges; a model file is never held in memory. Byte formats: GGUF specification (ggml,
 * docs/gguf.md) and the safetensors format description; block formats of ggml's quantisation
 * types; RDRR as the public project of that name writes it. */
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
/* The same for a row filled up to whole blocks: ceil(n / block) blocks; false on overflow alone. */
bool dtype_padded_row_bytes(dtype type, uint64_t n, uint64_t *bytes);

/* Rows as kernels read them (device_rows.c): the same bits as in the file, in planes of 16-byte
 * entries. Bytes of such a row of `cols` columns; false for types that no kernel reads. */
bool device_row_bytes(dtype type, uint64_t cols, uint64_t *bytes);
/* n rows of dtype_padded_row_bytes to n rows of device_row_bytes; `to` and `from` are apart. */
void device_rows(dtype type, uint32_t cols, uint64_t n, const void *from, void *to);

/* Decoding (quant.c): n elements, a multiple of the block; false if the type cannot be decoded. */
bool quant_decode(dtype type, const void *blocks, float *out, size_t n);

/* Encoding (quant_encode.c): n elements, a multiple of the block; false if the type cannot be
 * encoded (quant_can_encode says so beforehand). Block types are searched: blocks come as near to
 * minimising sum importance (x - decoded)^2 as the format and a bounded search allow. `importance`
 * has one weight >= 0 per element, of any scale; NULL means all alike. Equal input gives equal
 * bytes on every machine; no state, no allocation, any number of threads at once. Bytes out of
 * block types are always finite: NaN is taken as 0, what is beyond the format as its largest value.
 * Q8_0 and Q8_K are the formats' plain method, whatever the importance. */
bool quant_encode(dtype type, const float *x, const float *importance, void *blocks, size_t n);
bool quant_can_encode(dtype type);

/* The same for a row of any length: the last block is filled up with zeros, which count for nothing
 * in the search. `out` has the bytes of `cols` rounded up to whole blocks. */
bool quant_encode_row(dtype type, const float *x, const float *importance, size_t cols, void *out);

float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float x); /* to nearest even; overflow to infinity; NaN stays NaN */
float bf16_to_f32(uint16_t h);
uint16_t f32_to_bf16(float x); /* to nearest even; NaN quieted */

/* ---- hashes (hash.c, hash_hex.c) ------------------------------------------------------------ */

/* What packs call "blake3" is a variant of it: the chunks, tree and flags of BLAKE3, whose last
 * four words are mixed into the constants instead of replacing them, and whose root is not folded.
 * Readers accept either, writers write SHA-256. */
typedef enum { HASH_SHA256, HASH_BLAKE3, HASH_BLAKE3_VARIANT } hash_kind;
enum { HASH_BYTES = 32, HASH_HEX_BYTES = 65 /* with the NUL */ };

/* A hash in the making; may be copied and dropped at any time. */
typedef struct {
    _Alignas(8) unsigned char body[2048];
} hash_state;

void hash_begin(hash_state *h, hash_kind kind);
void hash_add(hash_state *h, const void *bytes, size_t n);
void hash_end(hash_state *h, unsigned char digest[HASH_BYTES]);
/* 64 hexadecimal digits of either case and nothing else. */
bool hash_from_hex(str text, unsigned char digest[HASH_BYTES]);
void hash_to_hex(const unsigned char digest[HASH_BYTES], char text[HASH_HEX_BYTES]); /* lower */

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

/* Types of metadata values in a GGUF file. */
enum { GGUF_U8, GGUF_I8, GGUF_U16, GGUF_I16, GGUF_U32, GGUF_I32, GGUF_F32, GGUF_BOOL };
enum { GGUF_STRING = 8, GGUF_ARRAY, GGUF_U64, GGUF_I64, GGUF_F64, GGUF_TYPES };

/* Where metadata is written: key/value pairs in the order of the calls. What a call is given may go
 * when it returns. The sink keeps its first failure and drops what comes after it, so callers do
 * not ask; whoever made it does, at the end. */
typedef struct {
    void *user;
    void (*u32)(void *user, const char *key, uint32_t value);
    void (*i32)(void *user, const char *key, int32_t value);
    void (*f32)(void *user, const char *key, float value);
    void (*flag)(void *user, const char *key, bool value);
    void (*string)(void *user, const char *key, str value);
    void (*strings)(void *user, const char *key, const str *values, uint32_t n);
    void (*i32s)(void *user, const char *key, const int32_t *values, uint32_t n);
    void (*u32s)(void *user, const char *key, const uint32_t *values, uint32_t n);
    void (*f32s)(void *user, const char *key, const float *values, uint32_t n);
    void (*flags)(void *user, const char *key, const bool *values, uint32_t n);
    void (*bytes)(void *user, const char *key, const uint8_t *values, uint32_t n); /* array of u8 */
} meta_sink;

/* ---- containers (container.c, gguf.c, safetensors.c, rdrr.c) ------------------------------- */

enum { TENSOR_DIMS = 4 };

/* How the elements of a tensor lie in its bytes. Only packs have others than LAYOUT_ROWS, and rows
 * that are no whole blocks. */
typedef enum {
    LAYOUT_ROWS,    /* row by row, each filled up to whole blocks */
    LAYOUT_FLAT,    /* one run of blocks over all elements, which cross the ends of rows */
    LAYOUT_COLUMNS, /* the last two dimensions exchanged, then as LAYOUT_ROWS: the columns of the
                       shape are what lies together */
} tensor_layout;

/* A piece of a tensor's bytes. */
typedef struct {
    uint32_t file;
    uint64_t offset; /* in that file */
    uint64_t start;  /* in the tensor's bytes; spans follow one another without a gap */
    uint64_t n_bytes;
} tensor_span;

typedef struct tensor_packing tensor_packing; /* values that are no blocks of a type: packing.c */

/* Row-major as PyTorch has it: shape[0] is the slowest, the last dimension contiguous (GGUF's ne
 * reversed). The shape is that of the matrix [out, in], whatever the layout is. */
typedef struct {
    str name;
    dtype type;
    uint32_t n_dims; /* 0 (a scalar) to 4 */
    uint64_t shape[TENSOR_DIMS];
    uint64_t n_elements;
    uint64_t n_bytes;
    uint32_t file;   /* which file of the container */
    uint64_t offset; /* of the first byte in that file */

    /* Packs; zero for the others. */
    tensor_layout layout;
    uint32_t n_spans; /* 0: one piece, at file and offset */
    const tensor_span *spans;
    const tensor_packing *packing; /* NULL: blocks of `type`; else `type` is F16, what the values
                                      stand for, and container_decode alone knows the bytes */
    str role, group; /* "matmul", "layer.0"; the role is found by the name where none is given */
} tensor;

typedef enum { CONTAINER_GGUF, CONTAINER_SAFETENSORS, CONTAINER_RDRR } container_kind;
typedef struct container container;

/* Opens a GGUF file (or the first of a split one: the others are found by name), a safetensors
 * folder (config.json with model.safetensors or model.safetensors.index.json; also a single
 * .safetensors file, whose folder then holds config.json), or an RDRR pack (a folder with
 * manifest.json, or that file). All that can be checked without reading the tensors is checked
 * here; container_verify does the rest. With `vocab_only` a container without tensors will do (a
 * folder that holds just the tokenizer, a GGUF of metadata, a pack without its shards). Errors:
 * DP_E_FILE, DP_E_FORMAT, DP_E_UNSUPPORTED, DP_E_LIMIT, DP_E_MEMORY, each naming file, thing, value
 * and limit. */
container *container_open(const char *path, bool vocab_only, dp_error *err) CHECK_RESULT;
void container_close(container *c);
container_kind container_kind_of(const container *c);
const char *container_kind_name(container_kind kind); /* "gguf", "safetensors", "rdrr" */
const char *container_path(const container *c);
uint64_t container_bytes(const container *c); /* of all tensors */
uint32_t container_n_files(const container *c);

uint32_t container_n_tensors(const container *c);
const tensor *container_tensor(const container *c, uint32_t i);
const tensor *container_find(const container *c, const char *name); /* NULL if absent */
/* Reads bytes [offset, offset + n) of a tensor. Safe from several threads. */
bool container_read(container *c, const tensor *t, uint64_t offset, void *out, size_t n,
                    dp_error *err) CHECK_RESULT;
/* Hints that the range will be read soon. Of packs nothing: their hashing reads ahead. */
void container_read_ahead(const container *c, const tensor *t, uint64_t offset, uint64_t n);
/* A tensor is `tensor_rows` rows of its last dimension, leading dimensions flattened. */
uint64_t tensor_rows(const tensor *t);
/* True if the bytes can be used as rows of the tensor's type as they are, each of
 * dtype_padded_row_bytes. */
bool tensor_is_plain(const tensor *t);
/* Rows [first_row, first_row + n_rows) as f32, whatever type, layout and packing are; `out` holds
 * n_rows * shape[last]. Reads by pieces and takes at most a few MiB for them; in LAYOUT_COLUMNS
 * rows come cheapest by whole groups of 256, beginning at a multiple of 256. DP_E_UNSUPPORTED for
 * types that nothing decodes. Safe from several threads. */
bool container_decode(container *c, const tensor *t, uint64_t first_row, uint32_t n_rows,
                      float *out, dp_error *err) CHECK_RESULT;

/* GGUF metadata; NULL for an absent key or a safetensors folder. */
uint32_t container_n_meta(const container *c);
const meta_value *container_meta_at(const container *c, uint32_t i, str *key);
const meta_value *container_meta(const container *c, const char *key);
/* Parsed JSON files of a folder or pack: "config.json", "generation_config.json", "tokenizer.json",
 * "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"; opened at first use,
 * owned by the container. NULL with err->status DP_OK if the folder has no such file; NULL with an
 * error otherwise. A pack's "config.json" is the `config` object of its manifest if that has a
 * model_type, and never a file; files that the manifest lists must have the size and the hash that
 * it gives. */
const json_value *container_json(container *c, const char *name, dp_error *err);
/* Appends another text file of that folder ("chat_template.jinja") to `out`, whose ceiling holds.
 * False with err->status DP_OK if there is no such file. */
bool container_text(const container *c, const char *name, buf *out, dp_error *err) CHECK_RESULT;

/* ---- RDRR packs (rdrr.c, pack_files.c, verify.c) -------------------------------------------- */

/* NULL and an empty text for other containers. */
const json_value *container_manifest(const container *c);
str container_draft_model(const container *c); /* name of the pack that drafts for this one */

/* A file that a manifest lists. */
typedef struct {
    str name;      /* plain: no folder, no leading dot, no control character */
    bool is_shard; /* else a text file, as tokenizer.json */
    bool has_size, has_hash;
    uint64_t size;
    hash_kind kind; /* HASH_SHA256; HASH_BLAKE3: that or the variant, either counts */
    unsigned char digest[HASH_BYTES];
} pack_file;

/* For whoever fetches a pack: the files that a manifest's text lists besides itself, shards first,
 * each once; tensorsFile is among the text files. `name` is for messages. Checks what
 * container_open checks of these fields. */
typedef struct pack_listing pack_listing;
pack_listing *pack_list(str manifest, const char *name, dp_error *err) CHECK_RESULT;
void pack_list_free(pack_listing *l);
uint32_t pack_list_count(const pack_listing *l);
const pack_file *pack_list_at(const pack_listing *l, uint32_t i); /* with the listing */

typedef struct {
    uint32_t n_threads; /* 0: one for each processor, at most 8 */
    bool once;          /* each byte is hashed once, as loading does: by its piece where there are
                           hashes of pieces, else with its shard; no merkle roots */
    /* Told now and then, from one thread at a time; false stops with DP_E_CANCELLED. NULL: none. */
    bool (*progress)(void *user, uint64_t done, uint64_t total);
    void *user;
} verify_options;

typedef struct {
    uint64_t bytes; /* that were hashed; 0 for GGUF and safetensors, which have no hashes */
    uint32_t n_shards, n_pieces, n_roots, n_files; /* what was found right */
} verify_result;

/* Hashes all that the manifest has hashes of: shards, their 4 MiB pieces, merkle roots of tensors,
 * other files. The first wrong byte range is named: a piece where there are pieces, else the
 * tensor's block, else the whole shard (DP_E_FORMAT). `options` and `result` may be NULL. */
bool container_verify(container *c, const verify_options *options, verify_result *result,
                      dp_error *err) CHECK_RESULT;

/* The same on threads of its own, while the caller reads the container. verifier_finish waits,
 * frees and gives the verdict; verifier_cancel stops early and frees. The container must outlive
 * both. */
typedef struct verifier verifier;
verifier *verifier_start(container *c, const verify_options *options, dp_error *err) CHECK_RESULT;
bool verifier_finish(verifier *v, verify_result *result, dp_error *err) CHECK_RESULT;
void verifier_cancel(verifier *v); /* NULL is fine */
bool verifier_has_failed(const verifier *v); /* the verdict is there, and it is a failure */

#endif
