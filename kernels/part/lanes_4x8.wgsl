// lanes_4x8: a lane has 4 rows by 8 tokens of the tile, four rows to a sum, ROW_LANES or
// TOKEN_LANES apart. Sums are named by constants: an array that a variable indexes lies in memory.
const LANE_ROWS = 4u;
const LANE_TOKENS = 8u;
alias Sums = array<vec4f, 8>;

fn lane_add(sum: ptr<function, Sums>, u: u32, r: u32, t: u32) {
    let w0 = quad_load(u, r);
    (*sum)[0] = quad_add((*sum)[0], w0, column_load(u, t));
    (*sum)[1] = quad_add((*sum)[1], w0, column_load(u, t + TOKEN_LANES));
    (*sum)[2] = quad_add((*sum)[2], w0, column_load(u, t + 2 * TOKEN_LANES));
    (*sum)[3] = quad_add((*sum)[3], w0, column_load(u, t + 3 * TOKEN_LANES));
    (*sum)[4] = quad_add((*sum)[4], w0, column_load(u, t + 4 * TOKEN_LANES));
    (*sum)[5] = quad_add((*sum)[5], w0, column_load(u, t + 5 * TOKEN_LANES));
    (*sum)[6] = quad_add((*sum)[6], w0, column_load(u, t + 6 * TOKEN_LANES));
    (*sum)[7] = quad_add((*sum)[7], w0, column_load(u, t + 7 * TOKEN_LANES));
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
}
