//! enable subgroups
// reduce_subgroup: sums over lanes by shuffles within TEAM lanes, TEAM at most the subgroup size
// (so the order of additions does not depend on that size), and through workgroup memory across
// teams.
var<workgroup> reduce_part: array<f32, WG>;

// Sum over the TEAM lanes that share lane / TEAM; all of them get it.
fn team_sum(v: f32, lane: u32) -> f32 {
    var sum = v;
    for (var step = TEAM / 2; step > 0; step >>= 1) {
        sum += subgroupShuffleXor(sum, step);
    }
    return sum;
}

// Sum over the WG lanes of the workgroup; all of them get it.
fn workgroup_sum(v: f32, lane: u32) -> f32 {
    let sum = team_sum(v, lane);
    if (lane % TEAM == 0) {
        reduce_part[lane / TEAM] = sum;
    }
    workgroupBarrier();
    var total = 0.0;
    for (var i = 0u; i < WG / TEAM; i++) {
        total += reduce_part[i];
    }
    workgroupBarrier();
    return total;
}
