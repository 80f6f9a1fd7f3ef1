//! with unit_load
// weight_q6_k: x = d sc (q - 32), sc of 16 columns, planes of device_rows: 4 bits and the upper bit
// pair of q; per block of 256 16 signed scales; f16 d.
@group(0) @binding(0) var<storage, read> weight_words: array<vec4u>;

// W[row, 32 * unit .. +32]
fn weight_unit(row: u32, unit: u32) -> Unit {
    let blocks = (K + 255) / 256;
    let pairs = 8 * blocks;
    let scales = pairs + 4 * blocks;
    let first = row * (13 * blocks + (blocks + 7) / 8);
    let v = weight_words[first + unit];
    let two = weight_words[first + pairs + unit / 2];
    let high = select(two.xy, two.zw, (unit & 1) != 0);
    let block = unit / 8;
    let sc = weight_words[first + scales + block][unit / 2 % 4] >> (16 * (unit & 1));
    let halves = weight_words[first + scales + blocks + block / 8][block / 2 % 4];
    let d = unpack2x16float(halves)[block % 2];
    let scale = d * vec2f(vec2i(vec2u(sc) << vec2u(24, 16)) >> vec2u(24));
    let a = (v & vec4u(0x0f0f0f0f)) |
        (((vec4u(high.x) >> vec4u(0, 2, 4, 6)) & vec4u(0x03030303)) << vec4u(4));
    let b = ((v >> vec4u(4)) & vec4u(0x0f0f0f0f)) |
        (((vec4u(high.y) >> vec4u(0, 2, 4, 6)) & vec4u(0x03030303)) << vec4u(4));
    return Unit(a, b, scale, 32.0 * scale);
}
