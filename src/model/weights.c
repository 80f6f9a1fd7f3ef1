/* weights: the tensors of a model, found by name, checked, and cut to the device's bindings.
 *
 * What is looked for is in fields.c. Matrices stay in their format; vectors (norms, biases) become
 * f32, which is what the kernels add. A matrix over the binding limit is cut between rows, one of
 * experts between experts; parts start at aligned offsets of a few large buffers. Taking them there
 * is weight_upload.c's, reading the tensors weight_read.c's. */
#include "model/weights_internal.h"

#include <stdio.h>

/* The state of planning. */
typedef struct {
    weights *w;
    const config *c;
    const container *files;
    weight_limits limits;
    tensor_spelling spelling;
    arena *a;
    dp_error *err;
    uint32_t layer;
    uint64_t group; /* where in the newest buffer what belongs together began */
    bool *used;     /* [tensors] a field of a layer has it */
} layout;

/* ---- layout -------------------------------------------------------------------------------- */

/* What is taken from here on goes into one buffer if it fits: matrices that are read as one. */
static void layout_begin_group(layout *l) {
    l->group = l->w->newest != NULL ? l->w->newest->size : 0;
}

/* Moves the end of the newest buffer, from where the group began, into this empty one. */
static void layout_move_group(layout *l, weight_buffer *b) {
    weight_buffer *from = l->w->newest;
    weight_place **end = &b->places;
    while (from->places != NULL && from->places->range->offset >= l->group) {
        weight_place *place = from->places;
        from->places = place->next;
        place->range->offset -= l->group;
        place->next = NULL;
        *end = place;
        end = &place->next;
    }
    b->size = from->size - l->group;
    from->size = l->group;
}

/* Space of `size` bytes at an aligned offset of the newest buffer, or of another one if that is
 * full. */
static bool layout_take(layout *l, uint64_t size, gpu_range *range) {
    const uint64_t need = align_up(size, 256);
    weight_buffer *b = l->w->newest;
    if (b == NULL || b->size + need > l->limits.max_buffer) {
        weight_buffer *full = b;
        b = arena_new(l->a, 1, sizeof *b, "weight buffers", l->err);
        if (b == NULL) {
            return false;
        }
        if (full != NULL && l->group > 0 && full->size - l->group + need <= l->limits.max_buffer) {
            layout_move_group(l, b);
        }
        l->group = 0;
        b->older = full;
        l->w->newest = b;
    }
    weight_place *place = arena_new(l->a, 1, sizeof *place, "weight buffers", l->err);
    if (place == NULL) {
        return false;
    }
    *range = (gpu_range){ .offset = b->size, .size = align_up(size, 4) };
    *place = (weight_place){ .range = range, .next = b->places };
    b->places = place;
    b->size += need;
    l->w->bytes += need;
    return true;
}

static bool shape_error(const layout *l, const tensor *t, const char *expected) {
    char shape[96];
    int n = 0;
    for (uint32_t i = 0; i < t->n_dims && n >= 0 && n < (int)sizeof shape - 24; i++) {
        n += snprintf(shape + n, sizeof shape - (size_t)n, i > 0 ? ", %llu" : "%llu",
                      (unsigned long long)t->shape[i]);
    }
    shape[n] = '\0';
    return err_set(l->err, DP_E_FORMAT, "%s: tensor %.*s: shape [%s], expected %s",
                   container_path(l->files), STR_ARG(t->name), shape, expected);
}

/* Does the tensor have these dimensions? 0 ends the list. */
static bool has_shape(const tensor *t, uint64_t a, uint64_t b, uint64_t c, uint64_t d) {
    const uint64_t want[TENSOR_DIMS] = { a, b, c, d };
    uint32_t n = 0;
    while (n < TENSOR_DIMS && want[n] > 0) {
        n++;
    }
    return t->n_dims == n && memcmp(t->shape, want, n * sizeof *want) == 0;
}

/* Cuts a matrix into parts that fit one binding: of rows, or of whole experts. */
static bool place_matrix(layout *l, weight *w) {
    const str name = w->pieces[0].source->name;
    uint64_t row_bytes = 0;
    const bool sized = device_row_bytes(w->type, w->cols, &row_bytes);
    assert(sized); /* the columns are below DIM_MAX or FFN_MAX */
    (void)sized;
    const uint64_t limit = min_u64(l->limits.max_binding, l->limits.max_buffer);
    const uint64_t unit = w->experts ? w->rows * row_bytes : row_bytes;
    const uint32_t units = w->experts ? weights_slots(l->w, l->c, l->layer) : w->rows;
    const uint64_t fit = limit / unit;
    if (fit < 1) {
        return err_set(l->err, DP_E_LIMIT,
                       "%s: tensor %.*s: %s has %llu bytes, a binding of this device %llu",
                       container_path(l->files), STR_ARG(name), w->experts ? "an expert" : "a row",
                       (unsigned long long)unit, (unsigned long long)limit);
    }
    w->n_parts = (uint32_t)((units + fit - 1) / fit);
    w->parts = arena_new(l->a, w->n_parts, sizeof *w->parts, "parts of a matrix", l->err);
    const uint64_t before = l->w->bytes;
    if (w->parts == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < w->n_parts; i++) {
        weight_part *p = &w->parts[i];
        p->first = (uint32_t)(i * fit);
        p->rows = (uint32_t)min_u64(fit, units - p->first);
        if (!layout_take(l, p->rows * unit, &p->range)) {
            return false;
        }
    }
    l->w->expert_bytes += w->experts ? l->w->bytes - before : 0;
    return true;
}

static bool is_dense(dtype type) {
    return type == DTYPE_F32 || type == DTYPE_F16 || type == DTYPE_BF16;
}

static bool check_type(const layout *l, const tensor *t, bool usable) {
    return usable || err_set(l->err, DP_E_UNSUPPORTED, "%s: tensor %.*s: type %s is not supported",
                             container_path(l->files), STR_ARG(t->name), dtype_get(t->type)->name);
}

/* What the device keeps of a tensor: its own type, but f16 of blocks that are no rows. All tensors
 * of a weight are alike. */
static bool set_type(layout *l, weight *w, const tensor *t, bool first) {
    const bool plain = tensor_is_plain(t);
    const dtype type = plain || is_dense(t->type) ? t->type : DTYPE_F16;
    if (!check_type(l, t,
                    weight_type_is_usable(t->type) &&
                        (first || (type == w->type && plain == !w->decoded)))) {
        return false;
    }
    w->type = type;
    w->decoded = !plain;
    if (!plain) {
        l->w->decoded = l->w->n_decoded++ == 0 ? t : l->w->decoded;
    }
    return true;
}

static weight *begin_matrix(layout *l, weight *w, uint32_t n_pieces, bool experts, uint64_t rows,
                            uint64_t cols) {
    *w = (weight){ .rows = (uint32_t)rows, .cols = (uint32_t)cols, .experts = experts };
    w->pieces = arena_new(l->a, n_pieces, sizeof *w->pieces, "pieces of a matrix", l->err);
    w->n_pieces = w->pieces != NULL ? n_pieces : 0;
    return w->pieces != NULL ? w : NULL;
}

/* A tensor [total, cols] or [experts, total, cols], or the last two the other way round. */
static bool find_matrix(layout *l, weight *w, const tensor *t, uint32_t experts, uint64_t rows,
                        uint64_t cols, row_place at) {
    const uint64_t a = at.transposed ? cols : at.total, b = at.transposed ? at.total : cols;
    if (experts > 0 ? !has_shape(t, experts, a, b, 0) : !has_shape(t, a, b, 0, 0)) {
        char expected[80];
        if (experts > 0) {
            snprintf(expected, sizeof expected, "[%u, %llu, %llu]", experts, (unsigned long long)a,
                     (unsigned long long)b);
        } else {
            snprintf(expected, sizeof expected, "[%llu, %llu]", (unsigned long long)a,
                     (unsigned long long)b);
        }
        return shape_error(l, t, expected);
    }
    const uint32_t n = experts > 0 ? experts : 1;
    if (!check_type(l, t, !at.transposed || (is_dense(t->type) && tensor_is_plain(t))) ||
        begin_matrix(l, w, n, experts > 0, rows, cols) == NULL || !set_type(l, w, t, true)) {
        return false;
    }
    for (uint32_t e = 0; e < n; e++) {
        w->pieces[e] = (weight_piece){ .source = t,
                                       .base = e * a * b,
                                       .width = at.total,
                                       .first = at.first,
                                       .step = at.step,
                                       .transposed = at.transposed };
    }
    return place_matrix(l, w);
}

/* Experts as folders of GPT-OSS pack them: NAME_blocks [experts, total, cols / 32, 16] and
 * NAME_scales [experts, total, cols / 32] of bytes. */
static bool find_packed(layout *l, weight *w, const tensor *blocks, const tensor *scales,
                        uint32_t experts, uint64_t rows, uint64_t cols, row_place at) {
    if (cols % 32 != 0 || !has_shape(blocks, experts, at.total, cols / 32, 16)) {
        return shape_error(l, blocks, "[experts, rows, columns / 32, 16]");
    }
    if (!has_shape(scales, experts, at.total, cols / 32, 0)) {
        return shape_error(l, scales, "[experts, rows, columns / 32]");
    }
    if (!check_type(l, blocks, blocks->type == DTYPE_U8) ||
        !check_type(l, scales, scales->type == DTYPE_U8) ||
        !check_type(l, blocks, tensor_is_plain(blocks) && tensor_is_plain(scales)) ||
        begin_matrix(l, w, experts, true, rows, cols) == NULL) {
        return false;
    }
    w->type = DTYPE_MXFP4;
    for (uint32_t e = 0; e < experts; e++) {
        w->pieces[e] = (weight_piece){ .source = blocks,
                                       .scales = scales,
                                       .base = e * at.total * cols,
                                       .width = at.total,
                                       .first = at.first,
                                       .step = at.step };
    }
    return place_matrix(l, w);
}

/* [runs, total] elements, of each of which `rows` are the field's. */
static bool find_vector(layout *l, vector *v, const tensor *t, uint32_t runs, uint32_t rows,
                        row_place at) {
    if (t->n_elements != (uint64_t)runs * at.total || t->n_dims < 1 || t->n_dims > 2) {
        char expected[64];
        snprintf(expected, sizeof expected, runs > 1 ? "[%u, %u]" : "[%.0u%u]", runs > 1 ? runs : 0,
                 at.total);
        return shape_error(l, t, expected);
    }
    if (!is_dense(t->type)) {
        return err_set(l->err, DP_E_UNSUPPORTED,
                       "%s: tensor %.*s: type %s is not supported for a vector",
                       container_path(l->files), STR_ARG(t->name), dtype_get(t->type)->name);
    }
    if ((uint64_t)runs * rows * sizeof(float) > l->limits.max_binding) {
        return err_set(l->err, DP_E_LIMIT,
                       "%s: tensor %.*s: needs %llu bytes in one binding, this device allows %llu",
                       container_path(l->files), STR_ARG(t->name),
                       (unsigned long long)runs * rows * sizeof(float),
                       (unsigned long long)l->limits.max_binding);
    }
    *v = (vector){ .source = t,
                   .n = runs * rows,
                   .run = rows,
                   .pitch = at.total,
                   .first = at.first,
                   .step = at.step };
    return layout_take(l, (uint64_t)v->n * sizeof(float), &v->range);
}

/* ---- finding a layer's fields -------------------------------------------------------------- */

static const tensor *layer_tensor(const layout *l, const char *name, uint32_t expert,
                                  const char *suffix) {
    char full[TENSOR_NAME_BYTES];
    full_tensor_name(l->c, l->spelling, l->layer, name, expert, suffix, full);
    return container_find(l->files, full);
}

static bool field_missing(const layout *l, const layer_field *f, uint32_t expert) {
    char full[TENSOR_NAME_BYTES];
    full_tensor_name(l->c, l->spelling, l->layer, field_name(l->c, l->spelling, f->gguf, f->hf),
                     expert, "", full);
    return err_set(l->err, DP_E_FORMAT, "%s: tensor %s: missing", container_path(l->files), full);
}

static void mark_used(layout *l, const tensor *t) {
    l->used[t - container_tensor(l->files, 0)] = true;
}

/* Heads whose dimensions the files have in pairs: their rows change places as they are read. */
static void turn_heads_of(const layout *l, const layer_field *f, void *where) {
    static const size_t fields[] = {
        offsetof(layer_weights, q),      offsetof(layer_weights, k),
        offsetof(layer_weights, q_bias), offsetof(layer_weights, k_bias),
        offsetof(layer_weights, q_norm), offsetof(layer_weights, k_norm)
    };
    const config *c = l->c;
    for (size_t i = 0; i < ARRAY_LEN(fields) && c->rope_interleaved; i++) {
        if (fields[i] != f->offset) {
            continue;
        }
        if (is_matrix(f)) {
            ((weight *)where)->pieces[0].head = c->head_dim;
            ((weight *)where)->pieces[0].turned = c->rope_dim;
        } else {
            ((vector *)where)->head = c->head_dim;
            ((vector *)where)->turned = c->rope_dim;
        }
    }
}

static bool take_field(layout *l, const layer_field *f, void *where, const tensor *t,
                       row_place at) {
    const uint32_t rows = extent_of(l->c, f->rows);
    const uint32_t n = is_of_experts(f) ? l->c->n_experts : 0;
    mark_used(l, t);
    if (is_matrix(f) ? !find_matrix(l, where, t, n, rows, extent_of(l->c, f->cols), at)
                     : !find_vector(l, where, t, n > 0 ? n : 1, rows, at)) {
        return false;
    }
    turn_heads_of(l, f, where);
    return true;
}

/* The field as part of a fused tensor; *found says whether there is one. */
static bool find_fused(layout *l, const layer_field *f, void *where, bool *found) {
    *found = false;
    if (f->fuse == FUSE_NONE) {
        return true;
    }
    const fusion *u = &FUSIONS[f->fuse - 1];
    const char *name = fusion_name(l->c, l->spelling, u);
    if (name == NULL) {
        return true;
    }
    const row_place at = place_fused(l->c, l->spelling, f);
    const tensor *blocks = f->kind == IS_EXPERTS ? layer_tensor(l, name, 0, "_blocks") : NULL;
    const tensor *scales = f->kind == IS_EXPERTS ? layer_tensor(l, name, 0, "_scales") : NULL;
    if (blocks != NULL && scales != NULL) {
        *found = true;
        mark_used(l, blocks);
        mark_used(l, scales);
        row_place packed = at;
        packed.transposed = false;
        return find_packed(l, where, blocks, scales, l->c->n_experts, extent_of(l->c, f->rows),
                           extent_of(l->c, f->cols), packed);
    }
    const tensor *t = layer_tensor(l, name, 0, "");
    if (t == NULL) {
        return true;
    }
    /* GGUF calls the fused gate and up what it calls up alone */
    const bool alone = f->fuse == FUSE_FFN && l->spelling == SPELLING_GGUF && t->n_dims == 2 &&
                       t->shape[0] != at.total;
    *found = !alone;
    return alone || take_field(l, f, where, t, at);
}

/* Experts as a tensor each. */
static bool find_each_expert(layout *l, const layer_field *f, weight *w, const char *name) {
    const uint32_t rows = extent_of(l->c, f->rows), cols = extent_of(l->c, f->cols);
    if (begin_matrix(l, w, l->c->n_experts, true, rows, cols) == NULL) {
        return false;
    }
    for (uint32_t e = 0; e < l->c->n_experts; e++) {
        const tensor *t = layer_tensor(l, name, e, "");
        if (t == NULL) {
            return field_missing(l, f, e);
        }
        if (!has_shape(t, rows, cols, 0, 0)) {
            char expected[48];
            snprintf(expected, sizeof expected, "[%u, %u]", rows, cols);
            return shape_error(l, t, expected);
        }
        if (!set_type(l, w, t, e == 0)) {
            return false;
        }
        w->pieces[e] = (weight_piece){ .source = t, .width = rows, .step = 1 };
        mark_used(l, t);
    }
    return place_matrix(l, w);
}

static bool find_field(layout *l, const layer_field *f, void *where) {
    const field_need need = need_of(l->c, f->use);
    bool found = false;
    if (need == FIELD_ABSENT || !find_fused(l, f, where, &found) || found) {
        return need == FIELD_ABSENT || found;
    }
    const char *name = field_name(l->c, l->spelling, f->gguf, f->hf);
    if (name != NULL && strstr(name, "%u") != NULL) {
        return find_each_expert(l, f, where, name);
    }
    const tensor *t = name != NULL ? layer_tensor(l, name, 0, "") : NULL;
    if (t == NULL) {
        return need == FIELD_OPTIONAL || field_missing(l, f, 0);
    }
    return take_field(l, f, where, t, place_alone(l->c, l->spelling, f));
}

/* Folders store w where the formula has 1 + w: the norms that it is true of. */
static void add_one(const layout *l, layer_weights *w) {
    if (l->spelling == SPELLING_GGUF || !l->c->family->norm_plus_one) {
        return;
    }
    w->attn_norm.add = w->post_attn_norm.add = w->ffn_norm.add = w->post_ffn_norm.add = 1;
    w->q_norm.add = w->k_norm.add = 1;
}

/* Buffers of older folders that hold what the engine computes itself. */
static bool is_derived(str name) {
    static const char *const endings[] = { ".rotary_emb.inv_freq", ".attn.bias",
                                           ".attn.masked_bias" };
    for (size_t i = 0; i < ARRAY_LEN(endings); i++) {
        if (str_ends(name, endings[i])) {
            return true;
        }
    }
    return false;
}

/* Every tensor of the layers must have been of use: what is left over is a part of the model that
 * is not known. */
static bool check_leftovers(layout *l) {
    static const char *const outside[] = { "output.bias", "token_embd_norm.weight",
                                           "lm_head.bias" };
    for (size_t i = 0; i < ARRAY_LEN(outside); i++) {
        if (container_find(l->files, outside[i]) != NULL) {
            return err_set(l->err, DP_E_UNSUPPORTED,
                           "%s: tensor %s: not known of '%s' models, and would be left out",
                           container_path(l->files), outside[i], l->c->architecture);
        }
    }
    const char *prefix = l->spelling == SPELLING_GGUF ? "blk." : l->c->layer_prefix;
    for (uint32_t i = 0; i < container_n_tensors(l->files); i++) {
        const str name = container_tensor(l->files, i)->name;
        if (!l->used[i] && str_starts(name, prefix) && !is_derived(name)) {
            return err_set(
                l->err, DP_E_UNSUPPORTED,
                "%s: tensor %.*s: not known of '%s' models: a part of the model would be "
                "left out",
                container_path(l->files), STR_ARG(name), l->c->architecture);
        }
    }
    return true;
}

/* ---- the whole model ----------------------------------------------------------------------- */

static const tensor *require_outer(const layout *l, int which) {
    const tensor *t = outer_find(l->files, which);
    if (t == NULL) {
        err_set(l->err, DP_E_FORMAT, "%s: tensor %s: missing", container_path(l->files),
                l->spelling == SPELLING_GGUF ? OUTER[which].gguf : OUTER[which].hf[0]);
    }
    return t;
}

static bool plan_outer_vector(layout *l, vector *v, int which, uint32_t n) {
    const tensor *t = require_outer(l, which);
    return t != NULL && find_vector(l, v, t, 1, n, (row_place){ .total = n, .step = 1 });
}

static bool plan_outside(layout *l) {
    const config *c = l->c;
    weights *w = l->w;
    const tensor *t = require_outer(l, EMBEDDING);
    const row_place whole = { .total = c->vocab_size, .step = 1 };
    if (c->family->learned_positions && (uint64_t)c->context * c->dim > UINT32_MAX) {
        return err_set(l->err, DP_E_LIMIT, "%s: %u learned positions of %u",
                       container_path(l->files), c->context, c->dim);
    }
    if (t == NULL || !find_matrix(l, &w->embedding, t, 0, c->vocab_size, c->dim, whole) ||
        !plan_outer_vector(l, &w->output_norm, OUTPUT_NORM, c->dim) ||
        (c->family->layer_norm &&
         !plan_outer_vector(l, &w->output_norm_bias, OUTPUT_NORM_BIAS, c->dim)) ||
        (c->family->learned_positions &&
         !plan_outer_vector(l, &w->positions, POSITIONS, c->context * c->dim))) {
        return false;
    }
    w->output_norm.add = l->spelling != SPELLING_GGUF && c->family->norm_plus_one ? 1 : 0;
    t = c->head == HEAD_OWN ? require_outer(l, HEAD) : outer_find(l->files, HEAD);
    if (c->head == HEAD_OWN && t == NULL) {
        return false;
    }
    w->head = w->embedding;
    return c->head == HEAD_TIED || t == NULL ||
           find_matrix(l, &w->head, t, 0, c->vocab_size, c->dim, whole);
}

uint32_t weights_slots(const weights *w, const config *c, uint32_t layer) {
    return w->expert_slots / c->n_layers + (layer < w->expert_slots % c->n_layers);
}

bool weights_plan(weights *w, const config *c, const container *files, const weight_limits *limits,
                  arena *a, dp_error *err) {
    *w = (weights){ .expert_slots = limits->expert_slots > 0 ? limits->expert_slots
                                                             : c->n_experts * c->n_layers };
    layout l = { .w = w,
                 .c = c,
                 .files = files,
                 .limits = *limits,
                 .spelling = c->as_folder ? SPELLING_FOLDER : spelling_of(files),
                 .a = a,
                 .err = err };
    l.limits.max_binding &= ~(uint64_t)3;
    l.limits.max_buffer &= ~(uint64_t)255;
    w->layers = arena_new(a, c->n_layers, sizeof *w->layers, "layers", err);
    l.used = arena_new(a, container_n_tensors(files), sizeof *l.used, "tensors", err);
    if (w->layers == NULL || l.used == NULL || !plan_outside(&l)) {
        return false;
    }
    for (l.layer = 0; l.layer < c->n_layers; l.layer++) {
        layer_weights *layer = &w->layers[l.layer];
        for (size_t f = 0; f < N_LAYER_FIELDS; f++) {
            const layer_field *field = &LAYER_FIELDS[f];
            if (field->fuse == FUSE_NONE || field->place == 0) {
                layout_begin_group(&l);
            }
            if (!find_field(&l, field, (char *)layer + field->offset)) {
                return false;
            }
        }
        add_one(&l, layer);
    }
    return check_leftovers(&l);
}
