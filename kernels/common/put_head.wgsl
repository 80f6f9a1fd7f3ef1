// put_head: columns [16 i, 16 i + 16) of the heads of attention's output, H16 to a head. If PLAIN
// act_odd takes as many as there are; else HEAD_DIM is a multiple of 16.
fn put_head(row: u32, i: u32, v: array<vec4f, 4>) {
    if (PLAIN) {
        let at = 16 * (i % H16);
        let count = min(HEAD_DIM - at, 16u);
        act_put(row, N_HEADS * HEAD_DIM, 32 * (i / H16 * HEAD_DIM + at) + count, v);
    } else {
        act_put(row, (N_HEADS * H16 + 1) / 2, i, v);
    }
}

// 1 for the last head if zeros have to follow it, so that its unit of 32 columns is whole.
fn filler(end: u32) -> u32 {
    return select(0u, 1u, !PLAIN && end == N_HEADS && N_HEADS * H16 % 2 == 1);
}
