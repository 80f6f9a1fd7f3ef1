// block_whole: results of matmul_matrix that go from the matrices straight to y, and begin with y
// if ADD: in whole blocks, for which y has the rows (those from n on get anything), at multiples of
// 16 bytes, without BIAS, SCALE and EXPERTS.
fn begin(used: bool, at: u32) -> result {
    if (ADD && used) {
        return subgroupMatrixLoad<result>(&y, at, false, p.stride);
    }
    return result();
}

// One matrix to its place in y: that of a subgroup's tile (i, j).
fn finish(m: result, g: Block, lane: u32, i: u32, j: u32) {
    let sub = lane / SUBGROUP;
    let token = g.token0 + (sub / SUBS_R * TILES_T + i) * MMA;
    let row = g.row0 + (sub % SUBS_R * TILES_R + j) * MMA;
    subgroupMatrixStore(&y, g.first + token * p.stride + row, m, false, p.stride);
}
