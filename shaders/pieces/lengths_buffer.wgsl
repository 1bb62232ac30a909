// A buffer holds the number of valid keys of each batch.
const HAS_LENGTHS = true;

fn valid_keys(batch: u32) -> u32 { return min(kv_lengths[params.first_batch + batch], params.len_kv); }
