//! use reduce
// logprobs: logits[t] - log(sum_j exp(logits[j])) of the last reported token and of the most likely
// ones.
//   logits [n, VOCAB] f32    answer as in sample_finish
//   probs [n, 1 + BEST] (token, logarithm as bits): the reported one, then the best in order, lower
//   token first on ties; sizes.w of them
// One workgroup per answer: grid (1, n). Every one of the best costs a pass over the logits.
override VOCAB: u32;
override WG: u32; // 256
override TEAM: u32;

const STEPS = 64u; // DP_STEPS_MAX
const BEST = 32u;

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> answer: array<u32>;
@group(0) @binding(2) var<uniform> sizes: vec4u;
@group(0) @binding(3) var<storage, read_write> probs: array<vec2u>;

var<workgroup> value: array<f32, WG>;
var<workgroup> token: array<u32, WG>;

// The best token after (value, token) in the order of falling logits; VOCAB as `after` means none
// is before.
fn next_best(base: u32, lane: u32, last: f32, after: u32) {
    value[lane] = -3e38;
    token[lane] = VOCAB - 1;
    for (var i = lane; i < VOCAB; i += WG) {
        let l = logits[base + i];
        let allowed = after == VOCAB || l < last || (l == last && i > after);
        if (allowed && l > value[lane]) {
            value[lane] = l;
            token[lane] = i;
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
    workgroupBarrier();
}

@compute @workgroup_size(WG)
fn logprobs(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let base = group.y * VOCAB;
    next_best(base, lane, 0.0, VOCAB);
    let top = value[0];
    var sum = 0.0;
    for (var i = lane; i < VOCAB; i += WG) {
        sum += exp(logits[base + i] - top);
    }
    let log_sum = log(workgroup_sum(sum, lane)); // apart from top: a sure token is 1e-6 from 0
    if (lane == 0) {
        let first = group.y * (1 + STEPS);
        let reported = answer[first + min(answer[first], STEPS)];
        let t = min(reported, VOCAB - 1);
        let l = logits[base + t] - top - log_sum;
        probs[group.y * (1 + BEST)] = vec2u(reported, bitcast<u32>(l));
    }
    for (var i = 0u; i < min(sizes.w, BEST); i++) {
        let l = value[0];
        let t = token[0];
        workgroupBarrier();
        if (lane == 0) {
            probs[group.y * (1 + BEST) + 1 + i] = vec2u(t, bitcast<u32>(l - top - log_sum));
        }
        next_best(base, lane, l, t);
    }
}
