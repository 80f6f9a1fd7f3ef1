//! use weight, lanes
//! with unit, product_tile, tile_lanes
// matmul_q8: y[t, r] (+)= SCALE (W[r, :] . x[t, :] + b[r]), the matrix product of prefill with x in
// signed bytes.
//   W [rows, K]  any quantised format    x [U, 3, pitch] vec4u as quantise.wgsl makes it
//   b [rows] f32 if BIAS    y [n, stride] f32, columns [column, column + rows)
// A workgroup makes a tile of ROWS by TOKENS, a lane LANE_ROWS by LANE_TOKENS of it (fragment
// lanes). For each STEP units of 32 columns the tile's weights are decoded once, to bytes, and
// brought into workgroup memory together with the bytes of x. Then per unit
//   sum += s (scale_0 i_0 + scale_1 i_1) - low_0 t_0 - low_1 t_1
// where i_h is the exact integer sum of byte products over half a unit, by dot4I8Packed; without
// HALVES scales and lows of the two halves are equal and i_0 + i_1 is one sum; without LOW low is
// 0.
// OFFSET is taken from each byte of W first, where low = OFFSET scale, which saves the low terms.
// Bound by the byte products. EXPERTS and SPLIT: common/product_tile.
override K: u32;
override BIAS: bool;
override ADD: bool; // y += instead of y =: the residual stream
override SCALE: f32;
override EXPERTS: bool;
override X_PER: u32;
override HALVES: bool;
override LOW: bool;
override PAIRS: u32; // 1 if HALVES and LOW, else 0
override OFFSET: u32;
override SPLIT: bool;
override STEP: u32;        // units at a time
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
    units: u32, // SPLIT: to a workgroup, a multiple of STEP
    n_max: u32, // SPLIT: rows of y between two of them
    pitch: u32, // rows of x between two planes
}

@group(0) @binding(1) var<storage, read> x: array<vec4u>;
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
// Tiles are [unit][half][row]: lanes beside each other read neighbours. 4 more vec4s keep the units
// of a step of W, which are written side by side, off each other's banks.
override W_PITCH: u32 = ROWS + 4;
override W_SIZE: u32 = STEP * 2 * W_PITCH;
override X_SIZE: u32 = STEP * 2 * TOKENS;
override W_SCALES: u32 = STEP * ROWS;
override X_SCALES: u32 = STEP * TOKENS;
override W_LOWS: u32 = 1 + PAIRS * W_SCALES;
override X_SUMS: u32 = 1 + PAIRS * X_SCALES;

var<workgroup> w_tile: array<vec4u, W_SIZE>;
var<workgroup> x_tile: array<vec4u, X_SIZE>;
var<workgroup> w_scale: array<vec2f, W_SCALES>; // of both halves if HALVES; scale, low
var<workgroup> x_scale: array<vec2f, X_SCALES>; // s, t0 + t1
var<workgroup> w_low: array<vec2f, W_LOWS>;     // PAIRS: of both halves
var<workgroup> x_sum: array<vec2f, X_SUMS>;     // PAIRS: t0, t1

// Bytes less OFFSET; they are below 128, so none borrows from the next.
fn centred(v: vec4u) -> vec4u {
    const TOP = vec4u(0x80808080);
    return ((v | TOP) - vec4u(OFFSET * 0x01010101)) ^ TOP;
}

fn stage_w(first_row: u32, row0: u32, unit0: u32, end: u32, lane: u32) {
    for (var i = lane; i < ROWS * STEP; i += LANES) {
        let row = i / STEP;
        let u = i % STEP;
        var v = Unit();
        if (row0 + row < p.rows && unit0 + u < end) {
            v = weight_unit(first_row + row0 + row, unit0 + u);
        }
        if (OFFSET > 0) {
            v.a = centred(v.a);
            v.b = centred(v.b);
        }
        let at = 2 * u * W_PITCH + row;
        w_tile[at] = v.a;
        w_tile[at + W_PITCH] = v.b;
        let s = u * ROWS + row;
        w_scale[s] = select(vec2f(v.scale.x, v.low.x), v.scale, HALVES);
        if (PAIRS == 1) {
            w_low[s] = v.low;
        }
    }
}

fn stage_x(token0: u32, unit0: u32, n: u32, end: u32, lane: u32) {
    for (var i = lane; i < TOKENS * STEP; i += LANES) {
        let token = i % TOKENS;
        let u = i / TOKENS;
        var a = vec4u();
        var b = vec4u();
        var s = vec4f();
        if (token0 + token < n && unit0 + u < end) {
            let first = (unit0 + u) * 3 * p.pitch + y_row(token0 + token) / X_PER;
            a = x[first];
            b = x[first + p.pitch];
            s = bitcast<vec4f>(x[first + 2 * p.pitch]);
        }
        x_tile[2 * u * TOKENS + token] = a;
        x_tile[(2 * u + 1) * TOKENS + token] = b;
        x_scale[i] = vec2f(s.x, s.y + s.w);
        if (PAIRS == 1) {
            x_sum[i] = s.yw;
        }
    }
}

// Rows r, r + ROW_LANES, ... of a unit; scale_b is the lows without HALVES.
struct Quad {
    a0: vec4u,
    a1: vec4u,
    a2: vec4u,
    a3: vec4u,
    b0: vec4u,
    b1: vec4u,
    b2: vec4u,
    b3: vec4u,
    scale_a: vec4f,
    scale_b: vec4f,
    low_a: vec4f,
    low_b: vec4f,
}

// Of unit u of the step.
fn quad_load(u: u32, r: u32) -> Quad {
    let a = 2 * u * W_PITCH + r;
    let b = a + W_PITCH;
    let at = u * ROWS + r;
    let s0 = w_scale[at];
    let s1 = w_scale[at + ROW_LANES];
    let s2 = w_scale[at + 2 * ROW_LANES];
    let s3 = w_scale[at + 3 * ROW_LANES];
    var w = Quad(w_tile[a], w_tile[a + ROW_LANES], w_tile[a + 2 * ROW_LANES],
                 w_tile[a + 3 * ROW_LANES], w_tile[b], w_tile[b + ROW_LANES],
                 w_tile[b + 2 * ROW_LANES], w_tile[b + 3 * ROW_LANES],
                 vec4f(s0.x, s1.x, s2.x, s3.x), vec4f(s0.y, s1.y, s2.y, s3.y), vec4f(), vec4f());
    if (PAIRS == 1) {
        let l0 = w_low[at];
        let l1 = w_low[at + ROW_LANES];
        let l2 = w_low[at + 2 * ROW_LANES];
        let l3 = w_low[at + 3 * ROW_LANES];
        w.low_a = vec4f(l0.x, l1.x, l2.x, l3.x);
        w.low_b = vec4f(l0.y, l1.y, l2.y, l3.y);
    }
    return w;
}

// A unit of a token.
struct Column {
    a: vec4u,
    b: vec4u,
    s: vec2f,
    sums: vec2f,
}

fn column_load(u: u32, t: u32) -> Column {
    let a = 2 * u * TOKENS + t;
    let at = u * TOKENS + t;
    var c = Column(x_tile[a], x_tile[a + TOKENS], x_scale[at], vec2f());
    if (PAIRS == 1) {
        c.sums = x_sum[at];
    }
    return c;
}

fn dot16(v: vec4u, w: vec4u, sum: i32) -> i32 {
    return dot4I8Packed(v.w, w.w) + (dot4I8Packed(v.z, w.z) + (dot4I8Packed(v.y, w.y) +
           (dot4I8Packed(v.x, w.x) + sum)));
}

// A sum of bytes is below 2^20. Begun at the bits of 1.5 2^23 it is the last bits of a float.
const START = select(0i, 0x4b400000i, MAGIC);
const MAGIC = true;

fn floats(i: vec4i) -> vec4f {
    if (MAGIC) {
        return bitcast<vec4f>(i) - vec4f(12582912.0);
    }
    return vec4f(i);
}

// sum and what a unit adds for the four rows and a token of the tile.
fn quad_add(sum: vec4f, w: Quad, c: Column) -> vec4f {
    let i = vec4i(dot16(w.a0, c.a, START), dot16(w.a1, c.a, START), dot16(w.a2, c.a, START),
                  dot16(w.a3, c.a, START));
    if (HALVES) {
        let k = vec4i(dot16(w.b0, c.b, START), dot16(w.b1, c.b, START), dot16(w.b2, c.b, START),
                      dot16(w.b3, c.b, START));
        let part = sum + c.s.x * (w.scale_a * floats(i) + w.scale_b * floats(k));
        if (LOW) {
            return part - (w.low_a * c.sums.x + w.low_b * c.sums.y);
        }
        return part;
    }
    let k = vec4i(dot16(w.b0, c.b, i.x), dot16(w.b1, c.b, i.y), dot16(w.b2, c.b, i.z),
                  dot16(w.b3, c.b, i.w));
    let part = sum + (w.scale_a * c.s.x) * floats(k);
    if (LOW) {
        return part - w.scale_b * c.s.y;
    }
    return part;
}

@compute @workgroup_size(LANES)
fn matmul_q8(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let tile = tile_of(group);
    if (tile.token0 >= tile.n) {
        return;
    }
    let r = lane_row(lane);
    let t = lane_token(lane);
    var unit = tile.unit;
    let end = tile.end;
    var sum = Sums();
    for (; unit < end; unit += STEP) {
        stage_w(tile.first_row, tile.row0, unit, end, lane);
        stage_x(tile.token0, unit, tile.n, end, lane);
        workgroupBarrier();
        for (var u = 0u; u < STEP; u++) {
            lane_add(&sum, u, r, t);
        }
        workgroupBarrier();
    }
    lane_store(&sum, r, t, tile);
}
