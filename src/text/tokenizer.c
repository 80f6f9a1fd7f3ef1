/* tokenizer: what both sources share, from the filled structure to the public calls.
 *
 * tokenizer_json.c and tokenizer_gguf.c put tokens, steps, merges and affixes into a tokenizer;
 * tokenizer_finish derives every table from them. From then on nothing changes, and a call keeps
 * what it needs in an `encoding`, so that any number of threads may share a tokenizer. */
#include "text/text_internal.h"

#include <math.h>

/* ---- building ------------------------------------------------------------------------------ */

tokenizer *tokenizer_new(const char *source, const log_sink *log, dp_error *err) {
    tokenizer *t = mem_new(1, sizeof(*t), "a tokenizer", err);
    if (t == NULL) {
        return NULL;
    }
    t->source = source;
    if (log != NULL) {
        t->log = *log;
    }
    t->bos = t->eos = t->unk = DP_NO_TOKEN;
    for (size_t i = 0; i < ROLE_COUNT; i++) {
        t->roles[i] = DP_NO_TOKEN;
    }
    for (size_t i = 0; i < CHAR_TABLE; i++) {
        t->char_ids[i] = DP_NO_TOKEN;
    }
    for (size_t i = 0; i < ARRAY_LEN(t->byte_ids); i++) {
        t->byte_ids[i] = DP_NO_TOKEN;
    }
    return t;
}

void tokenizer_close(tokenizer *t) {
    if (t == NULL) {
        return;
    }
    steps_free(&t->normal);
    steps_free(&t->pre);
    map_free(t->ids);
    mem_free(t->merges.slots);
    mem_free(t->stops);
    arena_free(&t->memory);
    mem_free(t);
}

bool tokenizer_copy(tokenizer *t, str s, str *out, dp_error *err) {
    char *copy = arena_copy(&t->memory, s.data, s.size, err);
    *out = (str){ copy, copy ? s.size : 0 };
    return copy != NULL;
}

bool tokenizer_reserve(tokenizer *t, uint64_t n, dp_error *err) {
    if (n == 0) {
        return err_set(err, DP_E_FORMAT, "%s: the vocabulary is empty", t->source);
    }
    if (n > VOCAB_MAX) {
        return err_set(err, DP_E_LIMIT, "%s: token ids up to %llu, the limit is %d", t->source,
                       (unsigned long long)n - 1, VOCAB_MAX - 1);
    }
    t->n_tokens = (uint32_t)n;
    t->spelling = arena_new(&t->memory, t->n_tokens, sizeof(*t->spelling), "a vocabulary", err);
    t->piece = arena_new(&t->memory, t->n_tokens, sizeof(*t->piece), "a vocabulary", err);
    t->flags = arena_new(&t->memory, t->n_tokens, sizeof(*t->flags), "a vocabulary", err);
    t->ids = map_new(t->n_tokens, err);
    return t->spelling != NULL && t->piece != NULL && t->flags != NULL && t->ids != NULL;
}

bool tokenizer_put(tokenizer *t, dp_token id, str spelling, uint16_t flags, dp_error *err) {
    assert(id < t->n_tokens);
    if (spelling.size > TOKEN_BYTES_MAX) {
        return err_set(err, DP_E_LIMIT, "%s: token %u has %zu bytes, the limit is %d", t->source,
                       id, spelling.size, TOKEN_BYTES_MAX);
    }
    if (t->flags[id] & TOKEN_PRESENT) {
        if (!str_equal(t->spelling[id], spelling)) {
            log_line(&t->log, DP_LOG_WARNING,
                     "%s: token %u has two spellings, \"%.*s\" and \"%.*s\"", t->source, id,
                     (int)min_u64(t->spelling[id].size, 64), t->spelling[id].data,
                     (int)min_u64(spelling.size, 64), spelling.data);
        }
    } else if (!tokenizer_copy(t, spelling, &t->spelling[id], err)) {
        return false;
    }
    t->flags[id] = (uint16_t)(t->flags[id] | TOKEN_PRESENT | flags);
    if (spelling.size > t->longest) {
        t->longest = spelling.size;
    }
    return map_put(t->ids, spelling, id, NULL, err);
}

decode_step *decode_add(tokenizer *t, decode_kind kind, dp_error *err) {
    if (t->n_decode == STEPS_MAX) {
        err_set(err, DP_E_LIMIT, "%s: decoder: more than %d steps", t->source, STEPS_MAX);
        return NULL;
    }
    decode_step *d = &t->decode[t->n_decode++];
    *d = (decode_step){ .kind = kind };
    return d;
}

void tokenizer_add_affixes(tokenizer *t, bool bos, bool eos) {
    if (bos && t->bos != DP_NO_TOKEN && t->n_prefix < AFFIX_MAX) {
        t->prefix[t->n_prefix++] = t->bos;
    }
    if (eos && t->eos != DP_NO_TOKEN && t->n_suffix < AFFIX_MAX) {
        t->suffix[t->n_suffix++] = t->eos;
    }
}

bool tokenizer_set_scores(tokenizer *t, const double *scores, dp_error *err) {
    for (uint32_t i = 0; i < t->n_tokens; i++) {
        if (!isfinite(scores[i])) {
            return err_set(err, DP_E_FORMAT, "%s: the score of token %u is no number", t->source,
                           i);
        }
    }
    if (t->unigram) {
        t->scores = arena_new(&t->memory, t->n_tokens, sizeof(*t->scores), "scores", err);
        if (t->scores != NULL) {
            memcpy(t->scores, scores, t->n_tokens * sizeof(*scores));
        }
        return t->scores != NULL;
    }
    t->by_score = true;
    t->order = arena_new(&t->memory, t->n_tokens, sizeof(*t->order), "scores", err);
    for (uint32_t i = 0; t->order != NULL && i < t->n_tokens; i++) {
        const float score = (float)scores[i] + 0.0f; /* -0 is 0 */
        /* IEEE bits in the order of the numbers, then turned round: the highest score first. */
        uint32_t bits;
        memcpy(&bits, &score, sizeof(bits));
        t->order[i] = ~(bits & 0x80000000u ? ~bits : bits | 0x80000000u);
    }
    return t->order != NULL;
}

bool tokenizer_add_sentence(tokenizer *t, sentence_options options, dp_error *err) {
    static const str mark = { "\xE2\x96\x81", 3 }, space = { " ", 1 };
    step *s = step_add(&t->normal, STEP_SENTENCE, t->source, err);
    if (s == NULL) {
        return false;
    }
    s->charsmap = options.charsmap;
    s->prefixes = options.prefixes;
    s->only_at_start = options.only_at_start;
    s->trims = options.trims;
    s->content = options.escapes ? mark : space;
    if (options.prefixes || options.trims) {
        t->lead = ' ';
        t->n_lead = options.trims ? UINT32_MAX : 1;
    }
    decode_step *d = decode_add(t, DECODE_REPLACE, err);
    if (d == NULL || decode_add(t, DECODE_FALLBACK, err) == NULL) {
        return false;
    }
    d->literal = mark;
    d->content = space;
    t->fuse_unk = t->float_sums = true;
    t->unk_surface = STR(" \xE2\x81\x87 ");
    return true;
}

bool tokenizer_add_stop(tokenizer *t, dp_token id, dp_error *err) {
    for (size_t i = 0; i < t->n_stops; i++) {
        if (t->stops[i] == id) {
            return true;
        }
    }
    if (t->n_stops == t->stops_capacity) {
        const size_t capacity = t->stops_capacity * 2 + 8;
        dp_token *stops = mem_resize(t->stops, capacity, sizeof(*stops), "stop tokens", err);
        if (stops == NULL) {
            return false;
        }
        t->stops = stops;
        t->stops_capacity = capacity;
    }
    t->stops[t->n_stops++] = id;
    return true;
}

const role_keys token_roles[ROLE_COUNT] = {
    [ROLE_EOT] = { "tokenizer.ggml.eot_token_id", "eot_token" },
    [ROLE_EOM] = { "tokenizer.ggml.eom_token_id", "eom_token" },
    [ROLE_PAD] = { "tokenizer.ggml.padding_token_id", "pad_token" },
    [ROLE_SEP] = { "tokenizer.ggml.seperator_token_id", "sep_token" }, /* spelt so */
    [ROLE_MASK] = { "tokenizer.ggml.mask_token_id", "mask_token" },
    [ROLE_CLS] = { "tokenizer.ggml.cls_token_id", "cls_token" },
};

/* Spellings that end a turn or a text in published models. They count only as control tokens. */
static const char *const known_stops[] = {
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|endofturn|>",
    "<|end_of_text|>",
    "<|end_of_turn|>",
    "<end_of_utterance>",
    "</s>",
    "<EOT>",
    "<\xEF\xBD\x9C"
    "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>",
};

/* The token of known_stops[i], if it has a control token of that spelling. */
static bool find_known_stop(const tokenizer *t, size_t i, dp_token *id) {
    dp_token other;
    /* Of models that have both, <|end|> closes one of several messages of an answer. */
    const bool channels = strcmp(known_stops[i], "<|end|>") == 0 &&
                          tokenizer_find(t, STR("<|return|>"), &other) &&
                          tokenizer_find(t, STR("<|call|>"), &other);
    return !channels && tokenizer_find(t, str_of(known_stops[i]), id) &&
           (t->flags[*id] & TOKEN_SPECIAL);
}

bool tokenizer_known_stop(const tokenizer *t, dp_token id) {
    dp_token known;
    for (size_t i = 0; i < ARRAY_LEN(known_stops); i++) {
        if (find_known_stop(t, i, &known) && known == id) {
            return true;
        }
    }
    return false;
}

static bool add_known_stops(tokenizer *t, dp_error *err) {
    dp_token id;
    for (size_t i = 0; i < ARRAY_LEN(known_stops); i++) {
        if (find_known_stop(t, i, &id) && !tokenizer_add_stop(t, id, err)) {
            return false;
        }
    }
    return true;
}

bool tokenizer_reserve_templates(tokenizer *t, uint64_t n, dp_error *err) {
    t->templates =
        arena_new(&t->memory, (size_t)n + 1, sizeof(*t->templates), "chat templates", err);
    return t->templates != NULL;
}

bool tokenizer_put_template(tokenizer *t, str name, str text, dp_error *err) {
    named_template *to = &t->templates[t->n_templates];
    if (!tokenizer_copy(t, name, &to->name, err) || !tokenizer_copy(t, text, &to->text, err)) {
        return false;
    }
    t->n_templates++;
    return true;
}

bool tokenizer_finish(tokenizer *t, dp_error *err) {
    char text[8];
    uint32_t id;
    for (uint32_t code = 0; code < CHAR_TABLE; code++) {
        const size_t n = utf8_put(text, code);
        if (map_get(t->ids, (str){ text, n }, &id) && (t->flags[id] & TOKEN_MODEL)) {
            t->char_ids[code] = id;
        }
    }
    static const char digits[] = "0123456789ABCDEF";
    for (uint32_t byte = 0; byte < 256; byte++) {
        const char spelling[] = { '<', '0', 'x', digits[byte >> 4], digits[byte & 15], '>' };
        if (map_get(t->ids, (str){ spelling, sizeof(spelling) }, &id) &&
            (t->flags[id] & TOKEN_MODEL)) {
            t->byte_ids[byte] = id;
        }
    }
    for (uint32_t i = 0; i < t->normal.n + t->pre.n; i++) {
        const step *s = i < t->normal.n ? &t->normal.list[i] : &t->pre.list[i - t->normal.n];
        t->uses_regex = t->uses_regex || s->regex != NULL;
    }
    if (t->eos != DP_NO_TOKEN && !tokenizer_add_stop(t, t->eos, err)) {
        return false;
    }
    return (!t->unigram || unigram_build(t, err)) && added_build(t, err) && pieces_build(t, err) &&
           add_known_stops(t, err);
}

/* ---- opening ------------------------------------------------------------------------------- */

enum { MODEL_BYTES_MAX = 64 * 1024 * 1024 }; /* tokenizer.model of 262,144 pieces is 5 MB */

static const meta_value *container_get(const void *user, const char *key) {
    return container_meta(user, key);
}

/* Optional files of the folder: true also if they are absent. Newer folders have the template in
 * chat_template.jinja, not in a field. */
static bool optional_json(container *c, const char *name, const json_value **out, dp_error *err) {
    dp_error own = { 0 };
    *out = container_json(c, name, &own);
    return *out != NULL || own.status == DP_OK || err_set(err, own.status, "%s", own.message);
}

static bool optional_text(const container *c, const char *name, buf *out, dp_error *err) {
    dp_error own = { 0 };
    return container_text(c, name, out, &own) || own.status == DP_OK ||
           err_set(err, own.status, "%s", own.message);
}

bool tokenizer_present(container *c, bool *has, dp_error *err) {
    if (container_kind_of(c) == CONTAINER_GGUF) {
        const meta_value *v = container_meta(c, "tokenizer.ggml.model");
        *has = v != NULL && !(v->type == META_STRING && str_is(v->s, "none"));
        return true;
    }
    const json_value *described;
    buf model;
    buf_init(&model, MODEL_BYTES_MAX);
    const bool ok = optional_json(c, "tokenizer.json", &described, err) &&
                    (described != NULL || optional_text(c, "tokenizer.model", &model, err));
    *has = ok && (described != NULL || model.size > 0);
    buf_free(&model);
    return ok;
}

tokenizer *tokenizer_open(container *c, const log_sink *log, dp_error *err) {
    if (container_kind_of(c) == CONTAINER_GGUF) {
        return tokenizer_from_meta(container_get, c, log, err);
    }
    enum { TEMPLATE_BYTES_MAX = 4 * 1024 * 1024 };
    tokenizer_files files = { 0 };
    buf template, model;
    buf_init(&template, TEMPLATE_BYTES_MAX);
    buf_init(&model, MODEL_BYTES_MAX);
    tokenizer *t = NULL;
    if (!optional_json(c, "tokenizer.json", &files.tokenizer, err) ||
        !optional_json(c, "tokenizer_config.json", &files.tokenizer_config, err) ||
        !optional_json(c, "special_tokens_map.json", &files.special_tokens_map, err) ||
        !optional_json(c, "generation_config.json", &files.generation_config, err) ||
        !optional_json(c, "config.json", &files.config, err) ||
        !optional_text(c, "chat_template.jinja", &template, err)) {
        goto out;
    }
    if (files.config == NULL) {
        files.config = container_manifest(c); /* a pack without one has eos_token_id there */
    }
    files.chat_template = (str){ template.data, template.size };
    if (files.tokenizer != NULL) {
        t = tokenizer_from_json(&files, log, err);
        goto out;
    }
    if (!optional_json(c, "added_tokens.json", &files.added_tokens, err) ||
        !optional_text(c, "tokenizer.model", &model, err)) {
        goto out;
    }
    if (model.size == 0) {
        err_set(err, DP_E_UNSUPPORTED,
                "%s: neither tokenizer.json nor tokenizer.model in the folder", container_path(c));
        goto out;
    }
    files.model = (str){ model.data, model.size };
    t = tokenizer_from_spm(&files, log, err);
out:
    buf_free(&template);
    buf_free(&model);
    return t;
}

/* ---- encoding ------------------------------------------------------------------------------ */

bool encoding_init(encoding *e, const tokenizer *t, bool parse_special, dp_token *out, size_t max,
                   dp_error *err) {
    memset(e, 0, sizeof(*e));
    e->t = t;
    e->parse_special = parse_special;
    e->out = out;
    e->max = max;
    e->err = err;
    for (size_t i = 0; i < STEPS_MAX; i++) {
        buf_init(&e->level[i], TEXT_BYTES_MAX);
    }
    for (size_t i = 0; i < 2; i++) {
        buf_init(&e->normal[i], TEXT_BYTES_MAX);
        buf_init(&e->marks[i], TEXT_BYTES_MAX);
    }
    if (t->uses_regex) {
        e->regex = regex_work_new(err);
    }
    return !t->uses_regex || e->regex != NULL;
}

void encoding_free(encoding *e) {
    regex_work_free(e->regex);
    for (size_t i = 0; i < STEPS_MAX; i++) {
        buf_free(&e->level[i]);
    }
    for (size_t i = 0; i < 2; i++) {
        buf_free(&e->normal[i]);
        buf_free(&e->marks[i]);
    }
    mem_free(e->codes);
    mem_free(e->symbols);
    mem_free(e->best);
    mem_free(e->heap);
}

bool encoding_run(encoding *e, str text, const uint8_t *marks, bool add_special) {
    const tokenizer *t = e->t;
    if (text.size > TEXT_BYTES_MAX) {
        return err_set(e->err, DP_E_LIMIT, "a text of %zu bytes, the limit is %d", text.size,
                       TEXT_BYTES_MAX);
    }
    for (uint32_t i = 0; add_special && i < t->n_prefix; i++) {
        emit(e, t->prefix[i]);
    }
    if (!added_encode(e, text, marks)) {
        return false;
    }
    for (uint32_t i = 0; add_special && i < t->n_suffix; i++) {
        emit(e, t->suffix[i]);
    }
    return true;
}

bool tokenizer_encode_marked(const tokenizer *t, str text, const uint8_t *untrusted,
                             bool add_special, bool parse_special, dp_token *out, size_t max,
                             size_t *n, dp_error *err) {
    encoding e;
    *n = 0;
    if (!encoding_init(&e, t, parse_special, out, max, err)) {
        return false;
    }
    const bool ok = encoding_run(&e, text, untrusted, add_special);
    *n = e.n;
    encoding_free(&e);
    return ok;
}

bool tokenizer_encode(const tokenizer *t, str text, bool add_special, bool parse_special,
                      dp_token *out, size_t max, size_t *n, dp_error *err) {
    return tokenizer_encode_marked(t, text, NULL, add_special, parse_special, out, max, n, err);
}

/* ---- accessors ----------------------------------------------------------------------------- */

uint32_t tokenizer_n_tokens(const tokenizer *t) {
    return t->n_tokens;
}

str tokenizer_piece(const tokenizer *t, dp_token token) {
    return token < t->n_tokens ? t->piece[token] : (str){ NULL, 0 };
}

bool tokenizer_is_special(const tokenizer *t, dp_token token) {
    return token < t->n_tokens && (t->flags[token] & TOKEN_SPECIAL);
}

bool tokenizer_find(const tokenizer *t, str spelling, dp_token *out) {
    uint32_t id;
    if (!map_get(t->ids, spelling, &id)) {
        return false;
    }
    *out = id;
    return true;
}

const char *tokenizer_kind(const tokenizer *t) {
    return t->raw_bytes ? "bpe" : t->unigram ? "unigram" : "spm";
}

dp_token tokenizer_bos(const tokenizer *t) {
    return t->bos;
}

dp_token tokenizer_eos(const tokenizer *t) {
    return t->eos;
}

bool tokenizer_adds_bos(const tokenizer *t) {
    return t->n_prefix > 0 && t->prefix[0] == t->bos;
}

bool tokenizer_adds_eos(const tokenizer *t) {
    return t->n_suffix > 0 && t->suffix[t->n_suffix - 1] == t->eos;
}

const dp_token *tokenizer_stops(const tokenizer *t, size_t *n) {
    *n = t->n_stops;
    return t->stops;
}

str tokenizer_chat_template(const tokenizer *t) {
    return t->chat_template;
}
