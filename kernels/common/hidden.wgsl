// hidden: columns of a feed-forward network's hidden vector out of the sums of products: h =
// act(Wg x + bg) (Wu x + bu) (Shazeer 2020), or act(Wu x + bu) if UNGATED. If BIAS, up's stand
// UP_BIAS behind gate's in `bias`. A team has PAIRS rows of each matrix, a workgroup COLUMNS
// columns of h, a multiple of 16.
override PAIRS: u32 = select(ROWS / 2, ROWS, UNGATED);
override COLUMNS: u32 = GROUP_ROWS / ROWS * PAIRS;
override HIDDEN: u32 = COLUMNS * TOKENS;
var<workgroup> hidden: array<f32, HIDDEN>; // [token][column]

// Column c of the workgroup's, whose first bias is number b.
fn hidden_at(t: u32, c: u32, b: u32) -> f32 {
    let at = c / PAIRS * ROWS + c % PAIRS;
    let last = at + ROWS - PAIRS; // up's, or the only one
    var up = product_at(t, last) * input_scale[t];
    if (BIAS) {
        up += bias[b + UP_BIAS];
    }
    if (UNGATED) {
        return activated(vec4f(up)).x;
    }
    var gate = product_at(t, at) * input_scale[t];
    if (BIAS) {
        gate += bias[b];
    }
    return gated(vec4f(gate), vec4f(up)).x;
}

// Columns first .. first + COLUMNS of h for rows row .. row + n of act, biases from number b on.
// Behind the barrier that products needs.
fn put_hidden(row: u32, n: u32, first: u32, b: u32, lane: u32) {
    for (var i = lane; i < HIDDEN; i += WG) {
        let c = i % COLUMNS;
        hidden[i] = hidden_at(i / COLUMNS, c, b + min(first + c, FFN - 1));
    }
    workgroupBarrier();
    for (var i = lane; i < HIDDEN / 16; i += WG) {
        let t = i * 16 / COLUMNS;
        let half = first / 16 + i % (COLUMNS / 16);
        if (t < n && half * 16 < FFN) {
            let at = i * 16;
            var v: array<vec4f, 4>;
            v[0] = vec4f(hidden[at], hidden[at + 1], hidden[at + 2], hidden[at + 3]);
            v[1] = vec4f(hidden[at + 4], hidden[at + 5], hidden[at + 6], hidden[at + 7]);
            v[2] = vec4f(hidden[at + 8], hidden[at + 9], hidden[at + 10], hidden[at + 11]);
            v[3] = vec4f(hidden[at + 12], hidden[at + 13], hidden[at + 14], hidden[at + 15]);
            act_put(row + t, FFN / 32, half, v);
        }
    }
}
