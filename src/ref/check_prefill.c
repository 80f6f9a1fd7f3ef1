/* check_prefill: the attention of many rows, in tiles. */
#include "model/model.h"
#include "ref/check_attend_internal.h"

#include <math.h>
#include <stdio.h>

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
    uint32_t longest = 0, n_rows = 0;
    uint32_t(*tiles)[4] = rig_alloc(r, a->n, sizeof(*tiles));
    for (uint32_t i = 0; i < a->n; i++) {
        tiles[i][0] = n_rows, tiles[i][1] = a->n_rows[i];
        tiles[i][2] = a->rows[i][0], tiles[i][3] = a->rows[i][1];
        n_rows += a->n_rows[i];
        longest = max_u32(longest, a->rows[i][1] + a->n_rows[i]);
        assert(a->n_rows[i] <= a->bq / a->heads);
    }
    const uint32_t n_heads = a->n_kv * a->group, wide = ceil_div(a->head_dim, 8) * 8;
    const attend_history h = attend_new_history(r, a, f16, longest);
    const float *q = attend_new_queries(r, a, n_rows);
    rig_output *y = rig_out(r, NULL, (size_t)n_rows * n_heads * a->head_dim);
    consts.table = h.cache.table;
    uint32_t n_sinks;
    const float *sinks = attend_new_sinks(r, a, &n_sinks);
    const size_t bytes = h.cache.n * (f16 ? 2 : 4);
    rig_call(
        r, &attend_prefill_source,
        (const gpu_fragment *[]){ f16 ? &kv_f16_part : &kv_f32_part,
                                  subgroups ? &join_subgroup_part : &join_tree_part },
        &consts,
        (gpu_call){
            .bind = { rig_in(r, h.key_bytes, bytes), rig_in(r, h.value_bytes, bytes),
                      [ATTEND_PREFILL_Q] = rig_numbers(r, q, (size_t)n_rows * n_heads * wide,
                                                       (size_t)(n_rows - 1) * n_heads * wide),
                      [ATTEND_PREFILL_TILES] = rig_in(r, tiles, a->n * sizeof(*tiles)),
                      [ATTEND_PREFILL_PAGES] =
                          rig_in(r, h.cache.pages, (size_t)ATTEND_SLOTS * h.cache.table * 4),
                      [ATTEND_PREFILL_SINKS] = rig_in(r, sinks, n_sinks * 4),
                      [ATTEND_PREFILL_Y] = y->range },
            .groups = { { .times = a->n_kv * ceil_div(a->group, a->heads) }, { .times = a->n } },
        });
    if (rig_run(r)) {
        const uint32_t width = n_heads * a->head_dim;
        double *want = rig_alloc(r, width, sizeof(double)), *bound = rig_alloc(r, width, 8);
        for (uint32_t i = 0; i < a->n; i++) {
            for (uint32_t j = 0; j < tiles[i][1]; j++) {
                const size_t row = tiles[i][0] + j;
                for (uint32_t head = 0; head < n_heads; head++) {
                    const size_t at = (size_t)head * a->head_dim;
                    attend_find_head(
                        r, a, &h, rig_doubles(r, q + (row * n_heads + head) * wide, a->head_dim),
                        NULL, tiles[i][2], tiles[i][3] + j, head, want + at, bound + at);
                }
                attend_expect_row(r, OUT_PLAIN, y, row, width, want, bound);
            }
        }
    }
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
