// Stores a row of `dims` elements, quantized: its scale, and then its numbers.

// From numbers_*.wgsl: RANGE, the largest number, and PER_WORD, the numbers per word.
fn store_row(row: u32, thread: u32, dims: u32, row_cells: Cells) {
    var cells = row_cells;
    let scale = scale_of(largest_of_row(thread, row_cells), RANGE);
    if (thread == 0u) { DATA[row] = bitcast<u32>(scale); }
    // unroll
    for (var c = 0u; c < CELLS; c++) {
        let dim = cell_at(thread, c);
        let at = row + 1u + dim / PER_WORD;
        let low = numbers(cells[c].low / scale);
        let high = numbers(cells[c].high / scale);
        if (PER_WORD == CELL) {
            if (dim < dims) { DATA[at] = low | (high << 16u); }
        } else {
            if (dim < dims) { DATA[at] = low; }
            if (dim + 4u < dims) { DATA[at + 1u] = high; }
        }
    }
}
