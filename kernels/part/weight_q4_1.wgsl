//! with unit_load
// weight_q4_1: x = d q + m, planes of device_rows: 4-bit q, f16 d and m.
@group(0) @binding(0) var<storage, read> weight_words: array<vec4u>;

// W[row, 32 * unit .. +32]
fn weight_unit(row: u32, unit: u32) -> Unit {
    let units = (K + 31) / 32;
    let first = row * (units + (units + 3) / 4);
    let v = weight_words[first + unit];
    let dm = unpack2x16float(weight_words[first + units + unit / 4][unit % 4]);
    return Unit(v & vec4u(0x0f0f0f0f), (v >> vec4u(4)) & vec4u(0x0f0f0f0f), dm.xx, -dm.yy);
}
