/* jinja_case: classes of characters, and upper, lower and title case as Python's str has them.
 *
 * The Unicode data is utf8proc's, with the characters that become several in capitals and the two
 * that do in small letters. A changed character takes the mark of the one that it was. */
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

uint32_t jinja_code_at(const jtext *t, size_t i, size_t *n) {
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
        code = jinja_code_at(t, at, &n);
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
    const utf8proc_ssize_t n =
        utf8proc_decompose_char((utf8proc_int32_t)code, folded, 8, UTF8PROC_CASEFOLD, &last_class);
    for (utf8proc_ssize_t i = 0; i < n && i < 8; i++) {
        jinja_put_code(j, out, (uint32_t)folded[i], marked);
    }
}

jvalue jinja_case(jinja *j, const jtext *t, jcase how) {
    jout out = { 0 };
    bool in_word = false;
    size_t n;
    for (size_t i = 0; i < t->size && !j->failed; i += n) {
        const uint32_t code = jinja_code_at(t, i, &n);
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
        const uint32_t code = jinja_code_at(t, i, &n);
        if (is_title_letter(code) || (upper ? is_lower_letter(code) : is_upper_letter(code))) {
            return false;
        }
        found |= is_cased(code);
    }
    return found;
}

/* ---- as methods ----------------------------------------------------------- */

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
        if (!is(jinja_code_at(t, i, &n))) return jinja_bool(false);
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
        const uint32_t code = jinja_code_at(self.text, i, &n);
        const bool cased = is_cased(code);
        if (cased && is_lower_letter(code) != in_word) return jinja_bool(false);
        found |= cased;
        in_word = cased;
    }
    return jinja_bool(found);
}

const jentry *jinja_case_method(str name) {
    static const jentry table[] = {
        { "upper", text_upper, "" },
        { "lower", text_lower, "" },
        { "title", text_title, "" },
        { "capitalize", text_capitalize, "" },
        { "casefold", text_casefold, "" },
        { "swapcase", text_swapcase, "" },
        { "isalpha", text_isalpha, "" },
        { "isdecimal", text_isdecimal, "" },
        { "isdigit", text_isdigit, "" },
        { "isnumeric", text_isnumeric, "" },
        { "isalnum", text_isalnum, "" },
        { "isspace", text_isspace, "" },
        { "isascii", text_isascii, "" },
        { "isprintable", text_isprintable, "" },
        { "isidentifier", text_isidentifier, "" },
        { "isupper", text_isupper, "" },
        { "islower", text_islower, "" },
        { "istitle", text_istitle, "" },
    };
    return jinja_find_entry(table, ARRAY_LEN(table), name);
}
