// expert_combine: x[t, :] += SCALE sum_k weight[t, k] y[t * USED + k, :], what the chosen experts
// of a token add to it.
//   choice [n, USED] (expert, weight's f32 bits)    y [n * USED, N4] vec4f    x [n, N4] vec4f
// A vec4 per lane, k in order. Grid (ceil(N4 / 64), n). Bound by reading y.
override N4: u32;
override USED: u32;
override SCALE: f32;

@group(0) @binding(0) var<storage, read> choice: array<vec2u>;
@group(0) @binding(1) var<storage, read> y: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> x: array<vec4f>;

@compute @workgroup_size(64)
fn expert_combine(@builtin(global_invocation_id) id: vec3u) {
    if (id.x >= N4) {
        return;
    }
    var sum = vec4f();
    for (var pair = id.y * USED; pair < id.y * USED + USED; pair++) {
        sum += bitcast<f32>(choice[pair].y) * y[pair * N4 + id.x];
    }
    x[id.y * N4 + id.x] += SCALE * sum;
}
