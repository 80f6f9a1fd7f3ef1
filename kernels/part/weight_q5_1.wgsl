// weight_q5_1: blocks of 32 in 24 bytes: f16 d, f16 m, u32 of fifth bits, 16 bytes of nibbles as
// Q4_0; x = d q + m.
@group(0) @binding(0) var<storage, read> w: array<u32>;

// W[row, 32 * unit .. +32]
fn weight_load(row: u32, unit: u32) -> array<vec4f, 8> {
    let block = (row * ((K + 31) / 32) + unit) * 6;
    let dm = unpack2x16float(w[block]);
    let high = w[block + 1];
    var v = array<vec4f, 8>();
    for (var i = 0u; i < 4; i++) {
        let q = vec4u(w[block + 2 + i]) >> vec4u(0, 8, 16, 24);
        let bit = vec4u(high) >> (vec4u(4 * i) + vec4u(0, 1, 2, 3));
        let low5 = (q & vec4u(15)) | ((bit & vec4u(1)) << vec4u(4));
        let high5 = ((q >> vec4u(4)) & vec4u(15)) | (((bit >> vec4u(16)) & vec4u(1)) << vec4u(4));
        v[i] = dm.x * vec4f(low5) + dm.y;
        v[i + 4] = dm.x * vec4f(high5) + dm.y;
    }
    return v;
}
