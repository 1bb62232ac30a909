// Scores, backwards: from scores to weights, and from the gradients of weights to those of the scaled products.
//
//     P = exp(S − LSE)
//     dS = P ∘ (dP − mean)                                     row_sums.wgsl computes the mean
//     mask ← − ALiBi ← + bias ← score_mod ← softcap            what is added has slope 1

const LOG2_E = 1.4426950408889634;

// The weights of four scores, in the unit that Params defines.
fn weights_by_lse(s: vec4<f32>, lse: vec4<f32>) -> vec4<f32> {
    return exp2(fma(s, vec4(params.natural_scale), -lse) * LOG2_E);
}

fn score_gradients(p: vec4<f32>, dp: vec4<f32>, mean: vec4<f32>) -> vec4<f32> { return p * (dp - mean); }

// What the gradients of four scores give for their products.
fn product_gradients(row: Row, keys: vec4<u32>, products: vec4<f32>, gradient: vec4<f32>) -> vec4<f32> {
    return softcap_slopes(products) * unmodified(row, within(keys), shape_scores(products), gradient);
}
