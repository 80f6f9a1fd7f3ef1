// block_edges: results of matmul_matrix that go to y by way of workgroup memory, and only where
// they belong.
var<workgroup> edge: array<f32, SUBS * MMA * MMA>;

fn begin(used: bool, at: u32) -> result {
    return result();
}

// One matrix to its place in y: that of a subgroup's tile (i, j).
fn finish(m: result, g: Block, lane: u32, i: u32, j: u32) {
    let sub = lane / SUBGROUP;
    let first_token = g.token0 + (sub / SUBS_R * TILES_T + i) * MMA;
    let first = g.row0 + (sub % SUBS_R * TILES_R + j) * MMA;
    workgroupBarrier();
    subgroupMatrixStore(&edge, sub * MMA * MMA, m, false, MMA);
    workgroupBarrier();
    for (var e = lane % SUBGROUP; e < MMA * MMA; e += SUBGROUP) {
        let token = first_token + e / MMA;
        let row = first + e % MMA;
        if (token < g.n && row < p.rows) {
            let at = g.first + y_row(token) * p.stride + row;
            var s = edge[sub * MMA * MMA + e];
            if (BIAS) {
                s += bias[g.bias_row + row];
            }
            s *= SCALE;
            if (ADD) {
                s += y[at];
            }
            y[at] = s;
        }
    }
}
