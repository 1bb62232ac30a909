// Pairs of a key and its value. Keys that are not valid are not copied.
fn is_there(batch: u32, n: u32) -> bool { return is_staged(batch, n); }
fn pair_place(batch: u32, head: u32, n: u32) -> u32 { return address(params.staged, batch, head, n); }
fn x_address(batch: u32, head: u32, n: u32) -> u32 {
    let source = source_of(batch, n);
    return address(params.k, source.batch, head, source.row);
}
fn y_address(batch: u32, head: u32, n: u32) -> u32 {
    let source = source_of(batch, n);
    return address(params.v, source.batch, head, source.row);
}
fn load_x(at: u32, dim: u32, count: u32) -> vec4<f32> { return load_k(at, dim, count); }
fn load_y(at: u32, dim: u32, count: u32) -> vec4<f32> { return load_v(at, dim, count); }
fn note_of(batch: u32, head: u32, n: u32) -> vec2<f32> { return vec2(0.0); }
