//! enable subgroups
// join_subgroup: joins of a row's figures over the COLS lanes that have it, by shuffles; COLS is at
// most the subgroup's size.
fn rows_max(x: Rows, lane: u32) -> Rows {
    var a = x.a;
    var b = x.b;
    for (var step = COLS / 2; step > 0; step >>= 1) {
        a = max(a, subgroupShuffleXor(a, step));
        if (ROWS > 4) {
            b = max(b, subgroupShuffleXor(b, step));
        }
    }
    return Rows(a, b);
}

fn rows_sum(x: Rows, lane: u32) -> Rows {
    var a = x.a;
    var b = x.b;
    for (var step = COLS / 2; step > 0; step >>= 1) {
        a += subgroupShuffleXor(a, step);
        if (ROWS > 4) {
            b += subgroupShuffleXor(b, step);
        }
    }
    return Rows(a, b);
}
