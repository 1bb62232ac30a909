// The last sequence whose first block is at or before a block, by bisection: the numbers of first blocks grow with the sequence.
// Kernels whose workgroups have keys have a copy of this file for their blocks.
fn sequence_with(block: u32) -> u32 {
    var first = 0u;
    var count = params.sequences;
    while (count > 1u) {
        let half = count / 2u;
        if (first_block(first + half) <= block) { first += half; }
        count -= half;
    }
    return first;
}
