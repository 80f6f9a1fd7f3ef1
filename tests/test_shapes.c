/* Shapes of workgroups: whichever of those that its operations offer tuning may choose, a model has
 * the logits of the double reference.
 *
 * The models are made here, since those of tests/vectors are too narrow: with 64 or 256 columns all
 * but the first part of a product's columns, and all but the first step of its lanes, are empty.
 * Tolerances are those of test_model.c, which derives them. */
#include "model/ops_internal.h"
#include "ref/ref.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>

enum {
    DIM = 512, /* steps and parts of a product, also of lanes in teams of 8 */
    FFN = 1024,
    N_LAYERS = 2, /* the second's input is made by the first */
    N_HEADS = 8,
    N_KV_HEADS = 2,
    HEAD_DIM = 64,
    VOCAB = 64,
    N_TOKENS = 72,  /* more than a short prompt has, and than one span */
    CONTEXT = 2048, /* for which there are buffers for so many spans */
    N_EXPERTS = 3,  /* of a mixture, all of which every token takes: rounding decides nothing */
};
static const double BOUND = 2e-2, INT8_WORST = 0.25, INT8_MEAN = 5e-2; /* of the deviation */

/* ---- the model ----------------------------------------------------------------------------- */

typedef struct {
    test *t;
    buf list, data; /* of a safetensors file: the header's entries, the half floats */
} model_writer;

static void write_tensor(model_writer *w, const char *name, uint32_t rows, uint32_t cols,
                         double mean, double deviation) {
    const size_t n = (size_t)rows * cols;
    const float *x = test_randn(w->t, n);
    uint16_t *halves = test_alloc(w->t, n, sizeof *halves);
    for (size_t i = 0; i < n; i++)
        halves[i] = f32_to_f16((float)(mean + deviation * (double)x[i]));
    const char *shape =
        rows > 1 ? test_printf(w->t, "%u,%u", rows, cols) : test_printf(w->t, "%u", cols);
    buf_printf(&w->list, "%s\"%s\":{\"dtype\":\"F16\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
               w->list.size > 0 ? "," : "", name, shape, w->data.size,
               w->data.size + n * sizeof *halves);
    buf_add(&w->data, halves, n * sizeof *halves);
}

typedef struct {
    const char *name;
    uint32_t rows, cols;
    double scale;
} matrix_shape;

static void write_matrix(model_writer *w, const matrix_shape *m, const char *prefix) {
    write_tensor(w, test_printf(w->t, "%s.%s.weight", prefix, m->name), m->rows, m->cols, 0,
                 m->scale / sqrt(m->cols));
}

static void write_layer(model_writer *w, uint32_t layer, bool experts) {
    static const matrix_shape attention[] = {
        { "self_attn.q_proj", N_HEADS * HEAD_DIM, DIM, 3 }, /* some keys count more than others */
        { "self_attn.k_proj", N_KV_HEADS * HEAD_DIM, DIM, 1 },
        { "self_attn.v_proj", N_KV_HEADS * HEAD_DIM, DIM, 1 },
        { "self_attn.o_proj", DIM, N_HEADS * HEAD_DIM, 1 },
    };
    static const matrix_shape dense[] = { { "mlp.gate_proj", FFN, DIM, 1 },
                                          { "mlp.up_proj", FFN, DIM, 1 },
                                          { "mlp.down_proj", DIM, FFN, 1 } };
    static const matrix_shape router = { "block_sparse_moe.gate", N_EXPERTS, DIM, 1 };
    static const matrix_shape expert[] = { { "w1", FFN, DIM, 1 },
                                           { "w3", FFN, DIM, 1 },
                                           { "w2", DIM, FFN, 1 } };
    static const char *const norms[] = { "input_layernorm", "post_attention_layernorm" };
    const char *prefix = test_printf(w->t, "model.layers.%u", layer);
    for (size_t i = 0; i < ARRAY_LEN(attention); i++)
        write_matrix(w, &attention[i], prefix);
    for (size_t i = 0; i < ARRAY_LEN(dense) && !experts; i++)
        write_matrix(w, &dense[i], prefix);
    for (size_t i = 0; i < N_EXPERTS * ARRAY_LEN(expert) && experts; i++) {
        write_matrix(
            w, &expert[i % ARRAY_LEN(expert)],
            test_printf(w->t, "%s.block_sparse_moe.experts.%zu", prefix, i / ARRAY_LEN(expert)));
    }
    if (experts) write_matrix(w, &router, prefix);
    for (size_t i = 0; i < ARRAY_LEN(norms); i++)
        write_tensor(w, test_printf(w->t, "%s.%s.weight", prefix, norms[i]), 1, DIM, 1, 0.1);
}

/* A Llama or a Mixtral in half floats: the folder. */
static const char *write_model(test *t, bool experts) {
    model_writer w = { .t = t };
    buf whole;
    buf_init(&w.list, 1 << 16);
    buf_init(&w.data, 1 << 25);
    buf_init(&whole, 1 << 25);
    write_tensor(&w, "model.embed_tokens.weight", VOCAB, DIM, 0, 1 / sqrt(DIM));
    for (uint32_t i = 0; i < N_LAYERS; i++)
        write_layer(&w, i, experts);
    write_tensor(&w, "model.norm.weight", 1, DIM, 1, 0.1);
    const uint64_t n = w.list.size + 2;
    buf_add(&whole, &n, sizeof n);
    buf_printf(&whole, "{%s}", (const char *)w.list.data);
    buf_add(&whole, w.data.data, w.data.size);
    CHECK(t, buf_ok(&w.data, "weights", &t->err) && buf_ok(&whole, "weights", &t->err));
    test_write(t, "model.safetensors", whole.data, whole.size);
    const char *mixture = test_printf(
        t, "\"num_local_experts\":%d,\"num_experts_per_tok\":%d,\"sliding_window\":null,",
        N_EXPERTS, N_EXPERTS);
    const char *description = test_printf(
        t,
        "{\"architectures\":[\"%s\"],\"model_type\":\"%s\",\"hidden_act\":\"silu\",%s"
        "\"hidden_size\":%d,\"intermediate_size\":%d,\"num_hidden_layers\":%d,"
        "\"num_attention_heads\":%d,\"num_key_value_heads\":%d,\"head_dim\":%d,\"vocab_size\":%d,"
        "\"max_position_embeddings\":%d,\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,"
        "\"tie_word_embeddings\":true,\"torch_dtype\":\"float16\"}",
        experts ? "MixtralForCausalLM" : "LlamaForCausalLM", experts ? "mixtral" : "llama",
        experts ? mixture : "", DIM, FFN, N_LAYERS, N_HEADS, N_KV_HEADS, HEAD_DIM, VOCAB, CONTEXT);
    test_write(t, "config.json", description, strlen(description));
    buf_free(&w.list);
    buf_free(&w.data);
    buf_free(&whole);
    return test_folder(t);
}

/* ---- what the reference says --------------------------------------------------------------- */

typedef struct {
    dp_token tokens[N_TOKENS];
    double *logits; /* [N_TOKENS, VOCAB] */
    double deviation;
    bool int8; /* the device rounds activations */
} reference;

static bool ask_reference(test *t, const char *path, reference *f) {
    ref_model *m = ref_model_open(path, &t->err);
    if (!CHECK_MSG(t, m != NULL, "%s", t->err.message)) return false;
    const size_t n = (size_t)N_TOKENS * VOCAB;
    double sum = 0, squares = 0;
    f->logits = test_alloc(t, n, sizeof *f->logits);
    for (int i = 0; i < N_TOKENS; i++)
        f->tokens[i] = (dp_token)test_below(t, VOCAB);
    const bool ok = CHECK(t, ref_forward(m, f->tokens, N_TOKENS, f->logits, &t->err));
    for (size_t i = 0; i < n; i++) {
        sum += f->logits[i];
        squares += f->logits[i] * f->logits[i];
    }
    f->deviation = sqrt(squares / (double)n - sum / (double)n * (sum / (double)n));
    ref_model_close(m);
    return ok;
}

/* How far logits are off, in passes of one kind. */
typedef struct {
    double worst, squares;
    uint32_t n_rows, row; /* where the worst is */
} errors;

/* Logits of rows [first, first + n). */
static void add_errors(errors *e, const reference *f, const float *got, uint32_t first,
                       uint32_t n) {
    for (uint32_t i = 0; i < n * VOCAB; i++) {
        const double d = fabs((double)got[i] - f->logits[(size_t)first * VOCAB + i]);
        if (d > e->worst || isnan(d)) { /* which stays */
            e->worst = d;
            e->row = first + i / VOCAB;
        }
        e->squares += d * d;
    }
    e->n_rows += n;
}

static void check_errors(test *t, const errors *e, const reference *f, const char *passes) {
    const double bound = BOUND + (f->int8 ? INT8_WORST : 0), worst = e->worst / f->deviation;
    const double mean = sqrt(e->squares / ((double)e->n_rows * VOCAB)) / f->deviation;
    CHECK_MSG(t, worst <= bound, "%s: a logit of row %u off by %g deviations, bound %g", passes,
              e->row, worst, bound);
    CHECK_MSG(t, !f->int8 || mean <= INT8_MEAN, "%s: logits off by %g deviations, bound %g", passes,
              mean, INT8_MEAN);
}

/* ---- passes -------------------------------------------------------------------------------- */

/* Passes of up to 8 and up to 16 rows, in one span and in several. */
static void check_few_rows(test *t, dp_session *s, const reference *f) {
    enum { FEW = 5, ALL = FEW + DECODE_ROWS };
    float *logits = test_floats(t, (size_t)N_TOKENS * VOCAB);
    errors e = { .n_rows = 0 };
    CHECK(t, dp_session_rewind(s, 0, &t->err));
    for (uint32_t i = 0, n; i < N_TOKENS; i += n) {
        n = min_u32(i % ALL == 0 ? FEW : DECODE_ROWS, N_TOKENS - i);
        CHECK(t, dp_session_eval_all(s, f->tokens + i, n, logits + (size_t)i * VOCAB, &t->err));
    }
    add_errors(&e, f, logits, 0, N_TOKENS);
    check_errors(t, &e, f, "a few rows");
}

/* From the last one back, since the cache keeps what is in front: several spans, one. */
static void check_one_row(test *t, dp_session *s, const reference *f) {
    static const uint32_t list[] = { 71, 70, 66, 64, 63, 62, 40, 32, 31, 7, 1, 0 };
    float logits[VOCAB];
    errors e = { .n_rows = 0 };
    for (size_t i = 0; i < ARRAY_LEN(list); i++) {
        CHECK(t, dp_session_rewind(s, list[i], &t->err));
        CHECK(t, dp_session_eval(s, f->tokens + list[i], 1, &t->err));
        CHECK(t, dp_session_get_logits(s, logits, &t->err));
        add_errors(&e, f, logits, list[i], 1);
    }
    check_errors(t, &e, f, "one row");
}

/* Many rows, a short prompt's, and of either as prompts of several sessions. */
static void check_many_rows(test *t, dp_session *const s[3], const reference *f) {
    static const uint32_t list[][3] = {
        { N_TOKENS, 0, 0 }, { 50, 0, 0 }, { 50, 13, 17 }, { 31, 20, 2 }
    };
    float logits[VOCAB];
    errors e = { .n_rows = 0 };
    for (size_t i = 0; i < ARRAY_LEN(list); i++) {
        dp_batch_item items[3];
        const size_t n = list[i][1] > 0 ? 3 : 1;
        for (size_t k = 0; k < n; k++) {
            items[k] = (dp_batch_item){ .session = s[k], .tokens = f->tokens, .n = list[i][k] };
            CHECK(t, dp_session_rewind(s[k], 0, &t->err));
        }
        CHECK(t, dp_batch_eval(items, n, &t->err));
        for (size_t k = 0; k < n; k++) {
            CHECK(t, dp_session_get_logits(s[k], logits, &t->err));
            add_errors(&e, f, logits, list[i][k] - 1, 1);
        }
    }
    check_errors(t, &e, f, "prompts");
}

/* ---- shapes -------------------------------------------------------------------------------- */

/* Asks every operation for its shapes, and makes those numbered i the tuned ones, modulo how many
 * there are. */
typedef struct {
    tuner base; /* first: the recorder knows this part */
    test *t;
    uint32_t i, most;
} shape_forcer;

static const tuned_shape *force_shape(recorder *r, const tuned_question *q) {
    shape_forcer *f = (shape_forcer *)r->tuner;
    CHECK(f->t, tuned_put(&r->m->tuned, q->key, q->shapes[f->i % q->n].name, &f->t->err));
    f->most = max_u32(f->most, q->n);
    return &q->shapes[0]; /* whose calls are not recorded: base.takes is false */
}

/* Passes with the i-th shapes; how many the operation with most of them has. */
static uint32_t force_shapes(test *t, dp_model *m, uint32_t i) {
    shape_forcer f = { .base = { .choose = force_shape }, .t = t, .i = i };
    for (pass_kind kind = PASS_ONE; kind < m->shapes.n_kinds; kind++) {
        for (int head = 0; head < 2; head++) {
            gpu_plan *plan = gpu_plan_new(m->gpu, &t->err);
            if (!CHECK(t, plan != NULL)) return 0;
            forward_record_part(m, kind, head, plan, &f.base, &t->err);
            gpu_plan_free(plan);
        }
    }
    return CHECK(t, forward_record_again(m, &t->err)) ? f.most : 0;
}

/* Kernels of passes, those with the first shapes in front. */
typedef struct {
    const gpu_kernel *list[1024];
    size_t n, n_first;
} kernel_set;

static void add_kernels(test *t, kernel_set *set, const gpu_plan *plan) {
    for (uint32_t i = 0; i < gpu_plan_n_calls(plan); i++) {
        const gpu_kernel *k = gpu_plan_call(plan, i)->kernel;
        size_t at = 0;
        while (at < set->n && set->list[at] != k)
            at++;
        if (at == set->n && CHECK(t, at < ARRAY_LEN(set->list))) set->list[set->n++] = k;
    }
}

static void add_pass_kernels(test *t, kernel_set *set, const dp_model *m) {
    for (pass_kind kind = PASS_ONE; kind < m->shapes.n_kinds; kind++) {
        add_kernels(t, set, m->body[kind][0]);
        add_kernels(t, set, m->head[kind]);
    }
}

/* All operations that have other shapes on this device have run in them. */
static void check_others(test *t, const dp_model *m, const kernel_set *set) {
    const bool rows = matmul_takes_rows(m->gpu), matrix = matrix_is_used(m);
    const bool software = is_software(m->gpu), teams = gpu_info(m->gpu)->subgroups;
    const bool bytes = m->shapes.int8 && dtype_is_quantised(m->weights.head.type);
    const bool experts = m->config.n_experts > 0;
    const bool no_tiles =
        matrix && m->shapes.f16 && !software && attend_matrix_fits(m->gpu, HEAD_DIM);
    const struct {
        const char *name; /* with what follows it in a kernel's */
        bool expected;
    } list[] = {
        { "project ", true },
        { "project_add ", true },
        { "project_glu ", !experts },
        { "expert_glu ", experts },
        { "expert_add ", experts },
        { "attend_decode ", teams }, /* on a software GPU in one span */
        { "attend_decode_tree ", software || !teams },
        { "attend_prefill ", !no_tiles },
        { "matvec ", software && !rows },
        { "matmul ", !rows && !matrix && (!bytes || experts) }, /* a router is in floats */
        { "matmul_q8 ", !rows && !matrix && bytes },
        { "matmul_matrix ", matrix },
        { "norm ", true },
        { "rope ", true },
    };
    for (size_t i = 0; i < ARRAY_LEN(list); i++) {
        size_t n = 0;
        for (size_t k = set->n_first; k < set->n; k++)
            n += str_starts(str_of(gpu_kernel_name(set->list[k])), list[i].name);
        CHECK_MSG(t, (n > 0) == list[i].expected, "%zu other kernels %s", n, list[i].name);
    }
}

static void check_shapes(test *t, dp_model *m, dp_session *const s[3], const reference *f) {
    kernel_set *set = test_alloc(t, 1, sizeof *set);
    const uint32_t n = force_shapes(t, m, 0);
    add_pass_kernels(t, set, m);
    set->n_first = set->n;
    for (uint32_t i = 0; i < n; i++) {
        test_row(t, "shapes %u", i);
        if (i > 0) force_shapes(t, m, i);
        add_pass_kernels(t, set, m);
        check_few_rows(t, s[0], f);
        check_one_row(t, s[0], f);
        check_many_rows(t, s, f);
    }
    check_others(t, m, set);
}

/* Rows have several spans from 65 keys on, in place of hundreds, and a software GPU too a call for
 * one row in one span. */
static void make_spans_short(test *t, dp_model *m) {
    CHECK(t, m->shapes.n_splits >= ceil_div(N_TOKENS, KV_PAGE));
    m->shapes.span = KV_PAGE;
    m->shapes.whole_keys = gpu_info(m->gpu)->subgroups ? 2 * KV_PAGE : 0;
}

static void *open_shapes_device(test *t) {
    dp_device_options options = test_device_options();
    options.no_int8 |= test_option("no-int8") != NULL;
    return dp_device_open(&options, &t->err);
}

static void close_shapes_device(void *d) {
    dp_device_close(d);
}

static void all_shapes_are_right(test *t, const char *path) {
    const dp_model_options options = { .context = CONTEXT, .sessions = 3, .batch = 128 };
    reference f = { .logits = NULL };
    if (!ask_reference(t, path, &f)) return;
    dp_device *d = test_shared(t, "device of shapes", open_shapes_device, close_shapes_device);
    dp_model *m = CHECK(t, d != NULL) ? dp_model_open(d, path, &options, &t->err) : NULL;
    dp_session *s[3] = { NULL };
    bool ok = CHECK_MSG(t, m != NULL, "%s", t->err.message);
    for (int i = 0; i < 3 && ok; i++)
        ok = CHECK(t, (s[i] = dp_session_new(m, &t->err)) != NULL);
    if (ok) {
        f.int8 = m->shapes.int8 && dtype_is_quantised(m->weights.head.type);
        make_spans_short(t, m);
        check_shapes(t, m, s, &f);
    }
    for (int i = 0; i < 3; i++)
        dp_session_free(s[i]);
    dp_model_close(m);
}

static void all_shapes_of_half_floats_are_right(test *t) {
    if (SANITIZED) SKIP(t, "sanitized: the work is the device's");
    all_shapes_are_right(t, write_model(t, false));
}

static void check_in_q4_k(test *t, bool experts) {
    if (SANITIZED) SKIP(t, "sanitized: the work is the device's");
    const char *path = test_printf(t, "%s/q4_k.gguf", test_folder(t));
    const dp_convert_options how = { .quantize = "q4_k_s", .threads = 2 };
    if (CHECK(t, dp_convert(write_model(t, experts), path, &how, NULL, &t->err)))
        all_shapes_are_right(t, path);
}

static void all_shapes_of_q4_k_are_right(test *t) {
    check_in_q4_k(t, false);
}

static void all_shapes_of_experts_are_right(test *t) {
    check_in_q4_k(t, true);
}

static const test_case cases[] = {
    { "all shapes of half floats are right", all_shapes_of_half_floats_are_right },
    { "all shapes of Q4_K are right", all_shapes_of_q4_k_are_right },
    { "all shapes of experts are right", all_shapes_of_experts_are_right },
};
const test_group shapes_tests = { "shapes", cases, ARRAY_LEN(cases) };
