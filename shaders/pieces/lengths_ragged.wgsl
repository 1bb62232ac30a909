// The keys of all sequences follow one another: sequence n has those from cu_seqlens_k[n] to cu_seqlens_k[n + 1].
const HAS_LENGTHS = true;

fn valid_keys(batch: u32) -> u32 { return min(all_keys(batch), params.len_kv); }

fn all_keys(batch: u32) -> u32 {
    let at = cu_seqlens_k[params.first_batch + batch];
    return max(cu_seqlens_k[params.first_batch + batch + 1u], at) - at;
}
