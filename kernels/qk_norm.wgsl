//! use reduce
// qk_norm: RMSNorm of queries and keys before they are turned, in place,
//   z[:] = z[:] / sqrt(mean(z[:]^2) + EPS) * w, z a head, or if WHOLE all heads of q or of k
//   qkv [rows, (N_HEADS + 2 N_KV) * HEAD_DIM] f32: the projections of a row side by side
//   wq, wk f32: [HEAD_DIM], or [N_HEADS * HEAD_DIM] and [N_KV * HEAD_DIM] if WHOLE
// One workgroup per z: grid (N_HEADS + N_KV, rows), or (2, rows). Bound by latency. Sums in f32.
override N_HEADS: u32;
override N_KV: u32;
override HEAD_DIM: u32;
override EPS: f32;
override WHOLE: bool;
override WG: u32;
override TEAM: u32;

@group(0) @binding(0) var<storage, read> wq: array<f32>;
@group(0) @binding(1) var<storage, read> wk: array<f32>;
@group(0) @binding(2) var<storage, read_write> qkv: array<f32>;

@compute @workgroup_size(WG)
fn qk_norm(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    var size = HEAD_DIM;
    var first = group.x * HEAD_DIM;
    var is_key = group.x >= N_HEADS;
    if (WHOLE) {
        is_key = group.x == 1;
        first = select(0u, N_HEADS * HEAD_DIM, is_key);
        size = select(N_HEADS, N_KV, is_key) * HEAD_DIM;
    }
    let base = group.y * (N_HEADS + 2 * N_KV) * HEAD_DIM + first;
    var sum = 0.0;
    for (var i = lane; i < size; i += WG) {
        sum += qkv[base + i] * qkv[base + i];
    }
    let scale = inverseSqrt(workgroup_sum(sum, lane) / f32(size) + EPS);
    for (var i = lane; i < size; i += WG) {
        var w = 0.0;
        if (is_key) {
            w = wk[i];
        } else {
            w = wq[i];
        }
        qkv[base + i] *= scale * w;
    }
}
