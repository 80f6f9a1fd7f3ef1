//! with unit_load, heads
// weight_q5_k: x = d sc_j q - dmin mn_j for unit j of a block of 256, planes of device_rows: 4 bits
// and the fifth bit of q, heads.
@group(0) @binding(0) var<storage, read> weight_words: array<vec4u>;

// W[row, 32 * unit .. +32]
fn weight_unit(row: u32, unit: u32) -> Unit {
    let blocks = (K + 255) / 256;
    let first = row * 11 * blocks;
    let v = weight_words[first + unit];
    let high = weight_words[first + 8 * blocks + unit / 4][unit % 4];
    let s = weight_scales(weight_words[first + 10 * blocks + unit / 8], unit & 7);
    // bit k of each byte to bit 4 of word k's bytes
    let a = (v & vec4u(0x0f0f0f0f)) |
        (((vec4u(high) >> vec4u(0, 1, 2, 3)) & vec4u(0x01010101)) << vec4u(4));
    let b = ((v >> vec4u(4)) & vec4u(0x0f0f0f0f)) |
        (((vec4u(high) >> vec4u(4, 5, 6, 7)) & vec4u(0x01010101)) << vec4u(4));
    return Unit(a, b, s.xx, s.yy);
}
