/* tokenizer_write_json: a tokenizer as Hugging Face's tokenizer.json and tokenizer_config.json.
 *
 * Steps, decoder and affixes are written as the elements that tokenizer_json.c reads them from, in
 * the same order. SentencePiece's models are said in the same language, as converters do: its
 * normalization as single steps, merging by scores as a list of merges, one for every split of a
 * token into two others, the token of the higher score first. What that language cannot say is
 * little: Hugging Face tokenizers replaces by a charsmap grapheme by grapheme and adds a unigram
 * model's scores in double, so that texts with odd combining marks, and ways of equal probability,
 * may differ from SentencePiece. */
#include "text/text_internal.h"

#include <stdio.h>

typedef struct {
    const tokenizer *t;
    buf *out;
    uint32_t n_tokens;  /* that are written: without padding at the end */
    const step *spaces; /* SentencePiece's normalization, or NULL */
    bool prefixes;      /* that puts a space before every text */
    bool all_in_model;  /* the model's list has the added tokens too */
    bool symbols_last;  /* user-defined symbols are searched in normalized texts */
    buf unprefix;       /* pattern of a space before one of them alone; empty: not needed */
    buf line;
    dp_token affixes[2 * AFFIX_MAX], unk;
    uint32_t n_prefix, n_affixes;
    uint32_t n_lost;  /* tokens and merges that cannot be written */
    bool merge_pairs; /* merges are pairs, not lines */
    bool any;         /* an element of the list that is being written stands */
    dp_error *err;
} json_writer;

static const str space_mark = { "\xE2\x96\x81", 3 };

/* ---- small parts --------------------------------------------------------------------------- */

static void put_part(json_writer *w, const char *text) {
    buf_add(w->out, text, strlen(text));
}

static void put_json_text(json_writer *w, const char *before, str text) {
    put_part(w, before);
    json_add_string(w->out, text);
}

static void put_flag(json_writer *w, const char *before, bool on) {
    put_part(w, before);
    put_part(w, on ? "true" : "false");
}

/* The comma before the next element of a list, which starts with `text`. */
static void put_element(json_writer *w, const char *text) {
    put_part(w, w->any ? "," : "");
    put_part(w, text);
    w->any = true;
}

/* `,"key":{"type":"Sequence","name":[` of elements that `write` writes, null if it writes none. */
static void put_sequence(json_writer *w, const char *start, void (*write)(json_writer *w)) {
    const size_t before = w->out->size;
    put_part(w, start);
    w->any = false;
    write(w);
    if (w->any) {
        put_part(w, "]}");
    } else if (w->out->failed == DP_OK) {
        w->out->size = before + strcspn(w->out->data + before, "{");
        put_part(w, "null");
    }
}

static bool is_utf8_text(str s) {
    size_t n = 0;
    for (size_t i = 0; i < s.size; i += n) {
        n = utf8_next((str){ s.data + i, s.size - i }, NULL);
        if (n == 0) {
            return false;
        }
    }
    return true;
}

static bool has_part(str s, str part) {
    for (size_t i = 0; i + part.size <= s.size; i++) {
        if (memcmp(s.data + i, part.data, part.size) == 0) {
            return true;
        }
    }
    return false;
}

/* "[PAD7]" as token 7: a row of the embedding that no tokenizer knows. */
static bool is_padding(const tokenizer *t, dp_token id) {
    const str s = t->spelling[id];
    uint64_t number;
    return (t->flags[id] & TOKEN_UNUSED) && s.size > 5 && str_starts(s, "[PAD") &&
           str_ends(s, "]") && str_to_u64((str){ s.data + 4, s.size - 5 }, &number) && number == id;
}

static bool is_written(const tokenizer *t, dp_token id) {
    return token_present(t, id) && !is_padding(t, id);
}

/* ---- what the rest depends on -------------------------------------------------------------- */

/* Whether tokens outside the model's list get their ids back: readers number them anew, from the
 * number of those that are in it. */
static bool outside_keep_ids(const json_writer *w) {
    const tokenizer *t = w->t;
    uint32_t next = 0;
    for (dp_token id = 0; id < w->n_tokens; id++) {
        next += is_written(t, id) && (t->flags[id] & TOKEN_MODEL);
    }
    for (dp_token id = 0; id < w->n_tokens; id++) {
        if (is_written(t, id) && !(t->flags[id] & TOKEN_MODEL) && id != next++) {
            return false;
        }
    }
    return true;
}

static bool in_model_list(const json_writer *w, dp_token id) {
    return is_written(w->t, id) && (w->all_in_model || (w->t->flags[id] & TOKEN_MODEL));
}

/* The id under which the file has a token: of two of one spelling the first. */
static dp_token id_in_file(const json_writer *w, dp_token id) {
    dp_token first;
    return id < w->n_tokens && is_written(w->t, id) &&
                   tokenizer_find(w->t, w->t->spelling[id], &first) && first < w->n_tokens
               ? first
               : DP_NO_TOKEN;
}

static bool is_symbol(const tokenizer *t, dp_token id) {
    const uint16_t kind = TOKEN_PRESENT | TOKEN_ADDED | TOKEN_NORMALIZED | TOKEN_SPECIAL;
    return (t->flags[id] & kind) == (kind & ~TOKEN_SPECIAL);
}

/* Whether normalization leaves a user-defined symbol as it is, but for the space in front. If not
 * it is searched in the text as it came. */
static bool survives(json_writer *w, dp_token id, bool *yes) {
    const str s = w->t->spelling[id];
    const bool at_end = str_ends(s, " ") || str_ends(s, space_mark.data);
    *yes = !w->spaces->trims || (!str_starts(s, " ") && !at_end && !has_part(s, STR("  ")));
    if (!*yes || w->spaces->charsmap == NULL) {
        return true;
    }
    encoding e;
    buf changed;
    buf_init(&changed, (size_t)1 << 24);
    bool ok = encoding_init(&e, w->t, true, NULL, 0, w->err);
    if (ok) {
        charsmap_apply(&e, w->spaces->charsmap, s, &changed);
        *yes = str_equal(s, (str){ changed.data, changed.size });
        ok = buf_ok(&changed, "a token's normalized text", w->err);
    }
    encoding_free(&e);
    buf_free(&changed);
    return ok;
}

/* One of the texts of a regular expression, as normalization leaves it. */
static void add_literal(buf *pattern, str s, str space) {
    for (size_t i = 0; i < s.size; i++) {
        const char c = s.data[i];
        if (c != '\0' && strchr("\\^$.|?*+()[]{}", c) != NULL) {
            buf_add(pattern, "\\", 1);
        }
        buf_add_str(pattern, c == ' ' ? space : (str){ &c, 1 });
    }
}

/* Added tokens that are searched in normalized texts are normalized themselves. This takes the
 * space in front of them away again, so that they are found within texts. (A text that is nothing
 * but such a token has none either.) */
static bool make_unprefix(json_writer *w) {
    buf *pattern = &w->unprefix;
    const str mark = w->spaces->content;
    bool any = false, yes;
    buf_printf(pattern, "\\A%.*s(?=(?:", (int)mark.size, mark.data);
    for (dp_token id = 0; id < w->n_tokens; id++) {
        if (!is_symbol(w->t, id)) {
            continue;
        }
        if (!survives(w, id, &yes)) {
            return false;
        }
        if (yes) {
            buf_add_str(pattern, any ? STR("|") : STR(""));
            add_literal(pattern, w->t->spelling[id], mark);
            any = true;
        }
    }
    buf_add_str(pattern, STR(")\\z)"));
    if (pattern->failed == DP_E_LIMIT) {
        log_line(&w->t->log, DP_LOG_WARNING,
                 "too many user-defined tokens to search for them behind normalization");
        w->symbols_last = any = false;
    }
    if (!any) {
        buf_reset(pattern);
    }
    return buf_ok(pattern, "a pattern", w->err);
}

/* ---- normalizer ---------------------------------------------------------------------------- */

static void put_replace(json_writer *w, const char *kind, str pattern, str content) {
    put_element(w, "{\"type\":\"Replace\",\"pattern\":{\"");
    put_part(w, kind);
    put_json_text(w, "\":", pattern);
    put_json_text(w, "},\"content\":", content);
    put_part(w, "}");
}

static void put_charsmap(json_writer *w, const charsmap *rules) {
    put_element(w, "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"");
    charsmap_base64(rules, w->out);
    put_part(w, "\"}");
}

static void put_sentence_steps(json_writer *w) {
    const step *s = w->spaces;
    const bool escapes = !str_is(s->content, " ");
    if (s->charsmap != NULL) {
        put_charsmap(w, s->charsmap);
    }
    if (s->trims) {
        put_replace(w, "Regex", STR(" {2,}"), STR(" "));
        put_replace(w, "Regex", escapes ? STR("\\A +|[ \xE2\x96\x81]+\\z") : STR("\\A +| +\\z"),
                    STR(""));
    }
    if (w->prefixes) {
        put_element(w, "{\"type\":\"Prepend\"");
        put_json_text(w, ",\"prepend\":", s->content);
        put_part(w, "}");
    }
    if (escapes) {
        put_replace(w, "String", STR(" "), s->content);
    }
    if (w->unprefix.size > 0) {
        put_replace(w, "Regex", (str){ w->unprefix.data, w->unprefix.size }, STR(""));
    }
}

static void put_pattern(json_writer *w, const step *s) {
    if (s->match == MATCH_REGEX) {
        put_json_text(w, ",\"pattern\":{\"Regex\":", regex_pattern(s->regex));
    } else {
        put_json_text(w, ",\"pattern\":{\"String\":", s->literal);
    }
    put_part(w, "}");
}

static void put_normalizers(json_writer *w) {
    static const char *const names[] = {
        [STEP_NFC] = "NFC",   [STEP_NFD] = "NFD",         [STEP_NFKC] = "NFKC",
        [STEP_NFKD] = "NFKD", [STEP_LOWER] = "Lowercase", [STEP_STRIP_ACCENTS] = "StripAccents",
    };
    for (uint32_t i = 0; i < w->t->normal.n; i++) {
        const step *s = &w->t->normal.list[i];
        switch (s->kind) {
        case STEP_SENTENCE:
            put_sentence_steps(w);
            break;
        case STEP_CHARSMAP:
            put_charsmap(w, s->charsmap);
            break;
        case STEP_PREPEND:
            put_element(w, "{\"type\":\"Prepend\"");
            put_json_text(w, ",\"prepend\":", s->content);
            put_part(w, "}");
            break;
        case STEP_REPLACE:
            put_element(w, "{\"type\":\"Replace\"");
            put_pattern(w, s);
            put_json_text(w, ",\"content\":", s->content);
            put_part(w, "}");
            break;
        case STEP_STRIP:
            put_element(w, "{\"type\":\"Strip\"");
            put_flag(w, ",\"strip_left\":", s->left);
            put_flag(w, ",\"strip_right\":", s->right);
            put_part(w, "}");
            break;
        case STEP_SPLIT:
        case STEP_BYTES:
            assert(!"no normalizer");
            break;
        default:
            put_element(w, "{\"type\":\"");
            put_part(w, names[s->kind]);
            put_part(w, "\"}");
        }
    }
}

/* ---- pre-tokenizer ------------------------------------------------------------------------- */

static void put_behavior(json_writer *w, split_kind kind) {
    static const char *const names[] = {
        [SPLIT_ISOLATED] = "Isolated",           [SPLIT_REMOVED] = "Removed",
        [SPLIT_PREVIOUS] = "MergedWithPrevious", [SPLIT_NEXT] = "MergedWithNext",
        [SPLIT_CONTIGUOUS] = "Contiguous",
    };
    put_json_text(w, ",\"behavior\":", str_of(names[kind]));
}

static void put_split(json_writer *w, const step *s) {
    switch (s->match) {
    case MATCH_REGEX:
    case MATCH_LITERAL:
        put_element(w, "{\"type\":\"Split\"");
        put_pattern(w, s);
        put_behavior(w, s->split);
        put_flag(w, ",\"invert\":", s->invert);
        break;
    case MATCH_SPACE:
        put_element(w, "{\"type\":\"WhitespaceSplit\"");
        break;
    case MATCH_NUMBER:
        put_element(w, "{\"type\":\"Digits\"");
        put_flag(w, ",\"individual_digits\":", s->split == SPLIT_ISOLATED);
        break;
    case MATCH_PUNCTUATION:
        put_element(w, "{\"type\":\"Punctuation\"");
        put_behavior(w, s->split);
        break;
    }
    put_part(w, "}");
}

static const char *prepend_scheme(bool prepends, bool only_at_start) {
    return !prepends ? "\"never\"" : only_at_start ? "\"first\"" : "\"always\"";
}

static void put_metaspace(json_writer *w, str mark, const char *scheme, bool split) {
    put_element(w, "{\"type\":\"Metaspace\"");
    put_json_text(w, ",\"replacement\":", mark);
    put_part(w, ",\"prepend_scheme\":");
    put_part(w, scheme);
    put_flag(w, ",\"split\":", split);
    put_part(w, "}");
}

static const step *step_at(const step_list *steps, uint32_t i, step_kind kind) {
    return i < steps->n && steps->list[i].kind == kind ? &steps->list[i] : NULL;
}

/* Metaspace is up to three steps: spaces to marks, a mark in front, a split before marks. Returns
 * how many. */
static uint32_t put_metaspace_steps(json_writer *w, uint32_t at) {
    const step_list *pre = &w->t->pre;
    const str mark = pre->list[at].content;
    uint32_t i = at + 1;
    const step *front = step_at(pre, i, STEP_PREPEND);
    i += front != NULL;
    const step *split = step_at(pre, i, STEP_SPLIT);
    const bool splits = split != NULL && split->match == MATCH_LITERAL &&
                        split->split == SPLIT_NEXT && !split->invert &&
                        str_equal(split->literal, mark);
    put_metaspace(w, mark, prepend_scheme(front != NULL, front != NULL && front->only_at_start),
                  splits);
    return i + splits - at;
}

/* So is ByteLevel: a space in front, GPT-2's pattern, bytes to characters. 0: it is something
 * else. */
static uint32_t put_byte_level(json_writer *w, uint32_t at) {
    const step_list *pre = &w->t->pre;
    uint32_t i = at;
    const bool prefix = step_at(pre, i, STEP_PREPEND) != NULL;
    i += prefix;
    const step *split = step_at(pre, i, STEP_SPLIT);
    const bool splits = split != NULL && split->match == MATCH_REGEX &&
                        split->split == SPLIT_ISOLATED && !split->invert &&
                        str_is(regex_pattern(split->regex), gpt2_pattern);
    i += splits;
    if (step_at(pre, i, STEP_BYTES) == NULL) {
        assert(!prefix);
        return 0;
    }
    put_element(w, "{\"type\":\"ByteLevel\"");
    put_flag(w, ",\"add_prefix_space\":", prefix);
    put_part(w, ",\"trim_offsets\":false");
    put_flag(w, ",\"use_regex\":", splits);
    put_part(w, "}");
    return i + 1 - at;
}

static void put_pre_tokenizers(json_writer *w) {
    const step_list *pre = &w->t->pre;
    if (w->spaces != NULL && w->spaces->prefixes && w->spaces->only_at_start) {
        put_metaspace(w, w->spaces->content, prepend_scheme(true, true), false);
    }
    for (uint32_t i = 0; i < pre->n;) {
        if (pre->list[i].kind == STEP_REPLACE) {
            i += put_metaspace_steps(w, i);
            continue;
        }
        const uint32_t n = put_byte_level(w, i);
        if (n == 0) {
            put_split(w, &pre->list[i]);
        }
        i += n > 0 ? n : 1;
    }
}

/* ---- decoder ------------------------------------------------------------------------------- */

static void put_decoders(json_writer *w) {
    const tokenizer *t = w->t;
    for (uint32_t i = 0; i < t->n_decode; i++) {
        const decode_step *d = &t->decode[i];
        switch (d->kind) {
        case DECODE_BYTES:
            put_element(w, "{\"type\":\"ByteLevel\",\"add_prefix_space\":true,"
                           "\"trim_offsets\":true,\"use_regex\":true}");
            break;
        case DECODE_REPLACE:
            put_replace(w, "String", d->literal, d->content);
            break;
        case DECODE_FALLBACK:
            put_element(w, "{\"type\":\"ByteFallback\"}");
            break;
        case DECODE_STRIP:
            put_element(w, "{\"type\":\"Strip\"");
            put_json_text(w, ",\"content\":", d->literal);
            buf_printf(w->out, ",\"start\":%u,\"stop\":%u}", d->start, d->stop);
            break;
        case DECODE_METASPACE:
            put_metaspace(w, d->literal, prepend_scheme(d->drop_first, false), true);
            break;
        }
    }
    const size_t n_unk = w->unk != DP_NO_TOKEN ? t->spelling[w->unk].size : 0;
    if (n_unk > 0 && n_unk <= ADDED_BYTES_MAX && t->unk_surface.data != NULL) {
        put_replace(w, "String", t->spelling[w->unk], t->unk_surface);
    }
    if (t->n_lead > 0) {
        put_element(w, "{\"type\":\"Fuse\"}");
        put_element(w, "{\"type\":\"Strip\"");
        put_json_text(w, ",\"content\":", (str){ &t->lead, 1 });
        /* All spaces in front go; texts have the prefix alone, and an unknown token behind it keeps
         * that of its surface. */
        const bool one = w->spaces != NULL && w->spaces->prefixes;
        buf_printf(w->out, ",\"start\":%u,\"stop\":0}", one ? 1 : t->n_lead);
    }
}

/* ---- post-processor ------------------------------------------------------------------------ */

static void put_affixes(json_writer *w, const dp_token *ids, uint32_t n, int type) {
    for (uint32_t i = 0; i < n; i++) {
        put_element(w, "{\"SpecialToken\":");
        put_json_text(w, "{\"id\":", w->t->spelling[ids[i]]);
        buf_printf(w->out, ",\"type_id\":%d}}", type);
    }
}

static void put_wrapped(json_writer *w, const char *name, int type) {
    put_affixes(w, w->affixes, w->n_prefix, type);
    put_element(w, "{\"Sequence\":{\"id\":\"");
    put_part(w, name);
    buf_printf(w->out, "\",\"type_id\":%d}}", type);
    put_affixes(w, w->affixes + w->n_prefix, w->n_affixes - w->n_prefix, type);
}

/* What goes before and behind a text, as far as the file has the tokens. */
static void collect_affixes(json_writer *w) {
    const tokenizer *t = w->t;
    for (uint32_t i = 0; i < t->n_prefix + t->n_suffix; i++) {
        const dp_token id =
            id_in_file(w, i < t->n_prefix ? t->prefix[i] : t->suffix[i - t->n_prefix]);
        if (id == DP_NO_TOKEN) {
            w->n_lost++;
            continue;
        }
        w->affixes[w->n_affixes++] = id;
        w->n_prefix += i < t->n_prefix;
    }
}

static void put_post_processor(json_writer *w) {
    const tokenizer *t = w->t;
    put_part(w, ",\"post_processor\":");
    if (w->n_affixes == 0) {
        put_part(w, t->raw_bytes ? "{\"type\":\"ByteLevel\",\"add_prefix_space\":true,"
                                   "\"trim_offsets\":false,\"use_regex\":true}"
                                 : "null");
        return;
    }
    put_part(w, "{\"type\":\"TemplateProcessing\",\"single\":[");
    w->any = false;
    put_wrapped(w, "A", 0);
    put_part(w, "],\"pair\":[");
    w->any = false;
    put_wrapped(w, "A", 0);
    put_wrapped(w, "B", 1);
    put_part(w, "],\"special_tokens\":{");
    w->any = false;
    for (uint32_t i = 0; i < w->n_affixes; i++) {
        const dp_token id = w->affixes[i];
        bool again = false;
        for (uint32_t j = 0; j < i; j++) {
            again = again || w->affixes[j] == id;
        }
        if (!again) {
            put_element(w, "");
            put_json_text(w, "", t->spelling[id]);
            put_json_text(w, ":{\"id\":", t->spelling[id]);
            buf_printf(w->out, ",\"ids\":[%u],\"tokens\":[", id);
            put_json_text(w, "", t->spelling[id]);
            put_part(w, "]}");
        }
    }
    put_part(w, "}}");
}

/* ---- vocabulary ---------------------------------------------------------------------------- */

/* Whether a merge is of tokens that are written, into one: where a file gives one id to two
 * spellings only the first is. */
static bool holds_merge(json_writer *w, dp_token left, dp_token right) {
    const tokenizer *t = w->t;
    dp_token both;
    buf_reset(&w->line);
    buf_add_str(&w->line, t->spelling[left]);
    buf_add_str(&w->line, t->spelling[right]);
    const str joined = { w->line.data, w->line.size };
    return in_model_list(w, left) && in_model_list(w, right) && tokenizer_find(t, joined, &both) &&
           in_model_list(w, both) && str_equal(t->spelling[both], joined);
}

/* "left right", or ["left", "right"] for all where a token has a space: the first form is the one
 * that all readers know. */
static void put_merge(void *user, dp_token left, dp_token right) {
    json_writer *w = user;
    const tokenizer *t = w->t;
    if (!holds_merge(w, left, right)) {
        w->n_lost++;
        return;
    }
    put_element(w, w->merge_pairs ? "[" : "");
    if (w->merge_pairs) {
        put_json_text(w, "", t->spelling[left]);
        put_json_text(w, ",", t->spelling[right]);
        put_part(w, "]");
        return;
    }
    buf_reset(&w->line);
    buf_add_str(&w->line, t->spelling[left]);
    buf_add(&w->line, " ", 1);
    buf_add_str(&w->line, t->spelling[right]);
    put_json_text(w, "", (str){ w->line.data, w->line.size });
}

/* Pieces of a unigram model that no text may become: a score that is worse than any other way. */
static double score_of(const json_writer *w, dp_token id, double lowest) {
    const tokenizer *t = w->t;
    const uint16_t kind = t->flags[id] & (TOKEN_PRESENT | TOKEN_MODEL | TOKEN_BYTE);
    return kind == (TOKEN_PRESENT | TOKEN_MODEL) ? t->scores[id]
                                                 : (double)(t->spelling[id].size + 1) * lowest - 64;
}

static void put_unigram_list(json_writer *w) {
    const tokenizer *t = w->t;
    double lowest = 0;
    uint32_t n = 0;
    for (dp_token id = 0; id < w->n_tokens; id++) {
        n = in_model_list(w, id) ? id + 1 : n;
        if (is_written(t, id) && (t->flags[id] & TOKEN_MODEL) && t->scores[id] < lowest) {
            lowest = t->scores[id];
        }
    }
    put_part(w, ",\"vocab\":[");
    w->any = false;
    for (dp_token id = 0; id < n; id++) { /* ids are places: holes are filled */
        char name[32];
        snprintf(name, sizeof(name), "[PAD%u]", id);
        put_element(w, "[");
        put_json_text(w, "", is_written(t, id) ? t->spelling[id] : str_of(name));
        put_part(w, ",");
        json_add_f64(w->out, score_of(w, id, lowest));
        put_part(w, "]");
    }
    put_part(w, "]");
}

static void put_vocabulary(json_writer *w) {
    const tokenizer *t = w->t;
    put_part(w, ",\"vocab\":{");
    w->any = false;
    for (dp_token id = 0; id < w->n_tokens; id++) {
        dp_token first;
        if (!in_model_list(w, id)) {
            continue;
        }
        if (!tokenizer_find(t, t->spelling[id], &first) || first != id) {
            w->n_lost++;
            continue;
        }
        put_element(w, "");
        put_json_text(w, "", t->spelling[id]);
        buf_printf(w->out, ":%u", id);
        w->merge_pairs = w->merge_pairs || has_part(t->spelling[id], STR(" "));
    }
    put_part(w, "}");
}

static bool put_model(json_writer *w) {
    const tokenizer *t = w->t;
    if (t->unigram) {
        put_part(w, ",\"model\":{\"type\":\"Unigram\",\"unk_id\":");
        if (w->unk == DP_NO_TOKEN) {
            put_part(w, "null");
        } else {
            buf_printf(w->out, "%u", w->unk);
        }
        put_flag(w, ",\"byte_fallback\":", t->byte_fallback);
        put_unigram_list(w);
        put_part(w, "}");
        return true;
    }
    put_part(w, ",\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":");
    if (w->unk == DP_NO_TOKEN) {
        put_part(w, "null");
    } else {
        put_json_text(w, "", t->spelling[w->unk]);
    }
    put_part(w, ",\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null");
    put_flag(w, ",\"fuse_unk\":", t->fuse_unk);
    put_flag(w, ",\"byte_fallback\":", t->byte_fallback);
    put_flag(w, ",\"ignore_merges\":", t->ignore_merges);
    put_vocabulary(w);
    put_part(w, ",\"merges\":[");
    w->any = false;
    if (!tokenizer_each_merge(t, put_merge, w, w->err)) {
        return false;
    }
    put_part(w, "]}");
    return buf_ok(&w->line, "a merge", w->err);
}

/* ---- added tokens -------------------------------------------------------------------------- */

static bool put_added_tokens(json_writer *w) {
    const tokenizer *t = w->t;
    put_part(w, ",\"added_tokens\":[");
    w->any = false;
    for (dp_token id = 0; id < w->n_tokens; id++) {
        const uint16_t flags = t->flags[id];
        if (!is_written(t, id) || !(flags & TOKEN_ADDED)) {
            continue;
        }
        bool normalized = flags & TOKEN_NORMALIZED;
        if (normalized && w->spaces != NULL) {
            normalized = w->symbols_last;
            if (normalized && !survives(w, id, &normalized)) {
                return false;
            }
        }
        put_element(w, "");
        buf_printf(w->out, "{\"id\":%u", id);
        put_json_text(w, ",\"content\":", t->spelling[id]);
        put_flag(w, ",\"single_word\":", flags & TOKEN_SINGLE_WORD);
        put_flag(w, ",\"lstrip\":", flags & TOKEN_LSTRIP);
        put_flag(w, ",\"rstrip\":", flags & TOKEN_RSTRIP);
        put_flag(w, ",\"normalized\":", normalized);
        put_flag(w, ",\"special\":", flags & TOKEN_SPECIAL);
        put_part(w, "}");
    }
    put_part(w, "]");
    return true;
}

/* ---- all ----------------------------------------------------------------------------------- */

static bool prepare_json(json_writer *w) {
    const tokenizer *t = w->t;
    for (w->n_tokens = t->n_tokens; w->n_tokens > 1; w->n_tokens--) {
        const dp_token last = w->n_tokens - 1;
        if (is_written(t, last)) {
            break;
        }
    }
    for (dp_token id = 0; id < w->n_tokens; id++) {
        if (is_written(t, id) && !is_utf8_text(t->spelling[id])) {
            return err_set(w->err, DP_E_UNSUPPORTED,
                           "%s: token %u is no UTF-8 text: tokenizer.json cannot hold it",
                           t->source, id);
        }
    }
    w->all_in_model = !outside_keep_ids(w);
    w->unk = id_in_file(w, t->unk);
    collect_affixes(w);
    if (t->normal.n == 0 || t->normal.list[0].kind != STEP_SENTENCE) {
        return true;
    }
    w->spaces = &t->normal.list[0];
    w->prefixes = w->spaces->prefixes && !w->spaces->only_at_start;
    w->symbols_last = true;
    return !w->prefixes || make_unprefix(w);
}

static bool put_tokenizer(json_writer *w) {
    put_part(w, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null");
    if (!put_added_tokens(w)) {
        return false;
    }
    put_sequence(w, ",\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[", put_normalizers);
    put_sequence(w, ",\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[",
                 put_pre_tokenizers);
    put_post_processor(w);
    if (w->t->join_spaces) {
        put_part(w, ",\"decoder\":null");
    } else {
        put_sequence(w, ",\"decoder\":{\"type\":\"Sequence\",\"decoders\":[", put_decoders);
    }
    if (!put_model(w)) {
        return false;
    }
    if (w->n_lost > 0) {
        log_line(&w->t->log, DP_LOG_WARNING,
                 "%s: %u tokens and merges are spelt as others are, or not at all: tokenizer.json "
                 "cannot hold them",
                 w->t->source, w->n_lost);
    }
    put_part(w, "}\n");
    return buf_ok(w->out, "tokenizer.json", w->err);
}

bool tokenizer_write_json(const tokenizer *t, buf *out, dp_error *err) {
    json_writer w = { .t = t, .out = out, .err = err };
    buf_init(&w.unprefix, PATTERN_BYTES_MAX);
    buf_init(&w.line, 2 * TOKEN_BYTES_MAX + 1);
    const bool ok = prepare_json(&w) && put_tokenizer(&w);
    buf_free(&w.unprefix);
    buf_free(&w.line);
    return ok;
}

/* ---- tokenizer_config.json ----------------------------------------------------------------- */

static void put_named(json_writer *w, const char *key, dp_token id) {
    if (id != DP_NO_TOKEN && is_utf8_text(w->t->spelling[id])) {
        put_json_text(w, ",", str_of(key));
        put_json_text(w, ":", w->t->spelling[id]);
    }
}

static void put_template(json_writer *w, str name, str text) {
    put_element(w, "{\"name\":");
    put_json_text(w, "", name);
    put_json_text(w, ",\"template\":", text);
    put_part(w, "}");
}

bool tokenizer_write_config(const tokenizer *t, buf *out, dp_error *err) {
    json_writer w = { .t = t, .out = out, .err = err };
    put_part(&w, "{\"tokenizer_class\":\"PreTrainedTokenizerFast\"");
    put_part(&w, ",\"clean_up_tokenization_spaces\":false");
    put_flag(&w, ",\"add_bos_token\":", tokenizer_adds_bos(t));
    put_flag(&w, ",\"add_eos_token\":", tokenizer_adds_eos(t));
    put_named(&w, "bos_token", t->bos);
    put_named(&w, "eos_token", t->eos);
    put_named(&w, "unk_token", t->unk);
    for (size_t i = 0; i < ROLE_COUNT; i++) {
        put_named(&w, token_roles[i].config, t->roles[i]);
    }
    if (t->n_templates > 0) {
        put_part(&w, ",\"chat_template\":[");
        if (t->chat_template.size > 0) {
            put_template(&w, STR("default"), t->chat_template);
        }
        for (uint32_t i = 0; i < t->n_templates; i++) {
            put_template(&w, t->templates[i].name, t->templates[i].text);
        }
        put_part(&w, "]");
    } else if (t->chat_template.size > 0) {
        put_json_text(&w, ",\"chat_template\":", t->chat_template);
    }
    put_part(&w, "}\n");
    return buf_ok(out, "tokenizer_config.json", err);
}
