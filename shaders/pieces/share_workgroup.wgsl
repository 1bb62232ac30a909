// The sum over the SHARE threads of a key, through workgroup memory. Two barriers.
struct Invocation { @builtin(local_invocation_index) index: u32 }

fn thread_of(invocation: Invocation) -> u32 { return invocation.index; }

// All threads add in the same order, so they get the same bits.
fn sum_of_share(thread: u32, x: Rows) -> Rows {
    exchange(thread, x);
    var sum = Rows();
    for (var i = 0u; i < SHARE; i++) {
        // unroll
        for (var r = 0u; r < ROWS; r++) { sum[r] += exchanged[r * THREADS + thread / SHARE * SHARE + i]; }
    }
    return sum;
}
