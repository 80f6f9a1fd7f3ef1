//! use reduce
// norm: y[i, :] = x[r, :] / sqrt(mean(x[r, :]^2) + EPS) * w, RMSNorm (Zhang and Sennrich 2019).
//   x [rows, DIM] f32    w [DIM] f32    y [n, DIM] f32; DIM a multiple of 4
//   r = i, or pick[i] if PICK: only the rows whose logits are wanted
// One workgroup per output row. Bound by latency. Sums in f32.
override DIM: u32;
override EPS: f32;
override PICK: bool;
override WG: u32;
override TEAM: u32;

@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read> w: array<vec4f>;
@group(0) @binding(2) var<storage, read> pick: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4f>;

@compute @workgroup_size(WG)
fn norm(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    var row = group.x;
    if (PICK) {
        row = pick[group.x];
    }
    var sum = 0.0;
    for (var i = lane; i < DIM / 4; i += WG) {
        let v = x[row * (DIM / 4) + i];
        sum += dot(v, v);
    }
    let scale = inverseSqrt(workgroup_sum(sum, lane) / f32(DIM) + EPS);
    for (var i = lane; i < DIM / 4; i += WG) {
        y[group.x * (DIM / 4) + i] = x[row * (DIM / 4) + i] * scale * w[i];
    }
}
