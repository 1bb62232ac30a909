// The keys of all sequences follow one another: key n of a sequence is row `keys_at` + n of the only batch.
fn oldest_key(valid: u32) -> u32 { return 0u; }
fn keys_at(batch: u32, valid: u32) -> u32 { return cu_seqlens_k[params.first_batch + batch]; }
fn place_of(batch: u32, keys_at: u32, key: u32) -> Place { return Place(0u, keys_at + key); }

// Of the keys that stage.wgsl copies: whether the n-th is valid, where it lies, and where it is staged.
fn is_staged(batch: u32, n: u32) -> bool { return params.first_row + n < cu_seqlens_k[params.sequences]; }
fn source_of(batch: u32, n: u32) -> Place { return Place(0u, n); }
fn staged_place(batch: u32, keys_at: u32, key: u32) -> Place { return place_of(batch, keys_at, key); }
