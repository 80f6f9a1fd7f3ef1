// act_odd: activations [n, width] as single floats, to write, for attention (put_head.wgsl): any
// columns of a row.
@group(0) @binding(8) var<storage, read_write> act: array<f32>;

// `place`: 32 times the first column plus how many, at most 16.
fn act_put(row: u32, width: u32, place: u32, v: array<vec4f, 4>) {
    var x = v;
    let first = row * width + place / 32;
    for (var i = 0u; i < place % 32; i++) {
        act[first + i] = x[i / 4][i % 4];
    }
}
