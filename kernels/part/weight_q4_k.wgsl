//! with load, unit_floats, unit_made, heads
// weight_q4_k: x = d sc_j q - dmin mn_j for unit j of a block of 256, planes of device_rows: 4-bit
// q, heads.
@group(0) @binding(0) var<storage, read> weight_words: array<vec4u>;

struct weight_bits {
    v: vec4u,
    head: vec4u,
}

// Those of W[row, 32 * unit .. +32].
fn weight_ask(row: u32, unit: u32) -> weight_bits {
    let blocks = (K + 255) / 256;
    let first = row * 9 * blocks;
    return weight_bits(weight_words[first + unit], weight_words[first + 8 * blocks + unit / 8]);
}

fn weight_made(bits: weight_bits, unit: u32) -> Unit {
    let s = weight_scales(bits.head, unit & 7);
    return Unit(bits.v & vec4u(0x0f0f0f0f), (bits.v >> vec4u(4)) & vec4u(0x0f0f0f0f), s.xx, s.yy);
}
