// Four 16-bit elements to a word, and every row starts at a multiple of four elements: a driver that takes the numbers of a
// vector one by one then takes half as many.

// Four elements from `at`; those past `count` are zero.
fn load(at: u32, count: u32) -> vec4<f32> {
    let word = DATA[at >> 2u];
    return vec4(widen(u32(word)), widen(u32(word >> 32u)));
}
