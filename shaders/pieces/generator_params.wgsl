// The seed and the offset of the generator are the problem's.
fn generator_state() -> vec3<u32> { return params.rng.xyz; }
