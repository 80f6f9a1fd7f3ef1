/* tune_internal: what tune.c, which measures and chooses, and tune_check.c, which runs one product
 * and holds its results against those of its first shape, share. The device's lock is held. */
#ifndef MODEL_TUNE_INTERNAL_H
#define MODEL_TUNE_INTERNAL_H

#include "model/ops_internal.h"
#include "model/pass_internal.h"

/* A product of the model (or its attention), with the shapes that it could have. */
typedef struct {
    tuned_question question;
    pass_kind kind;
    bool of_head;
    uint32_t n_calls; /* in a pass */
} tuned_product;

enum { TUNE_OUTPUTS = 4 }; /* ranges that a product writes, at most */

typedef struct {
    tuner base; /* first: the recorder knows this part */
    dp_model *m;
    const tune_options *how;
    tuned_product *list; /* [PRODUCTS_MAX] */
    size_t n;
    /* What is being recorded; NULL: products are collected, of the head or of the body. */
    const tuned_product *product;
    uint32_t shape, most, taken;
    bool of_head;
    uint32_t rows;                   /* of the latest pass */
    uint32_t *scratch;               /* CHECK_BYTES */
    uint32_t *outputs[TUNE_OUTPUTS]; /* of the first shape */
} tuning;

/* A plan of the first `most` calls of a product, in one of its shapes (tune.c). */
gpu_plan *tuning_plan(tuning *t, const tuned_product *p, uint32_t shape, uint32_t most,
                      dp_error *err) CHECK_RESULT;

/* Pages for the one sequence whose rows are measured (a session writes its own); and the pool and
 * all activations zero again, as they are where no pass has been. */
bool tuning_prepare(tuning *t, dp_error *err) CHECK_RESULT;
bool tuning_clean(const tuning *t, dp_error *err) CHECK_RESULT;
/* Uploads a pass in which the product has `most` rows if it may have so many, and says how its
 * dispatches are sized. */
bool tuning_pass(tuning *t, const tuned_product *p, uint32_t most, gpu_sizes *sizes,
                 dp_error *err) CHECK_RESULT;
/* Does this shape compute what the first one (shape 0, whose results are kept) does? */
bool tuning_check(tuning *t, const tuned_product *p, uint32_t shape, bool *right,
                  dp_error *err) CHECK_RESULT;
bool tuning_check_begin(tuning *t, dp_error *err) CHECK_RESULT; /* takes scratch */
void tuning_check_end(tuning *t);

#endif
