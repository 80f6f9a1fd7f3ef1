// reduce_tree: sums over lanes through workgroup memory, for devices without subgroup operations.
// TEAM and WG are powers of two, TEAM <= WG. The order of additions is that of reduce_subgroup.
override QUARTER: u32 = max(TEAM / 4, 1);
var<workgroup> reduce_part: array<f32, WG>;

// Nothing that lanes could have of each other: kernels ask for it where there are subgroups.
fn first_eight(v: vec4u) -> array<vec4u, 8> {
    return array<vec4u, 8>(v, v, v, v, v, v, v, v);
}

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

// Sums of four numbers over the TEAM lanes, at least 4: lane i of a team gets that of component
// i / QUARTER.
fn team_sum4(v: vec4f, lane: u32) -> f32 {
    let sums = vec4f(team_sum(v.x, lane), team_sum(v.y, lane), team_sum(v.z, lane),
        team_sum(v.w, lane));
    return sums[lane % TEAM / QUARTER];
}

// Sum over the WG lanes of the workgroup; all of them get it.
fn workgroup_sum(v: f32, lane: u32) -> f32 {
    return reduce_tree(v, lane, WG);
}
