//! with load, unit_floats, unit_made, halves_scale
// weight_q6_k: x = d sc (q - 32), sc of 16 columns, planes of device_rows: 4 bits and the upper bit
// pair of q; per block of 256 16 signed scales; f16 d.
@group(0) @binding(0) var<storage, read> weight_words: array<vec4u>;

struct weight_bits {
    v: vec4u,
    two: vec4u,
    scales: u32,
    halves: u32,
}

// Those of W[row, 32 * unit .. +32].
fn weight_ask(row: u32, unit: u32) -> weight_bits {
    let blocks = (K + 255) / 256;
    let pairs = 8 * blocks;
    let scales = pairs + 4 * blocks;
    let first = row * (13 * blocks + (blocks + 7) / 8);
    let block = unit / 8;
    return weight_bits(weight_words[first + unit], weight_words[first + pairs + unit / 2],
                       weight_words[first + scales + block][unit / 2 % 4],
                       weight_words[first + scales + blocks + block / 8][block / 2 % 4]);
}

// Low nibbles with bits 2 k of each byte of `high` as the upper two bits of word k's bytes.
fn weight_six(v: vec4u, high: u32) -> vec4u {
    return (v & vec4u(0x0f0f0f0f)) |
        (((vec4u(high) >> vec4u(0, 2, 4, 6)) & vec4u(0x03030303)) << vec4u(4));
}

fn weight_made(bits: weight_bits, unit: u32) -> Unit {
    let high = select(bits.two.xy, bits.two.zw, (unit & 1) != 0);
    let scale = weight_scale(bits.scales, bits.halves, unit);
    return Unit(weight_six(bits.v, high.x), weight_six(bits.v >> vec4u(4), high.y), scale,
                32.0 * scale);
}
