// tile_f32: a tile of matmul in floats. Tiles are [4 columns][row]: lanes beside each other read
// neighbours. One more vec4 keeps the columns of a token, which are written side by side, off each
// other's banks.
const STEPS = 8u; // of 4 columns
override W_PITCH: u32 = ROWS + 1;
override X_PITCH: u32 = TOKENS + 1;
override W_SIZE: u32 = 8 * W_PITCH;
override X_SIZE: u32 = 8 * X_PITCH;

var<workgroup> w_tile: array<vec4f, W_SIZE>;
var<workgroup> x_tile: array<vec4f, X_SIZE>;

fn stage_w(tile: Tile, unit: u32, lane: u32) {
    for (var i = lane; i < ROWS; i += LANES) {
        var v = array<vec4f, 8>();
        if (tile.row0 + i < p.rows) {
            v = weight_load(tile.first_row + tile.row0 + i, unit);
        }
        for (var c = 0u; c < 8; c++) {
            w_tile[c * W_PITCH + i] = v[c];
        }
    }
}

// The lanes that have rows of W to decode come last.
fn stage_x(tile: Tile, unit: u32, lane: u32) {
    for (var i = LANES - 1 - lane; i < TOKENS * 8; i += LANES) {
        let t = i / 8;
        let c = i % 8;
        var v = vec4f();
        if (tile.token0 + t < tile.n && (K % 32 == 0 || unit * 32 + c * 4 < K)) {
            v = x[y_row(tile.token0 + t) / X_PER * (K / 4) + unit * 8 + c];
        }
        x_tile[c * X_PITCH + t] = v;
    }
}

// Four columns of rows r, r + ROW_LANES, ...
struct tile_quad {
    a: vec4f,
    b: vec4f,
    c: vec4f,
    d: vec4f,
}

fn quad_load(c: u32, r: u32) -> tile_quad {
    let at = c * W_PITCH + r;
    return tile_quad(w_tile[at], w_tile[at + ROW_LANES], w_tile[at + 2 * ROW_LANES],
                     w_tile[at + 3 * ROW_LANES]);
}

fn column_load(c: u32, t: u32) -> vec4f {
    return x_tile[c * X_PITCH + t];
}

fn quad_add(sum: vec4f, w: tile_quad, x: vec4f) -> vec4f {
    return sum + vec4f(dot(x, w.a), dot(x, w.b), dot(x, w.c), dot(x, w.d));
}
