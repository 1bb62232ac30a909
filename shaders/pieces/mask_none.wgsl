// No boolean mask.
const HAS_MASK = false;

fn attend(at: u32, keys: vec4<u32>) -> vec4<bool> { return vec4(true); }
