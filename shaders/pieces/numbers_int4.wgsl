// How rows are quantized: see elements_int4.wgsl.
const RANGE = 7.0;
const PER_WORD = 8u;

// Four elements, which are divided by the scale, as the numbers nearest to them.
fn numbers(x: vec4<f32>) -> u32 {
    let n = vec4<u32>(clamp(round(select(x, vec4(0.0), are_nan(x))), vec4(-8.0), vec4(7.0)) + 8.0);
    return n.x | (n.y << 4u) | (n.z << 8u) | (n.w << 12u);
}
