// Quantized rows: a word with the row's scale, f32, and then 4-bit numbers, eight per word, the first in the lowest bits.
// The element of the number n is (n − 8) · scale.

// Four elements of a row, from `dim` on; those past `count` are zero.
fn load(row: u32, dim: u32, count: u32) -> vec4<f32> {
    let word = DATA[row + 1u + (FIRST + dim) / 8u];
    let numbers = (vec4(word) >> (vec4(0u, 4u, 8u, 12u) + ((FIRST + dim) & 4u) * 4u)) & vec4(15u);
    let elements = (vec4<f32>(numbers) - 8.0) * bitcast<f32>(DATA[row]);
    return select(vec4(0.0), elements, COMPONENTS < vec4(count));
}
