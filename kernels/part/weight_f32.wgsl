//! with load
// weight_f32: rows of IEEE single floats, planes of device_rows.
@group(0) @binding(0) var<storage, read> weight_words: array<vec4u>;

alias weight_bits = array<vec4f, 8>;

// Those of W[row, 32 * unit .. +32], zero past K.
fn weight_ask(row: u32, unit: u32) -> weight_bits {
    let units = (K + 31) / 32;
    let at = row * 8 * units + unit;
    return weight_bits(
        bitcast<vec4f>(weight_words[at]),
        bitcast<vec4f>(weight_words[at + units]),
        bitcast<vec4f>(weight_words[at + 2 * units]),
        bitcast<vec4f>(weight_words[at + 3 * units]),
        bitcast<vec4f>(weight_words[at + 4 * units]),
        bitcast<vec4f>(weight_words[at + 5 * units]),
        bitcast<vec4f>(weight_words[at + 6 * units]),
        bitcast<vec4f>(weight_words[at + 7 * units]),
    );
}

fn weight_floats(bits: weight_bits, unit: u32) -> array<vec4f, 8> {
    return bits;
}
