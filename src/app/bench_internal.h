/* bench: what the files of the command share.
 *
 * bench.c has the options and the flow, bench_run.c measures, bench_out.c writes rows in
 * llama-bench's formats, bench_env.c knows where a measurement was made, bench_schema.c writes the
 * result schema, bench_read.c reads results back (ours and llama-bench's), bench_compare.c,
 * bench_against.c and bench_plot.c use them; bench_ops.c times kernels. A figure that does not
 * apply is NAN and is left out or empty in outputs. */
#ifndef APP_BENCH_INTERNAL_H
#define APP_BENCH_INTERNAL_H

#include "app/app.h"

enum {
    REPEATS_MAX = 100,
    ROUNDS_MAX = 20,
    SAMPLES_MAX = REPEATS_MAX * ROUNDS_MAX, /* of one test */
    RESULTS_MAX = 1024,                     /* tests in one file */
    RESULT_BYTES_MAX = 64 * 1024 * 1024,    /* a file of results, or what a command prints */
};

/* ---- where (bench_env.c) ------------------------------------------------------------------- */

/* The commit that the program was built from, "-dirty" behind it if the tree had changes; empty if
 * the build did not know. */
extern const char *const build_commit;

typedef struct {
    char os_name[64], os_version[160], cpu[128];
} host_info;
void host_describe(host_info *h);

/* UTC: "2026-01-31T12:34:56Z", and with milliseconds, '-' for ':' and '.', for file names. */
typedef struct {
    char iso[32], name[40];
} time_text;
time_text time_now(void);

double cpu_seconds(void);       /* that this process has used, user and system */
uint64_t host_bytes_peak(void); /* most memory that it has held; 0 if the system does not say */
bool sleep_seconds(double seconds, dp_error *err) CHECK_RESULT; /* DP_E_CANCELLED after Ctrl-C */
/* The path of a fixed prompt, "xs", into path[size]. DP_E_ARGUMENT if there is none. */
bool find_prompt(const char *name, char *path, size_t size, dp_error *err) CHECK_RESULT;
/* Asks the drivers that can be asked to keep no compiled shaders. Before the first device. */
void forget_shader_caches(void);

/* ---- statistics (bench_stats.c) ------------------------------------------------------------ */

void mean_and_deviation(const double *samples, size_t n, double *mean, double *deviation);
/* Between the two nearest, linearly; sorts `samples`. NAN if n is 0. */
double quantile(double *samples, size_t n, double share);
double median_of(const double *samples, size_t n); /* n at most SAMPLES_MAX; NAN if n is 0 */
/* The chance that two samples of one distribution differ in rank as much as these, two-sided.
 * n_a and n_b at most SAMPLES_MAX; 1 if one is empty. */
double mann_whitney(const double *a, size_t n_a, const double *b, size_t n_b);

/* ---- measuring (bench_run.c) --------------------------------------------------------------- */

/* A test to run; a prompt is of one session, a generation alone may be of several. */
typedef struct {
    uint64_t n_prompt, n_gen, n_depth;
    uint64_t n_parallel; /* sessions, each with so many tokens */
} bench_test;

enum { PARALLEL_MAX = 16 }; /* more would follow one another (dp_batch_generate) */

/* Room that its sessions take: a generation needs one token in front, and the cache is given out in
 * pages. */
static inline uint64_t test_tokens(const bench_test *t) {
    const uint64_t each = t->n_depth + t->n_prompt + t->n_gen + 1;
    return t->n_parallel > 1 ? align_up(each, DP_PAGE_TOKENS) * t->n_parallel : each;
}

/* One test and its results. */
typedef struct {
    char model_type[96], test[64], gpu_info[128], driver[128], backends[16], library[16];
    char cpu_info[128], type_k[8], type_v[8], test_time[32];
    const char *version, *build_commit, *model_filename;
    uint64_t model_size, model_n_params, n_batch, n_ubatch, n_gpu_layers;
    uint64_t n_prompt, n_gen, n_depth, n_parallel, n_steps;
    uint64_t f16, subgroups, int8, checks; /* 0 or 1 */
    uint64_t matrix;                       /* side of a matrix unit's; 0: none */
    uint64_t tuned;                        /* choices of tuning in use */
    double avg_ns, stddev_ns, avg_ts, stddev_ts;
    double ttft_ms;                            /* to the first token on the host */
    double itl_ms_p50, itl_ms_p90, itl_ms_p99; /* between arrivals, as a reader sees them */
    double gpu_ms;                             /* per repetition, of whole submits */
    double submits_per_token, dispatches_per_token, bytes_read_per_token;
    double cpu_ms_per_token, cpu_percent; /* of the host; 100 is one core */
    double load_ms;
    uint64_t device_bytes_peak, host_bytes_peak;
    size_t n_samples;
    double samples_ns[SAMPLES_MAX], samples_ts[SAMPLES_MAX];
} bench_row;

typedef struct {
    engine e;
    const options *o; /* `how`, which asks for a profile where GPU times are wanted */
    options how;
    dp_token *tokens;                   /* random, `needed` of them */
    uint64_t needed;                    /* tokens of the longest test */
    dp_session *sessions[PARALLEL_MAX]; /* of tests in parallel; the first is the engine's */
    size_t n_sessions;                  /* 0 before bench_start */
    uint32_t context;                   /* tokens that there is room for */
} bench;

/* The time of every token's arrival on the host. */
typedef struct {
    double start; /* of the generation; now_seconds, as all */
    double *at;   /* [room] */
    size_t n, room;
} arrivals;

/* The model described and the context that `needed` tokens take, without a device; bench_close
 * whatever it returned. */
bool bench_plan(bench *b, const options *o, uint64_t needed, dp_error *err) CHECK_RESULT;
/* Its device, weights and session, and random tokens. */
bool bench_start(bench *b, dp_error *err) CHECK_RESULT;
void bench_close(bench *b);
/* Empties the sessions from number `first` on. */
bool bench_rewind(const bench *b, size_t first, dp_error *err) CHECK_RESULT;
/* GPU time in ns, and the rows of the passes that it took, since the device was opened: without
 * --gpu-time or a profile 0 and 0. Waits for what has been submitted. */
typedef struct {
    uint64_t ns, rows;
} gpu_time;
gpu_time gpu_time_now(const bench *b);
/* In ms; NAN if passes of other than `rows` rows were timed in between. */
double gpu_time_between(gpu_time before, gpu_time after, uint64_t rows);
/* Generates n tokens, stop tokens or not, behind the session's logits. */
bool bench_generate(const bench *b, uint64_t n, arrivals *a, dp_error *err) CHECK_RESULT;
/* Evaluates, and waits for the token that follows: evaluation alone may only have been submitted.
 */
bool bench_evaluate(const bench *b, const dp_token *tokens, size_t n, dp_error *err) CHECK_RESULT;
/* Times between arrivals in ms, into gaps[a->n - 1]: what a reader waits. */
void gaps_seen(const arrivals *a, double *gaps);
/* Times of tokens in ms, into gaps[a->n]: those that came together share the time that they took.
 */
void gaps_shared(const arrivals *a, double *gaps);
void describe_row(const bench *b, bench_row *row, bench_test t);
/* Warm-up, then -r repetitions. Fills what describe_row left. */
bool run_test(const bench *b, bench_row *row, dp_error *err) CHECK_RESULT;

/* ---- rows out (bench_out.c) ---------------------------------------------------------------- */

typedef enum { OUT_MD, OUT_CSV, OUT_JSON, OUT_JSONL, OUT_SQL } out_format;

bool parse_format(const options *o, out_format *format, dp_error *err) CHECK_RESULT;
void rows_begin(buf *b, out_format format);
void rows_add(buf *b, const bench_row *row, out_format format);
void rows_end(buf *b, out_format format);
/* "pp512", "tg128 @ d4096", "tg128 x8", "pp512+tg128" */
void test_name(char *name, size_t size, const bench_test *t);
/* Makes the folder of --save, before anything is measured in vain; no --save is fine. */
bool prepare_save(const options *o, dp_error *err) CHECK_RESULT;
/* Writes DIR/{suite}_{model}_{time}.json and says so on stderr. */
bool save_result(const char *folder, const char *suite, const char *model, const time_text *when,
                 const buf *text, dp_error *err) CHECK_RESULT;

/* ---- results in (bench_read.c) ------------------------------------------------------------- */

typedef enum { RESULT_PREFILL, RESULT_DECODE, RESULT_BOTH, RESULT_TIME } result_kind;

/* What changes figures on one device; llama-bench and files of before do not say it. */
typedef enum { SETTING_TUNED, SETTING_INT8, SETTING_CHECKS, SETTINGS } setting;
typedef enum { SETTING_UNKNOWN, SETTING_OFF, SETTING_ON } setting_state;
extern const char *const setting_names[SETTINGS];    /* keys: "int8" */
extern const char *const setting_texts[SETTINGS][2]; /* off, on: "without int8" */

/* What a file or a command said of one test. Texts live in the list's arena. */
typedef struct {
    const char *test;    /* "tg128 @ d4096", "short: ttft_ms" */
    const char *model;   /* its kind, "llama q4_k" */
    const char *device;  /* and backend */
    const char *engine;  /* version or commit */
    uint64_t model_size; /* bytes; 0 if not said */
    bench_test t;        /* of llama-bench's tests; depth also of prompts by name */
    setting_state settings[SETTINGS];
    result_kind kind;
    bool named;             /* a prompt by name, not one of llama-bench's tests */
    double mean, deviation; /* tokens per second; of RESULT_TIME ms, less is better */
    const double *samples;  /* at least one: the mean if there was nothing else */
    size_t n_samples;
} bench_result;

typedef struct {
    bench_result *items;
    size_t n;
    arena memory;
} bench_results;

/* Appends what `text` holds: llama-bench's json, jsonl, csv or md, our own of the same name, or our
 * result schema. `name` opens messages. DP_E_FORMAT for anything else, DP_E_LIMIT. */
bool results_parse(bench_results *list, str text, const char *name, dp_error *err) CHECK_RESULT;
bool results_read(bench_results *list, const char *path, dp_error *err) CHECK_RESULT;
void results_free(bench_results *list);

/* ---- the result schema (bench_schema.c) ----------------------------------------------------- */

/* What was measured on, which may be closed when it is told. */
typedef struct {
    dp_device_info device;
    uint32_t n_tuned;
    bool checks;
} bench_place;
bench_place place_of(const engine *e, const options *o);
/* An object up to what is the suite's own; `run_type` may be NULL. The caller adds its keys and the
 * brace. */
void schema_begin(buf *b, const char *suite, const char *run_type, const time_text *when,
                  const engine *e, const bench_place *place);

/* ---- the other commands -------------------------------------------------------------------- */

int bench_compare(const options *o); /* bench compare A B */
int bench_plot(const options *o);    /* bench plot RESULT... -o FILE.svg */
int bench_schema(const options *o);  /* bench --schema doppler */

/* bench --against COMMAND */
int bench_against(const options *o, const bench_test *tests, size_t n, uint64_t needed);

#endif
