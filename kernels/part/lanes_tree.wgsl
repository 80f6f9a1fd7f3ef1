// lanes_tree: joins of vectors over lanes through workgroup memory, for devices without subgroup
// operations.
override LANES_SIZE: u32 = 2 * WG + 16;
var<workgroup> lanes_part: array<vec4f, LANES_SIZE>;

// The largest of each component over the WG lanes; all of them get it. The second vec4 counts only
// if PAIR. `eight` is 8: a constant would be unrolled. Ends with all lanes past a barrier; needs
// another before it is called again.
fn lanes_max(a: vec4f, b: vec4f, lane: u32, eight: u32) -> array<vec4f, 2> {
    lanes_part[lane] = a;
    if (PAIR) {
        lanes_part[WG + lane] = b;
    }
    workgroupBarrier();
    if (lane < select(8u, 16u, PAIR)) { // eight to a, eight to b
        let end = WG * (1 + lane / 8);
        var x = lanes_part[end - WG + lane % 8];
        for (var i = end - WG + lane % 8 + 8; i < end; i += 8) {
            x = max(x, lanes_part[i]);
        }
        lanes_part[2 * WG + lane] = x;
    }
    workgroupBarrier();
    var x = lanes_part[2 * WG];
    var y = x;
    if (PAIR) {
        y = lanes_part[2 * WG + 8];
    }
    for (var i = 1u; i < eight; i++) {
        x = max(x, lanes_part[2 * WG + i]);
        if (PAIR) {
            y = max(y, lanes_part[2 * WG + 8 + i]);
        }
    }
    return array<vec4f, 2>(x, y);
}

// There is nothing to fold with: FOLD is 1.
fn lanes_fold(v: vec4f) -> vec4f {
    return v;
}
