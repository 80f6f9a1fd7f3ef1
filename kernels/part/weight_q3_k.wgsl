//! with unit_load
// weight_q3_k: x = d sc (q - 4), sc of 16 columns, planes of device_rows: 2 bits and the third bit
// of q; per block of 256 16 signed scales; f16 d.
@group(0) @binding(0) var<storage, read> weight_words: array<vec4u>;

// W[row, 32 * unit .. +32]
fn weight_unit(row: u32, unit: u32) -> Unit {
    let blocks = (K + 255) / 256;
    let bits = 4 * blocks;
    let scales = bits + 2 * blocks;
    let first = row * (7 * blocks + (blocks + 7) / 8);
    let two = weight_words[first + unit / 2];
    let v = select(two.xy, two.zw, (unit & 1) != 0);
    let high = weight_words[first + bits + unit / 4][unit % 4];
    let block = unit / 8;
    let sc = weight_words[first + scales + block][unit / 2 % 4] >> (16 * (unit & 1));
    let halves = weight_words[first + scales + blocks + block / 8][block / 2 % 4];
    let d = unpack2x16float(halves)[block % 2];
    let scale = d * vec2f(vec2i(vec2u(sc) << vec2u(24, 16)) >> vec2u(24));
    let a = ((vec4u(v.x) >> vec4u(0, 2, 4, 6)) & vec4u(0x03030303)) |
        (((vec4u(high) >> vec4u(0, 1, 2, 3)) & vec4u(0x01010101)) << vec4u(2));
    let b = ((vec4u(v.y) >> vec4u(0, 2, 4, 6)) & vec4u(0x03030303)) |
        (((vec4u(high) >> vec4u(4, 5, 6, 7)) & vec4u(0x01010101)) << vec4u(2));
    return Unit(a, b, scale, 4.0 * scale);
}
