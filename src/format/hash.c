/* hash: SHA-256 by libcrypto, BLAKE3 and the variant of it that RDRR packs carry under that name.
 *
 * BLAKE3 (specification of that name, version of 2020): chunks of 1024 bytes, each a chain of
 * compressions of 64-byte blocks, are the leaves of a binary tree whose left subtrees are full; a
 * parent compresses its children's values. The stack holds the values of the full subtrees to the
 * left, largest first, so its depth is the number of one bits in the count of chunks. The variant
 * differs in two places of the compression, marked below; no library has it, which is why BLAKE3 is
 * written here at all. */
#include "format/format.h"

#include <openssl/sha.h>

enum {
    BLOCK = 64, /* bytes of one compression */
    CHUNK = 1024,
    DEPTH_MAX = 54, /* subtrees of 2^64 bytes of chunks */
    CHUNK_START = 1,
    CHUNK_END = 2,
    PARENT = 4,
    ROOT = 8,
};

typedef struct {
    uint32_t cv[8]; /* of the chunk being read */
    unsigned char block[BLOCK];
    uint32_t block_size, n_blocks; /* bytes in `block`; blocks of the chunk already compressed */
    uint64_t n_chunks;             /* that are complete */
    uint32_t depth;
    uint32_t stack[DEPTH_MAX][8];
} tree_state;

typedef struct {
    hash_kind kind;
    union {
        SHA256_CTX sha;
        tree_state tree;
    };
} hash_body;

_Static_assert(sizeof(hash_body) <= sizeof(hash_state), "hash_state has too few bytes");

static hash_body *body_of(hash_state *h) {
    void *body = h; /* aligned for it, as long as it */
    return body;
}

/* ---- compression --------------------------------------------------------------------------- */

static const uint32_t blake3_iv[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                       0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };

/* The message words of round r are those of round r - 1 in the order 2 6 3 10 7 0 4 13 1 11 12 5 9
 * 14 15 8: here for all rounds. */
static const uint8_t word_order[7][16] = {
    { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 },
    { 2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8 },
    { 3, 4, 10, 12, 13, 2, 7, 14, 6, 5, 9, 0, 11, 15, 8, 1 },
    { 10, 7, 12, 9, 14, 3, 13, 15, 4, 0, 11, 2, 5, 8, 1, 6 },
    { 12, 13, 9, 11, 15, 10, 14, 8, 7, 2, 5, 3, 0, 1, 6, 4 },
    { 9, 14, 11, 5, 8, 12, 15, 1, 13, 3, 0, 10, 2, 6, 4, 7 },
    { 11, 15, 5, 0, 1, 9, 8, 6, 14, 10, 2, 12, 3, 4, 7, 13 },
};

static inline uint32_t rotate_right(uint32_t x, int n) {
    return x >> n | x << (32 - n);
}

static inline void mix(uint32_t v[16], int a, int b, int c, int d, uint32_t x, uint32_t y) {
    v[a] += v[b] + x;
    v[d] = rotate_right(v[d] ^ v[a], 16);
    v[c] += v[d];
    v[b] = rotate_right(v[b] ^ v[c], 12);
    v[a] += v[b] + y;
    v[d] = rotate_right(v[d] ^ v[a], 8);
    v[c] += v[d];
    v[b] = rotate_right(v[b] ^ v[c], 7);
}

static uint32_t load_word(const unsigned char *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* cv = compress(cv, block). */
static void compress(uint32_t cv[8], const unsigned char block[BLOCK], uint32_t block_size,
                     uint64_t counter, uint32_t flags, bool variant) {
    const uint32_t last[4] = { (uint32_t)counter, (uint32_t)(counter >> 32), block_size, flags };
    uint32_t v[16], m[16];
    for (int i = 0; i < 8; i++)
        v[i] = cv[i];
    for (int i = 0; i < 4; i++)
        v[8 + i] = blake3_iv[i];
    /* First difference: the words are mixed into constants, as BLAKE2 has it. */
    for (int i = 0; i < 4; i++)
        v[12 + i] = variant ? blake3_iv[4 + i] ^ last[i] : last[i];
    for (int i = 0; i < 16; i++)
        m[i] = load_word(block + 4 * i);
    for (int r = 0; r < 7; r++) {
        const uint8_t *o = word_order[r];
        mix(v, 0, 4, 8, 12, m[o[0]], m[o[1]]);
        mix(v, 1, 5, 9, 13, m[o[2]], m[o[3]]);
        mix(v, 2, 6, 10, 14, m[o[4]], m[o[5]]);
        mix(v, 3, 7, 11, 15, m[o[6]], m[o[7]]);
        mix(v, 0, 5, 10, 15, m[o[8]], m[o[9]]);
        mix(v, 1, 6, 11, 12, m[o[10]], m[o[11]]);
        mix(v, 2, 7, 8, 13, m[o[12]], m[o[13]]);
        mix(v, 3, 4, 9, 14, m[o[14]], m[o[15]]);
    }
    /* Second difference: the root's words are not folded with the other half. */
    const bool fold = !(variant && (flags & ROOT) != 0);
    for (int i = 0; i < 8; i++)
        cv[i] = fold ? v[i] ^ v[8 + i] : v[i];
}

/* ---- tree ---------------------------------------------------------------------------------- */

static void store_words(const uint32_t words[8], unsigned char out[32]) {
    for (int i = 0; i < 32; i++)
        out[i] = (unsigned char)(words[i / 4] >> 8 * (i % 4));
}

/* right = parent of left and right. */
static void join_subtrees(const uint32_t left[8], uint32_t right[8], uint32_t flags, bool variant) {
    unsigned char block[BLOCK];
    store_words(left, block);
    store_words(right, block + 32);
    memcpy(right, blake3_iv, sizeof(blake3_iv));
    compress(right, block, BLOCK, 0, PARENT | flags, variant);
}

static void start_chunk(tree_state *s) {
    memcpy(s->cv, blake3_iv, sizeof(s->cv));
    s->block_size = s->n_blocks = 0;
}

static void compress_block(tree_state *s, uint32_t flags, bool variant) {
    if (s->n_blocks == 0) flags |= CHUNK_START;
    compress(s->cv, s->block, s->block_size, s->n_chunks, flags, variant);
    s->n_blocks++;
    s->block_size = 0;
}

/* The last block of a chunk stays uncompressed until more follows: it may be the root. */
static void end_chunk(tree_state *s, bool variant) {
    compress_block(s, CHUNK_END, variant);
    uint64_t n = ++s->n_chunks;
    for (; (n & 1) == 0; n >>= 1)
        join_subtrees(s->stack[--s->depth], s->cv, 0, variant);
    memcpy(s->stack[s->depth++], s->cv, sizeof(s->cv));
    start_chunk(s);
}

static void add_to_tree(tree_state *s, const unsigned char *bytes, size_t n, bool variant) {
    while (n > 0) {
        if (s->block_size == BLOCK) {
            if (s->n_blocks == CHUNK / BLOCK - 1) {
                end_chunk(s, variant);
            } else {
                compress_block(s, 0, variant);
            }
        }
        const size_t room = BLOCK - s->block_size, take = n < room ? n : room;
        memcpy(s->block + s->block_size, bytes, take);
        s->block_size += (uint32_t)take;
        bytes += take;
        n -= take;
    }
}

static void end_tree(tree_state *s, unsigned char digest[HASH_BYTES], bool variant) {
    memset(s->block + s->block_size, 0, BLOCK - s->block_size);
    const uint32_t flags = s->depth == 0 ? CHUNK_END | ROOT : CHUNK_END;
    compress_block(s, flags, variant);
    while (s->depth > 0) {
        s->depth--;
        join_subtrees(s->stack[s->depth], s->cv, s->depth == 0 ? ROOT : 0, variant);
    }
    store_words(s->cv, digest);
}

/* ---- interface ----------------------------------------------------------------------------- */

void hash_begin(hash_state *h, hash_kind kind) {
    hash_body *b = body_of(h);
    b->kind = kind;
    if (kind == HASH_SHA256) {
        SHA256_Init(&b->sha);
    } else {
        b->tree.n_chunks = 0;
        b->tree.depth = 0;
        start_chunk(&b->tree);
    }
}

void hash_add(hash_state *h, const void *bytes, size_t n) {
    hash_body *b = body_of(h);
    if (b->kind == HASH_SHA256) {
        SHA256_Update(&b->sha, bytes, n);
    } else {
        add_to_tree(&b->tree, bytes, n, b->kind == HASH_BLAKE3_VARIANT);
    }
}

void hash_end(hash_state *h, unsigned char digest[HASH_BYTES]) {
    hash_body *b = body_of(h);
    if (b->kind == HASH_SHA256) {
        SHA256_Final(digest, &b->sha);
    } else {
        end_tree(&b->tree, digest, b->kind == HASH_BLAKE3_VARIANT);
    }
}
