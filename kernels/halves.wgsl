//! with activation, input_at
// halves: rows of x, or of what the activation makes of them, as half floats, what matmul_matrix
// reads. What is beyond 65504 is cut there: an infinity would spoil the row.
//   x as in common/input_at, K a multiple of 4
//   h [U, 4, ROWS] pieces of 8 halves, U = ceil(K / 32); columns from K on are 0
// Rows lie side by side there, as the lanes that read them do. One lane to a piece, a workgroup to
// SIDE pieces of SIDE rows: grid (ceil(4 U / SIDE), ceil(n / SIDE)). Bound by memory.
override K: u32;
override ROWS: u32;
override GATED: bool; // of input_at.wgsl
override ACT: u32;
override UNGATED: bool;
override ALPHA: f32;
override LIMIT: f32;

override UNITS: u32 = (K + 31) / 32;

const SIDE = 8u;
const HALF_MAX = 65504.0;

@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> h: array<vec4u>;

fn half_words(row: u32, c: u32) -> vec2u {
    var v = vec4f();
    if (c < K / 4) {
        v = clamp(input_at(row, c), vec4f(-HALF_MAX), vec4f(HALF_MAX));
    }
    return vec2u(pack2x16float(v.xy), pack2x16float(v.zw));
}

@compute @workgroup_size(SIDE * SIDE)
fn halves(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let piece = group.x * SIDE + lane / SIDE;
    let row = group.y * SIDE + lane % SIDE;
    if (piece < UNITS * 4 && row < ROWS) {
        h[piece * ROWS + row] =
            vec4u(half_words(row, 2 * piece), half_words(row, 2 * piece + 1));
    }
}
