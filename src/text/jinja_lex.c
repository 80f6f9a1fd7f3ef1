/* jinja_lex: a template's text into tokens, on demand.
 *
 * The rules are those of jinja2's lexer with trim_blocks and lstrip_blocks: outside of tags the
 * text up to the next {{, {% or {#, cut where whitespace control says so; inside of them Python's
 * tokens. A closing brace ends a tag only where no bracket is open. One newline at the end of the
 * whole text is dropped before (by jinja_parse). */
#include "text/jinja_internal.h"

#include <stdio.h>

void jinja_lex(jlexer *l, jinja *j, str source) {
    *l = (jlexer){ .j = j, .source = source, .line = 1, .line_starting = true };
}

static char lex_at(const jlexer *l, size_t pos) {
    return pos < l->source.size ? l->source.data[pos] : '\0';
}

static bool lex_has(const jlexer *l, size_t pos, const char *text) {
    const size_t n = strlen(text);
    return pos <= l->source.size && n <= l->source.size - pos &&
           memcmp(l->source.data + pos, text, n) == 0;
}

/* End of the whitespace that begins at pos. */
static size_t lex_spaces(const jlexer *l, size_t pos) {
    while (pos < l->source.size) {
        uint32_t code;
        const str rest = { l->source.data + pos, l->source.size - pos };
        const size_t n = utf8_next(rest, &code);
        if (n == 0 || !jinja_is_space(code)) break;
        pos += n;
    }
    return pos;
}

/* Start of the whitespace that ends at `end`, not before `from`. */
static size_t lex_spaces_back(const jlexer *l, size_t from, size_t end) {
    while (end > from) {
        uint32_t code;
        const size_t n = utf8_previous(l->source, end, &code);
        if (n == 0 || n > end - from || !jinja_is_space(code)) break;
        end -= n;
    }
    return end;
}

/* Goes on to `pos`, counting lines. */
static void lex_move(jlexer *l, size_t pos) {
    for (size_t i = l->pos; i < pos; i++)
        l->line += l->source.data[i] == '\n';
    l->line_starting = pos > 0 && pos > l->pos && l->source.data[pos - 1] == '\n';
    l->pos = pos;
}

static jtoken lex_wrong(jlexer *l, const char *what) {
    l->j->line = l->line;
    jinja_fail(l->j, DP_E_FORMAT, "%s", what);
    return (jtoken){ .kind = T_END, .line = l->line };
}

/* ---- outside of tags ----------------------------------------------------------------------- */

/* Where the end of a tag, "%}" or "#}" with its whitespace control, that begins at pos ends; 0 if
 * none does. */
static size_t lex_tag_end(const jlexer *l, size_t pos, const char *close) {
    const char sign = lex_at(l, pos);
    if ((sign == '-' || sign == '+') && lex_has(l, pos + 1, close)) {
        return sign == '-' ? lex_spaces(l, pos + 3) : pos + 3;
    }
    if (!lex_has(l, pos, close)) return 0;
    return pos + 2 + (lex_at(l, pos + 2) == '\n');
}

/* End of "{% raw %}" at pos, 0 if there is something else. */
static size_t lex_raw_begin(const jlexer *l, size_t pos) {
    const char sign = lex_at(l, pos + 2);
    pos = lex_spaces(l, pos + 2 + (sign == '-' || sign == '+'));
    if (!lex_has(l, pos, "raw")) return 0;
    pos = lex_spaces(l, pos + 3);
    if (lex_has(l, pos, "-%}")) return lex_spaces(l, pos + 3);
    return lex_has(l, pos, "%}") ? pos + 2 : 0;
}

/* End of "{% endraw %}" at pos, 0 if there is something else. */
static size_t lex_raw_end(const jlexer *l, size_t pos) {
    const char sign = lex_at(l, pos + 2);
    pos = lex_spaces(l, pos + 2 + (sign == '-' || sign == '+'));
    if (!lex_has(l, pos, "endraw")) return 0;
    return lex_tag_end(l, lex_spaces(l, pos + 6), "%}");
}

/* The data before a tag at `tag`, cut by the tag's sign or, unless it prints, by lstrip_blocks. */
static str lex_data(const jlexer *l, size_t tag, bool prints) {
    const char sign = lex_at(l, tag + 2);
    size_t end = tag;
    if (sign == '-') {
        end = lex_spaces_back(l, l->pos, tag);
    } else if (sign != '+' && !prints) {
        size_t line = tag;
        while (line > l->pos && l->source.data[line - 1] != '\n')
            line--;
        const bool starts = line > l->pos || l->line_starting;
        if (starts && lex_spaces_back(l, line, tag) == line) end = line;
    }
    return (str){ l->source.data + l->pos, end - l->pos };
}

/* Passes the text up to the next tag and that tag's beginning. */
static str lex_root(jlexer *l) {
    size_t tag = l->pos;
    for (; tag < l->source.size; tag++) {
        const char *open = memchr(l->source.data + tag, '{', l->source.size - tag);
        tag = open == NULL ? l->source.size : (size_t)(open - l->source.data);
        const char next = lex_at(l, tag + 1);
        if (next == '{' || next == '%' || next == '#') break;
    }
    if (tag >= l->source.size) {
        const str rest = { l->source.data + l->pos, l->source.size - l->pos };
        lex_move(l, l->source.size);
        return rest;
    }
    const char kind = lex_at(l, tag + 1);
    const str data = lex_data(l, tag, kind == '{');
    const size_t raw = kind == '%' ? lex_raw_begin(l, tag) : 0;
    const char sign = lex_at(l, tag + 2);
    lex_move(l, raw > 0 ? raw : tag + 2 + (sign == '-' || sign == '+'));
    l->mode = raw > 0       ? LEX_RAW
              : kind == '#' ? LEX_COMMENT
              : kind == '%' ? LEX_BLOCK
                            : LEX_VARIABLE;
    l->begun = false;
    return data;
}

/* Passes the rest of a comment. */
static bool lex_comment(jlexer *l) {
    for (size_t pos = l->pos; pos < l->source.size; pos++) {
        const size_t end = lex_tag_end(l, pos, "#}");
        if (end == 0) continue;
        lex_move(l, end);
        l->mode = LEX_ROOT;
        return true;
    }
    lex_wrong(l, "a comment has no end");
    return false;
}

static str lex_raw(jlexer *l) {
    for (size_t pos = l->pos; pos < l->source.size; pos++) {
        const size_t end = lex_has(l, pos, "{%") ? lex_raw_end(l, pos) : 0;
        if (end == 0) continue;
        const str data = lex_data(l, pos, false);
        lex_move(l, end);
        l->mode = LEX_ROOT;
        return data;
    }
    lex_wrong(l, "{% raw %} has no end");
    return STR("");
}

/* ---- numbers, names, strings --------------------------------------------------------------- */

static bool is_base_digit(char c, int base) {
    if (base <= 10) return c >= '0' && c < '0' + base;
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* End of digits with single underscores between them. */
static size_t lex_digits(const jlexer *l, size_t pos, int base) {
    while (is_base_digit(lex_at(l, pos), base)) {
        pos++;
        if (lex_at(l, pos) == '_' && is_base_digit(lex_at(l, pos + 1), base)) pos++;
    }
    return pos;
}

/* End of a float at pos; 0 if it is none. */
static size_t lex_float_end(const jlexer *l, size_t pos) {
    if (pos > 0 && lex_at(l, pos - 1) == '.') return 0; /* the second index of a.0.1 */
    const size_t whole = lex_digits(l, pos, 10);
    if (whole == pos) return 0;
    size_t end = whole;
    if (lex_at(l, end) == '.' && is_base_digit(lex_at(l, end + 1), 10)) {
        end = lex_digits(l, end + 1, 10);
    }
    if (lex_at(l, end) == 'e' || lex_at(l, end) == 'E') {
        const char sign = lex_at(l, end + 1);
        const size_t digits = end + 1 + (sign == '+' || sign == '-');
        const size_t exponent = lex_digits(l, digits, 10);
        if (exponent > digits) return exponent;
    }
    return end > whole ? end : 0;
}

/* End of an integer at pos, with its base. */
static size_t lex_integer_end(const jlexer *l, size_t pos, int *base) {
    const char letter = lex_at(l, pos) == '0' ? (char)(lex_at(l, pos + 1) | 0x20) : '0';
    *base = letter == 'b' ? 2 : letter == 'o' ? 8 : letter == 'x' ? 16 : 10;
    if (*base != 10) {
        const size_t start = pos + 2 + (lex_at(l, pos + 2) == '_');
        const size_t end = lex_digits(l, start, *base);
        if (end > start) return end;
        *base = 10;
    }
    /* Zeros in front of other digits are a number of their own. */
    return lex_digits(l, pos, lex_at(l, pos) == '0' ? 1 : 10);
}

static jtoken lex_number(jlexer *l) {
    jtoken token = { .kind = T_NUMBER, .line = l->line };
    int base = 10;
    const size_t real = lex_float_end(l, l->pos);
    const size_t end = real > 0 ? real : lex_integer_end(l, l->pos, &base);
    const jtext text = { .data = l->source.data + l->pos,
                         .size = end - l->pos,
                         .length = end - l->pos };
    l->j->line = l->line;
    if (real > 0) {
        double f = 0;
        if (!jinja_parse_float(&text, &f)) return lex_wrong(l, "a number that cannot be read");
        token.value = jinja_float(f);
    } else {
        int64_t i = 0;
        if (!jinja_parse_int(l->j, &text, base, &i)) {
            return lex_wrong(l, "a number that cannot be read");
        }
        token.value = jinja_int(i);
    }
    lex_move(l, end);
    return token;
}

static bool is_name_code(uint32_t code) {
    if (code >= 0x80) return code_is_word(code);
    return (code >= '0' && code <= '9') || (code >= 'a' && code <= 'z') ||
           (code >= 'A' && code <= 'Z') || code == '_';
}

static size_t lex_name_end(const jlexer *l, size_t pos) {
    while (pos < l->source.size) {
        uint32_t code;
        const size_t n = utf8_next((str){ l->source.data + pos, l->source.size - pos }, &code);
        if (n == 0 || !is_name_code(code)) break;
        pos += n;
    }
    return pos;
}

/* The value of up to `most` digits at *pos; -1 if there are fewer than `least`. */
static int64_t lex_escape_digits(str s, size_t *pos, int base, size_t least, size_t most) {
    int64_t value = 0;
    size_t n = 0;
    while (n < most && *pos < s.size && is_base_digit(s.data[*pos], base)) {
        const char c = s.data[(*pos)++];
        value = value * base + (c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
        n++;
    }
    return n < least ? -1 : value;
}

/* One escape sequence; *pos is behind the backslash. False if Python refuses it or it has no UTF-8.
 */
static bool lex_escape(jinja *j, jout *out, str s, size_t *pos) {
    static const char letters[] = "\\'\"abfnrtv", meant[] = "\\'\"\a\b\f\n\r\t\v";
    const char c = s.data[*pos];
    const char *simple = c == '\0' ? NULL : strchr(letters, c);
    int64_t code;
    if (c == '\n') {
        (*pos)++;
        return true;
    }
    if (simple != NULL) {
        (*pos)++;
        jinja_put(j, out, &meant[simple - letters], 1, false);
        return true;
    }
    if (c >= '0' && c <= '7') {
        code = lex_escape_digits(s, pos, 8, 1, 3);
    } else if (c == 'x' || c == 'u' || c == 'U') {
        const size_t n = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        (*pos)++;
        code = lex_escape_digits(s, pos, 16, n, n);
    } else if (c == 'N') {
        return false;
    } else { /* both stay */
        jinja_put_str(j, out, "\\");
        uint32_t other = 0;
        const size_t n = utf8_next((str){ s.data + *pos, s.size - *pos }, &other);
        if (other >= 0x80) { /* Python spells it as an escape before it reads the backslash */
            char text[16];
            const int size = snprintf(text, sizeof(text),
                                      other < 0x100     ? "x%02x"
                                      : other < 0x10000 ? "u%04x"
                                                        : "U%08x",
                                      (unsigned)other);
            jinja_put(j, out, text, (size_t)size, false);
            *pos += n;
        }
        return true;
    }
    if (code < 0 || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) return false;
    jinja_put_code(j, out, (uint32_t)code, false);
    return true;
}

static jtoken lex_string(jlexer *l) {
    jtoken token = { .kind = T_STRING, .line = l->line };
    const char quote = lex_at(l, l->pos);
    size_t end = l->pos + 1;
    bool escapes = false;
    for (; end < l->source.size && l->source.data[end] != quote; end++) {
        if (l->source.data[end] == '\\') escapes = true, end++;
    }
    if (end >= l->source.size) return lex_wrong(l, "a string has no end");
    const str s = { l->source.data + l->pos + 1, end - l->pos - 1 };
    if (!escapes) {
        token.value = jinja_text(l->j, s.data, s.size, false);
    } else {
        jout out = { 0 };
        for (size_t pos = 0; pos < s.size && !l->j->failed;) {
            const char *slash = memchr(s.data + pos, '\\', s.size - pos);
            const size_t plain = slash == NULL ? s.size : (size_t)(slash - s.data);
            jinja_put(l->j, &out, s.data + pos, plain - pos, false);
            pos = plain + 1;
            if (slash != NULL && !lex_escape(l->j, &out, s, &pos)) {
                return lex_wrong(l, "an escape in a string that names no character");
            }
        }
        token.value = jinja_finish(l->j, &out);
    }
    lex_move(l, end + 1);
    return token;
}

/* ---- inside of tags ------------------------------------------------------------------------ */

/* An operator at the position, two characters first. */
static jtoken lex_operator(jlexer *l) {
    static const struct {
        const char *text;
        jtoken_kind kind;
    } operators[] = {
        { "**", T_POW },     { "//", T_FLOORDIV }, { "==", T_EQ },    { "!=", T_NE },
        { ">=", T_GE },      { "<=", T_LE },       { "+", T_ADD },    { "-", T_SUB },
        { "/", T_DIV },      { "*", T_MUL },       { "%", T_MOD },    { "~", T_TILDE },
        { "[", T_LBRACKET }, { "]", T_RBRACKET },  { "(", T_LPAREN }, { ")", T_RPAREN },
        { "{", T_LBRACE },   { "}", T_RBRACE },    { ">", T_GT },     { "<", T_LT },
        { "=", T_ASSIGN },   { ".", T_DOT },       { ":", T_COLON },  { "|", T_PIPE },
        { ",", T_COMMA },    { ";", T_SEMICOLON },
    };
    for (size_t i = 0; i < ARRAY_LEN(operators); i++) {
        if (!lex_has(l, l->pos, operators[i].text)) continue;
        const jtoken token = { .kind = operators[i].kind,
                               .line = l->line,
                               .text = str_of(operators[i].text) };
        const char c = operators[i].text[0];
        if (token.kind == T_LBRACKET || token.kind == T_LPAREN || token.kind == T_LBRACE) {
            if (l->n_open == sizeof(l->open)) {
                jinja_fail(l->j, DP_E_LIMIT, "more than %zu open brackets", sizeof(l->open));
                return (jtoken){ .kind = T_END, .line = l->line };
            }
            l->open[l->n_open++] = c == '[' ? ']' : c == '(' ? ')' : '}';
        } else if (c == ']' || c == ')' || c == '}') {
            if (l->n_open == 0 || l->open[--l->n_open] != c) {
                return lex_wrong(l, "a bracket is closed that is not open");
            }
        }
        lex_move(l, l->pos + token.text.size);
        return token;
    }
    uint32_t code = 0;
    utf8_next((str){ l->source.data + l->pos, l->source.size - l->pos }, &code);
    l->j->line = l->line;
    jinja_fail(l->j, DP_E_FORMAT, "unexpected character U+%04X", (unsigned)code);
    return (jtoken){ .kind = T_END, .line = l->line };
}

static jtoken lex_tag(jlexer *l) {
    const bool block = l->mode == LEX_BLOCK;
    for (;;) {
        if (l->pos >= l->source.size) return (jtoken){ .kind = T_END, .line = l->line };
        if (l->n_open == 0) {
            size_t end = 0;
            if (block) {
                end = lex_tag_end(l, l->pos, "%}");
            } else if (lex_has(l, l->pos, "-}}")) {
                end = lex_spaces(l, l->pos + 3);
            } else if (lex_has(l, l->pos, "}}")) {
                end = l->pos + 2;
            }
            if (end > 0) {
                const jtoken token = { .kind = block ? T_BLOCK_END : T_VARIABLE_END,
                                       .line = l->line,
                                       .text = block ? STR("%}") : STR("}}") };
                lex_move(l, end);
                l->mode = LEX_ROOT;
                return token;
            }
        }
        const size_t next = lex_spaces(l, l->pos);
        if (next == l->pos) break;
        lex_move(l, next);
    }
    const char c = lex_at(l, l->pos);
    if (c >= '0' && c <= '9') return lex_number(l);
    if (c == '\'' || c == '"') return lex_string(l);
    const size_t end = lex_name_end(l, l->pos);
    if (end == l->pos) return lex_operator(l);
    const jtoken token = { .kind = T_NAME,
                           .line = l->line,
                           .text = { l->source.data + l->pos, end - l->pos } };
    lex_move(l, end);
    return token;
}

jtoken jinja_lex_next(jlexer *l) {
    while (!l->j->failed) {
        const uint32_t line = l->line;
        str data = STR("");
        switch (l->mode) {
        case LEX_ROOT:
            if (l->pos >= l->source.size) return (jtoken){ .kind = T_END, .line = line };
            data = lex_root(l);
            break;
        case LEX_COMMENT:
            lex_comment(l);
            break;
        case LEX_RAW:
            data = lex_raw(l);
            break;
        case LEX_BLOCK:
        case LEX_VARIABLE:
            if (l->begun) return lex_tag(l);
            l->begun = true;
            return l->mode == LEX_BLOCK
                       ? (jtoken){ .kind = T_BLOCK_BEGIN, .line = line, .text = STR("{%") }
                       : (jtoken){ .kind = T_VARIABLE_BEGIN, .line = line, .text = STR("{{") };
        }
        if (data.size > 0) return (jtoken){ .kind = T_DATA, .line = line, .text = data };
    }
    return (jtoken){ .kind = T_END, .line = l->line };
}
