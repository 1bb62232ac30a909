// Queries stay where they are, or another dispatch rotates them.
fn rotate_query(row: Row, thread: u32, position: u32) {}
