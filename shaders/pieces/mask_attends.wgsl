// Elements of the mask that are not zero let the query see the key.
fn attend(at: u32, keys: vec4<u32>) -> vec4<bool> { return is_set(at, keys); }
