/* trace: what took time, one after the other, on the host and on the device.
 *
 * A list of fixed room, filled while it is on. The device's clock has another zero than the host's:
 * of all submissions the one that began soonest after it was handed over tells how far they are
 * apart at least, so with that gap none begins before it was submitted. */
#include "gpu/gpu_internal.h"

typedef struct {
    const char *name, *role; /* they outlive the list */
    dp_phase phase;
    bool host;
    double start, seconds; /* by the clock of its side */
} trace_item;

struct gpu_trace {
    trace_item *items;
    size_t n, max, n_lost;
    double begun; /* by the host's clock */
    double gap;   /* host's clock less the device's */
    bool has_gap;
};

bool gpu_trace_start(gpu *g, size_t max, dp_error *err) {
    assert(!g->encoder.open && max > 0);
    trace_close(g);
    gpu_trace *t = mem_new(1, sizeof(*t), "a trace", err);
    if (t == NULL) return false;
    t->items = mem_new(max, sizeof(*t->items), "a trace", err);
    if (t->items == NULL) {
        mem_free(t);
        return false;
    }
    t->max = max;
    t->begun = clock_seconds();
    g->trace = t;
    return true;
}

void trace_close(gpu *g) {
    if (g->trace != NULL) mem_free(g->trace->items);
    mem_free(g->trace);
    g->trace = NULL;
}

static void add_item(gpu_trace *t, const trace_item *item) {
    if (t->n == t->max) {
        t->n_lost++;
        return;
    }
    t->items[t->n++] = *item;
}

void trace_host(gpu *g, const char *name, double start, double end) {
    if (g->trace == NULL || start < g->trace->begun) return;
    add_item(g->trace, &(trace_item){ .name = name,
                                      .role = "",
                                      .host = true,
                                      .start = start,
                                      .seconds = end > start ? end - start : 0 });
}

void trace_device(gpu *g, const dp_profile_row *row, double start, double seconds) {
    if (g->trace == NULL) return;
    add_item(g->trace, &(trace_item){ .name = row->kernel,
                                      .role = row->role,
                                      .phase = row->phase,
                                      .start = start,
                                      .seconds = seconds });
}

void trace_gap(gpu *g, double handed_over, double first) {
    gpu_trace *t = g->trace;
    if (t == NULL || handed_over < t->begun) return;
    const double gap = handed_over - first;
    if (!t->has_gap || gap > t->gap) t->gap = gap;
    t->has_gap = true;
}

size_t gpu_trace_stop(gpu *g, dp_trace_fn *each, void *user) {
    dp_profile_phase phases[DP_PHASES];
    gpu_profile_phases(g, phases); /* waits for what is under way */
    const gpu_trace *t = g->trace;
    if (t == NULL) return 0;
    for (size_t i = 0; i < t->n; i++) {
        const trace_item *item = &t->items[i];
        const double start = item->start + (item->host ? 0 : t->gap) - t->begun;
        each(user, &(dp_trace_event){ .name = item->name,
                                      .role = item->role,
                                      .phase = item->phase,
                                      .host = item->host,
                                      .start = start > 0 ? start : 0,
                                      .seconds = item->seconds });
    }
    const size_t n_lost = t->n_lost;
    trace_close(g);
    return n_lost;
}
