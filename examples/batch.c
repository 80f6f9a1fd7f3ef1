/* batch: two prompts answered in the same passes, which costs little more than one.
 *
 *     ./batch MODEL "Once upon a time" "The old owl said" */
#include <doppler.h>

#include <stdio.h>
#include <string.h>

enum { SESSIONS = 2, PROMPT_TOKENS = 512, STEPS = 16, ROUNDS = 4 };

typedef struct {
    dp_token tokens[STEPS * ROUNDS];
    uint32_t n;
} answer;

/* Both prompts in one evaluation. */
static bool eval_prompts(const dp_model *model, dp_session *const *sessions,
                         const char *const *prompts, dp_error *err) {
    static dp_token tokens[SESSIONS][PROMPT_TOKENS];
    dp_batch_item items[SESSIONS];
    for (size_t i = 0; i < SESSIONS; i++) {
        const size_t size = strlen(prompts[i]);
        size_t n;
        if (!dp_tokenize(model, prompts[i], size, true, true, tokens[i], PROMPT_TOKENS, &n, err)) {
            return false;
        }
        if (n > PROMPT_TOKENS) n = PROMPT_TOKENS;
        items[i] = (dp_batch_item){ sessions[i], tokens[i], n };
    }
    return dp_batch_eval(items, SESSIONS, err);
}

/* Rounds of STEPS tokens for all sessions that have not come to their end. */
static bool generate_answers(const dp_model *model, dp_session *const *sessions, answer *answers,
                             dp_error *err) {
    size_t who[SESSIONS] = { 0, 1 }, n = SESSIONS;
    for (int round = 0; round < ROUNDS && n > 0; round++) {
        dp_session *open[SESSIONS];
        dp_token tokens[SESSIONS * STEPS];
        uint32_t counts[SESSIONS];
        for (size_t i = 0; i < n; i++)
            open[i] = sessions[who[i]];
        if (!dp_batch_generate(open, n, STEPS, false, tokens, counts, err)) return false;
        size_t left = 0;
        for (size_t i = 0; i < n; i++) {
            answer *a = &answers[who[i]];
            for (uint32_t t = 0; t < counts[i]; t++)
                a->tokens[a->n++] = tokens[i * STEPS + t];
            if (!dp_model_is_stop(model, a->tokens[a->n - 1])) who[left++] = who[i];
        }
        n = left;
    }
    return true;
}

static bool print_answer(const dp_model *model, const char *prompt, const answer *a,
                         dp_error *err) {
    char text[4096];
    size_t size;
    if (!dp_detokenize(model, a->tokens, a->n, false, text, sizeof(text), &size, err)) return false;
    if (size > sizeof(text)) size = sizeof(text);
    printf("%s%.*s\n", prompt, (int)size, text);
    return true;
}

int main(int argc, char **argv) {
    if (argc != 2 && argc != 2 + SESSIONS) {
        fprintf(stderr, "usage: batch MODEL [PROMPT PROMPT]\n");
        return 2;
    }
    const char *usual[SESSIONS] = { "Once upon a time", "The old owl said" };
    const char *prompts[SESSIONS];
    for (size_t i = 0; i < SESSIONS; i++)
        prompts[i] = argc > 2 ? argv[2 + i] : usual[i];
    dp_error err = { 0 };
    dp_session *sessions[SESSIONS] = { NULL };
    answer answers[SESSIONS] = { 0 };
    const dp_model_options how = { .sessions = SESSIONS, .context = 2048 };
    dp_device *device = dp_device_open(NULL, &err);
    dp_model *model = device != NULL ? dp_model_open(device, argv[1], &how, &err) : NULL;
    bool ok = model != NULL;
    for (size_t i = 0; i < SESSIONS && ok; i++) {
        sessions[i] = dp_session_new(model, &err);
        ok = sessions[i] != NULL;
    }
    ok = ok && eval_prompts(model, sessions, prompts, &err) &&
         generate_answers(model, sessions, answers, &err);
    for (size_t i = 0; i < SESSIONS && ok; i++) {
        ok = print_answer(model, prompts[i], &answers[i], &err);
    }
    if (!ok) fprintf(stderr, "batch: %s\n", err.message);
    for (size_t i = 0; i < SESSIONS; i++)
        dp_session_free(sessions[i]);
    dp_model_close(model);
    dp_device_close(device);
    return ok ? 0 : 1;
}
