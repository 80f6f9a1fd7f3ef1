//! use act
//! with block_input
// ready: makes the input of a block out of the residual stream where what went before has not done
// so (embed, norm_ready, block_end).
//   x [rows, DIM] f32    w [DIM] f32 if WEIGHTED    act [n, DIM] as the part says
//   squares [n, DIM / 16] f32    DIM a multiple of 32
//   row i of act and squares is row i of x, or pick[i] if PICK: those whose logits are wanted
// A lane to 16 columns: grid (ceil(DIM / 1024), n). Bound by latency.
override DIM: u32;
override WEIGHTED: bool;
override PICK: bool;

const WG = 64u;

@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read> w: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> squares: array<f32>;
@group(0) @binding(3) var<storage, read> pick: array<u32>;

@compute @workgroup_size(WG)
fn ready(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let half = group.x * WG + lane;
    if (half >= DIM / 16) {
        return;
    }
    var row = group.y;
    if (PICK) {
        row = pick[group.y];
    }
    var v: array<vec4f, 4>;
    for (var c = 0u; c < 4; c++) {
        v[c] = x[row * (DIM / 4) + half * 4 + c];
    }
    put_input(group.y, DIM, half, v);
}
