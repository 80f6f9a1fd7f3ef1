//! with load, unit_floats, unit_made, fifths
// weight_q5_1: x = d q + m, planes of device_rows: 4 bits and the fifth bit of q, f16 d and m.
@group(0) @binding(0) var<storage, read> weight_words: array<vec4u>;

struct weight_bits {
    v: vec4u,
    high: u32,
    halves: u32,
}

// Those of W[row, 32 * unit .. +32].
fn weight_ask(row: u32, unit: u32) -> weight_bits {
    let units = (K + 31) / 32;
    let words = (units + 3) / 4;
    let first = row * (units + 2 * words);
    return weight_bits(weight_words[first + unit],
                       weight_words[first + units + unit / 4][unit % 4],
                       weight_words[first + units + words + unit / 4][unit % 4]);
}

fn weight_made(bits: weight_bits, unit: u32) -> Unit {
    let dm = unpack2x16float(bits.halves);
    return Unit(weight_five(bits.v, bits.high), weight_five(bits.v >> vec4u(4), bits.high >> 4),
                dm.xx, -dm.yy);
}
