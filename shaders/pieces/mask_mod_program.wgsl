// Calls the user's mask_mod.
const HAS_MASK_MOD = true;

fn allowed(row: Row, keys: vec4<u32>) -> vec4<bool> {
    return vec4(mask_mod(at_of(row, keys.x)), mask_mod(at_of(row, keys.y)),
                mask_mod(at_of(row, keys.z)), mask_mod(at_of(row, keys.w)));
}
