/* charsmap: SentencePiece's own normalization, compiled into a file.
 *
 * A precompiled_charsmap is the size in bytes of a trie, the trie, and the texts that it leads to,
 * each ended by a NUL; little-endian. The trie is a double array of 32-bit units (Darts-clone):
 * bits 10 to 30 are where a node's children lie relative to it (256 times as far if bit 9 is set),
 * bit 8 says that the key may end here, bits 0 to 7 the byte that led here; the unit of a key's end
 * has bit 31 set and its other bits are the place of the text. Bytes of it are hostile: every step
 * is checked against the array and takes one byte of the key, at most KEY_MAX.
 *
 * Two readers of it: SentencePiece takes the longest key at every place (normalizer.cc), Hugging
 * Face tokenizers the shortest at the start of every short grapheme, which stands for all of it,
 * and else of every character. */
#include "text/text_internal.h"

#include <utf8proc.h>

enum {
    KEY_MAX = 256,         /* bytes of a key that are looked at */
    GRAPHEME_MAX = 5,      /* bytes of a grapheme that is looked up whole */
    REPLACEMENT_MAX = 256, /* bytes that a key can become: bounds what a text can grow to */
    BASE64_LINE_MAX = 64 * 1024 * 1024,
};

struct charsmap {
    const uint32_t *units;
    uint32_t n_units;
    str texts;
};

static bool check_replacements(const tokenizer *t, const charsmap *rules, dp_error *err) {
    size_t n = 0;
    for (size_t i = 0; i < rules->texts.size; i++) {
        n = rules->texts.data[i] == '\0' ? 0 : n + 1;
        if (n > REPLACEMENT_MAX) {
            return err_set(err, DP_E_LIMIT,
                           "%s: precompiled_charsmap: a replacement of more than %d bytes",
                           t->source, (int)REPLACEMENT_MAX);
        }
    }
    return true;
}

charsmap *charsmap_new(tokenizer *t, str bytes, dp_error *err) {
    uint32_t size;
    if (bytes.size < sizeof(size)) {
        err_set(err, DP_E_FORMAT, "%s: precompiled_charsmap of %zu bytes", t->source, bytes.size);
        return NULL;
    }
    memcpy(&size, bytes.data, sizeof(size));
    const size_t rest = bytes.size - sizeof(size);
    if (size == 0 || size % sizeof(uint32_t) != 0 || size > rest) {
        err_set(err, DP_E_FORMAT,
                "%s: precompiled_charsmap: a trie of %u bytes, expected a multiple of 4 up to %zu",
                t->source, size, rest);
        return NULL;
    }
    charsmap *rules = arena_new(&t->memory, 1, sizeof(*rules), "precompiled_charsmap", err);
    char *copy = arena_copy(&t->memory, bytes.data + sizeof(size), rest, err); /* and aligned */
    if (rules == NULL || copy == NULL) {
        return NULL;
    }
    rules->units = (const uint32_t *)(const void *)copy;
    rules->n_units = size / sizeof(uint32_t);
    rules->texts = (str){ copy + size, rest - size };
    return check_replacements(t, rules, err) ? rules : NULL;
}

void charsmap_bytes(const charsmap *rules, buf *out) {
    const uint32_t size = rules->n_units * (uint32_t)sizeof(uint32_t);
    buf_add(out, &size, sizeof(size));
    buf_add(out, rules->units, size);
    buf_add_str(out, rules->texts);
}

static int base64_digit(char c) {
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

charsmap *charsmap_new_base64(tokenizer *t, str text, dp_error *err) {
    buf bytes;
    buf_init(&bytes, BASE64_LINE_MAX);
    uint32_t bits = 0;
    size_t n = 0;
    while (text.size > 0 && text.data[text.size - 1] == '=') {
        text.size--;
    }
    for (; n < text.size && base64_digit(text.data[n]) >= 0; n++) {
        bits = bits << 6 | (uint32_t)base64_digit(text.data[n]);
        if (n % 4 != 0) {
            buf_add(&bytes, &(char){ (char)(uint8_t)(bits >> (6 - n % 4 * 2)) }, 1);
        }
    }
    charsmap *rules = NULL;
    if (n < text.size || n % 4 == 1) {
        err_set(err, DP_E_FORMAT, "%s: precompiled_charsmap is no base64 at character %zu",
                t->source, n);
    } else if (buf_ok(&bytes, "precompiled_charsmap", err)) {
        rules = charsmap_new(t, (str){ bytes.data, bytes.size }, err);
    }
    buf_free(&bytes);
    return rules;
}

void charsmap_base64(const charsmap *rules, buf *out) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    buf bytes;
    buf_init(&bytes, out->ceiling);
    charsmap_bytes(rules, &bytes);
    for (size_t i = 0; i < bytes.size; i += 3) {
        uint32_t bits = 0;
        char four[] = "====";
        for (size_t j = 0; j < 3; j++) {
            bits = bits << 8 | (i + j < bytes.size ? (uint8_t)bytes.data[i + j] : 0u);
        }
        for (size_t j = 0; j < 4 && (j == 0 || i + j <= bytes.size); j++) {
            four[j] = digits[bits >> (18 - 6 * j) & 63];
        }
        buf_add(out, four, 4);
    }
    if (bytes.failed != DP_OK && out->failed == DP_OK) {
        out->failed = bytes.failed;
    }
    buf_free(&bytes);
}

/* ---- looking up ---------------------------------------------------------------------------- */

static uint32_t unit_children(uint32_t unit) {
    return (unit >> 10) << (unit & 0x200 ? 8 : 0);
}

/* The text behind a unit that ends a key. */
static bool unit_text(const charsmap *rules, uint32_t place, str *out) {
    if (place >= rules->n_units) {
        return false;
    }
    const size_t start = rules->units[place] & 0x7FFFFFFFu;
    if (start >= rules->texts.size) {
        return false;
    }
    const char *end = memchr(rules->texts.data + start, '\0', rules->texts.size - start);
    *out = (str){ rules->texts.data + start,
                  end ? (size_t)(end - rules->texts.data) - start : rules->texts.size - start };
    return true;
}

/* Bytes of the longest or the shortest key that `in` starts with and what it becomes; 0: none. */
static size_t find_key(const charsmap *rules, str in, bool longest, str *out) {
    size_t found = 0;
    uint32_t place = unit_children(rules->units[0]);
    const size_t end = in.size < KEY_MAX ? in.size : KEY_MAX;
    for (size_t i = 0; i < end; i++) {
        const uint8_t byte = (uint8_t)in.data[i];
        place ^= byte;
        if (byte == 0 || place >= rules->n_units) {
            break;
        }
        const uint32_t unit = rules->units[place];
        if ((unit & 0x800000FFu) != byte) {
            break;
        }
        place ^= unit_children(unit);
        if ((unit & 0x100) && unit_text(rules, place, out)) {
            found = i + 1;
            if (!longest) {
                break;
            }
        }
    }
    return found;
}

/* ---- Hugging Face's normalizer Precompiled ------------------------------------------------- */

static size_t grapheme_at(str in) {
    uint32_t code = 0, next;
    size_t size = utf8_next(in, &code), n;
    utf8proc_int32_t state = 0;
    while (
        size > 0 && (n = utf8_next((str){ in.data + size, in.size - size }, &next)) > 0 &&
        !utf8proc_grapheme_break_stateful((utf8proc_int32_t)code, (utf8proc_int32_t)next, &state)) {
        size += n;
        code = next;
    }
    return size;
}

/* [from, from + n) of `in`, replaced if it starts with a key. */
static bool map_part(encoding *e, const charsmap *rules, str in, size_t from, size_t n, buf *out) {
    str text;
    if (find_key(rules, (str){ in.data + from, n }, false, &text) == 0) {
        return false;
    }
    buf_add_str(out, text);
    mark_output(e, in, from, from + n, text.size);
    return true;
}

void charsmap_apply(encoding *e, const charsmap *rules, str in, buf *out) {
    for (size_t i = 0; i < in.size;) {
        const size_t whole = grapheme_at((str){ in.data + i, in.size - i });
        const size_t end = i + (whole > 0 ? whole : 1); /* a byte that is no UTF-8 stays */
        if (whole > 0 && whole <= GRAPHEME_MAX && map_part(e, rules, in, i, whole, out)) {
            i = end;
        }
        while (i < end) {
            size_t n = utf8_next((str){ in.data + i, in.size - i }, NULL);
            if (n == 0 || !map_part(e, rules, in, i, n, out)) {
                n = n > 0 ? n : 1;
                buf_add(out, in.data + i, n);
                mark_copied(e, i, i + n);
            }
            i += n;
        }
    }
}

/* ---- SentencePiece's normalizer ------------------------------------------------------------ */

/* What stands at the start of `in`: a user-defined symbol, which stays as it is, a key, or one
 * character. Returns its bytes. */
static size_t next_part(const encoding *e, const step *s, str in, str *out) {
    const trie *symbols = &e->t->added_normal;
    size_t n = 0;
    uint32_t node = 0;
    for (size_t i = 0; i < in.size && e->t->has_added_normal && !e->spells_added; i++) {
        node = trie_child(symbols, node, (uint8_t)in.data[i]);
        if (node == 0) {
            break;
        }
        n = symbols->tokens[node] != DP_NO_TOKEN ? i + 1 : n;
    }
    if (n == 0 && s->charsmap != NULL && !e->spells_added) {
        n = find_key(s->charsmap, in, true, out);
        if (n > 0) {
            return n;
        }
    }
    if (n == 0) {
        n = utf8_next(in, NULL);
        n = n > 0 ? n : 1; /* bytes that are no UTF-8 stay for byte fallback */
    }
    *out = (str){ in.data, n };
    return n;
}

void sentence_apply(encoding *e, const step *s, str in, bool at_start, buf *out) {
    static const str space = { " ", 1 };
    str part;
    size_t i = 0;
    const bool trims = s->trims && !e->spells_added;
    bool drops = trims; /* spaces that come next */
    for (size_t n; trims && i < in.size; i += n) {
        n = next_part(e, s, (str){ in.data + i, in.size - i }, &part);
        if (!str_equal(part, space)) {
            break;
        }
    }
    if (i == in.size) {
        return;
    }
    const bool prefix = s->prefixes && !e->spells_added && (at_start || !s->only_at_start);
    if (prefix) {
        buf_add_str(out, s->content);
        mark_output(e, in, i, i, s->content.size);
    }
    for (size_t n; i < in.size; i += n) {
        const size_t before = out->size;
        n = next_part(e, s, (str){ in.data + i, in.size - i }, &part);
        while (drops && part.size > 0 && part.data[0] == ' ') {
            part.data++;
            part.size--;
        }
        drops = trims && (part.size > 0 ? part.data[part.size - 1] == ' ' : drops);
        for (size_t j = 0; j < part.size; j++) {
            buf_add_str(out, part.data[j] == ' ' ? s->content : (str){ part.data + j, 1 });
        }
        mark_output(e, in, i, i + n, out->size - before);
    }
    const size_t width = s->content.size;
    while (trims && out->size >= width &&
           memcmp(out->data + out->size - width, s->content.data, width) == 0) {
        out->size -= width;
    }
    if (e->marks_in != NULL) {
        e->marks_out->size = (size_t)min_u64(e->marks_out->size, out->size);
    }
}
