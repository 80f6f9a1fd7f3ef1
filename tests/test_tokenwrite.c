/* test_tokenwrite: tokenizers written as tokenizer.json and as GGUF metadata, and read again.
 *
 * Every vocabulary of tests/vectors/tokenizers goes out and comes back; what comes back has to make
 * the same tokens of the 530 strings there, and the same texts of those. */
#include "tests/test.h"
#include "text/text_internal.h"

#include <stdio.h>

/* ---- metadata in memory -------------------------------------------------------------------- */

enum { KEYS_MAX = 64 };

typedef struct {
    test *t;
    struct {
        const char *key;
        meta_value value;
        const char *kind; /* of the call: what GGUF would have it as */
    } entries[KEYS_MAX];
    size_t n;
    const char *hidden; /* a key that the reader is not told of, or NULL */
} meta_store;

static meta_value *store_key(void *user, const char *key, const char *kind) {
    meta_store *s = user;
    CHECK_MSG(s->t, s->n < KEYS_MAX, "too many keys");
    for (size_t i = 0; i < s->n; i++)
        CHECK_MSG(s->t, strcmp(s->entries[i].key, key) != 0, "%s twice", key);
    s->entries[s->n].key = test_printf(s->t, "%s", key);
    s->entries[s->n].kind = kind;
    return &s->entries[s->n++].value;
}

static str store_copy(meta_store *s, str text) {
    char *copy = test_alloc(s->t, text.size + 1, 1);
    if (text.size > 0) memcpy(copy, text.data, text.size);
    return (str){ copy, text.size };
}

static void store_u32(void *user, const char *key, uint32_t value) {
    *store_key(user, key, "u32") = (meta_value){ .type = META_UINT, .u = value };
}

static void store_i32(void *user, const char *key, int32_t value) {
    *store_key(user, key, "i32") = (meta_value){ .type = META_INT, .i = value };
}

static void store_f32(void *user, const char *key, float value) {
    *store_key(user, key, "f32") = (meta_value){ .type = META_FLOAT, .f = (double)value };
}

static void store_flag(void *user, const char *key, bool value) {
    *store_key(user, key, "bool") = (meta_value){ .type = META_BOOL, .b = value };
}

static void store_string(void *user, const char *key, str value) {
    const str copy = store_copy(user, value);
    *store_key(user, key, "string") = (meta_value){ .type = META_STRING, .s = copy };
}

static void store_strings(void *user, const char *key, const str *values, uint32_t n) {
    meta_store *s = user;
    str *copy = test_alloc(s->t, n + 1, sizeof(*copy));
    for (uint32_t i = 0; i < n; i++)
        copy[i] = store_copy(s, values[i]);
    *store_key(user, key, "strings") =
        (meta_value){ .type = META_ARRAY, .element = META_STRING, .n = n, .strings = copy };
}

static void store_ints(void *user, const char *key, const char *kind, meta_type element,
                       const int64_t *values, uint32_t n) {
    *store_key(user, key, kind) =
        (meta_value){ .type = META_ARRAY, .element = element, .n = n, .ints = values };
}

static void store_i32s(void *user, const char *key, const int32_t *values, uint32_t n) {
    int64_t *copy = test_alloc(((meta_store *)user)->t, n + 1, sizeof(*copy));
    for (uint32_t i = 0; i < n; i++)
        copy[i] = values[i];
    store_ints(user, key, "i32s", META_INT, copy, n);
}

static void store_u32s(void *user, const char *key, const uint32_t *values, uint32_t n) {
    int64_t *copy = test_alloc(((meta_store *)user)->t, n + 1, sizeof(*copy));
    for (uint32_t i = 0; i < n; i++)
        copy[i] = values[i];
    store_ints(user, key, "u32s", META_UINT, copy, n);
}

static void store_flags(void *user, const char *key, const bool *values, uint32_t n) {
    int64_t *copy = test_alloc(((meta_store *)user)->t, n + 1, sizeof(*copy));
    for (uint32_t i = 0; i < n; i++)
        copy[i] = values[i];
    store_ints(user, key, "bools", META_BOOL, copy, n);
}

static void store_bytes(void *user, const char *key, const uint8_t *values, uint32_t n) {
    int64_t *copy = test_alloc(((meta_store *)user)->t, n + 1, sizeof(*copy));
    for (uint32_t i = 0; i < n; i++)
        copy[i] = values[i];
    store_ints(user, key, "bytes", META_UINT, copy, n);
}

static void store_f32s(void *user, const char *key, const float *values, uint32_t n) {
    double *copy = test_alloc(((meta_store *)user)->t, n + 1, sizeof(*copy));
    for (uint32_t i = 0; i < n; i++)
        copy[i] = (double)values[i];
    *store_key(user, key, "f32s") =
        (meta_value){ .type = META_ARRAY, .element = META_FLOAT, .n = n, .floats = copy };
}

static meta_sink sink_into(meta_store *s) {
    return (meta_sink){ .user = s,
                        .u32 = store_u32,
                        .i32 = store_i32,
                        .f32 = store_f32,
                        .flag = store_flag,
                        .string = store_string,
                        .strings = store_strings,
                        .i32s = store_i32s,
                        .u32s = store_u32s,
                        .f32s = store_f32s,
                        .flags = store_flags,
                        .bytes = store_bytes };
}

static const meta_value *store_get(const void *user, const char *key) {
    const meta_store *s = user;
    for (size_t i = 0; i < s->n; i++) {
        if (strcmp(s->entries[i].key, key) == 0)
            return s->hidden != NULL && strcmp(key, s->hidden) == 0 ? NULL : &s->entries[i].value;
    }
    return NULL;
}

/* ---- opening ------------------------------------------------------------------------------- */

static const char whole_json[] = "tokenizer.huggingface.json";

/* What a tokenizer says in the log. */
typedef struct {
    char text[2000];
    size_t n;
} said;

static void say(void *user, dp_log_level level, const char *text) {
    said *s = user;
    if (level != DP_LOG_WARNING || strlen(text) + 2 > sizeof(s->text) - s->n) return;
    s->n += (size_t)snprintf(s->text + s->n, sizeof(s->text) - s->n, "%s\n", text);
}

static tokenizer *open_json(str text, str config, const log_sink *log, dp_error *err) {
    json *doc = json_open(text, "tokenizer.json", err);
    json *beside = doc ? json_open(config, "tokenizer_config.json", err) : NULL;
    const tokenizer_files files = { .tokenizer = doc ? json_root(doc) : NULL,
                                    .tokenizer_config = beside ? json_root(beside) : NULL };
    tokenizer *k = beside != NULL ? tokenizer_from_json(&files, log, err) : NULL;
    json_close(beside);
    json_close(doc);
    return k;
}

/* Written as tokenizer.json with its settings and read again. With --dump=FOLDER the files stay. */
static tokenizer *reopen_json(test *t, const tokenizer *k) {
    buf text, config;
    buf_init(&text, JSON_BYTES_MAX);
    buf_init(&config, JSON_BYTES_MAX);
    tokenizer *again = NULL;
    if (tokenizer_write_json(k, &text, &t->err) && tokenizer_write_config(k, &config, &t->err)) {
        again = open_json((str){ text.data, text.size }, (str){ config.data, config.size }, NULL,
                          &t->err);
    }
    CHECK_MSG(t, again != NULL, "%s", t->err.message);
    const char *dump = test_option("dump");
    if (dump != NULL && text.size > 0) {
        const char *path = test_printf(t, "%s/%s", dump, t->row);
        CHECK(t, file_write_atomic(path, text.data, text.size, &t->err));
    }
    buf_free(&text);
    buf_free(&config);
    return again;
}

/* ---- comparing ----------------------------------------------------------------------------- */

enum { IDS_MAX = 8192 };

static bool same_text(test *t, const tokenizer *a, const tokenizer *b, const dp_token *ids,
                      size_t n, bool special) {
    buf x, y;
    buf_init(&x, 1 << 20);
    buf_init(&y, 1 << 20);
    CHECK(t, tokenizer_decode(a, ids, n, special, &x, &t->err));
    CHECK(t, tokenizer_decode(b, ids, n, special, &y, &t->err));
    const bool same = str_equal((str){ x.data, x.size }, (str){ y.data, y.size });
    buf_free(&x);
    buf_free(&y);
    return same;
}

/* How many of the strings do not make the same tokens, or those not the same text. */
static uint32_t count_different(test *t, const tokenizer *a, const tokenizer *b,
                                const json_value *strings) {
    static dp_token x[IDS_MAX], y[IDS_MAX];
    uint32_t n = 0;
    for (json_iter it = json_each(strings); json_next(&it);) {
        str text;
        bool same = true;
        CHECK(t, json_string(it.value, &text));
        for (int special = 0; special < 2; special++) {
            size_t n_x, n_y;
            CHECK(t, tokenizer_encode(a, text, special, special, x, IDS_MAX, &n_x, &t->err));
            CHECK(t, tokenizer_encode(b, text, special, special, y, IDS_MAX, &n_y, &t->err));
            CHECK(t, n_x <= IDS_MAX);
            same = same && n_x == n_y && (n_x == 0 || memcmp(x, y, n_x * sizeof(*x)) == 0) &&
                   same_text(t, a, b, x, n_x, true) && same_text(t, a, b, x, n_x, false);
        }
        n += !same;
    }
    return n;
}

static void check_same_ends(test *t, const tokenizer *a, const tokenizer *b) {
    CHECK_U64(t, tokenizer_bos(b), tokenizer_bos(a));
    CHECK_U64(t, tokenizer_eos(b), tokenizer_eos(a));
    CHECK(t, a->n_prefix == b->n_prefix && a->n_suffix == b->n_suffix);
    size_t n_a, n_b;
    const dp_token *stops = tokenizer_stops(a, &n_a), *others = tokenizer_stops(b, &n_b);
    CHECK_U64(t, n_b, n_a);
    for (size_t i = 0; i < n_a; i++) {
        bool found = false;
        for (size_t j = 0; j < n_b; j++)
            found = found || others[j] == stops[i];
        CHECK_MSG(t, found, "token %u ends nothing any more", stops[i]);
    }
    for (dp_token id = 0; id < min_u32(tokenizer_n_tokens(a), tokenizer_n_tokens(b)); id++)
        CHECK(t, tokenizer_is_special(a, id) == tokenizer_is_special(b, id));
    CHECK(t, str_equal(tokenizer_chat_template(a), tokenizer_chat_template(b)));
}

/* ---- every vocabulary ---------------------------------------------------------------------- */

typedef struct {
    const char *name;
    /* Texts that differ after tokenizer.json, after GGUF's own keys, and the name that these have
     * for the pre-tokenizer. */
    uint32_t by_json, by_keys;
    const char *pre;
} round_trip;

typedef struct {
    container *container;
    tokenizer *tokenizer;
} opened;

static opened open_named(test *t, const char *name) {
    opened o = { 0 };
    const char *path = test_vector(t, test_printf(t, "tokenizers/%s", name));
    test_row(t, "%s", name);
    for (char *c = t->row; *c != '\0'; c++)
        if (*c == '/') *c = '.';
    if (str_ends(str_of(name), ".model")) {
        const tokenizer_files files = { .model = test_read_file(t, path) };
        o.tokenizer = tokenizer_from_spm(&files, NULL, &t->err);
    } else {
        o.container = container_open(path, true, &t->err);
        if (o.container != NULL) o.tokenizer = tokenizer_open(o.container, NULL, &t->err);
    }
    CHECK_MSG(t, o.tokenizer != NULL, "%s", t->err.message);
    return o;
}

static void close_opened(opened o) {
    tokenizer_close(o.tokenizer);
    container_close(o.container);
}

/* What tokenizer.json and GGUF can say is the same in their words. The exceptions, by the 530
 * strings:
 *   spm, unigram*       a text that is nothing but a user-defined token (make_unprefix)
 *   unigram             charsmaps in the way of Hugging Face: combining marks, symbols that a
 *                       charsmap would change; and one space, not all, goes from a decoded text's
 *                       front, which shows behind an unknown token that is not spelt
 *   unigram*            ways of equal probability (sums in double for float)
 *   GGUF by its keys    normalization and spaces before byte-level pieces (added, gpt2-prefix); the
 *                       digits of falcon; where SentencePiece's spaces, symbols and unknown tokens
 *                       are not as tokenizer.json says (all others) */
static const round_trip folders[] = {
    { "added", 0, 27, "dbrx" },
    { "bloom", 0, 0, "poro-chat" },
    { "chameleon", 0, 0, "chameleon" },
    { "dbrx", 0, 0, "dbrx" },
    { "deepseek-coder", 0, 0, "deepseek-coder" },
    { "deepseek-v3", 0, 0, "deepseek-v3" },
    { "default", 0, 0, "default" },
    { "falcon", 0, 39, "falcon" },
    { "gemma-json", 0, 37, "default" },
    { "gpt2", 0, 0, "gpt-2" },
    { "gpt2-prefix", 0, 504, "gpt-2" },
    { "llama3", 0, 0, "llama-bpe" },
    { "o200k", 0, 0, "gpt-4o" },
    { "phi3", 0, 8, "default" },
    { "qwen2", 0, 0, "qwen2" },
    { "qwen35", 0, 0, "qwen35" },
    { "smollm", 0, 0, "starcoder" },
    { "spm-metaspace", 0, 34, "default" },
    { "spm-prepend", 0, 4, "default" },
    { "tekken", 0, 0, "tekken" },
    { "unigram-bytes-json", 0, 50, "default" },
    { "unigram-json", 0, 286, "default" },
    { "viking", 0, 0, "viking" },
    { "bytes-288", 0, 0, "dbrx" },
    { "spm-320/tokenizer.model", 0, 0, "default" },
    { "unigram/tokenizer.model", 27, 0, "default" },
};

/* From GGUF: the second number is that of keys made anew, not copied. */
static const round_trip files[] = {
    { "chameleon/vocab.gguf", 0, 0, "chameleon" }, { "default/vocab.gguf", 0, 0, "default" },
    { "falcon/vocab.gguf", 0, 0, "falcon" },       { "gemma/vocab.gguf", 0, 0, "default" },
    { "gemma-json/vocab.gguf", 0, 0, "gemma4" },   { "llama3/vocab.gguf", 0, 0, "llama-bpe" },
    { "qwen2/vocab.gguf", 0, 0, "qwen2" },         { "spm/vocab.gguf", 1, 0, "default" },
    { "unigram/vocab.gguf", 27, 0, "default" },    { "unigram-bytes/vocab.gguf", 4, 0, "default" },
};

static const json *open_strings(test *t) {
    const str text = test_read_file(t, test_vector(t, "tokenizers/strings.json"));
    json *strings = text.data ? json_open(text, "strings.json", &t->err) : NULL;
    CHECK_MSG(t, strings != NULL, "%s", t->err.message);
    CHECK_U64(t, strings ? json_count(json_root(strings)) : 0, 530);
    return strings;
}

static void check_json(test *t, const round_trip *row, const json *strings) {
    opened o = open_named(t, row->name);
    tokenizer *again = o.tokenizer ? reopen_json(t, o.tokenizer) : NULL;
    if (again != NULL) {
        CHECK_U64(t, tokenizer_n_tokens(again), tokenizer_n_tokens(o.tokenizer));
        check_same_ends(t, o.tokenizer, again);
        CHECK_U64(t, count_different(t, o.tokenizer, again, json_root(strings)), row->by_json);
    }
    tokenizer_close(again);
    close_opened(o);
}

static void written_tokenizer_json_says_the_same(test *t) {
    const json *strings = open_strings(t);
    if (strings == NULL) return;
    for (size_t i = 0; i < ARRAY_LEN(folders); i++)
        check_json(t, &folders[i], strings);
    for (size_t i = 0; i < ARRAY_LEN(files); i++)
        check_json(t, &files[i], strings);
    json_close((json *)strings);
}

static const meta_value *check_list(test *t, const meta_store *s, const char *key,
                                    meta_type element, uint32_t n) {
    const meta_value *v = store_get(s, key);
    CHECK_MSG(t, v != NULL && v->type == META_ARRAY && v->element == element && v->n == n,
              "%s is no list of %u", key, n);
    return v;
}

static meta_store *write_store(test *t, const tokenizer *k, container *source, uint32_t n) {
    meta_store *s = test_alloc(t, 1, sizeof(*s));
    s->t = t;
    const meta_sink sink = sink_into(s);
    CHECK_MSG(t, tokenizer_write_gguf(k, source, n, &sink, &t->err), "%s", t->err.message);
    return s;
}

/* Lists as long as the embedding, with padding at the end, in the types that GGUF's readers
 * expect. */
static void check_lists(test *t, const tokenizer *k, const meta_store *s, uint32_t n) {
    const meta_value *tokens = check_list(t, s, "tokenizer.ggml.tokens", META_STRING, n);
    const meta_value *types = check_list(t, s, "tokenizer.ggml.token_type", META_INT, n);
    if (tokens == NULL || types == NULL) return;
    for (uint32_t i = 0; i < n; i++) {
        const bool padding = i >= tokenizer_n_tokens(k) || !token_present(k, i);
        const char *name = test_printf(t, "[PAD%u]", i);
        CHECK(t, str_is(tokens->strings[i], name) == padding);
        CHECK(t, !padding || types->ints[i] == 5);
    }
    const meta_value *model = store_get(s, "tokenizer.ggml.model");
    CHECK(t, model != NULL && model->type == META_STRING);
    if (!k->raw_bytes && model != NULL && !str_is(model->s, "gemma4")) {
        check_list(t, s, "tokenizer.ggml.scores", META_FLOAT, n);
    } else {
        CHECK(t, store_get(s, "tokenizer.ggml.merges") != NULL);
    }
    for (size_t i = 0; i < s->n; i++) {
        const char *key = s->entries[i].key, *kind = s->entries[i].kind;
        CHECK_MSG(t, !str_ends(str_of(key), "_id") || strcmp(kind, "u32") == 0, "%s: %s", key,
                  kind);
        CHECK_MSG(t, strstr(key, "charsmap") == NULL || strcmp(kind, "bytes") == 0, "%s: %s", key,
                  kind);
        CHECK_MSG(t, strstr(key, ".add_") == NULL || strcmp(kind, "bool") == 0, "%s: %s", key,
                  kind);
    }
}

static void check_keys(test *t, const round_trip *row, const json *strings, bool copied) {
    opened o = open_named(t, row->name);
    if (o.tokenizer == NULL) return;
    const uint32_t n = tokenizer_n_tokens(o.tokenizer) + 3;
    meta_store *s = write_store(t, o.tokenizer, copied ? NULL : o.container, n);
    check_lists(t, o.tokenizer, s, n);
    const meta_value *pre = store_get(s, "tokenizer.ggml.pre");
    CHECK_STR(t, pre ? pre->s : STR(""), row->pre);
    const bool has_json = !copied && o.container != NULL;
    CHECK(t, (store_get(s, whole_json) != NULL) == has_json);
    for (int hidden = !has_json; hidden < 2; hidden++) {
        said heard = { .n = 0 };
        const log_sink log = { say, &heard };
        s->hidden = hidden ? whole_json : NULL;
        tokenizer *again = tokenizer_from_meta(store_get, s, &log, &t->err);
        if (CHECK_MSG(t, again != NULL, "%s", t->err.message)) {
            CHECK_U64(t, tokenizer_n_tokens(again), hidden ? n : n - 3);
            check_same_ends(t, o.tokenizer, again);
            CHECK_U64(t, count_different(t, o.tokenizer, again, json_root(strings)),
                      hidden ? row->by_keys : 0);
        }
        CHECK_MSG(t, hidden || heard.n == 0, "%s", heard.text);
        tokenizer_close(again);
    }
    close_opened(o);
}

static void written_metadata_says_the_same(test *t) {
    const json *strings = open_strings(t);
    if (strings == NULL) return;
    for (size_t i = 0; i < ARRAY_LEN(folders); i++)
        check_keys(t, &folders[i], strings, false);
    for (size_t i = 0; i < ARRAY_LEN(files); i++)
        check_keys(t, &files[i], strings, true);
    json_close((json *)strings);
}

static bool same_value(const meta_value *a, const meta_value *b) {
    if (a == NULL || b == NULL || a->type != b->type) return false;
    switch (a->type) {
    case META_UINT:
    case META_INT:
        return a->u == b->u;
    case META_FLOAT:
        return a->f == b->f;
    case META_BOOL:
        return a->b == b->b;
    case META_STRING:
        return str_equal(a->s, b->s);
    case META_ARRAY:
        break;
    }
    bool same = a->element == b->element && a->n <= b->n;
    for (uint32_t i = 0; same && i < a->n; i++) {
        same = a->element == META_STRING  ? str_equal(a->strings[i], b->strings[i])
               : a->element == META_FLOAT ? a->floats[i] == b->floats[i]
                                          : a->ints[i] == b->ints[i];
    }
    return same;
}

static void keys_of_a_gguf_are_copied(test *t) {
    static const char *const names[] = { "unigram/vocab.gguf", "gemma-json/vocab.gguf",
                                         "llama3/vocab.gguf", "default/vocab.gguf" };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        for (uint32_t more = 0; more < 8; more += 7) {
            opened o = open_named(t, names[i]);
            if (o.tokenizer == NULL) return;
            const uint32_t n = tokenizer_n_tokens(o.tokenizer) + more;
            meta_store *s = write_store(t, o.tokenizer, o.container, n);
            size_t n_keys = 0;
            for (uint32_t j = 0; j < container_n_meta(o.container); j++) {
                str key;
                const meta_value *v = container_meta_at(o.container, j, &key);
                if (!str_starts(key, "tokenizer.")) continue;
                n_keys++;
                const char *name = test_printf(t, "%.*s", (int)key.size, key.data);
                const meta_value *got = store_get(s, name);
                CHECK_MSG(t, same_value(v, got), "%s is not the same", name);
                const bool of_tokens = v->type == META_ARRAY && v->n == n - more;
                CHECK_MSG(t,
                          got == NULL || v->type != META_ARRAY ||
                              got->n == v->n + (of_tokens ? more : 0),
                          "%s has %u elements", name, got ? got->n : 0);
            }
            CHECK(t, n_keys >= 6);
            CHECK_U64(t, s->n, n_keys);
            check_lists(t, o.tokenizer, s, n);
            close_opened(o);
        }
    }
}

/* ---- steps --------------------------------------------------------------------------------- */

static bool same_steps(test *t, const step_list *a, const step_list *b) {
    bool all = CHECK_U64(t, b->n, a->n);
    for (uint32_t i = 0; all && i < a->n; i++) {
        const step *x = &a->list[i], *y = &b->list[i];
        const bool same =
            x->kind == y->kind && x->match == y->match && x->split == y->split &&
            x->invert == y->invert && x->only_at_start == y->only_at_start &&
            x->unless_there == y->unless_there && x->left == y->left && x->right == y->right &&
            str_equal(x->literal, y->literal) && str_equal(x->content, y->content) &&
            (x->regex != NULL) == (y->regex != NULL) &&
            (x->regex == NULL || str_equal(regex_pattern(x->regex), regex_pattern(y->regex)));
        all = CHECK_MSG(t, same, "step %u is another", i) && all;
    }
    return all;
}

static void check_same_decoder(test *t, const tokenizer *a, const tokenizer *b) {
    CHECK_U64(t, b->n_decode, a->n_decode);
    for (uint32_t i = 0; i < a->n_decode && i < b->n_decode; i++) {
        const decode_step *x = &a->decode[i], *y = &b->decode[i];
        CHECK_MSG(t,
                  x->kind == y->kind && str_equal(x->literal, y->literal) &&
                      str_equal(x->content, y->content) && x->start == y->start &&
                      x->stop == y->stop && x->drop_first == y->drop_first,
                  "decoder step %u is another", i);
    }
    CHECK(t, a->join_spaces == b->join_spaces && a->lead == b->lead && a->n_lead == b->n_lead &&
                 a->drops_first == b->drops_first);
}

static void every_element_is_written(test *t) {
    static const char *const fields[] = {
        "\"normalizer\":{\"type\":\"NFC\"}",
        "\"normalizer\":{\"type\":\"NFD\"}",
        "\"normalizer\":{\"type\":\"NFKC\"}",
        "\"normalizer\":{\"type\":\"NFKD\"}",
        "\"normalizer\":{\"type\":\"Lowercase\"}",
        "\"normalizer\":{\"type\":\"StripAccents\"}",
        "\"normalizer\":{\"type\":\"Prepend\",\"prepend\":\"a\\u0000\\\"\\n\"}",
        "\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"_\"}",
        "\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\" {2,}\"},\"content\":\"\"}",
        "\"normalizer\":{\"type\":\"Strip\",\"strip_left\":false,\"strip_right\":true}",
        "\"normalizer\":{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":false}",
        "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":"
        "\"Sequence\",\"normalizers\":[{\"type\":\"Lowercase\"}]}]}",
        "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"x\"},\"behavior\":"
        "\"Isolated\",\"invert\":false}",
        "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[a\\\\]]+\"},\"behavior\":"
        "\"Removed\",\"invert\":true}",
        "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},\"behavior\":"
        "\"MergedWithPrevious\",\"invert\":false}",
        "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},\"behavior\":"
        "\"MergedWithNext\",\"invert\":false}",
        "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},\"behavior\":"
        "\"Contiguous\",\"invert\":false}",
        "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"use_regex\":true}",
        "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}",
        "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"use_regex\":false}",
        "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}",
        "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":"
        "\"always\",\"split\":true}",
        "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":"
        "\"first\",\"split\":false}",
        "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":"
        "\"never\",\"split\":true}",
        "\"pre_tokenizer\":{\"type\":\"Digits\",\"individual_digits\":true}",
        "\"pre_tokenizer\":{\"type\":\"Digits\",\"individual_digits\":false}",
        "\"pre_tokenizer\":{\"type\":\"Punctuation\",\"behavior\":\"Contiguous\"}",
        "\"pre_tokenizer\":{\"type\":\"Punctuation\",\"behavior\":\"Isolated\"}",
        "\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"}",
        "\"pre_tokenizer\":{\"type\":\"CharDelimiterSplit\",\"delimiter\":\"-\"}",
        "\"pre_tokenizer\":{\"type\":\"WhitespaceSplit\"}",
        "\"pre_tokenizer\":{\"type\":\"Whitespace\"}",
        "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Punctuation\"},"
        "{\"type\":\"ByteLevel\",\"add_prefix_space\":false},{\"type\":\"Digits\"},{\"type\":"
        "\"Split\",\"pattern\":{\"String\":\"x\"},\"behavior\":\"MergedWithNext\"}]}",
        "\"decoder\":{\"type\":\"ByteLevel\"}",
        "\"decoder\":{\"type\":\"ByteFallback\"}",
        "\"decoder\":{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"never\"}",
        "\"decoder\":{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"always\"}",
        "\"decoder\":{\"type\":\"Strip\",\"content\":\"a\",\"start\":2,\"stop\":3}",
        "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{"
        "\"String\":\"_\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},"
        "{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]}",
    };
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        test_row(t, "%.100s", fields[i]);
        const char *text = test_printf(t,
                                       "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,"
                                       "\"ab\":2},\"merges\":[\"a b\"]},%s}",
                                       fields[i]);
        tokenizer *k = open_json(str_of(text), STR("{}"), NULL, &t->err);
        if (!CHECK_MSG(t, k != NULL, "%s", t->err.message)) continue;
        test_row(t, "element-%zu", i);
        tokenizer *again = reopen_json(t, k);
        if (again != NULL) {
            same_steps(t, &k->normal, &again->normal);
            same_steps(t, &k->pre, &again->pre);
            check_same_decoder(t, k, again);
        }
        tokenizer_close(again);
        tokenizer_close(k);
    }
    test_row(t, "%s", "");
}

/* Any name's patterns are found again under a name that has the same. */
static void every_named_pre_tokenizer_is_found(test *t) {
    const str text = STR("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},"
                         "\"decoder\":{\"type\":\"ByteLevel\"}}");
    pre_name named, found = { .name = NULL };
    size_t i = 0;
    for (; pre_name_at(i, &named); i++) {
        test_row(t, "%s", named.name);
        tokenizer *k = open_json(text, STR("{}"), NULL, &t->err);
        if (!CHECK(t, k != NULL && pre_name_steps(i, &k->pre, &t->err))) return;
        k->uses_regex = true;
        k->ignore_merges = named.whole;
        if (named.nfc) CHECK(t, step_add(&k->normal, STEP_NFC, "NFC", &t->err) != NULL);
        meta_store *s = write_store(t, k, NULL, 1);
        const meta_value *pre = store_get(s, "tokenizer.ggml.pre");
        size_t j = 0;
        while (pre_name_at(j, &found) && !(pre != NULL && str_is(pre->s, found.name)))
            j++;
        step_list same = { .n = 0 };
        if (CHECK(t, pre_name_at(j, &found) && pre_name_steps(j, &same, &t->err))) {
            same_steps(t, &k->pre, &same);
            CHECK(t, found.whole == named.whole);
            CHECK_MSG(t, found.nfc == named.nfc, "%s became %s", named.name, found.name);
        }
        steps_free(&same);
        tokenizer_close(k);
    }
    CHECK(t, i > 30);
    test_row(t, "%s", "");
}

/* ---- ends, templates, affixes -------------------------------------------------------------- */

#define SIX_TOKENS                                                                                \
    "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]},"    \
    "\"decoder\":{\"type\":\"ByteLevel\"},\"added_tokens\":["                                     \
    "{\"id\":3,\"content\":\"<s>\",\"special\":true},{\"id\":4,\"content\":\"</t>\",\"special\":" \
    "true},{\"id\":5,\"content\":\"<m>\",\"special\":true,\"lstrip\":true}]"

static void ends_and_templates_are_written(test *t) {
    const char *text =
        test_printf(t, "%.*s,{\"id\":6,\"content\":\"<|im_end|>\",\"special\":true}]}",
                    (int)sizeof(SIX_TOKENS) - 2, SIX_TOKENS); /* a stop that needs no key */
    tokenizer *k =
        open_json(str_of(text),
                  STR("{\"bos_token\":\"<s>\",\"eos_token\":{\"content\":\"</t>\"},\"eot_token\":"
                      "\"b\",\"pad_token\":\"<m>\",\"mask_token\":\"a\",\"add_bos_token\":true,"
                      "\"chat_template\":[{\"name\":\"tool_use\",\"template\":\"T\"},{\"name\":"
                      "\"default\",\"template\":\"D\\n{{ x }}\"},{\"name\":\"rag\",\"template\":"
                      "\"R\"}]}"),
                  NULL, &t->err);
    if (!CHECK_MSG(t, k != NULL, "%s", t->err.message)) return;
    CHECK(t, tokenizer_add_stop(k, 2, &t->err)); /* as generation_config.json would */
    meta_store *s = write_store(t, k, NULL, 7);
    static const struct {
        const char *key;
        uint32_t id;
    } ids[] = {
        { "tokenizer.ggml.bos_token_id", 3 },     { "tokenizer.ggml.eos_token_id", 4 },
        { "tokenizer.ggml.eot_token_id", 1 },     { "tokenizer.ggml.eom_token_id", 2 },
        { "tokenizer.ggml.padding_token_id", 5 }, { "tokenizer.ggml.mask_token_id", 0 },
    };
    for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
        const meta_value *v = store_get(s, ids[i].key);
        CHECK_MSG(t, v != NULL && v->type == META_UINT && v->u == ids[i].id, "%s", ids[i].key);
    }
    CHECK(t, store_get(s, "tokenizer.ggml.seperator_token_id") == NULL);
    tokenizer *both[2] = { tokenizer_from_meta(store_get, s, NULL, &t->err), reopen_json(t, k) };
    for (int i = 0; i < 2; i++) {
        test_row(t, "%s", i ? "tokenizer.json" : "GGUF");
        if (!CHECK_MSG(t, both[i] != NULL, "%s", t->err.message)) continue;
        CHECK_STR(t, tokenizer_chat_template(both[i]), "D\n{{ x }}");
        if (CHECK_U64(t, both[i]->n_templates, 2)) {
            CHECK_STR(t, both[i]->templates[0].name, "tool_use");
            CHECK_STR(t, both[i]->templates[0].text, "T");
            CHECK_STR(t, both[i]->templates[1].name, "rag");
            CHECK_STR(t, both[i]->templates[1].text, "R");
        }
        CHECK(t, memcmp(both[i]->roles, k->roles, sizeof(k->roles)) == 0 ||
                     (i == 0 && both[i]->roles[ROLE_EOM] == 2));
        CHECK(t, tokenizer_adds_bos(both[i]) && !tokenizer_adds_eos(both[i]));
        size_t n;
        tokenizer_stops(both[i], &n);
        CHECK_U64(t, n, i == 0 ? 4 : 3); /* the fourth is generation_config.json's to say */
        tokenizer_close(both[i]);
    }
    test_row(t, "%s", "");
    tokenizer_close(k);
}

/* Tokens around a text that no file calls bos or eos are so in GGUF; more than one are told. */
static void tokens_around_a_text_are_written(test *t) {
    static const struct {
        const char *single, *warning;
        bool bos, eos;
    } rows[] = {
        { "{\"SpecialToken\":{\"id\":\"s\"}},{\"Sequence\":{}}", NULL, true, false },
        { "{\"Sequence\":{}},{\"SpecialToken\":{\"id\":\"t\"}}", NULL, false, true },
        { "{\"SpecialToken\":{\"id\":\"s\"}},{\"Sequence\":{}},{\"SpecialToken\":{\"id\":\"t\"}}",
          NULL, true, true },
        { "{\"SpecialToken\":{\"id\":\"s\"}},{\"SpecialToken\":{\"id\":\"t\"}},{\"Sequence\":{}}",
          "2 tokens before", true, false },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        test_row(t, "%s", rows[i].single);
        const char *text = test_printf(t,
                                       SIX_TOKENS ",\"post_processor\":{\"type\":"
                                                  "\"TemplateProcessing\",\"single\":[%s],"
                                                  "\"special_tokens\":{\"s\":{\"ids\":[3]},"
                                                  "\"t\":{\"ids\":[4]}}}}",
                                       rows[i].single);
        said heard = { .n = 0 };
        const log_sink log = { say, &heard };
        tokenizer *k = open_json(str_of(text), STR("{}"), &log, &t->err);
        if (!CHECK_MSG(t, k != NULL, "%s", t->err.message)) continue;
        tokenizer *again = reopen_json(t, k);
        if (again != NULL) {
            CHECK(t, again->n_prefix == k->n_prefix && again->n_suffix == k->n_suffix);
            CHECK(t, memcmp(again->prefix, k->prefix, sizeof(k->prefix)) == 0);
            CHECK(t, memcmp(again->suffix, k->suffix, sizeof(k->suffix)) == 0);
        }
        meta_store *s = write_store(t, k, NULL, 6);
        tokenizer *other = tokenizer_from_meta(store_get, s, NULL, &t->err);
        if (CHECK_MSG(t, other != NULL, "%s", t->err.message)) {
            CHECK(t, tokenizer_adds_bos(other) == rows[i].bos);
            CHECK(t, tokenizer_adds_eos(other) == rows[i].eos);
            CHECK_U64(t, tokenizer_bos(other), rows[i].bos ? 3 : DP_NO_TOKEN);
            CHECK_U64(t, tokenizer_eos(other), rows[i].eos ? 4 : DP_NO_TOKEN);
        }
        CHECK_MSG(t, (strstr(heard.text, "no key for") != NULL) == (rows[i].warning != NULL), "%s",
                  heard.text);
        CHECK(t, rows[i].warning == NULL || strstr(heard.text, rows[i].warning) != NULL);
        tokenizer_close(other);
        tokenizer_close(again);
        tokenizer_close(k);
    }
    test_row(t, "%s", "");
}

/* ---- tokenizer.huggingface.json ------------------------------------------------------------ */

static meta_value *store_find(meta_store *s, const char *key) {
    for (size_t i = 0; i < s->n; i++)
        if (strcmp(s->entries[i].key, key) == 0) return &s->entries[i].value;
    return NULL;
}

/* A GGUF of 8 rows with the whole tokenizer.json of six tokens. */
static meta_store *whole_store(test *t, const char *more) {
    const char *text = test_printf(t, SIX_TOKENS "%s}", more);
    tokenizer *k = open_json(str_of(text), STR("{\"bos_token\":\"<s>\",\"eos_token\":\"</t>\"}"),
                             NULL, &t->err);
    if (!CHECK_MSG(t, k != NULL, "%s", t->err.message)) return NULL;
    meta_store *s = write_store(t, k, NULL, 8);
    store_string(s, whole_json, str_of(text));
    tokenizer_close(k);
    return s;
}

static void a_whole_tokenizer_json_goes_before_the_keys(test *t) {
    meta_store *s = whole_store(t, "");
    tokenizer *k = s ? tokenizer_from_meta(store_get, s, NULL, &t->err) : NULL;
    if (!CHECK_MSG(t, k != NULL, "%s", t->err.message)) return;
    CHECK(t, k->flags[5] & TOKEN_LSTRIP); /* no key of GGUF says so */
    CHECK_U64(t, tokenizer_n_tokens(k), 6);
    CHECK_U64(t, tokenizer_bos(k), 3);
    CHECK_U64(t, tokenizer_eos(k), 4);
    CHECK(t, !tokenizer_adds_bos(k));
    tokenizer_close(k);
}

/* Where both say what is put around a text, the keys count: that is what one edits. */
static void keys_say_what_is_put_around_a_text(test *t) {
    static const char template[] =
        ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":"
        "{\"id\":\"s\"}},{\"SpecialToken\":{\"id\":\"m\"}},{\"Sequence\":{}},{\"SpecialToken\":{"
        "\"id\":\"m\"}},{\"SpecialToken\":"
        "{\"id\":\"t\"}}],\"special_tokens\":{\"s\":{\"ids\":[3]},\"t\":{\"ids\":[4]},"
        "\"m\":{\"ids\":[5]}}}";
    static const struct {
        bool described, has_keys, bos, eos;
        const char *model;
        dp_token prefix[4], suffix[4];
    } rows[] = {
        { true, true, true, true, "gpt2", { 3, 5, 0 }, { 5, 4, 0 } },
        { true, true, false, true, "gpt2", { 5, 0 }, { 5, 4, 0 } },
        { true, true, false, false, "gpt2", { 5, 0 }, { 5, 0 } },
        { true, false, false, false, "gpt2", { 3, 5, 0 }, { 5, 4, 0 } },
        { true, false, false, false, "llama", { 3, 5, 0 }, { 5, 4, 0 } },
        { false, true, true, true, "gpt2", { 3, 0 }, { 4, 0 } },
        { false, true, false, true, "gpt2", { 0 }, { 4, 0 } },
        { false, false, false, false, "gpt2", { 0 }, { 0 } },
        { false, false, false, false, "llama", { 3, 0 }, { 0 } },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        test_row(t, "row %zu", i);
        meta_store *s = whole_store(t, rows[i].described ? template : "");
        if (s == NULL) return;
        store_find(s, "tokenizer.ggml.model")->s = str_of(rows[i].model);
        meta_value *bos = store_find(s, "tokenizer.ggml.add_bos_token");
        meta_value *eos = store_find(s, "tokenizer.ggml.add_eos_token");
        bos->b = rows[i].bos;
        eos->b = rows[i].eos;
        for (size_t j = 0; !rows[i].has_keys && j < s->n; j++) {
            if (&s->entries[j].value == bos || &s->entries[j].value == eos)
                s->entries[j].key = "absent";
        }
        tokenizer *k = tokenizer_from_meta(store_get, s, NULL, &t->err);
        if (!CHECK_MSG(t, k != NULL, "%s", t->err.message)) continue;
        size_t n = 0, m = 0;
        while (rows[i].prefix[n] != 0)
            n++;
        while (rows[i].suffix[m] != 0)
            m++;
        CHECK_U64(t, k->n_prefix, n);
        CHECK_U64(t, k->n_suffix, m);
        CHECK(t, memcmp(k->prefix, rows[i].prefix, n * sizeof(dp_token)) == 0);
        CHECK(t, memcmp(k->suffix, rows[i].suffix, m * sizeof(dp_token)) == 0);
        tokenizer_close(k);
    }
    test_row(t, "%s", "");
}

/* One that tells of other tokens, or is none, is told and left alone. */
static void a_whole_tokenizer_json_that_disagrees_is_not_used(test *t) {
    static const struct {
        const char *what, *warning;
    } rows[] = {
        { "text", "is not used" },        { "type", "is not used" },
        { "model", "WordPiece" },         { "spelling", "its token 2 is \"ab\"" },
        { "fewer", "it has 6 tokens" },   { "more", "its token 6 is \"\"" },
        { "no types", "its token 6 is" },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const char *what = rows[i].what;
        test_row(t, "%s", what);
        meta_store *s = whole_store(t, "");
        if (s == NULL) return;
        meta_value *whole = store_find(s, whole_json);
        meta_value *tokens = store_find(s, "tokenizer.ggml.tokens");
        meta_value *types = store_find(s, "tokenizer.ggml.token_type");
        if (strcmp(what, "text") == 0) {
            whole->s.size--;
        } else if (strcmp(what, "type") == 0) {
            *whole = (meta_value){ .type = META_BOOL };
        } else if (strcmp(what, "model") == 0) {
            whole->s = STR("{\"model\":{\"type\":\"WordPiece\"}}");
        } else if (strcmp(what, "spelling") == 0) {
            ((str *)tokens->strings)[2] = STR("ba");
        } else if (strcmp(what, "fewer") == 0) {
            tokens->n = types->n = 5;
            store_find(s, "tokenizer.ggml.merges")->n = 0;
        } else if (strcmp(what, "more") == 0) {
            ((int64_t *)types->ints)[6] = 1;
        } else {
            s->hidden = "tokenizer.ggml.token_type";
        }
        said heard = { .n = 0 };
        const log_sink log = { say, &heard };
        tokenizer *k = tokenizer_from_meta(store_get, s, &log, &t->err);
        if (CHECK_MSG(t, k != NULL, "%s", t->err.message)) {
            CHECK(t, !(k->flags[4] & TOKEN_LSTRIP));
            CHECK_U64(t, tokenizer_n_tokens(k), tokens->n);
            CHECK_MSG(t,
                      strstr(heard.text, whole_json) != NULL &&
                          strstr(heard.text, rows[i].warning) != NULL,
                      "%s", heard.text);
        }
        tokenizer_close(k);
    }
    test_row(t, "%s", "");
}

static void a_full_prefix_is_an_error(test *t) {
    buf more;
    buf_init(&more, 1 << 16);
    buf_add_str(&more, STR(",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":["));
    for (int i = 0; i < AFFIX_MAX; i++)
        buf_add_str(&more, STR("{\"SpecialToken\":{\"id\":\"m\"}},"));
    buf_add_str(&more, STR("{\"Sequence\":{}}],\"special_tokens\":{\"m\":{\"ids\":[5]}}}"));
    meta_store *s = whole_store(t, more.data);
    buf_free(&more);
    if (s == NULL) return;
    store_find(s, "tokenizer.ggml.add_bos_token")->b = true;
    tokenizer *k = tokenizer_from_meta(store_get, s, NULL, &t->err);
    CHECK(t, k == NULL);
    CHECK_ERROR(t, &t->err, DP_E_LIMIT, "more than 16 tokens before a text");
    tokenizer_close(k);
}

/* ---- odd vocabularies ---------------------------------------------------------------------- */

/* Metadata of a vocabulary: spellings, types, scores. */
static meta_store *odd_store(test *t, const char *model, const str *tokens, const int32_t *types,
                             const float *scores, uint32_t n) {
    meta_store *s = test_alloc(t, 1, sizeof(*s));
    s->t = t;
    store_string(s, "tokenizer.ggml.model", str_of(model));
    store_strings(s, "tokenizer.ggml.tokens", tokens, n);
    store_i32s(s, "tokenizer.ggml.token_type", types, n);
    store_f32s(s, "tokenizer.ggml.scores", scores, n);
    store_flag(s, "tokenizer.ggml.add_space_prefix", false);
    store_u32(s, "tokenizer.ggml.unknown_token_id", 0);
    return s;
}

static size_t encode_text(test *t, const tokenizer *k, const char *text, dp_token *ids,
                          size_t max) {
    size_t n = 0;
    CHECK(t, tokenizer_encode(k, str_of(text), false, true, ids, max, &n, &t->err) && n <= max);
    return n;
}

static void padding_is_left_out_and_comes_back(test *t) {
    static const str tokens[] = { { "<unk>", 5 }, { "a", 1 },       { "[PAD2]", 6 }, { "b", 1 },
                                  { "ab", 2 },    { "[PAD4]", 6 },  { "[", 1 },      { "P", 1 },
                                  { "A", 1 },     { "D", 1 },       { "2", 1 },      { "4", 1 },
                                  { "]", 1 },     { "[PAD13]", 7 }, { "[PAD14]", 7 } };
    static const int32_t types[] = { 2, 1, 5, 1, 1, 5, 1, 1, 1, 1, 1, 1, 1, 5, 5 };
    static const float scores[] = { 0, -3, 0, -4, -1, -9, -5, -5, -5, -5, -5, -5, -5, 0, 0 };
    const uint32_t n = ARRAY_LEN(tokens);
    for (int unigram = 0; unigram < 2; unigram++) {
        test_row(t, "%s", unigram ? "unigram" : "BPE");
        meta_store *s = odd_store(t, unigram ? "t5" : "llama", tokens, types, scores, n);
        tokenizer *k = tokenizer_from_meta(store_get, s, NULL, &t->err);
        tokenizer *again = k ? reopen_json(t, k) : NULL;
        if (CHECK_MSG(t, again != NULL, "%s", t->err.message)) {
            CHECK(t,
                  same_value(store_get(s, "tokenizer.ggml.token_type"),
                             store_get(write_store(t, k, NULL, n), "tokenizer.ggml.token_type")));
            CHECK_U64(t, tokenizer_n_tokens(again), n - 2);
            CHECK(t, unigram || !token_present(again, 2));
            CHECK(t, token_present(again, 5)); /* no padding: token 5 is not called [PAD5] */
            dp_token ids[16];
            CHECK(t, encode_text(t, again, "ab", ids, 16) == 1 && ids[0] == 4);
            /* A text that spells an unused token does not become it. */
            CHECK_U64(t, encode_text(t, again, "[PAD2]", ids, 16), 6);
            CHECK_U64(t, encode_text(t, again, "[PAD4]", ids, 16), 6);
            meta_store *back = write_store(t, again, NULL, n);
            const meta_value *names = check_list(t, back, "tokenizer.ggml.tokens", META_STRING, n);
            const meta_value *kinds = check_list(t, back, "tokenizer.ggml.token_type", META_INT, n);
            for (uint32_t i = 0; names != NULL && kinds != NULL && i < n; i++) {
                CHECK(t, str_equal(names->strings[i], tokens[i]));
                CHECK(t, i < n - 2 || kinds->ints[i] == 5);
            }
        }
        tokenizer_close(again);
        tokenizer_close(k);
    }
    test_row(t, "%s", "");
}

/* Added tokens outside the model's vocabulary get numbers anew when tokenizer.json is read: in its
 * order, behind the vocabulary. Where that would move one, the vocabulary has them all. */
static void added_tokens_keep_their_ids(test *t) {
    static const struct {
        const char *added;
        bool inside;
    } rows[] = {
        { "{\"id\":2,\"content\":\"<x>\"},{\"id\":3,\"content\":\"<y>\"}", false },
        { "{\"id\":2,\"content\":\"<x>\"},{\"id\":4,\"content\":\"<y>\"}", true },
        { "{\"id\":7,\"content\":\"<x>\",\"special\":true}", true },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        test_row(t, "%s", rows[i].added);
        const char *text = test_printf(t,
                                       "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1},"
                                       "\"merges\":[]},\"added_tokens\":[%s]}",
                                       rows[i].added);
        tokenizer *k = open_json(str_of(text), STR("{}"), NULL, &t->err);
        buf out;
        buf_init(&out, 10000);
        if (CHECK_MSG(t, k != NULL, "%s", t->err.message) &&
            CHECK(t, tokenizer_write_json(k, &out, &t->err))) {
            json *doc = json_open((str){ out.data, out.size }, "written", &t->err);
            const json_value *vocab = json_get(json_get(json_root(doc), "model"), "vocab");
            CHECK(t, (json_get(vocab, "<x>") != NULL) == rows[i].inside);
            json_close(doc);
        }
        buf_free(&out);
        tokenizer_close(k);
    }
    test_row(t, "%s", "");
}

/* Scores become merges in their order, whatever number they are of. */
static void scores_come_back_as_they_were(test *t) {
    static const str tokens[] = { { "<unk>", 5 }, { "a", 1 },  { "b", 1 },  { "c", 1 },
                                  { "ab", 2 },    { "bc", 2 }, { "abc", 3 } };
    static const int32_t types[] = { 2, 1, 1, 1, 1, 1, 1 };
    static const float rows[][7] = {
        { 0, -1, -1, -1, -2, -3, -4 },
        { 0, -1, -1, -1, -3, -2, -4 },
        { 0, 1, 1, 1, 3.5f, 2, 0 },
        { 0, 1, 1, 1, -1e-38f, 1e-38f, 3e38f },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        test_row(t, "row %zu", i);
        meta_store *s = odd_store(t, "llama", tokens, types, rows[i], 7);
        tokenizer *k = tokenizer_from_meta(store_get, s, NULL, &t->err);
        if (!CHECK_MSG(t, k != NULL, "%s", t->err.message)) continue;
        meta_store *again = write_store(t, k, NULL, 7);
        const meta_value *scores = check_list(t, again, "tokenizer.ggml.scores", META_FLOAT, 7);
        for (uint32_t j = 0; scores != NULL && j < 7; j++)
            CHECK_MSG(t, scores->floats[j] == (double)rows[i][j], "score %u is %g", j,
                      scores->floats[j]);
        tokenizer *other = reopen_json(t, k);
        static const char *const texts[] = { "abc", "bc", "ab", "abab", "bcbc", "aabbcc", "abcab" };
        for (size_t j = 0; other != NULL && j < ARRAY_LEN(texts); j++) {
            dp_token x[16], y[16];
            const size_t n = encode_text(t, k, texts[j], x, 16);
            CHECK_MSG(
                t, encode_text(t, other, texts[j], y, 16) == n && memcmp(x, y, n * sizeof(*x)) == 0,
                "%s is other tokens", texts[j]);
        }
        tokenizer_close(other);
        tokenizer_close(k);
    }
    test_row(t, "%s", "");
}

static void add_pair(void *user, dp_token left, dp_token right) {
    buf_printf(user, "%u+%u ", left, right);
}

/* Of one token the splits with the longer left side come first, as converters write them; runs of
 * unknown characters stay one token. */
static void splits_of_a_token_have_an_order(test *t) {
    static const str tokens[] = {
        { "<unk>", 5 }, { "a", 1 }, { "aa", 2 }, { "aaaa", 4 }, { "aaa", 3 }
    };
    static const int32_t types[] = { 2, 1, 1, 1, 1 };
    static const float scores[] = { 0, -9, -1, -2, -3 };
    meta_store *s = odd_store(t, "llama", tokens, types, scores, 5);
    tokenizer *k = tokenizer_from_meta(store_get, s, NULL, &t->err);
    if (!CHECK_MSG(t, k != NULL, "%s", t->err.message)) return;
    buf pairs;
    buf_init(&pairs, 1000);
    CHECK(t, tokenizer_each_merge(k, add_pair, &pairs, &t->err));
    CHECK_STR(t, ((str){ pairs.data, pairs.size }), "1+1 4+1 2+2 1+4 2+1 1+2 ");
    buf_free(&pairs);
    tokenizer *again = reopen_json(t, k);
    dp_token ids[8];
    CHECK(t, again != NULL && encode_text(t, again, "?!a", ids, 8) == 2 && ids[0] == 0);
    tokenizer_close(again);
    tokenizer_close(k);
}

/* Two ids of one spelling, two spellings of one id: the first counts, the others are told. */
static void doubled_tokens_are_told(test *t) {
    static const str tokens[] = { { "<unk>", 5 }, { "a", 1 }, { "b", 1 }, { "ab", 2 }, { "a", 1 } };
    static const int32_t types[] = { 2, 1, 1, 1, 1 };
    static const float scores[] = { 0, -9, -8, -2, -3 };
    for (int way = 0; way < 2; way++) {
        test_row(t, "%d", way);
        said heard = { .n = 0 };
        const log_sink log = { say, &heard };
        tokenizer *k =
            way == 0
                ? tokenizer_from_meta(store_get, odd_store(t, "llama", tokens, types, scores, 5),
                                      &log, &t->err)
                : open_json(STR("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1,\"b\":2,"
                                "\"x\":3,\"ab\":3},\"merges\":[\"a b\"]}}"),
                            STR("{}"), &log, &t->err);
        tokenizer *again = k ? reopen_json(t, k) : NULL;
        if (CHECK_MSG(t, again != NULL, "%s", t->err.message)) {
            CHECK_MSG(t, strstr(heard.text, ": 1 tokens and merges") != NULL, "%s", heard.text);
            dp_token ids[4];
            CHECK_U64(t, encode_text(t, again, "ab", ids, 4), way == 0 ? 1 : 2);
            CHECK_U64(t, ids[0], way == 0 ? 3 : 1);
        }
        tokenizer_close(again);
        tokenizer_close(k);
    }
    test_row(t, "%s", "");
}

static void what_no_file_can_hold_is_refused(test *t) {
    static const str tokens[] = { { "<unk>", 5 }, { "a\xFF", 2 }, { "b", 1 } };
    static const int32_t types[] = { 2, 1, 1 };
    static const float scores[] = { 0, -1, -2 };
    meta_store *s = odd_store(t, "llama", tokens, types, scores, 3);
    tokenizer *k = tokenizer_from_meta(store_get, s, NULL, &t->err);
    buf out;
    buf_init(&out, 100);
    if (CHECK_MSG(t, k != NULL, "%s", t->err.message)) {
        CHECK(t, !tokenizer_write_json(k, &out, &t->err));
        CHECK_ERROR(t, &t->err, DP_E_UNSUPPORTED, "token 1 is no UTF-8");
    }
    tokenizer_close(k);
    const str spaced = STR("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a b\":0,\"c\":1,\"a bc\":2},"
                           "\"merges\":[[\"a b\",\"c\"]]},\"decoder\":{\"type\":\"ByteLevel\"}}");
    k = open_json(spaced, STR("{}"), NULL, &t->err);
    if (CHECK_MSG(t, k != NULL, "%s", t->err.message)) {
        tokenizer *again = reopen_json(t, k);
        CHECK(t, again != NULL && merges_get(&again->merges, 0, 1) != NULL);
        tokenizer_close(again);
        meta_store *none = test_alloc(t, 1, sizeof(*none));
        none->t = t;
        const meta_sink sink = sink_into(none);
        CHECK(t, !tokenizer_write_gguf(k, NULL, 3, &sink, &t->err));
        CHECK_ERROR(t, &t->err, DP_E_UNSUPPORTED, "a merge of tokens with spaces");
        CHECK(t, !tokenizer_write_json(k, &out, &t->err)); /* 100 bytes are too few */
        CHECK_ERROR(t, &t->err, DP_E_LIMIT, "tokenizer.json");
        buf_free(&out);
        CHECK(t, !tokenizer_write_config(k, &(buf){ .ceiling = 20 }, &t->err));
        CHECK_ERROR(t, &t->err, DP_E_LIMIT, "tokenizer_config.json");
    }
    tokenizer_close(k);
    buf_free(&out);
}

/* ---- memory -------------------------------------------------------------------------------- */

static void drop_number(void *user, const char *key, uint32_t value) {
    (void)user, (void)key, (void)value;
}
static void drop_flag(void *user, const char *key, bool value) {
    (void)user, (void)key, (void)value;
}
static void drop_string(void *user, const char *key, str value) {
    (void)user, (void)key, (void)value;
}
static void drop_strings(void *user, const char *key, const str *values, uint32_t n) {
    (void)user, (void)key, (void)values, (void)n;
}
static void drop_i32s(void *user, const char *key, const int32_t *values, uint32_t n) {
    (void)user, (void)key, (void)values, (void)n;
}
static void drop_f32s(void *user, const char *key, const float *values, uint32_t n) {
    (void)user, (void)key, (void)values, (void)n;
}
static void drop_bytes(void *user, const char *key, const uint8_t *values, uint32_t n) {
    (void)user, (void)key, (void)values, (void)n;
}

static bool write_all(const tokenizer *k, container *source, dp_error *err) {
    static const meta_sink nowhere = { .u32 = drop_number,
                                       .flag = drop_flag,
                                       .string = drop_string,
                                       .strings = drop_strings,
                                       .i32s = drop_i32s,
                                       .f32s = drop_f32s,
                                       .bytes = drop_bytes };
    buf out, config;
    buf_init(&out, JSON_BYTES_MAX);
    buf_init(&config, JSON_BYTES_MAX);
    const bool ok = tokenizer_write_json(k, &out, err) && tokenizer_write_config(k, &config, err) &&
                    tokenizer_write_gguf(k, source, tokenizer_n_tokens(k) + 9, &nowhere, err) &&
                    tokenizer_write_gguf(k, NULL, tokenizer_n_tokens(k) + 9, &nowhere, err);
    buf_free(&out);
    buf_free(&config);
    return ok;
}

static void every_failed_allocation_of_a_writer_is_an_error(test *t) {
    static const char *const names[] = { "falcon", "unigram/vocab.gguf", "spm/vocab.gguf",
                                         "gemma-json/vocab.gguf" };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        opened o = open_named(t, names[i]);
        bool ok = o.tokenizer == NULL;
        uint64_t n = 1;
        /* Trying the names of pre-tokenizers is most of it, and the same again and again. */
        for (; !ok && n < 5000; n += n < 60 ? 1 : 37) {
            test_row(t, "%s, allocation %llu", names[i], (unsigned long long)n);
            dp_error err = { 0 };
            mem_fail_from(n);
            ok = write_all(o.tokenizer, o.container, &err);
            mem_fail_from(0);
            if (!ok && !CHECK_MSG(t, err.status == DP_E_MEMORY, "%s", err.message)) break;
        }
        CHECK(t, ok && n > 20);
        close_opened(o);
    }
    meta_store *s = whole_store(t, "");
    tokenizer *k = NULL;
    for (uint64_t n = 1; s != NULL && k == NULL && n < 1000; n++) {
        test_row(t, "a whole tokenizer.json, allocation %llu", (unsigned long long)n);
        dp_error err = { 0 };
        mem_fail_from(n);
        k = tokenizer_from_meta(store_get, s, NULL, &err);
        mem_fail_from(0);
        if (k == NULL && !CHECK_MSG(t, err.status == DP_E_MEMORY, "%s", err.message)) break;
    }
    CHECK(t, k != NULL && tokenizer_n_tokens(k) == 6);
    tokenizer_close(k);
    test_row(t, "%s", "");
}

static const test_case cases[] = {
    { "written tokenizer.json says the same", written_tokenizer_json_says_the_same },
    { "written metadata says the same", written_metadata_says_the_same },
    { "keys of a GGUF are copied", keys_of_a_gguf_are_copied },
    { "every element is written", every_element_is_written },
    { "every named pre-tokenizer is found", every_named_pre_tokenizer_is_found },
    { "ends and templates are written", ends_and_templates_are_written },
    { "tokens around a text are written", tokens_around_a_text_are_written },
    { "a whole tokenizer.json goes before the keys", a_whole_tokenizer_json_goes_before_the_keys },
    { "keys say what is put around a text", keys_say_what_is_put_around_a_text },
    { "a whole tokenizer.json that disagrees is not used",
      a_whole_tokenizer_json_that_disagrees_is_not_used },
    { "a full prefix is an error", a_full_prefix_is_an_error },
    { "padding is left out and comes back", padding_is_left_out_and_comes_back },
    { "added tokens keep their ids", added_tokens_keep_their_ids },
    { "scores come back as they were", scores_come_back_as_they_were },
    { "splits of a token have an order", splits_of_a_token_have_an_order },
    { "doubled tokens are told", doubled_tokens_are_told },
    { "what no file can hold is refused", what_no_file_can_hold_is_refused },
    { "every failed allocation of a writer is an error",
      every_failed_allocation_of_a_writer_is_an_error },
};

const test_group tokenwrite_tests = { "tokenwrite", cases, ARRAY_LEN(cases) };
