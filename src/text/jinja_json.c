/* jinja_json: the filter tojson, which is Python's json.dumps as transformers calls it.
 *
 * Nothing is escaped for HTML. Texts keep their marks, escapes included; the punctuation that
 * json.dumps adds is not marked. */
#include "text/jinja_internal.h"

#include <math.h>
#include <stdio.h>

typedef struct {
    jinja *j;
    jout *out;
    bool ascii, sort, lines;
    const jtext *indent; /* of one level, where `lines` */
    const jtext *comma, *colon;
    uint32_t level;
} json_form;

static void dump_value(json_form *f, jvalue v);

/* The escape of a character into text[16]; false if it stands for itself. */
static bool json_escape(uint32_t code, bool ascii, char text[16]) {
    static const char plain[] = "\"\\\b\f\n\r\t", letter[] = "\"\\bfnrt";
    const char *at = code < 0x80 && code > 0 ? strchr(plain, (int)code) : NULL;
    if (at != NULL) {
        snprintf(text, 16, "\\%c", letter[at - plain]);
    } else if (code < 0x20 || (ascii && code >= 0x7F && code < 0x10000)) {
        snprintf(text, 16, "\\u%04x", (unsigned)code);
    } else if (ascii && code >= 0x10000) {
        snprintf(text, 16, "\\u%04x\\u%04x", (unsigned)(0xD800 + ((code - 0x10000) >> 10)),
                 (unsigned)(0xDC00 + (code & 0x3FF)));
    } else {
        return false;
    }
    return true;
}

static void dump_text(const json_form *f, const jtext *t) {
    jinja *j = f->j;
    jinja_put_str(j, f->out, "\"");
    size_t done = 0;
    for (size_t i = 0; i < t->size && !j->failed;) {
        uint32_t code = 0;
        char text[16];
        const size_t n = utf8_next((str){ t->data + i, t->size - i }, &code);
        if (json_escape(code, f->ascii, text)) {
            jinja_put_part(j, f->out, t, done, i);
            jinja_put(j, f->out, text, strlen(text), jinja_marked_at(t, i));
            done = i + n;
        }
        i += n > 0 ? n : 1;
    }
    jinja_put_part(j, f->out, t, done, t->size);
    jinja_put_str(j, f->out, "\"");
}

static void dump_number(const json_form *f, jvalue v) {
    if (v.kind == V_BOOL) {
        jinja_put(f->j, f->out, v.b ? "true" : "false", v.b ? 4 : 5, v.marked);
    } else if (v.kind == V_INT) {
        jinja_put_int(f->j, f->out, v.i, v.marked);
    } else if (isfinite(v.f)) {
        jinja_put_float(f->j, f->out, v.f, v.marked);
    } else {
        const char *name = isnan(v.f) ? "NaN" : v.f < 0 ? "-Infinity" : "Infinity";
        jinja_put(f->j, f->out, name, strlen(name), v.marked);
    }
}

static void dump_break(const json_form *f) {
    if (!f->lines) return;
    jinja_put_str(f->j, f->out, "\n");
    for (uint32_t i = 0; i < f->level; i++)
        jinja_put_text(f->j, f->out, f->indent);
}

static void dump_key(const json_form *f, jvalue key) {
    if (key.kind == V_TEXT) {
        dump_text(f, key.text);
        return;
    }
    if (!jinja_is_number(key) && key.kind != V_NONE) {
        jinja_wrong(f->j, "tojson: a key that is a %s", jinja_type(key));
        return;
    }
    jinja_put_str(f->j, f->out, "\"");
    if (key.kind == V_NONE) jinja_put(f->j, f->out, "null", 4, key.marked);
    if (key.kind != V_NONE) dump_number(f, key);
    jinja_put_str(f->j, f->out, "\"");
}

static void dump_dict(json_form *f, const jdict *d) {
    jinja *j = f->j;
    const jvalue *keys = d->keys, *values = d->values;
    if (f->sort && d->n > 1) {
        jvalue *sorted = jinja_take(j, 2 * d->n, sizeof(jvalue));
        if (sorted == NULL) return;
        memcpy(sorted, keys, d->n * sizeof(jvalue));
        memcpy(sorted + d->n, values, d->n * sizeof(jvalue));
        jinja_sort(j, sorted, sorted + d->n, d->n, false);
        keys = sorted;
        values = sorted + d->n;
    }
    for (size_t i = 0; i < d->n && !j->failed; i++) {
        if (i > 0) jinja_put_text(j, f->out, f->comma);
        dump_break(f);
        dump_key(f, keys[i]);
        jinja_put_text(j, f->out, f->colon);
        dump_value(f, values[i]);
    }
}

static void dump_nested(json_form *f, jvalue v) {
    jinja *j = f->j;
    const bool dict = v.kind == V_DICT;
    const size_t n = dict ? v.dict->n : v.list->n;
    if (!jinja_enter_value(j)) return;
    jinja_put_str(j, f->out, dict ? "{" : "[");
    f->level++;
    if (dict) dump_dict(f, v.dict);
    for (size_t i = 0; !dict && i < n && !j->failed; i++) {
        if (i > 0) jinja_put_text(j, f->out, f->comma);
        dump_break(f);
        dump_value(f, v.list->at[i]);
    }
    f->level--;
    if (n > 0) dump_break(f);
    jinja_put_str(j, f->out, dict ? "}" : "]");
    j->value_depth--;
}

static void dump_value(json_form *f, jvalue v) {
    switch ((jkind)v.kind) {
    case V_NONE:
        jinja_put(f->j, f->out, "null", 4, v.marked);
        break;
    case V_BOOL:
    case V_INT:
    case V_FLOAT:
        dump_number(f, v);
        break;
    case V_TEXT:
        dump_text(f, v.text);
        break;
    case V_LIST:
    case V_TUPLE:
    case V_DICT:
        dump_nested(f, v);
        break;
    default:
        jinja_wrong(f->j, "tojson: JSON has nothing like a %s", jinja_type(v));
    }
}

jvalue jinja_tojson(jinja *j, jvalue self, const jcall *call, const jvalue *args) {
    (void)call;
    jout out = { 0 };
    json_form f = { .j = j,
                    .out = &out,
                    .ascii = args[0].kind != V_ABSENT && jinja_true(args[0]),
                    .sort = args[3].kind != V_ABSENT && jinja_true(args[3]),
                    .indent = jinja_text_of(j, "").text,
                    .comma = jinja_text_of(j, ", ").text,
                    .colon = jinja_text_of(j, ": ").text };
    if (args[1].kind == V_TEXT) {
        f.lines = true;
        f.indent = args[1].text;
    } else if (jinja_is_integer(args[1])) {
        f.lines = true;
        f.indent = jinja_binary(j, OP_MUL, jinja_text_of(j, " "), args[1]).text;
    } else if (args[1].kind != V_ABSENT && args[1].kind != V_NONE) {
        return jinja_wrong(j, "tojson: an indent that is a %s", jinja_type(args[1]));
    }
    if (f.lines) f.comma = jinja_text_of(j, ",").text;
    if (args[2].kind != V_ABSENT && args[2].kind != V_NONE) {
        const jlist *both = jinja_to_list(j, args[2]);
        if (both->n != 2 || both->at[0].kind != V_TEXT || both->at[1].kind != V_TEXT) {
            return jinja_wrong(j, "tojson: separators are two texts");
        }
        f.comma = both->at[0].text;
        f.colon = both->at[1].text;
    }
    if (j->failed) return jinja_none();
    dump_value(&f, self);
    return jinja_finish(j, &out);
}
