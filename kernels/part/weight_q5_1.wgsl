//! with load, unit_load, unit_made
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

// Low nibbles with bit k of each byte of `high` as the fifth bit of word k's bytes.
fn weight_five(v: vec4u, high: u32) -> vec4u {
    return (v & vec4u(0x0f0f0f0f)) |
        (((vec4u(high) >> vec4u(0, 1, 2, 3)) & vec4u(0x01010101)) << vec4u(4));
}

fn weight_made(bits: weight_bits, unit: u32) -> Unit {
    let dm = unpack2x16float(bits.halves);
    return Unit(weight_five(bits.v, bits.high), weight_five(bits.v >> vec4u(4), bits.high >> 4),
                dm.xx, -dm.yy);
}
