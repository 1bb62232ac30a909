// Where the gradient of a row's output begins.
fn dout_address(row: Row) -> u32 { return address(params.dout, row.batch, row.head, row.at); }
