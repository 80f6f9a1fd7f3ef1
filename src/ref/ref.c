/* ref: the operations of the pass, in the order in which a token meets them.
 *
 * RMSNorm (Zhang and Sennrich 2019), LayerNorm (Ba et al. 2016), RoPE (Su et al. 2021), attention
 * (Vaswani et al. 2017) with soft caps (Gemma Team 2024) and sinks (Xiao et al. 2023), GELU
 * (Hendrycks and Gimpel 2016), SwiGLU (Shazeer 2020), experts (Shazeer et al. 2017). Sums run from
 * left to right in double: for the sizes here their error is below 1e-12 of the sum of magnitudes,
 * nothing beside the f32 that is measured against them. */
#include "ref/ref.h"

#include <math.h>

void ref_norm(double *y, const double *x, const float *w, size_t rows, size_t dim, double eps) {
    for (size_t r = 0; r < rows; r++) {
        double sum = 0;
        for (size_t i = 0; i < dim; i++)
            sum += x[r * dim + i] * x[r * dim + i];
        const double scale = 1 / sqrt(sum / (double)dim + eps);
        for (size_t i = 0; i < dim; i++)
            y[r * dim + i] = x[r * dim + i] * scale * (double)w[i];
    }
}

void ref_layer_norm(double *y, const double *x, const float *w, const float *b, size_t rows,
                    size_t dim, double eps) {
    for (size_t r = 0; r < rows; r++) {
        double mean = 0, sum = 0;
        for (size_t i = 0; i < dim; i++)
            mean += x[r * dim + i] / (double)dim;
        for (size_t i = 0; i < dim; i++)
            sum += (x[r * dim + i] - mean) * (x[r * dim + i] - mean);
        const double scale = 1 / sqrt(sum / (double)dim + eps);
        for (size_t i = 0; i < dim; i++)
            y[r * dim + i] = (x[r * dim + i] - mean) * scale * (double)w[i] + (double)b[i];
    }
}

void ref_matmul(double *y, const float *w, const float *bias, const double *x, size_t n,
                size_t rows, size_t cols) {
    for (size_t t = 0; t < n; t++) {
        for (size_t r = 0; r < rows; r++) {
            double sum = bias != NULL ? (double)bias[r] : 0;
            for (size_t i = 0; i < cols; i++)
                sum += (double)w[r * cols + i] * x[t * cols + i];
            y[t * rows + r] = sum;
        }
    }
}

void ref_rope(double *x, const double (*angles)[2], size_t n_heads, size_t head_dim,
              size_t rope_dim) {
    for (size_t h = 0; h < n_heads; h++) {
        double *head = x + h * head_dim;
        for (size_t i = 0; i < rope_dim / 2; i++) {
            double *a = head + i, *b = a + rope_dim / 2;
            const double c = angles[i][0], s = angles[i][1], first = *a, second = *b;
            *a = first * c - second * s;
            *b = second * c + first * s;
        }
    }
}

size_t ref_window(size_t pos, size_t window) {
    return window > 0 && pos + 1 > window ? pos + 1 - window : 0;
}

void ref_attend(double *y, const double *q, const ref_keys *keys, double *scores) {
    double top = -INFINITY, sum = 0;
    for (size_t j = 0; j < keys->n; j++) {
        scores[j] = -INFINITY;
        if (j < keys->first) continue;
        double s = 0;
        for (size_t d = 0; d < keys->head_dim; d++)
            s += q[d] * keys->k[j * keys->stride + d];
        scores[j] = s * keys->scale;
        if (keys->softcap > 0) ref_softcap(&scores[j], 1, keys->softcap);
        top = fmax(top, scores[j]);
    }
    if (keys->sink != NULL) {
        top = fmax(top, (double)*keys->sink);
        sum = exp((double)*keys->sink - top);
    }
    for (size_t j = 0; j < keys->n; j++) {
        scores[j] = exp(scores[j] - top);
        sum += scores[j];
    }
    memset(y, 0, keys->head_dim * sizeof(double));
    for (size_t j = keys->first; j < keys->n; j++) {
        scores[j] /= sum;
        for (size_t d = 0; d < keys->head_dim; d++)
            y[d] += scores[j] * keys->v[j * keys->stride + d];
    }
}

void ref_softcap(double *z, size_t n, double cap) {
    for (size_t i = 0; i < n; i++)
        z[i] = cap * tanh(z[i] / cap);
}

double ref_silu(double z) {
    return z / (1 + exp(-z));
}

double ref_gelu(double z) {
    const double pi = 3.14159265358979323846;
    return z / 2 * (1 + tanh(sqrt(2 / pi) * (z + 0.044715 * z * z * z)));
}

void ref_glu(double *h, const double *g, const double *u, size_t n) {
    for (size_t i = 0; i < n; i++)
        h[i] = ref_silu(g[i]) * u[i];
}

void ref_gelu_glu(double *h, const double *g, const double *u, size_t n) {
    for (size_t i = 0; i < n; i++)
        h[i] = ref_gelu(g[i]) * u[i];
}

void ref_swiglu_clamped(double *h, const double *g, const double *u, size_t n, double alpha,
                        double limit) {
    for (size_t i = 0; i < n; i++) {
        const double gate = fmin(g[i], limit), up = fmax(-limit, fmin(u[i], limit));
        h[i] = gate / (1 + exp(-alpha * gate)) * (up + 1);
    }
}

void ref_route(uint32_t *experts, double *weights, const double *logits, uint32_t n_experts,
               uint32_t n_used, bool normalise, double scale) {
    double sum = 0;
    for (uint32_t k = 0; k < n_used; k++) {
        uint32_t best = UINT32_MAX;
        for (uint32_t e = 0; e < n_experts; e++) {
            bool taken = false;
            for (uint32_t i = 0; i < k; i++)
                taken |= experts[i] == e;
            if (!taken && (best == UINT32_MAX || logits[e] > logits[best])) best = e;
        }
        assert(best != UINT32_MAX);
        experts[k] = best;
        weights[k] = exp(logits[best] - logits[experts[0]]);
        sum += weights[k];
    }
    if (!normalise) {
        sum = 0;
        for (uint32_t e = 0; e < n_experts; e++)
            sum += exp(logits[e] - logits[experts[0]]);
    }
    for (uint32_t k = 0; k < n_used; k++)
        weights[k] *= scale / sum;
}

void ref_combine(double *x, const double *weights, const double *y, size_t n_used, size_t dim,
                 double scale) {
    for (size_t d = 0; d < dim; d++) {
        double sum = 0;
        for (size_t k = 0; k < n_used; k++)
            sum += weights[k] * y[k * dim + d];
        x[d] += scale * sum;
    }
}
