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
/* Lanes without hardware of their own: a compiler that takes seconds over long code. */
bool is_software(const gpu *g);
/* Lanes that reduce together: within a subgroup where there are any, a power of two. */
uint32_t team_lanes(const gpu *g);

/* Adds a call to the plan; a kernel that could not be had makes the plan fail. */
void add_call(recorder *r, const gpu_source *source, const gpu_fragment *const *fragments,
              const void *consts, gpu_call call);
/* Of what a fused product reads, as floats or as signed bytes (ops_project.c). */
const gpu_fragment *act_fragment(bool q8);

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
/* Of a pass of the kind that is recorded. */
static inline uint32_t most_rows(const recorder *r) {
    return pass_rows(r->kind, r->m->shapes.batch);
}
/* The product of a pass of many rows with one part of the matrix (ops_prefill.c). */
void record_matmul(recorder *r, const product *a, uint32_t part);
/* Called for every call that is recorded: what it writes is no longer what buffers.bytes holds. */
void forget_bytes(recorder *r, const gpu_source *source, const gpu_fragment *const *fragments,
                  const gpu_call *call);
/* Whether matmul_rows makes these products, in tiles of the size of experts' and from floats, which
 * on a software GPU is faster than tiles, dot products of bytes, and matvec for several rows. */
bool matmul_takes_rows(const gpu *g);
/* Rows of x that have room side by side in buffers.bytes, whatever the kind of pass. */
uint32_t input_rows(const dp_model *m, const product *a);
/* Most rows of y in a pass of this kind: what shapes are chosen for. */
uint32_t rows_of_y(const recorder *r, const product *a);
/* Makes buffers.bytes what a product of many rows reads, unless it reads floats or this plan has
 * made it already. */
void record_input(recorder *r, const product *a);
/* The same for the product of w with h = act(gate) up of gu, instead of h, with so many rows of h
 * to a row of the pass. False: w takes floats, and nothing was done. */
bool record_activated(recorder *r, const weight *w, gpu_range h, gpu_range gu, uint32_t times);
/* The same on matrix units (ops_matrix.c), where the device has them. */
bool matrix_is_used(const dp_model *m);
void record_matrix(recorder *r, const product *a, uint32_t part);
/* Adds up what was computed into buffers.parts in parts of the columns, and finishes it. */
void record_sum(recorder *r, const product *a, const weight_part *p, uint32_t splits);

/* ---- shapes of workgroups (ops.c, tune.c) ---------------------------------------------------- */

/* How an operation may divide its work among workgroups. */
typedef struct {
    char name[TUNED_NAME_BYTES]; /* "128x64, split 2" */
    double cost;                 /* guessed; the least is what the operation has untuned */
    uint32_t which, splits;      /* in the operation's own tables */
} tuned_shape;
enum { TUNED_SHAPES = 12 };

/* An operation with the shapes that it may have, all of which compute the same. */
typedef struct {
    char key[TUNED_KEY_BYTES]; /* "project q4_k q8 3072x2048 1": kernel, formats, matrix, rows */
    uint32_t rows, cols;       /* of the matrix, or heads and keys */
    uint32_t keys;             /* that the last row sees where it is timed; 0: tuned_keys */
    gpu_range act;             /* where it writes signed bytes (act_q8), */
    uint32_t act_cols;         /* how many columns; 0: it writes none */
    tuned_shape shapes[TUNED_SHAPES]; /* by cost */
    uint32_t n;
} tuned_question;
/* Takes a shape up unless one of its name is there or TUNED_SHAPES cheaper ones. */
void tuned_offer(tuned_question *q, const tuned_shape *shape);
/* What tuning has found for it on this device, or the first. The operation's calls follow, then
 * tuned_end. */
const tuned_shape *tuned_choice(recorder *r, const tuned_question *q);
void tuned_end(recorder *r);
/* Lanes to a workgroup of an operation over rows of so many columns, in passes of many rows as
 * tuned: the first of these untuned. Its call follows, then tuned_end. */
enum { TUNED_LANES = 3 };
uint32_t tuned_lanes(recorder *r, const char *name, uint32_t cols,
                     const uint32_t lanes[TUNED_LANES]);
/* Keys that the last row sees where attention in spans is tuned: a power of two, so that contexts
 * that are nearly alike share what was found. */
uint32_t tuned_keys(const shapes *s);

/* What decides instead while a pass is recorded to tune: tune.c, which begins with this. */
struct tuner {
    const tuned_shape *(*choose)(recorder *r, const tuned_question *q);
    bool takes; /* the calls to come; others are left out */
};

#endif
