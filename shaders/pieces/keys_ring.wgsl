// Key n of a sequence is row n mod capacity of its batch: of all keys, the last ones are kept. `keys_at` is the last key at or
// before the oldest that lies in row 0.
fn oldest_key(valid: u32) -> u32 { return max(valid, params.capacity) - params.capacity; }
fn keys_at(batch: u32, valid: u32) -> u32 { return oldest_key(valid) / params.capacity * params.capacity; }
fn place_of(batch: u32, keys_at: u32, key: u32) -> Place {
    let row = key - keys_at;
    return Place(batch, select(row, row - params.capacity, row >= params.capacity));
}

// Of the keys that stage.wgsl copies: whether the n-th is valid, where it lies, and where it is staged.
fn is_staged(batch: u32, n: u32) -> bool { return params.first_row + n < valid_keys(batch); }
fn source_of(batch: u32, n: u32) -> Place { return Place(batch, n); }
fn staged_place(batch: u32, keys_at: u32, key: u32) -> Place { return place_of(batch, keys_at, key); }
