//! enable subgroups
// lanes_subgroup: joins of vectors over lanes by shuffles within TEAM lanes, TEAM at most the
// subgroup's size, and through workgroup memory across teams.
override LANES_SIZE: u32 = 2 * WG / TEAM;
var<workgroup> lanes_part: array<vec4f, LANES_SIZE>;

// The largest of each component over the WG lanes; all of them get it. The second vec4 counts only
// if PAIR. `eight` is not needed. Ends with all lanes past a barrier; needs another before it is
// called again.
fn lanes_max(a: vec4f, b: vec4f, lane: u32, eight: u32) -> array<vec4f, 2> {
    var x = a;
    var y = b;
    for (var step = TEAM / 2; step > 0; step >>= 1) {
        x = max(x, subgroupShuffleXor(x, step));
        if (PAIR) {
            y = max(y, subgroupShuffleXor(y, step));
        }
    }
    if (lane % TEAM == 0) {
        lanes_part[lane / TEAM * 2] = x;
        lanes_part[lane / TEAM * 2 + 1] = y;
    }
    workgroupBarrier();
    for (var i = 0u; i < WG / TEAM; i++) {
        x = max(x, lanes_part[2 * i]);
        if (PAIR) {
            y = max(y, lanes_part[2 * i + 1]);
        }
    }
    return array<vec4f, 2>(x, y);
}

// Sum over the FOLD lanes of a team that lie WG / FOLD ... apart: TEAM / FOLD, 2 TEAM / FOLD, ...
fn lanes_fold(v: vec4f) -> vec4f {
    var sum = v;
    for (var step = TEAM / 2; step >= TEAM / FOLD; step >>= 1) {
        sum += subgroupShuffleXor(sum, step);
    }
    return sum;
}
