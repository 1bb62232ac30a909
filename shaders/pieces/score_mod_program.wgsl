// Calls the user's score_mod.
const HAS_SCORE_MOD = true;

fn modified(row: Row, keys: vec4<u32>, s: vec4<f32>) -> vec4<f32> {
    return vec4(score_mod(s.x, at_of(row, keys.x)), score_mod(s.y, at_of(row, keys.y)),
                score_mod(s.z, at_of(row, keys.z)), score_mod(s.w, at_of(row, keys.w)));
}
