/* http_server: a small HTTP/1.1 server on 127.0.0.1 for tests, whose faults are asked for.
 *
 * Files live in memory. Ranges, If-Range and connections that are kept work as RFC 9110 and 9112
 * have them, so that a test sees a client err and not the server. Everything may be called while it
 * serves. It ends the runner when the system gives it nothing to work with. */
#ifndef TESTS_HTTP_SERVER_H
#define TESTS_HTTP_SERVER_H

#include <stddef.h>
#include <stdint.h>

typedef struct http_server http_server;

typedef enum {
    FAULT_STATUS,      /* answers `value` with a short body */
    FAULT_CUT,         /* closes after `value` bytes of the body */
    FAULT_SLOW,        /* says nothing more after `value` bytes of the body */
    FAULT_FLIP,        /* byte `value` of the file is another */
    FAULT_NO_RANGES,   /* sends all, whatever range is asked for */
    FAULT_NO_IF_RANGE, /* sends the range, whatever the ETag */
    FAULT_NO_LENGTH,   /* sends it in chunks, without saying how long it is */
    FAULT_ENDLESS,     /* the same, and never stops */
    FAULT_SIZE,        /* says that the file has `value` bytes, and closes at its real end */
    FAULT_RANGE,       /* sends bytes from `value` on, whatever range is asked for */
    FAULT_REDIRECT,    /* 302 to `text` */
    FAULT_ENCODED,     /* claims that the body is compressed */
    FAULT_EARLY,       /* 103 with headers that the answer itself does not have, then the answer */
} fault_kind;

http_server *http_server_start(void);
void http_server_stop(http_server *s);
/* "http://127.0.0.1:PORT" */
const char *http_server_url(const http_server *s);

/* `path` is "/folder/file"; the bytes are copied. etag NULL: one of its content; "": none. */
void http_server_put(http_server *s, const char *path, const void *bytes, size_t n,
                     const char *etag);
void http_server_drop(http_server *s, const char *path);

/* The next `times` requests of the path meet the fault; those of one path that were asked for first
 * are met first, and different ones together. */
enum { FOR_EVER = 1 << 30 };
void http_server_fault(http_server *s, const char *path, fault_kind kind, uint32_t times,
                       uint64_t value, const char *text);
void http_server_no_faults(http_server *s);

/* Since the last http_server_forget. */
uint32_t http_server_requests(http_server *s, const char *path); /* NULL: all */
uint64_t http_server_sent(http_server *s, const char *path);     /* bytes of bodies */
/* The header lines of the latest request of the path, "" if there was none; until the next one. */
const char *http_server_last(http_server *s, const char *path);
void http_server_forget(http_server *s);

#endif
