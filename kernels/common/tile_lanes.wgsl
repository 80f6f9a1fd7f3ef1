// tile_lanes: what matmul.wgsl and matmul_q8.wgsl have in common beside product_tile: the part of a
// tile that a lane has.

// Rows r, r + ROW_LANES, ... and token t of the tile.
fn quad_store(sum: vec4f, r: u32, t: u32, tile: Tile) {
    let token = tile.token0 + t;
    if (token >= tile.n) {
        return;
    }
    put(tile.row0 + r, token, tile, sum.x);
    put(tile.row0 + r + ROW_LANES, token, tile, sum.y);
    put(tile.row0 + r + 2 * ROW_LANES, token, tile, sum.z);
    put(tile.row0 + r + 3 * ROW_LANES, token, tile, sum.w);
}

// A lane's first row and token: 8 by 4 lanes beside each other read 8 rows and 4 tokens.
fn lane_row(lane: u32) -> u32 {
    return lane % 8 + lane / 32 % (ROW_LANES / 8) * 8;
}

fn lane_token(lane: u32) -> u32 {
    return lane / 8 % 4 + lane / (4 * ROW_LANES) * 4;
}
