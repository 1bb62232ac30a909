// A row's result, all of its keys seen.
fn store_columns(row: Row, dim: u32, o: vec4<f32>, l: f32, saw_any: bool) {
    let at = address(params.out, row.batch, row.head, row.query) + dim;
    store_out(at, params.dim_v - dim, select(vec4(0.0), o / l, saw_any));
}

fn store_statistics(row: Row, m: f32, l: f32, saw_any: bool) {
    let lse = m * params.natural_scale + log(l);
    store_lse(address(params.lse, row.batch, row.head, row.query), select(params.negative_infinity, lse, saw_any));
}
