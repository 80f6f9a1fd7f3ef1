/* session: one growing token sequence, its place in the model and its sampler. */
#include "model/model.h"

#include <math.h>

dp_session *dp_session_new(dp_model *model, dp_error *err) {
    if (model->gpu == NULL) {
        err_set(err, DP_E_ARGUMENT, "%s: opened without a device: it cannot evaluate",
                container_path(model->files));
        return NULL;
    }
    if (model->plan_only) {
        err_set(err, DP_E_ARGUMENT, "%s: opened without its weights: it cannot evaluate",
                container_path(model->files));
        return NULL;
    }
    dp_session *s = mem_new(1, sizeof *s, "session", err);
    if (s == NULL) {
        return NULL;
    }
    *s = (dp_session){ .model = model, .pending = DP_NO_TOKEN, .slot = UINT32_MAX };
    s->tokens = mem_new(model->shapes.context, sizeof *s->tokens, "session", err);
    s->answered = mem_new(model->shapes.context, sizeof *s->answered, "session", err);
    bool ok = s->tokens != NULL && s->answered != NULL;
    gpu_lock(model->gpu);
    for (uint32_t i = 0; i < model->shapes.sessions && ok && s->slot == UINT32_MAX; i++) {
        if (!model->slots[i].taken) {
            s->slot = i;
            model->slots[i].taken = true;
        }
    }
    gpu_unlock(model->gpu);
    if (ok && s->slot == UINT32_MAX) {
        ok = err_set(err, DP_E_LIMIT, "all %u sessions of the model are in use",
                     model->shapes.sessions);
    }
    ok = ok && dp_session_set_sampling(s, &(dp_sampling){ 0 }, err);
    if (!ok) {
        dp_session_free(s);
        return NULL;
    }
    return s;
}

void dp_session_free(dp_session *s) {
    if (s == NULL) {
        return;
    }
    dp_model *m = s->model;
    if (s->slot != UINT32_MAX) {
        gpu_lock(m->gpu);
        kv_shrink(m, s->slot, 0);
        slot *place = &m->slots[s->slot];
        place->taken = place->has_logits = false;
        gpu_unlock(m->gpu);
    }
    mem_free(s->tokens);
    mem_free(s->answered);
    mem_free(s);
}

/* Below it the division overflows, and the most likely token is certain long before. */
static const float LEAST_TEMPERATURE = 1e-6f;

/* ---- sampling ------------------------------------------------------------------------------ */

static bool check_sampling_field(const char *name, float x, float low, float high, dp_error *err) {
    return (x >= low && x <= high) || /* false for NaN */
           err_set(err, DP_E_ARGUMENT, "%s: %g is not from %g to %g", name, (double)x, (double)low,
                   (double)high);
}

bool dp_session_set_sampling(dp_session *s, const dp_sampling *p, dp_error *err) {
    if (!check_sampling_field("temperature", p->temperature, 0, 100, err) ||
        !check_sampling_field("top_p", p->top_p, 0, 1, err) ||
        !check_sampling_field("min_p", p->min_p, 0, 1, err) ||
        (p->repeat_penalty != 0 && /* smaller ones overflow the logits */
         !check_sampling_field("repeat_penalty", p->repeat_penalty, 0.01f, 100, err)) ||
        !check_sampling_field("presence_penalty", p->presence_penalty, -100, 100, err) ||
        !check_sampling_field("frequency_penalty", p->frequency_penalty, -100, 100, err)) {
        return false;
    }
    dp_model *m = s->model;
    const sampler_state state = {
        .temperature = p->temperature >= LEAST_TEMPERATURE ? p->temperature : 0,
        .top_p = p->top_p,
        .min_p = p->min_p,
        .repeat = p->repeat_penalty > 0 ? p->repeat_penalty : 1,
        .presence = p->presence_penalty,
        .frequency = p->frequency_penalty,
        .top_k = p->top_k,
        .seed_low = (uint32_t)p->seed,
        .seed_high = (uint32_t)(p->seed >> 32),
    };
    gpu_lock(m->gpu);
    const bool ok = gpu_write(
        m->gpu, gpu_part(m->buffers.samplers, s->slot * sizeof state, sizeof state), &state, err);
    if (ok) {
        s->sampling = *p;
        s->draws = 0;
        s->pending = DP_NO_TOKEN;
        memset(s->answered, 0, s->n * sizeof *s->answered);
        m->slots[s->slot].recount = true;
    }
    gpu_unlock(m->gpu);
    return ok;
}

bool dp_session_accept(dp_session *s, dp_token token, dp_error *err) {
    if (token >= s->model->config.vocab_size) {
        return err_set(err, DP_E_ARGUMENT, "token id %u, the vocabulary has %u", token,
                       s->model->config.vocab_size);
    }
    gpu_lock(s->model->gpu);
    s->pending = token;
    s->model->slots[s->slot].recount = true;
    gpu_unlock(s->model->gpu);
    return true;
}

/* ---- state --------------------------------------------------------------------------------- */

const dp_token *dp_session_tokens(const dp_session *s, size_t *n) {
    *n = s->n;
    return s->tokens;
}

bool dp_session_rewind(dp_session *s, size_t n, dp_error *err) {
    if (n > s->n) {
        return err_set(err, DP_E_ARGUMENT, "cannot rewind to %zu tokens, the session has %u", n,
                       s->n);
    }
    if (n == s->n) {
        return true;
    }
    gpu_lock(s->model->gpu);
    kv_shrink(s->model, s->slot, (uint32_t)n);
    s->n = (uint32_t)n;
    s->pending = DP_NO_TOKEN;
    s->model->slots[s->slot].has_logits = false;
    s->model->slots[s->slot].recount = true;
    gpu_unlock(s->model->gpu);
    return true;
}

void dp_session_cancel(dp_session *s) {
    s->cancelled = true;
}

bool dp_session_eval_text(dp_session *s, const char *text, bool add_special, bool parse_special,
                          dp_error *err) {
    const str t = str_of(text);
    size_t n = 0;
    if (!model_needs_tokenizer(s->model, err) ||
        !tokenizer_encode(s->model->tokenizer, t, add_special, parse_special, NULL, 0, &n, err)) {
        return false;
    }
    dp_token *tokens = mem_new(n + 1, sizeof *tokens, "tokens of a text", err);
    const bool ok =
        tokens != NULL &&
        tokenizer_encode(s->model->tokenizer, t, add_special, parse_special, tokens, n, &n, err) &&
        dp_session_eval(s, tokens, n, err);
    mem_free(tokens);
    return ok;
}
