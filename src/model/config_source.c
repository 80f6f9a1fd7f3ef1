/* config_source: numbers out of GGUF metadata or config.json, checked as they are read.
 *
 * The first failure of a source sticks: its message is kept and later reads give their fallbacks,
 * so that a description is read field by field and asked once. */
#include "model/config_internal.h"

#include <math.h>
#include <stdio.h>

bool config_fail(config_source *s, dp_status status, const char *what, const char *problem) {
    if (s->failed) {
        return false; /* the first one says more */
    }
    s->failed = true;
    return err_set(s->err, status, "%s: %s: %s", container_path(s->files), what, problem);
}

uint32_t config_n_meta(const config_source *s) {
    return s->list != NULL ? s->list->n : container_n_meta(s->files);
}

const meta_value *config_meta_at(const config_source *s, uint32_t i, str *key) {
    if (s->list == NULL) {
        return container_meta_at(s->files, i, key);
    }
    *key = str_of(s->list->keys[i]);
    return &s->list->values[i];
}

const meta_value *config_meta_named(const config_source *s, const char *name) {
    if (s->list == NULL) {
        return container_meta(s->files, name);
    }
    for (uint32_t i = 0; i < s->list->n; i++) {
        if (strcmp(s->list->keys[i], name) == 0) {
            return &s->list->values[i];
        }
    }
    return NULL;
}

const meta_value *config_meta(const config_source *s, const char *key) {
    char full[160];
    snprintf(full, sizeof full, "%s.%s", s->prefix, key);
    return config_meta_named(s, full);
}

bool config_list_has(const char *list, str word) {
    for (const char *at = list; *at != '\0';) {
        const size_t n = strcspn(at, " ");
        if (n == word.size && memcmp(at, word.data, n) == 0) {
            return true;
        }
        at += n + (at[n] == ' ');
    }
    return false;
}

/* A field of config.json under the family's name for it; NULL if absent. */
const json_value *config_field(const config_source *s, const char *field) {
    return json_get(s->json, s->family != NULL ? family_field(s->family, field) : field);
}

static bool gguf_number(config_source *s, const char *key, const meta_value *v, double *out) {
    if (v->type == META_ARRAY && v->n > 0 &&
        (v->element == META_UINT || v->element == META_INT)) { /* per layer: only if all agree */
        for (uint32_t i = 1; i < v->n; i++) {
            if (v->ints[i] != v->ints[0]) {
                return config_fail(s, DP_E_UNSUPPORTED, key, "differs from layer to layer");
            }
        }
        *out = (double)v->ints[0];
        return true;
    }
    switch (v->type) {
    case META_UINT:
        *out = (double)v->u;
        return true;
    case META_INT:
        *out = (double)v->i;
        return true;
    case META_FLOAT:
        *out = v->f;
        return true;
    default:
        return config_fail(s, DP_E_FORMAT, key, "not a number");
    }
}

/* A number of either spelling: `gguf` below the architecture, `hf` in config.json or, if that
 * leaves it out, the family's default for it. NULL skips one. */
bool config_number(config_source *s, const char *gguf, const char *hf, double *out) {
    if (s->json != NULL) {
        const json_value *v = hf != NULL ? config_field(s, hf) : NULL;
        if (v == NULL) {
            return hf != NULL && s->family != NULL && family_default(s->family, hf, out);
        }
        return !json_is_null(v) &&
               (json_f64(v, out) || config_fail(s, DP_E_FORMAT, hf, "not a number"));
    }
    const meta_value *v = gguf != NULL ? config_meta(s, gguf) : NULL;
    return v != NULL && gguf_number(s, gguf, v, out);
}

/* A count in [1, limit]; absent: `fallback`, and an error if that is 0. */
uint32_t config_count(config_source *s, const char *gguf, const char *hf, uint32_t limit,
                      uint32_t fallback) {
    double x = 0;
    const char *name = s->json != NULL ? hf : gguf;
    if (!config_number(s, gguf, hf, &x)) {
        if (fallback == 0 && !s->vocab_only) {
            config_fail(s, DP_E_FORMAT, name, "missing");
        }
        return fallback;
    }
    if (!(x >= 1 && x <= limit) || x != floor(x)) {
        s->failed = true;
        err_set(s->err, DP_E_FORMAT, "%s: %s: %g is not a whole number from 1 to %u",
                container_path(s->files), name, x, limit);
        return fallback;
    }
    return (uint32_t)x;
}

/* A count that may be absent or 0: then 0. */
uint32_t config_optional(config_source *s, const char *gguf, const char *hf, uint32_t limit) {
    double x = 0;
    return config_number(s, gguf, hf, &x) && x != 0 ? config_count(s, gguf, hf, limit, 1) : 0;
}

/* A finite number above 0. */
double config_positive(config_source *s, const char *gguf, const char *hf, double fallback) {
    double x = fallback;
    if (!config_number(s, gguf, hf, &x)) {
        return fallback;
    }
    if (!(x > 0 && x < 1e30)) {
        s->failed = true;
        err_set(s->err, DP_E_FORMAT, "%s: %s: %g is not a positive number",
                container_path(s->files), s->json != NULL ? hf : gguf, x);
        return fallback;
    }
    return x;
}

/* The same where 0 and null mean "off". */
double config_switched(config_source *s, const char *gguf, const char *hf) {
    double x = 0;
    return config_number(s, gguf, hf, &x) && x != 0 ? config_positive(s, gguf, hf, 0) : 0;
}

bool config_bool(config_source *s, const char *gguf, const char *hf, bool fallback) {
    bool b = fallback;
    const meta_value *meta = s->json == NULL && gguf != NULL ? config_meta(s, gguf) : NULL;
    if (s->json != NULL) {
        const json_value *v = config_field(s, hf);
        if (v != NULL && !json_is_null(v) && !json_bool(v, &b)) {
            config_fail(s, DP_E_FORMAT, hf, "not true or false");
        }
    } else if (meta != NULL && meta->type == META_BOOL) {
        b = meta->b;
    }
    return b;
}
