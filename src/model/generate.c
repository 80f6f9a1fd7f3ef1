/* generate: text out of a session: N tokens a submit, streaming decoding, stop strings, cancelling.
 *
 * While the host reads, decodes and gives out the tokens of one submit, the device works at the
 * next. Invariant: nothing that might still become a stop string is given out. Only the tail that
 * could is held back and only new bytes are searched, so the cost of a token does not grow with the
 * text.
 * */
#include "model/model.h"

enum {
    STOPS_MAX = 16,
    STOP_BYTES_MAX = 256,
    STEPS_DEFAULT_MAX = 32,
    TEXT_PIECE_MAX = 1 << 20, /* text of one submit: DP_STEPS_MAX tokens of any length */
};
/* Text waits for its submit to end, and no longer than twice that, as another may be in front. */
static const double SUBMIT_SECONDS = 0.025;

typedef struct {
    dp_session *s;
    const dp_generate_options *o;
    decoder decoder;
    buf text; /* decoded and not given out yet */
    str stop[STOPS_MAX];
    chain steps;
    uint32_t room;      /* tokens that may still be asked for */
    uint32_t last_part; /* steps of the newest submit */
    uint32_t n_tokens;
    bool stopped, cancelled;
} generation;

static bool check_options(generation *g, const dp_generate_options *o, dp_error *err) {
    if (o->n_stop > STOPS_MAX) {
        return err_set(err, DP_E_ARGUMENT, "%zu stop strings: at most %u", o->n_stop, STOPS_MAX);
    }
    for (size_t i = 0; i < o->n_stop; i++) {
        g->stop[i] = str_of(o->stop[i]);
        if (g->stop[i].size < 1 || g->stop[i].size > STOP_BYTES_MAX) {
            return err_set(err, DP_E_ARGUMENT, "stop string %zu: %zu bytes, 1 to %u expected",
                           i + 1, g->stop[i].size, STOP_BYTES_MAX);
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
static size_t find_stop(const generation *g, size_t from) {
    for (size_t at = from; at < g->text.size; at++) {
        for (size_t i = 0; i < g->o->n_stop; i++) {
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
static size_t held_tail(const generation *g) {
    size_t longest = 0;
    for (size_t i = 0; i < g->o->n_stop; i++) {
        for (size_t n = min_u64(g->stop[i].size - 1, g->text.size); n > longest; n--) {
            if (memcmp(g->text.data + g->text.size - n, g->stop[i].data, n) == 0) {
                longest = n;
            }
        }
    }
    return longest;
}

static void give_out(generation *g, size_t n) {
    if (n == 0) {
        return;
    }
    if (g->o->on_text != NULL && !g->cancelled && !g->o->on_text(g->o->user, g->text.data, n)) {
        g->cancelled = true;
    }
    memmove(g->text.data, g->text.data + n, g->text.size - n);
    g->text.size -= n;
}

/* Takes the newest token's text in and looks for a stop string. */
static bool use_token(generation *g, dp_token token, dp_error *err) {
    const size_t before = g->text.size;
    const tokenizer *t = g->s->model->tokenizer;
    if (t == NULL || token >= tokenizer_n_tokens(t)) {
        return true; /* no tokenizer, or a vocabulary padded beyond it: no text */
    }
    if (!decoder_add(&g->decoder, token, &g->text, err) ||
        !buf_ok(&g->text, "generated text", err)) {
        return false;
    }
    if (g->text.size == before || g->o->n_stop == 0) {
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

/* One submit's tokens. */
typedef struct {
    dp_token tokens[DP_STEPS_MAX];
    uint32_t n;
    bool ended; /* the last one is a stop token */
} chunk;

/* With logprobs: one token per submit, and its evaluation. */
static bool choose_token(generation *g, chunk *c, dp_error *err) {
    dp_logprob best[LOGPROBS_MAX];
    float logprob = 0;
    if (!session_sample_logprobs(g->s, &c->tokens[0], &logprob, best, g->o->n_logprobs, err)) {
        return false;
    }
    c->n = 1;
    c->ended = !g->o->ignore_stops && dp_model_is_stop(g->s->model, c->tokens[0]);
    if (g->o->on_token != NULL) {
        g->o->on_token(g->o->user, c->tokens[0], logprob, best);
    }
    dp_error why = { 0 };
    if (c->ended || dp_session_eval(g->s, c->tokens, 1, &why)) {
        return true;
    }
    if (why.status == DP_E_CANCELLED) { /* the token was given out: take it in, then end */
        g->cancelled = true;
        return dp_session_eval(g->s, c->tokens, 1, err);
    }
    return err_set(err, why.status, "%s", why.message);
}

/* How many tokens the next submit makes: as many as keep the text flowing. */
static uint32_t choose_steps(const generation *g) {
    uint32_t steps = g->o->steps;
    if (steps == 0) {
        /* the first comes alone, to be early; as long as nothing is known of the time of a step,
         * each submit has twice the steps of the one before */
        const double time = g->s->model->step_seconds;
        const double fit = g->last_part == 0 ? 1
                           : time > 0        ? SUBMIT_SECONDS / time
                                             : 2 * g->last_part;
        steps = fit >= STEPS_DEFAULT_MAX ? STEPS_DEFAULT_MAX : fit < 1 ? 1 : (uint32_t)fit;
    }
    return min_u32(steps, g->room);
}

/* Queues what there is room for, and takes the oldest submit's tokens. */
static bool next_tokens(generation *g, chunk *c, dp_error *err) {
    bool ok = true;
    while (g->room > 0 && chain_has_room(&g->steps) && ok) {
        dp_error why = { 0 };
        const uint32_t steps = choose_steps(g);
        if (chain_submit(&g->steps, steps, steps == g->room, &why)) {
            g->room -= steps;
            g->last_part = steps;
        } else if (g->steps.read < g->steps.sent && why.status == DP_E_MEMORY) {
            break; /* no page is left: what is under way may be all that is needed */
        } else {
            ok = err_set(err, why.status, "%s", why.message);
        }
    }
    ok = ok && chain_collect(&g->steps, c->tokens, DP_STEPS_MAX, &c->n, err);
    c->ended = g->steps.done[0];
    return ok;
}

static void end_steps(generation *g) {
    gpu_lock(g->s->model->gpu);
    chain_end(&g->steps);
    gpu_unlock(g->s->model->gpu);
}

/* Takes a chunk in, token by token; after a stop string the session forgets what came behind it. */
static bool take_chunk(generation *g, const chunk *c, dp_error *err) {
    for (uint32_t i = 0; i < c->n && !g->stopped; i++) {
        g->n_tokens++;
        if (g->o->on_token != NULL && g->o->n_logprobs == 0) {
            g->o->on_token(g->o->user, c->tokens[i], 0, NULL);
        }
        if (c->ended && i + 1 == c->n) {
            g->stopped = true;
        } else if (!use_token(g, c->tokens[i], err)) {
            return false;
        }
        const uint32_t draws = c->n - i - 1; /* behind this token; a stop token is not appended */
        const uint32_t tokens = draws - (c->ended && draws > 0);
        if (g->stopped && draws > 0) {
            end_steps(g);
            if (!session_take_back(g->s, tokens, draws, err)) {
                return false;
            }
        }
    }
    give_out(g, g->stopped ? g->text.size : g->text.size - held_tail(g));
    return true;
}

/* The next submit's tokens, by chain or, with logprobs, one by one. */
static bool next_chunk(generation *g, chunk *c, dp_error *err) {
    if (g->o->n_logprobs > 0) {
        g->room--;
        return choose_token(g, c, err);
    }
    gpu_lock(g->s->model->gpu);
    const bool ok = next_tokens(g, c, err);
    gpu_unlock(g->s->model->gpu);
    return ok;
}

static bool run_steps(generation *g, double start, dp_generate_result *result, dp_error *err) {
    while (!g->stopped && !g->cancelled && (g->room > 0 || g->steps.read < g->steps.sent)) {
        if (g->s->cancelled) {
            g->cancelled = true;
            break;
        }
        chunk c = { .n = 0 };
        if (!next_chunk(g, &c, err)) {
            return false;
        }
        if (result->n_tokens == 0) {
            result->first_seconds = clock_seconds() - start;
        }
        result->n_tokens = g->n_tokens + c.n;
        if (!take_chunk(g, &c, err)) {
            return false;
        }
    }
    return true;
}

static bool run_generation(generation *g, double start, dp_generate_result *result, dp_error *err) {
    const uint32_t limit = g->o->max_tokens == 0 ? UINT32_MAX : g->o->max_tokens;
    g->room = min_u32(limit, g->s->model->shapes.context - g->s->n);
    if (g->o->n_logprobs == 0 && g->room > 0) {
        gpu_lock(g->s->model->gpu);
        const bool begun = chain_begin(&g->steps, &g->s, 1, g->o->ignore_stops, err);
        gpu_unlock(g->s->model->gpu);
        if (!begun) {
            return false;
        }
    }
    bool ok = run_steps(g, start, result, err);
    if (g->steps.m != NULL) {
        end_steps(g);
        if (ok && !g->s->model->slots[g->s->slot].has_logits) {
            ok = session_take_back(g->s, 0, 0, err);
        }
    }
    if (!ok) {
        return false;
    }
    if (!g->stopped && g->s->model->tokenizer != NULL) {
        /* half a character or half a stop string: it will not be completed */
        decoder_finish(&g->decoder, &g->text);
        give_out(g, g->text.size);
    }
    result->n_tokens = g->n_tokens;
    result->seconds = clock_seconds() - start;
    result->finish = g->cancelled ? DP_FINISH_CANCELLED
                     : g->stopped ? DP_FINISH_STOP
                                  : DP_FINISH_LENGTH;
    return true;
}

bool dp_generate(dp_session *session, const dp_generate_options *options,
                 dp_generate_result *result, dp_error *err) {
    static const dp_generate_options defaults = { 0 };
    generation g = { .s = session, .o = options != NULL ? options : &defaults };
    dp_generate_result r = { .finish = DP_FINISH_LENGTH };
    if (!check_options(&g, g.o, err)) {
        return false;
    }
    decoder_init(&g.decoder, session->model->tokenizer, g.o->special);
    g.decoder.started = session->n > 0; /* the answer goes on from the prompt */
    buf_init(&g.text, TEXT_PIECE_MAX);
    const bool ok = run_generation(&g, clock_seconds(), &r, err);
    session->cancelled = false;
    buf_free(&g.text);
    if (ok && result != NULL) {
        *result = r;
    }
    return ok;
}
