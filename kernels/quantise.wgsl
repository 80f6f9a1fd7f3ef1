//! with activation, input_at
// quantise: rows of x, or of what the activation makes of them, as signed bytes, what matmul_q8
// reads.
//   x as in common/input_at, K a multiple of 4
//   q [U, 3, ROWS] vec4u, U = ceil(K / 32) units: the bytes of columns 0..15 of each unit, those of
//   columns 16..31, and (s, t0, s, t1) as f32: x = s q with s = max |x| / 127 over the unit, t0 and
//   t1 the sums of s q over the two halves. Columns from K on are 0.
// Rows lie side by side there, as the lanes that read them do. One lane to a unit, a workgroup to
// SIDE units of SIDE rows: grid (ceil(U / SIDE), ceil(n / SIDE)). Bound by memory.
override K: u32;
override ROWS: u32;
override GATED: bool; // of input_at.wgsl
override ACT: u32;
override UNGATED: bool;
override ALPHA: f32;
override LIMIT: f32;

override UNITS: u32 = (K + 31) / 32;

const SIDE = 8u;

@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> q: array<vec4u>;

fn sum_of(v: vec4u) -> f32 {
    const ONES = 0x01010101u;
    return f32(dot4I8Packed(v.x, ONES) + dot4I8Packed(v.y, ONES) + dot4I8Packed(v.z, ONES) +
               dot4I8Packed(v.w, ONES));
}

fn bytes(v: vec4f, inverse: f32) -> u32 {
    return pack4xI8(vec4i(round(v * inverse)));
}

@compute @workgroup_size(SIDE * SIDE)
fn quantise(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let unit = group.x * SIDE + lane / SIDE;
    let row = group.y * SIDE + lane % SIDE;
    if (unit >= UNITS || row >= ROWS) {
        return;
    }
    var v = array<vec4f, 8>();
    var most = vec4f();
    for (var i = 0u; i < 8; i++) {
        if (K % 32 == 0 || unit * 32 + i * 4 < K) {
            v[i] = input_at(row, unit * 8 + i);
            most = max(most, abs(v[i]));
        }
    }
    let top = max(max(most.x, most.y), max(most.z, most.w));
    // Below this 127 / top would overflow: such units are 0.
    let s = select(0.0, top / 127.0, top > 1e-30);
    let inverse = select(0.0, 127.0 / top, top > 1e-30);
    let a = vec4u(bytes(v[0], inverse), bytes(v[1], inverse), bytes(v[2], inverse),
                  bytes(v[3], inverse));
    let b = vec4u(bytes(v[4], inverse), bytes(v[5], inverse), bytes(v[6], inverse),
                  bytes(v[7], inverse));
    let first = unit * 3 * ROWS + row;
    q[first] = a;
    q[first + ROWS] = b;
    q[first + 2 * ROWS] = bitcast<vec4u>(vec4f(s, s * sum_of(a), s, s * sum_of(b)));
}
