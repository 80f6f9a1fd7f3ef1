//! use sampler, reduce
// sample_select: the smallest adjusted logit that top-k, top-p and min-p, in this order, leave to
// be drawn.
//   z [n, VOCAB] f32    best [n, CHUNKS] as sample_scan wrote it
// Exact, without sorting: a radix search over the order-preserving bits of z, eight bits a pass,
// for the largest key whose tokens above it reach a target: k tokens, or the share p of the
// probability of what top-k left (as 30-bit integers, so that the sum does not depend on the
// order). Ties are kept. One workgroup per answer: grid (1, n).
override VOCAB: u32;
override CHUNKS: u32;
override WG: u32; // 256: a lane per bin
override TEAM: u32;

@group(0) @binding(1) var<storage, read> z: array<f32>;
@group(0) @binding(2) var<storage, read> best: array<vec2u>;
@group(0) @binding(3) var<storage, read> rows: array<vec4u>;
@group(0) @binding(4) var<storage, read> pick: array<u32>;

var<workgroup> bins: array<atomic<u32>, 256>;
var<workgroup> above: array<u32, 257>; // sums of bins from this one up
var<workgroup> found: u32;             // the bin that holds the threshold
var<workgroup> rest: u32;              // what the target still needs from it
var<workgroup> tops: array<f32, WG>;

// Unsigned integers in the order of the floats.
fn key_of(v: f32) -> u32 {
    let b = bitcast<u32>(v);
    return b ^ select(0x80000000u, 0xffffffffu, (b & 0x80000000u) != 0);
}

fn float_of(key: u32) -> f32 {
    return bitcast<f32>(key ^ select(0xffffffffu, 0x80000000u, (key & 0x80000000u) != 0));
}

// What a token weighs: 1, or its probability by `scale` (exp(z - top) * scale).
fn weight_of(v: f32, top: f32, scale: f32) -> u32 {
    return select(1u, u32(exp(v - top) * scale), scale > 0);
}

// The largest key whose tokens at or above it weigh `target` in all, or `share` of everything if
// target is 0, among those with key >= low.
fn threshold(base: u32, lane: u32, low: u32, top: f32, scale: f32, target_in: u32,
             share: f32) -> u32 {
    var prefix = 0u;
    for (var shift = 24u; ; shift -= 8) {
        atomicStore(&bins[lane], 0);
        workgroupBarrier();
        for (var i = lane; i < VOCAB; i += WG) {
            let v = z[base + i];
            let key = key_of(v);
            // the bits above the current eight must be those found before
            let known = (shift + 8) & 31;
            if (key >= low && (shift == 24 || (key >> known) == (prefix >> known))) {
                atomicAdd(&bins[(key >> shift) & 255], weight_of(v, top, scale));
            }
        }
        workgroupBarrier();
        above[lane] = atomicLoad(&bins[lane]);
        if (lane == 0) {
            above[256] = 0;
        }
        for (var step = 1u; step < 256; step <<= 1) { // suffix sums
            workgroupBarrier();
            var more = 0u;
            if (lane + step < 256) {
                more = above[lane + step];
            }
            workgroupBarrier();
            above[lane] += more;
        }
        workgroupBarrier();
        var want = rest;
        if (shift == 24) {
            want = target_in;
            if (target_in == 0) {
                want = max(1u, u32(ceil(share * f32(above[0]))));
            }
            want = min(want, above[0]);
        }
        workgroupBarrier();
        if (above[lane] >= want && above[lane + 1] < want) {
            found = lane;
            rest = want - above[lane + 1];
        }
        workgroupBarrier();
        prefix |= workgroupUniformLoad(&found) << shift;
        if (shift == 0) {
            break;
        }
    }
    return prefix;
}

@compute @workgroup_size(WG)
fn sample_select(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let slot = rows[pick[group.y]].y;
    let base = group.y * VOCAB;
    tops[lane] = -3e38;
    for (var i = lane; i < CHUNKS; i += WG) {
        tops[lane] = max(tops[lane], bitcast<f32>(best[group.y * CHUNKS + i].x));
    }
    for (var step = WG / 2; step > 0; step >>= 1) {
        workgroupBarrier();
        if (lane < step) {
            tops[lane] = max(tops[lane], tops[lane + step]);
        }
    }
    let top = workgroupUniformLoad(&tops[0]);
    if (lane == 0) {
        samplers[slot].top = top;
        samplers[slot].floor = -3e38;
    }
    // What follows branches on the sampler's fields, the same for all lanes of the workgroup: read
    // through workgroup memory so that the compiler knows it.
    if (lane == 0) {
        found = samplers[slot].top_k;
        rest = select(0u, 1u, samplers[slot].temperature > 0);
        above[0] = bitcast<u32>(samplers[slot].top_p);
    }
    let top_k = workgroupUniformLoad(&found);
    let drawn = workgroupUniformLoad(&rest);
    let top_p = bitcast<f32>(workgroupUniformLoad(&above[0]));
    if (drawn == 0) {
        return;
    }
    var low = 0u;
    if (top_k > 0 && top_k < VOCAB) {
        low = threshold(base, lane, 0u, top, 0.0, top_k, 0.0);
    }
    if (top_p > 0 && top_p < 1) {
        var sum = 0.0;
        for (var i = lane; i < VOCAB; i += WG) {
            let v = z[base + i];
            if (key_of(v) >= low) {
                sum += exp(v - top);
            }
        }
        let all = workgroup_sum(sum, lane);
        low = threshold(base, lane, low, top, 1073741824.0 / all, 0u, top_p);
    }
    if (lane == 0) {
        var limit = -3e38;
        if (low > 0) {
            limit = float_of(low);
        }
        let min_p = samplers[slot].min_p;
        if (min_p > 0) {
            limit = max(limit, top + log(min_p));
        }
        samplers[slot].floor = limit;
    }
}
