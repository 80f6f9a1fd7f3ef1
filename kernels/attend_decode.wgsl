//! use kv
// attend_decode: attention of single rows, split over keys: every workgroup takes SPAN keys of a
// row and up to HEADS query heads that share a key head, so that each key and value is read once
// for all of them.
//   o[s] = sum_j exp(q . k_j SCALE - m) v_j, m = max_j, l = sum_j exp(...), over the keys of span s
//   (online softmax, Milakov and Gimelshein 2018); attend_combine joins the spans
//   if SOFTCAP > 0 scores z become SOFTCAP tanh(z / SOFTCAP) (Gemma Team 2024)
//   q [rows, N_KV * GROUP, D4] vec4f    caches as in rope
//   o [rows, N_KV * GROUP, SPLITS, D4] vec4f    ml [rows, N_KV * GROUP, SPLITS] (m, l)
// 64 lanes: a key each for the scores, then a quarter of the keys and D4 columns in turn for the
// values. Grid: (N_KV * ceil(GROUP / HEADS), splits, rows). Bound by reading the cache. f32 sums.
override N_KV: u32;
override GROUP: u32;    // query heads to a key head
override HEADS: u32;    // of them in one workgroup, at most 8
override D4: u32;
override SPAN: u32;     // keys to a workgroup, a multiple of 64
override SPLITS: u32;   // spans of the whole context
override WINDOW: u32;   // keys a query may see, itself included; 0: all
override SCALE: f32;
override SOFTCAP: f32;
override PAGE: u32;
override TABLE: u32;

const WG = 64u;
const LOW = -1e30;
override CHUNKS: u32 = (GROUP + HEADS - 1) / HEADS;
override Q_SIZE: u32 = HEADS * D4;
override S_SIZE: u32 = HEADS * WG;

@group(0) @binding(2) var<storage, read> q: array<vec4f>;
@group(0) @binding(3) var<storage, read> rows: array<vec4u>;
@group(0) @binding(4) var<storage, read> pages: array<u32>;
@group(0) @binding(5) var<storage, read_write> o: array<vec4f>;
@group(0) @binding(6) var<storage, read_write> ml: array<vec2f>;

var<workgroup> q_part: array<vec4f, Q_SIZE>;
var<workgroup> score: array<f32, S_SIZE>; // [head][key of the tile]
var<workgroup> top: array<f32, 8>;        // m so far, per head
var<workgroup> total: array<f32, 8>;      // l so far
var<workgroup> shrink: array<f32, 8>;     // exp(old m - new m)
var<workgroup> partial: array<f32, WG>;
var<workgroup> column: array<vec4f, WG>;

// Where the cache holds key j of the sequence in `slot`, in vec4s.
fn key_base(slot: u32, j: u32, kv: u32) -> u32 {
    return ((pages[slot * TABLE + j / PAGE] * N_KV + kv) * PAGE + j % PAGE) * D4;
}

// Joins 8 values per head, of lanes 8 h .. 8 h + 7, by max or sum, into partial[8 h].
fn join(lane: u32, v: f32, sum: bool) {
    partial[lane] = v;
    for (var step = 4u; step > 0; step >>= 1) {
        workgroupBarrier();
        if ((lane & 7) < step) {
            let a = partial[lane];
            let b = partial[lane + step];
            partial[lane] = select(max(a, b), a + b, sum);
        }
    }
    workgroupBarrier();
}

@compute @workgroup_size(WG)
fn attend_decode(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = rows[group.z];
    let n_keys = row.z + 1;
    var first = group.y * SPAN;
    let last = min(first + SPAN, n_keys);
    if (WINDOW > 0 && n_keys > WINDOW) {
        first = max(first, n_keys - WINDOW);
    }
    let kv = group.x / CHUNKS;
    let head0 = (group.x % CHUNKS) * HEADS; // in the group
    let n_heads = min(HEADS, GROUP - head0);
    let q0 = group.z * N_KV * GROUP + kv * GROUP + head0; // row and head in q

    for (var i = lane; i < n_heads * D4; i += WG) {
        q_part[i] = q[q0 * D4 + i] * SCALE;
    }
    if (lane < 8) {
        top[lane] = LOW;
        total[lane] = 0.0;
    }
    var acc: array<vec4f, 8>; // one head each: lane's column, its share of the keys
    // A lane owns column c for keys j = quarter, quarter + lanes per column, ...; D4 up to 64.
    let share = WG / D4; // lanes to a column
    let c = lane % D4;
    let quarter = lane / D4;
    workgroupBarrier();

    for (var tile = first; tile < last; tile += WG) {
        let j = tile + lane;
        var s = array<f32, 8>();
        if (j < last) {
            let base = key_base(row.y, j, kv);
            for (var d = 0u; d < D4; d++) {
                let k = key_at(base + d);
                for (var h = 0u; h < HEADS; h++) {
                    s[h] += dot(q_part[h * D4 + d], k);
                }
            }
        }
        for (var h = 0u; h < HEADS; h++) {
            var z = s[h];
            if (SOFTCAP > 0) {
                z = SOFTCAP * tanh(clamp(z / SOFTCAP, -15.0, 15.0));
            }
            score[h * WG + lane] = select(LOW, z, j < last);
        }
        workgroupBarrier();
        // New maximum per head: 8 lanes a head scan 8 keys each.
        let h = lane / 8;
        var m = LOW;
        for (var i = 0u; i < 8 && h < HEADS; i++) {
            m = max(m, score[h * WG + (lane & 7) * 8 + i]);
        }
        join(lane, m, false);
        if ((lane & 7) == 0 && h < HEADS) {
            let was = top[h];
            top[h] = max(was, partial[lane]);
            shrink[h] = exp(was - top[h]);
        }
        workgroupBarrier();
        var l = 0.0;
        for (var i = 0u; i < 8 && h < HEADS; i++) {
            let at = h * WG + (lane & 7) * 8 + i;
            let e = select(0.0, exp(score[at] - top[h]), score[at] > LOW);
            score[at] = e;
            l += e;
        }
        join(lane, l, true);
        if ((lane & 7) == 0 && h < HEADS) {
            total[h] = total[h] * shrink[h] + partial[lane];
        }
        workgroupBarrier();
        for (var a = 0u; a < HEADS; a++) {
            acc[a] *= shrink[a];
        }
        if (quarter < share) {
            for (var i = quarter; i < min(WG, last - tile); i += share) {
                let v = value_at(key_base(row.y, tile + i, kv) + c);
                for (var a = 0u; a < HEADS; a++) {
                    acc[a] += score[a * WG + i] * v;
                }
            }
        }
        workgroupBarrier();
    }

    for (var a = 0u; a < n_heads; a++) {
        column[lane] = acc[a];
        workgroupBarrier();
        if (lane < D4) {
            var sum = vec4f();
            for (var i = 0u; i < share; i++) {
                sum += column[i * D4 + lane];
            }
            o[((q0 + a) * SPLITS + group.y) * D4 + lane] = sum;
        }
        workgroupBarrier();
    }
    if (lane < n_heads) {
        ml[(q0 + lane) * SPLITS + group.y] = vec2f(top[lane], total[lane]);
    }
}
