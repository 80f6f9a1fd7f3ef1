/* test_device_rows: rows in the order of kernels against the order of files. A reader of its own
 * takes a row apart as the head of src/format/device_rows.c describes it; what it finds must be
 * what quant_decode finds in the file's row, to the bit. */
#include "format/format.h"
#include "tests/test.h"

#include <math.h>

enum { ROWS = 3, UNIT = 32, SUPER = 256, PLANES = 8, COLS_MAX = 2304 };

/* The planes of a type, by bytes for each unit and for each block of 256. */
typedef struct {
    dtype type;
    int unit[PLANES], block[3];
} described;

static const described types[] = {
    { DTYPE_F32, { 16, 16, 16, 16, 16, 16, 16, 16 }, { 0 } },
    { DTYPE_F16, { 16, 16, 16, 16 }, { 0 } },
    { DTYPE_BF16, { 16, 16, 16, 16 }, { 0 } },
    { DTYPE_Q4_0, { 16, 2 }, { 0 } },
    { DTYPE_Q4_1, { 16, 4 }, { 0 } },
    { DTYPE_Q5_0, { 16, 4, 2 }, { 0 } },
    { DTYPE_Q5_1, { 16, 4, 4 }, { 0 } },
    { DTYPE_Q8_0, { 16, 16, 2 }, { 0 } },
    { DTYPE_IQ4_NL, { 16, 2 }, { 0 } },
    { DTYPE_MXFP4, { 16, 1 }, { 0 } },
    { DTYPE_IQ4_XS, { 16 }, { 8 } },
    { DTYPE_Q4_K, { 16 }, { 16 } },
    { DTYPE_Q5_K, { 16, 4 }, { 16 } },
    { DTYPE_Q6_K, { 16, 8 }, { 16, 2 } },
    { DTYPE_Q2_K, { 8 }, { 16, 4 } },
    { DTYPE_Q3_K, { 8, 4 }, { 16, 2 } },
};

/* Where the planes of a row begin. */
typedef struct {
    const unsigned char *unit[PLANES], *block[3], *end;
    bool padded; /* what pads the planes is zero */
} device_row;

static const unsigned char *find_plane(device_row *row, const unsigned char **plane, size_t size) {
    *plane = row->end;
    for (size_t i = size; i < align_up(size, 16); i++)
        row->padded &= row->end[i] == 0;
    return row->end + align_up(size, 16);
}

static device_row find_planes(const described *d, const unsigned char *row, size_t units) {
    device_row found = { .end = row, .padded = true };
    for (size_t i = 0; i < PLANES && d->unit[i] != 0; i++)
        found.end = find_plane(&found, &found.unit[i], (size_t)d->unit[i] * units);
    for (size_t i = 0; i < 3 && d->block[i] != 0; i++)
        found.end = find_plane(&found, &found.block[i], (size_t)d->block[i] * (units / 8));
    return found;
}

static double half_at(const unsigned char *p) {
    return (double)f16_to_f32((uint16_t)(p[0] | p[1] << 8));
}

/* Column c of a unit: 4 bits of nibbles, 2 of pairs, 1 of bits. */
static int nibble_of(const unsigned char *p, int c) {
    return c < 16 ? p[c] & 15 : p[c - 16] >> 4;
}

static int pair_of(const unsigned char *p, int c) {
    return p[4 * (c / 16) + c % 4] >> 2 * (c % 16 / 4) & 3;
}

static int bit_of(const unsigned char *p, int c) {
    return p[c % 4] >> c / 4 & 1;
}

static const int iq4[16] = { -127, -104, -83, -65, -49, -35, -22, -10,
                             1,    13,   25,  38,  53,  69,  89,  113 };
static const int fp4[8] = { 0, 1, 2, 3, 4, 6, 8, 12 };

/* d sc q - dmin mn of Q4_K and Q5_K by the head of unit j. */
static double headed(const unsigned char *head, size_t j, int q) {
    const int high = head[12 + j / 2] >> 4 * (j % 2);
    const int scale = (head[4 + j] & 15) | (high & 3) << 4;
    const int low = head[4 + j] >> 4 | (high >> 2 & 3) << 4;
    return half_at(head) * scale * q - half_at(head + 2) * low;
}

static double read_unit_types(dtype type, const device_row *row, size_t u, int c) {
    const unsigned char *first = row->unit[0] + 16 * u;
    const unsigned char *second = row->unit[1], *third = row->unit[2];
    const int q = nibble_of(first, c);
    switch (type) {
    case DTYPE_Q4_0:
        return half_at(second + 2 * u) * (q - 8);
    case DTYPE_Q4_1:
        return half_at(second + 4 * u) * q + half_at(second + 4 * u + 2);
    case DTYPE_Q5_0:
        return half_at(third + 2 * u) * ((q | bit_of(second + 4 * u, c) << 4) - 16);
    case DTYPE_Q5_1:
        return half_at(third + 4 * u) * (q | bit_of(second + 4 * u, c) << 4) +
               half_at(third + 4 * u + 2);
    case DTYPE_Q8_0:
        return half_at(third + 2 * u) *
               (int8_t)(c < 16 ? first[c] : second[16 * u + (size_t)c - 16]);
    case DTYPE_IQ4_NL:
        return half_at(second + 2 * u) * iq4[q];
    default: /* DTYPE_MXFP4 */
        return ldexp(q < 8 ? fp4[q] : -fp4[q - 8], second[u] - 128);
    }
}

static double read_block_types(dtype type, const device_row *row, size_t u, int c) {
    const size_t b = u / 8, j = u % 8, s = 2 * j + (size_t)c / 16;
    const unsigned char *first = row->unit[0], *second = row->unit[1];
    const unsigned char *head = row->block[0] + (type == DTYPE_IQ4_XS ? 8 : 16) * b;
    const unsigned char *last = row->block[1];
    const int q = type == DTYPE_Q2_K || type == DTYPE_Q3_K ? 0 : nibble_of(first + 16 * u, c);
    switch (type) {
    case DTYPE_IQ4_XS: {
        const int scale =
            (head[4 + j / 2] >> 4 * (j % 2) & 15) | ((head[2] | head[3] << 8) >> 2 * j & 3) << 4;
        return half_at(head) * (scale - 32) * iq4[q];
    }
    case DTYPE_Q4_K:
        return headed(head, j, q);
    case DTYPE_Q5_K:
        return headed(head, j, q | bit_of(second + 4 * u, c) << 4);
    case DTYPE_Q6_K:
        return half_at(last + 2 * b) * (int8_t)head[s] *
               ((q | pair_of(second + 8 * u, c) << 4) - 32);
    case DTYPE_Q2_K:
        return half_at(last + 4 * b) * (head[s] & 15) * pair_of(first + 8 * u, c) -
               half_at(last + 4 * b + 2) * (head[s] >> 4);
    default: /* DTYPE_Q3_K */
        return half_at(last + 2 * b) * (int8_t)head[s] *
               ((pair_of(first + 8 * u, c) | bit_of(second + 4 * u, c) << 2) - 4);
    }
}

/* The bits of column c of unit u as f32: all formats' arithmetic is exact in double but for one
 * rounding. */
static uint32_t read_bits(dtype type, const device_row *row, size_t u, int c) {
    const uint32_t bytes = dtype_get(type)->block_bytes;
    float x;
    if (dtype_get(type)->block_elements == 1) {
        const size_t at = (size_t)c * bytes;
        const unsigned char *p = row->unit[at / 16] + 16 * u + at % 16;
        quant_decode(type, p, &x, 1);
    } else if (dtype_get(type)->block_elements == UNIT) {
        x = (float)read_unit_types(type, row, u, c);
    } else {
        x = (float)read_block_types(type, row, u, c);
    }
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

/* Random bytes, but no f16 that is infinite or no number: those have no one sum. */
static unsigned char *random_rows(test *t, dtype type, size_t bytes) {
    static const int halves[DTYPE_COUNT][2] = {
        [DTYPE_Q4_1] = { 0, 2 },     [DTYPE_Q5_1] = { 0, 2 },   [DTYPE_Q4_K] = { 0, 2 },
        [DTYPE_Q5_K] = { 0, 2 },     [DTYPE_Q2_K] = { 80, 82 }, [DTYPE_Q3_K] = { 108, 108 },
        [DTYPE_Q6_K] = { 208, 208 },
    };
    unsigned char *rows = test_alloc(t, bytes, 1);
    for (size_t i = 0; i < bytes; i++)
        rows[i] = (unsigned char)test_below(t, 256);
    const size_t block = dtype_get(type)->block_bytes;
    for (size_t i = 0; i < bytes; i += block) {
        /* also F32's and BF16's upper byte, in which it does no harm */
        rows[i + (size_t)halves[type][0] + 1] &= 0xbf;
        rows[i + (size_t)halves[type][1] + 1] &= 0xbf;
        if (type == DTYPE_F32) rows[i + 3] &= 0xbf;
        if (type == DTYPE_MXFP4 && rows[i] > 252) rows[i] = 252;
    }
    return rows;
}

static void check_rows(test *t, const described *d, uint32_t cols) {
    const dtype_info *info = dtype_get(d->type);
    const size_t block = info->block_elements, padded = (cols + block - 1) / block * block;
    const size_t units = (padded + UNIT - 1) / UNIT;
    uint64_t from_bytes = 0, bytes = 0;
    test_row(t, "%s, %u columns", info->name, cols);
    if (!CHECK(t, dtype_padded_row_bytes(d->type, cols, &from_bytes)) ||
        !CHECK(t, device_row_bytes(d->type, cols, &bytes))) {
        return;
    }
    const unsigned char *from = random_rows(t, d->type, ROWS * from_bytes);
    unsigned char *to = test_alloc(t, ROWS * bytes + 16, 1);
    memset(to, 0xa5, ROWS * bytes + 16);
    device_rows(d->type, cols, ROWS, from, to);
    float want[COLS_MAX];
    for (size_t i = 0; i < ROWS; i++) {
        const device_row row = find_planes(d, to + i * bytes, units);
        CHECK_U64(t, (uint64_t)(row.end - to), (i + 1) * bytes);
        CHECK(t, row.padded);
        CHECK(t, quant_decode(d->type, from + i * from_bytes, want, padded));
        size_t wrong = 0;
        for (size_t c = 0; c < units * UNIT; c++) {
            uint32_t bits = 0; /* floats are filled up with zeros, blocks are whole */
            if (c < padded) memcpy(&bits, &want[c], 4);
            wrong += read_bits(d->type, &row, c / UNIT, (int)(c % UNIT)) != bits;
        }
        CHECK_U64(t, wrong, 0);
    }
    for (size_t i = 0; i < 16; i++)
        CHECK_U64(t, to[ROWS * bytes + i], 0xa5);
}

/* Less than a unit, units that fill no plane of 16 bytes, more than one block, whole planes. */
static void rows_are_read_back(test *t) {
    static const uint32_t cols[] = { 1, 36, 96, 608, 1056, 2048, 2084 };
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        for (size_t j = 0; j < ARRAY_LEN(cols); j++)
            check_rows(t, &types[i], cols[j]);
    }
}

static void sizes_are_known(test *t) {
    static const struct {
        dtype type;
        uint64_t cols, bytes;
    } sizes[] = {
        { DTYPE_F32, 33, 2 * 128 },
        { DTYPE_F16, 32, 64 },
        { DTYPE_BF16, 1, 64 },
        { DTYPE_Q4_0, 32, 16 + 16 },
        { DTYPE_Q4_0, 4096, 4096 / 32 * 18 },
        { DTYPE_Q5_0, 96, 48 + 16 + 16 },
        { DTYPE_Q8_0, 288, 2 * 144 + 32 },
        { DTYPE_MXFP4, 544, 272 + 32 },
        { DTYPE_IQ4_XS, 256, 128 + 16 },
        { DTYPE_Q4_K, 257, 2 * 144 },
        { DTYPE_Q6_K, 256, 128 + 64 + 16 + 16 },
        { DTYPE_Q6_K, 2048, 8 * 210 },
        { DTYPE_Q2_K, 1024, 4 * 84 },
        { DTYPE_Q3_K, 2304, 9 * 112 + 32 },
        { DTYPE_Q4_0, 0, 0 },
    };
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        uint64_t bytes = 1;
        test_row(t, "%s, %u columns", dtype_get(sizes[i].type)->name, (unsigned)sizes[i].cols);
        CHECK(t, device_row_bytes(sizes[i].type, sizes[i].cols, &bytes));
        CHECK_U64(t, bytes, sizes[i].bytes);
    }
}

static void other_types_are_refused(test *t) {
    uint64_t bytes;
    CHECK(t, !device_row_bytes(DTYPE_Q8_K, 256, &bytes));
    CHECK(t, !device_row_bytes(DTYPE_I32, 32, &bytes));
    CHECK(t, !device_row_bytes(DTYPE_F64, 32, &bytes));
    CHECK(t, !device_row_bytes(DTYPE_COUNT, 32, &bytes));
    CHECK(t, !device_row_bytes(DTYPE_F32, (uint64_t)UINT32_MAX + 1, &bytes));
    CHECK(t, device_row_bytes(DTYPE_F32, UINT32_MAX, &bytes));
}

static const test_case cases[] = {
    { "a device's row holds the file's row to the bit", rows_are_read_back },
    { "sizes of rows count their planes", sizes_are_known },
    { "types that no kernel reads have no rows", other_types_are_refused },
};
const test_group device_rows_tests = { "device_rows", cases, ARRAY_LEN(cases) };
