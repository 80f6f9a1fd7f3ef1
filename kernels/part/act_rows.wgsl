// act_rows: activations as plain rows of single floats, to write.
@group(0) @binding(8) var<storage, read_write> act: array<vec4f>;

// Columns 16 half .. 16 half + 15 of a row of 32 units columns.
fn act_put(row: u32, units: u32, half: u32, v: array<vec4f, 4>) {
    let at = row * 8 * units + 4 * half;
    act[at] = v[0];
    act[at + 1] = v[1];
    act[at + 2] = v[2];
    act[at + 3] = v[3];
}
