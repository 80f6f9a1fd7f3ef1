//! with q8
// input_q8: the input of a product as signed bytes (act_q8), for one matrix.
@group(0) @binding(1) var<storage, read> x: array<vec4u>;

fn operand(row: u32, unit: u32) -> Operand {
    return weight_unit(row, unit);
}
