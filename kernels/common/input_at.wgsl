// input_at: what a feed-forward network's second matrix reads: rows of x [n, K] as they are, or, if
// GATED, what the activation makes of them (Shazeer 2020): act(g) u of x [n, 2 K], gate and up side
// by side, or act(x) if UNGATED. act as in common/activation.

// Columns 4 c .. 4 c + 3 of a row.
fn input_at(row: u32, c: u32) -> vec4f {
    if (GATED && !UNGATED) {
        let at = row * (K / 2) + c;
        return gated(x[at], x[at + K / 4]);
    }
    let v = x[row * (K / 4) + c];
    if (GATED) {
        return activated(v);
    }
    return v;
}
