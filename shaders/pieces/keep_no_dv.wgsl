// The gradient of the values is not wanted.
const HAS_DV = false;

fn keep_dv(place: Place, kv_head: u32, dim: u32, x: vec4<f32>) {}
