// load: a unit of weights as floats. weight_ask reads its bits and does nothing else with them, so
// that a kernel can go on while they are on their way; weight_floats makes numbers of them.

// W[row, 32 * unit .. +32]
fn weight_load(row: u32, unit: u32) -> array<vec4f, 8> {
    return weight_floats(weight_ask(row, unit), unit);
}
