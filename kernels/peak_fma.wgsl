// peak_fma: how fast f32 can be multiplied and added: CHAINS sums of vec4f a lane that do not wait
// for each other, a = a m + b. With no steps and one workgroup it is the kernel that does nothing.
//   y [1]: read and written, so that one dispatch waits for the one before
// 8 CHAINS operations a lane and step: grid (groups). Bound by multiplications.
struct Params {
    steps: u32,
}

const WG = 256u;
const CHAINS = 8u;

@group(0) @binding(0) var<storage, read_write> y: array<f32>;
@group(1) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn peak_fma(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    var a: array<vec4f, CHAINS>;
    for (var i = 0u; i < CHAINS; i++) {
        a[i] = vec4f(f32(lane + i), f32(lane), f32(i), 1.0);
    }
    let m = vec4f(0.5, 0.25, 0.75, 0.125);
    for (var step = 0u; step < params.steps; step++) {
        for (var i = 0u; i < CHAINS; i++) {
            a[i] = fma(a[i], m, vec4f(1.0));
        }
    }
    var sum = vec4f(0.0);
    for (var i = 0u; i < CHAINS; i++) {
        sum += a[i];
    }
    let all = sum.x + sum.y + sum.z + sum.w;
    if ((lane == 0 && group.x == 0) || all == 0.0) { // the sums are positive: one lane alone
        y[0] = all;
    }
}
