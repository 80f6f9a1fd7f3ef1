/* added: cuts texts at added tokens, before anything else looks at them.
 *
 * Tokens that ask for it (normalized) are searched in the normalized text, all others in the text
 * as it came, first. Leftmost match, the longest of those, as Hugging Face tokenizers does with
 * Aho-Corasick; control tokens only if the call lets texts spell them, and only where no byte of
 * the spelling is marked as a message's. The trie is walked anew at every byte that starts some
 * token, at most ADDED_BYTES_MAX steps deep. */
#include "text/text_internal.h"

/* ---- the trie ------------------------------------------------------------------------------ */

static uint32_t edge_slot(const trie *r, uint32_t key) {
    uint32_t i = (key * 0x9E3779B1u) ^ (key >> 15);
    for (i &= r->mask; r->keys[i] != 0 && r->keys[i] != key; i = (i + 1) & r->mask) {
    }
    return i;
}

uint32_t trie_child(const trie *r, uint32_t node, uint8_t byte) {
    return node == 0 ? r->first[byte] : r->targets[edge_slot(r, (node << 8 | byte) + 1)];
}

void trie_put(trie *r, str text, dp_token id) {
    uint32_t node = 0;
    for (size_t i = 0; i < text.size; i++) {
        const uint8_t byte = (uint8_t)text.data[i];
        uint32_t child = trie_child(r, node, byte);
        if (child == 0) {
            child = r->n_nodes++;
            r->tokens[child] = DP_NO_TOKEN;
            if (node == 0) {
                r->first[byte] = child;
            } else {
                const uint32_t key = (node << 8 | byte) + 1, slot = edge_slot(r, key);
                r->keys[slot] = key;
                r->targets[slot] = child;
            }
        }
        node = child;
    }
    if (r->tokens[node] == DP_NO_TOKEN) {
        r->tokens[node] = id;
    }
}

bool trie_reserve(tokenizer *t, trie *r, size_t total, dp_error *err) {
    if (total > TRIE_BYTES_MAX) {
        return err_set(err, DP_E_LIMIT, "%s: tokens of %zu bytes in all, the limit is %d",
                       t->source, total, TRIE_BYTES_MAX);
    }
    size_t slots = 16;
    while (slots < total * 2) {
        slots *= 2;
    }
    r->mask = (uint32_t)(slots - 1);
    r->keys = arena_new(&t->memory, slots, sizeof(*r->keys), "a trie", err);
    r->targets = arena_new(&t->memory, slots, sizeof(*r->targets), "a trie", err);
    r->tokens = arena_new(&t->memory, total + 1, sizeof(*r->tokens), "a trie", err);
    if (r->keys == NULL || r->targets == NULL || r->tokens == NULL) {
        return false;
    }
    r->n_nodes = 1;
    r->tokens[0] = DP_NO_TOKEN;
    return true;
}

static bool trie_find(const encoding *e, const trie *r, str text, const uint8_t *marks, size_t from,
                      size_t *start, size_t *end, dp_token *id) {
    for (size_t i = from; i < text.size; i++) {
        uint32_t node = r->first[(uint8_t)text.data[i]];
        bool special = e->parse_special; /* until a byte is marked */
        dp_token best = DP_NO_TOKEN;
        for (size_t j = i + 1; node != 0; j++) {
            const dp_token here = r->tokens[node];
            special = special && (marks == NULL || marks[j - 1] == 0);
            if (here != DP_NO_TOKEN && (special || !(e->t->flags[here] & TOKEN_SPECIAL))) {
                best = here;
                *end = j;
            }
            node = j < text.size ? trie_child(r, node, (uint8_t)text.data[j]) : 0;
        }
        if (best != DP_NO_TOKEN) {
            *start = i;
            *id = best;
            return true;
        }
    }
    return false;
}

/* ---- building ------------------------------------------------------------------------------ */

bool added_build(tokenizer *t, dp_error *err) {
    size_t total[2] = { 0, 0 };
    for (int pass = 0; pass < 2; pass++) { /* first sizes, then entries */
        encoding e;
        if (!encoding_init(&e, t, true, NULL, 0, err)) {
            return false;
        }
        bool ok = true;
        /* SentencePiece's symbols stay as they are spelt, the other reference rewrites them. */
        e.spells_added = t->normal.n > 0 && t->normal.list[0].kind == STEP_SENTENCE;
        for (dp_token id = 0; ok && id < t->n_tokens; id++) {
            if (!(t->flags[id] & TOKEN_ADDED)) {
                continue;
            }
            const bool normal = t->flags[id] & TOKEN_NORMALIZED;
            str text = t->spelling[id];
            const uint8_t *no_marks = NULL;
            if (normal && !normalize(&e, text, true, &text, &no_marks)) {
                ok = false;
            } else if (text.size > ADDED_BYTES_MAX) {
                ok = err_set(err, DP_E_LIMIT, "%s: added token %u has %zu bytes, the limit is %d",
                             t->source, id, text.size, ADDED_BYTES_MAX);
            } else if (pass == 0) {
                total[normal] += text.size;
            } else if (text.size > 0) {
                trie_put(normal ? &t->added_normal : &t->added_raw, text, id);
            }
        }
        encoding_free(&e);
        if (!ok) {
            return false;
        }
        if (pass == 0) {
            t->has_added_raw = total[0] > 0;
            t->has_added_normal = total[1] > 0;
            if ((t->has_added_raw && !trie_reserve(t, &t->added_raw, total[0], err)) ||
                (t->has_added_normal && !trie_reserve(t, &t->added_normal, total[1], err))) {
                return false;
            }
        }
    }
    return true;
}

/* ---- cutting ------------------------------------------------------------------------------- */

static bool touches_word(str text, size_t start, size_t end) {
    uint32_t code;
    return (utf8_previous(text, start, &code) > 0 && code_is_word(code)) ||
           (utf8_next((str){ text.data + end, text.size - end }, &code) > 0 && code_is_word(code));
}

static bool cut_at_added(encoding *e, str text, const uint8_t *marks, bool normalized,
                         bool at_start);

/* What lies between added tokens. */
static bool encode_between(encoding *e, str text, const uint8_t *marks, bool normalized,
                           bool at_start) {
    if (text.size == 0) {
        return true;
    }
    if (normalized) {
        /* Merges are not followed back to the bytes, so that one mark counts for the whole run. */
        e->may_merge = e->parse_special;
        for (size_t i = 0; e->may_merge && marks != NULL && i < text.size; i++) {
            e->may_merge = marks[i] == 0;
        }
        return pretoken_encode(e, text, at_start);
    }
    str normal;
    return normalize(e, text, at_start, &normal, &marks) &&
           cut_at_added(e, normal, marks, true, at_start);
}

/* The last run of whitespace that was walked over: many tokens may lie in one. */
typedef struct {
    size_t start, end;
} blank_run;

/* Takes the whitespace around a match as its token asks; on the left not what is done. */
static void widen_match(str text, uint16_t flags, size_t done, blank_run *run, size_t *start,
                        size_t *end) {
    uint32_t code;
    size_t n;
    if (flags & TOKEN_LSTRIP) {
        while (*start > done && (n = utf8_previous(text, *start, &code)) > 0 &&
               code_is_space(code)) {
            *start -= n;
        }
        *start = *start > done ? *start : done;
    }
    if (flags & TOKEN_RSTRIP) {
        if (*end < run->start || *end > run->end) {
            run->start = run->end = *end;
            while ((n = utf8_next((str){ text.data + run->end, text.size - run->end }, &code)) >
                       0 &&
                   code_is_space(code)) {
                run->end += n;
            }
        }
        *end = run->end;
    }
}

/* `marks`: NULL or one for each byte of the text. */
static bool cut_at_added(encoding *e, str text, const uint8_t *marks, bool normalized,
                         bool at_start) {
    const tokenizer *t = e->t;
    const trie *r = normalized ? &t->added_normal : &t->added_raw;
    if (!(normalized ? t->has_added_normal : t->has_added_raw)) {
        return encode_between(e, text, marks, normalized, at_start);
    }
    size_t scan = 0, done = 0, start = 0, end = 0;
    blank_run run = { 0, 0 };
    dp_token id = DP_NO_TOKEN;
    while (trie_find(e, r, text, marks, scan, &start, &end, &id)) {
        scan = end;
        if ((t->flags[id] & TOKEN_SINGLE_WORD) && touches_word(text, start, end)) {
            continue;
        }
        widen_match(text, t->flags[id], done, &run, &start, &end);
        const str before = { text.data + done, start > done ? start - done : 0 };
        if (!encode_between(e, before, marks ? marks + done : NULL, normalized,
                            at_start && done == 0)) {
            return false;
        }
        emit(e, id);
        done = end;
    }
    return encode_between(e, (str){ text.data + done, text.size - done },
                          marks ? marks + done : NULL, normalized, at_start && done == 0);
}

bool added_encode(encoding *e, str text, const uint8_t *marks) {
    return cut_at_added(e, text, marks, false, true);
}
