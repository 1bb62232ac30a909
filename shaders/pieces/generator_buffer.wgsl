// The seed and the offset of the generator are in a buffer.
fn generator_state() -> vec3<u32> { return vec3(rng_state[0], rng_state[1], rng_state[2]); }
