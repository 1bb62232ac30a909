// The largest magnitude of a row, over all threads. Two barriers.
var<workgroup> largest_of_threads: array<f32, THREADS>;

fn largest_of_row(thread: u32, row_cells: Cells) -> f32 {
    var cells = row_cells;
    var own = vec4(0.0);
    // unroll
    for (var c = 0u; c < CELLS; c++) { own = max(own, max(abs(cells[c].low), abs(cells[c].high))); }
    workgroupBarrier();  // the last readers are done
    largest_of_threads[thread] = max(max(own.x, own.y), max(own.z, own.w));
    workgroupBarrier();
    var most = 0.0;
    for (var i = 0u; i < THREADS; i++) { most = max(most, largest_of_threads[i]); }
    return most;
}

// The scale with which the largest magnitude is the largest number. A subnormal one could be 0.
fn scale_of(largest: f32, range: f32) -> f32 { return select(1.0, largest / range, largest / range >= 1.1754944e-38); }

// Whether elements are NaN, which compilers may assume they are not.
fn are_nan(x: vec4<f32>) -> vec4<bool> { return (bitcast<vec4<u32>>(x) & vec4(0x7fffffffu)) > vec4(0x7f800000u); }
