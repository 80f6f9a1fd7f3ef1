// weight_q6_k: super-blocks of 256 in 210 bytes: 128 bytes of low nibbles, 64 of upper bit pairs,
// 16 signed scales (one to 16 elements), f16 d; x = d sc (q - 32). Blocks start on even bytes.
@group(0) @binding(0) var<storage, read> w: array<u32>;

// The word at an even byte address.
fn word_at(byte: u32) -> u32 {
    let i = byte / 4;
    if ((byte & 2) == 0) {
        return w[i];
    }
    return (w[i] >> 16) | (w[i + 1] << 16);
}

// W[row, 32 * unit .. +32]
fn weight_load(row: u32, unit: u32) -> array<vec4f, 8> {
    let block = (row * ((K + 255) / 256) + unit / 8) * 210;
    let half = (unit & 7) / 4; // 128 elements each
    let j = unit & 3;
    let low = block + 64 * half + 32 * (j & 1);
    let high = block + 128 + 32 * half;
    let nibble = vec4u(0, 8, 16, 24) + vec4u(4 * (j / 2));
    let pair = vec4u(0, 8, 16, 24) + vec4u(2 * j);
    let d = unpack2x16float(word_at(block + 208)).x;
    let scales = word_at(block + 192 + 8 * half + 2 * j);
    let scale = vec2f(vec2i(vec2u(scales) << vec2u(24, 16)) >> vec2u(24)) * d;
    var v = array<vec4f, 8>();
    for (var i = 0u; i < 8; i++) {
        let q = ((vec4u(word_at(low + 4 * i)) >> nibble) & vec4u(15)) |
            (((vec4u(word_at(high + 4 * i)) >> pair) & vec4u(3)) << vec4u(4));
        v[i] = select(scale.x, scale.y, i >= 4) * (vec4f(q) - 32.0);
    }
    return v;
}
