/* check_attend: RoPE with the paged cache, and the two attentions that read it.
 *
 * Pages of a slot lie scattered over the pool. What no position has written holds NaN, so that a
 * key beyond a row's length cannot take part unseen. */
#include "ref/check_internal.h"

#include <float.h>
#include <math.h>
#include <stdio.h>

enum { PAGE = 32, SLOTS = 3 };

/* A pool of pages for SLOTS sequences. */
typedef struct {
    bool f16;
    uint32_t n_kv, head_dim, d4, table, n_pages;
    uint32_t *pages; /* [SLOTS, table] */
    size_t n;        /* elements of keys, and of values */
} cache;

static cache new_cache(rig *r, bool f16, uint32_t n_kv, uint32_t head_dim, uint32_t longest) {
    cache c = { .f16 = f16,
                .n_kv = n_kv,
                .head_dim = head_dim,
                .d4 = ceil_div(head_dim, 4),
                .table = ceil_div(longest, PAGE) };
    c.n_pages = SLOTS * c.table + 2; /* two belong to nobody */
    c.pages = rig_shuffled(r, c.n_pages);
    c.n = (size_t)c.n_pages * n_kv * PAGE * c.d4 * 4;
    return c;
}

/* Element d of a head's key or value at a position. */
static size_t cache_at(const cache *c, uint32_t slot, uint32_t pos, uint32_t kv, uint32_t d) {
    const size_t page = c->pages[slot * c->table + pos / PAGE];
    return ((page * c->n_kv + kv) * PAGE + pos % PAGE) * c->d4 * 4 + d;
}

static uint32_t row_width(uint32_t n_heads, uint32_t n_kv, uint32_t head_dim) {
    return (n_heads + 2 * n_kv) * head_dim;
}

/* ---- rope ---------------------------------------------------------------------------------- */

typedef struct {
    uint32_t n_heads, n_kv, head_dim, rope_dim;
    const char *reason;
} rope_case;

/* The rows of a pass: places in all slots, neighbours in a page and across two. */
static const uint32_t rope_rows[][4] = {
    { 0, 0, 0, 0 },  { 0, 2, 31, 0 }, { 0, 2, 32, 0 }, { 0, 1, 5, 0 },
    { 0, 1, 69, 0 }, { 0, 0, 64, 0 }, { 0, 0, 1, 0 },
};
enum { ROPE_CONTEXT = 70 };

/* An element of a cache as the kernel should have left it. */
static void expect_cached(rig *r, const cache *c, const rig_output *o, size_t i, double want,
                          double bound) {
    if (!c->f16) {
        rig_expect(r, rig_float(o, i), want, bound);
        return;
    }
    /* f16 has 11 bits and WGSL leaves the direction of rounding open: 2^-10, or 2^-24 below 2^-14.
     */
    uint16_t half;
    memcpy(&half, (const uint8_t *)o->after + 2 * i, 2);
    rig_expect_half(r, half, want, want == 0 ? 0 : bound + fabs(want) * 0x1p-10 + 0x1p-24);
}

/* All elements of the keys (or values) that the rows put there; all others are as before. */
static void expect_cache(rig *r, const rope_case *k, const cache *c, const rig_output *o,
                         const double *rows, const double *bounds, uint32_t first_head) {
    const uint32_t width = row_width(k->n_heads, k->n_kv, k->head_dim);
    bool *written = rig_alloc(r, c->n, sizeof(bool));
    for (uint32_t t = 0; t < ARRAY_LEN(rope_rows); t++) {
        for (uint32_t i = 0; i < k->n_kv * c->d4 * 4; i++) {
            const uint32_t kv = i / (c->d4 * 4), d = i % (c->d4 * 4);
            const size_t at = cache_at(c, rope_rows[t][1], rope_rows[t][2], kv, d);
            const size_t from = (size_t)t * width + (first_head + kv) * k->head_dim + d;
            written[at] = true;
            if (d < k->head_dim)
                expect_cached(r, c, o, at, rows[from], bounds[from]);
            else
                expect_cached(r, c, o, at, 0, 0); /* the rest of the last vec4 */
        }
    }
    const size_t halves = c->f16 ? 2 : 1; /* elements to a word; they are written by vec4s */
    for (size_t i = 0; i < c->n; i += 4) {
        if (!written[i]) rig_kept(r, o, i / halves, 4 / halves);
    }
}

static void rope_row(rig *r, const rope_case *k, bool f16) {
    enum { ROWS = ARRAY_LEN(rope_rows) };
    if (!rig_begin(r, f16 ? "rope f16" : "rope f32", k->reason, "heads %u/%u of %u, %u turned",
                   k->n_heads, k->n_kv, k->head_dim, k->rope_dim)) {
        return;
    }
    const uint32_t pairs = k->rope_dim / 2, d4 = ceil_div(k->head_dim, 4);
    const uint32_t width = row_width(k->n_heads, k->n_kv, k->head_dim);
    const cache c = new_cache(r, f16, k->n_kv, k->head_dim, ROPE_CONTEXT);
    float *angles = rig_alloc(r, (size_t)ROPE_CONTEXT * pairs * 2, 4);
    double(*turns)[2] = rig_alloc(r, (size_t)ROPE_CONTEXT * pairs, sizeof(*turns));
    for (uint32_t i = 0; i < ROPE_CONTEXT * pairs; i++) {
        const double angle = (double)(i / pairs) * pow(10000, -(double)(i % pairs) / pairs);
        turns[i][0] = (double)(angles[2 * i] = (float)cos(angle));
        turns[i][1] = (double)(angles[2 * i + 1] = (float)sin(angle));
    }
    const float *qkv = rig_normals(r, (size_t)ROWS * width, 1);
    double *want = rig_doubles(r, qkv, (size_t)ROWS * width);
    /* Two products and a sum: three roundings of at most |a cos| + |b sin| <= |a| + |b|. */
    double *bounds = rig_alloc(r, (size_t)ROWS * width, sizeof(double));
    for (uint32_t t = 0; t < ROWS; t++) {
        const double(*row)[2] = (const double(*)[2])turns + rope_rows[t][2] * pairs;
        const size_t at = (size_t)t * width, n = (k->n_heads + k->n_kv) * (size_t)k->head_dim;
        ref_rope(want + at, row, k->n_heads + k->n_kv, k->head_dim, k->rope_dim);
        for (size_t i = 0; i < n; i++) {
            const size_t d = i % k->head_dim, head = i - d;
            if (d >= k->rope_dim) continue; /* copied: exact */
            const size_t a = d % pairs, b = a + pairs;
            bounds[at + i] =
                3 * U * (fabs((double)qkv[at + head + a]) + fabs((double)qkv[at + head + b]));
        }
    }
    const size_t words = c.f16 ? c.n / 2 : c.n;
    rig_output *kc = rig_out(r, NULL, words), *vc = rig_out(r, NULL, words);
    rig_output *q = rig_out(r, NULL, (size_t)ROWS * k->n_heads * d4 * 4);
    const rope_consts consts = {
        .n_heads = k->n_heads,
        .n_kv = k->n_kv,
        .head_dim = k->head_dim,
        .rope_dim = k->rope_dim,
        .page = PAGE,
        .table = c.table,
    };
    rig_call(r, &rope_source, (const gpu_fragment *[]){ f16 ? &kvout_f16_part : &kvout_f32_part },
             &consts,
             (gpu_call){
                 .bind = { kc->range, vc->range,
                           [ROPE_QKV] = rig_numbers(r, qkv, (size_t)ROWS * width, k->head_dim - 1),
                           [ROPE_ANGLES] = rig_in(r, angles, (size_t)ROPE_CONTEXT * pairs * 8),
                           [ROPE_ROWS] = rig_in(r, rope_rows, sizeof(rope_rows)),
                           [ROPE_PAGES] = rig_in(r, c.pages, (size_t)SLOTS * c.table * 4),
                           [ROPE_Q] = q->range },
                 .groups = { { .times = ceil_div((k->n_heads + 2 * k->n_kv) * d4, 64) },
                             { .times = ROWS } },
             });
    if (rig_run(r)) {
        for (uint32_t i = 0; i < ROWS * k->n_heads * d4 * 4; i++) {
            const uint32_t d = i % (d4 * 4), head = i / (d4 * 4) % k->n_heads;
            const size_t from =
                (size_t)(i / (d4 * 4) / k->n_heads) * width + head * k->head_dim + d;
            const bool inside = d < k->head_dim;
            rig_expect(r, rig_float(q, i), inside ? want[from] : 0, inside ? bounds[from] : 0);
        }
        expect_cache(r, k, &c, kc, want, bounds, k->n_heads);
        expect_cache(r, k, &c, vc, want, bounds, k->n_heads + k->n_kv);
    }
    rig_end(r);
}

void check_rope(rig *r) {
    static const rope_case cases[] = {
        { 2, 1, 2, 2, "the least head: half a vec4" },
        { 3, 1, 6, 6, "a head of one and a half vec4s, pairs across vec4s" },
        { 3, 3, 6, 4, "rope_dim < head_dim inside a vec4" },
        { 9, 3, 64, 64, "SmolLM2" },
        { 4, 2, 64, 16, "a quarter of the head turned" },
        { 5, 1, 80, 80, "head_dim 80" },
        { 3, 1, 96, 96, "head_dim 96" },
        { 8, 2, 128, 128, "Llama 3" },
        { 4, 1, 256, 256, "the largest head" },
        { 4, 2, 64, 0, "no RoPE in this layer (SmolLM3): everything is copied" },
        { 3, 1, 6, 0, "the same, half a vec4 at the end" },
    };
    for (int f16 = 0; f16 <= gpu_info(r->g)->f16; f16++) {
        for (size_t i = 0; i < ARRAY_LEN(cases); i++)
            rope_row(r, &cases[i], f16 != 0);
    }
}

/* ---- attention ----------------------------------------------------------------------------- */

typedef struct {
    uint32_t n_kv, group, heads, head_dim, span, window;
    double sharp;              /* factor of the queries: how peaked the softmax is */
    const uint32_t (*rows)[2]; /* decode: (slot, position); prefill: (slot, first position) ... */
    const uint32_t *n_rows;    /* ... and rows of each tile */
    uint32_t n;
    uint32_t bq, bk;
    const char *reason;
    double softcap;
    bool sinks;
} attend_case;

/* Sinks among the scores, far above them, far below, above but not by far, so far above that
 * nothing is left. The first one is of the head in which PLANT_INPUT changes something. */
static const float SINKS[] = { 0.3f, 60, -1e4f, 4, 300 };

/* Keys and values of all slots: [SLOTS, length, n_kv * head_dim], and as they lie in the cache. */
typedef struct {
    cache cache;
    double *k, *v;
    gpu_range keys, values, pages;
    uint32_t length;
} history;

/* `plant`: where PLANT_INPUT changes an element, slot * length + position; UINT32_MAX: not here. */
static gpu_range put_cache(rig *r, const cache *c, const double *x, uint32_t length,
                           uint32_t plant) {
    const size_t size = c->f16 ? 2 : 4;
    uint8_t *bytes = rig_alloc(r, c->n, size);
    for (size_t i = 0; i < c->n; i++) {
        const float nan = NAN;
        const uint16_t half = 0x7e00;
        memcpy(bytes + i * size, c->f16 ? (const void *)&half : (const void *)&nan, size);
    }
    const size_t stride = (size_t)c->n_kv * c->head_dim;
    for (uint32_t i = 0; i < SLOTS * length * c->n_kv * c->d4 * 4; i++) {
        const uint32_t d = i % (c->d4 * 4), kv = i / (c->d4 * 4) % c->n_kv;
        const uint32_t pos = i / (c->d4 * 4) / c->n_kv;
        float value = d < c->head_dim ? (float)x[pos * stride + kv * c->head_dim + d] : 0;
        if (pos == plant && kv == 0 && d == 0 && rig_plant(r)) value += 8;
        const uint16_t half = f32_to_f16(value);
        memcpy(bytes + cache_at(c, pos / length, pos % length, kv, d) * size,
               c->f16 ? (const void *)&half : (const void *)&value, size);
    }
    return rig_in(r, bytes, c->n * size);
}

static history new_history(rig *r, const attend_case *a, bool f16, uint32_t length) {
    history h = { .cache = new_cache(r, f16, a->n_kv, a->head_dim, length), .length = length };
    const size_t n = (size_t)SLOTS * length * a->n_kv * a->head_dim;
    h.k = rig_alloc(r, n, sizeof(double));
    h.v = rig_alloc(r, n, sizeof(double));
    for (size_t i = 0; i < n; i++) {
        const float k = (float)rig_normal(r), v = (float)rig_normal(r);
        h.k[i] = (double)(f16 ? f16_to_f32(f32_to_f16(k)) : k); /* what the cache will hold */
        h.v[i] = (double)(f16 ? f16_to_f32(f32_to_f16(v)) : v);
    }
    /* With a window of one key the softmax is 1 whatever the query: the fault goes into the value.
     */
    const uint32_t last = a->rows[a->n - 1][0] * length + a->rows[a->n - 1][1];
    h.keys = put_cache(r, &h.cache, h.k, length, UINT32_MAX);
    h.values = put_cache(r, &h.cache, h.v, length, a->window == 1 ? last : UINT32_MAX);
    h.pages = rig_in(r, h.cache.pages, (size_t)SLOTS * h.cache.table * 4);
    return h;
}

/* The sinks of all heads; a word where there are none. */
static gpu_range put_sinks(rig *r, const attend_case *a) {
    const uint32_t n = a->sinks ? a->n_kv * a->group : 1;
    float *sinks = rig_alloc(r, n, sizeof(float));
    for (uint32_t i = 0; i < n; i++)
        sinks[i] = SINKS[i % ARRAY_LEN(SINKS)];
    return rig_in(r, sinks, n * sizeof(float));
}

/* Queries [n, heads, d4 * 4], zero behind head_dim. */
static float *new_queries(rig *r, const attend_case *a, uint32_t n) {
    const uint32_t wide = ceil_div(a->head_dim, 4) * 4;
    float *q = rig_normals(r, (size_t)n * a->n_kv * a->group * wide, a->sharp);
    for (uint32_t i = 0; i < n * a->n_kv * a->group * wide; i++) {
        if (i % wide >= a->head_dim) q[i] = 0;
    }
    return q;
}

/* Compares one head of one row, y [head_dim] at `at`.
 *
 * Error of a score: its dot product has head_dim products and about as many additions by vec4s,
 * plus the scaling: (d4 + 7) U sum |q k| scale =: ds. It moves exp(s - m) by that share, exp itself
 * by (3 + 2 |s - m|) U and the subtraction by |s - m| U; m cancels. Joining tiles and spans
 * multiplies by exp of differences that add up to at most the range of the scores. Sums of n terms:
 * n U more. So |dy| <= sum p_j e_j (|v_j| + |y|). A soft cap has its own bound (rig_softcap_bound);
 * a sink is one more score, exact and with the value 0. What exp or a product makes smaller than
 * the least normal number may become 0: FLT_MIN |v_j|. */
static void expect_head(rig *r, const attend_case *a, const history *h, const rig_output *y,
                        size_t at, const float *q, uint32_t slot, uint32_t pos, uint32_t head) {
    const size_t hd = a->head_dim, stride = a->n_kv * hd, n = pos + 1;
    const size_t from = (size_t)slot * h->length * stride + head / a->group * hd;
    const double scale = (double)(1.0f / sqrtf((float)hd));
    const ref_keys keys = { .k = h->k + from,
                            .v = h->v + from,
                            .n = n,
                            .first = ref_window(pos, a->window),
                            .stride = stride,
                            .head_dim = hd,
                            .scale = scale,
                            .softcap = a->softcap,
                            .sink = a->sinks ? &SINKS[head % ARRAY_LEN(SINKS)] : NULL };
    double *p = rig_alloc(r, n, sizeof(double)), *want = rig_alloc(r, hd, sizeof(double));
    double *bound = rig_alloc(r, hd, sizeof(double));
    const double *qd = rig_doubles(r, q, hd);
    ref_attend(want, qd, &keys, p);

    double low = INFINITY, high = -INFINITY, most = 0;
    double *s = rig_alloc(r, n, sizeof(double));
    for (size_t j = keys.first; j < n; j++) {
        double magnitude = 0;
        for (size_t d = 0; d < hd; d++) {
            s[j] += qd[d] * keys.k[j * stride + d] * scale;
            magnitude += fabs(qd[d] * keys.k[j * stride + d]) * scale;
        }
        double error = ((double)h->cache.d4 + 7) * magnitude;
        if (a->softcap > 0) {
            error = rig_softcap_bound(s[j], a->softcap, U * error) / U;
            ref_softcap(&s[j], 1, a->softcap);
        }
        low = fmin(low, s[j]);
        high = fmax(high, s[j]);
        most = fmax(most, error);
    }
    if (keys.sink != NULL) high = fmax(high, (double)*keys.sink);
    const double seen = (double)(n - keys.first), tiles = seen / 16 + 2;
    const double same = most + 3 * (tiles + 1) + 3 * (high - low) + seen + 16;
    double sunk = 1; /* the sink's share */
    for (size_t j = keys.first; j < n; j++) {
        const double e = U * (same + 3 * (high - s[j]));
        sunk -= p[j];
        for (size_t d = 0; d < hd; d++) {
            const double size = fabs(keys.v[j * stride + d]);
            bound[d] += p[j] * e * (size + fabs(want[d])) + (double)FLT_MIN * size;
        }
    }
    if (keys.sink != NULL) {
        const double e = U * (same + 3 * (high - (double)*keys.sink));
        for (size_t d = 0; d < hd; d++)
            bound[d] += fmax(sunk, 0) * e * fabs(want[d]);
    }
    for (size_t d = 0; d < hd; d++)
        rig_expect(r, rig_float(y, at + d), want[d], bound[d]);
}

static void begin_shape(const attend_case *a, char *shape, size_t size) {
    snprintf(shape, size, "heads %ux%u of %u%s, span %u, window %u, |q| %g, cap %g%s", a->n_kv,
             a->group, a->head_dim, a->heads != a->group ? " in parts" : "", a->span, a->window,
             a->sharp, a->softcap, a->sinks ? ", sinks" : "");
}

static void decode_row(rig *r, const attend_case *a, bool f16) {
    char shape[128];
    begin_shape(a, shape, sizeof(shape));
    if (!rig_begin(r, f16 ? "attend_decode f16" : "attend_decode f32", a->reason, "%s", shape))
        return;
    uint32_t longest = 0;
    for (uint32_t i = 0; i < a->n; i++)
        longest = max_u32(longest, a->rows[i][1] + 1);
    /* The context has a span more than any row reaches, as when a session is young. */
    const uint32_t used = ceil_div(longest, a->span), splits = used + 1;
    const uint32_t n_heads = a->n_kv * a->group, d4 = ceil_div(a->head_dim, 4);
    const history h = new_history(r, a, f16, longest);
    const float *q = new_queries(r, a, a->n);
    uint32_t(*rows)[4] = rig_alloc(r, a->n, sizeof(*rows));
    for (uint32_t i = 0; i < a->n; i++)
        rows[i][1] = a->rows[i][0], rows[i][2] = a->rows[i][1];
    const size_t n_spans = (size_t)a->n * n_heads * splits;
    rig_output *o = rig_out(r, NULL, n_spans * d4 * 4), *ml = rig_out(r, NULL, n_spans * 2);
    rig_output *y = rig_out(r, NULL, (size_t)a->n * n_heads * a->head_dim);
    const attend_decode_consts consts = {
        .n_kv = a->n_kv,
        .group = a->group,
        .heads = a->heads,
        .d4 = d4,
        .span = a->span,
        .splits = splits,
        .window = a->window,
        .scale = 1.0f / sqrtf((float)a->head_dim),
        .softcap = (float)a->softcap,
        .page = PAGE,
        .table = h.cache.table,
    };
    const gpu_range row_list = rig_in(r, rows, a->n * sizeof(*rows));
    rig_call(r, &attend_decode_source,
             (const gpu_fragment *[]){ f16 ? &kv_f16_part : &kv_f32_part }, &consts,
             (gpu_call){
                 .bind = { h.keys, h.values,
                           [ATTEND_DECODE_Q] = rig_numbers(r, q, (size_t)a->n * n_heads * d4 * 4,
                                                           (size_t)(a->n - 1) * n_heads * d4 * 4),
                           [ATTEND_DECODE_ROWS] = row_list, [ATTEND_DECODE_PAGES] = h.pages,
                           [ATTEND_DECODE_O] = o->range, [ATTEND_DECODE_ML] = ml->range },
                 .groups = { { .times = a->n_kv * ceil_div(a->group, a->heads) },
                             { .times = used },
                             { .times = a->n } },
             });
    const attend_combine_consts combine = {
        .n_heads = n_heads,
        .head_dim = a->head_dim,
        .span = a->span,
        .splits = splits,
        .sinks = a->sinks,
    };
    rig_call(r, &attend_combine_source, NULL, &combine,
             (gpu_call){
                 .bind = { [ATTEND_COMBINE_O] = o->range,
                           [ATTEND_COMBINE_ML] = ml->range,
                           [ATTEND_COMBINE_ROWS] = row_list,
                           [ATTEND_COMBINE_SINKS] = put_sinks(r, a),
                           [ATTEND_COMBINE_Y] = y->range },
                 .groups = { { .times = n_heads }, { .times = a->n } },
             });
    if (rig_run(r)) {
        for (uint32_t i = 0; i < a->n * n_heads; i++) {
            expect_head(r, a, &h, y, (size_t)i * a->head_dim, q + (size_t)i * d4 * 4,
                        rows[i / n_heads][1], rows[i / n_heads][2], i % n_heads);
        }
        for (uint32_t i = 0; i < n_spans;
             i++) { /* the spans are seen through y; the last is free */
            if (i % splits < used) {
                rig_skip(r, d4 * 4 + 2);
            } else {
                rig_kept(r, o, (size_t)i * d4 * 4, d4 * 4);
                rig_kept(r, ml, (size_t)i * 2, 2);
            }
        }
    }
    rig_end(r);
}

void check_decode(rig *r) {
    /* Lengths round the tile of 64 keys and the span, in one dispatch: rows are independent. */
    static const uint32_t edges[][2] = { { 0, 0 },  { 1, 1 },   { 2, 62 },  { 0, 63 },
                                         { 1, 64 }, { 2, 127 }, { 0, 128 }, { 1, 199 } };
    static const uint32_t longer[][2] = { { 0, 999 }, { 1, 511 }, { 2, 512 } };
    static const uint32_t few[][2] = { { 2, 69 }, { 0, 13 } };
#define ROWS(list) .rows = list, .n = ARRAY_LEN(list)
    const attend_case cases[] = {
        { 1, 1, 1, 2, 64, 0, 1, ROWS(edges), .reason = "the least head, lengths round the spans" },
        { 2, 3, 3, 64, 64, 0, 1, ROWS(edges), .reason = "SmolLM2's group of 3" },
        { 2, 4, 4, 128, 128, 0, 1, ROWS(edges), .reason = "Llama 3: two tiles to a span" },
        { 1, 8, 8, 80, 64, 0, 1, ROWS(few), .reason = "D4 20 does not divide 64: idle lanes" },
        { 2, 9, 8, 64, 64, 0, 1, ROWS(few), .reason = "a group in parts of 8 and 1" },
        { 1, 16, 8, 96, 64, 0, 1, ROWS(few), .reason = "a group in two full parts, D4 24" },
        { 3, 1, 1, 6, 64, 0, 1, ROWS(few), .reason = "zeros at the end of a head" },
        { 1, 4, 4, 256, 64, 0, 1, ROWS(few), .reason = "the largest head: a lane to a column" },
        { 1, 4, 4, 64, 512, 0, 1, ROWS(longer), .reason = "long rows, span edges" },
        { 1, 2, 2, 64, 512, 0, 8, ROWS(longer), .reason = "peaked: tiles rescale each other" },
        { 2, 2, 2, 64, 64, 1, 1, ROWS(edges), .reason = "a window of the token itself" },
        { 1, 3, 3, 64, 64, 70, 1, ROWS(edges), .reason = "a window over a span's edge" },
        { 1, 2, 2, 32, 128, 130, 4, ROWS(longer), .reason = "whole spans before the window" },
        { 2, 2, 2, 64, 64, 0, 40, ROWS(edges), .reason = "Gemma 2's soft cap", .softcap = 50 },
        { 1, 3, 3, 256, 64, 70, 15, ROWS(few), .reason = "scores far above the cap, a window",
          .softcap = 5 },
        { 2, 9, 8, 64, 64, 0, 1, ROWS(few), .reason = "scores far below the cap", .softcap = 50 },
        { 1, 5, 5, 64, 64, 0, 1, ROWS(edges), .reason = "sinks among, above and below",
          .sinks = true },
        { 2, 8, 8, 64, 64, 70, 4, ROWS(edges), .reason = "GPT-OSS: sinks and a window",
          .sinks = true },
        { 1, 3, 3, 32, 128, 130, 8, ROWS(longer), .reason = "sinks, whole spans before the window",
          .sinks = true },
        { 1, 2, 2, 64, 64, 1, 1, ROWS(edges), .reason = "sinks beside the token itself",
          .sinks = true },
        { 1, 9, 8, 6, 64, 40, 30, ROWS(edges), .reason = "all at once", .softcap = 20,
          .sinks = true },
    };
#undef ROWS
    for (int f16 = 0; f16 <= gpu_info(r->g)->f16; f16++) {
        for (size_t i = 0; i < ARRAY_LEN(cases); i++)
            decode_row(r, &cases[i], f16 != 0);
    }
}

static void prefill_row(rig *r, const attend_case *a, bool f16) {
    char shape[128];
    begin_shape(a, shape, sizeof(shape));
    if (!rig_begin(r, f16 ? "attend_prefill f16" : "attend_prefill f32", a->reason,
                   "%s, tiles %ux%u", shape, a->bq, a->bk)) {
        return;
    }
    uint32_t longest = 0, n_rows = 0;
    uint32_t(*tiles)[4] = rig_alloc(r, a->n, sizeof(*tiles));
    for (uint32_t i = 0; i < a->n; i++) {
        tiles[i][0] = n_rows, tiles[i][1] = a->n_rows[i];
        tiles[i][2] = a->rows[i][0], tiles[i][3] = a->rows[i][1];
        n_rows += a->n_rows[i];
        longest = max_u32(longest, a->rows[i][1] + a->n_rows[i]);
        assert(a->n_rows[i] <= a->bq);
    }
    const uint32_t n_heads = a->n_kv * a->group, d4 = ceil_div(a->head_dim, 4);
    const history h = new_history(r, a, f16, longest);
    const float *q = new_queries(r, a, n_rows);
    rig_output *y = rig_out(r, NULL, (size_t)n_rows * n_heads * a->head_dim);
    const attend_prefill_consts consts = {
        .n_kv = a->n_kv,
        .group = a->group,
        .head_dim = a->head_dim,
        .window = a->window,
        .scale = 1.0f / sqrtf((float)a->head_dim),
        .softcap = (float)a->softcap,
        .sinks = a->sinks,
        .page = PAGE,
        .table = h.cache.table,
        .bq = a->bq,
        .bk = a->bk,
    };
    rig_call(
        r, &attend_prefill_source, (const gpu_fragment *[]){ f16 ? &kv_f16_part : &kv_f32_part },
        &consts,
        (gpu_call){
            .bind = { h.keys, h.values,
                      [ATTEND_PREFILL_Q] = rig_numbers(r, q, (size_t)n_rows * n_heads * d4 * 4,
                                                       (size_t)(n_rows - 1) * n_heads * d4 * 4),
                      [ATTEND_PREFILL_TILES] = rig_in(r, tiles, a->n * sizeof(*tiles)),
                      [ATTEND_PREFILL_PAGES] = h.pages,
                      [ATTEND_PREFILL_SINKS] = put_sinks(r, a), [ATTEND_PREFILL_Y] = y->range },
            .groups = { { .times = n_heads }, { .times = a->n } },
        });
    if (rig_run(r)) {
        for (uint32_t i = 0; i < a->n; i++) {
            for (uint32_t j = 0; j < tiles[i][1] * n_heads; j++) {
                const size_t at = tiles[i][0] * n_heads + j;
                expect_head(r, a, &h, y, at * a->head_dim, q + at * d4 * 4, tiles[i][2],
                            tiles[i][3] + j / n_heads, j % n_heads);
            }
        }
    }
    rig_end(r);
}

void check_prefill(rig *r) {
    /* Tiles of three sequences: the start of one, one that continues over page and tile edges with
     * full tiles and a last one that is not full, a single row. */
    static const uint32_t at[][2] = { { 0, 0 }, { 2, 61 }, { 2, 65 }, { 2, 69 }, { 1, 31 } };
    static const uint32_t small[] = { 3, 4, 4, 2, 1 };
    static const uint32_t start[][2] = { { 1, 0 }, { 1, 16 }, { 1, 32 }, { 0, 100 }, { 0, 116 } };
    static const uint32_t full[] = { 16, 16, 5, 16, 1 };
    static const uint32_t at8[][2] = { { 1, 0 }, { 1, 8 }, { 0, 90 } };
    static const uint32_t full8[] = { 8, 8, 7 };
    static const uint32_t far[][2] = { { 2, 993 } };
    static const uint32_t seven[] = { 7 };
#define TILES(list, counts) .rows = list, .n_rows = counts, .n = ARRAY_LEN(list)
    const attend_case cases[] = {
        { 1, 1, 0, 2, 0, 0, 1, TILES(at, small), 16, 32, "the least head, rows do not fill tiles" },
        { 3, 1, 0, 6, 0, 0, 1, TILES(start, full), 16, 32, "zeros at the end of a head" },
        { 2, 3, 0, 64, 0, 0, 1, TILES(start, full), 16, 32, "full tiles and a single row" },
        { 1, 4, 0, 80, 0, 0, 1, TILES(at8, full8), 8, 16, "D4 20" },
        { 1, 2, 0, 128, 0, 0, 1, TILES(at8, full8), 8, 16, "Llama 3" },
        { 2, 1, 0, 192, 0, 0, 1, TILES(at, small), 4, 16, "D4 48: the most for 16 keys a tile" },
        { 1, 4, 0, 256, 0, 0, 1, TILES(at, small), 4, 8, "the largest head" },
        { 1, 2, 0, 64, 0, 0, 8, TILES(far, seven), 16, 32, "long and peaked: tiles rescale" },
        { 1, 2, 0, 64, 0, 1, 1, TILES(start, full), 16, 32, "a window of the token itself" },
        { 1, 2, 0, 64, 0, 40, 1, TILES(start, full), 16, 32, "a window over tile edges" },
        { 1, 2, 0, 128, 0, 17, 4, TILES(far, seven), 8, 16, "whole tiles before the window" },
        { 1, 2, 0, 64, 0, 0, 40, TILES(start, full), 16, 32, "Gemma 2's soft cap", .softcap = 50 },
        { 1, 2, 0, 128, 0, 17, 15, TILES(far, seven), 8, 16, "scores far above the cap, a window",
          .softcap = 5 },
        { 1, 1, 0, 256, 0, 0, 1, TILES(at, small), 4, 8, "scores far below the cap",
          .softcap = 50 },
        { 1, 5, 0, 64, 0, 0, 1, TILES(start, full), 16, 32, "sinks among, above and below",
          .sinks = true },
        { 2, 4, 0, 64, 0, 40, 4, TILES(start, full), 16, 32, "GPT-OSS: sinks and a window",
          .sinks = true },
        { 1, 3, 0, 128, 0, 17, 8, TILES(far, seven), 8, 16,
          "sinks, whole tiles before the window", .sinks = true },
        { 1, 2, 0, 64, 0, 1, 1, TILES(at, small), 16, 32, "sinks beside the token itself",
          .sinks = true },
        { 1, 3, 0, 6, 0, 40, 30, TILES(start, full), 16, 32, "all at once", .softcap = 20,
          .sinks = true },
    };
#undef TILES
    for (int f16 = 0; f16 <= gpu_info(r->g)->f16; f16++) {
        for (size_t i = 0; i < ARRAY_LEN(cases); i++)
            prefill_row(r, &cases[i], f16 != 0);
    }
}
