// What the SHARE threads of a key exchange, through workgroup memory. One barrier each.
struct Invocation { @builtin(local_invocation_index) index: u32 }

fn thread_of(invocation: Invocation) -> u32 { return invocation.index; }

var<workgroup> gathered: array<vec4<f32>, THREADS>;            // what each thread has for its own row
var<workgroup> gathered_factors: array<f32, THREADS>;

// The sum over the threads of a key, for the thread's own row. Threads that have the same row add in the same order, so they
// get the same bits; those of different rows read from different memory banks.
fn sum_of_share(thread: u32, x: Rows) -> vec4<f32> {
    // unroll
    for (var j = 0u; j < ROWS; j++) { exchanged[row_of_entry(thread, j) * THREADS + thread] = x[j]; }
    workgroupBarrier();  // the last readers of `gathered` are done too
    let row = row_of_entry(thread, 0u);
    let first = row * THREADS + thread / SHARE * SHARE;
    var sum = vec4(0.0);
    // unroll
    for (var i = 0u; i < SHARE; i++) { sum += exchanged[first + (row + i) % SHARE]; }
    return sum;
}

// Everything that the threads of all rows have for their own row, by entry.
fn gather(thread: u32, x: vec4<f32>, factor: f32) -> Gathered {
    gathered[thread] = x;
    gathered_factors[thread] = factor;
    workgroupBarrier();  // the last readers of `exchanged` are done too
    var all = Gathered();
    // unroll
    for (var j = 0u; j < ROWS; j++) {
        all.x[j] = gathered[thread ^ j];
        all.factor[j] = gathered_factors[thread ^ j];
    }
    return all;
}
