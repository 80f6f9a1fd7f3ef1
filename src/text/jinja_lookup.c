/* jinja_lookup: v.name, v[key], v[a:b:c], and the methods of everything but texts.
 *
 * Attributes are tried before elements for v.name and after them for v[key], as jinja2 does. What
 * jinja2's sandbox hides is hidden here by not existing: there are the methods in these tables and
 * nothing else, and those that would change a list or dict are among what gives undefined. */
#include "text/jinja_internal.h"

/* ---- methods of dicts and lists ------------------------------------------------------------ */

static jvalue dict_get(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    jvalue v;
    if (!jinja_hashable(j, args[0])) {
        return jinja_wrong(j, "a %s cannot be the key of a dict", jinja_type(args[0]));
    }
    if (jinja_dict_get(j, self.dict, args[0], &v)) return v;
    return args[1].kind == V_ABSENT ? jinja_none() : args[1];
}

static jvalue dict_view(jinja *j, jvalue self, uint8_t what) {
    jdict *d = jinja_take(j, 1, sizeof(jdict));
    if (d == NULL) return self;
    *d = *self.dict;
    d->view = what;
    return (jvalue){ .kind = V_VIEW, .dict = d };
}

static jvalue dict_keys(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    return dict_view(j, self, VIEW_KEYS);
}

static jvalue dict_values(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    return dict_view(j, self, VIEW_VALUES);
}

static jvalue dict_items(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    return dict_view(j, self, VIEW_ITEMS);
}

static jvalue copy_of(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)j, (void)call, (void)args;
    return self; /* nothing changes either of them */
}

static jvalue list_count(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    int64_t n = 0;
    jvalue v;
    for (jwalk walk = jinja_walk(j, self); jinja_next(j, &walk, &v);) {
        n += jinja_equal(j, v, args[0]);
    }
    return jinja_int(n);
}

static jvalue list_index(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    size_t length = 0;
    jinja_length(self, &length);
    int64_t from = 0, to = (int64_t)length, at = 0;
    for (size_t i = 1; i < 3; i++) {
        if (args[i].kind == V_ABSENT) continue;
        if (!jinja_is_integer(args[i])) return jinja_wrong(j, "index: a bound that is no integer");
        int64_t bound = jinja_integer(args[i]);
        if (bound < 0) bound = bound + (int64_t)length < 0 ? 0 : bound + (int64_t)length;
        *(i == 1 ? &from : &to) = bound;
    }
    jvalue v;
    for (jwalk walk = jinja_walk(j, self); jinja_next(j, &walk, &v); at++) {
        if (at >= from && at < to && jinja_equal(j, v, args[0])) return jinja_int(at);
    }
    return jinja_wrong(j, "index: the %s does not hold that", jinja_type(self));
}

static jvalue cycler_next(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)j, (void)call, (void)args;
    const jvalue v = self.cycler->list->at[self.cycler->at];
    self.cycler->at = (self.cycler->at + 1) % self.cycler->list->n;
    return v;
}

static jvalue cycler_reset(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)j, (void)call, (void)args;
    self.cycler->at = 0;
    return jinja_none();
}

static jvalue float_is_integer(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    int64_t whole = 0;
    if (self.f >= 0x1p63 || self.f < -0x1p63) return jinja_bool(self.f - self.f == 0);
    return jinja_bool(jinja_float_to_int(j, self.f, &whole) && (double)whole == self.f);
}

static jvalue dict_fromkeys(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)self, (void)call;
    jdict *d = jinja_dict(j);
    jvalue key;
    for (jwalk walk = jinja_walk(j, args[0]); jinja_next(j, &walk, &key);) {
        jinja_dict_put(j, d, key, args[1].kind == V_ABSENT ? jinja_none() : args[1]);
    }
    return (jvalue){ .kind = V_DICT, .dict = d };
}

static const jentry *method_of(jvalue v, str name) {
    static const jentry dicts[] = {
        { "get", dict_get, "key,default=,/" },
        { "items", dict_items, "" },
        { "keys", dict_keys, "" },
        { "values", dict_values, "" },
        { "copy", copy_of, "" },
        { "fromkeys", dict_fromkeys, "iterable,value=,/" },
    };
    static const jentry lists[] = {
        { "index", list_index, "value,start=,stop=,/" },
        { "count", list_count, "value,/" },
        { "copy", copy_of, "" },
    };
    static const jentry cyclers[] = {
        { "next", cycler_next, "" },
        { "reset", cycler_reset, "" },
    };
    static const jentry floats[] = { { "is_integer", float_is_integer, "" } };
    switch ((jkind)v.kind) {
    case V_TEXT:
        return jinja_text_method(name);
    case V_DICT:
        return jinja_find_entry(dicts, ARRAY_LEN(dicts), name);
    case V_LIST:
        return jinja_find_entry(lists, ARRAY_LEN(lists), name);
    case V_TUPLE:
    case V_RANGE: /* which have no copy */
        return jinja_find_entry(lists, ARRAY_LEN(lists) - 1, name);
    case V_CYCLER:
        return jinja_find_entry(cyclers, ARRAY_LEN(cyclers), name);
    case V_FLOAT:
        return jinja_find_entry(floats, ARRAY_LEN(floats), name);
    case V_GLOBAL:
        return str_is(str_of(v.global->entry.name), "dict")
                   ? jinja_find_entry(&dicts[ARRAY_LEN(dicts) - 1], 1, name)
                   : NULL;
    default:
        return NULL;
    }
}

/* Methods that change their object, which the sandbox keeps from being reached. */
static bool is_mutator(jvalue v, str name) {
    static const char *const dicts[] = { "clear", "pop", "popitem", "setdefault", "update" };
    static const char *const lists[] = { "append", "clear", "pop",    "reverse",
                                         "insert", "sort",  "extend", "remove" };
    const bool dict = v.kind == V_DICT;
    if (!dict && v.kind != V_LIST) return false;
    const size_t n = dict ? ARRAY_LEN(dicts) : ARRAY_LEN(lists);
    for (size_t i = 0; i < n; i++) {
        if (str_is(name, dict ? dicts[i] : lists[i])) return true;
    }
    return false;
}

/* ---- attributes and elements --------------------------------------------------------------- */

bool jinja_find_attribute(jinja *j, jvalue v, const jtext *name, jvalue *found) {
    const str s = jinja_str(name);
    const bool special = str_starts(s, "__") && str_ends(s, "__");
    if (special || is_mutator(v, s)) {
        *found = jinja_undefined(j, "an attribute that is not safe to reach", NULL, NULL);
        return true;
    }
    const jentry *entry = method_of(v, s);
    if (entry != NULL) {
        jmethod *method = jinja_take(j, 1, sizeof(jmethod));
        if (method == NULL) return false;
        *method = (jmethod){ .entry = entry, .self = v };
        *found = (jvalue){ .kind = V_METHOD, .method = method };
        return true;
    }
    switch ((jkind)v.kind) {
    case V_SPACE:
        return jinja_dict_find(j, v.space->dict, s, found);
    case V_LOOP:
        return jinja_loop_attribute(j, v.loop, s, found);
    case V_TUPLE:
        if (!v.list->group || !(str_is(s, "grouper") || str_is(s, "list"))) return false;
        *found = v.list->at[str_is(s, "list")];
        return true;
    case V_CYCLER:
        if (!str_is(s, "current")) return false;
        *found = v.cycler->list->at[v.cycler->at];
        return true;
    case V_MACRO:
        if (!str_is(s, "name") || v.macro->name == NULL) return false;
        *found = (jvalue){ .kind = V_TEXT, .text = v.macro->name };
        return true;
    default:
        return false;
    }
}

/* v[key] alone; false if there is no such element, or v has none. */
static bool find_element(jinja *j, jvalue v, jvalue key, jvalue *found) {
    size_t n;
    if (v.kind == V_DICT) {
        return jinja_hashable(j, key) && jinja_dict_get(j, v.dict, key, found);
    }
    if (v.kind == V_VIEW || !jinja_length(v, &n) || !jinja_is_integer(key)) return false;
    int64_t i = jinja_integer(key);
    if (i < 0) i += (int64_t)n;
    if (i < 0 || i >= (int64_t)n) return false;
    if (v.kind == V_TEXT) {
        const size_t from = jinja_byte_of(j, v.text, (size_t)i);
        size_t to = from + 1;
        while (to < v.text->size && ((unsigned char)v.text->data[to] & 0xC0) == 0x80)
            to++;
        *found = jinja_part(j, v.text, from, to);
    } else {
        *found = v.kind == V_RANGE ? jinja_range_at(v.range, (size_t)i) : v.list->at[i];
    }
    return true;
}

jvalue jinja_get_attribute(jinja *j, jvalue v, const jtext *name) {
    jvalue found;
    if (j->failed) return jinja_none();
    if (v.kind == V_UNDEFINED) return jinja_use_undefined(j, v);
    if (jinja_find_attribute(j, v, name, &found)) return found;
    if (v.kind == V_DICT && jinja_dict_find(j, v.dict, jinja_str(name), &found)) return found;
    return jinja_undefined(j, NULL, jinja_type(v), name);
}

jvalue jinja_get_item(jinja *j, jvalue v, jvalue key) {
    jvalue found;
    if (j->failed) return jinja_none();
    if (v.kind == V_UNDEFINED) return jinja_use_undefined(j, v);
    if (find_element(j, v, key, &found)) return found;
    if (key.kind == V_TEXT && jinja_find_attribute(j, v, key.text, &found)) return found;
    return jinja_undefined(j, NULL, jinja_type(v), jinja_string(j, key));
}

/* ---- slices -------------------------------------------------------------------------------- */

/* A bound of a slice within [low, high]. */
static int64_t slice_bound(jinja *j, jvalue v, int64_t length, int64_t otherwise, int64_t low,
                           int64_t high) {
    if (v.kind == V_NONE || v.kind == V_ABSENT) return otherwise;
    if (v.kind == V_UNDEFINED) jinja_use_undefined(j, v);
    if (!jinja_is_integer(v)) {
        jinja_wrong(j, "a slice by a %s", jinja_type(v));
        return otherwise;
    }
    int64_t i = jinja_integer(v);
    if (i < 0) i += length;
    return i < low ? low : i > high ? high : i;
}

static jvalue slice_text(jinja *j, const jtext *t, int64_t from, int64_t n, int64_t by) {
    jout out = { 0 };
    if (by == 1) {
        const size_t a = jinja_byte_of(j, t, (size_t)from);
        return jinja_part(j, t, a, jinja_byte_of(j, t, (size_t)(from + n)));
    }
    /* The byte moves with the code point, so that the whole is linear. */
    size_t at = jinja_byte_of(j, t, (size_t)from);
    for (int64_t k = 0; k < n && !j->failed; k++) {
        size_t end = at + 1;
        while (end < t->size && ((unsigned char)t->data[end] & 0xC0) == 0x80)
            end++;
        jinja_charge(j, 1);
        jinja_put_part(j, &out, t, at, end);
        if (k + 1 == n) break;
        int64_t left = by < 0 ? -by : by;
        jinja_charge_bytes(j, (uint64_t)left);
        for (; left > 0; left--) {
            if (by > 0) {
                do
                    at++;
                while (((unsigned char)t->data[at] & 0xC0) == 0x80);
            } else {
                do
                    at--;
                while (((unsigned char)t->data[at] & 0xC0) == 0x80);
            }
        }
    }
    return jinja_finish(j, &out);
}

jvalue jinja_slice(jinja *j, jvalue v, jvalue start, jvalue stop, jvalue every) {
    size_t size = 0;
    if (j->failed) return jinja_none();
    if (v.kind == V_UNDEFINED) return jinja_use_undefined(j, v);
    if (v.kind == V_DICT || v.kind == V_VIEW || !jinja_length(v, &size)) {
        return jinja_wrong(j, "a slice of a %s", jinja_type(v));
    }
    const int64_t length = (int64_t)size;
    const int64_t by = slice_bound(j, every, 0, 1, -INT64_MAX, INT64_MAX);
    if (by == 0) return jinja_wrong(j, "a slice with a step of zero");
    const int64_t low = by < 0 ? -1 : 0, high = by < 0 ? length - 1 : length;
    const int64_t from = slice_bound(j, start, length, by < 0 ? high : low, low, high);
    const int64_t to = slice_bound(j, stop, length, by < 0 ? low : high, low, high);
    if (j->failed) return jinja_none();
    const uint64_t stride = by < 0 ? 0 - (uint64_t)by : (uint64_t)by;
    const uint64_t span =
        by < 0 ? (from > to ? (uint64_t)(from - to) : 0) : (to > from ? (uint64_t)(to - from) : 0);
    const int64_t n = span == 0 ? 0 : (int64_t)((span - 1) / stride) + 1;
    if (v.kind == V_TEXT) return n == 0 ? jinja_text_of(j, "") : slice_text(j, v.text, from, n, by);
    if (v.kind == V_RANGE) {
        jrange *r = jinja_take(j, 1, sizeof(jrange));
        if (r == NULL) return jinja_none();
        /* Bounds that are no elements may wrap round; nothing reads them but repr(). */
        const uint64_t first = (uint64_t)v.range->start, each = (uint64_t)v.range->step;
        *r = (jrange){ .start = (int64_t)(first + (uint64_t)from * each),
                       .stop = (int64_t)(first + (uint64_t)to * each),
                       .n = (uint64_t)n };
        if (__builtin_mul_overflow(by, v.range->step, &r->step)) {
            jinja_fail(j, DP_E_LIMIT, "a range's step beyond 64 bits");
        }
        return (jvalue){ .kind = V_RANGE, .range = r };
    }
    jitems items = { 0 };
    for (int64_t k = 0; k < n && !j->failed; k++) {
        jinja_push(j, &items, v.list->at[from + k * by]);
    }
    return jinja_list(j, &items, v.kind);
}
