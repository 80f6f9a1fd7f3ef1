/* quant_internal: what the encoders (quant_encode.c: layouts) ask of the search (quant_search.c:
 * numbers). The search knows no bytes, the encoders no least squares. */
#ifndef FORMAT_QUANT_INTERNAL_H
#define FORMAT_QUANT_INTERNAL_H

#include "format/format.h"

/* Elements of a unit of search: a super-block, or QUANT_BLOCKS blocks of 32 side by side. */
enum { QUANT_UNIT = 256, QUANT_SUBS = 16, QUANT_BLOCKS = 4, QUANT_LEVELS = 16 };

/* A format as the search sees it. The value of largest size (or the span of the values) is laid
 * over from..to times the range of quants in `trials` steps. */
typedef struct {
    int n;              /* elements of a sub-block: 16 or 32 */
    float low, high;    /* quants: the whole numbers between, low = 0 if there is an offset */
    const float *level; /* [QUANT_LEVELS] low to high, what quants stand for; NULL: themselves */
    float limit;        /* of super-blocks' multiples: 0..limit, or -limit..limit - 1 if signed */
    int trials;
    float from, to;
} quant_format;

/* What was found. Quants count from 0, signed multiples too. */
typedef struct {
    uint8_t q[QUANT_UNIT];
    float d, dmin;                                  /* of a super-block, exact as halves */
    int scale[QUANT_SUBS], minimum[QUANT_SUBS];     /* its multiples */
    float step[QUANT_BLOCKS], offset[QUANT_BLOCKS]; /* of blocks of 32, exact as halves */
} quant_found;

/* All take finite x and weights in (0, 1].
 * Super-blocks: x = d scale q - dmin minimum, d and dmin both >= 0 or both <= 0; and
 * x = d scale q with signed scales. */
void quant_find_pairs(const quant_format *f, const float *x, const float *w, quant_found *out);
void quant_find_scales(const quant_format *f, const float *x, const float *w, quant_found *out);
/* Four blocks of 32: x = step q + offset; and x = step q. */
void quant_find_offsets(const quant_format *f, const float *x, const float *w, quant_found *out);
void quant_find_steps(const quant_format *f, const float *x, const float *w, quant_found *out);

/* The half nearest to x, of the largest size for what is beyond. */
uint16_t quant_half(float x);

#endif
