// The position of a score, as users' programs see it. It counts from the start of the problem, however the work is cut.
fn at_of(row: Row, key: u32) -> At {
    let head = params.first_head + row.head;
    return At(params.first_batch + row.batch, head, head / params.group, params.first_row + row.query, key, row.diagonal);
}
