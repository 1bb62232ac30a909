// Results as two 16-bit elements per word; every row starts at a multiple of four elements.

fn store(at: u32, count: u32, x: vec4<f32>) {
    DATA[at >> 2u] = vec2(narrow(x.x) | (narrow(x.y) << 16u), narrow(x.z) | (narrow(x.w) << 16u));
}
