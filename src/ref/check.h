/* check: every kernel against its double reference on one device. Needs base alone to be called.
 *
 * The same table serves tests/test_ops.c and the program's `check`: odd shapes, every weight
 * format, both cache types, both reductions, as far as the device has them. Inputs are random,
 * outputs lie between guard words and every element of them is compared, also those that must not
 * change. */
#ifndef REF_CHECK_H
#define REF_CHECK_H

#include "base/base.h"

struct gpu;

/* One kernel with its fragments at one shape. Texts live until the callback returns. */
typedef struct {
    const char *kernel; /* "matvec q4_k tree" */
    const char *shape;  /* "K 256, rows 65, n 3" */
    const char *reason; /* why this shape */
    const char
        *problem; /* what else went wrong: a guard word, the device's message; NULL: nothing */
    double error, bound; /* of the element that comes closest to its bound, or passes it */
    bool ok;
} check_row;
/* False ends the table after this row. */
typedef bool check_fn(void *user, const check_row *row);

/* A fault made on purpose, to show that the comparison sees it: every row must then fail. */
typedef enum {
    PLANT_NONE,
    PLANT_INPUT,  /* the device gets one element of its input other than the reference */
    PLANT_OUTPUT, /* one element of the expected output is moved by twice its bound */
    PLANT_GUARD,  /* a word next to an output is overwritten */
} check_plant;

typedef struct {
    const char *filter; /* part of the kernel's name; NULL: all */
    bool brief;         /* one row of each kernel and fragments in turn instead of all shapes */
    check_plant plant;
    check_fn *row;
    void *user;
} check_options;

/* Runs the table and counts its rows. False only if the device failed altogether: a wrong kernel is
 * a row that is not ok. */
bool check_ops(struct gpu *g, const check_options *o, uint32_t *n, uint32_t *n_failed,
               dp_error *err) CHECK_RESULT;
/* The same table where nothing may wait, row by row. Each row is made three times from the same
 * random numbers: its pipelines are asked for, it is queued, its outputs are compared. `row` is
 * called by check_some alone. Zeroed, but for the device and the options, at the start. */
enum { CHECK_OUTPUTS = 16 };
typedef enum { CHECK_ASK, CHECK_QUEUE, CHECK_COMPARE, CHECK_DONE } check_stage;
typedef struct {
    struct gpu *g;
    const check_options *options;
    check_stage stage; /* what comes next */
    uint32_t row;
    uint64_t tickets[CHECK_OUTPUTS]; /* outputs on their way */
    uint32_t n_tickets, n, n_failed;
} check_walk;
/* Does what comes next, which then is: CHECK_QUEUE, once the pipelines are there; CHECK_COMPARE,
 * once all that was queued has finished; CHECK_ASK, at once; CHECK_DONE. DP_E_DEVICE. */
bool check_some(check_walk *w, dp_error *err) CHECK_RESULT;
/* The same table with a device of its own, which *info then describes. */
bool check_device(const dp_device_options *device, const check_options *o, dp_device_info *info,
                  uint32_t *n, uint32_t *n_failed, dp_error *err) CHECK_RESULT;

#endif
