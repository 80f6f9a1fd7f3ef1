/* run: continues a prompt, or with --chat answers one message. Ctrl-C ends the answer with what
 * there is; answer.c says what goes where. */
#include "app/app.h"

#include <inttypes.h>
#include <unistd.h>

const option run_options[] = {
    { "-p", "TEXT",
      "the prompt; spelt-out control tokens in it count as tokens, with --chat they do not",
      OPT_TEXT, FIELD(prompt) },
    { "-f", "FILE", "a file with the prompt; without -p and -f standard input", OPT_TEXT,
      FIELD(file) },
    { "--no-bos", NULL, "do not add what the tokenizer puts around a text", OPT_FLAG,
      FIELD(no_bos) },
    { "--chat", NULL, "the prompt is a message, put into the model's chat template", OPT_FLAG,
      FIELD(chat) },
    { "-n", "N", "at most so many tokens", OPT_COUNT, FIELD(n_predict), .initial = "256",
      .max = UINT32_MAX },
    { "--temp", "NUMBER", "temperature; 0: the most likely token", OPT_REAL, FIELD(temperature),
      .initial = "0", .max = 100 },
    { "--top-k", "N", "draw among the N most likely; 0: all", OPT_COUNT, FIELD(top_k),
      .initial = "0", .max = UINT32_MAX },
    { "--top-p", "NUMBER", "draw among the most likely that reach this probability", OPT_REAL,
      FIELD(top_p), .initial = "1", .max = 1 },
    { .name = NULL },
};

/* Options that make sense with --chat or without it only. */
static bool check_chat_options(const options *o, dp_error *err) {
    const char *name = o->system != NULL          ? "--system"
                       : o->chat_template != NULL ? "--chat-template"
                       : o->variables != NULL     ? "--variables"
                                                  : NULL;
    if (o->chat && o->chat_template != NULL && strcmp(o->chat_template, "-") == 0) {
        return err_set(err, DP_E_ARGUMENT, "--chat-template: standard input has the messages");
    }
    if (!o->chat && name != NULL) return err_set(err, DP_E_ARGUMENT, "%s: needs --chat", name);
    return !o->chat || !o->no_bos ||
           err_set(err, DP_E_ARGUMENT, "--no-bos: with --chat the template says what begins");
}

/* The tokens of a conversation of one message. */
static bool tokens_of_message(const engine *e, const options *o, token_list *list, dp_error *err) {
    buf text, messages;
    chat_setup setup = { .how = { 0 } };
    buf_init(&messages, TEXT_BYTES_MAX);
    buf_printf(&messages, "[");
    if (o->system != NULL) chat_add_message(&messages, "system", str_of(o->system));
    bool ok = read_text(o, &text, err) && chat_setup_read(&setup, o, err);
    if (ok) {
        chat_add_message(&messages, "user", (str){ text.data, text.size });
        buf_printf(&messages, "]");
        ok = buf_ok(&messages, "the messages", err) &&
             tokens_of_chat(e->model, (str){ messages.data, messages.size }, &setup.how, list, err);
    }
    chat_setup_free(&setup);
    buf_free(&messages);
    buf_free(&text);
    return ok;
}

/* Room for the prompt and the answer: -n is cut to what the context leaves. */
static bool plan_context(const engine *e, const options *o, const token_list *prompt,
                         uint32_t *context, uint32_t *max_tokens, dp_error *err) {
    if (!engine_context(e, o, prompt->n + o->n_predict, context, err)) return false;
    if (prompt->n > *context) {
        return err_set(err, DP_E_ARGUMENT, "the prompt has %zu tokens, the context holds %" PRIu32,
                       prompt->n, *context);
    }
    *max_tokens = (uint32_t)min_u64(o->n_predict, *context - prompt->n);
    return true;
}

static bool start_engine(engine *e, const options *o, uint32_t context, dp_error *err) {
    if (!engine_start(e, o, context, err)) return false;
    profile_prepare(e, o);
    return true;
}

/* The prompt once more, and some of the answer. */
static int profile_run(const engine *e, const options *o, const token_list *prompt, uint32_t n) {
    enum { TOKENS = 64 };
    dp_error err = { 0 };
    const profile_job job = { .tokens = prompt->ids,
                              .n_prompt = prompt->n,
                              .n_generated = min_u32(n, TOKENS),
                              .behind_prompt = true };
    return profile_report(e, o, &job, &err) ? EXIT_OK : fail(&err);
}

int cmd_run(const options *o) {
    dp_error err = { 0 };
    engine e = { .model = NULL };
    token_list prompt = { 0 };
    answer a;
    uint32_t context = 0, max_tokens = 0;
    int code = EXIT_OK;
    bool ok =
        answer_init(&a, o, &err) && check_chat_options(o, &err) && engine_describe(&e, o, &err) &&
        (o->chat ? tokens_of_message(&e, o, &prompt, &err)
                 : tokens_of_prompt(&e, o, &prompt, &err)) &&
        plan_context(&e, o, &prompt, &context, &max_tokens, &err) &&
        start_engine(&e, o, context, &err) && answer_generate(&a, &e, &prompt, max_tokens, &err);
    interrupt_watch(NULL);
    if (ok && !o->json && isatty(STDOUT_FILENO)) ok = out_write("\n", 1, &err);
    if (!ok) {
        code = fail(&err);
    } else {
        if (o->json) code = answer_print_json(&a, &e, &prompt);
        if (o->verbose || isatty(STDERR_FILENO)) answer_print_summary(&a, &e, &prompt);
        if (a.result.n_tokens < o->n_predict) answer_print_end(&a, &prompt, context);
        if (code == EXIT_OK && profile_wanted(o)) code = profile_run(&e, o, &prompt, max_tokens);
        if (code == EXIT_OK && a.result.finish == DP_FINISH_CANCELLED) code = EXIT_INTERRUPTED;
    }
    engine_close(&e);
    mem_free(prompt.ids);
    answer_free(&a);
    return code;
}
