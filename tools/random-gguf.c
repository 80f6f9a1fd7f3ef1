/* random-gguf: writes a Llama-shaped GGUF file with random weights, for measuring speed where real
 * weights cannot be had.
 *
 *     random-gguf OUT.gguf SHAPE TYPE        SHAPE: 1b, 8b, 8x7b (Mixtral) or
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

typedef struct {
    uint32_t layers, dim, heads, kv_heads, head_dim, ffn, vocab, experts, used, context;
    float theta;
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

static void list_tensors(const shape *s, bool mixed, dtype type) {
    const uint64_t q = (uint64_t)s->heads * s->head_dim, kv = (uint64_t)s->kv_heads * s->head_dim;
    typedef struct {
        const char *name;
        uint64_t rows, cols, experts;
    } part;
    const part attention[] = {
        { "attn_norm.weight", s->dim, 0, 0 },   { "attn_q.weight", q, s->dim, 0 },
        { "attn_k.weight", kv, s->dim, 0 },     { "attn_v.weight", kv, s->dim, 0 },
        { "attn_output.weight", s->dim, q, 0 }, { "ffn_norm.weight", s->dim, 0, 0 },
    };
    const part dense[] = {
        { "ffn_gate.weight", s->ffn, s->dim, 0 },
        { "ffn_up.weight", s->ffn, s->dim, 0 },
        { "ffn_down.weight", s->dim, s->ffn, 0 },
    };
    const part mixture[] = {
        { "ffn_gate_inp.weight", s->experts, s->dim, 0 },
        { "ffn_gate_exps.weight", s->ffn, s->dim, s->experts },
        { "ffn_up_exps.weight", s->ffn, s->dim, s->experts },
        { "ffn_down_exps.weight", s->dim, s->ffn, s->experts },
    };
    part layer[ARRAY_LEN(attention) + ARRAY_LEN(mixture)];
    const size_t n_ffn = s->experts > 0 ? ARRAY_LEN(mixture) : ARRAY_LEN(dense);
    memcpy(layer, attention, sizeof attention);
    memcpy(layer + ARRAY_LEN(attention), s->experts > 0 ? mixture : dense, n_ffn * sizeof *layer);
    /* tied, as the small Llamas are: the table is the head too */
    add_tensor("token_embd.weight", 0, s->vocab, s->dim,
               mixed ? q4_k_m_type("output.weight", 0, s->layers, s->dim) : type);
    for (uint32_t i = 0; i < s->layers; i++) {
        for (size_t k = 0; k < ARRAY_LEN(attention) + n_ffn; k++) {
            char name[64];
            snprintf(name, sizeof name, "blk.%u.%s", i, layer[k].name);
            const bool vector = layer[k].cols == 0 || strstr(name, "gate_inp") != NULL;
            add_tensor(name, layer[k].experts, layer[k].rows, layer[k].cols,
                       vector  ? DTYPE_F32
                       : mixed ? q4_k_m_type(layer[k].name, i, s->layers, layer[k].cols)
                               : type);
        }
    }
    add_tensor("output_norm.weight", 0, s->dim, 0, DTYPE_F32);
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

static void put_header(const shape *s) {
    put("GGUF", 4);
    put_u32(3);
    put_u64(w.n);
    put_u64(s->experts > 0 ? 19 : 17);
    put_key("general.architecture", 8);
    put_string("llama");
    put_key("general.name", 8);
    put_string("random weights");
    put_count("llama.block_count", s->layers);
    put_count("llama.embedding_length", s->dim);
    put_count("llama.attention.head_count", s->heads);
    put_count("llama.attention.head_count_kv", s->kv_heads);
    put_count("llama.attention.key_length", s->head_dim);
    put_count("llama.feed_forward_length", s->ffn);
    put_count("llama.context_length", s->context);
    put_float("llama.attention.layer_norm_rms_epsilon", 1e-5f);
    put_float("llama.rope.freq_base", s->theta);
    put_count("llama.rope.dimension_count", s->head_dim);
    if (s->experts > 0) {
        put_count("llama.expert_count", s->experts);
        put_count("llama.expert_used_count", s->used);
    }
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

int main(int argc, char **argv) {
    if (argc != 4) {
        die("expected OUT.gguf 1b|8b|8x7b|L,D,H,KV,HD,F,V[,E,USED] TYPE", "arguments");
    }
    shape s = { .context = 131072, .theta = 500000 };
    if (strcmp(argv[2], "1b") == 0) {
        s = (shape){ 16, 2048, 32, 8, 64, 8192, 128256, 0, 0, s.context, s.theta };
    } else if (strcmp(argv[2], "8b") == 0) {
        s = (shape){ 32, 4096, 32, 8, 128, 14336, 128256, 0, 0, s.context, s.theta };
    } else if (strcmp(argv[2], "8x7b") == 0) {
        s = (shape){ 32, 4096, 32, 8, 128, 14336, 32000, 8, 2, 32768, 1e6f };
    } else {
        const int n = sscanf(argv[2], "%u,%u,%u,%u,%u,%u,%u,%u,%u", &s.layers, &s.dim, &s.heads,
                             &s.kv_heads, &s.head_dim, &s.ffn, &s.vocab, &s.experts, &s.used);
        if (n != 7 && n != 9) {
            die("no shape; expected 1b, 8b, 8x7b or L,D,H,KV,HD,F,V[,E,USED]", argv[2]);
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
