// Keys lie in pages of PAGE rows, which a sequence's row of the block table lists. `keys_at` is where this row begins.

// From the host: PAGE.
fn oldest_key(valid: u32) -> u32 { return 0u; }
fn keys_at(batch: u32, valid: u32) -> u32 { return (params.first_batch + batch) * params.table_row; }
fn place_of(batch: u32, keys_at: u32, key: u32) -> Place { return Place(block_table[keys_at + key / PAGE], key % PAGE); }

// Of the keys that stage.wgsl copies: whether the n-th is valid, and where it lies. They are staged as dense ones.
fn is_staged(batch: u32, n: u32) -> bool { return params.first_row + n < valid_keys(batch); }
fn source_of(batch: u32, n: u32) -> Place { return place_of(batch, keys_at(batch, 0u), params.first_row + n); }
