// How rows are quantized: see elements_fp8.wgsl.
const RANGE = 448.0;
const PER_WORD = 4u;

// Four elements, which are divided by the scale, as the floats of 8 bits nearest to them, in a tie the even ones.
fn numbers(x: vec4<f32>) -> u32 {
    let size = min(abs(x), vec4(448.0));
    let bits = bitcast<vec4<u32>>(size);
    // f32 has 120 more in its exponent. Below 2⁻⁶, floats of 8 bits are multiples of 2⁻⁹.
    let normal = ((bits + vec4(0x7ffffu) + ((bits >> vec4(20u)) & vec4(1u))) >> vec4(20u)) - vec4(960u);
    let magnitude = select(normal, vec4<u32>(round(size * 512.0)), size < vec4(0.015625));
    let bytes = select(magnitude, vec4(0x7fu), are_nan(x)) | select(vec4(0u), vec4(0x80u), x < vec4(0.0));
    return bytes.x | (bytes.y << 8u) | (bytes.z << 16u) | (bytes.w << 24u);
}
