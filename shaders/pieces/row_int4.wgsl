// Stores a row of `dims` elements, quantized as elements_int4.wgsl reads it.
fn store_row(row: u32, thread: u32, dims: u32, row_cells: Cells) {
    var cells = row_cells;
    let scale = scale_of(largest_of_row(thread, row_cells), 7.0);
    if (thread == 0u) { DATA[row] = bitcast<u32>(scale); }
    // unroll
    for (var c = 0u; c < CELLS; c++) {
        let dim = cell_at(thread, c);
        if (dim < dims) { DATA[row + 1u + dim / 8u] = numbers(cells[c].low / scale) | (numbers(cells[c].high / scale) << 16u); }
    }
}
