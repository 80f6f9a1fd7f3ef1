// products: the sums over K of a product of a few rows of x with rows of W, in workgroup memory.
// LANES = SPLIT * TEAM lanes share ROWS rows of W (row .. row + run, and as many from `step` rows
// further on): each takes every LANES-th unit of 32 columns and multiplies it with up to TOKENS
// rows of x. Weights are bound by reading them, so many of a lane's loads should be under way at
// once, and sums stay in registers: nothing here is indexed by what a loop counts.
// AHEAD steps are written out one after the other, so that the loads of all of them may come first.
// ROWS: 1, 2 or 4, with more than one row of x 1 or 2; TOKENS: 1 or a multiple of 4, at most 16;
// AHEAD: 1, 2 or 4. TEAM: with more than one row of x at least 4.
override UNITS: u32 = (K + 31) / 32;
override LANES: u32 = SPLIT * TEAM;
override STEPS: u32 = (UNITS + LANES - 1) / LANES;
override GROUP_ROWS: u32 = WG / LANES * ROWS; // of a workgroup
override PRODUCTS: u32 = GROUP_ROWS * TOKENS;
override PARTIAL: u32 = PRODUCTS * SPLIT;
var<workgroup> partial: array<f32, PARTIAL>; // [part of K][token][row]

// What a unit adds to the sums of up to four rows of W, for one row of x.
fn unit_products(rows: vec4u, unit: u32) -> vec4f {
    var s = vec4f();
    if (UNITS % LANES == 0 || unit < UNITS) {
        let x = input_load(0, unit);
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

// Of rows t .. t + 3 of x with a unit of two rows of W; rows of x from n on are some others'. What
// is loaded of x serves both rows: with many rows of x reading them bounds the product.
struct FourSums {
    x: vec4f,
    y: vec4f,
}

fn four_products(v: Operand, w: Operand, t: u32, n: u32, unit: u32) -> FourSums {
    let a = input_load(t, unit);
    let b = input_load(min(t + 1, n - 1), unit);
    let c = input_load(min(t + 2, n - 1), unit);
    let d = input_load(min(t + 3, n - 1), unit);
    var s = FourSums();
    s.x = vec4f(multiply(v, a), multiply(v, b), multiply(v, c), multiply(v, d));
    if (ROWS > 1) {
        s.y = vec4f(multiply(w, a), multiply(w, b), multiply(w, c), multiply(w, d));
    }
    return s;
}

fn four_add(a: FourSums, b: FourSums) -> FourSums {
    return FourSums(a.x + b.x, a.y + b.y);
}

struct TokenSums {
    a: FourSums,
    b: FourSums,
    c: FourSums,
    d: FourSums,
}

fn token_products(s: TokenSums, rows: vec4u, n: u32, unit: u32) -> TokenSums {
    var r = s;
    let v = operand(rows.x, unit);
    let w = operand(rows.y, unit); // of one row the same, and not looked at
    r.a = four_add(r.a, four_products(v, w, 0, n, unit));
    if (TOKENS > 4 && n > 4) {
        r.b = four_add(r.b, four_products(v, w, 4, n, unit));
    }
    if (TOKENS > 8 && n > 8) {
        r.c = four_add(r.c, four_products(v, w, 8, n, unit));
    }
    if (TOKENS > 12 && n > 12) {
        r.d = four_add(r.d, four_products(v, w, 12, n, unit));
    }
    return r;
}

// Where the sum of row r of W's with row t of x has its place.
fn partial_at(t: u32, r: u32, lane: u32) -> u32 {
    let part = lane / TEAM % SPLIT;
    return (part * TOKENS + t) * GROUP_ROWS + lane / LANES * ROWS + r;
}

fn put_product(r: u32, sum: f32, lane: u32) {
    let s = team_sum(sum, lane);
    if (lane % TEAM == 0) {
        partial[partial_at(0, r, lane)] = s;
    }
}

fn put_four(t: u32, r: u32, sums: vec4f, lane: u32) {
    let s = team_sum4(sums, lane);
    if (lane % (TEAM / 4) == 0) {
        partial[partial_at(t + lane % TEAM / (TEAM / 4), r, lane)] = s;
    }
}

fn put_products(t: u32, s: FourSums, lane: u32) {
    put_four(t, 0, s.x, lane);
    if (ROWS > 1) {
        put_four(t, 1, s.y, lane);
    }
}

// The rows of the workgroup's lanes lane / LANES are number ROWS * (lane / LANES) + i of it. Rows
// over `last` are read as that one. n is the number of rows of x, at least 1. A barrier belongs
// between this and product_at.
fn products(row: u32, run: u32, step: u32, last: u32, n: u32, lane: u32) {
    let member = lane % LANES;
    let i = vec4u(0, 1, 2, 3);
    let rows = min(vec4u(row) + i % vec4u(run) + i / vec4u(run) * step, vec4u(last));
    if (TOKENS == 1) {
        var sums = vec4f();
        for (var k = 0u; k + AHEAD <= STEPS; k += AHEAD) {
            sums += unit_products(rows, k * LANES + member);
            if (AHEAD > 1) {
                sums += unit_products(rows, (k + 1) * LANES + member);
            }
            if (AHEAD > 2) {
                sums += unit_products(rows, (k + 2) * LANES + member);
                sums += unit_products(rows, (k + 3) * LANES + member);
            }
        }
        for (var k = STEPS / AHEAD * AHEAD; k < STEPS; k++) {
            sums += unit_products(rows, k * LANES + member);
        }
        put_product(0, sums.x, lane);
        if (ROWS > 1) {
            put_product(1, sums.y, lane);
        }
        if (ROWS > 2) {
            put_product(2, sums.z, lane);
            put_product(3, sums.w, lane);
        }
        return;
    }
    var s = TokenSums();
    for (var k = 0u; k < STEPS; k++) {
        let unit = k * LANES + member;
        if (UNITS % LANES == 0 || unit < UNITS) {
            s = token_products(s, rows, n, unit);
        }
    }
    put_products(0, s.a, lane);
    if (TOKENS > 4 && n > 4) {
        put_products(4, s.b, lane);
    }
    if (TOKENS > 8 && n > 8) {
        put_products(8, s.c, lane);
    }
    if (TOKENS > 12 && n > 12) {
        put_products(12, s.d, lane);
    }
}

fn product_at(t: u32, row: u32) -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < SPLIT; i++) {
        sum += partial[(i * TOKENS + t) * GROUP_ROWS + row];
    }
    return sum;
}
