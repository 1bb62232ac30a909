// The gradient of the keys is not wanted.
const HAS_DK = false;

fn keep_dk(place: Place, kv_head: u32, dim: u32, x: vec4<f32>) {}
