/* check_decode: the attention of single rows, in both kernels, and the joining of spans. */
#include "model/model.h"
#include "ref/check_attend_internal.h"

#include <math.h>
#include <stdio.h>

/* As spans.wgsl. */
static uint32_t spans_of(const attend_case *a, uint32_t splits, uint32_t n_keys) {
    const uint32_t start =
        a->window > 0 && n_keys > a->window ? (n_keys - a->window) / ATTEND_PAGE * ATTEND_PAGE : 0;
    const uint32_t count = n_keys - start;
    if (count <= a->one) return 1;
    const uint32_t per =
        ceil_div(ceil_div(count, min_u32(ceil_div(count, a->span), splits)), ATTEND_PAGE);
    return ceil_div(count, per * ATTEND_PAGE);
}

/* What attend_decode reads and writes in one row of the table. */
typedef struct {
    attend_history h;
    attend_raw raw; /* if fused, */
    const float *q; /* else the turned queries */
    rig_output *keys, *values, *spans, *y;
    uint32_t splits, n_heads, d8;
} decode_rig;

static void expect_decoded(rig *r, const attend_case *a, const decode_rig *x) {
    const uint32_t width = x->n_heads * a->head_dim;
    double *want = rig_alloc(r, width, sizeof(double)), *bound = rig_alloc(r, width, 8);
    for (uint32_t t = 0; t < a->n; t++) {
        for (uint32_t head = 0; head < x->n_heads; head++) {
            const size_t at = (size_t)head * a->head_dim;
            const size_t row = (size_t)t * x->raw.width + at;
            const double *q =
                a->fused ? x->raw.want + row
                         : rig_doubles(r, x->q + (t * x->n_heads + head) * x->d8 * 8, a->head_dim);
            attend_find_head(r, a, &x->h, q, a->fused ? x->raw.bound + row : NULL, a->rows[t][0],
                             a->rows[t][1], head, want + at, bound + at);
        }
        attend_expect_row(r, a->out, x->y, t, width, want, bound);
    }
    const size_t span = (2 * (size_t)x->d8 + 1) * 4;
    for (uint32_t i = 0; i < a->n * x->n_heads * x->splits; i++) {
        const uint32_t n = spans_of(a, x->splits, a->rows[i / x->splits / x->n_heads][1] + 1);
        if (n > 1 && i % x->splits < n)
            rig_skip(r, span); /* seen through y */
        else
            rig_kept(r, x->spans, i * span, span);
    }
    if (a->fused) {
        attend_expect_cache(r, &x->raw, a->rows, &x->h.cache, x->keys, KEYS);
        attend_expect_cache(r, &x->raw, a->rows, &x->h.cache, x->values, VALUES);
    }
}

/* The binding of norms and sinks, one behind the other. */
static gpu_range put_vectors(rig *r, const attend_case *a, const attend_raw *w, uint32_t first[3]) {
    uint32_t n_sinks;
    const float *sinks = attend_new_sinks(r, a, &n_sinks);
    const size_t n_weights = a->fused ? 2 * (size_t)a->head_dim : 0;
    float *all = rig_alloc(r, n_weights + n_sinks, 4);
    if (n_weights > 0) memcpy(all, w->weights, n_weights * 4);
    memcpy(all + n_weights, sinks, n_sinks * 4);
    first[0] = 0, first[1] = a->head_dim, first[2] = (uint32_t)n_weights;
    return rig_in(r, all, (n_weights + n_sinks) * 4);
}

static gpu_range put_queries(rig *r, const attend_case *a, decode_rig *x, uint32_t wg) {
    if (!a->fused) {
        const size_t row = (size_t)x->n_heads * x->d8 * 8;
        x->q = attend_new_queries(r, a, a->n);
        return rig_numbers(r, x->q, a->n * row, (a->n - 1) * row);
    }
    x->raw = (attend_raw){ .n = a->n,
                           .n_heads = x->n_heads,
                           .n_kv = a->n_kv,
                           .head_dim = a->head_dim,
                           .rope_dim = a->rope_dim,
                           .norm = a->norm,
                           .sharp = a->sharp };
    attend_make_raw(r, &x->raw, a->rows, ceil_div(a->head_dim, wg / 16) + wg / 16);
    attend_add_fresh(r, a, &x->h, &x->raw);
    const size_t value = (size_t)(x->n_heads + a->n_kv) * a->head_dim;
    return rig_numbers(r, x->raw.qkv, (size_t)a->n * x->raw.width,
                       (size_t)(a->n - 1) * x->raw.width + (a->window == 1 ? value : 0));
}

static void decode_row(rig *r, const attend_case *a, bool f16, bool subgroups) {
    char shape[160], kernel[96];
    rig_reduce reduces[2];
    const uint32_t n_reduces = rig_reduces(r, reduces);
    attend_shape(a, shape, sizeof(shape));
    snprintf(kernel, sizeof(kernel), "attend_decode%s %s", subgroups ? "" : "_tree",
             f16 ? "f16" : "f32");
    if (!rig_begin(r, kernel, a->reason, "%s", shape)) return;
    uint32_t longest = 0, used = 1;
    for (uint32_t i = 0; i < a->n; i++)
        longest = max_u32(longest, a->rows[i][1] + 1);
    decode_rig x = { .n_heads = a->n_kv * a->group, .d8 = ceil_div(a->head_dim, 8) };
    /* A span more than any row needs, as when a session is young. */
    x.splits = a->splits > 0 ? a->splits : ceil_div(longest, a->span) + 1;
    for (uint32_t i = 0; i < a->n; i++)
        used = max_u32(used, spans_of(a, x.splits, a->rows[i][1] + 1));
    x.h = attend_new_history(r, a, f16, longest);
    attend_decode_consts consts = {
        .n_kv = a->n_kv,
        .group = a->group,
        .heads = a->heads,
        .head_dim = a->head_dim,
        .rope_dim = a->rope_dim,
        .fused = a->fused,
        .norm = a->norm,
        .eps = 1e-6f,
        .one = a->one,
        .span = a->span,
        .splits = x.splits,
        .window = a->window,
        .scale = 1.0f / sqrtf((float)a->head_dim),
        .softcap = (float)a->softcap,
        .sinks = a->sinks,
        .plain = a->out == OUT_PLAIN,
        .page = ATTEND_PAGE,
        .table = x.h.cache.table,
        .wg = a->wg > 0 ? a->wg : 64,
        .team = reduces[subgroups ? n_reduces - 1 : 0].team,
        .ahead = a->ahead > 0 ? a->ahead : 4,
    };
    const dp_device_info *info = gpu_info(r->g);
    const bool cpu = strcmp(info->type, "cpu") == 0 && !a->gpu;
    const attend_decode_tree_consts tree =
        attend_in_tree(&consts, info->max_workgroup_memory, cpu, f16);
    rig_require(r, !subgroups || attend_in_teams(&consts, info->max_workgroup_memory),
                "too few lanes or too much workgroup memory");
    const gpu_range queries = put_queries(r, a, &x, tree.wg);
    const size_t words = f16 ? x.h.cache.n / 2 : x.h.cache.n;
    if (a->fused) {
        x.keys = rig_out(r, x.h.key_bytes, words);
        x.values = rig_out(r, x.h.value_bytes, words);
    }
    const uint32_t width = x.n_heads * a->head_dim, units = ceil_div(width, 32);
    const uint32_t row_words[] = { width, 32 * units, 12 * units };
    x.spans = rig_out(r, NULL, (size_t)a->n * x.n_heads * x.splits * (2 * x.d8 + 1) * 4);
    x.y = rig_out(r, NULL, (size_t)a->n * row_words[a->out]);
    uint32_t(*rows)[4] = rig_alloc(r, a->n, sizeof(*rows));
    for (uint32_t i = 0; i < a->n; i++)
        rows[i][1] = a->rows[i][0], rows[i][2] = a->rows[i][1];
    const gpu_range row_list = rig_in(r, rows, a->n * sizeof(*rows));
    static const gpu_fragment *const outs[] = { &act_odd_part, &act_f32_part, &act_q8_part };
    uint32_t first[3];
    const gpu_range vectors = put_vectors(r, a, &x.raw, first);
    const attend_decode_tree_params blocks = attend_tree_blocks(&tree, first);
    const attend_decode_params params = { first[0], first[1], first[2] };
    rig_call(
        r, subgroups ? &attend_decode_source : &attend_decode_tree_source,
        (const gpu_fragment *[]){ f16 ? &kv_f16_part : &kv_f32_part, outs[a->out] },
        subgroups ? (const void *)&consts : &tree,
        (gpu_call){
            .bind = { a->fused ? x.keys->range : rig_in(r, x.h.key_bytes, words * 4),
                      a->fused ? x.values->range : rig_in(r, x.h.value_bytes, words * 4),
                      [ATTEND_DECODE_QKV] = queries, [ATTEND_DECODE_ROWS] = row_list,
                      [ATTEND_DECODE_PAGES] =
                          rig_in(r, x.h.cache.pages, (size_t)ATTEND_SLOTS * x.h.cache.table * 4),
                      [ATTEND_DECODE_ANGLES] = rig_in(r, a->fused ? x.raw.angles : &consts.scale,
                                                      a->fused ? x.raw.n_angles * 4 : 4),
                      [ATTEND_DECODE_W] = vectors, [ATTEND_DECODE_SPANS] = x.spans->range,
                      [ACT_ODD_ACT] = x.y->range },
            .params = subgroups ? (const void *)&params : &blocks,
            .groups = { { .times = a->n_kv * ceil_div(a->group, a->heads) },
                        { .times = used },
                        { .times = a->n } },
        });
    if (used > 1) {
        const attend_combine_consts combine = {
            .n_heads = x.n_heads,
            .head_dim = a->head_dim,
            .one = a->one,
            .span = a->span,
            .splits = x.splits,
            .window = a->window,
            .page = ATTEND_PAGE,
            .sinks = a->sinks,
            .plain = consts.plain,
        };
        uint32_t n_sinks;
        const float *sinks = attend_new_sinks(r, a, &n_sinks);
        rig_call(r, &attend_combine_source, &outs[a->out], &combine,
                 (gpu_call){
                     .bind = { [ATTEND_COMBINE_SPANS] = x.spans->range,
                               [ATTEND_COMBINE_ROWS] = row_list,
                               [ATTEND_COMBINE_SINKS] = rig_in(r, sinks, n_sinks * 4),
                               [ACT_ODD_ACT] = x.y->range },
                     .groups = { { .times = x.n_heads }, { .times = a->n } },
                 });
    }
    if (rig_run(r)) expect_decoded(r, a, &x);
    rig_end(r);
}

void check_decode(rig *r) {
    /* Lengths round the tile of 64 keys, the page and the span, in one dispatch:
     * rows are independent. Fused, they are of different sequences. */
    static const uint32_t edges[][2] = { { 0, 0 },  { 1, 1 },   { 2, 62 },  { 0, 63 },
                                         { 1, 64 }, { 2, 127 }, { 0, 128 }, { 1, 199 } };
    static const uint32_t longer[][2] = { { 0, 999 }, { 1, 511 }, { 2, 512 } };
    static const uint32_t few[][2] = { { 2, 69 }, { 0, 13 } };
    static const uint32_t starts[][2] = { { 0, 0 }, { 1, 31 }, { 2, 32 } };
    static const uint32_t tiles[][2] = { { 0, 64 }, { 1, 63 }, { 2, 128 } };
    static const uint32_t deep[][2] = { { 0, 300 }, { 1, 255 }, { 2, 256 } };
#define ROWS(list) .rows = list, .n = ARRAY_LEN(list)
    const attend_case cases[] = {
        { 1, 1, 1, 2, 64, 64, 0, 1, ROWS(edges), .reason = "the least head, span edges" },
        { 2, 4, 4, 64, 512, 64, 0, 1, ROWS(tiles), .reason = "Llama 3.2: all in one dispatch",
          .fused = true, .rope_dim = 64, .out = OUT_Q8 },
        { 2, 3, 3, 64, 64, 64, 0, 1, ROWS(edges), .reason = "SmolLM2's group of 3" },
        { 2, 4, 4, 128, 128, 128, 0, 1, ROWS(edges), .reason = "Llama 3: two tiles to a span",
          .out = OUT_F32 },
        { 1, 8, 4, 80, 64, 64, 0, 1, ROWS(few), .reason = "D8 10 does not divide 64: idle lanes",
          .out = OUT_F32 },
        { 2, 9, 3, 64, 64, 64, 0, 1, ROWS(few), .reason = "a group in three parts" },
        { 1, 16, 4, 96, 64, 64, 0, 1, ROWS(few), .reason = "a group in four full parts, D8 12",
          .out = OUT_Q8 },
        { 3, 1, 1, 6, 64, 64, 0, 1, ROWS(few), .reason = "zeros at the end of a head" },
        { 1, 2, 2, 100, 64, 64, 0, 1, ROWS(few), .reason = "a head of 6 times 16 and 4" },
        { 1, 4, 4, 64, 512, 128, 0, 1, ROWS(longer), .reason = "long rows, span edges",
          .out = OUT_Q8 },
        { 1, 2, 2, 64, 64, 32, 0, 8, ROWS(longer), .reason = "more keys than spans: even parts",
          .splits = 5 },
        { 1, 4, 4, 64, 64, 32, 0, 1, ROWS(longer), .reason = "the most spans", .splits = 64,
          .out = OUT_F32 },
        { 1, 2, 2, 64, 512, 512, 0, 8, ROWS(longer), .reason = "peaked: tiles rescale" },
        { 1, 5, 3, 128, 512, 128, 0, 1, ROWS(few), .reason = "as on a GPU, two blocks of a key",
          .wg = 128, .gpu = true },
        { 1, 4, 4, 64, 512, 128, 0, 1, ROWS(deep), .reason = "two keys to a lane at a time",
          .ahead = 2 },
        { 1, 2, 2, 32, 64, 64, 0, 1, ROWS(edges), .reason = "one key to a lane at a time",
          .ahead = 1 },
        { 2, 2, 2, 64, 64, 64, 1, 1, ROWS(edges), .reason = "a window of the token itself" },
        { 1, 3, 3, 64, 64, 64, 70, 1, ROWS(edges), .reason = "a window over a span's edge" },
        { 1, 2, 2, 32, 64, 128, 130, 4, ROWS(longer), .reason = "whole pages before the window" },
        { 2, 2, 2, 64, 64, 64, 0, 40, ROWS(edges), .reason = "Gemma 2's soft cap", .softcap = 50 },
        { 1, 3, 3, 256, 64, 64, 70, 15, ROWS(few), .reason = "scores far above the cap, a window",
          .softcap = 5 },
        { 1, 5, 3, 64, 64, 64, 0, 1, ROWS(edges), .reason = "sinks among, above and below",
          .sinks = true },
        { 2, 8, 4, 64, 64, 64, 70, 4, ROWS(edges), .reason = "GPT-OSS: sinks and a window",
          .sinks = true },
        { 1, 3, 3, 32, 128, 128, 130, 8, ROWS(longer), .reason = "sinks, spans, a window",
          .sinks = true, .out = OUT_F32 },
        { 1, 9, 3, 6, 64, 64, 40, 30, ROWS(edges), .reason = "all at once", .softcap = 20,
          .sinks = true },
        { 2, 3, 3, 64, 512, 128, 0, 1, ROWS(starts), .reason = "SmolLM2, the first keys",
          .fused = true, .rope_dim = 64 },
        { 1, 2, 2, 128, 512, 128, 0, 2, ROWS(tiles), .reason = "Qwen 3: heads normalised",
          .fused = true, .norm = true, .rope_dim = 128, .out = OUT_F32 },
        { 1, 4, 4, 256, 64, 64, 70, 1, ROWS(tiles), .reason = "Gemma 3, the new key in a span",
          .fused = true, .norm = true, .rope_dim = 256, .out = OUT_Q8 },
        { 1, 9, 3, 64, 64, 64, 0, 1, ROWS(tiles), .reason = "three workgroups to a key head",
          .fused = true, .rope_dim = 32, .out = OUT_F32 },
        { 2, 1, 1, 6, 64, 64, 0, 1, ROWS(starts), .reason = "a head of no whole chunk",
          .fused = true, .norm = true, .rope_dim = 4 },
        { 1, 2, 2, 64, 512, 128, 1, 1, ROWS(tiles), .reason = "the token itself alone",
          .fused = true, .rope_dim = 64 },
        { 2, 8, 4, 64, 512, 128, 40, 1, ROWS(starts), .reason = "GPT-OSS", .fused = true,
          .rope_dim = 64, .sinks = true, .out = OUT_F32 },
        { 2, 2, 2, 80, 512, 128, 0, 10, ROWS(tiles), .reason = "no RoPE, a soft cap", .fused = true,
          .softcap = 50, .out = OUT_F32 },
        { 2, 4, 2, 64, UINT32_MAX, 64, 0, 1, ROWS(deep), .reason = "one span of any length",
          .fused = true, .rope_dim = 64, .wg = 256, .out = OUT_Q8, .gpu = true },
        { 1, 4, 4, 64, 512, 128, 0, 1, ROWS(deep), .reason = "as on a GPU, the next tile",
          .fused = true, .norm = true, .rope_dim = 64, .wg = 256, .out = OUT_Q8, .gpu = true },
    };
#undef ROWS
    /* Cases take turns with half floats; those a team has lanes for go through both kernels. */
    rig_reduce reduces[2];
    const uint32_t n_reduces = rig_reduces(r, reduces), team = reduces[n_reduces - 1].team;
    for (int f16 = 0; f16 < (gpu_info(r->g)->f16 ? 2 : 1); f16++) {
        for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
            if ((gpu_info(r->g)->f16 ? i % 2 : 0) != (size_t)f16) continue;
            decode_row(r, &cases[i], f16 != 0, false);
            if (gpu_info(r->g)->subgroups && cases[i].head_dim <= 8 * team)
                decode_row(r, &cases[i], f16 != 0, true);
        }
    }
}
