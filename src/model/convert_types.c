/* convert_types: which format each tensor of a converted model gets.
 *
 * A mixture names the format of most matrices; those that quality hangs on get more bits. The rules
 * are those of the mixtures of the same names in GGUF files, so that a name promises the same size
 * and quality everywhere. Formats whose blocks do not divide a row fall back to ones that do,
 * except in packs, whose rows are filled up where that costs little. */
#include "model/convert_internal.h"

static const mixture MIXTURES[] = {
    { "f32", DTYPE_F32, 0 },        { "f16", DTYPE_F16, 1 },        { "bf16", DTYPE_BF16, 32 },
    { "q8_0", DTYPE_Q8_0, 7 },      { "q4_0", DTYPE_Q4_0, 2 },      { "q4_1", DTYPE_Q4_1, 3 },
    { "q5_0", DTYPE_Q5_0, 8 },      { "q5_1", DTYPE_Q5_1, 9 },      { "q2_k", DTYPE_Q2_K, 10 },
    { "q3_k_m", DTYPE_Q3_K, 12 },   { "q4_k_s", DTYPE_Q4_K, 14 },   { "q4_k_m", DTYPE_Q4_K, 15 },
    { "q5_k_s", DTYPE_Q5_K, 16 },   { "q5_k_m", DTYPE_Q5_K, 17 },   { "q6_k", DTYPE_Q6_K, 18 },
    { "iq4_nl", DTYPE_IQ4_NL, 25 }, { "iq4_xs", DTYPE_IQ4_XS, 30 }, { "mxfp4", DTYPE_MXFP4, 38 },
};

#define BIT(role) (1u << (role))
enum {
    ATTENTION = 1u << ROLE_ATTN_Q | 1u << ROLE_ATTN_K | 1u << ROLE_ATTN_V | 1u << ROLE_ATTN_QKV |
                1u << ROLE_ATTN_O,
    FEED_FORWARD = 1u << ROLE_GATE | 1u << ROLE_UP | 1u << ROLE_GATE_UP | 1u << ROLE_DOWN,
};

const role_name ROLE_NAMES[] = {
    { "embedding", BIT(ROLE_EMBEDDING), false },
    { "head", BIT(ROLE_HEAD), false },
    { "attn", ATTENTION, false },
    { "attn_q", BIT(ROLE_ATTN_Q), false },
    { "attn_k", BIT(ROLE_ATTN_K), false },
    { "attn_v", BIT(ROLE_ATTN_V), false },
    { "attn_qkv", BIT(ROLE_ATTN_QKV), false },
    { "attn_o", BIT(ROLE_ATTN_O), false },
    { "ffn", FEED_FORWARD, false },
    { "ffn_gate", BIT(ROLE_GATE) | BIT(ROLE_GATE_UP), false },
    { "ffn_up", BIT(ROLE_UP) | BIT(ROLE_GATE_UP), false },
    { "ffn_down", BIT(ROLE_DOWN), false },
    { "experts", FEED_FORWARD, true },
    { "router", BIT(ROLE_ROUTER), false },
    { NULL, 0, false },
};

/* Names are small letters in the tables; any case is taken. */
static bool is_named(str text, const char *name) {
    const size_t n = strlen(name);
    if (text.size != n) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        const char c = text.data[i];
        if ((c >= 'A' && c <= 'Z' ? (char)(c + 32) : c) != name[i]) {
            return false;
        }
    }
    return true;
}

const mixture *mixture_by_name(str name) {
    for (size_t i = 0; i < ARRAY_LEN(MIXTURES); i++) {
        if (is_named(name, MIXTURES[i].name)) {
            return &MIXTURES[i];
        }
    }
    return NULL;
}

const mixture *mixture_of_type(dtype type) {
    const mixture *found = &MIXTURES[0];
    for (size_t i = 0; i < ARRAY_LEN(MIXTURES); i++) {
        found = MIXTURES[i].type == type ? &MIXTURES[i] : found;
    }
    return found;
}

void mixture_names(buf *out) {
    for (size_t i = 0; i < ARRAY_LEN(MIXTURES); i++) {
        buf_printf(out, "%s%s", i > 0 ? ", " : "", MIXTURES[i].name);
    }
}

/* A format for one role: a mixture's name whose tensors are all of one format, or "q4_k". */
static bool read_type(str name, dtype *type) {
    const mixture *m = mixture_by_name(name);
    if (m != NULL) {
        *type = m->type;
        return true;
    }
    return dtype_by_name(name, type) && weight_type_is_usable(*type);
}

static bool read_override(conversion *v, const char *text, dp_error *err) {
    const char *equals = strchr(text, '=');
    const str role = { text, equals != NULL ? (size_t)(equals - text) : strlen(text) };
    if (v->n_overrides == ARRAY_LEN(v->overrides)) {
        return err_set(err, DP_E_LIMIT, "more than %zu formats for roles", ARRAY_LEN(v->overrides));
    }
    role_override *o = &v->overrides[v->n_overrides++];
    for (const role_name *r = ROLE_NAMES; r->name != NULL; r++) {
        if (is_named(role, r->name)) {
            o->role = r;
        }
    }
    if (equals == NULL || o->role == NULL) {
        buf names;
        buf_init(&names, 4096);
        for (const role_name *r = ROLE_NAMES; r->name != NULL; r++) {
            buf_printf(&names, "%s%s", r == ROLE_NAMES ? "" : ", ", r->name);
        }
        err_set(err, DP_E_ARGUMENT, "roles: \"%.100s\" is not ROLE=TYPE; roles are %s", text,
                names.data != NULL ? names.data : "");
        buf_free(&names);
        return false;
    }
    return read_type(str_of(equals + 1), &o->type) ||
           err_set(err, DP_E_ARGUMENT, "roles: \"%.100s\": \"%.60s\" is no format for weights",
                   text, equals + 1);
}

static bool read_layout(conversion *v, const char *name, dp_error *err) {
    static const struct {
        const char *name;
        tensor_layout layout;
    } layouts[] = { { "row_wise", LAYOUT_ROWS },
                    { "column_wise", LAYOUT_COLUMNS },
                    { "flat", LAYOUT_FLAT } };
    if (name == NULL) {
        return true;
    }
    for (size_t i = 0; i < ARRAY_LEN(layouts); i++) {
        if (strcmp(name, layouts[i].name) == 0) {
            v->q4k_layout = layouts[i].layout;
            return v->q4k_layout == LAYOUT_ROWS || !v->to_gguf ||
                   err_set(err, DP_E_ARGUMENT, "q4k_layout: \"%s\": only packs have that", name);
        }
    }
    return err_set(err, DP_E_ARGUMENT,
                   "q4k_layout: \"%.60s\" is no layout: row_wise, column_wise, flat", name);
}

bool conversion_read_types(conversion *v, dp_error *err) {
    const dp_convert_options *o = v->options;
    if (o->quantize != NULL) {
        v->mixture = mixture_by_name(str_of(o->quantize));
        if (v->mixture == NULL) {
            buf names;
            buf_init(&names, 4096);
            mixture_names(&names);
            err_set(err, DP_E_ARGUMENT, "quantize: \"%.60s\" is no quantisation; there are %s",
                    o->quantize, names.data != NULL ? names.data : "");
            buf_free(&names);
            return false;
        }
    }
    for (size_t i = 0; i < o->n_roles; i++) {
        if (!read_override(v, o->roles[i], err)) {
            return false;
        }
    }
    return read_layout(v, o->q4k_layout, err);
}

/* ---- mixtures ------------------------------------------------------------------------------ */

/* Half of the layers: the first and last eighth, and every third between. */
static bool has_more_bits(uint32_t layer, uint32_t n) {
    return layer < n / 8 || layer >= 7 * n / 8 || (layer - n / 8) % 3 == 2;
}

/* Keys and values by many query heads: worth more bits. */
static bool shares_keys(const config *c) {
    return c->n_heads >= 4 * c->n_kv_heads;
}

static dtype type_of_values(const conversion *v, uint32_t layer) {
    const config *c = &v->config;
    const bool more = has_more_bits(layer, c->n_layers);
    const char *name = v->mixture->name;
    if (strcmp(name, "q4_k_m") == 0 || strcmp(name, "q5_k_m") == 0) {
        return more ? DTYPE_Q6_K : v->mixture->type;
    }
    if (strcmp(name, "q4_k_s") == 0) {
        return layer < 4 ? DTYPE_Q5_K : DTYPE_Q4_K;
    }
    if (strcmp(name, "q3_k_m") == 0) {
        return layer < 2 ? DTYPE_Q5_K : DTYPE_Q4_K;
    }
    if (strcmp(name, "q2_k") == 0) {
        return shares_keys(c) ? DTYPE_Q4_K : DTYPE_Q3_K;
    }
    if (strcmp(name, "iq4_nl") == 0 || strcmp(name, "iq4_xs") == 0) {
        return shares_keys(c) ? DTYPE_Q5_K : v->mixture->type;
    }
    return v->mixture->type;
}

static dtype type_of_down(const conversion *v, uint32_t layer) {
    const uint32_t n = v->config.n_layers;
    const char *name = v->mixture->name;
    if (strcmp(name, "q4_k_m") == 0 || strcmp(name, "q5_k_m") == 0) {
        return has_more_bits(layer, n) ? DTYPE_Q6_K : v->mixture->type;
    }
    if (strcmp(name, "q4_k_s") == 0) {
        return layer < n / 8 ? DTYPE_Q5_K : DTYPE_Q4_K;
    }
    if (strcmp(name, "q3_k_m") == 0) {
        return layer < n / 16 ? DTYPE_Q5_K : has_more_bits(layer, n) ? DTYPE_Q4_K : DTYPE_Q3_K;
    }
    if (strcmp(name, "q2_k") == 0) {
        return DTYPE_Q3_K;
    }
    if ((strcmp(name, "iq4_nl") == 0 || strcmp(name, "iq4_xs") == 0) && v->importance == NULL) {
        return layer < n / 8 ? DTYPE_Q5_K : v->mixture->type;
    }
    return v->mixture->type;
}

static dtype type_of_output(const conversion *v) {
    const char *name = v->mixture->name;
    if (strcmp(name, "q2_k") == 0) {
        return DTYPE_Q3_K;
    }
    if (strcmp(name, "q3_k_m") == 0) {
        return DTYPE_Q4_K;
    }
    return v->mixture->type;
}

/* What the mixture wants, before widths are looked at. */
static dtype wanted_type(const conversion *v, const out_tensor *t) {
    const dtype base = v->mixture->type;
    const bool plain = !dtype_is_quantised(base);
    const bool small_k = base == DTYPE_Q2_K || base == DTYPE_Q3_K || base == DTYPE_Q4_K ||
                         base == DTYPE_IQ4_NL || base == DTYPE_IQ4_XS;
    const bool eight = v->config.n_experts == 8 && small_k;
    const bool is_head =
        t->role == ROLE_HEAD ||
        (t->role == ROLE_EMBEDDING && v->weights.head.pieces == v->weights.embedding.pieces);
    if (plain || base == DTYPE_Q8_0) {
        return base;
    }
    if (is_head) {
        return base == DTYPE_MXFP4 ? DTYPE_Q8_0 : DTYPE_Q6_K;
    }
    if (base == DTYPE_MXFP4 &&
        (t->role == ROLE_EMBEDDING || (v->config.n_experts > 0 && !t->experts))) {
        return DTYPE_Q8_0;
    }
    switch (t->role) {
    case ROLE_ATTN_V:
        return eight ? DTYPE_Q8_0 : type_of_values(v, t->layer);
    case ROLE_ATTN_QKV:
        return type_of_values(v, t->layer);
    case ROLE_ATTN_K:
        return eight ? DTYPE_Q8_0 : base;
    case ROLE_ATTN_O:
        return eight ? DTYPE_Q5_K : type_of_output(v);
    case ROLE_DOWN:
        return type_of_down(v, t->layer);
    default:
        return base;
    }
}

/* A format whose blocks divide the row, with at least as many bits. */
static dtype narrower(dtype type) {
    switch (type) {
    case DTYPE_Q2_K:
    case DTYPE_Q3_K:
        return DTYPE_Q4_0;
    case DTYPE_Q4_K:
        return DTYPE_Q5_0;
    case DTYPE_Q5_K:
        return DTYPE_Q5_1;
    case DTYPE_Q6_K:
        return DTYPE_Q8_0;
    case DTYPE_IQ4_XS:
        return DTYPE_IQ4_NL;
    default:
        return DTYPE_F16;
    }
}

static bool row_fits(const conversion *v, const out_tensor *t, dtype type) {
    const uint64_t block = dtype_get(type)->block_elements;
    const uint64_t cols = t->layout == LAYOUT_COLUMNS ? t->rows : t->cols;
    if (t->layout == LAYOUT_FLAT || cols % block == 0) {
        return true;
    }
    /* packs fill rows up; blocks of 32 are only for rows of whole ones */
    const uint64_t filled = (cols + block - 1) / block * block;
    return !v->to_gguf && block == 256 && (t->layout == LAYOUT_COLUMNS || filled * 4 <= cols * 5);
}

dtype conversion_type(const conversion *v, const out_tensor *t, dtype source) {
    dtype type = source;
    bool said = false; /* by name, for this role */
    if (t->role == ROLE_VECTOR) {
        return DTYPE_F32; /* small, and read as such everywhere */
    }
    if (v->mixture != NULL && t->role != ROLE_ROUTER) {
        type = wanted_type(v, t);
    }
    for (uint32_t i = 0; i < v->n_overrides; i++) {
        const role_name *r = v->overrides[i].role;
        if ((r->roles & BIT(t->role)) != 0 && (!r->experts || t->experts)) {
            type = v->overrides[i].type;
            said = true;
        }
    }
    if (t->role == ROLE_ROUTER && !said) {
        return type;
    }
    while (!row_fits(v, t, type)) {
        type = narrower(type);
    }
    return type;
}
