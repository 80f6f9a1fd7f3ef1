//! use kv, act
//! with spans, turned, put_head, capped, one_span, lanes_max, key_place
// attend_decode_tree: as attend_decode, for devices without subgroup operations and for heads of
// more chunks of eight dimensions than a team has lanes.
// WG lanes: a key each for the scores, then D8 columns of 8 by WG / D8 shares of the keys for the
// values; PRE chunks of both are under way at a time. FUSED takes one row of each sequence at most.
// Grid: (N_KV * ceil(GROUP / HEADS), spans, rows). Bound by reading the cache. f32 sums.
override N_KV: u32;
override GROUP: u32;    // query heads to a key head
override HEADS: u32;    // of them in one workgroup, at most 4
override HEAD_DIM: u32;
override ROPE_DIM: u32;
override FUSED: bool;
override NORM: bool;
override EPS: f32;
override ONE: u32;      // of spans.wgsl
override SPAN: u32;
override SPLITS: u32;
override WINDOW: u32;   // keys a query may see, itself included; 0: all
override SCALE: f32;
override SOFTCAP: f32;
override SINKS: bool;
override PLAIN: bool;   // of put_head.wgsl
override PAGE: u32;
override TABLE: u32;
override WG: u32;       // a power of two, at least 64
override PRE: u32;      // at most 16

const LOW = -1e30;
override D8: u32 = (HEAD_DIM + 7) / 8;
override PAIRS: u32 = max(ROPE_DIM / 2, 1);
override CHUNKS: u32 = (GROUP + HEADS - 1) / HEADS;
override N_HEADS: u32 = N_KV * GROUP;
override STRIDE: u32 = select(N_HEADS * 8 * D8, (N_HEADS + 2 * N_KV) * HEAD_DIM, FUSED);
override PITCH: u32 = select(8 * D8, HEAD_DIM, FUSED); // from one head of qkv to the next
override H16: u32 = (HEAD_DIM + 15) / 16;
override Q_SIZE: u32 = 8 * D8;
override C4: u32 = 2 * D8;
override OWN: u32 = C4;
override FRESH: u32 = 16 * D8;
override SHARE: u32 = WG / D8;                  // lanes to a column
override KEYS: u32 = (WG + SHARE - 1) / SHARE;  // that a lane sums of a tile
override JOINED: u32 = SHARE * C4;              // where the sums of all shares are in the pool,
override LS: u32 = JOINED + HEADS * C4;         // and behind them every share's l
override POOL: u32 = max(Q_SIZE + WG, LS + SHARE);
override EARLY: bool = PRE > 1; // a tile is read before the one in front of it is done with

struct Params {
    wq: u32,
    wk: u32,
    sinks: u32,
    key_blocks: u32,   // ceil(D8 / PRE), not a constant: such loops would be unrolled
    value_blocks: u32, // ceil(KEYS / PRE)
    eight: u32,
}

@group(0) @binding(2) var<storage, read> qkv: array<f32>;
@group(0) @binding(3) var<uniform> rows: array<vec4u, 16>;
@group(0) @binding(4) var<storage, read> pages: array<u32>;
@group(0) @binding(5) var<storage, read> angles: array<vec2f>;
@group(0) @binding(6) var<storage, read> w: array<f32>;
@group(0) @binding(7) var<storage, read_write> spans: array<vec4f>;
@group(1) @binding(0) var<uniform> p: Params;

// Queries [8 D8] of four heads each, then the tile's exp(scores) [WG]; at the end sums.
var<workgroup> pool: array<vec4f, POOL>;
var<workgroup> square: array<f32, WG>;
var<workgroup> factor: array<f32, 16>; // of the heads' norms, the key's at 8
var<workgroup> fresh: array<f32, FRESH>; // the new key, the new value,
var<workgroup> own: array<Chunk, OWN>;   // as the cache has them

struct Place {
    slot: u32,
    kv: u32,
    low: u32,  // the first key that is seen
    last: u32, // one past the span
}

// Chunks of a lane's key: dimensions from 8 first on.
fn load_keys(at: Place, j: u32, first: u32, out: ptr<function, array<Chunk, 16>>) {
    if (j < at.low || j >= at.last) {
        return;
    }
    let page = pages[at.slot * TABLE + j / PAGE];
    let base = (page * N_KV + at.kv) * D8 * PAGE;
    for (var i = 0u; i < PRE; i++) {
        if (first + i < D8) {
            (*out)[i] = key_chunk(base + key_place(j % PAGE, first + i));
        }
    }
}

// Chunks of a lane's column: keys tile + share + (first + i) SHARE.
fn load_values(at: Place, tile: u32, lane: u32, first: u32,
    out: ptr<function, array<Chunk, 16>>) {
    for (var i = 0u; i < PRE; i++) {
        let key = lane / D8 + (first + i) * SHARE;
        let j = tile + key;
        (*out)[i] = Chunk();
        if (key < WG && j >= at.low && j < at.last && lane < SHARE * D8) {
            let page = pages[at.slot * TABLE + j / PAGE];
            (*out)[i] = value_chunk(((page * N_KV + at.kv) * PAGE + j % PAGE) * D8 + lane % D8);
        }
    }
}

// Factors of the norms of the workgroup's heads and its key.
fn find_factors(base: u32, n_heads: u32, key: u32, lane: u32) {
    let members = WG / 16;
    let slot = lane / members;
    var sum = 0.0;
    if (slot < n_heads || slot == 8) {
        let start = select(base + slot * HEAD_DIM, key, slot == 8);
        for (var d = lane % members; d < HEAD_DIM; d += members) {
            sum += qkv[start + d] * qkv[start + d];
        }
    }
    square[lane] = sum;
    workgroupBarrier();
    if (lane < 16) {
        var total = 0.0;
        for (var i = 0u; i < members; i++) {
            total += square[lane * members + i];
        }
        factor[lane] = inverseSqrt(total / f32(HEAD_DIM) + EPS);
    }
    workgroupBarrier();
}

// Queries into the pool, the new key and value into `own`.
fn prepare(row: u32, pos: u32, head: u32, n_heads: u32, kv: u32, lane: u32) {
    let base = row * STRIDE + head * PITCH;
    let key = row * STRIDE + (N_HEADS + kv) * HEAD_DIM;
    if (FUSED && NORM) {
        find_factors(base, n_heads, key, lane);
    }
    for (var d = lane; d < Q_SIZE; d += WG) {
        var v = vec4f();
        for (var h = 0u; h < 4; h++) {
            if (h < n_heads && d < HEAD_DIM) {
                if (FUSED) {
                    v[h] = turned(base + h * HEAD_DIM, d, pos, factor[h], p.wq) * SCALE;
                } else {
                    v[h] = qkv[base + h * PITCH + d] * SCALE;
                }
            }
        }
        pool[d] = v;
    }
    if (FUSED) {
        for (var i = lane; i < 16 * D8; i += WG) {
            let d = i % (8 * D8);
            var v = 0.0;
            if (d < HEAD_DIM) {
                if (i < 8 * D8) {
                    v = turned(key, d, pos, factor[8], p.wk);
                } else {
                    v = qkv[key + N_KV * HEAD_DIM + d];
                }
            }
            fresh[i] = v;
        }
        workgroupBarrier();
        for (var i = lane; i < C4; i += WG) {
            let at = 8 * i;
            own[i] = chunk_of(vec4f(fresh[at], fresh[at + 1], fresh[at + 2], fresh[at + 3]),
                vec4f(fresh[at + 4], fresh[at + 5], fresh[at + 6], fresh[at + 7]));
        }
    }
}

// l of a head over the span, of whose shares the sums are in the pool.
fn span_l(h: u32) -> f32 {
    var l = 0.0;
    for (var k = 0u; k < SHARE; k++) {
        l += pool[LS + k][h];
    }
    return l;
}

@compute @workgroup_size(WG)
fn attend_decode_tree(@builtin(workgroup_id) group: vec3u,
    @builtin(local_invocation_index) lane: u32) {
    let row = rows[group.z];
    let n_keys = row.z + 1;
    let part = spans_of(n_keys);
    if (group.y >= part.n) {
        return; // a uniform and the workgroup's id: barriers stay uniform
    }
    let start = part.start + group.y * part.per;
    let kv = group.x / CHUNKS;
    let head0 = (group.x % CHUNKS) * HEADS; // in the group
    let n_heads = min(HEADS, GROUP - head0);
    let head = kv * GROUP + head0;
    var at = Place(row.y, kv, 0u, min(start + part.per, n_keys));
    if (WINDOW > 0 && n_keys > WINDOW) {
        at.low = n_keys - WINDOW;
    }

    var key = array<Chunk, 16>();
    var value = array<Chunk, 16>();
    if (EARLY) {
        load_keys(at, start + lane, 0u, &key);
        load_values(at, start, lane, 0u, &value);
    }
    prepare(group.z, row.z, head, n_heads, kv, lane);
    workgroupBarrier();

    let column = lane % D8;
    var top = vec4f(LOW);
    var total = vec4f();
    var acc = array<vec4f, 8>(); // of head h: 2 h, 2 h + 1
    for (var tile = start; tile < at.last; tile += WG) {
        let j = tile + lane;
        let is_new = FUSED && j == row.z;
        var s = vec4f();
        for (var block = 0u; block < p.key_blocks; block++) {
            let first = block * PRE;
            if (!EARLY || first > 0) {
                load_keys(at, j, first, &key);
            }
            for (var i = 0u; i < PRE; i++) {
                let d = (first + i) * 8;
                if (first + i < D8) {
                    let k = chunk_floats(chunk_pick(key[i], own[first + i], is_new));
                    s += k[0].x * pool[d] + k[0].y * pool[d + 1] + k[0].z * pool[d + 2] +
                        k[0].w * pool[d + 3] + k[1].x * pool[d + 4] + k[1].y * pool[d + 5] +
                        k[1].z * pool[d + 6] + k[1].w * pool[d + 7];
                }
            }
        }
        if (EARLY && tile + WG < at.last) {
            load_keys(at, j + WG, 0u, &key);
        }
        let seen = j >= at.low && j < at.last;
        s = select(vec4f(LOW), capped(s), seen);
        let now = max(top, lanes_max(s, lane, p.eight));
        let shrink = exp(top - now);
        top = now;
        total *= shrink;
        acc[0] *= shrink.x;
        acc[1] *= shrink.x;
        acc[2] *= shrink.y;
        acc[3] *= shrink.y;
        acc[4] *= shrink.z;
        acc[5] *= shrink.z;
        acc[6] *= shrink.w;
        acc[7] *= shrink.w;
        pool[Q_SIZE + lane] = select(vec4f(), exp(s - now), seen);
        workgroupBarrier();
        for (var block = 0u; block < p.value_blocks; block++) {
            let first = block * PRE;
            if (!EARLY || first > 0) {
                load_values(at, tile, lane, first, &value);
            }
            for (var i = 0u; i < PRE; i++) {
                let k = lane / D8 + (first + i) * SHARE;
                if (k < WG && lane < SHARE * D8) {
                    let last = FUSED && tile + k == row.z;
                    let v = chunk_floats(chunk_pick(value[i], own[D8 + column], last));
                    let e = pool[Q_SIZE + k];
                    total += e;
                    acc[0] += e.x * v[0];
                    acc[1] += e.x * v[1];
                    acc[2] += e.y * v[0];
                    acc[3] += e.y * v[1];
                    acc[4] += e.z * v[0];
                    acc[5] += e.z * v[1];
                    acc[6] += e.w * v[0];
                    acc[7] += e.w * v[1];
                }
            }
        }
        if (EARLY && tile + WG < at.last) {
            load_values(at, tile + WG, lane, 0u, &value);
        }
        workgroupBarrier();
    }

    // The sums of the shares, head by head: [share][2 D8], then the joined ones [HEADS][2 D8] and
    // the shares' l.
    let share = lane / D8;
    if (share < SHARE && column == 0) {
        pool[LS + share] = total;
    }
    for (var h = 0u; h < n_heads; h++) {
        if (share < SHARE) {
            var x = acc[0];
            var y = acc[1];
            for (var other = 1u; other < HEADS; other++) {
                x = select(x, acc[2 * other], other == h);
                y = select(y, acc[2 * other + 1], other == h);
            }
            pool[2 * lane] = x;
            pool[2 * lane + 1] = y;
        }
        workgroupBarrier();
        for (var i = lane; i < C4; i += WG) {
            var sum = vec4f();
            for (var k = 0u; k < SHARE; k++) {
                sum += pool[k * C4 + i];
            }
            pool[JOINED + h * C4 + i] = sum;
        }
        workgroupBarrier();
    }
    if (part.n > 1) {
        let to = ((group.z * N_HEADS + head) * SPLITS + group.y) * (C4 + 1);
        for (var i = lane; i < n_heads * C4; i += WG) {
            spans[to + i / C4 * SPLITS * (C4 + 1) + i % C4] = pool[JOINED + i];
        }
        for (var h = lane; h < n_heads; h += WG) {
            spans[to + h * SPLITS * (C4 + 1) + C4] = vec4f(top[h], span_l(h), 0, 0);
        }
    } else {
        finish(group.z, head, n_heads, JOINED, top, lane);
    }
    if (FUSED && at.last == n_keys && head0 == 0 && lane < C4) {
        let to = (pages[at.slot * TABLE + row.z / PAGE] * N_KV + kv) * D8 * PAGE;
        if (lane < D8) {
            key_put(to + key_place(row.z % PAGE, lane), own[lane]);
        } else {
            value_put(to + row.z % PAGE * D8 + lane - D8, own[lane]);
        }
    }
}
