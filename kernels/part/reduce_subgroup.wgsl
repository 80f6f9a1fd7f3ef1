//! enable subgroups
// reduce_subgroup: sums over lanes by shuffles within TEAM lanes, TEAM at most the subgroup size
// (so the order of additions does not depend on that size), and through workgroup memory across
// teams.
override QUARTER: u32 = max(TEAM / 4, 1);
var<workgroup> reduce_part: array<f32, WG>;

// What the first eight lanes of the subgroup have, for all of them.
fn first_eight(v: vec4u) -> array<vec4u, 8> {
    return array<vec4u, 8>(subgroupBroadcast(v, 0u), subgroupBroadcast(v, 1u),
        subgroupBroadcast(v, 2u), subgroupBroadcast(v, 3u), subgroupBroadcast(v, 4u),
        subgroupBroadcast(v, 5u), subgroupBroadcast(v, 6u), subgroupBroadcast(v, 7u));
}

// Sum over the TEAM lanes that share lane / TEAM; all of them get it.
fn team_sum(v: f32, lane: u32) -> f32 {
    var sum = v;
    for (var step = TEAM / 2; step > 0; step >>= 1) {
        sum += subgroupShuffleXor(sum, step);
    }
    return sum;
}

// Sums of four numbers over the TEAM lanes, at least 4: lane i of a team gets that of component
// i / QUARTER. What a lane does not get it gives away, so that there is less to shuffle.
fn team_sum4(v: vec4f, lane: u32) -> f32 {
    let upper = (lane & (TEAM / 2)) != 0;
    let pair = select(v.xy, v.zw, upper) +
        subgroupShuffleXor(select(v.zw, v.xy, upper), TEAM / 2);
    let second = (lane & QUARTER) != 0;
    var sum = select(pair.x, pair.y, second) +
        subgroupShuffleXor(select(pair.y, pair.x, second), QUARTER);
    for (var step = TEAM / 8; step > 0; step >>= 1) {
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
