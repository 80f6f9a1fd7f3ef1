/* tokens: texts in, ids out, and back; the commands `tokenize` and `detokenize`.
 *
 * Texts are bytes: nothing is trimmed, decoded or required to be UTF-8. */
#include "app/app.h"

#include <errno.h>
#include <inttypes.h>
#include <unistd.h>

/* ---- reading ------------------------------------------------------------------------------- */

static bool read_stream(FILE *in, const char *name, buf *out, dp_error *err) {
    char piece[16384];
    for (;;) {
        errno = 0;
        const size_t n = fread(piece, 1, sizeof(piece), in);
        buf_add(out, piece, n);
        if (!buf_ok(out, name, err) || !check_interrupted(err)) return false;
        if (n == sizeof(piece) || (n > 0 && !feof(in) && !ferror(in))) continue;
        if (!ferror(in)) return true;
        return err_set(err, DP_E_FILE, "%s: cannot be read: %s", name, strerror(errno));
    }
}

bool read_input(const char *path, buf *bytes, dp_error *err) {
    buf_init(bytes, TEXT_BYTES_MAX);
    if (strcmp(path, "-") == 0) return read_stream(stdin, "standard input", bytes, err);
    FILE *in = fopen(path, "rb");
    if (in == NULL) {
        return err_set(err, DP_E_FILE, "%s: cannot be opened: %s", path, strerror(errno));
    }
    const bool ok = read_stream(in, path, bytes, err);
    fclose(in);
    return ok;
}

bool read_text(const options *o, buf *text, dp_error *err) {
    buf_init(text, TEXT_BYTES_MAX);
    if (o->prompt != NULL && o->file != NULL) {
        return err_set(err, DP_E_ARGUMENT, "-p and -f: give one of them");
    }
    if (o->prompt != NULL) {
        buf_add_str(text, str_of(o->prompt));
        return buf_ok(text, "-p", err);
    }
    const char *path = o->file != NULL ? o->file : "-";
    if (strcmp(path, "-") == 0 && isatty(STDIN_FILENO)) {
        return err_set(err, DP_E_ARGUMENT, "no text: give -p TEXT or -f FILE, or pipe one in");
    }
    return read_input(path, text, err);
}

/* ---- to tokens ----------------------------------------------------------------------------- */

bool tokens_of_text(const dp_model *model, str text, bool add_special, bool parse_special,
                    token_list *list, dp_error *err) {
    size_t room = text.size / 2 + 16; /* most texts take a quarter of their bytes */
    for (;;) {
        dp_token *ids = mem_resize(list->ids, room, sizeof(dp_token), "tokens", err);
        if (ids == NULL) return false;
        list->ids = ids;
        if (!dp_tokenize(model, text.size > 0 ? text.data : "", text.size, add_special,
                         parse_special, ids, room, &list->n, err)) {
            return false;
        }
        if (list->n <= room) return true;
        room = list->n;
    }
}

bool tokens_of_ids(str text, const char *name, token_list *list, dp_error *err) {
    /* Every id takes a digit and, but for the last, something between. */
    list->ids = mem_new(text.size / 2 + 1, sizeof(dp_token), "tokens", err);
    if (list->ids == NULL) return false;
    const char *between = " \t\r\n,[]";
    for (size_t i = 0; i < text.size;) {
        if (text.data[i] != '\0' && strchr(between, text.data[i]) != NULL) {
            i++;
            continue;
        }
        size_t end = i;
        while (end < text.size && (text.data[end] == '\0' || !strchr(between, text.data[end]))) {
            end++;
        }
        const str word = { text.data + i, end - i };
        uint64_t id;
        if (!str_to_u64(word, &id) || id >= DP_NO_TOKEN) {
            return err_set(err, DP_E_ARGUMENT, "%s: \"%.*s\" is not a token id", name,
                           STR_ARG(word));
        }
        list->ids[list->n++] = (dp_token)id;
        i = end;
    }
    return true;
}

bool tokens_of_prompt(const engine *e, const options *o, token_list *list, dp_error *err) {
    buf text;
    bool ok = read_text(o, &text, err) &&
              tokens_of_text(e->model, (str){ text.data, text.size }, !o->no_bos, true, list, err);
    const dp_token bos = dp_model_bos(e->model);
    if (ok && list->n == 0) {
        if (bos == DP_NO_TOKEN || o->no_bos) {
            ok = err_set(err, DP_E_ARGUMENT,
                         "the prompt is empty and there is no bos token to begin with");
        } else {
            list->ids[list->n++] = bos; /* tokens_of_text leaves room */
        }
    }
    if (ok && !o->no_bos && list->n > 1 && list->ids[0] == bos && list->ids[1] == bos) {
        list->n--; /* the text spells out what the tokenizer added */
        memmove(list->ids, list->ids + 1, list->n * sizeof(dp_token));
    }
    buf_free(&text);
    return ok;
}

/* ---- to text ------------------------------------------------------------------------------- */

bool text_of_tokens(const dp_model *model, const dp_token *ids, size_t n, bool special, buf *out,
                    dp_error *err) {
    char few[256];
    size_t size;
    if (!dp_detokenize(model, ids, n, special, few, sizeof(few), &size, err)) return false;
    if (size <= sizeof(few)) {
        buf_add(out, few, size);
        return buf_ok(out, "a text", err);
    }
    char *all = mem_new(size, 1, "a text", err);
    const bool ok = all != NULL && dp_detokenize(model, ids, n, special, all, size, &size, err);
    if (ok) buf_add(out, all, size);
    mem_free(all);
    return ok && buf_ok(out, "a text", err);
}

/* ---- commands ------------------------------------------------------------------------------ */

const option tokenize_options[] = {
    { "-p", "TEXT", "the text", OPT_TEXT, FIELD(prompt) },
    { "-f", "FILE", "a file with the text; without -p and -f standard input", OPT_TEXT,
      FIELD(file) },
    { "--special", NULL, "spelt-out control tokens become tokens", OPT_FLAG, FIELD(special) },
    { "--no-bos", NULL, "do not add what the tokenizer puts around a text", OPT_FLAG,
      FIELD(no_bos) },
    { .name = NULL },
};

/* A line per token: the id, a tab and the piece as a JSON string. A token's piece in mid-text is
 * what it adds to the one before it: SentencePiece decoders drop the space of the first. */
static bool list_pieces(const dp_model *model, const token_list *list, buf *out, dp_error *err) {
    buf before, both;
    buf_init(&before, TEXT_BYTES_MAX);
    buf_init(&both, TEXT_BYTES_MAX);
    bool ok = true;
    for (size_t i = 0; i < list->n && ok; i++) {
        const size_t n = i > 0 ? 1 : 0;
        buf_reset(&before);
        buf_reset(&both);
        ok = text_of_tokens(model, list->ids + i - n, n, true, &before, err) &&
             text_of_tokens(model, list->ids + i - n, n + 1, true, &both, err);
        const size_t from = before.size < both.size ? before.size : both.size;
        buf_printf(out, "%" PRIu32 "\t", list->ids[i]);
        json_add_string(out, (str){ both.data != NULL ? both.data + from : "", both.size - from });
        buf_printf(out, "\n");
    }
    buf_free(&before);
    buf_free(&both);
    return ok;
}

int cmd_tokenize(const options *o) {
    dp_error err = { 0 };
    engine e;
    buf text, out;
    token_list list = { 0 };
    buf_init(&text, TEXT_BYTES_MAX);
    buf_init(&out, TEXT_BYTES_MAX);
    bool ok =
        engine_describe(&e, o, &err) && read_text(o, &text, &err) &&
        tokens_of_text(e.model, (str){ text.data, text.size }, !o->no_bos, o->special, &list, &err);
    if (ok && o->json) {
        json_ids(&out, NULL, list.ids, list.n);
        buf_printf(&out, "\n");
    } else if (ok) {
        ok = list_pieces(e.model, &list, &out, &err);
    }
    engine_close(&e);
    mem_free(list.ids);
    buf_free(&text);
    if (ok) return out_result(&out);
    buf_free(&out);
    return fail(&err);
}

const option detokenize_options[] = {
    { "--tokens", "IDS", "the ids, as arguments may be too; without both standard input", OPT_TEXT,
      FIELD(tokens) },
    { "--special", NULL, "spell special tokens out", OPT_FLAG, FIELD(special) },
    { .name = NULL },
};

/* Ids from --tokens, the arguments or standard input. */
static bool read_ids(const options *o, token_list *list, dp_error *err) {
    buf text;
    bool ok = true;
    if (o->tokens == NULL && o->n_rest == 0) {
        ok = read_text(o, &text, err);
    } else {
        buf_init(&text, TEXT_BYTES_MAX);
        if (o->tokens != NULL) buf_printf(&text, "%s ", o->tokens);
        for (size_t i = 0; i < o->n_rest; i++)
            buf_printf(&text, "%s ", o->rest[i]);
    }
    ok = ok && buf_ok(&text, "the ids", err) &&
         tokens_of_ids((str){ text.data, text.size }, "detokenize", list, err);
    buf_free(&text);
    return ok;
}

int cmd_detokenize(const options *o) {
    dp_error err = { 0 };
    engine e;
    buf text, out;
    token_list list = { 0 };
    buf_init(&text, TEXT_BYTES_MAX);
    buf_init(&out, TEXT_BYTES_MAX);
    const bool ok = engine_describe(&e, o, &err) && read_ids(o, &list, &err) &&
                    text_of_tokens(e.model, list.ids, list.n, o->special, &text, &err);
    if (ok && o->json) {
        json_add_string(&out, (str){ text.data, text.size });
        buf_printf(&out, "\n");
    } else if (ok) {
        buf_add(&out, text.data, text.size);
    }
    engine_close(&e);
    mem_free(list.ids);
    buf_free(&text);
    if (ok) return out_result(&out);
    buf_free(&out);
    return fail(&err);
}
