/* template: conversations to prompts by the model's chat template: the command `template`, and what
 * `run --chat` and `chat` share with it. */
#include "app/app.h"

#include <string.h>

const option chat_options[] = {
    { "--system", "TEXT", "a system message in front of the conversation", OPT_TEXT,
      FIELD(system) },
    { "--chat-template", "FILE", "a Jinja template instead of the model's own", OPT_TEXT,
      FIELD(chat_template) },
    { "--variables", "JSON", "variables for the template, as {\"enable_thinking\": false}",
      OPT_TEXT, FIELD(variables) },
    { .name = NULL },
};

const option template_options[] = {
    { "--messages", "FILE", "a JSON array of messages; - is standard input", OPT_TEXT,
      FIELD(messages) },
    { "--tools", "FILE", "a JSON array of tools that the model may call", OPT_TEXT, FIELD(tools) },
    { "--no-generation-prompt", NULL, "leave out what opens the answer", OPT_FLAG,
      FIELD(no_generation_prompt) },
    { .name = NULL },
};

/* ---- setting up ---------------------------------------------------------------------------- */

/* A file as a C string: one with a zero byte would end early. */
static bool read_c_text(const char *path, buf *bytes, const char **text, dp_error *err) {
    if (!read_input(path, bytes, err)) return false;
    const char *zero = bytes->size > 0 ? memchr(bytes->data, 0, bytes->size) : NULL;
    if (zero != NULL) {
        return err_set(err, DP_E_FORMAT, "%s: byte %zu is zero, expected a text", path,
                       (size_t)(zero - bytes->data));
    }
    *text = bytes->size > 0 ? bytes->data : "";
    return true;
}

/* The engine would refuse them too, as what a file says and without the option's name. */
static bool check_variables(const char *text, dp_error *err) {
    json *doc = json_open(str_of(text), "--variables", err);
    const bool ok = doc != NULL && (json_is_object(json_root(doc)) ||
                                    err_set(err, DP_E_ARGUMENT, "--variables: is no JSON object"));
    if (err->status == DP_E_FORMAT || err->status == DP_E_LIMIT) err->status = DP_E_ARGUMENT;
    json_close(doc);
    return ok;
}

bool chat_setup_read(chat_setup *s, const options *o, dp_error *err) {
    *s = (chat_setup){ .how = { .variables = o->variables,
                                .no_generation_prompt = o->no_generation_prompt } };
    return (o->variables == NULL || check_variables(o->variables, err)) &&
           (o->chat_template == NULL ||
            read_c_text(o->chat_template, &s->template_bytes, &s->how.chat_template, err)) &&
           (o->tools == NULL || read_c_text(o->tools, &s->tool_bytes, &s->how.tools, err));
}

void chat_setup_free(chat_setup *s) {
    buf_free(&s->template_bytes);
    buf_free(&s->tool_bytes);
}

void chat_add_message(buf *messages, const char *role, str content) {
    json_item(messages);
    buf_printf(messages, "{");
    json_text(messages, "role", str_of(role));
    json_text(messages, "content", content);
    buf_printf(messages, "}");
}

/* ---- prompts ------------------------------------------------------------------------------- */

bool tokens_of_chat(const dp_model *model, str messages, const dp_chat_options *how,
                    token_list *list, dp_error *err) {
    size_t room = messages.size / 2 + 256; /* most texts take a quarter of their bytes */
    for (;;) {
        dp_token *ids = mem_resize(list->ids, room, sizeof(dp_token), "tokens", err);
        if (ids == NULL) return false;
        list->ids = ids;
        if (!dp_chat_tokenize(model, messages.data, messages.size, how, ids, room, &list->n, err)) {
            return false;
        }
        if (list->n == 0) return err_set(err, DP_E_ARGUMENT, "the rendered prompt is empty");
        if (list->n <= room) return true;
        room = list->n;
    }
}

static bool text_of_chat(const dp_model *model, str messages, const dp_chat_options *how, buf *out,
                         dp_error *err) {
    size_t room = 2 * messages.size + 4096;
    for (;;) {
        size_t n;
        char *text = mem_new(room, 1, "a prompt", err);
        const bool ok = text != NULL && dp_chat_render(model, messages.data, messages.size, how,
                                                       text, room, &n, err);
        if (ok && n <= room) buf_add(out, text, n);
        mem_free(text);
        if (!ok) return false;
        if (n <= room) return buf_ok(out, "the prompt", err);
        room = n;
    }
}

/* ---- the command --------------------------------------------------------------------------- */

static bool check_inputs(const options *o, dp_error *err) {
    if (o->messages == NULL) {
        return err_set(err, DP_E_ARGUMENT, "template: needs --messages FILE");
    }
    const char *files[] = { o->messages, o->tools, o->chat_template };
    size_t n = 0;
    for (size_t i = 0; i < ARRAY_LEN(files); i++)
        n += files[i] != NULL && strcmp(files[i], "-") == 0;
    return n <= 1 || err_set(err, DP_E_ARGUMENT, "template: standard input serves one option");
}

/* The messages as they are, or with --system one more in front. Syntax is looked at here, where the
 * file's name is known. */
static bool read_messages(const options *o, buf *out, dp_error *err) {
    if (!read_input(o->messages, out, err)) return false;
    json *doc = json_open((str){ out->data != NULL ? out->data : "", out->size }, o->messages, err);
    const bool ok =
        doc != NULL && (json_is_array(json_root(doc)) ||
                        err_set(err, DP_E_FORMAT, "%s: is no array of messages", o->messages));
    if (ok && o->system != NULL) {
        buf_reset(out);
        buf_printf(out, "[");
        chat_add_message(out, "system", str_of(o->system));
        for (json_iter it = json_each(json_root(doc)); json_next(&it);) {
            json_item(out);
            json_add_value(out, it.value);
        }
        buf_printf(out, "]");
    }
    json_close(doc);
    return ok && buf_ok(out, "the messages", err);
}

int cmd_template(const options *o) {
    dp_error err = { 0 };
    engine e = { .model = NULL };
    chat_setup setup = { .how = { 0 } };
    token_list list = { 0 };
    buf messages, text, out;
    buf_init(&messages, TEXT_BYTES_MAX);
    buf_init(&text, TEXT_BYTES_MAX);
    buf_init(&out, TEXT_BYTES_MAX);
    bool ok = check_inputs(o, &err) && chat_setup_read(&setup, o, &err) &&
              read_messages(o, &messages, &err) && engine_describe(&e, o, &err);
    const str in = { messages.data, messages.size };
    ok = ok && text_of_chat(e.model, in, &setup.how, &text, &err);
    const bool refused = e.model != NULL && err.status == DP_E_ARGUMENT; /* what the files say */
    if (ok && o->json) {
        ok = tokens_of_chat(e.model, in, &setup.how, &list, &err);
        buf_printf(&out, "{");
        json_text(&out, "text", (str){ text.data, text.size });
        json_ids(&out, "tokens", list.ids, list.n);
        buf_printf(&out, "}\n");
    } else if (ok) {
        buf_add(&out, text.data, text.size);
    }
    engine_close(&e);
    chat_setup_free(&setup);
    mem_free(list.ids);
    buf_free(&messages);
    buf_free(&text);
    if (ok) return out_result(&out);
    buf_free(&out);
    const int code = fail(&err);
    return refused ? EXIT_INPUT : code;
}
