// binary16, not widened; rows of any length, at any offset.

// Four elements from `at`; those past `count` are zero.
fn load(at: u32, count: u32) -> vec4<f16> {
    let i = places(at, count);
    return select(vec4<f16>(), vec4(DATA[i.x], DATA[i.y], DATA[i.z], DATA[i.w]), COMPONENTS < vec4(count));
}
