// q8: products of units of signed bytes. A row of x has three planes of a vec4 for each unit: the
// bytes of columns 0 to 15, those of 16 to 31, and (s, t) of both halves: x = s byte, t the sum
// of x.
alias Operand = Unit;

struct Input {
    a: vec4u,
    b: vec4u,
    scales: vec4f,
}

fn input_load(t: u32, unit: u32) -> Input {
    let at = t * 3 * UNITS + unit;
    return Input(x[at], x[at + UNITS], bitcast<vec4f>(x[at + 2 * UNITS]));
}

// A unit of row t, which all lanes have, and three read a piece of for their subgroup.
fn shared_load(t: u32, unit: u32, lane: u32) -> Input {
    let v = first_eight(x[(3 * t + min(lane % 8, 2)) * UNITS + unit]);
    return Input(v[0], v[1], bitcast<vec4f>(v[2]));
}

// The sum, at most 16 * 128 * 127, is added to the bits of 1.5 * 2^23, whose lowest one is worth 1:
// an addition and a subtraction in place of a conversion, of which devices make fewer at a time.
fn dot_bytes(a: vec4u, b: vec4u) -> f32 {
    return bitcast<f32>(0x4b400000 + dot4I8Packed(a.x, b.x) + dot4I8Packed(a.y, b.y) +
        dot4I8Packed(a.z, b.z) + dot4I8Packed(a.w, b.w)) - 12582912.0;
}

fn multiply(w: Unit, x: Input) -> f32 {
    let sums = vec2f(dot_bytes(w.a, x.a), dot_bytes(w.b, x.b));
    return dot(w.scale * x.scales.xz, sums) - dot(w.low, x.scales.yw);
}
