// dV = Pᵀ dO.
const WANTED = WEIGHTS;

fn x_address(block: Block, kv: u32, i: u32) -> u32 { return dout_address(block_row(block, i)); }
fn x_dim() -> u32 { return params.dim_v; }
fn load_x(at: u32, dim: u32, count: u32) -> vec4<f32> { return load_dout(at, dim, count); }
fn store_sum(at: u32, count: u32, x: vec4<f32>) { store_dv(at, count, x); }
fn sum_address(place: Place, kv_head: u32) -> u32 { return address(params.dv, place.batch, kv_head, place.row); }
