/* check_internal: the rig that a row of the table is built in.
 *
 * A row: rig_begin, inputs and outputs, calls, rig_run, then one rig_expect (or rig_bits) for every
 * element of every output, rig_end. Outputs begin as a pattern that is a NaN, so an element that
 * was not written differs from any number; inputs are followed by the same pattern inside their
 * binding, so reading past one spoils the result. Memory of the rig_* functions lives until
 * rig_end.
 *
 * Errors are counted in U, WGSL's worst rounding of a basic operation: the unit in the last place,
 * 2^-23 of the result, as WGSL leaves the direction of rounding open. Divisions and inverseSqrt
 * cost 2.5 and 2 of them, exp(x) 3 + 2 |x|; tanh the worse of an absolute 1e-5 and what
 * sinh(x) / cosh(x) inherits from exp, (3 + 2 |x|) (1 + |tanh x|) + 4.5 |tanh x| of them, which for
 * the arguments up to 15 that kernels give it is at most 70.5, below 1e-5 (WGSL 1.0, "Floating
 * point accuracy"). */
#ifndef REF_CHECK_INTERNAL_H
#define REF_CHECK_INTERNAL_H

#include "kernels_gen.h"
#include "ref/check.h"
#include "ref/ref.h"

static const double U = 1.0 / (1 << 23);
static const double TANH_ERROR = 1e-5;

enum { RIG_OPERANDS = 16, RIG_GUARD = 256 };
#define RIG_PATTERN 0x7fc5afe5u

/* An output: what it was, what it became. */
typedef struct {
    gpu_range range; /* to bind: the words and a guard behind them */
    uint32_t *before, *after;
    size_t n; /* words */
} rig_output;

typedef struct {
    gpu *g;
    const check_options *options;
    check_walk *walk;     /* NULL: the whole table, which may wait */
    uint32_t at;          /* rows that were begun or passed over */
    uint32_t n, n_failed; /* rows so far */
    bool stopped;
    char last[96]; /* the kernel of the row before */
    /* of the row */
    char kernel[96], shape[160], problem[256];
    const char *reason;
    arena memory;
    uint64_t random;
    gpu_plan *plan;
    gpu_buffer *buffers[RIG_OPERANDS];
    uint32_t n_buffers;
    rig_output outputs[RIG_OPERANDS];
    uint32_t n_outputs;
    const uint8_t *blocks; /* of the weights made last, as a file has them */
    bool planted, ran;
    size_t compared, n_bytes; /* of all outputs */
    double error, bound;
    bool wrong;
    dp_error err; /* of the device in this row */
} rig;

/* False if the filter does not want the row. */
bool rig_begin(rig *r, const char *kernel, const char *reason, const char *shape, ...)
    PRINTF_LIKE(4, 5);
void rig_end(rig *r);

void *rig_alloc(rig *r, size_t n, size_t size); /* zeroed, never NULL: the sizes are ours */
uint32_t rig_below(rig *r, uint32_t limit);
double rig_uniform(rig *r);
double rig_normal(rig *r);
float *rig_normals(rig *r, size_t n, double scale);
uint32_t *rig_shuffled(rig *r, uint32_t n); /* 0 .. n - 1 */
double *rig_doubles(rig *r, const float *x, size_t n);

/* Weights [rows, cols] of random blocks: all codes, scales that keep |w| below about 2. `decoded`
 * gets their values in f32. */
gpu_range rig_weights(rig *r, dtype type, size_t rows, size_t cols, float **decoded);
/* The same of a quantised type, the scales of all blocks but the first at the ends of their range;
 * no weight is infinite. */
gpu_range rig_extreme_weights(rig *r, dtype type, size_t rows, size_t cols, float **decoded);
/* What |scale byte| + |low| of a weight (kernels/common/unit.wgsl) is at most in a block of a
 * quantised type. */
double rig_block_most(dtype type, const uint8_t *block);
/* Inputs: raw bytes; numbers, or words, of which PLANT_INPUT changes element `plant`. */
gpu_range rig_in(rig *r, const void *bytes, size_t size);
gpu_range rig_numbers(rig *r, const float *x, size_t n, size_t plant);
gpu_range rig_words(rig *r, const uint32_t *x, size_t n, size_t plant);
/* Is PLANT_INPUT still to be done? True once: the caller then does it. */
bool rig_plant(rig *r);
gpu_range rig_sizes(rig *r, const uint32_t sizes[4]);
/* An output of n words that begins as `before` (NULL: as the pattern). At most RIG_OPERANDS. */
rig_output *rig_out(rig *r, const void *before, size_t n);

void rig_call(rig *r, const gpu_source *source, const gpu_fragment *const *fragments,
              const void *consts, gpu_call call);
/* False if the device refused something: the row is reported by rig_end, nothing can be compared.
 */
bool rig_run(rig *r);

void rig_expect(rig *r, float got, double want, double bound);
void rig_expect_half(rig *r, uint16_t got, double want, double bound);
void rig_bits(rig *r, uint32_t got, uint32_t want);
void rig_kept(rig *r, const rig_output *o, size_t first, size_t n); /* unchanged words */
void rig_skip(rig *r, size_t n); /* words that need no comparison of their own */
void rig_require(rig *r, bool holds, const char *problem);
float rig_float(const rig_output *o, size_t i);

/* A weight format with its fragment. */
typedef struct {
    dtype type;
    const gpu_fragment *part;
    const char *name;
} rig_format;
enum { RIG_FORMATS = 16 };
extern const rig_format rig_formats[RIG_FORMATS];

/* The reductions that the device has: tree always, subgroup where it can. Lanes to a team for both.
 */
typedef struct {
    const gpu_fragment *part;
    uint32_t team;
} rig_reduce;
uint32_t rig_reduces(const rig *r, rig_reduce out[2]);

/* What the roundings of one element of W x may add up to, w and x [cols], summed as `team` lanes of
 * matvec do it, or as matmul with 1 (check_dense.c). */
double rig_product_bound(uint32_t team, uint32_t cols, const float *w, const double *x);
/* x [n, cols] in signed bytes as quantise.wgsl makes it of n + RIG_SPARE_ROWS rows, the last of
 * which are no numbers: words [units, 3, n + RIG_SPARE_ROWS, 4]; `exact` [n, cols] gets what the
 * bytes stand for, so that a product with them has the tolerance of f32 alone; and that tolerance,
 * columns split after so many units (check_matmul.c). */
enum { RIG_SPARE_ROWS = 3 };
typedef enum { TILES_FLOATS, TILES_HALVES, TILES_BYTES, TILES_ROWS } tile_kernel;
extern const char *const rig_tile_kernels[];          /* their names */
bool rig_has_tiles(const rig *r, tile_kernel kernel); /* can the device run them? */
uint32_t *rig_bytes(rig *r, const float *x, size_t n, uint32_t cols, double *exact);
double rig_bytes_bound(dtype type, uint32_t cols, uint32_t split_units, const float *w,
                       const double *x);
/* The same of a product in half floats (check_matmul.c), with weights as the tile has them. */
double rig_halves_bound(uint32_t cols, uint32_t split_units, const float *w, const double *x);
/* Of each token every so-manieth column, others from token to token, and no number smaller than 1:
 * what rounding to 11 bits may cost grows with every product, a wrong weight does not. The first
 * four columns, where a fault may be planted in rows of floats, are there for few tokens too. */
float *rig_sparse(rig *r, uint32_t n, uint32_t cols);
/* Calls one of the kernels by the tile that expert_group makes pairs for; groups[0] counts rows
 * of W. */
void rig_pair_tiles(rig *r, const rig_format *f, tile_kernel kernel, const matmul_consts *how,
                    gpu_call call);
/* Relative error of a norm's sum of squares, in U: a square, 4 additions of a dot product, those of
 * a lane, of the tree and of the teams; and of the normalised number: the root halves that together
 * with the mean's division (2.5) and the addition of eps (1), then inverseSqrt (2) and two products
 * (check_dense.c). */
double rig_squares_error(uint32_t dim, uint32_t lanes, uint32_t team);
double rig_norm_error(double squares);
/* What LayerNorm's mean, off by up to D, does to the rest. Its sum has as many additions as that of
 * the squares, each off by U times at most the sum of magnitudes, then comes the division:
 * D = U `steps` mean(|x|). Every difference x - m is off by D and by U of itself: 2 U of the sum of
 * squares, U of the result. D itself adds D^2 to the variance, as the differences' sum is 0. */
typedef struct {
    double own;   /* relative: the differences and the deviation */
    double error; /* D / deviation: to multiply with w */
    double bias;  /* relative: adding b */
} rig_centre;
rig_centre rig_centre_of(const double *x, size_t dim, double eps, double steps);
/* The choice of a row's experts (common/chosen.wgsl), and what the weight of the k-th may be off
 * by. An exponential errs by 3 + 2 |x| U, and |x| more for the difference that is its argument; the
 * sum by its terms' errors and its additions; then the quotient (2.5) and the product (1). Below
 * 2^-126 an exponential, the quotient and the product may become zero. */
typedef struct {
    const double *logits; /* [n_experts] */
    uint32_t n_experts, n_used;
    bool normalise;
    float scale;
    uint32_t lanes, team;
} rig_choice;
double rig_choice_bound(const rig_choice *c, const uint32_t *experts, uint32_t k, double weight);
/* Of cap tanh(z / cap) where z is off by up to `error` (check_dense.c). */
double rig_softcap_bound(double z, double cap, double error);
/* rig_expect for an element of y (+)= scale (W x + b). `sum` is W x + b, `bound` that of W x; scale
 * 0 means that there is none, `before` is what y was or NULL for y =. */
void rig_expect_product(rig *r, float got, double sum, double bound, bool bias, float scale,
                        const uint32_t *before);

/* ---- activations (check_dense.c) ------------------------------------------------------------ */

typedef enum { RIG_SILU, RIG_GELU, RIG_CLAMPED } rig_act; /* as in activation.wgsl */
/* What quantise and halves make of their input first; none, if not gated. */
typedef struct {
    bool gated;
    rig_act act;
    bool ungated;
} rig_gate;
#define RIG_ALPHA 1.702f
#define RIG_LIMIT 7.0f
/* What input_at.wgsl makes of a row, [2, n] gate and up or [n] if ungated, and what it may be off
 * by. */
void rig_activate(rig_act kind, bool ungated, const double *both, size_t n, double *want,
                  double *bound);

/* check_dense.c, check_matmul.c, check_matrix.c, check_project.c, check_ready.c, check_experts.c,
 * check_fused_experts.c, check_rope.c, check_decode.c, check_prefill.c, check_sample.c */
void check_embed(rig *r);
void check_norm(rig *r);
void check_qk_norm(rig *r);
void check_softcap(rig *r);
void check_matvec(rig *r);
void check_matmul(rig *r);
void check_matmul_half(rig *r);
void check_matmul_rows(rig *r);
void check_quantise(rig *r);
void check_matmul_q8(rig *r);
void check_matrix(rig *r);
void check_attend_matrix(rig *r);
void check_halves(rig *r);
void check_project(rig *r);
void check_project_add(rig *r);
void check_project_glu(rig *r);
void check_ready(rig *r);
void check_glu(rig *r);
void check_watch(rig *r);
void check_router(rig *r);
void check_expert_glu(rig *r);
void check_expert_add(rig *r);
void check_route(rig *r);
void check_expert_group(rig *r);
void check_expert_matvec(rig *r);
void check_expert_matmul(rig *r);
void check_expert_combine(rig *r);
void check_rope(rig *r);
void check_decode(rig *r);
void check_prefill(rig *r);
void check_scan(rig *r);
void check_select(rig *r);
void check_draw(rig *r);
void check_finish(rig *r);
void check_logprobs(rig *r);

#endif
