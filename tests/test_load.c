/* Loading: pipelines made by threads, staging memory, weights read by threads; and what happens
 * when one of them fails, when the caller says stop, when memory runs out. The model is the
 * repository's own, 14.7 MB: two loads of 8 MiB and so two threads, if there are two processors. */
#include "gpu/gpu.h"
#include "model/model.h"
#include "tests/test.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

static const char *const FOLDER = "models/tale-8m";

static void *open_gpu(test *t) {
    const dp_device_options o = test_device_options();
    return gpu_open(&o, &t->err);
}

static void close_gpu(void *g) {
    gpu_close(g);
}

static gpu *shared_gpu(test *t) {
    return test_shared(t, "gpu of loads", open_gpu, close_gpu);
}

static void *open_device(test *t) {
    const dp_device_options o = test_device_options();
    return dp_device_open(&o, &t->err);
}

static void close_device(void *d) {
    dp_device_close(d);
}

static dp_device *shared_device(test *t) {
    return test_shared(t, "device of loads", open_device, close_device);
}

/* Of the shared device, once all that was submitted is done and what was freed is gone: a model
 * that only plans lends its gpu. */
static uint64_t settled_bytes(test *t) {
    const dp_model_options options = { .context = 64, .plan_only = true };
    dp_model *m = dp_model_open(shared_device(t), FOLDER, &options, &t->err);
    if (!CHECK(t, m != NULL)) return 0;
    gpu *g = m->gpu;
    dp_model_close(m);
    gpu_ticket ticket = 0;
    if (!CHECK(t, gpu_submit(gpu_begin(g), &ticket, &t->err))) return 0;
    gpu_wait(g, ticket);
    CHECK(t, gpu_collect(g, ticket, NULL, 0, &t->err));
    return gpu_stats(g)->device_bytes;
}

/* ---- pipelines ----------------------------------------------------------------------------- */

/* y[0] = ADD, or no WGSL at all. */
typedef struct {
    uint32_t add;
} put_consts;

#define PUT_SOURCE(file, body)                                                              \
    {                                                                                       \
        .name = file,                                                                       \
        .text = "override ADD: u32;\n"                                                      \
                "@group(0) @binding(0) var<storage, read_write> y: array<u32>;\n"           \
                "@compute @workgroup_size(1) fn " file "() {" body "}\n",                   \
        .bindings = (const gpu_binding[]){ { "y", 0, GPU_ACCESS_WRITE } }, .n_bindings = 1, \
        .consts = (const gpu_const[]){ { "ADD", GPU_CONST_U32, 0 } }, .n_consts = 1,        \
        .consts_size = sizeof(put_consts)                                                   \
    }

static const gpu_source put_source = PUT_SOURCE("put", "y[0] = ADD;");
static const gpu_source wrong_type_source = PUT_SOURCE("wrong_type", "y[0] = 1.5;");
static const gpu_source wrong_size_source =
    PUT_SOURCE("wrong_size", "y[0] = array<u32, 2>(1, 2)[ADD];");

static gpu_plan *plan_of(test *t, gpu *g, gpu_buffer *y, const gpu_source *source, uint32_t add) {
    gpu_plan *p = gpu_plan_new(g, &t->err);
    if (!CHECK(t, p != NULL)) return NULL;
    const gpu_call call = { .kernel =
                                gpu_kernel_get(g, source, NULL, &(put_consts){ add }, &t->err),
                            .bind = { gpu_whole(y) } };
    gpu_plan_add(p, &call);
    return p;
}

/* While threads make pipelines, some of them faulty, the device's owner has failures of its own:
 * each is told to whom it belongs, and none becomes a fault of the device. */
static void faults_of_threads_have_their_names(test *t) {
    enum { N = 24 };
    const dp_device_options o = test_device_options();
    gpu *g = gpu_open(&o, &t->err);
    gpu_buffer *y = g != NULL ? gpu_buffer_new(g, 4, "y", &t->err) : NULL;
    gpu_plan *plans[N];
    if (!CHECK(t, y != NULL)) return;
    for (uint32_t i = 0; i < N; i++) {
        plans[i] = plan_of(t, g, y, i % 3 == 1 ? &wrong_type_source : &put_source, 100 + i);
        if (plans[i] == NULL) return;
    }
    gpu_plan *out = plan_of(t, g, y, &wrong_size_source, 7);
    gpu_kernels_start(g);
    for (int i = 0; i < 50; i++) {
        gpu_buffer *b = gpu_buffer_new(g, 4096, "a buffer", &t->err);
        CHECK(t, b != NULL);
        gpu_buffer_free(b);
    }
    for (uint32_t i = 0; i < N; i++) {
        test_row(t, "plan %u", i);
        if (i % 3 == 1) {
            CHECK(t, !gpu_plan_finish(plans[i], &t->err));
            CHECK_ERROR(t, &t->err, DP_E_DEVICE, "kernel wrong_type: ");
            continue;
        }
        uint32_t got = 0;
        if (!CHECK(t, gpu_plan_finish(plans[i], &t->err))) continue;
        gpu_encoder *e = gpu_begin(g);
        gpu_encode(e, plans[i], &(gpu_sizes){ { 1 } });
        CHECK(t, gpu_submit(e, NULL, &t->err));
        CHECK(t, gpu_read(g, gpu_whole(y), &got, &t->err));
        CHECK_U64(t, got, 100 + i);
    }
    test_row(t, "an index that an override puts out of range");
    CHECK(t, !gpu_plan_finish(out, &t->err));
    CHECK_ERROR(t, &t->err, DP_E_DEVICE, "kernel wrong_size: ");
    gpu_close(g);
}

static bool ask_for_pipelines(test *t, gpu *g, uint32_t first, uint32_t n) {
    for (uint32_t i = first; i < first + n; i++) {
        if (!CHECK(t, gpu_kernel_get(g, &put_source, NULL, &(put_consts){ i }, &t->err) != NULL)) {
            return false;
        }
    }
    gpu_kernels_start(g);
    return true;
}

/* A device may be closed while pipelines are made and others wait: these are dropped. Thirty times
 * as many as are made first would take thirty times the processor's time; half of that is far from
 * both. */
static void closing_does_not_wait_for_the_queue(test *t) {
    enum { FEW = 100, MANY = 3000 };
    const dp_device_options o = test_device_options();
    gpu *g = gpu_open(&o, &t->err);
    if (!CHECK(t, g != NULL)) return;
    const clock_t start = clock();
    const bool made = ask_for_pipelines(t, g, 0, FEW) && gpu_kernels_wait(g, &t->err);
    const clock_t few = clock();
    const bool background = strcmp(gpu_info(g)->library, "wgpu-native") == 0;
    CHECK(t, made && ask_for_pipelines(t, g, FEW, background ? MANY : FEW));
    gpu_close(g);
    if (background) CHECK(t, clock() - few < (few - start) * (MANY / FEW / 2));
}

/* ---- staging ------------------------------------------------------------------------------- */

static void staged_pieces_arrive_where_they_are_sent(test *t) {
    enum { WORDS = 4096, PIECES = 3, ROUNDS = 40 };
    gpu *g = shared_gpu(t);
    if (!CHECK(t, g != NULL)) return;
    gpu_buffer *b = gpu_buffer_new(g, ROUNDS * WORDS * 4, "staged", &t->err);
    gpu_staging *s = gpu_staging_new(g, PIECES, WORDS * 4, &t->err);
    if (!CHECK(t, b != NULL && s != NULL)) return;
    const uint64_t held = gpu_stats(g)->device_bytes;
    uint32_t taken[PIECES], extra = 0;
    for (uint32_t i = 0; i < PIECES; i++) { /* all there are, and no more */
        CHECK(t, gpu_staging_take(s, false, &taken[i], &t->err) != NULL);
    }
    CHECK(t, gpu_staging_take(s, false, &extra, &t->err) == NULL && t->err.status == DP_OK);
    for (uint32_t i = 0; i < PIECES; i++)
        CHECK(t, gpu_staging_send(s, taken[i], NULL, 0, &t->err));
    for (uint32_t round = 0; round < ROUNDS; round++) {
        uint32_t piece;
        uint32_t *words = gpu_staging_take(s, true, &piece, &t->err);
        if (!CHECK(t, words != NULL)) break;
        for (uint32_t i = 0; i < WORDS; i++)
            words[i] = round * WORDS + i;
        /* the halves change places, so that both offsets count */
        const gpu_range to = gpu_part(gpu_whole(b), (uint64_t)round * WORDS * 4, WORDS * 4);
        const gpu_staged halves[] = { { gpu_part(to, WORDS * 2, WORDS * 2), 0 },
                                      { gpu_part(to, 0, WORDS * 2), WORDS * 2 } };
        CHECK(t, gpu_staging_send(s, piece, halves, 2, &t->err));
    }
    CHECK_U64(t, gpu_stats(g)->device_bytes, held); /* it is the host's memory */
    uint32_t *got = test_alloc(t, ROUNDS * WORDS, 4), n_wrong = 0;
    CHECK(t, gpu_read(g, gpu_whole(b), got, &t->err));
    for (uint32_t i = 0; i < ROUNDS * WORDS; i++)
        n_wrong += got[i] != (i ^ WORDS / 2);
    CHECK_U64(t, n_wrong, 0);
    gpu_staging_free(s);
    gpu_staging_free(NULL);
    gpu_buffer_free(b);
}

static void staging_ends_with_the_device(test *t) {
    const dp_device_options o = test_device_options();
    gpu *g = gpu_open(&o, &t->err);
    gpu_buffer *b = g != NULL ? gpu_buffer_new(g, 64, "staged", &t->err) : NULL;
    gpu_staging *s = b != NULL ? gpu_staging_new(g, 2, 64, &t->err) : NULL;
    if (!CHECK(t, s != NULL)) return;
    uint32_t first = 0, second = 0;
    CHECK(t, gpu_staging_take(s, false, &first, &t->err) != NULL);
    CHECK(t, gpu_staging_take(s, false, &second, &t->err) != NULL);
    CHECK(t, gpu_staging_send(s, first, &(gpu_staged){ gpu_whole(b), 0 }, 1, &t->err));
    gpu_lose(g);
    CHECK(t, !gpu_staging_send(s, second, &(gpu_staged){ gpu_whole(b), 0 }, 1, &t->err));
    CHECK_ERROR(t, &t->err, DP_E_DEVICE, "lost");
    CHECK(t, gpu_staging_take(s, true, &first, &t->err) == NULL);
    CHECK_ERROR(t, &t->err, DP_E_DEVICE, "lost");
    gpu_staging_free(s);
    CHECK(t, gpu_staging_new(g, 1, 64, &t->err) == NULL);
    CHECK_ERROR(t, &t->err, DP_E_DEVICE, "lost");
    gpu_close(g);
}

/* ---- weights ------------------------------------------------------------------------------- */

/* What a load does just before the weights travel, and with the first piece that has. */
typedef struct {
    const char *cut; /* a file made shorter; NULL: none */
    off_t cut_at;
    uint64_t fail_from; /* allocation; 0: none */
    bool stop;
    uint64_t done, total;
    uint32_t n_calls;
    char rate[120]; /* the line that tells how fast it was */
} interference;

static void on_log(void *user, dp_log_level level, const char *line) {
    interference *with = user;
    (void)level;
    if (strstr(line, "of weights at") != NULL) snprintf(with->rate, sizeof with->rate, "%s", line);
    if (strstr(line, "passes recorded") == NULL) return;
    if (with->cut != NULL && truncate(with->cut, with->cut_at) != 0) with->cut = NULL;
    mem_fail_from(with->fail_from);
}

static bool on_load(void *user, uint64_t done, uint64_t total) {
    interference *with = user;
    with->n_calls++;
    with->done = done;
    with->total = total;
    return !with->stop;
}

static dp_model *load(test *t, const char *path, interference *with) {
    const dp_model_options options = {
        .context = 64,
        .batch = 16,
        .sessions = 1,
        .progress = on_load,
        .progress_user = with,
        .log = on_log,
        .log_user = with,
    };
    dp_device *device = shared_device(t);
    if (!CHECK(t, device != NULL)) return NULL;
    dp_model *m = dp_model_open(device, path, &options, &t->err);
    mem_fail_from(0);
    return m;
}

static void check_matrix(test *t, dp_model *m, const weight *w) {
    uint64_t row_bytes = 0;
    const uint32_t step = upload_rows(w, &row_bytes);
    unsigned char *scratch = test_alloc(t, 1, UPLOAD_BYTES), *want = test_alloc(t, 1, UPLOAD_BYTES),
                  *got = test_alloc(t, 1, UPLOAD_BYTES);
    for (uint32_t i = 0; i < w->n_parts; i++) {
        const weight_part *p = &w->parts[i];
        for (uint32_t row = 0; row < p->rows; row += step) {
            const uint32_t n = min_u32(step, p->rows - row);
            const gpu_range range = gpu_part(p->range, row * row_bytes, n * row_bytes);
            CHECK(t, weight_read_device(m->files, w, p->first + row, n, scratch, want, &t->err));
            CHECK(t, gpu_read(m->gpu, range, got, &t->err));
            CHECK_MSG(t, memcmp(got, want, n * row_bytes) == 0, "%.*s, rows from %u",
                      STR_ARG(w->pieces->source->name), p->first + row);
        }
    }
}

static void check_vector(test *t, dp_model *m, const vector *v) {
    float *want = test_floats(t, v->n), *got = test_floats(t, v->n);
    CHECK(t, vector_read(m->files, v, 0, v->n, want, &t->err));
    CHECK(t, gpu_read(m->gpu, gpu_part(v->range, 0, v->n * sizeof *got), got, &t->err));
    CHECK(t, memcmp(got, want, v->n * sizeof *got) == 0);
}

/* Every byte on the device is what a single reader makes of the files. */
static void weights_arrive_as_they_are_read(test *t) {
    interference with = { 0 };
    dp_model *m = load(t, FOLDER, &with);
    if (!CHECK(t, m != NULL)) return;
    check_matrix(t, m, &m->weights.embedding);
    check_vector(t, m, &m->weights.output_norm);
    for (uint32_t i = 0; i < m->config.n_layers; i++) {
        const layer_weights *l = &m->weights.layers[i];
        const weight *const matrices[] = { &l->q, &l->k, &l->v, &l->o, &l->gate, &l->up, &l->down };
        for (size_t k = 0; k < ARRAY_LEN(matrices); k++) {
            check_matrix(t, m, matrices[k]);
        }
        check_vector(t, m, &l->attn_norm);
        check_vector(t, m, &l->ffn_norm);
    }
    CHECK(t, with.n_calls >= 2); /* loads: the case is about several */
    CHECK_U64(t, with.done, with.total);
    CHECK(t, with.total > (14 << 20) && with.total <= m->weights.bytes);
    CHECK(t, strstr(with.rate, "GB/s") != NULL);
    dp_model_close(m);
}

static void copy_file(test *t, const char *name) {
    const str bytes = test_read_file(t, test_printf(t, "%s/%s", FOLDER, name));
    if (CHECK(t, bytes.data != NULL)) test_write(t, name, bytes.data, bytes.size);
}

static const char *copy_model(test *t) {
    copy_file(t, "config.json");
    copy_file(t, "tokenizer.json");
    copy_file(t, "tokenizer_config.json");
    copy_file(t, "model.safetensors");
    return test_folder(t);
}

static void check_cut(test *t, const char *folder, off_t cut) {
    container *files = container_open(folder, false, &t->err);
    if (!CHECK(t, files != NULL)) return;
    const tensor *at = NULL;
    for (uint32_t i = 0; i < container_n_tensors(files); i++) {
        const tensor *x = container_tensor(files, i);
        const bool lost = x->offset + x->n_bytes > (uint64_t)cut;
        if (lost && (at == NULL || x->offset < at->offset)) at = x;
    }
    if (!CHECK(t, at != NULL)) return;
    const char *name = test_printf(t, "tensor %.*s: ", STR_ARG(at->name));
    container_close(files);
    const char *path = test_printf(t, "%s/model.safetensors", folder);
    interference with = { .cut = path, .cut_at = cut };
    const uint64_t before = settled_bytes(t);
    CHECK(t, load(t, folder, &with) == NULL && with.cut != NULL);
    CHECK(t, strstr(t->err.message, "ends at") != NULL);
    CHECK_ERROR(t, &t->err, DP_E_FILE, name);
    CHECK_U64(t, settled_bytes(t), before);
}

/* The file loses its end after it was opened: loads fail at tensors of their own, and the one that
 * is reported is that at which the file now ends. */
static void the_first_failure_in_the_file_is_reported(test *t) {
    static const off_t cuts[] = { 7 << 20, 64 << 10 }; /* late in the first load; at its start */
    for (size_t i = 0; i < ARRAY_LEN(cuts); i++) {
        test_row(t, "cut at %lld", (long long)cuts[i]);
        check_cut(t, copy_model(t), cuts[i]);
    }
}

static void a_stopped_load_leaves_nothing(test *t) {
    interference with = { .stop = true };
    const uint64_t before = settled_bytes(t);
    CHECK(t, load(t, FOLDER, &with) == NULL);
    CHECK_ERROR(t, &t->err, DP_E_CANCELLED, "loading was cancelled");
    CHECK_U64(t, with.n_calls, 1); /* nobody is asked again */
    CHECK_U64(t, settled_bytes(t), before);
}

/* From the moment at which the weights begin to travel, with threads at work. */
static void a_load_survives_each_allocation_failing(test *t) {
    const uint64_t before = settled_bytes(t);
    dp_model *m = NULL;
    uint64_t n = 1;
    for (; m == NULL && n < 1000; n += n < 12 ? 1 : 7) { /* pipelines' many bind groups follow */
        interference with = { .fail_from = n };
        test_row(t, "allocation %llu", (unsigned long long)n);
        m = load(t, FOLDER, &with);
        if (m != NULL) break;
        if (!CHECK_ERROR(t, &t->err, DP_E_MEMORY, "out of memory")) break;
        CHECK_U64(t, settled_bytes(t), before);
    }
    CHECK(t, m != NULL && n > 6);
    dp_model_close(m);
}

/* Passes up to `last` have dispatches, those of more rows have none. */
static void check_dispatches(test *t, const dp_model *m, dp_pass last) {
    char line[256];
    for (dp_pass pass = DP_PASS_ONE; pass <= DP_PASS_MANY; pass++) {
        test_row(t, "dispatches of pass %d", (int)pass);
        uint32_t calls = 0;
        while (dp_model_get_dispatch(m, pass, calls, line, sizeof line))
            calls++;
        if (pass > last) {
            CHECK_U64(t, calls, 0);
            continue;
        }
        CHECK_U64(t, calls, gpu_plan_n_calls(m->body[pass][0]) + gpu_plan_n_calls(m->head[pass]));
        CHECK(t, calls > 8 && strstr(line, " x ") != NULL);
    }
}

static void plans_end_with_the_batch(test *t) {
    static const struct {
        uint32_t batch;
        dp_pass last;
    } list[] = { { 1, DP_PASS_SOME },
                 { 16, DP_PASS_SOME },
                 { 17, DP_PASS_SHORT },
                 { 64, DP_PASS_SHORT },
                 { 65, DP_PASS_MANY } };
    for (size_t i = 0; i < ARRAY_LEN(list); i++) {
        const dp_model_options options = { .context = 64,
                                           .batch = list[i].batch,
                                           .plan_only = true };
        dp_model *m = dp_model_open(shared_device(t), FOLDER, &options, &t->err);
        if (!CHECK(t, m != NULL)) return;
        check_dispatches(t, m, list[i].last);
        dp_model_close(m);
    }
}

/* A plan takes the memory that it tells of, no weights and no pipelines. */
static void plans_tell_without_loading(test *t) {
    const dp_model_options options = { .context = 64, .batch = 16, .plan_only = true };
    dp_device *device = shared_device(t);
    dp_stats before, after;
    const uint64_t held = settled_bytes(t);
    dp_device_get_stats(device, &before);
    dp_model *m = dp_model_open(device, FOLDER, &options, &t->err);
    if (!CHECK(t, m != NULL)) return;
    dp_device_get_stats(device, &after);
    CHECK(t, after.bytes_written - before.bytes_written < 1 << 20);
    dp_memory_row rows[64];
    size_t n = 0, few = 0;
    uint64_t total = 0, of_weights = 0, of_cache = 0;
    dp_model_get_memory(m, rows, ARRAY_LEN(rows), &n);
    if (!CHECK(t, n > 10 && n <= ARRAY_LEN(rows))) return;
    for (size_t i = 0; i < n; i++) {
        total += strcmp(rows[i].group, "staging") != 0 ? rows[i].bytes : 0;
        of_weights += strcmp(rows[i].group, "weights") == 0 ? rows[i].bytes : 0;
        of_cache += strcmp(rows[i].group, "KV cache") == 0 ? rows[i].bytes : 0;
        CHECK_U64(t, rows[i].n_cut, 0);
    }
    CHECK_U64(t, total, m->memory.total);
    CHECK_U64(t, of_weights, m->memory.weights);
    CHECK_U64(t, of_cache, m->memory.kv_cache);
    dp_model_get_memory(m, NULL, 0, &few);
    CHECK_U64(t, few, n);
    check_dispatches(t, m, DP_PASS_SOME);
    CHECK(t, dp_session_new(m, &t->err) == NULL);
    CHECK_ERROR(t, &t->err, DP_E_ARGUMENT, "opened without its weights");
    dp_model_close(m);
    CHECK_U64(t, settled_bytes(t), held);
}

static const test_case cases[] = {
    { "faults of threads have their names", faults_of_threads_have_their_names },
    { "closing does not wait for the queue", closing_does_not_wait_for_the_queue },
    { "staged pieces arrive where they are sent", staged_pieces_arrive_where_they_are_sent },
    { "staging ends with the device", staging_ends_with_the_device },
    { "weights arrive as they are read", weights_arrive_as_they_are_read },
    { "the first failure in the file is reported", the_first_failure_in_the_file_is_reported },
    { "a stopped load leaves nothing", a_stopped_load_leaves_nothing },
    { "a load survives each allocation failing", a_load_survives_each_allocation_failing },
    { "plans tell without loading", plans_tell_without_loading },
    { "plans end with the batch", plans_end_with_the_batch },
};

const test_group load_tests = { "load", cases, ARRAY_LEN(cases) };
