//! with q8
// inputs_q8: the input of a product as signed bytes (act_q8), for rows of one matrix that are
// followed by those of another.
@group(0) @binding(1) var<storage, read> x: array<vec4u>;

fn operand(row: u32, unit: u32) -> Operand {
    if (TWO && row >= OTHER_FIRST) {
        return other_unit(row - OTHER_FIRST, unit);
    }
    return weight_unit(row, unit);
}
