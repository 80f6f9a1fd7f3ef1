/* batch: rows of several sessions into passes, and N steps of decoding in one submit.
 *
 * A pass is filled on the host side of the model (rows, wanted logits, tiles), uploaded, and the
 * recorded plans are replayed over it. A session's state changes only after everything for it has
 * succeeded; pages taken for a failed call go back. The device's lock is held throughout. Nothing
 * here allocates. */
#include "model/model.h"

#include <stdio.h>

enum { IGNORE_STOPS = 1, WATCH = 2 }; /* in sizes.z, as in sample_finish.wgsl and watch.wgsl */

/* The pass being filled; the arrays are the model's. */
typedef struct {
    dp_model *m;
    uint32_t n_rows, n_out, n_tiles;
    uint32_t longest;             /* keys that the last position sees */
    bool watched;                 /* the rows count in buffers.watched */
    uint32_t saved[SESSIONS_MAX]; /* slot whose last logits are wanted row i; UINT32_MAX: none's */
} pass;

static void pass_begin(pass *p, dp_model *m) {
    p->m = m;
    p->n_rows = p->n_out = p->n_tiles = p->longest = 0;
    p->watched = false;
}

static void pass_add_row(pass *p, dp_token token, uint32_t place, uint32_t pos) {
    assert(p->n_rows < p->m->shapes.batch);
    const uint32_t row[4] = { token, place, pos, 0 };
    memcpy(p->m->rows[p->n_rows++], row, sizeof row);
    p->longest = max_u32(p->longest, pos + 1);
    /* the row goes to the tile before it if that is the same sequence and has room */
    uint32_t *tile = p->n_tiles > 0 ? p->m->tiles[p->n_tiles - 1] : NULL;
    if (tile != NULL && tile[2] == place && tile[3] + tile[1] == pos &&
        tile[1] < attend_tile_rows(p->m->shapes.head_vec4)) {
        tile[1]++;
        return;
    }
    const uint32_t fresh[4] = { p->n_rows - 1, 1, place, pos };
    memcpy(p->m->tiles[p->n_tiles++], fresh, sizeof fresh);
}

/* Wants the logits of the newest row; they become the slot's unless it is UINT32_MAX. */
static void pass_want(pass *p, uint32_t place) {
    assert(p->n_out < p->m->shapes.n_out && p->n_rows > 0);
    p->saved[p->n_out] = place;
    p->m->pick[p->n_out++] = p->n_rows - 1;
}

static bool pass_upload(const pass *p, uint32_t flags, uint32_t n_best, dp_error *err) {
    const dp_model *m = p->m;
    const buffers *b = &m->buffers;
    const uint32_t sizes[4] = { p->n_rows, p->n_out, flags, n_best };
    return gpu_write(m->gpu, gpu_part(b->sizes, 0, sizeof sizes), sizes, err) &&
           gpu_write(m->gpu, gpu_part(b->rows, 0, p->n_rows * 16ull), m->rows, err) &&
           gpu_write(m->gpu, gpu_part(b->tiles, 0, p->n_tiles * 16ull), m->tiles, err) &&
           (p->n_out == 0 ||
            gpu_write(m->gpu, gpu_part(b->pick, 0, p->n_out * 4ull), m->pick, err));
}

static pass_kind kind_of(uint32_t rows) {
    return rows == 1 ? PASS_ONE : rows <= DECODE_ROWS ? PASS_FEW : PASS_MANY;
}

static bool pass_encode(const pass *p, gpu_encoder **e, dp_error *err) {
    dp_model *m = p->m;
    const pass_kind kind = kind_of(p->n_rows);
    const gpu_sizes sizes = { .n = { [SIZE_ONE] = 1,
                                     [SIZE_ROWS] = p->n_rows,
                                     [SIZE_OUT] = p->n_out,
                                     [SIZE_SPLITS] = ceil_div(p->longest, p->m->shapes.span),
                                     [SIZE_TILES] = p->n_tiles,
                                     [SIZE_EXPERT_TILES] =
                                         expert_tiles_of(&m->config, p->n_rows) } };
    if (m->experts != NULL) {
        if (!experts_run(m, kind, p->n_rows, &sizes, e, err)) {
            return false;
        }
    } else {
        gpu_encode(*e, m->body[kind][0], &sizes);
    }
    if (p->n_out > 0) {
        gpu_encode(*e, m->head[kind_of(p->n_out)], &sizes);
    }
    return true;
}

static gpu_range logits_row(gpu_range rows, const dp_model *m, uint32_t i) {
    const uint64_t bytes = (uint64_t)m->config.vocab_size * sizeof(float);
    return gpu_part(rows, i * bytes, bytes);
}

/* Logits of the pass to where the slots keep theirs. Until the call has succeeded a slot has none:
 * they may be those of tokens that are not kept. */
static void encode_save(const pass *p, gpu_encoder *e) {
    for (uint32_t i = 0; i < p->n_out; i++) {
        if (p->saved[i] != UINT32_MAX) {
            p->m->slots[p->saved[i]].has_logits = false;
            gpu_encode_copy(e, logits_row(p->m->buffers.saved, p->m, p->saved[i]),
                            logits_row(p->m->buffers.logits, p->m, i));
        }
    }
}

/* And back, for the sampler. */
static void encode_restore(const pass *p, gpu_encoder *e) {
    for (uint32_t i = 0; i < p->n_out; i++) {
        gpu_encode_copy(e, logits_row(p->m->buffers.logits, p->m, i),
                        logits_row(p->m->buffers.saved, p->m, p->saved[i]));
    }
}

/* ---- penalties ----------------------------------------------------------------------------- */

/* Makes the slot's occurrence counts anew from the session's tokens. */
static bool recount(dp_session *s, dp_error *err) {
    dp_model *m = s->model;
    if (!m->slots[s->slot].recount) {
        return true;
    }
    const uint32_t vocab = m->config.vocab_size;
    memset(m->counts, 0, vocab * sizeof *m->counts);
    for (uint32_t i = 0; i < s->n; i++) {
        uint32_t *count = &m->counts[s->tokens[i]];
        *count = (*count | 0x80000000u) + (s->answered[i] ? 1 : 0);
    }
    if (s->pending != DP_NO_TOKEN) {
        m->counts[s->pending]++;
    }
    const uint64_t bytes = (uint64_t)vocab * sizeof *m->counts;
    if (!gpu_write(m->gpu, gpu_part(m->buffers.counts, s->slot * bytes, bytes), m->counts, err)) {
        return false;
    }
    m->slots[s->slot].recount = false;
    return true;
}

/* ---- evaluation ---------------------------------------------------------------------------- */

static bool check_items(const dp_batch_item *items, size_t n, dp_error *err) {
    const dp_model *m = n > 0 ? items[0].session->model : NULL;
    for (size_t i = 0; i < n; i++) {
        const dp_session *s = items[i].session;
        if (s->model != m) {
            return err_set(err, DP_E_ARGUMENT, "batch item %zu: its session is of another model",
                           i);
        }
        for (size_t j = 0; j < i; j++) {
            if (items[j].session == s) {
                return err_set(err, DP_E_ARGUMENT, "batch item %zu: its session is also item %zu",
                               i, j);
            }
        }
        if (items[i].n > m->shapes.context - s->n) {
            return err_set(err, DP_E_LIMIT, "%zu tokens after %u are over the context of %u tokens",
                           items[i].n, s->n, m->shapes.context);
        }
        for (size_t t = 0; t < items[i].n; t++) {
            if (items[i].tokens[t] >= m->config.vocab_size) {
                return err_set(err, DP_E_ARGUMENT, "token %zu: id %u, the vocabulary has %u", t,
                               items[i].tokens[t], m->config.vocab_size);
            }
        }
    }
    return true;
}

static bool take_cancel(dp_session *s, dp_error *err) {
    if (!s->cancelled) {
        return true;
    }
    s->cancelled = false;
    return err_set(err, DP_E_CANCELLED, "the evaluation was cancelled");
}

/* Where filling stands: token `t` of item `i`. */
typedef struct {
    const dp_batch_item *items;
    size_t n, i, t;
    bool all; /* logits of every row are wanted */
} filling;

static void fill_pass(pass *p, filling *f) {
    /* all logits go through one read-back */
    const uint64_t row = (uint64_t)p->m->config.vocab_size * sizeof(float);
    const uint32_t max_out =
        f->all ? (uint32_t)min_u64(OUT_ROWS, GPU_READBACK_MAX / row) : p->m->shapes.n_out;
    while (f->i < f->n && p->n_rows < p->m->shapes.batch && p->n_out < max_out) {
        const dp_batch_item *item = &f->items[f->i];
        if (f->t == item->n) {
            f->i++;
            f->t = 0;
            continue;
        }
        const dp_session *s = item->session;
        pass_add_row(p, item->tokens[f->t], s->slot, s->n + (uint32_t)f->t);
        f->t++;
        const bool last = f->t == item->n;
        if (last || f->all) {
            pass_want(p, last ? s->slot : UINT32_MAX);
        }
    }
}

/* Submits one filled pass; waits for the one before it, so that at most two are under way, and for
 * this one if its logits are read. */
static bool run_pass(pass *p, gpu_ticket *before, float **logits, dp_error *err) {
    dp_model *m = p->m;
    gpu_ticket ticket = 0;
    if (!pass_upload(p, p->watched ? WATCH : 0, 0, err)) {
        return false;
    }
    gpu_encoder *e = gpu_begin(m->gpu);
    if (!pass_encode(p, &e, err)) {
        return false;
    }
    encode_save(p, e);
    const uint64_t bytes = (uint64_t)p->n_out * m->config.vocab_size * sizeof(float);
    if (*logits != NULL) {
        gpu_encode_read(e, gpu_part(m->buffers.logits, 0, bytes));
    }
    bool ok = gpu_submit(e, &ticket, err);
    if (*before != 0) {
        gpu_wait(m->gpu, *before);
        ok = gpu_collect(m->gpu, *before, NULL, 0, err) && ok;
        *before = 0;
    }
    if (ok && *logits != NULL) {
        gpu_wait(m->gpu, ticket);
        ok = gpu_collect(m->gpu, ticket, *logits, (size_t)bytes, err);
        *logits += (size_t)p->n_out * m->config.vocab_size;
    } else if (ok) {
        *before = ticket;
    }
    return ok;
}

static bool run_passes(dp_model *m, const dp_batch_item *items, size_t n, float *logits,
                       dp_error *err) {
    filling f = { .items = items, .n = n, .all = logits != NULL };
    gpu_ticket before = 0;
    bool ok = true;
    for (;;) {
        pass p;
        pass_begin(&p, m);
        p.watched = items[0].session->watched; /* such a session is in no batch with others */
        fill_pass(&p, &f);
        if (p.n_rows == 0 || !ok) {
            break;
        }
        for (size_t i = 0; i < n && ok; i++) {
            ok = take_cancel(items[i].session, err);
        }
        ok = ok && run_pass(&p, &before, &logits, err);
    }
    if (before != 0) {
        gpu_wait(m->gpu, before);
        ok = gpu_collect(m->gpu, before, NULL, 0, err) && ok;
    }
    return ok;
}

static void append_tokens(dp_session *s, const dp_token *tokens, size_t n) {
    for (size_t i = 0; i < n; i++) {
        s->answered[s->n] = i == 0 && s->pending == tokens[0];
        s->tokens[s->n++] = tokens[i];
        s->model->slots[s->slot].has_logits = true;
    }
    if (n > 0 && s->pending != DP_NO_TOKEN) {
        /* a drawn token that was not evaluated must not stay counted */
        s->model->slots[s->slot].recount |= s->pending != tokens[0];
        s->pending = DP_NO_TOKEN;
    }
}

static bool eval_items(const dp_batch_item *items, size_t n, float *logits, dp_error *err) {
    if (n == 0) {
        return true;
    }
    dp_model *m = items[0].session->model;
    if (n > m->shapes.sessions) {
        return err_set(err, DP_E_LIMIT, "%zu sessions in a batch, the model has %u", n,
                       m->shapes.sessions);
    }
    gpu_lock(m->gpu);
    bool ok = check_items(items, n, err);
    for (size_t i = 0; i < n && ok; i++) {
        dp_session *s = items[i].session;
        ok = kv_grow(m, s->slot, s->n + (uint32_t)items[i].n, err) && recount(s, err);
    }
    ok = ok && run_passes(m, items, n, logits, err);
    for (size_t i = 0; i < n; i++) {
        dp_session *s = items[i].session;
        if (ok) {
            append_tokens(s, items[i].tokens, items[i].n);
        } else if (s->model == m) {
            kv_shrink(m, s->slot, s->n);
            m->slots[s->slot].recount = true;
        }
    }
    gpu_unlock(m->gpu);
    return ok;
}

bool dp_batch_eval(const dp_batch_item *items, size_t n, dp_error *err) {
    return eval_items(items, n, NULL, err);
}

bool dp_session_eval(dp_session *s, const dp_token *tokens, size_t n, dp_error *err) {
    return eval_items(&(dp_batch_item){ .session = s, .tokens = tokens, .n = n }, 1, NULL, err);
}

bool dp_session_eval_all(dp_session *s, const dp_token *tokens, size_t n, float *logits,
                         dp_error *err) {
    return eval_items(&(dp_batch_item){ .session = s, .tokens = tokens, .n = n }, 1, logits, err);
}

/* ---- sampling and N steps ------------------------------------------------------------------ */

static bool check_logits(const dp_session *s, dp_error *err) {
    return (s->n > 0 && s->model->slots[s->slot].has_logits) ||
           err_set(err, DP_E_ARGUMENT, "the session has no logits: evaluate a token first");
}

/* A pass of the last token of each session: the state from which the sampler goes on. */
static bool begin_steps(pass *p, dp_session *const *sessions, size_t n, dp_error *err) {
    pass_begin(p, sessions[0]->model);
    for (size_t i = 0; i < n; i++) {
        const dp_session *s = sessions[i];
        if (!check_logits(s, err)) {
            return false;
        }
        pass_add_row(p, s->tokens[s->n - 1], s->slot, s->n - 1);
        pass_want(p, s->slot);
    }
    return true;
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
    if (!begin_steps(&p, &s, 1, err) || !recount(s, err) ||
        !pass_upload(&p, IGNORE_STOPS, 0, err)) {
        return false;
    }
    const gpu_sizes sizes = step_sizes(&p);
    gpu_encoder *e = gpu_begin(m->gpu);
    encode_restore(&p, e);
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
    if (n_steps < 1 || n_steps > DP_STEPS_MAX) {
        return err_set(err, DP_E_ARGUMENT, "%u steps: 1 to %u expected", n_steps, DP_STEPS_MAX);
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

/* n_steps times (sample, evaluate), one submit, one read-back. */
static bool run_steps(dp_session *const *sessions, size_t n, uint32_t n_steps, bool ignore_stops,
                      dp_error *err) {
    dp_model *m = sessions[0]->model;
    pass p;
    if (!begin_steps(&p, sessions, n, err)) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        dp_session *s = sessions[i];
        if (s->pending != DP_NO_TOKEN) { /* drawn and not evaluated: it does not count */
            m->slots[s->slot].recount = true;
            s->pending = DP_NO_TOKEN;
        }
        if (!kv_grow(m, s->slot, s->n + n_steps, err) || !recount(s, err)) {
            return false;
        }
    }
    if (!pass_upload(&p, ignore_stops ? IGNORE_STOPS : 0, 0, err)) {
        return false;
    }
    const gpu_plan *sampler = sampler_plan(sessions, n);
    const gpu_sizes sizes = step_sizes(&p);
    gpu_encoder *e = gpu_begin(m->gpu);
    encode_restore(&p, e);
    for (uint32_t step = 0; step < n_steps; step++) {
        gpu_encode(e, sampler, &sizes);
        p.longest++;
        if (!pass_encode(&p, &e, err)) {
            return false;
        }
    }
    encode_save(&p, e);
    const size_t bytes = n * (1 + DP_STEPS_MAX) * sizeof(uint32_t);
    gpu_encode_read(e, gpu_part(m->buffers.answer, 0, bytes));
    return submit_and_wait(m, e, m->answer, bytes, err);
}

static void append_answer(dp_session *s, const uint32_t *tokens, uint32_t n, bool ignore_stops) {
    for (uint32_t i = 0; i < n; i++) {
        if (ignore_stops || !dp_model_is_stop(s->model, tokens[i])) {
            s->answered[s->n] = true;
            s->tokens[s->n++] = tokens[i];
        }
    }
}

/* How many random numbers the session has used, to where the kernels count them. */
static bool upload_draws(dp_session *s, dp_error *err) {
    const uint64_t at = s->slot * sizeof(sampler_state) + offsetof(sampler_state, draws);
    return gpu_write(s->model->gpu, gpu_part(s->model->buffers.samplers, at, sizeof s->draws),
                     &s->draws, err);
}

/* One submit of at most DECODE_ROWS sessions: attend_prefill's tiles hold positions, which a loop
 * on the device does not advance, so the loop stays with the kernels for a few rows. */
static bool generate_group(dp_session *const *sessions, size_t n, uint32_t n_steps,
                           bool ignore_stops, dp_token *tokens, uint32_t *counts, dp_error *err) {
    dp_model *m = sessions[0]->model;
    bool ok = run_steps(sessions, n, n_steps, ignore_stops, err);
    for (size_t i = 0; i < n && ok; i++) {
        const uint32_t *answer = m->answer + i * (1 + DP_STEPS_MAX);
        ok = check_answer(m, answer + 1, min_u32(answer[0], n_steps), err);
    }
    for (size_t i = 0; i < n; i++) {
        dp_session *s = sessions[i];
        const uint32_t *answer = m->answer + i * (1 + DP_STEPS_MAX);
        if (ok) {
            m->slots[s->slot].has_logits = true;
            counts[i] = min_u32(answer[0], n_steps);
            memcpy(tokens + i * n_steps, answer + 1, counts[i] * sizeof *tokens);
            s->draws += counts[i];
            append_answer(s, answer + 1, counts[i], ignore_stops);
        } else {
            m->slots[s->slot].recount = true;
            (void)upload_draws(s, NULL); /* the device may be ahead; if it is lost no matter */
        }
        kv_shrink(m, s->slot, s->n);
    }
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

bool dp_session_get_logits(dp_session *s, float *logits, dp_error *err) {
    dp_model *m = s->model;
    if (!check_logits(s, err)) {
        return false;
    }
    gpu_lock(m->gpu);
    const bool ok = gpu_read(m->gpu, logits_row(m->buffers.saved, m, s->slot), logits, err);
    gpu_unlock(m->gpu);
    return ok;
}

/* (token, bits of the logarithm) pairs as logprobs.wgsl writes them. */
static dp_logprob logprob_of(const uint32_t pair[2]) {
    dp_logprob p = { .token = pair[0] };
    memcpy(&p.logprob, &pair[1], sizeof p.logprob);
    return p;
}

static bool logprobs_locked(dp_session *s, dp_logprob *best, uint32_t n, dp_token *drawn,
                            float *drawn_logprob, dp_error *err) {
    dp_model *m = s->model;
    pass p;
    if (!begin_steps(&p, &s, 1, err) || !recount(s, err) ||
        !pass_upload(&p, IGNORE_STOPS, n, err)) {
        return false;
    }
    const gpu_sizes sizes = step_sizes(&p);
    gpu_encoder *e = gpu_begin(m->gpu);
    encode_restore(&p, e);
    if (drawn != NULL) {
        gpu_encode(e, sampler_plan(&s, 1), &sizes);
    }
    gpu_encode(e, m->logprobs, &sizes);
    uint32_t pairs[1 + LOGPROBS_MAX][2];
    const size_t bytes = (1 + (size_t)n) * sizeof pairs[0];
    gpu_encode_read(e, gpu_part(m->buffers.probs, 0, bytes));
    if (!submit_and_wait(m, e, pairs, bytes, err)) {
        return false;
    }
    for (uint32_t i = 0; i < n; i++) {
        best[i] = logprob_of(pairs[1 + i]);
    }
    if (drawn != NULL) {
        if (!check_answer(m, &pairs[0][0], 1, err)) {
            return false;
        }
        *drawn = pairs[0][0];
        *drawn_logprob = logprob_of(pairs[0]).logprob;
        s->draws++;
        m->slots[s->slot].recount |= s->pending != DP_NO_TOKEN;
        s->pending = *drawn;
    }
    return true;
}

bool dp_session_get_logprobs(dp_session *s, dp_logprob *best, size_t n, dp_error *err) {
    if (n > LOGPROBS_MAX || n > s->model->config.vocab_size) {
        return err_set(err, DP_E_ARGUMENT, "%zu logprobs: at most %u", n,
                       min_u32(LOGPROBS_MAX, s->model->config.vocab_size));
    }
    gpu_lock(s->model->gpu);
    const bool ok = logprobs_locked(s, best, (uint32_t)n, NULL, NULL, err);
    gpu_unlock(s->model->gpu);
    return ok;
}

bool session_sample_logprobs(dp_session *s, dp_token *token, float *logprob, dp_logprob *best,
                             uint32_t n, dp_error *err) {
    gpu_lock(s->model->gpu);
    const bool ok = logprobs_locked(s, best, n, token, logprob, err);
    gpu_unlock(s->model->gpu);
    return ok;
}

bool session_take_back(dp_session *s, uint32_t n_tokens, uint32_t n_draws, dp_error *err) {
    assert(n_tokens < s->n);
    const dp_token last = s->tokens[s->n - n_tokens - 1];
    const bool answered = s->answered[s->n - n_tokens - 1];
    if (n_tokens > 0) {
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
    s->draws -= n_draws;
    gpu_lock(s->model->gpu);
    const bool ok = upload_draws(s, err);
    gpu_unlock(s->model->gpu);
    return ok;
}
