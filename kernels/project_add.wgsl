//! use weight, input, act, reduce
//! with unit, products
// project_add: x += SCALE (W h + b), the end of a block: the residual stream takes what the block
// adds, and the input of the next block is made ready.
//   W [DIM, K]  any weight format    h [n, K]  as the part `input` says (there called x)
//   b [DIM] f32 if BIAS    stream [n, DIM] f32: x
//   if NEXT, with the weights w [DIM] of the RMSNorm in front of the next block (Zhang and Sennrich
//   2019), whose scale its reader finds from
//   squares [n, DIM / 16] f32  sums of x^2 over 16 columns
//   act [n, DIM]  x * w, as the part `act` says
//   K and DIM multiples of 32
// GROUP_ROWS rows of W to a workgroup (products), at most WG, a multiple of 16 if NEXT. Bound by
// reading W. Accumulates in f32.
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

override HALVES: u32 = max(GROUP_ROWS / 16, 1); // of a unit of 32 columns of act
var<workgroup> weighted: array<f32, PRODUCTS>; // [token][row]: x * w
var<workgroup> squared: array<f32, PRODUCTS>;  // x^2

@compute @workgroup_size(WG)
fn project_add(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let first = group.x * GROUP_ROWS;
    var n = 1u;
    if (TOKENS > 1) {
        n = sizes.x;
    }
    // Of the row that this lane ends: asked for before the product, so that it comes meanwhile.
    let row = first + lane % GROUP_ROWS;
    var before = 0.0;
    var added = 0.0;
    var weight = 0.0;
    if (lane < PRODUCTS && row < DIM) {
        if (TOKENS == 1) {
            before = stream[row];
        }
        if (BIAS) {
            added = bias[row];
        }
        if (NEXT) {
            weight = w[row];
        }
    }
    products(first + team_row(lane), ROWS, 0, DIM - 1, n, lane);
    workgroupBarrier();
    for (var i = lane; i < PRODUCTS; i += WG) {
        let t = i / GROUP_ROWS;
        if (t < n && row < DIM) {
            if (TOKENS > 1) {
                before = stream[t * DIM + row];
            }
            let s = SCALE * (product_at(t, i % GROUP_ROWS) + added) + before;
            stream[t * DIM + row] = s;
            weighted[i] = s * weight;
            squared[i] = s * s;
        }
    }
    if (!NEXT) {
        return;
    }
    workgroupBarrier();
    for (var i = lane; i < PRODUCTS / 16; i += WG) {
        let t = i * 16 / GROUP_ROWS;
        let half = first / 16 + i % HALVES;
        if (t < n && half * 16 < DIM) {
            let at = i * 16;
            var v: array<vec4f, 4>;
            v[0] = vec4f(weighted[at], weighted[at + 1], weighted[at + 2], weighted[at + 3]);
            v[1] = vec4f(weighted[at + 4], weighted[at + 5], weighted[at + 6], weighted[at + 7]);
            v[2] = vec4f(weighted[at + 8], weighted[at + 9], weighted[at + 10], weighted[at + 11]);
            v[3] = vec4f(weighted[at + 12], weighted[at + 13], weighted[at + 14],
                weighted[at + 15]);
            var sum = 0.0;
            for (var c = 0u; c < 16; c++) {
                sum += squared[at + c];
            }
            squares[t * (DIM / 16) + half] = sum;
            act_put(t, DIM / 32, half, v);
        }
    }
}
