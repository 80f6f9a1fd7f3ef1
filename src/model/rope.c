/* rope: the frequencies of rotary positions (Su et al. 2021) under every scaling rule that models
 * use.
 *
 * Worked out in double and kept as the single precision that the reference implementation keeps, so
 * that no kernel knows of scaling: kernels see a table of angles. Sources: transformers'
 * modeling_rope_utils; Peng et al. 2023 (YaRN), Ding et al. 2024 (LongRoPE). */
#include "model/model.h"

#include <math.h>

static const double PI = 3.14159265358979323846;

bool rope_scaling_by_name(str name, rope_scaling_kind *kind) {
    static const struct {
        const char *name;
        rope_scaling_kind kind;
    } names[] = {
        { "default", SCALING_NONE },  { "none", SCALING_NONE }, { "linear", SCALING_LINEAR },
        { "llama3", SCALING_LLAMA3 }, { "yarn", SCALING_YARN }, { "dynamic", SCALING_DYNAMIC },
        { "longrope", SCALING_LONG }, { "su", SCALING_LONG },
    };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (str_is(name, names[i].name)) {
            *kind = names[i].kind;
            return true;
        }
    }
    return false;
}

const char *rope_scaling_fault(const rope_scaling *r) {
    if (r->kind == SCALING_LLAMA3 && !(r->high_factor > r->low_factor)) {
        return "high_freq_factor is not above low_freq_factor";
    }
    if (r->kind == SCALING_YARN && !(r->theta > 1)) {
        return "rope_theta is not above 1, which YaRN needs";
    }
    if (r->kind == SCALING_LONG && (r->short_factors == NULL || r->long_factors == NULL)) {
        return "longrope without its short and long factors";
    }
    if (r->kind == SCALING_LONG && !(r->original_context > 1)) {
        return "longrope without its original context";
    }
    return NULL;
}

/* Which dimension of the table turns `beta` times over the original context (YaRN, eq. 17). */
static double yarn_dimension(const rope_scaling *r, double beta, uint32_t dim) {
    return dim * log(r->original_context / (beta * 2 * PI)) / (2 * log(r->theta));
}

static void yarn_frequencies(const rope_scaling *r, uint32_t dim, double *frequency) {
    double low = yarn_dimension(r, r->beta_fast, dim);
    double high = yarn_dimension(r, r->beta_slow, dim);
    if (!r->exact) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, dim - 1);
    for (uint32_t i = 0; i < dim / 2; i++) {
        const double ramp = (i - low) / (high > low ? high - low : 0.001);
        const double keep = 1 - fmin(fmax(ramp, 0), 1); /* share that is not interpolated */
        frequency[i] = frequency[i] / r->factor * (1 - keep) + frequency[i] * keep;
    }
}

void rope_llama3_divisors(const rope_scaling *r, uint32_t dim, double *divisors) {
    const double longest = r->original_context / r->low_factor;
    const double shortest = r->original_context / r->high_factor;
    for (uint32_t i = 0; i < dim / 2; i++) {
        const double wave = 2 * PI / (double)(float)(1.0 / pow(r->theta, 2.0 * i / dim));
        double divisor = 1;
        if (wave > longest) {
            divisor = r->factor;
        } else if (wave >= shortest) {
            const double smooth =
                (r->original_context / wave - r->low_factor) / (r->high_factor - r->low_factor);
            divisor = 1 / ((1 - smooth) / r->factor + smooth);
        }
        divisors[i] = (double)(float)divisor;
    }
}

double rope_formula_magnitude(const rope_scaling *r) {
    if (r->kind == SCALING_YARN && r->factor > 1) {
        return 0.1 * log(r->factor) + 1;
    }
    if (r->kind == SCALING_LONG && r->factor > 1) {
        return sqrt(1 + log(r->factor) / log(r->original_context));
    }
    return 1;
}

float rope_attention(const rope_scaling *r) {
    if (r->kind == SCALING_LONG) {
        return (float)r->magnitude;
    }
    return (float)(r->magnitude / rope_formula_magnitude(r));
}

void rope_settle(rope_scaling *r) {
    r->theta = (double)(float)r->theta;
    r->factor = (double)(float)r->factor;
    r->beta_fast = (double)(float)r->beta_fast;
    r->beta_slow = (double)(float)r->beta_slow;
    const double formula = rope_formula_magnitude(r);
    r->magnitude = r->magnitude > 0 ? r->magnitude : formula;
    const double attention = (double)rope_attention(r);
    r->magnitude = r->kind == SCALING_LONG ? attention : attention * formula;
}

void rope_frequencies(const config *c, rope_kind table, uint32_t context, double *frequency,
                      float *magnitude) {
    const rope_scaling *r = &c->rope[table];
    const uint32_t dim = c->rope_dim;
    double theta = r->theta;
    if (r->kind == SCALING_DYNAMIC && context > r->original_context && dim > 2) {
        theta *=
            pow(r->factor * context / r->original_context - (r->factor - 1), dim / (dim - 2.0));
    }
    const double *divisors = r->divisors;
    if (r->kind == SCALING_LONG) {
        divisors = context > r->original_context ? r->long_factors : r->short_factors;
    }
    for (uint32_t i = 0; i < dim / 2; i++) {
        frequency[i] = (float)(1.0 / pow(theta, 2.0 * i / dim));
        if (divisors != NULL) {
            frequency[i] /= divisors[i];
        }
        if (r->kind == SCALING_LINEAR) {
            frequency[i] /= r->factor;
        }
    }
    if (r->kind == SCALING_YARN) {
        yarn_frequencies(r, dim, frequency);
    }
    *magnitude = (float)r->magnitude;
}
