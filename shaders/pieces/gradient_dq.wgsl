// dQ = scale · dS′ K.
const WANTED = OF_PRODUCTS;

fn x_address(block: Block, kv: u32, i: u32) -> u32 { return k_address(block.site, kv + i); }
fn x_dim() -> u32 { return params.dim_qk; }
fn load_x(at: u32, dim: u32, count: u32) -> vec4<f32> { return load_k(at, dim, count); }
fn store_sum(at: u32, count: u32, x: vec4<f32>) { store_dq(at, count, x * params.gradient_scale); }
