//! The gradients, against those that burn finds through its own composition.

use burn::tensor::Tensor;

use crate::{Call, assert_close, numbers};

/// Queries, keys, values and perhaps the bias, as parameters.
fn gradients(call: &Call, attend: fn(&Call) -> Tensor<4>) -> Vec<Tensor<4>> {
    let tracked = |tensor: &Tensor<4>| tensor.clone().autodiff().require_grad();
    let call = Call {
        q: tracked(&call.q),
        k: tracked(&call.k),
        v: tracked(&call.v),
        mask: call.mask.clone(),
        bias: call.bias.as_ref().map(tracked),
        options: call.options,
    };
    // So that the gradient of the output is another tensor than ones, and computed late.
    let out = attend(&call);
    let weights: Tensor<4> = numbers(out.dims(), 20);
    let grads = (out.clone() * out * weights).sum().backward();
    let tensors = [Some(&call.q), Some(&call.k), Some(&call.v), call.bias.as_ref()];
    tensors.into_iter().flatten().map(|tensor| tensor.grad(&grads).unwrap()).collect()
}

fn check(call: &Call) {
    let (got, wanted) = (gradients(call, Call::fused), gradients(call, Call::composed));
    for (got, wanted) in got.into_iter().zip(wanted) {
        assert_close(got, wanted, 5e-5);
    }
}

#[test]
fn plain() {
    check(&Call::new([2, 2, 40, 32], 50));
}

#[test]
fn causal() {
    check(&Call::new([2, 2, 10, 32], 50).causal());
}

#[test]
fn masked() {
    check(&Call::new([2, 2, 40, 32], 50).masked());
}

#[test]
fn biased() {
    check(&Call::new([2, 2, 40, 32], 50).biased());
}

#[test]
fn everything() {
    let mut call = Call::new([2, 2, 40, 32], 50).masked().biased().causal();
    call.options.scale = Some(0.7);
    call.options.softcap = Some(3.0);
    check(&call);
}

/// The gradient of a bias that is the same for all heads and queries is a sum over them.
#[test]
fn broadcast_bias() {
    let mut call = Call::new([2, 2, 40, 32], 50);
    call.bias = Some(numbers([1, 2, 1, 50], 5));
    let fused = gradients(&call, Call::fused);
    let composed = gradients(&call, |call| {
        let bias = call.bias.clone().map(|bias| bias.expand(call.scores()));
        Call { q: call.q.clone(), k: call.k.clone(), v: call.v.clone(), mask: None, bias, options: call.options }
            .composed()
    });
    for (got, wanted) in fused.into_iter().zip(composed) {
        assert_close(got, wanted, 5e-5);
    }
}

/// Through views of a projection, and with a bias that was expanded.
#[test]
fn through_views() {
    let parameters = |attend: fn(&Call) -> Tensor<4>| {
        let tracked = |tensor: Tensor<3>| tensor.autodiff().require_grad();
        let packed = tracked(numbers([2, 40, 3 * 64], 1));
        let bias = tracked(numbers([1, 40, 40], 2));
        let mut call = Call::new([1, 1, 1, 1], 1);
        [call.q, call.k, call.v] = [0, 1, 2]
            .map(|n| packed.clone().slice([0..2, 0..40, n * 64..(n + 1) * 64]).reshape([2, 40, 2, 32]).swap_dims(1, 2));
        call.bias = Some(bias.clone().reshape([1, 1, 40, 40]).expand([2, 2, 40, 40]));
        let out = attend(&call.causal());
        let grads = (out.swap_dims(1, 2).reshape([2, 40, 64]).tanh()).sum().backward();
        [packed.grad(&grads).unwrap(), bias.grad(&grads).unwrap()]
    };
    for (got, wanted) in parameters(Call::fused).into_iter().zip(parameters(Call::composed)) {
        assert_close(got, wanted, 5e-5);
    }
}

/// Only some of the inputs are parameters.
#[test]
fn of_some() {
    let values = |attend: fn(&Call) -> Tensor<4>| {
        let mut call = Call::new([1, 2, 20, 32], 30).biased();
        call.v = call.v.autodiff().require_grad();
        let grads = attend(&call).powi_scalar(2).sum().backward();
        call.v.grad(&grads).unwrap()
    };
    assert_close(values(Call::fused), values(Call::composed), 5e-5);
}

/// Keys and values that query heads share get the sum over these heads.
#[test]
fn grouped_queries() {
    let mut call = Call::new([1, 4, 20, 32], 30);
    [call.k, call.v] = [2, 3].map(|seed| numbers([1, 2, 30, 32], seed));
    let fused = gradients(&call, Call::fused);
    let composed = gradients(&call, |call| {
        let repeated = |tensor: &Tensor<4>| {
            tensor.clone().reshape([1, 2, 1, 30, 32]).expand([1, 2, 2, 30, 32]).reshape([1, 4, 30, 32])
        };
        let (k, v) = (repeated(&call.k), repeated(&call.v));
        Call { q: call.q.clone(), k, v, mask: None, bias: None, options: call.options }.composed()
    });
    for (got, wanted) in fused.into_iter().zip(composed) {
        assert_close(got, wanted, 5e-5);
    }
}
