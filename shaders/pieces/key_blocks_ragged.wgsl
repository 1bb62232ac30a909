// The keys of all sequences follow one another. Blocks are numbered through all sequences, as those of ragged queries are.
fn first_key_block(sequence: u32) -> u32 { return cu_seqlens_k[sequence] / BLOCK_KV + sequence; }

fn key_block_of(workgroup: vec3<u32>) -> KeyBlock {
    let block = params.gradient_begin + workgroup.x;
    let first = sequence_with_key_block(block);
    return KeyBlock(first, (block - first_key_block(first)) * BLOCK_KV, all_keys(first));
}
