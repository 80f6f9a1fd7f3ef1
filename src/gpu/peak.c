/* peak: what the device reaches with kernels that do one thing only, against which the share of a
 * real kernel is told; and what a dispatch and a pass that do nothing cost, and reading back 4
 * bytes. Short: each size is chosen by a shorter run. */
#include "gpu/gpu_internal.h"
#include "kernels_gen.h"

enum {
    PEAK_BYTES = 1 << 30, /* of a GPU: no cache holds a part of it that counts */
    PEAK_BYTES_CPU = 8 << 20,
    READ_BLOCK = 256 * 8 * 16, /* of peak_read.wgsl */
    READ_GROUPS = 2048,
    FMA_GROUPS = 4096,
    FMA_GROUPS_CPU = 64,
    FMA_LANES = 256, /* of peak_fma.wgsl */
    FMA_STEP_FLOPS = 8 * 4 * 2,
    EMPTY_CHAIN = 256,
    EMPTY_PASSES = 24, /* at most as many as a lap of profile.c has */
    READBACKS = 16,
};

static const double PEAK_RUN_NS = 4e6; /* that a run is to take */

/* One dispatch `n` times, in one pass or in `n`: nanoseconds of each, the least of three runs after
 * one that warms up. */
static bool time_repeats(gpu *g, const gpu_plan *p, uint32_t n, bool split, double *ns,
                         dp_error *err) {
    const gpu_sizes one = { { 1 } };
    *ns = 0;
    for (int run = 0; run < 4; run++) {
        profile_alone(g, split);
        gpu_encoder *e = gpu_begin(g);
        for (uint32_t i = 0; i < n; i++)
            gpu_encode(e, p, &one);
        if (!gpu_submit(e, NULL, err)) return false;
        const double got = (double)profile_alone_end(g) / n;
        if (run == 1 || (run > 1 && got < *ns)) *ns = got;
    }
    return *ns > 0 ||
           err_set(err, DP_E_DEVICE, "%s answers timestamps that do not go forward", g->info.name);
}

static gpu_plan *plan_of(gpu *g, const gpu_source *source, const gpu_range *bind, uint32_t n,
                         const void *params, uint32_t groups, dp_error *err) {
    gpu_plan *p = gpu_plan_new(g, err);
    if (p == NULL) return NULL;
    gpu_call call = { .kernel = gpu_kernel_get(g, source, NULL, NULL, err),
                      .params = params,
                      .groups = { { .times = groups } } };
    for (uint32_t i = 0; i < n; i++)
        call.bind[i] = bind[i];
    gpu_plan_add(p, &call);
    if (gpu_plan_finish(p, err)) return p;
    gpu_plan_free(p);
    return NULL;
}

static bool measure_read(gpu *g, gpu_range y, double *bytes_per_second, dp_error *err) {
    const bool cpu = strcmp(g->info.type, "cpu") == 0;
    uint64_t bytes = min_u64(g->info.max_binding, g->info.max_buffer);
    bytes = min_u64(min_u64(bytes, gpu_memory_room(g) / 2), cpu ? PEAK_BYTES_CPU : PEAK_BYTES);
    const uint32_t blocks = (uint32_t)(bytes / READ_BLOCK);
    if (blocks == 0) return err_set(err, DP_E_MEMORY, "no memory to measure reading with");
    gpu_buffer *x = gpu_buffer_new(g, (uint64_t)blocks * READ_BLOCK, "memory to read", err);
    if (x == NULL) return false;
    const peak_read_params params = { .blocks = blocks, .grid = min_u32(blocks, READ_GROUPS) };
    gpu_plan *p = plan_of(g, &peak_read_source, (gpu_range[]){ gpu_whole(x), y }, 2, &params,
                          params.grid, err);
    double ns;
    const bool ok = p != NULL && time_repeats(g, p, cpu ? 1 : 4, false, &ns, err);
    if (ok) *bytes_per_second = 1e9 * (double)blocks * READ_BLOCK / ns;
    gpu_plan_free(p);
    gpu_buffer_free(x);
    return ok;
}

static bool time_fma(gpu *g, gpu_range y, uint32_t groups, uint32_t steps, double *ns,
                     dp_error *err) {
    gpu_plan *p =
        plan_of(g, &peak_fma_source, &y, 1, &(peak_fma_params){ .steps = steps }, groups, err);
    const bool ok = p != NULL && time_repeats(g, p, 1, false, ns, err);
    gpu_plan_free(p);
    return ok;
}

static bool measure_fma(gpu *g, gpu_range y, double *flops_per_second, dp_error *err) {
    const bool cpu = strcmp(g->info.type, "cpu") == 0;
    const uint32_t groups = cpu ? FMA_GROUPS_CPU : FMA_GROUPS;
    enum { FEW = 64 };
    double ns;
    if (!time_fma(g, y, groups, FEW, &ns, err)) return false;
    const double wanted = FEW * PEAK_RUN_NS / ns;
    const uint32_t steps = wanted < FEW ? FEW : wanted > 1e5 ? 100000 : (uint32_t)wanted;
    if (!time_fma(g, y, groups, steps, &ns, err)) return false;
    *flops_per_second = 1e9 * groups * FMA_LANES * (double)steps * FMA_STEP_FLOPS / ns;
    return true;
}

static bool measure_empty(gpu *g, gpu_range y, dp_device_peaks *peaks, dp_error *err) {
    gpu_plan *p = plan_of(g, &peak_fma_source, &y, 1, &(peak_fma_params){ .steps = 0 }, 1, err);
    const bool ok = p != NULL && time_repeats(g, p, EMPTY_CHAIN, false, &peaks->dispatch_ns, err) &&
                    time_repeats(g, p, EMPTY_PASSES, true, &peaks->pass_ns, err);
    gpu_plan_free(p);
    return ok;
}

/* The least of some, as of the others. */
static bool measure_readback(gpu *g, gpu_range y, double *ns, dp_error *err) {
    for (int i = 0; i < READBACKS; i++) {
        uint32_t got;
        const double start = clock_seconds();
        if (!gpu_read(g, gpu_part(y, 0, sizeof got), &got, err)) return false;
        const double took = 1e9 * (clock_seconds() - start);
        if (i == 0 || took < *ns) *ns = took;
    }
    return true;
}

bool gpu_peaks(gpu *g, dp_device_peaks *peaks, dp_error *err) {
    assert(!g->encoder.open);
    *peaks = g->peaks;
    if (peaks->bytes_per_second > 0) return true;
    if (g->profiler == NULL) {
        return err_set(err, DP_E_UNSUPPORTED, "%s was opened without a profile: nothing is timed",
                       g->info.name);
    }
    gpu_buffer *y = gpu_buffer_new(g, READ_GROUPS * 4, "sums", err);
    if (y == NULL) return false;
    dp_device_peaks found = { 0 };
    const dp_profile_mode mode = gpu_profile_mode(g, DP_PROFILE_STEPS);
    const bool ok = measure_read(g, gpu_whole(y), &found.bytes_per_second, err) &&
                    measure_fma(g, gpu_whole(y), &found.flops_per_second, err) &&
                    measure_empty(g, gpu_whole(y), &found, err) &&
                    measure_readback(g, gpu_whole(y), &found.readback_ns, err);
    (void)gpu_profile_mode(g, mode);
    gpu_buffer_free(y);
    if (ok) *peaks = g->peaks = found;
    return ok;
}
