// chosen: the experts of a token and what each of them counts for.
//   router [n, N_EXPERTS] f32, logits
// The USED largest logits, falling; of equal ones the lower expert first. The weight of expert k is
// WEIGHT_SCALE exp(l_k - max) / S, S = sum_j exp(l_j - max) over the chosen ones if NORMALISE
// (GPT-OSS' softmax after the choice; Mixtral's and Qwen3-MoE's before it, divided by its sum over
// the chosen ones, is the same number), else over all experts.
// A workgroup to a row: each lane counts the experts that go before its own, and that count is the
// rank of its own. Compared as integers in the order of the floats, so the ranks are a
// permutation whatever the logits are, NaN too. N_EXPERTS at most 512, USED at most 16 and
// N_EXPERTS.
override N4: u32 = (N_EXPERTS + 3) / 4;
var<workgroup> keys: array<vec4u, N4>;
var<workgroup> chosen: array<u32, 16>;
var<workgroup> odds: array<f32, 16>; // exp(l - max) of the chosen ones

// Unsigned integers in the order of the floats, the two zeros equal.
fn key_of(v: f32) -> u32 {
    let b = bitcast<u32>(v);
    if ((b << 1) == 0) {
        return 0x80000000u;
    }
    return b ^ select(0x80000000u, 0xffffffffu, (b & 0x80000000u) != 0);
}

// How many experts go before this one. What fills the last vec4 never does: its key is the least
// and its number higher.
fn rank_of(expert: u32) -> u32 {
    let key = vec4u(keys[expert / 4][expert % 4]);
    var before = vec4u();
    for (var i = 0u; i < N4; i++) {
        let other = keys[i];
        let lower = vec4u(4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3) < vec4u(expert);
        before += select(vec4u(), vec4u(1), (other > key) | ((other == key) & lower));
    }
    return before.x + before.y + before.z + before.w;
}

// Finds `chosen` of row t.
fn choose_experts(t: u32, lane: u32) {
    let row = t * N_EXPERTS;
    for (var i = lane; i < N4; i += WG) {
        var four = vec4u();
        for (var j = 0u; j < 4; j++) {
            if (4 * i + j < N_EXPERTS) {
                four[j] = key_of(router[row + 4 * i + j]);
            }
        }
        keys[i] = four;
    }
    workgroupBarrier();
    for (var expert = lane; expert < N_EXPERTS; expert += WG) {
        let rank = rank_of(expert);
        if (rank < USED) {
            chosen[rank] = expert;
        }
    }
    workgroupBarrier();
}

// The weight of expert chosen[lane] of row t, for lanes below USED. All lanes of a workgroup.
fn chosen_weight(t: u32, lane: u32) -> f32 {
    let row = t * N_EXPERTS;
    let top = router[row + chosen[0]];
    if (lane < USED) {
        odds[lane] = exp(router[row + chosen[lane]] - top);
    }
    workgroupBarrier();
    var sum = 0.0;
    if (NORMALISE) {
        for (var k = 0u; k < USED; k++) {
            sum += odds[k];
        }
    } else {
        for (var expert = lane; expert < N_EXPERTS; expert += WG) {
            sum += exp(router[row + expert] - top);
        }
        sum = workgroup_sum(sum, lane);
    }
    return WEIGHT_SCALE * (odds[min(lane, USED - 1)] / sum);
}
