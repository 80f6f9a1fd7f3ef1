// product_tile: what matmul.wgsl, matmul_q8.wgsl and matmul_rows.wgsl have in common: where a
// workgroup's tile lies and where its sums go.
// With EXPERTS, W is [slots, rows, K], b [experts, rows], and the tokens of a tile are pairs (row,
// one of its experts) of the same expert, as expert_group made them: x has a row for X_PER pairs, y
// one for each. The expert's slot is place[expert]; tiles whose slot is not among those bound are
// left to another dispatch.
// With SPLIT workgroup z makes the sums over units [z p.units, (z + 1) p.units) alone, as
// y [z, n_max, rows], which matmul_sum adds up.
struct Tile {
    row0: u32,
    token0: u32,
    n: u32,         // tokens end here
    first_row: u32, // of the expert in W
    bias_row: u32,
    split: u32,
    unit: u32, // units [unit, end)
    end: u32,
}

// No tokens: nothing to do. Read-only and the same for all lanes: barriers stay uniform.
fn tile_of(group: vec3u) -> Tile {
    var tile = Tile(group.x * ROWS, group.y * TOKENS, sizes[p.counted], 0, p.bias_first, group.z, 0,
                    UNITS);
    if (EXPERTS) {
        let pairs = expert_tiles[group.y];
        let slot = place[pairs.x];
        tile.token0 = pairs.y;
        tile.n = pairs.y + pairs.z;
        if (slot - p.first_slot >= p.slots) { // earlier slots wrap round
            tile.n = pairs.y;
        }
        tile.first_row = (slot - p.first_slot) * p.rows;
        tile.bias_row = pairs.x * p.rows;
    }
    if (SPLIT) {
        tile.unit = group.z * p.units;
        tile.end = min(UNITS, tile.unit + p.units);
    }
    return tile;
}

// The row of y that token t has.
fn y_row(t: u32) -> u32 {
    if (EXPERTS) {
        return order[t];
    }
    return t;
}

fn put(row: u32, token: u32, tile: Tile, sum: f32) {
    if (row >= p.rows) {
        return;
    }
    if (SPLIT) {
        y[(tile.split * p.n_max + token) * p.rows + row] = sum;
        return;
    }
    let at = y_row(token) * p.stride + p.column + row;
    var s = sum;
    if (BIAS) {
        s += bias[tile.bias_row + row];
    }
    s *= SCALE;
    if (ADD) {
        s += y[at];
    }
    y[at] = s;
}
