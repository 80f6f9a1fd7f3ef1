/* buffers: how much of everything a model needs on the device, and taking it.
 *
 * One table of sizes serves the estimate before loading and the allocation, so the two cannot
 * differ. Every entry is a buffer of its own: WebGPU forbids one buffer to be read and written in
 * the same dispatch, whatever the ranges. */
#include "model/model.h"

#include <math.h>
#include <stdio.h>

enum {
    DISPATCH_MAX = 65535, /* workgroups in one dimension */
    CONTEXT_DEFAULT = 8192,
    SESSIONS_DEFAULT = 8,
    BATCH_DEFAULT = 512,
    STOPS_PLANNED = 64, /* tokens that end an answer: before it is known how many */
};

/* An entry of the table: where the range goes and how many bytes it has. */
typedef struct {
    const char *label;
    size_t offset; /* in buffers */
    uint64_t bytes;
    bool is_cache; /* counted as KV cache */
} buffer_size;

enum { FIXED_BUFFERS = 42 };

/* Sizes of all buffers but the layers' caches. */
static void list_sizes(buffer_size list[FIXED_BUFFERS], const config *c, const shapes *s,
                       uint32_t n_stops) {
    const uint64_t batch = s->batch, out = s->n_out, slots = s->sessions, vocab = c->vocab_size;
    const uint64_t q_dim = (uint64_t)c->n_heads * c->head_dim;
    const uint64_t kv_dim = (uint64_t)c->n_kv_heads * c->head_dim;
    const uint64_t heads = c->n_heads, d8 = ceil_div(c->head_dim, 8);
    const uint64_t few = DECODE_ROWS;
    const uint64_t pairs = batch * c->n_experts_used, experts = c->n_experts;
    const uint64_t angles = (uint64_t)s->context * c->rope_dim / 2 * 8;
    const bool turned = !c->family->learned_positions, local = c->family->local_rope;
    const uint64_t h = experts > 0 ? pairs * c->expert_ffn_dim : batch * c->ffn_dim;
    const uint64_t gu = c->family->ungated ? h : 2 * h;
    const bool post = c->family->norms != NORMS_PRE;
    const uint64_t inner = max_u64(q_dim, experts > 0 ? 0 : c->ffn_dim);
    const uint64_t bytes = max_u64(prefill_input_bytes(batch, max_u64(c->dim, inner)),
                                   prefill_input_bytes(pairs, c->expert_ffn_dim));
    const uint64_t widest = max_u64(max_u64(c->dim, q_dim + 2 * kv_dim), 2 * inner);
    const watch_layout watched = watch_layout_of(c);
    const buffer_size all[FIXED_BUFFERS] = {
        { "rows", offsetof(buffers, rows), batch * 16, false },
        { "pick", offsetof(buffers, pick), out * 4, false },
        { "tiles", offsetof(buffers, tiles), batch * 16, false },
        { "sizes", offsetof(buffers, sizes), 16, false },
        { "pages", offsetof(buffers, pages), slots * s->n_pages * 4, true },
        { "angles", offsetof(buffers, angles[ROPE_GLOBAL]), turned ? angles : 0, false },
        { "local angles", offsetof(buffers, angles[ROPE_LOCAL]), local ? angles : 0, false },
        { "none", offsetof(buffers, none), 16, false },
        { "x", offsetof(buffers, x), batch * c->dim * 4, false },
        { "y", offsetof(buffers, y), post ? batch * c->dim * 4 : 0, false },
        { "xn", offsetof(buffers, xn), batch * c->dim * 4, false },
        { "squares", offsetof(buffers, squares), few * c->dim / 4, false },
        { "qkv", offsetof(buffers, qkv), batch * (q_dim + 2 * kv_dim) * 4, false },
        { "q", offsetof(buffers, q), batch * heads * d8 * 32, false },
        { "att", offsetof(buffers, att), batch * q_dim * 4, false },
        { "spans", offsetof(buffers, spans), few * heads * s->n_splits * (2 * d8 + 1) * 16, false },
        { "gu", offsetof(buffers, gu), gu * 4, false },
        { "h", offsetof(buffers, h), h * 4, false },
        { "bytes", offsetof(buffers, bytes), s->f16 ? bytes : 0, false },
        { "parts", offsetof(buffers, parts), s->f16 ? prefill_parts_bytes(batch, widest) : 0,
          false },
        { "router", offsetof(buffers, router), batch * experts * 4, false },
        { "choice", offsetof(buffers, choice), pairs * 8, false },
        { "order", offsetof(buffers, order), pairs * 4, false },
        { "expert_tiles", offsetof(buffers, expert_tiles),
          experts > 0 ? (uint64_t)expert_tiles_of(c, s->batch) * 16 : 0, false },
        { "expert_place", offsetof(buffers, expert_place), experts * 4, false },
        { "expert_pairs", offsetof(buffers, expert_pairs), few * c->n_experts_used * 16, false },
        { "expert_x", offsetof(buffers, expert_x), experts > 0 ? few * c->dim * 4 : 0, false },
        { "expert_squares", offsetof(buffers, expert_squares), experts > 0 ? few * c->dim / 4 : 0,
          false },
        { "expert_y", offsetof(buffers, expert_y), pairs * c->dim * 4, false },
        { "out", offsetof(buffers, out), out * c->dim * 4, false },
        { "logits", offsetof(buffers, logits), out * vocab * 4, false },
        { "saved", offsetof(buffers, saved), slots * vocab * 4, false },
        { "z", offsetof(buffers, z), out * vocab * 4, false },
        { "best", offsetof(buffers, best), out * s->n_chunks * 16, false },
        { "won", offsetof(buffers, won), out * s->n_chunks * 16, false },
        { "found", offsetof(buffers, found), out * (2 + SAMPLE_FOUND) * 8, false },
        { "samplers", offsetof(buffers, samplers), slots * sizeof(sampler_state), false },
        { "counts", offsetof(buffers, counts), slots * vocab * 4, false },
        { "stops", offsetof(buffers, stops), (1 + (uint64_t)n_stops) * 4, false },
        { "answer", offsetof(buffers, answer), out * (1 + DP_STEPS_MAX) * 4, false },
        { "probs", offsetof(buffers, probs), out * (1 + LOGPROBS_MAX) * 8, false },
        { "watched", offsetof(buffers, watched), s->calibrate ? watch_columns(&watched) * 4 : 0,
          false },
    };
    memcpy(list, all, sizeof all);
}

/* Bytes of the keys (or the values) of one layer's pool. */
static uint64_t layer_cache_bytes(const config *c, const shapes *s) {
    return (uint64_t)s->n_pages * KV_PAGE * c->n_kv_heads * ceil_div(c->head_dim, 8) *
           (s->f16 ? 16 : 32);
}

static bool option_count(uint32_t *out, uint32_t asked, uint32_t fallback, uint32_t limit,
                         const char *name, dp_error *err) {
    *out = asked == 0 ? fallback : asked;
    return *out <= limit ||
           err_set(err, DP_E_ARGUMENT, "%s: %u is over the limit of %u", name, asked, limit);
}

uint32_t default_context(const config *c) {
    const uint32_t usual = min_u32(c->context, CONTEXT_DEFAULT);
    /* beyond the original context LongRoPE's other factors hold, from the first token on */
    return c->rope[ROPE_GLOBAL].kind == SCALING_LONG
               ? (uint32_t)fmin(usual, c->rope[ROPE_GLOBAL].original_context)
               : usual;
}

bool shapes_plan(shapes *s, dp_memory *memory, const config *c, const weights *w,
                 const dp_model_options *options, uint64_t max_binding, bool f16, dp_error *err) {
    static const dp_model_options defaults = { 0 };
    const dp_model_options *o = options != NULL ? options : &defaults;
    *s = (shapes){ .f16 = f16, .calibrate = o->calibrate };
    if (!option_count(&s->sessions, o->sessions, SESSIONS_DEFAULT, SESSIONS_MAX, "sessions", err) ||
        !option_count(&s->batch, o->batch, BATCH_DEFAULT, BATCH_MAX, "batch", err) ||
        !option_count(&s->context, o->context, default_context(c), CONTEXT_MAX, "context", err)) {
        return false;
    }
    if (c->family->learned_positions && s->context > c->context) {
        return err_set(err, DP_E_LIMIT, "a context of %u tokens: the model knows %u positions",
                       s->context, c->context);
    }
    s->rope_context = s->context;
    if (s->context == 0) {
        return err_set(err, DP_E_FORMAT, "the model does not say its context: ask for one");
    }
    if ((uint64_t)s->batch * c->n_experts_used > DISPATCH_MAX) {
        return err_set(err, DP_E_LIMIT,
                       "a batch of %u rows with %u experts each is over the limit of %u pairs",
                       s->batch, c->n_experts_used, DISPATCH_MAX);
    }
    s->n_pages = ceil_div(s->context, KV_PAGE);
    s->context = c->family->learned_positions ? s->context : s->n_pages * KV_PAGE;
    s->n_out = max_u32(OUT_ROWS, s->sessions);
    s->batch = max_u32(s->batch, s->n_out);
    s->n_kinds = pass_kind_of(s->batch) + 1;
    s->span = attend_span(c);
    s->n_splits = attend_splits_max(s, c);
    s->n_chunks = ceil_div(c->vocab_size, SAMPLE_CHUNK);

    buffer_size list[FIXED_BUFFERS];
    list_sizes(list, c, s, STOPS_PLANNED);
    *memory = (dp_memory){ .weights = w->bytes };
    for (size_t i = 0; i < FIXED_BUFFERS; i++) {
        if (list[i].bytes > max_binding) {
            return err_set(err, DP_E_LIMIT,
                           "the buffer '%s' needs %llu bytes in one binding, this device allows "
                           "%llu: lower the batch, the sessions or the context",
                           list[i].label, (unsigned long long)list[i].bytes,
                           (unsigned long long)max_binding);
        }
        *(list[i].is_cache ? &memory->kv_cache : &memory->activations) +=
            align_up(list[i].bytes, 256);
    }
    const uint64_t cache = layer_cache_bytes(c, s);
    if (cache > max_binding) {
        return err_set(err, DP_E_LIMIT,
                       "a context of %u tokens needs %llu bytes of keys in one binding, this "
                       "device allows %llu: lower the context",
                       s->context, (unsigned long long)cache, (unsigned long long)max_binding);
    }
    memory->kv_bytes_per_token = 2 * c->n_layers * cache / s->context;
    memory->kv_cache += 2 * c->n_layers * align_up(cache, 256);
    memory->total = memory->weights + memory->kv_cache + memory->activations;
    return true;
}

static const char *group_of(const buffer_size *b) {
    const bool sampler =
        b->offset >= offsetof(buffers, saved) && b->offset < offsetof(buffers, watched);
    return b->is_cache ? "KV cache" : sampler ? "sampler" : "activations";
}

size_t buffers_describe(const dp_model *m, dp_memory_row *rows, size_t max) {
    static const char *const groups[] = { "KV cache", "activations", "sampler" };
    const uint32_t n_caches = 2 * m->config.n_layers;
    const uint64_t cache = align_up(layer_cache_bytes(&m->config, &m->shapes), 256);
    buffer_size list[FIXED_BUFFERS];
    size_t n = 0;
    list_sizes(list, &m->config, &m->shapes, STOPS_PLANNED);
    if (n++ < max) {
        rows[0] = (dp_memory_row){ groups[0], "keys and values", n_caches * cache, n_caches, 0 };
    }
    for (size_t g = 0; g < ARRAY_LEN(groups); g++) {
        for (size_t i = 0; i < FIXED_BUFFERS; i++) {
            const uint64_t bytes = align_up(list[i].bytes, 256);
            if (bytes > 0 && strcmp(group_of(&list[i]), groups[g]) == 0 && n++ < max) {
                rows[n - 1] = (dp_memory_row){ groups[g], list[i].label, bytes, 1, 0 };
            }
        }
    }
    return n;
}

/* cos and sin of every position and frequency, as the reference rounds them: the angle in f32. */
static bool upload_angles(dp_model *m, rope_kind table, dp_error *err) {
    const config *c = &m->config;
    const uint32_t half = c->rope_dim / 2;
    double frequency[HEAD_DIM_MAX / 2];
    float magnitude;
    rope_frequencies(c, table, m->shapes.rope_context, frequency, &magnitude);
    enum { POSITIONS = 256 }; /* at a time */
    float(*piece)[2] = mem_new((size_t)POSITIONS * half, sizeof *piece, "RoPE angles", err);
    bool ok = piece != NULL;
    for (uint32_t first = 0; first < m->shapes.context && ok; first += POSITIONS) {
        const uint32_t n = min_u32(POSITIONS, m->shapes.context - first);
        for (uint32_t i = 0; i < n * half; i++) {
            const float angle = (float)(first + i / half) * (float)frequency[i % half];
            piece[i][0] = (float)cos((double)angle) * magnitude;
            piece[i][1] = (float)sin((double)angle) * magnitude;
        }
        const uint64_t row = (uint64_t)half * sizeof *piece;
        ok =
            gpu_write(m->gpu, gpu_part(m->buffers.angles[table], first * row, n * row), piece, err);
    }
    mem_free(piece);
    return ok;
}

static gpu_buffer *take_buffer(dp_model *m, uint64_t bytes, const char *label, dp_error *err) {
    gpu_buffer *b = gpu_buffer_new(m->gpu, align_up(bytes, 16), label, err);
    if (b != NULL) {
        m->buffer_list[m->n_buffers++] = b;
    }
    return b;
}

static bool take_caches(dp_model *m, dp_error *err) {
    const uint64_t bytes = layer_cache_bytes(&m->config, &m->shapes);
    const uint32_t n = m->config.n_layers;
    m->buffers.keys = arena_new(&m->arena, n, sizeof(gpu_range), "KV cache", err);
    m->buffers.values = arena_new(&m->arena, n, sizeof(gpu_range), "KV cache", err);
    if (m->buffers.keys == NULL || m->buffers.values == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < n; i++) {
        gpu_buffer *keys = take_buffer(m, bytes, "keys", err);
        gpu_buffer *values = keys != NULL ? take_buffer(m, bytes, "values", err) : NULL;
        if (values == NULL) {
            return false;
        }
        m->buffers.keys[i] = gpu_whole(keys);
        m->buffers.values[i] = gpu_whole(values);
    }
    return true;
}

static bool upload_stops(dp_model *m, dp_error *err) {
    size_t n = 0;
    const dp_token *stops = model_stops(m, &n);
    uint32_t *words = mem_new(n + 1, sizeof *words, "stop set", err);
    if (words == NULL) {
        return false;
    }
    words[0] = (uint32_t)n;
    if (n > 0) {
        memcpy(words + 1, stops, n * sizeof *words);
    }
    const bool ok =
        gpu_write(m->gpu, gpu_part(m->buffers.stops, 0, (n + 1) * sizeof *words), words, err);
    mem_free(words);
    return ok;
}

/* Every expert in its own place: what a cache of experts changes. */
static bool upload_places(dp_model *m, dp_error *err) {
    uint32_t place[EXPERTS_MAX];
    const uint32_t n = m->config.n_experts;
    for (uint32_t i = 0; i < n; i++) {
        place[i] = i;
    }
    return n == 0 ||
           gpu_write(m->gpu, gpu_part(m->buffers.expert_place, 0, n * sizeof *place), place, err);
}

bool buffers_make(dp_model *m, dp_error *err) {
    size_t n_stops = 0;
    (void)model_stops(m, &n_stops);
    buffer_size list[FIXED_BUFFERS];
    list_sizes(list, &m->config, &m->shapes, (uint32_t)n_stops);
    m->buffer_list = arena_new(&m->arena, FIXED_BUFFERS + 2 * (size_t)m->config.n_layers,
                               sizeof(gpu_buffer *), "buffers", err);
    if (m->buffer_list == NULL) {
        return false;
    }
    for (size_t i = 0; i < FIXED_BUFFERS; i++) {
        gpu_buffer *b = take_buffer(m, list[i].bytes, list[i].label, err);
        if (b == NULL) {
            return false;
        }
        *(gpu_range *)(void *)((char *)&m->buffers + list[i].offset) = gpu_whole(b);
    }
    const family *f = m->config.family;
    return take_caches(m, err) && upload_stops(m, err) && upload_places(m, err) &&
           (f->learned_positions || upload_angles(m, ROPE_GLOBAL, err)) &&
           (!f->local_rope || upload_angles(m, ROPE_LOCAL, err));
}

void buffers_drop(dp_model *m) {
    for (uint32_t i = 0; i < m->n_buffers; i++) {
        gpu_buffer_free(m->buffer_list[i]);
    }
    m->n_buffers = 0;
}
