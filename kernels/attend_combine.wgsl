//! use act
//! with spans, put_head
// attend_combine: joins the spans of attend_decode,
//   y = sum_s exp(m_s - M) o_s / sum_s exp(m_s - M) l_s, M = max_s m_s
//   if SINKS the head's sink is one more logit without a value: in M and in the lower sum (Xiao et
//   al. 2023, as GPT-OSS has it)
//   spans as attend_decode leaves them    sinks [N_HEADS] f32    act [rows, N_HEADS HEAD_DIM]
// One workgroup per head and row: grid (N_HEADS, rows); 256 lanes, a vec4 of every so-manieth span
// to each, which are read before it is known how many there are. Rows of one span are done already.
// Bound by latency.
override N_HEADS: u32;
override HEAD_DIM: u32;
override ONE: u32;
override SPAN: u32;
override SPLITS: u32; // at most 64
override WINDOW: u32;
override PAGE: u32;
override SINKS: bool;
override PLAIN: bool;   // of put_head.wgsl

const WG = 256u;
const LOW = -1e30;
override C4: u32 = (HEAD_DIM + 7) / 8 * 2;
override SHARE: u32 = WG / C4;                           // lanes to a column
override SPANS: u32 = (SPLITS + SHARE - 1) / SHARE;      // that a lane adds, at most 16
override H16: u32 = (HEAD_DIM + 15) / 16;

@group(0) @binding(0) var<storage, read> spans: array<vec4f>;
@group(0) @binding(1) var<uniform> rows: array<vec4u, 16>;
@group(0) @binding(2) var<storage, read> sinks: array<f32>;

var<workgroup> weight: array<vec2f, 64>; // (exp(m - M), that times l) of each span
var<workgroup> tops: array<f32, 64>;
var<workgroup> sums: array<vec4f, WG>;

@compute @workgroup_size(WG)
fn attend_combine(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let n = spans_of(rows[group.y].z + 1).n;
    if (n == 1) {
        return;
    }
    let base = (group.y * N_HEADS + group.x) * SPLITS * (C4 + 1);
    var o = array<vec4f, 16>();
    for (var i = 0u; i < SPANS; i++) {
        let s = lane / C4 + i * SHARE;
        if (s < n && lane < SHARE * C4) {
            o[i] = spans[base + s * (C4 + 1) + lane % C4];
        }
    }
    var ml = vec2f(LOW, 0.0);
    if (lane < n) {
        ml = spans[base + lane * (C4 + 1) + C4].xy;
    }
    if (lane < 64) {
        tops[lane] = ml.x;
    }
    workgroupBarrier();
    var m = LOW;
    if (SINKS) {
        m = sinks[group.x];
    }
    for (var s = 0u; s < n; s++) {
        m = max(m, tops[s]);
    }
    if (lane < 64) {
        let e = exp(ml.x - m);
        weight[lane] = vec2f(e, e * ml.y);
    }
    workgroupBarrier();
    var sum = vec4f();
    for (var i = 0u; i < SPANS; i++) {
        let s = lane / C4 + i * SHARE;
        if (s < n) {
            sum += weight[s].x * o[i];
        }
    }
    sums[lane] = sum;
    workgroupBarrier();
    if (lane < C4) {
        for (var k = 1u; k < SHARE; k++) {
            sum += sums[lane + k * C4];
        }
        var l = 0.0;
        if (SINKS) {
            l = exp(sinks[group.x] - m);
        }
        for (var s = 0u; s < n; s++) {
            l += weight[s].y;
        }
        sums[lane] = sum / l; // no other lane reads it before the barrier
    }
    workgroupBarrier();
    if (lane < H16 + filler(group.x + 1)) {
        var v = array<vec4f, 4>();
        for (var c = 0u; c < 4; c++) {
            if (lane * 4 + c < C4) { // of the filler none
                v[c] = sums[lane * 4 + c];
            }
        }
        put_head(group.y, group.x * H16 + lane, v);
    }
}
