//! with load, unit_floats, unit_made, heads, fifths
// weight_q5_k: x = d sc_j q - dmin mn_j for unit j of a block of 256, planes of device_rows: 4 bits
// and the fifth bit of q, heads.
@group(0) @binding(0) var<storage, read> weight_words: array<vec4u>;

struct weight_bits {
    v: vec4u,
    high: u32,
    head: vec4u,
}

// Those of W[row, 32 * unit .. +32].
fn weight_ask(row: u32, unit: u32) -> weight_bits {
    let blocks = (K + 255) / 256;
    let first = row * 11 * blocks;
    return weight_bits(weight_words[first + unit],
                       weight_words[first + 8 * blocks + unit / 4][unit % 4],
                       weight_words[first + 10 * blocks + unit / 8]);
}

fn weight_made(bits: weight_bits, unit: u32) -> Unit {
    let s = weight_scales(bits.head, unit & 7);
    return Unit(weight_five(bits.v, bits.high), weight_five(bits.v >> vec4u(4), bits.high >> 4),
                s.xx, s.yy);
}
