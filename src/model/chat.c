/* chat: conversations to prompts. Finds the model's chat template, renders it (src/text), and turns
 * the text to tokens so that only the template's own bytes can be control tokens.
 *
 * Where templates are, in the order of Hugging Face transformers: a folder's chat_template.jinja
 * with additional_chat_templates/tool_use.jinja, tokenizer_config.json's chat_template (a text or a
 * list of named ones), chat_template.json; in GGUF tokenizer.chat_template and
 * tokenizer.chat_template.tool_use. */
#include "model/model.h"

#include <time.h>

enum {
    CHAT_TEMPLATE_BYTES_MAX = 4 * 1024 * 1024,
    CHAT_BYTES_MAX = 64 * 1024 * 1024, /* a rendered prompt */
};

/* ---- the template -------------------------------------------------------------------------- */

/* Appends an optional file of the folder: true also if it is absent, *out is then as it was. */
static bool add_folder_file(const container *files, const char *name, buf *out, dp_error *err) {
    dp_error own = { 0 };
    return container_text(files, name, out, &own) || own.status == DP_OK ||
           err_set(err, own.status, "%s", own.message);
}

/* The template "tool_use" of a folder into *out; left empty without one. */
static bool find_tool_use_file(const dp_model *m, buf *out, dp_error *err) {
    if (!add_folder_file(m->files, "additional_chat_templates/tool_use.jinja", out, err)) {
        return false;
    }
    if (out->size > 0) {
        return true;
    }
    buf main_file;
    buf_init(&main_file, CHAT_TEMPLATE_BYTES_MAX);
    bool ok = add_folder_file(m->files, "chat_template.jinja", &main_file, err);
    const bool named_count = main_file.size == 0; /* the file goes before all of the field */
    buf_free(&main_file);
    if (!ok || !named_count) {
        return ok;
    }
    dp_error own = { 0 }; /* the tokenizer has read it: it is in the container's cache or absent */
    const json_value *doc = container_json(m->files, "tokenizer_config.json", &own);
    for (json_iter it = json_each(json_get(doc, "chat_template")); json_next(&it);) {
        str name, text;
        if (out->size == 0 && json_string(json_get(it.value, "name"), &name) &&
            str_is(name, "tool_use") && json_string(json_get(it.value, "template"), &text)) {
            buf_add_str(out, text);
        }
    }
    return true;
}

/* {"chat_template": TEXT}, which folders of multimodal models have. */
static bool find_processor_template(const dp_model *m, buf *out, dp_error *err) {
    buf bytes;
    buf_init(&bytes, CHAT_TEMPLATE_BYTES_MAX);
    json *doc = NULL;
    bool ok = add_folder_file(m->files, "chat_template.json", &bytes, err);
    if (ok && bytes.size > 0) {
        str text;
        doc = json_open((str){ bytes.data, bytes.size }, "chat_template.json", err);
        ok = doc != NULL;
        if (ok && json_string(json_get(json_root(doc), "chat_template"), &text)) {
            buf_add_str(out, text);
        }
    }
    json_close(doc);
    buf_free(&bytes);
    return ok;
}

/* Puts the template to use into *out. */
static bool find_template(const dp_model *m, const dp_chat_options *o, buf *out, dp_error *err) {
    if (o->chat_template != NULL) {
        buf_add_str(out, str_of(o->chat_template));
        return buf_ok(out, "chat template", err);
    }
    if (o->tools != NULL) {
        const meta_value *v = container_meta(m->files, "tokenizer.chat_template.tool_use");
        if (v != NULL && v->type == META_STRING) {
            buf_add_str(out, v->s);
        } else if (!find_tool_use_file(m, out, err)) {
            return false;
        }
    }
    if (out->size == 0) {
        buf_add_str(out, tokenizer_chat_template(m->tokenizer));
    }
    if (out->size == 0 && !find_processor_template(m, out, err)) {
        return false;
    }
    return buf_ok(out, "chat template", err) &&
           (out->size > 0 ||
            err_set(err, DP_E_UNSUPPORTED, "%s: has no chat template; give one, or a plain prompt",
                    container_path(m->files)));
}

/* ---- rendering ----------------------------------------------------------------------------- */

typedef struct {
    buf text;
    buf marks;    /* for each byte of the text: not 0 if it is not the template's own */
    bool has_bos; /* the template wrote the bos token in front */
} prompt;

static bool begins_with_bos(const prompt *p, str bos) {
    return bos.size > 0 && p->text.size >= bos.size && p->marks.size == p->text.size &&
           memcmp(p->text.data, bos.data, bos.size) == 0 &&
           memchr(p->marks.data, 1, bos.size) == NULL;
}

static bool add_spelling(const dp_model *m, dp_token token, buf *out, dp_error *err) {
    return token == DP_NO_TOKEN || (tokenizer_decode(m->tokenizer, &token, 1, true, out, err) &&
                                    buf_ok(out, "special token", err));
}

/* Initialises *p, which prompt_free takes back whatever happened. */
static bool render_chat(const dp_model *m, str messages, const dp_chat_options *o, prompt *p,
                        dp_error *err) {
    static const dp_chat_options defaults = { 0 };
    o = o != NULL ? o : &defaults;
    *p = (prompt){ .has_bos = false };
    buf_init(&p->text, CHAT_BYTES_MAX);
    buf_init(&p->marks, CHAT_BYTES_MAX);
    buf template, bos, eos;
    buf_init(&template, CHAT_TEMPLATE_BYTES_MAX);
    buf_init(&bos, NAME_BYTES_MAX);
    buf_init(&eos, NAME_BYTES_MAX);
    bool ok = model_needs_tokenizer(m, err) && find_template(m, o, &template, err) &&
              add_spelling(m, tokenizer_bos(m->tokenizer), &bos, err) &&
              add_spelling(m, tokenizer_eos(m->tokenizer), &eos, err);
    if (ok) {
        const chat_input in = {
            .messages = messages,
            .tools = str_of(o->tools),
            .variables = str_of(o->variables),
            .add_generation_prompt = !o->no_generation_prompt,
            .bos = { bos.data, bos.size },
            .eos = { eos.data, eos.size },
            .now = o->now != 0 ? o->now : (int64_t)time(NULL),
        };
        ok = chat_render((str){ template.data, template.size }, "chat template", &in, &p->text,
                         &p->marks, err) &&
             buf_ok(&p->text, "rendered prompt", err) && buf_ok(&p->marks, "rendered prompt", err);
        p->has_bos = ok && begins_with_bos(p, in.bos);
    }
    assert(!ok || p->marks.size == p->text.size);
    buf_free(&template);
    buf_free(&bos);
    buf_free(&eos);
    return ok;
}

static void prompt_free(prompt *p) {
    buf_free(&p->text);
    buf_free(&p->marks);
}

bool dp_chat_render(const dp_model *m, const char *messages, size_t size,
                    const dp_chat_options *options, char *text, size_t max, size_t *n,
                    dp_error *err) {
    prompt p;
    const bool ok = render_chat(m, (str){ messages, size }, options, &p, err);
    if (ok) {
        *n = p.text.size;
        if (max > 0 && p.text.size > 0) {
            memcpy(text, p.text.data, (size_t)min_u64(max, p.text.size));
        }
    }
    prompt_free(&p);
    return ok;
}

/* Most templates write the bos themselves; where one does not and the tokenizer adds it, it goes in
 * front here. */
bool dp_chat_tokenize(const dp_model *m, const char *messages, size_t size,
                      const dp_chat_options *options, dp_token *tokens, size_t max, size_t *n,
                      dp_error *err) {
    prompt p;
    bool ok = render_chat(m, (str){ messages, size }, options, &p, err);
    if (ok) {
        const bool add_bos = tokenizer_adds_bos(m->tokenizer) && !p.has_bos;
        const size_t shift = add_bos && max > 0 ? 1 : 0;
        if (shift > 0) {
            tokens[0] = tokenizer_bos(m->tokenizer);
        }
        ok = tokenizer_encode_marked(m->tokenizer, (str){ p.text.data, p.text.size },
                                     (const uint8_t *)p.marks.data, false, true,
                                     max > 0 ? tokens + shift : NULL, max - shift, n, err);
        *n += ok && add_bos ? 1 : 0;
    }
    prompt_free(&p);
    return ok;
}
