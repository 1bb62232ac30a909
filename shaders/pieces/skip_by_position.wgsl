// Without a mask and a mask_mod there is no vote: the positions and the block mask have chosen the tiles that are visited.
fn may_skip(thread: u32, seen: bool) -> bool { return false; }
