// heads: scales and minima of the units of Q4_K and Q5_K (device_rows).
// d sc_j and dmin mn_j of unit j of a block, from its head.
fn weight_scales(head: vec4u, j: u32) -> vec2f {
    let low = select(head.y, head.z, j > 3) >> (8 * (j & 3));
    let high = head.w >> (4 * j);
    let scale = (low & 15) | ((high & 3) << 4);
    let minimum = ((low >> 4) & 15) | ((high & 12) << 2);
    return unpack2x16float(head.x) * vec2f(f32(scale), f32(minimum));
}
