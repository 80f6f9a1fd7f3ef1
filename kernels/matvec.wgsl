//! use weight, reduce
// matvec: y[t, r] (+)= W[r, :] . x[t, :] + b[r] for a few rows t, the matrix product of decode,
// where one token of each sequence flows through.
//   W [rows, K]  any weight format; K a multiple of the format's block and of 4
//   x [n, K] f32    b [rows] f32 if BIAS    y [n, stride] f32, columns [column, column + rows)
// TEAM lanes per weight row; each lane decodes 32 weights at a time and multiplies them with up to
// TOKENS rows of x (at most 8). Bound by reading W: rows * K * bytes per weight. Accumulates in
// f32.
override K: u32;
override TOKENS: u32;
override BIAS: bool;
override ADD: bool; // y += instead of y =: the residual stream
override WG: u32;
override TEAM: u32;

struct Params {
    rows: u32,
    grid_x: u32, // workgroups in x: rows beyond the limit of one dimension go to y
    stride: u32, // of y, in elements
    column: u32,
    bias_first: u32, // the part's first row in the bias
    counted: u32, // which element of sizes is n
}

@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<uniform> sizes: vec4u;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(WG)
fn matvec(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = (group.y * p.grid_x + group.x) * (WG / TEAM) + lane / TEAM;
    let n = sizes[p.counted];
    var sum: array<f32, 8>;
    if (row < p.rows) {
        for (var unit = lane % TEAM; unit < (K + 31) / 32; unit += TEAM) {
            let v = weight_load(row, unit);
            for (var t = 0u; t < TOKENS; t++) {
                if (TOKENS == 1 || t < n) {
                    let first = t * (K / 4) + unit * 8;
                    var s = 0.0;
                    for (var i = 0u; i < 8; i++) {
                        if (K % 32 == 0 || unit * 32 + i * 4 < K) {
                            s += dot(v[i], x[first + i]);
                        }
                    }
                    sum[t] += s;
                }
            }
        }
    }
    for (var t = 0u; t < TOKENS; t++) {
        var s = team_sum(sum[t], lane);
        if (lane % TEAM == 0 && row < p.rows && t < n) {
            if (BIAS) {
                s += bias[p.bias_first + row];
            }
            let at = t * p.stride + p.column + row;
            if (ADD) {
                s += y[at];
            }
            y[at] = s;
        }
    }
}
