//! use weight, input, act, reduce
//! with unit, products, scaled, activation
// project_glu: h = act(Wg x) * (Wu x), gate and up of the feed-forward network with its gate
// (Shazeer 2020; the activations are glu's).
//   W [2 FFN, K]  any weight format: Wg, then Wu
//   x [n, K]  as the part `input` says; x * w of an RMSNorm if NORMED, with
//   squares [n, K / 16] f32  as in project
//   act [n, FFN]  h, as the part `act` says
//   K and FFN multiples of 32
// A team has ROWS / 2 rows of Wg and the same of Wu; GROUP_ROWS / 2 columns of h to a workgroup, a
// multiple of 16. Bound by reading W. Accumulates in f32.
override K: u32;
override FFN: u32;
override TOKENS: u32; // 1, 8 or 16
override ROWS: u32; // even
override SPLIT: u32;
override AHEAD: u32;
override WG: u32;
override TEAM: u32;
override SETS: u32;
override TURNS: u32;
override SHARED: bool;
override NORMED: bool;
override EPS: f32;
override ACT: u32;
override ALPHA: f32;
override LIMIT: f32;

@group(0) @binding(3) var<uniform> sizes: vec4u;
@group(0) @binding(5) var<storage, read> squares: array<f32>;

override PAIRS: u32 = ROWS / 2;
override COLUMNS: u32 = GROUP_ROWS / 2;
override HIDDEN: u32 = COLUMNS * TOKENS;
var<workgroup> hidden: array<f32, HIDDEN>; // [token][column]

@compute @workgroup_size(WG)
fn project_glu(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let first = group.x * COLUMNS;
    var n = 1u;
    if (TOKENS > 1) {
        n = sizes.x;
    }
    let share = squares_share(0, n, lane);
    products(first + team_row(lane) / 2, PAIRS, FFN, 2 * FFN - 1, n, lane);
    find_scales(share, n, lane);
    workgroupBarrier();
    for (var i = lane; i < HIDDEN; i += WG) {
        let t = i / COLUMNS;
        let c = i % COLUMNS;
        let at = c / PAIRS * ROWS + c % PAIRS;
        let gate = product_at(t, at) * input_scale[t];
        let up = product_at(t, at + PAIRS) * input_scale[t];
        hidden[i] = gated(vec4f(gate), vec4f(up)).x;
    }
    workgroupBarrier();
    for (var i = lane; i < HIDDEN / 16; i += WG) {
        let t = i * 16 / COLUMNS;
        let half = first / 16 + i % (COLUMNS / 16);
        if (t < n && half * 16 < FFN) {
            let at = i * 16;
            var v: array<vec4f, 4>;
            v[0] = vec4f(hidden[at], hidden[at + 1], hidden[at + 2], hidden[at + 3]);
            v[1] = vec4f(hidden[at + 4], hidden[at + 5], hidden[at + 6], hidden[at + 7]);
            v[2] = vec4f(hidden[at + 8], hidden[at + 9], hidden[at + 10], hidden[at + 11]);
            v[3] = vec4f(hidden[at + 12], hidden[at + 13], hidden[at + 14], hidden[at + 15]);
            act_put(t, FFN / 32, half, v);
        }
    }
}
