/* steps: sampling, and chains of steps (sample, evaluate) on the device.
 *
 * A step reads and writes buffers of the device alone, so a submit holds many and the next one may
 * be queued before the answers of the last are read. What is queued goes on from where the device
 * is; the host learns of it later. So that a submit can be given up unread (a stop token, a stop
 * string or cancelling in the one before it), each begins by keeping the logits that it found, and
 * all else that it changes is made anew or not looked at: positions behind a session's tokens,
 * counts, the number of draws. */
#include "model/pass_internal.h"

#include <math.h>

/* ---- sampling ------------------------------------------------------------------------------ */

bool session_has_logits(const dp_session *s, dp_error *err) {
    return (s->n > 0 && s->model->slots[s->slot].has_logits) ||
           err_set(err, DP_E_ARGUMENT, "the session has no logits: evaluate a token first");
}

/* A pass of the last token of each session: the state from which the sampler goes on. */
static void fill_steps(pass *p, dp_session *const *sessions, size_t n) {
    pass_begin(p, sessions[0]->model);
    for (size_t i = 0; i < n; i++) {
        const dp_session *s = sessions[i];
        pass_add_row(p, s->tokens[s->n - 1], s->slot, s->n - 1);
        pass_want(p, s->slot);
    }
}

static bool begin_step(pass *p, dp_session *s, dp_error *err) {
    if (!session_has_logits(s, err)) {
        return false;
    }
    fill_steps(p, &s, 1);
    return recount(s, err);
}

static const gpu_plan *sampler_plan(dp_session *const *sessions, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (sessions[i]->sampling.temperature > 0) {
            return sessions[i]->model->sampled;
        }
    }
    return sessions[0]->model->greedy;
}

/* Sizes for the sampler's plans alone. */
static gpu_sizes step_sizes(const pass *p) {
    return (gpu_sizes){ .n = { [SIZE_ONE] = 1, [SIZE_ROWS] = p->n_rows, [SIZE_OUT] = p->n_out } };
}

static bool submit_and_wait(dp_model *m, gpu_encoder *e, void *out, size_t bytes, dp_error *err) {
    gpu_ticket ticket = 0;
    if (!gpu_submit(e, &ticket, err)) {
        return false;
    }
    gpu_wait(m->gpu, ticket);
    return gpu_collect(m->gpu, ticket, out, bytes, err);
}

/* The sampler's word for "no token has a number for a logit". */
static bool check_answer(const dp_model *m, const uint32_t *tokens, uint32_t n, dp_error *err) {
    for (uint32_t i = 0; i < n; i++) {
        if (tokens[i] >= m->config.vocab_size) {
            return err_set(err, DP_E_FORMAT, "%s: the logits are not numbers",
                           container_path(m->files));
        }
    }
    return true;
}

static bool sample_locked(dp_session *s, dp_token *token, dp_error *err) {
    dp_model *m = s->model;
    pass p;
    if (!begin_step(&p, s, err) || !pass_upload(&p, IGNORE_STOPS, 0, err)) {
        return false;
    }
    const gpu_sizes sizes = step_sizes(&p);
    gpu_encoder *e = gpu_begin(m->gpu);
    pass_restore(&p, e);
    gpu_encode_clear(e, gpu_part(m->buffers.answer, 0, 4));
    gpu_encode(e, sampler_plan(&s, 1), &sizes);
    gpu_encode_read(e, gpu_part(m->buffers.answer, 0, 8));
    uint32_t answer[2];
    if (!submit_and_wait(m, e, answer, sizeof answer, err)) {
        return false;
    }
    if (!check_answer(m, &answer[1], 1, err)) {
        return false;
    }
    *token = answer[1];
    s->draws++;
    m->slots[s->slot].recount |= s->pending != DP_NO_TOKEN; /* of two draws the last counts */
    s->pending = answer[1];
    return true;
}

bool dp_session_sample(dp_session *s, dp_token *token, dp_error *err) {
    gpu_lock(s->model->gpu);
    const bool ok = sample_locked(s, token, err);
    gpu_unlock(s->model->gpu);
    return ok;
}

static bool check_sessions(dp_session *const *sessions, size_t n, uint32_t n_steps, dp_error *err) {
    const dp_model *m = sessions[0]->model;
    if (n > m->shapes.sessions) {
        return err_set(err, DP_E_LIMIT, "%zu sessions in a batch, the model has %u", n,
                       m->shapes.sessions);
    }
    if (n_steps < 1) {
        return err_set(err, DP_E_ARGUMENT, "0 steps: at least 1 expected");
    }
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < i; j++) {
            if (sessions[j] == sessions[i]) {
                return err_set(err, DP_E_ARGUMENT, "session %zu of the batch is also session %zu",
                               i, j);
            }
        }
        if (sessions[i]->model != m) {
            return err_set(err, DP_E_ARGUMENT, "session %zu of the batch is of another model", i);
        }
        if (n_steps > m->shapes.context - sessions[i]->n) {
            return err_set(err, DP_E_LIMIT, "%u tokens after %u are over the context of %u tokens",
                           n_steps, sessions[i]->n, m->shapes.context);
        }
    }
    return true;
}

/* How many random numbers the session has used, to where the kernels count them. */
static bool upload_draws(dp_session *s, dp_error *err) {
    const uint64_t at = s->slot * sizeof(sampler_state) + offsetof(sampler_state, draws);
    return gpu_write(s->model->gpu, gpu_part(s->model->buffers.samplers, at, sizeof s->draws),
                     &s->draws, err);
}

/* What was given up unread has drawn and counted on the device. */
static void take_back_draws(dp_session *s) {
    s->model->slots[s->slot].recount = true;
    (void)upload_draws(s, NULL); /* if the device is lost no matter */
}

bool dp_session_resume(dp_session *s, size_t n, dp_error *err) {
    if (n > s->n) {
        return err_set(err, DP_E_ARGUMENT, "cannot resume behind %zu tokens, the session has %u", n,
                       s->n);
    }
    for (uint32_t i = s->n - (uint32_t)n; i < s->n; i++) {
        s->answered[i] = true;
    }
    gpu_lock(s->model->gpu);
    s->draws = (uint32_t)n;
    s->model->slots[s->slot].recount = true;
    const bool ok = upload_draws(s, err);
    gpu_unlock(s->model->gpu);
    return ok;
}

/* ---- chains ---------------------------------------------------------------------------------- */

bool chain_begin(chain *c, dp_session *const *sessions, size_t n, bool ignore_stops,
                 dp_error *err) {
    assert(n >= 1 && n <= DECODE_ROWS);
    *c = (chain){ .m = sessions[0]->model, .n = (uint32_t)n, .ignore_stops = ignore_stops };
    for (size_t i = 0; i < n; i++) {
        dp_session *s = c->sessions[i] = sessions[i];
        if (!session_has_logits(s, err)) {
            return false;
        }
        if (s->pending != DP_NO_TOKEN) { /* drawn and not evaluated: it does not count */
            c->m->slots[s->slot].recount = true;
            s->pending = DP_NO_TOKEN;
        }
    }
    return true;
}

bool chain_settle(dp_model *m, dp_error *err) {
    chain *c = m->chain;
    if (c == NULL) {
        return true;
    }
    m->chain = NULL;
    c->live = false;
    if (c->kept == c->sent) {
        return true;
    }
    gpu_encoder *e = gpu_begin(m->gpu);
    for (uint32_t i = 0; i < c->n; i++) {
        gpu_encode_copy(e, logits_row(m->buffers.saved, m, c->sessions[i]->slot),
                        logits_row(m->buffers.logits, m, i));
    }
    c->kept = c->sent;
    return gpu_submit(e, NULL, err);
}

static bool begin_on_device(chain *c, const pass *p, dp_error *err) {
    assert(c->sent == c->read);
    for (uint32_t i = 0; i < c->n; i++) {
        if (!recount(c->sessions[i], err)) {
            return false;
        }
    }
    if (!pass_upload(p, c->ignore_stops ? IGNORE_STOPS : 0, 0, err)) {
        return false;
    }
    for (uint32_t i = 0; i < c->n && c->sent > 0; i++) { /* the rows are new, what is done stays */
        if (c->done[i]) {
            const uint32_t done = 0x80000000u;
            const gpu_range row = gpu_part(c->m->buffers.rows, i * 16ull + 12, 4);
            if (!gpu_write(c->m->gpu, row, &done, err)) {
                return false;
            }
        }
    }
    return true;
}

bool chain_submit(chain *c, uint32_t n_steps, bool last, dp_error *err) {
    assert(chain_has_room(c) && n_steps >= 1 && n_steps <= DP_STEPS_MAX);
    dp_model *m = c->m;
    pass p;
    for (uint32_t i = 0; i < c->n; i++) {
        const dp_session *s = c->sessions[i];
        if (!kv_grow(m, s->slot, s->n + c->ahead + n_steps, err)) {
            return false;
        }
    }
    fill_steps(&p, c->sessions, c->n);
    p.longest += c->ahead;
    if (!c->live && !begin_on_device(c, &p, err)) {
        return false;
    }
    const gpu_plan *sampler = sampler_plan(c->sessions, c->n);
    const gpu_sizes sizes = step_sizes(&p);
    gpu_encoder *e = gpu_begin(m->gpu);
    if (!c->live) {
        pass_restore(&p, e);
    } else if (c->kept != c->sent) {
        pass_save(&p, e);
        c->kept = c->sent;
    }
    gpu_encode_clear(e, gpu_part(m->buffers.answer, 0, c->n * 4ull));
    for (uint32_t step = 0; step < n_steps; step++) {
        gpu_encode(e, sampler, &sizes);
        p.longest++;
        if (!pass_encode(&p, &e, err)) {
            return false;
        }
    }
    if (last) {
        pass_save(&p, e);
        c->kept = c->sent + 1;
    }
    gpu_encode_read(e, gpu_part(m->buffers.answer, 0, c->n * (1ull + n_steps) * 4));
    chain_part *part = &c->parts[c->sent % CHAIN_PARTS];
    if (!gpu_submit(e, &part->ticket, err)) {
        return false;
    }
    part->n_steps = n_steps;
    part->start = clock_seconds();
    c->sent++;
    c->ahead += n_steps;
    c->live = true;
    m->chain = c;
    for (uint32_t i = 0; i < c->n; i++) {
        m->slots[c->sessions[i]->slot].has_logits = false; /* until chain_end says so */
    }
    return true;
}

/* Takes the tokens of answer i of a part in; returns how many. */
static uint32_t take_answer(chain *c, uint32_t i, uint32_t n_steps, dp_token *tokens) {
    dp_session *s = c->sessions[i];
    const uint32_t count = min_u32(c->m->answer[i], n_steps);
    for (uint32_t k = 0; k < count; k++) {
        tokens[k] = c->m->answer[(1 + (size_t)k) * c->n + i];
        const bool stop = !c->ignore_stops && dp_model_is_stop(c->m, tokens[k]);
        if (!stop) {
            s->answered[s->n] = true;
            s->tokens[s->n++] = tokens[k];
        }
        c->done[i] |= stop;
    }
    s->draws += count;
    return count;
}

/* What a submit costs by itself, the way of its answer included, shows between two of different
 * sizes. A browser that looks at the GPU now and then only makes it many times a step. */
void chain_note_pace(dp_model *m, double seconds, uint32_t n) {
    if (m->pace.n != 0 && m->pace.n != n) {
        const double more = (seconds - m->pace.part) / ((double)n - m->pace.n);
        m->pace.submit = fmax(0, seconds - fmax(0, more) * n);
    }
    m->pace.step = fmax(seconds - m->pace.submit, 0.01 * seconds) / n;
    m->pace.part = seconds;
    m->pace.n = n;
}

bool chain_collect(chain *c, dp_token *tokens, size_t stride, uint32_t *counts, dp_error *err) {
    assert(c->read < c->sent);
    dp_model *m = c->m;
    const chain_part *part = &c->parts[c->read % CHAIN_PARTS];
    const size_t words = c->n * (1 + (size_t)part->n_steps);
    gpu_wait(m->gpu, part->ticket);
    c->read++;
    if (!gpu_collect(m->gpu, part->ticket, m->answer, words * 4, err)) {
        return false;
    }
    for (uint32_t i = 0; i < c->n; i++) {
        for (uint32_t k = 0; k < min_u32(m->answer[i], part->n_steps); k++) {
            if (!check_answer(m, &m->answer[(1 + (size_t)k) * c->n + i], 1, err)) {
                c->read--; /* nothing of it counts */
                return false;
            }
        }
    }
    const double now = clock_seconds();
    if (c->read > 1) { /* the first may have waited for an evaluation */
        chain_note_pace(m, now - fmax(part->start, c->last_read), part->n_steps);
    }
    c->last_read = now;
    c->ahead -= part->n_steps;
    for (uint32_t i = 0; i < c->n; i++) {
        counts[i] = take_answer(c, i, part->n_steps, tokens + i * stride);
    }
    return true;
}

bool chain_is_done(const chain *c) {
    for (uint32_t i = 0; i < c->n; i++) {
        if (!c->done[i]) {
            return false;
        }
    }
    return true;
}

void chain_end(chain *c) {
    dp_model *m = c->m;
    const bool given_up = c->read < c->sent;
    for (uint32_t i = c->read; i < c->sent; i++) {
        gpu_drop(m->gpu, c->parts[i % CHAIN_PARTS].ticket);
    }
    bool ok = true;
    if (c->live && !given_up) {
        ok = chain_settle(m, NULL);
    } else if (c->live) { /* the first of those given up has kept what it found */
        m->chain = NULL;
        c->live = false;
    }
    for (uint32_t i = 0; i < c->n; i++) {
        dp_session *s = c->sessions[i];
        if (c->sent > 0) {
            /* a session that is done stays as it is, however many steps follow */
            m->slots[s->slot].has_logits =
                ok && (c->kept == c->read || (c->done[i] && c->kept > c->read));
        }
        if (given_up) {
            take_back_draws(s);
        }
        kv_shrink(m, s->slot, s->n);
    }
    c->sent = c->read = c->kept = c->ahead = 0;
}

/* Steps of the next submit. */
static uint32_t next_steps(uint32_t n_steps, uint32_t sent, uint32_t before) {
    const uint32_t left = n_steps - sent;
    const uint32_t fit = n_steps <= 32 ? n_steps
                         : before == 0 ? STEPS_FIRST
                                       : STEPS_GROWTH * before;
    return min_u32(min_u32(fit, DP_STEPS_MAX), left);
}

/* At most DECODE_ROWS sessions: the tiles of attend_prefill and attend_matrix hold positions, which
 * a loop on the device does not advance, so the loop stays with the kernels for a few rows. */
static bool generate_group(dp_session *const *sessions, size_t n, uint32_t n_steps,
                           bool ignore_stops, dp_token *tokens, uint32_t *counts, dp_error *err) {
    dp_model *m = sessions[0]->model;
    chain c;
    if (!chain_begin(&c, sessions, n, ignore_stops, err)) {
        return false;
    }
    uint32_t sent = 0, part = 0, got = 0, part_counts[DECODE_ROWS] = { 0 };
    bool ok = true;
    for (size_t i = 0; i < n && ok; i++) { /* all or nothing */
        ok = kv_grow(m, sessions[i]->slot, sessions[i]->n + n_steps, err);
    }
    while (ok && got < n_steps && !chain_is_done(&c)) {
        while (ok && sent < n_steps && chain_has_room(&c)) {
            part = next_steps(n_steps, sent, part);
            sent += part;
            ok = chain_submit(&c, part, sent == n_steps, err);
        }
        const uint32_t size = c.parts[c.read % CHAIN_PARTS].n_steps;
        ok = ok && chain_collect(&c, tokens + got, n_steps, part_counts, err);
        for (size_t i = 0; i < n && ok; i++) {
            counts[i] += part_counts[i];
        }
        got += size;
    }
    chain_end(&c);
    return ok;
}

bool dp_batch_generate(dp_session *const *sessions, size_t n, uint32_t n_steps, bool ignore_stops,
                       dp_token *tokens, uint32_t *counts, dp_error *err) {
    if (n == 0) {
        return true;
    }
    memset(counts, 0, n * sizeof *counts);
    if (!check_sessions(sessions, n, n_steps, err)) {
        return false;
    }
    dp_model *m = sessions[0]->model;
    bool ok = true;
    gpu_lock(m->gpu);
    for (size_t i = 0; i < n && ok; i += DECODE_ROWS) {
        ok = generate_group(sessions + i, (size_t)min_u64(n - i, DECODE_ROWS), n_steps,
                            ignore_stops, tokens + i * n_steps, counts + i, err);
    }
    gpu_unlock(m->gpu);
    return ok;
}

/* ---- reading ------------------------------------------------------------------------------- */

static bool ask_logits_locked(dp_session *s, gpu_ticket *ticket, dp_error *err) {
    dp_model *m = s->model;
    if (!session_has_logits(s, err)) {
        return false;
    }
    gpu_encoder *e = gpu_begin(m->gpu);
    gpu_encode_read(e, logits_row(m->buffers.saved, m, s->slot));
    return gpu_submit(e, ticket, err);
}

static bool take_logits_locked(dp_session *s, gpu_ticket ticket, float *logits, dp_error *err) {
    const dp_model *m = s->model;
    return gpu_collect(m->gpu, ticket, logits, m->config.vocab_size * sizeof *logits, err);
}

bool session_ask_logits(dp_session *s, gpu_ticket *ticket, dp_error *err) {
    gpu_lock(s->model->gpu);
    const bool ok = ask_logits_locked(s, ticket, err);
    gpu_unlock(s->model->gpu);
    return ok;
}

bool session_take_logits(dp_session *s, gpu_ticket ticket, float *logits, dp_error *err) {
    gpu_lock(s->model->gpu);
    const bool ok = take_logits_locked(s, ticket, logits, err);
    gpu_unlock(s->model->gpu);
    return ok;
}

bool dp_session_get_logits(dp_session *s, float *logits, dp_error *err) {
    gpu *g = s->model->gpu;
    gpu_ticket ticket = 0;
    gpu_lock(g);
    bool ok = ask_logits_locked(s, &ticket, err);
    if (ok) {
        gpu_wait(g, ticket);
        ok = take_logits_locked(s, ticket, logits, err);
    }
    gpu_unlock(g);
    return ok;
}

/* (token, bits of the logarithm) pairs as logprobs.wgsl writes them. */
static dp_logprob logprob_of(const uint32_t pair[2]) {
    dp_logprob p = { .token = pair[0] };
    memcpy(&p.logprob, &pair[1], sizeof p.logprob);
    return p;
}

/* Queues the sampler, if `draw`, and the logarithms of the n best. */
static bool ask_logprobs_locked(dp_session *s, uint32_t n, bool draw, gpu_ticket *ticket,
                                dp_error *err) {
    dp_model *m = s->model;
    pass p;
    if (!begin_step(&p, s, err) || !pass_upload(&p, IGNORE_STOPS, n, err)) {
        return false;
    }
    const gpu_sizes sizes = step_sizes(&p);
    gpu_encoder *e = gpu_begin(m->gpu);
    pass_restore(&p, e);
    if (draw) {
        gpu_encode_clear(e, gpu_part(m->buffers.answer, 0, 4));
        gpu_encode(e, sampler_plan(&s, 1), &sizes);
    }
    gpu_encode(e, m->logprobs, &sizes);
    gpu_encode_read(e, gpu_part(m->buffers.probs, 0, (1 + (uint64_t)n) * 8));
    return gpu_submit(e, ticket, err);
}

/* What was asked, once it is there. */
static bool take_logprobs_locked(dp_session *s, gpu_ticket ticket, uint32_t n, dp_logprob *drawn,
                                 dp_logprob *best, dp_error *err) {
    dp_model *m = s->model;
    uint32_t pairs[1 + LOGPROBS_MAX][2] = { { 0 } };
    if (!gpu_collect(m->gpu, ticket, pairs, (1 + (size_t)n) * sizeof pairs[0], err)) {
        return false;
    }
    for (uint32_t i = 0; i < n; i++) {
        best[i] = logprob_of(pairs[1 + i]);
    }
    if (drawn != NULL) {
        if (!check_answer(m, &pairs[0][0], 1, err)) {
            return false;
        }
        *drawn = logprob_of(pairs[0]);
        s->draws++;
        m->slots[s->slot].recount |= s->pending != DP_NO_TOKEN;
        s->pending = drawn->token;
    }
    return true;
}

bool dp_session_get_logprobs(dp_session *s, dp_logprob *best, size_t n, dp_error *err) {
    if (n > LOGPROBS_MAX || n > s->model->config.vocab_size) {
        return err_set(err, DP_E_ARGUMENT, "%zu logprobs: at most %u", n,
                       min_u32(LOGPROBS_MAX, s->model->config.vocab_size));
    }
    gpu *g = s->model->gpu;
    gpu_ticket ticket = 0;
    gpu_lock(g);
    bool ok = ask_logprobs_locked(s, (uint32_t)n, false, &ticket, err);
    if (ok) {
        gpu_wait(g, ticket);
        ok = take_logprobs_locked(s, ticket, (uint32_t)n, NULL, best, err);
    }
    gpu_unlock(g);
    return ok;
}

bool session_ask_logprobs(dp_session *s, uint32_t n, gpu_ticket *ticket, dp_error *err) {
    gpu_lock(s->model->gpu);
    const bool ok = ask_logprobs_locked(s, n, true, ticket, err);
    gpu_unlock(s->model->gpu);
    return ok;
}

bool session_take_logprobs(dp_session *s, gpu_ticket ticket, uint32_t n, dp_logprob *drawn,
                           dp_logprob *best, dp_error *err) {
    gpu_lock(s->model->gpu);
    const bool ok = take_logprobs_locked(s, ticket, n, drawn, best, err);
    gpu_unlock(s->model->gpu);
    return ok;
}

void session_drop_logprobs(dp_session *s, gpu_ticket ticket) {
    gpu_lock(s->model->gpu);
    gpu_drop(s->model->gpu, ticket);
    take_back_draws(s);
    gpu_unlock(s->model->gpu);
}

bool session_take_back(dp_session *s, uint32_t n_tokens, uint32_t n_draws, dp_error *err) {
    assert(n_tokens < s->n);
    const dp_token last = s->tokens[s->n - n_tokens - 1];
    const bool answered = s->answered[s->n - n_tokens - 1];
    if (n_tokens > 0 || !s->model->slots[s->slot].has_logits) {
        const bool cancelled = atomic_exchange(&s->cancelled, false); /* not of this evaluation */
        if (!dp_session_rewind(s, s->n - n_tokens - 1, err)) {
            return false;
        }
        s->pending = answered ? last : DP_NO_TOKEN;
        if (!dp_session_eval(s, &last, 1, err)) {
            return false;
        }
        if (cancelled) {
            s->cancelled = true;
        }
    }
    if (n_draws == 0) {
        return true;
    }
    s->draws -= n_draws;
    gpu_lock(s->model->gpu);
    const bool ok = upload_draws(s, err);
    gpu_unlock(s->model->gpu);
    return ok;
}
