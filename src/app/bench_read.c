/* bench_read: results back from files and from what other engines print.
 *
 * Takes llama-bench's json, jsonl, csv and md, ours of the same names, and the result schema.
 * Nothing in them is trusted: counts have limits, figures must be numbers above 0, and texts lose
 * their control characters and their length before anybody prints them. Tests that occur more than
 * once (files put together, several rounds) become one with all samples. */
#include "app/bench_internal.h"

#include <inttypes.h>
#include <math.h>

static const double FIGURE_MIN = 1e-6, FIGURE_MAX = 1e12; /* tokens per second, milliseconds */

const char *const setting_names[SETTINGS] = { "tuned", "int8", "checks" };
const char *const setting_texts[SETTINGS][2] = { { "untuned", "tuned" },
                                                 { "without int8", "with int8" },
                                                 { "without checks", "with checks" } };

enum { TEXT_MAX = 120, CELLS_MAX = 128, TOKENS_MAX = 1 << 30 };

/* ---- one result ---------------------------------------------------------------------------- */

/* A result while it is read; texts are views of the source. */
typedef struct {
    str model, gpu, cpu, backend, library, commit, version;
    uint64_t model_size;
    bench_test t;
    str prompt_name, figure; /* of the schema; empty: one of llama-bench's tests */
    double mean, deviation;
    result_kind kind; /* of the schema */
    setting_state settings[SETTINGS];
    const double *samples;
    size_t n_samples;
} raw_result;

/* A text that may be shown: valid UTF-8, no control characters, no '|' to break a table. */
static const char *clean_text(arena *a, str s, dp_error *err) {
    char out[TEXT_MAX + 4];
    size_t n = 0;
    while (s.size > 0 && n < TEXT_MAX) {
        uint32_t code = 0;
        const size_t size = utf8_next(s, &code);
        const bool shown = size > 0 && code >= 0x20 && code != 0x7f && code != '|' &&
                           !(code >= 0x80 && code < 0xa0);
        if (!shown) {
            out[n++] = size > 0 ? ' ' : '?';
        } else {
            memcpy(out + n, s.data, size);
            n += size;
        }
        s.data += size > 0 ? size : 1;
        s.size -= size > 0 ? size : 1;
    }
    return arena_copy(a, out, n, err);
}

static const char *device_text(arena *a, const raw_result *r, dp_error *err) {
    buf b;
    buf_init(&b, 4096);
    const str device = r->gpu.size > 0 ? r->gpu : r->cpu;
    buf_add(&b, device.data, min_u64(device.size, 2 * TEXT_MAX));
    const str more[] = { r->backend, r->library };
    for (size_t i = 0; i < ARRAY_LEN(more); i++) {
        if (more[i].size == 0) continue;
        buf_printf(&b, "%s%.*s", b.size > 0 ? ", " : "", STR_ARG(more[i]));
    }
    const bool ok = buf_ok(&b, "a device's name", err);
    const char *text = ok ? clean_text(a, (str){ b.data, b.size }, err) : NULL;
    buf_free(&b);
    return text;
}

static bool grow_list(bench_results *list, dp_error *err) {
    if (list->n == RESULTS_MAX) {
        return err_set(err, DP_E_LIMIT, "more than %d results", RESULTS_MAX);
    }
    void *items = mem_resize(list->items, list->n + 1, sizeof(*list->items), "results", err);
    if (items == NULL) return false;
    list->items = items;
    return true;
}

static bool same_subject(const bench_result *a, const bench_result *b) {
    return strcmp(a->test, b->test) == 0 && strcmp(a->model, b->model) == 0 &&
           strcmp(a->device, b->device) == 0 && strcmp(a->engine, b->engine) == 0 &&
           a->model_size == b->model_size &&
           memcmp(a->settings, b->settings, sizeof(a->settings)) == 0;
}

/* Adds the samples of `r` to an earlier result of the same test. */
static bool pool_samples(bench_results *list, bench_result *into, const bench_result *r,
                         dp_error *err) {
    const size_t n = into->n_samples + r->n_samples;
    if (n > SAMPLES_MAX) {
        return err_set(err, DP_E_LIMIT, "%s: more than %d samples", r->test, SAMPLES_MAX);
    }
    double *all = arena_new(&list->memory, n, sizeof(double), "samples", err);
    if (all == NULL) return false;
    memcpy(all, into->samples, into->n_samples * sizeof(double));
    memcpy(all + into->n_samples, r->samples, r->n_samples * sizeof(double));
    into->samples = all;
    into->n_samples = n;
    mean_and_deviation(all, n, &into->mean, &into->deviation);
    return true;
}

static bool check_figure(double x, const char *name, dp_error *err) {
    return (x >= FIGURE_MIN && x <= FIGURE_MAX) ||
           err_set(err, DP_E_FORMAT, "%s: %g, expected a number from %g to %g", name, x, FIGURE_MIN,
                   FIGURE_MAX);
}

static bool add_result(bench_results *list, const raw_result *raw, dp_error *err) {
    bench_result r = { 0 };
    char test[256];
    if (raw->t.n_prompt > TOKENS_MAX || raw->t.n_gen > TOKENS_MAX || raw->t.n_depth > TOKENS_MAX ||
        raw->t.n_parallel > TOKENS_MAX) {
        return err_set(err, DP_E_LIMIT, "a test of more than %d tokens", TOKENS_MAX);
    }
    if (raw->figure.size > 0) {
        snprintf(test, sizeof(test), "%.*s: %.*s", STR_ARG(raw->prompt_name), STR_ARG(raw->figure));
    } else if (raw->t.n_prompt + raw->t.n_gen > 0) {
        test_name(test, sizeof(test), &raw->t);
    } else {
        return err_set(err, DP_E_FORMAT, "n_prompt and n_gen are both 0: that is no test");
    }
    if (raw->n_samples == 0 && !check_figure(raw->mean, "avg_ts", err)) return false;
    r.t = raw->t;
    r.named = raw->figure.size > 0;
    r.kind = r.named                ? raw->kind
             : raw->t.n_gen == 0    ? RESULT_PREFILL
             : raw->t.n_prompt == 0 ? RESULT_DECODE
                                    : RESULT_BOTH;
    r.model_size = raw->model_size;
    memcpy(r.settings, raw->settings, sizeof(r.settings));
    r.test = clean_text(&list->memory, str_of(test), err);
    r.model = clean_text(&list->memory, raw->model, err);
    r.device = device_text(&list->memory, raw, err);
    r.engine = clean_text(&list->memory, raw->commit.size > 0 ? raw->commit : raw->version, err);
    const size_t n = raw->n_samples > 0 ? raw->n_samples : 1;
    double *samples = arena_new(&list->memory, n, sizeof(double), "samples", err);
    if (!r.test || !r.model || !r.device || !r.engine || !samples) return false;
    memcpy(samples, raw->n_samples > 0 ? raw->samples : &raw->mean, n * sizeof(double));
    r.samples = samples;
    r.n_samples = n;
    mean_and_deviation(samples, n, &r.mean, &r.deviation);
    if (raw->n_samples == 0 && raw->deviation > 0 && raw->deviation <= FIGURE_MAX) {
        r.deviation = raw->deviation;
    }
    for (size_t i = 0; i < list->n; i++) {
        if (same_subject(&list->items[i], &r)) {
            return pool_samples(list, &list->items[i], &r, err);
        }
    }
    if (!grow_list(list, err)) return false;
    list->items[list->n++] = r;
    return true;
}

/* ---- JSON ---------------------------------------------------------------------------------- */

/* Absent or null: left as it is. */
static bool take_text(const json_value *row, const char *key, str *out, dp_error *err) {
    const json_value *v = json_get(row, key);
    return v == NULL || json_is_null(v) || json_string(v, out) ||
           err_set(err, DP_E_FORMAT, "%s: expected a text", key);
}

static bool take_count(const json_value *row, const char *key, bool needed, uint64_t *out,
                       dp_error *err) {
    const json_value *v = json_get(row, key);
    if (v == NULL && !needed) return true;
    return json_u64(v, out) || err_set(err, DP_E_FORMAT, "%s: expected a whole number", key);
}

static bool take_real(const json_value *row, const char *key, double *out, dp_error *err) {
    const json_value *v = json_get(row, key);
    return v == NULL || json_is_null(v) || json_f64(v, out) ||
           err_set(err, DP_E_FORMAT, "%s: expected a number", key);
}

/* Of a row, or of the schema's env: true or false, or how many. */
static bool take_settings(const json_value *from, raw_result *r, dp_error *err) {
    for (size_t i = 0; i < SETTINGS; i++) {
        const json_value *v = json_get(from, setting_names[i]);
        uint64_t n = 0;
        bool on = false;
        if (v == NULL || json_is_null(v)) continue;
        if (!json_bool(v, &on) && !json_u64(v, &n)) {
            return err_set(err, DP_E_FORMAT, "%s: expected true, false or a whole number",
                           setting_names[i]);
        }
        r->settings[i] = on || n > 0 ? SETTING_ON : SETTING_OFF;
    }
    return true;
}

static bool parse_row(bench_results *list, const json_value *row, dp_error *err) {
    static double samples[SAMPLES_MAX];
    raw_result r = { .samples = samples };
    if (!take_text(row, "model_type", &r.model, err) || !take_text(row, "gpu_info", &r.gpu, err) ||
        !take_text(row, "cpu_info", &r.cpu, err) || !take_text(row, "backends", &r.backend, err) ||
        !take_text(row, "library", &r.library, err) ||
        !take_text(row, "build_commit", &r.commit, err) ||
        !take_text(row, "version", &r.version, err) ||
        !take_count(row, "model_size", false, &r.model_size, err) ||
        !take_count(row, "n_prompt", true, &r.t.n_prompt, err) ||
        !take_count(row, "n_gen", true, &r.t.n_gen, err) ||
        !take_count(row, "n_depth", false, &r.t.n_depth, err) ||
        !take_count(row, "n_parallel", false, &r.t.n_parallel, err) ||
        !take_real(row, "avg_ts", &r.mean, err) ||
        !take_real(row, "stddev_ts", &r.deviation, err) || !take_settings(row, &r, err)) {
        return false;
    }
    const json_value *all = json_get(row, "samples_ts");
    if (all != NULL && (!json_is_array(all) || json_count(all) > SAMPLES_MAX)) {
        return err_set(err, DP_E_FORMAT, "samples_ts: expected an array of at most %d numbers",
                       SAMPLES_MAX);
    }
    for (json_iter it = json_each(all); all != NULL && json_next(&it); r.n_samples++) {
        double *x = &samples[r.n_samples];
        if (!json_f64(it.value, x)) *x = NAN;
        if (!check_figure(*x, "samples_ts", err)) return false;
    }
    return add_result(list, &r, err);
}

/* One figure of the schema's runs, or of its metrics if there are no runs; one that is not there is
 * no failure. */
static bool parse_figure(bench_results *list, const json_value *doc, raw_result *r,
                         const char *figure, dp_error *err) {
    static double samples[SAMPLES_MAX];
    const json_value *runs = json_get(json_get(doc, "raw"), "runs");
    const json_value *metric = json_get(json_get(doc, "metrics"), figure);
    r->samples = samples;
    r->n_samples = 0;
    r->figure = str_of(figure);
    if (json_count(runs) > SAMPLES_MAX) {
        return err_set(err, DP_E_LIMIT, "raw.runs: more than %d", SAMPLES_MAX);
    }
    for (json_iter it = json_each(runs); json_is_array(runs) && json_next(&it);) {
        const json_value *v = json_get(it.value, figure);
        if (v == NULL) continue;
        double *x = &samples[r->n_samples++];
        if (!json_f64(v, x)) *x = NAN;
        if (!check_figure(*x, figure, err)) return false;
    }
    if (r->n_samples == 0) {
        if (metric == NULL || json_is_null(metric)) return true;
        r->n_samples = 1;
        if (!json_f64(metric, &samples[0])) samples[0] = NAN;
        if (!check_figure(samples[0], figure, err)) return false;
    }
    return add_result(list, r, err);
}

static bool parse_schema(bench_results *list, const json_value *doc, dp_error *err) {
    uint64_t version = 0, tokens = 0;
    raw_result r = { 0 };
    str run_type = STR("warm");
    char name[128];
    const json_value *env = json_get(doc, "env"), *gpu = json_get(env, "gpu");
    const json_value *model = json_get(doc, "model"), *work = json_get(doc, "workload");
    const json_value *runtime = json_get(env, "runtime");
    if (!take_count(doc, "schemaVersion", true, &version, err)) return false;
    if (version != 1) {
        return err_set(err, DP_E_UNSUPPORTED, "schemaVersion %" PRIu64 ", expected 1", version);
    }
    if (!take_text(model, "modelId", &r.model, err) ||
        !take_count(model, "totalSizeBytes", false, &r.model_size, err) ||
        !take_text(gpu, "description", &r.gpu, err) || !take_text(gpu, "device", &r.gpu, err) ||
        !take_text(gpu, "backend", &r.backend, err) ||
        !take_text(runtime, "library", &r.library, err) ||
        !take_text(runtime, "commit", &r.commit, err) ||
        !take_text(runtime, "version", &r.version, err) || !take_settings(env, &r, err) ||
        !take_text(doc, "runType", &run_type, err) ||
        !take_text(work, "promptName", &r.prompt_name, err) ||
        !take_count(work, "promptTokens", true, &tokens, err)) {
        return false;
    }
    snprintf(name, sizeof(name), "%.*s%s", (int)min_u64(r.prompt_name.size, 60),
             r.prompt_name.size > 0 ? r.prompt_name.data : "",
             str_is(run_type, "cold") ? " cold" : "");
    r.prompt_name = str_of(name);
    r.t.n_prompt = tokens;
    r.kind = RESULT_PREFILL;
    if (!parse_figure(list, doc, &r, "prefill_tokens_per_sec", err)) return false;
    r.t.n_depth = tokens; /* decoding goes on behind the prompt */
    r.t.n_prompt = 0;
    r.kind = RESULT_DECODE;
    if (!parse_figure(list, doc, &r, "decode_tokens_per_sec", err)) return false;
    r.kind = RESULT_TIME;
    return parse_figure(list, doc, &r, "ttft_ms", err);
}

/* What bench writes beside results of tests, so that nobody looks for a fault in the file. */
static bool check_suite(const json_value *v, dp_error *err) {
    if (json_get(v, "comparison") != NULL) {
        return err_set(err, DP_E_FORMAT,
                       "is a comparison with another engine (bench --against), expected results of "
                       "tests");
    }
    if (json_get(v, "kernel") != NULL || json_get(v, "rows") != NULL) {
        return err_set(err, DP_E_FORMAT,
                       "has times of kernels (bench --ops), expected results of tests");
    }
    return true;
}

static bool parse_object(bench_results *list, const json_value *v, dp_error *err) {
    if (!json_is_object(v)) return err_set(err, DP_E_FORMAT, "expected an object");
    if (!check_suite(v, err)) return false;
    return json_get(v, "schemaVersion") != NULL ? parse_schema(list, v, err)
                                                : parse_row(list, v, err);
}

/* An array of objects, or an object. */
static bool parse_document(bench_results *list, const json *doc, dp_error *err) {
    const json_value *root = json_root(doc);
    if (!json_is_array(root)) return parse_object(list, root, err);
    size_t i = 1;
    for (json_iter it = json_each(root); json_next(&it); i++) {
        if (!parse_object(list, it.value, err)) return err_prefix(err, "result %zu: ", i);
    }
    return true;
}

static bool parse_json(bench_results *list, str text, dp_error *err) {
    json *doc = json_open(text, "result", err);
    const bool ok = doc != NULL && parse_document(list, doc, err);
    json_close(doc);
    return ok;
}

/* ---- lines --------------------------------------------------------------------------------- */

static bool next_line(str *text, str *line) {
    if (text->size == 0) return false;
    const char *end = memchr(text->data, '\n', text->size);
    line->data = text->data;
    line->size = end != NULL ? (size_t)(end - text->data) : text->size;
    const size_t used = line->size + (end != NULL);
    text->data += used;
    text->size -= used;
    *line = trim_blanks(*line);
    return true;
}

static bool parse_json_lines(bench_results *list, str text, dp_error *err) {
    str line;
    for (size_t i = 1; next_line(&text, &line); i++) {
        if (str_starts(line, "{") && !parse_json(list, line, err)) {
            return err_prefix(err, "line %zu: ", i);
        }
    }
    return true;
}

/* "pp512", "tg 128", "pp512+tg128", each perhaps with " x8" and " @ d4096". */
static bool parse_test(str s, raw_result *r) {
    static const char *const marks[] = { "pp", "tg", "@ d", "x" };
    uint64_t *const counts[] = { &r->t.n_prompt, &r->t.n_gen, &r->t.n_depth, &r->t.n_parallel };
    while (s.size > 0) {
        size_t i = 0;
        while (i < ARRAY_LEN(marks) && !str_starts(s, marks[i]))
            i++;
        if (i == ARRAY_LEN(marks)) return false;
        s.data += strlen(marks[i]);
        s.size -= strlen(marks[i]);
        s = trim_blanks(s);
        size_t digits = 0;
        while (digits < s.size && s.data[digits] >= '0' && s.data[digits] <= '9')
            digits++;
        if (!str_to_u64((str){ s.data, digits }, counts[i])) return false;
        s.data += digits;
        s.size -= digits;
        s = trim_blanks(s);
        if (str_starts(s, "+")) s = trim_blanks((str){ s.data + 1, s.size - 1 });
    }
    return true;
}

/* "1234.56 ± 7.89" or one number. */
static bool parse_speed(str s, raw_result *r) {
    size_t n = 0;
    while (n < s.size && s.data[n] != ' ')
        n++;
    if (!str_to_f64((str){ s.data, n }, &r->mean)) return false;
    size_t behind = s.size; /* the last word is the deviation, if there is one */
    while (behind > n && s.data[behind - 1] != ' ')
        behind--;
    if (behind <= n || !str_to_f64((str){ s.data + behind, s.size - behind }, &r->deviation)) {
        r->deviation = 0;
    }
    return true;
}

/* Cells of "| a | b |". */
static size_t table_cells(str line, str cells[CELLS_MAX]) {
    size_t n = 0;
    while (n < CELLS_MAX && line.size > 1) {
        line.data++;
        line.size--;
        const char *bar = memchr(line.data, '|', line.size);
        if (bar == NULL) break;
        const size_t size = (size_t)(bar - line.data);
        cells[n++] = trim_blanks((str){ line.data, size });
        line.data += size;
        line.size -= size;
    }
    return n;
}

/* Where a name stands among cells; n if it does not. */
static size_t find_cell(const str *cells, size_t n, const char *name) {
    size_t i = 0;
    while (i < n && !str_is(cells[i], name))
        i++;
    return i;
}

static bool parse_table(bench_results *list, str text, dp_error *err) {
    str line, head[CELLS_MAX], cells[CELLS_MAX];
    size_t n_head = 0;
    for (size_t i = 1; next_line(&text, &line); i++) {
        if (!str_starts(line, "|")) continue;
        const size_t n = table_cells(line, cells);
        if (n_head == 0) {
            n_head = n;
            memcpy(head, cells, sizeof(head));
            if (find_cell(head, n, "test") == n || find_cell(head, n, "t/s") == n) {
                return err_set(err, DP_E_FORMAT, "line %zu: no columns \"test\" and \"t/s\"", i);
            }
            continue;
        }
        if (n > 0 && (str_starts(cells[0], "--") || str_starts(cells[0], ":-"))) continue;
        const size_t model = find_cell(head, n_head, "model");
        const size_t backend = find_cell(head, n_head, "backend");
        const size_t device = find_cell(head, n_head, "device");
        raw_result r = { 0 };
        if (n != n_head || !parse_test(cells[find_cell(head, n_head, "test")], &r) ||
            !parse_speed(cells[find_cell(head, n_head, "t/s")], &r)) {
            return err_set(err, DP_E_FORMAT, "line %zu: \"%.*s\" is no row of this table", i,
                           STR_ARG(line));
        }
        if (model < n) r.model = cells[model];
        if (backend < n) r.backend = cells[backend];
        if (device < n) r.gpu = cells[device];
        if (!add_result(list, &r, err)) return err_prefix(err, "line %zu: ", i);
    }
    return true;
}

/* RFC 4180 without line ends inside quotes; `text` keeps the cells without theirs. */
static size_t csv_cells(str line, buf *text, str cells[CELLS_MAX]) {
    size_t starts[CELLS_MAX + 1], n = 0;
    bool quoted = false;
    buf_reset(text);
    starts[0] = 0;
    for (size_t i = 0; i < line.size; i++) {
        const char c = line.data[i];
        if (c == '"' && quoted && i + 1 < line.size && line.data[i + 1] == '"') {
            buf_add(text, &c, 1);
            i++;
        } else if (c == '"') {
            quoted = !quoted;
        } else if (c == ',' && !quoted) {
            if (n + 1 == CELLS_MAX) return 0;
            starts[++n] = text->size;
        } else {
            buf_add(text, &c, 1);
        }
    }
    starts[++n] = text->size;
    if (text->failed != DP_OK || text->data == NULL) return 0;
    for (size_t i = 0; i < n; i++)
        cells[i] = (str){ text->data + starts[i], starts[i + 1] - starts[i] };
    return n;
}

static bool csv_row(bench_results *list, const str *head, const str *cells, size_t n,
                    dp_error *err) {
    raw_result r = { 0 };
    const struct {
        const char *name;
        str *text;
        uint64_t *count;
        double *real;
    } wanted[] = {
        { "model_type", &r.model, NULL, NULL },    { "gpu_info", &r.gpu, NULL, NULL },
        { "cpu_info", &r.cpu, NULL, NULL },        { "backends", &r.backend, NULL, NULL },
        { "library", &r.library, NULL, NULL },     { "build_commit", &r.commit, NULL, NULL },
        { "version", &r.version, NULL, NULL },     { "model_size", NULL, &r.model_size, NULL },
        { "n_prompt", NULL, &r.t.n_prompt, NULL }, { "n_gen", NULL, &r.t.n_gen, NULL },
        { "n_depth", NULL, &r.t.n_depth, NULL },   { "n_parallel", NULL, &r.t.n_parallel, NULL },
        { "avg_ts", NULL, NULL, &r.mean },         { "stddev_ts", NULL, NULL, &r.deviation },
    };
    for (size_t i = 0; i < ARRAY_LEN(wanted); i++) {
        const size_t at = find_cell(head, n, wanted[i].name);
        if (at == n) continue;
        if (wanted[i].text != NULL) *wanted[i].text = cells[at];
        if ((wanted[i].count != NULL && !str_to_u64(cells[at], wanted[i].count)) ||
            (wanted[i].real != NULL && !str_to_f64(cells[at], wanted[i].real))) {
            return err_set(err, DP_E_FORMAT, "%s: \"%.*s\" is not its number", wanted[i].name,
                           STR_ARG(cells[at]));
        }
    }
    for (size_t i = 0; i < SETTINGS; i++) {
        const size_t at = find_cell(head, n, setting_names[i]);
        uint64_t count = 0;
        if (at == n || cells[at].size == 0) continue;
        if (!str_to_u64(cells[at], &count)) {
            return err_set(err, DP_E_FORMAT, "%s: \"%.*s\" is not its number", setting_names[i],
                           STR_ARG(cells[at]));
        }
        r.settings[i] = count > 0 ? SETTING_ON : SETTING_OFF;
    }
    return add_result(list, &r, err);
}

static bool parse_csv(bench_results *list, str text, dp_error *err) {
    str line, head[CELLS_MAX], cells[CELLS_MAX];
    size_t n_head = 0;
    bool ok = true;
    buf names, values;
    buf_init(&names, 1 << 16);
    buf_init(&values, 1 << 16);
    for (size_t i = 1; ok && next_line(&text, &line); i++) {
        if (line.size == 0) continue;
        if (n_head == 0) {
            n_head = csv_cells(line, &names, head);
            continue;
        }
        const size_t n = csv_cells(line, &values, cells);
        ok = (n == n_head || err_set(err, DP_E_FORMAT, "%zu cells, expected %zu", n, n_head)) &&
             csv_row(list, head, cells, n, err);
        if (!ok) err_prefix(err, "line %zu: ", i);
    }
    buf_free(&names);
    buf_free(&values);
    return ok;
}

/* ---- any of them --------------------------------------------------------------------------- */

static bool is_csv_head(str line) {
    bool prompt = false, speed = false;
    for (size_t i = 0; i + 6 <= line.size; i++) {
        prompt |= i + 8 <= line.size && memcmp(line.data + i, "n_prompt", 8) == 0;
        speed |= memcmp(line.data + i, "avg_ts", 6) == 0;
    }
    return prompt && speed;
}

static bool parse_any(bench_results *list, str text, dp_error *err) {
    str rest = text, line;
    while (next_line(&rest, &line)) { /* engines print lines of their own in front */
        if (str_starts(line, "CREATE TABLE") || str_starts(line, "INSERT INTO")) {
            return err_set(err, DP_E_FORMAT, "SQL is not read; json, jsonl, csv and md are");
        }
        const str from = { line.data, text.size - (size_t)(line.data - text.data) };
        if (str_starts(line, "[") || str_starts(line, "{")) {
            const char close = line.data[0] == '[' ? ']' : '}';
            size_t n = from.size; /* and behind */
            while (n > 0 && from.data[n - 1] != close)
                n--;
            const str body = { from.data, n };
            json *doc = close == '}' ? json_open(body, "result", NULL) : NULL;
            const bool lines = close == '}' && doc == NULL;
            json_close(doc);
            return lines ? parse_json_lines(list, body, err) : parse_json(list, body, err);
        }
        if (str_starts(line, "|")) return parse_table(list, from, err);
        if (is_csv_head(line)) return parse_csv(list, from, err);
    }
    return err_set(err, DP_E_FORMAT,
                   "no results in the form of llama-bench's json, jsonl, csv or md");
}

bool results_parse(bench_results *list, str text, const char *name, dp_error *err) {
    const size_t before = list->n;
    if (!parse_any(list, text, err)) return err_prefix(err, "%.200s: ", name);
    return list->n > before || before > 0 ||
           err_set(err, DP_E_FORMAT, "%.200s: holds no results", name);
}

bool results_read(bench_results *list, const char *path, dp_error *err) {
    buf text;
    bool ok = file_read_all(path, RESULT_BYTES_MAX, &text, err);
    ok = ok && results_parse(list, (str){ text.data, text.size }, path, err);
    buf_free(&text);
    return ok;
}

void results_free(bench_results *list) {
    mem_free(list->items);
    arena_free(&list->memory);
    memset(list, 0, sizeof(*list));
}
