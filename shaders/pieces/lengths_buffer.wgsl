// Each batch has a number of valid keys.
@group(0) @binding(8) var<storage, read> kv_lengths: array<u32>;  // (B)

fn valid_keys(batch: u32) -> u32 { return min(kv_lengths[params.first_batch + batch], params.len_kv); }
