// A cap on the scaled scores: c·tanh(s / c).
const HAS_SOFTCAP = true;

// WGSL allows a tanh that overflows, or that loses the digits of a small x to the difference of two exponentials. Below ½
// this one uses the continued fraction, whose error there is far below f32's.
fn accurate_tanh(x: vec4<f32>) -> vec4<f32> {
    let y = x * x;
    let small = x * fma(y, y + 105.0, vec4(945.0)) / fma(y, fma(y, vec4(15.0), vec4(420.0)), vec4(945.0));
    let t = exp(-2.0 * abs(x));
    let large = sign(x) * (1.0 - t) / (1.0 + t);
    return select(large, small, y < vec4(0.25));
}

// Turns products into scores, in the unit that Params defines.
fn shape_scores(product: vec4<f32>) -> vec4<f32> {
    return params.softcap_scale * accurate_tanh(product * params.score_scale);
}
