// The sum over the SHARE threads of a key, by shuffles. No barrier. A subgroup may have any size from SHARE lanes
// on: threads are numbered in the order of its lanes, so those of a key are in one subgroup.
struct Invocation {
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_size) size: u32,
    @builtin(subgroup_invocation_id) lane: u32,
}

const_assert SHARE == 8u || SHARE == 16u || SHARE == 32u;

fn thread_of(invocation: Invocation) -> u32 { return invocation.subgroup * invocation.size + invocation.lane; }

// All threads get the same bits, because the order within a pair does not matter.
fn sum_of_share(thread: u32, x: Rows) -> Rows {
    var sum = x;
    // unroll
    for (var r = 0u; r < ROWS; r++) {
        sum[r] += subgroupShuffleXor(sum[r], 1u);
        sum[r] += subgroupShuffleXor(sum[r], 2u);
        sum[r] += subgroupShuffleXor(sum[r], 4u);
        if (SHARE > 8u) { sum[r] += subgroupShuffleXor(sum[r], 8u); }
        if (SHARE > 16u) { sum[r] += subgroupShuffleXor(sum[r], 16u); }
    }
    return sum;
}
