//! use reduce
//! with row_norm
// norm: y[i, :] (+)= (x[r, :] - m) / sqrt(mean((x[r, :] - m)^2) + EPS) * w + b
//   RMSNorm (Zhang and Sennrich 2019): m = 0, no b
//   if LAYER LayerNorm (Ba et al. 2016): m = mean(x[r, :])
//   x [rows, DIM] f32    w, b [DIM] f32    y [n, DIM] f32; DIM a multiple of 4
//   r = i, or pick[i] if PICK: only the rows whose logits are wanted
// One workgroup per output row. Bound by latency. Sums in f32.
override DIM: u32;
override EPS: f32;
override LAYER: bool;
override ADD: bool; // y += instead of y =: a norm behind a block, into the residual stream
override PICK: bool;
override WG: u32;
override TEAM: u32;

@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read> w: array<vec4f>;
@group(0) @binding(2) var<storage, read> b: array<vec4f>;
@group(0) @binding(3) var<storage, read> pick: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4f>;

@compute @workgroup_size(WG)
fn norm(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    var row = group.x;
    if (PICK) {
        row = pick[group.x];
    }
    let first = row * (DIM / 4);
    var mean = 0.0;
    if (LAYER) {
        mean = row_mean(first, lane);
    }
    let scale = row_scale(first, mean, lane);
    for (var i = lane; i < DIM / 4; i += WG) {
        var v = (x[first + i] - mean) * scale * w[i];
        if (LAYER) {
            v += b[i];
        }
        let at = group.x * (DIM / 4) + i;
        if (ADD) {
            v += y[at];
        }
        y[at] = v;
    }
}
