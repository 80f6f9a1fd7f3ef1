// halves_scale: scales of Q3_K and Q6_K (device_rows).

// d sc of a unit's halves: two signed bytes of `scales` by the unit's half float of `halves`.
fn weight_scale(scales: u32, halves: u32, unit: u32) -> vec2f {
    let sc = scales >> (16 * (unit & 1));
    let d = unpack2x16float(halves)[unit / 8 % 2];
    return d * vec2f(vec2i(vec2u(sc) << vec2u(24, 16)) >> vec2u(24));
}
