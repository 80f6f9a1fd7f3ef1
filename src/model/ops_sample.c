/* ops_sample: the sampler: one dispatch per step of it. */
#include "model/ops_internal.h"

void op_sample_scan(recorder *r) {
    const buffers *b = &r->m->buffers;
    add_call(r, &sample_scan_source, (const gpu_fragment *[]){ &sampler_state_part },
             &(sample_scan_consts){ .vocab = r->m->config.vocab_size, .chunk = SAMPLE_CHUNK },
             (gpu_call){
                 .bind = { [0] = b->samplers,
                           [SAMPLE_SCAN_LOGITS] = b->logits,
                           [SAMPLE_SCAN_ROWS] = b->rows,
                           [SAMPLE_SCAN_PICK] = b->pick,
                           [SAMPLE_SCAN_COUNTS] = b->counts,
                           [SAMPLE_SCAN_Z] = b->z,
                           [SAMPLE_SCAN_BEST] = b->best },
                 .groups = { { .times = r->m->shapes.n_chunks }, { .size = SIZE_OUT } },
             });
}

void op_sample_select(recorder *r) {
    const buffers *b = &r->m->buffers;
    const sample_select_consts consts = {
        .vocab = r->m->config.vocab_size,
        .chunks = r->m->shapes.n_chunks,
        .wg = SELECT_LANES,
        .team = team_lanes(r->m->gpu),
    };
    add_call(r, &sample_select_source,
             (const gpu_fragment *[]){ &sampler_state_part, reduce_fragment(r->m->gpu) }, &consts,
             (gpu_call){
                 .bind = { [0] = b->samplers,
                           [SAMPLE_SELECT_Z] = b->z,
                           [SAMPLE_SELECT_BEST] = b->best,
                           [SAMPLE_SELECT_ROWS] = b->rows,
                           [SAMPLE_SELECT_PICK] = b->pick },
                 .groups = { { 0 }, { .size = SIZE_OUT } },
             });
}

void op_sample_draw(recorder *r) {
    const buffers *b = &r->m->buffers;
    add_call(r, &sample_draw_source, (const gpu_fragment *[]){ &sampler_state_part },
             &(sample_draw_consts){ .vocab = r->m->config.vocab_size, .chunk = SAMPLE_CHUNK },
             (gpu_call){
                 .bind = { [0] = b->samplers,
                           [SAMPLE_DRAW_Z] = b->z,
                           [SAMPLE_DRAW_ROWS] = b->rows,
                           [SAMPLE_DRAW_PICK] = b->pick,
                           [SAMPLE_DRAW_BEST] = b->best },
                 .groups = { { .times = r->m->shapes.n_chunks }, { .size = SIZE_OUT } },
             });
}

void op_sample_finish(recorder *r) {
    const buffers *b = &r->m->buffers;
    const sample_finish_consts consts = {
        .vocab = r->m->config.vocab_size,
        .chunks = r->m->shapes.n_chunks,
    };
    add_call(r, &sample_finish_source, (const gpu_fragment *[]){ &sampler_state_part }, &consts,
             (gpu_call){
                 .bind = { [0] = b->samplers,
                           [SAMPLE_FINISH_BEST] = b->best,
                           [SAMPLE_FINISH_PICK] = b->pick,
                           [SAMPLE_FINISH_STOPS] = b->stops,
                           [SAMPLE_FINISH_SIZES] = b->sizes,
                           [SAMPLE_FINISH_ROWS] = b->rows,
                           [SAMPLE_FINISH_COUNTS] = b->counts,
                           [SAMPLE_FINISH_ANSWER] = b->answer },
                 .groups = { { 0 }, { .size = SIZE_OUT } },
             });
}

void op_logprobs(recorder *r) {
    const buffers *b = &r->m->buffers;
    const logprobs_consts consts = {
        .vocab = r->m->config.vocab_size,
        .wg = SELECT_LANES,
        .team = team_lanes(r->m->gpu),
    };
    add_call(r, &logprobs_source, (const gpu_fragment *[]){ reduce_fragment(r->m->gpu) }, &consts,
             (gpu_call){
                 .bind = { [LOGPROBS_LOGITS] = b->logits,
                           [LOGPROBS_ANSWER] = b->answer,
                           [LOGPROBS_SIZES] = b->sizes,
                           [LOGPROBS_PROBS] = b->probs },
                 .groups = { { 0 }, { .size = SIZE_OUT } },
             });
}
