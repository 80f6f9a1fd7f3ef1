// kv_f32: the paged key and value caches of a layer as single floats, to read.
@group(0) @binding(0) var<storage, read> kc: array<vec4f>;
@group(0) @binding(1) var<storage, read> vc: array<vec4f>;

fn key_at(i: u32) -> vec4f {
    return kc[i];
}

fn value_at(i: u32) -> vec4f {
    return vc[i];
}
