// source_x: what quantise reads, as it is. x [rows, K] f32.
@group(0) @binding(0) var<storage, read> x: array<vec4f>;

fn source_row(row: u32, lane: u32) -> vec2f {
    return vec2f();
}

// Columns [4 c, 4 c + 4).
fn source_load(row: u32, c: u32, about: vec2f) -> vec4f {
    return x[row * (K / 4) + c];
}
