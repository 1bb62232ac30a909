// A boolean mask, one u32 per element.
const HAS_MASK = true;

// Whether the elements of four keys are not zero. `at` is the index of the element for key 0.
fn is_set(at: u32, keys: vec4<u32>) -> vec4<bool> {
    let i = at + keys * params.mask_key;
    return vec4(mask[i.x], mask[i.y], mask[i.z], mask[i.w]) != vec4(0u);
}
