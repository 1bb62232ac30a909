// Pairs of a query and the gradient of its output, with the sums of its row.
fn is_there(batch: u32, n: u32) -> bool { return true; }
fn pair_place(batch: u32, head: u32, n: u32) -> u32 { return address(params.staged_rows, batch, head, n); }
fn x_address(batch: u32, head: u32, n: u32) -> u32 { return address(params.q, batch, head, n); }
fn y_address(batch: u32, head: u32, n: u32) -> u32 { return address(params.dout, batch, head, n); }
fn load_x(at: u32, dim: u32, count: u32) -> vec4<f32> { return load_q(at, dim, count); }
fn load_y(at: u32, dim: u32, count: u32) -> vec4<f32> { return load_dout(at, dim, count); }
fn note_of(batch: u32, head: u32, n: u32) -> vec2<f32> { return sums[address(params.sums, batch, head, n)].xy; }
