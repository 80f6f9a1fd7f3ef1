// weight_iq4_nl: blocks of 32 in 18 bytes: f16 d, 16 bytes of nibbles as Q4_0, each the number of
// one of 16 levels; x = d T[q]. Blocks start on even bytes.
@group(0) @binding(0) var<storage, read> w: array<u32>;

// The word at an even byte address.
fn word_at(byte: u32) -> u32 {
    let i = byte / 4;
    if ((byte & 2) == 0) {
        return w[i];
    }
    return (w[i] >> 16) | (w[i + 1] << 16);
}

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
    let block = (row * ((K + 31) / 32) + unit) * 18;
    let d = unpack2x16float(word_at(block)).x;
    var v = array<vec4f, 8>();
    for (var i = 0u; i < 4; i++) {
        let q = vec4u(word_at(block + 2 + 4 * i)) >> vec4u(0, 8, 16, 24);
        v[i] = d * level(q & vec4u(15));
        v[i + 4] = d * level((q >> vec4u(4)) & vec4u(15));
    }
    return v;
}
