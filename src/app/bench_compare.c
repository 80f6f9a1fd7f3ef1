/* bench compare: is B as fast as A?
 *
 * For every test the ratio of the medians, and the chance that a difference in rank as large as
 * this comes from noise alone (Mann and Whitney's test, bench_stats.c). A test is better or worse
 * only if the medians differ by more than --threshold and that chance is below 5 %; with fewer than
 * four samples on each side it cannot be, and the verdict says so. The exit code is 1 if any test
 * is worse. Samples of one process know the noise within it: what differs from start to start they
 * do not show, so files put together from several runs are the better evidence. */
#include "app/bench_internal.h"

#include <inttypes.h>
#include <math.h>

static const double CHANCE = 0.05;

typedef enum {
    VERDICT_SAME,
    VERDICT_NOISE,
    VERDICT_FEW,
    VERDICT_BETTER,
    VERDICT_WORSE,
    VERDICTS
} verdict;
static const char *const verdict_names[VERDICTS] = { "same", "noise", "too few runs", "better",
                                                     "worse" };

typedef struct {
    const bench_result *a, *b;
    double median_a, median_b, ratio, chance;
    verdict verdict;
} comparison;

/* The smallest chance that so many samples can show: all of one side above the other. */
static double least_chance(size_t n_a, size_t n_b) {
    double ways = 1; /* binomial(n_a + n_b, n_a) */
    for (size_t i = 1; i <= n_a && ways < 1e9; i++)
        ways *= (double)(n_b + i) / (double)i;
    return 2 / ways;
}

static void judge(comparison *c, double threshold) {
    const bench_result *a = c->a, *b = c->b;
    c->median_a = median_of(a->samples, a->n_samples);
    c->median_b = median_of(b->samples, b->n_samples);
    c->ratio = c->median_b / c->median_a;
    c->chance = mann_whitney(a->samples, a->n_samples, b->samples, b->n_samples);
    const bool large = fabs(c->ratio - 1) > threshold / 100;
    if (!large) {
        c->verdict = VERDICT_SAME;
    } else if (least_chance(a->n_samples, b->n_samples) >= CHANCE) {
        c->verdict = VERDICT_FEW;
    } else if (c->chance >= CHANCE) {
        c->verdict = VERDICT_NOISE;
    } else {
        c->verdict = (c->ratio > 1) != (a->kind == RESULT_TIME) ? VERDICT_BETTER : VERDICT_WORSE;
    }
}

static const bench_result *find_result(const bench_results *list, const char *test) {
    for (size_t i = 0; i < list->n; i++) {
        if (strcmp(list->items[i].test, test) == 0) return &list->items[i];
    }
    return NULL;
}

/* A file's results are of one model on one device, or nobody knows which of them is meant. */
static bool check_one_subject(const bench_results *list, const char *path, dp_error *err) {
    const bench_result *first = &list->items[0];
    for (size_t i = 1; i < list->n; i++) {
        const bench_result *r = &list->items[i];
        if (strcmp(r->model, first->model) != 0 || r->model_size != first->model_size ||
            strcmp(r->device, first->device) != 0 || strcmp(r->engine, first->engine) != 0 ||
            memcmp(r->settings, first->settings, sizeof(r->settings)) != 0) {
            return err_set(err, DP_E_ARGUMENT,
                           "%.200s: has results of more than one model, device, version or "
                           "setting, \"%s\" and \"%s\" among them",
                           path, first->test, r->test);
        }
    }
    return true;
}

/* What one of the files does not say is no difference. */
static bool check_settings(const bench_result *a, const bench_result *b, dp_error *err) {
    for (size_t i = 0; i < SETTINGS; i++) {
        const setting_state x = a->settings[i], y = b->settings[i];
        if (x == y || x == SETTING_UNKNOWN || y == SETTING_UNKNOWN) continue;
        return err_set(err, DP_E_ARGUMENT, "the settings differ: A is %s, B is %s; see --different",
                       setting_texts[i][x == SETTING_ON], setting_texts[i][y == SETTING_ON]);
    }
    return true;
}

static bool check_comparable(const bench_results *a, const bench_results *b, dp_error *err) {
    const bench_result *x = &a->items[0], *y = &b->items[0];
    if (strcmp(x->model, y->model) != 0) {
        return err_set(err, DP_E_ARGUMENT, "the models differ: \"%s\" and \"%s\"; see --different",
                       x->model, y->model);
    }
    if (x->model_size != y->model_size && x->model_size > 0 && y->model_size > 0) {
        return err_set(err, DP_E_ARGUMENT,
                       "the models' sizes differ: %" PRIu64 " and %" PRIu64
                       " bytes; see --different",
                       x->model_size, y->model_size);
    }
    if (strcmp(x->device, y->device) != 0) {
        return err_set(err, DP_E_ARGUMENT, "the devices differ: \"%s\" and \"%s\"; see --different",
                       x->device, y->device);
    }
    if (!check_settings(x, y, err)) return false;
    for (size_t side = 0; side < 2; side++) {
        const bench_results *from = side == 0 ? a : b, *in = side == 0 ? b : a;
        for (size_t i = 0; i < from->n; i++) {
            if (find_result(in, from->items[i].test) != NULL) continue;
            return err_set(err, DP_E_ARGUMENT,
                           "the tests differ: only %s has \"%s\"; see --different",
                           side == 0 ? "A" : "B", from->items[i].test);
        }
    }
    return true;
}

static void print_table(buf *out, const comparison *list, size_t n) {
    buf_printf(out, "| test | A | B | unit | B/A | runs | p | verdict |\n"
                    "| ---: | ---: | ---: | --- | ---: | ---: | ---: | --- |\n");
    for (size_t i = 0; i < n; i++) {
        const comparison *c = &list[i];
        buf_printf(out, "| %s | %.2f | %.2f | %s | %.3f | %zu, %zu | %.3f | %s |\n", c->a->test,
                   c->median_a, c->median_b, c->a->kind == RESULT_TIME ? "ms" : "t/s", c->ratio,
                   c->a->n_samples, c->b->n_samples, c->chance, verdict_names[c->verdict]);
    }
}

static void print_json(buf *out, const comparison *list, size_t n, double threshold, verdict all) {
    buf_printf(out, "{");
    json_text(out, "verdict", str_of(verdict_names[all]));
    json_real(out, "threshold_percent", threshold);
    json_key(out, "tests");
    buf_printf(out, "[");
    for (size_t i = 0; i < n; i++) {
        const comparison *c = &list[i];
        json_item(out);
        buf_printf(out, "{");
        json_text(out, "test", str_of(c->a->test));
        json_text(out, "unit", str_of(c->a->kind == RESULT_TIME ? "ms" : "t/s"));
        json_real(out, "median_a", c->median_a);
        json_real(out, "median_b", c->median_b);
        json_real(out, "ratio", c->ratio);
        json_count_of(out, "runs_a", c->a->n_samples);
        json_count_of(out, "runs_b", c->b->n_samples);
        json_real(out, "p", c->chance);
        json_text(out, "verdict", str_of(verdict_names[c->verdict]));
        buf_printf(out, "}");
    }
    buf_printf(out, "]}\n");
}

/* The worst there is; "better" only if nothing speaks against it. */
static verdict sum_up(const comparison *list, size_t n) {
    size_t count[VERDICTS] = { 0 };
    for (size_t i = 0; i < n; i++)
        count[list[i].verdict]++;
    return count[VERDICT_WORSE] > 0    ? VERDICT_WORSE
           : count[VERDICT_FEW] > 0    ? VERDICT_FEW
           : count[VERDICT_BETTER] > 0 ? VERDICT_BETTER
                                       : VERDICT_SAME;
}

static int print_comparison(const options *o, const bench_results *a, const bench_results *b) {
    static comparison list[RESULTS_MAX];
    dp_error err = { 0 };
    size_t n = 0;
    for (size_t i = 0; i < a->n; i++) {
        const bench_result *other = find_result(b, a->items[i].test);
        if (other == NULL) continue;
        list[n] = (comparison){ .a = &a->items[i], .b = other };
        judge(&list[n++], o->threshold);
    }
    if (n == 0) {
        err_set(&err, DP_E_ARGUMENT, "the files have no test in common");
        return fail(&err);
    }
    const verdict all = sum_up(list, n);
    buf out;
    buf_init(&out, TEXT_BYTES_MAX);
    if (o->json || strcmp(o->output, "json") == 0) {
        print_json(&out, list, n, o->threshold, all);
    } else {
        print_table(&out, list, n);
        buf_printf(&out, "\nB is %s (differences up to %g %% or with p >= %g count as noise)\n",
                   all == VERDICT_FEW ? "not judged: too few runs" : verdict_names[all],
                   o->threshold, CHANCE);
    }
    const int code = out_result(&out);
    return code != EXIT_OK ? code : all == VERDICT_WORSE ? EXIT_FAILED : EXIT_OK;
}

int bench_compare(const options *o) {
    dp_error err = { 0 };
    bench_results a = { 0 }, b = { 0 };
    if (o->n_rest != 3) {
        err_set(&err, DP_E_ARGUMENT, "bench compare: %zu file%s given, needs two: A B",
                o->n_rest - 1, plural(o->n_rest - 1));
        return fail(&err);
    }
    if (!o->json && o->output_given && strcmp(o->output, "md") != 0 &&
        strcmp(o->output, "json") != 0) {
        err_set(&err, DP_E_ARGUMENT, "-o: \"%.60s\" is none of md, json", o->output);
        return fail(&err);
    }
    const bool ok = results_read(&a, o->rest[1], &err) && results_read(&b, o->rest[2], &err) &&
                    check_one_subject(&a, o->rest[1], &err) &&
                    check_one_subject(&b, o->rest[2], &err) &&
                    (o->different || check_comparable(&a, &b, &err));
    const int code = ok ? print_comparison(o, &a, &b) : fail(&err);
    results_free(&a);
    results_free(&b);
    return code;
}
