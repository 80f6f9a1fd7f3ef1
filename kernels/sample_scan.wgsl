//! use sampler
// sample_scan: adjusted logits z = penalised(logits) / temperature of every token, and the best per
// chunk.
//   logits [n, VOCAB] f32    z [n, VOCAB] f32    counts [slots, VOCAB] u32 as in embed, with the
//   occurrences in the answer in the low 31 bits    best [n, chunks] (z as bits, token)
// Penalties: seen tokens' logits are divided by `repeat` if positive, multiplied if not (Keskar et
// al. 2019); tokens of the answer lose presence + occurrences * frequency.
// One workgroup per chunk of CHUNK tokens: grid (chunks, n). Ties go to the lower token.
override VOCAB: u32;
override CHUNK: u32; // tokens to a workgroup, a multiple of 256

const WG = 256u;
const SEEN = 0x80000000u;

@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> rows: array<vec4u>;
@group(0) @binding(3) var<storage, read> pick: array<u32>;
@group(0) @binding(4) var<storage, read> counts: array<u32>;
@group(0) @binding(5) var<storage, read_write> z: array<f32>;
@group(0) @binding(6) var<storage, read_write> best: array<vec2u>;

var<workgroup> value: array<f32, WG>;
var<workgroup> token: array<u32, WG>;

@compute @workgroup_size(WG)
fn sample_scan(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) grid: vec3u,
               @builtin(local_invocation_index) lane: u32) {
    let slot = rows[pick[group.y]].y;
    let s = samplers[slot];
    value[lane] = -3e38;
    token[lane] = 0;
    for (var i = lane; i < CHUNK; i += WG) {
        let v = group.x * CHUNK + i;
        if (v < VOCAB) {
            var l = logits[group.y * VOCAB + v];
            let c = counts[slot * VOCAB + v];
            if ((c & SEEN) != 0) {
                l = select(l * s.repeat, l / s.repeat, l > 0);
            }
            let n = c & ~SEEN;
            if (n > 0) {
                l -= s.presence + f32(n) * s.frequency;
            }
            if (s.temperature > 0) {
                l /= s.temperature;
            }
            z[group.y * VOCAB + v] = l;
            if (l > value[lane]) {
                value[lane] = l;
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
