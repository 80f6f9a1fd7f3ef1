/* bench: speed of prompt evaluation and of generation, as llama-bench measures them, and its cost.
 *
 * ppN evaluates N random tokens, tgN generates N after one, ppN+tgM does both, each behind -d
 * tokens of context, once to warm up and then -r times. The other ways to call it: a fixed prompt
 * with the result schema (--schema), another engine in turns with this one (--against), and `bench
 * compare` and `bench plot`, which need no device. */
#include "app/bench_internal.h"

#include <inttypes.h>

enum { TESTS_MAX = 1024 };

const option bench_options[] = {
    { "-p", "N,...", "prompt tokens, also FIRST-LAST+STEP or FIRST-LAST*FACTOR; 0: no such test",
      OPT_COUNTS, FIELD(prompts), .given = offsetof(options, prompts_given), .initial = "512",
      .max = 1 << 24 },
    { "-n", "N,...", "generated tokens; 0: no such test", OPT_COUNTS, FIELD(generations),
      .given = offsetof(options, generations_given), .initial = "128", .max = 1 << 24 },
    { "-pg", "N,M", "a prompt of N tokens and M generated in one test; up to 16 times", OPT_TEXTS,
      FIELD(pairs), .min = 1, .max = 64 },
    { "-d", "N,...", "tokens of context before the test", OPT_COUNTS, FIELD(depths),
      .given = offsetof(options, depths_given), .initial = "0", .max = 1 << 24 },
    { "--parallel", "N,...", "sessions that -n generates for at the same time; all tokens count",
      OPT_COUNTS, FIELD(parallels), .given = offsetof(options, parallels_given), .initial = "1",
      .min = 1, .max = PARALLEL_MAX },
    { "--ops", NULL, "time every kernel alone, of a pass of one row and of passes of -p rows",
      OPT_FLAG, FIELD(ops) },
    { "-r", "N", "repetitions", OPT_COUNT, FIELD(repeats), .initial = "5", .min = 1,
      .max = REPEATS_MAX },
    { "--steps", "N", "tokens generated in one submit; 0: as `run` does", OPT_COUNT, FIELD(steps),
      .initial = "32", .max = DP_STEPS_MAX },
    { "--delay", "SECONDS", "rest before each test", OPT_COUNT, FIELD(delay), .initial = "0",
      .max = 3600 },
    { "--gpu-time", NULL, "fill gpu_ms, by a pair of timestamps around every pass", OPT_FLAG,
      FIELD(gpu_time) },
    { "--no-warmup", NULL, "measure the first run too", OPT_FLAG, FIELD(no_warmup) },
    { "-o", "FORMAT", "md, csv, json, jsonl or sql; of `bench plot` the file", OPT_TEXT,
      FIELD(output), .given = offsetof(options, output_given), .initial = "md" },
    { "--save", "DIR", "keep the result as DIR/{suite}_{model}_{time}.json too", OPT_TEXT,
      FIELD(save) },
    { "--schema", "doppler", "fixed prompts, one JSON object for each (docs/speed.md)", OPT_TEXT,
      FIELD(schema) },
    { "--prompt-name", "NAME,...", "with --schema: xs, short, medium, long or all", OPT_TEXT,
      FIELD(prompt_names), .initial = "short", .with = "--schema" },
    { "--cold", NULL, "with --schema: a new device and model for every run", OPT_FLAG, FIELD(cold),
      .with = "--schema" },
    { "--warmup-prefill", "N", "with --schema: prompts evaluated before the timed runs", OPT_COUNT,
      FIELD(warmup_prefill), .initial = "2", .max = 100, .with = "--schema" },
    { "--warmup-decode", "N", "with --schema: tokens generated after each of them", OPT_COUNT,
      FIELD(warmup_decode), .initial = "16", .max = 4096, .with = "--schema" },
    { "--against", "COMMAND",
      "run another llama-bench in turns with this; {model} and {tests} are replaced", OPT_TEXT,
      FIELD(against) },
    { "--rounds", "N", "with --against: turns of each", OPT_COUNT, FIELD(rounds), .initial = "2",
      .min = 1, .max = ROUNDS_MAX, .with = "--against" },
    { "--time-limit", "SECONDS", "with --against: for each call of the command", OPT_COUNT,
      FIELD(time_limit), .initial = "600", .min = 1, .max = 86400, .with = "--against" },
    { "--threshold", "PERCENT", "with `bench compare`: smaller differences do not count", OPT_REAL,
      FIELD(threshold), .initial = "2", .max = 100, .with = "compare" },
    { "--different", NULL, "with `bench compare`: model, device, settings or tests may differ",
      OPT_FLAG, FIELD(different), .with = "compare" },
    { .name = NULL },
};

/* ---- what to run --------------------------------------------------------------------------- */

typedef struct {
    bench_test items[TESTS_MAX];
    size_t n;
    uint64_t needed; /* tokens of the longest, of all its sessions */
} test_list;

static bool add_test(test_list *list, bench_test t, dp_error *err) {
    if (t.n_prompt == 0 && t.n_gen == 0) return true;
    if (list->n == TESTS_MAX) {
        return err_set(err, DP_E_ARGUMENT, "-p, -n, -pg, -d and --parallel make more than %d tests",
                       TESTS_MAX);
    }
    list->items[list->n++] = t;
    list->needed = max_u64(list->needed, test_tokens(&t));
    return true;
}

static bool parse_pair(const char *text, bench_test *pair, dp_error *err) {
    const size_t n = strcspn(text, ",");
    const uint64_t limit = 1 << 24;
    return (text[n] == ',' && str_to_u64((str){ text, n }, &pair->n_prompt) &&
            str_to_u64(str_of(text + n + 1), &pair->n_gen) && pair->n_prompt <= limit &&
            pair->n_gen <= limit) ||
           err_set(err, DP_E_ARGUMENT,
                   "-pg: \"%s\" is not PROMPT,GENERATED, two numbers up to %" PRIu64, text, limit);
}

/* In llama-bench's order. */
static bool list_tests(const options *o, test_list *list, dp_error *err) {
    for (size_t d = 0; d < o->depths.n; d++) {
        const uint64_t depth = o->depths.items[d];
        for (size_t i = 0; i < o->prompts.n; i++) {
            if (!add_test(list, (bench_test){ o->prompts.items[i], 0, depth, 1 }, err)) {
                return false;
            }
        }
        for (size_t i = 0; i < o->generations.n; i++) {
            for (size_t k = 0; k < o->parallels.n; k++) {
                const bench_test t = { 0, o->generations.items[i], depth, o->parallels.items[k] };
                if (!add_test(list, t, err)) return false;
            }
        }
        for (size_t i = 0; i < o->pairs.n; i++) {
            bench_test pair = { .n_depth = depth, .n_parallel = 1 };
            if (!parse_pair(o->pairs.items[i], &pair, err) || !add_test(list, pair, err)) {
                return false;
            }
        }
    }
    return list->n > 0 ||
           err_set(err, DP_E_ARGUMENT, "-p, -n and -pg: there is nothing to measure");
}

/* ---- running it ---------------------------------------------------------------------------- */

static bool run_tests(const bench *b, const test_list *list, out_format format, buf *out,
                      buf *saved, dp_error *err) {
    static bench_row row;
    rows_begin(out, format);
    rows_begin(saved, OUT_JSON);
    for (size_t i = 0; i < list->n; i++) {
        const bench_test *t = &list->items[i];
        if (!sleep_seconds((double)b->o->delay, err)) return false;
        describe_row(b, &row, *t);
        if (!run_test(b, &row, err)) return false;
        rows_add(out, &row, format);
        rows_add(saved, &row, OUT_JSON);
        /* JSON whole at the end, or not at all */
        if (format != OUT_JSON && !out_part(out, err)) return false;
    }
    rows_end(out, format);
    rows_end(saved, OUT_JSON);
    return true;
}

/* The first -p and the first -n behind the last -d, of one session: the others give their room. */
static bool profile_tests(const bench *b, dp_error *err) {
    const options *o = b->o;
    const profile_job job = { .tokens = b->tokens,
                              .n_depth = o->depths.items[o->depths.n - 1],
                              .n_prompt = o->prompts.items[0],
                              .n_generated = o->generations.items[0] };
    return bench_rewind(b, 1, err) && profile_report(&b->e, o, &job, err);
}

static int bench_tests(const options *o, const test_list *list) {
    dp_error err = { 0 };
    bench b;
    buf out, saved;
    out_format format = OUT_MD;
    const time_text when = time_now();
    buf_init(&out, TEXT_BYTES_MAX);
    buf_init(&saved, TEXT_BYTES_MAX);
    if (!parse_format(o, &format, &err)) return fail(&err);
    bool ok = bench_plan(&b, o, list->needed, &err) && prepare_save(o, &err) &&
              bench_start(&b, &err) && run_tests(&b, list, format, &out, &saved, &err);
    if (ok && o->save != NULL) ok = save_result(o->save, "bench", b.e.path, &when, &saved, &err);
    if (ok && profile_wanted(o)) ok = profile_tests(&b, &err);
    const int code = ok ? out_result(&out) : fail(&err);
    bench_close(&b);
    buf_free(&saved);
    if (!ok) buf_free(&out);
    return code;
}

/* The ways to measure that are not the tests, compare and plot refuse what they would not do. */
static bool check_mode(const options *o, dp_error *err) {
    const bool files = o->n_rest > 0; /* compare or plot */
    const char *mode = files                ? o->rest[0]
                       : o->ops             ? "--ops"
                       : o->schema != NULL  ? "--schema"
                       : o->against != NULL ? "--against"
                                            : NULL;
    const bool alone = files || o->ops;
    const char *other = o->profile                    ? "--profile"
                        : o->profile_out != NULL      ? "--profile-out"
                        : o->trace != NULL            ? "--trace"
                        : files && o->ops             ? "--ops"
                        : alone && o->schema != NULL  ? "--schema"
                        : alone && o->against != NULL ? "--against"
                        : files && o->save != NULL    ? "--save"
                        : alone && o->pairs.n > 0     ? "-pg"
                        : o->parallels_given          ? "--parallel"
                                                      : NULL;
    return mode == NULL || other == NULL ||
           err_set(err, DP_E_ARGUMENT, "%s: not with %s", other, mode);
}

int cmd_bench(const options *o) {
    static test_list list;
    dp_error err = { 0 };
    const bool compare = o->n_rest > 0 && strcmp(o->rest[0], "compare") == 0;
    if (o->n_rest > 0 && !compare && strcmp(o->rest[0], "plot") != 0) {
        err_set(&err, DP_E_ARGUMENT, "bench: \"%.100s\" is no option, nor compare or plot",
                o->rest[0]);
        return fail(&err);
    }
    if (!check_mode(o, &err)) return fail(&err);
    if (o->n_rest > 0) return compare ? bench_compare(o) : bench_plot(o);
    if (o->ops) return bench_ops(o);
    if (o->schema != NULL) return bench_schema(o);
    if (!list_tests(o, &list, &err)) return fail(&err);
    if (o->against != NULL) return bench_against(o, list.items, list.n, list.needed);
    return bench_tests(o, &list);
}
