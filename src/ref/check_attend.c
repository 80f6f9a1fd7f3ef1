/* check_attend: RoPE with the paged cache, and the two attentions that read it.
 *
 * Pages of a slot lie scattered over the pool. What no position has written
 * holds NaN, so that a key beyond a row's length cannot take part unseen. */
#include "model/model.h"
#include "ref/check_internal.h"

#include <float.h>
#include <math.h>
#include <stdio.h>

enum { PAGE = 32, SLOTS = 3, ROPE_LANES = 128 };

/* A pool of pages for SLOTS sequences. */
typedef struct {
    bool f16;
    uint32_t n_kv, head_dim, d8, table, n_pages;
    uint32_t *pages; /* [SLOTS, table] */
    size_t n;        /* elements of keys, and of values */
} cache;

static cache new_cache(rig *r, bool f16, uint32_t n_kv, uint32_t head_dim, uint32_t longest) {
    cache c = { .f16 = f16,
                .n_kv = n_kv,
                .head_dim = head_dim,
                .d8 = ceil_div(head_dim, 8),
                .table = ceil_div(longest, PAGE) };
    c.n_pages = SLOTS * c.table + 2; /* two belong to nobody */
    c.pages = rig_shuffled(r, c.n_pages);
    c.n = (size_t)c.n_pages * n_kv * PAGE * c.d8 * 8;
    return c;
}

typedef enum { KEYS, VALUES } cache_kind;

/* Element d of a head's key or value at a position. */
static size_t cache_at(const cache *c, cache_kind kind, uint32_t place, uint32_t pos, uint32_t kv,
                       uint32_t d) {
    const size_t page = c->pages[place * c->table + pos / PAGE];
    const size_t chunk = kind == KEYS ? d / 8 * PAGE + pos % PAGE : pos % PAGE * c->d8 + d / 8;
    return ((page * c->n_kv + kv) * PAGE * c->d8 + chunk) * 8 + d % 8;
}

static uint32_t row_width(uint32_t n_heads, uint32_t n_kv, uint32_t head_dim) {
    return (n_heads + 2 * n_kv) * head_dim;
}

/* ---- rows as the projections leave them
 * ------------------------------------------------------ */

/* Rows of qkv, and what norm and RoPE make of their queries and keys. */
typedef struct {
    uint32_t n, n_heads, n_kv, head_dim, rope_dim, width;
    bool norm;
    float eps;
    double sharp; /* factor of the queries */
    float *qkv, *weights;
    float *angles;        /* [context, rope_dim / 2] (cos, sin) */
    size_t n_angles;      /* floats */
    double *want, *bound; /* [n, width] */
} raw_rows;

/* Squares of a head are added by `sums` additions one behind the other. The
 * rows' positions are rows[i][1]. */
static void make_raw(rig *r, raw_rows *w, const uint32_t (*rows)[2], uint32_t sums) {
    const size_t hd = w->head_dim, pairs = w->rope_dim / 2;
    const uint32_t turned = w->n_heads + w->n_kv;
    uint32_t context = 0;
    for (uint32_t i = 0; i < w->n; i++)
        context = max_u32(context, rows[i][1] + 1);
    w->width = row_width(w->n_heads, w->n_kv, w->head_dim);
    w->eps = 1e-6f;
    w->n_angles = context * pairs * 2;
    w->angles = rig_alloc(r, w->n_angles + 1, 4);
    double(*turns)[2] = rig_alloc(r, context * pairs + 1, sizeof(*turns));
    for (size_t i = 0; i < context * pairs; i++) {
        const double angle = (double)(i / pairs) * pow(10000, -(double)(i % pairs) / (double)pairs);
        turns[i][0] = (double)(w->angles[2 * i] = (float)cos(angle));
        turns[i][1] = (double)(w->angles[2 * i + 1] = (float)sin(angle));
    }
    const size_t n = (size_t)w->n * w->width;
    w->qkv = rig_normals(r, n, 1);
    w->weights = rig_normals(r, 2 * hd, 1);
    for (size_t i = 0; i < hd && w->norm; i++)
        w->weights[i] *= (float)w->sharp;
    for (size_t i = 0; i < n && !w->norm; i++) {
        if (i % w->width < w->n_heads * hd) w->qkv[i] *= (float)w->sharp;
    }
    w->want = rig_doubles(r, w->qkv, n);
    w->bound = rig_alloc(r, n, sizeof(double));
    /* As qk_norm: half the error of the mean (its additions, a division, eps),
     * inverseSqrt, two products. Turning: two products and a sum of at most |a
     * cos| + |b sin| <= |a| + |b|. */
    const double normed = w->norm ? ((1 + sums + 2.5 + 1) / 2 + 2 + 2) * U : 0;
    for (uint32_t t = 0; t < w->n; t++) {
        double *row = w->want + (size_t)t * w->width, *bound = w->bound + (size_t)t * w->width;
        if (w->norm) {
            const double *from = rig_doubles(r, w->qkv + (size_t)t * w->width, turned * hd);
            ref_norm(row, from, w->weights, w->n_heads, hd, (double)w->eps);
            ref_norm(row + w->n_heads * hd, from + w->n_heads * hd, w->weights + hd, w->n_kv, hd,
                     (double)w->eps);
        }
        for (size_t i = 0; i < turned * hd; i++) {
            const size_t d = i % hd, a = i - d + (pairs > 0 ? d % pairs : 0), b = a + pairs;
            bound[i] = d < w->rope_dim ? (normed + 3.001 * U) * (fabs(row[a]) + fabs(row[b]))
                                       : normed * fabs(row[i]);
        }
        const double(*turn)[2] = (const double(*)[2])turns + rows[t][1] * pairs;
        ref_rope(row, turn, turned, hd, w->rope_dim);
    }
}

static uint32_t log2_of(uint32_t n) {
    return n <= 1 ? 0 : 1 + log2_of(n / 2);
}

/* ---- rope
 * ----------------------------------------------------------------------------------
 */

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

/* An element of a cache as the kernel should have left it. */
static void expect_cached(rig *r, const cache *c, const rig_output *o, size_t i, double want,
                          double bound) {
    if (!c->f16) {
        rig_expect(r, rig_float(o, i), want, bound);
        return;
    }
    /* f16 has 11 bits and WGSL leaves the direction of rounding open: 2^-10, or
     * 2^-24 below 2^-14.
     */
    uint16_t half;
    memcpy(&half, (const uint8_t *)o->after + 2 * i, 2);
    rig_expect_half(r, half, want, want == 0 ? 0 : bound + fabs(want) * 0x1p-10 + 0x1p-24);
}

/* All elements of the keys (or values) that the rows put there; all others are
 * as before. */
static void expect_cache(rig *r, const raw_rows *w, const uint32_t (*rows)[2], const cache *c,
                         const rig_output *o, cache_kind kind) {
    const uint32_t first_head = w->n_heads + (kind == VALUES ? w->n_kv : 0);
    bool *written = rig_alloc(r, c->n, sizeof(bool));
    for (uint32_t t = 0; t < w->n; t++) {
        for (uint32_t i = 0; i < w->n_kv * c->d8 * 8; i++) {
            const uint32_t kv = i / (c->d8 * 8), d = i % (c->d8 * 8);
            const size_t at = cache_at(c, kind, rows[t][0], rows[t][1], kv, d);
            const size_t from = (size_t)t * w->width + (first_head + kv) * w->head_dim + d;
            written[at] = true;
            if (d < w->head_dim)
                expect_cached(r, c, o, at, w->want[from], w->bound[from]);
            else
                expect_cached(r, c, o, at, 0, 0); /* the rest of the last chunk */
        }
    }
    const size_t halves = c->f16 ? 2 : 1; /* elements to a word; they are written by chunks */
    for (size_t i = 0; i < c->n; i += 8) {
        if (!written[i]) rig_kept(r, o, i / halves, 8 / halves);
    }
}

static void rope_row(rig *r, const rope_case *k, bool f16, const rig_reduce *reduce) {
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
    const cache c = new_cache(r, f16, k->n_kv, k->head_dim, ROPE_CONTEXT);
    raw_rows w = { .n = ROWS,
                   .n_heads = k->n_heads,
                   .n_kv = k->n_kv,
                   .head_dim = k->head_dim,
                   .rope_dim = k->rope_dim,
                   .norm = k->norm,
                   .sharp = 1 };
    make_raw(r, &w, rope_rows, 8 + log2_of(team));
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
        .page = PAGE,
        .table = c.table,
        .team = team,
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
                      [ROPE_PAGES] = rig_in(r, c.pages, (size_t)SLOTS * c.table * 4),
                      [ROPE_W] = rig_in(r, w.weights, 2 * (size_t)k->head_dim * 4),
                      [ROPE_Q] = q->range },
            .params = &(rope_params){ .wq = 0, .wk = k->head_dim },
            .groups = { { .times = ceil_div((k->n_heads + 2 * k->n_kv) * team, ROPE_LANES) },
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
        expect_cache(r, &w, rope_rows, &c, kc, KEYS);
        expect_cache(r, &w, rope_rows, &c, vc, VALUES);
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
    for (uint32_t v = 0; v < n_variants; v++) {
        for (size_t i = v; i < ARRAY_LEN(cases); i += n_variants)
            rope_row(r, &cases[i], v / n_reduces == 1, &reduces[v % n_reduces]);
    }
}

/* ---- attention
 * -----------------------------------------------------------------------------
 */

typedef enum { OUT_PLAIN, OUT_F32, OUT_Q8 } output_kind;

typedef struct {
    uint32_t n_kv, group, heads, head_dim, one, span, window;
    double sharp;              /* factor of the queries: how peaked the softmax is */
    const uint32_t (*rows)[2]; /* decode: (slot, position); prefill: (slot, first
                                  position) ... */
    const uint32_t *n_rows;    /* ... and rows of each tile */
    uint32_t n;
    uint32_t bq, bk, q_rows, parts; /* prefill */
    const char *reason;
    double softcap;
    bool sinks;
    bool fused, norm;
    uint32_t rope_dim, wg, splits; /* 0: -, 64, as many as fit */
    output_kind out;
    bool gpu;       /* attend_decode_tree laid out as for a GPU on a CPU too */
    uint32_t ahead; /* of attend_decode; 0: 4 */
} attend_case;

/* Sinks among the scores, far above them, far below, above but not by far, so
 * far above that nothing is left. The first one is of the head in which
 * PLANT_INPUT changes something. */
static const float SINKS[] = { 0.3f, 60, -1e4f, 4, 300 };

/* Keys and values of all slots: [SLOTS, length, n_kv * head_dim], and as they
 * lie in the cache. */
typedef struct {
    cache cache;
    double *k, *v;
    double *k_error, *v_error; /* of keys and values that the kernel makes itself; else NULL */
    void *key_bytes, *value_bytes;
    uint32_t length;
} history;

/* `plant`: where PLANT_INPUT changes an element, slot * length + position;
 * UINT32_MAX: not here. */
static void *lay_out(rig *r, const attend_case *a, const history *h, cache_kind kind,
                     uint32_t plant) {
    const cache *c = &h->cache;
    const double *x = kind == KEYS ? h->k : h->v;
    const size_t size = c->f16 ? 2 : 4;
    uint8_t *bytes = rig_alloc(r, c->n, size);
    for (size_t i = 0; i < c->n; i++) {
        const float nan = NAN;
        const uint16_t half = 0x7e00;
        memcpy(bytes + i * size, c->f16 ? (const void *)&half : (const void *)&nan, size);
    }
    const size_t stride = (size_t)c->n_kv * c->head_dim;
    for (uint32_t pos = 0; pos < SLOTS * h->length; pos++) {
        const uint32_t place = pos / h->length, at = pos % h->length;
        bool fresh = false;
        for (uint32_t t = 0; t < a->n && a->fused; t++)
            fresh |= a->rows[t][0] == place && a->rows[t][1] == at;
        for (uint32_t i = 0; i < c->n_kv * c->d8 * 8 && !fresh; i++) {
            const uint32_t d = i % (c->d8 * 8), kv = i / (c->d8 * 8);
            float value = d < c->head_dim ? (float)x[pos * stride + kv * c->head_dim + d] : 0;
            if (pos == plant && kv == 0 && d == 0 && rig_plant(r)) value += 8;
            const uint16_t half = f32_to_f16(value);
            memcpy(bytes + cache_at(c, kind, place, at, kv, d) * size,
                   c->f16 ? (const void *)&half : (const void *)&value, size);
        }
    }
    return bytes;
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
    /* With a window of one key the softmax is 1 whatever the query: the fault
     * goes into the value.
     */
    const uint32_t last = a->rows[a->n - 1][0] * length + a->rows[a->n - 1][1];
    h.key_bytes = lay_out(r, a, &h, KEYS, UINT32_MAX);
    h.value_bytes = lay_out(r, a, &h, VALUES, a->window == 1 ? last : UINT32_MAX);
    return h;
}

/* The newest keys and values, which the kernel makes of raw rows, as the
 * reference has them. What rounding to f16 adds to the bounds: as in
 * expect_cached. */
static void add_fresh(rig *r, const attend_case *a, history *h, const raw_rows *w) {
    const size_t stride = (size_t)a->n_kv * a->head_dim;
    const size_t n = SLOTS * (size_t)h->length * stride, at = (size_t)w->n_heads * w->head_dim;
    h->k_error = rig_alloc(r, n, sizeof(double));
    h->v_error = rig_alloc(r, n, sizeof(double));
    for (uint32_t t = 0; t < a->n; t++) {
        const size_t to = ((size_t)a->rows[t][0] * h->length + a->rows[t][1]) * stride;
        for (size_t i = 0; i < stride; i++) {
            const size_t k = t * (size_t)w->width + at + i, v = k + stride;
            const double rounding = h->cache.f16 ? 0x1p-10 : 0, least = h->cache.f16 ? 0x1p-24 : 0;
            h->k[to + i] = w->want[k];
            h->v[to + i] = w->want[v];
            h->k_error[to + i] = w->bound[k] + fabs(w->want[k]) * rounding + least;
            h->v_error[to + i] = fabs(w->want[v]) * rounding + least;
        }
    }
}

/* The sinks of all heads; a word where there are none. */
static float *new_sinks(rig *r, const attend_case *a, uint32_t *n) {
    *n = a->sinks ? a->n_kv * a->group : 1;
    float *sinks = rig_alloc(r, *n, sizeof(float));
    for (uint32_t i = 0; i < *n; i++)
        sinks[i] = SINKS[i % ARRAY_LEN(SINKS)];
    return sinks;
}

/* Queries [n, heads, d8 * 8], zero behind head_dim. */
static float *new_queries(rig *r, const attend_case *a, uint32_t n) {
    const uint32_t wide = ceil_div(a->head_dim, 8) * 8;
    float *q = rig_normals(r, (size_t)n * a->n_kv * a->group * wide, a->sharp);
    for (uint32_t i = 0; i < n * a->n_kv * a->group * wide; i++) {
        if (i % wide >= a->head_dim) q[i] = 0;
    }
    return q;
}

/* What one head of one row should be, and how far off it may be: y, bound
 * [head_dim]. q may be off by q_error, which may be NULL.
 *
 * Error of a score: its dot product has head_dim products; each is rounded,
 * scaled, and goes through at most head_dim / 4 + 7 additions (attend_decode
 * adds 8 to a chunk, then chunks) or head_dim of them (attend_prefill, one behind
 * the other), n in all: (n + 2) U sum |q k| scale, and what q and k are off, =: ds. It moves exp(s
 * - m) by that share, exp itself by (3 + 2 |s - m|) U and the subtraction by |s - m| U; m cancels.
 * Joining tiles and spans multiplies by exp of differences that add up to at most the range of the
 * scores. Sums of n terms: n U more. So |dy| <= sum p_j e_j (|v_j| + |y|) + p_j dv_j. A soft cap
 * has its own bound (rig_softcap_bound); a sink is one more score, exact and with the value 0. What
 * exp or a product makes smaller than the least normal number may become 0: FLT_MIN |v_j|. */
static void find_head(rig *r, const attend_case *a, const history *h, const double *q,
                      const double *q_error, uint32_t place, uint32_t pos, uint32_t head,
                      double *want, double *bound) {
    const size_t hd = a->head_dim, stride = a->n_kv * hd, n = pos + 1;
    const size_t from = (size_t)place * h->length * stride + head / a->group * hd;
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
    double *p = rig_alloc(r, n, sizeof(double));
    ref_attend(want, q, &keys, p);

    const double additions = a->bk > 0 ? (double)hd : (double)ceil_div(a->head_dim, 4) + 7;
    double low = INFINITY, high = -INFINITY, most = 0;
    double *s = rig_alloc(r, n, sizeof(double));
    for (size_t j = keys.first; j < n; j++) {
        double magnitude = 0, inherited = 0;
        for (size_t d = 0; d < hd; d++) {
            const double k = keys.k[j * stride + d];
            const double dk = h->k_error != NULL ? h->k_error[from + j * stride + d] : 0;
            const double dq = q_error != NULL ? q_error[d] : 0;
            s[j] += q[d] * k * scale;
            magnitude += fabs(q[d] * k) * scale;
            inherited += (fabs(q[d]) * dk + dq * (fabs(k) + dk)) * scale;
        }
        double error = (additions + 2) * magnitude + inherited / U;
        if (a->softcap > 0) {
            error = rig_softcap_bound(s[j], a->softcap, U * error) / U;
            ref_softcap(&s[j], 1, a->softcap);
        }
        low = fmin(low, s[j]);
        high = fmax(high, s[j]);
        most = fmax(most, error);
    }
    if (keys.sink != NULL) high = fmax(high, (double)*keys.sink);
    const double seen = (double)(n - keys.first), tiles = seen / (a->bk > 0 ? a->bk : 16) + 2;
    const double same = most + 3 * (tiles + 1) + 3 * (high - low) + seen + 16;
    double sunk = 1; /* the sink's share */
    for (size_t d = 0; d < hd; d++)
        bound[d] = 0;
    for (size_t j = keys.first; j < n; j++) {
        const double e = U * (same + 3 * (high - s[j]));
        sunk -= p[j];
        for (size_t d = 0; d < hd; d++) {
            const double size = fabs(keys.v[j * stride + d]);
            const double dv = h->v_error != NULL ? h->v_error[from + j * stride + d] : 0;
            bound[d] += p[j] * (e * (size + fabs(want[d])) + dv) + (double)FLT_MIN * size;
        }
    }
    if (keys.sink != NULL) {
        const double e = U * (same + 3 * (high - (double)*keys.sink));
        for (size_t d = 0; d < hd; d++)
            bound[d] += fmax(sunk, 0) * e * fabs(want[d]);
    }
}

/* 16 columns as signed bytes (act_q8). The scale is the largest |y| / 127: off
 * by what that is and by a division and a product. A byte is off from y / s by
 * half of one, and by 127 times the roundings of 127 / max, the product and s
 * itself, 8 U. Its rounded sum is exact but for a product. */
static void expect_bytes(rig *r, const uint32_t *words, const uint32_t *scale, const double *want,
                         const double *bound) {
    double most = 0, error = 0, sum = 0;
    for (uint32_t c = 0; c < 16; c++) {
        most = fmax(most, fabs(want[c]));
        error = fmax(error, bound[c]);
    }
    float s, t;
    memcpy(&s, &scale[0], 4);
    memcpy(&t, &scale[1], 4);
    rig_expect(r, s, most / 127, (error + 4 * U * most) / 127 + (double)FLT_MIN);
    for (uint32_t c = 0; c < 16; c++) {
        int8_t q;
        memcpy(&q, (const uint8_t *)words + c, 1);
        sum += q;
        rig_require(r,
                    fabs((double)s * q - want[c]) <=
                        bound[c] + (double)s * (0.5 + 127 * 8 * U) + (double)FLT_MIN,
                    "a byte is not its number");
    }
    rig_skip(r, 4);
    rig_expect(r, t, (double)s * sum, U * fabs((double)s * sum) + (double)FLT_MIN);
}

/* A row of `width` columns in the layout that the case asks for. */
static void expect_row(rig *r, output_kind kind, const rig_output *y, size_t row, uint32_t width,
                       const double *want, const double *bound) {
    static const double none[16];
    const size_t units = ceil_div(width, 32);
    if (kind == OUT_PLAIN) {
        for (uint32_t c = 0; c < width; c++)
            rig_expect(r, rig_float(y, row * width + c), want[c], bound[c]);
        return;
    }
    for (size_t half = 0; half < 2 * units; half++) {
        const bool is_inside = half * 16 < width; /* else the unit is filled up with zeros */
        const double *w = is_inside ? want + half * 16 : none;
        const double *b = is_inside ? bound + half * 16 : none;
        if (kind == OUT_Q8) {
            const uint32_t *first = y->after + row * 12 * units;
            expect_bytes(r, first + 4 * (units * (half & 1) + half / 2),
                         first + 4 * (units * 2 + half / 2) + 2 * (half & 1), w, b);
            continue;
        }
        for (uint32_t c = 0; c < 16; c++) {
            const size_t at = (row * 8 + 4 * (half & 1) + c / 4) * units + half / 2;
            rig_expect(r, rig_float(y, at * 4 + c % 4), w[c], b[c]);
        }
    }
}

static void begin_shape(const attend_case *a, char *shape, size_t size) {
    static const char *const outs[] = { "", ", planes", ", bytes" };
    snprintf(shape, size, "heads %ux%u of %u%s, span %u/%u, window %u, |q| %g, cap %g%s%s%s%s",
             a->n_kv, a->group, a->head_dim, a->heads != a->group ? " in parts" : "", a->one,
             a->span, a->window, a->sharp, a->softcap, a->sinks ? ", sinks" : "",
             a->fused ? ", fused" : "", a->norm ? ", normalised" : "", outs[a->out]);
}

/* ---- single rows
 * ---------------------------------------------------------------------------
 */

/* As spans.wgsl. */
static uint32_t spans_of(const attend_case *a, uint32_t splits, uint32_t n_keys) {
    const uint32_t start =
        a->window > 0 && n_keys > a->window ? (n_keys - a->window) / PAGE * PAGE : 0;
    const uint32_t count = n_keys - start;
    if (count <= a->one) return 1;
    const uint32_t per = ceil_div(ceil_div(count, min_u32(ceil_div(count, a->span), splits)), PAGE);
    return ceil_div(count, per * PAGE);
}

/* What attend_decode reads and writes in one row of the table. */
typedef struct {
    history h;
    raw_rows raw;   /* if fused, */
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
            find_head(r, a, &x->h, q, a->fused ? x->raw.bound + row : NULL, a->rows[t][0],
                      a->rows[t][1], head, want + at, bound + at);
        }
        expect_row(r, a->out, x->y, t, width, want, bound);
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
        expect_cache(r, &x->raw, a->rows, &x->h.cache, x->keys, KEYS);
        expect_cache(r, &x->raw, a->rows, &x->h.cache, x->values, VALUES);
    }
}

/* The binding of norms and sinks, one behind the other. */
static gpu_range put_vectors(rig *r, const attend_case *a, const raw_rows *w,
                             uint32_t first[3]) {
    uint32_t n_sinks;
    const float *sinks = new_sinks(r, a, &n_sinks);
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
        x->q = new_queries(r, a, a->n);
        return rig_numbers(r, x->q, a->n * row, (a->n - 1) * row);
    }
    x->raw = (raw_rows){ .n = a->n,
                         .n_heads = x->n_heads,
                         .n_kv = a->n_kv,
                         .head_dim = a->head_dim,
                         .rope_dim = a->rope_dim,
                         .norm = a->norm,
                         .sharp = a->sharp };
    make_raw(r, &x->raw, a->rows, ceil_div(a->head_dim, wg / 16) + wg / 16);
    add_fresh(r, a, &x->h, &x->raw);
    const size_t value = (size_t)(x->n_heads + a->n_kv) * a->head_dim;
    return rig_numbers(r, x->raw.qkv, (size_t)a->n * x->raw.width,
                       (size_t)(a->n - 1) * x->raw.width + (a->window == 1 ? value : 0));
}

static void decode_row(rig *r, const attend_case *a, bool f16, bool subgroups) {
    char shape[160], kernel[96];
    rig_reduce reduces[2];
    const uint32_t n_reduces = rig_reduces(r, reduces);
    begin_shape(a, shape, sizeof(shape));
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
    x.h = new_history(r, a, f16, longest);
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
        .page = PAGE,
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
    rig_call(r, subgroups ? &attend_decode_source : &attend_decode_tree_source,
             (const gpu_fragment *[]){ f16 ? &kv_f16_part : &kv_f32_part, outs[a->out] },
             subgroups ? (const void *)&consts : &tree,
             (gpu_call){
                 .bind = { a->fused ? x.keys->range : rig_in(r, x.h.key_bytes, words * 4),
                           a->fused ? x.values->range : rig_in(r, x.h.value_bytes, words * 4),
                           [ATTEND_DECODE_QKV] = queries, [ATTEND_DECODE_ROWS] = row_list,
                           [ATTEND_DECODE_PAGES] =
                               rig_in(r, x.h.cache.pages, (size_t)SLOTS * x.h.cache.table * 4),
                           [ATTEND_DECODE_ANGLES] = rig_in(r, a->fused ? x.raw.angles : SINKS,
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
            .page = PAGE,
            .sinks = a->sinks,
            .plain = consts.plain,
        };
        uint32_t n_sinks;
        const float *sinks = new_sinks(r, a, &n_sinks);
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
        { 1, 4, 4, 64, 512, 128, 0, 1, ROWS(deep), .reason = "as on a GPU, the next tile",
          .fused = true, .norm = true, .rope_dim = 64, .wg = 256, .out = OUT_Q8, .gpu = true },
    };
#undef ROWS
    /* Cases take turns with half floats; those a team has lanes for go through both kernels. */
    rig_reduce reduces[2];
    const uint32_t team = reduces[rig_reduces(r, reduces) - 1].team;
    for (int f16 = 0; f16 < (gpu_info(r->g)->f16 ? 2 : 1); f16++) {
        for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
            if ((gpu_info(r->g)->f16 ? i % 2 : 0) != (size_t)f16) continue;
            decode_row(r, &cases[i], f16 != 0, false);
            if (gpu_info(r->g)->subgroups && cases[i].head_dim <= 8 * team)
                decode_row(r, &cases[i], f16 != 0, true);
        }
    }
}

/* ---- many rows
 * -----------------------------------------------------------------------------
 */

static void prefill_row(rig *r, const attend_case *a, bool f16, bool shuffled) {
    const bool subgroups = shuffled && a->bk / 4 <= gpu_info(r->g)->subgroup_size;
    char shape[160], kernel[96];
    begin_shape(a, shape, sizeof(shape));
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
        .page = PAGE,
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
    const history h = new_history(r, a, f16, longest);
    const float *q = new_queries(r, a, n_rows);
    rig_output *y = rig_out(r, NULL, (size_t)n_rows * n_heads * a->head_dim);
    consts.table = h.cache.table;
    uint32_t n_sinks;
    const float *sinks = new_sinks(r, a, &n_sinks);
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
                          rig_in(r, h.cache.pages, (size_t)SLOTS * h.cache.table * 4),
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
                    find_head(r, a, &h,
                              rig_doubles(r, q + (row * n_heads + head) * wide, a->head_dim), NULL,
                              tiles[i][2], tiles[i][3] + j, head, want + at, bound + at);
                }
                expect_row(r, OUT_PLAIN, y, row, width, want, bound);
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
