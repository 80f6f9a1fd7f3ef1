/* config_internal: what the config*.c files share. */
#ifndef MODEL_CONFIG_INTERNAL_H
#define MODEL_CONFIG_INTERNAL_H

#include "model/model.h"

/* Metadata as a GGUF file would hold it, and its tables of RoPE. */
enum { KEY_LIST_MAX = 64 };
typedef struct {
    uint32_t n;
    const char *keys[KEY_LIST_MAX];
    meta_value values[KEY_LIST_MAX];
    uint32_t n_ropes;
    rope_tensor ropes[ROPE_TENSORS_MAX];
} key_list;

/* Where a description is read from. */
typedef struct {
    container *files;
    const family *family;
    const char *prefix;   /* GGUF: the architecture */
    const key_list *list; /* NULL, or read instead of the metadata of `files` */
    const json_value *json;
    bool vocab_only;
    arena *arena;
    dp_error *err;
    bool failed;
} config_source;

/* Names the thing and the problem, unless something failed before. Always false. */
bool config_fail(config_source *s, dp_status status, const char *what, const char *problem);
/* The key/value pairs of `list` or of the files. */
uint32_t config_n_meta(const config_source *s);
const meta_value *config_meta_at(const config_source *s, uint32_t i, str *key);
/* NULL if absent: by the whole key; */
const meta_value *config_meta_named(const config_source *s, const char *name);
/* by what stands below the architecture's. */
const meta_value *config_meta(const config_source *s, const char *key);
/* A field of config.json under the family's name for it; NULL if absent. */
const json_value *config_field(const config_source *s, const char *field);

/* All take `gguf`, a key below the architecture, and `hf`, a field of config.json; NULL skips that
 * spelling. A field that config.json leaves out has the family's default, if there is one. */
bool config_number(config_source *s, const char *gguf, const char *hf, double *out);
/* In [1, limit]; absent: `fallback`, and an error if that is 0. */
uint32_t config_count(config_source *s, const char *gguf, const char *hf, uint32_t limit,
                      uint32_t fallback);
/* The same where absent and 0 mean 0. */
uint32_t config_optional(config_source *s, const char *gguf, const char *hf, uint32_t limit);
/* Finite and above 0. */
double config_positive(config_source *s, const char *gguf, const char *hf, double fallback);
/* The same where absent, 0 and null mean "off": 0. */
double config_switched(config_source *s, const char *gguf, const char *hf);
bool config_bool(config_source *s, const char *gguf, const char *hf, bool fallback);

/* Is `word` one of the words of `list`, which are set apart by single spaces? */
bool config_list_has(const char *list, str word);

/* From `list` or a GGUF file, from `json`, from a pack's manifest (config_rdrr.c). */
bool config_from_gguf(config_source *s, config *c);
bool config_from_json(config_source *s, config *c);
bool config_from_pack(config_source *s, config *c);
/* null, false, 0, an empty text, list or object. */
bool config_is_off(const json_value *v);
/* Sizes that do not fit each other or that no kernel takes are refused. */
bool config_check_shapes(config_source *s, const config *c);
/* NULL, or what differs between two descriptions, as a user would call it: of that which the pass
 * goes by, except the vocabulary's size. */
const char *config_difference(const config *a, const config *b);

/* BIAS_... of the matrices of layer 0 that have one. */
uint32_t config_biases(const config *c, const container *source);
/* Is the embedding the output matrix too? */
bool config_is_tied(const config *c, const container *source);
/* "key": [factors], as single precision has them. */
void config_add_divisors(buf *b, const char *key, const double *divisors, uint32_t n);
/* n with 1 / sqrt(n) = x in single precision, a whole one if there is. */
double config_query_scalar(float x);
/* The f32 s with 1 / s = x in single precision. */
double config_inverse(float x);

/* layer_window, and layer_rope with the scaling of both tables, of a description whose shapes are
 * known (config_layers.c). */
bool config_windows(config_source *s, config *c);
bool config_rope(config_source *s, config *c);
/* The part of config_rope that comes after reading: checks the scaling, works it out. */
bool config_settle_rope(config_source *s, config *c);

#endif
