/* pretoken: cuts texts into the pieces that merges may not cross.
 *
 * A pre-tokenizer is a list of steps. Each takes a piece, cuts or rewrites it and gives every
 * result to the next step at once; behind the last stands the model. What happens to matches
 * follows the five behaviours of Hugging Face tokenizers' Split. Bytes that are no UTF-8 match
 * nothing, and a pattern does not see across them. */
#include "text/text_internal.h"

const char gpt2_pattern[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|"
                            "\\s+(?!\\S)|\\s+";

/* ---- matches ------------------------------------------------------------------------------- */

static bool find_regex(encoding *e, match_scan *scan, size_t *start, size_t *end, bool *found) {
    const str text = scan->text;
    *found = false;
    while (true) {
        if (!scan->in_part) {
            size_t n = 0;
            while (scan->pos < text.size &&
                   utf8_next((str){ text.data + scan->pos, text.size - scan->pos }, NULL) == 0) {
                scan->pos++;
            }
            if (scan->pos >= text.size) {
                return true;
            }
            size_t i = scan->pos;
            while (i < text.size &&
                   (n = utf8_next((str){ text.data + i, text.size - i }, NULL)) > 0) {
                i += n;
            }
            scan->part_start = scan->pos;
            scan->part_end = i;
            scan->in_part = true;
        }
        const str part = { text.data + scan->part_start, scan->part_end - scan->part_start };
        if (scan->pos <= scan->part_end) {
            if (!regex_find(scan->step->regex, e->regex, part, scan->pos - scan->part_start, start,
                            end, found, e->err)) {
                return false;
            }
        }
        if (!*found) {
            scan->pos = scan->part_end;
            scan->in_part = false;
            continue;
        }
        *start += scan->part_start;
        *end += scan->part_start;
        if (*start == *end && scan->last_end == *end) { /* an empty match right behind a match */
            const size_t n = utf8_next((str){ text.data + *end, scan->part_end - *end }, NULL);
            scan->pos = *end + (n > 0 ? n : 1);
            *found = false;
            continue;
        }
        scan->pos = scan->last_end = *end;
        return true;
    }
}

static void find_literal(match_scan *scan, size_t *start, size_t *end, bool *found) {
    const str text = scan->text, literal = scan->step->literal;
    *found = false;
    while (text.size - scan->pos >= literal.size) {
        const char *at = memchr(text.data + scan->pos, literal.data[0],
                                text.size - scan->pos - literal.size + 1);
        if (at == NULL) {
            return;
        }
        scan->pos = (size_t)(at - text.data);
        if (memcmp(at, literal.data, literal.size) == 0) {
            *start = scan->pos;
            *end = scan->pos += literal.size;
            *found = true;
            return;
        }
        scan->pos++;
    }
}

static void find_character(match_scan *scan, size_t *start, size_t *end, bool *found) {
    const str text = scan->text;
    *found = false;
    while (scan->pos < text.size) {
        uint32_t code = 0;
        const size_t n = utf8_next((str){ text.data + scan->pos, text.size - scan->pos }, &code);
        *start = scan->pos;
        *end = scan->pos += n > 0 ? n : 1;
        if (n > 0 && (scan->step->match == MATCH_SPACE    ? code_is_space(code)
                      : scan->step->match == MATCH_NUMBER ? code_is_number(code)
                                                          : code_is_punctuation(code))) {
            *found = true;
            return;
        }
    }
}

bool match_next(encoding *e, match_scan *scan, size_t *start, size_t *end, bool *found) {
    switch (scan->step->match) {
    case MATCH_REGEX:
        return find_regex(e, scan, start, end, found);
    case MATCH_LITERAL:
        find_literal(scan, start, end, found);
        return true;
    case MATCH_SPACE:
    case MATCH_NUMBER:
    case MATCH_PUNCTUATION:
        break;
    }
    find_character(scan, start, end, found);
    return true;
}

/* ---- splits -------------------------------------------------------------------------------- */

static bool run_step(encoding *e, uint32_t level, str piece, bool at_start);

typedef struct {
    encoding *e;
    uint32_t level;
    str text;
    bool at_start;
    split_kind kind;
    bool held; /* a part waits for what comes next: [start, end), the last of it a match or not */
    bool match;
    size_t start, end;
} joiner;

static bool hand_on(joiner *j, size_t start, size_t end) {
    const str piece = { j->text.data + start, end - start };
    return run_step(j->e, j->level + 1, piece, j->at_start && start == 0);
}

static bool release(joiner *j) {
    const bool held = j->held;
    j->held = false;
    return !held || hand_on(j, j->start, j->end);
}

static bool hold(joiner *j, size_t start, size_t end, bool match) {
    if (!release(j)) {
        return false;
    }
    j->held = true;
    j->match = match;
    j->start = start;
    j->end = end;
    return true;
}

/* The text's parts in order, matches and what is between them, without gaps. */
static bool feed_part(joiner *j, size_t start, size_t end, bool match) {
    switch (j->kind) {
    case SPLIT_ISOLATED:
        return hand_on(j, start, end);
    case SPLIT_REMOVED:
        return match || hand_on(j, start, end);
    case SPLIT_CONTIGUOUS:
        if (j->held && j->match == match) {
            j->end = end;
            return true;
        }
        return hold(j, start, end, match);
    case SPLIT_PREVIOUS: /* only one match joins */
        if (j->held && match && !j->match) {
            j->end = end;
            j->match = true;
            return true;
        }
        return hold(j, start, end, match);
    case SPLIT_NEXT:
        if (match) {
            return hold(j, start, end, match);
        }
        if (j->held) {
            j->held = false;
            return hand_on(j, j->start, end);
        }
        return hand_on(j, start, end);
    }
    return true;
}

static bool split_piece(encoding *e, uint32_t level, const step *s, str piece, bool at_start) {
    joiner j = { .e = e, .level = level, .text = piece, .at_start = at_start, .kind = s->split };
    match_scan scan = { .step = s, .text = piece, .last_end = SIZE_MAX };
    size_t done = 0, start = 0, end = 0;
    while (true) {
        bool found;
        if (!match_next(e, &scan, &start, &end, &found)) {
            return false;
        }
        if (!found) {
            break;
        }
        if ((start > done && !feed_part(&j, done, start, s->invert)) ||
            !feed_part(&j, start, end, !s->invert)) {
            return false;
        }
        done = end;
    }
    return (done == piece.size || feed_part(&j, done, piece.size, s->invert)) && release(&j);
}

static bool run_step(encoding *e, uint32_t level, str piece, bool at_start) {
    if (piece.size == 0) {
        return true;
    }
    if (level == e->t->pre.n) {
        if (e->pieces != NULL) {
            buf_add_str(e->pieces, piece);
            buf_add(e->pieces, "", 1);
            return buf_ok(e->pieces, "a text's pieces", e->err);
        }
        return e->t->unigram ? unigram_encode(e, piece) : bpe_encode(e, piece);
    }
    const step *s = &e->t->pre.list[level];
    if (s->kind == STEP_SPLIT) {
        return split_piece(e, level, s, piece, at_start);
    }
    str out;
    return step_apply(e, s, piece, at_start, &e->level[level], &out) &&
           run_step(e, level + 1, out, at_start);
}

bool pretoken_encode(encoding *e, str piece, bool at_start) {
    return run_step(e, 0, piece, at_start);
}
