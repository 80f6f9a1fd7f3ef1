/* bench_stats: what samples say, and whether two sets of them differ.
 *
 * The test is Mann and Whitney's (1947) on ranks: it knows nothing of the distribution, and one
 * slow run among fast ones, which is what noise on a computer looks like, moves it little. Small
 * samples get the exact distribution of the rank sum, ties included, by counting subsets (the shift
 * algorithm of Streitberg and Roehmel 1986); large ones the normal approximation with the
 * correction for ties and for continuity. */
#include "app/bench_internal.h"

#include <math.h>
#include <stdlib.h>

enum {
    EXACT_MAX = 40,                          /* samples of both sides together */
    RANKS_MAX = EXACT_MAX * (EXACT_MAX + 1), /* twice the sum of all ranks: 2 * N (N + 1) / 2 */
};

void mean_and_deviation(const double *samples, size_t n, double *mean, double *deviation) {
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++)
        sum += samples[i];
    *mean = sum / (double)n;
    for (size_t i = 0; i < n; i++)
        squares += (samples[i] - *mean) * (samples[i] - *mean);
    *deviation = n > 1 ? sqrt(squares / (double)(n - 1)) : 0;
}

static int compare_doubles(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double quantile(double *samples, size_t n, double share) {
    if (n == 0) return NAN;
    qsort(samples, n, sizeof(*samples), compare_doubles);
    const double at = share * (double)(n - 1);
    const size_t low = (size_t)at;
    if (low + 1 >= n) return samples[n - 1];
    return samples[low] + (at - (double)low) * (samples[low + 1] - samples[low]);
}

double median_of(const double *samples, size_t n) {
    static double copy[SAMPLES_MAX];
    assert(n <= SAMPLES_MAX);
    if (n == 0) return NAN;
    memcpy(copy, samples, n * sizeof(*copy));
    return quantile(copy, n, 0.5);
}

typedef struct {
    double value;
    bool second; /* of the second set */
} ranked;

static int compare_ranked(const void *a, const void *b) {
    return compare_doubles(&((const ranked *)a)->value, &((const ranked *)b)->value);
}

/* The share of the subsets of n_a among n ranks (doubled, so that halves are whole) whose sum is as
 * far from its mean as `sum`. ways[k][s]: subsets of k ranks with the sum s. */
static double exact_chance(const uint32_t *ranks, size_t n, size_t n_a, uint32_t sum) {
    static double ways[EXACT_MAX + 1][RANKS_MAX + 1];
    memset(ways, 0, sizeof(ways));
    ways[0][0] = 1;
    for (size_t i = 0; i < n; i++) {
        for (size_t k = i < n_a ? i + 1 : n_a; k >= 1; k--) {
            for (uint32_t s = RANKS_MAX; s >= ranks[i]; s--)
                ways[k][s] += ways[k - 1][s - ranks[i]];
        }
    }
    const int64_t mean = (int64_t)(n_a * (n + 1)); /* doubled as the ranks are */
    const int64_t distance = llabs((int64_t)sum - mean);
    double all = 0, far = 0;
    for (int64_t s = 0; s <= RANKS_MAX; s++) {
        all += ways[n_a][s];
        if (llabs(s - mean) >= distance) far += ways[n_a][s];
    }
    return far / all;
}

double mann_whitney(const double *a, size_t n_a, const double *b, size_t n_b) {
    static ranked all[2 * SAMPLES_MAX];
    static uint32_t ranks[2 * SAMPLES_MAX]; /* doubled */
    const size_t n = n_a + n_b;
    assert(n_a <= SAMPLES_MAX && n_b <= SAMPLES_MAX);
    if (n_a == 0 || n_b == 0) return 1;
    for (size_t i = 0; i < n; i++)
        all[i] = (ranked){ i < n_a ? a[i] : b[i - n_a], i >= n_a };
    qsort(all, n, sizeof(*all), compare_ranked);
    double sum = 0, ties = 0;
    for (size_t i = 0; i < n;) {
        size_t end = i + 1;
        while (end < n && !(all[end].value > all[i].value))
            end++;
        const double t = (double)(end - i);
        ties += t * t * t - t;
        for (; i < end; i++) {
            ranks[i] = (uint32_t)(2 * end - (size_t)t + 1); /* equal values share their mean rank */
            if (!all[i].second) sum += ranks[i];
        }
    }
    if (n <= EXACT_MAX) return exact_chance(ranks, n, n_a, (uint32_t)sum);
    const double x = (double)n_a, y = (double)n_b, m = x + y;
    const double variance = x * y / 12 * (m + 1 - ties / (m * (m - 1)));
    const double distance = fabs(sum / 2 - x * (m + 1) / 2) - 0.5;
    if (variance <= 0 || distance <= 0) return 1;
    return erfc(distance / sqrt(2 * variance));
}
