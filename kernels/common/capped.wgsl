// capped: the soft cap of scores z: SOFTCAP tanh(z / SOFTCAP) (Gemma Team 2024), z itself if 0.
fn capped(z: vec4f) -> vec4f {
    if (SOFTCAP > 0) {
        return SOFTCAP * tanh(clamp(z / SOFTCAP, vec4f(-15), vec4f(15)));
    }
    return z;
}
