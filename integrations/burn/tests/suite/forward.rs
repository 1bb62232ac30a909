//! The output, with each option alone and all together.

use burn::tensor::DType;

use crate::{Call, assert_close, device, mask, numbers};

#[test]
fn plain() {
    Call::new([2, 3, 70, 64], 70).check();
    Call::new([1, 2, 1, 32], 300).check();
    Call::new([1, 1, 33, 20], 65).check();
}

#[test]
fn values_of_another_size() {
    let mut call = Call::new([2, 2, 40, 32], 50);
    call.v = numbers([2, 2, 50, 48], 3);
    call.check();
}

#[test]
fn causal_from_the_end() {
    for (len_q, len_k) in [(64, 64), (10, 64), (64, 10)] {
        Call::new([1, 2, len_q, 32], len_k).causal().check();
    }
}

#[test]
fn masks() {
    Call::new([2, 2, 40, 32], 50).masked().check();
    // A row without keys is 0.
    let mut call = Call::new([1, 2, 8, 32], 8).masked();
    call.mask = call.mask.map(|mask| mask.slice_fill([0..1, 0..2, 3..4], true));
    call.check();
}

#[test]
fn broadcast_masks_and_biases() {
    let mut call = Call::new([2, 2, 40, 32], 50);
    let expanded = call.scores();
    for dims in [[2, 1, 1, 50], [1, 1, 40, 50], [1, 2, 40, 1]] {
        let (mask, bias) = (mask(dims, 6), numbers(dims, 7));
        (call.mask, call.bias) = (Some(mask.clone()), Some(bias.clone()));
        let fused = call.fused();
        (call.mask, call.bias) = (Some(mask.expand(expanded)), Some(bias.expand(expanded)));
        assert_close(fused, call.composed(), 1e-5);
        // Strides of 0.
        call.check();
    }
}

#[test]
fn bias() {
    Call::new([2, 2, 40, 32], 50).biased().check();
}

#[test]
fn scale_and_softcap() {
    let mut call = Call::new([1, 2, 40, 32], 50);
    call.options.scale = Some(2.0);
    call.check();
    call.options.softcap = Some(3.0);
    call.check();
}

#[test]
fn everything() {
    let mut call = Call::new([2, 2, 40, 32], 50).masked().biased().causal();
    call.options.scale = Some(0.7);
    call.options.softcap = Some(3.0);
    call.check();
}

#[test]
fn half_precision() {
    let call = Call::new([2, 2, 40, 32], 50).masked().biased().causal();
    let wanted = call.composed();
    if !device().supports_dtype(DType::F16) {
        eprintln!("f16 is not supported on this device");
        return;
    }
    let call = call.cast(DType::F16);
    let fused = call.fused();
    assert_eq!(fused.dtype(), DType::F16);
    assert_close(fused.cast(DType::F32), wanted, 2e-3);
}

#[test]
fn grouped_queries() {
    let mut call = Call::new([2, 6, 40, 32], 50).masked().biased();
    let shared = [8, 9].map(|seed| numbers([2, 2, 50, 32], seed));
    let repeated = shared
        .clone()
        .map(|tensor| tensor.reshape([2, 2, 1, 50, 32]).expand([2, 2, 3, 50, 32]).reshape([2, 6, 50, 32]));
    [call.k, call.v] = shared;
    let fused = call.fused();
    [call.k, call.v] = repeated;
    assert_close(fused, call.composed(), 1e-5);
}
