/* config_internal: what the config*.c files share. */
#ifndef MODEL_CONFIG_INTERNAL_H
#define MODEL_CONFIG_INTERNAL_H

#include "model/model.h"

/* Where a description is read from. */
typedef struct {
    container *files;
    const family *family;
    const char *prefix; /* GGUF: the architecture */
    const json_value *json;
    bool vocab_only;
    arena *arena;
    dp_error *err;
    bool failed;
} config_source;

/* Names the thing and the problem, unless something failed before. Always false. */
bool config_fail(config_source *s, dp_status status, const char *what, const char *problem);
/* A GGUF key below the architecture's; NULL if absent. */
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

/* layer_window, and layer_rope with the scaling of both tables, of a description whose shapes are
 * known (config_layers.c). */
bool config_windows(config_source *s, config *c);
bool config_rope(config_source *s, config *c);

#endif
