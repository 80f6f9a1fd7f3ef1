//! use kv, reduce
//! with turned, key_place
// rope: normalises queries and keys if NORM (RMSNorm of each head), turns them by their position
// and puts keys and values in the cache.
//   qkv [rows, (N_HEADS + 2 N_KV) * HEAD_DIM] f32: the projections of a row side by side
//   angles [context, ROPE_DIM / 2] (cos, sin)    q [rows, N_HEADS, 2 D8] vec4f
//   w f32: weights of the heads' norms, [HEAD_DIM] at p.wq and at p.wk
//   caches in chunks of 8 dimensions, D8 = ceil(HEAD_DIM / 8), the rest of the last one zero:
//   keys [page, N_KV] as common/key_place has them, values [page, N_KV, PAGE, D8]
//   Dimensions from ROPE_DIM on stay: all if it is 0, as in layers without RoPE.
// TEAM lanes to a head, a chunk each: grid (ceil((N_HEADS + 2 N_KV) TEAM / WG), rows). Bound by
// latency.
override N_HEADS: u32;
override N_KV: u32;
override HEAD_DIM: u32;
override ROPE_DIM: u32;
override NORM: bool;
override EPS: f32;
override PAGE: u32;   // tokens to a page of the cache
override TABLE: u32;  // pages of a sequence
override TEAM: u32;   // a power of two, at least D8
override WG: u32;     // a multiple of TEAM

override D8: u32 = (HEAD_DIM + 7) / 8;
override ROW: u32 = (N_HEADS + 2 * N_KV) * HEAD_DIM;
override PAIRS: u32 = max(ROPE_DIM / 2, 1);

struct Params {
    wq: u32,
    wk: u32,
}

@group(0) @binding(2) var<storage, read> qkv: array<f32>;
@group(0) @binding(3) var<storage, read> rows: array<vec4u>;
@group(0) @binding(4) var<storage, read> pages: array<u32>;
@group(0) @binding(5) var<storage, read> angles: array<vec2f>;
@group(0) @binding(6) var<storage, read> w: array<f32>;
@group(0) @binding(7) var<storage, read_write> q: array<vec4f>;
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(WG)
fn rope(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let head = group.x * (WG / TEAM) + lane / TEAM;
    let chunk = lane % TEAM;
    let base = group.y * ROW + head * HEAD_DIM;
    let is_query = head < N_HEADS;
    let is_value = head >= N_HEADS + N_KV;
    let used = head < N_HEADS + 2 * N_KV && chunk < D8;
    var factor = 1.0;
    if (NORM) {
        var sum = 0.0;
        if (used) {
            for (var d = chunk * 8; d < min(chunk * 8 + 8, HEAD_DIM); d++) {
                sum += qkv[base + d] * qkv[base + d];
            }
        }
        factor = inverseSqrt(team_sum(sum, lane) / f32(HEAD_DIM) + EPS);
    }
    if (!used) {
        return;
    }
    let row = rows[group.y];
    var v = array<vec4f, 2>();
    for (var i = 0u; i < 8; i++) {
        let d = chunk * 8 + i;
        if (d < HEAD_DIM) {
            if (is_value) {
                v[i / 4][i % 4] = qkv[base + d];
            } else {
                v[i / 4][i % 4] = turned(base, d, row.z, factor, select(p.wk, p.wq, is_query));
            }
        }
    }
    if (is_query) {
        let to = ((group.y * N_HEADS + head) * D8 + chunk) * 2;
        q[to] = v[0];
        q[to + 1] = v[1];
        return;
    }
    let kv = (head - N_HEADS) % N_KV;
    let at = (pages[row.y * TABLE + row.z / PAGE] * N_KV + kv) * D8 * PAGE;
    let c = chunk_of(v[0], v[1]);
    if (is_value) {
        value_put(at + row.z % PAGE * D8 + chunk, c);
    } else {
        key_put(at + key_place(row.z % PAGE, chunk), c);
    }
}
