// unit_floats: a unit as floats.
fn weight_four(word: u32, scale: f32, low: f32) -> vec4f {
    return scale * vec4f(unpack4xI8(word)) - low;
}

fn weight_floats(bits: weight_bits, unit: u32) -> array<vec4f, 8> {
    let u = weight_made(bits, unit);
    return array<vec4f, 8>(
        weight_four(u.a.x, u.scale.x, u.low.x),
        weight_four(u.a.y, u.scale.x, u.low.x),
        weight_four(u.a.z, u.scale.x, u.low.x),
        weight_four(u.a.w, u.scale.x, u.low.x),
        weight_four(u.b.x, u.scale.y, u.low.y),
        weight_four(u.b.y, u.scale.y, u.low.y),
        weight_four(u.b.z, u.scale.y, u.low.y),
        weight_four(u.b.w, u.scale.y, u.low.y),
    );
}
