// An additive bias in f32.
const HAS_BIAS = true;

// The bias of four keys. `at` is the index of the element for key 0.
fn load_bias(at: u32, keys: vec4<u32>) -> vec4<f32> {
    let i = at + keys * params.bias_key;
    return vec4(bias[i.x], bias[i.y], bias[i.z], bias[i.w]);
}
