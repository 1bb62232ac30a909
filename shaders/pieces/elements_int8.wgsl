// Quantized rows: a word with the row's scale, f32, and then 8-bit integers, four per word.

// Four elements of a row, from `dim` on; those past `count` are zero.
fn load(row: u32, dim: u32, count: u32) -> vec4<f32> {
    let word = DATA[row + 1u + (FIRST + dim) / 4u];
    let integers = bitcast<vec4<i32>>(vec4(word) << vec4(24u, 16u, 8u, 0u)) >> vec4(24u);
    return select(vec4(0.0), vec4<f32>(integers) * bitcast<f32>(DATA[row]), COMPONENTS < vec4(count));
}
