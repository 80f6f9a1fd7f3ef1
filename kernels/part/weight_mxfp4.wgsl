// weight_mxfp4: blocks of 32 in 17 bytes: exponent e, 16 bytes of nibbles ordered as Q4_0, each a
// float of 1 sign, 2 exponent and 1 mantissa bit; x = 2^(e - 128) M[q], where M = 0 1 2 3 4 6 8 12
// with sign is twice that float (OCP Microscaling Formats 1.0). Blocks start on any byte.
// Every x that is a normal number is exact, for all e: no factor is subnormal. A subnormal x (e 0
// with |M| < 4, e 1 with |M| < 2) is exact or zero, as the device treats subnormals. e 254 with
// |M| > 3 and e 255 (NaN in the specification, 2^127 M here as in quant.c) with |M| > 1 overflow.
@group(0) @binding(0) var<storage, read> w: array<u32>;

// W[row, 32 * unit .. +32]
fn weight_load(row: u32, unit: u32) -> array<vec4f, 8> {
    let block = (row * ((K + 31) / 32) + unit) * 17;
    let first = block / 4;
    let bits = 8 * (block & 3);
    // 17 bytes at any offset lie in just these five words.
    let a = vec4u(w[first], w[first + 1], w[first + 2], w[first + 3]);
    let b = vec4u(a.yzw, w[first + 4]);
    let e = (a.x >> bits) & 255;
    let codes = ((a >> vec4u(bits)) >> vec4u(8)) | (b << vec4u(24 - bits));
    let tiny = e < 2; // 2^(e - 126) M / 4
    let d = bitcast<f32>(select(e - 1, e + 1, tiny) << 23);
    let whole = select(1.0, 0.25, tiny);
    var v = array<vec4f, 8>();
    for (var i = 0u; i < 8; i++) {
        let q = vec4u(codes[i & 3]) >> (vec4u(0, 8, 16, 24) + vec4u(i & 4));
        // M is a nibble of its own table.
        let m = whole * vec4f((vec4u(0xc8643210) >> (4 * (q & vec4u(7)))) & vec4u(15));
        v[i] = d * select(m, -m, (q & vec4u(8)) != vec4u(0));
    }
    return v;
}
