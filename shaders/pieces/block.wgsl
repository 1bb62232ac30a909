// A block of rows, one to a workgroup, and the keys that they see.

// From the schedule: ROWS, how many rows a block has, and BLOCK_KV, how many keys a tile.

// The rows that a workgroup works on.
struct Block {
    site: Site,
    first: u32,    // row
    final_row: u32,
}

fn block_of(workgroup: vec3<u32>) -> Block {
    let first = workgroup.x * ROWS;
    return Block(site_of(workgroup), first, min(first + ROWS, row_count()) - 1u);
}

// A row of the block; past its end, its last.
fn block_row(block: Block, n: u32) -> Row { return row_of(block.site, min(block.first + n, block.final_row)); }

fn key_range(block: Block) -> vec2<u32> {
    return keys_of(block.site, block_row(block, 0u), block_row(block, ROWS), BLOCK_KV);
}
