/* jinja_value: what Python's objects do on their own: truth, equality, order, length, iteration,
 * and the memory and errors of the interpreter.
 *
 * A dict keeps its members in order of insertion and, from a handful on, an index by a keyed hash,
 * so that keys cannot be chosen to collide. 1, 1.0 and True are one key, as in Python. */
#include "text/jinja_internal.h"

#include <math.h>
#include <stdio.h>

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
        [V_ABSENT] = "absent",    [V_UNDEFINED] = "Undefined",
        [V_NONE] = "None",        [V_BOOL] = "bool",
        [V_INT] = "int",          [V_FLOAT] = "float",
        [V_TEXT] = "str",         [V_LIST] = "list",
        [V_TUPLE] = "tuple",      [V_DICT] = "dict",
        [V_VIEW] = "dict_keys",   [V_RANGE] = "range",
        [V_ITER] = "generator",   [V_SPACE] = "Namespace",
        [V_LOOP] = "LoopContext", [V_MACRO] = "Macro",
        [V_METHOD] = "method",    [V_GLOBAL] = "function",
        [V_CYCLER] = "Cycler",    [V_JOINER] = "Joiner",
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

jvalue jinja_broken_iter(jinja *j, jvalue over) {
    const jvalue v = jinja_iter(j, &(jitems){ 0 });
    if (v.kind == V_ITER) v.iter->broken = jinja_type(over);
    return v;
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
    for (size_t i = 0; hashable && i < v.list->n; i++)
        hashable = jinja_hashable(j, v.list->at[i]);
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
        for (size_t i = 0; i < v.list->n; i++)
            word = word * 31 + hash_value(j, v.list->at[i]);
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
        while (i < d->n && !jinja_equal(j, d->keys[i], key))
            i++;
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
        while (slots[at] != 0)
            at = (at + 1) & (d->n_slots - 1);
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
        equal =
            a.dict->view == b.dict->view && a.dict->view != VIEW_VALUES &&
            (a.dict->view == VIEW_ITEMS ? equal_dicts(j, a.dict, b.dict)
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

/* Keys and values, [n] each. */
typedef struct {
    jvalue *keys, *values;
} sort_rows;

/* Merges the sorted rows [start, middle) and [middle, end) of `from` into `to`. */
static void merge_runs(jinja *j, sort_rows from, sort_rows to, const size_t bounds[3],
                       bool reverse) {
    size_t a = bounds[0], b = bounds[1];
    for (size_t i = bounds[0]; i < bounds[2]; i++) {
        bool right = a == bounds[1];
        if (!right && b < bounds[2]) {
            jinja_charge(j, 1);
            right = reverse ? jinja_less(j, from.keys[a], from.keys[b], "<")
                            : jinja_less(j, from.keys[b], from.keys[a], "<");
        }
        const size_t pick = right ? b++ : a++;
        to.keys[i] = from.keys[pick];
        to.values[i] = from.values[pick];
    }
}

void jinja_sort(jinja *j, jvalue *keys, jvalue *values, size_t n, bool reverse) {
    jvalue *spare = jinja_take(j, 2 * n, sizeof(jvalue));
    if (spare == NULL) return;
    sort_rows from = { keys, values }, to = { spare, spare + n };
    for (size_t run = 1; run < n && !j->failed; run *= 2) {
        for (size_t start = 0; start < n; start += 2 * run) {
            const size_t middle = start + run < n ? start + run : n;
            const size_t end = start + 2 * run < n ? start + 2 * run : n;
            merge_runs(j, from, to, (const size_t[]){ start, middle, end }, reverse);
        }
        const sort_rows swap = from;
        from = to;
        to = swap;
    }
    if (from.keys != keys && n > 0) {
        memcpy(keys, from.keys, n * sizeof(jvalue));
        memcpy(values, from.values, n * sizeof(jvalue));
    }
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
        const uint64_t off =
            up ? (uint64_t)v.i - (uint64_t)r->start : (uint64_t)r->start - (uint64_t)v.i;
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
        if (over.iter->broken != NULL) {
            jinja_wrong(j, "a generator over a %s", over.iter->broken);
            return false;
        }
        if (over.iter->next >= over.iter->list->n) return false;
        *v = over.iter->list->at[over.iter->next++];
        return true;
    }
    if (!jinja_length(over, &n) || walk->i >= n) return false;
    const size_t i = walk->i++;
    switch ((jkind)over.kind) {
    case V_TEXT: {
        const size_t from = walk->byte;
        do
            walk->byte++;
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
