// weight_q2_k: super-blocks of 256 in 84 bytes: 16 bytes of scale (low nibble) and minimum (high),
// one to 16 elements, 64 bytes of bit pairs (128 elements to 32 bytes, the low pairs first), f16 d,
// f16 dmin; x = d sc q - dmin mn. Blocks are whole words.
@group(0) @binding(0) var<storage, read> w: array<u32>;

// W[row, 32 * unit .. +32]
fn weight_load(row: u32, unit: u32) -> array<vec4f, 8> {
    let block = (row * ((K + 255) / 256) + unit / 8) * 21;
    let half = (unit & 7) / 4; // 128 elements each
    let j = unit & 3;
    let scales = w[block + 2 * half + j / 2] >> (16 * (j & 1));
    let d = unpack2x16float(w[block + 20]);
    let scale = d.x * vec2f((vec2u(scales) >> vec2u(0, 8)) & vec2u(15));
    let minimum = d.y * vec2f((vec2u(scales) >> vec2u(4, 12)) & vec2u(15));
    let pair = vec4u(0, 8, 16, 24) + vec4u(2 * j);
    let first = block + 4 + 8 * half;
    var v = array<vec4f, 8>();
    for (var i = 0u; i < 4; i++) {
        v[i] = scale.x * vec4f((vec4u(w[first + i]) >> pair) & vec4u(3)) - minimum.x;
        v[i + 4] = scale.y * vec4f((vec4u(w[first + 4 + i]) >> pair) & vec4u(3)) - minimum.y;
    }
    return v;
}
