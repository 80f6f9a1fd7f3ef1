/* check: the rig and the list of what is checked.
 *
 * Every output is the middle of a buffer of its own, with guard words in front (outside the
 * binding) and behind (inside it, so that an index which the implementation clamps still lands
 * there). Random numbers depend on the row's name alone: a row can be run by itself. */
#include "ref/check_internal.h"

#include <math.h>
#include <stdio.h>

/* ---- random numbers and memory ------------------------------------------------------------- */

void *rig_alloc(rig *r, size_t n, size_t size) {
    void *memory = arena_new(&r->memory, n, size, "a check", NULL);
    assert(memory != NULL);
    return memory;
}

/* splitmix64 (Steele, Lea and Flood 2014) */
static uint64_t next(rig *r) {
    uint64_t z = r->random += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint32_t rig_below(rig *r, uint32_t limit) {
    return (uint32_t)((next(r) >> 32) * limit >> 32);
}

double rig_uniform(rig *r) {
    return (double)(next(r) >> 11) * 0x1p-53;
}

double rig_normal(rig *r) {
    const double radius = sqrt(-2 * log(1 - rig_uniform(r)));
    return radius * cos(6.283185307179586 * rig_uniform(r));
}

float *rig_normals(rig *r, size_t n, double scale) {
    float *x = rig_alloc(r, n, sizeof(float));
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(scale * rig_normal(r));
    return x;
}

float *rig_sparse(rig *r, uint32_t n, uint32_t cols) {
    const uint32_t every = max_u32(cols / 24, 1);
    float *x = rig_alloc(r, (size_t)n * cols, sizeof(float));
    for (uint32_t t = 0; t < n; t++) {
        for (uint32_t i = 0; i < cols; i++) {
            if (i >= 4 && (i + t) % every != 0) continue;
            const float magnitude = 1 + (float)rig_below(r, 512) / 512; /* exact in 11 bits */
            x[(size_t)t * cols + i] = rig_below(r, 2) == 0 ? magnitude : -magnitude;
        }
    }
    return x;
}

uint32_t *rig_shuffled(rig *r, uint32_t n) {
    uint32_t *x = rig_alloc(r, n, sizeof(*x));
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t j = rig_below(r, i + 1);
        x[i] = x[j];
        x[j] = i;
    }
    return x;
}

double *rig_doubles(rig *r, const float *x, size_t n) {
    double *y = rig_alloc(r, n, sizeof(*y));
    for (size_t i = 0; i < n; i++)
        y[i] = (double)x[i];
    return y;
}

/* ---- operands ------------------------------------------------------------------------------ */

const rig_format rig_formats[RIG_FORMATS] = {
    { DTYPE_F32, &weight_f32_part, "f32" },
    { DTYPE_F16, &weight_f16_part, "f16" },
    { DTYPE_BF16, &weight_bf16_part, "bf16" },
    { DTYPE_Q4_0, &weight_q4_0_part, "q4_0" },
    { DTYPE_Q4_1, &weight_q4_1_part, "q4_1" },
    { DTYPE_Q5_0, &weight_q5_0_part, "q5_0" },
    { DTYPE_Q5_1, &weight_q5_1_part, "q5_1" },
    { DTYPE_Q8_0, &weight_q8_0_part, "q8_0" },
    { DTYPE_Q4_K, &weight_q4_k_part, "q4_k" },
    { DTYPE_Q5_K, &weight_q5_k_part, "q5_k" },
    { DTYPE_Q6_K, &weight_q6_k_part, "q6_k" },
    { DTYPE_Q2_K, &weight_q2_k_part, "q2_k" },
    { DTYPE_Q3_K, &weight_q3_k_part, "q3_k" },
    { DTYPE_IQ4_NL, &weight_iq4_nl_part, "iq4_nl" },
    { DTYPE_IQ4_XS, &weight_iq4_xs_part, "iq4_xs" },
    { DTYPE_MXFP4, &weight_mxfp4_part, "mxfp4" },
};

uint32_t rig_reduces(const rig *r, rig_reduce out[2]) {
    const dp_device_info *info = gpu_info(r->g);
    out[0] = (rig_reduce){ &reduce_tree_part, 16 };
    out[1] = (rig_reduce){ &reduce_subgroup_part, min_u32(info->subgroup_size, 32) };
    return info->subgroups ? 2 : 1;
}

static gpu_buffer *new_buffer(rig *r, const void *bytes, size_t size) {
    assert(r->n_buffers < RIG_OPERANDS);
    gpu_buffer *b = gpu_buffer_new(r->g, size, "check", &r->err);
    r->buffers[r->n_buffers++] = b;
    if (b != NULL && !gpu_write(r->g, gpu_whole(b), bytes, &r->err)) return NULL;
    return b;
}

gpu_range rig_in(rig *r, const void *bytes, size_t size) {
    const size_t padded = align_up(size, 16);
    uint8_t *copy = rig_alloc(r, padded + RIG_GUARD, 1);
    for (size_t i = 0; i < (padded + RIG_GUARD) / 4; i++) {
        memcpy(copy + 4 * i, &(uint32_t){ RIG_PATTERN }, 4);
    }
    memcpy(copy, bytes, size);
    gpu_buffer *b = new_buffer(r, copy, padded + RIG_GUARD);
    return (gpu_range){ b, 0, padded + RIG_GUARD };
}

bool rig_plant(rig *r) {
    const bool now = r->options->plant == PLANT_INPUT && !r->planted;
    r->planted |= now;
    return now;
}

gpu_range rig_numbers(rig *r, const float *x, size_t n, size_t plant) {
    float *copy = rig_alloc(r, n, sizeof(float));
    memcpy(copy, x, n * sizeof(float));
    if (rig_plant(r)) copy[plant] += 8;
    return rig_in(r, copy, n * sizeof(float));
}

gpu_range rig_words(rig *r, const uint32_t *x, size_t n, size_t plant) {
    uint32_t *copy = rig_alloc(r, n, 4);
    memcpy(copy, x, n * 4);
    if (rig_plant(r)) copy[plant] ^= 1;
    return rig_in(r, copy, n * 4);
}

gpu_range rig_sizes(rig *r, const uint32_t sizes[4]) {
    return (gpu_range){ new_buffer(r, sizes, 16), 0, 16 };
}

rig_output *rig_out(rig *r, const void *before, size_t n) {
    assert(r->n_outputs < RIG_OPERANDS);
    const size_t front = gpu_alignment(r->g) / 4, total = front + n + RIG_GUARD / 4;
    uint32_t *words = rig_alloc(r, total, 4);
    for (size_t i = 0; i < total; i++)
        words[i] = RIG_PATTERN;
    if (before != NULL) memcpy(words + front, before, n * 4);
    rig_output *o = &r->outputs[r->n_outputs++];
    *o = (rig_output){
        .range = { new_buffer(r, words, total * 4), front * 4, total * 4 - front * 4 },
        .before = words + front,
        .after = (uint32_t *)rig_alloc(r, total, 4) + front,
        .n = n,
    };
    r->n_bytes += n * 4;
    return o;
}

float rig_float(const rig_output *o, size_t i) {
    assert(i < o->n);
    float x;
    memcpy(&x, &o->after[i], 4);
    return x;
}

/* Where a block of the type has its f16 scale and minimum (-1: none), the greatest |w / scale|, and
 * what the minimum is multiplied by at most. MXFP4's scale is a byte, the first. */
typedef struct {
    int at_d, at_m;
    double most, most_m;
} block_scales;

static block_scales scales_of(dtype type) {
    static const block_scales all[DTYPE_COUNT] = {
        [DTYPE_Q4_0] = { 0, -1, 8, 0 },        [DTYPE_Q4_1] = { 0, 2, 15, 1 },
        [DTYPE_Q5_0] = { 0, -1, 16, 0 },       [DTYPE_Q5_1] = { 0, 2, 31, 1 },
        [DTYPE_Q8_0] = { 0, -1, 128, 0 },      [DTYPE_Q2_K] = { 80, 82, 15 * 3, 15 },
        [DTYPE_Q3_K] = { 108, -1, 32 * 4, 0 }, [DTYPE_Q4_K] = { 0, 2, 63 * 15, 63 },
        [DTYPE_Q5_K] = { 0, 2, 63 * 31, 63 },  [DTYPE_Q6_K] = { 208, -1, 128 * 32, 0 },
        [DTYPE_IQ4_NL] = { 0, -1, 127, 0 },    [DTYPE_IQ4_XS] = { 0, -1, 32 * 127, 0 },
        [DTYPE_MXFP4] = { -1, -1, 12, 0 },
    };
    assert(all[type].most > 0);
    return all[type];
}

static void put_half(uint8_t *block, int at, double x) {
    const uint16_t half = f32_to_f16((float)x);
    if (at >= 0) memcpy(block + at, &half, 2);
}

/* Bytes of a type with an offset go from 0 to less than twice `most`'s share of it, Q6_K's 63 for
 * 32: a scaled byte and the offset are below three times `most`. */
double rig_block_most(dtype type, const uint8_t *block) {
    const block_scales s = scales_of(type);
    if (type == DTYPE_MXFP4) return ldexp(s.most, block[0] - 128);
    uint16_t d = 0, m = 0;
    memcpy(&d, block + s.at_d, 2);
    if (s.at_m >= 0) memcpy(&m, block + s.at_m, 2);
    return 3 * s.most * fabs((double)f16_to_f32(d)) + s.most_m * fabs((double)f16_to_f32(m));
}

static void random_blocks(rig *r, dtype type, uint8_t *bytes, size_t n_bytes) {
    const size_t block = dtype_get(type)->block_bytes;
    const block_scales s = scales_of(type);
    for (size_t i = 0; i < n_bytes; i++)
        bytes[i] = (uint8_t)rig_below(r, 256);
    for (size_t b = 0; b < n_bytes; b += block) {
        const double sign = rig_below(r, 2) == 0 ? 1 : -1, d = (0.5 + rig_uniform(r)) * 2 / s.most;
        put_half(bytes + b, s.at_d, sign * d);
        /* A minimum of K formats is multiplied by up to 63 or 15, the other kind is added as it is.
         */
        const double unit = s.most_m > 1 ? 2 / s.most_m : 1;
        put_half(bytes + b, s.at_m, (rig_uniform(r) - 0.5) * unit + unit);
        if (type == DTYPE_MXFP4) bytes[b] = (uint8_t)(123 + rig_below(r, 3)); /* 12 / 8 at most */
    }
}

/* Gives all blocks but the first scales at the ends of their range, in turn. */
static void extreme_scales(dtype type, uint8_t *bytes, size_t n_bytes) {
    /* zeros, the least and the largest subnormal, the least normal number, the largest */
    static const double halves[] = { 0, -0.0, 0x1p-24, -0x3ffp-24, 0x1p-14, 65504, -65504 };
    static const uint8_t exponents[] = { 1, 0, 2, 3, 252, 253, 254, 255 };
    const size_t block = dtype_get(type)->block_bytes;
    const block_scales s = scales_of(type);
    for (size_t i = 1; i < n_bytes / block; i++) {
        uint8_t *b = bytes + i * block;
        put_half(b, s.at_d, halves[i % ARRAY_LEN(halves)]);
        put_half(b, s.at_m, halves[(i + 3) % ARRAY_LEN(halves)]);
        if (type != DTYPE_MXFP4) continue;
        b[0] = exponents[i % ARRAY_LEN(exponents)];
        for (size_t k = 1; k < block; k++) { /* finite products: |M| at most 6, 3, 1 */
            if (b[0] >= 253) b[k] &= b[0] == 253 ? 0xdd : b[0] == 254 ? 0xbb : 0x99;
        }
    }
}

/* Numbers of the three float types; none so small that a device may flush it to zero. */
static void random_floats(rig *r, dtype type, uint8_t *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) {
        float x = (float)rig_normal(r);
        if (fabsf(x) < 1e-3f) x = 1e-3f;
        const uint16_t half = type == DTYPE_F16 ? f32_to_f16(x) : f32_to_bf16(x);
        if (type == DTYPE_F32)
            memcpy(bytes + 4 * i, &x, 4);
        else
            memcpy(bytes + 2 * i, &half, 2);
    }
}

/* Flips bits of one byte among the first row's weights so that one of them moves by 1/4 or more. */
static void corrupt(dtype type, uint8_t *bytes, size_t n_bytes, size_t cols) {
    const size_t block =
        min_u64(dtype_get(type)->block_bytes * (dtype_is_quantised(type) ? 1 : 4), n_bytes);
    const size_t n = block / dtype_get(type)->block_bytes * dtype_get(type)->block_elements;
    float was[256], is[256];
    quant_decode(type, bytes, was, n);
    for (size_t i = block; i-- > 0;) {
        bytes[i] ^= 0x88;
        quant_decode(type, bytes, is, n);
        for (size_t j = 0; j < min_u64(n, cols); j++) {
            const double moved = fabs((double)is[j] - (double)was[j]);
            if (moved >= 0.25 && moved < 100) return;
        }
        bytes[i] ^= 0x88;
    }
    assert(!"a weight that can be moved");
}

/* Rows that are filled up to whole blocks: what stands behind the last column is as random as the
 * rest, and counts for nothing. */
static void decode_rows(rig *r, dtype type, const uint8_t *bytes, uint64_t row_bytes, size_t rows,
                        size_t cols, float *out) {
    const size_t block = dtype_get(type)->block_elements;
    const size_t padded = (cols + block - 1) / block * block;
    float *row = rig_alloc(r, padded, sizeof(float));
    for (size_t i = 0; i < rows; i++) {
        const bool known = quant_decode(type, bytes + i * row_bytes, row, padded);
        assert(known);
        (void)known;
        memcpy(out + i * cols, row, cols * sizeof *out);
    }
}

static gpu_range new_weights(rig *r, dtype type, size_t rows, size_t cols, bool extreme,
                             float **decoded) {
    uint64_t row_bytes;
    const bool sized = dtype_padded_row_bytes(type, cols, &row_bytes);
    assert(sized);
    const size_t n_bytes = rows * row_bytes, n = rows * cols;
    uint8_t *bytes = rig_alloc(r, n_bytes, 1);
    if (dtype_is_quantised(type))
        random_blocks(r, type, bytes, n_bytes);
    else
        random_floats(r, type, bytes, n);
    if (extreme) extreme_scales(type, bytes, n_bytes);
    r->blocks = bytes;
    *decoded = rig_alloc(r, n, sizeof(float));
    decode_rows(r, type, bytes, row_bytes, rows, cols, *decoded);
    if (rig_plant(r)) corrupt(type, bytes, n_bytes, cols);
    uint64_t device_bytes = 0;
    const bool read = device_row_bytes(type, cols, &device_bytes);
    assert(read);
    (void)read;
    uint8_t *on_device = rig_alloc(r, rows * device_bytes, 1);
    device_rows(type, (uint32_t)cols, rows, bytes, on_device);
    return rig_in(r, on_device, rows * device_bytes);
}

gpu_range rig_weights(rig *r, dtype type, size_t rows, size_t cols, float **decoded) {
    return new_weights(r, type, rows, cols, false, decoded);
}

gpu_range rig_extreme_weights(rig *r, dtype type, size_t rows, size_t cols, float **decoded) {
    return new_weights(r, type, rows, cols, true, decoded);
}

/* ---- a row --------------------------------------------------------------------------------- */

bool rig_begin(rig *r, const char *kernel, const char *reason, const char *shape, ...) {
    const char *filter = r->options->filter;
    if (r->stopped || (filter != NULL && strstr(kernel, filter) == NULL)) return false;
    if (r->options->brief && strcmp(kernel, r->last) == 0) return false;
    if (r->walk != NULL && r->at++ != r->walk->row) {
        snprintf(r->last, sizeof(r->last), "%s", kernel);
        return false;
    }
    *r = (rig){ .g = r->g,
                .options = r->options,
                .walk = r->walk,
                .at = r->at,
                .n = r->n,
                .n_failed = r->n_failed };
    snprintf(r->kernel, sizeof(r->kernel), "%s", kernel);
    snprintf(r->last, sizeof(r->last), "%s", kernel);
    va_list args;
    va_start(args, shape);
    vsnprintf(r->shape, sizeof(r->shape), shape, args);
    va_end(args);
    r->reason = reason;
    static const uint64_t key[2] = { 1, 2 };
    r->random =
        hash_bytes(key, r->kernel, strlen(r->kernel)) ^ hash_bytes(key, r->shape, strlen(r->shape));
    r->plan = gpu_plan_new(r->g, &r->err);
    return true;
}

void rig_call(rig *r, const gpu_source *source, const gpu_fragment *const *fragments,
              const void *consts, gpu_call call) {
    if (r->err.status != DP_OK) return;
    call.kernel = gpu_kernel_get(r->g, source, fragments, consts, &r->err);
    gpu_plan_add(r->plan, &call);
}

static void check_guards(rig *r, const rig_output *o) {
    const size_t front = gpu_alignment(r->g) / 4;
    for (size_t i = 1; i <= front; i++) {
        if (o->after[-(ptrdiff_t)i] != RIG_PATTERN) {
            snprintf(r->problem, sizeof(r->problem), "wrote %zu words before output %zu", i,
                     (size_t)(o - r->outputs));
        }
    }
    for (size_t i = 0; i < RIG_GUARD / 4; i++) {
        if (o->after[o->n + i] != RIG_PATTERN) {
            snprintf(r->problem, sizeof(r->problem), "wrote %zu words behind output %zu", i + 1,
                     (size_t)(o - r->outputs));
        }
    }
}

static bool submit(rig *r, gpu_ticket *ticket) {
    gpu_encoder *e = gpu_begin(r->g);
    gpu_encode(e, r->plan, &(gpu_sizes){ { 1, 1, 1, 1, 1, 1, 1, 1 } });
    return gpu_submit(e, ticket, &r->err);
}

/* What is read back of an output: its whole buffer. */
static uint32_t *read_place(const rig_output *o) {
    return o->after - o->range.offset / 4;
}

static bool plant_guard(rig *r, const rig_output *o) {
    const gpu_range behind = { o->range.buffer, o->range.offset + o->n * 4, 4 };
    return r->options->plant != PLANT_GUARD || gpu_write(r->g, behind, &(uint32_t){ 0 }, &r->err);
}

static bool run_and_wait(rig *r) {
    gpu_ticket ticket;
    if (!submit(r, &ticket)) return false;
    gpu_wait(r->g, ticket);
    bool ok = gpu_collect(r->g, ticket, NULL, 0, &r->err);
    for (uint32_t i = 0; i < r->n_outputs && ok; i++) {
        const rig_output *o = &r->outputs[i];
        ok =
            plant_guard(r, o) && gpu_read(r->g, gpu_whole(o->range.buffer), read_place(o), &r->err);
    }
    return ok;
}

/* ---- a row where nothing may wait ---------------------------------------------------------- */

static bool ask_outputs(rig *r) {
    check_walk *w = r->walk;
    w->n_tickets = 0;
    for (uint32_t i = 0; i < r->n_outputs; i++) {
        const rig_output *o = &r->outputs[i];
        if (!plant_guard(r, o)) return false;
        gpu_encoder *e = gpu_begin(r->g);
        gpu_encode_read(e, gpu_whole(o->range.buffer));
        if (!gpu_submit(e, &w->tickets[w->n_tickets], &r->err)) return false;
        w->n_tickets++;
    }
    return true;
}

static bool take_outputs(rig *r) {
    check_walk *w = r->walk;
    assert(w->n_tickets == r->n_outputs);
    bool ok = true;
    for (uint32_t i = 0; i < r->n_outputs; i++) {
        const rig_output *o = &r->outputs[i];
        const size_t size = (size_t)gpu_buffer_size(o->range.buffer);
        ok = gpu_collect(r->g, w->tickets[i], read_place(o), size, ok ? &r->err : NULL) && ok;
    }
    return ok;
}

/* True when the outputs are there. */
static bool run_stage(rig *r) {
    switch (r->walk->stage) {
    case CHECK_ASK:
        return false;
    case CHECK_QUEUE:
        (void)(submit(r, NULL) && ask_outputs(r));
        return false;
    default:
        return take_outputs(r);
    }
}

bool rig_run(rig *r) {
    if (r->err.status != DP_OK || !gpu_plan_finish(r->plan, &r->err)) return false;
    if (r->walk != NULL ? !run_stage(r) : !run_and_wait(r)) return false;
    for (uint32_t i = 0; i < r->n_outputs; i++)
        check_guards(r, &r->outputs[i]);
    r->ran = true;
    return true;
}

static void free_row(rig *r) {
    gpu_plan_free(r->plan);
    for (uint32_t i = 0; i < r->n_buffers; i++)
        gpu_buffer_free(r->buffers[i]);
    arena_free(&r->memory);
}

void rig_end(rig *r) {
    if (r->walk != NULL && r->err.status == DP_OK && !r->ran) { /* a stage of it to come */
        r->walk->stage++;
        r->stopped = true;
        free_row(r);
        return;
    }
    if (r->err.status != DP_OK) {
        snprintf(r->problem, sizeof(r->problem), "%.250s", r->err.message);
    } else {
        assert(r->ran && r->compared == r->n_bytes); /* every element of every output */
    }
    const check_row row = {
        .kernel = r->kernel,
        .shape = r->shape,
        .reason = r->reason,
        .problem = r->problem[0] != '\0' ? r->problem : NULL,
        .error = r->error,
        .bound = r->bound,
        .ok = !r->wrong && r->problem[0] == '\0',
    };
    r->n++;
    r->n_failed += !row.ok;
    r->stopped = !r->options->row(r->options->user, &row);
    free_row(r);
    if (r->walk != NULL) { /* the next row */
        r->walk->stage = r->stopped ? CHECK_DONE : CHECK_ASK;
        r->walk->row++;
        r->stopped = true;
    }
}

/* ---- comparing ----------------------------------------------------------------------------- */

/* Is this the element whose expected value PLANT_OUTPUT moves? The first of a row. */
static bool plant_here(rig *r) {
    const bool here = r->options->plant == PLANT_OUTPUT && !r->planted;
    r->planted |= here;
    return here;
}

static void tally(rig *r, double got, double want, double bound) {
    if (plant_here(r)) want += 2 * bound + fabs(want) * 1e-4 + 1e-30;
    const double error = got == want ? 0 : fabs(got - want);
    const bool wrong = !(error <= bound);
    /* The worst is the first wrong one, or else the one that has used most of its bound. */
    if (!r->wrong && (wrong || r->bound == 0 || error * r->bound > r->error * bound)) {
        r->error = error;
        r->bound = bound;
    }
    r->wrong |= wrong;
}

void rig_expect(rig *r, float got, double want, double bound) {
    tally(r, (double)got, want, bound);
    r->compared += 4;
}

void rig_expect_half(rig *r, uint16_t got, double want, double bound) {
    tally(r, (double)f16_to_f32(got), want, bound);
    r->compared += 2;
}

void rig_bits(rig *r, uint32_t got, uint32_t want) {
    if (plant_here(r)) want ^= 1;
    if (got != want && r->problem[0] == '\0') {
        snprintf(r->problem, sizeof(r->problem), "word %08x, expected %08x", got, want);
    }
    r->compared += 4;
}

void rig_kept(rig *r, const rig_output *o, size_t first, size_t n) {
    assert(first + n <= o->n);
    for (size_t i = first; i < first + n; i++)
        rig_bits(r, o->after[i], o->before[i]);
}

void rig_skip(rig *r, size_t n) {
    r->compared += 4 * n;
}

void rig_require(rig *r, bool holds, const char *problem) {
    if (!holds && r->problem[0] == '\0') snprintf(r->problem, sizeof(r->problem), "%s", problem);
}

/* ---- the list ------------------------------------------------------------------------------ */

static void run_table(rig *r) {
    static void (*const all[])(rig * r) = {
        check_embed,          check_norm,          check_qk_norm,      check_softcap,
        check_matvec,         check_matmul,        check_matmul_rows,  check_quantise,
        check_matmul_q8,      check_route,         check_expert_group, check_expert_matvec,
        check_expert_matmul,  check_rope,          check_decode,       check_prefill,
        check_expert_combine, check_glu,           check_scan,         check_select,
        check_draw,           check_finish,        check_logprobs,     check_watch,
        check_matrix,         check_attend_matrix, check_halves,       check_project,
        check_project_add,    check_project_glu,   check_ready,        check_matmul_half,
        check_router,         check_expert_glu,    check_expert_add,
    };
    gpu_lock(r->g);
    for (size_t i = 0; i < ARRAY_LEN(all) && !gpu_is_lost(r->g); i++)
        all[i](r);
    gpu_unlock(r->g);
}

static bool is_alive(const rig *r, dp_error *err) {
    return !gpu_is_lost(r->g) || err_set(err, DP_E_DEVICE, "the device was lost in %s", r->kernel);
}

bool check_ops(struct gpu *g, const check_options *o, uint32_t *n, uint32_t *n_failed,
               dp_error *err) {
    rig r = { .g = g, .options = o };
    run_table(&r);
    *n = r.n;
    *n_failed = r.n_failed;
    return is_alive(&r, err);
}

bool check_some(check_walk *w, dp_error *err) {
    assert(w->stage != CHECK_DONE);
    rig r = { .g = w->g, .options = w->options, .walk = w, .n = w->n, .n_failed = w->n_failed };
    run_table(&r);
    w->n = r.n;
    w->n_failed = r.n_failed;
    if (!r.stopped) w->stage = CHECK_DONE; /* there is no such row */
    return is_alive(&r, err);
}

bool check_device(const dp_device_options *device, const check_options *o, dp_device_info *info,
                  uint32_t *n, uint32_t *n_failed, dp_error *err) {
    gpu *g = gpu_open(device, err);
    if (g == NULL) return false;
    *info = *gpu_info(g);
    const bool ok = check_ops(g, o, n, n_failed, err);
    gpu_close(g);
    return ok;
}
