// unit: 32 consecutive weights of a row as signed bytes: columns 0..15 in a, 16..31 in b, four to a
// word; weight = scale * byte - low, a pair of scale and low for each half.
struct Unit {
    a: vec4u,
    b: vec4u,
    scale: vec2f,
    low: vec2f,
}
