//! use weight, input, act, reduce
//! with unit, products, block_end
// project_add: x += SCALE (W h + b), the end of a block (common/block_end).
//   W [DIM, K]  any weight format    h [n, K]  as the part `input` says (there called x)
//   b [DIM] f32 if BIAS
//   K and DIM multiples of 32
// Bound by reading W. Accumulates in f32.
override K: u32;
override DIM: u32;
override TOKENS: u32; // 1, 8 or 16
override ROWS: u32;
override SPLIT: u32;
override AHEAD: u32;
override WG: u32;
override TEAM: u32;
override SETS: u32;
override TURNS: u32;
override SHARED: bool;
override BIAS: bool;
override NEXT: bool;
override SCALE: f32;

@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<uniform> sizes: vec4u;
@group(0) @binding(4) var<storage, read_write> stream: array<f32>;
@group(0) @binding(5) var<storage, read> w: array<f32>;
@group(0) @binding(6) var<storage, read_write> squares: array<f32>;

@compute @workgroup_size(WG)
fn project_add(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let first = group.x * GROUP_ROWS;
    var n = 1u;
    if (TOKENS > 1) {
        n = sizes.x;
    }
    let row = first + lane % GROUP_ROWS;
    var end = row_end(0, row, lane);
    if (BIAS && lane < PRODUCTS && row < DIM) {
        end.added = bias[row];
    }
    products(first + team_row(lane), ROWS, 0, DIM - 1, n, lane);
    workgroupBarrier();
    end_rows(0, n, first, end, lane);
}
