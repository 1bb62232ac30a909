// The position of a score, as users' programs see it. It counts from the start of the problem, however the work is cut.
fn at_of(row: Row, key: u32) -> At {
    let position = position_of(row);
    return At(position.x, position.y, position.y / params.group, position.z, key, row.diagonal);
}
