/* check_prefill: the attention of many rows, in tiles. */
#include "model/model.h"
#include "ref/check_attend_internal.h"

#include <math.h>
#include <stdio.h>

/* What both kernels read and write. */
typedef struct {
    attend_history h;
    uint32_t (*tiles)[4];
    uint32_t n_rows, n_heads, wide;
    const float *q, *sinks;
    uint32_t n_sinks;
    rig_output *y;
} prefill_rig;

static prefill_rig new_prefill(rig *r, const attend_case *a, bool f16, uint32_t queries) {
    prefill_rig x = { .tiles = rig_alloc(r, a->n, sizeof(*x.tiles)),
                      .n_heads = a->n_kv * a->group,
                      .wide = ceil_div(a->head_dim, 8) * 8 };
    uint32_t longest = 0;
    for (uint32_t i = 0; i < a->n; i++) {
        x.tiles[i][0] = x.n_rows, x.tiles[i][1] = a->n_rows[i];
        x.tiles[i][2] = a->rows[i][0], x.tiles[i][3] = a->rows[i][1];
        x.n_rows += a->n_rows[i];
        longest = max_u32(longest, a->rows[i][1] + a->n_rows[i]);
        assert(a->n_rows[i] <= queries);
    }
    x.h = attend_new_history(r, a, f16, longest);
    x.q = attend_new_queries(r, a, x.n_rows);
    x.y = rig_out(r, NULL, (size_t)x.n_rows * x.n_heads * a->head_dim);
    x.sinks = attend_new_sinks(r, a, &x.n_sinks);
    return x;
}

static gpu_call prefill_call(rig *r, const attend_case *a, const prefill_rig *x) {
    const attend_cache *c = &x->h.cache;
    const size_t bytes = c->n * (c->f16 ? 2 : 4), row = (size_t)x->n_heads * x->wide;
    return (gpu_call){
        .bind = { rig_in(r, x->h.key_bytes, bytes), rig_in(r, x->h.value_bytes, bytes),
                  [ATTEND_PREFILL_Q] = rig_numbers(r, x->q, x->n_rows * row, (x->n_rows - 1) * row),
                  [ATTEND_PREFILL_TILES] = rig_in(r, x->tiles, a->n * sizeof(*x->tiles)),
                  [ATTEND_PREFILL_PAGES] = rig_in(r, c->pages, (size_t)ATTEND_SLOTS * c->table * 4),
                  [ATTEND_PREFILL_SINKS] = rig_in(r, x->sinks, x->n_sinks * 4),
                  [ATTEND_PREFILL_Y] = x->y->range },
        .groups = { { .times = a->n_kv * ceil_div(a->group, a->heads) }, { .times = a->n } },
    };
}

/* A query's roundings: times the scale, and to 11 bits in whichever direction, or by the least half
 * float. */
static const double *query_errors(rig *r, const double *q, uint32_t head_dim) {
    double *error = rig_alloc(r, head_dim, sizeof(double));
    for (uint32_t d = 0; d < head_dim; d++)
        error[d] = fabs(q[d]) * (0x1p-10 + U) + 0x1p-24 * sqrt(head_dim);
    return error;
}

static void expect_prefilled(rig *r, const attend_case *a, const prefill_rig *x) {
    const uint32_t width = x->n_heads * a->head_dim;
    double *want = rig_alloc(r, width, sizeof(double)), *bound = rig_alloc(r, width, 8);
    for (uint32_t i = 0; i < a->n; i++) {
        for (uint32_t j = 0; j < x->tiles[i][1]; j++) {
            const size_t row = x->tiles[i][0] + j;
            for (uint32_t head = 0; head < x->n_heads; head++) {
                const size_t at = (size_t)head * a->head_dim;
                const double *q =
                    rig_doubles(r, x->q + (row * x->n_heads + head) * x->wide, a->head_dim);
                attend_find_head(r, a, &x->h, q, a->halves ? query_errors(r, q, a->head_dim) : NULL,
                                 x->tiles[i][2], x->tiles[i][3] + j, head, want + at, bound + at);
            }
            attend_expect_row(r, OUT_PLAIN, x->y, row, width, want, bound);
        }
    }
}

static void prefill_row(rig *r, const attend_case *a, bool f16, bool shuffled) {
    const bool subgroups = shuffled && a->bk / 4 <= gpu_info(r->g)->subgroup_size;
    char shape[160], kernel[96];
    attend_shape(a, shape, sizeof(shape));
    snprintf(kernel, sizeof(kernel), "attend_prefill %s %s", f16 ? "f16" : "f32",
             subgroups ? "subgroup" : "tree");
    attend_prefill_consts consts = {
        .n_kv = a->n_kv,
        .group = a->group,
        .heads = a->heads,
        .head_dim = a->head_dim,
        .window = a->window,
        .scale = 1.0f / sqrtf((float)a->head_dim),
        .softcap = (float)a->softcap,
        .sinks = a->sinks,
        .page = ATTEND_PAGE,
        .bq = a->bq,
        .bk = a->bk,
        .rows = a->q_rows,
        .parts = a->parts,
    };
    if (!attend_prefill_fits(&consts, gpu_info(r->g), subgroups) ||
        !rig_begin(r, kernel, a->reason, "%s, tiles %ux%u, %u rows, %u parts", shape, a->bq, a->bk,
                   a->q_rows, a->parts)) {
        return;
    }
    const prefill_rig x = new_prefill(r, a, f16, a->bq / a->heads);
    consts.table = x.h.cache.table;
    rig_call(r, &attend_prefill_source,
             (const gpu_fragment *[]){ f16 ? &kv_f16_part : &kv_f32_part,
                                       subgroups ? &join_subgroup_part : &join_tree_part },
             &consts, prefill_call(r, a, &x));
    if (rig_run(r)) expect_prefilled(r, a, &x);
    rig_end(r);
}

void check_prefill(rig *r) {
    /* Tiles of three sequences: the start of one, one that continues over page
     * and tile edges with full tiles and a last one that is not full, a single
     * row. */
    static const uint32_t at[][2] = { { 0, 0 }, { 2, 61 }, { 2, 65 }, { 2, 69 }, { 1, 31 } };
    static const uint32_t small[] = { 3, 4, 4, 2, 1 };
    static const uint32_t start[][2] = { { 1, 0 }, { 1, 16 }, { 1, 32 }, { 0, 100 }, { 0, 116 } };
    static const uint32_t full[] = { 16, 16, 5, 16, 1 };
    static const uint32_t start10[][2] = { { 1, 0 }, { 1, 10 }, { 0, 100 }, { 0, 110 } };
    static const uint32_t full10[] = { 10, 3, 10, 1 };
    static const uint32_t start64[][2] = { { 1, 0 }, { 1, 64 }, { 0, 90 } };
    static const uint32_t full64[] = { 64, 9, 33 };
    static const uint32_t two[][2] = { { 1, 0 }, { 2, 2 }, { 0, 90 }, { 0, 92 } };
    static const uint32_t full2[] = { 2, 2, 2, 1 };
    static const uint32_t far[][2] = { { 2, 993 } };
    static const uint32_t seven[] = { 7 };
#define TILES(list, counts) .rows = list, .n_rows = counts, .n = ARRAY_LEN(list)
    const attend_case cases[] = {
        { 1, 1, 1, 2, 0, 0, 0, 1, TILES(at, small), 16, 16, 2, 1,
          "the least head, rows do not fill tiles" },
        { 3, 1, 1, 6, 0, 0, 0, 1, TILES(start, full), 32, 32, 4, 2, "zeros at the end of a head" },
        { 2, 3, 3, 64, 0, 0, 0, 1, TILES(start10, full10), 32, 32, 8, 1,
          "SmolLM2: 30 rows of 32 and a single query" },
        { 2, 4, 4, 64, 0, 0, 0, 1, TILES(start, full), 64, 64, 8, 2,
          "Llama 3.2: full tiles and a single query" },
        { 3, 1, 1, 32, 0, 0, 0, 1, TILES(start64, full64), 64, 32, 4, 1, "no head shares a key" },
        { 2, 4, 4, 16, 0, 0, 0, 1, TILES(start, full), 64, 64, 8, 2, "16 lanes to a row" },
        { 1, 3, 3, 32, 0, 0, 0, 1, TILES(start, full), 48, 64, 8, 2, "6 rows of lanes" },
        { 1, 2, 2, 64, 0, 0, 0, 1, TILES(start, full), 32, 64, 8, 2, "4 chunks to a lane" },
        { 1, 4, 4, 80, 0, 0, 0, 1, TILES(at, small), 16, 32, 2, 2,
          "lanes without scores, a chunk to 40 dimensions" },
        { 1, 4, 4, 80, 0, 0, 0, 1, TILES(at, small), 16, 64, 2, 4,
          "parts of 3, 3, 3 and 1 chunks of a key" },
        { 1, 5, 5, 100, 0, 0, 0, 1, TILES(two, full2), 16, 32, 4, 2, "half a chunk at the end" },
        { 1, 2, 2, 128, 0, 0, 0, 1, TILES(at, small), 8, 16, 2, 2, "Llama 3" },
        { 1, 4, 4, 128, 0, 0, 0, 1, TILES(at, small), 16, 64, 2, 4, "the same in larger tiles" },
        { 2, 1, 1, 192, 0, 0, 0, 1, TILES(at, small), 8, 8, 2, 1, "two columns of lanes" },
        { 1, 4, 4, 256, 0, 0, 0, 1, TILES(two, full2), 8, 4, 2, 1, "the largest head" },
        { 1, 4, 4, 256, 0, 0, 0, 1, TILES(two, full2), 8, 16, 2, 4, "the largest head in parts" },
        { 1, 9, 5, 16, 0, 0, 0, 1, TILES(at, small), 32, 16, 4, 1, "a group in parts of 5 and 4" },
        { 1, 2, 2, 64, 0, 0, 0, 8, TILES(far, seven), 16, 32, 4, 2,
          "long and peaked: tiles rescale" },
        { 1, 2, 2, 64, 0, 0, 1, 1, TILES(start, full), 32, 32, 4, 1,
          "a window of the token itself" },
        { 1, 2, 2, 64, 0, 0, 40, 1, TILES(start, full), 32, 32, 4, 1, "a window over tile edges" },
        { 1, 2, 2, 128, 0, 0, 17, 4, TILES(far, seven), 16, 16, 2, 2,
          "whole tiles before the window" },
        { 1, 2, 2, 64, 0, 0, 0, 40, TILES(start, full), 32, 32, 8, 2, "Gemma 2's soft cap",
          .softcap = 50 },
        { 1, 2, 2, 128, 0, 0, 17, 15, TILES(far, seven), 16, 16, 2, 1,
          "scores far above the cap, a window", .softcap = 5 },
        { 1, 1, 1, 256, 0, 0, 0, 1, TILES(at, small), 8, 8, 2, 2, "scores far below the cap",
          .softcap = 50 },
        { 1, 5, 5, 64, 0, 0, 0, 1, TILES(two, full2), 16, 16, 2, 1, "sinks among, above and below",
          .sinks = true },
        { 2, 4, 4, 64, 0, 0, 40, 4, TILES(start, full), 64, 32, 4, 1, "GPT-OSS: sinks, a window",
          .sinks = true },
        { 1, 3, 3, 128, 0, 0, 17, 8, TILES(far, seven), 32, 32, 4, 2,
          "sinks, whole tiles before the window", .sinks = true },
        { 1, 2, 2, 64, 0, 0, 1, 1, TILES(at, small), 16, 16, 2, 1, "sinks beside the token itself",
          .sinks = true },
        { 1, 9, 5, 6, 0, 0, 40, 30, TILES(at, small), 32, 32, 8, 1, "all at once", .softcap = 20,
          .sinks = true },
    };
#undef TILES
    for (int f16 = 0; f16 < (gpu_info(r->g)->f16 ? 2 : 1); f16++) {
        for (int shuffled = 0; shuffled < (gpu_info(r->g)->subgroups ? 2 : 1); shuffled++) {
            for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
                if (gpu_info(r->g)->subgroups && i % 2 != (size_t)(shuffled ^ f16)) continue;
                prefill_row(r, &cases[i], f16 != 0, shuffled != 0);
            }
        }
    }
}

static void matrix_row(rig *r, const attend_case *a) {
    const dp_device_info *info = gpu_info(r->g);
    char shape[160];
    attend_shape(a, shape, sizeof(shape));
    if (!attend_matrix_fits(r->g, a->head_dim) ||
        !rig_begin(r, "attend_matrix", a->reason, "%s", shape)) {
        return;
    }
    const prefill_rig x = new_prefill(r, a, true, info->matrix / a->heads);
    const attend_matrix_consts consts = {
        .n_kv = a->n_kv,
        .group = a->group,
        .heads = a->heads,
        .head_dim = a->head_dim,
        .window = a->window,
        .scale = 1.0f / sqrtf((float)a->head_dim),
        .softcap = (float)a->softcap,
        .sinks = a->sinks,
        .table = x.h.cache.table,
        .subgroup = info->subgroup_size,
    };
    rig_call(r, &attend_matrix_source, (const gpu_fragment *[]){ matrix_fragment(r->g) }, &consts,
             prefill_call(r, a, &x));
    if (rig_run(r)) expect_prefilled(r, a, &x);
    rig_end(r);
}

void check_attend_matrix(rig *r) {
    /* Tiles of one to eight queries: the start of a sequence, over the edges of pages, far into
     * one. */
    static const uint32_t ones[][2] = { { 0, 0 }, { 2, 31 }, { 2, 32 }, { 1, 95 } };
    static const uint32_t one[] = { 1, 1, 1, 1 };
    static const uint32_t twos[][2] = { { 1, 0 }, { 2, 31 }, { 0, 90 }, { 0, 94 } };
    static const uint32_t two[] = { 2, 2, 2, 1 };
    static const uint32_t eights[][2] = { { 0, 0 }, { 2, 61 }, { 2, 69 }, { 1, 31 } };
    static const uint32_t eight[] = { 8, 8, 3, 5 };
    static const uint32_t far[][2] = { { 2, 993 } };
#define TILES(list, counts) .rows = list, .n_rows = counts, .n = ARRAY_LEN(list)
    static const attend_case cases[] = {
        { 2, 4, 4, 64, 0, 0, 0, 1, TILES(twos, two), .reason = "Llama 3.2" },
        { 1, 4, 4, 128, 0, 0, 0, 1, TILES(twos, two), .reason = "Llama 3: the most matrices" },
        { 2, 1, 1, 64, 0, 0, 0, 1, TILES(eights, eight), .reason = "a head for itself" },
        { 2, 3, 3, 64, 0, 0, 0, 1, TILES(twos, two),
          .reason = "SmolLM2: rows that are no queries" },
        { 1, 8, 8, 64, 0, 0, 0, 1, TILES(ones, one), .reason = "eight heads, one query" },
        { 1, 12, 6, 64, 0, 0, 0, 1, TILES(ones, one), .reason = "a group in two parts" },
        { 1, 9, 5, 16, 0, 0, 0, 1, TILES(ones, one), .reason = "a group in parts of 5 and 4" },
        { 1, 2, 2, 80, 0, 0, 0, 1, TILES(twos, two), .reason = "five matrices of 16" },
        { 2, 2, 2, 40, 0, 0, 0, 1, TILES(twos, two), .reason = "five matrices of 8, one chunk" },
        { 1, 2, 2, 64, 0, 0, 0, 8, TILES(far, two), .reason = "long and peaked: rows rescale" },
        { 1, 4, 4, 32, 0, 0, 0, 12, TILES(far, two), .reason = "a key has nearly all" },
        { 1, 2, 2, 64, 0, 0, 1, 1, TILES(twos, two), .reason = "a window of the token itself" },
        { 1, 1, 1, 64, 0, 0, 40, 1, TILES(eights, eight), .reason = "a window over pages" },
        { 1, 2, 2, 32, 0, 0, 17, 4, TILES(far, two), .reason = "whole pages before the window" },
        { 1, 2, 2, 64, 0, 0, 0, 8, TILES(twos, two), .reason = "Gemma 2's soft cap",
          .softcap = 10 },
        { 1, 5, 5, 64, 0, 0, 0, 1, TILES(ones, one), .reason = "sinks among, above and below",
          .sinks = true },
        { 2, 8, 8, 64, 0, 0, 40, 4, TILES(ones, one), .reason = "GPT-OSS: sinks, a window",
          .sinks = true },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        attend_case a = cases[i];
        a.halves = true;
        a.bk = ATTEND_PAGE;
        matrix_row(r, &a);
    }
    /* As many queries as fill a matrix of whichever side. */
    static const uint32_t heads[] = { 1, 3, 4, 16 };
    static const uint32_t starts[][2] = { { 1, 0 }, { 2, 55 } };
    const uint32_t side = gpu_info(r->g)->matrix;
    for (size_t i = 0; i < ARRAY_LEN(heads) && side > 0; i++) {
        const uint32_t rows = side / heads[i], full[] = { rows, rows };
        if (rows > 0) {
            matrix_row(r, &(attend_case){ 1, heads[i], heads[i], 64, 0, 0, i == 0 ? 40 : 0, 2,
                                          TILES(starts, full), .bk = ATTEND_PAGE, .halves = true,
                                          .reason = "every row is a query" });
        }
    }
#undef TILES
}
