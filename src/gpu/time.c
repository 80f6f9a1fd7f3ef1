/* time: one call of a plan alone, on its real shape, as often as it takes to measure it; and in its
 * place, by what the plan takes less without it.
 *
 * All calls alike (one to a layer, mostly) run in turn, each waiting for the one before as in a
 * real pass, inside one compute pass between one pair of timestamps. What differs from layer to
 * layer and what the plan does not write, so weights and cached keys, is copied until the calls
 * together read more than a cache holds: a short turn over a small model's layers would measure
 * the cache. Activations stay where they are: in a real pass they have just been written. */
#include "gpu/gpu_internal.h"

#include <stdlib.h>

enum {
    ALIKE_MAX = 1024,
    COPIES_MAX = 512,     /* bind groups of copies */
    COPY_MIN = 32 * 1024, /* smaller ranges stay */
    SCRATCH_MAX = 512 << 20,
    DISPATCHES_MAX = 2048, /* in one submission */
    RUNS = 3,
};

static bool are_alike(const gpu_call *a, const gpu_call *b) {
    if (a->kernel != b->kernel || a->label != b->label) return false;
    if (memcmp(a->groups, b->groups, sizeof(a->groups)) != 0) return false;
    for (uint32_t i = 0; i < GPU_BINDINGS; i++) {
        if (a->bind[i].size != b->bind[i].size) return false;
    }
    return true;
}

bool gpu_plan_is_first(const gpu_plan *p, uint32_t i) {
    for (uint32_t j = 0; j < i; j++) {
        if (are_alike(&p->calls[i], &p->calls[j])) return false;
    }
    return true;
}

/* What is being timed: `n` calls, each in its own bind group and in those of the copies. */
typedef struct {
    gpu_plan *p;
    uint32_t calls[ALIKE_MAX], n;
    uint32_t copied; /* bit i: binding i is copied */
    gpu_buffer *scratch;
    WGPUBindGroup groups[COPIES_MAX]; /* copy after copy, `n` each */
    uint32_t n_copies;
    uint32_t next; /* where the rotation goes on, so that a run begins with what is not cached */
} timing;

static bool plan_writes(const gpu_plan *p, const gpu_buffer *b) {
    for (uint32_t i = 0; i < p->n; i++) {
        const gpu_call *call = &p->calls[i];
        for (uint32_t at = 0; at < GPU_BINDINGS; at++) {
            const bool writes = (call->kernel->access >> (2 * at) & 3) == GPU_ACCESS_WRITE;
            if (call->bind[at].buffer == b && writes) return true;
        }
    }
    return false;
}

/* Which bindings are copied, and the bytes of all of them over all calls. */
static uint64_t choose_copied(timing *t) {
    const gpu_call *first = &t->p->calls[t->calls[0]];
    uint64_t bytes = 0;
    for (uint32_t at = 0; at < GPU_BINDINGS; at++) {
        const gpu_range r = first->bind[at];
        if (r.buffer == NULL || r.size < COPY_MIN) continue;
        if ((first->kernel->access >> (2 * at) & 3) != GPU_ACCESS_READ) continue;
        bool differs = false;
        for (uint32_t i = 1; i < t->n; i++) {
            const gpu_range other = t->p->calls[t->calls[i]].bind[at];
            differs |= other.buffer != r.buffer || other.offset != r.offset;
        }
        if (!differs && plan_writes(t->p, r.buffer)) continue;
        t->copied |= 1u << at;
        bytes += align_up(r.size, PARAMS_SLOT) * t->n;
    }
    return bytes;
}

static bool encode_copies(const timing *t, uint32_t n_copies, dp_error *err) {
    gpu_encoder *e = gpu_begin(t->p->g);
    uint64_t at = 0;
    for (uint32_t i = 0; i < n_copies * t->n; i++) {
        const gpu_call *call = &t->p->calls[t->calls[i % t->n]];
        for (uint32_t b = 0; b < GPU_BINDINGS; b++) {
            if ((t->copied >> b & 1) == 0) continue;
            const gpu_range from = call->bind[b];
            gpu_encode_copy(e, (gpu_range){ t->scratch, at, from.size }, from);
            at += align_up(from.size, PARAMS_SLOT);
        }
    }
    return gpu_submit(e, NULL, err);
}

static void bind_copies(timing *t, uint32_t n_copies) {
    uint64_t at = 0;
    for (uint32_t i = 0; i < n_copies * t->n; i++) {
        const gpu_call *call = &t->p->calls[t->calls[i % t->n]];
        gpu_range bind[GPU_BINDINGS];
        memcpy(bind, call->bind, sizeof(bind));
        for (uint32_t b = 0; b < GPU_BINDINGS; b++) {
            if ((t->copied >> b & 1) == 0) continue;
            bind[b].buffer = t->scratch;
            bind[b].offset = at;
            at += align_up(bind[b].size, PARAMS_SLOT);
        }
        t->groups[i] = plan_bind(t->p->g, call, bind);
    }
    t->n_copies = n_copies;
}

/* Copies so that all calls together read `cold` bytes, as far as there is room; without room it is
 * measured as it is. `own` is what the calls read already. */
static bool make_copies(timing *t, uint64_t own, uint64_t cold, dp_error *err) {
    gpu *g = t->p->g;
    if (own == 0 || own >= cold) return true;
    const uint64_t room =
        min_u64(min_u64(gpu_memory_room(g) / 2, SCRATCH_MAX), g->limits.maxBufferSize);
    uint64_t n = (cold + own - 1) / own - 1;
    n = min_u64(min_u64(n, room / own), COPIES_MAX / t->n);
    dp_error why = { 0 };
    t->scratch = n > 0 ? gpu_buffer_new(g, n * own, "copies to time kernels", &why) : NULL;
    if (t->scratch == NULL) return gpu_ok(g, err);
    if (!encode_copies(t, (uint32_t)n, err)) return false;
    const uint32_t scopes = scope_begin(g);
    bind_copies(t, (uint32_t)n);
    return scope_end(g, scopes, err);
}

/* How many of what took `once` nanoseconds make a run of run_ns, 1 to `most`. */
static uint32_t repeats(double run_ns, double once, uint32_t most) {
    const double wanted = run_ns / (once > 1 ? once : 1);
    return wanted < 1 ? 1 : wanted > most ? most : (uint32_t)wanted;
}

/* Submits what profile_alone began, waits, and says what one of its n parts took. */
static bool end_alone(gpu *g, gpu_encoder *e, uint32_t n, double *ns, dp_error *err) {
    gpu_ticket ticket = 0;
    bool ok = gpu_submit(e, &ticket, err);
    if (ok) {
        gpu_wait(g, ticket);
        ok = gpu_collect(g, ticket, NULL, 0, err);
    }
    *ns = (double)profile_alone_end(g) / n;
    return ok;
}

/* The next `n` dispatches of the rotation, and what one takes. */
static bool run_rotation(timing *t, uint32_t n, const gpu_sizes *sizes, double *ns, dp_error *err) {
    gpu *g = t->p->g;
    profile_alone(g, false);
    gpu_encoder *e = gpu_begin(g);
    for (uint32_t i = 0; i < n && e->commands != NULL; i++) {
        const uint32_t at = t->next, call = t->calls[at % t->n];
        const bool original = at < t->n;
        encode_step(e, t->p, call, original ? t->p->steps[call].data : t->groups[at - t->n], sizes);
        t->next = (at + 1) % (t->n * (t->n_copies + 1));
    }
    return end_alone(g, e, n, ns, err);
}

static int compare_times(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* A first run warms up and says how long the others are to be. */
static bool run_all_rotations(timing *t, const gpu_time_options *how, gpu_op_time *out,
                              dp_error *err) {
    const gpu_sizes *sizes = &how->sizes;
    const uint32_t most = how->most;
    double ns[RUNS], once;
    assert(most == 0 || most >= RUNS + 2);
    const uint32_t limit = most > 0 ? max_u32((most - 1) / (RUNS + 1), 1) : DISPATCHES_MAX;
    if (!run_rotation(t, 1, sizes, &once, err)) return false;
    const uint32_t n_warm = min_u32(limit, once > how->run_ns / 16 ? 1 : 16);
    if (!run_rotation(t, n_warm, sizes, &once, err)) return false;
    const uint32_t n = repeats(how->run_ns, once, limit);
    for (int i = 0; i < RUNS; i++) {
        if (!run_rotation(t, n, sizes, &ns[i], err)) return false;
    }
    qsort(ns, RUNS, sizeof(ns[0]), compare_times);
    out->nanoseconds = ns[RUNS / 2];
    out->n_timed = n;
    return true;
}

static bool time_calls(timing *t, const gpu_time_options *how, gpu_op_time *out, dp_error *err) {
    const gpu_sizes *sizes = &how->sizes;
    const gpu_call *call = &t->p->calls[t->calls[0]];
    const gpu_cost_term sum = gpu_cost_of(&call->cost, sizes);
    const uint64_t own = choose_copied(t);
    *out = (gpu_op_time){ .n_alike = t->n, .bytes = sum.bytes, .flops = sum.flops };
    bool any = true;
    for (int i = 0; i < 3; i++) {
        out->groups[i] = count_groups(call->groups[i], sizes);
        any = any && out->groups[i] > 0;
    }
    if (!any) return true;
    if (!make_copies(t, own, how->cold, err) || !run_all_rotations(t, how, out, err)) {
        return false;
    }
    /* in memory, and so many of them that the runs come round to none that is still in a cache */
    const uint64_t in_turn = own * (t->n_copies + 1);
    out->cold = own > 0 && how->cold > 0 && in_turn >= how->cold / 2;
    return true;
}

/* Turns of the plan, without the calls that are timed if `without`; what one takes. */
static bool run_plan_turns(const timing *t, uint32_t n, bool without, const gpu_sizes *sizes,
                           double *ns, dp_error *err) {
    gpu_plan *p = t->p;
    profile_alone(p->g, false);
    gpu_encoder *e = gpu_begin(p->g);
    for (uint32_t turn = 0; turn < n; turn++) {
        uint32_t at = 0;
        for (uint32_t i = 0; i < p->n && e->commands != NULL; i++) {
            const bool timed = at < t->n && t->calls[at] == i;
            at += timed;
            if (!(timed && without)) encode_step(e, p, i, p->steps[i].data, sizes);
        }
    }
    return end_alone(p->g, e, n, ns, err);
}

/* By pairs of runs, since a clock may change from one to the next. */
static bool time_in_place(const timing *t, const gpu_time_options *how, gpu_op_time *out,
                          dp_error *err) {
    double once, less[RUNS];
    if (!run_plan_turns(t, 1, false, &how->sizes, &once, err)) return false;
    const uint32_t n = repeats(how->run_ns, once, max_u32(DISPATCHES_MAX / t->p->n, 1));
    for (int i = 0; i < RUNS; i++) {
        double with, without;
        if (!run_plan_turns(t, n, false, &how->sizes, &with, err) ||
            !run_plan_turns(t, n, true, &how->sizes, &without, err)) {
            return false;
        }
        less[i] = (with - without) / t->n;
    }
    qsort(less, RUNS, sizeof(less[0]), compare_times);
    out->in_place = less[RUNS / 2];
    return true;
}

bool gpu_plan_time(gpu_plan *p, uint32_t i, const gpu_time_options *how, gpu_op_time *out,
                   dp_error *err) {
    gpu *g = p->g;
    assert(p->finished && i < p->n && !g->encoder.open);
    if (g->profiler == NULL) {
        return err_set(err, DP_E_UNSUPPORTED, "%s was opened without a profile: nothing is timed",
                       g->info.name);
    }
    timing *t = mem_new(1, sizeof(*t), "a measurement", err);
    if (t == NULL) return false;
    t->p = p;
    for (uint32_t j = i; j < p->n && t->n < ALIKE_MAX; j++) {
        if (are_alike(&p->calls[i], &p->calls[j])) t->calls[t->n++] = j;
    }
    const dp_profile_mode mode = gpu_profile_mode(g, DP_PROFILE_STEPS);
    bool ok = time_calls(t, how, out, err);
    if (ok && how->in_place && out->n_timed > 0) ok = time_in_place(t, how, out, err);
    (void)gpu_profile_mode(g, mode);
    for (uint32_t j = 0; j < t->n_copies * t->n; j++) {
        if (t->groups[j] != NULL) g->api.BindGroupRelease(t->groups[j]);
    }
    gpu_buffer_free(t->scratch);
    mem_free(t);
    return ok;
}
