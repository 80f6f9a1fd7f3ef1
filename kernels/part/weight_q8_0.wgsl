//! with load, unit_floats, unit_made
// weight_q8_0: x = d q, planes of device_rows: bytes of the first and of the second 16 columns, f16
// d.
@group(0) @binding(0) var<storage, read> weight_words: array<vec4u>;

struct weight_bits {
    a: vec4u,
    b: vec4u,
    halves: u32,
}

// Those of W[row, 32 * unit .. +32].
fn weight_ask(row: u32, unit: u32) -> weight_bits {
    let units = (K + 31) / 32;
    let first = row * (2 * units + (units + 7) / 8);
    return weight_bits(weight_words[first + unit], weight_words[first + units + unit],
                       weight_words[first + 2 * units + unit / 8][unit / 2 % 4]);
}

fn weight_made(bits: weight_bits, unit: u32) -> Unit {
    let d = unpack2x16float(bits.halves)[unit % 2];
    return Unit(bits.a, bits.b, vec2f(d), vec2f());
}
