//! with load, pairs
// weight_f16: rows of IEEE half floats, two to a word,
// planes of device_rows.
@group(0) @binding(0) var<storage, read> weight_words: array<vec4u>;

fn weight_four(v: vec2u) -> vec4f {
    return vec4f(unpack2x16float(v.x), unpack2x16float(v.y));
}
