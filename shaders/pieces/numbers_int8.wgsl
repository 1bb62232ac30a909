// How rows are quantized: see elements_int8.wgsl.
const RANGE = 127.0;
const PER_WORD = 4u;

// Four elements, which are divided by the scale, as the integers nearest to them.
fn numbers(x: vec4<f32>) -> u32 {
    let bytes = vec4<u32>(vec4<i32>(clamp(round(select(x, vec4(0.0), are_nan(x))), vec4(-127.0), vec4(127.0)))) & vec4(0xffu);
    return bytes.x | (bytes.y << 8u) | (bytes.z << 16u) | (bytes.w << 24u);
}
