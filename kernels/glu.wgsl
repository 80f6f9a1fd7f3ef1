// glu: h = act(g) * u, the gate of the feed-forward network (Shazeer 2020), or h = act(g) if
// UNGATED.
//   ACT 0: silu(z) = z / (1 + exp(-z))
//   ACT 1: gelu(z) = z / 2 (1 + tanh(sqrt(2 / pi) (z + 0.044715 z^3))) (Hendrycks and Gimpel 2016),
//          as z / (1 + exp(-2 ...)), which is the same and keeps its accuracy far below 0
//   ACT 2: g and u cut at LIMIT, h = g / (1 + exp(-ALPHA g)) (u + 1) (GPT-OSS)
//   gu [rows, 2 N4] vec4f: gate and up side by side; [rows, N4] if UNGATED    h [rows, N4] vec4f
// One lane per vec4: grid (ceil(N4 / 64), rows). Bound by memory.
override N4: u32;
override ACT: u32;
override UNGATED: bool;
override ALPHA: f32;
override LIMIT: f32;

const WG = 64u;

@group(0) @binding(0) var<storage, read> gu: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> h: array<vec4f>;

fn silu(z: vec4f) -> vec4f {
    return z / (1.0 + exp(-z));
}

fn gelu(z: vec4f) -> vec4f {
    return z / (1.0 + exp(-1.5957691216 * (z + 0.044715 * z * z * z)));
}

@compute @workgroup_size(WG)
fn glu(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group.x * WG + lane;
    if (i >= N4) {
        return;
    }
    let at = group.y * N4 + i;
    if (UNGATED) {
        if (ACT == 1) {
            h[at] = gelu(gu[at]);
        } else {
            h[at] = silu(gu[at]);
        }
        return;
    }
    var g = gu[group.y * 2 * N4 + i];
    var u = gu[group.y * 2 * N4 + N4 + i];
    if (ACT == 2) {
        g = min(g, vec4f(LIMIT));
        u = clamp(u, vec4f(-LIMIT), vec4f(LIMIT)) + 1.0;
        g = g / (1.0 + exp(-ALPHA * g));
    } else if (ACT == 1) {
        g = gelu(g);
    } else {
        g = silu(g);
    }
    h[at] = g * u;
}
