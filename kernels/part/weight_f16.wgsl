// weight_f16: rows of IEEE half floats, two to a word; K a multiple of 4.
@group(0) @binding(0) var<storage, read> w: array<vec2u>;

// W[row, 32 * unit .. +32], zero past K.
fn weight_load(row: u32, unit: u32) -> array<vec4f, 8> {
    var v = array<vec4f, 8>();
    for (var i = 0u; i < 8; i++) {
        if (K % 32 == 0 || unit * 32 + i * 4 < K) {
            let h = w[row * (K / 4) + unit * 8 + i];
            v[i] = vec4f(unpack2x16float(h.x), unpack2x16float(h.y));
        }
    }
    return v;
}
