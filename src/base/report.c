/* report: filling and prefixing of dp_error, and the log.
 *
 * A message is one line that is safe to print: it may quote names out of hostile files, so control
 * characters become spaces here, at the one place through which every message goes. A message that
 * does not fit ends in "..." and never in half a UTF-8 character. */
#include "base/base.h"

#include <stdio.h>

enum { LOG_BYTES = 1024 };

const char *dp_status_name(dp_status status) {
    static const char *const names[] = {
        [DP_OK] = "ok",
        [DP_E_ARGUMENT] = "argument",
        [DP_E_FILE] = "file",
        [DP_E_FORMAT] = "format",
        [DP_E_UNSUPPORTED] = "unsupported",
        [DP_E_LIMIT] = "limit",
        [DP_E_MEMORY] = "memory",
        [DP_E_DEVICE] = "device",
        [DP_E_CANCELLED] = "cancelled",
        [DP_E_NETWORK] = "network",
    };
    return (size_t)status < ARRAY_LEN(names) ? names[status] : "unknown";
}

/* `wanted` is what vsnprintf says the whole text would take. */
static void tidy_line(char *text, size_t size, int wanted) {
    if (wanted < 0) {
        snprintf(text, size, "message could not be formatted");
    } else if ((size_t)wanted >= size) {
        size_t end = size - 4;
        end -= utf8_incomplete_tail((str){ text, end });
        memcpy(text + end, "...", 4);
    }
    for (char *c = text; *c != '\0'; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = ' ';
    }
}

bool err_set(dp_error *err, dp_status status, const char *format, ...) {
    assert(status != DP_OK);
    if (err == NULL || err->status != DP_OK) return false;
    err->status = status;
    va_list args;
    va_start(args, format);
    const int wanted = vsnprintf(err->message, sizeof(err->message), format, args);
    va_end(args);
    tidy_line(err->message, sizeof(err->message), wanted);
    return false;
}

bool err_prefix(dp_error *err, const char *format, ...) {
    if (err == NULL || err->status == DP_OK) return false;
    char old[sizeof(err->message)];
    memcpy(old, err->message, sizeof(old));
    va_list args;
    va_start(args, format);
    const int prefix = vsnprintf(err->message, sizeof(err->message), format, args);
    va_end(args);
    int wanted = prefix;
    if (prefix >= 0 && (size_t)prefix < sizeof(err->message)) {
        const size_t left = sizeof(err->message) - (size_t)prefix;
        wanted += snprintf(err->message + prefix, left, "%s", old);
    }
    tidy_line(err->message, sizeof(err->message), wanted);
    return false;
}

void log_line(const log_sink *log, dp_log_level level, const char *format, ...) {
    if (log == NULL || log->write == NULL) return;
    char line[LOG_BYTES];
    va_list args;
    va_start(args, format);
    const int wanted = vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    tidy_line(line, sizeof(line), wanted);
    log->write(log->user, level, line);
}
