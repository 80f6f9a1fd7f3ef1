/* tokenizer_json: a tokenizer from Hugging Face's tokenizer.json and the files beside it.
 *
 * tokenizer.json describes the whole of it: added tokens, normalizer, pre-tokenizer, model,
 * post-processor, decoder, each an object with a "type" that may be a Sequence of others. What is
 * not known is refused by its name, never skipped. */
#include "text/text_internal.h"

typedef struct {
    tokenizer *t;
    bool has_template; /* the post-processor says what is put around a text */
    bool fused;        /* decoder steps see the whole text from here on */
    dp_error *err;
} reader;

/* ---- fields -------------------------------------------------------------------------------- */

static str type_of(const json_value *v) {
    str type;
    return json_string(json_get(v, "type"), &type) ? type : STR("(without a type)");
}

static bool refuse_type(const reader *r, const char *what, const json_value *v) {
    const str type = type_of(v);
    return err_set(r->err, DP_E_UNSUPPORTED, "tokenizer.json: %s \"%.*s\" is not supported", what,
                   STR_ARG(type));
}

static bool wrong_field(const reader *r, const char *what, const char *field) {
    return err_set(r->err, DP_E_FORMAT,
                   "tokenizer.json: %s: \"%s\" is missing or of the wrong type", what, field);
}

/* An optional flag. */
static bool read_flag(const reader *r, const json_value *v, const char *what, const char *key,
                      bool fallback, bool *out) {
    const json_value *field = json_get(v, key);
    *out = fallback;
    return field == NULL || json_is_null(field) || json_bool(field, out) ||
           wrong_field(r, what, key);
}

static bool read_text(const reader *r, const json_value *v, const char *what, const char *key,
                      str *out) {
    str s;
    if (!json_string(json_get(v, key), &s)) {
        return wrong_field(r, what, key);
    }
    return tokenizer_copy(r->t, s, out, r->err);
}

/* An id that must be one of the vocabulary's. */
static bool read_id(const reader *r, const json_value *v, const char *what, dp_token *out) {
    uint64_t id;
    if (!json_u64(v, &id)) {
        return err_set(r->err, DP_E_FORMAT, "tokenizer.json: %s: a token id is no number", what);
    }
    if (id >= r->t->n_tokens) {
        return err_set(r->err, DP_E_FORMAT,
                       "tokenizer.json: %s: token id %llu, the vocabulary has %u", what,
                       (unsigned long long)id, r->t->n_tokens);
    }
    *out = (dp_token)id;
    return true;
}

/* {"String": s} or {"Regex": s} into a step. */
static bool read_pattern(reader *r, const json_value *pattern, const char *what, step *s) {
    str text;
    if (json_string(json_get(pattern, "Regex"), &text)) {
        s->match = MATCH_REGEX;
        s->regex = regex_new(text, r->err);
        return s->regex != NULL || err_prefix(r->err, "tokenizer.json: %s: ", what);
    }
    if (!json_string(pattern, &text) && !json_string(json_get(pattern, "String"), &text)) {
        return wrong_field(r, what, "pattern");
    }
    if (text.size == 0 || text.size > ADDED_BYTES_MAX) {
        return err_set(r->err, DP_E_LIMIT,
                       "tokenizer.json: %s: a pattern of %zu bytes, 1 to %d are "
                       "possible",
                       what, text.size, ADDED_BYTES_MAX);
    }
    s->match = MATCH_LITERAL;
    return tokenizer_copy(r->t, text, &s->literal, r->err);
}

/* ---- vocabulary and merges ----------------------------------------------------------------- */

/* The next token of a vocabulary: {"spelling": id, ...} or [["spelling", score], ...], whose ids
 * are places. */
static bool next_token(reader *r, json_iter *it, uint64_t *n, str *spelling, uint64_t *id,
                       double *score) {
    *spelling = it->key;
    *score = 0;
    if (r->t->unigram) {
        *id = (*n)++;
        return (json_count(it->value) == 2 && json_string(json_at(it->value, 0), spelling) &&
                json_f64(json_at(it->value, 1), score)) ||
               err_set(r->err, DP_E_FORMAT,
                       "tokenizer.json: vocab: token %llu is no pair of text and score",
                       (unsigned long long)*id);
    }
    return (json_u64(it->value, id) && *id < UINT32_MAX) ||
           err_set(r->err, DP_E_FORMAT, "tokenizer.json: vocab: \"%.*s\" has no valid id",
                   STR_ARG(it->key));
}

static bool count_tokens(reader *r, const json_value *vocab, const json_value *added, uint64_t *n) {
    uint64_t place = 0;
    *n = 0;
    for (json_iter it = json_each(vocab); json_next(&it);) {
        uint64_t id;
        str spelling;
        double score;
        if (!next_token(r, &it, &place, &spelling, &id, &score)) {
            return false;
        }
        *n = max_u64(*n, id + 1);
    }
    for (json_iter it = json_each(added); json_next(&it);) {
        uint64_t id;
        if (!json_u64(json_get(it.value, "id"), &id) || id >= UINT32_MAX) {
            return wrong_field(r, "added_tokens", "id");
        }
        *n = max_u64(*n, id + 1);
    }
    return true;
}

/* The vocabulary proper. */
static bool read_pairs(reader *r, const json_value *vocab) {
    tokenizer *t = r->t;
    double *scores = NULL;
    uint64_t place = 0;
    if (t->unigram) {
        scores = mem_new(t->n_tokens, sizeof(*scores), "scores", r->err);
        if (scores == NULL) {
            return false;
        }
    }
    bool ok = true;
    for (json_iter it = json_each(vocab); ok && json_next(&it);) {
        uint64_t id = 0;
        str spelling;
        double score;
        ok = next_token(r, &it, &place, &spelling, &id, &score) &&
             tokenizer_put(t, (dp_token)id, spelling, TOKEN_MODEL, r->err);
        if (ok && scores != NULL) {
            scores[id] = score;
        }
    }
    ok = ok && (scores == NULL || tokenizer_set_scores(t, scores, r->err));
    mem_free(scores);
    return ok;
}

static bool read_vocabulary(reader *r, const json_value *model, const json_value *added) {
    tokenizer *t = r->t;
    const json_value *vocab = json_get(model, "vocab");
    if (!(t->unigram ? json_is_array(vocab) : json_is_object(vocab))) {
        return wrong_field(r, "model", "vocab");
    }
    if (added != NULL && !json_is_array(added)) {
        return wrong_field(r, "the file", "added_tokens");
    }
    uint64_t n;
    if (!count_tokens(r, vocab, added, &n) || !tokenizer_reserve(t, n, r->err) ||
        !read_pairs(r, vocab)) {
        return false;
    }
    for (json_iter it = json_each(added); json_next(&it);) {
        str content;
        uint64_t id = 0;
        uint16_t flags;
        dp_token known;
        if (!json_string(json_get(it.value, "content"), &content)) {
            return wrong_field(r, "added_tokens", "content");
        }
        (void)json_u64(json_get(it.value, "id"), &id); /* count_tokens saw it */
        if (!added_flags(it.value, "tokenizer.json", &flags, r->err)) {
            return false;
        }
        if (content.size == 0) {
            continue;
        }
        if (tokenizer_find(t, content,
                           &known)) { /* the model's own id counts, as in the reference */
            id = known;
        } else if (t->flags[id] & TOKEN_PRESENT) {
            return err_set(r->err, DP_E_FORMAT,
                           "tokenizer.json: added token \"%.*s\" has id %llu, "
                           "which is \"%.*s\"",
                           STR_ARG(content), (unsigned long long)id, STR_ARG(t->spelling[id]));
        }
        if (!tokenizer_put(t, (dp_token)id, content, flags, r->err)) {
            return false;
        }
    }
    return true;
}

/* "left right" or ["left", "right"]. */
static bool split_merge(const json_value *v, str *left, str *right) {
    str line;
    if (json_string(v, &line)) {
        const char *space = memchr(line.data, ' ', line.size);
        if (space == NULL) {
            return false;
        }
        *left = (str){ line.data, (size_t)(space - line.data) };
        *right = (str){ space + 1, line.size - left->size - 1 };
        return left->size > 0 && right->size > 0 && memchr(right->data, ' ', right->size) == NULL;
    }
    return json_count(v) == 2 && json_string(json_at(v, 0), left) &&
           json_string(json_at(v, 1), right);
}

static bool read_merges(reader *r, const json_value *model) {
    tokenizer *t = r->t;
    const json_value *merges = json_get(model, "merges");
    if (!json_is_array(merges)) {
        return wrong_field(r, "model", "merges");
    }
    if (!merges_new(&t->merges, json_count(merges), r->err)) {
        return false;
    }
    buf joined;
    buf_init(&joined, 2 * TOKEN_BYTES_MAX);
    uint32_t rank = 0;
    bool ok = true;
    for (json_iter it = json_each(merges); ok && json_next(&it); rank++) {
        str part[2];
        dp_token id[3] = { 0 };
        if (!split_merge(it.value, &part[0], &part[1])) {
            ok =
                err_set(r->err, DP_E_FORMAT, "tokenizer.json: merge %u is no pair of tokens", rank);
            break;
        }
        buf_reset(&joined);
        buf_add_str(&joined, part[0]);
        buf_add_str(&joined, part[1]);
        if (!buf_ok(&joined, "a merge", r->err)) {
            ok = false;
            break;
        }
        const str spelling[3] = { part[0], part[1], { joined.data, joined.size } };
        for (int i = 0; ok && i < 3; i++) {
            if (!tokenizer_find(t, spelling[i], &id[i]) || !(t->flags[id[i]] & TOKEN_MODEL)) {
                ok = err_set(r->err, DP_E_FORMAT,
                             "tokenizer.json: merge %u: \"%.*s\" is not in the vocabulary", rank,
                             STR_ARG(spelling[i]));
            }
        }
        if (ok) {
            merges_put(&t->merges, id[0], id[1], rank, id[2]);
        }
    }
    buf_free(&joined);
    return ok;
}

static bool read_unigram(reader *r, const json_value *model, const json_value *added) {
    tokenizer *t = r->t;
    const json_value *unk = json_get(model, "unk_id");
    t->unigram = t->fuse_unk = true;
    return read_vocabulary(r, model, added) &&
           read_flag(r, model, "model", "byte_fallback", false, &t->byte_fallback) &&
           (unk == NULL || json_is_null(unk) || read_id(r, unk, "model: unk_id", &t->unk));
}

static bool read_model(reader *r, const json_value *model, const json_value *added) {
    tokenizer *t = r->t;
    str type = STR("BPE"), text;
    const json_value *named = json_get(model, "type");
    if (json_string(named, &type) && str_is(type, "Unigram")) {
        return read_unigram(r, model, added);
    }
    if ((named != NULL && !json_is_string(named)) || !str_is(type, "BPE") ||
        (named == NULL && !json_is_array(json_get(model, "merges")))) {
        return refuse_type(r, "model", model);
    }
    double dropout;
    if (json_f64(json_get(model, "dropout"), &dropout) && dropout != 0) {
        return err_set(r->err, DP_E_UNSUPPORTED,
                       "tokenizer.json: model: dropout %g is not supported", dropout);
    }
    static const char *const affixes[] = { "continuing_subword_prefix", "end_of_word_suffix" };
    for (size_t i = 0; i < ARRAY_LEN(affixes); i++) {
        if (json_string(json_get(model, affixes[i]), &text) && text.size > 0) {
            return err_set(r->err, DP_E_UNSUPPORTED,
                           "tokenizer.json: model: %s \"%.*s\" is not "
                           "supported",
                           affixes[i], STR_ARG(text));
        }
    }
    if (!read_vocabulary(r, model, added) || !read_merges(r, model) ||
        !read_flag(r, model, "model", "ignore_merges", false, &t->ignore_merges) ||
        !read_flag(r, model, "model", "byte_fallback", false, &t->byte_fallback) ||
        !read_flag(r, model, "model", "fuse_unk", false, &t->fuse_unk)) {
        return false;
    }
    if (json_string(json_get(model, "unk_token"), &text) &&
        (!tokenizer_find(t, text, &t->unk) || !(t->flags[t->unk] & TOKEN_MODEL))) {
        return err_set(r->err, DP_E_FORMAT,
                       "tokenizer.json: model: unk_token \"%.*s\" is not in the "
                       "vocabulary",
                       STR_ARG(text));
    }
    return true;
}

/* ---- normalizer and pre-tokenizer ---------------------------------------------------------- */

static bool read_normalizer(reader *r, const json_value *v, unsigned depth) {
    static const struct {
        const char *type;
        step_kind kind;
    } plain[] = {
        { "NFC", STEP_NFC },   { "NFD", STEP_NFD },         { "NFKC", STEP_NFKC },
        { "NFKD", STEP_NFKD }, { "Lowercase", STEP_LOWER }, { "StripAccents", STEP_STRIP_ACCENTS },
    };
    static const char what[] = "normalizer";
    const str type = type_of(v);
    if (str_is(type, "Sequence") && depth < STEPS_MAX) {
        const json_value *list = json_get(v, "normalizers");
        if (!json_is_array(list)) {
            return wrong_field(r, what, "normalizers");
        }
        for (json_iter it = json_each(list); json_next(&it);) {
            if (!read_normalizer(r, it.value, depth + 1)) {
                return false;
            }
        }
        return true;
    }
    for (size_t i = 0; i < ARRAY_LEN(plain); i++) {
        if (str_is(type, plain[i].type)) {
            return step_add(&r->t->normal, plain[i].kind, what, r->err) != NULL;
        }
    }
    if (str_is(type, "Prepend")) {
        step *s = step_add(&r->t->normal, STEP_PREPEND, what, r->err);
        return s != NULL && read_text(r, v, what, "prepend", &s->content);
    }
    if (str_is(type, "Replace")) {
        step *s = step_add(&r->t->normal, STEP_REPLACE, what, r->err);
        return s != NULL && read_pattern(r, json_get(v, "pattern"), what, s) &&
               read_text(r, v, what, "content", &s->content);
    }
    if (str_is(type, "Precompiled")) {
        step *s = step_add(&r->t->normal, STEP_CHARSMAP, what, r->err);
        str base64;
        if (s == NULL) {
            return false;
        }
        if (!json_string(json_get(v, "precompiled_charsmap"), &base64)) {
            return wrong_field(r, what, "precompiled_charsmap");
        }
        s->charsmap = charsmap_new_base64(r->t, base64, r->err);
        return s->charsmap != NULL;
    }
    if (str_is(type, "Strip")) {
        step *s = step_add(&r->t->normal, STEP_STRIP, what, r->err);
        return s != NULL && read_flag(r, v, what, "strip_left", true, &s->left) &&
               read_flag(r, v, what, "strip_right", true, &s->right);
    }
    return refuse_type(r, what, v);
}

static bool read_behavior(reader *r, const json_value *v, const char *what, split_kind fallback,
                          split_kind *out) {
    static const struct {
        const char *name;
        split_kind kind;
    } names[] = {
        { "Isolated", SPLIT_ISOLATED },           { "Removed", SPLIT_REMOVED },
        { "MergedWithPrevious", SPLIT_PREVIOUS }, { "MergedWithNext", SPLIT_NEXT },
        { "Contiguous", SPLIT_CONTIGUOUS },
    };
    const json_value *field = json_get(v, "behavior");
    str name;
    *out = fallback;
    if (field == NULL) {
        return true;
    }
    for (size_t i = 0; json_string(field, &name) && i < ARRAY_LEN(names); i++) {
        if (str_is(name, names[i].name)) {
            *out = names[i].kind;
            return true;
        }
    }
    return wrong_field(r, what, "behavior");
}

/* The character that stands for a space, and when it is put in front of a text. */
static bool read_metaspace(reader *r, const json_value *v, const char *what, str *mark,
                           bool *prepends, bool *only_at_start) {
    str scheme;
    bool legacy;
    *mark = (str){ 0 };
    if (!read_text(r, v, what, "replacement", mark)) {
        return false;
    }
    if (mark->size == 0 || utf8_next(*mark, NULL) != mark->size) {
        return wrong_field(r, what, "replacement");
    }
    if (!read_flag(r, v, what, "add_prefix_space", true, &legacy)) {
        return false;
    }
    *prepends = legacy;
    *only_at_start = false;
    const json_value *field = json_get(v, "prepend_scheme");
    if (field == NULL) {
        return true;
    }
    if (!json_string(field, &scheme) ||
        !(str_is(scheme, "always") || str_is(scheme, "first") || str_is(scheme, "never"))) {
        return wrong_field(r, what, "prepend_scheme");
    }
    *prepends = !str_is(scheme, "never");
    *only_at_start = str_is(scheme, "first");
    return true;
}

static bool read_pre_metaspace(reader *r, const json_value *v) {
    static const char what[] = "pre_tokenizer Metaspace";
    step_list *pre = &r->t->pre;
    bool prepends = false, only_at_start = false, split = true;
    str mark;
    if (!read_metaspace(r, v, what, &mark, &prepends, &only_at_start) ||
        !read_flag(r, v, what, "split", true, &split)) {
        return false;
    }
    step *s = step_add(pre, STEP_REPLACE, what, r->err);
    if (s == NULL) {
        return false;
    }
    s->match = MATCH_LITERAL;
    s->literal = STR(" ");
    s->content = mark;
    if (prepends) {
        s = step_add(pre, STEP_PREPEND, what, r->err);
        if (s == NULL) {
            return false;
        }
        s->content = mark;
        s->unless_there = true;
        s->only_at_start = only_at_start;
    }
    if (split) {
        s = step_add(pre, STEP_SPLIT, what, r->err);
        if (s == NULL) {
            return false;
        }
        s->match = MATCH_LITERAL;
        s->literal = mark;
        s->split = SPLIT_NEXT;
    }
    return true;
}

static bool read_byte_level(reader *r, const json_value *v) {
    static const char what[] = "pre_tokenizer ByteLevel";
    step_list *pre = &r->t->pre;
    bool prefix = true, splits = true;
    if (!read_flag(r, v, what, "add_prefix_space", true, &prefix) ||
        !read_flag(r, v, what, "use_regex", true, &splits)) {
        return false;
    }
    if (prefix) {
        step *s = step_add(pre, STEP_PREPEND, what, r->err);
        if (s == NULL) {
            return false;
        }
        s->content = STR(" ");
        s->unless_there = true;
    }
    return (!splits || step_add_regex(pre, str_of(gpt2_pattern), SPLIT_ISOLATED, what, r->err)) &&
           step_add(pre, STEP_BYTES, what, r->err) != NULL;
}

/* Splits at single characters of a class. */
static bool add_class_split(reader *r, const char *what, match_kind match, split_kind split) {
    step *s = step_add(&r->t->pre, STEP_SPLIT, what, r->err);
    if (s == NULL) {
        return false;
    }
    s->match = match;
    s->split = split;
    return true;
}

static bool read_pre_tokenizer(reader *r, const json_value *v, unsigned depth) {
    static const char what[] = "pre_tokenizer";
    step_list *pre = &r->t->pre;
    const str type = type_of(v);
    split_kind split = SPLIT_ISOLATED;
    bool flag = false;
    if (str_is(type, "Sequence") && depth < STEPS_MAX) {
        const json_value *list = json_get(v, "pretokenizers");
        if (!json_is_array(list)) {
            return wrong_field(r, what, "pretokenizers");
        }
        for (json_iter it = json_each(list); json_next(&it);) {
            if (!read_pre_tokenizer(r, it.value, depth + 1)) {
                return false;
            }
        }
        return true;
    }
    if (str_is(type, "Split")) {
        step *s = step_add(pre, STEP_SPLIT, what, r->err);
        return s != NULL && read_pattern(r, json_get(v, "pattern"), what, s) &&
               read_behavior(r, v, what, SPLIT_ISOLATED, &s->split) &&
               read_flag(r, v, what, "invert", false, &s->invert);
    }
    if (str_is(type, "ByteLevel")) {
        return read_byte_level(r, v);
    }
    if (str_is(type, "Metaspace")) {
        return read_pre_metaspace(r, v);
    }
    if (str_is(type, "Digits")) {
        return read_flag(r, v, what, "individual_digits", false, &flag) &&
               add_class_split(r, what, MATCH_NUMBER, flag ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS);
    }
    if (str_is(type, "Punctuation")) {
        return read_behavior(r, v, what, SPLIT_ISOLATED, &split) &&
               add_class_split(r, what, MATCH_PUNCTUATION, split);
    }
    if (str_is(type, "BertPreTokenizer")) {
        return add_class_split(r, what, MATCH_SPACE, SPLIT_REMOVED) &&
               add_class_split(r, what, MATCH_PUNCTUATION, SPLIT_ISOLATED);
    }
    if (str_is(type, "CharDelimiterSplit")) {
        step *s = step_add(pre, STEP_SPLIT, what, r->err);
        if (s == NULL) {
            return false;
        }
        s->split = SPLIT_REMOVED;
        return read_pattern(r, json_get(v, "delimiter"), what, s);
    }
    if (str_is(type, "WhitespaceSplit")) {
        return add_class_split(r, what, MATCH_SPACE, SPLIT_REMOVED);
    }
    if (str_is(type, "Whitespace")) { /* \w+|[^\w\s]+ with the wide \w of Rust's regex crate */
        if (!step_add_regex(pre,
                            STR("[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}]+|"
                                "[^\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}\\s]+"),
                            SPLIT_REMOVED, what, r->err)) {
            return false;
        }
        pre->list[pre->n - 1].invert = true;
        return true;
    }
    return refuse_type(r, what, v);
}

/* ---- post-processor ------------------------------------------------------------------------ */

static bool add_affix(reader *r, bool behind, dp_token id) {
    tokenizer *t = r->t;
    uint32_t *n = behind ? &t->n_suffix : &t->n_prefix;
    if (*n == AFFIX_MAX) {
        return err_set(r->err, DP_E_LIMIT,
                       "tokenizer.json: post_processor: more than %d tokens %s a "
                       "text",
                       AFFIX_MAX, behind ? "behind" : "before");
    }
    (behind ? t->suffix : t->prefix)[(*n)++] = id;
    return true;
}

static bool read_template_processing(reader *r, const json_value *v) {
    static const char what[] = "post_processor TemplateProcessing";
    const json_value *single = json_get(v, "single");
    if (!json_is_array(single)) {
        return wrong_field(r, what, "single");
    }
    bool behind = false;
    for (json_iter it = json_each(single); json_next(&it);) {
        str name;
        if (json_get(it.value, "Sequence") != NULL) {
            if (behind) {
                return err_set(r->err, DP_E_UNSUPPORTED,
                               "tokenizer.json: %s: the text more than once", what);
            }
            behind = true;
            continue;
        }
        if (!json_string(json_get(json_get(it.value, "SpecialToken"), "id"), &name)) {
            return wrong_field(r, what, "SpecialToken");
        }
        const json_value *ids = NULL; /* names may hold NULs, so compare and do not look up */
        for (json_iter s = json_each(json_get(v, "special_tokens")); json_next(&s);) {
            if (str_equal(s.key, name)) {
                ids = json_get(s.value, "ids");
            }
        }
        if (!json_is_array(ids)) {
            return err_set(r->err, DP_E_FORMAT,
                           "tokenizer.json: %s: \"%.*s\" is not among the "
                           "special_tokens",
                           what, STR_ARG(name));
        }
        for (json_iter i = json_each(ids); json_next(&i);) {
            dp_token id = 0;
            if (!read_id(r, i.value, what, &id) || !add_affix(r, behind, id)) {
                return false;
            }
        }
    }
    if (!behind) {
        return err_set(r->err, DP_E_UNSUPPORTED, "tokenizer.json: %s: without the text", what);
    }
    r->has_template = true;
    return true;
}

static bool read_post_processor(reader *r, const json_value *v, unsigned depth) {
    static const char what[] = "post_processor";
    const str type = type_of(v);
    if (str_is(type, "Sequence") && depth < STEPS_MAX) {
        const json_value *list = json_get(v, "processors");
        if (!json_is_array(list)) {
            return wrong_field(r, what, "processors");
        }
        for (json_iter it = json_each(list); json_next(&it);) {
            if (!read_post_processor(r, it.value, depth + 1)) {
                return false;
            }
        }
        return true;
    }
    if (str_is(type, "ByteLevel")) { /* offsets only */
        return true;
    }
    if (str_is(type, "TemplateProcessing")) {
        if (r->has_template) {
            return err_set(r->err, DP_E_UNSUPPORTED, "tokenizer.json: %s: two templates", what);
        }
        return read_template_processing(r, v);
    }
    if (str_is(type, "RobertaProcessing") || str_is(type, "BertProcessing")) {
        dp_token cls = DP_NO_TOKEN, sep = DP_NO_TOKEN; /* each ["spelling", id] */
        r->has_template = true;
        return read_id(r, json_at(json_get(v, "cls"), 1), what, &cls) &&
               read_id(r, json_at(json_get(v, "sep"), 1), what, &sep) && add_affix(r, false, cls) &&
               add_affix(r, true, sep);
    }
    return refuse_type(r, what, v);
}

/* ---- decoder ------------------------------------------------------------------------------- */

static bool read_strip(reader *r, const json_value *v) {
    static const char what[] = "decoder Strip";
    tokenizer *t = r->t;
    str content = { 0 };
    uint64_t start = 0, stop = 0;
    if (!read_text(r, v, what, "content", &content)) {
        return false;
    }
    if (content.size == 0 || utf8_next(content, NULL) != content.size) {
        return wrong_field(r, what, "content");
    }
    if (!json_u64(json_get(v, "start"), &start) || start > UINT32_MAX) {
        return wrong_field(r, what, "start");
    }
    if (!json_u64(json_get(v, "stop"), &stop) || stop > UINT32_MAX) {
        return wrong_field(r, what, "stop");
    }
    if (!r->fused) {
        decode_step *d = decode_add(t, DECODE_STRIP, r->err);
        if (d == NULL) {
            return false;
        }
        d->literal = content;
        d->start = (uint32_t)start;
        d->stop = (uint32_t)stop;
        return true;
    }
    if (stop > 0 || content.size != 1 ||
        t->n_lead > 0) { /* would have to wait for the text's end */
        return err_set(r->err, DP_E_UNSUPPORTED,
                       "tokenizer.json: %s of \"%.*s\", %llu from the start "
                       "and %llu from the end of the text, is not supported",
                       what, STR_ARG(content), (unsigned long long)start, (unsigned long long)stop);
    }
    t->lead = content.data[0];
    t->n_lead = (uint32_t)start;
    return true;
}

static bool read_decoder(reader *r, const json_value *v, unsigned depth) {
    static const char what[] = "decoder";
    tokenizer *t = r->t;
    const str type = type_of(v);
    if (str_is(type, "Sequence") && depth < STEPS_MAX) {
        const json_value *list = json_get(v, "decoders");
        if (!json_is_array(list)) {
            return wrong_field(r, what, "decoders");
        }
        for (json_iter it = json_each(list); json_next(&it);) {
            if (!read_decoder(r, it.value, depth + 1)) {
                return false;
            }
        }
        return true;
    }
    if (str_is(type, "Fuse")) {
        r->fused = true;
        return true;
    }
    if (str_is(type, "Strip")) {
        return read_strip(r, v);
    }
    if (r->fused) {
        return err_set(r->err, DP_E_UNSUPPORTED,
                       "tokenizer.json: decoder \"%.*s\" behind Fuse is not supported",
                       STR_ARG(type));
    }
    if (str_is(type, "ByteLevel")) {
        t->raw_bytes = true;
        return decode_add(t, DECODE_BYTES, r->err) != NULL;
    }
    if (str_is(type, "ByteFallback")) {
        return decode_add(t, DECODE_FALLBACK, r->err) != NULL;
    }
    if (str_is(type, "Replace")) {
        step pattern = { 0 };
        decode_step *d = decode_add(t, DECODE_REPLACE, r->err);
        if (d == NULL || !read_pattern(r, json_get(v, "pattern"), "decoder Replace", &pattern)) {
            return false;
        }
        if (pattern.regex != NULL) {
            regex_free(pattern.regex);
            return err_set(r->err, DP_E_UNSUPPORTED,
                           "tokenizer.json: decoder Replace of a Regex is not supported");
        }
        d->literal = pattern.literal;
        return read_text(r, v, "decoder Replace", "content", &d->content);
    }
    if (str_is(type, "Metaspace")) {
        bool prepends = false, only_at_start = false;
        decode_step *d = decode_add(t, DECODE_METASPACE, r->err);
        if (d == NULL ||
            !read_metaspace(r, v, "decoder Metaspace", &d->literal, &prepends, &only_at_start)) {
            return false;
        }
        d->drop_first = prepends;
        t->drops_first = t->drops_first || prepends;
        return true;
    }
    return refuse_type(r, what, v);
}

/* ---- all ----------------------------------------------------------------------------------- */

typedef bool read_part(reader *r, const json_value *v, unsigned depth);

/* A part that may be absent or null. */
static bool read_optional(reader *r, const json_value *root, const char *key, read_part *read) {
    const json_value *v = json_get(root, key);
    return v == NULL || json_is_null(v) || read(r, v, 0);
}

static bool read_all(reader *r, const json_value *root) {
    const json_value *decoder_value = json_get(root, "decoder");
    r->t->join_spaces = decoder_value == NULL || json_is_null(decoder_value);
    return read_model(r, json_get(root, "model"), json_get(root, "added_tokens")) &&
           read_optional(r, root, "normalizer", read_normalizer) &&
           read_optional(r, root, "pre_tokenizer", read_pre_tokenizer) &&
           read_optional(r, root, "post_processor", read_post_processor) &&
           read_optional(r, root, "decoder", read_decoder);
}

tokenizer *tokenizer_described(const json_value *root, const log_sink *log, bool *has_template,
                               dp_error *err) {
    reader r = { .err = err };
    r.t = tokenizer_new("tokenizer.json", log, err);
    const bool ok = r.t != NULL && read_all(&r, root);
    *has_template = r.has_template;
    if (!ok) {
        tokenizer_close(r.t);
        return NULL;
    }
    return r.t;
}

tokenizer *tokenizer_from_json(const tokenizer_files *files, const log_sink *log, dp_error *err) {
    bool has_template;
    tokenizer *t = tokenizer_described(files->tokenizer, log, &has_template, err);
    if (t != NULL &&
        (!companions_read(t, files, has_template, false, err) || !tokenizer_finish(t, err))) {
        tokenizer_close(t);
        return NULL;
    }
    return t;
}
