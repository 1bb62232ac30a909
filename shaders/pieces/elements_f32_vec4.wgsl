// f32; every row starts at a multiple of four elements.

// Four elements from `at`. Rows are whole vectors, so `count` is not needed.
fn load(at: u32, count: u32) -> vec4<f32> { return DATA[at >> 2u]; }
