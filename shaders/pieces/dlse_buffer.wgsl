// The gradient of each row's log-sum-exp.
fn lse_gradient(batch: u32, head: u32, row: u32) -> f32 { return dlse[address(params.dlse, batch, head, row)]; }
