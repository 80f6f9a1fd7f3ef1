// attend_combine: joins the spans of attend_decode,
//   y = sum_s exp(m_s - M) o_s / sum_s exp(m_s - M) l_s, M = max_s m_s
//   if SINKS the head's sink is one more logit without a value: in M and in the lower sum (Xiao et
//   al. 2023, as GPT-OSS has it)
//   o [rows, N_HEADS, SPLITS, D4] vec4f    ml [rows, N_HEADS, SPLITS] (m, l)    sinks [N_HEADS] f32
//   y [rows, N_HEADS, HEAD_DIM] f32
// One workgroup per head and row: grid (N_HEADS, rows); a lane per column. Bound by latency.
override N_HEADS: u32;
override HEAD_DIM: u32;
override SPAN: u32;
override SPLITS: u32;
override SINKS: bool;

const WG = 64u;
override D4: u32 = (HEAD_DIM + 3) / 4;

@group(0) @binding(0) var<storage, read> o: array<vec4f>;
@group(0) @binding(1) var<storage, read> ml: array<vec2f>;
@group(0) @binding(2) var<storage, read> rows: array<vec4u>;
@group(0) @binding(3) var<storage, read> sinks: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn attend_combine(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    if (lane >= D4) {
        return;
    }
    let at = group.y * N_HEADS + group.x;
    let n = rows[group.y].z / SPAN + 1;
    var m = -1e30;
    for (var s = 0u; s < n; s++) {
        m = max(m, ml[at * SPLITS + s].x);
    }
    var sum = vec4f();
    var l = 0.0;
    if (SINKS) {
        m = max(m, sinks[group.x]);
        l = exp(sinks[group.x] - m);
    }
    for (var s = 0u; s < n; s++) {
        let part = ml[at * SPLITS + s];
        let e = exp(part.x - m);
        l += e * part.y;
        sum += e * o[(at * SPLITS + s) * D4 + lane];
    }
    let v = sum / l;
    for (var c = 0u; c < 4; c++) {
        if (lane * 4 + c < HEAD_DIM) {
            y[at * HEAD_DIM + lane * 4 + c] = v[c];
        }
    }
}
