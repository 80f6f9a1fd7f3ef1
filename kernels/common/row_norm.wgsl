// row_norm: what a norm finds of a row of x [rows, DIM], whose first vec4 is number `first`. All
// lanes of a workgroup; sums in f32.
fn row_mean(first: u32, lane: u32) -> f32 {
    var total = 0.0;
    for (var i = lane; i < DIM / 4; i += WG) {
        total += dot(x[first + i], vec4f(1.0));
    }
    return workgroup_sum(total, lane) / f32(DIM);
}

// 1 / sqrt(mean((x - mean)^2) + EPS)
fn row_scale(first: u32, mean: f32, lane: u32) -> f32 {
    var sum = 0.0;
    for (var i = lane; i < DIM / 4; i += WG) {
        let v = x[first + i] - mean;
        sum += dot(v, v);
    }
    return inverseSqrt(workgroup_sum(sum, lane) / f32(DIM) + EPS);
}
