/* config: the description of a model, out of GGUF metadata or a Hugging Face config.json.
 *
 * Both spellings end in the same struct; which switches a family has is in family.c, what scaled
 * RoPE means in rope.c. What would change the mathematics and is not known is refused by name: a
 * field of config.json, or a key below the architecture's, that is neither known nor off. Sources:
 * the GGUF specification's key list; transformers' configuration classes. */
#include "model/model.h"

#include <math.h>
#include <stdio.h>

/* ---- reading numbers from either kind of metadata ------------------------------------------ */

typedef struct {
    container *files;
    const family *family;
    const char *prefix; /* GGUF: the architecture */
    const json_value *json;
    bool vocab_only;
    arena *arena;
    dp_error *err;
    bool failed;
} source;

static bool source_fail(source *s, dp_status status, const char *what, const char *problem) {
    if (s->failed) {
        return false; /* the first one says more */
    }
    s->failed = true;
    return err_set(s->err, status, "%s: %s: %s", container_path(s->files), what, problem);
}

static const meta_value *gguf_value(const source *s, const char *key) {
    char full[160];
    snprintf(full, sizeof full, "%s.%s", s->prefix, key);
    return container_meta(s->files, full);
}

/* A field of config.json under the family's name for it; NULL if absent. */
static const json_value *json_field(const source *s, const char *field) {
    return json_get(s->json, s->family != NULL ? family_field(s->family, field) : field);
}

static bool gguf_number(source *s, const char *key, const meta_value *v, double *out) {
    if (v->type == META_ARRAY && v->n > 0 &&
        (v->element == META_UINT || v->element == META_INT)) { /* per layer: only if all agree */
        for (uint32_t i = 1; i < v->n; i++) {
            if (v->ints[i] != v->ints[0]) {
                return source_fail(s, DP_E_UNSUPPORTED, key, "differs from layer to layer");
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
        return source_fail(s, DP_E_FORMAT, key, "not a number");
    }
}

/* A number of either spelling: `gguf` below the architecture, `hf` in config.json or, if that
 * leaves it out, the family's default for it. NULL skips one. */
static bool read_number(source *s, const char *gguf, const char *hf, double *out) {
    if (s->json != NULL) {
        const json_value *v = hf != NULL ? json_field(s, hf) : NULL;
        if (v == NULL) {
            return hf != NULL && s->family != NULL && family_default(s->family, hf, out);
        }
        return !json_is_null(v) &&
               (json_f64(v, out) || source_fail(s, DP_E_FORMAT, hf, "not a number"));
    }
    const meta_value *v = gguf != NULL ? gguf_value(s, gguf) : NULL;
    return v != NULL && gguf_number(s, gguf, v, out);
}

/* A count in [1, limit]; absent: `fallback`, and an error if that is 0. */
static uint32_t read_count(source *s, const char *gguf, const char *hf, uint32_t limit,
                           uint32_t fallback) {
    double x = 0;
    const char *name = s->json != NULL ? hf : gguf;
    if (!read_number(s, gguf, hf, &x)) {
        if (fallback == 0 && !s->vocab_only) {
            source_fail(s, DP_E_FORMAT, name, "missing");
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
static uint32_t read_optional(source *s, const char *gguf, const char *hf, uint32_t limit) {
    double x = 0;
    return read_number(s, gguf, hf, &x) && x != 0 ? read_count(s, gguf, hf, limit, 1) : 0;
}

/* A finite number above 0. */
static double read_positive(source *s, const char *gguf, const char *hf, double fallback) {
    double x = fallback;
    if (!read_number(s, gguf, hf, &x)) {
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
static double read_switched(source *s, const char *gguf, const char *hf) {
    double x = 0;
    return read_number(s, gguf, hf, &x) && x != 0 ? read_positive(s, gguf, hf, 0) : 0;
}

static bool read_flag(source *s, const char *gguf, const char *hf, bool fallback) {
    bool b = fallback;
    const meta_value *v = s->json == NULL ? gguf_value(s, gguf) : NULL;
    if (s->json != NULL) {
        (void)json_bool(json_field(s, hf), &b);
    } else if (v != NULL && v->type == META_BOOL) {
        b = v->b;
    }
    return b;
}

/* ---- RoPE ---------------------------------------------------------------------------------- */

static double *new_divisors(source *s, const config *c) {
    double *d = arena_new(s->arena, c->rope_dim / 2, sizeof *d, "RoPE factors", s->err);
    s->failed |= d == NULL;
    return d;
}

static bool divisor_fits(double x) {
    return x > 1e-6 && x < 1e9;
}

/* A list of [rope_dim / 2] factors in config.json. */
static const double *json_divisors(source *s, const config *c, const json_value *list,
                                   const char *name) {
    if (!json_is_array(list) || json_count(list) != c->rope_dim / 2) {
        source_fail(s, DP_E_FORMAT, name, "expected one factor for each pair of RoPE dimensions");
        return NULL;
    }
    double *d = new_divisors(s, c);
    for (uint32_t i = 0; d != NULL && i < c->rope_dim / 2; i++) {
        if (!json_f64(json_at(list, i), &d[i]) || !divisor_fits(d[i])) {
            source_fail(s, DP_E_FORMAT, name, "a factor is not a positive number");
            return NULL;
        }
    }
    return d;
}

/* The same as a tensor of a GGUF file; NULL if it has none. */
static const double *tensor_divisors(source *s, const config *c, const char *name) {
    const tensor *t = container_find(s->files, name);
    if (t == NULL || s->failed) {
        return NULL;
    }
    if (t->type != DTYPE_F32 || t->n_elements != c->rope_dim / 2) {
        source_fail(s, DP_E_FORMAT, name, "expected one f32 for each pair of RoPE dimensions");
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
            source_fail(s, DP_E_FORMAT, name, "a factor is not a positive number");
            return NULL;
        }
    }
    return d;
}

static bool set_scaling(source *s, rope_scaling *r, str name) {
    if (rope_scaling_by_name(name, &r->kind)) {
        return true;
    }
    s->failed = true;
    return err_set(s->err, DP_E_UNSUPPORTED, "%s: RoPE scaling '%.*s' is not supported",
                   container_path(s->files), (int)min_u64(name.size, 40), name.data);
}

/* YaRN's factor of cos and sin as transformers has it: given, or of mscale, or by the formula. */
static double json_magnitude(source *s, const rope_scaling *r) {
    const double given = read_switched(s, NULL, "attention_factor");
    const double m = read_switched(s, NULL, "mscale"), all = read_switched(s, NULL, "mscale_all_dim");
    if (given > 0 || r->kind != SCALING_YARN || m == 0 || all == 0 || r->factor <= 1) {
        return given;
    }
    return (0.1 * m * log(r->factor) + 1) / (0.1 * all * log(r->factor) + 1);
}

/* One object of scaling parameters. */
static void read_scaling(source *s, const config *c, rope_scaling *r, const json_value *object) {
    static const char *const known[] = {
        "rope_theta", "rope_type", "type", "factor", "low_freq_factor", "high_freq_factor",
        "original_max_position_embeddings", "beta_fast", "beta_slow", "attention_factor", "mscale",
        "mscale_all_dim", "truncate", "short_factor", "long_factor", "partial_rotary_factor",
        "finetuned", "full_attention", "sliding_attention",
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
    if ((json_string(json_get(object, "rope_type"), &name) ||
         json_string(json_get(object, "type"), &name)) &&
        !set_scaling(s, r, name)) {
        return;
    }
    const json_value *outer = s->json;
    const family *owner = s->family;
    s->json = object;
    s->family = NULL; /* its defaults are those of the fields outside */
    r->theta = read_positive(s, NULL, "rope_theta", r->theta);
    r->original_context =
        read_positive(s, NULL, "original_max_position_embeddings", r->original_context);
    const bool by_context = r->kind == SCALING_YARN || r->kind == SCALING_LONG;
    r->factor = read_positive(s, NULL, "factor",
                              by_context ? c->context / r->original_context : 1);
    r->low_factor = read_positive(s, NULL, "low_freq_factor", 1);
    r->high_factor = read_positive(s, NULL, "high_freq_factor", 4);
    r->beta_fast = read_positive(s, NULL, "beta_fast", 32);
    r->beta_slow = read_positive(s, NULL, "beta_slow", 1);
    r->magnitude = json_magnitude(s, r);
    r->exact = !read_flag(s, NULL, "truncate", true);
    if (r->kind == SCALING_LONG) {
        r->short_factors = json_divisors(s, c, json_get(object, "short_factor"), "short_factor");
        r->long_factors = json_divisors(s, c, json_get(object, "long_factor"), "long_factor");
    }
    s->json = outer;
    s->family = owner;
}

/* The older spelling has rope_theta beside rope_scaling {rope_type or type, ...}; the newer one has
 * all in rope_parameters, by kind of layer where the kinds differ. */
static void read_rope_json(source *s, config *c) {
    rope_scaling *r = c->rope;
    const json_value *newer = json_get(s->json, "rope_parameters");
    const json_value *older = json_get(s->json, "rope_scaling");
    r[ROPE_GLOBAL].theta = read_positive(s, NULL, "rope_theta", r[ROPE_GLOBAL].theta);
    r[ROPE_LOCAL].theta = read_positive(s, NULL, "rope_local_base_freq", r[ROPE_LOCAL].theta);
    r[ROPE_GLOBAL].original_context = read_positive(
        s, NULL, "original_max_position_embeddings", r[ROPE_GLOBAL].original_context);
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

static void read_rope_gguf(source *s, config *c) {
    rope_scaling *r = &c->rope[ROPE_GLOBAL];
    const meta_value *type = gguf_value(s, "rope.scaling.type");
    r->theta = read_positive(s, "rope.freq_base", NULL, r->theta);
    c->rope[ROPE_LOCAL].theta = read_positive(s, "rope.freq_base_swa", NULL, 10000);
    if (type != NULL && type->type == META_STRING && !set_scaling(s, r, type->s)) {
        return;
    }
    r->factor = read_positive(s, "rope.scaling.factor", NULL, 1);
    if (type == NULL) { /* the old key */
        const double linear = read_positive(s, "rope.scale_linear", NULL, 1);
        if (linear != 1) {
            r->kind = SCALING_LINEAR;
            r->factor = linear;
        }
    }
    r->original_context =
        read_positive(s, "rope.scaling.original_context_length", NULL, r->original_context);
    r->beta_fast = read_positive(s, "rope.scaling.yarn_beta_fast", NULL, 32);
    r->beta_slow = read_positive(s, "rope.scaling.yarn_beta_slow", NULL, 1);
    r->exact = s->family->yarn_exact;
    const double attention = read_positive(s, "rope.scaling.attn_factor", NULL, 1) *
                             read_positive(s, "rope.scaling.yarn_attn_factor", NULL, 1);
    const double formula =
        r->kind == SCALING_YARN && r->factor > 1 ? 0.1 * log(r->factor) + 1 : 1;
    r->magnitude = attention * formula;
    r->short_factors = tensor_divisors(s, c, "rope_factors_short.weight");
    r->long_factors = tensor_divisors(s, c, "rope_factors_long.weight");
    if (r->short_factors != NULL && r->long_factors != NULL) { /* the type is not always said */
        r->kind = SCALING_LONG;
    }
    r->divisors = tensor_divisors(s, c, "rope_freqs.weight"); /* Llama 3.1's rule, worked out */
}

/* Which layers have RoPE at all, and by which table. */
static void read_rope_layers(source *s, config *c) {
    const json_value *list = json_get(s->json, "no_rope_layers"); /* 1: the layer has RoPE */
    const uint32_t interval =
        s->json != NULL ? read_optional(s, NULL, "no_rope_layer_interval", LAYERS_MAX)
                        : s->family->rope_interval;
    if (json_is_array(list) && json_count(list) != c->n_layers) {
        source_fail(s, DP_E_FORMAT, "no_rope_layers", "expected one number for each layer");
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

static bool read_rope(source *s, config *c) {
    double theta = 10000;
    if (s->json == NULL) {
        theta = read_positive(s, "rope.freq_base", NULL, theta);
    }
    for (int i = 0; i < ROPE_TABLES; i++) {
        c->rope[i] = (rope_scaling){ .theta = theta,
                                     .factor = 1,
                                     .beta_fast = 32,
                                     .beta_slow = 1,
                                     .original_context = c->context };
    }
    (s->json != NULL ? read_rope_json : read_rope_gguf)(s, c);
    read_rope_layers(s, c);
    for (int i = 0; i < ROPE_TABLES && !s->failed; i++) {
        const char *fault = rope_scaling_fault(&c->rope[i]);
        if (fault != NULL) {
            return source_fail(s, DP_E_FORMAT, "rope scaling", fault);
        }
    }
    return !s->failed;
}

/* ---- windows ------------------------------------------------------------------------------- */

static void set_window(source *s, config *c, uint32_t layer, bool windowed, uint32_t window) {
    if (windowed && window == 0) {
        source_fail(s, DP_E_FORMAT, "sliding_window", "missing, but a layer is said to have one");
    }
    c->layer_window[layer] = windowed ? window : 0;
}

/* A list of kinds, one a layer: "full_attention" or "sliding_attention". */
static void windows_by_type(source *s, config *c, const json_value *types, uint32_t window) {
    if (json_count(types) != c->n_layers) {
        source_fail(s, DP_E_FORMAT, "layer_types", "expected one for each layer");
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

static bool read_windows(source *s, config *c) {
    c->layer_window = arena_new(s->arena, c->n_layers, sizeof(uint32_t), "layers", s->err);
    c->layer_rope = arena_new(s->arena, c->n_layers, sizeof(rope_kind), "layers", s->err);
    if (c->layer_window == NULL || c->layer_rope == NULL) {
        return false;
    }
    uint32_t window =
        read_optional(s, "attention.sliding_window", "sliding_window", CONTEXT_MAX);
    uint32_t first = 0;
    if (s->json != NULL && s->family->window == WINDOW_SWITCHED) {
        if (!read_flag(s, NULL, "use_sliding_window", false)) {
            return !s->failed;
        }
        first = read_optional(s, NULL, "max_window_layers", LAYERS_MAX);
    }
    const meta_value *pattern =
        s->json == NULL ? gguf_value(s, "attention.sliding_window_pattern") : NULL;
    const json_value *types = json_get(s->json, "layer_types");
    if (json_is_array(types)) {
        windows_by_type(s, c, types, window);
        return !s->failed;
    }
    if (pattern != NULL && pattern->type == META_ARRAY && pattern->element == META_BOOL) {
        if (pattern->n != c->n_layers) {
            return source_fail(s, DP_E_FORMAT, "attention.sliding_window_pattern",
                               "expected one for each layer");
        }
        for (uint32_t i = 0; i < c->n_layers; i++) {
            set_window(s, c, i, pattern->ints[i] != 0, window);
        }
        return !s->failed;
    }
    const uint32_t period =
        s->family->period == 0
            ? 1
            : read_count(s, "attention.sliding_window_pattern", "sliding_window_pattern",
                         LAYERS_MAX, s->family->period);
    for (uint32_t i = 0; i < c->n_layers; i++) {
        set_window(s, c, i, window > 0 && windowed_by_rule(c, i, period, first), window);
    }
    return !s->failed;
}

/* ---- shapes and factors -------------------------------------------------------------------- */

static void read_shapes(source *s, config *c) {
    c->n_layers = read_count(s, "block_count", "num_hidden_layers", LAYERS_MAX, 0);
    c->dim = read_count(s, "embedding_length", "hidden_size", DIM_MAX, 0);
    c->n_heads = read_count(s, "attention.head_count", "num_attention_heads", HEADS_MAX, 0);
    c->n_kv_heads = read_count(s, "attention.head_count_kv", "num_key_value_heads", HEADS_MAX,
                               c->n_heads);
    /* GPT-2's folders leave it out; a file whose feed-forward networks are all experts may too */
    const bool usual = s->json != NULL ? s->family != NULL && s->family->ungated
                                       : gguf_value(s, "expert_feed_forward_length") != NULL;
    c->ffn_dim = read_count(s, "feed_forward_length", "intermediate_size", FFN_MAX,
                            usual ? 4 * c->dim : 0);
    c->context = read_count(s, "context_length", "max_position_embeddings", CONTEXT_MAX, 0);
    const uint32_t even = c->n_heads > 0 ? c->dim / c->n_heads : 0;
    c->head_dim = read_count(s, "attention.key_length", "head_dim", HEAD_DIM_MAX,
                             max_u32(even, s->vocab_only ? 0 : 1));
    double x = c->head_dim;
    if (read_number(s, "attention.value_length", NULL, &x) && x != c->head_dim) {
        source_fail(s, DP_E_UNSUPPORTED, "attention.value_length", "differs from key_length");
    }
    if (s->json != NULL) {
        c->norm_eps = (float)read_positive(s, NULL, "rms_norm_eps", 1e-6);
    } else {
        const bool layer_norm = s->family != NULL && s->family->layer_norm;
        c->norm_eps = (float)read_positive(s, layer_norm ? "attention.layer_norm_epsilon"
                                                         : "attention.layer_norm_rms_epsilon",
                                           NULL, 1e-5);
    }
}

/* The dimensions that are turned: transformers gives a share of the head, GGUF a number. */
static void read_rope_dim(source *s, config *c) {
    if (s->json == NULL) {
        c->rope_dim = read_count(s, "rope.dimension_count", NULL, HEAD_DIM_MAX, c->head_dim);
        return;
    }
    double share = read_positive(s, NULL, "partial_rotary_factor", 1);
    (void)json_f64(json_get(json_get(s->json, "rope_parameters"), "partial_rotary_factor"),
                   &share);
    if (!(share > 0 && share <= 1)) {
        source_fail(s, DP_E_FORMAT, "partial_rotary_factor", "not in (0, 1]");
        share = 1;
    }
    c->rope_dim = (uint32_t)(c->head_dim * share);
}

static void read_experts(source *s, config *c) {
    /* transformers' families do not agree on the name */
    const char *hf = json_get(s->json, "num_experts") != NULL ? "num_experts"
                                                              : "num_local_experts";
    c->n_experts = s->json != NULL && !s->family->experts
                       ? 0
                       : read_optional(s, "expert_count", hf, EXPERTS_MAX);
    c->expert_ffn_dim = c->ffn_dim;
    if (c->n_experts == 0) {
        if (s->family->experts) {
            source_fail(s, DP_E_FORMAT, s->json != NULL ? hf : "expert_count", "missing");
        }
        return;
    }
    c->n_experts_used =
        read_count(s, "expert_used_count", "num_experts_per_tok", EXPERTS_USED_MAX, 0);
    c->expert_ffn_dim = read_count(s, "expert_feed_forward_length", "moe_intermediate_size",
                                   FFN_MAX, c->ffn_dim);
    /* Qwen3-MoE's class takes false where config.json leaves it out; Mixtral has no such field */
    const bool listed = strstr(s->family->hf_fields, "norm_topk_prob") != NULL;
    c->normalise_route = read_flag(s, "expert_weights_norm", "norm_topk_prob",
                                   s->json == NULL || !listed);
    c->route_scale = (float)read_positive(s, "expert_weights_scale", NULL, 1);
    if (c->n_experts_used > c->n_experts) {
        s->failed = true;
        err_set(s->err, DP_E_FORMAT, "%s: %u experts used of %u", container_path(s->files),
                c->n_experts_used, c->n_experts);
    }
    /* 1: softmax over all experts, 3: over the chosen ones, which is the same once normalised */
    double gating = 1;
    if (read_number(s, "expert_gating_func", NULL, &gating) && gating != 1 && gating != 3) {
        source_fail(s, DP_E_UNSUPPORTED, "expert_gating_func", "only softmax is supported");
    }
    c->normalise_route = c->normalise_route || gating == 3;
}

static void read_factors(source *s, config *c) {
    const family *f = s->family;
    c->activation = f->activation;
    c->act_limit = (float)read_positive(s, NULL, "swiglu_limit", 7);
    c->act_alpha = (float)read_positive(s, NULL, "swiglu_alpha", 1.702);
    c->embedding_scale = (float)read_positive(s, "embedding_scale", "embedding_multiplier", 1);
    if (f->scale_embedding) {
        c->embedding_scale = sqrtf((float)c->dim);
    }
    c->residual_scale = (float)read_positive(s, "residual_scale", "residual_multiplier", 1);
    c->logits_scale = (float)(1 / read_positive(s, "logit_scale", "logits_scaling", 1));
    c->attention_softcap =
        (float)read_switched(s, "attn_logit_softcapping", "attn_logit_softcapping");
    c->logits_softcap =
        (float)read_switched(s, "final_logit_softcapping", "final_logit_softcapping");

    const bool large = s->json == NULL && f->gguf_layers_27b != 0 &&
                       c->n_layers == f->gguf_layers_27b;
    const double size = read_positive(
        s, NULL, "query_pre_attn_scalar",
        large ? (double)c->dim / c->n_heads : (double)c->head_dim);
    c->attention_scale =
        (float)read_positive(s, "attention.scale", "attention_multiplier", 1 / sqrt(size));
}

static bool check_shapes(source *s, const config *c) {
    const char *path = container_path(s->files);
    if (c->n_kv_heads == 0 || c->n_heads % c->n_kv_heads != 0) {
        return err_set(s->err, DP_E_FORMAT,
                       "%s: %u attention heads are no multiple of %u key heads", path, c->n_heads,
                       c->n_kv_heads);
    }
    if (c->head_dim % 2 != 0 || c->head_dim > HEAD_DIM_MAX) {
        return err_set(s->err, DP_E_UNSUPPORTED,
                       "%s: head size %u: even sizes to %u are supported", path, c->head_dim,
                       HEAD_DIM_MAX);
    }
    if (c->rope_dim % 2 != 0 || c->rope_dim > c->head_dim || c->rope_dim == 0) {
        return err_set(s->err, DP_E_FORMAT,
                       "%s: %u RoPE dimensions in heads of %u: an even number up to that expected",
                       path, c->rope_dim, c->head_dim);
    }
    if (c->dim % 4 != 0 || c->ffn_dim % 4 != 0 || c->expert_ffn_dim % 4 != 0 ||
        c->n_heads * c->head_dim % 4 != 0) {
        return err_set(s->err, DP_E_UNSUPPORTED,
                       "%s: width %u, feed-forward width %u, %u heads of %u: widths that are "
                       "multiples of 4 are supported",
                       path, c->dim, c->n_experts > 0 ? c->expert_ffn_dim : c->ffn_dim, c->n_heads,
                       c->head_dim);
    }
    return true;
}

/* All that follows from the family and the shapes, in either spelling. */
static bool read_description(source *s, config *c) {
    read_shapes(s, c);
    if (s->failed || s->vocab_only) {
        return !s->failed;
    }
    c->family = s->family;
    read_rope_dim(s, c);
    read_experts(s, c);
    read_factors(s, c);
    return !s->failed && check_shapes(s, c) && read_windows(s, c) && read_rope(s, c);
}

/* ---- GGUF ---------------------------------------------------------------------------------- */

static bool meta_is_off(const meta_value *v) {
    return (v->type == META_UINT && v->u == 0) || (v->type == META_INT && v->i == 0) ||
           (v->type == META_FLOAT && v->f == 0) || (v->type == META_BOOL && !v->b) ||
           (v->type == META_STRING && v->s.size == 0) || (v->type == META_ARRAY && v->n == 0);
}

/* A key below the architecture's that is not known changes the model in a way that is not known. */
static bool check_keys(source *s) {
    static const char *const known[] = {
        "context_length", "embedding_length", "block_count", "feed_forward_length", "vocab_size",
        "attention.head_count", "attention.head_count_kv", "attention.key_length",
        "attention.value_length", "attention.layer_norm_rms_epsilon",
        "attention.layer_norm_epsilon", "attention.sliding_window",
        "attention.sliding_window_pattern", "attention.scale", "attn_logit_softcapping",
        "final_logit_softcapping", "rope.dimension_count", "rope.freq_base", "rope.freq_base_swa",
        "rope.scale_linear", "rope.scaling.type", "rope.scaling.factor",
        "rope.scaling.original_context_length", "rope.scaling.attn_factor",
        "rope.scaling.yarn_attn_factor", "rope.scaling.finetuned", "rope.scaling.yarn_beta_fast",
        "rope.scaling.yarn_beta_slow", "expert_count", "expert_used_count",
        "expert_feed_forward_length", "expert_weights_scale", "expert_weights_norm",
        "expert_gating_func", "embedding_scale", "residual_scale", "logit_scale",
    };
    /* true says what is so anyway */
    static const char *const usual[] = { "attention.causal", "rope.scaling.yarn_ext_factor" };
    const size_t n = strlen(s->prefix);
    for (uint32_t i = 0; i < container_n_meta(s->files); i++) {
        str key;
        const meta_value *v = container_meta_at(s->files, i, &key);
        if (!str_starts(key, s->prefix) || key.size <= n + 1 || key.data[n] != '.') {
            continue;
        }
        const str rest = { key.data + n + 1, key.size - n - 1 };
        bool found = meta_is_off(v) && !str_is(rest, usual[0]) && !str_is(rest, usual[1]);
        for (size_t k = 0; k < ARRAY_LEN(known) && !found; k++) {
            found = str_is(rest, known[k]);
        }
        found = found || (str_is(rest, usual[0]) && v->type == META_BOOL && v->b) ||
                (str_is(rest, usual[1]) && v->type == META_FLOAT && v->f == 1);
        if (!found) {
            s->failed = true;
            return err_set(s->err, DP_E_UNSUPPORTED,
                           "%s: the key %.*s is not known and could change the model",
                           container_path(s->files), STR_ARG(key));
        }
    }
    return true;
}

static bool read_config_gguf(source *s, config *c) {
    const meta_value *v = container_meta(s->files, "general.architecture");
    if (v == NULL || v->type != META_STRING) {
        return s->vocab_only || source_fail(s, DP_E_FORMAT, "general.architecture", "missing");
    }
    c->architecture = arena_copy(s->arena, v->s.data, v->s.size, s->err);
    if (c->architecture == NULL) {
        return false;
    }
    s->prefix = c->architecture;
    s->family = family_by_gguf(c->architecture);
    if (s->family == NULL && !s->vocab_only) {
        s->failed = true;
        return err_set(s->err, DP_E_UNSUPPORTED, "%s: architecture '%.60s' is not supported",
                       container_path(s->files), c->architecture);
    }
    const tensor *table = container_find(s->files, "token_embd.weight");
    if (table != NULL && table->n_dims == 2 && table->shape[0] <= VOCAB_MAX) {
        c->vocab_size = (uint32_t)table->shape[0]; /* need not be said elsewhere */
    }
    c->rope_interleaved = s->family != NULL && s->family->gguf_interleaved;
    return (s->vocab_only || check_keys(s)) && read_description(s, c);
}

/* ---- config.json --------------------------------------------------------------------------- */

/* Known to every family, and those that say nothing of inference. */
static const char COMMON_FIELDS[] =
    " model_type architectures vocab_size hidden_size intermediate_size num_hidden_layers "
    "num_attention_heads num_key_value_heads head_dim hidden_act max_position_embeddings "
    "rms_norm_eps rope_theta rope_scaling rope_parameters tie_word_embeddings attention_bias "
    "mlp_bias partial_rotary_factor layer_types text_config vision_config "
    /* no part of the pass */
    "transformers_version torch_dtype dtype use_cache initializer_range bos_token_id eos_token_id "
    "pad_token_id sep_token_id decoder_start_token_id unk_token_id attention_dropout "
    "hidden_dropout embd_pdrop resid_pdrop attn_pdrop output_router_logits router_aux_loss_coef "
    "router_jitter_noise pretraining_tp auto_map unsloth_version unsloth_fixed "
    "task_specific_params cache_implementation return_dict output_attentions "
    "output_hidden_states torchscript use_bfloat16 pruned_heads chunk_size_feed_forward "
    "is_encoder_decoder is_decoder id2label label2id problem_type tokenizer_class prefix "
    "finetuning_task quantization_config transformers.js_config summary_type summary_use_proj "
    "summary_activation summary_proj_to_labels summary_first_dropout mm_tokens_per_image "
    "boi_token_index eoi_token_index image_token_index num_labels keys_to_ignore_at_inference "
    /* generation settings of old folders */
    "temperature top_k top_p do_sample num_beams num_beam_groups repetition_penalty "
    "length_penalty diversity_penalty typical_p max_length min_length no_repeat_ngram_size "
    "encoder_no_repeat_ngram_size early_stopping num_return_sequences output_scores "
    "return_dict_in_generate forced_bos_token_id forced_eos_token_id remove_invalid_values "
    "exponential_decay_length_penalty suppress_tokens begin_suppress_tokens bad_words_ids ";

/* Is `word` one of the words of `list`, which begins and ends with spaces or the end? */
static bool list_has(const char *list, str word) {
    for (const char *at = list; *at != '\0';) {
        const size_t n = strcspn(at, " ");
        if (n == word.size && memcmp(at, word.data, n) == 0) {
            return true;
        }
        at += n + (at[n] == ' ');
    }
    return false;
}

static bool json_is_off(const json_value *v) {
    bool b = true;
    double x = 1;
    str s = { 0 };
    return json_is_null(v) || (json_bool(v, &b) && !b) || (json_f64(v, &x) && x == 0) ||
           (json_string(v, &s) && s.size == 0) ||
           ((json_is_array(v) || json_is_object(v)) && json_count(v) == 0);
}

/* A field that is not known changes the model in a way that is not known, unless it is off. */
static bool check_fields(source *s, const json_value *object) {
    for (json_iter it = json_each(object); json_next(&it);) {
        if (json_is_off(it.value) || (it.key.size > 0 && it.key.data[0] == '_') ||
            list_has(COMMON_FIELDS, it.key) || list_has(s->family->hf_fields, it.key)) {
            continue;
        }
        s->failed = true;
        return err_set(s->err, DP_E_UNSUPPORTED,
                       "%s: config.json: the field %.*s is not known of '%s' models and could "
                       "change the result",
                       container_path(s->files), STR_ARG(it.key), s->family->hf);
    }
    static const char *const ones[] = { "full_attn_mod", "interpolate_factor",
                                        "decoder_sparse_step" };
    for (size_t i = 0; i < ARRAY_LEN(ones); i++) {
        double x = 1;
        if (json_f64(json_get(object, ones[i]), &x) && x != 1) {
            return source_fail(s, DP_E_UNSUPPORTED, ones[i], "only 1 is supported");
        }
    }
    bool weighted = true;
    if (json_bool(json_get(object, "scale_attn_weights"), &weighted) && !weighted) {
        return source_fail(s, DP_E_UNSUPPORTED, "scale_attn_weights", "only true is supported");
    }
    return true;
}

/* The activation that config.json names must be the family's. */
static bool check_activation(source *s) {
    static const char *const names[] = { "hidden_activation", "activation_function",
                                         "hidden_act" };
    str act = { 0 };
    for (size_t i = 0; i < ARRAY_LEN(names) && act.size == 0; i++) {
        (void)json_string(json_get(s->json, names[i]), &act);
    }
    const bool gelu = str_is(act, "gelu_pytorch_tanh") || str_is(act, "gelu_new") ||
                      str_is(act, "gelu_fast");
    const bool silu = str_is(act, "silu") || str_is(act, "swish");
    if (act.size == 0 || (s->family->activation == ACT_GELU ? gelu : silu)) {
        return true;
    }
    s->failed = true;
    return err_set(s->err, DP_E_UNSUPPORTED, "%s: the activation '%.*s' is not supported",
                   container_path(s->files), STR_ARG(act));
}

/* Quantised folders: only GPT-OSS's own MXFP4 is read as it is. */
static bool check_quantisation(source *s) {
    const json_value *q = json_get(s->json, "quantization_config");
    str method = { 0 };
    if (!json_is_object(q) || (s->family->sinks && json_string(json_get(q, "quant_method"), &method) &&
                               str_is(method, "mxfp4"))) {
        return true;
    }
    return source_fail(s, DP_E_UNSUPPORTED, "quantization_config",
                       "this kind of quantised folder is not supported");
}

/* Where the folder's tensors of layers lie: GPT-2 has names of its own, models with a vision tower
 * have the language model below another name. */
static bool find_layer_prefix(source *s, config *c) {
    static const char *const prefixes[] = {
        "model.layers.", "language_model.model.layers.", "model.language_model.layers.",
        "transformer.h.", "h.",
    };
    c->layer_prefix = prefixes[0];
    for (size_t i = 0; i < ARRAY_LEN(prefixes); i++) {
        char first[64];
        snprintf(first, sizeof first, "%s0.", prefixes[i]);
        for (uint32_t t = 0; t < container_n_tensors(s->files); t++) {
            if (str_starts(container_tensor(s->files, t)->name, first)) {
                c->layer_prefix = prefixes[i];
                return true;
            }
        }
    }
    return true;
}

static bool read_config_json(source *s, config *c) {
    str type = { 0 };
    if (!json_string(json_get(s->json, "model_type"), &type)) {
        return s->vocab_only || source_fail(s, DP_E_FORMAT, "model_type", "missing");
    }
    c->architecture = arena_copy(s->arena, type.data, type.size, s->err);
    if (c->architecture == NULL) {
        return false;
    }
    s->family = family_by_hf(type);
    if (s->family == NULL && !s->vocab_only) {
        s->failed = true;
        return err_set(s->err, DP_E_UNSUPPORTED, "%s: model_type '%.60s' is not supported",
                       container_path(s->files), c->architecture);
    }
    if (s->family != NULL && !s->vocab_only &&
        (!check_fields(s, s->json) || !check_quantisation(s))) {
        return false;
    }
    bool tied = false;
    const json_value *tie = json_get(s->json, "tie_word_embeddings");
    if (json_is_object(json_get(s->json, "text_config"))) {
        s->json = json_get(s->json, "text_config");
        if (s->family != NULL && !s->vocab_only && !check_fields(s, s->json)) {
            return false;
        }
        tie = tie != NULL ? tie : json_get(s->json, "tie_word_embeddings");
    }
    if (json_bool(tie, &tied)) {
        c->head = tied ? HEAD_TIED : HEAD_OWN;
    }
    c->vocab_size = read_count(s, NULL, "vocab_size", VOCAB_MAX, 0);
    return (s->family == NULL || s->vocab_only || check_activation(s)) &&
           find_layer_prefix(s, c) && read_description(s, c);
}

static bool read_defaults(container *files, config *c, dp_error *err) {
    dp_error problem = { 0 };
    const json_value *v = container_json(files, "generation_config.json", &problem);
    if (problem.status != DP_OK) {
        return err_set(err, problem.status, "%s", problem.message);
    }
    double x = 0;
    if (json_f64(json_get(v, "temperature"), &x) && x >= 0 && x <= 100) {
        c->temperature = (float)x;
    }
    if (json_f64(json_get(v, "top_p"), &x) && x > 0 && x <= 1) {
        c->top_p = (float)x;
    }
    if (json_f64(json_get(v, "top_k"), &x) && x >= 0 && x <= VOCAB_MAX) {
        c->top_k = (uint32_t)x;
    }
    return true;
}

static bool read_config(config *c, container *files, bool vocab_only, arena *a, dp_error *err) {
    *c = (config){ .architecture = "", .layer_prefix = "" };
    source s = { .files = files, .vocab_only = vocab_only, .arena = a, .err = err };
    if (container_kind_of(files) == CONTAINER_GGUF) {
        return read_config_gguf(&s, c);
    }
    dp_error problem = { 0 };
    s.json = container_json(files, "config.json", &problem);
    if (problem.status != DP_OK) {
        return err_set(err, problem.status, "%s", problem.message);
    }
    if (s.json == NULL) {
        return vocab_only || err_set(err, DP_E_FORMAT, "%s: config.json: missing",
                                     container_path(files));
    }
    return read_config_json(&s, c) && read_defaults(files, c, err);
}

bool config_read(config *c, container *files, bool vocab_only, arena *a, dp_error *err) {
    dp_error first = { 0 }; /* so that the first failure is kept even if the caller passed NULL */
    if (vocab_only && read_config(c, files, false, a, &first)) {
        return true;
    }
    first = (dp_error){ 0 };
    return read_config(c, files, vocab_only, a, err != NULL ? err : &first);
}
