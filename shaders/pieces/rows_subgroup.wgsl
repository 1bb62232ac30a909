// Reductions over the ACROSS threads that share rows, by shuffles. No barrier. A subgroup may have any size from ACROSS lanes
// on: threads are numbered in the order of its lanes, so those of a row are in one subgroup.
struct Invocation {
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_size) size: u32,
    @builtin(subgroup_invocation_id) lane: u32,
}

const_assert ACROSS == 8u || ACROSS == 16u || ACROSS == 32u;

fn thread_of(invocation: Invocation) -> u32 { return invocation.subgroup * invocation.size + invocation.lane; }

// The maximum over the threads, for each row.
fn largest_of_row(thread: u32, x: PerRow) -> PerRow {
    var top = x;
    // unroll
    for (var a = 0u; a < ROW_VECTORS; a++) {
        top[a] = max(top[a], subgroupShuffleXor(top[a], 1u));
        top[a] = max(top[a], subgroupShuffleXor(top[a], 2u));
        top[a] = max(top[a], subgroupShuffleXor(top[a], 4u));
        if (ACROSS > 8u) { top[a] = max(top[a], subgroupShuffleXor(top[a], 8u)); }
        if (ACROSS > 16u) { top[a] = max(top[a], subgroupShuffleXor(top[a], 16u)); }
    }
    return top;
}

// The sum likewise. All threads get the same bits, because the order within a pair does not matter.
fn sum_of_row(thread: u32, x: PerRow) -> PerRow {
    var sum = x;
    // unroll
    for (var a = 0u; a < ROW_VECTORS; a++) {
        sum[a] += subgroupShuffleXor(sum[a], 1u);
        sum[a] += subgroupShuffleXor(sum[a], 2u);
        sum[a] += subgroupShuffleXor(sum[a], 4u);
        if (ACROSS > 8u) { sum[a] += subgroupShuffleXor(sum[a], 8u); }
        if (ACROSS > 16u) { sum[a] += subgroupShuffleXor(sum[a], 16u); }
    }
    return sum;
}
