// A boolean mask, one byte per element.
const HAS_MASK = true;

// Whether the elements of four keys are not zero. `at` is the index of the element for key 0.
fn is_set(at: u32, keys: vec4<u32>) -> vec4<bool> {
    let i = at + keys * params.mask_key;
    let words = vec4(mask[i.x >> 2u], mask[i.y >> 2u], mask[i.z >> 2u], mask[i.w >> 2u]);
    return ((words >> ((i & vec4(3u)) << vec4(3u))) & vec4(0xffu)) != vec4(0u);
}
