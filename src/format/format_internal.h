/* format_internal: the container's body and what its readers share. */
#ifndef FORMAT_FORMAT_INTERNAL_H
#define FORMAT_FORMAT_INTERNAL_H

#include "format/format.h"

/* Ceilings of what a file may make us hold. */
enum {
    PATH_BYTES_MAX = 4096,
    FILES_MAX = 512,                            /* open files of one container */
    TENSORS_MAX = 1 << 20,                      /* of one container */
    META_MAX = 1 << 20,                         /* metadata entries of a GGUF file */
    META_ARRAY_MAX = 1 << 24,                   /* elements of one metadata array */
    GGUF_HEADER_MAX = 256 * 1024 * 1024,        /* bytes in front of the tensor data */
    GGUF_NAME_MAX = 63,                         /* bytes of a tensor's name: the format's limit */
    GGUF_ALIGNMENT_MAX = 1024 * 1024,           /* bytes */
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

/* Forgets all tensors: for a container of a vocabulary whose weights are not there. */
void container_drop_tensors(container *c);

/* Fill a container whose kind, path and folder are set. */
bool gguf_open(container *c, const char *path, bool vocab_only, dp_error *err);
bool safetensors_open_file(container *c, const char *path, dp_error *err);
bool safetensors_open_folder(container *c, bool vocab_only, dp_error *err);

#endif
