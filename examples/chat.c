/* chat: a conversation with the bundled model, one line of standard input per turn.
 *
 *     ./chat MODEL
 *
 * The turns are those of the model's card; other models have other ones. The session is the
 * history: each turn evaluates only what is new, and is forgotten again when it does not fit. */
#include <doppler.h>

#include <stdio.h>
#include <string.h>

enum { ANSWER_TOKENS = 200 };

static bool print_text(void *user, const char *text, size_t size) {
    (void)user;
    return fwrite(text, 1, size, stdout) == size && fflush(stdout) == 0;
}

/* The line is the user's: control tokens spelt out in it stay plain text. */
static bool add_user_turn(dp_session *session, bool first, const char *line, dp_error *err) {
    const char *opening = first ? "<|bos|><|user|>\n" : "<|end|>\n<|user|>\n";
    return dp_session_eval_text(session, opening, false, true, err) &&
           dp_session_eval_text(session, line, false, false, err) &&
           dp_session_eval_text(session, "<|end|>\n<|assistant|>\n", false, true, err);
}

static bool take_turn(dp_session *session, bool first, const char *line, dp_error *err) {
    const dp_generate_options how = { .max_tokens = ANSWER_TOKENS, .on_text = print_text };
    return add_user_turn(session, first, line, err) && dp_generate(session, &how, NULL, err);
}

static bool converse(dp_session *session, dp_error *err) {
    char line[1024];
    while (fgets(line, sizeof(line), stdin) != NULL) {
        size_t before;
        dp_session_tokens(session, &before);
        line[strcspn(line, "\n")] = '\0';
        if (line[0] == '\0') continue;
        if (!take_turn(session, before == 0, line, err)) {
            if (err->status != DP_E_LIMIT && err->status != DP_E_MEMORY) return false;
            fprintf(stderr, "this turn is forgotten: %s\n", err->message);
            *err = (dp_error){ 0 };
            if (!dp_session_rewind(session, before, err)) return false;
        }
        printf("\n");
    }
    return true;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: chat MODEL\n");
        return 2;
    }
    dp_error err = { 0 };
    dp_device *device = dp_device_open(NULL, &err);
    dp_model *model = device != NULL ? dp_model_open(device, argv[1], NULL, &err) : NULL;
    dp_session *session = model != NULL ? dp_session_new(model, &err) : NULL;
    const bool ok = session != NULL && converse(session, &err);
    if (!ok) fprintf(stderr, "chat: %s\n", err.message);
    dp_session_free(session);
    dp_model_close(model);
    dp_device_close(device);
    return ok ? 0 : 1;
}
