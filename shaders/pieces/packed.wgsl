// Reads single 16-bit elements from words that hold two.

// The half of each word that holds element `i`.
fn halves(words: vec4<u32>, i: vec4<u32>) -> vec4<f32> {
    let bits = words >> ((i & vec4(1u)) << vec4(4u));
    return vec4(widen(bits.x).x, widen(bits.y).x, widen(bits.z).x, widen(bits.w).x);
}
