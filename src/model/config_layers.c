/* config_layers: what differs from layer to layer: RoPE and its scaling, windows.
 *
 * Sources: transformers' modeling_rope_utils and the layer_types of its configurations; the GGUF
 * specification's key list. */
#include "model/config_internal.h"

#include <math.h>

/* ---- RoPE ---------------------------------------------------------------------------------- */

static double *new_divisors(config_source *s, const config *c) {
    double *d = arena_new(s->arena, c->rope_dim / 2, sizeof *d, "RoPE factors", s->err);
    s->failed |= d == NULL;
    return d;
}

static bool divisor_fits(double x) {
    return x > 1e-6 && x < 1e9;
}

/* A list of [rope_dim / 2] factors in config.json. */
static const double *json_divisors(config_source *s, const config *c, const json_value *list,
                                   const char *name) {
    if (!json_is_array(list) || json_count(list) != c->rope_dim / 2) {
        config_fail(s, DP_E_FORMAT, name, "expected one factor for each pair of RoPE dimensions");
        return NULL;
    }
    double *d = new_divisors(s, c);
    for (uint32_t i = 0; d != NULL && i < c->rope_dim / 2; i++) {
        if (!json_f64(json_at(list, i), &d[i]) || !divisor_fits(d[i])) {
            config_fail(s, DP_E_FORMAT, name, "a factor is not a positive number");
            return NULL;
        }
        d[i] = (double)(float)d[i]; /* as a tensor would hold it */
    }
    return d;
}

/* The same as a tensor of a GGUF file; NULL if it has none. */
static const double *tensor_divisors(config_source *s, const config *c, const char *name) {
    for (uint32_t i = 0; s->list != NULL && i < s->list->n_ropes; i++) {
        const rope_tensor *r = &s->list->ropes[i];
        double *d = strcmp(r->name, name) == 0 ? new_divisors(s, c) : NULL;
        for (uint32_t k = 0; d != NULL && k < c->rope_dim / 2; k++) {
            d[k] = (double)r->values[k];
        }
        if (d != NULL) {
            return d;
        }
    }
    if (s->list != NULL) {
        return NULL;
    }
    const tensor *t = container_find(s->files, name);
    if (t == NULL || s->failed) {
        return NULL;
    }
    if (t->type != DTYPE_F32 || t->n_elements != c->rope_dim / 2) {
        config_fail(s, DP_E_FORMAT, name, "expected one f32 for each pair of RoPE dimensions");
        return NULL;
    }
    float x[HEAD_DIM_MAX / 2];
    double *d = new_divisors(s, c);
    if (d == NULL || !container_read(s->files, t, 0, x, c->rope_dim / 2 * sizeof *x, s->err)) {
        s->failed = true;
        return NULL;
    }
    for (uint32_t i = 0; i < c->rope_dim / 2; i++) {
        d[i] = (double)x[i];
        if (!divisor_fits(d[i])) {
            config_fail(s, DP_E_FORMAT, name, "a factor is not a positive number");
            return NULL;
        }
    }
    return d;
}

static bool set_scaling(config_source *s, rope_scaling *r, str name) {
    if (rope_scaling_by_name(name, &r->kind)) {
        return true;
    }
    s->failed = true;
    return err_set(s->err, DP_E_UNSUPPORTED, "%s: RoPE scaling '%.*s' is not supported",
                   container_path(s->files), (int)min_u64(name.size, 40), name.data);
}

/* YaRN's factor of cos and sin as transformers has it: given, or of mscale, or by the formula. */
static double json_magnitude(config_source *s, const rope_scaling *r) {
    const bool scales = r->kind == SCALING_YARN || r->kind == SCALING_LONG;
    const double given = scales ? config_switched(s, NULL, "attention_factor") : 0;
    const double m = config_switched(s, NULL, "mscale"),
                 all = config_switched(s, NULL, "mscale_all_dim");
    if (given > 0 || r->kind != SCALING_YARN || m == 0 || all == 0 || r->factor <= 1) {
        return given;
    }
    return (0.1 * m * log(r->factor) + 1) / (0.1 * all * log(r->factor) + 1);
}

/* One object of scaling parameters. */
static void read_scaling(config_source *s, const config *c, rope_scaling *r,
                         const json_value *object) {
    static const char *const known[] = {
        "rope_theta",
        "rope_type",
        "type",
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
        "beta_fast",
        "beta_slow",
        "attention_factor",
        "mscale",
        "mscale_all_dim",
        "truncate",
        "short_factor",
        "long_factor",
        "partial_rotary_factor",
        "finetuned",
    };
    for (json_iter it = json_each(object); json_next(&it);) {
        bool found = json_is_null(it.value);
        for (size_t i = 0; i < ARRAY_LEN(known) && !found; i++) {
            found = str_is(it.key, known[i]);
        }
        if (!found) {
            s->failed = true;
            err_set(s->err, DP_E_UNSUPPORTED, "%s: RoPE parameter '%.*s' is not known",
                    container_path(s->files), STR_ARG(it.key));
            return;
        }
    }
    str name = { 0 };
    const json_value *type = json_get(object, "rope_type");
    type = type != NULL ? type : json_get(object, "type");
    if (type != NULL && !json_string(type, &name)) {
        config_fail(s, DP_E_FORMAT, "rope_type", "not a string");
        return;
    }
    if (type != NULL && !set_scaling(s, r, name)) {
        return;
    }
    if (r->kind == SCALING_YARN && json_get(object, "short_factor") != NULL) {
        r->kind = SCALING_LONG; /* an older name in Phi-3's files */
    }
    const json_value *outer = s->json;
    const family *owner = s->family;
    s->json = object;
    s->family = NULL; /* its defaults are those of the fields outside */
    r->theta = config_positive(s, NULL, "rope_theta", r->theta);
    r->original_context =
        config_positive(s, NULL, "original_max_position_embeddings", r->original_context);
    const bool by_context = r->kind == SCALING_YARN || r->kind == SCALING_LONG;
    r->factor =
        config_positive(s, NULL, "factor", by_context ? c->context / r->original_context : 1);
    r->low_factor = config_positive(s, NULL, "low_freq_factor", 1);
    r->high_factor = config_positive(s, NULL, "high_freq_factor", 4);
    r->beta_fast = config_positive(s, NULL, "beta_fast", 32);
    r->beta_slow = config_positive(s, NULL, "beta_slow", 1);
    r->magnitude = json_magnitude(s, r);
    r->exact = !config_bool(s, NULL, "truncate", true);
    if (r->kind == SCALING_LONG) {
        r->short_factors = json_divisors(s, c, json_get(object, "short_factor"), "short_factor");
        r->long_factors = json_divisors(s, c, json_get(object, "long_factor"), "long_factor");
    }
    s->json = outer;
    s->family = owner;
}

static bool is_object_or_off(const json_value *v) {
    return v == NULL || json_is_null(v) || json_is_object(v);
}

/* The older spelling has rope_theta beside rope_scaling {rope_type or type, ...}; the newer one has
 * all in rope_parameters, by kind of layer where the kinds differ. */
static void read_rope_json(config_source *s, config *c) {
    rope_scaling *r = c->rope;
    const json_value *newer = json_get(s->json, "rope_parameters");
    const json_value *older = json_get(s->json, "rope_scaling");
    r[ROPE_GLOBAL].theta = config_positive(s, NULL, "rope_theta", r[ROPE_GLOBAL].theta);
    r[ROPE_LOCAL].theta = config_positive(s, NULL, "rope_local_base_freq", r[ROPE_LOCAL].theta);
    r[ROPE_GLOBAL].original_context = config_positive(s, NULL, "original_max_position_embeddings",
                                                      r[ROPE_GLOBAL].original_context);
    if (!is_object_or_off(newer) || !is_object_or_off(older)) {
        config_fail(s, DP_E_FORMAT, "rope_scaling", "not an object");
        return;
    }
    if (json_is_object(newer)) {
        const json_value *global = json_get(newer, "full_attention");
        read_scaling(s, c, &r[ROPE_GLOBAL], global != NULL ? global : newer);
        if (json_get(newer, "sliding_attention") != NULL) {
            read_scaling(s, c, &r[ROPE_LOCAL], json_get(newer, "sliding_attention"));
        }
    } else if (json_is_object(older)) {
        read_scaling(s, c, &r[ROPE_GLOBAL], older);
    }
}

static void read_rope_gguf(config_source *s, config *c) {
    rope_scaling *r = &c->rope[ROPE_GLOBAL];
    const meta_value *type = config_meta(s, "rope.scaling.type");
    r->theta = config_positive(s, "rope.freq_base", NULL, r->theta);
    c->rope[ROPE_LOCAL].theta = config_positive(s, "rope.freq_base_swa", NULL, 10000);
    if (type != NULL && type->type == META_STRING && !set_scaling(s, r, type->s)) {
        return;
    }
    r->factor = config_positive(s, "rope.scaling.factor", NULL, 1);
    if (type == NULL) { /* the old key */
        const double linear = config_positive(s, "rope.scale_linear", NULL, 1);
        if (linear != 1) {
            r->kind = SCALING_LINEAR;
            r->factor = linear;
        }
    }
    r->original_context =
        config_positive(s, "rope.scaling.original_context_length", NULL, r->original_context);
    r->beta_fast = config_positive(s, "rope.scaling.yarn_beta_fast", NULL, 32);
    r->beta_slow = config_positive(s, "rope.scaling.yarn_beta_slow", NULL, 1);
    r->exact = s->family->yarn_exact;
    const double attention = config_positive(s, "rope.scaling.attn_factor", NULL, 1) *
                             config_positive(s, "rope.scaling.yarn_attn_factor", NULL, 1);
    const double formula = r->kind == SCALING_YARN && r->factor > 1 ? 0.1 * log(r->factor) + 1 : 1;
    r->magnitude = attention * formula;
    r->short_factors = tensor_divisors(s, c, "rope_factors_short.weight");
    r->long_factors = tensor_divisors(s, c, "rope_factors_long.weight");
    if (r->short_factors != NULL && r->long_factors != NULL) { /* the type is not always said */
        r->kind = SCALING_LONG;
    }
    r->divisors = tensor_divisors(s, c, "rope_freqs.weight"); /* Llama 3.1's rule, worked out */
    if (r->kind == SCALING_LLAMA3) {
        config_fail(s, DP_E_UNSUPPORTED, "rope.scaling.type", "'llama3' is a tensor in GGUF files");
    }
}

/* Which layers have RoPE at all, and by which table. */
static void read_rope_layers(config_source *s, config *c) {
    const json_value *list = json_get(s->json, "no_rope_layers"); /* 1: the layer has RoPE */
    const uint32_t interval = s->json != NULL
                                  ? config_optional(s, NULL, "no_rope_layer_interval", LAYERS_MAX)
                                  : s->family->rope_interval;
    if (json_is_array(list) && json_count(list) != c->n_layers) {
        config_fail(s, DP_E_FORMAT, "no_rope_layers", "expected one number for each layer");
        return;
    }
    for (uint32_t i = 0; i < c->n_layers; i++) {
        bool turned = interval == 0 || (i + 1) % interval != 0;
        if (json_is_array(list)) {
            double x = 1;
            (void)json_f64(json_at(list, i), &x);
            turned = x != 0;
        }
        const bool local = s->family->local_rope && c->layer_window[i] > 0;
        c->layer_rope[i] = s->family->learned_positions || !turned ? ROPE_NONE
                           : local                                 ? ROPE_LOCAL
                                                                   : ROPE_GLOBAL;
    }
}

bool config_settle_rope(config_source *s, config *c) {
    for (int i = 0; i < ROPE_TABLES && !s->failed; i++) {
        rope_scaling *r = &c->rope[i];
        rope_settle(r);
        const char *fault = rope_scaling_fault(r);
        if (fault != NULL) {
            return config_fail(s, DP_E_FORMAT, "rope scaling", fault);
        }
        /* one list for every length: Phi's files alone have the two all the same */
        if (r->kind == SCALING_LONG &&
            !config_list_has(c->family->hf_fields, STR("original_max_position_embeddings")) &&
            memcmp(r->short_factors, r->long_factors, c->rope_dim / 2 * sizeof(double)) == 0) {
            r->kind = SCALING_NONE;
            r->divisors = r->long_factors;
        }
        double *divisors = r->kind == SCALING_LLAMA3 ? new_divisors(s, c) : NULL;
        if (divisors != NULL) {
            rope_llama3_divisors(r, c->rope_dim, divisors);
            r->divisors = divisors;
        }
    }
    return !s->failed;
}

bool config_rope(config_source *s, config *c) {
    for (int i = 0; i < ROPE_TABLES; i++) {
        c->rope[i] = (rope_scaling){ .theta = 10000,
                                     .factor = 1,
                                     .beta_fast = 32,
                                     .beta_slow = 1,
                                     .original_context = c->context };
    }
    (s->json != NULL ? read_rope_json : read_rope_gguf)(s, c);
    read_rope_layers(s, c);
    return config_settle_rope(s, c);
}

/* ---- windows ------------------------------------------------------------------------------- */

static void set_window(config_source *s, config *c, uint32_t layer, bool windowed,
                       uint32_t window) {
    if (windowed && window == 0) {
        config_fail(s, DP_E_FORMAT, "sliding_window", "missing, but a layer is said to have one");
    }
    c->layer_window[layer] = windowed ? window : 0;
}

/* A list of kinds, one a layer: "full_attention" or "sliding_attention". */
static void windows_by_type(config_source *s, config *c, const json_value *types, uint32_t window) {
    if (json_count(types) != c->n_layers) {
        config_fail(s, DP_E_FORMAT, "layer_types", "expected one for each layer");
        return;
    }
    for (uint32_t i = 0; i < c->n_layers; i++) {
        str type = { 0 };
        (void)json_string(json_at(types, i), &type);
        if (!str_is(type, "full_attention") && !str_is(type, "sliding_attention")) {
            s->failed = true;
            err_set(s->err, DP_E_UNSUPPORTED, "%s: layer_types: '%.*s' is not supported",
                    container_path(s->files), STR_ARG(type));
            return;
        }
        set_window(s, c, i, str_is(type, "sliding_attention"), window);
    }
}

static bool windowed_by_rule(const config *c, uint32_t i, uint32_t period, uint32_t first) {
    switch (c->family->window) {
    case WINDOW_ALL:
        return true;
    case WINDOW_PERIOD:
        return (i + 1) % period != 0;
    case WINDOW_SWITCHED:
        return i >= first;
    default:
        return false;
    }
}

bool config_windows(config_source *s, config *c) {
    c->layer_window = arena_new(s->arena, c->n_layers, sizeof(uint32_t), "layers", s->err);
    c->layer_rope = arena_new(s->arena, c->n_layers, sizeof(rope_kind), "layers", s->err);
    if (c->layer_window == NULL || c->layer_rope == NULL) {
        return false;
    }
    uint32_t window = config_optional(s, "attention.sliding_window", "sliding_window", CONTEXT_MAX);
    uint32_t first = 0;
    if (s->json != NULL && s->family->window == WINDOW_SWITCHED) {
        window = config_bool(s, NULL, "use_sliding_window", false) ? window : 0;
        first = config_optional(s, NULL, "max_window_layers", LAYERS_MAX);
    }
    const meta_value *pattern =
        s->json == NULL ? config_meta(s, "attention.sliding_window_pattern") : NULL;
    const json_value *types = json_get(s->json, "layer_types");
    if (types != NULL && !json_is_null(types)) {
        if (!json_is_array(types)) {
            return config_fail(s, DP_E_FORMAT, "layer_types", "not a list");
        }
        windows_by_type(s, c, types, window);
        return !s->failed;
    }
    if (pattern != NULL && pattern->type == META_ARRAY && pattern->element == META_BOOL) {
        if (pattern->n != c->n_layers) {
            return config_fail(s, DP_E_FORMAT, "attention.sliding_window_pattern",
                               "expected one for each layer");
        }
        for (uint32_t i = 0; i < c->n_layers; i++) {
            set_window(s, c, i, pattern->ints[i] != 0, window);
        }
        return !s->failed;
    }
    if (pattern != NULL && s->family->period == 0) {
        return config_fail(s, DP_E_UNSUPPORTED, "attention.sliding_window_pattern",
                           "not known of this architecture");
    }
    const uint32_t period =
        s->family->period == 0
            ? 1
            : config_count(s, "attention.sliding_window_pattern", "sliding_window_pattern",
                           LAYERS_MAX, s->family->period);
    for (uint32_t i = 0; i < c->n_layers; i++) {
        set_window(s, c, i, window > 0 && windowed_by_rule(c, i, period, first), window);
    }
    return !s->failed;
}
