/* sampler: one's own choice of tokens from the logits, here without any word that has an "e".
 *
 *     ./sampler MODEL "Once upon a time" */
#include <doppler.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ANSWER_TOKENS = 60, PIECE_BYTES = 256 };

/* True if the token's text may be used. */
static bool allowed(const dp_model *model, dp_token token) {
    char piece[PIECE_BYTES];
    size_t size;
    if (!dp_detokenize(model, &token, 1, false, piece, sizeof(piece), &size, NULL)) return false;
    if (size > sizeof(piece)) return false;
    return memchr(piece, 'e', size) == NULL && memchr(piece, 'E', size) == NULL;
}

/* The most likely token among the allowed ones. */
static dp_token choose(const float *logits, const bool *usable, uint32_t n) {
    dp_token best = DP_NO_TOKEN;
    for (uint32_t i = 0; i < n; i++) {
        if (usable[i] && (best == DP_NO_TOKEN || logits[i] > logits[best])) best = i;
    }
    return best;
}

static bool write_answer(dp_session *session, const dp_model *model, const bool *usable,
                         float *logits, uint32_t vocab_size, dp_error *err) {
    for (int i = 0; i < ANSWER_TOKENS; i++) {
        char piece[PIECE_BYTES];
        size_t size;
        if (!dp_session_get_logits(session, logits, err)) return false;
        const dp_token token = choose(logits, usable, vocab_size);
        if (token == DP_NO_TOKEN || dp_model_is_stop(model, token)) return true;
        if (!dp_detokenize(model, &token, 1, false, piece, sizeof(piece), &size, err)) return false;
        fwrite(piece, 1, size, stdout);
        if (!dp_session_eval(session, &token, 1, err)) return false;
    }
    return true;
}

static bool answer_without_e(dp_model *model, const char *prompt, dp_error *err) {
    dp_model_info info;
    dp_model_get_info(model, &info);
    bool *usable = calloc(info.vocab_size, sizeof(bool));
    float *logits = calloc(info.vocab_size, sizeof(float));
    dp_session *session = dp_session_new(model, err);
    bool ok = usable != NULL && logits != NULL && session != NULL;
    for (uint32_t i = 0; i < info.vocab_size && ok; i++)
        usable[i] = allowed(model, i);
    ok = ok && dp_session_eval_text(session, prompt, true, true, err) &&
         write_answer(session, model, usable, logits, info.vocab_size, err);
    dp_session_free(session);
    free(logits);
    free(usable);
    return ok;
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: sampler MODEL [PROMPT]\n");
        return 2;
    }
    const char *prompt = argc > 2 ? argv[2] : "Once upon a time";
    dp_error err = { 0 };
    dp_device *device = dp_device_open(NULL, &err);
    dp_model *model = device != NULL ? dp_model_open(device, argv[1], NULL, &err) : NULL;
    const bool ok = model != NULL && answer_without_e(model, prompt, &err);
    printf("\n");
    if (!ok) fprintf(stderr, "sampler: %s\n", err.message);
    dp_model_close(model);
    dp_device_close(device);
    return ok ? 0 : 1;
}
