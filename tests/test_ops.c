/* test_ops: the table of src/ref/check.c on the runner's device and on the lesser devices that it
 * can be forced to be; and that its comparisons see a fault. */
#include "gpu/gpu.h"
#include "ref/check.h"
#include "tests/test.h"

static void *open_shared(test *t) {
    const dp_device_options o = test_device_options();
    return gpu_open(&o, &t->err);
}

static void close_shared(void *g) {
    gpu_close(g);
}

static gpu *device(test *t) {
    return test_shared(t, "device of the operations", open_shared, close_shared);
}

static bool must_hold(void *user, const check_row *row) {
    test *t = user;
    test_row(t, "%s: %s", row->kernel, row->shape);
    CHECK_MSG(t, row->ok, "%s: error %g, bound %g (%s)",
              row->problem != NULL ? row->problem : "too far off", row->error, row->bound,
              row->reason);
    return true;
}

static void run_table(test *t, gpu *g, bool brief) {
    uint32_t n = 0, n_failed = 0;
    const check_options o = { .brief = brief, .row = must_hold, .user = t };
    if (!CHECK(t, check_ops(g, &o, &n, &n_failed, &t->err))) return;
    test_row(t, "all");
    /* At least each of 19 kernels with its fragments: 16 formats in three of them. */
    CHECK_MSG(t, n >= (brief ? 64 : 350), "only %u rows", n);
}

/* Kernels do not change under sanitizers: the brief table has each of them. */
static void on_the_device(test *t) {
    gpu *g = device(t);
    if (CHECK(t, g != NULL)) run_table(t, g, SANITIZED);
}

/* The full table has gone through the fragments of a lesser device too, as the full one can run
 * them; what is left to show is that a device opened without the features takes and runs each of
 * them. */
static void on_a_lesser_device(test *t, bool no_f16) {
    if (SANITIZED) SKIP(t, "sanitized: the host's code is that of the full device");
    gpu *full = device(t);
    if (!CHECK(t, full != NULL)) return;
    if (!gpu_info(full)->subgroups) SKIP(t, "the device has no subgroups to do without");
    if (no_f16 && !gpu_info(full)->f16) SKIP(t, "the device has no f16 to do without");
    dp_device_options o = test_device_options();
    o.no_subgroups = true;
    o.no_f16 |= no_f16;
    gpu *g = gpu_open(&o, &t->err);
    if (!CHECK(t, g != NULL)) return;
    CHECK(t, !gpu_info(g)->subgroups && gpu_info(g)->f16 == !o.no_f16);
    run_table(t, g, true);
    gpu_close(g);
}

static void without_subgroups(test *t) {
    on_a_lesser_device(t, false);
}

static void without_f16_and_subgroups(test *t) {
    on_a_lesser_device(t, true);
}

/* On a device that keeps WebGPU's checks, which clamp indices and zero workgroup memory: a kernel
 * that needed either would differ between the two. */
static void with_checks(test *t) {
    if (SANITIZED) SKIP(t, "sanitized: the host's code is that of the device without");
    dp_device_options o = test_device_options();
    o.checks = true;
    gpu *g = gpu_open(&o, &t->err);
    if (!CHECK(t, g != NULL)) return;
    run_table(t, g, true);
    gpu_close(g);
}

static bool must_fail(void *user, const check_row *row) {
    test *t = user;
    test_row(t, "%s: %s", row->kernel, row->shape);
    CHECK_MSG(t, !row->ok, "passes with a planted fault: error %g, bound %g", row->error,
              row->bound);
    return true;
}

static void sees(test *t, check_plant plant) {
    if (SANITIZED) SKIP(t, "sanitized: the table's own code, which the table has run");
    gpu *g = device(t);
    if (!CHECK(t, g != NULL)) return;
    uint32_t n = 0, n_failed = 0;
    const check_options o = { .plant = plant, .row = must_fail, .user = t };
    CHECK(t, check_ops(g, &o, &n, &n_failed, &t->err));
    test_row(t, "all");
    CHECK_U64(t, n_failed, n);
}

static void wrong_inputs_are_seen(test *t) {
    sees(t, PLANT_INPUT);
}

static void wrong_outputs_are_seen(test *t) {
    sees(t, PLANT_OUTPUT);
}

static void stray_writes_are_seen(test *t) {
    sees(t, PLANT_GUARD);
}

static const test_case cases[] = {
    { "every kernel agrees with its reference", on_the_device },
    { "every kernel agrees with its reference without subgroups", without_subgroups },
    { "every kernel agrees with its reference without f16 and subgroups",
      without_f16_and_subgroups },
    { "every kernel agrees with its reference under WebGPU's checks", with_checks },
    { "one changed element of an input fails every row", wrong_inputs_are_seen },
    { "one changed element of the expected output fails every row", wrong_outputs_are_seen },
    { "a word written next to an output fails every row", stray_writes_are_seen },
};
const test_group ops_tests = { "ops", cases, ARRAY_LEN(cases) };
