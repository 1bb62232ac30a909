// Where a score stands, as users' programs see it: counted from the start of the sequence, however the work is cut.
fn at_of(row: Row, key: u32) -> At {
    let head = params.first_head + row.head;
    return At(params.first_batch + row.batch, head, head / params.group, params.first_row + row.query, key, row.diagonal);
}
