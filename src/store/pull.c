/* pull: dp_store_pull, from a source to a model in the folder.
 *
 * The caller's thread plans, waits, tells the progress and is the only one that is asked whether to
 * go on; up to `jobs` threads take files off the list in turn. The first failure stops them all.
 * Whatever stops it, the part is left so that the next pull goes on with it: except where a fresh
 * part holds nothing yet, or what was found out about the source is of no use. */
#define _GNU_SOURCE

#include "store/store.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    JOBS = 4,
    CONNECT_SECONDS = 20,
    STALL_SECONDS = 30,
    TRIES = 6,
    PAUSE_MS = 500,
    DISK_SPARE = 1024 * 1024, /* bytes that stay free */
};
static const double progress_seconds = 0.1;

typedef struct {
    const dp_store_options *store;
    const dp_pull_options *options;
    source from;
    const char *name;
    char path[STORE_PATH_MAX]; /* of the model */
    char part[STORE_PATH_MAX];
    http_limits limits;
    fetch_job job;
    pull_plan plan;
    uint64_t total; /* bytes; 0: not known yet */
    bool cancelled;
    double told; /* when progress was told last */

    atomic_int_fast64_t done; /* bytes in the part */
    atomic_bool stop;
    pthread_mutex_t mutex; /* over what follows, and over the log */
    pthread_cond_t ended;
    uint32_t next, n_running;
    dp_error err;
} pull;

/* ---- what the threads share ---------------------------------------------------------------- */

static void count_bytes(void *user, int64_t bytes) {
    pull *p = user;
    atomic_fetch_add(&p->done, bytes);
}

static void say_line(void *user, dp_log_level level, const char *line) {
    pull *p = user;
    const log_sink log = { .write = p->options->log, .user = p->options->log_user };
    pthread_mutex_lock(&p->mutex);
    log_line(&log, level, "%s", line);
    pthread_mutex_unlock(&p->mutex);
}

/* The patience of the caller's thread. */
static bool ask_caller(void *user) {
    pull *p = user;
    const double now = clock_seconds();
    if (p->cancelled || p->options->progress == NULL || now - p->told < progress_seconds) {
        return !p->cancelled;
    }
    p->told = now;
    const int64_t done = atomic_load(&p->done);
    p->cancelled =
        !p->options->progress(p->options->progress_user, done > 0 ? (uint64_t)done : 0, p->total);
    return !p->cancelled;
}

/* That of the others. */
static bool not_stopped(void *user) {
    pull *p = user;
    return !atomic_load(&p->stop);
}

static void *fetch_files(void *user) {
    pull *p = user;
    const patience wait = { .go_on = not_stopped, .user = p };
    dp_error err = { 0 };
    http *h = NULL;
    bool ok = !p->from.remote || (h = http_open(&p->limits, wait, &err)) != NULL;
    pthread_mutex_lock(&p->mutex);
    while (ok && !atomic_load(&p->stop) && p->next < p->plan.n_files) {
        pull_file *f = &p->plan.files[p->next++];
        if (f->is_there) continue;
        pthread_mutex_unlock(&p->mutex);
        ok = fetch_file(&p->job, h, wait, f, &err);
        pthread_mutex_lock(&p->mutex);
    }
    if (!ok && p->err.status == DP_OK) p->err = err;
    if (!ok) atomic_store(&p->stop, true);
    p->n_running--;
    pthread_cond_signal(&p->ended);
    pthread_mutex_unlock(&p->mutex);
    http_close(h);
    return NULL;
}

/* Signals are for the caller's thread: whoever waits there shall be woken by them. */
static bool start_thread(pthread_t *thread, pull *p) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const bool ok = pthread_create(thread, NULL, fetch_files, p) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return ok;
}

static bool run_threads(pull *p, dp_error *err) {
    pthread_t threads[PULL_JOBS_MAX];
    uint32_t n = 0, wanted = p->options->jobs == 0 ? JOBS : p->options->jobs;
    wanted = min_u32(min_u32(wanted, PULL_JOBS_MAX), p->plan.n_files);
    pthread_mutex_lock(&p->mutex);
    p->n_running = wanted;
    while (n < wanted && start_thread(&threads[n], p))
        n++;
    p->n_running -= wanted - n; /* with fewer it takes longer */
    while (p->n_running > 0) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += (long)(1e9 * progress_seconds);
        if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
        pthread_cond_timedwait(&p->ended, &p->mutex, &until);
        pthread_mutex_unlock(&p->mutex); /* the callback may take its time */
        if (!ask_caller(p)) atomic_store(&p->stop, true);
        pthread_mutex_lock(&p->mutex);
    }
    pthread_mutex_unlock(&p->mutex);
    for (uint32_t i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    if (p->cancelled) return err_set(err, DP_E_CANCELLED, "cancelled");
    if (n == 0 && wanted > 0) {
        return err_set(err, DP_E_MEMORY, "out of memory: no thread can be started");
    }
    return p->err.status == DP_OK || err_set(err, p->err.status, "%s", p->err.message);
}

/* ---- the part ------------------------------------------------------------------------------ */

static bool is_planned(const pull_plan *plan, str name) {
    uint32_t i;
    return map_get(plan->names, name, &i) && i < plan->n_files && str_is(name, plan->files[i].name);
}

/* Deletes what belongs to no file of the plan: of another version, or of an accident. */
static bool sweep_part(pull *p, dp_error *err) {
    arena memory = { 0 };
    const char **names;
    uint32_t n;
    bool ok = disk_names(p->part, true, &memory, &names, &n, err);
    for (uint32_t i = 0; ok && i < n; i++) {
        char path[STORE_PATH_MAX];
        str name = str_of(names[i]);
        if (name.data[0] == '.') { /* .FILE.part, .FILE.state */
            const char *dot = memrchr(name.data, '.', name.size);
            const bool ours = strcmp(dot, ".part") == 0 || strcmp(dot, ".state") == 0;
            if (ours && dot > name.data + 1) {
                name = (str){ name.data + 1, (size_t)(dot - name.data) - 1 };
            }
        }
        if (is_planned(&p->plan, name)) continue;
        ok = path_join(path, sizeof(path), p->part, names[i], err) && disk_remove(path, err);
    }
    arena_free(&memory);
    return ok;
}

/* Takes the states away, which only a pull needs. */
static bool tidy_part(pull *p, dp_error *err) {
    arena memory = { 0 };
    const char **names;
    uint32_t n;
    bool ok = disk_names(p->part, true, &memory, &names, &n, err);
    for (uint32_t i = 0; ok && i < n; i++) {
        char path[STORE_PATH_MAX];
        if (names[i][0] != '.') continue;
        ok = path_join(path, sizeof(path), p->part, names[i], err) && disk_remove(path, err);
    }
    arena_free(&memory);
    folder_sync(p->part);
    return ok;
}

/* Sums the sizes that are known, and compares with the room on the disk. */
static bool fits_on_disk(pull *p, dp_error *err) {
    uint64_t total = 0;
    bool all = true;
    for (uint32_t i = 0; i < p->plan.n_files; i++) {
        const pull_file *f = &p->plan.files[i];
        if (f->size == SIZE_UNKNOWN) {
            all = all && !f->weights;
        } else if (!add_u64(total, f->size, &total)) {
            return err_set(err, DP_E_FORMAT, "%.300s: its files have more bytes than 64 bits count",
                           p->from.shown);
        }
    }
    const uint64_t here = disk_bytes(p->part), room = disk_room(p->part);
    const uint64_t need = total > here ? total - here : 0;
    if (need > room || room - need < DISK_SPARE) {
        return err_set(err, DP_E_FILE,
                       "%s: needs %" PRIu64 " more bytes, the disk of %.200s has %" PRIu64 " free",
                       p->name, need, p->store->folder, room);
    }
    if (all) p->total = total;
    return true;
}

static void warn_of_unchecked(pull *p) {
    char line[512];
    uint32_t n = 0, n_files = 0;
    const char *first = NULL;
    bool weights = false;
    for (uint32_t i = 0; i < p->plan.n_files; i++) {
        const pull_file *f = &p->plan.files[i];
        n_files += f->is_there;
        if (!f->is_there || f->has_hash) continue;
        if (n++ == 0 || (f->weights && !weights)) first = f->name;
        weights = weights || f->weights;
    }
    if (n == 0) return;
    snprintf(line, sizeof(line),
             "%s: %.100s: nothing vouches for the bytes of %" PRIu32 " of %" PRIu32
             " files (no SHA-256 in a manifest, in SHA256SUMS or given)",
             p->name, first, n, n_files);
    /* Of a pack only the small files are left, and its manifest says what matters. */
    say_line(p, weights ? DP_LOG_WARNING : DP_LOG_INFO, line);
}

/* ---- one pull ------------------------------------------------------------------------------ */

/* What was fetched must open as a model; one that this version cannot do may be kept. */
static bool open_part(pull *p, dp_pull_result *result, dp_error *err) {
    dp_error own = { 0 };
    container *c = container_open(p->part, false, &own);
    if (c != NULL) {
        result->container = container_kind_text(container_kind_of(c));
        container_close(c);
        return true;
    }
    if (own.status == DP_E_UNSUPPORTED) {
        char line[sizeof(own.message) + 64];
        snprintf(line, sizeof(line), "%s: fetched, but this version cannot run it: %s", p->name,
                 own.message);
        say_line(p, DP_LOG_WARNING, line);
        result->container = "";
        return true;
    }
    err_set(err, own.status, "%s", own.message);
    return err_prefix(err, "%s: what was fetched cannot be opened: ", p->name);
}

/* Is there a model of that name? A file that somebody put there is never replaced. */
static bool check_name(pull *p, bool *is_there, dp_error *err) {
    char file_name[STORE_PATH_MAX + 8];
    snprintf(file_name, sizeof(file_name), "%s.gguf", p->path);
    *is_there = path_exists(p->path);
    if ((*is_there && !p->options->replace) || path_exists(file_name)) {
        return err_set(err, DP_E_FILE, "%s: %.200s has a model of that name already%s", p->name,
                       p->store->folder,
                       *is_there ? " (--force takes its place)" : ", a file: remove it first");
    }
    return true;
}

static bool install_part(pull *p, dp_error *err) {
    char old[STORE_PATH_MAX];
    bool is_there;
    if (!tidy_part(p, err) || !check_name(p, &is_there, err) ||
        !hidden_path(old, sizeof(old), p->store->folder, p->name, "old", err)) {
        return false;
    }
    if (is_there) {
        if (!disk_remove(old, err) || !disk_replace(p->part, p->path, old, err)) return false;
        folder_sync(p->store->folder);
        return disk_remove(old, err);
    }
    if (!disk_rename(p->part, p->path, err)) return false;
    folder_sync(p->store->folder);
    return true;
}

static bool plan_part(pull *p, dp_error *err) {
    const patience wait = { .go_on = ask_caller, .user = p };
    http *h = NULL;
    if (p->from.remote) {
        h = http_open(&p->limits, wait, err);
        if (h == NULL) return false;
    }
    const bool ok = plan_make(&p->plan, &p->job, h, wait, p->options->sha256, err);
    http_close(h);
    return ok && sweep_part(p, err);
}

/* Holding the name's lock. */
static bool pull_locked(pull *p, dp_pull_result *result, dp_error *err) {
    bool is_there;
    if (!check_name(p, &is_there, err)) return false;
    const bool is_fresh = !path_exists(p->part);
    struct stat status;
    if (is_fresh && mkdir(p->part, 0777) != 0) return disk_error(err, p->part, "cannot be made");
    if (lstat(p->part, &status) != 0 || !S_ISDIR(status.st_mode)) {
        errno = ENOTDIR;
        return disk_error(err, p->part, "cannot be used");
    }
    dp_error own = { 0 };
    if (!plan_part(p, &own)) {
        /* A source that is no model leaves nothing behind; a broken connection what it brought. */
        if (is_fresh && own.status != DP_E_CANCELLED) (void)!disk_remove(p->part, NULL);
        rmdir(p->part); /* if it is empty */
        return err_set(err, own.status, "%s", own.message);
    }
    if (!fits_on_disk(p, err) || !run_threads(p, err)) return false;
    for (uint32_t i = 0; i < p->plan.n_files; i++) {
        const pull_file *f = &p->plan.files[i];
        if (!f->is_there) continue;
        result->n_files++;
        result->n_checked += f->has_hash;
        result->bytes += f->size;
        result->bytes_kept += f->bytes_kept;
    }
    if (!open_part(p, result, err)) return false;
    warn_of_unchecked(p);
    return install_part(p, err);
}

static uint32_t or_default(uint32_t value, uint32_t fallback) {
    return value == 0 ? fallback : value;
}

static bool prepare(pull *p, const char *text, dp_error *err) {
    const dp_pull_options *o = p->options;
    unsigned char digest[HASH_BYTES];
    char path[STORE_PATH_MAX];
    if (str_of(p->store->folder).size == 0) {
        return err_set(err, DP_E_ARGUMENT, "there is no model folder");
    }
    if (o->jobs > PULL_JOBS_MAX) {
        return err_set(err, DP_E_ARGUMENT, "%" PRIu32 " files at a time, at most %d", o->jobs,
                       PULL_JOBS_MAX);
    }
    if (o->sha256 != NULL && !hash_from_hex(str_of(o->sha256), digest)) {
        return err_set(err, DP_E_ARGUMENT, "\"%.80s\" is no SHA-256: 64 hexadecimal digits",
                       o->sha256);
    }
    if (!source_parse(&p->from, text, err)) return false;
    p->name = o->name != NULL ? o->name : p->from.name;
    if (o->name == NULL && p->name[0] == '\0') {
        return err_set(err, DP_E_ARGUMENT, "%.300s: suggests no name for the model: give one",
                       p->from.shown);
    }
    if (!model_name_check(p->name, err)) return false;
    if (store_find_bundled(p->store, p->name, path, sizeof(path))) {
        return err_set(err, DP_E_ARGUMENT, "%s: a bundled model has that name: give another",
                       p->name);
    }
    p->limits = (http_limits){ .connect_seconds = or_default(o->connect_seconds, CONNECT_SECONDS),
                               .stall_seconds = or_default(o->stall_seconds, STALL_SECONDS),
                               .ca_file = o->ca_file,
                               .ca_folder = o->ca_folder };
    p->job = (fetch_job){ .from = &p->from,
                          .folder = p->part,
                          .tries = or_default(o->tries, TRIES),
                          .pause_ms = or_default(o->pause_ms, PAUSE_MS),
                          .user = p,
                          .count = count_bytes,
                          .say = say_line };
    return path_join(p->path, sizeof(p->path), p->store->folder, p->name, err) &&
           hidden_path(p->part, sizeof(p->part), p->store->folder, p->name, "part", err);
}

bool dp_store_pull(const dp_store_options *store, const char *text, const dp_pull_options *options,
                   dp_pull_result *result, dp_error *err) {
    static const dp_store_options no_store;
    static const dp_pull_options no_options;
    pull *p = mem_new(1, sizeof(*p), "a pull", err);
    dp_pull_result got = { .container = "" };
    if (p == NULL) return false;
    p->store = store != NULL ? store : &no_store;
    p->options = options != NULL ? options : &no_options;
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->ended, NULL);
    bool ok = prepare(p, text, err) && folders_make(p->store->folder, err);
    if (ok) {
        const int lock = store_lock(p->store->folder, p->name, err);
        ok = lock >= 0 && pull_locked(p, &got, err);
        store_unlock(p->store->folder, p->name, lock);
    }
    if (ok && result != NULL) {
        *result = got;
        snprintf(result->name, sizeof(result->name), "%s", p->name);
        snprintf(result->path, sizeof(result->path), "%s", p->path);
    }
    plan_free(&p->plan);
    pthread_cond_destroy(&p->ended);
    pthread_mutex_destroy(&p->mutex);
    mem_free(p);
    return ok;
}
