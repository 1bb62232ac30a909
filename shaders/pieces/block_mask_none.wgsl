// No block mask: in every tile some pairs may be seen and some hidden.
const HAS_BLOCK_MASK = false;

fn tiles_with(row: Row, keys: vec4<u32>) -> vec4<u32> { return vec4(SOME_SEEN | SOME_HIDDEN); }
fn tiles_of(first: Row, final_row: Row, key: u32) -> u32 { return SOME_SEEN | SOME_HIDDEN; }
fn next_seen(first: Row, final_row: Row, key: u32, end: u32) -> u32 { return key; }
