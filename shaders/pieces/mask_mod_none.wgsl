// No mask_mod.
const HAS_MASK_MOD = false;

fn allowed(row: Row, keys: vec4<u32>) -> vec4<bool> { return vec4(true); }
