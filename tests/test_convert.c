/* test_convert: models written again in other containers and formats, without a GPU.
 *
 * Whether two files are the same model is asked of the double reference: with equal descriptions
 * and equal weights it gives equal logits, to the bit, so nothing here needs a tolerance where only
 * the container changes. What quantisation costs is bounded where it is tested. */
#include "format/format.h"
#include "ref/ref.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>

enum { TOKENS = 24 };

/* ---- help ---------------------------------------------------------------------------------- */

static char *out_path(test *t, const char *name) {
    return test_printf(t, "%s/%s", test_folder(t), name);
}

static bool convert_with(test *t, const char *in, const char *out, dp_convert_options how) {
    how.threads = how.threads > 0 ? how.threads : 2;
    return CHECK_MSG(t, dp_convert(in, out, &how, NULL, &t->err), "%s", t->err.message);
}

static bool convert_to(test *t, const char *in, const char *out, const char *quantize) {
    return convert_with(t, in, out, (dp_convert_options){ .quantize = quantize });
}

/* Logits [TOKENS, vocab] of tokens that visit the whole vocabulary. */
static double *logits_of(test *t, const char *path, uint32_t *vocab) {
    ref_model *m = ref_model_open(path, &t->err);
    if (!CHECK_MSG(t, m != NULL, "%s", t->err.message)) return NULL;
    *vocab = ref_model_vocab(m);
    uint32_t tokens[TOKENS];
    for (uint32_t i = 0; i < TOKENS; i++)
        tokens[i] = (i * 37 + 5) % *vocab;
    double *logits = test_alloc(t, (size_t)TOKENS * *vocab, sizeof(double));
    const bool ok = ref_forward(m, tokens, TOKENS, logits, &t->err);
    ref_model_close(m);
    return CHECK_MSG(t, ok, "%s", t->err.message) ? logits : NULL;
}

static void same_logits(test *t, const char *a, const char *b) {
    uint32_t n_a = 0, n_b = 1;
    const double *x = logits_of(t, a, &n_a), *y = logits_of(t, b, &n_b);
    if (x == NULL || y == NULL || !CHECK_U64(t, n_b, n_a)) return;
    CHECK_MSG(t, memcmp(x, y, (size_t)TOKENS * n_a * sizeof(*x)) == 0, "logits of %s and %s differ",
              a, b);
}

static bool same_files(test *t, const char *a, const char *b) {
    const str x = test_read_file(t, a), y = test_read_file(t, b);
    return CHECK_MSG(t, x.data != NULL && y.data != NULL && str_equal(x, y), "%s and %s differ", a,
                     b);
}

/* ---- from container to container ----------------------------------------------------------- */

/* All folders of the tree; those that a GGUF file cannot hold with a part of the sentence. */
static const struct {
    const char *folder, *refused;
} FOLDERS[] = {
    { "models/llama2-mha", NULL },
    { "models/llama3-gqa", NULL },
    { "models/llama3-rope-parameters", NULL },
    { "models/mistral-head-dim", NULL },
    { "models/smollm2-heads", NULL },
    { "models/mqa-head-256", NULL },
    { "models/stories-ffn-172", NULL },
    { "models/llama-bias", NULL },
    { "models/llama-rope-linear", NULL },
    { "families/gemma2", NULL },
    { "families/gemma3", NULL },
    { "families/gemma3-4b", NULL },
    { "families/gpt-oss", NULL },
    { "families/gpt-oss-bf16", NULL },
    { "families/gpt2", NULL },
    { "families/gpt2-bare", NULL },
    { "families/granite", NULL },
    { "families/llama-dynamic", "dynamic" },
    { "families/llama-yarn", NULL },
    { "families/mistral-window", NULL },
    { "families/mixtral", NULL },
    { "families/olmo2", NULL },
    { "families/phi3", NULL },
    { "families/phi3-longrope", NULL },
    { "families/phi4-mini", NULL },
    { "families/qwen2", NULL },
    { "families/qwen3", NULL },
    { "families/qwen3moe", NULL },
    { "families/qwen3moe-raw", NULL },
    { "families/smollm3", NULL },
};

static void check_chain(test *t, const char *folder, const char *refused) {
    const char *name = strrchr(folder, '/') + 1;
    const char *first = out_path(t, test_printf(t, "%s-1", name));
    const char *gguf = out_path(t, test_printf(t, "%s.gguf", name));
    const char *last = out_path(t, test_printf(t, "%s-3", name));
    if (!convert_to(t, folder, first, "f16")) return;
    if (refused != NULL) {
        CHECK(t, !dp_convert(first, gguf, NULL, NULL, &t->err));
        CHECK_ERROR(t, &t->err, DP_E_UNSUPPORTED, refused);
        CHECK(t, !path_exists(gguf));
        return;
    }
    if (!convert_to(t, first, gguf, "f16") || !convert_to(t, gguf, last, "f16")) return;
    same_logits(t, first, gguf);
    same_logits(t, gguf, last);
    same_files(t, test_printf(t, "%s/shard_00000.bin", first),
               test_printf(t, "%s/shard_00000.bin", last));
    const char *kept = out_path(t, test_printf(t, "%s-kept", name));
    if (convert_to(t, folder, kept, NULL)) same_logits(t, folder, kept);
}

static void folder_pack_gguf_pack_is_one_model(test *t) {
    for (size_t i = 0; i < ARRAY_LEN(FOLDERS); i++) {
        test_row(t, "%s", FOLDERS[i].folder);
        check_chain(t, test_vector(t, FOLDERS[i].folder), FOLDERS[i].refused);
        t->err = (dp_error){ 0 };
    }
}

/* Files that other programs wrote: nothing about them changes but the container. */
static void gguf_files_become_packs_and_come_back(test *t) {
    static const char *const files[] = {
        "gguf/llama2-mha-f32/model.gguf",
        "gguf/q4_k_m/model.gguf",
        "gguf/mxfp4/model.gguf",
        "families-gguf/gemma3/model.gguf",
        "families-gguf/gpt-oss/model.gguf",
        "families-gguf/mixtral/model.gguf",
        "families-gguf/phi3-longrope/model.gguf",
    };
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        test_row(t, "%s", files[i]);
        const char *in = test_vector(t, files[i]);
        const char *pack = out_path(t, test_printf(t, "pack-%zu", i));
        const char *gguf = out_path(t, test_printf(t, "again-%zu.gguf", i));
        const char *copy = out_path(t, test_printf(t, "copy-%zu.gguf", i));
        if (convert_to(t, in, pack, NULL)) same_logits(t, in, pack);
        if (convert_to(t, pack, gguf, NULL)) same_logits(t, in, gguf);
        if (convert_to(t, in, copy, NULL)) same_logits(t, in, copy);
        t->err = (dp_error){ 0 };
    }
}

/* ---- packs of other shapes ----------------------------------------------------------------- */

static void shards_may_split_tensors_and_blocks(test *t) {
    const char *in = test_vector(t, "gguf/q4_k_m/model.gguf");
    const char *whole = out_path(t, "whole"), *cut = out_path(t, "cut");
    dp_convert_result result;
    if (!convert_to(t, in, whole, NULL)) return;
    const dp_convert_options how = { .shard_bytes = 1031, .threads = 3 };
    if (!CHECK_MSG(t, dp_convert(in, cut, &how, &result, &t->err), "%s", t->err.message)) return;
    CHECK(t, result.n_files > 50);
    same_logits(t, whole, cut);
    container *c = container_open(cut, false, &t->err);
    if (!CHECK(t, c != NULL)) return;
    CHECK_MSG(t, container_verify(c, NULL, NULL, &t->err), "%s", t->err.message);
    container_close(c);
}

static void transposed_and_fused_packs_are_the_same_model(test *t) {
    const char *in = test_vector(t, "models/smollm2-heads");
    const char *plain = out_path(t, "plain");
    if (!convert_to(t, in, plain, "f16")) return;
    static const dp_convert_options ways[] = {
        { .quantize = "f16", .transpose = true },
        { .quantize = "f16", .fuse_gate_up = true },
        { .quantize = "f16", .transpose = true, .fuse_gate_up = true, .shard_bytes = 4099 },
    };
    for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
        test_row(t, "way %zu", i);
        const char *pack = out_path(t, test_printf(t, "way-%zu", i));
        const char *back = out_path(t, test_printf(t, "back-%zu.gguf", i));
        if (convert_with(t, in, pack, ways[i])) same_logits(t, plain, pack);
        if (convert_to(t, pack, back, NULL)) same_logits(t, plain, back);
    }
}

/* Relative error of every matrix, decoded, against the source's. */
static void check_error(test *t, const char *in, const char *out, double allowed) {
    container *a = container_open(in, false, &t->err), *b = container_open(out, false, &t->err);
    uint32_t n_quantised = 0;
    for (uint32_t i = 0; CHECK(t, a != NULL && b != NULL) && i < container_n_tensors(b); i++) {
        const tensor *y = container_tensor(b, i);
        const tensor *x = container_find(a, test_printf(t, "%.*s", STR_ARG(y->name)));
        if (!CHECK(t, x != NULL) || x->n_dims < 2) continue;
        n_quantised += dtype_is_quantised(y->type);
        CHECK_U64(t, y->n_elements, x->n_elements);
        float *from = test_floats(t, x->n_elements), *to = test_floats(t, y->n_elements);
        CHECK(t, container_decode(a, x, 0, (uint32_t)tensor_rows(x), from, &t->err));
        CHECK(t, container_decode(b, y, 0, (uint32_t)tensor_rows(y), to, &t->err));
        CHECK_NMSE(t, to, from, x->n_elements, allowed * allowed);
    }
    CHECK(t, n_quantised > 4);
    container_close(a);
    container_close(b);
}

/* Normal numbers: 4.5 bits a weight in blocks of 32 lose 0.075 to 0.08 of the deviation, whatever
 * order they are taken in; twice the square root of that error's square is not reached by chance,
 * and a block read at the wrong place loses 1.4. */
static void q4_k_layouts_lose_no_more_than_rows(test *t) {
    static const char *const layouts[] = { "row_wise", "column_wise", "flat" };
    const char *in = test_vector(t, "models/mistral-head-dim");
    for (size_t i = 0; i < ARRAY_LEN(layouts); i++) {
        test_row(t, "%s", layouts[i]);
        const char *pack = out_path(t, layouts[i]);
        static const char *const roles[] = { "attn=q4_k", "ffn=q4_k" };
        const dp_convert_options how = {
            .quantize = "f16", .roles = roles, .n_roles = 2, .q4k_layout = layouts[i]
        };
        uint32_t vocab;
        if (!convert_with(t, in, pack, how)) continue;
        check_error(t, in, pack, 0.11);
        CHECK(t, logits_of(t, pack, &vocab) != NULL);
    }
}

/* ---- quantisation -------------------------------------------------------------------------- */

static void every_mixture_can_be_written_and_read(test *t) {
    static const struct {
        const char *name, *format;
        double allowed; /* relative error; f16 and bf16: half a unit of the last of 11 or 8 bits */
    } mixtures[] = {
        { "f32", "F32", 0 },        { "f16", "F16", 0x1p-11 },   { "bf16", "BF16", 0x1p-8 },
        { "q8_0", "Q8_0", 0.01 },   { "q6_k", "Q6_K", 0.03 },    { "q5_0", "Q5_0", 0.05 },
        { "q5_1", "Q5_1", 0.05 },   { "q5_k_s", "Q5_K", 0.05 },  { "q5_k_m", "Q5_K", 0.05 },
        { "q4_0", "Q4_0", 0.11 },   { "q4_1", "Q4_1", 0.11 },    { "q4_k_s", "Q4_K", 0.09 },
        { "q4_k_m", "Q4_K", 0.09 }, { "iq4_nl", "IQ4_NL", 0.1 }, { "iq4_xs", "IQ4_XS", 0.1 },
        { "mxfp4", "MXFP4", 0.15 }, { "q3_k_m", "Q3_K", 0.2 },   { "q2_k", "Q2_K", 0.35 },
    };
    const char *in = test_vector(t, "gguf/q6_k/model.gguf");
    for (size_t i = 0; i < ARRAY_LEN(mixtures); i++) {
        test_row(t, "%s", mixtures[i].name);
        dp_convert_result result;
        const char *out = out_path(t, test_printf(t, "%s.gguf", mixtures[i].name));
        const dp_convert_options how = { .quantize = mixtures[i].name, .threads = 2 };
        if (!CHECK_MSG(t, dp_convert(in, out, &how, &result, &t->err), "%s", t->err.message)) {
            t->err = (dp_error){ 0 };
            continue;
        }
        bool found = false;
        for (uint32_t k = 0; k < result.n_formats; k++) {
            found = found || strcmp(result.formats[k].name, mixtures[i].format) == 0;
        }
        CHECK_MSG(t, found, "no tensor of %s", mixtures[i].format);
        container *a = container_open(in, false, &t->err);
        container *b = container_open(out, false, &t->err);
        for (uint32_t k = 0; CHECK(t, a != NULL && b != NULL) && k < container_n_tensors(b); k++) {
            const tensor *y = container_tensor(b, k);
            const tensor *x = container_find(a, test_printf(t, "%.*s", STR_ARG(y->name)));
            if (!CHECK(t, x != NULL)) continue;
            float *from = test_floats(t, x->n_elements), *to = test_floats(t, y->n_elements);
            CHECK(t, container_decode(a, x, 0, (uint32_t)tensor_rows(x), from, &t->err));
            CHECK(t, container_decode(b, y, 0, (uint32_t)tensor_rows(y), to, &t->err));
            CHECK_NMSE(t, to, from, x->n_elements, mixtures[i].allowed * mixtures[i].allowed);
        }
        container_close(a);
        container_close(b);
    }
}

static dtype type_in(test *t, const char *path, const char *name) {
    container *c = container_open(path, false, &t->err);
    const tensor *found = c != NULL ? container_find(c, name) : NULL;
    const dtype type = CHECK_MSG(t, found != NULL, "%s", name) ? found->type : DTYPE_COUNT;
    container_close(c);
    return type;
}

static void roles_choose_formats(test *t) {
    const char *in = test_vector(t, "gguf/q8_0/model.gguf");
    const char *out = out_path(t, "roles.gguf");
    static const char *const roles[] = { "ffn=q8_0", "ffn_down=bf16", "Embedding=F16" };
    const dp_convert_options how = { .quantize = "q4_0", .roles = roles, .n_roles = 3 };
    if (!convert_with(t, in, out, how)) return;
    CHECK_U64(t, type_in(t, out, "token_embd.weight"), DTYPE_F16);
    CHECK_U64(t, type_in(t, out, "blk.0.ffn_gate.weight"), DTYPE_Q8_0);
    CHECK_U64(t, type_in(t, out, "blk.0.ffn_down.weight"), DTYPE_BF16);
    CHECK_U64(t, type_in(t, out, "blk.0.attn_q.weight"), DTYPE_Q4_0);
    CHECK_U64(t, type_in(t, out, "blk.0.attn_norm.weight"), DTYPE_F32);
}

/* ---- interruption and refusals ------------------------------------------------------------- */

typedef struct {
    uint64_t stop_at, calls;
} stopper;

static bool stop_progress(void *user, uint64_t done, uint64_t total) {
    stopper *s = user;
    s->calls++;
    return done <= total && done < s->stop_at;
}

static void stopped_conversions_go_on(test *t) {
    const char *in = test_vector(t, "families/qwen3moe");
    static const char *const names[] = { "stopped.gguf", "stopped" };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        test_row(t, "%s", names[i]);
        const char *once = out_path(t, test_printf(t, "once-%s", names[i]));
        const char *out = out_path(t, names[i]);
        dp_convert_result result;
        if (!convert_to(t, in, once, "q8_0")) return;
        stopper s = { .stop_at = 60000 };
        dp_convert_options how = {
            .quantize = "q8_0", .threads = 1, .progress = stop_progress, .progress_user = &s
        };
        CHECK(t, !dp_convert(in, out, &how, &result, &t->err));
        CHECK_ERROR(t, &t->err, DP_E_CANCELLED, "cancelled");
        CHECK(t, !path_exists(out));
        CHECK(t, path_exists(test_printf(t, "%s.part", out)));
        s.stop_at = UINT64_MAX;
        CHECK_MSG(t, dp_convert(in, out, &how, &result, &t->err), "%s", t->err.message);
        CHECK(t, result.kept_bytes > 0 && result.kept_bytes <= 60000 + 8192);
        CHECK(t, !path_exists(test_printf(t, "%s.part", out)));
        CHECK(t, !path_exists(test_printf(t, "%s.part.journal", out)));
        const char *inside = i == 0 ? "" : "/shard_00000.bin";
        same_files(t, test_printf(t, "%s%s", once, inside), test_printf(t, "%s%s", out, inside));
    }
}

/* What was left belongs to another conversion: it is not mixed in. */
static void leftovers_of_another_conversion_are_dropped(test *t) {
    const char *in = test_vector(t, "models/llama2-mha");
    const char *out = out_path(t, "model.gguf"), *once = out_path(t, "once.gguf");
    stopper s = { .stop_at = 20000 };
    dp_convert_options how = {
        .quantize = "f16", .threads = 1, .progress = stop_progress, .progress_user = &s
    };
    dp_convert_result result;
    CHECK(t, !dp_convert(in, out, &how, &result, &t->err));
    CHECK_ERROR(t, &t->err, DP_E_CANCELLED, "");
    how.quantize = "bf16";
    how.progress = NULL;
    CHECK_MSG(t, dp_convert(in, out, &how, &result, &t->err), "%s", t->err.message);
    CHECK_U64(t, result.kept_bytes, 0);
    if (convert_to(t, in, once, "bf16")) same_files(t, out, once);
}

static void places_that_hold_something_else_are_refused(test *t) {
    const char *in = test_vector(t, "models/llama2-mha");
    const char *other = test_printf(t, "%s/other", test_folder(t));
    const char *text = test_write(t, "text.txt", "mine", 4);
    if (!CHECK(t, folder_make(other, &t->err))) return;
    test_write(t, "other/letter.txt", "mine", 4);
    const char *pack = out_path(t, "pack"), *split = out_path(t, "split");
    const char *part = out_path(t, "mine.part");
    if (!convert_to(t, in, pack, "f16") || !CHECK(t, folder_make(part, &t->err)) ||
        !CHECK(t, folder_make(split, &t->err))) {
        return;
    }
    test_write(t, "pack/notes.txt", "mine", 4);
    test_write(t, "mine.part/notes.txt", "mine", 4);
    const struct {
        const char *out, *format, *part;
    } cases[] = {
        { pack, "rdrr", "holds notes.txt" },
        { out_path(t, "mine"), "rdrr", "was not left by a conversion" },
        { test_folder(t), "rdrr", "no pack" },
        { text, "gguf", "no GGUF file" },
        { other, "rdrr", "no pack" },
        { other, "gguf", "is a folder" },
        { text, "rdrr", "is no pack" },
        { in, "rdrr", "is the source" },
        { "", "rdrr", "is no name" },
        { "/", "gguf", "is no name" },
        { "a/..", "rdrr", "is no name" },
        { "/nonexistent/x.gguf", "gguf", "cannot be made" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        test_row(t, "%s", cases[i].out);
        const dp_convert_options how = { .format = cases[i].format };
        CHECK(t, !dp_convert(in, cases[i].out, &how, NULL, &t->err));
        CHECK_MSG(t, strstr(t->err.message, cases[i].part) != NULL, "%s", t->err.message);
        t->err = (dp_error){ 0 };
    }
    CHECK_STR(t, test_read_file(t, text), "mine");
    CHECK_STR(t, test_read_file(t, test_printf(t, "%s/notes.txt", pack)), "mine");
    CHECK_STR(t, test_read_file(t, test_printf(t, "%s/notes.txt", part)), "mine");
    CHECK_STR(t, test_read_file(t, test_printf(t, "%s/letter.txt", other)), "mine");
}

/* The source itself, what holds it, and its own files; also as what would be written first. */
static void a_source_is_never_replaced(test *t) {
    const char *in = test_vector(t, "models/llama3-rope-parameters");
    const char *copy = out_path(t, "m.part");
    if (!convert_to(t, in, out_path(t, "made"), "f16") ||
        !CHECK(t, rename(out_path(t, "made"), copy) == 0)) {
        return;
    }
    const struct {
        const char *in, *out, *format;
    } cases[] = {
        { copy, out_path(t, "m"), "rdrr" },
        { copy, copy, "rdrr" },
        { copy, test_folder(t), "rdrr" },
        { copy, test_printf(t, "%s/shard_00000.bin", copy), "gguf" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        test_row(t, "case %zu", i);
        const dp_convert_options how = { .format = cases[i].format };
        CHECK(t, !dp_convert(cases[i].in, cases[i].out, &how, NULL, &t->err));
        CHECK_ERROR(t, &t->err, DP_E_ARGUMENT, "is the source, holds it");
    }
    container *c = container_open(copy, false, &t->err);
    if (!CHECK(t, c != NULL)) return;
    CHECK_MSG(t, container_verify(c, NULL, NULL, &t->err), "%s", t->err.message);
    container_close(c);
}

/* What an earlier call wrote is of no use once the source is another. */
static void a_changed_source_starts_anew(test *t) {
    const char *in = test_printf(t, "%s/in.gguf", test_folder(t)), *out = out_path(t, "out.gguf");
    const str bytes = test_read_file(t, test_vector(t, "gguf/llama2-mha-f32/model.gguf"));
    if (!CHECK(t, bytes.data != NULL)) return;
    test_write(t, "in.gguf", bytes.data, bytes.size);
    stopper s = { .stop_at = 40000 };
    dp_convert_options how = {
        .quantize = "f16", .threads = 1, .progress = stop_progress, .progress_user = &s
    };
    dp_convert_result result;
    CHECK(t, !dp_convert(in, out, &how, &result, &t->err));
    CHECK_ERROR(t, &t->err, DP_E_CANCELLED, "");
    char *changed = test_alloc(t, bytes.size, 1);
    memcpy(changed, bytes.data, bytes.size);
    changed[bytes.size / 2 + 1] ^= 1;
    test_write(t, "in.gguf", changed, bytes.size);
    how.progress = NULL;
    CHECK_MSG(t, dp_convert(in, out, &how, &result, &t->err), "%s", t->err.message);
    CHECK_U64(t, result.kept_bytes, 0);
}

static void an_old_output_is_replaced_when_the_new_one_is_whole(test *t) {
    const char *in = test_vector(t, "models/llama2-mha");
    const char *out = out_path(t, "pack");
    if (!convert_to(t, in, out, "f16")) return;
    const str before = test_read_file(t, test_printf(t, "%s/manifest.json", out));
    stopper s = { .stop_at = 1 };
    dp_convert_options how = { .quantize = "q8_0", .progress = stop_progress, .progress_user = &s };
    CHECK(t, !dp_convert(in, out, &how, NULL, &t->err));
    CHECK_ERROR(t, &t->err, DP_E_CANCELLED, "");
    CHECK(t, str_equal(before, test_read_file(t, test_printf(t, "%s/manifest.json", out))));
    how.progress = NULL;
    CHECK_MSG(t, dp_convert(in, out, &how, NULL, &t->err), "%s", t->err.message);
    CHECK_U64(t, type_in(t, out, "model.layers.0.mlp.down_proj.weight"), DTYPE_Q8_0);
    CHECK(t, !path_exists(test_printf(t, "%s.part", out)));
}

static void options_that_make_no_sense_are_refused(test *t) {
    const char *in = test_vector(t, "models/llama2-mha");
    static const char *const roles[] = { "nose=q8_0", "ffn=q9_9", "ffn", "=", "ffn=iq2_xxs" };
    const struct {
        dp_convert_options how;
        const char *part;
    } cases[] = {
        { { .format = "onnx" }, "no container" },
        { { .quantize = "q4_9" }, "no quantisation" },
        { { .quantize = "" }, "no quantisation" },
        { { .q4k_layout = "diagonal" }, "no layout" },
        { { .format = "gguf", .q4k_layout = "flat" }, "only packs" },
        { { .format = "gguf", .transpose = true }, "only packs" },
        { { .format = "gguf", .shard_bytes = 5000 }, "only packs" },
        { { .format = "rdrr", .shard_bytes = 7 }, "at least" },
        { { .roles = &roles[0], .n_roles = 1 }, "roles are" },
        { { .roles = &roles[1], .n_roles = 1 }, "no format" },
        { { .roles = &roles[2], .n_roles = 1 }, "ROLE=TYPE" },
        { { .roles = &roles[3], .n_roles = 1 }, "ROLE=TYPE" },
        { { .roles = &roles[4], .n_roles = 1 }, "no format" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        test_row(t, "case %zu", i);
        CHECK(t, !dp_convert(in, out_path(t, "x"), &cases[i].how, NULL, &t->err));
        CHECK_ERROR(t, &t->err, DP_E_ARGUMENT, cases[i].part);
    }
    CHECK(t, folder_is_empty(test_folder(t)));
}

/* A dry run counts what the real one writes. */
static void a_dry_run_writes_nothing_and_tells_the_sizes(test *t) {
    const char *in = test_vector(t, "families/mixtral");
    dp_convert_result dry, wet;
    dp_convert_options how = { .quantize = "q4_k_m", .dry_run = true };
    CHECK_MSG(t, dp_convert(in, out_path(t, "dry"), &how, &dry, &t->err), "%s", t->err.message);
    CHECK(t, folder_is_empty(test_folder(t)));
    how.dry_run = false;
    CHECK_MSG(t, dp_convert(in, out_path(t, "wet"), &how, &wet, &t->err), "%s", t->err.message);
    CHECK_U64(t, dry.tensor_bytes, wet.tensor_bytes);
    CHECK_U64(t, dry.n_files, wet.n_files);
    CHECK(t, dry.memory.total > dry.tensor_bytes / 2);
    container *c = container_open(out_path(t, "wet"), false, &t->err);
    if (!CHECK(t, c != NULL)) return;
    CHECK_U64(t, container_bytes(c), dry.tensor_bytes);
    container_close(c);
}

/* Nothing of this machine gets into a pack. */
static void a_manifest_names_no_place(test *t) {
    const char *out = out_path(t, "pack");
    if (!convert_to(t, test_vector(t, "models/llama-bias"), out, "q4_k_m")) return;
    const str text = test_read_file(t, test_printf(t, "%s/manifest.json", out));
    const char *copy = test_printf(t, "%.*s", (int)text.size, text.data);
    CHECK(t, strstr(copy, test_folder(t)) == NULL);
    CHECK(t, strstr(copy, "tests/vectors") == NULL);
    CHECK(t, strstr(copy, "\"sourceName\":\"llama-bias\"") != NULL);
    container *c = container_open(out, false, &t->err);
    if (!CHECK(t, c != NULL)) return;
    verify_result found;
    CHECK_MSG(t, container_verify(c, NULL, &found, &t->err), "%s", t->err.message);
    CHECK(t, found.n_shards == 1 && found.n_files >= 1);
    CHECK_U64(t, found.n_roots, container_n_tensors(c));
    container_close(c);
}

static const test_case cases[] = {
    { "folder, pack, GGUF, pack: one model to the bit", folder_pack_gguf_pack_is_one_model },
    { "GGUF files become packs and come back", gguf_files_become_packs_and_come_back },
    { "shards may split tensors and blocks", shards_may_split_tensors_and_blocks },
    { "transposed and fused packs are the same model",
      transposed_and_fused_packs_are_the_same_model },
    { "Q4_K by columns or flat loses no more than by rows", q4_k_layouts_lose_no_more_than_rows },
    { "every mixture can be written and read", every_mixture_can_be_written_and_read },
    { "roles choose formats", roles_choose_formats },
    { "stopped conversions go on to the same bytes", stopped_conversions_go_on },
    { "leftovers of another conversion are dropped", leftovers_of_another_conversion_are_dropped },
    { "places that hold something else are refused", places_that_hold_something_else_are_refused },
    { "a source is never replaced", a_source_is_never_replaced },
    { "a changed source starts anew", a_changed_source_starts_anew },
    { "an old output is replaced when the new one is whole",
      an_old_output_is_replaced_when_the_new_one_is_whole },
    { "options that make no sense are refused", options_that_make_no_sense_are_refused },
    { "a dry run writes nothing and tells the sizes",
      a_dry_run_writes_nothing_and_tells_the_sizes },
    { "a manifest names no place of this machine", a_manifest_names_no_place },
};

const test_group convert_tests = { "convert", cases, ARRAY_LEN(cases) };
