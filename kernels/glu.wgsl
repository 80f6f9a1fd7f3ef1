// glu: h = silu(g) * u, the gate of the feed-forward network (Shazeer 2020), silu(z) = z / (1 +
// exp(-z)).
//   gu [rows, 2 N4] vec4f: gate and up side by side    h [rows, N4] vec4f
// One lane per vec4: grid (ceil(N4 / 64), rows). Bound by memory.
override N4: u32;

const WG = 64u;

@group(0) @binding(0) var<storage, read> gu: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> h: array<vec4f>;

@compute @workgroup_size(WG)
fn glu(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group.x * WG + lane;
    if (i < N4) {
        let g = gu[group.y * 2 * N4 + i];
        h[group.y * N4 + i] = g / (1.0 + exp(-g)) * gu[group.y * 2 * N4 + N4 + i];
    }
}
