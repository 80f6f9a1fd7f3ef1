// lanes_8x4w: a lane has 8 rows by 4 tokens of the tile, four rows to a sum, ROW_LANES or
// TOKEN_LANES apart. Sums are named by constants: an array that a variable indexes lies in memory.
const LANE_ROWS = 8u;
const LANE_TOKENS = 4u;
alias Sums = array<vec4f, 8>;

fn lane_add(sum: ptr<function, Sums>, u: u32, r: u32, t: u32) {
    let w0 = quad_load(u, r);
    let w1 = quad_load(u, r + 4 * ROW_LANES);
    let c0 = column_load(u, t);
    (*sum)[0] = quad_add((*sum)[0], w0, c0);
    (*sum)[4] = quad_add((*sum)[4], w1, c0);
    let c1 = column_load(u, t + TOKEN_LANES);
    (*sum)[1] = quad_add((*sum)[1], w0, c1);
    (*sum)[5] = quad_add((*sum)[5], w1, c1);
    let c2 = column_load(u, t + 2 * TOKEN_LANES);
    (*sum)[2] = quad_add((*sum)[2], w0, c2);
    (*sum)[6] = quad_add((*sum)[6], w1, c2);
    let c3 = column_load(u, t + 3 * TOKEN_LANES);
    (*sum)[3] = quad_add((*sum)[3], w0, c3);
    (*sum)[7] = quad_add((*sum)[7], w1, c3);
}

fn lane_store(sum: ptr<function, Sums>, r: u32, t: u32, tile: Tile) {
    quad_store((*sum)[0], r, t, tile);
    quad_store((*sum)[1], r, t + TOKEN_LANES, tile);
    quad_store((*sum)[2], r, t + 2 * TOKEN_LANES, tile);
    quad_store((*sum)[3], r, t + 3 * TOKEN_LANES, tile);
    quad_store((*sum)[4], r + 4 * ROW_LANES, t, tile);
    quad_store((*sum)[5], r + 4 * ROW_LANES, t + TOKEN_LANES, tile);
    quad_store((*sum)[6], r + 4 * ROW_LANES, t + 2 * TOKEN_LANES, tile);
    quad_store((*sum)[7], r + 4 * ROW_LANES, t + 3 * TOKEN_LANES, tile);
}
