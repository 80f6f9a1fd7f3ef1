/* jinja_format: Python's two ways to format: "text" % values and "text".format(values).
 *
 * Both fill the same description of a field and print through it. Fields of format() reach
 * attributes and elements by the same rules as the template does, so that nothing is visible there
 * which is not visible to it; widths and precisions are bounded by the interpreter's memory. */
#include "text/jinja_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { PRECISION_MAX = 400, FIELD_WIDTH_MAX = 1 << 20 };

typedef struct {
    const jtext *fill; /* NULL: a space, or zeros if `zero` */
    char align;        /* '<' '>' '^' '=' or '\0' */
    char sign;         /* '+' ' ' or '\0' */
    char group;        /* ',' '_' or '\0' */
    char type;         /* '\0': none */
    bool alternate, zero;
    int64_t width, precision; /* precision -1: none */
} field;

/* A number before it is padded: sign and prefix, digits, and what stands behind them. */
typedef struct {
    char head[8];
    char digits[80];
    size_t n_digits;
    char tail[PRECISION_MAX + 340]; /* from the point on */
    size_t n_tail;
} number;

/* ---- padding ------------------------------------------------------------------------------- */

static jvalue pad_field(jinja *j, const jtext *t, const field *f, char align) {
    if (align == '\0') align = f->align != '\0' ? f->align : '<';
    return jinja_pad(j, t, f->width, f->fill,
                     align == '>'   ? PAD_LEFT
                     : align == '<' ? PAD_RIGHT
                                    : PAD_FIELD);
}

/* Writes the digits with a group sign before every `each` of them, and zeros in front up to
 * `width` characters. */
static void put_grouped(jinja *j, jout *out, const number *n, const field *f, size_t width,
                        bool marked) {
    const size_t each = f->group == '\0'                                                       ? 0
                        : f->type == 'x' || f->type == 'X' || f->type == 'b' || f->type == 'o' ? 4
                                                                                               : 3;
    size_t total = n->n_digits;
    for (;; total++) {
        const size_t signs = each > 0 && total > 0 ? (total - 1) / each : 0;
        if (total + signs >= width) break;
    }
    for (size_t i = 0; i < total && !j->failed; i++) {
        const size_t left = total - i; /* digits from here on */
        if (i > 0 && each > 0 && left % each == 0) jinja_put(j, out, &f->group, 1, marked);
        const bool zero = left > n->n_digits;
        jinja_put(j, out, zero ? "0" : n->digits + (n->n_digits - left), 1, marked);
    }
}

static jvalue put_number(jinja *j, const number *n, const field *f, bool marked) {
    jout out = { 0 };
    const size_t head = strlen(n->head);
    const bool zeros =
        f->align == '=' && (f->fill == NULL || str_is(jinja_str(f->fill), "0")) && f->zero;
    const size_t room = (size_t)f->width;
    jinja_put(j, &out, n->head, head, marked);
    if (f->align == '=' && !zeros) { /* fill between sign and digits */
        jout digits = { 0 };
        put_grouped(j, &digits, n, f, 0, marked);
        jinja_put(j, &digits, n->tail, n->n_tail, marked);
        const jvalue body = jinja_finish(j, &digits);
        const field inner = { .fill = f->fill,
                              .width = f->width > (int64_t)head ? f->width - (int64_t)head : 0 };
        jinja_put_value(j, &out, pad_field(j, body.text, &inner, '>'));
        return jinja_finish(j, &out);
    }
    const size_t used = head + n->n_tail;
    put_grouped(j, &out, n, f, zeros && room > used ? room - used : 0, marked);
    jinja_put(j, &out, n->tail, n->n_tail, marked);
    return pad_field(j, jinja_finish(j, &out).text, f, f->align == '\0' ? '>' : '\0');
}

/* ---- numbers ------------------------------------------------------------------------------- */

static void head_of(number *n, bool negative, char sign) {
    n->head[0] = negative ? '-' : sign;
    n->head[1] = '\0';
}

static jvalue format_int(jinja *j, int64_t i, const field *f, bool marked) {
    number n = { .n_digits = 0 };
    uint64_t value = i < 0 ? 0 - (uint64_t)i : (uint64_t)i;
    head_of(&n, i < 0, f->sign);
    const unsigned base = f->type == 'b'                     ? 2
                          : f->type == 'o'                   ? 8
                          : f->type == 'x' || f->type == 'X' ? 16
                                                             : 10;
    char reversed[72];
    size_t count = 0;
    do {
        const char *all = f->type == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
        reversed[count++] = all[value % base];
        value /= base;
    } while (value > 0);
    while (f->precision > (int64_t)count && count < sizeof(reversed))
        reversed[count++] = '0';
    while (count > 0)
        n.digits[n.n_digits++] = reversed[--count];
    if (f->alternate && base != 10) {
        const size_t at = strlen(n.head);
        n.head[at] = '0';
        n.head[at + 1] = f->type;
        n.head[at + 2] = '\0';
    }
    return put_number(j, &n, f, marked);
}

/* format() without a type but with a precision: as g, with a digit behind the point. */
static size_t print_general(char *out, size_t size, double f, int precision) {
    if (precision == 0) precision = 1;
    jinja_print_real(out, size, f, precision - 1, 'e', false);
    const char *e = strchr(out, 'e');
    const long exponent = e == NULL ? 0 : strtol(e + 1, NULL, 10);
    if (exponent < -4 || exponent >= precision - 1) {
        char tail[16];
        snprintf(tail, sizeof(tail), "%s", e == NULL ? "" : e);
        size_t n = e == NULL ? strlen(out) : (size_t)(e - out);
        if (memchr(out, '.', n) != NULL) {
            while (out[n - 1] == '0')
                n--;
            if (out[n - 1] == '.') n--;
        }
        return n + (size_t)snprintf(out + n, size - n, "%s", tail);
    }
    size_t n = jinja_print_real(out, size, f, precision - 1 - (int)exponent, 'f', false);
    if (memchr(out, '.', n) == NULL) return n + (size_t)snprintf(out + n, size - n, ".0");
    while (out[n - 1] == '0' && out[n - 2] != '.')
        n--;
    return n;
}

static jvalue format_real(jinja *j, double f, const field *spec, bool marked) {
    number n = { .n_digits = 0 };
    char text[PRECISION_MAX + 340];
    const bool percent = spec->type == '%';
    char type = percent ? 'f' : spec->type == 'n' ? 'g' : spec->type;
    head_of(&n, signbit(f) && !isnan(f), spec->sign);
    if (percent) f *= 100;
    jinja_charge(j, 20);
    size_t size;
    if (!isfinite(f)) {
        const bool upper = type == 'E' || type == 'F' || type == 'G';
        size = (size_t)snprintf(text, sizeof(text), "%s",
                                isnan(f) ? (upper ? "NAN" : "nan") : (upper ? "INF" : "inf"));
    } else if (type == '\0' && spec->precision < 0) {
        jout out = { 0 };
        jinja_put_float(j, &out, fabs(f), false);
        size = out.size < sizeof(text) ? out.size : 0;
        if (size > 0) memcpy(text, out.data, size);
    } else if (type == '\0') {
        size = print_general(text, sizeof(text), fabs(f), (int)spec->precision);
    } else {
        size =
            jinja_print_real(text, sizeof(text), fabs(f),
                             spec->precision < 0 ? 6 : (int)spec->precision, type, spec->alternate);
    }
    size_t whole = 0;
    while (whole < size && text[whole] >= '0' && text[whole] <= '9')
        whole++;
    if (whole > sizeof(n.digits)) { /* too many digits to group */
        whole = spec->group != '\0' ? sizeof(n.digits) : 0;
        if (whole > 0) return jinja_wrong(j, "a number with too many digits to group");
    }
    memcpy(n.digits, text, whole);
    n.n_digits = whole;
    memcpy(n.tail, text + whole, size - whole);
    n.n_tail = size - whole;
    if (percent && n.n_tail < sizeof(n.tail)) n.tail[n.n_tail++] = '%';
    return put_number(j, &n, spec, marked);
}

static bool is_real_type(char type) {
    return type != '\0' && strchr("eEfFgG%", type) != NULL;
}

static bool is_int_type(char type) {
    return type != '\0' && strchr("bcdoxX", type) != NULL;
}

/* ---- "text" % values ----------------------------------------------------------------------- */

typedef struct {
    jinja *j;
    const jtext *format;
    size_t pos;
    jvalue args;
    size_t next; /* of the arguments taken */
} percent_scan;

static char percent_peek(const percent_scan *s) {
    return s->pos < s->format->size ? s->format->data[s->pos] : '\0';
}

static jvalue percent_argument(percent_scan *s) {
    if (s->args.kind == V_TUPLE && s->next < s->args.list->n) return s->args.list->at[s->next++];
    if (s->args.kind != V_TUPLE && s->next == 0) {
        s->next = 1;
        return s->args;
    }
    return jinja_wrong(s->j, "%%: fewer values than the format asks for");
}

/* A width or precision: digits or a star. */
static int64_t percent_number(percent_scan *s, int64_t otherwise) {
    if (percent_peek(s) == '*') {
        s->pos++;
        const jvalue v = percent_argument(s);
        if (!jinja_is_integer(v)) jinja_wrong(s->j, "%%: * wants an integer");
        return jinja_is_integer(v) ? jinja_integer(v) : 0;
    }
    int64_t n = otherwise;
    while (percent_peek(s) >= '0' && percent_peek(s) <= '9') {
        n = (n < 0 ? 0 : n) * 10 + (percent_peek(s) - '0');
        if (n > FIELD_WIDTH_MAX) n = FIELD_WIDTH_MAX + 1;
        s->pos++;
    }
    return n;
}

static jvalue percent_key(percent_scan *s) {
    const size_t start = ++s->pos;
    for (int depth = 1; s->pos < s->format->size; s->pos++) {
        depth += (percent_peek(s) == '(') - (percent_peek(s) == ')');
        if (depth == 0) break;
    }
    if (s->pos >= s->format->size) return jinja_wrong(s->j, "%%: a key without its end");
    const jvalue key = jinja_part(s->j, s->format, start, s->pos++);
    jvalue v = jinja_none();
    if (s->args.kind != V_DICT) return jinja_wrong(s->j, "%%: a key, but no dict");
    if (!jinja_dict_get(s->j, s->args.dict, key, &v)) {
        return jinja_wrong(s->j, "%%: the dict has no '%.*s'", STR_ARG(jinja_str(key.text)));
    }
    return v;
}

static void check_field(jinja *j, const field *f) {
    if (f->width > FIELD_WIDTH_MAX || f->precision > FIELD_WIDTH_MAX) {
        jinja_fail(j, DP_E_LIMIT, "a field wider than the limit of %d", FIELD_WIDTH_MAX);
    }
}

/* repr() with everything beyond ASCII escaped. */
static jvalue ascii_of(jinja *j, jvalue v) {
    jout repr = { 0 }, out = { 0 };
    jinja_put_repr(j, &repr, v);
    const jtext *t = jinja_finish(j, &repr).text;
    for (size_t i = 0; i < t->size && !j->failed;) {
        uint32_t code = 0;
        const size_t n = utf8_next((str){ t->data + i, t->size - i }, &code);
        if (code < 0x80) {
            jinja_put_part(j, &out, t, i, i + n);
        } else {
            char text[16];
            snprintf(text, sizeof(text),
                     code < 0x100     ? "\\x%02x"
                     : code < 0x10000 ? "\\u%04x"
                                      : "\\U%08x",
                     (unsigned)code);
            jinja_put(j, &out, text, strlen(text), jinja_marked_at(t, i));
        }
        i += n > 0 ? n : 1;
    }
    return jinja_finish(j, &out);
}

static jvalue converted(jinja *j, jvalue v, char how) {
    if (how == 'a') return ascii_of(j, v);
    jout out = { 0 };
    if (how == 'r') jinja_put_repr(j, &out, v);
    if (how != 'r') jinja_put_value(j, &out, v);
    return jinja_finish(j, &out);
}

static jvalue cut_and_pad(jinja *j, jvalue text, const field *f) {
    if (f->precision >= 0 && (uint64_t)f->precision < text.text->length) {
        text = jinja_part(j, text.text, 0, jinja_byte_of(j, text.text, (size_t)f->precision));
    }
    return pad_field(j, text.text, f, '\0');
}

static jvalue character_of(jinja *j, jvalue v, const field *f) {
    if (v.kind == V_TEXT && v.text->length == 1) return pad_field(j, v.text, f, '\0');
    const int64_t code = jinja_is_integer(v) ? jinja_integer(v) : -1;
    if (code < 0 || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) {
        return jinja_wrong(j, "c formats one character");
    }
    jout out = { 0 };
    jinja_put_code(j, &out, (uint32_t)code, v.marked);
    return pad_field(j, jinja_finish(j, &out).text, f, '\0');
}

static jvalue percent_value(jinja *j, jvalue v, const field *f) {
    switch (f->type) {
    case 's':
    case 'r':
    case 'a':
        return cut_and_pad(j, converted(j, v, f->type), f);
    case 'c':
        return character_of(j, v, f);
    case 'd':
    case 'i':
    case 'u':
    case 'o':
    case 'x':
    case 'X': {
        int64_t i = 0;
        const bool decimal = strchr("diu", f->type) != NULL;
        if (jinja_is_integer(v)) {
            i = jinja_integer(v);
        } else if (!decimal || v.kind != V_FLOAT || !jinja_float_to_int(j, v.f, &i)) {
            return jinja_wrong(j, "%%%c formats a number, not a %s", f->type, jinja_type(v));
        }
        if (f->precision > 64) return jinja_wrong(j, "%%%c with more than 64 digits", f->type);
        return format_int(j, i, f, v.marked);
    }
    default:
        if (!is_real_type(f->type) || f->type == '%') {
            return jinja_wrong(j, "%%: unknown conversion '%c'", f->type);
        }
        if (!jinja_is_number(v)) {
            return jinja_wrong(j, "%%%c formats a number, not a %s", f->type, jinja_type(v));
        }
        if (f->precision > PRECISION_MAX) return jinja_wrong(j, "%%%c: too precise", f->type);
        return format_real(j, jinja_real(v), f, v.marked);
    }
}

/* One field; the position is behind the percent sign. */
static void percent_field(percent_scan *s, jout *out) {
    static const jtext zero = { .data = "0", .size = 1, .length = 1 };
    jinja *j = s->j;
    field f = { .precision = -1 };
    jvalue v = jinja_absent();
    bool left = false, zeros = false;
    if (percent_peek(s) == '%') {
        s->pos++;
        jinja_put_str(j, out, "%");
        return;
    }
    if (percent_peek(s) == '(') v = percent_key(s);
    for (;; s->pos++) {
        const char c = percent_peek(s);
        if (c == '-') {
            left = true;
        } else if (c == '+' || (c == ' ' && f.sign != '+')) {
            f.sign = c;
        } else if (c == '#') {
            f.alternate = true;
        } else if (c == '0') {
            zeros = true;
        } else if (c != ' ') {
            break;
        }
    }
    f.width = percent_number(s, 0);
    if (f.width < 0) {
        left = true;
        f.width = -f.width;
    }
    if (percent_peek(s) == '.') {
        s->pos++;
        f.precision = percent_number(s, 0);
        if (f.precision < 0) f.precision = 0;
    }
    check_field(j, &f);
    while (percent_peek(s) == 'l' || percent_peek(s) == 'h' || percent_peek(s) == 'L')
        s->pos++;
    f.type = percent_peek(s);
    if (f.type == '\0') {
        jinja_wrong(j, "%%: a format that ends too early");
        return;
    }
    s->pos++;
    f.align = left ? '<' : '>';
    if (zeros && !left && strchr("sracs", f.type) == NULL) {
        f.align = '=';
        f.fill = &zero;
        f.zero = true;
    }
    if (v.kind == V_ABSENT) v = percent_argument(s);
    if (!j->failed) jinja_put_value(j, out, percent_value(j, v, &f));
}

jvalue jinja_percent(jinja *j, const jtext *format, jvalue args) {
    percent_scan s = { .j = j, .format = format, .args = args };
    jout out = { 0 };
    while (!j->failed && s.pos < format->size) {
        const char *percent = memchr(format->data + s.pos, '%', format->size - s.pos);
        const size_t plain = percent == NULL ? format->size : (size_t)(percent - format->data);
        jinja_put_part(j, &out, format, s.pos, plain);
        s.pos = plain + 1;
        jinja_charge(j, 1);
        if (percent != NULL) percent_field(&s, &out);
    }
    const size_t n = args.kind == V_TUPLE ? args.list->n : 1;
    const bool may_stay = args.kind == V_DICT || args.kind == V_LIST || args.kind == V_RANGE ||
                          args.kind == V_UNDEFINED;
    if (s.next < n && !may_stay) return jinja_wrong(j, "%%: more values than the format asks for");
    return jinja_finish(j, &out);
}

/* ---- format() ------------------------------------------------------------------------------ */

static bool is_align(char c) {
    return c == '<' || c == '>' || c == '^' || c == '=';
}

/* The part of a field behind the colon. */
static void parse_spec(jinja *j, const jtext *spec, field *f) {
    static const jtext zero = { .data = "0", .size = 1, .length = 1 };
    const str s = jinja_str(spec);
    size_t i = 0;
    *f = (field){ .precision = -1 };
    const size_t first = utf8_next(s, NULL);
    if (first > 0 && first < s.size && is_align(s.data[first])) {
        f->fill = jinja_part(j, spec, 0, first).text;
        f->zero = str_is(jinja_str(f->fill), "0");
        f->align = s.data[first];
        i = first + 1;
    } else if (s.size > 0 && is_align(s.data[0])) {
        f->align = s.data[i++];
    }
    if (i < s.size && strchr("+- ", s.data[i]) != NULL) {
        f->sign = s.data[i] == '-' ? '\0' : s.data[i];
        i++;
    }
    if (i < s.size && s.data[i] == '#') f->alternate = true, i++;
    if (i < s.size && s.data[i] == '0') {
        i++;
        if (f->fill == NULL) f->fill = &zero;
        f->zero = str_is(jinja_str(f->fill), "0");
        if (f->align == '\0') f->align = '0'; /* for numbers as '=' */
    }
    for (; i < s.size && s.data[i] >= '0' && s.data[i] <= '9'; i++) {
        f->width = f->width * 10 + (s.data[i] - '0');
        if (f->width > FIELD_WIDTH_MAX) f->width = FIELD_WIDTH_MAX + 1;
    }
    if (i < s.size && (s.data[i] == ',' || s.data[i] == '_')) f->group = s.data[i++];
    if (i < s.size && s.data[i] == '.') {
        f->precision = 0;
        const size_t digits = ++i;
        for (; i < s.size && s.data[i] >= '0' && s.data[i] <= '9'; i++) {
            f->precision = f->precision * 10 + (s.data[i] - '0');
            if (f->precision > FIELD_WIDTH_MAX) f->precision = FIELD_WIDTH_MAX + 1;
        }
        if (i == digits) jinja_wrong(j, "format: a point without a precision");
    }
    if (i < s.size) f->type = s.data[i++];
    if (i < s.size) jinja_wrong(j, "format: \"%.*s\" is no format", STR_ARG(s));
    check_field(j, f);
}

static jvalue format_value(jinja *j, jvalue v, const jtext *spec) {
    field f;
    jout out = { 0 };
    if (spec->size == 0) {
        jinja_put_value(j, &out, v);
        return jinja_finish(j, &out);
    }
    parse_spec(j, spec, &f);
    if (j->failed) return jinja_none();
    const bool number_like = jinja_is_number(v);
    if (f.align == '0') f.align = number_like ? '=' : '<';
    if (v.kind == V_TEXT) {
        if ((f.type != '\0' && f.type != 's') || f.sign != '\0' || f.align == '=' ||
            f.group != '\0' || f.alternate) {
            return jinja_wrong(j, "format: \"%.*s\" is no format of a text",
                               STR_ARG(jinja_str(spec)));
        }
        return cut_and_pad(j, v, &f);
    }
    if (!number_like) {
        return jinja_wrong(j, "format: a %s has no formats", jinja_type(v));
    }
    const bool whole = jinja_is_integer(v) && !is_real_type(f.type);
    const bool known =
        f.type == '\0' || f.type == 'n' || (whole ? is_int_type(f.type) : is_real_type(f.type));
    if (!known || (whole && f.precision >= 0)) {
        return jinja_wrong(j, "format: \"%.*s\" is no format of a %s", STR_ARG(jinja_str(spec)),
                           jinja_type(v));
    }
    if (whole && f.type == 'c') return character_of(j, v, &f);
    if (whole) return format_int(j, jinja_integer(v), &f, v.marked);
    if (f.precision > PRECISION_MAX) return jinja_wrong(j, "format: too precise");
    return format_real(j, jinja_real(v), &f, v.marked);
}

typedef struct {
    jinja *j;
    const jcall *call;
    int64_t next; /* automatic number; -1: fields are numbered by hand */
    bool automatic;
} format_scan;

static bool all_digits(str s) {
    for (size_t i = 0; i < s.size; i++) {
        if (s.data[i] < '0' || s.data[i] > '9') return false;
    }
    return s.size > 0;
}

/* The argument that a field begins with. */
static jvalue format_argument(format_scan *s, str name) {
    jinja *j = s->j;
    uint64_t i = 0;
    if (name.size == 0 || all_digits(name)) {
        if (!all_digits(name) || !str_to_u64(name, &i)) i = UINT64_MAX;
        if (i >= s->call->n) return jinja_wrong(j, "format: no argument %.*s", STR_ARG(name));
        return s->call->at[i];
    }
    for (size_t k = 0; k < s->call->n_keys; k++) {
        jinja_charge(j, 1);
        if (str_equal(jinja_str(s->call->keys[k].name), name)) return s->call->keys[k].v;
    }
    return jinja_wrong(j, "format: no argument '%.*s'", STR_ARG(name));
}

/* "name.attribute[element]..." */
static jvalue format_lookup(format_scan *s, const jtext *path) {
    jinja *j = s->j;
    size_t at = 0;
    while (at < path->size && path->data[at] != '.' && path->data[at] != '[')
        at++;
    jvalue v;
    const str first = { path->data, at };
    if (path->size == 0 || all_digits(first)) {
        const bool automatic = path->size == 0;
        if (s->next != 0 && s->automatic != automatic) {
            return jinja_wrong(j, "format: fields are numbered both automatically and by hand");
        }
        s->automatic = automatic;
        char text[24];
        const int n = snprintf(text, sizeof(text), "%lld", (long long)s->next);
        v = format_argument(s, automatic ? (str){ text, (size_t)n } : first);
        s->next++;
    } else {
        v = format_argument(s, first);
    }
    while (at < path->size && !j->failed) {
        const bool attribute = path->data[at] == '.';
        if (!attribute && path->data[at] != '[') return jinja_wrong(j, "format: no '.' or '['");
        const size_t start = ++at;
        while (at < path->size && (attribute ? path->data[at] != '.' && path->data[at] != '['
                                             : path->data[at] != ']')) {
            at++;
        }
        if (at == start || (!attribute && at >= path->size)) {
            return jinja_wrong(j, "format: a field without its end");
        }
        const jvalue name = jinja_part(j, path, start, at);
        uint64_t index;
        if (attribute) {
            v = jinja_get_attribute(j, v, name.text);
        } else if (all_digits(jinja_str(name.text)) && str_to_u64(jinja_str(name.text), &index) &&
                   index <= INT64_MAX) {
            v = jinja_get_item(j, v, jinja_int((int64_t)index));
        } else {
            v = jinja_get_item(j, v, name);
        }
        if (!attribute) at++;
    }
    return v;
}

static void format_run(format_scan *s, const jtext *format, jout *out, int depth);

/* One field between its braces. */
static void format_field(format_scan *s, const jtext *t, jout *out, int depth) {
    jinja *j = s->j;
    size_t end = 0; /* of the path: brackets hide ! and : */
    for (bool inside = false; end < t->size; end++) {
        const char c = t->data[end];
        if (c == '[') inside = true;
        if (c == ']') inside = false;
        if (!inside && (c == '!' || c == ':')) break;
    }
    char conversion = '\0';
    size_t spec = end;
    if (spec < t->size && t->data[spec] == '!') {
        conversion = spec + 1 < t->size ? t->data[spec + 1] : '\0';
        spec += 2;
        if (conversion == '\0' || strchr("rsa", conversion) == NULL ||
            (spec < t->size && t->data[spec] != ':')) {
            jinja_wrong(j, "format: unknown conversion");
            return;
        }
    }
    jvalue v = format_lookup(s, jinja_part(j, t, 0, end).text);
    if (conversion != '\0') v = converted(j, v, conversion);
    jout nested = { 0 };
    if (spec < t->size) {
        format_run(s, jinja_part(j, t, spec + 1, t->size).text, &nested, depth + 1);
    }
    const jtext *format = jinja_finish(j, &nested).text;
    if (!j->failed) jinja_put_value(j, out, format_value(j, v, format));
}

static void format_run(format_scan *s, const jtext *t, jout *out, int depth) {
    jinja *j = s->j;
    if (depth > 1) jinja_wrong(j, "format: fields nested too deep");
    size_t at = 0;
    while (at < t->size && !j->failed) {
        size_t plain = at;
        while (plain < t->size && t->data[plain] != '{' && t->data[plain] != '}')
            plain++;
        jinja_put_part(j, out, t, at, plain);
        at = plain;
        if (at >= t->size) break;
        jinja_charge(j, 1);
        if (at + 1 < t->size && t->data[at + 1] == t->data[at]) {
            jinja_put_part(j, out, t, at, at + 1);
            at += 2;
            continue;
        }
        if (t->data[at] == '}') {
            jinja_wrong(j, "format: a '}' alone");
            break;
        }
        const size_t start = ++at;
        for (int braces = 1; at < t->size; at++) {
            braces += (t->data[at] == '{') - (t->data[at] == '}');
            if (braces == 0) break;
        }
        if (at >= t->size) {
            jinja_wrong(j, "format: a '{' alone");
            break;
        }
        format_field(s, jinja_part(j, t, start, at).text, out, depth);
        at++;
    }
}

jvalue jinja_str_format(jinja *j, const jtext *format, const jcall *call) {
    format_scan s = { .j = j, .call = call };
    jout out = { 0 };
    format_run(&s, format, &out, 0);
    return jinja_finish(j, &out);
}
