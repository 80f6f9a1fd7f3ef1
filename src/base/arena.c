/* arena: the only file that calls the C heap, and the bump allocator over it.
 *
 * Every allocation of the library is numbered, so that a test can fail the n-th and all later ones.
 * An arena is a chain of blocks, newest first; a block is never given back before the arena is, and
 * its memory is handed out once, so what arena_new returns is still zero from calloc. */
#include "base/base.h"

#include <stdatomic.h>
#include <stdlib.h>

enum {
    ARENA_ALIGN = 16,
    ARENA_BLOCK_MIN = 16 * 1024,
    ARENA_BLOCK_MAX = 1024 * 1024, /* larger requests get a block of their own */
};

static atomic_uint_fast64_t n_allocations;
static atomic_uint_fast64_t fail_at; /* number of the first allocation that fails; 0: none */

/* Numbers an allocation and says whether a test wants it to fail. */
static bool may_allocate(void) {
    const uint64_t number = atomic_fetch_add(&n_allocations, 1) + 1;
    const uint64_t at = atomic_load(&fail_at);
    return at == 0 || number < at;
}

void mem_fail_from(uint64_t n) {
    atomic_store(&fail_at, n == 0 ? 0 : atomic_load(&n_allocations) + n);
}

uint64_t mem_count(void) {
    return atomic_load(&n_allocations);
}

/* Never 0: what malloc(0) returns is up to the system. False if no object can be that large. */
static bool heap_bytes(size_t n, size_t size, size_t *bytes) {
    if (__builtin_mul_overflow(n, size, bytes) || *bytes > PTRDIFF_MAX) return false;
    if (*bytes == 0) *bytes = 1;
    return true;
}

static void *out_of_memory(size_t n, size_t size, const char *what, dp_error *err) {
    size_t bytes;
    if (heap_bytes(n, size, &bytes)) {
        err_set(err, DP_E_MEMORY, "out of memory: %zu bytes for %s", bytes, what);
    } else {
        err_set(err, DP_E_MEMORY, "out of memory: %zu times %zu bytes for %s", n, size, what);
    }
    return NULL;
}

void *mem_new(size_t n, size_t size, const char *what, dp_error *err) {
    size_t bytes;
    void *memory = NULL;
    if (heap_bytes(n, size, &bytes) && may_allocate()) memory = calloc(1, bytes);
    return memory != NULL ? memory : out_of_memory(n, size, what, err);
}

void *mem_resize(void *old, size_t n, size_t size, const char *what, dp_error *err) {
    size_t bytes;
    void *memory = NULL;
    if (heap_bytes(n, size, &bytes) && may_allocate()) memory = realloc(old, bytes);
    return memory != NULL ? memory : out_of_memory(n, size, what, err);
}

void mem_free(void *memory) {
    free(memory);
}

struct arena_block {
    struct arena_block *next;
    size_t capacity; /* bytes behind the header */
};

enum { BLOCK_HEADER = (sizeof(struct arena_block) + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN };

static char *block_bytes(struct arena_block *block) {
    return (char *)block + BLOCK_HEADER;
}

static struct arena_block *take_block(arena *a, size_t capacity, const char *what, dp_error *err) {
    struct arena_block *block = mem_new(1, BLOCK_HEADER + capacity, what, err);
    if (block == NULL) return NULL;
    block->capacity = capacity;
    a->total += capacity;
    return block;
}

void *arena_new(arena *a, size_t n, size_t size, const char *what, dp_error *err) {
    size_t bytes;
    if (!heap_bytes(n, size, &bytes) || bytes > PTRDIFF_MAX - BLOCK_HEADER - ARENA_ALIGN) {
        return out_of_memory(n, size, what, err);
    }
    bytes = (bytes + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
    if (a->first == NULL || bytes > a->first->capacity - a->used) {
        if (bytes > ARENA_BLOCK_MAX / 4 && a->first != NULL) {
            /* A block of its own behind the newest one, whose rest stays in use. */
            struct arena_block *own = take_block(a, bytes, what, err);
            if (own == NULL) return NULL;
            own->next = a->first->next;
            a->first->next = own;
            return block_bytes(own);
        }
        size_t capacity = a->total < ARENA_BLOCK_MIN   ? ARENA_BLOCK_MIN
                          : a->total < ARENA_BLOCK_MAX ? a->total
                                                       : ARENA_BLOCK_MAX;
        if (capacity < bytes) capacity = bytes;
        struct arena_block *block = take_block(a, capacity, what, err);
        if (block == NULL) return NULL;
        block->next = a->first;
        a->first = block;
        a->used = 0;
    }
    char *result = block_bytes(a->first) + a->used;
    a->used += bytes;
    return result;
}

char *arena_copy(arena *a, const void *bytes, size_t size, dp_error *err) {
    if (size == SIZE_MAX) return out_of_memory(1, size, "a text", err);
    char *copy = arena_new(a, 1, size + 1, "a text", err);
    if (copy != NULL && size > 0) memcpy(copy, bytes, size);
    return copy;
}

void arena_free(arena *a) {
    for (struct arena_block *block = a->first, *next; block != NULL; block = next) {
        next = block->next;
        mem_free(block);
    }
    *a = (arena){ 0 };
}
