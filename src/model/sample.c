/* sample: one step of the sampler as plans: greedy (the best of the adjusted logits), sampled (any
 * sampler setting, also greedy ones in the same batch), and the logarithms of probabilities. */
#include "model/model.h"

static bool record_plan(dp_model *m, gpu_plan **plan, void (*record)(recorder *r), dp_error *err) {
    *plan = gpu_plan_new(m->gpu, err);
    recorder r = { .m = m, .plan = *plan, .role = "sampler", .err = err };
    if (*plan != NULL) {
        record(&r);
    }
    return *plan != NULL;
}

static void record_greedy(recorder *r) {
    op_sample_scan(r, false);
    op_sample_finish(r, r->m->buffers.best);
}

static void record_sampled(recorder *r) {
    op_sample_scan(r, true);
    op_sample_draw(r);
    op_sample_select(r);
    op_sample_finish(r, r->m->buffers.won);
}

bool sample_record(dp_model *m, dp_error *err) {
    return record_plan(m, &m->greedy, record_greedy, err) &&
           record_plan(m, &m->sampled, record_sampled, err) &&
           record_plan(m, &m->logprobs, op_logprobs, err);
}
