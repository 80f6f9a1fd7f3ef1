//! with unit_load
// weight_q4_0: x = d (q - 8), planes of device_rows: 4-bit q, f16 d.
@group(0) @binding(0) var<storage, read> weight_words: array<vec4u>;

// W[row, 32 * unit .. +32]
fn weight_unit(row: u32, unit: u32) -> Unit {
    let units = (K + 31) / 32;
    let first = row * (units + (units + 7) / 8);
    let v = weight_words[first + unit];
    let halves = weight_words[first + units + unit / 8][unit / 2 % 4];
    let d = vec2f(unpack2x16float(halves)[unit % 2]);
    return Unit(v & vec4u(0x0f0f0f0f), (v >> vec4u(4)) & vec4u(0x0f0f0f0f), d, 8.0 * d);
}
