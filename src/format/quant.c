/* quant: decoding of every block format, and half floats.
 *
 * Layouts are those of ggml's quantisation types; offsets in the comments are bytes from the start
 * of a block, all numbers little-endian. Decoding multiplies scale by quant in f32 and subtracts
 * the minimum last, so that results are equal bit for bit to those of other readers that do so
 * (this needs a compiler that does not contract to fused operations: -ffp-contract=off). Encoding
 * is in quant_encode.c. */
#include "format/format.h"

#include <math.h>

/* IQ4_NL and IQ4_XS: the 16 levels, denser near zero. */
static const int8_t iq4_levels[16] = { -127, -104, -83, -65, -49, -35, -22, -10,
                                       1,    13,   25,  38,  53,  69,  89,  113 };

/* MXFP4: E2M1 doubled. */
static const int8_t mxfp4_levels[16] = { 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12 };

/* ---- numbers ------------------------------------------------------------------------------- */

static uint32_t f32_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

static float f32_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

float f16_to_f32(uint16_t h) {
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = h & 0x7fff;
    if (rest >= 0x7c00) return f32_of(sign | 0x7f800000 | (rest & 0x3ff) << 13);
    if (rest >= 0x0400) return f32_of(sign | ((rest << 13) + (112u << 23)));
    const float subnormal = (float)rest * 0x1p-24f;
    return f32_of(sign | f32_bits(subnormal));
}

uint16_t f32_to_f16(float x) {
    const uint32_t sign = f32_bits(x) >> 16 & 0x8000, rest = f32_bits(x) & 0x7fffffff;
    uint32_t h;
    if (rest > 0x7f800000) {
        h = 0x7e00 | (rest >> 13 & 0x3ff);
    } else if (rest >= 0x47800000) { /* 2^16 */
        h = 0x7c00;
    } else if (rest < 0x38800000) { /* 2^-14: adding 0.5 rounds to multiples of 2^-24 */
        h = f32_bits(f32_of(rest) + 0.5f) - f32_bits(0.5f);
    } else {
        h = (rest + 0xfff + (rest >> 13 & 1) - (112u << 23)) >> 13; /* may carry to infinity */
    }
    return (uint16_t)(sign | h);
}

float bf16_to_f32(uint16_t h) {
    return f32_of((uint32_t)h << 16);
}

uint16_t f32_to_bf16(float x) {
    const uint32_t bits = f32_bits(x);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static uint16_t load_u16(const uint8_t *p) {
    return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t load_u32(const uint8_t *p) {
    return load_u16(p) | (uint32_t)load_u16(p + 2) << 16;
}

static float load_f16(const uint8_t *p) {
    return f16_to_f32(load_u16(p));
}

/* ---- decoding, one block each -------------------------------------------------------------- */

/* Nibble i of a 32-element block: elements 0..15 are the low halves of 16 bytes, the rest the high
 * halves. */
static int nibble(const uint8_t *qs, int i) {
    return i < 16 ? qs[i] & 15 : qs[i - 16] >> 4;
}

static void decode_q4_0(const uint8_t *b, float *out) {
    const float d = load_f16(b);
    for (int i = 0; i < 32; i++)
        out[i] = d * (float)(nibble(b + 2, i) - 8);
}

static void decode_q4_1(const uint8_t *b, float *out) {
    const float d = load_f16(b), m = load_f16(b + 2);
    for (int i = 0; i < 32; i++)
        out[i] = d * (float)nibble(b + 4, i) + m;
}

static void decode_q5_0(const uint8_t *b, float *out) {
    const float d = load_f16(b);
    const uint32_t qh = load_u32(b + 2);
    for (int i = 0; i < 32; i++) {
        out[i] = d * (float)((nibble(b + 6, i) | (int)(qh >> i & 1) << 4) - 16);
    }
}

static void decode_q5_1(const uint8_t *b, float *out) {
    const float d = load_f16(b), m = load_f16(b + 2);
    const uint32_t qh = load_u32(b + 4);
    for (int i = 0; i < 32; i++) {
        out[i] = d * (float)(nibble(b + 8, i) | (int)(qh >> i & 1) << 4) + m;
    }
}

static void decode_q8_0(const uint8_t *b, float *out) {
    const float d = load_f16(b);
    for (int i = 0; i < 32; i++)
        out[i] = d * (float)(int8_t)b[2 + i];
}

/* 0 scales[16]: low half scale, high half minimum, per 16 elements; 16 qs[64]; 80 d; 82 dmin. */
static void decode_q2_k(const uint8_t *b, float *out) {
    const float d = load_f16(b + 80), dmin = load_f16(b + 82);
    for (int i = 0; i < 256; i++) {
        const int h = i / 128, j = i % 128 / 32, l = i % 32;
        const int q = b[16 + 32 * h + l] >> 2 * j & 3, s = b[i / 16];
        out[i] = d * (float)(s & 15) * (float)q - dmin * (float)(s >> 4);
    }
}

/* Scale k of 16 (0..63) of a Q3_K block: low four bits in bytes 0..7, high two in bytes 8..11. */
static int q3_k_scale(const uint8_t *scales, int k) {
    const int low = k < 8 ? scales[k] & 15 : scales[k - 8] >> 4;
    return low | (scales[8 + k % 4] >> 2 * (k / 4) & 3) << 4;
}

/* 0 hmask[32]; 32 qs[64]; 96 scales[12]; 108 d. A clear mask bit subtracts 4. */
static void decode_q3_k(const uint8_t *b, float *out) {
    const float d = load_f16(b + 108);
    for (int i = 0; i < 256; i++) {
        const int h = i / 128, j = i % 128 / 32, l = i % 32;
        const int q = (b[32 + 32 * h + l] >> 2 * j & 3) - (b[l] >> (4 * h + j) & 1 ? 0 : 4);
        out[i] = d * (float)(q3_k_scale(b + 96, i / 16) - 32) * (float)q;
    }
}

/* Scale and minimum (0..63) of sub-block j of 8 in a Q4_K or Q5_K block: 12 bytes hold both. */
static void k_scale_min(const uint8_t *s, int j, int *scale, int *min) {
    if (j < 4) {
        *scale = s[j] & 63;
        *min = s[j + 4] & 63;
    } else {
        *scale = (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
        *min = s[j + 4] >> 4 | s[j] >> 6 << 4;
    }
}

/* 0 d; 2 dmin; 4 scales[12]; 16 qs[128]; Q5_K has the fifth bits in between: 16 qh[32]; 48 qs. */
static void decode_q45_k(const uint8_t *b, float *out, bool five) {
    const float d = load_f16(b), dmin = load_f16(b + 2);
    const uint8_t *qh = b + 16, *qs = five ? b + 48 : b + 16;
    for (int j = 0; j < 8; j++) {
        int scale, min;
        k_scale_min(b + 4, j, &scale, &min);
        const float ds = d * (float)scale, dm = dmin * (float)min;
        for (int l = 0; l < 32; l++) {
            int q = qs[32 * (j / 2) + l] >> 4 * (j % 2) & 15;
            if (five) q |= (qh[l] >> j & 1) << 4;
            out[32 * j + l] = ds * (float)q - dm;
        }
    }
}

static void decode_q4_k(const uint8_t *b, float *out) {
    decode_q45_k(b, out, false);
}

static void decode_q5_k(const uint8_t *b, float *out) {
    decode_q45_k(b, out, true);
}

/* 0 ql[128]; 128 qh[64]; 192 int8 scales[16]; 208 d. */
static void decode_q6_k(const uint8_t *b, float *out) {
    const float d = load_f16(b + 208);
    for (int i = 0; i < 256; i++) {
        const int h = i / 128, j = i % 128 / 32, l = i % 32;
        const int low = b[64 * h + l + 32 * (j % 2)] >> 4 * (j / 2) & 15;
        const int high = b[128 + 32 * h + l] >> 2 * j & 3;
        out[i] = d * (float)(int8_t)b[192 + i / 16] * (float)((low | high << 4) - 32);
    }
}

/* 0 d (f32); 4 int8 qs[256]; 260 int16 sums of 16. */
static void decode_q8_k(const uint8_t *b, float *out) {
    const float d = f32_of(load_u32(b));
    for (int i = 0; i < 256; i++)
        out[i] = d * (float)(int8_t)b[4 + i];
}

static void decode_iq4_nl(const uint8_t *b, float *out) {
    const float d = load_f16(b);
    for (int i = 0; i < 32; i++)
        out[i] = d * (float)iq4_levels[nibble(b + 2, i)];
}

/* 0 d; 2 scales_h u16; 4 scales_l[4]; 8 qs[128], nibbles per 32 elements. */
static void decode_iq4_xs(const uint8_t *b, float *out) {
    const float d = load_f16(b);
    const int scales_h = load_u16(b + 2);
    for (int j = 0; j < 8; j++) {
        const int scale = (b[4 + j / 2] >> 4 * (j % 2) & 15) | (scales_h >> 2 * j & 3) << 4;
        const float ds = d * (float)(scale - 32);
        for (int l = 0; l < 32; l++) {
            out[32 * j + l] = ds * (float)iq4_levels[nibble(b + 8 + 16 * j, l)];
        }
    }
}

/* 2^(e - 128), subnormal for e < 2: half of the E8M0 scale, since the levels are doubled. */
static float mxfp4_scale(int e) {
    return f32_of(e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23);
}

static void decode_mxfp4(const uint8_t *b, float *out) {
    const float d = mxfp4_scale(b[0]);
    for (int i = 0; i < 32; i++)
        out[i] = d * (float)mxfp4_levels[nibble(b + 1, i)];
}

static void decode_f16(const uint8_t *b, float *out) {
    *out = load_f16(b);
}

static void decode_bf16(const uint8_t *b, float *out) {
    *out = bf16_to_f32(load_u16(b));
}

static void decode_f32(const uint8_t *b, float *out) {
    *out = f32_of(load_u32(b));
}

static void decode_f64(const uint8_t *b, float *out) {
    const uint64_t bits = load_u32(b) | (uint64_t)load_u32(b + 4) << 32;
    double x;
    memcpy(&x, &bits, 8);
    *out = (float)x;
}

/* ---- the table ----------------------------------------------------------------------------- */

static const struct {
    void (*decode)(const uint8_t *block, float *out);
} codecs[DTYPE_COUNT] = {
    [DTYPE_F32] = { decode_f32 },       [DTYPE_F64] = { decode_f64 },
    [DTYPE_F16] = { decode_f16 },       [DTYPE_BF16] = { decode_bf16 },
    [DTYPE_Q4_0] = { decode_q4_0 },     [DTYPE_Q4_1] = { decode_q4_1 },
    [DTYPE_Q5_0] = { decode_q5_0 },     [DTYPE_Q5_1] = { decode_q5_1 },
    [DTYPE_Q8_0] = { decode_q8_0 },     [DTYPE_Q2_K] = { decode_q2_k },
    [DTYPE_Q3_K] = { decode_q3_k },     [DTYPE_Q4_K] = { decode_q4_k },
    [DTYPE_Q5_K] = { decode_q5_k },     [DTYPE_Q6_K] = { decode_q6_k },
    [DTYPE_Q8_K] = { decode_q8_k },     [DTYPE_IQ4_NL] = { decode_iq4_nl },
    [DTYPE_IQ4_XS] = { decode_iq4_xs }, [DTYPE_MXFP4] = { decode_mxfp4 },
};

bool quant_decode(dtype type, const void *blocks, float *out, size_t n) {
    const dtype_info *info = dtype_get(type);
    if (info == NULL || codecs[type].decode == NULL) return false;
    assert(n % info->block_elements == 0);
    const uint8_t *b = blocks;
    for (size_t i = 0; i < n; i += info->block_elements, b += info->block_bytes) {
        codecs[type].decode(b, out + i);
    }
    return true;
}
