/* ops_internal: what the files of operations share: which fragment fills a slot on this device, and
 * how a call comes into a plan. */
#ifndef MODEL_OPS_INTERNAL_H
#define MODEL_OPS_INTERNAL_H

#include "model/model.h"

enum {
    GRID_MAX = 65535, /* workgroups in one dimension (WebGPU's limit) */
    NORM_LANES = 256,
    SELECT_LANES = 256,
    MATMUL_TOKENS = 32, /* of a tile of matmul.wgsl */
};

/* NULL for a type that weights_plan refuses. */
const gpu_fragment *weight_fragment(dtype type);
const gpu_fragment *reduce_fragment(const gpu *g);
/* Lanes that reduce together: within a subgroup where there are any, a power of two. */
uint32_t team_lanes(const gpu *g);

/* Adds a call to the plan; a kernel that could not be had makes the plan fail. */
void add_call(recorder *r, const gpu_source *source, const gpu_fragment *const *fragments,
              const void *consts, gpu_call call);
/* What the call costs, by what it binds (cost.c). */
gpu_cost cost_of_call(const recorder *r, const gpu_source *source,
                      const gpu_fragment *const *fragments, const gpu_call *call);
/* A range to bind where a kernel has nothing to read. */
gpu_range or_none(const dp_model *m, const vector *v);

/* Matrices that follow one another in one buffer, as one. */
typedef struct {
    gpu_range range;
    dtype type;
    uint32_t rows, cols;
} weight_stack;

/* A matrix product to record: of the rows of a pass, or of pairs of a row and an expert. */
typedef struct {
    target y;
    const weight *w;
    const vector *bias;
    gpu_range x;
    uint32_t x_per; /* pairs to a row of x */
} product;
/* The product of a pass of many rows with one part of the matrix (ops_prefill.c). */
void record_matmul(recorder *r, const product *a, uint32_t part);
/* Called for every call that is recorded: what it writes is no longer what buffers.bytes holds. */
void forget_bytes(recorder *r, const gpu_source *source, const gpu_fragment *const *fragments,
                  const gpu_call *call);
/* The same on matrix units (ops_matrix.c), where the device has them. */
bool matrix_is_used(const dp_model *m);
void record_matrix(recorder *r, const product *a, uint32_t part);
/* Adds up what was computed into buffers.parts in parts of the columns, and finishes it. */
void record_sum(recorder *r, const product *a, const weight_part *p, uint32_t splits);

#endif
