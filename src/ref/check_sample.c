/* check_sample: the four kernels of the sampler, each from inputs of its own, and the logprobs.
 *
 * Several answers in one dispatch, each with its sampler, in slots and rows of another order than
 * the answers (`pick`). What a kernel selects is compared exactly where its input decides it (f32
 * in, no arithmetic), else against the exact answer with the width of its own roundings. */
#include "ref/check_internal.h"

#include <math.h>
#include <stdio.h>

enum { ANSWERS = 6, ROWS = 9, SLOTS = 8, CHUNK = 1024, LANES = 256 };

/* What all four kernels are given. */
typedef struct {
    uint32_t vocab, chunks;
    uint32_t rows[ROWS][4], pick[ANSWERS];
    ref_sampler samplers[SLOTS];
    const ref_sampler *of[ANSWERS]; /* the sampler of each answer */
    uint32_t slot[ANSWERS];
} draws;

static draws *new_draws(rig *r, uint32_t vocab, const ref_sampler *samplers, size_t n) {
    draws *d = rig_alloc(r, 1, sizeof(*d));
    d->vocab = vocab;
    d->chunks = ceil_div(vocab, CHUNK);
    const uint32_t *slots = rig_shuffled(r, SLOTS), *rows = rig_shuffled(r, ROWS);
    for (uint32_t i = 0; i < SLOTS; i++) {
        d->samplers[i] = (ref_sampler){ .temperature = 99, .top_k = 99, .draws = 99, .top = 99 };
    }
    for (uint32_t i = 0; i < ROWS; i++)
        d->rows[i][1] = slots[i % SLOTS];
    for (uint32_t i = 0; i < ANSWERS; i++) {
        d->pick[i] = rows[i];
        d->rows[rows[i]][1] = d->slot[i] = slots[i];
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

static void scan_row(rig *r, uint32_t vocab, const char *reason) {
    if (!rig_begin(r, "sample_scan", reason, "vocab %u", vocab)) return;
    draws *d = new_draws(r, vocab, plain, ARRAY_LEN(plain));
    const float *logits = new_logits(r, vocab, 3);
    uint32_t *counts = rig_alloc(r, (size_t)SLOTS * vocab, 4);
    for (size_t i = 0; i < (size_t)SLOTS * vocab; i++) {
        counts[i] =
            (rig_below(r, 2) == 0 ? REF_SEEN : 0) | (rig_below(r, 3) == 0 ? rig_below(r, 9) : 0);
    }
    rig_output *samplers = rig_out(r, d->samplers, sizeof(d->samplers) / 4);
    rig_output *z = rig_out(r, NULL, (size_t)ANSWERS * vocab);
    rig_output *best = rig_out(r, NULL, (size_t)ANSWERS * d->chunks * 2);
    rig_call(
        r, &sample_scan_source, (const gpu_fragment *[]){ &sampler_state_part },
        &(sample_scan_consts){ .vocab = vocab, .chunk = CHUNK },
        (gpu_call){
            .bind = { samplers->range,
                      [SAMPLE_SCAN_LOGITS] = rig_numbers(r, logits, (size_t)ANSWERS * vocab, 0),
                      [SAMPLE_SCAN_ROWS] = rig_in(r, d->rows, sizeof(d->rows)),
                      [SAMPLE_SCAN_PICK] = rig_in(r, d->pick, sizeof(d->pick)),
                      [SAMPLE_SCAN_COUNTS] = rig_in(r, counts, (size_t)SLOTS * vocab * 4),
                      [SAMPLE_SCAN_Z] = z->range, [SAMPLE_SCAN_BEST] = best->range },
            .groups = { { .times = d->chunks }, { .times = ANSWERS } },
        });
    double *want = rig_alloc(r, vocab, sizeof(double));
    const bool ran = rig_run(r);
    for (uint32_t a = 0; ran && a < ANSWERS; a++) {
        const ref_sampler *s = d->of[a];
        const uint32_t *seen = counts + (size_t)d->slot[a] * vocab;
        ref_adjust(want, logits + (size_t)a * vocab, seen, s, vocab);
        for (uint32_t v = 0; v < vocab; v++) {
            /* Penalty: a quotient (2.5); then three roundings of the sum's terms; temperature: 2.5.
             */
            const double l = fabs((double)logits[(size_t)a * vocab + v]);
            const double n = (double)(seen[v] & ~REF_SEEN);
            const double terms = fmax(l, fmax(l / (double)s->repeat, l * (double)s->repeat)) +
                                 fabs((double)s->presence) + n * fabs((double)s->frequency);
            const double t = s->temperature > 0 ? (double)s->temperature : 1;
            rig_expect(r, rig_float(z, (size_t)a * vocab + v), want[v],
                       U * (2.5 + 3 + 2.5) * terms / t);
        }
        for (uint32_t c = 0; c < d->chunks; c++) { /* the best of the kernel's own z */
            uint32_t top = c * CHUNK;
            for (uint32_t v = top; v < min_u32(vocab, (c + 1) * CHUNK); v++) {
                if (rig_float(z, (size_t)a * vocab + v) > rig_float(z, (size_t)a * vocab + top))
                    top = v;
            }
            const size_t at = ((size_t)a * d->chunks + c) * 2;
            rig_bits(r, best->after[at], z->after[(size_t)a * vocab + top]);
            rig_bits(r, best->after[at + 1], top);
        }
    }
    rig_kept(r, samplers, 0, samplers->n);
    rig_end(r);
}

void check_scan(rig *r) {
    scan_row(r, 50, "less than a workgroup");
    scan_row(r, 1024, "one chunk");
    scan_row(r, 1025, "a chunk of one token");
    scan_row(r, 32003, "many chunks, the last not full");
}

/* ---- select -------------------------------------------------------------------------------- */

/* Does the kernel's floor keep what top-k and top-p ask for? Everything but top-p is exact. The
 * probabilities are cut down to multiples of 2^-30, so their sum is short by at most 2^-30 a token,
 * and carry the errors of exp, of the sum that scales them and of the product; the target is
 * rounded once. */
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
    double slack = vocab * 0x1p-30 + U * (1 + 2 * (vocab / LANES + 16));
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

static void select_row(rig *r, uint32_t vocab, double scale, double grid, const rig_reduce *reduce,
                       const ref_sampler *list, size_t n, const char *what, const char *reason) {
    char kernel[96];
    snprintf(kernel, sizeof(kernel), "sample_select %s", reduce->part->name);
    if (!rig_begin(r, kernel, reason, "%s, vocab %u, |z| %g%s", what, vocab, scale,
                   grid > 0 ? ", many ties" : "")) {
        return;
    }
    draws *d = new_draws(r, vocab, list, n);
    float *z = new_logits(r, vocab, scale);
    for (size_t i = 0; i < (size_t)ANSWERS * vocab && grid > 0; i++) {
        z[i] = (float)(grid * floor((double)z[i] / grid));
    }
    float(*best)[2] = rig_alloc(r, (size_t)ANSWERS * d->chunks, sizeof(*best));
    for (uint32_t i = 0; i < ANSWERS * d->chunks; i++)
        best[i][0] = -3e38f;
    for (size_t i = 0; i < (size_t)ANSWERS * vocab; i++) {
        const size_t at = i / vocab * d->chunks + i % vocab / CHUNK;
        best[at][0] = fmaxf(best[at][0], z[i]);
    }
    rig_output *samplers = rig_out(r, d->samplers, sizeof(d->samplers) / 4);
    const sample_select_consts consts = {
        .vocab = vocab, .chunks = d->chunks, .wg = LANES, .team = reduce->team
    };
    rig_call(r, &sample_select_source,
             (const gpu_fragment *[]){ &sampler_state_part, reduce->part }, &consts,
             (gpu_call){
                 .bind = { samplers->range,
                           [SAMPLE_SELECT_Z] = rig_in(r, z, (size_t)ANSWERS * vocab * 4),
                           [SAMPLE_SELECT_BEST] = rig_numbers(
                               r, best[0], (size_t)ANSWERS * d->chunks * 2, vocab / 3 / CHUNK * 2),
                           [SAMPLE_SELECT_ROWS] = rig_in(r, d->rows, sizeof(d->rows)),
                           [SAMPLE_SELECT_PICK] = rig_in(r, d->pick, sizeof(d->pick)) },
                 .groups = { { 0 }, { .times = ANSWERS } },
             });
    double *scratch = rig_alloc(r, 2 * (size_t)vocab, sizeof(double));
    uint32_t *order = rig_alloc(r, vocab, 4);
    enum { WORDS = sizeof(ref_sampler) / 4 };
    bool used[SLOTS] = { false };
    const bool ran = rig_run(r);
    for (uint32_t a = 0; ran && a < ANSWERS; a++) {
        const size_t at = (size_t)d->slot[a] * WORDS;
        used[d->slot[a]] = true;
        const float *own = z + (size_t)a * vocab;
        float top = own[0];
        for (uint32_t v = 0; v < vocab; v++)
            top = fmaxf(top, own[v]);
        rig_kept(r, samplers, at, WORDS - 2);
        rig_bits(r, samplers->after[at + WORDS - 2], bits_of(top));
        rig_require(
            r,
            floor_holds(d->of[a], own, vocab, rig_float(samplers, at + WORDS - 1), scratch, order),
            "the floor keeps too much or too little");
        rig_skip(r, 1);
    }
    for (uint32_t i = 0; i < SLOTS; i++) {
        if (!used[i]) rig_kept(r, samplers, (size_t)i * WORDS, WORDS);
    }
    rig_end(r);
}

void check_select(rig *r) {
    static const ref_sampler none[] = { { .temperature = 1 }, { .temperature = 0, .top_k = 5 } };
    static const ref_sampler ks[] = {
        { .temperature = 1, .top_k = 1 },  { .temperature = 1, .top_k = 2 },
        { .temperature = 1, .top_k = 40 }, { .temperature = 1, .top_k = 49 },
        { .temperature = 1, .top_k = 50 }, { .temperature = 1, .top_k = ~0u }
    };
    static const ref_sampler ps[] = {
        { .temperature = 1, .top_p = 1e-6f },  { .temperature = 1, .top_p = 0.1f },
        { .temperature = 1, .top_p = 0.5f },   { .temperature = 1, .top_p = 0.9f },
        { .temperature = 1, .top_p = 0.999f }, { .temperature = 1, .top_p = 1 }
    };
    static const ref_sampler mins[] = { { .temperature = 1, .min_p = 0.05f },
                                        { .temperature = 1, .min_p = 1 },
                                        { .temperature = 1, .min_p = 1e-4f } };
    static const ref_sampler mixed[] = {
        { .temperature = 1, .top_k = 20, .top_p = 0.8f },
        { .temperature = 1, .top_k = 3, .top_p = 0.99f, .min_p = 0.001f },
        { .temperature = 1, .top_p = 0.95f, .min_p = 0.1f },
        { .temperature = 1, .top_k = 10, .min_p = 0.02f },
    };
    static const struct {
        uint32_t vocab;
        double scale, grid;
        const char *reason;
    } shapes[] = {
        { 50, 2, 0, "a small vocabulary, both signs" },
        { 50, 2, 0.5, "ties at the threshold are kept" },
        { 5000, 1, 0, "several tokens a lane, several chunks" },
        { 128256, 3, 0, "Llama 3's vocabulary" },
    };
    const struct {
        const ref_sampler *list;
        size_t n;
        const char *name;
    } lists[] = {
        { none, ARRAY_LEN(none), "no filter" }, { ks, ARRAY_LEN(ks), "top-k" },
        { ps, ARRAY_LEN(ps), "top-p" },         { mins, ARRAY_LEN(mins), "min-p" },
        { mixed, ARRAY_LEN(mixed), "mixed" },
    };
    rig_reduce reduces[2];
    const uint32_t n = rig_reduces(r, reduces);
    for (uint32_t i = 0; i < n; i++) {
        for (size_t j = 0; j < ARRAY_LEN(shapes); j++) {
            for (size_t k = 0; k < ARRAY_LEN(lists); k++) {
                select_row(r, shapes[j].vocab, shapes[j].scale, shapes[j].grid, &reduces[i],
                           lists[k].list, lists[k].n, lists[k].name, shapes[j].reason);
            }
        }
    }
}

/* ---- draw ---------------------------------------------------------------------------------- */

/* Score of token v in the race and how far f32 may be off: z - top and the last subtraction round
 * once; u carries three roundings; log is 3 ULP, or 2^-21 near 1 (between 1/2 and 2). */
static double score_of(const ref_sampler *s, float z, uint32_t v, double *bound) {
    const uint32_t random = ref_random(s, v);
    const double u = ((double)random + 0.5) / 4294967296.0, e = -log1p(-u), le = log(e);
    const double score = (double)z - (double)s->top - le;
    double in_e = 3 * U; /* relative error of e */
    if (u >= 1e-3) in_e += (3 * U / (1 - u) + fmax(0x1p-21, 3 * U * e)) / e;
    *bound = in_e + fmax(0x1p-21, 3 * U * fabs(le)) +
             U * (fabs((double)z) + fabs((double)s->top) + 2 * fabs(le) + fabs(score));
    return score;
}

static void draw_row(rig *r, uint32_t vocab, const char *reason) {
    if (!rig_begin(r, "sample_draw", reason, "vocab %u", vocab)) return;
    static const ref_sampler list[] = {
        { .temperature = 1, .top = 20, .floor = -3e38f, .seed_low = 1, .draws = 0 },
        { .temperature = 1, .top = 9, .floor = 1, .seed_low = 7, .seed_high = 1, .draws = 1 },
        { .temperature = 0, .top = 9, .floor = -3e38f },
        { .temperature = 0.5f, .top = 9, .floor = -1, .seed_high = ~0u, .draws = 70000 },
    };
    draws *d = new_draws(r, vocab, list, ARRAY_LEN(list));
    const float *z = new_logits(r, vocab, 3);
    rig_output *samplers = rig_out(r, d->samplers, sizeof(d->samplers) / 4);
    rig_output *best = rig_out(r, NULL, (size_t)ANSWERS * d->chunks * 2);
    rig_call(r, &sample_draw_source, (const gpu_fragment *[]){ &sampler_state_part },
             &(sample_draw_consts){ .vocab = vocab, .chunk = CHUNK },
             (gpu_call){
                 .bind = { samplers->range,
                           [SAMPLE_DRAW_Z] = rig_numbers(r, z, (size_t)ANSWERS * vocab, vocab / 3),
                           [SAMPLE_DRAW_ROWS] = rig_in(r, d->rows, sizeof(d->rows)),
                           [SAMPLE_DRAW_PICK] = rig_in(r, d->pick, sizeof(d->pick)),
                           [SAMPLE_DRAW_BEST] = best->range },
                 .groups = { { .times = d->chunks }, { .times = ANSWERS } },
             });
    const bool ran = rig_run(r);
    for (uint32_t i = 0; ran && i < ANSWERS * d->chunks; i++) {
        const ref_sampler *s = d->of[i / d->chunks];
        const float *own = z + (size_t)(i / d->chunks) * vocab;
        const uint32_t first = i % d->chunks * CHUNK, last = min_u32(vocab, first + CHUNK);
        const uint32_t got = best->after[2 * (size_t)i + 1];
        double most = -INFINITY, bound = 0;
        uint32_t top = 0, n = 0;
        for (uint32_t v = first; v < last; v++) {
            if (own[v] < s->floor) continue;
            const double score =
                s->temperature > 0 ? score_of(s, own[v], v, &bound) : (double)own[v];
            if (!(s->temperature > 0)) bound = 0;
            if (n++ == 0 || score - bound > most) most = score - bound, top = v;
        }
        if (n == 0) { /* nothing of the chunk may win */
            rig_require(r, rig_float(best, 2 * (size_t)i) < -1e38f,
                        "a token below the floor takes part");
            rig_skip(r, 2);
            continue;
        }
        const bool inside = got >= first && got < last && own[got] >= s->floor;
        rig_require(r, inside, "the winner is no token of the chunk, or below the floor");
        if (!(s->temperature > 0)) {
            rig_bits(r, best->after[2 * (size_t)i], bits_of(own[top]));
            rig_bits(r, got, top);
            continue;
        }
        const double score = inside ? score_of(s, own[got], got, &bound) : 0;
        rig_require(r, score + bound >= most, "another token has the larger score");
        rig_expect(r, rig_float(best, 2 * (size_t)i), score, bound);
        rig_skip(r, 1);
    }
    rig_kept(r, samplers, 0, samplers->n);
    rig_end(r);
}

void check_draw(rig *r) {
    draw_row(r, 50, "less than a workgroup");
    draw_row(r, 1025, "a chunk of one token");
    draw_row(r, 32003, "many chunks, the last not full");
}

/* ---- finish -------------------------------------------------------------------------------- */

enum { STEPS = 64 };
static const uint32_t DONE = 0x80000000u; /* in rows[].w */

static void finish_row(rig *r, uint32_t vocab, uint32_t flags, const char *reason) {
    if (!rig_begin(r, "sample_finish", reason, "vocab %u, flags %u", vocab, flags)) return;
    static const ref_sampler any[] = { { .temperature = 1, .draws = 3 } };
    draws *d = new_draws(r, vocab, any, 1);
    const uint32_t chunks = d->chunks;
    /* Answers: the first, the last there is room for, one done before, one that meets a stop token
     * now. */
    for (uint32_t i = 0; i < ROWS; i++) {
        d->rows[i][0] = 1, d->rows[i][2] = 10 * i, d->rows[i][3] = i;
    }
    d->rows[d->pick[1]][3] = STEPS - 1;
    d->rows[d->pick[2]][3] = 5 | DONE;
    uint32_t(*best)[2] = rig_alloc(r, (size_t)ANSWERS * chunks, sizeof(*best));
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
        if (a == 0) plant = 2 * c + 1;
    }
    const uint32_t stops[] = { 3, vocab, winner[3], vocab + 1 };
    uint32_t *counts = rig_alloc(r, (size_t)SLOTS * vocab, 4);
    for (uint32_t a = 0; a < ANSWERS; a++)
        counts[(size_t)d->slot[a] * vocab + winner[a]] = REF_SEEN | a;
    const uint32_t sizes[4] = { ROWS, ANSWERS, flags, 0 };
    rig_output *samplers = rig_out(r, d->samplers, sizeof(d->samplers) / 4);
    rig_output *rows = rig_out(r, d->rows, ROWS * 4);
    rig_output *seen = rig_out(r, counts, (size_t)SLOTS * vocab);
    rig_output *answer = rig_out(r, NULL, ANSWERS * (1 + STEPS));
    const gpu_range list = rig_words(r, best[0], (size_t)ANSWERS * chunks * 2, plant);
    rig_call(r, &sample_finish_source, (const gpu_fragment *[]){ &sampler_state_part },
             &(sample_finish_consts){ .vocab = vocab, .chunks = chunks },
             (gpu_call){
                 .bind = { samplers->range, [SAMPLE_FINISH_BEST] = list,
                           [SAMPLE_FINISH_PICK] = rig_in(r, d->pick, sizeof(d->pick)),
                           [SAMPLE_FINISH_STOPS] = rig_in(r, stops, sizeof(stops)),
                           [SAMPLE_FINISH_SIZES] = rig_sizes(r, sizes),
                           [SAMPLE_FINISH_ROWS] = rows->range, [SAMPLE_FINISH_COUNTS] = seen->range,
                           [SAMPLE_FINISH_ANSWER] = answer->range },
                 .groups = { { 0 }, { .times = ANSWERS } },
             });
    if (rig_run(r)) {
        uint32_t *said = rig_alloc(r, answer->n, 4);
        memcpy(said, answer->before, answer->n * 4);
        for (uint32_t a = 0; a < ANSWERS; a++) {
            uint32_t *row = d->rows[d->pick[a]];
            if (row[3] & DONE) continue;
            const uint32_t n = ++row[3];
            said[a * (1 + STEPS)] = n;
            said[a * (1 + STEPS) + n] = winner[a];
            d->samplers[d->slot[a]].draws++;
            if (winner[a] == stops[2] && (flags & 1) == 0) {
                row[3] |= DONE;
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
    uint32_t answer[ANSWERS][1 + STEPS];
    memset(answer, 0xff, sizeof(answer)); /* a token taken from elsewhere is none */
    for (uint32_t a = 0; a < ANSWERS; a++) {
        answer[a][0] = a == 0 ? STEPS : a;
        answer[a][answer[a][0]] = a == 1 ? vocab - 1 : rig_below(r, vocab);
    }
    const uint32_t sizes[4] = { 77, ANSWERS, 0, wanted };
    rig_output *probs = rig_out(r, NULL, ANSWERS * (1 + BEST) * 2);
    const logprobs_consts consts = { .vocab = vocab, .wg = LANES, .team = reduce->team };
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
            const uint32_t token = i == 0 ? answer[a][answer[a][0]] : order[i - 1];
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
