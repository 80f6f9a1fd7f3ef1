/* test_format: element types, block formats, GGUF and safetensors containers.
 *
 * Block formats are compared with vectors made by the Python package gguf (tests/vectors/quants).
 * Hostile files are written here: one right file, then one thing wrong per row of a table. */
#include "format/format.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- numbers ------------------------------------------------------------------------------- */

static uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

/* The definition: sign, 5 bits of exponent with bias 15, 10 bits of fraction. */
static double plain_f16(uint32_t h) {
    const int exponent = h >> 10 & 31;
    const double fraction = (double)(h & 0x3ff) / 1024;
    const double size = exponent == 0 ? ldexp(fraction, -14) : ldexp(1 + fraction, exponent - 15);
    return h & 0x8000 ? -size : size;
}

static void halves_convert_exactly(test *t) {
    for (uint32_t h = 0; h <= 0xffff; h++) {
        const float x = f16_to_f32((uint16_t)h);
        const bool special = (h & 0x7c00) == 0x7c00;
        if (special && (h & 0x3ff) != 0) {
            CHECK(t, isnan(x) && isnan(f16_to_f32(f32_to_f16(x))));
            continue;
        }
        const bool right = special ? isinf(x) != 0 : (double)x == plain_f16(h);
        const bool sign = (signbit(x) != 0) == (h >= 0x8000);
        if (!CHECK_MSG(t, right && sign && f32_to_f16(x) == h, "half %04x", h)) return;
    }
    CHECK(t, isnan(f16_to_f32(f32_to_f16(NAN))) && isnan(bf16_to_f32(f32_to_bf16(NAN))));
    /* A NaN whose payload lies in the bits that are cut off must not become infinity. */
    const uint32_t low_nan = 0x7f800001;
    float x;
    memcpy(&x, &low_nan, 4);
    CHECK(t, isnan(f16_to_f32(f32_to_f16(x))) && isnan(bf16_to_f32(f32_to_bf16(x))));
}

/* Every midpoint of two neighbours goes to the even one, its neighbours in f32 to the nearer half:
 * this fixes the rounding everywhere, since it is monotonic. */
static void halves_round_to_nearest_even(test *t) {
    for (uint32_t h = 0; h < 0x7c00; h++) {
        const double high = h == 0x7bff ? 65536 : plain_f16(h + 1);
        const float middle = (float)((plain_f16(h) + high) / 2);
        const uint32_t below = f32_to_f16(nextafterf(middle, 0));
        const uint32_t above = f32_to_f16(nextafterf(middle, INFINITY));
        const bool right = below == h && above == h + 1 && f32_to_f16(middle) == h + (h & 1) &&
                           f32_to_f16(-middle) == (0x8000 | (h + (h & 1)));
        if (!CHECK_MSG(t, right, "around %g", (double)middle)) return;
    }
    for (uint32_t h = 0; h < 0x7f80; h++) { /* bf16: the midpoint is one bit below */
        uint32_t bits = h << 16 | 0x8000;
        float x;
        memcpy(&x, &bits, 4);
        const bool right = f32_to_bf16(x) == h + (h & 1) && f32_to_bf16(nextafterf(x, 0)) == h &&
                           f32_to_bf16(nextafterf(x, INFINITY)) == h + 1;
        if (!CHECK_MSG(t, right && bits_of(bf16_to_f32((uint16_t)h)) == h << 16, "bf16 %04x", h)) {
            return;
        }
    }
}

static void type_table_is_consistent(test *t) {
    static const uint32_t holes[] = { 4,           5,         9,  16, 31, 32,
                                      33,          36,        37, 38, 40, DTYPE_GGUF_END,
                                      DTYPE_COUNT, UINT32_MAX };
    for (size_t i = 0; i < ARRAY_LEN(holes); i++) CHECK(t, dtype_get(holes[i]) == NULL);
    for (uint32_t i = 0; i < DTYPE_COUNT; i++) {
        const dtype_info *info = dtype_get(i);
        dtype back = DTYPE_COUNT;
        if (info == NULL) continue;
        CHECK(t, dtype_by_name(str_of(info->name), &back) && back == (dtype)i);
        CHECK(t, info->safetensors == NULL ||
                     (dtype_by_safetensors(str_of(info->safetensors), &back) && back == (dtype)i));
    }
    dtype type = DTYPE_COUNT;
    CHECK(t, dtype_by_name(STR("q4_k"), &type) && type == DTYPE_Q4_K);
    CHECK(t, !dtype_by_name(STR(""), &type) && !dtype_by_name(STR("q4"), &type));
    CHECK(t, !dtype_by_safetensors(STR("Q4_K"), &type) && !dtype_by_safetensors(STR("f16"), &type));
    CHECK(t, dtype_is_quantised(DTYPE_Q8_0) && !dtype_is_quantised(DTYPE_BF16));
    uint64_t bytes = 0;
    CHECK(t, dtype_row_bytes(DTYPE_Q6_K, 512, &bytes) && bytes == 420);
    CHECK(t, !dtype_row_bytes(DTYPE_Q6_K, 511, &bytes));
    CHECK(t, !dtype_row_bytes(DTYPE_F32, (uint64_t)1 << 62, &bytes));
}

/* ---- block formats ------------------------------------------------------------------------- */

/* The vectors' index; closed by the caller. */
static json *open_vectors(test *t) {
    const char *path = test_vector(t, "quants/quants.json");
    return json_open(test_read_file(t, path), path, &t->err);
}

/* Blocks of random bytes and of extreme scales, bit for bit; the sign of zero and NaN payloads are
 * free, since multiplication may choose them. */
static void decoding_equals_vectors(test *t) {
    json *doc = open_vectors(t);
    uint32_t n_types = 0;
    for (json_iter it = json_each(json_get(json_root(doc), "decode")); json_next(&it);) {
        dtype type;
        uint64_t n = 0;
        if (!dtype_by_name(it.key, &type)) continue; /* a type that this version does not read */
        n_types++;
        test_row(t, "%.*s", STR_ARG(it.key));
        const dtype_info *info = dtype_get(type);
        json_u64(json_get(it.value, "blocks"), &n);
        const char *name = test_printf(t, "quants/%.*s.bin", STR_ARG(it.key));
        const str data = test_read_file(t, test_vector(t, name));
        const size_t n_elements = n * info->block_elements, n_bytes = n * info->block_bytes;
        if (!CHECK_U64(t, data.size, n_bytes + 4 * n_elements)) break;
        float *got = test_floats(t, n_elements), *want = test_floats(t, n_elements);
        memcpy(want, data.data + n_bytes, 4 * n_elements);
        CHECK(t, quant_decode(type, data.data, got, n_elements));
        size_t wrong = 0;
        for (size_t i = 0; i < n_elements; i++) {
            wrong += !(got[i] == want[i] || (isnan(got[i]) && isnan(want[i])));
        }
        CHECK_U64(t, wrong, 0);
    }
    CHECK_U64(t, n_types, 16); /* 13 block types that are stored, Q8_K, F16 and BF16 */
    json_close(doc);
}

/* ---- a writer of GGUF files ---------------------------------------------------------------- */

static void put(buf *b, uint64_t value, uint32_t n_bytes) {
    for (uint32_t i = 0; i < n_bytes; i++) {
        const char byte = (char)(value >> 8 * i);
        buf_add(b, &byte, 1);
    }
}

static void put_text(buf *b, str s) {
    put(b, s.size, 8);
    buf_add_str(b, s);
}

static void put_tensor(buf *b, str name, uint32_t n_dims, const uint64_t *ne, uint32_t type,
                       uint64_t offset) {
    put_text(b, name);
    put(b, n_dims, 4);
    for (uint32_t i = 0; i < n_dims && i < 5; i++) put(b, ne[i], 8);
    put(b, type, 4);
    put(b, offset, 8);
}

/* What differs from a right file of one metadata entry and two F32 tensors, a [2, 32] at 0 and
 * b [32] at 256, 384 bytes of data. Zero: as it should be. */
typedef struct {
    const char *what;
    dp_status status; /* DP_OK: must open */
    const char *part; /* of the message */
    uint32_t version;
    uint64_t n_tensors, n_meta; /* counts to claim */
    str key;                    /* of a second metadata entry */
    uint32_t value_type;
    str value; /* its raw bytes */
    str name;  /* of tensor b */
    uint32_t n_dims;
    uint64_t ne[5];
    uint32_t type; /* plus 1000 */
    uint64_t offset;
    int64_t data; /* bytes of data more */
    uint32_t cut; /* keep this many bytes only */
} gguf_case;

static void write_gguf(buf *b, const gguf_case *c) {
    const bool second = c->key.data != NULL;
    static const uint64_t ne_a[] = { 32, 2 }, ne_b[] = { 32 };
    buf_add(b, "GGUF", 4);
    put(b, c->version > 0 ? c->version : 3, 4);
    put(b, c->n_tensors > 0 ? c->n_tensors : 2, 8);
    put(b, c->n_meta > 0 ? c->n_meta : second ? 2 : 1, 8);
    put_text(b, STR("general.architecture"));
    put(b, 8, 4);
    put_text(b, STR("llama"));
    if (second) {
        put_text(b, c->key);
        put(b, c->value_type, 4);
        buf_add_str(b, c->value);
    }
    put_tensor(b, STR("a"), 2, ne_a, 0, 0);
    put_tensor(b, c->name.data != NULL ? c->name : STR("b"), c->n_dims > 0 ? c->n_dims : 1,
               c->n_dims > 0 ? c->ne : ne_b, c->type > 0 ? c->type - 1000 : 0,
               c->offset > 0 ? c->offset : 256);
    while (b->size % 32 != 0) put(b, 0, 1);
    for (int64_t i = 0; i < 384 + c->data; i++) put(b, (uint64_t)i, 1);
    if (c->cut > 0 && c->cut < b->size) b->size = c->cut;
}

/* Bytes of a compile-time text as a static str. */
#define RAW(text) \
    { text, sizeof(text) - 1 }

static const gguf_case gguf_cases[] = {
    { .what = "as it should be", .part = "" },
    { "version 2", DP_OK, "", .version = 2 },
    { "version 1", DP_E_UNSUPPORTED, "version: 1 is not supported, 2 and 3 are", .version = 1 },
    { "a later version", DP_E_UNSUPPORTED, "4 is not supported", .version = 4 },
    { "other endianness", DP_E_UNSUPPORTED, "big-endian", .version = 3u << 24 },
    { "magic alone", DP_E_FORMAT, "reach past the end of the file at 4", .cut = 4 },
    { "cut in the counts", DP_E_FORMAT, "number of tensors: 2 need at least 33", .cut = 20 },
    { "cut in the table", DP_E_FORMAT, "2 tensors and 1 metadata entries: 80 bytes", .cut = 100 },
    { "cut in a tensor", DP_E_FORMAT, "tensor 1 of 1: 8 bytes at 69", .n_tensors = 1, .cut = 75 },
    { "cut in the data", DP_E_FORMAT, "tensor b: 128 bytes", .data = -1 },
    { "no data", DP_E_FORMAT, "tensor a: 256 bytes at", .data = -384 },
    { "2^63 tensors", DP_E_FORMAT, "number of tensors: 9223372036854775808 need at least 33 bytes",
      .n_tensors = (uint64_t)1 << 63 },
    { "2^63 metadata entries", DP_E_FORMAT, "number of metadata entries: 9223372036854775808",
      .n_meta = (uint64_t)1 << 63 },
    { "more entries than there are", DP_E_FORMAT, "metadata 3 of 3", .n_meta = 3 },
    /* metadata */
    { "a key twice", DP_E_FORMAT, "duplicate metadata key general.architecture",
      .key = RAW("general.architecture"), .value_type = 0, .value = RAW("\1") },
    { "an empty key", DP_E_FORMAT, "key of 0 bytes", .key = RAW(""), .value = RAW("\1") },
    { "a key with a zero byte", DP_E_FORMAT, "none of them 0", .key = RAW("a\0b"),
      .value = RAW("\1") },
    { "an unknown value type", DP_E_FORMAT, "(k): value type 13, known are 0 to 12",
      .key = RAW("k"), .value_type = 13, .value = RAW("\1") },
    { "a truth value of 2", DP_E_FORMAT, "(k): truth value 2", .key = RAW("k"), .value_type = 7,
      .value = RAW("\2") },
    { "a text longer than the file", DP_E_FORMAT, "(k): 9223372036854775807 bytes", .key = RAW("k"),
      .value_type = 8, .value = RAW("\xff\xff\xff\xff\xff\xff\xff\x7f") },
    { "a text of 2^64 - 1 bytes", DP_E_FORMAT, "(k): 18446744073709551615 bytes", .key = RAW("k"),
      .value_type = 8, .value = RAW("\xff\xff\xff\xff\xff\xff\xff\xff") },
    { "an array of arrays", DP_E_UNSUPPORTED, "(k): an array of arrays", .key = RAW("k"),
      .value_type = 9, .value = RAW("\x09\0\0\0\1\0\0\0\0\0\0\0") },
    { "an array of 2^63 bytes", DP_E_FORMAT, "array of 9223372036854775808 elements",
      .key = RAW("k"), .value_type = 9, .value = RAW("\0\0\0\0\0\0\0\0\0\0\0\x80") },
    { "an array of 2^61 u64, whose bytes wrap to 0", DP_E_FORMAT,
      "array of 2305843009213693952 elements", .key = RAW("k"), .value_type = 9,
      .value = RAW("\x0a\0\0\0\0\0\0\0\0\0\0\x20") },
    { "an array of texts longer than the file", DP_E_FORMAT, "array of 1000 elements",
      .key = RAW("k"), .value_type = 9, .value = RAW("\x08\0\0\0\xe8\3\0\0\0\0\0\0") },
    { "an array of an unknown type", DP_E_FORMAT, "array element type 99", .key = RAW("k"),
      .value_type = 9, .value = RAW("\x63\0\0\0\0\0\0\0\0\0\0\0") },
    { "an array of u64 beyond i64", DP_E_LIMIT, "array element 0 is 18446744073709551615",
      .key = RAW("k"), .value_type = 9,
      .value = RAW("\x0a\0\0\0\1\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff") },
    { "alignment 0", DP_E_FORMAT, "general.alignment: is 0", .key = RAW("general.alignment"),
      .value_type = 4, .value = RAW("\0\0\0\0") },
    { "alignment 48", DP_E_FORMAT, "is 48, must be a power of two", .key = RAW("general.alignment"),
      .value_type = 4, .value = RAW("\x30\0\0\0") },
    { "alignment 2 MiB", DP_E_FORMAT, "is 2097152, must be", .key = RAW("general.alignment"),
      .value_type = 4, .value = RAW("\0\0\x20\0") },
    { "alignment that is a text", DP_E_FORMAT, "is no unsigned integer",
      .key = RAW("general.alignment"), .value_type = 8, .value = RAW("\0\0\0\0\0\0\0\0") },
    { "an offset that alignment 512 forbids", DP_E_FORMAT,
      "256 is no multiple of the alignment 512", .key = RAW("general.alignment"), .value_type = 4,
      .value = RAW("\0\2\0\0") },
    /* tensors */
    { "a name twice", DP_E_FORMAT, "duplicate tensor a", .name = RAW("a") },
    { "an empty name", DP_E_FORMAT, "tensor name \"\" of 0 bytes", .name = RAW("") },
    { "a name with a zero byte", DP_E_FORMAT, "none of them 0", .name = RAW("x\0") },
    { "a name of 63 bytes", DP_OK, "",
      .name = RAW("012345678901234567890123456789012345678901234567890123456789012") },
    { "a name of 64 bytes", DP_E_FORMAT, "name of 64 bytes, the limit is 63",
      .name = RAW("0123456789012345678901234567890123456789012345678901234567890123") },
    { "5 dimensions", DP_E_FORMAT, "(b): 5 dimensions, must be 1 to 4", .n_dims = 5,
      .ne = { 1, 1, 1, 1, 32 } },
    { "2^32 - 1 dimensions", DP_E_FORMAT, "4294967295 dimensions", .n_dims = UINT32_MAX },
    { "a dimension of 0", DP_E_FORMAT, "dimension 1 is 0", .n_dims = 2, .ne = { 32, 0 } },
    { "2^32 x 2^32 elements, which wrap to 0", DP_E_FORMAT, "more elements than 64 bits count",
      .n_dims = 2, .ne = { (uint64_t)1 << 32, (uint64_t)1 << 32 } },
    { "2^31 x 2^31 x 4 elements, which wrap to 0", DP_E_FORMAT, "more elements than 64 bits",
      .n_dims = 3, .ne = { (uint64_t)1 << 31, (uint64_t)1 << 31, 4 } },
    { "2^62 elements, whose bytes wrap to 0", DP_E_FORMAT, "more bytes than 64 bits count",
      .n_dims = 1, .ne = { (uint64_t)1 << 62 } },
    { "-1 elements", DP_E_FORMAT, "tensor b", .n_dims = 1, .ne = { UINT64_MAX } },
    { "Q4_0 rows of 31", DP_E_FORMAT, "rows of 31 elements, Q4_0 needs a multiple of 32",
      .n_dims = 1, .ne = { 31 }, .type = 1002 },
    { "Q4_0 rows of 16, though 2 make a block", DP_E_FORMAT, "rows of 16 elements", .n_dims = 2,
      .ne = { 16, 2 }, .type = 1002 },
    { "a removed type", DP_E_FORMAT, "type number 4 does not exist or was removed", .type = 1004 },
    { "another removed type", DP_E_FORMAT, "type number 36", .type = 1036 },
    { "a type of later versions", DP_E_UNSUPPORTED, "(b): type IQ2_XS (number 17)", .type = 1017 },
    { "an unknown type", DP_E_FORMAT, "type number 43 does not", .type = 1043 },
    { "a negative type", DP_E_FORMAT, "type number 4294967295", .type = 999 },
    { "an offset that is not aligned", DP_E_FORMAT, "offset 260 is no multiple", .offset = 260 },
    { "an offset past the end", DP_E_FORMAT, "tensor b: 128 bytes at", .offset = 288 },
    { "an offset that wraps", DP_E_FORMAT, "tensor b", .offset = UINT64_MAX - 31 },
    { "an overlap", DP_E_FORMAT, "tensors a and b overlap", .offset = 224 },
    { "a gap, which is allowed", DP_OK, "", .offset = 288, .data = 32 },
    { "bytes behind the last tensor", DP_OK, "", .data = 1000 },
};

static void hostile_gguf_is_refused(test *t) {
    buf b;
    buf_init(&b, 1 << 20);
    for (size_t i = 0; i < ARRAY_LEN(gguf_cases); i++) {
        const gguf_case *c = &gguf_cases[i];
        dp_error err = { 0 };
        test_row(t, "%s", c->what);
        buf_reset(&b);
        write_gguf(&b, c);
        const char *path = test_write(t, "x.gguf", b.data, b.size);
        container *model = container_open(path, false, &err);
        CHECK(t, (model != NULL) == (c->status == DP_OK));
        if (c->status != DP_OK) CHECK(t, str_starts(str_of(err.message), path));
        CHECK_ERROR(t, &err, c->status, c->part);
        container_close(model);
    }
    buf_free(&b);
}

/* Whatever is cut off, the file is refused: no prefix of it is a model. */
static void every_prefix_of_a_gguf_is_refused(test *t) {
    buf b;
    buf_init(&b, 1 << 20);
    write_gguf(&b, &gguf_cases[0]);
    for (size_t n = 0; n < b.size; n++) {
        dp_error err = { 0 };
        container *c = container_open(test_write(t, "x.gguf", b.data, n), true, &err);
        if (!CHECK_MSG(t, c == NULL && err.status == DP_E_FORMAT, "%zu bytes", n)) n = b.size;
        container_close(c);
    }
    buf_free(&b);
}

/* More metadata than the first read takes, so that parsing starts again with more. */
static void long_gguf_metadata_is_read_in_steps(test *t) {
    enum { N = 100000 };
    buf b;
    buf_init(&b, 1 << 26);
    buf_add(&b, "GGUF", 4);
    put(&b, 3, 4), put(&b, 0, 8), put(&b, 4, 8);
    put_text(&b, STR("texts"));
    put(&b, 9, 4), put(&b, 8, 4), put(&b, N, 8);
    for (uint32_t i = 0; i < N; i++) {
        char text[32];
        const int n = snprintf(text, sizeof(text), "token %u", i);
        put_text(&b, (str){ text, (size_t)n });
    }
    put_text(&b, STR("floats"));
    put(&b, 9, 4), put(&b, 6, 4), put(&b, N, 8);
    for (uint32_t i = 0; i < N; i++) put(&b, bits_of((float)i / 2), 4);
    put_text(&b, STR("ints"));
    put(&b, 9, 4), put(&b, 3, 4), put(&b, N, 8); /* i16 */
    for (uint32_t i = 0; i < N; i++) put(&b, (uint64_t)0 - i % 100, 2);
    put_text(&b, STR("last"));
    put(&b, 11, 4), put(&b, (uint64_t)0 - 5, 8);
    container *c = container_open(test_write(t, "x.gguf", b.data, b.size), true, &t->err);
    buf_free(&b);
    if (!CHECK(t, c != NULL)) return;
    const meta_value *texts = container_meta(c, "texts"), *floats = container_meta(c, "floats");
    const meta_value *ints = container_meta(c, "ints"), *last = container_meta(c, "last");
    CHECK(t, texts->type == META_ARRAY && texts->element == META_STRING && texts->n == N);
    CHECK(t, str_is(texts->strings[0], "token 0") && str_is(texts->strings[N - 1], "token 99999"));
    CHECK(t, floats->element == META_FLOAT && floats->floats[N - 1] == (N - 1) / 2.0);
    CHECK(t, ints->element == META_INT && ints->ints[N - 1] == -99 && ints->ints[0] == 0);
    CHECK(t, last->type == META_INT && last->i == -5 && container_meta(c, "absent") == NULL);
    str key;
    CHECK(t, container_n_meta(c) == 4 && container_meta_at(c, 3, &key) == last);
    CHECK_STR(t, key, "last");
    CHECK(t, container_meta_at(c, 4, &key) == NULL && container_n_tensors(c) == 0);
    container_close(c);
    dp_error err = { 0 };
    const char *path = test_printf(t, "%s/x.gguf", test_folder(t));
    CHECK(t, container_open(path, false, &err) == NULL);
    CHECK_ERROR(t, &err, DP_E_FORMAT, "x.gguf: holds no tensors");
}

/* ---- GGUF vectors -------------------------------------------------------------------------- */

static container *open_vector(test *t, const char *name) {
    container *c = container_open(test_vector(t, name), false, &t->err);
    CHECK_MSG(t, c != NULL, "%s does not open", name);
    return c;
}

/* A tensor's bytes; data is NULL if it is not there. */
static str tensor_bytes(test *t, container *c, const char *name) {
    const tensor *w = container_find(c, name);
    if (!CHECK_MSG(t, w != NULL, "no tensor %s", name)) return (str){ 0 };
    char *bytes = test_alloc(t, w->n_bytes, 1);
    CHECK(t, container_read(c, w, 0, bytes, w->n_bytes, &t->err));
    return (str){ bytes, w->n_bytes };
}

/* The same model as one file and in three; and its embedding as a safetensors folder has it. */
static void split_and_whole_models_are_equal(test *t) {
    container *whole = open_vector(t, "gguf/llama3-gqa-bf16/model.gguf");
    container *split = open_vector(t, "gguf/llama3-gqa-split/model-00001-of-00003.gguf");
    container *folder = open_vector(t, "models/llama3-gqa");
    if (whole != NULL && split != NULL && folder != NULL) {
        CHECK_U64(t, container_n_files(split), 3);
        CHECK_U64(t, container_n_tensors(split), container_n_tensors(whole));
        CHECK_U64(t, container_bytes(split), container_bytes(whole));
        uint64_t bytes = 0;
        for (uint32_t i = 0; i < container_n_tensors(whole); i++) {
            const tensor *w = container_tensor(whole, i);
            const char *name = test_printf(t, "%.*s", STR_ARG(w->name));
            const tensor *s = container_find(split, name);
            bytes += w->n_bytes;
            CHECK(t, s != NULL && s->type == w->type && s->n_dims == w->n_dims &&
                         memcmp(s->shape, w->shape, sizeof(w->shape)) == 0);
            CHECK(t, str_equal(tensor_bytes(t, whole, name), tensor_bytes(t, split, name)));
        }
        CHECK_U64(t, container_bytes(whole), bytes);
        CHECK(t, container_tensor(whole, container_n_tensors(whole)) == NULL);
        const tensor *w = container_find(whole, "token_embd.weight");
        const tensor *hf = container_find(folder, "model.embed_tokens.weight");
        const json_value *config = container_json(folder, "config.json", &t->err);
        uint64_t vocab = 0, dim = 0;
        CHECK(t, json_u64(json_get(config, "vocab_size"), &vocab) &&
                     json_u64(json_get(config, "hidden_size"), &dim));
        CHECK(t, w->type == DTYPE_BF16 && hf->type == DTYPE_BF16 && w->n_dims == 2 &&
                     w->shape[0] == vocab && w->shape[1] == dim && w->n_elements == vocab * dim &&
                     memcmp(w->shape, hf->shape, sizeof(w->shape)) == 0);
        CHECK(t, str_equal(tensor_bytes(t, whole, "token_embd.weight"),
                           tensor_bytes(t, folder, "model.embed_tokens.weight")));
        CHECK_STR(t, container_meta(split, "general.architecture")->s, "llama");
        CHECK(t, container_kind_of(split) == CONTAINER_GGUF &&
                     container_kind_of(folder) == CONTAINER_SAFETENSORS);
        CHECK(t, container_json(split, "config.json", &t->err) == NULL);
    }
    container_close(whole);
    container_close(split);
    container_close(folder);
}

static void all_gguf_vectors_open(test *t) {
    static const struct {
        const char *name;
        dtype type; /* of blk.0.ffn_down.weight */
    } cases[] = {
        { "q4_0", DTYPE_Q4_0 }, { "q4_1", DTYPE_Q4_1 }, { "q5_0", DTYPE_Q5_0 },
        { "q5_1", DTYPE_Q5_1 }, { "q8_0", DTYPE_Q8_0 }, { "q4_k", DTYPE_Q4_K },
        { "q5_k", DTYPE_Q5_K }, { "q6_k", DTYPE_Q6_K }, { "q2_k", DTYPE_Q2_K },
        { "q3_k", DTYPE_Q3_K }, { "iq4_nl", DTYPE_IQ4_NL }, { "iq4_xs", DTYPE_IQ4_XS },
        { "mxfp4", DTYPE_MXFP4 }, { "smollm2-heads-f16", DTYPE_F16 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        test_row(t, "%s", cases[i].name);
        container *c = open_vector(t, test_printf(t, "gguf/%s/model.gguf", cases[i].name));
        if (c == NULL) continue;
        const tensor *w = container_find(c, "blk.0.ffn_down.weight");
        CHECK(t, w != NULL && w->type == cases[i].type);
        container_close(c);
    }
}

static void tensor_reads_stay_inside(test *t) {
    container *c = open_vector(t, "gguf/q8_0/model.gguf");
    if (c == NULL) return;
    const tensor *w = container_find(c, "token_embd.weight");
    const str all = tensor_bytes(t, c, "token_embd.weight");
    char part[100];
    CHECK(t, container_read(c, w, 50, part, 100, &t->err) && !memcmp(part, all.data + 50, 100));
    CHECK(t, container_read(c, w, w->n_bytes, part, 0, &t->err));
    dp_error err = { 0 };
    CHECK(t, !container_read(c, w, w->n_bytes - 99, part, 100, &err));
    CHECK_ERROR(t, &err, DP_E_ARGUMENT, "tensor token_embd.weight: 100 bytes at");
    CHECK(t, !container_read(c, w, UINT64_MAX, part, 2, &err));
    CHECK_ERROR(t, &err, DP_E_ARGUMENT, "tensor token_embd.weight");
    CHECK(t, container_find(c, "absent") == NULL && container_find(c, "") == NULL);
    container_close(c);
    /* A file that shrinks after opening: the read says where it ends. */
    const str bytes = test_read_file(t, test_vector(t, "gguf/q8_0/model.gguf"));
    const char *path = test_write(t, "shrinks.gguf", bytes.data, bytes.size);
    c = container_open(path, false, &t->err);
    if (!CHECK(t, c != NULL)) return;
    w = container_tensor(c, container_n_tensors(c) - 1);
    CHECK(t, truncate(path, (off_t)(w->offset + 1)) == 0);
    CHECK(t, !container_read(c, w, 0, part, 2, &err));
    const unsigned long long end = w->offset + 1;
    CHECK_ERROR(t, &err, DP_E_FILE, test_printf(t, "ends at %llu, was", end));
    container_close(c);
}

/* Copies part i of the split model into the case's folder under `name`. */
static const char *copy_part(test *t, int i, const char *name) {
    const char *from = test_printf(t, "gguf/llama3-gqa-split/model-0000%d-of-00003.gguf", i);
    const str bytes = test_read_file(t, test_vector(t, from));
    return test_write(t, name, bytes.data, bytes.size);
}

static void broken_split_models_are_refused(test *t) {
    dp_error err = { 0 };
    const char *first = copy_part(t, 1, "m-00001-of-00003.gguf");
    const char *second = copy_part(t, 2, "m-00002-of-00003.gguf");
    CHECK(t, container_open(first, false, &err) == NULL);
    CHECK_ERROR(t, &err, DP_E_FILE, "m-00003-of-00003.gguf: cannot be opened");
    container *vocabulary = container_open(first, true, &t->err); /* the weights may be missing */
    CHECK(t, vocabulary != NULL && container_n_tensors(vocabulary) == 0 &&
                 container_find(vocabulary, "token_embd.weight") == NULL &&
                 container_meta(vocabulary, "general.architecture") != NULL);
    container_close(vocabulary);
    CHECK(t, container_open(second, false, &err) == NULL);
    CHECK_ERROR(t, &err, DP_E_ARGUMENT, "is part 2 of 3: open the first one, -00001-of-00003.gguf");
    copy_part(t, 2, "m-00003-of-00003.gguf");
    CHECK(t, container_open(first, false, &err) == NULL); /* its tensors come twice, seen first */
    CHECK_ERROR(t, &err, DP_E_FORMAT, "duplicate tensor");
    copy_part(t, 3, "m-00002-of-00003.gguf");
    CHECK(t, container_open(first, false, &err) == NULL);
    CHECK_ERROR(t, &err, DP_E_FORMAT, "says that it is part 3 of 3, expected 2 of 3");
    CHECK(t, container_open(copy_part(t, 1, "renamed.gguf"), false, &err) == NULL);
    CHECK_ERROR(t, &err, DP_E_FORMAT, "its name must end in -00001-of-00003.gguf");
    copy_part(t, 2, "m-00002-of-00003.gguf");
    copy_part(t, 3, "m-00003-of-00003.gguf");
    container *c = container_open(first, false, &t->err);
    CHECK(t, c != NULL);
    container_close(c);
    unlink(test_printf(t, "%s/renamed.gguf", test_folder(t)));
    c = container_open(test_folder(t), false, &t->err); /* one model in the folder */
    CHECK(t, c != NULL && container_n_files(c) == 3);
    container_close(c);
}

/* ---- safetensors --------------------------------------------------------------------------- */

typedef struct {
    const char *what;
    dp_status status;
    const char *part;
    const char *header;
    uint32_t data;    /* bytes behind it */
    uint64_t claimed; /* length of the header to claim; 0: the right one */
} safetensors_case;

#define F32_AT(begin, end) \
    "{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[" #begin "," #end "]}"

static const safetensors_case safetensors_cases[] = {
    { "as it should be", DP_OK, "",
      "{\"__metadata__\":{\"format\":\"pt\"},\"b\":" F32_AT(8, 16) ",\"a\":" F32_AT(0, 8) "}  ", 16,
      0 },
    { "an empty tensor and a scalar", DP_OK, "",
      "{\"e\":{\"dtype\":\"F16\",\"shape\":[0,4],\"data_offsets\":[0,0]},"
      "\"s\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]}}",
      8, 0 },
    { "a type that is stored but not computed with", DP_OK, "",
      "{\"q\":{\"dtype\":\"F8_E4M3\",\"shape\":[3],\"data_offsets\":[0,3]}}", 3, 0 },
    { "no tensors", DP_E_FORMAT, "holds no tensors", "{}", 0, 0 },
    { "a header longer than the file", DP_E_FORMAT, "header of 1000 bytes, the file has 2 left",
      "{}", 0, 1000 },
    { "a header of 2^64 - 1 bytes", DP_E_FORMAT, "header of 18446744073709551615 bytes", "{}", 0,
      UINT64_MAX },
    { "a header that ends in the middle", DP_E_FORMAT, "line 1, column", "{\"a\":1}", 0, 3 },
    { "a header that is no JSON", DP_E_FORMAT, "line 1, column 2", "{a}", 0, 0 },
    { "a tensor that is a number", DP_E_FORMAT, "tensor a: needs dtype", "{\"a\":1}", 0, 0 },
    { "a name twice", DP_E_FORMAT, "duplicate key \"a\"",
      "{\"a\":" F32_AT(0, 8) ",\"a\":" F32_AT(8, 16) "}", 16, 0 },
    { "an empty name", DP_E_FORMAT, "tensor name \"\"", "{\"\":" F32_AT(0, 8) "}", 8, 0 },
    { "a name with a zero", DP_E_FORMAT, "none of them 0", "{\"a\\u0000\":" F32_AT(0, 8) "}", 8,
      0 },
    { "an unknown type", DP_E_UNSUPPORTED, "tensor a: unknown dtype \"Q9\"",
      "{\"a\":{\"dtype\":\"Q9\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, 0 },
    { "no type", DP_E_FORMAT, "needs dtype", "{\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
      0 },
    { "5 dimensions", DP_E_UNSUPPORTED, "tensor a: 5 dimensions, the limit is 4",
      "{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,2],\"data_offsets\":[0,8]}}", 8, 0 },
    { "a negative dimension", DP_E_FORMAT, "shape[1] is no 64-bit count",
      "{\"a\":{\"dtype\":\"F32\",\"shape\":[2,-1],\"data_offsets\":[0,8]}}", 8, 0 },
    { "a dimension of 2^64", DP_E_FORMAT, "shape[0] is no 64-bit count",
      "{\"a\":{\"dtype\":\"F32\",\"shape\":[18446744073709551616],\"data_offsets\":[0,8]}}", 8, 0 },
    { "2^32 x 2^32 elements, which wrap to 0", DP_E_FORMAT, "more elements than 64 bits count",
      "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0,
      0 },
    { "2^62 elements, whose bytes wrap to 0", DP_E_FORMAT, "more bytes than 64 bits count",
      "{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]}}", 0, 0 },
    { "a size that its shape denies", DP_E_FORMAT, "span 12 bytes, shape and dtype say 8",
      "{\"a\":" F32_AT(0, 12) "}", 12, 0 },
    { "an end before the begin", DP_E_FORMAT, "begin <= end", "{\"a\":" F32_AT(8, 0) "}", 8, 0 },
    { "one offset", DP_E_FORMAT, "data_offsets must be two",
      "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8]}}", 8, 0 },
    { "offsets past the end", DP_E_FORMAT, "tensor a: 8 bytes at", "{\"a\":" F32_AT(8, 16) "}", 8,
      0 },
    { "an offset that wraps", DP_E_FORMAT, "beyond 64 bits",
      "{\"a\":" F32_AT(18446744073709551607, 18446744073709551615) "}", 8, 0 },
    { "an overlap", DP_E_FORMAT, "tensors a and b overlap",
      "{\"a\":" F32_AT(0, 8) ",\"b\":" F32_AT(4, 12) "}", 12, 0 },
    { "the same bytes twice", DP_E_FORMAT, "tensors a and b overlap",
      "{\"b\":" F32_AT(0, 8) ",\"a\":" F32_AT(0, 8) "}", 8, 0 },
    { "a hole", DP_E_FORMAT, "4 bytes before tensor b belong to no tensor",
      "{\"a\":" F32_AT(0, 8) ",\"b\":" F32_AT(12, 20) "}", 20, 0 },
    { "a hole in front", DP_E_FORMAT, "8 bytes before tensor a", "{\"a\":" F32_AT(8, 16) "}", 16,
      0 },
    { "bytes behind the last tensor", DP_E_FORMAT, "4 bytes at the end belong to no tensor",
      "{\"a\":" F32_AT(0, 8) "}", 12, 0 },
    { "a missing byte", DP_E_FORMAT, "tensor a: 8 bytes", "{\"a\":" F32_AT(0, 8) "}", 7, 0 },
};

static void write_safetensors(buf *b, const char *header, uint64_t claimed, uint32_t data) {
    put(b, claimed > 0 ? claimed : strlen(header), 8);
    buf_add_str(b, str_of(header));
    for (uint32_t i = 0; i < data; i++) put(b, i, 1);
}

static void hostile_safetensors_is_refused(test *t) {
    buf b;
    buf_init(&b, 1 << 20);
    test_write(t, "config.json", "{}", 2);
    for (size_t i = 0; i < ARRAY_LEN(safetensors_cases); i++) {
        const safetensors_case *c = &safetensors_cases[i];
        dp_error err = { 0 };
        test_row(t, "%s", c->what);
        buf_reset(&b);
        write_safetensors(&b, c->header, c->claimed, c->data);
        const char *path = test_write(t, "x.safetensors", b.data, b.size);
        container *model = container_open(path, false, &err);
        CHECK(t, (model != NULL) == (c->status == DP_OK));
        if (c->status != DP_OK) CHECK(t, str_starts(str_of(err.message), path));
        CHECK_ERROR(t, &err, c->status, c->part);
        container_close(model);
    }
    buf_reset(&b);
    write_safetensors(&b, safetensors_cases[0].header, 0, 16);
    container *c = container_open(test_write(t, "x.safetensors", b.data, b.size), false, &t->err);
    if (CHECK(t, c != NULL)) { /* in the order of their bytes, whatever the header's order */
        CHECK_STR(t, container_tensor(c, 0)->name, "a");
        CHECK(t, container_find(c, "b") == container_tensor(c, 1));
        char byte;
        CHECK(t, container_read(c, container_find(c, "b"), 7, &byte, 1, &t->err) && byte == 15);
    }
    container_close(c);
    for (size_t n = 0; n < b.size; n++) {
        dp_error err = { 0 };
        c = container_open(test_write(t, "x.safetensors", b.data, n), true, &err);
        if (!CHECK_MSG(t, c == NULL && err.status == DP_E_FORMAT, "%zu bytes", n)) n = b.size;
        container_close(c);
    }
    buf_free(&b);
}

/* A folder of an index and two shards, a in one, b and c in two; the index differs by row. */
static void hostile_index_is_refused(test *t) {
    static const struct {
        const char *what;
        dp_status status;
        const char *part, *index;
    } cases[] = {
        { "as it should be", DP_OK, "",
          "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\"}}" },
        { "a tensor that it does not list", DP_OK, "",
          "{\"metadata\":{},\"weight_map\":{\"a\":\"one.safetensors\"}}" },
        { "no weight_map", DP_E_FORMAT, "weight_map is no object", "{}" },
        { "an empty one", DP_E_FORMAT, "weight_map is no object with", "{\"weight_map\":{}}" },
        { "no JSON", DP_E_FORMAT, "index.json: line 1", "{" },
        { "a shard that is missing", DP_E_FILE, "three.safetensors: cannot be opened",
          "{\"weight_map\":{\"a\":\"three.safetensors\"}}" },
        { "a tensor in the wrong shard", DP_E_FORMAT, "tensor a is not in two.safetensors",
          "{\"weight_map\":{\"b\":\"two.safetensors\",\"a\":\"two.safetensors\"}}" },
        { "a tensor in another one than it says", DP_E_FORMAT, "tensor c is not in one.safetensors",
          "{\"weight_map\":{\"b\":\"two.safetensors\",\"c\":\"one.safetensors\"}}" },
        { "a tensor in none", DP_E_FORMAT, "tensor d is not in one.safetensors",
          "{\"weight_map\":{\"a\":\"one.safetensors\",\"d\":\"one.safetensors\"}}" },
        { "the same tensor in two shards", DP_E_FORMAT, "duplicate tensor a",
          "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"copy.safetensors\"}}" },
        { "a way out", DP_E_FORMAT, "\"../x\" is no name of a file",
          "{\"weight_map\":{\"a\":\"../x\"}}" },
        { "an absolute path", DP_E_FORMAT, "\"/etc/passwd\" is no name",
          "{\"weight_map\":{\"a\":\"/etc/passwd\"}}" },
        { "a hidden zero", DP_E_FORMAT, "is no name of a file",
          "{\"weight_map\":{\"a\":\"one.safetensors\\u0000\"}}" },
        { "an empty file name", DP_E_FORMAT, "\"\" is no name", "{\"weight_map\":{\"a\":\"\"}}" },
        { "a number", DP_E_FORMAT, "a: the file's name is no text", "{\"weight_map\":{\"a\":1}}" },
    };
    buf b;
    buf_init(&b, 1000);
    test_write(t, "config.json", "{}", 2);
    write_safetensors(&b, "{\"a\":" F32_AT(0, 8) "}", 0, 8);
    test_write(t, "one.safetensors", b.data, b.size);
    test_write(t, "copy.safetensors", b.data, b.size);
    buf_reset(&b);
    write_safetensors(&b, "{\"b\":" F32_AT(0, 8) ",\"c\":" F32_AT(8, 16) "}", 0, 16);
    test_write(t, "two.safetensors", b.data, b.size);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        dp_error err = { 0 };
        test_row(t, "%s", cases[i].what);
        test_write(t, "model.safetensors.index.json", cases[i].index, strlen(cases[i].index));
        container *c = container_open(test_folder(t), false, &err);
        CHECK(t, (c != NULL) == (cases[i].status == DP_OK));
        CHECK_ERROR(t, &err, cases[i].status, cases[i].part);
        container_close(c);
    }
    /* With the vocabulary alone in mind a missing shard is no fault. */
    static const char missing[] = "{\"weight_map\":{\"a\":\"three.safetensors\"}}";
    test_write(t, "model.safetensors.index.json", missing, strlen(missing));
    container *c = container_open(test_folder(t), true, &t->err);
    CHECK(t, c != NULL && container_n_tensors(c) == 0);
    container_close(c);
    buf_free(&b);
}

/* ---- what a path may be -------------------------------------------------------------------- */

static void paths_without_a_model_are_refused(test *t) {
    dp_error err = { 0 };
    const char *folder = test_folder(t);
    CHECK(t, container_open(test_printf(t, "%s/absent", folder), false, &err) == NULL);
    CHECK_ERROR(t, &err, DP_E_FILE, "absent: cannot be opened: No such file or directory");
    CHECK(t, container_open(test_write(t, "x", "", 0), false, &err) == NULL);
    CHECK_ERROR(t, &err, DP_E_FORMAT, "x: is empty");
    CHECK(t, container_open(test_write(t, "x", "hello", 5), false, &err) == NULL);
    CHECK_ERROR(t, &err, DP_E_FORMAT, "x: is neither GGUF nor safetensors");
    CHECK(t, container_open(folder, false, &err) == NULL);
    CHECK_ERROR(t, &err, DP_E_FILE, "holds neither config.json nor a .gguf file");
    CHECK(t, container_open("/dev/null", false, &err) == NULL);
    CHECK_ERROR(t, &err, DP_E_FILE, "is not a regular file");
    test_write(t, "config.json", "{}", 2);
    CHECK(t, container_open(folder, false, &err) == NULL);
    CHECK_ERROR(t, &err, DP_E_FILE, "has a config.json but neither model.safetensors nor");
    test_write(t, "model.safetensors", "", 0);
    CHECK(t, container_open(folder, false, &err) == NULL);
    CHECK_ERROR(t, &err, DP_E_FORMAT, "model.safetensors: is empty");
    test_write(t, "model.safetensors", "tiny", 4);
    CHECK(t, container_open(folder, false, &err) == NULL);
    CHECK_ERROR(t, &err, DP_E_FORMAT, "4 bytes are no safetensors file");
    unlink(test_printf(t, "%s/config.json", folder));
    CHECK(t, container_open(folder, false, &err) == NULL);
    CHECK_ERROR(t, &err, DP_E_FILE, "has weights but no config.json");
    char *deep = test_alloc(t, 301, 1);
    memset(deep, 'x', 300);
    CHECK(t, container_open(deep, false, &err) == NULL);
    CHECK_ERROR(t, &err, DP_E_FILE, "cannot be opened: File name too long");
}

static void folders_open_by_what_they_hold(test *t) {
    buf b;
    buf_init(&b, 10000);
    write_gguf(&b, &gguf_cases[0]);
    dp_error err = { 0 };
    const char *folder = test_folder(t);
    test_write(t, "one.gguf", b.data, b.size);
    container *c = container_open(folder, false, &t->err);
    CHECK(t, c != NULL && container_kind_of(c) == CONTAINER_GGUF);
    container_close(c);
    test_write(t, "two.gguf", b.data, b.size);
    CHECK(t, container_open(folder, false, &err) == NULL);
    CHECK_ERROR(t, &err, DP_E_FILE, "holds 2 GGUF models and no config.json: name one");
    /* A GGUF file under another name is still one. */
    c = container_open(test_write(t, "model.safetensors", b.data, b.size), false, &t->err);
    CHECK(t, c != NULL && container_kind_of(c) == CONTAINER_GGUF);
    container_close(c);
    /* A tokenizer alone will do where no weights are needed. */
    test_write(t, "tokenizer.json", "{\"version\":\"1.0\"}", 17);
    unlink(test_printf(t, "%s/model.safetensors", folder));
    c = container_open(folder, true, &t->err);
    CHECK(t, c != NULL && container_kind_of(c) == CONTAINER_SAFETENSORS &&
                 container_n_tensors(c) == 0);
    container_close(c);
    /* A .safetensors file without config.json beside it. */
    buf_reset(&b);
    write_safetensors(&b, safetensors_cases[0].header, 0, 16);
    const char *path = test_write(t, "model.safetensors", b.data, b.size);
    CHECK(t, container_open(path, false, &err) == NULL);
    CHECK_ERROR(t, &err, DP_E_FILE, "there is no config.json beside it");
    buf_free(&b);
}

static void json_files_open_at_first_use(test *t) {
    static const char config[] = "{\"model_type\":\"llama\"}";
    test_write(t, "config.json", config, strlen(config));
    test_write(t, "generation_config.json", "{", 1);
    test_write(t, "chat_template.jinja", "{{ x }}", 7);
    container *c = container_open(test_folder(t), true, &t->err);
    if (!CHECK(t, c != NULL)) return;
    const json_value *root = container_json(c, "config.json", &t->err);
    str type;
    CHECK(t, json_string(json_get(root, "model_type"), &type) && str_is(type, "llama"));
    CHECK(t, container_json(c, "tokenizer.json", &t->err) == NULL && t->err.status == DP_OK);
    dp_error err = { 0 };
    CHECK(t, container_json(c, "generation_config.json", &err) == NULL);
    CHECK_ERROR(t, &err, DP_E_FORMAT, "generation_config.json: line 1");
    CHECK(t, container_json(c, "config.json", &t->err) == root);
    buf text;
    buf_init(&text, 7);
    CHECK(t, container_text(c, "chat_template.jinja", &text, &t->err));
    CHECK_STR(t, ((str){ text.data, text.size }), "{{ x }}");
    CHECK(t, !container_text(c, "absent.jinja", &text, &t->err) && t->err.status == DP_OK);
    buf_free(&text);
    buf_init(&text, 6);
    CHECK(t, !container_text(c, "chat_template.jinja", &text, &err));
    CHECK_ERROR(t, &err, DP_E_LIMIT, "7 bytes, the limit is 6");
    container_close(c);
}

static const test_case cases[] = {
    { "halves convert exactly", halves_convert_exactly },
    { "halves and bf16 round to nearest even", halves_round_to_nearest_even },
    { "the table of types is consistent", type_table_is_consistent },
    { "decoding equals the vectors", decoding_equals_vectors },
    { "hostile GGUF files are refused", hostile_gguf_is_refused },
    { "every prefix of a GGUF file is refused", every_prefix_of_a_gguf_is_refused },
    { "long GGUF metadata is read in steps", long_gguf_metadata_is_read_in_steps },
    { "split and whole models are equal", split_and_whole_models_are_equal },
    { "all GGUF vectors open", all_gguf_vectors_open },
    { "tensor reads stay inside", tensor_reads_stay_inside },
    { "broken split models are refused", broken_split_models_are_refused },
    { "hostile safetensors files are refused", hostile_safetensors_is_refused },
    { "hostile shard indexes are refused", hostile_index_is_refused },
    { "paths without a model are refused", paths_without_a_model_are_refused },
    { "folders open by what they hold", folders_open_by_what_they_hold },
    { "JSON files open at first use", json_files_open_at_first_use },
};

const test_group format_tests = { "format", cases, ARRAY_LEN(cases) };
