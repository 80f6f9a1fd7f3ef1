// scaled: what an input that is x * w of RMSNorm lacks: 1 / sqrt(mean(x^2) + EPS) of each row, from
// the sums of squares of every 16 columns that its maker left in `squares`. A team finds that of a
// row, so that several rows take no longer than one.
override SCALE_TEAMS: u32 = WG / TEAM;
override SCALE_TURNS: u32 = (TOKENS + SCALE_TEAMS - 1) / SCALE_TEAMS;
var<workgroup> input_scale: array<f32, 16>;

// A lane's share of the sum of row t's.
fn squares_of(t: u32, lane: u32) -> f32 {
    var sum = 0.0;
    for (var i = lane % TEAM; i < K / 16; i += TEAM) {
        sum += squares[t * (K / 16) + i];
    }
    return sum;
}

// The same of its team's row in a turn, of n rows. That of the first turn is asked for before the
// product, so that it comes meanwhile.
fn squares_share(turn: u32, n: u32, lane: u32) -> f32 {
    let t = turn * SCALE_TEAMS + lane / TEAM;
    if (NORMED && t < n) {
        return squares_of(t, lane);
    }
    return 0.0;
}

// Makes input_scale; `share` is that of the first turn. A barrier belongs behind it.
fn find_scales(share: f32, n: u32, lane: u32) {
    for (var turn = 0u; turn < SCALE_TURNS; turn++) {
        var scale = 1.0;
        if (NORMED) {
            var mine = share;
            if (turn > 0) {
                mine = squares_share(turn, n, lane);
            }
            scale = inverseSqrt(team_sum(mine, lane) / f32(K) + EPS);
        }
        let t = turn * SCALE_TEAMS + lane / TEAM;
        if (lane % TEAM == 0 && t < n) {
            input_scale[t] = scale;
        }
    }
}
