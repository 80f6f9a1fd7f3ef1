/* bench_out: rows of results in llama-bench's formats.
 *
 * The first columns have llama-bench's names and meanings, so that what reads its output reads
 * ours; behind them are those that it does not have. A figure that does not apply is null in JSON
 * and SQL, nothing in CSV and "-" in the table. */
#include "app/bench_internal.h"

#include <inttypes.h>
#include <math.h>

typedef enum {
    COLUMN_ARRAY,
    COLUMN_TEXT,
    COLUMN_COUNT,
    COLUMN_FLAG,
    COLUMN_WHOLE,
    COLUMN_REAL
} kind;

static const struct {
    const char *name;
    kind kind; /* COLUMN_WHOLE: a double that is written without a fraction */
    size_t offset;
} columns[] = {
#define COLUMN(kind, field) \
    { #field, COLUMN_##kind, offsetof(bench_row, field) }
    COLUMN(TEXT, build_commit),
    COLUMN(ARRAY, cpu_info),
    COLUMN(ARRAY, gpu_info),
    COLUMN(ARRAY, backends),
    COLUMN(TEXT, model_filename),
    COLUMN(ARRAY, model_type),
    COLUMN(COUNT, model_size),
    COLUMN(COUNT, model_n_params),
    COLUMN(COUNT, n_batch),
    COLUMN(COUNT, n_ubatch),
    COLUMN(ARRAY, type_k),
    COLUMN(ARRAY, type_v),
    COLUMN(COUNT, n_gpu_layers),
    COLUMN(COUNT, n_prompt),
    COLUMN(COUNT, n_gen),
    COLUMN(COUNT, n_depth),
    COLUMN(ARRAY, test_time),
    COLUMN(WHOLE, avg_ns),
    COLUMN(WHOLE, stddev_ns),
    COLUMN(REAL, avg_ts),
    COLUMN(REAL, stddev_ts),
    COLUMN(TEXT, version),
    COLUMN(ARRAY, test),
    COLUMN(ARRAY, library),
    COLUMN(ARRAY, driver),
    COLUMN(FLAG, f16),
    COLUMN(FLAG, subgroups),
    COLUMN(FLAG, int8),
    COLUMN(COUNT, matrix),
    COLUMN(FLAG, checks),
    COLUMN(COUNT, tuned),
    COLUMN(COUNT, n_parallel),
    COLUMN(COUNT, n_steps),
    COLUMN(REAL, ttft_ms),
    COLUMN(REAL, itl_ms_p50),
    COLUMN(REAL, itl_ms_p90),
    COLUMN(REAL, itl_ms_p99),
    COLUMN(REAL, gpu_ms),
    COLUMN(REAL, submits_per_token),
    COLUMN(REAL, dispatches_per_token),
    COLUMN(REAL, bytes_read_per_token),
    COLUMN(REAL, cpu_ms_per_token),
    COLUMN(REAL, cpu_percent),
    COLUMN(COUNT, device_bytes_peak),
    COLUMN(COUNT, host_bytes_peak),
    COLUMN(REAL, load_ms),
#undef COLUMN
};

void test_name(char *name, size_t size, const bench_test *t) {
    char prompt[32] = "", gen[32] = "", parallel[32] = "", depth[32] = "";
    if (t->n_prompt > 0) snprintf(prompt, sizeof(prompt), "pp%" PRIu64, t->n_prompt);
    if (t->n_gen > 0) snprintf(gen, sizeof(gen), "tg%" PRIu64, t->n_gen);
    if (t->n_parallel > 1) snprintf(parallel, sizeof(parallel), " x%" PRIu64, t->n_parallel);
    if (t->n_depth > 0) snprintf(depth, sizeof(depth), " @ d%" PRIu64, t->n_depth);
    snprintf(name, size, "%s%s%s%s%s", prompt, t->n_prompt > 0 && t->n_gen > 0 ? "+" : "", gen,
             parallel, depth);
}

bool parse_format(const options *o, out_format *format, dp_error *err) {
    static const char *const names[] = { "md", "csv", "json", "jsonl", "sql" };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(o->json ? "json" : o->output, names[i]) == 0) {
            *format = (out_format)i;
            return true;
        }
    }
    return err_set(err, DP_E_ARGUMENT, "-o: \"%.60s\" is none of md, csv, json, jsonl, sql",
                   o->output);
}

/* ---- cells --------------------------------------------------------------------------------- */

/* In quotes, quotes doubled: CSV by RFC 4180 with '"', SQL with '\''. */
static void add_quoted(buf *b, const char *text, char quote) {
    buf_add(b, &quote, 1);
    for (; *text != '\0'; text++) {
        buf_add(b, text, 1);
        if (*text == quote) buf_add(b, &quote, 1);
    }
    buf_add(b, &quote, 1);
}

static void add_text_cell(buf *b, const char *text, out_format format) {
    if (format == OUT_CSV || format == OUT_SQL) {
        add_quoted(b, text, format == OUT_CSV ? '"' : '\'');
    } else {
        json_add_string(b, str_of(text));
    }
}

static void add_cell(buf *b, const bench_row *row, size_t i, out_format format) {
    const char *field = (const char *)row + columns[i].offset;
    const bool in_json = format == OUT_JSON || format == OUT_JSONL;
    uint64_t count;
    double real;
    switch (columns[i].kind) {
    case COLUMN_ARRAY:
        add_text_cell(b, field, format);
        break;
    case COLUMN_TEXT:
        add_text_cell(b, *(const char *const *)(const void *)field, format);
        break;
    case COLUMN_COUNT:
    case COLUMN_FLAG:
        memcpy(&count, field, sizeof(count));
        if (columns[i].kind == COLUMN_FLAG && in_json) {
            buf_printf(b, count != 0 ? "true" : "false");
        } else {
            buf_printf(b, "%" PRIu64, count);
        }
        break;
    case COLUMN_WHOLE:
    case COLUMN_REAL:
        memcpy(&real, field, sizeof(real));
        if (!isfinite(real)) {
            buf_printf(b, in_json ? "null" : format == OUT_SQL ? "NULL" : "");
        } else if (columns[i].kind == COLUMN_WHOLE) {
            buf_printf(b, "%.0f", real);
        } else {
            json_add_f64(b, real);
        }
        break;
    }
}

static void add_samples(buf *b, const char *key, const double *samples, size_t n, bool whole) {
    json_key(b, key);
    buf_printf(b, "[");
    for (size_t i = 0; i < n; i++) {
        json_item(b);
        if (whole) {
            buf_printf(b, "%.0f", samples[i]);
        } else {
            json_add_f64(b, samples[i]);
        }
    }
    buf_printf(b, "]");
}

static void add_object(buf *b, const bench_row *row) {
    buf_printf(b, "{");
    for (size_t i = 0; i < ARRAY_LEN(columns); i++) {
        json_key(b, columns[i].name);
        add_cell(b, row, i, OUT_JSON);
    }
    add_samples(b, "samples_ns", row->samples_ns, row->n_samples, true);
    add_samples(b, "samples_ts", row->samples_ts, row->n_samples, false);
    buf_printf(b, "}");
}

static void add_names(buf *b) {
    for (size_t i = 0; i < ARRAY_LEN(columns); i++)
        buf_printf(b, i > 0 ? ",%s" : "%s", columns[i].name);
}

static void add_cells(buf *b, const bench_row *row, out_format format) {
    for (size_t i = 0; i < ARRAY_LEN(columns); i++) {
        if (i > 0) buf_printf(b, ",");
        add_cell(b, row, i, format);
    }
}

static void create_table(buf *b) {
    static const char *const types[] = {
        [COLUMN_ARRAY] = "TEXT",   [COLUMN_TEXT] = "TEXT",     [COLUMN_COUNT] = "INTEGER",
        [COLUMN_FLAG] = "INTEGER", [COLUMN_WHOLE] = "INTEGER", [COLUMN_REAL] = "REAL",
    };
    buf_printf(b, "CREATE TABLE IF NOT EXISTS doppler_bench (\n");
    for (size_t i = 0; i < ARRAY_LEN(columns); i++) {
        buf_printf(b, "  %s %s%s\n", columns[i].name, types[columns[i].kind],
                   i + 1 < ARRAY_LEN(columns) ? "," : "");
    }
    buf_printf(b, ");\n\n");
}

/* ---- the table ----------------------------------------------------------------------------- */

static void add_real(buf *b, const char *format, double x) {
    char text[48] = "-";
    if (isfinite(x)) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(text, sizeof(text), format, x);
#pragma GCC diagnostic pop
    }
    buf_printf(b, " %s |", text);
}

static void add_table_row(buf *b, const bench_row *row) {
    const double params = (double)row->model_n_params;
    buf_printf(b, "| %s | %s | %.2f %s | %s, %s | %s | %s | %.2f ± %.2f |", row->model_type,
               show_bytes(row->model_size).text, params < 1e9 ? 1e-6 * params : 1e-9 * params,
               params < 1e9 ? "M" : "B", row->backends, row->library, row->gpu_info, row->test,
               row->avg_ts, row->stddev_ts);
    add_real(b, "%.2f", row->ttft_ms);
    add_real(b, "%.3f", row->itl_ms_p50);
    add_real(b, "%.3f", row->itl_ms_p90);
    add_real(b, "%.3f", row->itl_ms_p99);
    add_real(b, "%.2f", row->gpu_ms);
    add_real(b, "%.3f", row->submits_per_token);
    add_real(b, "%.1f", row->bytes_read_per_token);
    add_real(b, "%.1f", row->cpu_percent);
    buf_printf(b, " %s | %.0f |\n", show_bytes(row->device_bytes_peak).text, row->load_ms);
}

/* ---- rows ---------------------------------------------------------------------------------- */

void rows_begin(buf *b, out_format format) {
    switch (format) {
    case OUT_MD:
        buf_printf(b,
                   "| model | size | params | backend | device | test | t/s | ttft ms | "
                   "itl ms p50 | p90 | p99 | gpu ms | submits/tok | read B/tok | cpu %% | peak | "
                   "load ms |\n"
                   "| --- | ---: | ---: | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | "
                   "---: | ---: | ---: | ---: | ---: | ---: |\n");
        break;
    case OUT_CSV:
        add_names(b);
        buf_printf(b, "\n");
        break;
    case OUT_JSON:
        buf_printf(b, "[");
        break;
    case OUT_JSONL:
        break;
    case OUT_SQL:
        create_table(b);
        break;
    }
}

void rows_add(buf *b, const bench_row *row, out_format format) {
    switch (format) {
    case OUT_MD:
        add_table_row(b, row);
        break;
    case OUT_CSV:
        add_cells(b, row, format);
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
    case OUT_SQL:
        buf_printf(b, "INSERT INTO doppler_bench (");
        add_names(b);
        buf_printf(b, ") VALUES (");
        add_cells(b, row, format);
        buf_printf(b, ");\n");
        break;
    }
}

void rows_end(buf *b, out_format format) {
    if (format == OUT_JSON) buf_printf(b, "\n]\n");
}

/* ---- files --------------------------------------------------------------------------------- */

/* Letters, digits, '.', '_' and '-' stay, so that a model's name makes no path. */
static void add_file_part(buf *b, str name) {
    for (size_t i = 0; i < name.size && i < 80; i++) {
        const char c = name.data[i];
        const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                           (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
        buf_add(b, plain ? &c : "-", 1);
    }
}

bool prepare_save(const options *o, dp_error *err) {
    return o->save == NULL || folder_make(o->save, err);
}

bool save_result(const char *folder, const char *suite, const char *model, const time_text *when,
                 const buf *text, dp_error *err) {
    char path[PLACE_BYTES];
    buf name;
    str last = path_last(model);
    if (str_ends(last, ".gguf")) last.size -= 5;
    buf_init(&name, 512);
    buf_printf(&name, "%s_", suite);
    add_file_part(&name, last);
    buf_printf(&name, "_%s.json", when->name);
    const bool ok = buf_ok(text, "the result", err) && buf_ok(&name, "a file's name", err) &&
                    path_join(path, sizeof(path), folder, name.data, err) &&
                    file_write_atomic(path, text->data, text->size, err);
    buf_free(&name);
    if (ok) fprintf(stderr, "saved %s\n", path);
    return ok;
}
