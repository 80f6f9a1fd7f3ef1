/* experts: mixtures of experts that are larger than the device.
 *
 * Every layer has room for some of its experts. Which are needed the device only knows after the
 * router, so the host reads the choice of every layer, fetches from the files (host memory
 * as far as it goes) what is not there over the least recently used, tells the kernels where each
 * expert is and lets them run. A pass that needs more experts than there are slots is done in
 * waves, each with the experts that fit: a pair of a row and an expert is computed in the wave that
 * holds its expert. Sums of many rows are made once all pairs are there, those of few rows grow
 * with each wave, so slots decide nothing, and waves the order of a few additions. Experts of the
 * wave that runs are pinned by construction: what replaces them is written behind it in the queue.
 * LRU and pinning: rows MO-02 and 27.7 of the requirements. */
#include "model/model.h"

enum { NO_PLACE = -1 };

struct expert_cache {
    uint32_t n_layers, n_experts;
    uint32_t slots; /* of the first layer, which has the most */
    int32_t *place; /* [n_layers, n_experts] slot, or NO_PLACE */
    uint32_t *held; /* [n_layers, slots] expert, or UINT32_MAX */
    uint64_t *used; /* [n_layers, slots] when it was needed last */
    uint64_t clock;
    uint32_t (*choice)[2]; /* [pairs] as the router wrote it */
    unsigned char *piece;  /* [2, UPLOAD_BYTES] on the way to the device */
    uint32_t *pending;     /* [n_experts] of a layer, still to be computed */
    uint32_t *places;      /* [n_experts] as the kernels are told */
    dp_expert_stats stats;
};

bool experts_open(dp_model *m, dp_error *err) {
    const uint32_t layers = m->config.n_layers, n = m->config.n_experts;
    const uint32_t slots = weights_slots(&m->weights, &m->config, 0);
    const size_t pairs = (size_t)m->shapes.batch * m->config.n_experts_used;
    arena *a = &m->arena;
    expert_cache *x = arena_new(a, 1, sizeof *x, "experts", err);
    if (x == NULL) {
        return false;
    }
    *x = (expert_cache){ .n_layers = layers, .n_experts = n, .slots = slots };
    x->place = arena_new(a, (size_t)layers * n, sizeof *x->place, "experts", err);
    x->held = arena_new(a, (size_t)layers * slots, sizeof *x->held, "experts", err);
    x->used = arena_new(a, (size_t)layers * slots, sizeof *x->used, "experts", err);
    x->choice = arena_new(a, pairs, sizeof *x->choice, "experts", err);
    x->piece = arena_new(a, 2, UPLOAD_BYTES, "experts", err);
    x->pending = arena_new(a, n, sizeof *x->pending, "experts", err);
    x->places = arena_new(a, n, sizeof *x->places, "experts", err);
    if (x->place == NULL || x->held == NULL || x->used == NULL || x->choice == NULL ||
        x->piece == NULL || x->pending == NULL || x->places == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < layers * n; i++) {
        x->place[i] = NO_PLACE;
    }
    for (uint32_t i = 0; i < layers * slots; i++) {
        x->held[i] = UINT32_MAX;
    }
    x->stats.slots = m->weights.expert_slots;
    m->experts = x;
    return true;
}

/* One matrix of an expert into its slot. */
static bool fetch_matrix(dp_model *m, const weight *w, uint32_t expert, uint32_t to,
                         dp_error *err) {
    uint64_t row_bytes = 0;
    const uint32_t step = upload_rows(w, &row_bytes);
    const weight_part *p = w->parts;
    while (to >= p->first + p->rows) {
        p++;
    }
    for (uint32_t row = 0; row < w->rows; row += step) {
        const uint32_t n = min_u32(step, w->rows - row);
        const uint64_t at = ((uint64_t)(to - p->first) * w->rows + row) * row_bytes;
        unsigned char *scratch = m->experts->piece, *rows = scratch + UPLOAD_BYTES;
        if (!weight_read_device(m->files, w, (uint64_t)expert * w->rows + row, n, scratch, rows,
                                err) ||
            !gpu_write(m->gpu, gpu_part(p->range, at, n * row_bytes), rows, err)) {
            return false;
        }
        m->experts->stats.bytes += n * row_bytes;
    }
    return true;
}

static bool fetch_expert(dp_model *m, uint32_t layer, uint32_t expert, uint32_t to, dp_error *err) {
    expert_cache *x = m->experts;
    const layer_weights *l = &m->weights.layers[layer];
    const double start = clock_seconds();
    uint32_t *held = &x->held[layer * x->slots + to];
    if (*held != UINT32_MAX) {
        x->place[layer * x->n_experts + *held] = NO_PLACE;
    }
    *held = UINT32_MAX; /* until all of it is there */
    if (!fetch_matrix(m, &l->expert_gate, expert, to, err) ||
        !fetch_matrix(m, &l->expert_up, expert, to, err) ||
        !fetch_matrix(m, &l->expert_down, expert, to, err)) {
        return false;
    }
    *held = expert;
    x->place[layer * x->n_experts + expert] = (int32_t)to;
    x->stats.seconds += clock_seconds() - start;
    return true;
}

/* The slot whose expert was needed least recently, of those that this wave does not use. */
static uint32_t choose_victim(const expert_cache *x, uint32_t layer, uint32_t n_slots,
                              uint64_t wave) {
    uint32_t best = UINT32_MAX;
    for (uint32_t s = 0; s < n_slots; s++) {
        const uint64_t used = x->used[layer * x->slots + s];
        if (used != wave && (best == UINT32_MAX || used < x->used[layer * x->slots + best])) {
            best = s;
        }
    }
    assert(best != UINT32_MAX);
    return best;
}

/* The experts that a layer needs, each once, in rising order. */
static bool list_needed(expert_cache *x, uint32_t n_pairs, uint32_t *n, dp_error *err) {
    memset(x->places, 0, x->n_experts * sizeof *x->places);
    for (uint32_t i = 0; i < n_pairs; i++) {
        if (x->choice[i][0] >= x->n_experts) {
            return err_set(err, DP_E_DEVICE, "the router chose expert %u of %u", x->choice[i][0],
                           x->n_experts);
        }
        x->places[x->choice[i][0]] = 1;
    }
    *n = 0;
    for (uint32_t e = 0; e < x->n_experts; e++) {
        if (x->places[e] != 0) {
            x->pending[(*n)++] = e;
        }
    }
    return true;
}

/* Takes a wave out of the pending experts: those that are there first, then as many others as there
 * are slots; tells the kernels where they are. */
static bool begin_wave(dp_model *m, uint32_t layer, uint32_t *n_pending, dp_error *err) {
    expert_cache *x = m->experts;
    const uint64_t wave = ++x->clock;
    const int32_t *place = &x->place[layer * x->n_experts];
    const uint32_t n_slots = weights_slots(&m->weights, &m->config, layer);
    uint32_t n_wave = 0, n_left = 0;
    for (uint32_t e = 0; e < x->n_experts; e++) {
        x->places[e] = UINT32_MAX;
    }
    for (uint32_t i = 0; i < *n_pending; i++) {
        const uint32_t e = x->pending[i];
        if (place[e] != NO_PLACE) {
            x->places[e] = (uint32_t)place[e];
            x->used[layer * x->slots + (uint32_t)place[e]] = wave;
            x->stats.hits++;
            n_wave++;
        } else {
            x->pending[n_left++] = e;
        }
    }
    uint32_t n_fetched = 0;
    while (n_fetched < n_left && n_wave < n_slots) {
        const uint32_t e = x->pending[n_fetched++], to = choose_victim(x, layer, n_slots, wave);
        if (!fetch_expert(m, layer, e, to, err)) {
            return false;
        }
        x->places[e] = to;
        x->used[layer * x->slots + to] = wave;
        x->stats.misses++;
        n_wave++;
    }
    *n_pending = n_left - n_fetched;
    memmove(x->pending, x->pending + n_fetched, *n_pending * sizeof *x->pending);
    return gpu_write(m->gpu, gpu_part(m->buffers.expert_place, 0, x->n_experts * sizeof(uint32_t)),
                     x->places, err);
}

/* Submits what is encoded and waits for the choice of the layer. */
static bool read_choice(dp_model *m, gpu_encoder *e, uint32_t n_pairs, dp_error *err) {
    const size_t bytes = n_pairs * sizeof m->experts->choice[0];
    gpu_ticket ticket = 0;
    gpu_encode_read(e, gpu_part(m->buffers.choice, 0, bytes));
    if (!gpu_submit(e, &ticket, err)) {
        return false;
    }
    gpu_wait(m->gpu, ticket);
    return gpu_collect(m->gpu, ticket, m->experts->choice, bytes, err);
}

bool experts_run(dp_model *m, pass_kind kind, uint32_t n_rows, const gpu_sizes *sizes,
                 gpu_encoder **e, dp_error *err) {
    const uint32_t n_pairs = n_rows * m->config.n_experts_used;
    for (uint32_t layer = 0; layer < m->config.n_layers; layer++) {
        uint32_t n = 0;
        gpu_encode(*e, m->body[kind][2 * layer], sizes);
        if (!read_choice(m, *e, n_pairs, err) || !list_needed(m->experts, n_pairs, &n, err)) {
            return false;
        }
        while (n > 0) {
            if (!begin_wave(m, layer, &n, err)) {
                return false;
            }
            *e = gpu_begin(m->gpu);
            gpu_encode(*e, m->body[kind][2 * layer + 1], sizes);
            if (n > 0 && !gpu_submit(*e, NULL, err)) {
                return false;
            }
        }
    }
    gpu_encode(*e, m->body[kind][2 * m->config.n_layers], sizes);
    return true;
}

bool dp_model_get_experts(const dp_model *m, dp_expert_stats *stats) {
    *stats = (dp_expert_stats){ 0 };
    if (m->experts != NULL) {
        *stats = m->experts->stats;
    }
    stats->experts = m->config.n_experts;
    return m->experts != NULL;
}
