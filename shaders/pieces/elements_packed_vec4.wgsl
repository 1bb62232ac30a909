// Two 16-bit elements per word; every row starts at a multiple of four elements.

// Four elements of a row, from `dim` on. Rows are whole vectors, so `count` is not needed.
fn load(row: u32, dim: u32, count: u32) -> vec4<f32> { return vec4(widen(DATA[(row + dim) >> 2u].x), widen(DATA[(row + dim) >> 2u].y)); }
