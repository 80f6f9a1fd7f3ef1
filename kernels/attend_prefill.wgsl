//! use kv
// attend_prefill: causal attention of many rows, y = softmax(q k^T SCALE) v, in tiles that keep
// keys and values in workgroup memory (FlashAttention-2, Dao 2023).
//   q [rows, N_KV * GROUP, 2 D8] vec4f    caches as in rope    y [rows, N_KV * GROUP, HEAD_DIM] f32
//   softcap and sinks as in attend_decode and attend_combine
//   tiles [n] (first row, rows, slot, position of the first row): consecutive positions of a
//   sequence
// One workgroup per tile and head: grid (N_KV * GROUP, tiles), 64 lanes, BQ queries by BK keys at a
// time; the tile of keys is followed by that of values in the same memory. Bound by the
// multiplications. f32.
override N_KV: u32;
override GROUP: u32;
override HEAD_DIM: u32;
override WINDOW: u32; // keys a query may see, itself included; 0: all
override SCALE: f32;
override SOFTCAP: f32;
override SINKS: bool;
override PAGE: u32;
override TABLE: u32;
override BQ: u32; // at most 16
override BK: u32;

const WG = 64u;
const LOW = -1e30;
override D4: u32 = (HEAD_DIM + 3) / 4;
override D8: u32 = (HEAD_DIM + 7) / 8;
override PITCH: u32 = D4 + 1; // vec4s to a tile row, one more against bank conflicts
override Q_SIZE: u32 = BQ * PITCH;
override KV_SIZE: u32 = BK * PITCH;
override S_SIZE: u32 = BQ * BK;
override ITEMS: u32 = (BQ * D4 + WG - 1) / WG; // output vec4s of a lane, at most 16

@group(0) @binding(2) var<storage, read> q: array<vec4f>;
@group(0) @binding(3) var<storage, read> tiles: array<vec4u>;
@group(0) @binding(4) var<storage, read> pages: array<u32>;
@group(0) @binding(5) var<storage, read> sinks: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

var<workgroup> q_tile: array<vec4f, Q_SIZE>;
var<workgroup> kv_tile: array<vec4f, KV_SIZE>;
var<workgroup> score: array<f32, S_SIZE>; // [query][key]
var<workgroup> top: array<f32, 16>;       // per query: m so far
var<workgroup> total: array<f32, 16>;     // l so far
var<workgroup> shrink: array<f32, 16>;    // exp(old m - new m)

// vec4 `d` of a key, of a value.
fn key_at(slot: u32, j: u32, kv: u32, d: u32) -> vec4f {
    let head = (pages[slot * TABLE + j / PAGE] * N_KV + kv) * D8 * PAGE;
    var v = chunk_floats(key_chunk(head + d / 2 * PAGE + j % PAGE));
    return v[d % 2];
}

fn value_at(slot: u32, j: u32, kv: u32, d: u32) -> vec4f {
    let head = (pages[slot * TABLE + j / PAGE] * N_KV + kv) * D8 * PAGE;
    var v = chunk_floats(value_chunk(head + j % PAGE * D8 + d / 2));
    return v[d % 2];
}

@compute @workgroup_size(WG)
fn attend_prefill(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let tile = tiles[group.y];
    let head = group.x;
    let kv = head / GROUP;
    let n_heads = N_KV * GROUP;
    let n_keys = tile.w + tile.y; // of the last query
    var first = 0u;
    if (WINDOW > 0 && tile.w + 1 > WINDOW) {
        first = (tile.w + 1 - WINDOW) / BK * BK; // of the first query
    }

    for (var i = lane; i < BQ * D4; i += WG) {
        let r = i / D4;
        var v = vec4f();
        if (r < tile.y) {
            v = q[((tile.x + r) * n_heads + head) * 2 * D8 + i % D4] * SCALE;
        }
        q_tile[r * PITCH + i % D4] = v;
    }
    if (lane < 16) {
        top[lane] = LOW;
        total[lane] = 0.0;
    }
    var acc: array<vec4f, 16>;

    for (var key0 = first; key0 < n_keys; key0 += BK) {
        workgroupBarrier();
        for (var i = lane; i < BK * D4; i += WG) {
            var v = vec4f();
            if (key0 + i / D4 < n_keys) {
                v = key_at(tile.z, key0 + i / D4, kv, i % D4);
            }
            kv_tile[(i / D4) * PITCH + i % D4] = v;
        }
        workgroupBarrier();
        for (var i = lane; i < S_SIZE; i += WG) {
            let r = i / BK;
            let j = i % BK;
            let pos = tile.w + r;
            var s = LOW;
            if (key0 + j <= pos && (WINDOW == 0 || key0 + j + WINDOW > pos)) {
                s = 0.0;
                for (var d = 0u; d < D4; d++) {
                    s += dot(q_tile[r * PITCH + d], kv_tile[j * PITCH + d]);
                }
                if (SOFTCAP > 0) {
                    s = SOFTCAP * tanh(clamp(s / SOFTCAP, -15.0, 15.0));
                }
            }
            score[i] = s;
        }
        workgroupBarrier();
        if (lane < BQ) {
            let was = top[lane];
            var m = was;
            for (var j = 0u; j < BK; j++) {
                m = max(m, score[lane * BK + j]);
            }
            var l = 0.0;
            for (var j = 0u; j < BK; j++) {
                let s = score[lane * BK + j];
                let e = select(0.0, exp(s - m), s > LOW);
                score[lane * BK + j] = e;
                l += e;
            }
            top[lane] = m;
            shrink[lane] = exp(was - m);
            total[lane] = total[lane] * shrink[lane] + l;
        }
        for (var i = lane; i < BK * D4; i += WG) { // scores are done with the keys
            var v = vec4f();
            if (key0 + i / D4 < n_keys) {
                v = value_at(tile.z, key0 + i / D4, kv, i % D4);
            }
            kv_tile[(i / D4) * PITCH + i % D4] = v;
        }
        workgroupBarrier();
        for (var a = 0u; a < ITEMS; a++) {
            let i = a * WG + lane;
            if (i < BQ * D4) {
                let r = i / D4;
                var sum = acc[a] * shrink[r];
                for (var j = 0u; j < BK; j++) {
                    sum += score[r * BK + j] * kv_tile[j * PITCH + i % D4];
                }
                acc[a] = sum;
            }
        }
    }

    for (var a = 0u; a < ITEMS; a++) {
        let i = a * WG + lane;
        let r = i / D4;
        if (i < BQ * D4 && r < tile.y) {
            var v = acc[a] / total[r];
            if (SINKS) {
                let m = max(top[r], sinks[head]);
                let e = exp(top[r] - m);
                v = acc[a] * e / (total[r] * e + exp(sinks[head] - m));
            }
            let at = ((tile.x + r) * n_heads + head) * HEAD_DIM + (i % D4) * 4;
            for (var c = 0u; c < 4; c++) {
                if ((i % D4) * 4 + c < HEAD_DIM) {
                    y[at + c] = v[c];
                }
            }
        }
    }
}
