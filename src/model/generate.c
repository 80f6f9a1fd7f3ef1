/* generate: text out of a session: streaming decoding of tokens, stop strings, the end.
 *
 * Which tokens come is scheduler.c's business; here they become text. Invariant: nothing that might
 * still become a stop string is given out. Only the tail that could is held back and only new bytes
 * are searched, so the cost of a token does not grow with the text. */
#include "model/generate_internal.h"

enum {
    TEXT_PIECE_MAX = 1 << 20, /* text of one submit: DP_STEPS_MAX tokens of any length */
};

/* The caller's texts need not outlive the call. */
static bool take_stop(dp_generation *g, size_t i, dp_error *err) {
    const str stop = str_of(g->o.stop[i]);
    if (stop.size < 1 || stop.size > STOP_BYTES_MAX) {
        return err_set(err, DP_E_ARGUMENT, "stop string %zu: %zu bytes, 1 to %u expected", i + 1,
                       stop.size, STOP_BYTES_MAX);
    }
    memcpy(g->stop_bytes[i], stop.data, stop.size);
    g->stop[i] = (str){ g->stop_bytes[i], stop.size };
    return true;
}

static bool take_options(dp_generation *g, dp_error *err) {
    const dp_generate_options *o = &g->o;
    if (o->n_stop > STOPS_MAX) {
        return err_set(err, DP_E_ARGUMENT, "%zu stop strings: at most %u", o->n_stop, STOPS_MAX);
    }
    for (size_t i = 0; i < o->n_stop; i++) {
        if (!take_stop(g, i, err)) {
            return false;
        }
    }
    if (o->n_logprobs > min_u32(LOGPROBS_MAX, g->s->model->config.vocab_size)) {
        return err_set(err, DP_E_ARGUMENT, "%u logprobs: at most %u", o->n_logprobs,
                       min_u32(LOGPROBS_MAX, g->s->model->config.vocab_size));
    }
    return o->steps <= DP_STEPS_MAX ||
           err_set(err, DP_E_ARGUMENT, "%u steps: at most %u", o->steps, DP_STEPS_MAX);
}

/* ---- text and stop strings ----------------------------------------------------------------- */

/* Where the first stop string begins in text[from..), or SIZE_MAX. */
static size_t find_stop(const dp_generation *g, size_t from) {
    for (size_t at = from; at < g->text.size; at++) {
        for (size_t i = 0; i < g->o.n_stop; i++) {
            const str stop = g->stop[i];
            if (g->text.size - at >= stop.size &&
                memcmp(g->text.data + at, stop.data, stop.size) == 0) {
                return at;
            }
        }
    }
    return SIZE_MAX;
}

/* Bytes at the end of the text that are a stop string's beginning. */
static size_t held_tail(const dp_generation *g) {
    size_t longest = 0;
    for (size_t i = 0; i < g->o.n_stop; i++) {
        for (size_t n = (size_t)min_u64(g->stop[i].size - 1, g->text.size); n > longest; n--) {
            if (memcmp(g->text.data + g->text.size - n, g->stop[i].data, n) == 0) {
                longest = n;
            }
        }
    }
    return longest;
}

static void give_out(dp_generation *g, size_t n) {
    if (n == 0) {
        return;
    }
    if (g->o.on_text != NULL && !g->cancelled && !g->o.on_text(g->o.user, g->text.data, n)) {
        g->cancelled = true;
    }
    memmove(g->text.data, g->text.data + n, g->text.size - n);
    g->text.size -= n;
}

/* Takes the newest token's text in and looks for a stop string. */
static bool use_token(dp_generation *g, dp_token token, dp_error *err) {
    const size_t before = g->text.size;
    const tokenizer *t = g->s->model->tokenizer;
    if (t == NULL || token >= tokenizer_n_tokens(t)) {
        return true; /* no tokenizer, or a vocabulary padded beyond it: no text */
    }
    if (!decoder_add(&g->decoder, token, &g->text, err) ||
        !buf_ok(&g->text, "generated text", err)) {
        return false;
    }
    if (g->text.size == before || g->o.n_stop == 0) {
        return true;
    }
    const size_t at = find_stop(g, 0); /* what is held back is shorter than a stop string */
    if (at != SIZE_MAX) {
        g->text.size = at;
        g->stopped = true;
    }
    return true;
}

/* ---- tokens -------------------------------------------------------------------------------- */

bool generation_take(dp_generation *g, const dp_token *tokens, uint32_t n, bool ended,
                     dp_error *err) {
    for (uint32_t i = 0; i < n && !g->stopped; i++) {
        if (g->n_tokens++ == 0) {
            g->first_seconds = clock_seconds() - g->start;
        }
        if (g->o.on_token != NULL && (g->o.n_logprobs == 0 || g->telling_again)) {
            g->o.on_token(g->o.user, tokens[i], 0, NULL);
        }
        if (ended && i + 1 == n) {
            g->stopped = true;
        } else if (!use_token(g, tokens[i], err)) {
            return false;
        }
        /* behind this token; a stop token was drawn and not appended */
        const uint32_t draws = n - i - 1;
        if (g->stopped && draws > 0) {
            g->over_draws = draws;
            g->over_tokens = draws - (ended ? 1 : 0);
        }
    }
    give_out(g, g->stopped ? g->text.size : g->text.size - held_tail(g));
    return true;
}

bool generation_settle(dp_generation *g, dp_error *err) {
    dp_session *s = g->s;
    const uint32_t tokens = g->over_tokens, draws = g->over_draws;
    g->over_tokens = g->over_draws = 0;
    return (draws == 0 && s->model->slots[s->slot].has_logits) ||
           session_take_back(s, tokens, draws, err);
}

void generation_end(dp_generation *g) {
    assert(!g->ended);
    if (g->failure.status == DP_OK && !g->stopped && g->s->model->tokenizer != NULL) {
        /* half a character or half a stop string: it will not be completed */
        decoder_finish(&g->decoder, &g->text);
        give_out(g, g->text.size);
    }
    g->s->cancelled = false;
    g->seconds = clock_seconds() - g->start;
    g->ended = true;
    buf_free(&g->text);
}

bool generation_init(dp_generation *g, dp_session *s, const dp_generate_options *options,
                     dp_error *err) {
    *g = (dp_generation){ .s = s, .start = clock_seconds() };
    if (options != NULL) {
        g->o = *options;
    }
    if (!take_options(g, err)) {
        return false;
    }
    const uint32_t limit = g->o.max_tokens == 0 ? UINT32_MAX : g->o.max_tokens;
    const uint32_t answered = g->o.n_answered;
    if (answered > s->n || answered > limit) {
        return err_set(err, DP_E_ARGUMENT, "%u tokens of the answer: the session has %u, %u may be",
                       answered, s->n, limit);
    }
    g->room = min_u32(limit - answered, s->model->shapes.context - s->n);
    decoder_init(&g->decoder, s->model->tokenizer, g->o.special);
    g->decoder.started = s->n > answered; /* the answer goes on from the prompt */
    buf_init(&g->text, TEXT_PIECE_MAX);
    return true;
}

bool generation_tell_again(dp_generation *g, dp_error *err) {
    const uint32_t n = g->o.n_answered;
    g->telling_again = true;
    const bool ok = generation_take(g, g->s->tokens + g->s->n - n, n, false, err);
    g->telling_again = false;
    return ok;
}

bool dp_generation_ended(const dp_generation *g) {
    return g->ended;
}

bool dp_generation_result(const dp_generation *g, dp_generate_result *result, dp_error *err) {
    if (!g->ended) {
        return err_set(err, DP_E_ARGUMENT, "the generation has not ended");
    }
    if (g->failure.status != DP_OK) {
        return err_set(err, g->failure.status, "%s", g->failure.message);
    }
    if (result != NULL) {
        *result = (dp_generate_result){ .finish = g->cancelled ? DP_FINISH_CANCELLED
                                                  : g->stopped ? DP_FINISH_STOP
                                                               : DP_FINISH_LENGTH,
                                        .n_tokens = g->n_tokens,
                                        .first_seconds = g->first_seconds,
                                        .seconds = g->seconds };
    }
    return true;
}
