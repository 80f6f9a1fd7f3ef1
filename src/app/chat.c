/* chat: a conversation in the terminal, or with a program at the other end of a pipe.
 *
 * The conversation is a list of messages; every answer renders it by the chat template and gives
 * the session the prompt, of which it evaluates only what it does not hold yet (answer.c). So
 * /regen, /system, /load and a template that rewrites earlier turns need no care of their own. When
 * the context is full the oldest turns are left out of the prompt, half of the context at a time so
 * that not every later answer begins with a long evaluation; they stay in what /save writes.
 *
 * Answers go to stdout, all else to stderr. A failure that leaves the model usable costs the one
 * message or command; without a terminal the exit code tells of the first. */
#include "app/app.h"

#include <inttypes.h>
#include <signal.h>
#include <unistd.h>

enum {
    HISTORY_BYTES_MAX = 64 * 1024 * 1024, /* of all messages as JSON */
};

/* Where the model has no defaults: the middle of what published models recommend. */
static const double TEMPERATURE_DEFAULT = 0.7, TOP_P_DEFAULT = 0.95;

/* Those of `run` that have other defaults here, which take_defaults sets. */
const option converse_options[] = {
    { "-n", "N", "at most so many tokens in an answer; without it what the context has room for",
      OPT_COUNT, FIELD(n_predict), .given = offsetof(options, n_given), .max = UINT32_MAX },
    { "--temp", "NUMBER",
      "temperature; 0: the most likely token; without it the model's own, else 0.7", OPT_REAL,
      FIELD(temperature), .given = offsetof(options, temperature_given), .max = 100 },
    { "--top-k", "N", "draw among the N most likely; 0: all; without it the model's own, else 0",
      OPT_COUNT, FIELD(top_k), .given = offsetof(options, top_k_given), .max = UINT32_MAX },
    { "--top-p", "NUMBER",
      "draw among the most likely that reach this probability; without it the model's own, or 0.95 "
      "for a model without defaults",
      OPT_REAL, FIELD(top_p), .given = offsetof(options, top_p_given), .max = 1 },
    { .name = NULL },
};

typedef enum { ROLE_SYSTEM, ROLE_USER, ROLE_OTHER } role_kind;

typedef struct {
    char *text; /* a JSON object */
    size_t size;
    role_kind role;
} message;

typedef struct {
    message *items;
    size_t n, room;
    size_t bytes;
} message_list;

typedef struct {
    options o; /* with the model's own sampling where nothing else was asked for */
    engine e;
    chat_setup setup;
    uint32_t context;
    message_list history;
    size_t first; /* of history: what is before it and no system message is left out */
    answer answer;
    uint64_t seed, n_answers;
    line_input input;
    bool terminal;
    bool stopped;          /* a signal ended the last answer */
    unsigned n_interrupts; /* since the last line */
    bool ended;
    int code;
} conversation;

/* ---- messages ------------------------------------------------------------------------------ */

static role_kind role_of(str name) {
    return str_is(name, "system") || str_is(name, "developer") ? ROLE_SYSTEM
           : str_is(name, "user")                              ? ROLE_USER
                                                               : ROLE_OTHER;
}

/* Forgets all messages from the n-th on. */
static void cut_messages(message_list *l, size_t n) {
    while (l->n > n) {
        l->bytes -= l->items[--l->n].size;
        mem_free(l->items[l->n].text);
    }
}

static void free_messages(message_list *l) {
    cut_messages(l, 0);
    mem_free(l->items);
    *l = (message_list){ .n = 0 };
}

/* Puts a message, one JSON object, in front of the at-th. */
static bool insert_message(message_list *l, size_t at, role_kind role, const buf *text,
                           dp_error *err) {
    if (!buf_ok(text, "a message", err)) return false;
    if (text->size > HISTORY_BYTES_MAX - l->bytes) {
        return err_set(err, DP_E_LIMIT, "the conversation is over %d bytes; /clear begins anew",
                       HISTORY_BYTES_MAX);
    }
    if (l->n == l->room) {
        const size_t room = 2 * l->room + 16;
        message *items = mem_resize(l->items, room, sizeof(message), "messages", err);
        if (items == NULL) return false;
        l->items = items;
        l->room = room;
    }
    char *copy = mem_new(text->size, 1, "a message", err);
    if (copy == NULL) return false;
    memcpy(copy, text->data, text->size);
    memmove(l->items + at + 1, l->items + at, (l->n - at) * sizeof(message));
    l->items[at] = (message){ .text = copy, .size = text->size, .role = role };
    l->bytes += text->size;
    l->n++;
    return true;
}

static bool insert_text(message_list *l, size_t at, const char *role, str content, dp_error *err) {
    buf b;
    buf_init(&b, HISTORY_BYTES_MAX);
    chat_add_message(&b, role, content);
    const bool ok = insert_message(l, at, role_of(str_of(role)), &b, err);
    buf_free(&b);
    return ok;
}

/* Messages in front that say how to answer and are never left out. */
static size_t count_system(const message_list *l) {
    size_t n = 0;
    while (n < l->n && l->items[n].role == ROLE_SYSTEM)
        n++;
    return n;
}

/* A JSON array of the system messages and those from `first` on. */
static void join_messages(const message_list *l, size_t first, const char *between, buf *out) {
    const size_t n_system = count_system(l);
    buf_printf(out, "[");
    for (size_t i = 0; i < l->n; i++) {
        if (i >= n_system && i < first) continue;
        json_item(out);
        buf_printf(out, "%s", between);
        buf_add(out, l->items[i].text, l->items[i].size);
    }
    buf_printf(out, "%s]", between);
}

/* ---- files --------------------------------------------------------------------------------- */

/* One element of a file's array. */
static bool load_message(message_list *l, const json_value *v, const char *path, dp_error *err) {
    const json_value *content = json_get(v, "content");
    str role;
    if (!json_string(json_get(v, "role"), &role) || role.size == 0) {
        return err_set(err, DP_E_FORMAT, "%s: message %zu: no object with a \"role\"", path,
                       l->n + 1);
    }
    if (content != NULL && !json_is_string(content) && !json_is_array(content) &&
        !json_is_null(content)) {
        return err_set(err, DP_E_FORMAT, "%s: message %zu: \"content\" is no text", path, l->n + 1);
    }
    buf b;
    buf_init(&b, HISTORY_BYTES_MAX);
    json_add_value(&b, v);
    const bool ok = insert_message(l, l->n, role_of(role), &b, err) ||
                    err_prefix(err, "%s: message %zu: ", path, l->n + 1);
    buf_free(&b);
    return ok;
}

static bool load_messages(message_list *l, const char *path, dp_error *err) {
    buf bytes;
    if (!file_read_all(path, HISTORY_BYTES_MAX, &bytes, err)) return false;
    json *doc = json_open((str){ bytes.data != NULL ? bytes.data : "", bytes.size }, path, err);
    bool ok = doc != NULL && (json_is_array(json_root(doc)) ||
                              err_set(err, DP_E_FORMAT, "%s: is no array of messages", path));
    for (json_iter it = json_each(ok ? json_root(doc) : NULL); ok && json_next(&it);)
        ok = load_message(l, it.value, path, err);
    json_close(doc);
    buf_free(&bytes);
    return ok;
}

static bool save_messages(const message_list *l, const char *path, dp_error *err) {
    buf b;
    buf_init(&b, 2 * (size_t)HISTORY_BYTES_MAX);
    join_messages(l, 0, "\n", &b);
    buf_printf(&b, "\n");
    const bool ok = check_out_path(path, err) && buf_ok(&b, "the conversation", err) &&
                    file_write_atomic(path, b.data, b.size, err);
    buf_free(&b);
    return ok;
}

/* ---- prompts ------------------------------------------------------------------------------- */

static bool tokens_from(conversation *c, size_t first, token_list *prompt, dp_error *err) {
    buf b;
    buf_init(&b, 2 * (size_t)HISTORY_BYTES_MAX);
    join_messages(&c->history, first, "", &b);
    const bool ok = buf_ok(&b, "the conversation", err) &&
                    tokens_of_chat(c->e.model, (str){ b.data, b.size }, &c->setup.how, prompt, err);
    buf_free(&b);
    return ok;
}

/* How many messages of users are among the first n; each begins a turn. */
static size_t count_turns(const message_list *l, size_t n) {
    size_t turns = 0;
    for (size_t i = 0; i < n; i++)
        turns += l->items[i].role == ROLE_USER;
    return turns;
}

/* Where turn k begins, k < count_turns. */
static size_t turn_begin(const message_list *l, size_t k) {
    size_t i = 0;
    for (;; i++) {
        if (l->items[i].role == ROLE_USER && k-- == 0) return i;
    }
}

/* Leaves out as few of the oldest turns as make the prompt half of the context, by bisection: a
 * prompt grows with its turns. The last one stays in any case. */
static bool leave_turns_out(conversation *c, token_list *prompt, dp_error *err) {
    const message_list *l = &c->history;
    size_t low = count_turns(l, c->first), high = count_turns(l, l->n);
    const size_t before = low;
    if (high - low < 2) return true; /* there is one turn */
    high--;
    while (low + 1 < high) { /* from low on is too much, from high on is not or is the last turn */
        const size_t middle = low + (high - low) / 2;
        if (!tokens_from(c, turn_begin(l, middle), prompt, err)) return false;
        if (prompt->n <= c->context / 2) {
            high = middle;
        } else {
            low = middle;
        }
    }
    const size_t first = turn_begin(l, high);
    if (!tokens_from(c, first, prompt, err)) return false;
    if (prompt->n < c->context) {
        c->first = first;
        fprintf(stderr,
                "doppler: the context of %" PRIu32 " tokens is full: the model no longer sees %zu "
                "of the oldest turns\n",
                c->context, high - before);
    }
    return true;
}

/* The prompt, and how many tokens its answer may have. */
static bool plan_prompt(conversation *c, token_list *prompt, uint32_t *max_tokens, dp_error *err) {
    const uint64_t room = min_u64(c->o.n_predict, c->context / 4); /* to be kept for the answer */
    if (!tokens_from(c, c->first, prompt, err)) return false;
    if (prompt->n + room > c->context && !leave_turns_out(c, prompt, err)) return false;
    if (prompt->n >= c->context) {
        return err_set(err, DP_E_LIMIT,
                       "with this message the prompt has %zu tokens, the context holds %" PRIu32,
                       prompt->n, c->context);
    }
    *max_tokens = (uint32_t)min_u64(c->o.n_predict, c->context - prompt->n);
    return true;
}

/* ---- answers ------------------------------------------------------------------------------- */

/* Answers the last message and puts the answer behind it. On false the history is as it was. */
static bool give_answer(conversation *c, dp_error *err) {
    token_list prompt = { 0 };
    answer *a = &c->answer;
    uint32_t max_tokens = 0;
    a->seed = c->seed + c->n_answers++; /* so that another try is another answer */
    bool ok = plan_prompt(c, &prompt, &max_tokens, err);
    if (ok) {
        dp_error first = { 0 };
        interrupt_watch(c->e.session);
        ok = answer_generate(a, &c->e, &prompt, max_tokens, &first);
        if (!ok && first.status == DP_E_CANCELLED && !interrupted()) {
            /* a Ctrl-C that came when the answer before was just done */
            first = (dp_error){ 0 };
            ok = answer_generate(a, &c->e, &prompt, max_tokens, &first);
        }
        interrupt_watch(NULL);
        if (!ok) *err = first;
        c->ended |= first.status == DP_E_FILE; /* stdout takes no more */
        c->stopped = ok ? a->result.finish == DP_FINISH_CANCELLED : first.status == DP_E_CANCELLED;
    }
    if (ok && c->o.json) {
        const int code = answer_print_json(a, &c->e, &prompt);
        c->ended |= code != EXIT_OK;
        if (c->code == EXIT_OK) c->code = code;
    } else if (ok) {
        ok = out_write("\n", 1, err);
        c->ended |= !ok;
    }
    if (ok && c->o.verbose) answer_print_summary(a, &c->e, &prompt);
    if (ok) answer_print_end(a, &prompt, c->context);
    mem_free(prompt.ids);
    return ok && insert_text(&c->history, c->history.n, "assistant",
                             (str){ a->text.data, a->text.size }, err);
}

static bool take_message(conversation *c, str text, dp_error *err) {
    message_list *l = &c->history;
    if (!insert_text(l, l->n, "user", text, err)) return false;
    if (give_answer(c, err)) return true;
    cut_messages(l, l->n - 1);
    return false;
}

/* ---- commands ------------------------------------------------------------------------------ */

typedef struct {
    const char *name, *argument; /* argument NULL: takes none; in brackets: may have one */
    const char *help;
    bool (*run)(conversation *c, const char *argument, dp_error *err);
} chat_command;

static bool cmd_chat_help(conversation *c, const char *argument, dp_error *err);

static bool cmd_chat_exit(conversation *c, const char *argument, dp_error *err) {
    (void)argument, (void)err;
    c->ended = true;
    return true;
}

static bool cmd_chat_clear(conversation *c, const char *argument, dp_error *err) {
    (void)argument, (void)err;
    cut_messages(&c->history, count_system(&c->history));
    c->first = 0;
    return true;
}

static bool cmd_chat_save(conversation *c, const char *argument, dp_error *err) {
    return save_messages(&c->history, argument, err);
}

static bool cmd_chat_load(conversation *c, const char *argument, dp_error *err) {
    message_list loaded = { .n = 0 };
    if (!load_messages(&loaded, argument, err)) {
        free_messages(&loaded);
        return false;
    }
    free_messages(&c->history);
    c->history = loaded;
    c->first = 0;
    if (c->terminal) fprintf(stderr, "%zu message%s\n", loaded.n, plural(loaded.n));
    return true;
}

static bool cmd_chat_system(conversation *c, const char *argument, dp_error *err) {
    message_list *l = &c->history;
    const size_t n_old = count_system(l);
    if (*argument != '\0' && !insert_text(l, 0, "system", str_of(argument), err)) return false;
    const size_t at = *argument != '\0';
    for (size_t i = 0; i < n_old; i++) {
        l->bytes -= l->items[at + i].size;
        mem_free(l->items[at + i].text);
    }
    memmove(l->items + at, l->items + at + n_old, (l->n - at - n_old) * sizeof(message));
    l->n -= n_old;
    c->first = c->first + at > n_old ? c->first + at - n_old : 0;
    return true;
}

/* Answers the last message of the user again; the answer that was goes when there is another. */
static bool cmd_chat_regen(conversation *c, const char *argument, dp_error *err) {
    (void)argument;
    message_list *l = &c->history;
    const size_t turns = count_turns(l, l->n);
    if (turns == 0) return err_set(err, DP_E_ARGUMENT, "/regen: there is no message to answer");
    const size_t n = l->n, n_kept = turn_begin(l, turns - 1) + 1;
    message_list old = { .n = n - n_kept };
    if (old.n > 0) {
        old.items = mem_new(old.n, sizeof(message), "messages", err);
        if (old.items == NULL) return false;
        memcpy(old.items, l->items + n_kept, old.n * sizeof(message));
    }
    for (size_t i = 0; i < old.n; i++)
        old.bytes += old.items[i].size;
    l->n = n_kept;
    l->bytes -= old.bytes;
    const bool ok = give_answer(c, err);
    if (ok) {
        free_messages(&old);
    } else if (old.n > 0) { /* nothing was added, so there is room for what was there */
        memcpy(l->items + n_kept, old.items, old.n * sizeof(message));
        l->n = n;
        l->bytes += old.bytes;
        mem_free(old.items);
    }
    return ok;
}

static const chat_command chat_commands[] = {
    { "/help", NULL, "this", cmd_chat_help },
    { "/clear", NULL, "begin anew; the system message stays", cmd_chat_clear },
    { "/system", "[TEXT]", "set the system message, or without TEXT remove it", cmd_chat_system },
    { "/regen", NULL, "answer the last message again", cmd_chat_regen },
    { "/save", "FILE", "write the messages, as JSON", cmd_chat_save },
    { "/load", "FILE", "go on with the messages of a file", cmd_chat_load },
    { "/exit", NULL, "leave, as Ctrl-D does", cmd_chat_exit },
};

static bool cmd_chat_help(conversation *c, const char *argument, dp_error *err) {
    (void)c, (void)argument, (void)err;
    for (size_t i = 0; i < ARRAY_LEN(chat_commands); i++) {
        const chat_command *k = &chat_commands[i];
        fprintf(stderr, "%-8s %-7s %s\n", k->name, k->argument != NULL ? k->argument : "", k->help);
    }
    fprintf(stderr, "A line that ends in \\ goes on in the next; lines between \"\"\" are one "
                    "message.\nCtrl-C stops an answer and keeps what was said.\n");
    return true;
}

static bool run_command(conversation *c, str line, dp_error *err) {
    size_t n_name = 0;
    while (n_name < line.size && line.data[n_name] != ' ' && line.data[n_name] != '\t')
        n_name++;
    const str name = { line.data, n_name };
    str rest = trim_blanks((str){ line.data + n_name, line.size - n_name });
    const chat_command *k = NULL;
    for (size_t i = 0; i < ARRAY_LEN(chat_commands) && k == NULL; i++) {
        if (str_is(name, chat_commands[i].name)) k = &chat_commands[i];
    }
    if (k == NULL) {
        return err_set(err, DP_E_ARGUMENT, "no command %.*s; see /help", STR_ARG(name));
    }
    if (k->argument == NULL && rest.size > 0) {
        return err_set(err, DP_E_ARGUMENT, "%s: takes nothing behind it", k->name);
    }
    if (k->argument != NULL && k->argument[0] != '[' && rest.size == 0) {
        return err_set(err, DP_E_ARGUMENT, "%s: needs a %s", k->name, k->argument);
    }
    if (rest.size > 0 && memchr(rest.data, 0, rest.size) != NULL) {
        return err_set(err, DP_E_ARGUMENT, "%s: a zero byte in its %s", k->name, k->argument);
    }
    char *argument = mem_new(rest.size + 1, 1, "a command", err);
    if (argument == NULL) return false;
    if (rest.size > 0) memcpy(argument, rest.data, rest.size);
    const bool ok = k->run(c, argument, err);
    mem_free(argument);
    return ok;
}

/* ---- the conversation ---------------------------------------------------------------------- */

/* What a Ctrl-C or a SIGTERM does that came since the last line: one that stopped an answer has
 * done its work, another one leaves, in a terminal when it is the second. */
static void take_interrupt(conversation *c) {
    const int number = interrupt_take();
    if (number == 0) return;
    c->n_interrupts++;
    const bool leave = number != SIGINT || (!c->stopped && (!c->terminal || c->n_interrupts > 1));
    if (leave || !c->terminal) c->code = EXIT_INTERRUPTED;
    if (leave) {
        c->ended = true;
    } else if (!c->stopped) {
        fprintf(stderr, "\nCtrl-C again, Ctrl-D or /exit leave\n");
    }
}

/* A failure that the conversation survives is said and, for a script, remembered. */
static void take_failure(conversation *c, const dp_error *err) {
    const int code = fail(err);
    c->ended |= err->status == DP_E_DEVICE || err->status == DP_E_MEMORY;
    if ((c->ended || !c->terminal) && c->code == EXIT_OK) c->code = code;
}

static void converse(conversation *c) {
    buf text;
    buf_init(&text, MESSAGE_BYTES_MAX);
    while (!c->ended) {
        dp_error err = { 0 };
        bool is_command = false, at_end = false;
        const bool show = c->terminal && isatty(STDERR_FILENO);
        bool ok = input_message(&c->input, show, &text, &is_command, &at_end, &err);
        if (!ok && err.status == DP_E_CANCELLED) {
            take_interrupt(c);
            continue;
        }
        c->ended |= !ok && err.status != DP_E_LIMIT;
        const str said = { text.data, text.size };
        if (at_end) {
            c->ended = true;
            if (show) fprintf(stderr, "\n");
        } else if (ok && trim_blanks(said).size > 0) {
            c->n_interrupts = 0;
            ok = is_command ? run_command(c, said, &err) : take_message(c, said, &err);
        }
        if (!ok) take_failure(c, &err);
        take_interrupt(c);
        c->stopped = false;
    }
    buf_free(&text);
}

/* Where an option is not given: the model's own sampling, an answer that ends by itself. */
static void take_defaults(options *o, const dp_model_info *model) {
    const bool own = model->temperature > 0 || model->top_p > 0 || model->top_k > 0;
    if (!o->n_given) o->n_predict = UINT32_MAX;
    if (!o->temperature_given) {
        o->temperature = model->temperature > 0 ? (double)model->temperature : TEMPERATURE_DEFAULT;
    }
    if (!o->top_p_given) {
        o->top_p = model->top_p > 0 ? (double)model->top_p : own ? 1 : TOP_P_DEFAULT;
    }
    if (!o->top_k_given) o->top_k = model->top_k;
}

/* A model without a usable template is refused before the GPU is touched, not at the first
 * message. */
static bool try_template(conversation *c, dp_error *err) {
    message_list *l = &c->history;
    token_list prompt = { 0 };
    const size_t n = l->n;
    const bool ok = insert_text(l, n, "user", STR("Hello"), err) && tokens_from(c, 0, &prompt, err);
    cut_messages(l, n);
    mem_free(prompt.ids);
    return ok;
}

static bool open_conversation(conversation *c, dp_error *err) {
    const options *o = &c->o;
    if (o->chat_template != NULL && strcmp(o->chat_template, "-") == 0) {
        return err_set(err, DP_E_ARGUMENT, "--chat-template: standard input has the messages");
    }
    if (!answer_init(&c->answer, o, err) || !chat_setup_read(&c->setup, o, err) ||
        !engine_describe(&c->e, o, err) ||
        (o->system != NULL && !insert_text(&c->history, 0, "system", str_of(o->system), err)) ||
        !try_template(c, err) ||
        !engine_context(&c->e, o, c->e.info.default_context, &c->context, err) ||
        !engine_start(&c->e, o, c->context, err)) {
        return false;
    }
    interrupt_watch(NULL);
    take_defaults(&c->o, &c->e.info);
    c->seed = c->answer.seed;
    return check_interrupted(err);
}

int cmd_chat(const options *o) {
    dp_error err = { 0 };
    conversation c = { .o = *o, .terminal = isatty(STDIN_FILENO) != 0 };
    if (open_conversation(&c, &err)) {
        if (c.terminal && isatty(STDERR_FILENO)) {
            fprintf(stderr, "%s, a context of %" PRIu32 " tokens; /help for commands\n",
                    c.e.info.name, c.context);
        }
        converse(&c);
    } else {
        c.code = fail(&err);
    }
    engine_close(&c.e);
    chat_setup_free(&c.setup);
    free_messages(&c.history);
    answer_free(&c.answer);
    input_free(&c.input);
    return c.code;
}
