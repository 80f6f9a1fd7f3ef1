//! with load, unit_made
// weight_mxfp4: x = 2^(e - 128) M[q], planes of device_rows: 4-bit q, the exponent e in a byte. q
// is a float of 1 sign, 2 exponent and 1 mantissa bit; M = 0 1 2 3 4 6 8 12 with sign is twice that
// float (OCP Microscaling Formats 1.0).
// Every x that is a normal number is exact, for all e: no factor is subnormal. A subnormal x (e 0
// with |M| < 4, e 1 with |M| < 2) is exact or zero, as the device treats subnormals; in a unit of
// bytes all x of e 0 and 1, below 2^-123, are zero. e 254 with |M| > 3 and e 255 (NaN in the
// specification, 2^127 M here as in quant.c) with |M| > 1 overflow.
@group(0) @binding(0) var<storage, read> weight_words: array<vec4u>;

// M of the low nibbles of four bytes, as signed bytes, all four at once. m is q without its sign;
// of m from 4 on the lower two bits l come again, and 2 if both are set: m + l + 2 (l == 3). A byte
// is turned round unless it is 0, which would carry into the next one.
fn weight_level(q: u32) -> u32 {
    let m = q & 0x07070707;
    let l = m & (((m >> 2) & 0x01010101) * 3);
    let size = m + l + 2 * (l & (l >> 1) & 0x01010101);
    let minus = (q & (m + 0x07070707) & 0x08080808) >> 3;
    return (size ^ (minus * 255)) + minus;
}

fn weight_levels(v: vec4u) -> vec4u {
    return vec4u(weight_level(v.x), weight_level(v.y), weight_level(v.z), weight_level(v.w));
}

struct weight_bits {
    v: vec4u,
    exponents: u32,
}

// Those of W[row, 32 * unit .. +32].
fn weight_ask(row: u32, unit: u32) -> weight_bits {
    let units = (K + 31) / 32;
    let first = row * (units + (units + 15) / 16);
    return weight_bits(weight_words[first + unit],
                       weight_words[first + units + unit / 16][unit / 4 % 4]);
}

fn weight_exponent(bits: weight_bits, unit: u32) -> u32 {
    return (bits.exponents >> (8 * (unit % 4))) & 255;
}

fn weight_made(bits: weight_bits, unit: u32) -> Unit {
    let e = weight_exponent(bits, unit);
    let d = bitcast<f32>(select(e - 1, 0u, e < 2) << 23);
    return Unit(weight_levels(bits.v), weight_levels(bits.v >> vec4u(4)), vec2f(d), vec2f());
}

// The same as floats.
fn weight_floats(bits: weight_bits, unit: u32) -> array<vec4f, 8> {
    let u = weight_made(bits, unit);
    let e = weight_exponent(bits, unit);
    let tiny = e < 2; // 2^(e - 126) M / 4
    let d = bitcast<f32>(select(e - 1, e + 1, tiny) << 23);
    let whole = select(1.0, 0.25, tiny);
    var v = array<vec4f, 8>();
    for (var i = 0u; i < 4; i++) {
        v[i] = d * (whole * vec4f(unpack4xI8(u.a[i])));
        v[i + 4] = d * (whole * vec4f(unpack4xI8(u.b[i])));
    }
    return v;
}
