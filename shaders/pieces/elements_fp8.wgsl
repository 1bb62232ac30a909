// Quantized rows: a word with the row's scale, f32, and then 8-bit floats, four per word: a sign, 4 bits of exponent, 3 of
// mantissa (E4M3: no infinities; NaN if all but the sign are set).

// Four elements of a row, from `dim` on; those past `count` are zero.
fn load(row: u32, dim: u32, count: u32) -> vec4<f32> {
    let bytes = (vec4(DATA[row + 1u + (FIRST + dim) / 4u]) >> vec4(0u, 8u, 16u, 24u)) & vec4(0xffu);
    let magnitude = bytes & vec4(0x7fu);
    // f32 has 120 more in its exponent. Without an exponent, the mantissa counts 2⁻⁹.
    let normal = bitcast<vec4<f32>>((magnitude << vec4(20u)) + vec4(0x3c000000u));
    let size = select(normal, vec4<f32>(magnitude) * 0.001953125, magnitude < vec4(8u));
    let number = select(select(size, -size, bytes >= vec4(0x80u)), vec4(params.nan), magnitude == vec4(0x7fu));
    return select(vec4(0.0), number * bitcast<f32>(DATA[row]), COMPONENTS < vec4(count));
}
