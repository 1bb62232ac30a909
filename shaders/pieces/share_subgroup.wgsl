// What the SHARE threads of a key exchange, by shuffles. No barrier. A subgroup may have any size from SHARE lanes on:
// threads are numbered in the order of its lanes, so those of a key are in one subgroup.
//
// From the host: PAIRS = ROWS / 2, FOURS = ROWS / 4, EIGHTS = ROWS / 8.

struct Invocation {
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_size) size: u32,
    @builtin(subgroup_invocation_id) lane: u32,
}

const_assert SHARE == 8u || SHARE == 16u || SHARE == 32u;

const STRIDE = THREADS;

fn thread_of(invocation: Invocation) -> u32 { return invocation.subgroup * invocation.size + invocation.lane; }

// The sum over the threads of a key, for the thread's own row. In the first steps, a thread adds up half of its rows and
// leaves the others to its partner: entry j of the partner at distance d is the same row as the thread's own entry j ^ d.
// Threads that have the same row get the same bits, because the order within a pair does not matter.
fn sum_of_share(thread: u32, x: Rows) -> vec4<f32> {
    var s = x;
    // unroll
    for (var i = 0u; i < PAIRS; i++) { s[2u * i] += subgroupShuffleXor(s[2u * i + 1u], 1u); }
    // unroll
    for (var i = 0u; i < FOURS; i++) { s[4u * i] += subgroupShuffleXor(s[4u * i + 2u], 2u); }
    // unroll
    for (var i = 0u; i < EIGHTS; i++) { s[8u * i] += subgroupShuffleXor(s[8u * i + 4u], 4u); }
    var sum = s[0u];
    if (ROWS <= 1u) { sum += subgroupShuffleXor(sum, 1u); }
    if (ROWS <= 2u) { sum += subgroupShuffleXor(sum, 2u); }
    if (ROWS <= 4u) { sum += subgroupShuffleXor(sum, 4u); }
    if (SHARE > 8u) { sum += subgroupShuffleXor(sum, 8u); }
    if (SHARE > 16u) { sum += subgroupShuffleXor(sum, 16u); }
    return sum;
}

// Everything that the threads of all rows have for their own row, by entry.
fn gather(thread: u32, x: vec4<f32>, factor: f32) -> Gathered {
    var all = Gathered();
    // unroll
    for (var j = 0u; j < ROWS; j++) {
        if (j == 0u) {
            all.of_row[j] = x;
            all.factor[j] = factor;
        } else {
            all.of_row[j] = subgroupShuffleXor(x, j);
            all.factor[j] = subgroupShuffleXor(factor, j);
        }
    }
    return all;
}
