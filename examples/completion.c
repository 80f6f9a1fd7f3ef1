/* completion: continues a prompt and prints the answer as it comes.
 *
 *     cc completion.c $(pkg-config --cflags --libs doppler) -o completion
 *     ./completion MODEL "Once upon a time" */
#include <doppler.h>

#include <stdio.h>

static bool print_text(void *user, const char *text, size_t size) {
    (void)user;
    return fwrite(text, 1, size, stdout) == size && fflush(stdout) == 0;
}

static bool complete(dp_session *session, const char *prompt, dp_error *err) {
    const dp_generate_options how = { .max_tokens = 100, .on_text = print_text };
    return dp_session_eval_text(session, prompt, true, true, err) &&
           dp_generate(session, &how, NULL, err);
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: completion MODEL [PROMPT]\n");
        return 2;
    }
    const char *prompt = argc > 2 ? argv[2] : "Once upon a time";
    dp_error err = { 0 };
    dp_device *device = dp_device_open(NULL, &err);
    dp_model *model = device != NULL ? dp_model_open(device, argv[1], NULL, &err) : NULL;
    dp_session *session = model != NULL ? dp_session_new(model, &err) : NULL;
    const bool ok = session != NULL && complete(session, prompt, &err);
    if (!ok) fprintf(stderr, "completion: %s\n", err.message);
    printf("\n");
    dp_session_free(session);
    dp_model_close(model);
    dp_device_close(device);
    return ok ? 0 : 1;
}
