// What the eight threads that share rows tell each other, through workgroup memory.
struct Invocation { @builtin(local_invocation_index) index: u32 }

fn thread_of(invocation: Invocation) -> u32 { return invocation.index; }

// Each thread brings a number for each of its four rows; the eight threads that share them get the largest.
fn largest_of_row(thread: u32, x: vec4<f32>) -> vec4<f32> {
    kv_tile[thread] = x;
    workgroupBarrier();
    let first = thread / 8u * 8u;
    var largest = kv_tile[first];
    // unroll
    for (var i = 0u; i < 7u; i++) { largest = max(largest, kv_tile[first + i + 1u]); }
    return largest;
}

// The same for the sum, in one order for all.
fn sum_of_row(thread: u32, x: vec4<f32>) -> vec4<f32> {
    kv_tile[thread] = x;
    workgroupBarrier();
    let first = thread / 8u * 8u;
    var sum = kv_tile[first];
    // unroll
    for (var i = 0u; i < 7u; i++) { sum += kv_tile[first + i + 1u]; }
    return sum;
}
