// The sums of a sequence's rows carry its number of valid keys: see row_sums.wgsl.
const HAS_LENGTHS = true;

fn valid_keys(batch: u32) -> u32 {
    return loaded_count(sums[address(params.sums, batch, 0u, sequence(batch, 0u).at)].w);
}
