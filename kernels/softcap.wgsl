// softcap: z = CAP tanh(z / CAP), in place, over the logits that are wanted (Gemma Team 2024).
//   z [n, SIZE] f32
// One lane per element: grid (ceil(SIZE / 64), n). Bound by memory.
override SIZE: u32;
override CAP: f32;

const WG = 64u;

@group(0) @binding(0) var<storage, read_write> z: array<f32>;

@compute @workgroup_size(WG)
fn softcap(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group.x * WG + lane;
    if (i < SIZE) {
        // beyond 15 tanh is 1 in f32, and some devices overflow
        z[group.y * SIZE + i] = CAP * tanh(clamp(z[group.y * SIZE + i] / CAP, -15.0, 15.0));
    }
}
