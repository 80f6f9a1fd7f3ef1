/* convert: a model from one container and format to another.
 *
 * The output's bytes are made by jobs, blocks of lines of one tensor each, in any order on any
 * number of threads; each job's bytes are the same however often and wherever it runs. A journal
 * beside them says up to which job all are on the disk, and for which conversion; so a call that
 * was killed goes on there. What took shape under another name gets its own at the very end. */
#include "model/convert_internal.h"

#include <inttypes.h>
#include <stdio.h>

enum {
    SHARD_BYTES = 64 << 20,
    SHARD_BYTES_MIN = 1024,
    PACK_ALIGNMENT = 16,
    GGUF_ALIGNMENT = 32,
    JOURNAL_BYTES = 256 << 20, /* of output between two entries of the journal */
};

/* ---- the source ---------------------------------------------------------------------------- */

static bool open_source(conversion *v, dp_error *err) {
    v->files = container_open(v->in, false, err);
    if (v->files == NULL || !config_read(&v->config, v->files, false, &v->memory, err)) {
        return false;
    }
    bool has = false;
    if (!tokenizer_present(v->files, &has, err)) {
        return false;
    }
    if (has) {
        v->tokenizer = tokenizer_open(v->files, &v->log, err);
        if (v->tokenizer == NULL) {
            return false;
        }
    } else {
        log_line(&v->log, DP_LOG_WARNING, "%s: has no tokenizer", v->in);
    }
    const weight_limits limits = { .max_binding = UINT64_MAX / 4, .max_buffer = UINT64_MAX / 4 };
    return weights_plan(&v->weights, &v->config, v->files, &limits, &v->memory, err);
}

/* By the option or the output's name. */
static bool choose_target(conversion *v, dp_error *err) {
    const dp_convert_options *o = v->options;
    if (o->format == NULL) {
        v->to_gguf = str_ends(str_of(v->out), ".gguf");
    } else if (strcmp(o->format, "gguf") == 0 || strcmp(o->format, "rdrr") == 0) {
        v->to_gguf = strcmp(o->format, "gguf") == 0;
    } else {
        return err_set(err, DP_E_ARGUMENT, "format: \"%.60s\" is no container to write: rdrr, gguf",
                       o->format);
    }
    if (v->to_gguf &&
        (o->transpose || o->fuse_gate_up || o->shard_bytes > 0 || o->draft_model != NULL)) {
        return err_set(err, DP_E_ARGUMENT, "%s: %s: only packs have that", v->out,
                       o->transpose         ? "transposed weights"
                       : o->fuse_gate_up    ? "fused gate and up"
                       : o->shard_bytes > 0 ? "shards"
                                            : "a draft model");
    }
    v->shard_bytes = o->shard_bytes > 0 ? o->shard_bytes : SHARD_BYTES;
    if (v->shard_bytes < SHARD_BYTES_MIN || v->shard_bytes > INT64_MAX) {
        return err_set(err, DP_E_ARGUMENT, "shards of %" PRIu64 " bytes: at least %d",
                       v->shard_bytes, SHARD_BYTES_MIN);
    }
    v->alignment = v->to_gguf ? GGUF_ALIGNMENT : PACK_ALIGNMENT;
    v->spelling = v->to_gguf ? SPELLING_GGUF : SPELLING_PACK;
    v->family = v->config.family;
    v->names = v->config;
    if (v->names.layer_prefix[0] == '\0') { /* the source is GGUF */
        v->names.layer_prefix = v->family->learned_positions ? "transformer.h." : "model.layers.";
    }
    if (o->importance != NULL && o->q4k_layout != NULL && strcmp(o->q4k_layout, "row_wise") != 0) {
        return err_set(err, DP_E_ARGUMENT,
                       "q4k_layout: \"%.60s\": importance is of columns: rows only can have it",
                       o->q4k_layout);
    }
    return !v->to_gguf || config_fits_gguf(&v->config, v->files, err);
}

/* ---- where it goes ------------------------------------------------------------------------- */

/* A pack, and no file in it that the manifest does not know: somebody's own would go with it. */
static bool check_old_pack(const conversion *v, dp_error *err) {
    dp_error problem = { 0 };
    buf names, manifest;
    char path[4096];
    buf_init(&names, 64 << 20);
    bool ok = path_join(path, sizeof path, v->out, "manifest.json", err) &&
              folder_list(v->out, "", &names, err);
    const bool read =
        ok && path_is_file(path) && file_read_all(path, JSON_BYTES_MAX, &manifest, &problem);
    pack_listing *list =
        read ? pack_list((str){ manifest.data, manifest.size }, path, &problem) : NULL;
    if (ok && list == NULL) {
        ok = err_set(err, DP_E_ARGUMENT,
                     "%s: is a folder that holds something and no pack: not replaced", v->out);
    }
    for (size_t i = 0; ok && i < names.size; i += strlen(names.data + i) + 1) {
        const char *name = names.data + i;
        bool known =
            strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strcmp(name, "manifest.json") == 0;
        for (uint32_t k = 0; !known && k < pack_list_count(list); k++) {
            known = str_is(pack_list_at(list, k)->name, name);
        }
        ok = known ||
             err_set(err, DP_E_ARGUMENT,
                     "%s: holds %.100s, which is no part of the pack: not replaced", v->out, name);
    }
    pack_list_free(list);
    if (read) {
        buf_free(&manifest);
    }
    buf_free(&names);
    return ok;
}

static bool check_old_file(const conversion *v, dp_error *err) {
    char magic[4] = "";
    file *f = file_open(v->out, err);
    const bool empty = f != NULL && file_size(f) == 0;
    const bool read = f != NULL && (file_size(f) < 4 || file_read(f, 0, magic, 4, err));
    file_close(f);
    if (f == NULL || !read) {
        return false;
    }
    return empty || memcmp(magic, "GGUF", 4) == 0 ||
           err_set(err, DP_E_ARGUMENT, "%s: is there and is no GGUF file: not replaced", v->out);
}

/* Does the source lie where `path` is, or `path` among the files of the source? */
static bool touches_source(const conversion *v, const char *path) {
    char folder[4096];
    if (!path_exists(path)) {
        return false;
    }
    if (path_is_inside(v->in, path) || (path_is_folder(v->in) && path_is_inside(path, v->in))) {
        return true;
    }
    const str name = path_last(v->in);
    const size_t n = (size_t)(name.data - v->in);
    snprintf(folder, sizeof folder, "%.*s", n > 0 ? (int)n : 1, n > 0 ? v->in : ".");
    return !path_is_folder(v->in) && container_n_files(v->files) > 1 &&
           path_is_inside(path, folder);
}

/* What has the output's name may go only if it is a model of the kind that comes. */
static bool check_place(conversion *v, dp_error *err) {
    str out = str_of(v->out);
    while (out.size > 1 && out.data[out.size - 1] == '/') {
        out.size--;
    }
    const int n = snprintf(v->temporary, sizeof v->temporary, "%.*s.part",
                           (int)min_u64(out.size, 4000), out.data);
    if (n < 0 || (size_t)n != out.size + 5) {
        return err_set(err, DP_E_LIMIT, "%.100s...: a path of %zu bytes", v->out, out.size);
    }
    if (out.size == 0 || str_is(out, "/") || str_is(out, ".") || str_is(out, "..") ||
        str_ends(out, "/.") || str_ends(out, "/..")) {
        return err_set(err, DP_E_ARGUMENT, "\"%s\" is no name for a model", v->out);
    }
    if (touches_source(v, v->out) || touches_source(v, v->temporary)) {
        return err_set(err, DP_E_ARGUMENT,
                       "%s: is the source, holds it or is one of its files: not replaced", v->out);
    }
    if (!path_can_be_made(out, err)) {
        return false;
    }
    if (!path_exists(v->out)) {
        return true;
    }
    if (path_is_folder(v->out)) {
        if (v->to_gguf) {
            return err_set(err, DP_E_ARGUMENT, "%s: is a folder, a GGUF file was to be written",
                           v->out);
        }
        return folder_is_empty(v->out) || check_old_pack(v, err);
    }
    if (!v->to_gguf || !path_is_file(v->out)) {
        return err_set(err, DP_E_ARGUMENT, "%s: is there and is no %s: not replaced", v->out,
                       v->to_gguf ? "file" : "pack");
    }
    return check_old_file(v, err);
}

/* ---- the journal --------------------------------------------------------------------------- */

/* Tells conversions apart: all that the bytes follow from, the source's by samples. */
static bool conversion_key(conversion *v, uint64_t key[2], dp_error *err) {
    static const uint64_t seeds[2][2] = { { 0x646f70706c6572, 1 }, { 0x646f70706c6572, 2 } };
    buf b;
    buf_init(&b, 1u << 30);
    buf_printf(&b, "%s %d %" PRIu64 " %d %s\n", DP_VERSION, v->to_gguf, v->shard_bytes,
               v->importance != NULL, v->mixture != NULL ? v->mixture->name : "");
    for (uint32_t i = 0; i < v->n_tensors; i++) {
        const out_tensor *t = &v->tensors[i];
        buf_printf(&b, "%.*s %d %d %" PRIu64 " %" PRIu64 "\n", (int)t->name.size, t->name.data,
                   (int)t->type, (int)t->layout, t->offset, t->n_bytes);
        if (t->importance != NULL) {
            buf_add(&b, t->importance, t->cols * sizeof *t->importance);
        }
    }
    path_stamp(v->in, &b);
    bool ok = true;
    for (uint32_t i = 0; ok && i < container_n_tensors(v->files); i++) {
        const tensor *t = container_tensor(v->files, i);
        unsigned char sample[64];
        const size_t n = (size_t)min_u64(t->n_bytes, sizeof sample);
        buf_printf(&b, "%.*s %d %" PRIu64 "\n", (int)t->name.size, t->name.data, (int)t->type,
                   t->n_bytes);
        const uint64_t places[] = { 0, (t->n_bytes - n) / 2, t->n_bytes - n };
        for (size_t k = 0; ok && k < ARRAY_LEN(places); k++) {
            ok = container_read(v->files, t, places[k], sample, n, err);
            buf_add(&b, sample, n);
        }
    }
    ok = ok && buf_ok(&b, "the description of a conversion", err);
    for (int i = 0; ok && i < 2; i++) {
        key[i] = hash_bytes(seeds[i], b.data, b.size);
    }
    buf_free(&b);
    return ok;
}

typedef struct {
    conversion *v;
    out_file **files; /* the one of GGUF, or shards */
    uint32_t n_files;
    uint32_t n_threads;
    row_buffers *buffers; /* [n_threads] */
    char journal_path[4096];
    out_file *journal;
    uint64_t key[2];
    pthread_mutex_t lock;       /* of all below */
    unsigned char *done;        /* [n_jobs] */
    uint64_t n_kept;            /* jobs that were done before this call */
    uint64_t first_open;        /* all jobs before are done */
    uint64_t journalled, since; /* jobs; bytes since the last entry */
    uint64_t bytes_kept;
    bool journalling;
} conversion_run;

static const out_tensor *tensor_of_job(const conversion *v, uint64_t job) {
    uint32_t low = 0, high = v->n_tensors;
    while (high - low > 1) {
        const uint32_t middle = low + (high - low) / 2;
        if (v->tensors[middle].first_job <= job) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return &v->tensors[low];
}

static uint64_t bytes_of_job(const out_tensor *t, uint64_t job) {
    const uint64_t first = (job - t->first_job) * t->lines_at_once;
    const uint64_t start = first * t->line_bytes;
    return min_u64(t->lines_at_once * t->line_bytes, t->n_bytes - start);
}

/* The journal is one line of fixed size, written over: the conversion's key, and how many jobs. */
enum { JOURNAL_LINE = 32 + 1 + 20 + 1 };

static void journal_line(const conversion_run *r, uint64_t n, char line[JOURNAL_LINE + 1]) {
    const int size =
        snprintf(line, JOURNAL_LINE + 1, "%016" PRIx64 "%016" PRIx64 " %020" PRIu64 "\n", r->key[0],
                 r->key[1], n);
    assert(size == JOURNAL_LINE);
    (void)size;
}

/* Says that every part of the output is on the disk up to job n, once it is. */
static bool write_journal(conversion_run *r, uint64_t n, dp_error *err) {
    char line[JOURNAL_LINE + 1];
    for (uint32_t i = 0; i < r->n_files; i++) {
        if (!out_file_sync(r->files[i], err)) {
            return false;
        }
    }
    journal_line(r, n, line);
    return out_file_write(r->journal, 0, line, JOURNAL_LINE, err) && out_file_sync(r->journal, err);
}

/* Jobs that an earlier call of the same conversion has finished; 0 if there was none. */
static uint64_t read_journal(const conversion_run *r) {
    char line[JOURNAL_LINE], ours[JOURNAL_LINE + 1];
    uint64_t n = 0;
    if (!out_file_read(r->journal, 0, line, sizeof line, NULL) ||
        !str_to_u64((str){ line + 33, 20 }, &n) || n > r->v->n_jobs) {
        return 0;
    }
    journal_line(r, n, ours);
    return memcmp(line, ours, JOURNAL_LINE) == 0 ? n : 0;
}

/* ---- running ------------------------------------------------------------------------------- */

/* Bytes of the tensors' space into the files that hold it. */
static bool write_space(conversion_run *r, uint64_t offset, const unsigned char *bytes, uint64_t n,
                        dp_error *err) {
    conversion *v = r->v;
    if (v->to_gguf) {
        return out_file_write(r->files[0], v->data_start + offset, bytes, (size_t)n, err);
    }
    while (n > 0) {
        const uint64_t shard = offset / v->shard_bytes, at = offset % v->shard_bytes;
        const uint64_t here = min_u64(n, v->shard_bytes - at);
        if (!out_file_write(r->files[shard], at, bytes, (size_t)here, err)) {
            return false;
        }
        bytes += here;
        offset += here;
        n -= here;
    }
    return true;
}

bool conversion_progress(conversion *v, uint64_t bytes, dp_error *err) {
    const dp_convert_options *o = v->options;
    const uint64_t total = v->bytes * (v->to_gguf ? 1 : 2);
    bool ok = true;
    pthread_mutex_lock(&v->lock);
    v->progress = min_u64(v->progress + bytes, total);
    if (o->progress != NULL && !o->progress(o->progress_user, v->progress, total)) {
        ok = err_set(err, DP_E_CANCELLED, "%s: the conversion was cancelled", v->out);
    }
    pthread_mutex_unlock(&v->lock);
    return ok;
}

/* Takes note of a finished job; now and then of all of them on the disk. */
static bool finish_job(conversion_run *r, uint64_t job, uint64_t bytes, dp_error *err) {
    bool ok = conversion_progress(r->v, bytes, err);
    pthread_mutex_lock(&r->lock);
    r->done[job] = 1;
    r->since += bytes;
    while (r->first_open < r->v->n_jobs && r->done[r->first_open]) {
        r->first_open++;
    }
    const uint64_t upto = r->first_open;
    const bool journal = ok && r->since >= JOURNAL_BYTES && !r->journalling && upto > r->journalled;
    if (journal) {
        r->journalling = true;
        r->since = 0;
    }
    pthread_mutex_unlock(&r->lock);
    if (!journal) {
        return ok;
    }
    ok = write_journal(r, upto, err);
    pthread_mutex_lock(&r->lock);
    r->journalling = false;
    r->journalled = upto;
    pthread_mutex_unlock(&r->lock);
    return ok;
}

static bool run_job(void *user, uint64_t i, uint32_t thread, dp_error *err) {
    conversion_run *r = user;
    const uint64_t job = r->n_kept + i;
    const out_tensor *t = tensor_of_job(r->v, job);
    const uint64_t first = (job - t->first_job) * t->lines_at_once;
    const uint64_t n = min_u64(t->lines_at_once, t->n_lines - first), bytes = bytes_of_job(t, job);
    row_buffers *b = &r->buffers[thread];
    if (!rows_make(r->v, t, first, n, b, err) ||
        !write_space(r, t->offset + first * t->line_bytes, b->target, bytes, err)) {
        return err_prefix(err, "%.*s: ", STR_ARG(t->name));
    }
    return finish_job(r, job, bytes, err);
}

static bool open_outputs(conversion_run *r, uint64_t header, dp_error *err) {
    conversion *v = r->v;
    char path[4096];
    r->n_files = v->to_gguf ? 1 : pack_n_shards(v);
    r->files = mem_new(r->n_files, sizeof *r->files, "output files", err);
    if (r->files == NULL || (!v->to_gguf && !folder_make(v->temporary, err))) {
        return false;
    }
    if (v->to_gguf) {
        r->files[0] = out_file_open(v->temporary, header + v->bytes, err);
        return r->files[0] != NULL;
    }
    for (uint32_t i = 0; i < r->n_files; i++) {
        if (!pack_shard_path(v, i, path, err)) {
            return false;
        }
        r->files[i] = out_file_open(path, pack_shard_size(v, i), err);
        if (r->files[i] == NULL) {
            return false;
        }
    }
    return true;
}

static void close_outputs(conversion_run *r) {
    for (uint32_t i = 0; i < r->n_files && r->files != NULL; i++) {
        out_file_close(r->files[i]);
    }
    mem_free(r->files);
    r->files = NULL;
}

static bool check_disk(const conversion *v, uint64_t bytes, dp_error *err) {
    /* what an earlier call reserved counts as there; of a pack's texts the manifest is the largest
     * that is not known yet */
    const uint64_t texts = v->to_gguf ? 0 : 65536 + 700ull * v->n_tensors;
    const uint64_t there = path_bytes(v->temporary), room = disk_room(v->out);
    if (there >= bytes ? texts <= room : bytes - there + texts <= room) {
        return true;
    }
    return err_set(err, DP_E_FILE, "%s: needs %" PRIu64 " bytes on the disk, %" PRIu64 " are free",
                   v->out, bytes > there ? bytes - there + texts : texts, room);
}

/* What another interrupted conversion has left must go before this one begins. */
static bool begin_outputs(conversion_run *r, uint64_t header, dp_error *err) {
    conversion *v = r->v;
    r->n_kept = v->options->restart ? 0 : read_journal(r);
    if (r->n_kept == 0 && !path_remove(v->temporary, err)) {
        return false;
    }
    if (!check_disk(v, header + v->bytes, err) || !open_outputs(r, header, err)) {
        return false;
    }
    r->done = mem_new(v->n_jobs, 1, "jobs", err);
    r->buffers = mem_new(r->n_threads, sizeof *r->buffers, "buffers", err);
    if (r->done == NULL || r->buffers == NULL) {
        return false;
    }
    for (uint64_t i = 0; i < r->n_kept; i++) {
        r->done[i] = 1;
        r->bytes_kept += bytes_of_job(tensor_of_job(v, i), i);
    }
    v->progress = r->bytes_kept;
    r->first_open = r->journalled = r->n_kept;
    for (uint32_t i = 0; i < r->n_threads; i++) {
        if (!rows_reserve(v, &r->buffers[i], err)) {
            return false;
        }
    }
    return write_journal(r, r->n_kept, err);
}

static bool finish_outputs(conversion_run *r, const buf *header, dp_error *err) {
    conversion *v = r->v;
    if (v->to_gguf) {
        return out_file_write(r->files[0], 0, header->data, header->size, err) &&
               out_file_sync(r->files[0], err);
    }
    for (uint32_t i = 0; i < r->n_files; i++) {
        if (!out_file_sync(r->files[i], err)) {
            return false;
        }
    }
    return pack_write_manifest(v, r->n_threads, err);
}

static bool open_journal(conversion_run *r, dp_error *err) {
    const int n = snprintf(r->journal_path, sizeof r->journal_path, "%s.journal", r->v->temporary);
    if (n < 0 || (size_t)n >= sizeof r->journal_path) {
        return err_set(err, DP_E_LIMIT, "%.100s...: the path is too long", r->v->out);
    }
    if (path_exists(r->v->temporary) && !path_exists(r->journal_path)) {
        return err_set(err, DP_E_ARGUMENT, "%s: is there and was not left by a conversion",
                       r->v->temporary);
    }
    r->journal = out_file_open(r->journal_path, JOURNAL_LINE, err); /* and nobody else has it */
    return r->journal != NULL;
}

static void free_run(conversion_run *r) {
    close_outputs(r);
    for (uint32_t i = 0; i < r->n_threads && r->buffers != NULL; i++) {
        rows_release(&r->buffers[i]);
    }
    mem_free(r->buffers);
    mem_free(r->done);
    pthread_mutex_destroy(&r->lock);
}

static bool write_all(conversion *v, dp_convert_result *result, dp_error *err) {
    conversion_run r = { .v = v, .n_threads = result->n_threads };
    buf header;
    buf_init(&header, 1u << 30);
    pthread_mutex_init(&r.lock, NULL);
    bool ok = (!v->to_gguf || gguf_write_header(v, &header, err)) &&
              conversion_key(v, r.key, err) && open_journal(&r, err);
    if (!ok) {
        free_run(&r);
        buf_free(&header);
        return false;
    }
    ok = begin_outputs(&r, header.size, err);
    result->kept_bytes = r.bytes_kept;
    result->n_files = r.n_files;
    ok = ok && parallel_run(r.n_threads, v->n_jobs - r.n_kept, run_job, &r, err) &&
         finish_outputs(&r, &header, err);
    /* what cannot be gone on with, or does not fit, is of no use to anybody */
    const bool keep = !ok && err->status == DP_E_CANCELLED;
    if (keep) {
        (void)write_journal(&r, r.first_open, NULL); /* at worst the last entry holds */
    }
    free_run(&r);
    buf_free(&header);
    ok = ok && path_replace(v->temporary, v->out, err);
    if (!ok && !keep) {
        (void)!path_remove(v->temporary, NULL);
    }
    if (!keep) {
        (void)!path_remove(r.journal_path, NULL);
    }
    out_file_close(r.journal);
    return ok;
}

/* ---- the call ------------------------------------------------------------------------------ */

static void add_share(dp_convert_result *result, const out_tensor *t) {
    const char *name = dtype_get(t->type)->name;
    uint32_t i = 0;
    while (i < result->n_formats && strcmp(result->formats[i].name, name) != 0) {
        i++;
    }
    assert(i < DP_FORMATS_MAX); /* there are fewer formats */
    if (i == result->n_formats) {
        result->formats[result->n_formats++].name = name;
    }
    result->formats[i].n_tensors++;
    result->formats[i].n_parameters += t->outer * t->rows * t->cols;
    result->formats[i].n_bytes += t->n_bytes;
}

/* On a device: vectors are f32, and what is no plain rows becomes f16. */
static uint64_t device_bytes(const out_tensor *t) {
    const uint64_t n = t->outer * t->rows * t->cols;
    return align_up(t->role == ROLE_VECTOR     ? n * sizeof(float)
                    : t->layout != LAYOUT_ROWS ? n * sizeof(uint16_t)
                                               : t->n_bytes,
                    256);
}

static bool describe_result(const conversion *v, dp_convert_result *result, dp_error *err) {
    weights w = v->weights;
    shapes s;
    *result = (dp_convert_result){ .container = container_kind_name(v->to_gguf ? CONTAINER_GGUF
                                                                               : CONTAINER_RDRR),
                                   .source_bytes = container_bytes(v->files),
                                   .n_tensors = v->n_tensors,
                                   .n_files = v->to_gguf ? 1 : pack_n_shards(v) };
    w.bytes = 0;
    for (uint32_t i = 0; i < v->n_tensors; i++) {
        const out_tensor *t = &v->tensors[i];
        add_share(result, t);
        result->tensor_bytes += t->n_bytes;
        w.bytes += device_bytes(t);
    }
    result->file_bytes = v->bytes;
    const uint32_t asked = v->options->threads;
    result->n_threads = (uint32_t)min_u64(asked > 0 ? min_u32(asked, THREADS_MAX) : processors(),
                                          max_u64(v->n_jobs, 1));
    result->host_bytes = result->n_threads * rows_bytes(v);
    return shapes_plan(&s, &result->memory, &v->config, &w, NULL, UINT64_MAX, true, err);
}

static void free_conversion(conversion *v) {
    tokenizer_close(v->tokenizer);
    container_close(v->files);
    mem_free(v->tensors);
    arena_free(&v->memory);
    pthread_mutex_destroy(&v->lock);
    mem_free(v);
}

bool dp_convert(const char *in, const char *out, const dp_convert_options *options,
                dp_convert_result *result, dp_error *err) {
    static const dp_convert_options defaults = { 0 };
    dp_error own = { 0 };
    dp_convert_result unwanted = { 0 };
    err = err != NULL ? err : &own;
    result = result != NULL ? result : &unwanted;
    conversion *v = mem_new(1, sizeof *v, "a conversion", err);
    if (v == NULL) {
        return false;
    }
    v->options = options != NULL ? options : &defaults;
    v->in = in;
    v->out = out;
    v->log = (log_sink){ .write = v->options->log, .user = v->options->log_user };
    v->importance = v->options->importance;
    pthread_mutex_init(&v->lock, NULL);
    bool ok = open_source(v, err) && choose_target(v, err) && check_place(v, err) &&
              conversion_plan(v, err) && describe_result(v, result, err) &&
              (v->options->dry_run || write_all(v, result, err));
    if (ok && !v->options->dry_run) {
        result->file_bytes = path_bytes(v->out);
    }
    free_conversion(v);
    return ok;
}
