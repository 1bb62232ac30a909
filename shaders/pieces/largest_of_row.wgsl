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

// The scale with which the largest magnitude is the largest number.
fn scale_of(largest: f32, range: f32) -> f32 { return select(1.0, largest / range, largest > 0.0); }
