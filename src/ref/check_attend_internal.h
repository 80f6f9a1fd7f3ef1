/* check_attend: what the checks of RoPE, of the paged cache and of the two attentions share.
 *
 * Pages of a slot lie scattered over the pool. What no position has written holds NaN, or the
 * largest half float for a kernel that multiplies it by 0, so that a key beyond a row's length
 * cannot take part unseen. */
#ifndef DP_REF_CHECK_ATTEND_INTERNAL_H
#define DP_REF_CHECK_ATTEND_INTERNAL_H

#include "ref/check_internal.h"

enum { ATTEND_PAGE = 32, ATTEND_SLOTS = 3 };

/* A pool of pages for ATTEND_SLOTS sequences. */
typedef struct {
    bool f16;
    uint32_t n_kv, head_dim, d8, table, n_pages;
    uint32_t *pages; /* [ATTEND_SLOTS, table] */
    size_t n;        /* elements of keys, and of values */
} attend_cache;

typedef enum { KEYS, VALUES } attend_kind;

/* Rows of qkv, and what norm and RoPE make of their queries and keys. */
typedef struct {
    uint32_t n, n_heads, n_kv, head_dim, rope_dim, width;
    bool norm;
    float eps;
    double sharp; /* factor of the queries */
    float *qkv, *weights;
    float *angles;        /* [context, rope_dim / 2] (cos, sin) */
    size_t n_angles;      /* floats */
    double *want, *bound; /* [n, width] */
} attend_raw;

typedef enum { OUT_PLAIN, OUT_F32, OUT_Q8 } output_kind;

typedef struct {
    uint32_t n_kv, group, heads, head_dim, one, span, window;
    double sharp;              /* factor of the queries: how peaked the softmax is */
    const uint32_t (*rows)[2]; /* decode: (slot, position); prefill: (slot, first
                                  position) ... */
    const uint32_t *n_rows;    /* ... and rows of each tile */
    uint32_t n;
    uint32_t bq, bk, q_rows, parts; /* prefill */
    const char *reason;
    double softcap;
    bool sinks;
    bool fused, norm;
    uint32_t rope_dim, wg, splits; /* 0: -, 64, as many as fit */
    output_kind out;
    bool gpu;       /* attend_decode_tree laid out as for a GPU on a CPU too */
    uint32_t ahead; /* of attend_decode; 0: 4 */
    bool halves;    /* queries and exp(scores - m) are rounded to half floats */
} attend_case;

/* Keys and values of all slots: [ATTEND_SLOTS, length, n_kv * head_dim], and as they
 * lie in the cache. */
typedef struct {
    attend_cache cache;
    double *k, *v;
    double *k_error, *v_error; /* of keys and values that the kernel makes itself; else NULL */
    void *key_bytes, *value_bytes;
    uint32_t length;
} attend_history;

attend_cache attend_new_cache(rig *r, bool f16, uint32_t n_kv, uint32_t head_dim, uint32_t longest);
/* Squares of a head are added by `sums` additions one behind the other. The
 * rows' positions are rows[i][1]. */
void attend_make_raw(rig *r, attend_raw *w, const uint32_t (*rows)[2], uint32_t sums);
/* All elements of the keys (or values) that the rows put there; all others are
 * as before. */
void attend_expect_cache(rig *r, const attend_raw *w, const uint32_t (*rows)[2],
                         const attend_cache *c, const rig_output *o, attend_kind kind);
attend_history attend_new_history(rig *r, const attend_case *a, bool f16, uint32_t length);
/* The newest keys and values, which the kernel makes of raw rows, as the
 * reference has them. What rounding to f16 adds to the bounds: as in
 * expect_cached. */
void attend_add_fresh(rig *r, const attend_case *a, attend_history *h, const attend_raw *w);
/* The sinks of all heads; a word where there are none. */
float *attend_new_sinks(rig *r, const attend_case *a, uint32_t *n);
/* Queries [n, heads, d8 * 8], zero behind head_dim. */
float *attend_new_queries(rig *r, const attend_case *a, uint32_t n);
/* What one head of one row should be, and how far off it may be: y, bound
 * [head_dim]. q may be off by q_error, which may be NULL. */
void attend_find_head(rig *r, const attend_case *a, const attend_history *h, const double *q,
                      const double *q_error, uint32_t place, uint32_t pos, uint32_t head,
                      double *want, double *bound);
/* A row of `width` columns in the layout that the case asks for. */
void attend_expect_row(rig *r, output_kind kind, const rig_output *y, size_t row, uint32_t width,
                       const double *want, const double *bound);
void attend_shape(const attend_case *a, char *shape, size_t size);

#endif
