// join_tree: joins of a row's figures over the COLS lanes that have it, through workgroup memory,
// for devices without subgroup operations. Another barrier is needed before the next one.
override JOIN_PITCH: u32 = COLS + 1; // against bank conflicts
override JOIN_SIZE: u32 = BQ * JOIN_PITCH;
var<workgroup> join_part: array<f32, JOIN_SIZE>; // [row][column]; what it comes to in column 0

fn join_put(x: Rows, lane: u32) {
    let at = lane / COLS * JOIN_PITCH + lane % COLS;
    if (lane < SCORE_LANES) {
        join_part[at] = x.a.x;
        join_part[at + ROW_LANES * JOIN_PITCH] = x.a.y;
        if (ROWS > 2) {
            join_part[at + 2 * ROW_LANES * JOIN_PITCH] = x.a.z;
            join_part[at + 3 * ROW_LANES * JOIN_PITCH] = x.a.w;
        }
        if (ROWS > 4) {
            join_part[at + 4 * ROW_LANES * JOIN_PITCH] = x.b.x;
            join_part[at + 5 * ROW_LANES * JOIN_PITCH] = x.b.y;
            join_part[at + 6 * ROW_LANES * JOIN_PITCH] = x.b.z;
            join_part[at + 7 * ROW_LANES * JOIN_PITCH] = x.b.w;
        }
    }
    workgroupBarrier();
}

fn join_get(lane: u32) -> Rows {
    workgroupBarrier();
    var x = Rows();
    let at = lane / COLS * JOIN_PITCH;
    if (lane < SCORE_LANES) {
        x.a.x = join_part[at];
        x.a.y = join_part[at + ROW_LANES * JOIN_PITCH];
        if (ROWS > 2) {
            x.a.z = join_part[at + 2 * ROW_LANES * JOIN_PITCH];
            x.a.w = join_part[at + 3 * ROW_LANES * JOIN_PITCH];
        }
        if (ROWS > 4) {
            x.b = vec4f(join_part[at + 4 * ROW_LANES * JOIN_PITCH],
                        join_part[at + 5 * ROW_LANES * JOIN_PITCH],
                        join_part[at + 6 * ROW_LANES * JOIN_PITCH],
                        join_part[at + 7 * ROW_LANES * JOIN_PITCH]);
        }
    }
    return x;
}

fn rows_max(x: Rows, lane: u32) -> Rows {
    join_put(x, lane);
    for (var r = lane; r < BQ; r += LANES) {
        var most = join_part[r * JOIN_PITCH];
        for (var i = 1u; i < COLS; i++) {
            most = max(most, join_part[r * JOIN_PITCH + i]);
        }
        join_part[r * JOIN_PITCH] = most;
    }
    return join_get(lane);
}

fn rows_sum(x: Rows, lane: u32) -> Rows {
    join_put(x, lane);
    for (var r = lane; r < BQ; r += LANES) {
        var sum = join_part[r * JOIN_PITCH];
        for (var i = 1u; i < COLS; i++) {
            sum += join_part[r * JOIN_PITCH + i];
        }
        join_part[r * JOIN_PITCH] = sum;
    }
    return join_get(lane);
}
