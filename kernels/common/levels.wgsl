// levels: IQ4_NL's 16 levels by their 4-bit codes (formats of llama.cpp).
// T[q] of the low nibbles of four bytes. T is -127 -104 -83 -65, -49 -35 -22 -10, 1 13 25 38, 53 69
// 89 113, kept as four words of signed bytes: selected, since an array that is indexed by a code
// lies in memory.
fn weight_level(q: u32) -> u32 {
    var four = 0u;
    for (var i = 0u; i < 4; i++) {
        let code = q >> (8 * i);
        let negative = select(0xbfad9881u, 0xf6eaddcfu, (code & 4) != 0);
        let positive = select(0x26190d01u, 0x71594535u, (code & 4) != 0);
        let byte = select(negative, positive, (code & 8) != 0) >> (8 * (code & 3));
        four |= (byte & 255) << (8 * i);
    }
    return four;
}

fn weight_levels(v: vec4u) -> vec4u {
    return vec4u(weight_level(v.x), weight_level(v.y), weight_level(v.z), weight_level(v.w));
}
