//! use weight, lanes
//! with unit, product_tile, tile_lanes
// matmul: y[t, r] (+)= SCALE (W[r, :] . x[t, :] + b[r]), the matrix product of prefill.
//   W [rows, K]  any weight format, rows of whole blocks; K a multiple of 4
//   x [n, K] f32    b [rows] f32 if BIAS    y [n, stride] f32, columns [column, column + rows)
// A workgroup makes a tile of ROWS by TOKENS, a lane LANE_ROWS by LANE_TOKENS of it (fragment
// lanes). For every 32 columns the lanes decode the tile's rows of W, once, and bring x beside them
// into workgroup memory. Bound by the multiplications, or by reading that memory. Accumulates in
// f32. EXPERTS and SPLIT: common/product_tile.
override K: u32;
override BIAS: bool;
override ADD: bool; // y += instead of y =: the residual stream
override SCALE: f32;
override EXPERTS: bool;
override X_PER: u32;
override SPLIT: bool;
override ROW_LANES: u32;   // lanes beside each other, a multiple of 8
override TOKEN_LANES: u32; // a multiple of 4

struct Params {
    rows: u32,
    stride: u32, // of y, in elements
    column: u32,
    bias_first: u32, // the part's first row in the bias
    counted: u32, // which element of sizes is n
    first_slot: u32, // of the part that is bound
    slots: u32,
    units: u32, // SPLIT: of 32 columns to a workgroup
    n_max: u32, // SPLIT: rows of y between two of them
}

@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<uniform> sizes: vec4u;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read> order: array<u32>;          // [pairs]
@group(0) @binding(6) var<storage, read> expert_tiles: array<vec4u>; // (expert, first, pairs, 0)
@group(0) @binding(7) var<storage, read> place: array<u32>;          // [experts] slot
@group(1) @binding(0) var<uniform> p: Params;

override UNITS: u32 = (K + 31) / 32;
override LANES: u32 = ROW_LANES * TOKEN_LANES;
override ROWS: u32 = ROW_LANES * LANE_ROWS;
override TOKENS: u32 = TOKEN_LANES * LANE_TOKENS;
// Tiles are [4 columns][row]: lanes beside each other read neighbours. One more vec4 keeps the
// columns of a token, which are written side by side, off each other's banks.
override W_PITCH: u32 = ROWS + 1;
override X_PITCH: u32 = TOKENS + 1;
override W_SIZE: u32 = 8 * W_PITCH;
override X_SIZE: u32 = 8 * X_PITCH;

var<workgroup> w_tile: array<vec4f, W_SIZE>;
var<workgroup> x_tile: array<vec4f, X_SIZE>;

fn stage_w(tile: Tile, unit: u32, lane: u32) {
    for (var i = lane; i < ROWS; i += LANES) {
        var v = array<vec4f, 8>();
        if (tile.row0 + i < p.rows) {
            v = weight_load(tile.first_row + tile.row0 + i, unit);
        }
        for (var c = 0u; c < 8; c++) {
            w_tile[c * W_PITCH + i] = v[c];
        }
    }
}

// The lanes that have rows of W to decode come last.
fn stage_x(tile: Tile, unit: u32, lane: u32) {
    for (var i = LANES - 1 - lane; i < TOKENS * 8; i += LANES) {
        let t = i / 8;
        let c = i % 8;
        var v = vec4f();
        if (tile.token0 + t < tile.n && (K % 32 == 0 || unit * 32 + c * 4 < K)) {
            v = x[y_row(tile.token0 + t) / X_PER * (K / 4) + unit * 8 + c];
        }
        x_tile[c * X_PITCH + t] = v;
    }
}

// Four columns of rows r, r + ROW_LANES, ...
struct Quad {
    a: vec4f,
    b: vec4f,
    c: vec4f,
    d: vec4f,
}
alias Column = vec4f;

fn quad_load(c: u32, r: u32) -> Quad {
    let at = c * W_PITCH + r;
    return Quad(w_tile[at], w_tile[at + ROW_LANES], w_tile[at + 2 * ROW_LANES],
                w_tile[at + 3 * ROW_LANES]);
}

fn column_load(c: u32, t: u32) -> Column {
    return x_tile[c * X_PITCH + t];
}

fn quad_add(sum: vec4f, w: Quad, x: Column) -> vec4f {
    return sum + vec4f(dot(x, w.a), dot(x, w.b), dot(x, w.c), dot(x, w.d));
}

@compute @workgroup_size(LANES)
fn matmul(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let tile = tile_of(group);
    if (tile.token0 >= tile.n) {
        return;
    }
    let r = lane_row(lane);
    let t = lane_token(lane);
    var sum = Sums();
    for (var unit = tile.unit; unit < tile.end; unit++) {
        stage_w(tile, unit, lane);
        stage_x(tile, unit, lane);
        workgroupBarrier();
        for (var c = 0u; c < 8; c++) {
            lane_add(&sum, c, r, t);
        }
        workgroupBarrier();
    }
    lane_store(&sum, r, t, tile);
}
