// 16-bit elements one at a time, out of the words that hold two.

// Of each word, the half that its element's place `i` names.
fn halves(words: vec4<u32>, i: vec4<u32>) -> vec4<f32> {
    let bits = words >> ((i & vec4(1u)) << vec4(4u));
    return vec4(widen(bits.x).x, widen(bits.y).x, widen(bits.z).x, widen(bits.w).x);
}
