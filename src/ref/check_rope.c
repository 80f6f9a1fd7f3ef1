/* check_rope: RoPE, the norms of heads before it, and the write to the paged cache. */
#include "ref/check_attend_internal.h"

#include <math.h>
#include <stdio.h>

static uint32_t log2_of(uint32_t n) {
    return n <= 1 ? 0 : 1 + log2_of(n / 2);
}

typedef struct {
    uint32_t n_heads, n_kv, head_dim, rope_dim;
    const char *reason;
    bool norm;
} rope_case;

/* The rows of a pass, (slot, position): in all slots, neighbours in a page and
 * across two. */
static const uint32_t rope_rows[][2] = {
    { 0, 0 }, { 2, 31 }, { 2, 32 }, { 1, 5 }, { 1, 69 }, { 0, 64 }, { 0, 1 },
};
enum { ROPE_CONTEXT = 70 };

/* The first values of the first row: a cache of half floats keeps the nearest of them, and of NaN
 * nothing. */
static void make_wild(attend_raw *w) {
    static const float wild[] = { 1e6f, -1e30f, INFINITY, -INFINITY, NAN, -NAN };
    const size_t first = (size_t)(w->n_heads + w->n_kv) * w->head_dim;
    for (size_t i = 0; i < ARRAY_LEN(wild); i++) {
        w->qkv[first + i] = wild[i];
        w->want[first + i] = isnan(wild[i]) ? 0 : copysign(65504, (double)wild[i]);
        w->bound[first + i] = 0;
    }
}

static void rope_row(rig *r, const rope_case *k, bool f16, const rig_reduce *reduce, bool wild) {
    enum { ROWS = ARRAY_LEN(rope_rows) };
    char kernel[96];
    snprintf(kernel, sizeof(kernel), "rope %s %s", f16 ? "f16" : "f32", reduce->part->name);
    if (!rig_begin(r, kernel, k->reason, "heads %u/%u of %u, %u turned%s", k->n_heads, k->n_kv,
                   k->head_dim, k->rope_dim, k->norm ? ", normalised" : "")) {
        return;
    }
    const uint32_t d8 = ceil_div(k->head_dim, 8);
    uint32_t team = 1;
    while (team < d8)
        team *= 2;
    const attend_cache c = attend_new_cache(r, f16, k->n_kv, k->head_dim, ROPE_CONTEXT);
    attend_raw w = { .n = ROWS,
                     .n_heads = k->n_heads,
                     .n_kv = k->n_kv,
                     .head_dim = k->head_dim,
                     .rope_dim = k->rope_dim,
                     .norm = k->norm,
                     .sharp = 1 };
    attend_make_raw(r, &w, rope_rows, 8 + log2_of(team));
    if (wild) make_wild(&w);
    uint32_t(*rows)[4] = rig_alloc(r, ROWS, sizeof(*rows));
    for (uint32_t i = 0; i < ROWS; i++)
        rows[i][1] = rope_rows[i][0], rows[i][2] = rope_rows[i][1];
    const size_t words = c.f16 ? c.n / 2 : c.n;
    rig_output *kc = rig_out(r, NULL, words), *vc = rig_out(r, NULL, words);
    rig_output *q = rig_out(r, NULL, (size_t)ROWS * k->n_heads * d8 * 8);
    const rope_consts consts = {
        .n_heads = k->n_heads,
        .n_kv = k->n_kv,
        .head_dim = k->head_dim,
        .rope_dim = k->rope_dim,
        .norm = k->norm,
        .eps = w.eps,
        .page = ATTEND_PAGE,
        .table = c.table,
        .team = team,
        .wg = k->norm ? 64 : 128, /* both, so that neither is taken for granted */
    };
    const gpu_fragment *const parts[] = { f16 ? &kv_f16_part : &kv_f32_part,
                                          team <= reduce->team ? reduce->part : &reduce_tree_part };
    rig_call(
        r, &rope_source, parts, &consts,
        (gpu_call){
            .bind = { kc->range, vc->range,
                      [ROPE_QKV] = rig_numbers(r, w.qkv, (size_t)ROWS * w.width, k->head_dim - 1),
                      [ROPE_ANGLES] = rig_in(r, w.angles, w.n_angles * 4),
                      [ROPE_ROWS] = rig_in(r, rows, ROWS * sizeof(*rows)),
                      [ROPE_PAGES] = rig_in(r, c.pages, (size_t)ATTEND_SLOTS * c.table * 4),
                      [ROPE_W] = rig_in(r, w.weights, 2 * (size_t)k->head_dim * 4),
                      [ROPE_Q] = q->range },
            .params = &(rope_params){ .wq = 0, .wk = k->head_dim },
            .groups = { { .times = ceil_div((k->n_heads + 2 * k->n_kv) * team, consts.wg) },
                        { .times = ROWS } },
        });
    if (rig_run(r)) {
        for (uint32_t i = 0; i < ROWS * k->n_heads * d8 * 8; i++) {
            const uint32_t d = i % (d8 * 8), head = i / (d8 * 8) % k->n_heads;
            const size_t from =
                (size_t)(i / (d8 * 8) / k->n_heads) * w.width + (size_t)head * k->head_dim + d;
            const bool inside = d < k->head_dim;
            rig_expect(r, rig_float(q, i), inside ? w.want[from] : 0, inside ? w.bound[from] : 0);
        }
        attend_expect_cache(r, &w, rope_rows, &c, kc, KEYS);
        attend_expect_cache(r, &w, rope_rows, &c, vc, VALUES);
    }
    rig_end(r);
}

void check_rope(rig *r) {
    static const rope_case cases[] = {
        { 2, 1, 6, 4, "normalised: less than a chunk, partly turned", true },
        { 2, 1, 2, 2, "the least head: a quarter of a chunk", false },
        { 3, 1, 6, 6, "a head of no whole chunk", false },
        { 3, 3, 6, 4, "rope_dim < head_dim inside a chunk", false },
        { 9, 3, 64, 64, "SmolLM2", false },
        { 4, 2, 64, 16, "a quarter of the head turned", false },
        { 5, 1, 80, 80, "head_dim 80: lanes without a chunk", false },
        { 3, 1, 100, 100, "pairs across chunks", false },
        { 8, 2, 128, 128, "Llama 3", false },
        { 4, 1, 256, 256, "the largest head", false },
        { 4, 2, 64, 0, "no RoPE in this layer (SmolLM3): everything is copied", false },
        { 3, 1, 6, 0, "the same, half a vec4 at the end", false },
        { 8, 2, 128, 128, "Qwen 3: heads normalised", true },
        { 4, 1, 256, 256, "Gemma 3", true },
        { 5, 1, 80, 0, "normalised, not turned", true },
    };
    rig_reduce reduces[2];
    const uint32_t n_reduces = rig_reduces(r, reduces);
    const uint32_t n_variants = (1 + gpu_info(r->g)->f16) * n_reduces;
    static const rope_case wild = { 2, 1, 64, 64, "values beyond half floats", false };
    for (uint32_t v = 0; v < n_variants; v++) {
        for (size_t i = v; i < ARRAY_LEN(cases); i += n_variants)
            rope_row(r, &cases[i], v / n_reduces == 1, &reduces[v % n_reduces], false);
        if (v / n_reduces == 1) rope_row(r, &wild, true, &reduces[v % n_reduces], true);
    }
}
