// halves: rows of x as half floats, what matmul_matrix reads. What is beyond 65504 is cut there: an
// infinity would spoil the row.
//   x [rows, K] f32, K a multiple of 4
//   h [rows, U] units of 32 halves, U = ceil(K / 32); columns from K on are 0
// One lane to 8 columns: grid (ceil(4 U / 64), rows). Bound by memory.
override K: u32;

override UNITS: u32 = (K + 31) / 32;

const WG = 64u;
const HALF_MAX = 65504.0;

@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> h: array<vec4u>;

fn half_words(row: u32, c: u32) -> vec2u {
    var v = vec4f();
    if (c < K / 4) {
        v = clamp(x[row * (K / 4) + c], vec4f(-HALF_MAX), vec4f(HALF_MAX));
    }
    return vec2u(pack2x16float(v.xy), pack2x16float(v.zw));
}

@compute @workgroup_size(WG)
fn halves(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let c = group.x * WG + lane;
    if (c < UNITS * 4) {
        let words = vec4u(half_words(group.y, 2 * c), half_words(group.y, 2 * c + 1));
        h[group.y * UNITS * 4 + c] = words;
    }
}
