//! use weight, lanes, tile
//! with unit, product_tile, tile_lanes
// matmul: y[t, r] (+)= SCALE (W[r, :] . x[t, :] + b[r]), the matrix product of prefill.
//   W [rows, K]  any weight format, rows of whole blocks; K a multiple of 4
//   x [n, K] f32    b [rows] f32 if BIAS    y [n, stride] f32, columns [column, column + rows)
// A workgroup makes a tile of ROWS by TOKENS, a lane LANE_ROWS by LANE_TOKENS of it (fragment
// lanes). For every 32 columns the lanes decode the tile's rows of W, once, and bring x beside them
// into workgroup memory, and make STEPS steps over what is there (fragment tile). Bound by the
// multiplications, or by reading that memory. Accumulates in f32. EXPERTS and SPLIT:
// common/product_tile.
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
        for (var c = 0u; c < STEPS; c++) {
            lane_add(&sum, c, r, t);
        }
        workgroupBarrier();
    }
    lane_store(&sum, r, t, tile);
}
