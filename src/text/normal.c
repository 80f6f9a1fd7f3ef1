/* normal: texts rewritten before they are cut, and what is asked about single characters.
 *
 * Normalizers follow Hugging Face tokenizers; the Unicode data is utf8proc's. Bytes that are no
 * UTF-8 pass through every step as they are. utf8proc's own decomposition of whole texts sorts
 * combining marks by bubbling, quadratic in a run of them, so that texts are decomposed character
 * by character here and runs sorted by counting. */
#include "text/text_internal.h"

#include <utf8proc.h>

/* ---- characters ---------------------------------------------------------------------------- */

bool code_is_space(uint32_t code) { /* White_Space */
    return (code >= 0x09 && code <= 0x0D) || code == 0x20 || code == 0x85 || code == 0xA0 ||
           code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 ||
           code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

bool code_is_number(uint32_t code) {
    if (code < 0x80) {
        return code >= '0' && code <= '9';
    }
    const utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)code);
    return c == UTF8PROC_CATEGORY_ND || c == UTF8PROC_CATEGORY_NL || c == UTF8PROC_CATEGORY_NO;
}

bool code_is_punctuation(uint32_t code) {
    if (code < 0x80) { /* symbols too, as far as they are ASCII */
        return (code >= 0x21 && code <= 0x2F) || (code >= 0x3A && code <= 0x40) ||
               (code >= 0x5B && code <= 0x60) || (code >= 0x7B && code <= 0x7E);
    }
    const utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)code);
    return c >= UTF8PROC_CATEGORY_PC && c <= UTF8PROC_CATEGORY_PO;
}

/* \w of Unicode Technical Standard 18: alphabetic, mark, decimal digit, connector, join control. */
bool code_is_word(uint32_t code) {
    switch (utf8proc_category((utf8proc_int32_t)code)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default: /* the alphabetic symbols: circled and squared letters */
        return code == 0x200C || code == 0x200D || (code >= 0x24B6 && code <= 0x24E9) ||
               (code >= 0x1F130 && code <= 0x1F149) || (code >= 0x1F150 && code <= 0x1F169) ||
               (code >= 0x1F170 && code <= 0x1F189);
    }
}

size_t utf8_previous(str s, size_t end, uint32_t *code) {
    for (size_t n = 1; n <= 4 && n <= end; n++) {
        const size_t got = utf8_next((str){ s.data + end - n, n }, code);
        if (got > 0) {
            return got == n ? n : 0;
        }
    }
    return 0;
}

/* ---- GPT-2's bytes as characters ----------------------------------------------------------- */

/* Bytes that Latin-1 prints stand for themselves; the 68 others, in order, for U+0100 and on. */
const uint16_t byte_chars[256] = {
    0x100, 0x101, 0x102, 0x103, 0x104, 0x105, 0x106, 0x107, 0x108, 0x109, 0x10A, 0x10B, 0x10C,
    0x10D, 0x10E, 0x10F, 0x110, 0x111, 0x112, 0x113, 0x114, 0x115, 0x116, 0x117, 0x118, 0x119,
    0x11A, 0x11B, 0x11C, 0x11D, 0x11E, 0x11F, 0x120, 0x21,  0x22,  0x23,  0x24,  0x25,  0x26,
    0x27,  0x28,  0x29,  0x2A,  0x2B,  0x2C,  0x2D,  0x2E,  0x2F,  0x30,  0x31,  0x32,  0x33,
    0x34,  0x35,  0x36,  0x37,  0x38,  0x39,  0x3A,  0x3B,  0x3C,  0x3D,  0x3E,  0x3F,  0x40,
    0x41,  0x42,  0x43,  0x44,  0x45,  0x46,  0x47,  0x48,  0x49,  0x4A,  0x4B,  0x4C,  0x4D,
    0x4E,  0x4F,  0x50,  0x51,  0x52,  0x53,  0x54,  0x55,  0x56,  0x57,  0x58,  0x59,  0x5A,
    0x5B,  0x5C,  0x5D,  0x5E,  0x5F,  0x60,  0x61,  0x62,  0x63,  0x64,  0x65,  0x66,  0x67,
    0x68,  0x69,  0x6A,  0x6B,  0x6C,  0x6D,  0x6E,  0x6F,  0x70,  0x71,  0x72,  0x73,  0x74,
    0x75,  0x76,  0x77,  0x78,  0x79,  0x7A,  0x7B,  0x7C,  0x7D,  0x7E,  0x121, 0x122, 0x123,
    0x124, 0x125, 0x126, 0x127, 0x128, 0x129, 0x12A, 0x12B, 0x12C, 0x12D, 0x12E, 0x12F, 0x130,
    0x131, 0x132, 0x133, 0x134, 0x135, 0x136, 0x137, 0x138, 0x139, 0x13A, 0x13B, 0x13C, 0x13D,
    0x13E, 0x13F, 0x140, 0x141, 0x142, 0xA1,  0xA2,  0xA3,  0xA4,  0xA5,  0xA6,  0xA7,  0xA8,
    0xA9,  0xAA,  0xAB,  0xAC,  0x143, 0xAE,  0xAF,  0xB0,  0xB1,  0xB2,  0xB3,  0xB4,  0xB5,
    0xB6,  0xB7,  0xB8,  0xB9,  0xBA,  0xBB,  0xBC,  0xBD,  0xBE,  0xBF,  0xC0,  0xC1,  0xC2,
    0xC3,  0xC4,  0xC5,  0xC6,  0xC7,  0xC8,  0xC9,  0xCA,  0xCB,  0xCC,  0xCD,  0xCE,  0xCF,
    0xD0,  0xD1,  0xD2,  0xD3,  0xD4,  0xD5,  0xD6,  0xD7,  0xD8,  0xD9,  0xDA,  0xDB,  0xDC,
    0xDD,  0xDE,  0xDF,  0xE0,  0xE1,  0xE2,  0xE3,  0xE4,  0xE5,  0xE6,  0xE7,  0xE8,  0xE9,
    0xEA,  0xEB,  0xEC,  0xED,  0xEE,  0xEF,  0xF0,  0xF1,  0xF2,  0xF3,  0xF4,  0xF5,  0xF6,
    0xF7,  0xF8,  0xF9,  0xFA,  0xFB,  0xFC,  0xFD,  0xFE,  0xFF,
};

int char_byte(uint32_t code) {
    if (code < 0x100) {
        return byte_chars[code] == code ? (int)code : -1;
    }
    if (code <= 0x120) {
        return (int)code - 0x100;
    }
    if (code <= 0x142) {
        return (int)code - 0x121 + 0x7F;
    }
    return code == 0x143 ? 0xAD : -1;
}

void add_byte_chars(buf *out, str bytes) {
    char run[256];
    size_t n = 0;
    for (size_t i = 0; i < bytes.size; i++) {
        n += utf8_put(run + n, byte_chars[(uint8_t)bytes.data[i]]);
        if (n > sizeof(run) - 4) {
            buf_add(out, run, n);
            n = 0;
        }
    }
    buf_add(out, run, n);
}

/* ---- lists of steps ------------------------------------------------------------------------ */

step *step_add(step_list *steps, step_kind kind, const char *what, dp_error *err) {
    if (steps->n == STEPS_MAX) {
        err_set(err, DP_E_LIMIT, "%s: more than %d steps", what, STEPS_MAX);
        return NULL;
    }
    step *s = &steps->list[steps->n++];
    *s = (step){ .kind = kind };
    return s;
}

bool step_add_regex(step_list *steps, str pattern, split_kind split, const char *what,
                    dp_error *err) {
    step *s = step_add(steps, STEP_SPLIT, what, err);
    if (s == NULL) {
        return false;
    }
    s->match = MATCH_REGEX;
    s->split = split;
    s->regex = regex_new(pattern, err);
    return s->regex != NULL || err_prefix(err, "%s: ", what);
}

void steps_free(step_list *steps) {
    for (uint32_t i = 0; i < steps->n; i++) {
        regex_free(steps->list[i].regex);
    }
    steps->n = 0;
}

/* ---- marks ---------------------------------------------------------------------------------- */

void mark_output(encoding *e, str in, size_t from, size_t to, size_t n) {
    if (e->marks_in == NULL) {
        return;
    }
    if (from == to) {
        from -= from > 0;
        to += to < in.size;
    }
    uint8_t mark = 0;
    for (size_t i = from; i < to; i++) {
        mark |= e->marks_in[i];
    }
    for (size_t i = 0; i < n; i++) {
        buf_add(e->marks_out, &mark, 1);
    }
}

void mark_copied(encoding *e, size_t from, size_t to) {
    if (e->marks_in != NULL) {
        buf_add(e->marks_out, e->marks_in + from, to - from);
    }
}

/* ---- normal forms -------------------------------------------------------------------------- */

static bool codes_reserve(encoding *e, size_t n) {
    if (n <= e->n_codes) {
        return true;
    }
    const size_t capacity = n + n / 2 + 256;
    int32_t *codes = mem_resize(e->codes, capacity, 2 * sizeof(*codes), "normalizing", e->err);
    if (codes == NULL) {
        return false;
    }
    e->codes = codes;
    e->n_codes = capacity;
    return true;
}

static uint8_t combining_class(int32_t code) {
    return (uint8_t)utf8proc_get_property(code)->combining_class;
}

/* Canonical order: runs of combining marks, stably by class. `spare` is as long as `codes`. */
static void order_marks(int32_t *codes, size_t n, int32_t *spare) {
    size_t i = 0;
    while (i < n) {
        if (codes[i] < 0x300 || combining_class(codes[i]) == 0) {
            i++;
            continue;
        }
        size_t end = i;
        size_t starts[257] = { 0 };
        while (end < n && combining_class(codes[end]) != 0) {
            starts[combining_class(codes[end]) + 1]++;
            end++;
        }
        if (end - i > 1) {
            for (size_t c = 1; c < ARRAY_LEN(starts); c++) {
                starts[c] += starts[c - 1];
            }
            for (size_t j = i; j < end; j++) {
                spare[starts[combining_class(codes[j])]++] = codes[j];
            }
            memcpy(codes + i, spare, (end - i) * sizeof(*codes));
        }
        i = end;
    }
}

/* One valid part of a text, [from, to). */
static bool add_normal_form(encoding *e, str in, size_t from, size_t to, int options, buf *out) {
    enum { LONGEST = 32 }; /* code points of one character's decomposition; 18 in Unicode */
    size_t n = 0;
    for (size_t i = from; i < to;) {
        uint32_t code = 0;
        i += utf8_next((str){ in.data + i, to - i }, &code);
        if (!codes_reserve(e, n + LONGEST)) {
            return false;
        }
        int last = 0;
        const utf8proc_ssize_t got = utf8proc_decompose_char(
            (utf8proc_int32_t)code, e->codes + n, LONGEST, (utf8proc_option_t)options, &last);
        assert(got >= 0 && got <= LONGEST);
        n += (size_t)got;
    }
    order_marks(e->codes, n, e->codes + e->n_codes);
    if (options & UTF8PROC_COMPOSE) {
        const utf8proc_ssize_t got =
            utf8proc_normalize_utf32(e->codes, (utf8proc_ssize_t)n, (utf8proc_option_t)options);
        assert(got >= 0);
        n = (size_t)got;
    }
    const size_t before = out->size;
    for (size_t i = 0; i < n; i++) {
        char bytes[4];
        buf_add(out, bytes, utf8_put(bytes, (uint32_t)e->codes[i]));
    }
    if (n > 0 && (uint8_t)in.data[from] < 0x80 && e->codes[0] == in.data[from]) {
        mark_copied(e, from, from + 1); /* nothing joined it */
        mark_output(e, in, from + 1, to, out->size - before - 1);
    } else {
        mark_output(e, in, from, to, out->size - before);
    }
    return true;
}

/* No ASCII character joins what is before it, so that a text may be cut there. */
static bool apply_normal_form(encoding *e, str in, int options, buf *out) {
    for (size_t i = 0; i < in.size;) {
        size_t end = i, n;
        while (end < in.size && (uint8_t)in.data[end] < 0x80) {
            end++;
        }
        const bool goes_on =
            end < in.size && utf8_next((str){ in.data + end, in.size - end }, NULL);
        const size_t from = end > i && goes_on ? end - 1 : end; /* a mark may join the last one */
        buf_add(out, in.data + i, from - i);
        mark_copied(e, i, from);
        while (end < in.size && (uint8_t)in.data[end] >= 0x80 &&
               (n = utf8_next((str){ in.data + end, in.size - end }, NULL)) > 0) {
            end += n;
        }
        if (end > from && !add_normal_form(e, in, from, end, options, out)) {
            return false;
        }
        if (end < in.size && (uint8_t)in.data[end] >= 0x80) { /* a byte that is no UTF-8 */
            buf_add(out, in.data + end, 1);
            mark_copied(e, end, end + 1);
            end++;
        }
        i = end;
    }
    return true;
}

/* Character by character. */
static void apply_to_characters(encoding *e, const step *s, str in, buf *out) {
    for (size_t i = 0; i < in.size;) {
        uint32_t code = 0;
        char bytes[4];
        const size_t before = out->size;
        size_t n = utf8_next((str){ in.data + i, in.size - i }, &code);
        if (n == 0) {
            n = 1;
            buf_add(out, in.data + i, 1);
        } else if (s->kind == STEP_STRIP_ACCENTS) {
            const utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)code);
            if (c < UTF8PROC_CATEGORY_MN || c > UTF8PROC_CATEGORY_ME) {
                buf_add(out, in.data + i, n);
            }
        } else if (code == 0x130) { /* the one letter whose lower case has two characters */
            buf_add_str(out, STR("i\xCC\x87"));
        } else {
            const uint32_t low = (uint32_t)utf8proc_tolower((utf8proc_int32_t)code);
            buf_add(out, bytes, utf8_put(bytes, low));
        }
        mark_output(e, in, i, i + n, out->size - before);
        i += n;
    }
}

static str strip_spaces(str s, bool left, bool right) {
    uint32_t code;
    size_t n;
    while (left && (n = utf8_next(s, &code)) > 0 && code_is_space(code)) {
        s.data += n;
        s.size -= n;
    }
    while (right && (n = utf8_previous(s, s.size, &code)) > 0 && code_is_space(code)) {
        s.size -= n;
    }
    return s;
}

static bool apply_replace(encoding *e, const step *s, str in, buf *space, str *out) {
    match_scan scan = { .step = s, .text = in, .last_end = SIZE_MAX };
    size_t done = 0, start, end;
    bool found, any = false;
    while (true) {
        if (!match_next(e, &scan, &start, &end, &found)) {
            return false;
        }
        if (!found) {
            break;
        }
        buf_add(space, in.data + done, start - done);
        buf_add_str(space, s->content);
        mark_copied(e, done, start);
        mark_output(e, in, start, end, s->content.size);
        done = end;
        any = true;
    }
    if (any) {
        buf_add(space, in.data + done, in.size - done);
        mark_copied(e, done, in.size);
        *out = (str){ space->data, space->size };
    }
    return true;
}

bool step_apply(encoding *e, const step *s, str in, bool at_start, buf *space, str *out) {
    static const int forms[] = {
        [STEP_NFC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE,
        [STEP_NFD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
        [STEP_NFKC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
        [STEP_NFKD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT,
    };
    buf_reset(space);
    *out = in;
    switch (s->kind) {
    case STEP_SPLIT:
        assert(!"a split is no rewriting");
        return true;
    case STEP_BYTES:
        add_byte_chars(space, in);
        break;
    case STEP_PREPEND:
        if (in.size == 0 || (s->only_at_start && !at_start) ||
            (s->unless_there && in.size >= s->content.size &&
             memcmp(in.data, s->content.data, s->content.size) == 0)) {
            return true;
        }
        buf_add_str(space, s->content);
        buf_add_str(space, in);
        mark_output(e, in, 0, 0, s->content.size);
        mark_copied(e, 0, in.size);
        break;
    case STEP_REPLACE:
        return apply_replace(e, s, in, space, out) && buf_ok(space, "a normalized text", e->err);
    case STEP_NFC:
    case STEP_NFD:
    case STEP_NFKC:
    case STEP_NFKD:
        if (!apply_normal_form(e, in, forms[s->kind], space)) {
            return false;
        }
        break;
    case STEP_LOWER:
    case STEP_STRIP_ACCENTS:
        apply_to_characters(e, s, in, space);
        break;
    case STEP_CHARSMAP:
        charsmap_apply(e, s->charsmap, in, space);
        break;
    case STEP_SENTENCE:
        sentence_apply(e, s, in, at_start, space);
        break;
    case STEP_STRIP:
        *out = strip_spaces(in, s->left, s->right);
        return true;
    }
    *out = (str){ space->data, space->size };
    return buf_ok(space, "a normalized text", e->err);
}

/* What became of the marks of `before`: written anew, or a part of what was there. */
static bool follow_marks(const encoding *e, str before, str after, bool rewritten,
                         const uint8_t **marks) {
    if (*marks == NULL) {
        return true;
    }
    if (!rewritten) {
        *marks += after.data - before.data;
        return true;
    }
    if (!buf_ok(e->marks_out, "a normalized text", e->err)) {
        return false;
    }
    assert(e->marks_out->size == after.size);
    *marks = (const uint8_t *)e->marks_out->data;
    return true;
}

bool normalize(encoding *e, str in, bool at_start, str *out, const uint8_t **marks) {
    const step_list *steps = &e->t->normal;
    unsigned side = 0; /* the buffer that *out does not lie in */
    *out = in;
    for (uint32_t i = 0; i < steps->n; i++) {
        const str before = *out;
        e->marks_in = *marks;
        e->marks_out = &e->marks[side];
        buf_reset(e->marks_out);
        if (!step_apply(e, &steps->list[i], before, at_start, &e->normal[side], out)) {
            return false;
        }
        const bool rewritten = out->data == e->normal[side].data;
        if (!follow_marks(e, before, *out, rewritten, marks)) {
            return false;
        }
        side = rewritten ? 1 - side : side;
    }
    e->marks_in = NULL;
    return true;
}
