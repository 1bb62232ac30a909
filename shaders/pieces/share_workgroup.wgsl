// What the SHARE threads of a key exchange, through workgroup memory. One barrier each.
struct Invocation { @builtin(local_invocation_index) index: u32 }

fn thread_of(invocation: Invocation) -> u32 { return invocation.index; }

// One more, so that threads of different rows read from different memory banks.
const STRIDE = THREADS + 1u;

var<workgroup> gathered: array<vec4<f32>, THREADS>;            // what each thread has for its own row
var<workgroup> gathered_factors: array<f32, THREADS>;

// The sum over the threads of a key, for the thread's own row. All rows are added up in the same order, so that the bits of
// a row do not depend on its place.
fn sum_of_share(thread: u32, x: Rows) -> vec4<f32> {
    // unroll
    for (var j = 0u; j < ROWS; j++) { exchanged[row_of_entry(thread, j) * STRIDE + thread] = x[j]; }
    workgroupBarrier();  // also for the last readers of `gathered`
    let first = row_of_entry(thread, 0u) * STRIDE + thread / SHARE * SHARE;
    var sum = vec4(0.0);
    // unroll
    for (var i = 0u; i < SHARE; i++) { sum += exchanged[first + i]; }
    return sum;
}

// Everything that the threads of all rows have for their own row, by entry.
fn gather(thread: u32, x: vec4<f32>, factor: f32) -> Gathered {
    gathered[thread] = x;
    gathered_factors[thread] = factor;
    workgroupBarrier();  // also for the last readers of `exchanged`
    var all = Gathered();
    // unroll
    for (var j = 0u; j < ROWS; j++) {
        all.of_row[j] = gathered[thread ^ j];
        all.factor[j] = gathered_factors[thread ^ j];
    }
    return all;
}
