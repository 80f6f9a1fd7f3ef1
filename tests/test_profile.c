/* Profiles: what is counted, by whom, and that nothing a measurement does changes what a model
 * answers. Times are never compared with numbers: only that they are there, that sums agree, and
 * in which order things began. */
#include "model/model.h"
#include "tests/test.h"

#include <stdio.h>

static const char *MODEL = "tests/vectors/models/llama3-gqa";

static dp_device_options profiled(void) {
    dp_device_options o = test_device_options();
    o.profile = true;
    return o;
}

static void *open_profiled(test *t) {
    const dp_device_options o = profiled();
    return gpu_open(&o, &t->err);
}

static void close_profiled(void *g) {
    gpu_close(g);
}

/* NULL with the case skipped where there are no timestamps. */
static gpu *profiled_gpu(test *t) {
    dp_device_options o = profiled();
    dp_device_info info;
    size_t n = 0;
    o.profile = false;
    if (!CHECK(t, gpu_list(&o, &info, 1, &n, &t->err))) return NULL;
    if (!info.timestamps) {
        test_skip(t, "no timestamps");
        return NULL;
    }
    return test_shared(t, "profiled", open_profiled, close_profiled);
}

/* ---- plans of a kernel that adds ----------------------------------------------------------- */

enum { N = 1 << 14, LANES = 64 };

static const gpu_source grow_source = {
    .name = "grow",
    .text = "@group(0) @binding(0) var<storage, read> x: array<u32>;\n"
            "@group(0) @binding(1) var<storage, read_write> y: array<u32>;\n"
            "@compute @workgroup_size(64)\n"
            "fn grow(@builtin(global_invocation_id) i: vec3u) {\n"
            "    y[i.x] += x[i.x];\n"
            "}\n",
    .bindings = (const gpu_binding[]){ { "x", 0, GPU_ACCESS_READ }, { "y", 1, GPU_ACCESS_WRITE } },
    .n_bindings = 2,
};

enum { SOURCES = 4 };
typedef struct {
    gpu_buffer *x[SOURCES], *y, *z;
    gpu_plan *plan;
} grow_plan;

static const gpu_cost priced = { .terms = { { .bytes = 1000, .flops = 10 },
                                            { .bytes = 100, .flops = 1, .size = 1 },
                                            { .bytes = 10, .size = 2, .most = 3, .of = 1 } } };

/* y += x[i], x[i][j] = 1000 i + j: SOURCES calls of role "one", and a last one of role "two" over
 * n3. */
static bool make_grow_plan(test *t, gpu *g, grow_plan *p, bool with_third) {
    *p = (grow_plan){ .plan = gpu_plan_new(g, &t->err) };
    const gpu_kernel *kernel = gpu_kernel_get(g, &grow_source, NULL, NULL, &t->err);
    uint32_t *words = test_alloc(t, N, sizeof(*words));
    p->y = gpu_buffer_new(g, N * 4, "y", &t->err);
    for (uint32_t i = 0; i < SOURCES; i++) {
        for (uint32_t j = 0; j < N; j++)
            words[j] = 1000 * i + j;
        p->x[i] = gpu_buffer_new(g, N * 4, "x", &t->err);
        if (p->x[i] == NULL || !gpu_write(g, gpu_whole(p->x[i]), words, &t->err)) return false;
    }
    if (p->y == NULL || p->plan == NULL || kernel == NULL) return false;
    gpu_call call = { .kernel = kernel, .label = "one", .cost = priced };
    for (int i = 0; i <= SOURCES; i++) {
        call.bind[0] = gpu_whole(p->x[i % SOURCES]);
        call.bind[1] = gpu_whole(p->y);
        call.groups[0].times = N / LANES;
        if (i == SOURCES) {
            call.label = "two";
            call.groups[1].size = 3;
        }
        gpu_plan_add(p->plan, &call);
    }
    if (with_third) {
        p->z = gpu_buffer_new(g, N * 4, "z", &t->err);
        if (p->z == NULL) return false;
        call.label = "three";
        call.bind[0] = gpu_whole(p->y);
        call.bind[1] = gpu_whole(p->z);
        gpu_plan_add(p->plan, &call);
    }
    return gpu_plan_finish(p->plan, &t->err);
}

static void drop_grow_plan(grow_plan *p) {
    gpu_plan_free(p->plan);
    for (int i = 0; i < SOURCES; i++)
        gpu_buffer_free(p->x[i]);
    gpu_buffer_free(p->y);
    gpu_buffer_free(p->z);
}

static bool submit_grow(test *t, gpu *g, const grow_plan *p, dp_phase phase, uint32_t rows) {
    gpu_encoder *e = gpu_begin(g);
    gpu_phase(e, phase, rows);
    gpu_encode(e, p->plan, &(gpu_sizes){ { 1, rows, 100, 1 } });
    gpu_ticket ticket = 0;
    if (!CHECK(t, gpu_submit(e, &ticket, &t->err))) return false;
    gpu_wait(g, ticket);
    return gpu_collect(g, ticket, NULL, 0, &t->err);
}

static const dp_profile_row *find_row(const dp_profile_row *rows, size_t n, const char *role,
                                      dp_phase phase) {
    for (size_t i = 0; i < n; i++) {
        if (strcmp(rows[i].role, role) == 0 && rows[i].phase == phase) return &rows[i];
    }
    return NULL;
}

static void kernels_are_told_by_role_kernel_and_phase(test *t) {
    gpu *g = profiled_gpu(t);
    grow_plan p;
    if (g == NULL || !CHECK(t, make_grow_plan(t, g, &p, false))) return;
    dp_profile_row rows[64];
    dp_profile_phase phases[DP_PHASES];
    size_t n;
    gpu_profile_reset(g);
    gpu_profile(g, rows, ARRAY_LEN(rows), &n);
    CHECK_U64(t, n, 0);
    submit_grow(t, g, &p, DP_PHASE_DECODE, 2);
    submit_grow(t, g, &p, DP_PHASE_DECODE, 2);
    submit_grow(t, g, &p, DP_PHASE_PREFILL, 50);
    gpu_profile(g, rows, ARRAY_LEN(rows), &n);
    if (!CHECK_U64(t, n, 4)) return;
    for (size_t i = 1; i < n; i++)
        CHECK(t, rows[i - 1].nanoseconds >= rows[i].nanoseconds && rows[i].nanoseconds > 0);
    /* 1000 + 100 rows + 10 min(100, 3 rows): the bound holds for 2 rows and not for 50 */
    const struct {
        const char *role;
        dp_phase phase;
        uint64_t calls, bytes, flops;
    } want[] = { { "one", DP_PHASE_DECODE, 8, 8 * 1260, 8 * 12 },
                 { "two", DP_PHASE_DECODE, 2, 2 * 1260, 2 * 12 },
                 { "one", DP_PHASE_PREFILL, 4, 4 * 7000, 4 * 60 },
                 { "two", DP_PHASE_PREFILL, 1, 7000, 60 } };
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        const dp_profile_row *r = find_row(rows, n, want[i].role, want[i].phase);
        test_row(t, "%s of phase %d", want[i].role, (int)want[i].phase);
        if (!CHECK(t, r != NULL)) continue;
        CHECK_STR(t, str_of(r->kernel), "grow");
        CHECK_U64(t, r->calls, want[i].calls);
        CHECK_U64(t, r->bytes, want[i].bytes);
        CHECK_U64(t, r->flops, want[i].flops);
    }
    test_row(t, "%s", "");
    gpu_profile_phases(g, phases);
    CHECK_U64(t, phases[DP_PHASE_DECODE].kernel_rows, 4);
    CHECK_U64(t, phases[DP_PHASE_PREFILL].kernel_rows, 50);
    CHECK_U64(t, phases[DP_PHASE_DECODE].step_rows + phases[DP_PHASE_PREFILL].step_rows, 0);
    gpu_profile_reset(g);
    gpu_profile(g, rows, ARRAY_LEN(rows), &n);
    CHECK_U64(t, n, 0);
    gpu_profile_phases(g, phases);
    CHECK_U64(t, phases[DP_PHASE_DECODE].kernel_rows, 0);
    drop_grow_plan(&p);
}

static void steps_are_timed_as_they_are(test *t) {
    gpu *g = profiled_gpu(t);
    grow_plan p;
    if (g == NULL || !CHECK(t, make_grow_plan(t, g, &p, false))) return;
    dp_profile_row row;
    dp_profile_phase phases[DP_PHASES];
    size_t n;
    gpu_profile_reset(g);
    CHECK(t, gpu_profile_mode(g, DP_PROFILE_STEPS) == DP_PROFILE_KERNELS);
    for (int i = 0; i < 40; i++) /* more submissions than are under way at a time */
        submit_grow(t, g, &p, DP_PHASE_DECODE, 3);
    submit_grow(t, g, &p, DP_PHASE_PREFILL, 20);
    gpu_profile_phases(g, phases);
    CHECK_U64(t, phases[DP_PHASE_DECODE].step_rows, 120);
    CHECK_U64(t, phases[DP_PHASE_PREFILL].step_rows, 20);
    CHECK(t, phases[DP_PHASE_DECODE].step_nanoseconds > 0);
    CHECK(t, phases[DP_PHASE_PREFILL].step_nanoseconds > 0);
    CHECK_U64(t, phases[DP_PHASE_DECODE].kernel_rows, 0);
    gpu_profile(g, &row, 1, &n);
    CHECK_U64(t, n, 0);
    /* A submission of more passes than are timed counts for nothing, and the next one does again.
     */
    gpu_encoder *e = gpu_begin(g);
    gpu_phase(e, DP_PHASE_DECODE, 7);
    for (int i = 0; i < 40; i++) {
        gpu_encode(e, p.plan, &(gpu_sizes){ { 1, 1, 1, 1 } });
        gpu_encode_clear(e, gpu_whole(p.y));
    }
    CHECK(t, gpu_submit(e, NULL, &t->err));
    submit_grow(t, g, &p, DP_PHASE_DECODE, 1);
    gpu_profile_phases(g, phases);
    CHECK_U64(t, phases[DP_PHASE_DECODE].step_rows, 121);
    CHECK(t, gpu_profile_mode(g, DP_PROFILE_KERNELS) == DP_PROFILE_STEPS);
    gpu_profile_reset(g);
    drop_grow_plan(&p);
}

static void a_call_alone_runs_over_true_copies(test *t) {
    gpu *g = profiled_gpu(t);
    grow_plan p;
    if (g == NULL || !CHECK(t, make_grow_plan(t, g, &p, true))) return;
    for (uint32_t i = 0; i <= SOURCES + 1; i++)
        CHECK(t, gpu_plan_is_first(p.plan, i) == (i == 0 || i >= SOURCES));
    gpu_op_time got;
    const uint64_t before = gpu_stats(g)->dispatches, held = gpu_stats(g)->device_bytes;
    /* 4 x 64 KiB make 256 KiB, so 1 MiB takes three copies of each */
    gpu_time_options how = { .sizes = { { 1, 2, 100, 1 } }, .cold = 1 << 20, .run_ns = 2e7 };
    if (!CHECK(t, gpu_plan_time(p.plan, 0, &how, &got, &t->err))) return;
    const uint64_t ran = gpu_stats(g)->dispatches - before;
    CHECK_U64(t, got.n_alike, SOURCES);
    CHECK_U64(t, got.groups[0], N / LANES);
    CHECK_U64(t, got.groups[1], 1);
    CHECK_U64(t, got.bytes, 1260);
    CHECK_U64(t, got.flops, 12);
    CHECK(t, got.cold && got.n_timed > 0 && got.nanoseconds > 0);
    CHECK(t, gpu_stats(g)->device_bytes_peak >= held + 3 * SOURCES * N * 4);
    uint32_t *y = test_alloc(t, N, sizeof(*y));
    CHECK(t, gpu_read(g, gpu_whole(p.y), y, &t->err));
    uint32_t wrong = 0, sources = 0; /* modulo 2^32, as the kernel adds */
    for (uint32_t i = 0; i < ran; i++)
        sources += 1000 * (i % SOURCES);
    for (uint32_t i = 0; i < N; i++)
        wrong += y[i] != sources + i * (uint32_t)ran;
    CHECK_MSG(t, wrong == 0, "%u of %d sums differ after %u dispatches", wrong, N, (uint32_t)ran);
    how.cold = 256 << 10; /* what no call of the plan writes is copied, what one does is hot */
    CHECK(t, gpu_plan_time(p.plan, SOURCES, &how, &got, &t->err) && got.cold);
    CHECK(t, gpu_plan_time(p.plan, SOURCES + 1, &how, &got, &t->err) && !got.cold);
    const uint64_t start = gpu_stats(g)->dispatches;
    how.most = 9;
    how.cold = 0;
    CHECK(t, gpu_plan_time(p.plan, SOURCES, &how, &got, &t->err));
    CHECK_U64(t, got.n_alike, 1);
    CHECK(t, !got.cold && gpu_stats(g)->dispatches - start <= 9);
    /* and in its place: no time is long enough for more than one turn, then three pairs */
    const uint64_t alone = gpu_stats(g)->dispatches, n_calls = gpu_plan_n_calls(p.plan);
    how.most = 0;
    how.run_ns = 0;
    CHECK(t, gpu_plan_time(p.plan, 0, &how, &got, &t->err) && got.in_place == 0);
    CHECK_U64(t, gpu_stats(g)->dispatches - alone, 5);
    how.in_place = true;
    CHECK(t, gpu_plan_time(p.plan, 0, &how, &got, &t->err) && got.in_place != 0);
    CHECK_U64(t, gpu_stats(g)->dispatches - alone, 5 + 5 + 7 * n_calls - 3 * SOURCES);
    how.sizes.n[3] = 0; /* of size zero */
    const uint64_t all = gpu_stats(g)->dispatches;
    CHECK(t, gpu_plan_time(p.plan, SOURCES, &how, &got, &t->err));
    CHECK_U64(t, got.n_timed, 0);
    CHECK_U64(t, gpu_stats(g)->dispatches, all);
    CHECK(t, gpu_profile_mode(g, DP_PROFILE_KERNELS) == DP_PROFILE_KERNELS); /* as it was */
    drop_grow_plan(&p);
}

static void peaks_are_measured_once(test *t) {
    gpu *g = profiled_gpu(t);
    if (g == NULL) return;
    dp_device_peaks a, b;
    if (!CHECK(t, gpu_peaks(g, &a, &t->err))) return;
    const double values[] = { a.bytes_per_second, a.flops_per_second, a.dispatch_ns, a.pass_ns,
                              a.readback_ns };
    for (size_t i = 0; i < ARRAY_LEN(values); i++)
        CHECK(t, values[i] > 0 && values[i] < 1e18);
    const uint64_t submits = gpu_stats(g)->submits;
    CHECK(t, gpu_peaks(g, &b, &t->err));
    CHECK(t, memcmp(&a, &b, sizeof(a)) == 0);
    CHECK_U64(t, gpu_stats(g)->submits, submits);
}

/* ---- traces -------------------------------------------------------------------------------- */

typedef struct {
    dp_trace_event items[64];
    size_t n;
} event_list;

static void keep_event(void *user, const dp_trace_event *event) {
    event_list *list = user;
    if (list->n < ARRAY_LEN(list->items)) list->items[list->n++] = *event;
}

static void traces_put_things_in_order(test *t) {
    gpu *g = profiled_gpu(t);
    grow_plan p;
    if (g == NULL || !CHECK(t, make_grow_plan(t, g, &p, false))) return;
    static event_list list;
    list.n = 0;
    gpu_profile_reset(g);
    CHECK_U64(t, gpu_trace_stop(g, keep_event, &list), 0); /* there is none */
    CHECK(t, gpu_trace_start(g, 64, &t->err));
    submit_grow(t, g, &p, DP_PHASE_PREFILL, 2);
    (void)gpu_profile_mode(g, DP_PROFILE_STEPS);
    submit_grow(t, g, &p, DP_PHASE_DECODE, 2);
    CHECK_U64(t, gpu_trace_stop(g, keep_event, &list), 0);
    (void)gpu_profile_mode(g, DP_PROFILE_KERNELS);
    uint32_t kernels = 0, passes = 0, encodes = 0, submits = 0, waits = 0;
    double end = 0, submitted = -1;
    for (size_t i = 0; i < list.n; i++) {
        const dp_trace_event *e = &list.items[i];
        CHECK(t, e->start >= 0 && e->seconds >= 0);
        encodes += strcmp(e->name, "encode") == 0;
        waits += strcmp(e->name, "wait") == 0;
        if (strcmp(e->name, "submit") == 0) {
            submits++;
            submitted = e->start;
        }
        if (e->host) continue;
        const bool pass = strcmp(e->name, "pass") == 0;
        passes += pass;
        kernels += strcmp(e->name, "grow") == 0;
        CHECK(t, e->phase == (pass ? DP_PHASE_DECODE : DP_PHASE_PREFILL));
        CHECK_STR(t, str_of(e->role), pass ? "" : kernels > SOURCES ? "two" : "one");
        /* one after the other, none before its submission; clocks are read to 1 us */
        CHECK(t, e->start >= end - 1e-6);
        CHECK(t, submitted >= 0 && e->start >= submitted - 1e-6);
        end = e->start + e->seconds;
    }
    CHECK_U64(t, kernels, SOURCES + 1);
    CHECK_U64(t, passes, 1);
    CHECK_U64(t, encodes, 2);
    CHECK_U64(t, submits, 2);
    CHECK(t, waits >= 2);
    list.n = 0;
    CHECK(t, gpu_trace_start(g, 3, &t->err)); /* too small */
    submit_grow(t, g, &p, DP_PHASE_DECODE, 1);
    CHECK(t, gpu_trace_stop(g, keep_event, &list) >= 4);
    CHECK_U64(t, list.n, 3);
    gpu_profile_reset(g);
    drop_grow_plan(&p);
}

/* ---- models -------------------------------------------------------------------------------- */

static void *open_profiled_device(test *t) {
    const dp_device_options o = profiled();
    return dp_device_open(&o, &t->err);
}

static void close_profiled_device(void *device) {
    dp_device_close(device);
}

static dp_model *profiled_model(test *t, const char *path) {
    if (profiled_gpu(t) == NULL) return NULL;
    dp_device *d = test_shared(t, "profiled device", open_profiled_device, close_profiled_device);
    const dp_model_options options = { .context = 128, .batch = 80, .sessions = 1 };
    dp_model *m = d != NULL ? dp_model_open(d, path, &options, &t->err) : NULL;
    CHECK(t, m != NULL);
    return m;
}

static uint64_t part_bytes(const weight *w) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < w->n_parts && w->n_pieces > 0; i++)
        sum += w->parts[i].range.size;
    return sum;
}

/* Sum over the calls of a plan of the bytes and operations that some sizes come to. Of the two
 * calls that attention may have in a pass of one row one is run: that for many keys counts. */
static gpu_cost_term plan_cost(const gpu_plan *p, const gpu_sizes *sizes) {
    gpu_cost_term sum = { 0 };
    for (uint32_t i = 0; i < gpu_plan_n_calls(p); i++) {
        const gpu_call *call = gpu_plan_call(p, i);
        const gpu_cost_term one = gpu_cost_of(&call->cost, sizes);
        if (call->groups[1].size != SIZE_WHOLE) {
            sum.bytes += one.bytes;
            sum.flops += one.flops;
        }
    }
    return sum;
}

/* By what changes if one size does: rows and keys apart, and weights as what is left without. */
static void costs_follow_from_shapes(test *t) {
    dp_model *m = profiled_model(t, MODEL);
    if (m == NULL) return;
    const config *c = &m->config;
    uint64_t matrices = 0, multiplied = 0;
    for (uint32_t i = 0; i < c->n_layers; i++) {
        const layer_weights *l = &m->weights.layers[i];
        const weight *const all[] = { &l->q, &l->k, &l->v, &l->o, &l->gate, &l->up, &l->down };
        for (size_t j = 0; j < ARRAY_LEN(all); j++) {
            matrices += part_bytes(all[j]);
            multiplied += (uint64_t)all[j]->rows * all[j]->cols;
        }
    }
    for (pass_kind kind = PASS_ONE; kind < PASS_COUNT; kind++) {
        test_row(t, "pass %d", (int)kind);
        gpu_sizes sizes = { { 1 } };
        const gpu_plan *body = m->body[kind][0], *head = m->head[kind];
        CHECK_U64(t, plan_cost(body, &sizes).bytes, matrices);
        CHECK_U64(t, plan_cost(head, &sizes).bytes, part_bytes(&m->weights.head));
        sizes.n[SIZE_OUT] = 3;
        CHECK_U64(t, plan_cost(head, &sizes).flops, 3 * 2ull * c->vocab_size * c->dim);
        sizes.n[SIZE_ROWS] = 5;
        CHECK_U64(t, plan_cost(body, &sizes).flops, 5 * 2 * multiplied);
        /* a key's scores and values in every layer: twice n_heads * head_dim products and sums */
        const gpu_cost_term rows = plan_cost(body, &sizes);
        sizes.n[SIZE_KEYS] = 7;
        const gpu_cost_term keys = plan_cost(body, &sizes);
        CHECK_U64(t, keys.flops - rows.flops, 7 * 4ull * c->n_heads * c->head_dim * c->n_layers);
        const uint64_t key = 2ull * c->n_layers * c->n_kv_heads * ceil_div(c->head_dim, 4) *
                             (m->shapes.f16 ? 8 : 16);
        if (!pass_is_prefill(kind)) {
            CHECK_U64(t, keys.bytes - rows.bytes, 7 * key);
        } else {
            CHECK_U64(t, keys.bytes, rows.bytes);
            sizes.n[SIZE_LONGEST] = 2;
            CHECK_U64(t, plan_cost(body, &sizes).bytes - rows.bytes, 2 * key);
        }
    }
    dp_model_close(m);
}

/* A layer's window bounds the keys of a row; experts are read once at most, however many rows. */
static void costs_know_windows_and_experts(test *t) {
    dp_model *m = profiled_model(t, "tests/vectors/families/mistral-window");
    if (m == NULL) return;
    uint32_t window = 0;
    for (uint32_t i = 0; i < m->config.n_layers; i++)
        window = max_u32(window, m->config.layer_window[i]);
    if (CHECK(t, window > 0 && window < 100)) {
        gpu_sizes near = { { 1 } }, far = { { 1 } };
        near.n[SIZE_ROWS] = far.n[SIZE_ROWS] = 2;
        near.n[SIZE_KEYS] = 2 * window;
        far.n[SIZE_KEYS] = 200;
        const gpu_plan *body = m->body[PASS_ONE][0];
        CHECK_U64(t, plan_cost(body, &far).flops, plan_cost(body, &near).flops);
        near.n[SIZE_KEYS] = window;
        CHECK(t, plan_cost(body, &far).flops > plan_cost(body, &near).flops);
    }
    dp_model_close(m);
    m = profiled_model(t, "tests/vectors/families/mixtral");
    if (m == NULL) return;
    const uint32_t n_experts = m->config.n_experts, used = m->config.n_experts_used;
    uint64_t experts = 0;
    for (uint32_t i = 0; i < m->config.n_layers; i++) {
        const layer_weights *l = &m->weights.layers[i];
        experts +=
            part_bytes(&l->expert_gate) + part_bytes(&l->expert_up) + part_bytes(&l->expert_down);
    }
    const gpu_plan *body = m->body[PASS_ONE][0];
    const gpu_sizes none = { { 1 } };
    gpu_sizes rows = { { 1, [SIZE_ROWS] = 1 } };
    uint64_t bytes[3];
    for (uint32_t i = 0; i < 3; i++) {
        rows.n[SIZE_ROWS] = (uint32_t[]){ 0, n_experts / used, n_experts / used + 1 }[i];
        bytes[i] = 0;
        for (uint32_t j = 0; j < gpu_plan_n_calls(body); j++) { /* without activations */
            gpu_cost cost = gpu_plan_call(body, j)->cost;
            cost.terms[1].bytes = 0;
            bytes[i] += gpu_cost_of(&cost, &rows).bytes;
        }
    }
    CHECK_U64(t, bytes[0], plan_cost(body, &none).bytes);
    CHECK_U64(t, bytes[1] - bytes[0], experts);
    CHECK_U64(t, bytes[2], bytes[1]);
    dp_model_close(m);
}

static uint32_t calls_in(const dp_op_time *ops, size_t n, const char *role) {
    uint32_t calls = 0;
    for (size_t i = 0; i < n; i++)
        calls += strcmp(ops[i].role, role) == 0 ? ops[i].calls : 0;
    return calls;
}

/* Calls of a plan that these sizes leave something to do. */
static uint32_t calls_that_run(const gpu_plan *p, const gpu_sizes *sizes) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < gpu_plan_n_calls(p); i++) {
        bool runs = true;
        for (int d = 0; d < 3; d++) {
            const uint32_t size = gpu_plan_call(p, i)->groups[d].size;
            runs = runs && (size == 0 || sizes->n[size] > 0);
        }
        n += runs;
    }
    return n;
}

static void check_ops(test *t, const dp_model *m, const dp_op_time *ops, size_t n, bool sampler) {
    static const char *const roles[] = { "embed",       "attn qkv", "attn", "attn out",
                                         "ffn gate up", "ffn down", "head" };
    uint32_t calls = 0;
    for (size_t i = 0; i < ARRAY_LEN(roles); i++) {
        test_row(t, "%s", roles[i]);
        CHECK(t, calls_in(ops, n, roles[i]) > 0);
        calls += calls_in(ops, n, roles[i]);
    }
    test_row(t, "%s", "");
    CHECK_U64(t, calls,
              calls_that_run(m->body[m->latest.kind][0], &m->latest.sizes) +
                  calls_that_run(m->head[m->latest.head], &m->latest.sizes));
    CHECK_U64(t, calls_in(ops, n, "sampler"), sampler ? gpu_plan_n_calls(m->sampled) : 0);
    for (size_t i = 0; i < n; i++) {
        CHECK(t, ops[i].nanoseconds > 0 && ops[i].n_timed > 0 && ops[i].calls > 0);
        CHECK(t, ops[i].kernel[0] != '\0' && ops[i].groups[0] > 0);
        CHECK(t, ops[i].phase == (sampler ? DP_PHASE_DECODE : DP_PHASE_PREFILL));
        CHECK(t, (ops[i].in_place_nanoseconds == 0) == (strcmp(ops[i].role, "sampler") == 0));
    }
}

static void timing_changes_no_answer(test *t) {
    dp_model *m = profiled_model(t, MODEL);
    if (m == NULL) return;
    dp_session *s = dp_session_new(m, &t->err);
    dp_token tokens[40], drawn[2][4];
    dp_op_time *ops = test_alloc(t, 200, sizeof(*ops));
    const uint32_t vocab = m->config.vocab_size;
    float *logits[2] = { test_alloc(t, vocab, 4), test_alloc(t, vocab, 4) };
    const dp_sampling sampling = { .temperature = 1, .seed = 7, .repeat_penalty = 1.5f };
    size_t n, few;
    for (uint32_t i = 0; i < ARRAY_LEN(tokens); i++)
        tokens[i] = (7 * i + 1) % vocab;
    if (!CHECK(t, s != NULL && dp_session_set_sampling(s, &sampling, &t->err))) return;
    for (int round = 0; round < 2; round++) {
        CHECK(t, dp_session_rewind(s, 0, &t->err));
        CHECK(t, dp_session_set_sampling(s, &sampling, &t->err));
        CHECK(t, dp_session_eval(s, tokens, 9, &t->err));
        if (round == 1) {
            CHECK(t, dp_session_time_ops(s, tokens + 9, 1, ops, 200, &n, &t->err));
            check_ops(t, m, ops, n, true);
            CHECK(t, dp_session_time_ops(s, tokens + 9, 1, ops, 2, &few, &t->err));
            CHECK_U64(t, few, n);
            CHECK(t, dp_session_time_ops(s, tokens + 9, 31, ops, 200, &n, &t->err));
            check_ops(t, m, ops, n, false);
            size_t held;
            (void)dp_session_tokens(s, &held);
            CHECK_U64(t, held, 9);
        }
        /* without logits until the next token; then everything is as if nothing had been timed */
        CHECK(t, dp_session_eval(s, tokens + 9, 1, &t->err));
        CHECK(t, dp_session_get_logits(s, logits[round], &t->err));
        uint32_t count;
        dp_session *const list[] = { s };
        CHECK(t, dp_batch_generate(list, 1, 4, true, drawn[round], &count, &t->err));
    }
    CHECK(t, memcmp(logits[0], logits[1], vocab * 4) == 0);
    CHECK(t, memcmp(drawn[0], drawn[1], sizeof(drawn[0])) == 0);
    CHECK(t, !dp_session_time_ops(s, tokens, 0, ops, 200, &n, &t->err));
    CHECK_ERROR(t, &t->err, DP_E_ARGUMENT, "a pass of 0 tokens: 1 to 80 expected");
    CHECK(t, !dp_session_time_ops(s, tokens, 81, ops, 200, &n, &t->err));
    CHECK_ERROR(t, &t->err, DP_E_ARGUMENT, "a pass of 81 tokens");
    dp_session_free(s);
    dp_model_close(m);
}

static void without_a_profile_nothing_is_timed(test *t) {
    dp_device_options o = profiled();
    o.profile = false;
    dp_device *d = dp_device_open(&o, &t->err);
    const dp_model_options options = { .context = 64, .batch = 16, .sessions = 1 };
    dp_model *m = d != NULL ? dp_model_open(d, MODEL, &options, &t->err) : NULL;
    dp_session *s = m != NULL ? dp_session_new(m, &t->err) : NULL;
    if (!CHECK(t, s != NULL)) return;
    dp_device_peaks peaks;
    dp_profile_phase phases[DP_PHASES];
    dp_op_time op;
    dp_profile_row row;
    dp_stats stats;
    size_t n = 1;
    const dp_token token = 1;
    dp_profile_set_mode(d, DP_PROFILE_STEPS);
    CHECK(t, dp_session_eval(s, &token, 1, &t->err));
    CHECK(t, !dp_device_get_peaks(d, &peaks, &t->err));
    CHECK_ERROR(t, &t->err, DP_E_UNSUPPORTED, "without a profile");
    CHECK(t, !dp_session_time_ops(s, &token, 1, &op, 1, &n, &t->err));
    CHECK_ERROR(t, &t->err, DP_E_UNSUPPORTED, "without a profile");
    dp_device_get_profile(d, &row, 1, &n);
    CHECK_U64(t, n, 0);
    dp_device_get_phases(d, phases);
    CHECK_U64(t, phases[0].kernel_rows + phases[0].step_rows + phases[0].step_nanoseconds, 0);
    dp_device_get_stats(d, &stats); /* the host's times need no profile */
    CHECK(t, stats.encode_ns > 0 && stats.submit_ns > 0);
    dp_session_free(s);
    dp_model_close(m);
    dp_device_close(d);
}

static const test_case cases[] = {
    { "kernels are told by role, kernel and phase", kernels_are_told_by_role_kernel_and_phase },
    { "steps are timed as they are", steps_are_timed_as_they_are },
    { "a call alone runs over true copies", a_call_alone_runs_over_true_copies },
    { "peaks are measured once", peaks_are_measured_once },
    { "traces put things in order", traces_put_things_in_order },
    { "costs follow from shapes", costs_follow_from_shapes },
    { "costs know windows and experts", costs_know_windows_and_experts },
    { "timing changes no answer", timing_changes_no_answer },
    { "without a profile nothing is timed", without_a_profile_nothing_is_timed },
};

extern const test_group profile_tests;
const test_group profile_tests = { "profile", cases, ARRAY_LEN(cases) };
