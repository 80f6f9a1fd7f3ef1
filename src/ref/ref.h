/* ref: what the kernels are measured against. Needs base, format; pass.c and check*.c also gpu and
 * model, whose work they check.
 *
 * Every operation of the pass and of the sampler once more in plain C: double precision, no tricks,
 * the formula of the paper in its letters. Weights stay the f32 that the file's format decodes to,
 * everything else is double, row-major. Only tests and the program's `check` are linked with this
 * layer, never the library. */
#ifndef REF_REF_H
#define REF_REF_H

#include "format/format.h"

/* ---- operations (ref.c); outputs never overlap inputs -------------------------------------- */

/* y[r, :] = x[r, :] / sqrt(mean(x[r, :]^2) + eps) * w; x, y [rows, dim], w [dim]. */
void ref_norm(double *y, const double *x, const float *w, size_t rows, size_t dim, double eps);
/* y[r, :] = (x[r, :] - m) / sqrt(mean((x[r, :] - m)^2) + eps) * w + b, m = mean(x[r, :]). */
void ref_layer_norm(double *y, const double *x, const float *w, const float *b, size_t rows,
                    size_t dim, double eps);
/* y[t, r] = W[r, :] . x[t, :] + b[r]; W [rows, cols], x [n, cols], y [n, rows]; bias may be NULL.
 */
void ref_matmul(double *y, const float *w, const float *bias, const double *x, size_t n,
                size_t rows, size_t cols);
/* Turns the pairs (i, i + rope_dim / 2) of n_heads heads in place: x [n_heads, head_dim], angles
 * [rope_dim / 2] (cos, sin). */
void ref_rope(double *x, const double (*angles)[2], size_t n_heads, size_t head_dim,
              size_t rope_dim);
/* What attention sees: keys and values [n, stride] with head_dim used; `first`: keys before it are
 * hidden by the window. */
typedef struct {
    const double *k, *v;
    size_t n, first, stride, head_dim;
    double scale;
    double softcap;    /* scores z become softcap tanh(z / softcap); 0: they stay */
    const float *sink; /* one more logit, without a value; NULL: none */
} ref_keys;
/* y = softmax(q . k_j scale) v of one head; q, y [head_dim]; scores [n] is scratch and holds the
 * probabilities afterwards (0 for hidden keys; what is missing to 1 is the sink's). */
void ref_attend(double *y, const double *q, const ref_keys *keys, double *scores);
/* z = cap tanh(z / cap), [n]. */
void ref_softcap(double *z, size_t n, double cap);
double ref_silu(double z); /* z / (1 + exp(-z)) */
double ref_gelu(double z); /* the tanh form: z / 2 (1 + tanh(sqrt(2 / pi) (z + 0.044715 z^3))) */
/* The gates of feed-forward networks: h = silu(g) u, h = gelu(g) u, and GPT-OSS's with g cut above
 * and u on both sides at `limit`: h = g / (1 + exp(-alpha g)) (u + 1); all [n]. */
void ref_glu(double *h, const double *g, const double *u, size_t n);
void ref_gelu_glu(double *h, const double *g, const double *u, size_t n);
void ref_swiglu_clamped(double *h, const double *g, const double *u, size_t n, double alpha,
                        double limit);
/* The n_used experts of one token: the largest logits, falling, of equal ones the lower first;
 * weights: scale exp(l) over the sum of exp(l) over the chosen ones if `normalise`, else over all.
 * logits [n_experts]; experts, weights [n_used]. */
void ref_route(uint32_t *experts, double *weights, const double *logits, uint32_t n_experts,
               uint32_t n_used, bool normalise, double scale);
/* x += scale * sum_k weights[k] y[k, :]; x [dim], y [n_used, dim]. */
void ref_combine(double *x, const double *weights, const double *y, size_t n_used, size_t dim,
                 double scale);
/* First key that a query at `pos` sees. */
size_t ref_window(size_t pos, size_t window);

/* ---- the sampler (sampler.c) --------------------------------------------------------------- */

/* Twin of kernels/part/sampler_state.wgsl, which says what the fields mean. */
typedef struct {
    float temperature, top_p, min_p, repeat, presence, frequency;
    uint32_t top_k, seed_low, seed_high, draws;
    float top, floor;
} ref_sampler;
_Static_assert(sizeof(ref_sampler) == 48, "twelve words");

/* In counts: the token occurred. The bits below say how often in the answer. */
#define REF_SEEN 0x80000000u

/* z = penalised(logits) / temperature; counts [vocab] as in kernels/embed.wgsl. */
void ref_adjust(double *z, const float *logits, const uint32_t *counts, const ref_sampler *s,
                size_t vocab);
/* p [vocab]: the probability of each token to be drawn, exactly; order [vocab] is scratch and holds
 * the tokens by falling z afterwards, the lower id first on ties. Greedy: 1 for the best. Returns
 * the least z that is kept. */
double ref_distribution(double *p, uint32_t *order, const double *z, const ref_sampler *s,
                        size_t vocab);
/* The random numbers of token v in the s->draws-th draw: 32 uniform bits (pcg4d). */
uint32_t ref_random(const ref_sampler *s, uint32_t v);
/* log(-log(1 - u)), u = (r + 1/2) / 2^32: the logarithm of an exponential number. */
double ref_log_exponential(uint32_t r);
/* log p of every token under softmax(logits). */
void ref_logprobs(double *p, const float *logits, size_t vocab);

/* ---- the whole pass (pass.c) --------------------------------------------------------------- */

/* A model of any family with all weights decoded in memory: for small ones. */
typedef struct ref_model ref_model;

/* Config and tensors are found by the engine's own config_read and weights_plan. */
ref_model *ref_model_open(const char *path, dp_error *err) CHECK_RESULT;
void ref_model_close(ref_model *m);
uint32_t ref_model_vocab(const ref_model *m);
/* Logits [n, vocab_size] after each of the tokens of one sequence; RoPE whose scaling depends on
 * the context takes n for it. DP_E_MEMORY; DP_E_ARGUMENT for a token outside the vocabulary, or
 * more tokens than learned positions. */
bool ref_forward(const ref_model *m, const uint32_t *tokens, size_t n, double *logits,
                 dp_error *err) CHECK_RESULT;
/* The same, and told of every x [rows, cols] that matrices of a layer multiply; `site` numbers the
 * places as the engine's importance_site does. */
typedef void ref_watch_fn(void *user, uint32_t layer, uint32_t site, const double *x, size_t rows,
                          size_t cols);
bool ref_forward_watched(const ref_model *m, const uint32_t *tokens, size_t n, double *logits,
                         ref_watch_fn *watch, void *user, dp_error *err) CHECK_RESULT;

#endif
