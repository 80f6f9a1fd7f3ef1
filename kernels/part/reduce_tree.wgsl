// reduce_tree: sums over lanes through workgroup memory, for devices without subgroup operations.
// TEAM and WG are powers of two, TEAM <= WG. The order of additions is that of reduce_subgroup.
var<workgroup> reduce_part: array<f32, WG>;

fn reduce_tree(v: f32, lane: u32, width: u32) -> f32 {
    reduce_part[lane] = v;
    for (var step = width / 2; step > 0; step >>= 1) {
        workgroupBarrier();
        if ((lane & (width - 1)) < step) {
            reduce_part[lane] += reduce_part[lane + step];
        }
    }
    workgroupBarrier();
    let sum = reduce_part[lane & ~(width - 1)];
    workgroupBarrier();
    return sum;
}

// Sum over the TEAM lanes that share lane / TEAM; all of them get it.
fn team_sum(v: f32, lane: u32) -> f32 {
    return reduce_tree(v, lane, TEAM);
}

// Sum over the WG lanes of the workgroup; all of them get it.
fn workgroup_sum(v: f32, lane: u32) -> f32 {
    return reduce_tree(v, lane, WG);
}
