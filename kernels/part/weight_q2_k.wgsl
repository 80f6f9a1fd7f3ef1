//! with load, unit_floats, unit_made
// weight_q2_k: x = d sc q - dmin mn, sc and mn of 16 columns, planes of device_rows: 2-bit q; per
// block of 256 16 bytes of sc (low nibble) and mn (high); f16 d and dmin.
@group(0) @binding(0) var<storage, read> weight_words: array<vec4u>;

struct weight_bits {
    two: vec4u,
    scales: u32,
    halves: u32,
}

// Those of W[row, 32 * unit .. +32].
fn weight_ask(row: u32, unit: u32) -> weight_bits {
    let blocks = (K + 255) / 256;
    let scales = 4 * blocks;
    let first = row * (5 * blocks + (blocks + 3) / 4);
    let block = unit / 8;
    return weight_bits(weight_words[first + unit / 2],
                       weight_words[first + scales + block][unit / 2 % 4],
                       weight_words[first + scales + blocks + block / 4][block % 4]);
}

fn weight_made(bits: weight_bits, unit: u32) -> Unit {
    let v = select(bits.two.xy, bits.two.zw, (unit & 1) != 0);
    let sm = bits.scales >> (16 * (unit & 1));
    let d = unpack2x16float(bits.halves);
    let a = (vec4u(v.x) >> vec4u(0, 2, 4, 6)) & vec4u(0x03030303);
    let b = (vec4u(v.y) >> vec4u(0, 2, 4, 6)) & vec4u(0x03030303);
    return Unit(a, b, d.x * vec2f((vec2u(sm) >> vec2u(0, 8)) & vec2u(15)),
        d.y * vec2f((vec2u(sm) >> vec2u(4, 12)) & vec2u(15)));
}
