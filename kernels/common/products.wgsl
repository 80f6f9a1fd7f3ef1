// products: the sums over K of a product of a few rows of x with rows of W, in workgroup memory.
// LANES = SPLIT * TEAM lanes share ROWS rows of W (row .. row + run, and as many from `step` rows
// further on): each takes every LANES-th unit of 32 columns and multiplies it with up to TOKENS
// rows of x. Weights are bound by reading them, so many of a lane's loads should be under way at
// once, and sums stay in registers: nothing here is indexed by what a loop counts.
// AHEAD steps are written out one after the other, so that the loads of all of them may come first.
// ROWS: 1, 2 or 4, with more than one row of x 1 or 2; TOKENS: 1 or a multiple of 4, at most 16;
// AHEAD: 1, 2 or 4.
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

// Of rows t .. t + 3 of x with a unit; those from n on are some others'.
fn four_products(w: Operand, t: u32, n: u32, unit: u32) -> vec4f {
    return vec4f(multiply(w, input_load(t, unit)),
        multiply(w, input_load(min(t + 1, n - 1), unit)),
        multiply(w, input_load(min(t + 2, n - 1), unit)),
        multiply(w, input_load(min(t + 3, n - 1), unit)));
}

struct TokenSums {
    a: vec4f,
    b: vec4f,
    c: vec4f,
    d: vec4f,
}

fn token_products(s: TokenSums, row: u32, n: u32, unit: u32) -> TokenSums {
    var r = s;
    let w = operand(row, unit);
    r.a += four_products(w, 0, n, unit);
    if (TOKENS > 4 && n > 4) {
        r.b += four_products(w, 4, n, unit);
    }
    if (TOKENS > 8 && n > 8) {
        r.c += four_products(w, 8, n, unit);
    }
    if (TOKENS > 12 && n > 12) {
        r.d += four_products(w, 12, n, unit);
    }
    return r;
}

fn put_product(t: u32, r: u32, sum: f32, lane: u32) {
    let s = team_sum(sum, lane);
    if (lane % TEAM == 0) {
        let part = lane / TEAM % SPLIT;
        partial[(part * TOKENS + t) * GROUP_ROWS + lane / LANES * ROWS + r] = s;
    }
}

fn put_products(s: TokenSums, r: u32, lane: u32) {
    for (var i = 0u; i < 4; i++) {
        put_product(i, r, s.a[i], lane);
        if (TOKENS > 4) {
            put_product(4 + i, r, s.b[i], lane);
        }
        if (TOKENS > 8) {
            put_product(8 + i, r, s.c[i], lane);
        }
        if (TOKENS > 12) {
            put_product(12 + i, r, s.d[i], lane);
        }
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
        put_product(0, 0, sums.x, lane);
        if (ROWS > 1) {
            put_product(0, 1, sums.y, lane);
        }
        if (ROWS > 2) {
            put_product(0, 2, sums.z, lane);
            put_product(0, 3, sums.w, lane);
        }
        return;
    }
    var first = TokenSums();
    var second = TokenSums();
    for (var k = 0u; k < STEPS; k++) {
        let unit = k * LANES + member;
        if (UNITS % LANES == 0 || unit < UNITS) {
            first = token_products(first, rows.x, n, unit);
            if (ROWS > 1) {
                second = token_products(second, rows.y, n, unit);
            }
        }
    }
    put_products(first, 0, lane);
    if (ROWS > 1) {
        put_products(second, 1, lane);
    }
}

fn product_at(t: u32, row: u32) -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < SPLIT; i++) {
        sum += partial[(i * TOKENS + t) * GROUP_ROWS + row];
    }
    return sum;
}
