/* test: runs the tables of all test files.
 *
 * Usage: test [-v] [--name[=value] ...] [FILTER ...]. A case runs if one of the filters is part of
 * "group: name", or if there is none. The last line counts; the status is 1 if a case failed. */
#define _GNU_SOURCE

#include "tests/test.h"

#include "model/model.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

extern const test_group base_tests, chat_tests, config_tests, format_tests, gpu_tests, model_tests;
extern const test_group config_write_tests, config_pack_tests, convert_tests;
extern const test_group oom_tests, ops_tests, ref_tests, sampling_tests, text_tests;
extern const test_group pack_tests, quant_tests, tokenwrite_tests;
extern const test_group store_tests, pull_tests, steps_tests;
extern const test_group calibrate_tests, load_tests, profile_tests, device_rows_tests, tune_tests;
extern const test_group shapes_tests;

/* Every table of the tests. */
static const test_group *const groups[] = {
    &base_tests, &format_tests, &quant_tests, &device_rows_tests, &pack_tests, &text_tests,
    &tokenwrite_tests, &chat_tests, &oom_tests, &config_tests, &config_write_tests,
    &config_pack_tests, &convert_tests, &ref_tests, &gpu_tests, &ops_tests, &sampling_tests,
    &model_tests, &steps_tests, &calibrate_tests, &load_tests, &profile_tests, &tune_tests,
    &shapes_tests, &store_tests, &pull_tests,
};

enum { SHARED_MAX = 32 };

static struct {
    int argc;
    char **argv;
    bool verbose;
    struct {
        const char *name;
        void *data;
        void (*close)(void *shared);
        dp_error err;
    } shared[SHARED_MAX];
    size_t n_shared;
} run;

/* ---- checks -------------------------------------------------------------------------------- */

bool test_check(test *t, bool holds, const char *place, int line, const char *format, ...) {
    if (holds) return true;
    t->n_failed++;
    printf("FAIL %s:%d: %s: %s: ", place, line, t->group, t->name);
    if (t->row[0] != '\0') printf("%s: ", t->row);
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
    fflush(stdout);
    return false;
}

bool test_check_u64(test *t, uint64_t got, uint64_t want, const char *place, int line,
                    const char *what) {
    return test_check(t, got == want, place, line, "%s is %llu, expected %llu", what,
                      (unsigned long long)got, (unsigned long long)want);
}

bool test_check_str(test *t, str got, const char *want, const char *place, int line,
                    const char *what) {
    return test_check(t, str_is(got, want), place, line, "%s is \"%.*s\", expected \"%s\"", what,
                      (int)min_u64(got.size, 1000), got.size > 0 ? got.data : "", want);
}

bool test_check_error(test *t, dp_error *err, dp_status status, const char *part, const char *place,
                      int line) {
    const bool holds = err->status == status && strstr(err->message, part) != NULL;
    test_check(t, holds, place, line, "error is %s: \"%s\", expected %s with \"%s\"",
               dp_status_name(err->status), err->message, dp_status_name(status), part);
    *err = (dp_error){ 0 };
    return holds;
}

bool test_check_nmse(test *t, const float *got, const float *want, size_t n, double bound,
                     const char *place, int line, const char *what) {
    double error = 0, power = 0, worst = -1;
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        /* Equal infinities have no difference; a NaN makes the sum NaN and the check fail. */
        const double d = got[i] == want[i] ? 0 : (double)got[i] - (double)want[i];
        error += d * d;
        power += (double)want[i] * (double)want[i];
        if (!(fabs(d) <= worst)) worst = fabs(d), at = i;
    }
    return test_check(t, error <= bound * power || error == 0, place, line,
                      "%s: NMSE %g over %g; worst at %zu of %zu: %g, expected %g", what,
                      power > 0 ? error / power : error, bound, at, n, n > 0 ? (double)got[at] : 0,
                      n > 0 ? (double)want[at] : 0);
}

void test_skip(test *t, const char *word) {
    t->skipped = word;
}

void test_row(test *t, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(t->row, sizeof(t->row), format, args);
    va_end(args);
}

/* ---- memory and random numbers ------------------------------------------------------------- */

static void *or_die(void *memory, const char *what) {
    if (memory != NULL) return memory;
    printf("the test runner has no %s\n", what);
    exit(1);
}

void *test_alloc(test *t, size_t n, size_t size) {
    return or_die(arena_new(&t->memory, n, size, "a test", NULL), "memory");
}

float *test_floats(test *t, size_t n) {
    return test_alloc(t, n, sizeof(float));
}

char *test_printf(test *t, const char *format, ...) {
    char *text = NULL;
    va_list args;
    va_start(args, format);
    const int n = vasprintf(&text, format, args);
    va_end(args);
    if (n < 0) or_die(NULL, "memory");
    char *copy = test_alloc(t, (size_t)n + 1, 1);
    memcpy(copy, text, (size_t)n);
    free(text);
    return copy;
}

/* splitmix64: any state is fine, period 2^64. */
uint64_t test_random(test *t) {
    uint64_t x = t->random += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

uint64_t test_below(test *t, uint64_t limit) {
    return test_random(t) % limit; /* uneven by limit / 2^64 */
}

double test_uniform(test *t) {
    return (double)(test_random(t) >> 11) * 0x1p-53;
}

float *test_randn(test *t, size_t n) {
    float *x = test_floats(t, n);
    for (size_t i = 0; i < n; i++) { /* Box and Muller */
        const double r = sqrt(-2 * log(1 - test_uniform(t)));
        x[i] = (float)(r * cos(2 * 3.14159265358979323846 * test_uniform(t)));
    }
    return x;
}

/* ---- files --------------------------------------------------------------------------------- */

const char *test_vector(test *t, const char *name) {
    const char *folder = test_option("vectors");
    return test_printf(t, "%s/%s", folder != NULL ? folder : "tests/vectors", name);
}

str test_read_file(test *t, const char *path) {
    buf bytes;
    if (!file_read_all(path, 1 << 30, &bytes, &t->err)) return (str){ 0 };
    char *copy = test_alloc(t, bytes.size + 1, 1);
    memcpy(copy, bytes.data, bytes.size);
    const str result = { copy, bytes.size };
    buf_free(&bytes);
    return result;
}

const char *test_folder(test *t) {
    if (t->folder == NULL) {
        const char *root = getenv("TMPDIR");
        t->folder = test_printf(t, "%s/doppler-test-XXXXXX", root != NULL ? root : "/tmp");
        or_die(mkdtemp(t->folder), "temporary folder");
    }
    return t->folder;
}

const char *test_write(test *t, const char *name, const void *bytes, size_t n) {
    const char *path = test_printf(t, "%s/%s", test_folder(t), name);
    FILE *f = or_die(fopen(path, "wb"), "temporary file");
    if (fwrite(bytes, 1, n, f) != n || fclose(f) != 0) or_die(NULL, "room for a temporary file");
    return path;
}

static void remove_folder(const char *path) {
    DIR *folder = opendir(path);
    for (struct dirent *e; folder != NULL && (e = readdir(folder)) != NULL;) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        char inside[4096];
        snprintf(inside, sizeof(inside), "%s/%s", path, e->d_name);
        struct stat status;
        if (lstat(inside, &status) == 0 && S_ISDIR(status.st_mode)) {
            remove_folder(inside);
        } else {
            unlink(inside);
        }
    }
    if (folder != NULL) closedir(folder);
    rmdir(path);
}

/* ---- what the whole run shares ------------------------------------------------------------- */

dp_device_options test_device_options(void) {
    return (dp_device_options){
        .webgpu = test_option("webgpu"),
        .adapter = test_option("device"),
        .no_f16 = test_option("no-f16") != NULL,
        .no_subgroups = test_option("no-subgroups") != NULL,
        .checks = test_option("checks") != NULL,
    };
}

dp_device *test_open_as_gpu(test *t, const dp_device_options *options) {
    const dp_model_options small = { .context = 32, .batch = 16 };
    const char *path = test_vector(t, "models/llama-bias"); /* a model has the device's info */
    dp_device *device = dp_device_open(options, &t->err);
    dp_model *m = device != NULL ? dp_model_open(device, path, &small, &t->err) : NULL;
    if (m == NULL) {
        dp_device_close(device);
        return NULL;
    }
    dp_device_info *info = (dp_device_info *)(uintptr_t)gpu_info(m->gpu);
    snprintf(info->type, sizeof(info->type), "integrated");
    dp_model_close(m);
    return device;
}

const char *test_option(const char *name) {
    const size_t n = strlen(name);
    for (int i = 1; i < run.argc; i++) {
        const char *arg = run.argv[i];
        if (strncmp(arg, "--", 2) != 0 || strncmp(arg + 2, name, n) != 0) continue;
        if (arg[2 + n] == '=') return arg + 3 + n;
        if (arg[2 + n] == '\0') return "";
    }
    return NULL;
}

void *test_shared(test *t, const char *name, void *(*open)(test *t), void (*close)(void *shared)) {
    size_t i = 0;
    while (i < run.n_shared && strcmp(run.shared[i].name, name) != 0)
        i++;
    if (i == run.n_shared) {
        if (i == SHARED_MAX) or_die(NULL, "room for another shared thing");
        void *data = open(t);
        i = run.n_shared++; /* open may have asked for others */
        run.shared[i].name = name;
        run.shared[i].data = data;
        run.shared[i].close = close;
        run.shared[i].err = t->err;
    } else if (run.shared[i].data == NULL && t->err.status == DP_OK) {
        t->err = run.shared[i].err;
    }
    return run.shared[i].data;
}

/* ---- the run ------------------------------------------------------------------------------- */

static bool is_wanted(const char *group, const char *name) {
    bool any = false;
    char whole[512];
    snprintf(whole, sizeof(whole), "%s: %s", group, name);
    for (int i = 1; i < run.argc; i++) {
        if (run.argv[i][0] == '-') continue;
        if (strstr(whole, run.argv[i]) != NULL) return true;
        any = true;
    }
    return !any;
}

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec * 1e-9;
}

static void run_case(test *t, const test_group *group, const test_case *which) {
    *t = (test){ .group = group->name, .name = which->name };
    for (const char *c = which->name; *c != '\0'; c++) {
        t->random = (t->random ^ (unsigned char)*c) * 0x100000001b3u;
    }
    const double start = now();
    which->fn(t);
    t->row[0] = '\0';
    if (t->skipped == NULL) {
        test_check(t, t->err.status == DP_OK, "tests", 0, "left an error behind: %s",
                   t->err.message);
    }
    if (t->folder != NULL) remove_folder(t->folder);
    arena_free(&t->memory);
    const double seconds = now() - start;
    if (t->n_failed > 0) {
        printf("failed %s: %s\n", t->group, t->name);
    } else if (t->skipped != NULL) {
        printf("skipped %s: %s (%s)\n", t->group, t->name, t->skipped);
    } else if (run.verbose) {
        printf("passed %s: %s (%.3f s)\n", t->group, t->name, seconds);
    }
    fflush(stdout);
}

int main(int argc, char **argv) {
    run.argc = argc;
    run.argv = argv;
    for (int i = 1; i < argc; i++)
        run.verbose |= strcmp(argv[i], "-v") == 0;
    uint32_t passed = 0, failed = 0, skipped = 0;
    for (size_t g = 0; g < ARRAY_LEN(groups); g++) {
        for (size_t i = 0; i < groups[g]->n; i++) {
            if (!is_wanted(groups[g]->name, groups[g]->cases[i].name)) continue;
            test t;
            run_case(&t, groups[g], &groups[g]->cases[i]);
            if (t.n_failed > 0) {
                failed++;
            } else if (t.skipped != NULL) {
                skipped++;
            } else {
                passed++;
            }
        }
    }
    while (run.n_shared-- > 0) {
        if (run.shared[run.n_shared].data != NULL) {
            run.shared[run.n_shared].close(run.shared[run.n_shared].data);
        }
    }
    const bool none = passed + failed + skipped == 0;
    if (none) printf("no test matches\n");
    printf("%u passed, %u failed, %u skipped\n", passed, failed, skipped);
    return failed > 0 || none;
}
