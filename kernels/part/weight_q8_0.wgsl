//! with unit_load
// weight_q8_0: x = d q, planes of device_rows: bytes of the first and of the second 16 columns, f16
// d.
@group(0) @binding(0) var<storage, read> weight_words: array<vec4u>;

// W[row, 32 * unit .. +32]
fn weight_unit(row: u32, unit: u32) -> Unit {
    let units = (K + 31) / 32;
    let first = row * (2 * units + (units + 7) / 8);
    let a = weight_words[first + unit];
    let b = weight_words[first + units + unit];
    let halves = weight_words[first + 2 * units + unit / 8][unit / 2 % 4];
    return Unit(a, b, vec2f(unpack2x16float(halves)[unit % 2]), vec2f());
}
