// products: the sums over K of a product of a few rows of x with rows of W, in workgroup memory.
// LANES = SPLIT * TEAM lanes share ROWS rows of W (row .. row + run, and as many from `step` rows
// further on): each takes every LANES-th unit of 32 columns and multiplies it with its rows of x.
// With one row of x they do so TURNS times, with other rows of W: a workgroup begins and ends once.
// Weights are bound by reading them, so many of a lane's loads should be under way at once, and
// sums stay in registers: none of them is indexed by what a loop counts. Teams beside each other
// have other rows of W and the same columns of x.
// AHEAD steps are written out one after the other, so that the loads of all of them may come first.
// A lane has at most eight rows of x: sums of more leave no registers. For more of them the lanes
// are SETS sets, of which each takes its share of the rows of x, in whole pairs; what one reads of
// W is near when the other does.
// TOKENS, the most rows of x: 1, 8 or 16; SETS: 2 for 16, else 1; ROWS: 1, 2 or 4; AHEAD, which
// several rows of x do not look at: 1, 2 or 4; TEAM: with several rows of x at least 4; TURNS: with
// several rows of x 1.
// SHARED, if LANES is 1 and subgroups have at least eight lanes: of one row of x all lanes of a
// subgroup need the same, which eight of them read together. On a software GPU every lane's read
// costs.
override UNITS: u32 = (K + 31) / 32;
override LANES: u32 = SPLIT * TEAM;
override STEPS: u32 = (UNITS + LANES - 1) / LANES;
override SET_LANES: u32 = WG / SETS;
override TURN_TEAMS: u32 = SET_LANES / LANES; // with rows of W of their own
override TURN_ROWS: u32 = TURN_TEAMS * ROWS;
override GROUP_ROWS: u32 = TURN_ROWS * TURNS; // of a workgroup
override PRODUCTS: u32 = GROUP_ROWS * TOKENS;
override PARTIAL: u32 = PRODUCTS * SPLIT;
override PART_LANES: u32 = SET_LANES / SPLIT; // of a set, that have the same part of K
var<workgroup> partial: array<f32, PARTIAL>; // [part of K][token][row]

// What a unit adds to the sums of up to four rows of W, for row t of x. Not by multiply_rows: with
// that a pass of one row takes 1 % longer on an H200 (537 us for 530).
fn unit_products(rows: vec4u, t: u32, unit: u32) -> vec4f {
    var s = vec4f();
    if (UNITS % LANES == 0 || unit < UNITS) {
        let x = input_load(t, unit);
        s.x = multiply(operand(rows.x, unit), x);
        if (ROWS > 1) {
            s.y = multiply(operand(rows.y, unit), x);
        }
        if (ROWS > 2) {
            s.z = multiply(operand(rows.z, unit), x);
            s.w = multiply(operand(rows.w, unit), x);
        }
    }
    return s;
}

// A unit of each of the rows of W; those that there are not are the first one.
struct Operands {
    x: Operand,
    y: Operand,
    z: Operand,
    w: Operand,
}

fn operands(rows: vec4u, unit: u32) -> Operands {
    let first = operand(rows.x, unit);
    var w = Operands(first, first, first, first);
    if (ROWS > 1) {
        w.y = operand(rows.y, unit);
    }
    if (ROWS > 2) {
        w.z = operand(rows.z, unit);
        w.w = operand(rows.w, unit);
    }
    return w;
}

// Their products with a unit of a row of x, which serves them all: with several rows of x reading
// them bounds the product.
fn multiply_rows(w: Operands, x: Input) -> vec4f {
    var s = vec4f(multiply(w.x, x), 0, 0, 0);
    if (ROWS > 1) {
        s.y = multiply(w.y, x);
    }
    if (ROWS > 2) {
        s.z = multiply(w.z, x);
        s.w = multiply(w.w, x);
    }
    return s;
}

// The sums for rows t .. t + 3 of x.
struct FourSums {
    a: vec4f,
    b: vec4f,
    c: vec4f,
    d: vec4f,
}

// With a unit's products, of the rows before `end`. Two rows take no longer than one.
fn four_products(s: FourSums, w: Operands, t: u32, end: u32, unit: u32) -> FourSums {
    var r = s;
    r.a += multiply_rows(w, input_load(t, unit));
    r.b += multiply_rows(w, input_load(min(t + 1, end - 1), unit));
    if (t + 2 < end) {
        r.c += multiply_rows(w, input_load(t + 2, unit));
        r.d += multiply_rows(w, input_load(min(t + 3, end - 1), unit));
    }
    return r;
}

// The first row of W of the lane's team, among the workgroup's.
fn team_row(lane: u32) -> u32 {
    return lane % PART_LANES / TEAM * ROWS;
}

// Which part of K a lane has.
fn part_of(lane: u32) -> u32 {
    return lane / PART_LANES % SPLIT;
}

// Where the sum of row r of W's with row t of x has its place.
fn partial_at(t: u32, r: u32, lane: u32) -> u32 {
    return (part_of(lane) * TOKENS + t) * GROUP_ROWS + team_row(lane) + r;
}

fn put_product(r: u32, sum: f32, lane: u32) {
    let s = team_sum(sum, lane);
    if (lane % TEAM == 0) {
        partial[partial_at(0, r, lane)] = s;
    }
}

// The sums for the team's rows r .. r + ROWS of W.
fn put_products(r: u32, sums: vec4f, lane: u32) {
    put_product(r, sums.x, lane);
    if (ROWS > 1) {
        put_product(r + 1, sums.y, lane);
    }
    if (ROWS > 2) {
        put_product(r + 2, sums.z, lane);
        put_product(r + 3, sums.w, lane);
    }
}

// Sums of rows t .. t + 3 of x as far as they are before `end`: other sets have what follows.
fn put_four(t: u32, end: u32, r: u32, sums: vec4f, lane: u32) {
    let s = team_sum4(sums, lane);
    let mine = t + lane % TEAM / QUARTER;
    if (lane % QUARTER == 0 && mine < end) {
        partial[partial_at(mine, r, lane)] = s;
    }
}

fn put_sums(t: u32, end: u32, s: FourSums, lane: u32) {
    put_four(t, end, 0, vec4f(s.a.x, s.b.x, s.c.x, s.d.x), lane);
    if (ROWS > 1) {
        put_four(t, end, 1, vec4f(s.a.y, s.b.y, s.c.y, s.d.y), lane);
    }
    if (ROWS > 2) {
        put_four(t, end, 2, vec4f(s.a.z, s.b.z, s.c.z, s.d.z), lane);
        put_four(t, end, 3, vec4f(s.a.w, s.b.w, s.c.w, s.d.w), lane);
    }
}

// Which of the lanes that share rows of W a lane is.
fn member_of(lane: u32) -> u32 {
    return part_of(lane) * TEAM + lane % TEAM;
}

// A lane's part of the sums for row t of x alone.
fn row_products(rows: vec4u, t: u32, lane: u32) -> vec4f {
    let member = member_of(lane);
    var sums = vec4f();
    if (SHARED) {
        for (var unit = 0u; unit < UNITS; unit++) {
            sums += multiply_rows(operands(rows, unit), shared_load(t, unit, lane));
        }
        return sums;
    }
    for (var k = 0u; k + AHEAD <= STEPS; k += AHEAD) {
        sums += unit_products(rows, t, k * LANES + member);
        if (AHEAD > 1) {
            sums += unit_products(rows, t, (k + 1) * LANES + member);
        }
        if (AHEAD > 2) {
            sums += unit_products(rows, t, (k + 2) * LANES + member);
            sums += unit_products(rows, t, (k + 3) * LANES + member);
        }
    }
    for (var k = STEPS / AHEAD * AHEAD; k < STEPS; k++) {
        sums += unit_products(rows, t, k * LANES + member);
    }
    return sums;
}

// The rows of W that a team whose first is `row` has in a turn: `run` of them, and as many from
// `step` rows further on, all of them TURN_TEAMS run further on than in the turn before. Those over
// `last` are that one.
fn turn_rows(row: u32, run: u32, step: u32, last: u32, turn: u32) -> vec4u {
    let i = vec4u(0, 1, 2, 3);
    let rows = vec4u(row) + i % vec4u(run) + i / vec4u(run) * step;
    return min(rows + turn * TURN_TEAMS * run, vec4u(last));
}

// The sums for row t of x alone, rows of W as in products.
fn products_of(t: u32, row: u32, run: u32, step: u32, last: u32, lane: u32) {
    for (var turn = 0u; turn < TURNS; turn++) {
        let rows = turn_rows(row, run, step, last, turn);
        put_products(turn * TURN_ROWS, row_products(rows, t, lane), lane);
    }
}

// The rows of a team (turn_rows) are number team_row + i of the workgroup's, in turn t TURN_ROWS t
// further on. n is the number of rows of x, at least 1. A barrier belongs between this and
// product_at.
fn products(row: u32, run: u32, step: u32, last: u32, n: u32, lane: u32) {
    if (TOKENS == 1) {
        products_of(0, row, run, step, last, lane);
        return;
    }
    let share = (n + 2 * SETS - 1) / (2 * SETS) * 2; // pairs: the second takes no longer
    let first = lane / SET_LANES * share;
    let end = min(first + share, n);
    let rows = turn_rows(row, run, step, last, 0);
    var s = FourSums();
    var z = FourSums();
    for (var k = 0u; k < STEPS; k++) {
        let unit = k * LANES + member_of(lane);
        if (first < end && (UNITS % LANES == 0 || unit < UNITS)) {
            let w = operands(rows, unit);
            s = four_products(s, w, first, end, unit);
            if (first + 4 < end) {
                z = four_products(z, w, first + 4, end, unit);
            }
        }
    }
    put_sums(first, end, s, lane);
    put_sums(first + 4, end, z, lane);
}

fn product_at(t: u32, row: u32) -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < SPLIT; i++) {
        sum += partial[(i * TOKENS + t) * GROUP_ROWS + row];
    }
    return sum;
}
