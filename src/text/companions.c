/* companions: what the files beside a vocabulary say of it.
 *
 * From tokenizer_config.json and special_tokens_map.json come the names of bos and eos, whether
 * they are added, and the chat template; from generation_config.json and config.json what ends a
 * generation. */
#include "text/text_internal.h"

static bool config_flag(const json_value *v, const char *source, const char *key, bool fallback,
                        bool *out, dp_error *err) {
    const json_value *field = json_get(v, key);
    *out = fallback;
    return field == NULL || json_is_null(field) || json_bool(field, out) ||
           err_set(err, DP_E_FORMAT, "%s: \"%s\" is neither true nor false", source, key);
}

bool added_flags(const json_value *description, const char *source, uint16_t *flags,
                 dp_error *err) {
    static const struct {
        const char *key;
        uint16_t flag;
    } fields[] = {
        { "special", TOKEN_SPECIAL },       { "lstrip", TOKEN_LSTRIP },
        { "rstrip", TOKEN_RSTRIP },         { "single_word", TOKEN_SINGLE_WORD },
        { "normalized", TOKEN_NORMALIZED },
    };
    *flags = TOKEN_ADDED;
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        bool on;
        if (!config_flag(description, source, fields[i].key, false, &on, err)) {
            return false;
        }
        *flags = (uint16_t)(*flags | (on ? fields[i].flag : 0));
    }
    return true;
}

/* A token named by "spelling" or {"content": "spelling"}. */
static bool find_named(const tokenizer *t, const json_value *v, dp_token *out) {
    str spelling;
    return (json_string(v, &spelling) || json_string(json_get(v, "content"), &spelling)) &&
           tokenizer_find(t, spelling, out);
}

static dp_token named_token(const tokenizer *t, const tokenizer_files *files, const char *key,
                            dp_token fallback) {
    dp_token id = fallback;
    if (!find_named(t, json_get(files->tokenizer_config, key), &id)) {
        (void)find_named(t, json_get(files->special_tokens_map, key), &id);
    }
    return id;
}

/* One id or a list; those that the vocabulary does not have are told and left out. */
static bool read_stop_ids(tokenizer *t, const json_value *v, const char *name, dp_token *first,
                          dp_error *err) {
    const bool list = json_is_array(v);
    const size_t n = list ? json_count(v) : 1;
    json_iter it = json_each(v);
    for (size_t i = 0; i < n; i++) {
        uint64_t id;
        const json_value *one = list ? (json_next(&it) ? it.value : NULL) : v;
        if (one == NULL || json_is_null(one)) {
            continue;
        }
        if (!json_u64(one, &id)) {
            return err_set(err, DP_E_FORMAT, "%s: eos_token_id is no number or list of numbers",
                           name);
        }
        if (id >= t->n_tokens) {
            log_line(&t->log, DP_LOG_WARNING, "%s: eos_token_id %llu, the vocabulary has %u tokens",
                     name, (unsigned long long)id, t->n_tokens);
            continue;
        }
        if (*first == DP_NO_TOKEN) {
            *first = (dp_token)id;
        }
        if (!tokenizer_add_stop(t, (dp_token)id, err)) {
            return false;
        }
    }
    return true;
}

/* Without a template, tokenizer_config.json says whether bos and eos are added; the classes that
 * SentencePiece models use add bos by default. */
static bool read_configured_affixes(tokenizer *t, const json_value *config, bool adds_bos,
                                    dp_error *err) {
    static const char source[] = "tokenizer_config.json";
    str class = STR("");
    bool bos, eos;
    if (json_string(json_get(config, "tokenizer_class"), &class)) {
        adds_bos = str_starts(class, "Llama") || str_starts(class, "Gemma");
    }
    if (!config_flag(config, source, "add_bos_token", adds_bos, &bos, err) ||
        !config_flag(config, source, "add_eos_token", false, &eos, err)) {
        return false;
    }
    tokenizer_add_affixes(t, bos, eos);
    return true;
}

/* A string, or a list of {"name", "template"} of which "default" counts, else the first. The others
 * are kept. */
static bool read_chat_template(tokenizer *t, const tokenizer_files *files, dp_error *err) {
    str text = files->chat_template, name;
    const json_value *v = json_get(files->tokenizer_config, "chat_template");
    bool found = text.size > 0;
    if (json_is_array(v) && !tokenizer_reserve_templates(t, json_count(v), err)) {
        return false;
    }
    if (json_is_array(v)) {
        const bool from_file = found;
        for (json_iter it = json_each(v); json_next(&it);) {
            str one;
            const bool named = json_string(json_get(it.value, "name"), &name);
            const bool is_default = named && str_is(name, "default");
            if (!json_string(json_get(it.value, "template"), &one)) {
                continue;
            }
            if (!from_file && (is_default || !found)) {
                text = one;
                found = true;
            }
            if (named && !is_default && !tokenizer_put_template(t, name, one, err)) {
                return false;
            }
        }
    } else if (!found) {
        found = json_string(v, &text);
    }
    return !found || tokenizer_copy(t, text, &t->chat_template, err);
}

bool companions_read(tokenizer *t, const tokenizer_files *files, bool has_template, bool adds_bos,
                     dp_error *err) {
    dp_token first = DP_NO_TOKEN;
    uint64_t number;
    t->bos = named_token(t, files, "bos_token", t->bos);
    t->eos = named_token(t, files, "eos_token", t->eos);
    if (t->eos != DP_NO_TOKEN && !tokenizer_add_stop(t, t->eos, err)) {
        return false;
    }
    if (!read_stop_ids(t, json_get(files->generation_config, "eos_token_id"),
                       "generation_config.json", &first, err) ||
        !read_stop_ids(t, json_get(files->config, "eos_token_id"), "config.json", &first, err)) {
        return false;
    }
    if (t->eos == DP_NO_TOKEN) {
        t->eos = first;
    }
    if (t->bos == DP_NO_TOKEN && json_u64(json_get(files->config, "bos_token_id"), &number) &&
        number < t->n_tokens) {
        t->bos = (dp_token)number;
    }
    for (size_t i = 0; i < ROLE_COUNT; i++) {
        t->roles[i] = named_token(t, files, token_roles[i].config, DP_NO_TOKEN);
        if (i <= ROLE_EOM && t->roles[i] != DP_NO_TOKEN &&
            !tokenizer_add_stop(t, t->roles[i], err)) {
            return false;
        }
    }
    return (has_template || read_configured_affixes(t, files->tokenizer_config, adds_bos, err)) &&
           read_chat_template(t, files, err);
}
