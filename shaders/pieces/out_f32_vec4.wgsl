// Results as f32; every row starts at a multiple of four elements.
fn store(at: u32, count: u32, x: vec4<f32>) { DATA[at >> 2u] = x; }
