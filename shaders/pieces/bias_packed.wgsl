// An additive bias of 16-bit elements, two per word.
const HAS_BIAS = true;

// The bias of four keys. `at` is the index of the element for key 0.
fn load_bias(at: u32, keys: vec4<u32>) -> vec4<f32> {
    let i = at + keys * params.bias_key;
    let words = vec4(bias[i.x >> 1u], bias[i.y >> 1u], bias[i.z >> 1u], bias[i.w >> 1u]);
    return halves(words, i);
}
