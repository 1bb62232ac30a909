// Blocks of keys, for kernels in which a workgroup has keys and visits the rows that may see them: key_blocks_*.wgsl.

// A block of BLOCK_KV keys of a sequence. `rows` counts the rows of K that have results, valid or not.
struct KeyBlock {
    batch: u32,
    first: u32,
    rows: u32,
}
