/* config: the description of a model, out of GGUF metadata or a Hugging Face config.json.
 *
 * Both spellings end in the same struct; RoPE scaling is worked out here, in double, into one table
 * of frequencies, so that no kernel knows of it. What would change the mathematics and is not known
 * is refused by name. Sources: the GGUF specification's key list; transformers' configuration and
 * modeling_rope_utils; Su et al. 2021 (RoPE), Peng et al. 2023 (YaRN). */
#include "model/model.h"

#include <math.h>
#include <stdio.h>

static const double PI = 3.14159265358979323846;

/* RoPE scaling as the files spell it. */
typedef struct {
    str type; /* "default", "linear", "llama3", "yarn", "dynamic" */
    double theta, factor, low_factor, high_factor, original_context;
    double beta_fast, beta_slow;
    double attention_factor; /* instead of YaRN's formula; 0: by the formula */
    double magnitude;        /* times the formula */
} rope_scaling;

/* ---- reading numbers from either kind of metadata ------------------------------------------ */

typedef struct {
    container *files;
    const char *prefix; /* GGUF: the architecture */
    const json_value *json;
    bool vocab_only;
    dp_error *err;
    bool failed;
} source;

static bool source_fail(source *s, dp_status status, const char *what, const char *problem) {
    s->failed = true;
    return err_set(s->err, status, "%s: %s: %s", container_path(s->files), what, problem);
}

static const meta_value *gguf_value(const source *s, const char *key) {
    char full[128];
    snprintf(full, sizeof full, "%s.%s", s->prefix, key);
    return container_meta(s->files, full);
}

/* A number of either spelling: `gguf` below the architecture, `hf` in config.json. NULL skips one.
 * */
static bool read_number(source *s, const char *gguf, const char *hf, double *out) {
    if (s->json != NULL) {
        const json_value *v = hf != NULL ? json_get(s->json, hf) : NULL;
        if (v == NULL || json_is_null(v)) {
            return false;
        }
        return json_f64(v, out) || source_fail(s, DP_E_FORMAT, hf, "not a number");
    }
    const meta_value *v = gguf != NULL ? gguf_value(s, gguf) : NULL;
    if (v == NULL) {
        return false;
    }
    if (v->type == META_ARRAY && v->n > 0 && v->element != META_STRING &&
        v->element != META_FLOAT) { /* per layer: only if all agree */
        for (uint32_t i = 1; i < v->n; i++) {
            if (v->ints[i] != v->ints[0]) {
                return source_fail(s, DP_E_UNSUPPORTED, gguf, "differs from layer to layer");
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
        return source_fail(s, DP_E_FORMAT, gguf, "not a number");
    }
}

/* A count in [1, limit]; absent: `fallback`, and an error if that is 0. */
static uint32_t read_count(source *s, const char *gguf, const char *hf, uint32_t limit,
                           uint32_t fallback) {
    double x = 0;
    const char *name = s->json != NULL ? hf : gguf;
    if (!read_number(s, gguf, hf, &x)) {
        if (fallback == 0 && !s->failed && !s->vocab_only) {
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

/* ---- RoPE ---------------------------------------------------------------------------------- */

/* Which dimension of the table turns `beta` times over the original context (YaRN, eq. 17). */
static double yarn_dimension(const rope_scaling *r, double beta, uint32_t dim) {
    return dim * log(r->original_context / (beta * 2 * PI)) / (2 * log(r->theta));
}

static void yarn_frequencies(config *c, const rope_scaling *r) {
    const double low = fmax(floor(yarn_dimension(r, r->beta_fast, c->rope_dim)), 0);
    const double high = fmin(ceil(yarn_dimension(r, r->beta_slow, c->rope_dim)), c->rope_dim - 1);
    for (uint32_t i = 0; i < c->rope_dim / 2; i++) {
        const double ramp = (i - low) / fmax(high - low, 0.001);
        const double keep = 1 - fmin(fmax(ramp, 0), 1); /* share that is not interpolated */
        const double f = c->rope_frequency[i];
        c->rope_frequency[i] = f / r->factor * (1 - keep) + f * keep;
    }
    const double formula = r->factor > 1 ? 0.1 * log(r->factor) + 1 : 1;
    c->rope_magnitude =
        (float)(r->attention_factor > 0 ? r->attention_factor : r->magnitude * formula);
}

/* Llama 3.1: long waves are slowed down by `factor`, short ones stay, those between are mixed. */
static void llama3_frequencies(config *c, const rope_scaling *r) {
    const double longest = r->original_context / r->low_factor;
    const double shortest = r->original_context / r->high_factor;
    for (uint32_t i = 0; i < c->rope_dim / 2; i++) {
        const double f = c->rope_frequency[i], wave = 2 * PI / f;
        if (wave > longest) {
            c->rope_frequency[i] = f / r->factor;
        } else if (wave >= shortest) {
            const double smooth = (r->original_context / wave - r->low_factor) /
                                  (r->high_factor - r->low_factor);
            c->rope_frequency[i] = (1 - smooth) * f / r->factor + smooth * f;
        }
    }
}

static bool rope_fill(config *c, const rope_scaling *r, source *s, arena *a) {
    c->rope_frequency = arena_new(a, c->rope_dim / 2, sizeof(double), "RoPE table", s->err);
    if (c->rope_frequency == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < c->rope_dim / 2; i++) {
        /* in single precision, as the reference implementation keeps it */
        c->rope_frequency[i] = (float)(1.0 / pow(r->theta, 2.0 * i / c->rope_dim));
    }
    c->rope_magnitude = 1;
    if (str_is(r->type, "linear")) {
        for (uint32_t i = 0; i < c->rope_dim / 2; i++) {
            c->rope_frequency[i] /= r->factor;
        }
    } else if (str_is(r->type, "llama3")) {
        if (!(r->high_factor > r->low_factor)) {
            return source_fail(s, DP_E_FORMAT, "rope scaling",
                               "high_freq_factor is not above low_freq_factor");
        }
        llama3_frequencies(c, r);
    } else if (str_is(r->type, "yarn")) {
        if (!(r->theta > 1)) {
            return source_fail(s, DP_E_FORMAT, "rope_theta", "not above 1, which YaRN needs");
        }
        yarn_frequencies(c, r);
    } else if (!str_is(r->type, "default") && !str_is(r->type, "none") &&
               !str_is(r->type, "dynamic")) { /* dynamic: as it is up to the model's own context */
        s->failed = true;
        return err_set(s->err, DP_E_UNSUPPORTED, "%s: RoPE scaling '%.*s' is not supported",
                       container_path(s->files), (int)min_u64(r->type.size, 40), r->type.data);
    }
    return true;
}

/* The older spelling has rope_theta beside rope_scaling {rope_type or type, ...}; the newer one has
 * all in rope_parameters. */
static void read_rope_json(source *s, rope_scaling *r) {
    const json_value *config_json = s->json;
    const json_value *scaling = json_get(config_json, "rope_parameters");
    r->theta = read_positive(s, NULL, "rope_theta", 10000);
    if (!json_is_object(scaling)) {
        scaling = json_get(config_json, "rope_scaling");
    }
    if (!json_is_object(scaling)) {
        return;
    }
    s->json = scaling;
    r->theta = read_positive(s, NULL, "rope_theta", r->theta);
    if (!json_string(json_get(scaling, "rope_type"), &r->type)) {
        (void)json_string(json_get(scaling, "type"), &r->type);
    }
    r->factor = read_positive(s, NULL, "factor", 1);
    r->low_factor = read_positive(s, NULL, "low_freq_factor", 1);
    r->high_factor = read_positive(s, NULL, "high_freq_factor", 4);
    r->original_context =
        read_positive(s, NULL, "original_max_position_embeddings", r->original_context);
    r->beta_fast = read_positive(s, NULL, "beta_fast", 32);
    r->beta_slow = read_positive(s, NULL, "beta_slow", 1);
    r->attention_factor = read_positive(s, NULL, "attention_factor", 0);
    s->json = config_json;
}

static void read_rope_gguf(source *s, rope_scaling *r) {
    const meta_value *type = gguf_value(s, "rope.scaling.type");
    r->theta = read_positive(s, "rope.freq_base", NULL, 10000);
    if (type != NULL && type->type == META_STRING) {
        r->type = type->s;
    }
    r->factor = read_positive(s, "rope.scaling.factor", NULL, 1);
    if (type == NULL) { /* the old key */
        const double linear = read_positive(s, "rope.scale_linear", NULL, 1);
        if (linear != 1) {
            r->type = STR("linear");
            r->factor = linear;
        }
    }
    r->original_context =
        read_positive(s, "rope.scaling.original_context_length", NULL, r->original_context);
    r->beta_fast = read_positive(s, "rope.scaling.yarn_beta_fast", NULL, 32);
    r->beta_slow = read_positive(s, "rope.scaling.yarn_beta_slow", NULL, 1);
    r->magnitude = read_positive(s, "rope.scaling.attn_factor", NULL, 1);
}

/* Llama 3.1 GGUF files hold its scaling as divisors of the frequencies. */
static bool apply_rope_divisors(config *c, source *s) {
    const tensor *t = container_find(s->files, "rope_freqs.weight");
    if (t == NULL) {
        return true;
    }
    if (t->type != DTYPE_F32 || t->n_elements != c->rope_dim / 2) {
        return source_fail(s, DP_E_FORMAT, "rope_freqs.weight",
                           "expected one f32 for each pair of RoPE dimensions");
    }
    float divisor[HEAD_DIM_MAX / 2];
    if (!container_read(s->files, t, 0, divisor, c->rope_dim / 2 * sizeof(float), s->err)) {
        return false;
    }
    for (uint32_t i = 0; i < c->rope_dim / 2; i++) {
        if (!(divisor[i] > 0 && divisor[i] < 1e9f)) {
            return source_fail(s, DP_E_FORMAT, "rope_freqs.weight", "a divisor is not positive");
        }
        c->rope_frequency[i] /= divisor[i];
    }
    return true;
}

/* ---- the two readers ----------------------------------------------------------------------- */

static void read_shapes(source *s, config *c) {
    c->n_layers = read_count(s, "block_count", "num_hidden_layers", LAYERS_MAX, 0);
    c->dim = read_count(s, "embedding_length", "hidden_size", DIM_MAX, 0);
    c->n_heads = read_count(s, "attention.head_count", "num_attention_heads", HEADS_MAX, 0);
    c->n_kv_heads = read_count(s, "attention.head_count_kv", "num_key_value_heads", HEADS_MAX,
                               c->n_heads);
    c->ffn_dim = read_count(s, "feed_forward_length", "intermediate_size", FFN_MAX, 0);
    c->context = read_count(s, "context_length", "max_position_embeddings", CONTEXT_MAX, 0);
    const uint32_t even = c->n_heads > 0 ? c->dim / c->n_heads : 0;
    c->head_dim = read_count(s, "attention.key_length", "head_dim", HEAD_DIM_MAX,
                             max_u32(even, s->vocab_only ? 0 : 1));
    c->norm_eps = (float)read_positive(s, "attention.layer_norm_rms_epsilon", "rms_norm_eps", 1e-5);
    c->rope_dim = read_count(s, "rope.dimension_count", NULL, HEAD_DIM_MAX, c->head_dim);
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
    if (c->rope_dim % 2 != 0 || c->rope_dim > c->head_dim) {
        return err_set(s->err, DP_E_FORMAT,
                       "%s: %u RoPE dimensions in heads of %u: an even number up to that expected",
                       path, c->rope_dim, c->head_dim);
    }
    if (c->dim % 4 != 0 || c->ffn_dim % 4 != 0 || c->n_heads * c->head_dim % 4 != 0) {
        return err_set(s->err, DP_E_UNSUPPORTED,
                       "%s: width %u, feed-forward width %u, %u heads of %u: widths that are "
                       "multiples of 4 are supported",
                       path, c->dim, c->ffn_dim, c->n_heads, c->head_dim);
    }
    return true;
}

static bool read_config_gguf(source *s, config *c, arena *a) {
    const meta_value *v = container_meta(s->files, "general.architecture");
    if (v == NULL || v->type != META_STRING) {
        return s->vocab_only || source_fail(s, DP_E_FORMAT, "general.architecture", "missing");
    }
    c->architecture = arena_copy(a, v->s.data, v->s.size, s->err);
    if (c->architecture == NULL) {
        return false;
    }
    s->prefix = c->architecture;
    if (strcmp(c->architecture, "llama") != 0 && !s->vocab_only) {
        s->failed = true;
        return err_set(s->err, DP_E_UNSUPPORTED, "%s: architecture '%.60s' is not supported",
                       container_path(s->files), c->architecture);
    }
    c->rope_interleaved = true; /* GGUF's converter makes the pairs of Q and K adjacent rows */
    read_shapes(s, c);
    double window = 0;
    if (read_number(s, "attention.sliding_window", NULL, &window) && window >= 1) {
        c->window = read_count(s, "attention.sliding_window", NULL, CONTEXT_MAX, 1);
    }
    double experts = 0;
    if (read_number(s, "expert_count", NULL, &experts) && experts > 0 && !s->vocab_only) {
        return source_fail(s, DP_E_UNSUPPORTED, "expert_count",
                           "mixtures of experts are not supported");
    }
    if (s->failed || s->vocab_only) {
        return !s->failed;
    }
    rope_scaling r = { .type = STR("none"),
                       .factor = 1,
                       .magnitude = 1,
                       .original_context = c->context };
    read_rope_gguf(s, &r);
    return !s->failed && check_shapes(s, c) && rope_fill(c, &r, s, a) && apply_rope_divisors(c, s);
}

/* Fields of config.json that would change the mathematics if they held anything else. */
static bool check_json_fields(source *s, config *c) {
    str act = { 0 };
    const json_value *quantised = json_get(s->json, "quantization_config");
    if (json_string(json_get(s->json, "hidden_act"), &act) && !str_is(act, "silu")) {
        s->failed = true;
        return err_set(s->err, DP_E_UNSUPPORTED, "%s: hidden_act '%.*s' is not supported",
                       container_path(s->files), (int)min_u64(act.size, 40), act.data);
    }
    if (json_is_object(quantised)) {
        return source_fail(s, DP_E_UNSUPPORTED, "quantization_config",
                           "quantised safetensors folders are not supported");
    }
    bool tied = false;
    if (json_bool(json_get(s->json, "tie_word_embeddings"), &tied)) {
        c->head = tied ? HEAD_TIED : HEAD_OWN;
    }
    double partial = 1;
    if (read_number(s, NULL, "partial_rotary_factor", &partial) && partial != 1) {
        return source_fail(s, DP_E_UNSUPPORTED, "partial_rotary_factor", "only 1 is supported");
    }
    return !s->failed;
}

static bool read_config_json(source *s, config *c, arena *a) {
    str type = { 0 };
    if (!json_string(json_get(s->json, "model_type"), &type)) {
        return s->vocab_only || source_fail(s, DP_E_FORMAT, "model_type", "missing");
    }
    c->architecture = arena_copy(a, type.data, type.size, s->err);
    if (c->architecture == NULL) {
        return false;
    }
    if (!str_is(type, "llama") && !str_is(type, "mistral") && !s->vocab_only) {
        s->failed = true;
        return err_set(s->err, DP_E_UNSUPPORTED, "%s: model_type '%.60s' is not supported",
                       container_path(s->files), c->architecture);
    }
    read_shapes(s, c);
    c->vocab_size = read_count(s, NULL, "vocab_size", VOCAB_MAX, 0);
    c->window = 0;
    double window = 0;
    if (str_is(type, "mistral") && read_number(s, NULL, "sliding_window", &window)) {
        c->window = read_count(s, NULL, "sliding_window", CONTEXT_MAX, 1);
    }
    if (s->failed || s->vocab_only) {
        return !s->failed;
    }
    rope_scaling r = { .type = STR("default"),
                       .factor = 1,
                       .magnitude = 1,
                       .original_context = c->context };
    read_rope_json(s, &r);
    return !s->failed && check_json_fields(s, c) && check_shapes(s, c) && rope_fill(c, &r, s, a);
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

bool config_read(config *c, container *files, bool vocab_only, arena *a, dp_error *err) {
    *c = (config){ .architecture = "" };
    dp_error first = { 0 }; /* so that the first failure is kept even if the caller passed NULL */
    source s = { .files = files, .vocab_only = vocab_only, .err = err != NULL ? err : &first };
    if (container_kind_of(files) == CONTAINER_GGUF) {
        return read_config_gguf(&s, c, a);
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
    return read_config_json(&s, c, a) && read_defaults(files, c, err);
}
