/* tokenizer_gguf: a tokenizer from GGUF metadata, the keys tokenizer.ggml.*.
 *
 * Four models: "gpt2", byte-level BPE by merges behind a pre-tokenizer that is only named; "llama"
 * and "t5", SentencePiece's BPE by scores and its unigram model; "gemma4", merges as in
 * tokenizer.json over a SentencePiece vocabulary. The named pre-tokenizers are the patterns of the
 * models' own tokenizers; Hugging Face tokenizers is what they are compared with. A file that keeps
 * the whole tokenizer.json (tokenizer.huggingface.json) is read by that as far as both tell of the
 * same tokens: it says more. */
#include "text/text_internal.h"

typedef struct {
    tokenizer *t;
    meta_get *get;
    const void *user;
    dp_error *err;
} meta_reader;

/* ---- named pre-tokenizers ------------------------------------------------------------------ */

static const char llama3[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
static const char qwen2[] = /* digits one by one */
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|"
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
static const char qwen35[] = /* marks belong to words */
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}|"
    " ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
static const char o200k[] = /* at most one change of case in a word */
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*"
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    "\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
static const char tekken[] = /* the same without contractions, digits one by one */
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|"
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|"
    "\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
static const char bloom[] = " ?[^(\\s|.,!?\u2026\u3002\uFF0C\u3001\u0964\u06D4\u060C)]+";

enum { PATTERNS_MAX = 6 };

enum {
    PRE_WHOLE = 1, /* pieces that are tokens need no merges */
    PRE_BOS = 2,   /* bos is added where the file does not say */
    PRE_NFC = 4,   /* the models' own tokenizers compose characters first */
};

typedef struct {
    const char *name; /* a "*" at the end stands for any rest */
    unsigned flags;
    const char *patterns[PATTERNS_MAX];
} named_pre;

static const named_pre named_pres[] = {
    { "llama-bpe", PRE_WHOLE | PRE_BOS, { llama3 } },
    { "llama3", PRE_WHOLE | PRE_BOS, { llama3 } },
    { "llama-v3", PRE_WHOLE | PRE_BOS, { llama3 } },
    { "falcon3", PRE_WHOLE | PRE_BOS, { llama3 } },
    { "dbrx", 0, { llama3 } },
    { "smaug-bpe", 0, { llama3 } },
    { "chatglm-bpe", 0, { llama3 } },
    { "qwen2", PRE_NFC, { qwen2 } },
    { "deepseek-r1-qwen", 0, { qwen2 } },
    { "stablelm2", 0, { qwen2 } },
    { "megrez", 0, { qwen2 } },
    { "qwen35", PRE_NFC, { qwen35 } },
    { "gpt-2", 0, { gpt2_pattern } },
    { "phi-2", 0, { gpt2_pattern } },
    { "mpt", PRE_NFC, { gpt2_pattern } },
    { "olmo", PRE_NFC, { gpt2_pattern } },
    { "jais", 0, { gpt2_pattern } },
    { "roberta-bpe", 0, { gpt2_pattern } },
    { "jina-*", 0, { gpt2_pattern } },
    { "gigachat", 0, { gpt2_pattern } },
    { "starcoder", 0, { "\\p{N}", gpt2_pattern } },
    { "refact", 0, { "\\p{N}", gpt2_pattern } },
    { "command-r", PRE_NFC, { "\\p{N}", gpt2_pattern } },
    { "smollm", 0, { "\\p{N}", gpt2_pattern } },
    { "codeshell", 0, { "\\p{N}", gpt2_pattern } },
    { "exaone", 0, { "\\p{N}", gpt2_pattern } },
    { "minerva-7b", 0, { "\\p{N}", gpt2_pattern } },
    { "gpt-4o", 0, { o200k } },
    { "llama4", 0, { o200k } },
    { "tekken", PRE_WHOLE | PRE_BOS, { tekken } },
    { "falcon", 0, { "[\\p{P}\\$\\+<=>\\^~\\|`]+", gpt2_pattern, "[0-9][0-9][0-9]" } },
    { "deepseek-coder",
      0,
      { "[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", "[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+",
        "\\p{N}" } },
    { "deepseek-v3",
      0,
      { "\\p{N}{1,3}", "[\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+",
        "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?"
        "[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+" } },
    { "poro-chat", 0, { bloom } },
    { "bloom", 0, { bloom } },
    { "gpt3-finnish", 0, { bloom } },
    { "viking", 0, { bloom, "\\p{N}" } },
    { "chameleon",
      0,
      { "<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", "([\\t\\n]|    |  )", "\\p{N}",
        "[\\p{P}!-/:-@\\[-`{-~]", gpt2_pattern } },
    { "default", 0, { "[\\p{P}\\$\\+<=>\\^~\\|]+", gpt2_pattern, "\\p{N}+", "[0-9][0-9][0-9]" } },
};

bool pre_name_at(size_t i, pre_name *out) {
    if (i >= ARRAY_LEN(named_pres)) {
        return false;
    }
    *out = (pre_name){ .name = named_pres[i].name,
                       .whole = named_pres[i].flags & PRE_WHOLE,
                       .nfc = named_pres[i].flags & PRE_NFC };
    return true;
}

static bool add_pre_steps(const named_pre *pre, step_list *steps, dp_error *err) {
    for (size_t i = 0; i < PATTERNS_MAX && pre->patterns[i] != NULL; i++) {
        if (!step_add_regex(steps, str_of(pre->patterns[i]), SPLIT_ISOLATED, pre->name, err)) {
            return false;
        }
    }
    return step_add(steps, STEP_BYTES, pre->name, err) != NULL;
}

bool pre_name_steps(size_t i, step_list *pre, dp_error *err) {
    return add_pre_steps(&named_pres[i], pre, err);
}

static const named_pre *find_pre(str name) {
    for (size_t i = 0; i < ARRAY_LEN(named_pres); i++) {
        const char *known = named_pres[i].name;
        const size_t n = strlen(known);
        if (known[n - 1] == '*' ? name.size >= n - 1 && memcmp(name.data, known, n - 1) == 0
                                : str_is(name, known)) {
            return &named_pres[i];
        }
    }
    return NULL;
}

/* ---- metadata ------------------------------------------------------------------------------ */

static const meta_value *meta_find(const meta_reader *r, const char *key) {
    return r->get(r->user, key);
}

static bool wrong_meta(const meta_reader *r, const char *key, const char *expected) {
    return err_set(r->err, DP_E_FORMAT, "%s: expected %s", key, expected);
}

static bool meta_text(const meta_reader *r, const char *key, str *out, bool *found) {
    const meta_value *v = meta_find(r, key);
    *found = v != NULL;
    if (v == NULL) {
        return true;
    }
    if (v->type != META_STRING) {
        return wrong_meta(r, key, "a string");
    }
    *out = v->s;
    return true;
}

static bool meta_flag(const meta_reader *r, const char *key, bool fallback, bool *out) {
    const meta_value *v = meta_find(r, key);
    *out = fallback;
    if (v == NULL) {
        return true;
    }
    if (v->type != META_BOOL) {
        return wrong_meta(r, key, "true or false");
    }
    *out = v->b;
    return true;
}

/* A token id; -1 in any width means none. An absent key leaves `fallback` if that is a control
 * token: which is what readers assume of old files. */
static bool meta_token(const meta_reader *r, const char *key, dp_token fallback, dp_token *out) {
    const tokenizer *t = r->t;
    const meta_value *v = meta_find(r, key);
    *out = DP_NO_TOKEN;
    if (v == NULL) {
        if (fallback < t->n_tokens && (t->flags[fallback] & TOKEN_SPECIAL)) {
            *out = fallback;
        }
        return true;
    }
    if (v->type != META_UINT && v->type != META_INT) {
        return wrong_meta(r, key, "a token id");
    }
    const uint64_t id = v->type == META_UINT ? v->u : (uint64_t)v->i;
    if (id == UINT32_MAX || id == UINT64_MAX) {
        return true;
    }
    if (id >= t->n_tokens) {
        return err_set(r->err, DP_E_FORMAT, "%s: token %llu, the vocabulary has %u", key,
                       (unsigned long long)id, t->n_tokens);
    }
    *out = (dp_token)id;
    return true;
}

/* An array of `n` elements, any number if n is 0; NULL and an error if it is something else. */
static const meta_value *meta_list(const meta_reader *r, const char *key, uint32_t n) {
    const meta_value *v = meta_find(r, key);
    if (v == NULL) {
        err_set(r->err, DP_E_FORMAT, "%s is missing", key);
        return NULL;
    }
    if (v->type != META_ARRAY) {
        wrong_meta(r, key, "an array");
        return NULL;
    }
    if (n > 0 && v->n != n) {
        err_set(r->err, DP_E_FORMAT, "%s has %u elements, the vocabulary %u", key, v->n, n);
        return NULL;
    }
    return v;
}

/* ---- vocabulary ---------------------------------------------------------------------------- */

/* llama.cpp's readers strip the whitespace behind Phi-3's control tokens by the model's name, for
 * the file does not keep the tokens' own flags. */
static bool is_phi3(const meta_reader *r) {
    str name = STR("");
    bool found;
    if (!meta_text(r, "general.name", &name, &found) || !found) {
        return false;
    }
    for (size_t i = 0; i + 4 <= name.size; i++) {
        const char *s = name.data + i;
        if ((s[0] | 0x20) == 'p' && (s[1] | 0x20) == 'h' && (s[2] | 0x20) == 'i' &&
            (s[3] == '3' || (s[3] == '-' && i + 5 <= name.size && s[4] == '3'))) {
            return true;
        }
    }
    return false;
}

static const char type_key[] = "tokenizer.ggml.token_type";

/* The types of n tokens, NULL if the file has none. */
static bool token_types(const meta_reader *r, uint32_t n, const meta_value **types) {
    *types = NULL;
    if (meta_find(r, type_key) == NULL) {
        return true;
    }
    *types = meta_list(r, type_key, n);
    return *types != NULL && ((*types)->element == META_INT || (*types)->element == META_UINT ||
                              wrong_meta(r, type_key, "integers"));
}

static bool read_tokens(meta_reader *r) {
    tokenizer *t = r->t;
    const meta_value *tokens = meta_list(r, "tokenizer.ggml.tokens", 0), *types = NULL;
    if (tokens == NULL) {
        return false;
    }
    if (tokens->element != META_STRING) {
        return wrong_meta(r, "tokenizer.ggml.tokens", "strings");
    }
    if (!tokenizer_reserve(t, tokens->n, r->err) || !token_types(r, tokens->n, &types)) {
        return false;
    }
    const bool strips = is_phi3(r);
    /* SentencePiece's are part of the text that spaces are marked in; control tokens part it. */
    const uint16_t inside = t->raw_bytes ? 0 : TOKEN_NORMALIZED;
    const uint16_t outside =
        t->unigram ? 0 : TOKEN_MODEL; /* of what merging leaves out by itself */
    for (uint32_t i = 0; i < tokens->n; i++) {
        const str spelling = tokens->strings[i];
        uint16_t flags = TOKEN_MODEL;
        switch (types != NULL ? types->ints[i] : GGUF_NORMAL) {
        case GGUF_UNKNOWN:
        case GGUF_CONTROL:
            flags = outside | TOKEN_ADDED | TOKEN_SPECIAL;
            if (strips && !str_is(spelling, "<unk>") && !str_is(spelling, "<s>") &&
                !str_is(spelling, "<|endoftext|>")) {
                flags |= TOKEN_RSTRIP;
            }
            break;
        case GGUF_USER:
            flags = TOKEN_MODEL | TOKEN_ADDED | inside;
            break;
        case GGUF_BYTE:
            flags = TOKEN_MODEL | TOKEN_BYTE;
            break;
        case 0: /* undefined */
        case GGUF_NORMAL:
            break;
        case GGUF_UNUSED:
            flags = outside | TOKEN_UNUSED;
            break;
        default:
            return err_set(r->err, DP_E_FORMAT, "%s: token %u has type %lld, the last known is %d",
                           type_key, i, (long long)types->ints[i], GGUF_BYTE);
        }
        if (!tokenizer_put(t, i, spelling, flags, r->err)) {
            return false;
        }
    }
    return true;
}

static bool read_scores(meta_reader *r) {
    static const char key[] = "tokenizer.ggml.scores";
    tokenizer *t = r->t;
    const meta_value *scores = meta_list(r, key, t->n_tokens);
    if (scores == NULL) {
        return false;
    }
    if (scores->element != META_FLOAT) {
        return wrong_meta(r, key, "floats");
    }
    return tokenizer_set_scores(t, scores->floats, r->err);
}

static bool read_meta_merges(meta_reader *r) {
    static const char key[] = "tokenizer.ggml.merges";
    tokenizer *t = r->t;
    const meta_value *merges = meta_list(r, key, 0);
    if (merges == NULL) {
        return false;
    }
    if (merges->element != META_STRING) {
        return wrong_meta(r, key, "strings");
    }
    if (!merges_new(&t->merges, merges->n, r->err)) {
        return false;
    }
    buf joined;
    buf_init(&joined, NAME_BYTES_MAX);
    uint32_t n_strange = 0;
    bool ok = true;
    for (uint32_t i = 0; ok && i < merges->n; i++) {
        const str line = merges->strings[i];
        /* The left token may itself start with a blank, so the search starts behind it. */
        const char *space = line.size > 1 ? memchr(line.data + 1, ' ', line.size - 1) : NULL;
        if (space == NULL || space + 1 == line.data + line.size ||
            memchr(space + 1, ' ', line.size - (size_t)(space + 1 - line.data)) != NULL) {
            ok = err_set(r->err, DP_E_FORMAT, "%s: merge %u is no pair of tokens: \"%.*s\"", key, i,
                         STR_ARG(line));
            break;
        }
        const str left = { line.data, (size_t)(space - line.data) };
        const str right = { space + 1, line.size - left.size - 1 };
        dp_token a, b, both;
        buf_reset(&joined);
        buf_add_str(&joined, left);
        buf_add_str(&joined, right);
        if (!buf_ok(&joined, "a merge", r->err)) {
            ok = false;
        } else if (tokenizer_find(t, left, &a) && tokenizer_find(t, right, &b) &&
                   tokenizer_find(t, (str){ joined.data, joined.size }, &both)) {
            merges_put(&t->merges, a, b, i, both);
        } else {
            n_strange++;
        }
    }
    buf_free(&joined);
    if (ok && n_strange > 0) {
        log_line(&t->log, DP_LOG_WARNING,
                 "%s: %u of %u merges are of tokens that the vocabulary does "
                 "not have",
                 key, n_strange, merges->n);
    }
    return ok;
}

/* ---- the models ---------------------------------------------------------------------------- */

static bool read_affixes(meta_reader *r, bool adds_bos, bool adds_eos) {
    bool bos, eos;
    if (!meta_flag(r, "tokenizer.ggml.add_bos_token", adds_bos, &bos) ||
        !meta_flag(r, "tokenizer.ggml.add_eos_token", adds_eos, &eos)) {
        return false;
    }
    tokenizer_add_affixes(r->t, bos, eos);
    return true;
}

static bool read_gpt2(meta_reader *r) {
    tokenizer *t = r->t;
    str name = STR("default");
    bool found;
    if (!meta_text(r, "tokenizer.ggml.pre", &name, &found)) {
        return false;
    }
    const named_pre *pre = find_pre(name);
    if (pre == NULL) {
        return err_set(r->err, DP_E_UNSUPPORTED,
                       "tokenizer.ggml.pre: pre-tokenizer \"%.*s\" is not supported",
                       STR_ARG(name));
    }
    if (!found || str_is(name, "default")) {
        log_line(&t->log, DP_LOG_WARNING,
                 "the file does not name its pre-tokenizer: words may be cut "
                 "otherwise than in training");
    }
    if ((pre->flags & PRE_NFC) && step_add(&t->normal, STEP_NFC, pre->name, r->err) == NULL) {
        return false;
    }
    if (!add_pre_steps(pre, &t->pre, r->err) || decode_add(t, DECODE_BYTES, r->err) == NULL) {
        return false;
    }
    t->ignore_merges = pre->flags & PRE_WHOLE;
    return read_meta_merges(r) && meta_token(r, "tokenizer.ggml.bos_token_id", 11, &t->bos) &&
           meta_token(r, "tokenizer.ggml.eos_token_id", 11, &t->eos) &&
           meta_token(r, "tokenizer.ggml.unknown_token_id", DP_NO_TOKEN, &t->unk) &&
           read_affixes(r, pre->flags & PRE_BOS, false);
}

/* A precompiled_charsmap, an array of bytes of either sign; *out stays NULL if there is none. */
static bool read_charsmap(const meta_reader *r, const charsmap **out) {
    static const char key[] = "tokenizer.ggml.precompiled_charsmap";
    if (meta_find(r, key) == NULL) {
        return true;
    }
    const meta_value *v = meta_list(r, key, 0);
    if (v == NULL) {
        return false;
    }
    if (v->element != META_INT && v->element != META_UINT) {
        return wrong_meta(r, key, "bytes");
    }
    char *bytes = mem_new(v->n + 1u, 1, key, r->err);
    if (bytes == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < v->n; i++) {
        bytes[i] = (char)(uint8_t)v->ints[i];
    }
    *out = charsmap_new(r->t, (str){ bytes, v->n }, r->err);
    mem_free(bytes);
    return *out != NULL;
}

/* SentencePiece's two models: "llama" is BPE, "t5" unigram. */
static bool read_sentencepiece(meta_reader *r, bool unigram) {
    tokenizer *t = r->t;
    sentence_options options = { 0 };
    if (!read_scores(r) || !read_charsmap(r, &options.charsmap) ||
        !meta_flag(r, "tokenizer.ggml.add_space_prefix", true, &options.prefixes) ||
        !meta_flag(r, "tokenizer.ggml.remove_extra_whitespaces", false, &options.trims) ||
        !meta_flag(r, "tokenizer.ggml.escape_whitespaces", true, &options.escapes) ||
        !tokenizer_add_sentence(t, options, r->err)) {
        return false;
    }
    t->byte_fallback = true;
    return meta_token(r, "tokenizer.ggml.bos_token_id", unigram ? DP_NO_TOKEN : 1, &t->bos) &&
           meta_token(r, "tokenizer.ggml.eos_token_id", unigram ? 1 : 2, &t->eos) &&
           meta_token(r, "tokenizer.ggml.unknown_token_id", unigram ? 2 : 0, &t->unk) &&
           read_affixes(r, !unigram, unigram);
}

/* Merges of whole texts: spaces are marked as SentencePiece does, and only lines part them. */
static bool read_gemma4(meta_reader *r) {
    tokenizer *t = r->t;
    const sentence_options options = { .escapes = true };
    if (!tokenizer_add_sentence(t, options, r->err)) {
        return false;
    }
    t->byte_fallback = true;
    t->unk_surface = (str){ NULL, 0 };
    return step_add_regex(&t->pre, STR("[^\\n]+|\\n+"), SPLIT_ISOLATED, "gemma4", r->err) &&
           read_meta_merges(r) && meta_token(r, "tokenizer.ggml.bos_token_id", 2, &t->bos) &&
           meta_token(r, "tokenizer.ggml.eos_token_id", 1, &t->eos) &&
           meta_token(r, "tokenizer.ggml.unknown_token_id", 3, &t->unk) &&
           read_affixes(r, true, false);
}

/* ---- what all models have ------------------------------------------------------------------ */

static bool read_roles(meta_reader *r) {
    tokenizer *t = r->t;
    if (t->eos != DP_NO_TOKEN && !tokenizer_add_stop(t, t->eos, r->err)) {
        return false;
    }
    for (size_t i = 0; i < ROLE_COUNT; i++) {
        if (i <= ROLE_EOM) {
            if (!meta_token(r, token_roles[i].meta, DP_NO_TOKEN, &t->roles[i]) ||
                (t->roles[i] != DP_NO_TOKEN && !tokenizer_add_stop(t, t->roles[i], r->err))) {
                return false;
            }
            continue;
        }
        const meta_value *v = meta_find(r, token_roles[i].meta); /* no encoding depends on it */
        if (v != NULL && (v->type == META_UINT || v->type == META_INT) && v->u < t->n_tokens) {
            t->roles[i] = (dp_token)v->u;
        }
    }
    return true;
}

/* tokenizer.chat_template, and tokenizer.chat_template.NAME for the names of a list. */
static bool read_templates(meta_reader *r) {
    tokenizer *t = r->t;
    str text = STR("");
    bool found, ok = true;
    if (!meta_text(r, "tokenizer.chat_template", &text, &found) ||
        (found && !tokenizer_copy(t, text, &t->chat_template, r->err))) {
        return false;
    }
    const meta_value *names = meta_find(r, "tokenizer.chat_templates");
    if (names == NULL || names->type != META_ARRAY || names->element != META_STRING) {
        return true;
    }
    if (!tokenizer_reserve_templates(t, names->n, r->err)) {
        return false;
    }
    buf key;
    buf_init(&key, NAME_BYTES_MAX);
    for (uint32_t i = 0; ok && i < names->n; i++) {
        const str name = names->strings[i];
        buf_reset(&key);
        buf_add_str(&key, STR("tokenizer.chat_template."));
        buf_add_str(&key, name);
        ok = buf_ok(&key, "the name of a chat template", r->err) &&
             meta_text(r, key.data, &text, &found) &&
             (!found || tokenizer_put_template(t, name, text, r->err));
    }
    buf_free(&key);
    return ok;
}

/* ---- tokenizer.huggingface.json ------------------------------------------------------------ */

static const char described_key[] = "tokenizer.huggingface.json";

/* Whether both tell of the same tokens: all of r->t are in the list under their ids, and what the
 * list has beyond is unused. */
static bool same_tokens(const meta_reader *r) {
    const tokenizer *t = r->t;
    const meta_value *tokens = meta_list(r, "tokenizer.ggml.tokens", 0), *types;
    if (tokens == NULL || !token_types(r, tokens->n, &types)) {
        return false;
    }
    if (tokens->element != META_STRING) {
        return wrong_meta(r, "tokenizer.ggml.tokens", "strings");
    }
    if (t->n_tokens > tokens->n) {
        return err_set(r->err, DP_E_FORMAT, "it has %u tokens, tokenizer.ggml.tokens %u",
                       t->n_tokens, tokens->n);
    }
    for (uint32_t i = 0; i < tokens->n; i++) {
        const bool present = i < t->n_tokens && (t->flags[i] & TOKEN_PRESENT);
        const str ours = present ? t->spelling[i] : STR("");
        if (present ? !str_equal(ours, tokens->strings[i])
                    : types == NULL || types->ints[i] != GGUF_UNUSED) {
            return err_set(r->err, DP_E_FORMAT,
                           "its token %u is \"%.*s\", tokenizer.ggml.tokens has \"%.*s\"", i,
                           STR_ARG(ours), STR_ARG(tokens->strings[i]));
        }
    }
    return true;
}

/* NULL if the file has no such key, or none to rely on, which is told: the other keys say all that
 * is needed. False only for want of memory. */
static bool open_described(const meta_reader *r, const log_sink *log, tokenizer **out,
                           bool *has_template) {
    const meta_value *v = meta_find(r, described_key);
    dp_error own = { 0 };
    *out = NULL;
    if (v == NULL) {
        return true;
    }
    const str text = v->type == META_STRING ? v->s : STR("");
    json *doc = json_open(text, described_key, &own);
    tokenizer *t = NULL;
    if (doc != NULL) {
        t = tokenizer_described(json_root(doc), log, has_template, &own);
        json_close(doc);
    }
    const meta_reader second = { .t = t, .get = r->get, .user = r->user, .err = &own };
    if (t != NULL && !same_tokens(&second)) {
        tokenizer_close(t);
        t = NULL;
    }
    if (t == NULL && own.status == DP_E_MEMORY) {
        return err_set(r->err, own.status, "%s", own.message);
    }
    if (t == NULL) {
        log_line(log, DP_LOG_WARNING, "%s is not used: %s", described_key, own.message);
    } else {
        t->source = described_key;
    }
    *out = t;
    return true;
}

/* Puts a token at an end of the text, or takes it away, as the file's keys want it. */
static bool settle_affix(meta_reader *r, const char *key, bool fallback, dp_token id, bool behind) {
    tokenizer *t = r->t;
    dp_token *list = behind ? t->suffix : t->prefix;
    uint32_t *n = behind ? &t->n_suffix : &t->n_prefix;
    const bool has = id != DP_NO_TOKEN && *n > 0 && list[behind ? *n - 1 : 0] == id;
    bool wanted;
    if (!meta_flag(r, key, fallback || has, &wanted)) {
        return false;
    }
    if (id == DP_NO_TOKEN || wanted == has) {
        return true;
    }
    if (wanted && *n == AFFIX_MAX) {
        return err_set(r->err, DP_E_LIMIT, "%s: more than %d tokens %s a text", described_key,
                       AFFIX_MAX, behind ? "behind" : "before");
    }
    if (!behind) {
        memmove(list + wanted, list + has, (*n - has) * sizeof(*list));
    }
    *n = *n - has + wanted;
    if (wanted) {
        list[behind ? *n - 1 : 0] = id;
    }
    return true;
}

/* What GGUF's own keys say goes before what tokenizer.json says of the same: they are what one
 * edits in such a file. */
static bool read_described_ends(meta_reader *r, str model, bool has_template) {
    tokenizer *t = r->t;
    const bool adds_bos = !has_template && (str_is(model, "llama") || str_is(model, "gemma4"));
    return meta_token(r, "tokenizer.ggml.bos_token_id", DP_NO_TOKEN, &t->bos) &&
           meta_token(r, "tokenizer.ggml.eos_token_id", DP_NO_TOKEN, &t->eos) &&
           settle_affix(r, "tokenizer.ggml.add_bos_token", adds_bos, t->bos, false) &&
           settle_affix(r, "tokenizer.ggml.add_eos_token", false, t->eos, true);
}

/* ---- all ----------------------------------------------------------------------------------- */

static bool read_model_name(const meta_reader *r, str *model) {
    bool found;
    if (!meta_text(r, "tokenizer.ggml.model", model, &found)) {
        return false;
    }
    if (!found) {
        return err_set(r->err, DP_E_FORMAT,
                       "tokenizer.ggml.model is missing: the file has no tokenizer");
    }
    return str_is(*model, "gpt2") || str_is(*model, "llama") || str_is(*model, "t5") ||
           str_is(*model, "gemma4") ||
           err_set(r->err, DP_E_UNSUPPORTED,
                   "tokenizer.ggml.model: tokenizer \"%.*s\" is not supported", STR_ARG(*model));
}

static bool read_keys(meta_reader *r, str model) {
    tokenizer *t = r->t;
    t->unigram = str_is(model, "t5");
    t->raw_bytes = str_is(model, "gpt2");
    return read_tokens(r) && (t->raw_bytes              ? read_gpt2(r)
                              : str_is(model, "gemma4") ? read_gemma4(r)
                                                        : read_sentencepiece(r, t->unigram));
}

tokenizer *tokenizer_from_meta(meta_get *get, const void *user, const log_sink *log,
                               dp_error *err) {
    meta_reader r = { .get = get, .user = user, .err = err };
    str model = STR("");
    bool has_template = false, ok;
    if (!read_model_name(&r, &model) || !open_described(&r, log, &r.t, &has_template)) {
        return NULL;
    }
    if (r.t != NULL) {
        ok = read_described_ends(&r, model, has_template);
    } else {
        r.t = tokenizer_new("GGUF", log, err);
        ok = r.t != NULL && read_keys(&r, model);
    }
    if (!ok || !read_roles(&r) || !read_templates(&r) || !tokenizer_finish(r.t, err)) {
        tokenizer_close(r.t);
        return NULL;
    }
    return r.t;
}
