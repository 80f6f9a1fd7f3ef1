//! with unit_load, heads
// weight_q4_k: x = d sc_j q - dmin mn_j for unit j of a block of 256, planes of device_rows: 4-bit
// q, heads.
@group(0) @binding(0) var<storage, read> weight_words: array<vec4u>;

// W[row, 32 * unit .. +32]
fn weight_unit(row: u32, unit: u32) -> Unit {
    let blocks = (K + 255) / 256;
    let first = row * 9 * blocks;
    let v = weight_words[first + unit];
    let s = weight_scales(weight_words[first + 8 * blocks + unit / 8], unit & 7);
    return Unit(v & vec4u(0x0f0f0f0f), (v >> vec4u(4)) & vec4u(0x0f0f0f0f), s.xx, s.yy);
}
