// What the threads of a workgroup tell each other, where it is one subgroup and each thread has its keys alone.
fn sum_of_share(thread: u32, x: vec4<f32>) -> vec4<f32> { return x; }

// The largest of what all threads bring.
fn largest_of_keys(thread: u32, x: vec4<f32>) -> vec4<f32> {
    var most = x;
    for (var step = 1u; step < KEYS; step *= 2u) { most = max(most, subgroupShuffleXor(most, step)); }
    return most;
}

// And their sum: the same bits for all, since either order of a pair gives them.
fn sum_of_keys(thread: u32, x: vec4<f32>) -> vec4<f32> {
    var sum = x;
    for (var step = 1u; step < KEYS; step *= 2u) { sum += subgroupShuffleXor(sum, step); }
    return sum;
}
