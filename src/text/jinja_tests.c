/* jinja_tests: what stands behind `is`. */
#include "text/jinja_internal.h"

static jvalue test_boolean(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)j, (void)call, (void)args;
    return jinja_bool(self.kind == V_BOOL);
}

static jvalue test_callable(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)j, (void)call, (void)args;
    return jinja_bool(self.kind == V_MACRO || self.kind == V_METHOD || self.kind == V_GLOBAL ||
                      self.kind == V_JOINER || self.kind == V_LOOP || self.kind == V_UNDEFINED);
}

static jvalue test_defined(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)j, (void)call, (void)args;
    return jinja_bool(self.kind != V_UNDEFINED);
}

static jvalue test_undefined(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)j, (void)call, (void)args;
    return jinja_bool(self.kind == V_UNDEFINED);
}

/* value % by == rest */
static jvalue test_rest(jinja *j, jvalue self, jvalue by, int64_t rest) {
    return jinja_bool(jinja_equal(j, jinja_binary(j, OP_MOD, self, by), jinja_int(rest)));
}

static jvalue test_divisibleby(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    return test_rest(j, self, args[0], 0);
}

static jvalue test_even(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    return test_rest(j, self, jinja_int(2), 0);
}

static jvalue test_odd(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    return test_rest(j, self, jinja_int(2), 1);
}

static jvalue test_eq(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    return jinja_bool(jinja_equal(j, self, args[0]));
}

static jvalue test_ne(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    return jinja_bool(!jinja_equal(j, self, args[0]));
}

static jvalue test_lt(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    return jinja_bool(jinja_less(j, self, args[0], "<"));
}

static jvalue test_gt(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    return jinja_bool(jinja_less(j, args[0], self, ">"));
}

static jvalue test_le(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    return jinja_bool(jinja_less(j, self, args[0], "<=") || jinja_equal(j, self, args[0]));
}

static jvalue test_ge(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    return jinja_bool(jinja_less(j, args[0], self, ">=") || jinja_equal(j, self, args[0]));
}

static jvalue test_in(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    return jinja_bool(jinja_in(j, self, args[0]));
}

static jvalue test_none(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)j, (void)call, (void)args;
    return jinja_bool(self.kind == V_NONE);
}

static jvalue test_true(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)j, (void)call, (void)args;
    return jinja_bool(self.kind == V_BOOL && self.b);
}

static jvalue test_false(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)j, (void)call, (void)args;
    return jinja_bool(self.kind == V_BOOL && !self.b);
}

static jvalue test_integer(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)j, (void)call, (void)args;
    return jinja_bool(self.kind == V_INT);
}

static jvalue test_float(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)j, (void)call, (void)args;
    return jinja_bool(self.kind == V_FLOAT);
}

static jvalue test_number(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)j, (void)call, (void)args;
    return jinja_bool(jinja_is_number(self));
}

static jvalue test_string(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)j, (void)call, (void)args;
    return jinja_bool(self.kind == V_TEXT);
}

static jvalue test_mapping(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)j, (void)call, (void)args;
    return jinja_bool(self.kind == V_DICT);
}

static jvalue test_iterable(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)j, (void)call, (void)args;
    return jinja_bool(jinja_can_walk(self) || self.kind == V_LOOP);
}

/* What has a length and elements by index, which the views of a dict have not. */
static jvalue test_sequence(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)j, (void)call, (void)args;
    size_t n;
    return jinja_bool(self.kind != V_VIEW && jinja_length(self, &n));
}

/* Identity: small values are one object each, others are where they were made. */
static jvalue test_sameas(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    const jvalue other = args[0];
    if (self.kind != other.kind) return jinja_bool(false);
    if (self.kind == V_NONE || self.kind == V_BOOL || self.kind == V_INT) {
        return jinja_bool(jinja_equal(j, self, other));
    }
    return jinja_bool(self.kind == V_FLOAT ? self.f == other.f : self.iter == other.iter);
}

static jvalue test_lower(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    return jinja_bool(jinja_has_case(j, jinja_string(j, self), false));
}

static jvalue test_upper(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    return jinja_bool(jinja_has_case(j, jinja_string(j, self), true));
}

static jvalue test_filter(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    const str name = jinja_str(jinja_string(j, self));
    return jinja_bool(self.kind == V_TEXT && (jinja_filter(name) || jinja_is_left_out(name)));
}

static jvalue test_test(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    return jinja_bool(self.kind == V_TEXT && jinja_test(jinja_str(jinja_string(j, self))));
}

static jvalue test_escaped(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)j, (void)self, (void)call, (void)args;
    return jinja_bool(false); /* there is no markup */
}

const jentry *jinja_test(str name) {
    static const jentry table[] = {
        { "defined", test_defined, "" },
        { "undefined", test_undefined, "" },
        { "none", test_none, "" },
        { "string", test_string, "" },
        { "mapping", test_mapping, "" },
        { "iterable", test_iterable, "" },
        { "sequence", test_sequence, "" },
        { "number", test_number, "" },
        { "integer", test_integer, "" },
        { "float", test_float, "" },
        { "boolean", test_boolean, "" },
        { "true", test_true, "" },
        { "false", test_false, "" },
        { "callable", test_callable, "" },
        { "sameas", test_sameas, "other" },
        { "in", test_in, "seq" },
        { "eq", test_eq, "other" },
        { "equalto", test_eq, "other" },
        { "==", test_eq, "other" },
        { "ne", test_ne, "other" },
        { "!=", test_ne, "other" },
        { "lt", test_lt, "other" },
        { "lessthan", test_lt, "other" },
        { "<", test_lt, "other" },
        { "le", test_le, "other" },
        { "<=", test_le, "other" },
        { "gt", test_gt, "other" },
        { "greaterthan", test_gt, "other" },
        { ">", test_gt, "other" },
        { "ge", test_ge, "other" },
        { ">=", test_ge, "other" },
        { "even", test_even, "" },
        { "odd", test_odd, "" },
        { "divisibleby", test_divisibleby, "num" },
        { "lower", test_lower, "" },
        { "upper", test_upper, "" },
        { "filter", test_filter, "" },
        { "test", test_test, "" },
        { "escaped", test_escaped, "" },
    };
    return jinja_find_entry(table, ARRAY_LEN(table), name);
}
