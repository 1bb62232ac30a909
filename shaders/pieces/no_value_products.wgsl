// The gradient of the values needs only the weights.
fn value_products(block: Block, thread: u32, kv: u32) -> Quads { return Quads(); }
