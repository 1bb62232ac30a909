// Another dispatch appends keys and values.
fn append_key(site: Site, row: Row, thread: u32, key: u32) {}
