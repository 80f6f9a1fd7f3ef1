// unit_made: a unit of weights as bytes.

// W[row, 32 * unit .. +32]
fn weight_unit(row: u32, unit: u32) -> Unit {
    return weight_made(weight_ask(row, unit), unit);
}
