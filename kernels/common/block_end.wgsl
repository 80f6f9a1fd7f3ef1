// block_end: what a block adds goes into the residual stream, and if NEXT the input of the next
// block is made ready:
//   stream [n, DIM] f32: x
//   w [DIM] f32, the weights of the RMSNorm in front of the next block (Zhang and Sennrich 2019),
//   whose scale its reader finds from
//   squares [n, DIM / 16] f32  sums of x^2 over 16 columns
//   act [n, DIM]  x * w, as the part `act` says
// GROUP_ROWS rows to a workgroup (products), at most WG, a multiple of 16 if NEXT.
override HALVES: u32 = max(GROUP_ROWS / 16, 1); // of a unit of 32 columns of act
var<workgroup> weighted: array<f32, PRODUCTS>; // [token][row]: x * w
var<workgroup> squared: array<f32, PRODUCTS>;  // x^2

// Of the row that a lane ends: asked for before the product, so that it comes meanwhile.
struct RowEnd {
    before: f32, // of the only token
    added: f32,  // a bias
    weight: f32,
}

// Row `row` of token `token0`, or of all if there are several.
fn row_end(token0: u32, row: u32, lane: u32) -> RowEnd {
    var r = RowEnd();
    if (lane < PRODUCTS && row < DIM) {
        if (TOKENS == 1) {
            r.before = stream[token0 * DIM + row];
        }
        if (NEXT) {
            r.weight = w[row];
        }
    }
    return r;
}

// Ends rows first .. first + GROUP_ROWS of tokens token0 .. token0 + n. Behind the barrier that
// products needs.
fn end_rows(token0: u32, n: u32, first: u32, end: RowEnd, lane: u32) {
    let row = first + lane % GROUP_ROWS;
    for (var i = lane; i < PRODUCTS; i += WG) {
        let t = i / GROUP_ROWS;
        if (t < n && row < DIM) {
            var before = end.before;
            if (TOKENS > 1) {
                before = stream[(token0 + t) * DIM + row];
            }
            let s = SCALE * (product_at(t, i % GROUP_ROWS) + end.added) + before;
            stream[(token0 + t) * DIM + row] = s;
            weighted[i] = s * end.weight;
            squared[i] = s * s;
        }
    }
    if (!NEXT) {
        return;
    }
    workgroupBarrier();
    for (var i = lane; i < PRODUCTS / 16; i += WG) {
        let t = i * 16 / GROUP_ROWS;
        let half = first / 16 + i % HALVES;
        if (t < n && half * 16 < DIM) {
            let at = i * 16;
            var v: array<vec4f, 4>;
            v[0] = vec4f(weighted[at], weighted[at + 1], weighted[at + 2], weighted[at + 3]);
            v[1] = vec4f(weighted[at + 4], weighted[at + 5], weighted[at + 6], weighted[at + 7]);
            v[2] = vec4f(weighted[at + 8], weighted[at + 9], weighted[at + 10], weighted[at + 11]);
            v[3] = vec4f(weighted[at + 12], weighted[at + 13], weighted[at + 14],
                weighted[at + 15]);
            var sum = 0.0;
            for (var c = 0u; c < 16; c++) {
                sum += squared[at + c];
            }
            squares[(token0 + t) * (DIM / 16) + half] = sum;
            act_put(token0 + t, DIM / 32, half, v);
        }
    }
}
