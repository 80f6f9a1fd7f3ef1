/* test_base: errors, memory, text, UTF-8, JSON, files and the hash table. */
#include "tests/test.h"

#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- errors and log ------------------------------------------------------------------------ */

static void first_error_wins(test *t) {
    dp_error err = { 0 };
    CHECK(t, !err_set(&err, DP_E_FILE, "first %d", 1));
    CHECK(t, !err_set(&err, DP_E_LIMIT, "second"));
    CHECK(t, !err_prefix(&err, "%s: ", "path"));
    CHECK(t, strcmp(err.message, "path: first 1") == 0);
    CHECK_ERROR(t, &err, DP_E_FILE, "first 1");
    CHECK(t, !err_prefix(&err, "nothing failed: "));
    CHECK(t, err.status == DP_OK && err.message[0] == '\0');
    CHECK(t, !err_set(NULL, DP_E_FILE, "nobody listens") && !err_prefix(NULL, "x"));
    CHECK_STR(t, str_of(dp_status_name(DP_E_CANCELLED)), "cancelled");
    CHECK_STR(t, str_of(dp_status_name((dp_status)99)), "unknown");
}

static void messages_are_one_printable_line(test *t) {
    dp_error err = { 0 };
    err_set(&err, DP_E_FORMAT, "a\nb\x1b[31mc\td");
    CHECK_STR(t, str_of(err.message), "a b [31mc d");
    err = (dp_error){ 0 };
    char text[2000]; /* two-byte characters: the cut would fall inside of one at an odd place */
    for (size_t i = 0; i + 2 < sizeof(text); i += 2) memcpy(text + i, "\xc3\xa9", 3);
    err_set(&err, DP_E_FORMAT, "%s", text);
    const str cut = str_of(err.message);
    CHECK(t, cut.size < sizeof(err.message) && str_ends(cut, "\xc3\xa9..."));
    err_prefix(&err, "x%s", text);
    const str again = str_of(err.message);
    CHECK(t, again.size < sizeof(err.message) && str_ends(again, "\xc3\xa9..."));
    for (size_t i = 0; i < again.size;) {
        const size_t n = utf8_next((str){ again.data + i, again.size - i }, NULL);
        if (!CHECK(t, n > 0)) return;
        i += n;
    }
}

static void keep_line(void *user, dp_log_level level, const char *line) {
    snprintf(user, 100, "%d %s", (int)level, line);
}

static void log_reaches_its_sink(test *t) {
    char got[100] = "";
    const log_sink sink = { keep_line, got };
    log_line(&sink, DP_LOG_INFO, "%s\n%d", "two", 2);
    CHECK_STR(t, str_of(got), "1 two 2");
    log_line(NULL, DP_LOG_INFO, "nowhere");
    log_line(&(log_sink){ 0 }, DP_LOG_INFO, "nowhere");
}

/* ---- memory -------------------------------------------------------------------------------- */

static void allocation_is_zeroed_and_checked(test *t) {
    unsigned char *bytes = mem_new(1000, 3, "bytes", &t->err);
    if (!CHECK(t, bytes != NULL)) return;
    size_t zeros = 0;
    for (size_t i = 0; i < 3000; i++) zeros += bytes[i] == 0;
    CHECK_U64(t, zeros, 3000);
    memset(bytes, 7, 3000);
    bytes = mem_resize(bytes, 5000, 1, "bytes", &t->err);
    CHECK(t, bytes != NULL && bytes[2999] == 7);
    mem_free(bytes);
    void *nothing = mem_new(0, 8, "nothing", &t->err);
    CHECK(t, nothing != NULL);
    mem_free(nothing);
    dp_error err = { 0 };
    CHECK(t, mem_new(SIZE_MAX / 2, 4, "too much", &err) == NULL);
    CHECK_ERROR(t, &err, DP_E_MEMORY, "times 4 bytes for too much");
    CHECK(t, mem_new(SIZE_MAX / 2 + 2, 1, "too much", &err) == NULL);
    CHECK_ERROR(t, &err, DP_E_MEMORY, "too much");
}

static void failing_allocations_start_where_asked(test *t) {
    dp_error err = { 0 };
    const uint64_t before = mem_count();
    mem_fail_from(2);
    void *first = mem_new(1, 1, "x", NULL), *second = mem_new(1, 1, "x", &err);
    void *third = mem_new(1, 1, "x", NULL);
    mem_fail_from(0);
    void *fourth = mem_new(1, 1, "x", NULL);
    CHECK(t, first != NULL && second == NULL && third == NULL && fourth != NULL);
    CHECK_U64(t, mem_count() - before, 4);
    CHECK_ERROR(t, &err, DP_E_MEMORY, "out of memory: 1 bytes for x");
    mem_free(first);
    mem_free(fourth);
}

static void arena_pieces_are_apart_and_aligned(test *t) {
    enum { PIECES = 3000 };
    arena a = { 0 };
    unsigned char *pieces[PIECES];
    size_t sizes[PIECES];
    for (size_t i = 0; i < PIECES; i++) {
        /* Mostly small ones, some larger than a block, which get one of their own. */
        sizes[i] = (size_t)test_below(t, i % 500 == 0 ? 3000000 : 300);
        pieces[i] = arena_new(&a, sizes[i], 1, "pieces", &t->err);
        if (!CHECK(t, pieces[i] != NULL && (uintptr_t)pieces[i] % 16 == 0)) break;
        size_t zeros = 0;
        for (size_t k = 0; k < sizes[i]; k++) zeros += pieces[i][k] == 0;
        if (!CHECK_U64(t, zeros, sizes[i])) break;
        memset(pieces[i], (int)(i % 251) + 1, sizes[i]);
    }
    size_t spoilt = 0;
    for (size_t i = 0; i < PIECES && t->n_failed == 0; i++) {
        for (size_t k = 0; k < sizes[i]; k++) spoilt += pieces[i][k] != i % 251 + 1;
    }
    CHECK_U64(t, spoilt, 0);
    const char *copy = arena_copy(&a, "ab\0c", 4, &t->err);
    CHECK(t, copy != NULL && memcmp(copy, "ab\0c", 5) == 0);
    CHECK(t, arena_new(&a, SIZE_MAX, 2, "x", NULL) == NULL);
    CHECK(t, arena_new(&a, PTRDIFF_MAX, 1, "x", NULL) == NULL);
    arena_free(&a);
    CHECK(t, a.first == NULL && a.total == 0);
}

/* ---- text ---------------------------------------------------------------------------------- */

static void numbers_are_read_whole_or_not_at_all(test *t) {
    static const struct {
        const char *text;
        bool u, i, f;
        uint64_t as_u;
        int64_t as_i;
        double as_f;
    } cases[] = {
        { "0", true, true, true, 0, 0, 0 },
        { "007", true, true, true, 7, 7, 7 },
        { "18446744073709551615", true, false, true, UINT64_MAX, 0, 0x1p64 },
        { "18446744073709551616", false, false, true, 0, 0, 0x1p64 },
        { "99999999999999999999", false, false, true, 0, 0, 1e20 },
        { "9223372036854775807", true, true, true, INT64_MAX, INT64_MAX, 0x1p63 },
        { "9223372036854775808", true, false, true, (uint64_t)INT64_MAX + 1, 0, 0x1p63 },
        { "-9223372036854775808", false, true, true, 0, INT64_MIN, -0x1p63 },
        { "-9223372036854775809", false, false, true, 0, 0, -0x1p63 },
        { "-0", false, true, true, 0, 0, 0 },
        { "1.5", false, false, true, 0, 0, 1.5 },
        { ".5", false, false, true, 0, 0, 0.5 },
        { "+2e-1", false, false, true, 0, 0, 0.2 },
        { "1e999", false, false, false, 0, 0, 0 },
        { "", false, false, false, 0, 0, 0 },
        { "-", false, false, false, 0, 0, 0 },
        { ".", false, false, false, 0, 0, 0 },
        { "1..2", false, false, false, 0, 0, 0 },
        { " 1", false, false, false, 0, 0, 0 },
        { "1 ", false, false, false, 0, 0, 0 },
        { "0x10", false, false, false, 0, 0, 0 },
        { "nan", false, false, false, 0, 0, 0 },
        { "inf", false, false, false, 0, 0, 0 },
        { "1e", false, false, false, 0, 0, 0 },
        { "--1", false, false, false, 0, 0, 0 },
    };
    for (size_t k = 0; k < ARRAY_LEN(cases); k++) {
        uint64_t u = 0;
        int64_t i = 0;
        double f = 0;
        test_row(t, "\"%s\"", cases[k].text);
        CHECK(t, str_to_u64(str_of(cases[k].text), &u) == cases[k].u && u == cases[k].as_u);
        CHECK(t, str_to_i64(str_of(cases[k].text), &i) == cases[k].i && i == cases[k].as_i);
        CHECK(t, str_to_f64(str_of(cases[k].text), &f) == cases[k].f && f == cases[k].as_f);
    }
    char *digits = test_alloc(t, 100000, 1); /* over any buffer for the conversion */
    memset(digits, '1', 100000);
    double f;
    CHECK(t, !str_to_f64((str){ digits, 100000 }, &f));
}

static void views_compare_by_bytes(test *t) {
    CHECK(t, str_equal(STR("a\0b"), (str){ "a\0b", 3 }) && !str_equal(STR("a\0b"), STR("a\0c")));
    CHECK(t, str_is(str_of(NULL), "") && !str_is(STR("a\0"), "a"));
    CHECK(t, str_starts(STR("abc"), "ab") && !str_starts(STR("a"), "ab"));
    CHECK(t, str_ends(STR("abc"), "bc") && !str_ends(STR("c"), "bc") && str_ends(STR(""), ""));
}

static void buffer_keeps_its_ceiling(test *t) {
    buf b;
    buf_init(&b, 10);
    buf_add(&b, "12345", 5);
    buf_printf(&b, "%d", 67890);
    CHECK(t, buf_ok(&b, "b", &t->err) && b.size == 10 && strcmp(b.data, "1234567890") == 0);
    buf_add(&b, "", 0);
    CHECK(t, buf_ok(&b, "b", &t->err));
    buf_add(&b, "x", 1);
    buf_reset(&b);
    buf_add_str(&b, STR("abc"));
    CHECK(t, buf_ok(&b, "b", &t->err) && strcmp(b.data, "abc") == 0);
    buf_printf(&b, "%s", "12345678");
    buf_add(&b, "x", 1); /* would fit, but the first failure sticks */
    dp_error err = { 0 };
    CHECK(t, !buf_ok(&b, "the text", &err) && b.size == 3);
    CHECK_ERROR(t, &err, DP_E_LIMIT, "the text is over the limit of 10 bytes");
    buf_free(&b);
    mem_fail_from(1);
    buf_add(&b, "x", 1);
    mem_fail_from(0);
    buf_add(&b, "x", 1);
    CHECK(t, !buf_ok(&b, "the text", &err) && b.data == NULL);
    CHECK_ERROR(t, &err, DP_E_MEMORY, "the text");
    buf_free(&b);
}

/* Against a check that decodes without a table: value from the bits, then RFC 3629's conditions. */
static size_t plain_utf8(const unsigned char *p, size_t n, uint32_t *code) {
    static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
    const size_t length = p[0] < 0x80       ? 1
                          : p[0] >> 5 == 6  ? 2
                          : p[0] >> 4 == 14 ? 3
                          : p[0] >> 3 == 30 ? 4
                                            : 0;
    if (length == 0 || length > n) return 0;
    uint32_t value = length == 1 ? p[0] : p[0] & ((1u << (7 - length)) - 1);
    for (size_t i = 1; i < length; i++) {
        if (p[i] >> 6 != 2) return 0;
        value = value << 6 | (p[i] & 63u);
    }
    if (value < least[length] || value > 0x10ffff || (value >= 0xd800 && value < 0xe000)) return 0;
    *code = value;
    return length;
}

static void utf8_accepts_what_rfc_3629_does(test *t) {
    for (uint32_t code = 0; code <= 0x10ffff; code++) {
        if (code == 0xd800) code = 0xe000;
        char bytes[4];
        uint32_t back = 0;
        const size_t n = utf8_put(bytes, code);
        if (!CHECK(t, utf8_next((str){ bytes, n }, &back) == n && back == code)) return;
        for (size_t cut = 1; cut < n; cut++) { /* its beginnings are incomplete, not invalid */
            if (!CHECK_U64(t, utf8_incomplete_tail((str){ bytes, cut }), cut)) return;
        }
        if (!CHECK_U64(t, utf8_incomplete_tail((str){ bytes, n }), 0)) return;
    }
    for (uint32_t i = 0; i < 3000000; i++) { /* random bytes, mostly ones that start something */
        const uint64_t r = test_random(t);
        unsigned char p[4] = { (unsigned char)(r | (i % 4 ? 0xc0 : 0)), (unsigned char)(r >> 8),
                               (unsigned char)(r >> 16 | 0x80), (unsigned char)(r >> 24 | 0x80) };
        uint32_t got = 0, want = 0;
        const size_t size = 1 + (size_t)(r >> 62);
        const size_t n = plain_utf8(p, size, &want);
        if (!CHECK(t, utf8_next((str){ (char *)p, size }, &got) == n && got == want)) return;
    }
    CHECK_U64(t, utf8_next(STR(""), NULL), 0);
    CHECK_U64(t, utf8_incomplete_tail(STR("")), 0);
    CHECK_U64(t, utf8_incomplete_tail(STR("\xed\xa0")), 0); /* a surrogate: never completed */
    CHECK_U64(t, utf8_incomplete_tail(STR("\x80\x80\x80")), 0);
}

/* ---- JSON ---------------------------------------------------------------------------------- */

static void json_refuses_with_a_place(test *t) {
    static const struct {
        const char *text;
        dp_status status;
        const char *part;
    } cases[] = {
        { "", DP_E_FORMAT, "empty" },
        { "{\"a\": 1,\n \"b\": }", DP_E_FORMAT, "line 2, column 7" },
        { "{\"a\":1}x", DP_E_FORMAT, "line 1, column 8" },
        { "[1,]", DP_E_FORMAT, "column 3" },
        { "[1] // c", DP_E_FORMAT, "column 5" },
        { "\"\xff\"", DP_E_FORMAT, "UTF-8" },
        { "\"\xed\xa0\x80\"", DP_E_FORMAT, "UTF-8" },
        { "\"\\ud800\"", DP_E_FORMAT, "column" },
        { "NaN", DP_E_FORMAT, "column 1" },
        { "[-Infinity]", DP_E_FORMAT, "column" },
        { "[1e999]", DP_E_FORMAT, "1e999 is beyond a double" },
        { "[01]", DP_E_FORMAT, "column" },
        { "{\"a\":1,\"b\":2,\"a\":3}", DP_E_FORMAT, "duplicate key \"a\"" },
        { "[{\"a\":{\"x\":1,\"\\u0078\":2}}]", DP_E_FORMAT, "duplicate key \"x\"" },
        { "\xef\xbb\xbf{}", DP_E_FORMAT, "byte order" },
    };
    dp_error err = { 0 };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        test_row(t, "%s", cases[i].text);
        json *doc = json_open(str_of(cases[i].text), "file.json", &err);
        CHECK(t, doc == NULL && str_starts(str_of(err.message), "file.json: "));
        CHECK_ERROR(t, &err, cases[i].status, cases[i].part);
    }
}

static void json_nesting_ends_at_its_limit(test *t) {
    char text[2 * JSON_DEPTH_MAX + 8];
    for (int depth = JSON_DEPTH_MAX - 1; depth <= JSON_DEPTH_MAX + 1; depth++) {
        const size_t n = (size_t)depth;
        for (size_t i = 0; i < n; i++) text[i] = '[', text[n + i] = ']';
        dp_error err = { 0 };
        json *doc = json_open((str){ text, 2 * n }, "deep", &err);
        CHECK(t, (doc != NULL) == (depth <= JSON_DEPTH_MAX));
        if (doc == NULL) CHECK_ERROR(t, &err, DP_E_LIMIT, "column 65: nested deeper than");
        json_close(doc);
    }
    char *quoted = test_alloc(t, 1, 1003); /* brackets inside a text do not nest */
    memset(quoted, '[', 1002);
    quoted[0] = quoted[1001] = '"';
    json *doc = json_open((str){ quoted, 1002 }, "text", &t->err);
    CHECK(t, doc != NULL);
    json_close(doc);
}

/* The shape of a vocabulary. One more member that equals an earlier one must be seen. */
static void json_sees_duplicates_among_many_keys(test *t) {
    buf b;
    buf_init(&b, 1 << 26);
    for (int with = 0; with < 2; with++) {
        buf_reset(&b);
        buf_add_str(&b, STR("{"));
        for (int i = 0; i < 200000; i++) buf_printf(&b, "\"token %d\":%d,", i, i);
        buf_printf(&b, "\"token %d\":1}", with ? 123456 : 200000);
        dp_error err = { 0 };
        json *doc = json_open((str){ b.data, b.size }, "vocab", &err);
        if (with) {
            CHECK(t, doc == NULL);
            CHECK_ERROR(t, &err, DP_E_FORMAT, "duplicate key \"token 123456\"");
        } else if (CHECK(t, doc != NULL)) {
            CHECK_U64(t, json_count(json_root(doc)), 200001);
        }
        json_close(doc);
    }
    buf_free(&b);
}

static void json_integers_are_exact_or_refused(test *t) {
    static const struct {
        const char *text;
        bool u, i;
        uint64_t as_u;
        int64_t as_i;
    } cases[] = {
        { "0", true, true, 0, 0 },
        { "18446744073709551615", true, false, UINT64_MAX, 0 },
        { "18446744073709551616", false, false, 0, 0 },
        { "-9223372036854775808", false, true, 0, INT64_MIN },
        { "-9223372036854775809", false, false, 0, 0 },
        { "9223372036854775808", true, false, (uint64_t)INT64_MAX + 1, 0 },
        { "8.0", true, true, 8, 8 },
        { "-3e0", false, true, 0, -3 },
        { "1.5", false, false, 0, 0 },
        { "18446744073709551616.0", false, false, 0, 0 },
        { "1e300", false, false, 0, 0 },
        { "\"1\"", false, false, 0, 0 },
        { "true", false, false, 0, 0 },
    };
    for (size_t k = 0; k < ARRAY_LEN(cases); k++) {
        uint64_t u = 0;
        int64_t i = 0;
        double f = 0;
        test_row(t, "%s", cases[k].text);
        json *doc = json_open(str_of(cases[k].text), "number", &t->err);
        const json_value *v = json_root(doc);
        CHECK(t, json_u64(v, &u) == cases[k].u && u == cases[k].as_u);
        CHECK(t, json_i64(v, &i) == cases[k].i && i == cases[k].as_i);
        CHECK(t, json_f64(v, &f) == json_is_number(v));
        if (json_is_number(v)) CHECK(t, f == strtod(cases[k].text, NULL));
        json_close(doc);
    }
}

static void json_values_are_reached_by_type(test *t) {
    static const char text[] = "{\"s\":\"a\\u0000b\",\"n\":null,\"t\":true,\"a\":[1,[2,3],4],"
                               "\"o\":{\"x\":{}}}";
    json *doc = json_open(str_of(text), "doc", &t->err);
    const json_value *root = json_root(doc), *array = json_get(root, "a");
    str s = { 0 };
    bool b = false;
    uint64_t u = 0;
    CHECK(t, json_is_object(root) && json_count(root) == 5 && json_is_array(array));
    CHECK(t, json_string(json_get(root, "s"), &s) && str_equal(s, STR("a\0b")));
    CHECK(t, json_is_null(json_get(root, "n")) && !json_is_null(json_get(root, "absent")));
    CHECK(t, json_bool(json_get(root, "t"), &b) && b && json_is_bool(json_get(root, "t")));
    CHECK(t, json_u64(json_at(array, 2), &u) && u == 4 && json_at(array, 3) == NULL);
    CHECK(t, json_get(json_get(json_get(root, "o"), "x"), "y") == NULL);
    CHECK(t, json_get(array, "a") == NULL && json_get(NULL, "a") == NULL);
    CHECK(t, json_at(root, 0) == NULL && json_count(NULL) == 0 && !json_string(NULL, &s));
    buf keys;
    buf_init(&keys, 100);
    for (json_iter it = json_each(root); json_next(&it);) buf_add_str(&keys, it.key);
    uint64_t sum = 0;
    for (json_iter it = json_each(array); json_next(&it);) sum += json_count(it.value) * 10 + 1;
    CHECK(t, buf_ok(&keys, "keys", &t->err) && strcmp(keys.data, "sntao") == 0);
    CHECK_U64(t, sum, 23);
    for (json_iter it = json_each(NULL); json_next(&it);) CHECK(t, !"an iteration over nothing");
    buf_free(&keys);
    json_close(doc);
}

static void json_writer_is_read_back(test *t) {
    buf b;
    buf_init(&b, 1000);
    json_add_string(&b, STR("a\"\\/\n\t\x01\x7f\xc3\xa9\xff\0z"));
    json *doc = json_open((str){ b.data, b.size }, "own", &t->err);
    str s = { 0 };
    CHECK(t, json_string(json_root(doc), &s) &&
                 str_equal(s, STR("a\"\\/\n\t\x01\x7f\xc3\xa9\xef\xbf\xbd\0z")));
    json_close(doc);
    static const struct {
        float x;
        const char *text;
    } cases[] = {
        { 0.1f, "0.1" },          { 1, "1" },          { -0.0f, "-0" },
        { 16777216, "16777216" }, { 1e-45f, "1e-45" }, { 3.4028235e38f, "3.4028235e+38" },
        { INFINITY, "null" },     { 10, "10" },        { 1e14f, "100000000376832" },
        { 2e15f, "2e+15" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        buf_reset(&b);
        json_add_f32(&b, cases[i].x);
        CHECK_STR(t, ((str){ b.data, b.size }), cases[i].text);
    }
    for (int i = 0; i < 20000; i++) { /* any bits that are a number */
        const uint64_t bits = test_random(t);
        double x, back;
        memcpy(&x, &bits, 8);
        if (!isfinite(x)) continue;
        buf_reset(&b);
        json_add_f64(&b, x);
        if (!CHECK(t, str_to_f64((str){ b.data, b.size }, &back) && back == x)) break;
        x = (double)((int64_t)bits >> 12); /* whole, of 15 and of 16 digits */
        buf_reset(&b);
        json_add_f64(&b, x);
        if (!CHECK(t, str_to_f64((str){ b.data, b.size }, &back) && back == x)) break;
    }
    buf_free(&b);
}

static void numbers_ignore_the_locale(test *t) {
    static const char *const names[] = { "de_DE.UTF-8", "fr_FR.UTF-8", "ps_AF.UTF-8" };
    size_t i = 0;
    while (i < ARRAY_LEN(names) && setlocale(LC_NUMERIC, names[i]) == NULL) i++;
    if (i == ARRAY_LEN(names)) SKIP(t, "no locale with a decimal comma");
    double x = 0;
    buf b;
    buf_init(&b, 100);
    json_add_f64(&b, 1.5);
    CHECK(t, str_to_f64(STR("1.5"), &x) && x == 1.5 && !str_to_f64(STR("1,5"), &x));
    CHECK_STR(t, ((str){ b.data, b.size }), "1.5");
    buf_free(&b);
    setlocale(LC_NUMERIC, "C");
}

/* ---- files --------------------------------------------------------------------------------- */

static void file_ranges_are_checked(test *t) {
    const char *path = test_write(t, "f", "0123456789", 10);
    file *f = file_open(path, &t->err);
    if (!CHECK(t, f != NULL)) return;
    char got[11] = "";
    CHECK(t, file_size(f) == 10 && strcmp(file_path(f), path) == 0);
    CHECK(t, file_read(f, 3, got, 4, &t->err) && memcmp(got, "3456", 4) == 0);
    CHECK(t, file_read(f, 10, got, 0, &t->err));
    dp_error err = { 0 };
    CHECK(t, !file_read(f, 8, got, 3, &err));
    CHECK_ERROR(t, &err, DP_E_FILE, "3 bytes at 8 reach past the end of the file at 10");
    CHECK(t, !file_read(f, UINT64_MAX, got, 2, &err));
    CHECK_ERROR(t, &err, DP_E_FILE, "past the end");
    if (truncate(path, 5) != 0) CHECK(t, !"truncate");
    CHECK(t, !file_read(f, 2, got, 8, &err));
    CHECK_ERROR(t, &err, DP_E_FILE, "ends at 5, was 10 bytes long when opened");
    file_close(f);
}

static void only_regular_files_open(test *t) {
    dp_error err = { 0 };
    CHECK(t, file_open(test_folder(t), &err) == NULL);
    CHECK_ERROR(t, &err, DP_E_FILE, "is a folder");
    CHECK(t, file_open("/dev/null", &err) == NULL);
    CHECK_ERROR(t, &err, DP_E_FILE, "not a regular file");
    const char *pipe_path = test_printf(t, "%s/pipe", test_folder(t));
    CHECK(t, mkfifo(pipe_path, 0600) == 0 && file_open(pipe_path, &err) == NULL); /* no waiting */
    CHECK_ERROR(t, &err, DP_E_FILE, "not a regular file");
    CHECK(t, file_open(test_printf(t, "%s/absent", test_folder(t)), &err) == NULL);
    CHECK_ERROR(t, &err, DP_E_FILE, "absent: cannot be opened: No such file");
    CHECK(t, path_is_folder(test_folder(t)) && !path_is_file(test_folder(t)));
    buf b;
    CHECK(t, !file_read_all(test_write(t, "f", "12345", 5), 4, &b, &err) && b.data == NULL);
    CHECK_ERROR(t, &err, DP_E_LIMIT, "5 bytes, the limit is 4");
    CHECK(t, file_read_all(test_write(t, "f", "", 0), 4, &b, &t->err) && b.size == 0);
    CHECK(t, b.data != NULL && b.data[0] == '\0');
    buf_free(&b);
}

static void atomic_write_is_all_or_nothing(test *t) {
    const char *path = test_write(t, "out", "old", 3);
    CHECK(t, file_write_atomic(path, "newer", 5, &t->err));
    CHECK_STR(t, test_read_file(t, path), "newer");
    dp_error err = { 0 };
    const char *folder = test_printf(t, "%s/sub", test_folder(t));
    CHECK(t, mkdir(folder, 0700) == 0 && !file_write_atomic(folder, "x", 1, &err));
    CHECK_ERROR(t, &err, DP_E_FILE, "sub: cannot be replaced");
    CHECK(t, !file_write_atomic(test_printf(t, "%s/no/file", test_folder(t)), "x", 1, &err));
    CHECK_ERROR(t, &err, DP_E_FILE, "cannot be made");
    buf names; /* nothing half-written is left beside them */
    buf_init(&names, 1000);
    CHECK(t, folder_list(test_folder(t), ".part", &names, &t->err) && names.size == 0);
    CHECK(t, folder_list(test_folder(t), "out", &names, &t->err) && names.size == 4);
    buf_free(&names);
    char joined[12];
    CHECK(t, path_join(joined, sizeof(joined), "a/", "b", &t->err) && strcmp(joined, "a/b") == 0);
    CHECK(t, path_join(joined, sizeof(joined), "", "b", &t->err) && strcmp(joined, "b") == 0);
    CHECK(t, path_join(joined, sizeof(joined), "12345", "67890", &t->err));
    CHECK(t, !path_join(joined, sizeof(joined), "123456", "67890", &err));
    CHECK_ERROR(t, &err, DP_E_LIMIT, "longer than 11 bytes");
}

/* ---- hash table ---------------------------------------------------------------------------- */

/* Random keys from a small set, so that many are put twice, against a plain array. */
static void map_agrees_with_an_array(test *t) {
    enum { KEYS = 5000 };
    uint32_t *values = test_alloc(t, KEYS, sizeof(uint32_t)); /* 0: not put yet */
    map *m = map_new(0, &t->err);
    if (!CHECK(t, m != NULL)) return;
    size_t n = 0;
    for (uint32_t i = 1; i < 3 * KEYS; i++) {
        const uint32_t key = (uint32_t)test_below(t, KEYS);
        /* Keys of 1 to 16 bytes with zero bytes inside; equal beginnings. */
        const char text[16] = { 'k', (char)key, 0, (char)(key >> 8) };
        const str s = { text, 4 + key % 13 };
        uint32_t got = 0;
        bool added;
        CHECK(t, map_get(m, s, &got) == (values[key] != 0) && got == values[key]);
        CHECK(t, map_put(m, s, i, &added, &t->err) && added == (values[key] == 0));
        if (values[key] == 0) values[key] = i, n++;
        if (!CHECK(t, map_count(m) == n)) break;
    }
    CHECK(t, map_put(m, STR(""), 7, NULL, &t->err) && map_get(m, STR(""), NULL));
    CHECK(t, !map_get(m, STR("absent"), NULL));
    /* So many that two of them have the same 32 bits of hash (all but certainly: 10 such pairs). */
    for (uint32_t i = 0; i < 300000; i++) {
        const uint64_t key = (uint64_t)0xff << 56 | i; /* none of the above */
        bool added;
        CHECK(t, map_put(m, (str){ (const char *)&key, 8 }, i, &added, &t->err) && added);
    }
    map_free(m);
}

/* Values of CPython 3.11's hash() of bytes, which is SipHash-1-3, with PYTHONHASHSEED=0 (key 0). */
static void hash_is_siphash_1_3(test *t) {
    static const struct {
        const char *text;
        uint64_t hash;
    } cases[] = {
        { "a", 0x407448d2b89b1813 },
        { "abcdefg", 0x6db12aae9070f506 },
        { "abcdefgh", 0x3f7b849c0b8e35ea },
        { "abcdefghiabcdefghiabcdefghiabcdefghiabcdefghi", 0xadaf287e468fcf90 },
    };
    const uint64_t key[2] = { 0, 0 };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        CHECK_U64(t, hash_bytes(key, cases[i].text, strlen(cases[i].text)), cases[i].hash);
    }
}

static void hash_depends_on_every_bit(test *t) {
    const uint64_t key[2] = { 1, 2 };
    unsigned char text[24] = { 0 };
    for (size_t n = 0; n <= sizeof(text); n++) {
        const uint64_t base = hash_bytes(key, text, n);
        for (size_t bit = 0; bit < 8 * n; bit++) {
            text[bit / 8] ^= (unsigned char)(1 << bit % 8);
            CHECK(t, hash_bytes(key, text, n) != base);
            text[bit / 8] ^= (unsigned char)(1 << bit % 8);
        }
        if (n > 0) CHECK(t, hash_bytes(key, text, n - 1) != base);
        CHECK(t, hash_bytes((uint64_t[]){ 1, 3 }, text, n) != base);
        CHECK(t, hash_bytes((uint64_t[]){ 0, 2 }, text, n) != base);
    }
    uint64_t one[2], two[2];
    hash_key(one);
    hash_key(two);
    CHECK(t, one[0] != two[0] && one[1] != two[1]);
}

static const test_case cases[] = {
    { "the first error wins and is only prefixed", first_error_wins },
    { "messages are one printable line", messages_are_one_printable_line },
    { "the log reaches its sink", log_reaches_its_sink },
    { "memory is zeroed and its size checked", allocation_is_zeroed_and_checked },
    { "allocations fail from where a test asks", failing_allocations_start_where_asked },
    { "arena pieces are apart, aligned and zero", arena_pieces_are_apart_and_aligned },
    { "numbers are read whole or not at all", numbers_are_read_whole_or_not_at_all },
    { "views compare by bytes", views_compare_by_bytes },
    { "a buffer keeps its ceiling and its first failure", buffer_keeps_its_ceiling },
    { "UTF-8 is what RFC 3629 says", utf8_accepts_what_rfc_3629_does },
    { "JSON is refused with its place", json_refuses_with_a_place },
    { "JSON nesting ends at its limit", json_nesting_ends_at_its_limit },
    { "JSON duplicates are seen among many keys", json_sees_duplicates_among_many_keys },
    { "JSON integers are exact or refused", json_integers_are_exact_or_refused },
    { "JSON values are reached by type", json_values_are_reached_by_type },
    { "JSON that is written is read back", json_writer_is_read_back },
    { "numbers do not depend on the locale", numbers_ignore_the_locale },
    { "file ranges are checked", file_ranges_are_checked },
    { "only regular files open", only_regular_files_open },
    { "an atomic write is all or nothing", atomic_write_is_all_or_nothing },
    { "the map agrees with an array", map_agrees_with_an_array },
    { "the hash is SipHash-1-3", hash_is_siphash_1_3 },
    { "the hash depends on every bit", hash_depends_on_every_bit },
};

const test_group base_tests = { "base", cases, ARRAY_LEN(cases) };
