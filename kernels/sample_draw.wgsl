//! use sampler, reduce
//! with best, race
// sample_draw: who takes part in the race. Without top-k and top-p everybody who passes min-p: the
// race is run here, a chunk at a time. With them the tokens that may pass them go to a list, in no
// order, for sample_select.
//   z [n, VOCAB] f32    best [n, CHUNKS] as sample_scan wrote it    won [n, CHUNKS] (score as bits,
//   token, 0, 0), the winner per chunk    found [n, 2 + FOUND] (how many, 0), (the largest z, sum
//   of exp(z - that)), then (z as bits, token); more than FOUND: the list is not all, and not read
// What may pass: of k tokens that k chunks have at their best the least is no better than the k-th
// of all; tokens below top + log((1 - p) mass / (2 VOCAB)) have (1 - p) / 2 of the mass at most.
// Every workgroup works this out for itself from the chunks' figures, in the same order.
// One workgroup per chunk of CHUNK tokens: grid (CHUNKS, n). Bound by latency.
override VOCAB: u32;
override CHUNK: u32; // tokens to a workgroup
override CHUNKS: u32;
override FOUND: u32;
override WG: u32;
override TEAM: u32;

@group(0) @binding(1) var<storage, read> z: array<f32>;
@group(0) @binding(2) var<storage, read> rows: array<vec4u>;
@group(0) @binding(3) var<storage, read> best: array<vec4u>;
@group(0) @binding(4) var<storage, read_write> won: array<vec4u>;
@group(0) @binding(5) var<storage, read_write> found: array<atomic<u32>>;

override QUADS: u32 = (CHUNKS + 3) / 4;
var<workgroup> tops: array<vec4f, QUADS>; // of the chunks; past the last: below all
var<workgroup> kth: f32;
var<workgroup> n_here: atomic<u32>;
var<workgroup> first_here: u32; // in the list

// How many chunks come before chunk c in the order of their best.
fn rank_of(c: u32, v: f32) -> u32 {
    var n = vec4u();
    for (var i = 0u; i < QUADS; i++) {
        let t = tops[i];
        let before = vec4u(4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3) < vec4u(c);
        n += select(vec4u(), vec4u(1), (t > vec4f(v)) | ((t == vec4f(v)) & before));
    }
    return n.x + n.y + n.z + n.w;
}

@compute @workgroup_size(WG)
fn sample_draw(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let chunks = group.y * CHUNKS;
    let s = samplers[rows[group.y].y];
    let by_k = s.temperature > 0 && s.top_k > 0 && s.top_k < VOCAB;
    let by_p = s.temperature > 0 && s.top_p > 0 && s.top_p < 1;
    let listed = by_k || by_p;

    var mine = Best(-3e38, 0);
    for (var c = lane; c < 4 * QUADS; c += WG) {
        var v = -3.1e38;
        if (c < CHUNKS) {
            v = bitcast<f32>(best[chunks + c].x);
        }
        tops[c / 4][c % 4] = v;
        mine.value = max(mine.value, v);
    }
    if (lane == 0) {
        kth = -3e38;
        atomicStore(&n_here, 0);
    }
    let top = workgroup_best(mine, lane).value;
    var mass = 0.0;
    for (var c = lane; c < CHUNKS; c += WG) {
        let b = best[chunks + c];
        let v = bitcast<f32>(b.x);
        mass += bitcast<f32>(b.z) * exp(v - top);
        if (by_k && s.top_k <= CHUNKS && rank_of(c, v) == s.top_k - 1) {
            kth = v;
        }
    }
    mass = workgroup_sum(mass, lane);

    // All of a list that top-k cuts is needed for its mass, so min-p waits then; else it helps.
    var low = -3e38;
    if (by_k) {
        low = kth;
    } else if (by_p) {
        low = max(low, top + log((1 - s.top_p) * mass / (2 * f32(VOCAB))));
    }
    if (!by_k && s.temperature > 0 && s.min_p > 0) {
        low = max(low, top + log(s.min_p));
    }

    let base = group.y * VOCAB;
    let last = min(VOCAB, (group.x + 1) * CHUNK);
    mine = Best(-3.1e38, 0);
    var n = 0u;
    for (var v = group.x * CHUNK + lane; v < last; v += WG) {
        let own = z[base + v];
        if (own >= low) {
            if (listed) {
                n++;
            } else {
                let score = race_score(s, v, own, top);
                if (score > mine.value) {
                    mine = Best(score, v);
                }
            }
        }
    }
    var place = 0u;
    if (n > 0) {
        place = atomicAdd(&n_here, n);
    }
    let winner = workgroup_best(mine, lane);
    let list = group.y * 2 * (2 + FOUND);
    if (lane == 0) {
        won[chunks + group.x] = vec4u(bitcast<u32>(winner.value), winner.token, 0, 0);
        let all = atomicLoad(&n_here);
        if (all > 0) {
            first_here = atomicAdd(&found[list], all);
        }
        if (group.x == 0) {
            atomicStore(&found[list + 2], bitcast<u32>(top));
            atomicStore(&found[list + 3], bitcast<u32>(mass));
        }
    }
    workgroupBarrier();
    if (n > 0) {
        place += first_here;
        for (var v = group.x * CHUNK + lane; v < last; v += WG) {
            let own = z[base + v];
            if (own >= low) {
                if (place < FOUND) {
                    atomicStore(&found[list + 4 + 2 * place], bitcast<u32>(own));
                    atomicStore(&found[list + 5 + 2 * place], v);
                }
                place++;
            }
        }
    }
}
