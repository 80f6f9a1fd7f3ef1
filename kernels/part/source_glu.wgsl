//! with activation
// source_glu: what quantise reads through the gate of the feed-forward network, as glu.wgsl has it:
// gu [rows, 2 K] f32, gate and up side by side; [rows, K] if UNGATED.
@group(0) @binding(0) var<storage, read> gu: array<vec4f>;

fn source_row(row: u32, lane: u32) -> vec2f {
    return vec2f();
}

// Columns [4 c, 4 c + 4).
fn source_load(row: u32, c: u32, about: vec2f) -> vec4f {
    if (!UNGATED) {
        return gated(gu[row * 2 * (K / 4) + c], gu[row * 2 * (K / 4) + K / 4 + c]);
    }
    let g = gu[row * (K / 4) + c];
    if (ACT == 1) {
        return gelu(g);
    }
    return silu(g);
}
