//! use weight, reduce
//! with unit, floats, product_tile
// matmul_rows: y[t, r] (+)= SCALE (W[r, :] . x[t, :] + b[r]), matmul for software GPUs, whose lanes
// pay for every read of their own and for barriers, and gain nothing by workgroup memory.
//   operands as in matmul
// A workgroup makes a tile of WG rows by TOKENS, a lane a row of W for eight tokens (or four) at a
// time: a unit of W is decoded once for them, and of x eight lanes of a subgroup read a unit for
// all of its lanes, of which there are at least eight. Bound by the multiplications. Accumulates
// in f32. EXPERTS: common/product_tile.
override K: u32;
override BIAS: bool;
override ADD: bool; // y += instead of y =: the residual stream
override SCALE: f32;
override EXPERTS: bool;
override X_PER: u32;
override TOKENS: u32; // a multiple of 8
override EIGHT: bool; // tokens at a time, else four
override WG: u32;
override TEAM: u32; // of reduce

const SPLIT = false;
override ROWS: u32 = WG;

struct Params {
    rows: u32,
    stride: u32, // of y, in elements
    column: u32,
    bias_first: u32, // the part's first row in the bias
    counted: u32, // which element of sizes is n
    first_slot: u32, // of the part that is bound
    slots: u32,
    units: u32,
    n_max: u32,
}

@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<uniform> sizes: vec4u;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read> order: array<u32>;          // [pairs]
@group(0) @binding(6) var<storage, read> expert_tiles: array<vec4u>; // (expert, first, pairs, 0)
@group(0) @binding(7) var<storage, read> place: array<u32>;          // [experts] slot
@group(1) @binding(0) var<uniform> p: Params;

override AT_ONCE: u32 = select(4u, 8u, EIGHT);
override UNITS: u32 = (K + 31) / 32;
override REST: u32 = K % 32 / 4; // vec4s of the last unit if it is no whole one

// A unit of W with one of x, of which lane `me` of eight reads a piece.
fn unit_dot(w: array<vec4f, 8>, at: u32, me: u32) -> f32 {
    return multiply(w, shared_input(x[at + me]));
}

// The columns behind the last whole unit.
fn rest_dot(w: array<vec4f, 8>, at: u32) -> f32 {
    var v = w;
    var sum = 0.0;
    for (var c = 0u; c < REST; c++) {
        sum += dot(v[c], x[at + c]);
    }
    return sum;
}

// Where x of a token begins.
fn x_row(t: u32) -> u32 {
    return y_row(t) / X_PER * (K / 4);
}

// Tokens t .. t + 3 as far as they are there.
fn put_four(row: u32, t: u32, end: u32, tile: Tile, sums: vec4f) {
    if (t < end) {
        put(row, t, tile, sums.x);
    }
    if (t + 1 < end) {
        put(row, t + 1, tile, sums.y);
    }
    if (t + 2 < end) {
        put(row, t + 2, tile, sums.z);
    }
    if (t + 3 < end) {
        put(row, t + 3, tile, sums.w);
    }
}

@compute @workgroup_size(WG)
fn matmul_rows(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let me = lane % 8;
    let tile = tile_of(group);
    let row = tile.row0 + lane;
    let w_row = tile.first_row + min(row, p.rows - 1);
    let end = min(tile.n, tile.token0 + TOKENS);
    let last = end - 1;
    for (var t = tile.token0; t < end; t += AT_ONCE) {
        let x0 = x_row(t);
        let x1 = x_row(min(t + 1, last));
        let x2 = x_row(min(t + 2, last));
        let x3 = x_row(min(t + 3, last));
        let x4 = x_row(min(t + 4, last));
        let x5 = x_row(min(t + 5, last));
        let x6 = x_row(min(t + 6, last));
        let x7 = x_row(min(t + 7, last));
        var a = vec4f();
        var b = vec4f();
        for (var unit = 0u; unit < K / 32; unit++) {
            let w = weight_load(w_row, unit);
            let at = unit * 8;
            a += vec4f(unit_dot(w, x0 + at, me), unit_dot(w, x1 + at, me),
                unit_dot(w, x2 + at, me), unit_dot(w, x3 + at, me));
            if (EIGHT) {
                b += vec4f(unit_dot(w, x4 + at, me), unit_dot(w, x5 + at, me),
                    unit_dot(w, x6 + at, me), unit_dot(w, x7 + at, me));
            }
        }
        if (REST > 0) {
            let w = weight_load(w_row, UNITS - 1);
            let at = (UNITS - 1) * 8;
            a += vec4f(rest_dot(w, x0 + at), rest_dot(w, x1 + at), rest_dot(w, x2 + at),
                rest_dot(w, x3 + at));
            if (EIGHT) {
                b += vec4f(rest_dot(w, x4 + at), rest_dot(w, x5 + at), rest_dot(w, x6 + at),
                    rest_dot(w, x7 + at));
            }
        }
        put_four(row, t, end, tile, a);
        if (EIGHT) {
            put_four(row, t + 4, end, tile, b);
        }
    }
}
