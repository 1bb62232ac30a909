// f32; rows of any length, at any offset.

// Four elements of a row, from `dim` on; those past `count` are zero.
fn load(row: u32, dim: u32, count: u32) -> vec4<f32> {
    let i = places(row + dim, count);
    return select(vec4(0.0), vec4(DATA[i.x], DATA[i.y], DATA[i.z], DATA[i.w]), COMPONENTS < vec4(count));
}
