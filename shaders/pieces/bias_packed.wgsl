// An additive bias stored like the 16-bit elements, two a word.
const HAS_BIAS = true;
@group(0) @binding(7) var<storage, read> bias: array<u32>;  // (B, Hq, Lq, Lk), broadcast by strides of 0

// The bias of four keys; that of key 0 is `at`.
fn load_bias(at: u32, keys: vec4<u32>) -> vec4<f32> {
    let i = at + keys * params.bias_key;
    let words = vec4(bias[i.x >> 1u], bias[i.y >> 1u], bias[i.z >> 1u], bias[i.w >> 1u]);
    let bits = words >> ((i & vec4(1u)) << vec4(4u));
    return vec4(widen(bits.x).x, widen(bits.y).x, widen(bits.z).x, widen(bits.w).x);
}
