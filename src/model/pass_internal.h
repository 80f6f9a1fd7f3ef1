/* pass_internal: what batch.c and steps.c share: a pass being filled, uploaded and encoded. The
 * device's lock is held throughout. */
#ifndef MODEL_PASS_INTERNAL_H
#define MODEL_PASS_INTERNAL_H

#include "model/model.h"

enum { IGNORE_STOPS = 1, WATCH = 2 }; /* in sizes.z, as in sample_finish.wgsl and watch.wgsl */

/* The pass being filled; the arrays are the model's. */
typedef struct {
    dp_model *m;
    uint32_t n_rows, n_out, n_tiles;
    uint32_t longest;             /* keys that the last position sees */
    uint64_t keys;                /* that all rows see together */
    bool watched;                 /* the rows count in buffers.watched */
    uint32_t saved[SESSIONS_MAX]; /* slot whose last logits are wanted row i; UINT32_MAX: none's */
} pass;

void pass_begin(pass *p, dp_model *m);
void pass_add_row(pass *p, dp_token token, uint32_t place, uint32_t pos);
/* Wants the logits of the newest row; they become the slot's unless it is UINT32_MAX. */
void pass_want(pass *p, uint32_t place);
/* Ends the chain of steps that was going on in the model's buffers, and writes the pass there. */
bool pass_upload(const pass *p, uint32_t flags, uint32_t n_best, dp_error *err) CHECK_RESULT;
gpu_sizes pass_sizes(const pass *p); /* what its dispatches are sized by */
bool pass_encode(const pass *p, gpu_encoder **e, dp_error *err) CHECK_RESULT;
/* Logits of the pass to where the slots keep theirs. Until the call has succeeded a slot has none:
 * they may be those of tokens that are not kept. */
void pass_save(const pass *p, gpu_encoder *e);
/* And back, for the sampler. */
void pass_restore(const pass *p, gpu_encoder *e);
gpu_range logits_row(gpu_range rows, const dp_model *m, uint32_t i);

/* Makes the slot's occurrence counts anew from the session's tokens, if they are not right. */
bool recount(dp_session *s, dp_error *err) CHECK_RESULT;

/* Something else is about to use the model's buffers: what the chain has there is kept (steps.c).
 */
bool chain_settle(dp_model *m, dp_error *err) CHECK_RESULT;

#endif
