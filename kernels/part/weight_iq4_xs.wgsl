// weight_iq4_xs: super-blocks of 256 in 136 bytes: f16 d, 16 bits of upper scale bits (two to each
// sub-block of 32), 32 bits of lower ones (four to each), 128 bytes of nibbles (32 elements to 16
// bytes, ordered as Q4_0), each the number of one of IQ4_NL's 16 levels; x = d (sc_j - 32) T[q].
@group(0) @binding(0) var<storage, read> w: array<vec2u>;

// T[q] of four codes. T is -127 -104 -83 -65, -49 -35 -22 -10, 1 13 25 38, 53 69 89 113, kept as
// four words of signed bytes: selected, since an array that is indexed by a code lies in memory.
fn level(q: vec4u) -> vec4f {
    let upper = (q & vec4u(4)) != vec4u(0);
    let negative = select(vec4u(0xbfad9881), vec4u(0xf6eaddcf), upper);
    let positive = select(vec4u(0x26190d01), vec4u(0x71594535), upper);
    let four = select(negative, positive, (q & vec4u(8)) != vec4u(0));
    return vec4f(bitcast<vec4i>(four << (vec4u(24) - 8 * (q & vec4u(3)))) >> vec4u(24));
}

// W[row, 32 * unit .. +32]
fn weight_load(row: u32, unit: u32) -> array<vec4f, 8> {
    let block = (row * ((K + 255) / 256) + unit / 8) * 17;
    let j = unit & 7;
    let head = w[block];
    let sc = ((head.y >> (4 * j)) & 15) | (((head.x >> (16 + 2 * j)) & 3) << 4);
    let d = unpack2x16float(head.x).x * (f32(sc) - 32.0);
    let first = block + 1 + 2 * j;
    var v = array<vec4f, 8>();
    for (var i = 0u; i < 4; i++) {
        let q = vec4u(w[first + i / 2][i & 1]) >> vec4u(0, 8, 16, 24);
        v[i] = d * level(q & vec4u(15));
        v[i + 4] = d * level((q >> vec4u(4)) & vec4u(15));
    }
    return v;
}
