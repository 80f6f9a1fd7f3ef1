// weight_q4_1: blocks of 32 in 20 bytes: f16 d, f16 m, 16 bytes of nibbles (low: elements 0..15,
// high: 16..31); x = d q + m.
@group(0) @binding(0) var<storage, read> w: array<u32>;

// W[row, 32 * unit .. +32]
fn weight_load(row: u32, unit: u32) -> array<vec4f, 8> {
    let block = (row * ((K + 31) / 32) + unit) * 5;
    let dm = unpack2x16float(w[block]);
    var v = array<vec4f, 8>();
    for (var i = 0u; i < 4; i++) {
        let q = vec4u(w[block + 1 + i]) >> vec4u(0, 8, 16, 24);
        v[i] = dm.x * vec4f(q & vec4u(15)) + dm.y;
        v[i + 4] = dm.x * vec4f((q >> vec4u(4)) & vec4u(15)) + dm.y;
    }
    return v;
}
