// Combines the results of each row over the parts of the keys into the result over all keys.
//
//     m ← max mᵢ;  l ← Σ lᵢ·exp(mᵢ − m);  O ← Σ Oᵢ·exp(mᵢ − m) / l
//
// grid        (⌈Lq / ROWS⌉, Hq, B)
// workgroup   64 threads, each of which computes four columns of a row
// memory      none
// barriers    none
//
// Rows that are no queries have no results and are not read. Nor are parts without keys, if there are lengths: parts_of in
// pieces/site.wgsl.
//
// The algebra is that of tiled.wgsl from tile to tile. Rabe & Staats 2021, Dao et al., Flash-Decoding, 2023.

const THREADS = 64u;
const VECTORS = DIM_V / 4u;
const LAG = 0.0;
const RAISE = 0.0;
const GROUPED = false;
const BLOCK_ROWS = ROWS;

const_assert ROWS * VECTORS <= THREADS;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let site = site_at(workgroup, 0u);
    let n = site.first + thread / VECTORS;
    let vector = thread % VECTORS;
    if (thread >= ROWS * VECTORS || n >= site.rows) { return; }
    let row = row_of(site, n);
    let parts_count = parts_of(site, row);
    let first = address(params.part, row.batch, row.head, row.at) >> 2u;
    let width = 1u + (params.dim_v + 3u) / 4u;

    var m = LOWEST;
    for (var i = 0u; i < parts_count; i++) { m = max(m, parts[first + i * width].x); }

    var l = 0.0;
    var saw = 0.0;
    var o = vec4(0.0);
    for (var i = 0u; i < parts_count; i++) {
        let statistics = parts[first + i * width];
        let factor = rescale(statistics.x, m);
        l = fma(statistics.y, factor, l);
        saw = max(saw, statistics.z);
        if (vector * 4u < params.dim_v) { o = fma(parts[first + i * width + 1u + vector], vec4(factor), o); }
    }
    if (vector * 4u < params.dim_v) { store_columns(row, vector * 4u, o, m, l, saw > 0.0); }
    if (vector == 0u) { store_statistics(row, m, l, saw > 0.0); }
}
