//! use weight, reduce
//! with unit
// router: the logits of a token's experts, z[t, e] = W[e, :] . n + b[e], n = x[t, :] / sqrt(mean(
// x[t, :]^2) + EPS) * w, the RMSNorm in front of the experts (Zhang and Sennrich 2019).
//   W [experts, K]  any weight format    x [n, K] f32    w [K] f32    b [experts] f32 if BIAS
//   z [n, experts] f32; K a multiple of 32
// One workgroup to an expert and row, a lane to 32 columns: grid (experts, n). Bound by latency.
// Accumulates in f32.
override K: u32;
override N_EXPERTS: u32;
override EPS: f32;
override BIAS: bool;
override WG: u32;
override TEAM: u32;

@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read> w: array<vec4f>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> z: array<f32>;

@compute @workgroup_size(WG)
fn router(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    var squares = 0.0;
    var sum = 0.0;
    for (var unit = lane; unit < K / 32; unit += WG) {
        let weights = weight_load(group.x, unit);
        for (var c = 0u; c < 8; c++) {
            let v = x[group.y * (K / 4) + unit * 8 + c];
            squares += dot(v, v);
            sum += dot(weights[c], v * w[unit * 8 + c]);
        }
    }
    let scale = inverseSqrt(workgroup_sum(squares, lane) / f32(K) + EPS);
    let product = workgroup_sum(sum, lane);
    if (lane == 0) {
        var s = product * scale;
        if (BIAS) {
            s += bias[group.x];
        }
        z[group.y * N_EXPERTS + group.x] = s;
    }
}
