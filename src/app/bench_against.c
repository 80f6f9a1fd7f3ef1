/* bench --against: another engine's llama-bench on the same file, in turns with ours. POSIX.
 *
 * The command is the user's own and runs through /bin/sh in a process group of its own, with a time
 * limit; {model} becomes the model's path and {tests} our tests as llama-bench's options, both safe
 * for the shell. Turns alternate and the first of them changes sides every round, so that a device
 * that warms up or a neighbour that comes and goes meets both. Once ours has begun
 * its model stays loaded: it takes memory and does nothing. Samples of all rounds are put together.
 */
#include "app/bench_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* ---- the command --------------------------------------------------------------------------- */

static void add_counts(buf *b, const char *name, const count_list *list) {
    buf_printf(b, " %s ", name);
    for (size_t i = 0; i < list->n; i++)
        buf_printf(b, i > 0 ? ",%" PRIu64 : "%" PRIu64, list->items[i]);
}

static void add_tests(buf *b, const options *o) {
    buf_printf(b, "-o json -r %" PRIu64, o->repeats);
    add_counts(b, "-p", &o->prompts);
    add_counts(b, "-n", &o->generations);
    add_counts(b, "-d", &o->depths);
    for (size_t i = 0; i < o->pairs.n; i++)
        buf_printf(b, " -pg %s", o->pairs.items[i]); /* digits and a comma: they were parsed */
}

/* In single quotes, of which one inside becomes '\''. */
static void add_shell_text(buf *b, const char *text) {
    buf_printf(b, "'");
    for (; *text != '\0'; text++)
        buf_printf(b, *text == '\'' ? "'\\''" : "%c", *text);
    buf_printf(b, "'");
}

static bool fill_in(const options *o, const char *model, buf *b, dp_error *err) {
    for (const char *at = o->against; *at != '\0';) {
        if (strncmp(at, "{model}", 7) == 0) {
            add_shell_text(b, model);
            at += 7;
        } else if (strncmp(at, "{tests}", 7) == 0) {
            add_tests(b, o);
            at += 7;
        } else {
            buf_add(b, at++, 1);
        }
    }
    return buf_ok(b, "--against", err);
}

/* A running command: what it printed, and the end of what it said on standard error. */
typedef struct {
    pid_t pid;
    int out, err; /* -1: at its end */
    buf *text;
    char said[512];
    size_t n_said;
} child;

static bool start_child(child *c, const char *line, dp_error *err) {
    char shell[] = "/bin/sh", flag[] = "-c";
    const size_t size = strlen(line) + 1;
    char *copy = mem_new(size, 1, "a command", err);
    int out[2] = { -1, -1 }, errors[2] = { -1, -1 };
    if (copy == NULL) return false;
    memcpy(copy, line, size);
    char *const args[] = { shell, flag, copy, NULL };
    if (pipe(out) != 0 || pipe(errors) != 0) {
        for (int i = 0; i < 2; i++) {
            if (out[i] >= 0) close(out[i]);
        }
        mem_free(copy);
        return err_set(err, DP_E_FILE, "a pipe: cannot be made: %s", strerror(errno));
    }
    for (int i = 0; i < 2; i++) {
        fcntl(out[i], F_SETFD, FD_CLOEXEC);
        fcntl(errors[i], F_SETFD, FD_CLOEXEC);
    }
    posix_spawn_file_actions_t files;
    posix_spawnattr_t how;
    sigset_t normal;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files, out[1], 1);
    posix_spawn_file_actions_adddup2(&files, errors[1], 2);
    posix_spawnattr_init(&how);
    posix_spawnattr_setflags(&how, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setpgroup(&how, 0);
    sigemptyset(&normal);
    sigaddset(&normal, SIGPIPE); /* which this program ignores */
    posix_spawnattr_setsigdefault(&how, &normal);
    const int number = posix_spawn(&c->pid, shell, &files, &how, args, environ);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&how);
    close(out[1]);
    close(errors[1]);
    mem_free(copy);
    c->out = out[0];
    c->err = errors[0];
    if (number == 0) return true;
    close(c->out);
    close(c->err);
    return err_set(err, DP_E_FILE, "--against: /bin/sh cannot be started: %s", strerror(number));
}

static void keep_said(child *c, const char *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (c->n_said == sizeof(c->said)) {
            memmove(c->said, c->said + 1, --c->n_said);
        }
        c->said[c->n_said++] = bytes[i];
    }
}

/* Takes what there is; *any if there was something. */
static bool read_pipes(child *c, int wait_ms, bool *any, dp_error *err) {
    char bytes[16384];
    struct pollfd fds[] = { { .fd = c->out, .events = POLLIN },
                            { .fd = c->err, .events = POLLIN } };
    *any = false;
    if (poll(fds, ARRAY_LEN(fds), wait_ms) <= 0) return true; /* interruption is looked at later */
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        if (fds[i].revents == 0) continue;
        const ssize_t n = read(fds[i].fd, bytes, sizeof(bytes));
        if (n < 0 && errno == EINTR) continue;
        int *fd = i == 0 ? &c->out : &c->err;
        *any = n > 0;
        if (n <= 0) {
            close(*fd);
            *fd = -1;
        } else if (i == 1) {
            keep_said(c, bytes, (size_t)n);
        } else {
            buf_add(c->text, bytes, (size_t)n);
            if (!buf_ok(c->text, "--against: what the command prints", err)) return false;
        }
    }
    return true;
}

/* Its last line on standard error, shown as it may be shown. */
static str last_words(child *c) {
    size_t end = c->n_said, start;
    while (end > 0 && (c->said[end - 1] == '\n' || c->said[end - 1] == '\r'))
        end--;
    for (start = end; start > 0 && c->said[start - 1] != '\n';)
        start--;
    for (size_t i = start; i < end; i++) {
        if ((unsigned char)c->said[i] < 0x20) c->said[i] = ' ';
    }
    return (str){ c->said + start, end - start };
}

static bool check_ending(child *c, int status, dp_error *err) {
    const str words = last_words(c);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return true;
    return err_set(err, DP_E_LIMIT, "--against: the command ended with %s %d%s%.*s",
                   WIFSIGNALED(status) ? "signal" : "status",
                   WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status),
                   words.size > 0 ? ": " : "", STR_ARG(words));
}

/* Runs the command to its end; its group does not outlive the call. */
static bool run_command(const char *line, double limit, buf *text, dp_error *err) {
    child c = { .text = text };
    int status = 0;
    if (!start_child(&c, line, err)) return false;
    const double end = now_seconds() + limit;
    bool ok = true, any = true, ended = false;
    while (ok && (!ended || any)) {
        siginfo_t info = { 0 };
        ok = read_pipes(&c, ended ? 0 : 50, &any, err) && check_interrupted(err);
        /* Left to be waited for: its number stays its own until the group is gone. */
        ended = waitid(P_PID, (id_t)c.pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0 ||
                info.si_pid == c.pid;
        if (ok && !ended && now_seconds() > end) {
            ok = err_set(err, DP_E_LIMIT,
                         "--against: the command ran longer than %g s and was stopped; see "
                         "--time-limit",
                         limit);
        }
    }
    kill(-c.pid, SIGKILL);
    while (waitpid(c.pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (c.out >= 0) close(c.out);
    if (c.err >= 0) close(c.err);
    return ok && check_ending(&c, status, err);
}

/* ---- turns --------------------------------------------------------------------------------- */

typedef struct {
    const options *o;
    const bench_test *tests;
    size_t n;
    bench b;
    buf line;
    bench_results ours, theirs;
} duel;

static bool our_turn(duel *d, dp_error *err) {
    static bench_row row;
    buf text;
    buf_init(&text, RESULT_BYTES_MAX);
    rows_begin(&text, OUT_JSONL);
    bool ok = true;
    for (size_t i = 0; ok && i < d->n; i++) {
        const bench_test *t = &d->tests[i];
        describe_row(&d->b, &row, *t);
        ok = sleep_seconds((double)d->o->delay, err) && run_test(&d->b, &row, err);
        if (ok) rows_add(&text, &row, OUT_JSONL);
    }
    ok = ok && buf_ok(&text, "the results", err) &&
         results_parse(&d->ours, (str){ text.data, text.size }, "our results", err);
    buf_free(&text);
    return ok;
}

static bool their_turn(duel *d, dp_error *err) {
    buf text;
    buf_init(&text, RESULT_BYTES_MAX);
    progress_line("%.80s", d->line.data);
    const bool ok = sleep_seconds((double)d->o->delay, err) &&
                    run_command(d->line.data, (double)d->o->time_limit, &text, err) &&
                    results_parse(&d->theirs, (str){ text.data, text.size },
                                  "--against: what the command printed", err);
    progress_line("%s", "");
    buf_free(&text);
    return ok;
}

static const bench_result *find_test(const bench_results *list, const bench_test *t) {
    for (size_t i = 0; i < list->n; i++) {
        const bench_result *r = &list->items[i];
        if (!r->named && r->t.n_prompt == t->n_prompt && r->t.n_gen == t->n_gen &&
            r->t.n_depth == t->n_depth && r->t.n_parallel <= 1) {
            return r;
        }
    }
    return NULL;
}

/* ---- output -------------------------------------------------------------------------------- */

static void add_side(buf *out, const char *key, const bench_result *r, const char *source) {
    json_key(out, key);
    buf_printf(out, "{");
    json_text(out, "model", str_of(r->model));
    json_real(out, r->kind == RESULT_DECODE ? "decode_tokens_per_sec" : "tokens_per_sec",
              median_of(r->samples, r->n_samples));
    json_count_of(out, "runs", r->n_samples);
    json_text(out, "hardware", str_of(r->device));
    if (source != NULL) json_text(out, "source", str_of(source));
    buf_printf(out, "}");
}

/* In the schema, whose `comparison` has one for each test. */
static void print_duel_json(buf *out, const duel *d, const time_text *when) {
    const bench_place place = place_of(&d->b.e, d->o);
    schema_begin(out, "against", NULL, when, &d->b.e, &place);
    json_key(out, "comparison");
    buf_printf(out, "[");
    for (size_t i = 0; i < d->n; i++) {
        const bench_result *us = find_test(&d->ours, &d->tests[i]);
        const bench_result *them = find_test(&d->theirs, &d->tests[i]);
        if (us == NULL || them == NULL) continue;
        const double ratio =
            median_of(us->samples, us->n_samples) / median_of(them->samples, them->n_samples);
        json_item(out);
        buf_printf(out, "{");
        json_text(out, "test", str_of(us->test));
        json_text(out, "competitor", str_of(d->o->against));
        json_text(out, "competitorVersion", str_of(them->engine));
        add_side(out, "competitorResult", them, d->line.data);
        add_side(out, "dopplerResult", us, NULL);
        json_real(out, "ratio", ratio);
        json_real(out, "delta_percent", 100 * (ratio - 1));
        json_real(out, "p",
                  mann_whitney(us->samples, us->n_samples, them->samples, them->n_samples));
        json_flag(out, "methodology_match", true); /* the same test of llama-bench's, in turns */
        buf_printf(out, "}");
    }
    buf_printf(out, "]}\n");
}

static void print_duel(buf *out, const duel *d) {
    buf_printf(out, "| test | doppler t/s | other t/s | ratio | runs | p |\n"
                    "| ---: | ---: | ---: | ---: | ---: | ---: |\n");
    for (size_t i = 0; i < d->n; i++) {
        const bench_result *us = find_test(&d->ours, &d->tests[i]);
        const bench_result *them = find_test(&d->theirs, &d->tests[i]);
        if (us == NULL) continue;
        const double ours = median_of(us->samples, us->n_samples);
        if (them == NULL) {
            buf_printf(out, "| %s | %.2f ± %.2f | - | - | %zu, 0 | - |\n", us->test, ours,
                       us->deviation, us->n_samples);
            continue;
        }
        const double other = median_of(them->samples, them->n_samples);
        buf_printf(out, "| %s | %.2f ± %.2f | %.2f ± %.2f | %.3f | %zu, %zu | %.3f |\n", us->test,
                   ours, us->deviation, other, them->deviation, ours / other, us->n_samples,
                   them->n_samples,
                   mann_whitney(us->samples, us->n_samples, them->samples, them->n_samples));
    }
    buf_printf(out, "\ndoppler: %s on %s\nother: %s%s%s on %s\n", d->ours.items[0].model,
               d->ours.items[0].device, d->theirs.items[0].model,
               d->theirs.items[0].engine[0] != '\0' ? ", " : "", d->theirs.items[0].engine,
               d->theirs.items[0].device);
}

static bool check_match(const duel *d, dp_error *err) {
    for (size_t i = 0; i < d->n; i++) {
        if (find_test(&d->theirs, &d->tests[i]) != NULL) return true;
    }
    return err_set(err, DP_E_ARGUMENT,
                   "--against: the command measured \"%s\" and none of our tests; {tests} in it "
                   "stands for them",
                   d->theirs.items[0].test);
}

int bench_against(const options *o, const bench_test *tests, size_t n, uint64_t needed) {
    static duel d;
    dp_error err = { 0 };
    const time_text when = time_now();
    buf out;
    buf_init(&out, TEXT_BYTES_MAX);
    buf_init(&d.line, 1 << 16);
    d.o = o;
    d.tests = tests;
    d.n = n;
    bool ok = bench_plan(&d.b, o, needed, &err) && prepare_save(o, &err) &&
              fill_in(o, d.b.e.path, &d.line, &err);
    for (uint64_t i = 0; ok && i < o->rounds; i++) {
        /* The command first: what is wrong with it shows before our weights travel. */
        ok = i % 2 == 0 ? their_turn(&d, &err) &&
                              (i > 0 || (check_match(&d, &err) && bench_start(&d.b, &err))) &&
                              our_turn(&d, &err)
                        : our_turn(&d, &err) && their_turn(&d, &err);
    }
    if (ok) {
        const bool as_json = o->json || strcmp(o->output, "json") == 0;
        buf saved;
        buf_init(&saved, TEXT_BYTES_MAX);
        print_duel_json(&saved, &d, &when);
        ok = buf_ok(&saved, "the comparison", &err);
        if (as_json) {
            buf_add(&out, saved.data, saved.size);
        } else {
            print_duel(&out, &d);
        }
        if (ok && o->save != NULL) {
            ok = save_result(o->save, "against", d.b.e.path, &when, &saved, &err);
        }
        buf_free(&saved);
    }
    const int code = ok ? out_result(&out) : fail(&err);
    if (!ok) buf_free(&out);
    bench_close(&d.b);
    buf_free(&d.line);
    results_free(&d.ours);
    results_free(&d.theirs);
    return code;
}
