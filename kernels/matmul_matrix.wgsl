//! use weight, mma, block
//! with unit
//! enable f16, matrix
// matmul_matrix: y[t, r] (+)= SCALE (W[r, :] . x[t, :] + b[r]) on matrix units, where subgroups
// multiply small matrices of half floats and add in f32.
//   W [rows, K]  any weight format, rows of whole blocks
//   x [UNITS, 4, pitch] pieces of 8 half floats, as halves.wgsl makes them; a block is filled with
//   what lies behind the last row, up to BLOCK_T pieces behind the last one
//   b [rows] f32 if BIAS    y [n, stride] f32, columns [column, column + rows)
// One workgroup makes a block of BLOCK_T tokens by BLOCK_R rows: SUBS_T by SUBS_R subgroups with
// TILES_T by TILES_R matrices of side MMA each (fragment mma), 2 or 4 of them. For every 32 columns
// the lanes decode the block's rows of W, once, to half floats, and put them and x, for which they
// have asked a step before, into workgroup memory. A product of two half floats is exact in f32, so
// what is lost is the rounding of W and x to 11 bits; weights beyond 65504, where half floats end,
// are cut there if CUT. Where results go the part `block` says. Bound by the multiplications, and
// by how many workgroups are under way at a time: workgroup memory is dear (an H200 loses a third
// with 8 KiB more).
// Workgroups of z do `units` units each, into part z of y [.., n_max, rows] for matmul_sum to add.
// EXPERTS is as in matmul.wgsl; BLOCK_T then is the tokens of a tile that expert_group makes.
// The sums have names and are no array: drivers keep an array of matrices in memory (NVIDIA 580: a
// seventh of the speed).
override K: u32;
override BIAS: bool;
override ADD: bool; // y += instead of y =: the residual stream
override SCALE: f32;
override CUT: bool; // weights may be beyond half floats
override EXPERTS: bool;
override X_PER: u32;
override SUBGROUP: u32; // lanes
override SUBS_T: u32;
override SUBS_R: u32;
override TILES_T: u32;
override TILES_R: u32;
override UNITS: u32 = (K + 31) / 32;
override LANES: u32 = SUBS_T * SUBS_R * SUBGROUP;
override BLOCK_T: u32 = SUBS_T * TILES_T * MMA;
override BLOCK_R: u32 = SUBS_R * TILES_R * MMA;
override X_PIECES: u32 = BLOCK_T * 4 / LANES; // to a lane: a power of two, or 0

const BLOCK_K = 32u;
const PITCH = 40u; // halves to a row of a tile: 32, and 16 bytes against bank conflicts
const MOST = 128u; // tokens and rows of a block
const HALF_MAX = 65504.0;

struct Params {
    rows: u32,
    stride: u32, // of y, in elements
    column: u32,
    bias_first: u32, // the part's first row in the bias
    counted: u32, // which element of sizes is n
    first_slot: u32, // of the part that is bound
    slots: u32,
    units: u32, // to a part of the columns; UNITS if there is one
    n_max: u32,
    pitch: u32, // of a piece of x, in rows
}

@group(0) @binding(1) var<storage, read> x: array<vec4u>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<uniform> sizes: vec4u;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read> order: array<u32>;          // [pairs]
@group(0) @binding(6) var<storage, read> expert_tiles: array<vec4u>; // (expert, first, pairs, 0)
@group(0) @binding(7) var<storage, read> place: array<u32>;          // [experts] slot
@group(1) @binding(0) var<uniform> p: Params;

alias left = subgroup_matrix_left<f16, MMA, MMA>;
alias right = subgroup_matrix_right<f16, MMA, MMA>;
alias result = subgroup_matrix_result<f32, MMA, MMA>;

// Sizes of arrays that matrices lie in are no overrides (tint).
var<workgroup> x_tile: array<f16, MOST * PITCH>;
var<workgroup> w_tile: array<f16, MOST * PITCH>;

// What a workgroup makes: tokens [token0, n) and rows from row0 on, as far as a block reaches.
struct Block {
    token0: u32,
    n: u32,
    row0: u32,
    first: u32, // element of y
    first_row: u32, // of the expert in W
    bias_row: u32,
}

// The row of y that token t has.
fn y_row(t: u32) -> u32 {
    if (EXPERTS) {
        return order[t];
    }
    return t;
}

// The row of x that a block's token t has; past n that of another one, for what is not kept.
fn x_row(g: Block, t: u32) -> u32 {
    if (EXPERTS) {
        return order[min(g.token0 + t, g.n - 1)] / X_PER;
    }
    return g.token0 + t;
}

// Piece i of x[token0 .. + BLOCK_T, 32 * unit .. + 32]: 8 halves of token i % BLOCK_T.
fn x_piece(g: Block, unit: u32, i: u32) -> vec4u {
    return x[(unit * 4 + i / BLOCK_T) * p.pitch + x_row(g, i % BLOCK_T)];
}

fn put_x(i: u32, v: vec4u) {
    let a = bitcast<vec4h>(v.xy);
    let b = bitcast<vec4h>(v.zw);
    let at = i % BLOCK_T * PITCH + i / BLOCK_T * 8;
    x_tile[at] = a.x;
    x_tile[at + 1] = a.y;
    x_tile[at + 2] = a.z;
    x_tile[at + 3] = a.w;
    x_tile[at + 4] = b.x;
    x_tile[at + 5] = b.y;
    x_tile[at + 6] = b.z;
    x_tile[at + 7] = b.w;
}

fn put_four(at: u32, v: vec4f) {
    var h: vec4h;
    if (CUT) {
        h = vec4h(clamp(v, vec4f(-HALF_MAX), vec4f(HALF_MAX)));
    } else {
        h = vec4h(v);
    }
    w_tile[at] = h.x;
    w_tile[at + 1] = h.y;
    w_tile[at + 2] = h.z;
    w_tile[at + 3] = h.w;
}

fn put_w(i: u32, v: array<vec4f, 8>) {
    let at = i * PITCH;
    put_four(at, v[0]);
    put_four(at + 4, v[1]);
    put_four(at + 8, v[2]);
    put_four(at + 12, v[3]);
    put_four(at + 16, v[4]);
    put_four(at + 20, v[5]);
    put_four(at + 24, v[6]);
    put_four(at + 28, v[7]);
}

// What a lane asks memory for, a unit ahead: bits of a row of W, and up to 4 pieces of x. Nothing
// is made of them before they are put away, or they would be waited for before the multiplications
// of the unit before, not behind them (an H200 takes a fifth longer).
struct Ahead {
    w: weight_bits,
    a: vec4u,
    b: vec4u,
    c: vec4u,
    d: vec4u,
}

// Row i of W; those from p.rows on are the last one, as what they make is not kept.
fn w_row(g: Block, i: u32) -> u32 {
    return g.first_row + min(g.row0 + i, p.rows - 1);
}

// Has the lane a first piece of x? Of many lanes, some have none.
fn has_piece(lane: u32) -> bool {
    return X_PIECES > 0 || lane < BLOCK_T * 4;
}

fn ask(g: Block, unit: u32, lane: u32) -> Ahead {
    var v: Ahead;
    v.w = weight_ask(w_row(g, lane), unit);
    if (has_piece(lane)) {
        v.a = x_piece(g, unit, lane);
    }
    if (X_PIECES > 1) {
        v.b = x_piece(g, unit, lane + LANES);
    }
    if (X_PIECES > 2) {
        v.c = x_piece(g, unit, lane + 2 * LANES);
        v.d = x_piece(g, unit, lane + 3 * LANES);
    }
    return v;
}

// What few lanes have more of is read here.
fn put(v: Ahead, g: Block, unit: u32, lane: u32) {
    if (has_piece(lane)) {
        put_x(lane, v.a);
    }
    if (X_PIECES > 1) {
        put_x(lane + LANES, v.b);
    }
    if (X_PIECES > 2) {
        put_x(lane + 2 * LANES, v.c);
        put_x(lane + 3 * LANES, v.d);
    }
    for (var i = 4u; i < X_PIECES; i++) {
        put_x(lane + i * LANES, x_piece(g, unit, lane + i * LANES));
    }
    if (lane < BLOCK_R) {
        put_w(lane, weight_floats(v.w, unit));
    }
    for (var i = lane + LANES; i < BLOCK_R; i += LANES) {
        put_w(i, weight_load(w_row(g, i), unit));
    }
}

fn left_at(at: u32) -> left {
    return subgroupMatrixLoad<left>(&x_tile, at, false, PITCH);
}

fn right_at(at: u32) -> right {
    return subgroupMatrixLoad<right>(&w_tile, at, true, PITCH);
}

@compute @workgroup_size(LANES)
fn matmul_matrix(@builtin(workgroup_id) group: vec3u,
                 @builtin(local_invocation_index) lane: u32) {
    let part = group.z * p.n_max * p.stride;
    var g = Block(group.y * BLOCK_T, sizes[p.counted], group.x * BLOCK_R, part + p.column, 0,
                  p.bias_first);
    if (EXPERTS) {
        let tile = expert_tiles[group.y];
        let slot = place[tile.x];
        if (tile.z == 0 || slot - p.first_slot >= p.slots) { // earlier slots wrap round
            return; // read-only and the same for all lanes: barriers stay uniform
        }
        g.token0 = tile.y;
        g.n = tile.y + tile.z;
        g.first_row = (slot - p.first_slot) * p.rows;
        g.bias_row = tile.x * p.rows;
    }
    let sub_t = lane / SUBGROUP / SUBS_R * TILES_T * MMA;
    let sub_r = lane / SUBGROUP % SUBS_R * TILES_R * MMA;
    let corner = g.first + (g.token0 + sub_t) * p.stride + g.row0 + sub_r;
    var s00 = begin(true, corner);
    var s01 = begin(true, corner + 1 * MMA);
    var s02 = begin(TILES_R > 2, corner + 2 * MMA);
    var s03 = begin(TILES_R > 2, corner + 3 * MMA);
    var s10 = begin(true, corner + 1 * MMA * p.stride);
    var s11 = begin(true, corner + 1 * MMA * p.stride + 1 * MMA);
    var s12 = begin(TILES_R > 2, corner + 1 * MMA * p.stride + 2 * MMA);
    var s13 = begin(TILES_R > 2, corner + 1 * MMA * p.stride + 3 * MMA);
    var s20 = begin(TILES_T > 2, corner + 2 * MMA * p.stride);
    var s21 = begin(TILES_T > 2, corner + 2 * MMA * p.stride + 1 * MMA);
    var s22 = begin(TILES_T > 2 && TILES_R > 2, corner + 2 * MMA * p.stride + 2 * MMA);
    var s23 = begin(TILES_T > 2 && TILES_R > 2, corner + 2 * MMA * p.stride + 3 * MMA);
    var s30 = begin(TILES_T > 2, corner + 3 * MMA * p.stride);
    var s31 = begin(TILES_T > 2, corner + 3 * MMA * p.stride + 1 * MMA);
    var s32 = begin(TILES_T > 2 && TILES_R > 2, corner + 3 * MMA * p.stride + 2 * MMA);
    var s33 = begin(TILES_T > 2 && TILES_R > 2, corner + 3 * MMA * p.stride + 3 * MMA);
    let end = min((group.z + 1) * p.units, UNITS);
    var ahead = ask(g, min(group.z * p.units, UNITS - 1), lane);
    for (var unit = group.z * p.units; unit < end; unit++) {
        put(ahead, g, unit, lane);
        workgroupBarrier();
        ahead = ask(g, min(unit + 1, UNITS - 1), lane);
        for (var k = 0u; k < BLOCK_K; k += 2 * MMA) { // once, or of side 8 twice
            {
                let at_w = sub_r * PITCH + k;
                let at_x = sub_t * PITCH + k;
                let b0 = right_at(at_w);
                let b1 = right_at(at_w + MMA * PITCH);
                var b2: right;
                var b3: right;
                if (TILES_R > 2) {
                    b2 = right_at(at_w + 2 * MMA * PITCH);
                    b3 = right_at(at_w + 3 * MMA * PITCH);
                }
                let a0 = left_at(at_x);
                s00 = subgroupMatrixMultiplyAccumulate(a0, b0, s00);
                s01 = subgroupMatrixMultiplyAccumulate(a0, b1, s01);
                if (TILES_R > 2) {
                    s02 = subgroupMatrixMultiplyAccumulate(a0, b2, s02);
                    s03 = subgroupMatrixMultiplyAccumulate(a0, b3, s03);
                }
                let a1 = left_at(at_x + MMA * PITCH);
                s10 = subgroupMatrixMultiplyAccumulate(a1, b0, s10);
                s11 = subgroupMatrixMultiplyAccumulate(a1, b1, s11);
                if (TILES_R > 2) {
                    s12 = subgroupMatrixMultiplyAccumulate(a1, b2, s12);
                    s13 = subgroupMatrixMultiplyAccumulate(a1, b3, s13);
                }
                if (TILES_T > 2) {
                    let a2 = left_at(at_x + 2 * MMA * PITCH);
                    s20 = subgroupMatrixMultiplyAccumulate(a2, b0, s20);
                    s21 = subgroupMatrixMultiplyAccumulate(a2, b1, s21);
                    if (TILES_R > 2) {
                        s22 = subgroupMatrixMultiplyAccumulate(a2, b2, s22);
                        s23 = subgroupMatrixMultiplyAccumulate(a2, b3, s23);
                    }
                    let a3 = left_at(at_x + 3 * MMA * PITCH);
                    s30 = subgroupMatrixMultiplyAccumulate(a3, b0, s30);
                    s31 = subgroupMatrixMultiplyAccumulate(a3, b1, s31);
                    if (TILES_R > 2) {
                        s32 = subgroupMatrixMultiplyAccumulate(a3, b2, s32);
                        s33 = subgroupMatrixMultiplyAccumulate(a3, b3, s33);
                    }
                }
            }
            {
                let at_w = sub_r * PITCH + k + MMA;
                let at_x = sub_t * PITCH + k + MMA;
                let b0 = right_at(at_w);
                let b1 = right_at(at_w + MMA * PITCH);
                var b2: right;
                var b3: right;
                if (TILES_R > 2) {
                    b2 = right_at(at_w + 2 * MMA * PITCH);
                    b3 = right_at(at_w + 3 * MMA * PITCH);
                }
                let a0 = left_at(at_x);
                s00 = subgroupMatrixMultiplyAccumulate(a0, b0, s00);
                s01 = subgroupMatrixMultiplyAccumulate(a0, b1, s01);
                if (TILES_R > 2) {
                    s02 = subgroupMatrixMultiplyAccumulate(a0, b2, s02);
                    s03 = subgroupMatrixMultiplyAccumulate(a0, b3, s03);
                }
                let a1 = left_at(at_x + MMA * PITCH);
                s10 = subgroupMatrixMultiplyAccumulate(a1, b0, s10);
                s11 = subgroupMatrixMultiplyAccumulate(a1, b1, s11);
                if (TILES_R > 2) {
                    s12 = subgroupMatrixMultiplyAccumulate(a1, b2, s12);
                    s13 = subgroupMatrixMultiplyAccumulate(a1, b3, s13);
                }
                if (TILES_T > 2) {
                    let a2 = left_at(at_x + 2 * MMA * PITCH);
                    s20 = subgroupMatrixMultiplyAccumulate(a2, b0, s20);
                    s21 = subgroupMatrixMultiplyAccumulate(a2, b1, s21);
                    if (TILES_R > 2) {
                        s22 = subgroupMatrixMultiplyAccumulate(a2, b2, s22);
                        s23 = subgroupMatrixMultiplyAccumulate(a2, b3, s23);
                    }
                    let a3 = left_at(at_x + 3 * MMA * PITCH);
                    s30 = subgroupMatrixMultiplyAccumulate(a3, b0, s30);
                    s31 = subgroupMatrixMultiplyAccumulate(a3, b1, s31);
                    if (TILES_R > 2) {
                        s32 = subgroupMatrixMultiplyAccumulate(a3, b2, s32);
                        s33 = subgroupMatrixMultiplyAccumulate(a3, b3, s33);
                    }
                }
            }
        }
        workgroupBarrier();
    }
    finish(s00, g, lane, 0, 0);
    finish(s01, g, lane, 0, 1);
    finish(s10, g, lane, 1, 0);
    finish(s11, g, lane, 1, 1);
    if (TILES_R > 2) {
        finish(s02, g, lane, 0, 2);
        finish(s03, g, lane, 0, 3);
        finish(s12, g, lane, 1, 2);
        finish(s13, g, lane, 1, 3);
    }
    if (TILES_T > 2) {
        finish(s20, g, lane, 2, 0);
        finish(s21, g, lane, 2, 1);
        finish(s30, g, lane, 3, 0);
        finish(s31, g, lane, 3, 1);
        if (TILES_R > 2) {
            finish(s22, g, lane, 2, 2);
            finish(s23, g, lane, 2, 3);
            finish(s32, g, lane, 3, 2);
            finish(s33, g, lane, 3, 3);
        }
    }
}
