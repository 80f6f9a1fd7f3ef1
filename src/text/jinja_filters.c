/* jinja_filters: the filters of jinja2.
 *
 * Where jinja2 gives a generator this gives a V_ITER, which holds its elements already but may be
 * walked only once, as a generator: a template that walks it twice finds nothing the second time.
 * There is no HTML escaping besides the filter escape itself, and no markup type. */
#include "text/jinja_internal.h"

#include <math.h>
#include <stdio.h>

static bool flag_of(jvalue v, bool otherwise) {
    return v.kind == V_ABSENT ? otherwise : jinja_true(v);
}

static int64_t count_of(jinja *j, jvalue v, int64_t otherwise, const char *what) {
    if (v.kind == V_ABSENT || v.kind == V_NONE) return otherwise;
    if (jinja_is_integer(v)) return jinja_integer(v);
    jinja_wrong(j, "%s: %s instead of an integer", what, jinja_type(v));
    return otherwise;
}

static bool given(jvalue v) {
    return v.kind != V_ABSENT && v.kind != V_NONE;
}

/* ---- attributes of elements ---------------------------------------------------------------- */

/* The attribute "a.b.0", or a value that is one step itself; absent and none: the element. */
static jvalue follow_path(jinja *j, jvalue v, jvalue path, jvalue otherwise) {
    if (!given(path)) return v;
    if (path.kind != V_TEXT) {
        v = jinja_get_item(j, v, path);
        return v.kind == V_UNDEFINED && given(otherwise) ? otherwise : v;
    }
    const jtext *t = path.text;
    for (size_t at = 0; at <= t->size && !j->failed;) {
        const size_t dot = jinja_find(j, t, STR("."), at, t->size, false);
        const size_t end = dot == SIZE_MAX ? t->size : dot;
        const jvalue part = jinja_part(j, t, at, end);
        int64_t index = 0;
        bool digits = end > at;
        for (size_t i = at; i < end; i++)
            digits &= t->data[i] >= '0' && t->data[i] <= '9';
        const bool number = digits && jinja_parse_int(j, part.text, 10, &index);
        v = jinja_get_item(j, v, number ? jinja_int(index) : part);
        if (v.kind == V_UNDEFINED && given(otherwise)) v = otherwise;
        at = end + 1;
    }
    return v;
}

static jvalue without_case(jinja *j, jvalue v, bool case_sensitive) {
    return v.kind == V_TEXT && !case_sensitive ? jinja_case(j, v.text, CASE_LOWER) : v;
}

/* ---- order --------------------------------------------------------------------------------- */

/* A sorted copy by one attribute, whose values are left in *keys. */
static jvalue *sorted_by(jinja *j, const jlist *list, jvalue path, jvalue otherwise,
                         bool case_sensitive, bool reverse, jvalue **keys) {
    *keys = jinja_take(j, list->n, sizeof(jvalue));
    jvalue *values = jinja_take(j, list->n, sizeof(jvalue));
    if (*keys == NULL || values == NULL) return NULL;
    for (size_t i = 0; i < list->n && !j->failed; i++) {
        values[i] = list->at[i];
        (*keys)[i] = without_case(j, follow_path(j, list->at[i], path, otherwise), case_sensitive);
    }
    jinja_sort(j, *keys, values, list->n, reverse);
    return j->failed ? NULL : values;
}

/* sort: the key is the list of all attributes "a,b". */
static jvalue filter_sort(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    const jlist *list = jinja_to_list(j, self);
    jvalue *keys = jinja_take(j, list->n, sizeof(jvalue));
    jvalue *values = jinja_take(j, list->n, sizeof(jvalue));
    for (size_t i = 0; keys != NULL && values != NULL && i < list->n && !j->failed; i++) {
        jitems key = { 0 };
        const jvalue path = args[2];
        size_t at = 0;
        do {
            jvalue one = path;
            if (path.kind == V_TEXT) {
                const size_t comma = jinja_find(j, path.text, STR(","), at, path.text->size, false);
                const size_t end = comma == SIZE_MAX ? path.text->size : comma;
                one = jinja_part(j, path.text, at, end);
                at = comma == SIZE_MAX ? SIZE_MAX : end + 1;
            } else {
                at = SIZE_MAX;
            }
            const jvalue v = follow_path(j, list->at[i], one, jinja_none());
            jinja_push(j, &key, without_case(j, v, flag_of(args[1], false)));
        } while (at != SIZE_MAX && !j->failed);
        keys[i] = jinja_list(j, &key, V_LIST);
        values[i] = list->at[i];
    }
    if (j->failed) return jinja_none();
    jinja_sort(j, keys, values, list->n, flag_of(args[0], false));
    const jitems sorted = { .at = values, .n = list->n };
    return jinja_list(j, &sorted, V_LIST);
}

static jvalue filter_dictsort(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    const bool by_value = args[1].kind == V_TEXT && str_is(jinja_str(args[1].text), "value");
    if (self.kind == V_UNDEFINED) return jinja_use_undefined(j, self);
    if (self.kind != V_DICT) return jinja_wrong(j, "dictsort of a %s", jinja_type(self));
    if (args[1].kind != V_ABSENT && !by_value &&
        !(args[1].kind == V_TEXT && str_is(jinja_str(args[1].text), "key"))) {
        return jinja_wrong(j, "dictsort goes by \"key\" or \"value\"");
    }
    jdict view = *self.dict;
    view.view = VIEW_ITEMS;
    const jlist *list = jinja_to_list(j, (jvalue){ .kind = V_VIEW, .dict = &view });
    jvalue *keys;
    jvalue *values = sorted_by(j, list, jinja_int(by_value), jinja_none(), flag_of(args[0], false),
                               flag_of(args[2], false), &keys);
    const jitems sorted = { .at = values, .n = values == NULL ? 0 : list->n };
    return jinja_list(j, &sorted, V_LIST);
}

static jvalue filter_groupby(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    const jlist *list = jinja_to_list(j, self);
    jvalue *keys;
    const jvalue *values =
        sorted_by(j, list, args[0], args[1], flag_of(args[2], false), false, &keys);
    jitems groups = { 0 };
    for (size_t i = 0, end; values != NULL && i < list->n && !j->failed; i = end) {
        jitems members = { 0 }, pair = { 0 };
        for (end = i; end < list->n && jinja_equal(j, keys[i], keys[end]); end++) {
            jinja_push(j, &members, values[end]);
        }
        if (end == i) end++; /* a NaN is not even equal to itself */
        jinja_push(j, &pair, follow_path(j, values[i], args[0], args[1]));
        jinja_push(j, &pair, jinja_list(j, &members, V_LIST));
        jlist *group = jinja_take(j, 1, sizeof(jlist));
        if (group == NULL) break;
        *group = (jlist){ .at = pair.at, .n = pair.n, .group = true };
        jinja_push(j, &groups, (jvalue){ .kind = V_TUPLE, .list = group });
    }
    return jinja_list(j, &groups, V_LIST);
}

static jvalue extreme_of(jinja *j, jvalue self, const jvalue *args, bool largest) {
    const jlist *list = jinja_to_list(j, self);
    jvalue best = jinja_none(), best_key = jinja_none();
    if (list->n == 0) {
        return jinja_undefined(j, "No aggregated item, sequence was empty.", NULL, NULL);
    }
    for (size_t i = 0; i < list->n && !j->failed; i++) {
        const jvalue key = without_case(j, follow_path(j, list->at[i], args[1], jinja_none()),
                                        flag_of(args[0], false));
        jinja_charge(j, 1);
        if (i > 0 &&
            !(largest ? jinja_less(j, best_key, key, ">") : jinja_less(j, key, best_key, "<"))) {
            continue;
        }
        best = list->at[i];
        best_key = key;
    }
    return best;
}

static jvalue filter_max(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    return extreme_of(j, self, args, true);
}

static jvalue filter_min(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    return extreme_of(j, self, args, false);
}

static jvalue filter_unique(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    if (!jinja_can_walk(self)) return jinja_broken_iter(j, self);
    const jlist *list = jinja_to_list(j, self);
    jdict *seen = jinja_dict(j);
    jitems kept = { 0 };
    for (size_t i = 0; i < list->n && !j->failed; i++) {
        const jvalue key = without_case(j, follow_path(j, list->at[i], args[1], jinja_none()),
                                        flag_of(args[0], false));
        const size_t n = seen->n;
        jinja_dict_put(j, seen, key, jinja_none());
        if (seen->n > n) jinja_push(j, &kept, list->at[i]);
    }
    return jinja_iter(j, &kept);
}

/* ---- choosing and mapping ------------------------------------------------------------------ */

/* The rest of a call behind its first `n` arguments. */
static jcall call_behind(const jcall *call, size_t n) {
    jcall rest = *call;
    if (n >= call->n) rest.n = 0;
    if (n < call->n) {
        rest.at += n;
        rest.n -= n;
    }
    return rest;
}

static const jentry *entry_of(jinja *j, jvalue name, bool filter) {
    const jentry *entry = NULL;
    if (name.kind == V_TEXT) {
        entry = filter ? jinja_filter(jinja_str(name.text)) : jinja_test(jinja_str(name.text));
    }
    if (entry == NULL) {
        const jtext *t = jinja_string(j, name);
        jinja_wrong(j, "there is no %s \"%.*s\"", filter ? "filter" : "test",
                    STR_ARG(jinja_str(t)));
    }
    return entry;
}

static jvalue choose_elements(jinja *j, jvalue self, const jcall *call, bool attribute, bool keep) {
    jitems kept = { 0 };
    jvalue v;
    if (!jinja_true(self)) return jinja_iter(j, &kept);
    if (!jinja_can_walk(self)) return jinja_broken_iter(j, self);
    if (attribute && call->n == 0) return jinja_wrong(j, "the name of an attribute is missing");
    const size_t off = attribute;
    const jentry *test = call->n > off ? entry_of(j, call->at[off], false) : NULL;
    const jcall rest = call_behind(call, off + 1);
    for (jwalk walk = jinja_walk(j, self); jinja_next(j, &walk, &v);) {
        const jvalue of = attribute ? follow_path(j, v, call->at[0], jinja_none()) : v;
        const bool holds = jinja_true(test != NULL ? jinja_invoke(j, test, of, &rest) : of);
        if (holds == keep) jinja_push(j, &kept, v);
    }
    return jinja_iter(j, &kept);
}

static jvalue filter_select(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)args;
    return choose_elements(j, self, call, false, true);
}

static jvalue filter_reject(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)args;
    return choose_elements(j, self, call, false, false);
}

static jvalue filter_selectattr(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)args;
    return choose_elements(j, self, call, true, true);
}

static jvalue filter_rejectattr(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)args;
    return choose_elements(j, self, call, true, false);
}

static jvalue filter_map(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)args;
    jitems mapped = { 0 };
    jvalue v, path = jinja_absent(), otherwise = jinja_absent();
    const jentry *filter = NULL;
    if (!jinja_true(self)) return jinja_iter(j, &mapped);
    if (!jinja_can_walk(self)) return jinja_broken_iter(j, self);
    for (size_t i = 0; call->n == 0 && i < call->n_keys; i++) {
        const str name = jinja_str(call->keys[i].name);
        if (str_is(name, "attribute")) {
            path = call->keys[i].v;
        } else if (str_is(name, "default")) {
            otherwise = call->keys[i].v;
        } else {
            return jinja_wrong(j, "map: unknown argument '%.*s'", STR_ARG(name));
        }
    }
    if (path.kind == V_ABSENT) {
        if (call->n == 0) return jinja_wrong(j, "map: the name of a filter is missing");
        filter = entry_of(j, call->at[0], true);
    }
    const jcall rest = call_behind(call, 1);
    for (jwalk walk = jinja_walk(j, self); jinja_next(j, &walk, &v);) {
        jinja_push(j, &mapped,
                   filter != NULL ? jinja_invoke(j, filter, v, &rest)
                                  : follow_path(j, v, path, otherwise));
    }
    return jinja_iter(j, &mapped);
}

/* ---- sequences ----------------------------------------------------------------------------- */

static jvalue filter_length(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    size_t n = 0;
    if (!jinja_length(self, &n)) return jinja_wrong(j, "a %s has no length", jinja_type(self));
    return jinja_int((int64_t)n);
}

static jvalue filter_first(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    jvalue v;
    jwalk walk = jinja_walk(j, self);
    if (jinja_next(j, &walk, &v)) return v;
    return jinja_undefined(j, "No first item, sequence was empty.", NULL, NULL);
}

static jvalue filter_last(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    if (self.kind == V_ITER) return jinja_wrong(j, "last: a generator has no end to begin with");
    const jlist *list = jinja_to_list(j, self);
    if (list->n > 0) return list->at[list->n - 1];
    return jinja_undefined(j, "No last item, sequence was empty.", NULL, NULL);
}

static jvalue filter_list(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    return (jvalue){ .kind = V_LIST, .list = jinja_to_list(j, self) };
}

static jvalue filter_items(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    jitems items = { 0 };
    if (self.kind == V_UNDEFINED) return jinja_iter(j, &items);
    if (self.kind != V_DICT) return jinja_broken_iter(j, self);
    jdict view = *self.dict;
    view.view = VIEW_ITEMS;
    const jlist *list = jinja_to_list(j, (jvalue){ .kind = V_VIEW, .dict = &view });
    for (size_t i = 0; i < list->n && !j->failed; i++)
        jinja_push(j, &items, list->at[i]);
    return jinja_iter(j, &items);
}

static jvalue filter_reverse(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    if (self.kind == V_TEXT) {
        return jinja_slice(j, self, jinja_none(), jinja_none(), jinja_int(-1));
    }
    const jlist *list = jinja_to_list(j, self);
    jitems items = { 0 };
    for (size_t i = list->n; i-- > 0 && !j->failed;)
        jinja_push(j, &items, list->at[i]);
    return self.kind == V_ITER ? jinja_list(j, &items, V_LIST) : jinja_iter(j, &items);
}

static jvalue filter_join(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    const jlist *list = jinja_to_list(j, self);
    if (given(args[1])) {
        jitems parts = { 0 };
        for (size_t i = 0; i < list->n && !j->failed; i++) {
            jinja_push(j, &parts, follow_path(j, list->at[i], args[1], jinja_none()));
        }
        list = jinja_list(j, &parts, V_LIST).list;
    }
    const jtext *separator =
        args[0].kind == V_ABSENT ? jinja_text_of(j, "").text : jinja_string(j, args[0]);
    return jinja_join(j, separator, list, false);
}

static jvalue filter_sum(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    jvalue sum = args[1].kind == V_ABSENT ? jinja_int(0) : args[1], v;
    if (sum.kind == V_TEXT) return jinja_wrong(j, "sum adds no texts");
    for (jwalk walk = jinja_walk(j, self); jinja_next(j, &walk, &v);) {
        sum = jinja_binary(j, OP_ADD, sum, follow_path(j, v, args[0], jinja_none()));
    }
    return sum;
}

static jvalue filter_batch(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    if (!jinja_can_walk(self)) return jinja_broken_iter(j, self);
    const jlist *list = jinja_to_list(j, self);
    const int64_t n = count_of(j, args[0], 0, "batch");
    jitems batches = { 0 }, row = { 0 };
    for (size_t i = 0; i < list->n && !j->failed; i++) {
        if ((int64_t)row.n == n) {
            jinja_push(j, &batches, jinja_list(j, &row, V_LIST));
            row = (jitems){ 0 };
        }
        jinja_push(j, &row, list->at[i]);
    }
    if (row.n > 0) {
        while (given(args[1]) && (int64_t)row.n < n && !j->failed)
            jinja_push(j, &row, args[1]);
        jinja_push(j, &batches, jinja_list(j, &row, V_LIST));
    }
    return jinja_iter(j, &batches);
}

static jvalue filter_slice(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    if (!jinja_can_walk(self)) return jinja_broken_iter(j, self);
    const jlist *list = jinja_to_list(j, self);
    const int64_t n = count_of(j, args[0], 0, "slice");
    jitems slices = { 0 };
    if (n == 0) return jinja_wrong(j, "slice: division by zero");
    size_t at = 0;
    for (int64_t k = 0; k < n && !j->failed; k++) {
        jitems part = { 0 };
        const int64_t extra = (int64_t)list->n % n;
        const size_t size = list->n / (size_t)n + (k < extra);
        for (size_t i = 0; i < size && !j->failed; i++)
            jinja_push(j, &part, list->at[at++]);
        if (given(args[1]) && k >= extra) jinja_push(j, &part, args[1]);
        jinja_push(j, &slices, jinja_list(j, &part, V_LIST));
    }
    return jinja_iter(j, &slices);
}

/* ---- numbers ------------------------------------------------------------------------------- */

static jvalue filter_abs(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    if (!jinja_is_number(self)) return jinja_wrong(j, "abs of a %s", jinja_type(self));
    const bool negative = self.kind == V_FLOAT ? signbit(self.f) != 0 : jinja_integer(self) < 0;
    return jinja_negate(j, self, negative);
}

static jvalue filter_int(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    const jvalue otherwise = args[0].kind == V_ABSENT ? jinja_int(0) : args[0];
    jvalue v = jinja_int(0);
    double f = 0;
    v.marked = self.marked;
    if (self.kind == V_UNDEFINED) return jinja_use_undefined(j, self);
    if (self.kind == V_TEXT) {
        v.marked = self.text->marked || self.text->marks != NULL;
        jinja_charge(j, 10);
        const int64_t base = count_of(j, args[1], 10, "int");
        if (jinja_parse_int(j, self.text, base < 0 || base > 36 ? 99 : (int)base, &v.i)) return v;
        if (jinja_parse_float(self.text, &f) && jinja_float_to_int(j, f, &v.i)) return v;
        return otherwise;
    }
    if (jinja_is_integer(self)) {
        v.i = jinja_integer(self);
        return v;
    }
    if (self.kind != V_FLOAT) return otherwise;
    if (isinf(self.f)) return jinja_wrong(j, "int of an infinity");
    return jinja_float_to_int(j, self.f, &v.i) ? v : otherwise;
}

static jvalue filter_float(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    jvalue v = jinja_float(0);
    jinja_charge(j, 10);
    if (self.kind == V_UNDEFINED) return jinja_use_undefined(j, self);
    if (jinja_is_number(self)) v.f = jinja_real(self);
    if (self.kind == V_TEXT) v.marked = self.text->marked || self.text->marks != NULL;
    if (jinja_is_number(self)) v.marked = self.marked;
    if (jinja_is_number(self) || (self.kind == V_TEXT && jinja_parse_float(self.text, &v.f))) {
        return v;
    }
    return args[0].kind == V_ABSENT ? jinja_float(0) : args[0];
}

static jvalue filter_round(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    const int64_t digits = count_of(j, args[0], 0, "round");
    const str method = args[1].kind == V_TEXT ? jinja_str(args[1].text) : STR("common");
    if (self.kind == V_UNDEFINED) return jinja_use_undefined(j, self);
    if (!jinja_is_number(self)) return jinja_wrong(j, "round of a %s", jinja_type(self));
    if (str_is(method, "common")) return jinja_round(j, self, digits);
    if (!str_is(method, "ceil") && !str_is(method, "floor")) {
        return jinja_wrong(j, "round: the method is common, ceil or floor");
    }
    const double unit = pow(10, (double)digits), scaled = jinja_real(self) * unit;
    if (!isfinite(scaled) || unit == 0) return jinja_wrong(j, "round: beyond a double");
    jvalue v = jinja_float((str_is(method, "ceil") ? ceil(scaled) : floor(scaled)) / unit);
    v.f += 0.0; /* Python divides integers, which have no negative zero */
    v.marked = self.marked;
    return v;
}

/* ---- texts --------------------------------------------------------------------------------- */

static jvalue filter_string(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    return (jvalue){ .kind = V_TEXT, .text = jinja_string(j, self) };
}

static jvalue filter_upper(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    return jinja_case(j, jinja_string(j, self), CASE_UPPER);
}

static jvalue filter_lower(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    return jinja_case(j, jinja_string(j, self), CASE_LOWER);
}

static jvalue filter_capitalize(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    return jinja_case(j, jinja_string(j, self), CASE_CAPITALIZE);
}

/* Words begin behind whitespace, hyphens and opening brackets. */
static jvalue filter_title(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    const jtext *t = jinja_string(j, self);
    jout out = { 0 };
    bool in_word = false;
    for (size_t i = 0; i < t->size && !j->failed;) {
        uint32_t code = 0;
        size_t n = utf8_next((str){ t->data + i, t->size - i }, &code);
        if (n == 0) n = 1;
        const bool gap =
            jinja_is_space(code) || (code < 0x80 && strchr("-({[<", (int)code) != NULL);
        const jtext *one = jinja_part(j, t, i, i + n).text;
        jinja_charge(j, 1);
        jinja_put_value(j, &out, jinja_case(j, one, in_word || gap ? CASE_LOWER : CASE_UPPER));
        in_word = !gap;
        i += n;
    }
    return jinja_finish(j, &out);
}

static jvalue filter_trim(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    return jinja_strip(j, jinja_string(j, self), args[0], true, true);
}

static jvalue filter_replace(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    return jinja_replace(j, jinja_string(j, self), jinja_string(j, args[0]),
                         jinja_string(j, args[1]), count_of(j, args[2], -1, "replace"));
}

static jvalue filter_center(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    return jinja_pad(j, jinja_string(j, self), count_of(j, args[0], 80, "center"), NULL,
                     PAD_CENTER);
}

static jvalue filter_format(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)args;
    const jtext *format = jinja_string(j, self);
    if (call->n > 0 && call->n_keys > 0) {
        return jinja_wrong(j, "format: values by place and by name");
    }
    if (call->n_keys > 0) {
        jdict *named = jinja_dict(j);
        for (size_t i = 0; i < call->n_keys; i++) {
            jinja_dict_put(j, named, (jvalue){ .kind = V_TEXT, .text = call->keys[i].name },
                           call->keys[i].v);
        }
        return jinja_percent(j, format, (jvalue){ .kind = V_DICT, .dict = named });
    }
    const jlist list = { .at = call->at, .n = call->n };
    return jinja_percent(j, format, (jvalue){ .kind = V_TUPLE, .list = &list });
}

static jvalue filter_indent(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    jout out = { 0 };
    if (self.kind == V_UNDEFINED) return jinja_use_undefined(j, self);
    if (self.kind != V_TEXT) return jinja_wrong(j, "indent of a %s", jinja_type(self));
    const int64_t width = args[0].kind == V_TEXT ? 0 : count_of(j, args[0], 4, "indent");
    const jtext *with = args[0].kind == V_TEXT
                            ? args[0].text
                            : jinja_binary(j, OP_MUL, jinja_text_of(j, " "), jinja_int(width)).text;
    const bool first = flag_of(args[1], false), blank = flag_of(args[2], false);
    const jvalue ended = jinja_binary(j, OP_ADD, self, jinja_text_of(j, "\n"));
    if (j->failed) return jinja_none();
    const jlist *lines = jinja_split_lines(j, ended.text, false).list;
    if (first) jinja_put_text(j, &out, with);
    for (size_t i = 0; i < lines->n && !j->failed; i++) {
        const jtext *line = lines->at[i].text;
        if (i > 0) jinja_put_str(j, &out, "\n");
        if (i > 0 && (blank || line->size > 0)) jinja_put_text(j, &out, with);
        jinja_put_text(j, &out, line);
    }
    return jinja_finish(j, &out);
}

static jvalue filter_truncate(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    const int64_t length = count_of(j, args[0], 255, "truncate");
    const int64_t leeway = count_of(j, args[3], 5, "truncate");
    const jtext *end =
        args[2].kind == V_ABSENT ? jinja_text_of(j, "...").text : jinja_string(j, args[2]);
    size_t n = 0;
    if (length < (int64_t)end->length || leeway < 0) {
        return jinja_wrong(j, "truncate: shorter than its end");
    }
    const bool short_enough =
        jinja_length(self, &n) && ((int64_t)n <= length || (int64_t)n - length <= leeway);
    if (short_enough) return self;
    if (self.kind != V_TEXT) return jinja_wrong(j, "truncate of a %s", jinja_type(self));
    const jtext *t = self.text;
    size_t cut = jinja_byte_of(j, t, (size_t)(length - (int64_t)end->length));
    if (!flag_of(args[1], false)) {
        const size_t space = jinja_find(j, t, STR(" "), 0, cut, true);
        if (space != SIZE_MAX) cut = space;
    }
    jout out = { 0 };
    jinja_put_part(j, &out, t, 0, cut);
    jinja_put_text(j, &out, end);
    return jinja_finish(j, &out);
}

static jvalue filter_wordcount(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    const jtext *t = jinja_string(j, self);
    int64_t words = 0;
    bool in_word = false;
    jinja_charge_bytes(j, t->size);
    for (size_t i = 0; i < t->size;) {
        uint32_t code = 0;
        const size_t n = utf8_next((str){ t->data + i, t->size - i }, &code);
        const bool word = jinja_is_alnum(code) || code == '_';
        words += word && !in_word;
        in_word = word;
        i += n > 0 ? n : 1;
    }
    return jinja_int(words);
}

static jvalue filter_escape(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    const jtext *t = jinja_string(j, self);
    jout out = { 0 };
    for (size_t i = 0; i < t->size && !j->failed; i++) {
        const char *name = NULL;
        switch (t->data[i]) {
        case '&':
            name = "&amp;";
            break;
        case '<':
            name = "&lt;";
            break;
        case '>':
            name = "&gt;";
            break;
        case '"':
            name = "&#34;";
            break;
        case '\'':
            name = "&#39;";
            break;
        default:
            jinja_put_part(j, &out, t, i, i + 1);
            continue;
        }
        jinja_put(j, &out, name, strlen(name), jinja_marked_at(t, i));
    }
    return jinja_finish(j, &out);
}

static void put_quoted_url(jinja *j, jout *out, jvalue v, bool in_query) {
    const jtext *t = jinja_string(j, v);
    for (size_t i = 0; i < t->size && !j->failed; i++) {
        const unsigned char c = (unsigned char)t->data[i];
        const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
                           (c >= 'A' && c <= 'Z') || (c < 0x80 && strchr("_.-~", c) != NULL) ||
                           (c == '/' && !in_query);
        char text[4];
        if (c == ' ' && in_query) {
            jinja_put(j, out, "+", 1, jinja_marked_at(t, i));
        } else if (plain && c != '\0') {
            jinja_put_part(j, out, t, i, i + 1);
        } else {
            snprintf(text, sizeof(text), "%%%02X", c);
            jinja_put(j, out, text, 3, jinja_marked_at(t, i));
        }
    }
}

static jvalue filter_urlencode(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    jout out = { 0 };
    if (self.kind == V_TEXT || !jinja_can_walk(self)) {
        put_quoted_url(j, &out, self, false);
        return jinja_finish(j, &out);
    }
    jvalue pair;
    jdict view = self.kind == V_DICT ? *self.dict : (jdict){ 0 };
    view.view = VIEW_ITEMS;
    if (self.kind == V_DICT) self = (jvalue){ .kind = V_VIEW, .dict = &view };
    for (jwalk walk = jinja_walk(j, self); jinja_next(j, &walk, &pair);) {
        const jlist *both = jinja_to_list(j, pair);
        if (both->n != 2) return jinja_wrong(j, "urlencode: an element that is no pair");
        if (out.size > 0) jinja_put_str(j, &out, "&");
        put_quoted_url(j, &out, both->at[0], true);
        jinja_put_str(j, &out, "=");
        put_quoted_url(j, &out, both->at[1], true);
    }
    return jinja_finish(j, &out);
}

/* ---- the rest ------------------------------------------------------------------------------ */

static jvalue filter_default(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    if (self.kind != V_UNDEFINED && !(flag_of(args[1], false) && !jinja_true(self))) return self;
    return args[0].kind == V_ABSENT ? jinja_text_of(j, "") : args[0];
}

static jvalue filter_attr(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    jvalue v;
    const jtext *name = jinja_string(j, args[0]);
    if (self.kind == V_UNDEFINED) return jinja_use_undefined(j, self);
    if (jinja_find_attribute(j, self, name, &v)) return v;
    return jinja_undefined(j, NULL, jinja_type(self), name);
}

const jentry *jinja_filter(str name) {
    static const jentry table[] = {
        { "trim", filter_trim, "chars=" },
        { "tojson", jinja_tojson, "ensure_ascii=,indent=,separators=,sort_keys=" },
        { "length", filter_length, "" },
        { "default", filter_default, "default_value=,boolean=" },
        { "list", filter_list, "" },
        { "join", filter_join, "d=,attribute=" },
        { "selectattr", filter_selectattr, NULL },
        { "rejectattr", filter_rejectattr, NULL },
        { "select", filter_select, NULL },
        { "reject", filter_reject, NULL },
        { "map", filter_map, NULL },
        { "items", filter_items, "" },
        { "first", filter_first, "" },
        { "last", filter_last, "" },
        { "string", filter_string, "" },
        { "upper", filter_upper, "" },
        { "lower", filter_lower, "" },
        { "capitalize", filter_capitalize, "" },
        { "title", filter_title, "" },
        { "replace", filter_replace, "old,new,count=" },
        { "indent", filter_indent, "width=,first=,blank=" },
        { "count", filter_length, "" },
        { "d", filter_default, "default_value=,boolean=" },
        { "abs", filter_abs, "" },
        { "attr", filter_attr, "name" },
        { "batch", filter_batch, "linecount,fill_with=" },
        { "center", filter_center, "width=" },
        { "dictsort", filter_dictsort, "case_sensitive=,by=,reverse=" },
        { "e", filter_escape, "" },
        { "escape", filter_escape, "" },
        { "forceescape", filter_escape, "" },
        { "float", filter_float, "default=" },
        { "format", filter_format, NULL },
        { "groupby", filter_groupby, "attribute,default=,case_sensitive=" },
        { "int", filter_int, "default=,base=" },
        { "max", filter_max, "case_sensitive=,attribute=" },
        { "min", filter_min, "case_sensitive=,attribute=" },
        { "reverse", filter_reverse, "" },
        { "round", filter_round, "precision=,method=" },
        { "safe", filter_string, "" },
        { "slice", filter_slice, "slices,fill_with=" },
        { "sort", filter_sort, "reverse=,case_sensitive=,attribute=" },
        { "sum", filter_sum, "attribute=,start=" },
        { "truncate", filter_truncate, "length=,killwords=,end=,leeway=" },
        { "unique", filter_unique, "case_sensitive=,attribute=" },
        { "urlencode", filter_urlencode, "" },
        { "wordcount", filter_wordcount, "" },
    };
    return jinja_find_entry(table, ARRAY_LEN(table), name);
}

bool jinja_is_left_out(str name) {
    static const char *const left_out[] = { "filesizeformat", "pprint",   "random", "striptags",
                                            "urlize",         "wordwrap", "xmlattr" };
    for (size_t i = 0; i < ARRAY_LEN(left_out); i++) {
        if (str_is(name, left_out[i])) return true;
    }
    return false;
}
