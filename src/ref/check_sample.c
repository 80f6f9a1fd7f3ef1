/* check_sample: the four kernels of the sampler, each from inputs of its own, and the logprobs.
 *
 * Several answers in one dispatch, each with its sampler, in slots of another order than the
 * answers, which are the first rows. What a kernel selects is compared exactly where its input
 * decides it (f32 in, no arithmetic), else against the exact answer with the width of its own
 * roundings. */
#include "ref/check_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { ANSWERS = 6, ROWS = 9, ROOM = 5, SLOTS = 8, CHUNK = 1024, LANES = 32 /* at least */ };

/* Both numbers of lanes that the engine uses are tried. */
static uint32_t lanes_beside(const rig_reduce *reduce) {
    return reduce->part == &reduce_tree_part ? 256 : LANES;
}

/* What all four kernels are given. */
typedef struct {
    uint32_t vocab, chunks;
    uint32_t rows[ROWS][4];
    ref_sampler samplers[SLOTS];
    const ref_sampler *of[ANSWERS]; /* the sampler of each answer */
    uint32_t slot[ANSWERS];
} draws;

static draws *new_draws(rig *r, uint32_t vocab, const ref_sampler *samplers, size_t n) {
    draws *d = rig_alloc(r, 1, sizeof(*d));
    d->vocab = vocab;
    d->chunks = ceil_div(vocab, CHUNK);
    const uint32_t *slots = rig_shuffled(r, SLOTS);
    for (uint32_t i = 0; i < SLOTS; i++) {
        d->samplers[i] = (ref_sampler){ .temperature = 99, .top_k = 99, .draws = 99, .top = 99 };
    }
    for (uint32_t i = 0; i < ROWS; i++)
        d->rows[i][1] = slots[i % SLOTS];
    for (uint32_t i = 0; i < ANSWERS; i++) {
        d->slot[i] = slots[i];
        d->of[i] = &d->samplers[slots[i]];
        d->samplers[slots[i]] = samplers[i % n];
        d->samplers[slots[i]].seed_low += i;
    }
    return d;
}

static float *new_logits(rig *r, uint32_t vocab, double scale) {
    float *x = rig_normals(r, (size_t)ANSWERS * vocab, scale);
    if (vocab >= 50) { /* an exact tie for the best, in different chunks if there are several */
        x[vocab - 1] = x[vocab / 3] = 20;
    }
    return x;
}

static uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

static const ref_sampler plain[] = {
    { .temperature = 1, .repeat = 1 },
    { .temperature = 0, .repeat = 1 },
    { .temperature = 0.7f, .repeat = 1.3f },
    { .temperature = 2.5f, .repeat = 1, .presence = 0.5f },
    { .temperature = 1, .repeat = 1, .frequency = 0.25f },
    { .temperature = 0.3f, .repeat = 0.8f, .presence = -1, .frequency = 2 },
};

/* ---- scan ---------------------------------------------------------------------------------- */

static void scan_row(rig *r, uint32_t vocab, bool keep, const rig_reduce *reduce,
                     const char *reason) {
    char kernel[96];
    snprintf(kernel, sizeof(kernel), "sample_scan %s", reduce->part->name);
    if (!rig_begin(r, kernel, reason, "vocab %u%s", vocab, keep ? "" : ", the best alone")) return;
    draws *d = new_draws(r, vocab, plain, ARRAY_LEN(plain));
    const float *logits = new_logits(r, vocab, 3);
    uint32_t *counts = rig_alloc(r, (size_t)SLOTS * vocab, 4);
    for (size_t i = 0; i < (size_t)SLOTS * vocab; i++) {
        counts[i] =
            (rig_below(r, 2) == 0 ? REF_SEEN : 0) | (rig_below(r, 3) == 0 ? rig_below(r, 9) : 0);
    }
    rig_output *samplers = rig_out(r, d->samplers, sizeof(d->samplers) / 4);
    rig_output *z = rig_out(r, NULL, (size_t)ANSWERS * vocab);
    rig_output *best = rig_out(r, NULL, (size_t)ANSWERS * d->chunks * 4);
    rig_output *found = rig_out(r, NULL, ANSWERS * 2 * (2 + ROOM));
    const sample_scan_consts consts = { .vocab = vocab,
                                        .chunk = CHUNK,
                                        .found = ROOM,
                                        .keep = keep,
                                        .wg = lanes_beside(reduce),
                                        .team = reduce->team };
    rig_call(r, &sample_scan_source, (const gpu_fragment *[]){ &sampler_state_part, reduce->part },
             &consts,
             (gpu_call){
                 .bind = { samplers->range,
                           [SAMPLE_SCAN_LOGITS] = rig_numbers(r, logits, (size_t)ANSWERS * vocab,
                                                              keep ? 0 : vocab / 3),
                           [SAMPLE_SCAN_ROWS] = rig_in(r, d->rows, sizeof(d->rows)),
                           [SAMPLE_SCAN_COUNTS] = rig_in(r, counts, (size_t)SLOTS * vocab * 4),
                           [SAMPLE_SCAN_Z] = z->range, [SAMPLE_SCAN_BEST] = best->range,
                           [SAMPLE_SCAN_FOUND] = found->range },
                 .groups = { { .times = d->chunks }, { .times = ANSWERS } },
             });
    double *want = rig_alloc(r, vocab, sizeof(double)),
           *bound = rig_alloc(r, vocab, sizeof(double));
    const bool ran = rig_run(r);
    for (uint32_t a = 0; ran && a < ANSWERS; a++) {
        const ref_sampler *s = d->of[a];
        const uint32_t *seen = counts + (size_t)d->slot[a] * vocab;
        const size_t base = (size_t)a * vocab;
        ref_adjust(want, logits + base, seen, s, vocab);
        for (uint32_t v = 0; v < vocab; v++) {
            /* Penalty: a quotient (2.5); then three roundings of the sum's terms; temperature: 2.5.
             */
            const double l = fabs((double)logits[base + v]);
            const double n = (double)(seen[v] & ~REF_SEEN);
            const double terms = fmax(l, fmax(l / (double)s->repeat, l * (double)s->repeat)) +
                                 fabs((double)s->presence) + n * fabs((double)s->frequency);
            const double t = s->temperature > 0 ? (double)s->temperature : 1;
            bound[v] = U * (2.5 + 3 + 2.5) * terms / t;
            if (keep) rig_expect(r, rig_float(z, base + v), want[v], bound[v]);
        }
        for (uint32_t c = 0; c < d->chunks; c++) {
            const uint32_t first = c * CHUNK, last = min_u32(vocab, first + CHUNK);
            const size_t at = ((size_t)a * d->chunks + c) * 4;
            const uint32_t got = best->after[at + 1];
            const bool inside = got >= first && got < last;
            rig_require(r, inside, "the best is no token of the chunk");
            if (!inside) continue;
            double mass = 0, error = 0;
            for (uint32_t v = first; v < last; v++) {
                if (!keep) {
                    rig_require(r, want[v] - bound[v] <= want[got] + bound[got],
                                "another token of the chunk is better");
                    continue;
                }
                /* of the kernel's own z, exactly; ties: the lower token */
                const double own = (double)rig_float(z, base + v);
                const double x = own - (double)rig_float(z, base + got);
                rig_require(r, x < 0 || (x == 0 && v >= got), "another token is better");
                mass += exp(x);
                error += exp(x) * U * (3 + 3 * fabs(x)); /* the difference, then exp */
            }
            rig_skip(r, 1); /* the token */
            rig_bits(r, best->after[at + 3], 0);
            if (keep) {
                rig_bits(r, best->after[at], z->after[base + got]);
                /* additions: those of a lane, then of the teams */
                rig_expect(r, rig_float(best, at + 2), mass,
                           error + U * mass * (CHUNK / LANES + 16.0));
            } else {
                rig_expect(r, rig_float(best, at), want[got], bound[got]);
                rig_bits(r, best->after[at + 2], 0);
            }
        }
    }
    if (!keep) rig_kept(r, z, 0, z->n);
    for (size_t a = 0; ran && a < ANSWERS; a++) {
        const size_t at = a * 2 * (2 + ROOM), n = keep;
        if (keep) rig_bits(r, found->after[at], 0);
        rig_kept(r, found, at + n, 2 * (2 + ROOM) - n);
    }
    rig_kept(r, samplers, 0, samplers->n);
    rig_end(r);
}

void check_scan(rig *r) {
    rig_reduce reduces[2];
    const uint32_t n = rig_reduces(r, reduces);
    for (uint32_t i = 0; i < n; i++) {
        scan_row(r, 50, true, &reduces[i], "less than a workgroup");
        scan_row(r, 1024, true, &reduces[i], "one chunk");
        scan_row(r, 1025, true, &reduces[i], "a chunk of one token");
        scan_row(r, 32003, true, &reduces[i], "many chunks, the last not full");
        scan_row(r, 1025, false, &reduces[i], "greedy");
    }
}

/* ---- draw ---------------------------------------------------------------------------------- */

/* Score of token v in the race and how far f32 may be off: z - top and the last subtraction round
 * once; u carries three roundings; log is 3 ULP, or 2^-21 near 1 (between 1/2 and 2). */
static double score_of(const ref_sampler *s, float z, float top, uint32_t v, double *bound) {
    *bound = 0;
    if (!(s->temperature > 0)) return (double)z;
    const uint32_t random = ref_random(s, v);
    const double u = ((double)random + 0.5) / 4294967296.0, e = -log1p(-u), le = log(e);
    const double score = (double)z - (double)top - le;
    double in_e = 3 * U; /* relative error of e */
    if (u >= 1e-3) in_e += (3 * U / (1 - u) + fmax(0x1p-21, 3 * U * e)) / e;
    *bound = in_e + fmax(0x1p-21, 3 * U * fabs(le)) +
             U * (fabs((double)z) + fabs((double)top) + 2 * fabs(le) + fabs(score));
    return score;
}

/* Is (score, token) the winner among tokens [first, last) with z >= low? Those within `edge` of low
 * may take part or not. */
static void expect_winner(rig *r, const ref_sampler *s, const float *z, float top, uint32_t first,
                          uint32_t last, double low, double edge, float got_score, uint32_t got) {
    double most = -INFINITY, bound = 0;
    uint32_t n = 0, n_edge = 0;
    for (uint32_t v = first; v < last; v++) {
        if ((double)z[v] < low - edge) continue;
        if ((double)z[v] < low + edge && edge > 0) {
            n_edge++;
            continue;
        }
        const double score = score_of(s, z[v], top, v, &bound);
        most = fmax(most, score - bound);
        n++;
    }
    if (n == 0 && (n_edge == 0 || got_score < -1e38f)) { /* nothing may win */
        rig_require(r, got_score < -1e38f, "a token that is cut off takes part");
        rig_skip(r, 2);
        return;
    }
    const bool inside = got >= first && got < last && (double)z[got] >= low - edge;
    rig_require(r, inside, "the winner is no token of the chunk, or cut off");
    const double score = inside ? score_of(s, z[got], top, got, &bound) : 0;
    rig_require(r, score + bound >= most, "another token has the larger score");
    for (uint32_t v = first; inside && v < got && bound == 0; v++) {
        rig_require(r, (double)z[v] < low || z[v] != z[got], "of equals the lower token wins");
    }
    rig_expect(r, got_score, score, bound);
    rig_skip(r, 1);
}

/* [ANSWERS, chunks] as sample_scan makes it, and the largest z and the mass of each answer. */
static uint32_t *new_best(rig *r, const draws *d, const float *z, float *tops, double *masses) {
    uint32_t(*best)[4] = rig_alloc(r, (size_t)ANSWERS * d->chunks, sizeof(*best));
    for (uint32_t a = 0; a < ANSWERS; a++) {
        const float *own = z + (size_t)a * d->vocab;
        tops[a] = own[0];
        for (uint32_t v = 0; v < d->vocab; v++)
            tops[a] = fmaxf(tops[a], own[v]);
        masses[a] = 0;
        for (uint32_t c = 0; c < d->chunks; c++) {
            const uint32_t last = min_u32(d->vocab, (c + 1) * CHUNK);
            uint32_t top = c * CHUNK;
            for (uint32_t v = top; v < last; v++)
                top = own[v] > own[top] ? v : top;
            double mass = 0;
            for (uint32_t v = c * CHUNK; v < last; v++)
                mass += exp((double)own[v] - (double)own[top]);
            masses[a] += mass * exp((double)own[top] - (double)tops[a]);
            uint32_t *at = best[a * d->chunks + c];
            at[0] = bits_of(own[top]);
            at[1] = top;
            at[2] = bits_of((float)mass);
        }
    }
    return best[0];
}

static int by_falling_float(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return x > y ? -1 : x < y;
}

/* The bound that tokens of the list must reach, and how far f32 may be off it. */
static double list_bound(rig *r, const draws *d, const ref_sampler *s, const uint32_t *best,
                         float top, double mass, double *edge) {
    double low = -3e38;
    *edge = 0;
    const bool by_k = s->top_k > 0 && s->top_k < d->vocab;
    if (by_k && s->top_k <= d->chunks) {
        float *chunk_tops = rig_alloc(r, d->chunks, sizeof(float));
        for (uint32_t c = 0; c < d->chunks; c++)
            memcpy(&chunk_tops[c], &best[4 * c], 4);
        qsort(chunk_tops, d->chunks, sizeof(float), by_falling_float);
        low = (double)chunk_tops[s->top_k - 1];
    }
    /* A logarithm's argument carries the roundings of mass (its terms' exp and additions), the
     * difference, the product and the quotient; then log itself and a sum. */
    const double in_mass = U * (d->chunks / LANES + 16.0 + 3 + 3 * 40);
    if (!by_k && s->top_p > 0 && s->top_p < 1) {
        const double share = 1 - (double)s->top_p;
        low = (double)top + log(share * mass / (2.0 * d->vocab));
        *edge =
            in_mass + U * (1 / share + 8) + U * (3 * fabs(low - (double)top) + fabs(low)) + 0x1p-21;
    }
    if (!by_k && s->min_p > 0) {
        const double limit = (double)top + log((double)s->min_p);
        const double error = U * (3 * fabs(log((double)s->min_p)) + fabs(limit)) + 0x1p-21;
        if (limit > low) low = limit;
        *edge = fmax(*edge, error);
    }
    return low;
}

static void expect_list(rig *r, const draws *d, uint32_t a, const float *own, const uint32_t *best,
                        float top, double mass, const rig_output *found, uint32_t room) {
    double edge;
    const double low = list_bound(r, d, d->of[a], best, top, mass, &edge);
    const size_t at = (size_t)a * 2 * (2 + room);
    uint32_t least = 0, most = 0;
    for (uint32_t v = 0; v < d->vocab; v++) {
        least += (double)own[v] >= low + edge;
        most += (double)own[v] >= low - edge;
    }
    const uint32_t n = found->after[at];
    rig_require(r, n >= least && n <= most, "the list is too long or too short");
    rig_kept(r, found, at + 1, 1);
    rig_bits(r, found->after[at + 2], bits_of(top));
    rig_expect(r, rig_float(found, at + 3), mass,
               U * mass * (d->chunks / LANES + 16.0 + 3 + 3 * 40));
    bool *seen = rig_alloc(r, d->vocab, sizeof(bool));
    for (uint32_t i = 0; i < min_u32(n, room); i++) {
        const uint32_t v = found->after[at + 5 + 2 * (size_t)i];
        rig_skip(r, 2);
        rig_require(r, v < d->vocab && !seen[v], "the list has no such token, or twice");
        if (v >= d->vocab) continue;
        seen[v] = true;
        rig_require(r,
                    found->after[at + 4 + 2 * (size_t)i] == bits_of(own[v]) &&
                        (double)own[v] >= low - edge,
                    "a value of the list is another one's, or too small");
    }
    if (n < room) rig_kept(r, found, at + 4 + 2 * (size_t)n, 2 * (size_t)(room - n));
    rig_skip(r, 1); /* how many */
}

static void draw_row(rig *r, uint32_t vocab, uint32_t room, const rig_reduce *reduce,
                     const ref_sampler *list, size_t n_list, const char *what, const char *reason) {
    char kernel[96];
    snprintf(kernel, sizeof(kernel), "sample_draw %s", reduce->part->name);
    if (!rig_begin(r, kernel, reason, "%s, vocab %u, room for %u", what, vocab, room)) return;
    draws *d = new_draws(r, vocab, list, n_list);
    const float *z = new_logits(r, vocab, 3);
    float tops[ANSWERS];
    double masses[ANSWERS];
    const uint32_t *best = new_best(r, d, z, tops, masses);
    const size_t words = 2 * (2 + (size_t)room);
    uint32_t *before = rig_alloc(r, ANSWERS * words, 4);
    rig_output *samplers = rig_out(r, d->samplers, sizeof(d->samplers) / 4);
    rig_output *won = rig_out(r, NULL, (size_t)ANSWERS * d->chunks * 4);
    rig_output *found = rig_out(r, before, ANSWERS * words);
    const sample_draw_consts consts = { .vocab = vocab,
                                        .chunk = CHUNK,
                                        .chunks = d->chunks,
                                        .found = room,
                                        .wg = lanes_beside(reduce),
                                        .team = reduce->team };
    rig_call(r, &sample_draw_source, (const gpu_fragment *[]){ &sampler_state_part, reduce->part },
             &consts,
             (gpu_call){
                 .bind = { samplers->range,
                           [SAMPLE_DRAW_Z] = rig_numbers(r, z, (size_t)ANSWERS * vocab, vocab / 3),
                           [SAMPLE_DRAW_ROWS] = rig_in(r, d->rows, sizeof(d->rows)),
                           [SAMPLE_DRAW_BEST] = rig_in(r, best, (size_t)ANSWERS * d->chunks * 16),
                           [SAMPLE_DRAW_WON] = won->range, [SAMPLE_DRAW_FOUND] = found->range },
                 .groups = { { .times = d->chunks }, { .times = ANSWERS } },
             });
    const bool ran = rig_run(r);
    for (uint32_t a = 0; ran && a < ANSWERS; a++) {
        const ref_sampler *s = d->of[a];
        const float *own = z + (size_t)a * vocab;
        const uint32_t *chunk_best = best + (size_t)a * d->chunks * 4;
        const bool drawn = s->temperature > 0;
        const bool listed =
            drawn && ((s->top_k > 0 && s->top_k < vocab) || (s->top_p > 0 && s->top_p < 1));
        double edge = 0, low = -3e38;
        if (drawn && !listed) low = list_bound(r, d, s, chunk_best, tops[a], masses[a], &edge);
        for (uint32_t c = 0; c < d->chunks; c++) {
            const size_t at = ((size_t)a * d->chunks + c) * 4;
            rig_bits(r, won->after[at + 2], 0);
            rig_bits(r, won->after[at + 3], 0);
            if (listed) {
                rig_require(r, rig_float(won, at) < -1e38f, "a token of the list wins");
                rig_skip(r, 2);
                continue;
            }
            expect_winner(r, s, own, tops[a], c * CHUNK, min_u32(vocab, (c + 1) * CHUNK), low, edge,
                          rig_float(won, at), won->after[at + 1]);
        }
        if (listed) {
            expect_list(r, d, a, own, chunk_best, tops[a], masses[a], found, room);
        } else {
            rig_kept(r, found, a * words, 2);
            rig_skip(r, 2); /* top and mass, which nobody reads */
            rig_kept(r, found, a * words + 4, words - 4);
        }
    }
    rig_kept(r, samplers, 0, samplers->n);
    rig_end(r);
}

void check_draw(rig *r) {
    static const ref_sampler open[] = {
        { .temperature = 1, .seed_low = 1, .draws = 0 },
        { .temperature = 1, .min_p = 0.05f, .seed_low = 7, .seed_high = 1, .draws = 1 },
        { .temperature = 0, .top_k = 5, .top_p = 0.5f, .min_p = 0.9f },
        { .temperature = 0.5f, .min_p = 1, .seed_high = ~0u, .draws = 70000 },
    };
    static const ref_sampler ks[] = { { .temperature = 1, .top_k = 1 },
                                      { .temperature = 1, .top_k = 20, .top_p = 0.9f },
                                      { .temperature = 1, .top_k = 32, .min_p = 0.5f },
                                      { .temperature = 1, .top_k = 33 },
                                      { .temperature = 1, .top_k = 2, .min_p = 1 } };
    static const ref_sampler ps[] = { { .temperature = 1, .top_p = 0.5f },
                                      { .temperature = 1, .top_p = 0.95f, .min_p = 1e-3f },
                                      { .temperature = 1, .top_p = 0.999f },
                                      { .temperature = 1, .top_p = 1e-6f },
                                      { .temperature = 1, .top_p = 0.9f, .min_p = 1e-30f } };
    rig_reduce reduces[2];
    const uint32_t n = rig_reduces(r, reduces);
    for (uint32_t i = 0; i < n; i++) {
        const rig_reduce *reduce = &reduces[i];
        draw_row(r, 50, 64, reduce, open, ARRAY_LEN(open), "open", "less than a workgroup");
        draw_row(r, 1025, 64, reduce, open, ARRAY_LEN(open), "open", "a chunk of one token");
        draw_row(r, 32003, 64, reduce, open, ARRAY_LEN(open), "open", "many chunks");
        draw_row(r, 50, 64, reduce, ks, ARRAY_LEN(ks), "top-k", "one chunk says little");
        draw_row(r, 32003, 40000, reduce, ks, ARRAY_LEN(ks), "top-k", "as many as chunks");
        draw_row(r, 32003, 40000, reduce, ps, ARRAY_LEN(ps), "top-p", "a bound by the mass");
        draw_row(r, 5000, 100, reduce, ps, ARRAY_LEN(ps), "top-p", "more than there is room for");
    }
}

/* ---- select -------------------------------------------------------------------------------- */

/* Does the kernel's floor keep what top-k and top-p ask for? Everything but top-p is exact. The
 * probabilities are cut down to multiples of 2^-30, so their sum is short by at most 2^-30 a token,
 * and carry the errors of exp, of what scales them (3) and of the product; the target is rounded
 * once. */
static bool floor_holds(const ref_sampler *s, const float *z, uint32_t vocab, float floor,
                        double *scratch, uint32_t *order) {
    double *zd = scratch, *p = scratch + vocab;
    for (uint32_t v = 0; v < vocab; v++)
        zd[v] = (double)z[v];
    if (!(s->temperature > 0)) return floor == -3e38f;
    ref_sampler only = *s;
    only.top_p = only.min_p = 0;
    const double after_k = ref_distribution(p, order, zd, &only, vocab), top = zd[order[0]];
    double limit = -3e38; /* of min-p */
    if (s->min_p > 0) limit = top + log((double)s->min_p);
    const double min_p_error =
        U * (3 * fabs(log((double)s->min_p + 1e-30)) + fabs(limit)) + 0x1p-21;
    const bool by_min_p = s->min_p > 0 && fabs((double)floor - limit) <= min_p_error;
    if (!(s->top_p > 0 && s->top_p < 1)) {
        if (by_min_p) return after_k <= (double)floor + min_p_error || s->top_k == 0;
        const bool cut = s->top_k > 0 && s->top_k < vocab;
        return cut ? (double)floor == after_k && limit <= after_k + min_p_error : floor == -3e38f;
    }
    double slack = vocab * 0x1p-30 + U * (1 + 2 * 4);
    for (uint32_t v = 0; v < vocab; v++)
        slack += 2 * U * p[v] * (3 + 3 * fabs(zd[v] - top));
    double above = 0, from = 0; /* probability of what is over the floor, and with what is at it */
    bool exists = false;
    for (uint32_t v = 0; v < vocab; v++) {
        if (zd[v] > (double)floor) above += p[v];
        if (zd[v] >= (double)floor) from += p[v];
        exists |= z[v] == floor;
    }
    if (by_min_p) return above <= (double)s->top_p + slack || !exists;
    return exists && from >= (double)s->top_p - slack && above < (double)s->top_p + slack &&
           (double)floor >= after_k && limit <= (double)floor + min_p_error;
}

/* The list as sample_draw may have left it: the tokens that top-k and top-p need and some that they
 * do not, in any order. Returns how many; more than there is room for are not written. */
static uint32_t new_list(rig *r, const ref_sampler *s, const float *z, uint32_t vocab,
                         uint32_t room, uint32_t (*list)[2], double *scratch, uint32_t *order) {
    double *zd = scratch, *p = scratch + vocab;
    for (uint32_t v = 0; v < vocab; v++)
        zd[v] = (double)z[v];
    ref_sampler only = *s; /* top-p's share is that of what top-k leaves */
    only.min_p = 0;
    if (s->top_k > 0 && s->top_k < vocab) only.top_p = 0;
    const double least = ref_distribution(p, order, zd, &only, vocab);
    uint32_t n = 0;
    while (n < vocab && zd[order[n]] >= least)
        n++;
    n = min_u32(vocab, n + 7);
    if (n > room) return n;
    const uint32_t *places = rig_shuffled(r, n);
    for (uint32_t i = 0; i < n; i++) {
        list[places[i]][0] = bits_of(z[order[i]]);
        list[places[i]][1] = order[i];
    }
    return n;
}

static void select_row(rig *r, uint32_t vocab, double scale, double grid, uint32_t room,
                       const ref_sampler *list, size_t n, const char *what, const char *reason) {
    const uint32_t lanes = room % 2 == 0 ? 256 : LANES;
    if (!rig_begin(r, "sample_select", reason, "%s, vocab %u, |z| %g, room for %u%s, %u lanes",
                   what, vocab, scale, room, grid > 0 ? ", many ties" : "", lanes)) {
        return;
    }
    draws *d = new_draws(r, vocab, list, n);
    float *z = new_logits(r, vocab, scale), tops[ANSWERS];
    double masses[ANSWERS], *scratch = rig_alloc(r, 2 * (size_t)vocab, sizeof(double));
    for (size_t i = 0; i < (size_t)ANSWERS * vocab && grid > 0; i++) {
        z[i] = (float)(grid * floor((double)z[i] / grid));
    }
    (void)new_best(r, d, z, tops, masses);
    const size_t words = 2 * (2 + (size_t)room);
    uint32_t *before = rig_alloc(r, ANSWERS * words, 4), *order = rig_alloc(r, vocab, 4);
    bool filtered[ANSWERS];
    for (uint32_t a = 0; a < ANSWERS; a++) {
        const ref_sampler *s = d->of[a];
        uint32_t *at = before + a * words;
        filtered[a] = s->temperature > 0 &&
                      ((s->top_k > 0 && s->top_k < vocab) || (s->top_p > 0 && s->top_p < 1));
        if (!filtered[a]) continue;
        at[0] = new_list(r, s, z + (size_t)a * vocab, vocab, room, (uint32_t(*)[2])(void *)(at + 4),
                         scratch, order);
        at[2] = bits_of(tops[a]);
        at[3] = bits_of((float)masses[a]);
    }
    /* PLANT_INPUT: the first answer's largest z is another one. */
    if (filtered[0] && rig_plant(r)) before[2] = bits_of(tops[0] + 3);
    rig_output *samplers = rig_out(r, d->samplers, sizeof(d->samplers) / 4);
    rig_output *won = rig_out(r, NULL, (size_t)ANSWERS * d->chunks * 4);
    const sample_select_consts consts = {
        .vocab = vocab, .chunks = d->chunks, .found = room, .wg = lanes
    };
    rig_call(r, &sample_select_source, (const gpu_fragment *[]){ &sampler_state_part }, &consts,
             (gpu_call){
                 .bind = { samplers->range,
                           [SAMPLE_SELECT_Z] = rig_in(r, z, (size_t)ANSWERS * vocab * 4),
                           [SAMPLE_SELECT_ROWS] = rig_in(r, d->rows, sizeof(d->rows)),
                           [SAMPLE_SELECT_FOUND] = rig_in(r, before, ANSWERS * words * 4),
                           [SAMPLE_SELECT_WON] = won->range },
                 .groups = { { 0 }, { .times = ANSWERS } },
             });
    enum { WORDS = sizeof(ref_sampler) / 4 };
    bool used[SLOTS] = { false };
    const bool ran = rig_run(r);
    for (uint32_t a = 0; ran && a < ANSWERS; a++) {
        const size_t at = (size_t)d->slot[a] * WORDS, first = (size_t)a * d->chunks * 4;
        if (!filtered[a]) {
            rig_kept(r, won, first, d->chunks * 4);
            continue;
        }
        used[d->slot[a]] = true;
        const float *own = z + (size_t)a * vocab;
        const float floor = rig_float(samplers, at + WORDS - 1);
        rig_kept(r, samplers, at, WORDS - 2);
        rig_bits(r, samplers->after[at + WORDS - 2], bits_of(tops[a]));
        rig_require(r, floor_holds(d->of[a], own, vocab, floor, scratch, order),
                    "the floor keeps too much or too little");
        rig_skip(r, 1);
        expect_winner(r, d->of[a], own, tops[a], 0, vocab, (double)floor, 0, rig_float(won, first),
                      won->after[first + 1]);
        rig_bits(r, won->after[first + 2], 0);
        rig_bits(r, won->after[first + 3], 0);
        rig_kept(r, won, first + 4, (d->chunks - 1) * 4);
    }
    for (uint32_t i = 0; i < SLOTS; i++) {
        if (!used[i]) rig_kept(r, samplers, (size_t)i * WORDS, WORDS);
    }
    rig_end(r);
}

void check_select(rig *r) {
    static const ref_sampler none[] = { { .temperature = 1, .top_k = 2 }, /* beside three without */
                                        { .temperature = 1, .top_k = 1000000 },
                                        { .temperature = 0, .top_k = 5, .top_p = 0.5f },
                                        { .temperature = 1, .min_p = 0.05f } };
    static const ref_sampler ks[] = {
        { .temperature = 1, .top_k = 1 },  { .temperature = 1, .top_k = 2 },
        { .temperature = 1, .top_k = 40 }, { .temperature = 1, .top_k = 49 },
        { .temperature = 1, .top_k = 45 }, { .temperature = 1, .top_k = 13 }
    };
    static const ref_sampler ps[] = {
        { .temperature = 1, .top_p = 1e-6f },  { .temperature = 1, .top_p = 0.1f },
        { .temperature = 1, .top_p = 0.5f },   { .temperature = 1, .top_p = 0.9f },
        { .temperature = 1, .top_p = 0.999f }, { .temperature = 1, .top_p = 0.7f }
    };
    static const ref_sampler mixed[] = {
        { .temperature = 1, .top_k = 20, .top_p = 0.8f },
        { .temperature = 1, .top_k = 3, .top_p = 0.99f, .min_p = 0.001f },
        { .temperature = 1, .top_p = 0.95f, .min_p = 0.1f },
        { .temperature = 1, .top_k = 10, .min_p = 0.02f },
    };
    static const struct {
        uint32_t vocab;
        double scale, grid;
        uint32_t room;
        const char *reason;
    } shapes[] = {
        { 50, 2, 0, 63, "a small vocabulary, both signs" },
        { 50, 2, 0.5, 64, "ties at the threshold are kept" },
        { 50, 2, 0, 4, "the list is not all" },
        { 5000, 1, 0, 5001, "several tokens a lane" },
        { 128256, 3, 0, 4096, "Llama 3's vocabulary" },
    };
    const struct {
        const ref_sampler *list;
        size_t n;
        const char *name;
    } lists[] = {
        { ks, ARRAY_LEN(ks), "top-k" },
        { none, ARRAY_LEN(none), "no filter" },
        { ps, ARRAY_LEN(ps), "top-p" },
        { mixed, ARRAY_LEN(mixed), "mixed" },
    };
    for (size_t j = 0; j < ARRAY_LEN(shapes); j++) {
        for (size_t k = shapes[j].vocab > 5000 ? 3 : 0; k < ARRAY_LEN(lists); k++) {
            select_row(r, shapes[j].vocab, shapes[j].scale, shapes[j].grid, shapes[j].room,
                       lists[k].list, lists[k].n, lists[k].name, shapes[j].reason);
        }
    }
}

/* ---- finish -------------------------------------------------------------------------------- */

enum { STEPS = 64, REPORTED = 5 };
static const uint32_t DONE = 0x80000000u; /* in rows[].w */

static void finish_row(rig *r, uint32_t vocab, uint32_t flags, const char *reason) {
    if (!rig_begin(r, "sample_finish", reason, "vocab %u, flags %u", vocab, flags)) return;
    static const ref_sampler any[] = { { .temperature = 1, .draws = 3 } };
    draws *d = new_draws(r, vocab, any, 1);
    const uint32_t chunks = d->chunks;
    /* Answers: the first, the last there is room for, one done before, one that meets a stop token
     * now. */
    for (uint32_t i = 0; i < ROWS; i++) {
        d->rows[i][0] = 1, d->rows[i][2] = 10 * i;
    }
    d->rows[2][3] = DONE;
    uint32_t said[(1 + STEPS) * ANSWERS];
    memset(said, 0x11, sizeof(said));
    for (uint32_t a = 0; a < ANSWERS; a++)
        said[a] = a == 0 ? 0 : a == 1 ? STEPS - 1 : REPORTED + a;
    uint32_t(*best)[4] = rig_alloc(r, (size_t)ANSWERS * chunks, sizeof(*best));
    uint32_t winner[ANSWERS], plant = 0;
    for (uint32_t a = 0; a < ANSWERS; a++) {
        for (uint32_t c = 0; c < chunks; c++) {
            best[a * chunks + c][0] = bits_of(-(float)(1 + rig_below(r, 1000)));
            best[a * chunks + c][1] = c * CHUNK + rig_below(r, min_u32(CHUNK, vocab - c * CHUNK));
        }
        const uint32_t c = rig_below(r, chunks);
        best[a * chunks + c][0] = bits_of(0.5f);
        best[a * chunks + chunks - 1][0] = bits_of(0.5f); /* a tie, unless it is the same chunk */
        winner[a] = best[a * chunks + c][1];
        if (a == 0) plant = 4 * c + 1;
    }
    const uint32_t stops[] = { 3, vocab, winner[3], vocab + 1 };
    uint32_t *counts = rig_alloc(r, (size_t)SLOTS * vocab, 4);
    for (uint32_t a = 0; a < ANSWERS; a++)
        counts[(size_t)d->slot[a] * vocab + winner[a]] = REF_SEEN | a;
    const uint32_t sizes[4] = { ROWS, ANSWERS, flags, 0 };
    rig_output *samplers = rig_out(r, d->samplers, sizeof(d->samplers) / 4);
    rig_output *rows = rig_out(r, d->rows, ROWS * 4);
    rig_output *seen = rig_out(r, counts, (size_t)SLOTS * vocab);
    rig_output *answer = rig_out(r, said, ANSWERS * (1 + STEPS));
    const gpu_range list = rig_words(r, best[0], (size_t)ANSWERS * chunks * 4, plant);
    rig_call(r, &sample_finish_source, (const gpu_fragment *[]){ &sampler_state_part },
             &(sample_finish_consts){ .vocab = vocab, .chunks = chunks, .wg = 64 },
             (gpu_call){
                 .bind = { samplers->range, [SAMPLE_FINISH_BEST] = list,
                           [SAMPLE_FINISH_STOPS] = rig_in(r, stops, sizeof(stops)),
                           [SAMPLE_FINISH_SIZES] = rig_sizes(r, sizes),
                           [SAMPLE_FINISH_ROWS] = rows->range, [SAMPLE_FINISH_COUNTS] = seen->range,
                           [SAMPLE_FINISH_ANSWER] = answer->range },
                 .groups = { { 0 }, { .times = ANSWERS } },
             });
    if (rig_run(r)) {
        for (uint32_t a = 0; a < ANSWERS; a++) {
            uint32_t *row = d->rows[a];
            if (row[3] & DONE) continue;
            said[++said[a] * ANSWERS + a] = winner[a];
            d->samplers[d->slot[a]].draws++;
            if (winner[a] == stops[2] && (flags & 1) == 0) {
                row[3] = DONE;
                continue;
            }
            counts[(size_t)d->slot[a] * vocab + winner[a]]++;
            row[0] = winner[a];
            row[2]++;
        }
        for (size_t i = 0; i < answer->n; i++)
            rig_bits(r, answer->after[i], said[i]);
        for (size_t i = 0; i < rows->n; i++)
            rig_bits(r, rows->after[i], d->rows[i / 4][i % 4]);
        for (size_t i = 0; i < seen->n; i++)
            rig_bits(r, seen->after[i], counts[i]);
        const uint32_t *state = (const uint32_t *)(const void *)d->samplers;
        for (size_t i = 0; i < samplers->n; i++)
            rig_bits(r, samplers->after[i], state[i]);
    }
    rig_end(r);
}

void check_finish(rig *r) {
    finish_row(r, 50, 0, "one chunk");
    finish_row(r, 3000, 0, "ties between chunks go to the lower token");
    finish_row(r, 100000, 0, "more chunks than lanes");
    finish_row(r, 3000, 1, "stop tokens ignored");
}

/* ---- logprobs ------------------------------------------------------------------------------ */

static void logprobs_row(rig *r, uint32_t vocab, uint32_t wanted, const rig_reduce *reduce,
                         const char *reason) {
    enum { BEST = 32 };
    char kernel[96];
    snprintf(kernel, sizeof(kernel), "logprobs %s", reduce->part->name);
    if (!rig_begin(r, kernel, reason, "vocab %u, best %u", vocab, wanted)) return;
    const float *logits = new_logits(r, vocab, 3);
    uint32_t answer[1 + STEPS][ANSWERS];
    memset(answer, 0xff, sizeof(answer)); /* a token taken from elsewhere is none */
    for (uint32_t a = 0; a < ANSWERS; a++) {
        answer[0][a] = a == 0 ? STEPS : a;
        answer[answer[0][a]][a] = a == 1 ? vocab - 1 : rig_below(r, vocab);
    }
    const uint32_t sizes[4] = { 77, ANSWERS, 0, wanted };
    rig_output *probs = rig_out(r, NULL, ANSWERS * (1 + BEST) * 2);
    const logprobs_consts consts = { .vocab = vocab,
                                     .wg = lanes_beside(reduce),
                                     .team = reduce->team };
    /* PLANT_INPUT: the first answer's best token is more likely. */
    rig_call(r, &logprobs_source, (const gpu_fragment *[]){ reduce->part }, &consts,
             (gpu_call){
                 .bind = { [LOGPROBS_LOGITS] =
                               rig_numbers(r, logits, (size_t)ANSWERS * vocab, vocab / 3),
                           [LOGPROBS_ANSWER] = rig_in(r, answer, sizeof(answer)),
                           [LOGPROBS_SIZES] = rig_sizes(r, sizes),
                           [LOGPROBS_PROBS] = probs->range },
                 .groups = { { 0 }, { .times = ANSWERS } },
             });
    double *p = rig_alloc(r, vocab, sizeof(double)), *want = rig_alloc(r, vocab, sizeof(double));
    uint32_t *order = rig_alloc(r, vocab, 4);
    const bool ran = rig_run(r);
    for (uint32_t a = 0; ran && a < ANSWERS; a++) {
        const float *own = logits + (size_t)a * vocab;
        const double *z = rig_doubles(r, own, vocab);
        ref_distribution(p, order, z, &(ref_sampler){ .temperature = 1 }, vocab);
        ref_logprobs(want, own, vocab);
        /* log of the sum: its terms' exp and additions, then the log itself and two roundings. */
        double sum = U * (vocab / LANES + 16.0), top = z[order[0]];
        for (uint32_t v = 0; v < vocab; v++)
            sum += p[v] * U * (3 + 3 * fabs(z[v] - top));
        for (uint32_t i = 0; i <= BEST; i++) {
            const size_t at = 2 * ((size_t)a * (1 + BEST) + i);
            if (i > wanted) {
                rig_kept(r, probs, at, 2);
                continue;
            }
            const uint32_t token = i == 0 ? answer[answer[0][a]][a] : order[i - 1];
            rig_bits(r, probs->after[at], token);
            rig_expect(r, rig_float(probs, at + 1), want[token],
                       sum + 0x1p-21 +
                           U * (fabs(z[token]) + 3 * fabs(top) + 3 * fabs(want[token])));
        }
    }
    rig_end(r);
}

void check_logprobs(rig *r) {
    rig_reduce reduces[2];
    const uint32_t n = rig_reduces(r, reduces);
    for (uint32_t i = 0; i < n; i++) {
        logprobs_row(r, 50, 5, &reduces[i], "less than a workgroup");
        logprobs_row(r, 300, 0, &reduces[i], "only the reported token");
        logprobs_row(r, 32003, 32, &reduces[i], "all there is room for");
    }
}
