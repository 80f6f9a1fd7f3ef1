/* bench_ops: bench --ops, the time of every distinct kernel of a model alone, on its real shapes.
 *
 * One pass of a row (unless -n is 0) and one of each -p rows, behind each -d tokens. A time is to
 * be read beside what memory allows: bytes are what the call has to move at least, the limit of a
 * decoding kernel is one dispatch and 1.25 times reading its bytes at the measured rate. */
#include "app/bench_internal.h"

#include <inttypes.h>
#include <math.h>

enum { OPS_AT_ONCE = 512 };
/* The limit of a decoding kernel. */
static const double LIMIT_DISPATCH_NS = 1800, LIMIT_FACTOR = 1.25;

typedef enum { OPS_MD, OPS_CSV, OPS_JSON, OPS_JSONL } ops_format;

/* What is measured, and where it goes: rows as they are printed, and as JSON for --save. */
typedef struct {
    engine e;
    const options *o;
    dp_token *tokens;
    dp_device_peaks peaks;
    ops_format format;
    buf out, rows;
} ops_report;

typedef struct {
    const dp_op_time *op;
    const dp_device_peaks *peaks;
    uint64_t n_rows, depth;
} op_line;

/* Columns of csv and json; NaN: none. */
enum { N_NUMBERS = 17 };
static const char *const number_names[N_NUMBERS] = {
    "n_rows",       "n_depth",     "calls",       "matrix_rows", "matrix_cols", "groups",
    "n_timed",      "us",          "us_per_pass", "bytes",       "flops",       "gb_per_s",
    "percent_read", "gflop_per_s", "percent_fma", "limit_us",    "us_in_place",
};

static double limit_us(const op_line *l) {
    const double reading = 1e9 * (double)l->op->bytes / l->peaks->bytes_per_second;
    return l->op->phase == DP_PHASE_DECODE ? 1e-3 * (LIMIT_DISPATCH_NS + LIMIT_FACTOR * reading)
                                           : NAN;
}

static void fill_numbers(const op_line *l, double v[N_NUMBERS]) {
    const dp_op_time *op = l->op;
    const double ns = fmax(op->nanoseconds, 1e-3);
    const double gb = (double)op->bytes / ns, gflop = (double)op->flops / ns;
    const double numbers[N_NUMBERS] = {
        (double)l->n_rows,
        (double)l->depth,
        op->calls,
        op->rows,
        op->cols,
        (double)op->groups[0] * op->groups[1] * op->groups[2],
        op->n_timed,
        1e-3 * op->nanoseconds,
        1e-3 * op->nanoseconds * op->calls,
        (double)op->bytes,
        (double)op->flops,
        gb,
        1e11 * gb / l->peaks->bytes_per_second,
        gflop,
        1e11 * gflop / l->peaks->flops_per_second,
        limit_us(l),
        op->in_place_nanoseconds != 0 ? 1e-3 * op->in_place_nanoseconds : NAN,
    };
    memcpy(v, numbers, sizeof(numbers));
}

static const char *phase_name(dp_phase phase) {
    return phase == DP_PHASE_PREFILL ? "prefill" : "decode";
}

static const char *verdict(const op_line *l) {
    const double limit = limit_us(l);
    return isnan(limit) ? "-" : 1e-3 * l->op->nanoseconds <= limit ? "ok" : "over";
}

static void add_op_object(buf *b, const op_line *l) {
    double v[N_NUMBERS];
    fill_numbers(l, v);
    buf_printf(b, "{");
    json_text(b, "phase", str_of(phase_name(l->op->phase)));
    json_text(b, "role", str_of(l->op->role));
    json_text(b, "kernel", str_of(l->op->kernel));
    for (size_t i = 0; i < N_NUMBERS; i++)
        json_real(b, number_names[i], v[i]);
    json_flag(b, "cold", l->op->cold);
    json_text(b, "verdict", str_of(verdict(l)));
    buf_printf(b, "}");
}

static void add_op_csv(buf *b, const op_line *l) {
    double v[N_NUMBERS];
    fill_numbers(l, v);
    buf_printf(b, "\"%s\",\"%s\",\"%s\"", phase_name(l->op->phase), l->op->role, l->op->kernel);
    for (size_t i = 0; i < N_NUMBERS; i++) {
        buf_printf(b, ",");
        if (!isnan(v[i])) json_add_f64(b, v[i]);
    }
    buf_printf(b, ",%s,%s\n", l->op->cold ? "true" : "false", verdict(l));
}

static void add_op_markdown(buf *b, const op_line *l) {
    double v[N_NUMBERS];
    char shape[32] = "-", limit[32] = "-", place[32] = "-";
    const dp_op_time *op = l->op;
    fill_numbers(l, v);
    if (op->rows > 0) snprintf(shape, sizeof(shape), "%" PRIu32 "x%" PRIu32, op->rows, op->cols);
    if (!isnan(limit_us(l))) snprintf(limit, sizeof(limit), "%.2f", limit_us(l));
    if (v[16] > 0) snprintf(place, sizeof(place), "%.2f", v[16]); /* else unknown, or noise */
    buf_printf(b,
               "| %s | %s | %s | %s | %" PRIu32 " | %" PRIu32 "x%" PRIu32 "x%" PRIu32
               " | %.2f | %s | %.1f | %.3f | %.1f | %.1f | %.0f | %.1f | %s | %s%s |\n",
               phase_name(op->phase), op->role, op->kernel, shape, op->calls, op->groups[0],
               op->groups[1], op->groups[2], v[7], place, v[8], 1e-6 * v[9], v[11], v[12], v[13],
               v[14], limit, verdict(l), op->cold ? "" : ", warm");
}

static void add_op_heading(buf *b, ops_format format, const dp_device_peaks *peaks) {
    if (format == OPS_CSV) {
        buf_printf(b, "phase,role,kernel");
        for (size_t i = 0; i < N_NUMBERS; i++)
            buf_printf(b, ",%s", number_names[i]);
        buf_printf(b, ",cold,verdict\n");
    } else if (format == OPS_MD) {
        buf_printf(b,
                   "Measured: reading %.1f GB/s, f32 %.1f GFLOP/s, an empty dispatch %.2f us, in a "
                   "pass of its own %.2f us; 4 bytes are read back in %.1f us.\n\n"
                   "| phase | role | kernel | matrix | calls | groups | us | in place | us a pass "
                   "| MB | GB/s "
                   "| %% of read | GFLOP/s | %% of fma | limit us | |\n"
                   "|---|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|\n",
                   1e-9 * peaks->bytes_per_second, 1e-9 * peaks->flops_per_second,
                   1e-3 * peaks->dispatch_ns, 1e-3 * peaks->pass_ns, 1e-3 * peaks->readback_ns);
    }
}

/* One pass of n rows: a line for each of its kernels. */
static bool add_op_pass(ops_report *r, uint64_t n, uint64_t depth, dp_error *err) {
    static dp_op_time ops[OPS_AT_ONCE];
    size_t n_ops;
    double sum = 0;
    progress_line("kernels of a pass of %" PRIu64 " row%s at %" PRIu64, n, plural(n), depth);
    if (!check_interrupted(err) ||
        !dp_session_time_ops(r->e.session, r->tokens + depth, n, ops, OPS_AT_ONCE, &n_ops, err)) {
        return false;
    }
    progress_line("%s", "");
    for (size_t i = 0; i < n_ops && i < OPS_AT_ONCE; i++) {
        const op_line l = { &ops[i], &r->peaks, n, depth };
        sum += ops[i].nanoseconds * ops[i].calls;
        json_item(&r->rows);
        buf_printf(&r->rows, "\n");
        add_op_object(&r->rows, &l);
        switch (r->format) {
        case OPS_MD:
            add_op_markdown(&r->out, &l);
            break;
        case OPS_CSV:
            add_op_csv(&r->out, &l);
            break;
        case OPS_JSON: /* at the end */
            break;
        case OPS_JSONL:
            add_op_object(&r->out, &l);
            buf_printf(&r->out, "\n");
            break;
        }
    }
    if (r->format == OPS_MD) {
        buf_printf(&r->out,
                   "| all | %" PRIu64 " row%s at %" PRIu64 " | | | | | | | %.1f | | | | | | | |\n",
                   n, plural(n), depth, 1e-3 * sum);
    }
    return true;
}

/* JSON is written whole at the end, or not at all; of the rest what is finished outlives a Ctrl-C.
 */
static bool end_pass(ops_report *r, dp_error *err) {
    return (r->format == OPS_JSON || out_part(&r->out, err)) && check_interrupted(err);
}

static bool add_passes(ops_report *r, dp_error *err) {
    const options *o = r->o;
    progress_line("measuring the device");
    bool ok = dp_device_get_peaks(r->e.device, &r->peaks, err);
    progress_line("%s", "");
    if (!ok) return false;
    add_op_heading(&r->out, r->format, &r->peaks);
    buf_printf(&r->rows, "[");
    ok = end_pass(r, err);
    for (size_t d = 0; d < o->depths.n && ok; d++) {
        const uint64_t depth = o->depths.items[d];
        ok = dp_session_rewind(r->e.session, 0, err) &&
             dp_session_eval(r->e.session, r->tokens, depth, err);
        if (ok && (o->generations.n != 1 || o->generations.items[0] != 0)) {
            ok = add_op_pass(r, 1, depth, err) && end_pass(r, err);
        }
        for (size_t i = 0; i < o->prompts.n && ok; i++) {
            const uint64_t n = o->prompts.items[i];
            if (n == 0) continue;
            ok = add_op_pass(r, n, depth, err) && end_pass(r, err);
        }
    }
    buf_printf(&r->rows, "\n]");
    if (r->format == OPS_JSON) {
        buf_add(&r->out, r->rows.data, r->rows.size);
        buf_printf(&r->out, "\n");
    }
    return ok;
}

/* An object of the result schema: what the device reaches, and the rows. */
static bool save_ops(const ops_report *r, const time_text *when, dp_error *err) {
    const bench_place place = place_of(&r->e, r->o);
    buf b;
    buf_init(&b, TEXT_BYTES_MAX);
    schema_begin(&b, "kernels", NULL, when, &r->e, &place);
    json_key(&b, "metrics");
    buf_printf(&b, "{");
    json_real(&b, "peak_read_gb_per_s", 1e-9 * r->peaks.bytes_per_second);
    json_real(&b, "peak_fma_gflop_per_s", 1e-9 * r->peaks.flops_per_second);
    json_real(&b, "dispatch_us", 1e-3 * r->peaks.dispatch_ns);
    json_real(&b, "pass_us", 1e-3 * r->peaks.pass_ns);
    buf_printf(&b, "}");
    json_key(&b, "rows");
    buf_add(&b, r->rows.data, r->rows.size);
    buf_printf(&b, "}\n");
    const bool ok = save_result(r->o->save, "kernels", r->e.path, when, &b, err);
    buf_free(&b);
    return ok;
}

static bool read_format(const options *o, ops_format *format, dp_error *err) {
    static const char *const names[] = { "md", "csv", "json", "jsonl" };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(o->json ? "json" : o->output, names[i]) == 0) {
            *format = (ops_format)i;
            return true;
        }
    }
    return err_set(err, DP_E_ARGUMENT, "-o: \"%s\" is none of md, csv, json, jsonl with --ops",
                   o->output);
}

static uint64_t most_of(const count_list *list) {
    uint64_t most = 1;
    for (size_t i = 0; i < list->n; i++)
        most = max_u64(most, list->items[i]);
    return most;
}

static dp_token *make_tokens(uint64_t n, uint32_t vocab, dp_error *err) {
    dp_token *tokens = mem_new(n, sizeof(dp_token), "tokens", err);
    for (uint64_t i = 0; tokens != NULL && i < n; i++) /* an odd step: all of the vocabulary */
        tokens[i] = (dp_token)((1 + i * 7919) % vocab);
    return tokens;
}

int bench_ops(const options *given) {
    dp_error err = { 0 };
    options o = *given;
    ops_report r = { .o = &o };
    const time_text when = time_now();
    uint32_t context = 0;
    buf_init(&r.out, TEXT_BYTES_MAX);
    buf_init(&r.rows, TEXT_BYTES_MAX);
    o.profile = true; /* the device must have timestamps */
    const uint64_t depth = most_of(&o.depths), rows = most_of(&o.prompts);
    const uint64_t needed = depth + rows + DP_STEPS_MAX; /* the sampler moves on */
    o.batch = max_u64(o.batch, rows);
    bool ok = read_format(&o, &r.format, &err) && engine_describe(&r.e, &o, &err) &&
              engine_context(&r.e, &o, needed, &context, &err);
    if (ok && needed > context) {
        ok = err_set(&err, DP_E_ARGUMENT,
                     "-d and -p take %" PRIu64 " tokens, the context holds %" PRIu32, needed,
                     context);
    }
    ok = ok && prepare_save(&o, &err) && engine_start(&r.e, &o, context, &err);
    if (ok) r.tokens = make_tokens(needed, r.e.info.vocab_size, &err);
    ok = ok && r.tokens != NULL && add_passes(&r, &err) && buf_ok(&r.rows, "the times", &err);
    progress_line("%s", "");
    if (ok && o.save != NULL) ok = save_ops(&r, &when, &err);
    const int code = ok ? out_result(&r.out) : fail(&err);
    engine_close(&r.e);
    mem_free(r.tokens);
    buf_free(&r.rows);
    if (!ok) buf_free(&r.out);
    return code;
}
