//! use mma
//! with capped, key_place, score_rows
//! enable f16, subgroups, matrix
// attend_matrix: attend_prefill on matrix units, where subgroups multiply small matrices of half
// floats and add in f32: for heads of whole matrices, at most eight, and a cache of half floats.
//   q, tiles, softcap, sinks and y as in attend_prefill, keys and values as in rope
// A workgroup is one subgroup. It has a tile's queries of HEADS heads that share a key head: MMA
// rows, by a page of keys at a time. Matrices of keys and values come straight from the cache;
// scores go to the lanes, and exp(s - m) as half floats back, by way of workgroup memory. Matrices
// cannot be scaled by rows, so m stays what it was until a score is over it by SLACK; then all go
// through workgroup memory, which is rare after the first pages. Half floats have room for e^SLACK.
// What a page has behind the last key and in front of the window is read too; it is finite, and
// multiplied by 0.
// Grid (N_KV * ceil(GROUP / HEADS), tiles). Bound by latency.
override N_KV: u32;
override GROUP: u32; // query heads to a key head
override HEADS: u32; // of them in one workgroup, at most MMA
override HEAD_DIM: u32; // a multiple of MMA, at most 8 of them
override WINDOW: u32; // keys a query may see, itself included; 0: all
override SCALE: f32;
override SOFTCAP: f32;
override SINKS: bool;
override TABLE: u32;
override SUBGROUP: u32; // lanes, a multiple of MMA

const PAGE = 32u;
const LOW = -1e30;
const SLACK = 5.0; // e^5 = 148
const S_PITCH = PAGE + 4; // of rows: 16 bytes more, against bank conflicts
const P_PITCH = PAGE + 8;
const Q_PITCH = 8 * MMA + 8;
override D8: u32 = HEAD_DIM / 8;
override D4: u32 = HEAD_DIM / 4;
override SIDES: u32 = HEAD_DIM / MMA;
override N_HEADS: u32 = N_KV * GROUP;
override CHUNKS: u32 = (GROUP + HEADS - 1) / HEADS;
override COLS: u32 = SUBGROUP / MMA; // lanes to a row of scores
override VECS: u32 = PAGE / 4 / COLS; // vec4s of scores to a lane: 8, 4, 2 or 1

@group(0) @binding(0) var<storage, read> keys: array<f16>;
@group(0) @binding(1) var<storage, read> values: array<f16>;
@group(0) @binding(2) var<storage, read> q: array<vec4f>;
@group(0) @binding(3) var<storage, read> tiles: array<vec4u>;
@group(0) @binding(4) var<storage, read> pages: array<u32>;
@group(0) @binding(5) var<storage, read> sinks: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

alias left = subgroup_matrix_left<f16, MMA, MMA>;
alias right = subgroup_matrix_right<f16, MMA, MMA>;
alias result = subgroup_matrix_result<f32, MMA, MMA>;

// Sizes of arrays that matrices lie in are no overrides (tint), and all sizes are multiples of 16
// bytes: one variable may begin where another ends, and matrices begin at such multiples (NVIDIA).
var<workgroup> q_tile: array<f16, MMA * Q_PITCH>;
var<workgroup> s_tile: array<f32, MMA * S_PITCH>; // scores; results on their way
var<workgroup> p_tile: array<f16, MMA * P_PITCH>; // exp(scores - m)
var<workgroup> factor: array<f32, MMA>;           // exp(old m - new m), at the end 1 / l
var<workgroup> over_any: vec4u;                   // whether one of them is not 1

// Indexed by constants alone: an array that a variable indexes lies in memory.
alias Eight = array<vec4f, 8>;

// Read anew for every page: what registers they take, other workgroups have more use for.
fn query_at(i: u32) -> left {
    return subgroupMatrixLoad<left>(&q_tile, i * MMA, false, Q_PITCH);
}

// Keys i MMA .. of a page, dimensions d MMA ..
fn key_at(page: u32, i: u32, d: u32) -> right {
    let at = (page + key_place(i * MMA, d * (MMA / 8))) * 8;
    return subgroupMatrixLoad<right>(&keys, at, true, CHUNK_PAIR * 8);
}

fn value_at(page: u32, i: u32, d: u32) -> right {
    return subgroupMatrixLoad<right>(&values, (page + i * MMA * D8) * 8 + d * MMA, false, D8 * 8);
}

fn weight_at(i: u32) -> left {
    return subgroupMatrixLoad<left>(&p_tile, i * MMA, false, P_PITCH);
}

// Scores of a row that a lane has, COLS apart.
fn scores_at(at: u32) -> vec4f {
    return capped(vec4f(s_tile[at], s_tile[at + COLS], s_tile[at + 2 * COLS],
        s_tile[at + 3 * COLS]));
}

// exp(s - m) to p_tile; their sum.
fn put_weights(s: vec4f, m: f32, at: u32) -> f32 {
    let e = select(vec4f(), exp(s - m), s > vec4f(LOW));
    p_tile[at] = f16(e.x);
    p_tile[at + COLS] = f16(e.y);
    p_tile[at + 2 * COLS] = f16(e.z);
    p_tile[at + 3 * COLS] = f16(e.w);
    return e.x + e.y + e.z + e.w;
}

// Over the lanes of a row.
fn row_max(v: f32) -> f32 {
    var top = v;
    for (var step = COLS / 2; step > 0; step >>= 1) {
        top = max(top, subgroupShuffleXor(top, step));
    }
    return top;
}

fn row_sum(v: f32) -> f32 {
    var sum = v;
    for (var step = COLS / 2; step > 0; step >>= 1) {
        sum += subgroupShuffleXor(sum, step);
    }
    return sum;
}

// o with its rows times their factors.
fn scaled(o: result, lane: u32) -> result {
    subgroupMatrixStore(&s_tile, 0, o, false, S_PITCH);
    workgroupBarrier();
    for (var i = lane; i < MMA * MMA; i += SUBGROUP) {
        s_tile[i / MMA * S_PITCH + i % MMA] *= factor[i / MMA];
    }
    workgroupBarrier();
    let by = subgroupMatrixLoad<result>(&s_tile, 0, false, S_PITCH);
    workgroupBarrier();
    return by;
}

// What a workgroup makes.
struct Work {
    tile: vec4u,
    head0: u32,
    n_heads: u32,
}

// o times the rows' factors to dimensions d MMA .. of y.
fn put_output(o: result, d: u32, work: Work, lane: u32) {
    subgroupMatrixStore(&s_tile, 0, o, false, S_PITCH);
    workgroupBarrier();
    for (var i = lane; i < MMA * MMA; i += SUBGROUP) {
        let r = i / MMA;
        let h = r % HEADS;
        if (r < work.tile.y * HEADS && h < work.n_heads) {
            let row = (work.tile.x + r / HEADS) * N_HEADS + work.head0 + h;
            y[row * HEAD_DIM + d * MMA + i % MMA] = s_tile[r * S_PITCH + i % MMA] * factor[r];
        }
    }
    workgroupBarrier();
}

@compute @workgroup_size(SUBGROUP)
fn attend_matrix(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
                 @builtin(local_invocation_index) lane: u32) {
    let kv = group.x / CHUNKS;
    let first_head = group.x % CHUNKS * HEADS;
    let work = Work(tiles[groups.y - 1 - group.y], // those that see most first
        kv * GROUP + first_head, min(HEADS, GROUP - first_head));
    let tile = work.tile;
    let end = tile.w + tile.y; // one past the last query's key
    var first = 0u;
    if (WINDOW > 0 && tile.w + 1 > WINDOW) {
        first = (tile.w + 1 - WINDOW) / PAGE * PAGE; // of the first query
    }
    for (var i = lane; i < MMA * D4; i += SUBGROUP) {
        let r = i / D4;
        var v = vec4f();
        if (r < tile.y * HEADS && r % HEADS < work.n_heads) {
            v = q[((tile.x + r / HEADS) * N_HEADS + work.head0 + r % HEADS) * D4 + i % D4] * SCALE;
        }
        let h = vec4h(clamp(v, vec4f(-65504), vec4f(65504)));
        let at = r * Q_PITCH + i % D4 * 4;
        q_tile[at] = h.x;
        q_tile[at + 1] = h.y;
        q_tile[at + 2] = h.z;
        q_tile[at + 3] = h.w;
    }
    workgroupBarrier();
    var o0 = result();
    var o1 = result();
    var o2 = result();
    var o3 = result();
    var o4 = result();
    var o5 = result();
    var o6 = result();
    var o7 = result();
    let row = lane / COLS;
    let col = lane % COLS;
    let pos = tile.w + row / HEADS;
    var m = LOW;
    var l = 0.0; // of the lane's own keys

    for (var key0 = first; key0 < end; key0 += PAGE) {
        let page = (pages[tile.z * TABLE + key0 / PAGE] * N_KV + kv) * D8 * PAGE;
        for (var i = 0u; i < PAGE / MMA; i++) {
            var s = result();
            for (var d = 0u; d < SIDES; d++) {
                s = subgroupMatrixMultiplyAccumulate(query_at(d), key_at(page, i, d), s);
            }
            subgroupMatrixStore(&s_tile, i * MMA, s, false, S_PITCH);
        }
        workgroupBarrier();

        // Keys that some query does not see.
        let edge = key0 + PAGE > tile.w + 1 || (WINDOW > 0 && key0 + WINDOW < end);
        let at = row * S_PITCH + col;
        var s = Eight();
        s[0] = scores_at(at);
        if (VECS > 1) {
            s[1] = scores_at(at + 4 * COLS);
        }
        if (VECS > 2) {
            s[2] = scores_at(at + 8 * COLS);
            s[3] = scores_at(at + 12 * COLS);
        }
        if (VECS > 4) {
            s[4] = scores_at(at + 16 * COLS);
            s[5] = scores_at(at + 20 * COLS);
            s[6] = scores_at(at + 24 * COLS);
            s[7] = scores_at(at + 28 * COLS);
        }
        if (edge) {
            let j = key0 + col;
            s[0] = masked(s[0], j, pos);
            s[1] = masked(s[1], j + 4 * COLS, pos);
            s[2] = masked(s[2], j + 8 * COLS, pos);
            s[3] = masked(s[3], j + 12 * COLS, pos);
            s[4] = masked(s[4], j + 16 * COLS, pos);
            s[5] = masked(s[5], j + 20 * COLS, pos);
            s[6] = masked(s[6], j + 24 * COLS, pos);
            s[7] = masked(s[7], j + 28 * COLS, pos);
        }
        var top = largest(s[0]);
        if (VECS > 1) {
            top = max(top, largest(s[1]));
        }
        if (VECS > 2) {
            top = max(top, max(largest(s[2]), largest(s[3])));
        }
        if (VECS > 4) {
            top = max(top, max(max(largest(s[4]), largest(s[5])),
                max(largest(s[6]), largest(s[7]))));
        }
        top = row_max(top);
        // The first score of a row finds sums of 0, which need no factor.
        let over = m > LOW && top > m + SLACK;
        let shrink = select(1.0, exp(m - top), over);
        m = select(m, top, over || m == LOW);
        l *= shrink;
        if (col == 0) {
            factor[row] = shrink;
        }
        let some = subgroupAny(over);
        if (lane == 0) {
            over_any.x = u32(some);
        }
        let to = row * P_PITCH + col;
        l += put_weights(s[0], m, to);
        if (VECS > 1) {
            l += put_weights(s[1], m, to + 4 * COLS);
        }
        if (VECS > 2) {
            l += put_weights(s[2], m, to + 8 * COLS);
            l += put_weights(s[3], m, to + 12 * COLS);
        }
        if (VECS > 4) {
            l += put_weights(s[4], m, to + 16 * COLS);
            l += put_weights(s[5], m, to + 20 * COLS);
            l += put_weights(s[6], m, to + 24 * COLS);
            l += put_weights(s[7], m, to + 28 * COLS);
        }
        if (workgroupUniformLoad(&over_any).x != 0) { // and a barrier
            o0 = scaled(o0, lane);
            if (SIDES > 1) {
                o1 = scaled(o1, lane);
            }
            if (SIDES > 2) {
                o2 = scaled(o2, lane);
            }
            if (SIDES > 3) {
                o3 = scaled(o3, lane);
            }
            if (SIDES > 4) {
                o4 = scaled(o4, lane);
            }
            if (SIDES > 5) {
                o5 = scaled(o5, lane);
            }
            if (SIDES > 6) {
                o6 = scaled(o6, lane);
            }
            if (SIDES > 7) {
                o7 = scaled(o7, lane);
            }
        }
        for (var i = 0u; i < PAGE / MMA; i++) {
            let p = weight_at(i);
            o0 = subgroupMatrixMultiplyAccumulate(p, value_at(page, i, 0), o0);
            if (SIDES > 1) {
                o1 = subgroupMatrixMultiplyAccumulate(p, value_at(page, i, 1), o1);
            }
            if (SIDES > 2) {
                o2 = subgroupMatrixMultiplyAccumulate(p, value_at(page, i, 2), o2);
            }
            if (SIDES > 3) {
                o3 = subgroupMatrixMultiplyAccumulate(p, value_at(page, i, 3), o3);
            }
            if (SIDES > 4) {
                o4 = subgroupMatrixMultiplyAccumulate(p, value_at(page, i, 4), o4);
            }
            if (SIDES > 5) {
                o5 = subgroupMatrixMultiplyAccumulate(p, value_at(page, i, 5), o5);
            }
            if (SIDES > 6) {
                o6 = subgroupMatrixMultiplyAccumulate(p, value_at(page, i, 6), o6);
            }
            if (SIDES > 7) {
                o7 = subgroupMatrixMultiplyAccumulate(p, value_at(page, i, 7), o7);
            }
        }
    }

    l = row_sum(l);
    if (col == 0) {
        factor[row] = row_factor(m, l, work.head0 + row % HEADS);
    }
    workgroupBarrier();
    put_output(o0, 0, work, lane);
    if (SIDES > 1) {
        put_output(o1, 1, work, lane);
    }
    if (SIDES > 2) {
        put_output(o2, 2, work, lane);
    }
    if (SIDES > 3) {
        put_output(o3, 3, work, lane);
    }
    if (SIDES > 4) {
        put_output(o4, 4, work, lane);
    }
    if (SIDES > 5) {
        put_output(o5, 5, work, lane);
    }
    if (SIDES > 6) {
        put_output(o6, 6, work, lane);
    }
    if (SIDES > 7) {
        put_output(o7, 7, work, lane);
    }
}
