// Without a mask none is skipped: only tiles that somebody sees are visited.
fn nobody_sees(thread: u32, seen: bool) -> bool { return false; }
