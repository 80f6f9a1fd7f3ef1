// turned: elements of the heads of a raw row of qkv, normalised if NORM, then turned by their
// position (Su et al. 2021): (a, b) -> (a cos - b sin, b cos + a sin) for the pairs
// (i, i + ROPE_DIM / 2); dimensions from ROPE_DIM on stay.

// Element d of the head at `base` times its norm's factor and weight, which is w[first + d].
fn scaled(base: u32, d: u32, factor: f32, first: u32) -> f32 {
    if (NORM) {
        return qkv[base + d] * factor * w[first + d];
    }
    return qkv[base + d];
}

fn turned(base: u32, d: u32, pos: u32, factor: f32, first: u32) -> f32 {
    let x = scaled(base, d, factor, first);
    if (d >= ROPE_DIM) {
        return x;
    }
    let front = d < PAIRS;
    let other = scaled(base, select(d - PAIRS, d + PAIRS, front), factor, first);
    let turn = angles[pos * PAIRS + select(d - PAIRS, d, front)];
    return x * turn.x + select(other, -other, front) * turn.y;
}
