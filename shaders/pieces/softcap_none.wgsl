// No cap on the scaled scores.
const HAS_SOFTCAP = false;

// Turns products into scores, in the unit that Params defines.
fn shape_scores(product: vec4<f32>) -> vec4<f32> { return product * params.score_scale; }
