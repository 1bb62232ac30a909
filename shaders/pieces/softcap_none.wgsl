// No cap on the scaled scores.
const HAS_SOFTCAP = false;

// The products as scores, in the unit that Params says.
fn shape_scores(product: vec4<f32>) -> vec4<f32> { return product * params.score_scale; }
