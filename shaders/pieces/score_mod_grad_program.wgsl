// Calls the user's score_mod_grad, which turns the gradient of a modified score into that of the score.
fn unmodified(row: Row, keys: vec4<u32>, s: vec4<f32>, gradient: vec4<f32>) -> vec4<f32> {
    return vec4(score_mod_grad(s.x, at_of(row, keys.x), gradient.x), score_mod_grad(s.y, at_of(row, keys.y), gradient.y),
                score_mod_grad(s.z, at_of(row, keys.z), gradient.z), score_mod_grad(s.w, at_of(row, keys.w), gradient.w));
}
