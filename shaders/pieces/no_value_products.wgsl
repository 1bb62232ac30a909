// The gradient of the values needs only the weights.
fn value_products(block: Block, thread: u32, kv: u32) -> Quads { return Quads(); }
fn product_gradients(row: Row, keys: vec4<u32>, products: vec4<f32>, gradient: vec4<f32>) -> vec4<f32> { return gradient; }
