//! with load, pairs
// weight_bf16: rows of bfloat16, the upper halves of single floats, two to a word,
// planes of device_rows.
@group(0) @binding(0) var<storage, read> weight_words: array<vec4u>;

fn weight_four(v: vec2u) -> vec4f {
    return bitcast<vec4f>(vec4u(v.x << 16, v.x & 0xffff0000, v.y << 16, v.y & 0xffff0000));
}
