// weight_q5_0: blocks of 32 in 22 bytes: f16 d, u32 of fifth bits, 16 bytes of nibbles as Q4_0;
// x = d (q - 16). Blocks start on even bytes.
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
    let block = (row * ((K + 31) / 32) + unit) * 22;
    let d = unpack2x16float(word_at(block)).x;
    let high = word_at(block + 2);
    var v = array<vec4f, 8>();
    for (var i = 0u; i < 4; i++) {
        let q = vec4u(word_at(block + 6 + 4 * i)) >> vec4u(0, 8, 16, 24);
        let bit = vec4u(high) >> (vec4u(4 * i) + vec4u(0, 1, 2, 3));
        let low5 = (q & vec4u(15)) | ((bit & vec4u(1)) << vec4u(4));
        let high5 = ((q >> vec4u(4)) & vec4u(15)) | (((bit >> vec4u(16)) & vec4u(1)) << vec4u(4));
        v[i] = d * (vec4f(low5) - 16.0);
        v[i + 4] = d * (vec4f(high5) - 16.0);
    }
    return v;
}
