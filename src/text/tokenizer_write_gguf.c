/* tokenizer_write_gguf: a tokenizer as GGUF metadata, the keys tokenizer.ggml.*.
 *
 * From a GGUF file its own keys are copied. Anything else is said in the four models that
 * tokenizer_gguf.c reads, as far as they can: a byte-level vocabulary's pre-tokenizer has to be one
 * of those that have names, recognised by what it makes of a probe text, and SentencePiece's merges
 * become scores in the same order. What that loses stands in tokenizer.huggingface.json, the
 * source's tokenizer.json word for word. Every list has an entry for each row of the embedding. */
#include "text/text_internal.h"

#include <stdlib.h>

/* ---- merges -------------------------------------------------------------------------------- */

typedef struct {
    uint32_t rank; /* of a list, or place in the order of scores */
    uint32_t size; /* bytes of the left token where scores order: the longer first */
    dp_token left, right;
} written_merge;

static int compare_merges(const void *a, const void *b) {
    const written_merge *x = a, *y = b;
    if (x->rank != y->rank) {
        return x->rank < y->rank ? -1 : 1;
    }
    if (x->size != y->size) {
        return x->size > y->size ? -1 : 1;
    }
    return x->left != y->left ? (x->left < y->left ? -1 : 1)
                              : (x->right > y->right) - (x->right < y->right);
}

static void add_merge(buf *list, written_merge m) {
    buf_add(list, &m, sizeof(m));
}

/* A token that SentencePiece may make of two others, or others of. */
static bool merges_by_score(const tokenizer *t, dp_token id) {
    return (t->flags[id] & TOKEN_MODEL) &&
           !(t->flags[id] & (TOKEN_SPECIAL | TOKEN_BYTE | TOKEN_ADDED));
}

static void split_by_score(const tokenizer *t, dp_token id, buf *list) {
    const str s = t->spelling[id];
    size_t n = 0;
    dp_token left, right;
    /* The work grows with the square of a token's length: no published one is near the limit. */
    for (size_t i = utf8_next(s, NULL); s.size <= ADDED_BYTES_MAX && i > 0 && i < s.size; i += n) {
        const str parts[2] = { { s.data, i }, { s.data + i, s.size - i } };
        n = utf8_next(parts[1], NULL);
        n = n > 0 ? n : 1;
        if (tokenizer_find(t, parts[0], &left) && merges_by_score(t, left) &&
            tokenizer_find(t, parts[1], &right) && merges_by_score(t, right)) {
            add_merge(list, (written_merge){ t->order[id], (uint32_t)i, left, right });
        }
    }
}

/* All merges, in order. */
static bool list_merges(const tokenizer *t, buf *list, dp_error *err) {
    for (dp_token id = 0; t->by_score && id < t->n_tokens; id++) {
        dp_token first; /* of two tokens of one spelling the lower id counts */
        if (token_present(t, id) && merges_by_score(t, id) &&
            tokenizer_find(t, t->spelling[id], &first) && first == id) {
            split_by_score(t, id, list);
        }
    }
    for (size_t i = 0; !t->by_score && t->merges.slots != NULL && i <= t->merges.mask; i++) {
        const merge *m = &t->merges.slots[i];
        if (m->key != UINT64_MAX) {
            add_merge(list,
                      (written_merge){ m->rank, 0, (dp_token)(m->key >> 32), (dp_token)m->key });
        }
    }
    if (!buf_ok(list, "merges", err)) {
        return false;
    }
    if (list->size > 0) {
        qsort(list->data, list->size / sizeof(written_merge), sizeof(written_merge),
              compare_merges);
    }
    return true;
}

bool tokenizer_each_merge(const tokenizer *t, merge_call *call, void *user, dp_error *err) {
    buf list;
    buf_init(&list, MERGES_BYTES_MAX);
    const bool ok = list_merges(t, &list, err);
    for (size_t i = 0; ok && i < list.size / sizeof(written_merge); i++) {
        written_merge m;
        memcpy(&m, list.data + i * sizeof(m), sizeof(m));
        call(user, m.left, m.right);
    }
    buf_free(&list);
    return ok;
}

/* ---- the source's tokenizer.json ----------------------------------------------------------- */

static const char described_meta[] = "tokenizer.huggingface.json";

bool tokenizer_source_json(container *c, buf *out, bool *found, dp_error *err) {
    dp_error own = { 0 };
    if (container_kind_of(c) == CONTAINER_GGUF) {
        const meta_value *v = container_meta(c, described_meta);
        *found = v != NULL && v->type == META_STRING;
        if (*found) {
            buf_add_str(out, v->s);
        }
        return buf_ok(out, described_meta, err);
    }
    *found = container_text(c, "tokenizer.json", out, &own);
    return own.status == DP_OK || err_set(err, own.status, "%s", own.message);
}

/* ---- the name of a pre-tokenizer ----------------------------------------------------------- */

/* Starts with a space, so that a space put in front changes nothing; has what the named patterns
 * tell apart: runs of digits and of letters of either case, scripts, marks, contractions,
 * punctuation and symbols with letters behind, blanks and line ends of every order. */
static const char probe[] =
    " Hello hello HELLO HelloWorld helloWORLDs don't DON'T we'LL I'm 's 'S x'll\n"
    "1 12 123 1234 12345 a1b22c333 3.14 1,000,000 \xC2\xBD \xC2\xB2 "
    "\xD9\xA3\xD9\xA4\xD9\xA5\xD9\xA6"
    " \xE2\x85\xA7\n\n"
    "(a) [b] {c} <d> #e $f %g &h *i +j -k /l @m ^n _o `p |q ~r !s \"t\" a.b a,b a;b a:b x=y x/y\n"
    "... !!! ??? --- === +++ $$$ ^^^ ~~~ ``` ||| <<>> ,;:.!? a... (...) \"...\" .a ,b !c ?d\n"
    "caf\xC3\xA9 cafe\xCC\x81 \xC3\x89"
    "cole na\xC3\xAFve \xCE\xA3\xCE\xB1\xCF\x82 "
    "\xD0\x9F\xD1\x80\xD0\xB8\xD0\xB2\xD0\xB5\xD1\x82 \xE0\xA4\xB9\xE0\xA4\xBF\xE0\xA4\xA8"
    "\xE0\xA5\x8D\xE0\xA4\xA6\xE0\xA5\x80\n"
    "\xE4\xBD\xA0\xE5\xA5\xBD\xE4\xB8\x96\xE7\x95\x8C"
    "abc\xE4\xB8\xAD"
    "12\xE6\x96\x87 "
    "\xE3\x81\x93\xE3\x82\x93\xE3\x81\xAB\xE3\x81\xA1\xE3\x81\xAF\xE3\x82\xAB\xE3\x82\xBF "
    "\xEC\x95\x88\xEB\x85\x95"
    "a\xEC\x95\x88 \xE1\xA0\xA0\xE1\xA0\xA1\n"
    "\xE2\x80\xA6 a\xE2\x80\xA6"
    "b \xE3\x80\x82"
    "c\xEF\xBC\x8C"
    "d\xE3\x80\x81"
    "e "
    "\xE0\xA5\xA4 \xDB\x94 \xD8\x8C a\xE2\x82\xAC"
    "b \xC2\xA9 \xE2\x86\x92x \xF0\x9F\x98\x80"
    "\xF0\x9F\x98\x80 a\xF0\x9F\x98\x80"
    "b\n"
    "  two   three    four     five\t\ttabs \t mixed  \n \n  \n\n\n   x\r\ny \r\n\r\n  z/\n//\na/\n"
    "<sentinel:12> IMGIMGABZ IMGIMGAIZ IMGIMGZ <sentinel:> AAbb aaBB AaBb aA\xC7\x85"
    "bC "
    "\xCA\xB0x\xCC\x81 \xCC\x81y 1\xCC\x81 !\xCC\x81 trailing   ";

/* The pieces that a tokenizer's steps cut the probe into. */
static bool cut_probe(const tokenizer *t, buf *pieces, dp_error *err) {
    encoding e;
    bool ok = encoding_init(&e, t, false, NULL, 0, err);
    e.pieces = pieces;
    buf_reset(pieces);
    ok = ok && pretoken_encode(&e, (str){ probe, sizeof(probe) - 1 }, true);
    encoding_free(&e);
    return ok;
}

/* Cuts that only one of two lists of pieces has, 0 if they are equal; UINT32_MAX if they are of two
 * texts. */
static uint32_t count_differences(const buf *a, const buf *b) {
    size_t i = 0, j = 0, at_a = 0, at_b = 0; /* at: bytes of text so far */
    uint32_t n = 0;
    while (i < a->size || j < b->size) {
        const bool of_a = i < a->size && (j == b->size || at_a <= at_b);
        const bool of_b = j < b->size && (i == a->size || at_b <= at_a);
        if (of_a) {
            const size_t size = strlen(a->data + i);
            i += size + 1;
            at_a += size;
        }
        if (of_b) {
            const size_t size = strlen(b->data + j);
            j += size + 1;
            at_b += size;
        }
        n += at_a != at_b;
    }
    return at_a == at_b ? n : UINT32_MAX;
}

typedef struct {
    const char *name;
    uint32_t n_differences; /* cuts of the probe */
    unsigned rank;          /* how much else it does not say */
} pre_choice;

/* Number i of the table, if it is better than what was found so far. */
static bool try_pre_name(const tokenizer *t, size_t i, const pre_name *named, const buf *want,
                         buf *got, pre_choice *best, dp_error *err) {
    tokenizer with = *t; /* shares all but the steps */
    with.pre.n = 0;
    with.uses_regex = true;
    const bool ok = pre_name_steps(i, &with.pre, err) && cut_probe(&with, got, err);
    steps_free(&with.pre);
    const unsigned rank =
        2u * (named->whole != t->ignore_merges) + (named->nfc != (t->normal.n > 0));
    const uint32_t n = ok ? count_differences(want, got) : UINT32_MAX;
    if (n < best->n_differences || (n == best->n_differences && rank < best->rank)) {
        *best = (pre_choice){ named->name, n, rank };
    }
    return ok;
}

/* The name that stands for how a byte-level vocabulary's texts are cut, or comes nearest. */
static bool find_pre_name(const tokenizer *t, pre_choice *best, dp_error *err) {
    buf want, got;
    pre_name named;
    buf_init(&want, sizeof(probe) * 8);
    buf_init(&got, sizeof(probe) * 8);
    *best = (pre_choice){ "default", UINT32_MAX, UINT32_MAX };
    bool ok = cut_probe(t, &want, err);
    for (size_t i = 0; ok && pre_name_at(i, &named); i++) {
        const bool stands_for_many = named.name[strlen(named.name) - 1] == '*';
        ok = stands_for_many || try_pre_name(t, i, &named, &want, &got, best, err);
    }
    buf_free(&want);
    buf_free(&got);
    /* No name says this of the text before it is cut. */
    const bool strange = t->normal.n > 1 ||
                         (t->normal.n == 1 && t->normal.list[0].kind != STEP_NFC) ||
                         (t->pre.n > 0 && t->pre.list[0].kind == STEP_PREPEND);
    if (ok && (best->n_differences > 0 || best->rank > 0 || strange)) {
        log_line(&t->log, DP_LOG_WARNING,
                 "no name of a pre-tokenizer says how this one cuts texts; the nearest is \"%s\"",
                 best->name);
    }
    return ok;
}

/* ---- vocabulary ---------------------------------------------------------------------------- */

typedef struct {
    const tokenizer *t;
    const meta_sink *sink;
    uint32_t n;     /* entries of every list */
    str *tokens;    /* [n] */
    int32_t *types; /* [n] */
    float *scores;  /* [n] */
    buf names;      /* spellings of padding */
    buf lines;      /* "left right", each with a NUL behind it; or a key */
    bool spaced;    /* a token of a merge has a space: such a line means something else */
    uint32_t n_merges;
    dp_error *err;
} keys_writer;

static int32_t type_of_token(const tokenizer *t, dp_token id) {
    const uint16_t flags = t->flags[id];
    if (id == t->unk && !t->raw_bytes) {
        return GGUF_UNKNOWN;
    }
    if (flags & TOKEN_SPECIAL) {
        return GGUF_CONTROL;
    }
    if (flags & TOKEN_ADDED) {
        return GGUF_USER;
    }
    if (flags & TOKEN_UNUSED) {
        return GGUF_UNUSED;
    }
    return flags & TOKEN_BYTE ? GGUF_BYTE : GGUF_NORMAL;
}

/* tokens and types, holes and rows beyond the vocabulary as padding. */
static bool list_tokens(keys_writer *w) {
    const tokenizer *t = w->t;
    w->tokens = mem_new(w->n, sizeof(*w->tokens), "a vocabulary", w->err);
    w->types = mem_new(w->n, sizeof(*w->types), "a vocabulary", w->err);
    w->scores = mem_new(w->n, sizeof(*w->scores), "a vocabulary", w->err);
    if (w->tokens == NULL || w->types == NULL || w->scores == NULL) {
        return false;
    }
    for (dp_token id = 0; id < w->n; id++) {
        if (id < t->n_tokens && (t->flags[id] & TOKEN_PRESENT)) {
            w->tokens[id] = t->spelling[id];
            w->types[id] = type_of_token(t, id);
            continue;
        }
        w->tokens[id].size = w->names.size; /* the place of the name, until all are there */
        buf_printf(&w->names, "[PAD%u]", id);
        buf_add(&w->names, "", 1);
        w->types[id] = GGUF_UNUSED;
    }
    if (!buf_ok(&w->names, "names of padding", w->err)) {
        return false;
    }
    for (dp_token id = 0; id < w->n; id++) {
        if (w->tokens[id].data == NULL) {
            w->tokens[id] = str_of(w->names.data + w->tokens[id].size);
        }
    }
    for (size_t byte = 0; t->byte_fallback && byte < ARRAY_LEN(t->byte_ids); byte++) {
        const dp_token id = t->byte_ids[byte];
        if (id < w->n && w->types[id] == GGUF_NORMAL) {
            w->types[id] = GGUF_BYTE;
        }
    }
    return true;
}

/* ---- scores and merges --------------------------------------------------------------------- */

/* What tokenizer_set_scores made an order of. */
static float score_of_order(uint32_t order) {
    const uint32_t turned = ~order, bits = turned & 0x80000000u ? turned & 0x7FFFFFFFu : ~turned;
    float score;
    memcpy(&score, &bits, sizeof(score));
    return score;
}

static void put_merge_line(void *user, dp_token left, dp_token right) {
    keys_writer *w = user;
    const str parts[2] = { w->t->spelling[left], w->t->spelling[right] };
    for (int i = 0; i < 2; i++) {
        w->spaced = w->spaced || memchr(parts[i].data, ' ', parts[i].size) != NULL ||
                    memchr(parts[i].data, '\0', parts[i].size) != NULL;
    }
    buf_add_str(&w->lines, parts[0]);
    buf_add(&w->lines, " ", 1);
    buf_add_str(&w->lines, parts[1]);
    buf_add(&w->lines, "", 1);
    w->n_merges++;
}

static bool put_merges(keys_writer *w) {
    if (!tokenizer_each_merge(w->t, put_merge_line, w, w->err) ||
        !buf_ok(&w->lines, "merges", w->err)) {
        return false;
    }
    if (w->spaced) {
        return err_set(w->err, DP_E_UNSUPPORTED,
                       "%s: a merge of tokens with spaces: GGUF cannot hold it", w->t->source);
    }
    str *list = mem_new(w->n_merges + 1u, sizeof(*list), "merges", w->err);
    const char *at = w->lines.data;
    for (uint32_t i = 0; list != NULL && i < w->n_merges; i++) {
        list[i] = str_of(at);
        at += list[i].size + 1;
    }
    if (list != NULL) {
        w->sink->strings(w->sink->user, "tokenizer.ggml.merges", list, w->n_merges);
    }
    mem_free(list);
    return list != NULL;
}

/* The first merge that makes a token tells its score: SentencePiece's own BPE models number theirs
 * 0, -1, -2, ... in that order, and characters behind. */
static void score_merge(void *user, dp_token left, dp_token right) {
    keys_writer *w = user;
    const merge *m = merges_get(&w->t->merges, left, right);
    if (m != NULL && m->result < w->n && w->scores[m->result] == 0.0f) {
        w->scores[m->result] = -(float)++w->n_merges;
    }
}

static bool put_scores(keys_writer *w) {
    static const float of_padding = -1000.0f; /* what converters give it */
    const tokenizer *t = w->t;
    if (!t->unigram && !t->by_score && !tokenizer_each_merge(t, score_merge, w, w->err)) {
        return false;
    }
    for (dp_token id = 0; id < w->n; id++) {
        const bool present = id < t->n_tokens && (t->flags[id] & TOKEN_PRESENT);
        if (!present) {
            w->scores[id] = of_padding;
        } else if (t->unigram) {
            w->scores[id] = (float)t->scores[id];
        } else if (t->by_score) {
            w->scores[id] = score_of_order(t->order[id]);
        } else if (w->scores[id] == 0.0f && w->types[id] == GGUF_NORMAL) {
            w->scores[id] = -(float)(++w->n_merges);
        }
    }
    w->sink->f32s(w->sink->user, "tokenizer.ggml.scores", w->scores, w->n);
    return true;
}

/* ---- what SentencePiece does to texts ------------------------------------------------------ */

typedef struct {
    bool prefixes, trims, escapes;
    const charsmap *charsmap;
} space_habits;

/* From its own step, or from those that tokenizer.json has for it. */
static space_habits find_habits(const tokenizer *t) {
    space_habits habits = { .escapes = false };
    for (uint32_t i = 0; i < t->normal.n + t->pre.n; i++) {
        const step *s = i < t->normal.n ? &t->normal.list[i] : &t->pre.list[i - t->normal.n];
        const bool of_spaces =
            s->kind == STEP_REPLACE && s->match == MATCH_LITERAL && str_is(s->literal, " ");
        if (s->kind == STEP_SENTENCE) {
            habits.prefixes = s->prefixes;
            habits.trims = s->trims;
        }
        habits.prefixes = habits.prefixes || s->kind == STEP_PREPEND;
        habits.trims = habits.trims || (s->kind == STEP_REPLACE && s->match == MATCH_REGEX &&
                                        str_is(regex_pattern(s->regex), " {2,}"));
        habits.escapes =
            habits.escapes || ((s->kind == STEP_SENTENCE || of_spaces) && !str_is(s->content, " "));
        if (s->charsmap != NULL) {
            habits.charsmap = s->charsmap;
        }
    }
    return habits;
}

static bool put_habits(keys_writer *w) {
    const meta_sink *sink = w->sink;
    const space_habits habits = find_habits(w->t);
    sink->flag(sink->user, "tokenizer.ggml.add_space_prefix", habits.prefixes);
    sink->flag(sink->user, "tokenizer.ggml.remove_extra_whitespaces", habits.trims);
    if (!habits.escapes) {
        sink->flag(sink->user, "tokenizer.ggml.escape_whitespaces", false);
    }
    if (habits.charsmap == NULL) {
        return true;
    }
    buf bytes;
    buf_init(&bytes, JSON_BYTES_MAX);
    charsmap_bytes(habits.charsmap, &bytes);
    const bool ok = buf_ok(&bytes, "precompiled_charsmap", w->err);
    if (ok) {
        sink->bytes(sink->user, "tokenizer.ggml.precompiled_charsmap", (const uint8_t *)bytes.data,
                    (uint32_t)bytes.size);
    }
    buf_free(&bytes);
    return ok;
}

/* ---- special tokens ------------------------------------------------------------------------ */

static void put_id(const keys_writer *w, const char *key, dp_token id) {
    if (id < w->n) {
        w->sink->u32(w->sink->user, key, id);
    }
}

/* Ends of generation have two keys beside eos: those that no reader knows by their spelling take
 * what is free of them. */
static void put_roles(const keys_writer *w) {
    const tokenizer *t = w->t;
    dp_token roles[ROLE_COUNT];
    memcpy(roles, t->roles, sizeof(roles));
    for (size_t i = 0; i < t->n_stops; i++) {
        const dp_token id = t->stops[i];
        if (id == t->eos || id == roles[ROLE_EOT] || id == roles[ROLE_EOM] ||
            tokenizer_known_stop(t, id)) {
            continue;
        }
        if (roles[ROLE_EOT] == DP_NO_TOKEN) {
            roles[ROLE_EOT] = id;
        } else if (roles[ROLE_EOM] == DP_NO_TOKEN) {
            roles[ROLE_EOM] = id;
        } else {
            log_line(&t->log, DP_LOG_WARNING,
                     "token %u ends a generation: GGUF has no key left to say so", id);
        }
    }
    for (size_t i = 0; i < ROLE_COUNT; i++) {
        put_id(w, token_roles[i].meta, roles[i]);
    }
}

static void put_ids(const keys_writer *w) {
    const tokenizer *t = w->t;
    const meta_sink *sink = w->sink;
    /* A token in front that the files do not call bos is what others know by that name. */
    const dp_token bos = t->bos == DP_NO_TOKEN && t->n_prefix > 0 ? t->prefix[0] : t->bos;
    const dp_token eos =
        t->eos == DP_NO_TOKEN && t->n_suffix > 0 ? t->suffix[t->n_suffix - 1] : t->eos;
    const bool adds_bos = t->n_prefix > 0 && t->prefix[0] == bos;
    const bool adds_eos = t->n_suffix > 0 && t->suffix[t->n_suffix - 1] == eos;
    put_id(w, "tokenizer.ggml.bos_token_id", bos);
    put_id(w, "tokenizer.ggml.eos_token_id", eos);
    put_id(w, "tokenizer.ggml.unknown_token_id", t->unk);
    put_roles(w);
    sink->flag(sink->user, "tokenizer.ggml.add_bos_token", adds_bos);
    sink->flag(sink->user, "tokenizer.ggml.add_eos_token", adds_eos);
    if (t->n_prefix != adds_bos || t->n_suffix != adds_eos) {
        log_line(&t->log, DP_LOG_WARNING,
                 "GGUF has no key for the %u tokens before and %u behind a text", t->n_prefix,
                 t->n_suffix);
    }
}

static bool put_templates(const keys_writer *w) {
    const tokenizer *t = w->t;
    const meta_sink *sink = w->sink;
    if (t->chat_template.size > 0) {
        sink->string(sink->user, "tokenizer.chat_template", t->chat_template);
    }
    if (t->n_templates == 0) {
        return true;
    }
    str *names = mem_new(t->n_templates, sizeof(*names), "chat templates", w->err);
    buf key;
    buf_init(&key, NAME_BYTES_MAX);
    bool ok = names != NULL;
    for (uint32_t i = 0; ok && i < t->n_templates; i++) {
        names[i] = t->templates[i].name;
        buf_reset(&key);
        buf_add_str(&key, STR("tokenizer.chat_template."));
        buf_add_str(&key, names[i]);
        ok = buf_ok(&key, "the name of a chat template", w->err);
        if (ok) {
            sink->string(sink->user, key.data, t->templates[i].text);
        }
    }
    if (ok) {
        sink->strings(sink->user, "tokenizer.chat_templates", names, t->n_templates);
    }
    mem_free(names);
    buf_free(&key);
    return ok;
}

/* ---- the models ---------------------------------------------------------------------------- */

/* "gemma4": merges of lines over a vocabulary with marked spaces. */
static bool is_gemma4(const tokenizer *t) {
    const step *s = &t->pre.list[0];
    return !t->unigram && !t->by_score && t->pre.n == 1 && s->kind == STEP_SPLIT &&
           s->match == MATCH_REGEX && s->split == SPLIT_ISOLATED && !s->invert &&
           str_is(regex_pattern(s->regex), "[^\\n]+|\\n+") && !find_habits(t).prefixes;
}

static bool put_vocabulary_keys(keys_writer *w, const char *model, const char *pre) {
    const meta_sink *sink = w->sink;
    if (!list_tokens(w)) {
        return false;
    }
    sink->string(sink->user, "tokenizer.ggml.model", str_of(model));
    if (pre != NULL) {
        sink->string(sink->user, "tokenizer.ggml.pre", str_of(pre));
    }
    sink->strings(sink->user, "tokenizer.ggml.tokens", w->tokens, w->n);
    sink->i32s(sink->user, "tokenizer.ggml.token_type", w->types, w->n);
    return true;
}

static bool put_keys(keys_writer *w) {
    const tokenizer *t = w->t;
    if (t->raw_bytes) {
        pre_choice pre;
        return find_pre_name(t, &pre, w->err) && put_vocabulary_keys(w, "gpt2", pre.name) &&
               put_merges(w);
    }
    if (is_gemma4(t)) {
        return put_vocabulary_keys(w, "gemma4", "gemma4") && put_merges(w);
    }
    return put_vocabulary_keys(w, t->unigram ? "t5" : "llama", "default") && put_scores(w) &&
           put_habits(w);
}

static bool put_source_json(const keys_writer *w, container *source) {
    buf text;
    bool found = false;
    buf_init(&text, JSON_BYTES_MAX);
    const bool ok = tokenizer_source_json(source, &text, &found, w->err);
    if (ok && found) {
        w->sink->string(w->sink->user, described_meta, (str){ text.data, text.size });
    }
    buf_free(&text);
    return ok;
}

/* ---- from GGUF to GGUF --------------------------------------------------------------------- */

/* Lists with an entry for each token, made longer or cut. */
static bool copy_token_list(keys_writer *w, const char *key, const meta_value *v) {
    const meta_sink *sink = w->sink;
    const uint32_t n = min_u32(v->n, w->n);
    if (v->element == META_STRING) {
        for (uint32_t i = 0; i < n; i++) {
            w->tokens[i] = v->strings[i];
        }
        sink->strings(sink->user, key, w->tokens, w->n);
    } else if (v->element == META_FLOAT) {
        for (uint32_t i = 0; i < w->n; i++) {
            w->scores[i] = i < n ? (float)v->floats[i] : -1000.0f;
        }
        sink->f32s(sink->user, key, w->scores, w->n);
    } else {
        for (uint32_t i = 0; i < n; i++) {
            w->types[i] = (int32_t)v->ints[i];
        }
        sink->i32s(sink->user, key, w->types, w->n);
    }
    return true;
}

static bool copy_ints(keys_writer *w, const char *key, const meta_value *v) {
    const meta_sink *sink = w->sink;
    bool bytes = v->element != META_BOOL;
    for (uint32_t i = 0; i < v->n; i++) {
        bytes = bytes && v->ints[i] >= -128 && v->ints[i] <= 255;
    }
    const bool narrow = bytes && strstr(key, "charsmap") != NULL;
    void *copy = mem_new(v->n + 1u, narrow ? 1 : sizeof(int32_t), key, w->err);
    if (copy == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < v->n; i++) {
        if (narrow) {
            ((uint8_t *)copy)[i] = (uint8_t)v->ints[i];
        } else if (v->element == META_BOOL) {
            ((bool *)copy)[i] = v->ints[i] != 0;
        } else {
            ((int32_t *)copy)[i] = (int32_t)v->ints[i];
        }
    }
    if (narrow) {
        sink->bytes(sink->user, key, copy, v->n);
    } else if (v->element == META_BOOL) {
        sink->flags(sink->user, key, copy, v->n);
    } else {
        sink->i32s(sink->user, key, copy, v->n);
    }
    mem_free(copy);
    return true;
}

static bool copy_array(keys_writer *w, const char *key, const meta_value *v) {
    const meta_sink *sink = w->sink;
    if (strcmp(key, "tokenizer.ggml.tokens") == 0 || strcmp(key, "tokenizer.ggml.scores") == 0 ||
        strcmp(key, "tokenizer.ggml.token_type") == 0) {
        return copy_token_list(w, key, v);
    }
    if (v->element == META_STRING) {
        sink->strings(sink->user, key, v->strings, v->n);
        return true;
    }
    if (v->element != META_FLOAT) {
        return copy_ints(w, key, v);
    }
    float *copy = mem_new(v->n + 1u, sizeof(*copy), key, w->err);
    for (uint32_t i = 0; copy != NULL && i < v->n; i++) {
        copy[i] = (float)v->floats[i];
    }
    if (copy != NULL) {
        sink->f32s(sink->user, key, copy, v->n);
    }
    mem_free(copy);
    return copy != NULL;
}

static bool copy_value(keys_writer *w, const char *key, const meta_value *v) {
    const meta_sink *sink = w->sink;
    switch (v->type) {
    case META_UINT:
        sink->u32(sink->user, key, (uint32_t)v->u);
        break;
    case META_INT:
        sink->i32(sink->user, key, (int32_t)v->i);
        break;
    case META_FLOAT:
        sink->f32(sink->user, key, (float)v->f);
        break;
    case META_BOOL:
        sink->flag(sink->user, key, v->b);
        break;
    case META_STRING:
        sink->string(sink->user, key, v->s);
        break;
    case META_ARRAY:
        return copy_array(w, key, v);
    }
    return true;
}

static bool copy_keys(keys_writer *w, const container *source) {
    bool ok = list_tokens(w);
    for (uint32_t i = 0; ok && i < container_n_meta(source); i++) {
        str key;
        const meta_value *v = container_meta_at(source, i, &key);
        if (!str_starts(key, "tokenizer.")) {
            continue;
        }
        buf_reset(&w->lines);
        buf_add_str(&w->lines, key);
        ok = buf_ok(&w->lines, "a key", w->err) && copy_value(w, w->lines.data, v);
    }
    return ok;
}

/* ---- all ----------------------------------------------------------------------------------- */

bool tokenizer_write_gguf(const tokenizer *t, container *source, uint32_t vocab_size,
                          const meta_sink *sink, dp_error *err) {
    keys_writer w = { .t = t, .sink = sink, .n = vocab_size, .err = err };
    assert(vocab_size > 0);
    buf_init(&w.names, MERGES_BYTES_MAX);
    buf_init(&w.lines, MERGES_BYTES_MAX);
    if (vocab_size < t->n_tokens) {
        log_line(&t->log, DP_LOG_WARNING, "%u tokens beyond the embedding's %u rows are left out",
                 t->n_tokens - vocab_size, vocab_size);
    }
    bool ok;
    if (source != NULL && container_kind_of(source) == CONTAINER_GGUF) {
        ok = copy_keys(&w, source);
    } else {
        ok = put_keys(&w);
        if (ok) {
            put_ids(&w);
        }
        ok = ok && put_templates(&w) && (source == NULL || put_source_json(&w, source));
    }
    mem_free(w.tokens);
    mem_free(w.types);
    mem_free(w.scores);
    buf_free(&w.names);
    buf_free(&w.lines);
    return ok;
}
