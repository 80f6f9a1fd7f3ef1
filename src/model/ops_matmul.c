/* ops_matmul: matrix products of a few rows, dense and of experts (of many: ops_prefill.c, where a
 * software GPU has those of a few too). */
#include "model/ops_internal.h"

#include <stdio.h>

enum {
    MATVEC_LARGE = 4096, /* rows from which a workgroup takes 8 instead of 4 */
};

/* Rows that a workgroup takes; of experts, which are not tuned, as their number wants it. */
static uint32_t choose_teams(recorder *r, const weight *w, uint32_t rows) {
    static const uint32_t others[] = { 4, 8, 16 };
    const uint32_t usual = rows >= MATVEC_LARGE ? 8 : 4;
    const uint32_t most = gpu_info(r->m->gpu)->max_workgroup_lanes / team_lanes(r->m->gpu);
    if (w->experts) {
        return usual;
    }
    tuned_question q = { .rows = rows, .cols = w->cols };
    snprintf(q.key, sizeof q.key, "matvec %s %ux%u %u", weight_fragment(w->type)->name, rows,
             w->cols, most_rows(r));
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        tuned_shape shape = { .which = others[i], .cost = others[i] != usual };
        snprintf(shape.name, sizeof shape.name, "rows %u", others[i]);
        if (others[i] <= most) {
            tuned_offer(&q, &shape);
        }
    }
    return tuned_choice(r, &q)->which;
}

static void record_matvec(recorder *r, const product *a, uint32_t part) {
    const dp_model *m = r->m;
    const weight_part *p = &a->w->parts[part];
    const bool experts = a->w->experts;
    const uint32_t rows = experts ? a->w->rows : p->rows;
    const uint32_t team = team_lanes(m->gpu);
    const uint32_t teams = choose_teams(r, a->w, rows);
    const uint32_t groups = ceil_div(rows, teams);
    const uint32_t grid_x = min_u32(groups, GRID_MAX);
    const matvec_consts consts = {
        .k = a->w->cols,
        .tokens = experts ? 1 : most_rows(r),
        .bias = a->bias != NULL && a->bias->source != NULL,
        .add = a->y.add,
        .scale = a->y.scale != 0 ? a->y.scale : 1,
        .experts = experts,
        .x_per = a->x_per,
        .wg = teams * team,
        .team = team,
    };
    const matvec_params params = {
        .rows = rows,
        .grid_x = grid_x,
        .stride = a->y.stride,
        .column = a->y.column + (experts ? 0 : p->first),
        .bias_first = experts ? 0 : p->first,
        .counted = a->y.picked,
        .first_slot = experts ? p->first : 0,
        .slots = experts ? p->rows : 0,
    };
    const gpu_extent pairs = { .times = m->config.n_experts_used, .size = SIZE_ROWS };
    add_call(r, &matvec_source,
             (const gpu_fragment *[]){ weight_fragment(a->w->type), reduce_fragment(m->gpu) },
             &consts,
             (gpu_call){
                 .bind = { [0] = p->range,
                           [MATVEC_X] = a->x,
                           [MATVEC_BIAS] = or_none(m, a->bias),
                           [MATVEC_SIZES] = m->buffers.sizes,
                           [MATVEC_Y] = a->y.y,
                           [MATVEC_CHOICE] = experts ? m->buffers.choice : m->buffers.none,
                           [MATVEC_PLACE] = experts ? m->buffers.expert_place : m->buffers.none },
                 .params = &params,
                 .groups = { { .times = grid_x },
                             { .times = ceil_div(groups, grid_x) },
                             experts ? pairs : (gpu_extent){ 0 } },
             });
    tuned_end(r);
}

static void record_product(recorder *r, const product *a) {
    assert(a->w->cols % 4 == 0 && a->y.column + a->w->rows <= a->y.stride);
    for (uint32_t i = 0; i < a->w->n_parts; i++) {
        const bool many = pass_is_prefill(r->kind);
        const bool few = r->kind != PASS_ONE && !a->w->experts && matmul_takes_rows(r->m->gpu);
        if (many && matrix_is_used(r->m)) {
            record_matrix(r, a, i);
        } else if (many || few) {
            record_matmul(r, a, i);
        } else {
            record_matvec(r, a, i);
        }
    }
}

void op_matmul(recorder *r, target y, const weight *w, const vector *bias, gpu_range x) {
    record_product(r, &(product){ .y = y, .w = w, .bias = bias, .x = x, .x_per = 1 });
}

void op_expert_matmul(recorder *r, target y, const weight *w, const vector *bias, gpu_range x,
                      bool x_by_row) {
    const uint32_t x_per = x_by_row ? r->m->config.n_experts_used : 1;
    record_product(r, &(product){ .y = y, .w = w, .bias = bias, .x = x, .x_per = x_per });
}
