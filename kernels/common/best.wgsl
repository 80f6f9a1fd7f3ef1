// best: the largest of the lanes' values with its token, of equal ones that of the lowest token.
// A token that is nobody's comes with a value below all numbers that count.
struct Best {
    value: f32,
    token: u32,
}

var<workgroup> best_lanes: array<Best, WG>;

fn better(a: Best, b: Best) -> Best {
    if (b.value > a.value || (b.value == a.value && b.token < a.token)) {
        return b;
    }
    return a;
}

// Over the WG lanes of the workgroup, WG a power of two; all of them get it. By fours, since
// barriers take longer than comparisons.
fn workgroup_best(mine: Best, lane: u32) -> Best {
    best_lanes[lane] = mine;
    for (var n = WG; n > 1; n = (n + 3) / 4) {
        workgroupBarrier();
        let step = (n + 3) / 4;
        if (lane < step) {
            var best = best_lanes[lane];
            for (var i = lane + step; i < n; i += step) {
                best = better(best, best_lanes[i]);
            }
            best_lanes[lane] = best;
        }
    }
    workgroupBarrier();
    let all = best_lanes[0];
    workgroupBarrier();
    return all;
}
