/* chat: from messages in JSON to a prompt.
 *
 * Sets up what transformers gives a template to see: messages, tools, documents, the generation
 * flag, the special tokens and the variables, all but the flag and the tokens marked as coming from
 * the input. Reasoning is known by three names; a message that has it under one gets the two that
 * templates read. */
#include "text/jinja_internal.h"

static const int64_t first_second = -62135596800, last_second = 253402300799; /* years 1, 9999 */

/* Roles that stay unmarked: templates write them between the halves of special tokens. */
static bool is_known_role(str role) {
    static const char *const known[] = { "system",  "user",      "assistant",
                                         "tool",    "developer", "function",
                                         "ipython", "model",     "environment" };
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        if (str_is(role, known[i])) return true;
    }
    return false;
}

static jvalue marked_text(jinja *j, str s, bool marked) {
    char *copy = jinja_take(j, s.size + 1, 1);
    if (copy == NULL) return jinja_none();
    if (s.size > 0) memcpy(copy, s.data, s.size);
    return jinja_text(j, copy, s.size, marked);
}

/* A JSON value as Python's json module reads it, marked. */
static jvalue value_of_json(jinja *j, const json_value *from) {
    jvalue v = jinja_none();
    str s;
    if (!jinja_enter_value(j)) return v;
    if (json_is_object(from)) {
        jdict *d = jinja_dict(j);
        for (json_iter it = json_each(from); !j->failed && json_next(&it);) {
            const jvalue key = marked_text(j, it.key, true);
            jinja_dict_put(j, d, key, value_of_json(j, it.value));
        }
        v = (jvalue){ .kind = V_DICT, .dict = d };
    } else if (json_is_array(from)) {
        jitems items = { 0 };
        for (json_iter it = json_each(from); !j->failed && json_next(&it);) {
            jinja_push(j, &items, value_of_json(j, it.value));
        }
        v = jinja_list(j, &items, V_LIST);
    } else if (json_string(from, &s)) {
        v = marked_text(j, s, true);
    } else if (json_is_bool(from)) {
        v.kind = V_BOOL;
        if (!json_bool(from, &v.b)) v.b = false;
    } else if (json_is_number(from)) {
        v = json_is_real(from) ? jinja_float(0) : jinja_int(0);
        if (!(json_is_real(from) ? json_f64(from, &v.f) : json_i64(from, &v.i))) {
            jinja_fail(j, DP_E_LIMIT,
                       "the messages, tools or variables hold an integer beyond "
                       "64 bits");
        }
    }
    v.marked = true;
    j->value_depth--;
    return v;
}

/* ---- messages ------------------------------------------------------------------------------ */

static jvalue key_of(jinja *j, const char *name) {
    return jinja_text_of(j, name);
}

/* The same message with its reasoning as "thinking", in front, and "reasoning_content". */
static jvalue with_reasoning(jinja *j, const jdict *message) {
    static const char *const names[] = { "reasoning_content", "thinking", "reasoning" };
    jvalue reasoning = jinja_none(), v;
    for (size_t i = 0; i < ARRAY_LEN(names) && reasoning.kind == V_NONE; i++) {
        if (jinja_dict_find(j, message, str_of(names[i]), &v)) reasoning = v;
    }
    if (reasoning.kind == V_NONE) return (jvalue){ .kind = V_DICT, .dict = message };
    jdict *d = jinja_dict(j);
    jinja_dict_put(j, d, key_of(j, "thinking"), reasoning);
    for (size_t i = 0; i < message->n && !j->failed; i++) {
        jinja_dict_put(j, d, message->keys[i], message->values[i]);
    }
    jinja_dict_put(j, d, key_of(j, "reasoning_content"), reasoning);
    return (jvalue){ .kind = V_DICT, .dict = d };
}

static jvalue value_of_message(jinja *j, const json_value *message) {
    jvalue v = value_of_json(j, message), role;
    if (j->failed) return v;
    jdict *d = jinja_dict(j);
    for (size_t i = 0; i < v.dict->n && !j->failed; i++) {
        jinja_dict_put(j, d, v.dict->keys[i], v.dict->values[i]);
    }
    if (jinja_dict_find(j, d, STR("role"), &role) && role.kind == V_TEXT &&
        is_known_role(jinja_str(role.text))) {
        jinja_dict_put(j, d, key_of(j, "role"),
                       jinja_text(j, role.text->data, role.text->size, false));
    }
    return with_reasoning(j, d);
}

static jvalue value_of_messages(jinja *j, const json_value *messages) {
    jitems items = { 0 };
    for (json_iter it = json_each(messages); !j->failed && json_next(&it);) {
        jinja_push(j, &items, value_of_message(j, it.value));
    }
    return jinja_list(j, &items, V_LIST);
}

/* ---- rendering ----------------------------------------------------------------------------- */

typedef struct {
    json *messages, *tools, *variables; /* NULL: not given */
} chat_documents;

static bool refuse_input(dp_error *err, const char *what, const char *expected) {
    return err_set(err, DP_E_ARGUMENT, "%s: expected %s", what, expected);
}

static bool is_array_of_objects(const json_value *v) {
    if (!json_is_array(v)) return false;
    for (json_iter it = json_each(v); json_next(&it);) {
        if (!json_is_object(it.value)) return false;
    }
    return true;
}

static bool open_documents(chat_documents *docs, const chat_input *in, dp_error *err) {
    docs->messages = json_open(in->messages, "messages", err);
    if (docs->messages == NULL) return false;
    if (!is_array_of_objects(json_root(docs->messages))) {
        return refuse_input(err, "messages", "an array of objects");
    }
    if (in->tools.size > 0) {
        docs->tools = json_open(in->tools, "tools", err);
        if (docs->tools == NULL) return false;
        if (!is_array_of_objects(json_root(docs->tools))) {
            return refuse_input(err, "tools", "an array of objects");
        }
    }
    if (in->variables.size > 0) {
        docs->variables = json_open(in->variables, "variables", err);
        if (docs->variables == NULL) return false;
        if (!json_is_object(json_root(docs->variables))) {
            return refuse_input(err, "variables", "an object");
        }
    }
    return true;
}

static bool is_utf8(str s) {
    while (s.size > 0) {
        const size_t n = utf8_next(s, NULL);
        if (n == 0) return false;
        s.data += n;
        s.size -= n;
    }
    return true;
}

static bool check_input(str chat_template, const char *name, const chat_input *in, dp_error *err) {
    if (chat_template.size > TEMPLATE_BYTES_MAX) {
        return err_set(err, DP_E_LIMIT, "%s: a chat template of %zu bytes, the limit is %d", name,
                       chat_template.size, TEMPLATE_BYTES_MAX);
    }
    if (!is_utf8(chat_template)) {
        return err_set(err, DP_E_FORMAT, "%s: a chat template that is no UTF-8", name);
    }
    if (!is_utf8(in->bos) || !is_utf8(in->eos)) {
        return err_set(err, DP_E_ARGUMENT, "%s: a bos or eos token that is no UTF-8", name);
    }
    if (in->now < first_second || in->now > last_second) {
        return err_set(err, DP_E_ARGUMENT, "%s: the time %lld is outside of the years 1 to 9999",
                       name, (long long)in->now);
    }
    return true;
}

/* Gives a variable to the template, if it knows the name. */
static void bind_variable(jinja *j, str name, jvalue v) {
    uint32_t id;
    if (!j->failed && map_get(j->symbols, name, &id)) jinja_set(j, j->scope, id, v);
}

static void bind_all(jinja *j, const chat_documents *docs, const chat_input *in) {
    for (size_t i = 0; i < n_jinja_globals; i++) {
        bind_variable(j, str_of(jinja_globals[i].entry.name),
                      (jvalue){ .kind = V_GLOBAL, .global = &jinja_globals[i] });
    }
    bind_variable(j, STR("documents"), jinja_none());
    if (in->bos.size > 0) bind_variable(j, STR("bos_token"), marked_text(j, in->bos, false));
    if (in->eos.size > 0) bind_variable(j, STR("eos_token"), marked_text(j, in->eos, false));
    for (json_iter it = json_each(json_root(docs->variables)); json_next(&it);) {
        uint32_t id;
        if (map_get(j->symbols, it.key, &id)) bind_variable(j, it.key, value_of_json(j, it.value));
    }
    bind_variable(j, STR("messages"), value_of_messages(j, json_root(docs->messages)));
    bind_variable(j, STR("tools"),
                  docs->tools == NULL ? jinja_none() : value_of_json(j, json_root(docs->tools)));
    bind_variable(j, STR("add_generation_prompt"), jinja_bool(in->add_generation_prompt));
}

static bool append_output(const jout *from, buf *out, buf *untrusted, dp_error *err) {
    const size_t before = out->size;
    buf_add(out, from->data, from->size);
    if (!buf_ok(out, "a prompt", err)) return false;
    if (untrusted == NULL) return true;
    buf_add(untrusted, from->marks, from->size);
    if (buf_ok(untrusted, "the marks of a prompt", err)) return true;
    out->size = before;
    if (out->data != NULL) out->data[before] = '\0';
    return false;
}

bool chat_render(str chat_template, const char *name_for_errors, const chat_input *in, buf *out,
                 buf *untrusted, dp_error *err) {
    if (!check_input(chat_template, name_for_errors, in, err)) return false;
    const uint64_t size =
        (uint64_t)chat_template.size + in->messages.size + in->tools.size + in->variables.size;
    const uint64_t memory = JINJA_MEMORY + size * JINJA_MEMORY_PER_BYTE;
    chat_documents docs = { 0 };
    jinja j = { .err = err,
                .name = name_for_errors,
                .line = 1,
                .now = in->now,
                .steps_max = JINJA_STEPS + size * JINJA_STEPS_PER_BYTE,
                .memory_max = (size_t)min_u64(memory, PTRDIFF_MAX / 4) };
    jout prompt = { 0 };
    bool ok = open_documents(&docs, in, err);
    if (ok) {
        hash_key(j.hash_key);
        j.symbols = map_new(64, err);
        ok = j.symbols != NULL;
    }
    if (ok) {
        const jnodes body = jinja_parse(&j, chat_template);
        j.scope = jinja_take(&j, 1, sizeof(jscope));
        j.out = &prompt;
        if (j.scope != NULL) bind_all(&j, &docs, in);
        if (!j.failed) jinja_run(&j, &body);
        ok = !j.failed && append_output(&prompt, out, untrusted, err);
    }
    arena_free(&j.memory);
    map_free(j.symbols);
    json_close(docs.messages);
    json_close(docs.tools);
    json_close(docs.variables);
    return ok;
}
