// one_span: the end of a row whose keys are one span: act = o / l, with the head's sink in m and l
// if SINKS. In `pool` from `first` on lie the sums o of the heads [HEADS][C4], span_l(h) is the sum
// l of one of them.
fn finish(row: u32, head: u32, n_heads: u32, first: u32, m: vec4f, lane: u32) {
    let halves = n_heads * H16;
    for (var i = lane; i < halves + filler(head + n_heads); i += WG) {
        let h = min(i / H16, n_heads - 1);
        let l = span_l(h);
        var by = 1.0 / l; // once: a division takes as long as many multiplications
        if (SINKS) {
            let sink = w[p.sinks + head + h];
            let e = exp(m[h] - max(m[h], sink));
            by = e / (l * e + exp(sink - max(m[h], sink)));
        }
        var v = array<vec4f, 4>();
        for (var c = 0u; c < 4; c++) {
            if (i < halves && i % H16 * 4 + c < C4) {
                v[c] = pool[first + h * C4 + i % H16 * 4 + c] * by;
            }
        }
        put_head(row, head * H16 + i, v);
    }
}
