/* quant-table: prints the table of docs/quantise.md: what each block type loses, and its cost.
 *
 *     quant-table [MILLIONS]     weights per figure in millions; 1 without, 16 for steady times
 *     quant-table --plain F32.gguf LIKE.gguf
 *                                gives the first the values that plain methods would have made of
 *                                them in the formats of the second: for perplexity beside ours
 *
 * Relative error sqrt(sum (x - y)^2 / sum x^2) of rows of 1,024 made-up weights of four kinds, ours
 * beside the plain method of the format: levels from the least to the largest value of a sub-block
 * (or out to the value of largest size), scales rounded as the format wants, each value to the
 * nearest level. The plain methods exist here alone, in plain floats without bytes: only their
 * errors are wanted. Times are one thread's processor time for normal rows, the best of eight
 * parts, since a busy machine slows some. */
#include "format/format.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { COLS = 1024, KINDS = 4 };

static const char *const kinds[KINDS] = { "normal", "heavy-tailed", "positive", "mixed scales" };

static uint64_t random_state;

static double next_uniform(void) { /* splitmix64 (Steele, Lea, Flood 2014), in (0, 1) */
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    return ((double)(z >> 11) + 0.5) * 0x1p-53;
}

static double next_normal(void) { /* Box and Muller 1958 */
    const double radius = sqrt(-2 * log(next_uniform()));
    return radius * cos(6.283185307179586 * next_uniform());
}

/* Heavy-tailed: Student's t with 3 degrees of freedom; mixed: a scale to 16 weights, log-normal. */
static void make_row(int kind, float *x) {
    double scale = 1;
    for (int i = 0; i < COLS; i++) {
        double z = next_normal();
        if (kind == 1) {
            const double a = next_normal(), b = next_normal(), c = next_normal();
            z /= sqrt((a * a + b * b + c * c) / 3);
        }
        if (kind == 2) z = fabs(z);
        if (kind == 3 && i % 16 == 0) scale = exp(next_normal());
        x[i] = (float)(0.02 * scale * z);
    }
}

/* ---- plain methods ------------------------------------------------------------------------- */

static float half(float x) {
    return f16_to_f32(f32_to_f16(x));
}

/* How a format is described for its plain method. */
typedef struct {
    dtype type;
    int n;        /* elements of a sub-block */
    int steps;    /* of an offset format, or from zero to the longer end of a signed one */
    bool offset;  /* levels from the least to the largest value */
    int multiple; /* largest multiple of scale and minimum in a super-block; 0: halves themselves */
} plain_format;

static const plain_format formats[] = {
    { DTYPE_Q2_K, 16, 3, true, 15 },      { DTYPE_Q3_K, 16, 4, false, 31 },
    { DTYPE_IQ4_XS, 32, 127, false, 31 }, { DTYPE_MXFP4, 32, 0, false, 0 },
    { DTYPE_Q4_0, 32, 8, false, 0 },      { DTYPE_IQ4_NL, 32, 127, false, 0 },
    { DTYPE_Q4_K, 32, 15, true, 63 },     { DTYPE_Q4_1, 32, 15, true, 0 },
    { DTYPE_Q5_0, 32, 16, false, 0 },     { DTYPE_Q5_K, 32, 31, true, 63 },
    { DTYPE_Q5_1, 32, 31, true, 0 },      { DTYPE_Q6_K, 16, 32, false, 127 },
    { DTYPE_Q8_0, 32, 127, false, 0 },
};

/* Nearest of the levels that the format's decoder has for a scale of 1. */
static float nearest_of(const float *levels, int n, float v) {
    float best = levels[0];
    for (int i = 1; i < n; i++) {
        if (fabsf(v - levels[i]) < fabsf(v - best)) best = levels[i];
    }
    return best;
}

/* The 16 levels of IQ4_NL and MXFP4, from their decoders by a block with the scale 1. */
static void list_levels(dtype type, float levels[16]) {
    uint8_t block[18] = { 0, 0x3c }; /* d = 1 */
    float out[32];
    const bool mxfp4 = type == DTYPE_MXFP4;
    if (mxfp4) block[0] = 128; /* 2^(e - 128) */
    for (int i = 0; i < 16; i++)
        block[(mxfp4 ? 1 : 2) + i] = (uint8_t)i;
    quant_decode(mxfp4 ? type : DTYPE_IQ4_NL, block, out, 32);
    memcpy(levels, out, 16 * sizeof(float));
}

static void plain_signed(const plain_format *f, const float *x, float step, float *y) {
    float levels[16];
    const bool listed = f->type == DTYPE_IQ4_NL || f->type == DTYPE_IQ4_XS;
    if (listed) list_levels(f->type, levels);
    for (int i = 0; i < f->n; i++) {
        const float v = step != 0 ? x[i] / step : 0;
        const float most = f->type == DTYPE_Q8_0 ? 127 : (float)(f->steps - 1);
        const float q = roundf(v < -(float)f->steps ? -(float)f->steps : v > most ? most : v);
        y[i] = step * (listed ? nearest_of(levels, 16, v) : q);
    }
}

static void plain_mxfp4(const float *x, float *y) {
    float largest = 0, levels[16];
    list_levels(DTYPE_MXFP4, levels);
    for (int i = 0; i < 32; i++)
        largest = fmaxf(largest, fabsf(x[i]));
    const float unit = largest > 0 ? ldexpf(1, (int)ilogbf(largest) - 3) : 1; /* to 8..16 units */
    for (int i = 0; i < 32; i++)
        y[i] = unit * nearest_of(levels, 16, x[i] / unit);
}

/* One super-block, or 256 elements of smaller ones. */
static void plain_block(const plain_format *f, const float *x, float *y) {
    float steps[16], minima[16], most_step = 0, most_minimum = 0;
    const int subs = 256 / f->n;
    for (int k = 0; k < subs; k++) {
        const float *s = x + f->n * k;
        float low = s[0], high = s[0];
        for (int i = 1; i < f->n; i++) {
            low = fminf(low, s[i]);
            high = fmaxf(high, s[i]);
        }
        if (f->offset) {
            if (f->multiple > 0) low = fminf(low, 0);
            steps[k] = (high - low) / (float)f->steps;
            minima[k] = -low;
        } else {
            const float extreme = high > -low ? high : low;
            steps[k] = f->type == DTYPE_Q8_0 ? fabsf(extreme) / 127 : extreme / -(float)f->steps;
            minima[k] = 0;
        }
        most_step = fmaxf(most_step, fabsf(steps[k]));
        most_minimum = fmaxf(most_minimum, minima[k]);
    }
    const float d = half(most_step / (float)f->multiple);
    const float dmin = half(most_minimum / (float)f->multiple);
    for (int k = 0; k < subs; k++) {
        const float *s = x + f->n * k;
        float *out = y + f->n * k, step = half(steps[k]), minimum = half(minima[k]);
        if (f->multiple > 0) {
            step = d > 0 ? d * roundf(steps[k] / d) : 0;
            minimum = dmin > 0 ? dmin * roundf(minima[k] / dmin) : 0;
        }
        if (f->type == DTYPE_MXFP4) {
            plain_mxfp4(s, out);
        } else if (!f->offset) {
            plain_signed(f, s, step, out);
        } else {
            for (int i = 0; i < f->n; i++) {
                const float v = step > 0 ? roundf((s[i] + minimum) / step) : 0;
                out[i] = step * fminf(fmaxf(v, 0), (float)f->steps) - minimum;
            }
        }
    }
}

/* ---- the table ----------------------------------------------------------------------------- */

static double squares(const float *x, const float *y) {
    double sum = 0;
    for (int i = 0; i < COLS; i++) {
        const double off = (double)x[i] - (y != NULL ? (double)y[i] : 0);
        sum += off * off;
    }
    return sum;
}

static double processor_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void print_line(const plain_format *f, long rows) {
    enum { PARTS = 8 };
    const dtype_info *info = dtype_get(f->type);
    double seconds[PARTS] = { 0 }, least = INFINITY;
    printf("| %s | %.4g |", info->name, 8.0 * info->block_bytes / info->block_elements);
    for (int kind = 0; kind < KINDS; kind++) {
        double ours = 0, plain = 0, power = 0;
        random_state = (uint64_t)kind;
        for (long r = 0; r < rows; r++) {
            float x[COLS], y[COLS];
            uint8_t bytes[4 * COLS];
            make_row(kind, x);
            const double start = processor_seconds();
            quant_encode(f->type, x, NULL, bytes, COLS);
            if (kind == 0) seconds[r / (rows / PARTS)] += processor_seconds() - start;
            quant_decode(f->type, bytes, y, COLS);
            ours += squares(x, y);
            for (int i = 0; i < COLS; i += 256)
                plain_block(f, x + i, y + i);
            plain += squares(x, y);
            power += squares(x, NULL);
        }
        printf(" %.5f / %.5f |", sqrt(ours / power), sqrt(plain / power));
    }
    for (int i = 0; i < PARTS; i++)
        least = fmin(least, seconds[i]);
    printf(" %.0f |\n", least / ((double)(rows / PARTS) * COLS) * 1e9);
}

/* ---- a whole model by the plain methods ---------------------------------------------------- */

static void end(const dp_error *err) {
    fprintf(stderr, "quant-table: %s\n", err->message);
    exit(1);
}

static const plain_format *plain_of(dtype type) {
    for (size_t i = 0; i < ARRAY_LEN(formats); i++) {
        if (formats[i].type == type) return &formats[i];
    }
    return NULL;
}

static void make_plain(const char *path, const char *like_path) {
    dp_error err = { 0 };
    container *model = container_open(path, false, &err);
    container *like = container_open(like_path, false, &err);
    if (model == NULL || like == NULL) end(&err);
    file *f = file_open(path, &err);
    out_file *out = f != NULL ? out_file_open(path, file_size(f), &err) : NULL;
    if (out == NULL) end(&err);
    for (uint32_t i = 0; i < container_n_tensors(model); i++) {
        const tensor *t = container_tensor(model, i);
        char name[128];
        snprintf(name, sizeof(name), "%.*s", STR_ARG(t->name));
        const tensor *twin = container_find(like, name);
        const plain_format *format = twin != NULL ? plain_of(twin->type) : NULL;
        if (format == NULL) continue;
        if (t->type != DTYPE_F32 || t->n_elements % 256 != 0) {
            err_set(&err, DP_E_ARGUMENT, "%s: %s is not F32 or no multiple of 256", path, name);
            end(&err);
        }
        for (uint64_t at = 0; at < t->n_elements; at += 256) {
            float x[256], y[256];
            if (!container_read(model, t, at * 4, x, sizeof(x), &err)) end(&err);
            plain_block(format, x, y);
            if (!out_file_write(out, t->offset + at * 4, y, sizeof(y), &err)) end(&err);
        }
    }
    out_file_close(out);
    file_close(f);
    container_close(model);
    container_close(like);
}

int main(int argc, char **argv) {
    if (argc == 4 && strcmp(argv[1], "--plain") == 0) {
        make_plain(argv[2], argv[3]);
        return 0;
    }
    const double millions = argc > 1 ? strtod(argv[1], NULL) : 1;
    if (argc > 2 || !(millions > 0 && millions <= 1e4)) {
        fprintf(stderr, "usage: quant-table [MILLIONS] | --plain F32.gguf LIKE.gguf\n");
        return 2;
    }
    printf("| type | bits |");
    for (int kind = 0; kind < KINDS; kind++)
        printf(" %s |", kinds[kind]);
    printf(" s / 10^9 |\n|---|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < ARRAY_LEN(formats); i++) {
        print_line(&formats[i], ((long)(millions * 1e6 / COLS) / 8 + 1) * 8);
    }
    return 0;
}
