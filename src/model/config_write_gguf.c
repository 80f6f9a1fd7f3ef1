/* config_write_gguf: a description as the keys of a GGUF file.
 *
 * The keys are those that the usual converter gives an architecture, plus those without which our
 * reader, or the specification, would take another value. As with config.json, nothing is argued:
 * what was written is read back from memory and must be the same description. Sources: the GGUF
 * specification's key list; what llama.cpp reads. */
#include "model/config_internal.h"
#include "model/weights_internal.h"

#include <math.h>
#include <stdio.h>

/* ---- writing ------------------------------------------------------------------------------- */

typedef struct {
    const config *c;
    const meta_sink *sink;
    char key[160];
} gguf_writer;

static const char *full_key(gguf_writer *w, const char *key) {
    snprintf(w->key, sizeof w->key, "%s.%s", w->c->family->gguf, key);
    return w->key;
}

static void put_count(gguf_writer *w, const char *key, uint32_t n) {
    w->sink->u32(w->sink->user, full_key(w, key), n);
}

static void put_float(gguf_writer *w, const char *key, double x) {
    w->sink->f32(w->sink->user, full_key(w, key), (float)x);
}

static void put_text(gguf_writer *w, const char *key, const char *text) {
    w->sink->string(w->sink->user, full_key(w, key), str_of(text));
}

static bool family_says(const config *c, const char *field) {
    return config_list_has(c->family->hf_fields, str_of(field));
}

static void put_shapes(gguf_writer *w) {
    const config *c = w->c;
    put_count(w, "vocab_size", c->vocab_size);
    put_count(w, "context_length", c->context);
    put_count(w, "embedding_length", c->dim);
    put_count(w, "block_count", c->n_layers);
    put_count(w, "feed_forward_length", c->ffn_dim);
    put_count(w, "attention.head_count", c->n_heads);
    put_count(w, "attention.head_count_kv", c->n_kv_heads);
    put_float(w,
              c->family->layer_norm ? "attention.layer_norm_epsilon"
                                    : "attention.layer_norm_rms_epsilon",
              (double)c->norm_eps);
    if (!c->family->learned_positions) {
        put_count(w, "attention.key_length", c->head_dim);
        put_count(w, "attention.value_length", c->head_dim);
    }
    if (c->n_experts == 0) {
        return;
    }
    put_count(w, "expert_count", c->n_experts);
    put_count(w, "expert_used_count", c->n_experts_used);
    /* Mixtral's files leave it out */
    if (c->expert_ffn_dim != c->ffn_dim || family_by_gguf(c->family->gguf) == c->family) {
        put_count(w, "expert_feed_forward_length", c->expert_ffn_dim);
    }
    if (!c->normalise_route) {
        w->sink->flag(w->sink->user, full_key(w, "expert_weights_norm"), false);
    }
    if (c->route_scale != 1) {
        put_float(w, "expert_weights_scale", (double)c->route_scale);
    }
}

static void put_factors(gguf_writer *w) {
    const config *c = w->c;
    const family *f = c->family;
    if (c->attention_softcap > 0) {
        put_float(w, "attn_logit_softcapping", (double)c->attention_softcap);
    }
    if (c->logits_softcap > 0) {
        put_float(w, "final_logit_softcapping", (double)c->logits_softcap);
    }
    const bool large = f->gguf_layers_27b != 0 && c->n_layers == f->gguf_layers_27b;
    const double size = large ? (double)c->dim / c->n_heads : (double)c->head_dim;
    const bool says = family_says(c, "attention_multiplier");
    if (says || (family_says(c, "query_pre_attn_scalar") &&
                 (float)(1 / sqrt(size)) != c->attention_scale)) {
        put_float(w, "attention.scale", (double)c->attention_scale);
    }
    if (says) {
        put_float(w, "embedding_scale", (double)c->embedding_scale);
        put_float(w, "residual_scale", (double)c->residual_scale);
        put_float(w, "logit_scale", config_inverse(c->logits_scale));
    }
}

/* Which layers have a window: by the family's rule, or one by one. */
static void put_windows(gguf_writer *w) {
    const config *c = w->c;
    const family *f = c->family;
    bool pattern[LAYERS_MAX];
    uint32_t window = 0;
    bool by_rule = true;
    for (uint32_t i = 0; i < c->n_layers; i++) {
        pattern[i] = c->layer_window[i] > 0;
        window = max_u32(window, c->layer_window[i]);
        by_rule =
            by_rule && pattern[i] == (f->window == WINDOW_PERIOD ? (i + 1) % f->period != 0 : true);
    }
    if (window == 0) {
        return;
    }
    put_count(w, "attention.sliding_window", window);
    if (!by_rule) {
        w->sink->flags(w->sink->user, full_key(w, "attention.sliding_window_pattern"), pattern,
                       c->n_layers);
    }
}

static void put_rope(gguf_writer *w) {
    const config *c = w->c;
    const rope_scaling *r = &c->rope[ROPE_GLOBAL];
    if (c->family->learned_positions) {
        return;
    }
    put_count(w, "rope.dimension_count", c->rope_dim);
    put_float(w, "rope.freq_base", r->theta);
    if (c->family->local_rope) {
        put_float(w, "rope.freq_base_swa", c->rope[ROPE_LOCAL].theta);
    }
    if (r->kind == SCALING_LINEAR || r->kind == SCALING_YARN) {
        put_text(w, "rope.scaling.type", r->kind == SCALING_LINEAR ? "linear" : "yarn");
        put_float(w, "rope.scaling.factor", r->factor);
    }
    if (r->kind == SCALING_YARN) {
        put_float(w, "rope.scaling.yarn_beta_fast", r->beta_fast);
        put_float(w, "rope.scaling.yarn_beta_slow", r->beta_slow);
    }
    if (r->kind == SCALING_LONG) {
        put_text(w, "rope.scaling.type", "longrope");
    }
    if (r->kind == SCALING_YARN || r->kind == SCALING_LONG) {
        put_count(w, "rope.scaling.original_context_length",
                  (uint32_t)fmin(r->original_context, CONTEXT_MAX));
    }
    if (rope_attention(r) != 1) {
        put_float(w, "rope.scaling.attn_factor", (double)rope_attention(r));
    }
}

static void put_all(const config *c, const meta_sink *sink) {
    gguf_writer w = { .c = c, .sink = sink };
    sink->string(sink->user, "general.architecture", str_of(c->family->gguf));
    put_shapes(&w);
    put_factors(&w);
    put_windows(&w);
    put_rope(&w);
}

static void fill_rope_tensor(rope_tensor *t, const char *name, const double *divisors, uint32_t n) {
    t->name = name;
    t->n = n;
    for (uint32_t i = 0; i < n; i++) {
        t->values[i] = (float)divisors[i];
    }
}

uint32_t config_rope_tensors(const config *c, rope_tensor out[ROPE_TENSORS_MAX]) {
    const rope_scaling *r = &c->rope[ROPE_GLOBAL];
    const uint32_t half = c->rope_dim / 2;
    if (c->family->learned_positions) {
        return 0;
    }
    if (r->kind == SCALING_LONG) {
        fill_rope_tensor(&out[0], "rope_factors_long.weight", r->long_factors, half);
        fill_rope_tensor(&out[1], "rope_factors_short.weight", r->short_factors, half);
        return 2;
    }
    if (r->divisors != NULL) {
        fill_rope_tensor(&out[0], "rope_freqs.weight", r->divisors, half);
        return 1;
    }
    return 0;
}

/* ---- collecting ---------------------------------------------------------------------------- */

typedef struct {
    key_list list;
    arena arena;
    dp_error *err;
    bool failed;
} collector;

static void collect(collector *k, const char *key, meta_value value) {
    assert(k->list.n < KEY_LIST_MAX);
    const char *own = arena_copy(&k->arena, key, strlen(key), k->err);
    k->failed = k->failed || own == NULL;
    if (!k->failed) {
        k->list.keys[k->list.n] = own;
        k->list.values[k->list.n++] = value;
    }
}

static void collect_u32(void *user, const char *key, uint32_t value) {
    collect(user, key, (meta_value){ .type = META_UINT, .u = value });
}

static void collect_f32(void *user, const char *key, float value) {
    collect(user, key, (meta_value){ .type = META_FLOAT, .f = (double)value });
}

static void collect_flag(void *user, const char *key, bool value) {
    collect(user, key, (meta_value){ .type = META_BOOL, .b = value });
}

static void collect_string(void *user, const char *key, str value) {
    collect(user, key,
            (meta_value){ .type = META_STRING, .s = value }); /* they are all constants */
}

static void collect_flags(void *user, const char *key, const bool *values, uint32_t n) {
    collector *k = user;
    int64_t *ints = arena_new(&k->arena, n, sizeof *ints, "layers", k->err);
    k->failed = k->failed || ints == NULL;
    for (uint32_t i = 0; i < n && !k->failed; i++) {
        ints[i] = values[i];
    }
    collect(k, key, (meta_value){ .type = META_ARRAY, .element = META_BOOL, .n = n, .ints = ints });
}

static bool read_back(const config *c, const container *source, collector *k, config *back,
                      dp_error *err) {
    const meta_sink sink = { .user = k,
                             .u32 = collect_u32,
                             .f32 = collect_f32,
                             .flag = collect_flag,
                             .string = collect_string,
                             .flags = collect_flags };
    put_all(c, &sink);
    k->list.n_ropes = config_rope_tensors(c, k->list.ropes);
    /* nothing of the files is read: they are the path in messages */
    config_source s = {
        .files = (container *)source, .list = &k->list, .arena = &k->arena, .err = err
    };
    return !k->failed && config_from_gguf(&s, back);
}

bool config_fits_gguf(const config *c, const container *source, dp_error *err) {
    if (c->family->gguf == NULL) {
        return err_set(err, DP_E_UNSUPPORTED, "%s: GGUF has no name for this architecture",
                       container_path(source));
    }
    const uint32_t odd = config_biases(c, source) & ~c->family->biases & ~c->family->bias_switches;
    if (odd != 0) {
        return err_set(err, DP_E_UNSUPPORTED, "%s: GGUF files of '%s' models have no biases of %s",
                       container_path(source), c->family->gguf,
                       odd & BIAS_FFN ? "feed-forward matrices" : "attention's matrices");
    }
    collector *k = mem_new(1, sizeof *k, "GGUF metadata", err);
    if (k == NULL) {
        return false;
    }
    k->err = err;
    config back = { .architecture = "", .layer_prefix = "" };
    bool ok = read_back(c, source, k, &back, err);
    const char *lost = ok ? config_difference(c, &back) : NULL;
    if (lost != NULL) {
        ok = err_set(err, DP_E_UNSUPPORTED, "%s: a GGUF file of '%s' models cannot say %s",
                     container_path(source), c->family->gguf, lost);
    }
    arena_free(&k->arena);
    mem_free(k);
    return ok;
}

bool config_write_gguf(const config *c, const container *source, const meta_sink *sink,
                       dp_error *err) {
    if (!config_fits_gguf(c, source, err)) {
        return false;
    }
    put_all(c, sink);
    return true;
}
