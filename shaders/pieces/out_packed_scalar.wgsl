// Results as two 16-bit elements per word; rows of any length, at any offset. Rows may share a word, so a store changes
// only its half of it, by two atomics on bits that no other thread writes.

fn store_half(at: u32, x: f32) {
    let shift = (at & 1u) << 4u;
    atomicAnd(&DATA[at >> 1u], 0xffff0000u >> shift);
    atomicOr(&DATA[at >> 1u], narrow(x) << shift);
}
fn store(at: u32, count: u32, x: vec4<f32>) {
    store_half(at, x.x);
    if (count > 1u) { store_half(at + 1u, x.y); }
    if (count > 2u) { store_half(at + 2u, x.z); }
    if (count > 3u) { store_half(at + 3u, x.w); }
}
