//! with unit_load
// weight_q5_0: x = d (q - 16), planes of device_rows: 4 bits and the fifth bit of q, f16 d.
@group(0) @binding(0) var<storage, read> weight_words: array<vec4u>;

// W[row, 32 * unit .. +32]
fn weight_unit(row: u32, unit: u32) -> Unit {
    let units = (K + 31) / 32;
    let bits = units;
    let scales = bits + (units + 3) / 4;
    let first = row * (scales + (units + 7) / 8);
    let v = weight_words[first + unit];
    let high = weight_words[first + bits + unit / 4][unit % 4];
    let halves = weight_words[first + scales + unit / 8][unit / 2 % 4];
    let d = vec2f(unpack2x16float(halves)[unit % 2]);
    // bit k of each byte to bit 4 of word k's bytes
    let a = (v & vec4u(0x0f0f0f0f)) |
        (((vec4u(high) >> vec4u(0, 1, 2, 3)) & vec4u(0x01010101)) << vec4u(4));
    let b = ((v >> vec4u(4)) & vec4u(0x0f0f0f0f)) |
        (((vec4u(high) >> vec4u(4, 5, 6, 7)) & vec4u(0x01010101)) << vec4u(4));
    return Unit(a, b, d, 16.0 * d);
}
