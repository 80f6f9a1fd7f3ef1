// activation: act(g) u of the feed-forward network with a gate.
//   ACT 0: silu(z) = z / (1 + exp(-z))
//   ACT 1: gelu(z) = z / 2 (1 + tanh(sqrt(2 / pi) (z + 0.044715 z^3))) (Hendrycks and Gimpel 2016),
//          as z / (1 + exp(-2 ...)), which is the same and keeps its accuracy far below 0
//   ACT 2: g and u cut at LIMIT, g / (1 + exp(-ALPHA g)) (u + 1) (GPT-OSS)
fn silu(z: vec4f) -> vec4f {
    return z / (1.0 + exp(-z));
}

fn gelu(z: vec4f) -> vec4f {
    return z / (1.0 + exp(-1.5957691216 * (z + 0.044715 * z * z * z)));
}

fn activated(z: vec4f) -> vec4f {
    if (ACT == 1) {
        return gelu(z);
    }
    return silu(z);
}

fn gated(g: vec4f, u: vec4f) -> vec4f {
    if (ACT == 2) {
        let cut = min(g, vec4f(LIMIT));
        return cut / (1.0 + exp(-ALPHA * cut)) * (clamp(u, vec4f(-LIMIT), vec4f(LIMIT)) + 1.0);
    }
    return activated(g) * u;
}
