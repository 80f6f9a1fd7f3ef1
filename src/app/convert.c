/* convert: a model from one container and format to another, and `verify`: is what is on the disk
 * what it should be? */
#include "app/app.h"
#include "format/format.h"

#include <inttypes.h>

const option convert_options[] = {
    { "--format", "rdrr|gguf", "what to write; without it GGUF for OUT.gguf, else a pack", OPT_TEXT,
      FIELD(format) },
    { "--quantize", "TYPE",
      "f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, q2_k, q3_k_m, q4_k_s, q4_k_m, q5_k_s, q5_k_m, "
      "q6_k, iq4_nl, iq4_xs, mxfp4; without it formats are kept",
      OPT_TEXT, FIELD(quantize) },
    { "--role", "ROLE=TYPE",
      "format of embedding, head, attn, attn_q, attn_k, attn_v, attn_qkv, attn_o, ffn, ffn_gate, "
      "ffn_up, ffn_down, experts or router; may be repeated",
      OPT_TEXTS, FIELD(roles), .min = 1, .max = 200 },
    { "--calibrate", "FILE", "a text: columns that it uses more are quantised better (needs a GPU)",
      OPT_TEXT, FIELD(calibrate) },
    { "--q4k-layout", "LAYOUT", "of packs: row_wise, column_wise or flat", OPT_TEXT,
      FIELD(q4k_layout) },
    { "--transpose-weights", NULL, "of packs: store F32, F16 and BF16 matrices [in, out]", OPT_FLAG,
      FIELD(transpose_weights) },
    { "--fuse-gate-up", NULL, "of packs: gate and up in one tensor", OPT_FLAG,
      FIELD(fuse_gate_up) },
    { "--shard-size", "BYTES", "of packs; K, M and G may follow (without it 64M)", OPT_BYTES,
      FIELD(shard_size), .min = 1024, .max = 0x1p62 },
    { "--draft-model", "NAME", "of packs: the model that drafts for this one", OPT_TEXT,
      FIELD(draft_model) },
    { "--threads", "N", "without it one for each processor", OPT_COUNT, FIELD(threads), .min = 1,
      .max = THREADS_MAX },
    { "--dry-run", NULL, "print what would be written and what running it takes", OPT_FLAG,
      FIELD(dry_run) },
    { "--restart", NULL, "do not go on with an interrupted conversion", OPT_FLAG, FIELD(restart) },
    { .name = NULL },
};

const option verify_options_table[] = {
    { "--threads", "N", "without it one for each processor", OPT_COUNT, FIELD(threads), .min = 1,
      .max = THREADS_MAX },
    { .name = NULL },
};

/* ---- progress ------------------------------------------------------------------------------ */

/* Rates are of what this call did, not of what an interrupted one left. */
typedef struct {
    const char *what, *name;
    double start, shown;
    uint64_t first;
    bool begun;
} rate;

static bool show_rate(void *user, uint64_t done, uint64_t total) {
    enum { PER_SECOND = 5 };
    rate *r = user;
    const double now = now_seconds();
    if (!r->begun) {
        r->begun = true;
        r->first = done;
        r->start = now;
    }
    if (interrupted() || (now - r->shown < 1.0 / PER_SECOND && done < total)) {
        return !interrupted();
    }
    r->shown = now;
    const double seconds = now - r->start, bytes = (double)(done - r->first);
    const double each = seconds > 0.5 && bytes > 0 ? bytes / seconds : 0;
    const double left = each > 0 ? (double)(total - done) / each : 0;
    progress_line("%s %.80s %.0f %%  %s/s  %.0f s left", r->what, r->name,
                  total > 0 ? 100 * (double)done / (double)total : 100,
                  show_bytes((uint64_t)each).text, left);
    return true;
}

/* ---- convert ------------------------------------------------------------------------------- */

static void add_result_text(buf *b, const char *out, const dp_convert_result *r, bool dry_run,
                            double seconds) {
    buf_printf(b, "%-8s %8s %14s %12s\n", "format", "tensors", "parameters", "bytes");
    for (uint32_t i = 0; i < r->n_formats; i++) {
        const dp_format_share *f = &r->formats[i];
        buf_printf(b, "%-8s %8" PRIu32 " %14" PRIu64 " %12s\n", f->name, f->n_tensors,
                   f->n_parameters, show_bytes(f->n_bytes).text);
    }
    buf_printf(b, "\n%s of tensors become %s in %s", show_bytes(r->source_bytes).text,
               show_bytes(r->tensor_bytes).text, r->container);
    buf_printf(b, "; to run with the default context: %s on the device\n",
               show_bytes(r->memory.total).text);
    if (dry_run) {
        buf_printf(b, "nothing was written; rows in work on %" PRIu32 " thread%s would take %s\n",
                   r->n_threads, plural(r->n_threads), show_bytes(r->host_bytes).text);
        return;
    }
    buf_printf(b, "wrote %s, %s, in %.1f s", out, show_bytes(r->file_bytes).text, seconds);
    if (r->kept_bytes > 0) {
        buf_printf(b, ", %s of it by an earlier call", show_bytes(r->kept_bytes).text);
    }
    buf_printf(b, "\n");
}

static void add_result_json(buf *b, const char *out, const dp_convert_result *r, bool dry_run,
                            double seconds) {
    buf_printf(b, "{");
    json_text(b, "path", str_of(out));
    json_text(b, "container", str_of(r->container));
    json_flag(b, "dry_run", dry_run);
    json_count_of(b, "n_files", r->n_files);
    json_count_of(b, "n_tensors", r->n_tensors);
    json_count_of(b, "source_bytes", r->source_bytes);
    json_count_of(b, "tensor_bytes", r->tensor_bytes);
    json_count_of(b, "file_bytes", r->file_bytes);
    json_count_of(b, "kept_bytes", r->kept_bytes);
    json_count_of(b, "host_bytes", r->host_bytes);
    json_count_of(b, "threads", r->n_threads);
    json_real(b, "seconds", seconds);
    json_key(b, "formats");
    buf_printf(b, "[");
    for (uint32_t i = 0; i < r->n_formats; i++) {
        json_item(b);
        buf_printf(b, "{");
        json_text(b, "name", str_of(r->formats[i].name));
        json_count_of(b, "n_tensors", r->formats[i].n_tensors);
        json_count_of(b, "n_parameters", r->formats[i].n_parameters);
        json_count_of(b, "n_bytes", r->formats[i].n_bytes);
        buf_printf(b, "}");
    }
    buf_printf(b, "]");
    json_key(b, "memory");
    buf_printf(b, "{");
    json_count_of(b, "weights", r->memory.weights);
    json_count_of(b, "kv_cache", r->memory.kv_cache);
    json_count_of(b, "activations", r->memory.activations);
    json_count_of(b, "total", r->memory.total);
    buf_printf(b, "}}\n");
}

/* What a text says of the source's columns; the source runs on the GPU for it. */
static dp_importance *calibrate(const char *model, const options *o, dp_error *err) {
    options with = *o;
    engine e = { 0 };
    buf text;
    rate progress = { .what = "calibrating with", .name = o->calibrate };
    with.model = model;
    with.calibrating = true;
    with.sessions = 2; /* dp_calibrate takes one of its own */
    if (!read_input(o->calibrate, &text, err)) return NULL;
    dp_importance *importance = NULL;
    if (engine_describe(&e, &with, err) && engine_start(&e, &with, 0, err)) {
        importance = dp_calibrate(e.model, text.data, text.size, show_rate, &progress, err);
    }
    engine_close(&e);
    buf_free(&text);
    return importance;
}

/* Whether the conversion would begin, before the minutes that a calibration may take. */
static bool check_plan(const options *o, const char *in, dp_convert_options how, dp_error *err) {
    how.dry_run = true;
    how.log = NULL; /* the conversion itself says it */
    if (!dp_convert(in, o->rest[1], &how, NULL, err)) return false;
    return o->q4k_layout == NULL || strcmp(o->q4k_layout, "row_wise") == 0 ||
           err_set(err, DP_E_ARGUMENT, "--q4k-layout: %s: --calibrate is for rows only",
                   o->q4k_layout);
}

/* The library names its own fields; a value in quotes behind one tells it from a path. */
static void name_option(dp_error *err) {
    static const char *const names[][2] = { { "format", "--format" },
                                            { "quantize", "--quantize" },
                                            { "roles", "--role" },
                                            { "q4k_layout", "--q4k-layout" } };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        const size_t n = strlen(names[i][0]);
        if (strncmp(err->message, names[i][0], n) != 0) continue;
        if (strncmp(err->message + n, ": \"", 3) != 0) continue;
        dp_error named = { .status = DP_OK };
        err_set(&named, err->status, "%s%s", names[i][1], err->message + n);
        *err = named;
        return;
    }
}

int cmd_convert(const options *o) {
    dp_error err = { 0 };
    dp_convert_result result = { 0 };
    char in[4096];
    if (o->n_rest != 2) {
        err_set(&err, DP_E_ARGUMENT, "convert: %zu path%s given, needs two: IN OUT", o->n_rest,
                plural(o->n_rest));
        return fail(&err);
    }
    rate progress = { .what = "converting", .name = o->rest[0] };
    dp_importance *importance = NULL;
    dp_convert_options how = {
        .format = o->format,
        .quantize = o->quantize,
        .roles = o->roles.items,
        .n_roles = o->roles.n,
        .q4k_layout = o->q4k_layout,
        .transpose = o->transpose_weights,
        .fuse_gate_up = o->fuse_gate_up,
        .shard_bytes = o->shard_size,
        .threads = (uint32_t)o->threads,
        .dry_run = o->dry_run,
        .restart = o->restart,
        .draft_model = o->draft_model,
        .progress = show_rate,
        .progress_user = &progress,
        .log = print_log,
        .log_user = log_user(o),
    };
    bool ok = find_model(o, o->rest[0], in, sizeof(in), &err);
    if (ok && o->calibrate != NULL) ok = check_plan(o, in, how, &err);
    if (ok && o->calibrate != NULL && !o->dry_run) {
        importance = calibrate(in, o, &err);
        how.importance = importance;
        ok = importance != NULL;
    }
    const double start = now_seconds();
    ok = ok && dp_convert(in, o->rest[1], &how, &result, &err);
    const double seconds = now_seconds() - start;
    dp_importance_free(importance);
    progress_line("%s", "");
    if (!ok) {
        name_option(&err);
        return fail(&err);
    }
    buf b;
    buf_init(&b, 1 << 20);
    (o->json ? add_result_json : add_result_text)(&b, o->rest[1], &result, o->dry_run, seconds);
    return out_result(&b);
}

/* ---- verify -------------------------------------------------------------------------------- */

/* Hashes and bounds by the container, shapes and completeness by the model's own plan. */
static bool verify_model(const char *path, const options *o, verify_result *result,
                         dp_model_info *info, dp_error *err) {
    rate progress = { .what = "verifying", .name = path };
    const verify_options how = { .n_threads = (uint32_t)o->threads,
                                 .progress = show_rate,
                                 .user = &progress };
    container *c = container_open(path, false, err);
    bool ok = c != NULL && container_verify(c, &how, result, err);
    container_close(c);
    if (!ok) return false;
    const dp_model_options quiet = { .log = print_log, .log_user = log_user(o) };
    dp_model *model = dp_model_open(NULL, path, &quiet, err);
    dp_memory memory;
    ok = model != NULL && dp_model_memory(model, NULL, true, &memory, err);
    if (ok) dp_model_get_info(model, info);
    info->path = info->name = info->chat_template = NULL; /* they go with the model */
    info->architecture = info->tokenizer = NULL;
    dp_model_close(model);
    return ok;
}

int cmd_verify(const options *o) {
    dp_error err = { 0 };
    verify_result result = { 0 };
    dp_model_info info = { 0 };
    char path[4096];
    buf b;
    if (o->n_rest == 1 && o->model != NULL) {
        err_set(&err, DP_E_ARGUMENT, "verify: one model at a time");
        return fail(&err);
    }
    const char *name = o->n_rest == 1 ? o->rest[0] : o->model;
    const double start = now_seconds();
    const bool ok = find_model(o, name, path, sizeof(path), &err) &&
                    verify_model(path, o, &result, &info, &err);
    const double seconds = now_seconds() - start;
    progress_line("%s", "");
    if (err.status == DP_E_LIMIT) err.status = DP_E_FORMAT; /* over a ceiling: not a right file */
    if (!ok) return fail(&err);
    buf_init(&b, 1 << 20);
    if (o->json) {
        buf_printf(&b, "{");
        json_text(&b, "path", str_of(path));
        json_text(&b, "container", str_of(info.container));
        json_flag(&b, "ok", true);
        json_count_of(&b, "n_tensors", info.n_tensors);
        json_count_of(&b, "hashed_bytes", result.bytes);
        json_count_of(&b, "shards", result.n_shards);
        json_count_of(&b, "pieces", result.n_pieces);
        json_count_of(&b, "merkle_roots", result.n_roots);
        json_count_of(&b, "files", result.n_files);
        json_real(&b, "seconds", seconds);
        buf_printf(&b, "}\n");
    } else if (result.bytes == 0) {
        buf_printf(&b,
                   "%s: %" PRIu32 " tensors: places, shapes and names are right; a %s file has no "
                   "hashes of its bytes\n",
                   path, info.n_tensors, info.container);
    } else {
        buf_printf(&b,
                   "%s: right: %" PRIu32 " tensors, %s hashed in %.2f s: %" PRIu32
                   " shard%s, %" PRIu32 " piece%s, %" PRIu32 " tensor root%s, %" PRIu32
                   " other file%s\n",
                   path, info.n_tensors, show_bytes(result.bytes).text, seconds, result.n_shards,
                   plural(result.n_shards), result.n_pieces, plural(result.n_pieces),
                   result.n_roots, plural(result.n_roots), result.n_files, plural(result.n_files));
    }
    return out_result(&b);
}
