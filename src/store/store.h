/* store: the model folder, Hugging Face's cache, and fetching models. Needs base and format;
 * libcurl is opened at run time, so that a program which fetches nothing does without it.
 *
 * The public calls are those of doppler.h's section "model folder". A pull is: lock the name, make
 * FOLDER/.NAME.part, plan (which files, from manifest, index or name), fetch on several threads,
 * open what is there as a model, rename. Invariant: under a plain name in the model folder lies a
 * whole model; whatever is unfinished, locked or on its way out has a name with a dot in front.
 * Inside a part FILE is whole and checked, .FILE.part is being written, .FILE.state says what they
 * are a copy of. HTTP by RFC 9110: ranges (14), If-Range (13.1.5), redirection (15.4). */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include "base/base.h"
#include "format/format.h"

enum {
    STORE_PATH_MAX = 4096,
    STORE_NAME_MAX = 200,              /* bytes of a model's name: a dot and ".part" go round it */
    FILE_NAME_MAX = 200,               /* of a file of a model, for the same reason */
    URL_MAX_BYTES = 4096,              /* of a source, and of where it redirects to */
    ETAG_BYTES_MAX = 200,              /* longer ones are as good as none */
    PULL_FILES_MAX = 1 << 16,          /* files of one model */
    PULL_JOBS_MAX = 16,                /* threads */
    SUMS_BYTES_MAX = 16 * 1024 * 1024, /* a SHA256SUMS file */
    TEXT_FILE_MAX = 16 * 1024 * 1024,  /* chat templates and the like */
    REDIRECTS_MAX = 10,
};
#define SIZE_UNKNOWN UINT64_MAX

/* ---- names and disk (disk.c) --------------------------------------------------------------- */

/* A file's name that leads nowhere else: no '/', no '\\', no dot in front, no control characters,
 * valid UTF-8, 1 to FILE_NAME_MAX bytes. */
bool name_is_plain(str name);
/* What a model of the folder may be called: a plain name that begins with no '-'. */
bool model_name_check(const char *name, dp_error *err) CHECK_RESULT;
/* "STEM-00002-of-00003.gguf", a part of a split model: true with 2, 3 and the length of STEM. */
bool name_is_split(const char *name, uint32_t *index, uint32_t *n, size_t *stem);
bool name_ends(const char *name, const char *suffix); /* of any case, and something before it */
/* "FOLDER/.NAME.SUFFIX" */
bool hidden_path(char *out, size_t size, const char *folder, const char *name, const char *suffix,
                 dp_error *err) CHECK_RESULT;

/* DP_E_FILE "PATH: WHAT: the system's reason", of errno. Always false. */
bool disk_error(dp_error *err, const char *path, const char *what);
/* Deletes a file, a link or a folder with all in it; nothing that a link points to. */
bool disk_remove(const char *path, dp_error *err) CHECK_RESULT;
/* Moves what `path` is into the place of `to`, which must not be there. */
bool disk_rename(const char *path, const char *to, dp_error *err) CHECK_RESULT;
/* Puts the folder `path` in the place of `to` in one step where the system can; what was there lies
 * at `old` then, which must not be there before. */
bool disk_replace(const char *path, const char *to, const char *old, dp_error *err) CHECK_RESULT;
uint64_t disk_bytes(const char *path);   /* of a file, or of the files in a folder */

/* The names in a folder, sorted; without those that begin with a dot unless `hidden`. All in
 * `memory`. */
bool disk_names(const char *path, bool hidden, arena *memory, const char ***names, uint32_t *n,
                dp_error *err) CHECK_RESULT;

/* One holder of a model's name at a time, in this and other processes. -1: DP_E_FILE "NAME: is
 * being WHAT by another process". */
int store_lock(const char *folder, const char *name, dp_error *err) CHECK_RESULT;
void store_unlock(const char *folder, const char *name, int lock);

/* ---- finding (folder.c) -------------------------------------------------------------------- */

bool store_find_bundled(const dp_store_options *options, const char *name, char *path, size_t size);
const char *container_kind_text(container_kind kind); /* "gguf" */

/* ---- Hugging Face's cache (hub.c) ---------------------------------------------------------- */

/* True if `name` has the form of a repository's: "ORG/NAME", "NAME", "@REVISION" behind it. */
bool hub_is_name(const char *name);
/* The snapshot's folder. *found is false, with true returned, if the cache has no such model. */
bool hub_find(const char *cache, const char *name, char *path, size_t size, bool *found,
              dp_error *err) CHECK_RESULT;
/* "models--ORG--NAME" to "ORG/NAME"; false for anything else. */
bool hub_name_of(const char *folder, char *name, size_t size);

/* ---- HTTP (http.c) and where models come from (source.c) ----------------------------------- */

/* Asked often, on the thread that waits; false cancels. */
typedef struct {
    bool (*go_on)(void *user);
    void *user;
} patience;

typedef struct {
    uint32_t connect_seconds, stall_seconds;
    const char *ca_file, *ca_folder; /* NULL: the system's */
} http_limits;

/* What is asked for. */
typedef struct {
    uint64_t start;        /* first byte; the rest to the end */
    bool probe;            /* the first byte alone: the answer's head is what counts */
    const char *validator; /* start > 0: only if this is still the ETag, else all of it; NULL: no
                            * matter */
} fetch_range;

/* What is answered, before the first byte of it. */
typedef struct {
    uint64_t start;                /* of the bytes that follow: as asked, or 0 */
    uint64_t total;                /* bytes of the whole file, SIZE_UNKNOWN if not said */
    char etag[ETAG_BYTES_MAX + 1]; /* strong, with its quotes; empty if there is none */
} fetch_head;

/* Where it goes. A call that returns false without an error ends the fetch as FETCH_STOPPED. */
typedef struct {
    void *user;
    bool (*head)(void *user, const fetch_head *head, dp_error *err); /* once, and first */
    bool (*body)(void *user, const void *bytes, size_t n, dp_error *err);
} fetch_sink;

typedef enum {
    FETCH_DONE,
    FETCH_STOPPED,
    FETCH_ABSENT,    /* there is no such file, as far as it tells */
    FETCH_BAD_RANGE, /* it is shorter than `start` */
    FETCH_AGAIN,     /* may go better another time */
    FETCH_FAILED
} fetch_outcome;
/* All but DONE and STOPPED fill the error. */

/* A connection, for one thread. */
typedef struct http http;
http *http_open(const http_limits *limits, patience wait, dp_error *err) CHECK_RESULT;
void http_close(http *h);
/* *pause: seconds that the server asks to wait before the next try, else as it was. */
fetch_outcome http_get(http *h, const char *url, const fetch_range *range, const fetch_sink *sink,
                       double *pause, dp_error *err);
/* The URL without user, password and query. */
void http_show_url(const char *url, char *out, size_t size);

/* A folder, here or on a server. Texts live with the source. */
typedef struct {
    bool remote;
    char base[URL_MAX_BYTES];      /* URL or path, with '/' at its end */
    char query[URL_MAX_BYTES];     /* "?...", goes behind every URL */
    char shown[URL_MAX_BYTES];     /* base as messages and states name it */
    char file[FILE_NAME_MAX + 1];  /* the one file that was named; empty: a folder */
    char name[STORE_NAME_MAX + 1]; /* for the model; empty if the source suggests none */
} source;

bool source_parse(source *s, const char *text, dp_error *err) CHECK_RESULT;
/* `h` is NULL for a source that is not remote. */
fetch_outcome source_get(const source *s, http *h, patience wait, const char *name,
                         const fetch_range *range, const fetch_sink *sink, double *pause,
                         dp_error *err);

/* ---- fetching (fetch.c, plan.c, pull.c) ---------------------------------------------------- */

/* A file of the model, and what is known of it. */
typedef struct {
    const char *name;
    uint64_t size;    /* SIZE_UNKNOWN: as the source says */
    uint64_t ceiling; /* more is refused */
    bool optional;    /* need not be there */
    bool weights;     /* the source must say its size before it sends it */
    bool has_hash;
    hash_kind kind;
    unsigned char digest[HASH_BYTES];
    const char *voucher;         /* "the manifest": who says the hash */
    const unsigned char *pieces; /* n_pieces SHA-256, each of piece_bytes (the last of the rest) */
    uint32_t n_pieces;
    uint64_t piece_bytes;

    bool is_there;       /* fetched and whole */
    uint64_t bytes_kept; /* of an earlier pull */
} pull_file;

/* What all threads of a pull share. */
typedef struct {
    const source *from;
    const char *folder; /* the part */
    uint32_t tries, pause_ms;
    void *user;
    void (*count)(void *user, int64_t bytes); /* got, or lost again; any thread */
    void (*say)(void *user, dp_log_level level, const char *line); /* any thread */
} fetch_job;

/* Brings one file into the part, from where an earlier try stopped, and checks it. True and
 * f->is_there false: it is optional, and absent. */
bool fetch_file(const fetch_job *job, http *h, patience wait, pull_file *f,
                dp_error *err) CHECK_RESULT;
/* Size of the file at the source, SIZE_UNKNOWN if it does not say. */
bool fetch_size(const fetch_job *job, http *h, patience wait, const char *name, uint64_t *size,
                dp_error *err) CHECK_RESULT;

typedef struct {
    pull_file *files; /* those that are there already (manifests, indexes) among them */
    uint32_t n_files, max_files;
    map *names; /* to the number in files */
    arena memory;
} pull_plan;

/* Finds out what the source holds. `sha256` as dp_pull_options. */
bool plan_make(pull_plan *plan, const fetch_job *job, http *h, patience wait, const char *sha256,
               dp_error *err) CHECK_RESULT;
void plan_free(pull_plan *plan);

#endif
