/* quant_search: steps and offsets of quantised blocks by weighted least squares.
 *
 * A sub-block of 16 or 32 values becomes whole numbers q with a step and perhaps an offset: x is
 * about step q + offset. Which q are nearest depends on the step, and the step that fits best on
 * the q, so the squared error has many local minima. For each of a spread of trial steps (and ways
 * to share what the ends lose) the values are rounded and the least squares solved with these q;
 * the best pair is rounded and solved twice again. In super-blocks steps and offsets are small
 * multiples of one or two half floats. Those are chosen first by what rounding the multiples would
 * cost; then every sub-block takes the multiples near its own fit with the least true error. With
 * an offset, the two are then solved with all of that held and the multiples chosen once more.
 *
 * Four sub-blocks are worked on at once, one to a lane of a vector: no sum runs across lanes until
 * the end. All is f32 in one order of operations, so bytes are the same on every machine. */
#include "format/quant_internal.h"

#include <math.h>

enum { LANES = 4, GROUPS_MAX = QUANT_SUBS / LANES, SUB_MAX = 32, RISES = QUANT_LEVELS - 1 };

typedef float vec __attribute__((vector_size(16)));
typedef int32_t mask __attribute__((vector_size(16)));

/* ---- vectors ------------------------------------------------------------------------------- */

static vec splat(float a) {
    return (vec){ a, a, a, a };
}

static vec pick(mask m, vec yes, vec no) {
    return (vec)(((mask)yes & m) | ((mask)no & ~m));
}

static vec clamp(vec v, float low, float high) {
    for (int i = 0; i < LANES; i++)
        v[i] = v[i] < low ? low : v[i];
    for (int i = 0; i < LANES; i++)
        v[i] = v[i] > high ? high : v[i];
    return v;
}

/* Nearest whole number of a small one: floats from 2^23 on have no fraction, and adding rounds. */
static vec whole(vec v) {
    return (v + 0x1.8p23f) - 0x1.8p23f;
}

static vec inverse_of(vec v) {
    const mask some = v != 0;
    return pick(some, 1 / pick(some, v, splat(1)), splat(0));
}

static double sum_of(vec v) {
    return ((double)v[0] + (double)v[1]) + ((double)v[2] + (double)v[3]);
}

/* ---- halves -------------------------------------------------------------------------------- */

uint16_t quant_half(float x) {
    const uint16_t h = f32_to_f16(x);
    return (h & 0x7fff) == 0x7c00 ? (uint16_t)(h - 1) : h;
}

static float as_half(float x) {
    return f16_to_f32(quant_half(x));
}

/* For steps: what is not zero stays so. */
static float step_half(float step) {
    static const float least = 0x1p-24f;
    if (step != 0 && fabsf(step) < least) return step < 0 ? -least : least;
    return as_half(step);
}

/* ---- sub-blocks, four at a time ------------------------------------------------------------ */

typedef struct {
    int n;                      /* elements of a sub-block */
    vec x[SUB_MAX], w[SUB_MAX]; /* element i of each, weight of its squared error */
    vec weight;                 /* sum of w, above 0 */
    vec low, high;              /* least and largest x */
} lanes;

static void fill_lanes(lanes *s, const float *x, const float *w, int n) {
    s->n = n;
    s->weight = splat(0);
    s->low = splat(INFINITY);
    s->high = splat(-INFINITY);
    for (int i = 0; i < n; i++) {
        s->x[i] = (vec){ x[i], x[n + i], x[2 * n + i], x[3 * n + i] };
        s->w[i] = (vec){ w[i], w[n + i], w[2 * n + i], w[3 * n + i] };
        s->weight += s->w[i];
        s->low = pick(s->x[i] < s->low, s->x[i], s->low);
        s->high = pick(s->x[i] > s->high, s->x[i], s->high);
    }
}

/* The same with the other sign. */
static void mirror_lanes(lanes *s) {
    const vec low = s->low;
    for (int i = 0; i < s->n; i++)
        s->x[i] = -s->x[i];
    s->low = -s->high;
    s->high = -low;
}

/* Where trial k lies. */
static float place(const quant_format *f, int k) {
    return f->from + (f->to - f->from) * (float)k / (float)(f->trials - 1);
}

/* ---- step and offset ----------------------------------------------------------------------- */

typedef struct {
    vec step, offset;
    vec error;  /* weighted, of the least squares: rounding again can only lower it */
    vec centre; /* weighted mean of q */
    vec power;  /* sum w (q - centre)^2: what an error of the step costs if the offset follows */
} affine_fit;

/* Rounds to q = 0..top at x inverse + shift and solves for step and offset. With the remainders
 * r in units of the trial step: min over a, b of sum w (r - a q - b)^2; step = (1 + a) / inverse,
 * offset = (b - shift) / inverse. `no_positive`: offsets above 0 become 0, a is solved alone. */
static void affine_trial(const lanes *s, float top, bool no_positive, vec inverse, vec shift,
                         affine_fit *best) {
    vec q1 = splat(0), q2 = q1, r1 = q1, qr = q1, r2 = q1;
    for (int i = 0; i < s->n; i++) {
        const vec v = s->x[i] * inverse + shift, q = whole(clamp(v, 0, top));
        const vec r = v - q, wq = s->w[i] * q, wr = s->w[i] * r;
        q1 += wq;
        q2 += wq * q;
        r1 += wr;
        qr += wr * q;
        r2 += wr * r;
    }
    const vec determinant = s->weight * q2 - q1 * q1;
    const mask regular = determinant > 1e-5f * s->weight * q2; /* else all q are equal */
    const vec divisor = pick(regular, determinant, splat(1));
    vec a = pick(regular, (s->weight * qr - q1 * r1) / divisor, splat(0));
    vec b = pick(regular, (q2 * r1 - q1 * qr) / divisor, r1 / s->weight);
    vec error = r2 - a * qr - b * r1;
    if (no_positive) {
        const mask over = b > shift;
        const vec left = qr - shift * q1, alone = left * inverse_of(q2);
        const vec at_zero = r2 - shift * (2 * r1 - shift * s->weight) - alone * left;
        a = pick(over, alone, a);
        b = pick(over, shift, b);
        error = pick(over, at_zero, error);
    }
    const vec unit = 1 / inverse, step = (1 + a) * unit;
    error = error * unit * unit;
    const mask better = (error < best->error) & (step > 0);
    best->step = pick(better, step, best->step);
    best->offset = pick(better, (b - shift) * unit, best->offset);
    best->error = pick(better, error, best->error);
    best->centre = pick(better, q1 / s->weight, best->centre);
    best->power = pick(better, determinant / s->weight, best->power);
}

/* Trials spread the values over more steps than there are, or fewer. What the ends lose (or leave
 * free) is shared between them in a proportion that goes through (0, 1) by the golden section, so
 * that neighbouring trials differ. */
static affine_fit fit_affine(const lanes *s, const quant_format *f, bool no_positive) {
    const vec low = no_positive ? pick(s->low < 0, s->low, splat(0)) : s->low;
    const vec range = s->high - low;
    const mask flat = ~(range > 0);
    const vec unit = 1 / pick(flat, splat(1), range);
    affine_fit best = { .offset = low, .error = splat(INFINITY) };
    for (int k = 0; k < f->trials; k++) {
        const float steps = f->high * place(f, k), golden = 0.618034f * (float)k;
        const float lean = golden - floorf(golden);
        const vec inverse = steps * unit, shift = -low * inverse - lean * (steps - f->high);
        affine_trial(s, f->high, no_positive, inverse, shift, &best);
    }
    for (int again = 0; again < 2; again++) {
        const vec inverse = inverse_of(pick(best.step > 0, best.step, splat(1)));
        affine_trial(s, f->high, no_positive, inverse, -best.offset * inverse, &best);
    }
    best.step = pick(flat, splat(0), best.step);
    best.offset = pick(flat, low, best.offset);
    best.power = pick(flat, splat(0), best.power);
    return best;
}

/* Sums of what is left with a step and offset that a decoder may see. */
typedef struct {
    vec q1, q2;     /* sum w q, sum w q^2 */
    vec e1, qe, e2; /* sum w e, sum w q e, sum w e^2 with e = x - step q - offset */
} residue;

static residue affine_residue(const lanes *s, float top, vec step, vec offset) {
    residue left = { .q1 = splat(0) };
    const vec inverse = inverse_of(step);
    for (int i = 0; i < s->n; i++) {
        const vec y = s->x[i] - offset, q = whole(clamp(y * inverse, 0, top));
        const vec e = y - step * q, wq = s->w[i] * q, we = s->w[i] * e;
        left.q1 += wq;
        left.q2 += wq * q;
        left.e1 += we;
        left.qe += we * q;
        left.e2 += we * e;
    }
    return left;
}

static void affine_quants(const lanes *s, float top, vec step, vec offset, uint8_t *q) {
    const vec inverse = inverse_of(step);
    for (int i = 0; i < s->n; i++) {
        const vec v = whole(clamp((s->x[i] - offset) * inverse, 0, top));
        for (int k = 0; k < LANES; k++)
            q[k * s->n + i] = (uint8_t)v[k];
    }
}

/* An offset much larger than the step may lose more by its rounding than by all else: the half
 * below it is tried too, each with its own best step. */
void quant_find_offsets(const quant_format *f, const float *x, const float *w, quant_found *out) {
    lanes s;
    fill_lanes(&s, x, w, f->n);
    const affine_fit fit = fit_affine(&s, f, false);
    vec step = splat(0), offset = step, error = splat(INFINITY);
    for (int below = 0; below < 2; below++) {
        vec m = fit.offset;
        for (int i = 0; i < LANES; i++) {
            m[i] = as_half(below == 0 ? m[i] : m[i] - 0x1p-11f * fabsf(m[i]));
        }
        const vec all = (s.high - m) / f->high; /* also of equal values off a half */
        vec d = below == 0 ? pick(fit.step > 0, fit.step, all) : all;
        residue left = affine_residue(&s, f->high, d, m);
        d += left.qe * inverse_of(left.q2);
        for (int i = 0; i < LANES; i++)
            d[i] = step_half(d[i]);
        left = affine_residue(&s, f->high, d, m);
        const mask better = left.e2 < error;
        step = pick(better, d, step);
        offset = pick(better, m, offset);
        error = pick(better, left.e2, error);
    }
    affine_quants(&s, f->high, step, offset, out->q);
    memcpy(out->step, &step, sizeof(step));
    memcpy(out->offset, &offset, sizeof(offset));
}

/* ---- super-blocks of steps and offsets ----------------------------------------------------- */

/* Sub-block k has step d scale[k] and offset -dmin minimum[k]. */
typedef struct {
    float d, dmin;
    vec scale[GROUPS_MAX], minimum[GROUPS_MAX]; /* whole numbers */
    vec error[GROUPS_MAX];
    double total; /* of error */
} affine_scales;

/* The half whose multiples low..high come nearest to all `wanted`, by their cost per squared
 * difference. Tries what takes the largest one to the upper fifth of the range: below that the
 * multiples are too coarse to be improved afterwards. */
static float choose_unit(const vec *wanted, const vec *cost, int groups, float low, float high) {
    enum { TRIES = 40 };
    float extreme = 0;
    for (int g = 0; g < groups; g++) {
        for (int i = 0; i < LANES; i++) {
            if (fabsf(wanted[g][i]) > fabsf(extreme)) extreme = wanted[g][i];
        }
    }
    float best = 0;
    double least = INFINITY;
    for (int k = 0; extreme != 0 && k < (low < 0 ? 2 : 1) * TRIES; k++) {
        const float end = k < TRIES ? high : low;
        const float d = step_half(extreme / ((1.01f - 0.005f * (float)(k % TRIES)) * end));
        vec total = splat(0);
        for (int g = 0; g < groups; g++) {
            const vec off = wanted[g] - d * whole(clamp(wanted[g] / d, low, high));
            total += cost[g] * off * off;
        }
        if (sum_of(total) < least) {
            least = sum_of(total);
            best = d;
        }
    }
    return best;
}

/* The multiples near the fit that leave the least error, given d and dmin. The offset that goes
 * with a step keeps the middle of the values in place. */
static void choose_pairs(const lanes *s, const quant_format *f, const affine_fit *fit,
                         affine_scales *p, int g) {
    const float per_d = p->d != 0 ? 1 / p->d : 0, per_dmin = p->dmin != 0 ? 1 / p->dmin : 0;
    const vec near = whole(clamp(fit->step * per_d, 0, f->limit));
    p->error[g] = splat(INFINITY);
    for (int delta = -1; delta <= 1; delta++) {
        const vec scale = clamp(near + (float)delta, 0, f->limit), step = p->d * scale;
        const vec offset = fit->offset + (fit->step - step) * fit->centre;
        const vec minimum = whole(clamp(-offset * per_dmin, 0, f->limit));
        const vec error = affine_residue(s, f->high, step, -p->dmin * minimum).e2;
        const mask better = error < p->error[g];
        p->scale[g] = pick(better, scale, p->scale[g]);
        p->minimum[g] = pick(better, minimum, p->minimum[g]);
        p->error[g] = pick(better, error, p->error[g]);
    }
}

/* Least squares for changes u of d and v of dmin, all multiples and q held:
 * min sum w (e - u scale q + v minimum)^2 over all elements. */
static void solve_pairs(const lanes *s, const quant_format *f, int groups, affine_scales *p) {
    double aa = 0, ab = 0, bb = 0, ae = 0, be = 0;
    for (int g = 0; g < groups; g++) {
        const vec a = p->scale[g], b = -p->minimum[g];
        const residue left = affine_residue(&s[g], f->high, p->d * a, p->dmin * b);
        aa += sum_of(a * a * left.q2);
        ab += sum_of(a * b * left.q1);
        bb += sum_of(b * b * s[g].weight);
        ae += sum_of(a * left.qe);
        be += sum_of(b * left.e1);
    }
    const double determinant = aa * bb - ab * ab;
    double u = aa > 0 ? ae / aa : 0, v = 0;
    if (determinant > 1e-9 * aa * bb) {
        u = (bb * ae - ab * be) / determinant;
        v = (aa * be - ab * ae) / determinant;
    } else if (!(aa > 0) && bb > 0) {
        v = be / bb;
    }
    p->d = step_half((float)((double)p->d + u));
    p->dmin = as_half((float)((double)p->dmin + v));
}

static affine_scales search_pairs(const lanes *s, const quant_format *f, int groups) {
    enum { ROUNDS = 2 };
    affine_fit fit[GROUPS_MAX];
    vec steps[GROUPS_MAX], minima[GROUPS_MAX], step_cost[GROUPS_MAX], minimum_cost[GROUPS_MAX];
    for (int g = 0; g < groups; g++) {
        fit[g] = fit_affine(&s[g], f, true);
        steps[g] = fit[g].step;
        minima[g] = -fit[g].offset;
        step_cost[g] = fit[g].power;
        minimum_cost[g] = s[g].weight;
    }
    affine_scales now = { .d = choose_unit(steps, step_cost, groups, 0, f->limit),
                          .dmin = choose_unit(minima, minimum_cost, groups, 0, f->limit) };
    affine_scales best = { .total = INFINITY };
    for (int round = 0; round < ROUNDS; round++) {
        now.total = 0;
        for (int g = 0; g < groups; g++) {
            choose_pairs(&s[g], f, &fit[g], &now, g);
            now.total += sum_of(now.error[g]);
        }
        if (!(now.total < best.total)) break;
        best = now;
        if (round + 1 < ROUNDS) solve_pairs(s, f, groups, &now);
    }
    return best;
}

/* With d and dmin above 0 offsets are never positive, below 0 never negative. Sub-blocks of
 * positive numbers alone want the latter, so both are tried: the search runs on -x too. */
void quant_find_pairs(const quant_format *f, const float *x, const float *w, quant_found *out) {
    const int groups = QUANT_UNIT / LANES / f->n;
    lanes s[GROUPS_MAX] = { 0 };
    bool one_sided = false;
    for (int g = 0; g < groups; g++) {
        fill_lanes(&s[g], x + LANES * f->n * g, w + LANES * f->n * g, f->n);
        for (int k = 0; k < LANES; k++)
            one_sided |= s[g].low[k] > 0;
    }
    affine_scales best = search_pairs(s, f, groups);
    if (one_sided) {
        for (int g = 0; g < groups; g++)
            mirror_lanes(&s[g]);
        const affine_scales other = search_pairs(s, f, groups);
        one_sided = other.total < best.total;
        if (one_sided) best = other;
        for (int g = 0; g < groups && !one_sided; g++)
            mirror_lanes(&s[g]);
    }
    for (int g = 0; g < groups; g++) {
        affine_quants(&s[g], f->high, best.d * best.scale[g], -best.dmin * best.minimum[g],
                      out->q + LANES * f->n * g);
        for (int k = 0; k < LANES; k++) {
            out->scale[LANES * g + k] = (int)best.scale[g][k];
            out->minimum[LANES * g + k] = (int)best.minimum[g][k];
        }
    }
    out->d = one_sided ? -best.d : best.d;
    out->dmin = one_sided ? -best.dmin : best.dmin;
}

/* ---- step alone ---------------------------------------------------------------------------- */

typedef struct {
    float low, high;
    bool listed;
    vec edge[RISES], rise[RISES]; /* of a list: half way between neighbours, their distance */
} levels;

static void fill_levels(levels *l, const quant_format *f) {
    l->low = f->low;
    l->high = f->high;
    l->listed = f->level != NULL;
    for (int i = 0; l->listed && i < RISES; i++) {
        l->edge[i] = splat((f->level[i] + f->level[i + 1]) / 2);
        l->rise[i] = splat(f->level[i + 1] - f->level[i]);
    }
}

static vec nearest_level(const levels *l, vec v) {
    if (!l->listed) return whole(clamp(v, l->low, l->high));
    vec q = splat(l->low);
    for (int i = 0; i < RISES; i++)
        q += (vec)((mask)l->rise[i] & (v > l->edge[i]));
    return q;
}

/* How many levels lie below that of v. */
static vec level_index(const levels *l, vec v) {
    if (!l->listed) return whole(clamp(v, l->low, l->high)) - l->low;
    vec index = splat(0);
    for (int i = 0; i < RISES; i++)
        index += pick(v > l->edge[i], splat(1), splat(0));
    return index;
}

typedef struct {
    vec step;  /* of either sign */
    vec error; /* weighted, of the least squares */
    vec power; /* sum w q^2 */
} signed_fit;

/* As affine_trial, without offset: min over a of sum w (r - a q)^2. */
static void signed_trial(const lanes *s, const levels *l, vec inverse, signed_fit *best) {
    vec q2 = splat(0), qr = q2, r2 = q2;
    for (int i = 0; i < s->n; i++) {
        const vec v = s->x[i] * inverse, q = nearest_level(l, v);
        const vec r = v - q, wq = s->w[i] * q;
        q2 += wq * q;
        qr += wq * r;
        r2 += s->w[i] * r * r;
    }
    const vec a = qr * inverse_of(q2), unit = inverse_of(inverse);
    const vec error = (r2 - a * qr) * unit * unit;
    const mask better = error < best->error;
    best->step = pick(better, (1 + a) * unit, best->step);
    best->error = pick(better, error, best->error);
    best->power = pick(better, q2, best->power);
}

/* Trials take the value of largest size to the level `end` and around it: one end of the levels
 * reaches further than the other, so both are tried. */
static signed_fit fit_signed(const lanes *s, const quant_format *f, const levels *l, float end) {
    const vec unit = inverse_of(pick(s->high > -s->low, s->high, s->low));
    signed_fit best = { .error = splat(INFINITY) };
    for (int k = 0; k < f->trials; k++)
        signed_trial(s, l, place(f, k) * end * unit, &best);
    for (int again = 0; again < 2; again++)
        signed_trial(s, l, inverse_of(best.step), &best);
    return best;
}

/* sum w (x - step q)^2 with the step that a decoder will see. */
static vec signed_error(const lanes *s, const levels *l, vec step) {
    const vec inverse = inverse_of(step);
    vec error = splat(0);
    for (int i = 0; i < s->n; i++) {
        const vec e = s->x[i] - step * nearest_level(l, s->x[i] * inverse);
        error += s->w[i] * e * e;
    }
    return error;
}

static void signed_quants(const lanes *s, const levels *l, vec step, uint8_t *q) {
    const vec inverse = inverse_of(step);
    for (int i = 0; i < s->n; i++) {
        const vec index = level_index(l, s->x[i] * inverse);
        for (int k = 0; k < LANES; k++)
            q[k * s->n + i] = (uint8_t)index[k];
    }
}

/* Both ends and no step at all, by what a decoder will see: a list of levels may lack zero. */
void quant_find_steps(const quant_format *f, const float *x, const float *w, quant_found *out) {
    lanes s;
    levels l;
    fill_levels(&l, f);
    fill_lanes(&s, x, w, f->n);
    const vec fits[3] = { fit_signed(&s, f, &l, l.low).step, fit_signed(&s, f, &l, l.high).step };
    vec step = splat(0), error = splat(INFINITY);
    for (int k = 0; k < 3; k++) {
        vec d = fits[k];
        for (int i = 0; i < LANES; i++)
            d[i] = step_half(d[i]);
        const vec left = signed_error(&s, &l, d);
        const mask better = left < error;
        step = pick(better, d, step);
        error = pick(better, left, error);
    }
    signed_quants(&s, &l, step, out->q);
    memcpy(out->step, &step, sizeof(step));
}

/* ---- super-blocks of signed steps ---------------------------------------------------------- */

/* The multiples near the fits of either sign that leave the least error, given d. */
static vec choose_scales(const lanes *s, const levels *l, const vec fit[2], float limit, float d) {
    const float per_d = d != 0 ? 1 / d : 0;
    vec best = splat(0), least = splat(INFINITY);
    for (int k = 0; k < 4; k++) { /* the better fit and its neighbours, then the other one */
        const vec near = whole(clamp(fit[k / 3] * per_d, -limit, limit));
        const vec scale = clamp(k < 3 ? near + (float)(k - 1) : near, -limit, limit - 1);
        const vec error = signed_error(s, l, d * scale);
        const mask better = error < least;
        best = pick(better, scale, best);
        least = pick(better, error, least);
    }
    return best;
}

/* Solving d again and choosing once more gains less than a part in a thousand here: the multiples
 * are finer than those of pairs. */
void quant_find_scales(const quant_format *f, const float *x, const float *w, quant_found *out) {
    const int groups = QUANT_UNIT / LANES / f->n;
    lanes s[GROUPS_MAX];
    levels l;
    vec fit[GROUPS_MAX][2], steps[GROUPS_MAX] = { { 0 } }, cost[GROUPS_MAX] = { { 0 } };
    fill_levels(&l, f);
    for (int g = 0; g < groups; g++) {
        fill_lanes(&s[g], x + LANES * f->n * g, w + LANES * f->n * g, f->n);
        const signed_fit down = fit_signed(&s[g], f, &l, l.low);
        const signed_fit up = fit_signed(&s[g], f, &l, l.high);
        const mask better = down.error < up.error;
        fit[g][0] = steps[g] = pick(better, down.step, up.step);
        fit[g][1] = pick(better, up.step, down.step);
        cost[g] = pick(better, down.power, up.power);
    }
    out->d = choose_unit(steps, cost, groups, -f->limit, f->limit - 1);
    for (int g = 0; g < groups; g++) {
        const vec scale = choose_scales(&s[g], &l, fit[g], f->limit, out->d);
        signed_quants(&s[g], &l, out->d * scale, out->q + LANES * f->n * g);
        for (int k = 0; k < LANES; k++) {
            out->scale[LANES * g + k] = (int)scale[k] + (int)f->limit;
        }
    }
}
