// lanes_8x8w: a lane has 8 rows by 8 tokens of the tile, four rows to a sum, ROW_LANES or
// TOKEN_LANES apart. Sums are named by constants: an array that a variable indexes lies in memory.
const LANE_ROWS = 8u;
const LANE_TOKENS = 8u;
alias Sums = array<vec4f, 16>;

fn lane_add(sum: ptr<function, Sums>, u: u32, r: u32, t: u32) {
    let w0 = quad_load(u, r);
    let w1 = quad_load(u, r + 4 * ROW_LANES);
    let c0 = column_load(u, t);
    (*sum)[0] = quad_add((*sum)[0], w0, c0);
    (*sum)[8] = quad_add((*sum)[8], w1, c0);
    let c1 = column_load(u, t + TOKEN_LANES);
    (*sum)[1] = quad_add((*sum)[1], w0, c1);
    (*sum)[9] = quad_add((*sum)[9], w1, c1);
    let c2 = column_load(u, t + 2 * TOKEN_LANES);
    (*sum)[2] = quad_add((*sum)[2], w0, c2);
    (*sum)[10] = quad_add((*sum)[10], w1, c2);
    let c3 = column_load(u, t + 3 * TOKEN_LANES);
    (*sum)[3] = quad_add((*sum)[3], w0, c3);
    (*sum)[11] = quad_add((*sum)[11], w1, c3);
    let c4 = column_load(u, t + 4 * TOKEN_LANES);
    (*sum)[4] = quad_add((*sum)[4], w0, c4);
    (*sum)[12] = quad_add((*sum)[12], w1, c4);
    let c5 = column_load(u, t + 5 * TOKEN_LANES);
    (*sum)[5] = quad_add((*sum)[5], w0, c5);
    (*sum)[13] = quad_add((*sum)[13], w1, c5);
    let c6 = column_load(u, t + 6 * TOKEN_LANES);
    (*sum)[6] = quad_add((*sum)[6], w0, c6);
    (*sum)[14] = quad_add((*sum)[14], w1, c6);
    let c7 = column_load(u, t + 7 * TOKEN_LANES);
    (*sum)[7] = quad_add((*sum)[7], w0, c7);
    (*sum)[15] = quad_add((*sum)[15], w1, c7);
}

fn lane_store(sum: ptr<function, Sums>, r: u32, t: u32, tile: Tile) {
    quad_store((*sum)[0], r, t, tile);
    quad_store((*sum)[1], r, t + TOKEN_LANES, tile);
    quad_store((*sum)[2], r, t + 2 * TOKEN_LANES, tile);
    quad_store((*sum)[3], r, t + 3 * TOKEN_LANES, tile);
    quad_store((*sum)[4], r, t + 4 * TOKEN_LANES, tile);
    quad_store((*sum)[5], r, t + 5 * TOKEN_LANES, tile);
    quad_store((*sum)[6], r, t + 6 * TOKEN_LANES, tile);
    quad_store((*sum)[7], r, t + 7 * TOKEN_LANES, tile);
    quad_store((*sum)[8], r + 4 * ROW_LANES, t, tile);
    quad_store((*sum)[9], r + 4 * ROW_LANES, t + TOKEN_LANES, tile);
    quad_store((*sum)[10], r + 4 * ROW_LANES, t + 2 * TOKEN_LANES, tile);
    quad_store((*sum)[11], r + 4 * ROW_LANES, t + 3 * TOKEN_LANES, tile);
    quad_store((*sum)[12], r + 4 * ROW_LANES, t + 4 * TOKEN_LANES, tile);
    quad_store((*sum)[13], r + 4 * ROW_LANES, t + 5 * TOKEN_LANES, tile);
    quad_store((*sum)[14], r + 4 * ROW_LANES, t + 6 * TOKEN_LANES, tile);
    quad_store((*sum)[15], r + 4 * ROW_LANES, t + 7 * TOKEN_LANES, tile);
}
