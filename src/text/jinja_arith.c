/* jinja_arith: Python's arithmetic operators, and numbers in texts.
 *
 * Integers have 64 bits; what would be larger is refused, never wrapped or rounded. Division and
 * remainder round towards minus infinity. A number made of marked ones is marked. */
#include "text/jinja_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static jvalue too_large(jinja *j) {
    jinja_fail(j, DP_E_LIMIT, "an integer beyond 64 bits");
    return jinja_none();
}

static jvalue no_operation(jinja *j, const char *sign, jvalue a, jvalue b) {
    if (a.kind == V_UNDEFINED) return jinja_use_undefined(j, a);
    if (b.kind == V_UNDEFINED) return jinja_use_undefined(j, b);
    return jinja_wrong(j, "'%s' does not work for %s and %s", sign, jinja_type(a), jinja_type(b));
}

/* ---- integers and doubles ------------------------------------------------------------------ */

static jvalue power_of_ints(jinja *j, int64_t base, int64_t exponent) {
    int64_t result = 1;
    for (; exponent > 0; exponent >>= 1) {
        if (exponent & 1 && __builtin_mul_overflow(result, base, &result)) return too_large(j);
        if (exponent > 1 && __builtin_mul_overflow(base, base, &base)) return too_large(j);
    }
    return jinja_int(result);
}

static jvalue operate_reals(jinja *j, jop op, double a, double b) {
    double f = 0;
    if ((op == OP_DIV || op == OP_FLOORDIV || op == OP_MOD) && b == 0) {
        return jinja_wrong(j, "division by zero");
    }
    switch (op) {
    case OP_ADD:
        return jinja_float(a + b);
    case OP_SUB:
        return jinja_float(a - b);
    case OP_MUL:
        return jinja_float(a * b);
    case OP_DIV:
        return jinja_float(a / b);
    case OP_MOD:
    case OP_FLOORDIV:
        f = fmod(a, b);
        if (f != 0 && (f < 0) != (b < 0)) f += b;
        if (op == OP_MOD) return jinja_float(f == 0 ? copysign(0, b) : f);
        f = (a - f) / b;
        return jinja_float(f == 0 ? copysign(0, a / b)
                                  : floor(f + 0.5)); /* whole but for rounding */
    default:                                         /* OP_POW */
        if (a == 0 && b < 0) return jinja_wrong(j, "zero to a negative power");
        if (a < 0 && isfinite(a) && isfinite(b) && b != floor(b)) {
            return jinja_wrong(j, "a negative number to a broken power");
        }
        f = pow(a, b);
        if (isinf(f) && isfinite(a) && isfinite(b)) {
            return jinja_wrong(j, "the power is beyond a double");
        }
        return jinja_float(f);
    }
}

static jvalue operate_ints(jinja *j, jop op, int64_t a, int64_t b) {
    int64_t i = 0;
    if ((op == OP_FLOORDIV || op == OP_MOD) && b == 0) return jinja_wrong(j, "division by zero");
    switch (op) {
    case OP_ADD:
        return __builtin_add_overflow(a, b, &i) ? too_large(j) : jinja_int(i);
    case OP_SUB:
        return __builtin_sub_overflow(a, b, &i) ? too_large(j) : jinja_int(i);
    case OP_MUL:
        return __builtin_mul_overflow(a, b, &i) ? too_large(j) : jinja_int(i);
    case OP_FLOORDIV:
        if (b == -1) return a == INT64_MIN ? too_large(j) : jinja_int(-a);
        return jinja_int(a / b - (a % b != 0 && (a < 0) != (b < 0)));
    case OP_MOD:
        if (b == -1) return jinja_int(0);
        i = a % b;
        return jinja_int(i != 0 && (i < 0) != (b < 0) ? i + b : i);
    case OP_POW:
        if (b >= 0) return power_of_ints(j, a, b);
        return operate_reals(j, op, (double)a, (double)b);
    default: /* OP_DIV */
        return operate_reals(j, op, (double)a, (double)b);
    }
}

/* ---- sequences ----------------------------------------------------------------------------- */

static jvalue repeat_sequence(jinja *j, jvalue v, int64_t times) {
    const uint64_t n = times > 0 ? (uint64_t)times : 0;
    const size_t size = v.kind == V_TEXT ? v.text->size : v.list->n;
    if (size > 0 && n > j->memory_max / size) {
        jinja_fail(j, DP_E_LIMIT, "a repetition over the limit of %zu", j->memory_max);
    }
    if (v.kind == V_TEXT) {
        jout out = { 0 };
        for (uint64_t i = 0; size > 0 && i < n && !j->failed; i++) {
            jinja_charge(j, 1);
            jinja_put_text(j, &out, v.text);
        }
        return jinja_finish(j, &out);
    }
    jitems items = { 0 };
    for (uint64_t i = 0; size > 0 && i < n && !j->failed; i++) {
        for (size_t k = 0; k < size && !j->failed; k++)
            jinja_push(j, &items, v.list->at[k]);
    }
    return jinja_list(j, &items, v.kind);
}

static jvalue add_sequences(jinja *j, jvalue a, jvalue b) {
    if (a.kind == V_TEXT) {
        jout out = { 0 };
        jinja_put_text(j, &out, a.text);
        jinja_put_text(j, &out, b.text);
        return jinja_finish(j, &out);
    }
    jitems items = { 0 };
    for (size_t i = 0; i < a.list->n && !j->failed; i++)
        jinja_push(j, &items, a.list->at[i]);
    for (size_t i = 0; i < b.list->n && !j->failed; i++)
        jinja_push(j, &items, b.list->at[i]);
    return jinja_list(j, &items, a.kind);
}

static bool is_sequence(jvalue v) {
    return v.kind == V_TEXT || v.kind == V_LIST || v.kind == V_TUPLE;
}

jvalue jinja_binary(jinja *j, jop op, jvalue a, jvalue b) {
    static const char *const signs[] = {
        [OP_ADD] = "+",       [OP_SUB] = "-", [OP_MUL] = "*", [OP_DIV] = "/",
        [OP_FLOORDIV] = "//", [OP_MOD] = "%", [OP_POW] = "**"
    };
    if (j->failed) return jinja_none();
    if (jinja_is_number(a) && jinja_is_number(b)) {
        jvalue v = a.kind == V_FLOAT || b.kind == V_FLOAT
                       ? operate_reals(j, op, jinja_real(a), jinja_real(b))
                       : operate_ints(j, op, jinja_integer(a), jinja_integer(b));
        v.marked = a.marked || b.marked;
        return v;
    }
    if (op == OP_MOD && a.kind == V_TEXT) return jinja_percent(j, a.text, b);
    if (op == OP_ADD && is_sequence(a) && a.kind == b.kind) return add_sequences(j, a, b);
    if (op == OP_MUL && is_sequence(a) && jinja_is_integer(b)) {
        return repeat_sequence(j, a, jinja_integer(b));
    }
    if (op == OP_MUL && is_sequence(b) && jinja_is_integer(a)) {
        return repeat_sequence(j, b, jinja_integer(a));
    }
    return no_operation(j, signs[op], a, b);
}

jvalue jinja_negate(jinja *j, jvalue v, bool minus) {
    if (v.kind == V_UNDEFINED) return jinja_use_undefined(j, v);
    if (!jinja_is_number(v)) {
        return jinja_wrong(j, "a sign in front of a %s", jinja_type(v));
    }
    jvalue result =
        v.kind == V_FLOAT ? jinja_float(minus ? -v.f : v.f) : jinja_int(jinja_integer(v));
    if (minus && v.kind != V_FLOAT) {
        if (result.i == INT64_MIN) return too_large(j);
        result.i = -result.i;
    }
    result.marked = v.marked;
    return result;
}

/* ---- rounding ------------------------------------------------------------------------------ */

/* Half to even at 10^digits, digits < 0. */
static jvalue round_int(jinja *j, int64_t i, int64_t digits) {
    if (digits < -18) return jinja_int(0);
    int64_t unit = 1;
    for (; digits < 0; digits++)
        unit *= 10;
    const int64_t rest = ((i % unit) + unit) % unit;
    int64_t down = 0;
    if (__builtin_sub_overflow(i, rest, &down)) return too_large(j);
    const bool up = 2 * (uint64_t)rest > (uint64_t)unit ||
                    (2 * (uint64_t)rest == (uint64_t)unit && (down / unit) % 2 != 0);
    if (up && __builtin_add_overflow(down, unit, &down)) return too_large(j);
    return jinja_int(down);
}

jvalue jinja_round(jinja *j, jvalue v, int64_t digits) {
    jvalue result = v;
    if (jinja_is_integer(v)) {
        result = digits >= 0 ? jinja_int(jinja_integer(v)) : round_int(j, jinja_integer(v), digits);
    } else if (isfinite(v.f) && digits < 0) {
        const double unit = digits < -308 ? 0 : pow(10, (double)-digits);
        result = jinja_float(unit == 0 ? copysign(0, v.f) : nearbyint(v.f / unit) * unit);
    } else if (isfinite(v.f) && digits <= 300) { /* more digits than a double has change nothing */
        char text[700];
        snprintf(text, sizeof(text), "%.*f", (int)digits, v.f);
        result = jinja_float(strtod(text, NULL));
    }
    result.marked = v.marked;
    return result;
}

/* ---- texts --------------------------------------------------------------------------------- */

/* Without the whitespace around it. */
static str trimmed(const jtext *t) {
    str s = jinja_str(t);
    uint32_t code;
    size_t n;
    while ((n = utf8_next(s, &code)) > 0 && jinja_is_space(code)) {
        s.data += n;
        s.size -= n;
    }
    while (s.size > 0 && (n = utf8_previous(s, s.size, &code)) > 0 && jinja_is_space(code)) {
        s.size -= n;
    }
    return s;
}

static int digit_value(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'z') return c - 'a' + 10;
    return c >= 'A' && c <= 'Z' ? c - 'A' + 10 : 99;
}

bool jinja_parse_int(jinja *j, const jtext *t, int base, int64_t *out) {
    str s = trimmed(t);
    size_t i = 0;
    const bool negative = s.size > 0 && s.data[0] == '-';
    if (s.size > 0 && (s.data[0] == '-' || s.data[0] == '+')) i++;
    if (base != 0 && (base < 2 || base > 36)) return false;
    const char letter = i + 1 < s.size && s.data[i] == '0' ? (char)(s.data[i + 1] | 0x20) : '\0';
    const int prefix = letter == 'b' ? 2 : letter == 'o' ? 8 : letter == 'x' ? 16 : 0;
    const bool zero_first = i < s.size && s.data[i] == '0';
    const bool any_base = base == 0;
    if (prefix != 0 && (any_base || base == prefix)) {
        base = prefix;
        i += 2;
        if (i < s.size && s.data[i] == '_') i++;
    } else if (any_base) {
        base = 10;
    }
    uint64_t value = 0;
    bool digit = false, overflow = false, nonzero = false;
    for (; i < s.size; i++) {
        if (s.data[i] == '_' && digit) {
            digit = false;
            continue;
        }
        const int d = digit_value(s.data[i]);
        if (d >= base) return false;
        digit = true;
        nonzero |= d != 0;
        overflow |= !mul_u64(value, (uint64_t)base, &value) || !add_u64(value, (uint64_t)d, &value);
    }
    if (!digit || (any_base && base == 10 && zero_first && nonzero)) return false;
    if (overflow || value > (uint64_t)INT64_MAX + negative) {
        too_large(j);
        return true;
    }
    *out = negative ? (int64_t)(0 - value) : (int64_t)value;
    return true;
}

bool jinja_parse_float(const jtext *t, double *out) {
    static const char *const names[] = { "inf", "infinity", "nan" };
    const str s = trimmed(t);
    char text[400];
    size_t n = 0;
    for (size_t i = 0; i < s.size; i++) { /* underscores stand between digits */
        if (n + 1 >= sizeof(text)) return false;
        const bool between = i > 0 && i + 1 < s.size && digit_value(s.data[i - 1]) < 10 &&
                             digit_value(s.data[i + 1]) < 10;
        if (s.data[i] == '_' && between) continue;
        text[n++] = s.data[i];
    }
    if (str_to_f64((str){ text, n }, out)) return true;
    const bool sign = n > 0 && (text[0] == '-' || text[0] == '+');
    for (size_t k = 0; k < ARRAY_LEN(names); k++) {
        bool same = n - sign == strlen(names[k]);
        for (size_t i = 0; same && i < n - sign; i++)
            same = (text[i + sign] | 0x20) == names[k][i];
        if (!same) continue;
        *out = k == 2 ? NAN : text[0] == '-' ? -INFINITY : INFINITY;
        return true;
    }
    return false;
}

bool jinja_float_to_int(jinja *j, double f, int64_t *out) {
    if (!isfinite(f)) return false;
    if (f >= 0x1p63 || f < -0x1p63) {
        too_large(j);
        return true;
    }
    *out = (int64_t)f;
    return true;
}
