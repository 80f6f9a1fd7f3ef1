/* What the files say of an architecture: descriptions from config.json and GGUF metadata, and what
 * is refused because it would change the result. No device. */
#include "tests/test_config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- reading a description ----------------------------------------------------------------- */

description description_of_folder(test *t, const char *folder) {
    description d = { .files = container_open(folder, true, &t->err) };
    d.ok = d.files != NULL && config_read(&d.config, d.files, false, &d.memory, &t->err);
    return d;
}

void description_drop(description *d) {
    arena_free(&d->memory);
    container_close(d->files);
}

description description_of_text(test *t, const char *text) {
    test_write(t, "config.json", text, strlen(text));
    return description_of_folder(t, test_folder(t));
}

static void check_same_rope(test *t, const config *a, const config *b, rope_kind table) {
    static const uint32_t contexts[] = { 32, 64, 65, 4096, 100000 };
    for (size_t i = 0; i < ARRAY_LEN(contexts); i++) {
        double fa[HEAD_DIM_MAX / 2], fb[HEAD_DIM_MAX / 2];
        float ma, mb;
        rope_frequencies(a, table, contexts[i], fa, &ma);
        rope_frequencies(b, table, contexts[i], fb, &mb);
        CHECK(t, ma == mb && memcmp(fa, fb, a->rope_dim / 2 * sizeof *fa) == 0);
    }
}

void check_same_config(test *t, const config *a, const config *b) {
    CHECK(t, a->family == b->family);
    const uint32_t counts[][2] = {
        { a->n_layers, b->n_layers },
        { a->dim, b->dim },
        { a->n_heads, b->n_heads },
        { a->ffn_dim, b->ffn_dim },
        { a->head_dim, b->head_dim },
        { a->context, b->context },
        { a->n_kv_heads, b->n_kv_heads },
        { a->vocab_size, b->vocab_size },
        { a->rope_dim, b->rope_dim },
        { a->n_experts, b->n_experts },
        { a->n_experts_used, b->n_experts_used },
        { a->expert_ffn_dim, b->expert_ffn_dim },
    };
    for (size_t i = 0; i < ARRAY_LEN(counts); i++) {
        CHECK_MSG(t, counts[i][0] == counts[i][1], "count %zu: %u and %u", i, counts[i][0],
                  counts[i][1]);
    }
    CHECK(t, a->norm_eps == b->norm_eps && a->activation == b->activation);
    CHECK(t, a->embedding_scale == b->embedding_scale && a->logits_scale == b->logits_scale);
    CHECK(t, a->residual_scale == b->residual_scale && a->attention_scale == b->attention_scale);
    CHECK(t, a->attention_softcap == b->attention_softcap);
    CHECK(t, a->logits_softcap == b->logits_softcap && a->normalise_route == b->normalise_route);
    for (uint32_t i = 0; i < a->n_layers && a->n_layers == b->n_layers; i++) {
        CHECK_MSG(t,
                  a->layer_window[i] == b->layer_window[i] && a->layer_rope[i] == b->layer_rope[i],
                  "layer %u: window %u and %u, RoPE %d and %d", i, a->layer_window[i],
                  b->layer_window[i], (int)a->layer_rope[i], (int)b->layer_rope[i]);
    }
    check_same_rope(t, a, b, ROPE_GLOBAL);
    check_same_rope(t, a, b, ROPE_LOCAL);
}

/* transformers 5 writes other fields than the published folders have: the same description. */
static void saved_configs_say_the_same(test *t) {
    static const char *const names[] = {
        "gpt2",          "llama-yarn",   "smollm3", "mistral-window", "qwen2",
        "qwen3",         "gemma2",       "gemma3",  "gemma3-4b",      "phi3",
        "phi3-longrope", "phi4-mini",    "olmo2",   "granite",        "mixtral",
        "qwen3moe",      "qwen3moe-raw", "gpt-oss", "llama-dynamic",  "gpt-oss-bf16",
    };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        test_row(t, "%s", names[i]);
        const char *folder = test_vector(t, test_printf(t, "families/%s", names[i]));
        const str saved = test_read_file(t, test_printf(t, "%s/config-saved.json", folder));
        if (!CHECK(t, saved.data != NULL)) continue;
        description a = description_of_folder(t, folder);
        description b = description_of_text(t, test_printf(t, "%.*s", (int)saved.size, saved.data));
        if (CHECK_MSG(t, a.ok && b.ok, "%s", t->err.message)) {
            check_same_config(t, &a.config, &b.config);
        }
        description_drop(&a);
        description_drop(&b);
    }
}

/* ---- what folders leave out ---------------------------------------------------------------- */

/* The text part of the published Gemma 3 4B has six fields; the rest is its class's. */
static void gemma3_fills_in_what_its_class_does(test *t) {
    description d = description_of_text(
        t, "{\"model_type\":\"gemma3\",\"text_config\":{\"model_type\":\"gemma3_text\","
           "\"hidden_size\":2560,\"intermediate_size\":10240,\"num_hidden_layers\":34,"
           "\"sliding_window\":1024,\"rope_scaling\":{\"factor\":8.0,\"rope_type\":\"linear\"}}}");
    const config *c = &d.config;
    if (CHECK_MSG(t, d.ok, "%s", t->err.message)) {
        CHECK_U64(t, c->n_heads, 8);
        CHECK_U64(t, c->n_kv_heads, 4);
        CHECK_U64(t, c->head_dim, 256);
        CHECK_U64(t, c->vocab_size, 262208);
        CHECK_U64(t, c->context, 131072);
        CHECK(t, c->attention_scale == 0.0625f && c->norm_eps == 1e-6f);
        CHECK(t, c->rope[ROPE_GLOBAL].theta == 1e6 && c->rope[ROPE_LOCAL].theta == 1e4);
        CHECK(t, c->rope[ROPE_GLOBAL].kind == SCALING_LINEAR);
        CHECK(t, c->rope[ROPE_LOCAL].kind == SCALING_NONE);
        CHECK_U64(t, c->layer_window[4], 1024);
        CHECK_U64(t, c->layer_window[5], 0);
        CHECK(t, c->layer_rope[4] == ROPE_LOCAL && c->layer_rope[5] == ROPE_GLOBAL);
    }
    description_drop(&d);
}

static const char LLAMA[] =
    "{\"model_type\":\"%s\",\"hidden_size\":64,\"intermediate_size\":128,\"num_hidden_layers\":2,"
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"max_position_embeddings\":256,"
    "\"vocab_size\":100%s}";

/* Windows and bases that a family has where config.json does not say. */
static void families_have_their_own_defaults(test *t) {
    static const struct {
        const char *type, *more;
        uint32_t window;
        double theta, eps;
    } cases[] = {
        { "llama", "", 0, 1e4, 1e-6 },
        { "mistral", "", 4096, 1e4, 1e-6 },
        { "mistral", ",\"sliding_window\":null", 0, 1e4, 1e-6 },
        { "qwen2", ",\"use_sliding_window\":true,\"max_window_layers\":0", 4096, 1e4, 1e-6 },
        { "mixtral", ",\"num_local_experts\":8,\"num_experts_per_tok\":2", 0, 1e6, 1e-5 },
        { "mixtral", ",\"num_local_experts\":8,\"num_experts_per_tok\":2,\"rope_theta\":5e5", 0,
          5e5, 1e-5 },
        { "qwen2", ",\"sliding_window\":16,\"use_sliding_window\":true", 0, 1e4, 1e-6 },
        { "qwen2", ",\"sliding_window\":16,\"use_sliding_window\":true,\"max_window_layers\":0", 16,
          1e4, 1e-6 },
        { "qwen2", ",\"sliding_window\":16", 0, 1e4, 1e-6 },
        { "smollm3", "", 0, 2e6, 1e-6 },
        { "gemma2", ",\"hidden_activation\":\"gelu_pytorch_tanh\"", 4096, 1e4, 1e-6 },
        { "olmo2", "", 0, 1e4, 1e-5 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        test_row(t, "%s%s", cases[i].type, cases[i].more);
        description d = description_of_text(t, test_printf(t, LLAMA, cases[i].type, cases[i].more));
        if (CHECK_MSG(t, d.ok, "%s", t->err.message)) {
            CHECK_U64(t, d.config.layer_window[0], cases[i].window);
            CHECK(t, d.config.rope[ROPE_GLOBAL].theta == cases[i].theta);
            CHECK_MSG(t, d.config.norm_eps == (float)cases[i].eps, "eps %g",
                      (double)d.config.norm_eps);
        }
        description_drop(&d);
    }
}

/* Shapes and factors that no published folder leaves out, as far as the classes have them. */
static void classes_fill_in_shapes_and_factors(test *t) {
    static const char shape[] =
        "{\"model_type\":\"%s\",\"hidden_size\":256,\"intermediate_size\":512,"
        "\"num_hidden_layers\":2,\"num_attention_heads\":32,\"max_position_embeddings\":256,"
        "\"vocab_size\":100%s}";
    static const struct {
        const char *type, *more;
        uint32_t n_kv_heads, head_dim, n_used, expert_ffn;
        float scale;
        head_kind head;
    } rows[] = {
        { "llama", "", 32, 8, 0, 512, 0, HEAD_FOUND },
        { "llama", ",\"tie_word_embeddings\":true", 32, 8, 0, 512, 0, HEAD_TIED },
        { "mistral", "", 8, 8, 0, 512, 0, HEAD_FOUND },
        { "mistral", ",\"num_key_value_heads\":null", 32, 8, 0, 512, 0, HEAD_FOUND },
        { "mixtral", ",\"num_local_experts\":8", 8, 8, 2, 512, 0, HEAD_FOUND },
        { "qwen2", "", 32, 8, 0, 512, 0, HEAD_FOUND },
        { "qwen3", "", 32, 128, 0, 512, 0, HEAD_FOUND },
        { "qwen3_moe", ",\"num_experts\":16", 4, 8, 8, 768, 0, HEAD_FOUND },
        { "smollm3", "", 4, 8, 0, 512, 0, HEAD_TIED },
        { "gemma2", "", 4, 256, 0, 512, 0, HEAD_TIED },
        { "gemma3_text", "", 4, 256, 0, 512, 0, HEAD_TIED },
        { "gemma3_text", ",\"tie_word_embeddings\":false", 4, 256, 0, 512, 0, HEAD_OWN },
        { "phi3", "", 32, 8, 0, 512, 0, HEAD_FOUND },
        { "olmo2", "", 32, 8, 0, 512, 0, HEAD_FOUND },
        { "granite", "", 32, 8, 0, 512, 1, HEAD_FOUND },
        { "gpt_oss",
          ",\"num_local_experts\":8,\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":32}", 8, 64,
          4, 512, 0, HEAD_FOUND },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        test_row(t, "%s%s", rows[i].type, rows[i].more);
        description d = description_of_text(t, test_printf(t, shape, rows[i].type, rows[i].more));
        const config *c = &d.config;
        if (CHECK_MSG(t, d.ok, "%s", t->err.message)) {
            CHECK_U64(t, c->n_kv_heads, rows[i].n_kv_heads);
            CHECK_U64(t, c->head_dim, rows[i].head_dim);
            CHECK_U64(t, c->n_experts_used, rows[i].n_used);
            CHECK_U64(t, c->expert_ffn_dim, rows[i].expert_ffn);
            const float scale = rows[i].scale > 0 ? rows[i].scale : (float)(1 / sqrt(c->head_dim));
            CHECK(t, c->attention_scale == scale && c->head == rows[i].head);
        }
        t->err = (dp_error){ 0 };
        description_drop(&d);
    }
}

/* ---- published files ----------------------------------------------------------------------- */

/* A config.json as folders that people have spell it, and what must come out. */
typedef struct {
    const char *name;
    const char *text;   /* see unfold */
    uint32_t counts[8]; /* dim, layers, heads, key heads, head size, FFN, vocabulary, context */
    struct {
        double theta;
        rope_scaling_kind kind;
        uint32_t first, last; /* windows of the first and the last layer */
        double square;        /* 1 / attention_scale^2; 0: the head size */
    } more;
} published;

/* `text` with quotes for apostrophes, "[3*1,2]" for "[1,2,1,2,1,2]", and what all files have. */
static const char *unfold(test *t, const char *text) {
    buf b;
    buf_init(&b, 1 << 16);
    buf_printf(&b, "{\"initializer_range\":0.02,\"transformers_version\":\"4.45.1\","
                   "\"use_cache\":true,\"bos_token_id\":1,\"eos_token_id\":[2,106],");
    for (const char *at = text; *at != '\0'; at++) {
        char *list = NULL;
        const unsigned long n = *at == '[' ? strtoul(at + 1, &list, 10) : 0;
        if (n == 0 || *list != '*') {
            buf_add(&b, *at == '\'' ? "\"" : at, 1);
            continue;
        }
        const size_t size = strcspn(list, "]") - 1;
        for (unsigned long i = 0; i < n; i++) {
            buf_add(&b, i == 0 ? "[" : ",", 1);
            for (size_t k = 0; k < size; k++) {
                buf_add(&b, list[1 + k] == '\'' ? "\"" : &list[1 + k], 1);
            }
        }
        at = list + size; /* before the bracket */
    }
    buf_add(&b, "}", 1);
    CHECK(t, buf_ok(&b, "config.json", &t->err));
    const char *whole = test_printf(t, "%.*s", (int)b.size, (const char *)b.data);
    buf_free(&b);
    return whole;
}

static const published LLAMAS[] = {
    { "Llama 1",
      "'architectures':['LlamaForCausalLM'],'hidden_act':'silu','hidden_size':4096,"
      "'intermediate_size':11008,'max_position_embeddings':2048,'max_sequence_length':2048,"
      "'model_type':'llama','num_attention_heads':32,'num_hidden_layers':32,'pad_token_id':0,"
      "'rms_norm_eps':1e-06,'tie_word_embeddings':false,'torch_dtype':'float16',"
      "'vocab_size':32000",
      { 4096, 32, 32, 32, 128, 11008, 32000, 2048 },
      { 1e4, SCALING_NONE, 0, 0, 0 } },
    { "Llama 2 70B",
      "'_name_or_path':'x','architectures':['LlamaForCausalLM'],'hidden_act':'silu',"
      "'hidden_size':8192,'intermediate_size':28672,'max_position_embeddings':4096,"
      "'model_type':'llama','num_attention_heads':64,'num_hidden_layers':80,"
      "'num_key_value_heads':8,'pretraining_tp':1,'rms_norm_eps':1e-05,'rope_scaling':null,"
      "'tie_word_embeddings':false,'torch_dtype':'float16','vocab_size':32000",
      { 8192, 80, 64, 8, 128, 28672, 32000, 4096 },
      { 1e4, SCALING_NONE, 0, 0, 0 } },
    { "Llama 3.1 8B",
      "'architectures':['LlamaForCausalLM'],'attention_bias':false,'attention_dropout':0.0,"
      "'hidden_act':'silu','hidden_size':4096,'intermediate_size':14336,"
      "'max_position_embeddings':131072,'mlp_bias':false,'model_type':'llama',"
      "'num_attention_heads':32,'num_hidden_layers':32,'num_key_value_heads':8,"
      "'pretraining_tp':1,'rms_norm_eps':1e-05,'rope_scaling':{'factor':8.0,"
      "'low_freq_factor':1.0,'high_freq_factor':4.0,'original_max_position_embeddings':8192,"
      "'rope_type':'llama3'},'rope_theta':500000.0,'tie_word_embeddings':false,"
      "'torch_dtype':'bfloat16','unsloth_fixed':true,'unsloth_version':'2025.1.1',"
      "'_attn_implementation_autoset':true,'vocab_size':128256",
      { 4096, 32, 32, 8, 128, 14336, 128256, 131072 },
      { 5e5, SCALING_LLAMA3, 0, 0, 0 } },
    { "Llama 3.2 1B",
      "'architectures':['LlamaForCausalLM'],'attention_bias':false,'head_dim':64,"
      "'hidden_act':'silu','hidden_size':2048,'intermediate_size':8192,"
      "'max_position_embeddings':131072,'mlp_bias':false,'model_type':'llama',"
      "'num_attention_heads':32,'num_hidden_layers':16,'num_key_value_heads':8,"
      "'pretraining_tp':1,'rms_norm_eps':1e-05,'rope_scaling':{'factor':32.0,"
      "'high_freq_factor':4.0,'low_freq_factor':1.0,'original_max_position_embeddings':8192,"
      "'rope_type':'llama3'},'rope_theta':500000.0,'tie_word_embeddings':true,"
      "'vocab_size':128256",
      { 2048, 16, 32, 8, 64, 8192, 128256, 131072 },
      { 5e5, SCALING_LLAMA3, 0, 0, 0 } },
    { "Llama 3.1 made narrower, heads as they were",
      "'architectures':['LlamaForCausalLM'],'head_dim':128,'hidden_act':'silu',"
      "'hidden_size':3072,'intermediate_size':9216,'max_position_embeddings':131072,"
      "'model_type':'llama','num_attention_heads':32,'num_hidden_layers':32,"
      "'num_key_value_heads':8,'rms_norm_eps':1e-05,'rope_theta':500000.0,'vocab_size':128256",
      { 3072, 32, 32, 8, 128, 9216, 128256, 131072 },
      { 5e5, SCALING_NONE, 0, 0, 0 } },
    { "TinyLlama",
      "'architectures':['LlamaForCausalLM'],'attention_bias':false,'hidden_act':'silu',"
      "'hidden_size':2048,'intermediate_size':5632,'max_position_embeddings':2048,"
      "'model_type':'llama','num_attention_heads':32,'num_hidden_layers':22,"
      "'num_key_value_heads':4,'pretraining_tp':1,'rms_norm_eps':1e-05,'rope_scaling':null,"
      "'rope_theta':10000.0,'tie_word_embeddings':false,'vocab_size':32000",
      { 2048, 22, 32, 4, 64, 5632, 32000, 2048 },
      { 1e4, SCALING_NONE, 0, 0, 0 } },
    { "SmolLM2 135M",
      "'architectures':['LlamaForCausalLM'],'attention_bias':false,'attention_dropout':0.0,"
      "'hidden_act':'silu','hidden_size':576,'intermediate_size':1536,'is_llama_config':true,"
      "'max_position_embeddings':8192,'mlp_bias':false,'model_type':'llama',"
      "'num_attention_heads':9,'num_hidden_layers':30,'num_key_value_heads':3,"
      "'pad_token_id':2,'pretraining_tp':1,'rms_norm_eps':1e-05,'rope_interleaved':false,"
      "'rope_scaling':null,'rope_theta':100000,'tie_word_embeddings':true,"
      "'transformers.js_config':{'dtype':'q4','kv_cache_dtype':{'q4f16':'float16'}},"
      "'vocab_size':49152",
      { 576, 30, 9, 3, 64, 1536, 49152, 8192 },
      { 1e5, SCALING_NONE, 0, 0, 0 } },
    { "SmolLM3 3B",
      "'architectures':['SmolLM3ForCausalLM'],'attention_bias':false,'hidden_act':'silu',"
      "'hidden_size':2048,'intermediate_size':11008,'layer_types':[36*'full_attention'],"
      "'max_position_embeddings':65536,'max_window_layers':28,'mlp_bias':false,"
      "'model_type':'smollm3','no_rope_layer_interval':4,'no_rope_layers':[9*1,1,1,0],"
      "'num_attention_heads':16,'num_hidden_layers':36,'num_key_value_heads':4,"
      "'pad_token_id':128004,'pretraining_tp':2,'rms_norm_eps':1e-06,'rope_scaling':null,"
      "'rope_theta':5000000.0,'sliding_window':null,'use_sliding_window':false,"
      "'vocab_size':128256",
      { 2048, 36, 16, 4, 128, 11008, 128256, 65536 },
      { 5e6, SCALING_NONE, 0, 0, 0 } },
    { "Mistral 7B v0.1 and what is tuned from it",
      "'architectures':['MistralForCausalLM'],'hidden_act':'silu','hidden_size':4096,"
      "'intermediate_size':14336,'max_position_embeddings':32768,'model_type':'mistral',"
      "'num_attention_heads':32,'num_hidden_layers':32,'num_key_value_heads':8,"
      "'rms_norm_eps':1e-05,'rope_theta':10000.0,'sliding_window':4096,"
      "'tie_word_embeddings':false,'torch_dtype':'bfloat16','pad_token_id':2,"
      "'vocab_size':32002",
      { 4096, 32, 32, 8, 128, 14336, 32002, 32768 },
      { 1e4, SCALING_NONE, 4096, 4096, 0 } },
    { "Mistral Nemo",
      "'architectures':['MistralForCausalLM'],'attention_dropout':0.0,'head_dim':128,"
      "'hidden_act':'silu','hidden_size':5120,'intermediate_size':14336,"
      "'max_position_embeddings':1024000,'model_type':'mistral','num_attention_heads':32,"
      "'num_hidden_layers':40,'num_key_value_heads':8,'rms_norm_eps':1e-05,"
      "'rope_theta':1000000.0,'sliding_window':null,'tie_word_embeddings':false,"
      "'vocab_size':131072",
      { 5120, 40, 32, 8, 128, 14336, 131072, 1024000 },
      { 1e6, SCALING_NONE, 0, 0, 0 } },
    { "Mixtral 8x7B",
      "'architectures':['MixtralForCausalLM'],'attention_dropout':0.0,'hidden_act':'silu',"
      "'hidden_size':4096,'intermediate_size':14336,'max_position_embeddings':32768,"
      "'model_type':'mixtral','num_attention_heads':32,'num_experts_per_tok':2,"
      "'num_hidden_layers':32,'num_key_value_heads':8,'num_local_experts':8,"
      "'output_router_logits':false,'rms_norm_eps':1e-05,'rope_theta':1000000.0,"
      "'router_aux_loss_coef':0.02,'router_jitter_noise':0.0,'sliding_window':null,"
      "'tie_word_embeddings':false,'vocab_size':32000",
      { 4096, 32, 32, 8, 128, 14336, 32000, 32768 },
      { 1e6, SCALING_NONE, 0, 0, 0 } },
    { "Qwen2.5 0.5B",
      "'architectures':['Qwen2ForCausalLM'],'attention_dropout':0.0,'hidden_act':'silu',"
      "'hidden_size':896,'intermediate_size':4864,'max_position_embeddings':32768,"
      "'max_window_layers':21,'model_type':'qwen2','num_attention_heads':14,"
      "'num_hidden_layers':24,'num_key_value_heads':2,'rms_norm_eps':1e-06,"
      "'rope_theta':1000000.0,'sliding_window':32768,'tie_word_embeddings':true,"
      "'use_sliding_window':false,'vocab_size':151936",
      { 896, 24, 14, 2, 64, 4864, 151936, 32768 },
      { 1e6, SCALING_NONE, 0, 0, 0 } },
    { "Qwen2.5 72B, lengthened as its card says",
      "'architectures':['Qwen2ForCausalLM'],'attention_dropout':0.0,'hidden_act':'silu',"
      "'hidden_size':8192,'intermediate_size':29568,'max_position_embeddings':32768,"
      "'max_window_layers':70,'model_type':'qwen2','num_attention_heads':64,"
      "'num_hidden_layers':80,'num_key_value_heads':8,'rms_norm_eps':1e-06,"
      "'rope_scaling':{'factor':4.0,'original_max_position_embeddings':32768,'type':'yarn'},"
      "'rope_theta':1000000.0,'sliding_window':131072,'tie_word_embeddings':false,"
      "'use_sliding_window':false,'vocab_size':152064",
      { 8192, 80, 64, 8, 128, 29568, 152064, 32768 },
      { 1e6, SCALING_YARN, 0, 0, 0 } },
    { "a distillate in Qwen2.5 Math 1.5B",
      "'architectures':['Qwen2ForCausalLM'],'attention_dropout':0.0,'hidden_act':'silu',"
      "'hidden_size':1536,'intermediate_size':8960,'max_position_embeddings':131072,"
      "'max_window_layers':21,'model_type':'qwen2','num_attention_heads':12,"
      "'num_hidden_layers':28,'num_key_value_heads':2,'rms_norm_eps':1e-06,"
      "'rope_theta':10000,'sliding_window':4096,'tie_word_embeddings':false,'use_mrope':false,"
      "'use_sliding_window':false,'vocab_size':151936",
      { 1536, 28, 12, 2, 128, 8960, 151936, 131072 },
      { 1e4, SCALING_NONE, 0, 0, 0 } },
    { "Qwen3 8B",
      "'architectures':['Qwen3ForCausalLM'],'attention_bias':false,'attention_dropout':0.0,"
      "'head_dim':128,'hidden_act':'silu','hidden_size':4096,'intermediate_size':12288,"
      "'max_position_embeddings':40960,'max_window_layers':36,'model_type':'qwen3',"
      "'num_attention_heads':32,'num_hidden_layers':36,'num_key_value_heads':8,"
      "'rms_norm_eps':1e-06,'rope_scaling':null,'rope_theta':1000000,'sliding_window':null,"
      "'tie_word_embeddings':false,'use_sliding_window':false,'vocab_size':151936",
      { 4096, 36, 32, 8, 128, 12288, 151936, 40960 },
      { 1e6, SCALING_NONE, 0, 0, 0 } },
    { "Qwen3 30B-A3B for code",
      "'architectures':['Qwen3MoeForCausalLM'],'attention_bias':false,'attention_dropout':0.0,"
      "'decoder_sparse_step':1,'head_dim':128,'hidden_act':'silu','hidden_size':2048,"
      "'intermediate_size':5472,'max_position_embeddings':262144,'max_window_layers':28,"
      "'mlp_only_layers':[],'model_type':'qwen3_moe','moe_intermediate_size':768,"
      "'norm_topk_prob':true,'num_attention_heads':32,'num_experts':128,"
      "'num_experts_per_tok':8,'num_hidden_layers':48,'num_key_value_heads':4,"
      "'output_router_logits':false,'qkv_bias':false,'rms_norm_eps':1e-06,"
      "'rope_scaling':null,'rope_theta':10000000,'router_aux_loss_coef':0.0,"
      "'shared_expert_intermediate_size':0,'sliding_window':null,'tie_word_embeddings':false,"
      "'use_qk_norm':true,'use_sliding_window':false,'vocab_size':151936",
      { 2048, 48, 32, 4, 128, 5472, 151936, 262144 },
      { 1e7, SCALING_NONE, 0, 0, 0 } },
};

static const published OTHERS[] = {
    { "Gemma 2 9B",
      "'architectures':['Gemma2ForCausalLM'],'attention_bias':false,'attention_dropout':0.0,"
      "'attn_logit_softcapping':50.0,'cache_implementation':'hybrid',"
      "'final_logit_softcapping':30.0,'head_dim':256,'hidden_act':'gelu_pytorch_tanh',"
      "'hidden_activation':'gelu_pytorch_tanh','hidden_size':3584,'intermediate_size':14336,"
      "'max_position_embeddings':8192,'model_type':'gemma2','num_attention_heads':16,"
      "'num_hidden_layers':42,'num_key_value_heads':8,'pad_token_id':0,"
      "'query_pre_attn_scalar':256,'rms_norm_eps':1e-06,'rope_theta':10000.0,"
      "'sliding_window':4096,'sliding_window_size':4096,'vocab_size':256000",
      { 3584, 42, 16, 8, 256, 14336, 256000, 8192 },
      { 1e4, SCALING_NONE, 4096, 0, 256 } },
    { "Gemma 2 27B",
      "'architectures':['Gemma2ForCausalLM'],'attention_bias':false,"
      "'attn_logit_softcapping':50.0,'cache_implementation':'hybrid',"
      "'final_logit_softcapping':30.0,'head_dim':128,'hidden_act':'gelu_pytorch_tanh',"
      "'hidden_activation':'gelu_pytorch_tanh','hidden_size':4608,'intermediate_size':36864,"
      "'max_position_embeddings':8192,'model_type':'gemma2','num_attention_heads':32,"
      "'num_hidden_layers':46,'num_key_value_heads':16,'query_pre_attn_scalar':144,"
      "'rms_norm_eps':1e-06,'rope_theta':10000.0,'sliding_window':4096,"
      "'sliding_window_size':4096,'_attn_implementation':'eager','vocab_size':256000",
      { 4608, 46, 32, 16, 128, 36864, 256000, 8192 },
      { 1e4, SCALING_NONE, 4096, 0, 144 } },
    { "Gemma 3 270M",
      "'_sliding_window_pattern':6,'architectures':['Gemma3ForCausalLM'],"
      "'attention_bias':false,'attention_dropout':0.0,'attn_logit_softcapping':null,"
      "'final_logit_softcapping':null,'head_dim':256,'hidden_activation':'gelu_pytorch_tanh',"
      "'hidden_size':640,'intermediate_size':2048,'layer_types':[3*'sliding_attention',"
      "'sliding_attention','sliding_attention','sliding_attention','sliding_attention',"
      "'full_attention'],'max_position_embeddings':32768,'model_type':'gemma3_text',"
      "'num_attention_heads':4,'num_hidden_layers':18,'num_key_value_heads':1,"
      "'query_pre_attn_scalar':256,'rms_norm_eps':1e-06,'rope_local_base_freq':10000.0,"
      "'rope_scaling':null,'rope_theta':1000000.0,'sliding_window':512,"
      "'use_bidirectional_attention':false,'vocab_size':262144",
      { 640, 18, 4, 1, 256, 2048, 262144, 32768 },
      { 1e6, SCALING_NONE, 512, 0, 256 } },
    { "Gemma 3 1B",
      "'architectures':['Gemma3ForCausalLM'],'attention_bias':false,"
      "'attn_logit_softcapping':null,'cache_implementation':'hybrid',"
      "'final_logit_softcapping':null,'head_dim':256,'hidden_activation':'gelu_pytorch_tanh',"
      "'hidden_size':1152,'intermediate_size':6912,'max_position_embeddings':32768,"
      "'model_type':'gemma3_text','num_attention_heads':4,'num_hidden_layers':26,"
      "'num_key_value_heads':1,'pad_token_id':0,'query_pre_attn_scalar':256,"
      "'rms_norm_eps':1e-06,'rope_local_base_freq':10000,'rope_scaling':null,"
      "'rope_theta':1000000,'sliding_window':512,'sliding_window_pattern':6,"
      "'vocab_size':262144",
      { 1152, 26, 4, 1, 256, 6912, 262144, 32768 },
      { 1e6, SCALING_NONE, 512, 512, 256 } },
    { "Gemma 3 27B",
      "'architectures':['Gemma3ForConditionalGeneration'],'boi_token_index':255999,"
      "'eoi_token_index':256000,'image_token_index':262144,'mm_tokens_per_image':256,"
      "'model_type':'gemma3','text_config':{'head_dim':128,'hidden_size':5376,"
      "'intermediate_size':21504,'model_type':'gemma3_text','num_attention_heads':32,"
      "'num_hidden_layers':62,'num_key_value_heads':16,'query_pre_attn_scalar':168,"
      "'rope_scaling':{'factor':8.0,'rope_type':'linear'},'sliding_window':1024},"
      "'torch_dtype':'bfloat16','vision_config':{'hidden_size':1152,'image_size':896,"
      "'model_type':'siglip_vision_model','vision_use_head':false}",
      { 5376, 62, 32, 16, 128, 21504, 262208, 131072 },
      { 1e6, SCALING_LINEAR, 1024, 1024, 168 } },
    { "Phi-3 mini 4k",
      "'architectures':['Phi3ForCausalLM'],'attention_bias':false,'attention_dropout':0.0,"
      "'auto_map':{'AutoConfig':'configuration_phi3.Phi3Config'},'embd_pdrop':0.0,"
      "'hidden_act':'silu','hidden_size':3072,'intermediate_size':8192,"
      "'max_position_embeddings':4096,'model_type':'phi3','num_attention_heads':32,"
      "'num_hidden_layers':32,'num_key_value_heads':32,"
      "'original_max_position_embeddings':4096,'pad_token_id':32000,'resid_pdrop':0.0,"
      "'rms_norm_eps':1e-05,'rope_scaling':null,'rope_theta':10000.0,'sliding_window':2047,"
      "'tie_word_embeddings':false,'vocab_size':32064",
      { 3072, 32, 32, 32, 96, 8192, 32064, 4096 },
      { 1e4, SCALING_NONE, 2047, 2047, 0 } },
    { "Phi-3 mini 128k and 3.5",
      "'architectures':['Phi3ForCausalLM'],'attention_bias':false,'embd_pdrop':0.0,"
      "'hidden_act':'silu','hidden_size':3072,'intermediate_size':8192,"
      "'max_position_embeddings':131072,'model_type':'phi3','num_attention_heads':32,"
      "'num_hidden_layers':32,'num_key_value_heads':32,"
      "'original_max_position_embeddings':4096,'resid_pdrop':0.0,'rms_norm_eps':1e-05,"
      "'rope_scaling':{'long_factor':[48*1.5],'short_factor':[48*1.0],'type':'longrope'},"
      "'rope_theta':10000.0,'sliding_window':262144,'tie_word_embeddings':false,"
      "'vocab_size':32064",
      { 3072, 32, 32, 32, 96, 8192, 32064, 131072 },
      { 1e4, SCALING_LONG, 262144, 262144, 0 } },
    { "Phi-3 medium 128k",
      "'architectures':['Phi3ForCausalLM'],'attention_bias':false,'embd_pdrop':0.0,"
      "'hidden_act':'silu','hidden_size':5120,'intermediate_size':17920,"
      "'max_position_embeddings':131072,'model_type':'phi3','num_attention_heads':40,"
      "'num_hidden_layers':40,'num_key_value_heads':10,"
      "'original_max_position_embeddings':4096,'resid_pdrop':0.0,'rms_norm_eps':1e-05,"
      "'rope_scaling':{'long_factor':[64*2],'short_factor':[64*1],'type':'su'},"
      "'rope_theta':10000.0,'sliding_window':131072,'tie_word_embeddings':false,"
      "'vocab_size':32064",
      { 5120, 40, 40, 10, 128, 17920, 32064, 131072 },
      { 1e4, SCALING_LONG, 131072, 131072, 0 } },
    { "Phi-4",
      "'architectures':['Phi3ForCausalLM'],'attention_bias':false,'attention_dropout':0.0,"
      "'embd_pdrop':0.0,'hidden_act':'silu','hidden_size':5120,'intermediate_size':17920,"
      "'max_position_embeddings':16384,'model_type':'phi3','num_attention_heads':40,"
      "'num_hidden_layers':40,'num_key_value_heads':10,"
      "'original_max_position_embeddings':16384,'pad_token_id':100349,'resid_pdrop':0.0,"
      "'rms_norm_eps':1e-05,'rope_scaling':null,'rope_theta':250000,'sliding_window':null,"
      "'tie_word_embeddings':false,'vocab_size':100352",
      { 5120, 40, 40, 10, 128, 17920, 100352, 16384 },
      { 25e4, SCALING_NONE, 0, 0, 0 } },
    { "Phi-4 mini",
      "'architectures':['Phi3ForCausalLM'],'attention_bias':false,'embd_pdrop':0.0,"
      "'full_attn_mod':1,'hidden_act':'silu','hidden_size':3072,'intermediate_size':8192,"
      "'interpolate_factor':1,'lm_head_bias':false,'max_position_embeddings':131072,"
      "'mlp_bias':false,'model_type':'phi3','num_attention_heads':24,'num_hidden_layers':32,"
      "'num_key_value_heads':8,'original_max_position_embeddings':4096,"
      "'partial_rotary_factor':0.75,'resid_pdrop':0.0,'rms_norm_eps':1e-05,"
      "'rope_scaling':{'long_factor':[48*3],'short_factor':[48*1.0],'type':'longrope'},"
      "'rope_theta':10000.0,'sliding_window':262144,'tie_word_embeddings':true,"
      "'vocab_size':200064",
      { 3072, 32, 24, 8, 128, 8192, 200064, 131072 },
      { 1e4, SCALING_LONG, 262144, 262144, 0 } },
    { "OLMo 2 32B",
      "'architectures':['Olmo2ForCausalLM'],'attention_bias':false,'attention_dropout':0.0,"
      "'hidden_act':'silu','hidden_size':5120,'intermediate_size':27648,"
      "'max_position_embeddings':4096,'model_type':'olmo2','num_attention_heads':40,"
      "'num_hidden_layers':64,'num_key_value_heads':8,'pad_token_id':100277,"
      "'rms_norm_eps':1e-06,'rope_scaling':null,'rope_theta':500000,"
      "'tie_word_embeddings':false,'vocab_size':100352",
      { 5120, 64, 40, 8, 128, 27648, 100352, 4096 },
      { 5e5, SCALING_NONE, 0, 0, 0 } },
    { "Granite 3.0 2B",
      "'architectures':['GraniteForCausalLM'],'attention_bias':false,'attention_dropout':0.1,"
      "'attention_multiplier':0.015625,'embedding_multiplier':12.0,'hidden_act':'silu',"
      "'hidden_size':2048,'intermediate_size':8192,'logits_scaling':8.0,"
      "'max_position_embeddings':4096,'mlp_bias':false,'model_type':'granite',"
      "'num_attention_heads':32,'num_hidden_layers':40,'num_key_value_heads':8,"
      "'pad_token_id':0,'residual_multiplier':0.22,'rms_norm_eps':1e-05,'rope_scaling':null,"
      "'rope_theta':10000.0,'tie_word_embeddings':true,'vocab_size':49155",
      { 2048, 40, 32, 8, 64, 8192, 49155, 4096 },
      { 1e4, SCALING_NONE, 0, 0, 4096 } },
    { "Granite 3.3 8B",
      "'architectures':['GraniteForCausalLM'],'attention_bias':false,"
      "'attention_multiplier':0.0078125,'embedding_multiplier':12.0,'hidden_act':'silu',"
      "'hidden_size':4096,'intermediate_size':12800,'logits_scaling':16.0,"
      "'max_position_embeddings':131072,'mlp_bias':false,'model_type':'granite',"
      "'num_attention_heads':32,'num_hidden_layers':40,'num_key_value_heads':8,"
      "'residual_multiplier':0.22,'rms_norm_eps':1e-05,'rope_scaling':null,"
      "'rope_theta':10000000.0,'tie_word_embeddings':true,'vocab_size':49159",
      { 4096, 40, 32, 8, 128, 12800, 49159, 131072 },
      { 1e7, SCALING_NONE, 0, 0, 16384 } },
    { "GPT-OSS 20B",
      "'architectures':['GptOssForCausalLM'],'attention_bias':true,'attention_dropout':0.0,"
      "'experts_per_token':4,'head_dim':64,'hidden_act':'silu','hidden_size':2880,"
      "'initial_context_length':4096,'intermediate_size':2880,"
      "'layer_types':[12*'sliding_attention','full_attention'],"
      "'max_position_embeddings':131072,'model_type':'gpt_oss','num_attention_heads':64,"
      "'num_experts_per_tok':4,'num_hidden_layers':24,'num_key_value_heads':8,"
      "'num_local_experts':32,'output_router_logits':false,'pad_token_id':199999,"
      "'quantization_config':{'modules_to_not_convert':['lm_head'],'quant_method':'mxfp4'},"
      "'rms_norm_eps':1e-05,'rope_scaling':{'beta_fast':32.0,'beta_slow':1.0,'factor':32.0,"
      "'original_max_position_embeddings':4096,'rope_type':'yarn','truncate':false},"
      "'rope_theta':150000,'router_aux_loss_coef':0.9,'sliding_window':128,"
      "'swiglu_limit':7.0,'tie_word_embeddings':false,'vocab_size':201088",
      { 2880, 24, 64, 8, 64, 2880, 201088, 131072 },
      { 15e4, SCALING_YARN, 128, 0, 0 } },
    { "GPT-2 medium",
      "'activation_function':'gelu_new','architectures':['GPT2LMHeadModel'],"
      "'attn_pdrop':0.1,'embd_pdrop':0.1,'layer_norm_epsilon':1e-05,'model_type':'gpt2',"
      "'n_ctx':1024,'n_embd':1024,'n_head':16,'n_layer':24,'n_positions':1024,'n_special':0,"
      "'predict_special_tokens':true,'resid_pdrop':0.1,'summary_activation':null,"
      "'summary_first_dropout':0.1,'summary_proj_to_labels':true,'summary_type':'cls_index',"
      "'summary_use_proj':true,'task_specific_params':{'text-generation':{'do_sample':true,"
      "'max_length':50}},'vocab_size':50257",
      { 1024, 24, 16, 16, 64, 4096, 50257, 1024 },
      { 1e4, SCALING_NONE, 0, 0, 0 } },
    { "GPT-2 XL and the distilled one",
      "'_num_labels':1,'activation_function':'gelu_new','architectures':['GPT2LMHeadModel'],"
      "'attn_pdrop':0.1,'embd_pdrop':0.1,'id2label':{'0':'LABEL_0'},'label2id':{'LABEL_0':0},"
      "'layer_norm_epsilon':1e-05,'model_type':'gpt2','n_ctx':1024,'n_embd':1600,'n_head':25,"
      "'n_inner':null,'n_layer':48,'n_positions':1024,'output_past':true,'resid_pdrop':0.1,"
      "'gradient_checkpointing':false,'scale_attn_weights':true,"
      "'scale_attn_by_inverse_layer_idx':false,'reorder_and_upcast_attn':false,"
      "'summary_first_dropout':0.1,'summary_proj_to_labels':true,'summary_type':'cls_index',"
      "'summary_use_proj':true,'vocab_size':50257",
      { 1600, 48, 25, 25, 64, 6400, 50257, 1024 },
      { 1e4, SCALING_NONE, 0, 0, 0 } },
};

static void check_published(test *t, const published *p) {
    test_row(t, "%s", p->name);
    description d = description_of_text(t, unfold(t, p->text));
    const config *c = &d.config;
    if (CHECK_MSG(t, d.ok, "%s", t->err.message)) {
        const uint32_t got[] = { c->dim,      c->n_layers, c->n_heads,    c->n_kv_heads,
                                 c->head_dim, c->ffn_dim,  c->vocab_size, c->context };
        for (size_t i = 0; i < ARRAY_LEN(got); i++) {
            CHECK_MSG(t, got[i] == p->counts[i], "count %zu: %u and %u", i, got[i], p->counts[i]);
        }
        CHECK(t, c->rope[ROPE_GLOBAL].theta == p->more.theta &&
                     c->rope[ROPE_GLOBAL].kind == p->more.kind);
        CHECK_U64(t, c->layer_window[0], p->more.first);
        CHECK_U64(t, c->layer_window[c->n_layers - 1], p->more.last);
        const double square = p->more.square > 0 ? p->more.square : c->head_dim;
        CHECK_MSG(t, c->attention_scale == (float)(1 / sqrt(square)), "scale of attention %g",
                  (double)c->attention_scale);
        check_written_config(t, &d);
    }
    t->err = (dp_error){ 0 };
    description_drop(&d);
}

static void published_configs_are_read(test *t) {
    for (size_t i = 0; i < ARRAY_LEN(LLAMAS); i++) {
        check_published(t, &LLAMAS[i]);
    }
    for (size_t i = 0; i < ARRAY_LEN(OTHERS); i++) {
        check_published(t, &OTHERS[i]);
    }
}

/* What the rows above have besides. */
static void published_configs_keep_what_is_their_own(test *t) {
    for (size_t i = 0; i < ARRAY_LEN(LLAMAS) + ARRAY_LEN(OTHERS); i++) {
        const published *p = i < ARRAY_LEN(LLAMAS) ? &LLAMAS[i] : &OTHERS[i - ARRAY_LEN(LLAMAS)];
        test_row(t, "%s", p->name);
        description d = description_of_text(t, unfold(t, p->text));
        const config *c = &d.config;
        const str name = str_of(p->name);
        const uint32_t last = c->n_layers - 1;
        if (!CHECK_MSG(t, d.ok, "%s", t->err.message)) {
            t->err = (dp_error){ 0 };
        } else if (str_starts(name, "SmolLM3")) {
            CHECK(t, c->layer_rope[last] == ROPE_NONE && c->layer_rope[last - 1] == ROPE_GLOBAL);
            CHECK(t, c->head == HEAD_TIED);
        } else if (str_starts(name, "Mixtral") || str_starts(name, "Qwen3 30B")) {
            const bool mixtral = str_starts(name, "Mixtral");
            CHECK_U64(t, c->n_experts, mixtral ? 8 : 128);
            CHECK_U64(t, c->n_experts_used, mixtral ? 2 : 8);
            CHECK_U64(t, c->expert_ffn_dim, mixtral ? 14336 : 768);
            CHECK(t, c->normalise_route && c->head == HEAD_OWN);
        } else if (str_starts(name, "Gemma")) {
            CHECK(t, c->embedding_scale == sqrtf((float)c->dim) && c->head == HEAD_TIED);
            CHECK(t, c->rope[ROPE_LOCAL].theta == 1e4 && c->rope[ROPE_LOCAL].kind == SCALING_NONE);
            const bool second = str_starts(name, "Gemma 2");
            CHECK(t, c->attention_softcap == (second ? 50 : 0));
            CHECK(t, c->logits_softcap == (second ? 30 : 0));
            CHECK_U64(t, c->layer_window[5], 0);
        } else if (str_starts(name, "Phi")) {
            const bool part = str_starts(name, "Phi-4 mini");
            CHECK_U64(t, c->rope_dim, part ? 96 : c->head_dim);
            CHECK(t, c->head == (part ? HEAD_TIED : HEAD_OWN));
            CHECK(t, c->rope[ROPE_GLOBAL].original_context == (c->context == 16384 ? 16384 : 4096));
        } else if (str_starts(name, "Granite")) {
            CHECK(t, c->embedding_scale == 12 && c->residual_scale == 0.22f);
            CHECK(t, c->logits_scale == 1.0f / (c->dim == 2048 ? 8 : 16));
        } else if (str_starts(name, "GPT-OSS")) {
            CHECK(t, c->n_experts == 32 && c->n_experts_used == 4 && c->expert_ffn_dim == 2880);
            CHECK(t, c->rope[ROPE_GLOBAL].exact && c->rope[ROPE_GLOBAL].factor == 32);
            CHECK(t, c->act_limit == 7 && c->act_alpha == 1.702f && c->head == HEAD_OWN);
        } else if (str_starts(name, "GPT-2")) {
            CHECK(t, c->layer_rope[0] == ROPE_NONE && c->norm_eps == 1e-5f);
            CHECK(t, c->head == HEAD_TIED);
        }
        description_drop(&d);
    }
}

/* ---- keys of GGUF files -------------------------------------------------------------------- */

static void put_number(buf *b, uint64_t x, int bytes) {
    for (int i = 0; i < bytes; i++) {
        const uint8_t byte = (uint8_t)(x >> 8 * i);
        buf_add(b, &byte, 1);
    }
}

static void put_string(buf *b, str s) {
    put_number(b, s.size, 8);
    buf_add_str(b, s);
}

/* A GGUF file without tensors. `keys` are "NAME=VALUE" with a semicolon after each; a value with a
 * point is a f32, one of digits alone a u32, "true" and "false" are bools, others are strings. */
static const char *write_keys(test *t, const char *architecture, const char *keys) {
    enum { TYPE_U32 = 4, TYPE_F32 = 6, TYPE_BOOL = 7, TYPE_STRING = 8 };
    buf b;
    buf_init(&b, 1 << 16);
    uint64_t n = 1;
    for (const char *at = keys; *at != '\0'; at++) {
        n += *at == ';';
    }
    buf_add(&b, "GGUF", 4);
    put_number(&b, 3, 4);
    put_number(&b, 0, 8);
    put_number(&b, n, 8);
    put_string(&b, STR("general.architecture"));
    put_number(&b, TYPE_STRING, 4);
    put_string(&b, str_of(architecture));
    for (const char *at = keys; *at != '\0';) {
        const size_t name = strcspn(at, "="), whole = strcspn(at, ";");
        const str value = { at + name + 1, whole - name - 1 };
        put_string(&b, str_of(test_printf(t, "%s.%.*s", architecture, (int)name, at)));
        const bool on = str_is(value, "true"), number = value.data[0] <= '9';
        if (on || str_is(value, "false")) {
            put_number(&b, TYPE_BOOL, 4);
            put_number(&b, on, 1);
        } else if (number && memchr(value.data, '.', value.size) != NULL) {
            const float x = strtof(value.data, NULL);
            put_number(&b, TYPE_F32, 4);
            buf_add(&b, &x, sizeof x);
        } else if (number) {
            put_number(&b, TYPE_U32, 4);
            put_number(&b, strtoul(value.data, NULL, 10), 4);
        } else {
            put_number(&b, TYPE_STRING, 4);
            put_string(&b, value);
        }
        at += whole + 1;
    }
    CHECK(t, buf_ok(&b, "x.gguf", &t->err));
    const char *path = test_write(t, "x.gguf", b.data, b.size);
    buf_free(&b);
    return path;
}

static void gguf_keys_are_known_or_refused(test *t) {
    static const char base[] = "context_length=4096;embedding_length=64;block_count=6;"
                               "feed_forward_length=128;attention.head_count=4;"
                               "attention.head_count_kv=2;attention.layer_norm_rms_epsilon=0.00001;"
                               "rope.dimension_count=16;rope.freq_base=500000.0;vocab_size=100;";
    static const struct {
        const char *architecture, *keys;
        const char *part; /* of the message; NULL: it is read */
        uint32_t first;   /* window of the first layer */
    } rows[] = {
        { "llama", "", NULL, 0 },
        { "llama", "tensor_data_layout=Meta AI original pth;expert_count=0;expert_used_count=0;",
          NULL, 0 },
        { "llama", "tensor_data_layout=reference;", "tensor_data_layout", 0 },
        { "qwen2", "tensor_data_layout=Meta AI original pth;", "tensor_data_layout", 0 },
        { "llama", "attention.causal=true;rope.scaling.finetuned=false;", NULL, 0 },
        { "llama", "attention.causal=false;", "attention.causal", 0 },
        { "llama", "rope.scaling.yarn_log_multiplier=0.1;", "yarn_log_multiplier", 0 },
        { "llama",
          "rope.scaling.type=yarn;rope.scaling.factor=4.0;"
          "rope.scaling.original_context_length=1024;rope.scaling.yarn_ext_factor=1.0;"
          "rope.scaling.yarn_attn_factor=0.9;rope.scaling.yarn_beta_fast=32.0;",
          NULL, 0 },
        { "llama", "rope.scaling.yarn_ext_factor=0.5;", "yarn_ext_factor", 0 },
        { "llama", "expert_count=8;expert_used_count=2;", NULL, 0 },
        { "llama", "expert_count=8;expert_used_count=2;expert_gating_func=2;", "expert_gating_func",
          0 },
        { "llama", "expert_count=8;expert_used_count=2;expert_group_count=4;", "expert_group_count",
          0 },
        { "qwen3", "attention.key_length=16;attention.value_length=16;pooling_type=3;", NULL, 0 },
        { "qwen3moe", "expert_count=8;expert_used_count=2;expert_feed_forward_length=32;", NULL,
          0 },
        { "qwen3moe", "expert_count=8;expert_used_count=2;expert_shared_count=1;",
          "expert_shared_count", 0 },
        { "gemma3",
          "attention.key_length=16;attention.sliding_window=512;rope.scaling.type=linear;"
          "rope.scaling.factor=8.0;rope.freq_base_swa=10000.0;mm.tokens_per_image=256;"
          "vision.block_count=27;vision.attention.layer_norm_epsilon=0.000001;",
          NULL, 512 },
        { "gemma3", "rope.global.freq_base=1000000.0;", "rope.global.freq_base", 0 },
        { "gemma2",
          "attention.sliding_window=512;attn_logit_softcapping=50.0;"
          "final_logit_softcapping=30.0;",
          NULL, 512 },
        { "phi3", "attention.sliding_window=0;rope.scaling.attn_factor=1.19;", NULL, 0 },
        { "phi3", "attention.sliding_window=2047;", NULL, 2047 },
        { "olmo2", "attention.sliding_window=0;", NULL, 0 },
        { "olmo2", "attention.sliding_window=1024;", "attention.sliding_window", 0 },
        { "granite",
          "attention.scale=0.015625;embedding_scale=12.0;residual_scale=0.22;"
          "logit_scale=8.0;",
          NULL, 0 },
        { "gpt-oss",
          "attention.key_length=16;attention.sliding_window=128;expert_count=32;"
          "expert_used_count=4;expert_feed_forward_length=32;rope.scaling.type=yarn;"
          "rope.scaling.factor=32.0;rope.scaling.original_context_length=4096;",
          NULL, 128 },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        test_row(t, "%s %s", rows[i].architecture, rows[i].keys);
        dp_error err = { 0 };
        const char *keys = test_printf(t, "%s%s", base, rows[i].keys);
        container *files = container_open(write_keys(t, rows[i].architecture, keys), true, &err);
        config c;
        arena memory = { 0 };
        const bool ok = files != NULL && config_read(&c, files, false, &memory, &err);
        if (rows[i].part != NULL) {
            CHECK(t, !ok);
            CHECK_ERROR(t, &err, DP_E_UNSUPPORTED, rows[i].part);
        } else if (CHECK_MSG(t, ok, "%s", err.message)) {
            CHECK_U64(t, c.layer_window[0], rows[i].first);
        }
        arena_free(&memory);
        container_close(files);
    }
}

/* ---- what is refused ----------------------------------------------------------------------- */

static void what_is_not_known_is_refused_by_name(test *t) {
    static const struct {
        const char *type, *more;
        dp_status status;
        const char *part; /* of the message; NULL: it is read */
    } cases[] = {
        { "llama", "", DP_OK, NULL },
        { "mamba", "", DP_E_UNSUPPORTED, "model_type 'mamba'" },
        { "llama", ",\"sliding_window\":16", DP_E_UNSUPPORTED, "sliding_window" },
        { "llama", ",\"sliding_window\":null", DP_OK, NULL },
        { "llama", ",\"embedding_multiplier\":12", DP_E_UNSUPPORTED, "embedding_multiplier" },
        { "llama", ",\"num_local_experts\":8", DP_E_UNSUPPORTED, "num_local_experts" },
        { "llama", ",\"alibi\":true", DP_E_UNSUPPORTED, "alibi" },
        { "llama", ",\"alibi\":false,\"_note\":7,\"use_cache\":true", DP_OK, NULL },
        { "llama", ",\"hidden_act\":\"relu\"", DP_E_UNSUPPORTED, "relu" },
        { "gemma2", ",\"hidden_activation\":\"gelu\"", DP_E_UNSUPPORTED, "gelu" },
        { "llama", ",\"rope_scaling\":{\"type\":\"ntk\",\"factor\":2}", DP_E_UNSUPPORTED, "ntk" },
        { "llama", ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2,\"warp\":3}",
          DP_E_UNSUPPORTED, "warp" },
        { "llama", ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":-2}", DP_E_FORMAT, "factor" },
        { "phi3",
          ",\"rope_scaling\":{\"type\":\"longrope\",\"short_factor\":[1],\"long_factor\":[]}",
          DP_E_FORMAT, "short_factor" },
        { "phi3", ",\"rope_scaling\":{\"type\":\"yarn\",\"short_factor\":[1],\"long_factor\":[]}",
          DP_E_FORMAT, "short_factor" },
        { "llama", ",\"rope_scaling\":\"linear\"", DP_E_FORMAT, "rope_scaling" },
        { "llama", ",\"rope_scaling\":{\"rope_type\":3}", DP_E_FORMAT, "rope_type" },
        { "llama", ",\"rope_scaling\":{\"full_attention\":{\"rope_type\":\"yarn\"}}",
          DP_E_UNSUPPORTED, "full_attention" },
        { "llama", ",\"text_config\":{\"model_type\":\"mamba\"}", DP_E_UNSUPPORTED, "text_config" },
        { "gemma3", ",\"text_config\":\"x\"", DP_E_FORMAT, "text_config" },
        { "qwen2", ",\"use_sliding_window\":\"true\"", DP_E_FORMAT, "use_sliding_window" },
        { "qwen2", ",\"layer_types\":[\"full_attention\",\"linear_attention\"]", DP_E_UNSUPPORTED,
          "linear_attention" },
        { "mistral", ",\"layer_types\":\"full_attention\"", DP_E_FORMAT, "layer_types" },
        { "llama", ",\"quantization_config\":{\"quant_method\":\"gptq\"}", DP_E_UNSUPPORTED,
          "quantization_config" },
        { "mixtral", "", DP_E_FORMAT, "num_local_experts: missing" },
        { "mixtral", ",\"num_local_experts\":2,\"num_experts_per_tok\":3", DP_E_FORMAT,
          "3 experts used of 2" },
        { "mixtral", ",\"num_local_experts\":100000,\"num_experts_per_tok\":3", DP_E_FORMAT,
          "100000" },
        { "qwen3_moe",
          ",\"num_experts\":8,\"num_experts_per_tok\":2,\"decoder_sparse_step\":2,"
          "\"head_dim\":16",
          DP_E_UNSUPPORTED, "decoder_sparse_step" },
        { "qwen3_moe", ",\"num_experts\":8,\"use_qk_norm\":false", DP_E_UNSUPPORTED,
          "use_qk_norm" },
        { "qwen3_moe", ",\"num_experts\":8,\"use_sliding_window\":true", DP_E_UNSUPPORTED,
          "use_sliding_window" },
        { "smollm3", ",\"use_sliding_window\":true", DP_E_UNSUPPORTED, "use_sliding_window" },
        { "llama", ",\"use_qk_norm\":true", DP_E_UNSUPPORTED, "use_qk_norm" },
        { "llama", ",\"use_qk_norm\":false,\"is_causal\":true", DP_OK, NULL },
        { "llama", ",\"is_causal\":false", DP_E_UNSUPPORTED, "is_causal" },
        { "llama", ",\"partial_rotary_factor\":0.5", DP_E_UNSUPPORTED, "partial_rotary_factor" },
        { "phi3", ",\"lm_head_bias\":true", DP_E_UNSUPPORTED, "lm_head_bias" },
        { "phi3", ",\"full_attn_mod\":2", DP_E_UNSUPPORTED, "full_attn_mod" },
        { "gpt2",
          ",\"n_embd\":64,\"n_layer\":2,\"n_head\":4,\"n_positions\":64,"
          "\"scale_attn_weights\":false",
          DP_E_UNSUPPORTED, "scale_attn_weights" },
        { "gpt_oss", ",\"num_local_experts\":4", DP_E_FORMAT, "rope_scaling: missing" },
        { "gemma2", ",\"layer_types\":[\"full_attention\"]", DP_E_FORMAT, "layer_types" },
        { "mistral", ",\"layer_types\":[\"full_attention\",\"linear_attention\"]", DP_E_UNSUPPORTED,
          "linear_attention" },
        { "gemma2", ",\"final_logit_softcapping\":-1", DP_E_FORMAT, "final_logit_softcapping" },
        { "smollm3", ",\"no_rope_layers\":[1]", DP_E_FORMAT, "no_rope_layers" },
        { "llama", ",\"num_attention_heads\":3", DP_E_FORMAT, "" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        test_row(t, "%s%s", cases[i].type, cases[i].more);
        dp_error err = { 0 };
        const char *text = test_printf(t, LLAMA, cases[i].type, cases[i].more);
        test_write(t, "config.json", text, strlen(text));
        container *files = container_open(test_folder(t), true, &err);
        config c;
        arena memory = { 0 };
        const bool ok = files != NULL && config_read(&c, files, false, &memory, &err);
        if (cases[i].part == NULL) {
            CHECK_MSG(t, ok, "%s", err.message);
        } else if (CHECK(t, !ok)) {
            CHECK_ERROR(t, &err, cases[i].status, cases[i].part);
        }
        arena_free(&memory);
        container_close(files);
    }
}

/* ---- tensors ------------------------------------------------------------------------------- */

/* A tensor of a layer that no operation reads: the description is not that of the file. */
static void tensors_left_over_are_refused(test *t) {
    static const struct {
        const char *folder, *from, *to; /* a change of config.json */
        const char *part;
    } cases[] = {
        { "qwen3", "qwen3", "qwen2", "q_proj.bias: missing" },
        { "mistral-window", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1",
          "model.layers.1." },
        { "granite", "granite", "llama", "multiplier" },
        { "gpt-oss", "\"num_local_experts\": 4", "\"num_local_experts\": 3", "shape" },
        { "olmo2", "olmo2", "llama", "input_layernorm" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        test_row(t, "%s", cases[i].folder);
        const char *folder = test_vector(t, test_printf(t, "families/%s", cases[i].folder));
        str text = test_read_file(t, test_printf(t, "%s/config.json", folder));
        const str weights_file = test_read_file(t, test_printf(t, "%s/model.safetensors", folder));
        buf changed;
        buf_init(&changed, 1 << 20);
        const size_t n = strlen(cases[i].from);
        bool found = false;
        for (size_t at = 0; at < text.size;) {
            const bool here = text.size - at >= n && memcmp(text.data + at, cases[i].from, n) == 0;
            buf_add(&changed, here ? cases[i].to : text.data + at, here ? strlen(cases[i].to) : 1);
            found |= here;
            at += here ? n : 1;
        }
        CHECK(t, found && buf_ok(&changed, "config.json", &t->err));
        test_write(t, "config.json", changed.data, changed.size);
        test_write(t, "model.safetensors", weights_file.data, weights_file.size);
        buf_free(&changed);
        dp_error err = { 0 };
        container *files = container_open(test_folder(t), false, &err);
        config c;
        weights w;
        arena memory = { 0 };
        const weight_limits limits = { .max_binding = 1u << 30, .max_buffer = 1u << 30 };
        CHECK(t, files == NULL || !config_read(&c, files, false, &memory, &err) ||
                     !weights_plan(&w, &c, files, &limits, &memory, &err));
        CHECK_MSG(t, strstr(err.message, cases[i].part) != NULL, "%s", err.message);
        arena_free(&memory);
        container_close(files);
    }
}

/* In buffers of every size what is read as one matrix lies in one piece, if that fits. */
static void what_is_read_together_lies_together(test *t) {
    container *files = container_open(test_vector(t, "families/mixtral"), false, &t->err);
    config c;
    arena memory = { 0 };
    if (!CHECK(t, files != NULL && config_read(&c, files, false, &memory, &t->err))) return;
    uint32_t n_broken = 0;
    for (uint64_t room = 1 << 16; room < 1 << 18; room += 1 << 10) {
        weights w;
        const weight_limits limits = { .max_binding = room, .max_buffer = room };
        if (!CHECK(t, weights_plan(&w, &c, files, &limits, &memory, &t->err))) break;
        uint64_t held = 0;
        for (const weight_buffer *b = w.newest; b != NULL; b = b->older) {
            CHECK(t, b->size <= room);
            held += b->size;
            for (const weight_place *p = b->places; p != NULL; p = p->next) {
                CHECK(t, p->range->offset + p->range->size <= b->size);
            }
        }
        CHECK_U64(t, held, w.bytes);
        n_broken += w.newest->older != NULL;
        for (uint32_t i = 0; i < c.n_layers; i++) {
            const layer_weights *l = &w.layers[i];
            const gpu_range q = l->q.parts[0].range, k = l->k.parts[0].range;
            const gpu_range gate = l->expert_gate.parts[0].range;
            CHECK_U64(t, k.offset, q.offset + q.size);
            CHECK_U64(t, l->v.parts[0].range.offset, k.offset + k.size);
            CHECK_U64(t, l->expert_up.parts[0].range.offset, gate.offset + gate.size);
        }
    }
    CHECK(t, n_broken > 8); /* else nothing had to be moved */
    arena_free(&memory);
    container_close(files);
}

static const test_case cases[] = {
    { "what is read together lies together", what_is_read_together_lies_together },
    { "saved configs say the same", saved_configs_say_the_same },
    { "Gemma 3 fills in what its class does", gemma3_fills_in_what_its_class_does },
    { "families have their own defaults", families_have_their_own_defaults },
    { "classes fill in shapes and factors", classes_fill_in_shapes_and_factors },
    { "published configs are read", published_configs_are_read },
    { "published configs keep what is their own", published_configs_keep_what_is_their_own },
    { "GGUF keys are known or refused", gguf_keys_are_known_or_refused },
    { "what is not known is refused by name", what_is_not_known_is_refused_by_name },
    { "tensors left over are refused", tensors_left_over_are_refused },
};
const test_group config_tests = { "config", cases, ARRAY_LEN(cases) };
