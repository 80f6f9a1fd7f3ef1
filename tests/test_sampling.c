/* test_sampling: what the sampler draws, against the exact distribution.
 *
 * The four kernels run as in the engine (scan, select, draw, finish), many sequences in one
 * dispatch and many steps in one submit; draws are counted and compared by Pearson's chi-square
 * with probabilities that the CPU works out in double by sorting. Seeds are fixed, so a device
 * gives the same verdict every time; the threshold says how likely a right sampler would have
 * failed with seeds chosen freely. */
#include "gpu/gpu.h"
#include "kernels_gen.h"
#include "ref/ref.h"
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>

enum {
    LANES = 256,
    STEPS_MAX = 64, /* answers that sample_finish keeps */
    FOUND = 4096,   /* as in the engine */
    DRAWS = 100000,
    FEWER = 1000, /* see draws_for */
    SMALL = 50,
    LARGE = 128256, /* Llama 3 */
};

/* ---- the device ---------------------------------------------------------------------------- */

static void *open_shared(test *t) {
    const dp_device_options o = test_device_options();
    return gpu_open(&o, &t->err);
}

static void close_shared(void *g) {
    gpu_close(g);
}

/* ---- sequences that draw ------------------------------------------------------------------- */

/* n sequences, each in its slot, in another order than the answers. */
typedef struct {
    test *t;
    gpu *g;
    uint32_t vocab, n, chunk, chunks, lanes, team;
    gpu_buffer *samplers, *logits, *z, *best, *won, *found, *rows, *counts, *before, *stops, *sizes,
        *answer;
    gpu_plan *step, *again; /* all four kernels; all but the first over the same z */
    uint32_t *slot;         /* of answer i */
    uint32_t (*row_list)[4];
    ref_sampler *states; /* by slot */
} race;

static gpu_buffer *buffer(race *q, const void *bytes, size_t size) {
    gpu_buffer *b = gpu_buffer_new(q->g, size, "sampling", &q->t->err);
    if (b != NULL && bytes != NULL) CHECK(q->t, gpu_write(q->g, gpu_whole(b), bytes, &q->t->err));
    return b;
}

static uint32_t *shuffled(test *t, uint32_t n) {
    uint32_t *x = test_alloc(t, n, sizeof(*x));
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t j = (uint32_t)test_below(t, i + 1);
        x[i] = x[j];
        x[j] = i;
    }
    return x;
}

static void add_scan(race *q, gpu_plan *plan) {
    const dp_device_info *info = gpu_info(q->g);
    const gpu_fragment *fragments[2] = { &sampler_state_part, info->subgroups
                                                                  ? &reduce_subgroup_part
                                                                  : &reduce_tree_part };
    const sample_scan_consts consts = { .vocab = q->vocab,
                                        .chunk = q->chunk,
                                        .found = FOUND,
                                        .keep = true,
                                        .wg = q->lanes,
                                        .team = q->team };
    gpu_call scan = { .groups = { { .times = q->chunks }, { .times = q->n } } };
    scan.kernel = gpu_kernel_get(q->g, &sample_scan_source, fragments, &consts, &q->t->err);
    scan.bind[0] = gpu_whole(q->samplers);
    scan.bind[SAMPLE_SCAN_LOGITS] = gpu_whole(q->logits);
    scan.bind[SAMPLE_SCAN_ROWS] = gpu_whole(q->rows);
    scan.bind[SAMPLE_SCAN_COUNTS] = gpu_whole(q->counts);
    scan.bind[SAMPLE_SCAN_Z] = gpu_whole(q->z);
    scan.bind[SAMPLE_SCAN_BEST] = gpu_whole(q->best);
    scan.bind[SAMPLE_SCAN_FOUND] = gpu_whole(q->found);
    gpu_plan_add(plan, &scan);
}

static void add_draw(race *q, gpu_plan *plan) {
    const dp_device_info *info = gpu_info(q->g);
    const gpu_fragment *fragments[2] = { &sampler_state_part, info->subgroups
                                                                  ? &reduce_subgroup_part
                                                                  : &reduce_tree_part };
    const sample_draw_consts draw_consts = { .vocab = q->vocab,
                                             .chunk = q->chunk,
                                             .chunks = q->chunks,
                                             .found = FOUND,
                                             .wg = q->lanes,
                                             .team = q->team };
    gpu_call draw = { .groups = { { .times = q->chunks }, { .times = q->n } } };
    draw.kernel = gpu_kernel_get(q->g, &sample_draw_source, fragments, &draw_consts, &q->t->err);
    draw.bind[0] = gpu_whole(q->samplers);
    draw.bind[SAMPLE_DRAW_Z] = gpu_whole(q->z);
    draw.bind[SAMPLE_DRAW_ROWS] = gpu_whole(q->rows);
    draw.bind[SAMPLE_DRAW_BEST] = gpu_whole(q->best);
    draw.bind[SAMPLE_DRAW_WON] = gpu_whole(q->won);
    draw.bind[SAMPLE_DRAW_FOUND] = gpu_whole(q->found);
    gpu_plan_add(plan, &draw);

    const sample_select_consts select_consts = {
        .vocab = q->vocab, .chunks = q->chunks, .found = FOUND, .wg = q->lanes
    };
    gpu_call select = { .groups = { { 0 }, { .times = q->n } } };
    select.kernel =
        gpu_kernel_get(q->g, &sample_select_source, fragments, &select_consts, &q->t->err);
    select.bind[0] = gpu_whole(q->samplers);
    select.bind[SAMPLE_SELECT_Z] = gpu_whole(q->z);
    select.bind[SAMPLE_SELECT_ROWS] = gpu_whole(q->rows);
    select.bind[SAMPLE_SELECT_FOUND] = gpu_whole(q->found);
    select.bind[SAMPLE_SELECT_WON] = gpu_whole(q->won);
    gpu_plan_add(plan, &select);

    const sample_finish_consts finish_consts = { .vocab = q->vocab,
                                                 .chunks = q->chunks,
                                                 .wg = q->lanes };
    gpu_call finish = { .groups = { { 0 }, { .times = q->n } } };
    finish.kernel =
        gpu_kernel_get(q->g, &sample_finish_source, fragments, &finish_consts, &q->t->err);
    finish.bind[0] = gpu_whole(q->samplers);
    finish.bind[SAMPLE_FINISH_BEST] = gpu_whole(q->won);
    finish.bind[SAMPLE_FINISH_STOPS] = gpu_whole(q->stops);
    finish.bind[SAMPLE_FINISH_SIZES] = gpu_whole(q->sizes);
    finish.bind[SAMPLE_FINISH_ROWS] = gpu_whole(q->rows);
    finish.bind[SAMPLE_FINISH_COUNTS] = gpu_whole(q->counts);
    finish.bind[SAMPLE_FINISH_ANSWER] = gpu_whole(q->answer);
    gpu_plan_add(plan, &finish);
}

/* All sequences have the same logits and the same occurrences before each draw; samplers[i] is that
 * of answer i. */
static bool race_open(race *q, test *t, uint32_t vocab, uint32_t n, const float *logits,
                      const uint32_t *counts, const ref_sampler *samplers) {
    /* A software GPU spends its time on a workgroup's barriers: few chunks, yet as many as top-k.
     */
    const uint32_t chunk = vocab > 4096 ? 4096 : 512;
    *q = (race){ .t = t, .vocab = vocab, .n = n, .chunk = chunk, .chunks = ceil_div(vocab, chunk) };
    q->g = test_shared(t, "device of the sampler", open_shared, close_shared);
    if (!CHECK(t, q->g != NULL)) return false;
    gpu_lock(q->g);
    const dp_device_info *info = gpu_info(q->g);
    /* as in the engine: a software GPU pays for every lane at every barrier */
    q->lanes = strcmp(info->type, "cpu") == 0 ? 32 : 256;
    q->team = info->subgroups && info->subgroup_size < 32 ? info->subgroup_size : 32;
    q->slot = shuffled(t, n);
    q->row_list = test_alloc(t, n, sizeof(*q->row_list));
    q->states = test_alloc(t, n, sizeof(*q->states));
    const size_t all = (size_t)n * vocab;
    float *each = test_floats(t, all);
    uint32_t *seen = test_alloc(t, all, 4);
    for (uint32_t i = 0; i < n; i++) {
        memcpy(each + (size_t)i * vocab, logits, vocab * sizeof(float));
        if (counts != NULL) memcpy(seen + (size_t)i * vocab, counts, vocab * 4);
        q->row_list[i][1] = q->slot[i];
        q->states[q->slot[i]] = samplers[i];
    }
    const uint32_t stops[1] = { 0 }, sizes[4] = { n, n, 0, 0 };
    q->samplers = buffer(q, q->states, n * sizeof(ref_sampler));
    q->logits = buffer(q, each, all * 4);
    q->z = buffer(q, NULL, all * 4);
    q->best = buffer(q, NULL, (size_t)n * q->chunks * 16);
    q->won = buffer(q, NULL, (size_t)n * q->chunks * 16);
    q->found = buffer(q, NULL, (size_t)n * (2 + FOUND) * 8);
    q->rows = buffer(q, q->row_list, n * sizeof(*q->row_list));
    q->counts = buffer(q, seen, all * 4);
    q->before = buffer(q, seen, all * 4);
    q->stops = buffer(q, stops, sizeof(stops));
    q->sizes = buffer(q, sizes, sizeof(sizes));
    q->answer = buffer(q, NULL, (size_t)n * (1 + STEPS_MAX) * 4);
    q->step = gpu_plan_new(q->g, &t->err);
    q->again = gpu_plan_new(q->g, &t->err);
    if (!CHECK(t, t->err.status == DP_OK)) return false;
    add_scan(q, q->step);
    add_draw(q, q->step);
    add_draw(q, q->again);
    return CHECK(t, gpu_plan_finish(q->step, &t->err) && gpu_plan_finish(q->again, &t->err));
}

static void race_close(race *q) {
    if (q->g == NULL) return;
    gpu_plan_free(q->step);
    gpu_plan_free(q->again);
    gpu_buffer *const all[] = { q->samplers, q->logits, q->z,      q->best,  q->won,   q->found,
                                q->rows,     q->counts, q->before, q->stops, q->sizes, q->answer };
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        gpu_buffer_free(all[i]);
    gpu_unlock(q->g);
}

/* Draws `steps` tokens in each sequence, from the same distribution every time: tokens [n, steps]
 * by answer. The filters run at every step, or (`once`) only at the first. */
static bool race_draw(race *q, uint32_t steps, bool once, uint32_t *tokens) {
    test *t = q->t;
    assert(steps <= STEPS_MAX);
    if (!CHECK(t, gpu_write(q->g, gpu_whole(q->rows), q->row_list, &t->err))) return false;
    gpu_encoder *e = gpu_begin(q->g);
    gpu_encode_clear(e, gpu_part(gpu_whole(q->answer), 0, q->n * 4));
    for (uint32_t i = 0; i < steps; i++) {
        if (i == 0 || !once) gpu_encode_copy(e, gpu_whole(q->counts), gpu_whole(q->before));
        /* what sample_scan does else: the list is empty */
        for (uint32_t k = 0; once && k < q->n; k++) {
            gpu_encode_clear(e, gpu_part(gpu_whole(q->found), k * (2 + FOUND) * 8ull, 4));
        }
        gpu_encode(e, i == 0 || !once ? q->step : q->again, &(gpu_sizes){ { 1, 1, 1, 1, 1, 1 } });
    }
    gpu_ticket ticket;
    if (!CHECK(t, gpu_submit(e, &ticket, &t->err))) return false;
    gpu_wait(q->g, ticket);
    if (!CHECK(t, gpu_collect(q->g, ticket, NULL, 0, &t->err))) return false;
    const size_t words = (size_t)q->n * (1 + STEPS_MAX);
    uint32_t *answer = malloc(words * 4);
    bool ok = answer != NULL && gpu_read(q->g, gpu_whole(q->answer), answer, &t->err);
    for (uint32_t i = 0; i < q->n && ok; i++) {
        ok = answer[i] == steps;
        for (uint32_t k = 0; k < steps && ok; k++)
            tokens[(size_t)i * steps + k] = answer[(1 + (size_t)k) * q->n + i];
    }
    free(answer);
    return CHECK(t, ok);
}

/* ---- statistics ---------------------------------------------------------------------------- */

/* The value that chi-square with k degrees of freedom passes with probability 5e-8: 1e-6 for this
 * whole file, divided by the about 20 comparisons in it (Bonferroni). Wilson and Hilferty
 * 1931; 5.327 is the normal deviate of 5e-8. */
static double chi_square_limit(double k) {
    const double s = 2 / (9 * k), root = 1 - s + 5.327 * sqrt(s);
    return k * root * root * root;
}

/* Pearson's statistic over bins in which at least 20 draws are expected: tokens by falling
 * probability, the unlikely ones together. At most 4,000 bins: what is left over is the last one.
 */
static double chi_square(const uint32_t *drawn, const double *p, const uint32_t *order, uint32_t n,
                         double draws, double *freedom) {
    double statistic = 0, expected = 0, seen = 0, left = draws;
    uint32_t bins = 0;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t v = order[i];
        expected += p[v] * draws;
        seen += drawn[v];
        /* A bin is closed when what remains can fill another. */
        if ((expected >= 20 && left - expected >= 20 && bins < 4000) || i + 1 == n) {
            statistic += (seen - expected) * (seen - expected) / expected;
            left -= expected;
            expected = seen = 0;
            bins++;
        }
    }
    *freedom = bins - 1.0;
    return statistic;
}

/* ---- distributions ------------------------------------------------------------------------- */

typedef struct {
    const char *name;
    ref_sampler sampler;
} setting;

/* Logits with a deviation of 2, positive and negative: the best of 50 has a few tenths of the mass.
 */
static float *new_logits(test *t, uint32_t vocab) {
    float *x = test_randn(t, vocab);
    for (uint32_t i = 0; i < vocab; i++)
        x[i] = 2 * x[i] + 0.5f;
    return x;
}

/* A third of the tokens occurred, half of those in the answer, up to 3 times. */
static uint32_t *new_counts(test *t, uint32_t vocab) {
    uint32_t *c = test_alloc(t, vocab, 4);
    for (uint32_t i = 0; i < vocab; i++) {
        if (test_below(t, 3) == 0)
            c[i] = REF_SEEN | (test_below(t, 2) == 0 ? (uint32_t)test_below(t, 4) : 0);
    }
    return c;
}

static ref_sampler *spread(test *t, const ref_sampler *s, uint32_t n, uint32_t seed) {
    ref_sampler *list = test_alloc(t, n, sizeof(*list));
    for (uint32_t i = 0; i < n; i++) {
        list[i] = *s;
        list[i].seed_low = seed + i; /* as users choose them: one after the other */
        if (list[i].repeat == 0) list[i].repeat = 1;
    }
    return list;
}

/* A token that should not have been drawn. The kept set is decided in f32: what lies at the edge of
 * it within the rounding may go either way. z: a few ULP of its terms; top-p: 2^-30 a token and the
 * rounding of the exponentials, as in check_sample.c. */
static bool is_forbidden(uint32_t v, const double *p, const double *z, const uint32_t *order,
                         const ref_sampler *s, double floor, uint32_t vocab) {
    if (p[v] > 0) return false;
    if (z[v] >= floor - 1e-5) return false;
    if (!(s->top_p > 0 && s->top_p < 1) ||
        (s->min_p > 0 && z[v] < z[order[0]] + log((double)s->min_p) - 1e-5)) {
        return true;
    }
    double all = 0, above = 0;
    uint32_t n = s->top_k > 0 && s->top_k < vocab ? s->top_k : vocab;
    for (uint32_t i = 0; i < n; i++) {
        const double e = exp(z[order[i]] - z[order[0]]);
        all += e;
        if (z[order[i]] > z[v]) above += e;
    }
    return above / all > (double)s->top_p + vocab * 0x1p-30 + 1e-5 || z[v] < z[order[n - 1]] - 1e-5;
}

/* 100,000. But from 128,256 tokens that is 10^10 hashes and logarithms: a moment on a GPU, minutes
 * on a CPU that plays one; there 5,000 and 1,000 must do, and SwiftShader, which is slow at
 * barriers, gets a share of the latter. --draws on the runner's command line asks for all. */
static uint32_t draws_for(const gpu *g, uint32_t vocab) {
    const dp_device_info *info = gpu_info(g);
    if (strcmp(info->type, "cpu") != 0 || test_option("draws") != NULL) return DRAWS;
    if (strstr(info->name, "SwiftShader") != NULL) return vocab == LARGE ? FEWER / 2 : FEWER;
    return vocab == LARGE ? FEWER : 5 * FEWER;
}

/* Draws tokens in n sequences and compares. z stays the same, so the filters run once in 50
 * steps and the race every time. */
static void distribution(test *t, uint32_t vocab, uint32_t n, const setting *one) {
    test_row(t, "%s, vocabulary %u", one->name, vocab);
    const float *logits = new_logits(t, vocab);
    const uint32_t *counts = new_counts(t, vocab);
    const ref_sampler *samplers = spread(t, &one->sampler, n, 1000);
    double *z = test_alloc(t, vocab, sizeof(double)), *p = test_alloc(t, vocab, sizeof(double));
    uint32_t *order = test_alloc(t, vocab, 4), *drawn = test_alloc(t, vocab, 4);
    ref_adjust(z, logits, counts, &samplers[0], vocab);
    const double floor = ref_distribution(p, order, z, &samplers[0], vocab);
    race q;
    bool ok = race_open(&q, t, vocab, n, logits, counts, samplers);
    const uint32_t draws = ok ? draws_for(q.g, vocab) : 0;
    const uint32_t steps = min_u32(50, draws / n);
    uint32_t *tokens = test_alloc(t, (size_t)n * steps, 4), forbidden = 0, total = 0;
    while (ok && total < draws) {
        ok = race_draw(&q, steps, vocab == LARGE, tokens);
        for (uint32_t i = 0; i < n * steps && ok; i++) {
            ok = CHECK(t, tokens[i] < vocab);
            if (ok) drawn[tokens[i]]++;
        }
        total += n * steps;
    }
    race_close(&q);
    if (!ok) return;
    for (uint32_t v = 0; v < vocab; v++) {
        if (drawn[v] > 0) forbidden += is_forbidden(v, p, z, order, &samplers[0], floor, vocab);
    }
    CHECK_U64(t, forbidden, 0);
    double freedom = 0;
    const double x = chi_square(drawn, p, order, vocab, total, &freedom);
    CHECK_MSG(t, freedom >= 3 && x <= chi_square_limit(freedom),
              "chi-square %g over %g degrees of freedom, at most %g", x, freedom,
              chi_square_limit(freedom));
}

static const setting small_settings[] = {
    { "temperature", { .temperature = 0.8f } },
    { "top-k", { .temperature = 1, .top_k = 10 } },
    { "top-p", { .temperature = 1, .top_p = 0.9f } },
    { "min-p", { .temperature = 1.5f, .min_p = 0.02f } },
    { "repetition penalty", { .temperature = 1, .repeat = 1.3f } },
    { "presence penalty", { .temperature = 1, .repeat = 1, .presence = 0.7f } },
    { "frequency penalty", { .temperature = 1, .repeat = 1, .frequency = 0.4f } },
    { "all",
      { .temperature = 1.2f,
        .top_k = 30,
        .top_p = 0.95f,
        .min_p = 0.01f,
        .repeat = 1.1f,
        .presence = 0.2f,
        .frequency = 0.1f } },
};

/* 100,000 draws are the GPU's work; sanitizers watch the host's, which the other cases have too. */
#define SKIP_SANITIZED(t) \
    if (SANITIZED) SKIP(t, "sanitized: all of it is the device's work")

static void small_vocabulary(test *t) {
    SKIP_SANITIZED(t);
    for (size_t i = 0; i < ARRAY_LEN(small_settings); i++) {
        distribution(t, SMALL, 500, &small_settings[i]);
    }
}

static const setting large_settings[] = {
    { "temperature", { .temperature = 0.8f } },
    { "top-k", { .temperature = 1, .top_k = 30 } },
    /* min-p is below what top-p leaves: it only keeps the list short */
    { "top-p", { .temperature = 0.6f, .top_p = 0.5f, .min_p = 0.002f } },
    { "min-p", { .temperature = 1.5f, .min_p = 0.02f } },
    { "repetition penalty", { .temperature = 0.6f, .repeat = 1.3f } },
    { "presence penalty", { .temperature = 0.6f, .repeat = 1, .presence = 0.7f } },
    { "frequency penalty", { .temperature = 0.6f, .repeat = 1, .frequency = 0.4f } },
    { "all",
      { .temperature = 1.2f,
        .top_k = 32,
        .top_p = 0.95f,
        .min_p = 0.01f,
        .repeat = 1.1f,
        .presence = 0.2f,
        .frequency = 0.1f } },
};

static void large_vocabulary(test *t) {
    SKIP_SANITIZED(t);
    for (size_t i = 0; i < ARRAY_LEN(large_settings); i++) {
        distribution(t, LARGE, 20, &large_settings[i]);
    }
}

/* ---- that the statistic bites --------------------------------------------------------------- */

/* 25,000 draws of the small vocabulary at temperature 1, all four kernels each time: [500, 50]. */
enum { SEQUENCES = 500, LENGTH = 50 };

static uint32_t *plain_draws(test *t, const float *logits) {
    const ref_sampler *samplers = spread(t, &(ref_sampler){ .temperature = 1 }, SEQUENCES, 77);
    uint32_t *tokens = test_alloc(t, SEQUENCES * LENGTH, 4);
    race q;
    const bool ok = race_open(&q, t, SMALL, SEQUENCES, logits, NULL, samplers) &&
                    race_draw(&q, LENGTH, false, tokens);
    race_close(&q);
    return ok ? tokens : NULL;
}

static void another_temperature_is_seen(test *t) {
    SKIP_SANITIZED(t);
    const float *logits = new_logits(t, SMALL);
    const uint32_t *tokens = plain_draws(t, logits);
    if (tokens == NULL) return;
    uint32_t drawn[SMALL] = { 0 }, order[SMALL];
    const uint32_t counts[SMALL] = { 0 };
    for (uint32_t i = 0; i < SEQUENCES * LENGTH; i++)
        drawn[tokens[i]]++;
    static const float temperatures[] = { 1, 1.08f, 0.92f };
    for (size_t i = 0; i < ARRAY_LEN(temperatures); i++) {
        double z[SMALL], p[SMALL], freedom;
        const ref_sampler s = { .temperature = temperatures[i], .repeat = 1 };
        ref_adjust(z, logits, counts, &s, SMALL);
        ref_distribution(p, order, z, &s, SMALL);
        const double x = chi_square(drawn, p, order, SMALL, SEQUENCES * LENGTH, &freedom);
        CHECK_MSG(t, (x <= chi_square_limit(freedom)) == (i == 0),
                  "temperature %g: chi-square %g of %g", (double)temperatures[i], x,
                  chi_square_limit(freedom));
    }
}

/* ---- independence -------------------------------------------------------------------------- */

/* Tokens in 5 classes of about equal probability, by falling probability. */
enum { CLASSES = 5 };

static void classes_of(const double *p, const uint32_t *order, uint32_t *class, double *mass) {
    double sum = 0;
    for (uint32_t i = 0; i < SMALL; i++) {
        const uint32_t c = (uint32_t)fmin(CLASSES - 1, floor(sum * CLASSES));
        class[order[i]] = c;
        mass[c] += p[order[i]];
        sum += p[order[i]];
    }
}

/* Pairs of classes against the product of their probabilities. */
static double pair_statistic(const double (*seen)[CLASSES], const double *mass, double n,
                             double *freedom) {
    double statistic = 0, bins = 0;
    for (uint32_t a = 0; a < CLASSES; a++) {
        for (uint32_t b = 0; b < CLASSES; b++) {
            const double expected = n * mass[a] * mass[b];
            if (expected == 0) continue; /* a very likely token may leave a class empty */
            statistic += (seen[a][b] - expected) * (seen[a][b] - expected) / expected;
            bins++;
        }
    }
    *freedom = bins - 1;
    return statistic;
}

static void draws_are_independent(test *t) {
    SKIP_SANITIZED(t);
    const float *logits = new_logits(t, SMALL);
    const uint32_t *tokens = plain_draws(t, logits);
    if (tokens == NULL) return;
    const uint32_t counts[SMALL] = { 0 };
    const ref_sampler s = { .temperature = 1, .repeat = 1 };
    double z[SMALL], p[SMALL], mass[CLASSES] = { 0 };
    uint32_t order[SMALL], class[SMALL];
    ref_adjust(z, logits, counts, &s, SMALL);
    ref_distribution(p, order, z, &s, SMALL);
    classes_of(p, order, class, mass);
    /* Draws 2 i and 2 i + 1 of a sequence; the same draw of sequences 2 i and 2 i + 1, whose seeds
     * are neighbours; and, as a fault, every draw with itself. */
    static const struct {
        const char *what;
        uint32_t distance; /* to the other of a pair */
        bool independent;
    } kinds[] = {
        { "successive draws", 1, true },
        { "neighbouring seeds", LENGTH, true },
        { "a draw and itself", 0, false },
    };
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        double seen[CLASSES][CLASSES] = { { 0 } }, freedom, n = 0;
        for (uint32_t i = 0; i < SEQUENCES * LENGTH; i++) {
            if (kinds[k].distance > 0 && i / kinds[k].distance % 2 != 0) continue;
            seen[class[tokens[i]]][class[tokens[i + kinds[k].distance]]]++;
            n++;
        }
        const double x = pair_statistic((const double(*)[CLASSES])seen, mass, n, &freedom);
        CHECK_MSG(t, (x <= chi_square_limit(freedom)) == kinds[k].independent,
                  "%s: chi-square %g of %g over %g", kinds[k].what, x, chi_square_limit(freedom),
                  freedom);
    }
}

/* ---- exact statements ---------------------------------------------------------------------- */

/* Draws `steps` tokens of one sampler as answer `place` of n; the others have other seeds. */
static bool draw_beside(test *t, uint32_t vocab, const float *logits, const ref_sampler *s,
                        uint32_t n, uint32_t place, uint32_t steps, uint32_t *tokens) {
    ref_sampler *samplers = spread(t, s, n, 5000);
    samplers[place] = *s;
    uint32_t *all = test_alloc(t, (size_t)n * steps, 4);
    race q;
    const bool ok =
        race_open(&q, t, vocab, n, logits, NULL, samplers) && race_draw(&q, steps, false, all);
    race_close(&q);
    memcpy(tokens, all + (size_t)place * steps, steps * 4);
    return ok;
}

enum { FEW = 40 };

static const ref_sampler typical = {
    .temperature = 1, .top_k = 40, .top_p = 0.95f, .repeat = 1, .seed_low = 12345
};

static void seeds_decide(test *t) {
    const float *logits = new_logits(t, 2000);
    uint32_t first[FEW], again[FEW], other[FEW];
    if (!draw_beside(t, 2000, logits, &typical, 1, 0, FEW, first)) return;
    if (!draw_beside(t, 2000, logits, &typical, 1, 0, FEW, again)) return;
    CHECK(t, memcmp(first, again, sizeof(first)) == 0);
    for (uint32_t i = 0; i < 3; i++) {
        ref_sampler s = typical;
        s.seed_low += i == 0;
        s.seed_high += i == 1;
        s.draws += i == 2 ? FEW : 0; /* later draws of the same seed */
        if (!draw_beside(t, 2000, logits, &s, 1, 0, FEW, other)) return;
        CHECK_MSG(t, memcmp(first, other, sizeof(first)) != 0, "change %u changes nothing", i);
    }
    /* The counter alone decides where in its numbers a sequence is: after 10 draws come draws 10,
     * ... */
    ref_sampler later = typical;
    later.draws = 10;
    if (!draw_beside(t, 2000, logits, &later, 1, 0, FEW, other)) return;
    CHECK(t, memcmp(first + 10, other, (FEW - 10) * 4) == 0);
}

static void neighbours_do_not_matter(test *t) {
    const float *logits = new_logits(t, 2000);
    uint32_t alone[FEW], beside[FEW];
    if (!draw_beside(t, 2000, logits, &typical, 1, 0, FEW, alone)) return;
    static const uint32_t places[][2] = { { 2, 1 }, { 7, 3 }, { 16, 15 } };
    for (size_t i = 0; i < ARRAY_LEN(places); i++) {
        if (!draw_beside(t, 2000, logits, &typical, places[i][0], places[i][1], FEW, beside))
            return;
        CHECK(t, memcmp(alone, beside, sizeof(alone)) == 0);
    }
}

static void one_is_greedy(test *t) {
    float *logits = new_logits(t, 3000);
    static const ref_sampler ones[] = {
        { .temperature = 0, .repeat = 1, .seed_low = 3 },
        { .temperature = 1, .repeat = 1, .seed_low = 3, .top_k = 1 },
        { .temperature = 5, .repeat = 1, .seed_low = 3, .top_p = 1e-6f },
        { .temperature = 1, .repeat = 1, .seed_low = 3, .min_p = 1 },
    };
    logits[2500] = 30; /* no tie, far ahead of none: the filters must do it */
    logits[17] = 29.999f;
    for (size_t i = 0; i < ARRAY_LEN(ones); i++) {
        uint32_t tokens[FEW];
        if (!draw_beside(t, 3000, logits, &ones[i], 3, 1, FEW, tokens)) return;
        for (uint32_t j = 0; j < FEW; j++)
            CHECK_U64(t, tokens[j], 2500);
    }
    /* Equal logits in three chunks and in one lane's turn: the lowest id. */
    logits[900] = logits[900 - LANES] = logits[2900] = 30;
    uint32_t token;
    if (draw_beside(t, 3000, logits, &ones[0], 1, 0, 1, &token)) CHECK_U64(t, token, 900 - LANES);
    /* Ties at the edge of top-k are all kept: four tokens are drawn, and only they. */
    uint32_t tokens[FEW], drawn[4] = { 0 };
    if (!draw_beside(t, 3000, logits, &ones[1], 1, 0, FEW, tokens)) return;
    for (uint32_t j = 0; j < FEW; j++) {
        const uint32_t which[4] = { 900 - LANES, 900, 2500, 2900 };
        bool known = false;
        for (uint32_t k = 0; k < 4; k++) {
            drawn[k] += tokens[j] == which[k];
            known |= tokens[j] == which[k];
        }
        CHECK_MSG(t, known, "token %u is not among the best", tokens[j]);
    }
    /* One of four missing in 40 draws: 4 (3/4)^40 = 4e-5, and the seed is fixed. */
    for (uint32_t k = 0; k < 4; k++)
        CHECK(t, drawn[k] > 0);
}

static const test_case cases[] = {
    { "draws from 50 tokens follow the exact distribution", small_vocabulary },
    { "draws from 128,256 tokens follow the exact distribution", large_vocabulary },
    { "a temperature off by 8 % fails the chi-square", another_temperature_is_seen },
    { "successive draws and neighbouring seeds are independent", draws_are_independent },
    { "seed and counter alone decide the draws", seeds_decide },
    { "draws do not depend on the batch", neighbours_do_not_matter },
    { "a filter that leaves one token is greedy, ties go to the lowest id", one_is_greedy },
};
const test_group sampling_tests = { "sampling", cases, ARRAY_LEN(cases) };
