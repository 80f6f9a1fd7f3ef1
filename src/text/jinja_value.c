/* jinja_value: what Python's objects do on their own: text forms, truth, equality, order, length,
 * iteration, and the memory and errors of the interpreter.
 *
 * A dict keeps its members in order of insertion and, from a handful on, an index by a keyed hash,
 * so that keys cannot be chosen to collide. 1, 1.0 and True are one key, as in Python. */
#include "text/jinja_internal.h"

#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { DICT_FEW = 8 }; /* members that are found by looking at each */

/* ---- errors and memory --------------------------------------------------------------------- */

static void latch_error(jinja *j, dp_status status, const char *format, va_list args) {
    if (j->failed) return;
    j->failed = true;
    char what[sizeof(((dp_error *)0)->message)];
    vsnprintf(what, sizeof(what), format, args);
    err_set(j->err, status, "%s: line %u: %s", j->name, (unsigned)j->line, what);
}

void jinja_fail(jinja *j, dp_status status, const char *format, ...) {
    va_list args;
    va_start(args, format);
    latch_error(j, status, format, args);
    va_end(args);
}

jvalue jinja_wrong(jinja *j, const char *format, ...) {
    va_list args;
    va_start(args, format);
    latch_error(j, DP_E_FORMAT, format, args);
    va_end(args);
    return jinja_none();
}

void *jinja_take(jinja *j, size_t n, size_t size) {
    size_t bytes;
    if (j->failed) return NULL;
    if (__builtin_mul_overflow(n, size, &bytes) || bytes > j->memory_max ||
        j->memory.total > j->memory_max - bytes) {
        jinja_fail(j, DP_E_LIMIT, "more memory than the limit of %zu bytes", j->memory_max);
        return NULL;
    }
    dp_error err = { 0 };
    void *memory = arena_new(&j->memory, n, size, "a chat template", &err);
    if (memory == NULL) jinja_fail(j, err.status, "%s", err.message);
    return memory;
}

void jinja_charge(jinja *j, uint64_t steps) {
    if (steps <= j->steps_max - j->steps) {
        j->steps += steps;
        return;
    }
    j->steps = j->steps_max;
    jinja_fail(j, DP_E_LIMIT, "more than the limit of %llu steps",
               (unsigned long long)j->steps_max);
}

void jinja_charge_bytes(jinja *j, uint64_t bytes) {
    jinja_charge(j, bytes / JINJA_BYTES_PER_STEP);
}

bool jinja_enter_value(jinja *j) {
    jinja_charge(j, 1);
    if (j->value_depth >= JINJA_VALUE_DEPTH_MAX) {
        jinja_fail(j, DP_E_LIMIT, "values nested deeper than the limit of %d",
                   JINJA_VALUE_DEPTH_MAX);
    }
    if (j->failed) return false;
    j->value_depth++;
    return true;
}

/* ---- numbers, types, undefined ------------------------------------------------------------- */

bool jinja_is_number(jvalue v) {
    return v.kind == V_INT || v.kind == V_FLOAT || v.kind == V_BOOL;
}

double jinja_real(jvalue v) {
    return v.kind == V_FLOAT ? v.f : (double)jinja_integer(v);
}

const char *jinja_type(jvalue v) {
    static const char *const names[] = {
        [V_ABSENT] = "absent", [V_UNDEFINED] = "Undefined", [V_NONE] = "None",
        [V_BOOL] = "bool",     [V_INT] = "int",             [V_FLOAT] = "float",
        [V_TEXT] = "str",      [V_LIST] = "list",           [V_TUPLE] = "tuple",
        [V_DICT] = "dict",     [V_VIEW] = "dict_keys",      [V_RANGE] = "range",
        [V_ITER] = "generator", [V_SPACE] = "Namespace",    [V_LOOP] = "LoopContext",
        [V_MACRO] = "Macro",   [V_METHOD] = "method",       [V_GLOBAL] = "function",
        [V_CYCLER] = "Cycler", [V_JOINER] = "Joiner",
    };
    if (v.kind == V_VIEW) {
        return v.dict->view == VIEW_KEYS     ? "dict_keys"
               : v.dict->view == VIEW_VALUES ? "dict_values"
                                             : "dict_items";
    }
    return names[v.kind];
}

jvalue jinja_undefined(jinja *j, const char *hint, const char *owner, const jtext *name) {
    jundefined *u = jinja_take(j, 1, sizeof(jundefined));
    if (u != NULL) *u = (jundefined){ .hint = hint, .owner = owner, .name = name };
    return (jvalue){ .kind = V_UNDEFINED, .undefined = u };
}

jvalue jinja_use_undefined(jinja *j, jvalue v) {
    const jundefined *u = v.undefined;
    if (u == NULL) return jinja_wrong(j, "an undefined value is used");
    const str name = u->name != NULL ? jinja_str(u->name) : STR("?");
    if (u->hint != NULL) return jinja_wrong(j, "%s", u->hint);
    if (u->owner == NULL) return jinja_wrong(j, "'%.*s' is undefined", STR_ARG(name));
    return jinja_wrong(j, "a %s has no '%.*s'", u->owner, STR_ARG(name));
}

/* ---- texts --------------------------------------------------------------------------------- */

static size_t count_points(const char *data, size_t size) {
    size_t n = 0;
    for (size_t i = 0; i < size; i++) n += ((unsigned char)data[i] & 0xC0) != 0x80;
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
        while (capacity < out->size + more) capacity *= 2;
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
    if (t->marks == NULL || from == to || j->failed) return;
    uint8_t *marks = out->marks + (out->size - (to - from));
    memcpy(marks, t->marks + from, to - from);
    for (size_t i = 0; i < to - from; i++) out->n_marked += marks[i];
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
    while (n > 1 && digits[n - 1] == '0') n--;
    *point = (int)strtol(e + 1, NULL, 10) + 1;
    return n;
}

void jinja_put_float(jinja *j, jout *out, double f, bool marked) {
    char digits[24], text[64];
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
        const char *simple = code == '\n' ? "\\n" : code == '\r' ? "\\r" : code == '\t' ? "\\t" : NULL;
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
    const int n = r->step == 1 ? snprintf(text, sizeof(text), "range(%lld, %lld)",
                                          (long long)r->start, (long long)r->stop)
                               : snprintf(text, sizeof(text), "range(%lld, %lld, %lld)",
                                          (long long)r->start, (long long)r->stop,
                                          (long long)r->step);
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

/* ---- lists and dicts ----------------------------------------------------------------------- */

static const jlist empty_list = { 0 };

void jinja_push(jinja *j, jitems *items, jvalue v) {
    jinja_charge(j, 1);
    if (items->n == items->capacity) {
        const size_t capacity = items->capacity == 0 ? 8 : 2 * items->capacity;
        jvalue *at = jinja_take(j, capacity, sizeof(jvalue));
        if (at == NULL) return;
        if (items->n > 0) memcpy(at, items->at, items->n * sizeof(jvalue));
        items->at = at;
        items->capacity = capacity;
    }
    items->at[items->n++] = v;
}

jvalue jinja_list(jinja *j, const jitems *items, jkind kind) {
    jlist *list = jinja_take(j, 1, sizeof(jlist));
    if (list == NULL) return (jvalue){ .kind = (uint8_t)kind, .list = &empty_list };
    *list = (jlist){ .at = items->at, .n = items->n };
    return (jvalue){ .kind = (uint8_t)kind, .list = list };
}

jvalue jinja_iter(jinja *j, const jitems *items) {
    jiter *iter = jinja_take(j, 1, sizeof(jiter));
    if (iter == NULL) return jinja_none();
    iter->list = jinja_list(j, items, V_LIST).list;
    return (jvalue){ .kind = V_ITER, .iter = iter };
}

jdict *jinja_dict(jinja *j) {
    static jdict none; /* stays empty: after a failure nothing is put */
    jdict *d = jinja_take(j, 1, sizeof(jdict));
    return d != NULL ? d : &none;
}

bool jinja_hashable(jinja *j, jvalue v) {
    if (v.kind != V_TUPLE) return v.kind != V_LIST && v.kind != V_DICT && v.kind != V_VIEW;
    if (!jinja_enter_value(j)) return false;
    bool hashable = true;
    for (size_t i = 0; hashable && i < v.list->n; i++) hashable = jinja_hashable(j, v.list->at[i]);
    j->value_depth--;
    return hashable;
}

/* Equal values have equal hashes. */
static uint64_t hash_value(jinja *j, jvalue v) {
    uint64_t word = 0;
    switch ((jkind)v.kind) {
    case V_TEXT:
        jinja_charge_bytes(j, v.text->size);
        return hash_bytes(j->hash_key, v.text->data, v.text->size);
    case V_BOOL:
    case V_INT:
        word = (uint64_t)jinja_integer(v);
        break;
    case V_FLOAT:
        if (v.f >= -0x1p63 && v.f < 0x1p63 && v.f == floor(v.f)) {
            word = (uint64_t)(int64_t)v.f;
        } else {
            memcpy(&word, &v.f, sizeof(word));
        }
        break;
    case V_TUPLE:
        if (!jinja_enter_value(j)) return 0;
        for (size_t i = 0; i < v.list->n; i++) word = word * 31 + hash_value(j, v.list->at[i]);
        j->value_depth--;
        break;
    case V_UNDEFINED:
    case V_NONE:
        break;
    default:
        word = (uint64_t)(uintptr_t)v.iter;
    }
    return hash_bytes(j->hash_key, &word, sizeof(word)) + (v.kind == V_TUPLE);
}

/* The member's index, or d->n and, if there is an index, the slot where it belongs. */
static size_t find_member(jinja *j, const jdict *d, jvalue key, size_t *slot) {
    *slot = 0;
    if (d->slots == NULL) {
        size_t i = 0;
        while (i < d->n && !jinja_equal(j, d->keys[i], key)) i++;
        return i;
    }
    size_t at = (size_t)hash_value(j, key) & (d->n_slots - 1);
    for (; d->slots[at] != 0; at = (at + 1) & (d->n_slots - 1)) {
        if (jinja_equal(j, d->keys[d->slots[at] - 1], key)) return d->slots[at] - 1;
    }
    *slot = at;
    return d->n;
}

/* Room for one more member, at most half of the slots in use. */
static bool grow_dict(jinja *j, jdict *d) {
    const size_t capacity = d->capacity == 0 ? DICT_FEW / 2 : 2 * d->capacity;
    jvalue *keys = jinja_take(j, capacity, sizeof(jvalue));
    jvalue *values = jinja_take(j, capacity, sizeof(jvalue));
    if (keys == NULL || values == NULL) return false;
    if (d->n > 0) {
        memcpy(keys, d->keys, d->n * sizeof(jvalue));
        memcpy(values, d->values, d->n * sizeof(jvalue));
    }
    d->keys = keys;
    d->values = values;
    d->capacity = capacity;
    if (capacity <= DICT_FEW) return true;
    uint32_t *slots = jinja_take(j, 2 * capacity, sizeof(uint32_t));
    if (slots == NULL) return false;
    d->slots = slots;
    d->n_slots = 2 * capacity;
    for (size_t i = 0; i < d->n; i++) {
        size_t at = (size_t)hash_value(j, d->keys[i]) & (d->n_slots - 1);
        while (slots[at] != 0) at = (at + 1) & (d->n_slots - 1);
        slots[at] = (uint32_t)i + 1;
    }
    return !j->failed;
}

void jinja_dict_put(jinja *j, jdict *d, jvalue key, jvalue v) {
    size_t slot;
    jinja_charge(j, 1);
    if (!jinja_hashable(j, key)) {
        jinja_fail(j, DP_E_FORMAT, "a %s cannot be the key of a dict", jinja_type(key));
    }
    if (j->failed) return;
    size_t i = find_member(j, d, key, &slot);
    if (j->failed) return;
    if (i < d->n) {
        d->values[i] = v;
        return;
    }
    if (d->n == d->capacity) {
        if (!grow_dict(j, d)) return;
        i = find_member(j, d, key, &slot); /* its slot moved */
    }
    if (j->failed) return;
    d->keys[i] = key;
    d->values[i] = v;
    d->n++;
    if (d->slots != NULL) d->slots[slot] = (uint32_t)i + 1;
}

bool jinja_dict_get(jinja *j, const jdict *d, jvalue key, jvalue *v) {
    size_t slot;
    if (j->failed) return false;
    const size_t i = find_member(j, d, key, &slot);
    if (i == d->n || j->failed) return false;
    *v = d->values[i];
    return true;
}

bool jinja_dict_find(jinja *j, const jdict *d, str key, jvalue *v) {
    const jtext t = { .data = key.data, .size = key.size };
    return jinja_dict_get(j, d, (jvalue){ .kind = V_TEXT, .text = &t }, v);
}

/* ---- truth, equality, order ---------------------------------------------------------------- */

bool jinja_length(jvalue v, size_t *n) {
    *n = 0;
    switch ((jkind)v.kind) {
    case V_UNDEFINED:
        return true;
    case V_TEXT:
        *n = v.text->length;
        return true;
    case V_LIST:
    case V_TUPLE:
        *n = v.list->n;
        return true;
    case V_DICT:
    case V_VIEW:
        *n = v.dict->n;
        return true;
    case V_RANGE:
        *n = (size_t)v.range->n;
        return true;
    default:
        return false;
    }
}

bool jinja_true(jvalue v) {
    size_t n;
    if (v.kind == V_NONE) return false;
    if (v.kind == V_FLOAT) return v.f != 0;
    if (jinja_is_integer(v)) return jinja_integer(v) != 0;
    return !jinja_length(v, &n) || n > 0;
}

/* An int against a double without rounding the int: -1, 0, 1; 2 if NaN. */
static int compare_int_real(int64_t i, double f) {
    if (isnan(f)) return 2;
    if (f >= 0x1p63) return -1;
    if (f < -0x1p63) return 1;
    const int64_t whole = (int64_t)f;
    if (i != whole) return i < whole ? -1 : 1;
    const double rest = f - (double)whole;
    return rest > 0 ? -1 : rest < 0 ? 1 : 0;
}

static int compare_numbers(jvalue a, jvalue b) {
    if (a.kind == V_FLOAT && b.kind == V_FLOAT) {
        return isnan(a.f) || isnan(b.f) ? 2 : (a.f > b.f) - (a.f < b.f);
    }
    if (a.kind == V_FLOAT) {
        const int order = compare_int_real(jinja_integer(b), a.f);
        return order == 2 ? 2 : -order;
    }
    if (b.kind == V_FLOAT) return compare_int_real(jinja_integer(a), b.f);
    const int64_t x = jinja_integer(a), y = jinja_integer(b);
    return (x > y) - (x < y);
}

static bool equal_lists(jinja *j, const jlist *a, const jlist *b) {
    if (a == b) return true;
    if (a->n != b->n) return false;
    for (size_t i = 0; i < a->n && !j->failed; i++) {
        if (!jinja_equal(j, a->at[i], b->at[i])) return false;
    }
    return !j->failed;
}

static bool equal_dicts(jinja *j, const jdict *a, const jdict *b) {
    if (a == b) return true;
    if (a->n != b->n) return false;
    for (size_t i = 0; i < a->n && !j->failed; i++) {
        jvalue other;
        if (!jinja_dict_get(j, b, a->keys[i], &other)) return false;
        if (!jinja_equal(j, a->values[i], other)) return false;
    }
    return !j->failed;
}

/* Ranges are equal if they hold the same numbers. */
static bool equal_ranges(const jrange *a, const jrange *b) {
    if (a->n != b->n) return false;
    return a->n == 0 || (a->start == b->start && (a->n == 1 || a->step == b->step));
}

bool jinja_equal(jinja *j, jvalue a, jvalue b) {
    if (jinja_is_number(a) && jinja_is_number(b)) return compare_numbers(a, b) == 0;
    if (a.kind != b.kind) return false;
    if (!jinja_enter_value(j)) return false;
    bool equal;
    switch ((jkind)a.kind) {
    case V_UNDEFINED:
    case V_NONE:
        equal = true;
        break;
    case V_TEXT:
        if (a.text->size == b.text->size) jinja_charge_bytes(j, a.text->size);
        equal = a.text == b.text || str_equal(jinja_str(a.text), jinja_str(b.text));
        break;
    case V_LIST:
    case V_TUPLE:
        equal = equal_lists(j, a.list, b.list);
        break;
    case V_DICT:
        equal = equal_dicts(j, a.dict, b.dict);
        break;
    case V_VIEW: /* sets but for the values; the order never matters to a template */
        equal = a.dict->view == b.dict->view && a.dict->view != VIEW_VALUES &&
                (a.dict->view == VIEW_ITEMS
                     ? equal_dicts(j, a.dict, b.dict)
                     : equal_lists(j, jinja_to_list(j, a), jinja_to_list(j, b)));
        break;
    case V_RANGE:
        equal = equal_ranges(a.range, b.range);
        break;
    case V_METHOD:
        equal = a.method->entry == b.method->entry && a.method->self.iter == b.method->self.iter;
        break;
    default:
        equal = a.iter == b.iter;
    }
    j->value_depth--;
    return equal;
}

bool jinja_less(jinja *j, jvalue a, jvalue b, const char *op) {
    if (jinja_is_number(a) && jinja_is_number(b)) return compare_numbers(a, b) == -1;
    if (a.kind == V_UNDEFINED || b.kind == V_UNDEFINED) {
        jinja_use_undefined(j, a.kind == V_UNDEFINED ? a : b);
        return false;
    }
    if (a.kind == V_TEXT && b.kind == V_TEXT) { /* UTF-8 sorts as its code points */
        const size_t n = a.text->size < b.text->size ? a.text->size : b.text->size;
        jinja_charge_bytes(j, n);
        const int order = n == 0 ? 0 : memcmp(a.text->data, b.text->data, n);
        return order != 0 ? order < 0 : a.text->size < b.text->size;
    }
    if (a.kind != b.kind || (a.kind != V_LIST && a.kind != V_TUPLE)) {
        jinja_fail(j, DP_E_FORMAT, "'%s' cannot compare %s with %s", op, jinja_type(a),
                   jinja_type(b));
        return false;
    }
    if (!jinja_enter_value(j)) return false;
    bool less = a.list->n < b.list->n;
    for (size_t i = 0; i < a.list->n && i < b.list->n && !j->failed; i++) {
        if (jinja_equal(j, a.list->at[i], b.list->at[i])) continue;
        less = jinja_less(j, a.list->at[i], b.list->at[i], op);
        break;
    }
    j->value_depth--;
    return less;
}

bool jinja_in(jinja *j, jvalue v, jvalue holder) {
    if (holder.kind == V_TEXT) {
        if (v.kind != V_TEXT) {
            jinja_wrong(j, "'in' looks for a %s in a text", jinja_type(v));
            return false;
        }
        return jinja_find(j, holder.text, jinja_str(v.text), 0, holder.text->size, false) !=
               SIZE_MAX;
    }
    if (holder.kind == V_DICT || (holder.kind == V_VIEW && holder.dict->view == VIEW_KEYS)) {
        jvalue member;
        if (!jinja_hashable(j, v)) {
            jinja_wrong(j, "a %s cannot be the key of a dict", jinja_type(v));
            return false;
        }
        return jinja_dict_get(j, holder.dict, v, &member);
    }
    if (holder.kind == V_RANGE && v.kind == V_INT) {
        const jrange *r = holder.range;
        if (r->n == 0) return false;
        const int64_t last = jinja_range_at(r, (size_t)r->n - 1).i;
        const bool up = r->step > 0;
        if (v.i < (up ? r->start : last) || v.i > (up ? last : r->start)) return false;
        const uint64_t stride = up ? (uint64_t)r->step : 0 - (uint64_t)r->step;
        const uint64_t off = up ? (uint64_t)v.i - (uint64_t)r->start
                                : (uint64_t)r->start - (uint64_t)v.i;
        return off % stride == 0;
    }
    if (!jinja_can_walk(holder)) {
        jinja_wrong(j, "'in' looks into a %s", jinja_type(holder));
        return false;
    }
    jvalue element;
    for (jwalk walk = jinja_walk(j, holder); jinja_next(j, &walk, &element);) {
        if (jinja_equal(j, element, v)) return true;
    }
    return false;
}

/* ---- iteration ----------------------------------------------------------------------------- */

bool jinja_can_walk(jvalue v) {
    size_t n;
    return v.kind == V_ITER || jinja_length(v, &n);
}

jwalk jinja_walk(jinja *j, jvalue over) {
    if (!jinja_can_walk(over)) {
        jinja_wrong(j, "a %s cannot be iterated over", jinja_type(over));
        over = (jvalue){ .kind = V_UNDEFINED };
    }
    return (jwalk){ .over = over };
}

jvalue jinja_range_at(const jrange *r, size_t i) {
    return jinja_int(r->start + (int64_t)i * r->step);
}

static jvalue view_at(jinja *j, const jdict *d, size_t i) {
    if (d->view == VIEW_VALUES) return d->values[i];
    if (d->view == VIEW_KEYS) return d->keys[i];
    jitems pair = { 0 };
    jvalue *both = jinja_take(j, 2, sizeof(jvalue));
    if (both != NULL) {
        both[0] = d->keys[i];
        both[1] = d->values[i];
        pair = (jitems){ .at = both, .n = 2 };
    }
    return jinja_list(j, &pair, V_TUPLE);
}

bool jinja_next(jinja *j, jwalk *walk, jvalue *v) {
    size_t n;
    jinja_charge(j, 1);
    if (j->failed) return false;
    const jvalue over = walk->over;
    if (over.kind == V_ITER) {
        if (over.iter->next >= over.iter->list->n) return false;
        *v = over.iter->list->at[over.iter->next++];
        return true;
    }
    if (!jinja_length(over, &n) || walk->i >= n) return false;
    const size_t i = walk->i++;
    switch ((jkind)over.kind) {
    case V_TEXT: {
        const size_t from = walk->byte;
        do walk->byte++;
        while (walk->byte < over.text->size &&
               ((unsigned char)over.text->data[walk->byte] & 0xC0) == 0x80);
        *v = jinja_part(j, over.text, from, walk->byte);
        break;
    }
    case V_LIST:
    case V_TUPLE:
        *v = over.list->at[i];
        break;
    case V_DICT:
        *v = over.dict->keys[i];
        break;
    case V_VIEW:
        *v = view_at(j, over.dict, i);
        break;
    default: /* V_RANGE */
        *v = jinja_range_at(over.range, i);
    }
    return !j->failed;
}

const jlist *jinja_to_list(jinja *j, jvalue v) {
    if (v.kind == V_LIST || v.kind == V_TUPLE) return v.list;
    jitems items = { 0 };
    jvalue element;
    for (jwalk walk = jinja_walk(j, v); jinja_next(j, &walk, &element);) {
        jinja_push(j, &items, element);
    }
    return jinja_list(j, &items, V_LIST).list;
}
