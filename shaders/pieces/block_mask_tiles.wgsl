// A block mask: one number per tile of MASK_ROWS queries × MASK_KEYS keys. Its bits say whether the masks let some pairs of
// the tile be seen, and whether they hide some.

// From the host: MASK_ROWS and MASK_KEYS. MASK_KEYS is a multiple of the keys of the schedule's tile.
const HAS_BLOCK_MASK = true;

// The row of tiles that a query row lies in.
fn tile_row(row: Row) -> u32 { return position_of(row).z / MASK_ROWS; }

// A tile's number. If no pair is seen, all are hidden, even if the number is 0.
fn tile_at(row: Row, head: u32, tile_row: u32, key: u32) -> u32 {
    let at = address(params.block_mask, position_of(row).x, params.first_head + head, tile_row);
    let tile = block_mask[at + key / MASK_KEYS];
    return select(SOME_HIDDEN, tile, (tile & SOME_SEEN) != 0u);
}

// The numbers of the tiles of a row's pairs with four keys. Neighbouring keys are in one tile, because every schedule
// aligns them.
fn tiles_with(row: Row, keys: vec4<u32>) -> vec4<u32> {
    let at = within(keys);
    let first = tile_at(row, row.head, tile_row(row), at.x);
    if (keys.w - keys.x <= 3u) { return vec4(first); }
    return vec4(first, tile_at(row, row.head, tile_row(row), at.y),
                tile_at(row, row.head, tile_row(row), at.z), tile_at(row, row.head, tile_row(row), at.w));
}

// The numbers of the tiles of the rows from `first` to `final_row` at a key, combined by or.
fn tiles_of(first: Row, final_row: Row, key: u32) -> u32 {
    let has_heads = GROUPED && params.block_mask.z != 0u;
    let rows = (final_row.query - first.query) * params.group + final_row.head - first.head + 1u;
    let heads = select(1u, min(rows, params.group), has_heads);
    let kv_head = first.head / params.group;
    var tiles = 0u;
    for (var n = 0u; n < heads; n++) {
        let head = select(first.head, kv_head * params.group + (first.head + n) % params.group, has_heads);
        for (var row = tile_row(first); row <= tile_row(final_row); row++) { tiles |= tile_at(first, head, row, key); }
    }
    return tiles;
}

// The first key, from `key` on, of a tile in which some row sees some key; `end` or more if there is none. If `key` begins
// a tile of the schedule, so does the result.
fn next_seen(first: Row, final_row: Row, key: u32, end: u32) -> u32 {
    var next = key;
    while (next < end && (tiles_of(first, final_row, next) & SOME_SEEN) == 0u) { next = (next / MASK_KEYS + 1u) * MASK_KEYS; }
    return next;
}
