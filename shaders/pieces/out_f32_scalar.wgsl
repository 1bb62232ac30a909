// Results as f32; rows of any length, at any offset.
fn store(at: u32, count: u32, x: vec4<f32>) {
    DATA[at] = x.x;
    if (count > 1u) { DATA[at + 1u] = x.y; }
    if (count > 2u) { DATA[at + 2u] = x.z; }
    if (count > 3u) { DATA[at + 3u] = x.w; }
}
