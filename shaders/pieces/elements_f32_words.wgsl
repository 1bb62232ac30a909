// f32; every row starts at a multiple of four elements. Two elements are read as one 64-bit word: a driver that loads the
// components of a vector one by one then needs half as many loads.

// Four elements of a row, from `dim` on. Rows are whole vectors, so `count` is not needed.
fn load(row: u32, dim: u32, count: u32) -> vec4<f32> {
    let words = DATA[(row + dim) >> 2u];
    return bitcast<vec4<f32>>(vec4(u32(words.x), u32(words.x >> 32u), u32(words.y), u32(words.y >> 32u)));
}
