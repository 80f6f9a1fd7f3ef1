//! enable subgroups
//! use kv, act
//! with spans, turned, put_head, capped, one_span, key_place
// attend_decode: attention of single rows, split over keys: every workgroup takes a span of a row's
// keys and up to HEADS query heads that share a key head, so that each key and value is read once
// for all of them.
//   o = sum_j exp(q . k_j SCALE - m) v_j, m = max_j, l = sum_j exp(...), over the keys of the span
//   (online softmax, Milakov and Gimelshein 2018); attend_combine joins the spans. A row of one
//   span is finished here: act [rows, N_KV GROUP HEAD_DIM] = o / l, with the head's sink in m and l
//   if SINKS.
//   qkv f32: if FUSED the projections [rows, (N_KV GROUP + 2 N_KV) HEAD_DIM], which are normalised
//   and turned here, and the last key and value put into the cache; else the turned queries
//   [rows, N_KV GROUP, 8 D8], all keys being in the cache
//   w f32: weights of the heads' norms and sinks, at p.wq, p.wk, p.sinks
//   caches and angles as in rope
//   spans [rows, N_KV GROUP, SPLITS, 2 D8 + 1] vec4f: o, then (m, l)
// LANES lanes share a key, 8 dimensions to each: a lane keeps its part of the queries and of o in
// registers, scores are added up by shuffles, and the loop over keys has no barrier. WG / LANES
// keys are looked at together, AHEAD of them by a lane, whose loads are under way at once. FUSED
// takes one row of each sequence at most.
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
override WG: u32;       // a multiple of TEAM
override TEAM: u32;     // at most the subgroup's size and 64
override LANES: u32;    // the power of two at or above D8, at most TEAM
override AHEAD: u32;    // 1, 2 or 4

const LOW = -1e30;   // the score of a key that is not seen
const LEAST = -5e29; // m before the first key, so that exp(LOW - m) is 0
override D8: u32 = (HEAD_DIM + 7) / 8;
override PAIRS: u32 = max(ROPE_DIM / 2, 1);
override CHUNKS: u32 = (GROUP + HEADS - 1) / HEADS;
override N_HEADS: u32 = N_KV * GROUP;
override STRIDE: u32 = select(N_HEADS * 8 * D8, (N_HEADS + 2 * N_KV) * HEAD_DIM, FUSED);
override PITCH: u32 = select(8 * D8, HEAD_DIM, FUSED); // from one head of qkv to the next
override H16: u32 = (HEAD_DIM + 15) / 16;
override C4: u32 = 2 * D8;
override SLOTS: u32 = WG / LANES; // keys that the workgroup looks at together
// Where the heads' queries are in the pool.
override B: u32 = min(HEADS - 1, 1) * C4;
override C: u32 = min(HEADS - 1, 2) * C4;
override D: u32 = min(HEADS - 1, 3) * C4;
override TILE: u32 = AHEAD * SLOTS;
override TEAMS: u32 = WG / TEAM;
override TURNS: u32 = (HEADS + TEAMS) / TEAMS;
override POOL: u32 = max(HEADS + 2, TEAMS * HEADS) * C4;

struct Params {
    wq: u32,
    wk: u32,
    sinks: u32,
}

@group(0) @binding(2) var<storage, read> qkv: array<f32>;
@group(0) @binding(3) var<uniform> rows: array<vec4u, 16>;
@group(0) @binding(4) var<storage, read> pages: array<u32>;
@group(0) @binding(5) var<storage, read> angles: array<vec2f>;
@group(0) @binding(6) var<storage, read> w: array<f32>;
@group(0) @binding(7) var<storage, read_write> spans: array<vec4f>;
@group(1) @binding(0) var<uniform> p: Params;

// [HEADS][C4] queries, then the new key and value; at the end sums [TEAMS][HEADS][C4].
var<workgroup> pool: array<vec4f, POOL>;
var<workgroup> factor: array<f32, 8>; // of the heads' norms, the key's at HEADS
var<workgroup> tops: array<vec4f, TEAMS>;
var<workgroup> totals: array<vec4f, TEAMS>;

struct Place {
    slot: u32,
    kv: u32,
    pos: u32,  // of the query
    low: u32,  // the first key that is seen
    last: u32, // one past the span
}

struct Entry {
    k: Chunk,
    v: Chunk,
}

// Eight dimensions of up to four heads, of the queries or of o. Members, no arrays; values, no
// pointers: what a compiler may keep in memory is slow there.
struct Heads {
    a0: vec4f,
    a1: vec4f,
    b0: vec4f,
    b1: vec4f,
    c0: vec4f,
    c1: vec4f,
    d0: vec4f,
    d1: vec4f,
}

// The key that stands for j: keys out of the span are read as one that is in it.
fn key_of(at: Place, j: u32) -> u32 {
    return clamp(j, at.low, at.last - 1);
}

// Is it the new one, which the cache does not have yet?
fn is_own(at: Place, j: u32) -> bool {
    return key_of(at, j) == at.pos;
}

// Dimensions 8 c .. 8 c + 7 of key j and its value.
fn entry_of(at: Place, j: u32, c: u32) -> Entry {
    let i = key_of(at, j);
    let base = (pages[at.slot * TABLE + i / PAGE] * N_KV + at.kv) * D8 * PAGE;
    return Entry(key_chunk(base + key_place(i % PAGE, c)), value_chunk(base + i % PAGE * D8 + c));
}

fn entry_pick(a: Entry, b: Entry, second: bool) -> Entry {
    return Entry(chunk_pick(a.k, b.k, second), chunk_pick(a.v, b.v, second));
}

struct Entries {
    a: Entry,
    b: Entry,
    c: Entry,
    d: Entry,
}

// The AHEAD keys from j on that a lane looks at, SLOTS apart.
fn fetch(at: Place, j: u32, c: u32) -> Entries {
    let first = entry_of(at, j, c);
    var e = Entries(first, first, first, first);
    if (AHEAD > 1) {
        e.b = entry_of(at, j + SLOTS, c);
    }
    if (AHEAD > 2) {
        e.c = entry_of(at, j + 2 * SLOTS, c);
        e.d = entry_of(at, j + 3 * SLOTS, c);
    }
    return e;
}

// The same with the new key in its place.
fn with_own(at: Place, j: u32, e: Entries, own: Entry) -> Entries {
    return Entries(entry_pick(e.a, own, is_own(at, j)), entry_pick(e.b, own, is_own(at, j + SLOTS)),
        entry_pick(e.c, own, is_own(at, j + 2 * SLOTS)),
        entry_pick(e.d, own, is_own(at, j + 3 * SLOTS)));
}

// Sums over the lanes of a key; all of them get it. Of a vector no more is shuffled than there is.
fn lanes_sum(v: f32) -> f32 {
    var sum = v;
    if (LANES > 32) {
        sum += subgroupShuffleXor(sum, 32u);
    }
    if (LANES > 16) {
        sum += subgroupShuffleXor(sum, 16u);
    }
    if (LANES > 8) {
        sum += subgroupShuffleXor(sum, 8u);
    }
    if (LANES > 4) {
        sum += subgroupShuffleXor(sum, 4u);
    }
    if (LANES > 2) {
        sum += subgroupShuffleXor(sum, 2u);
    }
    if (LANES > 1) {
        sum += subgroupShuffleXor(sum, 1u);
    }
    return sum;
}

fn lanes_sum2(v: vec2f) -> vec2f {
    var sum = v;
    if (LANES > 32) {
        sum += subgroupShuffleXor(sum, 32u);
    }
    if (LANES > 16) {
        sum += subgroupShuffleXor(sum, 16u);
    }
    if (LANES > 8) {
        sum += subgroupShuffleXor(sum, 8u);
    }
    if (LANES > 4) {
        sum += subgroupShuffleXor(sum, 4u);
    }
    if (LANES > 2) {
        sum += subgroupShuffleXor(sum, 2u);
    }
    if (LANES > 1) {
        sum += subgroupShuffleXor(sum, 1u);
    }
    return sum;
}

// Sum over the keys of a team, of the lanes that have the same dimensions.
fn slots_sum(v: vec4f) -> vec4f {
    var sum = v;
    for (var step = TEAM / 2; step >= LANES; step >>= 1) {
        sum += subgroupShuffleXor(sum, step);
    }
    return sum;
}

// o of a head over the keys of a team, which its first lanes put into the pool.
fn put_sums(o0: vec4f, o1: vec4f, head: u32, lane: u32, c: u32) {
    let x = slots_sum(o0);
    let y = slots_sum(o1);
    if (lane % TEAM < D8) { // at most LANES: the team's first key
        pool[head * C4 + c] = x;
        pool[head * C4 + c + 1] = y;
    }
}

// The largest of a team, of each component.
fn team_max(v: vec4f) -> vec4f {
    var top = v;
    for (var step = TEAM / 2; step >= LANES; step >>= 1) {
        top = max(top, subgroupShuffleXor(top, step));
    }
    return top;
}

// Scores of key j for the heads; q and k are a lane's eight dimensions.
fn scores_of(at: Place, j: u32, q: Heads, k: Chunk) -> vec4f {
    let x = chunk_floats(k);
    var s = vec4f(dot(q.a0, x[0]) + dot(q.a1, x[1]), dot(q.b0, x[0]) + dot(q.b1, x[1]),
        dot(q.c0, x[0]) + dot(q.c1, x[1]), dot(q.d0, x[0]) + dot(q.d1, x[1]));
    if (HEADS == 1) {
        s = vec4f(lanes_sum(s.x));
    } else if (HEADS == 2) {
        s = lanes_sum2(s.xy).xyxy;
    } else {
        s = vec4f(lanes_sum2(s.xy), lanes_sum2(s.zw));
    }
    return select(vec4f(LOW), capped(s), j >= at.low && j < at.last);
}

// o times a factor for each head.
fn scaled_heads(o: Heads, by: vec4f) -> Heads {
    return Heads(o.a0 * by.x, o.a1 * by.x, o.b0 * by.y, o.b1 * by.y, o.c0 * by.z, o.c1 * by.z,
        o.d0 * by.w, o.d1 * by.w);
}

// o and a value times a factor for each head.
fn add_value(o: Heads, e: vec4f, v: Chunk) -> Heads {
    let x = chunk_floats(v);
    return Heads(o.a0 + e.x * x[0], o.a1 + e.x * x[1], o.b0 + e.y * x[0], o.b1 + e.y * x[1],
        o.c0 + e.z * x[0], o.c1 + e.z * x[1], o.d0 + e.w * x[0], o.d1 + e.w * x[1]);
}

// What the heads have of the keys so far.
struct State {
    m: vec4f,
    l: vec4f,
    o: Heads,
}

// The same for a larger m.
fn raised(s: State, most: vec4f) -> State {
    let m = max(s.m, most);
    let by = exp(s.m - m);
    return State(m, s.l * by, scaled_heads(s.o, by));
}

// With the AHEAD keys from j on.
fn attended(s: State, at: Place, j: u32, q: Heads, e: Entries) -> State {
    let s0 = scores_of(at, j, q, e.a.k);
    var s1 = s0;
    var s2 = s0;
    var s3 = s0;
    if (AHEAD > 1) {
        s1 = scores_of(at, j + SLOTS, q, e.b.k);
    }
    if (AHEAD > 2) {
        s2 = scores_of(at, j + 2 * SLOTS, q, e.c.k);
        s3 = scores_of(at, j + 3 * SLOTS, q, e.d.k);
    }
    var t = raised(s, max(max(s0, s1), max(s2, s3)));
    let e0 = exp(s0 - t.m);
    t.l += e0;
    t.o = add_value(t.o, e0, e.a.v);
    if (AHEAD > 1) {
        let e1 = exp(s1 - t.m);
        t.l += e1;
        t.o = add_value(t.o, e1, e.b.v);
    }
    if (AHEAD > 2) {
        let e2 = exp(s2 - t.m);
        let e3 = exp(s3 - t.m);
        t.l += e2 + e3;
        t.o = add_value(add_value(t.o, e2, e.c.v), e3, e.d.v);
    }
    return t;
}

// Factors of the norms of the workgroup's heads and its key.
fn find_factors(base: u32, n_heads: u32, key: u32, lane: u32) {
    for (var turn = 0u; turn < TURNS; turn++) {
        let h = turn * TEAMS + lane / TEAM;
        var sum = 0.0;
        if (h < n_heads || h == HEADS) {
            let start = select(base + h * HEAD_DIM, key, h == HEADS);
            for (var d = lane % TEAM; d < HEAD_DIM; d += TEAM) {
                sum += qkv[start + d] * qkv[start + d];
            }
        }
        for (var step = TEAM / 2; step > 0; step >>= 1) {
            sum += subgroupShuffleXor(sum, step);
        }
        if (lane % TEAM == 0 && h <= HEADS) {
            factor[h] = inverseSqrt(sum / f32(HEAD_DIM) + EPS);
        }
    }
    workgroupBarrier();
}

// Queries, the new key and the new value into the pool.
fn prepare(row: u32, pos: u32, head: u32, n_heads: u32, kv: u32, lane: u32) {
    let base = row * STRIDE + head * PITCH;
    let key = row * STRIDE + (N_HEADS + kv) * HEAD_DIM;
    if (FUSED && NORM) {
        find_factors(base, n_heads, key, lane);
    }
    for (var i = lane; i < select(HEADS, HEADS + 2, FUSED) * C4; i += WG) {
        let h = i / C4;
        var v = vec4f();
        for (var e = 0u; e < 4; e++) {
            let d = i % C4 * 4 + e;
            if (d < HEAD_DIM) {
                if (h < n_heads) {
                    if (FUSED) {
                        v[e] = turned(base + h * HEAD_DIM, d, pos, factor[h], p.wq) * SCALE;
                    } else {
                        v[e] = qkv[base + h * PITCH + d] * SCALE;
                    }
                } else if (h == HEADS) {
                    v[e] = turned(key, d, pos, factor[h], p.wk);
                } else if (h > HEADS) {
                    v[e] = qkv[key + N_KV * HEAD_DIM + d];
                }
            }
        }
        pool[i] = v;
    }
    workgroupBarrier();
}

// l of a head over the span.
fn span_l(h: u32) -> f32 {
    var l = 0.0;
    for (var k = 0u; k < TEAMS; k++) {
        l += totals[k][h];
    }
    return l;
}

@compute @workgroup_size(WG)
fn attend_decode(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
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
    var at = Place(row.y, kv, row.z, 0u, min(start + part.per, n_keys));
    if (WINDOW > 0 && n_keys > WINDOW) {
        at.low = n_keys - WINDOW;
    }

    // The first keys are asked for before the queries are made.
    let c = min(lane % LANES, D8 - 1);
    let slot = lane / LANES;
    var entries = fetch(at, start + slot, c);
    prepare(group.z, row.z, head, n_heads, kv, lane);

    // Dimensions that there are not add nothing.
    let live = select(0.0, 1.0, lane % LANES < D8);
    let low = 2 * c;
    let q = scaled_heads(Heads(pool[low], pool[low + 1], pool[B + low], pool[B + low + 1],
        pool[C + low], pool[C + low + 1], pool[D + low], pool[D + low + 1]), vec4f(live));
    var own = entries.a; // as the cache will have it
    if (FUSED) {
        let key = HEADS * C4 + low;
        own = Entry(chunk_of(pool[key], pool[key + 1]),
            chunk_of(pool[key + C4], pool[key + C4 + 1]));
    }

    let none = vec4f();
    var s = State(vec4f(LEAST), none, Heads(none, none, none, none, none, none, none, none));
    for (var tile = start; tile < at.last; tile += TILE) {
        // Without a branch around it the compiler leaves it here, before what it hides behind.
        let next = fetch(at, tile + TILE + slot, c);
        if (FUSED && tile + TILE > row.z) {
            entries = with_own(at, tile + slot, entries, own);
        }
        s = attended(s, at, tile + slot, q, entries);
        entries = next;
    }

    // The keys' parts joined: of a team by shuffles, then of the teams in the pool.
    let team = lane / TEAM;
    let top = team_max(s.m);
    if (lane % TEAM == 0) {
        tops[team] = top;
    }
    workgroupBarrier();
    var m = tops[0];
    for (var k = 1u; k < TEAMS; k++) {
        m = max(m, tops[k]);
    }
    s = raised(s, m);
    let l = slots_sum(s.l);
    if (lane % TEAM == 0) {
        totals[team] = l;
    }
    put_sums(s.o.a0, s.o.a1, team * HEADS, lane, 2 * c);
    if (HEADS > 1) {
        put_sums(s.o.b0, s.o.b1, team * HEADS + 1, lane, 2 * c);
    }
    if (HEADS > 2) {
        put_sums(s.o.c0, s.o.c1, team * HEADS + 2, lane, 2 * c);
    }
    if (HEADS > 3) {
        put_sums(s.o.d0, s.o.d1, team * HEADS + 3, lane, 2 * c);
    }
    workgroupBarrier();
    let to = ((group.z * N_HEADS + head) * SPLITS + group.y) * (C4 + 1);
    for (var i = lane; i < n_heads * C4; i += WG) {
        var sum = pool[i];
        for (var k = 1u; k < TEAMS; k++) {
            sum += pool[k * HEADS * C4 + i];
        }
        if (part.n > 1) {
            spans[to + i / C4 * SPLITS * (C4 + 1) + i % C4] = sum;
        } else {
            pool[i] = sum; // which no other lane reads before the barrier
        }
    }
    if (part.n > 1) {
        if (lane < n_heads) {
            spans[to + lane * SPLITS * (C4 + 1) + C4] = vec4f(m[lane], span_l(lane), 0, 0);
        }
    } else {
        workgroupBarrier();
        finish(group.z, head, n_heads, 0, m, lane);
    }
    if (FUSED && at.last == n_keys && head0 == 0 && lane < D8) {
        let base = (pages[at.slot * TABLE + row.z / PAGE] * N_KV + kv) * D8 * PAGE;
        key_put(base + key_place(row.z % PAGE, lane), own.k);
        value_put(base + row.z % PAGE * D8 + lane, own.v);
    }
}
