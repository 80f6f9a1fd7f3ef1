// spans: how the keys that a row sees are divided among the workgroups of attend_decode. One span
// takes up to ONE keys; more are divided evenly over spans of at least SPAN, at most SPLITS of
// them. It hangs on the row and on whether it is the only one (ONE), not on its neighbours.
struct Spans {
    start: u32, // of the first one, a multiple of PAGE: some of its keys may lie before the window
    per: u32,   // keys to a span, all but the last; a multiple of PAGE unless there is one span
    n: u32,
}

fn spans_of(n_keys: u32) -> Spans {
    var start = 0u;
    if (WINDOW > 0 && n_keys > WINDOW) {
        start = (n_keys - WINDOW) / PAGE * PAGE;
    }
    let count = n_keys - start;
    if (count <= ONE) {
        return Spans(start, count, 1u);
    }
    let most = min((count + SPAN - 1) / SPAN, SPLITS);
    let per = ((count + most - 1) / most + PAGE - 1) / PAGE * PAGE;
    return Spans(start, per, (count + per - 1) / per);
}
