/* fuzz tokenizer: descriptions of tokenizers and texts for them.
 *
 * The input is a letter, a description and a text. "J": a tokenizer.json, a NUL, a
 * tokenizer_config.json, a NUL, the text. "G": GGUF metadata in lines, an empty line, the text:
 *     t TYPE SCORE SPELLING   a token; TYPE a character after '0', SCORE one of any value
 *     m LEFT RIGHT            a merge
 *     s|i|b|a KEY VALUE       a value of key KEY (a letter from @): string, integer, bool, empty
 * array c BYTES                 more of the precompiled_charsmap, in hexadecimal "M": the size of a
 * tokenizer.model in two bytes, that file, an added_tokens.json or NUL, a tokenizer_config.json, a
 * NUL, the text. Each text is also read with marks at its odd places. Whatever opens encodes a
 * fixed text and its own, and the ids decode again, at once and in pieces.
 */
#include "text/text_internal.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { TEXT_MAX = 96, LIST_MAX = 512, KEYS = 18, IDS_MAX = 4096, CHARSMAP_MAX = 2048 };

static const char fixed[] = "Hello  w\xC3\xB6rld\n12'll <s>\xFF\xF0\x9F\x98\x80\xE2\x96\x81"
                            "ab</s> ";

static void require(bool holds) {
    if (!holds) abort();
}

/* ---- what must hold of every tokenizer ----------------------------------------------------- */

static void use(const tokenizer *t, str text, bool special) {
    static dp_token ids[IDS_MAX];
    dp_error err = { 0 };
    size_t n, again;
    if (!tokenizer_encode(t, text, special, special, ids, IDS_MAX, &n, &err)) {
        require(err.status == DP_E_LIMIT || err.status == DP_E_MEMORY);
        return;
    }
    require(tokenizer_encode(t, text, special, special, NULL, 0, &again, &err) && again == n);
    uint8_t marks[TEXT_MAX + sizeof(fixed)];
    for (size_t i = 0; i < text.size; i++)
        marks[i] = i % 2;
    require(tokenizer_encode_marked(t, text, marks, special, special, NULL, 0, &again, &err));
    n = n < IDS_MAX ? n : IDS_MAX;
    for (size_t i = 0; i < n; i++) {
        require(ids[i] < tokenizer_n_tokens(t));
        /* Of plain text only what the description puts around it may be a control token. */
        require(special || !tokenizer_is_special(t, ids[i]) || ids[i] == t->unk ||
                t->byte_fallback);
    }
    buf whole, parts;
    buf_init(&whole, (size_t)1 << 26);
    buf_init(&parts, (size_t)1 << 26);
    decoder d;
    decoder_init(&d, t, special);
    bool ok = tokenizer_decode(t, ids, n, special, &whole, &err);
    for (size_t i = 0; ok && i < n; i++)
        ok = decoder_add(&d, ids[i], &parts, &err);
    decoder_finish(&d, &parts);
    if (ok) {
        require(whole.size == parts.size);
        require(whole.size == 0 || memcmp(whole.data, parts.data, whole.size) == 0);
    }
    buf_free(&whole);
    buf_free(&parts);
}

static void use_all(tokenizer *t, const dp_error *err, str text) {
    if (t == NULL) {
        require(err->status != DP_OK && err->message[0] != '\0');
        return;
    }
    size_t n;
    const dp_token *stops = tokenizer_stops(t, &n);
    for (size_t i = 0; i < n; i++)
        require(stops[i] < tokenizer_n_tokens(t));
    if (text.size > TEXT_MAX) text.size = TEXT_MAX;
    for (int special = 0; special < 2; special++) {
        use(t, (str){ fixed, sizeof(fixed) - 1 }, special);
        use(t, text, special);
    }
    tokenizer_close(t);
}

/* ---- tokenizer.json ------------------------------------------------------------------------ */

static str take_until(str *rest, char end) {
    const char *at = rest->size > 0 ? memchr(rest->data, end, rest->size) : NULL;
    const size_t n = at ? (size_t)(at - rest->data) : rest->size;
    const str taken = { rest->data, n };
    rest->data += n + (at != NULL);
    rest->size -= n + (at != NULL);
    return taken;
}

static void fuzz_json(str rest) {
    const str description = take_until(&rest, '\0'), config = take_until(&rest, '\0');
    dp_error err = { 0 }, ignored = { 0 };
    json *doc = json_open(description, "tokenizer.json", &err);
    if (doc == NULL) return;
    json *second = json_open(config, "tokenizer_config.json", &ignored);
    const json_value *root = second ? json_root(second) : NULL;
    const tokenizer_files files = { .tokenizer = json_root(doc),
                                    .tokenizer_config = root,
                                    .special_tokens_map = root,
                                    .generation_config = root,
                                    .config = root };
    tokenizer *t = tokenizer_from_json(&files, NULL, &err);
    json_close(second);
    json_close(doc);
    use_all(t, &err, rest);
}

/* ---- GGUF metadata ------------------------------------------------------------------------- */

static const char *const keys[KEYS] = {
    "tokenizer.ggml.model",
    "tokenizer.ggml.pre",
    "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.unknown_token_id",
    "tokenizer.ggml.add_bos_token",
    "tokenizer.ggml.add_eos_token",
    "tokenizer.ggml.add_space_prefix",
    "tokenizer.chat_template",
    "general.name",
    "tokenizer.ggml.eom_token_id",
    "tokenizer.ggml.remove_extra_whitespaces",
    "tokenizer.ggml.precompiled_charsmap",
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.token_type",
    "tokenizer.ggml.scores",
    "tokenizer.ggml.merges",
};

typedef struct {
    meta_value value[KEYS];
    bool set[KEYS];
} metadata;

static const meta_value *get_value(const void *user, const char *key) {
    const metadata *m = user;
    for (size_t i = 0; i < KEYS; i++) {
        if (strcmp(keys[i], key) == 0) return m->set[i] ? &m->value[i] : NULL;
    }
    return NULL;
}

static void fuzz_meta(str rest) {
    static str tokens[LIST_MAX], merges[LIST_MAX];
    static int64_t types[LIST_MAX];
    static double scores[LIST_MAX];
    static int64_t charsmap_bytes[CHARSMAP_MAX];
    uint32_t n_charsmap = 0;
    uint32_t n_tokens = 0, n_merges = 0;
    metadata m = { 0 };
    metadata given = { 0 };
    while (rest.size > 0) {
        const str line = take_until(&rest, '\n');
        if (line.size == 0) break;
        const char kind = line.data[0];
        if (kind == 't' && line.size >= 3 && n_tokens < LIST_MAX) {
            types[n_tokens] = line.data[1] - '0';
            scores[n_tokens] = (double)(uint8_t)line.data[2];
            tokens[n_tokens++] = (str){ line.data + 3, line.size - 3 };
        } else if (kind == 'm' && n_merges < LIST_MAX) {
            merges[n_merges++] = (str){ line.data + 1, line.size - 1 };
        } else if (kind == 'c') {
            for (size_t i = 1; i + 1 < line.size && n_charsmap < CHARSMAP_MAX; i += 2)
                charsmap_bytes[n_charsmap++] =
                    (line.data[i] & 15) * 16 + (line.data[i + 1] & 15); /* 0123456789:;<=>? */
        } else if (line.size >= 2 && strchr("siba", kind) != NULL) {
            const size_t key = ((uint8_t)line.data[1] - (size_t)'@') % KEYS;
            const str rest_of_line = { line.data + 2, line.size - 2 };
            int64_t number = 0;
            (void)str_to_i64(rest_of_line, &number);
            given.set[key] = true;
            given.value[key] =
                kind == 's'   ? (meta_value){ .type = META_STRING, .s = rest_of_line }
                : kind == 'i' ? (meta_value){ .type = META_INT, .i = number }
                : kind == 'b'
                    ? (meta_value){ .type = META_BOOL, .b = number != 0 }
                    : (meta_value){ .type = META_ARRAY, .element = META_INT, .ints = types };
        }
    }
    const meta_value lists[] = {
        { .type = META_ARRAY, .element = META_UINT, .n = n_charsmap, .ints = charsmap_bytes },
        { .type = META_ARRAY, .element = META_STRING, .n = n_tokens, .strings = tokens },
        { .type = META_ARRAY, .element = META_INT, .n = n_tokens, .ints = types },
        { .type = META_ARRAY, .element = META_FLOAT, .n = n_tokens, .floats = scores },
        { .type = META_ARRAY, .element = META_STRING, .n = n_merges, .strings = merges },
    };
    for (size_t i = 0; i < KEYS; i++) {
        m.set[i] = given.set[i] || i > KEYS - ARRAY_LEN(lists) ||
                   (i == KEYS - ARRAY_LEN(lists) && n_charsmap > 0);
        m.value[i] =
            given.set[i] || !m.set[i] ? given.value[i] : lists[i - (KEYS - ARRAY_LEN(lists))];
    }
    dp_error err = { 0 };
    tokenizer *t = tokenizer_from_meta(get_value, &m, NULL, &err);
    use_all(t, &err, rest);
}

/* ---- tokenizer.model ----------------------------------------------------------------------- */

static void fuzz_model(str rest) {
    if (rest.size < 2) return;
    size_t size = (size_t)(uint8_t)rest.data[0] << 8 | (uint8_t)rest.data[1];
    rest.data += 2;
    rest.size -= 2;
    size = size < rest.size ? size : rest.size;
    const str model = { rest.data, size };
    rest.data += size;
    rest.size -= size;
    const str first = take_until(&rest, '\0'), second = take_until(&rest, '\0');
    dp_error err = { 0 }, ignored = { 0 };
    json *added = json_open(first, "added_tokens.json", &ignored);
    json *config = json_open(second, "tokenizer_config.json", &ignored);
    const tokenizer_files files = { .model = model,
                                    .added_tokens = added ? json_root(added) : NULL,
                                    .tokenizer_config = config ? json_root(config) : NULL };
    tokenizer *t = tokenizer_from_spm(&files, NULL, &err);
    json_close(added);
    json_close(config);
    use_all(t, &err, rest);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;
    const str rest = { (const char *)data + 1, size - 1 };
    if (data[0] == 'M') {
        fuzz_model(rest);
    } else if (data[0] == 'G') {
        fuzz_meta(rest);
    } else {
        fuzz_json(rest);
    }
    return 0;
}
