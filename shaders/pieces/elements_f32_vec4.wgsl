// f32; every row starts at a multiple of four elements.

// Four elements of a row, from `dim` on. Rows are whole vectors, so `count` is not needed.
fn load(row: u32, dim: u32, count: u32) -> vec4<f32> { return DATA[(row + dim) >> 2u]; }
