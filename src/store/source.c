/* source: where a model is fetched from, a folder on a server or on this machine.
 *
 * A URL is cut into base, name and query once; names of files are put behind the base with every
 * byte escaped that is not unreserved (RFC 3986, 2.3), so no name can change the path. A local
 * folder answers as a server would: by ranges, with a validator made of what the file system says
 * of the file. */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64

#include "store/store.h"

#include <inttypes.h>
#include <stdio.h>
#include <strings.h>
#include <sys/stat.h>

enum { COPY_BYTES = 1024 * 1024 };

/* ---- parsing ------------------------------------------------------------------------------- */

static int escaped_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* "%20" and the like to bytes, into out[size]; false if it does not fit or a byte would be 0. */
static bool unescape(str text, char *out, size_t size) {
    size_t n = 0;
    for (size_t i = 0; i < text.size; i++) {
        char c = text.data[i];
        if (c == '%' && i + 2 < text.size && escaped_digit(text.data[i + 1]) >= 0 &&
            escaped_digit(text.data[i + 2]) >= 0) {
            c = (char)(escaped_digit(text.data[i + 1]) * 16 + escaped_digit(text.data[i + 2]));
            i += 2;
        }
        if (c == '\0' || n + 1 >= size) return false;
        out[n++] = c;
    }
    out[n] = '\0';
    return true;
}

/* What the model is called if nobody says: a file without ".gguf" and its number, else the folder;
 * of ".../NAME/resolve/REVISION", which is how the Hugging Face hub serves files, NAME. */
static void suggest_name(source *s, str path) {
    char name[STORE_PATH_MAX] = "";
    if (s->file[0] != '\0') {
        snprintf(name, sizeof(name), "%s", s->file);
        size_t n = strlen(name) - strlen(".gguf");
        uint32_t index, n_parts;
        (void)name_is_split(name, &index, &n_parts, &n);
        name[n] = '\0';
    } else {
        static const char marker[] = "/resolve/";
        const char *hub = memmem(path.data, path.size, marker, sizeof(marker) - 1);
        if (hub != NULL) path.size = (size_t)(hub - path.data);
        while (path.size > 0 && path.data[path.size - 1] == '/')
            path.size--;
        const char *slash = path.size > 0 ? memrchr(path.data, '/', path.size) : NULL;
        if (slash != NULL) {
            path = (str){ slash + 1, (size_t)(path.data + path.size - slash - 1) };
        }
        if (!unescape(path, name, sizeof(name))) name[0] = '\0';
    }
    if (model_name_check(name, NULL)) memcpy(s->name, name, strlen(name) + 1);
}

/* Splits off the last part of base if it is a file's name that says what is meant. */
static bool take_file(source *s, dp_error *err) {
    char *slash = strrchr(s->base, '/');
    char name[URL_MAX_BYTES];
    if (slash == NULL) return true;
    const str last = str_of(slash + 1);
    if (s->remote && !unescape(last, name, sizeof(name))) name[0] = '\0';
    if (!s->remote) snprintf(name, sizeof(name), "%s", slash + 1);
    if (name_ends(name, ".gguf")) {
        if (!name_is_plain(str_of(name))) {
            return err_set(err, DP_E_ARGUMENT, "\"%.200s\" is no plain name of a file", name);
        }
        snprintf(s->file, sizeof(s->file), "%.*s", FILE_NAME_MAX, name);
    } else if (strcmp(name, "manifest.json") != 0) {
        return true;
    }
    slash[1] = '\0';
    return true;
}

static bool end_with_slash(source *s, dp_error *err) {
    const size_t n = strlen(s->base);
    if (n > 0 && s->base[n - 1] == '/') return true;
    if (n + 1 >= sizeof(s->base)) {
        return err_set(err, DP_E_ARGUMENT, "a source of %zu bytes is too long", n);
    }
    memcpy(s->base + n, "/", 2);
    return true;
}

static bool parse_url(source *s, const char *text, dp_error *err) {
    const char *host = strstr(text, "://") + 3;
    for (const char *at = text; *at != '\0'; at++) {
        if ((unsigned char)*at <= ' ' || *at == 0x7f || *at == '#' || *at == '\\') {
            return err_set(err, DP_E_ARGUMENT,
                           "the source is no URL: byte %zu is a blank, a control character, '#' or "
                           "'\\'; write it as %%%02X",
                           (size_t)(at - text), (unsigned)(unsigned char)*at);
        }
    }
    const size_t n = strcspn(text, "?"), n_host = strcspn(host, "/?");
    if (n_host == 0) return err_set(err, DP_E_ARGUMENT, "the source is a URL without a host");
    s->remote = true;
    snprintf(s->base, sizeof(s->base), "%.*s", (int)n, text);
    snprintf(s->query, sizeof(s->query), "%s", text + n);
    if (host[n_host] != '/' && !end_with_slash(s, err)) return false;
    if (!take_file(s, err) || !end_with_slash(s, err)) return false;
    http_show_url(s->base, s->shown, sizeof(s->shown));
    const char *path = strchr(strstr(s->base, "://") + 3, '/');
    suggest_name(s, str_of(path));
    return true;
}

static bool parse_path(source *s, const char *path, dp_error *err) {
    const int n = snprintf(s->base, sizeof(s->base), "%s", path);
    if (n < 0 || (size_t)n + 1 >= sizeof(s->base)) {
        return err_set(err, DP_E_ARGUMENT, "a source of %zu bytes is too long", strlen(path));
    }
    if (path_is_file(path)) {
        if (strchr(path, '/') == NULL) snprintf(s->base, sizeof(s->base), "./%s", path);
        if (!take_file(s, err)) return false;
        if (s->base[strlen(s->base) - 1] != '/') {
            return err_set(err, DP_E_ARGUMENT,
                           "%.300s: a source is a folder, a .gguf file or a manifest.json", path);
        }
    } else if (!path_is_folder(path)) {
        return err_set(err, DP_E_FILE, "%.300s: no such file or folder, and no URL", path);
    }
    if (!end_with_slash(s, err)) return false;
    snprintf(s->shown, sizeof(s->shown), "%s", s->base);
    suggest_name(s, str_of(s->base));
    return true;
}

static bool parse_file_url(source *s, const char *text, dp_error *err) {
    const char *host = text + strlen("file://"), *path = strchr(host, '/');
    char name[STORE_PATH_MAX];
    if (path == NULL || (path != host && strncasecmp(host, "localhost/", 10) != 0)) {
        return err_set(err, DP_E_ARGUMENT, "%.300s: a file URL has no host: write file:///PATH",
                       text);
    }
    if (!unescape(str_of(path), name, sizeof(name))) {
        return err_set(err, DP_E_ARGUMENT, "%.300s: is no path", text);
    }
    return parse_path(s, name, err);
}

bool source_parse(source *s, const char *text, dp_error *err) {
    memset(s, 0, sizeof(*s));
    if (text == NULL || text[0] == '\0') {
        return err_set(err, DP_E_ARGUMENT, "the source is empty");
    }
    if (strlen(text) >= URL_MAX_BYTES - 8) {
        return err_set(err, DP_E_ARGUMENT, "a source of %zu bytes, the limit is %d", strlen(text),
                       URL_MAX_BYTES - 9);
    }
    if (strncasecmp(text, "http://", 7) == 0 || strncasecmp(text, "https://", 8) == 0) {
        return parse_url(s, text, err);
    }
    if (strncasecmp(text, "file://", 7) == 0) return parse_file_url(s, text, err);
    const char *scheme = strstr(text, "://");
    if (scheme != NULL && strcspn(text, "/") > (size_t)(scheme - text)) {
        return err_set(err, DP_E_ARGUMENT,
                       "%.300s: a source is an http, https or file URL or a path", text);
    }
    return parse_path(s, text, err);
}

/* ---- getting ------------------------------------------------------------------------------- */

static fetch_outcome get_remote(const source *s, http *h, const char *name,
                                const fetch_range *range, const fetch_sink *sink, double *pause,
                                dp_error *err) {
    static const char unreserved[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
    char url[URL_MAX_BYTES];
    size_t n = strlen(s->base);
    memcpy(url, s->base, n);
    const size_t n_query = strlen(s->query);
    for (const char *at = name; *at != '\0' && n < sizeof(url); at++) {
        if (strchr(unreserved, *at) != NULL) {
            url[n++] = *at;
        } else {
            n += (size_t)snprintf(url + n, sizeof(url) - n, "%%%02X", (unsigned char)*at);
        }
    }
    if (n + n_query >= sizeof(url)) {
        err_set(err, DP_E_ARGUMENT, "%.100s%.100s: the URL has more than %zu bytes", s->shown, name,
                sizeof(url) - 1);
        return FETCH_FAILED;
    }
    memcpy(url + n, s->query, n_query + 1);
    return http_get(h, url, range, sink, pause, err);
}

static bool send_file(file *f, const fetch_range *range, const fetch_sink *sink, patience wait,
                      unsigned char *room, bool *stopped, dp_error *err) {
    const uint64_t end = range->probe ? min_u64(1, file_size(f)) : file_size(f);
    for (uint64_t at = range->start; at < end;) {
        const size_t n = (size_t)min_u64(end - at, COPY_BYTES);
        if (!wait.go_on(wait.user)) return err_set(err, DP_E_CANCELLED, "cancelled");
        if (!file_read(f, at, room, n, err)) return false;
        if (!sink->body(sink->user, room, n, err)) {
            *stopped = err->status == DP_OK;
            return false;
        }
        at += n;
    }
    return true;
}

static fetch_outcome get_local(const source *s, patience wait, const char *name,
                               const fetch_range *range, const fetch_sink *sink, dp_error *err) {
    char path[STORE_PATH_MAX];
    struct stat status;
    if (!path_join(path, sizeof(path), s->base, name, err)) return FETCH_FAILED;
    if (!path_is_file(path)) {
        err_set(err, DP_E_FILE, "%.300s: no such file", path);
        return FETCH_ABSENT;
    }
    dp_error own = { 0 };
    bool stopped = false, ok = false;
    fetch_head head = { 0 };
    unsigned char *room = NULL;
    file *f = file_open(path, &own);
    if (f != NULL) room = mem_new(1, COPY_BYTES, "copying a file", &own);
    if (room != NULL && stat(path, &status) == 0) {
        head.total = file_size(f);
        snprintf(head.etag, sizeof(head.etag), "\"%" PRIx64 "-%" PRIx64 "-%" PRIx64 "-%lx\"",
                 (uint64_t)status.st_dev, (uint64_t)status.st_ino, (uint64_t)status.st_mtim.tv_sec,
                 (unsigned long)status.st_mtim.tv_nsec);
        fetch_range part = *range;
        if (part.validator != NULL && strcmp(part.validator, head.etag) != 0) part.start = 0;
        head.start = part.start;
        if (part.start > head.total) {
            err_set(&own, DP_E_FILE, "%.300s: has no bytes from %" PRIu64, path, part.start);
            stopped = false;
        } else if (!sink->head(sink->user, &head, &own)) {
            stopped = own.status == DP_OK;
        } else {
            ok = send_file(f, &part, sink, wait, room, &stopped, &own);
        }
    }
    const bool is_short = f != NULL && head.start > head.total;
    file_close(f);
    mem_free(room);
    if (ok) return FETCH_DONE;
    if (stopped) return FETCH_STOPPED;
    if (own.status == DP_OK) err_set(&own, DP_E_FILE, "%.300s: cannot be read", path);
    err_set(err, own.status, "%s", own.message);
    return is_short ? FETCH_BAD_RANGE : FETCH_FAILED;
}

fetch_outcome source_get(const source *s, http *h, patience wait, const char *name,
                         const fetch_range *range, const fetch_sink *sink, double *pause,
                         dp_error *err) {
    if (s->remote) return get_remote(s, h, name, range, sink, pause, err);
    return get_local(s, wait, name, range, sink, err);
}
