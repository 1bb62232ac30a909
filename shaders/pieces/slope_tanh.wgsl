// The slope of c·tanh(x / c): 1 − tanh² = 4e / (1 + e)² with e = exp(−2|x| / c), which keeps its digits where tanh is near 1.
fn softcap_slopes(products: vec4<f32>) -> vec4<f32> {
    let e = exp(-2.0 * abs(products * params.score_scale));
    return 4.0 * e / ((1.0 + e) * (1.0 + e));
}
