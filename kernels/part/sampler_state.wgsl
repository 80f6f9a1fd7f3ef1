// sampler_state: how each slot's next token is chosen, as the host wrote it.
struct Sampler {
    temperature: f32, // 0: greedy
    top_p: f32,       // 0 or 1: off
    min_p: f32,       // 0: off
    repeat: f32,      // 1: off
    presence: f32,
    frequency: f32,
    top_k: u32,       // 0: off
    seed_low: u32,
    seed_high: u32,
    draws: u32,       // tokens drawn since the seed was set: the counter of the random numbers
    top: f32,         // the largest adjusted logit,
    floor: f32,       // and what is below is not drawn: as sample_select found them
}

@group(0) @binding(0) var<storage, read_write> samplers: array<Sampler>;
