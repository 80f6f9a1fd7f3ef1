// weight_q8_0: blocks of 32 in 34 bytes: f16 d, 32 signed bytes; x = d q. Blocks start on even
// bytes.
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
    let block = (row * ((K + 31) / 32) + unit) * 34;
    let d = unpack2x16float(word_at(block)).x;
    var v = array<vec4f, 8>();
    for (var i = 0u; i < 8; i++) {
        let q = bitcast<vec4i>(vec4u(word_at(block + 2 + 4 * i)) << vec4u(24, 16, 8, 0));
        v[i] = d * vec4f(q >> vec4u(24));
    }
    return v;
}
