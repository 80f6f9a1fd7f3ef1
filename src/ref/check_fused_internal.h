/* check_fused: what the checks of fused products and of what makes their input share (fused_rig.c).
 *
 * A reference value goes with what the device's may differ from it by: running error analysis
 * (Higham 2002, 3.3), every operation erring by U times its result. Input in signed bytes is made
 * here, and the reference multiplies exactly the numbers that those bytes stand for. */
#ifndef DP_REF_CHECK_FUSED_INTERNAL_H
#define DP_REF_CHECK_FUSED_INTERNAL_H

#include "ref/check_internal.h"

enum { UNIT_COLS = 32, HALF_COLS = 16 };

/* ---- numbers with their errors ------------------------------------------------------------- */

typedef struct {
    double v, error;
} approx;

approx approx_of(double v); /* exactly */
approx approx_add(approx a, approx b);
approx approx_mul(approx a, approx b);
void approx_expect(rig *r, const rig_output *o, size_t i, approx want);

/* ---- products ------------------------------------------------------------------------------ */

/* How a workgroup shares the rows of W: rows to a team, teams to a row, lanes to a team; steps
 * whose loads come first; sets of lanes that share the rows of x, FEW_ROWS to a lane at most;
 * turns that a team takes with one row of x. */
typedef struct {
    const rig_reduce *reduce;
    uint32_t rows, split, ahead, wg, team, sets, turns;
} team_shape;

/* The shape with `group` rows of W to a workgroup, for up to `tokens` rows of x; on a device of few
 * lanes teams are split less and smaller. */
team_shape fused_shape(const rig *r, const rig_reduce *reduce, const team_shape *wanted,
                       uint32_t group, uint32_t tokens);
bool fused_is_shared(const rig *r, const team_shape *s);
/* Whether a case is run with this reduction, in this turn: sums by turns, pipelines are what costs
 * time; those of teams of fewer lanes than a subgroup by both. */
bool fused_is_run(const team_shape *wanted, size_t reduce, size_t turn);
uint32_t fused_group_rows(const team_shape *s);

/* W [rows, cols] of one type: on the device, decoded, as a file has it. */
typedef struct {
    dtype type;
    uint32_t rows, cols;
    gpu_range range;
    float *decoded;
    const uint8_t *blocks;
} fused_weights;
fused_weights fused_matrix(rig *r, const rig_format *f, uint32_t rows, uint32_t cols, bool extreme);
/* Block of the weights' type that holds a unit of a row. */
const uint8_t *fused_block(const fused_weights *m, uint32_t row, uint32_t unit);
const rig_format *fused_format(dtype type);

/* x [n, cols]: on the device as floats or bytes, and what it is. */
typedef struct {
    bool q8;
    gpu_range range;
    const double *x;
} fused_input;
fused_input fused_floats(rig *r, uint32_t n, uint32_t cols);
/* `probe` not 0: the first `probed` columns have scales of this size, the rest is zero. */
fused_input fused_bytes(rig *r, uint32_t n, uint32_t cols, float probe, uint32_t probed);
gpu_range fused_sizes(rig *r, uint32_t tokens, uint32_t n, uint32_t counted);

/* W[row, :] . x[t, :] in the order of kernels/common/products.wgsl. */
approx fused_product(const team_shape *s, const fused_weights *m, uint32_t row,
                     const fused_input *in, uint32_t t);

/* ---- what stands around them ----------------------------------------------------------------- */

#define FUSED_EPS 1e-5f
/* Sums of squares as of numbers near 1, and 1 / sqrt of their mean. */
float *fused_squares(rig *r, size_t n);
approx fused_norm_scale(const float *squares, uint32_t cols, uint32_t team);

typedef enum { FORM_F32, FORM_Q8 } act_form;
extern const gpu_fragment *const fused_acts[]; /* by form */
rig_output *fused_act(rig *r, act_form form, size_t rows, size_t cols);
/* Columns 16 half .. 16 half + 15 of a row of so many units. */
void fused_expect_half(rig *r, act_form form, const rig_output *act, size_t row, size_t units,
                       size_t half, const approx v[HALF_COLS]);
/* A feed-forward network's first product: rows of W where gate and up begin; biases or NULL. */
typedef struct {
    rig_act act;
    bool ungated;
    uint32_t ffn, gate, up;
    const float *gate_bias, *up_bias;
} fused_ffn;
/* Row `row` of act: h of row t of x, whose norm's scale is given. */
void fused_expect_hidden(rig *r, act_form form, const fused_ffn *f, const team_shape *s,
                         const fused_weights *m, const fused_input *in, uint32_t t, approx scale,
                         const rig_output *act, uint32_t row);
/* What row t of the stream, x [dim], leaves for the next block. */
void fused_expect_next(rig *r, act_form form, uint32_t dim, uint32_t t, const approx *x,
                       const float *w, const rig_output *squares, const rig_output *act);

#endif
