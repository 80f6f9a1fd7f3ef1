//! enable f16
// tile_f16: a tile of matmul in half floats, which most devices multiply twice as many of. Products
// and sums of 16 columns are halves, what those sums add up to is f32. Tiles are [8 columns][row].
// A token's unit of x is divided by a power of two that leaves its largest number between 2 and 4;
// weights beyond 1000, which no model has, are cut there: a sum stays below 16 * 4 * 1000 and the
// largest half float, 65504, whatever x is.
// Each product passes at most 8 roundings to 11 bits (w, x, itself where fma rounds twice, 3 of its
// chain, 2 of the tree): |error| <= 8 * 2^-10 sum |w x|, the half of it if they are to the nearest;
// and a device may take halves below 2^-14 for zero.
const STEPS = 2u; // of 16 columns
const W_MOST = 1000.0;
override W_SIZE: u32 = 4 * ROWS;
override X_SIZE: u32 = 4 * TOKENS;

// 8 columns.
struct tile_piece {
    a: vec4h,
    b: vec4h,
}

var<workgroup> w_tile: array<tile_piece, W_SIZE>;
var<workgroup> x_tile: array<tile_piece, X_SIZE>;
var<workgroup> x_scale: array<f32, TOKENS>;

fn halves(a: vec4f, b: vec4f) -> tile_piece {
    return tile_piece(vec4h(a), vec4h(b));
}

fn cut(v: vec4f) -> vec4f {
    return clamp(v, vec4f(-W_MOST), vec4f(W_MOST));
}

fn stage_w(tile: Tile, unit: u32, lane: u32) {
    for (var i = lane; i < ROWS; i += LANES) {
        var v = array<vec4f, 8>();
        if (tile.row0 + i < p.rows) {
            v = weight_load(tile.first_row + tile.row0 + i, unit);
        }
        w_tile[i] = halves(cut(v[0]), cut(v[1]));
        w_tile[ROWS + i] = halves(cut(v[2]), cut(v[3]));
        w_tile[2 * ROWS + i] = halves(cut(v[4]), cut(v[5]));
        w_tile[3 * ROWS + i] = halves(cut(v[6]), cut(v[7]));
    }
}

// Four columns of x from 4 c on, 0 behind its end.
fn x_four(tile: Tile, t: u32, c: u32) -> vec4f {
    if (tile.token0 + t < tile.n && (K % 32 == 0 || c < K / 4)) {
        return x[y_row(tile.token0 + t) / X_PER * (K / 4) + c];
    }
    return vec4f();
}

// The lanes that have rows of W to decode come last.
fn stage_x(tile: Tile, unit: u32, lane: u32) {
    for (var t = LANES - 1 - lane; t < TOKENS; t += LANES) {
        let a = x_four(tile, t, unit * 8);
        let b = x_four(tile, t, unit * 8 + 1);
        let c = x_four(tile, t, unit * 8 + 2);
        let d = x_four(tile, t, unit * 8 + 3);
        let e = x_four(tile, t, unit * 8 + 4);
        let f = x_four(tile, t, unit * 8 + 5);
        let g = x_four(tile, t, unit * 8 + 6);
        let h = x_four(tile, t, unit * 8 + 7);
        let most = max(max(max(abs(a), abs(b)), max(abs(c), abs(d))),
                       max(max(abs(e), abs(f)), max(abs(g), abs(h))));
        let top = max(max(most.x, most.y), max(most.z, most.w));
        // The power of two by its bits; of tiny numbers one whose inverse is finite.
        let power = max(bitcast<u32>(top) & 0x7f800000, 0x08000000);
        let inverse = bitcast<f32>(0x7f800000 - power);
        x_scale[t] = bitcast<f32>(power - 0x00800000);
        x_tile[t] = halves(a * inverse, b * inverse);
        x_tile[TOKENS + t] = halves(c * inverse, d * inverse);
        x_tile[2 * TOKENS + t] = halves(e * inverse, f * inverse);
        x_tile[3 * TOKENS + t] = halves(g * inverse, h * inverse);
    }
}

// 16 columns of rows r, r + ROW_LANES, ...
struct tile_quad {
    a0: tile_piece,
    a1: tile_piece,
    b0: tile_piece,
    b1: tile_piece,
    c0: tile_piece,
    c1: tile_piece,
    d0: tile_piece,
    d1: tile_piece,
}

struct tile_column {
    first: tile_piece,
    second: tile_piece,
    scale: f32,
}

fn quad_load(c: u32, r: u32) -> tile_quad {
    let first = 2 * c * ROWS + r;
    let second = first + ROWS;
    return tile_quad(w_tile[first], w_tile[second], w_tile[first + ROW_LANES],
                     w_tile[second + ROW_LANES], w_tile[first + 2 * ROW_LANES],
                     w_tile[second + 2 * ROW_LANES], w_tile[first + 3 * ROW_LANES],
                     w_tile[second + 3 * ROW_LANES]);
}

fn column_load(c: u32, t: u32) -> tile_column {
    let first = 2 * c * TOKENS + t;
    return tile_column(x_tile[first], x_tile[first + TOKENS], x_scale[t]);
}

fn short_sum(first: tile_piece, second: tile_piece, x: tile_column) -> f32 {
    let s = fma(second.b, x.second.b,
                fma(second.a, x.second.a, fma(first.b, x.first.b, first.a * x.first.a)));
    let two = s.xy + s.zw;
    return f32(two.x + two.y);
}

fn quad_add(sum: vec4f, w: tile_quad, x: tile_column) -> vec4f {
    return sum + x.scale * vec4f(short_sum(w.a0, w.a1, x), short_sum(w.b0, w.b1, x),
                                 short_sum(w.c0, w.c1, x), short_sum(w.d0, w.d1, x));
}
