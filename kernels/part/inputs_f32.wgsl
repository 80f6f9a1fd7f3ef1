//! with floats
// inputs_f32: the input of a product as single floats (act_f32), for rows of one matrix that are
// followed by those of another.
@group(0) @binding(1) var<storage, read> x: array<vec4f>;

fn operand(row: u32, unit: u32) -> Operand {
    if (TWO && row >= OTHER_FIRST) {
        return other_load(row - OTHER_FIRST, unit);
    }
    return weight_load(row, unit);
}
