// pairs: rows of numbers of 16 bits, two to a word. weight_four makes floats of four of them.

struct weight_bits {
    a: vec4u,
    b: vec4u,
    c: vec4u,
    d: vec4u,
}

// Those of W[row, 32 * unit .. +32], zero past K.
fn weight_ask(row: u32, unit: u32) -> weight_bits {
    let units = (K + 31) / 32;
    let at = row * 4 * units + unit;
    return weight_bits(weight_words[at], weight_words[at + units], weight_words[at + 2 * units],
                       weight_words[at + 3 * units]);
}

fn weight_floats(bits: weight_bits, unit: u32) -> array<vec4f, 8> {
    return array<vec4f, 8>(weight_four(bits.a.xy), weight_four(bits.a.zw), weight_four(bits.b.xy),
        weight_four(bits.b.zw), weight_four(bits.c.xy), weight_four(bits.c.zw),
        weight_four(bits.d.xy), weight_four(bits.d.zw));
}
