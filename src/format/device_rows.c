/* device_rows: rows of a matrix in the order that kernels read them in.
 *
 * A kernel's lanes read neighbouring units of 32 columns at the same time, 16 bytes each. So a row
 * becomes planes, one after the other: the same field of every unit (or of every block of 256)
 * side by side, each plane padded to 16 bytes. Nothing is rounded and nothing is lost; bits move.
 *
 *   nibbles  [U] 16 bytes: column j in the low half of byte j, column 16 + j in the high half
 *   pairs    [U] 8 bytes: of byte b of word h, bits 2 k, 2 k + 1 are column 16 h + 4 k + b
 *   bits     [U] 4 bytes: bit k of byte b is column 4 k + b
 *   heads    [B] 16 bytes of Q4_K and Q5_K: d, dmin; the low halves of scale and minimum of each
 *            unit, a byte each; their upper bit pairs, 4 bits a unit, the scale's first
 *
 * U units and B blocks to a row. The parts kernels/part/weight_* read what stands here. */
#include "format/format.h"

#include <string.h>

enum { PLANES = 8 };

/* Bytes of a plane's entry for each unit, or for each block of 256. */
typedef struct {
    uint8_t bytes;
    bool of_block;
} plane;

/* In the order of the planes; 0 bytes ends a list. */
static const plane plane_lists[DTYPE_COUNT][PLANES] = {
    [DTYPE_F32] = { { 16 }, { 16 }, { 16 }, { 16 }, { 16 }, { 16 }, { 16 }, { 16 } },
    [DTYPE_F16] = { { 16 }, { 16 }, { 16 }, { 16 } },
    [DTYPE_BF16] = { { 16 }, { 16 }, { 16 }, { 16 } },
    [DTYPE_Q4_0] = { { 16 }, { 2 } },
    [DTYPE_Q4_1] = { { 16 }, { 4 } },
    [DTYPE_Q5_0] = { { 16 }, { 4 }, { 2 } },
    [DTYPE_Q5_1] = { { 16 }, { 4 }, { 4 } },
    [DTYPE_Q8_0] = { { 16 }, { 16 }, { 2 } },
    [DTYPE_IQ4_NL] = { { 16 }, { 2 } },
    [DTYPE_MXFP4] = { { 16 }, { 1 } },
    [DTYPE_IQ4_XS] = { { 16 }, { 8, true } },
    [DTYPE_Q4_K] = { { 16 }, { 16, true } },
    [DTYPE_Q5_K] = { { 16 }, { 4 }, { 16, true } },
    [DTYPE_Q6_K] = { { 16 }, { 8 }, { 16, true }, { 2, true } },
    [DTYPE_Q2_K] = { { 8 }, { 16, true }, { 4, true } },
    [DTYPE_Q3_K] = { { 8 }, { 4 }, { 16, true }, { 2, true } },
};

enum { ROW_UNIT = 32, SUPER = 256 };

/* Units that the planes have: of whole blocks. */
static uint64_t planes_units(dtype type, uint64_t cols) {
    const uint32_t block = dtype_get(type)->block_elements;
    const uint64_t whole = block > ROW_UNIT ? block : ROW_UNIT;
    return (cols / whole + (cols % whole != 0)) * (whole / ROW_UNIT);
}

static uint64_t plane_bytes(const plane *p, uint64_t units) {
    return align_up((p->of_block ? units / (SUPER / ROW_UNIT) : units) * p->bytes, 16);
}

bool device_row_bytes(dtype type, uint64_t cols, uint64_t *bytes) {
    if (type >= DTYPE_COUNT || plane_lists[type][0].bytes == 0 || cols > UINT32_MAX) {
        return false;
    }
    *bytes = 0;
    for (size_t i = 0; i < PLANES && plane_lists[type][i].bytes != 0; i++) {
        *bytes += plane_bytes(&plane_lists[type][i], planes_units(type, cols));
    }
    return true;
}

/* Where a unit's (or a block's) entries go. */
typedef struct {
    unsigned char *at[PLANES]; /* the row's planes */
} plane_row;

static unsigned char *plane_entry(const plane_row *to, const plane *planes, size_t i, uint64_t k) {
    return to->at[i] + k * planes[i].bytes;
}

/* ---- bits ---------------------------------------------------------------------------------- */

/* From 32 bytes whose bits [shift, shift + 2) are the columns' to 8 bytes of pairs. */
static void plane_pairs(unsigned char *to, const unsigned char *from, int shift) {
    for (int h = 0; h < 2; h++) {
        for (int b = 0; b < 4; b++) {
            const unsigned char *c = from + 16 * h + b;
            to[4 * h + b] = (unsigned char)((c[0] >> shift & 3) | (c[4] >> shift & 3) << 2 |
                                            (c[8] >> shift & 3) << 4 | (c[12] >> shift & 3) << 6);
        }
    }
}

/* From 32 bytes whose bit `shift` is the column's to 4 bytes of bits. */
static void plane_bits(unsigned char *to, const unsigned char *from, int shift) {
    for (int b = 0; b < 4; b++) {
        unsigned bits = 0;
        for (int k = 0; k < 8; k++) {
            bits |= (unsigned)(from[4 * k + b] >> shift & 1) << k;
        }
        to[b] = (unsigned char)bits;
    }
}

/* From a word whose bit c is column c. */
static void plane_word_bits(unsigned char *to, const unsigned char *from) {
    unsigned char spread[32];
    for (int c = 0; c < 32; c++) {
        spread[c] = (unsigned char)(from[c / 8] >> (c % 8) & 1);
    }
    plane_bits(to, spread, 0);
}

/* From 32 bytes whose nibbles at `shift` are the columns' to 16 bytes of nibbles. */
static void plane_nibbles(unsigned char *to, const unsigned char *from, int shift) {
    for (int j = 0; j < 16; j++) {
        to[j] = (unsigned char)((from[j] >> shift & 15) | (from[16 + j] >> shift & 15) << 4);
    }
}

/* ---- types of 32 columns to a block -------------------------------------------------------- */

/* Fields that stay as they are: `from` bytes into the block, in the order of the planes. */
static void plane_block(dtype type, const unsigned char *block, const plane_row *to, uint64_t u) {
    const plane *p = plane_lists[type];
    switch (type) {
    case DTYPE_Q4_0:
    case DTYPE_IQ4_NL:
        memcpy(plane_entry(to, p, 0, u), block + 2, 16);
        memcpy(plane_entry(to, p, 1, u), block, 2);
        return;
    case DTYPE_Q4_1:
        memcpy(plane_entry(to, p, 0, u), block + 4, 16);
        memcpy(plane_entry(to, p, 1, u), block, 4);
        return;
    case DTYPE_Q5_0:
        memcpy(plane_entry(to, p, 0, u), block + 6, 16);
        plane_word_bits(plane_entry(to, p, 1, u), block + 2);
        memcpy(plane_entry(to, p, 2, u), block, 2);
        return;
    case DTYPE_Q5_1:
        memcpy(plane_entry(to, p, 0, u), block + 8, 16);
        plane_word_bits(plane_entry(to, p, 1, u), block + 4);
        memcpy(plane_entry(to, p, 2, u), block, 4);
        return;
    case DTYPE_Q8_0:
        memcpy(plane_entry(to, p, 0, u), block + 2, 16);
        memcpy(plane_entry(to, p, 1, u), block + 18, 16);
        memcpy(plane_entry(to, p, 2, u), block, 2);
        return;
    case DTYPE_MXFP4:
        memcpy(plane_entry(to, p, 0, u), block + 1, 16);
        *plane_entry(to, p, 1, u) = block[0];
        return;
    default:
        assert(!"a type of 32 columns to a block");
    }
}

/* ---- types of 256 -------------------------------------------------------------------------- */

/* Twelve bytes of eight 6-bit scale and minimum pairs (Q4_K), behind d and dmin. */
static void plane_head(unsigned char *to, const unsigned char *block) {
    const unsigned char *s = block + 4;
    memset(to, 0, 16);
    memcpy(to, block, 4);
    for (int j = 0; j < 8; j++) {
        const int scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
        const int low = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | s[j] >> 6 << 4;
        to[4 + j] = (unsigned char)((scale & 15) | (low & 15) << 4);
        to[12 + j / 2] |= (unsigned char)((scale >> 4 | low >> 4 << 2) << 4 * (j % 2));
    }
}

/* Sixteen 6-bit scales of Q3_K, less their offset of 32, as signed bytes. */
static void plane_q3_scales(unsigned char *to, const unsigned char *s) {
    for (int j = 0; j < 16; j++) {
        const int low = s[j % 8] >> 4 * (j / 8) & 15, high = s[8 + j % 4] >> 2 * (j / 4) & 3;
        to[j] = (unsigned char)((low | high << 4) - 32);
    }
}

static void plane_super(dtype type, const unsigned char *block, const plane_row *to, uint64_t b) {
    const plane *p = plane_lists[type];
    for (int j = 0; j < SUPER / ROW_UNIT; j++) {
        const uint64_t u = b * (SUPER / ROW_UNIT) + (uint64_t)j;
        const int half = j / 4; /* 128 columns each */
        switch (type) {
        case DTYPE_Q4_K:
            plane_nibbles(plane_entry(to, p, 0, u), block + 16 + j / 2 * 32, j % 2 * 4);
            break;
        case DTYPE_Q5_K:
            plane_nibbles(plane_entry(to, p, 0, u), block + 48 + j / 2 * 32, j % 2 * 4);
            plane_bits(plane_entry(to, p, 1, u), block + 16, j);
            break;
        case DTYPE_Q6_K:
            plane_nibbles(plane_entry(to, p, 0, u), block + 64 * half + 32 * (j % 2),
                          j % 4 / 2 * 4);
            plane_pairs(plane_entry(to, p, 1, u), block + 128 + 32 * half, j % 4 * 2);
            break;
        case DTYPE_Q2_K:
            plane_pairs(plane_entry(to, p, 0, u), block + 16 + 32 * half, j % 4 * 2);
            break;
        case DTYPE_Q3_K:
            plane_pairs(plane_entry(to, p, 0, u), block + 32 + 32 * half, j % 4 * 2);
            plane_bits(plane_entry(to, p, 1, u), block, j);
            break;
        default:
            assert(type == DTYPE_IQ4_XS);
            memcpy(plane_entry(to, p, 0, u), block + 8 + 16 * j, 16);
        }
    }
    switch (type) {
    case DTYPE_Q4_K:
        plane_head(plane_entry(to, p, 1, b), block);
        return;
    case DTYPE_Q5_K:
        plane_head(plane_entry(to, p, 2, b), block);
        return;
    case DTYPE_Q6_K:
        memcpy(plane_entry(to, p, 2, b), block + 192, 16);
        memcpy(plane_entry(to, p, 3, b), block + 208, 2);
        return;
    case DTYPE_Q2_K:
        memcpy(plane_entry(to, p, 1, b), block, 16);
        memcpy(plane_entry(to, p, 2, b), block + 80, 4);
        return;
    case DTYPE_Q3_K:
        plane_q3_scales(plane_entry(to, p, 2, b), block + 96);
        memcpy(plane_entry(to, p, 3, b), block + 108, 2);
        return;
    default:
        memcpy(plane_entry(to, p, 1, b), block, 8);
    }
}

/* ---- rows ---------------------------------------------------------------------------------- */

/* Floats: 16 bytes of each unit to a plane. */
static void plane_floats(dtype type, uint32_t cols, const unsigned char *from,
                         const plane_row *to) {
    const uint32_t bytes = dtype_get(type)->block_bytes, unit_bytes = ROW_UNIT * bytes;
    const uint64_t row = (uint64_t)cols * bytes;
    for (uint64_t at = 0; at < row; at += 16) {
        memcpy(to->at[at % unit_bytes / 16] + at / unit_bytes * 16, from + at,
               row - at < 16 ? (size_t)(row - at) : 16);
    }
}

void device_rows(dtype type, uint32_t cols, uint64_t n, const void *from, void *to) {
    uint64_t row_bytes = 0, from_bytes = 0;
    const bool known =
        device_row_bytes(type, cols, &row_bytes) && dtype_padded_row_bytes(type, cols, &from_bytes);
    assert(known);
    (void)known;
    const dtype_info *info = dtype_get(type);
    const uint64_t units = planes_units(type, cols);
    const unsigned char *row = from;
    unsigned char *out = to;
    for (uint64_t i = 0; i < n; i++, row += from_bytes, out += row_bytes) {
        plane_row planes = { .at = { out } };
        for (size_t k = 0; k < PLANES && plane_lists[type][k].bytes != 0; k++) {
            const uint64_t size = plane_bytes(&plane_lists[type][k], units);
            if (k + 1 < PLANES) {
                planes.at[k + 1] = planes.at[k] + size;
            }
        }
        if (info->block_elements == 1) {
            memset(out, 0, (size_t)row_bytes); /* the last unit may be filled in part */
            plane_floats(type, cols, row, &planes);
            continue;
        }
        for (size_t k = 0; k < PLANES && plane_lists[type][k].bytes != 0; k++) {
            const uint64_t size = plane_bytes(&plane_lists[type][k], units);
            memset(planes.at[k] + size - 16, 0, 16); /* what pads the plane */
        }
        for (uint64_t b = 0; b < from_bytes / info->block_bytes; b++) {
            (info->block_elements == SUPER ? plane_super : plane_block)(
                type, row + b * info->block_bytes, &planes, b);
        }
    }
}
