//! use sampler
// sample_draw: the exponential race (the Gumbel-max trick): among tokens with z >= floor the one
// with the largest z - log(E), E exponential, is distributed as softmax(z). With temperature 0 the
// largest z.
//   z [n, VOCAB] f32    best [n, chunks] (score as bits, token), the winner per chunk
// The random numbers are a hash of seed, draw and token (pcg4d, Jarzynski and Olano 2020), so a
// draw does not depend on the batch. One workgroup per chunk of CHUNK tokens: grid (chunks, n).
override VOCAB: u32;
override CHUNK: u32; // tokens to a workgroup, a multiple of 256

const WG = 256u;

@group(0) @binding(1) var<storage, read> z: array<f32>;
@group(0) @binding(2) var<storage, read> rows: array<vec4u>;
@group(0) @binding(3) var<storage, read> pick: array<u32>;
@group(0) @binding(4) var<storage, read_write> best: array<vec2u>;

var<workgroup> value: array<f32, WG>;
var<workgroup> token: array<u32, WG>;

fn pcg4d(seed: vec4u) -> vec4u {
    var v = seed * 1664525 + 1013904223;
    v.x += v.y * v.w;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v.w += v.y * v.z;
    v ^= v >> vec4u(16);
    v.x += v.y * v.w;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v.w += v.y * v.z;
    return v;
}

// log(-log(1 - u)) for u = (r + 1/2) / 2^32: the small u, which win races, at full resolution.
fn log_exponential(r: u32) -> f32 {
    let u = min((f32(r) + 0.5) * 2.3283064e-10, 0.99999994);
    if (u < 1e-3) {
        return log(u * (1.0 + 0.5 * u));
    }
    return log(-log(1.0 - u));
}

@compute @workgroup_size(WG)
fn sample_draw(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) grid: vec3u,
               @builtin(local_invocation_index) lane: u32) {
    let s = samplers[rows[pick[group.y]].y];
    value[lane] = -3.1e38;
    token[lane] = 0;
    for (var i = lane; i < CHUNK; i += WG) {
        let v = group.x * CHUNK + i;
        if (v < VOCAB) {
            var score = z[group.y * VOCAB + v];
            if (score < s.floor) {
                continue;
            }
            if (s.temperature > 0) {
                let random = pcg4d(vec4u(v, s.draws, s.seed_low, s.seed_high)).x;
                score = score - s.top - log_exponential(random);
            }
            if (score > value[lane]) {
                value[lane] = score;
                token[lane] = v;
            }
        }
    }
    for (var step = WG / 2; step > 0; step >>= 1) {
        workgroupBarrier();
        if (lane < step) {
            let a = value[lane];
            let b = value[lane + step];
            if (b > a || (b == a && token[lane + step] < token[lane])) {
                value[lane] = b;
                token[lane] = token[lane + step];
            }
        }
    }
    if (lane == 0) {
        best[group.y * grid.x + group.x] = vec2u(bitcast<u32>(value[0]), token[0]);
    }
}
