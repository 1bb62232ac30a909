// The queries of all sequences follow one another: sequence n has those from cu_seqlens_q[n] to cu_seqlens_q[n + 1]. Blocks
// are numbered through all sequences, so that no workgroup pads a short one.
const RAGGED = true;
const PADDED = false;

// The number of the first block of a sequence. A sequence of n rows has at most ⌊(end) / ROWS⌋ − ⌊(begin) / ROWS⌋ + 1 blocks.
fn first_block(sequence: u32) -> u32 {
    return cu_seqlens_q[sequence] * select(1u, params.group, GROUPED) / BLOCK_ROWS + sequence;
}

fn sequence_of(workgroup: vec3<u32>) -> Sequence {
    let block = params.first_block + workgroup.x;
    let first = sequence_with(block);
    return sequence(first, block - first_block(first));
}

fn sequence(batch: u32, block: u32) -> Sequence {
    let at = cu_seqlens_q[params.first_batch + batch];
    let queries = min(max(cu_seqlens_q[params.first_batch + batch + 1u], at) - at, params.all_queries);
    return Sequence(batch, block, queries, queries, at);
}
