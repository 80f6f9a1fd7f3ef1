// floats: products of units of floats. A row of x has eight planes of a vec4 for each unit.
alias Operand = array<vec4f, 8>;

struct Input {
    v: array<vec4f, 8>,
}

fn input_load(t: u32, unit: u32) -> Input {
    let at = t * 8 * UNITS + unit;
    return Input(array<vec4f, 8>(x[at], x[at + UNITS], x[at + 2 * UNITS], x[at + 3 * UNITS],
        x[at + 4 * UNITS], x[at + 5 * UNITS], x[at + 6 * UNITS], x[at + 7 * UNITS]));
}

// The unit whose pieces the first eight lanes of the subgroup have.
fn shared_input(piece: vec4f) -> Input {
    let v = first_eight(bitcast<vec4u>(piece));
    return Input(array<vec4f, 8>(bitcast<vec4f>(v[0]), bitcast<vec4f>(v[1]), bitcast<vec4f>(v[2]),
        bitcast<vec4f>(v[3]), bitcast<vec4f>(v[4]), bitcast<vec4f>(v[5]), bitcast<vec4f>(v[6]),
        bitcast<vec4f>(v[7])));
}

// A unit of row t, which all lanes have, and every lane reads a piece of for its subgroup.
fn shared_load(t: u32, unit: u32, lane: u32) -> Input {
    return shared_input(x[(8 * t + lane % 8) * UNITS + unit]);
}

fn multiply(w: array<vec4f, 8>, x: Input) -> f32 {
    let v = x.v;
    return ((dot(w[0], v[0]) + dot(w[1], v[1])) + (dot(w[2], v[2]) + dot(w[3], v[3]))) +
        ((dot(w[4], v[4]) + dot(w[5], v[5])) + (dot(w[6], v[6]) + dot(w[7], v[7])));
}
