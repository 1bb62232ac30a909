// No dropout.
fn keeps(row: Row, keys: vec4<u32>) -> vec4<bool> { return vec4(true); }
fn kept(row: Row, keys: vec4<u32>, x: vec4<f32>) -> vec4<f32> { return x; }
