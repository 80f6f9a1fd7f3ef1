/* perplexity: how well a model foretells a text.
 *
 * The text's tokens are cut into windows that do not overlap. A window holds -c tokens, the bos
 * token in front included if the model's tokenizer puts one there, and is evaluated from an empty
 * session; every token but the first of its window is scored. The last window may be shorter.
 *     nll = -ln softmax(logits[i])[token[i + 1]],   perplexity = exp(mean nll)
 * The softmax of the scores is in double on the host; the logits come from the device. */
#include "app/app.h"

#include <inttypes.h>
#include <math.h>

enum { WINDOW = 512, ROWS = 128 }; /* rows: logits on the host at a time */

const option perplexity_options[] = {
    { "-f", "FILE", "the text; without it standard input", OPT_TEXT, FIELD(file) },
    { "-p", "TEXT", "or this text", OPT_TEXT, FIELD(prompt) },
    { "-c", "N", "tokens of a window; without it 512, or the model's context if that is less",
      OPT_COUNT, FIELD(context), .min = 2, .max = UINT32_MAX },
    { "--no-bos", NULL, "no bos token in front of a window", OPT_FLAG, FIELD(no_bos) },
    { .name = NULL },
};

typedef struct {
    uint64_t n;
    double sum, squares; /* of nll */
} score;

static double mean_of(const score *s) {
    return s->n > 0 ? s->sum / (double)s->n : 0;
}

/* Of the mean, by the spread of the single scores. */
static double standard_error(const score *s) {
    if (s->n < 2) return 0;
    const double mean = mean_of(s), n = (double)s->n;
    const double variance = s->squares / n - mean * mean;
    return variance > 0 ? sqrt(variance / (n - 1)) : 0;
}

static double negative_log_likelihood(const float *logits, uint32_t n, dp_token token) {
    double max = (double)logits[0];
    for (uint32_t i = 1; i < n; i++)
        max = fmax(max, (double)logits[i]);
    double sum = exp((double)logits[0] - max);
    for (uint32_t i = 1; i < n; i++)
        sum += exp((double)logits[i] - max);
    return log(sum) + max - (double)logits[token];
}

static bool score_window(const engine *e, const dp_token *tokens, size_t n, float *logits, score *s,
                         dp_error *err) {
    const uint32_t vocab = e->info.vocab_size;
    if (!dp_session_rewind(e->session, 0, err)) return false;
    for (size_t i = 0; i + 1 < n; i += ROWS) { /* the last token's logits foretell nothing known */
        const size_t rows = min_u64(ROWS, n - 1 - i);
        if (!dp_session_eval_all(e->session, tokens + i, rows, logits, err)) return false;
        for (size_t r = 0; r < rows; r++) {
            const double nll =
                negative_log_likelihood(logits + r * vocab, vocab, tokens[i + r + 1]);
            if (!isfinite(nll)) {
                return err_set(err, DP_E_FORMAT, "%s: the logits hold NaN or infinities", e->path);
            }
            s->sum += nll;
            s->squares += nll * nll;
            s->n++;
        }
    }
    return true;
}

/* bos: DP_NO_TOKEN for none. */
static bool score_text(const engine *e, const token_list *list, size_t window, dp_token bos,
                       score *s, uint64_t *windows, dp_error *err) {
    const size_t first = bos != DP_NO_TOKEN ? 1 : 0;
    const size_t step = window - first;
    dp_token *tokens = mem_new(window, sizeof(dp_token), "a window", err);
    float *logits = mem_new(ROWS, (size_t)e->info.vocab_size * sizeof(float), "logits", err);
    bool ok = tokens != NULL && logits != NULL;
    *windows = 0;
    for (size_t i = 0; ok && i < list->n; i += step) {
        const size_t n = min_u64(step, list->n - i);
        if (first == 1) tokens[0] = bos;
        memcpy(tokens + first, list->ids + i, n * sizeof(dp_token));
        if (first + n < 2) break; /* nothing to score */
        ok = score_window(e, tokens, first + n, logits, s, err) && check_interrupted(err);
        ++*windows;
        progress_line("%zu of %zu tokens, perplexity %.4f", i + n, list->n, exp(mean_of(s)));
    }
    progress_line("%s", "");
    mem_free(tokens);
    mem_free(logits);
    return ok;
}

/* The token that the tokenizer itself puts in front of a text. */
static bool leading_bos(const dp_model *model, dp_token *bos, dp_error *err) {
    token_list empty = { 0 };
    const bool ok = tokens_of_text(model, STR(""), true, false, &empty, err);
    *bos = ok && empty.n > 0 && empty.ids[0] == dp_model_bos(model) ? empty.ids[0] : DP_NO_TOKEN;
    mem_free(empty.ids);
    return ok;
}

static int print_score(const engine *e, const options *o, const score *s, uint64_t windows,
                       uint32_t window, double seconds) {
    const double mean = mean_of(s), deviation = standard_error(s), perplexity = exp(mean);
    buf b;
    buf_init(&b, 65536);
    if (o->json) {
        buf_printf(&b, "{");
        json_text(&b, "model", str_of(e->path));
        json_real(&b, "nll", mean);
        json_real(&b, "nll_error", deviation);
        json_real(&b, "perplexity", perplexity);
        json_real(&b, "perplexity_error", perplexity * deviation);
        json_count_of(&b, "tokens", s->n);
        json_count_of(&b, "windows", windows);
        json_count_of(&b, "context", window);
        json_real(&b, "seconds", seconds);
        buf_printf(&b, "}\n");
    } else {
        buf_printf(&b, "perplexity  %.4f +- %.4f\n", perplexity, perplexity * deviation);
        buf_printf(&b, "mean nll    %.6f\n", mean);
        buf_printf(&b, "tokens      %" PRIu64 " scored in %" PRIu64 " window%s of %" PRIu32 "\n",
                   s->n, windows, plural(windows), window);
    }
    return out_result(&b);
}

int cmd_perplexity(const options *o) {
    dp_error err = { 0 };
    engine e;
    buf text;
    token_list list = { 0 };
    score s = { 0 };
    uint64_t windows = 0;
    uint32_t window = 0;
    dp_token bos = DP_NO_TOKEN;
    double seconds = 0;
    buf_init(&text, TEXT_BYTES_MAX);
    bool ok = engine_describe(&e, o, &err) && engine_context(&e, o, WINDOW, &window, &err) &&
              read_text(o, &text, &err) &&
              tokens_of_text(e.model, (str){ text.data, text.size }, false, false, &list, &err) &&
              (o->no_bos || leading_bos(e.model, &bos, &err));
    if (ok && list.n + (bos != DP_NO_TOKEN) < 2) {
        ok = err_set(&err, DP_E_ARGUMENT, "the text has %zu token%s, too few to score one", list.n,
                     plural(list.n));
    }
    if (ok && engine_start(&e, o, window, &err)) {
        const double start = now_seconds();
        ok = score_text(&e, &list, window, bos, &s, &windows, &err);
        seconds = now_seconds() - start;
    }
    ok = ok && err.status == DP_OK;
    const int code = ok ? print_score(&e, o, &s, windows, window, seconds) : fail(&err);
    engine_close(&e);
    mem_free(list.ids);
    buf_free(&text);
    return code;
}
