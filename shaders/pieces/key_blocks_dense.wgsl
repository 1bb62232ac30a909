// Each sequence has room for the same number of keys.
fn key_block_of(workgroup: vec3<u32>) -> KeyBlock {
    return KeyBlock(workgroup.z, params.gradient_begin + workgroup.x * BLOCK_KV, params.len_kv);
}
