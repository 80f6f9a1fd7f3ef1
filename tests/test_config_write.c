/* Descriptions written as the other spelling and read again, and what is refused because the other
 * spelling cannot say it. No device. */
#include "tests/test_config.h"

#include <stdio.h>

/* ---- a GGUF file of keys alone ------------------------------------------------------------- */

typedef struct {
    buf keys;
    uint32_t n;
} key_file;

static void put_bytes(key_file *f, const void *bytes, size_t n) {
    buf_add(&f->keys, bytes, n);
}

static void put_string_bytes(key_file *f, str s) {
    const uint64_t n = s.size;
    put_bytes(f, &n, sizeof n);
    put_bytes(f, s.data, s.size);
}

static void put_key(key_file *f, const char *key, uint32_t type) {
    put_string_bytes(f, str_of(key));
    put_bytes(f, &type, sizeof type);
    f->n++;
}

static void sink_u32(void *user, const char *key, uint32_t value) {
    put_key(user, key, 4);
    put_bytes(user, &value, sizeof value);
}

static void sink_f32(void *user, const char *key, float value) {
    put_key(user, key, 6);
    put_bytes(user, &value, sizeof value);
}

static void sink_flag(void *user, const char *key, bool value) {
    const unsigned char byte = value;
    put_key(user, key, 7);
    put_bytes(user, &byte, 1);
}

static void sink_string(void *user, const char *key, str value) {
    put_key(user, key, 8);
    put_string_bytes(user, value);
}

static void sink_flags(void *user, const char *key, const bool *values, uint32_t n) {
    const uint32_t element = 7;
    const uint64_t count = n;
    put_key(user, key, 9);
    put_bytes(user, &element, sizeof element);
    put_bytes(user, &count, sizeof count);
    for (uint32_t i = 0; i < n; i++) {
        const unsigned char byte = values[i];
        put_bytes(user, &byte, 1);
    }
}

/* Path of a file with the description's keys and tables of RoPE; NULL if it was refused. */
static const char *write_keys(test *t, const description *d, dp_error *err) {
    key_file f = { 0 };
    buf_init(&f.keys, 1 << 20);
    const meta_sink sink = { .user = &f,
                             .u32 = sink_u32,
                             .f32 = sink_f32,
                             .flag = sink_flag,
                             .string = sink_string,
                             .flags = sink_flags };
    const char *path = NULL;
    if (config_write_gguf(&d->config, d->files, &sink, err)) {
        rope_tensor ropes[ROPE_TENSORS_MAX];
        const uint32_t n_ropes = config_rope_tensors(&d->config, ropes);
        const uint32_t version = 3, zero = 0, one = 1;
        const uint64_t n_tensors = n_ropes, n_keys = f.n;
        key_file all = { 0 };
        buf_init(&all.keys, 1 << 20);
        put_bytes(&all, "GGUF", 4);
        put_bytes(&all, &version, sizeof version);
        put_bytes(&all, &n_tensors, sizeof n_tensors);
        put_bytes(&all, &n_keys, sizeof n_keys);
        put_bytes(&all, f.keys.data, f.keys.size);
        uint64_t offset = 0;
        for (uint32_t i = 0; i < n_ropes; i++) {
            const uint64_t n = ropes[i].n;
            put_string_bytes(&all, str_of(ropes[i].name));
            put_bytes(&all, &one, sizeof one);
            put_bytes(&all, &n, sizeof n);
            put_bytes(&all, &zero, sizeof zero);
            put_bytes(&all, &offset, sizeof offset);
            offset += align_up(n * sizeof(float), 32);
        }
        static const char padding[32];
        for (uint32_t i = 0; i <= n_ropes; i++) {
            put_bytes(&all, padding, (size_t)(align_up(all.keys.size, 32) - all.keys.size));
            if (i < n_ropes) put_bytes(&all, ropes[i].values, ropes[i].n * sizeof(float));
        }
        CHECK(t, buf_ok(&all.keys, "keys", &t->err));
        path = test_write(t, "written.gguf", all.keys.data, all.keys.size);
        buf_free(&all.keys);
    }
    buf_free(&f.keys);
    return path;
}

/* ---- there and back ------------------------------------------------------------------------ */

/* GGUF calls Llama and Mistral the same; what tells them apart is the window. */
static config as_family_of(const config *c, const config *like) {
    config same = *c;
    if (strcmp(c->family->gguf, like->family->gguf) == 0 &&
        c->family->experts == like->family->experts) {
        same.family = like->family;
    }
    return same;
}

static void check_json_says(test *t, const description *from, const config *want) {
    buf text;
    buf_init(&text, 1 << 20);
    if (CHECK_MSG(t, config_write_hf(&from->config, from->files, &text, &t->err), "%s",
                  t->err.message)) {
        description back = description_of_text(t, text.data);
        if (CHECK_MSG(t, back.ok, "%s", t->err.message)) {
            const config like = as_family_of(want, &back.config);
            check_same_config(t, &back.config, &like);
        }
        description_drop(&back);
    }
    buf_free(&text);
}

void check_written_config(test *t, const description *d) {
    check_json_says(t, d, &d->config);
    const char *path = write_keys(t, d, &t->err);
    if (!CHECK_MSG(t, path != NULL, "%s", t->err.message)) return;
    description keys = description_of_folder(t, path);
    if (CHECK_MSG(t, keys.ok, "%s", t->err.message)) {
        keys.config.vocab_size = d->config.vocab_size; /* rows of a tensor that is not there */
        const config like = as_family_of(&d->config, &keys.config);
        check_same_config(t, &keys.config, &like);
        check_json_says(t, &keys, &d->config);
    }
    description_drop(&keys);
}

static const char *const FOLDERS[] = {
    "families/gpt2",
    "families/gpt2-bare",
    "families/llama-yarn",
    "families/smollm3",
    "families/mistral-window",
    "families/qwen2",
    "families/qwen3",
    "families/gemma2",
    "families/gemma3",
    "families/gemma3-4b",
    "families/phi3",
    "families/phi3-longrope",
    "families/phi4-mini",
    "families/olmo2",
    "families/granite",
    "families/mixtral",
    "families/qwen3moe",
    "families/qwen3moe-raw",
    "families/gpt-oss",
    "families/gpt-oss-bf16",
    "models/llama2-mha",
    "models/llama3-gqa",
    "models/llama3-rope-parameters",
    "models/mistral-head-dim",
    "models/llama-bias",
    "models/llama-rope-linear",
};

static void folders_go_to_gguf_and_back(test *t) {
    for (size_t i = 0; i < ARRAY_LEN(FOLDERS); i++) {
        test_row(t, "%s", FOLDERS[i]);
        description d = description_of_folder(t, test_vector(t, FOLDERS[i]));
        if (CHECK_MSG(t, d.ok, "%s", t->err.message)) {
            check_written_config(t, &d);
        }
        description_drop(&d);
    }
}

/* What is written of the file is what the folder says that the file was made of. */
static void files_give_their_folders_config(test *t) {
    static const char *const twins[] = {
        "gpt2",    "llama-yarn", "smollm3",   "mistral-window", "qwen2",         "qwen3",
        "gemma2",  "gemma3",     "gemma3-4b", "phi3",           "phi3-longrope", "olmo2",
        "granite", "mixtral",    "gpt-oss",   "qwen3moe",       "gpt-oss-bf16",  "phi4-mini",
    };
    for (size_t i = 0; i < ARRAY_LEN(twins); i++) {
        test_row(t, "%s", twins[i]);
        description a =
            description_of_folder(t, test_vector(t, test_printf(t, "families/%s", twins[i])));
        description b = description_of_folder(
            t, test_vector(t, test_printf(t, "families-gguf/%s/model.gguf", twins[i])));
        if (CHECK_MSG(t, a.ok && b.ok, "%s", t->err.message)) {
            check_json_says(t, &b, &a.config);
        }
        description_drop(&a);
        description_drop(&b);
    }
}

/* ---- what cannot be said ------------------------------------------------------------------- */

static void scale_logits(config *c) {
    c->logits_scale = 0.5F;
}
static void scale_embedding(config *c) {
    c->embedding_scale = 3;
}
static void scale_attention(config *c) {
    c->attention_scale = 1;
}
static void cap_attention(config *c) {
    c->attention_softcap = 20;
}
static void window_the_last_layer(config *c) {
    c->layer_window[c->n_layers - 1] = 16;
}
static void two_windows(config *c) {
    c->layer_window[0] = 16;
    c->layer_window[1] = 32;
}
static void no_rope_in_the_first_layer(config *c) {
    c->layer_rope[0] = ROPE_NONE;
}
static void scale_local_rope(config *c) {
    c->rope[ROPE_LOCAL].kind = SCALING_LINEAR;
    c->rope[ROPE_LOCAL].factor = 2;
}
static void round_yarn(config *c) {
    c->rope[ROPE_GLOBAL].exact = !c->rope[ROPE_GLOBAL].exact;
}
static void make_dynamic(config *c) {
    c->rope[ROPE_GLOBAL].kind = SCALING_DYNAMIC;
}
static void lower_the_limit(config *c) {
    c->act_limit = 6;
}
static void scale_the_route(config *c) {
    c->route_scale = 2.5F;
}
static void sum_the_route(config *c) {
    c->normalise_route = false;
}
static void widen_experts(config *c) {
    c->expert_ffn_dim *= 2;
}

/* A change of a description that one spelling or both cannot hold: refused with its name. NULL:
 * it can. */
static void what_cannot_be_said_is_refused(test *t) {
    static const struct {
        const char *folder;
        void (*change)(config *c);
        const char *gguf, *json;
    } rows[] = {
        { "models/llama3-gqa", scale_logits, "the scale of the logits", "the scale of the logits" },
        { "models/llama3-gqa", scale_embedding, "the scale of the embedding",
          "the scale of the embedding" },
        { "models/llama3-gqa", scale_attention, "the scale of attention",
          "the scale of attention" },
        { "families/qwen3", cap_attention, NULL, "the soft caps" },
        { "families/gemma2", cap_attention, NULL, NULL },
        { "families/gemma3", scale_attention, NULL, NULL },
        { "families/granite", scale_logits, NULL, NULL },
        { "families/mistral-window", two_windows, "which layers see a window",
          "which layers see a window" },
        { "families/qwen3", window_the_last_layer, NULL, NULL },
        { "families/gemma2", window_the_last_layer, NULL, NULL },
        { "families/qwen3moe", window_the_last_layer, NULL, "which layers see a window" },
        { "families/olmo2", window_the_last_layer, "sliding_window", "which layers see a window" },
        { "families/smollm3", no_rope_in_the_first_layer, "which layers have RoPE", NULL },
        { "families/qwen3", no_rope_in_the_first_layer, "which layers have RoPE",
          "which layers have RoPE" },
        { "families/gemma3", scale_local_rope, "RoPE of the windowed layers",
          "RoPE of the windowed layers" },
        { "families/llama-yarn", round_yarn, "RoPE and its scaling", NULL },
        { "families/gpt-oss", round_yarn, "RoPE and its scaling", NULL },
        { "models/llama2-mha", make_dynamic, "RoPE and its scaling", NULL },
        { "families/gpt-oss", lower_the_limit, "the activation and its limits", NULL },
        { "families/qwen3moe", scale_the_route, NULL, "the weights of chosen experts" },
        { "families/qwen3moe", sum_the_route, NULL, NULL },
        { "families/mixtral", sum_the_route, NULL, "the weights of chosen experts" },
        { "families/mixtral", widen_experts, NULL, "the experts" },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        test_row(t, "%zu, %s", i, rows[i].folder);
        description d = description_of_folder(t, test_vector(t, rows[i].folder));
        if (!CHECK_MSG(t, d.ok, "%s", t->err.message)) continue;
        rows[i].change(&d.config);
        dp_error err = { 0 };
        const bool fits = config_fits_gguf(&d.config, d.files, &err);
        CHECK_MSG(t, fits == (rows[i].gguf == NULL), "GGUF: %s", err.message);
        if (rows[i].gguf != NULL) CHECK_ERROR(t, &err, DP_E_UNSUPPORTED, rows[i].gguf);
        err = (dp_error){ 0 };
        buf text;
        buf_init(&text, 1 << 20);
        const bool said = config_write_hf(&d.config, d.files, &text, &err);
        CHECK_MSG(t, said == (rows[i].json == NULL), "config.json: %s", err.message);
        if (rows[i].json != NULL) {
            CHECK_ERROR(t, &err, DP_E_UNSUPPORTED, rows[i].json);
            CHECK_U64(t, text.size, 0);
        }
        buf_free(&text);
        description_drop(&d);
    }
}

/* ---- without memory ------------------------------------------------------------------------ */

/* Reads a description and writes it in every spelling; gives back all that it took. */
static bool go_all_ways(const char *path, dp_error *err) {
    container *files = container_open(path, true, err);
    config c;
    arena memory = { 0 };
    buf text;
    buf_init(&text, 1 << 20);
    const bool ok = files != NULL && config_read(&c, files, false, &memory, err) &&
                    config_write_hf(&c, files, &text, err) && config_fits_gguf(&c, files, err) &&
                    config_write_inference(&c, files, NULL, &text, err);
    buf_free(&text);
    arena_free(&memory);
    container_close(files);
    return ok;
}

/* With the n-th allocation and all later ones failing: no memory, and nothing left behind. */
static void every_allocation_may_fail(test *t) {
    static const char *const paths[] = { "packs/april", "packs/june", "packs/ours",
                                         "families/phi3-longrope", "models/llama3-gqa" };
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        const char *path = test_vector(t, paths[i]);
        bool ok = false;
        uint64_t n = 1;
        for (; !ok && n < 10000; n++) {
            dp_error err = { 0 };
            mem_fail_from(n);
            ok = go_all_ways(path, &err);
            mem_fail_from(0);
            test_row(t, "%s, allocation %d", paths[i], (int)n);
            if (!ok && !CHECK(t, err.status == DP_E_MEMORY)) break;
        }
        CHECK(t, ok && n > 20);
    }
}

static const test_case cases[] = {
    { "folders go to GGUF and back", folders_go_to_gguf_and_back },
    { "files give their folder's config", files_give_their_folders_config },
    { "what cannot be said is refused", what_cannot_be_said_is_refused },
    { "every allocation may fail", every_allocation_may_fail },
};
const test_group config_write_tests = { "config_write", cases, ARRAY_LEN(cases) };
