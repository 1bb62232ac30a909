// binary16, not widened; rows of any length, at any offset.

// Four elements of a row, from `dim` on; those past `count` are zero.
fn load(row: u32, dim: u32, count: u32) -> vec4<f16> {
    let i = places(row + dim, count);
    return select(vec4<f16>(), vec4(DATA[i.x], DATA[i.y], DATA[i.z], DATA[i.w]), COMPONENTS < vec4(count));
}
