/* quant: reference decoding and encoding of every block format.
 *
 * Layouts are those of ggml's quantisation types; offsets in the comments are bytes from the start
 * of a block, all numbers little-endian. Decoding multiplies scale by quant in f32 and subtracts
 * the minimum last, so that results are equal bit for bit to those of other readers that do so
 * (this needs a compiler that does not contract to fused operations: -ffp-contract=off).
 *
 * Encoders of the 32-element types are the formats' plain reference methods. Those of the 256-
 * element types fit the scale (and minimum) of each sub-block by least squares, weighted towards
 * large values, over a few trial roundings; then the scales themselves are rounded and every
 * element is rounded again with what the decoder will see. */
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

static void store_u16(uint8_t *p, uint32_t value) {
    p[0] = (uint8_t)value;
    p[1] = (uint8_t)(value >> 8);
}

static void store_u32(uint8_t *p, uint32_t value) {
    store_u16(p, value);
    store_u16(p + 2, value >> 16);
}

/* Stores x as a half and returns what a decoder will read; a scale beyond halves becomes the
 * largest one. */
static float store_f16(uint8_t *p, float x) {
    uint16_t h = f32_to_f16(x);
    if ((h & 0x7fff) == 0x7c00) h = (uint16_t)((h & 0x8000) | 0x7bff);
    store_u16(p, h);
    return f16_to_f32(h);
}

/* Nearest integer in [low, high]; NaN gives low. */
static int round_to(float x, int low, int high) {
    if (!(x > (float)low)) return low;
    if (x >= (float)high) return high;
    return (int)floorf(x + 0.5f);
}

/* ---- decoding, one block each -------------------------------------------------------------- */

/* Nibble i of a 32-element block: elements 0..15 are the low halves of 16 bytes, the rest the high
 * halves. */
static int nibble(const uint8_t *qs, int i) {
    return i < 16 ? qs[i] & 15 : qs[i - 16] >> 4;
}

static void decode_q4_0(const uint8_t *b, float *out) {
    const float d = load_f16(b);
    for (int i = 0; i < 32; i++) out[i] = d * (float)(nibble(b + 2, i) - 8);
}

static void decode_q4_1(const uint8_t *b, float *out) {
    const float d = load_f16(b), m = load_f16(b + 2);
    for (int i = 0; i < 32; i++) out[i] = d * (float)nibble(b + 4, i) + m;
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
    for (int i = 0; i < 32; i++) out[i] = d * (float)(int8_t)b[2 + i];
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
    for (int i = 0; i < 256; i++) out[i] = d * (float)(int8_t)b[4 + i];
}

static void decode_iq4_nl(const uint8_t *b, float *out) {
    const float d = load_f16(b);
    for (int i = 0; i < 32; i++) out[i] = d * (float)iq4_levels[nibble(b + 2, i)];
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
    for (int i = 0; i < 32; i++) out[i] = d * (float)mxfp4_levels[nibble(b + 1, i)];
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

/* ---- encoding: plain methods --------------------------------------------------------------- */

/* Packs 32 quants below 16 (or 32, whose fifth bits go to qh). */
static void store_nibbles(uint8_t *qs, uint8_t *qh, const uint8_t q[32]) {
    uint32_t fifth = 0;
    for (int i = 0; i < 16; i++) qs[i] = (uint8_t)((q[i] & 15) | (q[i + 16] & 15) << 4);
    for (int i = 0; i < 32; i++) fifth |= (uint32_t)(q[i] >> 4) << i;
    if (qh != NULL) store_u32(qh, fifth);
}

/* The value of largest size with its sign; the first one of equals. */
static float signed_extreme(const float *x, int n) {
    float extreme = 0;
    for (int i = 0; i < n; i++) {
        if (fabsf(x[i]) > fabsf(extreme)) extreme = x[i];
    }
    return extreme;
}

/* Q4_0 and Q5_0: the extreme value maps to -half; q = trunc(x / d + half + 0.5). The sum is taken
 * in double, as if the multiplication were fused. */
static void encode_symmetric(const float *x, int half, uint8_t *b, uint8_t *qh, uint8_t *qs) {
    const float d = signed_extreme(x, 32) / (float)-half;
    const float inverse = d != 0 ? 1 / d : 0;
    uint8_t q[32];
    for (int i = 0; i < 32; i++) {
        const double v = (double)x[i] * (double)inverse + half + 0.5;
        q[i] = (uint8_t)(v >= 2 * half ? 2 * half - 1 : v > 0 ? (int)v : 0);
    }
    store_f16(b, d);
    store_nibbles(qs, qh, q);
}

static void encode_q4_0(const float *x, uint8_t *b) {
    encode_symmetric(x, 8, b, NULL, b + 2);
}

static void encode_q5_0(const float *x, uint8_t *b) {
    encode_symmetric(x, 16, b, b + 2, b + 6);
}

/* Q4_1 and Q5_1: 0..top spans minimum to maximum; q = trunc((x - min) / d + 0.5). */
static void encode_range(const float *x, int top, uint8_t *b, uint8_t *qh, uint8_t *qs) {
    float min = x[0], max = x[0];
    for (int i = 1; i < 32; i++) {
        if (x[i] < min) min = x[i];
        if (x[i] > max) max = x[i];
    }
    const float d = (max - min) / (float)top;
    const float inverse = d != 0 ? 1 / d : 0;
    uint8_t q[32];
    for (int i = 0; i < 32; i++) {
        const float v = (x[i] - min) * inverse + 0.5f;
        q[i] = (uint8_t)(v >= (float)top ? top : v > 0 ? (int)v : 0);
    }
    store_f16(b, d);
    store_f16(b + 2, min);
    store_nibbles(qs, qh, q);
}

static void encode_q4_1(const float *x, uint8_t *b) {
    encode_range(x, 15, b, NULL, b + 4);
}

static void encode_q5_1(const float *x, uint8_t *b) {
    encode_range(x, 31, b, b + 4, b + 8);
}

/* Half away from zero, as C's roundf; out of range and NaN clamp. */
static uint8_t to_int8(float x) {
    const float r = roundf(x);
    return (uint8_t)(int8_t)(r >= 127 ? 127 : r > -128 ? (int)r : -128);
}

static void encode_q8_0(const float *x, uint8_t *b) {
    const float d = fabsf(signed_extreme(x, 32)) / 127;
    const float inverse = d != 0 ? 1 / d : 0;
    for (int i = 0; i < 32; i++) b[2 + i] = to_int8(x[i] * inverse);
    store_f16(b, d);
}

static void encode_q8_k(const float *x, uint8_t *b) {
    const float extreme = signed_extreme(x, 256);
    const float inverse = extreme != 0 ? -127 / extreme : 0;
    for (int i = 0; i < 256; i++) b[4 + i] = to_int8(x[i] * inverse);
    for (int k = 0; k < 16; k++) {
        int sum = 0;
        for (int i = 0; i < 16; i++) sum += (int8_t)b[4 + 16 * k + i];
        store_u16(b + 260 + 2 * k, (uint32_t)sum);
    }
    store_u32(b, f32_bits(inverse != 0 ? 1 / inverse : 0));
}

static void encode_mxfp4(const float *x, uint8_t *b) {
    const float largest = fabsf(signed_extreme(x, 32));
    int e = largest > 0 ? (int)floorf(log2f(largest)) - 2 + 127 : 0;
    e = e < 0 ? 0 : e > 254 ? 254 : e;
    const float d = mxfp4_scale(e);
    uint8_t q[32];
    for (int i = 0; i < 32; i++) {
        int best = 0;
        for (int k = 1; k < 16; k++) {
            if (fabsf(x[i] - d * (float)mxfp4_levels[k]) <
                fabsf(x[i] - d * (float)mxfp4_levels[best])) {
                best = k;
            }
        }
        q[i] = (uint8_t)best;
    }
    b[0] = (uint8_t)e;
    store_nibbles(b + 1, NULL, q);
}

static void encode_f16(const float *x, uint8_t *b) {
    store_u16(b, f32_to_f16(*x));
}

static void encode_bf16(const float *x, uint8_t *b) {
    store_u16(b, f32_to_bf16(*x));
}

static void encode_f32(const float *x, uint8_t *b) {
    store_u32(b, f32_bits(*x));
}

/* ---- encoding: fitted scales --------------------------------------------------------------- */

enum { TRIALS = 21 }; /* roundings tried per sub-block, with steps a tenth of a level apart */

/* Large values matter more to a product than small ones: w = sqrt(mean x^2) + |x|. */
static void weigh(const float *x, int n, float *w) {
    double power = 0;
    for (int i = 0; i < n; i++) power += (double)x[i] * (double)x[i];
    const float mean = (float)sqrt(power / n);
    for (int i = 0; i < n; i++) w[i] = mean + fabsf(x[i]);
}

/* Scale and minimum (both >= 0) so that x is about scale * q - min for q in 0..top: for each trial
 * rounding the pair that minimises sum w (scale q - min - x)^2; the best pair wins. */
static void fit_scale_min(const float *x, int n, int top, float *scale, float *min) {
    float w[32], low = 0, high = x[0];
    weigh(x, n, w);
    for (int i = 0; i < n; i++) {
        if (x[i] < low) low = x[i];
        if (x[i] > high) high = x[i];
    }
    *scale = *min = 0;
    if (!(high > low)) {
        *min = 0 - low;
        return;
    }
    double best = INFINITY;
    for (int trial = 0; trial < TRIALS; trial++) {
        const float inverse = ((float)top + 0.1f * (float)(trial - 10)) / (high - low);
        double sw = 0, sq = 0, sqq = 0, sx = 0, sqx = 0;
        int q[32];
        for (int i = 0; i < n; i++) {
            const double wi = w[i], xi = x[i];
            q[i] = round_to((x[i] - low) * inverse, 0, top);
            sw += wi, sq += wi * q[i], sqq += wi * q[i] * q[i];
            sx += wi * xi, sqx += wi * q[i] * xi;
        }
        const double determinant = sw * sqq - sq * sq;
        double s = 0, m = -1;
        if (determinant > 0) {
            s = (sw * sqx - sq * sx) / determinant;
            m = (sq * sqx - sqq * sx) / determinant;
        }
        if (m < 0) { /* the format has no positive offset; or all q are equal */
            m = 0;
            s = sqq > 0 ? sqx / sqq : 0;
        }
        double error = 0;
        for (int i = 0; i < n; i++) {
            const double difference = s * q[i] - m - (double)x[i];
            error += (double)w[i] * difference * difference;
        }
        if (s >= 0 && error < best) {
            best = error;
            *scale = (float)s;
            *min = (float)m;
        }
    }
}

/* Scale of any sign so that x is about scale * q for q in -half..half-1; otherwise as above. */
static float fit_scale(const float *x, int n, int half) {
    float w[32];
    weigh(x, n, w);
    const float extreme = signed_extreme(x, n);
    if (extreme == 0) return 0;
    double best = -1;
    float scale = 0;
    for (int trial = 0; trial < TRIALS; trial++) {
        const float inverse = -((float)half + 0.1f * (float)(trial - 10)) / extreme;
        double sqq = 0, sqx = 0;
        for (int i = 0; i < n; i++) {
            const int q = round_to(x[i] * inverse, -half, half - 1);
            sqq += (double)w[i] * q * q;
            sqx += (double)w[i] * q * (double)x[i];
        }
        /* The error left is sum w x^2 - sqx^2 / sqq. */
        if (sqq > 0 && sqx * sqx / sqq > best) {
            best = sqx * sqx / sqq;
            scale = (float)(sqx / sqq);
        }
    }
    return scale;
}

static int nearest_iq4(float x) {
    int best = 0;
    for (int k = 1; k < 16; k++) {
        if (fabsf(x - (float)iq4_levels[k]) < fabsf(x - (float)iq4_levels[best])) best = k;
    }
    return best;
}

/* The same for the sixteen levels of IQ4. */
static float fit_iq4(const float *x) {
    float w[32];
    weigh(x, 32, w);
    const float extreme = signed_extreme(x, 32);
    if (extreme == 0) return 0;
    double best = -1;
    float scale = 0;
    for (int trial = 0; trial < 2 * TRIALS; trial++) { /* the extreme at either end of the levels */
        const float end = trial < TRIALS ? -127 : 113;
        const float inverse = end * (1 + 0.01f * (float)(trial % TRIALS - 10)) / extreme;
        double sqq = 0, sqx = 0;
        for (int i = 0; i < 32; i++) {
            const int q = iq4_levels[nearest_iq4(x[i] * inverse)];
            sqq += (double)w[i] * q * q;
            sqx += (double)w[i] * q * (double)x[i];
        }
        if (sqq > 0 && sqx * sqx / sqq > best) {
            best = sqx * sqx / sqq;
            scale = (float)(sqx / sqq);
        }
    }
    return scale;
}

static void encode_q45_k(const float *x, uint8_t *b, bool five) {
    const int top = five ? 31 : 15;
    float scales[8], mins[8], scale_max = 0, min_max = 0;
    for (int j = 0; j < 8; j++) {
        fit_scale_min(x + 32 * j, 32, top, &scales[j], &mins[j]);
        if (scales[j] > scale_max) scale_max = scales[j];
        if (mins[j] > min_max) min_max = mins[j];
    }
    memset(b, 0, five ? 176 : 144);
    const float d = store_f16(b, scale_max / 63), dmin = store_f16(b + 2, min_max / 63);
    uint8_t *s = b + 4, *qh = b + 16, *qs = five ? b + 48 : b + 16;
    for (int j = 0; j < 8; j++) {
        const int scale = d > 0 ? round_to(scales[j] / d, 0, 63) : 0;
        const int min = dmin > 0 ? round_to(mins[j] / dmin, 0, 63) : 0;
        if (j < 4) {
            s[j] = (uint8_t)(s[j] | scale);
            s[j + 4] = (uint8_t)(s[j + 4] | min);
        } else {
            s[j + 4] = (uint8_t)((scale & 15) | (min & 15) << 4);
            s[j - 4] = (uint8_t)(s[j - 4] | scale >> 4 << 6);
            s[j] = (uint8_t)(s[j] | min >> 4 << 6);
        }
        const float ds = d * (float)scale, dm = dmin * (float)min;
        for (int l = 0; l < 32; l++) {
            const int q = ds > 0 ? round_to((x[32 * j + l] + dm) / ds, 0, top) : 0;
            uint8_t *byte = &qs[32 * (j / 2) + l];
            *byte = (uint8_t)(*byte | (q & 15) << 4 * (j % 2));
            if (five) qh[l] = (uint8_t)(qh[l] | q >> 4 << j);
        }
    }
}

static void encode_q4_k(const float *x, uint8_t *b) {
    encode_q45_k(x, b, false);
}

static void encode_q5_k(const float *x, uint8_t *b) {
    encode_q45_k(x, b, true);
}

static void encode_q2_k(const float *x, uint8_t *b) {
    float scales[16], mins[16], scale_max = 0, min_max = 0;
    for (int k = 0; k < 16; k++) {
        fit_scale_min(x + 16 * k, 16, 3, &scales[k], &mins[k]);
        if (scales[k] > scale_max) scale_max = scales[k];
        if (mins[k] > min_max) min_max = mins[k];
    }
    memset(b, 0, 84);
    const float d = store_f16(b + 80, scale_max / 15), dmin = store_f16(b + 82, min_max / 15);
    for (int k = 0; k < 16; k++) {
        const int scale = d > 0 ? round_to(scales[k] / d, 0, 15) : 0;
        const int min = dmin > 0 ? round_to(mins[k] / dmin, 0, 15) : 0;
        b[k] = (uint8_t)(scale | min << 4);
    }
    for (int i = 0; i < 256; i++) {
        const float ds = d * (float)(b[i / 16] & 15), dm = dmin * (float)(b[i / 16] >> 4);
        const int q = ds > 0 ? round_to((x[i] + dm) / ds, 0, 3) : 0;
        uint8_t *byte = &b[16 + 32 * (i / 128) + i % 32];
        *byte = (uint8_t)(*byte | q << 2 * (i % 128 / 32));
    }
}

/* Fits n / size symmetric scales and rounds them to -limit..limit-1 times the half stored at d_at;
 * the scale of largest size becomes -limit. Returns what the decoder reads there. */
static float fit_scales(const float *x, int size, int half, int limit, uint8_t *d_at, int *scales) {
    float fitted[16] = { 0 };
    const int n = 256 / size;
    for (int k = 0; k < n; k++) {
        fitted[k] = half == 0 ? fit_iq4(x + size * k) : fit_scale(x + size * k, size, half);
    }
    const float d = store_f16(d_at, signed_extreme(fitted, n) / (float)-limit);
    for (int k = 0; k < n; k++) {
        scales[k] = d != 0 ? round_to(fitted[k] / d, -limit, limit - 1) : 0;
    }
    return d;
}

static void encode_q3_k(const float *x, uint8_t *b) {
    int scales[16];
    memset(b, 0, 110);
    const float d = fit_scales(x, 16, 4, 32, b + 108, scales);
    for (int k = 0; k < 16; k++) {
        const int stored = scales[k] + 32;
        b[96 + k % 8] = (uint8_t)(b[96 + k % 8] | (stored & 15) << 4 * (k / 8));
        b[104 + k % 4] = (uint8_t)(b[104 + k % 4] | stored >> 4 << 2 * (k / 4));
    }
    for (int i = 0; i < 256; i++) {
        const int h = i / 128, j = i % 128 / 32, l = i % 32;
        const float ds = d * (float)scales[i / 16];
        const int q = (ds != 0 ? round_to(x[i] / ds, -4, 3) : 0) + 4;
        b[32 + 32 * h + l] = (uint8_t)(b[32 + 32 * h + l] | (q & 3) << 2 * j);
        b[l] = (uint8_t)(b[l] | q >> 2 << (4 * h + j));
    }
}

static void encode_q6_k(const float *x, uint8_t *b) {
    int scales[16];
    memset(b, 0, 210);
    const float d = fit_scales(x, 16, 32, 128, b + 208, scales);
    for (int k = 0; k < 16; k++) b[192 + k] = (uint8_t)(int8_t)scales[k];
    for (int i = 0; i < 256; i++) {
        const int h = i / 128, j = i % 128 / 32, l = i % 32;
        const float ds = d * (float)scales[i / 16];
        const int q = (ds != 0 ? round_to(x[i] / ds, -32, 31) : 0) + 32;
        uint8_t *low = &b[64 * h + l + 32 * (j % 2)], *high = &b[128 + 32 * h + l];
        *low = (uint8_t)(*low | (q & 15) << 4 * (j / 2));
        *high = (uint8_t)(*high | q >> 4 << 2 * j);
    }
}

static void encode_iq4_nl(const float *x, uint8_t *b) {
    const float d = store_f16(b, fit_iq4(x));
    uint8_t q[32];
    for (int i = 0; i < 32; i++) q[i] = (uint8_t)nearest_iq4(d != 0 ? x[i] / d : 0);
    store_nibbles(b + 2, NULL, q);
}

static void encode_iq4_xs(const float *x, uint8_t *b) {
    int scales[8];
    memset(b, 0, 136);
    const float d = fit_scales(x, 32, 0, 32, b, scales);
    uint32_t scales_h = 0;
    for (int j = 0; j < 8; j++) {
        const int stored = scales[j] + 32;
        b[4 + j / 2] = (uint8_t)(b[4 + j / 2] | (stored & 15) << 4 * (j % 2));
        scales_h |= (uint32_t)(stored >> 4) << 2 * j;
        const float ds = d * (float)scales[j];
        uint8_t q[32];
        for (int l = 0; l < 32; l++) {
            q[l] = (uint8_t)nearest_iq4(ds != 0 ? x[32 * j + l] / ds : 0);
        }
        store_nibbles(b + 8 + 16 * j, NULL, q);
    }
    store_u16(b + 2, scales_h);
}

/* ---- the table ----------------------------------------------------------------------------- */

static const struct {
    void (*decode)(const uint8_t *block, float *out);
    void (*encode)(const float *x, uint8_t *block);
} codecs[DTYPE_COUNT] = {
    [DTYPE_F32] = { decode_f32, encode_f32 },
    [DTYPE_F64] = { decode_f64, NULL },
    [DTYPE_F16] = { decode_f16, encode_f16 },
    [DTYPE_BF16] = { decode_bf16, encode_bf16 },
    [DTYPE_Q4_0] = { decode_q4_0, encode_q4_0 },
    [DTYPE_Q4_1] = { decode_q4_1, encode_q4_1 },
    [DTYPE_Q5_0] = { decode_q5_0, encode_q5_0 },
    [DTYPE_Q5_1] = { decode_q5_1, encode_q5_1 },
    [DTYPE_Q8_0] = { decode_q8_0, encode_q8_0 },
    [DTYPE_Q2_K] = { decode_q2_k, encode_q2_k },
    [DTYPE_Q3_K] = { decode_q3_k, encode_q3_k },
    [DTYPE_Q4_K] = { decode_q4_k, encode_q4_k },
    [DTYPE_Q5_K] = { decode_q5_k, encode_q5_k },
    [DTYPE_Q6_K] = { decode_q6_k, encode_q6_k },
    [DTYPE_Q8_K] = { decode_q8_k, encode_q8_k },
    [DTYPE_IQ4_NL] = { decode_iq4_nl, encode_iq4_nl },
    [DTYPE_IQ4_XS] = { decode_iq4_xs, encode_iq4_xs },
    [DTYPE_MXFP4] = { decode_mxfp4, encode_mxfp4 },
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

bool quant_encode(dtype type, const float *x, void *blocks, size_t n) {
    const dtype_info *info = dtype_get(type);
    if (info == NULL || codecs[type].encode == NULL) return false;
    assert(n % info->block_elements == 0);
    uint8_t *b = blocks;
    for (size_t i = 0; i < n; i += info->block_elements, b += info->block_bytes) {
        codecs[type].encode(x + i, b);
    }
    return true;
}
