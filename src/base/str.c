/* str: text views, numbers in text, the growable buffer and UTF-8.
 *
 * A buffer's invariant: size < capacity and data[size] == '\0' once data is there, and
 * size <= ceiling. Numbers are read and written with a point whatever the program's locale says. */
#include "base/base.h"

#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    NUMBER_CHARS = 512, /* longer decimal texts are refused as numbers */
    BUF_FIRST = 64,     /* bytes of a buffer's first allocation */
};

str str_of(const char *s) {
    return s == NULL ? STR("") : (str){ s, strlen(s) };
}

bool str_equal(str a, str b) {
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

bool str_is(str a, const char *b) {
    return str_equal(a, str_of(b));
}

bool str_starts(str a, const char *prefix) {
    const size_t n = strlen(prefix);
    return a.size >= n && str_equal((str){ a.data, n }, (str){ prefix, n });
}

bool str_ends(str a, const char *suffix) {
    const size_t n = strlen(suffix);
    return a.size >= n && str_equal((str){ a.data + (a.size - n), n }, (str){ suffix, n });
}

bool str_to_u64(str s, uint64_t *out) {
    if (s.size == 0) return false;
    uint64_t value = 0;
    for (size_t i = 0; i < s.size; i++) {
        if (s.data[i] < '0' || s.data[i] > '9') return false;
        if (!mul_u64(value, 10, &value)) return false;
        if (!add_u64(value, (uint64_t)(s.data[i] - '0'), &value)) return false;
    }
    *out = value;
    return true;
}

bool str_to_i64(str s, int64_t *out) {
    const bool negative = s.size > 0 && s.data[0] == '-';
    uint64_t value;
    if (!str_to_u64((str){ s.data + negative, s.size - negative }, &value)) return false;
    if (value > (uint64_t)INT64_MAX + negative) return false;
    *out = negative ? (int64_t)(0 - value) : (int64_t)value;
    return true;
}

bool str_to_f64(str s, double *out) {
    char text[NUMBER_CHARS + 8]; /* room for a decimal point of several bytes */
    const struct lconv *locale = localeconv();
    const char *point = locale != NULL && locale->decimal_point[0] ? locale->decimal_point : ".";
    const size_t point_size = strlen(point);
    if (s.size == 0 || s.size > NUMBER_CHARS || point_size > 8) return false;
    size_t n = 0;
    bool seen = false, digits = false;
    for (size_t i = 0; i < s.size; i++) {
        const char c = s.data[i];
        if (c == '.') {
            if (seen) return false;
            seen = true;
            memcpy(text + n, point, point_size);
            n += point_size;
        } else {
            const bool digit = c >= '0' && c <= '9';
            /* Keeps out what strtod knows beyond decimals: hexadecimal, inf, nan, blanks. */
            if (!digit && c != 'e' && c != 'E' && c != '+' && c != '-') return false;
            digits |= digit;
            text[n++] = c;
        }
    }
    text[n] = '\0';
    char *end = NULL;
    const double value = strtod(text, &end);
    if (!digits || end != text + n || !isfinite(value)) return false;
    *out = value;
    return true;
}

/* ---- buffer -------------------------------------------------------------------------------- */

void buf_init(buf *b, size_t ceiling) {
    assert(ceiling < PTRDIFF_MAX);
    *b = (buf){ .ceiling = ceiling };
}

void buf_free(buf *b) {
    mem_free(b->data);
    buf_init(b, b->ceiling);
}

void buf_reset(buf *b) {
    b->size = 0;
    b->failed = DP_OK;
    if (b->data != NULL) b->data[0] = '\0';
}

/* Room for `more` bytes and the NUL; false and sticky if there is none. */
static bool grow_buf(buf *b, size_t more) {
    if (b->failed != DP_OK) return false;
    if (more > b->ceiling - b->size) {
        b->failed = DP_E_LIMIT;
        return false;
    }
    const size_t need = b->size + more + 1;
    if (need <= b->capacity) return true;
    size_t capacity = b->capacity < BUF_FIRST ? BUF_FIRST : b->capacity;
    while (capacity < need) capacity *= 2; /* below 2 * PTRDIFF_MAX */
    if (capacity > b->ceiling + 1) capacity = b->ceiling + 1;
    char *data = mem_resize(b->data, 1, capacity, "a buffer", NULL);
    if (data == NULL) {
        b->failed = DP_E_MEMORY;
        return false;
    }
    b->data = data;
    b->capacity = capacity;
    b->data[b->size] = '\0';
    return true;
}

void buf_add(buf *b, const void *bytes, size_t size) {
    if (!grow_buf(b, size)) return;
    if (size > 0) memcpy(b->data + b->size, bytes, size);
    b->size += size;
    b->data[b->size] = '\0';
}

void buf_add_str(buf *b, str s) {
    buf_add(b, s.data, s.size);
}

void buf_printf(buf *b, const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    const int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    assert(n >= 0);
    if (grow_buf(b, (size_t)n)) {
        vsnprintf(b->data + b->size, (size_t)n + 1, format, again);
        b->size += (size_t)n;
    }
    va_end(again);
}

bool buf_ok(const buf *b, const char *what, dp_error *err) {
    if (b->failed == DP_OK) return true;
    if (b->failed == DP_E_LIMIT) {
        return err_set(err, DP_E_LIMIT, "%s is over the limit of %zu bytes", what, b->ceiling);
    }
    return err_set(err, DP_E_MEMORY, "out of memory: more than %zu bytes for %s", b->capacity,
                   what);
}

/* ---- UTF-8 --------------------------------------------------------------------------------- */

/* Bytes that a first byte announces; 0 if it starts no character. */
static size_t utf8_length(unsigned char first) {
    if (first < 0x80) return 1;
    if (first < 0xc2) return 0; /* continuation, or the overlong c0 and c1 */
    if (first < 0xe0) return 2;
    if (first < 0xf0) return 3;
    return first < 0xf5 ? 4 : 0;
}

/* Whether `second` may follow `first`: keeps out overlong forms, surrogates and what lies over
 * U+10FFFF (the table of RFC 3629, section 4). */
static bool utf8_second(unsigned char first, unsigned char second) {
    const unsigned char low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    const unsigned char high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    return second >= low && second <= high;
}

size_t utf8_next(str s, uint32_t *code) {
    if (s.size == 0) return 0;
    const unsigned char *p = (const unsigned char *)s.data;
    const size_t n = utf8_length(p[0]);
    if (n == 0 || n > s.size || (n > 1 && !utf8_second(p[0], p[1]))) return 0;
    uint32_t value = n == 1 ? p[0] : p[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) return 0;
        value = value << 6 | (p[i] & 0x3f);
    }
    if (code != NULL) *code = value;
    return n;
}

size_t utf8_put(char out[4], uint32_t code) {
    assert(code <= 0x10ffff && (code < 0xd800 || code > 0xdfff));
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    const size_t n = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = n; i-- > 1; code >>= 6) out[i] = (char)(0x80 | (code & 0x3f));
    out[0] = (char)((0xf00u >> n & 0xff) | code);
    return n;
}

size_t utf8_incomplete_tail(str s) {
    const unsigned char *p = (const unsigned char *)s.data;
    for (size_t n = 1; n <= 3 && n <= s.size; n++) {
        const unsigned char first = p[s.size - n];
        if ((first & 0xc0) == 0x80) continue; /* a continuation: look further back */
        if (utf8_length(first) <= n) return 0;
        return n == 1 || utf8_second(first, p[s.size - n + 1]) ? n : 0;
    }
    return 0;
}
