//! use weight, input, act, reduce
//! with unit, products, scaled, activation, hidden
// project_glu: the first product of a feed-forward network, with its activation (glu's).
//   W [2 FFN, K]  any weight format: Wg, then Wu; or [FFN, K] if UNGATED
//   x [n, K]  as the part `input` says; x * w of an RMSNorm if NORMED, with
//   squares [n, K / 16] f32  as in project
//   bias [2 FFN] or [FFN] f32 if BIAS, as W
//   act [n, FFN]  h (common/hidden), as the part `act` says
//   K and FFN multiples of 32
// Bound by reading W. Accumulates in f32.
override K: u32;
override FFN: u32;
override TOKENS: u32; // 1, 8 or 16
override ROWS: u32; // even unless UNGATED
override SPLIT: u32;
override AHEAD: u32;
override WG: u32;
override TEAM: u32;
override SETS: u32;
override TURNS: u32;
override SHARED: bool;
override NORMED: bool;
override EPS: f32;
override BIAS: bool;
override ACT: u32;
override UNGATED: bool;
override ALPHA: f32;
override LIMIT: f32;

@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<uniform> sizes: vec4u;
@group(0) @binding(5) var<storage, read> squares: array<f32>;

override UP_BIAS: u32 = select(FFN, 0, UNGATED);

@compute @workgroup_size(WG)
fn project_glu(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let first = group.x * COLUMNS;
    var n = 1u;
    if (TOKENS > 1) {
        n = sizes.x;
    }
    let share = squares_share(0, n, lane);
    products(first + team_row(lane) / ROWS * PAIRS, PAIRS, UP_BIAS, UP_BIAS + FFN - 1, n, lane);
    find_scales(share, n, lane);
    workgroupBarrier();
    put_hidden(0, n, first, 0, lane);
}
