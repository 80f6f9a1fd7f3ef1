/* ops_matrix: matrix products of passes of many rows on matrix units (matmul_matrix.wgsl).
 *
 * x goes to buffers.bytes as half floats first, once for all products that read it (record_input:
 * no model has both kinds of input). */
#include "model/ops_internal.h"

#include <math.h>
#include <stdio.h>

enum {
    MATRIX_SPLITS = 8,       /* parts of the columns at most */
    MATRIX_PROCESSORS = 132, /* of the device that the times below are of */
};

/* Blocks of a workgroup: subgroups, and matrices of each. Times as an NVIDIA H200 has them, in
 * microseconds to 32 columns: of a workgroup that has a multiprocessor to itself, and what each
 * takes where there are enough to hide one's waiting behind another's work. */
typedef struct {
    uint32_t subs_t, subs_r, tiles_t, tiles_r;
    double alone, each;
} matrix_block;

static const matrix_block matrix_blocks[] = {
    { 2, 2, 4, 4, 0.81, 0.62 },
    { 2, 2, 2, 4, 0.69, 0.45 },
    { 2, 2, 2, 2, 0.6, 0.36 },
};

typedef struct {
    const matrix_block *block;
    uint32_t splits;
} matrix_choice;

static uint32_t groups_of(const matrix_block *b, uint32_t side, uint32_t rows, uint32_t tokens) {
    return ceil_div(rows, b->subs_r * b->tiles_r * side) *
           ceil_div(tokens, b->subs_t * b->tiles_t * side);
}

/* Microseconds; of parts also a dispatch and the bytes of adding them up, at 3 TB/s. */
static double matrix_time(matrix_choice c, uint32_t side, uint32_t rows, uint32_t cols,
                          uint32_t tokens) {
    const uint32_t groups = groups_of(c.block, side, rows, tokens) * c.splits;
    const double busy = ceil_div(groups, MATRIX_PROCESSORS) * c.block->each;
    const double units = ceil_div(ceil_div(cols, 32), c.splits);
    const double sums = c.splits > 1 ? 3 + (c.splits + 2.0) * rows * tokens * 4 / 3e6 : 0;
    return units * fmax(busy, c.block->alone) + sums;
}

static matrix_choice choose_matrix(recorder *r, const product *a, uint32_t rows) {
    const uint32_t side = gpu_info(r->m->gpu)->matrix, tokens = rows_of_y(r, a);
    const bool splits = rows % 4 == 0 && !a->y.picked;
    tuned_question q = { .rows = rows, .cols = a->w->cols };
    snprintf(q.key, sizeof q.key, "matmul_matrix%s %s %ux%u %u", a->y.add ? " add" : "",
             weight_fragment(a->w->type)->name, rows, a->w->cols, tokens);
    for (uint32_t i = 0; i < ARRAY_LEN(matrix_blocks); i++) {
        matrix_choice c = { &matrix_blocks[i], 1 };
        for (; c.splits <= (splits ? MATRIX_SPLITS : 1); c.splits *= 2) {
            const uint64_t parts = (uint64_t)c.splits * tokens * rows * sizeof(float);
            if (c.splits > 1 && parts > r->m->buffers.parts.size) break;
            tuned_shape shape = { .which = i,
                                  .splits = c.splits,
                                  .cost = matrix_time(c, side, rows, a->w->cols, tokens) };
            snprintf(shape.name, sizeof shape.name, "%ux%u, split %u",
                     c.block->subs_r * c.block->tiles_r * side,
                     c.block->subs_t * c.block->tiles_t * side, c.splits);
            tuned_offer(&q, &shape);
        }
    }
    const tuned_shape *s = tuned_choice(r, &q);
    return (matrix_choice){ &matrix_blocks[s->which], s->splits };
}

/* Of the tokens that expert_group puts together. */
static matrix_block expert_block(uint32_t side) {
    return (matrix_block){ MATMUL_TOKENS / (2 * side), 4, 2, 2, 0, 0 };
}

const gpu_fragment *matrix_fragment(const gpu *g) {
    return gpu_info(g)->matrix == 8 ? &mma_8_part : &mma_16_part;
}

bool matrix_is_used(const dp_model *m) {
    return gpu_info(m->gpu)->matrix > 0 && !m->shapes.calibrate;
}

/* Whether results have to be looked at one by one: those of a block that is not whole, or has no
 * rows of y to end in, and those that need more than to be added to y. */
static bool has_edges(const recorder *r, const product *a, const matrix_block *b, uint32_t rows,
                      uint32_t first, bool whole) {
    const uint32_t side = gpu_info(r->m->gpu)->matrix;
    const uint32_t room = whole ? r->m->shapes.batch : rows_of_y(r, a);
    const bool blocks = rows % (b->subs_r * b->tiles_r * side) == 0 && !a->w->experts &&
                        !a->y.picked && room % (b->subs_t * b->tiles_t * side) == 0;
    const bool bias = a->bias != NULL && a->bias->source != NULL;
    const bool plain = !bias && (a->y.scale == 0 || a->y.scale == 1) && a->y.stride % 4 == 0 &&
                       a->y.column % 4 == 0 && first % 4 == 0;
    return !blocks || (whole && !plain);
}

void record_matrix(recorder *r, const product *a, uint32_t part) {
    const dp_model *m = r->m;
    const dp_device_info *info = gpu_info(m->gpu);
    const weight_part *p = &a->w->parts[part];
    const bool experts = a->w->experts;
    const uint32_t rows = experts ? a->w->rows : p->rows, side = info->matrix;
    record_input(r, a);
    const matrix_choice c = experts ? (matrix_choice){ NULL, 1 } : choose_matrix(r, a, rows);
    const matrix_block b = experts ? expert_block(side) : *c.block;
    assert(b.subs_t * b.subs_r <= (side == 8 ? 8 : 4)); /* SUBS of the parts mma */
    const bool whole = c.splits == 1;                   /* else matmul_sum does the rest */
    const matmul_matrix_consts consts = {
        .k = a->w->cols,
        .bias = whole && a->bias != NULL && a->bias->source != NULL,
        .add = whole && a->y.add,
        .scale = whole && a->y.scale != 0 ? a->y.scale : 1,
        .cut = a->w->type == DTYPE_F32 || a->w->type == DTYPE_BF16 || a->w->type == DTYPE_MXFP4,
        .experts = experts,
        .x_per = a->x_per,
        .subgroup = info->subgroup_size,
        .subs_t = b.subs_t,
        .subs_r = b.subs_r,
        .tiles_t = b.tiles_t,
        .tiles_r = b.tiles_r,
    };
    const matmul_matrix_params params = {
        .rows = rows,
        .stride = whole ? a->y.stride : rows,
        .column = whole ? a->y.column + (experts ? 0 : p->first) : 0,
        .bias_first = experts ? 0 : p->first,
        .counted = a->y.picked,
        .first_slot = experts ? p->first : 0,
        .slots = experts ? p->rows : 0,
        .units = ceil_div(ceil_div(a->w->cols, 32), c.splits),
        .n_max = rows_of_y(r, a),
        .pitch = input_rows(m, a),
    };
    const gpu_extent by_tokens = { .size = a->y.picked ? SIZE_OUT : SIZE_ROWS,
                                   .per = b.subs_t * b.tiles_t * side };
    const bool edges = has_edges(r, a, &b, rows, p->first, whole);
    const gpu_fragment *const fragments[] = { weight_fragment(a->w->type), matrix_fragment(m->gpu),
                                              edges ? &block_edges_part : &block_whole_part };
    const gpu_range none = m->buffers.none;
    add_call(r, &matmul_matrix_source, fragments, &consts,
             (gpu_call){
                 .bind = { [0] = p->range,
                           [MATMUL_MATRIX_X] = m->buffers.bytes,
                           [MATMUL_MATRIX_BIAS] = or_none(m, a->bias),
                           [MATMUL_MATRIX_SIZES] = m->buffers.sizes,
                           [MATMUL_MATRIX_Y] = whole ? a->y.y : m->buffers.parts,
                           [MATMUL_MATRIX_ORDER] = experts ? m->buffers.order : none,
                           [MATMUL_MATRIX_EXPERT_TILES] = experts ? m->buffers.expert_tiles : none,
                           [MATMUL_MATRIX_PLACE] = experts ? m->buffers.expert_place : none },
                 .params = &params,
                 .groups = { { .times = ceil_div(rows, b.subs_r * b.tiles_r * side) },
                             experts ? (gpu_extent){ .size = SIZE_EXPERT_TILES } : by_tokens,
                             { .times = c.splits } },
             });
    if (!whole) record_sum(r, a, p, c.splits);
    tuned_end(r);
}
