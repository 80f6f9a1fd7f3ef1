// matmul_sum: y[t, r] (+)= SCALE (sum over z of part[z, t, r] + b[r]), the rest of a product whose
// columns were split over workgroups (SPLIT of matmul_q8 and matmul).
//   part [SPLITS, n_max, rows] f32, rows a multiple of 4    b [rows] f32 if BIAS
//   y [n, stride] f32, columns [column, column + rows)
// One lane per four rows: grid (ceil(rows / 4 / 64), n). Bound by memory.
override BIAS: bool;
override ADD: bool;
override SCALE: f32;
override SPLITS: u32;

const WG = 64u;

struct Params {
    rows: u32,
    stride: u32,
    column: u32,
    bias_first: u32,
    n_max: u32,
}

@group(0) @binding(1) var<storage, read> part: array<vec4f>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(1) @binding(0) var<uniform> p: Params;

fn put(row: u32, token: u32, sum: f32) {
    let at = token * p.stride + p.column + row;
    var s = sum;
    if (BIAS) {
        s += bias[p.bias_first + row];
    }
    s *= SCALE;
    if (ADD) {
        s += y[at];
    }
    y[at] = s;
}

@compute @workgroup_size(WG)
fn matmul_sum(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group.x * WG + lane;
    if (i >= p.rows / 4) {
        return;
    }
    var sum = vec4f();
    for (var z = 0u; z < SPLITS; z++) {
        sum += part[(z * p.n_max + group.y) * (p.rows / 4) + i];
    }
    put(4 * i, group.y, sum.x);
    put(4 * i + 1, group.y, sum.y);
    put(4 * i + 2, group.y, sum.z);
    put(4 * i + 3, group.y, sum.w);
}
