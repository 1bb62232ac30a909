// No rotary embedding: params.rotary_dims is 0.
fn partner_of(dim: u32) -> u32 { return dim; }
fn rotated(x: vec4<f32>, partner: vec4<f32>, dim: u32, position: u32) -> vec4<f32> { return x; }
