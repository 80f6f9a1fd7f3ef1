//! with load, unit_floats, unit_made, levels
// weight_iq4_xs: x = d (sc_j - 32) T[q] for unit j of a block of 256, planes of device_rows: 4-bit
// q of T's 16 levels; per block f16 d, 16 bits of upper scale bits (two to a unit), 32 bits of
// lower ones (four to a unit).
@group(0) @binding(0) var<storage, read> weight_words: array<vec4u>;

struct weight_bits {
    v: vec4u,
    heads: vec4u,
}

// Those of W[row, 32 * unit .. +32].
fn weight_ask(row: u32, unit: u32) -> weight_bits {
    let blocks = (K + 255) / 256;
    let first = row * (8 * blocks + (blocks + 1) / 2);
    return weight_bits(weight_words[first + unit], weight_words[first + 8 * blocks + unit / 16]);
}

fn weight_made(bits: weight_bits, unit: u32) -> Unit {
    let head = select(bits.heads.xy, bits.heads.zw, (unit & 8) != 0);
    let j = unit & 7;
    let sc = ((head.y >> (4 * j)) & 15) | (((head.x >> (16 + 2 * j)) & 3) << 4);
    let d = vec2f(unpack2x16float(head.x).x * (f32(sc) - 32.0));
    return Unit(weight_levels(bits.v), weight_levels(bits.v >> vec4u(4)), d, vec2f());
}
