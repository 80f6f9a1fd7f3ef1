/* map: a hash table from bytes to u32 that only grows.
 *
 * Open addressing with linear probing over a power of two of slots, at most three quarters full; a
 * slot is the number of an entry plus one, 0 when empty. Entries lie in order of insertion and
 * point to copies of their keys in an arena. Keys come from files, so the hash is SipHash-1-3
 * (Aumasson and Bernstein, "SipHash: a fast short-input PRF") under a key of the table's own. */
#include "base/base.h"

#include <stdatomic.h>
#include <time.h>

enum { SLOTS_MIN = 16 };

typedef struct {
    const char *key;
    uint32_t size;
    uint32_t hash;
    uint32_t value;
} entry;

struct map {
    arena keys;
    entry *entries;
    uint32_t *slots;
    size_t n_entries, entries_max;
    size_t n_slots;
    uint64_t hash_key[2];
};

/* ---- hash ---------------------------------------------------------------------------------- */

static uint64_t rotate_left(uint64_t x, int n) {
    return x << n | x >> (64 - n);
}

static void sip_round(uint64_t v[4]) {
    v[0] += v[1], v[1] = rotate_left(v[1], 13) ^ v[0], v[0] = rotate_left(v[0], 32);
    v[2] += v[3], v[3] = rotate_left(v[3], 16) ^ v[2];
    v[0] += v[3], v[3] = rotate_left(v[3], 21) ^ v[0];
    v[2] += v[1], v[1] = rotate_left(v[1], 17) ^ v[2], v[2] = rotate_left(v[2], 32);
}

uint64_t hash_bytes(const uint64_t key[2], const void *bytes, size_t size) {
    uint64_t v[4] = { key[0] ^ 0x736f6d6570736575u, key[1] ^ 0x646f72616e646f6du,
                      key[0] ^ 0x6c7967656e657261u, key[1] ^ 0x7465646279746573u };
    const unsigned char *p = bytes;
    size_t left = size;
    for (; left >= 8; left -= 8, p += 8) {
        uint64_t word;
        memcpy(&word, p, 8); /* the host's byte order: a hash never leaves the process */
        v[3] ^= word;
        sip_round(v);
        v[0] ^= word;
    }
    uint64_t last = (uint64_t)size << 56;
    for (size_t i = 0; i < left; i++) last |= (uint64_t)p[i] << (8 * i);
    v[3] ^= last;
    sip_round(v);
    v[0] ^= last;
    v[2] ^= 0xff;
    sip_round(v), sip_round(v), sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

void hash_key(uint64_t key[2]) {
    static atomic_uint_fast64_t calls;
    struct timespec now = { 0 };
    timespec_get(&now, TIME_UTC);
    /* Time, and where the system put program and stack: enough against files made beforehand. */
    const uint64_t seed[2] = { (uint64_t)now.tv_sec << 30 ^ (uint64_t)now.tv_nsec,
                               atomic_fetch_add(&calls, 1) };
    const uint64_t places[2] = { (uintptr_t)&calls, (uintptr_t)&now };
    key[0] = hash_bytes(seed, places, sizeof(places));
    key[1] = hash_bytes(places, seed, sizeof(seed));
}

/* ---- table --------------------------------------------------------------------------------- */

static uint32_t hash_of(const map *m, str key) {
    return (uint32_t)hash_bytes(m->hash_key, key.data, key.size);
}

/* The slot that holds the key or, if there is none, the empty one where it belongs. */
static size_t find_slot(const map *m, str key, uint32_t hash) {
    size_t at = hash & (m->n_slots - 1);
    for (; m->slots[at] != 0; at = (at + 1) & (m->n_slots - 1)) {
        const entry *e = &m->entries[m->slots[at] - 1];
        if (e->hash == hash && str_equal((str){ e->key, e->size }, key)) break;
    }
    return at;
}

/* Makes room for n entries; the map is as it was on failure. */
static bool grow_map(map *m, size_t n, dp_error *err) {
    size_t n_slots = SLOTS_MIN;
    while (n_slots / 4 * 3 < n) {
        if (n_slots > UINT32_MAX / 4) {
            return err_set(err, DP_E_LIMIT, "a table of %zu entries, the limit is %zu", n,
                           n_slots / 4 * 3);
        }
        n_slots *= 2;
    }
    const size_t entries_max = n_slots / 4 * 3;
    entry *entries = mem_resize(m->entries, entries_max, sizeof(entry), "a hash table", err);
    if (entries == NULL) return false;
    m->entries = entries;
    uint32_t *slots = mem_new(n_slots, sizeof(uint32_t), "a hash table", err);
    if (slots == NULL) return false;
    mem_free(m->slots);
    m->slots = slots;
    m->n_slots = n_slots;
    m->entries_max = entries_max;
    for (size_t i = 0; i < m->n_entries; i++) {
        size_t at = m->entries[i].hash & (n_slots - 1);
        while (slots[at] != 0) at = (at + 1) & (n_slots - 1);
        slots[at] = (uint32_t)i + 1;
    }
    return true;
}

map *map_new(size_t expected, dp_error *err) {
    map *m = mem_new(1, sizeof(map), "a hash table", err);
    if (m == NULL) return NULL;
    hash_key(m->hash_key);
    if (!grow_map(m, expected, err)) {
        map_free(m);
        return NULL;
    }
    return m;
}

void map_free(map *m) {
    if (m == NULL) return;
    arena_free(&m->keys);
    mem_free(m->entries);
    mem_free(m->slots);
    mem_free(m);
}

bool map_get(const map *m, str key, uint32_t *value) {
    const uint32_t slot = m->slots[find_slot(m, key, hash_of(m, key))];
    if (slot == 0) return false;
    if (value != NULL) *value = m->entries[slot - 1].value;
    return true;
}

bool map_put(map *m, str key, uint32_t value, bool *added, dp_error *err) {
    if (added != NULL) *added = false;
    if (key.size > UINT32_MAX) {
        return err_set(err, DP_E_LIMIT, "a key of %zu bytes, the limit is %u", key.size,
                       UINT32_MAX);
    }
    const uint32_t hash = hash_of(m, key);
    size_t at = find_slot(m, key, hash);
    if (m->slots[at] != 0) return true;
    if (m->n_entries == m->entries_max) {
        if (!grow_map(m, m->n_entries + 1, err)) return false;
        at = find_slot(m, key, hash);
    }
    const char *copy = arena_copy(&m->keys, key.data, key.size, err);
    if (copy == NULL) return false;
    m->entries[m->n_entries] =
        (entry){ .key = copy, .size = (uint32_t)key.size, .hash = hash, .value = value };
    m->slots[at] = (uint32_t)++m->n_entries;
    if (added != NULL) *added = true;
    return true;
}

size_t map_count(const map *m) {
    return m->n_entries;
}
