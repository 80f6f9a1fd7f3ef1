/* chat: a conversation, one line of standard input per turn, by the model's own chat template.
 *
 *     ./chat MODEL
 *
 * The conversation is a JSON array that grows; every turn renders all of it to tokens, and the
 * session evaluates those that it does not hold yet. */
#include <doppler.h>

#include <stdio.h>
#include <string.h>

enum { ANSWER_TOKENS = 200, CONVERSATION_BYTES = 65536, PROMPT_TOKENS = 8192 };

static char answer[16384], messages[CONVERSATION_BYTES] = "[";
static size_t answer_size, messages_size = 1;
static dp_token prompt[PROMPT_TOKENS];

static bool take_text(void *user, const char *text, size_t size) {
    (void)user;
    if (size > sizeof(answer) - answer_size) return false;
    memcpy(answer + answer_size, text, size);
    answer_size += size;
    return fwrite(text, 1, size, stdout) == size && fflush(stdout) == 0;
}

/* Appends a message with its text as a JSON string; the bracket that closes the array is written
 * behind it and overwritten by the next. False if there is no room. */
static bool add_message(const char *role, const char *text, size_t size) {
    size_t n = messages_size;
    if (CONVERSATION_BYTES - n < 6 * size + 64) return false;
    n += (size_t)snprintf(messages + n, 64, "%s{\"role\":\"%s\",\"content\":\"", n > 1 ? "," : "",
                          role);
    for (size_t i = 0; i < size; i++) {
        const unsigned char c = (unsigned char)text[i];
        if (c < 0x20) {
            n += (size_t)snprintf(messages + n, 8, "\\u%04x", c);
            continue;
        }
        if (c == '"' || c == '\\') messages[n++] = '\\';
        messages[n++] = text[i];
    }
    memcpy(messages + n, "\"}]", 4);
    messages_size = n + 2; /* without the bracket */
    return true;
}

/* Brings the session, which holds the turns before, to the prompt of all messages. */
static bool evaluate(dp_session *session, size_t n, dp_error *err) {
    size_t held, same = 0;
    const dp_token *tokens = dp_session_tokens(session, &held);
    while (same < held && same + 1 < n && tokens[same] == prompt[same])
        same++;
    return dp_session_rewind(session, same, err) &&
           dp_session_eval(session, prompt + same, n - same, err);
}

static bool converse(dp_model *model, dp_session *session, dp_error *err) {
    const dp_generate_options how = { .max_tokens = ANSWER_TOKENS, .on_text = take_text };
    char line[1024];
    while (fgets(line, sizeof(line), stdin) != NULL) {
        size_t n;
        answer_size = 0;
        if (!add_message("user", line, strcspn(line, "\n")) ||
            !dp_chat_tokenize(model, messages, messages_size + 1, NULL, prompt, PROMPT_TOKENS, &n,
                              err) ||
            n > PROMPT_TOKENS || !evaluate(session, n, err) ||
            !dp_generate(session, &how, NULL, err) ||
            !add_message("assistant", answer, answer_size)) {
            return false;
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
    const bool ok = session != NULL && converse(model, session, &err);
    if (!ok) {
        fprintf(stderr, "chat: %s\n",
                err.status != DP_OK ? err.message : "the conversation is too long");
    }
    dp_session_free(session);
    dp_model_close(model);
    dp_device_close(device);
    return ok ? 0 : 1;
}
