//! with floats
// input_f32: the input of a product as single floats (act_f32), for one matrix.
@group(0) @binding(1) var<storage, read> x: array<vec4f>;

fn operand(row: u32, unit: u32) -> Operand {
    return weight_load(row, unit);
}
