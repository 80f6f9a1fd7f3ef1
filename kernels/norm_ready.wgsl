//! use reduce, act
//! with block_input
// norm_ready: the end of a block behind which a norm stands, and the input of the next:
//   x[r, :] += y[r, :] / sqrt(mean(y[r, :]^2) + EPS) * post (RMSNorm, Zhang and Sennrich 2019)
//   y [rows, DIM] f32: what the block's product makes    post [DIM] f32    x [rows, DIM] f32
//   w [DIM] f32 if WEIGHTED    squares [rows, DIM / 16] f32    act [rows, DIM], as in ready; DIM a
//   multiple of 32
// One workgroup per row, a lane to 16 columns. Bound by latency. Sums in f32.
override DIM: u32;
override EPS: f32;
override WEIGHTED: bool;
override WG: u32;
override TEAM: u32;

@group(0) @binding(0) var<storage, read> y: array<vec4f>;
@group(0) @binding(1) var<storage, read> post: array<vec4f>;
@group(0) @binding(2) var<storage, read> w: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> squares: array<f32>;
@group(0) @binding(4) var<storage, read_write> x: array<vec4f>;

@compute @workgroup_size(WG)
fn norm_ready(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let first = group.x * (DIM / 4);
    var sum = 0.0;
    for (var i = lane; i < DIM / 4; i += WG) {
        sum += dot(y[first + i], y[first + i]);
    }
    let scale = inverseSqrt(workgroup_sum(sum, lane) / f32(DIM) + EPS);
    for (var half = lane; half < DIM / 16; half += WG) {
        var v: array<vec4f, 4>;
        for (var c = 0u; c < 4; c++) {
            let i = half * 4 + c;
            v[c] = y[first + i] * scale * post[i] + x[first + i];
            x[first + i] = v[c];
        }
        put_input(group.x, DIM, half, v);
    }
}
