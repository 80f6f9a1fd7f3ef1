//! use sampler
//! with best
// sample_finish: the winner over all chunks becomes the next token: it is reported, counted for the
// penalties, checked against the stop set, and the row moves on to it. A row that met a stop token
// stays where it is.
//   best [n, CHUNKS] (score as bits, token, -, -): sample_scan's for greedy samplers alone, else
//   sample_draw's won    rows [n] (token, slot, position, DONE or 0)    counts [slots, VOCAB]
//   stops: how many, then the tokens    answer [1 + steps, n] how many each, then the tokens step
//   by step; n = sizes.y
// One workgroup per answer: grid (1, n). Bound by latency.
override VOCAB: u32;
override CHUNKS: u32;
override WG: u32;

const STEPS = 64u;        // DP_STEPS_MAX
const DONE = 0x80000000u; // in rows[].w
const IGNORE_STOPS = 1u;  // in sizes.z

@group(0) @binding(1) var<storage, read> best: array<vec4u>;
@group(0) @binding(2) var<storage, read> stops: array<u32>;
@group(0) @binding(3) var<uniform> sizes: vec4u;
@group(0) @binding(4) var<storage, read_write> rows: array<vec4u>;
@group(0) @binding(5) var<storage, read_write> counts: array<u32>;
@group(0) @binding(6) var<storage, read_write> answer: array<u32>;

var<workgroup> stopped: atomic<u32>;

@compute @workgroup_size(WG)
fn sample_finish(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = rows[group.y]; // before the barriers: they wait for it anyway
    let n_stops = select(stops[0], 0u, (sizes.z & IGNORE_STOPS) != 0);
    var mine = Best(-3.2e38, 0);
    for (var i = lane; i < CHUNKS; i += WG) {
        let b = best[group.y * CHUNKS + i];
        let v = bitcast<f32>(b.x);
        if (v > mine.value) { // chunks come in token order, so ties stay with the lower token
            mine = Best(v, b.y);
        }
    }
    if (lane == 0) {
        atomicStore(&stopped, 0);
    }
    let winner = workgroup_best(mine, lane);
    var next = winner.token;
    if (!(winner.value > -2.9e38)) { // no logit is a number: said by an id that is no token
        next = 0xffffffffu;
    }
    for (var i = lane; i < n_stops; i += WG) {
        if (stops[1 + i] == next) {
            atomicStore(&stopped, 1);
        }
    }
    workgroupBarrier();
    if (lane != 0 || (row.w & DONE) != 0) {
        return;
    }
    let n = min(answer[group.y] + 1, STEPS);
    answer[group.y] = n;
    answer[n * sizes.y + group.y] = next;
    samplers[row.y].draws += 1;
    if (next == 0xffffffffu || atomicLoad(&stopped) != 0) {
        rows[group.y].w = DONE;
        return;
    }
    counts[row.y * VOCAB + next] += 1;
    rows[group.y] = vec4u(next, row.y, row.z + 1, 0);
}
