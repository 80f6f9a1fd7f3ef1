/* test_quant: encoders of block formats.
 *
 * Their quality is held against the well-known searched ones by figures that these gave on the
 * same numbers (tests/vectors/quant_figures.py), and judged by what quant_decode reads back, which
 * test_format holds against vectors. */
#include "format/format.h"
#include "tests/test.h"

#include <float.h>
#include <math.h>

/* ---- numbers that a script in another language makes too ----------------------------------- */

enum { ROWS = 16, COLS = 1024, N = ROWS * COLS, DRAWS = 16 };
enum { NORMAL, STUDENT, POSITIVE, FAR, MIXED, SPARSE, KINDS };

static const char *const kind_names[KINDS] = { "normal",   "Student's t, 3 degrees of freedom",
                                               "positive", "far from zero",
                                               "mixed",    "sparse" };

/* In (0, 1): splitmix64 (Steele, Lea, Flood 2014) at place 16 i + j. */
static double draw_uniform(uint64_t seed, uint64_t i, uint64_t j) {
    uint64_t z = seed + 0x9e3779b97f4a7c15u * (DRAWS * i + j + 1);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    return ((double)(z >> 11) + 0.5) * 0x1p-53;
}

/* Box and Muller 1958, from the uniform numbers 2 j and 2 j + 1. */
static double draw_normal(uint64_t seed, uint64_t i, uint64_t j) {
    const double turn = 6.283185307179586 * draw_uniform(seed, i, 2 * j + 1);
    return sqrt(-2 * log(draw_uniform(seed, i, 2 * j))) * cos(turn);
}

/* Number i of a kind, of the size of real weights. */
static float draw_value(int kind, uint64_t i) {
    const uint64_t seed = 1000 + (uint64_t)kind;
    double z = draw_normal(seed, i, 0);
    if (kind == STUDENT) {
        const double a = draw_normal(seed, i, 1), b = draw_normal(seed, i, 2);
        const double c = draw_normal(seed, i, 3);
        z /= sqrt((a * a + b * b + c * c) / 3);
    }
    if (kind == POSITIVE) z = fabs(z);
    if (kind == FAR) z += 10;
    if (kind == MIXED) z *= exp(draw_normal(seed, i - i % 16, 4)); /* a scale for 16 numbers */
    if (kind == SPARSE && draw_uniform(seed, i, 12) < 0.9) z = 0;
    return (float)(0.02 * z);
}

static float *draw_rows(test *t, int kind) {
    float *x = test_floats(t, N);
    for (uint64_t i = 0; i < N; i++)
        x[i] = draw_value(kind, i);
    return x;
}

/* One weight per column, log-normal: what squares of activations look like. */
static float *draw_importance(test *t) {
    float *w = test_floats(t, COLS);
    for (uint64_t i = 0; i < COLS; i++)
        w[i] = (float)exp(draw_normal(2000, i, 5));
    return w;
}

/* ---- errors -------------------------------------------------------------------------------- */

/* sum w (x - y)^2 of rows that share their weights; NULL: all 1. */
static double weighted_error(const float *x, const float *y, const float *w, size_t n) {
    double error = 0;
    for (size_t i = 0; i < n; i++) {
        const double off = (double)x[i] - (double)y[i];
        error += (w != NULL ? (double)w[i % COLS] : 1) * off * off;
    }
    return error;
}

static float *encode_rows(test *t, dtype type, const float *x, const float *w) {
    uint64_t bytes = 0;
    float *y = test_floats(t, N);
    CHECK(t, dtype_row_bytes(type, COLS, &bytes));
    uint8_t *blocks = test_alloc(t, ROWS, bytes);
    for (size_t r = 0; r < ROWS; r++) {
        CHECK(t, quant_encode(type, x + r * COLS, w, blocks + r * bytes, COLS));
    }
    CHECK(t, quant_decode(type, blocks, y, N));
    return y;
}

static const dtype searched[] = { DTYPE_Q2_K, DTYPE_Q3_K,   DTYPE_Q4_K,   DTYPE_Q5_K,
                                  DTYPE_Q6_K, DTYPE_Q4_0,   DTYPE_Q4_1,   DTYPE_Q5_0,
                                  DTYPE_Q5_1, DTYPE_IQ4_NL, DTYPE_IQ4_XS, DTYPE_MXFP4 };

/* sqrt(sum w (x - y)^2 / sum w x^2) of llama.cpp's quantisers (llama-cpp-python 0.3.36), without
 * and with importance, printed by tests/vectors/quant_figures.py. */
static const struct {
    dtype type;
    double plain[KINDS], weighted[KINDS];
    double share[2]; /* ours of theirs, mean of all kinds, when this was written */
} figures[] = {
    { DTYPE_Q2_K,
      { 0.2976661, 0.3565674, 0.1874333, 0.09055716, 0.2935383, 0.4214834 },
      { 0.2372048, 0.2881283, 0.1656365, 0.08333614, 0.2527896, 0.1728546 },
      { 0.6672, 0.7718 } },
    { DTYPE_Q3_K,
      { 0.151767, 0.18802, 0.1449389, 0.07962282, 0.1537071, 0.07142074 },
      { 0.1344292, 0.1789389, 0.1281466, 0.0636354, 0.1426456, 0.0592841 },
      { 0.9207, 0.9768 } },
    { DTYPE_Q4_K,
      { 0.07123765, 0.09266792, 0.04233961, 0.0209195, 0.07906779, 0.04996835 },
      { 0.06441313, 0.08946921, 0.03941656, 0.01942061, 0.07340826, 0.04652591 },
      { 0.8223, 0.8159 } },
    { DTYPE_Q5_K,
      { 0.03627385, 0.04719698, 0.02080446, 0.01042176, 0.04038595, 0.0362532 },
      { 0.0328951, 0.04562961, 0.01915766, 0.009654006, 0.03688188, 0.03475809 },
      { 0.7856, 0.7881 } },
    { DTYPE_Q6_K,
      { 0.01778647, 0.0252795, 0.01755227, 0.009131492, 0.01758237, 0.008124306 },
      { 0.01609586, 0.0242827, 0.01620098, 0.008332155, 0.01682717, 0.007519173 },
      { 0.9065, 0.8927 } },
    { DTYPE_Q4_0,
      { 0.08620667, 0.1254814, 0.08398326, 0.04304233, 0.0939991, 0.0493316 },
      { 0.07685054, 0.1233495, 0.07635343, 0.03554516, 0.08790338, 0.0392493 },
      { 0.9107, 0.9692 } },
    { DTYPE_Q4_1,
      { 0.07800741, 0.09924025, 0.04372615, 0.007730248, 0.08766475, 0.1089678 },
      { 0.06338275, 0.08741684, 0.03929159, 0.01909643, 0.07227155, 0.03520862 },
      { 0.7860, 0.8306 } },
    { DTYPE_Q5_0,
      { 0.04253871, 0.06560925, 0.04236966, 0.02142019, 0.04923677, 0.02428505 },
      { 0.03815204, 0.06514381, 0.03864932, 0.01801292, 0.04732708, 0.01836478 },
      { 0.9040, 0.9597 } },
    { DTYPE_Q5_1,
      { 0.03785991, 0.04846191, 0.02119395, 0.003744457, 0.04308748, 0.05291597 },
      { 0.03084208, 0.04193128, 0.01876816, 0.009126925, 0.03510762, 0.0166406 },
      { 0.7767, 0.8194 } },
    { DTYPE_Q8_0,
      { 0.005376344, 0.008350381, 0.005355061, 0.002696888, 0.006412282, 0.002999569 },
      { 0.00537819, 0.008801197, 0.005376008, 0.002716931, 0.006532937, 0.003149136 },
      { 1.0000, 1.0000 } },
    { DTYPE_IQ4_NL,
      { 0.07671171, 0.1005114, 0.07468572, 0.0536596, 0.08171854, 0.05564888 },
      { 0.07106663, 0.09770088, 0.06922724, 0.05042391, 0.07646826, 0.05200548 },
      { 0.9563, 0.9654 } },
    { DTYPE_IQ4_XS,
      { 0.07735558, 0.1016047, 0.07526604, 0.05420414, 0.08278486, 0.05724673 },
      { 0.0718304, 0.09966378, 0.07008748, 0.05100847, 0.07884056, 0.05368861 },
      { 0.9522, 0.9557 } },
    { DTYPE_MXFP4,
      { 0.1135662, 0.1477982, 0.1141505, 0.108598, 0.1219648, 0.1221906 },
      { 0.1117019, 0.1417511, 0.1143535, 0.1084916, 0.1229292, 0.1231728 },
      { 0.9133, 0.9088 } },
};

/* Seven digits are printed: half of the last is at most 5e-7 of a figure. cos and log of other C
 * libraries may move a number by half a unit in the last place of f32, which moves the errors of
 * 16384 numbers by far less than that. The mean share has four digits and may rise by a part in a
 * thousand: a step of the search that no longer works is worth more. */
static void encoders_are_no_worse_than_the_best_known(test *t) {
    const float *w = draw_importance(t), *zero = test_floats(t, N);
    double shares[ARRAY_LEN(figures)][2] = { { 0 } };
    for (int kind = 0; kind < KINDS; kind++) {
        const float *x = draw_rows(t, kind);
        for (size_t k = 0; k < ARRAY_LEN(figures); k++) {
            const dtype type = figures[k].type;
            test_row(t, "%s, %s", dtype_get(type)->name, kind_names[kind]);
            for (int with = 0; with < 2; with++) {
                const float *cost = with != 0 ? w : NULL, *y = encode_rows(t, type, x, cost);
                const double theirs = (with != 0 ? figures[k].weighted : figures[k].plain)[kind];
                const double ours =
                    sqrt(weighted_error(x, y, cost, N) / weighted_error(x, zero, cost, N));
                CHECK_MSG(t, ours <= theirs * 1.000001, "%.7g against %.7g %s importance", ours,
                          theirs, with != 0 ? "with" : "without");
                shares[k][with] += ours / theirs / KINDS;
            }
        }
    }
    for (size_t k = 0; k < ARRAY_LEN(figures); k++) {
        for (int with = 0; with < 2; with++) {
            test_row(t, "%s, %s importance", dtype_get(figures[k].type)->name,
                     with != 0 ? "with" : "without");
            CHECK_MSG(t, shares[k][with] <= figures[k].share[with] + 0.001, "share %.4f, was %.4f",
                      shares[k][with], figures[k].share[with]);
        }
    }
}

/* ---- against blocks of the plain methods ---------------------------------------------------- */

/* Types without a search give the same bytes; of the others no block may lose more than what it
 * loses by the plain method. */
static void encoding_is_the_plain_one_or_better(test *t) {
    const char *path = test_vector(t, "quants/quants.json");
    json *doc = json_open(test_read_file(t, path), path, &t->err);
    uint32_t n_types = 0;
    for (json_iter it = json_each(json_get(json_root(doc), "encode")); json_next(&it);) {
        dtype type;
        uint64_t n = 0;
        if (!dtype_by_name(it.key, &type)) continue;
        n_types++;
        const dtype_info *info = dtype_get(type);
        json_u64(json_get(it.value, "blocks"), &n);
        const char *name = test_printf(t, "quants/%.*s.encode.bin", STR_ARG(it.key));
        const str data = test_read_file(t, test_vector(t, name));
        const size_t elements = info->block_elements, bytes = info->block_bytes;
        if (!CHECK_U64(t, data.size, n * (bytes + 4 * elements))) break;
        float *x = test_floats(t, n * elements), y[32], plain_y[32];
        memcpy(x, data.data, 4 * n * elements);
        uint8_t *got = test_alloc(t, n, bytes);
        CHECK(t, quant_encode(type, x, NULL, got, n * elements));
        const uint8_t *plain = (const uint8_t *)data.data + 4 * n * elements;
        for (size_t i = 0; i < n; i++, got += bytes, plain += bytes, x += elements) {
            test_row(t, "%.*s, block %zu", STR_ARG(it.key), i);
            if (elements == 1 || type == DTYPE_Q8_0) {
                CHECK(t, memcmp(got, plain, bytes) == 0);
                continue;
            }
            quant_decode(type, got, y, elements);
            quant_decode(type, plain, plain_y, elements);
            const double error = weighted_error(x, y, NULL, elements);
            const double plain_error = weighted_error(x, plain_y, NULL, elements);
            CHECK_MSG(t, error <= plain_error, "%g, plain %g", error, plain_error);
        }
    }
    CHECK_U64(t, n_types, 8);
    json_close(doc);
}

static int32_t little_endian(const uint8_t *p, size_t n) {
    assert(n >= 1 && n <= 4);
    uint32_t bits = 0;
    for (size_t i = 0; i < n; i++)
        bits |= (uint32_t)p[i] << 8 * i;
    return (int32_t)(bits << (32 - 8 * n)) >> (32 - 8 * n);
}

/* Q8_K is what activations become, so no file has it: d is the first value of largest size over
 * -127, quants are the nearest multiples of it, and a dot product takes the sums of 16 on trust. */
static void q8_k_blocks_hold_their_sums(test *t) {
    enum { LENGTH = 256, BYTES = 292, BLOCKS = 200 };
    for (uint32_t block = 0; block < BLOCKS; block++) {
        test_row(t, "block %u", block);
        float *x = test_randn(t, LENGTH), y[LENGTH], d;
        uint8_t bytes[BYTES + 4];
        memset(bytes, 0xa5, sizeof(bytes));
        for (int i = 0; i < LENGTH; i++) {
            if (block == 0) x[i] = 0;
            if (block == 1) x[i] = 0.75f; /* all -127: the least sums, -2032 */
            if (block == 2) x[i] = -0.75f;
            if (block == 3) x[i] = i == 77 ? 8 : -7.96f; /* 126 each, nearly the largest sums */
            if (block > 3) x[i] *= ldexpf(1, (int)block % 40 - 20);
        }
        if (block == 4) x[100] = -1, x[101] = 1; /* both far above the rest: the first one counts */
        float extreme = 0;
        for (int i = LENGTH; i-- > 0;) {
            if (fabsf(x[i]) >= fabsf(extreme)) extreme = x[i];
        }
        CHECK(t, quant_encode(DTYPE_Q8_K, x, NULL, bytes, LENGTH) &&
                     quant_decode(DTYPE_Q8_K, bytes, y, LENGTH));
        memcpy(&d, bytes, sizeof(d));
        /* two divisions in f32, each within half a unit in the last place */
        const double step = (double)extreme / -127;
        CHECK_MSG(t, fabs((double)d - step) <= fabs(step) * 0x1.01p-23, "d %g, expected %g",
                  (double)d, step);
        for (int i = 0; i < LENGTH; i++) {
            const int q = little_endian(bytes + 4 + i, 1);
            /* half a step, and what two products of up to 127 units lose in f32 */
            const double error = fabs((double)x[i] - step * q);
            if (!CHECK_MSG(t, error <= fabs(step) * (0.5 + 127 * 0x1p-22), "element %d: off by %g",
                           i, error) ||
                !CHECK(t, y[i] == d * (float)q)) {
                break;
            }
        }
        for (int k = 0; k < 16; k++) {
            int64_t sum = 0;
            for (int i = 0; i < 16; i++)
                sum += little_endian(bytes + 4 + 16 * k + i, 1);
            const int64_t stored = little_endian(bytes + 260 + 2 * k, 2);
            CHECK_MSG(t, stored == sum, "sum %d: %d, expected %d", k, (int)stored, (int)sum);
        }
        CHECK(t, bytes[BYTES] == 0xa5);
    }
}

/* ---- hard rows ------------------------------------------------------------------------------ */

/* Sub-blocks of one sign, far from zero: a minimum that the format can only subtract must not be
 * lost. Minimum and maximum as the outer levels leave half a step everywhere; the search may not
 * lose more in the mean square. Signed formats, and super-blocks whose sub-blocks differ in sign
 * (where one sign or the other has no offset), have their steps between zero and the largest value,
 * 1.31, half a step each. Added: u = 2^-11 of the largest value for halves that are rounded, once
 * for the scale, once for the minimum.
 *   Q4_K and Q4_1 15 steps, Q5_K and Q5_1 31, Q2_K 3; Q4_0 8 steps, Q5_0 16, Q6_K 32, Q3_K 4. */
static void one_sided_rows_keep_their_minimum(test *t) {
    static const struct {
        dtype type;
        int steps, n; /* elements of a sub-block */
        bool offset;  /* 1: has one per sub-block, of any sign */
    } cases[] = {
        { DTYPE_Q4_K, 15, 32, true },  { DTYPE_Q5_K, 31, 32, true },  { DTYPE_Q2_K, 3, 16, true },
        { DTYPE_Q4_1, 15, 32, true },  { DTYPE_Q5_1, 31, 32, true },  { DTYPE_Q4_0, 8, 32, false },
        { DTYPE_Q5_0, 16, 32, false }, { DTYPE_Q6_K, 32, 16, false }, { DTYPE_Q3_K, 4, 16, false },
    };
    enum { LENGTH = 256 };
    for (size_t k = 0; k < ARRAY_LEN(cases); k++) {
        const dtype type = cases[k].type;
        for (int sign = -1; sign <= 1; sign++) { /* 0: by turns */
            test_row(t, "%s, sign %d", dtype_get(type)->name, sign);
            float x[LENGTH], y[LENGTH];
            uint8_t bytes[LENGTH];
            for (int i = 0; i < LENGTH; i++) {
                const int turn = sign != 0 ? sign : i / 32 % 2 != 0 ? 1 : -1;
                x[i] = (float)turn * (1 + 0.01f * (float)(i % 32));
            }
            CHECK(t, quant_encode(type, x, NULL, bytes, LENGTH) &&
                         quant_decode(type, bytes, y, LENGTH));
            const bool super = dtype_get(type)->block_elements == 256;
            const bool spanned = cases[k].offset && (sign != 0 || !super);
            const double span = spanned ? 0.01 * (cases[k].n - 1) : 1.31;
            const double bound = span * 0.5 / cases[k].steps + 1.31 * 2 * 0x1p-11;
            const double error = sqrt(weighted_error(x, y, NULL, LENGTH) / LENGTH);
            CHECK_MSG(t, error <= bound, "%g over %g", error, bound);
        }
    }
}

/* An offset of which the nearest half is above the least value: halves near 1000.3 are 1000 and
 * 1000.5, so the lower one serves, with steps of 0.61 / 15 or 31; half a step, and u of the span.
 */
static void offsets_round_to_the_useful_side(test *t) {
    static const dtype types[] = { DTYPE_Q4_1, DTYPE_Q5_1 };
    for (size_t k = 0; k < ARRAY_LEN(types); k++) {
        float x[32], y[32];
        uint8_t bytes[24];
        for (int i = 0; i < 32; i++)
            x[i] = 1000.3f + 0.01f * (float)i;
        CHECK(t,
              quant_encode(types[k], x, NULL, bytes, 32) && quant_decode(types[k], bytes, y, 32));
        const double bound = 0.61 * (0.5 / (k == 0 ? 15 : 31) + 0x1p-11);
        const double error = sqrt(weighted_error(x, y, NULL, 32) / 32);
        CHECK_MSG(t, error <= bound, "%g over %g", error, bound);
    }
}

/* Q8_0 divides by 127 to the nearest, halves away from zero as others do. */
static void q8_0_rounds_halves_away_from_zero(test *t) {
    static const float x[32] = {
        127, 0.5f, -0.5f, 1.5f, -1.5f, 2.5f, -2.5f, 2.25f, 2.75f, -126.5f
    };
    static const int8_t want[32] = { 127, 1, -1, 2, -2, 3, -3, 2, 3, -127 };
    uint8_t bytes[34];
    CHECK(t, quant_encode(DTYPE_Q8_0, x, NULL, bytes, 32));
    CHECK(t, memcmp(bytes + 2, want, 32) == 0 && bytes[0] == 0 && bytes[1] == 0x3c);
}

/* One value for all, or that and its negative by turns of 32: a scale (or a minimum) that is right
 * but for the rounding of one half, u = 2^-11, and an error of the search that is smaller than
 * that. No scale is so small that it has fewer digits. MXFP4 has three values between powers of
 * two, 4, 6, 8: at most a fifth away. In super-blocks with importance, or of both signs, equal
 * sub-blocks may settle on different quants, so that their steps need not be equal: then half of a
 * multiple that is in the upper half of its range (Q2_K's has 4 bits). */
static void constant_blocks_stay_constant(test *t) {
    static const float constants[] = { 0.7f, -0.7f, 1.0001f, -300, 65504 };
    enum { LENGTH = 256, FORMS = 4 };
    const float *w = draw_importance(t);
    for (uint32_t k = 0; k < DTYPE_COUNT * FORMS * ARRAY_LEN(constants); k++) {
        const dtype type = (dtype)(k / ARRAY_LEN(constants) / FORMS);
        const float value = constants[k % ARRAY_LEN(constants)];
        const bool weighted = k / ARRAY_LEN(constants) % 2 != 0;
        const bool turns = k / ARRAY_LEN(constants) / 2 % 2 != 0;
        if (!quant_can_encode(type)) continue;
        test_row(t, "%s, %g%s%s", dtype_get(type)->name, (double)value,
                 turns ? ", turning sign" : "", weighted ? ", importance" : "");
        float x[LENGTH], y[LENGTH];
        uint8_t bytes[4 * LENGTH];
        for (int i = 0; i < LENGTH; i++)
            x[i] = turns && i / 32 % 2 != 0 ? -value : value;
        CHECK(t, quant_encode(type, x, weighted ? w : NULL, bytes, LENGTH) &&
                     quant_decode(type, bytes, y, LENGTH));
        const bool apart = dtype_get(type)->block_elements == 256 && (weighted || turns);
        const bool fine = type == DTYPE_Q6_K || type == DTYPE_Q4_K || type == DTYPE_Q5_K;
        const double share = type == DTYPE_MXFP4  ? 0.2
                             : type == DTYPE_BF16 ? 0x1p-8
                             : apart              ? 0.5 / (type == DTYPE_Q2_K ? 8
                                                           : fine             ? 32
                                                                              : 16)
                                                  : 0x1p-11;
        for (int i = 0; i < LENGTH; i++) {
            const double off = fabs((double)x[i] - (double)y[i]);
            if (!CHECK_MSG(t, off <= fabs((double)x[i]) * share, "element %d: %g", i,
                           (double)y[i])) {
                break;
            }
        }
    }
}

/* Forms of a row that holds an odd value. */
static float odd_element(int form, float odd, int i) {
    switch (form) {
    case 0:
        return odd;
    case 1:
        return i % 3 == 0 ? odd : i % 3 == 1 ? -1e-3f : 0;
    case 2:
        return i % 2 == 0 ? odd : -odd;
    case 3:
        return i == 100 ? odd : 0;
    default:
        return odd * ldexpf(1, -(i % 32));
    }
}

/* Of a row encoded without importance: the largest values come back with at most half of their
 * size lost or added; beyond the largest half it is enough to keep half of that. Half floats have
 * no digits below 2^-14, so smaller rows may lose all. */
static bool largest_survive(const float *x, const float *y, size_t n) {
    float largest = 0;
    for (size_t i = 0; i < n; i++)
        largest = fabsf(x[i]) > largest ? fabsf(x[i]) : largest;
    for (size_t i = 0; i < n && largest >= 0x1p-14f; i++) {
        const float size = x[i] > 0 ? y[i] : -y[i];
        const float least = largest > 65504 ? 32752 : largest / 2;
        if (fabsf(x[i]) >= largest && !(size >= least && size / 1.5f <= largest)) return false;
    }
    return true;
}

/* Values and weights for which a careless encoder divides by zero, leaves the range, or writes
 * beyond its block. */
static void odd_blocks_decode_to_finite_numbers(test *t) {
    enum { LENGTH = 256, FORMS = 5 };
    static const float odd[] = { 0,     1e-45f, 1e-40f,  5.9e-8f,  6.2e-5f,   65504,
                                 65536, 1e30f,  FLT_MAX, INFINITY, -INFINITY, NAN };
    static const float weights[] = { 1, 0, -1, 1e-45f, FLT_MAX, INFINITY, NAN };
    for (uint32_t k = 0; k < DTYPE_COUNT; k++) {
        const dtype type = (dtype)k;
        uint64_t n_bytes = 0;
        if (!quant_can_encode(type) || !dtype_is_quantised(type)) continue;
        CHECK(t, dtype_row_bytes(type, LENGTH, &n_bytes));
        for (size_t o = 0; o < ARRAY_LEN(odd) * FORMS * 2; o++) {
            const float value = odd[o / 2 / FORMS];
            const int form = (int)(o / 2 % FORMS);
            const bool with = o % 2 != 0;
            test_row(t, "%s, %g, form %d%s", dtype_get(type)->name, (double)value, form,
                     with ? ", odd weights" : "");
            float x[LENGTH], w[LENGTH], y[LENGTH];
            uint8_t bytes[4 * LENGTH + 1];
            memset(bytes, 0xa5, sizeof(bytes));
            for (int i = 0; i < LENGTH; i++) {
                x[i] = odd_element(form, value, i);
                w[i] = weights[(size_t)(i / 3 + form) % ARRAY_LEN(weights)];
            }
            CHECK(t, quant_encode(type, x, with ? w : NULL, bytes, LENGTH));
            CHECK(t, bytes[n_bytes] == 0xa5);
            CHECK(t, quant_decode(type, bytes, y, LENGTH));
            uint64_t n_wild = 0, n_zero = 0;
            for (int i = 0; i < LENGTH; i++) {
                n_wild += isfinite(y[i]) ? 0 : 1;
                n_zero += y[i] == 0 ? 1 : 0;
            }
            CHECK_U64(t, n_wild, 0);
            const bool nothing = value == 0 || isnan(value);
            if (form == 0 && nothing) CHECK_U64(t, n_zero, LENGTH);
            CHECK(t, with || largest_survive(x, y, LENGTH));
            if (!(fabsf(value) <= 65536)) continue;
            const float none[LENGTH] = { 0 }; /* d = 0 is always to be had */
            const double error = weighted_error(x, y, NULL, LENGTH);
            const double all = weighted_error(x, none, NULL, LENGTH);
            CHECK_MSG(t, with || error <= all, "%g lost of %g", error, all);
        }
    }
    CHECK(t, !quant_encode(DTYPE_I8, NULL, NULL, NULL, 0) && !quant_can_encode(DTYPE_I8));
    CHECK(t, !quant_encode(DTYPE_F64, NULL, NULL, NULL, 0) && !quant_can_encode(DTYPE_F64));
    CHECK(t, !quant_can_encode(DTYPE_COUNT));
    CHECK(t, !quant_encode_row(DTYPE_I8, NULL, NULL, 0, NULL));
}

/* What is beyond the format becomes its largest value, and leaves what is within alone: half of it
 * keeps half of its size. (MXFP4 and Q8_K reach all floats.) */
static void excess_is_cut_off(test *t) {
    enum { LENGTH = 256 };
    for (uint32_t k = 0; k < DTYPE_COUNT; k++) {
        const dtype type = (dtype)k;
        if (!quant_can_encode(type) || !dtype_is_quantised(type)) continue;
        if (type == DTYPE_MXFP4 || type == DTYPE_Q8_K) continue;
        test_row(t, "%s", dtype_get(type)->name);
        float x[LENGTH] = { 1e30f }, y[LENGTH] = { 0 };
        uint8_t bytes[4 * LENGTH];
        CHECK(t,
              quant_encode(type, x, NULL, bytes, LENGTH) && quant_decode(type, bytes, y, LENGTH));
        const float most = y[0];
        x[1] = most / 2;
        CHECK(t,
              quant_encode(type, x, NULL, bytes, LENGTH) && quant_decode(type, bytes, y, LENGTH));
        CHECK_MSG(t, most >= 65504 && y[0] >= most * 0.9f && y[1] >= most / 4,
                  "%g and %g, the most is %g", (double)y[0], (double)y[1], (double)most);
    }
}

/* The same numbers times a power of two lose the same share, up to the range of halves: 2^18 takes
 * 0.02 * 5 to 26214. Nearly: halves below 2^-14 have fewer digits (d of Q5_K and Q6_K, about 1e-5,
 * is 170 multiples of 2^-24, which costs the smaller rows up to (32 * 0.29 / 170)^2 against 1/12,
 * a part in thirty), and the search ends in other minima with other roundings. */
static void errors_scale_with_the_values(test *t) {
    const float *x = draw_rows(t, NORMAL);
    float *large = test_floats(t, N);
    for (size_t i = 0; i < N; i++)
        large[i] = ldexpf(x[i], 18);
    for (size_t k = 0; k < ARRAY_LEN(searched); k++) {
        test_row(t, "%s", dtype_get(searched[k])->name);
        const double usual = weighted_error(x, encode_rows(t, searched[k], x, NULL), NULL, N);
        const double far = weighted_error(large, encode_rows(t, searched[k], large, NULL), NULL, N);
        const double ratio = far / ldexp(usual, 36);
        CHECK_MSG(t, ratio > 0.96 && ratio < 1.01, "%g", ratio);
    }
}

/* ---- importance ---------------------------------------------------------------------------- */

/* Weights must lower the error that they weigh, by more than chance. MXFP4 has only a handful of
 * scales: the best of them may be the same one. */
static void importance_lowers_the_weighted_error(test *t) {
    const float *w = draw_importance(t);
    for (int kind = 0; kind < KINDS; kind++) {
        const float *x = draw_rows(t, kind);
        for (size_t k = 0; k < ARRAY_LEN(searched); k++) {
            test_row(t, "%s, %s", dtype_get(searched[k])->name, kind_names[kind]);
            const double with = weighted_error(x, encode_rows(t, searched[k], x, w), w, N);
            const double without = weighted_error(x, encode_rows(t, searched[k], x, NULL), w, N);
            const double most = searched[k] == DTYPE_MXFP4 ? 1 : 0.98;
            CHECK_MSG(t, with <= without * most, "%g of it", with / without);
        }
    }
}

/* Only ratios of weights count: no weight (all 0) and equal weights of any size are the same as
 * none given, and a power of two changes nothing. */
static void importance_has_no_unit(test *t) {
    const float *x = draw_rows(t, STUDENT), *w = draw_importance(t);
    static const float sizes[] = { 0, 1e-45f, 1e-30f, 1, FLT_MAX, INFINITY };
    for (size_t k = 0; k < ARRAY_LEN(searched); k++) {
        test_row(t, "%s", dtype_get(searched[k])->name);
        uint64_t n = 0;
        CHECK(t, dtype_row_bytes(searched[k], COLS, &n));
        uint8_t *want = test_alloc(t, n, 1), *got = test_alloc(t, n, 1);
        float *other = test_floats(t, COLS);
        quant_encode(searched[k], x, NULL, want, COLS);
        for (size_t s = 0; s < ARRAY_LEN(sizes); s++) {
            for (size_t i = 0; i < COLS; i++)
                other[i] = sizes[s];
            quant_encode(searched[k], x, other, got, COLS);
            CHECK_MSG(t, memcmp(got, want, n) == 0, "all %g", (double)sizes[s]);
        }
        quant_encode(searched[k], x, w, want, COLS);
        for (int power = -100; power <= 100; power += 200) {
            for (size_t i = 0; i < COLS; i++)
                other[i] = ldexpf(w[i], power);
            quant_encode(searched[k], x, other, got, COLS);
            CHECK_MSG(t, memcmp(got, want, n) == 0, "times 2^%d", power);
        }
    }
}

/* ---- the same again ------------------------------------------------------------------------ */

/* What was decoded can be had without error, so what a second encoding loses is the search's own:
 * far less than the first one lost. MXFP4's scales are all tried, Q8_0's largest quant is 127. */
static void encoding_again_changes_little(test *t) {
    static const int kinds[] = { NORMAL, STUDENT, POSITIVE };
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        const float *x = draw_rows(t, kinds[i]);
        for (size_t k = 0; k < ARRAY_LEN(figures); k++) {
            const dtype type = figures[k].type;
            test_row(t, "%s, %s", dtype_get(type)->name, kind_names[kinds[i]]);
            const float *y = encode_rows(t, type, x, NULL), *z = encode_rows(t, type, y, NULL);
            const double share = weighted_error(y, z, NULL, N) / weighted_error(x, y, NULL, N);
            const bool exact = type == DTYPE_MXFP4 || type == DTYPE_Q8_0;
            CHECK_MSG(t, share <= (exact ? 0 : 0.5), "%g of the first error", share);
        }
    }
}

/* Bytes depend on the numbers alone: not on where they lie, on what was there, or on how many
 * blocks are encoded at once. */
static void encoding_is_a_function_of_its_input(test *t) {
    const float *x = draw_rows(t, MIXED), *w = draw_importance(t);
    float *moved_x = test_floats(t, COLS + 1), *moved_w = test_floats(t, COLS + 1);
    memcpy(moved_x + 1, x, COLS * sizeof(float));
    memcpy(moved_w + 1, w, COLS * sizeof(float));
    for (size_t k = 0; k < ARRAY_LEN(figures); k++) {
        const dtype_info *info = dtype_get(figures[k].type);
        test_row(t, "%s", info->name);
        uint64_t n = 0;
        CHECK(t, dtype_row_bytes(figures[k].type, COLS, &n));
        uint8_t *want = test_alloc(t, n, 1), *got = test_alloc(t, n + 1, 1);
        quant_encode(figures[k].type, x, w, want, COLS);
        memset(got, 0xff, n + 1);
        quant_encode(figures[k].type, moved_x + 1, moved_w + 1, got + 1, COLS);
        CHECK(t, memcmp(got + 1, want, n) == 0);
        memset(got, 0xff, n + 1);
        for (size_t i = 0; i < COLS / info->block_elements; i++) {
            const size_t at = i * info->block_elements;
            quant_encode(figures[k].type, x + at, w + at, got + i * info->block_bytes,
                         info->block_elements);
        }
        CHECK(t, memcmp(got, want, n) == 0);
    }
}

/* A row of any length ends in a block filled up with zeros that count for nothing: the same bytes
 * as those of a block of its own whose rest is given no weight, none beyond, and sub-blocks that
 * are all filling decode to zero. */
static void row_is_filled_up(test *t, dtype type, const float *x, const float *w, size_t cols) {
    const dtype_info *info = dtype_get(type);
    const size_t block = info->block_elements, n_blocks = (cols + block - 1) / block;
    const size_t n = n_blocks * block, bytes = n_blocks * info->block_bytes;
    float *full = test_floats(t, n), *weights = test_floats(t, n), *y = test_floats(t, n);
    for (size_t i = 0; i < cols; i++) {
        full[i] = x[i];
        weights[i] = w != NULL ? w[i] : 1;
    }
    uint8_t *want = test_alloc(t, bytes, 1), *got = test_alloc(t, bytes + 1, 1);
    got[bytes] = 0xa5;
    CHECK(t, quant_encode_row(type, x, w, cols, got));
    CHECK(t, quant_encode(type, full, weights, want, n));
    CHECK(t, memcmp(got, want, bytes) == 0 && got[bytes] == 0xa5);
    CHECK(t, quant_decode(type, got, y, n));
    for (size_t i = (cols + 31) / 32 * 32; i < n; i++) {
        if (!CHECK_MSG(t, y[i] == 0, "filling %zu is %g", i, (double)y[i])) break;
    }
}

static void rows_are_filled_up_to_whole_blocks(test *t) {
    static const size_t lengths[] = { 1, 15, 31, 32, 33, 100, 255, 256, 257, 576 };
    const float *x = draw_rows(t, NORMAL), *importance = draw_importance(t);
    for (size_t k = 0; k < ARRAY_LEN(figures); k++) {
        for (size_t l = 0; l < ARRAY_LEN(lengths); l++) {
            test_row(t, "%s, %zu columns", dtype_get(figures[k].type)->name, lengths[l]);
            row_is_filled_up(t, figures[k].type, x, NULL, lengths[l]);
            row_is_filled_up(t, figures[k].type, x, importance, lengths[l]);
        }
    }
}

static const test_case cases[] = {
    { "encoders are no worse than the best known", encoders_are_no_worse_than_the_best_known },
    { "encoding is the plain one or better", encoding_is_the_plain_one_or_better },
    { "Q8_K blocks hold their sums", q8_k_blocks_hold_their_sums },
    { "one-sided rows keep their minimum", one_sided_rows_keep_their_minimum },
    { "offsets round to the useful side", offsets_round_to_the_useful_side },
    { "Q8_0 rounds halves away from zero", q8_0_rounds_halves_away_from_zero },
    { "constant blocks stay constant", constant_blocks_stay_constant },
    { "odd blocks decode to finite numbers", odd_blocks_decode_to_finite_numbers },
    { "excess is cut off", excess_is_cut_off },
    { "errors scale with the values", errors_scale_with_the_values },
    { "importance lowers the weighted error", importance_lowers_the_weighted_error },
    { "importance has no unit", importance_has_no_unit },
    { "encoding again changes little", encoding_again_changes_little },
    { "encoding is a function of its input", encoding_is_a_function_of_its_input },
    { "rows are filled up to whole blocks", rows_are_filled_up_to_whole_blocks },
};

const test_group quant_tests = { "quant", cases, ARRAY_LEN(cases) };
