//! use kvout
// rope: turns queries and keys by their position (Su et al. 2021) and puts keys and values in the
// cache.
//   qkv [rows, (N_HEADS + 2 N_KV) * HEAD_DIM] f32: the projections of a row side by side
//   angles [context, ROPE_DIM / 2] (cos, sin)    q [rows, N_HEADS, D4] vec4f
//   caches [page, N_KV, PAGE, D4] vec4, D4 = ceil(HEAD_DIM / 4), the rest of the last one zero
//   (a, b) -> (a cos - b sin, b cos + a sin) for the pairs (i, i + ROPE_DIM / 2)
//   Dimensions from ROPE_DIM on stay: all if it is 0, as in layers without RoPE.
// One lane per vec4 of q, k and v. Bound by latency.
override N_HEADS: u32;
override N_KV: u32;
override HEAD_DIM: u32;
override ROPE_DIM: u32;
override PAGE: u32;   // tokens to a page of the cache
override TABLE: u32;  // pages of a sequence

const WG = 64u;
override D4: u32 = (HEAD_DIM + 3) / 4;
override ROW: u32 = (N_HEADS + 2 * N_KV) * HEAD_DIM;
override PAIRS: u32 = max(ROPE_DIM / 2, 1);

@group(0) @binding(2) var<storage, read> qkv: array<f32>;
@group(0) @binding(3) var<storage, read> angles: array<vec2f>;
@group(0) @binding(4) var<storage, read> rows: array<vec4u>;
@group(0) @binding(5) var<storage, read> pages: array<u32>;
@group(0) @binding(6) var<storage, read_write> q: array<vec4f>;

// Dimensions 4 d4 .. 4 d4 + 3 of the head that starts at `base`, turned.
fn turned(base: u32, d4: u32, pos: u32) -> vec4f {
    var v = vec4f();
    for (var c = 0u; c < 4; c++) {
        let d = d4 * 4 + c;
        if (d < ROPE_DIM) {
            let first = d < PAIRS;
            let other = select(d - PAIRS, d + PAIRS, first);
            let turn = angles[pos * PAIRS + d % PAIRS];
            v[c] = qkv[base + d] * turn.x + select(1.0, -1.0, first) * qkv[base + other] * turn.y;
        } else if (d < HEAD_DIM) {
            v[c] = qkv[base + d];
        }
    }
    return v;
}

@compute @workgroup_size(WG)
fn rope(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group.x * WG + lane;
    if (i >= (N_HEADS + 2 * N_KV) * D4) {
        return;
    }
    let row = rows[group.y];
    let head = i / D4;
    let d4 = i % D4;
    let base = group.y * ROW + head * HEAD_DIM;
    if (head < N_HEADS) {
        q[(group.y * N_HEADS + head) * D4 + d4] = turned(base, d4, row.z);
        return;
    }
    let kv = (head - N_HEADS) % N_KV;
    let page = pages[row.y * TABLE + row.z / PAGE];
    let at = ((page * N_KV + kv) * PAGE + row.z % PAGE) * D4 + d4;
    if (head < N_HEADS + N_KV) {
        key_put(at, turned(base, d4, row.z));
        return;
    }
    var v = vec4f();
    for (var c = 0u; c < 4; c++) {
        if (d4 * 4 + c < HEAD_DIM) {
            v[c] = qkv[base + d4 * 4 + c];
        }
    }
    value_put(at, v);
}
