// Two 16-bit elements per word; rows of any length, at any offset.

// Four elements of a row, from `dim` on; those past `count` are zero.
fn load(row: u32, dim: u32, count: u32) -> vec4<f32> {
    let i = places(row + dim, count);
    let words = vec4(DATA[i.x >> 1u], DATA[i.y >> 1u], DATA[i.z >> 1u], DATA[i.w >> 1u]);
    return select(vec4(0.0), halves(words, i), COMPONENTS < vec4(count));
}
