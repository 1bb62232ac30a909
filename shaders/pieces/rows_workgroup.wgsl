// Reductions over the ACROSS threads that share rows, through workgroup memory. Each overwrites the part of `tile` from V_AT
// on, and takes one barrier.
struct Invocation { @builtin(local_invocation_index) index: u32 }

fn thread_of(invocation: Invocation) -> u32 { return invocation.index; }

// A group of the tile has the numbers of TOLD threads.
const TOLD = GROUP / ROW_VECTORS;

fn tell_row(thread: u32, x: PerRow) {
    // unroll
    for (var a = 0u; a < ROW_VECTORS; a++) { tile[V_AT + thread / TOLD][thread % TOLD * ROW_VECTORS + a] = x[a]; }
    workgroupBarrier();
}

// The maximum over the threads, for each row.
fn largest_of_row(thread: u32, x: PerRow) -> PerRow {
    tell_row(thread, x);
    let first = V_AT + thread / ACROSS * (ACROSS / TOLD);
    var top = x;
    // unroll
    for (var i = 0u; i < ACROSS; i++) {
        // unroll
        for (var a = 0u; a < ROW_VECTORS; a++) { top[a] = max(top[a], tile[first + i / TOLD][i % TOLD * ROW_VECTORS + a]); }
    }
    return top;
}

// The sum likewise. All threads add in the same order, so they get the same bits.
fn sum_of_row(thread: u32, x: PerRow) -> PerRow {
    tell_row(thread, x);
    let first = V_AT + thread / ACROSS * (ACROSS / TOLD);
    var sum = PerRow();
    // unroll
    for (var i = 0u; i < ACROSS; i++) {
        // unroll
        for (var a = 0u; a < ROW_VECTORS; a++) { sum[a] += tile[first + i / TOLD][i % TOLD * ROW_VECTORS + a]; }
    }
    return sum;
}
