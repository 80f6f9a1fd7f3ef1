// block_input: what the first product of a block reads of the residual stream: act = x * w, w the
// weights of the RMSNorm in front if WEIGHTED, whose scale the reader finds from the sums of
// squares.

// Columns 16 half .. 16 half + 15 of a row of dim columns, a multiple of 32.
fn put_input(row: u32, dim: u32, half: u32, x: array<vec4f, 4>) {
    var v = x;
    var sum = 0.0;
    for (var c = 0u; c < 4; c++) {
        sum += dot(x[c], x[c]);
        if (WEIGHTED) {
            v[c] *= w[half * 4 + c];
        }
    }
    squares[row * (dim / 16) + half] = sum;
    act_put(row, dim / 32, half, v);
}
