//! with load, unit_floats, unit_made, halves_scale
// weight_q3_k: x = d sc (q - 4), sc of 16 columns, planes of device_rows: 2 bits and the third bit
// of q; per block of 256 16 signed scales; f16 d.
@group(0) @binding(0) var<storage, read> weight_words: array<vec4u>;

struct weight_bits {
    two: vec4u,
    high: u32,
    scales: u32,
    halves: u32,
}

// Those of W[row, 32 * unit .. +32].
fn weight_ask(row: u32, unit: u32) -> weight_bits {
    let blocks = (K + 255) / 256;
    let thirds = 4 * blocks;
    let scales = thirds + 2 * blocks;
    let first = row * (7 * blocks + (blocks + 7) / 8);
    let block = unit / 8;
    return weight_bits(weight_words[first + unit / 2],
                       weight_words[first + thirds + unit / 4][unit % 4],
                       weight_words[first + scales + block][unit / 2 % 4],
                       weight_words[first + scales + blocks + block / 8][block / 2 % 4]);
}

// Bits 2 k of each byte of `two`, and bit k of `high` as the third, to word k's bytes.
fn weight_three(two: u32, high: u32) -> vec4u {
    return ((vec4u(two) >> vec4u(0, 2, 4, 6)) & vec4u(0x03030303)) |
        (((vec4u(high) >> vec4u(0, 1, 2, 3)) & vec4u(0x01010101)) << vec4u(2));
}

fn weight_made(bits: weight_bits, unit: u32) -> Unit {
    let v = select(bits.two.xy, bits.two.zw, (unit & 1) != 0);
    let scale = weight_scale(bits.scales, bits.halves, unit);
    return Unit(weight_three(v.x, bits.high), weight_three(v.y, bits.high >> 4), scale,
                4.0 * scale);
}
