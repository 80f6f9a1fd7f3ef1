/* store: where models are kept, and the commands pull, ls and rm.
 *
 * The environment is read here and handed down: DOPPLER_MODELS or the XDG data folder for the model
 * folder, Hugging Face's own variables for its cache, and the two by which certificates are chosen
 * with other programs of libcurl and OpenSSL. As the XDG specification asks, a path in its
 * variables that is not absolute is as good as none. */
#include "app/app.h"

#include <inttypes.h>
#include <stdlib.h>

/* Folders between colons, from the Makefile; the first that holds a bundled model wins. */
static const char model_dirs[] = DP_MODEL_DIRS;

const option pull_options[] = {
    { "--sha256", "HEX", "what the file, or a pack's manifest.json, must hash to", OPT_TEXT,
      FIELD(sha256) },
    { "--jobs", "N", "files at a time", OPT_COUNT, FIELD(jobs), .initial = "4", .min = 1,
      .max = 16 },
    { "--timeout", "SECONDS", "of silence after which a connection is given up", OPT_COUNT,
      FIELD(timeout), .initial = "30", .min = 1, .max = 3600 },
    { "--force", NULL, "take the place of the model that has the name", OPT_FLAG, FIELD(force) },
    { .name = NULL },
};

/* ---- places -------------------------------------------------------------------------------- */

/* An environment variable; NULL if it is not set or empty. */
static const char *variable(const char *name) {
    const char *value = getenv(name);
    return value != NULL && value[0] != '\0' ? value : NULL;
}

static const char *absolute_variable(const char *name) {
    const char *value = variable(name);
    return value != NULL && value[0] == '/' ? value : NULL;
}

/* BASE/TAIL into out[PLACE_BYTES], which stays empty without a base or if it does not fit. */
static void join_place(char *out, const char *base, const char *tail) {
    if (base == NULL || !path_join(out, PLACE_BYTES, base, tail, NULL)) out[0] = '\0';
}

void places_read(model_places *p) {
    const char *home = variable("HOME"), *data = absolute_variable("XDG_DATA_HOME");
    const char *cache = absolute_variable("XDG_CACHE_HOME"), *hf_home = variable("HF_HOME");
    memset(p, 0, sizeof(*p));
    if (variable("DOPPLER_MODELS") != NULL) {
        snprintf(p->folder, sizeof(p->folder), "%s", variable("DOPPLER_MODELS"));
    } else if (data != NULL) {
        join_place(p->folder, data, "doppler/models");
    } else {
        join_place(p->folder, home, ".local/share/doppler/models");
    }
    if (variable("HF_HUB_CACHE") != NULL) {
        snprintf(p->hf_cache, sizeof(p->hf_cache), "%s", variable("HF_HUB_CACHE"));
    } else if (hf_home != NULL) {
        join_place(p->hf_cache, hf_home, "hub");
    } else if (cache != NULL) {
        join_place(p->hf_cache, cache, "huggingface/hub");
    } else {
        join_place(p->hf_cache, home, ".cache/huggingface/hub");
    }
    join_place(p->tuning, cache != NULL ? cache : home,
               cache != NULL ? "doppler" : ".cache/doppler");
    p->options =
        (dp_store_options){ .bundled = model_dirs, .folder = p->folder, .hf_cache = p->hf_cache };
}

/* ---- pull ---------------------------------------------------------------------------------- */

/* Bytes a second, of the last few seconds: what an earlier pull had left does not count as fast. */
typedef struct {
    const char *source;
    double at, rate; /* rate < 0: not known yet */
    uint64_t done;
} pull_meter;

static bool show_pull(void *user, uint64_t done, uint64_t total) {
    enum { SAMPLES = 8 }; /* of half a second: the weight of the latest one is an eighth */
    pull_meter *m = user;
    const double now = now_seconds(), passed = now - m->at;
    if (m->at == 0) {
        m->at = now, m->done = done;
    } else if (passed >= 0.5) {
        const double latest = done > m->done ? (double)(done - m->done) / passed : 0;
        m->rate = m->rate < 0 ? latest : m->rate + (latest - m->rate) / SAMPLES;
        m->at = now, m->done = done;
    }
    char left[48] = "", rate[48] = "";
    if (m->rate >= 1) {
        snprintf(rate, sizeof(rate), ", %s/s", show_bytes((uint64_t)m->rate).text);
        const double seconds = total > done ? (double)(total - done) / m->rate : 0;
        const uint64_t whole = seconds < 1e9 ? (uint64_t)seconds : 0;
        if (total > 0 && seconds < 1e9) {
            snprintf(left, sizeof(left), ", %" PRIu64 ":%02d left", whole / 60, (int)(whole % 60));
        }
    }
    if (total > 0) {
        progress_line("%.60s %.0f %% of %s%s%s", m->source, 100 * (double)done / (double)total,
                      show_bytes(total).text, rate, left);
    } else {
        progress_line("%.60s %s%s", m->source, show_bytes(done).text, rate);
    }
    return !interrupted();
}

static int print_pull(const options *o, const dp_pull_result *r, double seconds) {
    buf b;
    buf_init(&b, 1 << 16);
    if (o->json) {
        buf_printf(&b, "{");
        json_text(&b, "name", str_of(r->name));
        json_text(&b, "path", str_of(r->path));
        json_text(&b, "container", str_of(r->container));
        json_count_of(&b, "bytes", r->bytes);
        json_count_of(&b, "bytes_kept", r->bytes_kept);
        json_count_of(&b, "n_files", r->n_files);
        json_count_of(&b, "n_checked", r->n_checked);
        json_real(&b, "seconds", seconds);
        buf_printf(&b, "}\n");
    } else {
        buf_printf(&b, "%s  %s, %s in %" PRIu32 " file%s, %" PRIu32 " checked, in %s\n", r->name,
                   r->container[0] != '\0' ? r->container : "unknown", show_bytes(r->bytes).text,
                   r->n_files, plural(r->n_files), r->n_checked, r->path);
    }
    return out_result(&b);
}

int cmd_pull(const options *o) {
    dp_error err = { 0 };
    dp_pull_result result;
    model_places places;
    if (o->n_rest < 1 || o->n_rest > 2) {
        err_set(&err, DP_E_ARGUMENT, "pull: needs SOURCE, a URL or a path, and perhaps a NAME");
        return fail(&err);
    }
    places_read(&places);
    if (places.folder[0] == '\0') {
        err_set(&err, DP_E_ARGUMENT, "pull: there is no model folder: set DOPPLER_MODELS or HOME");
        return fail(&err);
    }
    pull_meter meter = { .source = o->n_rest > 1 ? o->rest[1] : "pulling", .rate = -1 };
    const char *ca_file = variable("CURL_CA_BUNDLE");
    const dp_pull_options how = {
        .name = o->n_rest > 1 ? o->rest[1] : NULL,
        .sha256 = o->sha256,
        .replace = o->force,
        .jobs = (uint32_t)o->jobs,
        .stall_seconds = (uint32_t)o->timeout,
        .ca_file = ca_file != NULL ? ca_file : variable("SSL_CERT_FILE"),
        .ca_folder = variable("SSL_CERT_DIR"),
        .progress = show_pull,
        .progress_user = &meter,
        .log = print_log,
        .log_user = log_user(o),
    };
    const double start = now_seconds();
    const bool ok = dp_store_pull(&places.options, o->rest[0], &how, &result, &err);
    progress_line("%s", "");
    return ok ? print_pull(o, &result, now_seconds() - start) : fail(&err);
}

/* ---- ls ------------------------------------------------------------------------------------ */

typedef struct {
    buf *out;
    bool as_json;
} ls_output;

static bool list_entry(void *user, const dp_store_entry *e) {
    static const char *const places[] = { [DP_STORE_BUNDLED] = "bundled",
                                          [DP_STORE_FOLDER] = "folder",
                                          [DP_STORE_HF_CACHE] = "hf cache" };
    const ls_output *ls = user;
    buf *b = ls->out;
    if (ls->as_json) {
        json_item(b);
        buf_printf(b, "{");
        json_text(b, "name", str_of(e->name));
        json_text(b, "path", str_of(e->path));
        json_text(b, "place", str_of(places[e->place]));
        json_text(b, "container", str_of(e->container));
        json_text(b, "format", str_of(e->format));
        json_count_of(b, "bytes", e->bytes);
        if (e->problem[0] != '\0') json_text(b, "problem", str_of(e->problem));
        buf_printf(b, "}");
    } else {
        buf_printf(
            b, "%-40s %-11s %-7s %12s  %s", e->name, e->container[0] != '\0' ? e->container : "-",
            e->format[0] != '\0' ? e->format : "-", show_bytes(e->bytes).text, places[e->place]);
        if (e->problem[0] != '\0') buf_printf(b, "; cannot be opened: %s", e->problem);
        buf_printf(b, "\n");
    }
    return !interrupted();
}

int cmd_ls(const options *o) {
    enum { LIST_BYTES_MAX = 64 * 1024 * 1024 };
    dp_error err = { 0 };
    model_places places;
    buf b;
    places_read(&places);
    buf_init(&b, LIST_BYTES_MAX);
    ls_output ls = { .out = &b, .as_json = o->json };
    if (o->json) {
        buf_printf(&b, "[");
    } else {
        buf_printf(&b, "%-40s %-11s %-7s %12s  %s\n", "name", "container", "format", "size", "in");
    }
    if (!dp_store_list(&places.options, list_entry, &ls, &err)) {
        buf_free(&b);
        return fail(&err);
    }
    if (o->json) buf_printf(&b, "]\n");
    return out_result(&b);
}

/* ---- rm ------------------------------------------------------------------------------------ */

int cmd_rm(const options *o) {
    dp_error err = { 0 };
    model_places places;
    if (o->n_rest != 1) {
        err_set(&err, DP_E_ARGUMENT, "rm: needs the NAME of one model, as ls shows it");
        return fail(&err);
    }
    places_read(&places);
    if (!dp_store_remove(&places.options, o->rest[0], &err)) return fail(&err);
    buf b;
    buf_init(&b, 4096);
    if (o->json) {
        buf_printf(&b, "{");
        json_text(&b, "removed", str_of(o->rest[0]));
        buf_printf(&b, "}\n");
    }
    return o->json ? out_result(&b) : EXIT_OK;
}
