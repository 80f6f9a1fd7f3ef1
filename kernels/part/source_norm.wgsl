// source_norm: what quantise reads through a norm, as norm.wgsl has it: x [rows, K], w, b [K] f32.
@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read> w: array<vec4f>;
@group(0) @binding(2) var<storage, read> b: array<vec4f>;

// The row's mean and the factor of what is left.
fn source_row(row: u32, lane: u32) -> vec2f {
    var mean = 0.0;
    if (LAYER) {
        var total = 0.0;
        for (var i = lane; i < K / 4; i += WG) {
            total += dot(x[row * (K / 4) + i], vec4f(1.0));
        }
        mean = workgroup_sum(total, lane) / f32(K);
    }
    var sum = 0.0;
    for (var i = lane; i < K / 4; i += WG) {
        let v = x[row * (K / 4) + i] - mean;
        sum += dot(v, v);
    }
    return vec2f(mean, inverseSqrt(workgroup_sum(sum, lane) / f32(K) + EPS));
}

// Columns [4 c, 4 c + 4).
fn source_load(row: u32, c: u32, about: vec2f) -> vec4f {
    let v = (x[row * (K / 4) + c] - about.x) * about.y * w[c];
    if (LAYER) {
        return v + b[c];
    }
    return v;
}
