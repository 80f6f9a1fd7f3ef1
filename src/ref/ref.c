/* ref: the operations of the pass, in the order in which a token meets them.
 *
 * RMSNorm (Zhang and Sennrich 2019), RoPE (Su et al. 2021), attention (Vaswani et al. 2017), SwiGLU
 * (Shazeer 2020). Sums run from left to right in double: for the sizes here their error is below
 * 1e-12 of the sum of magnitudes, nothing beside the f32 that is measured against them. */
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
              size_t rope_dim, bool interleaved) {
    for (size_t h = 0; h < n_heads; h++) {
        double *head = x + h * head_dim;
        for (size_t i = 0; i < rope_dim / 2; i++) {
            double *a = head + (interleaved ? 2 * i : i);
            double *b = interleaved ? a + 1 : a + rope_dim / 2;
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
        top = fmax(top, scores[j]);
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

void ref_glu(double *h, const double *g, const double *u, size_t n) {
    for (size_t i = 0; i < n; i++)
        h[i] = g[i] / (1 + exp(-g[i])) * u[i];
}
