/* config_write: a description as a config.json that transformers and our own reader understand, and
 * the comparison of descriptions.
 *
 * Fields are written as the family's class has them. Whether they say everything is not argued case
 * by case: the text is read back by config.c and must give the same description, or the model is
 * refused with the name of what was lost. Sources: transformers' configuration classes. */
#include "model/config_internal.h"
#include "model/weights_internal.h"

#include <math.h>
#include <stdio.h>

/* ---- comparison ---------------------------------------------------------------------------- */

static bool same_divisors(const double *a, const double *b, uint32_t n) {
    return a == b || (a != NULL && b != NULL && memcmp(a, b, n * sizeof *a) == 0);
}

/* What decides about angles: parameters of other kinds of scaling may differ. */
static bool same_rope(const rope_scaling *a, const rope_scaling *b, uint32_t dim) {
    const rope_scaling_kind ka = a->kind == SCALING_LLAMA3 ? SCALING_NONE : a->kind;
    const rope_scaling_kind kb = b->kind == SCALING_LLAMA3 ? SCALING_NONE : b->kind;
    if (ka != kb || a->theta != b->theta || (float)a->magnitude != (float)b->magnitude ||
        !same_divisors(a->divisors, b->divisors, dim / 2)) {
        return false;
    }
    const bool by_context = ka == SCALING_YARN || ka == SCALING_DYNAMIC || ka == SCALING_LONG;
    const bool by_factor = ka != SCALING_NONE && ka != SCALING_LONG;
    return (!by_context || a->original_context == b->original_context) &&
           (!by_factor || a->factor == b->factor) &&
           (ka != SCALING_YARN || (a->beta_fast == b->beta_fast && a->beta_slow == b->beta_slow &&
                                   a->exact == b->exact)) &&
           (ka != SCALING_LONG || (same_divisors(a->short_factors, b->short_factors, dim / 2) &&
                                   same_divisors(a->long_factors, b->long_factors, dim / 2)));
}

static bool same_family(const family *a, const family *b) {
    return a->norms == b->norms && a->qk_norm == b->qk_norm && a->activation == b->activation &&
           a->layer_norm == b->layer_norm && a->norm_plus_one == b->norm_plus_one &&
           a->learned_positions == b->learned_positions && a->ungated == b->ungated &&
           a->local_rope == b->local_rope && a->biases == b->biases && a->sinks == b->sinks;
}

const char *config_difference(const config *a, const config *b) {
    const struct {
        bool same;
        const char *what;
    } tests[] = {
        { same_family(a->family, b->family), "the kind of norms, activation or biases" },
        { a->n_layers == b->n_layers && a->dim == b->dim && a->ffn_dim == b->ffn_dim &&
              a->n_heads == b->n_heads && a->n_kv_heads == b->n_kv_heads &&
              a->head_dim == b->head_dim,
          "the shape" },
        { a->context == b->context, "the context" },
        { a->norm_eps == b->norm_eps, "the epsilon of the norms" },
        { a->activation == b->activation &&
              (a->activation != ACT_SWIGLU_OAI ||
               (a->act_alpha == b->act_alpha && a->act_limit == b->act_limit)),
          "the activation and its limits" },
        { a->embedding_scale == b->embedding_scale, "the scale of the embedding" },
        { a->residual_scale == b->residual_scale, "the scale of the residual branches" },
        { a->logits_scale == b->logits_scale, "the scale of the logits" },
        { a->attention_scale == b->attention_scale, "the scale of attention" },
        { a->attention_softcap == b->attention_softcap && a->logits_softcap == b->logits_softcap,
          "the soft caps" },
        { a->n_experts == b->n_experts && a->n_experts_used == b->n_experts_used &&
              a->expert_ffn_dim == b->expert_ffn_dim,
          "the experts" },
        { a->n_experts == 0 ||
              (a->normalise_route == b->normalise_route && a->route_scale == b->route_scale),
          "the weights of chosen experts" },
        { a->rope_dim == b->rope_dim || a->family->learned_positions, "the RoPE dimensions" },
    };
    for (size_t i = 0; i < ARRAY_LEN(tests); i++) {
        if (!tests[i].same) {
            return tests[i].what;
        }
    }
    for (uint32_t i = 0; i < a->n_layers; i++) {
        if (a->layer_window[i] != b->layer_window[i]) {
            return "which layers see a window";
        }
        if (a->layer_rope[i] != b->layer_rope[i]) {
            return "which layers have RoPE";
        }
        const rope_kind table = a->layer_rope[i];
        if (table != ROPE_NONE && !same_rope(&a->rope[table], &b->rope[table], a->rope_dim)) {
            return table == ROPE_LOCAL ? "RoPE of the windowed layers" : "RoPE and its scaling";
        }
    }
    return NULL;
}

/* ---- what the tensors say ------------------------------------------------------------------ */

static bool layer_has(const config *c, const container *source, const char *gguf, const char *hf) {
    const tensor_spelling s = spelling_of(source);
    const char *name = field_name(c, s, gguf, hf);
    char full[TENSOR_NAME_BYTES];
    if (name == NULL) {
        return false;
    }
    full_tensor_name(c, s, 0, name, 0, "", full);
    return container_find(source, full) != NULL;
}

uint32_t config_biases(const config *c, const container *source) {
    static const struct {
        field_use use;
        uint32_t bit;
    } bits[] = { { USE_QKV_BIAS, BIAS_QKV },
                 { USE_O_BIAS, BIAS_O },
                 { USE_GATE_BIAS, BIAS_FFN },
                 { USE_FFN_BIAS, BIAS_FFN } };
    uint32_t found = c->family->biases;
    for (size_t i = 0; i < N_LAYER_FIELDS; i++) {
        const layer_field *f = &LAYER_FIELDS[i];
        for (size_t k = 0; k < ARRAY_LEN(bits); k++) {
            if (f->use == bits[k].use && layer_has(c, source, f->gguf, f->hf)) {
                found |= bits[k].bit;
            }
        }
    }
    const fusion *qkv = &FUSIONS[FUSE_QKV_BIAS - 1];
    return found | (layer_has(c, source, qkv->gguf, qkv->hf) ? BIAS_QKV : 0);
}

bool config_is_tied(const config *c, const container *source) {
    return c->head == HEAD_TIED || (c->head == HEAD_FOUND && outer_find(source, HEAD) == NULL);
}

/* ---- config.json --------------------------------------------------------------------------- */

/* With a point or an exponent: transformers' classes tell floats from integers. */
static void json_float(buf *b, const char *key, double x) {
    json_key(b, key);
    const size_t from = b->size;
    if (x == (double)(float)x) {
        json_add_f32(b, (float)x);
    } else {
        json_add_f64(b, x);
    }
    if (b->size > from && strpbrk(b->data + from, ".en") == NULL) buf_printf(b, ".0");
}

void config_add_divisors(buf *b, const char *key, const double *divisors, uint32_t n) {
    json_key(b, key);
    buf_printf(b, "[");
    for (uint32_t i = 0; i < n; i++) {
        json_item(b);
        json_add_f32(b, (float)divisors[i]);
    }
    buf_printf(b, "]");
}

static void json_null(buf *b, const char *key) {
    json_key(b, key);
    buf_printf(b, "null");
}

/* Where a class has the field; a field that is 0 by nature is null. */
typedef struct {
    buf *b;
    const config *c;
    uint32_t biases;
} hf_writer;

static bool class_has(const hf_writer *w, const char *field) {
    return config_list_has(w->c->family->hf_fields, str_of(field));
}

static void write_hf_count(hf_writer *w, const char *field, uint32_t n) {
    json_count_of(w->b, family_field(w->c->family, field), n);
}

static void write_hf_float(hf_writer *w, const char *field, double x, double off) {
    if (!class_has(w, field)) {
        return;
    }
    if (x == off) {
        json_null(w->b, field);
    } else {
        json_float(w->b, field, x);
    }
}

static void write_hf_shapes(hf_writer *w) {
    const config *c = w->c;
    const family *f = c->family;
    json_key(w->b, "architectures");
    buf_printf(w->b, "[\"%s\"]", f->hf_class);
    json_text(w->b, "model_type", str_of(f->hf));
    write_hf_count(w, "vocab_size", c->vocab_size);
    write_hf_count(w, "hidden_size", c->dim);
    write_hf_count(w, "num_hidden_layers", c->n_layers);
    write_hf_count(w, "num_attention_heads", c->n_heads);
    write_hf_count(w, "intermediate_size", c->ffn_dim);
    write_hf_count(w, "max_position_embeddings", c->context);
    json_float(w->b, family_field(f, "rms_norm_eps"), (double)c->norm_eps);
    if (!f->learned_positions) {
        write_hf_count(w, "num_key_value_heads", c->n_kv_heads);
        write_hf_count(w, "head_dim", c->head_dim);
    }
    const char *act = class_has(w, "activation_function") ? "activation_function"
                      : class_has(w, "hidden_activation") ? "hidden_activation"
                                                          : "hidden_act";
    json_text(w->b, act,
              str_of(f->activation != ACT_GELU                 ? "silu"
                     : strcmp(act, "activation_function") == 0 ? "gelu_new"
                                                               : "gelu_pytorch_tanh"));
    if (f->bias_switches & BIAS_QKV) {
        json_flag(w->b, "attention_bias", (w->biases & (BIAS_QKV | BIAS_O)) != 0);
    }
    if (f->bias_switches & BIAS_FFN) {
        json_flag(w->b, "mlp_bias", (w->biases & BIAS_FFN) != 0);
    }
}

/* n with 1 / sqrt(n) = x in single precision; a whole one if there is. */
double config_query_scalar(float x) {
    const double n = 1 / ((double)x * (double)x);
    return (float)(1 / sqrt(round(n))) == x ? round(n) : n;
}

/* The f32 s with 1 / s = x in single precision: x is such a quotient, and it is near. */
double config_inverse(float x) {
    float s = (float)(1 / (double)x);
    for (int i = 0; i < 4 && (float)(1 / (double)s) != x; i++) {
        s = nextafterf(s, (float)(1 / (double)s) > x ? INFINITY : 0);
    }
    return (double)s;
}

static void write_hf_factors(hf_writer *w) {
    const config *c = w->c;
    if (class_has(w, "query_pre_attn_scalar")) {
        const double n = config_query_scalar(c->attention_scale);
        if (n == floor(n) && n < 1e9) {
            json_count_of(w->b, "query_pre_attn_scalar", (uint64_t)n);
        } else {
            json_float(w->b, "query_pre_attn_scalar", n);
        }
    }
    write_hf_float(w, "attn_logit_softcapping", (double)c->attention_softcap, 0);
    write_hf_float(w, "final_logit_softcapping", (double)c->logits_softcap, 0);
    write_hf_float(w, "attention_multiplier", (double)c->attention_scale, 0);
    write_hf_float(w, "embedding_multiplier", (double)c->embedding_scale, 0);
    write_hf_float(w, "residual_multiplier", (double)c->residual_scale, 0);
    write_hf_float(w, "logits_scaling", config_inverse(c->logits_scale), 0);
    write_hf_float(w, "swiglu_limit", (double)c->act_limit, 0);
    if (c->n_experts == 0) {
        return;
    }
    const bool qwen = class_has(w, "num_experts");
    write_hf_count(w, qwen ? "num_experts" : "num_local_experts", c->n_experts);
    write_hf_count(w, "num_experts_per_tok", c->n_experts_used);
    if (class_has(w, "moe_intermediate_size")) {
        write_hf_count(w, "moe_intermediate_size", c->expert_ffn_dim);
    }
    if (class_has(w, "norm_topk_prob")) {
        json_flag(w->b, "norm_topk_prob", c->normalise_route);
    }
}

/* The window and how its layers are told: by a rule of the class or one by one. */
static void write_hf_windows(hf_writer *w) {
    const config *c = w->c;
    uint32_t window = 0, first = c->n_layers, n = 0;
    for (uint32_t i = 0; i < c->n_layers; i++) {
        if (c->layer_window[i] > 0) {
            window = c->layer_window[i];
            first = min_u32(first, i);
            n++;
        }
    }
    if (!class_has(w, "sliding_window")) {
        return;
    }
    if (n > 0) {
        json_count_of(w->b, "sliding_window", window);
    } else {
        json_null(w->b, "sliding_window");
    }
    const bool switched = class_has(w, "use_sliding_window");
    if (switched) {
        json_flag(w->b, "use_sliding_window", n > 0);
        json_count_of(w->b, "max_window_layers", first);
    }
    const bool by_rule = c->family->window == WINDOW_ALL
                             ? n == 0 || n == c->n_layers
                             : !switched && c->family->window == WINDOW_SWITCHED;
    if (by_rule) {
        return;
    }
    json_key(w->b, "layer_types");
    buf_printf(w->b, "[");
    for (uint32_t i = 0; i < c->n_layers; i++) {
        json_item(w->b);
        buf_printf(w->b, c->layer_window[i] > 0 ? "\"sliding_attention\"" : "\"full_attention\"");
    }
    buf_printf(w->b, "]");
}

/* Llama 3's numbers if the divisors follow its rule as all published models have it: the largest is
 * the factor, the original context a power of two. */
static bool find_llama3(const rope_scaling *r, uint32_t dim, rope_scaling *found) {
    *found = (rope_scaling){ .theta = r->theta, .factor = 1, .low_factor = 1, .high_factor = 4 };
    for (uint32_t i = 0; i < dim / 2; i++) {
        found->factor = fmax(found->factor, r->divisors[i]);
    }
    for (uint32_t context = 32; context <= CONTEXT_MAX && found->factor > 1; context *= 2) {
        double divisors[HEAD_DIM_MAX / 2];
        found->original_context = context;
        rope_llama3_divisors(found, dim, divisors);
        if (same_divisors(divisors, r->divisors, dim / 2)) {
            return true;
        }
    }
    return false;
}

static void write_llama3(buf *b, const rope_scaling *r) {
    json_text(b, "rope_type", STR("llama3"));
    json_float(b, "factor", r->factor);
    json_float(b, "low_freq_factor", r->low_factor);
    json_float(b, "high_freq_factor", r->high_factor);
    json_count_of(b, "original_max_position_embeddings", (uint64_t)r->original_context);
}

/* Divisors that follow no rule we know: longrope with one list for both lengths says the same. */
static void write_divisors(buf *b, const rope_scaling *r, uint32_t dim, uint32_t context) {
    json_text(b, "rope_type", STR("longrope"));
    config_add_divisors(b, "short_factor", r->divisors, dim / 2);
    config_add_divisors(b, "long_factor", r->divisors, dim / 2);
    json_float(b, "factor", 1);
    json_float(b, "attention_factor", r->magnitude);
    json_count_of(b, "original_max_position_embeddings", context);
}

static void write_hf_scaling(hf_writer *w, const rope_scaling *r) {
    buf *b = w->b;
    const uint32_t dim = w->c->rope_dim;
    const bool outside = class_has(w, "original_max_position_embeddings");
    rope_scaling found;
    const rope_scaling *llama3 = r->kind == SCALING_LLAMA3 ? r : NULL;
    if (r->kind == SCALING_NONE && r->divisors != NULL && find_llama3(r, dim, &found)) {
        llama3 = &found;
    }
    json_key(b, "rope_scaling");
    if (r->kind == SCALING_NONE && r->divisors == NULL) {
        buf_printf(b, "null");
        return;
    }
    buf_printf(b, "{");
    if (llama3 != NULL) {
        write_llama3(b, llama3);
    } else if (r->divisors != NULL) {
        write_divisors(b, r, dim, w->c->context);
    } else if (r->kind == SCALING_LONG) {
        rope_scaling usual = *r;
        usual.magnitude = 0;
        usual.factor = w->c->context / r->original_context;
        rope_settle(&usual);
        json_text(b, outside ? "type" : "rope_type", STR("longrope"));
        config_add_divisors(b, "short_factor", r->short_factors, dim / 2);
        config_add_divisors(b, "long_factor", r->long_factors, dim / 2);
        if (usual.magnitude != r->magnitude) {
            json_float(b, "attention_factor", r->magnitude);
        }
    } else {
        json_text(b, "rope_type",
                  r->kind == SCALING_LINEAR ? STR("linear")
                  : r->kind == SCALING_YARN ? STR("yarn")
                                            : STR("dynamic"));
        json_float(b, "factor", r->factor);
    }
    if (r->kind == SCALING_YARN) {
        json_float(b, "beta_fast", r->beta_fast);
        json_float(b, "beta_slow", r->beta_slow);
        if (r->exact) json_flag(b, "truncate", false);
        if (rope_attention(r) != 1) json_float(b, "attention_factor", r->magnitude);
    }
    if ((r->kind == SCALING_YARN || r->kind == SCALING_LONG) && !outside) {
        json_count_of(b, "original_max_position_embeddings", (uint64_t)r->original_context);
    }
    buf_printf(b, "}");
}

static void write_hf_rope(hf_writer *w) {
    const config *c = w->c;
    if (c->family->learned_positions) {
        return;
    }
    const rope_scaling *r = &c->rope[ROPE_GLOBAL];
    json_float(w->b, "rope_theta", r->theta);
    if (c->family->local_rope) {
        json_float(w->b, "rope_local_base_freq", c->rope[ROPE_LOCAL].theta);
    }
    if (class_has(w, "original_max_position_embeddings")) {
        json_count_of(w->b, "original_max_position_embeddings", (uint64_t)r->original_context);
    }
    if (c->rope_dim != c->head_dim) {
        double share = (double)c->rope_dim / c->head_dim;
        while ((uint32_t)(c->head_dim * share) < c->rope_dim)
            share = nextafter(share, 1);
        json_real(w->b, "partial_rotary_factor", share);
    }
    write_hf_scaling(w, r);
    if (!class_has(w, "no_rope_layers")) {
        return;
    }
    json_count_of(w->b, "no_rope_layer_interval",
                  c->family->rope_interval > 0 ? c->family->rope_interval : 1);
    json_key(w->b, "no_rope_layers"); /* 1: the layer has RoPE */
    buf_printf(w->b, "[");
    for (uint32_t i = 0; i < c->n_layers; i++) {
        json_item(w->b);
        buf_printf(w->b, c->layer_rope[i] == ROPE_NONE ? "0" : "1");
    }
    buf_printf(w->b, "]");
}

/* Null where it is not known: classes have defaults that mean other tokens, or none. */
static void write_hf_tokens(hf_writer *w, const container *source) {
    static const char *const ids[][2] = { { "bos_token_id", "tokenizer.ggml.bos_token_id" },
                                          { "eos_token_id", "tokenizer.ggml.eos_token_id" },
                                          { "pad_token_id", "tokenizer.ggml.padding_token_id" } };
    for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
        const meta_value *v = container_meta(source, ids[i][1]);
        if (v != NULL && v->type == META_UINT && v->u < w->c->vocab_size) {
            json_count_of(w->b, ids[i][0], v->u);
        } else {
            json_null(w->b, ids[i][0]);
        }
    }
}

/* The text must say all that the description does. */
static bool check_hf_text(const config *c, const container *source, const buf *text,
                          dp_error *err) {
    arena a = { 0 };
    json *doc = json_open((str){ text->data, text->size }, "config.json", err);
    config back = { .architecture = "", .layer_prefix = "" };
    /* nothing of the files is read: they are the path in messages */
    config_source s = {
        .files = (container *)source, .json = json_root(doc), .arena = &a, .err = err
    };
    bool ok = doc != NULL && config_from_json(&s, &back);
    const char *lost = ok ? config_difference(c, &back) : NULL;
    if (lost != NULL || (ok && back.vocab_size != c->vocab_size)) {
        ok = err_set(err, DP_E_UNSUPPORTED, "%s: a config.json of '%s' models cannot say %s",
                     container_path(source), c->family->hf,
                     lost != NULL ? lost : "the vocabulary's size");
    }
    json_close(doc);
    arena_free(&a);
    return ok;
}

bool config_write_hf(const config *c, const container *source, buf *out, dp_error *err) {
    const family *f = c->family;
    if (f->hf == NULL) {
        return err_set(err, DP_E_UNSUPPORTED,
                       "%s: no model of transformers has this architecture, so that there is no "
                       "config.json for it",
                       container_path(source));
    }
    buf text;
    buf_init(&text, out->ceiling);
    hf_writer w = { .b = &text, .c = c, .biases = config_biases(c, source) };
    const uint32_t odd = w.biases & ~f->biases & ~f->bias_switches;
    if (odd & (BIAS_QKV | BIAS_O | BIAS_FFN)) {
        return err_set(err, DP_E_UNSUPPORTED,
                       "%s: a config.json of '%s' models cannot say that %s have biases",
                       container_path(source), f->hf,
                       odd & BIAS_FFN ? "feed-forward matrices" : "attention's matrices");
    }
    buf_printf(&text, "{");
    write_hf_shapes(&w);
    write_hf_factors(&w);
    write_hf_windows(&w);
    write_hf_rope(&w);
    json_flag(&text, "tie_word_embeddings", config_is_tied(c, source));
    write_hf_tokens(&w, source);
    buf_printf(&text, "}");
    const bool ok = buf_ok(&text, "config.json", err) && check_hf_text(c, source, &text, err);
    if (ok) {
        buf_add(out, text.data, text.size);
    }
    buf_free(&text);
    return ok && buf_ok(out, "config.json", err);
}
