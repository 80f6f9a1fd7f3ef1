/* format_internal: the container's body and what its readers share. */
#ifndef FORMAT_FORMAT_INTERNAL_H
#define FORMAT_FORMAT_INTERNAL_H

#include "format/format.h"

#include <pthread.h>

/* Ceilings of what a file may make us hold. */
enum {
    PATH_BYTES_MAX = 4096,
    FILES_MAX = 512,                       /* open files of one container, but for packs */
    SHARDS_MAX = 1 << 16,                  /* of one pack; 700 GB by 64 MiB are 10,431 */
    SHARDS_OPEN = 64,                      /* files of a pack that are held open */
    PACK_TEXT_FILES_MAX = 256,             /* files of a pack that are no shards */
    MANIFEST_BYTES_MAX = 64 * 1024 * 1024, /* also of tensorsFile; 11 MB of piece hashes then */
    HASHED_BLOCK_MIN = 4096,               /* bytes of a piece, of a leaf of a merkle tree */
    SPANS_MAX = 1 << 22,                   /* of all tensors of a pack */
    TENSORS_MAX = 1 << 20,                 /* of one container */
    META_MAX = 1 << 20,                    /* metadata entries of a GGUF file */
    META_ARRAY_MAX = 1 << 24,              /* elements of one metadata array */
    GGUF_HEADER_MAX = 256 * 1024 * 1024,   /* bytes in front of the tensor data */
    GGUF_NAME_MAX = 63,                    /* bytes of a tensor's name: the format's limit */
    GGUF_ALIGNMENT_MAX = 1024 * 1024,      /* bytes */
    SAFETENSORS_HEADER_MAX = 100 * 1000 * 1000, /* bytes, the format's own limit */
};

typedef struct {
    str key;
    meta_value value;
} meta_entry;

/* A JSON file of a folder, parsed at first use. */
typedef struct {
    char *name;
    json *doc;
} json_file;

/* Values that are no blocks of a type. Codes are packed low bits first. */
typedef enum {
    PACKING_W4A16, /* rows of 4-bit codes, 8 is zero; one scale for 32 columns, in a tensor */
    PACKING_WHOLE, /* codes run over all elements; one scale and one zero for all */
    PACKING_ROWS,  /* rows of codes, or columns in LAYOUT_COLUMNS; one f32 scale for a row */
} packing_kind;

struct tensor_packing {
    packing_kind kind;
    uint32_t bits;               /* of a code: 2, 4 or 8 */
    bool is_signed;              /* two's complement */
    int64_t zero;                /* subtracted from a code */
    double scale;                /* PACKING_WHOLE; else multiplies the stored scales */
    const tensor *scales;        /* PACKING_W4A16: [rows, ceil(cols / 32)] */
    str scales_name, shape_name; /* of the companions; empty: none */
    tensor_span row_scales;      /* PACKING_ROWS */
};

/* What a manifest says of files. The names lie in `memory`. */
struct pack_listing {
    arena memory;
    pack_file *files; /* shards first */
    uint32_t n_files, n_shards;
    str tensors_file;                    /* empty: the tensors are in the manifest */
    str tokenizer_json, tokenizer_model; /* empty: not said */
    uint64_t piece_bytes;                /* 0: no hashes of pieces */
    uint64_t *first_piece;               /* [n_shards + 1], into pieces */
    unsigned char *pieces;               /* [first_piece[n_shards]][HASH_BYTES] */
};

typedef struct {
    const tensor *of;
    unsigned char digest[HASH_BYTES];
} wanted_root;

typedef struct {
    file *f;
    uint32_t shard, users;
    uint64_t used; /* when, counted in uses */
} shard_handle;

typedef struct {
    json *manifest;
    pack_listing listing;
    char *real_folder, *blobs; /* where its files may lie in the end; blobs may be NULL */
    tensor *hidden;            /* companions: scales and shapes of other tensors */
    uint32_t n_hidden;
    map *hidden_names;
    uint64_t n_spans;
    uint64_t merkle_bytes; /* of a leaf */
    wanted_root *roots;
    uint32_t n_roots;
    pthread_mutex_t lock; /* of what follows */
    shard_handle open[SHARDS_OPEN];
    uint64_t uses;
} pack;

struct container {
    container_kind kind;
    char *path;   /* as the caller gave it */
    char *folder; /* where the JSON files lie; NULL: none */
    file *files[FILES_MAX];
    uint32_t n_files;
    tensor *tensors;
    uint32_t n_tensors, tensors_max;
    map *tensor_names; /* name to index */
    uint64_t bytes;    /* of all tensors */
    arena memory;      /* names and paths */

    /* GGUF: metadata of the (first) file, strings are views into `header`. */
    char *header;
    meta_entry *meta;
    uint32_t n_meta;
    map *meta_keys;    /* key to index */
    arena meta_memory; /* of `meta` and its arrays */

    /* safetensors */
    json_file *json_files;
    uint32_t n_json_files;

    pack *pack; /* RDRR; NULL: another kind */
};

/* Opens a file for the container; *index is its number there. */
file *container_add_file(container *c, const char *path, uint32_t *index, dp_error *err);

/* Takes a tensor whose name, n_dims, shape, type, file and offset are set: checks name, shape and
 * that its bytes lie inside the file, computes n_elements and n_bytes, refuses a name that is there
 * already. The name is copied. */
bool container_add_tensor(container *c, const tensor *t, dp_error *err);

/* Refuses tensors of one file, [first, n_tensors), whose bytes overlap; sorts them by offset if
 * `no_holes` and demands that they cover [start, end) without a gap. */
bool container_check_layout(container *c, uint32_t first, bool no_holes, uint64_t start,
                            uint64_t end, dp_error *err);

/* Takes a tensor that is checked but for its name, which must be new and is copied. */
bool container_put_tensor(container *c, const tensor *t, const char *path, dp_error *err);

/* Sets n_elements from the shape; `path` is for the message. */
bool count_elements(tensor *t, const char *path, dp_error *err);
/* The shape as "[2, 3]". */
enum { SHAPE_TEXT_BYTES = 128 };
const char *shape_text(uint32_t n_dims, const uint64_t *shape, char text[SHAPE_TEXT_BYTES]);

/* Forgets all tensors: for a container of a vocabulary whose weights are not there. */
void container_drop_tensors(container *c);

/* Fill a container whose kind, path and folder are set. */
bool gguf_open(container *c, const char *path, bool vocab_only, dp_error *err);
bool safetensors_open_file(container *c, const char *path, dp_error *err);
bool safetensors_open_folder(container *c, bool vocab_only, dp_error *err);
bool rdrr_open(container *c, bool vocab_only, dp_error *err);
void rdrr_close(container *c);

/* ---- packs: files (pack_files.c) ----------------------------------------------------------- */

/* Zeroed `l`; frees nothing on failure, listing_free does. */
bool listing_read(pack_listing *l, const json_value *manifest, const char *path, dp_error *err);
void listing_free(pack_listing *l);
const pack_file *listing_find(const pack_listing *l, str name); /* among the text files */
/* A file's name alone: no folder, nothing hidden, nothing unprintable. */
bool is_plain_name(str name);

/* Where a pack's file is. False with err->status DP_OK if there is none; an error if the name is
 * not plain or the file lies outside the pack (a snapshot of the Hugging Face cache may link into
 * its own model's blobs). */
bool pack_find_file(const container *c, const char *name, char path[PATH_BYTES_MAX], dp_error *err);
/* Whole text file, of the size and with the hash that the manifest gives; initialises `out`. False
 * with err->status DP_OK if the manifest does not list it and it is not there. */
bool pack_read_text(const container *c, const char *name, size_t ceiling, buf *out, dp_error *err);
/* Size of a shard's file is what the manifest says. *missing, may be NULL: it is not there, which
 * then is no error. */
bool pack_check_shard(const container *c, uint32_t shard, bool *missing, dp_error *err);
/* Bytes of a shard; any thread. */
bool pack_read(container *c, uint32_t shard, uint64_t offset, void *out, size_t n, dp_error *err);

/* ---- packs: tensors (rdrr_tensor.c) -------------------------------------------------------- */

/* What a manifest says for tensors that do not say it themselves. */
typedef struct {
    bool has_layout; /* quantizationInfo.layout, for blocks */
    tensor_layout layout;
    bool columns; /* matrices of plain types are transposed */
} pack_defaults;

bool layout_by_name(str name, tensor_layout *out);
/* Reads an entry of the tensor map into *t (all but companions' addresses), memory from the
 * container. */
bool read_pack_tensor(container *c, const pack_defaults *d, str name, const json_value *v,
                      tensor *t, dp_error *err);

#endif
