//! use weight, reduce
//! with unit
// matvec: y[t, r] (+)= SCALE (W[r, :] . x[t, :] + b[r]) for a few rows t, the matrix product of
// decode, where one token of each sequence flows through.
//   W [rows, K]  any weight format, rows of whole blocks; K a multiple of 4
//   x [n, K] f32    b [rows] f32 if BIAS    y [n, stride] f32, columns [column, column + rows)
// TEAM lanes per weight row, WG / TEAM rows to a workgroup. Each lane decodes 32 weights at a time
// and multiplies them with up to TOKENS rows of x (at most 16). The 32 * TEAM columns that a step
// needs come through workgroup memory: read side by side, kept 9 vec4s apart per lane, so that
// neither the global nor the workgroup reads collide. Bound by reading W: rows * K * bytes per
// weight. Accumulates in f32.
// With EXPERTS, W is [slots, rows, K], b [experts, rows], and a workgroup in z has a pair (row, one
// of its experts): x has a row for X_PER pairs, y one for each; TOKENS is 1. The expert's slot is
// place[expert]; pairs whose slot is not among those bound are left to another dispatch.
override K: u32;
override TOKENS: u32;
override BIAS: bool;
override ADD: bool; // y += instead of y =: the residual stream
override SCALE: f32;
override EXPERTS: bool;
override X_PER: u32;
override WG: u32;
override TEAM: u32;

struct Params {
    rows: u32,
    grid_x: u32, // workgroups in x: rows beyond the limit of one dimension go to y
    stride: u32, // of y, in elements
    column: u32,
    bias_first: u32, // the part's first row in the bias
    counted: u32, // which element of sizes is n
    first_slot: u32, // of the part that is bound
    slots: u32,
}

@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<uniform> sizes: vec4u;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read> choice: array<vec2u>; // [pairs] (expert, weight)
@group(0) @binding(6) var<storage, read> place: array<u32>;    // [experts] slot
@group(1) @binding(0) var<uniform> p: Params;

override X_SIZE: u32 = TEAM * 9;
var<workgroup> x_tile: array<vec4f, X_SIZE>;

// Columns [first, first + 32 TEAM) of row t of x into x_tile, zero past K.
fn stage_x(t: u32, first: u32, lane: u32) {
    for (var i = lane; i < TEAM * 8; i += WG) {
        var v = vec4f();
        if (first / 4 + i < K / 4) {
            v = x[t * (K / 4) + first / 4 + i];
        }
        x_tile[(i / 8) * 9 + i % 8] = v;
    }
}

@compute @workgroup_size(WG)
fn matvec(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = (group.y * p.grid_x + group.x) * (WG / TEAM) + lane / TEAM;
    let member = lane % TEAM;
    let n = sizes[p.counted];
    var first_row = 0u; // of the expert in W
    var bias_row = p.bias_first + row;
    var x_row = 0u;
    var y_row = 0u;
    if (EXPERTS) {
        let expert = choice[group.z].x;
        let slot = place[expert];
        if (slot - p.first_slot >= p.slots) { // earlier slots wrap round
            return; // read-only and the same for all lanes: barriers stay uniform
        }
        first_row = (slot - p.first_slot) * p.rows;
        bias_row = expert * p.rows + row;
        x_row = group.z / X_PER;
        y_row = group.z;
    }
    var sum: array<f32, 16>;
    for (var first = 0u; first < K; first += 32 * TEAM) {
        var v = array<vec4f, 8>(); // naga zeroes a var without initialiser only once
        if (row < p.rows && first + member * 32 < K) {
            v = weight_load(first_row + row, first / 32 + member);
        }
        for (var t = 0u; t < TOKENS; t++) {
            if (TOKENS > 1 && t >= n) {
                break;
            }
            workgroupBarrier();
            stage_x(x_row + t, first, lane);
            workgroupBarrier();
            for (var i = 0u; i < 8; i++) {
                sum[t] += dot(v[i], x_tile[member * 9 + i]);
            }
        }
    }
    for (var t = 0u; t < TOKENS; t++) {
        var s = team_sum(sum[t], lane);
        if (member == 0 && row < p.rows && t < n) {
            if (BIAS) {
                s += bias[bias_row];
            }
            s *= SCALE;
            let at = (y_row + t) * p.stride + p.column + row;
            if (ADD) {
                s += y[at];
            }
            y[at] = s;
        }
    }
}
