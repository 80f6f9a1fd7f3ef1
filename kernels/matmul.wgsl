//! use weight
// matmul: y[t, r] (+)= SCALE (W[r, :] . x[t, :] + b[r]), the matrix product of prefill.
//   W [rows, K]  any weight format, rows of whole blocks; K a multiple of 4
//   x [n, K] f32    b [rows] f32 if BIAS    y [n, stride] f32, columns [column, column + rows)
// One workgroup makes a tile of 32 tokens by 64 rows; its 128 lanes have 4 by 4 each. For every 32
// columns half of the lanes decode one row of weights each, the other half copy x. Bound by the
// multiplications. Accumulates in f32.
// With EXPERTS, W is [slots, rows, K], b [experts, rows], and the tokens of a tile are pairs (row,
// one of its experts) of the same expert, as expert_group made them: x has a row for X_PER pairs, y
// one for each. The expert's slot is place[expert]; tiles whose slot is not among those bound are
// left to another dispatch.
override K: u32;
override BIAS: bool;
override ADD: bool; // y += instead of y =: the residual stream
override SCALE: f32;
override EXPERTS: bool;
override X_PER: u32;

const TOKENS = 32u;
const ROWS = 64u;
const PITCH = 9u; // vec4s to a tile row: 8 and one more against bank conflicts

struct Params {
    rows: u32,
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
@group(0) @binding(5) var<storage, read> order: array<u32>;          // [pairs]
@group(0) @binding(6) var<storage, read> expert_tiles: array<vec4u>; // (expert, first, pairs, 0)
@group(0) @binding(7) var<storage, read> place: array<u32>;          // [experts] slot
@group(1) @binding(0) var<uniform> p: Params;

var<workgroup> w_tile: array<vec4f, 576>; // ROWS * PITCH
var<workgroup> x_tile: array<vec4f, 288>; // TOKENS * PITCH

// The row of y that token t has.
fn y_row(t: u32) -> u32 {
    if (EXPERTS) {
        return order[t];
    }
    return t;
}

// Lane 0..63 of the loaders: 32 tokens by 2 halves of 32 columns. Zero for tokens from n on.
fn load_x(token0: u32, unit: u32, lane: u32, n: u32) {
    let t = lane / 2;
    var x_row = 0u;
    if (token0 + t < n) {
        x_row = y_row(token0 + t) / X_PER;
    }
    for (var i = 0u; i < 4; i++) {
        let c = (lane & 1) * 4 + i;
        var v = vec4f();
        if (token0 + t < n && (K % 32 == 0 || unit * 32 + c * 4 < K)) {
            v = x[x_row * (K / 4) + unit * 8 + c];
        }
        x_tile[t * PITCH + c] = v;
    }
}

fn load_w(first_row: u32, row: u32, unit: u32, lane: u32) {
    var v = array<vec4f, 8>();
    if (row < p.rows) {
        v = weight_load(first_row + row, unit);
    }
    for (var i = 0u; i < 8; i++) {
        w_tile[lane * PITCH + i] = v[i];
    }
}

@compute @workgroup_size(128)
fn matmul(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row0 = group.x * ROWS;
    var token0 = group.y * TOKENS;
    var n = sizes[p.counted];
    var first_row = 0u; // of the expert in W
    var bias_row = p.bias_first;
    if (EXPERTS) {
        let tile = expert_tiles[group.y];
        let slot = place[tile.x];
        if (tile.z == 0 || slot - p.first_slot >= p.slots) { // earlier slots wrap round
            return; // read-only and the same for all lanes: barriers stay uniform
        }
        token0 = tile.y;
        n = tile.y + tile.z;
        first_row = (slot - p.first_slot) * p.rows;
        bias_row = tile.x * p.rows;
    }
    let r = lane % 16; // rows row0 + r + 16 j
    let t = (lane / 16) * 4; // tokens token0 + t + i
    var sum: array<vec4f, 4>; // [i][j]
    for (var unit = 0u; unit < (K + 31) / 32; unit++) {
        if (lane < ROWS) {
            load_w(first_row, row0 + lane, unit, lane);
        } else {
            load_x(token0, unit, lane - ROWS, n);
        }
        workgroupBarrier();
        for (var c = 0u; c < 8; c++) {
            let a = w_tile[r * PITCH + c];
            let b = w_tile[(r + 16) * PITCH + c];
            let d = w_tile[(r + 32) * PITCH + c];
            let e = w_tile[(r + 48) * PITCH + c];
            for (var i = 0u; i < 4; i++) {
                let v = x_tile[(t + i) * PITCH + c];
                sum[i] += vec4f(dot(v, a), dot(v, b), dot(v, d), dot(v, e));
            }
        }
        workgroupBarrier();
    }
    for (var i = 0u; i < 4; i++) {
        let token = token0 + t + i;
        if (token >= n) {
            break;
        }
        let first = y_row(token) * p.stride + p.column;
        for (var j = 0u; j < 4; j++) {
            let row = row0 + r + 16 * j;
            if (row < p.rows) {
                var s = sum[i][j];
                if (BIAS) {
                    s += bias[bias_row + row];
                }
                s *= SCALE;
                if (ADD) {
                    s += y[first + row];
                }
                y[first + row] = s;
            }
        }
    }
}
