// Results as two 16-bit elements a word; every row starts at a multiple of four elements.
@group(0) @binding(4) var<storage, read_write> out: array<vec2<u32>>;  // (B, Hq, Lq, Dv), or the weights (B, Hq, Lq, Lk)

fn store_out(at: u32, count: u32, x: vec4<f32>) {
    out[at >> 2u] = vec2(narrow(x.x) | (narrow(x.y) << 16u), narrow(x.z) | (narrow(x.w) << 16u));
}
