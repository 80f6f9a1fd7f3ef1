//! use reduce, act
//! with row_norm
// layer_ready: the input of a block behind a LayerNorm (Ba et al. 2016):
//   act[i, :] = (x[r, :] - m) / sqrt(mean((x[r, :] - m)^2) + EPS) * w + b, m = mean(x[r, :])
//   x [rows, DIM] f32    w, b [DIM] f32, no b unless BIAS    act [n, DIM] as the part says
//   r = i, or pick[i] if PICK: only the rows whose logits are wanted; DIM a multiple of 32
// One workgroup per output row, a lane to 16 columns. Bound by latency. Sums in f32.
override DIM: u32;
override EPS: f32;
override BIAS: bool;
override PICK: bool;
override WG: u32;
override TEAM: u32;

@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read> w: array<vec4f>;
@group(0) @binding(2) var<storage, read> b: array<vec4f>;
@group(0) @binding(3) var<storage, read> pick: array<u32>;

@compute @workgroup_size(WG)
fn layer_ready(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    var row = group.x;
    if (PICK) {
        row = pick[group.x];
    }
    let first = row * (DIM / 4);
    let mean = row_mean(first, lane);
    let scale = row_scale(first, mean, lane);
    for (var half = lane; half < DIM / 16; half += WG) {
        var v: array<vec4f, 4>;
        for (var c = 0u; c < 4; c++) {
            let i = half * 4 + c;
            v[c] = (x[first + i] - mean) * scale * w[i];
            if (BIAS) {
                v[c] += b[i];
            }
        }
        act_put(group.x, DIM / 32, half, v);
    }
}
