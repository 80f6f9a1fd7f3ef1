//! use sampler, reduce
//! with best
// sample_scan: adjusted logits z = penalised(logits) / temperature of every token, and of each
// chunk the best and the mass, the sum of exp(z - best).
//   logits [n, VOCAB] f32    z [n, VOCAB] f32    counts [slots, VOCAB] u32 as in embed, with the
//   occurrences in the answer in the low 31 bits    best [n, chunks] (z as bits, token, mass as
//   bits, 0)    found [n, 2 + FOUND] pairs as in sample_draw: how many goes back to 0
// Penalties: seen tokens' logits are divided by `repeat` if positive, multiplied if not (Keskar et
// al. 2019); tokens of the answer lose presence + occurrences * frequency. Without penalties counts
// are not read; without KEEP, for greedy samplers alone, z is not written and mass is 0.
// One workgroup per chunk of CHUNK tokens: grid (chunks, n). Bound by latency.
override VOCAB: u32;
override CHUNK: u32; // tokens to a workgroup
override FOUND: u32;
override KEEP: bool;
override WG: u32;
override TEAM: u32;

const SEEN = 0x80000000u;

@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> rows: array<vec4u>;
@group(0) @binding(3) var<storage, read> counts: array<u32>;
@group(0) @binding(4) var<storage, read_write> z: array<f32>;
@group(0) @binding(5) var<storage, read_write> best: array<vec4u>;
@group(0) @binding(6) var<storage, read_write> found: array<vec2u>;

// z of token v by the sampler of `slot`.
fn adjusted(s: Sampler, slot: u32, v: u32, logit: f32) -> f32 {
    var l = logit;
    if (s.repeat != 1 || s.presence != 0 || s.frequency != 0) {
        let c = counts[slot * VOCAB + v];
        if ((c & SEEN) != 0) {
            l = select(l * s.repeat, l / s.repeat, l > 0);
        }
        let n = c & ~SEEN;
        if (n > 0) {
            l -= s.presence + f32(n) * s.frequency;
        }
    }
    return select(l, l / s.temperature, s.temperature > 0);
}

@compute @workgroup_size(WG)
fn sample_scan(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) grid: vec3u,
               @builtin(local_invocation_index) lane: u32) {
    let slot = rows[group.y].y;
    let s = samplers[slot];
    let first = group.y * VOCAB;
    var mine = Best(-3e38, 0);
    for (var i = lane; i < CHUNK; i += WG) {
        let v = group.x * CHUNK + i;
        if (v < VOCAB) {
            let l = adjusted(s, slot, v, logits[first + v]);
            if (KEEP) {
                z[first + v] = l;
            }
            if (l > mine.value) {
                mine = Best(l, v);
            }
        }
    }
    let top = workgroup_best(mine, lane);
    var mass = 0.0;
    if (KEEP) {
        for (var i = lane; i < CHUNK; i += WG) {
            let v = group.x * CHUNK + i;
            if (v < VOCAB) {
                mass += exp(z[first + v] - top.value); // written by this lane
            }
        }
        mass = workgroup_sum(mass, lane);
    }
    if (lane == 0) {
        if (KEEP && group.x == 0) {
            found[group.y * (2 + FOUND)].x = 0;
        }
        best[group.y * grid.x + group.x] =
            vec4u(bitcast<u32>(top.value), top.token, bitcast<u32>(mass), 0);
    }
}
