/* libc: what stands in the place of parts of the libc in the wasm build, for size. */
#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- assert (libc/assert.h) ---------------------------------------------------------------- */

void web_assert_failed(const char *file, int line) {
    fprintf(stderr, "internal: %s:%d: what must hold does not\n", file, line);
    abort();
}

/* ---- qsort --------------------------------------------------------------------------------- */

static void swap_items(unsigned char *a, unsigned char *b, size_t size) {
    for (size_t i = 0; i < size; i++) {
        const unsigned char byte = a[i];
        a[i] = b[i];
        b[i] = byte;
    }
}

/* A heap of n items from `at` on: the item there sinks to where it belongs. */
static void sink_item(unsigned char *items, size_t at, size_t n, size_t size,
                      int (*compare)(const void *, const void *)) {
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= n) return;
        unsigned char *larger = items + child * size;
        if (child + 1 < n && compare(larger, larger + size) < 0) {
            larger += size;
            child++;
        }
        if (compare(items + at * size, larger) >= 0) return;
        swap_items(items + at * size, larger, size);
        at = child;
    }
}

/* Heap sort: n log n whatever the items are, and a kilobyte where a faster one takes thirty. */
void qsort(void *base, size_t n, size_t size, int (*compare)(const void *, const void *)) {
    unsigned char *items = base;
    if (n < 2) return;
    for (size_t i = n / 2; i-- > 0;)
        sink_item(items, i, n, size, compare);
    for (size_t i = n - 1; i > 0; i--) {
        swap_items(items, items + i * size, size);
        sink_item(items, 0, i, size, compare);
    }
}
