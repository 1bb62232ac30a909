// Four elements of a new query, rotated. Those past the end of the row are zero.
fn query_vector(row: u32, dim: u32, position: u32) -> vec4<f32> {
    if (dim >= params.dim_qk) { return vec4(0.0); }
    let x = load_new_q(row, dim, params.dim_qk - dim);
    if (dim >= params.rotary_dims) { return x; }
    let partner = partner_of(dim);
    return rotated(x, load_new_q(row, partner, params.dim_qk - partner), dim, position);
}

// Q ← a row of the new queries, rotated.
fn rotate_query(row: Row, thread: u32, position: u32) {
    let at = address(params.new_q, row.batch, row.head, row.at);
    var cells = Cells();
    // unroll
    for (var c = 0u; c < CELLS; c++) {
        let dim = cell_at(thread, c);
        cells[c] = Cell(query_vector(at, dim, position), query_vector(at, dim + 4u, position));
    }
    store_row_q(q_address(row), thread, params.dim_qk, cells);
}
