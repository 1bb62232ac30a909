// A row's result, all of its keys seen. A row that saw no key is 0, with an LSE of −∞.
fn store_columns(row: Row, dim: u32, o: vec4<f32>, l: f32, saw_any: bool) {
    let at = address(params.out, row.batch, row.head, row.query) + dim;
    store_out(at, params.dim_v - dim, select(vec4(0.0), share_of(o, l), saw_any));
}

fn store_statistics(row: Row, m: f32, l: f32, saw_any: bool) {
    let at = address(params.lse, row.batch, row.head, row.query);
    store_lse(at, select(params.negative_infinity, log_sum_exp(m, l), saw_any));
}
