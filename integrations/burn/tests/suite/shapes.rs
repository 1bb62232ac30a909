//! Shapes that do not belong together.

use crate::{Call, mask, numbers};

#[test]
#[should_panic(expected = "The batch sizes differ")]
fn batches() {
    let mut call = Call::new([2, 2, 8, 32], 8);
    call.k = numbers([1, 2, 8, 32], 1);
    drop(fused(call));
}

#[test]
#[should_panic(expected = "the same length")]
fn lengths() {
    let mut call = Call::new([2, 2, 8, 32], 8);
    call.v = numbers([2, 2, 9, 32], 1);
    drop(fused(call));
}

#[test]
#[should_panic(expected = "must be a multiple")]
fn heads() {
    let mut call = Call::new([2, 3, 8, 32], 8);
    [call.k, call.v] = [1, 2].map(|seed| numbers([2, 2, 8, 32], seed));
    drop(fused(call));
}

#[test]
#[should_panic(expected = "the same head size")]
fn head_sizes() {
    let mut call = Call::new([2, 2, 8, 32], 8);
    call.k = numbers([2, 2, 8, 16], 1);
    drop(fused(call));
}

#[test]
#[should_panic(expected = "The mask must be [2, 2, 8, 8]")]
fn masks() {
    let mut call = Call::new([2, 2, 8, 32], 8);
    call.mask = Some(mask([2, 2, 8, 7], 1));
    drop(fused(call));
}

#[test]
#[should_panic(expected = "softcap must be positive")]
fn softcaps() {
    let mut call = Call::new([2, 2, 8, 32], 8);
    call.options.softcap = Some(0.0);
    drop(fused(call));
}

fn fused(call: Call) -> burn::tensor::Tensor<4> {
    wgpu_attention_burn::attention(call.q, call.k, call.v, call.mask, call.bias, call.options)
}
