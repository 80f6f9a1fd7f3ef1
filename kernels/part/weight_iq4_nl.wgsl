//! with unit_load, levels
// weight_iq4_nl: x = d T[q] with 16 levels T, planes of device_rows: 4-bit q, f16 d.
@group(0) @binding(0) var<storage, read> weight_words: array<vec4u>;

// W[row, 32 * unit .. +32]
fn weight_unit(row: u32, unit: u32) -> Unit {
    let units = (K + 31) / 32;
    let first = row * (units + (units + 7) / 8);
    let v = weight_words[first + unit];
    let halves = weight_words[first + units + unit / 8][unit / 2 % 4];
    let d = vec2f(unpack2x16float(halves)[unit % 2]);
    return Unit(weight_levels(v), weight_levels(v >> vec4u(4)), d, vec2f());
}
