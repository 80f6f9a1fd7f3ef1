/* ops_attend: attention: norms of queries and keys, RoPE and the cache's write,
 * and the attention of single rows and of many. */
#include "model/ops_internal.h"

#include <stdio.h>

enum {
    QK_NORM_LANES = 64,
    DECODE_GROUPS = 264, /* workgroups that fill the largest devices: two to a multiprocessor, for
                            whose registers there is room */
    SPLITS_MAX = 64,     /* of attend_combine.wgsl */
    DECODE_HEADS = 4,    /* query heads of a workgroup */
    DECODE_AHEAD = 2,    /* keys of a lane whose loads are under way, while two more are used */
    PREFILL_HEADS = 8,
    ROWS_BYTES = 256, /* of the uniform rows of attend_decode: DECODE_ROWS are fewer */
};

static const gpu_fragment *cache_fragment(const dp_model *m) {
    return m->shapes.f16 ? &kv_f16_part : &kv_f32_part;
}

/* Vectors of a layer in one binding: first elements in it. False if they are in
 * several buffers. */
typedef struct {
    gpu_range range;
    uint32_t first[3];
} joined_vectors;

static bool join_vectors(const dp_model *m, const vector *const v[3], joined_vectors *out) {
    uint64_t low = UINT64_MAX, high = 0;
    const gpu_range *any = NULL;
    for (int i = 0; i < 3; i++) {
        if (v[i] == NULL || v[i]->source == NULL) {
            continue;
        }
        if (any != NULL && any->buffer != v[i]->range.buffer) {
            return false;
        }
        any = &v[i]->range;
        low = min_u64(low, any->offset);
        high = max_u64(high, any->offset + any->size);
    }
    *out = (joined_vectors){ .range = m->buffers.none };
    if (any == NULL) {
        return true;
    }
    out->range = (gpu_range){ .buffer = any->buffer, .offset = low, .size = high - low };
    for (int i = 0; i < 3; i++) {
        if (v[i] != NULL && v[i]->source != NULL) {
            out->first[i] = (uint32_t)((v[i]->range.offset - low) / sizeof(float));
        }
    }
    return high - low <= gpu_info(m->gpu)->max_binding;
}

/* Norms of single heads that rope or attend_decode applies itself; of others
 * op_qk_norm did. */
static bool join_norms(const dp_model *m, uint32_t layer, const vector *sinks,
                       joined_vectors *out) {
    const layer_weights *l = &m->weights.layers[layer];
    const bool here = m->config.family->qk_norm == QK_NORM_HEAD;
    return join_vectors(
        m, (const vector *const[]){ here ? &l->q_norm : NULL, here ? &l->k_norm : NULL, sinks },
        out);
}

/* Does attend_decode norm, turn and cache on its own? Of several rows one may
 * see the key of another, which must then be in the cache before. */
static bool is_fused(const recorder *r, uint32_t layer) {
    joined_vectors v;
    return r->kind == PASS_ONE && join_norms(r->m, layer, &r->m->weights.layers[layer].sinks, &v);
}

void op_qk_norm(recorder *r, const vector *wq, const vector *wk) {
    const config *c = &r->m->config;
    const bool whole = c->family->qk_norm == QK_NORM_WIDTH;
    joined_vectors v;
    if (!whole && join_vectors(r->m, (const vector *const[]){ wq, wk, NULL }, &v)) {
        return; /* op_rope and op_attend do it */
    }
    const qk_norm_consts consts = {
        .n_heads = c->n_heads,
        .n_kv = c->n_kv_heads,
        .head_dim = c->head_dim,
        .eps = c->norm_eps,
        .whole = whole,
        .wg = whole ? NORM_LANES : QK_NORM_LANES,
        .team = team_lanes(r->m->gpu),
    };
    add_call(r, &qk_norm_source, (const gpu_fragment *[]){ reduce_fragment(r->m->gpu) }, &consts,
             (gpu_call){
                 .bind = { [QK_NORM_WQ] = wq->range,
                           [QK_NORM_WK] = wk->range,
                           [QK_NORM_QKV] = r->m->buffers.qkv },
                 .groups = { { .times = whole ? 2 : c->n_heads + c->n_kv_heads },
                             { .size = SIZE_ROWS } },
             });
}

void op_rope(recorder *r, uint32_t layer) {
    const config *c = &r->m->config;
    const buffers *b = &r->m->buffers;
    const rope_kind table = c->layer_rope[layer];
    joined_vectors v;
    if (is_fused(r, layer)) {
        return;
    }
    static const uint32_t lanes[TUNED_LANES] = { 128, 64, 256 };
    const bool norms = join_norms(r->m, layer, NULL, &v);
    const rope_consts consts = {
        .n_heads = c->n_heads,
        .n_kv = c->n_kv_heads,
        .head_dim = c->head_dim,
        .rope_dim = table == ROPE_NONE ? 0 : c->rope_dim,
        .norm = norms && c->family->qk_norm == QK_NORM_HEAD,
        .eps = c->norm_eps,
        .page = KV_PAGE,
        .table = r->m->shapes.n_pages,
        .team = power_above(ceil_div(c->head_dim, 8)),
        .wg = tuned_lanes(r, "rope", (c->n_heads + 2 * c->n_kv_heads) * c->head_dim, lanes),
    };
    const bool fits = consts.team <= team_lanes(r->m->gpu);
    add_call(r, &rope_source,
             (const gpu_fragment *[]){ cache_fragment(r->m),
                                       fits ? reduce_fragment(r->m->gpu) : &reduce_tree_part },
             &consts,
             (gpu_call){
                 .bind = { [0] = b->keys[layer],
                           [1] = b->values[layer],
                           [ROPE_QKV] = b->qkv,
                           [ROPE_ROWS] = b->rows,
                           [ROPE_PAGES] = b->pages,
                           [ROPE_ANGLES] = table == ROPE_NONE ? b->none : b->angles[table],
                           [ROPE_W] = consts.norm ? v.range : b->none,
                           [ROPE_Q] = b->q },
                 .params = &(rope_params){ .wq = v.first[0], .wk = v.first[1] },
                 .groups = { { .times = ceil_div((c->n_heads + 2 * c->n_kv_heads) * consts.team,
                                                 consts.wg) },
                             { .size = SIZE_ROWS } },
             });
    tuned_end(r);
}

/* ---- single rows
 * ---------------------------------------------------------------------------
 */

/* Query heads of one workgroup: all that share a key head, or an even part of them. */
static uint32_t heads_together(const config *c, uint32_t most) {
    const uint32_t group = c->n_heads / c->n_kv_heads;
    return ceil_div(group, ceil_div(group, most));
}

/* Keys of a span at least: four rounds of a workgroup of 128 lanes with two keys to a lane. Up to
 * twice as many a workgroup takes alone, of a pass of one row more (attend_whole_keys): what more
 * workgroups would save is less than the dispatch that joins them costs. */
uint32_t attend_span(const config *c) {
    return max_u32(1024 / power_above(ceil_div(c->head_dim, 8)), KV_PAGE);
}

uint32_t attend_splits_max(const shapes *s, const config *c) {
    const uint32_t chunks = ceil_div(c->n_heads / c->n_kv_heads, heads_together(c, DECODE_HEADS));
    const uint32_t fill = min_u32(max_u32(DECODE_GROUPS / (c->n_kv_heads * chunks), 4), SPLITS_MAX);
    return min_u32(fill, ceil_div(s->context, s->span));
}

uint32_t attend_splits(const shapes *s, uint32_t longest) {
    return longest <= 2 * s->span ? 1 : min_u32(ceil_div(longest, s->span), s->n_splits);
}

/* How a workgroup may attend to all keys of a row in one span: untuned as the first. Few
 * workgroups, so smaller ones than of several spans, whose lanes are many, since keys one after the
 * other take time. */
static const struct {
    uint32_t lanes, heads;
} whole_shapes[] = { { 256, 2 }, { 128, 2 }, { 512, 2 }, { 256, 1 }, { 128, 1 },
                     { 512, 1 }, { 256, 4 }, { 128, 4 }, { 512, 4 } };

/* Gives the kernel, whose other constants are there, such a shape, with fewer lanes if the device
 * has not got them. False if it has no room for any. */
static bool attend_as_whole(const dp_model *m, attend_decode_consts *k, uint32_t shape) {
    const dp_device_info *info = gpu_info(m->gpu);
    k->heads = heads_together(&m->config, whole_shapes[shape].heads);
    k->wg = min_u32(whole_shapes[shape].lanes, info->max_workgroup_lanes);
    k->one = UINT32_MAX;
    return info->subgroups && attend_in_teams(k, info->max_workgroup_memory);
}

/* Twice as many keys as several rows have in one span: untuned the workgroups have twice the lanes
 * and half the heads. On a software GPU shuffles are loops. */
uint32_t attend_whole_keys(const dp_model *m) {
    attend_decode_consts k = { .head_dim = m->config.head_dim, .team = team_lanes(m->gpu) };
    return !is_software(m->gpu) && attend_as_whole(m, &k, 0) ? 4 * m->shapes.span : 0;
}

bool attend_in_teams(attend_decode_consts *k, uint32_t memory) {
    const uint32_t d8 = ceil_div(k->head_dim, 8);
    k->lanes = power_above(d8);
    for (; k->lanes <= k->team && k->wg >= k->team; k->wg /= 2) {
        const uint32_t teams = k->wg / k->team;
        const uint32_t pool = max_u32(k->heads + 2, teams * k->heads) * 2 * d8;
        if (16 * (pool + 2 * teams) + 32 <= memory) return true;
    }
    return false;
}

attend_decode_tree_consts attend_in_tree(const attend_decode_consts *k, uint32_t memory, bool cpu,
                                         bool f16) {
    attend_decode_tree_consts t = {
        .n_kv = k->n_kv,
        .group = k->group,
        .heads = k->heads,
        .head_dim = k->head_dim,
        .rope_dim = k->rope_dim,
        .fused = k->fused,
        .norm = k->norm,
        .eps = k->eps,
        .one = k->one,
        .span = k->span,
        .splits = k->splits,
        .window = k->window,
        .scale = k->scale,
        .softcap = k->softcap,
        .sinks = k->sinks,
        .plain = k->plain,
        .page = k->page,
        .table = k->table,
        .wg = k->wg,
    };
    const uint32_t d8 = ceil_div(k->head_dim, 8);
    /* A CPU has no loads under way to gain by, and its compiler suffers from long code. */
    t.pre = cpu ? 1 : min_u32(d8, 8);
    for (;; t.wg /= 2) {
        const uint32_t share = t.wg / d8;
        const uint32_t pool = max_u32(8 * d8 + t.wg, (share + t.heads) * 2 * d8 + share);
        const uint32_t own = 2 * d8 * (f16 ? 16 : 32) + 64 * d8;
        if (t.wg <= 64 || 16 * (pool + t.wg + 8) + 4 * t.wg + 64 + own <= memory) return t;
    }
}

attend_decode_tree_params attend_tree_blocks(const attend_decode_tree_consts *k,
                                             const uint32_t first[3]) {
    const uint32_t d8 = ceil_div(k->head_dim, 8), keys = ceil_div(k->wg, k->wg / d8);
    return (attend_decode_tree_params){
        .wq = first[0],
        .wk = first[1],
        .sinks = first[2],
        .key_blocks = ceil_div(d8, k->pre),
        .value_blocks = ceil_div(keys, k->pre),
        .eight = 8,
    };
}

/* What the product behind it reads: a fused one its own layout, any other plain
 * rows. */
static const gpu_fragment *output_fragment(const recorder *r, uint32_t layer) {
    const dp_model *m = r->m;
    if (!pass_is_fused(r) || !attention_is_fused(m, layer)) {
        return &act_odd_part;
    }
    return act_fragment(m->shapes.int8 && dtype_is_quantised(m->weights.layers[layer].o.type));
}

/* Half of the context or `most`: a power of two, at most the context. */
static uint32_t half_context(const shapes *s, uint32_t most) {
    return min_u32(power_above(s->context / 2 + 1), most);
}

uint32_t tuned_keys(const shapes *s) {
    enum { KEYS_MOST = 8192 }; /* heads of 64 and more then have all their spans */
    /* so many that one row has spans, if it ever has */
    const uint32_t least = s->context > s->whole_keys ? s->whole_keys + 1 : 1;
    return max_u32(half_context(s, KEYS_MOST), least);
}

/* What tells one attention from another, of a layer whose last row sees `keys`. */
static tuned_question attend_question(const recorder *r, const char *name, uint32_t layer,
                                      uint32_t keys) {
    const config *c = &r->m->config;
    const uint32_t window = c->layer_window[layer];
    const bool sinks = r->m->weights.layers[layer].sinks.source != NULL;
    tuned_question q = { .rows = c->n_heads, .cols = keys, .keys = keys };
    char seen[24] = "";
    if (window > 0) {
        snprintf(seen, sizeof seen, " window %u", window);
    }
    snprintf(q.key, sizeof q.key, "%s %s %u/%ux%u%s%s%s %u %u", name,
             r->m->shapes.f16 ? "f16" : "f32", c->n_heads, c->n_kv_heads, c->head_dim, seen,
             sinks ? " sinks" : "", c->attention_softcap > 0 ? " softcap" : "", keys, most_rows(r));
    return q;
}

/* Gives the kernel its lanes, in one of the shapes that fit. True: attend_decode; else a tree. */
static bool choose_lanes(recorder *r, uint32_t layer, attend_decode_consts *k, gpu_range y,
                         bool bytes) {
    /* Lanes without a key cost time where they are computed one after the other, and where other
     * rows' workgroups wait for them. */
    static const uint32_t lanes[2][3] = { { 128, 256, 64 }, { 64, 128, 256 } };
    const shapes *s = &r->m->shapes;
    const bool software = is_software(r->m->gpu);
    const uint32_t *list = lanes[software || r->kind != PASS_ONE];
    const dp_device_info *info = gpu_info(r->m->gpu);
    const uint32_t memory = info->max_workgroup_memory;
    k->wg = list[0];
    const bool teams = info->subgroups && !software && /* there shuffles are loops */
                       attend_in_teams(k, memory);
    tuned_question q = attend_question(r, "attend_decode", layer, tuned_keys(s));
    q.act = y;
    q.act_cols = bytes ? k->n_kv * k->group * k->head_dim : 0;
    for (uint32_t i = 0; i < ARRAY_LEN(lanes[0]); i++) {
        tuned_shape shape = { .which = list[i], .cost = i };
        k->wg = shape.which;
        const uint32_t fit = teams && attend_in_teams(k, memory)
                                 ? k->wg
                                 : attend_in_tree(k, memory, software, s->f16).wg;
        snprintf(shape.name, sizeof shape.name, "lanes %u", shape.which);
        if (fit == shape.which) {
            tuned_offer(&q, &shape);
        }
    }
    k->wg = q.n > 0 ? tuned_choice(r, &q)->which : list[0];
    return teams && attend_in_teams(k, memory);
}

/* Gives the kernel one of the shapes for one span that fit; timed with half of the keys that it has
 * at most. */
static void choose_whole(recorder *r, uint32_t layer, attend_decode_consts *k, gpu_range y,
                         bool bytes) {
    const shapes *s = &r->m->shapes;
    tuned_question q =
        attend_question(r, "attend_whole", layer, half_context(s, s->whole_keys / 2));
    q.act = y;
    q.act_cols = bytes ? k->n_kv * k->group * k->head_dim : 0;
    for (uint32_t i = 0; i < ARRAY_LEN(whole_shapes); i++) {
        tuned_shape shape = { .which = i, .cost = i };
        if (attend_as_whole(r->m, k, i)) {
            snprintf(shape.name, sizeof shape.name, "lanes %u, heads %u", k->wg, k->heads);
            tuned_offer(&q, &shape);
        }
    }
    const bool fits = attend_as_whole(r->m, k, tuned_choice(r, &q)->which);
    assert(fits);
    (void)fits;
}

/* Of a pass of one row: the call, and its constants, of several spans made into that of one, which
 * is run where the row has up to shapes.whole_keys, or always. */
static void attend_whole(recorder *r, uint32_t layer, attend_decode_consts k,
                         const gpu_fragment *const *parts, gpu_call call, bool always) {
    choose_whole(r, layer, &k, call.bind[ACT_ODD_ACT], parts[1] == &act_q8_part);
    call.groups[0].times = k.n_kv * ceil_div(k.group, k.heads);
    call.groups[1].size = always ? SIZE_ONE : SIZE_WHOLE;
    add_call(r, &attend_decode_source, parts, &k, call);
    tuned_end(r);
}

static void attend_rows(recorder *r, uint32_t layer) {
    const config *c = &r->m->config;
    const buffers *b = &r->m->buffers;
    const shapes *s = &r->m->shapes;
    const vector *sinks = &r->m->weights.layers[layer].sinks;
    const rope_kind table = c->layer_rope[layer];
    const uint32_t group = c->n_heads / c->n_kv_heads;
    joined_vectors v;
    const bool fused = is_fused(r, layer);
    if (!(fused && join_norms(r->m, layer, sinks, &v))) {
        (void)join_vectors(r->m, (const vector *const[]){ NULL, NULL, sinks }, &v);
    }
    const gpu_fragment *act = output_fragment(r, layer);
    attend_decode_consts consts = {
        .n_kv = c->n_kv_heads,
        .group = group,
        .heads = heads_together(c, DECODE_HEADS),
        .head_dim = c->head_dim,
        .rope_dim = table == ROPE_NONE ? 0 : c->rope_dim,
        .fused = fused,
        .norm = fused && c->family->qk_norm == QK_NORM_HEAD,
        .eps = c->norm_eps,
        .one = 2 * s->span,
        .span = s->span,
        .splits = s->n_splits,
        .window = c->layer_window[layer],
        .scale = c->attention_scale,
        .softcap = c->attention_softcap,
        .sinks = sinks->source != NULL,
        .plain = act == &act_odd_part,
        .page = KV_PAGE,
        .table = s->n_pages,
        .team = team_lanes(r->m->gpu),
        .ahead = DECODE_AHEAD,
    };
    const gpu_range rows = gpu_part(b->rows, 0, ROWS_BYTES);
    const bool alone = r->kind == PASS_ONE && s->whole_keys > 0;
    const uint32_t one = alone ? s->whole_keys : consts.one;
    const bool one_span = consts.window > 0 && consts.window + KV_PAGE <= one;
    /* the bindings of both kernels are the same */
    gpu_call call = {
        .bind = { [0] = b->keys[layer],
                  [1] = b->values[layer],
                  [ATTEND_DECODE_QKV] = fused ? b->qkv : b->q,
                  [ATTEND_DECODE_ROWS] = rows,
                  [ATTEND_DECODE_PAGES] = b->pages,
                  [ATTEND_DECODE_ANGLES] = fused && table != ROPE_NONE ? b->angles[table] : b->none,
                  [ATTEND_DECODE_W] = v.range,
                  [ATTEND_DECODE_SPANS] = b->spans,
                  [ACT_ODD_ACT] = b->att },
        .params = &(attend_decode_params){ v.first[0], v.first[1], v.first[2] },
        .groups = { { .times = c->n_kv_heads * ceil_div(group, consts.heads) },
                    { .size = one_span ? SIZE_ONE : SIZE_SPLITS },
                    { .size = SIZE_ROWS } },
    };
    const gpu_fragment *const parts[] = { cache_fragment(r->m), act };
    if (alone) {
        const bool always = one_span || s->context <= s->whole_keys;
        attend_whole(r, layer, consts, parts, call, always);
        if (always) {
            return;
        }
        call.groups[2].size = SIZE_COMBINE; /* one row, of several spans where that is not run */
    }
    const bool teams = choose_lanes(r, layer, &consts, b->att, act == &act_q8_part);
    if (teams) {
        add_call(r, &attend_decode_source, parts, &consts, call);
    } else {
        const attend_decode_tree_consts tree = attend_in_tree(
            &consts, gpu_info(r->m->gpu)->max_workgroup_memory, is_software(r->m->gpu), s->f16);
        const attend_decode_tree_params blocks = attend_tree_blocks(&tree, v.first);
        call.params = &blocks;
        add_call(r, &attend_decode_tree_source, parts, &tree, call);
    }
    if (one_span) {
        tuned_end(r);
        return;
    }
    const attend_combine_consts combine = {
        .n_heads = c->n_heads,
        .head_dim = c->head_dim,
        .one = consts.one,
        .span = consts.span,
        .splits = consts.splits,
        .window = consts.window,
        .page = KV_PAGE,
        .sinks = consts.sinks,
        .plain = consts.plain,
    };
    add_call(
        r, &attend_combine_source, (const gpu_fragment *[]){ act }, &combine,
        (gpu_call){
            .bind = { [ATTEND_COMBINE_SPANS] = b->spans,
                      [ATTEND_COMBINE_ROWS] = rows,
                      [ATTEND_COMBINE_SINKS] = or_none(r->m, sinks),
                      [ACT_ODD_ACT] = b->att },
            .groups = { { .times = c->n_heads }, { .size = SIZE_ROWS }, { .size = SIZE_COMBINE } },
        });
    tuned_end(r);
}

/* ---- many rows
 * -----------------------------------------------------------------------------
 */

/* Tiles of attend_prefill in the order of preference: the first one that the device has the
 * memory and the lanes for is taken. rows 0: so many that scores take no more lanes than the
 * output. */
typedef struct {
    uint32_t bq, bk, rows, parts;
} prefill_tile;

static const prefill_tile prefill_tiles[] = {
    { 64, 64, 4, 2 }, { 48, 64, 0, 2 }, { 32, 32, 0, 1 }, { 32, 64, 0, 2 }, { 16, 64, 0, 4 },
    { 16, 32, 0, 2 }, { 16, 16, 0, 1 }, { 8, 16, 0, 4 },  { 8, 4, 0, 1 },
};

/* Of a device whose lanes are computed one after the other. */
static const prefill_tile prefill_cpu_tiles[] = {
    { 32, 32, 8, 1 }, { 16, 16, 4, 1 }, { 8, 16, 4, 2 }, { 8, 8, 2, 2 }, { 8, 4, 2, 1 },
};

static bool joins_by_shuffles(const gpu *g, uint32_t bk) {
    return gpu_info(g)->subgroups && !is_software(g) && bk / 4 <= team_lanes(g);
}

bool attend_prefill_fits(const attend_prefill_consts *k, const dp_device_info *info,
                         bool subgroups) {
    const uint32_t d8 = ceil_div(k->head_dim, 8), cols = k->bk / 4;
    const uint32_t lanes = max_u32(cols * k->bq / k->rows, 2 * d8 * k->bq / 8);
    const uint32_t chunks = max_u32(k->bk * ceil_div(d8, k->parts), k->bk / k->parts * d8);
    const uint32_t vec4s = k->bq * (2 * d8 + 1) + 2 * chunks + k->bq * (cols | 1);
    const uint32_t floats = k->bq + (subgroups ? 0 : k->bq * (cols + 1));
    return lanes <= min_u32(info->max_workgroup_lanes, 256) && chunks <= 4 * lanes &&
           16 * vec4s + 4 * floats <= info->max_workgroup_memory;
}

static void put_tile(attend_prefill_consts *k, const prefill_tile *tile) {
    k->bq = tile->bq;
    k->bk = tile->bk;
    k->rows = tile->rows;
    k->parts = tile->parts;
}

static void choose_prefill(const dp_model *m, attend_prefill_consts *k) {
    const dp_device_info *info = gpu_info(m->gpu);
    const bool cpu = is_software(m->gpu);
    const prefill_tile *tiles = cpu ? prefill_cpu_tiles : prefill_tiles;
    const size_t n = cpu ? ARRAY_LEN(prefill_cpu_tiles) : ARRAY_LEN(prefill_tiles);
    k->head_dim = m->config.head_dim;
    k->heads = heads_together(&m->config, PREFILL_HEADS);
    for (size_t i = 0; i < n; i++) {
        const uint32_t even = power_above(ceil_div(tiles[i].bk, ceil_div(k->head_dim, 8)));
        put_tile(k, &tiles[i]);
        k->rows = k->rows > 0 ? k->rows : max_u32(min_u32(even, 8), 2);
        if (attend_prefill_fits(k, info, joins_by_shuffles(m->gpu, k->bk))) {
            return;
        }
    }
}

/* Doublings from one power of two to the other. */
static uint32_t doublings(uint32_t a, uint32_t b) {
    uint32_t n = 0;
    for (uint32_t low = min_u32(a, b); low < max_u32(a, b); low *= 2) {
        n++;
    }
    return n;
}

/* Tiles that attend_prefill could have, i < TILES_TRIED; of those as near, large ones first. */
enum { TILES_TRIED = 5 * 3 * 3 };
static prefill_tile tile_to_try(uint32_t bq, uint32_t i) {
    return (prefill_tile){ bq, .bk = 64u >> i / 9, .rows = 8u >> i / 3 % 3, .parts = 1u << i % 3 };
}

/* Makes the tile that was chosen by cost the tuned one, of as many query rows, as which the host
 * divides the pass; those nearest to it are offered. More keys than KEYS_MOST would take longer and
 * tell no more: each costs the same, and few are at the ends of tiles. */
static void tune_prefill(recorder *r, uint32_t layer, attend_prefill_consts *k) {
    enum { KEYS_MOST = 2048 };
    const dp_device_info *info = gpu_info(r->m->gpu);
    const prefill_tile first = { k->bq, k->bk, k->rows, k->parts };
    tuned_question q =
        attend_question(r, "attend_prefill", layer, half_context(&r->m->shapes, KEYS_MOST));
    for (uint32_t i = 0; i < TILES_TRIED; i++) {
        const prefill_tile tile = tile_to_try(first.bq, i);
        const uint32_t far = doublings(tile.bk, first.bk) + doublings(tile.rows, first.rows) +
                             doublings(tile.parts, first.parts);
        tuned_shape shape = { .which = i, .cost = far };
        put_tile(k, &tile);
        snprintf(shape.name, sizeof shape.name, "keys %u, rows %u, parts %u", tile.bk, tile.rows,
                 tile.parts);
        if (far == 0 || (tile.parts <= tile.bk / 4 &&
                         attend_prefill_fits(k, info, joins_by_shuffles(r->m->gpu, k->bk)))) {
            tuned_offer(&q, &shape);
        }
    }
    const prefill_tile tile = tile_to_try(first.bq, tuned_choice(r, &q)->which);
    put_tile(k, &tile);
}

bool attend_matrix_fits(const gpu *g, uint32_t head_dim) {
    enum { SIDES = 8, COLS = 8 }; /* at most, of attend_matrix.wgsl */
    const uint32_t side = gpu_info(g)->matrix, lanes = gpu_info(g)->subgroup_size;
    return side > 0 && head_dim % side == 0 && head_dim <= SIDES * side && lanes % side == 0 &&
           lanes >= side && lanes <= COLS * side && gpu_subgroups_alike(g);
}

/* On a software GPU matrices are loops: a kernel before this one was slower than attend_prefill
 * there (docs/speed.md, 12). */
static bool attends_on_matrices(const dp_model *m) {
    return matrix_is_used(m) && m->shapes.f16 && !is_software(m->gpu) &&
           attend_matrix_fits(m->gpu, m->config.head_dim);
}

static uint32_t matrix_heads(const dp_model *m) {
    return heads_together(&m->config, gpu_info(m->gpu)->matrix);
}

uint32_t attend_tile_rows(const dp_model *m) {
    if (attends_on_matrices(m)) {
        return gpu_info(m->gpu)->matrix / matrix_heads(m);
    }
    attend_prefill_consts k = { 0 };
    choose_prefill(m, &k);
    return k.bq / k.heads;
}

static void attend_on_matrices(recorder *r, uint32_t layer, gpu_call call) {
    const dp_model *m = r->m;
    const config *c = &m->config;
    const attend_matrix_consts consts = {
        .n_kv = c->n_kv_heads,
        .group = c->n_heads / c->n_kv_heads,
        .heads = matrix_heads(m),
        .head_dim = c->head_dim,
        .window = c->layer_window[layer],
        .scale = c->attention_scale,
        .softcap = c->attention_softcap,
        .sinks = m->weights.layers[layer].sinks.source != NULL,
        .table = m->shapes.n_pages,
        .subgroup = gpu_info(m->gpu)->subgroup_size,
    };
    _Static_assert(KV_PAGE == 32, "PAGE of attend_matrix.wgsl");
    call.groups[0].times = c->n_kv_heads * ceil_div(consts.group, consts.heads);
    add_call(r, &attend_matrix_source, (const gpu_fragment *[]){ matrix_fragment(m->gpu) }, &consts,
             call);
}

static void attend_tiles(recorder *r, uint32_t layer) {
    const config *c = &r->m->config;
    const buffers *b = &r->m->buffers;
    const shapes *s = &r->m->shapes;
    const vector *sinks = &r->m->weights.layers[layer].sinks;
    const uint32_t group = c->n_heads / c->n_kv_heads;
    gpu_call call = {
        .bind = { [0] = b->keys[layer],
                  [1] = b->values[layer],
                  [ATTEND_PREFILL_Q] = b->q,
                  [ATTEND_PREFILL_TILES] = b->tiles,
                  [ATTEND_PREFILL_PAGES] = b->pages,
                  [ATTEND_PREFILL_SINKS] = or_none(r->m, sinks),
                  [ATTEND_PREFILL_Y] = b->att },
        .groups = { { 0 }, { .size = SIZE_TILES } },
    };
    _Static_assert((int)ATTEND_PREFILL_Y == (int)ATTEND_MATRIX_Y, "the kernels bind alike");
    if (attends_on_matrices(r->m)) {
        attend_on_matrices(r, layer, call);
        return;
    }
    attend_prefill_consts consts = {
        .sinks = sinks->source != NULL,
        .n_kv = c->n_kv_heads,
        .group = group,
        .window = c->layer_window[layer],
        .scale = c->attention_scale,
        .softcap = c->attention_softcap,
        .page = KV_PAGE,
        .table = s->n_pages,
    };
    choose_prefill(r->m, &consts);
    tune_prefill(r, layer, &consts);
    call.groups[0].times = c->n_kv_heads * ceil_div(group, consts.heads);
    add_call(r, &attend_prefill_source,
             (const gpu_fragment *[]){ cache_fragment(r->m), joins_by_shuffles(r->m->gpu, consts.bk)
                                                                 ? &join_subgroup_part
                                                                 : &join_tree_part },
             &consts, call);
    tuned_end(r);
}

void op_attend(recorder *r, uint32_t layer) {
    (pass_is_prefill(r->kind) ? attend_tiles : attend_rows)(r, layer);
}
