/* jinja_string: the methods of Python's str, but for case and classes (jinja_case.c).
 *
 * Positions that a template sees are code points, those in here bytes; texts that are ASCII need no
 * conversion. Every result takes its marks from the bytes that it is made of. */
#define _GNU_SOURCE /* memmem */

#include "text/jinja_internal.h"

static bool is_line_end(uint32_t code) {
    return (code >= 0x0A && code <= 0x0D) || (code >= 0x1C && code <= 0x1E) || code == 0x85 ||
           code == 0x2028 || code == 0x2029;
}

/* ---- searching ----------------------------------------------------------------------------- */

size_t jinja_find(jinja *j, const jtext *t, str what, size_t from, size_t to, bool last) {
    if (from > to || what.size > to - from) return SIZE_MAX;
    if (what.size == 0) return last ? to : from;
    if (!last) {
        const char *found = memmem(t->data + from, to - from, what.data, what.size);
        const size_t at = found == NULL ? to : (size_t)(found - t->data);
        jinja_charge_bytes(j, at - from);
        return found == NULL ? SIZE_MAX : at;
    }
    for (size_t at = to - what.size + 1; at-- > from && !j->failed;) {
        if (t->data[at] != what.data[0]) continue;
        jinja_charge(j, 1 + what.size / JINJA_BYTES_PER_STEP);
        if (memcmp(t->data + at, what.data, what.size) == 0) return at;
    }
    jinja_charge_bytes(j, to - from);
    return SIZE_MAX;
}

static size_t points_before(jinja *j, const jtext *t, size_t byte) {
    if (t->length == t->size) return byte;
    return jinja_part(j, t, 0, byte).text->length;
}

static const jtext *want_text(jinja *j, jvalue v, const char *what) {
    if (v.kind == V_TEXT) return v.text;
    if (v.kind == V_UNDEFINED) {
        jinja_use_undefined(j, v);
    } else {
        jinja_wrong(j, "%s is a %s, not a text", what, jinja_type(v));
    }
    return jinja_text(j, "", 0, false).text;
}

static int64_t want_int(jinja *j, jvalue v, int64_t otherwise, const char *what) {
    if (v.kind == V_ABSENT) return otherwise;
    if (jinja_is_integer(v)) return jinja_integer(v);
    jinja_wrong(j, "%s is a %s, not an integer", what, jinja_type(v));
    return otherwise;
}

/* Bytes [from, to) of the optional arguments start and end; false if start is beyond the end. */
static bool search_range(jinja *j, const jtext *t, jvalue start, jvalue end, size_t *from,
                         size_t *to) {
    const int64_t length = (int64_t)t->length;
    if (start.kind == V_NONE) start = jinja_absent();
    if (end.kind == V_NONE) end = jinja_absent();
    int64_t a = want_int(j, start, 0, "start"), b = want_int(j, end, length, "end");
    if (a < 0) a = a + length < 0 ? 0 : a + length;
    if (b < 0) b = b + length < 0 ? 0 : b + length;
    if (b > length) b = length;
    if (a > length) return false;
    *from = jinja_byte_of(j, t, (size_t)a);
    *to = jinja_byte_of(j, t, (size_t)b);
    return a <= b;
}

static jvalue find_common(jinja *j, jvalue self, const jvalue *args, bool last, bool must) {
    const jtext *what = want_text(j, args[0], "what is looked for");
    size_t from, to, at = SIZE_MAX;
    if (search_range(j, self.text, args[1], args[2], &from, &to)) {
        at = jinja_find(j, self.text, jinja_str(what), from, to, last);
    }
    if (at != SIZE_MAX) return jinja_int((int64_t)points_before(j, self.text, at));
    return must ? jinja_wrong(j, "index: the text does not hold that") : jinja_int(-1);
}

static jvalue text_find(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    return find_common(j, self, args, false, false);
}

static jvalue text_rfind(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    return find_common(j, self, args, true, false);
}

static jvalue text_index(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    return find_common(j, self, args, false, true);
}

static jvalue text_rindex(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    return find_common(j, self, args, true, true);
}

static jvalue text_count(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    const jtext *what = want_text(j, args[0], "what is counted");
    size_t from, to;
    int64_t n = 0;
    if (!search_range(j, self.text, args[1], args[2], &from, &to)) return jinja_int(0);
    if (what->size == 0) {
        return jinja_int((int64_t)jinja_part(j, self.text, from, to).text->length + 1);
    }
    while (!j->failed) {
        const size_t at = jinja_find(j, self.text, jinja_str(what), from, to, false);
        if (at == SIZE_MAX) break;
        jinja_charge(j, 1);
        from = at + what->size;
        n++;
    }
    return jinja_int(n);
}

/* startswith and endswith: a text, or a tuple of which one fits. */
static jvalue affix_common(jinja *j, jvalue self, const jvalue *args, bool start) {
    const jlist one = { .at = args, .n = 1 };
    const jlist *list = args[0].kind == V_TUPLE ? args[0].list : &one;
    size_t from = 0, to = 0;
    const bool inside = search_range(j, self.text, args[1], args[2], &from, &to);
    for (size_t i = 0; i < list->n && !j->failed; i++) {
        const jtext *affix = want_text(j, list->at[i], start ? "the prefix" : "the suffix");
        jinja_charge(j, 1 + affix->size / JINJA_BYTES_PER_STEP);
        if (!inside || affix->size > to - from) continue;
        const size_t at = start ? from : to - affix->size;
        if (memcmp(self.text->data + at, affix->data, affix->size) == 0) return jinja_bool(true);
    }
    return jinja_bool(false);
}

static jvalue text_startswith(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    return affix_common(j, self, args, true);
}

static jvalue text_endswith(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    return affix_common(j, self, args, false);
}

static jvalue text_removeprefix(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    const jtext *t = self.text, *affix = want_text(j, args[0], "the prefix");
    const bool there = affix->size <= t->size && memcmp(t->data, affix->data, affix->size) == 0;
    return jinja_part(j, t, there ? affix->size : 0, t->size);
}

static jvalue text_removesuffix(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    const jtext *t = self.text, *affix = want_text(j, args[0], "the suffix");
    const bool there = affix->size <= t->size &&
                       memcmp(t->data + t->size - affix->size, affix->data, affix->size) == 0;
    return jinja_part(j, t, 0, there ? t->size - affix->size : t->size);
}

jvalue jinja_replace(jinja *j, const jtext *t, const jtext *old, const jtext *with, int64_t count) {
    jout out = { 0 };
    size_t at = 0;
    for (int64_t n = 0; !j->failed && (count < 0 || n < count); n++) {
        if (old->size == 0) { /* before every character and at the end */
            jinja_put_text(j, &out, with);
            if (at == t->size) break;
            size_t size;
            jinja_code_at(t, at, &size);
            jinja_put_part(j, &out, t, at, at + size);
            jinja_charge(j, 1);
            at += size;
            continue;
        }
        const size_t found = jinja_find(j, t, jinja_str(old), at, t->size, false);
        if (found == SIZE_MAX) break;
        jinja_charge(j, 1);
        jinja_put_part(j, &out, t, at, found);
        jinja_put_text(j, &out, with);
        at = found + old->size;
    }
    if (at == 0 && out.size == 0) return (jvalue){ .kind = V_TEXT, .text = t };
    jinja_put_part(j, &out, t, at, t->size);
    return jinja_finish(j, &out);
}

static jvalue text_replace(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    const jtext *old = want_text(j, args[0], "what is replaced");
    const jtext *with = want_text(j, args[1], "the replacement");
    return jinja_replace(j, self.text, old, with, want_int(j, args[2], -1, "count"));
}

/* ---- cutting ------------------------------------------------------------------------------- */

/* Whether strip() takes the character away. */
static bool is_stripped(jinja *j, const jtext *chars, uint32_t code) {
    char utf8[4];
    if (chars == NULL) return jinja_is_space(code);
    const size_t n = utf8_put(utf8, code);
    jinja_charge(j, 1);
    return jinja_find(j, chars, (str){ utf8, n }, 0, chars->size, false) != SIZE_MAX;
}

jvalue jinja_strip(jinja *j, const jtext *t, jvalue chars, bool left, bool right) {
    const bool space = chars.kind == V_ABSENT || chars.kind == V_NONE;
    const jtext *set = space ? NULL : want_text(j, chars, "the set of characters");
    size_t from = 0, to = t->size, n;
    uint32_t code;
    while (left && from < to && !j->failed) {
        code = jinja_code_at(t, from, &n);
        if (!is_stripped(j, set, code)) break;
        from += n;
    }
    while (right && to > from && !j->failed) {
        n = utf8_previous(jinja_str(t), to, &code);
        if (n == 0 || !is_stripped(j, set, code)) break;
        to -= n;
    }
    jinja_charge_bytes(j, from + (t->size - to));
    return jinja_part(j, t, from, to);
}

static jvalue text_strip(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    return jinja_strip(j, self.text, args[0], true, true);
}

static jvalue text_lstrip(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    return jinja_strip(j, self.text, args[0], true, false);
}

static jvalue text_rstrip(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    return jinja_strip(j, self.text, args[0], false, true);
}

static void reverse_items(jitems *items) {
    for (size_t i = 0; i < items->n / 2; i++) {
        const jvalue v = items->at[i];
        items->at[i] = items->at[items->n - 1 - i];
        items->at[items->n - 1 - i] = v;
    }
}

/* Words between whitespace; what is beyond `most` cuts stays whole. */
static void split_spaces(jinja *j, const jtext *t, int64_t most, jitems *parts) {
    size_t at = 0, n;
    while (at < t->size && !j->failed) {
        if (jinja_is_space(jinja_code_at(t, at, &n))) {
            at += n;
            continue;
        }
        const size_t start = at;
        if (most >= 0 && (int64_t)parts->n >= most) {
            jinja_push(j, parts, jinja_part(j, t, start, t->size));
            return;
        }
        while (at < t->size && !jinja_is_space(jinja_code_at(t, at, &n)))
            at += n;
        jinja_push(j, parts, jinja_part(j, t, start, at));
    }
    jinja_charge_bytes(j, t->size);
}

static void split_spaces_back(jinja *j, const jtext *t, int64_t most, jitems *parts) {
    size_t at = t->size, n;
    uint32_t code = 0;
    while (at > 0 && !j->failed) {
        n = utf8_previous(jinja_str(t), at, &code);
        if (n > 0 && jinja_is_space(code)) {
            at -= n;
            continue;
        }
        const size_t end = at;
        if (most >= 0 && (int64_t)parts->n >= most) {
            jinja_push(j, parts, jinja_part(j, t, 0, end));
            break;
        }
        while (at > 0 && (n = utf8_previous(jinja_str(t), at, &code)) > 0 &&
               !jinja_is_space(code)) {
            at -= n;
        }
        jinja_push(j, parts, jinja_part(j, t, at, end));
    }
    jinja_charge_bytes(j, t->size);
    reverse_items(parts);
}

static jvalue split_common(jinja *j, jvalue self, const jvalue *args, bool back) {
    const jtext *t = self.text;
    const int64_t most = want_int(j, args[1], -1, "maxsplit");
    jitems parts = { 0 };
    if (args[0].kind == V_ABSENT || args[0].kind == V_NONE) {
        if (back) split_spaces_back(j, t, most, &parts);
        if (!back) split_spaces(j, t, most, &parts);
        return jinja_list(j, &parts, V_LIST);
    }
    const jtext *sep = want_text(j, args[0], "the separator");
    if (sep->size == 0) return jinja_wrong(j, "split at an empty separator");
    size_t from = 0, to = t->size;
    for (int64_t n = 0; !j->failed && (most < 0 || n < most); n++) {
        const size_t at = jinja_find(j, t, jinja_str(sep), from, to, back);
        if (at == SIZE_MAX) break;
        jinja_push(j, &parts,
                   back ? jinja_part(j, t, at + sep->size, to) : jinja_part(j, t, from, at));
        if (back) to = at;
        if (!back) from = at + sep->size;
    }
    jinja_push(j, &parts, jinja_part(j, t, from, to));
    if (back) reverse_items(&parts);
    return jinja_list(j, &parts, V_LIST);
}

static jvalue text_split(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    return split_common(j, self, args, false);
}

static jvalue text_rsplit(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    return split_common(j, self, args, true);
}

jvalue jinja_split_lines(jinja *j, const jtext *t, bool keep_ends) {
    jitems lines = { 0 };
    size_t start = 0, n;
    for (size_t at = 0; at < t->size && !j->failed;) {
        const uint32_t code = jinja_code_at(t, at, &n);
        at += n;
        if (!is_line_end(code)) continue;
        const size_t end = at - n;
        if (code == '\r' && at < t->size && t->data[at] == '\n') at++;
        jinja_push(j, &lines, jinja_part(j, t, start, keep_ends ? at : end));
        start = at;
    }
    jinja_charge_bytes(j, t->size);
    if (start < t->size) jinja_push(j, &lines, jinja_part(j, t, start, t->size));
    return jinja_list(j, &lines, V_LIST);
}

static jvalue text_splitlines(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    return jinja_split_lines(j, self.text, args[0].kind != V_ABSENT && jinja_true(args[0]));
}

static jvalue partition_common(jinja *j, jvalue self, const jvalue *args, bool back) {
    const jtext *t = self.text, *sep = want_text(j, args[0], "the separator");
    if (sep->size == 0) return jinja_wrong(j, "partition at an empty separator");
    const size_t at = jinja_find(j, t, jinja_str(sep), 0, t->size, back);
    const bool found = at != SIZE_MAX;
    const size_t cut = found ? at : back ? 0 : t->size;
    jitems parts = { 0 };
    jinja_push(j, &parts, jinja_part(j, t, 0, cut));
    jinja_push(j, &parts, jinja_part(j, t, cut, found ? cut + sep->size : cut));
    jinja_push(j, &parts, jinja_part(j, t, found ? cut + sep->size : cut, t->size));
    return jinja_list(j, &parts, V_TUPLE);
}

static jvalue text_partition(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    return partition_common(j, self, args, false);
}

static jvalue text_rpartition(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    return partition_common(j, self, args, true);
}

jvalue jinja_join(jinja *j, const jtext *separator, const jlist *list, bool only_texts) {
    jout out = { 0 };
    for (size_t i = 0; i < list->n && !j->failed; i++) {
        if (i > 0) jinja_put_text(j, &out, separator);
        if (only_texts && list->at[i].kind != V_TEXT) {
            return jinja_wrong(j, "join: element %zu is a %s", i, jinja_type(list->at[i]));
        }
        jinja_charge(j, 1);
        jinja_put_value(j, &out, list->at[i]);
    }
    return jinja_finish(j, &out);
}

static jvalue text_join(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    return jinja_join(j, self.text, jinja_to_list(j, args[0]), true);
}

/* ---- padding ------------------------------------------------------------------------------- */

static void put_fill(jinja *j, jout *out, const jtext *fill, int64_t n) {
    for (; n > 0 && !j->failed; n--) {
        jinja_charge(j, 1);
        jinja_put_text(j, out, fill);
    }
}

jvalue jinja_pad(jinja *j, const jtext *t, int64_t width, const jtext *fill, jpad side) {
    static const jtext space = { .data = " ", .size = 1, .length = 1 };
    if (fill != NULL && fill->length != 1) {
        return jinja_wrong(j, "the fill character is not one character");
    }
    const int64_t pad = width - (int64_t)t->length;
    if (width < 0 || pad <= 0) return (jvalue){ .kind = V_TEXT, .text = t };
    const int64_t left = side == PAD_LEFT    ? pad
                         : side == PAD_RIGHT ? 0
                                             : pad / 2 + (side == PAD_CENTER ? pad & width & 1 : 0);
    jout out = { 0 };
    put_fill(j, &out, fill != NULL ? fill : &space, left);
    jinja_put_text(j, &out, t);
    put_fill(j, &out, fill != NULL ? fill : &space, pad - left);
    return jinja_finish(j, &out);
}

static jvalue pad_common(jinja *j, jvalue self, const jvalue *args, jpad side) {
    const jtext *fill = args[1].kind == V_ABSENT ? NULL : want_text(j, args[1], "the fill");
    return jinja_pad(j, self.text, want_int(j, args[0], 0, "the width"), fill, side);
}

static jvalue text_center(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    return pad_common(j, self, args, PAD_CENTER);
}

static jvalue text_ljust(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    return pad_common(j, self, args, PAD_RIGHT);
}

static jvalue text_rjust(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    return pad_common(j, self, args, PAD_LEFT);
}

static jvalue text_zfill(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    static const jtext zero = { .data = "0", .size = 1, .length = 1 };
    const jtext *t = self.text;
    const int64_t pad = want_int(j, args[0], 0, "the width") - (int64_t)t->length;
    const size_t sign = t->size > 0 && (t->data[0] == '-' || t->data[0] == '+');
    jout out = { 0 };
    jinja_put_part(j, &out, t, 0, sign);
    put_fill(j, &out, &zero, pad);
    jinja_put_part(j, &out, t, sign, t->size);
    return jinja_finish(j, &out);
}

static jvalue text_expandtabs(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    static const jtext space = { .data = " ", .size = 1, .length = 1 };
    const int64_t width = want_int(j, args[0], 8, "tabsize");
    int64_t column = 0;
    jout out = { 0 };
    size_t n;
    for (size_t i = 0; i < self.text->size && !j->failed; i += n) {
        const uint32_t code = jinja_code_at(self.text, i, &n);
        if (code == '\t') {
            const int64_t pad = width > 0 ? width - column % width : 0;
            put_fill(j, &out, &space, pad);
            column += pad;
            continue;
        }
        jinja_put_part(j, &out, self.text, i, i + n);
        column = code == '\n' || code == '\r' ? 0 : column + 1;
    }
    return jinja_finish(j, &out);
}

/* ---- formatting ---- */

static jvalue text_format(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)args;
    return jinja_str_format(j, self.text, call);
}

static jvalue text_format_map(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    if (args[0].kind != V_DICT) return jinja_wrong(j, "format_map without a dict");
    const jdict *d = args[0].dict;
    jkeyword *keys = jinja_take(j, d->n, sizeof(*keys));
    jcall named = { .keys = keys };
    for (size_t i = 0; keys != NULL && i < d->n; i++) {
        if (d->keys[i].kind != V_TEXT) continue;
        keys[named.n_keys++] = (jkeyword){ .name = d->keys[i].text, .v = d->values[i] };
    }
    return jinja_str_format(j, self.text, &named);
}

/* ---- table --------------------------------------------------------------------------------- */

const jentry *jinja_find_entry(const jentry *table, size_t n, str name) {
    for (size_t i = 0; i < n; i++) {
        if (str_is(name, table[i].name)) return &table[i];
    }
    return NULL;
}

const jentry *jinja_text_method(str name) {
    static const jentry table[] = {
        { "strip", text_strip, "chars=,/" },
        { "split", text_split, "sep=,maxsplit=" },
        { "startswith", text_startswith, "prefix,start=,end=,/" },
        { "endswith", text_endswith, "suffix,start=,end=,/" },
        { "replace", text_replace, "old,new,count=,/" },
        { "lstrip", text_lstrip, "chars=,/" },
        { "rstrip", text_rstrip, "chars=,/" },
        { "join", text_join, "iterable,/" },
        { "format", text_format, NULL },
        { "format_map", text_format_map, "mapping,/" },
        { "find", text_find, "sub,start=,end=,/" },
        { "rfind", text_rfind, "sub,start=,end=,/" },
        { "index", text_index, "sub,start=,end=,/" },
        { "rindex", text_rindex, "sub,start=,end=,/" },
        { "count", text_count, "sub,start=,end=,/" },
        { "removeprefix", text_removeprefix, "prefix,/" },
        { "removesuffix", text_removesuffix, "suffix,/" },
        { "rsplit", text_rsplit, "sep=,maxsplit=" },
        { "splitlines", text_splitlines, "keepends=" },
        { "partition", text_partition, "sep,/" },
        { "rpartition", text_rpartition, "sep,/" },
        { "center", text_center, "width,fillchar=,/" },
        { "ljust", text_ljust, "width,fillchar=,/" },
        { "rjust", text_rjust, "width,fillchar=,/" },
        { "zfill", text_zfill, "width,/" },
        { "expandtabs", text_expandtabs, "tabsize=" },
    };
    const jentry *entry = jinja_find_entry(table, ARRAY_LEN(table), name);
    return entry != NULL ? entry : jinja_case_method(name);
}
