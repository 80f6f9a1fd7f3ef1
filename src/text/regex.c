/* regex: pre-tokenizer patterns on PCRE2.
 *
 * Hugging Face tokenizers compiles its patterns with Oniguruma in Ruby syntax; published patterns
 * and the tables of GGUF readers are written for that. PCRE2 reads most of it alike. What it reads
 * otherwise is rewritten here, and what cannot be rewritten is refused by name:
 *   \s      White_Space in Oniguruma; PCRE2's also has U+180E
 *   \w      letters, marks, decimal digits, connectors; PCRE2's other numbers too
 *   \p{Han} a script in Oniguruma, a script extension in PCRE2
 *   ^ $     match at every line in Ruby; (?m) there is (?s) here
 *   \v \h   a vertical tab and a hex digit there, classes of blanks here
 * Matching is bounded in steps and memory. The just-in-time compiler stays off: it counts steps
 * otherwise and does not exist in the browser, where the same pattern has to end the same way. */
#include "text/text_internal.h"

#include <pcre2.h>

enum {
    MATCH_STEPS = 10000,        /* of one search, */
    MATCH_STEPS_PER_BYTE = 16,  /* and more for long texts: "\s*[\r\n]" takes one a blank */
    MATCH_HEAP_KIB = 64 * 1024, /* backtracking memory */
};

struct regex {
    pcre2_general_context *general;
    pcre2_code *code;
    char head[48]; /* the pattern's start, for messages */
    size_t size;   /* of the whole pattern, as it was given */
    char pattern[];
};

struct regex_work {
    pcre2_general_context *general;
    pcre2_match_context *context;
    pcre2_match_data *data;
};

static void *pcre2_take(size_t size, void *user) {
    (void)user;
    return mem_new(size, 1, "a pattern", NULL);
}

static void pcre2_give(void *memory, void *user) {
    (void)user;
    mem_free(memory);
}

/* ---- from Oniguruma's to PCRE2's notation ------------------------------------------------- */

typedef struct {
    str in;
    size_t pos;
    buf *out;
    bool in_class;
    dp_error *err;
} translation;

static const struct {
    const char *name; /* lower case without separators */
    const char *ours;
} property_names[] = {
    { "any", "Any" },
    { "c", "C" },
    { "cc", "Cc" },
    { "cf", "Cf" },
    { "cn", "Cn" },
    { "co", "Co" },
    { "cs", "Cs" },
    { "l", "L" },
    { "ll", "Ll" },
    { "lm", "Lm" },
    { "lo", "Lo" },
    { "lt", "Lt" },
    { "lu", "Lu" },
    { "m", "M" },
    { "mc", "Mc" },
    { "me", "Me" },
    { "mn", "Mn" },
    { "n", "N" },
    { "nd", "Nd" },
    { "nl", "Nl" },
    { "no", "No" },
    { "p", "P" },
    { "pc", "Pc" },
    { "pd", "Pd" },
    { "pe", "Pe" },
    { "pf", "Pf" },
    { "pi", "Pi" },
    { "po", "Po" },
    { "ps", "Ps" },
    { "s", "S" },
    { "sc", "Sc" },
    { "sk", "Sk" },
    { "sm", "Sm" },
    { "so", "So" },
    { "z", "Z" },
    { "zl", "Zl" },
    { "zp", "Zp" },
    { "zs", "Zs" },
    { "other", "C" },
    { "control", "Cc" },
    { "format", "Cf" },
    { "unassigned", "Cn" },
    { "privateuse", "Co" },
    { "surrogate", "Cs" },
    { "letter", "L" },
    { "lowercaseletter", "Ll" },
    { "modifierletter", "Lm" },
    { "otherletter", "Lo" },
    { "titlecaseletter", "Lt" },
    { "uppercaseletter", "Lu" },
    { "mark", "M" },
    { "spacingmark", "Mc" },
    { "enclosingmark", "Me" },
    { "nonspacingmark", "Mn" },
    { "number", "N" },
    { "decimalnumber", "Nd" },
    { "letternumber", "Nl" },
    { "othernumber", "No" },
    { "punctuation", "P" },
    { "connectorpunctuation", "Pc" },
    { "dashpunctuation", "Pd" },
    { "closepunctuation", "Pe" },
    { "finalpunctuation", "Pf" },
    { "initialpunctuation", "Pi" },
    { "otherpunctuation", "Po" },
    { "openpunctuation", "Ps" },
    { "symbol", "S" },
    { "currencysymbol", "Sc" },
    { "modifiersymbol", "Sk" },
    { "mathsymbol", "Sm" },
    { "othersymbol", "So" },
    { "separator", "Z" },
    { "lineseparator", "Zl" },
    { "paragraphseparator", "Zp" },
    { "spaceseparator", "Zs" },
    { "alpha", "Alphabetic" },
    { "alphabetic", "Alphabetic" },
    { "digit", "Nd" },
    { "lower", "Lowercase" },
    { "lowercase", "Lowercase" },
    { "upper", "Uppercase" },
    { "uppercase", "Uppercase" },
    { "space", "White_Space" },
    { "whitespace", "White_Space" },
    { "ideographic", "Ideographic" },
    { "emoji", "Emoji" },
    { "extendedpictographic", "Extended_Pictographic" },
    { "joincontrol", "Join_Control" },
};

static bool is_ascii_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_ascii_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool is_hex_digit(char c) {
    return is_ascii_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool refuse_pattern(const translation *x, const char *what) {
    return err_set(x->err, DP_E_UNSUPPORTED, "pattern \"%.*s\": %s at byte %zu is not supported",
                   (int)min_u64(x->in.size, 80), x->in.data, what, x->pos);
}

/* \p{Name}, \P{Name}, \p{^Name}, \pL; pos is at the letter p. */
static bool translate_property(translation *x) {
    bool negated = x->in.data[x->pos] == 'P';
    str name = { x->in.data + x->pos + 1, 0 };
    size_t after;
    if (x->pos + 1 < x->in.size && *name.data == '{') {
        name.data++;
        const char *close = memchr(name.data, '}', x->in.size - x->pos - 2);
        if (close == NULL) {
            return refuse_pattern(x, "a property without \"}\"");
        }
        name.size = (size_t)(close - name.data);
        after = x->pos + name.size + 3;
    } else if (x->pos + 1 < x->in.size && is_ascii_letter(*name.data)) {
        name.size = 1;
        after = x->pos + 2;
    } else {
        return refuse_pattern(x, "a property without a name");
    }
    if (name.size > 0 && name.data[0] == '^') {
        negated = !negated;
        name.data++;
        name.size--;
    }
    char plain[64];
    size_t n = 0;
    for (size_t i = 0; i < name.size; i++) {
        const char c = name.data[i];
        if (c == ' ' || c == '_' || c == '-') {
            continue;
        }
        if (n + 1 >= sizeof(plain) || !(is_ascii_letter(c) || is_ascii_digit(c))) {
            return refuse_pattern(x, "a property of this name");
        }
        plain[n++] = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
    }
    plain[n] = '\0';
    x->pos = after;
    for (size_t i = 0; i < ARRAY_LEN(property_names); i++) {
        if (strcmp(plain, property_names[i].name) == 0) {
            buf_printf(x->out, "\\%c{%s}", negated ? 'P' : 'p', property_names[i].ours);
            return true;
        }
    }
    buf_printf(x->out, "\\%c{sc:%s}", negated ? 'P' : 'p',
               plain); /* PCRE2 refuses what is no script */
    return true;
}

/* \xHH, \x{H...}, \uHHHH; pos is at the letter. */
static bool translate_code(translation *x) {
    const bool short_x = x->in.data[x->pos] == 'x';
    const char *digits = x->in.data + x->pos + 1;
    const size_t left = x->in.size - x->pos - 1;
    size_t n = 0, skip = 0;
    if (short_x && left > 0 && digits[0] == '{') {
        digits++;
        while (n + 1 < left && is_hex_digit(digits[n])) {
            n++;
        }
        if (n == 0 || n > 6 || n + 1 >= left || digits[n] != '}') {
            return refuse_pattern(x, "this \\x{...}");
        }
        skip = n + 3;
    } else {
        const size_t want = short_x ? 2 : 4;
        while (n < want && n < left && is_hex_digit(digits[n])) {
            n++;
        }
        if (n != want ||
            (short_x && digits[0] > '7')) { /* a byte of UTF-8 there, a character here */
            return refuse_pattern(x, short_x ? "this \\x" : "this \\u");
        }
        skip = n + 1;
    }
    buf_printf(x->out, "\\x{%.*s}", (int)n, digits);
    x->pos += skip;
    return true;
}

static bool translate_escape(translation *x) {
    x->pos++;
    if (x->pos >= x->in.size) {
        return refuse_pattern(x, "a \"\\\" at the end");
    }
    const char c = x->in.data[x->pos];
    switch (c) {
    case 's':
        buf_add_str(x->out, STR("\\p{White_Space}"));
        break;
    case 'S':
        buf_add_str(x->out, STR("\\P{White_Space}"));
        break;
    case 'd':
        buf_add_str(x->out, STR("\\p{Nd}"));
        break;
    case 'D':
        buf_add_str(x->out, STR("\\P{Nd}"));
        break;
    case 'w':
        buf_add_str(x->out, x->in_class ? STR("\\p{L}\\p{M}\\p{Nd}\\p{Pc}")
                                        : STR("[\\p{L}\\p{M}\\p{Nd}\\p{Pc}]"));
        break;
    case 'W':
        if (x->in_class) {
            return refuse_pattern(x, "\\W in a class");
        }
        buf_add_str(x->out, STR("[^\\p{L}\\p{M}\\p{Nd}\\p{Pc}]"));
        break;
    case 'v':
        buf_add_str(x->out, STR("\\x0B"));
        break;
    case 'p':
    case 'P':
        return translate_property(x);
    case 'x':
    case 'u':
        return translate_code(x);
    case 'n':
    case 'r':
    case 't':
    case 'f':
    case 'a':
    case 'e':
        buf_add(x->out, x->in.data + x->pos - 1, 2);
        break;
    case 'A':
    case 'z':
    case 'Z':
    case 'b':
    case 'B':
        if (x->in_class) {
            return refuse_pattern(x, "this escape in a class");
        }
        buf_add(x->out, x->in.data + x->pos - 1, 2);
        break;
    default: {
        if (is_ascii_letter(c) || is_ascii_digit(c)) {
            const char what[] = { '\\', c, '\0' };
            return refuse_pattern(x, what);
        }
        /* The character itself; PCRE2 takes an escaped one beyond ASCII for an error. */
        const str rest = { x->in.data + x->pos, x->in.size - x->pos };
        const size_t n = utf8_next(rest, NULL);
        if (n <= 1) {
            buf_add_str(x->out, STR("\\"));
        }
        buf_add(x->out, rest.data, n > 0 ? n : 1);
        x->pos += n > 0 ? n : 1;
        return true;
    }
    }
    x->pos++;
    return true;
}

/* A group's opening; pos is at "(". */
static bool translate_group(translation *x) {
    static const char *const openings[] = { "(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>" };
    const str rest = { x->in.data + x->pos, x->in.size - x->pos };
    if (str_starts(rest, "(*")) {
        return refuse_pattern(x, "\"(*\"");
    }
    if (!str_starts(rest, "(?")) {
        buf_add_str(x->out, STR("("));
        x->pos++;
        return true;
    }
    for (size_t i = 0; i < ARRAY_LEN(openings); i++) {
        if (str_starts(rest, openings[i])) {
            buf_add_str(x->out, str_of(openings[i]));
            x->pos += strlen(openings[i]);
            return true;
        }
    }
    /* Options: i as it is, Ruby's m is s here. Without ":" their reach differs where there are
     * alternatives, except at the very start. */
    size_t i = 2;
    char options[8];
    size_t n = 0;
    while (i < rest.size && (rest.data[i] == 'i' || rest.data[i] == 'm' || rest.data[i] == '-') &&
           n < sizeof(options)) {
        options[n++] = rest.data[i] == 'm' ? 's' : rest.data[i];
        i++;
    }
    if (i >= rest.size || n == 0 || n == sizeof(options) ||
        !(rest.data[i] == ':' || (rest.data[i] == ')' && x->pos == 0))) {
        return refuse_pattern(x, "this kind of group");
    }
    buf_printf(x->out, "(?%.*s%c", (int)n, options, rest.data[i]);
    x->pos += i + 1;
    return true;
}

/* {n,m}; pos is at "{". Ruby lets "+" and "?" behind it repeat the whole, PCRE2 has other
 * meanings for them. */
static bool translate_interval(translation *x) {
    size_t i = x->pos + 1;
    const size_t first = i;
    while (i < x->in.size && is_ascii_digit(x->in.data[i])) {
        i++;
    }
    const bool has_low = i > first;
    bool has_comma = false, has_high = false;
    if (i < x->in.size && x->in.data[i] == ',') {
        has_comma = true;
        i++;
        while (i < x->in.size && is_ascii_digit(x->in.data[i])) {
            i++;
            has_high = true;
        }
    }
    if (i >= x->in.size || x->in.data[i] != '}' || !(has_low || has_high)) {
        buf_add_str(x->out, STR("\\{")); /* no interval: the character */
        x->pos++;
        return true;
    }
    i++;
    if (i < x->in.size && (x->in.data[i] == '+' || (x->in.data[i] == '?' && !has_comma))) {
        return refuse_pattern(x, "a quantifier behind {...}");
    }
    buf_add_str(x->out, has_low ? STR("{") : STR("{0"));
    buf_add(x->out, x->in.data + first, i - first);
    x->pos = i;
    return true;
}

static bool translate_in_class(translation *x, size_t class_start) {
    const char c = x->in.data[x->pos];
    const str rest = { x->in.data + x->pos, x->in.size - x->pos };
    if (c == '[' && str_starts(rest, "[:")) {
        size_t i = 2;
        while (i + 1 < rest.size && (is_ascii_letter(rest.data[i]) || rest.data[i] == '^')) {
            i++;
        }
        if (i + 1 >= rest.size || rest.data[i] != ':' || rest.data[i + 1] != ']') {
            return refuse_pattern(x, "\"[:\" in a class");
        }
        buf_add(x->out, rest.data, i + 2);
        x->pos += i + 2;
        return true;
    }
    if (c == '[') {
        return refuse_pattern(x, "a class in a class");
    }
    if (str_starts(rest, "&&")) {
        return refuse_pattern(x, "\"&&\" in a class");
    }
    if (c == ']' && x->pos != class_start) {
        x->in_class = false;
    }
    buf_add(x->out, &c, 1);
    x->pos++;
    return true;
}

static bool translate_pattern(str pattern, buf *out, dp_error *err) {
    translation x = { .in = pattern, .out = out, .err = err };
    size_t class_start = 0; /* where a "]" is still a character */
    while (x.pos < pattern.size) {
        const char c = pattern.data[x.pos];
        bool ok = true;
        if (c == '\\') {
            ok = translate_escape(&x);
        } else if (x.in_class) {
            ok = translate_in_class(&x, class_start);
        } else if (c == '[') {
            x.in_class = true;
            buf_add(out, &c, 1);
            x.pos++;
            if (x.pos < pattern.size && pattern.data[x.pos] == '^') {
                buf_add_str(out, STR("^"));
                x.pos++;
            }
            class_start = x.pos;
        } else if (c == '(') {
            ok = translate_group(&x);
        } else if (c == '{') {
            ok = translate_interval(&x);
        } else {
            buf_add(out, &c, 1);
            x.pos++;
        }
        if (!ok) {
            return false;
        }
    }
    return buf_ok(out, "a pattern", err);
}

/* ---- compiling and matching ---------------------------------------------------------------- */

regex *regex_new(str pattern, dp_error *err) {
    if (pattern.size > PATTERN_BYTES_MAX) {
        err_set(err, DP_E_LIMIT, "a pattern of %zu bytes, the limit is %d", pattern.size,
                PATTERN_BYTES_MAX);
        return NULL;
    }
    if (pattern.size == 0) {
        err_set(err, DP_E_FORMAT, "a pattern is empty");
        return NULL;
    }
    buf ours;
    buf_init(&ours, (size_t)PATTERN_BYTES_MAX * 32);
    regex *r = mem_new(1, sizeof(*r) + pattern.size, "a pattern", err);
    if (r == NULL || !translate_pattern(pattern, &ours, err)) {
        goto fail;
    }
    r->size = pattern.size;
    memcpy(r->pattern, pattern.data, pattern.size);
    const size_t head = pattern.size < sizeof(r->head) ? pattern.size : sizeof(r->head) - 1;
    memcpy(r->head, pattern.data, head);
    r->head[head - utf8_incomplete_tail((str){ r->head, head })] = '\0';
    r->general = pcre2_general_context_create(pcre2_take, pcre2_give, NULL);
    pcre2_compile_context *how = r->general ? pcre2_compile_context_create(r->general) : NULL;
    if (how == NULL) {
        err_set(err, DP_E_MEMORY, "out of memory: a pattern");
        goto fail;
    }
    pcre2_set_newline(how, PCRE2_NEWLINE_LF);
    int code = 0;
    PCRE2_SIZE offset = 0;
    r->code = pcre2_compile((PCRE2_SPTR)ours.data, ours.size,
                            PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                            &code, &offset, how);
    pcre2_compile_context_free(how);
    if (r->code == NULL) {
        char text[160] = "";
        pcre2_get_error_message(code, (PCRE2_UCHAR *)text, sizeof(text));
        err_set(err, code == PCRE2_ERROR_HEAP_FAILED ? DP_E_MEMORY : DP_E_FORMAT,
                "pattern \"%s\": %s", r->head, text);
        goto fail;
    }
    buf_free(&ours);
    return r;
fail:
    buf_free(&ours);
    regex_free(r);
    return NULL;
}

void regex_free(regex *r) {
    if (r == NULL) {
        return;
    }
    pcre2_code_free(r->code);
    pcre2_general_context_free(r->general);
    mem_free(r);
}

str regex_pattern(const regex *r) {
    return (str){ r->pattern, r->size };
}

regex_work *regex_work_new(dp_error *err) {
    regex_work *w = mem_new(1, sizeof(*w), "pattern matching", err);
    if (w == NULL) {
        return NULL;
    }
    w->general = pcre2_general_context_create(pcre2_take, pcre2_give, NULL);
    w->context = w->general ? pcre2_match_context_create(w->general) : NULL;
    w->data = w->context ? pcre2_match_data_create(1, w->general) : NULL;
    if (w->data == NULL) {
        err_set(err, DP_E_MEMORY, "out of memory: pattern matching");
        regex_work_free(w);
        return NULL;
    }
    pcre2_set_heap_limit(w->context, MATCH_HEAP_KIB);
    return w;
}

void regex_work_free(regex_work *w) {
    if (w == NULL) {
        return;
    }
    pcre2_match_data_free(w->data);
    pcre2_match_context_free(w->context);
    pcre2_general_context_free(w->general);
    mem_free(w);
}

bool regex_find(const regex *r, regex_work *w, str text, size_t from, size_t *start, size_t *end,
                bool *found, dp_error *err) {
    const uint64_t steps = MATCH_STEPS + (uint64_t)MATCH_STEPS_PER_BYTE * (text.size - from);
    const uint32_t limit = (uint32_t)min_u64(steps, UINT32_MAX);
    pcre2_set_match_limit(w->context, limit);
    pcre2_set_depth_limit(w->context, limit);
    /* The text is valid by contract; PCRE2 would check all of it again at every call. */
    const int rc = pcre2_match(r->code, (PCRE2_SPTR)text.data, text.size, from, PCRE2_NO_UTF_CHECK,
                               w->data, w->context);
    *found = rc >= 0;
    if (rc >= 0) {
        const PCRE2_SIZE *at = pcre2_get_ovector_pointer(w->data);
        /* \K is refused, but a look-behind assertion may still put the start after the end. */
        *start = at[0] < at[1] ? at[0] : at[1];
        *end = at[1];
        return true;
    }
    switch (rc) {
    case PCRE2_ERROR_NOMATCH:
        return true;
    case PCRE2_ERROR_MATCHLIMIT:
    case PCRE2_ERROR_DEPTHLIMIT:
        return err_set(err, DP_E_LIMIT, "pattern \"%s\": more than %u steps at byte %zu of a piece",
                       r->head, limit, from);
    case PCRE2_ERROR_HEAPLIMIT:
        return err_set(err, DP_E_LIMIT, "pattern \"%s\": more than %d KiB at byte %zu of a piece",
                       r->head, MATCH_HEAP_KIB, from);
    case PCRE2_ERROR_NOMEMORY:
        return err_set(err, DP_E_MEMORY, "out of memory: matching pattern \"%s\"", r->head);
    default:
        return err_set(err, DP_E_FORMAT, "pattern \"%s\": matching failed with code %d", r->head,
                       rc);
    }
}
