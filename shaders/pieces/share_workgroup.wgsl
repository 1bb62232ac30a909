// What the SHARE threads of a key tell each other, through workgroup memory. Two barriers.
struct Invocation { @builtin(local_invocation_index) index: u32 }

fn thread_of(invocation: Invocation) -> u32 { return invocation.index; }

// The sum of what each brings, in one order for all.
fn sum_of_share(thread: u32, x: Rows) -> Rows {
    tell(thread, x);
    var sum = Rows();
    for (var i = 0u; i < SHARE; i++) {
        // unroll
        for (var r = 0u; r < ROWS; r++) { sum[r] += told[r * THREADS + thread / SHARE * SHARE + i]; }
    }
    return sum;
}
