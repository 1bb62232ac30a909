// The gradient of each row's log-sum-exp.
fn lse_gradient(row: Row) -> f32 { return dlse[address(params.dlse, row.batch, row.head, row.at)]; }
