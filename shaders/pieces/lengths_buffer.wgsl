// A buffer holds the number of valid keys of each batch.
const HAS_LENGTHS = true;

fn valid_keys(batch: u32) -> u32 { return min(all_keys(batch), params.len_kv); }

// The number in the buffer, which may be larger than there is room.
fn all_keys(batch: u32) -> u32 { return kv_lengths[params.first_batch + batch]; }
