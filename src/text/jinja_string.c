/* jinja_string: the methods of Python's str.
 *
 * Positions that a template sees are code points, those in here bytes; texts that are ASCII need no
 * conversion. Case and classes are those of utf8proc's Unicode, with the characters that become
 * several in capitals. Every result takes its marks from the bytes that it is made of. */
#define _GNU_SOURCE /* memmem */

#include "text/jinja_internal.h"

#include <utf8proc.h>

/* ---- characters ---------------------------------------------------------------------------- */

bool jinja_is_space(uint32_t code) {
    return code_is_space(code) || (code >= 0x1C && code <= 0x1F);
}

bool jinja_is_printable(uint32_t code) {
    switch (utf8proc_category((utf8proc_int32_t)code)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
        return false;
    case UTF8PROC_CATEGORY_ZS:
        return code == ' ';
    default:
        return true;
    }
}

static bool is_line_end(uint32_t code) {
    return (code >= 0x0A && code <= 0x0D) || (code >= 0x1C && code <= 0x1E) || code == 0x85 ||
           code == 0x2028 || code == 0x2029;
}

static bool is_title_letter(uint32_t code) {
    return utf8proc_category((utf8proc_int32_t)code) == UTF8PROC_CATEGORY_LT;
}

static bool is_upper_letter(uint32_t code) {
    return utf8proc_isupper((utf8proc_int32_t)code) && !is_title_letter(code);
}

static bool is_lower_letter(uint32_t code) {
    return utf8proc_islower((utf8proc_int32_t)code) != 0;
}

static bool is_cased(uint32_t code) {
    return is_upper_letter(code) || is_lower_letter(code) || is_title_letter(code);
}

static bool is_alpha(uint32_t code) {
    const utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)code);
    return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
}

static bool is_decimal(uint32_t code) {
    return utf8proc_category((utf8proc_int32_t)code) == UTF8PROC_CATEGORY_ND;
}

/* Numeric_Type=Digit beside the decimals: superscripts, circled and bracketed digits. */
static bool is_digit_code(uint32_t code) {
    static const uint32_t ranges[][2] = {
        { 0xB2, 0xB3 },       { 0xB9, 0xB9 },       { 0x1369, 0x1371 },   { 0x19DA, 0x19DA },
        { 0x2070, 0x2070 },   { 0x2074, 0x2079 },   { 0x2080, 0x2089 },   { 0x2460, 0x2468 },
        { 0x2474, 0x247C },   { 0x2488, 0x2490 },   { 0x24EA, 0x24EA },   { 0x24F5, 0x24FD },
        { 0x24FF, 0x24FF },   { 0x2776, 0x277E },   { 0x2780, 0x2788 },   { 0x278A, 0x2792 },
        { 0x10A40, 0x10A43 }, { 0x10E60, 0x10E68 }, { 0x11052, 0x1105A }, { 0x1F100, 0x1F10A },
    };
    if (is_decimal(code)) return true;
    for (size_t i = 0; i < ARRAY_LEN(ranges); i++) {
        if (code >= ranges[i][0] && code <= ranges[i][1]) return true;
    }
    return false;
}

static bool is_numeric(uint32_t code) {
    return code_is_number(code) || is_digit_code(code);
}

bool jinja_is_alnum(uint32_t code) {
    return is_alpha(code) || is_numeric(code);
}

static bool is_ascii_code(uint32_t code) {
    return code < 0x80;
}

/* The character that starts at byte i, and how many bytes it has. */
static uint32_t code_at(const jtext *t, size_t i, size_t *n) {
    uint32_t code = 0;
    *n = utf8_next((str){ t->data + i, t->size - i }, &code);
    assert(*n > 0);
    return code;
}

/* ---- case ---------------------------------------------------------------------------------- */

/* Unicode's SpecialCasing as far as it has no conditions: capitals, and title case where other. */
static const struct {
    uint32_t code;
    const char *upper, *title; /* title NULL: as upper with the rest in small letters */
} special_cases[] = {
    { 0x00DF, "SS", "Ss" },
    { 0x0149, "\xCA\xBCN", "\xCA\xBCN" },
    { 0x01F0, "J\xCC\x8C", "J\xCC\x8C" },
    { 0x0390, "\xCE\x99\xCC\x88\xCC\x81", "\xCE\x99\xCC\x88\xCC\x81" },
    { 0x03B0, "\xCE\xA5\xCC\x88\xCC\x81", "\xCE\xA5\xCC\x88\xCC\x81" },
    { 0x0587, "\xD4\xB5\xD5\x92", "\xD4\xB5\xD6\x82" },
    { 0x1E96, "H\xCC\xB1", "H\xCC\xB1" },
    { 0x1E97, "T\xCC\x88", "T\xCC\x88" },
    { 0x1E98, "W\xCC\x8A", "W\xCC\x8A" },
    { 0x1E99, "Y\xCC\x8A", "Y\xCC\x8A" },
    { 0x1E9A, "A\xCA\xBE", "A\xCA\xBE" },
    { 0xFB00, "FF", "Ff" },
    { 0xFB01, "FI", "Fi" },
    { 0xFB02, "FL", "Fl" },
    { 0xFB03, "FFI", "Ffi" },
    { 0xFB04, "FFL", "Ffl" },
    { 0xFB05, "ST", "St" },
    { 0xFB06, "ST", "St" },
};

static void put_capital(jinja *j, jout *out, uint32_t code, bool title, bool marked) {
    for (size_t i = 0; code >= 0x80 && i < ARRAY_LEN(special_cases); i++) {
        if (special_cases[i].code != code) continue;
        const char *s = title ? special_cases[i].title : special_cases[i].upper;
        jinja_put(j, out, s, strlen(s), marked);
        return;
    }
    const utf8proc_int32_t c = (utf8proc_int32_t)code;
    jinja_put_code(j, out, (uint32_t)(title ? utf8proc_totitle(c) : utf8proc_toupper(c)), marked);
}

/* Whether the sigma at byte i ends a word: a cased letter before it and none behind it, with what
 * case ignores (marks and the like) passed over. */
static bool ends_word(const jtext *t, size_t i) {
    uint32_t code = 0;
    size_t n, at = i;
    bool before = false, behind = false;
    while ((n = utf8_previous(jinja_str(t), at, &code)) > 0) {
        at -= n;
        before = is_cased(code);
        const utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)code);
        if (before || (c != UTF8PROC_CATEGORY_MN && code != '\'' && code != '.')) break;
    }
    for (at = i + 2; before && at < t->size; at += n) {
        code = code_at(t, at, &n);
        behind = is_cased(code);
        const utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)code);
        if (behind || (c != UTF8PROC_CATEGORY_MN && code != '\'' && code != '.')) break;
    }
    return before && !behind;
}

static void put_small(jinja *j, jout *out, const jtext *t, size_t i, uint32_t code) {
    const bool marked = jinja_marked_at(t, i);
    if (code == 0x130) { /* I with a dot */
        jinja_put(j, out, "i\xCC\x87", 3, marked);
    } else if (code == 0x3A3) {
        jinja_charge(j, 1);
        jinja_put_code(j, out, ends_word(t, i) ? 0x3C2 : 0x3C3, marked);
    } else {
        jinja_put_code(j, out, (uint32_t)utf8proc_tolower((utf8proc_int32_t)code), marked);
    }
}

static void put_folded(jinja *j, jout *out, uint32_t code, bool marked) {
    utf8proc_int32_t folded[8];
    int last_class = 0;
    const utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)code, folded, 8,
                                                       UTF8PROC_CASEFOLD, &last_class);
    for (utf8proc_ssize_t i = 0; i < n && i < 8; i++) {
        jinja_put_code(j, out, (uint32_t)folded[i], marked);
    }
}

jvalue jinja_case(jinja *j, const jtext *t, jcase how) {
    jout out = { 0 };
    bool in_word = false;
    size_t n;
    for (size_t i = 0; i < t->size && !j->failed; i += n) {
        const uint32_t code = code_at(t, i, &n);
        const bool marked = jinja_marked_at(t, i);
        const bool first = how == CASE_CAPITALIZE ? i == 0 : how == CASE_TITLE && !in_word;
        if (how == CASE_FOLD) {
            put_folded(j, &out, code, marked);
        } else if (first || how == CASE_UPPER || (how == CASE_SWAP && is_lower_letter(code))) {
            put_capital(j, &out, code, first, marked);
        } else if (how == CASE_SWAP && !is_upper_letter(code)) {
            jinja_put(j, &out, t->data + i, n, marked);
        } else {
            put_small(j, &out, t, i, code);
        }
        in_word = is_cased(code);
    }
    return jinja_finish(j, &out);
}

bool jinja_has_case(jinja *j, const jtext *t, bool upper) {
    bool found = false;
    size_t n;
    jinja_charge_bytes(j, t->size);
    for (size_t i = 0; i < t->size; i += n) {
        const uint32_t code = code_at(t, i, &n);
        if (is_title_letter(code) || (upper ? is_lower_letter(code) : is_upper_letter(code))) {
            return false;
        }
        found |= is_cased(code);
    }
    return found;
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
            code_at(t, at, &size);
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
        code = code_at(t, from, &n);
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
        if (jinja_is_space(code_at(t, at, &n))) {
            at += n;
            continue;
        }
        const size_t start = at;
        if (most >= 0 && (int64_t)parts->n >= most) {
            jinja_push(j, parts, jinja_part(j, t, start, t->size));
            return;
        }
        while (at < t->size && !jinja_is_space(code_at(t, at, &n))) at += n;
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
        jinja_push(j, &parts, back ? jinja_part(j, t, at + sep->size, to)
                                   : jinja_part(j, t, from, at));
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
        const uint32_t code = code_at(t, at, &n);
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

jvalue jinja_center(jinja *j, const jtext *t, int64_t width, const jtext *fill, int side) {
    static const jtext space = { .data = " ", .size = 1, .length = 1 };
    if (fill != NULL && fill->length != 1) {
        return jinja_wrong(j, "the fill character is not one character");
    }
    const int64_t pad = width - (int64_t)t->length;
    if (width < 0 || pad <= 0) return (jvalue){ .kind = V_TEXT, .text = t };
    const int64_t left = side > 0 ? pad : side < 0 ? 0 : pad / 2 + (pad & width & 1);
    jout out = { 0 };
    put_fill(j, &out, fill != NULL ? fill : &space, left);
    jinja_put_text(j, &out, t);
    put_fill(j, &out, fill != NULL ? fill : &space, pad - left);
    return jinja_finish(j, &out);
}

static jvalue pad_common(jinja *j, jvalue self, const jvalue *args, int side) {
    const jtext *fill = args[1].kind == V_ABSENT ? NULL : want_text(j, args[1], "the fill");
    return jinja_center(j, self.text, want_int(j, args[0], 0, "the width"), fill, side);
}

static jvalue text_center(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    return pad_common(j, self, args, 0);
}

static jvalue text_ljust(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    return pad_common(j, self, args, -1);
}

static jvalue text_rjust(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    return pad_common(j, self, args, 1);
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
        const uint32_t code = code_at(self.text, i, &n);
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

/* ---- case and classes as methods ----------------------------------------------------------- */

static jvalue text_upper(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    return jinja_case(j, self.text, CASE_UPPER);
}

static jvalue text_lower(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    return jinja_case(j, self.text, CASE_LOWER);
}

static jvalue text_title(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    return jinja_case(j, self.text, CASE_TITLE);
}

static jvalue text_capitalize(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    return jinja_case(j, self.text, CASE_CAPITALIZE);
}

static jvalue text_casefold(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    return jinja_case(j, self.text, CASE_FOLD);
}

static jvalue text_swapcase(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    return jinja_case(j, self.text, CASE_SWAP);
}

/* Whether all characters, and at least one, are of a class. */
static jvalue all_of_class(jinja *j, const jtext *t, bool (*is)(uint32_t code), bool if_empty) {
    size_t n;
    jinja_charge_bytes(j, t->size);
    for (size_t i = 0; i < t->size; i += n) {
        if (!is(code_at(t, i, &n))) return jinja_bool(false);
    }
    return jinja_bool(t->size > 0 || if_empty);
}

static jvalue text_isalpha(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    return all_of_class(j, self.text, is_alpha, false);
}

static jvalue text_isdecimal(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    return all_of_class(j, self.text, is_decimal, false);
}

static jvalue text_isdigit(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    return all_of_class(j, self.text, is_digit_code, false);
}

static jvalue text_isnumeric(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    return all_of_class(j, self.text, is_numeric, false);
}

static jvalue text_isalnum(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    return all_of_class(j, self.text, jinja_is_alnum, false);
}

static jvalue text_isspace(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    return all_of_class(j, self.text, jinja_is_space, false);
}

static jvalue text_isascii(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    return all_of_class(j, self.text, is_ascii_code, true);
}

static jvalue text_isprintable(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    return all_of_class(j, self.text, jinja_is_printable, true);
}

static jvalue text_isidentifier(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    const jtext *t = self.text;
    const bool digit = t->size > 0 && t->data[0] >= '0' && t->data[0] <= '9';
    return digit ? jinja_bool(false) : all_of_class(j, t, code_is_word, false);
}

static jvalue text_isupper(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    return jinja_bool(jinja_has_case(j, self.text, true));
}

static jvalue text_islower(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    return jinja_bool(jinja_has_case(j, self.text, false));
}

static jvalue text_istitle(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call, (void)args;
    bool found = false, in_word = false;
    size_t n;
    jinja_charge_bytes(j, self.text->size);
    for (size_t i = 0; i < self.text->size; i += n) {
        const uint32_t code = code_at(self.text, i, &n);
        const bool cased = is_cased(code);
        if (cased && is_lower_letter(code) != in_word) return jinja_bool(false);
        found |= cased;
        in_word = cased;
    }
    return jinja_bool(found);
}

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
        { "upper", text_upper, "" },
        { "lower", text_lower, "" },
        { "title", text_title, "" },
        { "capitalize", text_capitalize, "" },
        { "casefold", text_casefold, "" },
        { "swapcase", text_swapcase, "" },
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
        { "isalpha", text_isalpha, "" },
        { "isalnum", text_isalnum, "" },
        { "isascii", text_isascii, "" },
        { "isdecimal", text_isdecimal, "" },
        { "isdigit", text_isdigit, "" },
        { "isnumeric", text_isnumeric, "" },
        { "isspace", text_isspace, "" },
        { "isprintable", text_isprintable, "" },
        { "isidentifier", text_isidentifier, "" },
        { "isupper", text_isupper, "" },
        { "islower", text_islower, "" },
        { "istitle", text_istitle, "" },
    };
    return jinja_find_entry(table, ARRAY_LEN(table), name);
}
