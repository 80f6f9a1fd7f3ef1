// weight_q5_k: super-blocks of 256 in 176 bytes: as Q4_K with 32 bytes of fifth bits (bit j of byte
// l belongs to element l of sub-block j) between the scales and the nibbles; x = d sc_j q - dmin
// mn_j.
@group(0) @binding(0) var<storage, read> w: array<vec4u>;

// (sc_j, mn_j) from the block's first 16 bytes.
fn scale_pair(head: vec4u, j: u32) -> vec2u {
    let shift = 8 * (j & 3);
    let a = (head.y >> shift) & 255;
    let b = (head.z >> shift) & 255;
    let c = (head.w >> shift) & 255;
    if (j < 4) {
        return vec2u(a & 63, b & 63);
    }
    return vec2u((c & 15) | ((a >> 6) << 4), (c >> 4) | ((b >> 6) << 4));
}

// W[row, 32 * unit .. +32]
fn weight_load(row: u32, unit: u32) -> array<vec4f, 8> {
    let block = (row * ((K + 255) / 256) + unit / 8) * 11;
    let j = unit & 7;
    let head = w[block];
    let pair = vec2f(scale_pair(head, j)) * unpack2x16float(head.x);
    let byte = vec4u(0, 8, 16, 24);
    let nibble = byte + vec4u(4 * (j & 1));
    let fifth = byte + vec4u(j);
    let first = block + 3 + (j / 2) * 2;
    var v = array<vec4f, 8>();
    for (var i = 0u; i < 2; i++) {
        let q = w[first + i];
        let h = w[block + 1 + i];
        for (var c = 0u; c < 4; c++) {
            let low = (vec4u(q[c]) >> nibble) & vec4u(15);
            let high = ((vec4u(h[c]) >> fifth) & vec4u(1)) << vec4u(4);
            v[4 * i + c] = pair.x * vec4f(low | high) - pair.y;
        }
    }
    return v;
}
