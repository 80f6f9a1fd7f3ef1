// kv_f32: the paged key and value caches of a layer as single floats, eight to a chunk.
@group(0) @binding(0) var<storage, read_write> kc: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> vc: array<vec4f>;

alias Chunk = array<vec4f, 2>;

fn chunk_floats(c: Chunk) -> array<vec4f, 2> {
    return c;
}

// As the cache keeps it: exact.
fn chunk_of(a: vec4f, b: vec4f) -> Chunk {
    return Chunk(a, b);
}

fn chunk_pick(a: Chunk, b: Chunk, second: bool) -> Chunk {
    return Chunk(select(a[0], b[0], second), select(a[1], b[1], second));
}

fn key_chunk(i: u32) -> Chunk {
    return Chunk(kc[2 * i], kc[2 * i + 1]);
}

fn value_chunk(i: u32) -> Chunk {
    return Chunk(vc[2 * i], vc[2 * i + 1]);
}

fn key_put(i: u32, c: Chunk) {
    kc[2 * i] = c[0];
    kc[2 * i + 1] = c[1];
}

fn value_put(i: u32, c: Chunk) {
    vc[2 * i] = c[0];
    vc[2 * i + 1] = c[1];
}
