// weight_q4_k: super-blocks of 256 in 144 bytes: f16 d, f16 dmin, 12 bytes of eight 6-bit scale and
// minimum pairs, 128 bytes of nibbles (64 elements to 32 bytes, low nibbles first);
// x = d sc_j q - dmin mn_j for sub-block j of 32.
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
    let block = (row * ((K + 255) / 256) + unit / 8) * 9;
    let j = unit & 7;
    let head = w[block];
    let pair = vec2f(scale_pair(head, j)) * unpack2x16float(head.x);
    let shift = vec4u(0, 8, 16, 24) + vec4u(4 * (j & 1));
    let first = block + 1 + (j / 2) * 2;
    var v = array<vec4f, 8>();
    for (var i = 0u; i < 2; i++) {
        let q = w[first + i];
        v[4 * i] = pair.x * vec4f((vec4u(q.x) >> shift) & vec4u(15)) - pair.y;
        v[4 * i + 1] = pair.x * vec4f((vec4u(q.y) >> shift) & vec4u(15)) - pair.y;
        v[4 * i + 2] = pair.x * vec4f((vec4u(q.z) >> shift) & vec4u(15)) - pair.y;
        v[4 * i + 3] = pair.x * vec4f((vec4u(q.w) >> shift) & vec4u(15)) - pair.y;
    }
    return v;
}
