// What the SHARE threads of a key tell each other, through shuffles: whatever the size of a subgroup, from eight lanes on,
// since threads are numbered as its lanes are. No barrier.
struct Invocation {
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_size) size: u32,
    @builtin(subgroup_invocation_id) lane: u32,
}

const_assert SHARE == 8u;

fn thread_of(invocation: Invocation) -> u32 { return invocation.subgroup * invocation.size + invocation.lane; }

// The sum of what each brings: the same bits for all, since either order of a pair gives them.
fn sum_of_share(thread: u32, x: Rows) -> Rows {
    var sum = x;
    // unroll
    for (var r = 0u; r < ROWS; r++) {
        sum[r] += subgroupShuffleXor(sum[r], 1u);
        sum[r] += subgroupShuffleXor(sum[r], 2u);
        sum[r] += subgroupShuffleXor(sum[r], 4u);
    }
    return sum;
}
