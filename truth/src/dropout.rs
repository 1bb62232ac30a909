//! Which weights dropout keeps.

use wgpu_attention::Philox;

use crate::case::Case;

/// What dropout multiplies the weight of a pair (batch, query head, query, key) by.
pub(crate) fn dropout_factor(case: &Case, pair: [u32; 4], state: Philox) -> f32 {
    let p = f64::from(case.problem.dropout_p());
    let [batch, head, query, key] = pair;
    let counter = [key >> 2, query, batch * case.problem.shape().heads_q + head, state.offset];
    let number = philox(counter, state.seed)[key as usize & 3];
    // The numbers below p · 2³² drop theirs.
    if f64::from(number) < (p * 4_294_967_296.0).floor() { 0.0 } else { (1.0 / (1.0 - p)) as f32 }
}

/// Philox 4×32-10 as its authors write it: each round multiplies two words, and swaps and mixes the halves of the products.
fn philox([mut a, mut b, mut c, mut d]: [u32; 4], [mut k0, mut k1]: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let (left, right) = (u64::from(a) * 0xD251_1F53, u64::from(c) * 0xCD9E_8D57);
        (a, b, c, d) = ((right >> 32) as u32 ^ b ^ k0, right as u32, (left >> 32) as u32 ^ d ^ k1, left as u32);
        (k0, k1) = (k0.wrapping_add(0x9E37_79B9), k1.wrapping_add(0xBB67_AE85));
    }
    [a, b, c, d]
}
