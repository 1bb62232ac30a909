// With a mask or a mask_mod, the threads vote whether to skip a tile.
var<workgroup> votes: atomic<u32>;

// Whether no thread's rows see any key, so that the tile can be skipped. Three barriers.
fn may_skip(thread: u32, seen: bool) -> bool {
    if (thread == 0u) { atomicStore(&votes, 0u); }
    workgroupBarrier();
    if (seen) { atomicOr(&votes, 1u); }
    return workgroupUniformLoad(&votes) == 0u;
}
