// peak_read: how fast memory can be read: every lane adds vec4s, EACH of them at a time, a grid's
// width apart.
//   x [n] vec4u    y [grid] u32, so that nothing is left out
// One workgroup reads every grid-th block of WG * EACH: grid (groups). Bound by memory.
struct Params {
    blocks: u32, // of x, WG * EACH vec4s each
    grid: u32,
}

const WG = 256u;
const EACH = 8u;

@group(0) @binding(0) var<storage, read> x: array<vec4u>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@group(1) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn peak_read(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    var sum = vec4u(0);
    for (var block = group.x; block < params.blocks; block += params.grid) {
        let at = block * WG * EACH + lane;
        var v: array<vec4u, EACH>;
        for (var i = 0u; i < EACH; i++) {
            v[i] = x[at + i * WG];
        }
        for (var i = 0u; i < EACH; i++) {
            sum += v[i];
        }
    }
    if ((sum.x | sum.y | sum.z | sum.w) != 0) { // x is zero: never
        y[group.x] = sum.x + sum.y + sum.z + sum.w;
    }
}
