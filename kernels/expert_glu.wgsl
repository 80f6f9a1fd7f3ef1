//! use weight, input, act, reduce
//! with unit, products, scaled, activation, hidden, chosen
// expert_glu: the first products of the experts that a token goes to, with their activation, and
// which these are (common/chosen).
//   W [2, SLOTS, FFN, K]  any weight format: Wg of all experts, then Wu
//   x [n, K]  as the part `input` says: x * w of an RMSNorm, with
//   squares [n, K / 16] f32  as in project
//   bias [2, N_EXPERTS, FFN] f32 if BIAS, gate's and up's
//   pairs [n, USED] (expert, slot, weight's f32 bits, -)
//   act [n USED, FFN]  h (common/hidden) of each pair
//   K and FFN multiples of 32
// A pair of a row and one of its experts to a workgroup in y. An expert's slot is its number, or if
// PAGED place[expert]; pairs without one are left to another dispatch. Bound by reading W.
// Accumulates in f32.
override K: u32;
override FFN: u32;
override N_EXPERTS: u32;
override SLOTS: u32;
override PAGED: bool;
override USED: u32;
override NORMALISE: bool;
override WEIGHT_SCALE: f32;
override ROWS: u32; // even
override SPLIT: u32;
override AHEAD: u32;
override WG: u32;
override TEAM: u32;
override TURNS: u32;
override SHARED: bool;
override EPS: f32;
override BIAS: bool;
override ACT: u32;
override ALPHA: f32;
override LIMIT: f32;

const TOKENS = 1u;
const SETS = 1u;
const NORMED = true;
const UNGATED = false;

@group(0) @binding(2) var<storage, read> router: array<f32>;
@group(0) @binding(3) var<storage, read> place: array<u32>;
@group(0) @binding(4) var<storage, read_write> pairs: array<vec4u>;
@group(0) @binding(5) var<storage, read> squares: array<f32>;
@group(0) @binding(6) var<storage, read> bias: array<f32>;

override UP_BIAS: u32 = N_EXPERTS * FFN;
override UP: u32 = SLOTS * FFN; // rows of W from an expert's gate to its up

fn slot_of(expert: u32) -> u32 {
    if (PAGED) {
        return place[expert];
    }
    return expert;
}

@compute @workgroup_size(WG)
fn expert_glu(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let t = group.y / USED;
    let share = squares_of(t, lane);
    choose_experts(t, lane);
    if (group.x == 0 && group.y % USED == 0) {
        let weight = chosen_weight(t, lane);
        if (lane < USED) {
            let expert = chosen[lane];
            pairs[group.y + lane] = vec4u(expert, slot_of(expert), bitcast<u32>(weight), 0);
        }
    }
    let expert = workgroupUniformLoad(&chosen[group.y % USED]);
    let slot = slot_of(expert);
    if (PAGED && slot >= SLOTS) {
        return; // all lanes of the workgroup
    }
    let first = group.x * COLUMNS;
    products_of(t, slot * FFN + first + team_row(lane) / ROWS * PAIRS, PAIRS, UP, 2 * UP - 1, lane);
    find_scales(share, 1, lane);
    workgroupBarrier();
    put_hidden(group.y, 1, first, expert * FFN, lane);
}
