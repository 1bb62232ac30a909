// A row's result, all of its keys seen. A row that saw no key is 0, with an LSE of −∞. A row that saw only scores of −∞ has
// no weights: their sum l is 0 there and nowhere else, and the row is NaN.
fn store_columns(row: Row, dim: u32, o: vec4<f32>, l: f32, saw_any: bool) {
    let at = address(params.out, row.batch, row.head, row.query) + dim;
    let mean = select(o / l, vec4(params.nan), l == 0.0);
    store_out(at, params.dim_v - dim, select(vec4(0.0), mean, saw_any));
}

fn store_statistics(row: Row, m: f32, l: f32, saw_any: bool) {
    let lse = select(m * params.natural_scale + log(l), params.nan, l == 0.0);
    store_lse(address(params.lse, row.batch, row.head, row.query), select(params.negative_infinity, lse, saw_any));
}
