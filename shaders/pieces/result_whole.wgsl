// Stores a row's result over all keys. The output of a row that sees no key is 0.
const WHOLE = true;

fn store_columns(row: Row, dim: u32, o: vec4<f32>, m: f32, l: f32, saw_any: bool) {
    let at = address(params.out, row.batch, row.head, row.at) + dim;
    let total = total_of(row, m, l, saw_any);
    let mean = compensated(normalized(o * total.factor, total.l));
    store_out(at, params.dim_v - dim, select(vec4(0.0), mean, saw_any));
}

fn store_statistics(row: Row, m: f32, l: f32, saw_any: bool) {
    let lse = select(params.negative_infinity, total_of(row, m, l, saw_any).lse, row.is_query);
    store_lse(address(params.lse, row.batch, row.head, row.at), lse);
}
