/* http_server: see http_server.h. One thread listens, one serves each connection. */
#define _GNU_SOURCE

#include "tests/http_server.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    FILES_MAX = 64,
    FAULTS_MAX = 64,
    CONNECTIONS_MAX = 256, /* in the life of a server */
    REQUEST_MAX = 16384,   /* bytes of a request's head */
    PATH_MAX_BYTES = 256,
    PIECE = 16384, /* bytes sent at a time */
};

typedef struct {
    char path[PATH_MAX_BYTES], etag[64], last[REQUEST_MAX];
    unsigned char *bytes;
    size_t n;
    bool is_there;
    uint32_t requests;
    uint64_t sent;
} served_file;

typedef struct {
    char path[PATH_MAX_BYTES], text[512];
    fault_kind kind;
    uint32_t times;
    uint64_t value;
} fault;

typedef struct {
    http_server *server;
    pthread_t thread;
    int fd;
} connection;

struct http_server {
    int listener;
    char url[64];
    pthread_t thread;
    pthread_mutex_t mutex; /* over all that follows */
    bool stops;
    served_file files[FILES_MAX];
    size_t n_files;
    fault faults[FAULTS_MAX];
    size_t n_faults;
    connection connections[CONNECTIONS_MAX];
    size_t n_connections;
};

/* What one answer is, put together under the lock. */
typedef struct {
    unsigned char *bytes; /* its own copy */
    size_t n;
    int status;
    uint64_t start, claimed; /* first byte; size of the file as told */
    uint64_t cut, slow;      /* bytes of the body; UINT64_MAX: none */
    bool chunked, endless, encoded, early, close;
    char etag[64], location[512];
} answer;

static void need(bool holds, const char *what) {
    if (holds) return;
    printf("the test server: %s failed\n", what);
    exit(1);
}

/* ---- files and faults ---------------------------------------------------------------------- */

static served_file *file_of(http_server *s, const char *path, bool make) {
    for (size_t i = 0; i < s->n_files; i++) {
        if (strcmp(s->files[i].path, path) == 0) return &s->files[i];
    }
    if (!make) return NULL;
    need(s->n_files < FILES_MAX, "room for a file");
    served_file *f = &s->files[s->n_files++];
    snprintf(f->path, sizeof(f->path), "%s", path);
    return f;
}

void http_server_put(http_server *s, const char *path, const void *bytes, size_t n,
                     const char *etag) {
    pthread_mutex_lock(&s->mutex);
    served_file *f = file_of(s, path, true);
    free(f->bytes);
    f->bytes = malloc(n + 1);
    need(f->bytes != NULL, "memory");
    memcpy(f->bytes, bytes, n);
    f->n = n;
    f->is_there = true;
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ f->bytes[i]) * 0x100000001b3u;
    if (etag == NULL) {
        snprintf(f->etag, sizeof(f->etag), "\"%016" PRIx64 "\"", hash);
    } else {
        snprintf(f->etag, sizeof(f->etag), "%s", etag);
    }
    pthread_mutex_unlock(&s->mutex);
}

void http_server_drop(http_server *s, const char *path) {
    pthread_mutex_lock(&s->mutex);
    file_of(s, path, true)->is_there = false;
    pthread_mutex_unlock(&s->mutex);
}

void http_server_fault(http_server *s, const char *path, fault_kind kind, uint32_t times,
                       uint64_t value, const char *text) {
    pthread_mutex_lock(&s->mutex);
    need(s->n_faults < FAULTS_MAX, "room for a fault");
    fault *f = &s->faults[s->n_faults++];
    *f = (fault){ .kind = kind, .times = times, .value = value };
    snprintf(f->path, sizeof(f->path), "%s", path);
    snprintf(f->text, sizeof(f->text), "%s", text != NULL ? text : "");
    pthread_mutex_unlock(&s->mutex);
}

void http_server_no_faults(http_server *s) {
    pthread_mutex_lock(&s->mutex);
    s->n_faults = 0;
    pthread_mutex_unlock(&s->mutex);
}

uint32_t http_server_requests(http_server *s, const char *path) {
    uint32_t n = 0;
    pthread_mutex_lock(&s->mutex);
    for (size_t i = 0; i < s->n_files; i++) {
        if (path == NULL || strcmp(s->files[i].path, path) == 0) n += s->files[i].requests;
    }
    pthread_mutex_unlock(&s->mutex);
    return n;
}

uint64_t http_server_sent(http_server *s, const char *path) {
    pthread_mutex_lock(&s->mutex);
    const served_file *f = file_of(s, path, false);
    const uint64_t n = f == NULL ? 0 : f->sent;
    pthread_mutex_unlock(&s->mutex);
    return n;
}

const char *http_server_last(http_server *s, const char *path) {
    pthread_mutex_lock(&s->mutex);
    const served_file *f = file_of(s, path, false);
    pthread_mutex_unlock(&s->mutex);
    return f == NULL ? "" : f->last;
}

void http_server_forget(http_server *s) {
    pthread_mutex_lock(&s->mutex);
    for (size_t i = 0; i < s->n_files; i++) {
        s->files[i].requests = 0;
        s->files[i].sent = 0;
        s->files[i].last[0] = '\0';
    }
    pthread_mutex_unlock(&s->mutex);
}

/* ---- answers ------------------------------------------------------------------------------- */

/* Value of a header line in a request's head, into out; false if there is none. */
static bool header_of(const char *head, const char *name, char *out, size_t size) {
    const size_t n = strlen(name);
    for (const char *line = head; line != NULL; line = strstr(line, "\r\n")) {
        if (line[0] == '\r') line += 2;
        if (strncasecmp(line, name, n) != 0 || line[n] != ':') continue;
        const char *value = line + n + 1;
        value += strspn(value, " ");
        snprintf(out, size, "%.*s", (int)strcspn(value, "\r"), value);
        return true;
    }
    return false;
}

static void meet_fault(answer *a, const fault *f, const served_file *file, bool *no_ranges,
                       bool *no_if_range, int64_t *range) {
    switch (f->kind) {
    case FAULT_STATUS:
        a->status = (int)f->value;
        break;
    case FAULT_CUT:
        a->cut = f->value;
        break;
    case FAULT_SLOW:
        a->slow = f->value;
        break;
    case FAULT_FLIP:
        if (f->value < file->n) a->bytes[f->value] ^= 0x10;
        break;
    case FAULT_NO_RANGES:
        *no_ranges = true;
        break;
    case FAULT_NO_IF_RANGE:
        *no_if_range = true;
        break;
    case FAULT_NO_LENGTH:
        a->chunked = true;
        break;
    case FAULT_ENDLESS:
        a->chunked = a->endless = true;
        break;
    case FAULT_SIZE:
        a->claimed = f->value;
        a->close = true;
        break;
    case FAULT_RANGE:
        *range = (int64_t)f->value;
        break;
    case FAULT_REDIRECT:
        a->status = 302;
        snprintf(a->location, sizeof(a->location), "%s", f->text);
        break;
    case FAULT_ENCODED:
        a->encoded = true;
        break;
    case FAULT_EARLY:
        a->early = true;
        break;
    }
}

/* Under the lock. */
static void compose(http_server *s, const char *path, const char *head, answer *a) {
    served_file *f = file_of(s, path, true);
    char range[128], validator[128];
    bool no_ranges = false, no_if_range = false;
    int64_t other_range = -1;
    *a = (answer){ .status = f->is_there ? 200 : 404, .cut = UINT64_MAX, .slow = UINT64_MAX };
    a->n = a->status == 200 ? f->n : 0;
    a->bytes = malloc(a->n + 1);
    need(a->bytes != NULL, "memory");
    if (a->n > 0) memcpy(a->bytes, f->bytes, a->n);
    snprintf(a->etag, sizeof(a->etag), "%s", f->etag);
    f->requests++;
    snprintf(f->last, sizeof(f->last), "%s", head);
    a->claimed = a->n;
    for (unsigned kinds = 0, i = 0; i < s->n_faults; i++) {
        fault *g = &s->faults[i];
        if (g->times == 0 || strcmp(g->path, path) != 0 || (kinds & 1u << g->kind) != 0) continue;
        kinds |= 1u << g->kind;
        if (g->times != FOR_EVER) g->times--;
        meet_fault(a, g, f, &no_ranges, &no_if_range, &other_range);
    }
    if (a->status != 200 || no_ranges || !header_of(head, "Range", range, sizeof(range))) return;
    if (!no_if_range && header_of(head, "If-Range", validator, sizeof(validator)) &&
        strcmp(validator, f->etag) != 0) {
        return;
    }
    uint64_t first = 0, last = a->claimed - 1;
    if (sscanf(range, "bytes=%" SCNu64 "-%" SCNu64, &first, &last) < 1) return;
    if (first >= a->claimed) {
        a->status = 416;
        return;
    }
    a->status = 206;
    a->start = other_range >= 0 ? (uint64_t)other_range : first;
    if (last + 1 < a->n) a->n = (size_t)last + 1;
}

/* False once the other side has gone. */
static bool send_all(int fd, const void *bytes, size_t n) {
    const char *from = bytes;
    while (n > 0) {
        const ssize_t put = send(fd, from, n, MSG_NOSIGNAL);
        if (put <= 0) return false;
        from += put, n -= (size_t)put;
    }
    return true;
}

static bool send_piece(int fd, const answer *a, const void *bytes, size_t n) {
    char size[32];
    if (!a->chunked) return send_all(fd, bytes, n);
    const int length = snprintf(size, sizeof(size), "%zx\r\n", n);
    return send_all(fd, size, (size_t)length) && send_all(fd, bytes, n) && send_all(fd, "\r\n", 2);
}

/* Until the other side has gone. */
static void wait_for_end(int fd) {
    struct pollfd wait = { .fd = fd, .events = POLLIN };
    char sink[256];
    while (poll(&wait, 1, 30000) > 0 && recv(fd, sink, sizeof(sink), 0) > 0) {
    }
}

static bool send_body(http_server *s, int fd, const char *path, const answer *a) {
    static const char nothing[PIECE];
    uint64_t sent = 0;
    const uint64_t end = a->endless ? UINT64_MAX : a->n - (a->start < a->n ? a->start : a->n);
    bool ok = true;
    while (ok && sent < end && sent < a->cut && sent < a->slow) {
        uint64_t n = end - sent < PIECE ? end - sent : PIECE;
        if (n > a->cut - sent) n = a->cut - sent;
        if (n > a->slow - sent) n = a->slow - sent;
        const bool real = a->start + sent + n <= a->n;
        /* counted first: who has the last byte may ask at once */
        pthread_mutex_lock(&s->mutex);
        file_of(s, path, true)->sent += n;
        pthread_mutex_unlock(&s->mutex);
        ok =
            send_piece(fd, a, real ? a->bytes + a->start + sent : (const void *)nothing, (size_t)n);
        sent += n;
    }
    if (ok && sent == a->slow && sent < end) {
        wait_for_end(fd);
        return false;
    }
    if (!ok || a->close || (sent == a->cut && sent < end)) return false;
    return !a->chunked || send_all(fd, "0\r\n\r\n", 5);
}

static bool send_answer(http_server *s, int fd, const char *path, const answer *a) {
    static const char sorry[] = "<html>no</html>";
    char head[2048];
    const bool good = a->status == 200 || a->status == 206;
    static const char early[] = "HTTP/1.1 103 Early Hints\r\nContent-Encoding: br\r\n\r\n";
    if (a->early && !send_all(fd, early, sizeof(early) - 1)) return false;
    size_t n = (size_t)snprintf(head, sizeof(head), "HTTP/1.1 %d Test\r\n", a->status);
    if (!good) {
        n += (size_t)snprintf(head + n, sizeof(head) - n, "Content-Length: %zu\r\n",
                              sizeof(sorry) - 1);
    } else if (a->chunked) {
        n += (size_t)snprintf(head + n, sizeof(head) - n, "Transfer-Encoding: chunked\r\n");
    } else {
        const uint64_t end = a->n < a->claimed && a->status == 206 ? a->n : a->claimed;
        n += (size_t)snprintf(head + n, sizeof(head) - n, "Content-Length: %" PRIu64 "\r\n",
                              end - a->start);
    }
    if (a->location[0] != '\0') {
        n += (size_t)snprintf(head + n, sizeof(head) - n, "Location: %s\r\n", a->location);
    }
    if (good && a->etag[0] != '\0') {
        n += (size_t)snprintf(head + n, sizeof(head) - n, "eTaG: %s\r\n", a->etag);
    }
    if (a->encoded) n += (size_t)snprintf(head + n, sizeof(head) - n, "Content-Encoding: br\r\n");
    if (a->status == 206) {
        n += (size_t)snprintf(head + n, sizeof(head) - n,
                              "Content-Range: bytes %" PRIu64 "-%zu/%" PRIu64 "\r\n", a->start,
                              a->n - 1, a->claimed);
    }
    n += (size_t)snprintf(head + n, sizeof(head) - n, "\r\n");
    if (!send_all(fd, head, n)) return false;
    return good ? send_body(s, fd, path, a) : send_all(fd, sorry, sizeof(sorry) - 1);
}

/* ---- connections --------------------------------------------------------------------------- */

/* The next request's head, with a NUL behind it; false at the end. Clients of ours send no bodies
 * and wait for the answer, so nothing follows the head. */
static bool read_head(int fd, char *head) {
    size_t n = 0;
    while (n + 1 < REQUEST_MAX) {
        const ssize_t got = recv(fd, head + n, REQUEST_MAX - 1 - n, 0);
        if (got <= 0) return false;
        n += (size_t)got;
        head[n] = '\0';
        if (strstr(head, "\r\n\r\n") != NULL) return true;
    }
    return false;
}

static void *serve(void *user) {
    connection *c = user;
    http_server *s = c->server;
    static const char get[] = "GET ";
    char head[REQUEST_MAX], path[PATH_MAX_BYTES];
    bool more = true;
    while (more && read_head(c->fd, head)) {
        if (strncmp(head, get, sizeof(get) - 1) != 0) break;
        const char *at = head + sizeof(get) - 1;
        snprintf(path, sizeof(path), "%.*s", (int)strcspn(at, " ?"), at);
        answer a;
        pthread_mutex_lock(&s->mutex);
        compose(s, path, head, &a);
        pthread_mutex_unlock(&s->mutex);
        more = send_answer(s, c->fd, path, &a);
        free(a.bytes);
    }
    pthread_mutex_lock(&s->mutex);
    close(c->fd);
    c->fd = -1;
    pthread_mutex_unlock(&s->mutex);
    return NULL;
}

static void *listen_for(void *user) {
    http_server *s = user;
    for (;;) {
        const int on = 1, fd = accept(s->listener, NULL, NULL);
        if (fd < 0) return NULL;
        /* A head and its body are two writes: without this the body waits for an answer. */
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        pthread_mutex_lock(&s->mutex);
        if (s->stops) {
            close(fd);
        } else {
            need(s->n_connections < CONNECTIONS_MAX, "room for a connection");
            connection *c = &s->connections[s->n_connections++];
            *c = (connection){ .server = s, .fd = fd };
            need(pthread_create(&c->thread, NULL, serve, c) == 0, "a thread");
        }
        pthread_mutex_unlock(&s->mutex);
    }
}

http_server *http_server_start(void) {
    http_server *s = calloc(1, sizeof(*s));
    struct sockaddr_in address = { .sin_family = AF_INET };
    socklen_t size = sizeof(address);
    need(s != NULL, "memory");
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    need(s->listener >= 0 && bind(s->listener, (struct sockaddr *)&address, sizeof(address)) == 0 &&
             listen(s->listener, 64) == 0 &&
             getsockname(s->listener, (struct sockaddr *)&address, &size) == 0,
         "a socket on 127.0.0.1");
    snprintf(s->url, sizeof(s->url), "http://127.0.0.1:%u", (unsigned)ntohs(address.sin_port));
    pthread_mutex_init(&s->mutex, NULL);
    need(pthread_create(&s->thread, NULL, listen_for, s) == 0, "a thread");
    return s;
}

void http_server_stop(http_server *s) {
    pthread_mutex_lock(&s->mutex);
    s->stops = true;
    for (size_t i = 0; i < s->n_connections; i++) {
        if (s->connections[i].fd >= 0) shutdown(s->connections[i].fd, SHUT_RDWR);
    }
    pthread_mutex_unlock(&s->mutex);
    shutdown(s->listener, SHUT_RDWR);
    pthread_join(s->thread, NULL);
    close(s->listener);
    for (size_t i = 0; i < s->n_connections; i++)
        pthread_join(s->connections[i].thread, NULL);
    for (size_t i = 0; i < s->n_files; i++)
        free(s->files[i].bytes);
    pthread_mutex_destroy(&s->mutex);
    free(s);
}

const char *http_server_url(const http_server *s) {
    return s->url;
}
