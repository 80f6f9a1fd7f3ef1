// score_rows: what attend_prefill and attend_matrix do with rows of scores, of which a lane has
// four keys COLS apart.

// LOW where the query at `pos` sees none of the keys j, j + COLS, ...
fn masked(s: vec4f, j: u32, pos: u32) -> vec4f {
    let key = vec4u(j, j + COLS, j + 2 * COLS, j + 3 * COLS);
    var seen = key <= vec4u(pos);
    if (WINDOW > 0) {
        seen = seen & (key + WINDOW > vec4u(pos));
    }
    return select(vec4f(LOW), s, seen);
}

fn largest(s: vec4f) -> f32 {
    return max(max(s.x, s.y), max(s.z, s.w));
}

// 1 / l of a row whose largest score is m, with the sink of its head as one more score without a
// value if SINKS.
fn row_factor(m: f32, l: f32, head: u32) -> f32 {
    if (!SINKS) {
        return 1 / l;
    }
    let sink = sinks[min(head, N_HEADS - 1)];
    let top = max(m, sink);
    let e = exp(m - top);
    return e / (l * e + exp(sink - top));
}
