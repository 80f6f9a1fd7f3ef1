//! use weight, weight as other, inputs, reduce
//! with unit, products, scaled
// project: y[t, r] = SCALE (W[r, :] . x[t, :] + b[r]) for the few rows of a decoding pass.
//   W [M, K]  any weight format; if TWO rows from OTHER_FIRST on are those of a second matrix
//   x [n, K]  as the part `inputs` says; x * w of an RMSNorm if NORMED, whose scale comes here:
//   squares [n, K / 16] f32  sums of squares of the normed vector's columns
//   b [M] f32 if BIAS    y [n, STRIDE] f32, columns [COLUMN, COLUMN + M)
//   K a multiple of 32
// GROUP_ROWS rows to a workgroup (products). Bound by reading W. Accumulates in f32.
override M: u32; // rows of W
override K: u32;
override TOKENS: u32; // 1, 8 or 16
override ROWS: u32;
override SPLIT: u32;
override AHEAD: u32;
override WG: u32;
override TEAM: u32;
override SETS: u32;
override TURNS: u32;
override SHARED: bool;
override NORMED: bool;
override EPS: f32;
override BIAS: bool;
override TWO: bool;
override OTHER_FIRST: u32;
override SCALE: f32;
override STRIDE: u32; // of y, in elements
override COLUMN: u32;
override GRID_X: u32;  // workgroups in x: rows beyond the limit of one dimension go to y
override COUNTED: u32; // which element of sizes is n

@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<uniform> sizes: vec4u;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read> squares: array<f32>;

@compute @workgroup_size(WG)
fn project(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let first = (group.y * GRID_X + group.x) * GROUP_ROWS;
    var n = 1u;
    if (TOKENS > 1) {
        n = sizes[COUNTED];
    }
    let share = squares_share(0, n, lane);
    products(first + team_row(lane), ROWS, 0, M - 1, n, lane);
    find_scales(share, n, lane);
    workgroupBarrier();
    for (var i = lane; i < PRODUCTS; i += WG) {
        let t = i / GROUP_ROWS;
        let row = first + i % GROUP_ROWS;
        if (t < n && row < M) {
            var s = product_at(t, i % GROUP_ROWS) * input_scale[t];
            if (BIAS) {
                s += bias[row];
            }
            y[t * STRIDE + COLUMN + row] = SCALE * s;
        }
    }
}
