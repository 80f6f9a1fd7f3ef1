//! with load, unit_floats, unit_made
// weight_q4_0: x = d (q - 8), planes of device_rows: 4-bit q, f16 d.
@group(0) @binding(0) var<storage, read> weight_words: array<vec4u>;

struct weight_bits {
    v: vec4u,
    halves: u32,
}

// Those of W[row, 32 * unit .. +32].
fn weight_ask(row: u32, unit: u32) -> weight_bits {
    let units = (K + 31) / 32;
    let first = row * (units + (units + 7) / 8);
    return weight_bits(weight_words[first + unit],
                       weight_words[first + units + unit / 8][unit / 2 % 4]);
}

fn weight_made(bits: weight_bits, unit: u32) -> Unit {
    let d = vec2f(unpack2x16float(bits.halves)[unit % 2]);
    return Unit(bits.v & vec4u(0x0f0f0f0f), (bits.v >> vec4u(4)) & vec4u(0x0f0f0f0f), d, 8.0 * d);
}
