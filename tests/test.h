/* test: the runner's interface for all test files.
 *
 * A test is a static function in its file's table; tests/test.c lists the tables. A failed check is
 * printed with its place and the test goes on, so checks are expressions: what must hold for the
 * rest to make sense reads `if (!CHECK(t, p != NULL)) return;`. Memory from the test_* functions
 * lives until the end of the case, random numbers depend on the case's name alone. */
#ifndef TESTS_TEST_H
#define TESTS_TEST_H

#include "base/base.h"

typedef struct test test;

typedef struct {
    const char *name; /* a sentence that can be false */
    void (*fn)(test *t);
} test_case;

/* A file's table: `const test_group base_tests = { "base", cases, ARRAY_LEN(cases) };` */
typedef struct {
    const char *name;
    const test_case *cases;
    size_t n;
} test_group;

/* Sanitizers watch the host's code: under them a test whose work is the device's goes once through
 * each path of the host, or is skipped. */
#ifdef __SANITIZE_ADDRESS__
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

struct test {
    const char *group, *name;
    dp_error err;      /* zeroed before each case; a case that leaves an error in it fails */
    arena memory;      /* freed after each case */
    uint64_t random;   /* state of the random numbers */
    char row[128];     /* see test_row */
    char *folder;      /* see test_folder */
    uint32_t n_failed; /* failed checks of this case */
    const char *skipped;
};

/* All are expressions of type bool: true if the check holds. Each argument is evaluated once. */
#define CHECK(t, condition) test_check(t, condition, __FILE__, __LINE__, "%s", #condition)
/* With a message of one's own. */
#define CHECK_MSG(t, condition, ...) test_check(t, condition, __FILE__, __LINE__, __VA_ARGS__)
#define CHECK_U64(t, got, want)      test_check_u64(t, got, want, __FILE__, __LINE__, #got)
/* got is a str, want a C string. */
#define CHECK_STR(t, got, want) test_check_str(t, got, want, __FILE__, __LINE__, #got)
/* The dp_error holds this status and a message with this part; zeroes it for the next call. */
#define CHECK_ERROR(t, err, status, part) test_check_error(t, err, status, part, __FILE__, __LINE__)
/* sum((got - want)^2) <= bound * sum(want^2), no NaN in got; bound 0 asks for equality. */
#define CHECK_NMSE(t, got, want, n, bound) \
    test_check_nmse(t, got, want, n, bound, __FILE__, __LINE__, #got)
/* Ends the case as skipped, with a word why (what is missing). */
#define SKIP(t, word)       \
    do {                    \
        test_skip(t, word); \
        return;             \
    } while (0)

bool test_check(test *t, bool holds, const char *place, int line, const char *format, ...)
    PRINTF_LIKE(5, 6);
bool test_check_u64(test *t, uint64_t got, uint64_t want, const char *place, int line,
                    const char *what);
bool test_check_str(test *t, str got, const char *want, const char *place, int line,
                    const char *what);
bool test_check_error(test *t, dp_error *err, dp_status status, const char *part, const char *place,
                      int line);
bool test_check_nmse(test *t, const float *got, const float *want, size_t n, double bound,
                     const char *place, int line, const char *what);
void test_skip(test *t, const char *word);

/* Names the row of a table that the following checks belong to, for their messages. */
void test_row(test *t, const char *format, ...) PRINTF_LIKE(2, 3);

/* Zeroed memory of the case; a case never sees NULL (the runner ends when there is none). */
void *test_alloc(test *t, size_t n, size_t size);
float *test_floats(test *t, size_t n);
char *test_printf(test *t, const char *format, ...) PRINTF_LIKE(2, 3);

uint64_t test_random(test *t);                /* 64 uniform bits */
uint64_t test_below(test *t, uint64_t limit); /* uniform in [0, limit) */
double test_uniform(test *t);                 /* uniform in [0, 1) */
float *test_randn(test *t, size_t n);         /* n normal numbers, mean 0, deviation 1 */

/* Path of a file in tests/vectors. The runner is started from the repository's root, or with
 * --vectors=FOLDER. */
const char *test_vector(test *t, const char *name);
/* A file's bytes; data is NULL (and t->err set) if it cannot be read. */
str test_read_file(test *t, const char *path);
/* A folder of the case's own, empty at first, removed after it. */
const char *test_folder(test *t);
/* Writes a file into that folder, returns its path. */
const char *test_write(test *t, const char *name, const void *bytes, size_t n);

/* Value of --name=value on the runner's command line, "" for --name, NULL if it is not there. */
const char *test_option(const char *name);
/* The device as the runner's options ask for it. */
dp_device_options test_device_options(void);
/* A device that models take for a GPU, whose paths they then have; the caller's alone, to close.
 * NULL if it cannot be had, with t->err. */
dp_device *test_open_as_gpu(test *t, const dp_device_options *options);

/* What many cases share (a device, a model): made by `open` at the first request, closed by `close`
 * after the last case. NULL if open returned NULL; t->err then says what it said. */
void *test_shared(test *t, const char *name, void *(*open)(test *t), void (*close)(void *shared));

#endif
