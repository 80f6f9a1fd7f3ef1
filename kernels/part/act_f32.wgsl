// act_f32: activations as single floats, to write: a row of 32 units columns has eight planes of a
// vec4f for each unit.
@group(0) @binding(8) var<storage, read_write> act: array<vec4f>;

// Columns 16 half .. 16 half + 15 of a row.
fn act_put(row: u32, units: u32, half: u32, v: array<vec4f, 4>) {
    let at = (row * 8 + 4 * (half & 1)) * units + half / 2;
    act[at] = v[0];
    act[at + units] = v[1];
    act[at + 2 * units] = v[2];
    act[at + 3 * units] = v[3];
}
