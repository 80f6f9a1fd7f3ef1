//! enable f16
// kv_f16: the paged key and value caches of a layer as half floats, to read.
@group(0) @binding(0) var<storage, read> kc: array<vec4<f16>>;
@group(0) @binding(1) var<storage, read> vc: array<vec4<f16>>;

fn key_at(i: u32) -> vec4f {
    return vec4f(kc[i]);
}

fn value_at(i: u32) -> vec4f {
    return vec4f(vc[i]);
}
