// Two 16-bit elements per word; rows of any length, at any offset.

// Four elements from `at`; those past `count` are zero.
fn load(at: u32, count: u32) -> vec4<f32> {
    let i = places(at, count);
    let words = vec4(DATA[i.x >> 1u], DATA[i.y >> 1u], DATA[i.z >> 1u], DATA[i.w >> 1u]);
    return select(vec4(0.0), halves(words, i), COMPONENTS < vec4(count));
}
