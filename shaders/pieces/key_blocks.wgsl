// Blocks of keys, for kernels in which a workgroup has keys and visits the rows that may see them.

// A block of BLOCK_KV keys of a sequence. `rows` counts the rows of K that have results, valid or not.
struct KeyBlock {
    batch: u32,
    first: u32,
    rows: u32,
}

// The rows that may see some key of a block, by position: a begin, which is a multiple of BLOCK_ROWS, and an exclusive end.
// Row i sees keys i + band_first ..= i + band_last from the diagonal on, so key j is seen by rows j − band_last ..= j − band_first.
fn rows_that_see(site: Site, keys: KeyBlock) -> vec2<u32> {
    if (keys.first >= site.end) { return vec2(0u); }
    let final_key = min(keys.first + BLOCK_KV, site.end) - 1u;
    let lowest = i32(keys.first) - site.diagonal - params.band_last;
    let highest = i32(final_key) - site.diagonal - params.band_first;
    if (highest < 0) { return vec2(0u); }
    return vec2(u32(max(lowest, 0)) / BLOCK_ROWS * BLOCK_ROWS, min(u32(highest) + 1u, min(site.queries, site.rows)));
}
