/* out: what leaves the program, and how it is interrupted.
 *
 * stdout carries results alone and every write to it is checked: a full disk or a closed pipe is a
 * failure with its own exit code, never a short result that looks whole. A reader that has gone
 * (`doppler run | head -1`) needs no sentence. */
#include "app/app.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---- failures and results ------------------------------------------------------------------ */

int fail(const dp_error *err) {
    static const int codes[] = {
        [DP_OK] = EXIT_FAILED,
        [DP_E_ARGUMENT] = EXIT_USAGE,
        [DP_E_FILE] = EXIT_IO,
        [DP_E_FORMAT] = EXIT_INPUT,
        [DP_E_UNSUPPORTED] = EXIT_INPUT,
        [DP_E_LIMIT] = EXIT_FAILED,
        [DP_E_MEMORY] = EXIT_MEMORY,
        [DP_E_DEVICE] = EXIT_GPU,
        [DP_E_CANCELLED] = EXIT_INTERRUPTED,
        [DP_E_NETWORK] = EXIT_NETWORK,
    };
    progress_line("%s", "");
    if (err->status == DP_E_CANCELLED) {
        fprintf(stderr, "doppler: interrupted\n");
    } else if (err->message[0] != '\0') {
        fprintf(stderr, "doppler: %s\n", err->message);
    }
    return (size_t)err->status < ARRAY_LEN(codes) ? codes[err->status] : EXIT_FAILED;
}

bool out_write(const char *bytes, size_t n, dp_error *err) {
    errno = 0;
    if ((n == 0 || fwrite(bytes, 1, n, stdout) == n) && fflush(stdout) == 0) return true;
    const int number = errno;
    clearerr(stdout);
    if (number == EPIPE && err != NULL && err->status == DP_OK) {
        err->status = DP_E_FILE; /* and no message */
        return false;
    }
    return err_set(err, DP_E_FILE, "standard output: cannot be written: %s", strerror(number));
}

bool out_part(buf *b, dp_error *err) {
    const bool ok = buf_ok(b, "the result", err) && out_write(b->data, b->size, err);
    buf_reset(b);
    return ok;
}

int out_result(buf *b) {
    dp_error err = { 0 };
    const bool ok = out_part(b, &err);
    buf_free(b);
    return ok ? EXIT_OK : fail(&err);
}

/* ---- JSON ---------------------------------------------------------------------------------- */

void json_ids(buf *b, const char *key, const dp_token *ids, size_t n) {
    if (key != NULL) json_key(b, key);
    buf_printf(b, "[");
    for (size_t i = 0; i < n; i++)
        buf_printf(b, i > 0 ? ",%" PRIu32 : "%" PRIu32, ids[i]);
    buf_printf(b, "]");
}

/* ---- small things -------------------------------------------------------------------------- */

double now_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

size_text show_bytes(uint64_t bytes) {
    static const char *const units[] = { "KiB", "MiB", "GiB", "TiB" };
    size_text out;
    if (bytes < 1024) {
        snprintf(out.text, sizeof(out.text), "%" PRIu64 " bytes", bytes);
        return out;
    }
    double value = (double)bytes / 1024;
    size_t unit = 0;
    for (; value >= 1024 && unit + 1 < ARRAY_LEN(units); unit++)
        value /= 1024;
    snprintf(out.text, sizeof(out.text), "%.2f %s", value, units[unit]);
    return out;
}

const char *plural(uint64_t n) {
    return n == 1 ? "" : "s";
}

void progress_line(const char *format, ...) {
    static bool shown;
    const char *terminal = getenv("TERM");
    if (!isatty(STDERR_FILENO) || (terminal != NULL && strcmp(terminal, "dumb") == 0)) return;
    char line[256];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    if (line[0] == '\0' && !shown) return;
    shown = line[0] != '\0';
    fprintf(stderr, "\r\033[K%s", line);
    fflush(stderr);
}

/* ---- files --------------------------------------------------------------------------------- */

bool check_out_path(const char *path, dp_error *err) {
    struct stat status;
    if (stat(path, &status) == 0 && !S_ISREG(status.st_mode)) {
        return err_set(err, DP_E_FILE, "%s: is not a regular file", path);
    }
    return path_can_be_made(str_of(path), err);
}

/* ---- Ctrl-C -------------------------------------------------------------------------------- */

/* A signal handler can reach nothing but statics; all are lock-free. A signal may come to any
 * thread and between any two calls: what waits for it polls a pipe that the handler writes to. */
static atomic_int was_interrupted; /* the signal's number */
static dp_session *_Atomic watched;
static int wake_pipe[2] = { -1, -1 };
static atomic_int wake_end = -1; /* wake_pipe[1] once it is there */

static void on_interrupt(int number) {
    const int saved = errno;
    atomic_store(&was_interrupted, number);
    dp_session *session = atomic_load(&watched);
    if (session != NULL) dp_session_cancel(session);
    const int end = atomic_load(&wake_end);
    if (end >= 0) (void)!write(end, "", 1);
    errno = saved;
}

void interrupt_install(void) {
    struct sigaction action = { .sa_handler = on_interrupt };
    sigemptyset(&action.sa_mask);
    action.sa_flags = (int)SA_RESETHAND; /* the second one ends the program */
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    struct sigaction ignore = { .sa_handler = SIG_IGN };
    sigemptyset(&ignore.sa_mask);
    sigaction(SIGPIPE, &ignore, NULL); /* writes say EPIPE instead */
}

void interrupt_watch(dp_session *session) {
    atomic_store(&watched, session);
    if (session != NULL && interrupted()) dp_session_cancel(session);
}

bool interrupted(void) {
    return atomic_load(&was_interrupted) != 0;
}

bool check_interrupted(dp_error *err) {
    return !interrupted() || err_set(err, DP_E_CANCELLED, "interrupted");
}

int interrupt_take(void) {
    char sink[64];
    interrupt_install();
    const int number = atomic_exchange(&was_interrupted, 0);
    /* The pipe after the flag: a signal in between sets the flag, which is looked at first. */
    while (wake_pipe[0] >= 0 && read(wake_pipe[0], sink, sizeof(sink)) > 0) {
    }
    return number;
}

bool wait_for_input(int fd, dp_error *err) {
    if (wake_pipe[0] < 0) {
        if (pipe(wake_pipe) != 0) {
            return err_set(err, DP_E_FILE, "a pipe: cannot be made: %s", strerror(errno));
        }
        for (int i = 0; i < 2; i++) {
            fcntl(wake_pipe[i], F_SETFL, O_NONBLOCK);
            fcntl(wake_pipe[i], F_SETFD, FD_CLOEXEC);
        }
        atomic_store(&wake_end, wake_pipe[1]);
    }
    struct pollfd waits[] = { { .fd = fd, .events = POLLIN },
                              { .fd = wake_pipe[0], .events = POLLIN } };
    while (!interrupted()) {
        if (poll(waits, ARRAY_LEN(waits), -1) < 0 && errno != EINTR) {
            return err_set(err, DP_E_FILE, "standard input: cannot be read: %s", strerror(errno));
        }
        if (!interrupted() && waits[0].revents != 0) return true;
    }
    return err_set(err, DP_E_CANCELLED, "interrupted");
}
