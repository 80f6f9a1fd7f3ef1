// weight_f16: rows of IEEE half floats, two to a word,
// planes of device_rows.
@group(0) @binding(0) var<storage, read> weight_words: array<vec4u>;

fn weight_four(a: u32, b: u32) -> vec4f {
    return vec4f(unpack2x16float(a), unpack2x16float(b));
}

// W[row, 32 * unit .. +32], zero past K.
fn weight_load(row: u32, unit: u32) -> array<vec4f, 8> {
    let units = (K + 31) / 32;
    let at = row * 4 * units + unit;
    let a = weight_words[at];
    let b = weight_words[at + units];
    let c = weight_words[at + 2 * units];
    let d = weight_words[at + 3 * units];
    return array<vec4f, 8>(weight_four(a.x, a.y), weight_four(a.z, a.w), weight_four(b.x, b.y),
        weight_four(b.z, b.w), weight_four(c.x, c.y), weight_four(c.z, c.w),
        weight_four(d.x, d.y), weight_four(d.z, d.w));
}
