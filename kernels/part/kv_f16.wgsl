// kv_f16: the paged key and value caches of a layer as half floats, eight to a chunk.
@group(0) @binding(0) var<storage, read_write> kc: array<vec4u>;
@group(0) @binding(1) var<storage, read_write> vc: array<vec4u>;

alias Chunk = vec4u;

fn chunk_floats(c: Chunk) -> array<vec4f, 2> {
    return array<vec4f, 2>(vec4f(unpack2x16float(c.x), unpack2x16float(c.y)),
        vec4f(unpack2x16float(c.z), unpack2x16float(c.w)));
}

// Four of them, finite: attend_matrix multiplies what a page has behind its keys by 0.
fn kept(v: vec4f) -> vec2u {
    let x = select(clamp(v, vec4f(-65504), vec4f(65504)), vec4f(),
        (bitcast<vec4u>(v) & vec4u(0x7fffffff)) > vec4u(0x7f800000)); // NaN
    return vec2u(pack2x16float(x.xy), pack2x16float(x.zw));
}

// As the cache keeps it: rounded.
fn chunk_of(a: vec4f, b: vec4f) -> Chunk {
    return vec4u(kept(a), kept(b));
}

fn chunk_pick(a: Chunk, b: Chunk, second: bool) -> Chunk {
    return select(a, b, second);
}

fn key_chunk(i: u32) -> Chunk {
    return kc[i];
}

fn value_chunk(i: u32) -> Chunk {
    return vc[i];
}

fn key_put(i: u32, c: Chunk) {
    kc[i] = c;
}

fn value_put(i: u32, c: Chunk) {
    vc[i] = c;
}
