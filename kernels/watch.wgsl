// watch: s[4 FIRST + c] += sum over rows of x[row, c]^2, what flows through the columns of a matrix
// while a text is evaluated (calibrate.c).
//   x [rows TIMES, 4 N4] f32; rows = sizes.x, TIMES rows of x to a row of the pass
//   s f32: the sums of all sites, those of this one from vec4 `first` on
//   sizes.z holds WATCH if the rows of the pass count; else nothing is added
// A workgroup per 16 vec4s of columns: 16 rows at a time, then their sums one after the other, so
// that n rows take ceil(n / 16) + 16 additions. Grid ceil(N4 / 16). Bound by memory.
override N4: u32;
override TIMES: u32;

const WG = 256u;
const COLUMNS = 16u;
const WATCH = 2u; // batch.c

struct Params {
    first: u32,
}

@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<uniform> sizes: vec4u;
@group(0) @binding(2) var<storage, read_write> s: array<vec4f>;
@group(1) @binding(0) var<uniform> params: Params;

var<workgroup> parts: array<vec4f, 256>;

@compute @workgroup_size(WG)
fn watch(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let column = group.x * COLUMNS + lane % COLUMNS;
    let rows = select(0u, sizes.x * TIMES, (sizes.z & WATCH) != 0);
    var sum = vec4f();
    if (column < N4) {
        for (var row = lane / COLUMNS; row < rows; row += WG / COLUMNS) {
            let v = x[row * N4 + column];
            sum += v * v;
        }
    }
    parts[lane] = sum;
    workgroupBarrier();
    if (lane < COLUMNS && column < N4) {
        for (var i = lane + COLUMNS; i < WG; i += COLUMNS) {
            sum += parts[i];
        }
        s[params.first + column] += sum;
    }
}
