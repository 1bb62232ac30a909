// What the eight threads that share rows tell each other, through shuffles: whatever the size of a subgroup, from eight
// lanes on, since threads are numbered as its lanes are.
struct Invocation {
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_size) size: u32,
    @builtin(subgroup_invocation_id) lane: u32,
}

fn thread_of(invocation: Invocation) -> u32 { return invocation.subgroup * invocation.size + invocation.lane; }

// Each thread brings a number for each of its four rows; the eight threads that share them get the largest.
fn largest_of_row(thread: u32, x: vec4<f32>) -> vec4<f32> {
    var largest = max(x, subgroupShuffleXor(x, 1u));
    largest = max(largest, subgroupShuffleXor(largest, 2u));
    return max(largest, subgroupShuffleXor(largest, 4u));
}

// The same for the sum: the same bits for all, since either order of a pair gives them.
fn sum_of_row(thread: u32, x: vec4<f32>) -> vec4<f32> {
    var sum = x + subgroupShuffleXor(x, 1u);
    sum += subgroupShuffleXor(sum, 2u);
    return sum + subgroupShuffleXor(sum, 4u);
}
