/* app: the program. Sees the engine through doppler.h alone, plus base, and format in inspect and
 * convert.
 *
 * A command is a row of the table in main.c: its name, its options (a table that drives parsing,
 * --help and the man page) and a function from options to an exit code. Results go to stdout,
 * everything else to stderr; a failure is one line "doppler: SENTENCE". This is the one layer that
 * may print and exit. */
#ifndef APP_APP_H
#define APP_APP_H

#include "base/base.h"

#include <stdio.h>

enum {
    EXIT_OK = 0,
    EXIT_FAILED = 1,
    EXIT_USAGE = 2,
    EXIT_INPUT = 3, /* a file that is wrong or that this version cannot do */
    EXIT_GPU = 4,   /* none that is usable, or it was lost */
    EXIT_MEMORY = 5,
    EXIT_IO = 6, /* reading or writing failed, disk full */
    EXIT_NETWORK = 7,
    EXIT_INTERRUPTED = 130
};

enum { LIST_MAX = 16, COUNTS_MAX = 64 };

typedef struct {
    const char *items[LIST_MAX];
    size_t n;
} text_list;

typedef struct {
    uint64_t items[COUNTS_MAX];
    size_t n;
} count_list;

/* What the command line said; all commands share it. Numbers are inside the range that the option's
 * table row gives, texts are borrowed from argv and NULL if not given. */
typedef struct {
    /* common */
    const char *model, *device, *webgpu;
    bool no_f16, no_subgroups, no_int8, checks, profile, json, log, help, no_verify, no_tune;
    uint64_t context, batch;          /* tokens; 0: not given */
    uint64_t max_memory, max_binding; /* bytes; 0: not given */
    /* texts and tokens */
    const char *prompt, *file, *tokens;
    bool special, no_bos;
    /* run and chat */
    uint64_t n_predict, top_k, seed, logprobs;
    bool n_given, temperature_given, top_k_given, top_p_given, seed_given, ignore_eos, verbose;
    double temperature, top_p, min_p, repeat_penalty, presence_penalty, frequency_penalty;
    text_list stop;
    /* conversations */
    const char *system, *chat_template, *variables, *messages, *tools;
    bool chat, no_generation_prompt;
    /* the others */
    uint64_t top, steps, repeats;
    uint64_t sessions; /* of the model; 0: 1 */
    const char *all, *output;
    bool tensors, plan, man;
    count_list prompts, generations, depths, parallels;
    const char *profile_out, *trace;
    bool ops;
    /* bench */
    text_list pairs; /* -pg */
    const char *against, *schema, *prompt_names, *save;
    bool prompts_given, generations_given, depths_given, parallels_given, output_given;
    bool no_warmup, cold, different, gpu_time;
    uint64_t delay, rounds, time_limit, warmup_prefill, warmup_decode;
    double threshold;
    /* convert and verify */
    const char *format, *quantize, *calibrate, *q4k_layout, *draft_model;
    text_list roles;
    bool transpose_weights, fuse_gate_up, dry_run, restart;
    bool calibrating; /* the model is opened for --calibrate */
    uint64_t shard_size, threads;
    /* pull */
    const char *sha256;
    uint64_t jobs, timeout;
    bool force;
    const char *const *rest; /* arguments that are no options */
    size_t n_rest;
} options;

/* ---- options (args.c) ---------------------------------------------------------------------- */

typedef enum { OPT_FLAG, OPT_TEXT, OPT_TEXTS, OPT_COUNT, OPT_COUNTS, OPT_BYTES, OPT_REAL } opt_kind;

typedef struct {
    const char *name;     /* "--temp"; NULL ends a table */
    const char *argument; /* "NUMBER"; NULL for a flag */
    const char *help;
    opt_kind kind;
    size_t offset;       /* of the field in `options`, see FIELD */
    size_t given;        /* of a bool that becomes true when the option is given; 0: none */
    const char *initial; /* the default, parsed like a given value; NULL: zero */
    double min, max;     /* of numbers, and of the length of texts (max 0: any); inclusive */
    const char *with;    /* an option or a first argument this one needs; NULL: none */
} option;

#define FIELD(f) .offset = offsetof(options, f)

typedef struct {
    const char *name;
    const char *arguments; /* "[ID ...]" for the usage line; NULL: takes none */
    const char *summary;
    int (*run)(const options *o);
    const option *own[3]; /* tables, some shared; looked up in order, then the common ones */
} command;

extern const command commands[]; /* main.c; ends with a NULL name */
extern const option common_options[];

/* Fills *o from argv[0..n). Moves the arguments that are no options to the front of argv, where
 * o->rest looks at them. DP_E_ARGUMENT names the option, the value and what was expected. */
bool args_parse(const command *c, int n, char **argv, options *o, dp_error *err) CHECK_RESULT;
void help_command(const command *c, buf *out);
void help_all(buf *out);
void help_man(buf *out);  /* the man page, roff */
void help_json(const command *only, buf *out); /* option tables: its own, or if NULL all */

/* ---- output and interruption (out.c) ------------------------------------------------------- */

/* Prints "doppler: SENTENCE" and returns the exit code of its status. */
int fail(const dp_error *err);

/* Writes to stdout at once. DP_E_FILE on failure, without a message if the reader has gone. */
bool out_write(const char *bytes, size_t n, dp_error *err) CHECK_RESULT;
/* Writes what there is of a result that grows, and empties it. */
bool out_part(buf *b, dp_error *err) CHECK_RESULT;
/* Writes a whole result, frees it, returns the exit code. */
int out_result(buf *b);

void json_ids(buf *b, const char *key, const dp_token *ids, size_t n); /* key NULL: no key */

double now_seconds(void); /* of a clock that only goes forward */

/* "1.62 GiB", "417 bytes" */
typedef struct {
    char text[24];
} size_text;
size_text show_bytes(uint64_t bytes);

const char *plural(uint64_t n); /* what a noun has behind it: nothing for 1, else "s" */

/* False and DP_E_FILE if no file can be written there: its folder is missing or may not be written
 * to, or something has the name that a file cannot take the place of. Asked before the work. */
bool check_out_path(const char *path, dp_error *err) CHECK_RESULT;

/* Ctrl-C (and SIGTERM) sets a flag and cancels the watched session; a second one ends the
 * program. */
void interrupt_install(void);
void interrupt_watch(dp_session *session); /* NULL: none */
bool interrupted(void);
bool check_interrupted(dp_error *err) CHECK_RESULT; /* false and DP_E_CANCELLED after Ctrl-C */

/* The signal that came since the last call, 0 if none did; the next one sets the flag again. */
int interrupt_take(void);
/* Until `fd` has something to read or is at its end. False: DP_E_CANCELLED if a signal has come or
 * comes, which is then still to be taken; DP_E_FILE. */
bool wait_for_input(int fd, dp_error *err) CHECK_RESULT;

/* A line on stderr that replaces the one before, if stderr is a terminal; "" clears it. */
void progress_line(const char *format, ...) PRINTF_LIKE(1, 2);

/* ---- engine (engine.c) --------------------------------------------------------------------- */

/* A model, and once started its device and one session. */
typedef struct {
    char path[4096];
    dp_device *device;
    dp_model *model;
    dp_session *session;
    dp_model_info info;
    double load_seconds; /* of both calls together */
} engine;

/* Finds -m, or the bundled model, and opens it without a device: enough to tokenise and to plan
 * the context. */
bool engine_describe(engine *e, const options *o, dp_error *err) CHECK_RESULT;
/* Opens the device, the model's weights with room for `context` tokens, and the session. */
bool engine_start(engine *e, const options *o, uint32_t context, dp_error *err) CHECK_RESULT;
void engine_close(engine *e);
/* Tokens to make room for when `needed` are known to come: -c if given, else `needed` rounded up;
 * never above the model's own. DP_E_ARGUMENT if -c is above that. */
bool engine_context(const engine *e, const options *o, uint64_t needed, uint32_t *context,
                    dp_error *err) CHECK_RESULT;
dp_device_options device_options(const options *o);
/* The path of a model by its name or path; NULL: the bundled one. */
bool find_model(const options *o, const char *name, char *path, size_t size,
                dp_error *err) CHECK_RESULT;
/* Where the library's log goes, and the `user` that print_log wants: the options. */
void print_log(void *user, dp_log_level level, const char *line);
void *log_user(const options *o);

/* ---- profiles (profile.c) ------------------------------------------------------------------ */

/* What to measure: a prompt behind tokens[0, n_depth), then tokens generated, behind the prompt or
 * instead of it. */
typedef struct {
    const dp_token *tokens; /* [n_depth + n_prompt], at least one */
    size_t n_depth, n_prompt;
    uint64_t n_generated;
    bool behind_prompt;
} profile_job;

/* --profile, --profile-out or --trace: the device is opened with timestamps. */
bool profile_wanted(const options *o);
/* False and DP_E_FILE if --profile-out or --trace names what no file can take the place of. */
bool profile_check(const options *o, dp_error *err) CHECK_RESULT;
/* Before the command's own work, so that it runs as without a profile. */
void profile_prepare(const engine *e, const options *o);
/* Runs the job as it always runs and kernel by kernel; writes what the options ask for. The session
 * must have room for it and is left somewhere. */
bool profile_report(const engine *e, const options *o, const profile_job *job,
                    dp_error *err) CHECK_RESULT;

/* ---- where models are kept (store.c) ------------------------------------------------------- */

enum { PLACE_BYTES = 4096 };

typedef struct {
    dp_store_options options; /* which points into this */
    char folder[PLACE_BYTES], hf_cache[PLACE_BYTES];
    char tuning[PLACE_BYTES]; /* what tuning has found; empty: nowhere */
} model_places;
void places_read(model_places *p); /* from the environment */

/* ---- texts and tokens (tokens.c) ----------------------------------------------------------- */

typedef struct {
    dp_token *ids;
    size_t n;
} token_list;

/* A file, or stdin for "-", any bytes; initialises *bytes. */
bool read_input(const char *path, buf *bytes, dp_error *err) CHECK_RESULT;
/* -p, -f or stdin if that is not a terminal, any bytes; initialises *text. */
bool read_text(const options *o, buf *text, dp_error *err) CHECK_RESULT;
bool tokens_of_text(const dp_model *model, str text, bool add_special, bool parse_special,
                    token_list *list, dp_error *err) CHECK_RESULT;
/* Ids in decimal between spaces, commas or in a JSON array; `name` opens messages. */
bool tokens_of_ids(str text, const char *name, token_list *list, dp_error *err) CHECK_RESULT;
/* The prompt of `run` and `logits`: the text's tokens, never two bos tokens in front, the bos
 * token alone for an empty text; at least one. */
bool tokens_of_prompt(const engine *e, const options *o, token_list *list,
                      dp_error *err) CHECK_RESULT;
/* Text of tokens, special ones spelt out if `special`; appended to `out`. */
bool text_of_tokens(const dp_model *model, const dp_token *ids, size_t n, bool special, buf *out,
                    dp_error *err) CHECK_RESULT;

/* ---- conversations (template.c) ------------------------------------------------------------ */

/* What the options say of the chat template, files read. */
typedef struct {
    dp_chat_options how;
    buf template_bytes, tool_bytes; /* that it points into */
} chat_setup;

/* To be freed whatever the call returned. */
bool chat_setup_read(chat_setup *s, const options *o, dp_error *err) CHECK_RESULT;
void chat_setup_free(chat_setup *s);
/* Appends an element to a JSON array that is being written. */
void chat_add_message(buf *messages, const char *role, str content);
/* The prompt of a JSON array of messages; at least one token. */
bool tokens_of_chat(const dp_model *model, str messages, const dp_chat_options *how,
                    token_list *list, dp_error *err) CHECK_RESULT;

/* ---- messages from standard input (input.c) ------------------------------------------------ */

enum { MESSAGE_BYTES_MAX = 4 * 1024 * 1024 };

typedef struct { /* ready when zeroed */
    buf bytes; /* read and, from `at` on, not used yet */
    size_t at;
    bool ended;
} line_input;

void input_free(line_input *in);
/* Reads the next message into `text`, which has a ceiling of MESSAGE_BYTES_MAX; *at_end if there is
 * none. *is_command: it is one line that begins with '/'. `show`: prompts on stderr. DP_E_LIMIT for
 * a message over the ceiling, after which the next can be read; DP_E_CANCELLED as wait_for_input;
 * DP_E_FILE. */
bool input_message(line_input *in, bool show, buf *text, bool *is_command, bool *at_end,
                   dp_error *err) CHECK_RESULT;
str trim_blanks(str s); /* without spaces, tabs and line ends around it */

/* ---- answers (answer.c) -------------------------------------------------------------------- */

/* An answer and what it took. */
typedef struct {
    const options *o;
    const dp_model *model;
    uint64_t seed;
    buf text;         /* of the answer */
    buf ids;          /* dp_token after dp_token */
    buf logprobs;     /* elements of the JSON array */
    dp_error err;     /* of writing */
    size_t n_cached;  /* tokens of the prompt that the session held already */
    double prompt_seconds;
    dp_stats before, after; /* around the generation */
    dp_generate_result result;
} answer;

/* To be freed whatever the call returned. DP_E_ARGUMENT for options that cannot go together. */
bool answer_init(answer *a, const options *o, dp_error *err) CHECK_RESULT;
void answer_free(answer *a);
/* Brings the session to the prompt, evaluating only what it does not hold already, and generates:
 * the text into `a` and, without --json, to stdout as it comes. Used again, it starts anew. */
bool answer_generate(answer *a, const engine *e, const token_list *prompt, uint32_t max_tokens,
                     dp_error *err) CHECK_RESULT;
int answer_print_json(const answer *a, const engine *e, const token_list *prompt);
void answer_print_summary(const answer *a, const engine *e, const token_list *prompt);
/* Says so if the context's end was the answer's. */
void answer_print_end(const answer *a, const token_list *prompt, uint32_t context);

/* ---- commands ------------------------------------------------------------------------------ */

extern const option run_options[], converse_options[], answer_options[], chat_options[],
    template_options[], tokenize_options[], detokenize_options[], logits_options[],
    perplexity_options[], inspect_options[], bench_options[], convert_options[],
    verify_options_table[], pull_options[];

int cmd_run(const options *o);
int cmd_chat(const options *o);
int cmd_template(const options *o);
int cmd_tokenize(const options *o);
int cmd_detokenize(const options *o);
int cmd_logits(const options *o);
int cmd_perplexity(const options *o);
int cmd_inspect(const options *o);
int cmd_convert(const options *o);
int cmd_verify(const options *o);
int cmd_pull(const options *o);
int cmd_ls(const options *o);
int cmd_rm(const options *o);
int cmd_bench(const options *o);
int bench_ops(const options *given); /* bench --ops */
int cmd_devices(const options *o);
int cmd_tune(const options *given);
int cmd_check(const options *o); /* every kernel against its reference on this device */

#endif
