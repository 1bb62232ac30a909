// binary16 as it is, four to a vector, and every row starts at a multiple of four elements.

// Four elements from `at`; those past `count` are zero.
fn load(at: u32, count: u32) -> vec4<f16> { return DATA[at >> 2u]; }
