//! use reduce
//! with best
// logprobs: logits[t] - log(sum_j exp(logits[j])) of the last reported token and of the most likely
// ones.
//   logits [n, VOCAB] f32    answer as in sample_finish
//   probs [n, 1 + BEST] (token, logarithm as bits): the reported one, then the best in order, lower
//   token first on ties; sizes.w of them
// One workgroup per answer: grid (1, n). Every one of the best costs a pass over the logits.
override VOCAB: u32;
override WG: u32;
override TEAM: u32;

const BEST = 32u;

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> answer: array<u32>;
@group(0) @binding(2) var<uniform> sizes: vec4u;
@group(0) @binding(3) var<storage, read_write> probs: array<vec2u>;

// The best token after `last` in the order of falling logits, lower tokens first; with VOCAB as its
// token none is before.
fn next_best(base: u32, lane: u32, last: Best) -> Best {
    var mine = Best(-3e38, VOCAB - 1);
    for (var i = lane; i < VOCAB; i += WG) {
        let l = logits[base + i];
        let allowed = last.token == VOCAB || l < last.value || (l == last.value && i > last.token);
        if (allowed && l > mine.value) {
            mine = Best(l, i);
        }
    }
    return workgroup_best(mine, lane);
}

@compute @workgroup_size(WG)
fn logprobs(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let base = group.y * VOCAB;
    var next = next_best(base, lane, Best(0.0, VOCAB));
    let top = next.value;
    var sum = 0.0;
    for (var i = lane; i < VOCAB; i += WG) {
        sum += exp(logits[base + i] - top);
    }
    let log_sum = log(workgroup_sum(sum, lane)); // apart from top: a sure token is 1e-6 from 0
    let first = group.y * (1 + BEST);
    if (lane == 0) {
        let reported = answer[answer[group.y] * sizes.y + group.y];
        let t = min(reported, VOCAB - 1);
        probs[first] = vec2u(reported, bitcast<u32>(logits[base + t] - top - log_sum));
    }
    for (var i = 0u; i < min(sizes.w, BEST); i++) {
        if (lane == 0) {
            probs[first + 1 + i] = vec2u(next.token, bitcast<u32>(next.value - top - log_sum));
        }
        next = next_best(base, lane, next);
    }
}
