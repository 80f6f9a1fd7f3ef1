/* scheduler: generations that run at the same time, their rows in shared passes, without waiting.
 *
 * Up to DECODE_ROWS of them are members of a chain (steps.c): while the host reads, decodes and
 * gives out the tokens of one submit, the device works at the next. The members of a chain do not
 * change: when one ends or others wait for a turn, nothing more is queued, what is under way is
 * taken in, and the next chain is formed. A generation that wants logprobs runs alone, one token a
 * submit. dp_generate is a scheduler of one that waits. Callbacks run without the device's lock. */
#include "model/generate_internal.h"

#include <math.h>

enum {
    STEPS_DEFAULT_MAX = 32,
    STEPS_MANY = 16, /* in a submit: the first one is smaller */
};
/* Text waits for its submit to end, and no longer than twice that, as another may be in front. */
static const double SUBMIT_SECONDS = 0.025;

struct dp_scheduler {
    dp_model *m;
    dp_generation *first; /* all that have not ended; those that were served last are last */
    bool open;            /* `steps` is a chain of `members` */
    bool closing;         /* nothing more is queued in it */
    chain steps;
    dp_generation *members[DECODE_ROWS];
    uint32_t n_members;
    uint32_t last_part;   /* steps of the newest submit; 0: none in this chain */
    dp_generation *alone; /* has asked for a token with its logprobs */
    gpu_ticket asked;
};

/* ---- the list ------------------------------------------------------------------------------ */

static void add_last(dp_scheduler *s, dp_generation *g) {
    dp_generation **link = &s->first;
    while (*link != NULL) {
        link = &(*link)->next;
    }
    *link = g;
    g->next = NULL;
}

static void take_out(dp_scheduler *s, const dp_generation *g) {
    dp_generation **link = &s->first;
    while (*link != NULL && *link != g) {
        link = &(*link)->next;
    }
    assert(*link == g);
    *link = g->next;
}

static void finish(dp_scheduler *s, dp_generation *g) {
    take_out(s, g);
    generation_end(g);
}

/* ---- one alone, with logprobs -------------------------------------------------------------- */

static void ask_alone(dp_scheduler *s, dp_generation *g) {
    take_out(s, g);
    add_last(s, g);
    if (session_ask_logprobs(g->s, g->o.n_logprobs, &s->asked, &g->failure)) {
        s->alone = g;
        g->room--;
    } else {
        finish(s, g);
    }
}

/* The token was given out: it is taken in even if somebody cancels now, and then it ends. */
static bool evaluate_alone(dp_generation *g, dp_token token, dp_error *err) {
    dp_error why = { 0 };
    if (dp_session_eval(g->s, &token, 1, &why)) {
        return true;
    }
    if (why.status == DP_E_CANCELLED) {
        g->cancelled = true;
        return dp_session_eval(g->s, &token, 1, err);
    }
    return err_set(err, why.status, "%s", why.message);
}

static void take_alone(dp_scheduler *s) {
    dp_generation *g = s->alone;
    dp_logprob drawn, best[LOGPROBS_MAX];
    s->alone = NULL;
    bool ok = session_take_logprobs(g->s, s->asked, g->o.n_logprobs, &drawn, best, &g->failure);
    if (ok) {
        const bool ended = !g->o.ignore_stops && dp_model_is_stop(s->m, drawn.token);
        if (g->o.on_token != NULL) {
            g->o.on_token(g->o.user, drawn.token, drawn.logprob, best);
        }
        ok = (ended || evaluate_alone(g, drawn.token, &g->failure)) &&
             generation_take(g, &drawn.token, 1, ended, &g->failure);
    }
    if (!ok || g->stopped || g->cancelled || g->room == 0) {
        finish(s, g);
    }
}

/* ---- the chain ----------------------------------------------------------------------------- */

static bool is_over(const dp_generation *g) {
    return g->stopped || g->cancelled || g->failure.status != DP_OK;
}

/* Gives up what is under way, and what ended ends. */
static void close_chain(dp_scheduler *s) {
    const uint32_t unread = s->steps.ahead;
    gpu_lock(s->m->gpu);
    chain_end(&s->steps);
    gpu_unlock(s->m->gpu);
    s->open = s->closing = false;
    for (uint32_t i = 0; i < s->n_members; i++) {
        dp_generation *g = s->members[i];
        g->member = false;
        g->room += unread;
        const bool settled = g->failure.status != DP_OK || generation_settle(g, &g->failure);
        if (!settled || is_over(g) || g->room == 0) {
            finish(s, g);
        }
    }
    s->n_members = 0;
}

static void fail_all(dp_scheduler *s, const dp_error *why) {
    for (uint32_t i = 0; i < s->n_members; i++) {
        if (s->members[i]->failure.status == DP_OK) {
            s->members[i]->failure = *why;
        }
    }
    close_chain(s);
}

/* Those that have waited longest; all of a chain treat stop tokens alike. */
static void open_chain(dp_scheduler *s) {
    dp_session *sessions[DECODE_ROWS];
    const bool ignore_stops = s->first->o.ignore_stops;
    s->n_members = 0;
    s->last_part = 0;
    for (dp_generation *g = s->first; g != NULL && s->n_members < DECODE_ROWS; g = g->next) {
        if (g->o.n_logprobs == 0 && g->o.ignore_stops == ignore_stops) {
            sessions[s->n_members] = g->s;
            s->members[s->n_members++] = g;
            g->member = true;
        }
    }
    for (uint32_t i = 0; i < s->n_members; i++) {
        take_out(s, s->members[i]);
        add_last(s, s->members[i]);
    }
    dp_error why = { 0 };
    gpu_lock(s->m->gpu);
    s->open = true;
    const bool begun = chain_begin(&s->steps, sessions, s->n_members, ignore_stops, &why);
    gpu_unlock(s->m->gpu);
    if (!begun) {
        fail_all(s, &why);
    }
}

/* As many steps as keep the text flowing, or, where submits cost much, as many as take as long. The
 * first comes alone, to be early. */
static uint32_t choose_by_pace(double step, double submit, uint32_t last) {
    double fit = 1;
    if (last > 0) {
        fit = step > 0 ? fmax(SUBMIT_SECONDS - submit, submit) / step : STEPS_DEFAULT_MAX;
    }
    return fit >= STEPS_DEFAULT_MAX ? STEPS_DEFAULT_MAX : fit < 1 ? 1 : (uint32_t)fit;
}

uint32_t steps_of_submit(double step, double submit, uint32_t asked, uint32_t last) {
    uint32_t most = asked;
    if (asked == 0) {
        most = choose_by_pace(step, submit, last);
    } else if (last == 0 && asked >= STEPS_MANY) {
        most = STEPS_FIRST;
    }
    return last > 0 ? min_u32(most, STEPS_GROWTH * last) : most;
}

/* How many tokens the next submit makes. */
static uint32_t choose_steps(const dp_scheduler *s) {
    uint32_t asked = 0, room = UINT32_MAX;
    for (uint32_t i = 0; i < s->n_members; i++) {
        const dp_generation *g = s->members[i];
        room = min_u32(room, g->room);
        if (g->o.steps > 0) {
            asked = asked > 0 ? min_u32(asked, g->o.steps) : g->o.steps;
        }
    }
    const double step = s->m->pace.step, submit = s->m->pace.submit;
    return min_u32(steps_of_submit(step, submit, asked, s->last_part), room);
}

/* Does anybody wait for a turn? */
static bool others_wait(const dp_scheduler *s) {
    for (const dp_generation *g = s->first; g != NULL; g = g->next) {
        if (!g->member) {
            return true;
        }
    }
    return false;
}

/* Queues what there is room for. With nothing under way afterwards the chain is closed. */
static void queue_steps(dp_scheduler *s) {
    dp_error why = { 0 };
    bool ok = true;
    while (ok && !s->closing && chain_has_room(&s->steps)) {
        const uint32_t steps = choose_steps(s);
        if (steps == 0) {
            s->closing = true;
            break;
        }
        const bool turn_over = others_wait(s);
        bool last = turn_over;
        for (uint32_t i = 0; i < s->n_members; i++) {
            last |= s->members[i]->room == steps;
        }
        gpu_lock(s->m->gpu);
        ok = chain_submit(&s->steps, steps, last, &why);
        gpu_unlock(s->m->gpu);
        if (!ok) {
            break;
        }
        for (uint32_t i = 0; i < s->n_members; i++) {
            s->members[i]->room -= steps;
        }
        s->last_part = steps;
        s->closing = turn_over;
    }
    if (ok || (s->steps.read < s->steps.sent && why.status == DP_E_MEMORY)) {
        return; /* no page is left: what is under way may be all that is needed */
    }
    if (why.status == DP_E_MEMORY && s->n_members > 1) { /* the newest makes room for the others */
        s->members[s->n_members - 1]->failure = why;
        close_chain(s);
    } else {
        fail_all(s, &why);
    }
}

/* The oldest submit has finished. */
static void take_steps(dp_scheduler *s) {
    dp_token tokens[DECODE_ROWS * DP_STEPS_MAX];
    uint32_t counts[DECODE_ROWS];
    dp_error why = { 0 };
    gpu_lock(s->m->gpu);
    const bool ok = chain_collect(&s->steps, tokens, DP_STEPS_MAX, counts, &why);
    gpu_unlock(s->m->gpu);
    if (!ok) {
        fail_all(s, &why);
        return;
    }
    bool close = chain_is_done(&s->steps);
    for (uint32_t i = 0; i < s->n_members; i++) {
        dp_generation *g = s->members[i];
        if (is_over(g)) {
            continue; /* by a stop token: the others take in what is under way */
        }
        const bool taken = generation_take(g, tokens + (size_t)i * DP_STEPS_MAX, counts[i],
                                           s->steps.done[i], &g->failure);
        s->closing |= g->stopped;
        close |= !taken || g->cancelled || (g->stopped && !s->steps.done[i]) || g->over_draws > 0;
    }
    if (close) {
        close_chain(s);
    }
}

/* ---- steps --------------------------------------------------------------------------------- */

/* Sessions that were cancelled from outside. */
static void end_cancelled(dp_scheduler *s) {
    bool close = false;
    for (dp_generation *g = s->first, *next; g != NULL; g = next) {
        next = g->next;
        if (!g->s->cancelled || is_over(g)) {
            continue;
        }
        g->cancelled = true;
        if (g->member) {
            close = true;
        } else {
            if (g == s->alone) {
                session_drop_logprobs(g->s, s->asked);
                s->alone = NULL;
            }
            finish(s, g);
        }
    }
    if (close) {
        close_chain(s);
    }
}

/* Has what is under way finished? */
static bool is_ready(const dp_scheduler *s, bool wait) {
    gpu *g = s->m->gpu;
    const gpu_ticket ticket =
        s->alone != NULL ? s->asked : s->steps.parts[s->steps.read % CHAIN_PARTS].ticket;
    gpu_lock(g);
    if (wait) {
        gpu_wait(g, ticket);
    }
    const bool ready = gpu_poll(g, ticket);
    gpu_unlock(g);
    return ready;
}

bool dp_scheduler_step(dp_scheduler *s, bool wait) {
    for (;;) {
        end_cancelled(s);
        if (s->open) {
            queue_steps(s);
        }
        const bool busy = s->alone != NULL || (s->open && s->steps.read < s->steps.sent);
        if (!busy) {
            if (s->open) {
                close_chain(s);
            }
            if (s->first == NULL) {
                return false;
            }
            if (s->first->o.n_logprobs > 0) {
                ask_alone(s, s->first);
            } else {
                open_chain(s);
            }
            continue;
        }
        if (!is_ready(s, wait)) {
            return true;
        }
        wait = false; /* once a call */
        if (s->alone != NULL) {
            take_alone(s);
        } else {
            take_steps(s);
        }
    }
}

/* ---- starting and ending ------------------------------------------------------------------- */

dp_scheduler *dp_scheduler_new(dp_model *m, dp_error *err) {
    if (m->gpu == NULL) {
        err_set(err, DP_E_ARGUMENT, "%s: was opened without a device", container_path(m->files));
        return NULL;
    }
    dp_scheduler *s = mem_new(1, sizeof *s, "scheduler", err);
    if (s != NULL) {
        s->m = m;
    }
    return s;
}

void dp_scheduler_free(dp_scheduler *s) {
    if (s == NULL) {
        return;
    }
    while (s->first != NULL) {
        dp_session_cancel(s->first->s);
        end_cancelled(s);
    }
    mem_free(s);
}

static bool start(dp_scheduler *s, dp_generation *g, dp_error *err) {
    const dp_session *session = g->s;
    if (session->model != s->m) {
        return err_set(err, DP_E_ARGUMENT, "the session is of another model than the scheduler");
    }
    for (const dp_generation *other = s->first; other != NULL; other = other->next) {
        if (other->s == session) {
            return err_set(err, DP_E_ARGUMENT, "the session has a generation that runs");
        }
    }
    g->of = s;
    if (g->o.n_answered > 0 && !generation_tell_again(g, err)) {
        return false;
    }
    if (g->room == 0 || is_over(g)) {
        generation_end(g);
        return true;
    }
    if (!session_has_logits(session, err)) {
        return false;
    }
    add_last(s, g);
    return true;
}

dp_generation *dp_generation_new(dp_scheduler *s, dp_session *session,
                                 const dp_generate_options *options, dp_error *err) {
    dp_generation *g = mem_new(1, sizeof *g, "generation", err);
    if (g == NULL) {
        return NULL;
    }
    if (generation_init(g, session, options, err) && start(s, g, err)) {
        return g;
    }
    buf_free(&g->text);
    mem_free(g);
    return NULL;
}

void dp_generation_free(dp_generation *g) {
    if (g == NULL) {
        return;
    }
    if (!g->ended) {
        dp_session_cancel(g->s);
        end_cancelled(g->of);
    }
    mem_free(g);
}

bool dp_generate(dp_session *session, const dp_generate_options *options,
                 dp_generate_result *result, dp_error *err) {
    dp_scheduler s = { .m = session->model };
    dp_generation g;
    if (!generation_init(&g, session, options, err) || !start(&s, &g, err)) {
        session->cancelled = false;
        return false;
    }
    while (dp_scheduler_step(&s, true)) {
    }
    return dp_generation_result(&g, result, err);
}
