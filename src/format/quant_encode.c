/* quant_encode: floats to the blocks of every format.
 *
 * Here are the layouts (quant.c draws them beside its decoders) and what needs no search: float
 * types, Q8_0 and Q8_K, whose plain method leaves little to gain, and MXFP4, whose scales are few
 * enough to try. Steps and offsets of all others come from quant_search.c. */
#include "format/quant_internal.h"

#include <float.h>
#include <math.h>

/* ---- bytes --------------------------------------------------------------------------------- */

static void put_u16(uint8_t *p, uint32_t value) {
    p[0] = (uint8_t)value;
    p[1] = (uint8_t)(value >> 8);
}

static void put_u32(uint8_t *p, uint32_t value) {
    put_u16(p, value);
    put_u16(p + 2, value >> 16);
}

static void put_half(uint8_t *p, float x) {
    put_u16(p, quant_half(x));
}

/* Sets bits of a byte that are zero so far. */
static void put_bits(uint8_t *p, int bits) {
    *p = (uint8_t)(*p | bits);
}

/* Packs 32 quants below 16 (or 32, whose fifth bits go to qh). */
static void pack_nibbles(uint8_t *qs, uint8_t *qh, const uint8_t *q) {
    uint32_t fifth = 0;
    for (int i = 0; i < 16; i++)
        qs[i] = (uint8_t)((q[i] & 15) | (q[i + 16] & 15) << 4);
    for (int i = 0; i < 32; i++)
        fifth |= (uint32_t)(q[i] >> 4) << i;
    if (qh != NULL) put_u32(qh, fifth);
}

/* ---- super-blocks -------------------------------------------------------------------------- */

/* 0 scales[16]; 16 qs[64]; 80 d; 82 dmin. */
static void encode_q2_k(const float *x, const float *w, int n_blocks, uint8_t *b) {
    static const quant_format f = { 16, 0, 3, NULL, 15, 16, 0.6667f, 1.6667f };
    quant_found r;
    (void)n_blocks;
    quant_find_pairs(&f, x, w, &r);
    memset(b, 0, 84);
    for (int k = 0; k < 16; k++)
        b[k] = (uint8_t)(r.scale[k] | r.minimum[k] << 4);
    for (int i = 0; i < 256; i++) {
        put_bits(&b[16 + 32 * (i / 128) + i % 32], r.q[i] << 2 * (i % 128 / 32));
    }
    put_half(b + 80, r.d);
    put_half(b + 82, r.dmin);
}

/* 0 hmask[32]; 32 qs[64]; 96 scales[12]; 108 d. */
static void encode_q3_k(const float *x, const float *w, int n_blocks, uint8_t *b) {
    static const quant_format f = { 16, -4, 3, NULL, 32, 14, 0.75f, 1.4f };
    quant_found r;
    (void)n_blocks;
    quant_find_scales(&f, x, w, &r);
    memset(b, 0, 110);
    for (int k = 0; k < 16; k++) {
        put_bits(&b[96 + k % 8], (r.scale[k] & 15) << 4 * (k / 8));
        put_bits(&b[104 + k % 4], r.scale[k] >> 4 << 2 * (k / 4));
    }
    for (int i = 0; i < 256; i++) {
        const int h = i / 128, j = i % 128 / 32, l = i % 32;
        put_bits(&b[32 + 32 * h + l], (r.q[i] & 3) << 2 * j);
        put_bits(&b[l], r.q[i] >> 2 << (4 * h + j));
    }
    put_half(b + 108, r.d);
}

/* 0 d; 2 dmin; 4 scales[12]; 16 qs[128], for Q5_K 16 qh[32]; 48 qs. */
static void encode_q45_k(const quant_format *f, const float *x, const float *w, uint8_t *b) {
    const bool five = f->high > 15;
    quant_found r;
    quant_find_pairs(f, x, w, &r);
    memset(b, 0, five ? 176 : 144);
    put_half(b, r.d);
    put_half(b + 2, r.dmin);
    uint8_t *s = b + 4, *qh = b + 16, *qs = five ? b + 48 : b + 16;
    for (int j = 0; j < 8; j++) {
        const int scale = r.scale[j], minimum = r.minimum[j];
        if (j < 4) {
            put_bits(&s[j], scale);
            put_bits(&s[j + 4], minimum);
        } else {
            put_bits(&s[j + 4], (scale & 15) | (minimum & 15) << 4);
            put_bits(&s[j - 4], scale >> 4 << 6);
            put_bits(&s[j], minimum >> 4 << 6);
        }
        for (int l = 0; l < 32; l++) {
            const int q = r.q[32 * j + l];
            put_bits(&qs[32 * (j / 2) + l], (q & 15) << 4 * (j % 2));
            if (five) put_bits(&qh[l], q >> 4 << j);
        }
    }
}

static void encode_q4_k(const float *x, const float *w, int n_blocks, uint8_t *b) {
    static const quant_format f = { 32, 0, 15, NULL, 63, 16, 0.8536f, 1.2196f };
    (void)n_blocks;
    encode_q45_k(&f, x, w, b);
}

static void encode_q5_k(const float *x, const float *w, int n_blocks, uint8_t *b) {
    static const quant_format f = { 32, 0, 31, NULL, 63, 16, 0.847f, 1.102f };
    (void)n_blocks;
    encode_q45_k(&f, x, w, b);
}

/* 0 ql[128]; 128 qh[64]; 192 int8 scales[16]; 208 d. */
static void encode_q6_k(const float *x, const float *w, int n_blocks, uint8_t *b) {
    static const quant_format f = { 16, -32, 31, NULL, 128, 9, 0.9f, 1.06f };
    quant_found r;
    (void)n_blocks;
    quant_find_scales(&f, x, w, &r);
    memset(b, 0, 210);
    for (int k = 0; k < 16; k++)
        b[192 + k] = (uint8_t)(r.scale[k] - 128);
    for (int i = 0; i < 256; i++) {
        const int h = i / 128, j = i % 128 / 32, l = i % 32;
        put_bits(&b[64 * h + l + 32 * (j % 2)], (r.q[i] & 15) << 4 * (j / 2));
        put_bits(&b[128 + 32 * h + l], r.q[i] >> 4 << 2 * j);
    }
    put_half(b + 208, r.d);
}

/* The levels of IQ4_NL and IQ4_XS, from the one place that lists them: the decoder. */
static void read_iq4_levels(float level[32]) {
    uint8_t block[18] = { 0, 0x3c }; /* d = 1 */
    for (int i = 0; i < 16; i++)
        block[2 + i] = (uint8_t)i;
    quant_decode(DTYPE_IQ4_NL, block, level, 32);
}

/* 0 d; 2 scales_h u16; 4 scales_l[4]; 8 qs[128]. */
static void encode_iq4_xs(const float *x, const float *w, int n_blocks, uint8_t *b) {
    float level[32];
    quant_found r;
    (void)n_blocks;
    read_iq4_levels(level);
    const quant_format f = { 32, level[0], level[15], level, 32, 8, 0.85f, 1.2f };
    quant_find_scales(&f, x, w, &r);
    memset(b, 0, 136);
    put_half(b, r.d);
    uint32_t scales_h = 0;
    for (int j = 0; j < 8; j++) {
        put_bits(&b[4 + j / 2], (r.scale[j] & 15) << 4 * (j % 2));
        scales_h |= (uint32_t)(r.scale[j] >> 4) << 2 * j;
        pack_nibbles(b + 8 + 16 * j, NULL, r.q + 32 * j);
    }
    put_u16(b + 2, scales_h);
}

/* ---- blocks of 32 -------------------------------------------------------------------------- */

/* Q4_0 and IQ4_NL: 0 d; 2 qs[16]. Q5_0: 0 d; 2 qh u32; 6 qs[16]. */
static void encode_steps(const quant_format *f, bool five, const float *x, const float *w,
                         int n_blocks, uint8_t *b) {
    quant_found r;
    quant_find_steps(f, x, w, &r);
    for (int i = 0; i < n_blocks; i++, b += five ? 22 : 18) {
        put_half(b, r.step[i]);
        pack_nibbles(five ? b + 6 : b + 2, five ? b + 2 : NULL, r.q + 32 * i);
    }
}

static void encode_q4_0(const float *x, const float *w, int n_blocks, uint8_t *b) {
    static const quant_format f = { 32, -8, 7, NULL, 0, 14, 0.844f, 1.182f };
    encode_steps(&f, false, x, w, n_blocks, b);
}

static void encode_q5_0(const float *x, const float *w, int n_blocks, uint8_t *b) {
    static const quant_format f = { 32, -16, 15, NULL, 0, 14, 0.844f, 1.182f };
    encode_steps(&f, true, x, w, n_blocks, b);
}

static void encode_iq4_nl(const float *x, const float *w, int n_blocks, uint8_t *b) {
    float level[32];
    read_iq4_levels(level);
    const quant_format f = { 32, level[0], level[15], level, 0, 8, 0.85f, 1.2f };
    encode_steps(&f, false, x, w, n_blocks, b);
}

/* 0 d; 2 m; 4 qs[16], for Q5_1 4 qh u32; 8 qs[16]. */
static void encode_offsets(const quant_format *f, bool five, const float *x, const float *w,
                           int n_blocks, uint8_t *b) {
    quant_found r;
    quant_find_offsets(f, x, w, &r);
    for (int i = 0; i < n_blocks; i++, b += five ? 24 : 20) {
        put_half(b, r.step[i]);
        put_half(b + 2, r.offset[i]);
        pack_nibbles(five ? b + 8 : b + 4, five ? b + 4 : NULL, r.q + 32 * i);
    }
}

static void encode_q4_1(const float *x, const float *w, int n_blocks, uint8_t *b) {
    static const quant_format f = { 32, 0, 15, NULL, 0, 20, 0.86f, 1.24f };
    encode_offsets(&f, false, x, w, n_blocks, b);
}

static void encode_q5_1(const float *x, const float *w, int n_blocks, uint8_t *b) {
    static const quant_format f = { 32, 0, 31, NULL, 0, 20, 0.8965f, 1.115f };
    encode_offsets(&f, true, x, w, n_blocks, b);
}

/* One block with the scale e: its weighted error, infinite if a value decodes to no float. */
static double try_mxfp4(const float *x, const float *w, int e, uint8_t q[32]) {
    const double unit = ldexp(1, e - 128);
    double error = 0;
    for (int i = 0; i < 32; i++) {
        /* levels are 0 1 2 3 4 6 8 12; adding 1.5 * 2^52 rounds */
        const double size = fabs((double)x[i]), v = size / unit;
        const double grain = v < 4 ? 1 : v < 8 ? 2 : 4;
        const double level = v < 12 ? grain * ((v / grain + 0x1.8p52) - 0x1.8p52) : 12;
        const double off = size - unit * level;
        error += (double)w[i] * off * off;
        if (unit * level > (double)FLT_MAX) error = INFINITY;
        const int index = (int)level - (level > 4) - (level > 6) - 3 * (level > 8);
        q[i] = (uint8_t)(index | (x[i] < 0 && index > 0 ? 8 : 0));
    }
    return error;
}

/* 0 e; 1 qs[16]. The usual e takes the largest value to [4, 8) units of 2^(e - 127), where the
 * levels end at 6: one finer or coarser may lose less. In double, as scales span all of f32. */
static void encode_mxfp4(const float *x, const float *w, int n_blocks, uint8_t *b) {
    for (; n_blocks > 0; n_blocks--, x += 32, w += 32, b += 17) {
        float largest = 0;
        for (int i = 0; i < 32; i++)
            largest = fmaxf(largest, fabsf(x[i]));
        int usual = 0;
        if (largest > 0) usual = (int)ilogbf(largest) + 125;
        const int first = usual > 2 ? usual - 2 : 0, last = usual > -1 ? usual + 1 : 0;
        double least = INFINITY;
        memset(b, 0, 17);
        for (int e = first; e <= last && e < 255; e++) {
            uint8_t q[32];
            const double error = try_mxfp4(x, w, e, q);
            if (!(error < least)) continue;
            least = error;
            b[0] = (uint8_t)e;
            pack_nibbles(b + 1, NULL, q);
        }
    }
}

/* ---- plain methods ------------------------------------------------------------------------- */

/* Nearest whole number in -128..127, halves away from zero. */
static void store_int8(const float *x, int n, float inverse, uint8_t *q) {
    for (int i = 0; i < n; i++) {
        float v = x[i] * inverse;
        v = v > 127 ? 127 : v < -128 ? -128 : v;
        const float even = (v + 0x1.8p23f) - 0x1.8p23f, left = v - even;
        const float up = left == 0.5f && v > 0 ? 1 : 0, down = left == -0.5f && v < 0 ? 1 : 0;
        q[i] = (uint8_t)(int8_t)(even + up - down);
    }
}

/* The value of largest size with its sign; the first one of equals. */
static float signed_extreme(const float *x, int n) {
    float extreme = 0;
    for (int i = 0; i < n; i++) {
        if (fabsf(x[i]) > fabsf(extreme)) extreme = x[i];
    }
    return extreme;
}

/* 0 d; 2 int8 qs[32]; d = max / 127. */
static void encode_q8_0(const float *x, const float *w, int n_blocks, uint8_t *b) {
    (void)w;
    for (; n_blocks > 0; n_blocks--, x += 32, b += 34) {
        const float d = fabsf(signed_extreme(x, 32)) / 127;
        store_int8(x, 32, d != 0 ? 1 / d : 0, b + 2);
        put_half(b, d);
    }
}

/* 0 d (f32); 4 int8 qs[256]; 260 int16 sums of 16. */
static void encode_q8_k(const float *x, const float *w, int n_blocks, uint8_t *b) {
    const float extreme = signed_extreme(x, 256);
    const float inverse = extreme != 0 ? -127 / extreme : 0;
    (void)w;
    (void)n_blocks;
    store_int8(x, 256, inverse, b + 4);
    for (int k = 0; k < 16; k++) {
        int sum = 0;
        for (int i = 0; i < 16; i++)
            sum += (int8_t)b[4 + 16 * k + i];
        put_u16(b + 260 + 2 * k, (uint32_t)sum);
    }
    const float d = inverse != 0 ? 1 / inverse : 0;
    uint32_t bits;
    memcpy(&bits, &d, 4);
    put_u32(b, bits);
}

static void encode_f32(const float *x, size_t n, uint8_t *out) {
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], 4);
        put_u32(out + 4 * i, bits);
    }
}

static void encode_f16(const float *x, size_t n, uint8_t *out) {
    for (size_t i = 0; i < n; i++)
        put_u16(out + 2 * i, f32_to_f16(x[i]));
}

static void encode_bf16(const float *x, size_t n, uint8_t *out) {
    for (size_t i = 0; i < n; i++)
        put_u16(out + 2 * i, f32_to_bf16(x[i]));
}

/* ---- the table ----------------------------------------------------------------------------- */

/* Half floats times small whole numbers: multiples of 2^-24, so less than half of that is nothing,
 * and the largest half times the largest quant (and multiple) is the most. */
static const float nothing = 0x1p-25f, half_most = 65504;

/* Either all of a row, or units of so many blocks. Inputs of a unit are finite, of at most
 * half_most * reach (0: any float), and nothing below `nothing` unless `all`. */
static const struct {
    void (*row)(const float *x, size_t n, uint8_t *out);
    void (*unit)(const float *x, const float *w, int n_blocks, uint8_t *b);
    int blocks;
    float reach;
    bool all;
} encoders[DTYPE_COUNT] = {
    [DTYPE_F32] = { .row = encode_f32 },
    [DTYPE_F16] = { .row = encode_f16 },
    [DTYPE_BF16] = { .row = encode_bf16 },
    [DTYPE_Q4_0] = { NULL, encode_q4_0, QUANT_BLOCKS, 8, false },
    [DTYPE_Q4_1] = { NULL, encode_q4_1, QUANT_BLOCKS, 1 + 15, false },
    [DTYPE_Q5_0] = { NULL, encode_q5_0, QUANT_BLOCKS, 16, false },
    [DTYPE_Q5_1] = { NULL, encode_q5_1, QUANT_BLOCKS, 1 + 31, false },
    [DTYPE_Q8_0] = { NULL, encode_q8_0, QUANT_BLOCKS, 127, true },
    [DTYPE_Q2_K] = { NULL, encode_q2_k, 1, 15 * 3, false },
    [DTYPE_Q3_K] = { NULL, encode_q3_k, 1, 32 * 4, false },
    [DTYPE_Q4_K] = { NULL, encode_q4_k, 1, 63 * 15, false },
    [DTYPE_Q5_K] = { NULL, encode_q5_k, 1, 63 * 31, false },
    [DTYPE_Q6_K] = { NULL, encode_q6_k, 1, 128 * 32, false },
    [DTYPE_Q8_K] = { NULL, encode_q8_k, 1, 0x1p111f, true },
    [DTYPE_IQ4_NL] = { NULL, encode_iq4_nl, QUANT_BLOCKS, 127, false },
    [DTYPE_IQ4_XS] = { NULL, encode_iq4_xs, 1, 32 * 127, false },
    [DTYPE_MXFP4] = { NULL, encode_mxfp4, QUANT_BLOCKS, 0, true },
};

/* Finite numbers within what a format reaches; NaN is nothing. */
static void clean_values(const float *x, size_t n, dtype type, float *out) {
    const float limit = encoders[type].reach > 0 ? half_most * encoders[type].reach : FLT_MAX;
    const float least = encoders[type].all ? 0 : nothing;
    for (size_t i = 0; i < n; i++) {
        const float v = x[i] > limit ? limit : x[i] < -limit ? -limit : x[i];
        out[i] = fabsf(v) >= least ? v : 0;
    }
}

/* Weights in (0, 1]: columns of no weight keep a little, so that every sum has a solution. */
static void clean_weights(const float *importance, size_t n, float *out) {
    static const float least = 1e-6f;
    float top = 0;
    for (size_t i = 0; importance != NULL && i < n; i++) {
        if (importance[i] > top) top = importance[i];
    }
    if (top > FLT_MAX) top = FLT_MAX;
    for (size_t i = 0; i < n; i++) {
        out[i] = 1;
        if (importance != NULL && top > 0) {
            const float w = (float)((double)importance[i] / (double)top);
            out[i] = w > 1 ? 1 : w > least ? w : least;
        }
    }
}

bool quant_can_encode(dtype type) {
    return dtype_get(type) != NULL && (encoders[type].row != NULL || encoders[type].unit != NULL);
}

bool quant_encode(dtype type, const float *x, const float *importance, void *blocks, size_t n) {
    if (!quant_can_encode(type)) return false;
    const dtype_info *info = dtype_get(type);
    const size_t elements = info->block_elements;
    assert(n % elements == 0);
    uint8_t *b = blocks;
    if (encoders[type].row != NULL) {
        encoders[type].row(x, n, b);
        return true;
    }
    float values[QUANT_UNIT], weights[QUANT_UNIT];
    for (size_t done = 0; done < n;) {
        const size_t unit = (size_t)encoders[type].blocks * elements;
        const size_t taken = (size_t)min_u64(unit, n - done);
        memset(values, 0, sizeof(values)); /* of blocks that are not there */
        clean_values(x + done, taken, type, values);
        for (size_t at = 0; at < unit; at += elements) {
            const bool there = importance != NULL && at < taken;
            clean_weights(there ? importance + done + at : NULL, elements, weights + at);
        }
        encoders[type].unit(values, weights, (int)(taken / elements), b);
        b += taken / elements * info->block_bytes;
        done += taken;
    }
    return true;
}

bool quant_encode_row(dtype type, const float *x, const float *importance, size_t cols, void *out) {
    if (!quant_can_encode(type)) return false;
    const dtype_info *info = dtype_get(type);
    const size_t left = cols % info->block_elements, full = cols - left;
    quant_encode(type, x, importance, out, full);
    if (left > 0) {
        float last[QUANT_UNIT] = { 0 }, weights[QUANT_UNIT] = { 0 };
        memcpy(last, x + full, left * sizeof(float));
        for (size_t i = 0; i < left; i++)
            weights[i] = importance != NULL ? importance[full + i] : 1;
        uint8_t *b = (uint8_t *)out + full / info->block_elements * info->block_bytes;
        quant_encode(type, last, weights, b, info->block_elements);
    }
    return true;
}
