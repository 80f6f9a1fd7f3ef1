// best: the largest of the lanes' values with its token, of equal ones that of the lowest token.
// A token that is nobody's comes with a value below all numbers that count.
struct Best {
    value: f32,
    token: u32,
}

var<workgroup> best_lanes: array<Best, WG>;

// Over the WG lanes of the workgroup, WG a power of two; all of them get it.
fn workgroup_best(mine: Best, lane: u32) -> Best {
    best_lanes[lane] = mine;
    for (var step = WG / 2; step > 0; step >>= 1) {
        workgroupBarrier();
        if (lane < step) {
            let a = best_lanes[lane];
            let b = best_lanes[lane + step];
            if (b.value > a.value || (b.value == a.value && b.token < a.token)) {
                best_lanes[lane] = b;
            }
        }
    }
    workgroupBarrier();
    let all = best_lanes[0];
    workgroupBarrier();
    return all;
}
