// race: the exponential race (the Gumbel-max trick): the token with the largest z - log(E), E
// exponential, is distributed as softmax(z). With temperature 0 the one with the largest z.
// The random numbers are a hash of seed, draw and token (pcg4d, Jarzynski and Olano 2020), so a
// draw does not depend on the batch.
fn pcg4d(seed: vec4u) -> vec4u {
    var v = seed * 1664525 + 1013904223;
    v.x += v.y * v.w;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v.w += v.y * v.z;
    v ^= v >> vec4u(16);
    v.x += v.y * v.w;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v.w += v.y * v.z;
    return v;
}

// log(-log(1 - u)) for u = (r + 1/2) / 2^32: the small u, which win races, at full resolution.
fn log_exponential(r: u32) -> f32 {
    let u = min((f32(r) + 0.5) * 2.3283064e-10, 0.99999994);
    if (u < 1e-3) {
        return log(u * (1.0 + 0.5 * u));
    }
    return log(-log(1.0 - u));
}

fn race_score(s: Sampler, token: u32, z: f32, top: f32) -> f32 {
    if (s.temperature > 0) {
        return z - top - log_exponential(pcg4d(vec4u(token, s.draws, s.seed_low, s.seed_high)).x);
    }
    return z;
}
