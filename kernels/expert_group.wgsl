// expert_group: the pairs (row, one of its experts) in the order of their experts, and tiles of
// them for matmul.
//   choice [n, USED] (expert, weight); pair = row * USED + k    order [n * USED] u32, pairs
//   expert_tiles [n_tiles] (expert, first place in order, pairs, 0), up to 32 pairs of one expert
//   each; n_tiles = ceil(n USED / 32) + min(N_EXPERTS, n USED), never too few: what is over has no
//   pairs
// Pairs of an expert stay in rising order. One workgroup per expert, 256 lanes: every one of them
// counts all experts' pairs by atomics (in whatever order, they are integers) to know where its own
// begin; a lane has a contiguous share of the pairs, and running sums over the lanes give it its
// place. N_EXPERTS at most 512. Bound by reading choice twice for each expert.
override N_EXPERTS: u32;
override USED: u32;

const WG = 256u;
const TILE = 32u; // TOKENS of matmul.wgsl

@group(0) @binding(0) var<storage, read> choice: array<vec2u>;
@group(0) @binding(1) var<uniform> sizes: vec4u;
@group(0) @binding(2) var<storage, read_write> order: array<u32>;
@group(0) @binding(3) var<storage, read_write> expert_tiles: array<vec4u>;

var<workgroup> count: array<atomic<u32>, N_EXPERTS>;
// Over the lanes up to this one: pairs of the workgroup's expert; pairs and tiles of those before.
var<workgroup> sums: array<vec3u, 256>;

fn tiles_of(pairs: u32) -> u32 {
    return (pairs + TILE - 1) / TILE;
}

fn running_sums(mine: vec3u, lane: u32) {
    sums[lane] = mine;
    for (var step = 1u; step < WG; step <<= 1) {
        workgroupBarrier();
        var before = vec3u();
        if (lane >= step) {
            before = sums[lane - step];
        }
        workgroupBarrier();
        sums[lane] += before;
    }
    workgroupBarrier();
}

@compute @workgroup_size(WG)
fn expert_group(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let expert = group.x;
    let n_pairs = sizes.x * USED;
    let share = (n_pairs + WG - 1) / WG;
    let begin = min(lane * share, n_pairs);
    let end = min(begin + share, n_pairs);
    for (var i = lane; i < N_EXPERTS; i += WG) {
        atomicStore(&count[i], 0);
    }
    workgroupBarrier();
    var own = 0u;
    for (var pair = begin; pair < end; pair++) {
        let other = choice[pair].x;
        atomicAdd(&count[other], 1);
        own += select(0u, 1u, other == expert);
    }
    workgroupBarrier();
    var sum = vec3u(own, 0, 0);
    for (var i = lane; i < expert; i += WG) {
        let pairs = atomicLoad(&count[i]);
        sum += vec3u(0, pairs, tiles_of(pairs));
    }
    running_sums(sum, lane);
    let all = sums[WG - 1];
    var at = all.y + sums[lane].x - own;
    for (var pair = begin; pair < end; pair++) {
        if (choice[pair].x == expert) {
            order[at] = pair;
            at++;
        }
    }
    for (var i = lane; i < tiles_of(all.x); i += WG) {
        let pairs = min(TILE, all.x - i * TILE);
        expert_tiles[all.z + i] = vec4u(expert, all.y + i * TILE, pairs, 0);
    }
    if (expert == N_EXPERTS - 1) {
        let n_tiles = tiles_of(n_pairs) + min(N_EXPERTS, n_pairs);
        for (var i = all.z + tiles_of(all.x) + lane; i < n_tiles; i += WG) {
            expert_tiles[i] = vec4u();
        }
    }
}
