//! use sampler
// sample_finish: the winner over all chunks becomes the next token: it is reported, counted for the
// penalties, checked against the stop set, and the row moves on to it. A row that met a stop token
// stays where it is.
//   best [n, CHUNKS] (score as bits, token)    rows [rows] (token, slot, position, tokens reported
//   | DONE) counts [slots, VOCAB]    stops: how many, then the tokens    answer [n, 1 + STEPS] how
//   many, then the tokens
// One workgroup per answer: grid (1, n). Bound by latency.
override VOCAB: u32;
override CHUNKS: u32;

const WG = 64u;
const STEPS = 64u;           // DP_STEPS_MAX
const DONE = 0x80000000u;    // in rows[].w
const IGNORE_STOPS = 1u;     // in sizes.z

@group(0) @binding(1) var<storage, read> best: array<vec2u>;
@group(0) @binding(2) var<storage, read> pick: array<u32>;
@group(0) @binding(3) var<storage, read> stops: array<u32>;
@group(0) @binding(4) var<uniform> sizes: vec4u;
@group(0) @binding(5) var<storage, read_write> rows: array<vec4u>;
@group(0) @binding(6) var<storage, read_write> counts: array<u32>;
@group(0) @binding(7) var<storage, read_write> answer: array<u32>;

var<workgroup> value: array<f32, WG>;
var<workgroup> token: array<u32, WG>;

@compute @workgroup_size(WG)
fn sample_finish(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    value[lane] = -3.2e38;
    token[lane] = 0;
    for (var i = lane; i < CHUNKS; i += WG) {
        let b = best[group.y * CHUNKS + i];
        let v = bitcast<f32>(b.x);
        if (v > value[lane]) { // chunks come in token order, so ties stay with the lower token
            value[lane] = v;
            token[lane] = b.y;
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
    let row = pick[group.y];
    let state = rows[row];
    if (lane != 0 || (state.w & DONE) != 0) {
        return;
    }
    var next = token[0];
    if (!(value[0] > -2.9e38)) { // no logit is a number: said by an id that is no token
        next = 0xffffffffu;
    }
    let n = state.w + 1;
    answer[group.y * (1 + STEPS)] = n;
    answer[group.y * (1 + STEPS) + n] = next;
    samplers[state.y].draws += 1;
    if ((sizes.z & IGNORE_STOPS) == 0) {
        for (var i = 1u; i <= stops[0]; i++) {
            if (stops[i] == next) {
                rows[row].w = n | DONE;
                return;
            }
        }
    }
    if (next == 0xffffffffu) {
        rows[row].w = n | DONE;
        return;
    }
    counts[state.y * VOCAB + next] += 1;
    rows[row] = vec4u(next, state.y, state.z + 1, n);
}
