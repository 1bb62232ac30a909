// Key n of a sequence is row n of its batch.
fn oldest_key(valid: u32) -> u32 { return 0u; }
fn keys_at(batch: u32, valid: u32) -> u32 { return 0u; }
fn place_of(batch: u32, keys_at: u32, key: u32) -> Place { return Place(batch, key); }

// Of the keys that stage.wgsl copies: whether the n-th is valid, where it lies, and where it is staged.
fn is_staged(batch: u32, n: u32) -> bool { return params.first_row + n < valid_keys(batch); }
fn source_of(batch: u32, n: u32) -> Place { return Place(batch, n); }
fn staged_place(batch: u32, keys_at: u32, key: u32) -> Place { return Place(batch, key); }
