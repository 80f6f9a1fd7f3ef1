/* sampler: which token is drawn with which probability, worked out by sorting.
 *
 * Penalties (Keskar et al. 2019 and the OpenAI API's two), temperature, then top-k, top-p (Holtzman
 * et al. 2020) over what top-k left, min-p (Nguyen et al. 2024); ties with the last token kept are
 * kept. */
#include "ref/ref.h"

#include <math.h>
#include <stdlib.h>

void ref_adjust(double *z, const float *logits, const uint32_t *counts, const ref_sampler *s,
                size_t vocab) {
    for (size_t v = 0; v < vocab; v++) {
        double l = (double)logits[v];
        if (counts[v] & REF_SEEN) l = l > 0 ? l / (double)s->repeat : l * (double)s->repeat;
        const uint32_t n = counts[v] & ~REF_SEEN;
        if (n > 0) l -= (double)s->presence + (double)n * (double)s->frequency;
        z[v] = s->temperature > 0 ? l / (double)s->temperature : l;
    }
}

/* A token with its z, so that qsort needs no context. */
typedef struct {
    double z;
    uint32_t token;
} ranked;

static int by_falling_z(const void *a, const void *b) {
    const ranked *x = a, *y = b;
    if (x->z != y->z) return x->z > y->z ? -1 : 1;
    return x->token < y->token ? -1 : x->token > y->token;
}

double ref_distribution(double *p, uint32_t *order, const double *z, const ref_sampler *s,
                        size_t vocab) {
    ranked *list = mem_new(vocab, sizeof(ranked), "a sorted vocabulary", NULL);
    assert(list != NULL); /* a test tool: there is nothing to compare with without memory */
    for (size_t i = 0; i < vocab; i++)
        list[i] = (ranked){ z[i], (uint32_t)i };
    qsort(list, vocab, sizeof(ranked), by_falling_z);
    for (size_t i = 0; i < vocab; i++)
        order[i] = list[i].token;
    mem_free(list);

    memset(p, 0, vocab * sizeof(double));
    const double top = z[order[0]];
    if (!(s->temperature > 0)) {
        p[order[0]] = 1;
        return top;
    }
    size_t n = vocab;
    if (s->top_k > 0 && s->top_k < vocab) {
        n = s->top_k;
        while (n < vocab && z[order[n]] == z[order[n - 1]])
            n++;
    }
    if (s->top_p > 0 && s->top_p < 1) {
        double all = 0, sum = 0;
        for (size_t i = n; i-- > 0;)
            all += exp(z[order[i]] - top);
        size_t kept = 0;
        while (kept < n && sum < (double)s->top_p * all)
            sum += exp(z[order[kept++]] - top);
        while (kept < n && z[order[kept]] == z[order[kept - 1]])
            kept++;
        n = kept;
    }
    while (s->min_p > 0 && n > 1 && z[order[n - 1]] < top + log((double)s->min_p))
        n--;
    double all = 0;
    for (size_t i = n; i-- > 0;)
        all += exp(z[order[i]] - top);
    for (size_t i = 0; i < n; i++)
        p[order[i]] = exp(z[order[i]] - top) / all;
    return z[order[n - 1]];
}

/* Jarzynski and Olano, "Hash functions for GPU rendering" (2020), listing of pcg4d; first word. */
uint32_t ref_random(const ref_sampler *s, uint32_t v) {
    uint32_t x[4] = { v, s->draws, s->seed_low, s->seed_high };
    for (int i = 0; i < 4; i++)
        x[i] = x[i] * 1664525u + 1013904223u;
    for (int round = 0; round < 2; round++) {
        x[0] += x[1] * x[3];
        x[1] += x[2] * x[0];
        x[2] += x[0] * x[1];
        x[3] += x[1] * x[2];
        for (int i = 0; i < 4 && round == 0; i++)
            x[i] ^= x[i] >> 16;
    }
    return x[0];
}

double ref_log_exponential(uint32_t r) {
    const double u = ((double)r + 0.5) / 4294967296.0;
    return log(-log1p(-u));
}

void ref_logprobs(double *p, const float *logits, size_t vocab) {
    double top = -INFINITY, sum = 0;
    for (size_t i = 0; i < vocab; i++)
        top = fmax(top, (double)logits[i]);
    for (size_t i = 0; i < vocab; i++)
        sum += exp((double)logits[i] - top);
    for (size_t i = 0; i < vocab; i++)
        p[i] = (double)logits[i] - top - log(sum);
}
