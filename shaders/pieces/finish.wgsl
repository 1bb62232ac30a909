// What a state comes to once all keys are in it.

// The share that x has of l. A row that saw only scores of −∞ has no weights: l is 0 there and nowhere else, and the row is NaN.
fn share_of(x: vec4<f32>, l: f32) -> vec4<f32> { return select(x / l, vec4(params.nan), l == 0.0); }

fn log_sum_exp(m: f32, l: f32) -> f32 {
    return select(m * params.natural_scale + log(l), params.nan, l == 0.0);
}
