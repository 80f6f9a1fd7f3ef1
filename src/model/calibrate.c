/* calibrate: how much each column of a model's matrices matters.
 *
 * The squared error that a changed matrix W' makes of what it multiplies is, over the rows x of a
 * text, sum_rows |(W - W') x|^2; with the columns of x taken as uncorrelated that is
 * sum_c mean(x_c^2) |W_c - W'_c|^2 times the rows. So the mean square of each column is the weight
 * that an encoder of W should give to errors there: the diagonal of the layer's Hessian (LeCun,
 * Denker and Solla 1990; Frantar et al. 2022). A model that is opened for it has a kernel at the
 * five places of a layer and the pass where matrices read, which adds the squares up on the device;
 * here the text goes through a session of its own, window by window, and after each the sums, which
 * are single precision, are added up in double.
 *
 * Invariant: a site's importance is absent, or all of it is finite and above 0. */
#include "model/model.h"

#include <float.h>
#include <math.h>

enum {
    CALIBRATE_WINDOW = 512,
    CALIBRATE_TOKENS_MIN = 16,
    WATCH_PIECE = 1 << 20, /* bytes */
};

struct dp_importance {
    uint64_t n_tokens;
    watch_layout layout;
    float *values; /* [watch_columns]; a site that begins with 0 is unknown */
};

/* ---- where the sums are -------------------------------------------------------------------- */

watch_layout watch_layout_of(const config *c) {
    const uint32_t hidden = c->n_experts > 0 ? c->expert_ffn_dim : c->ffn_dim;
    return (watch_layout){ .n_layers = c->n_layers,
                           .columns = { [SITE_ATTENTION_INPUT] = c->dim,
                                        [SITE_ATTENTION] = c->n_heads * c->head_dim,
                                        [SITE_FFN_INPUT] = c->dim,
                                        [SITE_FFN_HIDDEN] = hidden,
                                        [SITE_OUTPUT] = c->dim } };
}

uint64_t watch_place(const watch_layout *l, uint32_t layer, importance_site site) {
    uint64_t of_layer = 0, before = 0;
    for (uint32_t i = 0; i < SITE_OUTPUT; i++) {
        before += i < (uint32_t)site ? l->columns[i] : 0;
        of_layer += l->columns[i];
    }
    return site == SITE_OUTPUT ? l->n_layers * of_layer : layer * of_layer + before;
}

uint64_t watch_columns(const watch_layout *l) {
    return watch_place(l, 0, SITE_OUTPUT) + l->columns[SITE_OUTPUT];
}

/* ---- the sums ------------------------------------------------------------------------------ */

bool watch_clear(dp_model *m, dp_error *err) {
    gpu_lock(m->gpu);
    gpu_encoder *e = gpu_begin(m->gpu);
    gpu_encode_clear(e, m->buffers.watched);
    const bool ok = gpu_submit(e, NULL, err);
    gpu_unlock(m->gpu);
    return ok;
}

uint64_t watch_piece(const dp_model *m) {
    const watch_layout l = watch_layout_of(&m->config);
    return m->shapes.calibrate ? min_u64(WATCH_PIECE, watch_columns(&l) * sizeof(float)) : 0;
}

/* In pieces, so that the read-back ring need not grow for it. */
static bool read_sums(dp_model *m, float *sums, uint64_t n_bytes, dp_error *err) {
    const uint64_t piece = watch_piece(m);
    bool ok = true;
    gpu_lock(m->gpu);
    for (uint64_t done = 0; done < n_bytes && ok; done += piece) {
        const uint64_t n = min_u64(piece, n_bytes - done);
        ok = gpu_read(m->gpu, gpu_part(m->buffers.watched, done, n), (char *)sums + done, err);
    }
    gpu_unlock(m->gpu);
    return ok;
}

bool watch_add(dp_model *m, double *total, float *scratch, dp_error *err) {
    const watch_layout l = watch_layout_of(&m->config);
    const uint64_t n = watch_columns(&l);
    const bool ok = read_sums(m, scratch, n * sizeof *scratch, err);
    for (uint64_t i = 0; i < n && ok; i++) {
        if (!isfinite(scratch[i])) {
            return err_set(err, DP_E_FORMAT,
                           "%s: what its matrices multiply holds NaN, infinities or numbers too "
                           "large to be squared",
                           container_path(m->files));
        }
        total[i] += (double)scratch[i];
    }
    return ok;
}

/* ---- evaluating ---------------------------------------------------------------------------- */

typedef struct {
    dp_model *m;
    dp_session *session;
    const dp_token *tokens;
    size_t n;
    dp_token bos;
    uint64_t size; /* what all tokens are in the unit of progress */
    dp_progress_fn *progress;
    void *user;
    dp_token window[CALIBRATE_WINDOW];
    uint64_t n_rows; /* tokens and bos tokens evaluated */
    double *total;
    float *scratch;
} calibration;

static uint32_t calibration_window(const dp_model *m) {
    const uint32_t window = min_u32(CALIBRATE_WINDOW, m->shapes.context);
    return m->config.context > 0 ? min_u32(window, m->config.context) : window;
}

/* One window from an empty session. */
static bool evaluate_window(calibration *k, const dp_token *tokens, size_t n, dp_error *err) {
    const size_t first = k->bos != DP_NO_TOKEN ? 1 : 0;
    k->window[0] = k->bos;
    memcpy(k->window + first, tokens, n * sizeof *tokens);
    k->n_rows += first + n;
    return watch_clear(k->m, err) && dp_session_rewind(k->session, 0, err) &&
           dp_session_eval(k->session, k->window, first + n, err) &&
           watch_add(k->m, k->total, k->scratch, err);
}

static bool evaluate_windows(calibration *k, dp_error *err) {
    const uint32_t window = calibration_window(k->m);
    const size_t step = k->bos != DP_NO_TOKEN && window > 1 ? window - 1 : window;
    for (size_t i = 0; i < k->n;) {
        const size_t n = (size_t)min_u64(step, k->n - i);
        if (!evaluate_window(k, k->tokens + i, n, err)) {
            return false;
        }
        i += n;
        const double done = (double)i / (double)k->n * (double)k->size;
        if (k->progress != NULL && !k->progress(k->user, (uint64_t)done, k->size)) {
            return err_set(err, DP_E_CANCELLED, "the calibration was cancelled");
        }
    }
    return true;
}

/* ---- the result ---------------------------------------------------------------------------- */

/* Mean squares of a site, as if there had been one more row in which every column was like the mean
 * of all: (sum + mean) / (rows + 1). A column that was 0 in n rows is not known to be 0 in all
 * other texts, only to be used less than once in n of them; a weight of 0 would let an encoder put
 * anything there. The added row is what the text can say least of, costs nothing when the text is
 * long and leaves the site's mean as it is. */
static void settle_site(const calibration *k, dp_importance *im, uint32_t layer,
                        importance_site site) {
    const uint64_t place = watch_place(&im->layout, layer, site);
    const uint32_t n = im->layout.columns[site];
    const uint32_t used = max_u32(k->m->config.n_experts_used, 1);
    const double rows = (double)k->n_rows * (site == SITE_FFN_HIDDEN ? used : 1);
    double mean = 0;
    for (uint32_t i = 0; i < n; i++) {
        mean += k->total[place + i] / rows / n;
    }
    /* nothing but zeros, or what single precision does not tell from them */
    const bool known = mean / (rows + 1) >= (double)FLT_MIN;
    for (uint32_t i = 0; i < n; i++) {
        const double value = (k->total[place + i] + mean) / (rows + 1);
        im->values[place + i] = known ? (float)value : 0;
    }
}

static dp_importance *settle(const calibration *k, dp_error *err) {
    dp_importance *im = mem_new(1, sizeof *im, "importance", err);
    if (im == NULL) {
        return NULL;
    }
    *im = (dp_importance){ .n_tokens = k->n, .layout = watch_layout_of(&k->m->config) };
    im->values = mem_new((size_t)watch_columns(&im->layout), sizeof *im->values, "importance", err);
    if (im->values == NULL) {
        dp_importance_free(im);
        return NULL;
    }
    for (uint32_t layer = 0; layer < im->layout.n_layers; layer++) {
        for (importance_site site = 0; site < SITE_OUTPUT; site++) {
            settle_site(k, im, layer, site);
        }
    }
    settle_site(k, im, 0, SITE_OUTPUT);
    return im;
}

/* ---- calls --------------------------------------------------------------------------------- */

/* The sums are the model's: one at a time. */
static bool begin_calibrating(dp_model *m, dp_error *err) {
    gpu_lock(m->gpu);
    const bool ok = !m->calibrating || err_set(err, DP_E_LIMIT, "%s: is being calibrated already",
                                               container_path(m->files));
    m->calibrating = true;
    gpu_unlock(m->gpu);
    return ok;
}

static void end_calibrating(dp_model *m) {
    gpu_lock(m->gpu);
    m->calibrating = false;
    gpu_unlock(m->gpu);
}

static bool can_calibrate(const dp_model *m, dp_error *err) {
    return m->shapes.calibrate || err_set(err, DP_E_ARGUMENT, "%s: was not opened to be calibrated",
                                          container_path(m->files));
}

dp_importance *calibrate_tokens(dp_model *m, const dp_token *tokens, size_t n, dp_token bos,
                                uint64_t size, dp_progress_fn *progress, void *user,
                                dp_error *err) {
    if (!can_calibrate(m, err)) {
        return NULL;
    }
    if (n < CALIBRATE_TOKENS_MIN) {
        err_set(err, DP_E_ARGUMENT, "a text of %zu tokens: calibrating needs at least %d", n,
                CALIBRATE_TOKENS_MIN);
        return NULL;
    }
    if (!begin_calibrating(m, err)) {
        return NULL;
    }
    const watch_layout l = watch_layout_of(&m->config);
    const size_t columns = (size_t)watch_columns(&l);
    calibration k = {
        .m = m,
        .session = dp_session_new(m, err),
        .tokens = tokens,
        .n = n,
        .bos = bos,
        .size = size,
        .progress = progress,
        .user = user,
        .total = mem_new(columns, sizeof *k.total, "importance", err),
        .scratch = mem_new(columns, sizeof *k.scratch, "importance", err),
    };
    dp_importance *im = NULL;
    if (k.session != NULL && k.total != NULL && k.scratch != NULL) {
        k.session->watched = true;
        im = evaluate_windows(&k, err) ? settle(&k, err) : NULL;
    }
    dp_session_free(k.session);
    mem_free(k.total);
    mem_free(k.scratch);
    end_calibrating(m);
    return im;
}

/* The text's tokens and the bos token that the tokenizer would put in front of it. */
static dp_token *tokenise(const dp_model *m, str text, size_t *n, dp_token *bos, dp_error *err) {
    size_t room = text.size / 4 + CALIBRATE_TOKENS_MIN, n_bos = 0;
    dp_token leading = DP_NO_TOKEN, *tokens = NULL;
    if (!dp_tokenize(m, "", 0, true, false, &leading, 1, &n_bos, err)) {
        return NULL;
    }
    *bos = n_bos > 0 && leading == dp_model_bos(m) ? leading : DP_NO_TOKEN;
    for (;;) {
        dp_token *more = mem_resize(tokens, room, sizeof *tokens, "tokens of a text", err);
        tokens = more != NULL ? more : tokens;
        if (more == NULL ||
            !dp_tokenize(m, text.data, text.size, false, false, tokens, room, n, err)) {
            mem_free(tokens);
            return NULL;
        }
        if (*n <= room) {
            return tokens;
        }
        room = *n;
    }
}

dp_importance *dp_calibrate(dp_model *model, const char *text, size_t size,
                            dp_progress_fn *progress, void *user, dp_error *err) {
    if (!can_calibrate(model, err)) {
        return NULL;
    }
    const str all = { .data = size > 0 ? text : "", .size = size };
    dp_token bos = DP_NO_TOKEN;
    size_t n = 0;
    dp_token *tokens = tokenise(model, all, &n, &bos, err);
    dp_importance *im =
        tokens != NULL ? calibrate_tokens(model, tokens, n, bos, size, progress, user, err) : NULL;
    mem_free(tokens);
    return im;
}

void dp_importance_free(dp_importance *im) {
    if (im != NULL) {
        mem_free(im->values);
        mem_free(im);
    }
}

uint64_t dp_importance_tokens(const dp_importance *im) {
    return im->n_tokens;
}

const float *importance_of(const importance_table *im, uint32_t layer, importance_site site,
                           uint32_t n_cols) {
    const watch_layout *l = &im->layout;
    if (site >= N_SITES || layer >= (site == SITE_OUTPUT ? 1 : l->n_layers) ||
        n_cols != l->columns[site]) {
        return NULL;
    }
    const float *values = im->values + watch_place(l, layer, site);
    return values[0] > 0 ? values : NULL;
}
