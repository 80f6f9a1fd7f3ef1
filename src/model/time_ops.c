/* time_ops: every distinct kernel of a pass and of the sampler's step alone (gpu/time.c), over the
 * buffers as a real pass has left them. */
#include "model/model.h"

#include <stdio.h>

/* Twice the largest last-level cache of a GPU of today. */
enum { COLD_BYTES = 256 << 20 };

/* Rows that the sampler's kernels move on are evaluated anew before each of them; a row answers
 * DP_STEPS_MAX times at most. */
typedef struct {
    dp_session *session;
    const dp_token *tokens;
    size_t n;
    uint32_t before; /* tokens that the session holds besides */
    dp_op_time *ops;
    size_t max, n_ops;
} op_timer;

static bool prepare_pass(const op_timer *t, dp_error *err) {
    return dp_session_rewind(t->session, t->before, err) &&
           dp_session_eval(t->session, t->tokens, t->n, err);
}

static bool time_call(op_timer *t, gpu_plan *plan, uint32_t i, dp_phase phase, uint32_t most,
                      dp_error *err) {
    const dp_model *m = t->session->model;
    const gpu_call *call = gpu_plan_call(plan, i);
    gpu_op_time got;
    const bool cpu = strcmp(gpu_info(m->gpu)->type, "cpu") == 0;
    /* without a call the router's choices would be anything, and its readers' places with them */
    const bool in_place = most == 0 && m->config.n_experts == 0;
    const gpu_time_options how = { .sizes = m->latest.sizes,
                                   .in_place = in_place,
                                   .most = most,
                                   .cold = cpu ? 0 : COLD_BYTES,
                                   .run_ns = cpu ? 1e6 : 15e6 };
    if (!gpu_plan_time(plan, i, &how, &got, err)) return false;
    if (got.n_timed == 0) return true;
    if (t->n_ops < t->max) {
        dp_op_time *op = &t->ops[t->n_ops];
        *op = (dp_op_time){ .phase = phase,
                            .calls = got.n_alike,
                            .rows = call->cost.rows,
                            .cols = call->cost.cols,
                            .groups = { got.groups[0], got.groups[1], got.groups[2] },
                            .bytes = got.bytes,
                            .flops = got.flops,
                            .n_timed = got.n_timed,
                            .cold = got.cold,
                            .nanoseconds = got.nanoseconds,
                            .in_place_nanoseconds = got.in_place };
        snprintf(op->role, sizeof op->role, "%s", call->label != NULL ? call->label : "");
        snprintf(op->kernel, sizeof op->kernel, "%s", gpu_kernel_name(call->kernel));
    }
    t->n_ops++;
    return true;
}

static bool time_plan(op_timer *t, gpu_plan *plan, dp_phase phase, bool moves_rows, dp_error *err) {
    gpu *g = t->session->model->gpu;
    for (uint32_t i = 0; i < gpu_plan_n_calls(plan); i++) {
        if (!gpu_plan_is_first(plan, i)) continue;
        if (moves_rows && !prepare_pass(t, err)) return false;
        gpu_lock(g);
        const bool ok = time_call(t, plan, i, phase, moves_rows ? DP_STEPS_MAX : 0, err);
        gpu_unlock(g);
        if (!ok) return false;
    }
    return true;
}

bool dp_session_time_ops(dp_session *s, const dp_token *tokens, size_t n, dp_op_time *ops,
                         size_t max, size_t *n_ops, dp_error *err) {
    dp_model *m = s->model;
    *n_ops = 0;
    if (n == 0 || n > m->shapes.batch) {
        return err_set(err, DP_E_ARGUMENT, "a pass of %zu tokens: 1 to %u expected", n,
                       m->shapes.batch);
    }
    if (model_pages_experts(m)) {
        return err_set(err, DP_E_UNSUPPORTED,
                       "%s: experts are fetched during a pass: its kernels are not timed alone",
                       container_path(m->files));
    }
    op_timer t = { .session = s, .tokens = tokens, .n = n, .before = s->n, .ops = ops, .max = max };
    bool ok = prepare_pass(&t, err);
    if (ok) {
        const dp_phase phase = pass_is_prefill(m->latest.kind) ? DP_PHASE_PREFILL : DP_PHASE_DECODE;
        gpu_plan *sampler = s->sampling.temperature > 0 ? m->sampled : m->greedy;
        ok = time_plan(&t, m->body[m->latest.kind][0], phase, false, err) &&
             time_plan(&t, m->head[m->latest.head], phase, false, err) &&
             (phase == DP_PHASE_PREFILL || time_plan(&t, sampler, phase, true, err));
    }
    gpu_lock(m->gpu); /* the sampler has drawn what nobody asked for */
    const uint64_t at = s->slot * sizeof(sampler_state) + offsetof(sampler_state, draws);
    const gpu_range draws = gpu_part(m->buffers.samplers, at, sizeof s->draws);
    ok = gpu_write(m->gpu, draws, &s->draws, ok ? err : NULL) && ok;
    gpu_unlock(m->gpu);
    *n_ops = t.n_ops;
    return dp_session_rewind(s, t.before, ok ? err : NULL) && ok;
}
