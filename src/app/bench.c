/* bench: speed of prompt evaluation and of generation, as llama-bench measures them, and its cost.
 *
 * ppN evaluates N random tokens, tgN generates N after one, both behind -d tokens of context, each
 * once to warm up and then -r times; a time ends when the chosen token is on the host. Generation
 * goes on past stop tokens. Beside llama-bench's columns: time to the first tokens on the host,
 * submits and bytes read back per token, peak device memory, load time. */
#include "app/app.h"

#include <inttypes.h>
#include <math.h>

enum { REPEATS_MAX = 100 };

const option bench_options[] = {
    { "-p", "N,...", "prompt tokens; 0: no such test", OPT_COUNTS, FIELD(prompts), .initial = "512",
      .max = 1 << 24 },
    { "-n", "N,...", "generated tokens; 0: no such test", OPT_COUNTS, FIELD(generations),
      .initial = "128", .max = 1 << 24 },
    { "-d", "N,...", "tokens of context before the test", OPT_COUNTS, FIELD(depths), .initial = "0",
      .max = 1 << 24 },
    { "-r", "N", "repetitions", OPT_COUNT, FIELD(repeats), .initial = "5", .min = 1,
      .max = REPEATS_MAX },
    { "--steps", "N", "tokens generated in one submit", OPT_COUNT, FIELD(steps), .initial = "32",
      .min = 1, .max = DP_STEPS_MAX },
    { "-o", "FORMAT", "md, csv, json or jsonl", OPT_TEXT, FIELD(output), .initial = "md" },
    { .name = NULL },
};

typedef enum { OUT_MD, OUT_CSV, OUT_JSON, OUT_JSONL } out_format;

/* One test and its results. */
typedef struct {
    char model_type[96], test[48], gpu_info[128], backends[16], library[16];
    const char *version, *model_filename;
    uint64_t model_size, model_n_params, n_batch, n_prompt, n_gen, n_depth, n_steps;
    uint64_t f16, subgroups; /* 0 or 1 */
    double avg_ns, stddev_ns, avg_ts, stddev_ts;
    double first_ms, submits_per_token, dispatches_per_token, bytes_read_per_token, load_ms;
    uint64_t device_bytes_peak;
    size_t n_samples;
    double samples_ns[REPEATS_MAX], samples_ts[REPEATS_MAX];
} bench_row;

/* ---- output -------------------------------------------------------------------------------- */

/* The machine-readable columns; the first ones under llama-bench's names. */
static const struct {
    const char *name;
    enum { COLUMN_ARRAY, COLUMN_TEXT, COLUMN_COUNT, COLUMN_REAL } kind;
    size_t offset;
} columns[] = {
#define COLUMN(kind, field) \
    { #field, COLUMN_##kind, offsetof(bench_row, field) }
    COLUMN(TEXT, version),
    COLUMN(ARRAY, backends),
    COLUMN(ARRAY, gpu_info),
    COLUMN(TEXT, model_filename),
    COLUMN(ARRAY, model_type),
    COLUMN(COUNT, model_size),
    COLUMN(COUNT, model_n_params),
    COLUMN(COUNT, n_batch),
    COLUMN(COUNT, n_prompt),
    COLUMN(COUNT, n_gen),
    COLUMN(COUNT, n_depth),
    COLUMN(REAL, avg_ns),
    COLUMN(REAL, stddev_ns),
    COLUMN(REAL, avg_ts),
    COLUMN(REAL, stddev_ts),
    COLUMN(ARRAY, test),
    COLUMN(ARRAY, library),
    COLUMN(COUNT, f16),
    COLUMN(COUNT, subgroups),
    COLUMN(COUNT, n_steps),
    COLUMN(REAL, first_ms),
    COLUMN(REAL, submits_per_token),
    COLUMN(REAL, dispatches_per_token),
    COLUMN(REAL, bytes_read_per_token),
    COLUMN(COUNT, device_bytes_peak),
    COLUMN(REAL, load_ms),
#undef COLUMN
};

/* RFC 4180: in quotes, quotes doubled. */
static void add_csv_text(buf *b, const char *text) {
    buf_printf(b, "\"");
    for (; *text != '\0'; text++)
        buf_printf(b, *text == '"' ? "\"\"" : "%c", *text);
    buf_printf(b, "\"");
}

static void add_cell(buf *b, const bench_row *row, size_t i, bool csv) {
    const char *field = (const char *)row + columns[i].offset;
    if (columns[i].kind == COLUMN_TEXT) field = *(const char *const *)(const void *)field;
    switch (columns[i].kind) {
    case COLUMN_ARRAY:
    case COLUMN_TEXT:
        if (csv) {
            add_csv_text(b, field);
        } else {
            json_add_string(b, str_of(field));
        }
        break;
    case COLUMN_COUNT:
        buf_printf(b, "%" PRIu64, *(const uint64_t *)(const void *)field);
        break;
    case COLUMN_REAL:
        json_add_f64(b, *(const double *)(const void *)field);
        break;
    }
}

static void add_samples(buf *b, const char *key, const double *samples, size_t n) {
    json_key(b, key);
    buf_printf(b, "[");
    for (size_t i = 0; i < n; i++) {
        json_item(b);
        json_add_f64(b, samples[i]);
    }
    buf_printf(b, "]");
}

static void add_object(buf *b, const bench_row *row) {
    buf_printf(b, "{");
    for (size_t i = 0; i < ARRAY_LEN(columns); i++) {
        json_key(b, columns[i].name);
        add_cell(b, row, i, false);
    }
    add_samples(b, "samples_ns", row->samples_ns, row->n_samples);
    add_samples(b, "samples_ts", row->samples_ts, row->n_samples);
    buf_printf(b, "}");
}

static void add_heading(buf *b, out_format format) {
    if (format == OUT_MD) {
        buf_printf(b, "| model | size | params | backend | device | test | t/s | first ms | "
                      "submits/tok | read B/tok | peak | load ms |\n"
                      "| --- | ---: | ---: | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | "
                      "---: |\n");
    } else if (format == OUT_CSV) {
        for (size_t i = 0; i < ARRAY_LEN(columns); i++) {
            buf_printf(b, i > 0 ? ",%s" : "%s", columns[i].name);
        }
        buf_printf(b, "\n");
    } else if (format == OUT_JSON) {
        buf_printf(b, "[");
    }
}

static void add_row(buf *b, const bench_row *row, out_format format) {
    switch (format) {
    case OUT_MD:
        buf_printf(b,
                   "| %s | %s | %.2f M | %s | %s | %s | %.2f ± %.2f | %.2f | %.3f | %.1f | "
                   "%s | %.0f |\n",
                   row->model_type, show_bytes(row->model_size).text,
                   1e-6 * (double)row->model_n_params, row->backends, row->gpu_info, row->test,
                   row->avg_ts, row->stddev_ts, row->first_ms, row->submits_per_token,
                   row->bytes_read_per_token, show_bytes(row->device_bytes_peak).text,
                   row->load_ms);
        break;
    case OUT_CSV:
        for (size_t i = 0; i < ARRAY_LEN(columns); i++) {
            if (i > 0) buf_printf(b, ",");
            add_cell(b, row, i, true);
        }
        buf_printf(b, "\n");
        break;
    case OUT_JSON:
        json_item(b);
        buf_printf(b, "\n");
        add_object(b, row);
        break;
    case OUT_JSONL:
        add_object(b, row);
        buf_printf(b, "\n");
        break;
    }
}

/* ---- measuring ----------------------------------------------------------------------------- */

typedef struct {
    engine e;
    const options *o;
    dp_token *tokens; /* random, as many as the longest test needs */
} bench;

static void fill_random(dp_token *tokens, size_t n, uint32_t vocab) {
    uint64_t x = 0x9e3779b97f4a7c15; /* xorshift64 (Marsaglia 2003), any seed but 0 */
    for (size_t i = 0; i < n; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        tokens[i] = (dp_token)((x >> 32) % vocab);
    }
}

/* Where every repetition begins: generation needs one token in front. */
static size_t start_of(const bench_row *row) {
    return row->n_gen > 0 && row->n_depth == 0 ? 1 : row->n_depth;
}

/* Evaluates and waits for the next token, which ends a time honestly: evaluation alone may only
 * have been submitted. */
static bool eval_and_wait(const bench *b, const dp_token *tokens, size_t n, dp_error *err) {
    dp_token next;
    return dp_session_eval(b->e.session, tokens, n, err) &&
           dp_session_sample(b->e.session, &next, err);
}

static bool generate_tokens(const bench *b, uint64_t n, double start, double *first,
                            dp_error *err) {
    dp_token tokens[DP_STEPS_MAX];
    for (uint64_t done = 0; done < n;) {
        const uint32_t steps = (uint32_t)min_u64(b->o->steps, n - done);
        uint32_t count;
        if (!check_interrupted(err) ||
            !dp_batch_generate(&b->e.session, 1, steps, true, tokens, &count, err)) {
            return false;
        }
        if (done == 0) *first = now_seconds() - start;
        done += steps;
    }
    return true;
}

/* One repetition; what prepares it is neither timed nor counted. */
typedef struct {
    double seconds, first; /* in all; until the first tokens were on the host */
    dp_stats before;
} lap;

/* `n_gen` for a warm-up shorter than the test. */
static bool repeat_test(const bench *b, const bench_row *row, uint64_t n_gen, lap *l,
                        dp_error *err) {
    const size_t at = start_of(row);
    const bool prompt = row->n_prompt > 0;
    bool ok = dp_session_rewind(b->e.session, prompt ? at : at - 1, err) &&
              (prompt || eval_and_wait(b, b->tokens + at - 1, 1, err));
    dp_device_get_stats(b->e.device, &l->before);
    const double start = now_seconds();
    if (prompt) {
        ok = ok && eval_and_wait(b, b->tokens + at, row->n_prompt, err);
    } else {
        ok = ok && generate_tokens(b, n_gen, start, &l->first, err);
    }
    l->seconds = now_seconds() - start;
    if (prompt) l->first = l->seconds;
    return ok && check_interrupted(err);
}

static void mean_and_deviation(const double *samples, size_t n, double *mean, double *deviation) {
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++)
        sum += samples[i];
    *mean = sum / (double)n;
    for (size_t i = 0; i < n; i++)
        squares += (samples[i] - *mean) * (samples[i] - *mean);
    *deviation = n > 1 ? sqrt(squares / (double)(n - 1)) : 0;
}

static bool run_test(const bench *b, bench_row *row, dp_error *err) {
    const uint64_t per_run = row->n_prompt > 0 ? row->n_prompt : row->n_gen;
    const double tokens = (double)(per_run * b->o->repeats);
    double firsts = 0;
    lap l = { 0 };
    dp_stats stats = { 0 }, sum = { 0 };
    if (!dp_session_rewind(b->e.session, 0, err) ||
        !dp_session_eval(b->e.session, b->tokens, start_of(row), err) ||
        !repeat_test(b, row, min_u64(row->n_gen, b->o->steps), &l, err)) {
        return false;
    }
    for (row->n_samples = 0; row->n_samples < b->o->repeats; row->n_samples++) {
        progress_line("%s: %zu of %" PRIu64, row->test, row->n_samples + 1, b->o->repeats);
        if (!repeat_test(b, row, row->n_gen, &l, err)) return false;
        dp_device_get_stats(b->e.device, &stats);
        sum.submits += stats.submits - l.before.submits;
        sum.dispatches += stats.dispatches - l.before.dispatches;
        sum.bytes_read += stats.bytes_read - l.before.bytes_read;
        firsts += l.first;
        row->samples_ns[row->n_samples] = 1e9 * l.seconds;
        row->samples_ts[row->n_samples] = (double)per_run / fmax(l.seconds, 1e-9);
    }
    progress_line("%s", "");
    mean_and_deviation(row->samples_ns, row->n_samples, &row->avg_ns, &row->stddev_ns);
    mean_and_deviation(row->samples_ts, row->n_samples, &row->avg_ts, &row->stddev_ts);
    row->first_ms = 1e3 * firsts / (double)row->n_samples;
    row->submits_per_token = (double)sum.submits / tokens;
    row->dispatches_per_token = (double)sum.dispatches / tokens;
    row->bytes_read_per_token = (double)sum.bytes_read / tokens;
    row->device_bytes_peak = stats.device_bytes_peak;
    return true;
}

/* ---- the command --------------------------------------------------------------------------- */

static void describe_row(const bench *b, bench_row *row, uint64_t n_prompt, uint64_t n_gen,
                         uint64_t n_depth) {
    const dp_model_info *m = &b->e.info;
    dp_device_info d;
    dp_device_get_info(b->e.device, &d);
    memset(row, 0, sizeof(*row));
    row->version = DP_VERSION;
    row->model_filename = b->e.path;
    row->model_size = m->weight_bytes;
    row->model_n_params = m->n_parameters;
    row->n_batch = b->o->batch;
    row->n_prompt = n_prompt;
    row->n_gen = n_gen;
    row->n_depth = n_depth;
    row->n_steps = b->o->steps;
    row->f16 = d.f16;
    row->subgroups = d.subgroups;
    row->load_ms = 1e3 * b->e.load_seconds;
    snprintf(row->model_type, sizeof(row->model_type), "%s %s", m->architecture, m->format);
    snprintf(row->gpu_info, sizeof(row->gpu_info), "%s", d.name);
    snprintf(row->backends, sizeof(row->backends), "%s", d.backend);
    snprintf(row->library, sizeof(row->library), "%s", d.library);
    const int n = snprintf(row->test, sizeof(row->test), n_prompt > 0 ? "pp%" PRIu64 : "tg%" PRIu64,
                           n_prompt > 0 ? n_prompt : n_gen);
    if (n_depth > 0) {
        snprintf(row->test + n, sizeof(row->test) - (size_t)n, " @ d%" PRIu64, n_depth);
    }
}

static bool run_all(const bench *b, out_format format, buf *out, dp_error *err) {
    const options *o = b->o;
    static bench_row row;
    add_heading(out, format);
    for (size_t d = 0; d < o->depths.n; d++) {
        for (size_t i = 0; i < o->prompts.n + o->generations.n; i++) {
            const bool prompt = i < o->prompts.n;
            const uint64_t n =
                prompt ? o->prompts.items[i] : o->generations.items[i - o->prompts.n];
            if (n == 0) continue;
            describe_row(b, &row, prompt ? n : 0, prompt ? 0 : n, o->depths.items[d]);
            if (!run_test(b, &row, err)) return false;
            add_row(out, &row, format);
            if (format == OUT_JSON) continue; /* whole at the end, or not at all */
            if (!buf_ok(out, "the table", err) || !out_write(out->data, out->size, err)) {
                return false;
            }
            buf_reset(out);
        }
    }
    if (format == OUT_JSON) buf_printf(out, "\n]\n");
    return true;
}

static bool parse_format(const options *o, out_format *format, dp_error *err) {
    static const char *const names[] = { "md", "csv", "json", "jsonl" };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(o->json ? "json" : o->output, names[i]) == 0) {
            *format = (out_format)i;
            return true;
        }
    }
    return err_set(err, DP_E_ARGUMENT, "-o: \"%s\" is none of md, csv, json, jsonl", o->output);
}

static uint64_t largest(const count_list *list) {
    uint64_t max = 0;
    for (size_t i = 0; i < list->n; i++)
        max = max_u64(max, list->items[i]);
    return max;
}

int cmd_bench(const options *o) {
    dp_error err = { 0 };
    bench b = { .o = o };
    out_format format = OUT_MD;
    uint32_t context = 0;
    buf out;
    buf_init(&out, TEXT_BYTES_MAX);
    if (!parse_format(o, &format, &err) || !engine_describe(&b.e, o, &err)) return fail(&err);
    const uint64_t test = max_u64(largest(&o->prompts), largest(&o->generations));
    const uint64_t needed = largest(&o->depths) + test + 1; /* the token in front of a generation */
    bool ok = test > 0 || err_set(&err, DP_E_ARGUMENT, "-p and -n: there is nothing to measure");
    ok = ok && engine_context(&b.e, o, needed, &context, &err);
    if (ok && needed > context) {
        ok = err_set(&err, DP_E_ARGUMENT,
                     "the longest test takes %" PRIu64 " tokens, the context holds %" PRIu32,
                     needed, context);
    }
    ok = ok && engine_start(&b.e, o, context, &err);
    if (ok) {
        b.tokens = mem_new(needed, sizeof(dp_token), "random tokens", &err);
        ok = b.tokens != NULL;
    }
    if (ok) {
        fill_random(b.tokens, needed, b.e.info.vocab_size);
        ok = run_all(&b, format, &out, &err);
    }
    const int code = ok ? out_result(&out) : fail(&err);
    if (ok && o->profile) print_profile(b.e.device, b.e.model);
    engine_close(&b.e);
    mem_free(b.tokens);
    if (!ok) buf_free(&out);
    return code;
}
