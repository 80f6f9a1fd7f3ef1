//! with activation
// glu: h = act(g) * u, the gate of the feed-forward network (Shazeer 2020), or h = act(g) if
// UNGATED.
//   act as in common/activation
//   gu [rows, 2 N4] vec4f: gate and up side by side; [rows, N4] if UNGATED    h [rows, N4] vec4f
// One lane per vec4: grid (ceil(N4 / WG), rows). Bound by memory.
override N4: u32;
override ACT: u32;
override UNGATED: bool;
override ALPHA: f32;
override LIMIT: f32;
override WG: u32;

@group(0) @binding(0) var<storage, read> gu: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> h: array<vec4f>;

@compute @workgroup_size(WG)
fn glu(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group.x * WG + lane;
    if (i >= N4) {
        return;
    }
    let at = group.y * N4 + i;
    if (UNGATED) {
        if (ACT == 1) {
            h[at] = gelu(gu[at]);
        } else {
            h[at] = silu(gu[at]);
        }
        return;
    }
    h[at] = gated(gu[group.y * 2 * N4 + i], gu[group.y * 2 * N4 + N4 + i]);
}
