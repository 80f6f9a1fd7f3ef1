/* logits: the model's raw answer after given tokens.
 *
 * After the last token as a table or JSON; of every position as raw little-endian f32 [n, vocab] in
 * a file that appears whole or not at all. */
#include "app/app.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

const option logits_options[] = {
    { "--tokens", "IDS", "evaluate these ids, e.g. 1,2,3", OPT_TEXT, FIELD(tokens) },
    { "-p", "TEXT", "or this text, taken as `run` does", OPT_TEXT, FIELD(prompt) },
    { "-f", "FILE", "or a file; without all three standard input", OPT_TEXT, FIELD(file) },
    { "--no-bos", NULL, "do not add what the tokenizer puts around a text", OPT_FLAG,
      FIELD(no_bos) },
    { "--top", "K", "only the K highest, highest first", OPT_COUNT, FIELD(top), .min = 1,
      .max = UINT32_MAX },
    { "--all", "FILE", "logits of every position to FILE, raw f32 [n, vocabulary]", OPT_TEXT,
      FIELD(all) },
    { .name = NULL },
};

typedef struct {
    dp_token token;
    float logit;
} candidate;

/* Highest first, lower ids first among equals; NaN last. */
static int compare_candidates(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    if (isnan(x->logit) != isnan(y->logit)) return isnan(x->logit) ? 1 : -1;
    if (x->logit > y->logit) return -1;
    if (x->logit < y->logit) return 1;
    return x->token < y->token ? -1 : 1;
}

static bool print_top(const engine *e, const float *logits, uint64_t k, bool as_json, buf *out,
                      dp_error *err) {
    const uint32_t n = e->info.vocab_size;
    candidate *all = mem_new(n, sizeof(candidate), "logits", err);
    if (all == NULL) return false;
    for (uint32_t i = 0; i < n; i++)
        all[i] = (candidate){ i, logits[i] };
    qsort(all, n, sizeof(candidate), compare_candidates);
    bool ok = true;
    if (as_json) {
        json_key(out, "top");
        buf_printf(out, "[");
    }
    for (uint32_t i = 0; i < min_u64(k, n) && ok; i++) {
        buf piece;
        buf_init(&piece, TEXT_BYTES_MAX);
        ok = text_of_tokens(e->model, &all[i].token, 1, true, &piece, err);
        const str text = { piece.data, piece.size };
        if (as_json) {
            json_item(out);
            buf_printf(out, "{");
            json_count_of(out, "token", all[i].token);
            json_key(out, "logit");
            json_add_f32(out, all[i].logit);
            json_text(out, "text", text);
            buf_printf(out, "}");
        } else {
            buf_printf(out, "%" PRIu32 "\t", all[i].token);
            json_add_f32(out, all[i].logit);
            buf_printf(out, "\t");
            json_add_string(out, text);
            buf_printf(out, "\n");
        }
        buf_free(&piece);
    }
    if (as_json) buf_printf(out, "]");
    mem_free(all);
    return ok;
}

static void print_all(const float *logits, uint32_t n, bool as_json, buf *out) {
    if (as_json) {
        json_key(out, "logits");
        buf_printf(out, "[");
    }
    for (uint32_t i = 0; i < n; i++) {
        if (as_json) {
            json_item(out);
        } else {
            buf_printf(out, "%" PRIu32 "\t", i);
        }
        json_add_f32(out, logits[i]);
        if (!as_json) buf_printf(out, "\n");
    }
    if (as_json) buf_printf(out, "]");
}

/* ---- every position ------------------------------------------------------------------------ */

/* The host is little-endian: so is everything that WebGPU runs on. */
static bool write_positions(const engine *e, const options *o, const token_list *list, FILE *out,
                            dp_error *err) {
    enum { PIECE_BYTES = 64 << 20 };
    const size_t row = (size_t)e->info.vocab_size * sizeof(float);
    const size_t fits = PIECE_BYTES / row > 0 ? PIECE_BYTES / row : 1;
    const size_t piece = fits < list->n ? fits : list->n;
    float *logits = mem_new(piece, row, "logits", err);
    if (logits == NULL) return false;
    bool ok = true;
    for (size_t i = 0; i < list->n && ok; i += piece) {
        const size_t n = piece < list->n - i ? piece : list->n - i;
        ok = dp_session_eval_all(e->session, list->ids + i, n, logits, err);
        if (ok && fwrite(logits, row, n, out) != n) {
            ok = err_set(err, DP_E_FILE, "%s: cannot be written: %s", o->all, strerror(errno));
        }
        progress_line("%zu of %zu tokens", i + n, list->n);
    }
    mem_free(logits);
    return ok;
}

/* Under a temporary name beside the file, then renamed: the file is whole or as it was. */
static bool save_positions(const engine *e, const options *o, const token_list *list,
                           dp_error *err) {
    char temporary[4096];
    const int n = snprintf(temporary, sizeof(temporary), "%s.%ld.part", o->all, (long)getpid());
    if (n < 0 || (size_t)n >= sizeof(temporary)) {
        return err_set(err, DP_E_ARGUMENT, "--all: a path of %zu bytes, the limit is %zu",
                       strlen(o->all), sizeof(temporary) - 32);
    }
    FILE *out = fopen(temporary, "wbx");
    if (out == NULL) {
        return err_set(err, DP_E_FILE, "%s: cannot be made: %s", o->all, strerror(errno));
    }
    bool ok = write_positions(e, o, list, out, err);
    if (ok && (fflush(out) != 0 || fsync(fileno(out)) != 0)) {
        ok = err_set(err, DP_E_FILE, "%s: cannot be written: %s", o->all, strerror(errno));
    }
    if (fclose(out) != 0 && ok) {
        ok = err_set(err, DP_E_FILE, "%s: cannot be closed: %s", o->all, strerror(errno));
    }
    if (ok && rename(temporary, o->all) != 0) {
        ok = err_set(err, DP_E_FILE, "%s: cannot be replaced: %s", o->all, strerror(errno));
    }
    if (!ok) unlink(temporary);
    return ok;
}

/* ---- the command --------------------------------------------------------------------------- */

static bool evaluate(const engine *e, const options *o, const token_list *list, buf *out,
                     dp_error *err) {
    const uint32_t vocab = e->info.vocab_size;
    float *logits = mem_new(vocab, sizeof(float), "logits", err);
    if (logits == NULL) return false;
    bool ok = o->all != NULL ? save_positions(e, o, list, err)
                             : dp_session_eval(e->session, list->ids, list->n, err);
    ok = ok && dp_session_get_logits(e->session, logits, err);
    if (ok && o->json) {
        buf_printf(out, "{");
        json_ids(out, "tokens", list->ids, list->n);
        json_count_of(out, "vocab_size", vocab);
        if (o->all != NULL) json_text(out, "file", str_of(o->all));
    }
    if (ok && o->top > 0) {
        ok = print_top(e, logits, o->top, o->json, out, err);
    } else if (ok && o->all == NULL) {
        print_all(logits, vocab, o->json, out);
    }
    if (ok && o->json) buf_printf(out, "}\n");
    mem_free(logits);
    return ok;
}

int cmd_logits(const options *o) {
    dp_error err = { 0 };
    engine e;
    token_list list = { 0 };
    uint32_t context = 0;
    buf out;
    buf_init(&out, TEXT_BYTES_MAX);
    bool ok = (o->all == NULL || check_out_path(o->all, &err)) && engine_describe(&e, o, &err);
    if (ok && o->tokens != NULL) {
        ok = (o->prompt == NULL && o->file == NULL) ||
             err_set(&err, DP_E_ARGUMENT, "--tokens: cannot go with -p or -f");
        ok = ok && tokens_of_ids(str_of(o->tokens), "--tokens", &list, &err) &&
             (list.n > 0 || err_set(&err, DP_E_ARGUMENT, "--tokens: there is no id"));
    } else if (ok) {
        ok = tokens_of_prompt(&e, o, &list, &err);
    }
    for (size_t i = 0; i < list.n && ok; i++) {
        if (list.ids[i] >= e.info.vocab_size) {
            ok = err_set(&err, DP_E_ARGUMENT, "token %" PRIu32 ": ids are below %" PRIu32,
                         list.ids[i], e.info.vocab_size);
        }
    }
    ok = ok && engine_context(&e, o, list.n, &context, &err);
    if (ok && list.n > context) {
        ok =
            err_set(&err, DP_E_ARGUMENT, "%zu tokens, the context holds %" PRIu32, list.n, context);
    }
    ok = ok && engine_start(&e, o, context, &err) && evaluate(&e, o, &list, &out, &err);
    engine_close(&e);
    mem_free(list.ids);
    if (ok) return out_result(&out);
    buf_free(&out);
    return fail(&err);
}
