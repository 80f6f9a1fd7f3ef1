// fifths: the bytes of Q5_0, Q5_1 and Q5_K (device_rows).

// Low nibbles with bit k of each byte of `high` as the fifth bit of word k's bytes.
fn weight_five(v: vec4u, high: u32) -> vec4u {
    return (v & vec4u(0x0f0f0f0f)) |
        (((vec4u(high) >> vec4u(0, 1, 2, 3)) & vec4u(0x01010101)) << vec4u(4));
}
