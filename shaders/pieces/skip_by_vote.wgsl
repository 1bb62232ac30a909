// Tiles of a mask of which nobody sees anything are skipped.
var<workgroup> votes: atomic<u32>;

// Whether no thread of the workgroup saw anything: the tile can be skipped. Three barriers.
fn nobody_sees(thread: u32, seen: bool) -> bool {
    if (thread == 0u) { atomicStore(&votes, 0u); }
    workgroupBarrier();
    if (seen) { atomicOr(&votes, 1u); }
    return workgroupUniformLoad(&votes) == 0u;
}
