// f32, every row starts at a multiple of four elements, and two at a time are read as one word: a driver that takes the
// numbers of a vector one by one then takes half as many.

// Four elements from `at`; those past `count` are zero.
fn load(at: u32, count: u32) -> vec4<f32> {
    let words = DATA[at >> 2u];
    return bitcast<vec4<f32>>(vec4(u32(words.x), u32(words.x >> 32u), u32(words.y), u32(words.y >> 32u)));
}
