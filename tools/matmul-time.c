/* matmul-time: how long a product of many rows takes in every tile, on shapes of real models.
 *
 *     matmul-time [-t TYPE] [-n TOKENS] [-s ROWSxCOLS] [-a] [-r TEXT TEXT] [--webgpu PATH]
 *
 * Weights and inputs are patterns, not numbers: times do not depend on them. A time is the
 * difference between many and few repetitions in one submission, so that submitting does not count.
 * Prints microseconds and 2 n rows cols operations a second, the best of each shape marked; -a:
 * every tile, not only the best; -r: with one text of the kernel instead of another. Linked with
 * the library's objects: its inner functions are not public. */
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <time.h>

enum { REPEATS = 40, SHAPES = 12 };

typedef struct {
    gpu *g;
    dtype type;
    uint32_t rows, cols, n;
    gpu_buffer *w, *x, *q, *y, *part, *sizes, *none;
    gpu_source source; /* of matmul_q8, changed or not */
    dp_error err;
} bench;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void fail(const bench *b) {
    fprintf(stderr, "matmul-time: %s\n", b->err.message);
    exit(1);
}

static gpu_buffer *filled(bench *b, uint64_t size) {
    enum { PIECE = 1 << 20 };
    static uint32_t pattern[PIECE / 4];
    for (size_t i = 0; i < PIECE / 4; i++)
        pattern[i] = 0x2c012c01u ^ (uint32_t)(i * 2654435761u) >> 12 << 2 % 8;
    gpu_buffer *buffer = gpu_buffer_new(b->g, size, "time", &b->err);
    if (buffer == NULL) fail(b);
    for (uint64_t at = 0; at < size; at += PIECE) {
        const uint64_t bytes = (min_u64(PIECE, size - at) + 3) / 4 * 4;
        if (!gpu_write(b->g, (gpu_range){ buffer, at, bytes }, pattern, &b->err)) fail(b);
    }
    return buffer;
}

static void take_operands(bench *b) {
    uint64_t row_bytes = 0;
    if (!device_row_bytes(b->type, b->cols, &row_bytes)) exit(1);
    const uint64_t units = ceil_div(b->cols, 32);
    b->w = filled(b, row_bytes * b->rows);
    b->x = filled(b, (uint64_t)b->n * b->cols * 4);
    b->q = filled(b, (uint64_t)b->n * units * 48);
    b->y = filled(b, (uint64_t)b->n * b->rows * 4);
    b->part = filled(b, 8ull * b->n * b->rows * 4);
    b->none = filled(b, 256);
    b->sizes = gpu_buffer_new(b->g, 16, "sizes", &b->err);
    const uint32_t sizes[4] = { b->n, b->n, 0, 0 };
    if (b->sizes == NULL || !gpu_write(b->g, gpu_whole(b->sizes), sizes, &b->err)) fail(b);
}

static void drop_operands(bench *b) {
    gpu_buffer *const all[] = { b->w, b->x, b->q, b->y, b->part, b->none, b->sizes };
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        gpu_buffer_free(all[i]);
}

static const gpu_fragment *part_of(dtype type) {
    char name[64];
    snprintf(name, sizeof(name), "%s", dtype_get(type)->name);
    for (char *c = name; *c; c++)
        *c = (char)(*c >= 'A' && *c <= 'Z' ? *c + 32 : *c);
    for (size_t i = 0; i < N_PARTS; i++) {
        if (strcmp(all_parts[i]->slot, "weight") == 0 && strcmp(all_parts[i]->name, name) == 0)
            return all_parts[i];
    }
    fprintf(stderr, "matmul-time: no fragment for %s\n", name);
    exit(2);
}

/* One repetition: the product and, if its columns are split, the sum. */
static void add_q8(bench *b, gpu_plan *plan, const matmul_tile *t, uint32_t step, uint32_t copies,
                   uint32_t splits) {
    const q8_weight shape = q8_weight_of(b->type);
    const uint32_t units = ceil_div(b->cols, 32);
    const matmul_q8_consts consts = {
        .k = b->cols, .scale = 1, .x_per = 1, .halves = shape.halves, .low = shape.low,
        .offset = shape.offset, .pairs = shape.pairs, .buffers = copies, .split = splits > 1,
        .step = step, .row_lanes = t->row_lanes,
        .token_lanes = t->token_lanes,
    };
    const matmul_q8_params params = { .rows = b->rows, .stride = b->rows, .n_max = b->n,
                                      .units = ceil_div(ceil_div(units, splits), step) * step };
    const gpu_range none = gpu_whole(b->none);
    gpu_plan_add(plan, &(gpu_call){
        .kernel = gpu_kernel_get(b->g, &b->source,
                                 (const gpu_fragment *[]){ part_of(b->type), t->lanes }, &consts,
                                 &b->err),
        .bind = { gpu_whole(b->w), [MATMUL_Q8_X] = gpu_whole(b->q), [MATMUL_Q8_BIAS] = none,
                  [MATMUL_Q8_SIZES] = gpu_whole(b->sizes),
                  [MATMUL_Q8_Y] = gpu_whole(splits > 1 ? b->part : b->y),
                  [MATMUL_Q8_ORDER] = none, [MATMUL_Q8_EXPERT_TILES] = none,
                  [MATMUL_Q8_PLACE] = none },
        .params = &params,
        .groups = { { .times = ceil_div(b->rows, t->rows) }, { .times = ceil_div(b->n, t->tokens) },
                    { .times = splits } },
    });
    if (splits == 1) return;
    gpu_plan_add(plan, &(gpu_call){
        .kernel = gpu_kernel_get(b->g, &matmul_sum_source, NULL,
                                 &(matmul_sum_consts){ .scale = 1, .splits = splits }, &b->err),
        .bind = { [MATMUL_SUM_PART] = gpu_whole(b->part), [MATMUL_SUM_BIAS] = none,
                  [MATMUL_SUM_Y] = gpu_whole(b->y) },
        .params = &(matmul_sum_params){ .rows = b->rows, .stride = b->rows, .n_max = b->n },
        .groups = { { .times = ceil_div(b->rows / 4, 64) }, { .times = b->n } },
    });
}

static double run_plan(bench *b, const gpu_plan *plan, uint32_t repeats) {
    double best = 1e9;
    for (int run = 0; run < 4; run++) {
        const double start = now();
        gpu_encoder *e = gpu_begin(b->g);
        for (uint32_t i = 0; i < repeats; i++)
            gpu_encode(e, plan, &(gpu_sizes){ { 1, 1, 1, 1, 1, 1 } });
        gpu_ticket ticket;
        if (!gpu_submit(e, &ticket, &b->err)) fail(b);
        gpu_wait(b->g, ticket);
        if (!gpu_collect(b->g, ticket, NULL, 0, &b->err)) fail(b);
        const double took = now() - start;
        if (run > 0 && took < best) best = took; /* the first warms up */
    }
    return best;
}

static double time_q8(bench *b, const matmul_tile *t, uint32_t step, uint32_t copies,
                      uint32_t splits) {
    gpu_plan *plan = gpu_plan_new(b->g, &b->err);
    if (plan == NULL) fail(b);
    add_q8(b, plan, t, step, copies, splits);
    if (b->err.status != DP_OK || !gpu_plan_finish(plan, &b->err)) fail(b);
    const double once = run_plan(b, plan, 1);
    const uint32_t many = once > 0.05 ? 3 : REPEATS;
    const double took = (run_plan(b, plan, many) - once) / (many - 1);
    gpu_plan_free(plan);
    return took;
}

static void time_shape(bench *b, bool all) {
    static const uint32_t steps[] = { 1, 2 }, splits[] = { 1, 2, 4, 8 };
    const uint32_t memory = gpu_info(b->g)->max_workgroup_memory;
    double best = 1e9;
    char line[160], best_line[160] = "";
    take_operands(b);
    for (size_t i = 0; i < MATMUL_TILES; i++) {
        for (size_t j = 0; j < 2 * ARRAY_LEN(steps); j++) {
            const matmul_tile *t = &matmul_tiles[i];
            const uint32_t step = steps[j / 2], copies = 1 + j % 2;
            if (matmul_q8_memory(t, step, copies) > memory) continue;
            for (size_t k = 0; k < ARRAY_LEN(splits); k++) {
                const uint32_t tiles = ceil_div(b->rows, t->rows) * ceil_div(b->n, t->tokens);
                if (splits[k] > 1 && tiles * splits[k] > 600) continue;
                const double took = time_q8(b, t, step, copies, splits[k]);
                const double ops = 2.0 * b->n * b->rows * b->cols / took * 1e-12;
                snprintf(line, sizeof(line),
                         "%ux%u n %u %s q8 %s step %u buffers %u splits %u: %.1f us, %.1f T/s",
                         b->rows, b->cols, b->n, dtype_get(b->type)->name, t->name, step, copies,
                         splits[k], took * 1e6, ops);
                if (all) puts(line);
                fflush(stdout);
                if (took >= best) continue;
                best = took;
                memcpy(best_line, line, sizeof(line));
            }
        }
    }
    printf("best: %s\n", best_line);
    fflush(stdout);
    drop_operands(b);
}

/* The text of matmul_q8 with `from` become `to`: for trying things. */
static const char *changed(const char *text, const char *from, const char *to) {
    const char *at = strstr(text, from);
    if (at == NULL) {
        fprintf(stderr, "matmul-time: the kernel has no '%s'\n", from);
        exit(2);
    }
    char *out = malloc(strlen(text) + strlen(to) + 1);
    if (out == NULL) exit(5);
    memcpy(out, text, (size_t)(at - text));
    strcpy(out + (at - text), to);
    strcat(out, at + strlen(from));
    return out;
}

int main(int argc, char **argv) {
    uint32_t shapes[SHAPES][2] = { { 2048, 2048 },  { 512, 2048 },  { 8192, 2048 },
                                   { 2048, 8192 },  { 3072, 2048 }, { 16384, 2048 },
                                   { 4096, 4096 },  { 1024, 4096 }, { 14336, 4096 },
                                   { 4096, 14336 }, { 6144, 4096 }, { 28672, 4096 } };
    size_t n_shapes = SHAPES;
    dp_device_options o = { 0 };
    bench b = { .type = DTYPE_Q4_K, .n = 512, .source = matmul_q8_source };
    bool all = false;
    enum { TEXTS = 16 };
    static char *texts[TEXTS]; /* of the kernel, as it was changed so far */
    size_t n_texts = 0;
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i], *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(arg, "-a") == 0) {
            all = true;
        } else if (strcmp(arg, "-n") == 0) {
            b.n = (uint32_t)strtoul(value, NULL, 10), i++;
        } else if (strcmp(arg, "--webgpu") == 0) {
            o.webgpu = value, i++;
        } else if (strcmp(arg, "-r") == 0 && i + 2 < argc) {
            if (n_texts == TEXTS) return 2;
            b.source.text = texts[n_texts++] = changed(b.source.text, argv[i + 1], argv[i + 2]);
            i += 2;
        } else if (strcmp(arg, "-s") == 0) {
            n_shapes = 1, i++;
            if (sscanf(value, "%ux%u", &shapes[0][0], &shapes[0][1]) != 2) return 2;
        } else if (strcmp(arg, "-t") == 0) {
            i++;
            for (b.type = 0; b.type < DTYPE_COUNT; b.type++) {
                const dtype_info *info = dtype_get(b.type);
                if (info != NULL && strcasecmp(info->name, value) == 0) break;
            }
            if (b.type == DTYPE_COUNT) return 2;
        } else {
            return 2;
        }
    }
    b.g = gpu_open(&o, &b.err);
    if (b.g == NULL) fail(&b);
    gpu_lock(b.g);
    for (size_t i = 0; i < n_shapes; i++) {
        b.rows = shapes[i][0], b.cols = shapes[i][1];
        time_shape(&b, all);
    }
    gpu_unlock(b.g);
    gpu_close(b.g);
    while (n_texts > 0)
        free(texts[--n_texts]);
    return 0;
}
