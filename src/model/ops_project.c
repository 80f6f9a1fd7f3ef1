/* ops_project: the products of a decoding pass, each with what stands before and behind it: the
 * norm in front, the activation, the residual stream and the next block's input.
 *
 * An input is x * w of an RMSNorm whose scale the reader finds (kernels/common/scaled.wgsl), or
 * what a LayerNorm makes, as floats, or as signed bytes where the matrices are quantised and the
 * model computes with them. What is otherwise (columns that are no whole units, matrices in several
 * bindings) is left to the plain operations of ops.c and ops_matmul.c. */
#include "model/ops_internal.h"

#include <stdio.h>

enum { WHOLE = 32, HALF = 16 }; /* columns of a unit, and of what has a scale */
enum { ROWS_MOST = 4 };         /* rows of W to a team that products.wgsl has */

/* ---- which products there are -------------------------------------------------------------- */

/* Takes w behind what s has: the same buffer, type and columns, without a gap. */
static bool stack_add(weight_stack *s, const weight *w, uint64_t max_binding) {
    if (w->n_parts != 1 || w->cols % WHOLE != 0) {
        return false;
    }
    const gpu_range r = w->parts[0].range;
    const uint32_t rows = w->experts ? w->parts[0].rows * w->rows : w->rows;
    if (s->rows == 0) {
        *s = (weight_stack){ .range = r, .type = w->type, .rows = rows, .cols = w->cols };
        return true;
    }
    if (w->type != s->type || w->cols != s->cols || r.buffer != s->range.buffer ||
        r.offset != s->range.offset + s->range.size || s->range.size + r.size > max_binding) {
        return false;
    }
    s->range.size += r.size;
    s->rows += rows;
    return true;
}

static uint64_t max_binding_of(const dp_model *m) {
    return gpu_info(m->gpu)->max_binding;
}

/* q, k and v as one matrix, or as two if v (or v and k) is of another type. */
static bool stack_qkv(const dp_model *m, const layer_weights *l, weight_stack out[2]) {
    const weight *const list[] = { &l->q, &l->k, &l->v };
    uint32_t at = 0; /* the stack that grows */
    out[0] = out[1] = (weight_stack){ .rows = 0 };
    for (size_t i = 0; i < ARRAY_LEN(list); i++) {
        if (stack_add(&out[at], list[i], max_binding_of(m))) {
            continue;
        }
        if (at == 1 || !stack_add(&out[++at], list[i], max_binding_of(m))) {
            return false;
        }
    }
    return out[1].rows == 0 || out[1].cols == out[0].cols;
}

/* Of a feed-forward network without a gate up alone. */
static bool stack_gate_up(const dp_model *m, const weight *gate, const weight *up,
                          weight_stack *out) {
    *out = (weight_stack){ .rows = 0 };
    return (gate->n_pieces == 0 || stack_add(out, gate, max_binding_of(m))) &&
           stack_add(out, up, max_binding_of(m));
}

/* Biases that follow one another, or none at all. */
static bool stack_bias(const dp_model *m, const vector *const *list, size_t n_list,
                       gpu_range *out) {
    *out = m->buffers.none;
    uint32_t n = 0;
    for (size_t i = 0; i < n_list; i++) {
        const gpu_range r = list[i]->range;
        if (list[i]->source == NULL) {
            continue;
        }
        if (n++ == 0) {
            *out = r;
        } else if (r.buffer != out->buffer || r.offset != out->offset + out->size) {
            return false;
        } else {
            out->size += r.size;
        }
    }
    return n == 0 || n == n_list;
}

static bool stack_qkv_bias(const dp_model *m, const layer_weights *l, gpu_range *out) {
    return stack_bias(m, (const vector *const[]){ &l->q_bias, &l->k_bias, &l->v_bias }, 3, out);
}

/* Of gate and up, or up alone. */
static bool stack_ffn_bias(const dp_model *m, const layer_weights *l, gpu_range *out) {
    const vector *const dense[] = { &l->gate_bias, &l->up_bias };
    const vector *const experts[] = { &l->expert_gate_bias, &l->expert_up_bias };
    const uint32_t first = m->config.family->ungated ? 1 : 0;
    return stack_bias(m, (m->config.n_experts > 0 ? experts : dense) + first, 2 - first, out);
}

static bool is_whole(const weight *w) {
    return w->n_parts == 1 && w->rows % WHOLE == 0 && w->cols % WHOLE == 0;
}

static bool decodes_fused(const dp_model *m) {
    return !m->shapes.calibrate && m->config.dim % WHOLE == 0;
}

bool pass_is_fused(const recorder *r) {
    return r->kind == PASS_ONE || (!pass_is_prefill(r->kind) && !is_software(r->m->gpu));
}

bool attention_is_fused(const dp_model *m, uint32_t layer) {
    const layer_weights *l = &m->weights.layers[layer];
    weight_stack w[2];
    gpu_range bias;
    return decodes_fused(m) && m->config.head_dim % HALF == 0 && is_whole(&l->o) &&
           stack_qkv(m, l, w) && stack_qkv_bias(m, l, &bias);
}

static bool experts_are_fused(const dp_model *m, const layer_weights *l) {
    weight_stack w;
    return !m->config.family->layer_norm && l->ffn_norm.source != NULL && l->router.n_parts == 1 &&
           l->expert_up.rows % WHOLE == 0 && is_whole(&l->expert_down) &&
           stack_gate_up(m, &l->expert_gate, &l->expert_up, &w);
}

bool ffn_is_fused(const dp_model *m, uint32_t layer) {
    const layer_weights *l = &m->weights.layers[layer];
    weight_stack w;
    gpu_range bias;
    if (!decodes_fused(m) || !stack_ffn_bias(m, l, &bias)) {
        return false;
    }
    if (m->config.n_experts > 0) {
        return experts_are_fused(m, l);
    }
    return l->up.rows % WHOLE == 0 && is_whole(&l->down) && stack_gate_up(m, &l->gate, &l->up, &w);
}

static bool reads_bytes(const dp_model *m, const weight *w) {
    return m->shapes.int8 && dtype_is_quantised(w->type);
}

static block_input input_of(const dp_model *m, const vector *norm, const vector *bias, bool q8) {
    return (block_input){ .norm = norm,
                          .bias = m->config.family->layer_norm ? bias : NULL,
                          .q8 = q8,
                          .act = m->buffers.xn,
                          .squares = m->buffers.squares };
}

block_input attention_input(const dp_model *m, uint32_t layer) {
    const layer_weights *l = &m->weights.layers[layer];
    return input_of(m, &l->attn_norm, &l->attn_norm_bias,
                    reads_bytes(m, &l->q) && reads_bytes(m, &l->k) && reads_bytes(m, &l->v));
}

block_input ffn_input(const dp_model *m, uint32_t layer) {
    const layer_weights *l = &m->weights.layers[layer];
    const bool experts = m->config.n_experts > 0;
    const weight *up = experts ? &l->expert_up : &l->up; /* gate is as it is */
    block_input in = input_of(m, &l->ffn_norm, &l->ffn_norm_bias, reads_bytes(m, up));
    if (experts) {
        in.act = m->buffers.expert_x;
        in.squares = m->buffers.expert_squares;
    }
    return in;
}

/* Has the reader to find the norm's scale? */
static bool is_normed(const block_input *in) {
    return in->norm != NULL && in->norm->source != NULL && in->bias == NULL;
}

/* ---- shapes of workgroups ------------------------------------------------------------------ */

/* Weight rows to a team, teams to a row, lanes to a workgroup. */
typedef struct {
    uint32_t rows, split, wg;
    uint32_t ahead; /* steps whose loads may come first; 0: 1 */
    uint32_t team;  /* lanes of one, at most the device's; 0: the device's */
    uint32_t turns; /* that a team takes, with other rows in each; of one row of x; 0: 1 */
    uint32_t sets;  /* of lanes, for as many shares of the rows of x; the pass's, in no table */
    bool if_full;   /* goes before the first one where it fills the largest devices */
} project_shape;

/* The first of each as measured on an H200 (docs/speed.md), those behind it for tuning to try, but
 * for several rows of floats (choose_shape); where a row ends, lanes are 0. */
typedef enum { SHAPE_PLAIN, SHAPE_HEAD, SHAPE_GLU, SHAPE_ADD } shape_kind;
enum { SHAPES_OF = 5 };
static const project_shape shapes_of[][SHAPES_OF] = {
    [SHAPE_PLAIN] = { { .rows = 1, .split = 2, .wg = 256 },
                      { .rows = 1, .split = 1, .wg = 256, .if_full = true },
                      { .rows = 2, .split = 2, .wg = 256 },
                      { .rows = 1, .split = 1, .wg = 128 },
                      { .rows = 2, .split = 1, .wg = 256 } },
    [SHAPE_HEAD] = { { .rows = 1, .split = 1, .wg = 256 },
                     { .rows = 2, .split = 2, .wg = 256 },
                     { .rows = 2, .split = 1, .wg = 256, .ahead = 2 },
                     { .rows = 4, .split = 1, .wg = 128, .ahead = 2 },
                     { .rows = 1, .split = 1, .wg = 256, .ahead = 4 } },
    [SHAPE_GLU] = { { .rows = 2, .split = 1, .wg = 1024 },
                    { .rows = 2, .split = 1, .wg = 256, .turns = 2, .if_full = true },
                    { .rows = 2, .split = 1, .wg = 512 },
                    { .rows = 4, .split = 2, .wg = 512 },
                    { .rows = 4, .split = 1, .wg = 512 } },
    [SHAPE_ADD] = { { .rows = 1, .split = 2, .wg = 1024, .ahead = 2 },
                    { .rows = 1, .split = 1, .wg = 512, .ahead = 2 },
                    { .rows = 2, .split = 4, .wg = 1024 },
                    { .rows = 2, .split = 2, .wg = 512 },
                    { .rows = 4, .split = 4, .wg = 512 } },
};

/* Up to eight rows of x: reading x is the bound, and one read serves all rows of W that a team has,
 * hence more of them. Heads of one row of floats, which were timed with no others, too. */
static const project_shape shapes_of_few[][SHAPES_OF] = {
    [SHAPE_PLAIN] = { { .rows = 2, .split = 2, .wg = 256 },
                      { .rows = 4, .split = 1, .wg = 128 },
                      { .rows = 2, .split = 1, .wg = 256 },
                      { .rows = 2, .split = 2, .wg = 512 },
                      { .rows = 1, .split = 1, .wg = 256 } },
    [SHAPE_HEAD] = { { .rows = 4, .split = 1, .wg = 128, .ahead = 2 },
                     { .rows = 2, .split = 1, .wg = 256, .ahead = 2 },
                     { .rows = 1, .split = 1, .wg = 256, .ahead = 4 },
                     { .rows = 4, .split = 2, .wg = 128, .team = 8 } },
    [SHAPE_GLU] = { { .rows = 4, .split = 2, .wg = 128, .team = 8 },
                    { .rows = 4, .split = 4, .wg = 256, .team = 8 },
                    { .rows = 2, .split = 2, .wg = 256, .team = 8 },
                    { .rows = 4, .split = 1, .wg = 256 },
                    { .rows = 2, .split = 1, .wg = 512 } },
    [SHAPE_ADD] = { { .rows = 4, .split = 2, .wg = 256 },
                    { .rows = 2, .split = 2, .wg = 512 },
                    { .rows = 4, .split = 8, .wg = 256, .team = 8 },
                    { .rows = 4, .split = 1, .wg = 128 },
                    { .rows = 2, .split = 4, .wg = 1024 } },
};

/* More of them; the lanes are those of both sets (products.wgsl). */
static const project_shape shapes_of_some[][SHAPES_OF] = {
    [SHAPE_PLAIN] = { { .rows = 2, .split = 2, .wg = 512 },
                      { .rows = 2, .split = 1, .wg = 256 },
                      { .rows = 2, .split = 2, .wg = 256 },
                      { .rows = 4, .split = 1, .wg = 128 },
                      { .rows = 1, .split = 1, .wg = 256 } },
    [SHAPE_HEAD] = { { .rows = 4, .split = 2, .wg = 128, .team = 8 },
                     { .rows = 4, .split = 1, .wg = 128 },
                     { .rows = 2, .split = 1, .wg = 256 },
                     { .rows = 1, .split = 1, .wg = 256 } },
    [SHAPE_GLU] = { { .rows = 4, .split = 1, .wg = 128, .team = 8 },
                    { .rows = 4, .split = 2, .wg = 256, .team = 8 },
                    { .rows = 2, .split = 1, .wg = 256, .team = 8 },
                    { .rows = 4, .split = 1, .wg = 512 },
                    { .rows = 2, .split = 1, .wg = 1024 } },
    [SHAPE_ADD] = { { .rows = 4, .split = 2, .wg = 512 },
                    { .rows = 4, .split = 1, .wg = 256 },
                    { .rows = 2, .split = 2, .wg = 1024 },
                    { .rows = 4, .split = 4, .wg = 256, .team = 8 } },
};

/* The first of a device whose lanes are computed one after the other: sums over them are loops
 * there, so that a lane has rows to itself. */
static const project_shape cpu_shapes[] = {
    [SHAPE_PLAIN] = { .rows = 2, .split = 1, .wg = 64, .team = 1 },
    [SHAPE_HEAD] = { .rows = 2, .split = 1, .wg = 64, .team = 1 },
    [SHAPE_GLU] = { .rows = 2, .split = 1, .wg = 64, .team = 1 },
    [SHAPE_ADD] = { .rows = 1, .split = 1, .wg = 64, .team = 1 },
};

/* What a shape is wanted for. */
typedef struct {
    shape_kind kind;
    bool q8;         /* x in bytes */
    uint32_t tokens; /* rows of x that a workgroup has */
    uint32_t least;  /* rows of W that it must have: whole halves of an activation's unit */
} shape_use;

/* The shape that is tried as number i; past the last one without lanes. */
static project_shape shape_at(const recorder *r, const shape_use *u, uint32_t i) {
    const project_shape *list = shapes_of[u->kind];
    if (u->tokens > FEW_ROWS) {
        list = shapes_of_some[u->kind];
    } else if (u->tokens > 1 || (u->kind == SHAPE_HEAD && !u->q8)) {
        list = shapes_of_few[u->kind];
    }
    const uint32_t before = is_software(r->m->gpu) ? 1 : 0;
    static const project_shape none;
    if (i < before) {
        return cpu_shapes[u->kind];
    }
    return i - before < SHAPES_OF ? list[i - before] : none;
}

bool lanes_share(uint32_t lanes, const dp_device_info *info) {
    return lanes == 1 && info->subgroups && info->subgroup_size >= 8;
}

/* Lanes of all sets that share rows of W. */
static uint32_t sharing_lanes(const project_shape *s) {
    return s->split * s->team * s->sets;
}

static uint32_t group_rows(const project_shape *s) {
    return s->wg / sharing_lanes(s) * s->rows * s->turns;
}

/* Does it have lanes for two thirds of the largest device that was measured? */
static bool fills_devices(const project_shape *s, uint32_t rows) {
    enum { MULTIPROCESSORS = 132, LANES_EACH = 2048 }; /* of an H200 */
    const uint64_t lanes = (uint64_t)ceil_div(rows, group_rows(s)) * s->wg;
    return 3 * lanes >= 2 * MULTIPROCESSORS * LANES_EACH;
}

/* Workgroup memory of the kernels: products.wgsl's sums, and at most two results for each; those of
 * gate and up together have half a result, so that what chosen.wgsl keeps has room as well. */
static uint32_t shape_bytes(const project_shape *s, uint32_t tokens) {
    return 4 * (group_rows(s) * tokens * (s->split + 2) + s->wg + DECODE_ROWS);
}

/* The shape as this device and this use have it. */
static project_shape fit(const recorder *r, project_shape s, const shape_use *u) {
    const uint32_t least = u->least;
    const uint32_t lanes = gpu_info(r->m->gpu)->max_workgroup_lanes;
    const uint32_t memory = gpu_info(r->m->gpu)->max_workgroup_memory;
    s.team = s.team > 0 ? min_u32(s.team, team_lanes(r->m->gpu)) : team_lanes(r->m->gpu);
    s.ahead = u->tokens == 1 ? max_u32(s.ahead, 1) : 1; /* others do not look at it */
    s.turns = u->tokens == 1 ? max_u32(s.turns, 1) : 1;
    s.sets = ceil_div(u->tokens, FEW_ROWS);
    s.wg = min_u32(s.wg, lanes);
    while (shape_bytes(&s, u->tokens) > memory && s.wg > sharing_lanes(&s)) {
        s.wg /= 2;
    }
    while (s.wg < sharing_lanes(&s) || (group_rows(&s) < least && s.split > 1)) {
        s.split /= 2;
    }
    while (group_rows(&s) < least && s.wg * 2 <= lanes) {
        s.wg *= 2;
    }
    while (group_rows(&s) < least && s.rows * 2 <= ROWS_MOST) {
        s.rows *= 2;
    }
    while (group_rows(&s) < least) {
        s.team /= 2;
    }
    return s;
}

/* A product, for tuning: its key, and where its results go if they are signed bytes. */
static tuned_question question_of(const recorder *r, const char *kernel, const weight_stack w[2],
                                  bool q8) {
    const bool two = w[1].rows > 0;
    tuned_question q = { .rows = w[0].rows + w[1].rows, .cols = w[0].cols };
    snprintf(q.key, sizeof q.key, "%s %s%s%s %s %ux%u %u", kernel, weight_fragment(w[0].type)->name,
             two ? "+" : "", two ? weight_fragment(w[1].type)->name : "", q8 ? "q8" : "f32", q.rows,
             q.cols, most_rows(r));
    return q;
}

/* The shape that the product gets, as it fits. */
static project_shape choose_shape(recorder *r, tuned_question *q, shape_use u) {
    for (uint32_t i = 0; shape_at(r, &u, i).wg > 0; i++) {
        const project_shape s = fit(r, shape_at(r, &u, i), &u);
        tuned_shape shape = { .which = i, .cost = i };
        if (!u.q8 && u.tokens > 1) {
            shape.cost = s.wg; /* floats take four times the registers, which lanes share */
        } else if (s.if_full && !is_software(r->m->gpu) && fills_devices(&s, q->rows)) {
            shape.cost = -1; /* before the first */
        }
        int n = snprintf(shape.name, sizeof shape.name, "rows %u, split %u, lanes %u, ahead %u",
                         s.rows, s.split, s.wg, s.ahead);
        if (s.team != team_lanes(r->m->gpu)) {
            n += snprintf(shape.name + n, sizeof shape.name - (size_t)n, ", team %u", s.team);
        }
        if (s.turns > 1) {
            snprintf(shape.name + n, sizeof shape.name - (size_t)n, ", turns %u", s.turns);
        }
        tuned_offer(q, &shape);
    }
    return fit(r, shape_at(r, &u, tuned_choice(r, q)->which), &u);
}

/* ---- operations ---------------------------------------------------------------------------- */

const gpu_fragment *act_fragment(bool q8) {
    return q8 ? &act_q8_part : &act_f32_part;
}

/* Behind an RMSNorm, or none. */
static void record_norm_input(recorder *r, const block_input *in, bool pick) {
    enum { LANES = 64 }; /* of ready.wgsl */
    const buffers *b = &r->m->buffers;
    const uint32_t dim = r->m->config.dim;
    const ready_consts consts = { .dim = dim, .weighted = in->norm->source != NULL, .pick = pick };
    add_call(r, &ready_source, (const gpu_fragment *[]){ act_fragment(in->q8) }, &consts,
             (gpu_call){
                 .bind = { [READY_X] = b->x,
                           [READY_W] = or_none(r->m, in->norm),
                           [READY_SQUARES] = in->squares,
                           [READY_PICK] = b->pick,
                           [ACT_F32_ACT] = in->act },
                 .groups = { { .times = ceil_div(dim / HALF, LANES) },
                             { .size = pick ? SIZE_OUT : SIZE_ROWS } },
             });
}

/* Lanes of a workgroup that has a row of the stream. */
static uint32_t lanes_of_row(const recorder *r) {
    return is_software(r->m->gpu) ? NORM_LANES / 4 : NORM_LANES;
}

static void record_layer_input(recorder *r, const block_input *in, bool pick) {
    const buffers *b = &r->m->buffers;
    const layer_ready_consts consts = {
        .dim = r->m->config.dim,
        .eps = r->m->config.norm_eps,
        .bias = in->bias->source != NULL,
        .pick = pick,
        .wg = lanes_of_row(r),
        .team = team_lanes(r->m->gpu),
    };
    add_call(r, &layer_ready_source,
             (const gpu_fragment *[]){ reduce_fragment(r->m->gpu), act_fragment(in->q8) }, &consts,
             (gpu_call){
                 .bind = { [LAYER_READY_X] = b->x,
                           [LAYER_READY_W] = in->norm->range,
                           [LAYER_READY_B] = or_none(r->m, in->bias),
                           [LAYER_READY_PICK] = b->pick,
                           [ACT_F32_ACT] = in->act },
                 .groups = { { .size = pick ? SIZE_OUT : SIZE_ROWS } },
             });
}

/* Of the residual stream, or of the rows whose logits are wanted. */
static void record_ready(recorder *r, const block_input *in, bool pick) {
    (in->bias != NULL ? record_layer_input : record_norm_input)(r, in, pick);
}

void op_ready(recorder *r, block_input in) {
    record_ready(r, &in, false);
}

void op_norm_ready(recorder *r, gpu_range y, const vector *post, block_input next) {
    const buffers *b = &r->m->buffers;
    const norm_ready_consts consts = {
        .dim = r->m->config.dim,
        .eps = r->m->config.norm_eps,
        .weighted = next.norm->source != NULL,
        .wg = lanes_of_row(r),
        .team = team_lanes(r->m->gpu),
    };
    add_call(r, &norm_ready_source,
             (const gpu_fragment *[]){ reduce_fragment(r->m->gpu), act_fragment(next.q8) }, &consts,
             (gpu_call){
                 .bind = { [NORM_READY_Y] = y,
                           [NORM_READY_POST] = post->range,
                           [NORM_READY_W] = or_none(r->m, next.norm),
                           [NORM_READY_SQUARES] = next.squares,
                           [NORM_READY_X] = b->x,
                           [ACT_F32_ACT] = next.act },
                 .groups = { { .size = SIZE_ROWS } },
             });
}

/* W [rows of both], the second one's rows behind the first one's. */
static void record_project(recorder *r, target y, const weight_stack w[2], gpu_range bias,
                           block_input in, shape_kind kind) {
    const dp_model *m = r->m;
    const bool two = w[1].rows > 0;
    const uint32_t rows = w[0].rows + w[1].rows;
    tuned_question q = question_of(r, kind == SHAPE_HEAD ? "project head" : "project", w, in.q8);
    const project_shape s = choose_shape(
        r, &q, (shape_use){ .kind = kind, .q8 = in.q8, .tokens = most_rows(r), .least = 1 });
    const uint32_t groups = ceil_div(rows, group_rows(&s));
    const uint32_t grid_x = min_u32(groups, GRID_MAX);
    const project_consts consts = {
        .m = rows,
        .k = w[0].cols,
        .tokens = most_rows(r),
        .rows = s.rows,
        .split = s.split,
        .ahead = s.ahead,
        .wg = s.wg,
        .team = s.team,
        .sets = s.sets,
        .turns = s.turns,
        .shared = lanes_share(s.split * s.team, gpu_info(m->gpu)),
        .normed = is_normed(&in),
        .eps = m->config.norm_eps,
        .bias = bias.buffer != m->buffers.none.buffer,
        .two = two,
        .other_first = w[0].rows,
        .scale = y.scale != 0 ? y.scale : 1,
        .stride = y.stride,
        .column = y.column,
        .grid_x = grid_x,
        .counted = y.picked,
    };
    const weight_stack *other = two ? &w[1] : &w[0];
    add_call(r, &project_source,
             (const gpu_fragment *[]){ weight_fragment(w[0].type), weight_fragment(other->type),
                                       in.q8 ? &inputs_q8_part : &inputs_f32_part,
                                       reduce_fragment(m->gpu) },
             &consts,
             (gpu_call){
                 .bind = { [0] = w[0].range,
                           [GPU_SECOND_BINDING] = two ? w[1].range : m->buffers.none,
                           [INPUTS_F32_X] = in.act,
                           [PROJECT_BIAS] = bias,
                           [PROJECT_SIZES] = m->buffers.sizes,
                           [PROJECT_Y] = y.y,
                           [PROJECT_SQUARES] = in.squares },
                 .groups = { { .times = grid_x }, { .times = ceil_div(groups, grid_x) } },
             });
    tuned_end(r);
}

void op_project_qkv(recorder *r, uint32_t layer) {
    const dp_model *m = r->m;
    const layer_weights *l = &m->weights.layers[layer];
    const block_input in = attention_input(m, layer);
    weight_stack w[2];
    gpu_range bias;
    const bool stacked = stack_qkv(m, l, w) && stack_qkv_bias(m, l, &bias);
    assert(stacked);
    (void)stacked;
    record_project(r, (target){ .y = m->buffers.qkv, .stride = w[0].rows + w[1].rows }, w, bias, in,
                   SHAPE_PLAIN);
}

void op_project(recorder *r, target y, const weight *w, const vector *bias, gpu_range x) {
    const weight_stack list[2] = {
        { .range = w->parts[0].range, .type = w->type, .rows = w->rows, .cols = w->cols }
    };
    const block_input in = { .q8 = reads_bytes(r->m, w), .act = x, .squares = r->m->buffers.none };
    record_project(r, y, list, or_none(r->m, bias), in, SHAPE_PLAIN);
}

bool head_is_fused(const dp_model *m) {
    return decodes_fused(m) && m->weights.head.cols % WHOLE == 0;
}

void op_project_head(recorder *r, target y) {
    const dp_model *m = r->m;
    const weight *w = &m->weights.head;
    block_input in =
        input_of(m, &m->weights.output_norm, &m->weights.output_norm_bias, reads_bytes(m, w));
    in.act = m->buffers.out;
    record_ready(r, &in, true);
    for (uint32_t i = 0; i < w->n_parts; i++) {
        const weight_part *p = &w->parts[i];
        const weight_stack list[2] = {
            { .range = p->range, .type = w->type, .rows = p->rows, .cols = w->cols }
        };
        target part = y;
        part.column += p->first;
        record_project(r, part, list, m->buffers.none, in, SHAPE_HEAD);
    }
}

void op_project_glu(recorder *r, uint32_t layer) {
    const dp_model *m = r->m;
    const config *c = &m->config;
    const layer_weights *l = &m->weights.layers[layer];
    const block_input in = ffn_input(m, layer);
    weight_stack w;
    gpu_range bias;
    const bool stacked = stack_gate_up(m, &l->gate, &l->up, &w) && stack_ffn_bias(m, l, &bias);
    assert(stacked);
    (void)stacked;
    const bool q8 = reads_bytes(m, &l->down), gated = w.rows > l->up.rows;
    tuned_question q = question_of(r, gated ? "project_glu" : "project_glu ungated",
                                   (weight_stack[2]){ w }, in.q8);
    q.act = m->buffers.h;
    q.act_cols = q8 ? l->up.rows : 0;
    const project_shape s = choose_shape(r, &q,
                                         (shape_use){ .kind = gated ? SHAPE_GLU : SHAPE_PLAIN,
                                                      .q8 = in.q8,
                                                      .tokens = most_rows(r),
                                                      .least = gated ? 2 * HALF : HALF });
    const project_glu_consts consts = {
        .k = w.cols,
        .ffn = l->up.rows,
        .tokens = most_rows(r),
        .rows = s.rows,
        .split = s.split,
        .ahead = s.ahead,
        .wg = s.wg,
        .team = s.team,
        .sets = s.sets,
        .turns = s.turns,
        .shared = lanes_share(s.split * s.team, gpu_info(m->gpu)),
        .normed = is_normed(&in),
        .eps = c->norm_eps,
        .bias = l->up_bias.source != NULL,
        .act = c->activation,
        .ungated = !gated,
        .alpha = c->act_alpha,
        .limit = c->act_limit,
    };
    add_call(r, &project_glu_source,
             (const gpu_fragment *[]){ weight_fragment(w.type),
                                       in.q8 ? &input_q8_part : &input_f32_part, act_fragment(q8),
                                       reduce_fragment(m->gpu) },
             &consts,
             (gpu_call){
                 .bind = { [0] = w.range,
                           [INPUT_F32_X] = in.act,
                           [PROJECT_GLU_BIAS] = bias,
                           [PROJECT_GLU_SIZES] = m->buffers.sizes,
                           [PROJECT_GLU_SQUARES] = in.squares,
                           [ACT_F32_ACT] = m->buffers.h },
                 .groups = { { .times = ceil_div(w.rows, group_rows(&s)) } },
             });
    tuned_end(r);
}

/* What the end of a block writes; without a next one, nothing there. */
static block_input written_input(const dp_model *m, const block_input *next) {
    return next != NULL ? *next : input_of(m, NULL, NULL, false);
}

void op_project_add(recorder *r, const weight *w, const vector *bias, gpu_range x,
                    const block_input *next) {
    const dp_model *m = r->m;
    const weight_stack list[2] = { { .type = w->type, .rows = w->rows, .cols = w->cols } };
    const block_input out = written_input(m, next);
    const bool bytes = reads_bytes(m, w);
    tuned_question q =
        question_of(r, next != NULL ? "project_add" : "project_add last", list, bytes);
    q.act = out.act;
    q.act_cols = out.q8 ? w->rows : 0;
    const project_shape s = choose_shape(
        r, &q,
        (shape_use){ .kind = SHAPE_ADD, .q8 = bytes, .tokens = most_rows(r), .least = HALF });
    const project_add_consts consts = {
        .k = w->cols,
        .dim = w->rows,
        .tokens = most_rows(r),
        .rows = s.rows,
        .split = s.split,
        .ahead = s.ahead,
        .wg = s.wg,
        .team = s.team,
        .sets = s.sets,
        .turns = s.turns,
        .shared = lanes_share(s.split * s.team, gpu_info(m->gpu)),
        .bias = bias != NULL && bias->source != NULL,
        .next = next != NULL,
        .scale = m->config.residual_scale,
    };
    assert(w->rows == m->config.dim);
    add_call(r, &project_add_source,
             (const gpu_fragment *[]){ weight_fragment(w->type),
                                       bytes ? &input_q8_part : &input_f32_part,
                                       act_fragment(out.q8), reduce_fragment(m->gpu) },
             &consts,
             (gpu_call){
                 .bind = { [0] = w->parts[0].range,
                           [INPUT_F32_X] = x,
                           [PROJECT_ADD_BIAS] = or_none(m, bias),
                           [PROJECT_ADD_SIZES] = m->buffers.sizes,
                           [PROJECT_ADD_STREAM] = m->buffers.x,
                           [PROJECT_ADD_W] = next != NULL ? next->norm->range : m->buffers.none,
                           [PROJECT_ADD_SQUARES] = out.squares,
                           [ACT_F32_ACT] = out.act },
                 .groups = { { .times = ceil_div(w->rows, group_rows(&s)) } },
             });
    tuned_end(r);
}

/* ---- experts ------------------------------------------------------------------------------- */

void op_router(recorder *r, uint32_t layer) {
    enum { LANES_LEAST = 32, LANES_MOST = 256 };
    const dp_model *m = r->m;
    const layer_weights *l = &m->weights.layers[layer];
    const weight *w = &l->router;
    const uint32_t units = w->cols / WHOLE;
    const router_consts consts = {
        .k = w->cols,
        .n_experts = w->rows,
        .eps = m->config.norm_eps,
        .bias = l->router_bias.source != NULL,
        .wg = min_u32(max_u32(power_above(units), LANES_LEAST), LANES_MOST),
        .team = team_lanes(m->gpu),
    };
    add_call(r, &router_source,
             (const gpu_fragment *[]){ weight_fragment(w->type), reduce_fragment(m->gpu) }, &consts,
             (gpu_call){
                 .bind = { [0] = w->parts[0].range,
                           [ROUTER_X] = m->buffers.x,
                           [ROUTER_W] = l->ffn_norm.range,
                           [ROUTER_BIAS] = or_none(m, &l->router_bias),
                           [ROUTER_Z] = m->buffers.router },
                 .groups = { { .times = w->rows }, { .size = SIZE_ROWS } },
             });
}

/* The product of a pass' row with the matrices of all experts that it goes to, for tuning. */
static tuned_question expert_question(const recorder *r, const char *kernel, dtype type,
                                      uint32_t rows, uint32_t cols, bool q8) {
    const weight_stack w[2] = { { .type = type, .rows = rows, .cols = cols } };
    return question_of(r, kernel, w, q8);
}

void op_expert_glu(recorder *r, uint32_t layer) {
    const dp_model *m = r->m;
    const config *c = &m->config;
    const layer_weights *l = &m->weights.layers[layer];
    const uint32_t ffn = c->expert_ffn_dim, used = c->n_experts_used;
    const bool q8 = reads_bytes(m, &l->expert_down);
    const block_input in = ffn_input(m, layer);
    const uint32_t slots = l->expert_up.parts[0].rows;
    weight_stack w;
    gpu_range bias;
    const bool stacked =
        stack_gate_up(m, &l->expert_gate, &l->expert_up, &w) && stack_ffn_bias(m, l, &bias);
    assert(stacked && w.rows == 2 * slots * ffn);
    (void)stacked;
    tuned_question q = expert_question(r, "expert_glu", w.type, 2 * used * ffn, w.cols, in.q8);
    q.act = m->buffers.h;
    q.act_cols = q8 ? ffn : 0;
    const project_shape s = choose_shape(
        r, &q, (shape_use){ .kind = SHAPE_GLU, .q8 = in.q8, .tokens = 1, .least = 2 * HALF });
    const expert_glu_consts consts = {
        .k = w.cols,
        .ffn = ffn,
        .n_experts = c->n_experts,
        .slots = slots,
        .paged = model_pages_experts(m),
        .used = used,
        .normalise = c->normalise_route,
        .weight_scale = c->route_scale,
        .rows = s.rows,
        .split = s.split,
        .ahead = s.ahead,
        .wg = s.wg,
        .team = s.team,
        .turns = s.turns,
        .shared = lanes_share(s.split * s.team, gpu_info(m->gpu)),
        .eps = c->norm_eps,
        .bias = l->expert_up_bias.source != NULL,
        .act = c->activation,
        .alpha = c->act_alpha,
        .limit = c->act_limit,
    };
    add_call(r, &expert_glu_source,
             (const gpu_fragment *[]){ weight_fragment(w.type),
                                       in.q8 ? &input_q8_part : &input_f32_part, act_fragment(q8),
                                       reduce_fragment(m->gpu) },
             &consts,
             (gpu_call){
                 .bind = { [0] = w.range,
                           [INPUT_F32_X] = in.act,
                           [EXPERT_GLU_ROUTER] = m->buffers.router,
                           [EXPERT_GLU_PLACE] = m->buffers.expert_place,
                           [EXPERT_GLU_PAIRS] = m->buffers.expert_pairs,
                           [EXPERT_GLU_SQUARES] = in.squares,
                           [EXPERT_GLU_BIAS] = bias,
                           [ACT_F32_ACT] = m->buffers.h },
                 .groups = { { .times = ceil_div(2 * ffn, group_rows(&s)) },
                             { .times = used, .size = SIZE_ROWS } },
             });
    tuned_end(r);
}

void op_expert_add(recorder *r, uint32_t layer, const block_input *next) {
    const dp_model *m = r->m;
    const config *c = &m->config;
    const layer_weights *l = &m->weights.layers[layer];
    const weight *w = &l->expert_down;
    const block_input out = written_input(m, next);
    const bool bytes = reads_bytes(m, w);
    tuned_question q = expert_question(r, next != NULL ? "expert_add" : "expert_add last", w->type,
                                       w->rows, w->cols * c->n_experts_used, bytes);
    q.act = out.act;
    q.act_cols = out.q8 ? w->rows : 0;
    const project_shape s = choose_shape(
        r, &q, (shape_use){ .kind = SHAPE_ADD, .q8 = bytes, .tokens = 1, .least = HALF });
    const expert_add_consts consts = {
        .k = w->cols,
        .dim = w->rows,
        .slots = w->parts[0].rows,
        .paged = model_pages_experts(m),
        .used = c->n_experts_used,
        .rows = s.rows,
        .split = s.split,
        .ahead = s.ahead,
        .wg = s.wg,
        .team = s.team,
        .turns = s.turns,
        .shared = lanes_share(s.split * s.team, gpu_info(m->gpu)),
        .bias = l->expert_down_bias.source != NULL,
        .next = next != NULL,
        .scale = c->residual_scale,
    };
    add_call(
        r, &expert_add_source,
        (const gpu_fragment *[]){ weight_fragment(w->type),
                                  bytes ? &input_q8_part : &input_f32_part, act_fragment(out.q8),
                                  reduce_fragment(m->gpu) },
        &consts,
        (gpu_call){
            .bind = { [0] = w->parts[0].range,
                      [INPUT_F32_X] = m->buffers.h,
                      [EXPERT_ADD_BIAS] = or_none(m, &l->expert_down_bias),
                      [EXPERT_ADD_PAIRS] = m->buffers.expert_pairs,
                      [EXPERT_ADD_STREAM] = m->buffers.x,
                      [EXPERT_ADD_W] = next != NULL ? next->norm->range : m->buffers.none,
                      [EXPERT_ADD_SQUARES] = out.squares,
                      [ACT_F32_ACT] = out.act },
            .groups = { { .times = ceil_div(w->rows, group_rows(&s)) }, { .size = SIZE_ROWS } },
        });
    tuned_end(r);
}
