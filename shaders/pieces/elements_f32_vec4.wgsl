// f32, and every row starts at a multiple of four elements.

// Four elements from `at`; those past `count` are zero.
fn load(at: u32, count: u32) -> vec4<f32> { return DATA[at >> 2u]; }
