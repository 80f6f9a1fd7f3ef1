//! with activation, input_at
// glu: h = act(g) * u, the gate of the feed-forward network, or h = act(g) if UNGATED, as
// common/input_at has it.
//   x [rows, 2 K] f32: gate and up side by side; [rows, K] if UNGATED    h [rows, K] f32
//   K a multiple of 4
// One lane per vec4: grid (ceil(K / 4 / WG), rows). Bound by memory.
override K: u32;
override ACT: u32;
override UNGATED: bool;
override ALPHA: f32;
override LIMIT: f32;
override WG: u32;

const GATED = true;

@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> h: array<vec4f>;

@compute @workgroup_size(WG)
fn glu(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group.x * WG + lane;
    if (i < K / 4) {
        h[group.y * (K / 4) + i] = input_at(group.y, i);
    }
}
