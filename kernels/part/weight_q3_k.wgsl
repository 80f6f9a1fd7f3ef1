// weight_q3_k: super-blocks of 256 in 110 bytes: 32 bytes of third bits (bit j of byte l belongs to
// element l of sub-block j of 32), 64 bytes of bit pairs as Q2_K, 12 bytes of sixteen 6-bit scales
// (low nibbles of all in the first 8, upper bit pairs in the last 4), f16 d;
// x = d (sc - 32) (q - 4). Blocks start on even bytes.
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
    let block = (row * ((K + 255) / 256) + unit / 8) * 110;
    let half = (unit & 7) / 4; // 128 elements each
    let j = unit & 3;
    let end = block + 108; // of the last block there is no word behind d
    let d = unpack2x16float(w[end / 4] >> (8 * (end & 2))).x;
    let low = word_at(block + 96 + 2 * j) >> (4 * half);
    let high = word_at(block + 104 + 2 * (j & 1)) >> (2 * (2 * half + j / 2));
    let sc = ((vec2u(low) >> vec2u(0, 8)) & vec2u(15)) |
        (((vec2u(high) >> vec2u(0, 8)) & vec2u(3)) << vec2u(4));
    let scale = d * (vec2f(sc) - 32.0);
    let pair = vec4u(0, 8, 16, 24) + vec4u(2 * j);
    let third = vec4u(0, 8, 16, 24) + vec4u(unit & 7);
    let first = block + 32 + 32 * half;
    var v = array<vec4f, 8>();
    for (var i = 0u; i < 8; i++) {
        let q = ((vec4u(word_at(first + 4 * i)) >> pair) & vec4u(3)) |
            (((vec4u(word_at(block + 4 * i)) >> third) & vec4u(1)) << vec4u(2));
        v[i] = select(scale.x, scale.y, i >= 4) * (vec4f(q) - 4.0);
    }
    return v;
}
