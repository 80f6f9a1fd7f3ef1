/* ops_sample: the sampler: one dispatch per step of it. */
#include "model/ops_internal.h"

/* A software GPU pays for every lane at every barrier. */
static uint32_t lanes_of(const gpu *g) {
    return strcmp(gpu_info(g)->type, "cpu") == 0 ? 32 : 256;
}

void op_sample_scan(recorder *r, bool keep) {
    const buffers *b = &r->m->buffers;
    const sample_scan_consts consts = {
        .vocab = r->m->config.vocab_size,
        .chunk = SAMPLE_CHUNK,
        .found = SAMPLE_FOUND,
        .keep = keep,
        .wg = lanes_of(r->m->gpu),
        .team = team_lanes(r->m->gpu),
    };
    add_call(r, &sample_scan_source,
             (const gpu_fragment *[]){ &sampler_state_part, reduce_fragment(r->m->gpu) }, &consts,
             (gpu_call){
                 .bind = { [0] = b->samplers,
                           [SAMPLE_SCAN_LOGITS] = b->logits,
                           [SAMPLE_SCAN_ROWS] = b->rows,
                           [SAMPLE_SCAN_COUNTS] = b->counts,
                           [SAMPLE_SCAN_Z] = b->z,
                           [SAMPLE_SCAN_BEST] = b->best,
                           [SAMPLE_SCAN_FOUND] = b->found },
                 .groups = { { .times = r->m->shapes.n_chunks }, { .size = SIZE_OUT } },
             });
}

void op_sample_draw(recorder *r) {
    const buffers *b = &r->m->buffers;
    const sample_draw_consts consts = {
        .vocab = r->m->config.vocab_size,
        .chunk = SAMPLE_CHUNK,
        .chunks = r->m->shapes.n_chunks,
        .found = SAMPLE_FOUND,
        .wg = lanes_of(r->m->gpu),
        .team = team_lanes(r->m->gpu),
    };
    add_call(r, &sample_draw_source,
             (const gpu_fragment *[]){ &sampler_state_part, reduce_fragment(r->m->gpu) }, &consts,
             (gpu_call){
                 .bind = { [0] = b->samplers,
                           [SAMPLE_DRAW_Z] = b->z,
                           [SAMPLE_DRAW_ROWS] = b->rows,
                           [SAMPLE_DRAW_BEST] = b->best,
                           [SAMPLE_DRAW_WON] = b->won,
                           [SAMPLE_DRAW_FOUND] = b->found },
                 .groups = { { .times = r->m->shapes.n_chunks }, { .size = SIZE_OUT } },
             });
}

void op_sample_select(recorder *r) {
    const buffers *b = &r->m->buffers;
    const sample_select_consts consts = {
        .vocab = r->m->config.vocab_size,
        .chunks = r->m->shapes.n_chunks,
        .found = SAMPLE_FOUND,
        .wg = lanes_of(r->m->gpu),
    };
    add_call(r, &sample_select_source, (const gpu_fragment *[]){ &sampler_state_part }, &consts,
             (gpu_call){
                 .bind = { [0] = b->samplers,
                           [SAMPLE_SELECT_Z] = b->z,
                           [SAMPLE_SELECT_ROWS] = b->rows,
                           [SAMPLE_SELECT_FOUND] = b->found,
                           [SAMPLE_SELECT_WON] = b->won },
                 .groups = { { 0 }, { .size = SIZE_OUT } },
             });
}

void op_sample_finish(recorder *r, gpu_range best) {
    const buffers *b = &r->m->buffers;
    const sample_finish_consts consts = {
        .vocab = r->m->config.vocab_size,
        .chunks = r->m->shapes.n_chunks,
        .wg = lanes_of(r->m->gpu),
    };
    add_call(r, &sample_finish_source, (const gpu_fragment *[]){ &sampler_state_part }, &consts,
             (gpu_call){
                 .bind = { [0] = b->samplers,
                           [SAMPLE_FINISH_BEST] = best,
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
        .wg = lanes_of(r->m->gpu),
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
