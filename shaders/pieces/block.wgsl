// The block of rows of a workgroup, and the keys that these rows see.

// From the schedule: BLOCK_ROWS, the rows of a block; BLOCK_KV, the keys of a tile.

// A workgroup's rows, `first` to `final_row`.
struct Block {
    site: Site,
    first: u32,    // row
    final_row: u32,
}

fn block_of(site: Site) -> Block { return block_at(site, site.first); }

// The block of a site's rows from `first` on.
fn block_at(site: Site, first: u32) -> Block { return Block(site, first, min(first + BLOCK_ROWS, site.rows) - 1u); }

// Row `n` of the block, or its last row if `n` is past the end.
fn block_row(block: Block, n: u32) -> Row { return row_of(block.site, min(block.first + n, block.final_row)); }

// Whether every row of the block sees every key of the tile at key `kv`, by position and mask.
fn is_full(block: Block, kv: u32) -> bool {
    return all_seen(block_row(block, 0u), block_row(block, BLOCK_ROWS), kv, BLOCK_KV);
}

// The first tile from key `kv` on in which a block mask lets some row see some key; without a block mask, the tile at `kv`.
fn next_tile(block: Block, kv: u32, end: u32) -> u32 {
    return next_seen(block_row(block, 0u), block_row(block, BLOCK_ROWS), kv, end);
}

fn key_range(block: Block) -> vec2<u32> {
    return keys_of(block.site, block_row(block, 0u), block_row(block, BLOCK_ROWS), BLOCK_KV);
}
