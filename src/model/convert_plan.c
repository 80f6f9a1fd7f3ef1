/* convert_plan: the list of tensors that a converted model has, each with where its rows come from.
 *
 * The source has been described and its tensors found as for running it; what is written follows
 * from the same table of fields (fields.c) by the names of the target. So rows of Q and K change
 * their order, 1 is added to norms or taken away, fused matrices come apart or together, experts
 * are stacked or separate by what the two spellings say, and by nothing else. */
#include "model/convert_internal.h"

#include <stdio.h>

static out_tensor *new_tensor(conversion *v, const char *name, tensor_role role, dp_error *err) {
    if (v->n_tensors == v->tensors_max) {
        const uint32_t max = v->tensors_max == 0 ? 256 : 2 * v->tensors_max;
        out_tensor *more = mem_resize(v->tensors, max, sizeof *more, "output tensors", err);
        if (more == NULL) {
            return NULL;
        }
        v->tensors = more;
        v->tensors_max = max;
    }
    out_tensor *t = &v->tensors[v->n_tensors];
    *t = (out_tensor){ .role = role, .layer = UINT32_MAX, .expert = UINT32_MAX, .outer = 1 };
    t->name = (str){ arena_copy(&v->memory, name, strlen(name), err), strlen(name) };
    if (t->name.data == NULL) {
        return NULL;
    }
    v->n_tensors++;
    return t;
}

static void add_rows_of_matrix(out_tensor *t, const weight *w, uint32_t expert) {
    const bool one = t->expert != UINT32_MAX;
    t->parts[t->n_parts++] = (out_part){ .matrix = w,
                                         .first = one ? (uint64_t)expert * w->rows : 0,
                                         .stride = w->rows,
                                         .rows = w->rows };
    t->rows += w->rows;
    t->cols = w->cols;
    t->outer = w->experts && !one ? w->n_pieces : 1;
}

/* `add`: what the target wants on top of the model's value. */
static void add_values(out_tensor *t, const vector *values, float add, uint64_t outer) {
    const uint32_t each = (uint32_t)(values->n / outer);
    t->parts[t->n_parts] = (out_part){ .values = *values, .stride = each, .rows = each };
    t->parts[t->n_parts++].values.add += add;
    t->rows += each;
    t->cols = 1;
    t->outer = outer;
}

/* Whether the model's value of a norm is one more than what the target stores. */
static float norm_shift(const conversion *v, const layer_field *f) {
    static const size_t norms[] = {
        offsetof(layer_weights, attn_norm), offsetof(layer_weights, post_attn_norm),
        offsetof(layer_weights, ffn_norm),  offsetof(layer_weights, post_ffn_norm),
        offsetof(layer_weights, q_norm),    offsetof(layer_weights, k_norm)
    };
    for (size_t i = 0; i < ARRAY_LEN(norms); i++) {
        if (f == NULL || f->offset == norms[i]) {
            return v->family->norm_plus_one && !v->to_gguf ? -1 : 0;
        }
    }
    return 0;
}

/* ---- roles and formats --------------------------------------------------------------------- */

static tensor_role role_of(const layer_field *f) {
    static const struct {
        size_t offset;
        tensor_role role;
    } roles[] = {
        { offsetof(layer_weights, q), ROLE_ATTN_Q },
        { offsetof(layer_weights, k), ROLE_ATTN_K },
        { offsetof(layer_weights, v), ROLE_ATTN_V },
        { offsetof(layer_weights, o), ROLE_ATTN_O },
        { offsetof(layer_weights, gate), ROLE_GATE },
        { offsetof(layer_weights, up), ROLE_UP },
        { offsetof(layer_weights, down), ROLE_DOWN },
        { offsetof(layer_weights, router), ROLE_ROUTER },
        { offsetof(layer_weights, expert_gate), ROLE_GATE },
        { offsetof(layer_weights, expert_up), ROLE_UP },
        { offsetof(layer_weights, expert_down), ROLE_DOWN },
    };
    for (size_t i = 0; i < ARRAY_LEN(roles) && is_matrix(f); i++) {
        if (roles[i].offset == f->offset) {
            return roles[i].role;
        }
    }
    return ROLE_VECTOR;
}

/* The format that the source has most of in this tensor, by bits a weight. */
static dtype source_type(const out_tensor *t) {
    dtype best = DTYPE_F32;
    double bits = -1;
    for (uint32_t p = 0; p < t->n_parts; p++) {
        const out_part *part = &t->parts[p];
        const dtype type = part->matrix != NULL ? part->matrix->type : part->values.source->type;
        const dtype_info *info = dtype_get(type);
        const double b = (double)info->block_bytes / info->block_elements;
        if (b > bits) {
            best = type;
            bits = b;
        }
    }
    return best;
}

static importance_site site_of(tensor_role role) {
    switch (role) {
    case ROLE_ATTN_O:
        return SITE_ATTENTION;
    case ROLE_GATE:
    case ROLE_UP:
    case ROLE_GATE_UP:
    case ROLE_ROUTER:
        return SITE_FFN_INPUT;
    case ROLE_DOWN:
        return SITE_FFN_HIDDEN;
    case ROLE_HEAD:
    case ROLE_EMBEDDING:
        return SITE_OUTPUT;
    default:
        return SITE_ATTENTION_INPUT;
    }
}

/* Format, layout and size of a tensor whose parts are known, and its place behind the others. */
static bool finish_tensor(conversion *v, out_tensor *t, dp_error *err) {
    const dtype source = t->given != NULL ? DTYPE_F32 : source_type(t);
    const bool is_vector = t->role == ROLE_VECTOR;
    const bool may_turn =
        !is_vector && t->role != ROLE_EMBEDDING && t->role != ROLE_ROUTER && t->outer == 1;
    t->layout = may_turn ? v->q4k_layout : LAYOUT_ROWS;
    t->type = conversion_type(v, t, source);
    if (t->layout != LAYOUT_ROWS && t->type != DTYPE_Q4_K) {
        t->layout = LAYOUT_ROWS;
        t->type = conversion_type(v, t, source);
    }
    if (may_turn && v->options->transpose && !dtype_is_quantised(t->type)) {
        t->layout = LAYOUT_COLUMNS;
    }
    if (v->importance != NULL && !is_vector) {
        const uint32_t layer = t->layer == UINT32_MAX ? 0 : t->layer;
        t->importance = importance_of(v->importance, layer, site_of(t->role), t->cols);
    }
    if (t->n_dims == 0) { /* as most matrices */
        t->n_dims = t->outer > 1 ? 3 : 2;
        const uint64_t shape[] = { t->outer, t->rows, t->cols };
        memcpy(t->shape, shape + (t->outer > 1 ? 0 : 1), t->n_dims * sizeof *shape);
    }
    if (!rows_measure(t, err)) {
        return false;
    }
    t->offset = align_up(v->bytes, v->alignment);
    t->first_job = v->n_jobs;
    v->n_jobs += t->n_jobs;
    return add_u64(t->offset, t->n_bytes, &v->bytes) ||
           err_set(err, DP_E_LIMIT, "%s: more bytes than a file can hold", v->out);
}

/* ---- tensors of layers --------------------------------------------------------------------- */

static void *field_in(const conversion *v, uint32_t layer, const layer_field *f) {
    return (char *)&v->weights.layers[layer] + f->offset;
}

static bool has_field(const conversion *v, uint32_t layer, const layer_field *f) {
    const void *where = field_in(v, layer, f);
    return need_of(&v->config, f->use) != FIELD_ABSENT &&
           (is_matrix(f) ? ((const weight *)where)->n_pieces > 0
                         : ((const vector *)where)->source != NULL);
}

/* Whether the target keeps the fields of a fusion in one tensor. */
static bool is_written_fused(const conversion *v, const layer_field *f) {
    switch (f->fuse) {
    case FUSE_QKV:
    case FUSE_QKV_BIAS:
        /* other readers of packs know Q, K and V apart; GPT-2 is none of theirs */
        return v->family->fused_qkv && (v->to_gguf || v->family->transposed);
    case FUSE_FFN:
        return (v->family->fused_ffn && v->to_gguf) ||
               (v->options->fuse_gate_up && !v->config.family->ungated);
    case FUSE_EXPERTS_BIAS:
    case FUSE_DOWN_BIAS:
        return !v->to_gguf; /* folders have no name for one alone */
    default:
        return false;
    }
}

static void add_field(const conversion *v, out_tensor *t, uint32_t layer, const layer_field *f,
                      uint32_t expert) {
    const void *where = field_in(v, layer, f);
    if (is_matrix(f)) {
        add_rows_of_matrix(t, where, expert);
    } else {
        add_values(t, where, norm_shift(v, f),
                   f->kind == IS_EXPERT_VECTOR ? v->config.n_experts : 1);
    }
}

/* GGUF files of some families have the dimensions of queries and keys in pairs. */
static bool is_paired(const conversion *v, const layer_field *f) {
    static const size_t turned[] = {
        offsetof(layer_weights, q),      offsetof(layer_weights, k),
        offsetof(layer_weights, q_bias), offsetof(layer_weights, k_bias),
        offsetof(layer_weights, q_norm), offsetof(layer_weights, k_norm)
    };
    bool is_turned = false;
    for (size_t i = 0; i < ARRAY_LEN(turned); i++) {
        is_turned = is_turned || f->offset == turned[i];
    }
    return is_turned && v->to_gguf && v->family->gguf_interleaved;
}

static bool begin_field(conversion *v, uint32_t layer, const layer_field *f, const char *name,
                        uint32_t expert, out_tensor **t, dp_error *err) {
    char full[TENSOR_NAME_BYTES];
    full_tensor_name(&v->names, v->spelling, layer, name, expert == UINT32_MAX ? 0 : expert, "",
                     full);
    *t = new_tensor(v, full, role_of(f), err);
    if (*t == NULL) {
        return false;
    }
    (*t)->layer = layer;
    (*t)->expert = expert;
    (*t)->experts = is_of_experts(f);
    return true;
}

static void shape_vector(out_tensor *t) {
    t->n_dims = t->outer > 1 ? 2 : 1;
    const uint64_t shape[] = { t->outer, t->rows };
    memcpy(t->shape, shape + (t->outer > 1 ? 0 : 1), t->n_dims * sizeof *shape);
}

static bool add_alone(conversion *v, uint32_t layer, const layer_field *f, const char *name,
                      uint32_t expert, dp_error *err) {
    out_tensor *t;
    if (!begin_field(v, layer, f, name, expert, &t, err)) {
        return false;
    }
    add_field(v, t, layer, f, expert);
    t->paired = is_paired(v, f);
    if (!is_matrix(f)) {
        shape_vector(t);
    }
    return finish_tensor(v, t, err);
}

/* All fields of the fusion that `first` begins, in one tensor. */
static bool add_fused(conversion *v, uint32_t layer, const layer_field *first, dp_error *err) {
    const fusion *u = &FUSIONS[first->fuse - 1];
    out_tensor *t;
    if (!begin_field(v, layer, first, fusion_name(&v->names, v->spelling, u), UINT32_MAX, &t,
                     err)) {
        return false;
    }
    t->role = first->fuse == FUSE_QKV   ? ROLE_ATTN_QKV
              : first->fuse == FUSE_FFN ? ROLE_GATE_UP
                                        : t->role;
    for (size_t i = 0; i < N_LAYER_FIELDS; i++) {
        const layer_field *f = &LAYER_FIELDS[i];
        if (f->fuse != first->fuse) {
            continue;
        }
        if (!has_field(v, layer, f)) {
            return err_set(err, DP_E_UNSUPPORTED,
                           "%s: layer %u has no %s to be fused into %.*s with the others", v->in,
                           layer, f->gguf, STR_ARG(t->name));
        }
        if (is_paired(v, f)) {
            return err_set(err, DP_E_UNSUPPORTED,
                           "%s: the rows of %s would change their order inside %.*s", v->in,
                           f->gguf, STR_ARG(t->name));
        }
        add_field(v, t, layer, f, UINT32_MAX);
    }
    if (!is_matrix(first)) {
        shape_vector(t);
    }
    return finish_tensor(v, t, err);
}

static bool add_layer(conversion *v, uint32_t layer, dp_error *err) {
    for (size_t i = 0; i < N_LAYER_FIELDS; i++) {
        const layer_field *f = &LAYER_FIELDS[i];
        if (!has_field(v, layer, f)) {
            continue;
        }
        if (is_written_fused(v, f)) {
            if (f->place == 0 && !add_fused(v, layer, f, err)) {
                return false;
            }
            continue;
        }
        const char *name = field_name(&v->names, v->spelling, f->gguf, f->hf);
        if (name == NULL) {
            return err_set(err, DP_E_UNSUPPORTED, "%s: packs have no name for %s", v->in, f->gguf);
        }
        const bool each = strstr(name, "%u") != NULL;
        for (uint32_t e = 0; e < (each ? v->config.n_experts : 1); e++) {
            if (!add_alone(v, layer, f, name, each ? e : UINT32_MAX, err)) {
                return false;
            }
        }
    }
    return true;
}

/* ---- the rest ------------------------------------------------------------------------------ */

/* The one of a tensor's folder names that goes with the layers' prefix. */
static const char *outer_name(const conversion *v, int which) {
    if (v->to_gguf) {
        return OUTER[which].gguf;
    }
    const char *prefix = v->names.layer_prefix;
    const char *end = strstr(prefix, "layers.");
    end = end != NULL ? end : strstr(prefix, "h.");
    const size_t root = end != NULL ? (size_t)(end - prefix) : 0;
    const char *found = OUTER[which].hf[0];
    for (size_t i = 0; i < OUTER_NAMES && OUTER[which].hf[i] != NULL; i++) {
        const char *name = OUTER[which].hf[i];
        const bool bare = strchr(name, '.') == strrchr(name, '.'); /* "wte.weight" */
        if (root > 0 ? strncmp(name, prefix, root) == 0 : bare) {
            found = name;
            if (root > 0 && strncmp(name + root, "language_model.", 15) != 0) {
                break;
            }
        }
    }
    return found;
}

static bool add_outer_matrix(conversion *v, int which, tensor_role role, const weight *w,
                             dp_error *err) {
    out_tensor *t = new_tensor(v, outer_name(v, which), role, err);
    if (t == NULL) {
        return false;
    }
    add_rows_of_matrix(t, w, 0);
    return finish_tensor(v, t, err);
}

static bool add_outer_vector(conversion *v, int which, const vector *values, float shift,
                             dp_error *err) {
    if (values->source == NULL) {
        return true;
    }
    out_tensor *t = new_tensor(v, outer_name(v, which), ROLE_VECTOR, err);
    if (t == NULL) {
        return false;
    }
    add_values(t, values, shift, 1);
    shape_vector(t);
    if (which == POSITIONS) {
        t->n_dims = 2;
        t->shape[0] = values->n / v->config.dim;
        t->shape[1] = v->config.dim;
    }
    return finish_tensor(v, t, err);
}

/* What a GGUF file says of RoPE by tensors. */
static bool add_rope_tensors(conversion *v, dp_error *err) {
    rope_tensor *tables =
        arena_new(&v->memory, ROPE_TENSORS_MAX, sizeof *tables, "RoPE factors", err);
    if (tables == NULL) {
        return false;
    }
    const uint32_t n = config_rope_tensors(&v->config, tables);
    for (uint32_t i = 0; i < n; i++) {
        out_tensor *t = new_tensor(v, tables[i].name, ROLE_VECTOR, err);
        if (t == NULL) {
            return false;
        }
        t->given = tables[i].values;
        t->rows = tables[i].n;
        t->cols = 1;
        shape_vector(t);
        if (!finish_tensor(v, t, err)) {
            return false;
        }
    }
    return true;
}

bool conversion_plan(conversion *v, dp_error *err) {
    const weights *w = &v->weights;
    if (!conversion_read_types(v, err) ||
        !add_outer_matrix(v, EMBEDDING, ROLE_EMBEDDING, &w->embedding, err) ||
        !add_outer_vector(v, POSITIONS, &w->positions, 0, err)) {
        return false;
    }
    for (uint32_t i = 0; i < v->config.n_layers; i++) {
        if (!add_layer(v, i, err)) {
            return false;
        }
    }
    if (!add_outer_vector(v, OUTPUT_NORM, &w->output_norm, norm_shift(v, NULL), err) ||
        !add_outer_vector(v, OUTPUT_NORM_BIAS, &w->output_norm_bias, 0, err)) {
        return false;
    }
    if (w->head.pieces != w->embedding.pieces &&
        !add_outer_matrix(v, HEAD, ROLE_HEAD, &w->head, err)) {
        return false;
    }
    if (v->to_gguf && !add_rope_tensors(v, err)) {
        return false;
    }
    v->bytes = align_up(v->bytes, v->alignment);
    return true;
}
