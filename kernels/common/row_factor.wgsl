// row_factor: 1 / l of a row of attention whose largest score is m, with the sink of its head as
// one more score without a value if SINKS.
fn row_factor(m: f32, l: f32, head: u32) -> f32 {
    if (!SINKS) {
        return 1 / l;
    }
    let sink = sinks[min(head, N_HEADS - 1)];
    let top = max(m, sink);
    let e = exp(m - top);
    return e / (l * e + exp(sink - top));
}
