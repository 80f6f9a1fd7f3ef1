/* answers: greedy answers to many prompts, for measuring what a model can do (docs/quantise.md).
 *
 *   answers MODEL <prompts >answers
 *
 * A line of the input is "LIMIT ID ID ...": the tokens of a prompt, and how many may be answered; a
 * line of the output has the answer's ids, its stop token included. Prompts go through the model
 * many at a time. */
#include <doppler.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { AT_ONCE = 64, STEPS = 32, LINE_BYTES = 1 << 16, IDS_MAX = 4096 };

typedef struct {
    dp_token ids[IDS_MAX], answer[IDS_MAX];
    size_t n, n_answer, limit;
    bool ended;
} prompt;

static prompt prompts[AT_ONCE];
static dp_session *sessions[AT_ONCE];

static void end(const dp_error *err) {
    fprintf(stderr, "answers: %s\n", err->message);
    exit(1);
}

/* False at the end of the input. */
static bool read_prompt(prompt *p) {
    static char line[LINE_BYTES];
    if (fgets(line, sizeof line, stdin) == NULL) return false;
    *p = (prompt){ 0 };
    char *at = line;
    p->limit = strtoul(at, &at, 10);
    while (p->n < IDS_MAX && *at != '\n' && *at != '\0') {
        p->ids[p->n++] = (dp_token)strtoul(at, &at, 10);
        while (*at == ' ') at++;
    }
    if (p->limit > IDS_MAX - STEPS) p->limit = IDS_MAX - STEPS;
    return p->n > 0;
}

static void evaluate(size_t n) {
    dp_batch_item items[AT_ONCE];
    dp_error err = { 0 };
    for (size_t i = 0; i < n; i++) {
        items[i] = (dp_batch_item){ sessions[i], prompts[i].ids, prompts[i].n };
        if (!dp_session_rewind(sessions[i], 0, &err)) end(&err);
    }
    if (!dp_batch_eval(items, n, &err)) end(&err);
}

/* STEPS more tokens for those that have not ended; how many are left. */
static size_t advance(size_t n) {
    static dp_token tokens[AT_ONCE * STEPS];
    dp_session *open[AT_ONCE];
    prompt *whose[AT_ONCE];
    uint32_t counts[AT_ONCE] = { 0 };
    size_t n_open = 0;
    dp_error err = { 0 };
    for (size_t i = 0; i < n; i++) {
        if (prompts[i].ended || prompts[i].n_answer >= prompts[i].limit) continue;
        open[n_open] = sessions[i];
        whose[n_open++] = &prompts[i];
    }
    if (n_open == 0) return 0;
    if (!dp_batch_generate(open, n_open, STEPS, false, tokens, counts, &err)) end(&err);
    for (size_t i = 0; i < n_open; i++) {
        memcpy(whose[i]->answer + whose[i]->n_answer, tokens + i * STEPS,
               counts[i] * sizeof *tokens);
        whose[i]->n_answer += counts[i];
        whose[i]->ended = counts[i] < STEPS;
    }
    return n_open;
}

int main(int argc, char **argv) {
    dp_error err = { 0 };
    const dp_model_options how = { .context = AT_ONCE * 1088, .sessions = AT_ONCE, .batch = 2048 };
    if (argc != 2) {
        fprintf(stderr, "usage: answers MODEL <prompts >answers\n");
        return 2;
    }
    dp_device *device = dp_device_open(NULL, &err);
    dp_model *model = device != NULL ? dp_model_open(device, argv[1], &how, &err) : NULL;
    if (model == NULL) end(&err);
    for (size_t i = 0; i < AT_ONCE; i++) {
        sessions[i] = dp_session_new(model, &err);
        if (sessions[i] == NULL) end(&err);
    }
    for (bool more = true; more;) {
        size_t n = 0;
        while (n < AT_ONCE && (more = read_prompt(&prompts[n]))) n++;
        if (n == 0) break;
        evaluate(n);
        while (advance(n) > 0) {
        }
        for (size_t i = 0; i < n; i++) {
            for (size_t k = 0; k < prompts[i].n_answer && k < prompts[i].limit; k++)
                printf(k > 0 ? " %u" : "%u", prompts[i].answer[k]);
            printf("\n");
        }
    }
    for (size_t i = 0; i < AT_ONCE; i++) dp_session_free(sessions[i]);
    dp_model_close(model);
    dp_device_close(device);
}
