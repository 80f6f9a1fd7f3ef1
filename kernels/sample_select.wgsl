//! use sampler
//! with best, race
// sample_select: the smallest adjusted logit that top-k, top-p and min-p, in this order, leave to
// be drawn, and the winner of the race among those.
//   found as sample_draw wrote it    z [n, VOCAB] f32, read if the list is
//   not all    won [n, CHUNKS], of which the first becomes the winner
// Exact, without sorting: the largest key, the order-preserving bits of z, is looked for whose
// tokens at or above it reach a target: k tokens, or the share p of the probability of what top-k
// left. The tokens of a short list are compared with one another; else it is a radix search, eight
// bits a pass. Probabilities are counted in 2^-30 of the whole vocabulary's, so that sums do not
// depend on the order. Ties are kept.
// One workgroup per answer: grid (1, n). Nothing to do for samplers without top-k and top-p.
override VOCAB: u32;
override CHUNKS: u32;
override FOUND: u32;
override WG: u32;

@group(0) @binding(1) var<storage, read> z: array<f32>;
@group(0) @binding(2) var<storage, read> rows: array<vec4u>;
@group(0) @binding(3) var<storage, read> found: array<vec2u>;
@group(0) @binding(4) var<storage, read_write> won: array<vec4u>;

const FEW = 256u; // tokens that are compared with one another, at most

var<workgroup> few: array<vec2u, FEW>; // (key, weight) of a short list
var<workgroup> reached: atomic<u32>;   // the largest key of it that reaches the target
var<workgroup> bins: array<atomic<u32>, 256>;
var<workgroup> sixteens: array<atomic<u32>, 16>; // sums of 16 bins
var<workgroup> hit: u32;                         // the bin that holds the threshold
var<workgroup> rest: u32;                        // what the target still needs from it

// Where the tokens are read.
struct Items {
    n: u32,
    listed: bool,
    list: u32, // in found
    base: u32, // in z
}

// (z as bits, token)
fn item(a: Items, i: u32) -> vec2u {
    if (a.listed) {
        return found[a.list + i];
    }
    return vec2u(bitcast<u32>(z[a.base + i]), i);
}

// Unsigned integers in the order of the floats.
fn key_of(b: u32) -> u32 {
    return b ^ select(0x80000000u, 0xffffffffu, (b & 0x80000000u) != 0);
}

fn float_of(key: u32) -> f32 {
    return bitcast<f32>(key ^ select(0xffffffffu, 0x80000000u, (key & 0x80000000u) != 0));
}

fn weight_of(bits: u32, top: f32, scale: f32) -> u32 {
    return select(1, u32(exp(bitcast<f32>(bits) - top) * scale), scale > 0);
}

// Of what weighs `all`.
fn wanted(all: u32, target_in: u32, share: f32) -> u32 {
    return min(select(target_in, max(1u, u32(ceil(share * f32(all)))), target_in == 0), all);
}

// threshold of a short list.
fn short_threshold(a: Items, lane: u32, low: u32, top: f32, scale: f32, target_in: u32,
                   share: f32) -> u32 {
    if (lane == 0) {
        atomicStore(&reached, 0);
    }
    for (var i = lane; i < a.n; i += WG) {
        let bits = item(a, i).x;
        let key = key_of(bits);
        few[i] = vec2u(key, select(0, weight_of(bits, top, scale), key >= low));
    }
    workgroupBarrier();
    for (var i = lane; i < a.n; i += WG) {
        let key = few[i].x;
        var all = 0u;
        var here = 0u; // at or above it
        for (var j = 0u; j < a.n; j++) {
            all += few[j].y;
            here += select(0, few[j].y, few[j].x >= key);
        }
        if (here >= wanted(all, target_in, share)) {
            atomicMax(&reached, key);
        }
    }
    workgroupBarrier();
    let key = atomicLoad(&reached);
    workgroupBarrier(); // before the next one begins
    return key;
}

// The largest key whose tokens at or above it weigh `target` in all, or `share` of everything if
// target is 0, among those with key >= low. A token weighs 1 if scale is 0, else exp(z - top) *
// scale.
fn threshold(a: Items, lane: u32, low: u32, top: f32, scale: f32, target_in: u32,
             share: f32) -> u32 {
    if (a.listed && a.n <= FEW) {
        return short_threshold(a, lane, low, top, scale, target_in, share);
    }
    var prefix = 0u;
    var want = 0u;
    for (var shift = 24u; ; shift -= 8) {
        for (var i = lane; i < 256; i += WG) {
            atomicStore(&bins[i], 0);
            atomicStore(&sixteens[i / 16], 0);
        }
        if (lane == 0) {
            hit = 0;
            rest = 0;
        }
        workgroupBarrier();
        for (var i = lane; i < a.n; i += WG) {
            let bits = item(a, i).x;
            let key = key_of(bits);
            // the bits above the current eight must be those found before
            let known = (shift + 8) & 31;
            if (key >= low && (shift == 24 || (key >> known) == (prefix >> known))) {
                let weight = weight_of(bits, top, scale);
                if (weight > 0) {
                    atomicAdd(&bins[(key >> shift) & 255], weight);
                    atomicAdd(&sixteens[(key >> (shift + 4)) & 15], weight);
                }
            }
        }
        workgroupBarrier();
        if (shift == 24) {
            var all = 0u;
            for (var i = 0u; i < 16; i++) {
                all += atomicLoad(&sixteens[i]);
            }
            want = wanted(all, target_in, share);
        }
        for (var bin = lane; bin < 256; bin += WG) {
            var above = 0u; // the weight of higher bins
            for (var i = 0u; i < 16; i++) {
                above += select(0u, atomicLoad(&sixteens[i]), i > bin / 16);
                above += select(0u, atomicLoad(&bins[(bin & ~15u) + i]), i > bin % 16);
            }
            if (above < want && above + atomicLoad(&bins[bin]) >= want) {
                hit = bin;
                rest = want - above;
            }
        }
        prefix |= workgroupUniformLoad(&hit) << shift;
        want = workgroupUniformLoad(&rest);
        if (shift == 0) {
            break;
        }
    }
    return prefix;
}

@compute @workgroup_size(WG)
fn sample_select(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let slot = rows[group.y].y;
    let s = samplers[slot];
    let head = group.y * (2 + FOUND);
    // What follows branches on the sampler's fields and the list's length, the same for all lanes
    // of the workgroup: read through workgroup memory so that the compiler knows it.
    if (lane == 0) {
        let drawn = s.temperature > 0;
        let by_k = drawn && s.top_k > 0 && s.top_k < VOCAB;
        let by_p = drawn && s.top_p > 0 && s.top_p < 1;
        hit = select(0u, 1u, by_k) | select(0u, 2u, by_p);
        rest = found[head].x;
    }
    let filters = workgroupUniformLoad(&hit);
    let n = workgroupUniformLoad(&rest);
    if (filters == 0) {
        return;
    }
    let top = bitcast<f32>(found[head + 1].x);
    let scale = 1073741824.0 / bitcast<f32>(found[head + 1].y);
    var a = Items(n, true, head + 2, group.y * VOCAB);
    if (n > FOUND) {
        a.n = VOCAB;
        a.listed = false;
    }
    var low = 0u;
    if ((filters & 1) != 0) {
        low = threshold(a, lane, 0u, top, 0.0, s.top_k, 0.0);
    }
    if ((filters & 2) != 0) {
        // without top-k the whole is known, else it is what top-k left
        let whole = u32(ceil(s.top_p * 1073741824.0));
        low = threshold(a, lane, low, top, scale, select(whole, 0u, (filters & 1) != 0), s.top_p);
    }
    var limit = float_of(low);
    if (s.min_p > 0) {
        limit = max(limit, top + log(s.min_p));
    }
    var mine = Best(-3.1e38, 0);
    for (var i = lane; i < a.n; i += WG) {
        let token = item(a, i);
        let own = bitcast<f32>(token.x);
        if (own >= limit) {
            let score = race_score(s, token.y, own, top);
            if (score > mine.value || (score == mine.value && token.y < mine.token)) {
                mine = Best(score, token.y);
            }
        }
    }
    let winner = workgroup_best(mine, lane);
    if (lane == 0) {
        won[group.y * CHUNKS] = vec4u(bitcast<u32>(winner.value), winner.token, 0, 0);
        samplers[slot].top = top;
        samplers[slot].floor = limit;
    }
}
