/* attend_rig: the cache, its rows and what attention makes of them, for the tables of kernels. */
#include "ref/check_attend_internal.h"

#include <float.h>
#include <math.h>
#include <stdio.h>

attend_cache attend_new_cache(rig *r, bool f16, uint32_t n_kv, uint32_t head_dim,
                              uint32_t longest) {
    attend_cache c = { .f16 = f16,
                       .n_kv = n_kv,
                       .head_dim = head_dim,
                       .d8 = ceil_div(head_dim, 8),
                       .table = ceil_div(longest, ATTEND_PAGE) };
    c.n_pages = ATTEND_SLOTS * c.table + 2; /* two belong to nobody */
    c.pages = rig_shuffled(r, c.n_pages);
    c.n = (size_t)c.n_pages * n_kv * ATTEND_PAGE * c.d8 * 8;
    return c;
}

/* Element d of a head's key or value at a position. */
static size_t cache_at(const attend_cache *c, attend_kind kind, uint32_t place, uint32_t pos,
                       uint32_t kv, uint32_t d) {
    const size_t page = c->pages[place * c->table + pos / ATTEND_PAGE];
    const size_t in_page = pos % ATTEND_PAGE, pair = 2 - c->d8 % 2; /* of key_place.wgsl */
    const size_t chunk = kind == KEYS ? (d / 8 / pair * ATTEND_PAGE + in_page) * pair + d / 8 % pair
                                      : in_page * c->d8 + d / 8;
    return ((page * c->n_kv + kv) * ATTEND_PAGE * c->d8 + chunk) * 8 + d % 8;
}

/* ---- rows as the projections leave them --------------------------------------------------- */

static uint32_t row_width(uint32_t n_heads, uint32_t n_kv, uint32_t head_dim) {
    return (n_heads + 2 * n_kv) * head_dim;
}

void attend_make_raw(rig *r, attend_raw *w, const uint32_t (*rows)[2], uint32_t sums) {
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

/* An element of a cache as the kernel should have left it. */
static void expect_cached(rig *r, const attend_cache *c, const rig_output *o, size_t i, double want,
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

void attend_expect_cache(rig *r, const attend_raw *w, const uint32_t (*rows)[2],
                         const attend_cache *c, const rig_output *o, attend_kind kind) {
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

/* ---- attention ----------------------------------------------------------------------------- */

/* Sinks among the scores, far above them, far below, above but not by far, so
 * far above that nothing is left. The first one is of the head in which
 * PLANT_INPUT changes something. */
static const float SINKS[] = { 0.3f, 60, -1e4f, 4, 300 };

/* `plant`: where PLANT_INPUT changes an element, slot * length + position;
 * UINT32_MAX: not here. */
static void *lay_out(rig *r, const attend_case *a, const attend_history *h, attend_kind kind,
                     uint32_t plant) {
    const attend_cache *c = &h->cache;
    const double *x = kind == KEYS ? h->k : h->v;
    const size_t size = c->f16 ? 2 : 4;
    uint8_t *bytes = rig_alloc(r, c->n, size);
    for (size_t i = 0; i < c->n; i++) {
        const float nan = NAN;
        const uint16_t half = a->halves ? 0x7bff : 0x7e00; /* the largest, for kernels that read
                                                               what they multiply by 0; NaN */
        memcpy(bytes + i * size, c->f16 ? (const void *)&half : (const void *)&nan, size);
    }
    const size_t stride = (size_t)c->n_kv * c->head_dim;
    for (uint32_t pos = 0; pos < ATTEND_SLOTS * h->length; pos++) {
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

attend_history attend_new_history(rig *r, const attend_case *a, bool f16, uint32_t length) {
    attend_history h = { .cache = attend_new_cache(r, f16, a->n_kv, a->head_dim, length),
                         .length = length };
    const size_t n = (size_t)ATTEND_SLOTS * length * a->n_kv * a->head_dim;
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

void attend_add_fresh(rig *r, const attend_case *a, attend_history *h, const attend_raw *w) {
    const size_t stride = (size_t)a->n_kv * a->head_dim;
    const size_t n = ATTEND_SLOTS * (size_t)h->length * stride,
                 at = (size_t)w->n_heads * w->head_dim;
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

float *attend_new_sinks(rig *r, const attend_case *a, uint32_t *n) {
    *n = a->sinks ? a->n_kv * a->group : 1;
    float *sinks = rig_alloc(r, *n, sizeof(float));
    for (uint32_t i = 0; i < *n; i++)
        sinks[i] = SINKS[i % ARRAY_LEN(SINKS)];
    return sinks;
}

float *attend_new_queries(rig *r, const attend_case *a, uint32_t n) {
    const uint32_t wide = ceil_div(a->head_dim, 8) * 8;
    float *q = rig_normals(r, (size_t)n * a->n_kv * a->group * wide, a->sharp);
    for (uint32_t i = 0; i < n * a->n_kv * a->group * wide; i++) {
        if (i % wide >= a->head_dim) q[i] = 0;
    }
    return q;
}

/* Error of a score: its dot product has head_dim products; each is rounded,
 * scaled, and goes through at most head_dim / 4 + 7 additions (attend_decode
 * adds 8 to a chunk, then chunks) or head_dim of them (attend_prefill, one behind
 * the other), n in all: (n + 2) U sum |q k| scale, and what q and k are off, =: ds. It moves exp(s
 * - m) by that share, exp itself by (3 + 2 |s - m|) U and the subtraction by |s - m| U; m cancels.
 * Joining tiles and spans multiplies by exp of differences that add up to at most the range of the
 * scores. Sums of n terms: n U more. So |dy| <= sum p_j e_j (|v_j| + |y|) + p_j dv_j. A soft cap
 * has its own bound (rig_softcap_bound); a sink is one more score, exact and with the value 0. What
 * exp or a product makes smaller than the least normal number may become 0: FLT_MIN |v_j|. With
 * `halves` (attend_matrix: head_dim additions too, in an order of the matrix unit's) exp(s - m) is
 * rounded to 11 bits, in whichever direction: 2^-10 more; below 2^-14 it is off by up to 2^-24,
 * when the largest is at least 1. WGSL lets such small half floats become 0; no device with matrix
 * units was seen to do that, and 2^-14 for it would hide mistakes. */
void attend_find_head(rig *r, const attend_case *a, const attend_history *h, const double *q,
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
    const double same =
        most + 3 * (tiles + 1) + 3 * (high - low) + seen + 16 + (a->halves ? 0x1p-10 / U : 0);
    const double least = a->halves ? 0x1p-24 : (double)FLT_MIN;
    double sunk = 1; /* the sink's share */
    for (size_t d = 0; d < hd; d++)
        bound[d] = 0;
    for (size_t j = keys.first; j < n; j++) {
        const double e = U * (same + 3 * (high - s[j]));
        sunk -= p[j];
        for (size_t d = 0; d < hd; d++) {
            const double size = fabs(keys.v[j * stride + d]);
            const double dv = h->v_error != NULL ? h->v_error[from + j * stride + d] : 0;
            bound[d] += p[j] * (e * (size + fabs(want[d])) + dv) + least * size;
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

void attend_expect_row(rig *r, output_kind kind, const rig_output *y, size_t row, uint32_t width,
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

void attend_shape(const attend_case *a, char *shape, size_t size) {
    static const char *const outs[] = { "", ", planes", ", bytes" };
    snprintf(shape, size, "heads %ux%u of %u%s, span %u/%u, window %u, |q| %g, cap %g%s%s%s%s",
             a->n_kv, a->group, a->head_dim, a->heads != a->group ? " in parts" : "", a->one,
             a->span, a->window, a->sharp, a->softcap, a->sinks ? ", sinks" : "",
             a->fused ? ", fused" : "", a->norm ? ", normalised" : "", outs[a->out]);
}
