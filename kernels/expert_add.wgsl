//! use weight, input, act, reduce
//! with unit, products, block_end
// expert_add: x[t, :] += SCALE sum_k weight[t, k] (W_e h[t, k, :] + b_e), e = expert[t, k], the end
// of a block of experts (common/block_end).
//   W [SLOTS, DIM, K]  any weight format    h [n USED, K]  as the part `input` says
//   b [experts, DIM] f32 if BIAS    pairs [n, USED] (expert, slot, weight's f32 bits, -)
//   K and DIM multiples of 32
// A row to a workgroup in y. If PAGED pairs without a slot are left to another dispatch; act and
// squares, which must not be what expert_glu reads, are right once all are added. Bound by reading
// W. Accumulates in f32.
override K: u32;
override DIM: u32;
override SLOTS: u32;
override PAGED: bool;
override USED: u32;
override ROWS: u32;
override SPLIT: u32;
override AHEAD: u32;
override WG: u32;
override TEAM: u32;
override TURNS: u32;
override SHARED: bool;
override BIAS: bool;
override NEXT: bool;
override SCALE: f32;

const TOKENS = 1u;
const SETS = 1u;

@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> pairs: array<vec4u>;
@group(0) @binding(4) var<storage, read_write> stream: array<f32>;
@group(0) @binding(5) var<storage, read> w: array<f32>;
@group(0) @binding(6) var<storage, read_write> squares: array<f32>;

fn is_left(pair: vec4u) -> bool {
    return PAGED && pair.y >= SLOTS;
}

@compute @workgroup_size(WG)
fn expert_add(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let first = group.x * GROUP_ROWS;
    let first_pair = group.y * USED;
    let row = first + lane % GROUP_ROWS;
    var end = row_end(group.y, row, lane);
    if (BIAS && lane < PRODUCTS && row < DIM) {
        for (var i = first_pair; i < first_pair + USED; i++) {
            let pair = pairs[i];
            if (!is_left(pair)) {
                end.added += bitcast<f32>(pair.z) * bias[pair.x * DIM + row];
            }
        }
    }
    for (var turn = 0u; turn < TURNS; turn++) {
        let these = turn_rows(first + team_row(lane), ROWS, 0, DIM - 1, turn);
        var sums = vec4f();
        for (var i = first_pair; i < first_pair + USED; i++) {
            let pair = pairs[i];
            if (!is_left(pair)) {
                let part = row_products(these + pair.y * DIM, i, lane);
                sums += bitcast<f32>(pair.z) * part;
            }
        }
        put_products(turn * TURN_ROWS, sums, lane);
    }
    workgroupBarrier();
    end_rows(group.y, 1, first, end, lane);
}
