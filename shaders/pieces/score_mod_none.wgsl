// No score_mod.
const HAS_SCORE_MOD = false;

fn modified(row: Row, keys: vec4<u32>, s: vec4<f32>) -> vec4<f32> { return s; }
