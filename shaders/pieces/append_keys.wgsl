// Four elements of a new key, rotated. Those past the end of the row are zero.
fn key_vector(row: u32, dim: u32, position: u32) -> vec4<f32> {
    if (dim >= params.dim_qk) { return vec4(0.0); }
    let x = load_new_k(row, dim, params.dim_qk - dim);
    if (dim >= params.rotary_dims) { return x; }
    let partner = partner_of(dim);
    return rotated(x, load_new_k(row, partner, params.dim_qk - partner), dim, position);
}
fn value_vector(row: u32, dim: u32) -> vec4<f32> {
    if (dim >= params.dim_v) { return vec4(0.0); }
    return load_new_v(row, dim, params.dim_v - dim);
}

// K, V ← a row of the new keys, rotated, and of the new values.
fn append_key(site: Site, row: Row, thread: u32, key: u32) {
    let place = place_of(site.batch, site.keys_at, key);
    let from_k = address(params.new_k, row.batch, site.kv_head, row.at);
    let from_v = address(params.new_v, row.batch, site.kv_head, row.at);
    var keys = Cells();
    var values = Cells();
    // unroll
    for (var c = 0u; c < CELLS; c++) {
        let dim = cell_at(thread, c);
        keys[c] = Cell(key_vector(from_k, dim, key), key_vector(from_k, dim + 4u, key));
        values[c] = Cell(value_vector(from_v, dim), value_vector(from_v, dim + 4u));
    }
    store_row_k(address(params.k, place.batch, site.kv_head, place.row), thread, params.dim_qk, keys);
    store_row_v(address(params.v, place.batch, site.kv_head, place.row), thread, params.dim_v, values);
}
