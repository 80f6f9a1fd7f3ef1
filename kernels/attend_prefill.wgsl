//! use kv, join
//! with capped, key_place, score_rows
// attend_prefill: causal attention of many rows, y = softmax(q k^T SCALE) v, in tiles that keep
// keys and values in workgroup memory (FlashAttention-2, Dao 2023).
//   q [rows, N_KV * GROUP, 2 D8] vec4f    caches as in rope    y [rows, N_KV * GROUP, HEAD_DIM] f32
//   softcap and sinks as in attend_decode and attend_combine
//   tiles [n] (first row, rows, slot, position of the first row): consecutive positions of a
//   sequence, at most BQ / HEADS
// A workgroup takes a tile's queries of HEADS heads that share a key head: BQ rows, by BK keys at a
// time. A lane has ROWS by 4 of the scores, in which it keeps maxima and sums of its rows, and then
// 8 rows by 4 columns of the output; exp(scores) go from one to the other through workgroup memory.
// The tile of keys and then that of values come in PARTS to the same memory, and are read from the
// cache while the lanes compute with what came before.
// Grid (N_KV * ceil(GROUP / HEADS), tiles). Bound by the multiplications. f32.
override N_KV: u32;
override GROUP: u32; // query heads to a key head
override HEADS: u32; // of them in one workgroup, at most BQ
override HEAD_DIM: u32;
override WINDOW: u32; // keys a query may see, itself included; 0: all
override SCALE: f32;
override SOFTCAP: f32;
override SINKS: bool;
override PAGE: u32;
override TABLE: u32;
override BQ: u32;    // a multiple of 8
override BK: u32;    // 4 times a power of two, at most PARTS BQ
override ROWS: u32;  // 2, 4 or 8
override PARTS: u32; // divides BK / 4

const LOW = -1e30;
override D8: u32 = (HEAD_DIM + 7) / 8;
override D4: u32 = 2 * D8;
override N_HEADS: u32 = N_KV * GROUP;
override CHUNKS: u32 = (GROUP + HEADS - 1) / HEADS;
override COLS: u32 = BK / 4;          // lanes to a row of scores
override ROW_LANES: u32 = BQ / ROWS;  // lanes to a column of scores
override OUT_LANES: u32 = BQ / 8;     // lanes to a column of the output
override SCORE_LANES: u32 = COLS * ROW_LANES;
override LANES: u32 = max(SCORE_LANES, D4 * OUT_LANES);
override Q_PITCH: u32 = D4 + 1; // vec4s to a row, an odd number against bank conflicts
override P_PITCH: u32 = COLS | 1;
override PART_D8: u32 = (D8 + PARTS - 1) / PARTS; // chunks of a key to a part
override PART_COLS: u32 = COLS / PARTS;           // a part has 4 PART_COLS values
override PART_CHUNKS: u32 = max(BK * PART_D8, 4 * PART_COLS * D8);
override ITEMS: u32 = (PART_CHUNKS + LANES - 1) / LANES; // chunks of a part to a lane, at most 4
override Q_SIZE: u32 = BQ * Q_PITCH;
override KV_SIZE: u32 = 2 * PART_CHUNKS;
override P_SIZE: u32 = BQ * P_PITCH;

@group(0) @binding(2) var<storage, read> q: array<vec4f>;
@group(0) @binding(3) var<storage, read> tiles: array<vec4u>;
@group(0) @binding(4) var<storage, read> pages: array<u32>;
@group(0) @binding(5) var<storage, read> sinks: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

var<workgroup> q_tile: array<vec4f, Q_SIZE>;   // [row][D4], at the end the output
var<workgroup> kv_tile: array<vec4f, KV_SIZE>; // keys [D4][BK], values [4][PART_COLS][D4]
var<workgroup> p_tile: array<vec4f, P_SIZE>;   // exp(scores) [row][column] of keys COLS apart
var<workgroup> factor: array<f32, BQ>;         // exp(old m - new m), at the end 1 / l

// Indexed by constants alone: an array that a variable indexes lies in memory.
alias Eight = array<vec4f, 8>;
alias Ahead = array<Chunk, 4>;

// Figures of a lane's rows of scores: the first four, the others.
struct Rows {
    a: vec4f,
    b: vec4f,
}

struct Four {
    a: vec4f,
    b: vec4f,
    c: vec4f,
    d: vec4f,
}

// What the workgroup reads of the cache.
struct Keys {
    slot: u32,
    kv: u32,
    end: u32, // one past the last
}

fn cache_page(k: Keys, j: u32) -> u32 {
    return (pages[k.slot * TABLE + j / PAGE] * N_KV + k.kv) * D8 * PAGE;
}

// Chunk e of a part of the keys from key0 on: lanes beside each other read keys beside each other.
// Here and below the last key stands for those behind it, of which no query makes anything.
fn fetch_key(k: Keys, key0: u32, part: u32, e: u32) -> Chunk {
    let j = min(key0 + e % BK, k.end - 1);
    let d = min(part * PART_D8 + e / BK, D8 - 1);
    return key_chunk(cache_page(k, j) + key_place(j % PAGE, d));
}

fn fetch_value(k: Keys, key0: u32, part: u32, e: u32) -> Chunk {
    let row = e / D8;
    let j = min(key0 + row / PART_COLS * COLS + part * PART_COLS + row % PART_COLS, k.end - 1);
    return value_chunk(cache_page(k, j) + j % PAGE * D8 + e % D8);
}

// All that a lane brings of a part, asked for at once.
fn fetch_keys(k: Keys, key0: u32, part: u32, lane: u32, out: ptr<function, Ahead>) {
    (*out)[0] = fetch_key(k, key0, part, lane);
    if (ITEMS > 1) {
        (*out)[1] = fetch_key(k, key0, part, lane + LANES);
    }
    if (ITEMS > 2) {
        (*out)[2] = fetch_key(k, key0, part, lane + 2 * LANES);
        (*out)[3] = fetch_key(k, key0, part, lane + 3 * LANES);
    }
}

fn fetch_values(k: Keys, key0: u32, part: u32, lane: u32, out: ptr<function, Ahead>) {
    (*out)[0] = fetch_value(k, key0, part, lane);
    if (ITEMS > 1) {
        (*out)[1] = fetch_value(k, key0, part, lane + LANES);
    }
    if (ITEMS > 2) {
        (*out)[2] = fetch_value(k, key0, part, lane + 2 * LANES);
        (*out)[3] = fetch_value(k, key0, part, lane + 3 * LANES);
    }
}

fn put_key(e: u32, chunk: Chunk) {
    if (e < BK * PART_D8) {
        var v = chunk_floats(chunk);
        let at = e / BK * 2 * BK + e % BK;
        kv_tile[at] = v[0];
        kv_tile[at + BK] = v[1];
    }
}

fn put_value(e: u32, chunk: Chunk) {
    if (e < 4 * PART_COLS * D8) {
        var v = chunk_floats(chunk);
        kv_tile[2 * e] = v[0];
        kv_tile[2 * e + 1] = v[1];
    }
}

fn put_keys(lane: u32, source: ptr<function, Ahead>) {
    put_key(lane, (*source)[0]);
    if (ITEMS > 1) {
        put_key(lane + LANES, (*source)[1]);
    }
    if (ITEMS > 2) {
        put_key(lane + 2 * LANES, (*source)[2]);
        put_key(lane + 3 * LANES, (*source)[3]);
    }
}

fn put_values(lane: u32, source: ptr<function, Ahead>) {
    put_value(lane, (*source)[0]);
    if (ITEMS > 1) {
        put_value(lane + LANES, (*source)[1]);
    }
    if (ITEMS > 2) {
        put_value(lane + 2 * LANES, (*source)[2]);
        put_value(lane + 3 * LANES, (*source)[3]);
    }
}

fn add(sum: vec4f, x: vec4f, f: Four) -> vec4f {
    return sum + x.x * f.a + x.y * f.b + x.z * f.c + x.w * f.d;
}

// Four keys of each of ROWS queries: vec4s [first, end) of the head, `first` being the tile's.
fn add_scores(s: ptr<function, Eight>, first: u32, end: u32, row: u32, col: u32) {
    for (var d = first; d < end; d++) {
        let at = (d - first) * BK + col;
        let a = kv_tile[at];
        let b = kv_tile[at + COLS];
        let c = kv_tile[at + 2 * COLS];
        let e = kv_tile[at + 3 * COLS];
        let f = Four(vec4f(a.x, b.x, c.x, e.x), vec4f(a.y, b.y, c.y, e.y),
                     vec4f(a.z, b.z, c.z, e.z), vec4f(a.w, b.w, c.w, e.w));
        let q_at = row * Q_PITCH + d;
        (*s)[0] = add((*s)[0], q_tile[q_at], f);
        (*s)[1] = add((*s)[1], q_tile[q_at + ROW_LANES * Q_PITCH], f);
        if (ROWS > 2) {
            (*s)[2] = add((*s)[2], q_tile[q_at + 2 * ROW_LANES * Q_PITCH], f);
            (*s)[3] = add((*s)[3], q_tile[q_at + 3 * ROW_LANES * Q_PITCH], f);
        }
        if (ROWS > 4) {
            (*s)[4] = add((*s)[4], q_tile[q_at + 4 * ROW_LANES * Q_PITCH], f);
            (*s)[5] = add((*s)[5], q_tile[q_at + 5 * ROW_LANES * Q_PITCH], f);
            (*s)[6] = add((*s)[6], q_tile[q_at + 6 * ROW_LANES * Q_PITCH], f);
            (*s)[7] = add((*s)[7], q_tile[q_at + 7 * ROW_LANES * Q_PITCH], f);
        }
    }
}

fn add_values(o: ptr<function, Eight>, part: u32, row: u32, col: u32) {
    for (var k = 0u; k < PART_COLS; k++) {
        let at = k * D4 + col;
        let f = Four(kv_tile[at], kv_tile[at + PART_COLS * D4], kv_tile[at + 2 * PART_COLS * D4],
                     kv_tile[at + 3 * PART_COLS * D4]);
        let p_at = row * P_PITCH + part * PART_COLS + k;
        (*o)[0] = add((*o)[0], p_tile[p_at], f);
        (*o)[1] = add((*o)[1], p_tile[p_at + OUT_LANES * P_PITCH], f);
        (*o)[2] = add((*o)[2], p_tile[p_at + 2 * OUT_LANES * P_PITCH], f);
        (*o)[3] = add((*o)[3], p_tile[p_at + 3 * OUT_LANES * P_PITCH], f);
        (*o)[4] = add((*o)[4], p_tile[p_at + 4 * OUT_LANES * P_PITCH], f);
        (*o)[5] = add((*o)[5], p_tile[p_at + 5 * OUT_LANES * P_PITCH], f);
        (*o)[6] = add((*o)[6], p_tile[p_at + 6 * OUT_LANES * P_PITCH], f);
        (*o)[7] = add((*o)[7], p_tile[p_at + 7 * OUT_LANES * P_PITCH], f);
    }
}

// Output rows times their factors.
fn scale_rows(o: ptr<function, Eight>, row: u32) {
    (*o)[0] *= factor[row];
    (*o)[1] *= factor[row + OUT_LANES];
    (*o)[2] *= factor[row + 2 * OUT_LANES];
    (*o)[3] *= factor[row + 3 * OUT_LANES];
    (*o)[4] *= factor[row + 4 * OUT_LANES];
    (*o)[5] *= factor[row + 5 * OUT_LANES];
    (*o)[6] *= factor[row + 6 * OUT_LANES];
    (*o)[7] *= factor[row + 7 * OUT_LANES];
}

fn put_output(o: ptr<function, Eight>, row: u32, col: u32) {
    let at = row * Q_PITCH + col;
    q_tile[at] = (*o)[0];
    q_tile[at + OUT_LANES * Q_PITCH] = (*o)[1];
    q_tile[at + 2 * OUT_LANES * Q_PITCH] = (*o)[2];
    q_tile[at + 3 * OUT_LANES * Q_PITCH] = (*o)[3];
    q_tile[at + 4 * OUT_LANES * Q_PITCH] = (*o)[4];
    q_tile[at + 5 * OUT_LANES * Q_PITCH] = (*o)[5];
    q_tile[at + 6 * OUT_LANES * Q_PITCH] = (*o)[6];
    q_tile[at + 7 * OUT_LANES * Q_PITCH] = (*o)[7];
}

// Scores of four keys from `key` on, COLS apart, capped; LOW where the query at `pos` sees none.
fn finish_scores(z: vec4f, edge: bool, key: u32, pos: u32) -> vec4f {
    let s = capped(z);
    if (edge) {
        return masked(s, key, pos);
    }
    return s;
}

// exp(s - m) to p_tile; their sum.
fn put_weights(s: vec4f, m: f32, at: u32) -> f32 {
    let p = select(vec4f(), exp(s - m), s > vec4f(LOW));
    p_tile[at] = p;
    return p.x + p.y + p.z + p.w;
}

fn put_factors(f: Rows, row: u32) {
    factor[row] = f.a.x;
    factor[row + ROW_LANES] = f.a.y;
    if (ROWS > 2) {
        factor[row + 2 * ROW_LANES] = f.a.z;
        factor[row + 3 * ROW_LANES] = f.a.w;
    }
    if (ROWS > 4) {
        factor[row + 4 * ROW_LANES] = f.b.x;
        factor[row + 5 * ROW_LANES] = f.b.y;
        factor[row + 6 * ROW_LANES] = f.b.z;
        factor[row + 7 * ROW_LANES] = f.b.w;
    }
}

fn row_factors(m: vec4f, l: vec4f, row: u32, head0: u32) -> vec4f {
    return vec4f(row_factor(m.x, l.x, head0 + row % HEADS),
                 row_factor(m.y, l.y, head0 + (row + ROW_LANES) % HEADS),
                 row_factor(m.z, l.z, head0 + (row + 2 * ROW_LANES) % HEADS),
                 row_factor(m.w, l.w, head0 + (row + 3 * ROW_LANES) % HEADS));
}

@compute @workgroup_size(LANES)
fn attend_prefill(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
                  @builtin(local_invocation_index) lane: u32) {
    let tile = tiles[groups.y - 1 - group.y]; // those that see most first
    let kv = group.x / CHUNKS;
    let first_head = group.x % CHUNKS * HEADS;
    let head0 = kv * GROUP + first_head;
    let n_heads = min(HEADS, GROUP - first_head);
    let k = Keys(tile.z, kv, tile.w + tile.y); // those of the last query
    var first = 0u;
    if (WINDOW > 0 && tile.w + 1 > WINDOW) {
        first = (tile.w + 1 - WINDOW) / BK * BK; // of the first query
    }
    let scores = lane < SCORE_LANES;
    let row = lane / COLS;
    let col = lane % COLS;
    let outputs = lane < D4 * OUT_LANES;
    let out_row = lane / D4;
    let out_col = lane % D4;

    for (var i = lane; i < BQ * D4; i += LANES) {
        let r = i / D4;
        let d = i % D4;
        var v = vec4f();
        if (r < tile.y * HEADS && r % HEADS < n_heads) {
            v = q[((tile.x + r / HEADS) * N_HEADS + head0 + r % HEADS) * D4 + d] * SCALE;
        }
        q_tile[r * Q_PITCH + d] = v;
    }
    var ahead: Ahead;
    fetch_keys(k, first, 0, lane, &ahead);
    var m = Rows(vec4f(LOW), vec4f(LOW));
    var l = Rows(vec4f(), vec4f()); // of the lane's own keys
    var o = Eight();

    for (var key0 = first; key0 < k.end; key0 += BK) {
        var s = Eight();
        for (var part = 0u; part < PARTS; part++) {
            put_keys(lane, &ahead);
            workgroupBarrier();
            if (part + 1 < PARTS) {
                fetch_keys(k, key0, part + 1, lane, &ahead);
            } else {
                fetch_values(k, key0, 0, lane, &ahead);
            }
            if (scores) {
                add_scores(&s, min(2 * PART_D8 * part, D4), min(2 * PART_D8 * (part + 1), D4), row,
                           col);
            }
            workgroupBarrier();
        }

        // Keys that some query does not see.
        let edge = key0 + BK > tile.w + 1 || (WINDOW > 0 && key0 + WINDOW < k.end);
        let key = key0 + col;
        var x = Rows(vec4f(LOW), vec4f(LOW));
        if (scores) {
            s[0] = finish_scores(s[0], edge, key, tile.w + row / HEADS);
            s[1] = finish_scores(s[1], edge, key, tile.w + (row + ROW_LANES) / HEADS);
            x.a.x = largest(s[0]);
            x.a.y = largest(s[1]);
            if (ROWS > 2) {
                s[2] = finish_scores(s[2], edge, key, tile.w + (row + 2 * ROW_LANES) / HEADS);
                s[3] = finish_scores(s[3], edge, key, tile.w + (row + 3 * ROW_LANES) / HEADS);
                x.a.z = largest(s[2]);
                x.a.w = largest(s[3]);
            }
            if (ROWS > 4) {
                s[4] = finish_scores(s[4], edge, key, tile.w + (row + 4 * ROW_LANES) / HEADS);
                s[5] = finish_scores(s[5], edge, key, tile.w + (row + 5 * ROW_LANES) / HEADS);
                s[6] = finish_scores(s[6], edge, key, tile.w + (row + 6 * ROW_LANES) / HEADS);
                s[7] = finish_scores(s[7], edge, key, tile.w + (row + 7 * ROW_LANES) / HEADS);
                x.b = vec4f(largest(s[4]), largest(s[5]), largest(s[6]), largest(s[7]));
            }
        }
        x = rows_max(x, lane);
        if (scores) {
            let was = m;
            m = Rows(max(m.a, x.a), max(m.b, x.b));
            let shrink = Rows(exp(was.a - m.a), exp(was.b - m.b));
            l = Rows(l.a * shrink.a, l.b * shrink.b);
            let at = row * P_PITCH + col;
            l.a.x += put_weights(s[0], m.a.x, at);
            l.a.y += put_weights(s[1], m.a.y, at + ROW_LANES * P_PITCH);
            if (ROWS > 2) {
                l.a.z += put_weights(s[2], m.a.z, at + 2 * ROW_LANES * P_PITCH);
                l.a.w += put_weights(s[3], m.a.w, at + 3 * ROW_LANES * P_PITCH);
            }
            if (ROWS > 4) {
                l.b.x += put_weights(s[4], m.b.x, at + 4 * ROW_LANES * P_PITCH);
                l.b.y += put_weights(s[5], m.b.y, at + 5 * ROW_LANES * P_PITCH);
                l.b.z += put_weights(s[6], m.b.z, at + 6 * ROW_LANES * P_PITCH);
                l.b.w += put_weights(s[7], m.b.w, at + 7 * ROW_LANES * P_PITCH);
            }
            if (col == 0) {
                put_factors(shrink, row);
            }
        }

        for (var part = 0u; part < PARTS; part++) {
            put_values(lane, &ahead);
            workgroupBarrier();
            if (part + 1 < PARTS) {
                fetch_values(k, key0, part + 1, lane, &ahead);
            } else {
                fetch_keys(k, key0 + BK, 0, lane, &ahead);
            }
            if (outputs) {
                if (part == 0) {
                    scale_rows(&o, out_row);
                }
                add_values(&o, part, out_row, out_col);
            }
            workgroupBarrier();
        }
    }

    l = rows_sum(l, lane);
    if (scores && col == 0) {
        put_factors(Rows(row_factors(m.a, l.a, row, head0),
                         row_factors(m.b, l.b, row + 4 * ROW_LANES, head0)), row);
    }
    workgroupBarrier();
    if (outputs) {
        scale_rows(&o, out_row);
        put_output(&o, out_row, out_col);
    }
    workgroupBarrier();
    // By way of workgroup memory: lanes beside each other write floats beside each other.
    for (var i = lane; i < BQ * HEAD_DIM; i += LANES) {
        let r = i / HEAD_DIM;
        let d = i % HEAD_DIM;
        if (r < tile.y * HEADS && r % HEADS < n_heads) {
            let at = (tile.x + r / HEADS) * N_HEADS + head0 + r % HEADS;
            y[at * HEAD_DIM + d] = q_tile[r * Q_PITCH + d / 4][d % 4];
        }
    }
}
