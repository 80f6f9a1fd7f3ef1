/* tune_check: one product of a pass alone, on inputs that are always the same, and whether it
 * computes in one shape what it computes in its first. */
#include "model/tune_internal.h"

#include <math.h>

enum {
    CHECK_ROWS = 160,      /* of a pass of many rows: a whole tile and a part of one */
    CHECK_SHORT_ROWS = 40, /* of a short one */
    CHECK_BYTES = 16 << 20,
};

/* ---- what a product reads and writes -------------------------------------------------------- */

static bool is_cache(const dp_model *m, const gpu_buffer *b) {
    for (uint32_t layer = 0; layer < m->config.n_layers; layer++) {
        if (b == m->buffers.keys[layer].buffer || b == m->buffers.values[layer].buffer) {
            return true;
        }
    }
    return false;
}

/* Is it numbers that a pass makes? Weights, tables and places stay as they are. */
static bool is_activation(const dp_model *m, const gpu_buffer *buffer) {
    const buffers *b = &m->buffers;
    const gpu_range *const list[] = {
        &b->x,     &b->y,      &b->xn,     &b->squares,  &b->qkv,           &b->q,
        &b->att,   &b->spans,  &b->gu,     &b->h,        &b->out,           &b->bytes,
        &b->parts, &b->logits, &b->router, &b->expert_x, &b->expert_squares, &b->expert_pairs
    };
    for (size_t i = 0; i < ARRAY_LEN(list); i++) {
        if (buffer == list[i]->buffer) {
            return true;
        }
    }
    return is_cache(m, buffer);
}

static bool is_squares(const buffers *b, const gpu_buffer *buffer) {
    return buffer == b->squares.buffer || buffer == b->expert_squares.buffer;
}

/* Is the range a result, and no intermediate? The stream is read and written. */
static bool is_output(const dp_model *m, const gpu_call *call, uint32_t binding) {
    const gpu_buffer *b = call->bind[binding].buffer;
    return is_activation(m, b) && !is_cache(m, b) && b != m->buffers.parts.buffer &&
           b != m->buffers.spans.buffer &&
           gpu_kernel_access(call->kernel, binding) == GPU_ACCESS_WRITE;
}

static uint64_t looked_at(gpu_range r) {
    return min_u64(r.size, CHECK_BYTES) / 4 * 4;
}

/* Are they pairs of half floats? */
static bool holds_halves(const dp_model *m, const gpu_buffer *b) {
    return b == m->buffers.bytes.buffer ? matrix_is_used(m) : m->shapes.f16 && is_cache(m, b);
}

/* The experts that pairs go to, each row's different ones, and that they count for one half. */
static bool prepare_pairs(const tuning *t, dp_error *err) {
    const config *c = &t->m->config;
    const gpu_range r = t->m->buffers.expert_pairs;
    const uint32_t n = (uint32_t)(r.size / 16);
    assert(r.size <= CHECK_BYTES);
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t pair[4] = { i % c->n_experts, i % c->n_experts, 0x3f000000 };
        memcpy(t->scratch + 4 * i, pair, sizeof pair);
    }
    return gpu_write(t->m->gpu, gpu_part(r, 0, 16ull * n), t->scratch, err);
}

/* Numbers of both signs from 1/2 to 1 whose lower bits look random: as good as floats, as signed
 * bytes with such scales or as half floats. What stands where a result belongs is no number. */
static bool fill(const tuning *t, gpu_range r, bool output, dp_error *err) {
    const buffers *b = &t->m->buffers;
    if (r.buffer == b->expert_pairs.buffer) {
        return prepare_pairs(t, err);
    }
    const uint64_t n = looked_at(r) / 4;
    /* Of a product's input all columns, which may lie far behind what is looked at of results. */
    const uint64_t all = r.buffer == b->bytes.buffer ? r.size / 4 * 4 : 4 * n;
    const bool halves = holds_halves(t->m, r.buffer), positive = is_squares(b, r.buffer);
    const bool nothing = output && r.buffer != b->x.buffer;
    const uint32_t half = halves ? 0x38003800 : 0x3f000000;
    const uint32_t random = halves ? 0x83ff83ff : positive ? 0x007fffff : 0x807fffff;
    uint32_t state = 1;
    for (uint64_t i = 0; i < n; i++) {
        state = state * 1664525 + 1013904223; /* Knuth's and Lewis' generator */
        t->scratch[i] = nothing ? 0x7fc00001 : half | ((state ^ state >> 15) & random);
    }
    bool ok = true;
    for (uint64_t at = 0; at < all && ok; at += 4 * n) {
        ok = gpu_write(t->m->gpu, gpu_part(r, at, min_u64(4 * n, all - at)), t->scratch, err);
    }
    return ok;
}

/* ---- running -------------------------------------------------------------------------------- */

bool tuning_prepare(tuning *t, dp_error *err) {
    const uint32_t n = t->m->shapes.n_pages;
    assert(n <= CHECK_BYTES / 4);
    for (uint32_t i = 0; i < n; i++) {
        t->scratch[i] = i;
    }
    return gpu_write(t->m->gpu, gpu_part(t->m->buffers.pages, 0, 4ull * n), t->scratch, err);
}

bool tuning_clean(const tuning *t, dp_error *err) {
    gpu_encoder *e = gpu_begin(t->m->gpu);
    for (uint32_t i = 0; i < t->m->n_buffers; i++) {
        if (is_activation(t->m, t->m->buffer_list[i])) {
            gpu_encode_clear(e, gpu_whole(t->m->buffer_list[i]));
        }
    }
    return gpu_submit(e, NULL, err);
}

bool tuning_pass(tuning *t, const tuned_product *p, uint32_t most, gpu_sizes *sizes,
                 dp_error *err) {
    const shapes *s = &t->m->shapes;
    const uint32_t keys = p->question.keys > 0 ? p->question.keys : tuned_keys(s);
    uint32_t rows = min_u32(pass_rows(p->kind, most), keys);
    rows = min_u32(rows, p->of_head ? min_u32(s->n_out, s->batch) : s->batch);
    pass q;
    pass_begin(&q, t->m);
    for (uint32_t i = 0; i < rows; i++) {
        pass_add_row(&q, 0, 0, keys - rows + i);
        if (p->of_head) {
            pass_want(&q, UINT32_MAX);
        }
    }
    *sizes = pass_sizes(&q);
    t->rows = rows;
    return pass_upload(&q, 0, 0, err);
}

/* Runs the plan, which is one product. */
static bool run_once(tuning *t, gpu_plan *plan, const tuned_product *p, dp_error *err) {
    const dp_model *m = t->m;
    gpu_sizes sizes;
    const uint32_t most = p->kind == PASS_SHORT ? CHECK_SHORT_ROWS : CHECK_ROWS;
    if (!tuning_pass(t, p, most, &sizes, err)) {
        return false;
    }
    for (uint32_t i = 0; i < gpu_plan_n_calls(plan); i++) {
        const gpu_call *call = gpu_plan_call(plan, i);
        for (uint32_t at = 0; at < GPU_BINDINGS; at++) {
            if (call->bind[at].buffer != NULL && is_activation(m, call->bind[at].buffer) &&
                !fill(t, call->bind[at], is_output(m, call, at), err)) {
                return false;
            }
        }
    }
    gpu_encoder *e = gpu_begin(m->gpu);
    gpu_encode(e, plan, &sizes);
    return gpu_submit(e, NULL, err);
}

/* ---- comparing ------------------------------------------------------------------------------ */

static float number_of_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Two sums of K products in another order differ by less than 2 D 2^-24 times the sum of the
 * products' magnitudes, D <= 64 + K / 32 being the additions that a product goes through (those of
 * its unit, of a lane's units, of lanes). That sum is at most sqrt(K) times the root of the sum
 * of squares (Cauchy), about sqrt(K) times the largest result as signs are random. What is made of
 * sums gets 8 times as much: of two with a gate |act'(g) u| + |act(g)| is at most 2.2 times the
 * largest of them, whose square is a few times the largest result; 16 squares added up need 2
 * sqrt(16); of a sum and a weight the weights are taken to be alike. */
static double rounding(uint32_t k, double most, bool of_sums) {
    return (of_sums ? 8 : 1) * 2 * (64 + k / 32.0) * 0x1p-24 * sqrt(k) * most;
}

static float larger_finite(float most, float x) {
    return fabsf(x) <= 3e38f && fabsf(x) > most ? fabsf(x) : most;
}

static bool are_floats_close(const uint32_t *want, const uint32_t *got, uint64_t n, uint32_t k,
                             bool of_sums) {
    float most = 0;
    for (uint64_t i = 0; i < n; i++) {
        most = larger_finite(most, number_of_bits(want[i]));
    }
    const double bound = rounding(k, most, of_sums);
    for (uint64_t i = 0; i < n; i++) {
        if (want[i] != got[i] &&
            !(fabs((double)number_of_bits(want[i]) - number_of_bits(got[i])) <= bound)) {
            return false;
        }
    }
    return true;
}

/* 16 signed bytes and their scale and sum (act_q8), of numbers that may differ by `bound`: each is
 * off by half of its step, and by the rounding of making it a byte, for which a thousandth is much.
 */
static bool are_halves_close(const uint32_t *want, const uint32_t *got, uint64_t bytes,
                             uint64_t scale, double bound) {
    if (memcmp(want + bytes, got + bytes, 16) == 0 && memcmp(want + scale, got + scale, 8) == 0) {
        return true;
    }
    const double a = number_of_bits(want[scale]), b = number_of_bits(got[scale]);
    const double most = 1.001 * (a + b) / 2 + bound;
    const double sums = (double)number_of_bits(want[scale + 1]) - number_of_bits(got[scale + 1]);
    const int8_t *x = (const int8_t *)(want + bytes), *y = (const int8_t *)(got + bytes);
    bool close = fabs(sums) <= 16 * most && a >= 0 && b >= 0;
    for (int i = 0; i < 16; i++) {
        close = close && fabs(x[i] * a - y[i] * b) <= most;
    }
    return close;
}

/* Rows of act_q8, made of sums of k products: planes of bytes, then of scales, an entry to a unit
 * of 32 columns. */
static bool are_bytes_close(const uint32_t *want, const uint32_t *got, uint64_t n, uint32_t cols,
                            uint32_t k) {
    enum { BYTE_MOST = 127 };
    const uint32_t units = cols / 32;
    const uint64_t row = 12ull * units;
    float most = 0;
    for (uint64_t first = 0; first + row <= n; first += row) {
        for (uint32_t half = 0; half < 2 * units; half++) {
            most = larger_finite(most, number_of_bits(want[first + 8ull * units + 2 * half]));
        }
    }
    const double bound = rounding(k, BYTE_MOST * (double)most, true);
    for (uint64_t first = 0; first + row <= n; first += row) {
        for (uint32_t half = 0; half < 2 * units; half++) {
            const uint64_t bytes = first + 4ull * (units * (half & 1) + half / 2);
            const uint64_t scale = first + 8ull * units + 2 * half;
            if (!are_halves_close(want, got, bytes, scale, bound)) {
                return false;
            }
        }
    }
    return true;
}

/* Pairs of a row and an expert: which, where it is, and how much it counts. */
static bool are_pairs_close(const uint32_t *want, const uint32_t *got, uint64_t n, uint32_t k) {
    for (uint64_t i = 0; i + 4 <= n; i += 4) {
        if (memcmp(want + i, got + i, 8) != 0 ||
            !are_floats_close(want + i + 2, got + i + 2, 1, k, true)) {
            return false;
        }
    }
    return true;
}

/* What is compared of a result. Behind the pass's rows no shape writes, but for matrix units: whole
 * blocks, whose results are of no use there. */
static uint64_t compared(const tuning *t, gpu_range r) {
    const shapes *s = &t->m->shapes;
    const uint32_t all = t->product->of_head ? s->n_out : s->batch;
    const bool blocks = pass_is_prefill(t->product->kind) && matrix_is_used(t->m);
    const uint64_t rows = blocks ? r.size / all / 4 * 4 * t->rows : r.size;
    return min_u64(rows, looked_at(r));
}

static bool is_close(const tuning *t, const tuned_question *q, gpu_range r, const uint32_t *want) {
    const uint64_t n = compared(t, r) / 4;
    const buffers *b = &t->m->buffers;
    const bool of_sums = is_squares(b, r.buffer) || r.buffer == b->xn.buffer ||
                         r.buffer == b->expert_x.buffer || r.buffer == b->h.buffer;
    if (r.buffer == b->expert_pairs.buffer) {
        return are_pairs_close(want, t->scratch, n, q->cols);
    }
    return q->act_cols > 0 && r.buffer == q->act.buffer
               ? are_bytes_close(want, t->scratch, n, q->act_cols, q->cols)
               : are_floats_close(want, t->scratch, n, q->cols, of_sums);
}

/* Reads what shape 0 has made into outputs[i], what another has made into scratch, to compare. */
static bool check_output(tuning *t, const tuned_question *q, gpu_range r, uint32_t i, bool *right,
                         dp_error *err) {
    const gpu_range part = gpu_part(r, 0, looked_at(r));
    if (t->shape == 0) {
        mem_free(t->outputs[i]);
        t->outputs[i] = mem_new(part.size / 4, 4, "results to compare", err);
        return t->outputs[i] != NULL && gpu_read(t->m->gpu, part, t->outputs[i], err);
    }
    if (!gpu_read(t->m->gpu, part, t->scratch, err)) {
        return false;
    }
    if (t->shape == t->how->spoilt &&
        (t->how->spoilt_result == 0 || t->how->spoilt_result == i + 1)) {
        /* of bytes a single word may be next to nothing */
        for (uint64_t at = 0; at < min_u64(64, part.size / 4); at++) {
            t->scratch[at] ^= 1u << 30;
        }
    }
    *right = *right && is_close(t, q, r, t->outputs[i]);
    return true;
}

/* All that a call writes; *n outputs were there before it. */
static bool check_outputs(tuning *t, const tuned_question *q, const gpu_call *call, uint32_t *n,
                          bool *right, dp_error *err) {
    for (uint32_t at = 0; at < GPU_BINDINGS; at++) {
        const gpu_range r = call->bind[at];
        if (r.buffer == NULL || !is_output(t->m, call, at)) {
            continue;
        }
        assert(*n < TUNE_OUTPUTS);
        if (!check_output(t, q, r, (*n)++, right, err)) {
            return false;
        }
    }
    return true;
}

bool tuning_check(tuning *t, const tuned_product *p, uint32_t shape, bool *right, dp_error *err) {
    gpu_plan *plan = tuning_plan(t, p, shape, 1, err);
    bool ok = plan != NULL && run_once(t, plan, p, err);
    uint32_t n = 0;
    *right = true;
    for (uint32_t i = 0; ok && i < gpu_plan_n_calls(plan); i++) {
        ok = check_outputs(t, &p->question, gpu_plan_call(plan, i), &n, right, err);
    }
    assert(!ok || n > 0);
    gpu_plan_free(plan);
    return ok;
}

bool tuning_check_begin(tuning *t, dp_error *err) {
    t->scratch = mem_new(CHECK_BYTES / 4, 4, "results to compare", err);
    return t->scratch != NULL;
}

void tuning_check_end(tuning *t) {
    for (int i = 0; i < TUNE_OUTPUTS; i++) {
        mem_free(t->outputs[i]);
    }
    mem_free(t->scratch);
}
