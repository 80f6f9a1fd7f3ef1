// kvout_f32: the paged key and value caches of a layer as single floats, to write.
@group(0) @binding(0) var<storage, read_write> kc: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> vc: array<vec4f>;

fn key_put(i: u32, v: vec4f) {
    kc[i] = v;
}

fn value_put(i: u32, v: vec4f) {
    vc[i] = v;
}
