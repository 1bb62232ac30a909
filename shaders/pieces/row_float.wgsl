// Stores a row of `dims` elements as floating-point numbers.
fn store_row(row: u32, thread: u32, dims: u32, row_cells: Cells) {
    var cells = row_cells;
    // unroll
    for (var c = 0u; c < CELLS; c++) {
        let dim = cell_at(thread, c);
        if (dim < dims) { store(row + dim, dims - dim, cells[c].low); }
        if (dim + 4u < dims) { store(row + dim + 4u, dims - dim - 4u, cells[c].high); }
    }
}
