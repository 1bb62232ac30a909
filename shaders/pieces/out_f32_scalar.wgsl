// Results as f32; rows of any length, at any offset.
fn store_out(at: u32, count: u32, x: vec4<f32>) {
    out[at] = x.x;
    if (count > 1u) { out[at + 1u] = x.y; }
    if (count > 2u) { out[at + 2u] = x.z; }
    if (count > 3u) { out[at + 3u] = x.w; }
}
