/* http: one GET at a time through libcurl, which is opened when it is first needed.
 *
 * What is curl's: connections, TLS, proxies, HTTP/1.1 and 2. What is ours: redirects, because curl
 * can be told which schemes to follow but not "never back from https"; the stall limit, because its
 * own counts whole seconds of average speed; and the meaning of statuses. A body goes to the sink
 * only under 200 and 206: of other answers at most DRAIN_BYTES are read, so that the connection can
 * be used again. Certificates are verified always; there is no way to turn it off. */
#define _GNU_SOURCE

#include "store/store.h"

#include <curl/curl.h>
#include <dlfcn.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

enum {
    DRAIN_BYTES = 64 * 1024,
    STALL_BYTES = 1024,     /* fewer in stall_seconds is a stall */
    RETRY_AFTER_MAX = 60,   /* seconds that a server may make us wait */
    CURL_OLDEST = 0x075500, /* 7.85.0: CURLOPT_PROTOCOLS_STR */
};

/* ---- the library --------------------------------------------------------------------------- */

typedef struct {
    CURLcode (*global_init)(long flags);
    curl_version_info_data *(*version_info)(CURLversion age);
    CURL *(*easy_init)(void);
    CURLcode (*easy_setopt)(CURL *curl, CURLoption option, ...);
    CURLcode (*easy_perform)(CURL *curl);
    CURLcode (*easy_getinfo)(CURL *curl, CURLINFO info, ...);
    const char *(*easy_strerror)(CURLcode code);
    void (*easy_cleanup)(CURL *curl);
    struct curl_slist *(*slist_append)(struct curl_slist *list, const char *text);
    void (*slist_free_all)(struct curl_slist *list);
} curl_api;

static const struct {
    const char *name;
    size_t place; /* of the pointer in curl_api */
} curl_entries[] = {
    { "curl_global_init", offsetof(curl_api, global_init) },
    { "curl_version_info", offsetof(curl_api, version_info) },
    { "curl_easy_init", offsetof(curl_api, easy_init) },
    { "curl_easy_setopt", offsetof(curl_api, easy_setopt) },
    { "curl_easy_perform", offsetof(curl_api, easy_perform) },
    { "curl_easy_getinfo", offsetof(curl_api, easy_getinfo) },
    { "curl_easy_strerror", offsetof(curl_api, easy_strerror) },
    { "curl_easy_cleanup", offsetof(curl_api, easy_cleanup) },
    { "curl_slist_append", offsetof(curl_api, slist_append) },
    { "curl_slist_free_all", offsetof(curl_api, slist_free_all) },
};

#ifdef __APPLE__
static const char *const curl_names[] = { "libcurl.4.dylib", "/usr/lib/libcurl.4.dylib" };
#else
static const char *const curl_names[] = { "libcurl.so.4", "libcurl-gnutls.so.4" };
#endif

static bool load_curl(curl_api *api, dp_error *err) {
    void *handle = NULL;
    for (size_t i = 0; i < ARRAY_LEN(curl_names) && handle == NULL; i++) {
        handle = dlopen(curl_names[i], RTLD_NOW | RTLD_LOCAL);
    }
    if (handle == NULL) {
        return err_set(err, DP_E_NETWORK,
                       "%s is not on this machine (Debian: the package libcurl4); models can be "
                       "fetched from folders and files without it",
                       curl_names[0]);
    }
    for (size_t i = 0; i < ARRAY_LEN(curl_entries); i++) {
        void *symbol = dlsym(handle, curl_entries[i].name);
        if (symbol == NULL) {
            err_set(err, DP_E_NETWORK, "%s has no function %s", curl_names[0],
                    curl_entries[i].name);
            dlclose(handle);
            return false;
        }
        memcpy((char *)api + curl_entries[i].place, &symbol, sizeof(symbol));
    }
    const curl_version_info_data *version = api->version_info(CURLVERSION_NOW);
    if (version->version_num < CURL_OLDEST) {
        err_set(err, DP_E_NETWORK, "libcurl %s is too old, 7.85.0 is needed", version->version);
        dlclose(handle);
        return false;
    }
    /* Once begun, curl and its TLS library stay to the end of the process: their own threads and
     * exit handlers may be in them. */
    const CURLcode code = api->global_init(CURL_GLOBAL_ALL);
    return code == CURLE_OK ||
           err_set(err, DP_E_NETWORK, "libcurl cannot be started: %s", api->easy_strerror(code));
}

/* The library is the process's, like curl's own state. */
static const curl_api *find_curl(dp_error *err) {
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    static curl_api api;
    static bool is_loaded;
    pthread_mutex_lock(&mutex);
    if (!is_loaded) is_loaded = load_curl(&api, err);
    const bool ok = is_loaded;
    pthread_mutex_unlock(&mutex);
    return ok ? &api : NULL;
}

/* ---- a connection -------------------------------------------------------------------------- */

/* What the headers of the latest answer say. */
typedef struct {
    int status; /* 0: none came */
    fetch_head head;
    bool has_range, is_encoded;
    double retry_after; /* seconds; negative: not said */
} http_answer;

struct http {
    const curl_api *api;
    CURL *curl;
    http_limits limits;
    patience wait;
    char reason[CURL_ERROR_SIZE];

    /* of the GET at work */
    const char *shown;
    const fetch_range *range;
    const fetch_sink *sink;
    dp_error *err;
    http_answer answer;
    uint64_t drained;
    bool has_begun, is_stopped, is_failed, is_cancelled, is_stalled;
    double window_start; /* of the stall limit */
    uint64_t window_bytes;
};

static void set_long(http *h, CURLoption option, long value) {
    (void)h->api->easy_setopt(h->curl, option, value);
}

static void set_pointer(http *h, CURLoption option, const void *value) {
    (void)h->api->easy_setopt(h->curl, option, value);
}

/* Options that safety rests on: a library that refuses one is not used. */
static bool set_vital(http *h, dp_error *err) {
    const struct {
        CURLoption option;
        const char *text;
        long number;
    } options[] = {
        { CURLOPT_PROTOCOLS_STR, "http,https", 0 },
        { CURLOPT_FOLLOWLOCATION, NULL, 0 },
        { CURLOPT_SSL_VERIFYPEER, NULL, 1 },
        { CURLOPT_SSL_VERIFYHOST, NULL, 2 },
        { CURLOPT_NOSIGNAL, NULL, 1 },
    };
    for (size_t i = 0; i < ARRAY_LEN(options); i++) {
        const CURLcode code =
            options[i].text != NULL
                ? h->api->easy_setopt(h->curl, options[i].option, options[i].text)
                : h->api->easy_setopt(h->curl, options[i].option, options[i].number);
        if (code != CURLE_OK) {
            return err_set(err, DP_E_NETWORK, "libcurl refuses an option that is needed: %s",
                           h->api->easy_strerror(code));
        }
    }
    return true;
}

static size_t take_header(char *bytes, size_t size, size_t n, void *user);
static size_t take_body(char *bytes, size_t size, size_t n, void *user);
static int take_progress(void *user, curl_off_t total, curl_off_t now, curl_off_t up_total,
                         curl_off_t up_now);

http *http_open(const http_limits *limits, patience wait, dp_error *err) {
    const curl_api *api = find_curl(err);
    http *h = api == NULL ? NULL : mem_new(1, sizeof(http), "a connection", err);
    if (h == NULL) return NULL;
    h->api = api;
    h->limits = *limits;
    h->wait = wait;
    h->curl = api->easy_init();
    if (h->curl == NULL) err_set(err, DP_E_MEMORY, "out of memory: a connection of libcurl");
    if (h->curl == NULL || !set_vital(h, err)) {
        http_close(h);
        return NULL;
    }
    set_pointer(h, CURLOPT_ERRORBUFFER, h->reason);
    set_pointer(h, CURLOPT_USERAGENT, "doppler/" DP_VERSION);
    set_long(h, CURLOPT_CONNECTTIMEOUT, (long)limits->connect_seconds);
    set_long(h, CURLOPT_TCP_KEEPALIVE, 1);
    set_long(h, CURLOPT_BUFFERSIZE, 256 * 1024);
    set_long(h, CURLOPT_NOPROGRESS, 0);
    set_pointer(h, CURLOPT_XFERINFODATA, h);
    set_pointer(h, CURLOPT_HEADERDATA, h);
    set_pointer(h, CURLOPT_WRITEDATA, h);
    (void)api->easy_setopt(h->curl, CURLOPT_XFERINFOFUNCTION, take_progress);
    (void)api->easy_setopt(h->curl, CURLOPT_HEADERFUNCTION, take_header);
    (void)api->easy_setopt(h->curl, CURLOPT_WRITEFUNCTION, take_body);
    if (str_of(limits->ca_file).size > 0) set_pointer(h, CURLOPT_CAINFO, limits->ca_file);
    if (str_of(limits->ca_folder).size > 0) set_pointer(h, CURLOPT_CAPATH, limits->ca_folder);
    return h;
}

void http_close(http *h) {
    if (h == NULL) return;
    if (h->curl != NULL) h->api->easy_cleanup(h->curl);
    mem_free(h);
}

void http_show_url(const char *url, char *out, size_t size) {
    const char *host = strstr(url, "://");
    host = host == NULL ? url : host + 3;
    const char *path = host + strcspn(host, "/?#");
    for (const char *at = host; at < path; at++) {
        if (*at == '@') host = at + 1;
    }
    const char *scheme_end = strstr(url, "://");
    const int scheme = scheme_end == NULL ? 0 : (int)(scheme_end + 3 - url);
    snprintf(out, size, "%.*s%.*s", scheme, url, (int)strcspn(host, "?#"), host);
}

/* ---- answers ------------------------------------------------------------------------------- */

/* "Name: value" of the name given (any case) to its value; false for another. */
static bool header_value(str line, const char *name, str *value) {
    const size_t n = strlen(name);
    if (line.size <= n || line.data[n] != ':' || strncasecmp(line.data, name, n) != 0) return false;
    *value = (str){ line.data + n + 1, line.size - n - 1 };
    while (value->size > 0 && strchr(" \t", value->data[0]) != NULL) {
        value->data++, value->size--;
    }
    while (value->size > 0 && strchr(" \t\r\n", value->data[value->size - 1]) != NULL) {
        value->size--;
    }
    return true;
}

/* "HTTP/1.1 206 Partial Content", "HTTP/2 200": three digits behind the first space. */
static bool status_line(str line, int *status) {
    if (!str_starts(line, "HTTP/")) return false;
    const char *space = memchr(line.data, ' ', line.size);
    *status = 0;
    if (space == NULL || line.data + line.size - space < 4) return true;
    for (int i = 1; i <= 3; i++) {
        if (space[i] < '0' || space[i] > '9') return true;
        *status = 10 * *status + (space[i] - '0');
    }
    return true;
}

/* "bytes 100-999/1000", also with "*" for the total. False if it is anything else. */
static bool content_range(str value, uint64_t *start, uint64_t *total) {
    if (!str_starts(value, "bytes ")) return false;
    const str rest = { value.data + 6, value.size - 6 };
    const char *dash = memchr(rest.data, '-', rest.size);
    const char *slash = memchr(rest.data, '/', rest.size);
    if (dash == NULL || slash == NULL || slash < dash) return false;
    const str from = { rest.data, (size_t)(dash - rest.data) };
    const str all = { slash + 1, (size_t)(rest.data + rest.size - slash - 1) };
    *total = SIZE_UNKNOWN;
    return str_to_u64(from, start) && (str_is(all, "*") || str_to_u64(all, total));
}

static void note_header(http_answer *a, str line) {
    str value;
    int status;
    uint64_t number;
    if (status_line(line, &status)) { /* also after "100 Continue": only the last answer counts */
        *a = (http_answer){ .status = status, .retry_after = -1 };
        a->head.total = SIZE_UNKNOWN;
    } else if (header_value(line, "ETag", &value)) {
        /* A weak one ("W/...") is no validator of bytes: RFC 9110, 13.1.5. */
        const bool is_strong = value.size >= 2 && value.data[0] == '"' &&
                               value.size <= ETAG_BYTES_MAX &&
                               memchr(value.data, '\0', value.size) == NULL;
        if (is_strong) memcpy(a->head.etag, value.data, value.size);
        a->head.etag[is_strong ? value.size : 0] = '\0';
    } else if (header_value(line, "Content-Range", &value)) {
        a->has_range = content_range(value, &a->head.start, &a->head.total);
    } else if (header_value(line, "Content-Length", &value)) {
        if (!a->has_range && str_to_u64(value, &number)) a->head.total = number;
    } else if (header_value(line, "Content-Encoding", &value)) {
        a->is_encoded = value.size > 0 && !str_is(value, "identity");
    } else if (header_value(line, "Retry-After", &value)) {
        /* A date is as good as nothing: the pause grows by itself. */
        if (str_to_u64(value, &number)) {
            a->retry_after = (double)min_u64(number, RETRY_AFTER_MAX);
        }
    }
}

static size_t take_header(char *bytes, size_t size, size_t n, void *user) {
    http *h = user;
    note_header(&h->answer, (str){ bytes, size * n });
    return size * n;
}

static bool http_fault(http *h, const char *what) {
    h->is_failed = true;
    return err_set(h->err, DP_E_NETWORK, "%.200s: %s", h->shown, what);
}

/* Tells the sink of an answer that is one. */
static bool begin_body(http *h) {
    http_answer *a = &h->answer;
    const bool wants_part = h->range->start > 0 || h->range->probe;
    h->has_begun = true;
    if (a->is_encoded) return http_fault(h, "comes compressed, which nobody asked for");
    if (a->status == 206 && (!wants_part || !a->has_range)) {
        return http_fault(h, "status 206 without the range that was asked for");
    }
    if (a->status == 200) {
        a->head.start = 0;
    } else if (a->head.start != h->range->start) {
        return http_fault(h, "sends another range than was asked for");
    }
    if (h->sink->head(h->sink->user, &a->head, h->err)) return true;
    h->is_stopped = true;
    return false;
}

/* Less than n ends the transfer. */
static size_t take_body(char *bytes, size_t size, size_t n, void *user) {
    http *h = user;
    const size_t got = size * n;
    h->window_bytes += got;
    if (h->answer.status != 200 && h->answer.status != 206) {
        h->drained += got;
        return h->drained <= DRAIN_BYTES ? got : 0;
    }
    if (!h->has_begun && !begin_body(h)) return 0;
    if (got == 0 || h->sink->body(h->sink->user, bytes, got, h->err)) return got;
    h->is_stopped = true;
    return 0;
}

static int take_progress(void *user, curl_off_t total, curl_off_t now, curl_off_t up_total,
                         curl_off_t up_now) {
    http *h = user;
    (void)total, (void)now, (void)up_total, (void)up_now;
    if (!h->wait.go_on(h->wait.user)) {
        h->is_cancelled = true;
        return 1;
    }
    const double at = clock_seconds();
    /* Connecting has its own limit. */
    const uint32_t limit =
        h->limits.stall_seconds + (h->answer.status == 0 ? h->limits.connect_seconds : 0);
    if (at - h->window_start < (double)limit) return 0;
    h->is_stalled = h->window_bytes < STALL_BYTES;
    h->window_start = at;
    h->window_bytes = 0;
    return h->is_stalled;
}

/* ---- one GET ------------------------------------------------------------------------------- */

static bool may_pass(CURLcode code) {
    switch (code) {
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_PARTIAL_FILE:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
        return true;
    default:
        return false;
    }
}

/* One request without redirection; CURLE_OK if the server answered in full. */
static CURLcode ask_server(http *h, const char *url) {
    char range[64];
    struct curl_slist *headers = NULL;
    if (h->range->probe) {
        snprintf(range, sizeof(range), "0-0");
    } else {
        snprintf(range, sizeof(range), "%" PRIu64 "-", h->range->start);
    }
    const bool wants_part = h->range->start > 0 || h->range->probe;
    set_pointer(h, CURLOPT_RANGE, wants_part ? range : NULL);
    if (h->range->start > 0 && h->range->validator != NULL) {
        char line[ETAG_BYTES_MAX + 32];
        snprintf(line, sizeof(line), "If-Range: %s", h->range->validator);
        headers = h->api->slist_append(NULL, line);
        if (headers == NULL) return CURLE_OUT_OF_MEMORY;
    }
    set_pointer(h, CURLOPT_HTTPHEADER, headers);
    CURLcode code = h->api->easy_setopt(h->curl, CURLOPT_URL, url);
    h->answer = (http_answer){ .retry_after = -1 };
    h->drained = 0;
    h->reason[0] = '\0';
    h->window_start = clock_seconds();
    h->window_bytes = 0;
    if (code == CURLE_OK) code = h->api->easy_perform(h->curl);
    set_pointer(h, CURLOPT_HTTPHEADER, NULL);
    h->api->slist_free_all(headers);
    const bool is_drained = code == CURLE_WRITE_ERROR && h->drained > DRAIN_BYTES;
    return is_drained ? CURLE_OK : code;
}

/* Of a request that did not end as an answer. */
static fetch_outcome not_answered(http *h, CURLcode code) {
    if (h->is_cancelled) {
        err_set(h->err, DP_E_CANCELLED, "cancelled");
        return FETCH_FAILED;
    }
    if (h->is_stalled) {
        err_set(h->err, DP_E_NETWORK, "%.200s: less than %d bytes in %u seconds", h->shown,
                STALL_BYTES, h->limits.stall_seconds);
        return FETCH_AGAIN;
    }
    if (code == CURLE_OUT_OF_MEMORY) {
        err_set(h->err, DP_E_MEMORY, "out of memory: libcurl");
        return FETCH_FAILED;
    }
    err_set(h->err, DP_E_NETWORK, "%.200s: %s", h->shown,
            h->reason[0] != '\0' ? h->reason : h->api->easy_strerror(code));
    return may_pass(code) ? FETCH_AGAIN : FETCH_FAILED;
}

static fetch_outcome refused(http *h, double *pause) {
    const int status = h->answer.status;
    switch (status) {
    case 403: /* some stores say so of what is not there */
    case 404:
    case 410:
        err_set(h->err, DP_E_NETWORK, "%.200s: the server says %d, %s", h->shown, status,
                status == 403 ? "forbidden" : "not found");
        return FETCH_ABSENT;
    case 401:
    case 407:
        err_set(h->err, DP_E_NETWORK, "%.200s: the server says %d, it wants a name and a password",
                h->shown, status);
        return FETCH_FAILED;
    case 416:
        err_set(h->err, DP_E_NETWORK, "%.200s: the server has no bytes from %" PRIu64, h->shown,
                h->range->start);
        return FETCH_BAD_RANGE;
    default:
        err_set(h->err, DP_E_NETWORK, "%.200s: the server says %d", h->shown, status);
        if (h->answer.retry_after >= 0) *pause = h->answer.retry_after;
        return status == 408 || status == 425 || status == 429 ||
                       (status >= 500 && status != 501 && status != 505)
                   ? FETCH_AGAIN
                   : FETCH_FAILED;
    }
}

static bool is_redirect(int status) {
    return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

/* Where a redirect leads, into url[URL_MAX_BYTES], which holds where it came from. */
static bool next_place(http *h, char *url) {
    char *place = NULL;
    (void)h->api->easy_getinfo(h->curl, CURLINFO_REDIRECT_URL, &place);
    if (place == NULL) return http_fault(h, "redirects without saying where to");
    const bool was_secure = strncasecmp(url, "https://", 8) == 0;
    const bool secure = strncasecmp(place, "https://", 8) == 0;
    char shown[160];
    http_show_url(place, shown, sizeof(shown));
    if (!secure && strncasecmp(place, "http://", 7) != 0) {
        err_set(h->err, DP_E_NETWORK, "%.200s: redirects to %s, which is neither http nor https",
                h->shown, shown);
        return false;
    }
    if (was_secure && !secure) {
        err_set(h->err, DP_E_NETWORK, "%.200s: redirects from https to %s", h->shown, shown);
        return false;
    }
    const size_t n = strlen(place);
    if (n >= URL_MAX_BYTES) return http_fault(h, "redirects to a URL that is too long");
    memcpy(url, place, n + 1);
    return true;
}

fetch_outcome http_get(http *h, const char *url, const fetch_range *range, const fetch_sink *sink,
                       double *pause, dp_error *err) {
    char at[URL_MAX_BYTES], shown[512];
    dp_error own = { 0 }; /* what failed here, whatever *err holds */
    if (strlen(url) >= sizeof(at)) {
        err_set(err, DP_E_ARGUMENT, "a URL of %zu bytes, the limit is %zu", strlen(url),
                sizeof(at) - 1);
        return FETCH_FAILED;
    }
    memcpy(at, url, strlen(url) + 1);
    http_show_url(url, shown, sizeof(shown));
    h->shown = shown, h->range = range, h->sink = sink, h->err = &own;
    h->has_begun = h->is_stopped = h->is_failed = h->is_cancelled = h->is_stalled = false;
    fetch_outcome outcome = FETCH_FAILED;
    for (int n = 0;; n++) {
        const CURLcode code = ask_server(h, at);
        const int status = h->answer.status;
        if (code != CURLE_OK) {
            outcome = h->is_stopped && own.status == DP_OK ? FETCH_STOPPED
                      : h->is_stopped || h->is_failed      ? FETCH_FAILED
                                                           : not_answered(h, code);
        } else if (is_redirect(status) && n < REDIRECTS_MAX) {
            if (next_place(h, at)) continue;
        } else if (is_redirect(status)) {
            err_set(&own, DP_E_NETWORK, "%.200s: more than %d redirects", shown, REDIRECTS_MAX);
        } else if (status != 200 && status != 206) {
            outcome = refused(h, pause);
        } else if (h->has_begun || begin_body(h)) { /* an empty body begins here */
            outcome = FETCH_DONE;
        } else {
            outcome = h->is_stopped && own.status == DP_OK ? FETCH_STOPPED : FETCH_FAILED;
        }
        break;
    }
    if (own.status != DP_OK) err_set(err, own.status, "%s", own.message);
    return outcome;
}
