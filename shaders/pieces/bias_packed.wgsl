// An additive bias stored like the 16-bit elements, two a word.
const HAS_BIAS = true;

// The bias of four keys; that of key 0 is `at`.
fn load_bias(at: u32, keys: vec4<u32>) -> vec4<f32> {
    let i = at + keys * params.bias_key;
    let words = vec4(bias[i.x >> 1u], bias[i.y >> 1u], bias[i.z >> 1u], bias[i.w >> 1u]);
    return halves(words, i);
}
