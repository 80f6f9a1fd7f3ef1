//! enable f16
// kvout_f16: the paged key and value caches of a layer as half floats, to write.
@group(0) @binding(0) var<storage, read_write> kc: array<vec4<f16>>;
@group(0) @binding(1) var<storage, read_write> vc: array<vec4<f16>>;

fn key_put(i: u32, v: vec4f) {
    kc[i] = vec4<f16>(v);
}

fn value_put(i: u32, v: vec4f) {
    vc[i] = vec4<f16>(v);
}
