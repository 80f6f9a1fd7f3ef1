/* random-gguf: writes a GGUF file with random weights in the shape of a model, for measuring speed
 * where real weights cannot be had.
 *
 *     random-gguf OUT.gguf SHAPE TYPE        SHAPE: 1b, 8b, 8x7b, gemma2-2b, olmo2-1b, gpt2-774m,
 *                                            qwen3-30b-a3b, gpt-oss-20b or, of a Llama or Mixtral,
 *     LAYERS,DIM,HEADS,KV_HEADS,HEAD_DIM,FFN,VOCAB[,EXPERTS,USED]
 *                                            TYPE:  q4_k_m, or one for all matrices: f32 f16 bf16
 *                                            q4_0 q4_1 q5_0 q5_1 q8_0 q2_k q3_k q4_k q5_k q6_k
 *                                            iq4_nl iq4_xs mxfp4
 *
 * Shapes and types are those of the published models; q4_k_m follows the usual rule (formats: value
 * and down projections of half of the layers and the head in Q6_K, narrow rows in Q5_0 and Q8_0).
 * Blocks come from a pool that our own encoder made of normal numbers of deviation 0.02, so that
 * activations stay finite. The vocabulary is made up (three control tokens, the 256 bytes, words of
 * a number each), so that any text goes in and out; texts mean nothing. */
#include "format/format.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { POOL_WEIGHTS = 1 << 20, ALIGNMENT = 32, TENSORS_MAX = 4096 };

/* Families; their tensors and keys are those that the engine asks for (src/model/fields.c). */
typedef enum { LLAMA, GEMMA2, OLMO2, GPT2, QWEN3_MOE, GPT_OSS } family_kind;
static const char *const architectures[] = { "llama", "gemma2",   "olmo2",
                                             "gpt2",  "qwen3moe", "gpt-oss" };

typedef struct {
    uint32_t layers, dim, heads, kv_heads, head_dim, ffn, vocab, experts, used, context;
    float theta;
    family_kind family;
} shape;

typedef struct {
    char name[64];
    uint32_t n_dims;
    uint64_t ne[3];
    dtype type;
    uint64_t bytes, offset;
} entry;

static struct {
    FILE *out;
    entry tensors[TENSORS_MAX];
    uint32_t n;
    uint64_t random;
    void *pool[DTYPE_COUNT];
} w;

static void die(const char *message, const char *what) {
    fprintf(stderr, "random-gguf: %s: %s\n", what, message);
    exit(1);
}

static void put(const void *bytes, size_t n) {
    if (fwrite(bytes, 1, n, w.out) != n) {
        die("cannot write", "output");
    }
}

static void put_u32(uint32_t x) {
    put(&x, sizeof x);
}

static void put_u64(uint64_t x) {
    put(&x, sizeof x);
}

static void put_string(const char *s) {
    put_u64(strlen(s));
    put(s, strlen(s));
}

static void put_key(const char *key, uint32_t type) {
    put_string(key);
    put_u32(type);
}

static void put_count(const char *key, uint32_t value) {
    put_key(key, 4);
    put_u32(value);
}

static void put_float(const char *key, float value) {
    put_key(key, 6);
    put(&value, sizeof value);
}

static uint64_t next_random(void) { /* splitmix64 (Steele et al. 2014) */
    uint64_t z = w.random += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static float next_normal(void) {
    float sum = -6; /* of twelve uniform numbers: near enough */
    for (int i = 0; i < 12; i++) {
        sum += (float)(next_random() >> 40) * 0x1p-24f;
    }
    return sum;
}

/* Which type a matrix has in a Q4_K_M file. */
static dtype q4_k_m_type(const char *name, uint32_t layer, uint32_t layers, uint64_t cols) {
    const uint32_t eighth = layers / 8;
    const bool more = layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2;
    const bool large = strstr(name, "attn_v") != NULL || strstr(name, "ffn_down") != NULL;
    const bool head = strstr(name, "output.weight") != NULL && strstr(name, "attn") == NULL;
    const bool six = head || (large && more);
    if (cols % 256 != 0) {
        return six ? DTYPE_Q8_0 : DTYPE_Q5_0;
    }
    return six ? DTYPE_Q6_K : DTYPE_Q4_K;
}

static void add_tensor(const char *name, uint64_t experts, uint64_t rows, uint64_t cols,
                       dtype type) {
    if (w.n == TENSORS_MAX) {
        die("too many tensors", name);
    }
    entry *e = &w.tensors[w.n];
    *e = (entry){ .n_dims = experts > 0 ? 3 : cols > 0 ? 2 : 1, .type = type };
    snprintf(e->name, sizeof e->name, "%s", name);
    e->ne[0] = cols > 0 ? cols : rows;
    e->ne[1] = rows;
    e->ne[2] = experts;
    uint64_t row = 0;
    if (!dtype_row_bytes(type, e->ne[0], &row)) {
        die("rows are no multiple of the type's block", name);
    }
    e->bytes = row * (cols > 0 ? rows : 1) * (experts > 0 ? experts : 1);
    e->offset =
        w.n > 0 ? align_up(w.tensors[w.n - 1].offset + w.tensors[w.n - 1].bytes, ALIGNMENT) : 0;
    w.n++;
}

/* A tensor of a layer: its name, [experts, rows, cols], a vector if cols is 0, and the families
 * that have it, by bits. */
typedef struct {
    const char *name;
    uint64_t rows, cols, experts;
    uint32_t families;
} part;
#define ONLY(family) (1u << (family))
enum { ALL = 63 };

static void list_layer(const shape *s, uint32_t layer, bool mixed, dtype type) {
    const uint64_t dim = s->dim, ffn = s->ffn, e = s->experts;
    const uint64_t q = (uint64_t)s->heads * s->head_dim, kv = (uint64_t)s->kv_heads * s->head_dim;
    const uint32_t biased = ONLY(GPT_OSS), whole = s->family == OLMO2;
    const uint32_t dense = e == 0 ? ALL : 0, mixture = e > 0 ? ALL : 0;
    const uint32_t gated = dense & ~ONLY(GPT2), split = ALL & ~ONLY(GPT2);
    const uint32_t normed = ONLY(OLMO2) | ONLY(QWEN3_MOE), post = ONLY(GEMMA2) | ONLY(OLMO2);
    const part parts[] = {
        { "attn_norm.weight", dim, 0, 0, ALL & ~ONLY(OLMO2) },
        { "attn_norm.bias", dim, 0, 0, ONLY(GPT2) },
        { "attn_qkv.weight", q + 2 * kv, dim, 0, ONLY(GPT2) },
        { "attn_qkv.bias", q + 2 * kv, 0, 0, ONLY(GPT2) },
        { "attn_q.weight", q, dim, 0, split },
        { "attn_k.weight", kv, dim, 0, split },
        { "attn_v.weight", kv, dim, 0, split },
        { "attn_q.bias", q, 0, 0, biased },
        { "attn_k.bias", kv, 0, 0, biased },
        { "attn_v.bias", kv, 0, 0, biased },
        { "attn_q_norm.weight", whole ? q : s->head_dim, 0, 0, normed },
        { "attn_k_norm.weight", whole ? kv : s->head_dim, 0, 0, normed },
        { "attn_sinks.weight", s->heads, 0, 0, biased },
        { "attn_output.weight", dim, q, 0, ALL },
        { "attn_output.bias", dim, 0, 0, ONLY(GPT2) | biased },
        { "post_attention_norm.weight", dim, 0, 0, post | ONLY(GPT_OSS) },
        { "ffn_norm.weight", dim, 0, 0, ALL & ~ONLY(OLMO2) & ~ONLY(GPT_OSS) },
        { "ffn_norm.bias", dim, 0, 0, ONLY(GPT2) },
        { "ffn_gate.weight", ffn, dim, 0, gated },
        { "ffn_up.weight", ffn, dim, 0, dense },
        { "ffn_up.bias", ffn, 0, 0, ONLY(GPT2) },
        { "ffn_down.weight", dim, ffn, 0, dense },
        { "ffn_down.bias", dim, 0, 0, ONLY(GPT2) },
        { "ffn_gate_inp.weight", e, dim, 0, mixture },
        { "ffn_gate_inp.bias", e, 0, 0, biased },
        { "ffn_gate_exps.weight", ffn, dim, e, mixture },
        { "ffn_up_exps.weight", ffn, dim, e, mixture },
        { "ffn_down_exps.weight", dim, ffn, e, mixture },
        { "ffn_gate_exps.bias", e, ffn, 0, biased },
        { "ffn_up_exps.bias", e, ffn, 0, biased },
        { "ffn_down_exps.bias", e, dim, 0, biased },
        { "post_ffw_norm.weight", dim, 0, 0, post },
    };
    for (size_t k = 0; k < ARRAY_LEN(parts); k++) {
        const part *p = &parts[k];
        if ((p->families & ONLY(s->family)) == 0) {
            continue;
        }
        char name[64];
        snprintf(name, sizeof name, "blk.%u.%s", layer, p->name);
        const bool floats = p->cols == 0 || strstr(name, "gate_inp") || strstr(name, ".bias");
        add_tensor(name, p->experts, p->rows, p->cols,
                   floats  ? DTYPE_F32
                   : mixed ? q4_k_m_type(p->name, layer, s->layers, p->cols)
                           : type);
    }
}

/* Tied, as the small models are: the table is the head too. */
static void list_tensors(const shape *s, bool mixed, dtype type) {
    add_tensor("token_embd.weight", 0, s->vocab, s->dim,
               mixed ? q4_k_m_type("output.weight", 0, s->layers, s->dim) : type);
    if (s->family == GPT2) {
        add_tensor("position_embd.weight", 0, s->context, s->dim, DTYPE_F32);
    }
    for (uint32_t i = 0; i < s->layers; i++) {
        list_layer(s, i, mixed, type);
    }
    add_tensor("output_norm.weight", 0, s->dim, 0, DTYPE_F32);
    if (s->family == GPT2) {
        add_tensor("output_norm.bias", 0, s->dim, 0, DTYPE_F32);
    }
}

static void put_array(const char *key, uint32_t element, uint64_t n) {
    put_key(key, 9);
    put_u32(element);
    put_u64(n);
}

/* A SentencePiece vocabulary: control tokens, bytes, made-up words. */
static void put_vocabulary(uint32_t n) {
    static const char *const control[] = { "<unk>", "<s>", "</s>" };
    enum { BYTES = 3, WORDS = BYTES + 256 };
    put_key("tokenizer.ggml.model", 8);
    put_string("llama");
    put_array("tokenizer.ggml.tokens", 8, n);
    for (uint32_t i = 0; i < n; i++) {
        char text[32];
        snprintf(text, sizeof text, i < WORDS ? "<0x%02X>" : "\u2581w%u",
                 i < WORDS ? i - BYTES : i);
        put_string(i < BYTES ? control[i] : text);
    }
    put_array("tokenizer.ggml.scores", 6, n);
    for (uint32_t i = 0; i < n; i++) {
        put(&(float){ 0 }, sizeof(float));
    }
    put_array("tokenizer.ggml.token_type", 5, n);
    for (uint32_t i = 0; i < n; i++) {
        put_u32(i == 0 ? 2 : i < BYTES ? 3 : i < WORDS ? 6 : 1);
    }
}

/* Keys of the family's own, written if `write`; how many there are. */
static uint64_t put_shape(const shape *s, bool write) {
    const bool gpt2 = s->family == GPT2, experts = s->experts > 0;
    const struct {
        const char *name;
        bool there;
        uint32_t count;
        float number; /* where count is 0 */
    } keys[] = {
        { "block_count", true, s->layers, 0 },
        { "embedding_length", true, s->dim, 0 },
        { "attention.head_count", true, s->heads, 0 },
        { "attention.head_count_kv", true, s->kv_heads, 0 },
        { "attention.key_length", !gpt2, s->head_dim, 0 },
        { "feed_forward_length", true, s->ffn, 0 },
        { "context_length", true, s->context, 0 },
        { "attention.layer_norm_rms_epsilon", !gpt2, 0, 1e-5f },
        { "attention.layer_norm_epsilon", gpt2, 0, 1e-5f },
        { "rope.freq_base", !gpt2, 0, s->theta },
        { "rope.dimension_count", !gpt2, s->head_dim, 0 },
        { "attention.sliding_window", s->family == GEMMA2, 4096, 0 },
        { "attention.sliding_window", s->family == GPT_OSS, 128, 0 },
        { "attn_logit_softcapping", s->family == GEMMA2, 0, 50 },
        { "final_logit_softcapping", s->family == GEMMA2, 0, 30 },
        { "expert_count", experts, s->experts, 0 },
        { "expert_used_count", experts, s->used, 0 },
        { "expert_feed_forward_length", experts && s->family != LLAMA, s->ffn, 0 },
    };
    uint64_t n = 0;
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        char name[96];
        snprintf(name, sizeof name, "%s.%s", architectures[s->family], keys[i].name);
        if (keys[i].there) {
            n++;
        }
        if (keys[i].there && write && keys[i].count > 0) {
            put_count(name, keys[i].count);
        } else if (keys[i].there && write) {
            put_float(name, keys[i].number);
        }
    }
    return n;
}

static void put_header(const shape *s) {
    enum { KEYS = 3, VOCABULARY_KEYS = 4 };
    put("GGUF", 4);
    put_u32(3);
    put_u64(w.n);
    put_u64(KEYS + put_shape(s, false) + VOCABULARY_KEYS);
    put_key("general.architecture", 8);
    put_string(architectures[s->family]);
    put_key("general.name", 8);
    put_string("random weights");
    (void)put_shape(s, true);
    put_count("general.alignment", ALIGNMENT);
    put_vocabulary(s->vocab);
    for (uint32_t i = 0; i < w.n; i++) {
        const entry *e = &w.tensors[i];
        put_string(e->name);
        put_u32(e->n_dims);
        put(e->ne, e->n_dims * sizeof *e->ne);
        put_u32(e->type);
        put_u64(e->offset);
    }
    static const char zeros[ALIGNMENT];
    put(zeros, (size_t)(align_up((uint64_t)ftell(w.out), ALIGNMENT) - (uint64_t)ftell(w.out)));
}

/* POOL_WEIGHTS encoded weights of a type. */
static const char *pool_of(dtype type, uint64_t *bytes) {
    (void)dtype_row_bytes(type, POOL_WEIGHTS, bytes);
    if (w.pool[type] == NULL) {
        float *x = malloc(POOL_WEIGHTS * sizeof *x);
        w.pool[type] = malloc(*bytes);
        if (x == NULL || w.pool[type] == NULL) {
            die("out of memory", dtype_get(type)->name);
        }
        for (size_t i = 0; i < POOL_WEIGHTS; i++) {
            x[i] = 0.02f * next_normal();
        }
        if (!quant_encode(type, x, NULL, w.pool[type], POOL_WEIGHTS)) {
            die("cannot be encoded", dtype_get(type)->name);
        }
        free(x);
    }
    return w.pool[type];
}

static void put_tensor(const entry *e) {
    uint64_t pool_bytes = 0, left = e->bytes;
    if (e->n_dims == 1) {
        for (; left > 0; left -= sizeof(float)) {
            put(&(float){ 1 }, sizeof(float));
        }
    } else {
        const char *pool = pool_of(e->type, &pool_bytes);
        const uint32_t block = dtype_get(e->type)->block_bytes;
        while (left > 0) { /* from a random block of the pool on */
            const uint64_t start = next_random() % (pool_bytes / block / 2) * block;
            const uint64_t n = min_u64(left, pool_bytes - start);
            put(pool + start, (size_t)n);
            left -= n;
        }
    }
    static const char zeros[ALIGNMENT];
    put(zeros, (size_t)(align_up(e->bytes, ALIGNMENT) - e->bytes));
}

static const struct {
    const char *name;
    shape shape;
} shapes[] = {
    { "1b", { 16, 2048, 32, 8, 64, 8192, 128256, 0, 0, 131072, 500000, LLAMA } },
    { "8b", { 32, 4096, 32, 8, 128, 14336, 128256, 0, 0, 131072, 500000, LLAMA } },
    { "8x7b", { 32, 4096, 32, 8, 128, 14336, 32000, 8, 2, 32768, 1e6f, LLAMA } },
    { "gemma2-2b", { 26, 2304, 8, 4, 256, 9216, 256000, 0, 0, 8192, 10000, GEMMA2 } },
    { "olmo2-1b", { 16, 2048, 16, 16, 128, 8192, 100352, 0, 0, 4096, 500000, OLMO2 } },
    { "gpt2-774m", { 36, 1280, 20, 20, 64, 5120, 50257, 0, 0, 1024, 0, GPT2 } },
    { "qwen3-30b-a3b", { 48, 2048, 32, 4, 128, 768, 151936, 128, 8, 40960, 1e6f, QWEN3_MOE } },
    { "gpt-oss-20b", { 24, 2880, 64, 8, 64, 2880, 201088, 32, 4, 131072, 150000, GPT_OSS } },
};

int main(int argc, char **argv) {
    if (argc != 4) {
        die("expected OUT.gguf SHAPE TYPE", "arguments");
    }
    shape s = { .context = 131072, .theta = 500000 };
    size_t named = 0;
    while (named < ARRAY_LEN(shapes) && strcmp(argv[2], shapes[named].name) != 0) {
        named++;
    }
    if (named < ARRAY_LEN(shapes)) {
        s = shapes[named].shape;
    } else {
        const int n = sscanf(argv[2], "%u,%u,%u,%u,%u,%u,%u,%u,%u", &s.layers, &s.dim, &s.heads,
                             &s.kv_heads, &s.head_dim, &s.ffn, &s.vocab, &s.experts, &s.used);
        if (n != 7 && n != 9) {
            die("no shape; expected a name or L,D,H,KV,HD,F,V[,E,USED]", argv[2]);
        }
    }
    const bool mixed = strcmp(argv[3], "q4_k_m") == 0;
    dtype type = DTYPE_F16;
    if (!mixed && !dtype_by_name(str_of(argv[3]), &type)) {
        die("no such type", argv[3]);
    }
    w.out = fopen(argv[1], "wb");
    if (w.out == NULL) {
        die("cannot be written", argv[1]);
    }
    list_tensors(&s, mixed, type);
    put_header(&s);
    for (uint32_t i = 0; i < w.n; i++) {
        put_tensor(&w.tensors[i]);
    }
    if (fclose(w.out) != 0) {
        die("cannot be written", argv[1]);
    }
    for (size_t i = 0; i < DTYPE_COUNT; i++) {
        free(w.pool[i]);
    }
    return 0;
}
