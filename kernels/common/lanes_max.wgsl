// lanes_max: the largest over the lanes of a workgroup, through workgroup memory.
override LANES_SIZE: u32 = WG + 8;
var<workgroup> lanes_part: array<vec4f, LANES_SIZE>;

// The largest of each component over the WG lanes; all of them get it. `eight` is 8: a constant
// would be unrolled. Ends with all lanes past a barrier; needs another before it is called again.
fn lanes_max(v: vec4f, lane: u32, eight: u32) -> vec4f {
    lanes_part[lane] = v;
    workgroupBarrier();
    if (lane < 8) {
        var x = lanes_part[lane];
        for (var i = lane + 8; i < WG; i += 8) {
            x = max(x, lanes_part[i]);
        }
        lanes_part[WG + lane] = x;
    }
    workgroupBarrier();
    var x = lanes_part[WG];
    for (var i = 1u; i < eight; i++) {
        x = max(x, lanes_part[WG + i]);
    }
    return x;
}
