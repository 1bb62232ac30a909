// No score_mod.
fn unmodified(row: Row, keys: vec4<u32>, s: vec4<f32>, gradient: vec4<f32>) -> vec4<f32> { return gradient; }
