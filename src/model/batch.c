/* batch: rows of several sessions into passes.
 *
 * A pass is filled on the host side of the model (rows, wanted logits, tiles), uploaded, and the
 * recorded plans are replayed over it. A session's state changes only after everything for it has
 * succeeded; pages taken for a failed call go back. The device's lock is held throughout. Nothing
 * here allocates. */
#include "model/pass_internal.h"

void pass_begin(pass *p, dp_model *m) {
    p->m = m;
    p->n_rows = p->n_out = p->n_tiles = p->longest = 0;
    p->keys = 0;
    p->watched = false;
}

void pass_add_row(pass *p, dp_token token, uint32_t place, uint32_t pos) {
    assert(p->n_rows < p->m->shapes.batch);
    const uint32_t row[4] = { token, place, pos, 0 };
    memcpy(p->m->rows[p->n_rows++], row, sizeof row);
    p->longest = max_u32(p->longest, pos + 1);
    p->keys += pos + 1;
    /* the row goes to the tile before it if that is the same sequence and has room */
    uint32_t *tile = p->n_tiles > 0 ? p->m->tiles[p->n_tiles - 1] : NULL;
    if (tile != NULL && tile[2] == place && tile[3] + tile[1] == pos &&
        tile[1] < p->m->shapes.tile_rows) {
        tile[1]++;
        return;
    }
    const uint32_t fresh[4] = { p->n_rows - 1, 1, place, pos };
    memcpy(p->m->tiles[p->n_tiles++], fresh, sizeof fresh);
}

void pass_want(pass *p, uint32_t place) {
    assert(p->n_out < p->m->shapes.n_out && p->n_rows > 0);
    p->saved[p->n_out] = place;
    p->m->pick[p->n_out++] = p->n_rows - 1;
}

bool pass_upload(const pass *p, uint32_t flags, uint32_t n_best, dp_error *err) {
    const dp_model *m = p->m;
    const buffers *b = &m->buffers;
    const uint32_t sizes[4] = { p->n_rows, p->n_out, flags, n_best };
    return chain_settle(p->m, err) &&
           gpu_write(m->gpu, gpu_part(b->sizes, 0, sizeof sizes), sizes, err) &&
           gpu_write(m->gpu, gpu_part(b->rows, 0, p->n_rows * 16ull), m->rows, err) &&
           gpu_write(m->gpu, gpu_part(b->tiles, 0, p->n_tiles * 16ull), m->tiles, err) &&
           (p->n_out == 0 ||
            gpu_write(m->gpu, gpu_part(b->pick, 0, p->n_out * 4ull), m->pick, err));
}

gpu_sizes pass_sizes(const pass *p) {
    const shapes *s = &p->m->shapes;
    const bool whole = p->n_rows == 1 && p->longest <= s->whole_keys;
    const uint32_t splits = whole ? 1 : attend_splits(s, p->longest);
    return (gpu_sizes){ .n = { [SIZE_ONE] = 1,
                               [SIZE_ROWS] = p->n_rows,
                               [SIZE_OUT] = p->n_out,
                               [SIZE_SPLITS] = splits,
                               [SIZE_TILES] = p->n_tiles,
                               [SIZE_EXPERT_TILES] = expert_tiles_of(&p->m->config, p->n_rows),
                               [SIZE_KEYS] = (uint32_t)min_u64(p->keys, UINT32_MAX),
                               [SIZE_LONGEST] = p->longest,
                               [SIZE_COMBINE] = splits > 1 ? 1 : 0,
                               [SIZE_WHOLE] = whole ? 1 : 0 } };
}

bool pass_encode(const pass *p, gpu_encoder **e, dp_error *err) {
    dp_model *m = p->m;
    const pass_kind kind = pass_kind_of(p->n_rows);
    const gpu_sizes sizes = pass_sizes(p);
    m->latest.kind = kind;
    m->latest.head = pass_kind_of(p->n_out);
    m->latest.sizes = sizes;
    gpu_phase(*e, pass_is_prefill(kind) ? DP_PHASE_PREFILL : DP_PHASE_DECODE, p->n_rows);
    if (m->experts != NULL) {
        if (!experts_run(m, kind, p->n_rows, &sizes, e, err)) {
            return false;
        }
    } else {
        gpu_encode(*e, m->body[kind][0], &sizes);
    }
    if (p->n_out > 0) {
        gpu_encode(*e, m->head[pass_kind_of(p->n_out)], &sizes);
    }
    gpu_phase(*e, DP_PHASE_DECODE, 0);
    return true;
}

gpu_range logits_row(gpu_range rows, const dp_model *m, uint32_t i) {
    const uint64_t bytes = (uint64_t)m->config.vocab_size * sizeof(float);
    return gpu_part(rows, i * bytes, bytes);
}

void pass_save(const pass *p, gpu_encoder *e) {
    for (uint32_t i = 0; i < p->n_out; i++) {
        if (p->saved[i] != UINT32_MAX) {
            p->m->slots[p->saved[i]].has_logits = false;
            gpu_encode_copy(e, logits_row(p->m->buffers.saved, p->m, p->saved[i]),
                            logits_row(p->m->buffers.logits, p->m, i));
        }
    }
}

void pass_restore(const pass *p, gpu_encoder *e) {
    for (uint32_t i = 0; i < p->n_out; i++) {
        gpu_encode_copy(e, logits_row(p->m->buffers.logits, p->m, i),
                        logits_row(p->m->buffers.saved, p->m, p->saved[i]));
    }
}

/* ---- penalties ----------------------------------------------------------------------------- */

bool recount(dp_session *s, dp_error *err) {
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

/* Submits one filled pass; waits for the one before it, so that at most two are under way (where
 * waiting is impossible the caller sees to that), and for this one if its logits are read. */
static bool run_pass(pass *p, float **logits, dp_error *err) {
    dp_model *m = p->m;
    gpu_ticket ticket = 0;
    if (!pass_upload(p, p->watched ? WATCH : 0, 0, err)) {
        return false;
    }
    gpu_encoder *e = gpu_begin(m->gpu);
    if (!pass_encode(p, &e, err)) {
        return false;
    }
    pass_save(p, e);
    const uint64_t bytes = (uint64_t)p->n_out * m->config.vocab_size * sizeof(float);
    if (*logits != NULL) {
        gpu_encode_read(e, gpu_part(m->buffers.logits, 0, bytes));
    }
    if (!gpu_submit(e, &ticket, err)) {
        return false;
    }
    if (m->evaluating != 0 && gpu_may_block(m->gpu)) {
        gpu_wait(m->gpu, m->evaluating);
    }
    m->evaluating = ticket;
    if (*logits == NULL) {
        return true;
    }
    gpu_wait(m->gpu, ticket);
    float *to = *logits;
    *logits += (size_t)p->n_out * m->config.vocab_size;
    return gpu_collect(m->gpu, ticket, to, (size_t)bytes, err);
}

/* The last pass is left under way: what asks for its results comes behind it in the queue, and a
 * failure of the device shows there. */
static bool run_passes(dp_model *m, const dp_batch_item *items, size_t n, float *logits,
                       dp_error *err) {
    filling f = { .items = items, .n = n, .all = logits != NULL };
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
        ok = ok && run_pass(&p, &logits, err);
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
