// Four 16-bit elements per 64-bit word; every row starts at a multiple of four elements. A driver that loads the components
// of a vector one by one then needs half as many loads.

// Four elements of a row, from `dim` on. Rows are whole vectors, so `count` is not needed.
fn load(row: u32, dim: u32, count: u32) -> vec4<f32> {
    let word = DATA[(row + dim) >> 2u];
    return vec4(widen(u32(word)), widen(u32(word >> 32u)));
}
