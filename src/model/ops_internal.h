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
/* A range to bind where a kernel has nothing to read. */
gpu_range or_none(const dp_model *m, const vector *v);

#endif
