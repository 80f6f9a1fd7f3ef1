/* jinja_text: texts with their marks, how they grow, and the text forms of everything else.
 *
 * A text that is cut out of another shares its bytes and marks. A growing text has a mark for each
 * byte; once finished it keeps them only if it is mixed. Numbers are written as Python's repr()
 * does: the fewest digits that read back the same. */
#include "text/jinja_internal.h"

#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- texts --------------------------------------------------------------------------------- */

static size_t count_points(const char *data, size_t size) {
    size_t n = 0;
    for (size_t i = 0; i < size; i++)
        n += ((unsigned char)data[i] & 0xC0) != 0x80;
    return n;
}

static const jtext empty_text = { .data = "" };

jvalue jinja_text(jinja *j, const char *data, size_t size, bool marked) {
    jvalue v = { .kind = V_TEXT, .text = &empty_text };
    jtext *t = size == 0 ? NULL : jinja_take(j, 1, sizeof(jtext));
    if (t == NULL) return v;
    jinja_charge_bytes(j, size);
    *t = (jtext){ .data = data, .size = size, .marked = marked };
    t->length = count_points(data, size);
    v.text = t;
    return v;
}

jvalue jinja_text_of(jinja *j, const char *s) {
    return jinja_text(j, s, strlen(s), false);
}

jvalue jinja_part(jinja *j, const jtext *t, size_t from, size_t to) {
    if (from == 0 && to == t->size) return (jvalue){ .kind = V_TEXT, .text = t };
    jvalue v = jinja_text(j, t->data + from, to - from, t->marked);
    if (v.text->size == 0 || t->marks == NULL) return v;
    jtext *part = jinja_take(j, 1, sizeof(jtext));
    if (part == NULL) return v;
    *part = *v.text;
    part->marks = t->marks + from;
    v.text = part;
    return v;
}

size_t jinja_byte_of(jinja *j, const jtext *t, size_t point) {
    if (t->length == t->size || point >= t->length) return point < t->length ? point : t->size;
    size_t i = 0;
    for (size_t n = 0;; i++) {
        if (((unsigned char)t->data[i] & 0xC0) != 0x80 && n++ == point) break;
    }
    jinja_charge_bytes(j, i);
    return i;
}

bool jinja_marked_at(const jtext *t, size_t byte) {
    return t->marks != NULL ? t->marks[byte] != 0 : t->marked;
}

/* Room for `more` bytes and as many marks; NULL if there is none. */
static char *grow_out(jinja *j, jout *out, size_t more) {
    if (j->failed) return NULL;
    if (more > j->memory_max || out->size > j->memory_max - more) {
        jinja_fail(j, DP_E_LIMIT, "a text over the limit of %zu bytes", j->memory_max);
        return NULL;
    }
    if (out->size + more > out->capacity) {
        size_t capacity = out->capacity < 64 ? 64 : 2 * out->capacity;
        while (capacity < out->size + more)
            capacity *= 2;
        char *data = jinja_take(j, 2, capacity);
        if (data == NULL) return NULL;
        uint8_t *marks = (uint8_t *)data + capacity;
        if (out->size > 0) {
            memcpy(data, out->data, out->size);
            memcpy(marks, out->marks, out->size);
        }
        out->data = data;
        out->marks = marks;
        out->capacity = capacity;
    }
    jinja_charge_bytes(j, more);
    out->size += more;
    return out->data + (out->size - more);
}

void jinja_put(jinja *j, jout *out, const char *data, size_t size, bool marked) {
    char *at = size == 0 ? NULL : grow_out(j, out, size);
    if (at == NULL) return;
    memcpy(at, data, size);
    memset(out->marks + (out->size - size), marked, size);
    if (marked) out->n_marked += size;
}

void jinja_put_str(jinja *j, jout *out, const char *s) {
    jinja_put(j, out, s, strlen(s), false);
}

void jinja_put_code(jinja *j, jout *out, uint32_t code, bool marked) {
    char utf8[4];
    jinja_put(j, out, utf8, utf8_put(utf8, code), marked);
}

void jinja_put_part(jinja *j, jout *out, const jtext *t, size_t from, size_t to) {
    jinja_put(j, out, t->data + from, to - from, t->marked);
    if (t->marks == NULL || from == to || j->failed || out->marks == NULL) return;
    uint8_t *marks = out->marks + (out->size - (to - from));
    memcpy(marks, t->marks + from, to - from);
    for (size_t i = 0; i < to - from; i++)
        out->n_marked += marks[i];
}

void jinja_put_text(jinja *j, jout *out, const jtext *t) {
    jinja_put_part(j, out, t, 0, t->size);
}

void jinja_put_int(jinja *j, jout *out, int64_t i, bool marked) {
    char text[32];
    const int n = snprintf(text, sizeof(text), "%lld", (long long)i);
    jinja_put(j, out, text, (size_t)n, marked);
}

jvalue jinja_finish(jinja *j, jout *out) {
    jvalue v = jinja_text(j, out->data, out->size, out->n_marked > 0);
    if (out->n_marked == 0 || out->n_marked == out->size || v.text->size == 0) return v;
    jtext *t = jinja_take(j, 1, sizeof(jtext));
    if (t == NULL) return v;
    *t = *v.text;
    t->marks = out->marks;
    t->marked = false;
    v.text = t;
    return v;
}

size_t jinja_print_real(char *out, size_t size, double f, int precision, char conversion,
                        bool alternate) {
    char format[8];
    snprintf(format, sizeof(format), alternate ? "%%#.*%c" : "%%.*%c", conversion);
    const struct lconv *locale = localeconv();
    const char *point = locale != NULL && locale->decimal_point[0] ? locale->decimal_point : ".";
    const int n = snprintf(out, size, format, precision, f);
    if (n < 0 || (size_t)n >= size) return 0;
    char *at = strstr(out, point);
    const size_t point_size = strlen(point);
    if (at == NULL) return (size_t)n;
    *at = '.';
    memmove(at + 1, at + point_size, strlen(at + point_size) + 1);
    return (size_t)n + 1 - point_size;
}

/* The fewest digits that read back as f: 0.DIGITS times ten to *point. */
static size_t shortest_digits(double f, char digits[24], int *point) {
    char text[40];
    size_t n = 0;
    for (int precision = 0; precision < 17; precision++) {
        /* Both ways go by the locale, so they agree. */
        snprintf(text, sizeof(text), "%.*e", precision, f);
        if (strtod(text, NULL) == f) break;
    }
    const char *e = strchr(text, 'e');
    for (const char *at = text; at < e; at++) {
        if (*at >= '0' && *at <= '9') digits[n++] = *at;
    }
    while (n > 1 && digits[n - 1] == '0')
        n--;
    *point = (int)strtol(e + 1, NULL, 10) + 1;
    return n;
}

void jinja_put_float(jinja *j, jout *out, double f, bool marked) {
    char digits[24] = "0", text[64];
    size_t n = 0;
    int point;
    jinja_charge(j, 50); /* up to 17 ways to print are tried */
    if (!isfinite(f)) {
        const char *name = isnan(f) ? "nan" : f < 0 ? "-inf" : "inf";
        jinja_put(j, out, name, strlen(name), marked);
        return;
    }
    if (signbit(f)) text[n++] = '-';
    const size_t n_digits = shortest_digits(fabs(f), digits, &point);
    if (point > 16 || point < -3) { /* d.ddde+XX */
        text[n++] = digits[0];
        if (n_digits > 1) {
            text[n++] = '.';
            memcpy(text + n, digits + 1, n_digits - 1);
            n += n_digits - 1;
        }
        n += (size_t)snprintf(text + n, sizeof(text) - n, "e%+03d", point - 1);
    } else if (point <= 0) {
        n += (size_t)snprintf(text + n, sizeof(text) - n, "0.%.*s%.*s", -point, "0000",
                              (int)n_digits, digits);
    } else if ((size_t)point < n_digits) {
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%.*s.%.*s", point, digits,
                              (int)n_digits - point, digits + point);
    } else {
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%.*s%.*s.0", (int)n_digits, digits,
                              point - (int)n_digits, "0000000000000000");
    }
    jinja_put(j, out, text, n, marked);
}

/* ---- str() and repr() ---------------------------------------------------------------------- */

static void put_quoted(jinja *j, jout *out, const jtext *t) {
    const bool single = memchr(t->data, '\'', t->size) != NULL;
    const char quote = single && memchr(t->data, '"', t->size) == NULL ? '"' : '\'';
    jinja_put(j, out, &quote, 1, false);
    for (size_t i = 0; i < t->size && !j->failed;) {
        uint32_t code = 0;
        const size_t n = utf8_next((str){ t->data + i, t->size - i }, &code);
        const bool marked = jinja_marked_at(t, i);
        const char *simple = code == '\n'   ? "\\n"
                             : code == '\r' ? "\\r"
                             : code == '\t' ? "\\t"
                                            : NULL;
        char text[16];
        if (simple != NULL) {
            jinja_put(j, out, simple, 2, marked);
        } else if (code == (unsigned char)quote || code == '\\') {
            jinja_put(j, out, "\\", 1, marked);
            jinja_put(j, out, t->data + i, 1, marked);
        } else if (!jinja_is_printable(code)) {
            const char *format = code < 0x100 ? "\\x%02x" : code < 0x10000 ? "\\u%04x" : "\\U%08x";
            snprintf(text, sizeof(text), format, (unsigned)code);
            jinja_put(j, out, text, strlen(text), marked);
        } else {
            jinja_put(j, out, t->data + i, n, marked);
        }
        i += n > 0 ? n : 1;
    }
    jinja_put(j, out, &quote, 1, false);
}

static void put_members(jinja *j, jout *out, const jdict *d) {
    jinja_put_str(j, out, "{");
    for (size_t i = 0; i < d->n && !j->failed; i++) {
        if (i > 0) jinja_put_str(j, out, ", ");
        jinja_put_repr(j, out, d->keys[i]);
        jinja_put_str(j, out, ": ");
        jinja_put_repr(j, out, d->values[i]);
    }
    jinja_put_str(j, out, "}");
}

static void put_elements(jinja *j, jout *out, const jlist *list, const char *open,
                         const char *close) {
    jinja_put_str(j, out, open);
    for (size_t i = 0; i < list->n && !j->failed; i++) {
        if (i > 0) jinja_put_str(j, out, ", ");
        jinja_put_repr(j, out, list->at[i]);
    }
    jinja_put_str(j, out, close);
}

static void put_range(jinja *j, jout *out, const jrange *r) {
    char text[96];
    const int n = r->step == 1
                      ? snprintf(text, sizeof(text), "range(%lld, %lld)", (long long)r->start,
                                 (long long)r->stop)
                      : snprintf(text, sizeof(text), "range(%lld, %lld, %lld)", (long long)r->start,
                                 (long long)r->stop, (long long)r->step);
    jinja_put(j, out, text, (size_t)n, false);
}

static void put_nested(jinja *j, jout *out, jvalue v) {
    if (!jinja_enter_value(j)) return;
    switch (v.kind) {
    case V_LIST:
        put_elements(j, out, v.list, "[", "]");
        break;
    case V_TUPLE:
        put_elements(j, out, v.list, "(", v.list->n == 1 ? ",)" : ")");
        break;
    case V_DICT:
        put_members(j, out, v.dict);
        break;
    case V_SPACE:
        jinja_put_str(j, out, "<Namespace ");
        put_members(j, out, v.space->dict);
        jinja_put_str(j, out, ">");
        break;
    default: /* V_VIEW */
        jinja_put_str(j, out, jinja_type(v));
        put_elements(j, out, jinja_to_list(j, v), "([", "])");
    }
    j->value_depth--;
}

void jinja_put_repr(jinja *j, jout *out, jvalue v) {
    if (v.kind == V_TEXT) {
        put_quoted(j, out, v.text);
    } else if (v.kind == V_UNDEFINED) {
        jinja_put_str(j, out, "Undefined");
    } else {
        jinja_put_value(j, out, v);
    }
}

void jinja_put_value(jinja *j, jout *out, jvalue v) {
    if (j->failed) return;
    switch ((jkind)v.kind) {
    case V_TEXT:
        jinja_put_text(j, out, v.text);
        break;
    case V_UNDEFINED:
        break;
    case V_NONE:
        jinja_put(j, out, "None", 4, v.marked);
        break;
    case V_BOOL:
        jinja_put(j, out, v.b ? "True" : "False", v.b ? 4 : 5, v.marked);
        break;
    case V_INT:
        jinja_put_int(j, out, v.i, v.marked);
        break;
    case V_FLOAT:
        jinja_put_float(j, out, v.f, v.marked);
        break;
    case V_LIST:
    case V_TUPLE:
    case V_DICT:
    case V_VIEW:
    case V_SPACE:
        put_nested(j, out, v);
        break;
    case V_RANGE:
        put_range(j, out, v.range);
        break;
    case V_MACRO:
        jinja_put_str(j, out, v.macro->name == NULL ? "<Macro anonymous>" : "<Macro ");
        if (v.macro->name == NULL) break;
        put_quoted(j, out, v.macro->name);
        jinja_put_str(j, out, ">");
        break;
    default: /* Python prints an address, which nobody can want */
        jinja_put_str(j, out, "<");
        jinja_put_str(j, out, jinja_type(v));
        jinja_put_str(j, out, ">");
    }
}

const jtext *jinja_string(jinja *j, jvalue v) {
    if (v.kind == V_TEXT) return v.text;
    jout out = { 0 };
    jinja_put_value(j, &out, v);
    return jinja_finish(j, &out).text;
}
