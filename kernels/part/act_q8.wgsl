// act_q8: activations as signed bytes, to write: x = s q, s the largest |x| of 16 columns / 127.
//   A row of 32 units columns has three planes of vec4u, one to a unit each: the bytes of columns 0
//   to 15, those of columns 16 to 31, and (s, t) of both as floats, t = s sum(q).
@group(0) @binding(8) var<storage, read_write> act: array<u32>;

fn act_bytes(q: vec4f) -> u32 {
    let b = vec4u(vec4i(q)) & vec4u(255);
    return b.x | (b.y << 8) | (b.z << 16) | (b.w << 24);
}

// Columns 16 half .. 16 half + 15 of a row. Of columns that are all zero s is 0.
fn act_put(row: u32, units: u32, half: u32, v: array<vec4f, 4>) {
    let top = max(max(abs(v[0]), abs(v[1])), max(abs(v[2]), abs(v[3])));
    let most = max(max(top.x, top.y), max(top.z, top.w));
    let some = most > 1e-30;
    let turn = select(0.0, 127.0 / most, some);
    let s = select(0.0, most / 127.0, some);
    let a = round(v[0] * turn);
    let b = round(v[1] * turn);
    let c = round(v[2] * turn);
    let d = round(v[3] * turn);
    let first = 12 * units * row;
    let at = first + 4 * (units * (half & 1) + half / 2);
    act[at] = act_bytes(a);
    act[at + 1] = act_bytes(b);
    act[at + 2] = act_bytes(c);
    act[at + 3] = act_bytes(d);
    let sum = a + b + c + d; // whole numbers: exact
    let scale = first + 4 * (units * 2 + half / 2) + 2 * (half & 1);
    act[scale] = bitcast<u32>(s);
    act[scale + 1] = bitcast<u32>(s * (sum.x + sum.y + sum.z + sum.w));
}
