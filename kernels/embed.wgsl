//! use weight, act
//! with unit, block_input
// embed: x[r, :] = E[token[r], :] SCALE, plus P[position[r], :] if LEARNED, the table lookup at the
// start of the pass, and seen[token] for the samplers' penalties. If NEXT also what the first block
// reads, where that is a fused product's input.
//   E [vocab, K]  any weight format, rows of whole blocks; this call has rows [first, first +
//   count) of it; K a multiple of 4
//   rows [rows] (token, slot, position, -)    counts [slots, VOCAB] u32    x [rows, K] f32
//   P [positions, K] f32, all that may come
//   if NEXT  w [K] f32 if WEIGHTED    squares [rows, K / 16] f32    act [rows, K] as the part says,
//   K a multiple of 32
// One workgroup per row; lanes take 32 weights in turn. Bound by latency.
override K: u32;
override VOCAB: u32;
override SCALE: f32;
override LEARNED: bool;
override NEXT: bool;
override WEIGHTED: bool;
override WG: u32;
const SEEN = 0x80000000u; // in counts: the token occurred in the prompt or the answer

struct Params {
    first: u32,
    count: u32,
}

@group(0) @binding(1) var<storage, read> rows: array<vec4u>;
@group(0) @binding(2) var<storage, read_write> counts: array<atomic<u32>>;
@group(0) @binding(3) var<storage, read> positions: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> x: array<vec4f>;
@group(0) @binding(5) var<storage, read> w: array<vec4f>;
@group(0) @binding(6) var<storage, read_write> squares: array<f32>;
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(WG)
fn embed(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = rows[group.x];
    if (row.x < p.first || row.x >= p.first + p.count) {
        return;
    }
    if (lane == 0) {
        atomicOr(&counts[row.y * VOCAB + row.x], SEEN);
    }
    for (var unit = lane; unit < (K + 31) / 32; unit += WG) {
        var v = weight_load(row.x - p.first, unit);
        for (var i = 0u; i < 8; i++) {
            if (K % 32 == 0 || unit * 32 + i * 4 < K) {
                var sum = v[i] * SCALE;
                if (LEARNED) {
                    sum += positions[row.z * (K / 4) + unit * 8 + i];
                }
                x[group.x * (K / 4) + unit * 8 + i] = sum;
                v[i] = sum;
            }
        }
        if (NEXT) {
            put_input(group.x, K, 2 * unit, array<vec4f, 4>(v[0], v[1], v[2], v[3]));
            put_input(group.x, K, 2 * unit + 1, array<vec4f, 4>(v[4], v[5], v[6], v[7]));
        }
    }
}
