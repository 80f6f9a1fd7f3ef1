/* fetch: one file of a model, from the source into the part, whole and checked or not at all.
 *
 *     .FILE.part    bytes [0, have) of the file; every complete piece of them is right
 *     .FILE.state   {"source", "etag", "hash"}: what the bytes are a copy of
 *     FILE          complete; with a hash: right
 *
 * Hashes are taken as the bytes arrive. An earlier part is hashed again before it is continued, so
 * what happened to it in between does not matter where there are hashes; where there are none it is
 * continued only under the same strong ETag. A wrong piece (or file, where the pieces have no
 * hashes) is cut off and fetched again, WRONG_MAX times in all; a connection that breaks, stalls or
 * is refused for the moment is tried again after a pause that doubles, until `tries` in a row have
 * brought nothing new. "New" is beyond the farthest byte ever reached: a server that can only start
 * over does not keep us for ever. */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64

#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    WRONG_MAX = 3,         /* times that the same bytes may come wrong */
    NEW_BYTES = 64 * 1024, /* progress that makes the count of tries begin again */
    STATE_BYTES_MAX = 16 * 1024,
    PREFIX_BYTES = 1024 * 1024, /* read at a time when a part is hashed again */
    PAUSE_MAX = 60,             /* seconds */
    DISK_RESERVE = 1024 * 1024, /* bytes that a download leaves free */
};

typedef struct {
    const fetch_job *job;
    pull_file *f;
    http *h;
    patience wait;
    char path[STORE_PATH_MAX], part[STORE_PATH_MAX], state[STORE_PATH_MAX];
    int fd;         /* of the part */
    uint64_t have;  /* its bytes */
    uint64_t total; /* of the file: f->size, or what the source says */
    char etag[ETAG_BYTES_MAX + 1];
    bool is_wrong; /* bytes of the latest request were */
    /* hashing */
    bool hashes;
    hash_state whole, whole_variant, piece;        /* of [0, have), of the piece at work */
    hash_state whole_before, whole_variant_before; /* of [0, piece_start) */
    uint64_t piece_start;
    uint64_t wrong_at; /* the farthest place where wrong bytes began */
    int n_wrong;       /* times that bytes from there or before it were wrong since */
    dp_error wrong;    /* and what was wrong with them */
} file_fetch;

/* ---- state beside the part ----------------------------------------------------------------- */

static void hash_text(const pull_file *f, char text[HASH_HEX_BYTES]) {
    text[0] = '\0';
    if (f->has_hash) hash_to_hex(f->digest, text);
}

/* Not synced: one that a crash has cut is no state, and the file is fetched anew. */
static bool write_state(file_fetch *s, dp_error *err) {
    char hex[HASH_HEX_BYTES];
    buf b;
    hash_text(s->f, hex);
    buf_init(&b, STATE_BYTES_MAX);
    buf_printf(&b, "{\"source\":");
    json_add_string(&b, str_of(s->job->from->shown));
    buf_printf(&b, ",\"etag\":");
    json_add_string(&b, str_of(s->etag));
    buf_printf(&b, ",\"hash\":\"%s\"}\n", hex);
    bool ok = buf_ok(&b, "the state of a download", err);
    const int fd =
        ok ? open(s->state, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666) : -1;
    if (ok && (fd < 0 || write(fd, b.data, b.size) != (ssize_t)b.size)) {
        ok = disk_error(err, s->state, "cannot be written");
    }
    if (fd >= 0) close(fd);
    buf_free(&b);
    return ok;
}

/* Is what lies in the part a copy of what is wanted now? Sets the ETag that it has. A state that
 * cannot be read is none: it is ours alone, and a crash may have cut it. */
static bool state_fits(file_fetch *s) {
    char hex[HASH_HEX_BYTES];
    buf text;
    hash_text(s->f, hex);
    if (!file_read_all(s->state, STATE_BYTES_MAX, &text, NULL)) return false;
    json *doc = json_open((str){ text.data, text.size }, s->state, NULL);
    const json_value *root = json_root(doc);
    str from = { 0 }, etag = { 0 }, hash = { 0 };
    bool fits = doc != NULL && json_string(json_get(root, "source"), &from) &&
                json_string(json_get(root, "etag"), &etag) &&
                json_string(json_get(root, "hash"), &hash) && etag.size <= ETAG_BYTES_MAX &&
                str_is(hash, hex);
    /* An ETag is of one place; bytes with a hash may come from anywhere. */
    const bool same_place = str_is(from, s->job->from->shown);
    if (fits && same_place && etag.size > 0) memcpy(s->etag, etag.data, etag.size);
    s->etag[fits && same_place ? etag.size : 0] = '\0';
    fits = fits && (s->f->has_hash || s->etag[0] != '\0');
    json_close(doc);
    buf_free(&text);
    return fits;
}

/* ---- hashing ------------------------------------------------------------------------------- */

static void begin_hashes(file_fetch *s) {
    const hash_kind kind = s->f->kind == HASH_BLAKE3_VARIANT ? HASH_BLAKE3 : s->f->kind;
    s->hashes = s->f->has_hash || s->f->n_pieces > 0;
    s->piece_start = 0;
    hash_begin(&s->whole, kind);
    hash_begin(&s->whole_variant, HASH_BLAKE3_VARIANT);
    hash_begin(&s->piece, HASH_SHA256);
    s->whole_before = s->whole;
    s->whole_variant_before = s->whole_variant;
}

/* Remembers that bytes from `start` on came wrong. Always false. */
static bool came_wrong(file_fetch *s, uint64_t start, uint64_t end, const char *kind,
                       const unsigned char got[HASH_BYTES], const unsigned char want[HASH_BYTES]) {
    char got_hex[HASH_HEX_BYTES], want_hex[HASH_HEX_BYTES], range[80] = "";
    hash_to_hex(got, got_hex);
    hash_to_hex(want, want_hex);
    if (s->f->n_pieces > 0) {
        snprintf(range, sizeof(range), "bytes %" PRIu64 " to %" PRIu64 ": ", start, end - 1);
    }
    if (s->n_wrong == 0 || start > s->wrong_at) s->n_wrong = 0, s->wrong_at = start;
    s->n_wrong++;
    s->is_wrong = true;
    s->wrong = (dp_error){ 0 };
    return err_set(&s->wrong, DP_E_NETWORK, "%s: %s%s is %s, %s says %s", s->f->name, range, kind,
                   got_hex, s->f->voucher, want_hex);
}

/* Takes bytes that lie at `from`, behind those hashed before. False: a piece among them is wrong,
 * and those behind it were not looked at. */
static bool feed_hashes(file_fetch *s, const unsigned char *bytes, size_t n, uint64_t from) {
    const pull_file *f = s->f;
    while (s->hashes && n > 0) {
        size_t take = n;
        if (f->n_pieces > 0) {
            take = (size_t)min_u64(n, f->piece_bytes - (from - s->piece_start));
            hash_add(&s->piece, bytes, take);
        }
        hash_add(&s->whole, bytes, take);
        if (f->kind != HASH_SHA256) hash_add(&s->whole_variant, bytes, take);
        bytes += take, n -= take, from += take;
        if (f->n_pieces == 0 || (from - s->piece_start < f->piece_bytes && from != f->size)) {
            continue;
        }
        unsigned char got[HASH_BYTES];
        const unsigned char *want = f->pieces + s->piece_start / f->piece_bytes * HASH_BYTES;
        hash_end(&s->piece, got);
        hash_begin(&s->piece, HASH_SHA256);
        if (memcmp(got, want, HASH_BYTES) != 0) {
            return came_wrong(s, s->piece_start, from, "SHA-256", got, want);
        }
        s->piece_start = from;
        s->whole_before = s->whole;
        s->whole_variant_before = s->whole_variant;
    }
    return true;
}

/* The whole file against its hash; both kinds of BLAKE3 count. */
static bool whole_is_right(file_fetch *s) {
    const pull_file *f = s->f;
    unsigned char got[HASH_BYTES], variant[HASH_BYTES];
    if (!f->has_hash) return true;
    hash_end(&s->whole, got);
    if (memcmp(got, f->digest, HASH_BYTES) == 0) return true;
    if (f->kind != HASH_SHA256) {
        hash_end(&s->whole_variant, variant);
        if (memcmp(variant, f->digest, HASH_BYTES) == 0) return true;
    }
    return came_wrong(s, 0, s->have, f->kind == HASH_SHA256 ? "SHA-256" : "BLAKE3", got, f->digest);
}

/* ---- the part's bytes ---------------------------------------------------------------------- */

/* Forgets all bytes from `n` on: 0, or the start of the piece at work. */
static bool cut_part(file_fetch *s, uint64_t n, dp_error *err) {
    if (ftruncate(s->fd, (off_t)n) != 0) return disk_error(err, s->part, "cannot be shortened");
    s->job->count(s->job->user, -(int64_t)(s->have - n));
    s->have = n;
    s->f->bytes_kept = min_u64(s->f->bytes_kept, n);
    if (n == 0) {
        begin_hashes(s);
    } else {
        assert(n == s->piece_start);
        s->whole = s->whole_before;
        s->whole_variant = s->whole_variant_before;
        hash_begin(&s->piece, HASH_SHA256);
    }
    return true;
}

static bool write_part(file_fetch *s, const unsigned char *bytes, size_t n, dp_error *err) {
    uint64_t at = s->have;
    while (n > 0) {
        const ssize_t put = pwrite(s->fd, bytes, n, (off_t)at);
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) return disk_error(err, s->part, "cannot be written");
        at += (uint64_t)put;
        bytes += put, n -= (size_t)put;
    }
    return true;
}

/* Hashes what an earlier pull left; cuts it at the first wrong piece. */
static bool take_earlier(file_fetch *s, dp_error *err) {
    struct stat status;
    if (fstat(s->fd, &status) != 0) return disk_error(err, s->part, "cannot be examined");
    const uint64_t n = (uint64_t)status.st_size;
    if (n > s->f->ceiling || n > s->total) return cut_part(s, 0, err);
    if (!s->hashes) {
        /* One byte is asked for again: whether more follow is not known, and none is no range. */
        s->have = n > 0 ? n - 1 : 0;
        s->job->count(s->job->user, (int64_t)s->have);
        return ftruncate(s->fd, (off_t)s->have) == 0 ||
               disk_error(err, s->part, "cannot be shortened");
    }
    unsigned char *room = n == 0 ? NULL : mem_new(1, PREFIX_BYTES, "checking a file", err);
    bool ok = n == 0 || room != NULL, right = true;
    while (ok && right && s->have < n) {
        const size_t want = (size_t)min_u64(n - s->have, PREFIX_BYTES);
        const ssize_t got = pread(s->fd, room, want, (off_t)s->have);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) {
            ok = disk_error(err, s->part, "cannot be read");
        } else if (!s->wait.go_on(s->wait.user)) {
            ok = err_set(err, DP_E_CANCELLED, "cancelled");
        } else {
            right = feed_hashes(s, room, (size_t)got, s->have);
            s->have += (uint64_t)got;
            s->job->count(s->job->user, got);
        }
    }
    mem_free(room);
    s->n_wrong = 0; /* it was the disk, not the source */
    s->is_wrong = false;
    return ok && (right || cut_part(s, s->piece_start, err));
}

/* ---- the sink ------------------------------------------------------------------------------ */

static bool check_total(file_fetch *s, const fetch_head *head, dp_error *err) {
    const pull_file *f = s->f;
    const uint64_t total = head->total;
    if (head->start > total) {
        return err_set(err, DP_E_NETWORK, "%s: the source sends bytes from %" PRIu64 " of %" PRIu64,
                       f->name, head->start, total);
    }
    if (f->size != SIZE_UNKNOWN && total != SIZE_UNKNOWN && total != f->size) {
        return err_set(err, DP_E_NETWORK, "%s: the source has %" PRIu64 " bytes, expected %" PRIu64,
                       f->name, total, f->size);
    }
    if (f->weights && f->size == SIZE_UNKNOWN && total == SIZE_UNKNOWN) {
        return err_set(err, DP_E_NETWORK, "%s: the server does not say how many bytes it has",
                       f->name);
    }
    if (total != SIZE_UNKNOWN && total > f->ceiling) {
        return err_set(err, DP_E_LIMIT, "%s: %" PRIu64 " bytes, the limit is %" PRIu64, f->name,
                       total, f->ceiling);
    }
    return true;
}

static bool sink_head(void *user, const fetch_head *head, dp_error *err) {
    file_fetch *s = user;
    if (!check_total(s, head, err)) return false;
    const bool same = strcmp(head->etag, s->etag) == 0;
    const bool other_size =
        s->total != SIZE_UNKNOWN && head->total != SIZE_UNKNOWN && head->total != s->total;
    if (head->start > 0 && ((!same && !s->f->has_hash) || other_size)) {
        /* The rest of something else, from a server that knows no If-Range. */
        s->etag[0] = '\0';
        s->total = s->f->size;
        return cut_part(s, 0, err) && false;
    }
    if (head->start == 0 && s->have > 0 && !cut_part(s, 0, err)) return false;
    if (s->f->size == SIZE_UNKNOWN) s->total = head->total;
    if (s->total != SIZE_UNKNOWN) {
        const uint64_t room = disk_room(s->job->folder), need = s->total - s->have;
        if (need > room || room - need < DISK_RESERVE) {
            return err_set(err, DP_E_FILE,
                           "%s: needs %" PRIu64 " more bytes, the disk of %.200s has %" PRIu64,
                           s->f->name, need, s->job->folder, room);
        }
    }
    if (same && head->start > 0) return true;
    snprintf(s->etag, sizeof(s->etag), "%s", head->etag);
    return write_state(s, err);
}

static bool sink_body(void *user, const void *bytes, size_t n, dp_error *err) {
    file_fetch *s = user;
    const uint64_t most = min_u64(s->total, s->f->ceiling); /* SIZE_UNKNOWN is the largest */
    if (n > most || s->have > most - n) {
        return err_set(err, s->total == SIZE_UNKNOWN ? DP_E_LIMIT : DP_E_NETWORK,
                       "%s: the source sends more than %" PRIu64 " bytes", s->f->name, most);
    }
    if (!write_part(s, bytes, n, err)) return false;
    const bool right = feed_hashes(s, bytes, n, s->have);
    s->have += n;
    s->job->count(s->job->user, (int64_t)n);
    return right || (cut_part(s, s->piece_start, err) && false);
}

/* ---- trying -------------------------------------------------------------------------------- */

static bool wait_a_while(patience wait, double seconds, dp_error *err) {
    const double end = clock_seconds() + seconds;
    while (clock_seconds() < end) {
        const struct timespec moment = { .tv_nsec = 10 * 1000 * 1000 };
        if (!wait.go_on(wait.user)) return err_set(err, DP_E_CANCELLED, "cancelled");
        nanosleep(&moment, NULL);
    }
    return true;
}

typedef struct {
    uint32_t n; /* in a row that brought nothing new */
    uint64_t farthest;
    double pause; /* seconds before the next */
} try_count;

/* After a try that failed with `why`: waits, or gives up with that error. */
static bool try_again(const fetch_job *job, patience wait, try_count *tries, uint64_t have,
                      double asked_pause, const dp_error *why, dp_error *err) {
    char line[sizeof(why->message) + 64];
    if (have >= tries->farthest + NEW_BYTES) {
        tries->n = 0;
        tries->pause = 1e-3 * job->pause_ms;
    }
    if (have > tries->farthest) tries->farthest = have;
    if (++tries->n >= job->tries) return err_set(err, why->status, "%s", why->message);
    const double pause = asked_pause >= 0 ? asked_pause : tries->pause;
    snprintf(line, sizeof(line), "%s; trying again in %.1f s", why->message, pause);
    job->say(job->user, DP_LOG_INFO, line);
    tries->pause = tries->pause * 2 < PAUSE_MAX ? tries->pause * 2 : PAUSE_MAX;
    return wait_a_while(wait, pause, err);
}

/* One request for what is missing; FETCH_DONE if the file has all its bytes. */
static fetch_outcome ask_once(file_fetch *s, double *pause, dp_error *err) {
    const fetch_sink sink = { .user = s, .head = sink_head, .body = sink_body };
    char etag[sizeof(s->etag)]; /* the sink changes its own */
    memcpy(etag, s->etag, sizeof(etag));
    /* Without a hash and an ETag nothing would tell whether the rest belongs to what is here. With
     * a hash no ETag is needed, and not every server gives the same file the same one. */
    const bool hashed = s->f->has_hash;
    if (!hashed && etag[0] == '\0' && !cut_part(s, 0, err)) return FETCH_FAILED;
    const fetch_range range = { .start = s->have, .validator = hashed ? NULL : etag };
    s->is_wrong = false;
    const fetch_outcome outcome =
        source_get(s->job->from, s->h, s->wait, s->f->name, &range, &sink, pause, err);
    if (outcome == FETCH_DONE && s->total != SIZE_UNKNOWN && s->have != s->total) {
        err_set(err, DP_E_NETWORK, "%s: ended after %" PRIu64 " of %" PRIu64 " bytes", s->f->name,
                s->have, s->total);
        return FETCH_AGAIN;
    }
    return outcome;
}

/* Until the part is the whole file and right. */
static bool complete_part(file_fetch *s, bool *absent, dp_error *err) {
    try_count tries = { .farthest = s->have, .pause = 1e-3 * s->job->pause_ms };
    for (;;) {
        double asked_pause = -1;
        dp_error why = { 0 };
        fetch_outcome outcome = FETCH_DONE;
        if (s->total == SIZE_UNKNOWN || s->have != s->total) {
            outcome = ask_once(s, &asked_pause, &why);
        }
        if (outcome == FETCH_DONE) {
            if (whole_is_right(s)) return true;
            if (!cut_part(s, 0, err)) return false; /* no piece was wrong, or there are none */
        } else if (outcome == FETCH_ABSENT && s->f->optional) {
            *absent = true;
            return true;
        } else if (outcome == FETCH_BAD_RANGE && s->have > 0) {
            s->etag[0] = '\0'; /* it has become shorter than what is here */
            s->total = s->f->size;
            if (!cut_part(s, 0, err)) return false;
            continue;
        } else if (outcome == FETCH_AGAIN) {
            if (!try_again(s->job, s->wait, &tries, s->have, asked_pause, &why, err)) return false;
            continue;
        } else if (outcome != FETCH_STOPPED || why.status != DP_OK) {
            return err_set(err, why.status, "%s", why.message);
        }
        if (s->is_wrong && s->n_wrong >= WRONG_MAX) {
            return err_set(err, DP_E_NETWORK, "%s (fetched %d times)", s->wrong.message,
                           s->n_wrong);
        }
        if (s->is_wrong) {
            s->job->say(s->job->user, DP_LOG_WARNING, s->wrong.message);
            continue;
        }
        /* Stopped for another reason: what it sent belongs to another version. */
        err_set(&why, DP_E_NETWORK, "%s: has changed at the source", s->f->name);
        if (!try_again(s->job, s->wait, &tries, s->have, 0, &why, err)) return false;
    }
}

static bool keep_whole(file_fetch *s, dp_error *err) {
    if (fsync(s->fd) != 0) return disk_error(err, s->part, "cannot be written to the disk");
    if (rename(s->part, s->path) != 0) return disk_error(err, s->part, "cannot be renamed");
    s->f->size = s->have;
    s->f->is_there = true;
    return true;
}

/* What earlier pulls left of it: true if the file is there, whole and right. Without a hash its
 * last byte is asked for again under the ETag, which tells whether it is still the same. */
static bool take_whole(file_fetch *s) {
    struct stat status;
    const bool fits = state_fits(s);
    const bool whole = lstat(s->path, &status) == 0 && S_ISREG(status.st_mode);
    const uint64_t n = whole ? (uint64_t)status.st_size : 0;
    if (!fits) {
        unlink(s->part);
        unlink(s->path);
        unlink(s->state);
        return false;
    }
    if (!whole) return false;
    if (s->f->has_hash && (s->f->size == SIZE_UNKNOWN || s->f->size == n)) {
        s->f->size = n;
        s->f->is_there = true;
        s->f->bytes_kept = n;
        s->job->count(s->job->user, (int64_t)n);
        return true;
    }
    if (rename(s->path, s->part) != 0) unlink(s->path);
    return false;
}

bool fetch_file(const fetch_job *job, http *h, patience wait, pull_file *f, dp_error *err) {
    file_fetch *s = mem_new(1, sizeof(*s), "a download", err);
    bool absent = false;
    if (s == NULL) return false;
    *s = (file_fetch){ .job = job, .f = f, .h = h, .wait = wait, .fd = -1, .total = f->size };
    bool ok = path_join(s->path, sizeof(s->path), job->folder, f->name, err) &&
              hidden_path(s->part, sizeof(s->part), job->folder, f->name, "part", err) &&
              hidden_path(s->state, sizeof(s->state), job->folder, f->name, "state", err);
    if (ok && !take_whole(s)) {
        s->fd = open(s->part, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
        if (s->fd < 0) ok = disk_error(err, s->part, "cannot be made");
        begin_hashes(s);
        ok = ok && take_earlier(s, err);
        f->bytes_kept = ok ? s->have : 0;
        ok = ok && complete_part(s, &absent, err) && (absent || keep_whole(s, err));
        if (s->fd >= 0) close(s->fd);
        if (absent || (s->fd >= 0 && s->have == 0 && !f->is_there)) {
            unlink(s->part);
            unlink(s->state);
        }
    }
    mem_free(s);
    return ok;
}

/* ---- asking for a size --------------------------------------------------------------------- */

static bool probe_head(void *user, const fetch_head *head, dp_error *err) {
    (void)err;
    *(uint64_t *)user = head->total;
    return false; /* that was all */
}

static bool probe_body(void *user, const void *bytes, size_t n, dp_error *err) {
    (void)user, (void)bytes, (void)n, (void)err;
    return false;
}

bool fetch_size(const fetch_job *job, http *h, patience wait, const char *name, uint64_t *size,
                dp_error *err) {
    const fetch_range range = { .probe = true };
    const fetch_sink sink = { .user = size, .head = probe_head, .body = probe_body };
    try_count tries = { .pause = 1e-3 * job->pause_ms };
    for (;;) {
        double asked_pause = -1;
        dp_error why = { 0 };
        *size = SIZE_UNKNOWN;
        const fetch_outcome outcome =
            source_get(job->from, h, wait, name, &range, &sink, &asked_pause, &why);
        if (outcome == FETCH_DONE || outcome == FETCH_STOPPED) return true;
        if (outcome == FETCH_BAD_RANGE) { /* an empty file has no first byte */
            *size = 0;
            return true;
        }
        if (outcome != FETCH_AGAIN) return err_set(err, why.status, "%s", why.message);
        if (!try_again(job, wait, &tries, 0, asked_pause, &why, err)) return false;
    }
}
