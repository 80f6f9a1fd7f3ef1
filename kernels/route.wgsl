//! use reduce
//! with chosen
// route: the experts of each token and what each of them counts for (common/chosen).
//   choice [n, USED] (expert, weight's f32 bits)
// One workgroup per row. Bound by latency.
override N_EXPERTS: u32;
override USED: u32;
override NORMALISE: bool;
override WEIGHT_SCALE: f32;
override WG: u32;
override TEAM: u32;

@group(0) @binding(0) var<storage, read> router: array<f32>;
@group(0) @binding(1) var<storage, read_write> choice: array<vec2u>;

@compute @workgroup_size(WG)
fn route(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    choose_experts(group.x, lane);
    let weight = chosen_weight(group.x, lane);
    if (lane < USED) {
        choice[group.x * USED + lane] = vec2u(chosen[lane], bitcast<u32>(weight));
    }
}
