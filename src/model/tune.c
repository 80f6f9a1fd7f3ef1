/* tune: which shape of workgroups a product or the attention gets on this device, by measuring.
 *
 * An operation asks tuned_choice among a few shapes, all of which compute the same. To measure
 * them, the pass is recorded once more with a tuner that lets only the calls of one product
 * through, in one of its shapes, over the model's own weights. A shape is first held against the
 * first one on equal inputs (tune_check.c) and then timed; one that differs is never chosen. What
 * was chosen is kept by tuned.c. */
#include "model/tune_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    PRODUCTS_MAX = 128,
    TIMED_RUNS = 3,
    RUN_CALLS_MAX = 2048, /* of a run */
};
/* In seconds: all of the quick form, and what a run is to take in either. */
static const double QUICK_SECONDS = 2, QUICK_RUN = 4e-3, FULL_RUN = 20e-3;
static const double GAIN = 0.98; /* a change has to be more than 2 % faster */

/* ---- recording ------------------------------------------------------------------------------ */

/* Calls of the same product follow in every layer; those of another are found once. What a short
 * prompt has in common with every other is the latter's. */
static void collect_product(tuning *t, const tuned_question *q, pass_kind kind) {
    for (size_t i = 0; i < t->n; i++) {
        if (strcmp(t->list[i].question.key, q->key) == 0) {
            t->list[i].n_calls = t->list[i].kind == kind ? t->list[i].n_calls + 1 : 1;
            t->list[i].kind = kind;
            return;
        }
    }
    if (t->n < PRODUCTS_MAX && q->n > 1) {
        t->list[t->n++] =
            (tuned_product){ .question = *q, .kind = kind, .of_head = t->of_head, .n_calls = 1 };
    }
}

static const tuned_shape *choose(recorder *r, const tuned_question *q) {
    tuning *t = (tuning *)r->tuner;
    if (t->product == NULL) {
        collect_product(t, q, r->kind);
        return &q->shapes[0];
    }
    t->base.takes = t->taken < t->most && strcmp(q->key, t->product->question.key) == 0;
    t->taken += t->base.takes;
    assert(!t->base.takes ||
           strcmp(q->shapes[t->shape].name, t->product->question.shapes[t->shape].name) == 0);
    return &q->shapes[t->base.takes ? t->shape : 0];
}

gpu_plan *tuning_plan(tuning *t, const tuned_product *p, uint32_t shape, uint32_t most,
                      dp_error *err) {
    gpu_plan *plan = gpu_plan_new(t->m->gpu, err);
    if (plan == NULL) {
        return NULL;
    }
    t->product = p;
    t->shape = shape;
    t->most = most;
    t->taken = 0;
    forward_record_part(t->m, p->kind, p->of_head, plan, &t->base, err);
    if (!gpu_plan_finish(plan, err)) {
        gpu_plan_free(plan);
        return NULL;
    }
    return plan;
}

static bool collect_products(tuning *t, dp_error *err) {
    for (pass_kind kind = PASS_ONE; kind < t->m->shapes.n_kinds; kind++) {
        for (int head = 0; head < 2; head++) {
            gpu_plan *plan = gpu_plan_new(t->m->gpu, err);
            if (plan == NULL) {
                return false;
            }
            t->of_head = head;
            forward_record_part(t->m, kind, head, plan, &t->base, err);
            gpu_plan_free(plan);
        }
    }
    return true;
}

/* One token first, then prompts, then a few rows, and of each the most work. */
static int compare_products(const void *a, const void *b) {
    static const int turn[] = {
        [PASS_ONE] = 0, [PASS_MANY] = 1, [PASS_SHORT] = 2, [PASS_FEW] = 3, [PASS_SOME] = 4
    };
    const tuned_product *p = a, *q = b;
    if (p->kind != q->kind) {
        return turn[p->kind] - turn[q->kind];
    }
    const uint64_t x = (uint64_t)p->question.rows * p->question.cols * p->n_calls;
    const uint64_t y = (uint64_t)q->question.rows * q->question.cols * q->n_calls;
    return x != y ? (x < y) - (x > y) : strcmp(p->question.key, q->question.key);
}

/* ---- the time ------------------------------------------------------------------------------- */

/* Of a run of n turns of the plan. */
static bool run_turns(gpu *g, const gpu_plan *plan, const gpu_sizes *sizes, uint32_t n,
                      double *seconds, dp_error *err) {
    gpu_ticket ticket = 0;
    const double start = clock_seconds();
    gpu_encoder *e = gpu_begin(g);
    for (uint32_t i = 0; i < n; i++) {
        gpu_encode(e, plan, sizes);
    }
    if (!gpu_submit(e, &ticket, err)) {
        return false;
    }
    gpu_wait(g, ticket);
    *seconds = clock_seconds() - start;
    return true;
}

static int compare_run_times(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* By the host's clock: long runs, so that what a submission costs does not count. The first guess
 * of how many turns make one is mostly the submission. */
static bool time_by_host(gpu *g, const gpu_plan *plan, const gpu_sizes *sizes, double run,
                         double *seconds, dp_error *err) {
    const double most = max_u32(RUN_CALLS_MAX / gpu_plan_n_calls(plan), 1);
    double times[TIMED_RUNS], once;
    uint32_t n = 1;
    if (!run_turns(g, plan, sizes, 1, &once, err)) {
        return false;
    }
    for (int guess = 0; guess < 2; guess++) {
        if (!run_turns(g, plan, sizes, n, &once, err)) {
            return false;
        }
        n = (uint32_t)fmin(fmax(run * n / fmax(once, 1e-9), 1), most);
    }
    for (int i = 0; i < TIMED_RUNS; i++) {
        if (!run_turns(g, plan, sizes, n, &times[i], err)) {
            return false;
        }
    }
    qsort(times, TIMED_RUNS, sizeof times[0], compare_run_times);
    *seconds = times[TIMED_RUNS / 2] / n;
    return true;
}

static bool time_by_device(const tuning *t, gpu_plan *plan, const gpu_sizes *sizes, double *seconds,
                           dp_error *err) {
    enum { COLD_BYTES = 256 << 20 }; /* as in time_ops.c */
    const gpu_time_options how = { .sizes = *sizes,
                                   .cold = t->how->quick || is_software(t->m->gpu) ? 0 : COLD_BYTES,
                                   .run_ns = 1e9 * t->how->run_seconds };
    *seconds = 0;
    for (uint32_t i = 0; i < gpu_plan_n_calls(plan); i++) {
        gpu_op_time got;
        if (!gpu_plan_is_first(plan, i)) {
            continue;
        }
        if (!gpu_plan_time(plan, i, &how, &got, err)) {
            return false;
        }
        *seconds += 1e-9 * got.nanoseconds * got.n_alike;
    }
    return true;
}

/* Of the plan in a pass of at most so many rows. */
static bool time_recorded(tuning *t, const tuned_product *p, gpu_plan *plan, uint32_t most,
                          double *seconds, dp_error *err) {
    gpu *g = t->m->gpu;
    gpu_sizes sizes;
    if (!tuning_pass(t, p, most, &sizes, err)) {
        return false;
    }
    return gpu_profiles(g) ? time_by_device(t, plan, &sizes, seconds, err)
                           : time_by_host(g, plan, &sizes, t->how->run_seconds, seconds, err);
}

/* Of one call of the product, over those of all layers in turn; in short prompts the mean for all
 * their rows and half of them. */
static bool time_shape(tuning *t, const tuned_product *p, uint32_t shape, double *seconds,
                       dp_error *err) {
    static const uint32_t most[] = { UINT32_MAX, SHORT_ROWS / 2 };
    const uint32_t n = p->kind == PASS_SHORT ? 2 : 1;
    gpu_plan *plan = tuning_plan(t, p, shape, UINT32_MAX, err);
    bool ok = plan != NULL;
    *seconds = 0;
    for (uint32_t i = 0; i < n && ok; i++) {
        double once = 0;
        ok = time_recorded(t, p, plan, most[i], &once, err);
        *seconds += once / n / max_u32(t->taken, 1);
    }
    gpu_plan_free(plan);
    return ok;
}

/* ---- choosing ------------------------------------------------------------------------------- */

/* What is found of a product's shapes, the first `n` of them. */
typedef struct {
    uint32_t n, best;
    bool right[TUNED_SHAPES];
    double seconds[TUNED_SHAPES];
} tuned_result;

static bool tell_shapes(const tuning *t, const tuned_product *p, const tuned_result *found,
                        dp_error *err) {
    for (uint32_t i = 0; t->how->each != NULL && i < found->n; i++) {
        dp_tuned row = { .calls = p->n_calls,
                         .pass = (dp_pass)p->kind,
                         .is_initial = i == 0,
                         .is_right = found->right[i],
                         .is_chosen = i == found->best,
                         .nanoseconds = found->right[i] ? 1e9 * found->seconds[i] : 0 };
        _Static_assert(sizeof row.product >= TUNED_KEY_BYTES &&
                           sizeof row.shape >= TUNED_NAME_BYTES,
                       "names are told whole");
        snprintf(row.product, sizeof row.product, "%s", p->question.key);
        snprintf(row.shape, sizeof row.shape, "%s", p->question.shapes[i].name);
        if (!t->how->each(t->how->user, &row)) {
            return err_set(err, DP_E_CANCELLED, "tuning was cancelled");
        }
    }
    return true;
}

/* A shape that cannot be had, or that is wrong here, is left out; what concerns the device or the
 * host's memory is not its own fault. */
static bool measure(tuning *t, const tuned_product *p, uint32_t shape, tuned_result *found,
                    dp_error *err) {
    dp_error why = { 0 };
    bool *right = &found->right[shape];
    const bool ok = tuning_check(t, p, shape, right, &why) &&
                    (!*right || time_shape(t, p, shape, &found->seconds[shape], &why));
    if (!ok && (shape == 0 || why.status == DP_E_MEMORY || gpu_is_lost(t->m->gpu))) {
        return err_set(err, why.status, "%s", why.message);
    }
    if (!ok || !*right) {
        *right = false;
        log_line(&t->m->log, DP_LOG_WARNING, "%s: %s with %s is not used: %s",
                 gpu_info(t->m->gpu)->name, p->question.key, p->question.shapes[shape].name,
                 ok ? "its results are not those of the first shape" : why.message);
    }
    return true;
}

/* Once more: clocks may have risen since the first shape's turn. */
static bool measure_again(tuning *t, const tuned_product *p, tuned_result *found, dp_error *err) {
    const uint32_t list[] = { 0, found->best };
    for (size_t i = 0; i < ARRAY_LEN(list); i++) {
        double seconds;
        if (!time_shape(t, p, list[i], &seconds, err)) {
            return false;
        }
        found->seconds[list[i]] = fmin(found->seconds[list[i]], seconds);
    }
    return true;
}

/* Tries the product's shapes until `end`; those that it does not come to stay untried. */
static bool try_shapes(tuning *t, const tuned_product *p, double end, tuned_result *found,
                       dp_error *err) {
    double longest = 0; /* that a shape took: the next one is not begun if it would end late */
    for (; found->n < p->question.n && clock_seconds() + longest < end; found->n++) {
        const double start = clock_seconds();
        const uint32_t i = found->n;
        if (!measure(t, p, i, found, err)) {
            return false;
        }
        if (found->right[i] && found->seconds[i] < found->seconds[found->best]) {
            found->best = i;
        }
        longest = fmax(longest, clock_seconds() - start);
    }
    if (found->best > 0 && clock_seconds() + longest < end && !measure_again(t, p, found, err)) {
        return false;
    }
    if (found->seconds[found->best] >= GAIN * found->seconds[0]) {
        found->best = 0;
    }
    return true;
}

static bool is_asked_for(const tuning *t, const tuned_product *p) {
    return (t->how->only == NULL || str_starts(str_of(p->question.key), t->how->only)) &&
           (!t->how->quick || tuned_find(&t->m->tuned, p->question.key) == NULL);
}

static bool tune_products(tuning *t, size_t *n_done, dp_error *err) {
    const double end = t->how->quick ? clock_seconds() + t->how->seconds : INFINITY;
    if (!collect_products(t, err)) {
        return false;
    }
    qsort(t->list, t->n, sizeof *t->list, compare_products);
    for (size_t i = 0; i < t->n && clock_seconds() < end; i++) {
        const tuned_product *p = &t->list[i];
        tuned_result found = { .n = 0 };
        if (!is_asked_for(t, p)) {
            continue;
        }
        if (!try_shapes(t, p, end, &found, err)) {
            return false;
        }
        /* one that the time did not suffice for is the next start's, unless it would never do */
        const bool is_cut = found.n < p->question.n;
        if (is_cut && *n_done > 0) {
            break;
        }
        log_line(&t->m->log, DP_LOG_DEBUG, "tuned %s: %s, %.2f us, the first shape %.2f us",
                 p->question.key, p->question.shapes[found.best].name,
                 1e6 * found.seconds[found.best], 1e6 * found.seconds[0]);
        if (!tuned_put(&t->m->tuned, p->question.key, p->question.shapes[found.best].name, err) ||
            !tell_shapes(t, p, &found, err)) {
            return false;
        }
        ++*n_done;
    }
    return true;
}

bool model_tune(dp_model *m, const tune_options *how, size_t *n_done, dp_error *err) {
    *n_done = 0;
    if (model_pages_experts(m)) {
        return true; /* its passes wait for the host anyway */
    }
    tuning *t = mem_new(1, sizeof *t, "tuning", err);
    if (t == NULL) {
        return false;
    }
    *t = (tuning){ .base = { .choose = choose }, .m = m, .how = how };
    t->list = mem_new(PRODUCTS_MAX, sizeof *t->list, "products", err);
    bool ok = t->list != NULL && tuning_check_begin(t, err) && tuning_prepare(t, err);
    if (ok) {
        ok = tune_products(t, n_done, err);
        ok = tuning_clean(t, ok ? err : NULL) && ok;
    }
    tuning_check_end(t);
    mem_free(t->list);
    mem_free(t);
    return ok;
}

/* ---- opening, and on demand ----------------------------------------------------------------- */

bool tune_at_load(dp_model *m, const char *folder, dp_error *err) {
    const tune_options how = { .quick = true, .seconds = QUICK_SECONDS, .run_seconds = QUICK_RUN };
    dp_error why = { 0 };
    size_t n = 0;
    if (is_software(m->gpu)) {
        return true;
    }
    if (!model_tune(m, &how, &n, err)) {
        return false;
    }
    if (n > 0 && !tuned_write(m, folder, &why)) {
        log_line(&m->log, DP_LOG_INFO, "what tuning has found is not kept: %s", why.message);
    }
    return n == 0 || forward_record_again(m, err);
}

bool dp_model_tune(dp_model *m, const char *folder, const char *only, dp_tune_fn *each, void *user,
                   dp_error *err) {
    const tune_options how = { .only = only, .run_seconds = FULL_RUN, .each = each, .user = user };
    size_t n = 0;
    if (m->gpu == NULL || m->plan_only) {
        return err_set(err, DP_E_ARGUMENT, "%s: was opened without a device or without weights",
                       container_path(m->files));
    }
    if (model_pages_experts(m)) {
        return err_set(err, DP_E_UNSUPPORTED,
                       "%s: experts are fetched during a pass: it is not tuned",
                       container_path(m->files));
    }
    gpu_lock(m->gpu);
    bool ok =
        m->n_free_pages == m->shapes.n_pages ||
        err_set(err, DP_E_ARGUMENT, "%s: a session of it holds tokens", container_path(m->files));
    ok = ok && model_tune(m, &how, &n, err) &&
         (n > 0 || err_set(err, DP_E_ARGUMENT, "%s: no product to tune begins with \"%s\"",
                           container_path(m->files), only != NULL ? only : "")) &&
         forward_record_again(m, err);
    gpu_unlock(m->gpu);
    return ok && (folder == NULL || tuned_write(m, folder, err));
}
