/* test_gpu: the gpu layer on whatever device the runner is given: --webgpu=PATH, --device=N|NAME,
 * --no-f16, --no-subgroups. All numbers are integers, so every comparison is exact. */
#include "gpu/gpu.h"
#include "tests/test.h"

#include <time.h>

enum { GUARD = 0x5eed5eed };

static void *open_shared(test *t) {
    const dp_device_options o = test_device_options();
    return gpu_open(&o, &t->err);
}

static void close_shared(void *g) {
    gpu_close(g);
}

static gpu *device(test *t) {
    return test_shared(t, "gpu", open_shared, close_shared);
}

/* ---- kernels of the tests ------------------------------------------------------------------ */

/* chain: y[i] = change(x[i] * FACTOR) + p.add for i < p.n; the slot says what change does. */
typedef struct {
    uint32_t lanes;
    bool negate;
    int32_t bias;
    float factor;
} chain_consts;
typedef struct {
    uint32_t n, add;
} chain_params;
enum { CHAIN_X = 0, CHAIN_T = 1, CHAIN_Y = 2 };

static const gpu_source chain_source = {
    .name = "chain",
    .text = "override LANES: u32;\n"
            "override NEGATE: bool;\n"
            "override BIAS: i32;\n"
            "override FACTOR: f32;\n"
            "struct Params { n: u32, add: u32 }\n"
            "@group(0) @binding(0) var<storage, read> x: array<u32>;\n"
            "@group(0) @binding(2) var<storage, read_write> y: array<u32>;\n"
            "@group(1) @binding(0) var<uniform> p: Params;\n"
            "@compute @workgroup_size(LANES)\n"
            "fn chain(@builtin(workgroup_id) g: vec3u, @builtin(num_workgroups) s: vec3u,\n"
            "         @builtin(local_invocation_index) lane: u32) {\n"
            "    let i = (g.x + s.x * (g.y + s.y * g.z)) * LANES + lane;\n"
            "    if (i >= p.n) { return; }\n"
            "    var v = change(x[i] * u32(FACTOR)) + p.add + u32(BIAS);\n"
            "    if (NEGATE) { v = 0u - v; }\n"
            "    y[i] = v;\n"
            "}\n",
    .slots = (const char *const[]){ "change" },
    .slot_of = (const char *const[]){ "change" },
    .n_slots = 1,
    .bindings = (const gpu_binding[]){ { "x", CHAIN_X, GPU_ACCESS_READ },
                                       { "y", CHAIN_Y, GPU_ACCESS_WRITE } },
    .n_bindings = 2,
    .consts = (const gpu_const[]){ { "LANES", GPU_CONST_U32, offsetof(chain_consts, lanes) },
                                   { "NEGATE", GPU_CONST_BOOL, offsetof(chain_consts, negate) },
                                   { "BIAS", GPU_CONST_I32, offsetof(chain_consts, bias) },
                                   { "FACTOR", GPU_CONST_F32, offsetof(chain_consts, factor) } },
    .n_consts = 4,
    .consts_size = sizeof(chain_consts),
    .params_size = sizeof(chain_params),
};

static const gpu_fragment change_plain = { .slot = "change",
                                           .name = "plain",
                                           .text = "fn change(v: u32) -> u32 { return v; }\n" };
static const gpu_fragment change_table = {
    .slot = "change",
    .name = "table",
    .text = "@group(0) @binding(1) var<storage, read> t: array<u32>;\n"
            "fn change(v: u32) -> u32 { return t[v % arrayLength(&t)]; }\n",
    .bindings = (const gpu_binding[]){ { "t", CHAIN_T, GPU_ACCESS_READ } },
    .n_bindings = 1,
};

static const chain_consts plain_consts = { .lanes = 32, .factor = 1 };

static const gpu_kernel *chain_kernel(test *t, gpu *g, const gpu_fragment *change,
                                      const chain_consts *consts) {
    return gpu_kernel_get(g, &chain_source, &change, consts, &t->err);
}

/* tick: y[0] = y[0] * 5 + 1, the order of dispatches told by one number. */
static const gpu_source tick_source = {
    .name = "tick",
    .text = "@group(0) @binding(0) var<storage, read_write> y: array<u32>;\n"
            "@compute @workgroup_size(1) fn tick() { y[0] = y[0] * 5u + 1u; }\n",
    .bindings = (const gpu_binding[]){ { "y", 0, GPU_ACCESS_WRITE } },
    .n_bindings = 1,
};

static const gpu_sizes ones = { { 1, 1, 1, 1, 1, 1 } };

/* A plan of `n` ticks over y; NULL after a failed check. */
static gpu_plan *tick_plan(test *t, gpu *g, gpu_buffer *y, uint32_t n) {
    gpu_plan *p = gpu_plan_new(g, &t->err);
    const gpu_kernel *k = gpu_kernel_get(g, &tick_source, NULL, NULL, &t->err);
    if (!CHECK(t, p != NULL && k != NULL)) return NULL;
    const gpu_call call = { .kernel = k, .bind = { gpu_whole(y) } };
    for (uint32_t i = 0; i < n; i++)
        gpu_plan_add(p, &call);
    if (CHECK(t, gpu_plan_finish(p, &t->err))) return p;
    gpu_plan_free(p);
    return NULL;
}

static uint32_t ticks(uint32_t n) {
    uint32_t y = 0;
    while (n-- > 0)
        y = y * 5 + 1;
    return y;
}

/* ---- devices ------------------------------------------------------------------------------- */

static void opens_and_closes_repeatedly(test *t) {
    const dp_device_options o = test_device_options();
    for (int i = 0; i < 3; i++) {
        gpu *g = gpu_open(&o, &t->err);
        if (!CHECK(t, g != NULL)) return;
        const dp_device_info *info = gpu_info(g);
        CHECK(t, info->name[0] != '\0' && info->backend[0] != '\0' && info->library[0] != '\0');
        CHECK(t, info->max_binding >= 1 << 20 && info->max_buffer >= info->max_binding);
        CHECK(t, info->max_workgroup_lanes >= 256 && info->max_storage_buffers >= 8);
        CHECK_U64(t, info->max_workgroup_lanes & (info->max_workgroup_lanes - 1), 0);
        CHECK(t, info->subgroups == (info->subgroup_size > 0));
        CHECK(t, gpu_alignment(g) >= 256);
        CHECK_U64(t, gpu_stats(g)->submits, 0);
        CHECK(t, !gpu_is_lost(g));
        gpu_close(g);
    }
    gpu_close(NULL);
}

static void lists_adapters_and_finds_them_again(test *t) {
    dp_device_options o = test_device_options();
    dp_device_info list[8];
    size_t n = 0;
    if (!CHECK(t, gpu_list(&o, list, ARRAY_LEN(list), &n, &t->err)) || !CHECK(t, n >= 1)) return;
    CHECK(t, list[0].name[0] != '\0');
    size_t again = 0;
    CHECK(t, gpu_list(&o, NULL, 0, &again, &t->err));
    CHECK_U64(t, again, n);

    const char *names[] = { "0", test_printf(t, "%.6s", list[0].name) };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        o.adapter = names[i];
        gpu *g = gpu_open(&o, &t->err);
        if (CHECK_MSG(t, g != NULL, "no adapter \"%s\"", names[i])) {
            CHECK_STR(t, str_of(gpu_info(g)->name), list[0].name);
        }
        gpu_close(g);
    }
    o.adapter = "no such adapter";
    CHECK(t, gpu_open(&o, &t->err) == NULL);
    CHECK_ERROR(t, &t->err, DP_E_DEVICE, "no GPU \"no such adapter\"; there are: 0 ");
    o.adapter = "4000000000";
    CHECK(t, gpu_open(&o, &t->err) == NULL);
    CHECK_ERROR(t, &t->err, DP_E_DEVICE, "no GPU \"4000000000\"");
}

static void options_take_features_and_limits_away(test *t) {
    dp_device_options o = test_device_options();
    o.no_f16 = o.no_subgroups = true;
    o.max_binding = (1 << 20) + 7;
    gpu *g = gpu_open(&o, &t->err);
    if (!CHECK(t, g != NULL)) return;
    CHECK(t, !gpu_info(g)->f16 && !gpu_info(g)->subgroups && gpu_info(g)->subgroup_size == 0);
    CHECK_U64(t, gpu_info(g)->max_binding, (1 << 20) + 4);
    gpu_close(g);
    o.max_binding = 1000;
    CHECK(t, gpu_open(&o, &t->err) == NULL);
    CHECK_ERROR(t, &t->err, DP_E_DEVICE, "1000 bytes in a binding, at least 1048576");
}

static void names_a_library_that_is_missing_or_is_none(test *t) {
    dp_device_options o = { .webgpu = "/nowhere/libwebgpu.so" };
    CHECK(t, gpu_open(&o, &t->err) == NULL);
    CHECK_ERROR(t, &t->err, DP_E_DEVICE, "/nowhere/libwebgpu.so");
    o.webgpu = "libm.so.6";
    CHECK(t, gpu_open(&o, &t->err) == NULL);
    CHECK_ERROR(t, &t->err, DP_E_DEVICE, "libm.so.6 is no WebGPU library: it has no function wgpu");
    size_t n;
    CHECK(t, !gpu_list(&o, NULL, 0, &n, &t->err));
    CHECK_ERROR(t, &t->err, DP_E_DEVICE, "libm.so.6");
}

/* ---- buffers ------------------------------------------------------------------------------- */

static void writes_and_reads_any_range(test *t) {
    static const struct {
        uint64_t offset, size;
    } cases[] = {
        { 0, 4 },
        { 4, 12 },                    /* no power of two */
        { 252, 260 },                 /* across the offset alignment */
        { 0, 8 * 1024 * 1024 },       /* exactly two pieces of an upload */
        { 20, 5 * 1024 * 1024 + 4 },  /* a piece and a bit */
        { 0, 17 * 1024 * 1024 + 12 }, /* more than one read-back */
    };
    gpu *g = device(t);
    if (g == NULL) return;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const uint64_t offset = cases[i].offset, size = cases[i].size, words = size / 4;
        test_row(t, "%llu at %llu", (unsigned long long)size, (unsigned long long)offset);
        gpu_buffer *b = gpu_buffer_new(g, offset + size + 8, "test", &t->err);
        if (!CHECK(t, b != NULL)) return;
        CHECK_U64(t, gpu_buffer_size(b), offset + size + 8);
        uint32_t *want = test_alloc(t, words, 4), *got = test_alloc(t, words + 2, 4);
        uint32_t seed = (uint32_t)test_random(t);
        for (uint64_t j = 0; j < words; j++)
            want[j] = seed = seed * 1664525u + 1013904223u;
        const gpu_range all = gpu_whole(b);
        CHECK(t, gpu_write(g, gpu_part(all, offset, size), want, &t->err));
        CHECK(t, gpu_read(g, gpu_part(all, offset, size + 8), got, &t->err));
        CHECK(t, memcmp(got, want, (size_t)size) == 0);
        CHECK(t, got[words] == 0 && got[words + 1] == 0); /* a new buffer is zero behind it */
        uint32_t before = GUARD;
        if (offset > 0) CHECK(t, gpu_read(g, gpu_part(all, offset - 4, 4), &before, &t->err));
        CHECK(t, offset == 0 || before == 0); /* and in front */
        gpu_buffer_free(b);
    }
    gpu_buffer_free(NULL);
}

static void uploads_more_than_may_be_under_way(test *t) {
    gpu *g = device(t);
    if (g == NULL) return;
    enum { WORDS = 24 * 1024 * 1024 }; /* 96 MiB, the limit is 64 */
    gpu_buffer *b = gpu_buffer_new(g, WORDS * 4, "large", &t->err);
    uint32_t *words = test_alloc(t, WORDS, 4);
    if (!CHECK(t, b != NULL)) return;
    for (uint32_t i = 0; i < WORDS; i++)
        words[i] = i;
    const uint64_t submits = gpu_stats(g)->submits, bytes = gpu_stats(g)->bytes_written;
    CHECK(t, gpu_write(g, gpu_whole(b), words, &t->err));
    CHECK_U64(t, gpu_stats(g)->submits - submits, 3); /* one each 32 MiB */
    CHECK_U64(t, gpu_stats(g)->bytes_written - bytes, WORDS * 4);
    for (uint32_t i = 0; i < 97; i++) {
        const uint64_t at = (uint64_t)(WORDS - 1) * i / 96;
        uint32_t got = GUARD;
        CHECK(t, gpu_read(g, gpu_part(gpu_whole(b), at * 4, 4), &got, &t->err));
        CHECK_U64(t, got, at);
    }
    gpu_buffer_free(b);
}

static void refuses_memory_with_the_numbers(test *t) {
    enum { MAX = 1 << 20 };
    dp_device_options o = test_device_options();
    o.max_memory = MAX;
    gpu *g = gpu_open(&o, &t->err);
    if (!CHECK(t, g != NULL)) return;
    const uint64_t room = MAX - gpu_stats(g)->device_bytes; /* the probe left a read-back buffer */
    gpu_buffer *a = gpu_buffer_new(g, 1000000, "weights", &t->err);
    CHECK(t, a != NULL);
    CHECK(t, gpu_buffer_new(g, room - 1000000 + 4, "cache", &t->err) == NULL);
    CHECK_ERROR(t, &t->err, DP_E_MEMORY,
                test_printf(t, "cache: %llu bytes asked, %llu of the allowed 1048576 are left",
                            (unsigned long long)room - 1000000 + 4,
                            (unsigned long long)room - 1000000));
    gpu_buffer *b = gpu_buffer_new(g, room - 1000000, "cache", &t->err);
    CHECK(t, b != NULL);
    CHECK_U64(t, gpu_stats(g)->device_bytes, MAX);
    gpu_buffer_free(a);
    gpu_buffer_free(b);
    a = gpu_buffer_new(g, room, "all", &t->err); /* what was freed is there again */
    CHECK(t, a != NULL);
    CHECK_U64(t, gpu_stats(g)->device_bytes_peak, MAX);
    CHECK(t, gpu_buffer_new(g, UINT64_MAX, "endless", &t->err) == NULL);
    CHECK_ERROR(t, &t->err, DP_E_MEMORY, "a buffer of ");
    gpu_close(g); /* frees a */
}

static void frees_a_buffer_only_after_its_last_use(test *t) {
    gpu *g = device(t);
    if (g == NULL) return;
    gpu_buffer *y = gpu_buffer_new(g, 4, "y", &t->err),
               *copy = gpu_buffer_new(g, 4, "copy", &t->err);
    if (!CHECK(t, y != NULL && copy != NULL)) return;
    gpu_plan *p = tick_plan(t, g, y, 500);
    if (p == NULL) return;
    const uint64_t held = gpu_stats(g)->device_bytes;
    gpu_encoder *e = gpu_begin(g);
    gpu_encode(e, p, &ones);
    gpu_encode_copy(e, gpu_whole(copy), gpu_whole(y));
    gpu_plan_free(p);
    gpu_buffer_free(y); /* while it is being recorded */
    CHECK(t, gpu_stats(g)->device_bytes == held);
    CHECK(t, gpu_submit(e, NULL, &t->err));
    uint32_t got = 0;
    CHECK(t, gpu_read(g, gpu_whole(copy), &got, &t->err));
    CHECK_U64(t, got, ticks(500));
    gpu_buffer_free(copy);
    CHECK_U64(t, gpu_stats(g)->device_bytes, held - 8);
}

/* ---- kernels and plans --------------------------------------------------------------------- */

/* Three dependent dispatches in one pass, each with its own constants and parameters, with extents
 * that follow the sizes; two differ in their fragment, two in their constants alone. */
static void runs_a_plan_with_all_it_can_have(test *t) {
    static const struct {
        uint32_t n;
        const char *why;
    } cases[] = {
        { 1, "one lane" }, { 32, "one group" }, { 33, "a group and a bit" }, { 3000, "many" }
    };
    gpu *g = device(t);
    if (g == NULL) return;
    enum { MAX = 3008, TABLE = 7 };
    gpu_buffer *x = gpu_buffer_new(g, MAX * 4, "x", &t->err),
               *y = gpu_buffer_new(g, MAX * 4, "y", &t->err);
    gpu_buffer *table = gpu_buffer_new(g, TABLE * 4, "table", &t->err);
    const chain_consts second = { .lanes = 64, .negate = true, .bias = -3, .factor = 3 };
    const gpu_kernel *one = chain_kernel(t, g, &change_table, &plain_consts);
    const gpu_kernel *two = chain_kernel(t, g, &change_plain, &second);
    if (!CHECK(t, x != NULL && y != NULL && table != NULL && one != NULL && two != NULL)) return;
    const gpu_kernel *three = chain_kernel(t, g, &change_plain, &plain_consts);
    CHECK(t, three != NULL && three != two && one != two);
    CHECK(t, chain_kernel(t, g, &change_plain, &second) == two);
    uint32_t values[TABLE], in[MAX], out[MAX];
    for (uint32_t i = 0; i < TABLE; i++)
        values[i] = (uint32_t)test_random(t);
    for (uint32_t i = 0; i < MAX; i++)
        in[i] = (uint32_t)test_random(t);
    CHECK(t, gpu_write(g, gpu_whole(table), values, &t->err));
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const uint32_t n = cases[i].n;
        test_row(t, "%u, %s", n, cases[i].why);
        gpu_plan *p = gpu_plan_new(g, &t->err);
        if (!CHECK(t, p != NULL)) return;
        gpu_plan_add(p, &(gpu_call){
                            .kernel = one,
                            .bind = { [CHAIN_X] = gpu_whole(x),
                                      [CHAIN_T] = gpu_whole(table),
                                      [CHAIN_Y] = gpu_whole(y) },
                            .params = &(chain_params){ n, 11 },
                            .groups = { { .size = 1, .per = 32 } },
                        });
        gpu_plan_add(p, &(gpu_call){
                            .kernel = two,
                            .bind = { [CHAIN_X] = gpu_whole(y), [CHAIN_Y] = gpu_whole(x) },
                            .params = &(chain_params){ n, 5 },
                            .groups = { { .size = 2 }, { .times = 2 }, { .size = 1, .per = 4096 } },
                        });
        gpu_plan_add(p, &(gpu_call){
                            .kernel = three,
                            .bind = { [CHAIN_X] = gpu_whole(x), [CHAIN_Y] = gpu_whole(y) },
                            .params = &(chain_params){ n, 7 },
                            .groups = { { .size = 1, .per = 32 } },
                        });
        char line[128];
        CHECK(t, gpu_plan_n_calls(p) == 3);
        CHECK(t,
              gpu_plan_describe(p, 1, line, sizeof(line)) && !gpu_plan_describe(p, 3, line, 128));
        CHECK_STR(t, str_of(line), "chain plain: 1*n2 x 2 x 1*ceil(n1/4096)");
        if (!CHECK(t, gpu_plan_finish(p, &t->err))) return;
        for (uint32_t j = 0; j < MAX; j++)
            out[j] = GUARD;
        CHECK(t, gpu_write(g, gpu_whole(y), out, &t->err));
        CHECK(t, gpu_write(g, gpu_whole(x), in, &t->err));
        const gpu_sizes sizes = { { 1, n, (n + 127) / 128 } };
        const uint64_t submits = gpu_stats(g)->submits, dispatches = gpu_stats(g)->dispatches;
        gpu_encoder *e = gpu_begin(g);
        gpu_encode(e, p, &sizes);
        CHECK(t, gpu_submit(e, NULL, &t->err));
        CHECK_U64(t, gpu_stats(g)->submits - submits, 1);
        CHECK_U64(t, gpu_stats(g)->dispatches - dispatches, 3);
        CHECK(t, gpu_read(g, gpu_whole(x), out, &t->err));
        uint32_t wrong = 0;
        for (uint32_t j = 0; j < MAX; j++) {
            const uint32_t first = values[in[j] % TABLE] + 11;
            wrong += out[j] != (j < n ? 0 - (first * 3 + 5 - 3) : in[j]);
        }
        CHECK_U64(t, wrong, 0);
        uint32_t last = 0;
        CHECK(t, gpu_read(g, gpu_part(gpu_whole(y), (n - 1) * 4, 4), &last, &t->err));
        CHECK_U64(t, last, (uint32_t)(out[n - 1] + 7));
        gpu_plan_free(p);
    }
    gpu_buffer_free(x);
    gpu_buffer_free(y);
    gpu_buffer_free(table);
}

static void skips_dispatches_of_size_zero(test *t) {
    gpu *g = device(t);
    if (g == NULL) return;
    gpu_buffer *y = gpu_buffer_new(g, 4, "y", &t->err);
    gpu_plan *p = gpu_plan_new(g, &t->err);
    const gpu_kernel *k = gpu_kernel_get(g, &tick_source, NULL, NULL, &t->err);
    if (!CHECK(t, y != NULL && p != NULL && k != NULL)) return;
    gpu_plan_add(p,
                 &(gpu_call){ .kernel = k, .bind = { gpu_whole(y) }, .groups = { { .size = 3 } } });
    gpu_plan_add(p, &(gpu_call){ .kernel = k, .bind = { gpu_whole(y) } });
    if (!CHECK(t, gpu_plan_finish(p, &t->err))) return;
    const uint64_t dispatches = gpu_stats(g)->dispatches;
    gpu_encoder *e = gpu_begin(g);
    gpu_encode(e, p, &(gpu_sizes){ { 1, 1, 1, 0 } });
    gpu_encode(e, p, &ones);
    CHECK(t, gpu_submit(e, NULL, &t->err));
    CHECK_U64(t, gpu_stats(g)->dispatches - dispatches, 3);
    uint32_t got;
    CHECK(t, gpu_read(g, gpu_whole(y), &got, &t->err));
    CHECK_U64(t, got, ticks(3));
    gpu_plan_free(p);
    gpu_buffer_free(y);
}

static void runs_twenty_thousand_dispatches_in_one_submit(test *t) {
    gpu *g = device(t);
    if (g == NULL) return;
    gpu_buffer *y = gpu_buffer_new(g, 4, "y", &t->err);
    if (!CHECK(t, y != NULL)) return;
    gpu_plan *p = tick_plan(t, g, y, 1000);
    if (p == NULL) return;
    gpu_encoder *e = gpu_begin(g);
    for (int i = 0; i < 20; i++)
        gpu_encode(e, p, &ones);
    gpu_encode_read(e, gpu_whole(y));
    gpu_ticket ticket;
    uint32_t got = 0;
    if (!CHECK(t, gpu_submit(e, &ticket, &t->err))) return;
    gpu_wait(g, ticket);
    CHECK(t, gpu_collect(g, ticket, &got, sizeof(got), &t->err));
    CHECK_U64(t, got, ticks(20000));
    gpu_plan_free(p);
    gpu_buffer_free(y);
}

static void reports_a_shader_that_does_not_compile(test *t) {
    static const gpu_source bad[] = {
        { .name = "mistyped",
          .text = "@compute @workgroup_size(1) fn mistyped() { let x: u32 = 1.5; }\n" },
        { .name = "unparsed", .text = "@compute fn unparsed( {\n" },
    };
    gpu *g = device(t);
    if (g == NULL) return;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        test_row(t, "%s", bad[i].name);
        const gpu_kernel *k = gpu_kernel_get(g, &bad[i], NULL, NULL, &t->err);
        gpu_plan *p = gpu_plan_new(g, &t->err);
        if (!CHECK(t, k != NULL && p != NULL)) return;
        gpu_plan_add(p, &(gpu_call){ .kernel = k });
        CHECK(t, !gpu_plan_finish(p, &t->err));
        CHECK(t, t->err.message[strlen("kernel : ") + strlen(bad[i].name)] != '\0');
        CHECK_ERROR(t, &t->err, DP_E_DEVICE, test_printf(t, "kernel %s: ", bad[i].name));
        gpu_plan_free(p);
    }
    CHECK(t, !gpu_kernels_wait(g, &t->err));
    CHECK_ERROR(t, &t->err, DP_E_DEVICE, "kernel ");
    /* Nothing of it sticks to the device. */
    uint32_t one = 1;
    gpu_buffer *b = gpu_buffer_new(g, 4, "after", &t->err);
    CHECK(t, b != NULL && gpu_write(g, gpu_whole(b), &one, &t->err));
    gpu_buffer_free(b);
}

static void puts_the_lines_of_features_first(test *t) {
    static const gpu_fragment half = {
        .slot = "change", .name = "half", .text = "half\n", .needs_f16 = true
    };
    static const gpu_fragment wide = { .slot = "change",
                                       .name = "wide",
                                       .text = "wide\n",
                                       .needs_f16 = true,
                                       .needs_subgroups = true };
    const gpu_fragment *parts[] = { &half, &wide, &change_plain };
    const char *starts[] = { "enable f16; override", "enable f16; enable subgroups; override",
                             "override" };
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        buf text;
        buf_init(&text, 1 << 16);
        gpu_kernel_text(NULL, &chain_source, &parts[i], &text);
        CHECK(t, buf_ok(&text, "text", &t->err));
        CHECK(t, str_starts((str){ text.data, text.size }, starts[i]));
        CHECK(t, str_ends((str){ text.data, text.size }, parts[i]->text));
        buf_free(&text);
    }
}

/* f16 arithmetic and a subgroup sum, where the device has them. */
static void features_do_what_they_say(test *t) {
    static const gpu_binding bindings[] = { { "y", 0, GPU_ACCESS_WRITE } };
    static const gpu_source half = {
        .name = "half",
        .text = "@group(0) @binding(0) var<storage, read_write> y: array<u32>;\n"
                "@compute @workgroup_size(1) fn half() { y[0] = u32(f16(f32(y[1]) + 2048.0)); }\n",
        .needs_f16 = true,
        .bindings = bindings,
        .n_bindings = 1,
    };
    static const gpu_source wide = {
        .name = "wide",
        .text = "@group(0) @binding(0) var<storage, read_write> y: array<u32>;\n"
                "@compute @workgroup_size(128)\n"
                "fn wide(@builtin(subgroup_invocation_id) lane: u32,\n"
                "        @builtin(local_invocation_index) i: u32) {\n"
                "    let sum = subgroupAdd(lane);\n"
                "    if (i == 0u) { y[0] = sum; }\n"
                "}\n",
        .needs_subgroups = true,
        .bindings = bindings,
        .n_bindings = 1,
    };
    gpu *g = device(t);
    if (g == NULL) return;
    const uint32_t size = gpu_info(g)->subgroup_size;
    const struct {
        const gpu_source *source;
        bool has;
        uint32_t want;
    } cases[] = {
        { &half, gpu_info(g)->f16, 2048 }, /* 2049 has no half float, ties go to even */
        { &wide, gpu_info(g)->subgroups, size * (size - 1) / 2 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        if (!cases[i].has) continue;
        test_row(t, "%s", cases[i].source->name);
        gpu_buffer *y = gpu_buffer_new(g, 8, "y", &t->err);
        gpu_plan *p = gpu_plan_new(g, &t->err);
        const gpu_kernel *k = gpu_kernel_get(g, cases[i].source, NULL, NULL, &t->err);
        if (!CHECK(t, y != NULL && p != NULL && k != NULL)) return;
        uint32_t values[2] = { GUARD, 1 };
        CHECK(t, gpu_write(g, gpu_whole(y), values, &t->err));
        gpu_plan_add(p, &(gpu_call){ .kernel = k, .bind = { gpu_whole(y) } });
        if (!CHECK(t, gpu_plan_finish(p, &t->err))) return;
        gpu_encoder *e = gpu_begin(g);
        gpu_encode(e, p, &ones);
        CHECK(t, gpu_submit(e, NULL, &t->err));
        CHECK(t, gpu_read(g, gpu_whole(y), values, &t->err));
        CHECK_U64(t, values[0], cases[i].want);
        gpu_plan_free(p);
        gpu_buffer_free(y);
    }
}

/* ---- encoding ------------------------------------------------------------------------------ */

static void keeps_copies_and_dispatches_in_order(test *t) {
    gpu *g = device(t);
    if (g == NULL) return;
    gpu_buffer *y = gpu_buffer_new(g, 4, "y", &t->err),
               *log = gpu_buffer_new(g, 16, "log", &t->err);
    if (!CHECK(t, y != NULL && log != NULL)) return;
    gpu_plan *p = tick_plan(t, g, y, 3);
    if (p == NULL) return;
    gpu_encoder *e = gpu_begin(g);
    for (uint64_t i = 0; i < 4; i++) {
        if (i == 2) gpu_encode_clear(e, gpu_whole(y));
        gpu_encode(e, p, &ones);
        gpu_encode_copy(e, gpu_part(gpu_whole(log), i * 4, 4), gpu_whole(y));
    }
    CHECK(t, gpu_submit(e, NULL, &t->err));
    uint32_t got[4];
    CHECK(t, gpu_read(g, gpu_whole(log), got, &t->err));
    for (uint32_t i = 0; i < 4; i++)
        CHECK_U64(t, got[i], ticks(i % 2 == 0 ? 3 : 6));
    gpu_plan_free(p);
    gpu_buffer_free(y);
    gpu_buffer_free(log);
}

static void keeps_several_read_backs_under_way(test *t) {
    gpu *g = device(t);
    if (g == NULL) return;
    gpu_buffer *y = gpu_buffer_new(g, 40000, "y", &t->err);
    if (!CHECK(t, y != NULL)) return;
    gpu_plan *p = tick_plan(t, g, y, 10);
    if (p == NULL) return;
    CHECK(t, gpu_reserve_readback(g, 8000, &t->err));
    uint32_t words[10000];
    gpu_ticket tickets[GPU_READBACKS];
    const uint64_t bytes = gpu_stats(g)->bytes_read;
    for (int round = 0; round < 3; round++) {
        gpu_encoder *e;
        CHECK(t, gpu_write(g, gpu_whole(y), memset(words, 0, sizeof(words)), &t->err));
        for (uint64_t i = 0; i < GPU_READBACKS; i++) {
            e = gpu_begin(g);
            gpu_encode(e, p, &ones);
            gpu_encode_read(e, gpu_part(gpu_whole(y), 0, 4 + i * 5000)); /* of different sizes */
            if (!CHECK(t, gpu_submit(e, &tickets[i], &t->err))) return;
        }
        e = gpu_begin(g); /* the ring is full: a refusal, nothing else */
        gpu_encode(e, p, &ones);
        gpu_encode_read(e, gpu_whole(y));
        gpu_ticket none = 99;
        CHECK(t, !gpu_submit(e, &none, &t->err) && none == 0);
        CHECK_ERROR(t, &t->err, DP_E_LIMIT, "8 read-backs are waiting");
        for (uint32_t j = 0; j < GPU_READBACKS; j++) { /* collected in another order */
            const uint32_t i = (j * 3 + (uint32_t)round) % GPU_READBACKS;
            gpu_wait(g, tickets[i]);
            CHECK(t, gpu_poll(g, tickets[i]));
            words[0] = GUARD;
            CHECK(t, gpu_collect(g, tickets[i], words, 4, &t->err));
            CHECK_U64(t, words[0], ticks(10 * (i + 1)));
        }
    }
    CHECK_U64(t, gpu_stats(g)->bytes_read - bytes, 3 * GPU_READBACKS * 4);
    gpu_plan_free(p);
    gpu_buffer_free(y);
}

static void takes_no_host_memory_while_evaluating(test *t) {
    gpu *g = device(t);
    if (g == NULL) return;
    gpu_buffer *y = gpu_buffer_new(g, 256, "y", &t->err);
    if (!CHECK(t, y != NULL)) return;
    gpu_plan *p = tick_plan(t, g, y, 100);
    if (p == NULL) return;
    CHECK(t, gpu_reserve_readback(g, 4096, &t->err));
    const uint64_t count = mem_count(), held = gpu_stats(g)->device_bytes;
    const uint64_t pipelines = gpu_stats(g)->pipelines;
    for (int i = 0; i < 20; i++) {
        uint32_t words[64] = { 0 };
        gpu_ticket ticket;
        if (!CHECK(t, gpu_write(g, gpu_whole(y), words, &t->err))) return;
        gpu_encoder *e = gpu_begin(g);
        gpu_encode(e, p, &ones);
        gpu_encode_read(e, gpu_whole(y));
        if (!CHECK(t, gpu_submit(e, &ticket, &t->err))) return;
        gpu_wait(g, ticket);
        CHECK(t, gpu_collect(g, ticket, words, sizeof(words), &t->err));
        CHECK_U64(t, words[0], ticks(100));
    }
    CHECK_U64(t, mem_count() - count, 0);
    CHECK_U64(t, gpu_stats(g)->device_bytes, held);
    CHECK_U64(t, gpu_stats(g)->pipelines, pipelines);
    gpu_plan_free(p);
    gpu_buffer_free(y);
}

/* ---- loss and profile ---------------------------------------------------------------------- */

static void ends_every_call_after_loss_and_opens_anew(test *t) {
    const dp_device_options o = test_device_options();
    for (int round = 0; round < 2; round++) {
        gpu *g = gpu_open(&o, &t->err);
        if (!CHECK(t, g != NULL)) return;
        gpu_buffer *x = gpu_buffer_new(g, 4, "x", &t->err), *y = gpu_buffer_new(g, 4, "y", &t->err);
        gpu_plan *p = x != NULL && y != NULL ? tick_plan(t, g, y, 300) : NULL;
        if (!CHECK(t, p != NULL)) return;
        gpu_ticket ticket = 0;
        gpu_encoder *e = gpu_begin(g);
        gpu_encode(e, p, &ones);
        gpu_encode_read(e, gpu_whole(y));
        CHECK(t, gpu_submit(e, &ticket, &t->err));
        if (round == 1) e = gpu_begin(g); /* lost in the middle of a recording */
        gpu_lose(g);
        gpu_lose(g);
        CHECK(t, gpu_is_lost(g));
        uint32_t word = 0;
        gpu_wait(g, ticket);
        CHECK(t, !gpu_collect(g, ticket, &word, sizeof(word), &t->err));
        CHECK_ERROR(t, &t->err, DP_E_DEVICE, "the GPU was lost: ");
        if (round == 0) e = gpu_begin(g);
        gpu_encode(e, p, &ones);
        gpu_encode_clear(e, gpu_whole(y));
        gpu_encode_read(e, gpu_whole(y));
        CHECK(t, !gpu_submit(e, &ticket, &t->err));
        CHECK_ERROR(t, &t->err, DP_E_DEVICE, "the GPU was lost: ");
        CHECK(t, !gpu_write(g, gpu_whole(y), &word, &t->err));
        CHECK_ERROR(t, &t->err, DP_E_DEVICE, "the GPU was lost: ");
        CHECK(t, !gpu_read(g, gpu_whole(y), &word, &t->err));
        CHECK_ERROR(t, &t->err, DP_E_DEVICE, "the GPU was lost: ");
        CHECK(t, gpu_buffer_new(g, 4, "late", &t->err) == NULL);
        CHECK_ERROR(t, &t->err, DP_E_DEVICE, "the GPU was lost: ");
        CHECK(t, !gpu_kernels_wait(g, &t->err));
        CHECK_ERROR(t, &t->err, DP_E_DEVICE, "the GPU was lost: ");
        gpu_plan *late = gpu_plan_new(g, &t->err);
        gpu_plan_add(late,
                     &(gpu_call){
                         .kernel = chain_kernel(t, g, &change_plain, &plain_consts), /* a new one */
                         .bind = { [CHAIN_X] = gpu_whole(x), [CHAIN_Y] = gpu_whole(y) },
                         .params = &(chain_params){ 1, 1 },
                     });
        CHECK(t, !gpu_plan_finish(late, &t->err));
        CHECK_ERROR(t, &t->err, DP_E_DEVICE, "the GPU was lost: ");
        gpu_plan_free(p);
        gpu_buffer_free(y);
        gpu_close(g);
    }
    gpu *g = device(t); /* other devices live on */
    if (g == NULL) return;
    gpu_buffer *b = gpu_buffer_new(g, 4, "b", &t->err);
    uint32_t word = 7;
    CHECK(t, b != NULL && gpu_write(g, gpu_whole(b), &word, &t->err));
    word = 0;
    CHECK(t, gpu_read(g, gpu_whole(b), &word, &t->err) && word == 7);
    gpu_buffer_free(b);
}

/* Opens a device, makes one of everything, submits. */
static bool uses_everything(test *t, dp_error *err) {
    dp_device_options o = test_device_options();
    dp_device_info info;
    size_t n;
    if (!gpu_list(&o, &info, 1, &n, err)) return false;
    o.profile = info.timestamps;
    gpu *g = gpu_open(&o, err);
    if (g == NULL) return false;
    gpu_buffer *x = gpu_buffer_new(g, 4, "x", err), *y = gpu_buffer_new(g, 4, "y", err);
    gpu_plan *p = x != NULL && y != NULL ? gpu_plan_new(g, err) : NULL;
    bool ok = p != NULL;
    if (ok) {
        const gpu_fragment *change = &change_plain;
        const gpu_call call = {
            .kernel = gpu_kernel_get(g, &chain_source, &change, &plain_consts, err),
            .bind = { [CHAIN_X] = gpu_whole(x), [CHAIN_Y] = gpu_whole(y) },
            .params = &(chain_params){ 1, 41 },
        };
        uint32_t word = 0;
        for (int i = 0; i < 65; i++)
            gpu_plan_add(p, &call); /* more than a plan first has room for */
        ok = gpu_plan_finish(p, err);
        if (ok) {
            gpu_encoder *e = gpu_begin(g);
            gpu_encode(e, p, &ones);
            ok = gpu_submit(e, NULL, err) && gpu_read(g, gpu_whole(y), &word, err);
        }
        CHECK(t, !ok || word == 41);
    }
    gpu_close(g);
    return ok;
}

static void survives_each_allocation_failing_in_turn(test *t) {
    uint64_t n = 1;
    for (; n < 200; n++) {
        dp_error err = { 0 };
        mem_fail_from(n);
        const bool ok = uses_everything(t, &err);
        mem_fail_from(0);
        if (ok) break;
        test_row(t, "allocation %llu", (unsigned long long)n);
        if (!CHECK_ERROR(t, &err, DP_E_MEMORY, "")) return;
    }
    CHECK(t, n > 12 && n < 200); /* the walk met at least one of each kind and came to its end */
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void profiles_by_role_and_kernel(test *t) {
    dp_device_options o = test_device_options();
    dp_device_info info;
    size_t n;
    if (!CHECK(t, gpu_list(&o, &info, 1, &n, &t->err))) return;
    if (!info.timestamps) SKIP(t, "no timestamps");
    o.profile = true;
    gpu *g = gpu_open(&o, &t->err);
    if (!CHECK(t, g != NULL)) return;
    enum { N = 1 << 13 };
    gpu_buffer *x = gpu_buffer_new(g, N * 4, "x", &t->err),
               *y = gpu_buffer_new(g, N * 4, "y", &t->err);
    gpu_plan *p = gpu_plan_new(g, &t->err);
    const gpu_kernel *tick = gpu_kernel_get(g, &tick_source, NULL, NULL, &t->err);
    const gpu_kernel *chain = chain_kernel(t, g, &change_plain, &plain_consts);
    if (!CHECK(t, x != NULL && y != NULL && p != NULL && tick != NULL && chain != NULL)) return;
    const gpu_call large = { .kernel = chain,
                             .bind = { [CHAIN_X] = gpu_whole(x), [CHAIN_Y] = gpu_whole(y) },
                             .params = &(chain_params){ N, 1 },
                             .groups = { { .times = N / 32 } } };
    const gpu_call small = { .kernel = tick, .bind = { gpu_whole(x) }, .label = "small one" };
    gpu_plan_add(p, &small);
    gpu_plan_add(p, &large);
    gpu_plan_add(p, &small);
    if (!CHECK(t, gpu_plan_finish(p, &t->err))) return;
    dp_profile_row rows[4];
    gpu_profile(g, rows, ARRAY_LEN(rows), &n);
    CHECK_U64(t, n, 0);
    const double start = seconds();
    for (int i = 0; i < 2; i++) {
        gpu_encoder *e = gpu_begin(g);
        for (int j = 0; j < 1100; j++)
            gpu_encode(e, p, &(gpu_sizes){ { 1 } });
        CHECK(t, gpu_submit(e, NULL, &t->err)); /* 3,300 dispatches: two query sets */
    }
    const double elapsed = seconds() - start;
    gpu_profile(g, rows, ARRAY_LEN(rows), &n);
    if (!CHECK(t, n == 2)) return;
    const bool chain_first = strcmp(rows[0].kernel, "chain plain") == 0;
    CHECK_STR(t, str_of(rows[chain_first ? 0 : 1].kernel), "chain plain");
    CHECK_STR(t, str_of(rows[chain_first ? 0 : 1].role), "");
    CHECK_STR(t, str_of(rows[chain_first ? 1 : 0].kernel), "tick");
    CHECK_STR(t, str_of(rows[chain_first ? 1 : 0].role), "small one");
    CHECK_U64(t, rows[chain_first ? 0 : 1].calls, 2200);
    CHECK_U64(t, rows[chain_first ? 1 : 0].calls, 4400);
    /* Longest first, and all of it within the time that passed: the units are right. Dispatches
     * take no less than 100 ns on any device. */
    CHECK(t, rows[0].nanoseconds >= rows[1].nanoseconds);
    const double total = ((double)rows[0].nanoseconds + (double)rows[1].nanoseconds) * 1e-9;
    CHECK_MSG(t, total < elapsed && total > 6600 * 100e-9, "%g s of %g s", total, elapsed);
    gpu_profile_reset(g);
    gpu_profile(g, rows, ARRAY_LEN(rows), &n);
    CHECK_U64(t, n, 0);
    gpu_close(g);
}

static const test_case cases[] = {
    { "opens and closes repeatedly", opens_and_closes_repeatedly },
    { "lists adapters and finds them again", lists_adapters_and_finds_them_again },
    { "options take features and limits away", options_take_features_and_limits_away },
    { "names a library that is missing or is none", names_a_library_that_is_missing_or_is_none },
    { "writes and reads any range", writes_and_reads_any_range },
    { "uploads more than may be under way", uploads_more_than_may_be_under_way },
    { "refuses memory with the numbers", refuses_memory_with_the_numbers },
    { "frees a buffer only after its last use", frees_a_buffer_only_after_its_last_use },
    { "runs a plan with all it can have", runs_a_plan_with_all_it_can_have },
    { "skips dispatches of size zero", skips_dispatches_of_size_zero },
    { "runs 20,000 dispatches in one submit", runs_twenty_thousand_dispatches_in_one_submit },
    { "reports a shader that does not compile", reports_a_shader_that_does_not_compile },
    { "puts the lines of features first", puts_the_lines_of_features_first },
    { "features do what they say", features_do_what_they_say },
    { "keeps copies and dispatches in order", keeps_copies_and_dispatches_in_order },
    { "keeps several read-backs under way", keeps_several_read_backs_under_way },
    { "takes no host memory while evaluating", takes_no_host_memory_while_evaluating },
    { "ends every call after loss and opens anew", ends_every_call_after_loss_and_opens_anew },
    { "survives each allocation failing in turn", survives_each_allocation_failing_in_turn },
    { "profiles by role and kernel", profiles_by_role_and_kernel },
};

extern const test_group gpu_tests;
const test_group gpu_tests = { "gpu", cases, ARRAY_LEN(cases) };
