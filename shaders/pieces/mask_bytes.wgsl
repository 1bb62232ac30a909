// A boolean mask, one byte per element, non-zero = attend.
const HAS_MASK = true;

// Whether a query may see each of four keys. `at` is the index of the element for key 0.
fn attend(at: u32, keys: vec4<u32>) -> vec4<bool> {
    let i = at + keys * params.mask_key;
    let words = vec4(mask[i.x >> 2u], mask[i.y >> 2u], mask[i.z >> 2u], mask[i.w >> 2u]);
    return ((words >> ((i & vec4(3u)) << vec4(3u))) & vec4(0xffu)) != vec4(0u);
}
