// scaled: what an input that is x * w of RMSNorm lacks: 1 / sqrt(mean(x^2) + EPS) of each row, from
// the sums of squares of every 16 columns that its maker left in `squares`.
var<workgroup> input_scale: array<f32, 16>;

// A lane's share of the sum of row t: asked for before the product, so that it comes meanwhile.
fn squares_share(t: u32, lane: u32) -> f32 {
    var sum = 0.0;
    if (NORMED) {
        for (var i = lane % TEAM; i < K / 16; i += TEAM) {
            sum += squares[t * (K / 16) + i];
        }
    }
    return sum;
}

// Makes input_scale; `share` is that of row 0. A barrier belongs behind it.
fn find_scales(share: f32, lane: u32) {
    for (var t = 0u; t < TOKENS; t++) {
        var scale = 1.0;
        if (NORMED) {
            var mine = share;
            if (t > 0) {
                mine = squares_share(t, lane);
            }
            scale = inverseSqrt(team_sum(mine, lane) / f32(K) + EPS);
        }
        if (lane == 0) {
            input_scale[t] = scale;
        }
    }
}
